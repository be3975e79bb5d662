"""What the daemon uses, measured when somebody asks and kept for a moment: asking often costs nothing."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.app.stores import Store

T = TypeVar("T")

_ROWS_S: Final = 5.0
_MEMORY_S: Final = 1.0
_FRESH: Final = 0.9


class ResourcesUsed:
    """What one daemon uses from its making on. Methods may be called from any thread."""

    def __init__(self, store: Store, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock_s = clock_s
        self._started_s = clock_s()
        self._rows = _Kept(self._count_rows, _ROWS_S, clock_s)
        self._memory = _Kept(_resident_bytes, _MEMORY_S, clock_s)

    @property
    def is_fresh(self) -> bool:
        """Whether all of it was measured a moment ago, so that asking again takes no time."""
        return self._rows.is_fresh and self._memory.is_fresh

    def uptime_s(self) -> int:
        """Seconds since the start."""
        return int(self._clock_s() - self._started_s)

    def stored_rows(self) -> int:
        """Rows of bars and ticks that are stored, as of the last five seconds."""
        return self._rows.get()

    def memory_bytes(self) -> int:
        """Resident memory of the daemon and its workers, as of the last second; shared pages count for each."""
        return self._memory.get()

    def _count_rows(self) -> int:
        _, bars, ticks = self._store
        return sum(each.rows for each in bars.series()) + sum(each.rows for each in ticks.series())


class _Kept(Generic[T]):
    """A figure that is measured anew once it is old; one at a time, whoever asks meanwhile waits for it."""

    def __init__(self, measure: Callable[[], T], keep_s: float, clock_s: Callable[[], float]) -> None:
        self._measure = measure
        self._keep_s = keep_s
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._last: tuple[float, T] | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether it stays as it is for a while, a tenth of its time at the least."""
        last = self._last
        return last is not None and self._clock_s() - last[0] < _FRESH * self._keep_s

    def get(self) -> T:
        with self._lock:
            now_s = self._clock_s()
            if self._last is None or now_s - self._last[0] >= self._keep_s:
                self._last = now_s, self._measure()
            return self._last[1]


def _resident_bytes() -> int:
    ours = psutil.Process()
    total = 0
    for process in (ours, *ours.children(recursive=True)):
        with suppress(psutil.Error):  # a worker may end while it is looked at
            total += process.memory_info().rss
    return total
