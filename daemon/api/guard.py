"""Who gets as far as a route: what every request is asked before anything is done for it.

In this order: the Host header must name this machine (a rebound DNS name does not), the Origin must be the daemon's own
page or one that the user has named, a token must be shown, a body must be JSON (a form cannot send that without a
preflight) and come in time. The order is the point: what comes later costs more, and tells more.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from daemon.api import answers, auth
from daemon.api.limits import BODY_BYTES_PER_S, BodyBytes
from daemon.core.errors import Code, Forbidden, InvalidRequest, Unauthorized

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import TypeAlias

    from daemon.api.services import Services

    Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)

_LOCAL_HOSTS: Final = ("127.0.0.1", "[::1]", "localhost")
_WATCH_S: Final = 0.5
_BODY_S: Final = 30.0
"""How long a body may take to come."""

# Without a token: whether the daemon lives, the page with its parts, and what trades the page's code for a token.
# Sockets may show theirs in a first frame. By the routes' own patterns, for paths can be written in many ways.
_OPEN: Final = frozenset(
    {("GET", "/health"), ("GET", "/api/v1/health"), ("GET", "/"), ("POST", "/api/v1/session"), ("GET", "/ws")}
)
_OPEN_FILES: Final = "/console/"

_STARTS: Final = frozenset(
    {
        "/api/v1/runs",
        "/api/v1/backtest/run",
        "/api/v1/optimize",
        "/api/v1/optimize/{optimization_id}/resume",
        "/api/v1/montecarlo",
        "/api/v1/calibrate",
        "/api/v1/calibrate/latency",
    }
)
"""Routes of jobs; methods say of themselves that they start one."""

_STRANGERS_BYTES: Final = 4096
"""Of a body without a token: it holds a code."""

_WITH_BODY: Final = ("POST", "PUT", "PATCH")
_ORIGIN_KEY: Final = "origin"

PAGE_POLICY: Final = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self' ws:"
)
"""The console's page loads nothing from elsewhere. plotly sets styles; 'self' is no WebSocket to some browsers."""

_FRAME_POLICY: Final = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""Of every answer, in a header of its own: browsers hold to all policies, also where a handler has chosen another."""

_POLICY: Final = "Content-Security-Policy"
_HEADERS: Final = {
    _POLICY: PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def install(app: web.Application, services: Services) -> None:
    """Have an application ask every request, and tell browsers how to treat the answers."""
    app.middlewares.append(_Guard(services).middleware())
    app.on_response_prepare.append(_finish)

    async def watching(_app: web.Application) -> AsyncIterator[None]:
        watch = asyncio.create_task(_watch(services.access))
        yield
        watch.cancel()

    app.cleanup_ctx.append(watching)


async def _watch(access: auth.Access) -> None:
    """Notice a rotated token soon, also while nobody asks: its sockets are to close."""
    while True:
        await asyncio.sleep(_WATCH_S)
        try:
            access.refresh()
        except Exception:  # noqa: BLE001 - one listener's defect must not keep the next rotation from being seen
            _log.exception("a rotated token was not told to all")


class _Guard:
    def __init__(self, services: Services) -> None:
        config = services.config
        self._access = services.access
        self._starts = services.starts
        self._bodies = BodyBytes(BODY_BYTES_PER_S)
        self._hosts = {*_LOCAL_HOSTS, *(host.lower() for host in config.allowed_hosts)}
        self._origins = frozenset(config.allowed_origins)

    def middleware(self) -> Any:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            self._check_host(request)
            self._check_origin(request)
            if _is_preflight(request):
                return _preflight(request)
            request["grant"] = self._grant(request)
            await self._take_body(request)
            if request.method == "POST" and _pattern(request) in _STARTS:
                with self._starts.one():
                    return await handler(request)
            return await handler(request)

        return guard

    def _check_host(self, request: web.Request) -> None:
        hosts = request.headers.getall("Host", ())
        host = hosts[0].lower() if len(hosts) == 1 else ""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name not in self._hosts:
            raise Forbidden(
                Code.HOST_NOT_ALLOWED,
                "the Host header names another machine; http.allowed_hosts or --allow-host lets more in",
            )

    def _check_origin(self, request: web.Request) -> None:
        origins = request.headers.getall("Origin", ())
        if not origins:
            return
        origin = origins[0]
        if len(origins) == 1 and origin == f"http://{request.headers['Host']}".lower():
            return
        if len(origins) > 1 or origin not in self._origins:
            raise Forbidden(
                Code.ORIGIN_NOT_ALLOWED,
                "pages without an origin of their own (null) may not ask this daemon"
                if origin == "null"
                else f"pages of {origin[:100]} may not ask this daemon; http.allowed_origins lets one in",
            )
        request[_ORIGIN_KEY] = origin

    def _grant(self, request: web.Request) -> auth.Grant | None:
        text = auth.shown(request)
        grant = None if text is None else self._access.grant(text)
        if grant is None and (text is not None or not _is_open(request)):
            raise Unauthorized(
                Code.UNAUTHORIZED,
                "the token is missing or wrong: send `Authorization: Bearer TOKEN`; `atlasd token` prints it",
            )
        return grant

    async def _take_body(self, request: web.Request) -> None:
        """Have the whole body come in, while there is a deadline; handlers find it read."""
        if request.method not in _WITH_BODY:
            return
        if request.content_type != answers.JSON:
            raise web.HTTPUnsupportedMediaType
        is_known = request["grant"] is not None
        told = request.content_length
        if not is_known and (told is None or told > _STRANGERS_BYTES):
            raise web.HTTPRequestEntityTooLarge(_STRANGERS_BYTES, told or 0)
        if is_known:
            self._bodies.check()
        try:
            async with asyncio.timeout(_BODY_S):
                content = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        except web.RequestPayloadError:
            raise InvalidRequest(
                Code.INVALID_REQUEST, "the body cannot be read: its encoding is broken, or it was cut short"
            ) from None
        if is_known:  # a stranger's bytes must not take anybody's share
            self._bodies.count(len(content))


def _pattern(request: web.Request) -> str:
    """Return the pattern of the route that a request found, empty for none."""
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical


def _is_open(request: web.Request) -> bool:
    method = "GET" if request.method == "HEAD" else request.method
    pattern = _pattern(request)
    return (method, pattern) in _OPEN or (method == "GET" and pattern.startswith(_OPEN_FILES))


def _is_preflight(request: web.Request) -> bool:
    return request.method == "OPTIONS" and _ORIGIN_KEY in request and "Access-Control-Request-Method" in request.headers


def _preflight(request: web.Request) -> web.Response:
    headers = {
        "Access-Control-Allow-Methods": "GET, POST, DELETE",
        "Access-Control-Allow-Headers": "authorization, content-type, x-request-id",
        "Access-Control-Max-Age": "600",
    }
    if "Access-Control-Request-Private-Network" in request.headers:
        headers["Access-Control-Allow-Private-Network"] = "true"
    return web.Response(status=204, headers=headers)


async def _finish(request: web.Request, response: web.StreamResponse) -> None:
    """Put in the headers that a handler has not chosen by itself."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.add(_POLICY, _FRAME_POLICY)
    response.headers["Server"] = "atlasd"  # not what it is made of
    origin = request.get(_ORIGIN_KEY)
    if origin is not None:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = "Content-Disposition, Retry-After, X-Request-Id"
        response.headers.add("Vary", "Origin")
