"""Mirror images of rules: a rule holds on a market upside down exactly where its mirror image holds on the market."""

from typing import get_args

import numpy as np
import pytest

from daemon.core import strategy as rules
from daemon.core.market import NS_PER_HOUR, Bars
from daemon.engine import conditions
from daemon.engine.columns import GROUP_OF
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.program import compile_strategies
from daemon.research.backtest_config.mirror import MirrorError, mirrored

PAIRS = [
    (rules.CrossesAbove("rsi_14", value=30.0), rules.CrossesBelow("rsi_14", value=70.0)),
    (rules.AtOrBelow("mfi_14", 20.0), rules.AtOrAbove("mfi_14", 80.0)),
    (rules.Above("stoch_k", "stoch_d"), rules.Below("stoch_k", "stoch_d")),
    (rules.Below("bb_pct", 0.1), rules.Above("bb_pct", 0.9)),
    (rules.Below("willr_14", -80.0), rules.Above("willr_14", -20.0)),
    (rules.Above("cci_20", 100.0), rules.Below("cci_20", -100.0)),
    (rules.CrossesAbove("macd", "macd_signal"), rules.CrossesBelow("macd", "macd_signal")),
    (rules.Above("macd_hist", 0.0), rules.Below("macd_hist", 0.0)),
    (rules.Above("close", "bb_upper"), rules.Below("close", "bb_lower")),
    (rules.Above("close", "bb_upper_20_1p5"), rules.Below("close", "bb_lower_20_1p5")),
    (rules.Above("close", "shift(donchian_high_20, 1)"), rules.Below("close", "shift(donchian_low_20, 1)")),
    (rules.Above("plus_di_14", "minus_di_14"), rules.Above("minus_di_14", "plus_di_14")),
    (rules.Above("aroon_up_25", 70.0), rules.Above("aroon_down_25", 70.0)),
    (rules.Above("adx_14", 25.0), rules.Above("adx_14", 25.0)),
    (rules.Above("volume", "1.5 * volume_sma_20"), rules.Above("volume", "1.5 * volume_sma_20")),
    (rules.Above("close", "sma_20 + 2 * stddev_20"), rules.Below("close", "sma_20 - 2 * stddev_20")),
    (rules.Below(40.0, "rsi_14"), rules.Below("rsi_14", 60.0)),
    (rules.Above("max(open, close)", "ema_20"), rules.Below("min(open, close)", "ema_20")),
    (rules.Above("close - open", "0.5 * atr_14"), rules.Below("close - open", "-(0.5 * atr_14)")),
    (rules.Above("(close - low) / (high - low)", 0.7), rules.Above("(close - high) / (low - high)", 0.7)),
    (rules.Above("rsi_14", "rolling_percentile(rsi_14, 50, 80, 20)"),
     rules.Below("rsi_14", "rolling_percentile(rsi_14, 50, 20, 20)")),
    (rules.Above("abs(close - ema_20)", "atr_14"), None),
    (rules.Above("rolling_mean(close, 5)", "vwap_96"), rules.Below("rolling_mean(close, 5)", "vwap_96")),
    (rules.Rising("low", 3), rules.Falling("high", 3)),
    (rules.Rising("volume", 2), rules.Rising("volume", 2)),
    (rules.Falling("macd_hist", 2), rules.Rising("macd_hist", 2)),
    (rules.ConsecutiveHigherCloses(3), rules.ConsecutiveLowerCloses(3)),
    (rules.PullbackTo("ema_20"), rules.PullbackBelow("ema_20")),
    (rules.BullishDivergence("rsi_14", 10), rules.BearishDivergence("rsi_14", 10)),
    (rules.CandleBullish("cdl_engulfing"), rules.CandleBearish("cdl_engulfing")),
    (rules.Squeeze("bar_range", 10), rules.Squeeze("bar_range", 10)),
    (rules.NarrowestRange(5), rules.NarrowestRange(5)),
    (rules.RangeExceedsAtr(1.5), rules.RangeExceedsAtr(1.5)),
    (rules.BreaksAboveLevel("sma_20"), rules.CrossesBelow("close", "sma_20")),
    (rules.InTopPctOfRange(0.2), rules.InBottomPctOfRange(0.2)),
    (rules.GapUp(0.1), rules.GapDown(0.1)),
    (rules.DeviationFrom("close", "ema_20", 1.5), rules.DeviationFrom("close", "ema_20", 1.5, "above")),
    (rules.WasBelowThenCrossesAbove("rsi_14", 30.0, 5), rules.WasAboveThenCrossesBelow("rsi_14", 70.0, 5)),
    (rules.WasAboveThenCrossesBelow("rsi_14", 60.0, 3), rules.WasBelowThenCrossesAbove("rsi_14", 40.0, 3)),
    (rules.Not(rules.Above("rsi_14", 70.0)), rules.Not(rules.Below("rsi_14", 30.0))),
    (rules.HeldForNBars(rules.Above("close", "sma_20"), 3), rules.HeldForNBars(rules.Below("close", "sma_20"), 3)),
    (rules.AtLeast(1, (rules.GapUp(), rules.GapDown())), rules.AtLeast(1, (rules.GapDown(), rules.GapUp()))),
    (rules.AllOf((rules.GapUp(),)), rules.AllOf((rules.GapDown(),))),
    (rules.AnyOf((rules.GapUp(),)), rules.AnyOf((rules.GapDown(),))),
]  # fmt: skip


