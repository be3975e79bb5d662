"""What the probe computes, written slowly and obviously, to hold the fast engine against.

A literal reading of `docs/probe.md`, one bar at a time on plain floats: nothing is vectorised, and nothing is
shared with `daemon.engine`, so that a misreading has to happen twice to go unseen.
"""

from __future__ import annotations

import ast
import functools
import math
import operator
import statistics
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from daemon.core import strategy as rules
from daemon.core.market import NS_PER_SECOND, Bars

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Columns: TypeAlias = dict[str, list[float]]
Side: TypeAlias = Literal["long", "short"]
Group: TypeAlias = tuple[str, int, str, int, float, float, float, float]


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
    return _value(_parsed(operand), columns, i) if isinstance(operand, str) else float(operand)


@functools.cache
def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _value(node: ast.expr, columns: Columns, i: int) -> float:
    match node:
        case ast.Constant(int() | float() as number):
            return float(number)
        case ast.Name(name):
            return float(columns[name][i])
        case ast.UnaryOp(ast.USub(), x):
            return -_value(x, columns, i)
        case ast.BinOp(left, ast.Add(), right):
            return _value(left, columns, i) + _value(right, columns, i)
        case ast.BinOp(left, ast.Sub(), right):
            return _value(left, columns, i) - _value(right, columns, i)
        case ast.BinOp(left, ast.Mult(), right):
            return _value(left, columns, i) * _value(right, columns, i)
        case ast.BinOp(left, ast.Div(), right):
            return _divide(_value(left, columns, i), _value(right, columns, i))
        case ast.Call(ast.Name(function), [x, *arguments]):
            return _call(function, x, arguments, columns, i)
    raise NotImplementedError(f"not an operand: {ast.unparse(node)}")


def _divide(a: float, b: float) -> float:
    """IEEE division, where Python would raise."""
    if b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)


def _call(function: str, x: ast.expr, arguments: list[ast.expr], columns: Columns, i: int) -> float:
    """One of the six functions, of the operand x."""
    numbers = [_value(argument, columns, i) for argument in arguments]
    match function, numbers:
        case "shift", [k]:
            return _value(x, columns, i - int(k)) if i >= k else math.nan
        case "abs", []:
            return abs(_value(x, columns, i))
        case "max" | "min", [y]:
            pair = (_value(x, columns, i), y)
            return math.nan if _any_nan(pair) else max(pair) if function == "max" else min(pair)
        case "rolling_mean", [k]:
            window = [_value(x, columns, j) for j in range(max(0, i - int(k) + 1), i + 1)]
            return math.nan if len(window) < k or _any_nan(window) else _sum(window) / k
        case "rolling_percentile", [k, percent, m]:
            window = [_value(x, columns, j) for j in range(max(0, i - int(k) + 1), i + 1)]
            present = [v for v in window if not math.isnan(v)]
            return _percentile(present, percent) if len(present) >= max(1, m) else math.nan
    raise NotImplementedError(f"not a function: {function} of {1 + len(numbers)}")


def _sum(values: Sequence[float]) -> float:
    """Straight sum from left to right; the builtin compensates its rounding from Python 3.12 on."""
    return functools.reduce(operator.add, values)


def _percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    position = (len(ordered) - 1) * (percent / 100)
    k = math.floor(position)
    t = position - k
    a, b = ordered[k], ordered[min(k + 1, len(ordered) - 1)]
    return a + (b - a) * t if t < 0.5 else b - (b - a) * (1 - t)


def _any_nan(values: Sequence[float]) -> bool:
    return any(math.isnan(v) for v in values)


def _finite(*values: float) -> bool:
    return all(math.isfinite(v) for v in values)


