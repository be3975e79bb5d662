"""`probe:*`, `strategies:*`: run the strategies over series, and list what came of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from daemon.api.messages import RunAccepted, RunStatus, StrategyHead, run_status, strategy_head
from daemon.api.protocol import Part, Request, method
from daemon.api.rows import listed_rows
from daemon.core.errors import Code
from daemon.research.combinations import CombinationMap, combination_map
from daemon.research.own.listing import OwnHead, listed
from daemon.research.plans import ProbeRequest
from daemon.research.views import Cursor, Filters, RunRows

if TYPE_CHECKING:
    from daemon.api.protocol import Call


class ProbeId(Request, frozen=True, kw_only=True):
    """One run."""

    run_id: str


class ResultsWanted(Request, frozen=True, kw_only=True):
    """A page of a run's groups, or of its trades; filters leave out the others."""

    run_id: str
    trades: bool = False
    symbol: str | None = None
    timeframe: str | None = None
    strategy_id: int | None = None
    risk_profile: str | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1_000
    cursor: str | None = None


class ResultPage(Part, frozen=True, kw_only=True):
    """Some rows, and where the next are; docs/probe.md names the fields."""

    results: list[dict[str, Any]]
    next_cursor: str | None = msgspec.field(name="next_cursor")


class CombinationsWanted(Request, frozen=True, kw_only=True):
    """Combinations of a run. symbol: only those of this instrument, as the run names it."""

    run_id: str
    symbol: str | None = None


class OwnWanted(Request, frozen=True, kw_only=True):
    """Strategies written in Python. given: copies of files that runs were given, instead of the folder's own."""

    given: bool = False


class StrategiesWanted(Request, frozen=True, kw_only=True):
    """Strategies of a category, or all."""

    category: str | None = None


@method("probe:run", Code.NO_BARS, Code.RUN_CONFLICT, starts_job=True)
async def run(call: Call, request: ProbeRequest) -> RunAccepted:
    """Start a probe run, or go on with one."""
    started, seconds = await asyncio.to_thread(call.services.runs.submit, request)
    return RunAccepted(started.run_id, "queued", started.total_combinations, seconds)


@method("probe:status", Code.RUN_NOT_FOUND)
async def status(call: Call, request: ProbeId) -> RunStatus:
    """Tell how a probe run is doing."""
    return run_status(await asyncio.to_thread(call.services.runs.get, request.run_id))


@method("probe:results", Code.RUN_NOT_FOUND, Code.INVALID_CURSOR)
async def results(call: Call, request: ResultsWanted) -> ResultPage:
    """Return a page of what a probe run has stored."""

    def made() -> Any:
        view = call.services.runs.get(request.run_id)
        filters = Filters(
            symbol=request.symbol,
            timeframe=request.timeframe,
            strategy_id=request.strategy_id,
            risk_profile=request.risk_profile,
        )
        rows = RunRows(call.services.env, view.run, call.services.book, filters)
        start = None if request.cursor is None else Cursor.decode(request.cursor)
        blocks = rows.trades(start, request.limit) if request.trades else rows.groups(start, request.limit)
        return msgspec.Raw(b"".join(listed_rows(rows, blocks)))

    return await asyncio.to_thread(made)


@method("probe:combinations", Code.RUN_NOT_FOUND)
async def combinations(call: Call, request: CombinationsWanted) -> CombinationMap:
    """Rank a run's combinations, each told from luck or not, corrected for the whole run."""

    def made() -> Any:
        run = call.services.runs.get(request.run_id).run
        return msgspec.Raw(
            msgspec.json.encode(combination_map(call.services.env, run, call.services.book, request.symbol))
        )

    return await asyncio.to_thread(made)


@method("strategies:list")
async def strategies(call: Call, request: StrategiesWanted) -> list[StrategyHead]:
    """List strategies without their rules."""
    return [strategy_head(each) for each in call.services.book.of_category(request.category)]


@method("strategies:own", Code.STRATEGY_FOLDER_UNSAFE)
async def own_strategies(call: Call, request: OwnWanted) -> list[OwnHead]:
    """List the strategies of the strategy folder, and what each declares."""
    folder = call.services.book.own
    return [] if folder is None else await asyncio.to_thread(listed, folder, given=request.given)
