import math

import numpy as np
import pytest

from daemon.engine.validation import expected_maximum, family_threshold, normal_scores

# Upper quantiles of Student's t as statistical tables print them: (degrees, t, chance), and the normal's.
STUDENT = [(9, 1.833, 0.05), (9, 3.250, 0.005), (9, 4.781, 0.0005), (30, 2.042, 0.025), (30, 3.646, 0.0005)]
NORMAL = {0.05: 1.645, 0.025: 1.960, 0.005: 2.576, 0.0005: 3.291}


@pytest.mark.parametrize(("trials", "published"), [(10, 1.574598), (45, 2.235640), (100, 2.530603), (1000, 3.255122)])
def test_expected_maximum_equals_the_published_values(trials, published):
    assert expected_maximum(trials) == pytest.approx(published, abs=5e-7)


def test_a_single_trial_expects_nothing():
    assert expected_maximum(1) == 0.0


@pytest.mark.parametrize("trials", [5, 50, 500])
def test_expected_maximum_is_close_to_simulated_maxima(trials):
    maxima = np.random.default_rng(3).standard_normal((20_000, trials)).max(axis=1)
    assert expected_maximum(trials) == pytest.approx(maxima.mean(), abs=0.06)


def test_expected_maximum_grows_with_the_trials():
    values = [expected_maximum(trials) for trials in (1, 2, 3, 10, 10**3, 10**6, 10**12)]
    assert values == sorted(values)
    assert math.isfinite(values[-1])


@pytest.mark.parametrize(("trials", "level", "z"), [(1, 0.05, 1.644854), (1, 0.025, 1.959964), (1, 0.5, 0.0)])
def test_threshold_of_one_trial_is_the_normal_quantile(trials, level, z):
    assert family_threshold(trials, level) == pytest.approx(z, abs=1e-6)


def test_threshold_is_sidaks_and_not_bonferronis():
    # 1 - (1 - 0.05) ** (1 / 10) = 0.005116197, its upper normal quantile 2.567875.
    assert family_threshold(10) == pytest.approx(2.567875, abs=1e-6)


@pytest.mark.parametrize("trials", [1, 20, 400])
def test_some_null_trial_passes_the_threshold_as_often_as_the_level_says(trials):
    maxima = np.random.default_rng(5).standard_normal((20_000, trials)).max(axis=1)
    passed = np.mean(maxima > family_threshold(trials, 0.05))
    assert passed == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 20_000))


def test_threshold_keeps_its_digits_for_very_many_trials():
    # The naive 1 - (1 - level) ** (1 / trials) is 0 here.
    assert 9 < family_threshold(10**18) < 10


@pytest.mark.parametrize("function", [expected_maximum, family_threshold])
@pytest.mark.parametrize("trials", [0, -1])
def test_fewer_than_one_trial_is_refused(function, trials):
    with pytest.raises(ValueError, match="trials is"):
        function(trials)


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, math.nan])
def test_a_level_that_is_no_chance_is_refused(level):
    with pytest.raises(ValueError, match="level is"):
        family_threshold(10, level)


@pytest.mark.parametrize(("degrees", "t", "chance"), STUDENT)
def test_normal_scores_turn_students_quantiles_into_the_normals(degrees, t, chance):
    score = normal_scores(np.array([t]), np.array([degrees]))[0]
    assert score == pytest.approx(NORMAL[chance], abs=0.009)


def test_normal_scores_are_odd_and_approach_t_for_many_trades():
    t = np.array([-4.0, -1.0, 0.0, 1.0, 4.0])
    assert (normal_scores(t, np.full(5, 12)) == -normal_scores(t, np.full(5, 12))[::-1]).all()
    assert np.allclose(normal_scores(t, np.full(5, 10**7)), t, atol=1e-5)


def test_normal_scores_of_no_t_is_no_score():
    assert np.isnan(normal_scores(np.array([math.nan]), np.array([9]))).all()


def test_few_null_trades_pass_a_bar_as_seldom_as_the_normal_only_on_the_normal_scale():
    trades = np.random.default_rng(11).standard_normal((200_000, 10))
    t = trades.mean(axis=1) / (trades.std(axis=1, ddof=1) / math.sqrt(10))
    scores = normal_scores(t, np.full(t.size, 9))
    expected = 0.00135  # beyond 3 standard deviations
    assert np.mean(t > 3) > 4 * expected
    assert np.mean(scores > 3) == pytest.approx(expected, abs=4 * math.sqrt(expected / t.size))
