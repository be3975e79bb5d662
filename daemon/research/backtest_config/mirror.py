"""The mirror image of a rule: what it says of the same market upside down, so that a long rule becomes a short one.

Turned upside down, a price p becomes c - p around some level c, highs become lows, and each indicator follows: RSI
becomes 100 - RSI, MACD its negative, +DI and -DI change places, volume and ATR stay. An operand is carried through as
sign x expression + offset + weight x c; where both sides of a comparison weigh the unknown c alike, it drops out, and
where they do not (a price beside a fixed number), there is no mirror image. Ratios of prices (ROC, PPO, TRIX) turn
around only nearly: they are taken as their negatives, as traders do.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from daemon.core import strategy as rules
from daemon.engine.expressions import Node, column, number, parse

if TYPE_CHECKING:
    from daemon.core.strategy import Condition, Operand

_LENGTHS: Final = re.compile(r"(_\d+(p\d+)?)+$", re.ASCII)
_Relation: TypeAlias = Literal["above", "at_or_above", "below", "at_or_below", "crosses_above", "crosses_below"]
_Comparison: TypeAlias = (
    rules.Above | rules.Below | rules.AtOrAbove | rules.AtOrBelow | rules.CrossesAbove | rules.CrossesBelow
)


class MirrorError(ValueError):
    """A rule without a mirror image; the message says why."""


class Image(NamedTuple):
    """An operand on the market upside down: sign x node + offset + weight x c; node None is 0."""

    node: Node | None
    sign: int
    offset: float
    weight: float


class _Column(NamedTuple):
    """How a column turns around. partner: the family whose column takes its place."""

    partner: str
    sign: int
    offset: float = 0.0
    weight: float = 0.0


def _kept(names: str, sign: int, offset: float = 0.0, weight: float = 0.0) -> dict[str, _Column]:
    """Families that stay themselves."""
    return {name: _Column(name, sign, offset, weight) for name in names.split()}


def _swapped(pairs: str, sign: int, weight: float = 0.0) -> dict[str, _Column]:
    """Families that change places: "a:b c:d"."""
    found: dict[str, _Column] = {}
    for pair in pairs.split():
        one, other = pair.split(":")
        found |= {one: _Column(other, sign, weight=weight), other: _Column(one, sign, weight=weight)}
    return found


# By family: the column's name without its lengths.
_COLUMNS: Final[dict[str, _Column]] = {
    **_kept("close open sma ema wma dema tema kama psar vwap vwap_day ht_trendline typical_price_sma", -1, weight=1.0),
    **_kept("bb_middle donchian_mid pivot_pp", -1, weight=1.0),
    **_kept("ichi_tenkan ichi_kijun ichi_senkou_a ichi_senkou_b ichi_chikou", -1, weight=1.0),
    **_swapped("high:low bb_upper:bb_lower donchian_high:donchian_low", -1, weight=1.0),
    **_swapped("pivot_r1:pivot_s1 pivot_r2:pivot_s2", -1, weight=1.0),
    **_kept("rsi mfi stoch_k stoch_d", -1, offset=100.0),
    **_kept("bb_pct", -1, offset=1.0),
    **_kept("willr", -1, offset=-100.0),
    **_kept("macd macd_signal macd_hist cci roc mom apo ppo ppo_signal trix cmo linearreg_slope", -1),
    **_kept("obv obv_sma adosc cdl_engulfing cdl_harami cdl_marubozu", -1),
    **_swapped("obv_high:obv_low cdl_hammer:cdl_shooting_star cdl_morning_star:cdl_evening_star", -1),
    **_swapped("cdl_3white_soldiers:cdl_3black_crows", -1),
    **_swapped("plus_di:minus_di aroon_up:aroon_down", 1),
    **_kept("volume volume_sma volume_ema atr natr atr_sma adx bb_width stddev bar_range bar_index cdl_doji", 1),
}
_OPPOSITE: Final[dict[_Relation, _Relation]] = {
    "above": "below",
    "below": "above",
    "at_or_above": "at_or_below",
    "at_or_below": "at_or_above",
    "crosses_above": "crosses_below",
    "crosses_below": "crosses_above",
}
_RELATIONS: Final[dict[_Relation, type[_Comparison]]] = {
    "above": rules.Above,
    "below": rules.Below,
    "at_or_above": rules.AtOrAbove,
    "at_or_below": rules.AtOrBelow,
    "crosses_above": rules.CrossesAbove,
    "crosses_below": rules.CrossesBelow,
}


def mirrored(condition: Condition) -> Condition:  # noqa: C901, PLR0911, PLR0912 - one case a type
    """Return the mirror image of a condition; MirrorError where it has none."""
    match condition:
        case rules.Above(a, b):
            return _related("above", a, b)
        case rules.Below(a, b):
            return _related("below", a, b)
        case rules.AtOrAbove(a, b):
            return _related("at_or_above", a, b)
        case rules.AtOrBelow(a, b):
            return _related("at_or_below", a, b)
        case rules.CrossesAbove(a):
            return _related("crosses_above", a, condition.other)
        case rules.CrossesBelow(a):
            return _related("crosses_below", a, condition.other)
        case rules.BreaksAboveLevel(level):
            return _related("crosses_above", "close", level)
        case rules.BreaksBelowLevel(level):
            return _related("crosses_below", "close", level)
        case rules.AllOf(inner):
            return rules.AllOf(tuple(map(mirrored, inner)))
        case rules.AnyOf(inner):
            return rules.AnyOf(tuple(map(mirrored, inner)))
        case rules.AtLeast(k, inner):
            return rules.AtLeast(k, tuple(map(mirrored, inner)))
        case rules.Not(nested):
            return rules.Not(mirrored(nested))
        case rules.HeldForNBars(nested, bars):
            return rules.HeldForNBars(mirrored(nested), bars)
        case rules.Rising(a, bars):
            operand, turned = _turned(a)
            return rules.Falling(operand, bars) if turned else rules.Rising(operand, bars)
        case rules.Falling(a, bars):
            operand, turned = _turned(a)
            return rules.Rising(operand, bars) if turned else rules.Falling(operand, bars)
        case rules.ConsecutiveHigherCloses(count):
            return rules.ConsecutiveLowerCloses(count)
        case rules.ConsecutiveLowerCloses(count):
            return rules.ConsecutiveHigherCloses(count)
        case rules.PullbackTo(level, tolerance):
            return rules.PullbackBelow(_level(level), tolerance)
        case rules.PullbackBelow(level, tolerance):
            return rules.PullbackTo(_level(level), tolerance)
        case rules.BullishDivergence(a, lookback):
            return rules.BearishDivergence(_swinging(a), lookback)
        case rules.BearishDivergence(a, lookback):
            return rules.BullishDivergence(_swinging(a), lookback)
        case rules.CandleBullish(a):
            operand, turned = _turned(a)
            return rules.CandleBearish(operand) if turned else rules.CandleBullish(operand)
        case rules.CandleBearish(a):
            operand, turned = _turned(a)
            return rules.CandleBullish(operand) if turned else rules.CandleBearish(operand)
        case rules.Squeeze(a, lookback):
            operand, turned = _turned(a)
            if turned:
                raise MirrorError(f"the lowest `{a}` would become a highest, which `squeeze` cannot say")
            return rules.Squeeze(operand, lookback)
        case rules.InTopPctOfRange(pct):
            return rules.InBottomPctOfRange(pct)
        case rules.InBottomPctOfRange(pct):
            return rules.InTopPctOfRange(pct)
        case rules.GapUp(multiple):
            return rules.GapDown(multiple)
        case rules.GapDown(multiple):
            return rules.GapUp(multiple)
        case rules.DeviationFrom(a, b, multiple, direction):
            return rules.DeviationFrom(_level(a), _level(b), multiple, "above" if direction == "below" else "below")
        case rules.WasBelowThenCrossesAbove(a, threshold, lookback):
            return _dipped(a, threshold, lookback, was_below=True)
        case rules.WasAboveThenCrossesBelow(a, threshold, lookback):
            return _dipped(a, threshold, lookback, was_below=False)
        case _:  # the size of a bar's range looks the same from both sides
            return condition


# Conditions.


def _related(relation: _Relation, left: Operand, right: Operand) -> Condition:
    a, b = _image(parse(left)), _image(parse(right))
    if a.weight != b.weight:
        raise MirrorError(f"`{left}` beside `{right}` depends on how high the price is")
    if a.node is None:
        a, b, relation = b, a, _OPPOSITE[relation]
    if a.sign < 0:
        a, b, relation = _negative(a), _negative(b), _OPPOSITE[relation]
    # Now a is its node and an offset, which moves to the other side.
    other = b._replace(offset=b.offset - a.offset)
    return _condition(relation, _written(a._replace(offset=0.0)), _written(other))


def _condition(relation: _Relation, left: Operand, right: Operand) -> Condition:
    kind = _RELATIONS[relation]
    if kind is rules.CrossesAbove or kind is rules.CrossesBelow:
        return kind(left, value=right) if isinstance(right, float) else kind(left, right)
    return kind(left, right)


def _turned(operand: Operand) -> tuple[Operand, bool]:
    """Return what moves instead of an operand, and whether it moves the other way."""
    image = _image(parse(operand))
    return _written(image._replace(sign=1, offset=0.0)), image.sign < 0


def _level(operand: Operand) -> Operand:
    image = _image(parse(operand))
    if (image.weight, image.sign) != (1.0, -1):
        raise MirrorError(f"`{operand}` is no price")
    return _written(_negative(image))


def _swinging(operand: Operand) -> Operand:
    written, turned = _turned(operand)
    if not turned:
        raise MirrorError(f"`{operand}` does not turn around with the price")
    return written


def _dipped(operand: Operand, threshold: float, lookback: int, *, was_below: bool) -> Condition:
    image = _image(parse(operand))
    if image.weight:
        raise MirrorError(f"`{operand}` is a price, and {threshold:g} a fixed level of it")
    written = _written(image._replace(sign=1, offset=0.0))
    level = image.sign * (threshold - image.offset) + 0.0
    if was_below == (image.sign > 0):
        return rules.WasBelowThenCrossesAbove(written, level, lookback)
    return rules.WasAboveThenCrossesBelow(written, level, lookback)


# Operands.


def _image(node: Node) -> Image:  # noqa: C901, PLR0911 - one case an operation
    match node:
        case Node("number", parameters=(value,)):
            return Image(None, 1, value, 0.0)
        case Node("column", name=name):
            return _column_image(name)
        case Node("+", (a, b)):
            return _sum(_image(a), _image(b))
        case Node("-", (a, b)):
            return _sum(_image(a), _negative(_image(b)))
        case Node("negative", (a,)):
            return _negative(_image(a))
        case Node("*" | "/", (a, b)):
            return _product(node.op, _image(a), _image(b))
        case Node("max" | "min", (a, b)):
            return _extreme(node.op, _image(a), _image(b))
        case Node("abs", (a,)):
            image = _image(a)
            if image.weight:
                raise MirrorError("`abs` of a price has no mirror image")
            return Image(Node("abs", (_node(image),)), 1, 0.0, 0.0)
        case Node(op, (a,)):  # shift, rolling_mean, rolling_percentile
            return _windowed(op, _image(a), node.parameters)
    raise MirrorError(f"`{node.op}` has no mirror image")


def _column_image(name: str) -> Image:
    lengths = _LENGTHS.search(name)
    suffix = lengths.group() if lengths else ""
    known = _COLUMNS.get(name.removesuffix(suffix))
    if known is None:
        raise MirrorError(f"what `{name}` becomes on a market upside down is not known")
    return Image(column(known.partner + suffix), known.sign, known.offset, known.weight)


def _negative(image: Image) -> Image:
    sign = 1 if image.node is None else -image.sign
    return Image(image.node, sign, -image.offset + 0.0, -image.weight + 0.0)


def _sum(a: Image, b: Image) -> Image:
    offset, weight = a.offset + b.offset, a.weight + b.weight
    if a.node is None or b.node is None:
        kept = b if a.node is None else a
        return Image(kept.node, kept.sign, offset, weight)
    return Image(Node("+" if a.sign == b.sign else "-", (a.node, b.node)), a.sign, offset, weight)


def _product(op: str, a: Image, b: Image) -> Image:
    if b.node is None and not b.weight:
        if op == "/" and b.offset == 0:
            raise MirrorError("a division by 0 has no value")
        factor = b.offset if op == "*" else 1 / b.offset
        node = None if a.node is None else Node(op, (a.node, number(b.offset)))
        return Image(node, a.sign, a.offset * factor, a.weight * factor)
    if a.node is None and not a.weight and op == "*" and b.node is not None:
        return Image(Node("*", (number(a.offset), b.node)), b.sign, a.offset * b.offset, a.offset * b.weight)
    if a.weight or b.weight or b.offset or (a.offset and a.node is not None):
        raise MirrorError("products and ratios of prices and oscillators have no mirror image")
    left = number(a.offset) if a.node is None else a.node
    return Image(Node(op, (left, _node(b._replace(sign=1)))), a.sign * b.sign, 0.0, 0.0)


def _extreme(op: str, a: Image, b: Image) -> Image:
    if a.weight != b.weight:
        raise MirrorError(f"`{op}` of a price and something else has no mirror image")
    sign = b.sign if a.node is None else a.sign
    if sign < 0:
        op, a, b = ("min" if op == "max" else "max"), _negative(a), _negative(b)
    pair = Node(op, (_node(a), _node(b)))
    return Image(pair, sign, 0.0, a.weight * sign)


def _windowed(op: str, image: Image, parameters: tuple[float, ...]) -> Image:
    if image.node is None:
        return image
    if op == "rolling_percentile" and image.sign < 0:
        window, percentile, least = parameters
        parameters = (window, 100 - percentile, least)
    return image._replace(node=Node(op, (image.node,), parameters=parameters))


# Texts.


def _node(image: Image) -> Node:
    """Put sign, node and offset into one node."""
    if image.node is None:
        return number(image.offset)
    if image.sign > 0:
        if not image.offset:
            return image.node
        op, offset = ("+", image.offset) if image.offset > 0 else ("-", -image.offset)
        return Node(op, (image.node, number(offset)))
    return Node("-", (number(image.offset), image.node)) if image.offset else Node("negative", (image.node,))


def _written(image: Image) -> Operand:
    node = _node(image)
    return node.parameters[0] if node.op == "number" else _text(node)


def _text(node: Node, *, inner: bool = False) -> str:
    """Write a node as an expression that parses to it."""
    match node:
        case Node("number", parameters=(value,)):
            written = f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else repr(value)  # noqa: PLR2004
            return f"({written})" if value < 0 and inner else written
        case Node("column", name=name):
            return name
        case Node("+" | "-" | "*" | "/" as op, (a, b)):
            # A product within a sum needs no parentheses; all else keeps the written order with them.
            bare = op in "+-"
            left = _text(a, inner=not (bare and a.op in "+-*/"))
            right = _text(b, inner=not (bare and b.op in "*/"))
            return f"({left} {op} {right})" if inner else f"{left} {op} {right}"
        case Node("negative", (a,)):
            return f"(-{_text(a, inner=True)})" if inner else f"-{_text(a, inner=True)}"
    parameters = (f"{value:g}" if value != int(value) else str(int(value)) for value in node.parameters)
    return f"{node.op}({', '.join([*map(_text, node.operands), *parameters])})"
