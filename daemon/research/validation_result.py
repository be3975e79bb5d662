"""How far a result can be trusted: the verdict, and what it rests on.

Names are the app's (camelCase on the wire), times Unix ms. A field named `…Percent` is 12.5 for 12.5 %; returns,
drawdowns and chances of the Monte Carlo simulation are fractions. None stands where a figure has no value.
`docs/validation.md` defines each.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Word: TypeAlias = Literal["robust", "doubtful", "overfitted", "insufficient data"]
Standing: TypeAlias = Literal["pass", "warn", "fail", "unknown"]
Number: TypeAlias = float | None


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What all parts are."""


# The verdict.


class Check(_Part, frozen=True, kw_only=True):
    """One question that was put to a result. value and limit: in the figure's own unit; words: the answer."""

    name: str
    standing: Standing
    value: Number
    limit: Number
    words: str


class Verdict(_Part, frozen=True, kw_only=True):
    """What the result is worth.

    reasons: the three strongest, in words and figures. assumptions: what the verdict takes for granted. would_change:
    what would change it. trials: how often this idea was tried, this run included; tried_before: without it. Sharpe
    ratios are annual, chance_sharpe is the best that so many tries without an edge give on average. The chances are 0
    to 1. min_track_record_days: days of such returns that would prove a Sharpe above 0 at 95 %.
    """

    verdict: Word
    reasons: list[str]
    assumptions: list[str]
    would_change: list[str]
    idea: str
    trials: int
    tried_before: int
    sharpe_ratio: Number
    chance_sharpe: Number
    probabilistic_sharpe: Number
    deflated_sharpe: Number
    min_track_record_days: Number
    track_record_days: int
    min_backtest_years: Number
    checks: list[Check]


# Monte Carlo.


class ConfidenceInterval(_Part, frozen=True, kw_only=True):
    """Of the final return, a fraction."""

    lower: float
    upper: float
    confidence: float


class Fan(_Part, frozen=True, kw_only=True):
    """Percentiles of the equity, as multiples of the initial capital, after so many trades."""

    trades: list[int]
    percentile5: list[float]
    percentile25: list[float]
    median: list[float]
    percentile75: list[float]
    percentile95: list[float]


class _Spread(_Part, frozen=True, kw_only=True):
    """Where many runs ended. Ruin is half of the capital lost at any time."""

    median_return: float
    mean_return: float
    std_return: float
    percentile5: float
    percentile25: float
    percentile75: float
    percentile95: float
    median_drawdown: float
    percentile95_drawdown: float
    probability_of_profit: float
    probability_of_ruin: float
    probability_of2x_return: float = msgspec.field(name="probabilityOf2xReturn")
    return_confidence_interval: ConfidenceInterval


class MonteCarloMethod(_Spread, frozen=True, kw_only=True):
    """One way to disturb the trades: `bootstrap`, `shuffle`, `missed` or `noise`."""

    method: str
    words: str


class MonteCarloResult(_Spread, frozen=True, kw_only=True):
    """The app's fields are those of the bootstrap. sample_paths: equity as multiples of the capital, as of the fan."""

    runs: int
    seed: int
    trades: int
    block_length: float
    ruin_level: float
    sample_paths: list[list[float]]
    fan: Fan
    methods: list[MonteCarloMethod]


# Walk-forward.


class Fold(_Part, frozen=True, kw_only=True):
    """One step. parameters: those that were best in training; figures with `in_sample` are of the training."""

    number: int
    train_start: int
    train_end: int
    test_start: int
    test_end: int
    parameters: dict[str, float]
    in_sample_score: Number
    in_sample_sharpe: Number
    in_sample_return_percent: float
    in_sample_trades: int
    out_of_sample_sharpe: Number
    out_of_sample_return_percent: float
    out_of_sample_trades: int
    configured_return_percent: float


class ParameterStability(_Part, frozen=True, kw_only=True):
    """How a chosen parameter moved from fold to fold.

    most_frequent: the value chosen most often, in `share` of the folds. stability: 1 - mean step between neighbouring
    folds, in places of the list of values, over the longest step possible; 1 never moved.
    """

    name: str
    values: list[float]
    most_frequent: float
    share: float
    stability: float


class StitchedPoint(_Part, frozen=True, kw_only=True, gc=False):
    """The account that traded each test with what the training before had chosen."""

    timestamp: int
    equity: float


class WalkForward(_Part, frozen=True, kw_only=True):
    """Parameters chosen on the past, traded on what came next.

    efficiency_ratio: annual return out of sample / mean annual return in sample; None where the latter is not positive.
    configured_return_percent: what the parameters as configured made over the same tests.
    """

    mode: Literal["rolling", "anchored"]
    target: str
    window_days: int
    step_days: int
    parameter_sets: int
    folds: list[Fold]
    efficiency_ratio: Number
    parameter_stability: list[ParameterStability]
    out_of_sample_return_percent: Number
    out_of_sample_sharpe: Number
    out_of_sample_max_drawdown_percent: Number
    out_of_sample_trades: int
    out_of_sample_days: int
    configured_return_percent: Number
    equity: list[StitchedPoint]
    note: str | None = None


# Overfitting over a sweep of parameters.


class PboSpread(_Part, frozen=True, kw_only=True):
    """PBO where the data are cut otherwise."""

    blocks: int
    seed: int
    pbo: float


class Overfitting(_Part, frozen=True, kw_only=True):
    """What choosing the best of several parameter sets is worth.

    pbo: chance that the best in sample is below the median out of sample (CSCV). logits: counts by bin, edges one more.
    spa, reality_check: p-values of the hypothesis that no set earns anything (Hansen; White).
    """

    parameter_sets: int
    days: int
    blocks: int
    splits: int
    pbo: Number
    pbo_lowest: Number
    pbo_highest: Number
    spread: list[PboSpread]
    logit_edges: list[float]
    logit_counts: list[int]
    slope: Number
    probability_of_loss: Number
    spa_p: Number
    reality_check_p: Number
    note: str | None = None


# Sensitivity.


class SensitivityRow(_Part, frozen=True, kw_only=True):
    """The run with one thing changed. kind: `costs`, `delay` or `start`."""

    kind: Literal["base", "costs", "delay", "start"]
    label: str
    total_return_percent: float
    sharpe_ratio: Number
    max_drawdown_percent: float
    total_trades: int


class LookAhead(_Part, frozen=True, kw_only=True):
    """Whether the run was repeated on the beginning of the data, and came out the same. cuts: where it was cut off."""

    is_checked: bool
    cuts: list[int]
    words: str


class ValidationResult(_Part, frozen=True, kw_only=True):
    """Everything beyond the run itself; what was not asked for is None."""

    verdict: Verdict
    walk_forward: WalkForward | None = None
    overfitting: Overfitting | None = None
    monte_carlo: MonteCarloResult | None = None
    sensitivity: list[SensitivityRow] = []
    look_ahead: LookAhead | None = None
