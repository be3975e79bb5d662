"""A made-up verdict and what it rests on, for tests of whatever shows them."""

import math
from typing import Any

import msgspec
import numpy as np

from daemon.research.validation_result import (
    Check,
    ConfidenceInterval,
    Fan,
    Fold,
    LookAhead,
    MonteCarloMethod,
    MonteCarloResult,
    Overfitting,
    ParameterStability,
    PboSpread,
    SensitivityRow,
    StitchedPoint,
    Verdict,
    WalkForward,
)

START = 1_641_945_600_000  # 2022-01-12, Unix ms
DAY = 86_400_000
HOUR = DAY // 24
RUNS, TRADES, PATHS = 1_000, 40, 12
METHODS = {
    "bootstrap": "trades drawn again in blocks",
    "shuffle": "the same trades in another order",
    "missed": "one trade in ten is missed",
    "noise": "fills and costs are off by some",
}


def sample_validation(**fields: Any) -> dict[str, Any]:
    """Return every part of a result that a validation fills in; fields replace some."""
    return {
        "verdict": sample_verdict(),
        "monte_carlo": sample_monte_carlo(),
        "walk_forward": sample_walk_forward(),
        "overfitting": sample_overfitting(),
        "sensitivity": sample_sensitivity(),
        "look_ahead": LookAhead(is_checked=True, cuts=[START + 9 * DAY], words="the run is the same on its beginning"),
    } | fields


def sample_verdict(**fields: Any) -> Verdict:
    """Return the verdict on an idea that was tried too often."""
    return Verdict(
        **{
            "verdict": "overfitted",
            "reasons": [
                "Sharpe 1.90 found in 412 tries; chance alone gives 2.10",
                "PBO 61.0 %: the best in sample is more often than not below the median out of sample",
                "out of sample the chosen parameters lost 1.2 %",
            ],
            "assumptions": ["taker fees of 0.1 % and 2 bps of slippage", "positions over gaps are counted"],
            "would_change": ["a year more of data with the same Sharpe", "costs half as high"],
            "idea": "9f8e7d6c5b4a39281706f5e4d3c2b1a0",
            "trials": 412,
            "tried_before": 411,
            "sharpe_ratio": 1.9,
            "chance_sharpe": 2.1,
            "probabilistic_sharpe": 0.953,
            "deflated_sharpe": 0.387,
            "min_track_record_days": 402.0,
            "track_record_days": 50,
            "min_backtest_years": 3.4,
            "checks": [
                Check(name="deflated Sharpe", standing="fail", value=0.387, limit=0.95, words="too many tries"),
                Check(name="costs doubled", standing="warn", value=-0.4, limit=0.0, words="the edge is gone"),
                Check(name="look-ahead", standing="pass", value=None, limit=None, words="none was found"),
                Check(name="benchmark", standing="unknown", value=None, limit=None, words="was not asked for"),
            ],
        }
        | fields
    )


def sample_walk_forward(*, folds: int = 6, **fields: Any) -> WalkForward:
    """Return so many folds of 7 days of training and 2 of test."""
    made = [_fold(number) for number in range(folds)]
    begin = START + 7 * DAY
    points = [
        StitchedPoint(timestamp=begin + at * HOUR, equity=10_000 + 50 * math.sin(at / 9)) for at in range(48 * folds)
    ]
    return WalkForward(
        **{
            "mode": "rolling",
            "target": "sharpe",
            "window_days": 7,
            "step_days": 2,
            "parameter_sets": 27,
            "folds": made,
            "efficiency_ratio": 0.42,
            "parameter_stability": [
                ParameterStability(
                    name="take_profit",
                    values=[fold.parameters["take_profit"] for fold in made],
                    most_frequent=0.02,
                    share=0.5,
                    stability=0.75,
                )
            ],
            "out_of_sample_return_percent": -1.2,
            "out_of_sample_sharpe": -0.31,
            "out_of_sample_max_drawdown_percent": 4.4,
            "out_of_sample_trades": 3 * folds,
            "out_of_sample_days": 2 * folds,
            "configured_return_percent": 0.6,
            "equity": points,
        }
        | fields
    )


def _fold(number: int) -> Fold:
    begin = START + 2 * number * DAY
    return Fold(
        number=number + 1,
        train_start=begin,
        train_end=begin + 7 * DAY,
        test_start=begin + 7 * DAY,
        test_end=begin + 9 * DAY,
        parameters={"take_profit": 0.02 * (1 + number % 2), "stop_loss": 0.05},
        in_sample_score=2.5,
        in_sample_sharpe=2.5,
        in_sample_return_percent=3.5 + number,
        in_sample_trades=9,
        out_of_sample_sharpe=None if number == 0 else -0.2,
        out_of_sample_return_percent=-0.2,
        out_of_sample_trades=3,
        configured_return_percent=0.1,
    )


