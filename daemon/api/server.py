"""Listening, saying so, and ending: the life of the HTTP server."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from aiohttp import web

from daemon.api.http import application
from daemon.core.errors import Code, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.api.services import Services

_log = logging.getLogger(__name__)

_SHUTDOWN_S: Final = 3.0


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
    runner = web.AppRunner(application(services), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        host, port = services.config.host, services.config.port
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(
                Code.ADDRESS_UNAVAILABLE,
                f"cannot listen on {host} port {port}: {error.strerror}; --port 0 takes a free one",
            ) from error
        bound_port = runner.addresses[0][1]
        on_ready(f"[{host}]" if ":" in host else host, bound_port)
        await stop.wait()
        _log.info("stopping")
    finally:
        await runner.cleanup()


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
