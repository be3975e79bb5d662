"""What the routes of backtests, optimisations and what rests on them take and answer; as in `rest`."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from daemon.api import messages
from daemon.api.described import (
    ARROW,
    CSV_TYPE,
    HISTORY_ERRORS,
    HTML,
    PAGE,
    PDF,
    SERIES_ERRORS,
    Ordinal,
    Parameter,
    Route,
)
from daemon.api.methods.backtests import TradePage
from daemon.core.errors import Code
from daemon.research.backtest_result import BacktestResult, BacktestStatus, EquityPoint, Receipt, Status
from daemon.research.calibration import Calibration, CalibrationRequest
from daemon.research.latency_calibration import LatencyCalibration, LatencyRequest
from daemon.research.monte_carlo_records import MonteCarloRequest, Simulation
from daemon.research.optimization.request import OptimizationRequest
from daemon.research.optimization.result import OptimizationResult, OptimizationStatus
from daemon.research.trial_lists import ListedIdea, ListedTrial
from daemon.research.validation_result import ValidationResult

_STATUS: Final = Parameter("status", Status, "those of this status")
_STATUS_PAGE: Final = (_STATUS, *PAGE)
_ROW_FORMAT: Final = Parameter("format", Literal["json", "csv", "arrow"], "json unless given; the others have all rows")
_ROWS: Final = (*PAGE, _ROW_FORMAT)
_RESULT_ERRORS: Final = (Code.BACKTEST_NOT_FOUND, Code.BACKTEST_NOT_FINISHED)
_CONFIG_ERRORS: Final = (
    *SERIES_ERRORS,
    Code.INVALID_CONFIGURATION,
    Code.INVALID_TIMEFRAME,
    Code.INVALID_DATE_RANGE,
    Code.INVALID_RISK_PROFILE,
    Code.INVALID_STRATEGY,
    Code.MEMORY_BOUND_EXCEEDED,
    Code.NO_BARS,
    Code.NO_DEPTH,
    Code.NO_ROWS,
)
_BACKTEST: Final = "/api/v1/backtest/{backtest_id}"
_OPTIMIZATION: Final = "/api/v1/optimize/{optimization_id}"
_REPORT_FILES: Final = (CSV_TYPE, HTML, PDF)


class BacktestList(msgspec.Struct, frozen=True):
    """`GET /api/v1/backtest`: the newest first."""

    results: list[BacktestStatus]
    next_cursor: str | None


class ReceiptPage(msgspec.Struct, frozen=True):
    """Some receipts, and where the next are."""

    results: list[Receipt]
    next_cursor: str | None


class EquityPage(msgspec.Struct, frozen=True):
    """The account at every bar's close, and where the next are."""

    results: list[EquityPoint]
    next_cursor: str | None


class IdeaList(msgspec.Struct, frozen=True):
    """`GET /api/v1/trials`: those tried last first."""

    results: list[ListedIdea]
    next_cursor: str | None


class TrialList(msgspec.Struct, frozen=True):
    """`GET /api/v1/trials/{idea}`: the last first."""

    results: list[ListedTrial]
    next_cursor: str | None


def _report(*formats: str) -> tuple[Parameter, ...]:
    return (Parameter("format", Literal[formats], "html unless given"),)


