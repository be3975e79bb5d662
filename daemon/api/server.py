"""Listening, saying so, and ending: the life of the HTTP server."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aiohttp import web

from daemon.api.deadline import HeaderDeadline
from daemon.api.http import application
from daemon.core.errors import Code, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.api.services import Services

_log = logging.getLogger(__name__)

_SHUTDOWN_S: Final = 3.0
_IDLE_S: Final = 75.0
"""How long a connection without requests is kept."""

_LINGERING_S: Final = 2.0
"""How long the rest of a refused body is read, so that the refusal can be."""

_BACKLOG: Final = 1024
_TRIES: Final = 20
_BOTH: Final = ("127.0.0.1", "::1")
_SAME_MACHINE: Final = (*_BOTH, "localhost")
_NO_IPV6: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


def serve(services: Services, on_ready: Callable[[str, int], None]) -> None:
    """Serve until SIGTERM or SIGINT, then finish open requests.

    on_ready: called with address and port once requests are answered.
    ConfigError for an address that is no loopback one, or cannot be had.
    """
    host = services.config.host
    _check_loopback(host)
    main = _serve(services, on_ready)
    if sys.platform == "win32":
        asyncio.run(main)
    else:
        import uvloop

        uvloop.run(main)


async def _serve(services: Services, on_ready: Callable[[str, int], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows: Ctrl-C ends asyncio.run instead
            loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(
        application(services),
        access_log=None,
        shutdown_timeout=_SHUTDOWN_S,
        keepalive_timeout=_IDLE_S,
        lingering_time=_LINGERING_S,
    )
    host, port = services.config.host, services.config.port
    sockets = listen(host, port)
    servers = list[asyncio.AbstractServer]()
    try:
        bound_port = sockets[0].getsockname()[1]
        await runner.setup()
        for each in sockets:
            servers.append(await loop.create_server(_protocols(runner), sock=each, backlog=_BACKLOG))
        on_ready(f"[{host}]" if ":" in host else host, bound_port)
        await stop.wait()
        _log.info("stopping")
    finally:
        for server in servers:
            server.close()
        await runner.cleanup()
        for each in sockets:
            each.close()


def _protocols(runner: web.AppRunner) -> Callable[[], HeaderDeadline]:
    """Make what speaks HTTP on a connection: aiohttp's protocol, behind a deadline."""
    speaking = runner.server
    if speaking is None:
        raise RuntimeError("the runner was not set up")
    return lambda: HeaderDeadline(speaking())


# Addresses.


def listen(host: str, port: int) -> list[socket.socket]:
    """Take a port on an address; of 127.0.0.1, ::1 and localhost on both addresses.

    Clients that say `localhost` may come to either of the two: left free, another user could take it and be told the
    token. ConfigError ADDRESS_UNAVAILABLE where one of them is taken; a machine without IPv6 has one only.
    """
    hosts = _BOTH if host in _SAME_MACHINE else (host,)
    for _ in range(_TRIES):
        taken = list[socket.socket]()
        at = port
        try:
            for each in hosts:
                try:
                    taken.append(_bind(each, at))
                except OSError as error:
                    if not taken or error.errno not in _NO_IPV6:
                        raise
                at = taken[0].getsockname()[1]
        except OSError as error:
            for bound in taken:
                bound.close()
            # A free port of one address may be taken on the other: then another one is tried.
            if port == 0 and error.errno == errno.EADDRINUSE:
                continue
            raise ConfigError(
                Code.ADDRESS_UNAVAILABLE,
                f"cannot listen on {each} port {at}: {error.strerror}; --port 0 takes a free one",
            ) from error
        return taken
    raise ConfigError(Code.ADDRESS_UNAVAILABLE, f"no port is free on both of {' and '.join(hosts)}")


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":  # there it would let two programs listen on one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def _check_loopback(host: str) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            Code.ADDRESS_UNAVAILABLE,
            f"http.host `{host}` is no loopback address: the daemon serves this machine only (127.0.0.1 or ::1)",
        )
