"""The route of charts: a stretch of a series with as many points as a screen shows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from daemon.api import answers
from daemon.research.market_view import USUAL_POINTS, ViewQuery, market_view

if TYPE_CHECKING:
    from daemon.store.bars import BarStore


class ViewRoutes:
    """Handlers; each decodes, asks the store on a thread, and encodes."""

    def __init__(self, bars: BarStore) -> None:
        self._bars = bars

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/api/v1/data/view/{symbol}", self.view)]

    async def view(self, request: web.Request) -> web.Response:
        """Answer a series' points for a chart."""
        given = answers.query(request, "stream", "timeframe", "start", "end", "points")
        points = answers.whole(given, "points")
        given.pop("points", None)
        query = ViewQuery(
            symbol=request.match_info["symbol"], points=USUAL_POINTS if points is None else points, **given
        )

        def made() -> bytes:
            return msgspec.json.encode(market_view(self._bars, query))

        return web.Response(body=await asyncio.to_thread(made), content_type=answers.JSON)
