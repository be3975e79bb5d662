"""Almgren and Chriss as the paper has it: hyperbolic sines, and a search over all paths for the best."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def holdings(shares: float, days: float, intervals: int, kappa: float) -> list[float]:
    """x_j = X sinh(kappa (T - t_j)) / sinh(kappa T); a straight line for kappa 0."""
    if kappa == 0:
        return [shares * (intervals - j) / intervals for j in range(intervals + 1)]
    tau = days / intervals
    return [shares * math.sinh(kappa * (days - j * tau)) / math.sinh(kappa * days) for j in range(intervals + 1)]


def cost_and_variance(
    path: Sequence[float], days: float, *, volatility: float, half_spread: float, permanent: float, temporary: float
) -> tuple[float, float]:
    """Walk a path: each interval's trade pays half the spread and its impact, what is left bears the risk.

    The price that the k-th trade gets was moved permanently by the trades before it, temporarily by itself.
    """
    tau = days / (len(path) - 1)
    cost = variance = 0.0
    for before, after in pairwise(path):
        traded = before - after
        cost += permanent * traded * after + traded * (half_spread + temporary * traded / tau)
        variance += volatility**2 * tau * after**2
    return cost, variance
