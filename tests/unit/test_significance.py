import math
import statistics

import numpy as np
import pytest

from daemon.engine.significance import (
    Moments,
    adjusted_p,
    deflated_sharpe,
    deflated_threshold,
    expected_maximum,
    false_discovery,
    family_threshold,
    minimum_backtest_bound,
    minimum_backtest_years,
    minimum_track_record,
    moments,
    normal_scores,
    probabilistic_sharpe,
    upper_tail,
)

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


# One Sharpe ratio. The published cases are of daily returns, 250 days a year, unless they say otherwise.

FUND = Moments(sharpe=0.458, skew=-2.448, kurtosis=10.164, observations=24)
STRATEGY = Moments(sharpe=2.5 / math.sqrt(250), skew=-3.0, kurtosis=10.0, observations=1_250)
NO_SKEW = STRATEGY._replace(skew=0.0, kurtosis=3.0)
VARIANCE = 0.5 / 250


def exactly(quantity, digits):
    return pytest.approx(quantity, abs=0.5 * 10**-digits)


def upper_quantile_by_halving(chance):
    """Where erfc, which keeps its digits in the tail, gives the chance."""
    low, high = 0.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(middle / math.sqrt(2)) / 2 > chance else (low, middle)
    return low


def simulated_returns(size, seed=1):
    return np.random.default_rng(seed).normal(0.001, 0.01, size)


def test_the_published_threshold_of_100_trials():
    assert deflated_threshold(100, VARIANCE) == exactly(0.1132, 4)


@pytest.mark.parametrize(
    ("measured", "trials", "published"),
    [(STRATEGY, 100, 0.9004), (STRATEGY, 46, 0.9505), (NO_SKEW, 88, 0.9505)],
    ids=["100 trials", "46 trials", "88 trials of normal returns"],
)
def test_deflated_sharpe_equals_the_published_values(measured, trials, published):
    assert deflated_sharpe(measured, trials, VARIANCE) == exactly(published, 4)


@pytest.mark.parametrize(
    ("measured", "published"),
    [(FUND._replace(skew=0.0, kurtosis=3.0), 0.982), (FUND, 0.913)],
    ids=["as if normal", "hedge fund"],
)
def test_probabilistic_sharpe_equals_the_published_values(measured, published):
    assert probabilistic_sharpe(measured) == exactly(published, 3)


def test_the_excess_kurtosis_would_flatter_the_hedge_fund():
    mistaken = probabilistic_sharpe(FUND._replace(kurtosis=FUND.kurtosis - 3))
    assert mistaken == exactly(0.920, 3)
    assert probabilistic_sharpe(FUND) < mistaken - 0.005


@pytest.mark.parametrize(
    ("periods", "published"), [(252, 2.73), (52, 2.83), (12, 3.24)], ids=["daily", "weekly", "monthly"]
)
def test_minimum_track_record_equals_the_published_years(periods, published):
    measured = Moments(sharpe=2 / math.sqrt(periods), skew=0.0, kurtosis=3.0, observations=100)
    assert minimum_track_record(measured, 1 / math.sqrt(periods), 0.95) / periods == exactly(published, 2)


def test_five_years_allow_45_tries_for_a_sharpe_of_1():
    assert minimum_backtest_years(45, 1.0) == exactly(4.998, 3)
    assert minimum_backtest_bound(45, 1.0) == exactly(7.61, 2)


def test_a_gaussian_sample_has_a_kurtosis_of_3_and_so_it_enters():
    returns = simulated_returns(100_000)
    measured = moments(returns)
    assert measured.kurtosis == pytest.approx(3, abs=0.05)
    assert measured.skew == pytest.approx(0, abs=0.03)
    assert measured.observations == 100_000
    # Lo (2002): the error of a normal sample's Sharpe ratio is sqrt((1 + sharpe^2 / 2) / n). With a sharpe of 1, an
    # excess kurtosis in place of 3 would leave 0.75 of 1.5.
    shifted = moments(returns + 0.009)
    benchmark = shifted.sharpe - 2 * math.sqrt((1 + shifted.sharpe**2 / 2) / shifted.observations)
    assert probabilistic_sharpe(shifted, benchmark) == pytest.approx(0.97725, abs=0.001)


