"""What `atlasd bench book` replays: a recording, or a simulated perpetual as busy as one, repeated in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from daemon.core.market import NS_PER_DAY, NS_PER_SECOND
from daemon.core.ticks import BUY, DepthFlag, Stream, concatenate, ticks

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.core.ticks import Ticks

_START_NS: Final = 19_000 * NS_PER_DAY
_EVENT_NS: Final = 52_000_000
_EVENT_ROWS: Final = 34  # the median; the mean is 68
_EVENT_SPREAD: Final = 1.17  # of the logarithm, as in all that follow
_MOVES, _MOVE_TICKS = 0.2, 18.0  # share of the events that move the best levels, and how far
_DISTANCE_TICKS, _DISTANCE_SPREAD = 409, 1.3
_FAR, _FAR_TICKS = 0.01, 500_000
_SIZE, _SIZE_SPREAD = 132, 2.0
_GONE: Final = 0.2
_SHOWN: Final = 1_000  # levels of a snapshot, a side
_TRADES_A_EVENT: Final = 3.25
_TRADE_SIZE, _TRADE_SPREAD = 16, 1.7
_PRICE: Final = 617_000
_ROUND_ROWS: Final = 500_000
"""Rows of depth that are simulated; more are repetitions."""


class BookMarket(NamedTuple):
    """Trades and depth of one symbol, by time. depth_events: updates of the venue."""

    trades: Ticks
    depth: Ticks
    depth_events: int

    @property
    def events(self) -> int:
        """Changes of price levels, and trades."""
        return self.trades.size + self.depth.size


def recorded(capture: Path, depth_rows: int) -> BookMarket:
    """Read a recording of book and trades, and repeat it; InvalidRequest for one without either."""
    from daemon.app.bench_store import of_file
    from daemon.core.errors import Code, InvalidRequest

    found = {sample.rows.stream: sample.rows for sample in of_file(capture)}
    missing = [stream for stream in (Stream.TRADES, Stream.DEPTH) if stream not in found]
    if missing:
        why = f"{capture} has no {missing[0]}: the bench of the book takes a recording of both depth and trades"
        raise InvalidRequest(Code.INVALID_REQUEST, why)
    return repeated(found[Stream.TRADES], found[Stream.DEPTH], depth_rows)


def simulated(depth_rows: int) -> BookMarket:
    """Simulate a perpetual with the statistics of a busy one: most changes within 1,000 ticks of the best."""
    rng = np.random.default_rng(20_240_808)
    count = max(1, min(depth_rows, _ROUND_ROWS) // (2 * _EVENT_ROWS))
    steps = np.rint(rng.normal(0.0, _MOVE_TICKS, count)).astype(np.int64) * (rng.random(count) < _MOVES)
    middle = _PRICE + np.cumsum(steps)
    trades, depth = _trades(rng, middle), _depth(rng, middle)
    return repeated(trades, depth, depth_rows)


def _depth(rng: np.random.Generator, middle: Any) -> Ticks:
    """Bids up to the middle and asks above it; what the middle passes is gone, and its two sides are always there."""
    count = middle.size
    moved = np.diff(middle, prepend=middle[0])
    of_event = [_snapshot(rng, int(middle[0]))]
    passed, changed = np.abs(moved), np.maximum(1, np.rint(rng.lognormal(np.log(_EVENT_ROWS), _EVENT_SPREAD, count)))
    # Levels that the middle passed: asks from the old one's next on when it rose, bids from the old one down.
    event = np.repeat(np.arange(count), passed)
    step = np.arange(event.size) - np.repeat(np.cumsum(passed) - passed, passed)
    rose = moved[event] > 0
    before = middle[event] - moved[event]
    side, tick = np.where(rose, -BUY, BUY), np.where(rose, before + 1 + step, before - step)
    of_event.append(np.stack([event, side, tick, np.zeros_like(event), np.zeros_like(event)]))
    for side_of, offset in ((BUY, 0), (-BUY, 1)):
        every = np.arange(count)
        of_event.append(np.stack([every, np.full(count, side_of), middle + offset, _sizes(rng, count), 0 * every]))
    event = np.repeat(np.arange(count), changed.astype(np.int64))
    side = np.where(rng.random(event.size) < 0.5, BUY, -BUY)  # noqa: PLR2004
    distance = np.rint(rng.lognormal(np.log(_DISTANCE_TICKS), _DISTANCE_SPREAD, event.size)).astype(np.int64) + 1
    distance = np.where(rng.random(event.size) < _FAR, rng.integers(1, _FAR_TICKS, event.size), distance)
    size = np.where(rng.random(event.size) < _GONE, 0, _sizes(rng, event.size))
    tick = middle[event] + np.where(side == BUY, -distance, distance + 1)
    of_event.append(np.stack([event, side, tick, size, np.zeros_like(event)]))
    rows = np.concatenate(of_event, axis=1)
    # An event changes a level once.
    once = np.unique(rows[:3], axis=1, return_index=True)[1]
    event, side, tick, size, flags = rows[:, np.sort(once)][:, np.argsort(rows[0, np.sort(once)], kind="stable")]
    return ticks(
        Stream.DEPTH,
        price_decimals=1,
        size_decimals=3,
        time_ns=_START_NS + event * _EVENT_NS,
        id=event,
        side=side,
        price=tick,
        size=size,
        flags=flags,
    )


def _snapshot(rng: np.random.Generator, middle: int) -> Any:
    """Return rows of event 0 that show a thousand levels a side."""
    away = np.arange(_SHOWN)
    side = np.repeat([BUY, -BUY], _SHOWN)
    tick = np.concatenate([middle - away, middle + 1 + away])
    zero = np.zeros(2 * _SHOWN, dtype=np.int64)
    return np.stack([zero - 1, side, tick, _sizes(rng, 2 * _SHOWN), zero + int(DepthFlag.SNAPSHOT)])


def _sizes(rng: np.random.Generator, count: int) -> Any:
    return np.maximum(1, np.rint(rng.lognormal(np.log(_SIZE), _SIZE_SPREAD, count))).astype(np.int64)


def _trades(rng: np.random.Generator, middle: Any) -> Ticks:
    """Bursts of one side, at the best of the other one, between the changes of the book."""
    event = np.sort(rng.integers(0, middle.size, round(_TRADES_A_EVENT * middle.size)))
    side = np.where(rng.random(middle.size) < 0.5, BUY, -BUY)[event]  # noqa: PLR2004
    return ticks(
        Stream.TRADES,
        price_decimals=1,
        size_decimals=3,
        time_ns=_START_NS + event * _EVENT_NS + _EVENT_NS // 2,
        id=np.arange(event.size),
        price=middle[event] + (side == BUY),
        size=np.maximum(1, np.rint(rng.lognormal(np.log(_TRADE_SIZE), _TRADE_SPREAD, event.size))),
        side=side,
    )


def repeated(trades: Ticks, depth: Ticks, depth_rows: int) -> BookMarket:
    """Repeat both later, in step, until there are so many rows of depth."""
    copies = max(1, -(-depth_rows // depth.size))
    ends = [int(column[place]) for place in (0, -1) for column in (trades.time_ns, depth.time_ns)]
    span_ns = max(ends) - min(ends) + NS_PER_SECOND
    ids = depth.column("id")
    changes = (ids[1:] != ids[:-1]) | (depth.time_ns[1:] != depth.time_ns[:-1])
    return BookMarket(
        concatenate([_later(trades, copy, span_ns) for copy in range(copies)]),
        concatenate([_later(depth, copy, span_ns) for copy in range(copies)]),
        copies * (1 + int(np.count_nonzero(changes))),
    )


def lengthened(rows: Ticks, wanted: int) -> Ticks:
    """Repeat rows later until there are so many."""
    span_ns = int(rows.time_ns[-1] - rows.time_ns[0]) + NS_PER_SECOND
    copies = max(1, -(-wanted // rows.size))
    return concatenate([_later(rows, copy, span_ns) for copy in range(copies)])


def _later(rows: Ticks, copy: int, span_ns: int) -> Ticks:
    ids = rows.column("id")
    id_span = int(ids.max() - ids.min()) + 1
    shifts = {"time_ns": copy * span_ns, "id": copy * id_span}
    return ticks(
        rows.stream,
        price_decimals=rows.price_decimals,
        size_decimals=rows.size_decimals,
        **{
            name: rows.column(name) + shifts.get(name, 0)
            for name in ("time_ns", "id", "price", "size", "side", *(["flags"] if rows.stream is Stream.DEPTH else []))
        },
    )
