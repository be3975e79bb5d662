"""What the loop over events reads: bars with what is known at their closes, and ticks, chunk by chunk."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from daemon.core.market import Float64s, Int64s
from daemon.engine.ladders import NO_LADDERS, Ladders
from daemon.engine.orders import Records

TRADES: Final = 0
QUOTES: Final = 1
DEPTH: Final = 2


class Pause(IntEnum):
    """Why a step of the loop returned."""

    DONE = 0
    WANTS_TICKS = 1  # of the feed `account.wanted_feed`
    LOG_FULL = 2
    BREATH = 3  # enough events for one step
    CALL = 4  # of the own strategy's handler that `calls.event` names


class Decisions(NamedTuple):
    """Bars of a symbol with what is known at their closes.

    close_ns: (n,) int64, end of each bar. values: (5, n) float64 open, high, low, close, volume in base units.
    signals: (n,) uint8 bits of `deciding`. atr: (n,) float64 quote currency, NaN unknown. sigma, day_volume: (n,)
    float64, daily volatility (a fraction) and volume (base units) as known at the bar's start, NaN unknown.
    funding_ns, funding_rate: (f,). ladders: books at the bars' starts, for slippage
    `order_book`.
    """

    close_ns: Int64s
    values: Float64s
    signals: Records
    atr: Float64s
    sigma: Float64s
    day_volume: Float64s
    funding_ns: Int64s
    funding_rate: Float64s
    ladders: Ladders = NO_LADDERS


class Closes(NamedTuple):
    """Decisions of all symbols one after another, but for the ladders: numba loses references of tuples in tuples."""

    close_ns: Int64s
    values: Float64s
    signals: Records
    atr: Float64s
    sigma: Float64s
    day_volume: Float64s
    funding_ns: Int64s
    funding_rate: Float64s


class Feeds(NamedTuple):
    """Ticks of all feeds, a row each, chunk by chunk.

    time_ns: (feeds, capacity) int64. first, second: (feeds, capacity) float64: price and size, or bid and ask; of
    depth nothing, its rows are `DepthRows` over the same times. aggressor: (feeds, capacity) int8, of trades against a
    book: 1 bought, -1 sold, 0 unknown. symbol, kind: (feeds,) int64. at, stop: (feeds,) int64, rows of the chunk that
    are next and in use. is_over: (feeds,) uint8, whether no chunk follows.
    """

    time_ns: Int64s
    first: Float64s
    second: Float64s
    aggressor: Records
    symbol: Int64s
    kind: Int64s
    at: Int64s
    stop: Int64s
    is_over: Records
