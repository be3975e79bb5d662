"""The target over parameters: neighbours, plateaus and surfaces, beside a slow and obvious oracle."""

import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import landscape as naive

from daemon.research.optimization import landscape
from daemon.research.optimization.landscape import Landscape
from daemon.research.ranges import Range, read_range


def axes_of(ranges):
    return [naive.Axis(each.name, each.values) for each in ranges]


def on(ranges, points, scores):
    """The landscape of points, None for a score that there is none of."""
    known = [math.nan if each is None else each for each in scores]
    return Landscape(ranges, np.array(points, dtype=float), np.array(known, dtype=float))


def listed(*sizes):
    return tuple(read_range(f"p{place}", f"1:{size}:1") for place, size in enumerate(sizes))


def whole(*sizes):
    """Every point of a grid."""
    return list(itertools.product(*(range(1, size + 1) for size in sizes)))


def near(ranges, points, place):
    """The places that a landscape takes for a point's neighbours: each is worth a power of two, in turn."""
    found = []
    for other in range(len(points)):
        scores = [0.0] * len(points)
        scores[other] = None
        if other != place and on(ranges, points, scores).around(place).undefined:
            found.append(other)
    return found


@pytest.mark.parametrize(
    ("sizes", "centre", "count"),
    [
        ((5,), (3,), 2), ((5,), (1,), 1), ((4, 4), (2, 3), 8), ((4, 4), (1, 1), 3), ((4, 4), (1, 2), 5),
        ((3, 3, 3), (2, 2, 2), 26), ((3, 3, 3), (1, 1, 1), 7), ((2, 1, 2), (1, 1, 1), 3),
    ],
)  # fmt: skip
def test_neighbours_differ_by_a_step_at_the_most_along_every_range(sizes, centre, count):
    ranges, points = listed(*sizes), whole(*sizes)
    place = points.index(centre)
    assert on(ranges, points, [1.0] * len(points)).around(place).neighbours == count
    found = near(ranges, points, place)
    assert len(found) == count
    assert all(max(abs(a - b) for a, b in zip(points[each], centre, strict=True)) == 1 for each in found)
    assert found == naive.neighbours(axes_of(ranges), points, place)


def test_steps_are_places_in_the_list_however_far_apart_the_values_and_in_whatever_order():
    ranges = (read_range("x", "1000,1,30"),)
    points = [(1,), (30,), (1_000,)]
    assert near(ranges, points, 0) == [1]
    assert near(ranges, points, 1) == [0, 2]


def test_a_plateau_is_preferred_to_a_peak_that_stands_alone():
    ranges, points = listed(9), whole(9)
    scores = [0.0, 3.0, 0.0, 0.0, 1.9, 2.0, 1.9, 1.8, 0.0]
    seen = on(ranges, points, scores)
    assert seen.best(3).tolist() == [1, 5, 4]
    alone, level = seen.around(1), seen.plateau()
    assert (alone.score, alone.lowest, alone.neighbours) == (0.0, 0.0, 2)
    assert (level.place, level.score, level.lowest) == (5, 1.9, 1.9)


def test_a_peak_at_an_edge_is_judged_by_the_neighbours_it_has():
    found = on(listed(3, 3), whole(3, 3), [9.0, 8.0, 1.0, 7.0, 6.0, 1.0, 1.0, 1.0, 1.0]).around(0)
    assert (found.score, found.lowest, found.neighbours) == (7.5, 6.0, 3)


@pytest.mark.parametrize(
    ("scores", "worst"), [([3.0, None, -2.0, 1.0], -2.0), ([3.0, None, 2.0, 1.0], 0.0), ([3.0, None, None, None], 0.0)]
)
def test_a_neighbour_without_a_score_counts_as_the_worst_that_is_known_and_as_no_gain(scores, worst):
    found = on(listed(4), whole(4), scores).around(0)
    assert (found.lowest, found.undefined, found.neighbours) == (worst, 1, 1)
    assert found.score == (3.0 + worst) / 2


def test_a_point_without_a_score_has_no_neighbourhood_and_is_never_best():
    seen = on(listed(3), whole(3), [None, 1.0, None])
    assert seen.around(0) == (0, None, None, 1, 0)
    assert seen.best(5).tolist() == [1]
    assert seen.plateau().place == 1


def test_without_any_score_there_is_no_best_and_no_plateau():
    seen = on(listed(2, 2), whole(2, 2), [None] * 4)
    assert seen.best(5).size == 0
    assert seen.plateau() is None
    [surface] = seen.surfaces()
    assert surface.best == surface.median == [[None, None], [None, None]]
    assert surface.counts == [[1, 1], [1, 1]]


def test_one_point_has_no_neighbours():
    seen = on(listed(1, 1), [(1, 1)], [2.0])
    assert seen.around(0) == (0, 2.0, 2.0, 0, 0)
    assert seen.plateau().place == 0
    assert seen.surfaces() == []


def test_of_equal_points_the_first_tried_is_best():
    points = whole(4)[::-1]
    seen = on(listed(4), points, [1.0, 2.0, 2.0, 2.0])
    assert seen.best(4).tolist() == [1, 2, 3, 0]
    assert on(listed(4), points, [2.0] * 4).plateau().place == 0


def test_only_the_best_points_are_looked_at_for_a_plateau(monkeypatch):
    monkeypatch.setattr(landscape, "MOST_CANDIDATES", 1)
    looked = []
    seen = on(listed(5), whole(5), [3.0, 0.0, 1.9, 2.0, 1.9])
    assert seen.plateau(lambda: looked.append(1)).place == 0
    assert looked == [1]


