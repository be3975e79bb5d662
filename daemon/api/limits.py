"""How much may be asked of the daemon in a second."""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from daemon.core.errors import Code, TooManyRequests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WINDOW_S: Final = 1.0
_MIB: Final = 1 << 20
BODY_BYTES_PER_S: Final = 64 * _MIB
"""Of all request bodies together."""


class JobStarts:
    """At most so many starts of jobs in any second; refused ones do not count. Used on the event loop alone."""

    def __init__(self, per_s: int, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._monotonic_s = monotonic_s
        self._starts_s = deque[float]()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold while a job is being started. TooManyRequests TOO_MANY_REQUESTS says when there is room again."""
        now_s = self._monotonic_s()
        while self._starts_s and self._starts_s[0] <= now_s - _WINDOW_S:
            self._starts_s.popleft()
        if len(self._starts_s) >= self._per_s:
            raise too_many(
                f"more than {self._per_s} jobs a second were started; http.job_starts_per_s sets how many may be",
                self._starts_s[0] + _WINDOW_S - now_s,
            )
        self._starts_s.append(now_s)
        try:
            yield
        except Exception:  # not for who hung up meanwhile: the job starts all the same
            if now_s in self._starts_s:
                self._starts_s.remove(now_s)
            raise


class BodyBytes:
    """So many bytes of bodies a second: a body is taken whole, and the next ones wait until its share has passed."""

    def __init__(self, per_s: int, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._monotonic_s = monotonic_s
        self._free_at_s = 0.0

    def check(self) -> None:
        """Raise TooManyRequests TOO_MANY_REQUESTS while a second's worth of bytes is taken already."""
        wait_s = self._free_at_s - self._monotonic_s() - _WINDOW_S
        if wait_s > 0:
            raise too_many("more bytes a second are sent than the daemon takes", wait_s)

    def count(self, size: int) -> None:
        """Say how many bytes a body had."""
        self._free_at_s = max(self._free_at_s, self._monotonic_s()) + size / self._per_s


def too_many(why: str, wait_s: float) -> TooManyRequests:
    """Make the error; it says how long to wait, which is never a hair too short."""
    enough_s = (math.floor(wait_s * 1e3) + 1) / 1e3
    return TooManyRequests(Code.TOO_MANY_REQUESTS, f"{why}: ask again in {enough_s} s", {"retry_after_s": enough_s})
