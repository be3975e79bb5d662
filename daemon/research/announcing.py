"""What is told of runs: their states as events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.core.errors import Code
from daemon.core.events import (
    BacktestCompleted,
    BacktestFailed,
    BacktestProgressed,
    OptimizationCompleted,
    OptimizationFailed,
    OptimizationProgressed,
    ProbeCompleted,
    ProbeFailed,
    ProbeProgressed,
)

if TYPE_CHECKING:
    from daemon.core.events import Event
    from daemon.research.backtest_result import BacktestStatus
    from daemon.research.optimization.result import OptimizationStatus
    from daemon.research.records import Run, RunView


def nobody(_event: Event) -> None:
    """Publish nothing, for who has nobody to tell."""


def backtest_progress(status: BacktestStatus) -> BacktestProgressed:
    """Say how far a backtest is."""
    return BacktestProgressed(
        id=status.id,
        symbols=status.symbols,
        status=status.status,
        progress=status.progress,
        current_timestamp=status.current_timestamp,
        events_processed=status.events_processed,
        estimated_time_remaining=status.estimated_time_remaining,
        error=status.error,
    )


def backtest_end(status: BacktestStatus) -> BacktestCompleted | BacktestFailed:
    """Say how a backtest has ended."""
    if status.status != "completed":
        return BacktestFailed(
            id=status.id, symbols=status.symbols, error=status.error or "", code=status.error_code or Code.INTERNAL
        )
    return BacktestCompleted(
        id=status.id,
        symbols=status.symbols,
        name=status.name,
        total_return_percent=status.total_return_percent,
        sharpe_ratio=status.sharpe_ratio,
        max_drawdown_percent=status.max_drawdown_percent,
        total_trades=status.total_trades,
        verdict=status.verdict,
        fingerprint=status.fingerprint,
    )


def optimization_progress(status: OptimizationStatus) -> OptimizationProgressed:
    """Say how far an optimisation is."""
    return OptimizationProgressed(
        id=status.id,
        symbols=status.symbols,
        status=status.status,
        progress=status.progress,
        points=status.points,
        points_done=status.points_done,
        best_score=status.best_score,
        best_parameters=status.best_parameters,
    )


def optimization_end(status: OptimizationStatus) -> OptimizationCompleted | OptimizationFailed:
    """Say how an optimisation has ended."""
    if status.status != "completed":
        return OptimizationFailed(
            id=status.id, symbols=status.symbols, error=status.error or "", code=status.error_code or Code.INTERNAL
        )
    return OptimizationCompleted(
        id=status.id,
        symbols=status.symbols,
        name=status.name,
        best_score=status.best_score,
        best_parameters=status.best_parameters,
        verdict=status.verdict,
    )


def probe_progress(view: RunView) -> ProbeProgressed:
    """Say how many combinations of a run are done."""
    run = view.run
    return ProbeProgressed(
        id=run.run_id, symbols=run.symbols, status=run.status, completed=view.completed, total=run.total_combinations
    )


def probe_end(run: Run) -> ProbeCompleted | ProbeFailed:
    """Say how a run has ended."""
    if run.status == "completed":
        return ProbeCompleted(
            id=run.run_id,
            symbols=run.symbols,
            total_combinations=run.total_combinations,
            total_trades=run.total_trades,
        )
    code, message = (run.error.code, run.error.message) if run.error else (Code.INTERNAL, "")
    return ProbeFailed(id=run.run_id, symbols=run.symbols, error=message, code=code)
