"""`atlasd record`, and the feeds of `atlasd serve`, against venues on this machine."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from datetime import date

import pytest
from venues import coinbase
from venues.binance import Binance, Calm, Market, config_text
from venues.server import application, serving

from daemon.core.errors import AtlasError
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Instrument
from daemon.core.ticks import Stream
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from daemon.store.verify import verify

BTC = Instrument("binance", "BTCUSDT")
PATIENCE_S = 30.0
SUMMARY = r"(.+) stored; (\d+) reconnects, ([\d,]+) rows backfilled, (\d+) messages not understood\n"


class Dropping(Calm):
    """Loses some trades of one connection, then the connection."""

    def __init__(self, at=100):
        self.at = at
        self.sent = 0

    async def send(self, talk, text):
        self.sent += 1
        if self.at <= self.sent < self.at + 20:
            return
        if self.sent == self.at + 20:
            await talk.close(code=1001)
            return
        await talk.send_str(text)


class Scene:
    """A venue alive, and where `atlasd` keeps what it records."""

    def __init__(self, venue, folder, url):
        self.venue = venue
        self.folder = folder
        self.config = folder.parent / "config.toml"
        self.config.write_text(config_text(url))
        self.places = ("--data-dir", folder, "--config", self.config)

    def rows(self, stream=Stream.TRADES):
        if not (self.folder / "atlas.lmdb").exists():
            return None
        with Environment(self.folder, StoreConfig(), readonly=True) as env:
            return BarStore(env).ticks.read(BTC, stream)

    def ids(self):
        with contextlib.suppress(AtlasError):  # the store may be half made
            rows = self.rows()
            return [] if rows is None else rows.column("id").tolist()
        return []

    def problems(self):
        with Environment(self.folder, StoreConfig(), readonly=True) as env:
            return [problem for each in verify(env) for problem in each.problems]

    def wait_for(self, count):
        """Wait until so many trades are readable."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.ids()) < count:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.fixture
def alive(tmp_path):
    """Binance, where something happens some hundred times a second; `alive(chaos)` begins."""
    stacks = []

    def begin(chaos=None):
        market = Market()

        async def live():
            while True:
                market.step()
                await asyncio.sleep(0.01)

        venue = Binance(market, chaos)
        stacks.append(serving(application(venue.handle), live))
        return Scene(venue, tmp_path / "data", stacks[-1].__enter__())

    yield begin
    for each in stacks:
        each.__exit__(None, None, None)


