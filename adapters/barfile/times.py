"""Times: text, epoch numbers or Arrow's own to int64 nanoseconds UTC, exactly.

A file's first time decides how all its times are written: with a zone, without one, or as a number counted in
one unit since 1970. The unit shows in the magnitude: a number below 7,258,118,400 counts seconds until the
year 2200, below a thousand times that milliseconds, and so on. Each value must fall into the same band, so a
file that changes unit half-way is refused; the price is that milliseconds (or finer) before 27 March 1970
pass for a coarser unit.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from adapters.barfile.numbers import joined, trimmed
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND

if TYPE_CHECKING:
    import pyarrow as pa

    from daemon.core.market import Int64s

YEAR_2200_NS = 7_258_118_400 * NS_PER_SECOND

# Bounded, because what it matches is computed with exactly.
_EPOCH = re.compile(r"[+-]?(\d{1,30}(\.\d{0,30})?|\.\d{1,30})([eE][+-]?\d{1,2})?", re.ASCII)
_ZONE = re.compile(r".*[T ]\d\d.*?(Z|[+-]\d\d(:?\d\d)?)")
# Read as an epoch number, 20240131 would be a day in August 1970 and 202401311430 one in 1976.
_DASHLESS = re.compile(r"(19|20|21)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])([0-5]\d){1,2})?")
_DATE_CHARACTERS = len("2024-01-31")
_HOW_TO_WRITE = "write 2024-01-31T14:30:00Z, 2024-01-31 or epoch milliseconds"


class Zone(StrEnum):
    """Whether times name their offset from UTC."""

    GIVEN = "given"
    ABSENT = "absent"


class Unit(NamedTuple):
    """A unit of epoch numbers; `digits` of its decimals are whole nanoseconds."""

    name: str
    digits: int

    @property
    def limit(self) -> int:
        """The year 2200 in this unit."""
        return YEAR_2200_NS // int(10**self.digits)


UNITS = (Unit("seconds", 9), Unit("milliseconds", 6), Unit("microseconds", 3), Unit("nanoseconds", 0))


class Times(Protocol):
    """One way to write times."""

    def read(self, column: pa.ChunkedArray) -> Int64s:
        """Convert to (n,) int64 ns UTC; ValueError when a cell is missing or written in another way."""

    def fault(self, text: str) -> str:
        """Say what is wrong with a cell that `read` refused, and what to do."""

    def note(self, first: str, start_ns: Int64s) -> str | None:
        """Say what had to be assumed."""


def written_like(first: str) -> Times:
    """Choose the way to write times from a file's first one."""
    first = first.strip(" \t")
    if _EPOCH.fullmatch(first) and not _DASHLESS.fullmatch(first):
        return EpochTimes(_unit_of(Decimal(first)) or UNITS[0])
    return ClockTimes(Zone.GIVEN if _ZONE.fullmatch(first) else Zone.ABSENT)


class ClockTimes(NamedTuple):
    """ISO 8601 text: a date, or a date and a clock, down to nanoseconds."""

    zone: Zone

    def read(self, column: pa.ChunkedArray) -> Int64s:
        """Convert text; see `Times`."""
        import pyarrow as pa

        if column.null_count:
            raise ValueError("null")
        return _since_epoch(trimmed(column).cast(pa.timestamp("ns", "UTC" if self.zone is Zone.GIVEN else None)))

    def fault(self, text: str) -> str:
        """Explain; see `Times`."""
        text = text.strip(" \t")
        if match := _DASHLESS.fullmatch(text):
            return f"which is a date without dashes; write {text[:4]}-{match[2]}-{match[3]}"
        other = Zone.ABSENT if self.zone is Zone.GIVEN else Zone.GIVEN
        if _is_time(text, other):
            carries = (
                "a zone although the first time does not"
                if other is Zone.GIVEN
                else "no zone although the first time does"
            )
            return f"which carries {carries}; write all times alike"
        return f"which is not a time between the years 1677 and 2262; {_HOW_TO_WRITE}"

    def note(self, first: str, start_ns: Int64s) -> str | None:
        """Say so when UTC is assumed."""
        if self.zone is Zone.GIVEN:
            return None
        if len(first.strip(" \t")) == _DATE_CHARACTERS and not (start_ns % NS_PER_DAY).any():
            return "Times are dates without a clock: 00:00 UTC assumed."
        return "Times carry no zone: UTC assumed."


