"""Routes of the client that already ships, where it asks for them: `/api/…`, without a version."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from daemon.api import answers
from daemon.api.rows import json_rows
from daemon.core.errors import Code, InvalidRequest, NotAvailable
from daemon.research.backtest_config.settings import TIMEFRAMES
from daemon.research.history import History, Query

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from daemon.store.bars import BarStore

_USUAL_INTERVAL: Final = "1m"


class SignalUpload(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`POST /api/signals/{source}`."""

    signals: list[dict[str, Any]]


class Uploaded(msgspec.Struct, frozen=True):
    """How many signals were taken."""

    uploaded: int


class Price(msgspec.Struct, frozen=True):
    """One bar of `GET /api/prices`. timestamp: Unix ms, when it starts."""

    timestamp: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class ShippingRoutes:
    """Handlers. report: answers `GET /api/v1/backtest/{backtest_id}/report`, whose file this client asks for here."""

    def __init__(self, bars: BarStore, report: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        self._bars = bars
        self._report = report

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/api/signals/{source}", self.signals),
            web.get("/api/backtest/{backtest_id}/report", self._report),
            web.get("/api/prices", self.prices),
        ]

    async def signals(self, request: web.Request) -> web.Response:
        """Refuse: nothing here takes signals yet."""
        answers.query(request)
        await answers.body(request, SignalUpload)
        raise NotAvailable(Code.NOT_AVAILABLE, "signals are not taken in this release: nothing would come of them")

    async def prices(self, request: web.Request) -> web.StreamResponse:
        """Stream bars of one series as a plain list."""
        given = answers.query(request, "symbol", "start", "end", "interval")
        if "symbol" not in given:
            raise InvalidRequest(Code.INVALID_REQUEST, "`symbol` says of which series", {"field": "symbol"})
        interval = given.get("interval", _USUAL_INTERVAL)
        query = Query(
            symbol=given["symbol"],
            timeframe=TIMEFRAMES.get(interval, interval),
            start=given.get("start"),
            end=given.get("end"),
        )
        history = await asyncio.to_thread(History, self._bars, query)
        return await answers.stream(request, json_rows(history), answers.JSON)
