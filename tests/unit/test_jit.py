import json
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pytest

from daemon import engine
from daemon.core import backtest
from daemon.core.market import NS_PER_HOUR, Instrument, Timeframe
from daemon.core.strategy import RiskProfile
from daemon.core.ticks import Stream, ticks
from daemon.engine import bars as engine_bars
from daemon.engine import (
    calibration,
    clock_offset,
    conditions,
    latency,
    montecarlo,
    overfitting,
    probe,
    reality_check,
    resampling,
    simulate,
    synthetic,
    tick_bars,
    trades,
    trailing,
)
from daemon.engine.columns import ATR, NAMES
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.jit import KERNELS
from daemon.engine.orders import Reference
from daemon.engine.program import compile_strategies
from daemon.research.strategies import load
from daemon.research.warmup import warm_all, warmth

ROOT = Path(__file__).parents[2]
MODULES = [import_module(f"daemon.engine.{module.name}") for module in iter_modules(engine.__path__)]


def name_of(kernel):
    return f"{kernel.py_func.__module__}.{kernel.py_func.__name__}"


def use_everything(bars):
    strategies = list(load([ROOT / "strategies.json"]))
    program = compile_strategies(strategies)
    columns = IndicatorColumns(bars)
    for name in NAMES:
        columns[name]
    signals = conditions.signals(program, columns)
    combinations = probe.combine(strategies, [(place, RiskProfile()) for place in range(len(strategies))])
    list(probe.run(bars, columns[ATR], signals, program.strategy_signals, combinations))
    engine_bars.lengthen(bars, 4 * NS_PER_HOUR)
    for decimals in (None, 0):
        rows = ticks(
            Stream.TRADES,
            price_decimals=decimals,
            size_decimals=decimals,
            time_ns=bars.start_ns,
            price=bars.close,
            size=bars.volume,
        )
        tick_bars.bars_of([rows, rows.rows(rows.size, rows.size)], Timeframe.DAY_1)
        buckets = calibration.TradeBuckets(NS_PER_HOUR)
        sides = np.ones(bars.size, dtype=np.int8)
        buckets.feed(bars.start_ns, bars.close, bars.volume, sides)
        calibration.pushes_of(buckets.finish(), NS_PER_HOUR, 365)
        clock_offset.LeastDelays().feed(bars.start_ns, -bars.start_ns)
        for measure in tick_bars.Measure:
            tick_bars.ThresholdBars(measure, 1e5).feed(rows)


def trade(bars):
    """Run the loop of the backtester over bars and over ticks, with funding and without, and pair its fills."""
    sigma, day_volume = trailing.daily_figures(bars, bars.volume, NS_PER_HOUR, 365)
    close_ns, atr = bars.start_ns + NS_PER_HOUR, np.full(bars.size, 1.0)
    signals = (np.arange(bars.size) % 16).astype(np.uint8)
    market = backtest.Market(instrument=Instrument("test", "A"), source=Timeframe.HOUR_1)
    for fills, funding_ns in (("bars", close_ns[:0]), ("ticks", close_ns[::8].copy())):
        spec = backtest.BacktestSpec(
            name="made up",
            markets=(market,),
            timeframe=Timeframe.HOUR_1,
            program=backtest.Rules(),
            costs=backtest.Costs(maker_rate=0.0, taker_rate=0.001, slippage=backtest.Almgren2005()),
            fills=fills,
        )
        funding = (funding_ns, np.full(funding_ns.size, 1e-4))
        series = simulate.Decisions(close_ns, np.array(bars[1:]), signals, atr, sigma, day_volume, *funding)
        ticks_of = (close_ns, bars.close, bars.volume)
        feeds = [
            simulate.Feed(0, kind, iter([simulate.Chunk(*ticks_of)])) for kind in (simulate.TRADES, simulate.QUOTES)
        ]
        outcome = simulate.Simulation(spec, [series], feeds if fills == "ticks" else ()).run()
        trades.trades_of(outcome.log, 1, int(Reference.CLOSE))


