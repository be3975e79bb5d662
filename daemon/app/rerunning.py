"""Files that are watched, and runs that begin whenever one of them is saved.

Watched by asking for their times every 20 ms: a handful of `stat` calls takes no measurable part of a core, works on
network drives and in containers, where the system tells of no change, and costs no dependency. Libraries that wait for
the system's word put changes together for 50 ms and more, which is most of the time that there is here.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import TimeoutError as TookLonger
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from daemon.core.errors import Code, Conflict, JobFailed
from daemon.research.backtest_memory import memory_bound
from daemon.research.backtest_records import BacktestJob
from daemon.research.budgets import budget_for
from daemon.research.rerunning import rerun_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from daemon.app.writing import Writer
    from daemon.core.backtest import BacktestSpec
    from daemon.core.market import TsNs
    from daemon.core.strategy import RiskProfile
    from daemon.research.budgets import Budget
    from daemon.research.executors import Executor
    from daemon.research.rerunning import Rerun
    from daemon.store.bars import BarStore

POLL_S: Final = 0.02
MISSING_S: Final = 1.0
"""For so long a file may be away, or empty, before that is told: editors put another in its place."""

_NAME: Final = "watch"


class _Stamp(NamedTuple):
    mtime_ns: TsNs
    size: int
    number: int


class WatchedFiles:
    """Some files, and when one of them changed. A file that is away or empty has not changed: it is being written."""

    def __init__(self) -> None:
        self._stamps: dict[Path, _Stamp] = {}
        self._away_s: dict[Path, float] = {}
        self._asked_ns = time.time_ns()

    def watch(self, paths: Iterable[Path]) -> None:
        """Watch these and no others; what is new counts from now on."""
        now = time.monotonic()
        paths = list(dict.fromkeys(paths))
        stamps = {path: self._stamps.get(path) or _stamp(path) for path in paths}
        self._stamps = {path: stamp for path, stamp in stamps.items() if stamp is not None}
        self._away_s = {path: self._away_s.get(path, now) for path in paths if path not in self._stamps}

    def changed_ns(self) -> TsNs | None:
        """Ask once; returns the time of the last change since it was last asked, None where there was none.

        A time that a file brought along, as one does that is moved into place, is not before the asking that did not
        see it.
        """
        asked_ns, self._asked_ns = self._asked_ns, time.time_ns()
        found: TsNs | None = None
        for path in [*self._stamps, *self._away_s]:
            stamp, before = _stamp(path), self._stamps.get(path)
            if stamp is None:
                if path not in self._away_s:
                    self._away_s[path] = time.monotonic()
            elif stamp != before:
                found = max(found or 0, min(max(stamp.mtime_ns, asked_ns), self._asked_ns))
            if stamp is not None:
                self._stamps[path] = stamp
                self._away_s.pop(path, None)
        return found

    def missing(self) -> list[Path]:
        """Name the files that have been away for long enough to say so, each once."""
        now = time.monotonic()
        found = [path for path, since in self._away_s.items() if now - since >= MISSING_S]
        for path in found:
            self._away_s[path] = float("inf")
        return found


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return _Stamp(found.st_mtime_ns, found.st_size, found.st_ino) if found.st_size else None


class Attempt(Protocol):
    """One run under way."""

    def result(self, patience_s: float) -> Rerun | None:
        """Wait a little for what came of it, None where it still runs; AtlasError where it failed."""

    def cancel(self) -> None:
        """End it, and return once it has ended; what came of it is nobody's."""


class Reruns(Protocol):
    """What runs a configuration again. bars: what it is read against."""

    bars: BarStore

    def begin(self, spec: BacktestSpec, wanted: Mapping[str, Any]) -> Attempt:
        """Begin a run; AtlasError where it cannot be."""


class UnstoredReruns:
    """Runs on a worker process that nobody else uses; nothing is stored.

    spool: file for what validation leaves. budget: what code of the user's own may take.
    """

    def __init__(
        self, bars: BarStore, executor: Executor, spool: Path, profiles: Mapping[str, RiskProfile], budget: Budget
    ) -> None:
        self.bars = bars
        self._executor = executor
        self._spool = spool
        self._profiles = dict(profiles)
        self._budget = budget

    def begin(self, spec: BacktestSpec, wanted: Mapping[str, Any]) -> Attempt:
        """Hand a run to the worker."""
        job = BacktestJob(_NAME, spec, str(self._spool), dict(wanted), self._profiles, budget_for(spec, self._budget))
        return _Unstored(self._executor, job, memory_bound(spec, self.bars))


class _Unstored:
    def __init__(self, executor: Executor, job: BacktestJob, memory_bytes: int) -> None:
        self._cancelled = threading.Event()
        self._future: Future[Rerun] = executor.submit(job, lambda _: None, self._cancelled, memory_bytes=memory_bytes)

    def result(self, patience_s: float) -> Rerun | None:
        try:
            return self._future.result(patience_s)
        except TookLonger:
            return None

    def cancel(self) -> None:
        self._cancelled.set()
        self._future.exception()


class StoredReruns:
    """Runs that are stored, as those of `atlasd backtest`."""

    def __init__(self, bars: BarStore, writer: Writer) -> None:
        self.bars = bars
        self._writer = writer

    def begin(self, spec: BacktestSpec, wanted: Mapping[str, Any]) -> Attempt:  # noqa: ARG002 - the writer reads it
        """Queue a run; an id that the configuration gives could be taken only once, so it is left out."""
        fields = {name: value for name, value in wanted.items() if name != "id"}
        return _Kept(self._writer, self._writer.backtest_start(fields, "high"))


class _Kept:
    def __init__(self, writer: Writer, backtest_id: str) -> None:
        self._writer = writer
        self._id = backtest_id

    def result(self, patience_s: float) -> Rerun | None:
        until_s = time.monotonic() + patience_s
        while (status := self._writer.backtest_status(self._id)).completed_at is None:
            if time.monotonic() >= until_s:
                return None
            time.sleep(POLL_S / 4)
        if status.status != "completed":
            code = next((each for each in Code if each == status.error_code), Code.INTERNAL)
            raise JobFailed(code, f"backtest {self._id} failed: {status.error}")
        return rerun_stored(status)

    def cancel(self) -> None:
        with suppress(Conflict):  # it ended by itself meanwhile
            self._writer.backtest_cancel(self._id)
