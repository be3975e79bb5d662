"""Which points to try next. The same ranges, seed and scores give the same points, on any machine, in any process.

That is how an optimisation goes on where it stopped: it is asked from the beginning, and told what is known already.
"""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from daemon.research.parameters import grid, grid_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.research.optimization.request import Plan
    from daemon.research.parameters import Point
    from daemon.research.ranges import Range

SAMPLED_AT_ONCE: Final = 16
"""Points that a method which learns proposes before it is told of them: enough for the cores, few enough to learn."""

# A space of so many points is shuffled: of one that is nearly exhausted few draws would be new.
_MOST_SHUFFLED: Final = 1 << 20

# Draws of points that were drawn before, after which a space counts as exhausted.
_MOST_REPEATED: Final = 1_000


class Proposer(Protocol):
    """Proposes points, and learns what they are worth."""

    def ask(self, most: int) -> list[Point]:
        """Return the next points, so many at the most; none when there are no more. A method may repeat a point."""

    def tell(self, scores: Sequence[float | None]) -> None:
        """Say what the points of the last `ask` are worth, None for nothing."""


def proposer(plan: Plan) -> Proposer:
    """Return what proposes the points of a plan."""
    match plan.method:
        case "grid":
            return _Grid(plan.ranges)
        case "random":
            return _Random(plan.ranges, plan.seed)
        case "optuna":
            return _Sampled(plan.ranges, plan.seed)


class _Grid:
    def __init__(self, ranges: Sequence[Range]) -> None:
        self._points = grid(ranges)

    def ask(self, most: int) -> list[Point]:
        return list(itertools.islice(self._points, most))

    def tell(self, scores: Sequence[float | None]) -> None:
        """Learn nothing."""


class _Random:
    """Points drawn evenly, none twice."""

    def __init__(self, ranges: Sequence[Range], seed: int) -> None:
        self._ranges = ranges
        self._random = np.random.default_rng(seed)
        self._seen: set[tuple[float, ...]] = set()
        self._shuffled: Iterator[int] | None = None
        if not any(each.is_continuous for each in ranges) and grid_size(ranges) <= _MOST_SHUFFLED:
            self._shuffled = iter(self._random.permutation(grid_size(ranges)).tolist())

    def ask(self, most: int) -> list[Point]:
        if self._shuffled is not None:
            return [self._at(place) for place in itertools.islice(self._shuffled, most)]
        found: list[Point] = []
        repeated = 0
        while len(found) < most and repeated < _MOST_REPEATED:
            values = tuple(self._drawn(each) for each in self._ranges)
            if values in self._seen:
                repeated += 1
                continue
            self._seen.add(values)
            found.append({each.name: value for each, value in zip(self._ranges, values, strict=True)})
        return found

    def tell(self, scores: Sequence[float | None]) -> None:
        """Learn nothing."""

    def _at(self, place: int) -> Point:
        """Return the point at a place of the grid."""
        shape = [len(each.values) for each in self._ranges]
        places = np.unravel_index(place, shape)
        return {each.name: each.values[int(at)] for each, at in zip(self._ranges, places, strict=True)}

    def _drawn(self, each: Range) -> float:
        if each.is_continuous:
            return float(self._random.uniform(each.low, each.high))
        return each.values[int(self._random.integers(len(each.values)))]


class _Sampled:
    """Optuna's tree-structured Parzen estimator, some points at a time."""

    def __init__(self, ranges: Sequence[Range], seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._failed = optuna.trial.TrialState.FAIL
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # Without a constant liar the points proposed together would lie upon one another.
            sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._ranges = ranges
        self._asked: list[Any] = []

    def ask(self, most: int) -> list[Point]:
        self._asked = [self._study.ask() for _ in range(min(most, SAMPLED_AT_ONCE))]
        return [{each.name: self._suggested(trial, each) for each in self._ranges} for trial in self._asked]

    def tell(self, scores: Sequence[float | None]) -> None:
        for trial, score in zip(self._asked, scores, strict=True):
            if score is None:
                self._study.tell(trial, state=self._failed)
            else:
                self._study.tell(trial, score)

    def _suggested(self, trial: Any, each: Range) -> float:
        if each.is_continuous:
            return float(trial.suggest_float(each.name, each.low, each.high))
        # By place: what lies side by side is near, however far apart the values are.
        place: int = trial.suggest_int(each.name, 0, len(each.values) - 1)
        return sorted(each.values)[place]
