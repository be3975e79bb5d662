"""Routes of calibrations: a symbol's impact parameters and its feed latency, found on its stored ticks, and shown."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from daemon.api import answers
from daemon.research.calibration import CalibrationRequest, calibrate, stored_calibration
from daemon.research.latency_calibration import LatencyRequest, calibrate_latency, stored_latency

if TYPE_CHECKING:
    from daemon.store.bars import BarStore


class CalibrationRoutes:
    """Handlers; each decodes, works on a thread, and encodes."""

    def __init__(self, bars: BarStore) -> None:
        self._bars = bars

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/api/v1/calibrate", self.calibrate),
            web.get("/api/v1/calibration/{symbol}", self.calibration),
            web.post("/api/v1/calibrate/latency", self.calibrate_latency),
            web.get("/api/v1/calibration/{symbol}/latency", self.latency),
        ]

    async def calibrate(self, request: web.Request) -> web.Response:
        """Fit and store a symbol's parameters; answers them."""
        answers.query(request)
        wanted = await answers.body(request, CalibrationRequest)
        return answers.answer(await asyncio.to_thread(calibrate, self._bars, wanted))

    async def calibration(self, request: web.Request) -> web.Response:
        """Show a symbol's parameters as they were last fitted."""
        answers.query(request)
        return answers.answer(await asyncio.to_thread(stored_calibration, self._bars, request.match_info["symbol"]))

    async def calibrate_latency(self, request: web.Request) -> web.Response:
        """Measure and store a symbol's feed latency; answers it in figures."""
        answers.query(request)
        wanted = await answers.body(request, LatencyRequest)
        return answers.answer(await asyncio.to_thread(calibrate_latency, self._bars, wanted))

    async def latency(self, request: web.Request) -> web.Response:
        """Show a symbol's feed latency as it was last measured."""
        answers.query(request)
        return answers.answer(await asyncio.to_thread(stored_latency, self._bars, request.match_info["symbol"]))
