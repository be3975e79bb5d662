"""A finished run to a result with its verdict: what was asked for is computed, and all of it is judged."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec

from daemon.core.backtest import OrderList, Own, Validation
from daemon.engine import curves
from daemon.research.backtest_market import digests_of
from daemon.research.backtest_outcome import inputs_digest
from daemon.research.look_ahead import check_look_ahead
from daemon.research.monte_carlo import monte_carlo
from daemon.research.overfitting import overfitting
from daemon.research.parameters import Space
from daemon.research.sensitivity import sensitivity
from daemon.research.sweep import Sweep
from daemon.research.swept import said_of
from daemon.research.trials import idea_of, is_tried, stored_idea, trial_of
from daemon.research.verdict import Grounds, judge
from daemon.research.walk_forward import choices_of, sweeps_of, walk_forward

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.research.backtest_finding import Finding
    from daemon.research.backtest_market import Series
    from daemon.research.backtest_records import BacktestJob
    from daemon.research.backtest_result import BacktestResult
    from daemon.research.strategies import RuleBook
    from daemon.research.trials import Trial
    from daemon.research.validation_result import Overfitting, WalkForward
    from daemon.store.bars import BarStore

_WALKING: Final = 0.7
"""Share of the time that walking forward takes of a validation; the sweep over everything has the rest."""


def validated(
    bars: BarStore,
    book: RuleBook,
    job: BacktestJob,
    finding: Finding,
    series: list[Series],
    result: BacktestResult,
    checkpoint: Callable[[], None],
    progress: Callable[[float], None],
) -> tuple[BacktestResult, Trial]:
    """Complete a result by its validation, and return it with what the ledger counts.

    series: what the run read. progress: told the fraction done. JobFailed LOOK_AHEAD where a new idea looks ahead;
    InvalidRequest INVALID_PARAMETER where it is to be varied by what is no parameter.
    """
    spec, asked = finding.spec, finding.spec.validation or Validation()
    idea, fingerprint = idea_of(spec), inputs_digest(spec, digests_of(series))
    with bars.ticks.env.read() as transaction:
        before = stored_idea(transaction, idea)
        is_repeated = is_tried(transaction, idea, fingerprint)
    # All versions of an own file are one idea, and any of them may look ahead.
    is_unknown = before is None or (isinstance(spec.program, Own) and not is_repeated)
    looked = None
    if is_unknown:
        log = finding.runs.main.log
        looked = check_look_ahead(spec, series, finding.year_days, checkpoint, book.own, bars, log)
    walked, chosen = None, None
    if asked.walk_forward and not isinstance(spec.program, OrderList):
        walked, chosen = _walked(bars, book, job, finding, asked, checkpoint, progress)
    drawn = None
    if asked.monte_carlo.enabled:
        drawn = monte_carlo(
            finding.trades,
            spec.account.initial_capital,
            runs=asked.monte_carlo.iterations,
            seed=asked.monte_carlo.seed,
            confidence=asked.monte_carlo.confidence_level,
            checkpoint=checkpoint,
        )
    again = Sweep(spec, series, folder=book.own, store=bars)
    rows = sensitivity(spec, again, checkpoint) if asked.sensitivity else []
    samples = finding.runs.main.samples
    start_ns = min(int(each.bars.start_ns[0]) for each in finding.loaded)
    returns = curves.daily_returns(samples.time_ns, samples.equity, spec.account.initial_capital, start_ns).returns
    grounds = Grounds(
        result,
        returns,
        finding.year_days,
        idea,
        before,
        is_repeated,
        walked,
        chosen,
        drawn,
        rows,
        looked,
        said_of(spec),
    )
    verdict = judge(grounds)
    whole = msgspec.structs.replace(
        result,
        verdict=verdict,
        walk_forward=walked,
        overfitting=chosen,
        monte_carlo=drawn,
        sensitivity=rows,
        look_ahead=looked,
    )
    return whole, trial_of(idea, fingerprint, spec.name, returns, result.metrics.total_return_percent)


def _walked(
    bars: BarStore,
    book: RuleBook,
    job: BacktestJob,
    finding: Finding,
    asked: Validation,
    checkpoint: Callable[[], None],
    progress: Callable[[float], None],
) -> tuple[WalkForward, Overfitting | None]:
    """Walk forward, and run every parameter set over everything to judge the choice."""
    spec = finding.spec
    choices = choices_of(spec, Space(job.config, spec, bars, book, job.profiles))
    sweeps = sweeps_of(bars, spec, choices, book.own)
    walked = walk_forward(spec, asked, choices, sweeps, checkpoint, lambda fraction: progress(_WALKING * fraction))
    if not walked.folds:
        return walked, None
    total = len(choices.specs)
    tested = sweeps.whole(choices.specs, checkpoint, lambda done: progress(_WALKING + (1 - _WALKING) * done / total))
    return walked, overfitting(tested, os.cpu_count() or 1, checkpoint)
