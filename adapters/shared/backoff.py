"""When the next request may leave: limits, back-off, and the waiting itself.

Time, sleep and chance arrive as one value, so that tests wait no second and every run of them is the same.
"""

from __future__ import annotations

import asyncio
import math
import time
from email.utils import parsedate_to_datetime
from random import Random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Waits(NamedTuple):
    """The clocks, the sleep and the chance that waiting needs.

    now_s: seconds of a clock that never steps back. wall_s: seconds since 1970.
    """

    now_s: Callable[[], float]
    wall_s: Callable[[], float]
    sleep: Callable[[float], Awaitable[object]]
    random: Random


def real_waits() -> Waits:
    """Make the waits of the real world."""
    return Waits(time.monotonic, time.time, asyncio.sleep, Random())  # noqa: S311 - jitter, no secret


class Backoff(NamedTuple):
    """Exponential back-off with full jitter: clients that failed together do not come back together.

    Source: Brooker (2015), "Exponential Backoff And Jitter".
    """

    first_s: float = 0.5
    cap_s: float = 60.0

    def delay_s(self, attempt: int, random: Random) -> float:
        """Draw the wait after failure number `attempt`, counted from 0: uniform in [0, first_s * 2^attempt], capped."""
        doublings = min(attempt, 62)  # beyond, the cap has long been reached and floats would overflow
        return random.uniform(0.0, min(self.cap_s, self.first_s * 2.0**doublings))


class RateLimit(NamedTuple):
    """A token bucket in a venue's units of weight: `burst` at once, refilled with `per_s` a second."""

    burst: float
    per_s: float


class Gate:
    """Lets requests through no faster than a limit, and knows how long the venue asked for quiet."""

    def __init__(self, limit: RateLimit, waits: Waits) -> None:
        self._limit = limit
        self._waits = waits
        self._tokens = limit.burst
        self._filled_at_s = waits.now_s()
        self._quiet_until_s = -math.inf

    def change(self, limit: RateLimit) -> None:
        """Go on under another limit."""
        self._fill()
        self._limit = limit
        self._tokens = min(self._tokens, limit.burst)

    def quieten(self, seconds: float) -> None:
        """Ask all requests to hold for so long; a shorter wish never shortens a longer one."""
        self._quiet_until_s = max(self._quiet_until_s, self._waits.now_s() + seconds)

    @property
    def quiet_s(self) -> float:
        """Seconds until requests may leave again; 0 when they may."""
        return max(0.0, self._quiet_until_s - self._waits.now_s())

    async def enter(self, weight: float) -> None:
        """Wait for a turn under the limit.

        A turn is taken before it is waited for: whoever comes next queues behind. A weight above the burst passes
        when the bucket has earned it.
        """
        self._fill()
        self._tokens -= weight
        if self._tokens < 0:
            await self._waits.sleep(-self._tokens / self._limit.per_s)

    def _fill(self) -> None:
        now_s = self._waits.now_s()
        earned = (now_s - self._filled_at_s) * self._limit.per_s
        self._tokens = min(self._limit.burst, self._tokens + earned)
        self._filled_at_s = now_s


def retry_after_s(header: str | None, wall_s: float) -> float | None:
    """Seconds that a `Retry-After` header asks to wait, from a number or a date; None where it says neither."""
    text = (header or "").strip()
    if text.replace(".", "", 1).isdecimal() and text.isascii():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - wall_s)
    except ValueError:
        return None  # the caller backs off by itself
