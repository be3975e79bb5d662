"""What the probe computes, written slowly and obviously, to hold the fast engine against.

A literal reading of `docs/probe.md`, one bar at a time on plain floats: nothing is vectorised, and nothing is
shared with `daemon.engine`, so that a misreading has to happen twice to go unseen.
"""

from __future__ import annotations

import ast
import functools
import math
import statistics
from datetime import UTC, datetime
from operator import add, ge, gt, le, lt, mul, ne, sub
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from daemon.core import strategy as rules
from daemon.core.market import NS_PER_SECOND, Bars

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.core.strategy import Condition, RiskProfile, Strategy

Columns: TypeAlias = dict[str, list[float]]
Side: TypeAlias = Literal["long", "short"]


class Trade(NamedTuple):
    """One closed position; `_pct` fields are fractions of the entry price."""

    entry_index: int
    exit_index: int
    entry_price: float
    exit_price: float
    direction: Side
    pnl_pct: float
    bars_held: int
    max_drawdown_pct: float
    max_profit_pct: float
    pnl_std: float
    exit_reason: str


def expression(operand: str | float, columns: Columns, i: int) -> float:
    """Value of a number, a column name or an expression at bar i; an unknown name is a KeyError."""
    return _value(_parsed(operand).body, columns, i) if isinstance(operand, str) else float(operand)


_parsed = functools.cache(functools.partial(ast.parse, mode="eval"))


def _value(node: ast.expr, columns: Columns, i: int) -> float:
    match node:
        case ast.Constant(int() | float() as number):
            return float(number)
        case ast.Name(name):
            return float(columns[name][i])
        case ast.UnaryOp(ast.USub(), x):
            return -_value(x, columns, i)
        case ast.BinOp(left, operation, right) if type(operation) in _ARITHMETIC:
            return _ARITHMETIC[type(operation)](_value(left, columns, i), _value(right, columns, i))
        case ast.Call(ast.Name(function), [x, *arguments]):
            return _call(function, x, arguments, columns, i)
    raise NotImplementedError(f"not an operand: {ast.unparse(node)}")


def _divide(a: float, b: float) -> float:
    """IEEE division, where Python would raise."""
    if b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)


_ARITHMETIC = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: _divide}


def _call(function: str, x: ast.expr, arguments: list[ast.expr], columns: Columns, i: int) -> float:
    def last(k: float) -> list[float]:
        return [_value(x, columns, j) for j in range(max(0, i - int(k) + 1), i + 1)]

    match function, [_value(argument, columns, i) for argument in arguments]:
        case "shift", [k]:
            return _value(x, columns, i - int(k)) if i >= k else math.nan
        case "abs", []:
            return abs(_value(x, columns, i))
        case "max" | "min", [y]:
            pair = (_value(x, columns, i), y)
            return math.nan if _any_nan(pair) else max(pair) if function == "max" else min(pair)
        case "rolling_mean", [k]:
            return math.nan if i < k - 1 or _any_nan(last(k)) else _sum(last(k)) / k
        case "rolling_percentile", [k, percent, fewest]:
            present = [v for v in last(k) if not math.isnan(v)]
            return _percentile(present, percent) if len(present) >= max(1, fewest) else math.nan
    raise NotImplementedError(f"not a function of operands: {function}")


def _sum(values: Sequence[float]) -> float:
    """Straight sum from left to right; the builtin compensates its rounding from Python 3.12 on."""
    return functools.reduce(add, values)


def _percentile(values: list[float], percent: float) -> float:
    position = (len(values) - 1) * (percent / 100)
    k = math.floor(position)
    a, b, t = sorted(values)[k], sorted(values)[min(k + 1, len(values) - 1)], position - k
    return a + (b - a) * t if t < 0.5 else b - (b - a) * (1 - t)


def _any_nan(values: Sequence[float]) -> bool:
    return any(math.isnan(v) for v in values)


