"""What the reports of a backtest say of it, as rows of text: the same words on the page and in the PDF.

Nothing is escaped here: whoever writes a file knows what its format takes for more than text.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from daemon.research.backtest_charts import costs_of, reason_of
from daemon.research.plotly_page import DASH, signed, spoken_duration, spoken_time
from daemon.research.report_words import gain, moment, money, percent, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from daemon.research.backtest_result import BacktestResult, Extreme, SeriesUsed, Trade

TRADE_HEADINGS: Final = ("", "Symbol", "Side", "Entry", "at", "Exit", "at", "Reason", "Quantity", "Costs", "%", "P&L")
DATA_HEADINGS: Final = ("Symbol", "Source", "Rows", "From", "To", "Volume in", "Digest")
BAND_HEADINGS: Final = ("Reading", "Return", "Max drawdown", "Sharpe", "Trades", "Final equity")
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
NAMED_SYMBOLS: Final = 8

_MS_PER_SECOND: Final = 1_000
_DOT: Final = " \N{MIDDLE DOT} "


# The run.


def identity(result: BacktestResult, equity: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    """Say what was traded when, and which backtest it is."""
    symbols = list(dict.fromkeys(each.symbol for each in result.data))
    rest = len(symbols) - NAMED_SYMBOLS
    named = ", ".join(symbols[:NAMED_SYMBOLS]) + (f" and {rest:,} more" if rest > 0 else "")
    time_ns = equity["time_ns"]
    dates = f"{spoken_time(int(time_ns[0]))} to {spoken_time(int(time_ns[-1]))} UTC" if time_ns.size else ""
    yield _DOT.join(part for part in (named, _timeframe(result), dates) if part)
    yield f"backtest {result.id}{_DOT}engine {result.engine_version}{_DOT}{result.status}"
    yield f"fingerprint {result.fingerprint}"


def _timeframe(result: BacktestResult) -> str:
    """Take it from the configuration, else from the data."""
    said = result.resolved.get("timeframe")
    return said if isinstance(said, str) else ", ".join(dict.fromkeys(each.source for each in result.data))


class Figure(NamedTuple):
    """A card: its key among the definitions, its heading, the figure, what stands beside it."""

    key: str
    heading: str
    value: str
    words: str


def main_figures(result: BacktestResult) -> Iterator[Figure]:
    """Give the figures that stand in front."""
    metrics, stats, held, band = result.metrics, result.trade_stats, result.buy_and_hold, result.band
    year = f"{percent(metrics.annual_return_percent)} a year"
    yield Figure("totalReturnPercent", "Total return", percent(metrics.total_return_percent), year)
    words = f"Sortino {plain(metrics.sortino_ratio)}, Calmar {plain(metrics.calmar_ratio)}"
    yield Figure("sharpeRatio", "Sharpe", plain(metrics.sharpe_ratio), words)
    worst = f"{money(metrics.max_drawdown)} in money"
    yield Figure("maxDrawdownPercent", "Max drawdown", f"{metrics.max_drawdown_percent:.2f} %", worst)
    words = f"{stats.winning_trades:,} won, {stats.losing_trades:,} lost, {stats.break_even_trades:,} even"
    yield Figure("totalTrades", "Trades", f"{stats.total_trades:,}", words)
    words = f"mean win {money(stats.average_win)}, loss {money(stats.average_loss)}"
    yield Figure("winRate", "Win rate", f"{100 * metrics.win_rate:.1f} %", words)
    words = f"{gain(metrics.expectancy)} a trade"
    yield Figure("profitFactor", "Profit factor", plain(metrics.profit_factor), words)
    if band is None:
        yield Figure("band", "Band", DASH, "fills on ticks need none")
    else:
        ends = sorted((band.pessimistic.total_return_percent, band.optimistic.total_return_percent))
        wide = f"{abs(band.width_percent):.2f} % of the capital{', wide' if band.is_wide else ''}"
        yield Figure("band", "Band", f"{signed(ends[0], 2)} to {percent(ends[1])}", wide)
    words = f"drawdown {held.max_drawdown_percent:.1f} %, Sharpe {plain(held.sharpe_ratio)}"
    yield Figure("buyAndHold", "Buy and hold", percent(held.total_return_percent), words)


def alarm_words(result: BacktestResult) -> str:
    """Say that a backtest did not reach its end; empty where it did."""
    if result.status == "completed":
        return ""
    reason = f": {result.execution.error}" if result.execution.error else ""
    return f"Not a whole backtest ({result.status}){reason}"


def band_rows(result: BacktestResult) -> list[tuple[str, ...]]:
    """Write both readings of the bars under BAND_HEADINGS; none where fills needed no reading."""
    if result.band is None:
        return []
    return [
        _extreme("pessimistic (the result)", result.band.pessimistic),
        _extreme("optimistic", result.band.optimistic),
    ]


def largest_trades(result: BacktestResult, most: int) -> list[Trade]:
    """Take those with the largest pnl of either sign."""
    return sorted(result.trades, key=lambda trade: (-abs(trade.pnl), trade.id))[:most]


def series_cells(series: SeriesUsed) -> tuple[str, ...]:
    """Write a series under DATA_HEADINGS."""
    return (
        series.symbol,
        series.source,
        f"{series.rows:,}",
        moment(series.first),
        moment(series.last),
        series.volume_unit or DASH,
        series.digest,
    )


class Year(NamedTuple):
    """Returns of a year in percent; months: by their number, those without data are missing."""

    name: str
    months: dict[int, float]
    whole: float


def years_of(result: BacktestResult) -> list[Year]:
    """Put the monthly returns under their years."""
    years: dict[str, dict[int, float]] = defaultdict(dict)
    for each in result.monthly_returns:
        year, _, month = each.month.partition("-")
        years[year][int(month)] = each.return_percent
    return [
        Year(name, months, 100 * (math.prod(1 + value / 100 for value in months.values()) - 1))
        for name, months in sorted(years.items())
    ]


def _extreme(name: str, run: Extreme) -> tuple[str, ...]:
    return (
        name,
        percent(run.total_return_percent),
        f"{run.max_drawdown_percent:.2f} %",
        plain(run.sharpe_ratio),
        f"{run.total_trades:,}",
        money(run.final_equity),
    )


def counted_note(result: BacktestResult) -> str:
    """Say which trades charts and tables know of: a result holds no more than some thousands."""
    held, total = len(result.trades), result.trade_stats.total_trades
    if held == total:
        return ""
    return (
        f"Of {total:,} trades the first {held:,} are counted here; `atlasd backtest show {result.id} --trades` has all."
    )


def cost_figures(result: BacktestResult) -> Iterator[tuple[str, str]]:
    """Give what trading cost, name and value."""
    costs, defined = result.costs, result.definitions
    yield "Traded notional", money(costs.traded_notional)
    yield "Turnover", f"{plain(costs.turnover)} times the mean equity"
    yield "Cost a side that was paid", f"{plain(costs.paid_cost_percent, 4)} % of the notional"
    yield "Cost a side at which the net is zero", f"{plain(costs.break_even_cost_percent, 4)} % of the notional"
    yield "Fills", f"{costs.taker_fills:,} taker, {costs.maker_fills:,} maker; {costs.partial_fills:,} partial"
    yield "Rejected orders", f"{costs.rejected_orders:,}"
    words = defined.get("exposurePercent", "")
    yield "Exposure", f"{result.exposure_percent:.1f} %{f' ({words})' if words else ''}"


def trade_cells(trade: Trade) -> tuple[str, ...]:
    """Write a trade's row under TRADE_HEADINGS."""
    return (
        str(trade.id),
        trade.symbol,
        trade.side,
        moment(trade.entry_time),
        f"{trade.entry_price:,.8g}",
        moment(trade.exit_time),
        f"{trade.exit_price:,.8g}",
        reason_of(trade) + (", over a gap" if trade.crossed_gap else ""),
        f"{trade.quantity:,.8g}",
        money(costs_of(trade)),
        signed(trade.pnl_percent, 2),
        gain(trade.pnl),
    )