def test_moments_are_those_of_their_definitions():
    values = [0.01, -0.02, 0.03, 0.0, 0.05]
    mean = statistics.fmean(values)
    second, third, fourth = (statistics.fmean((value - mean) ** power for value in values) for power in (2, 3, 4))
    assert moments(np.array(values)) == pytest.approx(
        (mean / statistics.stdev(values), third / second**1.5, fourth / second**2, 5), rel=1e-12
    )


def test_unknown_returns_are_left_out_of_moments():
    known = simulated_returns(50)
    holes = np.insert(known, [0, 20, 50], math.nan)
    assert moments(holes) == moments(known)


@pytest.mark.parametrize(
    "returns",
    [[], [0.01], [math.nan] * 9, [0.01, math.nan], [0.01] * 9, [0.0] * 9, [0.1 + 0.2, 0.3]],
    ids=["none", "one", "all unknown", "one known", "all wins of one size", "all zero", "rounding alone"],
)
def test_returns_without_deviation_have_no_moments(returns):
    assert moments(np.array(returns)) is None


def test_all_wins_of_several_sizes_are_judged():
    measured = moments(np.array([0.01, 0.02, 0.01, 0.03, 0.02]))
    assert probabilistic_sharpe(measured) > 0.99
    assert minimum_track_record(measured) < 5


def test_two_values_that_leave_no_variance_have_no_probability():
    # Of a sample's two values the variance is (1 - skew x sharpe / 2)^2: zero where the product is 2.
    nothing_left = Moments(sharpe=2.0, skew=1.0, kurtosis=2.0, observations=100)
    assert probabilistic_sharpe(nothing_left) is None
    assert deflated_sharpe(nothing_left, 10, 0.1) is None
    assert minimum_track_record(nothing_left) is None


@pytest.mark.parametrize("measured", [FUND._replace(skew=9.0), FUND._replace(observations=1)])
def test_impossible_moments_have_no_probability(measured):
    assert probabilistic_sharpe(measured) is None


@pytest.mark.parametrize("benchmark", [0.458, 0.5, math.inf])
def test_no_record_is_long_enough_for_a_benchmark_that_is_not_exceeded(benchmark):
    assert minimum_track_record(FUND, benchmark) is None


def test_a_record_of_the_minimum_length_has_just_that_confidence():
    needed = minimum_track_record(FUND, 0.1, 0.99)
    assert probabilistic_sharpe(FUND._replace(observations=needed), 0.1) == pytest.approx(0.99, rel=1e-12)


@pytest.mark.parametrize("confidence", [0.4, 1.0, math.nan])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence is"):
        minimum_track_record(FUND, 0.0, confidence)


@pytest.mark.parametrize("variance", [-0.1, math.inf, math.nan])
def test_a_variance_that_is_none_is_refused(variance):
    with pytest.raises(ValueError, match="variance_of_trials is"):
        deflated_sharpe(FUND, 10, variance)


def test_probability_keeps_its_digits_far_out():
    # Mills: the tail beyond z is the density there over z, times 1 - 1/z^2 + 3/z^4 - 15/z^6.
    hopeless = Moments(sharpe=-0.3, skew=0.0, kurtosis=1.0, observations=10_001)
    z = 30.0
    tail = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / z * (1 - z**-2 + 3 * z**-4 - 15 * z**-6)
    assert probabilistic_sharpe(hopeless) == pytest.approx(tail, rel=1e-8)


def test_one_trial_deflates_nothing():
    assert deflated_sharpe(FUND, 1, 0.3) == probabilistic_sharpe(FUND)


@pytest.mark.parametrize("trials", [10**7, 10**9, 10**12])
def test_ten_million_trials_and_more_lose_no_digits(trials):
    gamma = 0.5772156649015329
    first, second = upper_quantile_by_halving(1 / trials), upper_quantile_by_halving(1 / (trials * math.e))
    expected = (1 - gamma) * first + gamma * second
    assert expected_maximum(trials) == pytest.approx(expected, rel=1e-13)
    assert 0 < deflated_sharpe(STRATEGY, trials, VARIANCE) < deflated_sharpe(STRATEGY, 100, VARIANCE)
    assert minimum_backtest_years(trials, 1.0) == pytest.approx(expected**2, rel=1e-12)
    assert minimum_backtest_years(trials, 1.0) < minimum_backtest_bound(trials, 1.0)


