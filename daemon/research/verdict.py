"""How far a result can be trusted: questions put to it, and what their answers come to.

A result is *overfitted* where what it shows is no more than chance gives after so many tries, or where what was chosen
on the past failed on what came next; *robust* where every question that could be answered speaks for it and the Sharpe
ratio stands out of chance at 95 %; *insufficient data* where there is too little to ask; *doubtful* otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.research.weighing import (
    CONFIDENCE,
    LEAST_DAYS,
    LEAST_TRADES,
    check,
    luck_check,
    luck_of,
    luck_remedy,
    pbo_check,
    verdict_of,
    word_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.market import Float64s
    from daemon.research.backtest_result import BacktestResult
    from daemon.research.trials import Idea
    from daemon.research.validation_result import (
        Check,
        LookAhead,
        MonteCarloResult,
        Overfitting,
        SensitivityRow,
        Verdict,
        WalkForward,
        Word,
    )
    from daemon.research.weighing import Luck

_EFFICIENCY: Final = 0.5
_LIKELY: Final = 0.9
_GAP_PERCENT: Final = 10.0


class Grounds(NamedTuple):
    """What a verdict is made of.

    returns: (n,) float64 daily. before: what was known of the idea, None where it is new. is_repeated: whether this
    very run was counted then. swept: what walk-forward and sensitivity ran on instead, if they did (`swept.said_of`).
    """

    result: BacktestResult
    returns: Float64s
    year_days: int
    idea: str
    before: Idea | None
    is_repeated: bool
    walk_forward: WalkForward | None
    overfitting: Overfitting | None
    monte_carlo: MonteCarloResult | None
    sensitivity: Sequence[SensitivityRow]
    look_ahead: LookAhead | None
    swept: str | None = None


def judge(grounds: Grounds) -> Verdict:
    """Put all questions and weigh the answers."""
    trials = max((grounds.before.tries if grounds.before else 0) + (not grounds.is_repeated), 1)
    luck = luck_of(grounds.returns, grounds.year_days, trials, grounds.before)
    asked = (
        _enough(grounds), _earns(grounds), luck_check(luck), _folds(grounds), pbo_check(grounds.overfitting),
        _chances(grounds), _costs(grounds), _band(grounds), _gaps(grounds), _looks(grounds),
    )  # fmt: skip
    checks = [each for each in asked if each is not None]
    return verdict_of(
        checks,
        luck,
        idea=grounds.idea,
        days=grounds.returns.size,
        tried_before=luck.trials - 1,
        assumptions=_assumptions(grounds, luck),
        would_change=_would_change(word_of(checks), grounds, luck, checks),
    )


# The questions. Each answer is whole without its question.


def _enough(grounds: Grounds) -> Check:
    trades, days = grounds.result.trade_stats.total_trades, grounds.returns.size
    short = [f"{trades} trades (at least {LEAST_TRADES})"] if trades < LEAST_TRADES else []
    short += [f"{days} days (at least {LEAST_DAYS})"] if days < LEAST_DAYS else []
    if grounds.walk_forward is not None and grounds.walk_forward.note and not grounds.walk_forward.folds:
        short.append(f"walk-forward: {grounds.walk_forward.note}")
    words = f"too little to judge by: {', '.join(short)}" if short else f"{trades:,} trades over {days:,} days"
    return check("data", "fail" if short else "pass", trades, LEAST_TRADES, words)


def _earns(grounds: Grounds) -> Check:
    percent = grounds.result.metrics.total_return_percent
    held = grounds.result.buy_and_hold.total_return_percent
    words = f"{'earned' if percent > 0 else 'lost'} {abs(percent):.2f} % after costs (holding: {held:+.2f} %)"
    return check("return", "pass" if percent > 0 else "warn", percent, 0.0, words)


def _folds(grounds: Grounds) -> Check | None:
    walked = grounds.walk_forward
    if walked is None or not walked.folds or walked.out_of_sample_return_percent is None:
        return None
    ratio, percent = walked.efficiency_ratio, walked.out_of_sample_return_percent
    kept = "nothing was promised in sample" if ratio is None else f"{100 * ratio:.0f} % of what was promised in sample"
    words = f"walk-forward over {len(walked.folds)} folds: {percent:+.2f} % out of sample, {kept}"
    if ratio is not None and percent <= 0:
        return check("walk-forward", "fail", ratio, _EFFICIENCY, words)
    good = ratio is not None and ratio >= _EFFICIENCY and percent > 0
    return check("walk-forward", "pass" if good else "warn", ratio, _EFFICIENCY, words)


def _chances(grounds: Grounds) -> Check | None:
    drawn = grounds.monte_carlo
    if drawn is None:
        return None
    words = (
        f"{100 * drawn.probability_of_profit:.0f} % of {drawn.runs:,} Monte Carlo runs end above the start, "
        f"{100 * drawn.probability_of_ruin:.1f} % lose half"
    )
    good = drawn.probability_of_profit >= _LIKELY and drawn.probability_of_ruin <= 1 - CONFIDENCE
    return check("monte carlo", "pass" if good else "warn", drawn.probability_of_profit, _LIKELY, words)


def _costs(grounds: Grounds) -> Check | None:
    costs = grounds.result.costs
    paid, survives = costs.paid_cost_percent, costs.break_even_cost_percent
    if paid is None or survives is None:
        return None
    doubled = next((row for row in grounds.sensitivity if row.label == "costs x 2"), None)
    words = f"costs of {paid:.3f} % a side were paid; the edge bears {max(survives, 0):.3f} %"
    if doubled is not None:
        words += f"; at twice the costs {doubled.total_return_percent:+.2f} %"
    return check("costs", "pass" if survives >= 2 * paid and survives > 0 else "warn", survives, 2 * paid, words)


def _band(grounds: Grounds) -> Check | None:
    band = grounds.result.band
    if band is None:
        return None
    worse, better = band.pessimistic.total_return_percent, band.optimistic.total_return_percent
    words = f"what happened inside of bars decides between {worse:+.2f} % and {better:+.2f} %"
    turns = worse <= 0 < better
    return check("fill band", "warn" if turns else "pass", band.width_percent, None, words)


def _gaps(grounds: Grounds) -> Check | None:
    gaps = grounds.result.gaps
    if not gaps.crossed_with_position:
        return None
    share = gaps.pnl_percent_of_net
    words = f"positions were held over {gaps.crossed_with_position} holes in the data"
    words += "" if share is None else f", which made {share:.1f} % of the net"
    large = share is not None and abs(share) > _GAP_PERCENT
    return check("gaps", "warn" if large else "pass", share, _GAP_PERCENT, words)


def _looks(grounds: Grounds) -> Check | None:
    looked = grounds.look_ahead
    return None if looked is None or not looked.is_checked else check("look-ahead", "pass", None, None, looked.words)


# The answers weighed.


def _assumptions(grounds: Grounds, luck: Luck) -> list[str]:
    result = grounds.result
    said = [*result.assumptions[:2]]
    if luck.spread:
        said.append(
            f"chance is measured by {luck.spread}; tries of one idea count whatever their parameters and symbols"
        )
    warmup = max((each.warmup_rows for each in result.data), default=0)
    said.append(f"{warmup:,} bars before the first warmed indicators up")
    missing = result.gaps.missing_intervals
    said.append(f"{missing:,} intervals without a bar are taken as they are" if missing else "no bar is missing")
    unasked = [
        name
        for name, part in (
            ("walk-forward", grounds.walk_forward),
            ("Monte Carlo", grounds.monte_carlo),
        )
        if part is None
    ]
    if unasked:
        said.append(f"not asked for: {', '.join(unasked)}")
    swept = [("walk-forward", grounds.walk_forward is not None), ("sensitivity", bool(grounds.sensitivity))]
    if grounds.swept is not None and any(ran for _, ran in swept):
        said.append(f"{' and '.join(name for name, ran in swept if ran)}: {grounds.swept}")
    return said


def _would_change(word: Word, grounds: Grounds, luck: Luck, checks: Sequence[Check]) -> list[str]:
    failing = {each.name for each in checks if each.standing in ("fail", "warn")}
    said = []
    if word == "robust":
        said.append("more tries of the same idea, or a test on data that are not stored yet")
    if "data" in failing:
        said.append("a longer range, or more symbols, with the same rules")
    if "luck" in failing:
        said += luck_remedy(luck, grounds.returns.size)
    if "return" in failing:
        said.append("a profit after costs")
    if "costs" in failing:
        said.append("fewer or longer trades, or lower fees: the edge must bear twice the costs that are paid")
    if "fill band" in failing:
        said.append('ticks for the range, with "fills": "ticks"')
    if grounds.walk_forward is None:
        said.append('a walk-forward: "validation": {"walkForward": true}')
    return said