STUDIES: Final = (
    # Backtests.
    Route(
        "POST",
        "/api/v1/backtest/run",
        "Queue a backtest.",
        (messages.BacktestAccepted,),
        status=202,
        request=messages.BacktestRequest,
        errors=(*_CONFIG_ERRORS, Code.BACKTEST_EXISTS),
        starts_job=True,
    ),
    Route(
        "GET",
        "/api/v1/backtest",
        "List backtests, the newest first.",
        (BacktestList,),
        query=_STATUS_PAGE,
        errors=(Code.INVALID_CURSOR,),
    ),
    Route(
        "GET",
        _BACKTEST,
        "Return the result of a completed backtest, else how it is doing.",
        (BacktestResult, BacktestStatus),
        errors=(Code.BACKTEST_NOT_FOUND,),
    ),
    Route(
        "DELETE", _BACKTEST, "Delete a backtest that has ended.", errors=(Code.BACKTEST_NOT_FOUND, Code.BACKTEST_ACTIVE)
    ),
    Route(
        "GET",
        f"{_BACKTEST}/status",
        "Tell how a backtest is doing.",
        (BacktestStatus,),
        errors=(Code.BACKTEST_NOT_FOUND,),
    ),
    Route(
        "POST",
        f"{_BACKTEST}/cancel",
        "End a backtest that is queued or running.",
        (BacktestStatus,),
        errors=(Code.BACKTEST_NOT_FOUND, Code.BACKTEST_FINISHED),
    ),
    Route(
        "GET",
        f"{_BACKTEST}/trades",
        "Return the trades.",
        (TradePage,),
        files=(CSV_TYPE, ARROW),
        query=_ROWS,
        errors=(*_RESULT_ERRORS, Code.INVALID_CURSOR),
    ),
    Route(
        "GET",
        f"{_BACKTEST}/receipts",
        "Return the receipts of fills, of all or of one trade.",
        (ReceiptPage,),
        files=(CSV_TYPE, ARROW),
        query=(*_ROWS, Parameter("trade", Ordinal, "receipts of this trade")),
        errors=(*_RESULT_ERRORS, Code.INVALID_CURSOR),
    ),
    Route(
        "GET",
        f"{_BACKTEST}/equity",
        "Return the account at every bar's close.",
        (EquityPage,),
        files=(CSV_TYPE, ARROW),
        query=_ROWS,
        errors=(*_RESULT_ERRORS, Code.INVALID_CURSOR),
    ),
    Route(
        "GET",
        f"{_BACKTEST}/validation",
        "Return the verdict and what it rests on.",
        (ValidationResult,),
        errors=(*_RESULT_ERRORS, Code.NO_VALIDATION),
    ),
    Route(
        "GET",
        f"{_BACKTEST}/report",
        "Hand out the result, the trades, or a page or PDF of both as a file.",
        (BacktestResult,),
        files=_REPORT_FILES,
        query=_report("json", "csv", "html", "pdf"),
        errors=_RESULT_ERRORS,
    ),
    Route(
        "POST",
        "/api/v1/montecarlo",
        "Draw a completed backtest's trades again, and answer what came of it.",
        (Simulation,),
        request=MonteCarloRequest,
        errors=(*_RESULT_ERRORS, Code.TOO_FEW_TRADES),
        starts_job=True,
    ),
    Route(
        "GET",
        "/api/v1/montecarlo/{backtest_id}",
        "Return the simulation that was asked for last.",
        (Simulation,),
        errors=(*_RESULT_ERRORS, Code.MONTE_CARLO_NOT_FOUND),
    ),
    # Optimisations.
    Route(
        "POST",
        "/api/v1/optimize",
        "Queue an optimisation over parameter ranges.",
        (OptimizationStatus,),
        status=202,
        request=OptimizationRequest,
        errors=(*_CONFIG_ERRORS, Code.INVALID_PARAMETER, Code.OPTIMIZATION_EXISTS),
        starts_job=True,
    ),
    Route(
        "GET",
        "/api/v1/optimize",
        "List optimisations, the newest first.",
        (messages.OptimizationList,),
        query=_STATUS_PAGE,
        errors=(Code.INVALID_CURSOR,),
    ),
    Route(
        "GET",
        _OPTIMIZATION,
        "Return the result of a completed optimisation, else how it is doing.",
        (OptimizationResult, OptimizationStatus),
        errors=(Code.OPTIMIZATION_NOT_FOUND,),
    ),
    Route(
        "DELETE",
        _OPTIMIZATION,
        "Delete an optimisation that has ended.",
        errors=(Code.OPTIMIZATION_NOT_FOUND, Code.OPTIMIZATION_ACTIVE),
    ),
    Route(
        "GET",
        f"{_OPTIMIZATION}/status",
        "Tell how an optimisation is doing.",
        (OptimizationStatus,),
        errors=(Code.OPTIMIZATION_NOT_FOUND,),
    ),
    Route(
        "POST",
        f"{_OPTIMIZATION}/cancel",
        "End an optimisation that is queued or running; its points are kept.",
        (OptimizationStatus,),
        errors=(Code.OPTIMIZATION_NOT_FOUND, Code.OPTIMIZATION_FINISHED),
    ),
    Route(
        "POST",
        f"{_OPTIMIZATION}/resume",
        "Go on with one that was cancelled or failed.",
        (OptimizationStatus,),
        status=202,
        errors=(*_CONFIG_ERRORS, Code.OPTIMIZATION_NOT_FOUND, Code.OPTIMIZATION_ACTIVE, Code.OPTIMIZATION_FINISHED),
        starts_job=True,
    ),
    Route(
        "GET",
        f"{_OPTIMIZATION}/points",
        "Return the points that are stored so far, in the order in which they were tried.",
        (list[dict[str, Any]],),
        files=(CSV_TYPE,),
        query=(Parameter("format", Literal["json", "csv"], "json unless given"),),
        errors=(Code.OPTIMIZATION_NOT_FOUND,),
    ),
    Route(
        "GET",
        f"{_OPTIMIZATION}/report",
        "Hand out the result, the points or a page as a file.",
        (OptimizationResult,),
        files=(CSV_TYPE, HTML),
        query=_report("json", "csv", "html"),
        errors=(Code.OPTIMIZATION_NOT_FOUND, Code.OPTIMIZATION_NOT_FINISHED),
    ),
    # The trial ledger, and calibrations.
    Route(
        "GET",
        "/api/v1/trials",
        "List ideas with how often they were tried.",
        (IdeaList,),
        query=PAGE,
        errors=(Code.INVALID_CURSOR,),
    ),
    Route(
        "GET",
        "/api/v1/trials/{idea}",
        "List the tries of an idea.",
        (TrialList,),
        query=PAGE,
        errors=(Code.INVALID_CURSOR,),
    ),
    Route(
        "POST",
        "/api/v1/calibrate",
        "Fit a symbol's impact parameters on its stored trades.",
        (Calibration,),
        request=CalibrationRequest,
        errors=(*HISTORY_ERRORS, Code.TOO_FEW_TRADES),
        starts_job=True,
    ),
    Route(
        "GET",
        "/api/v1/calibration/{symbol}",
        "Return a symbol's impact parameters as they were last fitted.",
        (Calibration,),
        errors=(*SERIES_ERRORS, Code.CALIBRATION_NOT_FOUND),
    ),
    Route(
        "POST",
        "/api/v1/calibrate/latency",
        "Measure a symbol's feed latency on its stored ticks.",
        (LatencyCalibration,),
        request=LatencyRequest,
        errors=HISTORY_ERRORS,
        starts_job=True,
    ),
    Route(
        "GET",
        "/api/v1/calibration/{symbol}/latency",
        "Return a symbol's feed latency as it was last measured.",
        (LatencyCalibration,),
        errors=(*SERIES_ERRORS, Code.CALIBRATION_NOT_FOUND),
    ),
    Route(
        "GET",
        "/api/backtest/{backtest_id}/report",
        "Hand out a report as `GET /api/v1/backtest/{backtest_id}/report` does.",
        (BacktestResult,),
        files=_REPORT_FILES,
        query=_report("json", "csv", "html", "pdf"),
        errors=_RESULT_ERRORS,
    ),
)
