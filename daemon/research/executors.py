"""Where jobs run: threads of this process, or worker processes. Both give the same bytes.

One queue holds the jobs of all kinds; `queueing` says who goes next. A worker process that dies takes its job with it
and nothing else: the job fails with WORKER_CRASHED, the next job gets a new process. Processes are spawned, never
forked (LMDB forbids it), one first: it compiles or loads the kernels, and the others find them in the cache.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from multiprocessing import connection
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, Protocol, Self, TypeAlias

import msgspec
from msgspec import Meta

from daemon.core.errors import AtlasError, Code, JobFailed
from daemon.research.backtest_records import BacktestProgress
from daemon.research.optimization.records import OptimizationJob
from daemon.research.plans import ProbeJob
from daemon.research.queueing import UNLIMITED, JobQueue, Ticket
from daemon.research.worker import CANCEL, READY, Paced, WorkerSetup, described, worker_main

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from daemon.research.backtest_result import Priority
    from daemon.research.jobs import Job
    from daemon.research.worker import Runner

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.1
_STOP_S: Final = 3.0
# A worker that was told to cancel and does not come to a checkpoint is killed: nothing of its job is wanted any more.
_CANCEL_S: Final = 10.0


class WorkersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[workers]` of config.toml. count: 0 takes one a core."""

    executor: Literal["processes", "threads"] = "processes"
    count: Annotated[int, Meta(ge=0, le=256)] = 0

    @property
    def workers(self) -> int:
        """How many to start."""
        return self.count or os.cpu_count() or 1


class Flag(Protocol):
    """What says that a job is no longer wanted, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Tell."""


class WorkerCounts(NamedTuple):
    """Workers there should be, those that live, and those that are being started."""

    wanted: int
    alive: int
    starting: int


class Executor(Protocol):
    """Runs jobs, several at a time."""

    workers: int

    def counts(self) -> WorkerCounts:
        """Count the workers."""

    def submit(
        self,
        job: Job | Callable[[], Job],
        progress: Callable[[Any], None],
        cancelled: Flag,
        *,
        priority: Priority = "normal",
        memory_bytes: int = 0,
        started: Callable[[], None] | None = None,
    ) -> Future[Any]:
        """Queue a job, or what makes it when its turn has come.

        The future yields what the job's kind yields (`jobs.Job`) or fails with an AtlasError; its `cancel` takes a
        job that waits out of the queue. `cancelled` ends one that runs. `started` and `progress` are called from
        another thread. memory_bytes: the most the job holds, 0 for one that nobody counts. InvalidRequest
        MEMORY_BOUND_EXCEEDED as `check` says.
        """

    def check(self, memory_bytes: int) -> None:
        """Refuse a job that could never run: InvalidRequest MEMORY_BOUND_EXCEEDED."""

    def start(self) -> None:
        """Make the workers ready; jobs may be submitted before, and wait."""

    def close(self) -> None:
        """Stop; jobs that are still queued or running fail with INTERRUPTED."""


class _Task(NamedTuple):
    job: Job | Callable[[], Job]
    progress: Callable[[Any], None]
    cancelled: Flag
    started: Callable[[], None] | None
    future: Future[Any]


_Perform: TypeAlias = "Callable[[Job, _Task], Any]"


