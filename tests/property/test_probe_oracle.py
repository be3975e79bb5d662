"""The engine against the slow oracle, on made-up markets and made-up rules."""

import math
import statistics
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import probe as naive

from daemon.core import strategy as rules
from daemon.core.market import NS_PER_HOUR, Bars
from daemon.core.strategy import EXIT_REASONS, SIDES, RiskProfile, Strategy
from daemon.engine import conditions, probe
from daemon.engine.columns import ATR, BAR_COLUMNS, BAR_INDEX, NAMES
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.program import compile_strategies
from daemon.research.strategies import load

SHIPPED = list(load([Path(__file__).parents[2] / "strategies.json"]))
PROFILES = (RiskProfile(0.75, 0.75, 0.75, 0.6), RiskProfile(), RiskProfile(1.5, 1.5, 1.5, 1.5))
SHIPPED_PAIRS = [(place, profile) for place in range(len(SHIPPED)) for profile in PROFILES]
NAN, INF = math.nan, math.inf


class Columns(dict):
    """Columns as given instead of computed: what the engine needs of `IndicatorColumns`."""

    def __init__(self, bars, **given_columns):
        own = {name: getattr(bars, name) for name in BAR_COLUMNS}
        super().__init__(own, **{BAR_INDEX: np.arange(bars.size, dtype=float)}, **given_columns)
        self.bars = bars

    def plain(self):
        return {name: column.tolist() for name, column in self.items()}


def a_strategy(**fields):
    """Return a strategy of long and short trades without rules or exits but those given."""
    words = {"id": 1, "name": "made_up", "display_name": "Made up", "philosophy": "none", "category": "test"}
    empty = dict.fromkeys(("entry_long", "entry_short", "exit_long", "exit_short", "required_indicators"), ())
    defaults = {"direction": "long_short", "atr_stop_mult": None}
    return Strategy(**words, **(empty | defaults | fields))


def truths(columns, *tested):
    """Rows of truths, one a condition, as the engine sees them."""
    program = compile_strategies([a_strategy(entry_long=(condition,)) for condition in tested])
    words = conditions.signals(program, columns)[program.strategy_signals[:, 0]]
    unpacked = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little").astype(bool)
    assert not unpacked[:, columns.bars.size :].any()
    return unpacked[:, : columns.bars.size]


def engine_batches(columns, strategies, pairs):
    """Outcome of each batch, copied from the buffer the next one overwrites."""
    program = compile_strategies(strategies)
    signals = conditions.signals(program, columns)
    combinations = probe.combine(strategies, pairs)
    return [
        batch._replace(trades=probe.Trades(*(column.copy() for column in batch.trades)))
        for batch in probe.run(columns.bars, columns[ATR], signals, program.strategy_signals, combinations)
    ]


def by_combination(batches):
    """Trades, groups and summary of each combination, as tuples of their columns' values."""
    outcomes = []
    for batch in batches:
        trades, groups = zip(*batch.trades, strict=True), zip(*batch.groups, strict=True)
        for summary in zip(*batch.summary, strict=True):
            counts = dict(zip(batch.summary._fields, summary, strict=True))
            outcomes.append(
                (
                    [next(trades) for _ in range(counts["trades"])],
                    [next(groups) for _ in range(counts["groups"])],
                    counts,
                )
            )
        assert not [*trades, *groups]
    return outcomes


def as_naive_trade(row):
    trade = probe.Trades(*row)
    return naive.Trade(
        entry_index=trade.entry_index,
        exit_index=trade.exit_index,
        entry_price=trade.entry_price,
        exit_price=trade.exit_price,
        direction=SIDES[trade.side],
        pnl_pct=near(trade.pnl_pct),
        bars_held=trade.bars_held,
        max_drawdown_pct=near(trade.max_drawdown),
        max_profit_pct=near(trade.max_profit),
        pnl_std=near(trade.pnl_std),
        exit_reason=EXIT_REASONS[trade.reason],
    )


def as_naive_group(row):
    group = probe.Groups(*row)
    fractions = (group.pnl_mean, group.pnl_std, group.max_drawdown, group.max_profit)
    day = str(np.datetime64(int(group.open_day), "D"))
    return (day, group.open_hour, SIDES[group.side], group.num_trades, *map(near, fractions))


