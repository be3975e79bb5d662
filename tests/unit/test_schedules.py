import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import schedules as naive

from daemon.engine.schedules import kyle_equilibrium, schedule

# The example of Almgren and Chriss (2000): a million shares of 50 dollars over five days.
IMPACT = {"volatility": 0.95, "half_spread": 0.0625, "permanent": 2.5e-7, "temporary": 2.5e-6}
AVERSIONS = [0.0, 1e-9, 5e-9, 9e-9, 1e-7, 1e-6, 2e-6, 1e-4, 1.0]


def published(risk_aversion, **others):
    return schedule(**{"shares": 1e6, "days": 5, "intervals": 5, **IMPACT, "risk_aversion": risk_aversion} | others)


@pytest.mark.parametrize(
    ("risk_aversion", "kappa", "half_life", "cost", "deviation", "trades"),
    [
        (1e-7, 0.1946, 5.138, 670_057, 961_623, [242_118, 213_318, 192_625, 179_251, 172_689]),
        # The table cuts kappa off: 0.60708.
        (1e-6, 0.6071, 1.647, 911_227, 603_431, [458_044, 252_101, 141_957, 85_756, 62_142]),
        (2e-6, 0.8463, 1.182, 1_140_715, 449_368, [571_401, 245_666, 106_637, 48_652, 27_643]),
    ],
)
def test_the_papers_example_has_its_published_numbers(risk_aversion, kappa, half_life, cost, deviation, trades):
    found = published(risk_aversion)
    assert round(found.kappa, 4) == kappa
    assert round(found.half_life_days, 3) == half_life
    assert (round(found.expected_cost), round(found.deviation)) == (cost, deviation)
    assert np.round(found.trades).tolist() == trades


@pytest.mark.parametrize(
    ("risk_aversion", "half_life", "cost_millions", "variance"),
    [(1e-9, 51.30, 0.6625, 1.0812e12), (5e-9, 22.94, 0.6625, 1.0740e12), (9e-9, 17.10, 0.6626, 1.0669e12)],
)
def test_almost_even_schedules_have_drops_numbers(risk_aversion, half_life, cost_millions, variance):
    found = published(risk_aversion)
    assert round(found.half_life_days, 2) == half_life
    assert round(found.expected_cost / 1e6, 4) == cost_millions
    assert round(found.deviation**2 / 1e12, 4) == variance / 1e12


def test_without_risk_aversion_trades_are_even():
    found = published(0)
    assert (found.kappa, found.half_life_days) == (0, math.inf)
    assert found.trades == pytest.approx([200_000] * 5)
    assert (round(found.expected_cost), round(found.deviation)) == (662_500, 1_040_673)


@pytest.mark.parametrize("risk_aversion", [math.inf, 1e12, 1e300])
def test_with_enough_risk_aversion_everything_is_traded_at_once(risk_aversion):
    found = published(risk_aversion)
    assert found.trades == pytest.approx([1e6, 0, 0, 0, 0], abs=1e-6)
    assert round(found.expected_cost) == 2_562_500
    assert found.deviation == pytest.approx(0, abs=1)


def test_one_interval_leaves_nothing_to_choose():
    found = published(1e-6, days=1, intervals=1)
    assert found.holdings.tolist() == [1e6, 0]
    assert (round(found.expected_cost), found.deviation) == (2_562_500, 0)


@pytest.mark.parametrize("risk_aversion", AVERSIONS[1:])
def test_trades_are_positive_and_ever_smaller(risk_aversion):
    trades = published(risk_aversion, intervals=50).trades
    assert (trades > 0).all()
    assert (np.diff(trades) < 0).all()


def test_more_risk_aversion_costs_more_and_risks_less():
    found = [published(risk_aversion) for risk_aversion in AVERSIONS]
    costs, deviations = [each.expected_cost for each in found], [each.deviation for each in found]
    assert costs == sorted(costs)
    assert deviations == sorted(deviations, reverse=True)
    assert len(set(costs)) == len(set(deviations)) == len(AVERSIONS)


