"""Ticks: columns of trades, quotes and depth as venues give them, exact to the last digit.

Prices and sizes are whole numbers of 10^-decimals, so that text becomes integers without passing through a float. A
source that has floats to begin with may hand them over as float64 (`decimals` is None then); the store keeps every bit.
"""

from __future__ import annotations

from enum import IntFlag, StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Column: TypeAlias = NDArray[Any]

NO_ID: Final = -1
UNKNOWN_NS: Final = 0
BUY: Final = 1
SELL: Final = -1


class Stream(StrEnum):
    """What a series is made of. AGG_TRADES: a venue's trades joined by taker order and price, with ids of their own."""

    TRADES = "trades"
    AGG_TRADES = "agg_trades"
    QUOTES = "quotes"
    DEPTH = "depth"
    BARS = "bars"


class Kind(StrEnum):
    """What a column's numbers mean, and with that how they are stored.

    TIME: int64 ns UTC. ID: int64. PRICE, SIZE: int64 of 10^-decimals, or float64. CODE: int8.
    """

    TIME = "time"
    ID = "id"
    PRICE = "price"
    SIZE = "size"
    CODE = "code"


class DepthFlag(IntFlag):
    """Of a depth row. SNAPSHOT: a level of a full book, which replaces what was. AFTER_GAP: events were lost before."""

    SNAPSHOT = 1
    AFTER_GAP = 2


_TIMES = {"time_ns": Kind.TIME, "local_ns": Kind.TIME}
_TRADES = _TIMES | {"id": Kind.ID, "price": Kind.PRICE, "size": Kind.SIZE, "side": Kind.CODE}

# Columns by stream, in order; the first is the time rows are ordered by.
#   time_ns   the venue's time; where it gives none, the local one
#   local_ns  when it was received here, UNKNOWN_NS where the source does not tell
#   id        trades: the venue's trade id, NO_ID where it has none; quotes and depth: its update id
#   side      trades: of the aggressor, BUY, SELL or 0 where unknown; depth: BUY for bids, SELL for asks
#   size      depth: what the level holds now, 0 where it is gone
#   flags     DepthFlag
COLUMNS: Final[dict[Stream, dict[str, Kind]]] = {
    Stream.TRADES: _TRADES,
    Stream.AGG_TRADES: _TRADES | {"first_id": Kind.ID, "last_id": Kind.ID},
    Stream.QUOTES: _TIMES
    | {"id": Kind.ID, "bid": Kind.PRICE, "bid_size": Kind.SIZE, "ask": Kind.PRICE, "ask_size": Kind.SIZE},
    Stream.DEPTH: _TIMES
    | {"id": Kind.ID, "side": Kind.CODE, "price": Kind.PRICE, "size": Kind.SIZE, "flags": Kind.CODE},
}
TICK_STREAMS: Final = tuple(COLUMNS)


class Ticks(NamedTuple):
    """Rows of one stream: equally long columns in the order of COLUMNS[stream].

    price_decimals, size_decimals: of the PRICE and SIZE columns; None where those are float64.
    """

    stream: Stream
    columns: tuple[Column, ...]
    price_decimals: int | None
    size_decimals: int | None

    @property
    def size(self) -> int:
        """How many rows; `len` counts fields, as of any tuple."""
        return int(self.columns[0].size)

    @property
    def time_ns(self) -> Column:
        """Time of each row."""
        return self.columns[0]

    def column(self, name: str) -> Column:
        """Return a column by name."""
        return self.columns[list(COLUMNS[self.stream]).index(name)]

    def decimals(self, kind: Kind) -> int | None:
        """Decimals of the columns of a kind: PRICE or SIZE."""
        return self.price_decimals if kind is Kind.PRICE else self.size_decimals

    def rows(self, start: int, stop: int) -> Ticks:
        """Rows [start, stop) as views."""
        return self._replace(columns=tuple(column[start:stop] for column in self.columns))

    def take(self, places: NDArray[np.intp] | NDArray[np.bool_]) -> Ticks:
        """Rows by place, or by mask, as copies."""
        return self._replace(columns=tuple(column[places] for column in self.columns))


