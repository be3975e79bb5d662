"""Whoever may change the store: this process, under the writer lock, or the daemon that has it (`client`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from daemon.api import messages
from daemon.ingest.bars import UNKNOWN_ORIGIN, ImportReport, Origin, import_bars
from daemon.ingest.funding import FundingReport, import_funding
from daemon.ingest.ticks import TickReport, TickUpload, store_upload
from daemon.research.calibration import calibrate
from daemon.research.latency_calibration import calibrate_latency
from daemon.research.runs import SPOOL_FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from daemon.app.stores import Store
    from daemon.core.market import BarTable, FundingTable, Instrument, Timeframe, VolumeUnit
    from daemon.research.backtest_result import BacktestStatus, Priority
    from daemon.research.backtests import Backtests
    from daemon.research.calibration import Calibration, CalibrationRequest
    from daemon.research.latency_calibration import LatencyCalibration, LatencyRequest
    from daemon.research.monte_carlo_records import MonteCarloRequest, Simulation
    from daemon.research.monte_carlos import MonteCarlos
    from daemon.research.optimization.request import OptimizationRequest
    from daemon.research.optimization.result import OptimizationStatus
    from daemon.research.optimizations import Optimizations
    from daemon.research.plans import ProbeRequest
    from daemon.research.runs import Runs
    from daemon.store.ticks import TickStore


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

    def calibrate_latency(self, request: LatencyRequest) -> LatencyCalibration:
        """Measure and store a symbol's feed latency."""

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

    def calibrate_latency(self, request: LatencyRequest) -> LatencyCalibration:
        """Measure and store a symbol's feed latency."""
        return calibrate_latency(self._store.bars, request)

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