def holds(condition: rules.Condition, columns: Columns, i: int) -> bool:  # noqa: C901, PLR0911, PLR0912
    """Whether a condition is true at bar i: one case per row of the page's table."""

    def at(operand: str | float, j: int = i) -> float:
        return expression(operand, columns, j)

    def crosses(a: str | float, beyond: Callable[[float, float], bool], b: str | float) -> bool:
        """Whether a is beyond b now and was not a bar ago."""
        if i < 1 or not _finite(at(a, i - 1), at(b, i - 1), at(a), at(b)):
            return False
        return not beyond(at(a, i - 1), at(b, i - 1)) and beyond(at(a), at(b))

    def known(*operands: str | float) -> bool:
        return _finite(*(at(operand) for operand in operands))

    match condition:
        case rules.CrossesAbove(col):
            return crosses(col, operator.gt, condition.other)
        case rules.CrossesBelow(col):
            return crosses(col, operator.lt, condition.other)
        case rules.BreaksAboveLevel(level):
            return crosses("close", operator.gt, level)
        case rules.BreaksBelowLevel(level):
            return crosses("close", operator.lt, level)
        case rules.WasBelowThenCrossesAbove(col, threshold, lookback):
            was = i >= lookback and any(at(col, j) < threshold for j in range(i - lookback, i))
            return was and crosses(col, operator.gt, threshold)
        case rules.WasAboveThenCrossesBelow(col, threshold, lookback):
            was = i >= lookback and any(at(col, j) > threshold for j in range(i - lookback, i))
            return was and crosses(col, operator.lt, threshold)
        case rules.Above(col, ref):
            return known(col, ref) and at(col) > at(ref)
        case rules.Below(col, ref):
            return known(col, ref) and at(col) < at(ref)
        case rules.CandleBullish(col):
            return known(col) and at(col) > 0
        case rules.CandleBearish(col):
            return known(col) and at(col) < 0
        case rules.Rising(col, bars):
            return i >= bars and all(at(col, j - 1) < at(col, j) for j in range(i - bars + 1, i + 1))
        case rules.Falling(col, bars):
            return i >= bars and all(at(col, j - 1) > at(col, j) for j in range(i - bars + 1, i + 1))
        case rules.ConsecutiveHigherCloses(count):
            return holds(rules.Rising("close", count), columns, i)
        case rules.ConsecutiveLowerCloses(count):
            return holds(rules.Falling("close", count), columns, i)
        case rules.AllOf(conditions):
            return all(holds(c, columns, i) for c in conditions)
        case rules.AnyOf(conditions):
            return any(holds(c, columns, i) for c in conditions)
        case rules.AtLeast(k, conditions):
            return [holds(c, columns, i) for c in conditions].count(True) >= k
        case rules.Not(nested):
            return not holds(nested, columns, i)
        case rules.HeldForNBars(nested, n):
            return i >= n - 1 and all(holds(nested, columns, j) for j in range(i - n + 1, i + 1))
        case rules.PullbackTo(level, multiplier):
            touched = at("low") <= at(level) + multiplier * at("atr_14")
            return known("low", "close", level, "atr_14") and touched and at("close") > at(level)
        case rules.PullbackBelow(level, multiplier):
            touched = at("high") >= at(level) - multiplier * at("atr_14")
            return known("high", "close", level, "atr_14") and touched and at("close") < at(level)
        case rules.BullishDivergence(col, lookback):
            low_then, col_then = f"shift(low, {lookback})", f"shift({col}, {lookback})"
            ready = known("low", low_then, col, col_then)
            return ready and at("low") < at(low_then) and at(col) > at(col_then)
        case rules.BearishDivergence(col, lookback):
            high_then, col_then = f"shift(high, {lookback})", f"shift({col}, {lookback})"
            ready = known("high", high_then, col, col_then)
            return ready and at("high") > at(high_then) and at(col) < at(col_then)
        case rules.Squeeze(col, lookback):
            return i >= lookback and _ends_lowest([at(col, j) for j in range(i - lookback + 1, i + 1)])
        case rules.NarrowestRange(lookback):
            window = range(i - lookback + 1, i + 1)
            return i >= lookback - 1 and _ends_lowest([at("high - low", j) for j in window])
        case rules.RangeExceedsAtr(multiplier):
            return known("high", "low", "atr_14") and at("high") - at("low") > multiplier * at("atr_14")
        case rules.InTopPctOfRange(pct):
            inside = known("high", "low", "close") and at("high") != at("low")
            return inside and at("(close - low) / (high - low)") >= 1 - pct
        case rules.InBottomPctOfRange(pct):
            inside = known("high", "low", "close") and at("high") != at("low")
            return inside and at("(close - low) / (high - low)") <= pct
        case rules.GapUp(multiplier):
            ready = known("open", "shift(close, 1)", "atr_14")
            return ready and at("open") > at("shift(close, 1)") + multiplier * at("atr_14")
        case rules.GapDown(multiplier):
            ready = known("open", "shift(close, 1)", "atr_14")
            return ready and at("open") < at("shift(close, 1)") - multiplier * at("atr_14")
        case rules.DeviationFrom(col, ref, multiplier, direction):
            apart = at(ref) - at(col) if direction == "below" else at(col) - at(ref)
            return known(col, ref, "atr_14") and apart > multiplier * at("atr_14")


def _ends_lowest(window: list[float]) -> bool:
    """Whether the last value is finite, none is NaN and none lies below the last."""
    return _finite(window[-1]) and not _any_nan(window) and window[-1] <= min(window)


def trades(bars: Bars, columns: Columns, strategy: rules.Strategy, profile: rules.RiskProfile) -> list[Trade]:
    """Closed trades of one strategy on one series; a position open at the end is dropped."""
    closed: list[Trade] = []
    i = 0 if all(name in columns for name in strategy.required_indicators) else len(bars)
    while i < len(bars) - 1:  # flat at bar i, which is not the last
        side = _entry_signal(strategy, columns, i)
        if side is None:
            i += 1
            continue
        atr = columns["atr_14"][i + 1]
        if not math.isfinite(atr) or atr <= 0:
            i += 2
            continue
        trade = _position(bars, columns, strategy, profile, side=side, entry_index=i + 1)
        if trade is None:
            break
        closed.append(trade)
        i = trade.exit_index
    return closed


