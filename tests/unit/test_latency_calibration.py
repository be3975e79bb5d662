"""Clocks that differ by a known line are told apart, whatever the chunks; and what cannot be measured is refused."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core import backtest
from daemon.core.errors import InvalidRequest, NotFound
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Instrument, Timeframe
from daemon.core.ticks import Stream, ticks
from daemon.engine.clock_offset import ClockLine, Latencies, LeastDelays
from daemon.engine.latency import delays_of, feed_delay
from daemon.research.backtest_config.fields import Fields
from daemon.research.backtest_config.latency import read_latency
from daemon.research.backtest_config.read import resolve_set
from daemon.research.backtest_feeds import latencies_of, latency_used, measured_latency
from daemon.research.backtest_words import latency_words
from daemon.research.latency_calibration import (
    LatencyRequest,
    calibrate_latency,
    latency_of,
    stored_latency,
)
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig

START_NS = 19_943 * NS_PER_DAY
MS = 1_000_000
CAPTURE = Path("/work/shared/data/binance/streams/futures-um-btcusdt-20240808.gz")
A, LOCAL, BLIND, FEW = (Instrument("x", symbol) for symbol in ("A", "LOCAL", "BLIND", "FEW"))


def messages(seed, count=3_000, step_ns=100 * MS, offset_ns=-1_270 * MS, drift=-5e-6):
    """Venue times and local - venue times: a line, and latencies of 1 ms and more over it."""
    rng = np.random.default_rng(seed)
    time_ns = START_NS + np.cumsum(rng.integers(1, 2 * step_ns, count))
    latency_ns = MS + rng.exponential(3 * MS, count).astype(np.int64)
    clocks_ns = offset_ns + np.rint(drift * (time_ns - time_ns[0])).astype(np.int64)
    return time_ns, clocks_ns + latency_ns, latency_ns


def chunked(columns, cuts):
    edges = [0, *sorted(cuts), columns[0].size]
    return [tuple(each[start:stop] for each in columns) for start, stop in itertools.pairwise(edges)]


def least_of(chunks):
    least = LeastDelays()
    for time_ns, delay_ns in chunks:
        least.feed(time_ns, delay_ns)
    return least


def naive_line(time_ns, delay_ns):
    """Of all lines through two messages and above none the one nearest to the messages on average."""
    x, y = (time_ns - time_ns[0]).astype(float), delay_ns.astype(float)
    best = None
    for one, other in itertools.combinations(range(x.size), 2):
        if x[one] == x[other]:
            continue
        slope = (y[other] - y[one]) / (x[other] - x[one])
        over = y - (y[one] + slope * (x - x[one]))
        if over.min() >= -1e-3 and (best is None or over.mean() < best[0]):
            best = over.mean(), slope, y[one] - slope * x[one]
    return best


# The line.


@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 25), max_size=3))
@settings(max_examples=40, deadline=None)
def test_the_line_is_the_nearest_of_those_below_all_messages_whatever_the_chunks(seed, cuts):
    rng = np.random.default_rng(seed)
    time_ns = START_NS + np.sort(rng.integers(0, 50, 25)) * 10 * NS_PER_SECOND
    time_ns[-1] = time_ns[0] + 500 * NS_PER_SECOND
    delay_ns = rng.integers(-50, 50, 25) * MS
    line = least_of(chunked((time_ns, delay_ns), cuts)).line()
    over = delay_ns - line.at(time_ns)
    assert over.min() >= -1
    mean, _, _ = naive_line(time_ns, delay_ns)
    assert over.mean() == pytest.approx(mean, abs=1)


def test_a_known_offset_and_drift_are_found():
    time_ns, delay_ns, _ = messages(1)
    line = least_of([(time_ns, delay_ns)]).line()
    assert line.start_ns == time_ns[0]
    assert line.offset_ns == pytest.approx(-1_269 * MS, abs=0.05 * MS)  # 1 ms over the clocks: the least latency
    assert line.drift == pytest.approx(-5e-6, abs=0.3e-6)


def test_over_a_short_time_no_drift_is_told():
    time_ns, delay_ns, _ = messages(1, count=300)
    line = least_of([(time_ns, delay_ns)]).line()
    assert (line.offset_ns, line.drift) == (delay_ns.min(), 0)


def test_messages_without_a_time_of_the_venue_say_nothing():
    time_ns = START_NS + np.arange(10)
    assert least_of([(time_ns, np.zeros(10, dtype=np.int64))]).is_local
    assert not least_of([(time_ns, np.arange(10))]).is_local
    assert LeastDelays().is_local


# Latencies.


@given(seed=st.integers(0, 1_000), cuts=st.lists(st.integers(0, 200), max_size=4))
@settings(max_examples=30, deadline=None)
def test_medians_and_quantiles_equal_a_slow_count_whatever_the_chunks(seed, cuts):
    time_ns, _, latency_ns = messages(seed, count=200)
    line, floor_ns = ClockLine(int(time_ns[0]), 5.0, 0.0), 2 * MS
    latencies = Latencies(line, int(time_ns[-1]), floor_ns, NS_PER_SECOND)
    for time_part, delay_part in chunked((time_ns, latency_ns + 5), cuts):
        latencies.feed(time_part, delay_part)
    whole = sorted(int(each) + floor_ns for each in latency_ns)
    for share in (0.5, 0.9, 0.99):
        assert latencies.quantile_ns(share) == pytest.approx(whole[int(np.ceil(share * 200)) - 1], rel=0.001)
    assert latencies.most_ns == whole[-1]
    assert latencies.wander_ns >= latency_ns.min()
    series = latencies.finish()
    seconds = time_ns // NS_PER_SECOND
    wanted = []
    for second in sorted(set(seconds.tolist())):
        inside = sorted(latency_ns[seconds == second].tolist())
        wanted.append((second * NS_PER_SECOND + NS_PER_SECOND // 2, inside[(len(inside) - 1) // 2] + floor_ns))
    assert list(zip(*(each.tolist() for each in series), strict=True)) == wanted


def test_what_lies_below_the_line_takes_the_floor():
    latencies = Latencies(ClockLine(START_NS, 100.0, 0.0), START_NS, 7, NS_PER_SECOND)
    latencies.feed(np.array([START_NS]), np.array([50]))
    assert latencies.finish().delay_ns.tolist() == [7]
    assert (latencies.most_ns, latencies.quantile_ns(0.5)) == (7, 7)


def test_clocks_that_do_not_run_steadily_are_told():
    time_ns, delay_ns, _ = messages(1)
    delay_ns[time_ns > np.median(time_ns)] += 20 * MS  # one clock was set
    found = {}
    for name, delays in (("steady", messages(1)[1]), ("set", delay_ns)):
        line = least_of([(time_ns, delays)]).line()
        latencies = Latencies(line, int(time_ns[-1]), MS, NS_PER_SECOND)
        latencies.feed(time_ns, delays)
        found[name] = latencies.wander_ns
    assert found["steady"] < 0.5 * MS
    assert found["set"] > 5 * MS


# Stored ticks.


def depth_rows(time_ns, local_ns, levels=3):
    """Each message with several rows."""
    count = time_ns.size * levels
    return ticks(
        Stream.DEPTH,
        time_ns=np.repeat(time_ns, levels),
        local_ns=np.repeat(local_ns, levels),
        id=np.arange(count),
        side=np.ones(count),
        price=np.full(count, 10.0),
        size=np.ones(count),
    )


def trade_rows(time_ns, local_ns):
    rows = time_ns.size
    ones = np.ones(rows)
    return ticks(Stream.TRADES, time_ns=time_ns, local_ns=local_ns, id=np.arange(rows), price=ones, size=ones)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A: depth and trades with both times; LOCAL: depth of local times only; BLIND: no local times; FEW: 50 of them."""
    time_ns, delay_ns, _ = messages(7)
    local_ns = time_ns + delay_ns
    partly = np.where(np.arange(time_ns.size) % 2 == 0, local_ns, 0)
    made = [
        (A, depth_rows(time_ns, partly)),
        (A, trade_rows(time_ns, local_ns + 10 * MS)),
        (LOCAL, depth_rows(time_ns, time_ns)),
        (BLIND, trade_rows(time_ns, np.zeros_like(time_ns))),
        (FEW, trade_rows(time_ns[:50], local_ns[:50])),
    ]
    with Environment(tmp_path_factory.mktemp("latency"), StoreConfig(sync=False)) as env:
        store = BarStore(env)
        for instrument, rows in made:
            with BulkWriter(store.ticks, instrument, rows.stream) as writer:
                writer.add(rows)
                writer.finish()
        yield store


