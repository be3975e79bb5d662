"""Whether the daemon is well: its parts one by one, each with why it is not and what to do.

The state is measured on a thread of its own, once a second at the most: readers that take up all other threads, or a
store that does not answer, must not keep a supervisor waiting. Asking without a token costs no more than a look at it.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import msgspec

import daemon
from daemon.core.errors import AtlasError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from aiohttp import web

    from daemon.api.loop_lag import LoopLag
    from daemon.api.services import Services
    from daemon.ingest.recording import RecordStatus
    from daemon.research.executors import WorkerCounts
    from daemon.store.env import Environment

State: TypeAlias = Literal["ok", "degraded", "failed"]

KEEP_S: Final = 1.0
PATIENCE_S: Final = 2.0
LITTLE_DISK_BYTES: Final = 2 << 30
NO_DISK_BYTES: Final = 100 << 20
_FULL_MAP: Final = 0.9
_SLOW_S: Final = 0.25
_STUCK_S: Final = 2.0
_MIB: Final = 1 << 20
_WORST_FIRST: Final[tuple[State, ...]] = ("failed", "degraded", "ok")


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """How one part of the daemon is.

    status: ok; degraded, which works and needs a look; or failed. why, remedy: sentences, null where it is ok.
    figures: what the state was judged by; their names end in their units.
    """

    status: State
    why: str | None = None
    remedy: str | None = None
    figures: dict[str, float] = {}


class Active(msgspec.Struct, frozen=True):
    """Jobs of one kind that have not ended."""

    queued: int
    running: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /health`. status: the worst of the components'. memory_bytes: of all processes. jobs: by kind."""

    status: State
    version: str
    strategies_loaded: int
    uptime_seconds: int
    memory_bytes: int
    jobs: dict[str, Active]
    components: dict[str, Component]


class HealthCheck:
    """Measures the state when it is asked for. Used on the event loop alone."""

    def __init__(self, services: Services, lag: LoopLag) -> None:
        self._services = services
        self._lag = lag
        self._thread = ThreadPoolExecutor(1, "health")
        self._measuring: asyncio.Future[Health] | None = None
        self._last: Health | None = None
        self._fresh_until_s = 0.0

    async def watch(self, _app: web.Application) -> AsyncIterator[None]:
        """End the thread with an application: a context of its clean-up."""
        yield
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def state(self) -> Health:
        """Return the state as of the last second; where it cannot be told in time, that the store is stuck."""
        if self._last is not None and time.monotonic() < self._fresh_until_s:
            return self._last
        if self._measuring is None:
            self._measuring = asyncio.get_running_loop().run_in_executor(self._thread, self._measured)
        measuring = self._measuring
        done, _ = await asyncio.wait([measuring], timeout=PATIENCE_S)
        if not done:
            return self._stuck()
        if self._measuring is measuring:
            self._measuring = None
            self._last = measuring.result()
            self._fresh_until_s = time.monotonic() + KEEP_S
        return measuring.result()

    def _measured(self) -> Health:
        services = self._services
        components = {"store": store_state(services.env)}
        if services.workers is not None:
            components["workers"] = workers_state(services.workers())
        components["feeds"] = feeds_state(services.feeds())
        components["event_loop"] = loop_state(self._lag.p99_s, self._lag.worst_s)
        return self._health(components, services.resources.memory_bytes())

    def _stuck(self) -> Health:
        why = f"the store has not answered for {PATIENCE_S:g} s"
        stuck = Component(
            status="failed", why=why, remedy="look at the disk, and at `atlasd logs`; then restart the daemon"
        )
        known = {} if self._last is None else self._last.components
        return self._health(known | {"store": stuck}, 0 if self._last is None else self._last.memory_bytes)

    def _health(self, components: dict[str, Component], memory_bytes: int) -> Health:
        return Health(
            status=worst(each.status for each in components.values()),
            version=daemon.__version__,
            strategies_loaded=len(self._services.book),
            uptime_seconds=self._services.resources.uptime_s(),
            memory_bytes=memory_bytes,
            jobs=jobs(self._services),
            components=components,
        )


