"""A worker process, seen by the process that started it: spawned, given jobs, watched, killed, replaced."""

from __future__ import annotations

import logging
import multiprocessing
import time
from contextlib import suppress
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from daemon.core.errors import AtlasError, Code, JobFailed, StrategyFailed
from daemon.research.backtest_records import BacktestProgress
from daemon.research.budgets import Budget, Watch
from daemon.research.optimization.records import OptimizationJob, OptimizationProgress
from daemon.research.plans import ProbeJob
from daemon.research.spawning import start_alone
from daemon.research.worker import BEGUN, CANCEL, READY, WorkerSetup, budget_of, described, worker_main

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from daemon.research.jobs import Job

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.1
_STOP_S: Final = 3.0
# A worker that was told to cancel and does not come to a checkpoint is killed: nothing of its job is wanted any more.
# Code of the user's own has no part in checkpoints, so there is little to wait for.
_CANCEL_S: Final = 10.0
_CANCEL_OWN_S: Final = 1.0


class Flag(Protocol):
    """What says that a job is no longer wanted, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Tell."""


class _Worker(NamedTuple):
    process: SpawnProcess
    pipe: Connection

    @property
    def has_died(self) -> bool:
        """Whether the process ended; `is_alive` errs while another thread spawns, which collects dead children."""
        return bool(connection.wait([self.process.sentinel], 0))