def sample_monte_carlo(*, trades: int = TRADES, **fields: Any) -> MonteCarloResult:
    """Return a simulation of so many trades."""
    steps = np.random.default_rng(5).normal(0.001, 0.02, (200, trades))
    equity = np.concatenate([np.ones((200, 1)), np.cumprod(1 + steps, axis=1)], axis=1)
    low, lower, median, higher, high = np.percentile(equity, (5, 25, 50, 75, 95), axis=0).tolist()
    ends: dict[str, Any] = {
        "median_return": 0.04,
        "mean_return": 0.05,
        "std_return": 0.12,
        "percentile5": -0.15,
        "percentile25": -0.03,
        "percentile75": 0.13,
        "percentile95": 0.26,
        "median_drawdown": 0.09,
        "percentile95_drawdown": 0.21,
        "probability_of_profit": 0.634,
        "probability_of_ruin": 0.002,
        "probability_of2x_return": 0.001,
        "return_confidence_interval": ConfidenceInterval(lower=-0.18, upper=0.31, confidence=0.95),
    }
    return MonteCarloResult(
        **ends
        | {
            "runs": RUNS,
            "seed": 1,
            "trades": trades,
            "block_length": 3.2,
            "ruin_level": 0.5,
            "sample_paths": equity[:PATHS].tolist(),
            "fan": Fan(
                trades=list(range(trades + 1)),
                percentile5=low,
                percentile25=lower,
                median=median,
                percentile75=higher,
                percentile95=high,
            ),
            "methods": [MonteCarloMethod(method=name, words=words, **ends) for name, words in METHODS.items()],
        }
        | fields
    )


def sample_overfitting(**fields: Any) -> Overfitting:
    """Return what CSCV found in 27 parameter sets."""
    return Overfitting(
        **{
            "parameter_sets": 27,
            "days": 50,
            "blocks": 16,
            "splits": 12_870,
            "pbo": 0.61,
            "pbo_lowest": 0.55,
            "pbo_highest": 0.68,
            "spread": [PboSpread(blocks=8, seed=1, pbo=0.55), PboSpread(blocks=10, seed=2, pbo=0.68)],
            "logit_edges": [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0],
            "logit_counts": [1_000, 3_000, 3_851, 3_000, 2_019],
            "slope": -0.7,
            "probability_of_loss": 0.48,
            "spa_p": 0.234,
            "reality_check_p": 0.345,
        }
        | fields
    )


def sample_sensitivity() -> list[SensitivityRow]:
    """Return the run with costs, delay and start changed."""
    rows = [
        ("base", "as configured", 2.5),
        ("costs", "costs x 2", -0.4),
        ("delay", "1 bar later", 1.75),
        ("start", "start + 7 days", 2.25),
    ]
    return [
        SensitivityRow(
            kind=kind,
            label=label,
            total_return_percent=gain,
            sharpe_ratio=gain / 2,
            max_drawdown_percent=5.5,
            total_trades=40,
        )
        for kind, label, gain in rows
    ]


def hostile_validation(text: str) -> dict[str, Any]:
    """Return every part with a text of a stranger wherever one can stand."""
    usual = sample_validation()
    walk, simulated, found = usual["walk_forward"], usual["monte_carlo"], usual["overfitting"]
    replace = msgspec.structs.replace
    return {
        "verdict": sample_verdict(
            reasons=[text] * 3,
            assumptions=[text] * 2,
            would_change=[text],
            idea=text,
            checks=[Check(name=text, standing="fail", value=None, limit=0.5, words=text)],
        ),
        "walk_forward": replace(
            walk,
            target=text,
            note=text,
            folds=[replace(fold, parameters={text: 1.0}) for fold in walk.folds],
            parameter_stability=[replace(each, name=text) for each in walk.parameter_stability],
        ),
        "monte_carlo": replace(
            simulated, methods=[replace(each, method=text, words=text) for each in simulated.methods]
        ),
        "overfitting": replace(found, note=text),
        "sensitivity": [replace(each, label=text) for each in usual["sensitivity"]],
        "look_ahead": LookAhead(is_checked=False, cuts=[], words=text),
    }


def bare_validation() -> dict[str, Any]:
    """Return every part with as little in it as one can have: figures without a value, lists without an element."""
    usual = sample_validation()
    replace = msgspec.structs.replace
    fan = Fan(trades=[], percentile5=[], percentile25=[], median=[], percentile75=[], percentile95=[])
    return {
        "verdict": sample_verdict(
            verdict="insufficient data",
            reasons=[],
            assumptions=[],
            would_change=[],
            checks=[],
            **dict.fromkeys(
                (
                    "sharpe_ratio",
                    "chance_sharpe",
                    "probabilistic_sharpe",
                    "deflated_sharpe",
                    "min_track_record_days",
                    "min_backtest_years",
                )
            ),
        ),
        "walk_forward": replace(usual["walk_forward"], folds=[], equity=[], parameter_stability=[], note="one fold"),
        "monte_carlo": replace(usual["monte_carlo"], sample_paths=[], methods=[], fan=fan),
        "overfitting": replace(
            usual["overfitting"],
            spread=[],
            logit_edges=[],
            logit_counts=[],
            **dict.fromkeys(
                ("pbo", "pbo_lowest", "pbo_highest", "slope", "probability_of_loss", "spa_p", "reality_check_p")
            ),
        ),
        "sensitivity": [replace(usual["sensitivity"][0], sharpe_ratio=None)],
        "look_ahead": LookAhead(is_checked=False, cuts=[], words="not checked"),
    }


def no_validation() -> dict[str, Any]:
    """Return what a release without verdicts left."""
    return dict.fromkeys(sample_validation()) | {"sensitivity": []}
