"""The Monte Carlo simulation of a result's trades, as users and the app read it.

This is where numba is loaded, so only workers import this module; what is asked and stored is in `monte_carlo_records`.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from daemon.engine import montecarlo
from daemon.engine.chunks import nothing
from daemon.research.validation_result import ConfidenceInterval, Fan, MonteCarloMethod, MonteCarloResult
from daemon.store import backtests as tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.market import Float64s
    from daemon.engine.montecarlo import Method, MonteCarlo
    from daemon.engine.trades import Trades
    from daemon.research.monte_carlo_records import MonteCarloJob
    from daemon.store.env import Environment

_WORDS: Final[dict[Method, str]] = {
    "bootstrap": "as many trades, drawn in blocks from those that were",
    "shuffle": "the same trades in another order",
    "missed": "one trade in ten left out",
    "noise": "each trade with costs up to 50 % off and fills up to its costs better or worse",
}
_MAIN: Final[Method] = "bootstrap"
"""Whose paths are shown."""

_COSTS: Final = ("entry_fees", "exit_fees", "entry_slippage", "exit_slippage")


def monte_carlo(
    trades: Trades,
    initial: float,
    *,
    runs: int,
    seed: int,
    confidence: float,
    checkpoint: Callable[[], None] = nothing,
) -> MonteCarloResult | None:
    """Disturb the trades of a run in every way, as `simulated` does; None without trades."""
    returns, costs = fractions(trades.pnl, sum_of_costs(trades._asdict()), initial)
    return simulated(returns, costs, runs=runs, seed=seed, confidence=confidence, checkpoint=checkpoint)


def monte_carlo_stored(env: Environment, job: MonteCarloJob, checkpoint: Callable[[], None]) -> MonteCarloResult | None:
    """Disturb the stored trades of a backtest; None without trades. StoreCorrupt where they are damaged."""
    pnl, costs = [np.empty(0)], [np.empty(0)]
    with env.read() as transaction:
        for stored in tables.read(transaction, job.backtest_id, "trades"):
            checkpoint()
            pnl.append(stored["pnl"])
            costs.append(sum_of_costs(stored))
    returns, shares = fractions(np.concatenate(pnl), np.concatenate(costs), job.initial)
    del pnl, costs
    asked = job.request
    return simulated(
        returns,
        shares,
        runs=asked.runs,
        seed=asked.seed,
        confidence=asked.confidence_level,
        block=asked.block,
        checkpoint=checkpoint,
    )


def simulated(
    returns: Float64s,
    costs: Float64s,
    *,
    runs: int,
    seed: int,
    confidence: float,
    block: float | None = None,
    checkpoint: Callable[[], None] = nothing,
) -> MonteCarloResult | None:
    """Disturb trades in every way; None without trades. returns, costs: of `fractions`; the rest as of the engine."""
    made: dict[Method, MonteCarlo] = {}
    for method in montecarlo.METHODS:
        one = montecarlo.simulate(
            returns,
            costs,
            runs=runs,
            seed=seed,
            method=method,
            block=block,
            confidence=confidence,
            fan_paths=montecarlo.FAN_PATHS if method == _MAIN else 0,
            threads=os.cpu_count() or 1,
            checkpoint=checkpoint,
        )
        if one is None:
            return None
        made[method] = one
    main = made[_MAIN]
    return MonteCarloResult(
        runs=runs,
        seed=seed,
        trades=main.trades,
        block_length=main.block_length,
        ruin_level=montecarlo.RUIN_LEVEL,
        sample_paths=main.sample_paths.tolist(),
        fan=Fan(**{name: column.tolist() for name, column in main.fan._asdict().items()}),
        methods=[MonteCarloMethod(method=method, words=_WORDS[method], **_spread(one)) for method, one in made.items()],
        **_spread(main),
    )


def sum_of_costs(columns: dict[str, Any]) -> Float64s:
    """Return what each trade cost in fees and slippage, quote currency; columns: of trades, by name."""
    total: Float64s = sum(columns[name] for name in _COSTS)
    return total


def fractions(pnl: Float64s, costs: Float64s, initial: float) -> tuple[Float64s, Float64s]:
    """Return each trade's pnl and costs over the equity before it, up to a ruin: (n,) float64 each.

    pnl, costs: (n,) float64, quote currency, in the order of exits. The equity before a trade is the initial capital
    and all pnl before; trades after a ruin count for nothing. Costs below 0 count as none.
    """
    before = initial + np.concatenate(([0.0], np.cumsum(pnl)[:-1]))[: pnl.size]
    ruined = np.flatnonzero(before <= 0)
    count = int(ruined[0]) if ruined.size else pnl.size
    return pnl[:count] / before[:count], np.maximum(costs[:count], 0.0) / before[:count]


def _spread(one: MonteCarlo) -> dict[str, Any]:
    figures: dict[str, Any] = one.spread._asdict()
    figures["return_confidence_interval"] = ConfidenceInterval(**one.spread.return_confidence_interval._asdict())
    if not all(math.isfinite(value) for value in figures.values() if isinstance(value, float)):
        raise ValueError("a figure of the simulation is not finite")
    return figures