def ticks(
    stream: Stream, *, price_decimals: int | None = None, size_decimals: int | None = None, **columns: object
) -> Ticks:
    """Make Ticks from columns by name; missing `local_ns` is unknown, a missing id none, a missing code 0.

    ValueError for a column the stream does not have, or one without `time_ns`, price or size.
    """
    kinds = COLUMNS[stream]
    if not set(columns) <= set(kinds):
        raise ValueError(f"{stream} have no column {', '.join(sorted(set(columns) - set(kinds)))}")
    row_count = np.asarray(columns["time_ns"]).size
    absent = {Kind.TIME: UNKNOWN_NS, Kind.ID: NO_ID, Kind.CODE: 0}
    made = []
    for name, kind in kinds.items():
        decimals = price_decimals if kind is Kind.PRICE else size_decimals
        dtype: Any = np.int8 if kind is Kind.CODE else np.int64
        if kind in (Kind.PRICE, Kind.SIZE) and decimals is None:
            dtype = np.float64
        if name in columns:
            made.append(np.ascontiguousarray(columns[name], dtype=dtype))
        elif kind in absent and name != "time_ns":
            made.append(np.full(row_count, absent[kind], dtype=dtype))
        else:
            raise ValueError(f"{stream} need a column {name}")
    return Ticks(stream, tuple(made), price_decimals, size_decimals)


def empty(stream: Stream) -> Ticks:
    """Return no rows."""
    nothing: dict[str, Column] = {name: np.empty(0, dtype=np.int64) for name in COLUMNS[stream]}
    return ticks(stream, price_decimals=0, size_decimals=0, **nothing)


def concatenate(parts: Sequence[Ticks]) -> Ticks:
    """Join rows of one stream, at the largest number of decimals among them.

    OverflowError where an integer would not fit at those decimals; floats join with floats only (ValueError).
    """
    if len(parts) == 1:
        return parts[0]
    price = _common([part.price_decimals for part in parts])
    size = _common([part.size_decimals for part in parts])
    aligned = [rescale(part, price, size) for part in parts]
    columns = tuple(np.concatenate(column) for column in zip(*(part.columns for part in aligned), strict=True))
    return Ticks(parts[0].stream, columns, price, size)


def rescale(rows: Ticks, price_decimals: int | None, size_decimals: int | None) -> Ticks:
    """Bring rows to as many decimals or more; OverflowError where an integer would not fit."""
    if (rows.price_decimals, rows.size_decimals) == (price_decimals, size_decimals):
        return rows
    columns = []
    for column, kind in zip(rows.columns, COLUMNS[rows.stream].values(), strict=True):
        target = price_decimals if kind is Kind.PRICE else size_decimals
        columns.append(_raised(column, rows.decimals(kind), target) if kind in (Kind.PRICE, Kind.SIZE) else column)
    return Ticks(rows.stream, tuple(columns), price_decimals, size_decimals)


def fewest_decimals(column: NDArray[np.int64], decimals: int) -> tuple[NDArray[np.int64], int]:
    """Drop the trailing zeros that all of a column's numbers share: 61800.30000000 and 1.50000000 need two."""
    while decimals > 0 and not (column % 10).any():
        column = column // 10
        decimals -= 1
    return column, decimals


def _common(decimals: Sequence[int | None]) -> int | None:
    numbers = [each for each in decimals if each is not None]
    if not numbers:
        return None
    if len(numbers) < len(decimals):
        raise ValueError("integers and floats in one column")
    return max(numbers)


def _raised(column: Column, decimals: int | None, target: int | None) -> Column:
    if decimals == target:
        return column
    if decimals is None or target is None or target < decimals:
        raise ValueError(f"cannot bring {decimals} decimals to {target}")
    factor = 10 ** (target - decimals)
    if column.size and max(abs(int(column.min())), abs(int(column.max()))) * factor >= 1 << 63:
        raise OverflowError(f"a number does not fit 64 bits at {target} decimals")
    return column * np.int64(factor)
