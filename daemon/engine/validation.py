"""Walk-forward: where to cut the past, and what came of choosing on one side of the cut.

A training never reaches into the test that follows it, and tests never overlap; so all of them in a row are an account
that could have been traded.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.market import TsNs


class Fold(NamedTuple):
    """One step; each span is [start, stop), ns UTC."""

    train_start_ns: TsNs
    train_stop_ns: TsNs
    test_start_ns: TsNs
    test_stop_ns: TsNs


def folds(start_ns: TsNs, stop_ns: TsNs, *, window_ns: int, step_ns: int, is_anchored: bool = False) -> list[Fold]:
    """Cut [start, stop) into trainings of `window_ns`, each followed by a test of `step_ns`, moved on by `step_ns`.

    An anchored training begins at the start, and grows. The last test may be shorter, down to half a step: what
    remains below that is left out. Empty where there is no room for one. window_ns, step_ns: > 0, ValueError otherwise.
    """
    if window_ns <= 0 or step_ns <= 0:
        raise ValueError(f"window {window_ns} and step {step_ns}: both must be above 0")
    found = []
    test_ns = start_ns + window_ns
    while stop_ns - test_ns >= max(step_ns // 2, 1):
        train_ns = start_ns if is_anchored else test_ns - window_ns
        found.append(Fold(train_ns, test_ns, test_ns, min(test_ns + step_ns, stop_ns)))
        test_ns += step_ns
    return found


def annual_return(growth: float, span_ns: int, year_ns: int) -> float:
    """Return of a year that grew as a span did, without compounding: (growth - 1) x year / span.

    Simple, because a week of 5 % would compound to 1,200 % a year and drown every other fold.
    """
    return (growth - 1) * year_ns / span_ns


def efficiency_ratio(in_sample: Sequence[float], out_of_sample: Sequence[float]) -> float | None:
    """Mean annual return out of sample over that in sample; None where the latter is not above 0, or nothing is given.

    1 keeps everything that was promised, 0 nothing. Source: Pardo, The Evaluation and Optimization of Trading
    Strategies (2008), who asks for 0.5.
    """
    if not in_sample or not out_of_sample:
        return None
    promised = sum(in_sample) / len(in_sample)
    return sum(out_of_sample) / len(out_of_sample) / promised if promised > 0 else None


def stability(places: Sequence[int], count: int) -> float:
    """Say how little a choice moved: 1 - mean step between neighbours / the longest step possible.

    places: of the chosen values in the list of `count` values, fold by fold. 1 for one fold or one value.
    """
    if len(places) < 2 or count < 2:  # noqa: PLR2004 - nothing could move
        return 1.0
    steps = [abs(after - before) for before, after in pairwise(places)]
    return 1 - sum(steps) / len(steps) / (count - 1)
