"""`montecarlo:run`, `strategy:optimize`: what asks further of a backtest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from daemon.api.protocol import Request, method
from daemon.core.errors import Code, InvalidRequest
from daemon.research.backtest_config.flat import PARAMETER_FIELDS, is_flat
from daemon.research.backtest_records import stored_request, stored_statuses
from daemon.research.monte_carlo_records import MonteCarloRequest, Simulation
from daemon.research.optimization.request import MOST_POINTS, OptimizationRequest
from daemon.research.optimization.result import OptimizationStatus

if TYPE_CHECKING:
    from daemon.api.protocol import Call
    from daemon.api.services import Services


class OptimizationWanted(Request, frozen=True, kw_only=True):
    """What the app asks for.

    strategy_id: of the newest stored backtest of this strategy, whose configuration is varied; or config. Ranges are
    [low, high] by parameter, or as `POST /api/v1/optimize` has them. max_iterations: points at the most.
    """

    strategy_id: str | int | None = None
    config: dict[str, Any] | None = None
    parameter_ranges: dict[str, Any] = msgspec.field(default_factory=dict)
    optimization_target: str = "sharpe"
    max_iterations: Annotated[int, Meta(ge=1, le=MOST_POINTS)] = 100
    method: str = "optuna"
    seed: int = 1


@method("montecarlo:run", Code.BACKTEST_NOT_FOUND, Code.BACKTEST_NOT_FINISHED, Code.TOO_FEW_TRADES, starts_job=True)
async def monte_carlo(call: Call, request: MonteCarloRequest) -> Simulation:
    """Draw a completed backtest's trades again, and answer what came of it."""
    future = await asyncio.to_thread(call.services.monte_carlos.submit, request)
    return await asyncio.shield(asyncio.wrap_future(future))


@method("strategy:optimize", Code.INVALID_PARAMETER, Code.INVALID_CONFIGURATION, starts_job=True)
async def optimize(call: Call, request: OptimizationWanted) -> OptimizationStatus:
    """Queue an optimisation over parameter ranges."""

    def submit() -> OptimizationStatus:
        config = request.config if request.config is not None else _newest_config(call.services, request.strategy_id)
        # The app's ranges are [low, high]: two ends, where a list elsewhere is what may be tried.
        ranges = {
            _parameter(name, config): (
                {"low": each[0], "high": each[1]} if isinstance(each, list) and len(each) == 2 else each  # noqa: PLR2004
            )
            for name, each in request.parameter_ranges.items()
        }
        return call.services.optimizations.submit(
            OptimizationRequest(
                config=config,
                parameters=ranges,
                target=request.optimization_target,
                method=request.method,
                budget=request.max_iterations,
                seed=request.seed,
            )
        )

    return await asyncio.to_thread(submit)


def _parameter(name: str, config: dict[str, Any]) -> str:
    """Name a parameter as an optimisation does: the app's own lie inside of its configurations' `parameters`."""
    return f"parameters.{name}" if name in PARAMETER_FIELDS and is_flat(config) else name


def _newest_config(services: Services, strategy_id: str | int | None) -> dict[str, Any]:
    """Find the configuration that a strategy was last traded with; InvalidRequest INVALID_REQUEST."""
    if strategy_id is None:
        raise InvalidRequest(
            Code.INVALID_REQUEST, "give strategyId or config: what is to be varied", {"field": "config"}
        )
    with services.env.read() as transaction:
        for each in stored_statuses(transaction):
            config = stored_request(transaction, each.id).config
            strategy = config.get("strategy")
            named = [config.get("strategyId"), config.get("name"), each.name]
            if isinstance(strategy, dict):
                named += [strategy.get("strategyId"), strategy.get("name")]
            if str(strategy_id) in {str(name) for name in named if name is not None}:
                return config
    raise InvalidRequest(
        Code.INVALID_REQUEST,
        f"no backtest of strategy {str(strategy_id)[:60]} is stored, whose symbols and dates could be taken: run one "
        "first, or give `config`",
        {"field": "strategyId"},
    )
