from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import numpy as np
import pytest

from daemon.core.errors import Code, InvalidRequest
from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, Timeframe
from daemon.engine.synthetic import (
    BLOCK,
    CONTINUOUS,
    WEEKDAYS,
    Draws,
    MarketModel,
    Pace,
    Regime,
    Session,
    State,
    simulate,
    walk,
)

WEDNESDAY_NS = int(datetime(2024, 1, 3, 10, 20, tzinfo=UTC).timestamp()) * 10**9
THURSDAY = 3  # the weekday of 1970-01-01, Monday being 0

GAUSSIAN = MarketModel(
    tick_size=Decimal("0.0001"),
    regimes=(Regime(annual_drift=0.0, annual_volatility=0.5),),
    daily_switching=((0.0,),),
    annual_reversion=0.0,
    volatility_shock=0.0,
    volatility_memory=0.0,
    tail_degrees=1e6,
)
OUTAGES = MarketModel(outage_chance=0.01, outage_bars=5.0)
WILD = MarketModel(
    start_price=0.02,
    regimes=(Regime(-500.0, 300.0), Regime(500.0, 300.0)),
    daily_switching=((0.0, 1.0), (1.0, 0.0)),
    annual_reversion=0.0,
    tail_degrees=2.01,
    gap_chance=1.0,
    gap_volatility=5.0,
    outage_chance=0.2,
)


def some_bars(model=None, *, seed=1, bars=100_000, timeframe=Timeframe.MIN_1, session=CONTINUOUS):
    return simulate(
        model or MarketModel(),
        seed=seed,
        start_ns=WEDNESDAY_NS,
        bars=bars,
        timeframe=timeframe,
        session=session,
    )


def changed(model, **fields):
    return msgspec.structs.replace(model, **fields)


def log_returns(bars):
    return np.log(bars.close / bars.open)


def kurtosis(values):
    deviations = values - values.mean()
    return (deviations**4).mean() / (deviations**2).mean() ** 2


def autocorrelation(values, lag):
    return np.corrcoef(values[lag:], values[:-lag])[0, 1]


def year_of(session):
    return 365 / 7 * session.days_per_week * (session.closes_minute - session.opens_minute) * 60 * 10**9


