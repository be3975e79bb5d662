"""What `atlasd backtest` prints on a terminal: the summary of a result, its rows, lists and comparisons.

Loaded when a command runs, so it may import what it needs. Names come from files and are printed as text, never as
markup.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from daemon.app.cli.output import emit, emit_blocks
from daemon.app.cli.printing import BULLET, bullets, clean, inset, print_parts
from daemon.app.cli.validation_summary import validation_parts, verdict_parts
from daemon.research.backtest_records import stored_result
from daemon.research.backtest_views import BacktestRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from daemon.research.backtest_diff import Comparison, Difference
    from daemon.research.backtest_result import BacktestResult, BacktestStatus
    from daemon.research.backtest_views import Block, View
    from daemon.store.env import Environment

_MS_PER_SECOND: Final = 1_000
_DASH: Final = "\N{EN DASH}"
_TO: Final = "\N{RIGHTWARDS ARROW}"

# Columns that fit a screen, and what heads them.
_SHOWN: Final[dict[View, dict[str, str]]] = {
    "trades": {
        "id": "id", "symbol": "symbol", "side": "side", "entryTime": "entry", "entryPrice": "entry at",
        "exitTime": "exit", "exitPrice": "exit at", "exitReason": "reason", "quantity": "quantity", "pnl": "pnl",
        "pnlPercent": "pnl %", "maePercent": "mae %", "mfePercent": "mfe %", "exitNote": "note",
    },
    "receipts": {
        "id": "id", "tradeId": "trade", "timestamp": "time", "symbol": "symbol", "side": "side", "reason": "reason",
        "liquidity": "as", "quantity": "quantity", "remaining": "left", "reference": "from", "referencePrice": "price",
        "price": "filled at", "spread": "spread", "impact": "impact", "fee": "fee", "participation": "of volume",
        "cashAfter": "cash", "positionAfter": "position",
    },
    "equity": {
        "timestamp": "time", "equity": "equity", "cash": "cash", "positionsValue": "positions",
        "unrealizedPnl": "unrealized",
    },
}  # fmt: skip


# One result.


def print_summary(env: Environment, backtest_id: str) -> None:
    """Print a stored result; errors as of `stored_result`."""
    with env.read() as transaction:
        result = stored_result(transaction, backtest_id)
    print_result(result)


def print_result(result: BacktestResult) -> None:
    """Print the verdict, what came of it, beside buying and holding, what it cost, and what it rests on."""
    parts = [*verdict_parts(result.verdict), _heading(result), "", inset(_figures(result)), "", inset(_facts(result))]
    parts += validation_parts(result)
    for title, sentences in (
        ("How it was read", result.readings),
        ("Assumptions", result.assumptions),
        ("Notes", result.notes),
    ):
        if sentences:
            parts += ["", Text(title, style="bold"), inset(bullets(sentences))]
    parts += [
        "",
        f"next: atlasd backtest show {result.id} --trades | --receipts | --equity",
        f"      atlasd backtest report {result.id} --output report.html | report.pdf",
    ]
    print_parts(parts)


def _heading(result: BacktestResult) -> Text:
    symbols = list(dict.fromkeys(each.symbol for each in result.data))
    first, last = min(each.first for each in result.data), max(each.last for each in result.data)
    seconds = (result.execution.duration or 0) / _MS_PER_SECOND
    made = f"{result.execution.events_processed:,} events in {seconds:.2f} s"
    return Text.assemble(
        (clean(result.name), "bold"),
        f"  {', '.join(symbols)}  {_minute(first)} {_TO} {_minute(last)}\n",
        (f"backtest {result.id} {BULLET} fingerprint {result.fingerprint[:12]} {BULLET} {made}", "dim"),
    )


def _figures(result: BacktestResult) -> Table:
    metrics, held = result.metrics, result.buy_and_hold
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    table.add_column("this run", justify="right", header_style="bold")
    table.add_column("buy & hold", justify="right", header_style="dim", style="dim")
    table.add_row("return", _coloured(metrics.total_return_percent), _percent(held.total_return_percent))
    table.add_row("a year", _percent(metrics.annual_return_percent), "")
    table.add_row("Sharpe", _number(metrics.sharpe_ratio), _number(held.sharpe_ratio))
    table.add_row("Sortino", _number(metrics.sortino_ratio), "")
    table.add_row("Calmar", _number(metrics.calmar_ratio), "")
    table.add_row("max drawdown", f"{metrics.max_drawdown_percent:.2f} %", f"{held.max_drawdown_percent:.2f} %")
    table.add_row("profit", f"{metrics.total_return:+,.2f}", "")
    return table


def _facts(result: BacktestResult) -> Table:
    metrics, costs, gaps = result.metrics, result.costs, result.gaps
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row(
        "trades",
        f"{result.trade_stats.total_trades:,}: {100 * metrics.win_rate:.1f} % won, profit factor "
        f"{_number(metrics.profit_factor)}, {metrics.expectancy:+,.2f} a trade; in the market "
        f"{result.exposure_percent:.1f} % of the time",
    )
    parts = [f"fees {costs.fees:,.2f}", f"slippage {costs.slippage:,.2f}"]
    parts += [f"funding {costs.funding:+,.2f}"] if costs.funding else []
    table.add_row(
        "costs",
        f"{', '.join(parts)}: {_share(costs.paid_cost_percent)} a side; {_edge(costs.break_even_cost_percent)}; "
        f"{costs.maker_fills:,} maker and {costs.taker_fills:,} taker fills, {costs.rejected_orders:,} orders refused",
    )
    if (band := result.band) is not None:
        low, high = band.pessimistic.total_return_percent, band.optimistic.total_return_percent
        said = Text(f"{_percent(low)} (pessimistic) to {_percent(high)} (optimistic); ")
        table.add_row("band", said + Text(band.advice, style="bold yellow" if band.is_wide else ""))
    table.add_row(
        "gaps",
        f"{gaps.known_holes:,} known holes, {gaps.missing_intervals:,} bars missing; "
        f"{gaps.crossed_with_position:,} crossed with a position"
        + (f", which made {gaps.pnl:+,.2f}" if gaps.crossed_with_position else ""),
    )
    return table


# States and lists.


def print_status(status: BacktestStatus, form: str) -> None:
    """Print how a backtest that has no result is doing."""
    if form == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(status), indent=2).decode())
        return
    table = Table.grid(padding=(0, 3, 0, 0))
    told = {
        "name": clean(status.name),
        "symbols": ", ".join(status.symbols),
        "timeframe": status.timeframe,
        "submitted": _minute(status.created_at),
        "started": None if status.started_at is None else f"{_minute(status.started_at)}, attempt {status.attempts}",
        "ended": None if status.completed_at is None else _minute(status.completed_at),
        "memory": None if status.memory_bound_mb is None else f"{status.memory_bound_mb:,.0f} MiB at most",
        "error": None if status.error is None else f"{clean(status.error)} [{status.error_code}]",
        "at": "\n".join(map(clean, status.error_traceback or ())) or None,
    }
    for name, value in told.items():
        if value is not None:
            table.add_row(Text(name, style="bold"), Text(value))
    print_parts([Text(f"backtest {status.id} is {status.status}", style="bold"), inset(table)])


def print_list(found: Sequence[BacktestStatus], form: str) -> None:
    """Print states; json has all of each."""
    if form == "json":
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    digits = 2 if form == "table" else 12
    emit(
        {
            "id": [each.id for each in found],
            "name": [clean(each.name) for each in found],
            "status": [each.status for each in found],
            "verdict": [each.verdict for each in found],
            "return_percent": [_rounded(each.total_return_percent, digits) for each in found],
            "sharpe": [_rounded(each.sharpe_ratio, digits) for each in found],
            "drawdown_percent": [_rounded(each.max_drawdown_percent, digits) for each in found],
            "trades": [each.total_trades for each in found],
            "symbols": [",".join(each.symbols) for each in found],
            "timeframe": [each.timeframe for each in found],
            "created_at": [_second(each.created_at) for each in found],
            "seconds": [_seconds(each) for each in found],
        },
        form,
    )


def print_rows(env: Environment, backtest_id: str, view: View, trade: int | None = None) -> None:
    """Print the first rows of a table, as many columns of it as fit a screen."""
    rows = BacktestRows(env, backtest_id, view, trade=trade)
    shown = _SHOWN[view]
    times = {column.name for column in rows.columns if column.kind == "time"}

    def blocks() -> Iterator[Block]:
        for block in rows.blocks():
            if next(iter(block.values())).size:
                yield {head: _cells(block[name], is_time=name in times) for name, head in shown.items()}

    emit_blocks(blocks(), list(shown.values()), "table", None)


def _cells(column: Any, *, is_time: bool) -> Any:
    if is_time:
        return column.astype("datetime64[ns]")
    if column.dtype.kind == "f" and np.isnan(column).any():
        return np.where(np.isnan(column), None, column.astype(object))
    return column


# Comparisons.


def print_comparison(comparison: Comparison, ids: tuple[str, str], form: str) -> None:
    """Print what differs between two backtests; json and csv are one list of fields."""
    if form != "table":
        columns: dict[str, list[Any]] = {
            "section": [each.section for each in comparison.differences],
            "field": [each.field for each in comparison.differences],
            "first": [each.first for each in comparison.differences],
            "second": [each.second for each in comparison.differences],
        }
        emit(columns, form)
        return
    same = "are of one fingerprint: the same data, configuration and engine gave the same trades and equity"
    parts: list[Any] = [Text(f"{ids[0]} and {ids[1]} {same if comparison.is_same else 'differ'}", style="bold")]
    for section in dict.fromkeys(each.section for each in comparison.differences):
        rows = [each for each in comparison.differences if each.section == section]
        parts += ["", Text(section, style="bold"), inset(_sides(rows, ids))]
    if comparison.trade is None:
        parts += ["", "all trades are alike"]
    print_parts(parts)


def _sides(rows: Iterable[Difference], ids: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    table.add_column("")
    for each in ids:
        table.add_column(each, justify="right")
    for row in rows:
        style = "" if row.first == row.second else "bold"
        table.add_row(Text(row.field), *(Text(_value(each), style=style) for each in (row.first, row.second)))
    return table


# Words.


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:,.2f}"


def _percent(value: float | None) -> str:
    return _DASH if value is None else f"{value:+,.2f} %"


def _share(value: float | None) -> str:
    return _DASH if value is None else f"{value:.3f} %"


def _edge(break_even_percent: float | None) -> str:
    if break_even_percent is None or break_even_percent <= 0:
        return "there is no edge to pay them from"
    return f"the edge survives {_share(break_even_percent)}"


def _coloured(value: float) -> Text:
    return Text(_percent(value), style="bold green" if value > 0 else "bold red" if value < 0 else "bold")


def _value(value: Any) -> str:
    if value is None:
        return _DASH
    return f"{value:,.8g}" if isinstance(value, float) else clean(str(value))


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _seconds(status: BacktestStatus) -> float | None:
    if status.started_at is None or status.completed_at is None:
        return None
    return (status.completed_at - status.started_at) / _MS_PER_SECOND


def _minute(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / _MS_PER_SECOND, UTC):%Y-%m-%d %H:%M}"


def _second(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms // _MS_PER_SECOND, UTC):%Y-%m-%dT%H:%M:%SZ}"
