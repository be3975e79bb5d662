"""`atlasd export`: files that keep every digit, that come back by `atlasd import`, and that cost no memory."""

import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from daemon.app.cli.main import app
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Instrument
from daemon.core.ticks import Stream, ticks
from daemon.research.tables import Survey
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig

START_NS = 19_000 * NS_PER_DAY
BTC = Instrument("kraken", "BTC-USDT")
ROWS = 70_000


def write(folder, instrument, *blocks):
    with Environment(folder, StoreConfig(sync=False)) as env:
        store = BarStore(env)
        for rows in blocks:
            with BulkWriter(store.ticks, instrument, rows.stream) as writer:
                writer.add(rows)
                writer.finish()


def read(folder, instrument, stream):
    """Rows as the store has them: times, ids, and prices and sizes as decimal numbers."""
    with Environment(folder, StoreConfig(), readonly=True) as env:
        rows = BarStore(env).ticks.read(instrument, stream)
    scales = rows.price_decimals, rows.size_decimals
    return [column.tolist() for column in rows.columns], scales


def trades(count, first=0, **changes):
    numbers = np.arange(first, first + count)
    columns = {
        "time_ns": START_NS + numbers // 3 * 1_234_567,
        "id": numbers,
        "price": 618_003 + numbers % 977,
        "size": 1 + numbers % 99_991,
        "side": np.where(numbers % 2, 1, -1),
    }
    return ticks(Stream.TRADES, price_decimals=1, size_decimals=5, **(columns | changes))


def atlasd(*arguments):
    """Run a command in this process: most of the time of another one would be its start."""
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bars_files):
    """Trades, quotes and depth of BTC-USDT, trades of two sources as MIXED, and SYNA's bars."""
    folder = tmp_path_factory.mktemp("export") / "data"
    numbers = np.arange(500)
    times = {"time_ns": START_NS + numbers * 7, "local_ns": START_NS + numbers * 7 + 5_000_000, "id": numbers}
    quotes = {"bid": 100_000 + numbers, "ask": 100_001 + numbers, "bid_size": numbers, "ask_size": numbers + 3}
    side, flags = np.where(numbers % 2, 1, -1), np.where(numbers < 100, 1, 0)
    levels = {"side": side, "flags": flags, "price": 100_000 + numbers, "size": numbers % 7}
    write(
        folder,
        BTC,
        trades(ROWS),
        ticks(Stream.QUOTES, price_decimals=8, size_decimals=3, **times, **quotes),
        ticks(Stream.DEPTH, price_decimals=8, size_decimals=3, **times, **levels),
    )
    later = trades(100, 1_000, local_ns=START_NS + NS_PER_DAY + np.arange(100))
    write(folder, Instrument("kraken", "MIXED"), trades(1_000), later._replace(size_decimals=7))
    path = bars_files["SYNA", "15Min"]
    done = atlasd("import", "bars", path, "--symbol", "SYNA", "--timeframe", "15Min", "--data-dir", folder)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def export(folder, tmp_path):
    """Export to a file of this name; returns its path."""

    def run(name, *arguments):
        done = atlasd("export", *arguments, "--output", tmp_path / name, "--data-dir", folder)
        assert done.exit_code == 0, done.output
        return tmp_path / name

    return run


# What files hold.


def test_parquet_keeps_times_decimals_and_words(export):
    path = export("trades.parquet", "BTCUSDT", "--stream", "trades")
    table = pq.read_table(path)
    assert table.schema.names == ["timestamp", "id", "price", "size", "side"]
    assert table.schema.field("timestamp").type == pa.timestamp("ns", tz="UTC")
    assert table.schema.field("price").type == pa.decimal128(18, 1)
    assert table.schema.field("size").type == pa.decimal128(18, 5)
    assert table.num_rows == ROWS
    assert table.column("timestamp").cast(pa.int64())[4].as_py() == START_NS + 1_234_567
    first = table.slice(0, 2).drop_columns("timestamp").to_pylist()
    assert first == [
        {"id": 0, "price": Decimal("61800.3"), "size": Decimal("0.00001"), "side": "sell"},
        {"id": 1, "price": Decimal("61800.4"), "size": Decimal("0.00002"), "side": "buy"},
    ]


def test_csv_shows_decimals_as_they_are(export):
    stretch = ("--start", "2022-01-08", "--end", "2022-01-08T00:00:00.002Z")
    path = export("trades.csv", "BTCUSDT", "--stream", "trades", *stretch)
    assert path.read_text().splitlines() == [
        "timestamp,id,price,size,side",
        "2022-01-08T00:00:00.000000000Z,0,61800.3,0.00001,sell",
        "2022-01-08T00:00:00.000000000Z,1,61800.4,0.00002,buy",
        "2022-01-08T00:00:00.000000000Z,2,61800.5,0.00003,sell",
        "2022-01-08T00:00:00.001234567Z,3,61800.6,0.00004,buy",
        "2022-01-08T00:00:00.001234567Z,4,61800.7,0.00005,sell",
        "2022-01-08T00:00:00.001234567Z,5,61800.8,0.00006,buy",
    ]


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_what_is_not_known_of_some_rows_is_null(export, form):
    path = export(f"mixed.{form}", "MIXED", "--stream", "trades")
    table = pq.read_table(path) if form == "parquet" else pa.csv.read_csv(path)
    assert table.column("local_timestamp").null_count == 1_000
    assert table.column("local_timestamp")[1_000].as_py().date().isoformat() == "2022-01-09"


