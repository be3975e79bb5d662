"""An optimisation from its plan to its result: what a worker does, be it a thread or a process.

A point is run over exactly the bars that a backtest of it would read, so its figures are that backtest's. This is where
numba and TA-Lib are loaded, so only workers import this module.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from typing import TYPE_CHECKING, Final

import numpy as np

from daemon.core.backtest import Own
from daemon.core.market import NS_PER_DAY
from daemon.engine import metrics
from daemon.research.backtest_outcome import inputs_digest
from daemon.research.look_ahead import check_look_ahead
from daemon.research.optimization.judging import Grounds, judge
from daemon.research.optimization.landscape import Landscape
from daemon.research.optimization.proposals import proposer
from daemon.research.optimization.records import (
    FIGURES,
    MOST_CELLS,
    SERIES_KEPT,
    OptimizationProgress,
    Rows,
    stored_rows,
)
from daemon.research.optimization.result import (
    OptimizationExecution,
    OptimizationResult,
    Plateau,
    TriedPoint,
    TriedRange,
)
from daemon.research.overfitting import overfitting
from daemon.research.parameters import Space
from daemon.research.sweep import score
from daemon.research.sweeps import Sweeps
from daemon.research.swept import said_of, swept
from daemon.research.trials import counted, fingerprints, idea_of, stored_idea, trial_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daemon.core.backtest import BacktestSpec
    from daemon.research.optimization.landscape import Neighbourhood
    from daemon.research.optimization.records import OptimizationJob
    from daemon.research.parameters import Point
    from daemon.research.strategies import RuleBook
    from daemon.research.sweep import Tested
    from daemon.research.trials import Trial
    from daemon.research.validation_result import Overfitting, Verdict
    from daemon.store.bars import BarStore

_TOP: Final = 50
# Share of the time that trying takes; judging has the rest.
_TRYING: Final = 0.9
# Bars that are run between two blocks of points that are stored: some seconds' work that a kill may lose.
_BARS_AT_ONCE: Final = 40_000_000
_SECONDS_AT_ONCE: Final = 4.0
_LEAST_AT_ONCE: Final = 16
_MOST_AT_ONCE: Final = 256
_NS_PER_MS: Final = 1_000_000


def optimize(
    bars: BarStore,
    job: OptimizationJob,
    progress: Callable[[OptimizationProgress], None],
    checkpoint: Callable[[], None],
    book: RuleBook,
) -> OptimizationResult:
    """Try the points of a plan, those that are stored left out, and judge what came of all.

    progress: told how far it is, and given every block of points to store. checkpoint: called often; what it raises
    ends the optimisation. NotFound NO_BARS where the dates hold none.
    """
    started_ms = time.time_ns() // _NS_PER_MS
    search = _Search(bars, job, progress, checkpoint, book)
    reused = search.count
    search.run()
    return search.conclude(started_ms, reused)


class _Search:
    """Points tried so far, and what came of them."""

    def __init__(
        self,
        bars: BarStore,
        job: OptimizationJob,
        progress: Callable[[OptimizationProgress], None],
        checkpoint: Callable[[], None],
        book: RuleBook,
    ) -> None:
        plan = self._plan = job.plan
        self._id = job.optimization_id
        self._progress, self._checkpoint = progress, checkpoint
        self._spec = swept(plan.spec)
        self._space = Space(plan.config, plan.spec, bars, book, job.profiles)
        self._bars, self._folder = bars, book.own
        self._sweeps = Sweeps(bars, kept=SERIES_KEPT, folder=book.own)
        self._sweep = self._sweeps.of(self._spec)
        self._digest, self._ticks = self._inputs()
        self._idea = idea_of(self._spec)
        self._known: dict[tuple[float, ...], int] = {}
        self._keys: list[tuple[float, ...]] = []
        self._figures: list[tuple[float, ...]] = []
        self._kept: dict[int, Tested] = {}
        span = self._sweep.span
        days = max((span.stop_ns - span.start_ns) // NS_PER_DAY, 1)
        # Of how many points one's daily returns are kept, to judge the choice by.
        self._stride = -(-plan.points * days // MOST_CELLS)
        self._part = os.cpu_count() or 1
        self._batch = min(max(_BARS_AT_ONCE // (self._sweep.bars + self._ticks), _LEAST_AT_ONCE), _MOST_AT_ONCE)
        with bars.ticks.env.read() as transaction:
            self._tried = fingerprints(transaction, self._idea)
            self._tries = stored_idea(transaction, self._idea)
            self._tried_before = len(self._tried)
            for rows in stored_rows(transaction, self._id):
                # Else the bars are others now, or points before these could not be stored.
                if rows.digest == self._digest and rows.first == self.count:
                    self._tried_before = rows.tried_before
                    values, figures = rows.table(len(plan.ranges))
                    for one, of_it in zip(values.tolist(), figures.tolist(), strict=True):
                        self._add(tuple(one), tuple(of_it))

    def _inputs(self) -> tuple[str, int]:
        """Return a digest of what points rest on, and how many ticks one reads at the most.

        They rest on the configuration, the engine, and all rows that any end of a range reads.
        """
        ranges = self._plan.ranges
        lows = {each.name: each.low for each in ranges}
        ends = [swept(self._space.at(lows | high)) for high in ({}, *({each.name: each.high} for each in ranges))]
        read = dict.fromkeys(digest for end in ends for digest in self._sweeps.source(end).digests)
        fed = [self._sweeps.fed(end, self._checkpoint) for end in ends]
        read |= dict.fromkeys(each.digest for of_end in fed for each in of_end)
        return inputs_digest(ends[0], list(read)), max(sum(each.rows for each in of_end) for of_end in fed)

    @property
    def count(self) -> int:
        """How many points are known."""
        return len(self._figures)

    def run(self) -> None:
        """Try whatever is not known yet, and have it stored block by block."""
        plan = self._plan
        ask = proposer(plan)
        self._look_ahead()
        [self._configured] = self._sweeps.whole([self._spec], self._checkpoint, lambda _: self._said(0.0))
        asked = 0
        tried = [self._trial(self._spec, self._configured)]
        while asked < plan.points:
            self._checkpoint()
            points = ask.ask(min(self._batch, plan.points - asked))
            if not points:
                break
            new = {key: point for point in points if (key := self._key(point)) not in self._known}
            at = asked
            for part in self._parts(new):
                self._try(part, at, tried)
                at, tried = at + len(part), []
            asked += len(points)
            self._said(_TRYING * asked / plan.points)
            ask.tell([_number(self._figures[self._known[self._key(point)]][0]) for point in points])

    def _look_ahead(self) -> None:
        """Refuse an own strategy that looks ahead, as a backtest would: JobFailed LOOK_AHEAD.

        Before anything of it is in the ledger, which has a backtest of a point taken for one that was checked.
        """
        spec, sweep = self._spec, self._sweep
        fingerprint = inputs_digest(spec, self._sweeps.source(spec).digests)
        if isinstance(spec.program, Own) and fingerprint not in self._tried:
            check_look_ahead(spec, sweep.series, sweep.year_days, self._checkpoint, self._folder, self._bars)
            self._said(0.0)

    def _parts(self, new: dict[tuple[float, ...], Point]) -> Iterator[dict[tuple[float, ...], Point]]:
        """Yield points to be tried and stored together; of own strategies, whose speed nobody knows, as time tells."""
        if not isinstance(self._spec.program, Own):
            yield from [new] if new else []
            return
        points = iter(new.items())
        while part := dict(itertools.islice(points, self._part)):
            began_s = time.monotonic()
            yield part
            took_s = time.monotonic() - began_s
            if took_s < _SECONDS_AT_ONCE / 2:
                self._part = min(2 * self._part, self._batch)
            elif took_s > _SECONDS_AT_ONCE:
                self._part = max(self._part // 2, os.cpu_count() or 1)

    def _try(self, new: dict[tuple[float, ...], Point], asked: int, tried: list[Trial]) -> None:
        first = self.count
        specs = [swept(self._space.at(point)) for point in new.values()]
        found = self._sweeps.whole(
            specs, self._checkpoint, lambda done: self._said(_TRYING * (asked + done) / self._plan.points)
        )
        for key, spec, tested in zip(new, specs, found, strict=True):
            tried.append(self._trial(spec, tested))
            if self.count % self._stride == 0:
                self._keep(self.count, tested)
            self._add(key, self._measured(spec, tested))
        rows = Rows(
            first,
            self._digest,
            self._tried_before,
            np.array(list(new), dtype=np.float64).tobytes(),
            np.array(self._figures[first:], dtype=np.float64).tobytes(),
        )
        self._said(_TRYING * (asked + len(new)) / self._plan.points, rows, tuple(tried))

    def _trial(self, spec: BacktestSpec, tested: Tested) -> Trial:
        """Say what the ledger counts, and count it for this verdict."""
        fingerprint = inputs_digest(spec, self._sweeps.source(spec).digests)
        trial = trial_of(self._idea, fingerprint, spec.name, tested.returns, 100 * (tested.growth - 1))
        if trial.fingerprint not in self._tried:
            self._tried.add(trial.fingerprint)
            self._tries = counted(self._tries, trial)
        return trial

    def _measured(self, spec: BacktestSpec, tested: Tested) -> tuple[float, ...]:
        """Return FIGURES, NaN for None."""
        days = self._sweeps.source(spec).year_days
        sharpe = metrics.sharpe_ratio(tested.returns, days)
        reached = score(tested, self._plan.target, days)
        figures = reached, sharpe, 100 * (tested.growth - 1), 100 * tested.max_drawdown, tested.trades
        return tuple(math.nan if each is None else float(each) for each in figures)

    def _key(self, point: Point) -> tuple[float, ...]:
        return tuple(point[each.name] for each in self._plan.ranges)

    def _add(self, key: tuple[float, ...], figures: tuple[float, ...]) -> None:
        self._known[key] = self.count
        self._keys.append(key)
        self._figures.append(figures)

    def _keep(self, number: int, tested: Tested) -> None:
        """Keep daily returns; the days of most points are the same, and held once."""
        day_ns = self._configured.day_ns if np.array_equal(tested.day_ns, self._configured.day_ns) else tested.day_ns
        self._kept[number] = tested._replace(day_ns=day_ns)

    def _said(self, fraction: float, rows: Rows | None = None, tried: tuple[Trial, ...] = ()) -> None:
        self._progress(OptimizationProgress(fraction, rows=rows, tried=tried))

    # What came of it.

    def conclude(self, started_ms: int, reused: int) -> OptimizationResult:
        plan, spec = self._plan, self._spec
        values, figures = np.array(self._keys), np.array(self._figures)
        scores = figures[:, FIGURES.index("score")]
        landscape = Landscape(plan.ranges, values, scores)
        best = landscape.best(_TOP).tolist()
        self._run_again([*range(0, self.count, self._stride), *best[:1]])
        self._said(_TRYING)
        kept = [self._kept[number] for number in sorted(self._kept)]
        chosen = overfitting(kept, os.cpu_count() or 1, self._checkpoint)
        self._checkpoint()
        around = self._plateau(landscape.around(best[0])) if best else None
        peak = self._point(best[0]) if best else None
        completed_ms = time.time_ns() // _NS_PER_MS
        return OptimizationResult(
            id=self._id,
            name=spec.name,
            target=plan.target,
            method=plan.method,
            budget=plan.points,
            seed=plan.seed,
            config=plan.config,
            symbols=[market.instrument.key for market in spec.markets],
            timeframe=str(spec.timeframe),
            days=self._configured.returns.size,
            ranges=[
                TriedRange(name=each.name, values=list(each.values), low=each.low, high=each.high)
                for each in plan.ranges
            ],
            points=self.count,
            undefined=int(np.isnan(scores).sum()),
            configured=_tried(-1, {}, self._measured(spec, self._configured)),
            peak=peak,
            peak_plateau=around,
            plateau=self._plateau(landscape.plateau(self._checkpoint)),
            top=[self._point(place) for place in best],
            surfaces=landscape.surfaces(),
            verdict=self._judged(peak, around, chosen),
            overfitting=chosen,
            notes=self._notes(len(kept)),
            execution=OptimizationExecution(
                started_at=started_ms,
                completed_at=completed_ms,
                duration=completed_ms - started_ms,
                bars=self._sweep.bars,
                reused=reused,
            ),
        )

    def _judged(self, peak: TriedPoint | None, around: Plateau | None, chosen: Overfitting | None) -> Verdict:
        """Put the questions to the peak; where there is none, to the configuration."""
        tested, spec = self._configured, self._spec
        if peak is not None:
            tested, spec = self._kept[peak.number], self._at(peak.number)
        return judge(
            Grounds(
                target=self._plan.target,
                points=self.count,
                peak=peak,
                plateau=around,
                returns=tested.returns,
                year_days=self._sweeps.source(spec).year_days,
                idea=self._idea,
                tries=self._tries,
                trials=len(self._tried),
                tried_before=self._tried_before,
                overfitting=chosen,
                fills=self._spec.fills,
            )
        )

    def _run_again(self, numbers: Sequence[int]) -> None:
        """Run points whose daily returns are not at hand: an earlier process tried them, or they are the peak."""
        missing = sorted({number for number in numbers if number not in self._kept})
        for at in range(0, len(missing), self._batch):
            part = missing[at : at + self._batch]
            specs = [self._at(number) for number in part]
            again = self._sweeps.whole(specs, self._checkpoint, lambda _: self._said(_TRYING))
            for number, tested in zip(part, again, strict=True):
                self._keep(number, tested)

    def _plateau(self, around: Neighbourhood | None) -> Plateau | None:
        if around is None:
            return None
        point = self._point(around.place)
        is_measured = around.score is not None and point.score is not None and point.score > 0
        return Plateau(
            point=point,
            score=around.score,
            lowest=around.lowest,
            neighbours=around.neighbours,
            undefined=around.undefined,
            share=around.score / point.score if is_measured and around.score is not None and point.score else None,
        )

    def _at(self, number: int) -> BacktestSpec:
        return swept(self._space.at(self._named(self._keys[number])))

    def _point(self, number: int) -> TriedPoint:
        return _tried(number, self._named(self._keys[number]), self._figures[number])

    def _named(self, key: Sequence[float]) -> Point:
        return {each.name: value for each, value in zip(self._plan.ranges, key, strict=True)}

    def _notes(self, judged: int) -> list[str]:
        said = [why] if (why := said_of(self._plan.spec)) is not None else []
        if self.count < self._plan.points:
            said.append(f"{self.count:,} different points were proposed within a budget of {self._plan.points:,}")
        if judged < self.count:
            said.append(f"the choice was judged by {judged:,} of {self.count:,} points, evenly spaced, and the peak")
        return said


def _number(figure: float) -> float | None:
    return None if math.isnan(figure) else figure


def _tried(number: int, parameters: Point, figures: Sequence[float]) -> TriedPoint:
    score_of, sharpe, earned, drawdown, trades = figures
    return TriedPoint(
        number=number,
        parameters=parameters,
        score=_number(score_of),
        sharpe_ratio=_number(sharpe),
        total_return_percent=earned,
        max_drawdown_percent=drawdown,
        total_trades=int(trades),
    )
