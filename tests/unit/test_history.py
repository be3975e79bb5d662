"""History on request: every stream and kind of bar, in pages of any size, within any range; and as tables and text."""

import io
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import numpy as np
import pytest

from daemon.api.rows import json_pieces, msgpack_pieces
from daemon.core.errors import InvalidRequest, NotFound
from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, NS_PER_SECOND, Bars, Instrument, Timeframe
from daemon.core.ticks import Stream, ticks
from daemon.research import history as module
from daemon.research.history import Cursor, History, Query
from daemon.research.moments import time_range
from daemon.research.tables import Survey, arrow_pieces, csv_pieces
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.codec import to_floats
from daemon.store.env import Environment, StoreConfig

START_NS = 19_000 * NS_PER_DAY  # 2022-01-08
TICKS = Instrument("venue", "BTC-USDT")
SPARSE = Instrument("venue", "SPY")
EXACT = Instrument("venue", "TINY")
TRADES = 150_000
MINE = "venue:BTC-USDT", "bars", "1Hour"

SERIES = [
    {"symbol": "BTCUSDT", "stream": "trades"},
    {"symbol": "BTC/USDT", "stream": "quotes"},
    {"symbol": "BTC-USDT", "stream": "depth"},
    {"symbol": "BTCUSDT", "timeframe": "1Sec"},
    {"symbol": "BTCUSDT", "timeframe": "1Hour"},
    {"symbol": "BTCUSDT", "timeframe": "volume:40.5"},
    {"symbol": "BTCUSDT", "timeframe": "notional:2000000"},
    {"symbol": "SPY", "timeframe": "1Min"},
    {"symbol": "SPY", "timeframe": "15Min"},
    {"symbol": "SPY", "timeframe": "1Day"},
]


def trades():
    """Bursts of one time are frequent; two chunks and more."""
    rng = np.random.default_rng(5)
    times = START_NS + np.cumsum(rng.choice([0, 0, 0, 1_234_567, 700_000_000], TRADES))
    ids, side = np.arange(TRADES), rng.choice([-1, 0, 1], TRADES)
    price, size = 618_000 + rng.integers(-50, 50, TRADES), rng.integers(1, 300_000, TRADES)
    local = np.where(ids % 3 == 0, 0, times + 5_000_001)
    columns = {"time_ns": times, "local_ns": local, "id": ids, "price": price, "size": size, "side": side}
    return ticks(Stream.TRADES, price_decimals=1, size_decimals=5, **columns)


def store_ticks(store, instrument, rows):
    with BulkWriter(store.ticks, instrument, rows.stream) as writer:
        writer.add(rows)
        writer.finish()


def store_bars(env, store, instrument, timeframe, start_ns):
    close = 100 + np.arange(start_ns.size) % 17 / 10
    bars = Bars(start_ns, close, close + 1, close - 1, close + 0.5, np.arange(start_ns.size) / 8)
    env.write(lambda transaction: store.merge(transaction, instrument, timeframe, bars, replace=False))
    return bars


@pytest.fixture(scope="module")
def minutes():
    """Six hours of each day of a month, but for a week in it."""
    days = np.array([day for day in range(30) if not 9 <= day < 16])
    return (START_NS + days[:, None] * NS_PER_DAY + (9 * 60 + np.arange(360)) * 60 * NS_PER_SECOND).ravel()


@pytest.fixture(scope="module")
def store(tmp_path_factory, minutes):
    with Environment(tmp_path_factory.mktemp("history"), StoreConfig(sync=False)) as env:
        store = BarStore(env)
        rows = trades()
        store_ticks(store, TICKS, rows.rows(0, TRADES - 500))
        env.write(lambda transaction: store.ticks.append(transaction, TICKS, rows.rows(TRADES - 500, TRADES)))
        times = START_NS + np.arange(1_000) // 4 * 1_000_000
        numbers = np.arange(1_000)
        quotes = {"bid": 100 + numbers, "ask": 101 + numbers, "bid_size": numbers, "ask_size": numbers + 7}
        store_ticks(store, TICKS, ticks(Stream.QUOTES, price_decimals=2, size_decimals=0, time_ns=times, **quotes))
        side, flags = np.where(numbers % 2, 1, -1), np.where(numbers < 10, 1, 0)
        levels = {"side": side, "flags": flags, "price": 100 + numbers, "size": numbers % 5, "id": numbers}
        store_ticks(store, TICKS, ticks(Stream.DEPTH, price_decimals=2, size_decimals=3, time_ns=times, **levels))
        store_bars(env, store, SPARSE, Timeframe.MIN_1, minutes)
        # More digits than a float64 tells, in times of this century.
        columns = {
            "time_ns": START_NS + np.arange(3),
            "price": np.array([12, 1_234_567_890_123_456_789, 100_000_000]),
            "size": np.array([100, 250, 1_000]),
        }
        store_ticks(store, EXACT, ticks(Stream.TRADES, price_decimals=8, size_decimals=2, **columns))
        yield store