def naive_summary(trades, groups):
    gains = [trade.pnl_pct for trade in trades]
    return {
        "trades": len(trades),
        "groups": len(groups),
        "wins": sum(gain > 0 for gain in gains),
        "pnl_mean": near(statistics.fmean(gains or [0.0])),
        "pnl_std": near(statistics.pstdev(gains or [0.0])),
        "max_drawdown": near(max((trade.max_drawdown_pct for trade in trades), default=0.0)),
        "max_profit": near(max((trade.max_profit_pct for trade in trades), default=0.0)),
    }


def near(value):
    return pytest.approx(value, rel=1e-12, abs=1e-15)


def probe_and_compare(columns, strategies, pairs):
    """Run engine and oracle, assert that they agree, return the oracle's trades of each combination."""
    outcomes = by_combination(engine_batches(columns, strategies, pairs))
    plain = columns.plain()
    expected = [naive.trades(columns.bars, plain, strategies[place], profile) for place, profile in pairs]
    for (trades, groups, summary), wanted in zip(outcomes, expected, strict=True):
        wanted_groups = naive.groups(columns.bars, wanted)
        assert [as_naive_trade(row) for row in trades] == wanted
        assert [as_naive_group(row) for row in groups] == wanted_groups
        assert summary == naive_summary(wanted, wanted_groups)
    return expected


# Markets and rules at random.

HOLES = 0.1


