import math
from itertools import pairwise

import numpy as np
import pytest
from naive import overfitting as naive

from daemon.engine.chunks import CHUNKS, in_chunks, nothing
from daemon.engine.overfitting import MAX_BLOCKS, cscv, pbo_spread


class StoppedError(Exception):
    """Raised by a checkpoint."""


def noise(rows, columns, seed=1):
    return np.random.default_rng(seed).normal(0, 0.01, (rows, columns))


def dominating(rows=600, columns=8):
    """Every day, every column is worse than the one before it."""
    return noise(rows, 1, 7) - 0.001 * np.arange(columns)


def antithetic():
    """Two columns; one wins in odd blocks of 50 days by what it loses in even ones."""
    base, edge = np.tile(np.linspace(-0.01, 0.01, 50), 6), np.repeat([0.01, -0.01] * 3, 50)
    return np.column_stack([base + edge, base - edge])


@pytest.mark.parametrize(("blocks", "splits"), [(16, 12_870), (10, 252), (6, 20), (2, 2)])
def test_every_way_to_halve_the_blocks_is_tried_once(blocks, splits):
    found = cscv(noise(100, 3), blocks)
    assert math.comb(blocks, blocks // 2) == splits
    assert found.logits.shape == found.in_sample.shape == found.out_of_sample.shape == (splits,)


def test_a_column_that_dominates_every_block_is_no_overfitting():
    found = cscv(dominating(), 6)
    assert found.pbo == 0
    assert found.logits == pytest.approx(np.full(20, math.log(8)), rel=1e-12)
    assert round(float(found.logits[0]), 4) == 2.0794
    assert found.dominance_gap == 0


def test_a_winner_that_loses_elsewhere_is_nothing_but_overfitting():
    found = cscv(antithetic(), 6)
    assert found.pbo == 1
    assert found.loss == 1
    assert found.slope < 0
    assert found.dominance_gap > 0.4


def test_noise_over_40_seeds_has_the_published_mean_and_range():
    found = [cscv(noise(1_000, 50, seed), 8).pbo for seed in range(40)]
    assert [round(np.mean(found), 3), round(min(found), 3), round(max(found), 2)] == [0.476, 0.057, 0.80]


@pytest.mark.parametrize(
    ("rows", "columns", "blocks"), [(40, 3, 8), (47, 5, 6), (13, 2, 4), (24, 7, 8), (4, 2, 2), (8, 2, 8), (31, 4, 10)]
)
def test_every_split_equals_the_oracles(rows, columns, blocks):
    profits = noise(rows, columns, rows)
    found, expected = cscv(profits, blocks), naive.splits(profits.T.tolist(), blocks)
    assert found.logits == pytest.approx([split.logit for split in expected], rel=1e-12, abs=1e-12)
    assert found.in_sample == pytest.approx([split.in_sample for split in expected], rel=1e-9, abs=1e-12)
    assert found.out_of_sample == pytest.approx([split.out_of_sample for split in expected], rel=1e-9, abs=1e-12)
    assert found.loss == np.mean([split.out_of_sample < 0 for split in expected])
    slope, intercept = np.polyfit(found.in_sample, found.out_of_sample, 1)
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept), rel=1e-6, abs=1e-9)
    assert found.dominance_gap == pytest.approx(naive.dominance_gap(expected), abs=0.01)


def test_ties_and_columns_that_rest_equal_the_oracles():
    profits = noise(48, 6, 3)
    profits[:, 2] = profits[:, 1]
    profits[:, 4] = 0.0
    profits[:24, 5] = 0.0
    found, expected = cscv(profits, 8), naive.splits(profits.T.tolist(), 8)
    assert found.logits == pytest.approx([split.logit for split in expected], rel=1e-12, abs=1e-12)
    assert found.out_of_sample == pytest.approx([split.out_of_sample for split in expected], rel=1e-9, abs=1e-12)
    assert np.isin(found.out_of_sample, 0.0).any()


