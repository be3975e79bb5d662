"""A level-2 book from snapshots and changes: exact sizes, the best levels at once, deep levels where they are asked.

Levels lie in a window of ticks around the market, one slot a tick, with a bit for every slot that holds something: the
next level is found sixty-four ticks at a time. What lies outside of the window (orders left far away) is kept sorted
beside it, and comes in when the window moves. Sizes are integers of 10^-decimals, as they are stored, so that a level
is exactly what the venue said, and is gone exactly when it said so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.ticks import BUY, COLUMNS, DepthFlag, Stream
from daemon.engine.jit import constants, kernel

if TYPE_CHECKING:
    from daemon.core.market import Int64s
    from daemon.core.ticks import Ticks

WINDOW: Final = 1 << 16
"""Ticks of the window, both sides together: for BTCUSDT at 0.1, 11 % around 60,000."""

MOST_FAR: Final = 1 << 16
"""Levels outside of the window, a side; the farthest are dropped beyond, and counted."""

NO_TICK: Final = np.iinfo(np.int64).min
"""Best level of a side that has none."""

STATE = np.dtype(
    [
        ("base", np.int64),  # tick of slot 0
        ("bid", np.int64),  # best ticks, NO_TICK for none
        ("ask", np.int64),
        ("id", np.int64),  # of the last row
        ("time_ns", np.int64),
        ("is_whole", np.int64),  # whether a snapshot was seen and nothing was lost since
        ("in_snapshot", np.int64),  # whether the last row was one
        ("crossed", np.int64),  # rows after which the best bid was not below the best ask
        ("unknown", np.int64),  # removals of levels that were not there
        ("negative", np.int64),  # rows of a size below 0, which are not taken
        ("early", np.int64),  # rows before the first snapshot, or between a gap and the next
        ("dropped", np.int64),  # levels that were too far away
        ("far_bids", np.int64),  # how many levels lie outside
        ("far_asks", np.int64),
    ]
)
"""A book's state, one record."""

_WORD: Final = 64
_SNAPSHOT, _AFTER_GAP = constants([DepthFlag.SNAPSHOT, DepthFlag.AFTER_GAP])
_BIDS, _ASKS = constants([0, 1])
_NONE = np.int64(NO_TICK)


class Levels(NamedTuple):
    """Where a book keeps its levels.

    sizes: (2, WINDOW) int64, bids then asks. bits: (2, WINDOW / 64) uint64. far_ticks, far_sizes: (2, MOST_FAR) int64,
    by tick ascending.
    """

    sizes: Int64s
    bits: np.ndarray
    far_ticks: Int64s
    far_sizes: Int64s


# The window.


@kernel
def _place(levels: Levels, side: int, slot: int, size: int) -> None:
    """Set the size of a slot, and its bit."""
    levels.sizes[side, slot] = size
    bit = np.uint64(1) << np.uint64(slot & 63)
    if size > 0:
        levels.bits[side, slot >> 6] |= bit
    else:
        levels.bits[side, slot >> 6] &= ~bit


@kernel
def _lowest(word: np.uint64) -> int:
    """Return the place of the lowest bit of a word that is not 0."""
    place = 0
    if word & np.uint64(0xFFFFFFFF) == np.uint64(0):
        word >>= np.uint64(32)
        place += 32
    if word & np.uint64(0xFFFF) == np.uint64(0):
        word >>= np.uint64(16)
        place += 16
    if word & np.uint64(0xFF) == np.uint64(0):
        word >>= np.uint64(8)
        place += 8
    while word & np.uint64(1) == np.uint64(0):
        word >>= np.uint64(1)
        place += 1
    return place


@kernel
def _highest(word: np.uint64) -> int:
    """Return the place of the highest bit of a word that is not 0."""
    place = 0
    if word >> np.uint64(32) != np.uint64(0):
        word >>= np.uint64(32)
        place += 32
    if word >> np.uint64(16) != np.uint64(0):
        word >>= np.uint64(16)
        place += 16
    if word >> np.uint64(8) != np.uint64(0):
        word >>= np.uint64(8)
        place += 8
    while word > np.uint64(1):
        word >>= np.uint64(1)
        place += 1
    return place


@kernel
def _below(bits: np.ndarray, side: int, slot: int) -> int:
    """Return the highest slot at or below `slot` that holds something, -1 for none."""
    if slot < 0:
        return -1
    word = slot >> 6
    found = bits[side, word] << np.uint64(63 - (slot & 63))
    if found != np.uint64(0):
        return slot - 63 + _highest(found)
    word -= 1
    while word >= 0:
        if bits[side, word] != np.uint64(0):
            return (word << 6) + _highest(bits[side, word])
        word -= 1
    return -1


