"""A level-2 book from snapshots and changes: exact sizes, the best levels at once, deep levels where they are asked.

Levels lie in a window of ticks around the market, one slot a tick, with a bit for every slot that holds something: the
next level is found sixty-four ticks at a time. What lies outside of the window (orders left far away) is kept sorted
beside it, and comes in when the window moves. A tick is one unit of the stored integers, and sizes are those integers,
so that a level is exactly what the venue said, and is gone exactly when it said so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from daemon.core.ticks import BUY, DepthFlag, Stream
from daemon.engine.intrinsics import highest_bit, lowest_bit
from daemon.engine.jit import constants, kernel
from daemon.engine.orders import LOG_POWER, ORDER, RISK_AVERSE, TRADE_ONLY, Records

if TYPE_CHECKING:
    from daemon.core.market import Int64s
    from daemon.core.ticks import Ticks

WINDOW: Final = 1 << 17
"""Ticks of the window, both sides together: for BTCUSDT at 0.1, a tenth of the price around 60,000."""

MOST_FAR: Final = 1 << 16
"""Levels outside of the window, a side; the farthest are dropped beyond, and counted."""

NO_BID: Final = -(1 << 62)
NO_ASK: Final = 1 << 62
"""Best level of a side that has none: worse than any."""

STATE: Final = np.dtype(
    [
        ("base", "i8"),  # tick of slot 0
        ("bid", "i8"),  # best ticks, NO_BID and NO_ASK for none
        ("ask", "i8"),
        ("scale", "f8"),  # ticks of a unit of price; 0 for a symbol without a book
        ("size_scale", "f8"),  # units of size in a base unit
        ("time_ns", "i8"),  # of the last row
        ("is_whole", "i8"),  # whether a snapshot was seen and nothing was lost since
        ("is_behind", "i8"),  # whether the snapshot that is being read follows a gap
        ("is_reached", "i8"),  # whether the other side is at a resting order's price
        ("is_crossed", "i8"),  # whether the last event left the best bid at or above the best ask
        ("events", "i8"),
        ("crossed", "i8"),  # events after which it was
        ("unknown", "i8"),  # removals of levels that were not there
        ("negative", "i8"),  # rows of a size below 0, which are not taken
        ("early", "i8"),  # rows before the first snapshot, or between a gap and the next
        ("gaps", "i8"),
        ("dropped", "i8"),  # levels that were too far away
        ("far_bids", "i8"),  # how many levels lie outside
        ("far_asks", "i8"),
        ("highest_buy", "i8"),  # ticks of the run's own resting orders; NO_BID and NO_ASK for none
        ("lowest_buy", "i8"),
        ("highest_sell", "i8"),
        ("lowest_sell", "i8"),
    ],
    align=True,
)
"""A book's state."""

# What a row is, beside its side.
ASK: Final = 1
CLEARS: Final = 2  # the first row of a snapshot
AFTER_GAP: Final = 4
LAST: Final = 8  # of its event

_WORD: Final = 64
_SNAPSHOT, _GAP = constants([DepthFlag.SNAPSHOT, DepthFlag.AFTER_GAP])
_BIDS, _ASKS = constants([0, 1])


class Books(NamedTuple):
    """The books of all symbols, a row each. NO_BOOKS for a run without.

    state: (n,) STATE. sizes: (n, 2, window) int64, bids then asks. bits: (n, 2, window / 64) uint64. far_ticks,
    far_sizes: (n, 2, most far) int64, by tick ascending.
    """

    state: Records
    sizes: Int64s
    bits: Any
    far_ticks: Int64s
    far_sizes: Int64s


class DepthRows(NamedTuple):
    """Rows of all feeds of depth, a row each, chunk by chunk. All of (feeds, capacity).

    time_ns, tick, size: int64. marks: uint8, of ASK, CLEARS, AFTER_GAP and LAST.
    """

    time_ns: Int64s
    tick: Int64s
    size: Int64s
    marks: Any


