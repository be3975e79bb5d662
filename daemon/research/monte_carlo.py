"""The Monte Carlo simulation of a result's trades, as users and the app read it."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from daemon.engine import montecarlo
from daemon.research.validation_result import ConfidenceInterval, Fan, MonteCarloMethod, MonteCarloResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.market import Float64s
    from daemon.engine.montecarlo import Method, MonteCarlo
    from daemon.engine.trades import Trades

_WORDS: Final[dict[Method, str]] = {
    "bootstrap": "as many trades, drawn in blocks from those that were",
    "shuffle": "the same trades in another order",
    "missed": "one trade in ten left out",
    "noise": "each trade with costs up to 50 % off and fills up to its costs better or worse",
}


def monte_carlo(
    trades: Trades,
    initial: float,
    *,
    runs: int,
    seed: int,
    confidence: float,
    checkpoint: Callable[[], None] = lambda: None,
) -> MonteCarloResult | None:
    """Disturb the trades of a run in every way; None without trades.

    A trade's return is its pnl over the capital and all pnl before it, in the order of exits; those after a ruin count
    for nothing.
    """
    returns, costs = of_trades(trades, initial)
    made: dict[Method, MonteCarlo] = {}
    for method in montecarlo.METHODS:
        one = montecarlo.simulate(
            returns,
            costs,
            runs=runs,
            seed=seed,
            method=method,
            confidence=confidence,
            threads=os.cpu_count() or 1,
            checkpoint=checkpoint,
        )
        if one is None:
            return None
        made[method] = one
    main = made["bootstrap"]
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


def of_trades(trades: Trades, initial: float) -> tuple[Float64s, Float64s]:
    """Return each trade's pnl and costs over the equity before it, up to a ruin: (n,) float64 each."""
    before = initial + np.concatenate(([0.0], np.cumsum(trades.pnl)[:-1]))[: trades.size]
    ruined = np.flatnonzero(before <= 0)
    count = int(ruined[0]) if ruined.size else trades.size
    costs = trades.entry_fees + trades.exit_fees + trades.entry_slippage + trades.exit_slippage
    return trades.pnl[:count] / before[:count], np.maximum(costs[:count], 0.0) / before[:count]


def _spread(one: MonteCarlo) -> dict[str, Any]:
    figures: dict[str, Any] = one.spread._asdict()
    figures["return_confidence_interval"] = ConfidenceInterval(**one.spread.return_confidence_interval._asdict())
    if not all(math.isfinite(value) for value in figures.values() if isinstance(value, float)):
        raise ValueError("a figure of the simulation is not finite")
    return figures
