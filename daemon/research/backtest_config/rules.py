"""Inline rules to conditions and exits: the words traders write, and what each was taken to mean.

A rule compares an indicator with a value ("rsi" crosses_above 30), is a distance or a time of an exit ("stop_loss"
0.05), or is a condition as `strategies.json` writes it. Each word that stands for something longer is answered by a
sentence of how it was read. A comparison with a missing value is false, whatever its operator.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from daemon.core import strategy as rules
from daemon.core.backtest import Distance, Exits, Trailing
from daemon.core.strategy import Condition
from daemon.engine.columns import NAMES, canonical
from daemon.engine.expressions import ExpressionError, columns_of
from daemon.research.backtest_config.fields import Fields, Limits, number, parsed_number, refused, shown, suggestion

if TYPE_CHECKING:
    from daemon.core.strategy import Operand

USUAL: Final[dict[str, str]] = {
    "price": "close",
    "rsi": "rsi_14",
    "sma": "sma_20",
    "ma": "sma_20",
    "ema": "ema_20",
    "atr": "atr_14",
    "adx": "adx_14",
    "plus_di": "plus_di_14",
    "minus_di": "minus_di_14",
    "cci": "cci_20",
    "willr": "willr_14",
    "williams_r": "willr_14",
    "mfi": "mfi_14",
    "roc": "roc_10",
    "mom": "mom_10",
    "momentum": "mom_10",
    "trix": "trix_15",
    "cmo": "cmo_14",
    "kama": "kama_30",
    "stddev": "stddev_20",
    "linearreg_slope": "linearreg_slope_20",
    "stoch": "stoch_k",
    "stochastic": "stoch_k",
    "macd_histogram": "macd_hist",
    "bollinger_upper": "bb_upper",
    "bollinger_middle": "bb_middle",
    "bollinger_lower": "bb_lower",
    "bollinger_width": "bb_width",
    "bollinger_pct": "bb_pct",
    "donchian_high": "donchian_high_20",
    "donchian_low": "donchian_low_20",
    "donchian_mid": "donchian_mid_20",
    "aroon_up": "aroon_up_25",
    "aroon_down": "aroon_down_25",
    "parabolic_sar": "psar",
    "volume_sma": "volume_sma_20",
}
"""Words without a length, and the column that each stands for."""

OPERATORS: Final[dict[str, str]] = {
    "gt": "gt",
    "lt": "lt",
    "gte": "gte",
    "lte": "lte",
    "eq": "eq",
    "neq": "neq",
    "crosses_above": "crosses_above",
    "crosses_below": "crosses_below",
    "between": "between",
    "greater_than": "gt",
    "less_than": "lt",
    ">": "gt",
    "<": "lt",
    ">=": "gte",
    "<=": "lte",
    "==": "eq",
    "!=": "neq",
    "above": "gt",
    "below": "lt",
}
COMPARISON_FIELDS: Final = ("indicator", "period", "length", "condition", "value")
DISTANCE_FIELDS: Final = ("type", "value", "unit")
TRAILING_FIELDS: Final = ("type", "activation", "distance", "unit")
TIMEOUT_FIELDS: Final = ("type", "bars", "value")
UNITS: Final = ("fraction", "price", "atr")
_EXITS: Final = ("take_profit", "stop_loss", "trailing_stop", "timeout", "time_stop")
_CONDITIONS: Final[dict[str, Any]] = {kind.__struct_config__.tag: kind for kind in get_args(Condition)}
_MOST_RULES: Final = 100
_DEEPEST: Final = 50
_MOST_BARS: Final = 1_000_000
_LONGEST: Final = 100_000
_MOST_FRACTION: Final = 100.0
_NAME: Final = re.compile(r"\b[A-Za-z_]\w*\b(?!\s*\()", re.ASCII)
_LENGTH: Final = re.compile(r"_\d+$", re.ASCII)
_AVERAGE: Final = re.compile(r"(sma|ema)_\d+", re.ASCII)


def read_entries(fields: Fields, name: str, readings: list[str]) -> tuple[Condition, ...]:
    """Read a list of entry rules; empty where it is not given."""
    return tuple(_condition(rule, path, readings) for rule, path in fields.items(name, _MOST_RULES))


def read_exits(
    fields: Fields, name: str, readings: list[str], before: Exits | None
) -> tuple[tuple[Condition, ...], Exits]:
    """Read a list of exit rules: those that are conditions, and distances and times laid over `before`.

    before: what stops and targets there are already; None where the list may have none.
    """
    signals: list[Condition] = []
    found: dict[str, Any] = {}
    listed = [] if fields.raw(name) == [] else fields.items(name, _MOST_RULES)
    for rule, path in listed:
        kind = rule.get("type") if isinstance(rule, dict) else None
        if kind not in _EXITS:
            signals.append(_condition(rule, path, readings, _EXITS))
            continue
        if before is None:
            raise refused(f"{path}.type", f"stops, targets and times hold for both sides: move `{kind}` to exitRules")
        exit_name, value = _exit(str(kind), rule, path)
        if exit_name in found:
            raise refused(path, f"is a second `{kind}`: a position has one of each kind")
        found[exit_name] = value
    return tuple(signals), msgspec.structs.replace(before or Exits(), **found)


def read_distance(value: object, path: str, unit: str | None = None) -> Distance:
    """Read a distance: a fraction of the price, or {"atr": 2.0}, {"price": 50.0}, {"fraction": 0.02}."""
    if isinstance(value, dict):
        fields = Fields(value, path, UNITS)
        given = fields.only_one(*UNITS)
        if given is None or unit is not None:
            why = "has its unit inside: leave `unit` out" if given else f"is empty: give one of {', '.join(UNITS)}"
            raise refused(path, why)
        return _distance(given, value[given], fields.at(given))
    return _distance(unit or "fraction", value, path)


def _distance(unit: str, value: object, path: str) -> Distance:
    read = number(value, path, Limits(above=0))
    if unit == "fraction" and read > _MOST_FRACTION:
        raise refused(path, f"is {shown(value)}: fractions of the price are wanted, 0.02 is 2 %")
    return Distance("fraction" if unit == "fraction" else "price" if unit == "price" else "atr", read)


def told(exits: Exits) -> list[str]:
    """Put exits into sentences."""
    found = []
    for name, distance in (("take profit", exits.take_profit), ("stop loss", exits.stop_loss)):
        if distance is not None:
            found.append(f"The {name} lies {_spoken(distance)} from the entry price.")
    if exits.trailing_stop is not None:
        activation = exits.trailing_stop.activation
        begins = "the entry" if activation is None else f"a gain of {_spoken(activation)}"
        distance = exits.trailing_stop.distance
        found.append(f"The trailing stop follows the best price by {_spoken(distance)}, from {begins} on.")
    if exits.timeout_bars is not None:
        found.append(f"A position is closed after {exits.timeout_bars:,} bars.")
    return found


def _spoken(distance: Distance) -> str:
    match distance.unit:
        case "fraction":
            return f"{distance.value * 100:.6g} %"
        case "price":
            return f"{distance.value:g} of quote currency"
        case "atr":
            return f"{distance.value:g} ATR (atr_14 of the signal's bar)"


# Exits.


def _exit(kind: str, rule: dict[str, Any], path: str) -> tuple[str, Any]:
    if kind in ("timeout", "time_stop"):
        fields = Fields(rule, path, TIMEOUT_FIELDS)
        name = fields.only_one("bars", "value")
        if name is None:
            raise refused(f"{path}.bars", "is missing: after how many bars the position is closed")
        bars = number(fields.raw(name), fields.at(name), Limits(least=1, most=_MOST_BARS))
        if bars != int(bars):
            raise refused(fields.at(name), f"is {shown(fields.raw(name))}, not a whole number of bars")
        return "timeout_bars", int(bars)
    if kind == "trailing_stop":
        fields = Fields(rule, path, TRAILING_FIELDS)
        return "trailing_stop", read_trailing(fields)
    fields = Fields(rule, path, DISTANCE_FIELDS)
    value = fields.needed("value", 'a fraction of the entry price (0.02 is 2 %), or such as {"atr": 2}')
    distance = read_distance(value, fields.at("value"), fields.choice("unit", UNITS))
    if kind == "stop_loss":
        check_stop(distance, fields.at("value"))
    return kind, distance


def read_trailing(fields: Fields) -> Trailing:
    """Read `distance` and, where it is given, `activation`."""
    unit = fields.choice("unit", UNITS) if "unit" in fields.names else None
    value = fields.needed("distance", "how far behind the best price, a fraction of it (0.005 is 0.5 %)")
    distance = read_distance(value, fields.at("distance"), unit)
    check_stop(distance, fields.at("distance"))
    given = fields.raw("activation")
    starts_at_once = given is None or parsed_number(given) == 0
    activation = None if starts_at_once else read_distance(given, fields.at("activation"), unit)
    return Trailing(distance, activation)


def check_stop(distance: Distance, path: str) -> None:
    """Refuse a stop that lies at a price of zero or below: it could never be met."""
    if distance.unit == "fraction" and distance.value >= 1:
        raise refused(path, f"is {distance.value:g}, it must be below 1: a fraction of the price, 0.05 is 5 %")


# Conditions.


def _condition(rule: object, path: str, readings: list[str], other_types: tuple[str, ...] = ()) -> Condition:
    if isinstance(rule, dict) and "type" in rule:
        return _native(rule, path, other_types)
    fields = Fields(rule, path, COMPARISON_FIELDS)
    indicator = fields.needed("indicator", "what is compared, such as rsi, close or ema_50")
    words = fields.needed("condition", f"one of {', '.join(OPERATORS)}")
    if not isinstance(words, str) or words not in OPERATORS:
        raise refused(fields.at("condition"), f"is {shown(words)}, no operator{_either(words, OPERATORS)}")
    value = fields.needed("value", "a number, a column, an expression, or [low, high] for `between`")
    length = fields.only_one("period", "length")
    period = None if length is None else (fields.raw(length), fields.at(length))
    about_volume = _tells_volume(indicator), _tells_volume(value)
    left = _operand(indicator, fields.at("indicator"), readings, period, beside_volume=about_volume[1])
    operator = OPERATORS[words]
    if operator != "between":
        right = _value(value, fields.at("value"), readings, beside_volume=about_volume[0])
        return _compared(operator, left, right)
    if not isinstance(value, list | tuple) or len(value) != 2:  # noqa: PLR2004 - low and high
        raise refused(fields.at("value"), f"is {shown(value)}: `between` takes [low, high], both included")
    low, high = (
        _value(each, f"{fields.at('value')}[{place}]", readings, beside_volume=about_volume[0])
        for place, each in enumerate(value)
    )
    if isinstance(low, float) and isinstance(high, float) and low > high:
        raise refused(fields.at("value"), f"is {shown(value)}: the low one comes first")
    return rules.AllOf((rules.AtOrAbove(left, low), rules.AtOrBelow(left, high)))


def _compared(operator: str, left: Operand, right: Operand) -> Condition:  # noqa: PLR0911 - one case an operator
    match operator:
        case "gt":
            return rules.Above(left, right)
        case "lt":
            return rules.Below(left, right)
        case "gte":
            return rules.AtOrAbove(left, right)
        case "lte":
            return rules.AtOrBelow(left, right)
        case "eq":
            return rules.AllOf((rules.AtOrAbove(left, right), rules.AtOrBelow(left, right)))
        case "neq":
            return rules.AnyOf((rules.Above(left, right), rules.Below(left, right)))
    kind = rules.CrossesAbove if operator == "crosses_above" else rules.CrossesBelow
    return kind(left, right) if isinstance(right, str) else kind(left, value=right)


def _native(rule: dict[str, Any], path: str, other_types: tuple[str, ...]) -> Condition:
    """Read a condition as `strategies.json` writes it."""
    kind = rule["type"]
    if not isinstance(kind, str) or kind not in _CONDITIONS:
        allowed = [*other_types, *_CONDITIONS]
        raise refused(f"{path}.type", f"is {shown(kind)}, no type of a rule{_either(kind, allowed)}")
    try:
        condition: Condition = msgspec.convert(rule, type=Condition)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$")
        raise refused(path + where.rstrip("`"), reason) from None
    except RecursionError:
        raise refused(path, f"nests deeper than {_DEEPEST}") from None
    _check(condition, path)
    return condition


def _check(condition: Condition, path: str, depth: int = 0) -> None:
    """Refuse operands that are no columns or expressions, at any depth."""
    if depth > _DEEPEST:
        raise refused(path.partition(".condition")[0], f"nests deeper than {_DEEPEST}")
    if isinstance(condition, rules.AtLeast) and condition.k > len(condition.conditions):
        raise refused(f"{path}.k", f"is {condition.k}, of {len(condition.conditions)} conditions")
    for name in condition.__struct_fields__:
        value = getattr(condition, name)
        if name == "condition":
            _check(value, f"{path}.{name}", depth + 1)
        elif name == "conditions":
            for place, inner in enumerate(value):
                _check(inner, f"{path}.{name}[{place}]", depth + 1)
        elif isinstance(value, str) and name != "direction":
            _parsed(value, value, f"{path}.{name}")


# Operands.


def _value(value: object, path: str, readings: list[str], *, beside_volume: bool) -> Operand:
    read = parsed_number(value)
    if read is not None:
        return read + 0.0
    if isinstance(value, dict):
        fields = Fields(value, path, COMPARISON_FIELDS[:3])
        indicator = fields.needed("indicator", "what is compared, such as rsi, close or ema_50")
        length = fields.only_one("period", "length")
        period = None if length is None else (fields.raw(length), fields.at(length))
        return _operand(indicator, fields.at("indicator"), readings, period, beside_volume=beside_volume)
    return _operand(value, path, readings, None, beside_volume=beside_volume)


def _operand(
    text: object, path: str, readings: list[str], period: tuple[object, str] | None, *, beside_volume: bool
) -> str:
    """Read an indicator's name, with its length apart or not, or an expression over such names."""
    if not isinstance(text, str) or not text.strip():
        raise refused(path, f"is {shown(text)}, not the name of an indicator or an expression")
    name = text.strip()
    if name.isidentifier():
        name = name.lower()
    if period is not None:
        name = _with_length(name, *period)
    column = _NAME.sub(lambda found: _column(found.group(), beside_volume=beside_volume), name)
    parsed = _parsed(column, text, path)
    if "vwap" in columns_of(parsed):
        readings.append("`vwap` sums from the first bar that is loaded; vwap_day begins anew each UTC day.")
    if parsed != text.strip():
        words = f"`{text.strip()}`" if period is None else f"`{text.strip()}` of {shown(period[0])}"
        beside = " beside volume" if beside_volume and "volume_" in parsed else ""
        readings.append(f"{words}{beside} is {parsed}{_of_closes(parsed)}.")
    return parsed


