"""What the charts of a backtest's report draw: no more points than a screen shows, extremes kept.

Columns of plain numbers, times in Unix ms, money in quote currency; the page's script turns them into pictures.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, NS_PER_SECOND
from daemon.engine.bars import lengthen
from daemon.engine.curves import decimate, drawdowns
from daemon.research.validation_charts import validation_charts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from daemon.core.market import Bars, Float64s
    from daemon.research.backtest_result import BacktestResult, Trade

MOST_POINTS: Final = 2_000
MOST_CANDLES: Final = 1_500
MOST_TRADES: Final = 2_000
MOST_SYMBOLS: Final = 20
"""Symbols with candles: the file must stay one that a browser opens at once."""

_NS_PER_MS: Final = 1_000_000
_BINS: Final = 60
_DIGITS: Final = 10
_WIDTHS_NS: Final = (
    *(NS_PER_SECOND * seconds for seconds in (1, 5, 15, 30)),
    *(60 * NS_PER_SECOND * minutes for minutes in (1, 2, 5, 15, 30)),
    *(NS_PER_HOUR * hours for hours in (1, 2, 4, 6, 12)),
    *(NS_PER_DAY * days for days in (1, 2, 7, 14, 28)),
)


class Charts(NamedTuple):
    """What the page embeds, and what its words must say of it.

    content: for JSON. drawn_trades: how many have markers. hidden_symbols: symbols without candles for want of room.
    """

    content: dict[str, Any]
    drawn_trades: int
    hidden_symbols: list[str]


def charts_of(result: BacktestResult, equity: Mapping[str, NDArray[Any]], candles: Mapping[str, Bars]) -> Charts:
    """Choose and shorten what is drawn; arguments as of `backtest_report.report_html`."""
    symbols = _symbols(result, candles)
    drawn_symbols = symbols[:MOST_SYMBOLS]
    drawn = _largest([trade for trade in result.trades if trade.symbol in set(drawn_symbols)], MOST_TRADES)
    content = {
        "equity": account_of(result, equity),
        "symbols": [_candles(symbol, candles) for symbol in drawn_symbols],
        "trades": _trades(drawn, drawn_symbols),
        "pnl": _histogram(np.array([trade.pnl for trade in result.trades])),
        "costs": _costs(result),
        "validation": validation_charts(result),
    }
    return Charts(content, len(drawn), symbols[MOST_SYMBOLS:])


def _symbols(result: BacktestResult, candles: Mapping[str, Bars]) -> list[str]:
    """Symbols as trades call them, those with most trades first; those that never traded as their candles do."""
    traded = Counter(trade.symbol for trade in result.trades)
    named = {_key(symbol, candles) for symbol in traded}
    quiet = [key for key in candles if key not in named]
    return [*sorted(traded, key=lambda symbol: (-traded[symbol], symbol)), *quiet]


def _key(symbol: str, candles: Mapping[str, Bars]) -> str | None:
    """Find a symbol's candles; a symbol without a venue is found if no other venue has it."""
    if symbol in candles:
        return symbol
    found = [key for key in candles if key.partition(":")[2] == symbol]
    return found[0] if len(found) == 1 else None


def _largest(trades: Sequence[Trade], most: int) -> list[Trade]:
    """Keep those with the largest pnl of either sign, in order of time."""
    kept = sorted(trades, key=lambda trade: (-abs(trade.pnl), trade.id))[:most]
    return sorted(kept, key=lambda trade: (trade.entry_time, trade.id))


# The account.


def account_of(result: BacktestResult, equity: Mapping[str, NDArray[Any]]) -> dict[str, list[Any]]:
    """Rows that keep the extremes of the equity and of its drawdown, which is taken of every sample first."""
    time_ns, value = equity["time_ns"], equity["equity"]
    if time_ns.size == 0:
        return {"time": []}
    initial = float(value[-1]) - result.metrics.total_return
    fallen = drawdowns(time_ns, value, initial, int(time_ns[0])).drawdown_percent
    held = equity.get("buy_and_hold")
    rows = decimate(time_ns, [value, fallen, *([] if held is None else [held])], MOST_POINTS)
    columns: dict[str, list[Any]] = {
        "time": _ms(time_ns[rows]),
        "equity": _short(value[rows]),
        "drawdown": _short(fallen[rows]),
        "cash": _short(equity["cash"][rows]),
        "positions": _short(equity["positions_value"][rows]),
        "unrealized": _short(equity["unrealized_pnl"][rows]),
    }
    return columns if held is None else {**columns, "held": _short(held[rows])}


