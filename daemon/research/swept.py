"""What a specification is run as where it is run many times: by optimisations, walk-forwards, sensitivity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from daemon.core.backtest import OrderList, Own
from daemon.core.execution import Latency

if TYPE_CHECKING:
    from daemon.core.backtest import BacktestSpec


def is_fed(spec: BacktestSpec) -> bool:
    """Tell whether runs read ticks: those of own strategies do as configured, for these may do nothing on bars."""
    return spec.fills != "bars" and isinstance(spec.program, Own)


def swept(spec: BacktestSpec) -> BacktestSpec:
    """Return a specification as it is run many times: rules decide by bars, and fill on them.

    Bars show no part of a latency: what is drawn or measured is left out.
    """
    if spec.fills == "bars" or is_fed(spec):
        return spec
    latency = Latency(feed_ns=spec.latency.feed_ns, order_ns=spec.latency.order_ns)
    return msgspec.structs.replace(spec, fills="bars", latency=latency)


def said_of(spec: BacktestSpec) -> str | None:
    """Say what many runs fill against where that is not what the configuration asks for."""
    if spec.fills == "bars" or is_fed(spec):
        return None
    against = {"ticks": "ticks", "book": "the book"}[spec.fills]
    what = "its orders" if isinstance(spec.program, OrderList) else "rules"
    latency = spec.latency
    varies = latency.measured or latency.feed_spread_ns or latency.order_spread_ns
    without = ", without what is drawn or measured of the latency" if varies else ""
    return f"the configuration asks for fills against {against}: {what} were run on bars, pessimistically{without}"
