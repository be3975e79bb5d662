"""Configurations that are refused: each kind of wrong field is named by its path, with what is allowed."""

import copy
from pathlib import Path

import numpy as np
import pytest

from daemon.core.errors import AtlasError, InvalidRequest, NotFound
from daemon.core.market import NS_PER_DAY, Bars, Instrument, Timeframe
from daemon.core.strategy import RiskProfile
from daemon.research import strategies
from daemon.research.backtest_config.read import read_config, resolve_set
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

BOOK = strategies.load([Path(__file__).parents[2] / "strategies.json"])
PROFILES = {"low": RiskProfile()}
START_NS = 19_358 * NS_PER_DAY  # 2023-01-01

RULE = {"indicator": "rsi", "condition": "lt", "value": 30}
NESTED = {
    "strategy": {"entryRules": [RULE, RULE], "exitRules": [{"type": "stop_loss", "value": 0.05}, RULE]},
    "backtest": {"symbols": ["BTC/USDT"], "timeframe": "1m"},
    "validation": {"monteCarlo": {"enabled": True}},
}
FLAT = {
    "strategyId": 7,
    "symbols": ["BTC/USDT"],
    "startTime": 1672531200000,
    "endTime": 1672790400000,
    "initialCapital": "10000",
    "parameters": {},
}


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """BTC of 1 minute on 2023-01-01, X of 1 hour, TWO at two venues."""
    stored = [
        ("binance:BTC/USDT", Timeframe.MIN_1),
        ("local:X", Timeframe.HOUR_1),
        ("here:TWO", Timeframe.DAY_1),
        ("there:TWO", Timeframe.DAY_1),
    ]
    with Environment(tmp_path_factory.mktemp("refusals"), StoreConfig(sync=False)) as env:
        store = BarStore(env)
        for key, timeframe in stored:
            count = NS_PER_DAY // timeframe.ns
            price = np.full(count, 100.0)
            rows = Bars(START_NS + np.arange(count) * timeframe.ns, price, price, price, price, price)
            instrument = Instrument(*key.split(":"))
            env.write(
                lambda transaction, of=instrument, length=timeframe, new=rows: store.merge(
                    transaction, of, length, new, replace=False
                )
            )
        yield store


def refusal(bars, config):
    with pytest.raises(AtlasError) as caught:
        read_config(config, bars, BOOK, PROFILES)
    return caught.value


def changed(config, path, value):
    """A copy with one field replaced; path: names and places."""
    whole = copy.deepcopy(config)
    inside = whole
    for step in path[:-1]:
        inside = inside.setdefault(step, {}) if isinstance(inside, dict) else inside[step]
    inside[path[-1]] = value
    return whole


def written(path):
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


INVALID = "INVALID_CONFIGURATION"
E0, X0 = ("strategy", "entryRules", 0), ("strategy", "exitRules", 0)