def assert_same_bytes(left, right):
    for ours, theirs in zip(left, right, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.tobytes() == theirs.tobytes()


# Repeatable.


def test_same_seed_gives_the_same_bytes():
    assert_same_bytes(some_bars(OUTAGES, bars=20_000), some_bars(OUTAGES, bars=20_000))


def test_another_seed_gives_another_market():
    assert not np.array_equal(some_bars(bars=100).close, some_bars(bars=100, seed=2).close)


@pytest.mark.parametrize("shorter", [0, 1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 29_999])
@pytest.mark.parametrize("session", [CONTINUOUS, WEEKDAYS])
def test_fewer_bars_are_a_prefix_of_more(shorter, session):
    longer = some_bars(OUTAGES, bars=30_000, session=session)
    assert_same_bytes(some_bars(OUTAGES, bars=shorter, session=session), longer.rows(0, shorter))


# Well-formed bars.


@pytest.mark.parametrize("model", [MarketModel(), GAUSSIAN, OUTAGES, WILD])
def test_high_and_low_enclose_open_and_close_and_nothing_is_negative(model):
    bars = some_bars(model)
    assert np.all(bars.high >= np.maximum(bars.open, bars.close))
    assert np.all(bars.low <= np.minimum(bars.open, bars.close))
    assert np.all(bars.low > 0)
    assert np.all(bars.volume >= 0)
    assert all(np.all(np.isfinite(column)) for column in bars)


def test_columns_are_int64_and_contiguous_float64_of_the_asked_length():
    bars = some_bars(OUTAGES, bars=12_345)
    assert bars.size == 12_345
    assert [column.dtype for column in bars] == [np.int64] + [np.float64] * 5
    assert all(column.shape == (12_345,) and column.flags.c_contiguous for column in bars)


@pytest.mark.parametrize("step", ["0.01", "0.05", "0.25", "0.00000001", "1", "2.5", "100"])
def test_prices_and_volumes_are_the_floats_nearest_to_whole_steps(step):
    model = MarketModel(tick_size=Decimal(step), lot_size=Decimal(step))
    bars = some_bars(model, bars=2_000)
    for value in np.concatenate(bars[1:]).tolist():
        assert Decimal(repr(value)) % Decimal(step) == 0


def test_a_bar_opens_where_the_last_one_closed_while_the_market_stays_open():
    bars = some_bars()
    assert np.array_equal(bars.open[1:], bars.close[:-1])
    assert bars.open[0] == MarketModel().start_price


# Time.


@pytest.mark.parametrize("timeframe", list(Timeframe))
@pytest.mark.parametrize("session", [CONTINUOUS, WEEKDAYS])
def test_starts_ascend_on_the_grid_of_the_timeframe_from_the_asked_start(timeframe, session):
    bars = some_bars(OUTAGES, bars=3_000, timeframe=timeframe, session=session)
    assert np.all(np.diff(bars.start_ns) > 0)
    assert np.all(bars.start_ns % timeframe.ns == 0)
    assert bars.start_ns[0] >= WEDNESDAY_NS


def test_a_continuous_market_has_no_gaps_without_outages():
    assert np.all(np.diff(some_bars().start_ns) == Timeframe.MIN_1.ns)


def test_outages_leave_holes_as_often_and_as_long_as_asked():
    steps = np.diff(some_bars(OUTAGES).start_ns) // Timeframe.MIN_1.ns
    holes = steps[steps > 1] - 1
    assert 0.009 < len(holes) / len(steps) < 0.011
    assert 4.5 < holes.mean() < 5.5


def test_the_price_moves_on_while_an_outage_hides_it():
    bars = some_bars(changed(OUTAGES, gap_chance=0.0))
    after_hole = np.diff(bars.start_ns) > Timeframe.MIN_1.ns
    jumped = bars.open[1:] != bars.close[:-1]
    assert jumped[after_hole].mean() > 0.95
    assert not jumped[~after_hole].any()


@pytest.mark.parametrize("timeframe", [Timeframe.MIN_1, Timeframe.HOUR_1, Timeframe.DAY_1])
def test_weekday_sessions_have_no_weekend_bars(timeframe):
    start_ns = some_bars(bars=10_000, timeframe=timeframe, session=WEEKDAYS).start_ns
    weekdays = (start_ns // NS_PER_DAY + THURSDAY) % 7
    assert set(weekdays.tolist()) == {0, 1, 2, 3, 4}


def test_weekday_sessions_keep_their_hours():
    start_ns = some_bars(bars=10_000, session=WEEKDAYS).start_ns
    minutes = start_ns % NS_PER_DAY // Timeframe.MIN_1.ns
    assert minutes.min() == WEEKDAYS.opens_minute
    assert minutes.max() == WEEKDAYS.closes_minute - 1
    assert len(np.unique(minutes)) == WEEKDAYS.closes_minute - WEEKDAYS.opens_minute


def test_a_bar_that_overlaps_the_opening_is_kept_on_its_own_grid():
    start_ns = some_bars(bars=100, timeframe=Timeframe.HOUR_1, session=WEEKDAYS).start_ns
    assert set((start_ns % NS_PER_DAY // NS_PER_HOUR).tolist()) == {14, 15, 16, 17, 18, 19, 20}


@pytest.mark.parametrize("timeframe", [Timeframe.MIN_5, Timeframe.DAY_1])
def test_gaps_happen_at_session_opens_only(timeframe):
    bars = some_bars(MarketModel(gap_chance=1.0), bars=5_000, timeframe=timeframe, session=WEEKDAYS)
    new_day = np.diff(bars.start_ns // NS_PER_DAY) > 0
    jumped = bars.open[1:] != bars.close[:-1]
    assert np.array_equal(jumped, new_day)


def test_a_market_that_stands_still_moves_only_where_an_outage_ends_in_a_gap():
    still = changed(GAUSSIAN, regimes=(Regime(0.0, 0.0),), gap_chance=1.0, outage_chance=0.01)
    bars = some_bars(still, bars=10_000)
    assert np.array_equal(bars.high, bars.low)
    assert np.array_equal(np.diff(bars.open) != 0, np.diff(bars.start_ns) > Timeframe.MIN_1.ns)


def test_gaps_have_the_asked_chance_and_size():
    model = MarketModel(gap_chance=0.3, gap_volatility=0.02)
    bars = some_bars(model, bars=5_000, timeframe=Timeframe.DAY_1, session=WEEKDAYS)
    gaps = np.log(bars.open[1:] / bars.close[:-1])
    assert 0.27 < np.mean(gaps != 0) < 0.33
    assert 0.019 < gaps[gaps != 0].std() < 0.021


def test_a_market_open_all_day_on_weekdays_closes_for_the_weekend_only():
    forex = Session(days_per_week=5)
    bars = some_bars(MarketModel(gap_chance=1.0), bars=5_000, timeframe=Timeframe.HOUR_1, session=forex)
    closed = np.diff(bars.start_ns) > Timeframe.HOUR_1.ns
    assert np.array_equal(bars.open[1:] != bars.close[:-1], closed)


def test_time_before_1970_works():
    bars = simulate(MarketModel(), seed=1, start_ns=-NS_PER_DAY, bars=10, timeframe=Timeframe.DAY_1, session=WEEKDAYS)
    assert bars.start_ns[:4].tolist() == [day * NS_PER_DAY for day in (-1, 0, 1, 4)]


def test_running_past_the_end_of_time_is_refused():
    with pytest.raises(InvalidRequest) as caught:
        some_bars(bars=100_000, timeframe=Timeframe.DAY_1)
    assert caught.value.code == Code.INVALID_DATE_RANGE


# The market's character.


def test_gaussian_settings_give_gaussian_returns():
    assert abs(kurtosis(log_returns(some_bars(GAUSSIAN))) - 3) < 0.1


def test_student_tails_are_fat_without_any_clustering():
    assert kurtosis(log_returns(some_bars(changed(GAUSSIAN, tail_degrees=5.0)))) > 4.5


def test_the_default_market_has_fat_tails():
    assert kurtosis(log_returns(some_bars())) > 6


@pytest.mark.parametrize("seed", range(3))
def test_volatility_clusters_while_returns_do_not_predict_themselves(seed):
    returns = log_returns(some_bars(seed=seed))
    assert all(autocorrelation(np.abs(returns), lag) > 0.1 for lag in (1, 5, 20))
    assert abs(autocorrelation(returns, 1)) < 0.03


def test_garch_alone_clusters_and_its_absence_does_not():
    clustered = changed(GAUSSIAN, volatility_shock=0.1, volatility_memory=0.85)
    assert autocorrelation(np.abs(log_returns(some_bars(clustered))), 1) > 0.1
    assert abs(autocorrelation(np.abs(log_returns(some_bars(GAUSSIAN))), 1)) < 0.02


@pytest.mark.parametrize("tail_degrees", [5.0, 1e6])
@pytest.mark.parametrize("session", [CONTINUOUS, WEEKDAYS])
@pytest.mark.parametrize("timeframe", [Timeframe.SEC_1, Timeframe.MIN_1, Timeframe.MIN_15])
def test_annual_volatility_is_what_was_asked_in_any_timeframe_and_session(timeframe, session, tail_degrees):
    model = changed(GAUSSIAN, tail_degrees=tail_degrees)
    bars = some_bars(model, timeframe=timeframe, session=session)
    annual = log_returns(bars).std() * np.sqrt(year_of(session) / timeframe.ns)
    assert abs(annual / 0.5 - 1) < 0.03


def test_drift_is_what_was_asked():
    model = changed(GAUSSIAN, regimes=(Regime(annual_drift=-2.0, annual_volatility=0.01),))
    bars = some_bars(model, bars=365 * 24, timeframe=Timeframe.HOUR_1)
    assert abs(np.log(bars.close[-1] / bars.open[0]) + 2.0) < 0.05


def test_the_range_of_a_bar_is_that_of_a_brownian_path():
    # Parkinson (1980): the mean squared range of a Brownian path is 4 log 2 times its variance.
    bars = some_bars(GAUSSIAN, timeframe=Timeframe.MIN_5)
    parkinson = np.mean(np.log(bars.high / bars.low) ** 2) / (4 * np.log(2))
    assert abs(parkinson / np.mean(log_returns(bars) ** 2) - 1) < 0.05


def test_regimes_alternate_and_stay_as_long_as_asked():
    model = changed(
        GAUSSIAN,
        regimes=(Regime(0.0, 0.1), Regime(0.0, 2.0)),
        daily_switching=((0.0, 0.2), (0.6, 0.0)),
    )
    bars = some_bars(model, bars=600_000, timeframe=Timeframe.MIN_5)
    two_hours = log_returns(bars).reshape(-1, 24).std(axis=1) * np.sqrt(365 * 288)
    calm = two_hours < 0.4
    assert 0.70 < calm.mean() < 0.78  # 0.6 / (0.2 + 0.6), less the windows that see both
    entered = np.count_nonzero(np.diff(calm.astype(int)) > 0)
    assert 4.3 < calm.sum() / 12 / entered < 5.7  # 1 / 0.2 days


def test_reversion_keeps_a_century_near_its_start_price():
    bars = some_bars(bars=36_500, timeframe=Timeframe.DAY_1)
    assert 0.3 < np.median(bars.close) / MarketModel().start_price < 3


def test_volume_follows_returns_as_far_as_asked():
    def correlation(share):
        bars = some_bars(changed(GAUSSIAN, volume_following=share))
        return np.corrcoef(bars.volume, np.abs(log_returns(bars)))[0, 1]

    assert abs(correlation(0.0)) < 0.02
    assert 0.3 < correlation(0.35) < 0.9
    assert correlation(1.0) > 0.99


def test_volume_has_the_asked_level():
    volume = some_bars(GAUSSIAN).volume
    assert abs(volume.mean() * 1_440 / GAUSSIAN.daily_volume - 1) < 0.02


# The model as a document.


def test_a_model_survives_json():
    assert msgspec.json.decode(msgspec.json.encode(WILD), type=MarketModel) == WILD


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"volatility": 1}, "volatility"),
        ({"tick_size": "0"}, "tick_size"),
        ({"lot_size": "NaN"}, "lot_size"),
        ({"tail_degrees": 2.0}, "tail_degrees"),
        ({"daily_switching": [[0.0]]}, "4 rows of 4"),
        ({"regimes": [{"annual_drift": 0, "annual_volatility": 1}], "daily_switching": [[0.5]]}, "diagonal"),
        ({"volatility_shock": 0.2}, "below 1"),
    ],
)
def test_a_wrong_model_is_refused_by_name(document, named):
    with pytest.raises(msgspec.ValidationError, match=named):
        msgspec.convert(document, MarketModel)


def test_a_session_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="opens_minute"):
        Session(opens_minute=900, closes_minute=600)


