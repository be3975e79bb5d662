"""One backtest as one HTML page that opens anywhere, offline: figures, curves, trades on candles, costs, grounds.

The page, its style and its script are in `backtest_report.html`; here are the words and tables that go into it, and
`backtest_charts` chooses what is drawn.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from html import escape
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.research import backtest_figures as figures
from daemon.research.backtest_charts import MOST_TRADES, charts_of, reason_of
from daemon.research.plotly_page import embedded, line, listed, pairs_table, render, signed, table
from daemon.research.report_words import gain, moment, number, span
from daemon.research.validation_report import validation_sections, verdict_block

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from daemon.core.market import Bars
    from daemon.research.backtest_charts import Charts
    from daemon.research.backtest_result import BacktestResult, Trade

LISTED: Final = 15
_LISTED_EVENTS: Final = 50
_CONFIG_LETTERS: Final = 20_000

_REASON_HEADINGS: Final = ("Reason", "Trades", "Share", "Won", "Mean held", "Mean P&L", "P&L")
_EVENT_HEADINGS: Final = ("Time", "What", "Symbol", "Message")

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
        verdict=verdict_block(result.verdict),
        labels=listed(labels),
        identity="".join(f"<div>{escape(each)}</div>" for each in figures.identity(result, equity)),
        alarm=_alarm(result),
        figures="".join(_card(result, each) for each in figures.main_figures(result)),
        validation=validation_sections(result),
        band=_band(result),
        trades_note=escape(_trades_note(charts, result.trade_stats.total_trades)),
        counted_note=escape(figures.counted_note(result)),
        months=_months(result),
        cost_figures=pairs_table(figures.cost_figures(result)),
        reasons=_reasons(result),
        largest=_trade_table(figures.largest_trades(result, LISTED)),
        last=_trade_table(sorted(result.trades, key=lambda trade: (-trade.exit_time, -trade.id))[:LISTED]),
        events=_events(result),
        readings=_list("How the configuration was read", result.readings),
        assumptions=_list("Assumptions", result.assumptions),
        notes=_list("Notes", result.notes),
        gaps=escape(figures.gaps_words(result)),
        model=pairs_table(figures.flat(result.costs.model)),
        series=_series(result),
        execution=escape(figures.execution_words(result)),
        all_figures=_all_figures(result),
        config=escape(_config(result)),
        charts=embedded(charts.content),
    )


# The head of the page.


def _alarm(result: BacktestResult) -> str:
    words = figures.alarm_words(result)
    return f'<div class="alarm">{escape(words)}</div>' if words else ""


def _card(result: BacktestResult, figure: figures.Figure) -> str:
    definition = result.definitions.get(figure.key) or _USUAL_DEFINITIONS.get(figure.key, "")
    return (
        f'<div class="figure" tabindex="0"><span>{escape(figure.heading)}</span><b>{escape(figure.value)}</b>'
        f'<span>{escape(figure.words)}</span><i class="tip" role="tooltip">{escape(definition)}</i></div>'
    )


def _band(result: BacktestResult) -> str:
    band = result.band
    if band is None:
        return '<p class="soft">Fills were made against ticks, or not at all: there is nothing to read in two ways.</p>'
    rows = map(line, figures.band_rows(result))
    kind = "alarm" if band.is_wide else ""
    advice = f'<p class="{kind}">{escape(band.advice)}</p>'
    return f'{advice}<div class="scroll">{table("numbers", figures.BAND_HEADINGS, rows)}</div>'


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
        named = ", ".join(hidden[: figures.NAMED_SYMBOLS]) + (", ..." if hidden[figures.NAMED_SYMBOLS :] else "")
        said.append(f"{len(hidden):,} symbols with fewer trades have no chart here: {named}.")
    return " ".join(said)


def _months(result: BacktestResult) -> str:
    """Write the heat map as a table, which paper and readers without scripts show as well."""
    if not result.monthly_returns:
        return '<p class="soft">No month has data.</p>'
    deepest = max(abs(each.return_percent) for each in result.monthly_returns) or 1.0
    lines = []
    for year in figures.years_of(result):
        cells = (_heat(year.months.get(month), deepest) for month in range(1, 13))
        whole = f"<td><b>{signed(year.whole, 1)}</b></td>"
        lines.append(f"<tr><th>{escape(year.name)}</th>{''.join(cells)}{whole}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("", *figures.MONTHS, "Year"))
    return f'<table class="heat"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _heat(value: float | None, deepest: float) -> str:
    if value is None:
        return "<td></td>"
    kind = "up" if value > 0 else "down"
    return f'<td class="{kind}" style="--share:{100 * abs(value) / deepest:.0f}%">{signed(value, 1)}</td>'


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
            span(sum(trade.hold_time for trade in trades) / count),
            gain(total / count),
            gain(total),
        )
        lines.append(line(cells, _kind(total)))
    return table("numbers", _REASON_HEADINGS, lines) if lines else '<p class="soft">There were no trades.</p>'


def _trade_table(trades: Iterable[Trade]) -> str:
    lines = [line(figures.trade_cells(trade), _kind(trade.pnl)) for trade in trades]
    return table("trades", figures.TRADE_HEADINGS, lines) if lines else '<p class="soft">There were no trades.</p>'


def _events(result: BacktestResult) -> str:
    if not result.events:
        return '<p class="soft">None.</p>'
    counts = Counter(event.type for event in result.events)
    told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
    more = f" The first {_LISTED_EVENTS} are listed." if len(result.events) > _LISTED_EVENTS else ""
    rows = [
        line((moment(event.timestamp), event.type, event.symbol, event.message))
        for event in result.events[:_LISTED_EVENTS]
    ]
    return (
        f'<p class="soft small">{escape(told)}.{more}</p><div class="scroll">{table("", _EVENT_HEADINGS, rows)}</div>'
    )


# What it rests on.


def _list(heading: str, lines: list[str]) -> str:
    return f'<h3>{heading}</h3><ul class="plain">{listed(lines)}</ul>' if lines else ""


def _series(result: BacktestResult) -> str:
    return table("data", figures.DATA_HEADINGS, (line(figures.series_cells(each)) for each in result.data))


def _all_figures(result: BacktestResult) -> str:
    rows = []
    for part in (result.metrics, result.trade_stats, result.risk_metrics):
        for key, value in msgspec.to_builtins(part).items():
            definition = result.definitions.get(key, "")
            rows.append(
                f"<tr><td><code>{escape(key)}</code></td><td>{number(value)}</td><td>{escape(definition)}</td></tr>"
            )
    return table("defined", ("Figure", "Value", "Definition"), rows)


def _config(result: BacktestResult) -> str:
    written = msgspec.json.format(msgspec.json.encode(result.config), indent=2).decode()
    return (
        written if len(written) <= _CONFIG_LETTERS else f"{written[:_CONFIG_LETTERS]}\n... (the result has all of it)"
    )


def _kind(pnl: float) -> str:
    return "gain" if pnl > 0 else "loss" if pnl < 0 else ""
