"""Everything built by hand, once: who reads, who writes, and the daemon itself."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec

import daemon
from daemon.api import messages
from daemon.app import client, logs
from daemon.app.client import DaemonClient, Ready
from daemon.app.lock import WriterLock, write_atomically
from daemon.app.recording import Recordings
from daemon.app.resources import resource
from daemon.app.scheduler import Scheduler, Upkeep
from daemon.app.stores import Store, open_store
from daemon.core.errors import Code, ConfigError, Conflict
from daemon.ingest.bars import UNKNOWN_ORIGIN, ImportReport, Origin, import_bars
from daemon.ingest.funding import FundingReport, import_funding
from daemon.ingest.ticks import TickReport, TickUpload, store_upload
from daemon.research import strategies
from daemon.research.backtests import Backtests
from daemon.research.calibration import calibrate
from daemon.research.executors import ProcessExecutor, ThreadExecutor
from daemon.research.monte_carlos import MonteCarlos
from daemon.research.optimizations import Optimizations
from daemon.research.runs import SPOOL_FOLDER, Runs
from daemon.research.worker import WorkerSetup
from daemon.store.env import FILE_NAME, Environment
from daemon.store.ticks import TickStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from daemon.app.config import Config
    from daemon.core.market import BarTable, FundingTable, Instrument, Timeframe, VolumeUnit
    from daemon.research.backtest_result import BacktestStatus, Priority
    from daemon.research.calibration import Calibration, CalibrationRequest
    from daemon.research.executors import Executor
    from daemon.research.jobs import JobRunner
    from daemon.research.monte_carlo_records import MonteCarloRequest, Simulation
    from daemon.research.optimization.request import OptimizationRequest
    from daemon.research.optimization.result import OptimizationStatus
    from daemon.research.plans import ProbeRequest
    from daemon.research.strategies import RuleBook

_log = logging.getLogger(__name__)

LOG_FOLDER: Final = "logs"
_SHARED_WRITE: Final = 0o022
_SPARED_S: Final = 60.0

ExecutorKind = Literal["processes", "threads"]


class Writer(Protocol):
    """Whoever may change the store: this process, or the daemon."""

    def import_bars(
        self,
        table: BarTable,
        instrument: Instrument,
        timeframe: Timeframe,
        source: str,
        *,
        replace: bool,
        origin: Origin = UNKNOWN_ORIGIN,
        volume_unit: VolumeUnit | None = None,
    ) -> ImportReport:
        """Store a file's bars."""

    def import_funding(
        self, table: FundingTable, instrument: Instrument, source: str, *, replace: bool
    ) -> FundingReport:
        """Store a file's funding rates."""

    @property
    def ticks(self) -> TickStore:
        """The ticks that are stored, to read."""

    @property
    def spool_folder(self) -> Path:
        """Where spools of ticks are laid for this writer."""

    def import_ticks(self, upload: TickUpload) -> TickReport:
        """Store a spool's ticks, or record holes."""

    def calibrate(self, request: CalibrationRequest) -> Calibration:
        """Fit and store a symbol's impact parameters."""

    def start(self, request: ProbeRequest) -> str:
        """Start a run; returns its id."""

    def status(self, run_id: str) -> messages.RunStatus:
        """Tell how a run is doing."""

    def cancel(self, run_id: str) -> None:
        """Stop a run."""

    def delete(self, run_id: str) -> None:
        """Remove a finished run."""

    def backtest_start(self, config: Mapping[str, Any], priority: Priority, name: str | None = None) -> str:
        """Queue a backtest; returns its id."""

    def backtest_status(self, backtest_id: str) -> BacktestStatus:
        """Tell how a backtest is doing."""

    def backtest_cancel(self, backtest_id: str) -> BacktestStatus:
        """End a backtest that is queued or running."""

    def backtest_delete(self, backtest_id: str) -> None:
        """Remove a backtest that has ended."""

    def monte_carlo(self, request: MonteCarloRequest) -> Simulation:
        """Simulate the trades of a completed backtest."""

    def optimization_start(self, request: OptimizationRequest) -> str:
        """Queue an optimisation; returns its id."""

    def optimization_resume(self, optimization_id: str) -> OptimizationStatus:
        """Queue an optimisation again that was cancelled or failed."""

    def optimization_status(self, optimization_id: str) -> OptimizationStatus:
        """Tell how an optimisation is doing."""

    def optimization_cancel(self, optimization_id: str) -> OptimizationStatus:
        """End an optimisation that is queued or running."""

    def optimization_delete(self, optimization_id: str) -> None:
        """Remove an optimisation that has ended."""


