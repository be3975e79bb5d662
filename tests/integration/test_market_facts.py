"""What the store knows beside prices: what volumes count, and funding; alone, and through a daemon."""

import json
import re
import zipfile
import zlib

import numpy as np
import pytest

from daemon.core.market import NS_PER_HOUR, Bars, BarTable, Instrument, Timeframe
from daemon.ingest import uploads
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from daemon.store.funding import FundingStore

HEADER = "timestamp,open,high,low,close,volume\n"
RATES = "calc_time,funding_interval_hours,last_funding_rate\n1704067200000,8,0.00037409\n1704096000000,8,-0.0001\n"
JAN_1 = 1_704_067_200_000_000_000
KLINE = "1704067200000,100,101,99,100,7,1704070799999,551.25,42,2.5,250.1,0\n"


def bars(*hours, volume=5):
    return HEADER + "".join(f"2024-01-01T{hour:02}:00:00Z,10,12,9,11,{volume}\n" for hour in hours)


@pytest.fixture(scope="module")
def served(serve, threads, tmp_path_factory):
    """A daemon over an empty data folder, for the tests of this module."""
    return serve(tmp_path_factory.mktemp("facts") / "data", *threads)


@pytest.fixture(params=["alone", "through a daemon"])
def place(request, tmp_path):
    """A data folder that nobody or a daemon has; each test names a venue of its own."""
    if request.param == "alone":
        return tmp_path / "data"
    return request.getfixturevalue("served").folder


@pytest.fixture
def run(atlasd_inside, place):
    return lambda *arguments: atlasd_inside(*arguments, "--data-dir", place)


@pytest.fixture
def venue(request):
    """A venue of this test alone."""
    return "v" + str(zlib.crc32(request.node.name.encode()))


def written(folder, text, name="file.csv"):
    (folder / name).write_text(text)
    return folder / name


def fails(done, code, exit_code=1):
    assert done.returncode == exit_code, (done.stdout, done.stderr)
    assert re.search(rf"error: .+ \[{code}\]\n", done.stderr), done.stderr
    return done.stderr


def succeeds(done):
    assert done.returncode == 0, done.stderr
    return done


def listed(run, venue):
    everything = json.loads(run("data", "symbols", "--format", "json").stdout)
    return [each for each in everything if each["symbol"].startswith(f"{venue}:")]


# What volumes count.


def test_the_unit_of_volumes_is_stored_listed_and_kept(run, venue, tmp_path):
    options = ("--symbol", "BTC/USDT", "--venue", venue, "--timeframe", "1Hour")
    succeeds(run("import", "bars", written(tmp_path, bars(0, 1)), *options, "--volume-unit", "quote"))
    succeeds(run("import", "bars", written(tmp_path, bars(2)), *options))
    assert [(each["rows"], each["volume_unit"]) for each in listed(run, venue)] == [(3, "quote")]
    for replace in ((), ("--replace",)):
        done = run("import", "bars", written(tmp_path, bars(2, 3)), *options, "--volume-unit", "base", *replace)
        said = fails(done, "BARS_CONFLICT")
        assert "volumes count base units, those of the stored bars" in said
        assert "--volume-unit; --replace changes that of a series only with a file that holds every stored bar" in said
    whole = written(tmp_path, bars(0, 1, 2, 3, volume=6))
    succeeds(run("import", "bars", whole, *options, "--volume-unit", "base", "--replace"))
    assert [(each["rows"], each["volume_unit"]) for each in listed(run, venue)] == [(4, "base")]


def test_units_that_do_not_exist_and_those_of_archives_are_refused(run, tmp_path):
    options = ("--symbol", "X", "--timeframe", "1Hour")
    assert run("import", "bars", written(tmp_path, bars(0)), *options, "--volume-unit", "lots").returncode == 2
    archive = tmp_path / "BTCUSD_PERP-1h-2024-01-01.zip"
    archive.write_bytes(b"")
    done = run("import", "bars", archive, "--volume-unit", "quote")
    assert "volumes of archives of klines are stored in base units" in fails(done, "INVALID_REQUEST", 2)


def test_coin_margined_klines_are_stored_in_base_units(run, place, venue, tmp_path):
    name = "BTCUSD_PERP-1h-2024-01-01"
    with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
        archive.writestr(f"{name}.csv", KLINE)
    succeeds(run("import", "bars", tmp_path / f"{name}.zip", "--venue", venue))
    (series,) = listed(run, venue)
    assert series["volume_unit"] == "base"
    with Environment(place, StoreConfig(), readonly=True) as env:
        bars = BarStore(env).read(Instrument(*series["symbol"].split(":")), Timeframe.HOUR_1)
    assert bars.volume.tolist() == [551.25]


def test_the_unit_is_told_over_http_and_checked(served, cli, tmp_path):
    options = ("--symbol", "SOL", "--venue", "told", "--timeframe", "1Hour", "--volume-unit", "quote")
    succeeds(cli("import", "bars", written(tmp_path, bars(0)), *options, "--data-dir", served.folder))
    told = {each["symbol"]: each["volume_unit"] for each in served.rows("/api/v1/data/symbols")}
    assert told["told:SOL"] == "quote"
    body = {"upload": "0" * 32, "venue": "told", "symbol": "SOL", "timeframe": "1Hour", "source": "x"}
    answer = served.request("POST", "/api/v1/imports", body | {"volume_unit": "lots"})
    assert (answer.status, answer.body["error"]["code"]) == (400, "INVALID_REQUEST")
    assert "volume_unit" in answer.body["error"]["message"]


# Funding.


