"""Every combination of a run against every other, and all of them against luck.

A t-statistic makes few large trades comparable with many small ones. The best of a thousand t-statistics is large
whether or not any strategy works, so a ranking never comes without the number of tries behind it, and what it calls
significant is corrected for all of them.

Gains and losses are two questions, each with its own correction. The fill rules alone make some rules lose reliably on
bars without any edge (a tight trailing stop is raised by a bar's high before its low is tested); in one family with
the gains, those losses would lower the bar that gains have to pass.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np

from daemon.engine.significance import (
    FAMILY_LEVEL,
    adjusted_p,
    expected_maximum,
    false_discovery,
    family_threshold,
    normal_scores,
    upper_tail,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from daemon.core.market import Float64s, Int64s
    from daemon.store.results import CombinationTotals, JobIndex

Kind = TypeVar("Kind", np.int64, np.float64)

MIN_TRADES: Final = 10
"""Fewer trades say too little about a mean to be ranked by it."""

DISCOVERY_LEVEL: Final = 0.10
"""Share of false ones that a list of candidates for a second look may have."""

SIGNIFICANT: Final = 2
DISCOVERED: Final = 1

# A deviation this small beside the mean is rounding: all trades are equal.
_ROUNDING: Final = 1e-12


class Direction(NamedTuple):
    """How far rows can be told from luck as gains, or as losses; one-sided, NaN where a row is not ranked.

    p: (c,) float64, of each row as if it were the only one.
    adjusted: (c,) float64, `significance.adjusted_p` over everything tried. Its bound holds for positively correlated
    tries; rules that go long and short are negatively correlated, which can make 5 % of it 5.13 %, not more.
    false_discovery: (c,) float64, `significance.false_discovery` over everything tried.
    tried: how many tests that is.
    """

    p: Float64s
    adjusted: Float64s
    false_discovery: Float64s
    tried: int

    @property
    def marks(self) -> NDArray[np.int8]:
        """What each row may be called, (c,): SIGNIFICANT, DISCOVERED or 0."""
        marks = np.zeros(self.p.size, dtype=np.int8)
        marks[self.false_discovery <= DISCOVERY_LEVEL] = DISCOVERED
        marks[self.adjusted <= FAMILY_LEVEL] = SIGNIFICANT  # these are all discovered as well
        return marks

    @property
    def significant(self) -> int:
        """How many rows are significant."""
        return int(np.count_nonzero(self.adjusted <= FAMILY_LEVEL))

    @property
    def discovered(self) -> int:
        """How many rows are discovered, the significant ones among them."""
        return int(np.count_nonzero(self.false_discovery <= DISCOVERY_LEVEL))

    @property
    def uncorrected(self) -> int:
        """How many rows would be significant if nothing were corrected."""
        return int(np.count_nonzero(self.p <= FAMILY_LEVEL))

    @property
    def significant_z(self) -> float:
        """Bar that exactly the significant rows pass; where there are none, what the first would need."""
        return family_threshold(max(self.tried - self.significant, 1))

    @property
    def discovered_z(self) -> float:
        """Bar that exactly the discovered rows reach; where there are none, what a single one would need."""
        level = DISCOVERY_LEVEL * max(self.discovered, 1) / max(self.tried, 1)
        return family_threshold(1, level)  # of one test: the quantile


class Ranking(NamedTuple):
    """All (symbol, timeframe, strategy, risk profile) of some jobs, one row each, in the jobs' order.

    job: (c,) int64, place of the row's job in what was ranked. strategy_id: (c,) int64. risk_profile: c names.
    trades: (c,) int64. pnl_mean: (c,) float64, fraction of the entry price. win_rate: (c,) float64, 0 to 1. Both NaN
    without trades.
    t: (c,) float64, mean over its standard error (sample deviation); NaN for fewer than two trades or equal ones.
    z: (c,) float64, t on the normal scale, where 10 trades and 1,000 compare with each other and with luck.
    gains, losses: what is more than luck.
    order: (r,) int64 rows with MIN_TRADES and a t, by z, the best first, ties in the jobs' order.
    idle: combinations that never traded. They could not have won, so they are no tries; what traded too little to be
    ranked would have been looked at had it traded more, so it is one.
    pending: planned combinations that are not stored (yet). They count as tries that showed nothing: stopping a run
    when it looks good gains nothing, and while a run goes on corrected values only fall.
    chance_z: the best z of that many tries without an edge, on average; as of one try where there is none.
    """

    job: Int64s
    strategy_id: Int64s
    risk_profile: tuple[str, ...]
    trades: Int64s
    pnl_mean: Float64s
    t: Float64s
    z: Float64s
    gains: Direction
    losses: Direction
    win_rate: Float64s
    order: Int64s
    idle: int
    pending: int
    chance_z: float

    @property
    def tried(self) -> int:
        """How many tests everything is corrected for."""
        return self.gains.tried

    @property
    def best_z(self) -> float | None:
        """The z of the best ranked row, None where no row is ranked."""
        return float(self.z[self.order[0]]) if self.order.size else None

    @property
    def marks(self) -> NDArray[np.int8]:
        """What each row may be called, (c,): as of `Direction.marks`, negative for a loss."""
        return self.gains.marks - self.losses.marks

    @property
    def p_adjusted(self) -> Float64s:
        """Each row's adjusted p in its own direction, (c,)."""
        return np.where(self.z < 0, self.losses.adjusted, self.gains.adjusted)

    @property
    def false_discovery(self) -> Float64s:
        """Each row's share of false discoveries in its own direction, (c,)."""
        return np.where(self.z < 0, self.losses.false_discovery, self.gains.false_discovery)

    def best(self, count: int) -> Int64s:
        """Return up to `count` rows, the best first."""
        return self.order[:count]

    def worst(self, count: int) -> Int64s:
        """Return up to `count` rows, the worst first."""
        return self.order[::-1][:count]


