"""A venue at its worst: whatever it does, in the end what is stored is what happened, and no hole is known."""

import asyncio
import contextlib
import time
from random import Random

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from naive.book import replay
from venues.binance import Binance, Market
from venues.server import application

from adapters.binance.config import BinanceConfig
from adapters.binance.feed import BinanceFeed, FeedSettings
from adapters.binance.rest import BinanceHistory
from adapters.shared.backoff import Backoff, Waits
from adapters.shared.socket import SocketSettings
from daemon.core.market import Instrument
from daemon.core.ticks import BUY, SELL, Stream
from daemon.ingest.recording import RecordConfig, Recorder
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from daemon.store.verify import verify

BTC = Instrument("binance", "BTCUSDT")
STORMY_S = 1.5
PLAGUES = {"stall", "disconnect", "skip", "reorder", "duplicate", "no answer"}
SETTINGS = FeedSettings(
    batch_s=0.002,
    quiet_s=0.4,
    socket=SocketSettings(
        silence_s=0.15, max_age_s=0.6, connect_timeout_s=2.0, sends_per_s=10_000.0, settled_s=0.2, overlap_s=0.03
    ),
    backoff=Backoff(first_s=0.005, cap_s=0.03),
)


class Chaos:
    """Loses, repeats, reorders, stalls, hangs up, refuses; a book's changes stay in order, as they do in TCP."""

    def __init__(self, seed):
        self.random = Random(seed)  # noqa: S311 - chaos, no secret
        self.is_on = False
        self.held = {}  # by connection: messages that come later, and after how many others
        self.stalled = set()
        self.refused_until_s = 0.0
        self.counts = {}

    def happens(self, what, share):
        if not self.is_on or self.random.random() >= share:
            return False
        self.counts[what] = self.counts.get(what, 0) + 1
        return True

    async def send(self, talk, text):
        if talk in self.stalled:
            return
        if self.happens("stall", 0.002):
            self.stalled.add(talk)
            return
        if self.happens("disconnect", 0.002):
            await self.hang_up(talk)
            raise ConnectionResetError
        is_book = '"depthUpdate"' in text
        if self.happens("skip", 0.02):
            return
        held = self.held.setdefault(talk, [])
        if not is_book and self.happens("reorder", 0.03):
            held.append([self.random.randint(1, 6), text])
            return
        for _ in range(1 + self.happens("duplicate", 0.03)):
            await talk.send_str(text)
        for each in held:
            each[0] -= 1
        for each in [each for each in held if each[0] <= 0 or not self.is_on]:
            held.remove(each)
            await talk.send_str(each[1])

    async def hang_up(self, talk):
        if self.happens("restart", 0.2):
            self.refused_until_s = time.monotonic() + 0.05
        way = self.random.choice(["close", "abort", "shutdown"])
        if way == "shutdown":
            await talk.send_str('{"e":"serverShutdown","E":1770123456789}')
            await asyncio.sleep(self.random.uniform(0.0, 0.02))
        if way == "abort":
            talk._req.transport.abort()  # noqa: SLF001 - there is no kinder way to be so unkind
        else:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await talk.close(code=1001)

    def refuses_connections(self):
        return self.is_on and (time.monotonic() < self.refused_until_s or self.happens("no connection", 0.05))

    def refusal(self, _path):
        if not self.happens("no answer", 0.4):
            return None
        return self.random.choice(
            [
                web.Response(status=429, headers={"Retry-After": "0.01"}),
                web.Response(status=418, headers={"Retry-After": "0.02"}),
                web.Response(status=500),
                web.Response(status=503, text="<html>busy</html>"),
                web.Response(text='[{"id": 1, "pri', content_type="application/json"),
            ]
        )


async def briefly(seconds):
    """Wait as asked, but never for long."""
    await asyncio.sleep(min(seconds, 0.005))


def columns(rows, *names):
    return list(zip(*(rows.column(name).tolist() for name in names), strict=True))