def test_of_thinly_drawn_points_the_nearest_are_neighbours_each_range_as_long_as_any():
    ranges = (read_range("small", "0:1"), read_range("large", "0:1000"))
    points = [(0.5, 500), (0.5, 600), (0.6, 500), (0.5, 390), (0.39, 500), (0.5, 900), (0.9, 500), (0, 0), (1, 1_000)]
    assert near(ranges, points, 0) == [1, 2, 3, 4]
    # As above, but none of them lies on a neighbouring place of the lists.
    lists = (read_range("small", "0:1:0.01"), read_range("large", "0:1000:10"))
    assert near(lists, points, 0) == [1, 2, 3, 4]


def test_surfaces_are_drawn_for_every_pair_that_varies():
    ranges = (*listed(2, 1, 3), read_range("last", "5,6"))
    points = list(itertools.product((1, 2), (1,), (1, 2, 3), (5, 6)))
    found = on(ranges, points, [float(place) for place in range(12)]).surfaces()
    assert [(each.x, each.y) for each in found] == [("p0", "p2"), ("p0", "last"), ("p2", "last")]
    first = found[0]
    assert (first.x_values, first.y_values) == ([1, 2], [1, 2, 3])
    assert first.best == [[1, 7], [3, 9], [5, 11]]
    assert first.median == [[0.5, 6.5], [2.5, 8.5], [4.5, 10.5]]
    assert first.counts == [[2, 2], [2, 2], [2, 2]]


def test_of_one_parameter_the_surface_has_one_row():
    [found] = on(listed(3, 1), [(1, 1), (2, 1), (3, 1)], [1.0, None, 3.0]).surfaces()
    assert (found.x, found.y, found.y_values) == ("p0", None, [])
    assert (found.best, found.counts) == ([[1.0, None, 3.0]], [[1, 1, 1]])


def test_no_more_surfaces_are_drawn_than_anybody_would_look_at():
    ranges = listed(*[2] * 7)
    assert len(on(ranges, whole(*[2] * 7), [1.0] * 128).surfaces()) == landscape.MOST_SURFACES


def test_more_values_than_are_drawn_are_put_together():
    [found] = on(listed(100), whole(100), [float(each) for each in range(100)]).surfaces()
    assert len(found.x_values) == landscape.MOST_BINS
    assert sum(found.counts[0]) == 100
    assert set(found.counts[0]) <= {4, 5}
    assert found.best[0][-1] == 99
    assert found.best[0] == sorted(found.best[0])
    width = 99 / landscape.MOST_BINS
    assert found.x_values[0] == pytest.approx(1 + width / 2)
    assert found.x_values[-1] == pytest.approx(100 - width / 2)


def test_points_drawn_from_a_continuous_range_share_cells():
    drawn = np.random.default_rng(1).uniform(size=(100, 2))
    ranges = (read_range("x", "0:1"), read_range("y", "0:1"))
    [found] = on(ranges, drawn, [1.0] * 100).surfaces()
    assert (len(found.x_values), len(found.y_values)) == (10, 10)
    assert sum(map(sum, found.counts)) == 100


# Any landscape, beside the oracle.

VALUES = st.floats(-5, 5).map(lambda value: round(value, 1))


@st.composite
def landscapes(draw):
    """Ranges of which some may be continuous, different points in them, and scores of which some are missing."""
    axes = []
    for place in range(draw(st.integers(1, 3))):
        if draw(st.integers(0, 4)) == 0:
            axes.append(Range(f"p{place}", (), -5.0, 5.0))
        else:
            values = tuple(draw(st.lists(VALUES, min_size=1, max_size=5, unique=True)))
            axes.append(Range(f"p{place}", values, min(values), max(values)))
    drawn = st.tuples(*(VALUES if axis.is_continuous else st.sampled_from(axis.values) for axis in axes))
    points = draw(st.lists(drawn, min_size=1, max_size=40, unique=True))
    score = st.none() | st.integers(-3, 6).map(float)
    return tuple(axes), points, draw(st.lists(score, min_size=len(points), max_size=len(points)))


@settings(deadline=None)  # the oracle looks at every pair of points, on a machine that may be busy
@given(landscapes())
def test_any_landscape_is_what_the_oracle_sees(drawn):
    ranges, points, scores = drawn
    seen, axes = on(ranges, points, scores), axes_of(ranges)
    assert seen.best(len(points)).tolist() == naive.best(scores)
    for place in range(len(points)):
        assert seen.around(place)[1:] == naive.around(axes, points, scores, place)
    level = seen.plateau()
    assert (None if level is None else level.place) == naive.plateau(axes, points, scores)


@given(landscapes())
def test_any_surface_is_what_the_oracle_sees(drawn):
    ranges, points, scores = drawn
    axes, place_of = axes_of(ranges), {each.name: place for place, each in enumerate(ranges)}
    found = on(ranges, points, scores).surfaces()
    varied = [each.name for place, each in enumerate(ranges) if len({point[place] for point in points}) > 1]
    pairs = [(varied[0], None)] if len(varied) == 1 else list(itertools.combinations(varied, 2))
    assert [(each.x, each.y) for each in found] == pairs
    for each in found:
        cells = naive.surface(axes, points, scores, place_of[each.x], place_of.get(each.y))
        assert each.x_values == pytest.approx(cells.x_values)
        assert each.y_values == pytest.approx(cells.y_values)
        for (row, counts), column in itertools.product(enumerate(each.counts), range(len(each.x_values))):
            there = cells.scores.get((column, row), [])
            known = [score for score in there if score is not None]
            assert counts[column] == len(there)
            assert each.best[row][column] == (max(known) if known else None)
            assert each.median[row][column] == (statistics.median(known) if known else None)