class EpochTimes(NamedTuple):
    """Numbers counted since 1970-01-01 00:00 UTC, in one unit."""

    unit: Unit

    def read(self, column: pa.ChunkedArray) -> Int64s:
        """Convert text of integers or decimals, without rounding; see `Times`."""
        import pyarrow as pa

        if column.null_count:
            raise ValueError("null")
        # At this scale the decimal's integer is the nanoseconds; digits beyond them make the cast fail.
        decimals = trimmed(column).cast(pa.decimal128(38, self.unit.digits))
        words = np.concatenate([_words(chunk) for chunk in decimals.chunks])
        low: Int64s = np.ascontiguousarray(words[:, 0])
        earliest_ns = 0 if self.unit == UNITS[0] else YEAR_2200_NS // 1000
        fits = (low >= earliest_ns) & (low < YEAR_2200_NS)
        if words[:, 1].any() or not fits.all():
            raise ValueError("another unit")
        return low

    def fault(self, text: str) -> str:
        """Explain; see `Times`."""
        text = text.strip(" \t")
        if not _EPOCH.fullmatch(text):
            return f"which is not a number although the first time counts {self.unit.name}; write all alike"
        unit = _unit_of(Decimal(text))
        if unit is None:
            return f"which lies outside the years 1970 to 2200 in any unit; {_HOW_TO_WRITE}"
        if unit != self.unit:
            return (
                f"which counts {unit.name} by its size although the first time counts {self.unit.name}; "
                "split the file where the unit changes"
            )
        return "which is finer than a nanosecond; shorten the number"

    def note(self, first: str, start_ns: Int64s) -> str | None:
        """Name the unit, and the first time, so that a wrong guess shows."""
        first_shown = first.strip(" \t")
        instant = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(start_ns[0]) // 1000)).isoformat(" ")
        return f"Times are epoch {self.unit.name}: the first, {first_shown}, is {instant}."


class ArrowTimes(NamedTuple):
    """Timestamps and dates that a Parquet file already types."""

    zone: Zone
    is_date: bool

    def read(self, column: pa.ChunkedArray) -> Int64s:
        """Convert timestamps of any unit or dates; see `Times`."""
        import pyarrow as pa

        if column.null_count:
            raise ValueError("null")
        return _since_epoch(column.cast(pa.timestamp("ns", getattr(column.type, "tz", None))))

    def fault(self, text: str) -> str:  # noqa: ARG002 - there is only one
        """Explain; see `Times`."""
        return "which lies outside the years 1677 to 2262; correct or remove the row"

    def note(self, first: str, start_ns: Int64s) -> str | None:  # noqa: ARG002
        """Say so when UTC is assumed."""
        if self.is_date:
            return "Times are dates without a clock: 00:00 UTC assumed."
        return "Times carry no zone: UTC assumed." if self.zone is Zone.ABSENT else None


def join_date_and_clock(dates: pa.ChunkedArray, clocks: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make one time of two text columns; with `T` between, an empty half cannot pass for a whole time."""
    import pyarrow.compute as pc

    return pc.binary_join_element_wise(trimmed(dates), trimmed(clocks), "T")


def _unit_of(number: Decimal) -> Unit | None:
    if number < 0:
        return None
    return next((unit for unit in UNITS if number < unit.limit), None)


def _is_time(text: str, zone: Zone) -> bool:
    import pyarrow as pa

    try:
        ClockTimes(zone).read(pa.chunked_array([[text]], pa.string()))
    except ValueError:
        return False
    return True


def _since_epoch(stamps: pa.ChunkedArray) -> Int64s:
    import pyarrow as pa

    return joined(stamps.cast(pa.int64()))


def _words(decimals: pa.Array) -> Int64s:
    """(n, 2) int64: the low and high halves of 128-bit integers."""
    if not len(decimals):
        return np.empty((0, 2), np.int64)
    words = np.frombuffer(decimals.buffers()[1], np.int64).reshape(-1, 2)
    return words[decimals.offset : decimals.offset + len(decimals)]
