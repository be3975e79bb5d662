"""One backtest as one HTML page that opens anywhere, offline: figures, curves, trades on candles, costs, grounds.

The page, its style and its script are in `backtest_report.html`; here are the words and tables that go into it, and
`backtest_charts` chooses what is drawn.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from daemon.research.backtest_charts import MOST_TRADES, charts_of, costs_of, reason_of
from daemon.research.plotly_page import (
    DASH,
    embedded,
    line,
    listed,
    render,
    signed,
    spoken_duration,
    spoken_time,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from daemon.core.market import Bars
    from daemon.research.backtest_charts import Charts
    from daemon.research.backtest_result import BacktestResult, Extreme, Trade

LISTED: Final = 15
_LISTED_EVENTS: Final = 50
_NAMED_SYMBOLS: Final = 8
_CONFIG_LETTERS: Final = 20_000
_NS_PER_MS: Final = 1_000_000
_MS_PER_SECOND: Final = 1_000
_CENTS_BELOW: Final = 100_000
_DOT: Final = " \N{MIDDLE DOT} "
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_TRADE_HEADINGS: Final = ("", "Symbol", "Side", "Entry", "at", "Exit", "at", "Reason", "Quantity", "Costs", "%", "P&L")
_REASON_HEADINGS: Final = ("Reason", "Trades", "Share", "Won", "Mean held", "Mean P&L", "P&L")
_DATA_HEADINGS: Final = ("Symbol", "Source", "Rows", "From", "To", "Volume in", "Digest")
_EVENT_HEADINGS: Final = ("Time", "What", "Symbol", "Message")
_BAND_HEADINGS: Final = ("Reading", "Return", "Max drawdown", "Sharpe", "Trades", "Final equity")

_USUAL_DEFINITIONS: Final = {
    "band": "The run twice: where a bar leaves open what came first, once with the worse, once with the better.",
    "buyAndHold": "Each symbol bought with its share at the first open, sold at the last close, with taker fees.",
}


def report_html(
    result: BacktestResult,
    equity: Mapping[str, NDArray[Any]],
    candles: Mapping[str, Bars],
    *,
    labels: Iterable[str] = (),
) -> str:
    """Render a backtest as a page of some 5 MB that loads nothing; the same input gives the same bytes.

    equity: columns of (n,), one row a sample, any n: time_ns int64 ascending; equity, cash, positions_value,
    unrealized_pnl float64, finite, quote currency; buy_and_hold, the account of who bought and held, may be missing.
    candles: bars of the range by symbol, as trades name it or as `venue:symbol`; those of a symbol may be missing.
    labels: what the reader must not miss, such as `simulated market`. Everything is escaped.
    """
    charts = charts_of(result, equity, candles)
    return render(
        "backtest_report.html",
        title=escape(result.name),
        labels=listed(labels),
        identity="".join(f"<div>{escape(each)}</div>" for each in _identity(result, equity)),
        alarm=_alarm(result),
        figures=_figures(result),
        band=_band(result),
        trades_note=escape(_trades_note(charts, result.trade_stats.total_trades)),
        counted_note=escape(_counted_note(result)),
        months=_months(result),
        cost_figures=_pairs_table(_cost_figures(result)),
        reasons=_reasons(result),
        largest=_trade_table(sorted(result.trades, key=lambda trade: (-abs(trade.pnl), trade.id))[:LISTED]),
        last=_trade_table(sorted(result.trades, key=lambda trade: (-trade.exit_time, -trade.id))[:LISTED]),
        events=_events(result),
        readings=_list("How the configuration was read", result.readings),
        assumptions=_list("Assumptions", result.assumptions),
        notes=_list("Notes", result.notes),
        gaps=escape(_gaps(result)),
        model=_pairs_table(_flat(result.costs.model)),
        series=_series(result),
        execution=escape(_execution(result)),
        all_figures=_all_figures(result),
        config=escape(_config(result)),
        charts=embedded(charts.content),
    )


# The head of the page.


def _identity(result: BacktestResult, equity: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    symbols = list(dict.fromkeys(each.symbol for each in result.data))
    rest = len(symbols) - _NAMED_SYMBOLS
    named = ", ".join(symbols[:_NAMED_SYMBOLS]) + (f" and {rest:,} more" if rest > 0 else "")
    time_ns = equity["time_ns"]
    dates = f"{spoken_time(int(time_ns[0]))} to {spoken_time(int(time_ns[-1]))} UTC" if time_ns.size else ""
    yield _DOT.join(part for part in (named, _timeframe(result), dates) if part)
    yield f"backtest {result.id}{_DOT}engine {result.engine_version}{_DOT}{result.status}"
    yield f"fingerprint {result.fingerprint}"


def _timeframe(result: BacktestResult) -> str:
    """Take it from the configuration, else from the data."""
    said = result.resolved.get("timeframe")
    return said if isinstance(said, str) else ", ".join(dict.fromkeys(each.source for each in result.data))


def _alarm(result: BacktestResult) -> str:
    if result.status == "completed":
        return ""
    reason = f": {result.execution.error}" if result.execution.error else ""
    return f'<div class="alarm">Not a whole backtest ({escape(result.status)}){escape(reason)}</div>'


class _Figure(NamedTuple):
    """A card: its key among the definitions, its heading, the figure, what stands beside it."""

    key: str
    heading: str
    value: str
    words: str


def _figures(result: BacktestResult) -> str:
    return "".join(_card(result, each) for each in _main_figures(result))


def _card(result: BacktestResult, figure: _Figure) -> str:
    definition = result.definitions.get(figure.key) or _USUAL_DEFINITIONS.get(figure.key, "")
    return (
        f'<div class="figure" tabindex="0"><span>{escape(figure.heading)}</span><b>{escape(figure.value)}</b>'
        f'<span>{escape(figure.words)}</span><i class="tip" role="tooltip">{escape(definition)}</i></div>'
    )


def _main_figures(result: BacktestResult) -> Iterator[_Figure]:
    metrics, stats, held, band = result.metrics, result.trade_stats, result.buy_and_hold, result.band
    year = f"{_percent(metrics.annual_return_percent)} a year"
    yield _Figure("totalReturnPercent", "Total return", _percent(metrics.total_return_percent), year)
    words = f"Sortino {_plain(metrics.sortino_ratio)}, Calmar {_plain(metrics.calmar_ratio)}"
    yield _Figure("sharpeRatio", "Sharpe", _plain(metrics.sharpe_ratio), words)
    worst = f"{_money(metrics.max_drawdown)} in money"
    yield _Figure("maxDrawdownPercent", "Max drawdown", f"{metrics.max_drawdown_percent:.2f} %", worst)
    words = f"{stats.winning_trades:,} won, {stats.losing_trades:,} lost, {stats.break_even_trades:,} even"
    yield _Figure("totalTrades", "Trades", f"{stats.total_trades:,}", words)
    words = f"mean win {_money(stats.average_win)}, loss {_money(stats.average_loss)}"
    yield _Figure("winRate", "Win rate", f"{100 * metrics.win_rate:.1f} %", words)
    words = f"{_gain(metrics.expectancy)} a trade"
    yield _Figure("profitFactor", "Profit factor", _plain(metrics.profit_factor), words)
    if band is None:
        yield _Figure("band", "Band", DASH, "fills on ticks need none")
    else:
        ends = sorted((band.pessimistic.total_return_percent, band.optimistic.total_return_percent))
        wide = f"{abs(band.width_percent):.2f} % of the capital{', wide' if band.is_wide else ''}"
        yield _Figure("band", "Band", f"{signed(ends[0], 2)} to {_percent(ends[1])}", wide)
    words = f"drawdown {held.max_drawdown_percent:.1f} %, Sharpe {_plain(held.sharpe_ratio)}"
    yield _Figure("buyAndHold", "Buy and hold", _percent(held.total_return_percent), words)


def _band(result: BacktestResult) -> str:
    band = result.band
    if band is None:
        return '<p class="soft">Fills were made against ticks, or not at all: there is nothing to read in two ways.</p>'
    rows = (_extreme("pessimistic (the result)", band.pessimistic), _extreme("optimistic", band.optimistic))
    kind = "alarm" if band.is_wide else ""
    advice = f'<p class="{kind}">{escape(band.advice)}</p>'
    return f'{advice}<div class="scroll">{table("numbers", _BAND_HEADINGS, rows)}</div>'


def _extreme(name: str, run: Extreme) -> str:
    cells = (
        name,
        _percent(run.total_return_percent),
        f"{run.max_drawdown_percent:.2f} %",
        _plain(run.sharpe_ratio),
        f"{run.total_trades:,}",
        _money(run.final_equity),
    )
    return line(cells)


# Trades, months, costs.


def _trades_note(charts: Charts, total: int) -> str:
    said = []
    if charts.drawn_trades < total:
        said.append(
            f"{charts.drawn_trades:,} of {total:,} trades are drawn: those with the largest gain or loss, no more than "
            f"{MOST_TRADES:,}."
        )
    hidden = charts.hidden_symbols
    if hidden:
        named = ", ".join(hidden[:_NAMED_SYMBOLS]) + (", ..." if hidden[_NAMED_SYMBOLS:] else "")
        said.append(f"{len(hidden):,} symbols with fewer trades have no chart here: {named}.")
    return " ".join(said)


def _counted_note(result: BacktestResult) -> str:
    """Say which trades charts and tables know of: a result holds no more than some thousands."""
    held, total = len(result.trades), result.trade_stats.total_trades
    if held == total:
        return ""
    return (
        f"Of {total:,} trades the first {held:,} are counted here; `atlasd backtest show {result.id} --trades` has all."
    )


def _months(result: BacktestResult) -> str:
    """Write the heat map as a table, which paper and readers without scripts show as well."""
    if not result.monthly_returns:
        return '<p class="soft">No month has data.</p>'
    years: dict[str, dict[int, float]] = defaultdict(dict)
    for each in result.monthly_returns:
        year, _, month = each.month.partition("-")
        years[year][int(month)] = each.return_percent
    deepest = max(abs(each.return_percent) for each in result.monthly_returns) or 1.0
    lines = []
    for year, months in sorted(years.items()):
        cells = (_heat(months.get(month), deepest) for month in range(1, 13))
        whole = 100 * (math.prod(1 + value / 100 for value in months.values()) - 1)
        lines.append(f"<tr><th>{escape(year)}</th>{''.join(cells)}<td><b>{signed(whole, 1)}</b></td></tr>")
    head = "".join(f"<th>{name}</th>" for name in ("", *_MONTHS, "Year"))
    return f'<table class="heat"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _heat(value: float | None, deepest: float) -> str:
    if value is None:
        return "<td></td>"
    kind = "up" if value > 0 else "down"
    return f'<td class="{kind}" style="--share:{100 * abs(value) / deepest:.0f}%">{signed(value, 1)}</td>'


def _cost_figures(result: BacktestResult) -> Iterator[tuple[str, str]]:
    costs, defined = result.costs, result.definitions
    yield "Traded notional", _money(costs.traded_notional)
    yield "Turnover", f"{_plain(costs.turnover)} times the mean equity"
    yield "Cost a side that was paid", f"{_plain(costs.paid_cost_percent, 4)} % of the notional"
    yield "Cost a side at which the net is zero", f"{_plain(costs.break_even_cost_percent, 4)} % of the notional"
    yield "Fills", f"{costs.taker_fills:,} taker, {costs.maker_fills:,} maker; {costs.partial_fills:,} partial"
    yield "Rejected orders", f"{costs.rejected_orders:,}"
    words = defined.get("exposurePercent", "")
    yield "Exposure", f"{result.exposure_percent:.1f} %{f' ({words})' if words else ''}"


def _reasons(result: BacktestResult) -> str:
    groups: dict[str, list[Trade]] = defaultdict(list)
    for trade in result.trades:
        groups[reason_of(trade)].append(trade)
    lines = []
    for reason, trades in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0])):
        count, total = len(trades), math.fsum(trade.pnl for trade in trades)
        cells = (
            reason,
            f"{count:,}",
            f"{100 * count / len(result.trades):.1f} %",
            f"{100 * sum(trade.pnl > 0 for trade in trades) / count:.1f} %",
            _span(sum(trade.hold_time for trade in trades) / count),
            _gain(total / count),
            _gain(total),
        )
        lines.append(line(cells, _kind(total)))
    return table("numbers", _REASON_HEADINGS, lines) if lines else '<p class="soft">There were no trades.</p>'


def _trade_table(trades: Iterable[Trade]) -> str:
    lines = [line(_trade_cells(trade), _kind(trade.pnl)) for trade in trades]
    return table("trades", _TRADE_HEADINGS, lines) if lines else '<p class="soft">There were no trades.</p>'


def _trade_cells(trade: Trade) -> tuple[str, ...]:
    return (
        str(trade.id),
        trade.symbol,
        trade.side,
        _moment(trade.entry_time),
        f"{trade.entry_price:,.8g}",
        _moment(trade.exit_time),
        f"{trade.exit_price:,.8g}",
        reason_of(trade) + (", over a gap" if trade.crossed_gap else ""),
        f"{trade.quantity:,.8g}",
        _money(costs_of(trade)),
        signed(trade.pnl_percent, 2),
        _gain(trade.pnl),
    )


def _events(result: BacktestResult) -> str:
    if not result.events:
        return '<p class="soft">None.</p>'
    counts = Counter(event.type for event in result.events)
    told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
    more = f" The first {_LISTED_EVENTS} are listed." if len(result.events) > _LISTED_EVENTS else ""
    rows = [
        line((_moment(event.timestamp), event.type, event.symbol, event.message))
        for event in result.events[:_LISTED_EVENTS]
    ]
    return (
        f'<p class="soft small">{escape(told)}.{more}</p><div class="scroll">{table("", _EVENT_HEADINGS, rows)}</div>'
    )


# What it rests on.


def _list(heading: str, lines: list[str]) -> str:
    return f'<h3>{heading}</h3><ul class="plain">{listed(lines)}</ul>' if lines else ""


def _gaps(result: BacktestResult) -> str:
    gaps = result.gaps
    if gaps.known_holes == 0 and gaps.missing_intervals == 0:
        return "No holes in the data of the range."
    share = gaps.pnl_percent_of_net
    crossed = (
        f"positions were open over {gaps.crossed_with_position:,} of them and made {_gain(gaps.pnl)} in the meantime"
        f"{'' if share is None else f', {share:.1f} % of the net'}."
        if gaps.crossed_with_position
        else "no position was open over one."
    )
    return f"{gaps.known_holes:,} known holes, {gaps.missing_intervals:,} missing intervals; {crossed}"


def _series(result: BacktestResult) -> str:
    rows = [
        line((s.symbol, s.source, f"{s.rows:,}", _moment(s.first), _moment(s.last), s.volume_unit or DASH, s.digest))
        for s in result.data
    ]
    return table("data", _DATA_HEADINGS, rows)


def _execution(result: BacktestResult) -> str:
    run = result.execution
    parts = [f"started {_moment(run.started_at)} UTC"]
    if run.duration is not None:
        parts.append(f"took {spoken_duration(run.duration / _MS_PER_SECOND)}")
    parts += [f"{run.events_processed:,} events", f"{run.data_points:,} data points"]
    return _DOT.join(parts)


def _all_figures(result: BacktestResult) -> str:
    rows = []
    for part in (result.metrics, result.trade_stats, result.risk_metrics):
        for key, value in msgspec.to_builtins(part).items():
            definition = result.definitions.get(key, "")
            rows.append(
                f"<tr><td><code>{escape(key)}</code></td><td>{_number(value)}</td><td>{escape(definition)}</td></tr>"
            )
    return table("defined", ("Figure", "Value", "Definition"), rows)


def _config(result: BacktestResult) -> str:
    written = msgspec.json.format(msgspec.json.encode(result.config), indent=2).decode()
    return (
        written if len(written) <= _CONFIG_LETTERS else f"{written[:_CONFIG_LETTERS]}\n... (the result has all of it)"
    )


def _flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Write nested settings as `slippage.model`, one a row."""
    for key, each in value.items():
        if isinstance(each, dict):
            yield from _flat(each, f"{path}{key}.")
        else:
            yield f"{path}{key}", DASH if each is None else str(each)


def _pairs_table(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in pairs)
    return f'<table class="pairs"><tbody>{rows}</tbody></table>'


# Numbers as words.


def _percent(value: float | None, digits: int = 2) -> str:
    return DASH if value is None else f"{signed(value, digits)} %"


def _plain(value: float | None, digits: int = 2) -> str:
    return DASH if value is None else f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _money(value: float) -> str:
    return _plain(value, 2 if abs(value) < _CENTS_BELOW else 0)


def _gain(value: float) -> str:
    return ("+" if value > 0 else "") + _money(value)


def _number(value: int | float | None) -> str:  # noqa: PYI041
    if isinstance(value, int):
        return f"{value:,}"
    return _plain(value, 4)


def _kind(pnl: float) -> str:
    return "gain" if pnl > 0 else "loss" if pnl < 0 else ""


def _moment(time_ms: int) -> str:
    return spoken_time(time_ms * _NS_PER_MS)


def _span(duration_ms: float) -> str:
    return spoken_duration(duration_ms / _MS_PER_SECOND)
