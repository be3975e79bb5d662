"""One job from bars to stored rows: what a worker does, be it a thread or a process.

This is where numba and TA-Lib are loaded, so only workers import this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np

from daemon.core.errors import Code, NotFound
from daemon.engine import conditions, probe
from daemon.engine.columns import ATR
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.program import Program, compile_strategies
from daemon.research.backtest_records import BacktestJob, Finished, packed
from daemon.research.monte_carlo_records import MonteCarloJob
from daemon.research.optimization.records import OptimizationJob, Optimized
from daemon.research.plans import ProbeJob
from daemon.research.selection import Selection, select
from daemon.store import documents
from daemon.store.keys import ResultKind
from daemon.store.results import CombinationTotals, JobIndex, Spool

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.market import Bars
    from daemon.core.strategy import Strategy
    from daemon.research.backtest_records import BacktestProgress
    from daemon.research.optimization.records import OptimizationProgress
    from daemon.research.strategies import RuleBook
    from daemon.research.validation_result import MonteCarloResult
    from daemon.store.bars import BarStore

# A probe yields a JobIndex and tells the combinations that are done; a backtest yields Finished and BacktestProgress,
# an optimisation Optimized and OptimizationProgress; a simulation yields MonteCarloResult, None without trades, and
# tells nothing.
Job: TypeAlias = ProbeJob | BacktestJob | OptimizationJob | MonteCarloJob


class JobRunner:
    """Runs jobs against one store and one rule book; safe to use from several threads."""

    def __init__(self, bars: BarStore, book: RuleBook) -> None:
        self._bars = bars
        self._book = book
        self._programs: dict[tuple[int, ...], Program] = {}

    @overload
    def run(self, job: ProbeJob, progress: Callable[[int], None], checkpoint: Callable[[], None]) -> JobIndex: ...

    @overload
    def run(
        self, job: BacktestJob, progress: Callable[[BacktestProgress], None], checkpoint: Callable[[], None]
    ) -> Finished: ...

    @overload
    def run(
        self, job: OptimizationJob, progress: Callable[[OptimizationProgress], None], checkpoint: Callable[[], None]
    ) -> Optimized: ...

    @overload
    def run(
        self, job: MonteCarloJob, progress: Callable[[Any], None], checkpoint: Callable[[], None]
    ) -> MonteCarloResult | None: ...

    def run(
        self, job: Job, progress: Callable[[Any], None], checkpoint: Callable[[], None]
    ) -> JobIndex | Finished | Optimized | MonteCarloResult | None:
        """Do a job of any kind; rows of probes and backtests go to a spool file.

        progress: told how far it is. checkpoint: called often; what it raises ends the job.
        NotFound NO_BARS where the bars went away since the plan.
        """
        match job:
            case ProbeJob():
                return self._probe(job, progress, checkpoint)
            case BacktestJob():
                from daemon.research.backtest_job import run_backtest

                return packed(run_backtest(self._bars, job, progress, checkpoint, self._book))
            case OptimizationJob():
                from daemon.research.optimization.search import optimize

                found = optimize(self._bars, job, progress, checkpoint, self._book)
                return Optimized(documents.pack(found), found.verdict.verdict)
            case MonteCarloJob():
                from daemon.research.monte_carlo import monte_carlo_stored

                return monte_carlo_stored(self._bars.ticks.env, job, checkpoint)

    def _probe(self, job: ProbeJob, progress: Callable[[int], None], checkpoint: Callable[[], None]) -> JobIndex:
        """Probe one series. progress: told how many combinations are done."""
        selection = select(self._bars, job)
        bars = selection.bars
        if bars.size == 0:
            raise NotFound(Code.NO_BARS, f"{job.instrument.key} {job.timeframe}: no bars in the dates asked for")
        ids = tuple(dict.fromkeys(strategy_id for strategy_id, _ in job.combinations))
        strategies = [self._book.get(strategy_id) for strategy_id in ids]
        program = self._program(ids, strategies)
        columns = IndicatorColumns(bars)
        signals = conditions.signals(program, columns, checkpoint)
        atr = np.asarray(columns[ATR])
        del columns  # the largest part of a long series' memory
        place = {strategy_id: row for row, strategy_id in enumerate(ids)}
        pairs = [(place[strategy_id], job.risk_profiles[profile]) for strategy_id, profile in job.combinations]
        with Spool(Path(job.spool)) as spool:
            summaries = []
            combinations = probe.combine(strategies, pairs)
            for batch in probe.run(bars, atr, signals, program.strategy_signals, combinations):
                checkpoint()
                _spool_batch(spool, batch, bars, persist_trades=job.persist_trades)
                summaries.append(batch.summary)
                progress(batch.first + batch.summary.trades.size)
            return _index(job, selection, summaries, spool)

    def _program(self, ids: tuple[int, ...], strategies: list[Strategy]) -> Program:
        if ids not in self._programs:
            self._programs[ids] = compile_strategies(strategies)
        return self._programs[ids]


def _spool_batch(spool: Spool, batch: probe.Batch, bars: Bars, *, persist_trades: bool) -> None:
    """Write a batch's rows; combinations count from the job's first."""
    count = batch.summary.trades.size
    stop = batch.first + count
    numbers = np.arange(batch.first, stop, dtype=np.int32)
    if batch.groups.side.size:
        combination = np.repeat(numbers, batch.summary.groups)
        spool.add(ResultKind.GROUPS, batch.first, stop, [combination, *batch.groups])
    trades = batch.trades
    if persist_trades and trades.side.size:
        combination = np.repeat(numbers, batch.summary.trades)
        times = bars.start_ns[trades.entry_index], bars.start_ns[trades.exit_index]
        spool.add(ResultKind.TRADES, batch.first, stop, [combination, *times, *trades[2:]])


def _index(job: ProbeJob, selection: Selection, summaries: list[probe.Summary], spool: Spool) -> JobIndex:
    start_ns, end_ns = job.period
    bars = selection.bars
    totals = probe.Summary(*(np.concatenate(columns) for columns in zip(*summaries, strict=True)))
    return JobIndex(
        instrument=job.instrument.key,
        symbol=job.instrument.symbol,
        timeframe=job.timeframe,
        source=job.source,
        bars=bars.size,
        bars_digest=selection.digest,
        period_start_ns=int(bars.start_ns[0]) if start_ns is None else start_ns,
        period_end_ns=int(bars.start_ns[-1]) if end_ns is None else end_ns,
        partial_buckets=list(selection.partial_buckets),
        totals=CombinationTotals(
            strategy_id=[strategy_id for strategy_id, _ in job.combinations],
            risk_profile=[profile for _, profile in job.combinations],
            **{name: column.tolist() for name, column in totals._asdict().items()},
        ),
        parts=spool.parts,
        holes=len(selection.holes),
        missing_rows=sum(hole.missing for hole in selection.holes),
    )