def started(scene, *arguments):
    """`atlasd record` as a process."""
    command = [sys.executable, "-m", "daemon", "record", "binance", *arguments, *map(str, scene.places)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def summary(text):
    """Rows stored by stream, and reconnects, rows backfilled, messages not understood."""
    rows, *counts = re.fullmatch(SUMMARY, text).groups()
    by_stream = {} if rows == "nothing" else dict(reversed(part.split(" ")) for part in rows.split(", "))
    stored = {stream: int(count.replace(",", "")) for stream, count in by_stream.items()}
    return stored, *(int(count.replace(",", "")) for count in counts)


# The command.


def test_streams_are_recorded_for_so_long_and_summed_up(alive, cli):
    scene = alive()
    done = cli("record", "binance", "BTCUSDT", "--streams", "trades,depth,quotes", "--seconds", "1.5", *scene.places)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "recording trades,depth,quotes of BTCUSDT from binance; Ctrl-C stops\n"
    stored, reconnects, backfilled, odd = summary(done.stdout)
    assert (reconnects, backfilled, odd) == (0, 0, 0)
    assert stored == {stream: scene.rows(Stream(stream)).size for stream in ("trades", "depth", "quotes")}
    ids = scene.ids()
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert len(ids) > 20
    told = {row["t"]: row for row in scene.venue.market.trades}
    assert scene.rows().time_ns.tolist() == [told[number]["T"] * 1_000 for number in ids]
    assert scene.problems() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_commits_what_has_arrived_and_sums_up(alive, number):
    scene = alive()
    with started(scene, "BTCUSDT") as process:
        scene.wait_for(20)
        process.send_signal(number)
        told, complaints = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, complaints
    stored, *_ = summary(told)
    assert stored == {"trades": len(scene.ids())}
    assert scene.problems() == []


def test_what_a_lost_connection_missed_is_fetched(alive):
    scene = alive(Dropping())
    with started(scene, "BTC/USDT") as process:
        scene.wait_for(1)
        first = scene.ids()[0]
        deadline = time.monotonic() + PATIENCE_S
        # Complete up to the last, and well beyond the loss.
        while (ids := scene.ids()) != list(range(first, first + len(ids))) or len(ids) < 150:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.terminate()
        told, complaints = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, complaints
    _, reconnects, backfilled, _ = summary(told)
    assert reconnects == 1
    assert backfilled >= 20
    assert "the feed is down" in complaints


def test_a_venue_that_cannot_be_reached_is_told_and_waited_for(tmp_path, cli):
    (tmp_path / "config.toml").write_text(config_text("http://127.0.0.1:9"))
    places = ("--data-dir", tmp_path / "data", "--config", tmp_path / "config.toml")
    done = cli("record", "binance", "BTCUSDT", "--seconds", "0.5", *places)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nothing stored; 1 reconnects, 0 rows backfilled, 0 messages not understood\n"
    assert "cannot connect" in done.stderr
    assert "Traceback" not in done.stderr


def test_beside_a_daemon_it_is_refused_with_the_way_out(alive, serve, threads, cli):
    scene = alive()
    daemon = serve(scene.folder, *threads)
    done = cli("record", "binance", "BTCUSDT", "--seconds", "1", *scene.places)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"process {daemon.process.pid} (atlasd serve)" in done.stderr
    assert re.search(r"\[feeds\.NAME\] \[STORE_LOCKED\]\n\Z", done.stderr)
    assert daemon.end()[0] == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("kraken", "BTCUSDT"), "INVALID_REQUEST"),
        (("binance", "BTCUSDT", "--streams", "candles"), "INVALID_REQUEST"),
        (("binance", "BTCUSDT", "--streams", "bars"), "INVALID_REQUEST"),
        (("binance", "BTCUSDT", "--streams", "bars:2Min"), "INVALID_REQUEST"),
        (("binance", "BTCUSDT", "--streams", "trades:1Min"), "INVALID_REQUEST"),
        (("binance", "BTCUSDT", "--streams", ""), "INVALID_REQUEST"),
        (("coinbase", "BTC-USD", "--streams", "agg_trades"), "INVALID_REQUEST"),
        (("coinbase", "BTC-USD", "--streams", "bars:1Min"), "INVALID_TIMEFRAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_recorded_is_wrong_use(atlasd_inside, tmp_path, arguments, code):
    done = atlasd_inside("record", *arguments, "--data-dir", tmp_path / "data")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(f" [{code}]\n")


def test_a_symbol_that_the_venue_does_not_have_is_refused_at_once(alive, cli):
    done = cli("record", "binance", "NOSUCH", "--seconds", "20", *alive().places)
    assert done.returncode == 1
    assert "[SYMBOL_UNKNOWN]" in done.stderr


def test_what_the_venue_says_of_an_instrument_is_kept(alive, cli):
    places = alive().places
    assert cli("record", "binance", "BTCUSDT", "--seconds", "1", *places).returncode == 0
    (told,) = json.loads(cli("data", "instrument", "BTCUSDT", "--format", "json", *places).stdout)
    assert (told["symbol"], told["status"]) == ("BTCUSDT", "TRADING")


def test_coinbase_is_recorded_under_its_own_names(tmp_path, cli):
    start_ns = (date(2024, 8, 7) - date(1970, 1, 1)).days * NS_PER_DAY
    venue = coinbase.Coinbase((number, start_ns + number * NS_PER_SECOND) for number in range(1, 50))
    with serving(application(venue.handle)) as url:
        (tmp_path / "config.toml").write_text(coinbase.config_text(url))
        places = ("--data-dir", tmp_path / "data", "--config", tmp_path / "config.toml")
        done = cli("record", "coinbase", "btc-usd", "--seconds", "1", *places)
    assert done.returncode == 0, done.stderr
    assert summary(done.stdout)[0] == {"trades": 49}
    with Environment(tmp_path / "data", StoreConfig(), readonly=True) as env:
        rows = BarStore(env).ticks.read(Instrument("coinbase", "BTC-USD"), Stream.TRADES)
    assert rows.column("id").tolist() == list(range(1, 50))


# The daemon's feeds.


def test_a_feed_of_the_daemon_is_recorded_and_readable_meanwhile(alive, serve, cli):
    scene = alive()
    scene.config.write_text(
        scene.config.read_text()
        + '[feeds.majors]\nvenue = "binance"\nsymbols = ["BTCUSDT"]\nstreams = ["trades", "depth"]\n'
        + '[record]\ncommit_ms = 50\n[workers]\nexecutor = "threads"\n'
    )
    daemon = serve(scene.folder, "--config", scene.config)
    scene.wait_for(30)
    listed = json.loads(cli("data", "symbols", "--format", "json", *scene.places).stdout)
    assert [(series["symbol"], series["stream"]) for series in listed] == [
        ("binance:BTCUSDT", "trades"),
        ("binance:BTCUSDT", "depth"),
    ]
    (told,) = daemon.request("GET", "/api/v1/feeds").body["results"]
    assert (told["name"], told["connected"], told["reconnects"], told["last_error"]) == ("majors", True, 0, "")
    assert told["rows"]["trades"] >= 20
    before = len(scene.ids())
    scene.wait_for(before + 20)
    code, seconds = daemon.end()
    assert code == 0
    assert seconds < 10
    ids = scene.ids()
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert scene.problems() == []
    assert daemon.complaints.read_text() == ""


@pytest.mark.parametrize(
    ("feed", "named"),
    [
        ('venue = "kraken"\nsymbols = ["BTCUSDT"]\nstreams = ["trades"]\n', "kraken"),
        ('venue = "binance"\nsymbols = ["BTCUSDT"]\nstreams = ["candles"]\n', "candles"),
        ('venue = "binance"\nsymbols = []\nstreams = ["trades"]\n', "symbols"),
        ('venue = "coinbase"\nsymbols = ["what is this"]\nstreams = ["trades"]\n', "what is this"),
    ],
    ids=["venue", "stream", "no symbol", "symbol"],
)
def test_a_feed_that_cannot_be_is_told_before_the_daemon_is_ready(cli, tmp_path, feed, named):
    config = tmp_path / "config.toml"
    config.write_text("[feeds.mine]\n" + feed)
    done = cli("serve", "--port", "0", "--config", config, "--data-dir", tmp_path / "data")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: feeds\.mine: .+ \[CONFIG_INVALID\]\n", done.stderr), done.stderr
    assert named in done.stderr


def test_a_feed_whose_venue_is_away_does_not_keep_the_daemon_from_ending(serve, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(
        config_text("http://127.0.0.1:9")
        + '[feeds.mine]\nvenue = "binance"\nsymbols = ["BTCUSDT", "BTCUSDT-PERP"]\nstreams = ["trades"]\n'
        + '[workers]\nexecutor = "threads"\n'
    )
    daemon = serve(tmp_path / "data", "--config", config)
    assert daemon.request("GET", "/health").status == 200
    code, seconds = daemon.end()
    assert code == 0
    assert seconds < 8
    assert "cannot connect" in (tmp_path / "data" / "logs" / "atlasd.log").read_text()
