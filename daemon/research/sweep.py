"""Many specifications over the same bars: read once, decided once a program, run on threads.

Only what concerns the account and the exits differs from run to run, so the columns of a strategy are computed once for
all specifications that share its rules, and the kernels, which release the GIL, run on every core. A run over a span
begins flat and sees no bar beyond its end; indicators have seen what was before it. What runs fill against is as
`swept` says: bars, or of own strategies the ticks and books that are configured, read from the store for every run.
"""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from daemon.core.backtest import BacktestSpec, OrderList, Own
from daemon.engine import curves, metrics
from daemon.engine.latency import delays_of
from daemon.engine.orders import Reference
from daemon.engine.simulate import Decisions, Simulation
from daemon.engine.trades import trades_of
from daemon.research.backtest_feeds import check_books, feeds_over, latencies_of, latency_used, read_through
from daemon.research.backtest_market import decided, grid_orders, uses_atr, year_days
from daemon.research.own_runs import failing, own_runs
from daemon.research.swept import is_fed, swept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daemon.core.backtest import Program, Target
    from daemon.core.market import Float64s, Int64s, TsNs
    from daemon.engine.latency import MeasuredLatency
    from daemon.engine.simulate import Feed, OwnRun
    from daemon.research.backtest_market import Series, Used
    from daemon.research.own.folder import StrategyFolder
    from daemon.store.bars import BarStore

_POLL_S: Final = 0.1
# A span's copy of the bars and what runs over it are alive once a thread; so many jobs wait at the most.
_WAITING: Final = 4


class Span(NamedTuple):
    """[start, stop) of the starts of bars, ns UTC."""

    start_ns: TsNs
    stop_ns: TsNs


class Tested(NamedTuple):
    """What a specification made of a span.

    day_ns: (d,) int64, days that have bars. returns: (d,) float64, daily fractions. growth: final / initial equity.
    max_drawdown: fraction of the peak, positive. trades: closed. time_ns, equity: (n,) at every close, empty unless
    they were asked for.
    """

    day_ns: Int64s
    returns: Float64s
    growth: float
    max_drawdown: float
    trades: int
    time_ns: Int64s
    equity: Float64s


NOTHING: Final = Tested(np.empty(0, dtype=np.int64), np.empty(0), 1.0, 0.0, 0, np.empty(0, dtype=np.int64), np.empty(0))
"""Of a span without bars."""


def score(tested: Tested, target: Target, periods: int) -> float | None:
    """Say what a run is worth by a target; None where it is undefined, such as a Sharpe ratio without deviation."""
    match target:
        case "sharpe":
            return metrics.sharpe_ratio(tested.returns, periods)
        case "sortino":
            return metrics.sortino_ratio(tested.returns, periods)
        case "calmar":
            return metrics.calmar_ratio(tested.returns, periods)
        case "return":
            return tested.growth - 1


def best_of(scores: Sequence[float | None]) -> int | None:
    """Return the place of the highest score, the first of equal ones; None where none is defined."""
    known = [(value, -place) for place, value in enumerate(scores) if value is not None and not math.isnan(value)]
    return -max(known)[1] if known else None


