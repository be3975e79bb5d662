"""A worker process: its main function, and the words it exchanges with the process that started it.

To the worker: a job, or "cancel". From it: "ready" once, progress, and for every job its outcome or an AtlasError; for
a job with a budget "begun" before that.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from daemon.core.errors import AtlasError, Code, JobFailed
from daemon.core.strategy import Strategy
from daemon.research.backtest_records import BacktestJob
from daemon.research.budgets import Budget, bounded_memory, out_of_memory
from daemon.research.monte_carlo_records import MonteCarloJob
from daemon.research.optimization.records import OptimizationJob, OptimizationProgress
from daemon.research.plans import ProbeJob
from daemon.store.env import StoreConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from daemon.research.jobs import Job
    from daemon.research.strategies import RuleBook
    from daemon.research.warming import IdleWarming
    from daemon.store.bars import BarStore

_log = logging.getLogger(__name__)

READY: Final = "ready"
BEGUN: Final = "begun"
CANCEL: Final = "cancel"
PROGRESS_S: Final = 0.1

_NICE: Final = 10
_IDLE_S: Final = 10.0


class Runner(Protocol):
    """What runs jobs against a store: `jobs.JobRunner`."""

    def run(self, job: Job, progress: Callable[[Any], None], checkpoint: Callable[[], None]) -> Any:
        """Do a job. progress: told how far it is. checkpoint: called often; what it raises ends the job."""


class WorkerSetup(NamedTuple):
    """What a worker process needs to run jobs.

    runner: None for the `JobRunner`; found by name in the process. own: the folder of strategies written in Python.
    """

    data_dir: Path
    store: StoreConfig
    strategies: tuple[Strategy, ...]
    runner: Callable[[BarStore, RuleBook], Runner] | None = None
    own: Path | None = None


class Paced:
    """Passes on the first word, then one every PROGRESS_S at the most; the others are out of date soon enough.

    Words that bring something to store are always passed on.
    """

    def __init__(self, tell: Callable[[Any], None]) -> None:
        self._tell = tell
        self._next_s = 0.0

    def __call__(self, word: Any) -> None:
        """Pass a word on, or drop it."""
        now_s = time.monotonic()
        brings_rows = isinstance(word, OptimizationProgress) and word.rows is not None
        if brings_rows or now_s >= self._next_s:
            self._next_s = now_s + PROGRESS_S
            self._tell(word)


def described(job: Job) -> str:
    """Name a job in messages."""
    if isinstance(job, ProbeJob):
        return f"{job.instrument.key} {job.timeframe}"
    if isinstance(job, OptimizationJob):
        return f"optimisation {job.optimization_id}"
    if isinstance(job, MonteCarloJob):
        return f"the Monte Carlo simulation of backtest {job.backtest_id}"
    return f"backtest {job.backtest_id}"


def budget_of(job: Job) -> Budget | None:
    """Return what a job may take; None for one that is trusted to come to its checkpoints."""
    return job.budget if isinstance(job, BacktestJob | OptimizationJob) else None


def worker_main(pipe: Connection, setup: WorkerSetup) -> None:
    """Serve jobs until the other end of the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's Ctrl-C is the parent's to handle
    _lower_priority()
    from daemon.research.jobs import JobRunner
    from daemon.research.own.folder import StrategyFolder
    from daemon.research.own.printing import print_aside
    from daemon.research.strategies import RuleBook
    from daemon.research.warming import IdleWarming
    from daemon.research.warmup import warm_backtest, warm_probe, warm_validation
    from daemon.store.bars import BarStore
    from daemon.store.env import Environment

    print_aside()
    book = RuleBook(setup.strategies, None if setup.own is None else StrategyFolder(setup.own))
    warm_probe(book)
    with Environment(setup.data_dir, setup.store, readonly=True) as env:
        runner = (setup.runner or JobRunner)(BarStore(env), book)
        # Backtests have larger kernels, then there are those of their validation: a minute's work, once a machine.
        warming = IdleWarming((warm_backtest, warm_validation), _IDLE_S)
        with suppress(EOFError, BrokenPipeError):
            pipe.send(READY)
            while True:
                job = pipe.recv()
                if job != CANCEL:  # one that came after its job was done
                    with warming.paused():
                        outcome = _outcome(runner, job, pipe, warming)
                    pipe.send(outcome)
    if not warming.is_done:
        os._exit(0)  # a compiler at work does not survive the interpreter's own end


def _outcome(runner: Runner, job: Job, pipe: Connection, warming: IdleWarming) -> Any:
    def checkpoint() -> None:
        if pipe.poll():
            pipe.recv()
            raise JobFailed(Code.CANCELLED, "it was cancelled")

    budget = budget_of(job)
    if budget is None:
        return _told(runner, job, pipe, checkpoint)
    try:
        warming.join(checkpoint)  # what the warming takes is not the job's
    except JobFailed as cancelled:
        return cancelled
    pipe.send(BEGUN)
    outcome = _told(runner, job, pipe, checkpoint, budget)
    if isinstance(outcome, AtlasError):
        # What it held hangs on the frames of its traceback, which hold one another.
        outcome = outcome.with_traceback(None)
        outcome.__cause__ = outcome.__context__ = None
        gc.collect()
    return outcome


def _told(
    runner: Runner, job: Job, pipe: Connection, checkpoint: Callable[[], None], budget: Budget | None = None
) -> Any:
    """Run a job; returns its outcome, or what ended it."""
    try:
        with nullcontext() if budget is None else bounded_memory(budget):
            return runner.run(job, Paced(pipe.send), checkpoint)
    except AtlasError as error:
        if budget is not None and error.code == Code.STRATEGY_MEMORY:
            return out_of_memory(error, budget)
        return error
    except (EOFError, BrokenPipeError):
        raise  # the parent is gone
    except Exception as error:  # noqa: BLE001
        if budget is not None and isinstance(error, MemoryError):
            return out_of_memory(error, budget)
        # The boundary of the process: an unknown failure is told with its place, and the worker lives on.
        _log.exception("job failed")
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_name}:{where.tb_lineno}" if where else "?"
        return JobFailed(Code.INTERNAL, f"{described(job)}: {error!r} in {place}")


def _lower_priority() -> None:
    """Leave the cores to whoever answers users."""
    if sys.platform == "win32":
        import psutil

        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        os.nice(_NICE)
