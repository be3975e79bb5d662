"""What verdicts share, be they on a backtest or on an optimisation: luck measured, and the weighing of answers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.engine import significance
from daemon.research.validation_result import Check, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.market import Float64s
    from daemon.research.trials import Idea
    from daemon.research.validation_result import Overfitting, Standing, Word

LEAST_TRADES: Final = 20
LEAST_DAYS: Final = 20
KNOWN_TRIALS: Final = 10
"""Tries from which their own spread is taken as that of chance; fewer say too little about it."""

CONFIDENCE: Final = 0.95
CHANCE: Final = 0.5
_REASONS: Final = 3


class Luck(NamedTuple):
    """Sharpe ratios are annual."""

    sharpe: float | None
    chance: float | None
    probabilistic: float | None
    deflated: float | None
    track_record_days: float | None
    least_years: float | None
    trials: int
    spread: str


def luck_of(returns: Float64s, year_days: int, trials: int, tries: Idea | None) -> Luck:
    """Measure the Sharpe ratio against the best of as many tries without an edge.

    returns: (n,) float64 daily. tries: what is known of them, for their spread; None for nothing.
    """
    measured = significance.moments(returns)
    if measured is None:
        return Luck(None, None, None, None, None, None, trials, "")
    of_tries = tries.variance if tries and tries.known >= KNOWN_TRIALS else None
    variance = 1 / measured.observations if of_tries is None else of_tries
    spread = (
        f"the spread of the Sharpe ratios of {tries.known:,} tries"
        if of_tries is not None and tries
        else f"the sampling error of a Sharpe ratio over {measured.observations} days"
    )
    year = math.sqrt(year_days)
    sharpe = measured.sharpe * year
    return Luck(
        sharpe,
        significance.deflated_threshold(trials, variance) * year,
        significance.probabilistic_sharpe(measured),
        significance.deflated_sharpe(measured, trials, variance),
        significance.minimum_track_record(measured),
        significance.minimum_backtest_years(trials, sharpe),
        trials,
        spread,
    )


def luck_check(luck: Luck) -> Check:
    """Ask whether the Sharpe ratio is more than luck."""
    if luck.sharpe is None or luck.chance is None:
        return check("luck", "unknown", None, None, "there is no Sharpe ratio: the equity did not move from day to day")
    if luck.deflated is None:
        words = f"Sharpe {luck.sharpe:.2f}, whose error such returns do not tell: they have no more than two values"
        return check("luck", "unknown", None, CONFIDENCE, words)
    tries = f"in {luck.trials:,} {'try' if luck.trials == 1 else 'tries'}"
    words = f"Sharpe {luck.sharpe:.2f} found {tries}; chance alone gives {luck.chance:.2f}"
    words += f", and the true one is above that with a chance of {100 * luck.deflated:.1f} %"
    standing: Standing = "pass" if luck.deflated >= CONFIDENCE else "warn"
    if luck.trials > 1 and luck.sharpe > 0 and luck.deflated < CHANCE:
        standing = "fail"
    return check("luck", standing, luck.deflated, CONFIDENCE, words)


def luck_remedy(luck: Luck, days: int) -> list[str]:
    """Say what would tell a Sharpe ratio over so many days from luck; nothing where it is not above 0."""
    if luck.track_record_days is None:
        return []
    needed = math.ceil(luck.track_record_days)
    said = []
    if luck.trials > 1:  # the length of a record proves a single try, never the best of several
        least = "" if luck.least_years is None else f"; in less than {luck.least_years:.2g} years luck alone shows this"
        said.append(f"data that none of the {luck.trials:,} tries has seen{least}")
    if needed > days:
        said.append(f"{needed:,} days of such returns, found in one try, would show an edge; there are {days:,}")
    return said


def pbo_check(found: Overfitting | None) -> Check | None:
    """Ask whether the best in sample was any good out of sample; None where nobody knows."""
    if found is None or found.pbo is None:
        return None
    words = (
        f"the best of {found.parameter_sets:,} parameter sets falls below their median out of sample in "
        f"{100 * found.pbo:.0f} % of splits"
    )
    if found.pbo_lowest is not None and found.pbo_highest is not None:
        words += f" ({100 * found.pbo_lowest:.0f} to {100 * found.pbo_highest:.0f} % of others)"
    standing: Standing = "pass" if found.pbo <= CHANCE / 2 else "warn" if found.pbo <= CHANCE else "fail"
    return check("pbo", standing, found.pbo, CHANCE / 2, words)


def spa_check(found: Overfitting | None) -> Check | None:
    """Ask whether the best of all earns more than the best of as many that earn nothing; None where nobody knows."""
    if found is None or found.spa_p is None:
        return None
    words = f"if no parameter set earned anything, the best would look as good in {100 * found.spa_p:.1f} % of cases"
    standing: Standing = "pass" if found.spa_p <= 1 - CONFIDENCE else "warn"
    return check("spa", standing, found.spa_p, 1 - CONFIDENCE, words)


def check(name: str, standing: Standing, value: float | None, limit: float | None, words: str) -> Check:
    """Write down an answer."""
    return Check(name=name, standing=standing, value=value, limit=limit, words=words)


def word_of(checks: Sequence[Check]) -> Word:
    """Say what answers come to."""
    by_name = {each.name: each.standing for each in checks}
    if by_name["data"] == "fail" or by_name["luck"] == "unknown":
        return "insufficient data"
    if "fail" in by_name.values():
        return "overfitted"
    return "robust" if all(standing == "pass" for standing in by_name.values()) else "doubtful"


def reasons_of(word: Word, checks: Sequence[Check]) -> list[str]:
    """Pick the three that speak most for the verdict; the questions are asked in the order of their weight."""
    speaking: dict[Word, tuple[Standing, ...]] = {
        "robust": ("pass",),
        "doubtful": ("warn", "pass"),
        "overfitted": ("fail", "warn"),
        "insufficient data": ("fail", "unknown", "warn"),
    }
    order = speaking[word]
    spoken = [each for standing in order for each in checks if each.standing == standing]
    return [each.words for each in spoken[:_REASONS]]


def verdict_of(
    checks: Sequence[Check],
    luck: Luck,
    *,
    idea: str,
    days: int,
    tried_before: int,
    assumptions: list[str],
    would_change: list[str],
) -> Verdict:
    """Put a verdict together. days: of returns that luck was measured by."""
    word = word_of(checks)
    return Verdict(
        verdict=word,
        reasons=reasons_of(word, checks),
        assumptions=assumptions,
        would_change=would_change,
        idea=idea,
        trials=luck.trials,
        tried_before=tried_before,
        sharpe_ratio=luck.sharpe,
        chance_sharpe=luck.chance,
        probabilistic_sharpe=luck.probabilistic,
        deflated_sharpe=luck.deflated,
        min_track_record_days=luck.track_record_days,
        track_record_days=days,
        min_backtest_years=luck.least_years,
        checks=list(checks),
    )