class Sweep:
    """Series of one backtest, ready to be run by many specifications that trade the same markets and bars."""

    def __init__(
        self,
        spec: BacktestSpec,
        series: Sequence[Series],
        threads: int | None = None,
        folder: StrategyFolder | None = None,
        store: BarStore | None = None,
    ) -> None:
        """spec: what is common to all: markets, timeframe, dates. threads: None for one a core.

        folder: of own strategies. store: of what these read beside bars.
        """
        self._folder = folder
        self._store = store
        self._latencies: list[MeasuredLatency | None] | None = None
        self._spec = spec
        self.series = list(series)
        self._threads = threads or os.cpu_count() or 1
        self._runs: dict[str, OwnRun] = {}
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self.year_days = spec.calendar_days or max(year_days(each.bars.start_ns) for each in series)

    @property
    def span(self) -> Span:
        """All of it."""
        width_ns = self._spec.timeframe.ns
        return Span(
            min(int(each.bars.start_ns[0]) for each in self.series),
            max(int(each.bars.start_ns[-1]) for each in self.series) + width_ns,
        )

    @property
    def bars(self) -> int:
        """Rows of all series."""
        return sum(each.bars.size for each in self.series)

    def run(
        self,
        specs: Sequence[BacktestSpec],
        spans: Sequence[Span],
        checkpoint: Callable[[], None] = lambda: None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> list[list[Tested]]:
        """Run every specification over every span; returns a list a specification, in their order.

        checkpoint: called some ten times a second; what it raises ends the sweep. progress: told how many runs are
        done.
        """
        specs = [swept(spec) for spec in specs]
        found: list[list[Tested]] = [[NOTHING] * len(spans) for _ in specs]
        programs: dict[object, list[int]] = {}
        for place, spec in enumerate(specs):
            programs.setdefault(_decided_by(spec.program), []).append(place)
        done = 0
        with ThreadPoolExecutor(self._threads) as pool:
            running: dict[Future[list[Tested]], tuple[list[int], int]] = {}
            try:
                for places, which, decisions in self._jobs(specs, programs, spans, checkpoint):
                    job = pool.submit(self._all, [specs[place] for place in places], decisions, spans[which])
                    running[job] = places, which
                    while len(running) >= _WAITING * self._threads:
                        done += _collect(running, found, checkpoint, progress, done)
                while running:
                    done += _collect(running, found, checkpoint, progress, done)
            finally:
                for each in running:
                    each.cancel()
        return found

    def one(self, spec: BacktestSpec, span: Span, *, keeps_curve: bool = False) -> Tested:
        """Run one specification over one span."""
        spec = swept(spec)
        return self._tested(spec, _cut(self._decisions(spec), span, spec.timeframe.ns), span, keeps_curve=keeps_curve)

    def _jobs(
        self,
        specs: Sequence[BacktestSpec],
        programs: dict[object, list[int]],
        spans: Sequence[Span],
        checkpoint: Callable[[], None],
    ) -> Iterator[tuple[list[int], int, list[Decisions]]]:
        """Yield the specifications of one program, a span, and what the program decides; few specifications at a time.

        Long jobs would leave a core idle at the end and a cancellation waiting. Each of an own strategy is a job:
        nobody knows how long it takes, and its time is counted from the progress before it.
        """
        for places in programs.values():
            checkpoint()
            # With the ATR where any asks for it: one that has its exits in ATR switched off does not.
            decisions = self._decisions(max((specs[place] for place in places), key=uses_atr))
            size = max(1, -(-len(places) // (8 * self._threads))) if len(spans) == 1 else len(places)
            if isinstance(specs[places[0]].program, Own):
                size = 1
            for which in range(len(spans)):
                for at in range(0, len(places), size):
                    yield places[at : at + size], which, decisions

    def _decisions(self, spec: BacktestSpec) -> list[Decisions]:
        return [decided(spec, each).simulated for each in self.series]

    def _all(self, specs: list[BacktestSpec], decisions: list[Decisions], span: Span) -> list[Tested]:
        cut = _cut(decisions, span, self._spec.timeframe.ns)
        return [self._tested(spec, cut, span) for spec in specs]

    def _tested(
        self, spec: BacktestSpec, decisions: list[Decisions], span: Span, *, keeps_curve: bool = False
    ) -> Tested:
        if not any(each.close_ns.size for each in decisions):
            return NOTHING
        orders = grid_orders(spec, decisions)
        if isinstance(spec.program, OrderList):
            inside = [each for each in spec.program.orders if span.start_ns <= each.time_ns < span.stop_ns]
            spec = msgspec.structs.replace(spec, program=OrderList(tuple(inside)))
        own = self._own(spec, span)
        simulation = Simulation(
            spec,
            decisions,
            self._feeds(spec, decisions),
            year_days=self.year_days,
            orders=orders,
            own=own,
            delays=delays_of(spec.latency, self._measured(spec)),
        )
        # Handlers that run as Python share one lock of the interpreter: side by side each would only take longer, and
        # its budget is one run's.
        takes_turns = simulation.compiled is not None and simulation.compiled.uncompiled
        with self._turn if takes_turns else nullcontext(), failing(own):
            outcome = simulation.run()
        if span == self.span:  # a part may begin before the first snapshot
            check_books(spec, outcome.books)
        samples, initial = outcome.samples, spec.account.initial_capital
        daily = curves.daily_returns(samples.time_ns, samples.equity, initial, span.start_ns)
        share = np.maximum.accumulate(samples.equity)
        np.maximum(share, initial, out=share)
        np.divide(samples.equity, share, out=share)
        trades, _ = trades_of(outcome.log, len(decisions), int(Reference.CLOSE))
        return Tested(
            daily.day_ns,
            daily.returns,
            float(samples.equity[-1]) / initial,
            1 - float(share.min()),
            trades.size,
            samples.time_ns if keeps_curve else NOTHING.time_ns,
            samples.equity if keeps_curve else NOTHING.equity,
        )

    def fed(self, spec: BacktestSpec, checkpoint: Callable[[], None]) -> list[Used]:
        """Read through all that runs of a specification read beside bars, and say what it is."""
        read = read_through(self._feeds(spec, self._decisions(spec)), checkpoint)
        return read + [latency_used(each) for each in self._measured(spec) if each is not None]

    def _feeds(self, spec: BacktestSpec, decisions: list[Decisions]) -> list[Feed]:
        """Open what fills are made against, of each symbol from its first bar to its last."""
        if not is_fed(spec):
            return []
        width_ns = spec.timeframe.ns
        ends = [each.close_ns[[0, -1]].tolist() if each.close_ns.size else (width_ns, 0) for each in decisions]
        return feeds_over(self._known_store, spec, [(first - width_ns, last) for first, last in ends])

    def _measured(self, spec: BacktestSpec) -> list[MeasuredLatency | None]:
        if not spec.latency.measured:
            return [None] * len(spec.markets)
        with self._lock:
            if self._latencies is None:
                self._latencies = latencies_of(self._known_store, spec)
            return self._latencies

    @property
    def _known_store(self) -> BarStore:
        if self._store is None:
            raise AssertionError("runs that read ticks need the store")
        return self._store

    def _own(self, spec: BacktestSpec, span: Span) -> OwnRun | None:
        """Return an own strategy with its columns at the bars of a span; they have seen what was before it."""
        if not isinstance(spec.program, Own):
            return None
        with self._lock:
            if spec.program.digest not in self._runs:
                whole = own_runs(spec, self._folder, self.series)
                if whole is not None:
                    self._runs[spec.program.digest] = whole
            run = self._runs[spec.program.digest]
        columns = []
        for each, whole_columns in zip(self.series, run.columns, strict=True):
            first, last = np.searchsorted(each.bars.start_ns, [span.start_ns, span.stop_ns])
            columns.append(np.ascontiguousarray(whole_columns[:, first:last]))
        start_ns = max(span.start_ns, run.start_ns)
        return run._replace(parameters=spec.program.parameters, columns=columns, start_ns=start_ns)


def _decided_by(program: Program) -> object:
    """Return what specifications share that decide alike: of an own strategy its source, whatever its parameters."""
    return ("own", program.digest) if isinstance(program, Own) else program


def _collect(
    running: dict[Future[list[Tested]], tuple[list[int], int]],
    found: list[list[Tested]],
    checkpoint: Callable[[], None],
    progress: Callable[[int], None],
    done: int,
) -> int:
    """Take in what is ready, and return how many runs that were."""
    ready, _ = wait(running, timeout=_POLL_S, return_when=FIRST_COMPLETED)
    count = 0
    for job in ready:
        places, which = running.pop(job)
        for place, tested in zip(places, job.result(), strict=True):
            found[place][which] = tested
        count += len(places)
    if count:
        progress(done + count)
    checkpoint()
    return count


def _cut(decisions: list[Decisions], span: Span, width_ns: int) -> list[Decisions]:
    """Return the rows of bars that start in a span, C-contiguous as kernels take them, and the funding in it."""
    return [_rows(each, span, width_ns) for each in decisions]


def _rows(one: Decisions, span: Span, width_ns: int) -> Decisions:
    first, last = np.searchsorted(one.close_ns, [span.start_ns + width_ns, span.stop_ns + width_ns])
    if first == 0 and last == one.close_ns.size:
        return one
    paid_from, paid_to = np.searchsorted(one.funding_ns, [span.start_ns, span.stop_ns])
    return Decisions(
        one.close_ns[first:last],
        np.ascontiguousarray(one.values[:, first:last]),
        one.signals[first:last],
        one.atr[first:last],
        one.sigma[first:last],
        one.day_volume[first:last],
        one.funding_ns[paid_from:paid_to],
        one.funding_rate[paid_from:paid_to],
        one.ladders._replace(row=one.ladders.row[first:last]),
    )
