"""What users write, read into a specification: the forms of a strategy, defaults, and every reading that is told."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from daemon.core import backtest as spec
from daemon.core import strategy as rules
from daemon.core.backtest import Distance, Exits, Trailing
from daemon.core.errors import AtlasError
from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, NS_PER_SECOND, Bars, Instrument, Timeframe
from daemon.core.ports import InstrumentFacts
from daemon.core.strategy import RiskProfile
from daemon.core.ticks import Stream, ticks
from daemon.engine.program import compile_strategies
from daemon.research import strategies
from daemon.research.backtest_config.read import read_config, resolve_set
from daemon.research.backtest_config.templates import TEMPLATES
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.instruments import put_facts

ROOT = Path(__file__).parents[2]
BOOK = strategies.load([ROOT / "strategies.json"])
PROFILES = {"low": RiskProfile(0.75, 0.5, 0.25, 0.6), "medium": RiskProfile()}
START_NS = 19_358 * NS_PER_DAY  # 2023-01-01
BTC, ETH, SOL = (Instrument("binance", symbol) for symbol in ("BTC/USDT", "ETH/USDT", "SOL/USDT"))
MINUTE_NS = 60 * NS_PER_SECOND

ISSUE = {
    "strategy": {
        "name": "momentum_breakout",
        "entryRules": [
            {"indicator": "rsi", "condition": "crosses_above", "value": 30},
            {"indicator": "volume", "condition": "greater_than", "value": "sma_20"},
        ],
        "exitRules": [
            {"type": "take_profit", "value": 0.02},
            {"type": "stop_loss", "value": 0.05},
            {"type": "trailing_stop", "activation": 0.01, "distance": 0.005},
        ],
    },
    "backtest": {
        "startDate": "2023-01-01",
        "endDate": "2024-01-01",
        "symbols": ["SOL/USDT", "ETH/USDT"],
        "timeframe": "1m",
        "initialCapital": 10000,
        "commission": 0.001,
        "slippageModel": "volume_weighted",
    },
    "validation": {
        "walkForward": True,
        "windowSize": 30,
        "stepSize": 7,
        "monteCarlo": {"enabled": True, "iterations": 1000, "confidenceLevel": 0.95},
    },
}
FLAT = {
    "strategyId": "7",
    "symbols": ["BTC/USDT"],
    "startTime": 1672531200000,
    "endTime": 1672790400000,
    "initialCapital": "10000",
    "commissionRate": "0.001",
    "slippageRate": "0.0005",
    "useRealisticSlippage": False,
    "parameters": {"takeProfitPercent": "2", "stopLossPercent": "5", "maxPositionSize": "5000", "maxPositions": 3},
}


def flat_bars(count, step_ns):
    price = np.full(count, 100.0)
    return Bars(START_NS + np.arange(count) * step_ns, price, price, price, price, price)


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """BTC of 1 minute and trades, ETH of 1 minute and 1 hour, SOL of 1 minute in quote volume, X of 5 minutes."""
    stored = [
        (BTC, Timeframe.MIN_1, 4 * 1440, "base"),
        (ETH, Timeframe.MIN_1, 1440, "base"),
        (ETH, Timeframe.HOUR_1, 96, "base"),
        (SOL, Timeframe.MIN_1, 1440, "quote"),
        (Instrument("local", "X"), Timeframe.MIN_5, 300, "base"),
        (Instrument("here", "TWO"), Timeframe.DAY_1, 3, "base"),
        (Instrument("there", "TWO"), Timeframe.DAY_1, 3, "base"),
    ]
    with Environment(tmp_path_factory.mktemp("backtests"), StoreConfig(sync=False)) as env:
        store = BarStore(env)
        for instrument, timeframe, count, unit in stored:
            env.write(
                lambda transaction, of=instrument, length=timeframe, rows=count, unit=unit: store.merge(
                    transaction, of, length, flat_bars(rows, length.ns), replace=False, volume_unit=unit
                )
            )
        for instrument in (BTC, Instrument("binance", "ONLYTRADES")):
            with BulkWriter(store.ticks, instrument, Stream.TRADES) as writer:
                writer.add(
                    ticks(
                        Stream.TRADES,
                        price_decimals=2,
                        size_decimals=3,
                        time_ns=START_NS + np.arange(1000) * NS_PER_SECOND,
                        id=np.arange(1000),
                        price=np.full(1000, 10_000),
                        size=np.full(1000, 100),
                        side=np.ones(1000),
                    )
                )
                writer.finish()
        facts = InstrumentFacts("ETHUSDT", "TRADING", "0.01", "0.001", "0.001", "5")
        env.write(lambda transaction: put_facts(transaction, ETH, facts))
        yield store


@pytest.fixture
def read(bars):
    """Read a configuration; parts are laid over a small one that is valid."""

    def reading(strategy=None, /, **backtest):
        config = {
            "strategy": {"template": "momentum"} if strategy is None else strategy,
            "backtest": {"symbols": ["BTC/USDT"], "timeframe": "1m"} | backtest,
        }
        return read_config(config, bars, BOOK, PROFILES)

    return reading


def inline(*entries, **fields):
    return {"entryRules": list(entries), **fields}


def entry(read, indicator, condition, value, **fields):
    rule = {"indicator": indicator, "condition": condition, "value": value, **fields}
    made = read(inline(rule))
    return made.program.entry_long[0], made.readings


# The configuration of the issue, and those of the documentation.


def test_the_configuration_of_the_issue_reads_as_it_stands(bars):
    made = read_config(ISSUE, bars, BOOK)
    assert made.name == "momentum_breakout"
    assert [market.instrument for market in made.markets] == [SOL, ETH]
    assert [market.volume_unit for market in made.markets] == ["quote", "base"]
    assert made.timeframe is Timeframe.MIN_1
    assert (made.start_ns, made.stop_ns) == (START_NS, START_NS + 366 * NS_PER_DAY)
    assert made.program == spec.Rules(
        entry_long=(rules.CrossesAbove("rsi_14", value=30.0), rules.Above("volume", "volume_sma_20"))
    )
    assert made.exits == Exits(
        take_profit=Distance("fraction", 0.02),
        stop_loss=Distance("fraction", 0.05),
        trailing_stop=Trailing(Distance("fraction", 0.005), Distance("fraction", 0.01)),
    )
    assert made.costs == spec.Costs(0.001, 0.001, slippage=spec.VolumeWeighted())
    assert made.account.initial_capital == 10_000
    assert made.validation == spec.Validation(walk_forward=True, monte_carlo=spec.MonteCarlo(enabled=True))
    assert made.readings == (
        "Bars from 2023-01-01 00:00 to 2024-01-02 00:00 UTC, the last day included.",
        "Volumes of binance:SOL/USDT count quote currency.",
        "binance:ETH/USDT: tickSize 0.01, lotSize 0.001, minNotional 5, as the venue says.",
        "side is not given: the rules open longs.",
        "`rsi` is rsi_14 of closes.",
        "`sma_20` beside volume is volume_sma_20.",
        "The take profit lies 2 % from the entry price.",
        "The stop loss lies 5 % from the entry price.",
        "The trailing stop follows the best price by 0.5 %, from a gain of 1 % on.",
        "A long is opened after a bar on which rsi_14 crossed above 30 and volume was above volume_sma_20.",
        "sizing is not given: a position takes its symbol's whole share of the equity.",
        "No funding is paid.",
    )


PAGE = (ROOT / "docs" / "backtest-config.md").read_text()
EXAMPLES = re.findall(r"^    \{.*?(?=\n\n|\Z)", PAGE, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_of_the_documentation_reads(bars, example):
    made = read_config(json.loads(example), bars, BOOK, PROFILES)
    assert made.markets


def test_the_documentation_names_every_field_template_and_word():
    from daemon.research.backtest_config import flat
    from daemon.research.backtest_config.fields import names_of
    from daemon.research.backtest_config.orders import ENTRY_FIELDS, ORDER_FIELDS, SIZINGS
    from daemon.research.backtest_config.read import CONFIG_FIELDS
    from daemon.research.backtest_config.rules import OPERATORS
    from daemon.research.backtest_config.settings import BACKTEST_FIELDS, SLIPPAGES, TIMEFRAMES, slippage_names
    from daemon.research.backtest_config.strategy import STRATEGY_FIELDS, parameter_names

    words = set(re.findall(r"[A-Za-z_0-9]+", PAGE))
    wanted = [*CONFIG_FIELDS, *BACKTEST_FIELDS, *STRATEGY_FIELDS, *ENTRY_FIELDS, *ORDER_FIELDS, *SIZINGS, *SLIPPAGES]
    wanted += [*TIMEFRAMES, *TEMPLATES, *parameter_names(), *slippage_names(), *flat.FLAT_FIELDS]
    wanted += [name for struct in SIZINGS.values() for name in names_of(struct)]
    wanted += [word for word in OPERATORS if word.isidentifier()]
    assert [name for name in wanted if name not in words] == []


# Rules.


@pytest.mark.parametrize(
    ("condition", "made"),
    [
        *((word, rules.Above("close", "sma_50")) for word in ("gt", "greater_than", ">", "above")),
        *((word, rules.Below("close", "sma_50")) for word in ("lt", "less_than", "<", "below")),
        *((word, rules.AtOrAbove("close", "sma_50")) for word in ("gte", ">=")),
        *((word, rules.AtOrBelow("close", "sma_50")) for word in ("lte", "<=")),
        *(
            (word, rules.AllOf((rules.AtOrAbove("close", "sma_50"), rules.AtOrBelow("close", "sma_50"))))
            for word in ("eq", "==")
        ),
        *(
            (word, rules.AnyOf((rules.Above("close", "sma_50"), rules.Below("close", "sma_50"))))
            for word in ("neq", "!=")
        ),
        ("crosses_above", rules.CrossesAbove("close", "sma_50")),
        ("crosses_below", rules.CrossesBelow("close", "sma_50")),
    ],
)
def test_every_operator_has_its_condition(read, condition, made):
    assert entry(read, "close", condition, "sma_50")[0] == made


def test_between_includes_both_ends(read):
    made = rules.AllOf((rules.AtOrAbove("rsi_14", 30.0), rules.AtOrBelow("rsi_14", 70.0)))
    assert entry(read, "rsi_14", "between", ["30", 70])[0] == made


@pytest.mark.parametrize("word", ["gt", "lt", "gte", "lte", "eq", "neq", "between", "crosses_above", "crosses_below"])
def test_a_comparison_with_a_missing_value_is_false(read, word):
    from daemon.engine import conditions
    from daemon.engine.indicators import IndicatorColumns

    value = [-1e9, "sma_3"] if word == "between" else "sma_3"
    condition = entry(read, "close", word, value)[0]
    strategy = rules.Strategy(1, "x", "x", "x", "x", "long_only", (condition,), (), (), (), (), atr_stop_mult=None)
    program = compile_strategies([strategy])
    truths = conditions.signals(program, IndicatorColumns(flat_bars(2, MINUTE_NS)))
    assert not truths.any()


@pytest.mark.parametrize(
    ("indicator", "fields", "column"),
    [
        ("rsi", {}, "rsi_14"),
        ("RSI", {}, "rsi_14"),
        ("rsi", {"period": 7}, "rsi_7"),
        ("rsi", {"length": "21"}, "rsi_21"),
        ("rsi_14", {"period": 14}, "rsi_14"),
        ("williams_r", {}, "willr_14"),
        ("momentum", {"period": 5}, "mom_5"),
        ("price", {}, "close"),
        ("bollinger_upper", {}, "bb_upper"),
        ("bb_upper", {"period": 30}, "bb_upper_30"),
        ("donchian_high", {"period": 55}, "donchian_high_55"),
        ("macd_12_26_9", {}, "macd"),
        ("sar", {}, "psar"),
        ("price - 2 * atr", {}, "close - 2 * atr_14"),
        ("max(open, close) - shift(EMA, 1)", {}, "max(open, close) - shift(ema_20, 1)"),
    ],
)
def test_a_word_stands_for_the_usual_column(read, indicator, fields, column):
    condition, readings = entry(read, indicator, "gt", 1, **fields)
    assert condition == rules.Above(column, 1.0)
    told = any(f"is {column}" in sentence for sentence in readings)
    assert told == (column != indicator)


@pytest.mark.parametrize(
    ("indicator", "value", "made"),
    [
        ("volume", "sma_20", rules.Above("volume", "volume_sma_20")),
        ("volume", "ema_30", rules.Above("volume", "volume_ema_30")),
        ("volume", "1.5 * sma", rules.Above("volume", "1.5 * volume_sma_20")),
        ("volume", {"indicator": "sma", "period": 50}, rules.Above("volume", "volume_sma_50")),
        ("sma_5", "volume", rules.Above("volume_sma_5", "volume")),
        ("volume / 2", "ma", rules.Above("volume / 2", "volume_sma_20")),
        ("obv", "sma_20", rules.Above("obv", "sma_20")),
        ("close", "sma_20", rules.Above("close", "sma_20")),
    ],
)
def test_a_moving_average_beside_volume_averages_volume(read, indicator, value, made):
    assert entry(read, indicator, "gt", value)[0] == made


def test_conditions_of_the_registry_are_rules_too(read):
    rule = {"type": "squeeze", "width_col": "bb_width", "lookback": 30}
    either = {"type": "any_of", "conditions": [rule, {"type": "gap_up"}]}
    assert read(inline(rule, either)).program.entry_long == (
        rules.Squeeze("bb_width", 30),
        rules.AnyOf((rules.Squeeze("bb_width", 30), rules.GapUp())),
    )


@pytest.mark.parametrize(
    ("rule", "made"),
    [
        ({"type": "take_profit", "value": "0.02"}, Exits(take_profit=Distance("fraction", 0.02))),
        ({"type": "take_profit", "value": {"atr": 3}}, Exits(take_profit=Distance("atr", 3))),
        ({"type": "stop_loss", "value": 2, "unit": "atr"}, Exits(stop_loss=Distance("atr", 2))),
        ({"type": "stop_loss", "value": {"price": 50}}, Exits(stop_loss=Distance("price", 50))),
        ({"type": "trailing_stop", "distance": {"atr": 2}}, Exits(trailing_stop=Trailing(Distance("atr", 2)))),
        (
            {"type": "trailing_stop", "distance": 2, "activation": 1, "unit": "atr"},
            Exits(trailing_stop=Trailing(Distance("atr", 2), Distance("atr", 1))),
        ),
        (
            {"type": "trailing_stop", "distance": 0.01, "activation": 0},
            Exits(trailing_stop=Trailing(Distance("fraction", 0.01))),
        ),
        ({"type": "timeout", "bars": 60}, Exits(timeout_bars=60)),
        ({"type": "time_stop", "value": "60"}, Exits(timeout_bars=60)),
    ],
)
def test_stops_targets_and_times_become_exits(read, rule, made):
    strategy = inline({"indicator": "rsi", "condition": "lt", "value": 30}, exitRules=[rule])
    assert read(strategy).exits == made


def test_an_exit_rule_may_be_a_comparison(read):
    rule = {"indicator": "rsi", "condition": "lt", "value": 30}
    made = read(inline(rule, exitRules=[{"indicator": "rsi", "condition": "gt", "value": 70}]))
    assert made.program.exit_long == (rules.Above("rsi_14", 70.0),)
    assert made.exits == Exits()


# Sides.

LONG_RULE = {"indicator": "rsi", "condition": "crosses_above", "value": 30}
LEAVE_RULE = {"indicator": "close", "condition": "lt", "value": "ema_20"}


def test_rules_of_the_short_side_open_and_close_shorts(read):
    made = read(inline(LONG_RULE, side="short", exitRules=[LEAVE_RULE])).program
    assert made == spec.Rules(
        entry_short=(rules.CrossesAbove("rsi_14", value=30.0),), exit_short=(rules.Below("close", "ema_20"),)
    )


def test_both_sides_mirror_the_long_rules_and_say_so(read):
    made = read(inline(LONG_RULE, side="both", exitRules=[LEAVE_RULE, {"type": "stop_loss", "value": 0.05}]))
    assert made.program.entry_short == (rules.CrossesBelow("rsi_14", value=70.0),)
    assert made.program.exit_short == (rules.Above("close", "ema_20"),)
    assert "Short mirrors long: `rsi_14 crossed above 30` becomes `rsi_14 crossed below 70`." in made.readings
    assert "Short mirrors long: `close was below ema_20` becomes `close was above ema_20`." in made.readings


def test_both_sides_take_the_short_rules_that_are_given(read):
    fixed = {"indicator": "close", "condition": "gt", "value": 50000}
    made = read(
        inline(fixed, side="both", shortEntryRules=[LONG_RULE], exitRules=[fixed], shortExitRules=[LEAVE_RULE])
    ).program
    assert made.entry_short == (rules.CrossesAbove("rsi_14", value=30.0),)
    assert made.exit_short == (rules.Below("close", "ema_20"),)


# The registry.


@pytest.mark.parametrize("given", [{"id": 7}, {"id": "7"}, {"strategyId": 7}, {"name": "sar_trend_ride"}])
def test_a_strategy_of_the_registry_by_id_or_name(read, given):
    made = read(given)
    strategy = BOOK.get(7)
    assert made.name == "sar_trend_ride"
    assert made.program == spec.Rules(
        strategy.entry_long, strategy.entry_short, strategy.exit_long, strategy.exit_short, strategy_id=7
    )
    assert made.exits == Exits(stop_loss=Distance("atr", 2.0))
    assert any("ATR at the signal's bar" in sentence for sentence in made.readings)


def test_every_strategy_of_the_registry_reads(read):
    for strategy in BOOK:
        program = read({"id": strategy.id}).program
        assert program.entry_long or program.entry_short
        assert bool(program.entry_short) == (strategy.direction != "long_only" and bool(strategy.entry_short))


def test_exit_rules_replace_those_of_the_strategy_or_add_to_them(read):
    added = {"indicator": "rsi", "condition": "gt", "value": 80}
    made = read({"id": 7, "exitRules": [{"type": "stop_loss", "value": 0.03}, {"type": "timeout", "bars": 9}, added]})
    assert made.exits == Exits(stop_loss=Distance("fraction", 0.03), timeout_bars=9)
    assert made.program.exit_long == (*BOOK.get(7).exit_long, rules.Above("rsi_14", 80.0))
    assert made.program.exit_short == (*BOOK.get(7).exit_short, rules.Below("rsi_14", 20.0))


def test_a_risk_profile_scales_distances_and_times(read):
    with_all = next(each for each in BOOK if each.trailing_atr_mult and each.time_stop_bars and each.atr_stop_mult)
    made = read({"id": with_all.id, "riskProfile": "low"}).exits
    assert made.stop_loss == Distance("atr", with_all.atr_stop_mult * 0.75)
    assert made.trailing_stop == Trailing(Distance("atr", with_all.trailing_atr_mult * 0.25))
    assert made.timeout_bars == max(1, int(with_all.time_stop_bars * 0.6))
    rule = inline(LONG_RULE, riskProfile="low", exitRules=[{"type": "take_profit", "value": 0.04}])
    assert read(rule).exits == Exits(take_profit=Distance("fraction", 0.02))


def test_a_side_narrows_a_strategy_of_both(read):
    made = read({"id": 7, "side": "short"}).program
    assert (made.entry_long, made.exit_long) == ((), ())
    assert made.entry_short == BOOK.get(7).entry_short


# Templates.

OF_RULES = [name for name in TEMPLATES if name not in ("grid", "dca")]


@pytest.mark.parametrize("side", ["long", "short", "both"])
@pytest.mark.parametrize("name", OF_RULES)
def test_a_template_has_rules_for_each_side_that_the_engine_compiles(read, name, side):
    made = read({"template": name, "side": side}, timeframe="15m")
    program = made.program
    assert bool(program.entry_long) == (side != "short") == bool(program.exit_long)
    assert bool(program.entry_short) == (side != "long") == bool(program.exit_short)
    assert made.exits.stop_loss is not None
    words = {"name": name, "display_name": name, "philosophy": "x", "category": "x", "required_indicators": ()}
    compile_strategies(
        [
            rules.Strategy(
                id=1,
                direction="long_short",
                entry_long=program.entry_long,
                entry_short=program.entry_short,
                exit_long=program.exit_long,
                exit_short=program.exit_short,
                **words,
            )
        ]
    )


def test_parameters_of_a_template_reach_its_rules(read):
    made = read(
        {"template": "trend_following", "parameters": {"fastPeriod": "8", "slowPeriod": 34, "trailingAtr": 2.5}}
    )
    assert made.program.entry_long[0] == rules.CrossesAbove("ema_8", "ema_34")
    assert made.exits.trailing_stop == Trailing(Distance("atr", 2.5))


def test_grid_and_dca_are_programs_of_their_own(read):
    assert read({"template": "grid", "parameters": {"levels": 3, "step": 0.02}}).program == spec.Grid(3, 0.02)
    assert read({"template": "dca", "parameters": {"everyBars": 60}}).program == spec.Averaging(60, 10)


def test_a_name_of_both_registry_and_templates_is_the_registry_s_unless_parameters_are_given(read):
    assert read({"name": "rsi_divergence"}).program.strategy_id == 39
    assert any("not the template" in sentence for sentence in read({"name": "rsi_divergence"}).readings)
    assert read({"template": "rsi_divergence"}).program.strategy_id is None
    assert read({"name": "rsi_divergence", "parameters": {"lookback": 5}}).program.strategy_id is None
    assert read({"name": "breakout"}).program.strategy_id is None


# Orders.


def test_orders_are_sorted_by_time_and_name_their_market(read):
    made = read(
        {
            "orders": [
                {"time": 1672574400000, "symbol": "ETH/USDT", "side": "sell"},
                {
                    "time": "2023-01-01T10:00:00Z",
                    "symbol": "BTCUSDT",
                    "side": "buy",
                    "type": "stop_limit",
                    "quantity": "0.5",
                    "price": 101,
                    "stopPrice": 100,
                    "timeInForce": "GTD",
                    "expires": "2023-01-01T11:00:00Z",
                    "oco": 1,
                    "takeProfit": 0.02,
                    "stopLoss": {"price": 2},
                    "trailingStop": 0.01,
                },
            ]
        },
        symbols=["BTC/USDT", "ETH/USDT"],
    )
    first, second = made.program.orders
    ten = START_NS + 10 * NS_PER_HOUR
    assert first == spec.ListedOrder(
        time_ns=ten,
        symbol=0,
        side="buy",
        type="stop_limit",
        quantity=0.5,
        price=101,
        stop_price=100,
        time_in_force="GTD",
        expires_ns=ten + NS_PER_HOUR,
        oco=1,
        exits=Exits(Distance("fraction", 0.02), Distance("price", 2), Trailing(Distance("fraction", 0.01))),
    )
    assert second == spec.ListedOrder(time_ns=ten + 2 * NS_PER_HOUR, symbol=1, side="sell", reduce_only=True)


# How much, how, and at what costs.


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"type": "fixed", "notional": "1000"}, spec.Fixed(notional=1000)),
        ({"type": "fixed_fractional", "fraction": 0.5}, spec.FixedFractional(0.5)),
        ("kelly", spec.Kelly()),
        ({"type": "kelly", "leastTrades": 30}, spec.Kelly(least_trades=30)),
        ({"type": "volatility", "target": 0.1}, spec.VolatilityTarget(0.1)),
        ({"type": "atr", "risk": 0.02, "multiple": 3}, spec.AtrRisk(0.02, 3)),
    ],
)
def test_sizing_stands_in_the_strategy_or_beside_the_money(read, given, made):
    assert read({"template": "momentum", "sizing": given}).sizing == made
    assert read(sizing=given).sizing == made


def test_an_entry_order_of_each_type(read):
    given = {"type": "stop_limit", "offset": 0.002, "limitOffset": {"atr": 0.5}, "timeInForce": "GTD", "goodForBars": 3}
    assert read({"template": "momentum", "entryOrder": given}).entry_order == spec.EntryOrder(
        "stop_limit", Distance("fraction", 0.002), Distance("atr", 0.5), "GTD", 3
    )
    limit = {"type": "limit", "postOnly": True}
    assert read({"template": "momentum", "entryOrder": limit}).entry_order == spec.EntryOrder("limit", post_only=True)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({}, spec.Costs(0.001, 0.001)),
        ({"commission": 0}, spec.Costs(0, 0)),
        ({"makerFee": 0.0002}, spec.Costs(0.0002, 0.001)),
        ({"takerFee": "0.0005", "fixedFee": 1}, spec.Costs(0.001, 0.0005, 1)),
        ({"slippageBps": 3}, spec.Costs(0.001, 0.001, slippage=spec.FixedBps(3))),
        ({"slippageModel": "none"}, spec.Costs(0.001, 0.001, slippage=spec.NoSlippage())),
        ({"slippageModel": "fixed_bps", "slippage": {"bps": 2}}, spec.Costs(0.001, 0.001, slippage=spec.FixedBps(2))),
        (
            {"slippage": {"participationCap": 0.1}},
            spec.Costs(0.001, 0.001, slippage=spec.VolumeWeighted(participation_cap=0.1)),
        ),
        (
            {"slippageModel": "square_root", "slippage": {"y": 0.5}},
            spec.Costs(0.001, 0.001, slippage=spec.SquareRoot(0.5)),
        ),
        (
            {"slippageModel": "almgren_chriss", "slippage": {"slices": 3, "riskAversion": 0, "eta": 0.02}},
            spec.Costs(0.001, 0.001, slippage=spec.AlmgrenChriss(eta=0.02, slices=3, risk_aversion=0)),
        ),
        (
            {"slippageModel": "kyle", "slippage": {"y": 20}},
            spec.Costs(0.001, 0.001, slippage=spec.Kyle(20)),
        ),
        (
            {"slippageModel": "almgren_2005", "slippage": {"turnoverDays": 87, "executionDays": 1}},
            spec.Costs(0.001, 0.001, slippage=spec.Almgren2005(turnover_days=87, execution_days=1)),
        ),
        ({"stressTestMultiplier": 2}, spec.Costs(0.001, 0.001, scale=2)),
    ],
)
def test_costs_are_on_by_default(read, given, made):
    assert read(**given).costs == made


def test_defaults_that_were_taken_are_told(read):
    readings = " ".join(read().readings)
    for word in ("commission is not given: 0.1 % of each fill", "slippageModel is not given", "initialCapital is not"):
        assert word in readings
    readings = " ".join(read(commission=0, slippageBps=0, initialCapital=1).readings)
    assert "commission is not" not in readings
    assert "slippageModel is not" not in readings


def test_money_limits_funding_latency_and_calendar(read):
    made = read(
        leverage=5,
        maintenanceMargin=0.01,
        liquidationFee=0.02,
        maxPositions="2",
        maxPositionSize=500,
        fundingRate=-0.0001,
        fundingInterval=4,
        latencyMs={"feed": 1.5, "order": 250},
        calendar="equity",
        fills="ticks",
    )
    assert made.account == spec.Account(10_000, 5, 0.01, 0.02, 2, 500)
    assert made.funding == spec.Funding("constant", -0.0001, 4)
    assert made.latency == spec.Latency(1_500_000, 250_000_000)
    assert made.calendar_days == 252
    assert (made.fills, made.limit_fills) == ("ticks", "through")
    assert read(latencyMs="100").latency == spec.Latency(0, 100_000_000)
    assert read(calendar=365).calendar_days == 365
    assert read(funding="series").funding == spec.Funding("series")
    assert (read().fills, read().limit_fills) == ("bars", "touch")


# Markets, dates, timeframes.


@pytest.mark.parametrize(
    ("name", "timeframe"),
    [("1Min", "1Min"), ("1m", "1Min"), ("5m", "5Min"), ("15m", "15Min"), ("1h", "1Hour"), ("1d", "1Day")],
)
def test_timeframes_have_short_names(read, name, timeframe):
    assert read(timeframe=name).timeframe == timeframe


@pytest.mark.parametrize(
    ("symbols", "timeframe"),
    [
        (["BTC/USDT", "ETH/USDT"], "1Min"),
        (["BTC/USDT", "X"], "5Min"),
        ("X", "5Min"),
        (["ONLYTRADES"], "1Min"),
        (["ONLYTRADES", "X"], "5Min"),
    ],
)
def test_without_a_timeframe_the_finest_stored_one_common_to_all_is_taken(read, symbols, timeframe):
    made = read(symbols=symbols, timeframe=None)
    assert made.timeframe == timeframe
    assert any(f"timeframe is not given: {timeframe}" in sentence for sentence in made.readings)


def test_bars_come_from_what_is_stored_and_ticks_from_trades(read):
    assert read(timeframe="1h", symbols=["ETH/USDT", "BTC/USDT"]).markets[0].source is Timeframe.HOUR_1
    assert read(timeframe="1h").markets[0].source is Timeframe.MIN_1
    assert read(fills="ticks").markets[0].source is Stream.TRADES
    assert read(symbols="ONLYTRADES").markets[0].source is Stream.TRADES


def test_steps_are_the_user_s_else_the_venue_s(read):
    venue = read(symbols="ETH/USDT").markets[0]
    assert (venue.tick_size, venue.lot_size, venue.min_notional) == (0.01, 0.001, 5)
    given = {"ETH/USDT": {"tickSize": 0.5, "minNotional": 0}}
    own = read(symbols=["ETH/USDT", "BTC/USDT"], lotSize=0.1, instruments=given).markets
    assert [(each.tick_size, each.lot_size, each.min_notional) for each in own] == [(0.5, 0.1, 0), (0, 0.1, 0)]


def test_a_symbol_named_twice_is_one_market(read):
    assert len(read(symbols=["BTC/USDT", "btcusdt", "binance:BTC/USDT"]).markets) == 1


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, (None, None)),
        ("2023-01-02", "2023-01-02", (START_NS + NS_PER_DAY, START_NS + 2 * NS_PER_DAY)),
        ("2023-01-01T06:00:00Z", "2023-01-01T12:00", (START_NS + 6 * NS_PER_HOUR, START_NS + 12 * NS_PER_HOUR)),
        (1672531200000, "1672534800000", (START_NS, START_NS + NS_PER_HOUR)),
    ],
)
def test_dates_are_days_times_or_milliseconds(read, start, end, expected):
    made = read(startDate=start, endDate=end)
    assert (made.start_ns, made.stop_ns) == expected


# The flat form.


def test_the_client_s_flat_configuration_reads_with_its_texts_and_percents(bars):
    made = read_config(FLAT, bars, BOOK)
    assert made.program.strategy_id == 7
    assert made.exits == Exits(take_profit=Distance("fraction", 0.02), stop_loss=Distance("fraction", 0.05))
    assert made.account == spec.Account(10_000, max_positions=3, max_position_notional=5_000)
    assert made.costs == spec.Costs(0.001, 0.001, slippage=spec.FixedBps(5.0))
    assert made.timeframe is Timeframe.MIN_1
    assert (made.start_ns, made.stop_ns) == (START_NS, START_NS + 3 * NS_PER_DAY)
    assert made.validation is None


def test_the_flat_form_s_other_fields(bars):
    more = {
        "strategyId": "breakout",
        "useRealisticSlippage": True,
        "stressTestMultiplier": "2",
        "blockDelayMs": "400",
        "enableMevProtection": True,
        "monteCarloRuns": 500,
        "timeframe": "1h",
        "parameters": {"trailingStopPercent": "1.5", "stopLossPercent": 0},
    }
    made = read_config(FLAT | more, bars, BOOK)
    assert made.name == "breakout"
    assert made.costs.slippage == spec.VolumeWeighted()
    assert made.costs.scale == 2
    assert made.latency == spec.Latency(0, 400_000_000)
    assert made.validation == spec.Validation(monte_carlo=spec.MonteCarlo(enabled=True, iterations=500))
    assert made.timeframe is Timeframe.HOUR_1
    assert made.exits.trailing_stop == Trailing(Distance("fraction", 0.015))
    assert made.exits.stop_loss == Distance("atr", 2.0)
    assert any("enableMevProtection" in sentence for sentence in made.readings)


def test_without_slippage_the_flat_form_has_none(bars):
    assert read_config(FLAT | {"slippageRate": "0"}, bars, BOOK).costs.slippage == spec.NoSlippage()


# --set.


@pytest.mark.parametrize(
    ("assignment", "place", "value"),
    [
        ("backtest.commission=0.002", lambda made: made["backtest"]["commission"], 0.002),
        ("backtest.symbols[0]=BTC/USDT", lambda made: made["backtest"]["symbols"], ["BTC/USDT", "ETH/USDT"]),
        ('backtest.symbols=["BTC/USDT"]', lambda made: made["backtest"]["symbols"], ["BTC/USDT"]),
        ("strategy.exitRules[1].value=0.03", lambda made: made["strategy"]["exitRules"][1]["value"], 0.03),
        ("strategy.exitRules[3].type=timeout", lambda made: made["strategy"]["exitRules"][3], {"type": "timeout"}),
        ("validation.monteCarlo.enabled=false", lambda made: made["validation"]["monteCarlo"]["enabled"], False),
        (
            "backtest.instruments.BTC/USDT.tickSize=0.1",
            lambda made: made["backtest"]["instruments"],
            {"BTC/USDT": {"tickSize": 0.1}},
        ),
        ("strategy.sizing.type = kelly", lambda made: made["strategy"]["sizing"], {"type": "kelly"}),
        ("name=a=b", lambda made: made["name"], "a=b"),
    ],
)
def test_a_field_is_set_by_its_path(assignment, place, value):
    before = json.dumps(ISSUE)
    assert place(resolve_set(ISSUE, assignment)) == value
    assert json.dumps(ISSUE) == before


def test_a_flat_configuration_is_set_by_its_own_names():
    assert resolve_set(FLAT, "parameters.takeProfitPercent=3")["parameters"]["takeProfitPercent"] == 3


JUNK = [None, True, -1, 1e308, "", "\ud800", "rsi", [], [[]], {}, {"type": []}]


def with_junk(part):
    """Every copy of a part of a configuration in which one value is junk."""
    yield from JUNK
    inner = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    for place, each in inner:
        for junk in with_junk(each):
            changed = part.copy()
            changed[place] = junk
            yield changed


@pytest.mark.parametrize("example", [json.loads(each) for each in EXAMPLES], ids=range(len(EXAMPLES)))
def test_junk_anywhere_is_read_or_refused_with_its_field(bars, example):
    fields = []
    for config in with_junk(example):
        try:
            read_config(config, bars, BOOK, PROFILES)
        except AtlasError as error:
            fields.append(error.details["field"])
    assert len(set(fields)) > 10


@pytest.mark.parametrize(
    ("order", "field"),
    [
        ({"takeProfit": {"atr": 2}}, "takeProfit"),
        ({"stopLoss": {"atr": 2}}, "stopLoss"),
        ({"trailingStop": {"distance": {"atr": 2}}}, "trailingStop"),
        ({"type": "trailing_stop", "trail": {"distance": {"atr": 2}}}, "trail"),
        ({"type": "trailing_stop", "trail": {"distance": 0.01, "activation": 0.01}}, "trail"),
    ],
)
def test_an_order_of_a_list_knows_no_bar_to_take_an_atr_or_a_gain_from(read, order, field):
    common = {"time": "2023-01-01T10:00:00Z", "symbol": "BTCUSDT", "side": "buy", "quantity": 1}
    with pytest.raises(AtlasError) as refusal:
        read({"orders": [common | order]}, symbols=["BTC/USDT"])
    assert refusal.value.details["field"] == f"strategy.orders[0].{field}"
