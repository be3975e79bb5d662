"""What the report of a stored backtest is made of: its result, its equity, and candles of what it traded.

No more is read than a page can show: a long equity curve keeps the extremes of each stretch, candles are as long as
they may be with more of them left than are drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from daemon.core.errors import AtlasError
from daemon.core.market import Bars, Timeframe
from daemon.research import backtest_records as records
from daemon.research.history import History, Query
from daemon.store import backtests as tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from daemon.research.backtest_result import BacktestResult, SeriesUsed
    from daemon.store.bars import BarStore
    from daemon.store.env import Environment

_NS_PER_MS: Final = 1_000_000
# Chunks of 65,536 samples that are taken whole; of longer runs each gives a share of as many rows.
_WHOLE_CHUNKS: Final = 16


def report_page(bars: BarStore, backtest_id: str) -> str:
    """Render a completed backtest as a page.

    NotFound BACKTEST_NOT_FOUND, Conflict BACKTEST_NOT_FINISHED. Bars that are stored no longer are left out.
    """
    from daemon.research.backtest_charts import MOST_SYMBOLS
    from daemon.research.backtest_report import report_html

    env = bars.ticks.env
    with env.read() as transaction:
        result = records.stored_result(transaction, backtest_id)
        timeframe = Timeframe(records.stored_state(transaction, backtest_id).status.timeframe)
    # Those with the most trades go first, as in the report.
    counts = {each.symbol: 0 for each in result.data}
    for trade in result.trades:
        counts[trade.symbol] = counts.get(trade.symbol, 0) + 1
    chosen = sorted(result.data, key=lambda each: -counts[each.symbol])[:MOST_SYMBOLS]
    candles = {each.symbol: _candles(bars, each, timeframe) for each in chosen}
    return report_html(
        result,
        _equity(env, backtest_id),
        {symbol: found for symbol, found in candles.items() if found is not None},
        labels=_labels(result),
    )


def report_document(bars: BarStore, backtest_id: str) -> bytes:
    """Render a completed backtest as a PDF; errors as of `report_page`."""
    from daemon.research.backtest_pdf import report_pdf

    env = bars.ticks.env
    with env.read() as transaction:
        result = records.stored_result(transaction, backtest_id)
    return report_pdf(result, _equity(env, backtest_id), labels=_labels(result))


def _labels(result: BacktestResult) -> list[str]:
    simulated = sorted({each.symbol for each in result.data if each.symbol.startswith("synthetic:")})
    return [f"simulated market: {symbol}" for symbol in simulated]


def _equity(env: Environment, backtest_id: str) -> dict[str, NDArray[Any]]:
    """Read the samples of the account, chunk by chunk in snapshots of their own."""
    with env.read() as transaction:
        parts = tables.parts(transaction, backtest_id, "equity")
    chunks = []
    for part in parts:
        with env.read() as transaction:
            chunk = tables.read_part(transaction, backtest_id, part)
        chunks.append(chunk if len(parts) <= _WHOLE_CHUNKS else _thinned(chunk, len(parts)))
    names = ["time_ns", "equity", "cash", "positions_value", "unrealized_pnl"]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in names}


def _thinned(chunk: dict[str, NDArray[Any]], chunks: int) -> dict[str, NDArray[Any]]:
    from daemon.engine.curves import decimate

    rows = decimate(chunk["time_ns"], [chunk["equity"]], max(64, _WHOLE_CHUNKS * tables.CHUNK_ROWS // chunks))
    return {name: column[rows] for name, column in chunk.items()}


def _candles(bars: BarStore, series: SeriesUsed, timeframe: Timeframe) -> Bars | None:
    """Read bars of the range that a run traded; None where nothing is stored that they could be made of."""
    from daemon.research.backtest_charts import MOST_CANDLES

    span_ns = (series.last - series.first) * _NS_PER_MS
    lengths = [each for each in Timeframe if each.ns > timeframe.ns and span_ns // each.ns >= MOST_CANDLES]
    chosen = max(lengths, key=lambda each: each.ns, default=timeframe)
    query = Query(symbol=series.symbol, timeframe=chosen, start=str(series.first), end=str(series.last))
    try:
        blocks = [block.columns for block in History(bars, query).blocks()]
    except AtlasError:
        return None
    names = ["timestamp", "open", "high", "low", "close", "volume"]
    return Bars(*(np.concatenate([block[name] for block in blocks]) for name in names)) if blocks else None
