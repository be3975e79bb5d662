import math
import statistics

import numpy as np
import pytest

from daemon.engine.significance import expected_maximum, family_threshold
from daemon.research.ranking import DISCOVERED, MIN_TRADES, SIGNIFICANT, gains, multiple_testing_note, rank
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
    ranking = rank([job((1, []), (2, LOSING), (3, [0.1]))])
    assert ranking.tried == 2
    assert np.isnan(ranking.pnl_mean[0])
    assert np.isnan(ranking.win_rate[0])
    assert ranking.chance_z == expected_maximum(2)
    assert ranking.idle == 1
    assert ranking.gains.significant_z == family_threshold(2)


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


# Significance.


STRONG = [0.02, 0.03] * 10


def corrected_slowly(ranking, sign):
    """Holm with Sidak's bound, and Benjamini-Hochberg, one row at a time over everything tried."""
    normal = statistics.NormalDist()
    p = {row: normal.cdf(-sign * ranking.z[row]) for row in ranking.order.tolist()}
    adjusted, shares = {}, {}
    for row, own in p.items():
        as_good = [other for other in p.values() if other <= own]
        # Tests of those that were not ranked come last: they have nothing to show.
        steps = [1 - (1 - other) ** (ranking.tried - sum(each < other for each in p.values())) for other in as_good]
        adjusted[row] = max(steps)
        worse = [other for other in p.values() if other >= own]
        shares[row] = min(1, *(ranking.tried * other / sum(each <= other for each in p.values()) for other in worse))
    return adjusted, shares


def test_corrected_values_are_those_of_a_slow_count_over_the_whole_run():
    draws = np.random.default_rng(12)
    pnl = draws.standard_normal((60, 15)) / 100 + draws.choice([0, 0, 0, 0.01, -0.01], 60)[:, None]
    indexes = [
        job(*enumerate(pnl[:20].tolist())),
        job(*enumerate(pnl[20:].tolist()), (99, []), (98, [0.1] * 12), (97, [0.5, 0.4]), symbol="B"),
    ]
    ranking = rank(indexes, planned=70)
    assert ranking.tried == 60 + 2 + 7
    assert ranking.order.size == 60
    for short, whole in zip(gains(indexes, 70), ranking.gains, strict=True):
        assert np.array_equal(short, whole, equal_nan=True)
    for direction, sign in ((ranking.gains, 1), (ranking.losses, -1)):
        adjusted, shares = corrected_slowly(ranking, sign)
        assert 0 < direction.significant < direction.discovered <= direction.uncorrected
        for row in range(ranking.z.size):
            if row not in adjusted:
                assert np.isnan([direction.p[row], direction.adjusted[row], direction.false_discovery[row]]).all()
                assert ranking.marks[row] == 0
                continue
            assert direction.adjusted[row] == pytest.approx(adjusted[row], rel=1e-9, abs=1e-12)
            assert direction.false_discovery[row] == pytest.approx(shares[row], rel=1e-9)
            wanted = SIGNIFICANT if adjusted[row] <= 0.05 else DISCOVERED if shares[row] <= 0.1 else 0
            assert direction.marks[row] == wanted
            if sign * ranking.z[row] > 0:
                assert ranking.marks[row] == sign * wanted
                assert ranking.p_adjusted[row] == direction.adjusted[row]
                assert ranking.false_discovery[row] == direction.false_discovery[row]


def test_the_bars_that_are_named_part_what_is_marked_from_the_rest():
    draws = np.random.default_rng(13)
    for strength in (0, 0.006, 0.02):
        pnl = draws.standard_normal((80, 20)) / 100 + strength * (np.arange(80) < 15)[:, None]
        ranking = rank([job(*enumerate(pnl.tolist()))])
        for direction, z in ((ranking.gains, ranking.z), (ranking.losses, -ranking.z)):
            assert ((direction.marks == SIGNIFICANT) == (z > direction.significant_z)).all()
            assert ((direction.marks > 0) == (z >= direction.discovered_z)).all()
            assert direction.discovered_z < direction.significant_z
    assert ranking.gains.significant > 5
    assert ranking.gains.discovered > ranking.gains.significant


def test_a_planted_edge_is_found_and_nothing_beside_it():
    pnl = np.random.default_rng(14).standard_normal((400, 50)) / 100
    pnl[123] += 0.01
    ranking = rank([job(*enumerate(pnl.tolist()))])
    assert np.flatnonzero(ranking.marks == SIGNIFICANT).tolist() == [123]
    assert ranking.gains.uncorrected > 10


