"""`atlasd bench validation`: how fast results are doubted here: walk-forward, Monte Carlo, cross-validation, a sweep.

Markets, trades and returns are simulated, so that everybody measures the same.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from daemon.app.bench_queue import minute_bars
from daemon.core.backtest import Validation
from daemon.core.market import NS_PER_DAY, Instrument, Timeframe
from daemon.engine import montecarlo, overfitting
from daemon.engine.resampling import block_length
from daemon.research.monte_carlo import simulated
from daemon.research.optimization.records import OptimizationJob
from daemon.research.optimization.request import OptimizationRequest, planned
from daemon.research.optimization.search import optimize
from daemon.research.parameters import Space, read_specification
from daemon.research.strategies import RuleBook
from daemon.research.walk_forward import choices_of, sweeps_of, walk_forward
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.core.market import Float64s
    from daemon.research.optimization.records import OptimizationProgress

_INSTRUMENT: Final = Instrument("bench", "BENCH")
_YEAR_DAYS: Final = 365
_DAY_BARS: Final = NS_PER_DAY // Timeframe.MIN_1.ns
_WALK: Final = Validation(walk_forward=True, window_size=30, step_size=7)
_PATHS, _TRADES = 10_000, 1_000
_STRATEGIES, _DAYS, _BLOCKS = 1_000, 1_000, 16
_OPTIMIZED_BARS: Final = 45_000
_VALUES: Final = 10
_EXIT_RANGES: Final = {"take_profit": 0.005, "stop_loss": 0.005, "trailing_stop": 0.002}
"""What is optimised, and the first of each one's values, of which the others are multiples."""

_PASSES: Final = 7
_FEW: Final = 3
_RSI: Final = {"indicator": "rsi", "condition": "crosses_above", "value": 30}
_CONFIG: Final[dict[str, Any]] = {
    "strategy": {
        "name": "bench",
        "entryRules": [_RSI],
        "exitRules": [
            {"type": "take_profit", "value": 0.02},
            {"type": "stop_loss", "value": 0.05},
            {"type": "trailing_stop", "activation": 0.01, "distance": 0.005},
        ],
    },
    "backtest": {"symbols": ["BENCH"], "timeframe": "1m", "initialCapital": 10_000, "commission": 0.001},
}


def bench_validation() -> dict[str, Any]:
    """Measure the validation; keys carry their units, times are medians of warm passes on all cores.

    walk_forward_s: a year of 1-minute bars, 30 days of training and 7 of test, exits and length each x 0.5, 1, 2;
    reading, choosing and stitching included. monte_carlo_ms: all four methods, as a result has them; of these
    monte_carlo_bootstrap_ms: the bootstrap with its figures, monte_carlo_kernel_ms: its paths alone, on one core.
    cscv_s: one cross-validation; pbo_spread_s: as a result has it, at three block counts and over twenty halves.
    optimization_s: a grid of three exits, from the store to the verdict.
    """
    with tempfile.TemporaryDirectory() as folder:
        figures = _walk_forward(Path(folder) / "year", _YEAR_DAYS, _WALK)
        figures |= _monte_carlo(_PATHS, _TRADES)
        figures |= _cross_validation(_STRATEGIES, _DAYS, _BLOCKS)
        return figures | _optimization(Path(folder) / "optimized", _OPTIMIZED_BARS, _VALUES)


def _walk_forward(folder: Path, days: int, asked: Validation, passes: int = _FEW) -> dict[str, Any]:
    bars = days * _DAY_BARS
    with _stored(folder, bars) as store:
        spec = read_specification(_CONFIG, store, RuleBook(()), {})

        def run() -> Any:
            choices = choices_of(spec, Space(_CONFIG, spec, store, RuleBook(()), {}))
            return walk_forward(spec, asked, choices, sweeps_of(store, spec, choices))

        took_s, walked = _median_s(run, passes)
    return {
        "walk_forward_bars": bars,
        "walk_forward_sets": walked.parameter_sets,
        "walk_forward_folds": len(walked.folds),
        "walk_forward_trades": walked.out_of_sample_trades,
        "walk_forward_s": _rounded(took_s),
    }