class WorkerProcess:
    """One worker process, started when it is first needed, replaced when it dies. One thread uses it.

    number: among its executor's. closing: set where the executor stops.
    """

    def __init__(self, setup: WorkerSetup, number: int, closing: threading.Event) -> None:
        self._setup = setup
        self._number = number
        self._closing = closing
        self._context = multiprocessing.get_context("spawn")
        self._worker: _Worker | None = None
        self.has_begun = False
        """Whether `warm_up` has started its first process, or could not."""

    @property
    def is_alive(self) -> bool:
        """Whether it has a process that lives. May be asked from any thread."""
        worker = self._worker
        return worker is not None and not worker.has_died

    def warm_up(self, kernels_cached: threading.Event) -> None:
        """Spawn before there is a job; all but the first wait until the kernels are in the cache."""
        if self._number > 0:
            while not kernels_cached.wait(_POLL_S):
                if self._closing.is_set():
                    return
        try:
            self._worker = self._warmed(self._spawn())
        except OSError as error:
            _log.error("worker %d could not be started: %s", self._number, error)
        finally:
            self.has_begun = True
            kernels_cached.set()

    def close(self) -> None:
        """Stop the process, if there is one."""
        if self._worker is not None:
            _stop(self._worker)

    def run(self, job: Job, progress: Callable[[Any], None], cancelled: Flag) -> Any:
        """Have the worker do a job.

        JobFailed WORKER_CRASHED where it dies; StrategyFailed STRATEGY_TIMEOUT or STRATEGY_MEMORY where the job outran
        its budget, which ends the process.
        """
        if self._worker is None or self._worker.has_died:
            self._worker = self._spawn()
        worker = self._worker
        try:
            return self._attend(worker, job, progress, cancelled)
        except (EOFError, OSError):
            pass  # the pipe's end is how a death shows first
        self._worker = None
        worker.process.join(_STOP_S)
        remedy = (
            "what was stored is kept, run the same run id again to resume"
            if isinstance(job, ProbeJob)
            else "the points that were stored are kept, resume it"
            if isinstance(job, OptimizationJob)
            else "nothing of it was kept, submit it again"
        )
        raise JobFailed(
            Code.WORKER_CRASHED,
            f"the worker process died (exit code {worker.process.exitcode}) on {described(job)}; {remedy}",
            {"symbol": job.instrument.key, "timeframe": job.timeframe} if isinstance(job, ProbeJob) else None,
        )

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=worker_main, args=(theirs, self._setup), daemon=True)
        start_alone(process)
        theirs.close()
        return _Worker(process, ours)

    def _warmed(self, worker: _Worker) -> _Worker | None:
        """Wait until a worker is ready; None where it died, which the first job will say again, to somebody."""
        with suppress(EOFError):
            while not (self._closing.is_set() or worker.has_died):
                if worker.pipe.poll(_POLL_S):
                    if worker.pipe.recv() != READY:
                        raise AssertionError("a worker's first word is that it is ready")
                    return worker
        if not self._closing.is_set():
            worker.process.join(_STOP_S)
            _log.error("worker %d died while it warmed up (exit code %s)", self._number, worker.process.exitcode)
        _stop(worker)
        return None

    def _attend(self, worker: _Worker, job: Job, progress: Callable[[Any], None], cancelled: Flag) -> Any:
        """Pass a job to a worker and its words back, until it is done or fails; EOFError where the worker died."""
        budget = budget_of(job)
        watch: Watch | None = None
        stop_by_s: float | None = None
        worker.pipe.send(job)
        while True:
            ready = connection.wait([worker.pipe, worker.process.sentinel], _POLL_S)
            if worker.pipe in ready:
                match worker.pipe.recv():
                    case int() | BacktestProgress() as word:
                        self._tell(worker, job, progress, word)
                        if watch is not None and isinstance(word, OptimizationProgress):
                            watch.restart()  # a budget's time is that of a point
                    case str() as word:  # that a worker spawned for this job is ready, or that it has begun
                        if word == BEGUN and budget is not None:
                            watch = _watching(budget, worker)
                    case outcome:
                        self._settle(worker, watch)
                        return _checked(outcome, cancelled)
            elif ready:
                raise EOFError
            if watch is not None:
                self._check(worker, watch)
            stop_by_s = self._cancel(worker, stop_by_s, cancelled, _CANCEL_S if budget is None else _CANCEL_OWN_S)

    def _tell(self, worker: _Worker, job: Job, progress: Callable[[Any], None], word: object) -> None:
        """Pass progress on. Where nobody can take it the worker ends: what it sends later is not the next job's."""
        try:
            progress(word)
        except OSError as error:  # the listener's, not the pipe's
            self._kill(worker)
            raise JobFailed(Code.INTERNAL, f"{described(job)}: {error!r}") from error
        except BaseException:
            self._kill(worker)
            raise

    def _cancel(self, worker: _Worker, stop_by_s: float | None, cancelled: Flag, patience_s: float) -> float | None:
        """Tell a worker once to stop, where that is wanted, and kill it when its time is up; returns when that is."""
        if stop_by_s is None:
            if not (cancelled.is_set() or self._closing.is_set()):
                return None
            worker.pipe.send(CANCEL)
            return time.monotonic() + (_STOP_S if self._closing.is_set() else patience_s)
        if time.monotonic() >= stop_by_s:
            self._kill(worker)
            raise JobFailed(Code.CANCELLED, "it was cancelled") if cancelled.is_set() else interrupted()
        return stop_by_s

    def _kill(self, worker: _Worker) -> None:
        """End a worker at once; the next job gets a new one."""
        self._worker = None
        _kill(worker)

    def _check(self, worker: _Worker, watch: Watch) -> None:
        """Kill a worker whose job outran its budget; EOFError where it died by itself."""
        try:
            watch.check()
        except StrategyFailed:
            self._kill(worker)
            raise
        except (OSError, ValueError) as error:
            raise EOFError from error

    def _settle(self, worker: _Worker, watch: Watch | None) -> None:
        """Replace a worker in which a job left much behind: the next one's budget would count from there."""
        if watch is not None:
            with suppress(OSError, ValueError):
                if watch.is_bloated:
                    self._kill(worker)


def _watching(budget: Budget, worker: _Worker) -> Watch:
    """Begin to watch; EOFError where the worker has died."""
    try:
        return Watch(budget, worker.process.pid or 0)
    except (OSError, ValueError) as error:
        raise EOFError from error


def _checked(outcome: Any, cancelled: Flag) -> Any:
    """Return what a worker made of a job, or raise why there is nothing."""
    match outcome:
        case AtlasError(code=Code.CANCELLED) if not cancelled.is_set():
            raise interrupted()
        case AtlasError() as error:
            raise error
    return outcome


def _stop(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.join(_STOP_S)
    if worker.process.is_alive():
        _kill(worker)


def _kill(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()


def interrupted() -> JobFailed:
    """Say that a job ended because the daemon did."""
    return JobFailed(Code.INTERRUPTED, "the daemon stopped")
