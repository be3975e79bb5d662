"""The same backtest again and again while its author changes it: what a worker of `atlasd watch` does.

What takes long is done once: the process stays, its kernels are loaded, and bars stay in memory until anything of the
store changes, which a snapshot's number tells. Ticks are read anew: they may be larger than the memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from daemon.core.errors import Code, JobFailed
from daemon.research.backtest_job import run_backtest, traded
from daemon.research.backtest_market import read_series
from daemon.research.backtest_records import BacktestJob

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.backtest import BacktestSpec, Market
    from daemon.research.backtest_market import Series
    from daemon.research.backtest_result import BacktestResult, BacktestStatus
    from daemon.research.jobs import Job
    from daemon.research.strategies import RuleBook
    from daemon.store.bars import BarStore


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one run, in short. id: of the stored backtest, None where it is not stored."""

    name: str
    total_return_percent: float
    sharpe_ratio: float | None
    max_drawdown_percent: float
    total_trades: int
    fingerprint: str
    verdict: str | None = None
    notes: list[str] = []
    id: str | None = None


def rerun_of(result: BacktestResult) -> Rerun:
    """Shorten a result that is not stored."""
    return Rerun(
        name=result.name,
        total_return_percent=result.metrics.total_return_percent,
        sharpe_ratio=result.metrics.sharpe_ratio,
        max_drawdown_percent=result.metrics.max_drawdown_percent,
        total_trades=result.trade_stats.total_trades,
        fingerprint=result.fingerprint,
        verdict=result.verdict.verdict if result.verdict else None,
        notes=result.notes,
    )


def rerun_stored(status: BacktestStatus) -> Rerun:
    """Shorten a stored backtest that has completed."""
    return Rerun(
        id=status.id,
        name=status.name,
        total_return_percent=status.total_return_percent or 0.0,
        sharpe_ratio=status.sharpe_ratio,
        max_drawdown_percent=status.max_drawdown_percent or 0.0,
        total_trades=status.total_trades or 0,
        fingerprint=status.fingerprint or "",
        verdict=status.verdict,
        notes=status.notes,
    )


class SeriesMemory:
    """Reads series as `read_series` does, and gives those of the last run again while the store is the same.

    A series depends on the specification's dates, lengths and costs of holding, on its market and on the warm-up.
    """

    def __init__(self) -> None:
        self._snapshot = -1
        self._before: dict[tuple[Any, ...], Series] = {}
        self._used: dict[tuple[Any, ...], Series] = {}
        self.reads = 0

    def begin(self, store: BarStore) -> None:
        """Begin a run: what the one before did not use is forgotten, all of it where the store has changed."""
        with store.ticks.env.read() as transaction:
            snapshot = transaction.snapshot
        self._before = self._used if snapshot == self._snapshot else {}
        self._used = {}
        self._snapshot = snapshot

    def read(self, store: BarStore, spec: BacktestSpec, market: Market, warmup: int) -> Series:
        """Return a series, from memory where it is there; NotFound NO_BARS."""
        key = (
            market, warmup, spec.timeframe, spec.start_ns, spec.stop_ns, spec.calendar_days, spec.funding, spec.fills,
            spec.costs.slippage,
        )  # fmt: skip
        found = self._used.get(key) or self._before.get(key)
        if found is None:
            found = read_series(store, spec, market, warmup)
            self.reads += 1
        self._used[key] = found
        return found


class Rerunner:
    """Runs backtests in a worker, one at a time, and tells them in short; rows go nowhere."""

    def __init__(self, bars: BarStore, book: RuleBook) -> None:
        self._bars = bars
        self._book = book
        self._memory = SeriesMemory()

    def run(self, job: Job, progress: Callable[[Any], None], checkpoint: Callable[[], None]) -> Rerun:
        """Run a backtest, validated only where its specification asks for it; errors as of `run_backtest`."""
        if not isinstance(job, BacktestJob):
            raise JobFailed(Code.INTERNAL, f"a worker that reruns backtests was sent a {type(job).__name__}")
        self._memory.begin(self._bars)
        if job.spec.validation is None:
            read, own = self._memory.read, self._book.own
            return rerun_of(traded(self._bars, job, progress, checkpoint, read, own).result)
        try:
            outcome = run_backtest(self._bars, job, progress, checkpoint, self._book, self._memory.read)
        finally:
            Path(job.spool).unlink(missing_ok=True)
        return rerun_of(outcome.result)
