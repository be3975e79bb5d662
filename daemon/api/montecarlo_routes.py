"""Routes of Monte Carlo simulations: draw a completed backtest's trades again, and show what came of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from daemon.api import answers
from daemon.research.monte_carlo_records import request_of

if TYPE_CHECKING:
    from daemon.research.monte_carlo_records import Simulation
    from daemon.research.monte_carlos import MonteCarlos


class MonteCarloRoutes:
    """Handlers; each decodes, asks the service on a thread, and encodes there too: paths are long."""

    def __init__(self, monte_carlos: MonteCarlos) -> None:
        self._monte_carlos = monte_carlos

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/api/v1/montecarlo", self.simulate),
            web.get("/api/v1/montecarlo/{backtest_id}", self.simulation),
        ]

    async def simulate(self, request: web.Request) -> web.Response:
        """Have a worker simulate, and answer once it has."""
        answers.query(request)
        wanted = request_of(await answers.body(request, dict[str, Any]))
        future = await asyncio.to_thread(self._monte_carlos.submit, wanted)
        simulation = await asyncio.shield(asyncio.wrap_future(future))
        return await _answered(simulation)

    async def simulation(self, request: web.Request) -> web.Response:
        """Answer the simulation that was asked for last."""
        answers.query(request)
        return await _answered(await asyncio.to_thread(self._monte_carlos.find, request.match_info["backtest_id"]))


async def _answered(simulation: Simulation) -> web.Response:
    body = await asyncio.to_thread(msgspec.json.encode, simulation)
    return web.Response(body=body, content_type=answers.JSON)
