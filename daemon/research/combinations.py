"""Every combination of a probe run beside the others, as the console's map shows them: figures, and what luck gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from daemon.core.market import Timeframe
from daemon.research.ranking import DISCOVERED, SIGNIFICANT, multiple_testing_note, rank
from daemon.store import results

if TYPE_CHECKING:
    from daemon.core.market import Float64s
    from daemon.research.records import Run
    from daemon.research.strategies import RuleBook
    from daemon.store.env import Environment

_MARKS: Final = {
    SIGNIFICANT: "gain",
    DISCOVERED: "gain maybe",
    0: "",
    -DISCOVERED: "loss maybe",
    -SIGNIFICANT: "loss",
}


class Combination(msgspec.Struct, frozen=True, gc=False):
    """A strategy with a risk profile on a series.

    pnl_mean: fraction of the entry price, null without trades. win_rate: 0 to 1. z: null for fewer than two trades, or
    equal ones. p_adjusted, false_discovery: in its own direction, null where it was not tested. mark: what may be said
    of it: `gain` or `loss` (told from luck), `gain maybe` or `loss maybe` (worth a test on other bars), or empty.
    """

    symbol: str
    timeframe: str
    risk_profile: str
    strategy_id: int
    strategy_name: str
    trades: int
    pnl_mean: float | None
    win_rate: float | None
    z: float | None
    p_adjusted: float | None
    false_discovery: float | None
    mark: str


class CombinationMap(msgspec.Struct, frozen=True):
    """All combinations of one symbol, or of all. tried, tested, chance_z, note: of the whole run, whatever is shown."""

    run_id: str
    tried: int
    tested: int
    chance_z: float
    note: str
    combinations: list[Combination]


def combination_map(env: Environment, run: Run, book: RuleBook, symbol: str | None = None) -> CombinationMap:
    """Rank a run's stored combinations. symbol: only those of this instrument's key; they are corrected for all."""
    with env.read() as transaction:
        indexes = [each.index for each in results.jobs(transaction, run.run_id)]
    indexes.sort(key=lambda index: (index.instrument, Timeframe(index.timeframe).ns))
    ranking = rank(indexes, run.total_combinations)
    names = {each.id: each.display_name for each in book}
    columns = zip(
        ranking.job.tolist(),
        ranking.risk_profile,
        ranking.strategy_id.tolist(),
        ranking.trades.tolist(),
        _known(ranking.pnl_mean),
        _known(ranking.win_rate),
        _known(ranking.z),
        _known(ranking.p_adjusted),
        _known(ranking.false_discovery),
        ranking.marks.tolist(),
        strict=True,
    )
    shown = [
        Combination(
            indexes[job].instrument,
            indexes[job].timeframe,
            profile,
            strategy_id,
            names.get(strategy_id) or run.strategy_names.get(strategy_id, f"strategy {strategy_id}"),
            trades,
            mean,
            won,
            z,
            p,
            share,
            _MARKS[mark],
        )
        for job, profile, strategy_id, trades, mean, won, z, p, share, mark in columns
        if symbol in (None, indexes[job].instrument)
    ]
    note = multiple_testing_note(ranking)
    return CombinationMap(run.run_id, ranking.tried, int(ranking.order.size), ranking.chance_z, note, shown)


def _known(column: Float64s) -> list[float | None]:
    values: list[float | None] = column.tolist()
    return [value if is_known else None for value, is_known in zip(values, np.isfinite(column).tolist(), strict=True)]
