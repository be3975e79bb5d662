"""Whether a strategy looks ahead: run on the beginning of the data, it must do what it did there on all of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from daemon.core.backtest import OrderList, Own, Reason
from daemon.core.errors import Code, JobFailed
from daemon.core.market import NS_PER_SECOND
from daemon.engine.orders import NEVER_NS
from daemon.engine.simulate import Simulation
from daemon.research.backtest_config.own import is_called_on_bars
from daemon.research.backtest_market import decided, grid_orders
from daemon.research.own_runs import failing, own_runs
from daemon.research.validation_result import LookAhead

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.backtest import BacktestSpec
    from daemon.engine.orders import Records
    from daemon.engine.simulate import Decisions
    from daemon.research.backtest_market import Series
    from daemon.research.own.folder import StrategyFolder

SHARES: Final = (0.37, 0.61, 0.83)
"""Where the data are cut off: odd places, so that no period of a strategy falls together with all of them."""

_MS: Final = 1_000_000
_COMPARED: Final = ("time_ns", "symbol", "side", "reason", "quantity", "price", "fee")


class _Run(NamedTuple):
    decisions: list[Decisions]
    log: Records


def check_look_ahead(
    spec: BacktestSpec,
    series: list[Series],
    year_days: int,
    checkpoint: Callable[[], None] = lambda: None,
    folder: StrategyFolder | None = None,
) -> LookAhead:
    """Compare runs on the beginnings of the data with that on all of them.

    Runs on bars, also where the backtest is over ticks or a book: bars are what strategies decide by. folder: of own
    strategies; one that is not called for bars or times, or enters nothing on them, is not checked.
    JobFailed LOOK_AHEAD where they differ; the message names the first order or signal that does.
    """
    if isinstance(spec.program, OrderList):
        return LookAhead(is_checked=False, cuts=[], words="a list of orders decides nothing")
    if isinstance(spec.program, Own):
        if folder is None:
            return LookAhead(is_checked=False, cuts=[], words="there is no strategy folder")
        if not is_called_on_bars(spec.program, folder):
            return LookAhead(is_checked=False, cuts=[], words="the strategy is not called for bars or times")
        spec = msgspec.structs.replace(spec, fills="bars")
    whole = _run(spec, series, year_days, checkpoint, folder)
    if isinstance(spec.program, Own) and not _before(whole.log, NEVER_NS).size:
        return LookAhead(is_checked=False, cuts=[], words="on bars, where this is checked, the strategy enters nothing")
    cuts = []
    for share in SHARES:
        rows = [each.warmup + int(share * each.bars.size) for each in series]
        if any(row <= each.warmup for row, each in zip(rows, series, strict=True)):
            continue
        cut = [_beginning(each, row) for each, row in zip(series, rows, strict=True)]
        # What all symbols had by then; a symbol that goes on longer may not be compared beyond.
        until_ns = min(int(each.whole.start_ns[-1]) + spec.timeframe.ns for each in cut)
        _compare(spec, series, whole, _run(spec, cut, year_days, checkpoint, folder), until_ns)
        cuts.append(until_ns // _MS)
    said = f"the same orders on {len(cuts)} beginnings of the data as on all of them"
    return LookAhead(is_checked=bool(cuts), cuts=cuts, words=said if cuts else "too few bars to cut the data off")


def _beginning(series: Series, rows: int) -> Series:
    stop_ns = int(series.whole.start_ns[rows])
    paid = int(np.searchsorted(series.funding_ns, stop_ns))
    return series._replace(
        whole=series.whole.rows(0, rows),
        volume=series.volume[:rows],
        sigma=series.sigma[:rows],
        day_volume=series.day_volume[:rows],
        funding_ns=series.funding_ns[:paid],
        funding_rate=series.funding_rate[:paid],
    )


def _run(
    spec: BacktestSpec,
    series: list[Series],
    year_days: int,
    checkpoint: Callable[[], None],
    folder: StrategyFolder | None,
) -> _Run:
    decisions = [decided(spec, each, checkpoint).simulated for each in series]
    own = own_runs(spec, folder, series)
    run = Simulation(spec, decisions, year_days=year_days, orders=grid_orders(spec, decisions), own=own)
    with failing(own):
        return _Run(decisions, run.run(lambda _: checkpoint()).log)


def _compare(spec: BacktestSpec, series: list[Series], whole: _Run, part: _Run, until_ns: int) -> None:
    for each, ours, theirs in zip(series, whole.decisions, part.decisions, strict=True):
        differs = np.flatnonzero(ours.signals[: theirs.signals.size] != theirs.signals)
        if differs.size:
            at = _moment(int(theirs.close_ns[differs[0]]))
            name = each.market.instrument.key
            raise _refused(spec, f"the signal of {name} at {at} is another where the data end {_moment(until_ns)}")
    fills, repeated = _before(whole.log, until_ns), _before(part.log, until_ns)
    both = min(fills.size, repeated.size)
    differs = np.flatnonzero(np.any([fills[field][:both] != repeated[field][:both] for field in _COMPARED], axis=0))
    first = int(differs[0]) if differs.size else both
    if first < max(fills.size, repeated.size):
        row = (fills if first < fills.size else repeated)[first]
        side = "buy" if row["side"] > 0 else "sell"
        name = series[int(row["symbol"])].market.instrument.key
        raise _refused(
            spec,
            f"order {first + 1} ({side} {float(row['quantity']):.8g} {name} at {_moment(int(row['time_ns']))}) is "
            f"another, or missing, where the data end {_moment(until_ns)}",
        )


def _before(log: Records, until_ns: int) -> Records:
    """Return the fills before a time; those that the end of the data made are of the cut, not of the strategy."""
    kept: Records = log[(log["status"] == 0) & (log["time_ns"] < until_ns) & (log["reason"] != int(Reason.MANUAL))]
    return kept


def _refused(spec: BacktestSpec, why: str) -> JobFailed:
    return JobFailed(Code.LOOK_AHEAD, f"{spec.name} looks ahead: {why}; its result would be worthless")


def _moment(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // NS_PER_SECOND, UTC):%Y-%m-%d %H:%M:%S}"
