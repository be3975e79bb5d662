"""Make every kernel ready: from the cache where it is there, by compiling once where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from daemon.core.market import NS_PER_HOUR, NS_PER_SECOND, Bars, Timeframe
from daemon.core.strategy import RiskProfile
from daemon.core.ticks import Stream, ticks
from daemon.engine import bars as engine_bars
from daemon.engine import conditions, probe, tick_bars
from daemon.engine.columns import ATR
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.jit import KERNELS
from daemon.engine.program import compile_strategies
from daemon.engine.synthetic import MarketModel, simulate
from daemon.store import packing

if TYPE_CHECKING:
    from daemon.research.strategies import RuleBook

_BARS = 300


class Warmth(NamedTuple):
    """How many kernels came from the cache, and how many had to be compiled."""

    loaded: int
    compiled: int


def warm_probe(book: RuleBook) -> Warmth:
    """Run a few bars through everything a probe job uses, derived bars included."""
    steps = np.arange(_BARS)
    close = 100 + np.sin(steps / 7.0) * 3 + np.sin(steps / 31.0) * 5
    bars = Bars(steps * NS_PER_HOUR, close, close + 1, close - 1, close, np.full(_BARS, 1000.0))
    strategies = list(book)
    program = compile_strategies(strategies)
    columns = IndicatorColumns(bars)
    signals = conditions.signals(program, columns)
    combinations = probe.combine(strategies, [(place, RiskProfile()) for place in range(len(strategies))])
    list(probe.run(bars, np.asarray(columns[ATR]), signals, program.strategy_signals, combinations))
    engine_bars.lengthen(bars, 24 * NS_PER_HOUR)
    return warmth()


def warm_ticks() -> None:
    """Make the kernels of ticks ready: bars from trades, and the records of the live tail."""
    steps = np.arange(_BARS)
    rows = ticks(
        Stream.TRADES, price_decimals=1, size_decimals=1, time_ns=steps * NS_PER_SECOND, price=steps + 1, size=steps + 1
    )
    tick_bars.bars_of([rows], Timeframe.MIN_1)
    tick_bars.ThresholdBars(tick_bars.Measure.VOLUME, 10.0).feed(rows)
    columns, record = np.stack([steps, steps]), np.empty(10 * _BARS, dtype=np.uint8)
    packing.pack(columns, record)
    packing.unpack(record, np.zeros(1, dtype=np.int64), np.array([_BARS]), columns)


def warm_all(book: RuleBook) -> Warmth:
    """Make every kernel there is ready, the market simulator's included."""
    simulate(MarketModel(), seed=0, start_ns=0, bars=_BARS, timeframe=Timeframe.HOUR_1)
    warm_ticks()
    return warm_probe(book)


def warmth() -> Warmth:
    """Count what this process loaded and compiled so far."""
    kernels: list[Any] = [*KERNELS, *packing.KERNELS]
    return Warmth(
        loaded=sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels),
        compiled=sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels),
    )