@pytest.fixture
def walk(store):
    """All rows of one walk, as tuples; and the cursor behind them."""

    def rows(**fields):
        history = History(store, Query(**fields))
        found = []
        for block in history.blocks():
            found += zip(*(column.tolist() for column in block.columns.values()), strict=True)
        return found, history.next_cursor

    return rows


def ns(*moment):
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * NS_PER_SECOND


# Rows.


def test_trades_come_as_they_are_stored(walk):
    found, cursor = walk(symbol="BTCUSDT", stream="trades")
    expected = trades()
    assert cursor is None
    assert found == list(zip(*(column.tolist() for column in expected.columns), strict=True))


def test_bars_that_are_stored_come_as_they_are(store, walk, minutes):
    found, _ = walk(symbol="SPY", timeframe="1Min")
    assert [row[0] for row in found] == minutes.tolist()
    assert found == list(zip(*(column.tolist() for column in store.read(SPARSE, Timeframe.MIN_1)), strict=True))


@pytest.mark.parametrize("timeframe", ["5Min", "1Hour", "1Day"])
def test_longer_bars_are_those_of_all_stored_ones(store, walk, timeframe):
    from daemon.engine.bars import lengthen

    whole = lengthen(store.read(SPARSE, Timeframe.MIN_1), Timeframe(timeframe).ns)
    assert walk(symbol="SPY", timeframe=timeframe)[0] == list(zip(*(each.tolist() for each in whole), strict=True))


@pytest.mark.parametrize("timeframe", ["1Sec", "15Min", "1Day"])
def test_bars_of_trades_are_those_of_one_pass(walk, timeframe):
    from daemon.engine.tick_bars import bars_of

    whole = bars_of([trades()], Timeframe(timeframe))
    assert walk(symbol="BTCUSDT", timeframe=timeframe)[0] == list(zip(*(each.tolist() for each in whole), strict=True))


@pytest.mark.parametrize(("measure", "threshold"), [("volume", 40.5), ("notional", 2_000_000)])
def test_measured_bars_are_the_complete_ones_of_one_pass(walk, measure, threshold):
    from daemon.engine.tick_bars import Measure, ThresholdBars

    whole = ThresholdBars(Measure(measure), threshold).feed(trades())
    found, _ = walk(symbol="BTCUSDT", timeframe=f"{measure}:{threshold}")
    assert found == list(zip(*(each.tolist() for each in whole), strict=True))


# Pages.


