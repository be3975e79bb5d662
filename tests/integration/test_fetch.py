"""`atlasd fetch` against venues on this machine: from archives, by requests, and from whatever goes wrong."""

import asyncio
import json
import re
import subprocess
import sys
import time
from datetime import date

import msgspec
import pytest
from aiohttp import web
from venues import coinbase
from venues.binance import Binance, config_text, days_ago, kline, lived, midnight_us
from venues.server import application, serving

from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Instrument, Timeframe
from daemon.core.ticks import Stream
from daemon.store import instruments, keys, ledger
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from daemon.store.tick_chunks import KEY_STREAMS

D1, D2, D3 = "2024-08-07", "2024-08-08", "2024-08-09"
SPOT, PERP = "binance:BTCUSDT", "binance:BTCUSDT-PERP"


class Scene:
    """A venue that is served, and `atlasd fetch` led there."""

    def __init__(self, venue, run, folder, url):
        self.venue = venue
        self.run = run
        self.folder = folder
        self.config = folder.parent / "config.toml"
        self.config.write_text(config_text(url) + coinbase.config_text(url))
        self.places = ("--data-dir", folder, "--config", self.config)
        self.downloads = folder / "downloads"

    def fetch(self, *arguments, venue="binance"):
        return self.run("fetch", venue, *arguments, *self.places)

    def days(self, first, last, *options, symbol="BTCUSDT", venue="binance"):
        return self.fetch(symbol, "--start", first, "--end", last, *options, venue=venue)

    def listed(self, *words):
        """A list of the command line, as rows."""
        done = self.run("data", *words, "--format", "json", *self.places)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def ids(self, key=SPOT, stream=Stream.TRADES):
        with Environment(self.folder, StoreConfig(), readonly=True) as env:
            return BarStore(env).ticks.read(Instrument(*key.split(":")), stream).column("id").tolist()

    def is_stored(self, day):
        """Whether a day's file of trades is in the ledger."""
        with Environment(self.folder, StoreConfig(), readonly=True) as env, env.read() as transaction:
            number = instruments.number(transaction, Instrument(*SPOT.split(":")))
            if number is None:
                return False
            series = keys.series(number, KEY_STREAMS[Stream.TRADES], 0)
            return ledger.source(transaction, series, f"BTCUSDT-trades-{day}.zip") is not None

    def left(self):
        """Files that a fetch has left in the data folder."""
        return sorted(path.name for name in ("downloads", "spool") for path in (self.folder / name).rglob("*.*"))


@pytest.fixture
def scene(tmp_path, atlasd_inside):
    """Binance, alive on three days."""
    venue = Binance(lived(D1, D2, D3))
    with serving(application(venue.handle)) as url:
        yield Scene(venue, atlasd_inside, tmp_path / "data", url)


