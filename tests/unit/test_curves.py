from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive import metrics as naive

from daemon.core.market import NS_PER_DAY, NS_PER_HOUR
from daemon.engine.curves import daily_returns, decimate, drawdowns, exposure_percent, monthly_returns

JANUARY = 19_358 * NS_PER_DAY  # 2023-01-01
MONEY = st.floats(-500, 50_000, allow_nan=False).map(lambda value: round(value, 2))
CURVES = st.lists(st.tuples(st.integers(1, 40 * NS_PER_HOUR), MONEY), max_size=60)


def columns(rows):
    """Times ascending from the start of 2023 and equity, as arrays, of (step, equity)."""
    steps, equity = zip(*rows, strict=True) if rows else ((), ())
    return JANUARY + np.cumsum(np.array(steps, dtype=np.int64)), np.array(equity, dtype=float)


def daily(equity, *, step=NS_PER_DAY, initial=100.0):
    times = JANUARY + step * np.arange(1, len(equity) + 1, dtype=np.int64)
    return daily_returns(times, np.array(equity, dtype=float), initial, JANUARY)


def test_a_day_returns_from_the_last_equity_before_it_to_its_own_last():
    hourly = np.linspace(100.0, 148.0, 49)[1:]
    found = daily(hourly, step=NS_PER_HOUR)
    assert found.day_ns.tolist() == [JANUARY, JANUARY + NS_PER_DAY]
    assert found.returns == pytest.approx([0.24, 148 / 124 - 1], rel=1e-15)


def test_bars_that_close_at_midnight_belong_to_the_day_that_ends():
    assert daily([101.0] * 31).day_ns.tolist() == [JANUARY + NS_PER_DAY * day for day in range(31)]


def test_a_sample_at_the_very_start_belongs_to_the_first_day():
    found = daily_returns(np.array([JANUARY, JANUARY + 5]), np.array([100.0, 101.0]), 100.0, JANUARY)
    assert found.day_ns.tolist() == [JANUARY]


def test_days_without_a_sample_are_left_out():
    times = JANUARY + np.array([1, 5]) * NS_PER_DAY
    found = daily_returns(times, np.array([110.0, 121.0]), 100.0, JANUARY)
    assert found.day_ns.tolist() == [JANUARY, JANUARY + 4 * NS_PER_DAY]
    assert found.returns == pytest.approx([0.1, 0.1])


def test_after_the_day_of_ruin_nothing_is_returned_any_more():
    assert daily([110.0, 0.0, 0.0, 50.0]).returns.tolist() == pytest.approx([0.1, -1.0, 0.0, 0.0])
    assert daily([110.0, -11.0, -20.0, 50.0, -3.0]).returns.tolist() == pytest.approx([0.1, -1.1, 0.0, 0.0, 0.0])
    assert daily([-100.0, 100.0]).returns.tolist() == [-2.0, 0.0]


def test_a_curve_without_samples_has_no_returns():
    nothing = np.empty(0, dtype=np.int64), np.empty(0)
    assert [column.size for column in daily_returns(*nothing, 100.0, JANUARY)] == [0, 0]
    assert monthly_returns(*nothing, 100.0, JANUARY) == []
    curve = drawdowns(*nothing, 100.0, JANUARY)
    assert (curve.max_drawdown, curve.max_drawdown_percent, curve.peak.size) == (0.0, 0.0, 0)


@given(CURVES)
def test_daily_and_monthly_returns_are_the_naive_ones(rows):
    times, equity = columns(rows)
    days = [naive.day_of(int(time), JANUARY) for time in times]
    expected_days, expected = naive.period_returns(days, equity.tolist(), 100.0)
    found = daily_returns(times, equity, 100.0, JANUARY)
    assert [str(day) for day in found.day_ns.astype("datetime64[ns]").astype("datetime64[D]")] == [
        str(day) for day in expected_days
    ]
    assert np.isfinite(found.returns).all()
    assert found.returns.tolist() == pytest.approx([float(one) for one in expected], rel=1e-12, abs=1e-12)
    months, expected = naive.period_returns([f"{day:%Y-%m}" for day in days], equity.tolist(), 100.0)
    monthly = monthly_returns(times, equity, 100.0, JANUARY)
    assert [row.month for row in monthly] == months
    percents = [float(100 * one) for one in expected]
    assert [row.return_percent for row in monthly] == pytest.approx(percents, rel=1e-12, abs=1e-10)


