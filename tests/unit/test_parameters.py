"""Parameters by name: their ranges as users write them, and what they do to a specification."""

import msgspec
import pytest
from simulated import a_spec, exits

from daemon.core import strategy as rules
from daemon.core.backtest import Distance, Grid, Rules
from daemon.core.errors import Code, InvalidRequest
from daemon.research.parameters import Space, defaults, grid, grid_size, has_lengths, without_numbers
from daemon.research.ranges import read_assignment, read_range

RSI = Rules(
    entry_long=(rules.CrossesAbove("rsi_14", value=30.0), rules.Above("volume", "volume_sma_20 * 1.5")),
    exit_long=(rules.Below("macd_12_26_9", "bb_upper"),),
)


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("0.01:0.05:0.01", (0.01, 0.02, 0.03, 0.04, 0.05)),
        ("0.1:0.3:0.1", (0.1, 0.2, 0.3)),
        ("1:2:5", (1.0,)),
        ("3,1,3", (3.0, 1.0)),
        ([5, "7"], (5.0, 7.0)),
        (4, (4.0,)),
        ({"low": 1, "high": 2, "step": 0.5}, (1.0, 1.5, 2.0)),
    ],
)
def test_ranges_include_both_ends_in_decimal_arithmetic(written, values):
    assert read_range("x", written).values == values


def test_a_range_without_a_step_is_continuous_and_spaced_when_a_grid_asks():
    found = read_range("x", "0:1")
    assert found.is_continuous
    assert found.spaced(5) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert grid_size([found, read_range("y", "1,2")], 5) == 10


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("", "no values"), ([], "no values"), ("5:1:1", "above its high"), ("1:2:0", "step is 0"),
        ("1:2:-1", "step is -1"), ("a:b", "not a number"), ("1:nan:1", "not a finite"), ("0:inf", "not a finite"),
        ("0:1:1e-9", "larger step"), ("1:2:3:4", "not LOW:HIGH"), ({"low": 1}, "needs low and high"),
        (True, "not a number"), ("1e999", "not a finite"),
    ],
)  # fmt: skip
def test_a_range_that_is_none_is_refused_by_name(written, why):
    with pytest.raises(InvalidRequest, match=why) as caught:
        read_range("take_profit", written)
    assert caught.value.code is Code.INVALID_PARAMETER
    assert caught.value.details["field"] == "take_profit"


@pytest.mark.parametrize("written", ["take_profit", "=1:2:1", ""])
def test_an_assignment_needs_a_name_and_a_range(written):
    with pytest.raises(InvalidRequest, match="LOW:HIGH:STEP"):
        read_assignment(written)


def space(spec):
    return Space({}, spec, None, None, {})


def test_exits_keep_their_unit_and_zero_switches_them_off():
    spec = a_spec(program=RSI, exits=exits(target=2, loss=3, trail=1, activation=2, unit="atr", timeout=10))
    changed = space(spec).at({"take_profit": 4, "stop_loss": 0, "trailing_stop": 1.5, "timeout": 20}).exits
    assert changed.take_profit == Distance(unit="atr", value=4)
    assert changed.stop_loss is None
    assert (changed.trailing_stop.distance.value, changed.trailing_stop.activation.value) == (1.5, 2)
    assert changed.timeout_bars == 20


def test_an_exit_that_was_not_there_is_a_fraction_of_the_price():
    changed = space(a_spec(program=RSI)).at({"trailing_activation": 0.02, "trailing_stop": 0.01}).exits
    assert changed.trailing_stop.distance == Distance(unit="fraction", value=0.01)
    assert changed.trailing_stop.activation == Distance(unit="fraction", value=0.02)


def test_lengths_are_stretched_wherever_an_indicator_has_one():
    changed = space(a_spec(program=RSI)).at({"indicator_length": 2.0}).program
    assert changed.entry_long[0].col_a == "rsi_28"
    assert changed.entry_long[0].value == 30.0
    assert changed.entry_long[1] == rules.Above("volume", "volume_sma_40 * 1.5")
    assert changed.exit_long[0] == rules.Below("macd_24_52_18", "bb_upper_40")


def test_lengths_stay_above_the_least_that_an_indicator_takes():
    changed = space(a_spec(program=RSI)).at({"indicator_length": 0.01}).program
    assert changed.entry_long[0].col_a == "rsi_2"
    assert changed.exit_long[0].col == "macd_2_3_1"


@pytest.mark.parametrize(
    ("ranges", "why"),
    [
        (["take_profit=1,2", "take_profit=3"], "given twice"),
        (["timeout=1.5"], "whole number"),
        (["indicator_length=0"], "above 0"),
        (["trailing_activation=0.1"], "give trailing_stop"),
        (["no_such=1"], r"no such parameter \(is no field .*: take one of take_profit"),
    ],
)
def test_what_is_no_parameter_is_refused_before_anything_runs(ranges, why):
    with pytest.raises(InvalidRequest, match=why):
        space(a_spec(program=RSI)).check([read_assignment(each) for each in ranges])


def test_lengths_of_a_strategy_without_any_cannot_be_varied():
    spec = a_spec(program=Rules(entry_long=(rules.Above("close", "open"),)))
    assert not has_lengths(spec)
    with pytest.raises(InvalidRequest, match="no indicator"):
        space(spec).check([read_range("indicator_length", "1,2")])


def test_by_default_what_is_there_is_varied_by_half_and_twice():
    spec = a_spec(program=RSI, exits=exits(target=0.02, loss=0.05, trail=0.005, unit="fraction"))
    found = {each.name: each.values for each in defaults(spec)}
    assert found == {
        "take_profit": (0.01, 0.02, 0.04),
        "stop_loss": (0.025, 0.05, 0.1),
        "trailing_stop": (0.0025, 0.005, 0.01),
        "indicator_length": (0.5, 1.0, 2.0),
    }
    points = list(grid(defaults(spec)))
    assert len(points) == grid_size(defaults(spec)) == 81
    assert points[1] == points[0] | {"indicator_length": 1.0}


def test_an_idea_is_the_rules_without_their_numbers():
    spec = a_spec(program=RSI)
    same = space(spec).at({"indicator_length": 3.0, "take_profit": 1.0})
    assert without_numbers(same) == without_numbers(spec)
    turned = msgspec.structs.replace(RSI, entry_long=(rules.CrossesBelow("rsi_14", value=30.0), RSI.entry_long[1]))
    assert without_numbers(a_spec(program=turned)) != without_numbers(spec)
    assert without_numbers(a_spec(program=Grid(levels=3))) == without_numbers(a_spec(program=Grid(levels=9)))