def make_books(count: int, *, window: int = WINDOW, most_far: int = MOST_FAR) -> Books:
    """Make empty books; window is a multiple of 64. Memory that no level has touched costs nothing."""
    if window % _WORD or window < _WORD:
        raise ValueError(f"a window of {window}: a multiple of {_WORD}")
    state = np.zeros(count, dtype=STATE)
    state["bid"] = state["highest_buy"] = state["highest_sell"] = NO_BID
    state["ask"] = state["lowest_buy"] = state["lowest_sell"] = NO_ASK
    return Books(
        state,
        np.zeros((count, 2, window), dtype=np.int64),
        np.zeros((count, 2, window // _WORD), dtype=np.uint64),
        np.zeros((count, 2, most_far), dtype=np.int64),
        np.zeros((count, 2, most_far), dtype=np.int64),
    )


# The window.


@kernel
def _place(books: Books, symbol: int, side: int, slot: int, size: int) -> None:
    """Set the size of a slot, and its bit."""
    books.sizes[symbol, side, slot] = size
    bit = np.uint64(1) << np.uint64(slot & 63)
    if size > 0:
        books.bits[symbol, side, slot >> 6] |= bit
    else:
        books.bits[symbol, side, slot >> 6] &= ~bit


@kernel
def _below(bits: Any, symbol: int, side: int, slot: int) -> int:
    """Return the highest slot at or below `slot` that holds something, -1 for none."""
    if slot < 0:
        return -1
    word = slot >> 6
    found = bits[symbol, side, word] << np.uint64(63 - (slot & 63))
    if found != np.uint64(0):
        return slot - 63 + highest_bit(found)  # type: ignore[no-any-return]
    word -= 1
    while word >= 0:
        if bits[symbol, side, word] != np.uint64(0):
            return (word << 6) + highest_bit(bits[symbol, side, word])  # type: ignore[no-any-return]
        word -= 1
    return -1


@kernel
def _above(bits: Any, symbol: int, side: int, slot: int) -> int:
    """Return the lowest slot at or above `slot` that holds something, -1 for none."""
    words = bits.shape[2]
    if slot >= words << 6:
        return -1
    word = slot >> 6
    found = bits[symbol, side, word] >> np.uint64(slot & 63)
    if found != np.uint64(0):
        return slot + lowest_bit(found)  # type: ignore[no-any-return]
    word += 1
    while word < words:
        if bits[symbol, side, word] != np.uint64(0):
            return (word << 6) + lowest_bit(bits[symbol, side, word])  # type: ignore[no-any-return]
        word += 1
    return -1


# Outside of it.


@kernel
def _far_count(books: Books, symbol: int, side: int) -> int:
    state = books.state
    return state[symbol].far_bids if side == _BIDS else state[symbol].far_asks  # type: ignore[no-any-return]


@kernel
def _set_far_count(books: Books, symbol: int, side: int, count: int) -> None:
    state = books.state
    if side == _BIDS:
        state[symbol].far_bids = count
    else:
        state[symbol].far_asks = count


@kernel
def _place_far(  # noqa: C901 - insert, change, remove, and drop the farthest
    books: Books, symbol: int, side: int, tick: int, size: int
) -> int:
    """Set the size of a level outside of the window; returns what it was."""
    ticks, sizes = books.far_ticks[symbol, side], books.far_sizes[symbol, side]
    count = _far_count(books, symbol, side)
    at = np.searchsorted(ticks[:count], tick)
    old = sizes[at] if at < count and ticks[at] == tick else 0
    if old > 0 and size > 0:
        sizes[at] = size
    elif old > 0:
        for place in range(at, count - 1):
            ticks[place], sizes[place] = ticks[place + 1], sizes[place + 1]
        _set_far_count(books, symbol, side, count - 1)
    elif size > 0:
        if count == ticks.size:  # the farthest goes: the lowest bid, the highest ask
            books.state[symbol].dropped += 1
            if side == _BIDS:
                if at == 0:
                    return 0
                for place in range(at - 1):
                    ticks[place], sizes[place] = ticks[place + 1], sizes[place + 1]
                ticks[at - 1], sizes[at - 1] = tick, size
                return 0
            if at == count:
                return 0
            count -= 1
        for place in range(count, at, -1):
            ticks[place], sizes[place] = ticks[place - 1], sizes[place - 1]
        ticks[at], sizes[at] = tick, size
        _set_far_count(books, symbol, side, count + 1)
    return old


@kernel
def _move(books: Books, symbol: int, middle: int) -> None:
    """Lay the window around a tick: what falls out is kept outside, what comes in is taken from there."""
    state = books.state
    window = books.sizes.shape[2]
    old, base = state[symbol].base, middle - window // 2
    state[symbol].base = base
    for side in range(2):
        held = books.sizes[symbol, side].copy()
        books.sizes[symbol, side, :] = 0
        books.bits[symbol, side, :] = np.uint64(0)
        kept = 0
        count = _far_count(books, symbol, side)
        ticks, sizes = books.far_ticks[symbol, side], books.far_sizes[symbol, side]
        for place in range(count):
            slot = ticks[place] - base
            if 0 <= slot < window:
                _place(books, symbol, side, slot, sizes[place])
            else:
                ticks[kept], sizes[kept] = ticks[place], sizes[place]
                kept += 1
        _set_far_count(books, symbol, side, kept)
        for slot in range(window):
            if held[slot] > 0:
                tick = old + slot
                if 0 <= tick - base < window:
                    _place(books, symbol, side, tick - base, held[slot])
                else:
                    _place_far(books, symbol, side, tick, held[slot])


# Levels.


@kernel
def next_level(books: Books, symbol: int, side: int, tick: int) -> int:
    """Return the best level of a side (0 bids, 1 asks) at or behind a tick; NO_BID or NO_ASK for none."""
    base = books.state[symbol].base
    window = books.sizes.shape[2]
    count = _far_count(books, symbol, side)
    ticks = books.far_ticks[symbol, side]
    if side == _BIDS:
        at = np.searchsorted(ticks[:count], tick, side="right") - 1
        far = ticks[at] if at >= 0 else NO_BID
        slot = _below(books.bits, symbol, side, min(tick - base, window - 1))
        return max(far, base + slot) if slot >= 0 else far
    at = np.searchsorted(ticks[:count], tick)
    far = ticks[at] if at < count else NO_ASK
    slot = _above(books.bits, symbol, side, max(tick - base, 0))
    return min(far, base + slot) if slot >= 0 else far


@kernel
def size_at(books: Books, symbol: int, side: int, tick: int) -> int:
    """Return what a level of a side shows, 0 for none."""
    slot = tick - books.state[symbol].base
    if 0 <= slot < books.sizes.shape[2]:
        return books.sizes[symbol, side, slot]  # type: ignore[no-any-return]
    count = _far_count(books, symbol, side)
    ticks = books.far_ticks[symbol, side]
    at = np.searchsorted(ticks[:count], tick)
    return books.far_sizes[symbol, side, at] if at < count and ticks[at] == tick else 0


@kernel
def set_level(books: Books, symbol: int, side: int, tick: int, size: int) -> int:
    """Set a level, 0 to remove it, and keep the best ones; returns what it showed before."""
    state = books.state
    best = state[symbol].bid if side == _BIDS else state[symbol].ask
    is_better = tick > best if side == _BIDS else tick < best
    window = books.sizes.shape[2]
    slot = tick - state[symbol].base
    if not 0 <= slot < window and size > 0 and is_better:
        _move(books, symbol, tick)
        slot = tick - state[symbol].base
    if 0 <= slot < window:
        old = books.sizes[symbol, side, slot]
        _place(books, symbol, side, slot, size)
    else:
        old = _place_far(books, symbol, side, tick, size)
    if size > 0 and is_better:
        best = tick
    elif size == 0 and tick == best:
        best = next_level(books, symbol, side, tick)
    if side == _BIDS:
        state[symbol].bid = best
    else:
        state[symbol].ask = best
    return old  # type: ignore[no-any-return]


@kernel
def _clear(books: Books, symbol: int, tick: int) -> None:
    """Empty a book for a snapshot whose first level is at a tick."""
    state = books.state
    books.sizes[symbol] = 0
    books.bits[symbol] = np.uint64(0)
    state[symbol].far_bids = state[symbol].far_asks = 0
    state[symbol].bid, state[symbol].ask = NO_BID, NO_ASK
    state[symbol].base = tick - books.sizes.shape[2] // 2
    state[symbol].is_behind = 0 if state[symbol].is_whole else 1
    state[symbol].is_whole = 1


# Rows.


@kernel
def lay(
    rows: DepthRows,
    feed: int,
    columns: tuple[Int64s, Int64s, Any, Int64s, Int64s, Any],
    price_factor: int,
    size_factor: int,
    was_snapshot: int,
    kept: int,
) -> int:
    """Lay a chunk of depth behind the `kept` rows that a feed's row begins with; tells whether it ends in a snapshot.

    columns: time_ns, id, side, price, size, flags, (n,) each, n >= 1. factors: to the feed's decimals. An event ends
    where the time or the id changes; whether the last row ends one, the next chunk shows: `close` says so then.
    """
    times, ids, sides, prices, sizes, flags = columns
    for row in range(times.size):
        mark = 0 if sides[row] == BUY else ASK
        is_snapshot = flags[row] & _SNAPSHOT
        if is_snapshot and (not was_snapshot or (row > 0 and ids[row] != ids[row - 1])):
            mark |= CLEARS
        if flags[row] & _GAP:
            mark |= AFTER_GAP
        if row + 1 < times.size and (ids[row + 1] != ids[row] or times[row + 1] != times[row]):
            mark |= LAST
        at = kept + row
        rows.time_ns[feed, at] = times[row]
        rows.tick[feed, at] = prices[row] * price_factor
        rows.size[feed, at] = sizes[row] * size_factor
        rows.marks[feed, at] = mark
        was_snapshot = is_snapshot
    return was_snapshot


@kernel
def requeue(
    orders: Records,
    count: int,
    symbol: int,
    side: int,
    tick: int,
    old: int,
    size: int,
    unit: float,
    model: int,
    exponent: float,
) -> None:
    """Move the run's own resting orders at a level that changes forward in their queue, as `docs/book.md` says.

    old, size: what the level showed and shows. unit: sizes in a base unit.
    """
    if model == TRADE_ONLY:
        return
    after = size / unit
    for place in range(count):
        order = orders[symbol, place]
        if order.level != tick or order.joined == 0 or order.is_done or (order.side > 0) != (side == 0):
            continue
        ahead = order.ahead
        if model != RISK_AVERSE:
            shrunk = (old - size) / unit - order.traded
            if shrunk > 0.0:
                back = max(old / unit - ahead, 0.0)
                if model == LOG_POWER:
                    front_weight, back_weight = np.log1p(ahead), np.log1p(back)
                else:
                    front_weight, back_weight = ahead**exponent, back**exponent
                total = front_weight + back_weight
                behind = back_weight / total if total > 0.0 else 1.0
                ahead += min(back - behind * shrunk, 0.0) - (1.0 - behind) * shrunk
        orders[symbol, place].ahead = max(0.0, min(ahead, after))
        orders[symbol, place].traded = 0.0


@kernel
def settle_queues(books: Books, orders: Records, count: int, symbol: int) -> None:
    """After a gap: no more can be ahead of a resting order than its level shows now."""
    for place in range(count):
        order = orders[symbol, place]
        if order.joined > 0 and not order.is_done:
            side = 0 if order.side > 0 else 1
            shown = size_at(books, symbol, side, order.level) / books.state[symbol].size_scale
            orders[symbol, place].ahead = min(order.ahead, shown)
            orders[symbol, place].traded = 0.0


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
    unknown, events = 0, 0
    row = at
    while row < stop:
        if rows.time_ns[feed, row] >= until_ns:
            break
        mark = rows.marks[feed, row]
        tick, size = rows.tick[feed, row], rows.size[feed, row]
        if mark & (CLEARS | AFTER_GAP):
            state[symbol].is_whole = is_whole
            if mark & AFTER_GAP:
                state[symbol].is_whole = 0
                state[symbol].gaps += 1
            if mark & CLEARS:
                _clear(books, symbol, tick)
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
            if side == 0:
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
            if state[symbol].is_behind:
                state[symbol].is_behind = 0
                state[symbol].bid, state[symbol].ask = bid, ask
                settle_queues(books, orders, count, symbol)
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


@kernel
def deepest(books: Books, symbol: int, side: int, ticks: Int64s, sizes: Int64s) -> int:
    """Write the best levels of a side, best first, as many as there is room for; returns how many."""
    count = 0
    state = books.state
    tick = state[symbol].bid if side == _BIDS else state[symbol].ask
    while NO_BID < tick < NO_ASK and count < ticks.size:
        ticks[count] = tick
        sizes[count] = size_at(books, symbol, side, tick)
        count += 1
        tick = next_level(books, symbol, side, tick - 1 if side == _BIDS else tick + 1)
    return count


def rescale(books: Books, symbol: int, price_factor: int, size_factor: int) -> None:
    """Bring a book to more decimals: every tick and size times these factors."""
    most = int((books.sizes[symbol] > 0).sum()) + int(books.far_ticks.shape[2]) * 2
    sides = []
    for side in (0, 1):
        ticks, sizes = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
        count = deepest(books, symbol, side, ticks, sizes)
        sides.append((ticks[:count] * price_factor, sizes[:count] * size_factor))
    state = books.state
    was_whole, was_behind = int(state["is_whole"][symbol]), int(state["is_behind"][symbol])
    first = next((int(ticks[0]) for ticks, _ in sides if ticks.size), 0)
    _clear(books, symbol, first)
    state["is_whole"][symbol], state["is_behind"][symbol] = was_whole, was_behind
    for side, (ticks, sizes) in enumerate(sides):
        for tick, size in zip(ticks.tolist(), sizes.tolist(), strict=True):
            set_level(books, symbol, side, tick, size)
    for name in ("highest_buy", "lowest_buy", "highest_sell", "lowest_sell"):
        if abs(int(state[name][symbol])) < NO_ASK:
            state[name][symbol] *= price_factor


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
        self._was_snapshot = 0
        self._last_id: int | None = None

    def apply(self, rows: Ticks) -> None:
        """Take rows of depth, whole events; ValueError for another stream, or prices or sizes that are no integers."""
        if rows.stream is not Stream.DEPTH or rows.price_decimals is None or rows.size_decimals is None:
            raise ValueError("a book takes rows of depth with integer prices and sizes")
        if not rows.size:
            return
        names = ("time_ns", "id", "side", "price", "size", "flags")
        columns: Any = tuple(np.ascontiguousarray(rows.column(name)) for name in names)
        laid = depth_rows(1, rows.size)
        was_snapshot = self._was_snapshot if self._last_id == int(columns[1][0]) else 0
        self._was_snapshot = int(lay(laid, 0, columns, 1, 1, was_snapshot, 0))
        self._last_id = int(columns[1][-1])
        laid.marks[0, rows.size - 1] |= LAST
        at = 0
        while at < rows.size:
            at = replay(self.books, laid, 0, 0, at, rows.size, NO_ASK, 0, _NO_ORDERS, 0, TRADE_ONLY, 1.0)

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


_NO_ORDERS: Final = np.zeros((1, 1), dtype=ORDER)