def make_market(rng, size, tick, level):
    """Walk on a grid of coarse ticks: ties, gaps between bars, holes in times and columns."""

    def holed(values, share=HOLES):
        return np.where(rng.random(size) < share, NAN, values)

    close = np.maximum(level + np.cumsum(rng.integers(-3, 4, size)), 8)
    opens = np.maximum(np.concatenate([[level], close])[:size] + rng.choice([0, 0, 0, -2, 1, 3], size), 8)
    high = np.maximum(opens, close) + rng.integers(0, 4, size)
    low = np.minimum(opens, close) - rng.integers(0, 4, size)
    quarters = rng.integers(-1000, 1000) + np.cumsum(rng.integers(1, 4, size))
    prices = (column * tick for column in (opens, high, low, close))
    bars = Bars(quarters * (NS_PER_HOUR // 4), *prices, rng.integers(0, 5, size).astype(float))
    return Columns(
        bars,
        atr_14=rng.choice([NAN, INF, 0.0, 1.0, 2.0, 3.0, 4.0], size, p=[0.1, 0.02, 0.08, 0.2, 0.2, 0.2, 0.2]) * tick,
        sma_20=holed((close + rng.integers(-3, 4, size)) * tick),
        rsi_14=holed(rng.integers(0, 11, size) * 10.0),
        bb_width=holed(rng.choice([0.0, 0.25, 0.5, INF, -INF], size, p=[0.3, 0.3, 0.3, 0.05, 0.05])),
        cdl_doji=rng.choice(np.array([-100, 0, 100], dtype=np.int32), size),
    )


# Blocks pack truths by 64, and chance alone would make most series too short to trade.
sizes = st.sampled_from([0, 1, 2, 3, 4, 30, 50, 63, 64, 65, 66, 70])


@st.composite
def markets(draw, size=sizes):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return make_market(rng, draw(size), draw(st.sampled_from([0.25, 0.01])), draw(st.sampled_from([400, 20])))


names = st.sampled_from(
    ["open", "high", "low", "close", "volume", "bar_index", "atr_14", "sma_20", "rsi_14", "bb_width", "cdl_doji"]
)
literals = st.sampled_from(["0", "0.25", "1", "2.5", "50", "100"])
windows = st.integers(1, 6)


def compound(inner):
    return st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("-{}".format, inner),
        st.builds("abs({})".format, inner),
        st.builds("shift({}, {})".format, inner, st.integers(0, 6)),
        st.builds("{}({}, {})".format, st.sampled_from(["max", "min"]), inner, inner),
        st.builds("rolling_mean({}, {})".format, inner, windows),
        st.builds(
            "rolling_percentile({}, {}, {}, {})".format,
            inner,
            windows,
            st.sampled_from([0, 25, 33.3, 50, 70, 100]),
            windows,
        ),
    )


expressions = st.recursive(names | literals, compound, max_leaves=4)
numbers = st.sampled_from([-1.0, 0.0, 0.25, 1.0, 30.0, 50.0, 70.0, 100.0])
operands = st.one_of(names, numbers, expressions)
multipliers = st.sampled_from([0.0, 0.5, 1.0, 1.5])
fractions = st.sampled_from([0.0, 0.25, 0.5, 1.0])

# Two operands at random hardly ever meet, so most are of one scale.
prices = st.sampled_from(
    ["open", "low", "close", "sma_20", "sma_20", "(high + low) / 2", "shift(close, 1)", "rolling_mean(close, 3)"]
)
swings = st.tuples(st.sampled_from(["close - sma_20", "sma_20 - open"]), st.sampled_from([-0.5, 0.0, 0.5]))
levels = st.tuples(st.just("rsi_14"), st.sampled_from([30.0, 50.0, 70.0]))
pairs_of_operands = st.one_of(st.tuples(prices, prices), levels, st.tuples(operands, operands))
pairs_with_threshold = st.one_of(swings, levels, st.tuples(operands, numbers))
priced = prices | operands

# By type: makers of its parameters, of which the first may make a pair of operands.
LEAVES = {
    rules.CrossesAbove: (pairs_of_operands,),
    rules.CrossesBelow: (pairs_of_operands,),
    rules.Above: (pairs_of_operands,),
    rules.Below: (pairs_of_operands,),
    rules.AtOrAbove: (pairs_of_operands,),
    rules.AtOrBelow: (pairs_of_operands,),
    rules.Rising: (operands, windows),
    rules.Falling: (operands, windows),
    rules.ConsecutiveHigherCloses: (windows,),
    rules.ConsecutiveLowerCloses: (windows,),
    rules.PullbackTo: (priced, multipliers),
    rules.PullbackBelow: (priced, multipliers),
    rules.BullishDivergence: (operands, windows),
    rules.BearishDivergence: (operands, windows),
    rules.CandleBullish: (operands,),
    rules.CandleBearish: (operands,),
    rules.Squeeze: (operands, windows),
    rules.RangeExceedsAtr: (multipliers,),
    rules.NarrowestRange: (windows,),
    rules.BreaksAboveLevel: (priced,),
    rules.BreaksBelowLevel: (priced,),
    rules.InTopPctOfRange: (fractions,),
    rules.InBottomPctOfRange: (fractions,),
    rules.GapUp: (multipliers,),
    rules.GapDown: (multipliers,),
    rules.DeviationFrom: (pairs_of_operands, multipliers, st.sampled_from(["below", "above"])),
    rules.WasBelowThenCrossesAbove: (pairs_with_threshold, windows),
    rules.WasAboveThenCrossesBelow: (pairs_with_threshold, windows),
}


def made(kind, first, *rest):
    """Build a condition of one type."""
    own = first if isinstance(first, tuple) else (first,)
    if kind in (rules.CrossesAbove, rules.CrossesBelow) and isinstance(own[1], float):
        return kind(own[0], value=own[1])
    return kind(*own, *rest)


by_leaf = {kind: st.builds(made, st.just(kind), *parameters) for kind, parameters in LEAVES.items()}
leaves = st.one_of(*by_leaf.values())


def nesting(inner):
    """Conditions over conditions, by type."""
    several = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return {
        rules.AllOf: st.builds(rules.AllOf, several),
        rules.AnyOf: st.builds(rules.AnyOf, several),
        rules.AtLeast: st.builds(rules.AtLeast, st.integers(1, 4), several),
        rules.Not: st.builds(rules.Not, inner),
        rules.HeldForNBars: st.builds(rules.HeldForNBars, inner, windows),
    }


any_condition = st.recursive(leaves, lambda inner: st.one_of(*nesting(inner).values()), max_leaves=4)
BY_TYPE = by_leaf | nesting(any_condition)

often = st.sampled_from(
    [
        rules.CandleBullish("cdl_doji"),
        rules.CandleBearish("cdl_doji"),
        rules.Above("rsi_14", 50.0),
        rules.ConsecutiveLowerCloses(1),
    ]
)
rule_lists = st.one_of(
    st.just(()),
    st.tuples(often),
    st.tuples(often, often),
    st.tuples(any_condition),
    st.tuples(often, any_condition),
)
optional_multipliers = st.none() | st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0])
made_up_strategies = st.builds(
    a_strategy,
    direction=st.sampled_from(["long_short", "long_short", "long_only", "short_only"]),
    entry_long=rule_lists,
    entry_short=rule_lists,
    exit_long=rule_lists,
    exit_short=rule_lists,
    atr_stop_mult=optional_multipliers,
    atr_target_mult=optional_multipliers,
    trailing_atr_mult=optional_multipliers,
    time_stop_bars=st.none() | st.sampled_from([0, 1, 2, 3, 5, 8]),
)
scales = st.sampled_from([0.3, 0.75, 1.0, 1.5])
profiles = st.builds(RiskProfile, scales, scales, scales, scales)