def holds(condition: Condition, columns: Columns, i: int) -> bool:  # noqa: C901, PLR0911, PLR0912
    """Whether a condition is true at bar i: one case per row of the page's table.

    A sum or product with a term that is not finite is not finite, and `shift` is NaN before the first bar, so
    `compare` on whole expressions settles what is false for want of a value.
    """

    def at(operand: str | float, j: int = i) -> float:
        return expression(operand, columns, j)

    def compare(a: str | float, relation: Callable[[float, float], bool], b: str | float) -> bool:
        return math.isfinite(at(a)) and math.isfinite(at(b)) and relation(at(a), at(b))

    def ago(k: int, operand: str | float) -> str:
        return f"shift({operand}, {k})"

    match condition:
        case rules.CrossesAbove(a):
            return compare(ago(1, a), le, ago(1, condition.other)) and compare(a, gt, condition.other)
        case rules.CrossesBelow(a):
            return compare(ago(1, a), ge, ago(1, condition.other)) and compare(a, lt, condition.other)
        case rules.BreaksAboveLevel(level):
            return holds(rules.CrossesAbove("close", level), columns, i)
        case rules.BreaksBelowLevel(level):
            return holds(rules.CrossesBelow("close", level), columns, i)
        case rules.WasBelowThenCrossesAbove(a, threshold, k):
            was = i >= k and any(at(a, j) < threshold for j in range(i - k, i))
            return was and holds(rules.CrossesAbove(a, value=threshold), columns, i)
        case rules.WasAboveThenCrossesBelow(a, threshold, k):
            was = i >= k and any(at(a, j) > threshold for j in range(i - k, i))
            return was and holds(rules.CrossesBelow(a, value=threshold), columns, i)
        case rules.Above(a, b):
            return compare(a, gt, b)
        case rules.Below(a, b):
            return compare(a, lt, b)
        case rules.AtOrAbove(a, b):
            return compare(a, ge, b)
        case rules.AtOrBelow(a, b):
            return compare(a, le, b)
        case rules.CandleBullish(a):
            return compare(a, gt, 0)
        case rules.CandleBearish(a):
            return compare(a, lt, 0)
        case rules.Rising(a, k):
            return i >= k and all(at(a, j - 1) < at(a, j) for j in range(i - k + 1, i + 1))
        case rules.Falling(a, k):
            return i >= k and all(at(a, j - 1) > at(a, j) for j in range(i - k + 1, i + 1))
        case rules.ConsecutiveHigherCloses(k):
            return holds(rules.Rising("close", k), columns, i)
        case rules.ConsecutiveLowerCloses(k):
            return holds(rules.Falling("close", k), columns, i)
        case rules.AllOf(conditions):
            return all(holds(c, columns, i) for c in conditions)
        case rules.AnyOf(conditions):
            return any(holds(c, columns, i) for c in conditions)
        case rules.AtLeast(k, conditions):
            return [holds(c, columns, i) for c in conditions].count(True) >= k
        case rules.Not(nested):
            return not holds(nested, columns, i)
        case rules.HeldForNBars(nested, k):
            return i >= k - 1 and all(holds(nested, columns, j) for j in range(i - k + 1, i + 1))
        case rules.PullbackTo(level, m):
            return compare("low", le, f"({level}) + {m} * atr_14") and compare("close", gt, level)
        case rules.PullbackBelow(level, m):
            return compare("high", ge, f"({level}) - {m} * atr_14") and compare("close", lt, level)
        case rules.BullishDivergence(a, k):
            return compare("low", lt, ago(k, "low")) and compare(a, gt, ago(k, a))
        case rules.BearishDivergence(a, k):
            return compare("high", gt, ago(k, "high")) and compare(a, lt, ago(k, a))
        case rules.Squeeze(width, k):
            return i >= k and _ends_lowest([at(width, j) for j in range(i - k + 1, i + 1)])
        case rules.NarrowestRange(k):
            return i >= k - 1 and _ends_lowest([at("high - low", j) for j in range(i - k + 1, i + 1)])
        case rules.RangeExceedsAtr(m):
            return compare("high - low", gt, f"{m} * atr_14")
        case rules.InTopPctOfRange(pct):
            return compare("high", ne, "low") and compare("(close - low) / (high - low)", ge, 1 - pct)
        case rules.InBottomPctOfRange(pct):
            return compare("high", ne, "low") and compare("(close - low) / (high - low)", le, pct)
        case rules.GapUp(m):
            return compare("open", gt, f"shift(close, 1) + {m} * atr_14")
        case rules.GapDown(m):
            return compare("open", lt, f"shift(close, 1) - {m} * atr_14")
        case rules.DeviationFrom(a, b, m, direction):
            apart = f"({b}) - ({a})" if direction == "below" else f"({a}) - ({b})"
            return compare(apart, gt, f"{m} * atr_14")


