"""Routes of calibrations: fit a symbol's impact parameters on its stored trades, and show them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from daemon.api import answers
from daemon.research.calibration import CalibrationRequest, calibrate, stored_calibration

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
