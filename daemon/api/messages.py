"""Typed messages of the HTTP interface; the command line speaks them as well."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.core.market import NS_PER_SECOND, TsNs, VolumeUnit
from daemon.ingest.bars import UNKNOWN_ORIGIN, Origin
from daemon.research.backtest_result import Priority, Status
from daemon.research.optimization.result import OptimizationStatus

if TYPE_CHECKING:
    from daemon.core.strategy import Strategy
    from daemon.ingest.recording import RecordStatus
    from daemon.research.records import RunView

NS_PER_MS: Final = 1_000_000


class Alive(msgspec.Struct, frozen=True):
    """`GET /health` without a token."""

    status: str


class SessionCode(msgspec.Struct, frozen=True):
    """`POST /api/v1/session/code`: what the console's page trades for a token of its own. expires_in: seconds."""

    code: str
    expires_in: float


class SessionRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/v1/session`."""

    code: str


class SessionToken(msgspec.Struct, frozen=True):
    """`POST /api/v1/session`, 200: to be shown as the data folder's token is."""

    token: str


class RunAccepted(msgspec.Struct, frozen=True):
    """`POST /api/v1/runs`, 202."""

    run_id: str
    status: str
    total_combinations: int
    estimated_seconds: int


class Progress(msgspec.Struct, frozen=True):
    """Combinations done and to do. seconds_left: null until there is something to judge by."""

    completed: int
    total: int
    elapsed_seconds: float
    seconds_left: float | None


class Summary(msgspec.Struct, frozen=True):
    """Totals of everything stored under a run id."""

    total_combinations: int
    total_trades: int
    total_result_records: int
    elapsed_seconds: float


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong: a stable code, a sentence, and fields for programs."""

    code: str
    message: str
    details: dict[str, Any] | None = None


class ErrorAnswer(msgspec.Struct, frozen=True):
    """Body of every answer that is no success."""

    error: ErrorBody


class RunStatus(msgspec.Struct, frozen=True):
    """`GET /api/v1/runs/{id}`. summary: once completed. error: once failed or cancelled. notes: sentences."""

    run_id: str
    status: str
    created_at: str
    finished_at: str | None
    symbols: list[str]
    timeframes: list[str]
    risk_profiles: list[str]
    start_date: str | None
    end_date: str | None
    persist_trades: bool
    progress: Progress
    summary: Summary | None
    error: ErrorBody | None
    notes: list[str]


class RunList(msgspec.Struct, frozen=True):
    """`GET /api/v1/runs`."""

    results: list[RunStatus]
    next_cursor: str | None


class StrategyHead(msgspec.Struct, frozen=True):
    """A strategy without its rules."""

    id: int
    name: str
    display_name: str
    category: str
    direction: str
    philosophy: str
    tags: list[str]


class StrategyList(msgspec.Struct, frozen=True):
    """`GET /api/v1/strategies`."""

    results: list[StrategyHead]
    next_cursor: str | None


class Series(msgspec.Struct, frozen=True):
    """One stored series. timeframe: null for ticks. first, last: Unix ms of its rows. gaps: known holes, still open.

    volume_unit: what volumes of bars count; null for the others.
    """

    symbol: str
    stream: str
    timeframe: str | None
    rows: int
    first: int
    last: int
    bytes: int
    gaps: int
    volume_unit: VolumeUnit | None = None


class SeriesList(msgspec.Struct, frozen=True):
    """`GET /api/v1/data/symbols`."""

    results: list[Series]
    next_cursor: str | None = None


class Gap(msgspec.Struct, frozen=True):
    """Rows that are known to be missing between two times, Unix ms.

    missing: how many; after_id, before_id: the neighbours' ids; repaired: Unix ms. Null where nobody knows.
    """

    symbol: str
    stream: str
    timeframe: str | None
    start: int
    stop: int
    missing: int | None
    after_id: int | None
    before_id: int | None
    reason: str
    repaired: int | None


class GapList(msgspec.Struct, frozen=True):
    """`GET /api/v1/data/gaps`."""

    results: list[Gap]
    next_cursor: str | None = None


class FeedStatus(msgspec.Struct, frozen=True):
    """How one of the daemon's feeds is doing. rows: stored since the start, by stream. last_error: empty for none."""

    name: str
    connected: bool
    rows: dict[str, int]
    reconnects: int
    odd_messages: int
    backfilled_rows: int
    last_error: str


class FeedList(msgspec.Struct, frozen=True):
    """`GET /api/v1/feeds`."""

    results: list[FeedStatus]
    next_cursor: str | None = None


class ImportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /api/v1/imports`: columns that the command line laid into the data folder, by id; never a path.

    source: the file's name, for messages. notes: what the reader had to say about the file. origin: for the ledger.
    volume_unit: what the file's volumes count; null for what is stored, else base units.
    """

    upload: str
    venue: str
    symbol: str
    timeframe: str
    source: str
    replace: bool = False
    notes: list[str] = []
    origin: Origin = UNKNOWN_ORIGIN
    volume_unit: VolumeUnit | None = None


class FundingImport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /api/v1/imports/funding`: the same for funding rates."""

    upload: str
    venue: str
    symbol: str
    source: str
    replace: bool = False
    notes: list[str] = []


class BacktestRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`POST /api/v1/backtest/run`, unless the body is the configuration itself.

    config: as docs/backtest-config.md describes it; `research.backtest_config` reads it. name: instead of its own.
    """

    config: dict[str, Any]
    priority: Priority = "normal"
    name: str | None = None


class BacktestAccepted(msgspec.Struct, frozen=True):
    """`POST /api/v1/backtest/run`, 202."""

    id: str
    status: Status
    priority: Priority


class OptimizationList(msgspec.Struct, frozen=True):
    """`GET /api/v1/optimize`: the newest first."""

    results: list[OptimizationStatus]
    next_cursor: str | None


def run_status(view: RunView) -> RunStatus:
    """Describe a run at this moment."""
    run = view.run
    error = None if run.error is None else ErrorBody(run.error.code, run.error.message)
    summary = Summary(
        total_combinations=run.total_combinations,
        total_trades=run.total_trades,
        total_result_records=run.total_result_records,
        elapsed_seconds=_rounded(view.elapsed_seconds),
    )
    return RunStatus(
        run_id=run.run_id,
        status=run.status,
        created_at=iso(run.created_ns),
        finished_at=None if run.finished_ns is None else iso(run.finished_ns),
        symbols=run.symbols,
        timeframes=run.timeframes,
        risk_profiles=list(run.risk_profiles),
        start_date=run.start_date,
        end_date=run.end_date,
        persist_trades=run.persist_trades,
        progress=Progress(
            completed=view.completed,
            total=run.total_combinations,
            elapsed_seconds=_rounded(view.elapsed_seconds),
            seconds_left=None if view.seconds_left is None else _rounded(view.seconds_left),
        ),
        summary=summary if run.status == "completed" else None,
        error=error,
        notes=run.notes,
    )


def strategy_head(strategy: Strategy) -> StrategyHead:
    """Leave out the rules."""
    return StrategyHead(
        id=strategy.id,
        name=strategy.name,
        display_name=strategy.display_name,
        category=strategy.category,
        direction=strategy.direction,
        philosophy=strategy.philosophy,
        tags=list(strategy.tags),
    )


def feed_status(name: str, status: RecordStatus) -> FeedStatus:
    """Describe a feed at this moment."""
    return FeedStatus(
        name=name,
        connected=status.connected,
        rows=dict(status.rows),
        reconnects=status.reconnects,
        odd_messages=status.odd,
        backfilled_rows=status.backfilled,
        last_error=status.last_error,
    )


def milliseconds(time_ns: TsNs) -> int:
    """Write a time as Unix ms, rounded down."""
    return time_ns // NS_PER_MS


def iso(time_ns: TsNs) -> str:
    """Write a time as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(time_ns // NS_PER_SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def iso_ms(time_ns: TsNs) -> str:
    """Write a time as ISO 8601 in UTC, to the millisecond, rounded down."""
    return f"{iso(time_ns)[:-1]}.{time_ns // NS_PER_MS % 1_000:03d}Z"


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
