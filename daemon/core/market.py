"""Instruments, timeframes and columns of market data.

Time is int64 nanoseconds UTC. Bars carry their *start* time and are half-open: a bar of one hour at 14:00 covers
[14:00, 15:00).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

TsNs: TypeAlias = int
Float64s: TypeAlias = NDArray[np.float64]
Int64s: TypeAlias = NDArray[np.int64]
VolumeUnit: TypeAlias = Literal["base", "quote"]
"""What a bar's volume counts: units of the base, or quote currency (price times size)."""

NS_PER_SECOND = 1_000_000_000
NS_PER_HOUR = 3_600 * NS_PER_SECOND
NS_PER_DAY = 24 * NS_PER_HOUR

SYMBOL_PATTERN = re.compile(r"[A-Z0-9][A-Z0-9._/-]{0,31}")
VENUE_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,15}")


class Timeframe(StrEnum):
    """The bar lengths the daemon knows."""

    SEC_1 = "1Sec"
    MIN_1 = "1Min"
    MIN_5 = "5Min"
    MIN_15 = "15Min"
    HOUR_1 = "1Hour"
    DAY_1 = "1Day"

    @property
    def ns(self) -> int:
        """Length in nanoseconds."""
        return _TIMEFRAME_NS[self]


_TIMEFRAME_NS = {
    Timeframe.SEC_1: NS_PER_SECOND,
    Timeframe.MIN_1: 60 * NS_PER_SECOND,
    Timeframe.MIN_5: 300 * NS_PER_SECOND,
    Timeframe.MIN_15: 900 * NS_PER_SECOND,
    Timeframe.HOUR_1: NS_PER_HOUR,
    Timeframe.DAY_1: NS_PER_DAY,
}


class Instrument(msgspec.Struct, frozen=True, order=True):
    """What is traded, and where: its key is `venue:symbol`."""

    venue: str
    symbol: str

    @property
    def key(self) -> str:
        """`venue:symbol`, unique in a store."""
        return f"{self.venue}:{self.symbol}"


class Bars(NamedTuple):
    """One series of bars: equally long columns, ascending `start_ns` without repeats.

    start_ns: (n,) int64, nanoseconds UTC, the start of each bar.
    open, high, low, close: (n,) float64, quote currency.
    volume: (n,) float64, base units unless the series says quote currency; fractional on crypto venues.
    """

    start_ns: Int64s
    open: Float64s
    high: Float64s
    low: Float64s
    close: Float64s
    volume: Float64s

    @property
    def size(self) -> int:
        """How many bars; `len` counts columns, as of any tuple."""
        return self.start_ns.size

    def rows(self, start: int, stop: int) -> Bars:
        """Rows [start, stop) as views."""
        return Bars._make(column[start:stop] for column in self)


class BarTable(NamedTuple):
    """Bars as a file gave them: unsorted, not yet checked against each other.

    bars: columns in file order; every value finite.
    lines: (n,) int64, the line (CSV) or row (Parquet) of each bar in its file, counted from 1, to name in errors.
    notes: sentences the user should see, such as an assumed time zone.
    """

    bars: Bars
    lines: Int64s
    notes: tuple[str, ...]


class FundingTable(NamedTuple):
    """Funding rates of a perpetual as a file gave them: unsorted, not yet checked against each other.

    time_ns: (n,) int64, nanoseconds UTC, when longs paid shorts.
    rate: (n,) float64, fraction of the position's worth, negative where shorts paid longs; every value finite.
    lines: (n,) int64, the line of each in its file, counted from 1, to name in errors.
    notes: sentences the user should see, such as an assumed time zone.
    """

    time_ns: Int64s
    rate: Float64s
    lines: Int64s
    notes: tuple[str, ...]
