"""The shipped strategies over bars without an edge, and with one that was planted: what the report would colour."""

from pathlib import Path

import numpy as np
import pytest

from daemon.core.market import NS_PER_DAY, Bars, Timeframe
from daemon.core.strategy import RiskProfile
from daemon.engine import conditions, probe
from daemon.engine.columns import ATR
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.program import compile_strategies
from daemon.engine.synthetic import MarketModel, Regime, simulate
from daemon.research import strategies
from daemon.research.ranking import DISCOVERED, SIGNIFICANT, rank
from daemon.store.results import CombinationTotals, JobIndex

BOOK = list(strategies.load([Path(__file__).parents[2] / "strategies.json"]))
PROFILES = {
    "low": RiskProfile(stop_scale=0.75, target_scale=0.75, trailing_scale=0.75, time_scale=0.6),
    "medium": RiskProfile(),
    "high": RiskProfile(stop_scale=1.5, target_scale=1.5, trailing_scale=1.5, time_scale=1.5),
}
MARKETS, BARS = 10, 2_500
NOISE = MarketModel(
    regimes=(Regime(annual_drift=0.0, annual_volatility=0.5),),
    daily_switching=((0.0,),),
    annual_reversion=0.0,
    volatility_shock=0.0,
    volatility_memory=0.0,
    tail_degrees=1e6,
    gap_chance=0.0,
)


def bars_of(seed):
    return simulate(NOISE, seed=seed, start_ns=16_801 * NS_PER_DAY, bars=BARS, timeframe=Timeframe.HOUR_1)


def with_momentum(bars):
    """Let every bar's move go on for a while: an edge for whoever follows the trend."""
    moves = np.diff(np.log(bars.close), prepend=np.log(bars.open[0]))
    followed, pull = np.empty_like(moves), 0.0
    for place, move in enumerate(moves.tolist()):
        followed[place] = move + pull
        pull = 0.8 * pull + 0.2 * move
    close = bars.open[0] * np.exp(np.cumsum(followed))
    opens = np.concatenate([bars.open[:1], close[:-1]])
    high = np.maximum(opens, close) * bars.high / np.maximum(bars.open, bars.close)
    low = np.minimum(opens, close) * bars.low / np.minimum(bars.open, bars.close)
    return Bars(bars.start_ns, opens, high, low, close, bars.volume)


def probed(bars):
    """The index of a job that ran all strategies and profiles."""
    keys = [(place, profile) for place in range(len(BOOK)) for profile in PROFILES]
    combinations = probe.combine(BOOK, [(place, PROFILES[profile]) for place, profile in keys])
    program, columns = compile_strategies(BOOK), IndicatorColumns(bars)
    signals = conditions.signals(program, columns)
    batches = probe.run(bars, columns[ATR], signals, program.strategy_signals, combinations)
    summaries = [batch.summary for batch in batches]
    counts = {
        name: np.concatenate([getattr(summary, name) for summary in summaries]).tolist()
        for name in ("trades", "groups", "wins", "pnl_mean", "pnl_std", "max_drawdown", "max_profit")
    }
    totals = CombinationTotals([BOOK[place].id for place, _ in keys], [profile for _, profile in keys], **counts)
    return JobIndex("local:SYN", "SYN", "1Hour", "1Hour", BARS, "d", 0, 1, [], totals, [])


@pytest.fixture(scope="module")
def noise():
    return [rank([probed(bars_of(seed))]) for seed in range(MARKETS)]


def test_bars_without_an_edge_colour_almost_no_gain(noise):
    tested = sum(ranking.order.size for ranking in noise)
    marks = np.concatenate([ranking.gains.marks for ranking in noise])
    assert tested > 150 * MARKETS
    assert np.count_nonzero(marks == SIGNIFICANT) <= 1
    assert np.count_nonzero(marks) <= tested / 200
    # There is something to correct: by their own p many would pass.
    assert sum(ranking.gains.uncorrected for ranking in noise) > 3 * MARKETS


def test_what_loses_without_an_edge_are_rules_with_a_trailing_stop(noise):
    """The note and the manual say so: such a loss is the work of the fill rules."""
    of = {each.id: each for each in BOOK}
    losers = {
        int(number)
        for ranking in noise
        for number in ranking.strategy_id[ranking.losses.marks == SIGNIFICANT]
    }  # fmt: skip
    trailing = [number for number in losers if of[number].trailing_atr_mult is not None]
    assert losers
    assert len(trailing) >= 0.9 * len(losers)


def test_a_planted_trend_is_coloured_where_it_is_followed():
    ranking = rank([probed(with_momentum(bars_of(3)))])
    found = ranking.gains.marks == SIGNIFICANT
    categories = {each.id: each.category for each in BOOK}
    assert np.count_nonzero(found) > 10
    assert np.count_nonzero(ranking.gains.marks >= DISCOVERED) > np.count_nonzero(found)
    assert "trend" in {categories[number] for number in ranking.strategy_id[found].tolist()}
