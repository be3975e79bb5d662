"""How long messages take: constant, uniformly drawn, or interpolated from a measured series; in ns, a call an event.

Feed latency is from the venue's time of an event until the strategy sees it, order latency from the strategy's order
until it is at the venue. Each has a random generator of its own, so that what a strategy sends does not change what it
sees. Delays of two messages are drawn apart: that messages of one connection keep their order is the loop's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from daemon.core.market import Int64s
from daemon.engine.jit import constants, kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.execution import Latency

UInt64s: TypeAlias = NDArray[np.uint64]

DELAY: Final = np.dtype(
    [
        ("feed_ns", "i8"),
        ("order_ns", "i8"),
        ("feed_spread_ns", "i8"),
        ("order_spread_ns", "i8"),
        ("feed_factor", "f8"),  # of what was measured: 1, or 0 where nothing is
        ("order_factor", "f8"),
    ]
)
"""A latency as kernels take it: constant + uniform of [0, spread] + factor x measured."""

_FEED, _ORDER = constants((0, 1))
_LANES: Final = 2

# splitmix64: Steele, Lea and Flood (2014), "Fast splittable pseudorandom number generators", with Stafford's mix 13.
_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST_FACTOR: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND_FACTOR: Final = np.uint64(0x94D049BB133111EB)
_FIRST_SHIFT, _SECOND_SHIFT, _THIRD_SHIFT = np.uint64(30), np.uint64(27), np.uint64(31)
_SPARE_BITS: Final = np.uint64(11)
_UNIT: Final = 2.0**-53
_WORD: Final = 1 << 64


class MeasuredLatency(NamedTuple):
    """A symbol's measured feed latency over the venue's time: (n,) int64 ns each, times ascending, n >= 1."""

    time_ns: Int64s
    delay_ns: Int64s


class Delays(NamedTuple):
    """What the kernels need, and where they are; make one for each run.

    constants: (1,) DELAY. time_ns, delay_ns: (n,) int64, the series of all symbols one after another. start, stop:
    (symbols,) int64, each symbol's rows of them. cursor: (2, symbols) int64, the row that each direction was last at.
    state: (2,) uint64, the generators of feed and orders.
    """

    constants: NDArray[Any]
    time_ns: Int64s
    delay_ns: Int64s
    start: Int64s
    stop: Int64s
    cursor: Int64s
    state: UInt64s


def delays_of(latency: Latency, series: Sequence[MeasuredLatency | None]) -> Delays:
    """Return what the kernels need.

    series: one a symbol; looked at where the latency is measured alone. ValueError for a symbol without one then.
    """
    kept = [each if latency.measured else None for each in series]
    missing = [place for place, each in enumerate(kept) if latency.measured and (each is None or not each.time_ns.size)]
    if missing:
        raise ValueError(f"the latency is measured, and symbol {missing[0]} has no series")
    record = np.zeros(1, dtype=DELAY)
    record["feed_ns"], record["order_ns"] = latency.feed_ns, latency.order_ns
    record["feed_spread_ns"], record["order_spread_ns"] = latency.feed_spread_ns, latency.order_spread_ns
    record["feed_factor"] = 1.0 if latency.measured else 0.0
    record["order_factor"] = latency.order_factor if latency.measured else 0.0
    counts = [0 if each is None else each.time_ns.size for each in kept]
    stop = np.cumsum(counts, dtype=np.int64)
    start = stop - np.array(counts, dtype=np.int64)
    nothing = np.empty(0, dtype=np.int64)
    return Delays(
        record,
        np.concatenate([nothing, *(each.time_ns for each in kept if each is not None)]),
        np.concatenate([nothing, *(each.delay_ns for each in kept if each is not None)]),
        start,
        stop,
        np.ascontiguousarray(np.tile(start, (_LANES, 1))),
        np.array([_mixed(_LANES * latency.seed + lane + 1) for lane in range(_LANES)], dtype=np.uint64),
    )


def _mixed(word: int) -> int:
    """Scatter a word over all 64 bits: neighbouring seeds begin far apart in the one sequence that there is."""
    word = word * int(_STEP) % _WORD
    word = (word ^ (word >> 30)) * int(_FIRST_FACTOR) % _WORD
    word = (word ^ (word >> 27)) * int(_SECOND_FACTOR) % _WORD
    return word ^ (word >> 31)


@kernel
def feed_delay(delays: Delays, symbol: int, now_ns: int) -> int:
    """Return how long the event of `now_ns`, the venue's time, takes to the strategy: ns, >= 0.

    Moves the feed's generator, where anything is drawn, and its cursor: O(1) where times ascend.
    """
    constant = delays.constants[0]
    delay_ns = constant.feed_ns + drawn(delays.state, _FEED, constant.feed_spread_ns)
    if constant.feed_factor > 0.0:
        delay_ns += np.int64(np.rint(constant.feed_factor * measured(delays, _FEED, symbol, now_ns)))
    return int(delay_ns)


@kernel
def order_delay(delays: Delays, symbol: int, now_ns: int) -> int:
    """Return how long what is sent at `now_ns` takes to the venue: ns, >= 0; otherwise as `feed_delay`.

    Where latency is measured that is a multiple of the feed's at that time: captures tell nothing of the way back.
    """
    constant = delays.constants[0]
    delay_ns = constant.order_ns + drawn(delays.state, _ORDER, constant.order_spread_ns)
    if constant.order_factor > 0.0:
        delay_ns += np.int64(np.rint(constant.order_factor * measured(delays, _ORDER, symbol, now_ns)))
    return int(delay_ns)


@kernel
def drawn(state: UInt64s, lane: int, spread_ns: int) -> int:
    """Draw a whole number of [0, spread_ns], each as likely; nothing is drawn of a spread of 0.

    state: (lanes,) uint64. spread_ns: below 2^53, so that the product is exact enough never to exceed the spread.
    Source: splitmix64, Steele, Lea and Flood (2014); its upper 53 bits as a fraction.
    """
    if spread_ns <= 0:
        return 0
    word = state[lane] + _STEP
    state[lane] = word
    word = (word ^ (word >> _FIRST_SHIFT)) * _FIRST_FACTOR
    word = (word ^ (word >> _SECOND_SHIFT)) * _SECOND_FACTOR
    word = word ^ (word >> _THIRD_SHIFT)
    return int(np.float64(word >> _SPARE_BITS) * _UNIT * np.float64(spread_ns + 1))


@kernel
def measured(delays: Delays, lane: int, symbol: int, now_ns: int) -> float:
    """Interpolate a symbol's series at a time: linear between its points, constant beyond its ends; ns.

    Walks from where the lane last was, in either direction. The symbol has a point at least.
    """
    time_ns, delay_ns = delays.time_ns, delays.delay_ns
    first, last = delays.start[symbol], delays.stop[symbol] - 1
    row = delays.cursor[lane, symbol]
    while row < last and time_ns[row + 1] <= now_ns:
        row += 1
    while row > first and time_ns[row] > now_ns:
        row -= 1
    delays.cursor[lane, symbol] = row
    before = np.float64(delay_ns[row])
    if row == last or now_ns <= time_ns[row]:
        return float(before)
    # As floats: the product of two spans of ns may exceed 64 bits.
    share = np.float64(now_ns - time_ns[row]) / np.float64(time_ns[row + 1] - time_ns[row])
    return float(before + share * np.float64(delay_ns[row + 1] - delay_ns[row]))
