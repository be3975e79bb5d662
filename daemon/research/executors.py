"""Where jobs run: threads of this process, or worker processes. Both give the same bytes.

One queue holds the jobs of all kinds; `queueing` says who goes next. A worker process that dies takes its job with it
and nothing else: the job fails with WORKER_CRASHED, the next job gets a new process. Processes are spawned, never
forked (LMDB forbids it), one first: it compiles or loads the kernels, and the others find them in the cache. A job with
a budget runs code that nobody has checked, so it never runs on a thread of this process.
"""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, TypeAlias

import msgspec
from msgspec import Meta

from daemon.core.errors import AtlasError, Code, JobFailed
from daemon.research.processes import WorkerProcess, interrupted
from daemon.research.queueing import UNLIMITED, JobQueue, Ticket
from daemon.research.worker import Paced, WorkerSetup, budget_of, described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.research.backtest_result import Priority
    from daemon.research.jobs import Job
    from daemon.research.processes import Flag
    from daemon.research.worker import Runner

_log = logging.getLogger(__name__)


class WorkersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[workers]` of config.toml. count: 0 takes one a core."""

    executor: Literal["processes", "threads"] = "processes"
    count: Annotated[int, Meta(ge=0, le=256)] = 0

    @property
    def workers(self) -> int:
        """How many to start."""
        return self.count or os.cpu_count() or 1


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
            future.set_exception(interrupted())
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
                task.future.set_exception(interrupted())

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
            raise interrupted()


class ThreadExecutor(_Workers):
    """Jobs on threads: TA-Lib and the kernels release the GIL. The first job loads them; there is nothing to start.

    memory_bytes: what jobs may hold together, None for no limit. setup: for jobs with a budget; a thread that gets one
    starts a worker process for it, and keeps that for the next.
    """

    def __init__(
        self,
        runner: Callable[[], Runner],
        workers: int,
        memory_bytes: int | None = None,
        setup: WorkerSetup | None = None,
    ) -> None:
        super().__init__(workers, memory_bytes)
        self._make_runner = runner
        self._setup = setup
        self._runner: Runner | None = None
        self._loading = threading.Lock()
        self.start()

    def counts(self) -> WorkerCounts:
        """Count the threads."""
        return WorkerCounts(self.workers, sum(thread.is_alive() for thread in self._threads), 0)

    @contextmanager
    def _hands(self, number: int) -> Iterator[_Perform]:
        process = None if self._setup is None else WorkerProcess(self._setup, number, self._closing)

        def perform(job: Job, task: _Task) -> Any:
            if budget_of(job) is None:
                return self._perform(job, task)
            if process is None:
                raise AssertionError("a job with a budget needs a process, and nobody said how to set it up")
            return process.run(job, task.progress, task.cancelled)

        try:
            yield perform
        finally:
            if process is not None:
                process.close()

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
        self._processes: list[WorkerProcess] = []

    def counts(self) -> WorkerCounts:
        """Count the processes; one that died is replaced when it is next needed."""
        begun = [each for each in list(self._processes) if each.has_begun]
        return WorkerCounts(self.workers, sum(each.is_alive for each in begun), self.workers - len(begun))

    @contextmanager
    def _hands(self, number: int) -> Iterator[_Perform]:
        process = WorkerProcess(self._setup, number, self._closing)
        self._processes.append(process)
        process.warm_up(self._kernels_cached)
        try:
            yield lambda job, task: process.run(job, task.progress, task.cancelled)
        finally:
            process.close()