@pytest.fixture(scope="module")
def measured(store):
    return calibrate_latency(store, LatencyRequest("A"))


def test_latency_is_measured_on_messages_with_both_times(measured):
    assert (measured.stream, measured.bucket, measured.rows, measured.messages) == ("depth", "1Sec", 4_500, 1_500)
    assert measured.offset_ms == pytest.approx(-1_270, abs=0.1)
    assert measured.drift_ppm == pytest.approx(-5, abs=0.5)
    assert measured.p50_ms == pytest.approx(1 + 3 * np.log(2), rel=0.1)
    assert measured.p50_ms < measured.p90_ms < measured.p99_ms < measured.max_ms
    assert measured.wander_ms < 0.5


def test_the_series_is_stored_and_read_back_as_backtests_take_it(store, measured):
    with store.ticks.env.read() as transaction:
        assert latency_of(transaction, A) == measured
    assert stored_latency(store, "a") == measured
    series = measured_latency(store, A)
    assert series.time_ns.size == measured.buckets
    assert np.all(np.diff(series.time_ns) >= NS_PER_SECOND)
    assert series.delay_ns.min() >= MS
    delays = delays_of(backtest.Latency(measured=True), [series])
    assert feed_delay(delays, 0, int(series.time_ns[5])) == series.delay_ns[5]
    used = latency_used(series)
    assert (used.source, used.rows, used.first_ns) == ("latency", measured.buckets, series.time_ns[0])
    assert measured_latency(store, BLIND) is None