def test_the_oldest_days_that_fill_no_block_are_dropped():
    profits = noise(1_003, 5)
    found = cscv(profits, 8)
    assert found.rows == 1_000
    assert np.array_equal(found.logits, cscv(profits[3:], 8).logits)
    assert not np.array_equal(found.logits, cscv(profits[:-3], 8).logits)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e12])
def test_the_unit_of_profits_is_of_no_matter(unit):
    assert np.array_equal(cscv(unit * noise(200, 6), 8).logits, cscv(noise(200, 6), 8).logits)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_columns_without_deviation_have_no_performance_and_tie_at_the_median(value):
    found = cscv(np.full((80, 3), value), 8)
    assert (found.logits == 0).all()
    assert (found.out_of_sample == 0).all()
    assert (found.pbo, found.loss, found.dominance_gap) == (1, 0, 0)
    assert found.slope is found.intercept is None


def test_a_column_that_hardly_moves_keeps_its_digits():
    # Squares of sums would leave nothing: the deviation is a ten-millionth of the mean.
    found = cscv(1e5 + 0.01 * noise(64, 2), 4)
    expected = naive.splits((1e5 + 0.01 * noise(64, 2)).T.tolist(), 4)
    assert found.in_sample == pytest.approx([split.in_sample for split in expected], rel=1e-6)


def test_all_wins_do_not_make_a_choice_better_than_chance():
    found = [cscv(0.05 + np.abs(noise(400, 20, seed)), 8) for seed in range(20)]
    assert 0.3 < np.mean([each.pbo for each in found]) < 0.7
    assert all(each.loss == 0 for each in found)


def test_threads_change_nothing():
    alone, beside = (cscv(noise(300, 20), 10, threads=threads) for threads in (1, 3))
    assert all(np.array_equal(one, other) for one, other in zip(alone, beside, strict=True))


def test_profits_are_left_as_they_are_even_where_they_are_not_ours():
    profits = np.asfortranarray(noise(100, 4))
    before = profits.copy()
    profits.setflags(write=False)
    assert np.array_equal(cscv(profits, 8).logits, cscv(before, 8).logits)
    assert np.array_equal(profits, before)


@pytest.mark.parametrize(
    "run",
    [lambda each: cscv(noise(100, 4), 10, checkpoint=each), lambda each: pbo_spread(noise(100, 4), checkpoint=each)],
)
def test_a_checkpoint_ends_the_work(run):
    calls = []

    def third():
        calls.append(1)
        if len(calls) == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(third)
    assert len(calls) == 3


@pytest.mark.parametrize("blocks", [0, 1, 3, 15, -2, MAX_BLOCKS + 2])
def test_blocks_that_cannot_be_halved_are_refused(blocks):
    with pytest.raises(ValueError, match=f"blocks is {blocks}: an even number from 2 to 20"):
        cscv(noise(100, 3), blocks)


@pytest.mark.parametrize(("rows", "blocks"), [(7, 8), (0, 8), (3, 2), (2, 2)])
def test_too_few_rows_for_the_blocks_are_refused(rows, blocks):
    with pytest.raises(ValueError, match=f"{rows} rows are too few for {blocks} blocks"):
        cscv(noise(rows, 3), blocks)


@pytest.mark.parametrize("shape", [(100, 1), (100, 0), (100,), (10, 10, 2)])
def test_what_is_no_matrix_of_two_sets_is_refused(shape):
    with pytest.raises(ValueError, match="2 or more columns"):
        cscv(np.zeros(shape), 8)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e200])
def test_profits_that_are_no_numbers_to_work_with_are_refused(value):
    profits = noise(100, 4)
    profits[7, 2] = value
    with pytest.raises(ValueError, match="column 2 holds NaN, infinity"):
        cscv(profits, 8)


# The spread.


