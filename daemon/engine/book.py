"""A level-2 book as its rows come: snapshots, changes, gaps; and whoever has rows and no run.

The levels themselves are `levels`'. An event is what one update of the venue changes.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from daemon.core.market import NS_PER_SECOND
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream
from daemon.engine.jit import constants, kernel
from daemon.engine.levels import (
    MOST_FAR,
    NO_ASK,
    NO_BID,
    WINDOW,
    Books,
    clear,
    deepest,
    make_books,
    next_level,
    set_level,
)
from daemon.engine.orders import ORDER, TRADE_ONLY, Records
from daemon.engine.queues import keep_shown, requeue, settle_queues

if TYPE_CHECKING:
    from daemon.core.market import Int64s
    from daemon.core.ticks import Ticks

# What a row is, beside its side.
ASK: Final = 1
CLEARS: Final = 2  # the first row of a snapshot
AFTER_GAP: Final = 4
LAST: Final = 8  # of its event

STALE_NS: Final = 60 * NS_PER_SECOND
"""A book of which nothing was heard for longer is not known: recordings end without saying so."""

_SNAPSHOT, _GAP = constants([DepthFlag.SNAPSHOT, DepthFlag.AFTER_GAP])
_BIDS, _ASKS = constants([0, 1])


class DepthRows(NamedTuple):
    """Rows of all feeds of depth, a row each, chunk by chunk. All of (feeds, capacity).

    time_ns, tick, size: int64. marks: uint8, of ASK, CLEARS, AFTER_GAP and LAST.
    """

    time_ns: Int64s
    tick: Int64s
    size: Int64s
    marks: Any


# Rows.


@kernel
def lay(
    rows: DepthRows,
    feed: int,
    columns: tuple[Int64s, Int64s, Any, Int64s, Int64s, Any],
    price_factor: int,
    size_factor: int,
    flags_before: int,
    kept: int,
) -> int:
    """Lay a chunk of depth behind the `kept` rows that a feed's row begins with; returns the flags of its last row.

    columns: time_ns, id, side, price, size, flags, (n,) each, n >= 1. factors: to the feed's decimals. flags_before:
    of the row before, 0 where that is of another update. An event ends where the time or the id changes; whether the
    last row ends one, the next chunk shows. Events were lost before the first of an update's rows that say so.
    """
    times, ids, sides, prices, sizes, flags = columns
    for row in range(times.size):
        mark = 0 if sides[row] == BUY else ASK
        if row > 0 and ids[row] != ids[row - 1]:
            flags_before = 0
        if flags[row] & ~flags_before & _SNAPSHOT:
            mark |= CLEARS
        if flags[row] & ~flags_before & _GAP:
            mark |= AFTER_GAP
        if row + 1 < times.size and (ids[row + 1] != ids[row] or times[row + 1] != times[row]):
            mark |= LAST
        at = kept + row
        rows.time_ns[feed, at] = times[row]
        rows.tick[feed, at] = prices[row] * price_factor
        rows.size[feed, at] = sizes[row] * size_factor
        rows.marks[feed, at] = mark
        flags_before = int(flags[row])
    return flags_before


@kernel
def replay(  # noqa: C901, PLR0912, PLR0915 - what happens at every row is written out
    books: Books,
    rows: DepthRows,
    feed: int,
    symbol: int,
    at: int,
    stop: int,
    until_ns: int,
    each_event: int,
    orders: Records,
    count: int,
    model: int,
    exponent: float,
) -> int:
    """Take rows from `at` on, to `stop` or the first row at `until_ns`; returns the row where it stopped.

    It stops behind an event as well after which the other side is at a resting order's price, or a book that was not
    sound is so again, and behind each one where `each_event` is set. orders, count, model, exponent: as of `requeue`.
    """
    state, sizes, bits = books.state, books.sizes, books.bits
    bid, ask, base = state[symbol].bid, state[symbol].ask, state[symbol].base
    is_whole = state[symbol].is_whole
    highest_buy, lowest_buy = state[symbol].highest_buy, state[symbol].lowest_buy
    highest_sell, lowest_sell = state[symbol].highest_sell, state[symbol].lowest_sell
    unit = state[symbol].size_scale
    window = sizes.shape[2]
    was_sound = is_whole and not state[symbol].is_crossed
    in_snapshot = state[symbol].in_snapshot
    unknown, events = 0, 0
    row = at
    while row < stop:
        if rows.time_ns[feed, row] >= until_ns:
            break
        mark = rows.marks[feed, row]
        tick, size = rows.tick[feed, row], rows.size[feed, row]
        if mark & (CLEARS | AFTER_GAP):
            state[symbol].is_whole, state[symbol].bid, state[symbol].ask = is_whole, bid, ask
            if mark & AFTER_GAP:
                state[symbol].is_whole = 0
                state[symbol].gaps += 1
                in_snapshot = state[symbol].in_snapshot = 0
            if mark & CLEARS:
                keep_shown(books, orders, count, symbol)
                clear(books, symbol, tick)
                in_snapshot = state[symbol].in_snapshot = 1
            bid, ask, base = state[symbol].bid, state[symbol].ask, state[symbol].base
            is_whole = state[symbol].is_whole
        if is_whole == 0:
            state[symbol].early += 1
        elif size < 0:
            state[symbol].negative += 1
        else:
            side: Any = np.int64(mark & ASK)
            slot = tick - base
            if 0 <= slot < window:
                old = sizes[symbol, side, slot]
                sizes[symbol, side, slot] = size
                if (old == 0) != (size == 0):
                    bits[symbol, side, slot >> 6] ^= np.uint64(1) << np.uint64(slot & 63)
                elif old == 0:
                    unknown += 1
                if side == 0:
                    if size > 0:
                        bid = max(bid, tick)
                    elif tick == bid:
                        state[symbol].bid = bid
                        bid = next_level(books, symbol, _BIDS, tick)
                elif size > 0:
                    ask = min(ask, tick)
                elif tick == ask:
                    state[symbol].ask = ask
                    ask = next_level(books, symbol, _ASKS, tick)
            else:
                state[symbol].bid, state[symbol].ask = bid, ask
                old = set_level(books, symbol, side, tick, size)
                bid, ask, base = state[symbol].bid, state[symbol].ask, state[symbol].base
                if old == 0 and size == 0:
                    unknown += 1
            if in_snapshot:
                pass  # all of it counts at once, at its end
            elif side == 0:
                if lowest_buy <= tick <= highest_buy:
                    requeue(orders, count, symbol, side, tick, old, size, unit, model, exponent)
            elif lowest_sell <= tick <= highest_sell:
                requeue(orders, count, symbol, side, tick, old, size, unit, model, exponent)
        row += 1
        if mark & LAST:
            events += 1
            if is_whole == 0:
                was_sound = False
                if each_event:
                    break
                continue
            if in_snapshot:
                state[symbol].bid, state[symbol].ask = bid, ask
                settle_queues(books, orders, count, symbol, model, exponent)
                in_snapshot = state[symbol].in_snapshot = state[symbol].is_behind = 0
            is_crossed = bid >= ask
            if is_crossed:
                state[symbol].crossed += 1
            state[symbol].is_crossed = is_crossed
            becomes_sound = not was_sound and not is_crossed
            was_sound = not is_crossed
            is_reached = state[symbol].is_reached or ask <= highest_buy or bid >= lowest_sell
            if each_event or becomes_sound or is_reached:
                break
    state[symbol].bid, state[symbol].ask = bid, ask
    state[symbol].is_whole = is_whole
    state[symbol].unknown += unknown
    state[symbol].events += events
    if row > at:
        state[symbol].time_ns = rows.time_ns[feed, row - 1]
    return row


class Top(NamedTuple):
    """Levels of one side, best first. prices, sizes: (n,) int64, in the integers of the rows."""

    prices: Int64s
    sizes: Int64s


class Book:
    """One symbol's book, for whoever has rows and no run: a live feed, a report.

    Prices and sizes are in the integers of the rows, which all have the same decimals.
    """

    def __init__(self, *, window: int = WINDOW, most_far: int = MOST_FAR) -> None:
        """window: a multiple of 64."""
        self.books = make_books(1, window=window, most_far=most_far)
        self.books.state["size_scale"] = 1.0
        self._last_flags = 0
        self._last_id: int | None = None

    def apply(self, rows: Ticks) -> None:
        """Take rows of depth, whole events; ValueError for another stream, or prices or sizes that are no integers."""
        if not rows.size:
            return
        laid, at = self.laid(rows), 0
        while at < rows.size:
            at = replay(self.books, laid, 0, 0, at, rows.size, NO_ASK, 0, NO_ORDERS, 0, TRADE_ONLY, 1.0)

    def laid(self, rows: Ticks) -> DepthRows:
        """Return rows, at least one, as `replay` takes them; they count as taken. Errors as of `apply`."""
        if rows.stream is not Stream.DEPTH or rows.price_decimals is None or rows.size_decimals is None:
            raise ValueError("a book takes rows of depth with integer prices and sizes")
        names = ("time_ns", "id", "side", "price", "size", "flags")
        columns: Any = tuple(np.ascontiguousarray(rows.column(name)) for name in names)
        laid = depth_rows(1, rows.size)
        flags_before = self._last_flags if self._last_id == int(columns[1][0]) else 0
        self._last_flags = int(lay(laid, 0, columns, 1, 1, flags_before, 0))
        self._last_id = int(columns[1][-1])
        laid.marks[0, rows.size - 1] |= LAST
        return laid

    @property
    def state(self) -> Records:
        """Its STATE, of shape (1,)."""
        return self.books.state

    @property
    def is_whole(self) -> bool:
        """Whether it can be trusted: a snapshot was seen, and nothing was lost since."""
        return bool(self.state["is_whole"][0])

    @property
    def best(self) -> tuple[int | None, int | None]:
        """Best bid and ask, in the integers of the rows; None for a side without levels."""
        bid, ask = int(self.state["bid"][0]), int(self.state["ask"][0])
        return (None if bid == NO_BID else bid), (None if ask == NO_ASK else ask)

    def checksum(self, count: int = 25) -> int:
        """Return the CRC-32 of the best levels of both sides, to tell whether two books are one.

        Of `price:size` in the integers of the rows, bids before asks, best first, joined by colons. Books that were
        made of the same events have the same one, whether they were read from the store or came live.
        """
        sides = (self.top(side, count) for side in (BUY, SELL))
        levels = [pair for each in sides for pair in zip(each.prices.tolist(), each.sizes.tolist(), strict=True)]
        return zlib.crc32(":".join(f"{price}:{size}" for price, size in levels).encode())

    def top(self, side: int, count: int) -> Top:
        """Return the best levels of a side, BUY or SELL, at most so many."""
        ticks, sizes = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        found = deepest(self.books, 0, 0 if side == BUY else 1, ticks, sizes)
        return Top(ticks[:found], sizes[:found])


def depth_rows(feeds: int, capacity: int) -> DepthRows:
    """Make room for rows of depth."""
    shape = (feeds, capacity)
    return DepthRows(
        np.zeros(shape, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
        np.zeros(shape, dtype=np.int64),
        np.zeros(shape, dtype=np.uint8),
    )


NO_ORDERS: Final = np.zeros((1, 1), dtype=ORDER)
"""Of a book that no run trades against."""
