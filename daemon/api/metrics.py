"""`GET /metrics`: the daemon in figures, for Prometheus and whatever reads its format.

Requests are counted in plain dictionaries; everything else is asked where it is known when somebody scrapes. Labels are
patterns of routes, statuses, and names of this program or of the configuration: never what a client sends.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import daemon
from daemon.api.health import jobs
from daemon.core.errors import Code

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

    from aiohttp import web
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from daemon.api.loop_lag import LoopLag
    from daemon.api.services import Services
    from daemon.api.ws import Sockets
    from daemon.core.events import Fact

Labels = TypeVar("Labels", bound=tuple[str, ...])

_ENDS: Final = {"complete": "completed", "error": "failed"}
_CANCELLED: Final = f'"{Code.CANCELLED}"'.encode()


class Asked(NamedTuple):
    """What requests are counted by. route: its pattern."""

    method: str
    route: str
    status: int


class Metrics:
    """Counts, and writes what was counted. `text` may be called from any thread, the rest belongs to the loop."""

    def __init__(self, services: Services, sockets: Sockets, lag: LoopLag) -> None:
        self._services = services
        self._sockets = sockets
        self._lag = lag
        self._requests: Counter[Asked] = Counter()
        self._seconds: dict[str, float] = {}
        self._ended: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._registry: CollectorRegistry | None = None

    async def watch(self, _app: web.Application) -> AsyncIterator[None]:
        """Count the jobs that end while an application runs: a context of its clean-up."""
        leave = self._services.journal.listen(self.count_end)
        yield
        leave()

    def count_request(self, asked: Asked, seconds: float) -> None:
        """Count an answer, and how long it took."""
        self._requests[asked] += 1
        self._seconds[asked.route] = self._seconds.get(asked.route, 0.0) + seconds

    def count_end(self, fact: Fact) -> None:
        """Count a job that has ended, as a fact tells; may be called from any thread."""
        kind, _, word = fact.name.partition(":")
        if word in _ENDS:
            outcome = "cancelled" if word == "error" and _CANCELLED in bytes(fact.fields) else _ENDS[word]
            with self._lock:
                self._ended[kind, outcome] += 1

    def text(self) -> tuple[bytes, str]:
        """Return all figures in Prometheus' format, and its content type."""
        # Most daemons are never scraped, and the library takes a tenth of a second to load.
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest

        if self._registry is None:
            self._registry = CollectorRegistry()
            self._registry.register(self)
            ProcessCollector(registry=self._registry)
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def describe(self) -> Iterable[Metric]:
        """Describe nothing beforehand: a registry would collect everything to know the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all figures."""
        yield from self._of_requests()
        yield from self._of_jobs()
        yield from self._of_store()
        yield from self._of_feeds()
        resources = self._services.resources
        yield _gauge("atlasd_info", "The release that runs.", {(daemon.__version__,): 1}, "version")
        yield _gauge("atlasd_uptime_seconds", "Since the start.", {(): resources.uptime_s()})
        yield _gauge("atlasd_memory_bytes", "Resident memory, workers included.", {(): resources.memory_bytes()})
        lags = {("0.99",): self._lag.p99_s, ("1",): self._lag.worst_s}
        yield _gauge("atlasd_event_loop_lag_seconds", "How late timers were in the last minute.", lags, "quantile")

    def _of_requests(self) -> Iterator[Metric]:
        words = "Requests that were answered."
        counted = {(method, route, str(status)): n for (method, route, status), n in dict(self._requests).items()}
        yield _counter("atlasd_requests", words, counted, "method", "route", "status")
        seconds = {(route,): spent for route, spent in dict(self._seconds).items()}
        yield _counter("atlasd_request_seconds", "Time until requests were answered.", seconds, "route")
        yield _gauge("atlasd_sockets", "WebSocket connections that are open.", {(): len(self._sockets)})
        delivered = {(name,): count for name, count in dict(self._sockets.broadcast.delivered).items()}
        yield _counter("atlasd_events_sent", "Events that were handed to connections.", delivered, "event")

    def _of_jobs(self) -> Iterator[Metric]:
        unended = {
            (kind, status): count
            for kind, active in jobs(self._services).items()
            for status, count in (("queued", active.queued), ("running", active.running))
        }
        yield _gauge("atlasd_jobs", "Jobs that have not ended.", unended, "kind", "status")
        with self._lock:
            ended = dict(self._ended)
        yield _counter("atlasd_jobs_ended", "Jobs that have ended since the start.", ended, "kind", "outcome")
        if self._services.workers is not None:
            workers = self._services.workers()
            yield _gauge("atlasd_workers_wanted", "Workers there should be.", {(): workers.wanted})
            yield _gauge("atlasd_workers_alive", "Workers that live.", {(): workers.alive})

    def _of_store(self) -> Iterator[Metric]:
        env = self._services.env
        free = shutil.disk_usage(env.path.parent).free
        yield _gauge("atlasd_store_bytes", "Bytes of the store that are in use.", {(): env.size_bytes()})
        yield _gauge("atlasd_store_map_bytes", "Address space that the store has now.", {(): env.map_bytes()})
        yield _gauge("atlasd_store_most_bytes", "What the store may grow to.", {(): env.most_bytes})
        yield _gauge("atlasd_disk_free_bytes", "Free on the disk of the data folder.", {(): free})
        yield _gauge("atlasd_stored_rows", "Rows of bars and ticks.", {(): self._services.resources.stored_rows()})

    def _of_feeds(self) -> Iterator[Metric]:
        connected: Counter[tuple[str, ...]] = Counter()
        rows: Counter[tuple[str, ...]] = Counter()
        lost: Counter[tuple[str, ...]] = Counter()
        for name, status in self._services.feeds():  # a feed of several markets stands several times
            connected[name,] += int(status.connected)
            lost[name,] += status.reconnects
            for stream, count in dict(status.rows).items():
                rows[name, stream] += count
        yield _gauge("atlasd_feed_connections", "Connections to venues that are up.", connected, "feed")
        yield _counter("atlasd_feed_losses", "Connections that were lost.", lost, "feed")
        yield _counter("atlasd_feed_rows", "Rows that feeds have stored.", rows, "feed", "stream")


def _gauge(name: str, words: str, values: Mapping[Labels, float], *labels: str) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, words, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counter(name: str, words: str, values: Mapping[Labels, float], *labels: str) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(name, words, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
