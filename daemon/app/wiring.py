"""Everything built by hand, once: who reads, who writes, and the daemon itself."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

import daemon
from daemon.app import client, keychain, logs
from daemon.app.client import DaemonClient, Ready
from daemon.app.lock import WriterLock, write_atomically
from daemon.app.recording import Recordings
from daemon.app.resources import resource
from daemon.app.resources_used import ResourcesUsed
from daemon.app.scheduler import Scheduler, Upkeep
from daemon.app.stores import Store, open_store
from daemon.app.tokens import TokenFile
from daemon.app.writing import LocalWriter
from daemon.core.bus import Bus
from daemon.core.errors import Code, ConfigError, Conflict
from daemon.research import strategies
from daemon.research.backtests import Backtests
from daemon.research.executors import ProcessExecutor, ThreadExecutor
from daemon.research.monte_carlos import MonteCarlos
from daemon.research.optimizations import Optimizations
from daemon.research.own.folder import StrategyFolder
from daemon.research.runs import Runs
from daemon.research.worker import WorkerSetup
from daemon.store.env import FILE_NAME, Environment
from daemon.store.journal import Journal
from daemon.store.ticks import TickStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.api.settings import Setting
    from daemon.app.config import Config
    from daemon.app.writing import Writer
    from daemon.core.events import Event
    from daemon.research.executors import Executor
    from daemon.research.jobs import JobRunner
    from daemon.research.strategies import RuleBook

_log = logging.getLogger(__name__)

_SHARED_WRITE: Final = 0o022
_SPARED_S: Final = 60.0
_NS_PER_MS: Final = 1_000_000

ExecutorKind = Literal["processes", "threads"]


def strategy_folder(config: Config, folder: Path) -> StrategyFolder:
    """Return the folder of strategies written in Python. folder: of the data."""
    return StrategyFolder(config.strategies.folder_in(folder))


def rule_book(config: Config, folder: Path | None = None) -> RuleBook:
    """Load the shipped strategies and the user's. folder: of the data, None where no own strategy can be named."""
    files = [resource("strategies.json")]
    if config.strategies.user_file:
        files.append(Path(config.strategies.user_file).expanduser())
    return strategies.load(files, None if folder is None else strategy_folder(config, folder))


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
        book = rule_book(config, folder)
        executor = _executor(config, folder, store, book, kind, workers)
        executor.start()
        profiles = config.probe.risk_profiles
        # Clients that resume at a later daemon hear of what ends here.
        journal = Journal(env, _now_ms)
        runs = Runs(env, store.bars, book, profiles, executor, journal=journal)
        # Whoever imports a file should not find itself working off what a daemon left in its queue.
        rooms = env, store.bars, book, profiles, executor
        budget = config.strategies.budget
        backtests = Backtests(*rooms, resumes=False, budget=budget, journal=journal)
        optimizations = Optimizations(*rooms, resumes=False, budget=budget, journal=journal)
        try:
            yield LocalWriter(store, runs, backtests, MonteCarlos(env, backtests, executor), optimizations)
        finally:
            for each in (runs, backtests, optimizations, journal):
                each.close()


def serve(
    config: Config,
    folder: Path,
    ready_file: Path | None,
    announce: Callable[[str], None],
    settings: tuple[Setting, ...] = (),
) -> None:
    """Run the daemon until it is told to stop.

    ready_file: a second place for the ready file, beside the one in the data folder. settings: the configuration with
    the origins of its values, for whoever asks.
    Conflict STORE_LOCKED where another process writes to the folder.
    """
    from daemon.api.auth import Access
    from daemon.api.limits import JobStarts
    from daemon.api.server import serve as serve_http
    from daemon.api.services import Services

    check_cache()
    places = [folder / client.READY_FILE, *([ready_file] if ready_file else [])]
    with WriterLock(folder, "serve"):
        token = TokenFile(folder)
        token.ensure()
        venues = config.venues
        logs.start(config.log, folder / logs.FOLDER, keychain.values(venues))
        # The loop waits for the interpreter's lock no longer than this beside threads that make JSON.
        sys.setswitchinterval(0.001)
        book = rule_book(config, folder)
        with Environment(folder, config.store) as env:
            store = open_store(env)
            bus, journal = Bus(_listener_failed), Journal(env, _now_ms)
            bus.listen(partial(_keep_facts, journal))
            executor = _executor(config, folder, store, book, config.workers.executor, None)
            rooms = env, store.bars, book, config.probe.risk_profiles, executor
            # Command lines may be reading files into uploads while the daemon starts anew.
            runs = Runs(*rooms, spares_uploads_s=_SPARED_S, journal=journal, publish=bus.publish)
            budget = config.strategies.budget
            backtests = Backtests(*rooms, budget=budget, journal=journal, publish=bus.publish)
            optimizations = Optimizations(*rooms, budget=budget, journal=journal, publish=bus.publish)
            recordings = Recordings(store, config.feeds, venues, config.record)
            upkeep = Upkeep(store, config.retention, config.record, venues)
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
                        bus=bus,
                        journal=journal,
                        feeds=recordings.status,
                        config=config.http,
                        access=Access(token.current),
                        starts=JobStarts(config.http.job_starts_per_s),
                        resources=ResourcesUsed(store),
                        settings=settings,
                        workers=executor.counts,
                    ),
                    on_ready,
                )
            finally:
                for place in places:
                    place.unlink(missing_ok=True)
                scheduler.stop()
                recordings.stop()
                for each in (runs, backtests, optimizations, journal):
                    each.close()


def _listener_failed(event: Event) -> None:
    _log.exception("a listener failed on %s", event.NAME)


def _keep_facts(journal: Journal, event: Event) -> None:
    """Write what is published and stands for itself; facts of stored states come to the journal with their states."""
    if event.IS_FACT:
        journal.append(event)


def _now_ms() -> int:
    return time.time_ns() // _NS_PER_MS


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
    own = None if book.own is None else book.own.path
    setup = WorkerSetup(folder, config.store, tuple(book), own=own)
    if kind == "processes":
        return ProcessExecutor(setup, count, memory_bytes)

    def runner() -> JobRunner:
        from daemon.research.jobs import JobRunner

        return JobRunner(store.bars, book)

    return ThreadExecutor(runner, count, memory_bytes, setup)