def gaps_words(result: BacktestResult) -> str:
    """Say what holes the data had, and what they did."""
    gaps = result.gaps
    if gaps.known_holes == 0 and gaps.missing_intervals == 0:
        return "No holes in the data of the range."
    part = gaps.pnl_percent_of_net
    crossed = (
        f"positions were open over {gaps.crossed_with_position:,} of them and made {gain(gaps.pnl)} in the meantime"
        f"{'' if part is None else f', {part:.1f} % of the net'}."
        if gaps.crossed_with_position
        else "no position was open over one."
    )
    return f"{gaps.known_holes:,} known holes, {gaps.missing_intervals:,} missing intervals; {crossed}"


def execution_words(result: BacktestResult) -> str:
    """Say how the run went."""
    run = result.execution
    parts = [f"started {moment(run.started_at)} UTC"]
    if run.duration is not None:
        parts.append(f"took {spoken_duration(run.duration / _MS_PER_SECOND)}")
    parts += [f"{run.events_processed:,} events", f"{run.data_points:,} data points"]
    return _DOT.join(parts)


def flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Write nested settings as `slippage.model`, one a row."""
    for key, each in value.items():
        if isinstance(each, dict):
            yield from flat(each, f"{path}{key}.")
        else:
            yield f"{path}{key}", DASH if each is None else str(each)
