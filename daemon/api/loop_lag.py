"""How late the event loop is: what makes every answer late, and what no answer shows by itself."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp import web

_log = logging.getLogger(__name__)

INTERVAL_S: Final = 0.1
"""Ten looks a second find what stands in the way for longer than this, and cost a thousandth of a core."""

WINDOW_S: Final = 60.0
LATE_S: Final = 0.05
_QUIET_S: Final = 10.0
"""After a line in the log none follows for so long; what happens meanwhile is told in the next."""

_QUANTILE: Final = 0.99


class LoopLag:
    """Measures by how much a timer is late, over the last minute. What it tells may be asked from any thread."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._lags_s = [0.0] * round(WINDOW_S / INTERVAL_S)
        self._noted = 0
        self._quiet_until_s = -math.inf
        self._late = 0
        self._latest_s = 0.0

    @property
    def p99_s(self) -> float:
        """Seconds that one of a hundred timers was late by, at the least, in the last minute."""
        lags_s = sorted(self._measured())
        return lags_s[math.ceil(_QUANTILE * len(lags_s)) - 1] if lags_s else 0.0

    @property
    def worst_s(self) -> float:
        """Seconds that the latest timer of the last minute was late by."""
        return max(self._measured(), default=0.0)

    async def watch(self, _app: web.Application) -> AsyncIterator[None]:
        """Measure while an application runs: a context of its clean-up."""
        watching = asyncio.create_task(self._watch())
        yield
        watching.cancel()

    def note(self, lag_s: float) -> None:
        """Take in one measurement."""
        lag_s = max(lag_s, 0.0)  # timers of uvloop may be early by a part of a millisecond
        self._lags_s[self._noted % len(self._lags_s)] = lag_s
        self._noted += 1
        if lag_s > LATE_S:
            self._late += 1
            self._latest_s = max(self._latest_s, lag_s)
        now_s = self._monotonic_s()
        if self._late and now_s >= self._quiet_until_s:
            _log.warning(
                "the event loop was late by %.0f ms (%d times above %.0f ms since the last such line; of the last "
                "minute 99 %% are within %.0f ms)",
                1e3 * self._latest_s,
                self._late,
                1e3 * LATE_S,
                1e3 * self.p99_s,
            )
            self._quiet_until_s = now_s + _QUIET_S
            self._late, self._latest_s = 0, 0.0

    async def _watch(self) -> None:
        while True:
            began_s = self._monotonic_s()
            await asyncio.sleep(INTERVAL_S)
            self.note(self._monotonic_s() - began_s - INTERVAL_S)

    def _measured(self) -> list[float]:
        return self._lags_s[: self._noted]