def _ends_lowest(window: list[float]) -> bool:
    return not _any_nan(window) and math.isfinite(window[-1]) and window[-1] <= min(window)


def trades(bars: Bars, columns: Columns, strategy: Strategy, profile: RiskProfile) -> list[Trade]:
    """Closed trades of one strategy on one series; a position open at the end is dropped."""
    closed: list[Trade] = []
    i = 0 if all(name in columns for name in strategy.required_indicators) else bars.size
    while i < bars.size - 1:  # flat at bar i, which is not the last
        side = _entry_signal(strategy, columns, i)
        atr_at_fill = columns["atr_14"][i + 1]
        if side is None:
            i += 1
        elif not (math.isfinite(atr_at_fill) and atr_at_fill > 0):
            i += 2
        elif trade := _position(bars, columns, strategy, profile, side=side, start=i + 1):
            closed.append(trade)
            i = trade.exit_index
        else:
            break
    return closed


def _entry_signal(strategy: Strategy, columns: Columns, i: int) -> Side | None:
    sides = (("long", strategy.entry_long, "short_only"), ("short", strategy.entry_short, "long_only"))
    for side, conditions, barred_by in sides:
        if strategy.direction != barred_by and conditions and all(_fires(c, columns, i) for c in conditions):
            return side
    return None


def _fires(condition: Condition, columns: Columns, i: int) -> bool:
    """At the top level a condition that cannot be evaluated neither enters nor exits."""
    try:
        return holds(condition, columns, i)
    except (LookupError, TypeError, ValueError):
        return False


def _position(
    bars: Bars, columns: Columns, strategy: Strategy, profile: RiskProfile, *, side: Side, start: int
) -> Trade | None:
    """Enter at the open of bar `start`, hold to the first exit; None if none comes."""
    sign = 1 if side == "long" else -1  # a short is a long on negated prices
    signal_exits = strategy.exit_long if side == "long" else strategy.exit_short
    entry = best = worst = sign * float(bars.open[start])
    gains: list[float] = []

    def distance(multiplier: float | None, scale: float) -> float:
        return multiplier * scale * columns["atr_14"][start] if multiplier else math.inf

    def gain(price: float) -> float:
        return (price - entry) / (sign * entry)

    # An exit that is switched off lies at infinity.
    stop = entry - distance(strategy.atr_stop_mult, profile.stop_scale)
    target = entry + distance(strategy.atr_target_mult, profile.target_scale)
    trail_distance = distance(strategy.trailing_atr_mult, profile.trailing_scale)
    trail = entry - trail_distance
    time_limit = int(strategy.time_stop_bars * profile.time_scale) if strategy.time_stop_bars else math.inf

    for i in range(start + 1, bars.size):
        close = sign * float(bars.close[i])
        if any(_fires(c, columns, i) for c in signal_exits):
            reason, price = "signal_exit", close
        else:
            low, high = float(bars.low[i]), float(bars.high[i])
            low, high = (low, high) if side == "long" else (-high, -low)
            best, worst = max(best, high), min(worst, low)
            gains.append(gain(close))
            if low <= stop:
                reason, price = "stop_loss", stop
            elif high >= target:
                reason, price = "target", target
            elif low <= (trail := max(trail, high - trail_distance)):
                reason, price = "trailing_stop", trail
            elif len(gains) >= time_limit:
                reason, price = "time_stop", close
            else:
                continue
        outcome = (abs(gain(worst)), gain(best), statistics.pstdev(gains or [0.0]))
        return Trade(start, i, sign * entry, sign * price, side, gain(price), len(gains), *outcome, reason)
    return None