@pytest.fixture(scope="module")
def market():
    rng = np.random.default_rng(5)
    close = 500 + np.cumsum(rng.normal(0, 2, 1500))
    opened = np.concatenate([[500], close[:-1]]) + rng.normal(0, 0.5, close.size)
    high = np.maximum(opened, close) + rng.exponential(1, close.size)
    low = np.minimum(opened, close) - rng.exponential(1, close.size)
    volume = rng.exponential(100, close.size)
    return Bars(np.arange(close.size) * NS_PER_HOUR, opened, high, low, close, volume)


def truths(bars, condition):
    words = {"display_name": "x", "philosophy": "x", "category": "x", "direction": "long_only"}
    strategy = rules.Strategy(
        id=1,
        name="x",
        entry_long=(condition,),
        entry_short=(),
        exit_long=(),
        exit_short=(),
        required_indicators=(),
        **words,
    )
    bits = conditions.signals(compile_strategies([strategy]), IndicatorColumns(bars))
    return np.unpackbits(bits.view(np.uint8), bitorder="little")[: bars.size].astype(bool)


@pytest.mark.parametrize(("condition", "image"), PAIRS, ids=[str(pair[0])[:60] for pair in PAIRS])
def test_a_mirror_image_holds_where_the_rule_holds_upside_down(market, condition, image):
    found = mirrored(condition)
    if image is not None:
        assert found == image
    about = 1000.0
    turned = Bars(
        market.start_ns,
        about - market.open,
        about - market.low,
        about - market.high,
        about - market.close,
        market.volume,
    )
    upside_down, straight = truths(turned, condition), truths(market, found)
    # Rounding decides a tie here and there.
    assert (upside_down != straight).sum() <= 2
    mixed = (rules.AllOf, rules.AnyOf, rules.AtLeast)
    assert straight.any() or isinstance(condition, (*mixed, rules.GapUp))


@pytest.mark.parametrize("condition", [pair[0] for pair in PAIRS if not isinstance(pair[0], rules.BreaksAboveLevel)])
def test_the_image_of_an_image_holds_where_the_rule_does(market, condition):
    assert (truths(market, mirrored(mirrored(condition))) != truths(market, condition)).sum() <= 2


def test_the_mirror_knows_every_column_of_the_catalogue():
    for name in GROUP_OF:
        try:
            mirrored(rules.Rising(name, 1))
        except MirrorError as error:
            pytest.fail(f"{name}: {error}")


def test_pairs_cover_the_types_of_conditions_from_one_side_or_the_other():
    met = {type(each) for pair in PAIRS for each in pair if each is not None}
    assert set(get_args(rules.Condition)) - met <= {rules.BreaksBelowLevel}


@pytest.mark.parametrize(
    "condition",
    [
        rules.Above("close", 50_000.0),
        rules.Above("close", "1.02 * sma_50"),
        rules.Above("close / sma_50", 1.02),
        rules.Above("max(close, rsi_14)", 1.0),
        rules.Above("abs(close)", 1.0),
        rules.Squeeze("rsi_14"),
        rules.BullishDivergence("volume"),
        rules.DeviationFrom("rsi_14", "ema_20", 1.0),
        rules.WasBelowThenCrossesAbove("close", 100.0),
    ],
)
def test_a_rule_that_hangs_on_the_height_of_the_price_has_no_mirror_image(condition):
    with pytest.raises(MirrorError):
        mirrored(condition)


@pytest.mark.parametrize(
    "expression",
    [
        "open - (close - high)",
        "-(open + close) * 2 / 3",
        "open + 2 * (close - high)",
        "-open + 1.5",
        "shift(open, 3) - 0.1",
    ],
)
def test_an_image_is_written_as_an_expression_of_the_same_value(market, expression):
    rule = rules.Rising(expression, 1)
    again = mirrored(mirrored(rule))
    assert (truths(market, again) != truths(market, rule)).sum() <= 2
    assert truths(market, rule).any()