@kernel
def _above(bits: np.ndarray, side: int, slot: int) -> int:
    """Return the lowest slot at or above `slot` that holds something, -1 for none."""
    if slot >= bits.shape[1] << 6:
        return -1
    word = slot >> 6
    found = bits[side, word] >> np.uint64(slot & 63)
    if found != np.uint64(0):
        return slot + _lowest(found)
    word += 1
    while word < bits.shape[1]:
        if bits[side, word] != np.uint64(0):
            return (word << 6) + _lowest(bits[side, word])
        word += 1
    return -1


# Outside of it.


@kernel
def _far_count(state: np.ndarray, side: int) -> int:
    return state[0].far_bids if side == _BIDS else state[0].far_asks


@kernel
def _set_far_count(state: np.ndarray, side: int, count: int) -> None:
    if side == _BIDS:
        state[0].far_bids = count
    else:
        state[0].far_asks = count


@kernel
def _place_far(  # noqa: C901 - insert, change, remove, and drop the farthest
    state: np.ndarray, levels: Levels, side: int, tick: int, size: int
) -> bool:
    """Set the size of a level outside of the window; tells whether it was there."""
    ticks, sizes = levels.far_ticks[side], levels.far_sizes[side]
    count = _far_count(state, side)
    at = np.searchsorted(ticks[:count], tick)
    was_there = at < count and ticks[at] == tick
    if was_there and size > 0:
        sizes[at] = size
    elif was_there:
        for place in range(at, count - 1):
            ticks[place], sizes[place] = ticks[place + 1], sizes[place + 1]
        _set_far_count(state, side, count - 1)
    elif size > 0:
        if count == ticks.size:  # the farthest goes: the lowest bid, the highest ask
            state[0].dropped += 1
            if side == _BIDS:
                if at == 0:
                    return False
                for place in range(at - 1):
                    ticks[place], sizes[place] = ticks[place + 1], sizes[place + 1]
                ticks[at - 1], sizes[at - 1] = tick, size
                return False
            if at == count:
                return False
            count -= 1
        for place in range(count, at, -1):
            ticks[place], sizes[place] = ticks[place - 1], sizes[place - 1]
        ticks[at], sizes[at] = tick, size
        _set_far_count(state, side, count + 1)
    return was_there


@kernel
def _move(state: np.ndarray, levels: Levels, middle: int) -> None:
    """Lay the window around a tick: what falls out is kept outside, what comes in is taken from there."""
    window = levels.sizes.shape[1]
    old, base = state[0].base, middle - window // 2
    state[0].base = base
    for side in range(2):
        held = levels.sizes[side].copy()
        levels.sizes[side, :] = 0
        levels.bits[side, :] = np.uint64(0)
        kept = 0
        count = _far_count(state, side)
        ticks, sizes = levels.far_ticks[side], levels.far_sizes[side]
        for place in range(count):
            slot = ticks[place] - base
            if 0 <= slot < window:
                _place(levels, side, slot, sizes[place])
            else:
                ticks[kept], sizes[kept] = ticks[place], sizes[place]
                kept += 1
        _set_far_count(state, side, kept)
        for slot in range(window):
            if held[slot] > 0:
                tick = old + slot
                if 0 <= tick - base < window:
                    _place(levels, side, tick - base, held[slot])
                else:
                    _place_far(state, levels, side, tick, held[slot])


@kernel
def _best(state: np.ndarray, levels: Levels, side: int, tick: int) -> int:
    """Return the best level of a side at or behind a tick; _NONE for none."""
    count, base = _far_count(state, side), state[0].base
    window = levels.sizes.shape[1]
    ticks = levels.far_ticks[side]
    if side == _BIDS:
        at = np.searchsorted(ticks[:count], tick, side="right") - 1
        far = ticks[at] if at >= 0 else _NONE
        slot = _below(levels.bits, side, min(tick - base, window - 1))
        return max(far, base + slot) if slot >= 0 else far
    at = np.searchsorted(ticks[:count], tick)
    slot = _above(levels.bits, side, max(tick - base, 0))
    if at < count:
        return min(ticks[at], base + slot) if slot >= 0 else ticks[at]
    return base + slot if slot >= 0 else _NONE


# Rows.


@kernel
def _clear(state: np.ndarray, levels: Levels) -> None:
    levels.sizes[:, :] = 0
    levels.bits[:, :] = np.uint64(0)
    state[0].far_bids = state[0].far_asks = 0
    state[0].bid = state[0].ask = _NONE


@kernel
def _set(state: np.ndarray, levels: Levels, side: int, tick: int, size: int) -> None:
    """Set a level, 0 to remove it, and keep the best ones."""
    best = state[0].bid if side == _BIDS else state[0].ask
    is_better = best == _NONE or (tick > best if side == _BIDS else tick < best)
    window = levels.sizes.shape[1]
    slot = tick - state[0].base
    if not 0 <= slot < window and size > 0 and is_better:
        _move(state, levels, tick)
        slot = tick - state[0].base
    if 0 <= slot < window:
        was_there = levels.sizes[side, slot] > 0
        if was_there or size > 0:
            _place(levels, side, slot, size)
    else:
        was_there = _place_far(state, levels, side, tick, size)
    if size > 0 and is_better:
        best = tick
    elif size == 0:
        if not was_there:
            state[0].unknown += 1
        elif tick == best:
            best = _best(state, levels, side, tick)
    if side == _BIDS:
        state[0].bid = best
    else:
        state[0].ask = best