def test_there_is_a_maker_for_every_type_of_condition():
    assert set(BY_TYPE) == set(get_args(rules.Condition))


@pytest.mark.parametrize("kind", BY_TYPE, ids=lambda kind: kind.__struct_config__.tag)
@settings(max_examples=60, deadline=None)
@given(columns=markets(), choice=st.data())
def test_a_condition_of_each_type_is_true_on_the_bars_of_the_oracle(kind, columns, choice):
    tested = choice.draw(st.lists(BY_TYPE[kind], min_size=3, max_size=6))
    plain = columns.plain()
    expected = [[naive.holds(condition, plain, i) for i in range(columns.bars.size)] for condition in tested]
    assert truths(columns, *tested).tolist() == expected


@settings(max_examples=400, deadline=None)
@given(columns=markets(), strategies=st.lists(made_up_strategies, min_size=1, max_size=3), profile=profiles)
def test_made_up_strategies_trade_as_the_oracle(columns, strategies, profile):
    pairs = [(place, each) for place in range(len(strategies)) for each in (profile, RiskProfile())]
    probe_and_compare(columns, strategies, pairs)


@settings(max_examples=20, deadline=None)
@given(columns=markets(st.integers(520, 900)), tested=st.lists(any_condition, min_size=5, max_size=10))
def test_truths_do_not_depend_on_where_blocks_begin(columns, tested):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditions, "BLOCK_ROWS", 1024)
        whole = truths(columns, *tested)
        patch.setattr(conditions, "BLOCK_ROWS", 64)
        assert np.array_equal(truths(columns, *tested), whole)


# Cases that neither recorded results nor chance are sure to settle.

FLAT = (100.0, 100.0, 100.0, 100.0)
ALWAYS = rules.Above("close", 0.0)


def a_series(*prices, **given_columns):
    """Hourly bars of (open, high, low, close), with an ATR of 2 where none is given."""
    size = len(prices)
    bars = Bars(np.arange(size) * NS_PER_HOUR, *np.array(prices).T.copy(), np.ones(size))
    filled = {ATR: [2.0] * size} | given_columns
    return Columns(bars, **{name: np.array(values) for name, values in filled.items()})


def on_bar(*wanted):
    """Build a condition that is true on these bars."""
    exactly = [rules.AllOf((rules.Above("bar_index", i - 0.5), rules.Below("bar_index", i + 0.5))) for i in wanted]
    return rules.AnyOf(tuple(exactly))


def only_trades(columns, profile=PROFILES[1], **fields):
    """Entry, exit, prices, side, bars held and reason of each trade, agreed on by engine and oracle."""
    (trades,) = probe_and_compare(columns, [a_strategy(**fields)], [(0, profile)])
    return [
        (t.entry_index, t.exit_index, t.entry_price, t.exit_price, t.direction, t.bars_held, t.exit_reason)
        for t in trades
    ]


