"""What the points of an optimisation show together: the target over parameters, and whether the peak has neighbours.

A peak that stands alone is luck; an edge lies on a plateau, where a parameter may be a little off.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import numpy as np

from daemon.research.optimization.result import Surface

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from daemon.core.market import Float64s, Int64s
    from daemon.research.optimization.result import Number
    from daemon.research.ranges import Range

T = TypeVar("T")

MOST_BINS: Final = 24
"""Columns and rows of a surface; more values, and continuous ones, are put together."""

LEAST_BINS: Final = 4

MOST_SURFACES: Final = 15
"""Pairs of parameters that are drawn, in the order in which they were given."""

MOST_CANDIDATES: Final = 500
"""Points, the best ones, that are looked at for a plateau."""


class Neighbourhood(NamedTuple):
    """A point with those around it. score, lowest: None where the point itself has no score.

    place: of the point. neighbours: how many; undefined: of these, without a score.
    """

    place: int
    score: Number
    lowest: Number
    neighbours: int
    undefined: int


class Landscape:
    """Points of one optimisation."""

    def __init__(self, ranges: Sequence[Range], values: Float64s, scores: Float64s) -> None:
        """values: (n, ranges) float64, different points; scores: (n,) float64, NaN for a point without one; n >= 1."""
        self._ranges = ranges
        self._scores = scores
        self._steps = np.column_stack([_steps(each, values[:, place]) for place, each in enumerate(ranges)])
        self._values = values
        self._is_listed = not any(each.is_continuous for each in ranges)

    def best(self, most: int) -> Int64s:
        """Return the places of the best points, best first, the first tried of equal ones."""
        defined = np.flatnonzero(~np.isnan(self._scores))
        return defined[np.argsort(-self._scores[defined], kind="stable")][:most]

    def around(self, place: int) -> Neighbourhood:
        """Look at a point and its neighbours.

        Neighbours are the points that differ by a step at the most in every parameter; where parameters are continuous,
        or points were drawn so thinly that there are none, the 2 x ranges nearest, each range counting as long as any.
        """
        distance = np.abs(self._steps - self._steps[place])
        near = distance.max(axis=1) <= 1.0 if self._is_listed else np.zeros(len(distance), dtype=np.bool_)
        near[place] = False
        if not near.any():
            near = self._nearest(place)
        around = self._scores[near]
        undefined = int(np.isnan(around).sum())
        own = float(self._scores[place])
        if np.isnan(own):
            return Neighbourhood(place, None, None, around.size, undefined)
        # A neighbour without a score says no good: it counts as the worst that is known.
        worst = min(float(np.nanmin(self._scores)), 0.0)
        known = np.append(np.where(np.isnan(around), worst, around), own)
        return Neighbourhood(place, float(np.median(known)), float(known.min()), around.size, undefined)

    def plateau(self, checkpoint: Callable[[], None] = lambda: None) -> Neighbourhood | None:
        """Return the best neighbourhood among those of the MOST_CANDIDATES best points; None without a score."""
        found: Neighbourhood | None = None
        for place in self.best(MOST_CANDIDATES).tolist():
            checkpoint()
            each = self.around(place)
            if each.score is not None and (found is None or found.score is None or each.score > found.score):
                found = each
        return found

    def surfaces(self) -> list[Surface]:
        """Return the target over every pair of parameters that vary, or over the only one."""
        varied = [place for place in range(len(self._ranges)) if np.ptp(self._values[:, place]) > 0]
        pairs: Iterator[tuple[int, int]] = itertools.combinations(varied, 2)
        if len(varied) == 1:
            return [self._surface(varied[0], None)]
        return [self._surface(x, y) for x, y in itertools.islice(pairs, MOST_SURFACES)]

    def _nearest(self, place: int) -> NDArray[np.bool_]:
        lengths = np.maximum(np.ptp(self._steps, axis=0), 1e-12)
        distance = np.sqrt((((self._steps - self._steps[place]) / lengths) ** 2).sum(axis=1))
        distance[place] = np.inf
        nearest = np.argsort(distance, kind="stable")[: min(2 * len(self._ranges), distance.size - 1)]
        near = np.zeros(distance.size, dtype=np.bool_)
        near[nearest] = True
        return near

    def _surface(self, x: int, y: int | None) -> Surface:
        columns, x_values = self._bins(x)
        rows, y_values = (np.zeros_like(columns), [0.0]) if y is None else self._bins(y)
        width = len(x_values)
        cells = rows * width + columns
        order = np.argsort(cells, kind="stable")
        edges = np.searchsorted(cells[order], np.arange(width * len(y_values) + 1))
        best: list[Number] = []
        median: list[Number] = []
        counts: list[int] = []
        for start, stop in itertools.pairwise(edges.tolist()):
            scores = self._scores[order[start:stop]]
            known = scores[~np.isnan(scores)]
            best.append(float(known.max()) if known.size else None)
            median.append(float(np.median(known)) if known.size else None)
            counts.append(stop - start)
        return Surface(
            x=self._ranges[x].name,
            y=None if y is None else self._ranges[y].name,
            x_values=x_values,
            y_values=[] if y is None else y_values,
            best=_by_row(best, width),
            median=_by_row(median, width),
            counts=_by_row(counts, width),
        )

    def _bins(self, place: int) -> tuple[Int64s, list[float]]:
        """Return the bin of every point along a parameter, and the middles of the bins."""
        values = self._values[:, place]
        known = np.unique(values)
        # Points that were drawn would lie in cells of their own: as many bins as give a pair's cells one point each.
        most = max(min(MOST_BINS, round(math.sqrt(values.size))), LEAST_BINS)
        if known.size <= (MOST_BINS if self._is_listed else most):
            return np.searchsorted(known, values).astype(np.int64), known.tolist()
        most = MOST_BINS if self._is_listed else most
        edges = np.linspace(known[0], known[-1], most + 1)
        bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, most - 1)
        return bins.astype(np.int64), ((edges[:-1] + edges[1:]) / 2).tolist()


def _steps(ranged: Range, values: Float64s) -> Float64s:
    """Return places of values in a list, so that neighbours are one apart; values themselves where there is none."""
    if ranged.is_continuous:
        return values
    return np.searchsorted(np.sort(np.array(ranged.values)), values).astype(np.float64)


def _by_row(cells: list[T], width: int) -> list[list[T]]:
    return [cells[at : at + width] for at in range(0, len(cells), width)]
