"""Strategies to one program: every distinct expression and condition appears once, in an order that can be run.

Most of the 33 condition types are comparisons in disguise ("gap up" compares the open with an expression), so they are
lowered to eleven operations over value and truth slots. `conditions.evaluate` runs the program over blocks of rows.
Lowering keeps the meaning to the bit: `below(a, b)` is `above(b, a)`, and a comparison with a value that is not
finite is false either way.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, assert_never

import numpy as np

from daemon.core import strategy as rules
from daemon.engine.columns import ATR
from daemon.engine.expressions import Node, column, number, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from daemon.core.strategy import Condition, Operand, Strategy


class Op(IntEnum):
    """Operations: the first group writes value slots, the second truth slots."""

    ADD = 0
    SUBTRACT = 1
    MULTIPLY = 2
    DIVIDE = 3
    NEGATIVE = 4
    ABSOLUTE = 5
    MAXIMUM = 6
    MINIMUM = 7
    SHIFT = 8
    ROLLING_MEAN = 9
    ROLLING_PERCENTILE = 10
    ABOVE = 20
    AT_OR_ABOVE = 21
    CROSSES_ABOVE = 22
    RISING = 23
    FALLING = 24
    SQUEEZE = 25
    DIPPED_THEN_CROSSES_ABOVE = 26
    ALL_OF = 40
    ANY_OF = 41
    AT_LEAST = 42
    NOT = 43
    HELD = 44


_VALUE_OPS = {
    "+": Op.ADD,
    "-": Op.SUBTRACT,
    "*": Op.MULTIPLY,
    "/": Op.DIVIDE,
    "negative": Op.NEGATIVE,
    "abs": Op.ABSOLUTE,
    "max": Op.MAXIMUM,
    "min": Op.MINIMUM,
    "shift": Op.SHIFT,
    "rolling_mean": Op.ROLLING_MEAN,
    "rolling_percentile": Op.ROLLING_PERCENTILE,
}

NEVER = -1
"""Signal row of an empty rule list, or of a side that the strategy's direction forbids."""


class Program(NamedTuple):
    """A compiled set of strategies.

    inputs: column names; input k fills value slot k.
    constants: (slot, value) pairs that fill whole slots.
    code: (operations, 6) int32: op, destination slot, then op-specific: operand slots, windows, offset into `members`.
    parameters: (operations,) float64, the real-valued parameter of an operation.
    members: int32 truth slots of the variadic operations, back to back.
    value_slots, truth_slots: how many slots a block needs.
    lookback: bars before a row that its signals may depend on, beyond the columns' own.
    signals: int32 truth slots to keep, one per distinct signal.
    strategy_signals: (strategies, 4) int32 rows of `signals`, or NEVER: entry long, entry short, exit long, exit short.
    distinct_conditions, distinct_expressions: how many were left after sharing.
    """

    inputs: tuple[str, ...]
    constants: tuple[tuple[int, float], ...]
    code: NDArray[np.int32]
    parameters: NDArray[np.float64]
    members: NDArray[np.int32]
    value_slots: int
    truth_slots: int
    lookback: int
    signals: NDArray[np.int32]
    strategy_signals: NDArray[np.int32]
    distinct_conditions: int
    distinct_expressions: int


def compile_strategies(strategies: Sequence[Strategy]) -> Program:
    """Compile validated strategies; ExpressionError or ValueError for rules that were never validated."""
    builder = _Builder()
    rows: list[list[int]] = []
    for strategy in strategies:
        goes_long, goes_short = strategy.direction != "short_only", strategy.direction != "long_only"
        rows.append(
            [
                builder.signal(Op.ALL_OF, strategy.entry_long) if goes_long else NEVER,
                builder.signal(Op.ALL_OF, strategy.entry_short) if goes_short else NEVER,
                builder.signal(Op.ANY_OF, strategy.exit_long) if goes_long else NEVER,
                builder.signal(Op.ANY_OF, strategy.exit_short) if goes_short else NEVER,
            ]
        )
    return builder.build(rows)


