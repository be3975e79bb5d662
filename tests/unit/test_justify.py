"""Rules put into words: every condition type has a sentence, every exit says where its level came from."""

import re
from pathlib import Path
from typing import get_args

import pytest

from daemon.core import strategy as rules
from daemon.core.strategy import EXIT_REASONS, LONG, SHORT, RiskProfile, Strategy
from daemon.research import strategies
from daemon.research.justify import describe, entry_reason, exit_reason

UP = rules.ConsecutiveHigherCloses(2)
DOWN = rules.ConsecutiveLowerCloses(1)

SENTENCES = [
    (rules.CrossesAbove("ema_20", "ema_50"), "ema_20 crossed above ema_50"),
    (rules.CrossesAbove("rsi_14", value=30), "rsi_14 crossed above 30"),
    (rules.CrossesBelow("close", value="sma_20 - 2 * stddev_20"), "close crossed below [sma_20 - 2 * stddev_20]"),
    (rules.Above("adx_14", 25.0), "adx_14 was above 25"),
    (rules.Below("close", "sma_200"), "close was below sma_200"),
    (rules.AtOrAbove("rsi_14", 70.0), "rsi_14 was at or above 70"),
    (rules.AtOrBelow("close", "vwap"), "close was at or below vwap"),
    (rules.Rising("obv", 3), "obv rose 3 bars in a row"),
    (rules.Falling("macd_hist", 1), "macd_hist fell 1 bar in a row"),
    (UP, "the close rose 2 bars in a row"),
    (DOWN, "the close fell 1 bar in a row"),
    (rules.AllOf((UP, DOWN)), "(the close rose 2 bars in a row and the close fell 1 bar in a row)"),
    (rules.AnyOf((UP, DOWN)), "(the close rose 2 bars in a row or the close fell 1 bar in a row)"),
    (
        rules.AtLeast(1, (UP, DOWN)),
        "at least 1 of these held: (the close rose 2 bars in a row; the close fell 1 bar in a row)",
    ),
    (rules.Not(UP), "it did not hold that the close rose 2 bars in a row"),
    (rules.HeldForNBars(rules.Above("close", "vwap"), 5), "for 5 bars close was above vwap"),
    (rules.PullbackTo("ema_20"), "the low dipped to within 0.5 ATR of ema_20 and the close held above it"),
    (rules.PullbackBelow("ema_20", 1.25), "the high rose to within 1.25 ATR of ema_20 and the close stayed below it"),
    (rules.BullishDivergence("rsi_14"), "the low was lower but rsi_14 higher than 5 bars ago"),
    (rules.BearishDivergence("rsi_14", 1), "the high was higher but rsi_14 lower than 1 bar ago"),
    (rules.CandleBullish("cdl_engulfing"), "cdl_engulfing was bullish"),
    (rules.CandleBearish("cdl_doji"), "cdl_doji was bearish"),
    (rules.Squeeze("bb_width"), "bb_width was at its lowest of 50 bars"),
    (rules.RangeExceedsAtr(2), "the bar's range exceeded 2 ATR"),
    (rules.NarrowestRange(), "the bar's range was the narrowest of 7 bars"),
    (rules.BreaksAboveLevel("r1"), "the close broke above r1"),
    (rules.BreaksBelowLevel("s1"), "the close broke below s1"),
    (rules.InTopPctOfRange(), "the close was in the top 25% of the bar's range"),
    (rules.InBottomPctOfRange(0.1), "the close was in the bottom 10% of the bar's range"),
    (rules.GapUp(), "the open gapped up by more than 1 ATR"),
    (rules.GapDown(0.5), "the open gapped down by more than 0.5 ATR"),
    (rules.DeviationFrom("close", "vwap", 1.5), "close was more than 1.5 ATR below vwap"),
    (rules.DeviationFrom("close", "sma_20", 2, "above"), "close was more than 2 ATR above sma_20"),
    (
        rules.WasBelowThenCrossesAbove("rsi_14", 30),
        "rsi_14 crossed above 30 after being below it within 5 bars",
    ),
    (
        rules.WasAboveThenCrossesBelow("rsi_14", 70, 1),
        "rsi_14 crossed below 70 after being above it within 1 bar",
    ),
]


def a_strategy(**fields):
    words = {"id": 1, "name": "made_up", "display_name": "Made up", "philosophy": "none", "category": "test"}
    empty = dict.fromkeys(("entry_long", "entry_short", "exit_long", "exit_short", "required_indicators"), ())
    return Strategy(**words, **({"direction": "long_short"} | empty | fields))


@pytest.mark.parametrize(("condition", "sentence"), SENTENCES, ids=lambda value: type(value).__name__)
def test_a_condition_reads_as_a_sentence(condition, sentence):
    assert describe(condition) == sentence


def test_every_type_of_condition_has_a_sentence():
    assert {type(condition) for condition, _ in SENTENCES} == set(get_args(rules.Condition))


def test_an_entry_names_its_side_and_everything_that_had_to_hold():
    strategy = a_strategy(entry_long=(UP, rules.Above("close", 5)), entry_short=(DOWN,))
    assert entry_reason(strategy, LONG) == (
        "Long at the open, because on the bar before the close rose 2 bars in a row and close was above 5."
    )
    assert entry_reason(strategy, SHORT) == (
        "Short at the open, because on the bar before the close fell 1 bar in a row."
    )


EXITS = a_strategy(
    exit_long=(UP, DOWN),
    exit_short=(DOWN,),
    atr_stop_mult=2.0,
    atr_target_mult=3.0,
    trailing_atr_mult=2.5,
    time_stop_bars=15,
)
HIGH = RiskProfile(1.5, 2.0, 0.75, 0.6)


@pytest.mark.parametrize(
    ("reason", "side", "words"),
    [
        ("signal_exit", LONG, f"Left at the close, because {describe(UP)} or {describe(DOWN)}."),
        ("signal_exit", SHORT, "Left at the close, because the close fell 1 bar in a row."),
        ("stop_loss", LONG, "Stopped out: price touched 3 ATR below the entry."),
        ("stop_loss", SHORT, "Stopped out: price touched 3 ATR above the entry."),
        ("target", LONG, "Target reached: price touched 6 ATR above the entry."),
        ("target", SHORT, "Target reached: price touched 6 ATR below the entry."),
        ("trailing_stop", LONG, "Trailing stop: price came back 1.875 ATR from the highest high since the entry."),
        ("trailing_stop", SHORT, "Trailing stop: price came back 1.875 ATR from the lowest low since the entry."),
        ("time_stop", LONG, "Time stop: left at the close after 9 bars."),
        ("time_stop", SHORT, "Time stop: left at the close after 9 bars."),
    ],
)  # fmt: skip
def test_an_exit_names_its_distance_under_the_risk_profile(reason, side, words):
    assert exit_reason(EXITS, HIGH, side, EXIT_REASONS.index(reason)) == words


def test_every_shipped_strategy_can_be_put_into_words():
    for strategy in strategies.load([Path(__file__).parents[2] / "strategies.json"]):
        for side in (LONG, SHORT):
            words = [entry_reason(strategy, side)]
            words += [exit_reason(strategy, HIGH, side, reason) for reason in range(len(EXIT_REASONS))]
            for text in words:
                assert text.endswith(".")
                assert not re.search(r"None|nan|<|\(\)|  ", text), text
