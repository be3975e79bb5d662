"""The HTTP interface: its routes.

Who gets to them is in `guard`, what all of them do alike in `answers`, how they refuse in `refusals`; the routes of
stored market data are in `data_routes`, those of backtests in `backtest_routes`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from daemon.api import answers, guard, messages
from daemon.api.backtest_routes import BacktestRoutes
from daemon.api.calibration_routes import CalibrationRoutes
from daemon.api.console_routes import ConsoleRoutes
from daemon.api.data_routes import DataRoutes
from daemon.api.deadline import telling_deadline
from daemon.api.montecarlo_routes import MonteCarloRoutes
from daemon.api.operation_routes import Operations
from daemon.api.optimization_routes import OptimizationRoutes
from daemon.api.refusals import refusing
from daemon.api.rows import listed_rows
from daemon.api.rpc_routes import RpcRoutes
from daemon.api.services import Services
from daemon.api.session_routes import SessionRoutes
from daemon.api.shipping_routes import ShippingRoutes
from daemon.api.trial_routes import TrialRoutes
from daemon.api.view_routes import ViewRoutes
from daemon.api.ws import Sockets
from daemon.core.errors import Code, InvalidRequest
from daemon.core.market import Timeframe
from daemon.ingest import uploads
from daemon.ingest.bars import import_bars
from daemon.ingest.funding import import_funding
from daemon.ingest.ticks import TickUpload, store_upload
from daemon.research.plans import ProbeRequest, parse_timeframe
from daemon.research.runs import SPOOL_FOLDER
from daemon.research.views import Cursor, Filters, RunRows
from daemon.store.instruments import parse_instrument


class _Routes:
    """Handlers; each decodes, asks a service on a thread, and encodes."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def table(self) -> list[web.RouteDef]:
        return [
            web.post("/api/v1/runs", self.start_run),
            web.get("/api/v1/runs", self.list_runs),
            web.get("/api/v1/runs/{run_id}", self.run_status),
            web.delete("/api/v1/runs/{run_id}", self.end_run),
            web.get("/api/v1/runs/{run_id}/results", self.run_results),
            web.get("/api/v1/runs/{run_id}/trades", self.run_trades),
            web.get("/api/v1/strategies", self.list_strategies),
            web.get("/api/v1/strategies/{strategy_id}", self.strategy),
            web.get("/api/v1/feeds", self.feeds),
            web.post("/api/v1/imports", self.import_upload),
            web.post("/api/v1/imports/ticks", self.import_ticks),
            web.post("/api/v1/imports/funding", self.import_funding),
        ]

    async def start_run(self, request: web.Request) -> web.Response:
        probe = await answers.body(request, ProbeRequest)
        run, seconds = await asyncio.to_thread(self._services.runs.submit, probe)
        accepted = messages.RunAccepted(run.run_id, "queued", run.total_combinations, seconds)
        return answers.answer(accepted, status=202)

    async def list_runs(self, request: web.Request) -> web.Response:
        query = answers.query(request, "limit", "cursor")
        views = await asyncio.to_thread(self._services.runs.all)
        page, cursor = answers.page_after(views, query, lambda view: view.run.run_id)
        return answers.answer(messages.RunList([messages.run_status(view) for view in page], cursor))

    async def run_status(self, request: web.Request) -> web.Response:
        answers.query(request)
        view = await asyncio.to_thread(self._services.runs.get, request.match_info["run_id"])
        return answers.answer(messages.run_status(view))

    async def end_run(self, request: web.Request) -> web.Response:
        """Cancel an active run; with `purge=1` remove a finished one."""
        purge = answers.flag(answers.query(request, "purge"), "purge")
        run_id = request.match_info["run_id"]
        if purge:
            await asyncio.to_thread(self._services.runs.delete, run_id)
            return web.Response(status=204)
        await asyncio.to_thread(self._services.runs.cancel, run_id)
        view = await asyncio.to_thread(self._services.runs.get, run_id)
        return answers.answer(messages.run_status(view))

    async def run_results(self, request: web.Request) -> web.StreamResponse:
        return await self._rows(request, trades=False)

    async def run_trades(self, request: web.Request) -> web.StreamResponse:
        return await self._rows(request, trades=True)

    async def _rows(self, request: web.Request, *, trades: bool) -> web.StreamResponse:
        names = ["symbol", "timeframe", "strategy_id", "risk_profile", "limit", "cursor"]
        query = answers.query(request, *names, *(["justify"] if trades else []))
        filters = Filters(
            symbol=query.get("symbol"),
            timeframe=query.get("timeframe"),
            strategy_id=answers.whole(query, "strategy_id"),
            risk_profile=query.get("risk_profile"),
        )
        start = Cursor.decode(query["cursor"]) if "cursor" in query else None
        limit = answers.limit(query)
        view = await asyncio.to_thread(self._services.runs.get, request.match_info["run_id"])
        rows = RunRows(self._services.env, view.run, self._services.book, filters)
        justify = answers.flag(query, "justify")
        blocks = rows.trades(start, limit, justify=justify) if trades else rows.groups(start, limit)
        return await answers.stream(request, listed_rows(rows, blocks), answers.JSON)

    async def list_strategies(self, request: web.Request) -> web.Response:
        category = answers.query(request, "category").get("category")
        heads = [messages.strategy_head(strategy) for strategy in self._services.book.of_category(category)]
        return answers.answer(messages.StrategyList(heads, None))

    async def strategy(self, request: web.Request) -> web.Response:
        answers.query(request)
        text = request.match_info["strategy_id"]
        if not (text.isascii() and text.isdigit() and len(text) <= 5):  # noqa: PLR2004 - ids end at 65535
            raise InvalidRequest(Code.INVALID_STRATEGY, f"strategy id `{text[:20]}` is not a number")
        return answers.answer(self._services.book.get(int(text)))

    async def feeds(self, request: web.Request) -> web.Response:
        answers.query(request)
        told = [messages.feed_status(*each) for each in self._services.feeds()]
        return answers.answer(messages.FeedList(told))

    async def import_upload(self, request: web.Request) -> web.Response:
        wanted = await answers.body(request, messages.ImportRequest)
        instrument = parse_instrument(f"{wanted.venue}:{wanted.symbol}")
        timeframe: Timeframe = parse_timeframe(wanted.timeframe)

        def store() -> Any:
            env, bars = self._services.env, self._services.bars
            table = uploads.take(env.path.parent / SPOOL_FOLDER, wanted.upload, wanted.notes)
            return import_bars(
                env,
                bars,
                table,
                instrument,
                timeframe,
                wanted.source,
                origin=wanted.origin,
                replace=wanted.replace,
                volume_unit=wanted.volume_unit,
            )

        return answers.answer(await asyncio.to_thread(store))

    async def import_ticks(self, request: web.Request) -> web.Response:
        upload = await answers.body(request, TickUpload)
        instrument = parse_instrument(f"{upload.venue}:{upload.symbol}")
        wanted = msgspec.structs.replace(upload, venue=instrument.venue, symbol=instrument.symbol)
        folder = self._services.env.path.parent / SPOOL_FOLDER
        return answers.answer(await asyncio.to_thread(store_upload, self._services.ticks, folder, wanted))

    async def import_funding(self, request: web.Request) -> web.Response:
        wanted = await answers.body(request, messages.FundingImport)
        instrument = parse_instrument(f"{wanted.venue}:{wanted.symbol}")

        def store() -> Any:
            env = self._services.env
            table = uploads.take_funding(env.path.parent / SPOOL_FOLDER, wanted.upload, wanted.notes)
            return import_funding(env, table, instrument, wanted.source, replace=wanted.replace)

        return answers.answer(await asyncio.to_thread(store))


def application(services: Services) -> web.Application:
    """Build the web application; it owns none of the services."""
    sockets = Sockets(services)
    operations = Operations(services, sockets)
    app = web.Application(
        middlewares=[telling_deadline, operations.middleware(), refusing],
        client_max_size=services.config.max_body_kb * 1024,
    )
    guard.install(app, services)
    app.add_routes(_Routes(services).table())
    app.add_routes(SessionRoutes(services.access).table())
    app.add_routes(ConsoleRoutes().table())
    app.add_routes(DataRoutes(services.bars).table())
    app.add_routes(ViewRoutes(services.bars).table())
    backtests = BacktestRoutes(services.bars, services.backtests)
    app.add_routes(backtests.table())
    app.add_routes(ShippingRoutes(services.bars, backtests.report).table())
    app.add_routes(CalibrationRoutes(services.bars).table())
    app.add_routes(OptimizationRoutes(services.env, services.optimizations).table())
    app.add_routes(MonteCarloRoutes(services.monte_carlos).table())
    app.add_routes(TrialRoutes(services.env).table())
    app.add_routes(RpcRoutes(services).table())
    operations.install(app)
    sockets.install(app)
    return app