def _entry_signal(strategy: rules.Strategy, columns: Columns, i: int) -> Side | None:
    def enters(conditions: tuple[rules.Condition, ...]) -> bool:
        return len(conditions) > 0 and all(_holds_or_false(c, columns, i) for c in conditions)

    if strategy.direction != "short_only" and enters(strategy.entry_long):
        return "long"
    if strategy.direction != "long_only" and enters(strategy.entry_short):
        return "short"
    return None


def _holds_or_false(condition: rules.Condition, columns: Columns, i: int) -> bool:
    """At the top level a condition that cannot be evaluated neither enters nor exits."""
    try:
        return holds(condition, columns, i)
    except (LookupError, TypeError, ValueError):
        return False


def _position(
    bars: Bars,
    columns: Columns,
    strategy: rules.Strategy,
    profile: rules.RiskProfile,
    *,
    side: Side,
    entry_index: int,
) -> Trade | None:
    """Hold from the entry bar's open to the first exit, None if there is none.

    Prices are mirrored: a short is a long on negated prices. An exit that is switched off lies at infinity.
    """
    sign = 1 if side == "long" else -1
    signal_exits = strategy.exit_long if side == "long" else strategy.exit_short
    entry = best = worst = sign * float(bars.open[entry_index])
    gains: list[float] = []

    def distance(multiplier: float | None, scale: float) -> float:
        return multiplier * scale * columns["atr_14"][entry_index] if multiplier else math.inf

    def gain(price: float) -> float:
        return (price - entry) / (sign * entry)

    stop = entry - distance(strategy.atr_stop_mult, profile.stop_scale)
    target = entry + distance(strategy.atr_target_mult, profile.target_scale)
    trail_distance = distance(strategy.trailing_atr_mult, profile.trailing_scale)
    trail = entry - trail_distance
    time_limit = int(strategy.time_stop_bars * profile.time_scale) if strategy.time_stop_bars else math.inf

    for i in range(entry_index + 1, len(bars)):
        close = sign * float(bars.close[i])
        if any(_holds_or_false(c, columns, i) for c in signal_exits):
            reason, price = "signal_exit", close
        else:
            low, high = sorted((sign * float(bars.low[i]), sign * float(bars.high[i])))
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
        return Trade(
            entry_index=entry_index,
            exit_index=i,
            entry_price=sign * entry,
            exit_price=sign * price,
            direction=side,
            pnl_pct=gain(price),
            bars_held=len(gains),
            max_drawdown_pct=abs(gain(worst)),
            max_profit_pct=gain(best),
            pnl_std=_population_std(gains),
            exit_reason=reason,
        )
    return None


def _population_std(values: list[float]) -> float:
    return statistics.pstdev(values) if len(values) > 1 else 0.0


def groups(bars: Bars, closed: list[Trade]) -> list[Group]:
    """(open_day, open_hour, side, num_trades, pnl_mean, pnl_std, max_drawdown, max_profit), sorted."""
    members: dict[tuple[str, int, str], list[Trade]] = {}
    for trade in closed:
        opened = datetime.fromtimestamp(int(bars.start_ns[trade.entry_index]) // NS_PER_SECOND, tz=UTC)
        members.setdefault((opened.date().isoformat(), opened.hour, trade.direction), []).append(trade)
    records: list[Group] = []
    for key, group in sorted(members.items()):
        gains = [trade.pnl_pct for trade in group]
        drawdown = max(trade.max_drawdown_pct for trade in group)
        profit = max(trade.max_profit_pct for trade in group)
        records.append((*key, len(group), statistics.fmean(gains), _population_std(gains), drawdown, profit))
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
    previous = math.nan
    means = []
    for i, value in enumerate(map(float, x)):
        leaving = float(x[i - k]) if i >= k else math.nan
        if not math.isnan(leaving):
            total, remove_error = _compensated(total, -leaving, remove_error)
            count -= 1
            negatives -= math.copysign(1, leaving) < 0
        if not math.isnan(value):
            total, add_error = _compensated(total, value, add_error)
            count += 1
            negatives += math.copysign(1, value) < 0
            run = run + 1 if value == previous else 1
            previous = value
        if count < k:
            means.append(math.nan)
        elif run >= count:
            means.append(previous)
        elif (negatives == 0 and total / count < 0) or (negatives == count and total / count > 0):
            means.append(0.0)
        else:
            means.append(total / count)
    return means


def _compensated(total: float, value: float, error: float) -> tuple[float, float]:
    """The sum and its new rounding error."""
    term = value - error
    updated = total + term
    return updated, updated - total - term
