"""What is known of an optimisation: how it is doing, and what came of it.

Names are the app's (camelCase on the wire), times Unix ms; a field named `...Percent` is 12.5 for 12.5 %, Sharpe ratios
are annual. None stands where a figure has no value.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from daemon.core.backtest import Target
from daemon.research.backtest_result import Priority, Status
from daemon.research.validation_result import Overfitting, Verdict

Method: TypeAlias = Literal["grid", "random", "optuna"]
Number: TypeAlias = float | None


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What all parts are."""


class OptimizationStatus(_Part, frozen=True, kw_only=True):
    """How an optimisation is doing.

    progress: 0 to 100. points: to be tried at the most; points_done: tried and stored. best_score: by the target, of
    those. attempts: how often a process began it.
    """

    id: str
    name: str
    status: Status
    priority: Priority
    progress: float
    target: Target
    method: Method
    points: int
    points_done: int = 0
    best_score: Number = None
    best_parameters: dict[str, float] | None = None
    symbols: list[str]
    timeframe: str
    created_at: int
    started_at: int | None = None
    completed_at: int | None = None
    estimated_time_remaining: int | None = None
    memory_bound_mb: Number = None
    attempts: int = 0
    verdict: str | None = None
    error: str | None = None
    error_code: str | None = None
    error_traceback: list[str] | None = None


class TriedRange(_Part, frozen=True, kw_only=True):
    """A parameter and what it could be: one of `values`, anything from low to high where there are none."""

    name: str
    values: list[float]
    low: float
    high: float


class TriedPoint(_Part, frozen=True, kw_only=True):
    """A point and what came of it. number: its place in the order of trying, from 0. score: by the target."""

    number: int
    parameters: dict[str, float]
    score: Number
    sharpe_ratio: Number
    total_return_percent: float
    max_drawdown_percent: float
    total_trades: int


class Plateau(_Part, frozen=True, kw_only=True):
    """A point with those around it. score: the median over it and its neighbours. lowest: the worst of them.

    share: score as a part of the point's own, 1 where all are as good; None where its own is not above 0. undefined:
    neighbours without a score, which count as the worst.
    """

    point: TriedPoint
    score: Number
    lowest: Number
    neighbours: int
    undefined: int
    share: Number


class Surface(_Part, frozen=True, kw_only=True):
    """The target over one or two parameters, whatever the others were.

    x_values, y_values: of the columns and rows, middles of bins where a parameter is continuous or has more values than
    are drawn; y is None and has one row where only one parameter was varied. best, median: of the points there, a list
    a row; counts: how many points.
    """

    x: str
    y: str | None
    x_values: list[float]
    y_values: list[float]
    best: list[list[Number]]
    median: list[list[Number]]
    counts: list[list[int]]


class OptimizationExecution(_Part, frozen=True, kw_only=True):
    """How it went. duration: ms, of the process that completed it; reused: points that an earlier one had tried."""

    started_at: int
    completed_at: int
    duration: int
    bars: int
    reused: int


class OptimizationResult(_Part, frozen=True, kw_only=True):
    """What came of an optimisation.

    points: tried. undefined: of these, without a value of the target. peak: the best point, None where none is defined;
    peak_plateau: it with its neighbours; plateau: the point whose neighbourhood is best. configured: the configuration
    as it was sent. top: the best points, best first. verdict: on the peak, as of a backtest that so many tries found.
    """

    id: str
    name: str
    target: Target
    method: Method
    budget: int
    seed: int
    config: dict[str, Any]
    symbols: list[str]
    timeframe: str
    days: int
    ranges: list[TriedRange]
    points: int
    undefined: int
    configured: TriedPoint
    peak: TriedPoint | None
    peak_plateau: Plateau | None
    plateau: Plateau | None
    top: list[TriedPoint]
    surfaces: list[Surface]
    verdict: Verdict
    overfitting: Overfitting | None
    notes: list[str]
    execution: OptimizationExecution
