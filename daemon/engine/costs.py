"""What a fill costs beyond the price that the market showed: slippage models and fees.

Slippage is a fraction of the reference price, adverse to the order, in two parts: half of the spread, and impact.

| model | impact | needs | cap on the bar's volume |
|-|-|-|-|
| none | 0, and no half spread | nothing | none |
| fixed_bps | bps / 10,000, and no half spread | nothing | none |
| volume_weighted | impact x (q / v)^2 | v: volume of the bar | 2.5 % |
| square_root | y x sigma x sqrt(q / V) | sigma, V: daily volatility and volume before the order | 10 % |
| almgren_2005 | gamma/2 x sigma x (q/V) x (Theta/V)^(1/4) + eta x sigma x (q / (V T))^(3/5) | sigma, V | 10 % |

The cap is the share of the bar's volume that orders may take; what is above it waits for the next bar. Sources:
volume_weighted is the volume-share model that zipline made known (its 0.1 and 2.5 % are the defaults); square_root the
law of Barra's handbook (1997), tested by Toth and others (2011), Y of order 1; almgren_2005 Almgren, Thum, Hauptmann
and Li, "Direct Estimation of Equity Market Impact" (2005), with the coefficients of its constrained fit. Powers are
taken by square roots and a fifth root that rounds alike everywhere, so that a result is the same on any machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from daemon.core import backtest
from daemon.engine.jit import kernel

if TYPE_CHECKING:
    from daemon.core.backtest import Costs, Slippage

Records = NDArray[Any]

NONE: Final = 0
FIXED: Final = 1
VOLUME_WEIGHTED: Final = 2
SQUARE_ROOT: Final = 3
ALMGREN: Final = 4

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
        ("participation_cap", "f8"),  # of the bar's volume, infinite for none
        ("scale", "f8"),
    ]
)
"""Costs as kernels take them."""

# No model is meant for orders that move the price by half.
MAX_SLIPPAGE: Final = 0.5
_BPS: Final = 1e-4


def record_of(costs: Costs, bar_days: float) -> Records:
    """Return costs as a record of COSTS, shape (1,). bar_days: length of a bar, the time an order takes by default."""
    record = np.zeros(1, dtype=COSTS)
    record["maker_rate"], record["taker_rate"] = costs.maker_rate, costs.taker_rate
    record["fixed_fee"], record["scale"] = costs.fixed_fee, costs.scale
    for name, value in _model(costs.slippage, bar_days).items():
        record[name] = value
    return record


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
        case backtest.NoSlippage():
            return {"model": NONE, "participation_cap": np.inf}
    spread_and_cap = {
        "half_spread": slippage.half_spread_bps * _BPS,
        "participation_cap": slippage.participation_cap,
    }
    return model | spread_and_cap


@kernel
def impact(costs: Records, quantity: float, volume: float, sigma: float, day_volume: float) -> float:
    """Return the impact of an order as a fraction of the price, at least 0, before scaling.

    costs: (1,) COSTS. quantity, volume (of the bar), day_volume: base units, >= 0. sigma: daily, a fraction.
    Where a volume is 0 or unknown (NaN) impact is that of an order as large as the volume.
    """
    model = costs[0].model
    if model == FIXED:
        return costs[0].first  # type: ignore[no-any-return]
    if model == VOLUME_WEIGHTED:
        share = quantity / volume if volume > quantity else 1.0
        return costs[0].first * share * share  # type: ignore[no-any-return]
    if model == SQUARE_ROOT:
        share = quantity / day_volume if day_volume > quantity else 1.0
        return costs[0].first * _known(sigma) * np.sqrt(share)  # type: ignore[no-any-return]
    if model == ALMGREN:
        share = quantity / day_volume if day_volume > quantity else 1.0
        permanent, temporary = almgren_2005(
            _known(sigma), share, costs[0].turnover_root, costs[0].execution_days, costs[0].first, costs[0].second
        )
        return permanent / 2 + temporary
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