class _Figures(NamedTuple):
    """What every combination's test rests on, (c,) each; score: z, NaN where a row is not ranked."""

    trades: Int64s
    mean: Float64s
    t: Float64s
    z: Float64s
    score: Float64s

    def tried(self, planned: int) -> int:
        """Count what traded, and what was planned and is not stored."""
        return int(np.count_nonzero(self.trades)) + self.pending(planned)

    def pending(self, planned: int) -> int:
        return max(planned - self.trades.size, 0)


def rank(indexes: Sequence[JobIndex], planned: int = 0) -> Ranking:
    """Rank the combinations of jobs; each is in one job only.

    planned: combinations of the whole run, of which those that are not in these jobs are pending.
    """
    totals = [index.totals for index in indexes]
    figures = _figures(totals)
    trades, tried = figures.trades, figures.tried(planned)
    wins = _column((each.wins for each in totals), np.int64)
    ranked = np.flatnonzero(~np.isnan(figures.score))
    return Ranking(
        job=np.repeat(np.arange(len(totals)), [len(each.trades) for each in totals]),
        strategy_id=_column((each.strategy_id for each in totals), np.int64),
        risk_profile=tuple(chain.from_iterable(each.risk_profile for each in totals)),
        trades=trades,
        pnl_mean=figures.mean,
        t=figures.t,
        z=figures.z,
        gains=_direction(figures.score, tried),
        losses=_direction(-figures.score, tried),
        win_rate=np.divide(wins, trades, out=np.full(trades.size, np.nan), where=trades > 0),
        order=ranked[np.argsort(-figures.z[ranked], kind="stable")],
        idle=int(np.count_nonzero(trades == 0)),
        pending=figures.pending(planned),
        chance_z=expected_maximum(max(tried, 1)),
    )


def gains(indexes: Sequence[JobIndex], planned: int) -> Direction:
    """Return `rank(indexes, planned).gains` alone, in half the time: lists of results wait for it."""
    figures = _figures([index.totals for index in indexes])
    return _direction(figures.score, figures.tried(planned))