def _ms(time_ns: NDArray[Any]) -> list[int]:
    return [int(each) for each in (time_ns // _NS_PER_MS).tolist()]


def _short(values: Float64s) -> list[float]:
    """Leave off digits that no screen shows: they are half of the file."""
    return [float(f"{value:.{_DIGITS}g}") for value in values.tolist()]


# Candles and what was traded on them.


def _candles(symbol: str, candles: Mapping[str, Bars]) -> dict[str, Any]:
    """Write a symbol's candles; width: ms of each, None where they are the bars as they are stored."""
    key = _key(symbol, candles)
    if key is None:
        return {"name": symbol, "width": None, "time": [], "open": [], "high": [], "low": [], "close": []}
    bars, width_ns = _screenful(candles[key])
    columns = {name: _short(getattr(bars, name)) for name in ("open", "high", "low", "close")}
    width = None if width_ns is None else width_ns // _NS_PER_MS
    return {"name": symbol, "width": width, "time": _ms(bars.start_ns), **columns}


def _screenful(bars: Bars) -> tuple[Bars, int | None]:
    """Lengthen bars to the shortest width that leaves few enough."""
    if bars.size <= MOST_CANDLES:
        return bars, None
    widths = list(_WIDTHS_NS)
    while _buckets(bars, widths[-1]) > MOST_CANDLES:
        widths.append(2 * widths[-1])
    width_ns = next(width for width in widths if _buckets(bars, width) <= MOST_CANDLES)
    return lengthen(bars, width_ns), width_ns


def _buckets(bars: Bars, width_ns: int) -> int:
    return 1 + int(np.count_nonzero(np.diff(bars.start_ns // width_ns)))


def _trades(trades: Sequence[Trade], symbols: Sequence[str]) -> dict[str, list[Any]]:
    """Write a column a field; symbol: place among the symbols."""
    places = {symbol: place for place, symbol in enumerate(symbols)}
    return {
        "id": [trade.id for trade in trades],
        "symbol": [places[trade.symbol] for trade in trades],
        "side": [trade.side for trade in trades],
        "entry_time": [trade.entry_time for trade in trades],
        "entry_price": [trade.entry_price for trade in trades],
        "exit_time": [trade.exit_time for trade in trades],
        "exit_price": [trade.exit_price for trade in trades],
        "reason": [reason_of(trade) for trade in trades],
        "quantity": [trade.quantity for trade in trades],
        "pnl": [trade.pnl for trade in trades],
        "percent": [trade.pnl_percent for trade in trades],
        "mae": [trade.mae_percent for trade in trades],
        "mfe": [trade.mfe_percent for trade in trades],
        "costs": [costs_of(trade) for trade in trades],
    }


def reason_of(trade: Trade) -> str:
    """Write why a trade ended: `take_profit`, `manual (end of data)`."""
    return f"{trade.exit_reason} ({trade.exit_note})" if trade.exit_note else trade.exit_reason


def costs_of(trade: Trade) -> float:
    """Fees and slippage of both ends; what favoured the trade counts against them."""
    return trade.entry_fees + trade.exit_fees + trade.entry_slippage + trade.exit_slippage


# Sums.


def _histogram(pnl: Float64s) -> dict[str, Any]:
    """Count all trades in bins of a round width, one edge at zero; the outermost 1 % share a bin at each end.

    start: of the first bin. low, high: whether the first and last one hold what lies beyond them, too.
    """
    if pnl.size == 0:
        return {"start": 0.0, "width": 1.0, "counts": [], "low": False, "high": False}
    least, most = (float(each) for each in np.percentile(pnl, (0.5, 99.5)))
    width = _round_up((most - least) / _BINS) if most > least else _round_up(max(abs(most), 1.0) / 10)
    first, last = (int(np.floor(each / width)) for each in (least, most))
    places = np.clip(np.floor(pnl / width), first, last).astype(np.int64) - first
    return {
        "start": first * width,
        "width": width,
        "counts": np.bincount(places, minlength=last - first + 1).tolist(),
        "low": bool(pnl.min() < first * width),
        "high": bool(pnl.max() >= (last + 1) * width),
    }


def _round_up(value: float) -> float:
    """Return the next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value))


def _costs(result: BacktestResult) -> dict[str, list[Any]]:
    costs = result.costs
    return {
        "names": ["Gross pnl", "Fees", "Slippage", "Funding", "Net pnl"],
        "values": [costs.gross_pnl, -costs.fees, -costs.slippage, costs.funding, costs.net_pnl],
    }