def stored_trades(store, stream, key):
    """(id, price, size, time us, side) as the venue writes them."""
    rows = store.ticks.read(BTC, stream)
    price, size = 10.0**rows.price_decimals, 10.0**rows.size_decimals
    return [
        {key: number, "p": f"{p / price:.2f}", "q": f"{q / size:.3f}", "T": at_ns // 1_000, "m": side == SELL}
        for number, p, q, at_ns, side in columns(rows, "id", "price", "size", "time_ns", "side")
    ]


def stored_book(store):
    """(side, price of 10^-2) to size of 10^-3, after the last row."""
    rows = store.ticks.read(BTC, Stream.DEPTH)
    book = None
    for each in replay(rows):
        book = each
    assert book is not None
    price, size = 10 ** (2 - rows.price_decimals), 10 ** (3 - rows.size_decimals)
    sides = ((BUY, book.bids), (SELL, book.asks))
    return {(side, at * price): level * size for side, levels in sides for at, level in levels.items()}


def open_holes(store):
    return sum(each.open_holes for each in store.ticks.series() if each.stream is not Stream.DEPTH)


def stored(store):
    """Rows by stream."""
    return {each.stream: each.rows for each in store.ticks.series()}


def last_id(store, stream):
    return int(store.ticks.read(BTC, stream).column("id")[-1])


async def until(told):
    """Wait until something is so."""
    while not told():  # noqa: ASYNC110 - what is waited for is in a store
        await asyncio.sleep(0.02)


async def happening(market, is_over):
    """Let the market live, in bursts as markets do."""
    while not is_over.is_set():
        for _ in range(market.random.choice([0, 1, 1, 2, 8])):
            market.step()
        await asyncio.sleep(0.003)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_what_is_stored_is_what_happened_whatever_the_venue_does(tmp_path, seed):
    market, chaos, is_over = Market(seed), Chaos(seed), asyncio.Event()
    venue = Binance(market, chaos, page=40)
    server = TestServer(application(venue.handle))
    await server.start_server(shutdown_timeout=0.05)
    url = str(server.make_url(""))
    config = BinanceConfig(rest_spot=url, ws_spot=url.replace("http", "ws").rstrip("/"), attempts=3)
    waits = Waits(time.monotonic, time.time, briefly, Random(seed))  # noqa: S311 - jitter

    def history(_symbol=""):
        return BinanceHistory("spot", config, waits=waits)

    books = history()
    streams = (Stream.TRADES, Stream.AGG_TRADES, Stream.DEPTH)
    feed = BinanceFeed(
        config,
        "spot",
        ["BTCUSDT"],
        streams,
        books.depth_snapshot,
        settings=SETTINGS,
        random=Random(seed),  # noqa: S311
    )
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        store = BarStore(env)
        recorder = Recorder(store, store.ticks, "binance", feed, history, RecordConfig(commit_ms=20), retry_s=0.02)
        recording = asyncio.create_task(recorder.run())
        living = asyncio.create_task(asyncio.sleep(0))
        try:
            async with asyncio.timeout(60):
                await until(lambda: recorder.status.connected)
                market.step()
                await until(lambda: len(stored(store)) == len(streams))
                living = asyncio.create_task(happening(market, is_over))
                chaos.is_on = True
                await asyncio.sleep(STORMY_S)
                await until(lambda: set(chaos.counts) >= PLAGUES)
                chaos.is_on = False
                # What a stalled or lost connection missed is known once another has spoken.
                first_calm = len(market.trades)
                await until(lambda: recorder.status.connected and last_id(store, Stream.TRADES) > first_calm)
                await asyncio.sleep(2 * SETTINGS.socket.silence_s)
                is_over.set()
                await living
                happened = {Stream.TRADES: len(market.trades), Stream.AGG_TRADES: len(market.aggregates)}
                await until(lambda: stored(store).items() >= happened.items() and not open_holes(store))
                await until(lambda: last_id(store, Stream.DEPTH) == market.update_id)
        finally:
            is_over.set()
            for task in (recording, living):
                task.cancel()
            outcomes = await asyncio.gather(recording, living, return_exceptions=True)
            await books.close()
            await server.close()
        assert not [each for each in outcomes if isinstance(each, Exception)]
        assert stored_trades(store, Stream.TRADES, "t") == market.trades
        aggregates = store.ticks.read(BTC, Stream.AGG_TRADES)
        assert columns(aggregates, "id", "first_id", "last_id") == [
            (each["a"], each["f"], each["l"]) for each in market.aggregates
        ]
        assert (np.diff(store.ticks.read(BTC, Stream.DEPTH).time_ns) >= 0).all()
        assert stored_book(store) == market.book
        assert [problem for each in verify(env) for problem in each.problems] == []
    assert recorder.status.reconnects
    assert recorder.status.backfilled
