"""A WebSocket that comes back: one endless run of frames over as many connections as it takes.

Venues end connections after a day, lose subscriptions without a word, and ban who reconnects in a storm. So silence
counts as an end, the wait before another attempt grows until a connection has lasted, and where the venue's end is
known beforehand the next connection is up before the last one is given up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar

import aiohttp

from adapters.shared.backoff import Backoff, retry_after_s
from daemon.core.errors import Code, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence

    from daemon.core.market import TsNs

_log = logging.getLogger(__name__)

_WAITING_FRAMES: Final = 4_096  # beyond, reading pauses until the consumer has caught up
_FAREWELL_S: Final = 1.0  # for the venue's answer to a close; nothing is lost without it
_FAILURES: Final = (aiohttp.ClientError, OSError, TimeoutError)


class Frame(NamedTuple):
    """A message as it came. local_ns: when it was read. connection: which one brought it, counted from 1."""

    local_ns: TsNs
    text: str
    connection: int = 0


class Up(NamedTuple):
    """A connection is open and its opening messages are sent."""

    at_ns: TsNs
    connection: int = 0


class Down(NamedTuple):
    """A connection ended, or could not be opened; the next `Up` follows by itself.

    at_ns: the last sign of life: from then on messages may be missing. planned: the next connection has already
    spoken, its `Up` follows at once, and nothing is missing; frames of both may come mixed for a while.
    """

    at_ns: TsNs
    reason: str
    planned: bool
    connection: int = 0


SocketEvent: TypeAlias = Frame | Up | Down
_Out: TypeAlias = asyncio.Queue[Frame | Up | Down | Exception]
_Made = TypeVar("_Made")


class SocketSettings(NamedTuple):
    """How patient a socket is.

    silence_s: without a frame for so long a connection counts as dead; pings are no frames, for a venue that has lost
    the subscriptions goes on pinging. max_age_s: a planned reconnect at this age; None: never. sends_per_s: messages
    to the venue. settled_s: a connection of this age proves the trouble over: back-off starts anew. overlap_s: how
    long the last connection is still read after a planned successor's first frame. pings_s: between pings of our own,
    which some venues count as messages; None: none. compress: bits of the deflate window, 9 to 15; 0: off.
    """

    silence_s: float = 60.0
    max_age_s: float | None = None
    connect_timeout_s: float = 10.0
    sends_per_s: float = 4.0
    max_frame_bytes: int = 8 << 20
    settled_s: float = 30.0
    overlap_s: float = 1.0
    pings_s: float | None = None
    compress: int = 0


_SETTINGS: Final = SocketSettings()
_BACKOFF: Final = Backoff()


class Socket:
    """Frames from a URL, for ever; `frames` may run once at a time.

    opening: what is sent after each connect, asked for anew each time where it is a function.
    clock: nanoseconds since 1970. name: for the log; without it the URL's host and path, for queries may hold keys.
    """

    def __init__(
        self,
        url: str,
        *,
        opening: Callable[[], Sequence[str]] | Sequence[str] = (),
        settings: SocketSettings = _SETTINGS,
        backoff: Backoff = _BACKOFF,
        clock: Callable[[], TsNs] = time.time_ns,
        random: Random | None = None,
        name: str | None = None,
    ) -> None:
        self._url = url
        self._opening = opening
        self._settings = settings
        self._backoff = backoff
        self._clock = clock
        self._random = random or Random()  # noqa: S311 - jitter, no secret
        self._name = name or url.partition("?")[0]
        self._connections = 0
        self._failures = 0  # in a row; a settled connection ends the row
        self._in_trouble = False
        self._line: _Line | None = None  # the one that counts
        self._lines: set[_Line] = set()  # all that are open
        self._tasks: set[asyncio.Task[object]] = set()
        self._wanted_anew = asyncio.Event()
        self._is_read = False

    async def frames(self) -> AsyncGenerator[SocketEvent]:
        """Yield frames, and what becomes of the connection; closing or cancelling the iteration closes it.

        It begins with Up, or with a Down where the first connection fails; after a Down comes an Up. Raises
        RuntimeError where it is iterated twice at a time, ValueError for a URL that is none.
        """
        if self._is_read:
            raise RuntimeError(f"{self._name} is already being read")
        self._is_read = True
        out: _Out = asyncio.Queue(_WAITING_FRAMES)
        keeper = asyncio.create_task(self._keep(out))
        try:
            while True:
                event = await out.get()
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            await _ended(keeper)
            self._is_read = False

    async def send(self, text: str) -> None:
        """Send a message, no sooner than `sends_per_s` allows.

        Raises SourceUnavailable when there is no connection, or it fails: the opening messages will be sent anew.
        """
        if (line := self._line) is None:
            raise SourceUnavailable(Code.SOURCE_UNAVAILABLE, f"{self._name} is not connected; it is being tried again")
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                await line.send(text)
        except _FAILURES as error:
            why = f"{self._name} took no message ({_said(error)}); it is being tried again"
            raise SourceUnavailable(Code.SOURCE_UNAVAILABLE, why) from error

    def renew(self) -> None:
        """Reconnect now, as planned: the next connection is opened before this one is closed."""
        self._wanted_anew.set()

    async def _keep(self, out: _Out) -> None:
        is_news = True  # that there is no connection; after the first Down it no longer is
        try:
            while True:
                line = self._line or await self._come_back(out, is_news=is_news)
                is_news = False
                successor = await self._succeeded(line)
                if successor is None:
                    await self._mourn(line, out)
                else:
                    await out.put(Down(self._clock(), "renewed as planned", planned=True, connection=line.number))
                    await self._take_over(successor, out)
                    self._spawn(self._retire(line))
        except Exception as error:  # noqa: BLE001 - handed to whoever iterates, and raised there
            await out.put(error)
        finally:
            await self._hang_up()

    async def _come_back(self, out: _Out, *, is_news: bool) -> _Line:
        """Connect, however many attempts it takes."""
        asked_s = 0.0
        while True:
            if self._failures:
                await asyncio.sleep(max(asked_s, self._delay_s()))
            try:
                line = await self._open()
            except _FAILURES as error:
                asked_s = _asked_to_wait_s(error)
                reason = f"cannot connect: {_said(error)}"
                self._failed(reason)
                if is_news:
                    await out.put(Down(self._clock(), reason, planned=False))
                    is_news = False
            else:
                await self._take_over(line, out)
                return line

    async def _open(self) -> _Line:
        """Connect and send the opening messages. Raises one of _FAILURES."""
        async with asyncio.timeout(self._settings.connect_timeout_s):
            line = await _Line.open(self._url, self._connections + 1, self._settings, self._clock)
        self._connections = line.number
        self._lines.add(line)
        try:
            for text in self._opening() if callable(self._opening) else self._opening:
                async with asyncio.timeout(self._settings.connect_timeout_s):
                    await line.send(text)
        except BaseException:
            await self._close(line)
            raise
        return line

    async def _take_over(self, line: _Line, out: _Out) -> None:
        """Make a line the one that counts, and start to read it."""
        self._line = line
        self._wanted_anew.clear()
        await out.put(Up(self._clock(), line.number))
        line.start(out, on_settled=self._settled)

    async def _mourn(self, line: _Line, out: _Out) -> None:
        self._line = None
        reason = line.reading.result()
        self._failed(reason)
        await out.put(Down(line.heard_ns, reason, planned=False, connection=line.number))
        await self._close(line)

    async def _succeeded(self, line: _Line) -> _Line | None:
        """Wait until a line ends (None), or it was time to renew it and its successor has spoken."""
        await self._due(line)
        if not (line.is_settled or line.reading.done()):
            self._failures += 1  # a venue that asks every new connection to leave must not make us circle
        asked_s = 0.0
        while not line.reading.done():
            if self._failures:
                await asyncio.wait((line.reading,), timeout=max(asked_s, self._delay_s()))
            opening = self._spawn(self._open_and_hear())
            await asyncio.wait((line.reading, opening), return_when=asyncio.FIRST_COMPLETED)
            if not opening.done():
                await _ended(opening)
                break
            try:
                return opening.result()
            except _FAILURES as error:
                asked_s = _asked_to_wait_s(error)
                self._failed(f"cannot renew the connection: {_said(error)}")
        return None

    async def _due(self, line: _Line) -> None:
        """Wait for the time of a planned reconnect, or the line's end."""
        age_s = self._settings.max_age_s
        left_s = None if age_s is None else max(0.0, line.opened_s + age_s - asyncio.get_running_loop().time())
        wanted = self._spawn(self._wanted_anew.wait())
        await asyncio.wait((line.reading, wanted), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        await _ended(wanted)

    async def _open_and_hear(self) -> _Line:
        line = await self._open()
        try:
            await line.hear_first()
        except BaseException:
            await self._close(line)
            raise
        return line

    async def _retire(self, line: _Line) -> None:
        """Read a line that has a successor a little longer, then close it."""
        await asyncio.wait((line.reading,), timeout=self._settings.overlap_s)
        await self._close(line)

    async def _close(self, line: _Line) -> None:
        await line.close()
        self._lines.discard(line)

    async def _hang_up(self) -> None:
        self._line = None
        for task in tuple(self._tasks):
            await _ended(task)
        for line in tuple(self._lines):
            await self._close(line)

    def _spawn(self, work: Coroutine[object, object, _Made]) -> asyncio.Task[_Made]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _delay_s(self) -> float:
        return self._backoff.delay_s(self._failures - 1, self._random)

    def _failed(self, reason: str) -> None:
        self._failures += 1
        _log.log(logging.DEBUG if self._in_trouble else logging.WARNING, "%s: %s; trying again", self._name, reason)
        self._in_trouble = True

    def _settled(self) -> None:
        self._failures = 0
        if self._in_trouble:
            self._in_trouble = False
            _log.info("%s: connected again for %g s", self._name, self._settings.settled_s)


class _Line:
    """One connection, from its opening to its end."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        channel: aiohttp.ClientWebSocketResponse,
        number: int,
        settings: SocketSettings,
        clock: Callable[[], TsNs],
    ) -> None:
        self.number = number
        self.opened_s = asyncio.get_running_loop().time()
        self.heard_ns = clock()
        self.is_settled = False
        self._session = session
        self._channel = channel
        self._settings = settings
        self._clock = clock
        self._first: Frame | None = None
        self._out: asyncio.Future[_Out] = asyncio.get_running_loop().create_future()
        self._settling: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()
        self._may_send_s = 0.0
        self._is_mute = False
        self.reading = asyncio.create_task(self._read())  # results in why it ended

    @classmethod
    async def open(cls, url: str, number: int, settings: SocketSettings, clock: Callable[[], TsNs]) -> _Line:
        """Connect. Raises one of _FAILURES, ValueError for a URL that is none."""
        session = aiohttp.ClientSession()  # of its own: a broken connection goes with all that belongs to it
        try:
            channel = await session.ws_connect(
                url,
                timeout=aiohttp.ClientWSTimeout(ws_close=_FAREWELL_S),
                max_msg_size=settings.max_frame_bytes,
                compress=settings.compress,
                heartbeat=settings.pings_s,
                autoping=True,
            )
        except aiohttp.InvalidURL as error:
            await session.close()
            raise ValueError(f"{url.partition('?')[0]} is no address of a WebSocket") from error
        except BaseException:
            await session.close()
            raise
        return cls(session, channel, number, settings, clock)

    def start(self, out: _Out, on_settled: Callable[[], None]) -> None:
        """Let the frames into `out`, until the end."""

        def settle() -> None:
            self.is_settled = True
            on_settled()

        loop = asyncio.get_running_loop()
        self._settling = loop.call_at(self.opened_s + self._settings.settled_s, settle)
        self._out.set_result(out)

    async def hear_first(self) -> None:
        """Wait for the first frame, which `start` then passes on. Raises TimeoutError or ClientError."""
        async with asyncio.timeout(self._settings.silence_s):
            heard = await self._receive()
        if isinstance(heard, str):
            raise aiohttp.ClientConnectionError(heard)
        self._first = heard

    async def send(self, text: str) -> None:
        """Send when it is this message's turn. Raises one of _FAILURES."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            await asyncio.sleep(max(0.0, self._may_send_s - loop.time()))
            self._may_send_s = loop.time() + 1.0 / self._settings.sends_per_s
            await self._channel.send_str(text)

    async def close(self) -> None:
        """End it, politely unless it has fallen silent; never raises for a connection that is broken."""
        if self._settling is not None:
            self._settling.cancel()
        try:
            await _ended(self.reading)
            if not self._is_mute:
                await self._channel.close()
        finally:
            await self._session.close()

    async def _read(self) -> str:
        out = await self._out
        if self._first is not None:
            await out.put(self._first)
        silence_s = self._settings.silence_s
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(silence_s) as patience:
                while isinstance(heard := await self._receive(), Frame):
                    try:
                        out.put_nowait(heard)
                    except asyncio.QueueFull:
                        patience.reschedule(None)  # it is the consumer who is slow, not the venue
                        await out.put(heard)
                    patience.reschedule(loop.time() + silence_s)
        except TimeoutError:
            self._is_mute = True
            return f"silent for {silence_s:g} s"
        except (aiohttp.ClientError, OSError) as error:  # where answering a ping fails
            return f"connection lost: {_said(error)}"
        return heard

    async def _receive(self) -> Frame | str:
        """Return the next frame, or why there will be none."""
        message = await self._channel.receive()
        match message.type:
            case aiohttp.WSMsgType.TEXT:
                text: str = message.data
            case aiohttp.WSMsgType.BINARY:
                text = message.data.decode(errors="replace")  # no venue sends any; the consumer finds it odd
            case aiohttp.WSMsgType.CLOSE:
                said = f"{message.data} {message.extra or ''}".strip()
                return f"closed by the venue ({said})"
            case aiohttp.WSMsgType.ERROR:
                return f"unusable frame: {_said(message.data)}"
            case _:
                return "connection lost"
        self.heard_ns = self._clock()
        return Frame(self.heard_ns, text, self.number)


async def _ended(task: asyncio.Task[object]) -> None:
    """Cancel a task and see it end; what a finished one says is its creator's business."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()  # looked at, so that asyncio does not report it as never retrieved


def _said(error: BaseException) -> str:
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"HTTP {error.status}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _asked_to_wait_s(error: BaseException) -> float:
    headers = getattr(error, "headers", None) or {}
    return retry_after_s(headers.get("Retry-After"), time.time()) or 0.0
