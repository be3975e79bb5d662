"""Binance's live streams: trades, quotes, books and bars of one market, over as many connections as they need.

The venue ends each connection after a day, announces its own shutdowns, and at times goes on pinging while a stream
has gone silent. So connections are renewed before they are ended, each stream is watched by itself and subscribed
again when it falls silent while others speak, and a book that lost a change waits for another snapshot.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import aclosing
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from adapters.binance.config import Market
from adapters.binance.messages import decode, joined
from adapters.binance.sequence import DepthSequence
from adapters.binance.subscriptions import connections, request, subscriptions
from adapters.binance.symbols import our_symbol
from adapters.shared.backoff import Backoff
from adapters.shared.socket import Down, Frame, Socket, SocketSettings, Up
from daemon.core.errors import SourceDataInvalid, SourceUnavailable
from daemon.core.ports import FeedBars, FeedDown, FeedHole, FeedOdd, FeedTicks, FeedUp
from daemon.core.ticks import Stream, Ticks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence

    from adapters.binance.config import BinanceConfig
    from adapters.binance.sequence import Passed
    from adapters.binance.subscriptions import Connection
    from adapters.shared.socket import SocketEvent
    from daemon.core.market import Timeframe, TsNs
    from daemon.core.ports import FeedEvent

_log = logging.getLogger(__name__)

_WAITING: Final = 8_192  # events of all sockets; beyond, they are read no further
_LONGEST_DOUBLINGS: Final = 6


class FeedSettings(NamedTuple):
    """How a feed gathers and watches.

    batch_s, batch_frames: messages wait so long, or until they are so many, to become columns together.
    quiet_s: a stream that is silent for so long while others speak is subscribed again; twice as long before the next
    time, for it may be a quiet market. depth_ms: between changes of a book: 100 or 1000 on spot; 0 (as they happen),
    100, 250 or 500 on futures. streams_per_connection: at most 1,024; fewer keep the URL short and the loss small.
    snapshots_at_once: requests for books under way at a time.
    """

    batch_s: float = 0.05
    batch_frames: int = 256
    quiet_s: float = 60.0
    depth_ms: int = 100
    streams_per_connection: int = 200
    snapshots_at_once: int = 2
    socket: SocketSettings = SocketSettings(silence_s=60.0, max_age_s=23 * 3_600.0, sends_per_s=4.0)
    backoff: Backoff = Backoff()


_SETTINGS: Final = FeedSettings()


class _Heard(NamedTuple):
    """Something a connection brought; place: which of them."""

    place: int
    event: SocketEvent


class _Book(NamedTuple):
    """What came of asking for a book: rows, or the refusal."""

    symbol: str
    rows: Ticks | SourceUnavailable | SourceDataInvalid


class _Watch:
    """One connection's streams: when each last spoke, and how long it may be silent."""

    def __init__(self, socket: Socket, connection: Connection, quiet_s: float) -> None:
        self.socket = socket
        self.up = 0  # the number of the socket's latest connection
        self.is_up = False
        self._names = [each.name for each in connection.subscriptions]
        self._quiet_s = quiet_s
        self._last_s: dict[str, float] = {}
        self._patience_s: dict[str, float] = {}

    def begin(self, now_s: float) -> None:
        """Note that all are subscribed."""
        self._last_s = dict.fromkeys(self._names, now_s)
        self._patience_s = dict.fromkeys(self._names, self._quiet_s)

    def spoke(self, names: set[str], now_s: float) -> None:
        """Note that these have just spoken."""
        for name in names & self._last_s.keys():
            self._last_s[name] = now_s
            self._patience_s[name] = self._quiet_s

    def fallen_silent(self, now_s: float) -> dict[str, float]:
        """Return those whose patience has run out, with how long it was; it begins anew, twice as long."""
        silent = {}
        for name, last_s in self._last_s.items():
            patience_s = self._patience_s[name]
            if now_s - last_s > patience_s:
                silent[name] = patience_s
                self._last_s[name] = now_s
                self._patience_s[name] = min(2 * patience_s, self._quiet_s * 2**_LONGEST_DOUBLINGS)
        return silent


