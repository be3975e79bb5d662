"""`backtest:*`: queue a backtest, watch it, read its result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from daemon.api.messages import BacktestAccepted
from daemon.api.protocol import Part, Request, method
from daemon.core.errors import Code
from daemon.research import backtest_formats as formats
from daemon.research.backtest_records import no_result
from daemon.research.backtest_result import BacktestResult, BacktestStatus, Priority, Status, Trade
from daemon.research.backtest_views import BacktestRows

if TYPE_CHECKING:
    from daemon.api.protocol import Call

_MOST_TRADES = 10_000


class BacktestRun(Request, frozen=True, kw_only=True):
    """A configuration, as docs/backtest-config.md describes it. name: instead of the strategy's."""

    config: dict[str, Any]
    priority: Priority = "normal"
    name: str | None = None


class BacktestId(Request, frozen=True, kw_only=True):
    """One backtest."""

    id: str


class BacktestsWanted(Request, frozen=True, kw_only=True):
    """Backtests of one status, or all; the newest first."""

    status: Status | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1_000


class TradesWanted(Request, frozen=True, kw_only=True):
    """A page of a backtest's trades. cursor: as the page before returned it."""

    id: str
    limit: Annotated[int, Meta(ge=1, le=_MOST_TRADES)] = 1_000
    cursor: str | None = None


class TradePage(Part, frozen=True, kw_only=True):
    """Some trades, and where the next are. Named as HTTP names them."""

    results: list[Trade]
    next_cursor: str | None = msgspec.field(name="next_cursor")


@method("backtest:run", Code.INVALID_CONFIGURATION, Code.MEMORY_BOUND_EXCEEDED, Code.BACKTEST_EXISTS, starts_job=True)
async def run(call: Call, request: BacktestRun) -> BacktestAccepted:
    """Queue a backtest; it lives on when the connection closes."""

    def submit() -> BacktestStatus:
        return call.services.backtests.submit(request.config, request.priority, name=request.name)

    queued = await asyncio.to_thread(submit)
    return BacktestAccepted(queued.id, queued.status, queued.priority)


@method("backtest:status", Code.BACKTEST_NOT_FOUND)
async def status(call: Call, request: BacktestId) -> BacktestStatus:
    """Tell how a backtest is doing."""
    return await asyncio.to_thread(call.services.backtests.status, request.id)


@method("backtest:results", Code.BACKTEST_NOT_FOUND, Code.BACKTEST_NOT_FINISHED)
async def results(call: Call, request: BacktestId) -> BacktestResult:
    """Return the whole result of a completed backtest."""
    state = await asyncio.to_thread(call.services.backtests.status, request.id)
    if state.status != "completed":
        raise no_result(state)

    def made() -> Any:
        # As it is stored, never as objects: a long result would hold the interpreter for too long.
        return msgspec.Raw(b"".join(formats.result_pieces(call.services.env, request.id)))

    return await asyncio.to_thread(made)


@method("backtest:cancel", Code.BACKTEST_NOT_FOUND, Code.BACKTEST_FINISHED)
async def cancel(call: Call, request: BacktestId) -> BacktestStatus:
    """End a backtest that is queued or running."""
    return await asyncio.to_thread(call.services.backtests.cancel, request.id)


@method("backtest:list")
async def listed(call: Call, request: BacktestsWanted) -> list[BacktestStatus]:
    """List backtests, the newest first."""
    found = await asyncio.to_thread(call.services.backtests.all, request.status)
    return found[: request.limit]


@method("backtest:trades", Code.BACKTEST_NOT_FOUND, Code.BACKTEST_NOT_FINISHED, Code.INVALID_CURSOR)
async def trades(call: Call, request: TradesWanted) -> TradePage:
    """Return a page of a completed backtest's trades."""
    state = await asyncio.to_thread(call.services.backtests.status, request.id)
    if state.status != "completed":
        raise no_result(state)

    def made() -> Any:
        rows = BacktestRows(call.services.env, request.id, "trades", limit=request.limit, cursor=request.cursor)
        return msgspec.Raw(b"".join(formats.json_list(rows)))

    return await asyncio.to_thread(made)