def rows_of(venue, *days):
    """Ids of the trades of days."""
    spans = [(midnight_us(day), midnight_us(day) + NS_PER_DAY // 1_000) for day in days]
    return [row["t"] for row in venue.market.trades if any(start <= row["T"] < stop for start, stop in spans)]


def archives(asked):
    return [path for path in asked if path.endswith(".zip")]


def answers(status, times=1, word="", **headers):
    """A venue's bad moment: so many requests with a word in their path get this answer."""
    left = [times]

    async def answer(request):
        if word not in request.path or not left[0]:
            return None
        left[0] -= 1
        return web.Response(status=status, headers=headers)

    return answer


def only_error(done, code, exit_code=1):
    """The last line on stderr is one error that ends with the code; nothing looks like a crash."""
    assert done.returncode == exit_code, done.stderr
    assert re.search(rf"^error: .+ \[{code}\]\n\Z", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


# From the archive.


def test_past_days_come_from_the_archive_exactly(scene):
    scene.venue.publish(D1, D3)
    done = scene.days(D1, D3)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == [f"BTCUSDT-trades-{day}.zip" for day in (D1, D2, D3)]
    count = len(scene.venue.market.trades)
    assert lines[3] == f"3 files, {count} rows: {count} added, 0 stored already, 0 replaced; 0 files kept out"
    assert scene.ids() == list(range(1, count + 1))
    (series,) = scene.listed("symbols")
    assert (series["symbol"], series["stream"], series["rows"], series["gaps"]) == (SPOT, "trades", count, 0)
    assert scene.venue.requests("/api/") == []
    assert scene.left() == []


def test_aggregates_are_a_stream_of_their_own(scene):
    scene.venue.publish(D1)
    done = scene.days(D1, D1, "--stream", "agg_trades")
    assert done.returncode == 0, done.stderr
    assert scene.ids(stream=Stream.AGG_TRADES) == list(range(1, 41))
    assert [series["stream"] for series in scene.listed("symbols")] == ["agg_trades"]


def test_a_second_fetch_fetches_nothing_twice(scene):
    scene.venue.publish(D1, D2)
    scene.days(D1, D3)
    scene.venue.asked.clear()
    done = scene.days(D1, D3)
    assert done.returncode == 0, done.stderr
    assert [line.partition(": ")[2] for line in done.stdout.splitlines()[:3]] == ["imported before"] * 3
    # Only whether the archive has meanwhile what it had not is asked.
    assert scene.venue.asked == [f"/data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-{D3}.zip"]


def test_archives_that_were_published_anew_are_fetched_again_on_request(scene):
    scene.venue.publish(D1, D2)
    scene.days(D1, D2)
    path = f"/data/spot/daily/trades/BTCUSDT/BTCUSDT-trades-{D1}.zip"
    first, *_ = [row for row in scene.venue.market.trades if row["T"] >= midnight_us(D1)]
    first["q"] = "777.5"
    scene.venue.publish(D1)
    scene.venue.asked.clear()
    assert scene.days(D1, D2).returncode == 0
    assert archives(scene.venue.asked) == []
    done = scene.days(D1, D2, "--recheck")
    assert done.returncode == 0, done.stderr
    assert archives(scene.venue.asked) == [path]
    assert "1 replaced" in done.stdout
    with Environment(scene.folder, StoreConfig(), readonly=True) as env:
        rows = BarStore(env).ticks.read(Instrument(*SPOT.split(":")), Stream.TRADES)
    assert rows.column("size")[0] / 10**rows.size_decimals == 777.5


def test_archives_are_kept_where_that_is_asked_for(scene):
    scene.venue.publish(D1)
    scene.days(D1, D1, "--keep")
    assert scene.left() == [f"BTCUSDT-trades-{D1}.zip", f"BTCUSDT-trades-{D1}.zip.CHECKSUM"]


def test_a_day_that_the_archive_lacks_is_asked_for_by_requests(scene):
    scene.venue.publish(D1)
    scene.venue.publish(D3)
    done = scene.days(D1, D3)
    assert done.returncode == 0, done.stderr
    assert f"binance requests trades BTCUSDT {D2}: {SPOT} trades: " in done.stdout
    assert scene.ids() == rows_of(scene.venue, D1, D2, D3)
    assert scene.listed("gaps") == []
    assert scene.left() == []


def test_a_day_that_the_venue_has_nothing_of_is_a_hole_until_it_has(scene):
    scene.venue.market.trades = [row for row in scene.venue.market.trades if row["t"] not in rows_of(scene.venue, D2)]
    scene.venue.market.aggregates = [
        row for row in scene.venue.market.aggregates if not midnight_us(D2) <= row["T"] < midnight_us(D3)
    ]
    scene.venue.publish(D1)
    scene.venue.publish(D3)
    scene.venue.on_aggTrades = lambda query: [
        row for row in scene.venue.market.aggregates if row["T"] >= int(query.get("startTime", 0)) * 1_000
    ]
    scene.venue.on_historicalTrades = lambda _query: []
    done = scene.days(D1, D3)
    assert done.returncode == 0, done.stderr
    assert f"{D2}: the venue has nothing" in done.stdout
    holes = {(hole["start"][:10], hole["stop"][:10], hole["reason"]) for hole in scene.listed("gaps")}
    assert (D2, D3, "missing file") in holes
    assert scene.left() == []
    scene.venue.market = lived(D1, D2, D3)
    scene.venue.publish(D2)
    assert scene.days(D1, D3).returncode == 0
    assert scene.listed("gaps") == []
    assert scene.ids() == rows_of(scene.venue, D1, D2, D3)


def test_a_month_that_is_not_published_yet_comes_by_its_days_and_not_twice(scene):
    days = [f"2024-02-{day:02}" for day in range(1, 30)]
    scene.venue.market = lived(*days, steps=3)
    scene.venue.publish(days[0], days[-1])
    done = scene.days(days[0], days[-1])
    assert done.returncode == 0, done.stderr
    assert scene.ids() == rows_of(scene.venue, *days)
    scene.venue.asked.clear()
    text = "".join(f"{t['t']},{t['p']},{t['q']},1,{t['T']},{t['m']},True\n" for t in scene.venue.market.trades)
    scene.venue.put("monthly/trades/BTCUSDT", "BTCUSDT-trades-2024-02", text)
    again = scene.days(days[0], days[-1])
    assert again.stdout.count("imported before") == 29
    assert scene.venue.asked == []


def test_a_month_fills_the_hole_of_a_day(scene):
    days = [f"2024-02-{day:02}" for day in range(1, 30)]
    scene.venue.on_historicalTrades = lambda _query: []
    done = scene.days(days[4], days[4])
    assert "the venue has nothing" in done.stdout
    assert [hole["reason"] for hole in scene.listed("gaps")] == ["missing file"]
    scene.venue.market = lived(*days, steps=3)
    text = "".join(f"{t['t']},{t['p']},{t['q']},1,{t['T']},{t['m']},True\n" for t in scene.venue.market.trades)
    scene.venue.put("monthly/trades/BTCUSDT", "BTCUSDT-trades-2024-02", text)
    assert scene.days(days[0], days[-1]).returncode == 0
    assert scene.listed("gaps") == []


def test_a_file_that_differs_from_its_checksum_is_kept_out_and_the_rest_goes_on(scene):
    _, wrong, _ = scene.venue.publish(D1, D3)
    scene.venue.checksums[wrong] = "0" * 64
    done = scene.days(D1, D3)
    assert f"BTCUSDT-trades-{D2}.zip" in only_error(done, "CHECKSUM_DIFFERS")
    assert done.stdout.splitlines()[-1].endswith("1 files kept out")
    assert scene.ids() == rows_of(scene.venue, D1, D3)
    reasons = {(hole["start"][:10], hole["reason"]) for hole in scene.listed("gaps")}
    assert (D2, "quarantined") in reasons
    assert [path.parent.name for path in scene.downloads.rglob(f"*{D2}*.zip")] == ["quarantine"]
    del scene.venue.checksums[wrong]
    assert scene.days(D1, D3).returncode == 0
    assert scene.ids() == rows_of(scene.venue, D1, D2, D3)
    assert scene.listed("gaps") == []


def test_a_file_of_nonsense_is_kept_out_kept_and_not_fetched_again(scene):
    scene.venue.publish(D1)
    scene.venue.put("daily/trades/BTCUSDT", f"BTCUSDT-trades-{D2}", "1,2\n")
    path = scene.venue.put("daily/trades/BTCUSDT", f"BTCUSDT-trades-{D2}", f"7,1.5,x,1.0,{midnight_us(D2)},True,True\n")
    done = scene.days(D1, D2)
    assert f"BTCUSDT-trades-{D2}.zip" in only_error(done, "SOURCE_VALUE_INVALID")
    assert scene.ids() == rows_of(scene.venue, D1)
    assert [hole["reason"] for hole in scene.listed("gaps")] == ["quarantined"]
    assert [name for name in scene.left() if name.endswith(".zip")] == [path.rpartition("/")[2]]
    scene.venue.asked.clear()
    only_error(scene.days(D1, D2), "SOURCE_VALUE_INVALID")
    assert archives(scene.venue.asked) == []


def test_rows_that_contradict_stored_ones_are_kept_out_and_the_rest_goes_on(scene):
    scene.venue.publish(D1)
    scene.days(D1, D1)
    for row in scene.venue.market.trades:
        row["p"] = "1.00"
    wrong = scene.venue.market.trades[0]
    text = f"{wrong['t']},{wrong['p']},{wrong['q']},1.0,{wrong['T']},{wrong['m']},True\n"
    scene.venue.put("daily/trades/BTCUSDT", f"BTCUSDT-trades-{D2}", text)
    done = scene.days(D2, D3)
    only_error(done, "TICKS_CONFLICT")
    assert scene.ids() == rows_of(scene.venue, D1, D3)


def test_spot_and_futures_of_one_name_do_not_mix(scene):
    name = f"BTCUSDT-1m-{D1}"
    for branch, first in (("spot", 0), ("futures/um", 600)):
        text = "".join(",".join(map(str, kline(D1, first + minute, micro=False))) + "\n" for minute in range(5))
        scene.venue.put("daily/klines/BTCUSDT/1m", name, text, branch)
    for symbol in ("BTCUSDT", "BTCUSDT-PERP"):
        done = scene.days(D1, D1, "--stream", "bars", "--timeframe", "1Min", "--keep", symbol=symbol)
        assert done.returncode == 0, done.stderr
    first = {series["symbol"]: series["first"][11:16] for series in scene.listed("symbols")}
    assert first == {SPOT: "00:00", PERP: "10:00"}


# Bars.


def test_bars_come_from_the_archive_and_by_requests_for_the_rest(scene):
    for day in (D1, D2):
        text = "".join(",".join(map(str, kline(day, minute, micro=False))) + "\n" for minute in range(1_440))
        scene.venue.put("daily/klines/BTCUSDT/1m", f"BTCUSDT-1m-{day}", text)
    scene.venue.klines = [kline(D3, minute) for minute in range(1_440)]
    command = (D1, D3, "--stream", "bars", "--timeframe", "1Min")
    done = scene.days(*command)
    assert done.returncode == 0, done.stderr
    (series,) = scene.listed("symbols")
    assert (series["timeframe"], series["rows"], series["first"][:10], series["last"][:16]) == (
        "1Min",
        3 * 1_440,
        D1,
        f"{D3}T23:59",
    )
    assert scene.left() == []
    scene.venue.asked.clear()
    again = scene.days(*command)
    assert (again.returncode, again.stderr) == (0, "")
    assert archives(scene.venue.asked) == [f"/data/spot/daily/klines/BTCUSDT/1m/BTCUSDT-1m-{D3}.zip"]
    assert scene.listed("symbols")[0]["rows"] == 3 * 1_440
    with Environment(scene.folder, StoreConfig(), readonly=True) as env:
        bars = BarStore(env).read(Instrument("binance", "BTCUSDT"), Timeframe.MIN_1)
    assert bars.high.tolist() == [102.0 + minute % 7 for _ in range(3) for minute in range(1_440)]


def test_bars_that_are_none_are_kept_out(scene):
    scene.venue.klines = [kline(D1, 0), [*kline(D1, 1)[:2], "1.0", *kline(D1, 1)[3:]]]
    done = scene.days(D1, D1, "--stream", "bars", "--timeframe", "1Min")
    only_error(done, "BARS_INVALID")
    assert scene.listed("symbols") == []


# What the venue does not give.


def test_futures_without_a_key_have_the_archive_alone(scene):
    text = "".join(f"{number},1.5,2,3,{midnight_us(D1) // 1_000 + number},true\n" for number in range(1, 50))
    scene.venue.put("daily/trades/BTCUSDT", f"BTCUSDT-trades-{D1}", text, "futures/um")
    done = scene.days(D1, D2, symbol="BTCUSDT-PERP")
    assert done.returncode == 0, done.stderr
    assert f"{D2}: the venue has nothing" in done.stdout
    assert scene.ids(PERP) == list(range(1, 50))
    assert [(hole["start"][:10], hole["reason"]) for hole in scene.listed("gaps")] == [(D2, "missing file")]


def test_a_day_that_is_not_over_is_no_hole_and_days_to_come_are_not_asked_for(scene):
    done = scene.days(days_ago(0), days_ago(-5), symbol="btc/usdt")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{days_ago(0)}: the venue has nothing"
    assert len(done.stdout.splitlines()) == 2
    assert scene.listed("gaps") == []


def test_an_unknown_symbol_is_told_and_leaves_no_trace(scene):
    assert "NOSUCH" in only_error(scene.days(D1, D2, symbol="NOSUCH"), "SYMBOL_UNKNOWN")
    assert "NOSUCH" in only_error(scene.days(D1, D2, symbol="NOSUCH-PERP"), "SYMBOL_UNKNOWN")
    assert scene.listed("gaps") == scene.listed("symbols") == scene.left() == []


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SOURCE_UNAVAILABLE"), (451, "SOURCE_BLOCKED"), (429, "RATE_LIMITED")]
)
@pytest.mark.parametrize("word", ["/data/", "/api/"])
def test_a_venue_that_does_not_answer_is_one_clear_error(scene, status, code, word):
    scene.venue.publish(D1)
    scene.venue.before.append(answers(status, 100, word, **({"Retry-After": "30"} if status == 429 else {})))
    only_error(scene.days(D1, D2), code)
    scene.venue.before.clear()
    assert scene.days(D1, D2).returncode == 0
    assert scene.ids() == rows_of(scene.venue, D1, D2)


def test_what_was_stored_before_the_venue_failed_stays(scene):
    scene.venue.publish(D1, D3)
    scene.venue.before.append(answers(503, 100, D2))
    done = scene.days(D1, D3)
    only_error(done, "SOURCE_UNAVAILABLE")
    assert done.stdout.startswith(f"BTCUSDT-trades-{D1}.zip: ")
    assert scene.ids() == rows_of(scene.venue, D1)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("kraken", "BTCUSDT", "--start", D1), "INVALID_REQUEST"),
        (("binance", "BTCUSDT", "--start", D1, "--stream", "depth"), "INVALID_REQUEST"),
        (("binance", "BTCUSDT", "--start", D1, "--stream", "bars"), "INVALID_TIMEFRAME"),
        (("binance", "BTCUSDT", "--start", D1, "--timeframe", "1Min"), "INVALID_TIMEFRAME"),
        (("binance", "BTCUSDT", "--start", D1, "--stream", "bars", "--timeframe", "2Min"), "INVALID_TIMEFRAME"),
        (("binance", "BTCUSDT", "--start", D2, "--end", D1), "INVALID_DATE_RANGE"),
        (("binance", "BTCUSDT", "--start", "1.8.2024"), "INVALID_DATE_RANGE"),
        (("coinbase", "BTC-USD", "--start", D1, "--end", D1, "--stream", "agg_trades"), "INVALID_REQUEST"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_fetched_is_wrong_use(scene, arguments, code):
    only_error(scene.run("fetch", *arguments, *scene.places), code, 2)
    assert scene.venue.asked == []


# Interrupted, and beside a daemon.


def test_a_fetch_that_was_killed_goes_on_where_it_was(scene, cli):
    paths = scene.venue.publish(D1, D3)
    reached = []

    async def hangs(request):
        if request.path != paths[1]:
            return None
        body = scene.venue.files[paths[1]]
        response = web.StreamResponse(headers={"Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[:100])
        reached.append(True)
        while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return response

    scene.venue.before.append(hangs)
    command = [sys.executable, "-m", "daemon", "fetch", "binance", "BTCUSDT", "--start", D1, "--end", D3]
    with subprocess.Popen([*command, *map(str, scene.places)], stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        # Its file goes right after its rows were committed; killed between the two it stays.
        while not (reached and scene.is_stored(D1)) or any(D1 in name for name in scene.left()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -9
    assert scene.ids() == rows_of(scene.venue, D1)
    scene.venue.before.clear()
    scene.venue.asked.clear()
    done = cli("fetch", "binance", "BTCUSDT", "--start", D1, "--end", D3, *scene.places)
    assert done.returncode == 0, done.stderr
    assert paths[0] not in archives(scene.venue.asked)
    assert scene.ids() == rows_of(scene.venue, D1, D2, D3)
    assert scene.left() == []


def test_a_fetch_beside_a_daemon_stores_by_way_of_it(scene, serve, threads):
    daemon = serve(scene.folder, *threads)
    scene.venue.publish(D1, D2)
    scene.venue.put("daily/klines/BTCUSDT/1m", f"BTCUSDT-1m-{D1}", ",".join(map(str, kline(D1, 0, micro=False))))
    for command in ((D1, D3), (D1, D1, "--stream", "bars", "--timeframe", "1Min")):
        done = scene.days(*command)
        assert done.returncode == 0, done.stderr
        again = scene.days(*command)
        assert "imported before" in again.stdout
    assert scene.ids() == rows_of(scene.venue, D1, D2, D3)
    assert scene.left() == []
    assert daemon.end()[0] == 0


# Coinbase.


@pytest.fixture
def exchange(tmp_path, atlasd_inside):
    """Coinbase with trades each half hour of three days."""
    start_ns = (date.fromisoformat(D1) - date(1970, 1, 1)).days * NS_PER_DAY
    venue = coinbase.Coinbase((number, start_ns + (number - 1) * 1_800 * NS_PER_SECOND) for number in range(1, 145))
    with serving(application(venue.handle)) as url:
        yield Scene(venue, atlasd_inside, tmp_path / "data", url)


def test_coinbase_is_asked_day_by_day_and_not_twice(exchange):
    done = exchange.days(D1, D2, symbol="btc/usd", venue="coinbase")
    assert done.returncode == 0, done.stderr
    names = [f"coinbase requests trades BTC-USD {day}" for day in (D1, D2)]
    assert [line.partition(":")[0] for line in done.stdout.splitlines()[:2]] == names
    assert exchange.ids("coinbase:BTC-USD") == list(range(1, 97))
    exchange.venue.asked.clear()
    again = exchange.days(D1, D2, symbol="BTC-USD", venue="coinbase")
    assert again.stdout.splitlines()[:2] == [f"{name}: imported before" for name in names]
    assert exchange.venue.asked == []
    assert exchange.days(D1, D3, symbol="BTC-USD", venue="coinbase").returncode == 0
    assert exchange.ids("coinbase:BTC-USD") == list(range(1, 145))
    assert exchange.left() == []


def test_a_day_that_was_fetched_while_it_ran_is_completed_later(exchange):
    everything, exchange.venue.trades = exchange.venue.trades, exchange.venue.trades[:20]
    exchange.days(D1, D1, symbol="BTC-USD", venue="coinbase")
    noon_ns = everything[24][1]
    with Environment(exchange.folder, StoreConfig()) as env:  # as if it had been fetched at noon of that day

        def backdate(transaction):
            number = instruments.number(transaction, Instrument("coinbase", "BTC-USD"))
            key = keys.series(number, KEY_STREAMS[Stream.TRADES], 0)
            (source,) = ledger.sources(transaction, key)
            ledger.put_source(transaction, key, msgspec.structs.replace(source, stored_at_ns=noon_ns))

        env.write(backdate)
    exchange.venue.trades = everything
    done = exchange.days(D1, D1, symbol="BTC-USD", venue="coinbase")
    assert "28 added, 20 stored already" in done.stdout
    assert exchange.ids("coinbase:BTC-USD") == list(range(1, 49))


def test_coinbase_s_refusals_are_told_as_all_are(exchange):
    assert "NO-SUCH" in only_error(exchange.days(D1, D1, symbol="NO-SUCH", venue="coinbase"), "SYMBOL_UNKNOWN")
    exchange.venue.refused = 503
    only_error(exchange.days(D1, D1, symbol="BTC-USD", venue="coinbase"), "SOURCE_UNAVAILABLE")
