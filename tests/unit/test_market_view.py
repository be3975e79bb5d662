"""Stretches of a series for a chart: few points, and every extreme among them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.errors import InvalidRequest, NotFound
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Bars, Instrument, Timeframe
from daemon.core.ticks import Stream, ticks
from daemon.engine.curves import extremes
from daemon.research import market_view as module
from daemon.research.market_view import ViewQuery, market_view
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig

START_NS = 19_000 * NS_PER_DAY
START_MS = START_NS // 10**6
MINUTE_MS = 60_000
TRADES, BARS = 150_000, 20_000
PRICES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=60)


def price():
    """Prices with one spike each way."""
    found = 618_000 + np.cumsum(np.random.default_rng(5).integers(-2, 3, TRADES))
    found[70_001], found[90_002] = 900_000, 300_000
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with Environment(tmp_path_factory.mktemp("view"), StoreConfig(sync=False)) as env:
        store = BarStore(env)
        times = START_NS + np.arange(TRADES) * NS_PER_SECOND
        rows = {"time_ns": times, "price": price(), "size": np.ones(TRADES, dtype=np.int64)}
        quotes = {"bid": price() - 1, "ask": price() + 1, "bid_size": rows["size"], "ask_size": rows["size"]}
        for made in (
            ticks(Stream.TRADES, price_decimals=1, size_decimals=0, **rows),
            ticks(Stream.QUOTES, price_decimals=1, size_decimals=0, time_ns=times, **quotes),
        ):
            with BulkWriter(store.ticks, Instrument("venue", "BTC"), made.stream) as writer:
                writer.add(made)
                writer.finish()
        close = 100 + np.sin(np.arange(BARS) / 50)
        minutes = Bars(
            START_NS + np.arange(BARS) * 60 * NS_PER_SECOND, close, close + 1, close - 1, close, np.ones(BARS)
        )
        instrument = Instrument("venue", "SPY")
        env.write(lambda transaction: store.merge(transaction, instrument, Timeframe.MIN_1, minutes, replace=False))
        yield store


@pytest.fixture
def view(store):
    return lambda symbol, **fields: market_view(store, ViewQuery(symbol=symbol, **fields))


def test_candles_are_the_shortest_that_fit(view):
    def ending(minutes):
        return view("SPY", start=str(START_MS), end=str(START_MS + minutes * MINUTE_MS), points=500)

    assert [ending(each).timeframe for each in (400, 501, 2_600, 9_000, 20_000)] == [
        "1Min", "5Min", "15Min", "1Hour", "1Hour"
    ]  # fmt: skip
    hour = ending(20_000)
    assert len(hour.columns["timestamp"]) == 334
    assert not hour.is_decimated
    assert sum(hour.columns["volume"]) == BARS
    assert hour.columns["high"][0] == max(view("SPY", timeframe="1Min", points=5_000).columns["high"][:15])


def test_longer_bars_than_there_are_names_for_are_joined(view):
    found = view("SPY", timeframe="1Min", points=100)
    assert found.timeframe == "200 x 1Min"
    assert found.is_decimated
    assert found.rows == BARS
    assert len(found.columns["close"]) in (100, 101)
    assert sum(found.columns["volume"]) == BARS
    assert max(found.columns["high"]) == max(view("SPY", timeframe="1Min", points=5_000).columns["high"])


@pytest.mark.parametrize("points", [10, 11, 400, 5_000])
@pytest.mark.parametrize("stream", ["trades", "quotes"])
def test_ticks_keep_every_extreme_and_no_more_points_than_asked_for(view, stream, points):
    found = view("BTC", stream=stream, points=points)
    names = [name for name in found.columns if name != "timestamp"]
    assert found.rows == TRADES
    assert found.is_decimated
    assert 4 <= len(found.columns["timestamp"]) <= points
    assert found.columns["timestamp"] == sorted(found.columns["timestamp"])
    for name in names:
        shift = {"bid": -0.1, "ask": 0.1}.get(name, 0)
        assert max(found.columns[name]) == pytest.approx(90_000 + shift)
        assert min(found.columns[name]) == pytest.approx(30_000 + shift)


def test_zooming_in_gives_more_until_every_tick_is_there(view):
    near = view("BTC", stream="trades", start=str(START_MS + 70_000_000), end=str(START_MS + 70_100_000), points=500)
    assert (near.rows, near.is_decimated) == (100, False)
    assert near.columns["price"] == (price()[70_000:70_100] / 10).tolist()


def test_bars_are_made_of_trades_where_there_are_no_others(view):
    found = view("BTC", points=100)
    assert (found.stream, found.timeframe) == ("bars", "1Hour")
    assert sum(found.columns["volume"]) == TRADES


def test_an_empty_range_is_no_error(view):
    found = view("SPY", start="2030-01-01", end="2030-01-02")
    assert (found.rows, found.columns["close"]) == (0, [])


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"points": 9}, "INVALID_REQUEST"),
        ({"points": 5_001}, "INVALID_REQUEST"),
        ({"stream": "depth"}, "INVALID_REQUEST"),
        ({"stream": "nonsense"}, "INVALID_REQUEST"),
        ({"timeframe": "volume:5"}, "INVALID_TIMEFRAME"),
        ({"start": "2022-01-09", "end": "2022-01-08"}, "INVALID_DATE_RANGE"),
    ],
)
def test_what_is_no_view_is_refused(view, fields, code):
    with pytest.raises(InvalidRequest) as refused:
        view("SPY", **fields)
    assert refused.value.code == code


def test_a_stream_that_is_not_stored_is_not_found(view):
    with pytest.raises(NotFound):
        view("SPY", stream="trades")


@pytest.mark.parametrize("fields", [{"stream": "trades"}, {"timeframe": "1Min"}])
def test_a_range_that_would_take_long_is_refused(view, monkeypatch, fields):
    monkeypatch.setattr(module, "MOST_ROWS", 100_000)
    with pytest.raises(InvalidRequest) as refused:
        view("BTC", **fields)
    assert refused.value.code == "INVALID_DATE_RANGE"


@given(PRICES, st.integers(1, 20), st.integers(0, 60))
def test_extremes_of_parts_are_those_of_the_whole(prices, width, cut):
    column = np.array(prices)
    times = np.arange(column.size, dtype=np.int64) * 3
    parts = []
    for first, stop in ((0, cut), (cut, column.size)):
        rows = extremes(times[first:stop], column[first:stop], 0, width)
        parts.append((times[first:stop][rows], column[first:stop][rows]))
    joined = [np.concatenate(each) for each in zip(*parts, strict=True)]
    again = extremes(joined[0], joined[1], 0, width)
    whole = extremes(times, column, 0, width)
    assert joined[0][again].tolist() == times[whole].tolist()
    for span in np.unique(times // width):
        of_span = column[times // width == span]
        shown = column[whole][times[whole] // width == span]
        assert (shown.min(), shown.max()) == (of_span.min(), of_span.max())
        assert shown.size <= 2