def _monte_carlo(paths: int, trades: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    returns, costs = rng.normal(0.0005, 0.01, trades), np.full(trades, 0.001)
    asked: dict[str, Any] = {"runs": paths, "seed": 1}
    threads = os.cpu_count() or 1
    whole_s, found = _median_s(lambda: simulated(returns, costs, confidence=0.95, **asked), _PASSES)
    one_s, _ = _median_s(lambda: montecarlo.simulate(returns, costs, threads=threads, **asked), _PASSES)
    kernel_s, _ = _median_s(_walking(returns, costs, paths), _PASSES)
    return {
        "monte_carlo_paths": found.runs,
        "monte_carlo_trades": found.trades,
        "monte_carlo_methods": len(found.methods),
        "monte_carlo_ms": _rounded(1e3 * whole_s),
        "monte_carlo_bootstrap_ms": _rounded(1e3 * one_s),
        "monte_carlo_kernel_ms": _rounded(1e3 * kernel_s),
    }


def _walking(returns: Float64s, costs: Float64s, paths: int) -> Callable[[], None]:
    """Return a call of the bootstrap's kernel alone, without curves."""
    restart_chance = 1 / block_length(returns)
    ends, no_marks, no_curves = np.empty((3, paths)), np.empty(0, dtype=np.int64), np.empty((0, 0))
    bootstrap = montecarlo.METHODS["bootstrap"]

    def walk() -> None:
        montecarlo.walk_paths(
            bootstrap, returns, costs, restart_chance, 0.0, 0.0, 0.0, np.uint64(1), 0, paths, no_marks, ends, no_curves
        )

    return walk


def _cross_validation(strategies: int, days: int, blocks: int) -> dict[str, Any]:
    matrix = np.random.default_rng(1).normal(0.0, 0.01, (days, strategies))
    threads = os.cpu_count() or 1
    one_s, found = _median_s(lambda: overfitting.cscv(matrix, blocks, threads=threads), _FEW)
    spread_s, spread = _median_s(lambda: overfitting.pbo_spread(matrix, threads=threads), 1)
    return {
        "cscv_strategies": found.columns,
        "cscv_days": days,
        "cscv_blocks": found.blocks,
        "cscv_splits": found.logits.size,
        "cscv_s": _rounded(one_s),
        "pbo_spread_cuts": len(spread.cuts),
        "pbo_spread_s": _rounded(spread_s),
    }


def _optimization(folder: Path, bars: int, values: int, passes: int = _FEW) -> dict[str, Any]:
    ranges = {name: [round(first * (1 + step), 6) for step in range(values)] for name, first in _EXIT_RANGES.items()}
    with _stored(folder, bars) as store:
        book = RuleBook(())
        plan = planned(OptimizationRequest(config=_CONFIG, parameters=ranges), store, book, {})
        job = OptimizationJob("bench", plan, {})
        said: list[OptimizationProgress] = []
        took_s, found = _median_s(lambda: optimize(store, job, said.append, lambda: None, book), passes)
    return {
        "optimization_bars": found.execution.bars,
        "optimization_points": found.points,
        "optimization_trades": found.configured.total_trades,
        "optimization_s": _rounded(took_s),
    }


@contextmanager
def _stored(folder: Path, bars: int) -> Iterator[BarStore]:
    """Yield a store of its own with simulated minutes."""
    with Environment(folder, StoreConfig(sync=False)) as env:
        store = BarStore(env)
        rows = minute_bars(0, bars)
        env.write(lambda transaction: store.merge(transaction, _INSTRUMENT, Timeframe.MIN_1, rows, replace=False))
        yield store


def _median_s(run: Callable[[], Any], passes: int) -> tuple[float, Any]:
    """Median of warm passes, and what the last of them made; the first loads or compiles, and is not counted."""
    run()
    took = []
    for _ in range(passes):
        start = time.perf_counter()
        made = run()
        took.append(time.perf_counter() - start)
    return statistics.median(took), made


def _rounded(figure: float) -> float:
    """Return three digits: what is not there is not measured."""
    return float(f"{figure:.3g}")