def funding_of(folder, *name):
    with Environment(folder, StoreConfig(), readonly=True) as env:
        times, rates = FundingStore(env).read(Instrument(*name))
    return times, rates


def test_funding_is_imported_listed_and_read_back_exactly(run, place, venue, tmp_path):
    done = succeeds(run("import", "funding", written(tmp_path, RATES), "--symbol", "BTC/USDT", "--venue", venue))
    told = f"{venue}:BTC/USDT funding: 2 rows from 2024-01-01T00:00:00Z to 2024-01-01T08:00:00Z: 2 added\n"
    assert done.stdout == told
    assert "Times are epoch milliseconds" in done.stderr
    again = run("import", "funding", tmp_path / "file.csv", "--symbol", "btc/usdt", "--venue", venue)
    assert again.stdout.endswith(": 0 added, 2 stored already\n")
    (series,) = listed(run, venue)
    assert series.pop("bytes") > 0
    assert series == {
        "symbol": f"{venue}:BTC/USDT",
        "stream": "funding",
        "timeframe": None,
        "rows": 2,
        "first": "2024-01-01T00:00:00Z",
        "last": "2024-01-01T08:00:00Z",
        "gaps": 0,
        "volume_unit": None,
    }
    times, rates = funding_of(place, venue, "BTC/USDT")
    np.testing.assert_array_equal(times, [JAN_1, JAN_1 + 8 * NS_PER_HOUR])
    np.testing.assert_array_equal(rates, [0.00037409, -0.0001])


def test_rates_that_differ_are_a_conflict_unless_replaced(run, place, venue, tmp_path):
    words = ("--symbol", "ETH", "--venue", venue)
    succeeds(run("import", "funding", written(tmp_path, RATES), *words))
    other = written(tmp_path, RATES.replace("-0.0001", "0.0002"))
    said = fails(run("import", "funding", other, *words), "FUNDING_CONFLICT")
    assert "1 rates differ from stored ones" in said
    assert "--replace takes the file's" in said
    done = succeeds(run("import", "funding", other, *words, "--replace"))
    assert done.stdout.endswith(": 0 added, 1 stored already, 1 replaced\n")
    assert funding_of(place, venue, "ETH")[1].tolist() == [0.00037409, 0.0002]


def test_what_is_wrong_with_one_file_of_rates_does_not_stop_the_others(run, place, venue, tmp_path):
    files = [
        written(tmp_path, RATES.replace("-0.0001", "1.5"), "a.csv"),
        written(tmp_path, RATES.replace("1704096000000", "1704067200000"), "b.csv"),
        written(tmp_path, RATES, "c.csv"),
        tmp_path / "none.csv",
    ]
    done = run("import", "funding", *files, "--symbol", "SOL", "--venue", venue)
    said = fails(done, "FUNDING_INVALID")
    assert "a.csv line 3: rate 1.5 is no fraction" in said
    assert "b.csv lines 2 and 3: two different rates for 2024-01-01T00:00:00Z" in said
    assert "[SOURCE_NOT_FOUND]" in said
    assert done.stdout.endswith("4 files, 2 rows: 2 added, 0 stored already, 0 replaced; 3 files kept out\n")
    assert funding_of(place, venue, "SOL")[1].size == 2


def test_funding_belongs_to_the_stored_symbol_where_no_venue_is_named(run, place, venue, tmp_path):
    symbol = venue.upper()
    made = ("--symbol", f"{symbol}-PERP", "--venue", venue, "--timeframe", "1Hour")
    succeeds(run("import", "bars", written(tmp_path, bars(0)), *made))
    succeeds(run("import", "funding", written(tmp_path, RATES), "--symbol", f"{symbol}/PERP"))
    assert funding_of(place, venue, f"{symbol}-PERP")[0].size == 2
    succeeds(run("import", "funding", written(tmp_path, RATES), "--symbol", f"{symbol}9"))
    assert funding_of(place, "local", f"{symbol}9")[0].size == 2
    fails(run("import", "funding", tmp_path / "file.csv", "--symbol", "no symbol"), "INVALID_SYMBOL", 2)


def test_funding_is_verified_and_deleted(atlasd_inside, tmp_path):
    folder = ("--data-dir", tmp_path / "data")
    succeeds(atlasd_inside("import", "funding", written(tmp_path, RATES), "--symbol", "BTC", *folder))
    assert "local:BTC funding: 2 rows in 1 chunks: sound" in atlasd_inside("data", "verify", *folder).stdout
    delete = ("data", "delete", "BTC", "--stream", "funding", "--yes", *folder)
    assert atlasd_inside(*delete, "--start", "2024-01-02").stdout == "0 rows deleted\n"
    assert atlasd_inside(*delete).stdout == "2 rows deleted\n"
    assert atlasd_inside("data", "symbols", *folder).stderr == "nothing to list\n"


def test_the_route_of_funding_takes_only_what_was_left_for_it(served):
    body = {"upload": "0" * 32, "venue": "local", "symbol": "BTC", "source": "x.csv"}
    row = np.array([1.0])
    bar = BarTable(Bars(np.array([JAN_1]), row, row, row, row, row), np.array([2]), ())
    left = uploads.leave(served.folder / "spool", bar)
    wrong = ({}, {"upload": "../x"}, {"venue": "no venue"}, {"rate": [1]}, {"replace": "yes"}, {"upload": left})
    for fields in wrong:
        answer = served.request("POST", "/api/v1/imports/funding", body | fields)
        assert answer.status == 400, answer.body
    assert "holds 7 columns, not the 3" in answer.body["error"]["message"]
