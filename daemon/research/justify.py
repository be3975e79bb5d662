"""Why a trade was entered and left, in words made from the rules themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from daemon.core import strategy as rules
from daemon.core.strategy import EXIT_REASONS, LONG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.strategy import Condition, Operand, RiskProfile, Strategy


def entry_reason(strategy: Strategy, side: int) -> str:
    """Say what had to hold at the close of the bar before the entry."""
    conditions = strategy.entry_long if side == LONG else strategy.entry_short
    word = "Long" if side == LONG else "Short"
    return f"{word} at the open, because on the bar before {_all(conditions)}."


def exit_reason(strategy: Strategy, profile: RiskProfile, side: int, reason: int) -> str:
    """Say which exit took the position, and where its level came from."""
    beyond, towards = ("below", "above") if side == LONG else ("above", "below")
    match EXIT_REASONS[reason]:
        case "signal_exit":
            conditions = strategy.exit_long if side == LONG else strategy.exit_short
            return f"Left at the close, because {_any(conditions)}."
        case "stop_loss":
            distance = _distance(strategy.atr_stop_mult, profile.stop_scale)
            return f"Stopped out: price touched {distance} {beyond} the entry."
        case "target":
            distance = _distance(strategy.atr_target_mult, profile.target_scale)
            return f"Target reached: price touched {distance} {towards} the entry."
        case "trailing_stop":
            distance = _distance(strategy.trailing_atr_mult, profile.trailing_scale)
            extreme = "highest high" if side == LONG else "lowest low"
            return f"Trailing stop: price came back {distance} from the {extreme} since the entry."
        case _:
            bars = max(1, int((strategy.time_stop_bars or 0) * profile.time_scale))
            return f"Time stop: left at the close after {bars} bars."


def describe(condition: Condition) -> str:  # noqa: C901, PLR0911, PLR0912 - one sentence a type
    """Put one condition into words."""
    match condition:
        case rules.CrossesAbove():
            return f"{_word(condition.col_a)} crossed above {_word(condition.other)}"
        case rules.CrossesBelow():
            return f"{_word(condition.col_a)} crossed below {_word(condition.other)}"
        case rules.Above():
            return f"{_word(condition.col)} was above {_word(condition.ref)}"
        case rules.Below():
            return f"{_word(condition.col)} was below {_word(condition.ref)}"
        case rules.AtOrAbove():
            return f"{_word(condition.col)} was at or above {_word(condition.ref)}"
        case rules.AtOrBelow():
            return f"{_word(condition.col)} was at or below {_word(condition.ref)}"
        case rules.Rising():
            return f"{_word(condition.col)} rose {_bars(condition.bars)} in a row"
        case rules.Falling():
            return f"{_word(condition.col)} fell {_bars(condition.bars)} in a row"
        case rules.ConsecutiveHigherCloses():
            return f"the close rose {_bars(condition.count)} in a row"
        case rules.ConsecutiveLowerCloses():
            return f"the close fell {_bars(condition.count)} in a row"
        case rules.AllOf():
            return f"({_all(condition.conditions)})"
        case rules.AnyOf():
            return f"({_any(condition.conditions)})"
        case rules.AtLeast():
            listed = "; ".join(describe(each) for each in condition.conditions)
            return f"at least {condition.k} of these held: ({listed})"
        case rules.Not():
            return f"it did not hold that {describe(condition.condition)}"
        case rules.HeldForNBars():
            return f"for {_bars(condition.n_bars)} {describe(condition.condition)}"
        case rules.PullbackTo():
            near = f"{_plain(condition.tolerance_atr_mult)} ATR"
            return f"the low dipped to within {near} of {_word(condition.level_col)} and the close held above it"
        case rules.PullbackBelow():
            near = f"{_plain(condition.tolerance_atr_mult)} ATR"
            return f"the high rose to within {near} of {_word(condition.level_col)} and the close stayed below it"
        case rules.BullishDivergence():
            return f"the low was lower but {_word(condition.indicator_col)} higher than {_ago(condition.lookback)}"
        case rules.BearishDivergence():
            return f"the high was higher but {_word(condition.indicator_col)} lower than {_ago(condition.lookback)}"
        case rules.CandleBullish():
            return f"{_word(condition.pattern_col)} was bullish"
        case rules.CandleBearish():
            return f"{_word(condition.pattern_col)} was bearish"
        case rules.Squeeze():
            return f"{_word(condition.width_col)} was at its lowest of {_bars(condition.lookback)}"
        case rules.RangeExceedsAtr():
            return f"the bar's range exceeded {_plain(condition.multiplier)} ATR"
        case rules.NarrowestRange():
            return f"the bar's range was the narrowest of {_bars(condition.lookback)}"
        case rules.BreaksAboveLevel():
            return f"the close broke above {_word(condition.level_col)}"
        case rules.BreaksBelowLevel():
            return f"the close broke below {_word(condition.level_col)}"
        case rules.InTopPctOfRange():
            return f"the close was in the top {condition.pct:.0%} of the bar's range"
        case rules.InBottomPctOfRange():
            return f"the close was in the bottom {condition.pct:.0%} of the bar's range"
        case rules.GapUp():
            return f"the open gapped up by more than {_plain(condition.atr_mult)} ATR"
        case rules.GapDown():
            return f"the open gapped down by more than {_plain(condition.atr_mult)} ATR"
        case rules.DeviationFrom():
            pair = f"{_plain(condition.atr_mult)} ATR {condition.direction} {_word(condition.ref_col)}"
            return f"{_word(condition.col)} was more than {pair}"
        case rules.WasBelowThenCrossesAbove():
            level = _plain(condition.threshold)
            within = _bars(condition.lookback)
            return f"{_word(condition.col)} crossed above {level} after being below it within {within}"
        case rules.WasAboveThenCrossesBelow():
            level = _plain(condition.threshold)
            within = _bars(condition.lookback)
            return f"{_word(condition.col)} crossed below {level} after being above it within {within}"
        case _:
            assert_never(condition)


def _all(conditions: Sequence[Condition]) -> str:
    return " and ".join(describe(condition) for condition in conditions)


def _any(conditions: Sequence[Condition]) -> str:
    return " or ".join(describe(condition) for condition in conditions)


def _word(operand: Operand) -> str:
    if isinstance(operand, str):
        return operand if operand.isidentifier() else f"[{operand}]"
    return _plain(operand)


def _plain(number: float) -> str:
    return f"{number:g}"


def _bars(count: int) -> str:
    return "1 bar" if count == 1 else f"{count} bars"


def _ago(count: int) -> str:
    return f"{_bars(count)} ago"


def _distance(multiplier: float | None, scale: float) -> str:
    return f"{(multiplier or 0) * scale:g} ATR"