class _Builder:
    """Assigns slots; a dictionary from computation to slot is what makes each one unique."""

    def __init__(self) -> None:
        self._inputs: dict[str, Node] = {}
        self._values: dict[Node, int] = {}
        self._truths: dict[tuple[float, ...], int] = {}
        self._constants: dict[Node, float] = {}
        self._code: list[tuple[int, ...]] = []
        self._parameters: list[float] = []
        self._members: list[int] = []
        self._value_lookback: list[int] = []
        self._truth_lookback: list[int] = []
        self._signals: dict[int, int] = {}
        self._distinct: set[Condition] = set()

    def signal(self, op: Op, conditions: Sequence[Condition]) -> int:
        if not conditions:
            return NEVER
        slot = self._variadic(op, [self._condition(condition) for condition in conditions])
        return self._signals.setdefault(slot, len(self._signals))

    def build(self, rows: list[list[int]]) -> Program:
        # Inputs and constants met their slots in order of appearance; the program wants inputs first.
        order = [*(self._values[node] for node in self._inputs.values())]
        order += [slot for slot in range(len(self._values)) if slot not in set(order)]
        renamed = {old: new for new, old in enumerate(order)}
        code = np.array(self._code, dtype=np.int32).reshape(-1, 6)
        for row in code:
            if row[0] < Op.ABOVE:
                row[1] = renamed[row[1]]
            if row[0] < Op.ALL_OF:
                row[2], row[3] = renamed[row[2]], renamed[row[3]]
        return Program(
            inputs=tuple(self._inputs),
            constants=tuple((renamed[self._values[node]], value) for node, value in self._constants.items()),
            code=code,
            parameters=np.array(self._parameters, dtype=np.float64),
            members=np.array([*self._members, 0], dtype=np.int32),
            value_slots=max(len(self._values), 1),
            truth_slots=max(len(self._truth_lookback), 1),
            lookback=max((self._truth_lookback[slot] for slot in self._signals), default=0),
            signals=np.array(list(self._signals), dtype=np.int32),
            strategy_signals=np.array(rows, dtype=np.int32).reshape(-1, 4),
            distinct_conditions=len(self._distinct),
            distinct_expressions=sum(1 for node in self._values if node.op not in ("column", "number")),
        )

    # Values.

    def _value(self, node: Node) -> int:
        if node in self._values:
            return self._values[node]
        if node.op == "column":
            self._inputs[node.name] = node
            return self._new_value(node, 0)
        if node.op == "number":
            self._constants[node] = node.parameters[0]
            return self._new_value(node, 0)
        operands = [self._value(operand) for operand in node.operands]
        lookback = max(self._value_lookback[slot] for slot in operands)
        window = least = 0
        parameter = 0.0
        if node.op == "rolling_percentile":
            window, parameter, least = int(node.parameters[0]), node.parameters[1], int(node.parameters[2])
        elif node.parameters:
            window = int(node.parameters[0])
        slot = self._new_value(node, lookback + window)
        self._emit(_VALUE_OPS[node.op], slot, operands[0], operands[-1], window, least, parameter)
        return slot

    def _new_value(self, node: Node, lookback: int) -> int:
        self._values[node] = len(self._values)
        self._value_lookback.append(lookback)
        return self._values[node]

    # Truths.

    def _leaf(self, op: Op, left: Node, right: Node, *, bars: int = 0, guard: int = 0, parameter: float = 0.0) -> int:
        a, b = self._value(left), self._value(right)
        back = max(self._value_lookback[a], self._value_lookback[b]) + max(bars, guard)
        return self._truth((op, a, b, bars, guard, parameter), back)

    def _variadic(self, op: Op, slots: Sequence[int], least: int = 0) -> int:
        """All, any or enough of several truths; all or any of one is that one."""
        unique = tuple(dict.fromkeys(slots)) if op is not Op.AT_LEAST else tuple(slots)
        if len(unique) == 1 and op is not Op.AT_LEAST:
            return unique[0]
        back = max(self._truth_lookback[slot] for slot in unique)
        key = (op, least, *unique)
        if key not in self._truths:
            offset = len(self._members)
            self._members.extend(unique)
            self._truths[key] = self._new_truth(back)
            self._emit(op, self._truths[key], offset, len(unique), least, 0, 0.0)
        return self._truths[key]

    def _truth(self, key: tuple[float, ...], lookback: int) -> int:
        if key not in self._truths:
            self._truths[key] = self._new_truth(lookback)
            op, a, b, bars, guard, parameter = key
            self._emit(Op(int(op)), self._truths[key], int(a), int(b), int(bars), int(guard), parameter)
        return self._truths[key]

    def _new_truth(self, lookback: int) -> int:
        self._truth_lookback.append(lookback)
        return len(self._truth_lookback) - 1

    def _emit(self, op: Op, out: int, a: int, b: int, bars: int, extra: int, parameter: float) -> None:
        self._code.append((op, out, a, b, bars, extra))
        self._parameters.append(parameter)

    def _condition(self, condition: Condition) -> int:  # noqa: C901, PLR0911, PLR0912 - one case a type
        """Lower one condition to a truth slot."""
        self._distinct.add(condition)
        match condition:
            case rules.CrossesAbove():
                return self._crosses(parse(condition.col_a), parse(condition.other))
            case rules.CrossesBelow():
                return self._crosses(parse(condition.other), parse(condition.col_a))
            case rules.BreaksAboveLevel():
                return self._crosses(_CLOSE, parse(condition.level_col))
            case rules.BreaksBelowLevel():
                return self._crosses(parse(condition.level_col), _CLOSE)
            case rules.Above():
                return self._above(parse(condition.col), parse(condition.ref))
            case rules.Below():
                return self._above(parse(condition.ref), parse(condition.col))
            case rules.AtOrAbove():
                return self._leaf(Op.AT_OR_ABOVE, parse(condition.col), parse(condition.ref))
            case rules.AtOrBelow():
                return self._leaf(Op.AT_OR_ABOVE, parse(condition.ref), parse(condition.col))
            case rules.CandleBullish():
                return self._above(parse(condition.pattern_col), number(0))
            case rules.CandleBearish():
                return self._above(number(0), parse(condition.pattern_col))
            case rules.Rising():
                return self._monotonic(Op.RISING, parse(condition.col), condition.bars)
            case rules.Falling():
                return self._monotonic(Op.FALLING, parse(condition.col), condition.bars)
            case rules.ConsecutiveHigherCloses():
                return self._monotonic(Op.RISING, _CLOSE, condition.count)
            case rules.ConsecutiveLowerCloses():
                return self._monotonic(Op.FALLING, _CLOSE, condition.count)
            case rules.AllOf():
                return self._variadic(Op.ALL_OF, [self._condition(each) for each in condition.conditions])
            case rules.AnyOf():
                return self._variadic(Op.ANY_OF, [self._condition(each) for each in condition.conditions])
            case rules.AtLeast():
                slots = [self._condition(each) for each in condition.conditions]
                return self._variadic(Op.AT_LEAST, slots, condition.k)
            case rules.Not():
                nested = self._condition(condition.condition)
                return self._truth((Op.NOT, nested, nested, 0, 0, 0.0), self._truth_lookback[nested])
            case rules.HeldForNBars():
                nested = self._condition(condition.condition)
                back = self._truth_lookback[nested] + condition.n_bars - 1
                return self._truth((Op.HELD, nested, nested, condition.n_bars, 0, 0.0), back)
            case rules.PullbackTo():
                return self._pullback(condition.level_col, condition.tolerance_atr_mult, to_above=True)
            case rules.PullbackBelow():
                return self._pullback(condition.level_col, condition.tolerance_atr_mult, to_above=False)
            case rules.BullishDivergence():
                indicator = parse(condition.indicator_col)
                return self._divergence(_LOW, indicator, condition.lookback)
            case rules.BearishDivergence():
                indicator = parse(condition.indicator_col)
                return self._divergence(indicator, _HIGH, condition.lookback)
            case rules.Squeeze():
                width = parse(condition.width_col)
                return self._leaf(Op.SQUEEZE, width, width, bars=condition.lookback, guard=condition.lookback)
            case rules.NarrowestRange():
                bars = condition.lookback
                return self._leaf(Op.SQUEEZE, _RANGE, _RANGE, bars=bars, guard=bars - 1)
            case rules.RangeExceedsAtr():
                return self._above(_RANGE, _atr_times(condition.multiplier))
            case rules.InTopPctOfRange():
                return self._leaf(Op.AT_OR_ABOVE, _PLACE_IN_RANGE, number(1 - condition.pct))
            case rules.InBottomPctOfRange():
                return self._leaf(Op.AT_OR_ABOVE, number(condition.pct), _PLACE_IN_RANGE)
            case rules.GapUp():
                return self._above(_OPEN, Node("+", (_shift(_CLOSE, 1), _atr_times(condition.atr_mult))))
            case rules.GapDown():
                return self._above(Node("-", (_shift(_CLOSE, 1), _atr_times(condition.atr_mult))), _OPEN)
            case rules.DeviationFrom():
                col, ref = parse(condition.col), parse(condition.ref_col)
                pair = (ref, col) if condition.direction == "below" else (col, ref)
                return self._above(Node("-", pair), _atr_times(condition.atr_mult))
            case rules.WasBelowThenCrossesAbove():
                return self._dipped(parse(condition.col), condition.threshold, condition.lookback)
            case rules.WasAboveThenCrossesBelow():
                mirrored = Node("negative", (parse(condition.col),))
                return self._dipped(mirrored, -condition.threshold, condition.lookback)
            case _:
                assert_never(condition)

    def _above(self, left: Node, right: Node) -> int:
        return self._leaf(Op.ABOVE, left, right)

    def _crosses(self, left: Node, right: Node) -> int:
        return self._leaf(Op.CROSSES_ABOVE, left, right, guard=1)

    def _monotonic(self, op: Op, node: Node, bars: int) -> int:
        return self._leaf(op, node, node, bars=bars, guard=bars)

    def _dipped(self, node: Node, threshold: float, bars: int) -> int:
        return self._leaf(Op.DIPPED_THEN_CROSSES_ABOVE, node, node, bars=bars, guard=bars, parameter=threshold)

    def _pullback(self, level_col: Operand, multiplier: float, *, to_above: bool) -> int:
        level, tolerance = parse(level_col), _atr_times(multiplier)
        if to_above:
            touched = self._leaf(Op.AT_OR_ABOVE, Node("+", (level, tolerance)), _LOW)
            return self._variadic(Op.ALL_OF, [touched, self._above(_CLOSE, level)])
        touched = self._leaf(Op.AT_OR_ABOVE, _HIGH, Node("-", (level, tolerance)))
        return self._variadic(Op.ALL_OF, [touched, self._above(level, _CLOSE)])

    def _divergence(self, falls: Node, rises: Node, bars: int) -> int:
        """One series lower and another higher than `bars` bars ago."""
        return self._variadic(
            Op.ALL_OF, [self._above(_shift(falls, bars), falls), self._above(rises, _shift(rises, bars))]
        )


def _shift(node: Node, bars: int) -> Node:
    return Node("shift", (node,), parameters=(float(bars),))


def _atr_times(multiplier: float) -> Node:
    return Node("*", (number(multiplier), column(ATR)))


_OPEN, _HIGH, _LOW, _CLOSE = column("open"), column("high"), column("low"), column("close")
_RANGE = Node("-", (_HIGH, _LOW))
# A bar without range divides by zero: infinite or NaN, which no comparison accepts.
_PLACE_IN_RANGE = Node("/", (Node("-", (_CLOSE, _LOW)), _RANGE))
