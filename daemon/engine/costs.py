"""What a fill costs beyond the price that the market showed: slippage models and fees.

Slippage is a fraction of the reference price, adverse to the order, in two parts: half of the spread, and impact.

| model | impact | needs | cap on the bar's volume |
|-|-|-|-|
| none | 0, and no half spread | nothing | none |
| fixed_bps | bps / 10,000, and no half spread | nothing | none |
| volume_weighted | impact x (q / v)^2 | v: volume of the bar | 2.5 % |
| square_root | y x sigma x sqrt(q / V) | sigma, V: daily volatility and volume before the order | 10 % |
| almgren_2005 | gamma/2 x sigma x (q/V) x (Theta/V)^(1/4) + eta x sigma x (q / (V T))^(3/5) | sigma, V | 10 % |
| almgren_chriss | gamma/2 x q/V + (eta - gamma tau/2) / tau x q/V x sum of squared shares | sigma, V | 10 % |
| kyle | y/2 x sigma x q/V | sigma, V | 10 % |
| order_book | mean of the levels taken / mid - best / mid | the book at the bar's start | what its levels hold |

almgren_chriss sells q in N intervals of tau = T/N days, as is optimal for a risk aversion: see `optimal_shares`. Where
gamma and eta are not given, 10 % of a day's volume move the price by one spread, and each 1 % a day costs one.
kyle: the order moves the price by y sigma q/V and walks from the reference to there, so that it pays half of that on
average; in Kyle's single auction, where all orders get the price that they make, it would pay the whole.
order_book: half of the spread is best / mid - 1 of the side that is taken, see `ladders`.

The cap is the share of the bar's volume that orders may take; what is above it waits for the next bar. Sources:
volume_weighted is the volume-share model that zipline made known (its 0.1 and 2.5 % are the defaults); square_root the
law of Barra's handbook (1997), tested by Toth and others (2011), Y of order 1; almgren_2005 Almgren, Thum, Hauptmann
and Li, "Direct Estimation of Equity Market Impact" (2005), with the coefficients of its constrained fit. almgren_chriss
Almgren and Chriss, "Optimal Execution of Portfolio Transactions" (2000); kyle Kyle, "Continuous Auctions and Insider
Trading" (1985), whose lambda is y sigma / V times the price. Powers are taken by square roots and a fifth root that
rounds alike everywhere, and hyperbolic sines by the recurrence that they satisfy, so that a result is the same on any
machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.core import backtest
from daemon.engine.jit import kernel
from daemon.engine.ladders import MOST_LEVELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.backtest import Costs, Slippage
    from daemon.core.market import Float64s

Records = NDArray[Any]

NONE: Final = 0
FIXED: Final = 1
VOLUME_WEIGHTED: Final = 2
SQUARE_ROOT: Final = 3
ALMGREN: Final = 4
ALMGREN_CHRISS: Final = 5
KYLE: Final = 6
ORDER_BOOK: Final = 7

COSTS: Final = np.dtype(
    [
        ("maker_rate", "f8"),
        ("taker_rate", "f8"),
        ("fixed_fee", "f8"),
        ("model", "i8"),
        ("half_spread", "f8"),  # fraction of the price
        ("first", "f8"),  # impact, y, gamma or the constant
        ("second", "f8"),  # eta
        ("turnover_root", "f8"),  # (Theta / V)^(1/4)
        ("execution_days", "f8"),
        ("slices", "i8"),
        ("risk_aversion", "f8"),  # times the worth of a day's volume
        ("participation_cap", "f8"),  # of the bar's volume, infinite for none
        ("scale", "f8"),
        ("book_levels", "i8", (2,)),  # of order_book: asks and bids, as `ladders.open_book` lays them in at each bar
        ("book_sizes", "f8", (2, MOST_LEVELS)),
        ("book_distances", "f8", (2, MOST_LEVELS)),
    ]
)
"""Costs as kernels take them, a record a symbol."""

# No model is meant for orders that move the price by half.
MAX_SLIPPAGE: Final = 0.5
_BPS: Final = 1e-4


def record_of(costs: Costs, slippages: Sequence[Slippage], bar_days: float) -> Records:
    """Return the costs of each symbol as records of COSTS, shape (symbols,).

    slippages: one a symbol, whatever the costs say. bar_days: length of a bar, the time an order takes by default.
    """
    records = np.zeros(len(slippages), dtype=COSTS)
    records["maker_rate"], records["taker_rate"] = costs.maker_rate, costs.taker_rate
    records["fixed_fee"], records["scale"] = costs.fixed_fee, costs.scale
    for record, slippage in zip(records, slippages, strict=True):
        for name, value in _model(slippage, bar_days).items():
            record[name] = value
    return records


def _model(slippage: Slippage, bar_days: float) -> dict[str, float]:
    match slippage:
        case backtest.FixedBps():
            return {"model": FIXED, "first": slippage.bps * _BPS, "participation_cap": np.inf}
        case backtest.VolumeWeighted():
            model: dict[str, float] = {"model": VOLUME_WEIGHTED, "first": slippage.impact}
        case backtest.SquareRoot():
            model = {"model": SQUARE_ROOT, "first": slippage.y}
        case backtest.Almgren2005():
            model = {
                "model": ALMGREN,
                "first": slippage.gamma,
                "second": slippage.eta,
                "turnover_root": float(np.sqrt(np.sqrt(slippage.turnover_days))),
                "execution_days": slippage.execution_days or bar_days,
            }
        case backtest.AlmgrenChriss():
            spread = 2 * slippage.half_spread_bps * _BPS
            model = {
                "model": ALMGREN_CHRISS,
                "first": spread / slippage.permanent_volume if slippage.gamma is None else slippage.gamma,
                "second": spread / slippage.temporary_volume if slippage.eta is None else slippage.eta,
                "execution_days": slippage.execution_days or bar_days,
                "slices": slippage.slices,
                "risk_aversion": slippage.risk_aversion,
            }
        case backtest.Kyle():
            model = {"model": KYLE, "first": slippage.y}
        case backtest.NoSlippage():
            return {"model": NONE, "participation_cap": np.inf}
        case backtest.OrderBook():
            return {"model": ORDER_BOOK, "participation_cap": np.inf}
    spread_and_cap = {
        "half_spread": slippage.half_spread_bps * _BPS,
        "participation_cap": slippage.participation_cap,
    }
    return model | spread_and_cap


@kernel
def impact(  # noqa: PLR0911 - one a model
    cost: Any, quantity: float, volume: float, sigma: float, day_volume: float
) -> float:
    """Return the impact of an order as a fraction of the price, at least 0, before scaling.

    cost: a record of COSTS. quantity, volume (of the bar), day_volume: base units, >= 0. sigma: daily, a fraction.
    Where a volume is 0 or unknown (NaN) impact is that of an order as large as the volume. That of order_book has a
    side: `ladders.walk`.
    """
    model = cost.model
    if model == FIXED:
        return cost.first  # type: ignore[no-any-return]
    if model == VOLUME_WEIGHTED:
        share = quantity / volume if volume > quantity else 1.0
        return cost.first * share * share  # type: ignore[no-any-return]
    if model == SQUARE_ROOT:
        share = quantity / day_volume if day_volume > quantity else 1.0
        return cost.first * _known(sigma) * np.sqrt(share)  # type: ignore[no-any-return]
    if model == ALMGREN:
        share = quantity / day_volume if day_volume > quantity else 1.0
        permanent, temporary = almgren_2005(
            _known(sigma), share, cost.turnover_root, cost.execution_days, cost.first, cost.second
        )
        return permanent / 2 + temporary
    if model == KYLE:
        share = quantity / day_volume if day_volume > quantity else 1.0
        return cost.first * _known(sigma) * share / 2  # type: ignore[no-any-return]
    if model == ALMGREN_CHRISS:
        share = quantity / day_volume if day_volume > quantity else 1.0
        return almgren_chriss(
            _known(sigma), share, cost.first, cost.second, cost.execution_days, cost.slices, cost.risk_aversion
        )
    return 0.0


@kernel
def almgren_2005(
    sigma: float, share: float, turnover_root: float, days: float, gamma: float, eta: float
) -> tuple[float, float]:
    """Return permanent impact I and temporary impact K, fractions of the price; an order costs I / 2 + K.

    sigma: daily volatility, a fraction. share: X / V, the order over the daily volume. turnover_root: (Theta / V)^(1/4)
    of the shares outstanding. days: T, how long the order takes.
    I = gamma sigma (X/V) (Theta/V)^(1/4); K = eta sigma (X / (V T))^(3/5).
    Source: Almgren, Thum, Hauptmann, Li (2005), equations 9 and 10.
    """
    rate = share / days
    return gamma * sigma * share * turnover_root, eta * sigma * fifth_root(rate * rate * rate)


@kernel
def almgren_chriss(
    sigma: float, share: float, gamma: float, eta: float, days: float, slices: int, risk_aversion: float
) -> float:
    """Return what an order costs on average beside the half spread, a fraction of the price: E / (X S) - epsilon / S.

    sigma: daily volatility, a fraction. share: X / V, the order over the daily volume. gamma: fraction by which a day's
    volume moves the price. eta: fraction paid at a rate of a day's volume a day. days: T. slices: N. risk_aversion:
    lambda S V. E = gamma X^2 / 2 + epsilon X + eta~ / tau x sum of n_k^2, with eta~ = eta - gamma tau / 2.
    Intervals so long that eta~ is not above 0 are beyond the model: there the permanent half alone is paid.
    Source: Almgren and Chriss (2000), equations 8 and 20.
    """
    tau = days / slices
    temporary = eta - gamma * tau / 2
    if temporary <= 0.0:
        return gamma * share / 2
    squares = 0.0
    for part in optimal_shares(slices, risk_aversion * sigma * sigma * tau * tau / temporary):
        squares += part * part
    return gamma * share / 2 + temporary / tau * share * squares


@kernel
def optimal_shares(slices: int, urgency: float) -> Float64s:
    """Return (slices,) float64, which part of an order is traded in each interval; their sum is 1.

    urgency: lambda sigma^2 tau^2 / eta~, >= 0, infinite for all at once; 0 gives equal parts.
    What is left after j intervals is X sinh(kappa (T - t_j)) / sinh(kappa T), with 2 cosh(kappa tau) = 2 + urgency. So
    z_m, what is left with m intervals to go, satisfies z_{m+1} = (2 + urgency) z_m - z_{m-1}. Taken as the part of it
    that the next interval trades, d_m = 1 - z_{m-1} / z_m, that is d_{m+1} = (urgency + d_m) / (1 + urgency + d_m) from
    d_1 = 1: it neither overflows nor cancels, and needs no hyperbolic function.
    Source: Almgren and Chriss (2000), equations 16 to 18.
    """
    parts = np.empty(slices)
    # An infinite urgency over itself would be none.
    urgency = min(urgency, 1e300)
    parts[slices - 1] = 1.0
    for place in range(slices - 2, -1, -1):
        following = urgency + parts[place + 1]
        parts[place] = following / (1.0 + following)
    left = 1.0
    for place in range(slices):
        traded = left * parts[place]
        parts[place] = traded
        left -= traded
    return parts


@kernel
def fifth_root(value: float) -> float:
    """Return value^(1/5) of a value >= 0 by Newton's method: only operations that IEEE 754 rounds alike everywhere."""
    if value <= 0.0:
        return 0.0
    # Out of extremes first: five powers of two at a time.
    scale = 1.0
    while value > 32.0:  # noqa: PLR2004 - 2^5
        value /= 32.0
        scale *= 2.0
    while value < 1.0:
        value *= 32.0
        scale /= 2.0
    root = 2.0
    for _ in range(12):
        power = root * root * root * root
        root -= (root * power - value) / (5.0 * power)
    return root * scale


@kernel
def _known(sigma: float) -> float:
    """Return a volatility, 0 where there is none yet."""
    return sigma if sigma > 0 else 0.0
