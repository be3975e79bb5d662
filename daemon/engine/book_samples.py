"""Books at the starts of bars: rows of depth go through a book, and before each bar its best levels are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from daemon.engine.book import DepthRows, replay
from daemon.engine.jit import constants, kernel
from daemon.engine.ladders import UNKNOWN, Ladders
from daemon.engine.levels import NO_ASK, Books, deepest
from daemon.engine.orders import TRADE_ONLY, Records

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from daemon.core.market import Int64s

SAMPLING: Final = np.dtype(
    [
        ("bar", "i8"),  # the next one
        ("sides", "i8"),  # that are kept
        ("held_in", "i8"),  # row of the book as it is, UNKNOWN for one that cannot be walked
        ("is_changed", "i1"),  # since that was found out
        ("last_ns", "i8"),  # of the rows so far
    ]
)
"""Where a sampling is, in a record of shape (1,)."""

_UNKNOWN, _TRADE_ONLY, _NONE, _NO_ASK = constants([UNKNOWN, TRADE_ONLY, 0, NO_ASK])
_ONE_BOOK = _ONE_FEED = _NONE
_BIDS, _ASKS = constants([0, 1])


def begun() -> Records:
    """Return the SAMPLING of a book without rows."""
    record = np.zeros(1, dtype=SAMPLING)
    record["held_in"] = UNKNOWN
    return record


def room_for(bars: int, levels: int) -> Ladders:
    """Make room for as many books as there are bars, of so many levels a side: what is not written is not there."""
    sides = 2 * bars
    return Ladders(
        np.empty(bars, dtype=np.int64),
        np.zeros(sides + 1, dtype=np.int64),
        np.empty(sides),
        np.empty(sides * levels),
        np.empty(sides * levels),
    )


def kept(found: Ladders, at: Records) -> Ladders:
    """Return what was written of the room."""
    sides = int(at["sides"][0])
    levels = int(found.edges[sides])
    return Ladders(
        found.row, found.edges[: sides + 1], found.held[:sides], found.sizes[:levels], found.distances[:levels]
    )


@kernel
def sample(
    books: Books,
    rows: DepthRows,
    start_ns: Int64s,
    until: int,
    is_lost: NDArray[np.bool_],
    size_unit: float,
    stale_ns: int,
    orders: Records,
    found: Ladders,
    at: Records,
) -> None:
    """Take a chunk of rows, and keep the book as it is before the start of each bar up to `until`.

    books: of one symbol. rows: (1, m), time ascending. start_ns, is_lost: (bars,), the latter of bars that have no
    book. size_unit: integers of a row's size to one base unit. stale_ns: a book of which nothing was heard for longer
    is not known. orders: (1, k) empty. found: as of `room_for`. at: SAMPLING, of shape (1,).
    """
    levels = found.sizes.size // found.held.size
    ticks, sizes = np.empty(levels, dtype=np.int64), np.empty(levels, dtype=np.int64)
    count = rows.time_ns.shape[1]
    row: Any = np.int64(0)
    while at[0].bar < until:
        bar = at[0].bar
        row = _take(books, rows, row, count, start_ns[bar], orders, at)
        if at[0].is_changed:
            at[0].held_in = _keep(books, size_unit, ticks, sizes, found, at)
            at[0].is_changed = 0
        is_known = not is_lost[bar] and start_ns[bar] - at[0].last_ns <= stale_ns
        found.row[bar] = at[0].held_in if is_known else _UNKNOWN
        at[0].bar = bar + 1
    _take(books, rows, row, count, _NO_ASK, orders, at)


@kernel
def _take(books: Books, rows: DepthRows, row: int, count: int, until_ns: int, orders: Records, at: Records) -> int:
    """Take rows before a time; returns the next one."""
    first = row
    while row < count and rows.time_ns[0, row] < until_ns:
        row = replay(books, rows, _ONE_FEED, _ONE_BOOK, row, count, until_ns, _NONE, orders, _NONE, _TRADE_ONLY, 1.0)
    if row > first:
        at[0].is_changed = 1
        at[0].last_ns = rows.time_ns[0, row - 1]
    return row


@kernel
def _keep(books: Books, size_unit: float, ticks: Int64s, sizes: Int64s, found: Ladders, at: Records) -> int:
    """Keep the best levels of both sides, asks first; returns their row, UNKNOWN where they cannot be walked."""
    state = books.state
    bid, ask = state[0].bid, state[0].ask
    if state[0].is_whole == 0 or bid <= 0 or bid >= ask or ask == _NO_ASK:
        return _UNKNOWN  # type: ignore[no-any-return]
    mid = (bid + ask) / 2
    side: Any
    for side in (_ASKS, _BIDS):
        count = deepest(books, _ONE_BOOK, side, ticks, sizes)
        first, total = found.edges[at[0].sides], 0.0
        for level in range(count):
            size = sizes[level] / size_unit
            found.sizes[first + level] = size
            away = ticks[level] / mid - 1.0
            found.distances[first + level] = away if side == _ASKS else -away
            total += size
        found.held[at[0].sides] = total
        at[0].sides += 1
        found.edges[at[0].sides] = first + count
    return at[0].sides // 2 - 1  # type: ignore[no-any-return]
