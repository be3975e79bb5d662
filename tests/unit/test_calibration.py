"""Impact parameters: known ones are found again, their errors say how well, and doubtful ones are not used."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive.buckets import buckets as naive_buckets
from stand_ins.backtests import filled

from daemon.core.backtest import Almgren2005, AlmgrenChriss, Kyle, SquareRoot, slippages_of
from daemon.core.errors import InvalidRequest, NotFound
from daemon.core.market import NS_PER_DAY, Instrument, Timeframe
from daemon.core.ticks import Stream, ticks
from daemon.engine import calibration as fits
from daemon.engine.calibration import Pushes, TradeBuckets, pushes_of, through_origin
from daemon.research.backtest_config.read import read_config
from daemon.research.backtest_records import Request, StoredBacktest, put_request, put_state, stored_request
from daemon.research.backtest_result import BacktestStatus
from daemon.research.calibration import (
    LEAST_BUCKETS,
    Calibration,
    CalibrationRequest,
    Parameter,
    calibrate,
    calibration_of,
    model_of,
    stored_calibration,
)
from daemon.research.strategies import RuleBook
from daemon.store import documents
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig

FIVE_MINUTES = Timeframe.MIN_5.ns
START_NS = 19_000 * NS_PER_DAY
REAL = Path("/work/shared/data/binance/futures-um/trades/BTCUSDT-trades-2024-08-08.zip")
A, B = Instrument("x", "A"), Instrument("x", "B")


def within(fit, wanted, errors=3):
    """Whether a fit lies that near to what is true, and its error is small enough for that to mean something."""
    return abs(fit.value - wanted) <= errors * fit.standard_error and fit.standard_error < 0.1 * wanted


# Fits.


def test_kyles_lambda_of_the_reference_is_found():
    rng = np.random.default_rng(1)
    volume = rng.normal(0, 100, 20_000)
    fit = through_origin(volume, 0.01 * volume + rng.normal(0, 0.5, 20_000))
    assert round(fit.value, 6) == 0.010019
    assert within(fit, 0.01)
    assert fit.r2 == pytest.approx(0.8, abs=0.01)  # 1 of impact beside 0.25 of noise


def made_pushes(seed, days=1 / 288, size=5_000, **effects):
    """Pushes of known parameters, with noise as large as the bucket's own volatility."""
    rng = np.random.default_rng(seed)
    sigma = 0.03 * np.exp(rng.normal(0, 0.3, size))
    share = rng.normal(0, 0.003, size)
    noise = sigma * np.sqrt(days) * rng.normal(0, 1, (2, size))
    lasting = effects.get("lasting", lambda *_: 0.0)(sigma, share) + noise[0]
    paid = effects.get("paid", lambda *_: 0.0)(sigma, share) + lasting / 2 + noise[1] / 4
    return Pushes(share, share * 1e4, sigma, paid, noise[0], lasting, noise[0], days)


@pytest.mark.parametrize("seed", range(3))
def test_the_square_root_laws_factor_is_found(seed):
    pushes = made_pushes(seed, paid=lambda sigma, share: 0.8 * sigma * np.sign(share) * np.sqrt(np.abs(share)))
    assert within(fits.square_root_y(pushes), 0.8)


@pytest.mark.parametrize("seed", range(3))
def test_almgrens_gamma_and_eta_are_found(seed):
    pushes = made_pushes(
        seed,
        lasting=lambda sigma, share: 4.0 * sigma * share * 200**0.25,
        paid=lambda sigma, share: 0.142 * sigma * np.sign(share) * np.abs(share / (1 / 288)) ** 0.6,
    )
    assert within(fits.almgren_2005_gamma(pushes, 200), 4.0)
    assert within(fits.almgren_2005_eta(pushes), 0.142)


@pytest.mark.parametrize("seed", range(3))
def test_almgren_and_chriss_gamma_and_eta_are_found(seed):
    pushes = made_pushes(seed, lasting=lambda _, share: 0.5 * share, paid=lambda _, share: 0.002 * share * 288)
    assert within(fits.almgren_chriss_gamma(pushes), 0.5)
    assert within(fits.almgren_chriss_eta(pushes), 0.002)


def test_kyles_y_is_found_beside_his_lambda():
    pushes = made_pushes(1)
    moved = 20 * pushes.sigma * pushes.share + pushes.moved
    pushes = pushes._replace(moved=moved, change=0.05 * pushes.signed + pushes.change)
    assert within(fits.kyle_y(pushes), 20)
    assert fits.kyle_lambda(pushes).value == pytest.approx(0.05, rel=1e-3)