def multiple_testing_note(ranking: Ranking) -> str:
    """Say in one paragraph what the best result is worth, given how many were tried."""
    if ranking.best_z is None:
        return (
            f"{ranking.trades.size - ranking.idle:,} combinations traded, none of them {MIN_TRADES} times or more with "
            "differing results: there is nothing to judge."
        )
    return (
        f"{_tries(ranking)} {_found(ranking)} {_verdict(ranking, ranking.best_z)} "
        "z is mean P&L over its standard error (t) on the normal scale, and only a yardstick. Trades that follow each "
        "other are not independent, and few trades of lopsided results (many small gains, a rare large loss) look "
        "steadier than they are; both can flatter z. The tries share bars and rules: that makes the strict test more "
        "careful, and lets false candidates come in clusters. Other runs over the same bars are tries that are not "
        "counted here; and z compares with earning nothing, not with holding. P&L is gross: no fees, spread or "
        "slippage, stops and targets filled at exactly their level, each trade a fraction of its entry price."
    )


def _tries(ranking: Ranking) -> str:
    beside = []
    if ranking.idle:
        beside.append(f"{ranking.idle:,} never traded and do not")
    if ranking.pending:
        beside.append(f"{ranking.pending:,} were planned and are not stored, and count too")
    exceptions = f" ({'; '.join(beside)})" if beside else ""
    return (
        f"{ranking.trades.size - ranking.idle:,} combinations traded and count as tries{exceptions}; "
        f"{ranking.order.size:,} have {MIN_TRADES} trades or more, and differing ones, and are tested."
    )


def _found(ranking: Ranking) -> str:
    """Say what passes, what would without the correction, and what by luck."""
    up, down = ranking.gains, ranking.losses
    return (
        f"Without a correction {up.uncorrected:,} would pass as gains at {FAMILY_LEVEL:.0%}, where luck alone lets "
        f"some {FAMILY_LEVEL * ranking.order.size:,.0f} pass. Corrected for all {ranking.tried:,} tries, "
        f"{_pass(up.significant)} the strict test (z above {up.significant_z:.2f}; if none had an edge, the "
        f"chance that any passes would be {FAMILY_LEVEL:.0%}), and {_pass(up.discovered)} the looser one (from "
        f"{up.discovered_z:.2f} on; about {DISCOVERY_LEVEL:.0%} of those may be luck). As losses, judged in the "
        f"same way, {_pass(down.significant)} and {_pass(down.discovered)}; that is no edge for the opposite "
        "trade, since the fill rules alone make tight trailing stops lose."
    )


def _pass(count: int) -> str:
    return f"{count:,} {'passes' if count == 1 else 'pass'}"


def _verdict(ranking: Ranking, best_z: float) -> str:
    reached = f"Luck alone puts the best at z = {ranking.chance_z:.2f} on average; the best here has z = {best_z:.2f}"
    mark = ranking.gains.marks[ranking.order[0]]
    if mark == SIGNIFICANT:
        return f"{reached} and passes the strict test."
    if mark == DISCOVERED:
        return f"{reached}: a candidate, to be tested on other bars."
    if best_z <= ranking.chance_z:
        return f"{reached}: no more than luck alone offers."
    return f"{reached}: more than luck offers on average, not more than it offers now and then."


def _direction(score: Float64s, tried: int) -> Direction:
    p = upper_tail(score)
    return Direction(p, adjusted_p(score, tried), false_discovery(p, tried), tried)


def _figures(totals: Sequence[CombinationTotals]) -> _Figures:
    trades = _column((each.trades for each in totals), np.int64)
    mean = np.where(trades > 0, _column((each.pnl_mean for each in totals), np.float64), np.nan)
    t = _t_statistics(trades, mean, _column((each.pnl_std for each in totals), np.float64))
    z = normal_scores(t, np.maximum(trades - 1, 1))
    return _Figures(trades, mean, t, z, np.where((trades >= MIN_TRADES) & np.isfinite(t), z, np.nan))


def _t_statistics(trades: Int64s, mean: Float64s, population_std: Float64s) -> Float64s:
    """Mean over standard error: sample deviation / sqrt(n), which is population deviation / sqrt(n - 1)."""
    usable = (trades > 1) & (population_std > _ROUNDING * np.abs(mean))
    t = np.full(trades.size, np.nan)
    np.divide(mean * np.sqrt(np.maximum(trades - 1, 0)), population_std, out=t, where=usable)
    return t


def _column(parts: Iterable[Sequence[int] | Sequence[float]], kind: type[Kind]) -> NDArray[Kind]:
    return np.fromiter(chain.from_iterable(parts), dtype=kind)
