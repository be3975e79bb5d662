"""What who runs the daemon asks for: `/health`, `/metrics`; and what every request leaves behind for them.

Every request has an id: the client's own, or one that is made. It comes back in the answer's headers, errors' too, and
stands in every line that is logged on the way, so that a failure which a client reports can be found.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from daemon.api import answers, messages
from daemon.api.health import HealthCheck
from daemon.api.loop_lag import LoopLag
from daemon.api.metrics import Asked, Metrics
from daemon.core.request_id import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from daemon.api.services import Services
    from daemon.api.ws import Sockets

_log = logging.getLogger(__name__)

HEADER: Final = "X-Request-Id"
_GIVEN: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_KEY: Final = "request_id"
_BYTES: Final = 8
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
_GONE: Final = 499
"""Counted for requests whose client went away before the answer."""

_SWITCHED: Final = 101
"""Of a request that became a WebSocket."""


class Operations:
    """Watches over an application; its middleware stands outside of all that may answer."""

    def __init__(self, services: Services, sockets: Sockets) -> None:
        self.lag = LoopLag()
        self._health = HealthCheck(services, self.lag)
        self._metrics = Metrics(services, sockets, self.lag)

    def install(self, app: web.Application) -> None:
        """Add the routes, and begin and end with the application."""
        app.add_routes(self.table())
        app.on_response_prepare.append(_name)
        app.cleanup_ctx.extend([self.lag.watch, self._health.watch, self._metrics.watch])

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/health", self.health),
            web.get("/api/v1/health", self.health),
            web.get("/metrics", self.metrics),
        ]

    def middleware(self) -> Any:
        """Return what gives every request an id, and counts it by what came of it."""

        @web.middleware
        async def watched(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            given = request.headers.get(HEADER, "")
            request[_KEY] = given if _GIVEN.fullmatch(given) else secrets.token_hex(_BYTES)
            scope = REQUEST_ID.set(request[_KEY])
            began_s, status = time.perf_counter(), _GONE
            try:
                response = await handler(request)
                status = response.status
            finally:
                self._count(request, status, time.perf_counter() - began_s)
                REQUEST_ID.reset(scope)
            return response

        return watched

    async def health(self, request: web.Request) -> web.Response:
        """Tell how the daemon is: the status to everybody, its parts to who shows a token."""
        answers.query(request)
        state = await self._health.state()
        return answers.answer(messages.Alive(state.status) if request["grant"] is None else state)

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer all figures."""
        answers.query(request)
        text, kind = await asyncio.to_thread(self._metrics.text)
        return web.Response(body=text, headers={"Content-Type": kind})

    def _count(self, request: web.Request, status: int, seconds: float) -> None:
        resource = request.match_info.route.resource
        route = "none" if resource is None else resource.canonical
        method = request.method if request.method in _METHODS else "other"
        # How long a socket was open is no time that anybody waited.
        waited_s = 0.0 if status == _SWITCHED else seconds
        self._metrics.count_request(Asked(method, route, status), waited_s)
        _log.debug("%s %s: %d in %.1f ms", method, route, status, 1e3 * seconds)


async def _name(request: web.Request, response: web.StreamResponse) -> None:
    """Tell the id in every answer; requests that a test makes by hand have none."""
    if _KEY in request:
        response.headers[HEADER] = request[_KEY]