def test_standard_errors_hold_where_the_noise_grows_with_the_order():
    # Errors that suppose one variance would cover 80 %.
    rng = np.random.default_rng(7)
    cause = rng.normal(0, 1, (600, 300))
    outcomes = 2 * cause + np.abs(cause) * rng.normal(0, 1, cause.shape)
    made = [through_origin(x, y) for x, y in zip(cause, outcomes, strict=True)]
    covered = np.mean([abs(fit.value - 2) <= 1.96 * fit.standard_error for fit in made])
    assert 0.92 <= covered <= 0.97


def test_a_perfect_line_has_no_error_and_explains_everything():
    assert through_origin(np.array([1.0, 2, -3]), np.array([2.0, 4, -6])) == (2, 0, 1, 3)


@pytest.mark.parametrize("cause", [[], [0.0, 0.0], [np.nan, 1.0]])
def test_where_nothing_pushed_there_is_nothing_to_fit(cause):
    fit = through_origin(np.array(cause), np.ones(len(cause)))
    assert (fit.value, fit.standard_error, fit.r2) == (0, 0, 0)


# Buckets.

TRADES = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.sampled_from([0.0, 99.5, 100.0, 101.25]),
        st.sampled_from([0.0, 1, 2.5]),
        st.sampled_from([-1, 0, 1]),
    ),
    max_size=40,
)


def summed(trades, cuts=(), width_ns=10):
    sums = TradeBuckets(width_ns)
    columns = [
        np.array([trade[place] for trade in trades], dtype=dtype)
        for place, dtype in enumerate((np.int64, np.float64, np.float64, np.int8))
    ]
    edges = [0, *sorted(cut for cut in cuts if cut < len(trades)), len(trades)]
    for begin, end in itertools.pairwise(edges):
        sums.feed(*(column[begin:end] for column in columns))
    return sums.finish()


@given(TRADES, st.lists(st.integers(0, 40), max_size=5))
@settings(deadline=None)
def test_buckets_are_those_of_the_slow_way_however_the_trades_are_cut(trades, cuts):
    trades = sorted(trades, key=lambda trade: trade[0])
    made = [list(map(float, row)) for row in zip(*summed(trades, cuts), strict=True)]
    wanted = [list(map(float, row)) for row in naive_buckets(trades, 10)]
    np.testing.assert_array_equal(np.array(made), np.array(wanted))


def test_pushes_compare_prices_with_the_last_one_before_the_bucket():
    rng = np.random.default_rng(1)
    trades = [(at, 100 + rng.normal(), 1.0, 1) for at in range(0, 400, 5)]
    buckets = summed(trades)
    pushes = pushes_of(buckets, 10, 365)
    first = buckets.start_ns.size - pushes.paid.size
    # Of each bucket two trades of one unit.
    price = [trade[1] for trade in trades][2 * first :]
    before = trades[2 * first - 1][1]
    assert pushes.paid[0] == pytest.approx((price[0] + price[1]) / 2 / before - 1)
    assert pushes.moved[0] == pytest.approx(price[1] / before - 1)
    lasting = price[3] / before if first % 2 == 0 else price[5] / price[1]
    assert pushes.lasting[first % 2] == pytest.approx(lasting - 1)
    assert np.isfinite(pushes.lasting).tolist()[:4] == [(first + n) % 2 == 0 for n in range(4)]


def test_buckets_that_follow_a_pause_are_not_fitted():
    rng = np.random.default_rng(1)
    whole = [(at, 100 + rng.normal(), 1.0, 1) for at in range(0, 600, 5)]
    paused = [trade for trade in whole if not 400 <= trade[0] < 420]
    lost = pushes_of(summed(whole), 10, 365).share.size - pushes_of(summed(paused), 10, 365).share.size
    assert lost == 3  # two that are not there, and the one that follows them


# From stored trades.


