"""Where jobs run: threads of this process, or worker processes. Both give the same bytes.

A worker process that dies takes its job with it and nothing else: the job fails with WORKER_CRASHED, the next job gets
a new process. Processes are spawned, never forked (LMDB forbids it), one first: it compiles or loads the kernels, and
the others find them in the cache.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import connection
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, Protocol

import msgspec
from msgspec import Meta

from daemon.core.errors import AtlasError, Code, JobFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from pathlib import Path

    from daemon.core.strategy import Strategy
    from daemon.research.jobs import JobRunner
    from daemon.research.plans import ProbeJob
    from daemon.store.env import StoreConfig
    from daemon.store.results import JobIndex

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.1
_STOP_S: Final = 3.0
_NICE: Final = 10


class WorkersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[workers]` of config.toml. count: 0 takes one a core."""

    executor: Literal["processes", "threads"] = "processes"
    count: Annotated[int, Meta(ge=0, le=256)] = 0

    @property
    def workers(self) -> int:
        """How many to start."""
        return self.count or os.cpu_count() or 1


class Executor(Protocol):
    """Runs jobs, several at a time."""

    workers: int

    def submit(self, job: ProbeJob, progress: Callable[[int], None], cancelled: threading.Event) -> Future[JobIndex]:
        """Queue a job. The future fails with an AtlasError; `progress` is called from another thread."""

    def start(self) -> None:
        """Make the workers ready; jobs may be submitted before, and wait."""

    def close(self) -> None:
        """Stop; jobs that are still queued or running fail with INTERRUPTED."""


def _raise_if(event: threading.Event, code: Code = Code.CANCELLED) -> None:
    if event.is_set():
        raise JobFailed(code, "the run was cancelled" if code is Code.CANCELLED else "the daemon stopped")


class ThreadExecutor:
    """Jobs on threads: TA-Lib and the kernels release the GIL."""

    def __init__(self, runner: Callable[[], JobRunner], workers: int) -> None:
        self.workers = workers
        self._make_runner = runner
        self._runner: JobRunner | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="probe")

    def submit(self, job: ProbeJob, progress: Callable[[int], None], cancelled: threading.Event) -> Future[JobIndex]:
        """Queue a job."""

        def checkpoint() -> None:
            _raise_if(cancelled)
            _raise_if(self._closing, Code.INTERRUPTED)

        def work() -> JobIndex:
            checkpoint()
            with self._lock:  # one thread loads the kernels, the others find them loaded
                self._runner = self._runner or self._make_runner()
            return self._runner.run(job, progress, checkpoint)

        return self._pool.submit(work)

    def start(self) -> None:
        """Do nothing: the first job loads the kernels."""

    def close(self) -> None:
        """Stop after the jobs have noticed."""
        self._closing.set()
        self._pool.shutdown(wait=True)


class WorkerSetup(NamedTuple):
    """What a worker process needs to run jobs."""

    data_dir: Path
    store: StoreConfig
    strategies: tuple[Strategy, ...]


class _Task(NamedTuple):
    job: ProbeJob
    progress: Callable[[int], None]
    cancelled: threading.Event
    future: Future[JobIndex]


class _Worker(NamedTuple):
    process: SpawnProcess
    pipe: Connection

    @property
    def has_died(self) -> bool:
        """Whether the process ended; `is_alive` errs while another thread spawns, which collects dead children."""
        return bool(connection.wait([self.process.sentinel], 0))


