"""Backtests that a script runs: in this process or in a worker, kept nowhere; or stored by a command of their own.

A trader's own strategy always runs in a worker process, which can be killed. One that is to be stored goes the way of
`atlasd backtest`, as a process: this one has the store open to read, and LMDB takes a file once a process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

import daemon
from daemon.core.errors import AtlasError, Code, InvalidRequest, JobFailed, NotFound, SourceDataInvalid
from daemon.research.backtest_config.files import decode_config
from daemon.research.backtest_records import BacktestJob
from daemon.research.backtest_result import BacktestResult
from daemon.research.budgets import budget_for
from daemon.research.executors import ProcessExecutor
from daemon.research.parameters import POINT, read_specification
from daemon.research.scripting.results import Backtest, made_backtest
from daemon.research.worker import WorkerSetup
from daemon.store import documents
from daemon.store.backtests import spooled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daemon.core.backtest import BacktestSpec
    from daemon.research.backtest_records import BacktestProgress
    from daemon.research.scripting.opening import Settings
    from daemon.research.strategies import RuleBook
    from daemon.store.backtests import ColumnPart
    from daemon.store.bars import BarStore

_SAID: Final = re.compile(r"((?:^  .*\n)*)^error: ((?s:.*)) \[([A-Z_]+)\]\s*\Z", re.MULTILINE)
_WRONG_USE: Final = 2


def read_wanted(
    config: Mapping[str, Any] | str | os.PathLike[str], point: Mapping[str, float] | None
) -> dict[str, Any]:
    """Read a configuration, from a file where it is a path, and set parameters of its point.

    NotFound SOURCE_NOT_FOUND, SourceDataInvalid SOURCE_UNREADABLE, InvalidRequest INVALID_JSON or INVALID_REQUEST.
    """
    if isinstance(config, (str, os.PathLike)):
        where = str(config)
        try:
            content = Path(config).read_bytes()
        except FileNotFoundError:
            raise NotFound(Code.SOURCE_NOT_FOUND, f"there is no file {where}") from None
        except OSError as error:
            raise SourceDataInvalid(Code.SOURCE_UNREADABLE, f"{where} cannot be read: {error.strerror}") from None
    else:
        where = "the configuration"
        try:
            # msgspec writes NaN as null, which counts as not given: a default would stand in for it.
            content = json.dumps(_plain(config), allow_nan=False).encode()
        except (TypeError, ValueError) as error:
            why = f"{where} holds what JSON cannot say, such as NaN: {error}"
            raise InvalidRequest(Code.INVALID_REQUEST, why) from None
    wanted = decode_config(content, where)
    strategy = wanted.get("strategy")
    if isinstance(config, (str, os.PathLike)) and isinstance(strategy, dict) and isinstance(strategy.get("file"), str):
        # Beside the configuration, wherever this process happens to stand.
        strategy["file"] = str(Path(config).absolute().parent / strategy["file"])
    if point:
        given, over = wanted.get(POINT) or {}, _plain(point)
        if not isinstance(over, dict):
            given = over  # the reader's to refuse, as what is no number
        wanted[POINT] = given | over if isinstance(given, dict) else given
    return wanted


def _plain(value: object) -> Any:
    return msgspec.to_builtins(value, enc_hook=_as_json, str_keys=True)


def _as_json(value: object) -> object:
    """Return what JSON has for numbers of NumPy's, times of pandas', and paths."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a {type(value).__name__}")


