"""The same backtest with one thing changed: what hangs on costs, on the moment of filling, on where it began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from daemon.engine import metrics
from daemon.research.sweep import Span
from daemon.research.validation_result import SensitivityRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.backtest import BacktestSpec
    from daemon.research.sweep import Sweep, Tested

COST_FACTORS: Final = (0.5, 1.0, 2.0, 4.0)
START_SHARES: Final = (0.1, 0.25)
"""How much of the range is left out at its beginning."""


def sensitivity(
    spec: BacktestSpec, sweep: Sweep, checkpoint: Callable[[], None] = lambda: None
) -> list[SensitivityRow]:
    """Run with costs x 0.5 to 4, filled a bar later, and begun later, as `swept` says; x 1 is the run itself."""
    whole = sweep.span
    found = []
    for factor in COST_FACTORS:
        costs = msgspec.structs.replace(spec.costs, scale=spec.costs.scale * factor)
        run = sweep.one(msgspec.structs.replace(spec, costs=costs), whole)
        found.append(_row("base" if factor == 1 else "costs", f"costs x {factor:g}", run, sweep.year_days))
        checkpoint()
    later = msgspec.structs.replace(spec.latency, order_ns=spec.latency.order_ns + spec.timeframe.ns)
    delayed = sweep.one(msgspec.structs.replace(spec, latency=later), whole)
    found.append(_row("delay", f"orders 1 bar ({spec.timeframe}) later", delayed, sweep.year_days))
    for share in START_SHARES:
        checkpoint()
        from_ns = whole.start_ns + int(share * (whole.stop_ns - whole.start_ns))
        run = sweep.one(spec, Span(from_ns, whole.stop_ns))
        found.append(_row("start", f"begun {100 * share:g} % of the range later", run, sweep.year_days))
    return found


def _row(kind: str, label: str, run: Tested, periods: int) -> SensitivityRow:
    return msgspec.convert(
        {
            "kind": kind,
            "label": label,
            "totalReturnPercent": 100 * (run.growth - 1),
            "sharpeRatio": metrics.sharpe_ratio(run.returns, periods),
            "maxDrawdownPercent": 100 * run.max_drawdown,
            "totalTrades": run.trades,
        },
        SensitivityRow,
    )
