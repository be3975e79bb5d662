"""Times of ticks: epoch numbers, ISO 8601 text or Arrow's own to int64 ns UTC, exactly.

A column's first time decides how all of it is written. Numbers count seconds, milliseconds, microseconds or
nanoseconds since 1970; the unit shows in the magnitude, for the years 1980 to 2099 lie apart in all four. A column
that changes unit half-way is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from adapters.shared.exact import DECIMAL, whole_numbers
from daemon.core.ticks import UNKNOWN_NS

if TYPE_CHECKING:
    import pyarrow as pa

    from daemon.core.market import Int64s

_EARLIEST_S = 315_532_800  # 1980-01-01
_LATEST_S = 4_102_444_800  # 2100-01-01
_ZONE = re.compile(r".*[T ]\d\d.*?(Z|[+-]\d\d(:?\d\d)?)", re.DOTALL)
_PRECISION = 38
# Beyond nanoseconds nothing is kept; in nanoseconds a time has 19 digits.
_EPOCH_DECIMALS = 18


class Epoch(NamedTuple):
    """Numbers since 1970 in one unit; `digits` of its decimals are whole nanoseconds."""

    unit: str
    digits: int

    def says(self) -> str:
        """Name it in a sentence."""
        return f"counts {self.unit} since 1970"


class Clock(NamedTuple):
    """Dates and clocks; has_zone tells whether they name their offset from UTC."""

    has_zone: bool

    def says(self) -> str:
        """Name it in a sentence."""
        return "is a date and clock with a zone" if self.has_zone else "is a date and clock without a zone"


Writing: TypeAlias = Epoch | Clock
_EPOCHS: Final = (Epoch("seconds", 9), Epoch("milliseconds", 6), Epoch("microseconds", 3), Epoch("nanoseconds", 0))


def writing_of(column: pa.ChunkedArray) -> Writing | None:
    """Tell how a column's first time is written; None where it is no time.

    column: text, integers, decimals, timestamps or dates; at least one row.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return Clock(has_zone=getattr(kind, "tz", None) is not None)
    if pa.types.is_floating(kind):
        return None  # Doubles blur nanoseconds, and narrower floats minutes.
    text = (column.slice(0, 1).cast(pa.string())[0].as_py() or "").strip(" \t")
    if text == "0":  # A time of arrival that is not known, as this house writes it: in nanoseconds.
        return _EPOCHS[-1]
    if DECIMAL.fullmatch(text):
        return next((epoch for epoch in _EPOCHS if _fits(text, epoch)), None)
    return Clock(has_zone=_ZONE.fullmatch(text) is not None)


def read_times(column: pa.ChunkedArray, writing: Writing, *, unknown_allowed: bool = False) -> Int64s:
    """Convert to (n,) int64 ns UTC.

    unknown_allowed: a 0 stays UNKNOWN_NS, as for times of arrival that a source does not know.
    ValueError where a cell is missing, or written in another way than `writing`.
    """
    if column.null_count:
        raise ValueError("null")
    found = _epoch_ns(column, writing) if isinstance(writing, Epoch) else _clock_ns(column, writing)
    known = (found >= _EARLIEST_S * 10**9) & (found < _LATEST_S * 10**9)
    if unknown_allowed:
        known |= found == UNKNOWN_NS
    if not known.all():
        raise ValueError("another unit, or another century")
    return found


def time_fault(cell: str, writing: Writing | None) -> str:
    """Say what is wrong with a cell that `read_times` refused, and what to do."""
    import pyarrow as pa

    own = writing_of(pa.chunked_array([[cell]], pa.string()))
    if own is not None and writing is not None and own != writing and _readable(cell, own):
        return f"which {own.says()}, where the first time {writing.says()}; split the file where it changes"
    return "which is no time between 1980 and 2100; write 2024-01-31T14:30:00.123Z or epoch milliseconds"


def _epoch_ns(column: pa.ChunkedArray, epoch: Epoch) -> Int64s:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        raise ValueError("no numbers")
    # At this scale the decimal's integer is the nanoseconds; digits beyond them make the cast fail.
    try:
        return whole_numbers(column.cast(pa.decimal128(_PRECISION, epoch.digits)))
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _clock_ns(column: pa.ChunkedArray, clock: Clock) -> Int64s:
    import pyarrow as pa

    zone = getattr(column.type, "tz", None) or ("UTC" if clock.has_zone else None)
    stamps = column.cast(pa.timestamp("ns", zone)).cast(pa.int64())
    return np.concatenate([np.array(chunk, dtype=np.int64) for chunk in stamps.chunks])


def _fits(text: str, epoch: Epoch) -> bool:
    whole = text.partition(".")[0].lstrip("+")
    if not whole.isdecimal() or len(whole) > _EPOCH_DECIMALS + 1:
        return False
    scale = int(10 ** (9 - epoch.digits))
    return _EARLIEST_S * scale <= int(whole) < _LATEST_S * scale


def _readable(cell: str, writing: Writing) -> bool:
    import pyarrow as pa

    try:
        read_times(pa.chunked_array([[cell]], pa.string()), writing)
    except ValueError:
        return False
    return True
