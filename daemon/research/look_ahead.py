"""Whether a strategy looks ahead: run on the beginning of the data, it must do what it did there on all of them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.backtest import OrderList, Own, Reason
from daemon.core.errors import Code, JobFailed
from daemon.core.market import NS_PER_SECOND
from daemon.engine.latency import delays_of
from daemon.engine.orders import NEVER_NS, Reference
from daemon.engine.simulate import Simulation
from daemon.research.backtest_feeds import feeds_of, latencies_of
from daemon.research.backtest_market import decided, grid_orders
from daemon.research.own_runs import failing, own_runs
from daemon.research.swept import is_fed, swept
from daemon.research.validation_result import LookAhead

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.backtest import BacktestSpec
    from daemon.engine.orders import Records
    from daemon.engine.simulate import Decisions
    from daemon.research.backtest_market import Series
    from daemon.research.own.folder import StrategyFolder
    from daemon.store.bars import BarStore

SHARES: Final = (0.37, 0.61, 0.83)
"""Where the data are cut off: odd places, so that no period of a strategy falls together with all of them."""

FED_SHARES: Final = (0.61,)
"""The same for runs that read ticks, which take longer."""

_MS: Final = 1_000_000
_COMPARED: Final = ("time_ns", "symbol", "side", "reason", "quantity", "price", "fee")


class _Run(NamedTuple):
    """decisions: of each symbol; none where only the log is known, as of own strategies, which signal nothing."""

    decisions: list[Decisions]
    log: Records


def check_look_ahead(
    spec: BacktestSpec,
    series: list[Series],
    year_days: int,
    checkpoint: Callable[[], None] = lambda: None,
    folder: StrategyFolder | None = None,
    store: BarStore | None = None,
    known: Records | None = None,
) -> LookAhead:
    """Compare runs on the beginnings of the data with that on all of them.

    Rules run on bars, also where the backtest is over ticks or a book: bars are what they decide by. folder: of own
    strategies; one that enters nothing is not checked. store: of what these read beside bars. known: the log of the
    backtest itself, which is not run again for those that run as it does.
    JobFailed LOOK_AHEAD where they differ; the message names the first order or signal that does.
    """
    if isinstance(spec.program, OrderList):
        return LookAhead(is_checked=False, cuts=[], words="a list of orders decides nothing")
    if isinstance(spec.program, Own) and folder is None:
        return LookAhead(is_checked=False, cuts=[], words="there is no strategy folder")
    spec = swept(spec)
    if is_fed(spec) and store is None:
        raise AssertionError("runs that read ticks need the store")
    run = partial(_run, spec, year_days=year_days, checkpoint=checkpoint, folder=folder, store=store)
    whole = _Run([], known) if known is not None and is_fed(spec) else run(series)
    if isinstance(spec.program, Own) and not _before(whole.log, NEVER_NS).size:
        return LookAhead(is_checked=False, cuts=[], words="the strategy enters nothing")
    cuts = []
    for share in FED_SHARES if is_fed(spec) else SHARES:
        rows = [each.warmup + int(share * each.bars.size) for each in series]
        if any(row <= each.warmup for row, each in zip(rows, series, strict=True)):
            continue
        cut = [_beginning(each, row) for each, row in zip(series, rows, strict=True)]
        # What all symbols had by then; a symbol that goes on longer may not be compared beyond.
        until_ns = min(int(each.whole.start_ns[-1]) + spec.timeframe.ns for each in cut)
        _compare(spec, series, whole, run(cut), until_ns)
        cuts.append(until_ns // _MS)
    beginnings = f"{len(cuts)} beginnings" if len(cuts) > 1 else "a beginning"
    said = f"the same orders on {beginnings} of the data as on all of them"
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
    *,
    year_days: int,
    checkpoint: Callable[[], None],
    folder: StrategyFolder | None,
    store: BarStore | None,
) -> _Run:
    loaded = [decided(spec, each, checkpoint) for each in series]
    decisions = [each.simulated for each in loaded]
    own = own_runs(spec, folder, series)
    run = Simulation(
        spec,
        decisions,
        [] if store is None else feeds_of(store, spec, loaded),
        year_days=year_days,
        orders=grid_orders(spec, decisions),
        own=own,
        delays=delays_of(spec.latency, [None] * len(loaded) if store is None else latencies_of(store, spec)),
    )
    with failing(own):
        return _Run(decisions, run.run(lambda _: checkpoint()).log)


def _compare(spec: BacktestSpec, series: list[Series], whole: _Run, part: _Run, until_ns: int) -> None:
    for each, ours, theirs in zip(series, whole.decisions or part.decisions, part.decisions, strict=True):
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
    """Return the fills before a time; those that the end of the data made are of the cut, not of the strategy.

    They are known by the price that they refer to: what a strategy closes by its own orders has the same reason.
    """
    by_the_end = (log["reason"] == int(Reason.MANUAL)) & (log["reference_kind"] == int(Reference.CLOSE))
    kept: Records = log[(log["status"] == 0) & (log["time_ns"] < until_ns) & ~by_the_end]
    return kept


def _refused(spec: BacktestSpec, why: str) -> JobFailed:
    drawn = " (or it draws random numbers without a seed)" if isinstance(spec.program, Own) else ""
    return JobFailed(Code.LOOK_AHEAD, f"{spec.name} looks ahead{drawn}: {why}; its result would be worthless")


def _moment(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // NS_PER_SECOND, UTC):%Y-%m-%d %H:%M:%S}"
