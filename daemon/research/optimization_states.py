"""An optimisation while it has not ended: how it stands, and what is told of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from daemon.research.backtest_states import Flag
from daemon.research.worker import Paced

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from daemon.core.errors import AtlasError
    from daemon.core.events import Event
    from daemon.research.optimization.records import OptimizationProgress, Optimized, StoredOptimization
    from daemon.research.optimization.result import OptimizationStatus


class Active:
    """An optimisation that has not ended. future: None while it is being submitted, and where this process keeps it.

    is_kept: whether it waits for another process to take it up. publish: told how it is doing, ten times a second at
    the most; blocks of points may come faster. lost: why points of it could not be stored.
    """

    def __init__(self, state: StoredOptimization, publish: Callable[[Event], None], *, is_kept: bool = False) -> None:
        self.state = state
        self.publish = Paced(publish)
        self.is_kept = is_kept
        self.cancelled = Flag()
        self.future: Future[Optimized] | None = None
        self.progress: OptimizationProgress | None = None
        self.started_s = 0.0
        self.lost: AtlasError | None = None

    def status(self) -> OptimizationStatus:
        """Tell how it is doing at this moment."""
        status, progress = self.state.status, self.progress
        if status.status != "running" or progress is None:
            return status
        done = min(max(progress.done_fraction, 0.0), 1.0)
        left_s = (time.monotonic() - self.started_s) / done * (1 - done) if done else None
        remaining = None if left_s is None else round(1000 * left_s)
        return msgspec.structs.replace(status, progress=100 * done, estimated_time_remaining=remaining)
