"""The bench of the validation: what it measures happens, not how fast it is."""

import math

from daemon.app import bench_validation as bench
from daemon.core.backtest import Validation

COUNTS = ("_bars", "_sets", "_folds", "_trades", "_paths", "_methods", "_strategies", "_days", "_blocks", "_splits")
UNITS = (*COUNTS, "_cuts", "_points", "_s", "_ms")


def check(figures):
    for name, value in figures.items():
        assert name.endswith(UNITS), name
        assert math.isfinite(value), name
        assert value > 0, name


def test_the_usual_sets_are_walked_forward_over_stored_minutes(tmp_path):
    figures = bench._walk_forward(tmp_path / "data", 9, Validation(window_size=4, step_size=2), passes=1)  # noqa: SLF001
    check(figures)
    assert (figures["walk_forward_bars"], figures["walk_forward_sets"]) == (9 * 1_440, 81)
    assert figures["walk_forward_folds"] == 3


def test_trades_are_disturbed_in_every_way_and_returns_cross_validated():
    figures = bench._monte_carlo(200, 50) | bench._cross_validation(6, 96, 8)  # noqa: SLF001
    check(figures)
    assert (figures["monte_carlo_paths"], figures["monte_carlo_trades"], figures["monte_carlo_methods"]) == (200, 50, 4)
    assert (figures["cscv_strategies"], figures["cscv_days"], figures["cscv_splits"]) == (6, 96, 70)
    assert figures["pbo_spread_cuts"] == 3 + 20


def test_every_point_of_a_grid_of_three_exits_is_tried(tmp_path):
    figures = bench._optimization(tmp_path / "data", 5_000, 3, passes=1)  # noqa: SLF001
    check(figures)
    assert (figures["optimization_bars"], figures["optimization_points"]) == (5_000, 27)