class Bench:
    """Where a market's backtests run. Its worker process is started by the first job that needs one, and stays."""

    def __init__(self, settings: Settings, bars: BarStore, book: RuleBook) -> None:
        self._settings = settings
        self._bars = bars
        self._book = book
        self._executor: ProcessExecutor | None = None

    def run(
        self, wanted: dict[str, Any], name: str | None, progress: Callable[[float], None] | None, *, apart: bool
    ) -> Backtest:
        """Run a configuration and keep nothing of it. apart: in the worker process, whatever it is."""
        spec = read_specification(wanted, self._bars, self._book, self._settings.profiles)
        if name is not None:
            spec = msgspec.structs.replace(spec, name=name)

        def told(at: BacktestProgress) -> None:
            if progress is not None:
                progress(at.done_fraction)

        with tempfile.TemporaryDirectory(prefix="atlasd-") as folder:
            spool = Path(folder) / "rows.spool"
            given = wanted.get("id")
            job = BacktestJob(
                given if isinstance(given, str) else uuid.uuid4().hex[:8],
                spec,
                str(spool),
                wanted,
                dict(self._settings.profiles),
                budget_for(spec, self._settings.budget),
            )
            is_apart = apart or job.budget is not None
            result, parts = (self._elsewhere if is_apart else self._here)(job, told)
            return _taken(result, spec, parts, spool)

    def close(self) -> None:
        """End the worker process."""
        if self._executor is not None:
            self._executor.close()

    def _here(
        self, job: BacktestJob, told: Callable[[BacktestProgress], None]
    ) -> tuple[BacktestResult, list[ColumnPart]]:
        from daemon.research.backtest_job import run_backtest

        outcome = run_backtest(self._bars, job, told, lambda: None, self._book)
        return outcome.result, outcome.parts

    def _elsewhere(
        self, job: BacktestJob, told: Callable[[BacktestProgress], None]
    ) -> tuple[BacktestResult, list[ColumnPart]]:
        if self._executor is None:
            own = None if self._book.own is None else self._book.own.path
            setup = WorkerSetup(self._settings.folder, self._settings.store, tuple(self._book), own=own)
            self._executor = ProcessExecutor(setup, 1)
            self._executor.start()
        stopped = threading.Event()
        future = self._executor.submit(job, told, stopped)
        try:
            finished = future.result()
        except KeyboardInterrupt:
            stopped.set()
            future.exception()  # it has ended, be it because it was killed
            raise
        return documents.unpack(finished.result, BacktestResult), finished.parts


def _taken(result: BacktestResult, spec: BacktestSpec, parts: list[ColumnPart], spool: Path) -> Backtest:
    return made_backtest(result, [market.instrument.key for market in spec.markets], spooled(parts, spool))


class _Stored(msgspec.Struct):
    id: str


def run_stored(settings: Settings, wanted: dict[str, Any], name: str | None) -> str:
    """Have a configuration run and stored, here or by the running daemon, as `atlasd backtest` does; returns its id.

    Raises what the command says, by its code; Conflict STORE_LOCKED becomes one of these where another writes.
    """
    options = ["--format", "json", "--data-dir", str(settings.folder)]
    options += ["--config", str(settings.config)] if settings.config else []
    options += ["--name", name] if name is not None else []
    source = str(Path(daemon.__file__).parent.parent)
    paths = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(  # noqa: S603 - this very program
            [sys.executable, "-m", "daemon", "backtest", "-", *options],
            input=msgspec.json.encode(wanted),
            capture_output=True,
            check=False,
            env=os.environ | {"PYTHONPATH": paths},
        )
    except ValueError as error:
        why = f"name {name!r} cannot be handed to a process: {error}"
        raise InvalidRequest(Code.INVALID_REQUEST, why, {"field": "name"}) from None
    if done.returncode == 0:
        return msgspec.json.decode(done.stdout, type=_Stored).id
    raise _said(done.stderr.decode(errors="replace"), done.returncode)


def _said(complaint: str, status: int) -> AtlasError:
    found = _SAID.search(complaint)
    if found is None:
        return JobFailed(Code.INTERNAL, f"`atlasd backtest` ended with {status}: {complaint.strip()[-500:]}")
    code = next((each for each in Code if each == found[3]), Code.INTERNAL)
    lines = [line.strip() for line in found[1].splitlines()]  # of a strategy that raised
    kind = InvalidRequest if status == _WRONG_USE else JobFailed
    return kind(code, found[2], {"traceback": lines} if lines else None)