def test_the_spread_holds_all_rows_at_each_block_count_and_the_halves():
    profits = noise(500, 10)
    found = pbo_spread(profits, block_counts=(8, 12), halves=5, seed=3)
    assert [(cut.blocks, cut.seed) for cut in found.cuts] == [(8, 0), (12, 0), (8, 4), (8, 5), (8, 6), (8, 7), (8, 8)]
    assert [cut.pbo for cut in found.cuts[:2]] == [cscv(profits, 8).pbo, cscv(profits, 12).pbo]
    assert found.main.blocks == 12
    assert len({cut.pbo for cut in found.cuts[2:]}) > 1
    assert found.low <= min(cut.pbo for cut in found.cuts[:2]) <= max(cut.pbo for cut in found.cuts[:2]) <= found.high


def test_a_half_keeps_half_of_the_days_in_their_order_and_none_twice(monkeypatch):
    from daemon.engine import overfitting

    seen, whole = [], overfitting.cscv
    monkeypatch.setattr(overfitting, "cscv", lambda rows, *args, **kw: seen.append(rows) or whole(rows, *args, **kw))
    days = np.arange(325.0)
    pbo_spread(np.column_stack([days, -days]), block_counts=(8,), halves=3)
    assert len(seen) == 4
    for half in seen[1:]:
        assert half.shape == (160, 2)
        assert (np.diff(half[:, 0]) > 0).all()
        pieces = half[:, 0].reshape(16, 10)
        assert (np.diff(pieces, axis=1) == 1).all()
        assert (pieces[:, 0] % 10 == 5).all()


def test_the_spread_is_the_same_for_the_same_seed_whatever_the_threads():
    one, same, other = (
        pbo_spread(noise(300, 8), halves=4, seed=seed, threads=threads) for seed, threads in ((1, 1), (1, 2), (9, 1))
    )
    assert one.cuts == same.cuts
    assert [cut.pbo for cut in one.cuts[3:]] != [cut.pbo for cut in other.cuts[3:]]


def test_the_spread_of_one_sweep_is_as_wide_as_that_of_many():
    many = [pbo_spread(noise(400, 30, seed), block_counts=(8,), halves=20) for seed in range(60)]
    across = np.std([each.main.pbo for each in many])
    within = np.mean([np.std([cut.pbo for cut in each.cuts[1:]]) for each in many])
    assert within == pytest.approx(across, rel=0.25)
    covered = np.mean([each.low <= 0.48 <= each.high for each in many])
    assert covered > 0.85


def test_a_sweep_that_is_no_overfitting_has_no_spread():
    found = pbo_spread(dominating())
    assert (found.low, found.high) == (0, 0)


def test_block_counts_that_the_rows_do_not_fill_are_left_out():
    assert [cut.blocks for cut in pbo_spread(noise(50, 3), halves=0).cuts] == [8, 12]


def test_rows_that_fill_no_block_count_are_refused():
    with pytest.raises(ValueError, match=r"31 rows: they do not fill any of \[8, 12, 16\] blocks with 4 rows each"):
        pbo_spread(noise(31, 3))


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"halves": -1}])
def test_a_seed_or_a_count_below_0_is_refused(wrong):
    with pytest.raises(ValueError, match="0 or more each"):
        pbo_spread(noise(50, 3), **wrong)


# Work in pieces.


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 1_000])
@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_cover_all_work_in_order(size, threads):
    pieces = in_chunks(lambda piece: (piece.start, piece.stop), size, threads, nothing)
    assert len(pieces) == min(size, CHUNKS)
    assert [place for piece in pieces for place in range(*piece)] == list(range(size))
    assert all(one[1] == other[0] for one, other in pairwise(pieces))


def test_long_work_may_be_cut_into_more_pieces():
    assert in_chunks(lambda piece: piece.stop - piece.start, 1_000, 2, nothing, pieces=250) == [4] * 250


def test_no_threads_are_refused():
    with pytest.raises(ValueError, match="threads is 0"):
        in_chunks(lambda piece: piece, 10, 0, nothing)
