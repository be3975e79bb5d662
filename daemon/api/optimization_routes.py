"""Routes of optimisations: start, watch, read, cancel, resume, delete."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, get_args

from aiohttp import web

from daemon.api import answers, messages
from daemon.research.backtest_result import Status
from daemon.research.optimization import views
from daemon.research.optimization.request import OptimizationRequest

if TYPE_CHECKING:
    from daemon.research.optimization.result import OptimizationStatus
    from daemon.research.optimizations import Optimizations
    from daemon.store.env import Environment

_BASE: Final = "/api/v1/optimize"
_REPORTS: Final = ("json", "csv", "html")


class OptimizationRoutes:
    """Handlers; each decodes, asks the service on a thread, and encodes."""

    def __init__(self, env: Environment, optimizations: Optimizations) -> None:
        self._env = env
        self._optimizations = optimizations

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        one = _BASE + "/{optimization_id}"
        return [
            web.post(_BASE, self.start),
            web.get(_BASE, self.all),
            web.get(one, self.result),
            web.delete(one, self.delete),
            web.get(f"{one}/status", self.status),
            web.post(f"{one}/cancel", self.cancel),
            web.post(f"{one}/resume", self.resume),
            web.get(f"{one}/points", self.points),
            web.get(f"{one}/report", self.report),
        ]

    async def start(self, request: web.Request) -> web.Response:
        """Queue an optimisation."""
        answers.query(request)
        wanted = await answers.body(request, OptimizationRequest)
        return answers.answer(await asyncio.to_thread(self._optimizations.submit, wanted), status=202)

    async def all(self, request: web.Request) -> web.Response:
        """List optimisations, the newest first."""
        given = answers.query(request, "status", "limit", "cursor")
        status = answers.one_of(given["status"], "status", get_args(Status)) if "status" in given else None
        found = await asyncio.to_thread(self._optimizations.all)
        page, cursor = answers.page_after(
            [each for each in found if status in (None, each.status)], given, lambda each: each.id
        )
        return answers.answer(messages.OptimizationList(page, cursor))

    async def result(self, request: web.Request) -> web.Response:
        """Answer the result of a completed optimisation, else how it is doing."""
        answers.query(request)
        status = await self._status(request)
        if status.status != "completed":
            return answers.answer(status)
        return answers.answer(await asyncio.to_thread(self._optimizations.result, status.id))

    async def status(self, request: web.Request) -> web.Response:
        """Tell how an optimisation is doing."""
        answers.query(request)
        return answers.answer(await self._status(request))

    async def cancel(self, request: web.Request) -> web.Response:
        """End an optimisation that is queued or running; its points are kept."""
        answers.query(request)
        return answers.answer(await asyncio.to_thread(self._optimizations.cancel, _id(request)))

    async def resume(self, request: web.Request) -> web.Response:
        """Go on with one that was cancelled or failed."""
        answers.query(request)
        return answers.answer(await asyncio.to_thread(self._optimizations.resume, _id(request)), status=202)

    async def delete(self, request: web.Request) -> web.Response:
        """Remove one that has ended."""
        answers.query(request)
        await asyncio.to_thread(self._optimizations.delete, _id(request))
        return web.Response(status=204)

    async def points(self, request: web.Request) -> web.StreamResponse:
        """Stream the points that are stored so far, in the order in which they were tried."""
        form = answers.one_of(answers.query(request, "format").get("format", "json"), "format", ("json", "csv"))
        pieces = views.points_csv if form == "csv" else views.points_json
        status = await self._status(request)
        media_type = answers.CSV if form == "csv" else answers.JSON
        return await answers.stream(request, pieces(self._env, status.id), media_type)

    async def report(self, request: web.Request) -> web.StreamResponse:
        """Hand out the result, the points or a page as a file."""
        form = answers.one_of(answers.query(request, "format").get("format", "html"), "format", _REPORTS)
        found = await asyncio.to_thread(self._optimizations.result, _id(request))
        headers = answers.attachment(f"optimization-{found.id}.{form}")
        if form == "csv":
            return await answers.stream(request, views.points_csv(self._env, found.id), answers.CSV, headers)
        if form == "json":
            return await answers.stream(request, views.result_json(found), answers.JSON, headers)
        return await answers.stream(request, views.page(found), "text/html; charset=utf-8", headers)

    async def _status(self, request: web.Request) -> OptimizationStatus:
        return await asyncio.to_thread(self._optimizations.status, _id(request))


def _id(request: web.Request) -> str:
    return request.match_info["optimization_id"]