def _parsed(column: str, text: str, path: str) -> str:
    try:
        columns_of(column)
    except ExpressionError as error:
        unknown = re.search(r"unknown column `(\w+)`", error.reason)
        name = unknown.group(1) if unknown else None
        known = [*sorted(NAMES), *USUAL]
        meant = suggestion(name, known) if name is not None else ""
        meant = meant if meant.startswith(";") else ". docs/backtest-config.md lists the indicators" if name else ""
        raise refused(path, f"is {shown(text)}: {error.reason}{meant}") from None
    return canonical(column) or column


def _with_length(name: str, length: object, length_path: str) -> str:
    bars = number(length, length_path, Limits(least=1, most=_LONGEST))
    if bars != int(bars):
        raise refused(length_path, f"is {shown(length)}, not a whole number of bars")
    if not name.isidentifier():
        raise refused(length_path, "is for the name of an indicator: an expression has its lengths inside")
    usual = USUAL.get(name, name)
    family = _LENGTH.sub("", usual)
    if name not in USUAL and family != usual:
        if usual == f"{family}_{int(bars)}":
            return usual
        raise refused(length_path, f"is {int(bars)}, but `{name}` has its length in its name")
    column = f"{family}_{int(bars)}"
    if canonical(column) is None:
        raise refused(length_path, f"is {int(bars)}: `{name}` is not computed for that length, there is no {column}")
    return column


def _column(name: str, *, beside_volume: bool) -> str:
    lowered = name.lower()
    column = lowered if canonical(name) is None else name
    column = USUAL.get(column, column)
    if beside_volume and _AVERAGE.fullmatch(column):
        return f"volume_{column}"
    return column


def _tells_volume(operand: object) -> bool:
    """Tell whether an operand is of volume, beside which an average is one of volumes."""
    if isinstance(operand, dict):
        operand = operand.get("indicator")
    return isinstance(operand, str) and any(name.lower() == "volume" for name in _NAME.findall(operand))


def _of_closes(column: str) -> str:
    return " of closes" if re.fullmatch(r"(rsi|sma|ema|kama|roc|mom|trix|cmo|stddev)_\d+", column) else ""


def _either(given: object, allowed: Any) -> str:
    meant = suggestion(given, allowed)
    return f"{meant} Allowed: {', '.join(allowed)}" if meant.startswith(";") else meant
