"""The states of a backtest, and of an optimisation: how one follows from another, and what is known of one at work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from daemon.core.errors import AtlasError, Code, JobFailed

if TYPE_CHECKING:
    from concurrent.futures import Future

    from daemon.research.backtest_records import BacktestProgress, Finished, StoredBacktest
    from daemon.research.backtest_result import BacktestStatus, Status
    from daemon.research.optimization.records import StoredOptimization

S = TypeVar("S", "StoredBacktest", "StoredOptimization")

MOST_ATTEMPTS: Final = 2

_NS_PER_MS: Final = 1_000_000


class Flag:
    """Whether a backtest is to end; ten thousand of them are waiting, and a `threading.Event` takes a kilobyte."""

    __slots__ = ("_is_set",)

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        """Tell."""
        return self._is_set

    def set(self) -> None:
        """Say that it is."""
        self._is_set = True


class Active:
    """A backtest that has not ended. future: None while it is being submitted, and where this process only keeps it."""

    __slots__ = ("cancelled", "future", "is_kept", "progress", "started_s", "state")

    def __init__(self, state: StoredBacktest, *, is_kept: bool = False) -> None:
        self.state = state
        self.is_kept = is_kept
        self.cancelled = Flag()
        self.future: Future[Finished] | None = None
        self.progress: BacktestProgress | None = None
        self.started_s = 0.0

    def status(self) -> BacktestStatus:
        """Tell how it is doing at this moment."""
        status, progress = self.state.status, self.progress
        if status.status != "running" or progress is None:
            return status
        done = min(max(progress.done_fraction, 0.0), 1.0)
        left_s = (time.monotonic() - self.started_s) / done * (1 - done) if done else None
        return msgspec.structs.replace(
            status,
            progress=100 * done,
            current_timestamp=None if progress.current_ns is None else progress.current_ns // _NS_PER_MS,
            events_processed=progress.events,
            estimated_time_remaining=None if left_s is None else round(1000 * left_s),
        )


def changed(state: S, **fields: Any) -> S:
    """Return the state with other fields of its status."""
    return msgspec.structs.replace(state, status=msgspec.structs.replace(state.status, **fields))


def failed(state: S, error: AtlasError, now_ms: int) -> S:
    """Return the state of what an error ended; CANCELLED is no failure."""
    status: Status = "cancelled" if error.code == Code.CANCELLED else "failed"
    traceback = (error.details or {}).get("traceback")
    return changed(
        state,
        status=status,
        completed_at=now_ms,
        error=error.message,
        error_code=str(error.code),
        error_traceback=traceback if isinstance(traceback, list) else None,
    )


def settled(state: S, now_ms: int) -> S:
    """Say what becomes of what a process left as it was killed."""
    status = state.status
    if status.status != "running":
        return state
    if status.attempts < MOST_ATTEMPTS:
        return changed(state, status="queued", started_at=None)
    error = JobFailed(
        Code.INTERRUPTED,
        f"the process ended while it ran, {status.attempts} times: it may be the cause; submit it again to try again",
    )
    return failed(state, error, now_ms)
