"""A level-2 book from snapshots and changes: exact sizes, the best levels at once, deep levels where they are asked.

Levels lie in a window of ticks around the market, one slot a tick, with a bit for every slot that holds something: the
next level is found sixty-four ticks at a time. What lies outside of the window (orders left far away) is kept sorted
beside it, and comes in when the window moves. A tick is one unit of the stored integers, and sizes are those integers,
so that a level is exactly what the venue said, and is gone exactly when it said so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from daemon.engine.intrinsics import highest_bit, lowest_bit
from daemon.engine.jit import constants, kernel
from daemon.engine.orders import Records

if TYPE_CHECKING:
    from daemon.core.market import Int64s

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
        ("in_snapshot", "i8"),  # whether the event that is being read is one
        ("is_behind", "i8"),  # whether the snapshot that is being read follows a gap
        ("is_reached", "i8"),  # whether the other side is at a resting order's price
        ("is_crossed", "i8"),  # whether the last event left the best bid at or above the best ask
        ("events", "i8"),
        ("crossed", "i8"),  # events after which it was
        ("unknown", "i8"),  # removals of levels that were not there
        ("negative", "i8"),  # rows of a size below 0, which are not taken
        ("early", "i8"),  # rows before the first snapshot, or between a gap and the next
        ("gaps", "i8"),
        ("stale", "i8"),  # orders that came when nothing had been heard of it for too long
        ("snapshots", "i8"),
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

_WORD: Final = 64
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
        kept: Any = np.int64(0)
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
def clear(books: Books, symbol: int, tick: int) -> None:
    """Empty a book for a snapshot whose first level is at a tick."""
    state = books.state
    books.sizes[symbol] = 0
    books.bits[symbol] = np.uint64(0)
    state[symbol].far_bids = state[symbol].far_asks = 0
    state[symbol].bid, state[symbol].ask = NO_BID, NO_ASK
    state[symbol].base = tick - books.sizes.shape[2] // 2
    state[symbol].is_behind = 0 if state[symbol].is_whole else 1
    state[symbol].is_whole = 1
    state[symbol].snapshots += 1


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
    clear(books, symbol, first)
    state["is_whole"][symbol], state["is_behind"][symbol] = was_whole, was_behind
    for side, (ticks, sizes) in enumerate(sides):
        for tick, size in zip(ticks.tolist(), sizes.tolist(), strict=True):
            set_level(books, symbol, side, tick, size)
    for name in ("highest_buy", "lowest_buy", "highest_sell", "lowest_sell"):
        if abs(int(state[name][symbol])) < NO_ASK:
            state[name][symbol] *= price_factor
