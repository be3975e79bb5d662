"""Events from the threads that make them to all streams: one wake-up of the loop for many, one encoding for all."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from daemon.api.frames import Told
from daemon.api.messages import run_status
from daemon.api.outbox import Queue, Slot
from daemon.api.subscriptions import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.api.frames import Dialect
    from daemon.api.outbox import Outbox
    from daemon.api.services import Services
    from daemon.core.events import Event, Fact

# About two milliseconds of the loop.
_DELIVERIES_AT_ONCE: Final = 1_000
_MOST_LISTED: Final = 1_000


class Broadcast:
    """Tells every stream what it wants to know.

    Progress comes by the bus; facts come from the journal once they are on disk, whatever the bus said of them before.
    """

    def __init__(self, services: Services, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._services = services
        self._now_ms = now_ms
        self._epoch = services.journal.epoch
        self._lock = threading.Lock()
        self._inbox: Queue[Told] = Queue()
        self._is_awake = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: dict[Stream, None] = {}
        self._last = services.journal.last
        self._turn = asyncio.Lock()
        self._leave: list[Callable[[], None]] = []
        self.delivered: Counter[str] = Counter()
        """Events that were handed to outboxes, by name."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to listen, and tell on this loop."""
        self._loop = loop
        self._leave = [self._services.bus.listen(self.tell_progress), self._services.journal.listen(self.tell_fact)]

    def stop(self) -> None:
        """Listen no longer."""
        for leave in self._leave:
            leave()
        with self._lock:
            self._loop = None
            self._inbox.clear()

    def join(self, outbox: Outbox, dialect: Dialect) -> Stream:
        """Make a stream; it wants nothing until it is attached. Whoever made it calls `leave`."""
        stream = Stream(outbox, dialect, self._services.journal, lambda: self._last, self._snapshot, self._turn)
        self._streams[stream] = None
        return stream

    def leave(self, stream: Stream) -> None:
        """Tell a stream nothing more."""
        self._streams.pop(stream, None)
        stream.close()

    # From any thread.

    def tell_progress(self, event: Event) -> None:
        """Tell an event that is no fact; facts are told when they are written."""
        if not event.IS_FACT:
            with self._lock:
                self._inbox.push_latest(Told.of_progress(event, self._now_ms()), event.NAME, event.id)
                self._wake()

    def tell_fact(self, fact: Fact) -> None:
        """Tell a fact that is on disk."""
        told = Told.of_fact(fact, self._epoch)
        with self._lock:
            self._inbox.push(Slot(told), told.run_id)
            self._wake()

    def _wake(self) -> None:
        if not self._is_awake and self._loop is not None and not self._loop.is_closed():
            self._is_awake = True
            self._loop.call_soon_threadsafe(self._deliver)

    # On the loop.

    def _deliver(self) -> None:
        deliveries = 0
        while deliveries < _DELIVERIES_AT_ONCE:
            with self._lock:
                if not self._inbox:
                    self._is_awake = False
                    return
                told = self._inbox.pop().content
            takers = [stream for stream in self._streams if stream.takes(told)]
            for stream in takers:
                stream.tell(told)
            self.delivered[told.name] += len(takers)
            self._last = told.seq or self._last
            deliveries += len(self._streams) // 8 + len(takers) + 1
        if self._loop is not None:
            self._loop.call_soon(self._deliver)

    def _snapshot(self) -> dict[str, Any]:
        """Return how all jobs are doing, the newest of them first."""
        return {
            "backtests": self._services.backtests.all()[:_MOST_LISTED],
            "optimizations": self._services.optimizations.all()[:_MOST_LISTED],
            "probes": [run_status(view) for view in self._services.runs.all()[:_MOST_LISTED]],
        }
