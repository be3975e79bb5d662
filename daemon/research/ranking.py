"""Every combination of a run against every other, and all of them against luck.

A t-statistic makes few large trades comparable with many small ones. The best of a thousand t-statistics is
large whether or not any strategy works, so a ranking never comes without the number of tries behind it.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np

from daemon.engine.significance import FAMILY_LEVEL, expected_maximum, family_threshold, normal_scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from daemon.core.market import Float64s, Int64s
    from daemon.store.results import JobIndex

Kind = TypeVar("Kind", np.int64, np.float64)

MIN_TRADES: Final = 10
"""Fewer trades say too little about a mean to be ranked by it."""

# A deviation this small beside the mean is rounding: all trades are equal.
_ROUNDING: Final = 1e-12


class Ranking(NamedTuple):
    """All (symbol, timeframe, strategy, risk profile) of some jobs, one row each, in the jobs' order.

    job: (c,) int64, place of the row's job in what was ranked. strategy_id: (c,) int64. risk_profile: c names.
    trades: (c,) int64. pnl_mean: (c,) float64, fraction of the entry price. win_rate: (c,) float64, 0 to 1. Both NaN
    without trades.
    t: (c,) float64, mean over its standard error (sample deviation); NaN for fewer than two trades or equal ones.
    z: (c,) float64, t on the normal scale, where 10 trades and 1,000 compare with each other and with luck.
    order: (r,) int64 rows with MIN_TRADES and a t, by z, the best first, ties in the jobs' order.
    tried: combinations that traded at least once. What never traded could not have won, so it is no try; what
    traded too little to be ranked would have been looked at had it traded more, so it is one.
    chance_z: the best z of that many tries without an edge, on average. threshold_z: what any of them passes
    with a chance of 5 %. Both as of one try where there is none.
    """

    job: Int64s
    strategy_id: Int64s
    risk_profile: tuple[str, ...]
    trades: Int64s
    pnl_mean: Float64s
    t: Float64s
    z: Float64s
    win_rate: Float64s
    order: Int64s
    tried: int
    chance_z: float
    threshold_z: float

    @property
    def best_z(self) -> float | None:
        """The z of the best ranked row, None where no row is ranked."""
        return float(self.z[self.order[0]]) if self.order.size else None

    @property
    def exceeding(self) -> int:
        """How many ranked rows pass the threshold."""
        return int(np.count_nonzero(self.z[self.order] > self.threshold_z))

    def best(self, count: int) -> Int64s:
        """Return up to `count` rows, the best first."""
        return self.order[:count]

    def worst(self, count: int) -> Int64s:
        """Return up to `count` rows, the worst first."""
        return self.order[::-1][:count]


def rank(indexes: Sequence[JobIndex]) -> Ranking:
    """Rank the combinations of jobs; each is in one job only."""
    totals = [index.totals for index in indexes]
    trades = _column((each.trades for each in totals), np.int64)
    wins = _column((each.wins for each in totals), np.int64)
    traded = trades > 0
    mean = np.where(traded, _column((each.pnl_mean for each in totals), np.float64), np.nan)
    t = _t_statistics(trades, mean, _column((each.pnl_std for each in totals), np.float64))
    z = normal_scores(t, np.maximum(trades - 1, 1))
    ranked = np.flatnonzero((trades >= MIN_TRADES) & np.isfinite(t))
    tried = int(np.count_nonzero(traded))
    return Ranking(
        job=_column(([place] * len(each.trades) for place, each in enumerate(totals)), np.int64),
        strategy_id=_column((each.strategy_id for each in totals), np.int64),
        risk_profile=tuple(chain.from_iterable(each.risk_profile for each in totals)),
        trades=trades,
        pnl_mean=mean,
        t=t,
        z=z,
        win_rate=np.divide(wins, trades, out=np.full(trades.size, np.nan), where=traded),
        order=ranked[np.argsort(-z[ranked], kind="stable")],
        tried=tried,
        chance_z=expected_maximum(max(tried, 1)),
        threshold_z=family_threshold(max(tried, 1)),
    )


def multiple_testing_note(ranking: Ranking) -> str:
    """Say in one paragraph what the best result is worth, given how many were tried."""
    if ranking.best_z is None:
        return (
            f"{ranking.tried:,} combinations traded, none of them {MIN_TRADES} times or more with differing "
            "results: there is nothing to judge."
        )
    idle = ranking.trades.size - ranking.tried
    return (
        f"{ranking.tried:,} combinations traded and count as tries"
        f"{f' ({idle:,} never traded and do not)' if idle else ''}. If none had an edge, the best would still "
        f"be expected at z = {ranking.chance_z:.2f}, and the chance that any passes "
        f"z = {ranking.threshold_z:.2f} would be {FAMILY_LEVEL:.0%}. {_verdict(ranking, ranking.best_z)} "
        "z is mean P&L over its standard error (t) on the normal scale, and only a yardstick. The tries share bars and "
        "rules; that makes the threshold conservative. Trades that follow each other are not independent, which can "
        "flatter z; other runs over the same bars are tries that are not counted here; and z compares with earning "
        "nothing, not with holding. P&L is gross: no fees, spread or slippage, stops and targets filled at exactly "
        "their level, each trade a fraction of its entry price."
    )


def _verdict(ranking: Ranking, best_z: float) -> str:
    reached = f"The best here has z = {best_z:.2f}"
    if best_z <= ranking.chance_z:
        return f"{reached}: no more than luck alone offers."
    if best_z <= ranking.threshold_z:
        return f"{reached}: more than luck offers on average, not more than it offers now and then."
    passing = "1 combination passes" if ranking.exceeding == 1 else f"{ranking.exceeding:,} combinations pass"
    return f"{reached}: {passing} the threshold."


def _t_statistics(trades: Int64s, mean: Float64s, population_std: Float64s) -> Float64s:
    """Mean over standard error: sample deviation / sqrt(n), which is population deviation / sqrt(n - 1)."""
    usable = (trades > 1) & (population_std > _ROUNDING * np.abs(mean))
    t = np.full(trades.size, np.nan)
    np.divide(mean * np.sqrt(np.maximum(trades - 1, 0)), population_std, out=t, where=usable)
    return t


def _column(parts: Iterable[Sequence[int] | Sequence[float]], kind: type[Kind]) -> NDArray[Kind]:
    return np.fromiter(chain.from_iterable(parts), dtype=kind)