@pytest.mark.parametrize(
    ("bar", "exits", "price", "reason"),
    [
        ((100, 101, 98, 99), {"atr_stop_mult": 1.0}, 98, "stop_loss"),
        ((97, 97, 96, 96), {"atr_stop_mult": 1.0}, 98, "stop_loss"),
        ((100, 102, 99, 99), {"atr_target_mult": 1.0}, 102, "target"),
        ((105, 105, 104, 104), {"atr_target_mult": 1.0}, 102, "target"),
        ((100, 103, 101, 102), {"trailing_atr_mult": 1.0}, 101, "trailing_stop"),
        ((100, 108, 99, 100), {"trailing_atr_mult": 1.0}, 106, "trailing_stop"),
        ((100, 102, 98, 99), {"atr_stop_mult": 1.0, "atr_target_mult": 1.0}, 98, "stop_loss"),
        ((100, 102, 100, 99), {"atr_target_mult": 1.0, "trailing_atr_mult": 1.0}, 102, "target"),
        ((99, 100, 98, 99), {"atr_stop_mult": 1.0, "trailing_atr_mult": 1.0}, 98, "stop_loss"),
        ((99, 100, 98, 99), {"trailing_atr_mult": 1.0, "time_stop_bars": 1}, 98, "trailing_stop"),
        ((99, 100, 98, 99), {"time_stop_bars": 1}, 99, "time_stop"),
    ],
)
@pytest.mark.parametrize("side", ["long", "short"])
def test_a_level_touched_exactly_or_jumped_takes_the_position_out_there(side, bar, exits, price, reason):
    def mirrored(value):
        return value if side == "long" else 200 - value

    opened, high, low, closed = map(mirrored, bar)
    touching = (opened, max(high, low), min(high, low), closed)
    series = a_series(FLAT, FLAT, touching, FLAT)
    found = only_trades(series, **{f"entry_{side}": (on_bar(0),)}, **exits)
    assert found == [(1, 2, 100, mirrored(price), side, 1, reason)]


@pytest.mark.parametrize(
    ("bar", "exits"),
    [
        ((100, 101, 98.01, 99), {"atr_stop_mult": 1.0}),
        ((100, 101.99, 99, 99), {"atr_target_mult": 1.0}),
        ((100, 103, 101.01, 102), {"trailing_atr_mult": 1.0}),
        ((50, 150, 50, 100), {"atr_stop_mult": 0.0, "atr_target_mult": 0.0, "trailing_atr_mult": 0.0}),
        ((50, 150, 50, 100), {"time_stop_bars": 0}),
    ],
)
def test_a_level_just_missed_or_switched_off_leaves_the_position_open(bar, exits):
    assert only_trades(a_series(FLAT, FLAT, bar), entry_long=(on_bar(0),), **exits) == []


def test_the_fill_bar_touches_neither_levels_nor_extremes():
    series = a_series(FLAT, (100, 150, 50, 100), (100, 100, 98, 98), FLAT)
    (trades,) = probe_and_compare(
        series, [a_strategy(entry_long=(on_bar(0),), exit_long=(on_bar(1),), atr_stop_mult=1.0)], [(0, PROFILES[1])]
    )
    assert [(t.exit_index, t.max_drawdown_pct, t.max_profit_pct) for t in trades] == [(2, 0.02, 0.0)]


def test_the_trail_never_loosens():
    series = a_series(FLAT, FLAT, (100, 110, 109, 109), (109, 109, 108.5, 109), (109, 109, 108, 109), FLAT)
    found = only_trades(series, entry_long=(on_bar(0),), trailing_atr_mult=1.0)
    assert found == [(1, 4, 100, 108, "long", 3, "trailing_stop")]


@pytest.mark.parametrize("unusable", [NAN, INF, -INF, 0.0, -1.0])
def test_a_signal_without_atr_on_its_fill_bar_is_dropped_and_that_bar_skipped(unusable):
    series = a_series(*[FLAT] * 7, atr_14=[2.0, unusable, 2.0, 2.0, 2.0, 2.0, 2.0])
    found = only_trades(series, entry_long=(on_bar(0, 1, 3),), time_stop_bars=1)
    assert found == [(4, 5, 100, 100, "long", 1, "time_stop")]


