"""Slippage models against published figures, and what holds of each."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive.simulate import liquidation

from daemon.core.backtest import (
    Almgren2005,
    AlmgrenChriss,
    Costs,
    FixedBps,
    Kyle,
    NoSlippage,
    SquareRoot,
    VolumeWeighted,
)
from daemon.engine.costs import almgren_2005, almgren_chriss, fifth_root, impact, optimal_shares, record_of

BPS = 1e4
MINUTE = 1 / 1_440
MODELS = [NoSlippage(), FixedBps(), VolumeWeighted(), SquareRoot(), Almgren2005(), AlmgrenChriss(), Kyle()]


def of(slippage, bar_days=MINUTE, **fields):
    return record_of(Costs(maker_rate=0.0, taker_rate=0.0, **fields), [slippage], bar_days)


def impact_of(slippage, quantity, *, volume=math.nan, sigma=math.nan, day_volume=math.nan, bar_days=MINUTE):
    return impact(of(slippage, bar_days)[0], float(quantity), float(volume), float(sigma), float(day_volume))


# Almgren, Thum, Hauptmann, Li (2005): a tenth of a day's volume of two shares.

IBM = {"sigma": 0.0157, "turnover_root": (1_728 / 6.561) ** 0.25}
DRI = {"sigma": 0.0226, "turnover_root": (168 / 1.929) ** 0.25}


def almgren(share, days):
    return almgren_2005(share["sigma"], 0.1, share["turnover_root"], days, 0.314, 0.142)


@pytest.mark.parametrize(
    ("share", "of_sigma", "exact_bps", "printed_bps"),
    [(IBM, 0.126, 19.86, 20), (DRI, 0.096, 21.68, 22)],
    ids=["IBM", "DRI"],
)
def test_permanent_impact_is_that_of_the_paper(share, of_sigma, exact_bps, printed_bps):
    permanent, _ = almgren(share, 0.5)
    assert round(permanent / share["sigma"], 3) == of_sigma
    assert round(permanent * BPS, 2) == exact_bps
    assert round(permanent * BPS) == printed_bps


@pytest.mark.parametrize(
    ("days", "of_sigma", "ibm_bps", "dri_bps"), [(0.1, 0.142, 22, 32), (0.2, 0.094, 15, 21), (0.5, 0.054, 8, 12)]
)
def test_temporary_impact_is_that_of_the_paper(days, of_sigma, ibm_bps, dri_bps):
    for share, printed in ((IBM, ibm_bps), (DRI, dri_bps)):
        _, temporary = almgren(share, days)
        assert round(temporary / share["sigma"], 3) == of_sigma
        assert round(temporary * BPS) == printed


@pytest.mark.parametrize(("days", "ibm_bps", "dri_bps"), [(0.1, 32, 43), (0.2, 25, 32), (0.5, 18, 23)])
def test_what_an_order_costs_is_that_of_the_paper(days, ibm_bps, dri_bps):
    for share, theta, printed in ((IBM, 1_728 / 6.561, ibm_bps), (DRI, 168 / 1.929, dri_bps)):
        model = Almgren2005(turnover_days=theta, execution_days=days)
        cost = impact_of(model, 100, sigma=share["sigma"], day_volume=1_000)
        assert round(cost * BPS) == printed


def test_an_order_without_a_time_of_its_own_takes_one_bar():
    given_time = impact_of(Almgren2005(execution_days=0.25), 10, sigma=0.02, day_volume=1_000)
    assert impact_of(Almgren2005(), 10, sigma=0.02, day_volume=1_000, bar_days=0.25) == given_time


# The other models.


def test_the_square_root_law_costs_20_basis_points_for_a_hundredth_of_a_day_at_two_percent():
    assert impact_of(SquareRoot(), 10, sigma=0.02, day_volume=1_000) * BPS == pytest.approx(20, rel=1e-15)


def test_the_square_root_law_grows_with_its_factor_and_the_volatility():
    cost = impact_of(SquareRoot(y=0.5), 10, sigma=0.04, day_volume=1_000)
    assert cost * BPS == pytest.approx(20, rel=1e-15)


def test_volume_weighted_impact_is_the_square_of_the_participation():
    assert impact_of(VolumeWeighted(impact=0.1), 25, volume=1_000) == pytest.approx(0.1 * 0.025**2, rel=1e-15)


def test_fixed_basis_points_are_the_same_for_any_order():
    assert impact_of(FixedBps(bps=7.5), 1) == pytest.approx(0.00075, rel=1e-15)
    assert impact_of(FixedBps(bps=7.5), 1e9, volume=1) == impact_of(FixedBps(bps=7.5), 1)


def test_no_model_costs_nothing():
    assert impact_of(NoSlippage(), 1e9, volume=1) == 0


@pytest.mark.parametrize(
    ("model", "cap", "half_spread_bps"),
    [
        (NoSlippage(), math.inf, 0),
        (FixedBps(), math.inf, 0),
        (VolumeWeighted(), 0.025, 1),
        (SquareRoot(), 0.1, 1),
        (Almgren2005(), 0.1, 1),
        (AlmgrenChriss(), 0.1, 1),
        (Kyle(), 0.1, 1),
        (VolumeWeighted(participation_cap=0.5, half_spread_bps=3), 0.5, 3),
    ],
)
def test_each_model_has_its_cap_and_its_half_spread(model, cap, half_spread_bps):
    record = of(model)
    assert record["participation_cap"][0] == cap
    assert record["half_spread"][0] * BPS == pytest.approx(half_spread_bps)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("volume", [0.0, math.nan, 5.0])
def test_without_a_volume_or_beyond_it_an_order_counts_as_large_as_the_volume(model, volume):
    whole = impact_of(model, 10, volume=10.000001, sigma=0.02, day_volume=10.000001)
    cost = impact_of(model, 10, volume=volume, sigma=0.02, day_volume=volume)
    assert cost == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("model", [SquareRoot(), Almgren2005(), Kyle()], ids=["square_root", "almgren_2005", "kyle"])
@pytest.mark.parametrize("sigma", [math.nan, 0.0])
def test_without_a_volatility_yet_there_is_no_impact(model, sigma):
    assert impact_of(model, 10, sigma=sigma, day_volume=1_000) == 0


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_larger_order_never_costs_less(model):
    sizes = np.geomspace(1e-9, 1e6, 500)
    costs = [impact_of(model, size, volume=1_000, sigma=0.02, day_volume=50_000) for size in sizes]
    assert min(costs) >= 0
    assert (np.diff(costs) >= 0).all()


# Almgren and Chriss (2000): a million shares of 50 at a daily volume of 5 million, in five days.

SHARES, PRICE, DAY_VOLUME = 1_000_000, 50.0, 5_000_000
SHARE_SIGMA, TAU = 0.95 / PRICE, 1.0
PAPER = {"gamma": 2.5e-7 * DAY_VOLUME / PRICE, "eta": 2.5e-6 * DAY_VOLUME / PRICE}
HALF_SPREAD = 0.0625 / PRICE
WORTH = SHARES * PRICE

TABLE = [
    # Risk aversion, mean cost, its deviation, shares a day.
    (0.0, 662_500, 1_040_673, [200_000] * 5),
    (1e-7, 670_057, 961_623, [242_118, 213_318, 192_625, 179_251, 172_689]),
    (1e-6, 911_227, 603_431, [458_044, 252_101, 141_957, 85_756, 62_142]),
    (2e-6, 1_140_715, 449_368, [571_401, 245_666, 106_637, 48_652, 27_643]),
]


def urgency_of(risk_aversion):
    temporary = PAPER["eta"] - PAPER["gamma"] * TAU / 2
    return risk_aversion * PRICE * DAY_VOLUME * SHARE_SIGMA**2 * TAU**2 / temporary


def deviation(shares):
    left = SHARES * (1 - np.cumsum(shares))
    return 0.95 * math.sqrt(TAU * (left**2).sum())


def mean_cost(risk_aversion, slices=5, days=5.0):
    aversion = risk_aversion * PRICE * DAY_VOLUME
    share = SHARES / DAY_VOLUME
    return WORTH * (HALF_SPREAD + almgren_chriss(SHARE_SIGMA, share, *PAPER.values(), days, slices, aversion))


@pytest.mark.parametrize(("risk_aversion", "cost", "spread", "shares"), TABLE)
def test_the_optimal_schedule_is_that_of_the_paper(risk_aversion, cost, spread, shares):
    parts = optimal_shares(5, urgency_of(risk_aversion))
    assert (parts * SHARES).round().tolist() == shares
    assert round(mean_cost(risk_aversion)) == cost
    assert round(deviation(parts)) == spread


@pytest.mark.parametrize(
    ("risk_aversion", "cost", "variance"),
    [(1e-9, 0.6625e6, 1.0812e12), (5e-9, 0.6625e6, 1.074e12), (9e-9, 0.6626e6, 1.0669e12)],
)
def test_a_small_risk_aversion_costs_what_others_compute(risk_aversion, cost, variance):
    assert round(mean_cost(risk_aversion), -2) == cost
    assert deviation(optimal_shares(5, urgency_of(risk_aversion))) ** 2 == pytest.approx(variance, abs=0.5e8)


def test_all_at_once_is_what_an_infinite_risk_aversion_sells():
    # In the paper's first example: nothing is left over, and nothing risked.
    assert optimal_shares(5, math.inf).tolist() == [1, 0, 0, 0, 0]
    assert mean_cost(math.inf) == pytest.approx(2_562_500)


def test_the_papers_convention_gives_the_papers_parameters():
    record = of(AlmgrenChriss(half_spread_bps=HALF_SPREAD * BPS))[0]
    assert (record["first"], record["second"]) == pytest.approx(tuple(PAPER.values()))


def test_an_order_pays_the_mean_cost_of_its_schedule():
    model = AlmgrenChriss(half_spread_bps=HALF_SPREAD * BPS, execution_days=5, risk_aversion=250)
    paid = impact_of(model, SHARES, sigma=SHARE_SIGMA, day_volume=DAY_VOLUME)
    assert round(WORTH * (HALF_SPREAD + paid)) == 911_227


@given(st.integers(1, 60), st.floats(0, 20), st.floats(0.01, 5), st.floats(0, 1e4), st.floats(0.001, 0.2))
def test_schedules_cost_what_their_hyperbolic_sines_do(slices, gamma, days, risk_aversion, sigma):
    model = AlmgrenChriss(gamma=gamma, eta=2.0, slices=slices, execution_days=days, risk_aversion=risk_aversion)
    wanted = liquidation(model, 0.3, sigma, days) if slices * days < 60 else None
    paid = impact_of(model, 300, sigma=sigma, day_volume=1_000)
    assert wanted is None or paid == pytest.approx(wanted, rel=1e-11)


@given(st.integers(1, 1_000), st.floats(0, 1e300))
def test_schedules_sell_everything_and_ever_less(slices, urgency):
    parts = optimal_shares(slices, urgency)
    assert parts.sum() == pytest.approx(1)
    assert (parts >= 0).all()
    assert (np.diff(parts) <= 1e-15).all()


def test_intervals_too_long_for_the_model_pay_the_permanent_half():
    model = AlmgrenChriss(gamma=1.0, eta=0.1, slices=1, execution_days=1)
    assert impact_of(model, 100, sigma=0.02, day_volume=1_000) == pytest.approx(0.05)


# Kyle (1985).


def test_an_order_pays_half_of_how_far_it_moves_the_price():
    # Sigma 2 %, a hundredth of a day: the price moves by 2 bps, or lambda = y sigma price / V for each unit.
    assert impact_of(Kyle(), 1, sigma=0.02, day_volume=100) * BPS == pytest.approx(1)
    price, volume = 50.0, 100
    lambda_ = 3 * 0.02 * price / volume
    assert price * impact_of(Kyle(y=3), 2, sigma=0.02, day_volume=volume) == pytest.approx(lambda_ * 2 / 2)


# Arithmetic.


@given(st.floats(-300, 300))
def test_the_fifth_root_is_that_of_a_power_at_any_magnitude(exponent):
    value = 10.0**exponent
    # The exponent 0.2 of `**` is itself off by 1e-17, which is 1e-14 of a number of 300 places.
    assert fifth_root(value) == pytest.approx(value**0.2, rel=1e-14)


@given(st.floats(1e-300, 1e300))
def test_the_fifth_root_is_right_to_the_last_places(value):
    fifth_power = Fraction(fifth_root(value)) ** 5 / Fraction(value)
    assert abs(fifth_power - 1) <= 5 * Fraction(1, 2**52)


def test_the_fifth_root_of_nothing_is_nothing():
    assert fifth_root(0.0) == 0
    assert fifth_root(1.0) == 1
    assert fifth_root(32.0) == 2
