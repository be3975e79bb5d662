"""The points of an optimisation looked at one by one, slowly and obviously.

A literal reading of the docstrings of `daemon.research.optimization.landscape`; nothing is shared. A point is its
values in the order of the ranges, a score None where it has none.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

Point = "Sequence[float]"
Scores = "Sequence[float | None]"


class Axis(NamedTuple):
    """A parameter: the values that it may have in any order, none where it may have any."""

    name: str
    values: tuple[float, ...]


class Cells(NamedTuple):
    """A surface as {(column, row): scores there}, and the middles of columns and rows."""

    x_values: list[float]
    y_values: list[float]
    scores: dict[tuple[int, int], list[float | None]]


def best(scores: Scores) -> list[int]:
    """Places of points with a score, the highest first, of equal ones the first tried."""
    return sorted((place for place, each in enumerate(scores) if each is not None), key=lambda place: -scores[place])


def neighbours(axes: Sequence[Axis], points: Sequence[Point], place: int) -> list[int]:
    """Places of those a step away at the most along every axis; else, or with an endless axis, of the nearest."""
    others = [other for other in range(len(points)) if other != place]
    if all(axis.values for axis in axes):
        near = [other for other in others if all(step <= 1 for step in _apart(axes, points[place], points[other]))]
        if near:
            return near
    lengths = [max(_apart(axes, a, b)[which] for a in points for b in points) or 1.0 for which in range(len(axes))]

    def far(other: int) -> float:
        shares = [
            step / length for step, length in zip(_apart(axes, points[place], points[other]), lengths, strict=True)
        ]
        return math.sqrt(sum(share * share for share in shares))

    return sorted(sorted(others, key=far)[: 2 * len(axes)])


def _apart(axes: Sequence[Axis], first: Point, second: Point) -> list[float]:
    """Steps between two points along every axis, or how far they are from one another where it has no steps."""
    found = []
    for axis, a, b in zip(axes, first, second, strict=True):
        order = sorted(set(axis.values))
        found.append(float(abs(order.index(a) - order.index(b))) if order else abs(a - b))
    return found


def around(
    axes: Sequence[Axis], points: Sequence[Point], scores: Scores, place: int
) -> tuple[float | None, float | None, int, int]:
    """Median and lowest over a point and its neighbours, their number, and that of those without a score.

    One without counts as the worst score of all points, and never as more than 0.
    """
    near = neighbours(axes, points, place)
    undefined = sum(scores[other] is None for other in near)
    if scores[place] is None:
        return None, None, len(near), undefined
    worst = min([0.0, *(each for each in scores if each is not None)])
    known = [worst if scores[other] is None else scores[other] for other in [place, *near]]
    return statistics.median(known), min(known), len(near), undefined


def plateau(axes: Sequence[Axis], points: Sequence[Point], scores: Scores) -> int | None:
    """Place of the point whose neighbourhood has the highest median, the best point of equal ones."""
    return max(best(scores), key=lambda place: around(axes, points, scores, place)[0], default=None)


def surface(axes: Sequence[Axis], points: Sequence[Point], scores: Scores, x: int, y: int | None) -> Cells:
    """Put every point's score into its cell."""
    columns = _bins(axes, points, x)
    rows = [(0.0, 0.0)] if y is None else _bins(axes, points, y)
    found: dict[tuple[int, int], list[float | None]] = {}
    for point, score in zip(points, scores, strict=True):
        row = 0 if y is None else _bin(rows, point[y])
        found.setdefault((_bin(columns, point[x]), row), []).append(score)
    middles = [(low + high) / 2 for low, high in columns]
    return Cells(middles, [] if y is None else [(low + high) / 2 for low, high in rows], found)


def _bins(axes: Sequence[Axis], points: Sequence[Point], which: int) -> list[tuple[float, float]]:
    """Low and high of every bin: one a value where there are few."""
    known = sorted({point[which] for point in points})
    most = 24 if all(axis.values for axis in axes) else max(min(24, round(math.sqrt(len(points)))), 4)
    if len(known) <= most:
        return [(value, value) for value in known]
    width = (known[-1] - known[0]) / most
    return [(known[0] + width * place, known[0] + width * (place + 1)) for place in range(most)]


def _bin(bins: Sequence[tuple[float, float]], value: float) -> int:
    """The last that begins at or below the value."""
    return max(place for place, (low, _) in enumerate(bins) if low <= value or place == 0)
