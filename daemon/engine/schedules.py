"""How an order is best spread over time, and what a market maker asks of one who may know more.

Almgren and Chriss trade off the impact of haste against the risk of waiting; Kyle finds the price that makes informed
trading and market making an equilibrium. Both are closed forms. The optimal path is written there with hyperbolic
functions; `costs.optimal_shares` has it by a recurrence: the same numbers, without overflow for hasty traders, without
cancellation for patient ones, and rounded alike on any machine.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from daemon.engine.costs import optimal_shares

if TYPE_CHECKING:
    from daemon.core.market import Float64s


class Schedule(NamedTuple):
    """When to trade how much.

    kappa: urgency, per day; 0 without risk aversion. half_life_days: 1 / kappa, in which the holdings fall to 1/e of
    what they were while the end is far; infinite without risk aversion. holdings: (N + 1,) float64, shares left, from
    all to 0. trades: (N,) float64, shares, none larger than the one before. expected_cost, deviation: mean
    and standard deviation of the shortfall against the first price, quote currency.
    """

    kappa: float
    half_life_days: float
    holdings: Float64s
    trades: Float64s
    expected_cost: float
    deviation: float


def schedule(
    shares: float,
    *,
    days: float,
    intervals: int,
    volatility: float,
    half_spread: float,
    permanent: float,
    temporary: float,
    risk_aversion: float,
) -> Schedule:
    """Spread an order so that mean cost + risk_aversion x variance of the cost is least.

    shares: X, to buy or to sell. days, intervals: T in N equal parts, tau each. volatility: sigma, quote currency a
    share and sqrt(day). half_spread: epsilon, a share. permanent: gamma, a share and share. temporary: eta, a share
    and (share a day). risk_aversion: lambda, 1 / quote currency; 0 trades evenly, infinity all at once.
    ValueError where a number has no meaning, or eta <= gamma tau / 2: then haste would cost nothing.

    eta~ = eta - gamma tau / 2; kappa = acosh(lambda sigma^2 tau^2 / (2 eta~) + 1) / tau;
    x_j = X sinh(kappa (T - t_j)) / sinh(kappa T); E = gamma X^2 / 2 + epsilon X + eta~ / tau x sum n_j^2;
    V = sigma^2 tau x sum x_j^2.
    Source: Almgren and Chriss, Optimal Execution of Portfolio Transactions (2000), equations 8 and 14 to 20.
    """
    _check_positive(shares=shares, days=days, volatility=volatility, temporary=temporary)
    _check_not_negative(half_spread=half_spread, permanent=permanent)
    if intervals < 1:
        raise ValueError(f"intervals is {intervals}: at least 1")
    if not risk_aversion >= 0:
        raise ValueError(f"risk_aversion is {risk_aversion}: 0 or more")
    tau = days / intervals
    adjusted = temporary - permanent * tau / 2
    if adjusted <= 0:
        raise ValueError(
            f"temporary is {temporary}: it must exceed permanent x days / intervals / 2 = {permanent * tau / 2}; "
            "take more intervals or a smaller permanent impact"
        )
    urgency = risk_aversion * (volatility * tau) ** 2 / adjusted
    parts = optimal_shares(intervals, float(urgency))
    trades = shares * parts
    # What is left is summed from the end: small holdings keep their digits. All of them are there before the first.
    holdings = np.append(shares * np.cumsum(parts[::-1])[::-1], 0.0)
    holdings[0] = shares
    # acosh(1 + u / 2) = 2 asinh(sqrt(u / 4)), which keeps its digits where u is small.
    kappa = 2 * math.asinh(math.sqrt(urgency / 4)) / tau
    impact = adjusted / tau * math.fsum(np.square(trades).tolist())
    variance = volatility**2 * tau * math.fsum(np.square(holdings[1:]).tolist())
    return Schedule(
        kappa=kappa,
        half_life_days=1 / kappa if kappa else math.inf,
        holdings=holdings,
        trades=trades,
        expected_cost=permanent * shares**2 / 2 + half_spread * shares + impact,
        deviation=math.sqrt(variance),
    )


class KyleEquilibrium(NamedTuple):
    """The only linear equilibrium of one auction.

    impact: lambda, price a unit of order flow. intensity: beta, units the insider trades for each unit of price that
    he knows the market to be wrong by. posterior_variance: of the value, once the price is known; half of the prior.
    insider_profit: on average, quote currency; noise traders pay it.
    """

    impact: float
    intensity: float
    posterior_variance: float
    insider_profit: float


def kyle_equilibrium(variance: float, noise: float) -> KyleEquilibrium:
    """Solve one auction between an insider, noise traders and a market maker who breaks even.

    variance: Sigma_0 of the value before trading, price squared. noise: sigma_u, standard deviation of what noise
    traders want, units. Both positive and finite, ValueError otherwise.
    lambda = sqrt(Sigma_0) / (2 sigma_u), beta = sigma_u / sqrt(Sigma_0).
    Source: Kyle, Continuous Auctions and Insider Trading (1985), theorem 1.
    """
    _check_positive(variance=variance, noise=noise)
    deviation = math.sqrt(variance)
    return KyleEquilibrium(
        impact=deviation / (2 * noise),
        intensity=noise / deviation,
        posterior_variance=variance / 2,
        insider_profit=noise * deviation / 2,
    )


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"{name} is {number}: a finite number above 0")


def _check_not_negative(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 <= number < math.inf:
            raise ValueError(f"{name} is {number}: a finite number, 0 or more")