# The kernel against plain Python.


def block_of(model, bars, seed):
    generator = np.random.Generator(np.random.PCG64(seed))
    pace = Pace.of(model, WEEKDAYS, Timeframe.MIN_5.ns)
    draws = Draws.of(model, generator, bars)
    return (
        State(price=pace.anchor, heat=1.0, regime=0, recording=True),
        pace,
        draws,
        np.arange(bars) % 78 == 0,
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("model", [MarketModel(), GAUSSIAN, OUTAGES, WILD])
def test_the_compiled_walk_equals_plain_python_bit_for_bit(model, seed):
    arguments = block_of(model, 500, seed)
    state, columns, recorded = walk(*arguments)
    plain_state, plain_columns, plain_recorded = walk.py_func(*arguments)
    assert state == plain_state
    assert columns.tobytes() == plain_columns.tobytes()
    assert recorded.tobytes() == plain_recorded.tobytes()


@pytest.mark.parametrize("model", [MarketModel(), OUTAGES, WILD])
def test_a_walk_resumed_from_its_state_equals_one_long_walk(model):
    state, pace, draws, reopens = block_of(model, 500, seed=7)
    last_state, columns, recorded = walk(state, pace, draws, reopens)
    pieces = []
    for part in (slice(0, 123), slice(123, 123), slice(123, 500)):
        piece = Draws(*(column[part].copy() for column in draws))
        state, *arrays = walk(state, pace, piece, reopens[part].copy())
        pieces.append(arrays)
    assert state == last_state
    assert np.array_equal(np.concatenate([piece for piece, _ in pieces], axis=1), columns)
    assert np.array_equal(np.concatenate([piece for _, piece in pieces]), recorded)


def test_the_walk_compiles_once():
    some_bars(bars=10)
    some_bars(OUTAGES, bars=10, session=WEEKDAYS)
    assert len(walk.signatures) == 1