def test_stream_bucket_floor_and_dates_are_the_callers_choice(store, measured):
    later = START_NS // MS + 200_000
    asked = LatencyRequest("A", "trades", "1Min", 0.0, str(later))
    made = calibrate_latency(store, asked)
    assert (made.stream, made.bucket, made.floor_ms) == ("trades", "1Min", 0.0)
    assert later <= made.first < made.last
    assert made.last > measured.last  # the last message of depth has no local time
    assert made.offset_ms == pytest.approx(measured.offset_ms + 11 - 5e-3 * 200, abs=0.2)
    assert made.p50_ms == pytest.approx(measured.p50_ms - 1, abs=0.3)
    calibrate_latency(store, LatencyRequest("A"))


@pytest.mark.parametrize(
    ("asked", "kind", "code", "words"),
    [
        (LatencyRequest("LOCAL"), NotFound, "NO_ROWS", "depth no time of the venue's"),
        (LatencyRequest("BLIND"), NotFound, "NO_ROWS", "trades 0 messages"),
        (LatencyRequest("FEW"), NotFound, "NO_ROWS", "trades 50 messages"),
        (LatencyRequest("A", "quotes"), NotFound, "NO_ROWS", "no stored quotes"),
        (LatencyRequest("A", end="2000-01-01"), NotFound, "NO_ROWS", "0 messages"),
        (LatencyRequest("A", bucket="7Min"), InvalidRequest, "INVALID_TIMEFRAME", "5Min"),
        (LatencyRequest("A", start="then"), InvalidRequest, "INVALID_DATE_RANGE", "then"),
        (LatencyRequest("NO"), NotFound, "INVALID_SYMBOL", "data symbols"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_remedy(store, asked, kind, code, words):
    with pytest.raises(kind, match=words) as refusal:
        calibrate_latency(store, asked)
    assert refusal.value.code == code


def test_buckets_that_would_be_too_many_are_refused_and_longer_ones_chosen(store, measured, monkeypatch):
    monkeypatch.setattr("daemon.research.latency_calibration.MOST_BUCKETS", 100)
    with pytest.raises(InvalidRequest, match="take 1Min or longer"):
        calibrate_latency(store, LatencyRequest("A", bucket="1Sec"))
    assert calibrate_latency(store, LatencyRequest("A")).bucket == "1Min"
    monkeypatch.undo()
    assert calibrate_latency(store, LatencyRequest("A")).p50_ms == measured.p50_ms


def test_a_real_capture_shows_its_clock_offset():
    if not CAPTURE.exists():
        pytest.skip(f"{CAPTURE} is not here")
    from adapters import registry

    file = registry.open_tick_file(registry.BINANCE_STREAM, CAPTURE, Stream.DEPTH, None)
    least = LeastDelays()
    for part in itertools.islice(file.blocks(), 12):
        least.feed(part.time_ns, part.column("local_ns") - part.time_ns)
    line = least.line()
    assert line.offset_ns / MS == pytest.approx(-1_270.5, abs=0.5)
    assert abs(line.drift) < 50e-6


# Configurations.


def read(store, given, *instruments, fills="book"):
    markets = tuple(backtest.Market(instrument=each, source=Timeframe.SEC_1) for each in instruments or (A,))
    readings = []
    return read_latency(
        Fields({"latencyMs": given}, "backtest", ["latencyMs"]), markets, store, fills, readings
    ), readings


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (None, backtest.Latency()),
        (250, backtest.Latency(order_ns=250 * MS)),
        ("1.5", backtest.Latency(order_ns=1_500_000)),
        ({"feed": 1, "order": 2}, backtest.Latency(MS, 2 * MS)),
        (
            {"feed": {"least": 1, "most": 5}, "order": {"least": 2, "most": 2}, "seed": 9},
            backtest.Latency(MS, 2 * MS, feed_spread_ns=4 * MS, seed=9),
        ),
        ({"feed": "measured"}, backtest.Latency(measured=True, order_factor=0.0)),
        ({"feed": "measured", "order": "measured"}, backtest.Latency(measured=True)),
        ({"feed": "measured", "order": {"measured": 2.5}}, backtest.Latency(measured=True, order_factor=2.5)),
        ({"feed": "measured", "order": 3}, backtest.Latency(order_ns=3 * MS, measured=True, order_factor=0.0)),
    ],
)
def test_latency_is_read_in_each_of_its_forms(store, measured, given, made):
    assert measured
    assert read(store, given)[0] == made


def test_readings_say_what_was_measured_and_when(store, measured):
    readings = " ".join(read(store, {"feed": "measured"})[1])
    assert f"Feed latency of x:A: p50 {measured.p50_ms:.3g} ms" in readings
    assert "1 ms are taken for the least" in readings
    assert "latencyMs.order is not given" in readings


@pytest.mark.parametrize(
    ("given", "words", "field"),
    [
        ("measured", "not a number", ""),
        ({"feed": "mesured"}, 'neither milliseconds nor {"least": 1, "most": 5} nor "measured"', ".feed"),
        ({"feed": -1}, "0 or more", ".feed"),
        ({"feed": True}, "neither milliseconds", ".feed"),
        ({"order": {"least": 5, "most": 4}}, "backtest.latencyMs.order.least or more", ".order.most"),
        ({"order": {"least": 5}}, "is missing", ".order.most"),
        ({"order": {"least": 5, "mots": 6}}, "did you mean `most`", ".order.mots"),
        ({"feed": {"measured": 2}}, "only the order has a factor", ".feed"),
        ({"order": "measured"}, 'give "feed": "measured" as well', ".order"),
        ({"feed": "measured", "order": {"measured": -1}}, "0 or more", ".order.measured"),
        ({"feed": "measured", "order": {"measured": 1, "least": 2}}, "is no field", ".order.least"),
        ({"seed": 1.5}, "not a whole number", ".seed"),
    ],
)
def test_a_latency_that_cannot_be_is_refused_at_its_field(store, measured, given, words, field):
    assert measured
    with pytest.raises(InvalidRequest) as refusal:
        read(store, given)
    assert words in refusal.value.message
    assert refusal.value.details["field"] == f"backtest.latencyMs{field}"


@pytest.mark.parametrize("fills", ["bars", "ticks"])
@pytest.mark.parametrize(
    ("given", "word"), [({"feed": "measured"}, "measured"), ({"order": {"least": 1, "most": 2}}, "drawn")]
)
def test_fills_that_know_one_delay_refuse_what_varies(store, measured, fills, given, word):
    assert measured
    with pytest.raises(InvalidRequest, match=f"is {word}, and fills on {fills}"):
        read(store, given, fills=fills)
    assert read(store, {"order": {"least": 2, "most": 2}}, fills=fills)[0] == backtest.Latency(order_ns=2 * MS)


def test_a_symbol_without_a_series_is_refused_and_told_how_to_measure(store, measured):
    assert measured
    with pytest.raises(NotFound, match="atlasd calibrate latency x:BLIND") as refusal:
        read(store, {"feed": "measured"}, A, BLIND)
    assert (refusal.value.code, refusal.value.details["field"]) == ("CALIBRATION_NOT_FOUND", "backtest.latencyMs.feed")
    with pytest.raises(NotFound, match="atlasd calibrate latency x:BLIND"):
        stored_latency(store, "BLIND")


def a_spec(*instruments, **latency):
    return backtest.BacktestSpec(
        name="made up",
        markets=tuple(backtest.Market(instrument=each, source=Timeframe.SEC_1) for each in instruments),
        timeframe=Timeframe.SEC_1,
        program=backtest.Rules(),
        costs=backtest.Costs(maker_rate=0.0, taker_rate=0.0),
        latency=backtest.Latency(**latency),
        fills="book",
    )


def test_a_job_gets_the_series_of_each_of_its_symbols(store, measured):
    assert latencies_of(store, a_spec(A, BLIND)) == [None, None]
    (series,) = latencies_of(store, a_spec(A, measured=True))
    assert series.time_ns.size == measured.buckets
    with pytest.raises(NotFound, match="x:BLIND has not been measured"):
        latencies_of(store, a_spec(A, BLIND, measured=True))


def test_assumptions_say_each_directions_latency():
    assert latency_words(a_spec(A)) == []
    assert latency_words(a_spec(A, feed_ns=MS, feed_spread_ns=4 * MS, order_ns=2 * MS)) == [
        "events are seen 1 to 5 ms later",
        "orders are at the venue 2 ms later",
    ]
    assert latency_words(a_spec(A, measured=True, order_factor=1.5, order_ns=MS)) == [
        "events are seen the symbol's measured feed latency later",
        "orders are at the venue 1 ms and 1.5 x the symbol's measured feed latency later",
    ]


@pytest.mark.parametrize("path", ["feed", "feed.least", "order.measured", "seed"])
def test_set_reaches_each_part_of_a_latency(path):
    changed = resolve_set({"strategy": {}, "backtest": {}}, f"backtest.latencyMs.{path}=3")
    found = changed["backtest"]["latencyMs"]
    for name in path.split("."):
        found = found[name]
    assert found == 3
