"""Holes in the data that a backtest crossed, and how much of its profit hangs on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.market import NS_PER_DAY

if TYPE_CHECKING:
    from daemon.core.market import Float64s, Int64s
    from daemon.engine.orders import Records
    from daemon.engine.trades import Trades
    from daemon.research.backtest_market import Loaded

_ALWAYS: Final = 365


class Crossings(NamedTuple):
    """Gaps between bars of one symbol: (n,) columns.

    start_ns, stop_ns: close of the bar before, start of the bar after. missing: intervals without a bar.
    quantity: position held over it. pnl: what that gained or lost from close to open, quote currency.
    """

    start_ns: Int64s
    stop_ns: Int64s
    missing: Int64s
    quantity: Float64s
    pnl: Float64s


def crossings(symbol: int, loaded: Loaded, log: Records, width_ns: int, year_days: int) -> Crossings:
    """Find where bars are missing and what was held meanwhile.

    log: LOG records. year_days: where a year has 252 days markets close: gaps from one UTC day to another are none.
    """
    start_ns, close_ns = loaded.bars.start_ns, loaded.simulated.close_ns
    skipped = start_ns[1:] - close_ns[:-1]
    is_gap = skipped > 0
    if year_days != _ALWAYS:
        is_gap &= start_ns[1:] // NS_PER_DAY == start_ns[:-1] // NS_PER_DAY
    before = np.flatnonzero(is_gap)
    mine = log[(log["symbol"] == symbol) & (log["status"] == 0)]
    # What was filled before the gap: fills inside of a bar carry its start.
    last = np.searchsorted(mine["time_ns"], close_ns[before], side="left") - 1
    held = np.where(last >= 0, mine["position_quantity"][last], 0.0) if mine.size else np.zeros(before.size)
    moved = loaded.bars.open[before + 1] - loaded.bars.close[before]
    return Crossings(close_ns[before], start_ns[before + 1], skipped[before] // width_ns, held, held * moved)


def crossed(trades: Trades, gaps: list[Crossings]) -> np.typing.NDArray[np.bool_]:
    """Tell of each trade whether it was open over a gap: (n,) bool."""
    out = np.zeros(trades.size, dtype=np.bool_)
    for symbol, each in enumerate(gaps):
        held = each.start_ns[each.quantity != 0.0]
        mine = trades.symbol == symbol
        first = np.searchsorted(held, trades.entry_ns[mine], side="right")
        out[mine] = first < np.searchsorted(held, trades.exit_ns[mine], side="right")
    return out
