"""Walk-forward: parameters chosen on the past, traded on what came next, fold by fold."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from daemon.core.backtest import OrderList
from daemon.core.market import NS_PER_DAY
from daemon.engine import curves, metrics, validation
from daemon.research.own_runs import needed_bars
from daemon.research.parameters import grid, grid_size
from daemon.research.ranges import invalid, read_range
from daemon.research.sweep import NOTHING, Span, best_of, score
from daemon.research.sweeps import Sweeps
from daemon.research.validation_result import Fold, ParameterStability, StitchedPoint, WalkForward

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.core.backtest import BacktestSpec, Validation
    from daemon.research.own.folder import StrategyFolder
    from daemon.research.parameters import Point, Space
    from daemon.research.ranges import Range
    from daemon.research.sweep import Tested
    from daemon.store.bars import BarStore

MOST_SETS: Final = 10_000
"""Parameter sets of one walk-forward; more belong into an optimisation."""

LEAST_FOLDS: Final = 2

_SCREEN_ROWS: Final = 2_000
_MS: Final = 1_000_000


class Choices(NamedTuple):
    """What is chosen from: the ranges, every point of their grid, and the specification at each."""

    ranges: list[Range]
    points: list[Point]
    specs: list[BacktestSpec]


class _Stitched(NamedTuple):
    """Tests one after another, each with the money that the one before left."""

    tests: list[Tested]
    final: float


def choices_of(spec: BacktestSpec, space: Space) -> Choices:
    """Read what a configuration says is to be tried, else the usual factors; InvalidRequest INVALID_PARAMETER."""
    asked = spec.validation.parameters if spec.validation else None
    if asked is None:
        ranges = [] if isinstance(spec.program, OrderList) else space.usual
    else:
        ranges = [read_range(name, list(values)) for name, values in asked.items()]
    if grid_size(ranges) > MOST_SETS:
        raise invalid(
            ranges[0].name,
            f"all ranges together are {grid_size(ranges):,} sets, more than the {MOST_SETS:,} of a walk-forward: give "
            "fewer values, or optimise",
        )
    space.check(ranges)
    points = list(grid(ranges))
    return Choices(ranges, points, [space.at(point) for point in points])


def sweeps_of(bars: BarStore, spec: BacktestSpec, choices: Choices, folder: StrategyFolder | None = None) -> Sweeps:
    """Return what choices run over, all with the longest warm-up that any of them needs. folder: of own strategies."""
    warmup = max(needed_bars(each, folder) for each in (spec, *choices.specs))
    return Sweeps(bars, kept=1, warmup=warmup, folder=folder)


def walk_forward(
    spec: BacktestSpec,
    asked: Validation,
    choices: Choices,
    sweeps: Sweeps,
    checkpoint: Callable[[], None] = lambda: None,
    progress: Callable[[float], None] = lambda _: None,
) -> WalkForward:
    """Walk through the data. Where there is no room for two folds the result has none, and a note that says so."""
    base = sweeps.of(spec)
    span, year_days = base.span, base.year_days
    del base  # points may vary what is read, and only so many series are held
    cuts = validation.folds(
        span.start_ns,
        span.stop_ns,
        window_ns=asked.window_size * NS_PER_DAY,
        step_ns=asked.step_size * NS_PER_DAY,
        is_anchored=asked.mode == "anchored",
    )
    if len(cuts) < LEAST_FOLDS:
        days = (span.stop_ns - span.start_ns) / NS_PER_DAY
        note = (
            f"{days:,.1f} days of data have room for {len(cuts)} folds of {asked.window_size} days of training and "
            f"{asked.step_size} of test: at least {LEAST_FOLDS} are needed"
        )
        return _without_folds(asked, choices, note)
    total = len(choices.specs) * len(cuts)
    trained = sweeps.run(
        choices.specs,
        [Span(each.train_start_ns, each.train_stop_ns) for each in cuts],
        checkpoint,
        lambda done: progress(done / total),
    )
    chosen = []
    scores: list[list[float | None]] = []
    for place in range(len(cuts)):
        scores.append([score(runs[place], asked.target, year_days) for runs in trained])
        chosen.append(best_of(scores[-1]))
    spans = [Span(each.test_start_ns, each.test_stop_ns) for each in cuts]
    tested = _stitch(spec, [spec if place is None else choices.specs[place] for place in chosen], spans, sweeps)
    checkpoint()
    configured = _stitch(spec, [spec] * len(cuts), spans, sweeps)
    folds = [
        _fold(
            number, cut, {} if place is None else choices.points[place],
            None if place is None else scores[number][place],
            NOTHING if place is None else trained[place][number],
            tested.tests[number], configured.tests[number], year_days,
        )
        for number, (cut, place) in enumerate(zip(cuts, chosen, strict=True))
    ]  # fmt: skip
    undefined = sum(place is None for place in chosen)
    return _whole(spec, asked, choices, folds, tested, configured, year_days, undefined)


def _stitch(spec: BacktestSpec, specs: Sequence[BacktestSpec], spans: Sequence[Span], sweeps: Sweeps) -> _Stitched:
    """Trade tests in their order; nothing is traded any more once the money is gone."""
    equity = spec.account.initial_capital
    found = []
    for each, span in zip(specs, spans, strict=True):
        if equity <= 0:
            found.append(NOTHING)
            continue
        account = msgspec.structs.replace(each.account, initial_capital=equity)
        run = sweeps.of(each).one(msgspec.structs.replace(each, account=account), span, keeps_curve=True)
        found.append(run)
        equity *= run.growth
    return _Stitched(found, equity)


def _fold(
    number: int,
    cut: validation.Fold,
    point: Point,
    chosen_by: float | None,
    trained: Tested,
    tested: Tested,
    configured: Tested,
    periods: int,
) -> Fold:
    return Fold(
        number=number + 1,
        train_start=cut.train_start_ns // _MS,
        train_end=cut.train_stop_ns // _MS,
        test_start=cut.test_start_ns // _MS,
        test_end=cut.test_stop_ns // _MS,
        parameters=point,
        in_sample_score=chosen_by,
        in_sample_sharpe=metrics.sharpe_ratio(trained.returns, periods),
        in_sample_return_percent=100 * (trained.growth - 1),
        in_sample_trades=trained.trades,
        out_of_sample_sharpe=metrics.sharpe_ratio(tested.returns, periods),
        out_of_sample_return_percent=100 * (tested.growth - 1),
        out_of_sample_trades=tested.trades,
        configured_return_percent=100 * (configured.growth - 1),
    )


def _whole(
    spec: BacktestSpec,
    asked: Validation,
    choices: Choices,
    folds: list[Fold],
    tested: _Stitched,
    configured: _Stitched,
    year_days: int,
    undefined: int,
) -> WalkForward:
    initial = spec.account.initial_capital
    year_ns = year_days * NS_PER_DAY
    promised = [
        validation.annual_return(
            1 + each.in_sample_return_percent / 100, _MS * (each.train_end - each.train_start), year_ns
        )
        for each in folds
    ]
    kept = [
        validation.annual_return(
            1 + each.out_of_sample_return_percent / 100, _MS * (each.test_end - each.test_start), year_ns
        )
        for each in folds
    ]
    returns = np.concatenate([each.returns for each in tested.tests])
    time_ns = np.concatenate([each.time_ns for each in tested.tests])
    equity = np.concatenate([each.equity for each in tested.tests])
    peaks = np.maximum(np.maximum.accumulate(equity), initial)
    rows = curves.decimate(time_ns, [equity], _SCREEN_ROWS) if equity.size else np.empty(0, dtype=np.int64)
    note = f"{undefined} trainings gave no {asked.target} for any set: the parameters as configured were traded then"
    return msgspec.structs.replace(
        _without_folds(asked, choices, note if undefined else None),
        folds=folds,
        efficiency_ratio=validation.efficiency_ratio(promised, kept),
        parameter_stability=[found for each in choices.ranges if (found := _stability(each, folds)) is not None],
        out_of_sample_return_percent=100 * (tested.final / initial - 1),
        out_of_sample_sharpe=metrics.sharpe_ratio(returns, year_days),
        out_of_sample_max_drawdown_percent=float(100 * (1 - equity / peaks).max(initial=0.0)),
        out_of_sample_trades=sum(each.trades for each in tested.tests),
        out_of_sample_days=returns.size,
        configured_return_percent=100 * (configured.final / initial - 1),
        equity=[
            StitchedPoint(timestamp=at, equity=value)
            for at, value in zip((time_ns[rows] // _MS).tolist(), equity[rows].tolist(), strict=True)
        ],
    )


def _stability(ranged: Range, folds: Sequence[Fold]) -> ParameterStability | None:
    chosen = [each.parameters[ranged.name] for each in folds if ranged.name in each.parameters]
    if not chosen:  # no training gave any set a score
        return None
    counted = Counter(chosen)
    most = max(ranged.values, key=lambda value: counted[value])
    return ParameterStability(
        name=ranged.name,
        values=list(ranged.values),
        most_frequent=most,
        share=counted[most] / len(chosen),
        stability=validation.stability([ranged.values.index(value) for value in chosen], len(ranged.values)),
    )


def _without_folds(asked: Validation, choices: Choices, note: str | None) -> WalkForward:
    return WalkForward(
        mode=asked.mode,
        target=asked.target,
        window_days=asked.window_size,
        step_days=asked.step_size,
        parameter_sets=len(choices.points),
        folds=[],
        efficiency_ratio=None,
        parameter_stability=[],
        out_of_sample_return_percent=None,
        out_of_sample_sharpe=None,
        out_of_sample_max_drawdown_percent=None,
        out_of_sample_trades=0,
        out_of_sample_days=0,
        configured_return_percent=None,
        equity=[],
        note=note,
    )
