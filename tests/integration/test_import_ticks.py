"""`atlasd import trades`, `quotes`, `depth`, and what `atlasd data` says of them afterwards."""

import contextlib
import csv
import gzip
import hashlib
import io
import itertools
import json
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from daemon.core.errors import AtlasError
from daemon.core.market import NS_PER_SECOND, Instrument
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream, ticks
from daemon.store import instruments, keys, ledger
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from daemon.store.tick_chunks import KEY_STREAMS

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "binance"
SPOT_FILE = SHARED / "spot" / "trades" / "BTCUSDT-trades-2024-08-09.zip"
PERP_FILE = SHARED / "futures-um" / "trades" / "BTCUSDT-trades-2024-08-08.zip"
SPOT_CAPTURE = SHARED / "streams" / "spot-btcusdt-20240809.gz"
PERP_CAPTURE = SHARED / "streams" / "futures-um-btcusdt-20240808.gz"
real = pytest.mark.skipif(not SHARED.exists(), reason=f"real market data is not here: {SHARED}")

SPOT, PERP = Instrument("binance", "BTCUSDT"), Instrument("binance", "BTCUSDT-PERP")
DAY_MS = 86_400_000
FIRST_MS = 1_723_161_600_000  # 2024-08-09
DAYS = ("2024-08-09", "2024-08-10", "2024-08-11")


def archive(folder, day, ids, price="1.50", name="BTCUSDT", checksum=None):
    """A day's archive of spot trades, a second apart."""
    start_ms = FIRST_MS + DAYS.index(day) * DAY_MS
    text = "".join(
        f"{number},{price},2.5,1.0,{start_ms + place * 1_000},{number % 2 == 0},True\n"
        for place, number in enumerate(ids)
    )
    return zipped(folder, f"{name}-trades-{day}", text, checksum)


def zipped(folder, name, text, checksum=None):
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(zipfile.ZipInfo(f"{name}.csv"), text)
    if checksum is not None:
        sha256 = checksum or hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_name(f"{path.name}.CHECKSUM").write_text(f"{sha256}  {path.name}\n")
    return path


@pytest.fixture
def files(tmp_path):
    (tmp_path / "files").mkdir()
    return tmp_path / "files"


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def run(atlasd_inside, data):
    """Run `atlasd` over a data folder of this test's own."""
    return lambda *arguments: atlasd_inside(*arguments, "--data-dir", data)


def rows(folder, instrument=SPOT, stream=Stream.TRADES):
    with Environment(folder, StoreConfig(), readonly=True) as env:
        return BarStore(env).ticks.read(instrument, stream)


def ids(folder, instrument=SPOT, stream=Stream.TRADES):
    return rows(folder, instrument, stream).column("id").tolist()


def count(folder):
    """How many trades are stored already; the store itself may be half made."""
    if (folder / "atlas.lmdb").exists():
        with contextlib.suppress(AtlasError):
            return rows(folder).size
    return 0


