"""Slippage models against published figures, and what holds of each."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.backtest import Almgren2005, Costs, FixedBps, NoSlippage, SquareRoot, VolumeWeighted
from daemon.engine.costs import almgren_2005, fifth_root, impact, record_of

BPS = 1e4
MINUTE = 1 / 1_440
MODELS = [NoSlippage(), FixedBps(), VolumeWeighted(), SquareRoot(), Almgren2005()]


def of(slippage, bar_days=MINUTE, **fields):
    return record_of(Costs(maker_rate=0.0, taker_rate=0.0, slippage=slippage, **fields), bar_days)


def impact_of(slippage, quantity, *, volume=math.nan, sigma=math.nan, day_volume=math.nan, bar_days=MINUTE):
    return impact(of(slippage, bar_days), float(quantity), float(volume), float(sigma), float(day_volume))


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


@pytest.mark.parametrize("model", [SquareRoot(), Almgren2005()], ids=["square_root", "almgren_2005"])
@pytest.mark.parametrize("sigma", [math.nan, 0.0])
def test_without_a_volatility_yet_there_is_no_impact(model, sigma):
    assert impact_of(model, 10, sigma=sigma, day_volume=1_000) == 0


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_a_larger_order_never_costs_less(model):
    sizes = np.geomspace(1e-9, 1e6, 500)
    costs = [impact_of(model, size, volume=1_000, sigma=0.02, day_volume=50_000) for size in sizes]
    assert min(costs) >= 0
    assert (np.diff(costs) >= 0).all()


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
