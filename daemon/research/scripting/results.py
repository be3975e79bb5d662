"""What came of backtests, probes and optimisations, as scripts take it: the result struct, and its rows as tables."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.research import backtest_records, records
from daemon.research.backtest_formats import arrow_table
from daemon.research.backtest_views import BacktestRows, block_of, columns
from daemon.research.optimization import records as optimizations
from daemon.research.optimization.records import FIGURES
from daemon.research.optimization.views import point_blocks
from daemon.research.scripting.table import Table, of_columns
from daemon.research.views import GROUP_NAMES, TRADE_NAMES, Filters, RunRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from daemon.research.backtest_result import BacktestResult
    from daemon.research.backtest_views import Block, View
    from daemon.research.optimization.result import OptimizationResult
    from daemon.research.records import Run
    from daemon.research.scripting.opening import Lease
    from daemon.research.strategies import RuleBook
    from daemon.store.backtests import Table as Name
    from daemon.store.env import Environment


class Backtest:
    """A backtest that has run. summary: the whole result, as docs/backtest.md describes it.

    is_kept: whether it is stored, and so in `atlasd backtests`. trades, fills, equity: all rows; `fills` are the
    receipts.
    """

    def __init__(self, summary: BacktestResult, rows: Callable[[View], pa.Table], *, is_kept: bool) -> None:
        self.summary = summary
        self.id = summary.id
        self.is_kept = is_kept
        self.trades = Table(lambda: rows("trades"))
        self.fills = Table(lambda: rows("receipts"))
        self.equity = Table(lambda: rows("equity"))

    def __repr__(self) -> str:
        metrics, verdict = self.summary.metrics, self.summary.verdict
        judged = f", {verdict.verdict}" if verdict else ""
        return (
            f"Backtest({self.id}, {self.summary.name}: {metrics.total_return_percent:+.2f} %, "
            f"{self.summary.trade_stats.total_trades:,} trades{judged})"
        )


def stored_backtest(lease: Lease, backtest_id: str) -> Backtest:
    """Take a stored backtest; NotFound BACKTEST_NOT_FOUND, Conflict BACKTEST_NOT_FINISHED."""
    with lease.env.read() as transaction:
        summary = backtest_records.stored_result(transaction, backtest_id)

    def rows(view: View) -> pa.Table:
        found = BacktestRows(lease.env, backtest_id, view)
        return arrow_table(found.columns, found.blocks())

    return Backtest(summary, rows, is_kept=True)


def made_backtest(summary: BacktestResult, symbols: Sequence[str], stored: Mapping[Name, list[Block]]) -> Backtest:
    """Take one that was not stored. symbols: of the run, in order. stored: its tables, as they would be."""
    model = str(summary.costs.model["slippage"]["model"])
    tables: dict[View, Name] = {"trades": "trades", "receipts": "fills", "equity": "equity"}

    def rows(view: View) -> pa.Table:
        blocks = (block_of(view, each, symbols, model) for each in stored.get(tables[view], []))
        return arrow_table(columns(view), blocks)

    return Backtest(summary, rows, is_kept=False)


class Probe:
    """A run of the strategy probe. summary: what was asked, and how it went.

    results: the groups, a row each. trades: only where the run was asked to keep them.
    NotFound RUN_NOT_FOUND.
    """

    def __init__(self, lease: Lease, run_id: str, book: RuleBook) -> None:
        with lease.env.read() as transaction:
            self.summary: Run = records.stored_run(transaction, run_id).run
        self.id = run_id
        rows = RunRows(lease.env, self.summary, book, Filters())
        self.results = Table(lambda: of_columns(GROUP_NAMES, rows.groups()), lease)
        self.trades = Table(lambda: of_columns(TRADE_NAMES, rows.trades()), lease)

    def __repr__(self) -> str:
        return f"Probe({self.id}, {self.summary.status}: {self.summary.total_result_records:,} results)"


class Optimization:
    """An optimisation. points: what was tried so far: number, parameters and figures, a row each.

    NotFound OPTIMIZATION_NOT_FOUND; `summary` raises Conflict OPTIMIZATION_NOT_FINISHED until it has completed.
    """

    def __init__(self, lease: Lease, optimization_id: str) -> None:
        with lease.env.read() as transaction:
            optimizations.stored_state(transaction, optimization_id)
        self._lease = lease
        self.id = optimization_id
        self.points = Table(lambda: of_columns(("number", *FIGURES), _points(lease.env, optimization_id)))

    @cached_property
    def summary(self) -> OptimizationResult:
        """The whole result, as docs/optimization.md describes it."""
        with self._lease.env.read() as transaction:
            return optimizations.stored_result(transaction, self.id)

    def __repr__(self) -> str:
        return f"Optimization({self.id}, {len(self.points):,} points)"


def _points(env: Environment, optimization_id: str) -> Iterator[dict[str, NDArray[Any]]]:
    whole = ("number", FIGURES[-1])
    for names, rows in point_blocks(env, optimization_id):
        by_name = zip(*rows, strict=True) if rows else [()] * len(names)
        yield {
            name: np.array(column, dtype=np.int64 if name in whole else np.float64)
            for name, column in zip(names, by_name, strict=True)
        }