def test_a_signal_on_a_bar_without_atr_counts_when_the_fill_bar_has_one():
    series = a_series(*[FLAT] * 4, atr_14=[NAN, 2.0, NAN, NAN])
    assert len(only_trades(series, entry_long=(on_bar(0),), time_stop_bars=1)) == 1


def test_distances_come_from_the_atr_of_the_fill_bar_for_good():
    series = a_series(*[FLAT] * 2, (100, 100, 97.5, 98), (98, 98, 97, 98), FLAT, atr_14=[1.0, 3.0, 1.0, 1.0, 1.0])
    found = only_trades(series, entry_long=(on_bar(0),), atr_stop_mult=1.0)
    assert found == [(1, 3, 100, 97, "long", 2, "stop_loss")]


def test_a_signal_exit_takes_its_bar_from_the_mechanical_exits():
    series = a_series(FLAT, FLAT, (100, 150, 50, 99), FLAT)
    found = only_trades(series, entry_long=(on_bar(0),), exit_long=(on_bar(2),), atr_stop_mult=1.0, time_stop_bars=1)
    assert found == [(1, 2, 100, 99, "long", 0, "signal_exit")]


def test_a_time_limit_that_scales_to_zero_ends_the_trade_on_its_first_bar():
    found = only_trades(a_series(*[FLAT] * 6), RiskProfile(time_scale=0.6), entry_long=(on_bar(0),), time_stop_bars=1)
    assert found == [(1, 2, 100, 100, "long", 1, "time_stop")]


def test_a_time_limit_beyond_any_series_is_no_limit():
    strategy = a_strategy(entry_long=(on_bar(0),), time_stop_bars=1_000_000)
    pairs = [(0, RiskProfile(time_scale=scale)) for scale in (1.0, 2.0**44 / 1e6, 1e13, INF)]
    outcomes = by_combination(engine_batches(a_series(*[FLAT] * 6), [strategy], pairs))
    assert [trades for trades, _, _ in outcomes] == [[]] * len(pairs)


def test_a_long_wins_a_tie():
    found = only_trades(a_series(*[FLAT] * 4), entry_long=(on_bar(0),), entry_short=(on_bar(0),), time_stop_bars=1)
    assert [trade[4] for trade in found] == ["long"]


@pytest.mark.parametrize("exits", [{"exit_long": (on_bar(2),)}, {"time_stop_bars": 1}])
def test_a_position_may_reverse_on_its_exit_bar(exits):
    found = only_trades(a_series(*[FLAT] * 6), entry_long=(on_bar(0),), entry_short=(on_bar(2),), **exits)
    assert [trade[:2] for trade in found if trade[4] == "long"] == [(1, 2)]
    assert [trade[:1] for trade in found if trade[4] == "short"] == [(3,)] * ("time_stop_bars" in exits)


def test_signals_while_a_position_is_open_are_not_kept():
    found = only_trades(a_series(*[FLAT] * 8), entry_long=(on_bar(0, 1, 2),), time_stop_bars=3)
    assert [trade[:2] for trade in found] == [(1, 4)]


@pytest.mark.parametrize(("size", "count"), [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 2)])
def test_a_trade_that_is_open_at_the_end_is_dropped(size, count):
    found = only_trades(a_series(*[FLAT] * size) if size else no_bars(), entry_long=(ALWAYS,), time_stop_bars=1)
    assert len(found) == count


def no_bars():
    return Columns(Bars(np.empty(0, dtype=np.int64), *np.empty((5, 0))), atr_14=np.empty(0))


def a_column(*values):
    """Bars whose `rsi_14` is these values."""
    return a_series(*[FLAT] * len(values), rsi_14=values)


