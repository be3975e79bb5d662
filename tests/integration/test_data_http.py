"""Stored market data over HTTP: what there is, its history in four formats, and what a long stream costs the daemon."""

import gzip
import http.client
import json
import sys
import time
import zlib
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import zstandard

from daemon.core.market import NS_PER_DAY, NS_PER_SECOND

DATA = "/api/v1/data"
HISTORY = f"{DATA}/history"
TRADES = 1_000_000
BARS = 12_000
START_NS = 19_000 * NS_PER_DAY
BAR_FIELDS = ["timestamp", "open", "high", "low", "close", "volume"]


@pytest.fixture(scope="module")
def data(serve, cli, tmp_path_factory):
    """A daemon with a million trades of BTC-USDT, whose ids leave some out, and minute bars of SOL/USDT."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("data-http")
    rng = np.random.default_rng(3)
    numbers = np.arange(TRADES)
    columns = {
        "timestamp": pa.array(START_NS + numbers * 250_000_001).cast(pa.timestamp("ns", tz="UTC")),
        "id": numbers + (numbers > 700_000) * 5,
        "price": pa.array([str(each) for each in (618_003 + np.cumsum(rng.integers(-2, 3, TRADES))) / 10]),
        "size": rng.integers(1, 100, TRADES),
        "side": pa.array(np.where(rng.integers(0, 2, TRADES), "buy", "sell")),
    }
    pq.write_table(pa.table(columns), folder / "trades.parquet")
    close = 100 + np.cumsum(rng.normal(size=BARS)).round(2) / 10
    times = pa.array(START_NS + np.arange(BARS) * 60 * NS_PER_SECOND).cast(pa.timestamp("ns", tz="UTC"))
    prices = {"open": close, "high": close + 1, "low": close - 1, "close": close, "volume": np.arange(BARS) / 8}
    pq.write_table(pa.table({"timestamp": times, **prices}), folder / "bars.parquet")
    started = serve(folder / "store")
    for command in (
        ("trades", folder / "trades.parquet", "--source", "parquet", "--symbol", "BTC-USDT", "--venue", "kraken"),
        ("bars", folder / "bars.parquet", "--timeframe", "1Min", "--symbol", "SOL/USDT", "--venue", "kraken"),
    ):
        done = cli("import", *command, "--data-dir", started.folder)
        assert done.returncode == 0, done.stderr
    return started


def open_stream(data, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", data.ready["port"], timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET", path, headers=data.bearer | given)
    return connection, connection.getresponse()


def fetch(data, path, **headers):
    """Status, headers and the bytes of an answer."""
    connection, response = open_stream(data, path, **headers)
    with response:
        content = response.read()
    connection.close()
    return response.status, response.headers, content


def page(data, symbol, **query):
    words = "&".join(f"{name}={value}" for name, value in query.items())
    answer = data.request("GET", f"{HISTORY}/{symbol}?{words}")
    assert answer.status == 200, answer.body
    return answer.body


def unzstd(content):
    return zstandard.ZstdDecompressor().decompressobj().decompress(content)


def anonymous_bytes(data):
    """Memory of the daemon's own, without pages of the store that the system keeps mapped."""
    status = Path(f"/proc/{data.process.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


# What there is.


def test_symbols_tell_ranges_rows_bytes_and_gaps(data):
    answer = data.request("GET", f"{DATA}/symbols")
    trades, bars = answer.body["results"]
    assert answer.body["next_cursor"] is None
    assert trades.pop("bytes") > 1_000_000
    assert trades == {
        "symbol": "kraken:BTC-USDT",
        "stream": "trades",
        "timeframe": None,
        "rows": TRADES,
        "first": START_NS // 10**6,
        "last": (START_NS + (TRADES - 1) * 250_000_001) // 10**6,
        "gaps": 1,
        "volume_unit": None,
    }
    assert (bars["symbol"], bars["stream"], bars["timeframe"]) == ("kraken:SOL/USDT", "bars", "1Min")
    assert (bars["rows"], bars["gaps"], bars["volume_unit"]) == (BARS, 0, "base")


def test_gaps_tell_what_is_missing_and_where(data):
    everything = data.request("GET", f"{DATA}/gaps").body
    (gap,) = everything["results"]
    assert (gap["symbol"], gap["stream"], gap["missing"], gap["reason"]) == ("kraken:BTC-USDT", "trades", 5, "ids")
    assert (gap["after_id"], gap["before_id"], gap["repaired"]) == (700_000, 700_006, None)
    assert gap["start"] < gap["stop"]
    assert data.request("GET", f"{DATA}/gaps/BTCUSDT?repaired=1").body == everything
    assert data.request("GET", f"{DATA}/gaps/SOL%2FUSDT").body["results"] == []
    assert data.request("GET", f"{DATA}/gaps/XYZ").status == 404


# History.


@pytest.mark.parametrize(
    "symbol", ["SOL%2FUSDT", "sol%2fusdt", "SOLUSDT", "SOL-USDT", "kraken:SOL%2FUSDT", "kraken%3Asolusdt", "SOL_USDT"]
)
def test_a_symbol_is_found_however_its_parts_are_joined(data, symbol):
    body = page(data, symbol, timeframe="1Min", limit=1)
    assert (body["symbol"], body["stream"], body["timeframe"]) == ("kraken:SOL/USDT", "bars", "1Min")
    assert list(body) == ["symbol", "stream", "timeframe", "rows", "next_cursor"]
    assert [list(row) for row in body["rows"]] == [BAR_FIELDS]
    assert body["rows"][0]["timestamp"] == START_NS // 10**6


def test_a_page_has_ten_thousand_rows_unless_it_says_otherwise(data):
    first = page(data, "SOLUSDT", timeframe="1Min")
    rest = page(data, "SOLUSDT", timeframe="1Min", cursor=first["next_cursor"])
    everything = page(data, "SOLUSDT", timeframe="1Min", limit="all")
    assert [len(each["rows"]) for each in (first, rest, everything)] == [10_000, 2_000, 12_000]
    assert first["rows"] + rest["rows"] == everything["rows"]
    assert rest["next_cursor"] is everything["next_cursor"] is None


@pytest.mark.parametrize(("stream", "timeframe"), [("trades", None), ("bars", "1Hour"), ("bars", "volume:100000")])
def test_cursors_give_every_row_once(data, stream, timeframe):
    query = {"stream": stream, "start": "2022-01-08", "end": "2022-01-08T02:00"}
    query |= {"timeframe": timeframe} if timeframe else {}
    if timeframe == "1Hour":
        query["end"] = "2022-01-09"
    whole = page(data, "BTCUSDT", **query, limit="all")["rows"]
    size = len(whole) // 3 + 1
    found, cursor = [], None
    while len(found) < len(whole):
        body = page(data, "BTCUSDT", **query, limit=size, **({"cursor": cursor} if cursor else {}))
        found += body["rows"]
        cursor = body["next_cursor"]
    assert cursor is None
    assert found == whole != []


def test_formats_say_the_same(data):
    import pyarrow as pa

    path = f"{HISTORY}/BTCUSDT?stream=trades&limit=3000&format="
    rows = json.loads(fetch(data, path + "json")[2])["rows"]
    packed = fetch(data, path + "msgpack")
    arrow = fetch(data, path + "arrow")
    text = fetch(data, path + "csv")
    assert msgspec.msgpack.decode(packed[2])["rows"] == rows
    table = pa.ipc.open_stream(arrow[2]).read_all()
    lines = text[2].decode().splitlines()
    assert table.num_rows == len(lines) - 1 == len(rows) == 3_000
    assert table.column("price").to_pylist() == [row["price"] for row in rows]
    assert [float(line.split(",")[3]) for line in lines[1:]] == [row["price"] for row in rows]
    assert lines[1].startswith("2022-01-08T00:00:00.000000000Z,,0,")
    kinds = [each[1]["Content-Type"] for each in (packed, arrow, text)]
    assert kinds == ["application/msgpack", "application/vnd.apache.arrow.stream", "text/csv; charset=utf-8"]


def test_a_bar_page_of_ten_thousand_is_made_quickly(data):
    took = []
    for _ in range(10):
        began = time.perf_counter()
        status, _, content = fetch(data, f"{HISTORY}/SOLUSDT?timeframe=1Min")
        took.append(time.perf_counter() - began)
    assert (status, content.count(b"timestamp")) == (200, 10_000)
    assert min(took) < 0.03


@pytest.mark.parametrize(
    ("accepted", "coding", "expand"),
    [
        ("gzip, deflate", "gzip", gzip.decompress),
        ("deflate", "deflate", zlib.decompress),
        ("gzip;q=0, deflate;q=0.5", "deflate", zlib.decompress),
        (
            "gzip, deflate, br, zstd",
            "zstd",
            unzstd,
        ),
        ("br, gzip;q=0.0", None, bytes),
        ("identity", None, bytes),
    ],
)
@pytest.mark.parametrize("form", ["json", "msgpack", "arrow", "csv"])
def test_answers_are_compressed_as_the_client_asks(data, accepted, coding, expand, form):
    path = f"{HISTORY}/BTCUSDT?stream=trades&limit=5000&format={form}"
    plain = fetch(data, path)[2]
    status, headers, content = fetch(data, path, Accept_Encoding=accepted)
    assert (status, headers["Content-Encoding"]) == (200, coding)
    assert expand(content) == plain
    assert coding is None or len(content) < len(plain) / 2


def test_a_head_request_has_no_body_and_keeps_the_connection(data):
    connection = http.client.HTTPConnection("127.0.0.1", data.ready["port"], timeout=30)
    for method in ("HEAD", "GET"):
        connection.request(method, f"{HISTORY}/SOLUSDT?timeframe=1Min&limit=10", headers=data.bearer)
        with connection.getresponse() as response:
            assert (response.status, bool(response.read())) == (200, method == "GET")
    connection.close()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("XYZ?timeframe=1Min", 404, "INVALID_SYMBOL"),
        ("%20?timeframe=1Min", 400, "INVALID_SYMBOL"),
        ("%ff?timeframe=1Min", 400, "INVALID_SYMBOL"),
        ("SOLUSDT", 400, "INVALID_TIMEFRAME"),
        ("SOLUSDT?timeframe=2Hour", 400, "INVALID_TIMEFRAME"),
        ("SOLUSDT?timeframe=volume:0", 400, "INVALID_TIMEFRAME"),
        ("SOLUSDT?timeframe=1Sec", 404, "NO_BARS"),
        ("SOLUSDT?timeframe=volume:10", 404, "NO_BARS"),
        ("SOLUSDT?stream=trades", 404, "NO_ROWS"),
        ("BTCUSDT?stream=news", 400, "INVALID_REQUEST"),
        ("BTCUSDT?stream=trades&timeframe=1Min", 400, "INVALID_REQUEST"),
        ("BTCUSDT?stream=trades&format=xml", 400, "INVALID_REQUEST"),
        ("BTCUSDT?stream=trades&limit=0", 400, "INVALID_REQUEST"),
        ("BTCUSDT?stream=trades&limit=1000001", 400, "INVALID_REQUEST"),
        ("BTCUSDT?stream=trades&limit=none", 400, "INVALID_REQUEST"),
        ("BTCUSDT?stream=trades&limit=all&format=msgpack", 400, "INVALID_REQUEST"),
        ("BTCUSDT?stream=trades&colour=red", 400, "INVALID_REQUEST"),
        ("BTCUSDT?stream=trades&start=2022-02-01&end=2022-01-31", 400, "INVALID_DATE_RANGE"),
        ("BTCUSDT?stream=trades&start=yesterday", 400, "INVALID_DATE_RANGE"),
        ("BTCUSDT?stream=trades&start=1641600000", 400, "INVALID_DATE_RANGE"),
        ("BTCUSDT?stream=trades&cursor=nothing", 400, "INVALID_CURSOR"),
        ("SOL/USDT?timeframe=1Min", 404, "ROUTE_NOT_FOUND"),
    ],
)
def test_a_question_that_cannot_be_answered_is_refused(data, path, status, code):
    answer = data.request("GET", f"{HISTORY}/{path}")
    assert (answer.status, answer.body["error"]["code"]) == (status, code)