class LocalWriter:
    """Writes itself, under the writer lock."""

    def __init__(
        self, store: Store, runs: Runs, backtests: Backtests, monte_carlos: MonteCarlos, optimizations: Optimizations
    ) -> None:
        self._store = store
        self._runs = runs
        self._backtests = backtests
        self._monte_carlos = monte_carlos
        self._optimizations = optimizations

    def import_bars(
        self,
        table: BarTable,
        instrument: Instrument,
        timeframe: Timeframe,
        source: str,
        *,
        replace: bool,
        origin: Origin = UNKNOWN_ORIGIN,
        volume_unit: VolumeUnit | None = None,
    ) -> ImportReport:
        """Store a file's bars."""
        env, bars, _ = self._store
        return import_bars(
            env, bars, table, instrument, timeframe, source, origin=origin, replace=replace, volume_unit=volume_unit
        )

    def import_funding(
        self, table: FundingTable, instrument: Instrument, source: str, *, replace: bool
    ) -> FundingReport:
        """Store a file's funding rates."""
        return import_funding(self._store.env, table, instrument, source, replace=replace)

    @property
    def ticks(self) -> TickStore:
        """The ticks that are stored, to read."""
        return self._store.ticks

    @property
    def spool_folder(self) -> Path:
        """Where spools of ticks are laid for this writer."""
        return self._store.env.path.parent / SPOOL_FOLDER

    def import_ticks(self, upload: TickUpload) -> TickReport:
        """Store a spool's ticks, or record holes."""
        return store_upload(self._store.ticks, self.spool_folder, upload)

    def calibrate(self, request: CalibrationRequest) -> Calibration:
        """Fit and store a symbol's impact parameters."""
        return calibrate(self._store.bars, request)

    def start(self, request: ProbeRequest) -> str:
        """Start a run on this process's executor."""
        return self._runs.submit(request)[0].run_id

    def status(self, run_id: str) -> messages.RunStatus:
        """Tell how a run is doing."""
        return messages.run_status(self._runs.get(run_id))

    def cancel(self, run_id: str) -> None:
        """Stop a run."""
        self._runs.cancel(run_id)

    def delete(self, run_id: str) -> None:
        """Remove a finished run."""
        self._runs.delete(run_id)

    def backtest_start(self, config: Mapping[str, Any], priority: Priority, name: str | None = None) -> str:
        """Queue a backtest on this process's executor."""
        return self._backtests.submit(config, priority, name=name).id

    def backtest_status(self, backtest_id: str) -> BacktestStatus:
        """Tell how a backtest is doing."""
        return self._backtests.status(backtest_id)

    def backtest_cancel(self, backtest_id: str) -> BacktestStatus:
        """End a backtest that is queued or running."""
        return self._backtests.cancel(backtest_id)

    def backtest_delete(self, backtest_id: str) -> None:
        """Remove a backtest that has ended."""
        self._backtests.delete(backtest_id)

    def monte_carlo(self, request: MonteCarloRequest) -> Simulation:
        """Simulate on this process's executor."""
        return self._monte_carlos.simulate(request)

    def optimization_start(self, request: OptimizationRequest) -> str:
        """Queue an optimisation on this process's executor."""
        return self._optimizations.submit(request).id

    def optimization_resume(self, optimization_id: str) -> OptimizationStatus:
        """Queue an optimisation again that was cancelled or failed."""
        return self._optimizations.resume(optimization_id)

    def optimization_status(self, optimization_id: str) -> OptimizationStatus:
        """Tell how an optimisation is doing."""
        return self._optimizations.status(optimization_id)

    def optimization_cancel(self, optimization_id: str) -> OptimizationStatus:
        """End an optimisation that is queued or running."""
        return self._optimizations.cancel(optimization_id)

    def optimization_delete(self, optimization_id: str) -> None:
        """Remove an optimisation that has ended."""
        self._optimizations.delete(optimization_id)


def rule_book(config: Config) -> RuleBook:
    """Load the shipped strategies and the user's."""
    files = [resource("strategies.json")]
    if config.strategies.user_file:
        files.append(Path(config.strategies.user_file).expanduser())
    return strategies.load(files)


@contextmanager
def reader(config: Config, folder: Path) -> Iterator[Store]:
    """Open the store to read, beside a daemon or without one; a store that is not there yet is empty."""
    if not (folder / FILE_NAME).exists():
        with WriterLock(folder, "initialisation"):
            Environment(folder, config.store).close()
    with Environment(folder, config.store, readonly=True) as env:
        yield open_store(env)


@contextmanager
def owner(config: Config, folder: Path, command: str) -> Iterator[Store]:
    """Open the store to change it, for what a daemon does by itself; Conflict STORE_LOCKED where another has it."""
    with WriterLock(folder, command), Environment(folder, config.store) as env:
        yield open_store(env)


