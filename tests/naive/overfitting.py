"""Cross-validation of a choice and the reality check, slowly and obviously: every split cut out, every day drawn.

A literal reading of the docstrings of `daemon.engine.overfitting` and `daemon.engine.reality_check`; nothing is shared.
"""

from __future__ import annotations

import math
import statistics
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from naive.montecarlo import Generator, blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

Columns = "Sequence[Sequence[float]]"


class Split(NamedTuple):
    """What came of one: the logit, and what the chosen column shows in and out of sample. everyone: all out of it."""

    logit: float
    in_sample: float
    out_of_sample: float
    everyone: list[float]


def sharpe(profits: Sequence[float]) -> float:
    """Mean over sample deviation, 0 without any."""
    return statistics.mean(profits) / statistics.stdev(profits) if len(set(profits)) > 1 else 0.0


def splits(columns: Columns, count: int) -> list[Split]:
    """Judge the choice at every way to halve the blocks."""
    rows = len(columns[0]) // count
    spare = len(columns[0]) - rows * count
    cut = [[column[spare + rows * i : spare + rows * (i + 1)] for i in range(count)] for column in columns]
    found = []
    for half in combinations(range(count), count // 2):
        rest = [i for i in range(count) if i not in half]
        inside = [sharpe([profit for i in half for profit in column[i]]) for column in cut]
        outside = [sharpe([profit for i in rest for profit in column[i]]) for column in cut]
        best = inside.index(max(inside))
        places = [place for place, each in enumerate(sorted(outside), 1) if each == outside[best]]
        relative = statistics.mean(places) / (len(columns) + 1)
        found.append(Split(math.log(relative / (1 - relative)), inside[best], outside[best], outside))
    return found


def dominance_gap(found: Sequence[Split]) -> float:
    """Largest excess of the chosen columns' distribution over that of all, wherever either steps."""
    chosen = [split.out_of_sample for split in found]
    everyone = [each for split in found for each in split.everyone]
    return max(
        sum(each <= x for each in chosen) / len(chosen) - sum(each <= x for each in everyone) / len(everyone)
        for x in [*chosen, *everyone]
    )


def bootstrap_error(profits: Sequence[float], restart_chance: float) -> float:
    """Deviation of the stationary bootstrap's mean: lemma 1 of Politis and Romano, term by term."""
    n = len(profits)
    centred = [profit - statistics.mean(profits) for profit in profits]
    circular = [sum(centred[t] * centred[(t + lag) % n] for t in range(n)) / n for lag in range(n)]
    terms = [(1 - lag / n) * (1 - restart_chance) ** lag * circular[lag] for lag in range(1, n)]
    return math.sqrt((circular[0] + 2 * sum(terms)) / n)


def reality_check(columns: Columns, draws: int, block: float, seed: int) -> tuple[float, float, float]:
    """Return the p-values of Hansen's test and of White's, and Hansen's statistic."""
    n = len(columns[0])
    means = [statistics.mean(column) for column in columns]
    errors = [bootstrap_error(column, 1 / block) for column in columns]
    bar = -math.sqrt(2 * math.log(math.log(n)))
    recentred = [mean if mean / error >= bar else 0.0 for mean, error in zip(means, errors, strict=True)]
    statistic = max(0.0, *(mean / error for mean, error in zip(means, errors, strict=True)))
    hansen = white = 1
    for draw in range(draws):
        days = [int(day) for day in blocks([float(day) for day in range(n)], 1 / block, Generator(seed, draw), n)]
        drawn = [statistics.mean(column[day] for day in days) for column in columns]
        rows = list(zip(drawn, recentred, errors, means, strict=True))
        hansen += max(0.0, *((mean - centre) / error for mean, centre, error, _ in rows)) >= statistic
        white += max(mean - own for mean, _, _, own in rows) >= max(means)
    return hansen / (draws + 1), white / (draws + 1), statistic