def market(seed, *, buckets=600, a_bucket=20, impact=0.05, price=1_000.0, noise=0.3, sided=True):
    """Trades whose price moves by `impact` for each unit that is bought, and at random beside that."""
    rng = np.random.default_rng(seed)
    rows = buckets * a_bucket
    side = rng.choice([-1, 1], rows)
    size = rng.integers(1, 20, rows) * 0.1
    moves = impact * side * size + rng.normal(0, noise / np.sqrt(a_bucket), rows)
    time_ns = START_NS + (np.arange(rows) * (FIVE_MINUTES // a_bucket)).astype(np.int64)
    return ticks(
        Stream.TRADES,
        time_ns=time_ns,
        id=np.arange(rows),
        price=price + np.cumsum(moves),
        size=size,
        side=side if sided else np.zeros(rows),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = {"A": market(11), "B": market(2, impact=0.0), "FEW": market(3, buckets=80), "DUMB": market(4, sided=False)}
    with Environment(tmp_path_factory.mktemp("calibration"), StoreConfig(sync=False)) as env:
        store = BarStore(env)
        for symbol, rows in made.items():
            with BulkWriter(store.ticks, Instrument("x", symbol), Stream.TRADES) as writer:
                writer.add(rows)
                writer.finish()
        yield store


@pytest.fixture(scope="module")
def calibrated(store):
    return {symbol: calibrate(store, CalibrationRequest(symbol)) for symbol in ("A", "B")}


def parameter(calibration, model, name):
    return next(each for each in calibration.parameters if (each.model, each.name) == (model, name))


def test_known_impact_is_found_in_stored_trades(calibrated):
    made = calibrated["A"]
    slope = parameter(made, "kyle", "lambda")
    assert abs(slope.value - 0.05) <= 3 * slope.standard_error
    assert slope.r2 == pytest.approx(0.4, abs=0.08)
    assert (made.symbol, made.rows, made.bucket, made.unknown_percent) == ("x:A", 12_000, "5Min", 0)
    assert made.buckets == slope.buckets > 550
    # What the order moves: y sigma q / V of the price, with the day's figures as they were.
    sigma = np.sqrt(288 * (0.05**2 * 20 * np.mean((np.arange(1, 20) * 0.1) ** 2) + 0.3**2)) / 1_000
    y = parameter(made, "kyle", "y")
    assert y.value == pytest.approx(0.05 / 1_000 * (288 * 20 * 1.0) / sigma, rel=0.08)
    # The price keeps what it moved.
    lasting = parameter(made, "almgren_chriss", "gamma")
    assert abs(lasting.value - 0.05 / 1_000 * 288 * 20) <= 3 * lasting.standard_error


def test_a_calibration_is_stored_with_its_date_and_read_back(store, calibrated):
    with store.ticks.env.read() as transaction:
        assert calibration_of(transaction, A) == calibrated["A"]
    assert stored_calibration(store, "a") == calibrated["A"]
    assert calibrated["A"].made_at > 1_700_000_000_000
    assert calibrated["A"].first == START_NS // 1_000_000


def test_impact_that_is_none_is_told_and_not_used(calibrated):
    made = parameter(calibrated["B"], "kyle", "y")
    assert not made.is_used
    assert "not told from 0" in made.note or "not above 0" in made.note
    assert model_of(calibrated["B"], "kyle") is None


def test_dates_narrow_the_trades(store, calibrated):
    before = calibrated["A"]
    made = calibrate(store, CalibrationRequest("A", "1Min", "2022-01-08", "2022-01-08"))
    assert made.rows == 288 * 20
    assert made.bucket == "1Min"
    store.ticks.env.write(lambda transaction: documents.put(transaction, "calibration", "x:A", before))


@pytest.mark.parametrize(
    ("request_", "kind", "code", "words"),
    [
        (CalibrationRequest("FEW"), NotFound, "TOO_FEW_TRADES", f"at least {LEAST_BUCKETS}"),
        (CalibrationRequest("DUMB"), NotFound, "TOO_FEW_TRADES", "who the aggressor was"),
        (CalibrationRequest("A", end="2000-01-01"), NotFound, "TOO_FEW_TRADES", "make 0 buckets"),
        (CalibrationRequest("A", bucket="7Min"), InvalidRequest, "INVALID_TIMEFRAME", "5Min"),
        (CalibrationRequest("A", start="then"), InvalidRequest, "INVALID_DATE_RANGE", "then"),
        (CalibrationRequest("NO"), NotFound, "INVALID_SYMBOL", "data symbols"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_with_the_remedy(store, request_, kind, code, words):
    with pytest.raises(kind, match=words) as refusal:
        calibrate(store, request_)
    assert refusal.value.code == code


def test_a_symbol_that_has_not_been_calibrated_says_how(store):
    with pytest.raises(NotFound, match="atlasd calibrate x:FEW") as refusal:
        stored_calibration(store, "FEW")
    assert refusal.value.code == "CALIBRATION_NOT_FOUND"


def test_real_trades_move_prices_as_their_aggressors_push():
    if not REAL.exists():
        pytest.skip(f"{REAL} is not here")
    from adapters import registry

    file = registry.open_tick_file(registry.BINANCE_ARCHIVE, REAL, Stream.TRADES, None)
    sums = TradeBuckets(Timeframe.SEC_1.ns)
    for part in itertools.islice(file.blocks(), 4):
        price = part.column("price") / 10.0**part.price_decimals
        sums.feed(part.time_ns, price, part.column("size") / 10.0**part.size_decimals, part.column("side"))
    pushes = pushes_of(sums.finish(), Timeframe.SEC_1.ns, 365)
    for fit in (fits.kyle_y(pushes), fits.square_root_y(pushes)):
        assert fit.value > 3 * fit.standard_error
        assert 0.1 < fit.r2 < 1
    assert 0.1 < fits.square_root_y(pushes).value < 10  # of order 1, as the law says


# Backtests.


def a_config(*symbols, **backtest):
    strategy = {"entryRules": [{"indicator": "rsi", "condition": "lt", "value": 30}]}
    return {"strategy": strategy, "backtest": {"symbols": list(symbols), "timeframe": "5m", **backtest}}


def read(store, *symbols, **backtest):
    return read_config(a_config(*symbols, **backtest), store, RuleBook([]))


@pytest.mark.parametrize(
    ("model", "kind", "name"),
    [
        ("square_root", SquareRoot, "y"),
        ("almgren_2005", Almgren2005, "gamma"),
        ("almgren_chriss", AlmgrenChriss, "gamma"),
        ("kyle", Kyle, "y"),
    ],
)
def test_a_model_without_parameters_takes_those_of_each_symbol(store, calibrated, model, kind, name):
    spec = read(store, "A", "FEW", slippageModel=model)
    own, other = slippages_of(spec)
    assert isinstance(own, kind)
    assert getattr(own, name) == parameter(calibrated["A"], model, name).value
    assert other == kind()
    readings = " ".join(spec.readings)
    assert f"{model} of x:A: {name} {getattr(own, name):.4g}" in readings
    assert "calibrated on 2" in readings
    assert f"x:FEW has not been calibrated: {model} with its defaults" in readings


def test_parameters_that_the_user_gives_go_first(store, calibrated):
    assert calibrated
    spec = read(store, "A", slippageModel="kyle", slippage={"halfSpreadBps": 2})
    assert slippages_of(spec) == [Kyle(half_spread_bps=2)]
    assert "calibrated" not in " ".join(spec.readings)


def test_other_models_have_no_parameters_of_a_symbols_own(store, calibrated):
    assert calibrated
    assert read(store, "A").markets[0].slippage is None
    assert read(store, "A", slippageModel="fixed_bps").markets[0].slippage is None


def test_doubtful_parameters_leave_the_defaults_and_the_readings_say_so(store, calibrated):
    assert calibrated
    spec = read(store, "B", slippageModel="kyle")
    assert slippages_of(spec) == [Kyle()]
    assert "y keeps its default" in " ".join(spec.readings)


def test_one_of_two_parameters_may_be_a_symbols_own():
    fitted = [
        Parameter("almgren_2005", "gamma", 0.5, 0.1, 0.2, 200, is_used=True),
        Parameter("almgren_2005", "eta", -0.1, 0.1, 0.0, 200, is_used=False, note="the fit is not above 0"),
    ]
    made = Calibration("x:A", 0, 0, 0, "trades", 1, "5Min", 200, 0.0, 200.0, fitted)
    assert model_of(made, "almgren_2005") == Almgren2005(gamma=0.5)
    assert model_of(made, "kyle") is None


def test_a_queued_backtest_keeps_each_symbols_model(store, calibrated, tmp_path):
    assert calibrated
    spec = read(store, "A", "FEW", slippageModel="almgren_chriss")
    with Environment(tmp_path / "queue", StoreConfig(sync=False)) as env:

        def put(transaction):
            put_state(
                transaction, StoredBacktest(1, 0, filled(BacktestStatus, id="b", status="queued", priority="normal"))
            )
            put_request(transaction, "b", Request({}, spec))

        env.write(put)
        with env.read() as transaction:
            assert stored_request(transaction, "b").spec == spec