def jobs(services: Services) -> dict[str, Active]:
    """Count the jobs that have not ended, by kind."""
    counts: dict[str, Mapping[Any, int]] = {
        "backtest": services.backtests.counts(),
        "optimization": services.optimizations.counts(),
        "probe": services.runs.counts(),
    }
    return {kind: Active(count["queued"], count["running"]) for kind, count in counts.items()}


def worst(states: Iterable[State]) -> State:
    """Return the worst of some states."""
    return min(states, key=_WORST_FIRST.index, default="ok")


def store_state(env: Environment) -> Component:
    """Judge the store: whether it can be read, and has room to grow, on the disk and in its map."""
    try:
        with env.read() as transaction:
            transaction.get("meta", b"schema")
        used, most = env.size_bytes(), env.most_bytes
        free = shutil.disk_usage(env.path.parent).free
    except (AtlasError, OSError) as error:
        return Component(status="failed", why=str(error), remedy="`atlasd doctor` says more")
    figures: dict[str, float] = {
        "used_bytes": used,
        "map_bytes": env.map_bytes(),
        "most_bytes": most,
        "free_disk_bytes": free,
    }
    room = f"{free // _MIB:,} MiB are free on the disk of {env.path.parent}"
    if free < NO_DISK_BYTES:
        return Component(status="failed", why=room, remedy="make room: nothing more can be stored", figures=figures)
    if free < LITTLE_DISK_BYTES:
        return Component(status="degraded", why=room, remedy="make room before nothing can be stored", figures=figures)
    if used > _FULL_MAP * most:
        why = f"the store has {used // _MIB:,} of the {most // _MIB:,} MiB that it may have"
        return Component(
            status="degraded", why=why, remedy="raise store.max_map_gb, or delete runs and ticks", figures=figures
        )
    return Component(status="ok", figures=figures)


def workers_state(workers: WorkerCounts) -> Component:
    """Judge the workers; those that are being started are no reason to worry."""
    figures: dict[str, float] = {"wanted": workers.wanted, "alive": workers.alive, "starting": workers.starting}
    dead = workers.wanted - workers.alive - workers.starting
    if dead <= 0:
        return Component(status="ok", figures=figures)
    why = f"{dead} of {workers.wanted} worker processes have ended"
    remedy = "`atlasd logs --level error` says why; the next job starts them anew"
    return Component(status="failed" if dead == workers.wanted else "degraded", why=why, remedy=remedy, figures=figures)


def feeds_state(feeds: Sequence[tuple[str, RecordStatus]]) -> Component:
    """Judge feeds by their names and how they are doing; no feeds are fine."""
    down = [(name, status) for name, status in feeds if not status.connected]
    figures: dict[str, float] = {"feeds": len(feeds), "connected": len(feeds) - len(down)}
    if not down:
        return Component(status="ok", figures=figures)
    has_failed = len(down) == len(feeds) and any(status.reconnects or status.last_error for _, status in down)
    words = (f"{name} ({status.last_error})" if status.last_error else name for name, status in down)
    return Component(
        status="failed" if has_failed else "degraded",
        why=f"not connected: {'; '.join(words)}",
        remedy="they connect again by themselves, and fetch what they missed; `atlasd logs` shows what venues say",
        figures=figures,
    )


def loop_state(p99_s: float, worst_s: float) -> Component:
    """Judge the event loop by how late it was in the last minute, seconds."""
    figures: dict[str, float] = {"lag_p99_ms": round(1e3 * p99_s, 2), "lag_worst_ms": round(1e3 * worst_s, 2)}
    if p99_s < _SLOW_S:
        return Component(status="ok", figures=figures)
    why = f"one answer in a hundred waits {1e3 * p99_s:.0f} ms or longer before the daemon begins with it"
    remedy = "take load off the machine, or set workers.count lower"
    return Component(status="failed" if p99_s >= _STUCK_S else "degraded", why=why, remedy=remedy, figures=figures)
