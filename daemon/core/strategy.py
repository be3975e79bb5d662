"""Strategies as data: what `strategies.json` decodes into.

Conditions are a tagged union; what each computes is stated in `docs/probe.md`. Decoding checks shapes and ranges;
`research.strategies` checks what needs more than one field (column names, expressions, unique ids).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

Operand: TypeAlias = Annotated[str, Meta(min_length=1, max_length=500)] | float
"""A number, a column name, or an expression over columns."""

LONG: Final = 1
SHORT: Final = -1
SIDES: Final = {LONG: "long", SHORT: "short"}

EXIT_REASONS: Final = ("signal_exit", "stop_loss", "target", "trailing_stop", "time_stop")
"""Why a trade ended; columns hold the place in this tuple."""

Bars: TypeAlias = Annotated[int, Meta(ge=1, le=100_000)]
Fraction: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Multiplier: TypeAlias = Annotated[float, Meta(ge=0)]


class _Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="type"):
    """One row of the condition table."""


class _Cross(_Condition, frozen=True):
    col_a: Operand
    col_b: Operand | None = None
    value: Operand | None = None

    def __post_init__(self) -> None:
        if (self.col_b is None) == (self.value is None):
            raise ValueError("give exactly one of `col_b` and `value`")

    @property
    def other(self) -> Operand:
        """The side that `col_a` crosses."""
        other = self.value if self.col_b is None else self.col_b
        if other is None:
            raise AssertionError("__post_init__ admits exactly one side")
        return other


class CrossesAbove(_Cross, frozen=True, tag="crosses_above"):
    """`col_a` was at or below the other side and is above it now."""


class CrossesBelow(_Cross, frozen=True, tag="crosses_below"):
    """`col_a` was at or above the other side and is below it now."""


class Above(_Condition, frozen=True, tag="above"):
    """`col` > `ref`."""

    col: Operand
    ref: Operand


class Below(_Condition, frozen=True, tag="below"):
    """`col` < `ref`."""

    col: Operand
    ref: Operand


class AtOrAbove(_Condition, frozen=True, tag="at_or_above"):
    """`col` >= `ref`."""

    col: Operand
    ref: Operand


class AtOrBelow(_Condition, frozen=True, tag="at_or_below"):
    """`col` <= `ref`."""

    col: Operand
    ref: Operand


class Rising(_Condition, frozen=True, tag="rising"):
    """`bars` strict increases in a row."""

    col: Operand
    bars: Bars


class Falling(_Condition, frozen=True, tag="falling"):
    """`bars` strict decreases in a row."""

    col: Operand
    bars: Bars


class ConsecutiveHigherCloses(_Condition, frozen=True, tag="consecutive_higher_closes"):
    """`count` higher closes in a row."""

    count: Bars


class ConsecutiveLowerCloses(_Condition, frozen=True, tag="consecutive_lower_closes"):
    """`count` lower closes in a row."""

    count: Bars


class AllOf(_Condition, frozen=True, tag="all_of"):
    """Every nested condition is true."""

    conditions: Annotated[tuple[Condition, ...], Meta(min_length=1)]


class AnyOf(_Condition, frozen=True, tag="any_of"):
    """Some nested condition is true."""

    conditions: Annotated[tuple[Condition, ...], Meta(min_length=1)]


class AtLeast(_Condition, frozen=True, tag="at_least"):
    """`k` or more of the nested conditions are true."""

    k: Annotated[int, Meta(ge=1)]
    conditions: Annotated[tuple[Condition, ...], Meta(min_length=1)]


class Not(_Condition, frozen=True, tag="not_"):
    """The nested condition is false, also when it is false for want of a value."""

    condition: Condition


class HeldForNBars(_Condition, frozen=True, tag="held_for_n_bars"):
    """The nested condition is true on each of the last `n_bars` bars."""

    condition: Condition
    n_bars: Bars


class PullbackTo(_Condition, frozen=True, tag="pullback_to"):
    """The low dipped to within a tolerance of a level and the close held above it."""

    level_col: Operand
    tolerance_atr_mult: Multiplier = 0.5


class PullbackBelow(_Condition, frozen=True, tag="pullback_below"):
    """The high rose to within a tolerance of a level and the close stayed below it."""

    level_col: Operand
    tolerance_atr_mult: Multiplier = 0.5


class BullishDivergence(_Condition, frozen=True, tag="bullish_divergence"):
    """A lower low with a higher indicator, `lookback` bars apart."""

    indicator_col: Operand
    lookback: Bars = 5


class BearishDivergence(_Condition, frozen=True, tag="bearish_divergence"):
    """A higher high with a lower indicator, `lookback` bars apart."""

    indicator_col: Operand
    lookback: Bars = 5


class CandleBullish(_Condition, frozen=True, tag="candle_bullish"):
    """A candle pattern's value is positive."""

    pattern_col: Operand