# Path, value, code, a part of the message; the field that is named where it is not the path.
WRONG = [
    # Shapes.
    (("strategy",), None, INVALID, "is missing"),
    (("strategy",), "momentum", INVALID, "not an object"),
    (("strategy",), {}, INVALID, "says nothing to trade"),
    (("strategy",), {"nme": "x"}, INVALID, "did you mean `name`", "strategy.nme"),
    (("backtest",), None, INVALID, "is missing"),
    (("backtest",), [], INVALID, "not an object"),
    (("backtests",), {}, INVALID, "did you mean `backtest`?"),
    (("backtest", "start_date"), "2023-01-01", INVALID, "did you mean `startDate`?"),
    (("backtest", "zzz"), 1, INVALID, "is no field of backtest: startDate, endDate"),
    (("id",), "a/b", INVALID, "letters, digits"),
    (("name",), 7, INVALID, "not a text"),
    # Money.
    (("backtest", "initialCapital"), -1, INVALID, "must be above 0"),
    (("backtest", "initialCapital"), 0, INVALID, "must be above 0"),
    (("backtest", "initialCapital"), "many", INVALID, "not a number above 0"),
    (("backtest", "initialCapital"), True, INVALID, "not a number"),
    (("backtest", "initialCapital"), float("nan"), INVALID, "nan, not a number"),
    (("backtest", "initialCapital"), float("inf"), INVALID, "inf, not a number"),
    (("backtest", "initialCapital"), 10**400, INVALID, "not a number"),
    (("backtest", "commission"), 1.5, INVALID, "0 or more and 1 or less"),
    (("backtest", "commission"), -0.1, INVALID, "0 or more"),
    (("backtest", "commission"), "0,001", INVALID, "not a number"),
    (("backtest", "makerFee"), 2, INVALID, "1 or less"),
    (("backtest", "fixedFee"), -1, INVALID, "0 or more"),
    (("backtest", "stressTestMultiplier"), -1, INVALID, "0 or more"),
    (("backtest", "leverage"), 0.5, INVALID, "1 or more"),
    (("backtest", "leverage"), 201, INVALID, "200 or less"),
    (("backtest", "leverage"), 200, INVALID, "liquidated at once"),
    (("backtest", "maintenanceMargin"), 1, INVALID, "below 1"),
    (("backtest", "liquidationFee"), 2, INVALID, "1 or less"),
    (("backtest", "maxPositions"), 0, INVALID, "1 or more"),
    (("backtest", "maxPositions"), 1.5, INVALID, "not a whole number"),
    (("backtest", "maxPositionSize"), 0, INVALID, "above 0"),
    # Costs.
    (("backtest", "slippageModel"), "quadratic", INVALID, "none, fixed_bps, volume_weighted"),
    (("backtest", "slippageModel"), "volume-weighted", INVALID, "did you mean `volume_weighted`?"),
    (("backtest", "slippage"), 0.001, INVALID, "not an object with impact"),
    (("backtest", "slippage"), {"bps": 1}, INVALID, "is no field", "backtest.slippage.bps"),
    (("backtest", "slippage"), {"participationCap": 0}, INVALID, "above 0", "backtest.slippage.participationCap"),
    (("backtest", "slippageBps"), -1, INVALID, "0 or more"),
    (("backtest", "funding"), "binance", INVALID, "none, constant, series"),
    (("backtest", "funding"), "constant", INVALID, "goes with", "backtest.fundingRate"),
    (("backtest", "fundingRate"), 2, INVALID, "1 or less"),
    (("backtest", "fundingInterval"), 8, INVALID, "goes with fundingRate"),
    (("backtest", "latencyMs"), -1, INVALID, "0 or more"),
    (("backtest", "latencyMs"), {"feed": 1, "ordr": 2}, INVALID, "did you mean `order`?", "backtest.latencyMs.ordr"),
    # Markets.
    (("backtest", "symbols"), None, INVALID, "is missing"),
    (("backtest", "symbols"), [], INVALID, "not a list of 1 to"),
    (("backtest", "symbols"), 7, INVALID, "not a list"),
    (("backtest", "symbols"), ["BTC/USDT", "DOGE"], "INVALID_SYMBOL", "DOGE not found", "backtest.symbols[1]"),
    (("backtest", "symbols"), ["B T C"], "INVALID_SYMBOL", "no symbol", "backtest.symbols[0]"),
    (("backtest", "symbols"), [3], INVALID, "not a text", "backtest.symbols[0]"),
    (("backtest", "symbols"), "TWO", "AMBIGUOUS_SYMBOL", "several venues"),
    (("backtest", "symbols"), ["X"], "NO_BARS", "no 1Min bars", "backtest.symbols[0]"),
    (("backtest", "timeframe"), "2m", "INVALID_TIMEFRAME", "1Sec, 1Min, 5Min, 15Min, 1Hour, 1Day"),
    (("backtest", "timeframe"), 60, "INVALID_TIMEFRAME", "not one of"),
    (("backtest", "fills"), "quotes", INVALID, "bars, ticks"),
    (("backtest", "fills"), "ticks", "NO_ROWS", "no stored trades", "backtest.symbols[0]"),
    (("backtest", "limitFills"), "always", INVALID, "touch, through"),
    (("backtest", "tickSize"), -1, INVALID, "0 or more"),
    (("backtest", "instruments"), [], INVALID, "not an object such as"),
    (("backtest", "instruments", "X"), {}, "INVALID_SYMBOL", "none of backtest.symbols"),
    (
        ("backtest", "instruments", "BTC/USDT"),
        {"tick": 1},
        INVALID,
        "is no field",
        "backtest.instruments.BTC/USDT.tick",
    ),
    (("backtest", "calendar"), 360, INVALID, "365, 252, crypto, equity"),
    # Dates.
    (("backtest", "startDate"), "2023-13-01", "INVALID_DATE_RANGE", "not in the calendar"),
    (("backtest", "startDate"), "01.01.2023", "INVALID_DATE_RANGE", "is no time"),
    (("backtest", "startDate"), True, "INVALID_DATE_RANGE", "not a time"),
    (("backtest", "endDate"), "soon", "INVALID_DATE_RANGE", "is no time"),
    (("backtest", "startDate"), "2024-01-01", "NO_BARS", "in these dates", "backtest.symbols[0]"),
    # Rules.
    (("strategy", "entryRules"), [], INVALID, "a list of 0, not a list of 1 to 100"),
    (("strategy", "entryRules"), RULE, INVALID, "not a list"),
    ((*E0, "indicator"), None, INVALID, "is missing"),
    ((*E0, "indicator"), "rsii", INVALID, "did you mean `rsi`?"),
    ((*E0, "indicator"), "foo_7", INVALID, "unknown column `foo_7`"),
    ((*E0, "indicator"), "sma_20 +", INVALID, "does not parse"),
    ((*E0, "indicator"), 14, INVALID, "not the name of an indicator"),
    ((*E0, "indicator"), "__import__('os')", INVALID, "not a function"),
    ((*E0, "condition"), None, INVALID, "is missing: one of gt, lt"),
    ((*E0, "condition"), "crossed_above", INVALID, "did you mean `crosses_above`? Allowed: gt"),
    ((*E0, "condition"), ["gt"], INVALID, "no operator"),
    ((*E0, "condition"), "between", INVALID, "takes [low, high]", "strategy.entryRules[0].value"),
    ((*E0, "value"), None, INVALID, "is missing"),
    ((*E0, "value"), True, INVALID, "not the name"),
    ((*E0, "value"), float("nan"), INVALID, "nan"),
    ((*E0, "value"), "ema_9999999", INVALID, "unknown column"),
    (
        (*E0, "value"),
        {"indicator": "ema", "periods": 3},
        INVALID,
        "did you mean `period`?",
        "strategy.entryRules[0].value.periods",
    ),
    ((*E0, "period"), 0, INVALID, "1 or more"),
    ((*E0, "period"), 1.5, INVALID, "not a whole number"),
    ((*E0, "period"), 99_999, INVALID, "not computed for that length"),
    ((*E0, "operator"), "gt", INVALID, "is no field"),
    (E0, "rsi < 30", INVALID, "not an object"),
    (E0, {"type": "stop_loss", "value": 1}, INVALID, "no type of a rule", "strategy.entryRules[0].type"),
    (E0, {"type": "rising", "col": "rsi_14"}, INVALID, "missing required field `bars`"),
    (E0, {"type": "rising", "col": "rsi_14", "bars": 0}, INVALID, ">= 1", "strategy.entryRules[0].bars"),
    (E0, {"type": "rising", "col": "nope", "bars": 2}, INVALID, "unknown column", "strategy.entryRules[0].col"),
    (
        E0,
        {"type": "not_", "condition": {"type": "above", "col": "x", "ref": 1}},
        INVALID,
        "unknown column",
        "strategy.entryRules[0].condition.col",
    ),
    # Exits.
    (X0, {"type": "stop_los", "value": 0.1}, INVALID, "did you mean `stop_loss`?", "strategy.exitRules[0].type"),
    ((*X0, "value"), 5, INVALID, "below 1: a fraction of the price, 0.05 is 5 %"),
    ((*X0, "value"), 0, INVALID, "above 0"),
    ((*X0, "value"), None, INVALID, "is missing"),
    ((*X0, "value"), {"atr": 1, "price": 2}, INVALID, "cannot stand beside", "strategy.exitRules[0].value.atr"),
    ((*X0, "value"), {}, INVALID, "is empty: give one of fraction, price, atr"),
    ((*X0, "unit"), "percent", INVALID, "fraction, price, atr"),
    (X0, {"type": "trailing_stop"}, INVALID, "is missing", "strategy.exitRules[0].distance"),
    (X0, {"type": "trailing_stop", "distance": 1}, INVALID, "below 1", "strategy.exitRules[0].distance"),
    (X0, {"type": "timeout"}, INVALID, "is missing", "strategy.exitRules[0].bars"),
    (X0, {"type": "timeout", "bars": 0.5}, INVALID, "1 or more", "strategy.exitRules[0].bars"),
    (("strategy", "exitRules", 1), {"type": "stop_loss", "value": 0.1}, INVALID, "is a second `stop_loss`"),
    # Sides.
    (("strategy", "side"), "buy", INVALID, "long, short, both"),
    (("strategy", "shortEntryRules"), [RULE], INVALID, 'goes with "side": "both"'),
    (("strategy", "shortExitRules"), [RULE], INVALID, 'goes with "side": "both"'),
    # Forms.
    (("strategy", "template"), "momentum", INVALID, "cannot stand beside", "strategy.entryRules"),
    (("strategy", "parameters"), {}, INVALID, "does not go with strategy.entryRules"),
    (("strategy",), {"shortEntryRules": [RULE]}, INVALID, "is missing", "strategy.entryRules"),
    (("strategy",), {"id": 999}, "INVALID_STRATEGY", "999 not found", "strategy.id"),
    (("strategy",), {"id": 1.5}, "INVALID_STRATEGY", "neither the id", "strategy.id"),
    (("strategy",), {"name": "sar_trend_rid"}, "INVALID_STRATEGY", "did you mean `sar_trend_ride`?", "strategy.name"),
    (("strategy",), {"name": "sar_trend_ride", "parameters": {}}, INVALID, "is for templates", "strategy.parameters"),
    (("strategy",), {"id": 26, "side": "short"}, INVALID, "trades long only", "strategy.side"),
    (
        ("strategy",),
        {"id": 7, "riskProfile": "LOW"},
        "INVALID_RISK_PROFILE",
        "did you mean `low`?",
        "strategy.riskProfile",
    ),
    (("strategy",), {"template": "martingale"}, "INVALID_STRATEGY", "momentum, mean_reversion", "strategy.template"),
    (
        ("strategy",),
        {"template": "momentum", "parameters": {"rsi": 2}},
        INVALID,
        "is no field",
        "strategy.parameters.rsi",
    ),
    (
        ("strategy",),
        {"template": "momentum", "parameters": {"rsiPeriod": 1}},
        INVALID,
        "2 or more and 5000 or less",
        "strategy.parameters.rsiPeriod",
    ),
    (
        ("strategy",),
        {"template": "trend_following", "parameters": {"fastPeriod": 60}},
        INVALID,
        "fastPeriod must be below slowPeriod",
        "strategy.parameters",
    ),
    (("strategy",), {"template": "grid", "side": "both"}, INVALID, "does not go with", "strategy.side"),
    (("strategy",), {"template": "dca", "exitRules": [RULE]}, INVALID, "no indicators", "strategy.exitRules"),
    # Sizing and entry orders.
    (("backtest", "sizing"), "all_in", INVALID, "fixed, fixed_fractional, kelly", "backtest.sizing.type"),
    (("backtest", "sizing"), {"type": "fixed"}, INVALID, "exactly one of `quantity` and `notional`"),
    (("backtest", "sizing"), {"type": "kelly", "fraction": 2}, INVALID, "1 or less", "backtest.sizing.fraction"),
    (("backtest", "sizing"), {"type": "kelly", "risk": 1}, INVALID, "is no field", "backtest.sizing.risk"),
    (("strategy", "entryOrder"), "iceberg", INVALID, "market", "strategy.entryOrder.type"),
    (("strategy", "entryOrder"), {"type": "stop"}, INVALID, "is missing", "strategy.entryOrder.offset"),
    (("strategy", "entryOrder"), {"offset": 0.1}, INVALID, "has no price", "strategy.entryOrder.offset"),
    (
        ("strategy", "entryOrder"),
        {"type": "limit", "timeInForce": "GTD"},
        INVALID,
        "goes with",
        "strategy.entryOrder.goodForBars",
    ),
    (("strategy", "entryOrder"), {"postOnly": True}, INVALID, "limit orders", "strategy.entryOrder.postOnly"),
    (("strategy", "entryOrder"), {"postOnly": "yes"}, INVALID, "not true or false", "strategy.entryOrder.postOnly"),
    (("strategy", "sizing"), {"type": None}, INVALID, "fixed, fixed_fractional", "strategy.sizing.type"),
    # Validation.
    (("validation", "windowSize"), 0, INVALID, "1 or more"),
    (("validation", "stepSize"), 0, INVALID, "1 or more"),
    (("validation", "walkForward"), "true", INVALID, "not true or false"),
    (("validation", "monteCarlo", "confidenceLevel"), 1, INVALID, "below 1"),
    (("validation", "monteCarlo", "runs"), 1, INVALID, "is no field"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: f"{written(case[0])}={str(case[1])[:40]}")
def test_a_wrong_field_is_refused_by_its_path(bars, case):
    path, value, code, words, *named = case
    error = refusal(bars, changed(NESTED, path, value))
    field = named[0] if named else written(path)
    assert error.code == code, error.message
    assert error.details["field"] == field, error.message
    assert words in error.message
    assert error.message.startswith(field)
    assert isinstance(error, InvalidRequest | NotFound)


ORDER = {"time": "2023-01-01T10:00:00Z", "side": "buy", "type": "limit", "price": 100, "quantity": 1}


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"time": None}, "time", "is missing"),
        ({"time": "noon"}, "time", "is no time"),
        ({"time": "2022-12-31T00:00:00Z"}, "time", "outside of the backtest's dates"),
        ({"side": "long"}, "side", "buy, sell"),
        ({"side": None}, "side", "is missing: one of buy, sell"),
        ({"type": "iceberg"}, "type", "limit, market"),
        ({"quantity": 0}, "quantity", "above 0"),
        ({"notional": 5}, "notional", "cannot stand beside"),
        ({"price": None}, "price", "needs one"),
        ({"stopPrice": 90}, "stopPrice", "of no use to a limit order"),
        ({"type": "trailing_stop", "price": None}, "trail", "needs one"),
        ({"timeInForce": "DAY"}, "timeInForce", "FOK, GTC, GTD, IOC"),
        ({"timeInForce": "GTD"}, "expires", "goes with"),
        ({"timeInForce": "GTD", "expires": "2023-01-01T09:00:00Z"}, "expires", "after the order's time"),
        ({"postOnly": True, "timeInForce": "IOC"}, "postOnly", "limit orders"),
        ({"oco": -1}, "oco", "0 or more"),
        ({"symbol": "DOGE"}, "symbol", "not found"),
        ({"symbol": "X"}, "symbol", "none of backtest.symbols"),
        ({"stopLoss": 2}, "stopLoss", "below 1"),
        ({"trailingStop": {"distance": 0.1, "start": 1}}, "trailingStop.start", "is no field"),
        ({"amount": 1}, "amount", "is no field"),
    ],
)
def test_a_wrong_field_of_an_order_is_refused(bars, fields, field, words):
    config = {
        "strategy": {"orders": [ORDER, ORDER | fields]},
        "backtest": {"symbols": ["BTC/USDT"], "startDate": "2023-01-01", "endDate": "2023-01-01"},
    }
    error = refusal(bars, config)
    assert error.details["field"] == f"strategy.orders[1].{field}"
    assert words in error.message


