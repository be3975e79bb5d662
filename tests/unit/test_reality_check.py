import math

import numpy as np
import pytest
from naive import overfitting as naive

from daemon.engine import resampling
from daemon.engine.reality_check import LEAST_ROWS, mean_errors, reality_check


class StoppedError(Exception):
    """Raised by a checkpoint."""


def noise(rows, columns, seed=1, mean=0.0):
    return np.random.default_rng(seed).normal(mean, 0.01, (rows, columns))


def correlated(rows, columns, seed):
    """Columns that share half of their variance, as parameter sets of one strategy do."""
    return (noise(rows, columns, seed) + noise(rows, 1, seed + 10_000)) / math.sqrt(2)


def test_the_best_of_noise_looks_as_good_as_often_as_the_level_says():
    found = [reality_check(correlated(120, 15, seed), draws=199, block=1.0, seed=seed) for seed in range(300)]
    for p in (np.array([each.spa_p for each in found]), np.array([each.white_p for each in found])):
        assert np.mean(p <= 0.1) == pytest.approx(0.1, abs=4 * math.sqrt(0.1 * 0.9 / 300))
        assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 300))


def test_dependence_is_kept_by_blocks_and_lost_without():
    shocks = np.random.default_rng(5).normal(size=(150, 400, 5))
    for i in range(1, 400):
        shocks[:, i] += 0.5 * shocks[:, i - 1]
    sizes = [np.mean([reality_check(each, draws=99, block=block).spa_p <= 0.1 for each in shocks]) for block in (1, 20)]
    assert sizes[0] > 0.25
    assert sizes[1] < 0.2


def test_one_planted_edge_is_found_and_named():
    found = []
    for seed in range(50):
        returns = correlated(250, 40, seed)
        returns[:, 7] += 0.004
        found.append(reality_check(returns, draws=199, block=2.0))
    assert np.mean([each.spa_p <= 0.05 for each in found]) > 0.9
    assert np.mean([each.best == 7 for each in found]) > 0.9


def test_hopeless_columns_weaken_whites_test_and_not_hansens():
    returns = noise(250, 5, 3)
    returns[:, 0] += 0.002
    hopeless = np.random.default_rng(4).normal(-0.05, 0.05, (250, 40))
    few = reality_check(returns, block=1.0)
    many = reality_check(np.column_stack([returns, hopeless]), block=1.0)
    assert few.spa_p < 0.05
    assert many.spa_p < 0.05
    assert many.white_p > 0.5


@pytest.mark.parametrize("seed", [0, 5, 2**40])
@pytest.mark.parametrize(("rows", "block"), [(10, 1.0), (17, 17.0), (30, 3.5)])
def test_everything_equals_the_oracles(seed, rows, block):
    returns = noise(rows, 4, rows)
    returns[:, 2] -= 0.02
    found = reality_check(returns, draws=60, block=block, seed=seed)
    spa, white, statistic = naive.reality_check(returns.T.tolist(), 60, block, seed)
    assert (found.spa_p, found.white_p) == (spa, white)
    assert found.statistic == pytest.approx(statistic, rel=1e-9)


@pytest.mark.parametrize(("rows", "block"), [(10, 1.0), (11, 11.0), (60, 4.0), (60, 50.0)])
def test_errors_are_those_of_the_lemma(rows, block):
    returns = noise(rows, 3, rows)
    errors = mean_errors(returns - returns.mean(axis=0), 1 / block)
    expected = [naive.bootstrap_error(column, 1 / block) for column in returns.T.tolist()]
    assert errors == pytest.approx(expected, rel=1e-9)


def test_errors_are_those_of_the_bootstrap_itself():
    returns = noise(200, 1)
    means = resampling.bootstrap_means(returns[:, 0], 20_000, 5.0, seed=2)
    errors = mean_errors(returns - returns.mean(axis=0), 1 / 5)
    assert errors[0] == pytest.approx(means.std(), rel=0.03)


def test_threads_change_nothing_and_seeds_do():
    returns = noise(100, 6)
    one, same, other = (
        reality_check(returns, block=3.0, seed=seed, threads=threads) for seed, threads in ((1, 1), (1, 3), (2, 1))
    )
    assert one == same
    assert one.spa_p != other.spa_p


def test_a_best_column_that_loses_is_no_discovery():
    found = reality_check(noise(100, 5, mean=-0.01), block=1.0)
    assert (found.spa_p, found.statistic) == (1, 0)
    assert found.white_p > 0.9


def test_all_wins_are_as_sure_as_the_draws_allow():
    found = reality_check(0.001 + np.abs(noise(100, 3)), draws=99, block=1.0)
    assert (found.spa_p, found.white_p) == (0.01, 0.01)


def test_columns_without_deviation_are_left_out():
    returns = np.column_stack([np.zeros(60), noise(60, 2), np.full(60, 0.1)])
    found, alone = reality_check(returns, block=2.0), reality_check(returns[:, 1:3], block=2.0)
    assert found == alone._replace(best=alone.best + 1)
    assert found.columns == 2


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_nothing_that_moves_is_nothing_to_test(value):
    assert reality_check(np.full((50, 3), value)) is None


def test_days_unknown_for_any_column_are_left_out():
    returns = noise(80, 4)
    holes = returns.copy()
    holes[[0, 30, 79], [1, 2, 3]] = math.nan
    found = reality_check(holes, block=2.0)
    assert found == reality_check(np.delete(returns, [0, 30, 79], axis=0), block=2.0)
    assert found.rows == 77


def test_the_blocks_are_those_of_the_best_column_if_none_are_given():
    returns = noise(300, 3)
    returns[:, 1] = 0.05 + np.convolve(noise(309, 1)[:, 0], np.ones(10), "valid")
    found = reality_check(returns)
    assert found.block == resampling.block_length(returns[:, 1])
    assert found.block > 3


def test_a_checkpoint_ends_the_work():
    calls = []

    def second():
        calls.append(1)
        if len(calls) == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        reality_check(noise(50, 3), checkpoint=second)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("returns", "options", "words"),
    [
        (noise(LEAST_ROWS - 1, 3), {}, "9 rows are known in all columns: 10 or more"),
        (np.full((50, 3), math.nan), {}, "0 rows are known"),
        (np.full((50, 3), math.inf), {}, "column 0 holds NaN, infinity"),
        (noise(50, 0), {}, "1 or more columns"),
        (np.zeros(50), {}, "1 or more columns"),
        (noise(50, 2), {"draws": 0}, "draws is 0"),
        (noise(50, 2), {"seed": -1}, "seed is -1"),
        (noise(50, 2), {"block": 0.5}, "block is 0.5: from 1 to the 50 rows"),
        (noise(50, 2), {"block": 51.0}, "block is 51.0"),
        (noise(50, 2), {"block": math.nan}, "block is nan"),
    ],
)
def test_what_cannot_be_tested_is_refused(returns, options, words):
    with pytest.raises(ValueError, match=words):
        reality_check(returns, **options)