def replay(bars):
    """Run the loop over a book whose decimals grow, and call a handler of nobody."""
    market = backtest.Market(instrument=Instrument("test", "A"), source=Timeframe.HOUR_1)
    spec = backtest.BacktestSpec(
        name="made up",
        markets=(market,),
        timeframe=Timeframe.HOUR_1,
        program=backtest.Rules(),
        costs=backtest.Costs(maker_rate=0.0, taker_rate=0.001),
        fills="book",
    )
    unknown, nothing = np.full(bars.size, np.nan), bars.start_ns[:0]
    columns = bars.start_ns + NS_PER_HOUR, np.array(bars[1:]), np.zeros(bars.size, dtype=np.uint8)
    series = simulate.Decisions(*columns, unknown, unknown, unknown, nothing, unknown[:0])
    side = np.array([1, -1], dtype=np.int8)
    depth = [
        simulate.DepthChunk(
            np.full(2, bars.start_ns[0] + each), np.full(2, each), side, np.array([99, 101]) * 10**each,
            np.array([1, 1]), np.full(2, 1 - each, dtype=np.int8), each, each,
        )
        for each in (0, 1)
    ]  # fmt: skip
    trade = simulate.Chunk(bars.start_ns, bars.close, bars.volume, np.ones(bars.size, dtype=np.int8))
    feeds = [simulate.Feed(0, simulate.TRADES, iter([trade])), simulate.Feed(0, simulate.DEPTH, iter(depth))]
    simulate.Simulation(spec, [series], feeds).run()


def delay(bars):
    """Take delays that are drawn, and ones that were measured."""
    series = latency.MeasuredLatency(bars.start_ns, bars.start_ns // 1_000)
    for spec in (backtest.Latency(feed_spread_ns=5, order_spread_ns=7), backtest.Latency(measured=True)):
        delays = latency.delays_of(spec, [series])
        for now_ns in bars.start_ns[:3]:
            latency.feed_delay(delays, 0, int(now_ns))
            latency.order_delay(delays, 0, int(now_ns))


def resample(bars):
    """Draw from returns that are ours to write to, and from ones that are not."""
    returns = np.diff(bars.close) / bars.close[:-1]
    returns.setflags(write=bars.size < 500)
    for method in montecarlo.METHODS:
        montecarlo.simulate(returns, np.abs(returns), runs=3, seed=1, method=method, threads=2)
    resampling.bootstrap_means(returns, 3, 2, seed=1)
    matrix = np.column_stack([returns, -returns, np.roll(returns, 1)])
    matrix.setflags(write=bars.size < 500)
    overfitting.pbo_spread(matrix, block_counts=(4,), halves=1)
    reality_check.reality_check(matrix, draws=3)


def specialisations():
    """Count each kernel's after three series of different make, and after what is warmed up."""
    warm_all(load([ROOT / "strategies.json"]))
    for seed, size in ((1, 300), (2, 700)):
        bars = synthetic.simulate(
            synthetic.MarketModel(),
            seed=seed,
            start_ns=0,
            bars=size,
            timeframe=Timeframe.HOUR_1,
            session=synthetic.CONTINUOUS,
        )
        use_everything(bars)
        trade(bars)
        replay(bars)
        delay(bars)
        resample(bars)
    use_everything(bars.rows(50, 650))
    trade(bars.rows(50, 650))
    resample(bars.rows(50, 650))
    return {name_of(kernel): len(kernel.signatures) for kernel in KERNELS}


@pytest.mark.parametrize("kernel", KERNELS, ids=name_of)
def test_a_kernel_runs_without_the_gil_and_from_the_cache_with_ieee_division(kernel):
    assert kernel.targetoptions["nogil"] is True
    assert kernel.targetoptions["nopython"] is True
    assert kernel.targetoptions["error_model"] == "numpy"
    assert "fastmath" not in kernel.targetoptions
    assert kernel.stats.cache_path is not None


def test_nothing_in_the_engine_is_compiled_without_the_decorator():
    compiled = {value for module in MODULES for value in vars(module).values() if hasattr(value, "py_func")}
    assert compiled == set(KERNELS)


def test_each_kernel_is_compiled_for_exactly_one_signature(compiled_anew):
    # In a process of its own with an empty cache: one that comes from the cache hides what was compiled within it.
    assert compiled_anew.signatures.keys() == {name_of(kernel) for kernel in KERNELS}
    assert {name: count for name, count in compiled_anew.signatures.items() if count != 1} == {}


if __name__ == "__main__":  # `compiled_anew` of conftest.py
    json.dump({"signatures": specialisations(), "warmth": warmth()}, sys.stdout)