def test_a_cursor_of_another_series_is_refused(data):
    cursor = page(data, "SOLUSDT", timeframe="1Min", limit=1)["next_cursor"]
    answer = data.request("GET", f"{HISTORY}/SOLUSDT?timeframe=1Hour&cursor={cursor}")
    assert (answer.status, answer.body["error"]["code"]) == (400, "INVALID_CURSOR")


# What streams cost.


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told apart there only")
@pytest.mark.parametrize("form", ["json", "csv", "arrow"])
def test_a_long_stream_does_not_grow_the_daemon(data, form):
    path = f"{HISTORY}/BTCUSDT?stream=trades&limit=all&format={form}"
    fetch(data, path.replace("all", "200000"), Accept_Encoding="gzip")
    before = most = anonymous_bytes(data)
    size = 0
    connection, response = open_stream(data, path, Accept_Encoding="gzip")
    with response:
        while piece := response.read(1 << 20):
            size += len(piece)
            most = max(most, anonymous_bytes(data))
    connection.close()
    assert size > 5 << 20
    assert most - before < 24 << 20


@pytest.mark.parametrize("query", ["stream=trades", "timeframe=1Sec", "timeframe=volume:1000000000000"])
def test_a_client_that_leaves_ends_the_work(data, query):
    process = psutil.Process(data.process.pid)
    connection, response = open_stream(data, f"{HISTORY}/BTCUSDT?{query}&limit=all")
    response.read(100)
    response.close()
    connection.close()
    deadline = time.monotonic() + 10
    while True:
        used = sum(process.cpu_times()[:2])
        time.sleep(0.3)
        if sum(process.cpu_times()[:2]) - used < 0.05:
            break
        assert time.monotonic() < deadline
    assert data.request("GET", "/health").status == 200
    assert len(page(data, "BTCUSDT", stream="trades", limit=5)["rows"]) == 5
    assert "Traceback" not in data.complaints.read_text()


def test_a_client_that_does_not_read_holds_the_work_up_and_nothing_else(data):
    connection, response = open_stream(data, f"{HISTORY}/BTCUSDT?stream=trades&limit=300000")
    process = psutil.Process(data.process.pid)
    time.sleep(0.5)
    used = sum(process.cpu_times()[:2])
    time.sleep(0.3)
    assert sum(process.cpu_times()[:2]) - used < 0.1
    assert data.request("GET", "/health").status == 200
    with response:
        assert len(json.loads(response.read())["rows"]) == 300_000
    connection.close()
