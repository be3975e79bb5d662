"""`backend:*`, `status`: what the daemon is doing, and this client's event stream as a whole."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import daemon
from daemon.api.protocol import Nothing, Part, method

if TYPE_CHECKING:
    from daemon.api.protocol import Call


class BackendStatus(Part, frozen=True, kw_only=True):
    """How the daemon is doing.

    connected: whether this client's event stream is attached; over HTTP, that the daemon answers. uptime: seconds.
    dataPointsLoaded: stored rows. memoryUsage: bytes, of all processes.
    """

    connected: bool
    version: str
    uptime: int
    active_backtests: int
    queued_backtests: int
    data_points_loaded: int
    memory_usage: int


@method("backend:connect")
async def connect(call: Call, _request: Nothing) -> BackendStatus:
    """Attach this client's event stream to all events."""
    if call.subscription is not None:
        call.subscription.attach([], [], [])
    return await _status(call)


@method("backend:disconnect")
async def disconnect(call: Call, _request: Nothing) -> BackendStatus:
    """Detach this client's event stream; the connection and all runs live on."""
    if call.subscription is not None:
        call.subscription.detach([], [], [])
    return await _status(call)


@method("backend:status")
async def backend_status(call: Call, _request: Nothing) -> BackendStatus:
    """Tell how the daemon is doing."""
    return await _status(call)


@method("status")
async def status(call: Call, _request: Nothing) -> BackendStatus:
    """Tell how the daemon is doing; short for backend:status."""
    return await _status(call)


async def _status(call: Call) -> BackendStatus:
    if call.services.resources.is_fresh:
        return _measured(call)  # a thread would cost more than the answer
    return await asyncio.to_thread(_measured, call)


def _measured(call: Call) -> BackendStatus:
    active = call.services.backtests.counts()
    is_attached = call.subscription is None or call.subscription.is_attached
    return BackendStatus(
        connected=is_attached,
        version=daemon.__version__,
        uptime=call.services.resources.uptime_s(),
        active_backtests=active["running"],
        queued_backtests=active["queued"],
        data_points_loaded=call.services.resources.stored_rows(),
        memory_usage=call.services.resources.memory_bytes(),
    )
