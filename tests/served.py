"""The whole application on a real port inside of the test process, over a real store, for tests of its sockets."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
from aiohttp import web
from stand_ins import backtests as stand_in

from daemon.api.auth import Access
from daemon.api.http import application
from daemon.api.limits import JobStarts
from daemon.api.services import Services
from daemon.api.settings import HttpConfig
from daemon.api.ws import SOCKETS, Sockets
from daemon.app.stores import open_store
from daemon.core.bus import Bus
from daemon.research import strategies
from daemon.research.backtests import Backtests
from daemon.research.executors import ThreadExecutor
from daemon.research.monte_carlos import MonteCarlos
from daemon.research.optimizations import Optimizations
from daemon.research.runs import Runs
from daemon.store.env import Environment, StoreConfig
from daemon.store.journal import Journal

BOOK = strategies.load([Path(__file__).parents[1] / "strategies.json"])
TOKEN = "t" * 43
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PATIENCE_S = 10.0
NOW_MS = 1_700_000_000_000


class Resources:
    """What the daemon uses, made up."""

    is_fresh = True

    def uptime_s(self):
        return 7

    def stored_rows(self):
        return 3_000

    def memory_bytes(self):
        return 1 << 20


class Served(NamedTuple):
    """An application that answers. token: a list of one, to be changed by who rotates."""

    services: Services
    sockets: Sockets
    port: int
    token: list[str]
    client: aiohttp.ClientSession

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/ws"

    @contextlib.asynccontextmanager
    async def connected(self, **options):
        """Connect with the token, unless headers are given."""
        async with self.client.ws_connect(self.url, **({"headers": BEARER} | options)) as socket:
            yield Client(socket)


class Client:
    """A client of the documented format. unread: frames that came while another was waited for."""

    def __init__(self, socket):
        self.socket = socket
        self.is_packed = socket.protocol == "atlas.msgpack"
        self.unread = []
        self._asked = 0

    async def send(self, frame):
        if self.is_packed:
            await self.socket.send_bytes(msgspec.msgpack.encode(frame))
        else:
            await self.socket.send_str(frame if isinstance(frame, str) else msgspec.json.encode(frame).decode())

    async def next(self):
        """The next frame that has not been read yet, decoded."""
        return self.unread.pop(0) if self.unread else await self.receive()

    async def receive(self):
        message = await self.socket.receive(timeout=PATIENCE_S)
        if message.type is aiohttp.WSMsgType.TEXT:
            return msgspec.json.decode(message.data)
        assert message.type is aiohttp.WSMsgType.BINARY, message
        return msgspec.msgpack.decode(message.data)

    async def ask(self, method, **payload) -> Any:
        """Send a request; returns its response, and keeps whatever else comes before it."""
        self._asked += 1
        request_id = f"r{self._asked}"
        await self.send({"id": request_id, "type": "request", "method": method, "payload": payload})
        while (frame := await self.receive()).get("id") != request_id:
            self.unread.append(frame)
        return frame

    async def closed(self):
        """Wait for the end; returns its code and reason."""
        while True:
            message = await self.socket.receive(timeout=PATIENCE_S)
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data, message.extra
            if message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.ERROR):
                return self.socket.close_code, None


@contextlib.asynccontextmanager
async def served(folder, *, most_facts=100_000, **config):
    """Serve a store in a folder."""
    token = [TOKEN]
    with Environment(folder, StoreConfig(sync=False)) as env:
        store = open_store(env)
        executor = ThreadExecutor(lambda: stand_in.Runner(store.bars, BOOK), 1)
        bus, journal = Bus(), Journal(env, lambda: NOW_MS, most=most_facts)
        told = {"journal": journal, "publish": bus.publish}
        backtests = Backtests(env, store.bars, BOOK, {}, executor, **told)
        services = Services(
            env=env,
            bars=store.bars,
            ticks=store.ticks,
            book=BOOK,
            runs=Runs(env, store.bars, BOOK, {}, executor, **told),
            backtests=backtests,
            optimizations=Optimizations(env, store.bars, BOOK, {}, executor, **told),
            monte_carlos=MonteCarlos(env, backtests, executor),
            bus=bus,
            journal=journal,
            feeds=list,
            config=HttpConfig(**config),
            access=Access(lambda: token[0]),
            starts=JobStarts(10),
            resources=Resources(),
        )
        app = application(services)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
                yield Served(services, app[SOCKETS], runner.addresses[0][1], token, client)
        finally:
            await runner.cleanup()
            await asyncio.to_thread(backtests.close)
            services.runs.close()
            services.optimizations.close()
            journal.close()
