"""Which points an optimisation tries: all of a grid, random ones, or those that Optuna expects something of."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from simulated import a_spec

from daemon.research.optimization.proposals import SAMPLED_AT_ONCE, proposer
from daemon.research.optimization.request import Plan
from daemon.research.ranges import read_range

SPEC = a_spec()
SMALL = ({"a": "1,2,3", "b": "0:0.3:0.1"}, 12)


def plan(ranges, method="grid", seed=1, points=100):
    read = tuple(read_range(name, written) for name, written in ranges.items())
    return Plan(config={}, spec=SPEC, ranges=read, target="sharpe", method=method, points=points, seed=seed)


def asked(asker, count, most=7, score=lambda _: None):
    """Ask for so many points, some at a time, and say what they are worth."""
    found = []
    while len(found) < count and (points := asker.ask(min(most, count - len(found)))):
        found += points
        asker.tell([score(point) for point in points])
    return found


def places(points):
    return [tuple(point.values()) for point in points]


def hill(point):
    """At its highest, 1, at (0.3, 7)."""
    return 1 - (point["x"] - 0.3) ** 2 - ((point["y"] - 7) / 10) ** 2


HILL = {"x": "0:1", "y": "1:20:1"}


def test_a_grid_is_every_combination_once_with_the_last_range_fastest():
    ranges, size = SMALL
    found = asked(proposer(plan(ranges)), 100)
    assert [list(point) for point in found] == [["a", "b"]] * size
    assert places(found) == list(itertools.product((1, 2, 3), (0, 0.1, 0.2, 0.3)))


@pytest.mark.parametrize("most", [1, 5, 12, 1_000])
def test_how_many_are_asked_for_at_a_time_changes_no_point(most):
    ranges, size = SMALL
    for method in ("grid", "random"):
        assert asked(proposer(plan(ranges, method)), size, most) == asked(proposer(plan(ranges, method)), size)


def test_random_points_lie_in_their_ranges_and_none_comes_twice():
    ranges = {"x": "-1:1", "y": "5,7,9", "z": "2:2"}
    found = places(asked(proposer(plan(ranges, "random")), 500))
    assert len(set(found)) == len(found) == 500
    assert all(-1 <= x <= 1 and y in (5, 7, 9) and z == 2 for x, y, z in found)
    # Evenly: a third of 500 is 167, give or take four deviations of 10.5.
    assert all(abs(sum(y == value for _, y, _ in found) - 500 / 3) < 42 for value in (5, 7, 9))
    assert abs(np.mean([x for x, _, _ in found])) < 4 / math.sqrt(3 * 500)


@pytest.mark.parametrize("size", [12, 3_000])
def test_random_points_exhaust_a_small_space(size):
    ranges = {"a": "1,2,3", "b": f"1:{size // 3}:1"}
    found = places(asked(proposer(plan(ranges, "random")), 2 * size, most=256))
    assert sorted(found) == list(itertools.product((1, 2, 3), range(1, size // 3 + 1)))
    assert found != sorted(found)


def test_random_points_of_a_space_that_no_list_could_hold():
    ranges = dict.fromkeys("abcd", "1:1000:1")
    found = places(asked(proposer(plan(ranges, "random")), 300))
    assert len(set(found)) == 300
    assert all(1 <= value <= 1_000 for point in found for value in point)


def test_a_continuous_range_of_one_value_comes_to_its_end():
    assert len(asked(proposer(plan({"x": "2:2", "y": "1,2"}, "random")), 50)) == 2


@pytest.mark.parametrize("method", ["random", "optuna"])
def test_the_seed_decides(method):
    first, same, other = (asked(proposer(plan(HILL, method, seed)), 40, SAMPLED_AT_ONCE, hill) for seed in (5, 5, 6))
    assert first == same != other


def test_optuna_proposes_few_at_a_time_and_inside_of_the_ranges():
    asker = proposer(plan(HILL | {"z": "30,10,20"}, "optuna"))
    points = asker.ask(1_000)
    assert len(points) == SAMPLED_AT_ONCE
    asker.tell([hill(point) for point in points])
    points += asked(asker, 48, 1_000, hill)
    assert all(0 <= x <= 1 and y in range(1, 21) and z in (10, 20, 30) for x, y, z in places(points))


def test_optuna_told_again_what_is_known_goes_on_as_if_it_had_never_stopped():
    whole = asked(proposer(plan(HILL, "optuna")), 64, SAMPLED_AT_ONCE, hill)
    known = {tuple(point.values()): hill(point) for point in whole[:32]}
    anew = proposer(plan(HILL, "optuna"))
    again = asked(anew, 32, SAMPLED_AT_ONCE, lambda point: known[tuple(point.values())])
    again += asked(anew, 32, SAMPLED_AT_ONCE, hill)
    assert again == whole
    # What points are worth decides: otherwise it would be a replay of anything.
    assert asked(proposer(plan(HILL, "optuna")), 64, SAMPLED_AT_ONCE, lambda point: -hill(point)) != whole


def test_optuna_climbs_a_hill_better_than_chance():
    """Of the last quarter: what it has learnt shows there. Chance is the mean over the whole space."""
    grid = [hill({"x": x, "y": y}) for x in np.linspace(0, 1, 101) for y in range(1, 21)]
    for seed in (1, 2):
        scores = [hill(point) for point in asked(proposer(plan(HILL, "optuna", seed)), 80, 100, hill)]
        assert np.median(scores[-20:]) > np.percentile(grid, 85)
        assert max(scores) > np.percentile(grid, 99)


def test_scores_without_a_value_do_not_stop_optuna():
    asker = proposer(plan(HILL, "optuna"))
    assert len(asked(asker, 48, SAMPLED_AT_ONCE)) == 48
    # It learns from those that have one.
    half = proposer(plan(HILL, "optuna"))
    scores = [
        hill(point)
        for point in asked(half, 80, SAMPLED_AT_ONCE, lambda point: hill(point) if point["y"] < 12 else None)
    ]
    assert np.median(scores[-16:]) > np.median(scores[:16])


def test_a_proposer_loads_optuna_only_when_it_is_asked_for():
    script = (
        "import sys, daemon.research.optimization.proposals, daemon.research.optimization.request\n"
        "print(sorted({'optuna', 'sqlalchemy', 'numba', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