def groups(bars: Bars, closed: list[Trade]) -> list[tuple[str, int, Side, int, float, float, float, float]]:
    """(open_day, open_hour, side, num_trades, pnl_mean, pnl_std, max_drawdown, max_profit), sorted."""
    members: dict[tuple[str, int, Side], list[Trade]] = {}
    for trade in closed:
        opened = datetime.fromtimestamp(int(bars.start_ns[trade.entry_index]) // NS_PER_SECOND, tz=UTC)
        members.setdefault((opened.date().isoformat(), opened.hour, trade.direction), []).append(trade)
    records = []
    for key, group in sorted(members.items()):
        gains = [trade.pnl_pct for trade in group]
        spread = (statistics.fmean(gains), statistics.pstdev(gains))
        extremes = (max(t.max_drawdown_pct for t in group), max(t.max_profit_pct for t in group))
        records.append((*key, len(group), *spread, *extremes))
    return records


def resample(bars: Bars, ns: int) -> Bars:
    """Bars of length ns, in buckets aligned to the UTC epoch; empty buckets are absent."""
    buckets: dict[int, list[tuple[float, ...]]] = {}
    for start, *prices_and_volume in zip(*bars, strict=True):
        buckets.setdefault(int(start) // ns * ns, []).append(tuple(map(float, prices_and_volume)))
    rows = []
    for start, members in buckets.items():
        opens, highs, lows, closes, volumes = zip(*members, strict=True)
        rows.append((start, opens[0], max(highs), min(lows), closes[-1], _sum(volumes)))
    return Bars(*(np.array([row[c] for row in rows], dtype=column.dtype) for c, column in enumerate(bars)))


def rolling_max(x: Sequence[float], k: int) -> list[float]:
    """Maximum of the last k values, the current one included; NaN if one is NaN or there are fewer."""
    windows = [[float(v) for v in x[max(0, i - k + 1) : i + 1]] for i in range(len(x))]
    return [math.nan if len(window) < k or _any_nan(window) else max(window) for window in windows]


def rolling_min(x: Sequence[float], k: int) -> list[float]:
    """Minimum of the last k values, the current one included; NaN if one is NaN or there are fewer."""
    return [-v for v in rolling_max([-float(v) for v in x], k)]


def kahan_rolling_mean(x: Sequence[float], k: int) -> list[float]:
    """Mean of the last k values in the running, compensated form that defines the `*_sma` columns."""
    total = add_error = remove_error = 0.0
    count = negatives = run = 0
    previous, means = math.nan, []
    for i, value in enumerate(map(float, x)):
        leaving = float(x[i - k]) if i >= k else math.nan
        if not math.isnan(leaving):
            term = -leaving - remove_error
            total, remove_error = total + term, (total + term) - total - term
            count -= 1
            negatives -= math.copysign(1, leaving) < 0
        if not math.isnan(value):
            term = value - add_error
            total, add_error = total + term, (total + term) - total - term
            count += 1
            negatives += math.copysign(1, value) < 0
            run = run + 1 if value == previous else 1
            previous = value
        mean = total / count if count >= k else math.nan
        if not math.isnan(mean) and run >= count:
            mean = previous
        elif (negatives == 0 and mean < 0) or (negatives == count and mean > 0):
            mean = 0.0
        means.append(mean)
    return means