class _Workers(ABC):
    """Threads that take jobs from one queue, one at a time; subclasses say what a thread does with a job."""

    def __init__(self, workers: int, memory_bytes: int | None) -> None:
        self.workers = workers
        self._queue: JobQueue[_Task] = JobQueue(UNLIMITED if memory_bytes is None else memory_bytes)
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def submit(
        self,
        job: Job | Callable[[], Job],
        progress: Callable[[Any], None],
        cancelled: Flag,
        *,
        priority: Priority = "normal",
        memory_bytes: int = 0,
        started: Callable[[], None] | None = None,
    ) -> Future[Any]:
        """Queue a job."""
        future: Future[Any] = Future()
        ticket = self._queue.put(_Task(job, progress, cancelled, started, future), priority, memory_bytes)
        if ticket is None:
            future.set_exception(_interrupted())
        else:
            future.add_done_callback(lambda done: self._queue.remove(ticket) if done.cancelled() else None)
        return future

    def check(self, memory_bytes: int) -> None:
        """Refuse a job that could never run."""
        self._queue.check(memory_bytes)

    def start(self) -> None:
        """Start the workers, in the background."""
        with self._lock:
            if self._threads or self._closing.is_set():
                return
            self._threads = [
                threading.Thread(target=self._work, args=(number,), name=f"worker-{number}", daemon=True)
                for number in range(self.workers)
            ]
            for thread in self._threads:
                thread.start()

    def close(self) -> None:
        """Stop all workers within seconds."""
        with self._lock:
            self._closing.set()
        waited = self._queue.close()
        for thread in self._threads:
            thread.join()
        for task in waited:
            if task.future.set_running_or_notify_cancel():
                task.future.set_exception(_interrupted())

    @abstractmethod
    def counts(self) -> WorkerCounts:
        """Count the workers."""

    @abstractmethod
    def _hands(self, number: int) -> AbstractContextManager[_Perform]:
        """Make what a thread runs its jobs with, for as long as the thread lives."""

    def _work(self, number: int) -> None:
        with self._hands(number) as perform:
            while (ticket := self._queue.take()) is not None:
                task = ticket.item
                if not task.future.set_running_or_notify_cancel():
                    self._queue.release(ticket)
                    continue
                try:
                    outcome = self._outcome(ticket, perform)
                except AtlasError as error:
                    task.future.set_exception(error)
                else:
                    task.future.set_result(outcome)

    def _outcome(self, ticket: Ticket[_Task], perform: _Perform) -> Any:
        """Run a job; its memory is free before anybody hears of its end."""
        task = ticket.item
        name = "a job"
        try:
            self._checkpoint(task)
            job = task.job() if callable(task.job) else task.job
            name = described(job)
            if task.started is not None:
                task.started()
            return perform(job, task)
        except AtlasError:
            raise
        except Exception as error:
            # The boundary between a worker and whoever submitted: what breaks here fails this job alone.
            _log.exception("%s failed", name)
            raise JobFailed(Code.INTERNAL, f"{name}: {error!r}") from error
        finally:
            self._queue.release(ticket)

    def _checkpoint(self, task: _Task) -> None:
        if task.cancelled.is_set():
            raise JobFailed(Code.CANCELLED, "it was cancelled")
        if self._closing.is_set():
            raise _interrupted()


class ThreadExecutor(_Workers):
    """Jobs on threads: TA-Lib and the kernels release the GIL. The first job loads them; there is nothing to start.

    memory_bytes: what jobs may hold together, None for no limit.
    """

    def __init__(self, runner: Callable[[], Runner], workers: int, memory_bytes: int | None = None) -> None:
        super().__init__(workers, memory_bytes)
        self._make_runner = runner
        self._runner: Runner | None = None
        self._loading = threading.Lock()
        self.start()

    def counts(self) -> WorkerCounts:
        """Count the threads."""
        return WorkerCounts(self.workers, sum(thread.is_alive() for thread in self._threads), 0)

    def _hands(self, number: int) -> AbstractContextManager[_Perform]:  # noqa: ARG002
        return nullcontext(self._perform)

    def _perform(self, job: Job, task: _Task) -> Any:
        with self._loading:  # one thread loads the kernels, the others find them loaded
            self._runner = self._runner or self._make_runner()
        return self._runner.run(job, Paced(task.progress), lambda: self._checkpoint(task))