@kernel
def apply_rows(
    state: np.ndarray,
    levels: Levels,
    time_ns: Int64s,
    ids: Int64s,
    sides: np.ndarray,
    prices: Int64s,
    sizes: Int64s,
    flags: np.ndarray,
    tick: int,
) -> None:
    """Take rows of depth, in their order.

    A snapshot replaces what was; rows before the first one, and between a gap and the next, are counted and not taken.
    tick: of the prices, in their own integers; those between two ticks count as the lower one. Rows of a size below 0
    are counted and not taken.
    """
    book = state[0]
    for row in range(time_ns.size):
        is_snapshot = flags[row] & _SNAPSHOT != 0
        if flags[row] & _AFTER_GAP != 0:
            book.is_whole = 0
        if is_snapshot and (book.in_snapshot == 0 or ids[row] != book.id):
            _clear(state, levels)
            book.base = prices[row] // tick - levels.sizes.shape[1] // 2
            book.is_whole = 1
        book.in_snapshot = np.int64(is_snapshot)
        book.id, book.time_ns = ids[row], time_ns[row]
        if book.is_whole == 0:
            book.early += 1
        elif sizes[row] < 0:
            book.negative += 1
        else:
            side = _BIDS if sides[row] == BUY else _ASKS
            _set(state, levels, side, prices[row] // tick, sizes[row])
            both = book.bid != _NONE and book.ask != _NONE  # noqa: PLR1714 - kernels have no tuples to look in
            if both and book.bid >= book.ask and not is_snapshot:
                book.crossed += 1


@kernel
def deepest(state: np.ndarray, levels: Levels, side: int, ticks: Int64s, sizes: Int64s) -> int:
    """Write the best levels of a side, best first, as many as there is room for; returns how many."""
    count = 0
    tick = state[0].bid if side == _BIDS else state[0].ask
    while tick != _NONE and count < ticks.size:
        slot = tick - state[0].base
        ticks[count] = tick
        if 0 <= slot < levels.sizes.shape[1]:
            sizes[count] = levels.sizes[side, slot]
        else:
            far = _far_count(state, side)
            sizes[count] = levels.far_sizes[side][np.searchsorted(levels.far_ticks[side][:far], tick)]
        count += 1
        tick = _best(state, levels, side, tick - 1 if side == _BIDS else tick + 1)
    return count


class Top(NamedTuple):
    """Levels of one side, best first. prices, sizes: (n,) int64, in the integers of the rows."""

    prices: Int64s
    sizes: Int64s


class Book:
    """One symbol's book. tick: of its prices, in the integers of its rows."""

    def __init__(self, tick: int = 1, *, window: int = WINDOW, most_far: int = MOST_FAR) -> None:
        """window: a multiple of 64."""
        if tick < 1 or window % _WORD or window < _WORD:
            raise ValueError(f"a tick of {tick} or a window of {window}: at least 1, and a multiple of {_WORD}")
        self._tick = tick
        self.state = np.zeros(1, dtype=STATE)
        self.state["bid"] = self.state["ask"] = NO_TICK
        self.levels = Levels(
            np.zeros((2, window), dtype=np.int64),
            np.zeros((2, window // _WORD), dtype=np.uint64),
            np.zeros((2, most_far), dtype=np.int64),
            np.zeros((2, most_far), dtype=np.int64),
        )

    def apply(self, rows: Ticks) -> None:
        """Take rows of depth; ValueError where they are of another stream, or prices or sizes are no integers."""
        if rows.stream is not Stream.DEPTH or rows.price_decimals is None or rows.size_decimals is None:
            raise ValueError("a book takes rows of depth with integer prices and sizes")
        named = dict(zip(COLUMNS[Stream.DEPTH], rows.columns, strict=True))
        apply_rows(
            self.state,
            self.levels,
            *(named[name] for name in ("time_ns", "id", "side", "price", "size", "flags")),
            self._tick,
        )

    @property
    def is_whole(self) -> bool:
        """Whether it can be trusted: a snapshot was seen, and nothing was lost since."""
        return bool(self.state["is_whole"][0])

    @property
    def best(self) -> tuple[int | None, int | None]:
        """Best bid and ask, in the integers of the rows; None for a side without levels."""
        bid, ask = int(self.state["bid"][0]), int(self.state["ask"][0])
        return (
            None if bid == NO_TICK else bid * self._tick,
            None if ask == NO_TICK else ask * self._tick,
        )

    def top(self, side: int, count: int) -> Top:
        """Return the best levels of a side, BUY or SELL, at most so many."""
        ticks, sizes = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
        found = deepest(self.state, self.levels, 0 if side == BUY else 1, ticks, sizes)
        return Top(ticks[:found] * self._tick, sizes[:found])