@pytest.mark.parametrize("query", SERIES, ids=lambda query: f"{query.get('stream', 'bars')}-{query.get('timeframe')}")
@pytest.mark.parametrize("window", [65_536, 50])
def test_pages_join_to_the_whole(walk, monkeypatch, query, window):
    monkeypatch.setattr(module, "_WINDOW_ROWS", window)
    whole, _ = walk(**query)
    assert whole
    few = min(len(whole), 40)
    for limit, rows in (
        (1, min(few, 12)),
        (3, few),
        (few, few),
        (len(whole) // 3 + 1, len(whole)),
        (len(whole), len(whole)),
    ):
        found, cursor = [], None
        while len(found) < rows:
            page, cursor = walk(**query, limit=limit, cursor=cursor)
            found += page
            assert len(page) == limit or cursor is None
        assert found == whole[: len(found)]
        assert (cursor is None) == (len(found) == len(whole))


@pytest.mark.parametrize("query", SERIES, ids=lambda query: f"{query.get('stream', 'bars')}-{query.get('timeframe')}")
def test_a_page_of_a_range_ends_with_it(walk, query):
    whole, _ = walk(**query)
    start, end = whole[len(whole) // 3][0] // 10**6, whole[len(whole) // 2][0] // 10**6 + 1
    part, _ = walk(**query, start=str(start), end=str(end))
    found, cursor = walk(**query, start=str(start), end=str(end), limit=max(1, len(part) // 2))
    while cursor is not None:
        page, cursor = walk(**query, start=str(start), end=str(end), limit=max(1, len(part) // 2), cursor=cursor)
        found += page
    assert found == part
    if ":" not in query.get("timeframe", ""):
        assert part == [row for row in whole if start * 10**6 <= row[0] < end * 10**6]


def test_a_burst_of_one_time_is_cut_anywhere(walk):
    whole, _ = walk(symbol="BTCUSDT", stream="quotes", limit=12)
    assert len({row[0] for row in whole}) == 3
    cursor, found = None, []
    for _ in range(12):
        page, cursor = walk(symbol="BTCUSDT", stream="quotes", limit=1, cursor=cursor)
        found += page
    assert found == whole


def test_a_bar_that_begins_in_the_range_is_whole(walk):
    start, end = "2022-01-08T09:30:00Z", "2022-01-08T11:20:00Z"
    (first, second), _ = walk(symbol="SPY", timeframe="1Hour", start=start, end=end)
    everything, _ = walk(symbol="SPY", timeframe="1Hour")
    assert [first, second] == everything[1:3]
    assert first[0] == START_NS + 10 * NS_PER_HOUR


def test_a_range_without_rows_has_none(walk):
    assert walk(symbol="SPY", timeframe="1Min", start="2030-01-01") == ([], None)
    assert walk(symbol="BTCUSDT", timeframe="1Day", end="2020-01-01") == ([], None)
    assert walk(symbol="BTCUSDT", timeframe="volume:1e9".replace("e9", "000000000")) == ([], None)
    assert walk(symbol="BTCUSDT", stream="trades", start="2021-01-01", end="2021-12-31", limit=3) == ([], None)


def test_rows_stored_behind_the_place_come_with_the_next_page(tmp_path):
    with Environment(tmp_path / "late", StoreConfig(sync=False)) as env:
        store, rows = BarStore(env), trades().rows(0, 300)
        store_ticks(store, TICKS, rows.rows(0, 200))
        first = History(store, Query(symbol="BTCUSDT", stream="trades", limit=150))
        count = sum(block.size for block in first.blocks())
        env.write(lambda transaction: store.ticks.append(transaction, TICKS, rows.rows(200, 300)))
        rest = History(store, Query(symbol="BTCUSDT", stream="trades", cursor=first.next_cursor))
        assert count + sum(block.size for block in rest.blocks()) == 300


# Requests.


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, (None, None)),
        ("2024-01-31", "2024-01-31", (ns(2024, 1, 31), ns(2024, 2, 1))),
        ("2024-01-31T14:30", "2024-01-31T14:30:05", (ns(2024, 1, 31, 14, 30), ns(2024, 1, 31, 14, 30, 5))),
        ("2024-01-31 14:30:00Z", None, (ns(2024, 1, 31, 14, 30), None)),
        ("2024-01-31T14:30:00+02:00", None, (ns(2024, 1, 31, 12, 30), None)),
        ("2024-01-31T14:30:00.123456789Z", None, (ns(2024, 1, 31, 14, 30) + 123_456_789, None)),
        (
            "1706711400123",
            "1706711400124",
            (1_706_711_400_123 * 10**6, 1_706_711_400_124 * 10**6),
        ),
        ("0", "1678-01-01", None),
        ("0", None, (0, None)),
        ("1960-01-01T00:00:00.5Z", None, (ns(1960, 1, 1) + 5 * 10**8, None)),
        (None, "2261-12-31", (None, ns(2262, 1, 1))),
    ],
)
def test_times_are_days_clocks_or_milliseconds(start, end, expected):
    if expected is None:
        with pytest.raises(InvalidRequest):
            time_range(start, end)
    else:
        assert time_range(start, end) == expected


@pytest.mark.parametrize(
    "text",
    ["", "today", "2024-13-01", "2024-02-30", "2024-W01-1", "20240101", "1706711400", "2024-01-01T25:00", "0001-01-01",
     "9999-12-31", "2024-01-01T00:00:00 02:00", "99999999999999999", "9999999999999999", "2024-1-1", "٢٠٢٤-01-01"],
)  # fmt: skip
def test_a_time_that_is_none_is_refused(text):
    for start, end in ((text, None), (None, text)):
        with pytest.raises(InvalidRequest) as refused:
            time_range(start, end)
        assert refused.value.code == "INVALID_DATE_RANGE"


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"symbol": "XYZ"}, NotFound, "INVALID_SYMBOL"),
        ({"symbol": "a b"}, InvalidRequest, "INVALID_SYMBOL"),
        ({"stream": "news", "timeframe": None}, InvalidRequest, "INVALID_REQUEST"),
        ({"stream": "trades"}, InvalidRequest, "INVALID_REQUEST"),
        ({"stream": "agg_trades", "timeframe": None}, NotFound, "NO_ROWS"),
        ({"timeframe": None}, InvalidRequest, "INVALID_TIMEFRAME"),
        ({"timeframe": "2Hour"}, InvalidRequest, "INVALID_TIMEFRAME"),
        ({"timeframe": "volume:0"}, InvalidRequest, "INVALID_TIMEFRAME"),
        ({"timeframe": "volume:-1"}, InvalidRequest, "INVALID_TIMEFRAME"),
        ({"timeframe": "volume:inf"}, InvalidRequest, "INVALID_TIMEFRAME"),
        ({"timeframe": "ticks:100"}, InvalidRequest, "INVALID_TIMEFRAME"),
        ({"symbol": "SPY", "timeframe": "1Sec"}, NotFound, "NO_BARS"),
        ({"symbol": "SPY", "timeframe": "volume:100"}, NotFound, "NO_BARS"),
        ({"start": "2024-02-01", "end": "2024-01-31"}, InvalidRequest, "INVALID_DATE_RANGE"),
        ({"start": "2024-02-01T00:00Z", "end": "2024-02-01T00:00Z"}, InvalidRequest, "INVALID_DATE_RANGE"),
        ({"cursor": ""}, InvalidRequest, "INVALID_CURSOR"),
        ({"cursor": "nothing"}, InvalidRequest, "INVALID_CURSOR"),
        ({"cursor": "é"}, InvalidRequest, "INVALID_CURSOR"),
        ({"cursor": Cursor("venue:SPY", "bars", "1Min", 1, 1).encode()}, InvalidRequest, "INVALID_CURSOR"),
        ({"cursor": Cursor(*MINE, 1, 0).encode()}, InvalidRequest, "INVALID_CURSOR"),
        (
            {"cursor": Cursor(*MINE, 2**63 - 1, 1).encode()},
            InvalidRequest,
            "INVALID_CURSOR",
        ),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(store, fields, kind, code):
    with pytest.raises(kind) as refused:
        History(store, Query(**({"symbol": "BTCUSDT", "timeframe": "1Hour"} | fields)))
    assert refused.value.code == code


# Encodings.


def decoded_json(history):
    return msgspec.json.decode(b"".join(json_pieces(history)))


def test_json_tells_times_to_the_nanosecond_and_what_is_unknown(store):
    page = decoded_json(History(store, Query(symbol="BTCUSDT", stream="trades", limit=2_500)))
    assert list(page) == ["symbol", "stream", "timeframe", "rows", "next_cursor"]
    assert (page["symbol"], page["stream"], page["timeframe"]) == ("venue:BTC-USDT", "trades", None)
    names = ["timestamp", "nanos", "local_timestamp", "local_nanos", "id", "price", "size", "side"]
    assert list(page["rows"][0]) == names
    expected = trades().rows(0, 2_500)
    for row, time, local, number, price, size, side in zip(
        page["rows"], *(column.tolist() for column in expected.columns), strict=True
    ):
        assert row["timestamp"] * 10**6 + row["nanos"] == time
        known = None if row["local_nanos"] is None else row["local_timestamp"] * 10**6 + row["local_nanos"]
        assert (known or 0) == local
        assert (row["id"], row["price"], row["size"]) == (number, price / 10, size / 10**5)
        assert row["side"] == {1: "buy", -1: "sell", 0: "unknown"}[side]


def test_json_keeps_every_digit(store):
    text = b"".join(json_pieces(History(store, Query(symbol="TINY", stream="trades"))))
    prices = [row["price"] for row in msgspec.json.decode(text, type=dict, strict=True)["rows"]]
    assert b'"price":12345678901.23456789,' in text
    assert b'"price":0.00000012,' in text
    assert prices[2] == 1.0


def test_levels_are_bids_and_asks(store):
    rows = decoded_json(History(store, Query(symbol="BTCUSDT", stream="depth", limit=20)))["rows"]
    assert [row["side"] for row in rows[:3]] == ["ask", "bid", "ask"]
    assert [row["flags"] for row in rows] == [1] * 10 + [0] * 10


@pytest.mark.parametrize("query", SERIES, ids=lambda query: f"{query.get('stream', 'bars')}-{query.get('timeframe')}")
@pytest.mark.parametrize("limit", [1, 15, 16, 1_024, 1_025, 3_000])
def test_messagepack_says_what_json_says(store, query, limit):
    json = decoded_json(History(store, Query(**query, limit=limit)))
    packed = msgspec.msgpack.decode(b"".join(msgpack_pieces(History(store, Query(**query, limit=limit)))))
    assert packed == json


@pytest.mark.parametrize("query", SERIES, ids=lambda query: f"{query.get('stream', 'bars')}-{query.get('timeframe')}")
def test_arrow_and_csv_say_what_json_says(store, query):
    import pyarrow as pa
    from pyarrow import csv

    json = decoded_json(History(store, Query(**query, limit=9_000)))["rows"]
    table = pa.ipc.open_stream(b"".join(arrow_pieces(History(store, Query(**query, limit=9_000))))).read_all()
    text = b"".join(csv_pieces(History(store, Query(**query, limit=9_000))))
    lines = csv.read_csv(io.BytesIO(text))
    assert table.num_rows == len(json) == lines.num_rows
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_timestamp(column.type):
            numbers = column.cast(pa.int64()).to_pylist()
            assert [None if each is None else each // 10**6 for each in numbers] == [row[name] for row in json]
            assert lines.column(name).cast(column.type).cast(pa.int64()).to_pylist() == numbers
        else:
            assert column.to_pylist() == [row[name] for row in json] == lines.column(name).to_pylist()


def test_csv_shows_every_decimal_as_it_was(store):
    text = b"".join(csv_pieces(History(store, Query(symbol="TINY", stream="trades")))).decode()
    assert text.splitlines() == [
        "timestamp,local_timestamp,id,price,size,side",
        "2022-01-08T00:00:00.000000000Z,,,0.00000012,1,unknown",
        "2022-01-08T00:00:00.000000001Z,,,12345678901.23456789,2.5,unknown",
        "2022-01-08T00:00:00.000000002Z,,,1,10,unknown",
    ]


def test_formats_of_no_rows_have_their_columns(store):
    import pyarrow as pa

    query = Query(symbol="SPY", timeframe="1Min", start="2030-01-01")
    names = ["timestamp", "open", "high", "low", "close", "volume"]
    assert decoded_json(History(store, query))["rows"] == []
    assert msgspec.msgpack.decode(b"".join(msgpack_pieces(History(store, query))))["rows"] == []
    assert b"".join(csv_pieces(History(store, query))).decode() == ",".join(names) + "\n"
    assert pa.ipc.open_stream(b"".join(arrow_pieces(History(store, query)))).read_all().column_names == names


def test_a_survey_finds_types_that_hold_every_digit(store):
    import pyarrow as pa

    history = History(store, Query(symbol="TINY", stream="trades"))
    survey = Survey(history.kinds)
    for block in history.blocks():
        survey.add(block)
    types = survey.schema(history)
    assert types.names == ["timestamp", "price", "size", "side"]
    assert types.field("price").type == pa.decimal128(38, 8)
    assert types.field("size").type == pa.decimal128(18, 2)


@pytest.mark.parametrize("decimals", [0, 1, 8, 18])
def test_numbers_become_the_nearest_floats(decimals):
    numbers = np.array([0, 1, -7, 618_003, 2**53 - 1, 2**53 + 1, 1_234_567_890_123_456_789, -(2**63) + 1])
    for some in (numbers[:4], numbers):
        expected = [float(Decimal(int(number)).scaleb(-decimals)) for number in some]
        assert to_floats(some, decimals).tolist() == expected
