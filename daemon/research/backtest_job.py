"""A backtest from its specification to its result: what a worker does, be it a thread or a process.

This is where numba and TA-Lib are loaded, so only workers import this module.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np

from daemon.engine.latency import delays_of
from daemon.engine.orders import LOG, Reference
from daemon.engine.simulate import Progress, Simulation
from daemon.engine.trades import trades_of
from daemon.research.backtest_feeds import check_books, feeds_of, latencies_of
from daemon.research.backtest_finding import Finding, Runs
from daemon.research.backtest_gaps import crossed, crossings
from daemon.research.backtest_market import (
    Loaded,
    Series,
    decided,
    grid_orders,
    read_series,
    year_days,
)
from daemon.research.backtest_outcome import buy_and_hold, conclude
from daemon.research.backtest_records import BacktestOutcome, BacktestProgress
from daemon.research.backtest_result import BacktestResult
from daemon.research.own_runs import as_python, failing, needed_bars, own_runs
from daemon.research.strategies import RuleBook
from daemon.research.validating import validated
from daemon.store.backtests import ColumnSpool

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.backtest import BacktestSpec, Market
    from daemon.engine.simulate import OwnRun
    from daemon.research.backtest_records import BacktestJob
    from daemon.research.own.folder import StrategyFolder
    from daemon.store.bars import BarStore

SeriesReader: TypeAlias = "Callable[[BarStore, BacktestSpec, Market, int], Series]"
"""`backtest_market.read_series`, or what remembers what it read."""

# Share of the time that reading and deciding take; the runs share the rest.
_LOADING: Final = 0.3
# Share of the time that reading and running take where a walk-forward follows.
_RUNNING: Final = 0.1


class Traded(NamedTuple):
    """A backtest that has run and is not yet judged. belongs: (n,) int64, the trade of each fill, -1 for none."""

    finding: Finding
    series: list[Series]
    belongs: np.typing.NDArray[np.int64]
    result: BacktestResult


def run_backtest(
    bars: BarStore,
    job: BacktestJob,
    progress: Callable[[BacktestProgress], None],
    checkpoint: Callable[[], None],
    book: RuleBook | None = None,
    read: SeriesReader = read_series,
) -> BacktestOutcome:
    """Run a backtest, validate it as asked, and spool its rows.

    progress: told how far it is. checkpoint: called often; what it raises ends the backtest. book: the registry, for
    validations that vary a strategy's parameters. read: what gives the bars.
    NotFound NO_BARS where the dates hold none; otherwise as `validated`.
    """
    spec = job.spec
    share = _RUNNING if spec.validation and spec.validation.walk_forward else 1.0

    def said(at: BacktestProgress) -> None:
        progress(msgspec.structs.replace(at, done_fraction=share * at.done_fraction))

    own_folder = None if book is None else book.own
    finding, series, belongs, result = traded(bars, job, said, checkpoint, read, own_folder)
    started_ms = result.execution.started_at
    last = result.drawdown_curve[-1].timestamp * 1_000_000 if result.drawdown_curve else None

    def validating(fraction: float) -> None:
        progress(BacktestProgress(share + (1 - share) * fraction, last, result.execution.events_processed))

    known = RuleBook(()) if book is None else book  # an empty one may have own strategies
    judged, trial = validated(bars, known, job, finding, series, result, checkpoint, validating)
    completed_ms = time.time_ns() // 1_000_000
    execution = msgspec.structs.replace(judged.execution, completed_at=completed_ms, duration=completed_ms - started_ms)
    with ColumnSpool(Path(job.spool)) as spool:
        _spool(spool, finding, belongs)
        return BacktestOutcome(msgspec.structs.replace(judged, execution=execution), spool.parts, trial)


def traded(
    bars: BarStore,
    job: BacktestJob,
    progress: Callable[[BacktestProgress], None],
    checkpoint: Callable[[], None],
    read: SeriesReader = read_series,
    own_folder: StrategyFolder | None = None,
) -> Traded:
    """Run a backtest without judging or keeping it; arguments and errors as of `run_backtest`.

    own_folder: where own strategies lie.
    """
    started_ms = time.time_ns() // 1_000_000
    spec = job.spec
    series, loaded = [], []
    for number, market in enumerate(spec.markets):
        series.append(read(bars, spec, market, needed_bars(spec, own_folder)))
        loaded.append(decided(spec, series[-1], checkpoint))
        progress(BacktestProgress(_LOADING * (number + 1) / len(spec.markets)))
    own = own_runs(spec, own_folder, series)
    runs = simulate(bars, spec, loaded, progress, checkpoint, own)
    trades, belongs = trades_of(runs.main.log, len(loaded), int(Reference.CLOSE))
    days = _year_days(spec, loaded)
    gaps = [crossings(number, each, runs.main.log, spec.timeframe.ns, days) for number, each in enumerate(loaded)]
    held = buy_and_hold(spec, loaded, runs.main.samples.time_ns)
    finding = Finding(job.backtest_id, spec, loaded, runs, trades, days, gaps, crossed(trades, gaps), held)
    result = conclude(finding, job.config, started_ms, time.time_ns() // 1_000_000)
    return Traded(finding, series, belongs, result)


def simulate(
    bars: BarStore,
    spec: BacktestSpec,
    loaded: list[Loaded],
    progress: Callable[[BacktestProgress], None] = lambda _: None,
    checkpoint: Callable[[], None] = lambda: None,
    own: OwnRun | None = None,
) -> Runs:
    """Run a specification over loaded symbols: once over ticks, both ways over bars. own: its own strategy, if any."""
    first_ns = min(int(each.bars.start_ns[0]) for each in loaded)
    span_ns = max(int(each.simulated.close_ns[-1]) for each in loaded) - first_ns
    on_ticks = spec.fills != "bars"
    ways = (False,) if on_ticks else (False, True)
    outcomes = []
    for number, optimistic in enumerate(ways):

        def noted(at: Progress, number: int = number) -> None:
            checkpoint()
            done = min(max((at.now_ns - first_ns) / span_ns, 0.0), 1.0)
            fraction = _LOADING + (1 - _LOADING) * (number + done) / len(ways)
            progress(BacktestProgress(fraction, at.now_ns, at.events))

        run = Simulation(
            spec,
            [each.simulated for each in loaded],
            feeds_of(bars, spec, loaded),
            optimistic=optimistic,
            year_days=_year_days(spec, loaded),
            orders=grid_orders(spec, [each.simulated for each in loaded]),
            own=own,
            delays=delays_of(spec.latency, latencies_of(bars, spec, loaded)),
        )
        with failing(own):
            outcomes.append(run.run(noted))
    check_books(spec, outcomes[0].books)
    return Runs(outcomes[0], None if on_ticks else outcomes[1], as_python(run.compiled))


def _year_days(spec: BacktestSpec, loaded: list[Loaded]) -> int:
    """Return the days of a year: as configured, else 365 where any symbol trades at weekends, 252 where none does."""
    return spec.calendar_days or max(year_days(each.bars.start_ns) for each in loaded)


def _spool(spool: ColumnSpool, finding: Finding, belongs: np.typing.NDArray[np.int64]) -> None:
    run, trades = finding.runs.main, finding.trades
    log = run.log
    fills = log["status"] == 0
    names = [name for name in LOG.names or () if name not in ("status", "best", "worst", "entry_price", "funding")]
    columns = {name: np.ascontiguousarray(log[name][fills]) for name in names}
    spool.add("fills", {"id": np.arange(int(fills.sum())), "trade_id": belongs[fills], **columns})
    quantity_worth = np.where(trades.worth > 0, trades.worth, 1.0)
    spool.add(
        "trades",
        {
            "id": np.arange(trades.size),
            "symbol": trades.symbol,
            "side": trades.side,
            "entry_ns": trades.entry_ns,
            "exit_ns": trades.exit_ns,
            "entry_price": trades.entry_price,
            "exit_price": trades.exit_price,
            "quantity": trades.quantity,
            "entry_slippage": trades.entry_slippage,
            "exit_slippage": trades.exit_slippage,
            "entry_fees": trades.entry_fees,
            "exit_fees": trades.exit_fees,
            "funding": trades.funding,
            "pnl": trades.pnl,
            "pnl_percent": 100 * trades.pnl / quantity_worth,
            "mae_percent": 100 * trades.mae,
            "mfe_percent": 100 * trades.mfe,
            "reason": trades.reason,
            "crossed_gap": finding.over,
            "is_end": trades.is_end,
        },
    )
    samples = run.samples
    spool.add(
        "equity",
        {
            "time_ns": samples.time_ns,
            "equity": samples.equity,
            "cash": samples.cash,
            "positions_value": samples.worth,
            "unrealized_pnl": samples.unrealised,
            "buy_and_hold": finding.held,
        },
    )