class CandleBearish(_Condition, frozen=True, tag="candle_bearish"):
    """A candle pattern's value is negative."""

    pattern_col: Operand


class Squeeze(_Condition, frozen=True, tag="squeeze"):
    """A width is at its minimum of the last `lookback` bars."""

    width_col: Operand
    lookback: Bars = 50


class RangeExceedsAtr(_Condition, frozen=True, tag="range_exceeds_atr"):
    """high - low > `multiplier` x ATR."""

    multiplier: Multiplier


class NarrowestRange(_Condition, frozen=True, tag="narrowest_range"):
    """The smallest high - low of the last `lookback` bars."""

    lookback: Bars = 7


class BreaksAboveLevel(_Condition, frozen=True, tag="breaks_above_level"):
    """The close crosses above a level that may move."""

    level_col: Operand


class BreaksBelowLevel(_Condition, frozen=True, tag="breaks_below_level"):
    """The close crosses below a level that may move."""

    level_col: Operand


class InTopPctOfRange(_Condition, frozen=True, tag="in_top_pct_of_range"):
    """The close lies in the top `pct` (a fraction) of the bar's range."""

    pct: Fraction = 0.25


class InBottomPctOfRange(_Condition, frozen=True, tag="in_bottom_pct_of_range"):
    """The close lies in the bottom `pct` (a fraction) of the bar's range."""

    pct: Fraction = 0.25


class GapUp(_Condition, frozen=True, tag="gap_up"):
    """The open lies more than `atr_mult` ATR above the close before."""

    atr_mult: Multiplier = 1.0


class GapDown(_Condition, frozen=True, tag="gap_down"):
    """The open lies more than `atr_mult` ATR below the close before."""

    atr_mult: Multiplier = 1.0


class DeviationFrom(_Condition, frozen=True, tag="deviation_from"):
    """`col` is more than `atr_mult` ATR below (or above) `ref_col`."""

    col: Operand
    ref_col: Operand
    atr_mult: Multiplier
    direction: Literal["below", "above"] = "below"


class WasBelowThenCrossesAbove(_Condition, frozen=True, tag="was_below_then_crosses_above"):
    """`col` crosses above `threshold` after being strictly below it within `lookback` bars."""

    col: Operand
    threshold: float
    lookback: Bars = 5


class WasAboveThenCrossesBelow(_Condition, frozen=True, tag="was_above_then_crosses_below"):
    """`col` crosses below `threshold` after being strictly above it within `lookback` bars."""

    col: Operand
    threshold: float
    lookback: Bars = 5


Condition: TypeAlias = (
    CrossesAbove
    | CrossesBelow
    | Above
    | Below
    | AtOrAbove
    | AtOrBelow
    | Rising
    | Falling
    | ConsecutiveHigherCloses
    | ConsecutiveLowerCloses
    | AllOf
    | AnyOf
    | AtLeast
    | Not
    | HeldForNBars
    | PullbackTo
    | PullbackBelow
    | BullishDivergence
    | BearishDivergence
    | CandleBullish
    | CandleBearish
    | Squeeze
    | RangeExceedsAtr
    | NarrowestRange
    | BreaksAboveLevel
    | BreaksBelowLevel
    | InTopPctOfRange
    | InBottomPctOfRange
    | GapUp
    | GapDown
    | DeviationFrom
    | WasBelowThenCrossesAbove
    | WasAboveThenCrossesBelow
)

Direction: TypeAlias = Literal["long_short", "long_only", "short_only"]


class Strategy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One strategy's rules and its words.

    An entry is a conjunction and an exit a disjunction; an empty list never fires. A multiplier or time stop that is
    null or zero switches that exit off. Multipliers are of the 14-bar ATR at the fill bar; times are in bars.
    """

    id: Annotated[int, Meta(ge=1, le=65_535)]
    name: Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,100}$")]
    display_name: Annotated[str, Meta(min_length=1, max_length=200)]
    philosophy: Annotated[str, Meta(min_length=1, max_length=500)]
    category: Annotated[str, Meta(pattern=r"^[a-z0-9_]{1,50}$")]
    direction: Direction
    entry_long: tuple[Condition, ...]
    entry_short: tuple[Condition, ...]
    exit_long: tuple[Condition, ...]
    exit_short: tuple[Condition, ...]
    required_indicators: tuple[str, ...]
    atr_stop_mult: Multiplier | None = 2.0
    atr_target_mult: Multiplier | None = None
    trailing_atr_mult: Multiplier | None = None
    time_stop_bars: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    tags: tuple[str, ...] = ()


class RiskProfile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Factors on a strategy's exits; 1.0 leaves a distance or time as it is."""

    stop_scale: Annotated[float, Meta(gt=0)] = 1.0
    target_scale: Annotated[float, Meta(gt=0)] = 1.0
    trailing_scale: Annotated[float, Meta(gt=0)] = 1.0
    time_scale: Annotated[float, Meta(gt=0)] = 1.0
