from pathlib import Path

import numpy as np
import pytest

from daemon.core import strategy as rules
from daemon.core.strategy import Strategy
from daemon.engine.expressions import ExpressionError
from daemon.engine.program import NEVER, Op, compile_strategies
from daemon.research.strategies import load

DIPS = rules.Below("rsi_14", 30.0)
JUMPS = rules.Above("rsi_14", 70.0)


def shipped():
    return list(load([Path(__file__).parents[2] / "strategies.json"]))


def a_strategy(direction="long_short", **rule_lists):
    empty = dict.fromkeys(("entry_long", "entry_short", "exit_long", "exit_short"), ())
    return Strategy(
        id=1,
        name="made_up",
        display_name="Made up",
        philosophy="none",
        category="test",
        direction=direction,
        required_indicators=(),
        **(empty | rule_lists),
    )


def entering_on(*conditions):
    return compile_strategies([a_strategy(entry_long=conditions)])


def operations(program):
    return [Op(row[0]) for row in program.code]


def test_the_shipped_strategies_hold_303_distinct_conditions():
    program = compile_strategies(shipped())
    assert program.distinct_conditions == 303
    assert len(program.strategy_signals) == 100


def test_a_condition_said_twice_takes_one_slot():
    program = compile_strategies(
        [a_strategy(entry_long=(DIPS,), exit_short=(DIPS,)), a_strategy(entry_short=(JUMPS, DIPS))]
    )
    assert program.distinct_conditions == 2
    assert operations(program) == [Op.ABOVE, Op.ABOVE, Op.ALL_OF]
    first, second = program.strategy_signals.tolist()
    assert first[0] == first[3]
    assert len({first[0], second[1]}) == len(program.signals) == 2


def test_equal_strategies_share_every_signal():
    rule_lists = {"entry_long": (DIPS, JUMPS), "exit_long": (JUMPS, DIPS)}
    program = compile_strategies([a_strategy(**rule_lists), a_strategy(**rule_lists)])
    assert program.strategy_signals[0].tolist() == program.strategy_signals[1].tolist()
    assert operations(program) == [Op.ABOVE, Op.ABOVE, Op.ALL_OF, Op.ANY_OF]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (rules.Above("close", "open"), rules.Below("open", "close")),
        (rules.CrossesAbove("close", "sma_20"), rules.BreaksAboveLevel("sma_20")),
        (rules.CrossesBelow("close", "sma_20"), rules.CrossesAbove("sma_20", "close")),
        (rules.ConsecutiveLowerCloses(3), rules.Falling("close", 3)),
        (rules.CandleBullish("cdl_doji"), rules.Above("cdl_doji", 0.0)),
        (rules.Above("sar", 1.0), rules.Above("psar", 1.0)),
    ],
)
def test_two_wordings_of_one_computation_take_one_slot(one, other):
    program = entering_on(one, other)
    assert program.distinct_conditions == 2
    assert program.truth_slots == 1


def test_an_expression_within_several_others_is_computed_once():
    program = entering_on(rules.Above("abs(close - open)", 1.0), rules.Above("(close - open) / 2", "close - open"))
    assert operations(program).count(Op.SUBTRACT) == 1
    assert program.distinct_expressions == 3


def test_a_negative_zero_in_one_rule_leaves_a_division_by_zero_in_another_alone():
    program = entering_on(rules.Below("close", -0.0), rules.Above("min(close / 0, 5)", 4.0))
    zeros = [value for _, value in program.constants if value == 0]
    assert np.signbit(zeros).tolist() == [False]


def test_all_or_any_of_one_condition_is_that_condition():
    plain = entering_on(DIPS)
    for wrapped in (rules.AllOf((DIPS,)), rules.AnyOf((DIPS, DIPS))):
        program = entering_on(wrapped)
        assert program.code.tolist() == plain.code.tolist()


def test_at_least_counts_a_repeated_condition_as_often_as_it_is_listed():
    program = entering_on(rules.AtLeast(2, (DIPS, DIPS, JUMPS)))
    slots = program.members[:3].tolist()
    assert slots[0] == slots[1] != slots[2]


@pytest.mark.parametrize(("direction", "closed"), [("long_short", []), ("long_only", [1, 3]), ("short_only", [0, 2])])
def test_the_direction_closes_entry_and_exit_of_the_other_side(direction, closed):
    lists = dict.fromkeys(("entry_long", "entry_short", "exit_long", "exit_short"), (DIPS,))
    (row,) = compile_strategies([a_strategy(direction, **lists)]).strategy_signals
    assert np.flatnonzero(row == NEVER).tolist() == closed


def test_an_empty_list_never_fires():
    program = compile_strategies([a_strategy(entry_short=(DIPS,)), a_strategy()])
    assert program.strategy_signals.tolist() == [[NEVER, 0, NEVER, NEVER], [NEVER] * 4]


def test_no_strategies_compile_to_an_empty_program():
    program = compile_strategies([])
    assert program.inputs == ()
    assert program.code.shape == (0, 6)
    assert program.strategy_signals.shape == (0, 4)


def test_inputs_are_the_columns_that_rules_name_and_fill_the_first_slots():
    program = entering_on(rules.Above("2 * sma_20", "close"), rules.RangeExceedsAtr(1.5))
    assert program.inputs == ("sma_20", "close", "high", "low", "atr_14")
    constants = {slot for slot, _ in program.constants}
    outputs = {row[1] for row in program.code if row[0] < Op.ABOVE}
    assert sorted(constants | outputs) == list(range(5, program.value_slots))


@pytest.mark.parametrize(
    ("condition", "least"),
    [
        (rules.Above("close", 1.0), 0),
        (rules.CrossesAbove("close", value=1.0), 1),
        (rules.Above("shift(shift(close, 3), 4)", 1.0), 7),
        (rules.Above("rolling_mean(shift(close, 3), 5)", 1.0), 7),
        (rules.Rising("rolling_percentile(close, 10, 50, 1)", 4), 13),
        (rules.Squeeze("shift(close, 2)", 6), 8),
        (rules.HeldForNBars(rules.CrossesBelow("close", value=1.0), 5), 5),
        (rules.Not(rules.HeldForNBars(rules.Not(rules.BullishDivergence("close", 9)), 3)), 11),
        (rules.AnyOf((rules.Above("close", 1.0), rules.WasAboveThenCrossesBelow("close", 1.0, 8))), 8),
    ],
)
def test_the_lookback_covers_every_bar_a_signal_depends_on_and_hardly_more(condition, least):
    assert least <= entering_on(condition).lookback <= least + 2


@pytest.mark.parametrize("operand", ["no_such_column", "close **"])
def test_a_rule_that_was_never_validated_is_refused(operand):
    with pytest.raises(ExpressionError):
        entering_on(rules.Above(operand, 1.0))