def test_rows_with_more_decimals_widen_the_column(export):
    table = pq.read_table(export("mixed.parquet", "MIXED", "--stream", "trades"))
    assert table.schema.field("size").type == pa.decimal128(18, 7)
    assert table.column("size")[0].as_py() == Decimal("0.00001")
    assert table.column("size")[1_000].as_py() == Decimal("0.0001001")


def test_a_series_that_gets_more_decimals_meanwhile_is_written_anew(export, monkeypatch):
    surveyed = []

    def early_schema(self, history, real=Survey.schema):
        found = real(self, history)
        size = found.get_field_index("size")
        early = found.set(size, found.field(size).with_type(pa.decimal128(18, 5)))
        surveyed.append(found if surveyed else early)
        return surveyed[-1]

    monkeypatch.setattr(Survey, "schema", early_schema)
    table = pq.read_table(export("mixed.parquet", "MIXED", "--stream", "trades"))
    assert (len(surveyed), table.num_rows) == (2, 1_100)


def test_bars_may_be_of_any_kind(export):
    hours = pq.read_table(export("hours.parquet", "SYNA", "--timeframe", "1Hour"))
    assert hours.schema.names == ["timestamp", "open", "high", "low", "close", "volume"]
    assert hours.num_rows == 375
    volume = pq.read_table(export("volume.parquet", "BTCUSDT", "--timeframe", "volume:100"))
    assert min(volume.column("volume").to_pylist()) >= 100
    seconds = pa.csv.read_csv(export("seconds.csv", "BTCUSDT", "--timeframe", "1Sec"))
    assert seconds.num_rows == ROWS // 3 * 1_234_567 // NS_PER_SECOND + 1


# There and back.


@pytest.mark.parametrize("stream", ["trades", "quotes", "depth"])
def test_ticks_come_back_as_they_were(export, folder, tmp_path, stream):
    for form in ("parquet", "csv"):
        path, copy = export(f"{stream}.{form}", "BTCUSDT", "--stream", stream), tmp_path / f"{form}-copy"
        options = ("--source", form, "--symbol", BTC.symbol, "--venue", BTC.venue, "--data-dir", copy)
        done = atlasd("import", stream, path, *options)
        assert done.exit_code == 0, done.output
        assert read(copy, BTC, Stream(stream)) == read(folder, BTC, Stream(stream))


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_bars_come_back_as_they_were(export, folder, form):
    path = export(f"bars.{form}", "SYNA", "--timeframe", "15Min")
    done = atlasd("import", "bars", path, "--symbol", "SYNA", "--timeframe", "15Min", "--data-dir", folder)
    assert done.exit_code == 0, done.output
    assert "0 added, 1500 stored already" in done.stdout


# Whole, or not at all.


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("XYZ", "--stream", "trades"), 1, "INVALID_SYMBOL"),
        (("BTCUSDT", "--stream", "agg_trades"), 1, "NO_ROWS"),
        (("BTCUSDT", "--stream", "trades", "--start", "2030-01-01"), 1, "NO_ROWS"),
        (("SYNA", "--timeframe", "1Hour", "--start", "2030-01-01"), 1, "NO_ROWS"),
        (("SYNA", "--timeframe", "1Min"), 1, "NO_BARS"),
        (("SYNA",), 2, "INVALID_TIMEFRAME"),
        (("BTCUSDT", "--stream", "news"), 2, "INVALID_REQUEST"),
        (("BTCUSDT", "--stream", "trades", "--start", "soon"), 2, "INVALID_DATE_RANGE"),
    ],
)
def test_an_export_that_cannot_be_leaves_nothing_behind(folder, tmp_path, arguments, code, reason):
    done = atlasd("export", *arguments, "--output", tmp_path / "none.parquet", "--data-dir", folder)
    assert (done.exit_code, done.stderr.rstrip()[-len(reason) - 1 : -1]) == (code, reason)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_a_folder_that_is_not_there_is_refused(folder, tmp_path):
    done = atlasd("export", "SYNA", "--timeframe", "1Hour", "--output", tmp_path / "no" / "x.csv", "--data-dir", folder)
    assert (done.exit_code, "OUTPUT_UNWRITABLE" in done.stderr) == (1, True)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told apart there only")
def test_an_export_of_ten_times_the_rows_takes_no_more_memory(tmp_path):
    peaks = {}
    for count in (600_000, 6_000_000):
        write(tmp_path / str(count), BTC, *(trades(600_000, first) for first in range(0, count, 600_000)))
        peaks[count] = peak_of_export(tmp_path, count)
    assert peaks[6_000_000] < peaks[600_000] + (48 << 20)


def peak_of_export(folder, count):
    """Most memory of its own that an export has, without pages of the store that the system keeps mapped."""
    command = ["export", "BTCUSDT", "--stream", "trades", "--output", folder / f"{count}.parquet"]
    process = subprocess.Popen([sys.executable, "-m", "daemon", *command, "--data-dir", folder / str(count)])
    most = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        if "RssAnon:" in status:
            most = max(most, int(status.partition("RssAnon:")[2].split()[0]) * 1024)
        time.sleep(0.01)
    assert process.returncode == 0
    return most