def test_months_are_of_utc_and_end_with_their_last_close():
    times = np.array(["2023-02-01T00:00", "2023-02-01T00:01", "2024-02-29T12:00"], "datetime64[ns]").astype(np.int64)
    rows = monthly_returns(times, np.array([110.0, 120.0, 99.0]), 100.0, JANUARY)
    assert [row.month for row in rows] == ["2023-01", "2023-02", "2024-02"]
    assert [row.return_percent for row in rows] == pytest.approx([10.0, 100 / 11, -17.5])


@given(CURVES)
def test_drawdowns_are_the_naive_ones(rows):
    times, equity = columns(rows)
    curve = drawdowns(times, equity, 100.0, JANUARY)
    expected = naive.drawdowns(times.tolist(), equity.tolist(), 100.0, JANUARY)
    found = zip(curve.peak.tolist(), curve.drawdown.tolist(), curve.duration_ns.tolist(), strict=True)
    assert list(found) == expected
    percents = [100 * fall / peak for peak, fall, _ in expected]
    assert curve.drawdown_percent.tolist() == pytest.approx(percents)
    assert curve.max_drawdown == max((fall for _, fall, _ in expected), default=0.0)
    assert curve.max_drawdown_percent == pytest.approx(max(percents, default=0.0))


@given(CURVES, st.integers(0, 60))
def test_drawdowns_see_no_future_and_continue_from_chunk_to_chunk(rows, cut):
    times, equity = columns(rows)
    whole = drawdowns(times, equity, 100.0, JANUARY)
    first = drawdowns(times[:cut], equity[:cut], 100.0, JANUARY)
    peak, peak_ns = 100.0, JANUARY
    if first.peak.size:
        peak, peak_ns = float(first.peak[-1]), int(times[:cut][-1] - first.duration_ns[-1])
    second = drawdowns(times[cut:], equity[cut:], peak, peak_ns)
    for one, before, after in zip(whole, first, second, strict=True):
        assert one.tolist() == before.tolist() + after.tolist()


def test_the_deepest_fall_in_percent_may_be_another_than_in_money():
    curve = drawdowns(JANUARY + np.arange(1, 5), np.array([50.0, 1000.0, 900.0, 1100.0]), 100.0, JANUARY)
    assert (curve.max_drawdown, curve.max_drawdown_percent) == (100.0, 50.0)
    assert curve.duration_ns.tolist() == [1, 0, 1, 0]


def test_a_debt_is_a_fall_of_more_than_all():
    assert drawdowns(np.array([1]), np.array([-50.0]), 100.0, 0).max_drawdown_percent == 150.0


@given(
    st.lists(st.tuples(st.integers(-20, 60), st.integers(0, 30)), max_size=8), st.integers(0, 20), st.integers(0, 40)
)
def test_exposure_counts_each_moment_once(positions, start, length):
    pairs = [(entry, entry + held) for entry, held in positions]
    entries, exits = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    found = exposure_percent(entries, exits, start, start + length)
    expected = 100 * naive.exposed(pairs, start, start + length) / length if length else 0.0
    assert found == pytest.approx(expected)


@given(CURVES, st.integers(6, 30))
def test_decimated_rows_are_the_naive_ones(rows, most):
    times, equity = columns(rows)
    drawn = (equity, np.sin(equity))
    found = decimate(times, drawn, most)
    assert found.tolist() == naive.decimated(times.tolist(), [column.tolist() for column in drawn], most)
    assert found.size <= most


def test_decimation_keeps_the_ends_and_every_spike_that_stands_out():
    times = JANUARY + np.arange(100_000, dtype=np.int64) * NS_PER_HOUR
    equity = np.random.default_rng(5).standard_normal(100_000).cumsum()
    equity[[12_345, 77_777]] = 9_999.0, -9_999.0
    rows = decimate(times, [equity])
    assert {0, 12_345, 77_777, 99_999} <= set(rows.tolist())
    assert 1_000 < rows.size <= 2_000
    assert all(one < two for one, two in pairwise(rows.tolist()))


def test_decimation_survives_a_hole_of_centuries_and_samples_of_one_moment():
    times = np.array([-(2**62), *range(2**62, 2**62 + 50)]) // 2
    assert decimate(times, [np.arange(51.0)], 10).tolist() == [0, 1, 50]
    assert decimate(np.zeros(50, dtype=np.int64), [np.arange(50.0)], 10).tolist() == [0, 49]


def test_fewer_rows_than_the_extremes_of_one_span_need_are_refused():
    with pytest.raises(ValueError, match="most is 5: 2 columns take 6 rows at least"):
        decimate(np.arange(10), [np.arange(10.0)] * 2, 5)
