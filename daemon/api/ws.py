"""The WebSocket at `/ws`: who may connect, which dialect is spoken, requests in parallel, and an orderly end.

A connection has three tasks at the least: one reads, one sends (`outbox`), and each request has one of its own. Nothing
that a client sends ends its connection but what the protocol itself forbids: text that is no UTF-8 (1007), a message
that is too long (1009). Compression is off: the other end is on this machine.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from daemon.api import dialect as shipping
from daemon.api import frames
from daemon.api.broadcast import Broadcast
from daemon.api.frames import BadFrame, Documented
from daemon.api.outbox import Outbox
from daemon.api.protocol import Call
from daemon.core.errors import AtlasError, Code, Conflict, InvalidRequest, JobFailed
from daemon.core.request_id import REQUEST_ID
from daemon.research.monte_carlo_records import Simulation

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.api.frames import Asked, Dialect
    from daemon.api.services import Services
    from daemon.api.subscriptions import Stream

_log = logging.getLogger(__name__)

PATH: Final = "/ws"
PING_S: Final = 15.0
AUTH_S: Final = 2.0
AUTH_FAILED: Final = 4401
"""Code of a close, as applications have their own from 4000 on."""

MOST_IN_FLIGHT: Final = 256
"""Requests of one connection that are being answered; the next ones are read when one of them is."""

_LONGEST_AUTH: Final = 1_024
_CLOSE_S: Final = 2.0
_FINAL: Final = 0x80
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
_LONG_BYTES: Final = 1 << 16
_LONG_LIST: Final = 200

_JSON: Final = Documented(frames.JSON)
_MSGPACK: Final = Documented(frames.MSGPACK)
_SHIPPING: Final = shipping.Shipping()
_PROTOCOLS: Final = {"atlas.json": _JSON, "atlas.msgpack": _MSGPACK}


class Sockets:
    """All connections of the application."""

    def __init__(self, services: Services) -> None:
        self.broadcast = Broadcast(services)
        self._services = services
        self._access = services.access
        self._open: dict[Connection, None] = {}
        self._leave: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._open)

    def install(self, app: web.Application) -> None:
        """Add the route, and begin and end with the application."""
        app[SOCKETS] = self
        app.router.add_get(PATH, self.connect, allow_head=False)
        app.on_startup.append(self._start)
        app.on_shutdown.append(self._stop)

    async def connect(self, request: web.Request) -> web.StreamResponse:
        """Serve one connection until it ends; `guard` has turned away who shows a wrong token."""
        offered = {each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",")} - {""}
        if offered and not offered & _PROTOCOLS.keys():
            # A browser would take no answer that chooses none, and would not say why.
            raise InvalidRequest(
                Code.INVALID_REQUEST, f"offer one of the subprotocols {', '.join(_PROTOCOLS)}, or none at all"
            )
        socket = web.WebSocketResponse(
            timeout=_CLOSE_S,
            heartbeat=PING_S,
            compress=False,
            protocols=tuple(_PROTOCOLS),
            writer_limit=0,
            max_msg_size=self._services.config.max_message_kb * 1024,
        )
        await socket.prepare(request)
        connection = Connection(socket, request, self._services, self.broadcast)
        self._open[connection] = None
        try:
            if self._access.check_headers(request) is not None or await self._is_shown(socket):
                await connection.run()
            else:
                await connection.close(AUTH_FAILED, "show the token within 2 s: `atlasd token` prints it")
        finally:
            connection.end()
            del self._open[connection]
        return socket

    async def close_all(self, code: int, reason: str) -> None:
        """Close every connection: the token was rotated, or the daemon ends."""
        await asyncio.gather(*(connection.close(code, reason) for connection in list(self._open)))

    async def _is_shown(self, socket: web.WebSocketResponse) -> bool:
        """Wait for the first frame, which has to show the token."""
        try:
            async with asyncio.timeout(AUTH_S):
                message = await socket.receive()
        except TimeoutError:
            return False
        encoding = _PROTOCOLS.get(socket.ws_protocol or "", _JSON).encoding
        token = _token(encoding, message.data)
        return token is not None and self._access.check_token(token)

    async def _start(self, _app: web.Application) -> None:
        loop = asyncio.get_running_loop()
        self.broadcast.start(loop)
        closing = set[asyncio.Task[None]]()

        def rotated() -> None:
            task = loop.create_task(self.close_all(AUTH_FAILED, "the token was rotated: connect with the new one"))
            closing.add(task)
            task.add_done_callback(closing.discard)

        self._leave = self._access.on_rotation(rotated)

    async def _stop(self, _app: web.Application) -> None:
        self._leave()
        self.broadcast.stop()
        await self.close_all(WSCloseCode.GOING_AWAY, "the daemon stops; jobs go on when it starts again")


SOCKETS: Final = web.AppKey("sockets", Sockets)
"""Where an application has them."""


class Connection:
    """One client that may ask."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        request: web.Request,
        services: Services,
        broadcast: Broadcast,
    ) -> None:
        self._socket = socket
        self._request = request
        self._services = services
        self._broadcast = broadcast
        self._dialect: Dialect = _PROTOCOLS.get(socket.ws_protocol or "", _JSON)
        self._is_decided = False
        self._kind = WSMsgType.TEXT if self._dialect.is_text else WSMsgType.BINARY
        self._outbox = Outbox(self._send, self._overflowed)
        self._stream: Stream = broadcast.join(self._outbox, self._dialect)
        self._in_flight: dict[str, asyncio.Task[None]] = {}
        self._has_slot = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        self._is_closing = False

    async def run(self) -> None:
        """Read and answer until either side ends it."""
        sending = asyncio.create_task(self._send_all())
        try:
            async for message in self._socket:
                if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                    break
                if not self._is_decided and (token := _token(self._dialect.encoding, message.data)) is not None:
                    if not self._services.access.check_token(token):  # shown once more, beside the headers
                        await self.close(AUTH_FAILED, "the token is wrong")
                        break
                    continue
                self._take(message.type, message.data)
                await asyncio.sleep(0)  # messages that are there already do not wait, but other clients do
                await self._outbox.room()
                if len(self._in_flight) >= MOST_IN_FLIGHT:
                    self._has_slot.clear()
                    await self._has_slot.wait()
        finally:
            sending.cancel()
            for task in self._in_flight.values():
                task.cancel()  # the wait for what was started, which lives on
            if self._closing is not None:
                await self._closing

    async def close(self, code: int, reason: str) -> None:
        """Close from this side: what is written already still goes out, if the client takes it in time."""
        if self._is_closing:
            return
        self._is_closing = True
        self._outbox.close()
        self._has_slot.set()
        with suppress(TimeoutError, ConnectionError, RuntimeError):
            async with asyncio.timeout(_CLOSE_S):
                await self._socket.close(code=code, message=reason.encode())
                return
        if self._request.transport is not None:
            self._request.transport.abort()

    def end(self) -> None:
        """Let go of what others hold of it."""
        self._broadcast.leave(self._stream)
        self._outbox.close()

    # Sending.

    async def _send(self, batch: list[bytes]) -> None:
        """Write frames: a hundred clients are sent a fact for little more than the price of the system's call."""
        *before, last = batch
        transport = self._request.transport
        if before and transport is not None:
            transport.write(b"".join(part for frame in before for part in (self._head(frame), frame)))
        await self._socket.send_frame(last, self._kind)  # waits while the transport is full: `writer_limit` is 0

    def _head(self, frame: bytes) -> bytes:
        """Make the head of a whole, unmasked frame, as RFC 6455 has it in section 5.2."""
        first, length = _FINAL | self._kind, len(frame)
        if length < _TWO_BYTES:
            return bytes((first, length))
        if length < 1 << 16:
            return struct.pack("!BBH", first, _TWO_BYTES, length)
        return struct.pack("!BBQ", first, _EIGHT_BYTES, length)

    async def _send_all(self) -> None:
        with suppress(ConnectionError):
            await self._outbox.run()

    def _overflowed(self) -> None:
        reason = "too slow: connect again and send events:resume with the last epoch and seq"
        self._closing = asyncio.create_task(self.close(WSCloseCode.TRY_AGAIN_LATER, reason))

    # Receiving.

    def _take(self, kind: WSMsgType, content: str | bytes) -> None:
        try:
            if kind is not self._kind:
                raise BadFrame(_wrong_kind(is_text=self._dialect.is_text))
            if not self._is_decided and self._dialect is _JSON and shipping.is_spoken(content):
                self._speak_shipping()
            asked = self._dialect.read(content)
            self._is_decided = True
            if asked.id in self._in_flight:
                raise BadFrame(
                    Conflict(Code.DUPLICATE_ID, "a request with this id is being answered", {"id": asked.id}),
                    asked.id,
                    asked.method[: frames.LONGEST_ID],
                )
        except BadFrame as bad:
            self._outbox.answer(self._dialect.failed(bad.error, bad.id, bad.method))
            return
        self._in_flight[asked.id] = asyncio.create_task(self._answer(asked))

    def _speak_shipping(self) -> None:
        self._is_decided = True
        self._dialect = _SHIPPING
        self._broadcast.leave(self._stream)
        self._stream = self._broadcast.join(self._outbox, _SHIPPING)
        self._stream.attach(shipping.EVENTS, (), ())

    async def _answer(self, asked: Asked) -> None:
        REQUEST_ID.set(asked.id)  # of this task, which ends with the request
        try:
            frame = await self._answered(asked)
        except AtlasError as error:
            make = partial(self._dialect.failed, error, asked.id, asked.method[: frames.LONGEST_ID])
            frame = await asyncio.to_thread(make) if error.code is Code.RESUME_GAP else make()  # that has a snapshot
        except Exception:  # noqa: BLE001 - the boundary: a defect answers INTERNAL and is logged
            _log.exception("%s failed", asked.method[: frames.LONGEST_ID])
            failure = JobFailed(Code.INTERNAL, "the daemon failed on this request; its log has the details")
            frame = self._dialect.failed(failure, asked.id, asked.method[: frames.LONGEST_ID])
        finally:
            del self._in_flight[asked.id]
            self._has_slot.set()
        self._outbox.answer(frame)

    async def _answered(self, asked: Asked) -> bytes:
        content = await self._dialect.ask(Call(self._services, self._stream), asked)
        if _is_long(content, self._dialect):
            return await asyncio.to_thread(self._dialect.answered, asked, content)
        return self._dialect.answered(asked, content)


def _token(encoding: frames.Encoding, content: Any) -> str | None:
    """Return the token of an auth frame, None where a frame is no such."""
    if not isinstance(content, (str, bytes)):
        return None
    if len(content) > _LONGEST_AUTH:
        return None  # not worth decoding for who is not known yet
    try:
        found = frames.decoded(encoding, content)
    except BadFrame:
        return None
    if not isinstance(found, dict) or found.get("type") != "auth":
        return None
    token = found.get("token")
    return token if isinstance(token, str) else ""


def _wrong_kind(*, is_text: bool) -> InvalidRequest:
    if is_text:
        return InvalidRequest(Code.INVALID_REQUEST, "binary frames need the subprotocol atlas.msgpack")
    return InvalidRequest(Code.INVALID_REQUEST, "with the subprotocol atlas.msgpack all frames are binary")


def _is_long(content: Any, dialect: Dialect) -> bool:
    """Tell whether encoding would hold the loop for more than a millisecond."""
    if isinstance(content, msgspec.Raw):
        return not dialect.is_text and memoryview(content).nbytes > _LONG_BYTES
    return isinstance(content, Simulation) or (isinstance(content, list) and len(content) > _LONG_LIST)