@pytest.mark.parametrize(
    ("path", "value", "code", "words"),
    [
        (("strategyId",), None, INVALID, "is missing"),
        (("strategyId",), "nothing", "INVALID_STRATEGY", "neither one of the registry nor"),
        (("symbols",), ["DOGE"], "INVALID_SYMBOL", "not found"),
        (("startTime",), None, INVALID, "is missing"),
        (("startTime",), "abc", "INVALID_DATE_RANGE", "is no time"),
        (("startTime",), 1672790400001, "INVALID_DATE_RANGE", "is not before"),
        (("initialCapital",), "-5", INVALID, "above 0"),
        (("commissionRate",), "1.5", INVALID, "1 or less"),
        (("slippageRate",), "2", INVALID, "1 or less"),
        (("useRealisticSlippage",), "true", INVALID, "not true or false"),
        (("enableMevProtection",), 1, INVALID, "not true or false"),
        (("blockDelayMs",), -1, INVALID, "0 or more"),
        (("stressTestMultiplier",), -1, INVALID, "0 or more"),
        (("monteCarloRuns",), 1.5, INVALID, "not a whole number"),
        (("monteCarloRuns",), -1, INVALID, "0 or more"),
        (("parameters", "takeProfitPercent"), -1, INVALID, "0 or more"),
        (("parameters", "stopLossPercent"), 100, INVALID, "below 100"),
        (("parameters", "maxPositions"), "two", INVALID, "not a whole number"),
        (("parameters", "maxPositionSize"), -1, INVALID, "above 0"),
        (("parameters", "takeProfit"), 1, INVALID, "did you mean `takeProfitPercent`?"),
        (("comission",), 1, INVALID, "is no field"),
        (("timeframe",), "3m", "INVALID_TIMEFRAME", "not one of"),
    ],
)
def test_a_wrong_field_of_the_flat_form_is_refused_by_its_own_name(bars, path, value, code, words):
    error = refusal(bars, changed(FLAT, path, value))
    named = written(path) + ("[0]" if path == ("symbols",) else "")
    assert (error.code, error.details["field"]) == (code, named), error.message
    assert words in error.message
    assert error.message.startswith(named)


