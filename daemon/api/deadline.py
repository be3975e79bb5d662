"""A deadline for headers: who dribbles them, or sends none at all, is hung up on.

aiohttp waits for headers as long as it keeps idle connections, and that is meant to be long. So a protocol of our own
stands between it and each connection, hands everything on, and measures what is idle: from the first byte of a request,
or from the connection itself, until the request has reached the application.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

HEADERS_S: Final = 5.0


class HeaderDeadline(asyncio.Protocol):
    """One connection. inner: aiohttp's own protocol."""

    def __init__(self, inner: asyncio.Protocol, headers_s: float = HEADERS_S) -> None:
        self._inner = inner
        self._headers_s = headers_s
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._open_requests = 0

    def request_began(self) -> None:
        """Stop measuring: all headers of a request are there."""
        self._open_requests += 1
        self._stop()

    def request_ended(self) -> None:
        """Let the connection be idle until the next byte comes."""
        self._open_requests -= 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to measure."""
        self._transport = cast("asyncio.Transport", transport)
        self._start()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Hand bytes on; those that come to an idle connection begin a request."""
        if not self._open_requests and self._timer is None:
            self._start()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Hand on the end of what the client sends."""
        return self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on the end of the connection."""
        self._stop()
        self._transport = None
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Hand on that the client reads too slowly."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on that the client reads again."""
        self._inner.resume_writing()

    def _start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._headers_s, self._hang_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hang_up(self) -> None:
        self._timer = None
        if self._transport is not None and not self._open_requests:
            self._transport.abort()


@web.middleware
async def telling_deadline(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Tell the connection when a request has come and when it is answered; the outermost of all middlewares."""
    connection = None if request.transport is None else request.transport.get_protocol()
    if not isinstance(connection, HeaderDeadline):  # an application that a test serves by itself
        return await handler(request)
    connection.request_began()
    try:
        return await handler(request)
    finally:
        connection.request_ended()