@pytest.mark.parametrize(
    ("condition", "columns", "bars"),
    [
        # One bar more than the window needs, but not for the range.
        (rules.Squeeze("rsi_14", 3), a_column(*[1.0] * 5), [3, 4]),
        (rules.NarrowestRange(3), a_column(*[1.0] * 5), [2, 3, 4]),
        (rules.Squeeze("rsi_14", 2), a_column(5.0, 4.0, 3.0, NAN, 2.0, 1.0, 1.0), [2, 5, 6]),
        # The dip before the first crossing lies within reach, but `lookback` bars do not.
        (rules.WasBelowThenCrossesAbove("rsi_14", 2.0, 3), a_column(1.0, 3.0, 1.0, 1.0, 3.0), [4]),
        (rules.WasAboveThenCrossesBelow("rsi_14", 2.0, 3), a_column(3.0, 1.0, 3.0, 3.0, 1.0), [4]),
        (rules.WasBelowThenCrossesAbove("rsi_14", 2.0, 2), a_column(1.0, 2.0, 3.0), [2]),
        (rules.WasBelowThenCrossesAbove("rsi_14", 2.0, 2), a_column(2.0, 2.0, 3.0), []),
        (rules.WasBelowThenCrossesAbove("rsi_14", 2.0, 3), a_column(1.0, NAN, 2.0, 3.0), [3]),
        (rules.WasBelowThenCrossesAbove("rsi_14", 2.0, 3), a_column(1.0, 1.0, NAN, 3.0), []),
        (rules.InBottomPctOfRange(0.25), a_series((102, 104, 100, 101)), [0]),
        (rules.InBottomPctOfRange(0.25), a_series((102, 104, 100, 101.01)), []),
        (rules.InTopPctOfRange(0.25), a_series((102, 104, 100, 103)), [0]),
        (rules.InTopPctOfRange(0.25), a_series((102, 104, 100, 102.99)), []),
        (rules.InBottomPctOfRange(1.0), a_series(FLAT), []),
        (rules.InTopPctOfRange(1.0), a_series(FLAT), []),
        # The minimum count of a percentile is of numbers, not of bars.
        (rules.Above("rolling_percentile(rsi_14, 3, 50, 2)", 0.0), a_column(1.0, NAN, 1.0, NAN, NAN, 1.0), [2]),
        (rules.Above("rolling_percentile(rsi_14, 3, 50, 4)", 0.0), a_column(*[1.0] * 9), []),
        (rules.Rising("rsi_14", 2), a_column(1.0, 2.0, INF, INF, NAN, 1.0, 2.0, 3.0), [2, 7]),
        (rules.Above("rsi_14", 0.0), a_column(INF, -INF, NAN, 1.0), [3]),
        (rules.CrossesAbove("rsi_14", value=2.0), a_column(3.0, 2.0, 3.0, -INF, 3.0, 1.0, INF), [2]),
        (rules.Not(rules.Above("rsi_14", 0.0)), a_column(NAN, 1.0, 0.0), [0, 2]),
        (rules.AtLeast(2, (rules.Above("rsi_14", 0.0),) * 2), a_column(NAN, 1.0, 0.0), [1]),
        (rules.AtLeast(3, (rules.Above("rsi_14", 0.0),) * 2), a_column(NAN, 1.0, 0.0), []),
        (rules.HeldForNBars(rules.Above("rsi_14", 0.0), 2), a_column(1.0, 1.0, 0.0, 1.0, 1.0, 1.0), [1, 4, 5]),
        (rules.HeldForNBars(rules.Not(rules.Above("rsi_14", 0.0)), 2), a_column(NAN, NAN, 1.0), [1]),
        (rules.PullbackTo("rsi_14", 1.0), a_series((102, 103, 102, 103), rsi_14=[100.0]), [0]),
        (rules.PullbackTo("rsi_14", 1.0), a_series((102, 103, 102.01, 103), rsi_14=[100.0]), []),
        (rules.PullbackBelow("rsi_14", 1.0), a_series((98, 98, 97, 97), rsi_14=[100.0]), [0]),
        (rules.RangeExceedsAtr(1.0), a_series((100, 102, 100, 100), (100, 102.01, 100, 100)), [1]),
        (rules.GapUp(1.0), a_series(FLAT, (102, 102, 102, 102), (104.01, 105, 104, 104)), [2]),
        (rules.GapDown(1.0), a_series(FLAT, (98, 98, 98, 98), (95.99, 96, 95, 95)), [2]),
    ],
)
def test_a_condition_at_its_edge(condition, columns, bars):
    plain = columns.plain()
    assert [i for i in range(columns.bars.size) if naive.holds(condition, plain, i)] == bars
    assert np.flatnonzero(truths(columns, condition)[0]).tolist() == bars