@pytest.mark.parametrize("depth", [60, 100_000])
def test_conditions_that_nest_without_end_are_refused(bars, depth):
    rule = {"type": "gap_up"}
    for _ in range(depth):
        rule = {"type": "not_", "condition": rule}
    config = NESTED | {"strategy": {"entryRules": [rule]}}
    error = refusal(bars, config)
    assert error.details["field"] == "strategy.entryRules[0]"
    assert "nests deeper" in error.message


@pytest.mark.parametrize("config", [[], "x", 7, None, {}])
def test_what_is_no_configuration_is_refused(bars, config):
    assert refusal(bars, config).code == INVALID


def test_two_fields_that_say_the_same_are_refused(bars):
    for fields, second in [
        ({"commission": 0.1, "makerFee": 0.1}, "backtest.makerFee"),
        ({"slippageBps": 1, "slippage": {"bps": 2}}, "backtest.slippage"),
        ({"slippageBps": 1, "slippageModel": "none"}, "backtest.slippageBps"),
        ({"funding": "series", "fundingRate": 0.1}, "backtest.fundingRate"),
    ]:
        assert refusal(bars, {**NESTED, "backtest": {**NESTED["backtest"], **fields}}).details["field"] == second
    both = changed(changed(NESTED, ("strategy", "sizing"), "kelly"), ("backtest", "sizing"), "kelly")
    assert refusal(bars, both).details["field"] == "backtest.sizing"


