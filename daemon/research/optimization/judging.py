"""What an optimisation's peak is worth: questions put to it, weighed as those of a backtest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.research.weighing import (
    LEAST_DAYS,
    LEAST_TRADES,
    check,
    luck_check,
    luck_of,
    luck_remedy,
    pbo_check,
    spa_check,
    verdict_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.backtest import Target
    from daemon.core.market import Float64s
    from daemon.research.optimization.result import Plateau, TriedPoint
    from daemon.research.trials import Idea
    from daemon.research.validation_result import Check, Overfitting, Verdict
    from daemon.research.weighing import Luck

LEAST_SHARE: Final = 0.5
"""Of its own score that a peak's neighbourhood has, where it is no lone luck."""


_AGAINST: Final = {
    "bars": "on bars, pessimistically",
    "ticks": "against ticks",
    "book": "against the book",
}


class Grounds(NamedTuple):
    """What a verdict on an optimisation is made of.

    peak: None where no point has a score. returns: (n,) float64 daily, of the peak, else of the configuration. days: of
    the range. tries: all tries of the idea, these included; None where none has a Sharpe ratio. trials: their number;
    tried_before: of them before this optimisation. fills: what points filled against: "bars", "ticks" or "book".
    """

    target: Target
    points: int
    peak: TriedPoint | None
    plateau: Plateau | None
    returns: Float64s
    year_days: int
    idea: str
    tries: Idea | None
    trials: int
    tried_before: int
    overfitting: Overfitting | None
    fills: str


def judge(grounds: Grounds) -> Verdict:
    """Put all questions and weigh the answers."""
    luck = luck_of(grounds.returns, grounds.year_days, grounds.trials, grounds.tries)
    asked = (
        _enough(grounds),
        _earns(grounds),
        luck_check(luck),
        pbo_check(grounds.overfitting),
        spa_check(grounds.overfitting),
        _stands_alone(grounds),
    )
    checks = [each for each in asked if each is not None]
    return verdict_of(
        checks,
        luck,
        idea=grounds.idea,
        days=grounds.returns.size,
        tried_before=grounds.tried_before,
        assumptions=_assumptions(grounds, luck),
        would_change=_would_change(grounds, luck, checks),
    )


def _enough(grounds: Grounds) -> Check:
    days = grounds.returns.size
    if grounds.peak is None:
        words = f"none of the {grounds.points:,} points has a {grounds.target}: no trades, or equity that never moved"
        return check("data", "fail", 0, LEAST_TRADES, words)
    trades = grounds.peak.total_trades
    short = [f"{trades} trades (at least {LEAST_TRADES})"] if trades < LEAST_TRADES else []
    short += [f"{days} days (at least {LEAST_DAYS})"] if days < LEAST_DAYS else []
    words = f"{trades:,} trades of the best point over {days:,} days"
    if short:
        words = f"too little to judge by: {', '.join(short)}"
    return check("data", "fail" if short else "pass", trades, LEAST_TRADES, words)


def _earns(grounds: Grounds) -> Check | None:
    if grounds.peak is None:
        return None
    percent = grounds.peak.total_return_percent
    words = f"the best point {'earned' if percent > 0 else 'lost'} {abs(percent):.2f} % after costs"
    return check("return", "pass" if percent > 0 else "warn", percent, 0.0, words)


def _stands_alone(grounds: Grounds) -> Check | None:
    around = grounds.plateau
    if around is None or around.score is None or not around.neighbours:
        return None
    own = around.point.score
    words = (
        f"around the peak ({around.neighbours:,} neighbours) the median {grounds.target} is {around.score:.3g}, at it "
        f"{own:.3g}, at the worst of them {around.lowest:.3g}"
    )
    good = around.share is not None and around.share >= LEAST_SHARE
    return check("plateau", "pass" if good else "warn", around.share, LEAST_SHARE, words)


def _assumptions(grounds: Grounds, luck: Luck) -> list[str]:
    said = [f"points run {_AGAINST[grounds.fills]}, with the costs of the configuration"]
    if luck.spread:
        said.append(
            f"chance is measured by {luck.spread}; tries of one idea count whatever their parameters and symbols"
        )
    said.append("nothing was held out: what was chosen here was chosen on all of the range")
    return said


def _would_change(grounds: Grounds, luck: Luck, checks: Sequence[Check]) -> list[str]:
    failing = {each.name for each in checks if each.standing in ("fail", "warn")}
    said = []
    if "data" in failing:
        said.append("a longer range, more symbols, or ranges in which the strategy trades")
    if "luck" in failing:
        said += luck_remedy(luck, grounds.returns.size)
    if "return" in failing:
        said.append("a profit after costs")
    if "plateau" in failing:
        said.append("a point whose neighbours are as good: the plateau is named beside the peak")
    said.append('a walk-forward over the same ranges: "validation": {"walkForward": true}')
    return said