@pytest.mark.parametrize("target", [0.0, -1.0])
def test_no_backtest_is_long_enough_for_a_target_that_luck_always_shows(target):
    assert minimum_backtest_years(45, target) is None
    assert minimum_backtest_bound(45, target) is None


# Many results at once.


def test_one_try_is_not_corrected():
    assert adjusted_p(np.array([1.6448536269514722]), 1) == pytest.approx([0.05], rel=1e-12)


def test_step_down_is_holms_with_sidaks_bound():
    p = [0.001, 0.2, 0.01, 0.04]
    z = np.array([upper_quantile_by_halving(one) for one in p])
    # Of 6 tries, ordered: 1 - (1 - 0.001)^6, 1 - (1 - 0.01)^5, 1 - (1 - 0.04)^4, 1 - (1 - 0.2)^3.
    expected = [1 - 0.999**6, 1 - 0.8**3, 1 - 0.99**5, 1 - 0.96**4]
    assert adjusted_p(z, 6) == pytest.approx(expected, rel=1e-12)


def test_the_first_step_is_the_family_threshold():
    z = np.array([family_threshold(400), 0.0])
    assert adjusted_p(z, 400)[0] == pytest.approx(0.05, rel=1e-10)


def test_false_discovery_is_that_of_the_paper():
    # Benjamini and Hochberg (1995), section 3.2: 15 p-values, of which four are rejected at 0.05.
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1,
    ]
    shares = false_discovery(np.array(p, dtype=np.float64), 15)
    assert np.count_nonzero(shares <= 0.05) == 4
    assert shares[:3] == pytest.approx([0.0015, 0.0030, 0.0095], rel=1e-12)


def test_false_discovery_steps_up():
    assert false_discovery(np.array([0.04, 0.03, 0.5]), 3) == pytest.approx([0.06, 0.06, 0.5], rel=1e-12)


@pytest.mark.parametrize("corrected", [adjusted_p, lambda z, tried: false_discovery(upper_tail(z), tried)])
def test_corrected_values_are_monotone_within_0_and_1_and_leave_gaps(corrected):
    z = np.random.default_rng(8).normal(0, 2, 500)
    z[::7] = math.nan
    z[3] = z[10] = 2.5
    z[4], z[5] = math.inf, -math.inf
    adjusted = corrected(z, 600)
    assert (np.isnan(adjusted) == np.isnan(z)).all()
    known = np.flatnonzero(~np.isnan(z))
    falling = known[np.argsort(-z[known], kind="stable")]
    assert (np.diff(adjusted[falling]) >= 0).all()
    assert (adjusted[known] >= upper_tail(z[known])).all()
    assert adjusted[known].max() <= 1
    assert adjusted[3] == adjusted[10]
    assert adjusted[4] == 0
    assert (corrected(z, 601)[known] >= adjusted[known]).all()
    shuffled = np.random.default_rng(9).permutation(z.size)
    assert np.array_equal(corrected(z[shuffled], 600), adjusted[shuffled], equal_nan=True)


def test_ten_million_tries_lose_no_digits():
    z = np.array([12.0])
    assert adjusted_p(z, 10**7) == pytest.approx(1e7 * upper_tail(z), rel=1e-12)
    assert upper_tail(z) == pytest.approx([1.776482112077679e-33], rel=1e-12)


@pytest.mark.parametrize("corrected", [adjusted_p, false_discovery])
def test_nothing_ranked_is_nothing_corrected(corrected):
    assert corrected(np.empty(0), 0).size == 0
    assert np.isnan(corrected(np.array([math.nan]), 0)).all()


@pytest.mark.parametrize("corrected", [adjusted_p, false_discovery])
def test_more_ranked_than_tried_is_refused(corrected):
    with pytest.raises(ValueError, match="tried is 1, but 2 rows are ranked"):
        corrected(np.array([0.5, 0.5, math.nan]), 1)


@pytest.mark.parametrize("p", [-0.1, 1.1, math.inf])
def test_a_p_that_is_no_chance_is_refused(p):
    with pytest.raises(ValueError, match="outside of 0 to 1"):
        false_discovery(np.array([0.5, p]), 2)


def test_families_without_an_edge_show_a_false_one_as_often_as_the_level_says():
    z = np.random.default_rng(4).standard_normal((2_000, 30))
    shown = np.mean([adjusted_p(family, 30).min() < 0.05 for family in z])
    assert shown == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 2_000))
