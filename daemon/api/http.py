"""The HTTP interface: routes, their guards, and the one table from errors to statuses.

Loopback is no authentication: a page in the user's browser can send requests here. So the Host header must name this
machine (a rebound DNS name does not), and a body must be JSON (a form cannot send that without a preflight, which is
never granted). What all routes do alike is in `answers`, the routes of stored market data are in `data_routes`, those
of backtests in `backtest_routes`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

import daemon
from daemon.api import answers, messages
from daemon.api.backtest_routes import BacktestRoutes
from daemon.api.calibration_routes import CalibrationRoutes
from daemon.api.data_routes import DataRoutes
from daemon.api.montecarlo_routes import MonteCarloRoutes
from daemon.api.optimization_routes import OptimizationRoutes
from daemon.api.rows import listed_rows
from daemon.api.services import Services
from daemon.api.trial_routes import TrialRoutes
from daemon.core import errors
from daemon.core.errors import AtlasError, Code, InvalidRequest
from daemon.core.market import Timeframe
from daemon.ingest import uploads
from daemon.ingest.bars import import_bars
from daemon.ingest.funding import import_funding
from daemon.ingest.ticks import TickUpload, store_upload
from daemon.research.plans import ProbeRequest, parse_timeframe
from daemon.research.runs import SPOOL_FOLDER
from daemon.research.views import Cursor, Filters, RunRows
from daemon.store.instruments import parse_instrument

if TYPE_CHECKING:
    from daemon.api.settings import HttpConfig

_log = logging.getLogger(__name__)

_LOCAL_HOSTS: Final = ("127.0.0.1", "[::1]", "localhost")

STATUSES: Final[dict[type[AtlasError], int]] = {
    errors.InvalidRequest: 400,
    errors.SourceDataInvalid: 400,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.SourceUnavailable: 503,
    errors.StoreFull: 507,
    errors.StoreCorrupt: 500,
    errors.JobFailed: 500,
    errors.ConfigError: 500,
}

# What the framework refuses by itself.
_REFUSALS: Final = {
    404: (Code.ROUTE_NOT_FOUND, "no such route: docs/http.md lists them"),
    405: (Code.METHOD_NOT_ALLOWED, "this route does not take this method"),
    413: (Code.BODY_TOO_LARGE, "the body is larger than http.max_body_kb allows"),
}


class _Routes:
    """Handlers; each decodes, asks a service on a thread, and encodes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._started_s = time.monotonic()

    def table(self) -> list[web.RouteDef]:
        return [
            web.get("/health", self.health),
            web.get("/api/v1/health", self.health),
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

    async def health(self, request: web.Request) -> web.Response:
        answers.query(request)
        uptime = int(time.monotonic() - self._started_s)
        return answers.answer(messages.Health("ok", daemon.__version__, len(self._services.book), uptime))

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
    app = web.Application(
        middlewares=[_errors, _guard(services.config)], client_max_size=services.config.max_body_kb * 1024
    )
    app.add_routes(_Routes(services).table())
    app.add_routes(DataRoutes(services.bars).table())
    app.add_routes(BacktestRoutes(services.bars, services.backtests).table())
    app.add_routes(CalibrationRoutes(services.bars).table())
    app.add_routes(OptimizationRoutes(services.env, services.optimizations).table())
    app.add_routes(MonteCarloRoutes(services.monte_carlos).table())
    app.add_routes(TrialRoutes(services.env).table())
    return app


# Guards.


def _guard(config: HttpConfig) -> Any:
    allowed = {*_LOCAL_HOSTS, *(host.lower() for host in config.allowed_hosts)}

    @web.middleware
    async def guard(request: web.Request, handler: Any) -> web.StreamResponse:
        host = request.headers.get("Host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name not in allowed:
            raise errors.Forbidden(
                Code.HOST_NOT_ALLOWED,
                "the Host header names another machine; http.allowed_hosts lets more in",
            )
        if request.method in ("POST", "PUT", "PATCH") and request.content_type != answers.JSON:
            raise web.HTTPUnsupportedMediaType
        response: web.StreamResponse = await handler(request)
        return response

    return guard


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Turn every failure into the one error body."""
    try:
        response: web.StreamResponse = await handler(request)
    except AtlasError as error:
        status = next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
        return answers.refuse(status, error.code, error.message, error.details)
    except web.HTTPUnsupportedMediaType:
        return answers.refuse(415, Code.UNSUPPORTED_MEDIA_TYPE, f"the body must be {answers.JSON}")
    except web.HTTPException as error:
        code, message = _REFUSALS.get(error.status, (Code.INVALID_REQUEST, error.reason))
        return answers.refuse(error.status, code, message)
    except (asyncio.CancelledError, ConnectionResetError):
        raise
    except Exception:  # noqa: BLE001 - the boundary: a defect answers 500 and is logged
        _log.exception("%s %s failed", request.method, request.path)
        return answers.refuse(500, Code.INTERNAL, "the daemon failed on this request; its log has the details")
    return response
