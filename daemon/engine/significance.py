"""How good a result must look before it means anything: the Sharpe ratio against luck, and the best of many tries.

Try enough strategies without any edge, and one of them shines. These are the yardsticks for that: how sure a Sharpe
ratio is, what the best of N is worth by luck, how long a record must be, and what a single result must exceed when it
was picked out of N.

Sharpe ratios are per period (a day's mean over a day's deviation) unless a name says annual; kurtosis is Pearson's, 3
for the normal. None stands where a figure has no value. Logarithms and tails come from the platform's libm: last
digits may differ between machines, so that these figures have no place in a fingerprint.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.engine.metrics import sharpe_ratio

if TYPE_CHECKING:
    from daemon.core.market import Float64s, Int64s

FAMILY_LEVEL: Final = 0.05
CONFIDENCE: Final = 0.95

_EULER_MASCHERONI: Final = 0.577_215_664_901_532_9
_NORMAL: Final = NormalDist()
_LEAST_OBSERVATIONS: Final = 2

# The variance of a Sharpe ratio's estimate, times the observations, is 1 for the normal and no edge; this is rounding.
_ROUNDING: Final = 1e-12


# One Sharpe ratio.


class Moments(NamedTuple):
    """What the certainty of a Sharpe ratio depends on.

    sharpe: per period. skew: 0 where symmetrical. kurtosis: Pearson's, 3 for the normal, not the excess over it.
    observations: periods, 2 or more for any of the functions below to have a value.
    """

    sharpe: float
    skew: float
    kurtosis: float
    observations: int


def moments(returns: Float64s) -> Moments | None:
    """Measure returns of equal periods.

    returns: (n,) float64 fractions, finite; NaN are periods of which nothing is known and left out.
    The Sharpe ratio is that of `metrics.sharpe_ratio`, by the sample deviation; skew and kurtosis are the moments of
    the returns themselves (m3 / m2^1.5 and m4 / m2^2), not corrected for the sample's size.
    None below two known returns, or where they deviate by no more than rounding.
    """
    sharpe = sharpe_ratio(returns, 1)
    if sharpe is None:
        return None
    known = returns[~np.isnan(returns)]
    residual = known - math.fsum(known.tolist()) / known.size
    second, third, fourth = (math.fsum((residual**power).tolist()) / known.size for power in (2, 3, 4))
    return Moments(sharpe, third / second**1.5, fourth / second**2, known.size)


def probabilistic_sharpe(measured: Moments, benchmark: float = 0.0) -> float | None:
    """Chance that the true Sharpe ratio exceeds a benchmark, 0 to 1.

    benchmark: per period, finite.
    None where moments leave no variance to judge by: 1 - skew x sharpe + (kurtosis - 1) / 4 x sharpe^2 is zero or
    below. Of a sample it is zero at worst, where the returns have two values and skew x sharpe is 2.
    Source: Bailey and Lopez de Prado, The Sharpe Ratio Efficient Frontier (2012).
    """
    variance = _variance(measured)
    if variance is None:
        return None
    return _chance_below((measured.sharpe - benchmark) * math.sqrt((measured.observations - 1) / variance))


def deflated_threshold(trials: int, variance_of_trials: float) -> float:
    """Sharpe ratio, per period, of the best of so many trials without an edge, on average.

    trials: >= 1. variance_of_trials: of the trials' Sharpe ratios per period; of annual ones divide it by a year's
    periods. Finite and >= 0; ValueError otherwise.
    """
    if not 0 <= variance_of_trials < math.inf:
        raise ValueError(f"variance_of_trials is {variance_of_trials}: a variance is finite and 0 or more")
    return math.sqrt(variance_of_trials) * expected_maximum(trials)


def deflated_sharpe(measured: Moments, trials: int, variance_of_trials: float) -> float | None:
    """Chance that the true Sharpe ratio exceeds what the luckiest of all trials shows without an edge, 0 to 1.

    measured: of the trial that was chosen. Otherwise as `deflated_threshold`; None as of `probabilistic_sharpe`.
    Source: Bailey and Lopez de Prado, The Deflated Sharpe Ratio (2014).
    """
    return probabilistic_sharpe(measured, deflated_threshold(trials, variance_of_trials))


def minimum_track_record(measured: Moments, benchmark: float = 0.0, confidence: float = CONFIDENCE) -> float | None:
    """Observations after which such returns exceed the benchmark with that confidence, a fraction of one included.

    benchmark: Sharpe ratio per period. confidence: from 0.5 to below 1; ValueError otherwise.
    None where no length is enough, because the Sharpe ratio does not exceed the benchmark, and as of
    `probabilistic_sharpe`. Source: Bailey and Lopez de Prado (2012).
    """
    if not 0.5 <= confidence < 1:  # noqa: PLR2004 - below it, a shorter record would be surer
        raise ValueError(f"confidence is {confidence}: it lies between 0.5 and 1")
    variance = _variance(measured)
    if variance is None or not measured.sharpe > benchmark:
        return None
    return 1 + variance * (_upper_quantile(1 - confidence) / (measured.sharpe - benchmark)) ** 2


def minimum_backtest_years(trials: int, target_sharpe: float) -> float | None:
    """Years of data below which the best of so many trials shows the target by luck alone, on average.

    trials: >= 1, independent; ValueError otherwise. target_sharpe: annual.
    None where the target is not above 0: luck shows that at any length.
    Source: Bailey, Borwein, Lopez de Prado and Zhu, Pseudo-Mathematics and Financial Charlatanism (2014).
    """
    expected = expected_maximum(trials)
    return (expected / target_sharpe) ** 2 if target_sharpe > 0 else None


def minimum_backtest_bound(trials: int, target_sharpe: float) -> float | None:
    """Upper bound of `minimum_backtest_years` in closed form: 2 ln(trials) / target^2. None as there."""
    _check(trials)
    return 2 * math.log(trials) / target_sharpe**2 if target_sharpe > 0 else None


def _variance(measured: Moments) -> float | None:
    """Variance of the estimated Sharpe ratio times observations - 1; None where there is none."""
    sharpe = measured.sharpe
    variance = 1 - measured.skew * sharpe + (measured.kurtosis - 1) / 4 * sharpe * sharpe
    return variance if measured.observations >= _LEAST_OBSERVATIONS and variance > _ROUNDING else None


# The best of many.


def expected_maximum(trials: int) -> float:
    """Largest of `trials` independent standard normals, on average; in standard deviations.

    trials: >= 1; ValueError otherwise. One trial has nothing to choose from: 0.
    An approximation from extreme value theory that lies 0.04 above the exact mean at 10 trials, 0.02 at 100.
    Source: Bailey and Lopez de Prado, The Deflated Sharpe Ratio (2014).
    """
    _check(trials)
    if trials == 1:
        return 0.0
    tail = _upper_quantile(1 / trials), _upper_quantile(1 / (trials * math.e))
    return (1 - _EULER_MASCHERONI) * tail[0] + _EULER_MASCHERONI * tail[1]


def family_threshold(trials: int, level: float = FAMILY_LEVEL) -> float:
    """One-sided bar, in standard deviations, that any of `trials` null trials passes with the chance `level`.

    trials: >= 1, independent; 0 < level < 1; ValueError otherwise. Positively correlated ones pass it less often.
    Source: Sidak (1967).
    """
    _check(trials)
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: a chance lies between 0 and 1")
    # Not 1 - (1 - level) ** (1 / trials), which loses all digits where there are many trials.
    return _upper_quantile(-math.expm1(math.log1p(-level) / trials))


def normal_scores(t: Float64s, degrees: Int64s) -> Float64s:
    """Put t-statistics on the normal scale: the z that is as unlikely under a standard normal.

    t: (n,) float64. degrees: (n,) int64 degrees of freedom, >= 1. Returns (n,) float64; NaN where t is NaN.
    Without it few trades look better than they are: of 10 null trades, t passes 3.9 some 37 times as often as z.
    With 9 degrees it is 0.005 too small at z = 3, 0.015 at 4; closer with more. Source: Wallace (1959).
    """
    scale = (8 * degrees + 1) / (8 * degrees + 3)
    return np.asarray(np.copysign(scale * np.sqrt(degrees * np.log1p(t * t / degrees)), t))


# Many results at once.


def upper_tail(z: Float64s) -> Float64s:
    """Chance of a standard normal at z or above: one-sided p-values. z: (n,) float64; NaN stays NaN."""
    halves = map(math.erfc, (z / math.sqrt(2)).tolist())
    return 0.5 * np.fromiter(halves, dtype=np.float64, count=z.size)


def adjusted_p(z: Float64s, tried: int) -> Float64s:
    """Chance that the best of what was tried looks as good as this without any edge: p-values for a whole family.

    z: (n,) float64, large is good; NaN where a row was not ranked, and stays NaN. tried: rows that were tried, ranked
    or not, >= those with a z; ValueError otherwise. A try without a z counts as one that showed nothing.
    Returns (n,) float64: what is below a level is significant at it, with that chance of any false one among all.
    It never falls while z falls; equal z have equal values. Tries may be independent or positively correlated.
    Source: Holm (1979), step-down, with the bound of Sidak (1967).
    """
    order = np.argsort(-z, kind="stable")[: _ranked(z, tried)]
    p = upper_tail(z[order])
    with np.errstate(divide="ignore"):  # a p of 1 is certain: log 0
        steps = -np.expm1((tried - np.arange(p.size)) * np.log1p(-p))
    return _placed(np.maximum.accumulate(steps), order, z.size)


def false_discovery(p: Float64s, tried: int) -> Float64s:
    """Share of false discoveries to expect among all that look as good as this or better.

    p: (n,) float64, one-sided p-values, 0 to 1; NaN where a row was not ranked, and stays NaN. tried: as of
    `adjusted_p`; ValueError otherwise, and of a p outside of its range.
    Returns (n,) float64, never falling while p rises. Tries may be independent or positively correlated.
    Source: Benjamini and Hochberg (1995), step-up.
    """
    if np.any((p < 0) | (p > 1)):
        raise ValueError("p holds a value outside of 0 to 1: a p-value is a chance")
    order = np.argsort(p, kind="stable")[: _ranked(p, tried)]
    steps = p[order] * (tried / np.arange(1, order.size + 1))
    return _placed(np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0), order, p.size)


def _ranked(values: Float64s, tried: int) -> int:
    ranked = int(np.count_nonzero(~np.isnan(values)))
    if tried < ranked:
        raise ValueError(f"tried is {tried}, but {ranked} rows are ranked: every ranked row was tried")
    return ranked


def _placed(adjusted: Float64s, order: Int64s, size: int) -> Float64s:
    placed = np.full(size, np.nan)
    placed[order] = adjusted
    return placed


def _chance_below(z: float) -> float:
    """Chance of a standard normal below z; keeps its digits far out on the left."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _upper_quantile(chance: float) -> float:
    return -_NORMAL.inv_cdf(chance)


def _check(trials: int) -> None:
    if trials < 1:
        raise ValueError(f"trials is {trials}: at least 1")