def test_losses_are_marked_as_losses_and_lower_no_bar_for_gains():
    losers = [(number, [-each for each in STRONG]) for number in range(30)]
    draws = np.random.default_rng(15).standard_normal((70, 20)) / 100
    noise = [(100 + number, values) for number, values in enumerate(draws.tolist())]
    alone = rank([job(*noise)], planned=100)
    among = rank([job(*losers, *noise)])
    assert (among.marks[:30] == -SIGNIFICANT).all()
    assert among.losses.significant == 30
    assert among.gains.adjusted[30:] == pytest.approx(alone.gains.adjusted, rel=1e-12)
    assert among.gains.false_discovery[30:] == pytest.approx(alone.gains.false_discovery, rel=1e-12)


def test_what_is_planned_and_not_stored_counts_as_a_try():
    first, second = job((1, ALTERNATING), (2, [])), job((1, LOSING), (2, STRONG), symbol="B")
    part, whole = rank([first], planned=4), rank([first, second], planned=4)
    assert (part.tried, part.pending, whole.tried, whole.pending) == (3, 2, 3, 0)
    assert rank([first]).tried == 1
    assert "2 were planned and are not stored" in multiple_testing_note(part)
    assert rank([first]).gains.adjusted[0] < whole.gains.adjusted[0] <= part.gains.adjusted[0]


def test_corrected_values_only_fall_while_a_run_goes_on():
    pnl = np.random.default_rng(16).standard_normal((90, 12)) / 100 + 0.002
    jobs = [job(*enumerate(pnl[at : at + 10].tolist()), symbol=f"S{at}") for at in range(0, 90, 10)]
    before = None
    for count in range(1, len(jobs) + 1):
        direction = rank(jobs[:count], planned=90).gains
        now = direction.adjusted[:10], direction.false_discovery[:10]
        if before is not None:
            assert all((new <= old).all() for new, old in zip(now, before, strict=True))
        before = now


@pytest.mark.parametrize("indexes", [[], [job()], [job((1, []), (2, []))]])
def test_nothing_traded_is_nothing_tried(indexes):
    ranking = rank(indexes)
    assert ranking.tried == ranking.gains.significant == ranking.losses.discovered == 0
    assert not ranking.marks.any()
    assert math.isfinite(ranking.gains.significant_z)
    assert math.isfinite(ranking.gains.discovered_z)
    assert ranking.best(15).size == ranking.worst(15).size == 0
    assert "nothing to judge" in multiple_testing_note(ranking)


def test_a_search_without_edge_shows_a_significant_gain_once_in_twenty_times():
    draws = np.random.default_rng(2)
    found = 0
    searches, tries, trades = 400, 60, 12
    for _ in range(searches):
        pnl = draws.standard_normal((tries, trades)) / 100
        found += rank([job(*enumerate(pnl.tolist(), start=1))]).gains.significant > 0
    assert found / searches == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / searches))


def test_the_note_says_how_many_were_tried_and_what_luck_is_worth():
    ranking = rank([job((1, ALTERNATING), (2, LOSING), (3, []))])
    note = multiple_testing_note(ranking)
    assert "2 combinations traded" in note
    assert "(1 never traded and do not)" in note
    assert f"z = {ranking.chance_z:.2f}" in note
    assert f"z above {ranking.gains.significant_z:.2f}" in note
    assert f"from {ranking.gains.discovered_z:.2f} on" in note
    assert "would be 5%" in note
    assert "no fees, spread or slippage" in note


def test_the_note_counts_what_passes_without_and_with_the_correction_and_by_luck():
    pnl = np.random.default_rng(14).standard_normal((400, 50)) / 100
    pnl[123] += 0.01
    ranking = rank([job(*enumerate(pnl.tolist()))])
    note = multiple_testing_note(ranking)
    assert f"Without a correction {ranking.gains.uncorrected} would pass as gains at 5%, where luck alone" in note
    assert "lets some 20 pass" in note
    assert "Corrected for all 400 tries, 1 passes the strict test" in note


@pytest.mark.parametrize(
    ("combinations", "verdict"),
    [
        ([(1, LOSING), (2, LOSING)], "no more than luck alone offers"),
        ([(1, ALTERNATING), *((number, LOSING) for number in range(2, 12))], "not more than it offers now and then"),
        ([(1, ALTERNATING), (2, LOSING), (3, LOSING)], "a candidate, to be tested on other bars"),
        ([(1, STRONG), (2, LOSING)], "1 passes the strict test"),
        ([(1, STRONG), (2, [0.02, 0.03] * 20)], "2 pass the strict test"),
    ],
)
def test_the_note_judges_the_best(combinations, verdict):
    assert verdict in multiple_testing_note(rank([job(*combinations)]))