@contextmanager
def writer(
    config: Config,
    folder: Path,
    command: str,
    kind: ExecutorKind = "threads",
    workers: int | None = None,
) -> Iterator[Writer]:
    """Open whoever may write: this process under the lock, or the daemon where it has the lock."""
    lock = WriterLock(folder, command)
    try:
        lock.acquire()
    except Conflict:
        if (ready := client.find(folder)) is None:
            raise
        with Environment(folder, config.store, readonly=True) as env:
            yield DaemonClient(ready, folder, TickStore(env))
        return
    with lock, Environment(folder, config.store) as env:
        store = open_store(env)
        book = rule_book(config)
        executor = _executor(config, folder, store, book, kind, workers)
        executor.start()
        profiles = config.probe.risk_profiles
        runs = Runs(env, store.bars, book, profiles, executor)
        # Whoever imports a file should not find itself working off what a daemon left in its queue.
        backtests = Backtests(env, store.bars, book, profiles, executor, resumes=False)
        optimizations = Optimizations(env, store.bars, book, profiles, executor, resumes=False)
        try:
            yield LocalWriter(store, runs, backtests, MonteCarlos(env, backtests, executor), optimizations)
        finally:
            runs.close()
            backtests.close()
            optimizations.close()


def serve(config: Config, folder: Path, ready_file: Path | None, announce: Callable[[str], None]) -> None:
    """Run the daemon until it is told to stop.

    ready_file: a second place for the ready file, beside the one in the data folder.
    Conflict STORE_LOCKED where another process writes to the folder.
    """
    from daemon.api.services import Services
    from daemon.api.server import serve as serve_http

    check_cache()
    places = [folder / client.READY_FILE, *([ready_file] if ready_file else [])]
    with WriterLock(folder, "serve"):
        logs.start(config.log, folder / LOG_FOLDER)
        # The loop waits for the interpreter's lock no longer than this beside threads that make JSON.
        sys.setswitchinterval(0.001)
        book = rule_book(config)
        with Environment(folder, config.store) as env:
            store = open_store(env)
            executor = _executor(config, folder, store, book, config.workers.executor, None)
            runs = Runs(
                env,
                store.bars,
                book,
                config.probe.risk_profiles,
                executor,
                # Command lines may be reading files into uploads while the daemon starts anew.
                spares_uploads_s=_SPARED_S,
            )
            backtests = Backtests(env, store.bars, book, config.probe.risk_profiles, executor)
            optimizations = Optimizations(env, store.bars, book, config.probe.risk_profiles, executor)
            recordings = Recordings(store, config.feeds, config.venues, config.record)
            upkeep = Upkeep(store, config.retention, config.record, config.venues)
            scheduler = Scheduler(upkeep, config.schedule)

            def on_ready(host: str, port: int) -> None:
                ready = Ready(f"http://{host}:{port}", port, os.getpid(), daemon.__version__)
                for place in places:
                    write_atomically(place, msgspec.json.encode(ready))
                announce(f"atlasd {ready.version} ready at {ready.url} (process {ready.pid}, data in {folder})")
                _log.info("ready at %s", ready.url)
                executor.start()
                recordings.start()
                scheduler.start()

            try:
                serve_http(
                    Services(
                        env=env,
                        bars=store.bars,
                        ticks=store.ticks,
                        book=book,
                        runs=runs,
                        backtests=backtests,
                        optimizations=optimizations,
                        monte_carlos=MonteCarlos(env, backtests, executor),
                        feeds=recordings.status,
                        config=config.http,
                    ),
                    on_ready,
                )
            finally:
                for place in places:
                    place.unlink(missing_ok=True)
                scheduler.stop()
                recordings.stop()
                runs.close()
                backtests.close()
                optimizations.close()


def check_cache() -> None:
    """Make sure kernels can be cached, by their user alone: cache files are code.

    ConfigError CACHE_UNUSABLE says what is wrong with the folder.
    """
    folder = daemon.KERNEL_CACHE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            Code.CACHE_UNUSABLE,
            f"compiled kernels cannot be kept in {folder} ({error.strerror}): set NUMBA_CACHE_DIR to a writable folder",
        ) from error
    if sys.platform != "win32" and folder.stat().st_mode & _SHARED_WRITE:
        raise ConfigError(
            Code.CACHE_UNUSABLE,
            f"others may write to {folder}, and what lies there is run as code: chmod 700 it",
        )


def is_cache_cold(kernel: str = "") -> bool:
    """Tell whether kernels have yet to be compiled on this machine. kernel: `module.function` of one, empty for any."""
    return next(daemon.KERNEL_CACHE.rglob(f"{kernel}*.nbi"), None) is None


def _executor(
    config: Config, folder: Path, store: Store, book: RuleBook, kind: ExecutorKind, workers: int | None
) -> Executor:
    count = workers or config.workers.workers
    memory_bytes = config.backtest.memory_bytes
    if kind == "processes":
        return ProcessExecutor(WorkerSetup(folder, config.store, tuple(book)), count, memory_bytes)

    def runner() -> JobRunner:
        from daemon.research.jobs import JobRunner

        return JobRunner(store.bars, book)

    return ThreadExecutor(runner, count, memory_bytes)