def test_urgency_of_short_intervals_is_the_limit_of_continuous_trading():
    limit = math.sqrt(1e-6 * IMPACT["volatility"] ** 2 / IMPACT["temporary"])
    errors = [abs(published(1e-6, intervals=5 * 10**power).kappa - limit) for power in range(5)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-5


@given(
    st.floats(1, 1e9),
    st.floats(0.01, 30),
    st.integers(1, 40),
    st.floats(1e-3, 10),
    st.floats(0, 1e-7),
    st.sampled_from(AVERSIONS),
)
def test_a_schedule_is_that_of_the_hyperbolic_sines(shares, days, intervals, volatility, permanent, risk_aversion):
    impact = IMPACT | {"volatility": volatility, "permanent": permanent}
    found = schedule(shares, days=days, intervals=intervals, **impact, risk_aversion=risk_aversion)
    if found.kappa * days > 700:
        return  # the sines overflow
    path = naive.holdings(shares, days, intervals, found.kappa)
    cost, variance = naive.cost_and_variance(path, days, **impact)
    assert found.holdings == pytest.approx(path, rel=1e-7, abs=1e-9 * shares)
    assert found.trades == pytest.approx(-np.diff(path), rel=1e-7, abs=1e-7 * shares)
    assert found.trades.sum() == pytest.approx(shares)
    assert found.expected_cost == pytest.approx(cost, rel=1e-6)
    assert found.deviation == pytest.approx(math.sqrt(variance), rel=1e-6, abs=1e-9 * shares * volatility)


def test_no_other_path_has_a_better_balance_of_cost_and_risk():
    generator = np.random.default_rng(2)

    def balance(path):
        cost, variance = naive.cost_and_variance(path, 5, **IMPACT)
        return cost + 1e-6 * variance

    best = published(1e-6)
    least = balance(best.holdings)
    assert least == pytest.approx(best.expected_cost + 1e-6 * best.deviation**2)
    for size in (1.0, 100.0, 1e4):
        for _ in range(50):
            moved = best.holdings.copy()
            moved[1:-1] += generator.normal(0, size, 4)
            assert balance(moved) > least


def test_many_intervals_keep_their_sum():
    found = published(1e-6, intervals=100_000)
    assert found.trades.sum() == pytest.approx(1e6, rel=1e-12)
    assert (found.holdings[0], found.holdings[-1]) == (1e6, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shares", 0),
        ("shares", -1),
        ("days", 0),
        ("days", math.inf),
        ("intervals", 0),
        ("volatility", 0),
        ("volatility", math.nan),
        ("half_spread", -0.1),
        ("permanent", -1e-7),
        ("temporary", 0),
        ("risk_aversion", -1e-9),
        ("risk_aversion", math.nan),
    ],
)
def test_numbers_without_a_meaning_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} is"):
        published(**{"risk_aversion": 1e-6, field: value})


def test_a_permanent_impact_that_makes_haste_free_is_refused_with_a_remedy():
    with pytest.raises(ValueError, match="take more intervals"):
        published(1e-6, permanent=6e-6)


def test_kyles_equilibrium_has_its_published_numbers():
    assert kyle_equilibrium(4, 100) == (0.01, 50, 2, 100)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_kyles_insider_and_market_maker_have_no_reason_to_change(variance, noise):
    found = kyle_equilibrium(variance, noise)
    # The insider maximises (v - lambda x) x, the market maker regresses the value on the flow.
    assert found.intensity == pytest.approx(1 / (2 * found.impact))
    flow_variance = found.intensity**2 * variance + noise**2
    assert found.impact == pytest.approx(found.intensity * variance / flow_variance)
    assert found.posterior_variance == pytest.approx(variance - found.impact * found.intensity * variance)
    assert found.insider_profit == pytest.approx(found.impact * noise**2)


@pytest.mark.parametrize(("variance", "noise"), [(0, 1), (-1, 1), (math.nan, 1), (1, 0), (1, -1), (1, math.inf)])
def test_an_auction_without_a_secret_or_without_noise_is_refused(variance, noise):
    with pytest.raises(ValueError, match="a finite number above 0"):
        kyle_equilibrium(variance, noise)