def listed(run, *words):
    done = run("data", *words, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def succeeded(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


def only_error(done, code, exit_code=1):
    assert done.returncode == exit_code, done.stderr
    assert re.search(rf"^error: .+ \[{code}\]\n\Z", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


# Real archives.


@real
@pytest.mark.parametrize(("path", "instrument", "count"), [(SPOT_FILE, SPOT, 10_147), (PERP_FILE, PERP, 21_313)])
def test_a_real_archive_is_stored_to_the_last_digit(run, data, path, instrument, count):
    told = succeeded(run("import", "trades", path))
    assert told.startswith(f"{instrument.key} trades: {count:,} rows from 2024-08-0")
    assert f": {count:,} added" in told
    with zipfile.ZipFile(path) as packed:
        text = packed.read(packed.namelist()[0]).decode()
    lines = [line for line in csv.reader(io.StringIO(text)) if line[0].isdigit()]
    stored = rows(data, instrument)
    price, size = 10.0**stored.price_decimals, 10.0**stored.size_decimals
    found = zip(*(stored.column(name).tolist() for name in ("id", "price", "size", "side", "time_ns")), strict=True)
    wanted = {
        (int(line[0]), float(line[1]), float(line[2]), SELL if line[5].lower() == "true" else BUY, int(line[4]))
        for line in lines
    }
    assert {(number, p / price, s / size, side, at // 1_000_000) for number, p, s, side, at in found} == wanted
    (series,) = listed(run, "symbols")
    assert (series["symbol"], series["stream"], series["rows"]) == (instrument.key, "trades", count)
    assert succeeded(run("data", "verify")).splitlines()[-1] == "1 series, 0 damaged"


@real
def test_a_real_archive_again_is_known_by_its_bytes(run):
    succeeded(run("import", "trades", SPOT_FILE))
    assert succeeded(run("import", "trades", SPOT_FILE)) == f"{SPOT_FILE.name}: imported before\n"
    assert "10,147 stored already" in succeeded(run("import", "trades", SPOT_FILE, "--replace"))


@real
def test_a_spot_archive_is_not_taken_for_a_perpetual(run):
    done = run("import", "trades", SPOT_FILE, "--symbol", "BTCUSDT-PERP")
    message = only_error(done, "INVALID_SYMBOL", 2)
    assert SPOT_FILE.name in message
    assert "--symbol BTCUSDT " in message
    assert listed(run, "symbols") == []
    succeeded(run("import", "trades", SPOT_FILE, "--symbol", "BTCUSDT-PERP", "--venue", "mine"))
    assert listed(run, "symbols")[0]["symbol"] == "mine:BTCUSDT-PERP"


# Real recordings.


@real
@pytest.mark.parametrize(
    ("path", "symbol", "trades"),
    [(SPOT_CAPTURE, "BTCUSDT", 10_147), (PERP_CAPTURE, "BTCUSDT-PERP", 21_313)],
    ids=["spot", "futures"],
)
def test_a_real_recording_holds_trades_quotes_and_a_book(run, data, path, symbol, trades):
    for stream in ("trades", "quotes", "depth"):
        told = succeeded(run("import", stream, path, "--source", "binance-stream", "--symbol", symbol))
        assert told.startswith(f"binance:{symbol} {stream}: ")
    series = {each["stream"]: each for each in listed(run, "symbols")}
    assert series["trades"]["rows"] == trades
    assert series["quotes"]["rows"] > series["trades"]["rows"]
    book = rows(data, Instrument("binance", symbol), Stream.DEPTH)
    assert book.size == series["depth"]["rows"]
    has_snapshot = bool((book.column("flags") & DepthFlag.SNAPSHOT).any())
    assert has_snapshot is (path == PERP_CAPTURE)
    assert succeeded(run("data", "verify")).splitlines()[-1] == "3 series, 0 damaged"


@real
def test_a_recording_of_what_an_archive_has_stored_adds_nothing(run, data):
    succeeded(run("import", "trades", SPOT_FILE))
    told = succeeded(run("import", "trades", SPOT_CAPTURE, "--source", "binance-stream", "--symbol", "BTC/USDT"))
    assert "0 added, 10,147 stored already" in told
    assert len(ids(data)) == 10_147


# Made recordings.


def message(second, stream, **fields):
    return f"{(1_723_161_600 + second) * NS_PER_SECOND} " + json.dumps({"stream": stream, "data": fields}) + "\n"


def trade_message(number, symbol="BTCUSDT"):
    at = FIRST_MS + number * 1_000
    fields = {"e": "trade", "E": at, "s": symbol, "t": number, "p": "1.5", "q": "2", "T": at, "m": True}
    return message(number, f"{symbol.lower()}@trade", **fields)


def change(second, first, last):
    at = FIRST_MS + second * 1_000
    fields = {"e": "depthUpdate", "E": at, "s": "BTCUSDT", "U": first, "u": last, "b": [["1.5", "2"]], "a": []}
    return message(second, "btcusdt@depth@100ms", **fields)


def test_a_break_in_a_recorded_book_is_a_hole(run, files):
    path = files / "book.gz"
    path.write_bytes(gzip.compress("".join([change(1, 1, 5), change(2, 6, 9), change(3, 20, 25)]).encode()))
    done = run("import", "depth", path, "--source", "binance-stream", "--symbol", "BTCUSDT")
    assert "1 known holes (`atlasd data gaps`)" in succeeded(done)
    assert "no usable snapshot" in done.stderr
    (hole,) = listed(run, "gaps")
    assert (hole["stream"], hole["reason"], hole["after_id"], hole["before_id"]) == ("depth", "sequence", 9, 20)


BOOK = [change(1, 1, 5), trade_message(2), change(3, 6, 9), trade_message(4)]
CAPTURED = ("--source", "binance-stream", "--symbol", "BTCUSDT")


def recording(files, name, messages):
    path = files / name
    path.write_bytes(gzip.compress("".join(messages).encode()))
    return path


def test_the_depth_of_a_recording_brings_its_trades(run, data, files):
    path = recording(files, "book.gz", BOOK)
    lines = succeeded(run("import", "depth", path, *CAPTURED)).splitlines()
    assert [line.split(" rows ")[0] for line in lines] == ["binance:BTCUSDT depth: 2", "binance:BTCUSDT trades: 2"]
    assert ids(data) == [2, 4]
    assert rows(data, stream=Stream.DEPTH).size == 2
    again = succeeded(run("import", "depth", path, *CAPTURED)).splitlines()
    assert again == ["book.gz: imported before", "book.gz trades: imported before"]
    assert succeeded(run("import", "trades", path, *CAPTURED)) == "book.gz: imported before\n"


def test_the_depth_alone_is_imported_where_only_it_is_asked_for(run, files):
    path = recording(files, "book.gz", BOOK)
    assert len(succeeded(run("import", "depth", path, *CAPTURED, "--only")).splitlines()) == 1
    assert [each["stream"] for each in listed(run, "symbols")] == ["depth"]
    # They can be had later.
    first, second = succeeded(run("import", "depth", path, *CAPTURED)).splitlines()
    assert first == "book.gz: imported before"
    assert second.startswith("binance:BTCUSDT trades: 2 rows")


def test_a_recording_without_trades_has_only_its_depth_and_one_without_depth_is_refused(run, files):
    path = recording(files, "quiet.gz", [change(1, 1, 5), change(2, 6, 9)])
    assert len(succeeded(run("import", "depth", path, *CAPTURED)).splitlines()) == 1
    bare = recording(files, "bare.gz", [trade_message(7)])
    assert "bare.gz" in only_error(run("import", "depth", bare, *CAPTURED), "SOURCE_EMPTY")
    assert [each["stream"] for each in listed(run, "symbols")] == ["depth"]


def test_files_are_counted_once_however_much_each_brings(run, files):
    recording(files, "a.gz", BOOK)
    recording(files, "b.gz", [change(5, 10, 12), trade_message(6)])
    lines = succeeded(run("import", "depth", files, *CAPTURED)).splitlines()
    assert [line.split(" ")[0] for line in lines[:4]] == ["a.gz:", "a.gz:", "b.gz:", "b.gz:"]
    assert lines[4] == "2 files, 6 rows: 6 added, 0 stored already, 0 replaced; 0 files kept out"


@real
def test_a_cut_of_the_futures_recording_brings_book_and_trades(run, data, files):
    with gzip.open(PERP_CAPTURE, "rt") as whole:
        path = recording(files, "cut.gz", itertools.islice(whole, 3_000))
    told = succeeded(run("import", "depth", path, "--source", "binance-stream", "--symbol", "BTCUSDT-PERP"))
    assert [line.split(": ")[0] for line in told.splitlines()] == [f"{PERP.key} depth", f"{PERP.key} trades"]
    book, traded = rows(data, PERP, Stream.DEPTH), rows(data, PERP)
    assert (book.column("flags") & DepthFlag.SNAPSHOT).any()
    assert traded.size > 100
    # What was bought or sold lies where the book stands.
    price = float(np.median(traded.column("price"))) / 10**traded.price_decimals
    assert abs(float(np.median(book.column("price"))) / 10**book.price_decimals / price - 1) < 0.05


def test_of_a_recording_of_several_symbols_one_is_chosen(run, data, files):
    path = files / "both.txt"
    path.write_text("".join(trade_message(number, ("BTCUSDT", "ETHUSDT")[number % 2]) for number in range(10)))
    command = ("import", "trades", path, "--source", "binance-stream")
    succeeded(run(*command, "--symbol", "BTC-USDT"))
    succeeded(run(*command, "--symbol", "ethusdt"))
    assert ids(data) == [0, 2, 4, 6, 8]
    assert ids(data, Instrument("binance", "ETHUSDT")) == [1, 3, 5, 7, 9]
    # Nor is one taken for another.
    only_error(run(*command, "--symbol", "SOLUSDT"), "SOURCE_EMPTY")
    only_error(run(*command), "INVALID_SYMBOL", 2)
    only_error(run(*command, "--symbol", "BTC", "--venue", "mine"), "AMBIGUOUS_SYMBOL")


# Many files.


def test_a_folder_is_imported_file_by_file_and_summed_up(run, data, files):
    for place, day in enumerate(DAYS):
        archive(files, day, range(place * 10, place * 10 + 10))
    told = succeeded(run("import", "trades", files)).splitlines()
    assert [line.partition(": ")[0] for line in told[:3]] == [f"BTCUSDT-trades-{day}.zip" for day in DAYS]
    assert told[3] == "3 files, 30 rows: 30 added, 0 stored already, 0 replaced; 0 files kept out"
    assert ids(data) == list(range(30))
    again = succeeded(run("import", "trades", files)).splitlines()
    assert [line.partition(": ")[2] for line in again[:3]] == ["imported before"] * 3


def test_patterns_choose_files(run, data, files):
    for place, day in enumerate(DAYS):
        archive(files, day, range(place * 10, place * 10 + 10))
    succeeded(run("import", "trades", files / "*-08-1?.zip"))
    assert ids(data) == list(range(10, 30))
    missing = files / "*-2023-*.zip"
    assert str(missing) in only_error(run("import", "trades", missing), "SOURCE_NOT_FOUND")
    (files / "empty").mkdir()
    only_error(run("import", "trades", files / "empty"), "SOURCE_NOT_FOUND")


def test_one_bad_file_among_good_ones_is_kept_out_and_told(run, data, files):
    archive(files, DAYS[0], range(10))
    bad = zipped(
        files, f"BTCUSDT-trades-{DAYS[1]}", f"10,1.5,2,3,{FIRST_MS + DAY_MS},True,True\n11,x,2,3,4,True,True\n"
    )
    archive(files, DAYS[2], range(20, 30))
    done = run("import", "trades", files)
    assert bad.name in only_error(done, "SOURCE_VALUE_INVALID")
    assert done.stdout.splitlines()[-1] == (
        "3 files, 20 rows: 20 added, 0 stored already, 0 replaced; 1 files kept out"
    )
    assert ids(data) == [*range(10), *range(20, 30)]
    holes = {(hole["start"], hole["stop"], hole["reason"]) for hole in listed(run, "gaps")}
    assert (f"{DAYS[1]}T00:00:00.000Z", f"{DAYS[2]}T00:00:00.000Z", "quarantined") in holes
    archive(files, DAYS[1], range(10, 20))
    succeeded(run("import", "trades", files))
    assert listed(run, "gaps") == []
    assert {hole["repaired"] is None for hole in listed(run, "gaps", "--repaired")} == {False}


def test_a_file_that_is_not_there_or_differs_from_its_checksum_is_kept_out(run, data, files):
    path = archive(files, DAYS[0], range(10), checksum="0" * 64)
    good = archive(files, DAYS[1], range(10, 20))
    done = run("import", "trades", path, files / "missing.zip", good)
    assert done.returncode == 1
    assert [line.rpartition(" ")[2] for line in done.stderr.splitlines()] == [
        "[CHECKSUM_DIFFERS]",
        "[SOURCE_NOT_FOUND]",
    ]
    assert ids(data) == list(range(10, 20))


def test_a_file_of_another_kind_names_the_right_command(run, files):
    path = zipped(files, "BTCUSDT-1m-2024-08-09", f"{FIRST_MS},1,4,0.5,2,9,{FIRST_MS + 59_999},1,1,1,1,0\n")
    assert "atlasd import bars" in only_error(run("import", "trades", path), "INVALID_REQUEST", 2)
    other = archive(files, DAYS[0], range(3))
    assert "atlasd import trades" in only_error(run("import", "quotes", other), "INVALID_REQUEST", 2)
    assert "atlasd import trades" in only_error(run("import", "bars", other), "INVALID_REQUEST", 2)


# The same rows again.


def test_a_file_that_the_venue_published_anew_replaces_its_rows(run, data, files):
    path = archive(files, DAYS[0], range(10), checksum="")
    succeeded(run("import", "trades", path))
    archive(files, DAYS[0], range(12), price="1.75", checksum="")
    done = run("import", "trades", path)
    assert "2 added, 10 replaced" in succeeded(done)
    assert "published this file anew" in done.stderr
    stored = rows(data)
    assert stored.column("id").tolist() == list(range(12))
    assert set((stored.column("price") / 10**stored.price_decimals).tolist()) == {1.75}


def test_rows_that_contradict_stored_ones_are_kept_out_whole_unless_they_are_to_replace_them(run, data, files):
    succeeded(run("import", "trades", archive(files, DAYS[0], range(10))))
    text = "time,id,price,size,side\n" + "".join(
        f"{FIRST_MS + number * 1_000},{number},{2.5 if number == 9 else 1.5},2.5,{('sell', 'buy')[number % 2]}\n"
        for number in range(20)
    )
    (files / "mine.csv").write_text(text)
    command = ("import", "trades", files / "mine.csv", "--symbol", "binance:BTCUSDT")
    message = only_error(run(*command), "TICKS_CONFLICT")
    assert "mine.csv" in message
    assert "--replace" in message
    assert ids(data) == list(range(10))
    assert "10 added, 9 stored already, 1 replaced" in succeeded(run(*command, "--replace"))


def test_rows_that_contradict_live_ones_are_kept_out_whole(run, data, files):
    def live(transaction):
        columns = {"price": [15] * 3, "size": [25] * 3, "side": [SELL] * 3}
        times = (FIRST_MS + np.arange(20, 23) * 1_000) * 1_000_000
        made = ticks(Stream.TRADES, time_ns=times, id=[20, 21, 22], **columns, price_decimals=1, size_decimals=1)
        return BarStore(env).ticks.append(transaction, SPOT, made)

    with Environment(data, StoreConfig()) as env:
        env.write(live)
    only_error(run("import", "trades", archive(files, DAYS[0], range(30))), "TICKS_CONFLICT")
    assert ids(data) == [20, 21, 22]


def test_what_was_deleted_can_be_imported_again(run, data, files):
    path = archive(files, DAYS[0], range(10))
    succeeded(run("import", "trades", path))
    succeeded(run("data", "delete", "BTCUSDT", "--stream", "trades", "--yes"))
    assert "10 added" in succeeded(run("import", "trades", path))
    assert ids(data) == list(range(10))


# Killed, and beside a daemon.


def test_an_import_that_was_killed_goes_on_where_it_was(run, cli, data, files):
    for day in range(1, 32):
        start_ms = 1_722_470_400_000 + (day - 1) * DAY_MS
        text = "".join(f"{day * 20_000 + place},1.5,2,3,{start_ms + place * 10},True,True\n" for place in range(20_000))
        zipped(files, f"BTCUSDT-trades-2024-08-{day:02}", text)
    command = [sys.executable, "-m", "daemon", "import", "trades", str(files), "--data-dir", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while count(data) < 3 * 20_000:  # the first of them is in the ledger for certain
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
    kept = rows(data).size
    assert 0 < kept < 31 * 20_000
    done = cli("import", "trades", files, "--data-dir", data)
    told = succeeded(done)
    assert "imported before" in told
    assert ids(data) == list(range(20_000, 32 * 20_000))
    assert listed(run, "gaps") == []
    assert succeeded(run("data", "verify")).endswith("1 series, 0 damaged\n")
    assert list((data / "spool").iterdir()) == []


def sources(folder, stream):
    """What the ledger says of each source but when it was stored."""
    with Environment(folder, StoreConfig(), readonly=True) as env, env.read() as transaction:
        key = keys.series(instruments.number(transaction, SPOT), KEY_STREAMS[stream], 0)
        found = [(s.name, s.sha256, s.verification, s.rows, s.added, s.notes) for s in ledger.sources(transaction, key)]
    return sorted(found)


def test_beside_a_daemon_the_same_is_stored_by_way_of_it(run, cli, serve, threads, tmp_path, data, files):
    for place, day in enumerate(DAYS):
        archive(files, day, range(place * 10, place * 10 + 10), checksum="")
    bad = zipped(files, "BTCUSDT-trades-2024-08-12", "1,x,2,3,4,True,True\n")
    book = files.parent / "book.gz"
    book.write_bytes(gzip.compress("".join([change(1, 1, 5), trade_message(900), change(3, 20, 25)]).encode()))
    commands = (
        ("import", "trades", files),
        ("import", "trades", files),
        ("import", "depth", book, "--source", "binance-stream", "--symbol", "BTCUSDT"),
    )
    daemon = serve(tmp_path / "served", *threads)
    beside = [cli(*command, "--data-dir", daemon.folder) for command in commands]
    alone = [run(*command) for command in commands]
    for one, other in zip(beside, alone, strict=True):
        assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)
    assert bad.name in beside[0].stderr
    assert (
        cli("data", "gaps", "--format", "json", "--data-dir", daemon.folder).stdout
        == run("data", "gaps", "--format", "json").stdout
    )
    assert daemon.end()[0] == 0
    for stream in (Stream.TRADES, Stream.DEPTH):
        for one, other in zip(rows(daemon.folder, stream=stream), rows(data, stream=stream), strict=True):
            np.testing.assert_array_equal(one, other)
        assert sources(daemon.folder, stream) == sources(data, stream)
    assert list((daemon.folder / "spool").iterdir()) == []


# CSV and Parquet.


TABLES = {
    "trades": ("time,id,price,size,side", ["1723161600000,1,1.5,2,buy", "1723161601000,2,1.25,3,sell"]),
    "quotes": ("time,bid,bid_size,ask,ask_size", ["1723161600000,1.5,2,1.75,3", "1723161601000,1.25,2,1.5,3"]),
    "depth": ("time,id,side,price,size", ["1723161600000,1,buy,1.5,2", "1723161601000,2,sell,1.75,0"]),
}


@pytest.mark.parametrize("stream", TABLES)
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_tables_of_any_vendor_are_imported(run, data, files, stream, kind):
    header, lines = TABLES[stream]
    path = files / f"mine.{kind}"
    text = "\n".join([header, *lines, ""])
    if kind == "csv":
        path.write_text(text)
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet as pq

        table = pa.csv.read_csv(io.BytesIO(text.encode()))
        at = table.schema.get_field_index("time")
        pq.write_table(table.set_column(at, "time", table["time"].cast(pa.timestamp("ms", tz="UTC"))), path)
    told = succeeded(run("import", stream, path, "--symbol", "mine:btc"))
    assert told.startswith(f"mine:BTC {stream}: 2 rows from 2024-08-09T00:00:00Z to 2024-08-09T00:00:01Z: 2 added")
    stored = rows(data, Instrument("mine", "BTC"), Stream(stream))
    name = "bid" if stream == "quotes" else "price"
    scale = 1.0 if stored.price_decimals is None else 10.0**stored.price_decimals
    assert (stored.column(name) / scale).tolist() == [
        float(dict(zip(header.split(","), line.split(","), strict=True))[name]) for line in lines
    ]


def test_tables_do_not_say_of_what_they_are(run, files):
    (files / "mine.csv").write_text("\n".join([TABLES["trades"][0], *TABLES["trades"][1], ""]))
    assert "--symbol" in only_error(run("import", "trades", files / "mine.csv"), "INVALID_SYMBOL", 2)
    only_error(run("import", "trades", files / "mine.csv", "--symbol", "a b"), "INVALID_SYMBOL", 2)
    message = only_error(run("import", "quotes", files / "mine.csv", "--symbol", "X"), "SOURCE_COLUMN_MISSING")
    assert "mine.csv" in message
    assert listed(run, "symbols") == []


# Looking at what is stored.


@pytest.fixture
def looked_at(run, files):
    """Two series, one of them with a hole."""
    archive(files, DAYS[0], range(10))
    archive(files, DAYS[1], range(14, 20))
    succeeded(run("import", "trades", files))
    (files / "mine.csv").write_text("\n".join([TABLES["quotes"][0], *TABLES["quotes"][1], ""]))
    succeeded(run("import", "quotes", files / "mine.csv", "--symbol", "mine:BTC"))
    return run


def test_series_of_ticks_are_listed(looked_at):
    first, second = listed(looked_at, "symbols")
    assert first.pop("bytes") > 0
    assert first == {
        "symbol": "binance:BTCUSDT",
        "stream": "trades",
        "timeframe": None,
        "rows": 16,
        "first": "2024-08-09T00:00:00Z",
        "last": "2024-08-10T00:00:05Z",
        "gaps": 1,
        "volume_unit": None,
    }
    assert (second["symbol"], second["stream"], second["gaps"]) == ("mine:BTC", "quotes", 0)
    assert len(looked_at("data", "symbols").stdout.splitlines()) == 3


def test_gaps_are_listed_of_one_symbol_or_all(looked_at):
    (hole,) = listed(looked_at, "gaps")
    assert {name: hole[name] for name in ("symbol", "stream", "missing", "after_id", "before_id", "reason")} == {
        "symbol": "binance:BTCUSDT",
        "stream": "trades",
        "missing": 4,
        "after_id": 9,
        "before_id": 14,
        "reason": "ids",
    }
    assert (hole["start"], hole["stop"]) == ("2024-08-09T00:00:09.000Z", "2024-08-10T00:00:00.000Z")
    assert listed(looked_at, "gaps", "BTC/USDT") == [hole]
    assert listed(looked_at, "gaps", "mine:BTC") == []
    only_error(looked_at("data", "gaps", "NOSUCH"), "INVALID_SYMBOL")
    (found,) = csv.DictReader(io.StringIO(looked_at("data", "gaps", "--format", "csv").stdout))
    assert (found["missing"], found["reason"]) == ("4", "ids")


def test_verification_says_what_is_sound_and_what_is_damaged(looked_at, data):
    assert succeeded(looked_at("data", "verify")).splitlines() == [
        "binance:BTCUSDT trades: 16 rows in 1 chunks: sound",
        "mine:BTC quotes: 2 rows in 1 chunks: sound",
        "2 series, 0 damaged",
    ]
    with Environment(data, StoreConfig()) as env:

        def damage(transaction):
            key, value = next((key, bytes(value)) for key, value in transaction.scan("chunks", b""))
            transaction.put("chunks", key, value[:-1] + bytes([value[-1] ^ 1]))

        env.write(damage)
    done = looked_at("data", "verify")
    assert done.stdout.splitlines()[0].endswith(": DAMAGED")
    assert done.stdout.splitlines()[-1] == "2 series, 1 damaged"
    only_error(done, "STORE_CORRUPT")


def test_figures_say_what_each_series_takes(looked_at):
    figures = listed(looked_at, "stats")
    assert [(each["series"], each["rows"], each["live"]) for each in figures] == [
        ("binance:BTCUSDT trades", 16, 0),
        ("mine:BTC quotes", 2, 0),
        ("file", 18, 0),
    ]
    assert all(each["bytes_per_row"] == round(each["bytes"] / each["rows"], 3) for each in figures)
    assert " bytes in use, " in looked_at("data", "stats").stderr


def test_compaction_joins_what_is_small_and_changes_no_row(looked_at, data):
    before = rows(data)
    told = succeeded(looked_at("data", "compact")).splitlines()
    assert [line.partition(": ")[0] for line in told] == ["binance:BTCUSDT trades", "mine:BTC quotes"]
    assert len(succeeded(looked_at("data", "compact", "mine:BTC")).splitlines()) == 1
    for one, other in zip(before.columns, rows(data).columns, strict=True):
        np.testing.assert_array_equal(one, other)


def test_deletion_is_asked_about_and_of_whole_days(looked_at, data):
    command = ("data", "delete", "BTCUSDT", "--stream", "trades")
    done = looked_at(*command)
    assert done.returncode == 1
    assert "delete 16 rows of binance:BTCUSDT trades?" in done.stderr
    assert rows(data).size == 16
    assert succeeded(looked_at(*command, "--end", DAYS[0], "--yes")) == "10 rows deleted\n"
    assert ids(data) == list(range(14, 20))
    assert succeeded(looked_at(*command, "--end", DAYS[0], "--yes")) == "0 rows deleted\n"
    assert succeeded(looked_at(*command, "--yes")) == "6 rows deleted\n"
    assert [series["symbol"] for series in listed(looked_at, "symbols")] == ["mine:BTC"]
    only_error(looked_at("data", "delete", "BTCUSDT", "--stream", "candles", "--yes"), "INVALID_REQUEST", 2)


def test_beside_a_daemon_compaction_and_deletion_are_refused(serve, threads, looked_at, data):
    daemon = serve(data, *threads)
    for command in (("compact",), ("delete", "BTCUSDT", "--stream", "trades", "--yes")):
        only_error(looked_at("data", *command), "STORE_LOCKED")
    assert len(listed(looked_at, "symbols")) == 2
    assert daemon.end()[0] == 0
    assert rows(data).size == 16


@real
@pytest.mark.parametrize(
    ("name", "symbol"), [("spot-btcusdt-20240809.gz", "BTCUSDT-PERP"), ("futures-um-btcusdt-20240808.gz", "BTCUSDT")]
)
def test_a_recording_of_another_market_is_refused(atlasd_inside, tmp_path, name, symbol):
    path = SHARED / "streams" / name
    data = ("--data-dir", tmp_path / "data")
    done = atlasd_inside("import", "depth", path, "--source", "binance-stream", "--symbol", symbol, *data)
    assert done.returncode == 2
    assert "[INVALID_SYMBOL]" in done.stderr


def test_aggregate_trades_come_back_as_they_were_exported(atlasd_inside, tmp_path):
    path = tmp_path / "agg.csv"
    rows = "1723161600000,61800.3,0.5,buy,7,10,12\n1723161600001,61800.4,1,sell,8,13,13\n"
    path.write_text(f"time,price,size,side,id,first_id,last_id\n{rows}")
    data = ("--data-dir", tmp_path / "data")
    assert atlasd_inside("import", "agg_trades", path, "--symbol", "A", *data).returncode == 0
    out = tmp_path / "out.parquet"
    assert atlasd_inside("export", "A", "--stream", "agg_trades", "--output", out, *data).returncode == 0
    again = atlasd_inside("import", "agg_trades", out, "--symbol", "A", *data)
    assert "0 added, 2 stored already" in again.stdout


def test_a_damaged_series_can_be_deleted_and_imported_again(atlasd_inside, tmp_path):
    path = tmp_path / "trades.csv"
    path.write_text("time,price,size,id\n" + "".join(f"{1723161600000 + n},1.5,2,{n}\n" for n in range(5_000)))
    folder = tmp_path / "data"
    data = ("--data-dir", folder)
    assert atlasd_inside("import", "trades", path, "--symbol", "A", *data).returncode == 0
    with Environment(folder, StoreConfig()) as env:

        def damage(transaction):
            ((key, value),) = [(key, bytes(value)) for key, value in transaction.scan("chunks", b"")]
            transaction.put("chunks", key, value[:-1] + bytes([value[-1] ^ 1]))

        env.write(damage)
    assert atlasd_inside("data", "verify", *data).returncode == 1
    assert "5,000 rows deleted" in atlasd_inside("data", "delete", "A", "--stream", "trades", "--yes", *data).stdout
    assert "5,000 added" in atlasd_inside("import", "trades", path, "--symbol", "A", *data).stdout
    assert atlasd_inside("data", "verify", *data).returncode == 0
