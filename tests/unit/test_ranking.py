import math
import statistics

import numpy as np
import pytest

from daemon.engine.significance import expected_maximum, family_threshold
from daemon.research.ranking import MIN_TRADES, multiple_testing_note, rank
from daemon.store.results import CombinationTotals, JobIndex

ALTERNATING = [0.03, -0.01] * 10
LOSING = [-0.03, 0.01] * 10


def job(*combinations, symbol="SYN", timeframe="1Hour", profile="medium"):
    """Make a job's index from (strategy id, P&L of its trades) pairs."""
    pnl = [values for _, values in combinations]
    totals = CombinationTotals(
        strategy_id=[strategy_id for strategy_id, _ in combinations],
        risk_profile=[profile] * len(pnl),
        trades=[len(values) for values in pnl],
        groups=[len(values) for values in pnl],
        wins=[sum(value > 0 for value in values) for values in pnl],
        pnl_mean=[statistics.fmean(values) if values else 0.0 for values in pnl],
        pnl_std=[statistics.pstdev(values) if values else 0.0 for values in pnl],
        max_drawdown=[0.0] * len(pnl),
        max_profit=[0.0] * len(pnl),
    )
    return JobIndex(f"local:{symbol}", symbol, timeframe, timeframe, 100, "d1", 0, 10**18, [], totals, [])


def test_t_is_the_mean_over_its_standard_error_by_the_sample_deviation():
    ranking = rank([job((1, ALTERNATING))])
    error = statistics.stdev(ALTERNATING) / math.sqrt(len(ALTERNATING))
    assert ranking.t[0] == pytest.approx(statistics.fmean(ALTERNATING) / error, rel=1e-12)
    assert 0 < ranking.z[0] < ranking.t[0]
    assert ranking.win_rate[0] == 0.5


@pytest.mark.parametrize("pnl", [[], [0.1], [0.0] * 20, [0.1] * 20, [0.1, 0.1]])
def test_without_spread_there_is_no_t_and_no_rank(pnl):
    ranking = rank([job((1, pnl))])
    assert np.isnan(ranking.t[0])
    assert np.isnan(ranking.z[0])
    assert ranking.order.size == 0
    assert ranking.best_z is None


def test_equal_trades_whose_deviation_is_only_rounding_have_no_t():
    index = job((1, ALTERNATING))
    index.totals.pnl_mean[0], index.totals.pnl_std[0] = 0.1, 1.4e-17
    assert np.isnan(rank([index]).t[0])


def test_too_few_trades_are_tries_but_not_ranked():
    ranking = rank([job((1, ALTERNATING[: MIN_TRADES - 1]), (2, ALTERNATING[:MIN_TRADES]))])
    assert ranking.tried == 2
    assert np.isfinite(ranking.t).all()
    assert ranking.order.tolist() == [1]


def test_combinations_that_never_traded_are_no_tries():
    ranking = rank([job((1, []), (2, ALTERNATING), (3, [0.1]))])
    assert ranking.tried == 2
    assert np.isnan(ranking.pnl_mean[0])
    assert np.isnan(ranking.win_rate[0])
    assert ranking.chance_z == expected_maximum(2)
    assert ranking.threshold_z == family_threshold(2)


def test_best_and_worst_are_taken_over_all_jobs():
    ranking = rank(
        [
            job((1, LOSING), (2, ALTERNATING), symbol="A"),
            job((1, [*ALTERNATING] * 2), (2, [*LOSING] * 2), symbol="B", profile="high"),
        ]
    )
    assert ranking.best(2).tolist() == [2, 1]
    assert ranking.worst(2).tolist() == [3, 0]
    assert ranking.best(99).size == 4
    assert (ranking.job[2], ranking.strategy_id[2], ranking.risk_profile[2]) == (1, 1, "high")
    assert ranking.best_z == ranking.z[2]


def test_equal_combinations_keep_the_jobs_order():
    ranking = rank([job(*((number, ALTERNATING) for number in (7, 3, 5)))])
    assert ranking.strategy_id[ranking.best(3)].tolist() == [7, 3, 5]


def test_of_equal_t_the_one_with_more_trades_is_better():
    few, many = [0.03, -0.01] * 5, [0.03, -0.01] * 50
    index = job((1, few), (2, many))
    # Bring both to the same t by their deviation.
    index.totals.pnl_std[:] = [0.01 * math.sqrt(9), 0.01 * math.sqrt(99)]
    ranking = rank([index])
    assert ranking.t[0] == pytest.approx(ranking.t[1])
    assert ranking.best(1).tolist() == [1]


def test_exceeding_counts_ranked_rows_above_the_threshold_only():
    strong = [0.02, 0.03] * 10
    ranking = rank([job((1, strong), (2, [-each for each in strong]), (3, ALTERNATING), (4, strong[:4]))])
    assert ranking.exceeding == 1


@pytest.mark.parametrize("indexes", [[], [job()], [job((1, []), (2, []))]])
def test_nothing_traded_is_nothing_tried(indexes):
    ranking = rank(indexes)
    assert ranking.tried == ranking.exceeding == 0
    assert ranking.best(15).size == ranking.worst(15).size == 0
    assert "nothing to judge" in multiple_testing_note(ranking)


def test_a_market_without_edge_passes_the_threshold_in_one_search_of_twenty():
    draws = np.random.default_rng(2)
    found = 0
    searches, tries, trades = 400, 60, 12
    for _ in range(searches):
        pnl = draws.standard_normal((tries, trades)) / 100
        found += rank([job(*enumerate(pnl.tolist(), start=1))]).exceeding > 0
    assert found / searches == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / searches))


def test_the_note_says_how_many_were_tried_and_what_luck_is_worth():
    ranking = rank([job((1, ALTERNATING), (2, LOSING), (3, []))])
    note = multiple_testing_note(ranking)
    assert "2 combinations traded" in note
    assert "(1 never traded and do not)" in note
    assert f"z = {ranking.chance_z:.2f}" in note
    assert f"z = {ranking.threshold_z:.2f} would be 5%" in note
    assert "no fees, spread or slippage" in note


@pytest.mark.parametrize(
    ("combinations", "verdict"),
    [
        ([(1, LOSING), (2, LOSING)], "no more than luck alone offers"),
        ([(1, ALTERNATING), *((number, LOSING) for number in range(2, 12))], "not more than it offers now and then"),
        ([(1, [0.02, 0.03] * 10), (2, LOSING)], "1 combination passes the threshold"),
        ([(1, [0.02, 0.03] * 10), (2, [0.02, 0.03] * 20)], "2 combinations pass the threshold"),
    ],
)
def test_the_note_judges_the_best(combinations, verdict):
    assert verdict in multiple_testing_note(rank([job(*combinations)]))
