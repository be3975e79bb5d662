"""Live feeds into the store: of a command until it is stopped, of the daemon as configured.

All feeds of a process run on one event loop in a thread of its own: they decode in bursts, and the loop that answers
requests must not wait for that.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from adapters import registry
from daemon.core.errors import (
    AtlasError,
    Code,
    ConfigError,
    InvalidRequest,
    NotFound,
    SourceDataInvalid,
    SourceUnavailable,
)
from daemon.core.market import Instrument, Timeframe
from daemon.core.ticks import Stream
from daemon.ingest.recording import Recorder
from daemon.store.instruments import put_facts

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from adapters.registry import VenueSettings
    from daemon.app.stores import Store
    from daemon.ingest.recording import RecordConfig, RecordStatus

_log = logging.getLogger(__name__)

_BARS: Final = "bars:"
_STOP_S: Final = 10.0


class FeedConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table `[feeds.NAME]` of config.toml.

    venue: binance or coinbase. symbols: ours, such as BTCUSDT or BTCUSDT-PERP. streams: trades, agg_trades, quotes,
    depth, bars:1Min.
    """

    venue: str
    symbols: list[str]
    streams: list[str]


def parse_streams(names: Sequence[str]) -> tuple[list[Stream], list[Timeframe]]:
    """Return streams and the timeframes of bars; InvalidRequest INVALID_REQUEST for others."""
    streams: list[Stream] = []
    timeframes: list[Timeframe] = []
    for name in names:
        stream, _, timeframe = name.partition(":")
        try:
            streams.append(Stream(stream))
            if stream == Stream.BARS:
                timeframes.append(Timeframe(timeframe))
            elif timeframe:
                raise ValueError(name)
        except ValueError:
            raise InvalidRequest(
                Code.INVALID_REQUEST,
                f"stream `{name}` is not one of trades, agg_trades, quotes, depth, or {_BARS} with one of "
                f"{', '.join(Timeframe)}",
                {"field": "streams"},
            ) from None
    return list(dict.fromkeys(streams)), timeframes


def recorders(store: Store, feed: FeedConfig, settings: VenueSettings, config: RecordConfig) -> list[Recorder]:
    """Make the recorders of a feed; InvalidRequest where it names what does not exist."""
    if feed.venue not in registry.VENUES:
        known = ", ".join(registry.VENUES)
        raise InvalidRequest(Code.INVALID_REQUEST, f"venue `{feed.venue}` is not one of {known}", {"field": "venue"})
    if not feed.symbols or not feed.streams:
        raise InvalidRequest(Code.INVALID_REQUEST, "a feed needs symbols and streams", {"field": "symbols"})
    streams, timeframes = parse_streams(feed.streams)
    return [
        Recorder(
            store.bars,
            store.ticks,
            feed.venue,
            live,
            lambda symbol: registry.history_of(feed.venue, symbol, settings),
            config,
        )
        for live in registry.feeds_of(feed.venue, feed.symbols, streams, timeframes, settings)
    ]


async def learn(store: Store, feed: FeedConfig, settings: VenueSettings) -> None:
    """Ask the venue what it says of a feed's instruments, and keep it.

    NotFound SYMBOL_UNKNOWN for a symbol that it does not have: streams of those stay silent for ever. A venue that does
    not answer now is asked another time.
    """
    for symbol in feed.symbols:
        source = registry.history_of(feed.venue, symbol, settings)
        instrument = Instrument(feed.venue, registry.our_symbol(feed.venue, symbol))
        try:
            facts = await source.instrument(symbol)
            await asyncio.to_thread(store.env.write, partial(put_facts, instrument=instrument, facts=facts))
        except (SourceUnavailable, SourceDataInvalid) as error:
            _log.warning("%s %s: its steps and limits are not known yet: %s", feed.venue, symbol, error.message)
        finally:
            await source.close()


class Recordings:
    """The daemon's feeds, recording on a thread of their own between `start` and `stop`.

    ConfigError CONFIG_INVALID names a feed that cannot be.
    """

    def __init__(
        self, store: Store, feeds: dict[str, FeedConfig], settings: VenueSettings, config: RecordConfig
    ) -> None:
        self._recorders: list[tuple[str, Recorder]] = []
        self._learning = {name: partial(learn, store, feed, settings) for name, feed in feeds.items()}
        for name, feed in feeds.items():
            try:
                self._recorders += [(name, recorder) for recorder in recorders(store, feed, settings, config)]
            except (InvalidRequest, NotFound) as error:
                raise ConfigError(Code.CONFIG_INVALID, f"feeds.{name}: {error.message}", error.details) from None
        self._begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._record()), name="feeds", daemon=True)

    def status(self) -> list[tuple[str, RecordStatus]]:
        """Tell how each feed is doing, by its name in the configuration; one that has several markets stands twice."""
        return [(name, recorder.status) for name, recorder in self._recorders]

    def start(self) -> None:
        """Begin to record; without feeds nothing happens."""
        if self._recorders:
            self._thread.start()

    def stop(self) -> None:
        """Commit what has arrived and end the connections."""
        if self._thread.is_alive():
            loop, stopped = self._begun.result(_STOP_S)
            loop.call_soon_threadsafe(stopped.set)
            self._thread.join(_STOP_S)

    async def _record(self) -> None:
        stopped = asyncio.Event()
        self._begun.set_result((asyncio.get_running_loop(), stopped))
        tasks = []
        for name, recorder in self._recorders:
            task = asyncio.create_task(recorder.run())
            task.add_done_callback(partial(_say_end, name, recorder.status))
            tasks.append(task)
        for name, ask in self._learning.items():
            task = asyncio.create_task(ask())
            task.add_done_callback(partial(_say_end, name, None))
            tasks.append(task)
        await stopped.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _say_end(name: str, status: RecordStatus | None, task: asyncio.Task[None]) -> None:
    """Say why a feed, or what was asked about it, has ended by an error; the others go on."""
    error = None if task.cancelled() else task.exception()
    if error is not None and status is not None:
        status.connected = False
        status.last_error = str(error)
    if isinstance(error, AtlasError):
        _log.error("feed %s: %s [%s]", name, error.message, error.code)
    elif error is not None:
        _log.error("feed %s has ended", name, exc_info=error)


async def record(made: Sequence[Recorder], seconds: float | None, learning: Coroutine[None, None, None]) -> None:
    """Run recorders for so long, until SIGINT or SIGTERM, or until one fails; what has arrived is committed.

    learning: asks the venue about the symbols meanwhile; its error ends the recording.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows: Ctrl-C ends asyncio.run instead
            loop.add_signal_handler(number, stopped.set)
    asking = asyncio.create_task(learning)
    asking.add_done_callback(lambda task: None if task.cancelled() or task.exception() is None else stopped.set())
    waiting = asyncio.create_task(stopped.wait())
    tasks = [asyncio.create_task(recorder.run()) for recorder in made]
    try:
        await asyncio.wait([waiting, *tasks], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (waiting, asking, *tasks):
            task.cancel()
        outcomes = await asyncio.gather(waiting, asking, *tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
