"""Operand expressions: text such as `sma_20 + 2 * stddev_20` to a tree over columns.

The grammar is Python's for `+ - * /`, unary minus, parentheses, numbers and names, so Python's own parser reads it;
whatever else that parser admits is refused with its position. Nothing is re-associated or rounded: evaluation is
double precision in the written order.
"""

from __future__ import annotations

import ast
import sys
from typing import NamedTuple

from daemon.core.strategy import Operand
from daemon.engine.columns import canonical

_BINARY = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}

# Name: how many operands, then how many literal parameters.
_FUNCTIONS = {
    "shift": (1, 1),
    "abs": (1, 0),
    "max": (2, 0),
    "min": (2, 0),
    "rolling_mean": (1, 1),
    "rolling_percentile": (1, 3),
}
_MAX_DEPTH = 50
_MAX_WINDOW = 100_000


class ExpressionError(ValueError):
    """An expression that cannot be used.

    reason: what is wrong. position: 1-based column of the text.
    """

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"{reason} (position {position})")
        self.reason = reason
        self.position = position


class Node(NamedTuple):
    """One operation. Equal nodes are equal computations, so they are evaluated once.

    op: `column`, `number`, an operator, or a function's name. operands: nodes. name: of a column.
    parameters: the number's value, or literals: bars of a window, percentile, minimum count.
    """

    op: str
    operands: tuple[Node, ...] = ()
    name: str = ""
    parameters: tuple[float, ...] = ()


def number(value: float) -> Node:
    """Return a literal as a node; -0.0, which equals 0.0 and would share its slot, becomes 0.0."""
    return Node("number", parameters=(float(value) + 0.0,))


def column(name: str) -> Node:
    """Return a column of the catalogue as a node."""
    return Node("column", name=name)


def parse(operand: Operand) -> Node:
    """Parse a number, column name or expression; ExpressionError names what is wrong and where."""
    if not isinstance(operand, str):
        return number(operand)
    text = operand.lstrip()
    indent = len(operand) - len(text)
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise ExpressionError("does not parse", (error.offset or 1) + indent) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExpressionError(f"does not parse: {error}", 1) from None
    try:
        return _node(tree.body, 0)
    except ExpressionError as error:
        raise ExpressionError(error.reason, error.position + indent) from None


def columns_of(operand: Operand) -> set[str]:
    """Return the columns an operand reads, by the catalogue's own names; ExpressionError as `parse`."""
    return _names(parse(operand))


def _names(node: Node) -> set[str]:
    return {node.name} if node.op == "column" else set().union(*map(_names, node.operands))


def _node(tree: ast.expr, depth: int) -> Node:
    position = tree.col_offset + 1
    if depth > _MAX_DEPTH:
        raise ExpressionError(f"nests deeper than {_MAX_DEPTH}", position)
    match tree:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            if value > sys.float_info.max:
                raise ExpressionError("number is out of range", position)
            return number(value)
        case ast.Name(id=name):
            known = canonical(name)
            if known is None:
                raise ExpressionError(f"unknown column `{name}`", position)
            return column(known)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _BINARY:
            return Node(_BINARY[type(operator)], (_node(left, depth + 1), _node(right, depth + 1)))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Node("negative", (_node(operand, depth + 1),))
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]) if function in _FUNCTIONS:
            return _call(function, arguments, position, depth)
        case ast.Call(func=ast.Name(id=function)):
            known_functions = ", ".join(_FUNCTIONS)
            raise ExpressionError(f"`{function}` is not a function: {known_functions}", position)
        case _:
            raise ExpressionError("only + - * /, parentheses, numbers, columns and functions", position)


def _call(function: str, arguments: list[ast.expr], position: int, depth: int) -> Node:
    operand_count, parameter_count = _FUNCTIONS[function]
    if len(arguments) != operand_count + parameter_count:
        wanted = operand_count + parameter_count
        raise ExpressionError(f"`{function}` takes {wanted} arguments, not {len(arguments)}", position)
    operands = tuple(_node(argument, depth + 1) for argument in arguments[:operand_count])
    literals = arguments[operand_count:]
    if function == "rolling_percentile":
        window, percentile, least = literals
        limits = (_window(window, 1), _literal(percentile, 0, 100), _window(least, 1))
        return Node(function, operands, parameters=limits)
    windows = tuple(_window(literal, 0 if function == "shift" else 1) for literal in literals)
    return Node(function, operands, parameters=windows)


def _literal(tree: ast.expr, low: float, high: float) -> float:
    match tree:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and low <= value <= high:
            return float(value)
    raise ExpressionError(f"must be a literal number from {low} to {high}", tree.col_offset + 1)


def _window(tree: ast.expr, low: int) -> float:
    value = _literal(tree, low, _MAX_WINDOW)
    if value != int(value):
        raise ExpressionError("must be a whole number of bars", tree.col_offset + 1)
    return value
