"""Make every kernel ready: from the cache where it is there, by compiling once where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from daemon.core.backtest import BacktestSpec, Costs, Distance, Exits, Market, Rules, Trailing
from daemon.core.execution import Latency
from daemon.core.market import NS_PER_HOUR, NS_PER_SECOND, Bars, Instrument, Timeframe
from daemon.core.strategy import RiskProfile
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream, ticks
from daemon.engine import bars as engine_bars
from daemon.engine import conditions, montecarlo, overfitting, probe, tick_bars
from daemon.engine import simulate as backtests
from daemon.engine.book import NO_ORDERS, Book
from daemon.engine.book_samples import begun, kept, room_for, sample
from daemon.engine.calibration import TradeBuckets
from daemon.engine.calling import call_often
from daemon.engine.clock_offset import LeastDelays
from daemon.engine.columns import ATR
from daemon.engine.deciding import ENTER_LONG
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.jit import KERNELS
from daemon.engine.ladders import with_dearest
from daemon.engine.latency import delays_of, feed_delay, order_delay
from daemon.engine.orders import ACCOUNT, Reference
from daemon.engine.program import compile_strategies
from daemon.engine.reality_check import reality_check
from daemon.engine.simulate import Decisions
from daemon.engine.synthetic import MarketModel, simulate
from daemon.engine.trades import trades_of
from daemon.engine.trailing import daily_figures
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


def warm_jobs(book: RuleBook) -> Warmth:
    """Make ready what workers run: probes, backtests, what judges them."""
    warm_backtest()
    warm_books()
    warm_validation()
    return warm_probe(book)


def warm_ticks() -> None:
    """Make the kernels of ticks ready: bars and buckets from trades, latency, and the records of the live tail."""
    steps = np.arange(_BARS)
    rows = ticks(
        Stream.TRADES, price_decimals=1, size_decimals=1, time_ns=steps * NS_PER_SECOND, price=steps + 1, size=steps + 1
    )
    tick_bars.bars_of([rows], Timeframe.MIN_1)
    tick_bars.ThresholdBars(tick_bars.Measure.VOLUME, 10.0).feed(rows)
    ones = np.ones(_BARS)
    TradeBuckets(NS_PER_HOUR).feed(steps * NS_PER_SECOND, ones, ones, ones.astype(np.int8))
    LeastDelays().feed(steps, steps)
    columns, record = np.stack([steps, steps]), np.empty(10 * _BARS, dtype=np.uint8)
    packing.pack(columns, record)
    packing.unpack(record, np.zeros(1, dtype=np.int64), np.array([_BARS]), columns)


def warm_backtest() -> None:
    """Run a few bars and ticks through everything a backtest uses."""
    steps = np.arange(_BARS)
    price = 100 + np.sin(steps / 7.0)
    bars = Bars(steps * NS_PER_SECOND, price, price + 1, price - 1, price, np.full(_BARS, 10.0))
    sigma, day_volume = daily_figures(bars, bars.volume, NS_PER_SECOND, 365)
    unknown = np.full(_BARS, np.nan)
    signals = np.where(steps % 10 == 0, ENTER_LONG, 0).astype(np.uint8)
    decided = Decisions(
        bars.start_ns + NS_PER_SECOND, np.array(bars[1:]), signals, unknown, sigma, day_volume, steps[:0], unknown[:0]
    )
    percent = Distance(unit="fraction", value=0.01)
    spec = BacktestSpec(
        name="warm-up",
        markets=(Market(instrument=Instrument("warm", "UP"), source=Timeframe.SEC_1),),
        timeframe=Timeframe.SEC_1,
        program=Rules(),
        exits=Exits(take_profit=percent, stop_loss=percent, trailing_stop=Trailing(distance=percent)),
        costs=Costs(maker_rate=0.0, taker_rate=0.0),
    )
    outcome = backtests.Simulation(spec, [decided]).run()
    trades_of(outcome.log, 1, int(Reference.CLOSE))
    feeds = [
        backtests.Feed(0, kind, iter([backtests.Chunk(bars.start_ns, price, price)]))
        for kind in (backtests.QUOTES, backtests.TRADES)
    ]
    backtests.Simulation(msgspec.structs.replace(spec, fills="ticks"), [decided], feeds).run()
    call_often(0, 0, np.zeros(1, dtype=ACCOUNT), 0, 0)
    delays = delays_of(Latency(feed_spread_ns=1, order_spread_ns=1), [None])
    feed_delay(delays, 0, 0)
    order_delay(delays, 0, 0)


def warm_books() -> None:
    """Read books of a few bars, one of which has none."""
    levels = np.arange(8)
    rows = ticks(
        Stream.DEPTH,
        price_decimals=0,
        size_decimals=0,
        time_ns=levels,
        id=np.ones(8, dtype=np.int64),
        side=np.where(levels < 4, BUY, SELL),  # noqa: PLR2004 - half of them
        price=levels + 100,
        size=levels + 1,
        flags=np.full(8, DepthFlag.SNAPSHOT),
    )
    book, found, at = Book(), room_for(2, 4), begun()
    is_lost = np.array([False, True])
    sample(book.books, book.laid(rows), _BARS + np.arange(2), 2, is_lost, 1.0, _BARS, NO_ORDERS, found, at)
    with_dearest(kept(found, at))


def warm_validation() -> None:
    """Run a few returns through what a validation and an optimisation use beside backtests.

    Sweeps, walks and sensitivity are backtests; significance has no kernels.
    """
    returns = np.sin(np.arange(_BARS) ** 2) / 100
    for method in montecarlo.METHODS:
        montecarlo.simulate(returns, np.abs(returns), runs=1, seed=0, method=method)
    matrix = np.column_stack([returns, returns[::-1]])
    overfitting.pbo_spread(matrix, block_counts=(4,), halves=1)
    reality_check(matrix, draws=1)


def warm_all(book: RuleBook) -> Warmth:
    """Make every kernel there is ready, the market simulator's included."""
    simulate(MarketModel(), seed=0, start_ns=0, bars=_BARS, timeframe=Timeframe.HOUR_1)
    warm_ticks()
    return warm_jobs(book)


def warmth() -> Warmth:
    """Count what this process loaded and compiled so far."""
    kernels: list[Any] = [*KERNELS, *packing.KERNELS]
    return Warmth(
        loaded=sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels),
        compiled=sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels),
    )