class ProcessExecutor:
    """Jobs on worker processes, each watched by a thread of this one."""

    def __init__(self, setup: WorkerSetup, workers: int) -> None:
        self.workers = workers
        self._setup = setup
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._kernels_cached = threading.Event()
        self._context = multiprocessing.get_context("spawn")
        self._threads = [
            threading.Thread(target=self._supervise, args=(number,), name=f"worker-{number}", daemon=True)
            for number in range(workers)
        ]

    def start(self) -> None:
        """Spawn the workers, in the background."""
        for thread in self._threads:
            thread.start()

    def submit(self, job: ProbeJob, progress: Callable[[int], None], cancelled: threading.Event) -> Future[JobIndex]:
        """Queue a job."""
        future: Future[JobIndex] = Future()
        self._tasks.put(_Task(job, progress, cancelled, future))
        return future

    def close(self) -> None:
        """Stop all workers within seconds."""
        self._closing.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        while not self._tasks.empty():
            task = self._tasks.get()
            if task is not None:
                task.future.set_exception(JobFailed(Code.INTERRUPTED, "the daemon stopped"))

    def _supervise(self, number: int) -> None:
        """Keep one worker alive and hand it one job at a time."""
        worker: _Worker | None = None
        try:
            worker = self._spawn_warm(number)
            while (task := self._tasks.get()) is not None:
                try:
                    _raise_if(task.cancelled)
                    _raise_if(self._closing, Code.INTERRUPTED)
                    if worker is None or worker.has_died:
                        worker = self._spawn()
                    task.future.set_result(self._attend(worker, task))
                except AtlasError as error:
                    task.future.set_exception(error)
                except Exception as error:  # noqa: BLE001
                    # The boundary between a worker and the runs: whatever breaks here fails this job alone.
                    _log.exception("worker %d failed on %s %s", number, task.job.instrument.key, task.job.timeframe)
                    task.future.set_exception(JobFailed(Code.INTERNAL, f"worker {number}: {error!r}"))
        finally:
            if worker is not None:
                self._stop(worker)

    def _spawn_warm(self, number: int) -> _Worker | None:
        """Spawn at start-up; all but the first wait until the kernels are in the cache."""
        if number > 0:
            while not self._kernels_cached.wait(_POLL_S):
                if self._closing.is_set():
                    return None
        worker = self._spawn()
        try:
            while not self._closing.is_set():
                if worker.pipe.poll(_POLL_S):
                    if worker.pipe.recv() != "ready":
                        raise AssertionError("a worker's first word is that it is ready")
                    return worker
                if worker.has_died:
                    break
        except EOFError:
            pass  # it died while warming up: the first job will say so again, to somebody
        finally:
            self._kernels_cached.set()
        if not self._closing.is_set():
            _log.error("worker %d died while it warmed up (exit code %s)", number, worker.process.exitcode)
        self._stop(worker)
        return None

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_worker_main, args=(theirs, self._setup), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _attend(self, worker: _Worker, task: _Task) -> JobIndex:
        """Pass a job to a worker and its words back, until it is done, fails or dies."""
        told_to_cancel = False
        try:
            worker.pipe.send(task.job)
            while True:
                ready = connection.wait([worker.pipe, worker.process.sentinel], _POLL_S)
                if worker.pipe in ready:
                    match worker.pipe.recv():
                        case int(done):
                            task.progress(done)
                        case AtlasError(code=Code.CANCELLED) if not task.cancelled.is_set():
                            raise JobFailed(Code.INTERRUPTED, "the daemon stopped")
                        case AtlasError() as error:
                            raise error
                        case "ready":
                            pass  # a worker spawned for this job
                        case index:
                            return index  # type: ignore[no-any-return]
                elif ready:
                    break
                if (task.cancelled.is_set() or self._closing.is_set()) and not told_to_cancel:
                    worker.pipe.send("cancel")
                    told_to_cancel = True
        except (EOFError, OSError):
            pass  # the pipe's end is how a death shows first
        worker.process.join(_STOP_S)
        raise JobFailed(
            Code.WORKER_CRASHED,
            f"the worker process died (exit code {worker.process.exitcode}) on {task.job.instrument.key} "
            f"{task.job.timeframe}; what was stored is kept, run the same run id again to resume",
            {"symbol": task.job.instrument.key, "timeframe": task.job.timeframe},
        )

    def _stop(self, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.join(_STOP_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _worker_main(pipe: Connection, setup: WorkerSetup) -> None:
    """Serve jobs until the other end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the parent's to handle
    _lower_priority()
    from daemon.research.jobs import JobRunner
    from daemon.research.strategies import RuleBook
    from daemon.research.warmup import warm_probe
    from daemon.store.bars import BarStore
    from daemon.store.env import Environment

    book = RuleBook(setup.strategies)
    warm_probe(book)
    with Environment(setup.data_dir, setup.store, readonly=True) as env:
        runner = JobRunner(BarStore(env), book)
        try:
            pipe.send("ready")
            while True:
                job = pipe.recv()
                if job != "cancel":  # one that came after its job was done
                    pipe.send(_outcome(runner, job, pipe))
        except (EOFError, BrokenPipeError):
            return


def _outcome(runner: JobRunner, job: ProbeJob, pipe: Connection) -> JobIndex | AtlasError:
    def checkpoint() -> None:
        if pipe.poll():
            pipe.recv()
            raise JobFailed(Code.CANCELLED, "the run was cancelled")

    try:
        return runner.run(job, pipe.send, checkpoint)
    except AtlasError as error:
        return error
    except (EOFError, BrokenPipeError):
        raise  # the parent is gone
    except Exception as error:  # noqa: BLE001
        # The boundary of the process: an unknown failure is told with its place, and the worker lives on.
        _log.exception("job failed")
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_name}:{where.tb_lineno}" if where else "?"
        return JobFailed(Code.INTERNAL, f"{job.instrument.key} {job.timeframe}: {error!r} in {place}")


def _lower_priority() -> None:
    """Leave the cores to whoever answers users."""
    if sys.platform == "win32":
        import psutil

        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        os.nice(_NICE)