@pytest.mark.parametrize(
    ("percent", "expected"),
    [(30, 0.1 + (0.7 - 0.1) * 0.3), (50, 0.7 - (0.7 - 0.1) * (1 - 0.5)), (90, 0.7 - (0.7 - 0.1) * (1 - 0.9))],
)
def test_a_percentile_is_interpolated_from_the_nearer_neighbour(percent, expected):
    text = f"rolling_percentile(rsi_14, 2, {percent}, 2)"
    inexact = [rules.Above(text, expected), rules.Below(text, expected)]
    both_sides = truths(a_column(0.7, 0.1), *inexact, rules.Above(text, 0.0))
    assert both_sides[:, 1].tolist() == [False, False, True]


# Long series and the shipped strategies.


def a_walk(size=900, seed=5):
    rng = np.random.default_rng(seed)
    close = np.round(100 * np.exp(np.cumsum(rng.normal(0, 0.004, size))), 2)
    opens = np.round(np.concatenate([[100.0], close[:-1]]) + rng.normal(0, 0.1, size) * (rng.random(size) < 0.2), 2)
    high = np.maximum(opens, close) + np.round(rng.exponential(0.2, size), 2)
    low = np.minimum(opens, close) - np.round(rng.exponential(0.2, size), 2)
    volume = np.round(rng.lognormal(5, 1, size), 3)
    return Bars(np.arange(size) * (NS_PER_HOUR // 4), opens, high, low, close, volume)


def test_shipped_signals_do_not_depend_on_where_blocks_begin(monkeypatch):
    columns = IndicatorColumns(a_walk())
    program = compile_strategies(SHIPPED)
    monkeypatch.setattr(conditions, "BLOCK_ROWS", 1024)
    whole = conditions.signals(program, columns)
    monkeypatch.setattr(conditions, "BLOCK_ROWS", 64)
    assert whole.any(axis=1).sum() > 100
    assert np.array_equal(conditions.signals(program, columns), whole)


@pytest.mark.parametrize("size", [1, 14, 63, 64, 65, 250, 511, 512, 700, 899])
def test_trades_that_end_within_a_prefix_are_the_trades_of_the_prefix(size):
    bars = a_walk()
    whole = by_combination(engine_batches(IndicatorColumns(bars), SHIPPED, SHIPPED_PAIRS))
    prefix = by_combination(engine_batches(IndicatorColumns(bars.rows(0, size)), SHIPPED, SHIPPED_PAIRS))
    exit_index = probe.Trades._fields.index("exit_index")
    for (trades, _, _), (early, _, _) in zip(whole, prefix, strict=True):
        assert early == [trade for trade in trades if trade[exit_index] < size]


@pytest.mark.parametrize("size", [1, 14, 33, 64, 201, 513, 899])
def test_columns_of_a_prefix_are_the_prefix_of_the_columns_to_the_bit(size):
    bars = a_walk()
    whole, prefix = IndicatorColumns(bars), IndicatorColumns(bars.rows(0, size))
    changed = [name for name in sorted(NAMES) if as_bytes(prefix[name]) != as_bytes(whole[name][:size])]
    assert not changed


def as_bytes(column):
    """Bytes of a column; the sign of a NaN means nothing."""
    return np.where(np.isnan(column), NAN, column).tobytes()


def test_trades_do_not_depend_on_how_many_fit_a_batch(monkeypatch):
    columns = IndicatorColumns(a_walk())
    (whole,) = engine_batches(columns, SHIPPED, SHIPPED_PAIRS)
    monkeypatch.setattr(probe, "_BATCH_TRADES", 1)
    batches = engine_batches(columns, SHIPPED, SHIPPED_PAIRS)
    assert len(batches) > 10
    assert [batch.first for batch in batches] == np.cumsum([0, *(b.summary.trades.size for b in batches[:-1])]).tolist()
    assert by_combination(batches) == by_combination([whole])
