"""What the charts of a validation draw: no more points than a screen shows, extremes kept.

Columns of plain numbers, times in Unix ms; equity of the simulation in multiples of the capital.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from daemon.engine.curves import decimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.research.backtest_result import BacktestResult
    from daemon.research.validation_result import Fold, MonteCarloResult, Overfitting, WalkForward

MOST_POINTS: Final = 1_000
MOST_PATHS: Final = 30
MOST_BARS: Final = 400
FAN_LINES: Final = ("percentile5", "percentile25", "median", "percentile75", "percentile95")

_MS_PER_DAY: Final = 86_400_000
_NS_PER_MS: Final = 1_000_000
_DIGITS: Final = 8


def validation_charts(result: BacktestResult) -> dict[str, Any]:
    """Choose and shorten what is drawn of each part that is there and has something to draw."""
    drawn: dict[str, Any] = {}
    if (walk := result.walk_forward) is not None and walk.folds:
        drawn["folds"] = _folds(walk.folds[:MOST_BARS])
        if walk.equity:
            drawn["stitched"] = stitched(walk)
    if (simulated := result.monte_carlo) is not None and simulated.fan.trades:
        drawn["fan"] = fan(simulated)
    if (found := result.overfitting) is not None and found.logit_counts:
        drawn["logits"] = logits(found)
    return drawn


def _folds(folds: Sequence[Fold]) -> dict[str, list[Any]]:
    """Return a day in and out of sample: trainings and tests are not equally long."""
    return {
        "number": [fold.number for fold in folds],
        "test_start": [fold.test_start for fold in folds],
        "inside": [_a_day(fold.in_sample_return_percent, fold.train_start, fold.train_end) for fold in folds],
        "outside": [_a_day(fold.out_of_sample_return_percent, fold.test_start, fold.test_end) for fold in folds],
    }


def _a_day(return_percent: float, start: int, end: int) -> float:
    return return_percent * _MS_PER_DAY / max(end - start, 1)


def stitched(walk: WalkForward) -> dict[str, list[Any]]:
    """Thin out the account that traded the tests one after the other."""
    time_ns = np.array([point.timestamp for point in walk.equity], dtype=np.int64) * _NS_PER_MS
    value = np.array([point.equity for point in walk.equity])
    rows = decimate(time_ns, [value], MOST_POINTS)
    return {"time": (time_ns[rows] // _NS_PER_MS).tolist(), "equity": _short(value[rows].tolist())}


def fan(simulated: MonteCarloResult) -> dict[str, Any]:
    """Take percentiles and some paths at evenly spaced numbers of trades."""
    trades = simulated.fan.trades
    rows = np.unique(np.linspace(0, len(trades) - 1, min(len(trades), MOST_POINTS)).astype(np.int64)).tolist()
    return {
        "trades": [trades[row] for row in rows],
        **{name: _short([getattr(simulated.fan, name)[row] for row in rows]) for name in FAN_LINES},
        "paths": [
            _short([path[row] for row in rows])
            for path in simulated.sample_paths[:MOST_PATHS]
            if len(path) == len(trades)
        ],
    }


def logits(found: Overfitting) -> dict[str, list[Any]]:
    """Give the bins of the logits; those below zero were overfitted."""
    return {"edges": _short(found.logit_edges), "counts": list(found.logit_counts)}


def _short(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in values]