class ProcessExecutor(_Workers):
    """Jobs on worker processes, each watched by a thread of this one.

    memory_bytes: what jobs may hold together, None for no limit.
    """

    def __init__(self, setup: WorkerSetup, workers: int, memory_bytes: int | None = None) -> None:
        super().__init__(workers, memory_bytes)
        self._setup = setup
        self._kernels_cached = threading.Event()
        self._all_hands: list[_Hands] = []

    def counts(self) -> WorkerCounts:
        """Count the processes; one that died is replaced when it is next needed."""
        begun = [hands for hands in list(self._all_hands) if hands.has_begun]
        return WorkerCounts(self.workers, sum(hands.is_alive for hands in begun), self.workers - len(begun))

    def _hands(self, number: int) -> AbstractContextManager[_Perform]:
        hands = _Hands(self._setup, number, self._closing, self._kernels_cached)
        self._all_hands.append(hands)
        return hands


class _Worker(NamedTuple):
    process: SpawnProcess
    pipe: Connection

    @property
    def has_died(self) -> bool:
        """Whether the process ended; `is_alive` errs while another thread spawns, which collects dead children."""
        return bool(connection.wait([self.process.sentinel], 0))


class _Hands:
    """One worker process, replaced when it dies."""

    def __init__(
        self, setup: WorkerSetup, number: int, closing: threading.Event, kernels_cached: threading.Event
    ) -> None:
        self._setup = setup
        self._number = number
        self._closing = closing
        self._kernels_cached = kernels_cached
        self._context = multiprocessing.get_context("spawn")
        self._worker: _Worker | None = None
        self.has_begun = False
        """Whether its first process was started, or could not be."""

    @property
    def is_alive(self) -> bool:
        """Whether it has a process that lives. May be asked from any thread."""
        worker = self._worker
        return worker is not None and not worker.has_died

    def __enter__(self) -> Self:
        """Spawn at start-up; all but the first wait until the kernels are in the cache."""
        if self._number > 0:
            while not self._kernels_cached.wait(_POLL_S):
                if self._closing.is_set():
                    return self
        try:
            self._worker = self._warmed(self._spawn())
        except OSError as error:
            _log.error("worker %d could not be started: %s", self._number, error)
        finally:
            self.has_begun = True
            self._kernels_cached.set()
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            _stop(self._worker)

    def __call__(self, job: Job, task: _Task) -> Any:
        """Have the worker do a job; JobFailed WORKER_CRASHED where it dies."""
        if self._worker is None or self._worker.has_died:
            self._worker = self._spawn()
        worker = self._worker
        try:
            return self._attend(worker, job, task)
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
        process.start()
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

    def _attend(self, worker: _Worker, job: Job, task: _Task) -> Any:
        """Pass a job to a worker and its words back, until it is done or fails; EOFError where the worker died."""
        stop_by_s: float | None = None
        worker.pipe.send(job)
        while True:
            ready = connection.wait([worker.pipe, worker.process.sentinel], _POLL_S)
            if worker.pipe in ready:
                match worker.pipe.recv():
                    case int() | BacktestProgress() as progress:
                        task.progress(progress)
                    case AtlasError(code=Code.CANCELLED) if not task.cancelled.is_set():
                        raise _interrupted()
                    case AtlasError() as error:
                        raise error
                    case str():
                        pass  # a worker spawned for this job
                    case outcome:
                        return outcome
            elif ready:
                raise EOFError
            if stop_by_s is None and (task.cancelled.is_set() or self._closing.is_set()):
                worker.pipe.send(CANCEL)
                stop_by_s = time.monotonic() + (_STOP_S if self._closing.is_set() else _CANCEL_S)
            if stop_by_s is not None and time.monotonic() >= stop_by_s:
                self._worker = None
                _kill(worker)
                raise JobFailed(Code.CANCELLED, "it was cancelled") if task.cancelled.is_set() else _interrupted()


def _stop(worker: _Worker) -> None:
    worker.pipe.close()
    worker.process.join(_STOP_S)
    if worker.process.is_alive():
        _kill(worker)


def _kill(worker: _Worker) -> None:
    worker.process.kill()
    worker.process.join()


def _interrupted() -> JobFailed:
    return JobFailed(Code.INTERRUPTED, "the daemon stopped")