def test_start_after_end_is_refused(bars):
    config = changed(changed(NESTED, ("backtest", "startDate"), "2023-01-02"), ("backtest", "endDate"), "2023-01-01")
    error = refusal(bars, config)
    assert (error.code, error.details["field"]) == ("INVALID_DATE_RANGE", "backtest.startDate")


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        ({"indicator": "close", "condition": "gt", "value": 50000}, "entryRules"),
        ({"indicator": "close", "condition": "gt", "value": "1.02 * sma_50"}, "entryRules"),
        ({"indicator": "close", "condition": "gt", "value": 50000}, "exitRules"),
        ({"type": "squeeze", "width_col": "rsi_14"}, "entryRules"),
    ],
)
def test_a_rule_without_a_mirror_image_asks_for_short_rules(bars, rule, name):
    config = changed(changed(NESTED, ("strategy", "side"), "both"), ("strategy", name), [rule])
    error = refusal(bars, config)
    assert error.details["field"] == f"strategy.{name}[0]"
    assert f"give short{name[0].upper()}{name[1:]}" in error.message


@pytest.mark.parametrize(
    ("assignment", "field", "words"),
    [
        ("backtest.comission=1", "backtest.comission", "did you mean `commission`?"),
        ("foo=1", "foo", "is no field"),
        ("backtest.commission.rate=1", "backtest.commission.rate", "has no fields"),
        ("backtest.symbols[3]=X", "backtest.symbols[3]", "cannot be set in a list of 1"),
        ("backtest.commission[0]=1", "backtest.commission[0]", "is no list"),
        ("strategy.entryRules.value=1", "strategy.entryRules.value", "is a list"),
        ("backtest.commission", "--set", "path=value"),
        ("=1", "--set", "path=value"),
        ("backtest..x=1", "--set", "path=value"),
        ("backtest.=1", "--set", "path=value"),
        ("backtest.symbols[a]=1", "--set", "path=value"),
    ],
)
def test_a_path_that_is_no_field_cannot_be_set(assignment, field, words):
    with pytest.raises(InvalidRequest) as caught:
        resolve_set(NESTED, assignment)
    assert caught.value.details == {"field": field}
    assert words in caught.value.message


def test_what_is_set_is_checked_when_it_is_read(bars):
    error = refusal(bars, resolve_set(NESTED, "backtest.commission=two"))
    assert error.details["field"] == "backtest.commission"