class BinanceFeed:
    """Implements `daemon.core.ports.LiveFeed` for one market.

    symbols: ours. timeframes: of Stream.BARS. snapshot: asks for one symbol's whole book, for Stream.DEPTH.
    Repeats, where two connections overlap, are left for the consumer to drop by id; books are free of them.
    Raises InvalidRequest for symbols of another market, or where nothing is asked for.
    """

    def __init__(
        self,
        config: BinanceConfig,
        market: Market,
        symbols: Sequence[str],
        streams: Sequence[Stream],
        snapshot: Callable[[str], Awaitable[Ticks]],
        *,
        timeframes: Sequence[Timeframe] = (),
        settings: FeedSettings = _SETTINGS,
        clock: Callable[[], TsNs] = time.time_ns,
        random: Random | None = None,
    ) -> None:
        self._market = Market(market)
        self._settings = settings
        self._snapshot = snapshot
        self._clock = clock
        self._random = random or Random()  # noqa: S311 - jitter, no secret
        wanted = subscriptions(self._market, symbols, streams, timeframes, settings.depth_ms)
        self._watches = [
            _Watch(self._socket_to(each), each, settings.quiet_s)
            for each in connections(config, self._market, wanted, settings.streams_per_connection)
        ]
        self._books = {each.symbol: DepthSequence() for each in wanted if each.stream is Stream.DEPTH}
        self._failures = dict.fromkeys(self._books, 0)  # of asking for a book, in a row
        self._asking: set[str] = set()
        self._asking_gate = asyncio.Semaphore(settings.snapshots_at_once)
        self._requests = 0
        self._inbox: asyncio.Queue[_Heard | _Book | Exception] = asyncio.Queue(_WAITING)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_begun = False
        self._is_up = False
        self._lost_ns: TsNs | None = None  # from when on rows are known to be missing, as FeedDown has said

    async def events(self) -> AsyncGenerator[FeedEvent]:
        """Yield what arrives; cancelling or closing the iteration closes the connections. To be iterated once.

        FeedUp: all connections are open. FeedDown: one was lost, with the time it was last heard. Raises what
        `snapshot` raises beside SourceUnavailable and SourceDataInvalid, such as NotFound for an unknown symbol.
        """
        if self._is_begun:
            raise RuntimeError("a feed is iterated once; make another")
        self._is_begun = True
        for place in range(len(self._watches)):
            self._spawn(self._listen(place))
        try:
            while True:
                for event in self._events_of(await self._gathered()):
                    yield event
                for event in self._silences():
                    yield event
        finally:
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _listen(self, place: int) -> None:
        async with aclosing(self._watches[place].socket.frames()) as heard:
            async for event in heard:
                await self._inbox.put(_Heard(place, event))

    async def _gathered(self) -> list[_Heard | _Book]:
        """Wait for something, then a little for more."""
        found = [await self._inbox.get()]
        if self._inbox.qsize() < self._settings.batch_frames:
            await asyncio.sleep(self._settings.batch_s)
        while len(found) < self._settings.batch_frames and not self._inbox.empty():
            found.append(self._inbox.get_nowait())
        gathered = []
        for each in found:
            if isinstance(each, Exception):
                raise each
            gathered.append(each)
        return gathered

    def _events_of(self, gathered: list[_Heard | _Book]) -> Iterator[FeedEvent]:
        """Turn what was gathered into events, in order; runs of frames become columns together."""
        frames: list[tuple[int, Frame]] = []
        for each in gathered:
            if isinstance(each, _Heard) and isinstance(each.event, Frame):
                frames.append((each.place, each.event))
                continue
            yield from self._read(frames)
            frames = []
            if isinstance(each, _Book):
                yield from self._taken(each)
            elif isinstance(each.event, Up):
                yield from self._came_up(each.place, each.event)
            elif isinstance(each.event, Down):
                yield from self._went_down(each.place, each.event)
        yield from self._read(frames)

    def _came_up(self, place: int, event: Up) -> Iterator[FeedEvent]:
        watch = self._watches[place]
        watch.up, watch.is_up = event.connection, True
        watch.begin(asyncio.get_running_loop().time())
        if not self._is_up and all(each.is_up for each in self._watches):
            self._is_up = True
            self._lost_ns = None
            yield FeedUp(event.at_ns)

    def _went_down(self, place: int, event: Down) -> Iterator[FeedEvent]:
        self._watches[place].is_up = False
        was_up, self._is_up = self._is_up, False
        if event.planned:
            if was_up:
                yield FeedDown(event.at_ns, event.reason, planned=True)
        elif self._lost_ns is None or event.at_ns < self._lost_ns:
            # Of several losses until all are up again only one that reaches further back is news.
            self._lost_ns = event.at_ns
            yield FeedDown(event.at_ns, event.reason)

    def _read(self, frames: list[tuple[int, Frame]]) -> Iterator[FeedEvent]:
        if not frames:
            return
        batch = decode([(frame.local_ns, frame.text) for _, frame in frames], self._market)
        now_s = asyncio.get_running_loop().time()
        for watch in self._watches:
            watch.spoke(batch.streams, now_s)
        for place in batch.leaving:
            number, frame = frames[place]
            if frame.connection == self._watches[number].up:  # its successor may have come meanwhile
                self._watches[number].socket.renew()
        for name, rows in batch.ticks:
            yield FeedTicks(self._ours(name), rows)
        for name, timeframe, bars in batch.bars:
            yield FeedBars(self._ours(name), timeframe, bars)
        for odd in batch.odd + batch.kept_out:
            yield FeedOdd(odd.local_ns, odd.why, odd.message)
        for name, changes in batch.depth.items():
            symbol = self._ours(name)
            if symbol in self._books:  # others were not asked for
                yield from self._passed(symbol, self._books[symbol].events(changes))

    def _passed(self, symbol: str, passed: Passed) -> Iterator[FeedEvent]:
        for hole in passed.holes:
            yield FeedHole(symbol, Stream.DEPTH, hole)
        for rows in joined(passed.rows):
            yield FeedTicks(symbol, rows)
        if self._books[symbol].wants_snapshot and symbol not in self._asking:
            self._asking.add(symbol)
            self._spawn(self._ask(symbol))

    async def _ask(self, symbol: str) -> None:
        """Ask for a book; its answer comes in line with what the connections bring."""
        failures = self._failures[symbol]
        if failures:
            await asyncio.sleep(self._settings.backoff.delay_s(failures - 1, self._random))
        answer: Ticks | SourceUnavailable | SourceDataInvalid
        async with self._asking_gate:
            try:
                answer = await self._snapshot(symbol)
            except (SourceUnavailable, SourceDataInvalid) as error:
                answer = error
                asked_s = (error.details or {}).get("retry_after_s")
                if isinstance(asked_s, int | float):
                    await asyncio.sleep(asked_s)  # within the gate: the limit is that of all
        await self._inbox.put(_Book(symbol, answer))

    def _taken(self, book: _Book) -> Iterator[FeedEvent]:
        """Take the answer to a question for a book."""
        self._asking.discard(book.symbol)
        sequence = self._books[book.symbol]
        if isinstance(book.rows, Ticks):
            passed = sequence.snapshot(book.rows)
            self._failures[book.symbol] = 0 if passed is not None else self._failures[book.symbol] + 1
        else:
            passed = None
            self._failures[book.symbol] += 1
            yield FeedOdd(self._clock(), f"no book of {book.symbol}: {book.rows.message}", "")
        yield from self._passed(book.symbol, passed or sequence.events([]))

    def _silences(self) -> Iterator[FeedEvent]:
        """Subscribe again what has been silent for too long."""
        now_s = asyncio.get_running_loop().time()
        for watch in self._watches:
            silent = watch.fallen_silent(now_s) if watch.is_up else {}
            for name, silent_s in silent.items():
                why = f"{name} has been silent for {silent_s:g} s while others spoke; it is subscribed again"
                yield FeedOdd(self._clock(), why, "")
            if silent:
                self._spawn(self._subscribe_again(watch.socket, list(silent)))

    async def _subscribe_again(self, socket: Socket, names: list[str]) -> None:
        try:
            for method in ("UNSUBSCRIBE", "SUBSCRIBE"):
                self._requests += 1
                await socket.send(request(method, names, self._requests))
        except SourceUnavailable as error:
            _log.info("%s", error.message)  # a new connection subscribes to everything by itself

    def _socket_to(self, connection: Connection) -> Socket:
        return Socket(
            connection.url,
            settings=self._settings.socket,
            backoff=self._settings.backoff,
            clock=self._clock,
            random=self._random,
        )

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001 - handed to whoever iterates, and raised there
                await self._inbox.put(error)

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _ours(self, name: str) -> str:
        return our_symbol(self._market, name)
