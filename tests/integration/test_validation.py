"""Backtests with their validation over a real store: what is chosen sees no future, what looks ahead is caught."""

import math
import threading

import msgspec
import numpy as np
import pytest

from daemon.core.errors import AtlasError, Code, JobFailed
from daemon.core.market import NS_PER_DAY, Bars, Timeframe
from daemon.core.ticks import Stream, ticks
from daemon.engine import indicators
from daemon.engine.synthetic import MarketModel, simulate
from daemon.research import trials
from daemon.research.backtest_config.read import read_config
from daemon.research.backtest_job import run_backtest
from daemon.research.backtest_records import BacktestJob
from daemon.research.strategies import RuleBook
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from daemon.store.instruments import parse_instrument

START_NS = 19_000 * NS_PER_DAY
DIPS = {
    "name": "dips",
    "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 35}],
    "exitRules": [{"type": "take_profit", "value": 0.02}, {"type": "stop_loss", "value": 0.02}],
}
APP_FIELDS = {
    "runs", "medianReturn", "meanReturn", "stdReturn", "percentile5", "percentile25", "percentile75", "percentile95",
    "medianDrawdown", "percentile95Drawdown", "probabilityOfProfit", "probabilityOfRuin", "probabilityOf2xReturn",
    "returnConfidenceInterval", "samplePaths",
}  # fmt: skip
WALK = {"walkForward": True, "windowSize": 10, "stepSize": 5}


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path / "data", StoreConfig(sync=False)) as env:
        yield env


def hours(count, seed=1):
    return simulate(MarketModel(), seed=seed, start_ns=START_NS, bars=count, timeframe=Timeframe.HOUR_1)


def stored(env, bars, timeframe=Timeframe.HOUR_1):
    store = BarStore(env)
    env.write(lambda transaction: store.merge(transaction, parse_instrument("x:A"), timeframe, bars, replace=False))
    return store


def outcome_of(store, tmp_path, *, checkpoint=lambda: None, strategy=DIPS, validation=None, **backtest):
    config = {"strategy": strategy, "backtest": {"symbols": "A"} | backtest}
    config |= {"validation": validation} if validation else {}
    spec = read_config(config, store, RuleBook([]))
    job = BacktestJob("b", spec, str(tmp_path / "spool"), config)
    return run_backtest(store, job, lambda _: None, checkpoint)


def result_of(*given, **options):
    return outcome_of(*given, **options).result


def counted(store, outcome):
    return store.ticks.env.write(lambda transaction: trials.record(transaction, [outcome.trial]))


def test_every_result_has_a_verdict_with_reasons_and_figures(env, tmp_path):
    verdict = result_of(stored(env, hours(120 * 24)), tmp_path).verdict
    assert verdict.verdict in ("robust", "doubtful", "overfitted")
    assert 1 <= len(verdict.reasons) <= 3
    assert "1 try" in next(each.words for each in verdict.checks if each.name == "luck")
    assert verdict.trials == 1
    assert verdict.would_change


def test_a_walk_forward_finds_its_folds_and_stitches_their_tests(env, tmp_path):
    result = result_of(stored(env, hours(40 * 24)), tmp_path, validation=WALK)
    walked = result.walk_forward
    assert [(each.train_start, each.test_start, each.test_end) for each in walked.folds[:2]] == [
        (START_NS // 10**6 + day * 86_400_000, START_NS // 10**6 + (day + 10) * 86_400_000,
         START_NS // 10**6 + (day + 15) * 86_400_000)
        for day in (0, 5)
    ]  # fmt: skip
    assert len(walked.folds) == 6
    assert walked.parameter_sets == 27
    growth = math.prod(1 + each.out_of_sample_return_percent / 100 for each in walked.folds)
    assert walked.out_of_sample_return_percent == pytest.approx(100 * (growth - 1))
    assert walked.equity[-1].equity == pytest.approx(10_000 * growth)
    assert walked.out_of_sample_days == 30
    assert {each.name for each in walked.parameter_stability} == {"take_profit", "stop_loss", "indicator_length"}


def test_the_choice_of_a_fold_does_not_see_its_test(env, tmp_path):
    """Change every bar of a test: its training chooses the same, whatever would have been best in the test."""
    bars = hours(20 * 24)
    asked = {"walkForward": True, "windowSize": 14, "stepSize": 3}
    first = result_of(stored(env, bars), tmp_path, validation=asked).walk_forward.folds[0]
    # From the first test on each hour climbs by a hundredth: the widest target would be the best by far.
    at = 14 * 24
    climb = np.concatenate((np.ones(at), np.cumprod(np.full(bars.size - at, 1.01))))
    other = Bars(bars.start_ns, *(column * climb for column in bars[1:5]), bars.volume)
    with Environment(tmp_path / "other", StoreConfig(sync=False)) as changed:
        again = result_of(stored(changed, other), tmp_path, validation=asked).walk_forward.folds[0]
    assert again.parameters == first.parameters
    assert again.in_sample_return_percent == first.in_sample_return_percent
    assert again.configured_return_percent != first.configured_return_percent


def test_too_little_data_for_two_folds_is_a_verdict_not_an_error(env, tmp_path):
    result = result_of(stored(env, hours(25 * 24)), tmp_path, validation=WALK | {"windowSize": 100})
    assert result.verdict.verdict == "insufficient data"
    assert result.walk_forward.folds == []
    assert "room for 0 folds of 100 days" in result.walk_forward.note
    assert any("room for 0 folds" in each for each in result.verdict.reasons)


@pytest.mark.parametrize(
    ("bars", "strategy"),
    [
        (30 * 24, DIPS | {"entryRules": [{"indicator": "close", "condition": "lt", "value": 0}]}),
        (30 * 24, DIPS | {"entryRules": [{"indicator": "close", "condition": "gt", "value": 0}], "exitRules": []}),
        (3, DIPS),
    ],
    ids=["no trade and no variance", "one trade", "three bars"],
)
def test_too_little_to_judge_by_is_said_with_figures(env, tmp_path, bars, strategy):
    asked = {"monteCarlo": {"enabled": True}, "sensitivity": True}
    result = result_of(stored(env, hours(bars)), tmp_path, strategy=strategy, validation=asked)
    assert result.verdict.verdict == "insufficient data"
    assert any("at least 20" in each for each in result.verdict.reasons)
    assert (result.monte_carlo is None) == (result.trade_stats.total_trades == 0)


def test_a_target_that_is_undefined_leaves_the_parameters_as_they_are(env, tmp_path):
    never = DIPS | {"entryRules": [{"indicator": "close", "condition": "lt", "value": 0}]}
    walked = result_of(stored(env, hours(30 * 24)), tmp_path, strategy=never, validation=WALK).walk_forward
    assert all(each.parameters == {} and each.in_sample_score is None for each in walked.folds)
    assert walked.parameter_stability == []
    assert "no sharpe" in walked.note


def test_parameters_of_the_users_own_are_what_is_tried(env, tmp_path):
    own = {"take_profit": "0.01:0.03:0.01", "strategy.entryRules[0].value": [30, 40]}
    walked = result_of(stored(env, hours(30 * 24)), tmp_path, validation=WALK | {"parameters": own}).walk_forward
    assert walked.parameter_sets == 6
    assert set(walked.folds[0].parameters) == set(own)


def test_each_set_is_trained_and_tested_on_what_it_would_read_itself(env, tmp_path):
    """Of funding that longs pay and funding that they are paid, every fold takes the latter, and earns it."""
    store, paying = stored(env, hours(30 * 24)), {"funding": "constant", "fundingRate": 0.01}
    own = {"backtest.fundingRate": [0.01, -0.01]}
    walked = result_of(store, tmp_path, validation=WALK | {"parameters": own}, **paying).walk_forward
    assert [each.parameters for each in walked.folds] == [{"backtest.fundingRate": -0.01}] * 4
    assert walked.out_of_sample_return_percent > walked.configured_return_percent
    paid = paying | {"fundingRate": -0.01}
    alone = result_of(store, tmp_path, validation=WALK | {"parameters": {"stop_loss": [0.02]}}, **paid).walk_forward
    assert walked.out_of_sample_return_percent == alone.out_of_sample_return_percent


@pytest.mark.parametrize(
    "parameters",
    [
        {"no_such": [1]},
        {"take_profit": "5:1:1"},
        {"take_profit": "0:1"},
        {},
        [1],
        {"strategy.entryRules[9].value": [1]},
    ],
)
def test_parameters_that_are_none_are_refused(env, tmp_path, parameters):
    with pytest.raises(AtlasError) as caught:
        result_of(stored(env, hours(30 * 24)), tmp_path, validation=WALK | {"parameters": parameters})
    assert caught.value.code in (Code.INVALID_PARAMETER, Code.INVALID_CONFIGURATION)


@pytest.mark.parametrize("field", ["windowSize", "stepSize"])
def test_a_window_of_nothing_is_refused_with_its_field(env, field):
    config = {"strategy": DIPS, "backtest": {"symbols": "A"}, "validation": WALK | {field: 0}}
    with pytest.raises(AtlasError) as caught:
        read_config(config, stored(env, hours(48)), RuleBook([]))
    assert caught.value.details["field"] == f"validation.{field}"


def test_the_ledger_counts_a_rerun_once_and_another_parameter_as_a_try(env, tmp_path):
    store = stored(env, hours(40 * 24))
    first = outcome_of(store, tmp_path)
    assert counted(store, first) == 1
    again = outcome_of(store, tmp_path, validation={"monteCarlo": {"enabled": True}})
    assert again.result.fingerprint == first.result.fingerprint
    assert again.result.verdict.trials == 1
    assert counted(store, again) == 0
    tweaked = DIPS | {"entryRules": [{"indicator": "rsi", "period": 9, "condition": "crosses_above", "value": 25}]}
    other = outcome_of(store, tmp_path, strategy=tweaked)
    assert other.result.verdict.trials == 2
    assert "2 tries" in next(each.words for each in other.result.verdict.checks if each.name == "luck")
    assert other.result.verdict.chance_sharpe > 0
    assert counted(store, other) == 1


def test_a_strategy_that_looks_ahead_fails_and_its_first_order_is_named(env, tmp_path, monkeypatch):
    def tomorrow(columns):
        return (np.append(columns["close"][24:], np.full(24, columns["close"][-1])),)

    monkeypatch.setitem(indicators._GROUPS, "obv", tomorrow)  # noqa: SLF001
    peeks = DIPS | {"entryRules": [{"indicator": "obv", "condition": "gt", "value": "close"}]}
    with pytest.raises(JobFailed, match="dips looks ahead: the signal of x:A at 20") as caught:
        result_of(stored(env, hours(30 * 24)), tmp_path, strategy=peeks)
    assert caught.value.code is Code.LOOK_AHEAD


def test_only_a_new_idea_is_checked_for_looking_ahead(env, tmp_path):
    store = stored(env, hours(40 * 24))
    first = outcome_of(store, tmp_path)
    assert first.result.look_ahead.is_checked
    assert len(first.result.look_ahead.cuts) == 3
    counted(store, first)
    assert result_of(store, tmp_path).look_ahead is None


def test_the_simulation_has_all_fields_of_the_app(env, tmp_path):
    asked = {"monteCarlo": {"enabled": True, "iterations": 200, "confidenceLevel": 0.9}}
    found = msgspec.to_builtins(result_of(stored(env, hours(60 * 24)), tmp_path, validation=asked).monte_carlo)
    assert set(found) >= APP_FIELDS
    assert found["runs"] == 200
    assert set(found["returnConfidenceInterval"]) == {"lower", "upper", "confidence"}
    assert [each["method"] for each in found["methods"]] == ["bootstrap", "shuffle", "missed", "noise"]


def test_sensitivity_shows_that_costs_cost(env, tmp_path):
    rows = result_of(stored(env, hours(60 * 24)), tmp_path, validation={"sensitivity": True}).sensitivity
    assert [each.kind for each in rows] == ["costs", "base", "costs", "costs", "delay", "start", "start"]
    returns = [each.total_return_percent for each in rows[:4]]
    assert returns == sorted(returns, reverse=True)


def test_rules_over_ticks_are_validated_on_their_bars_and_that_is_said(env, tmp_path):
    bars = hours(60 * 24)
    times = (bars.start_ns[:, None] + Timeframe.MIN_1.ns * np.arange(4)).ravel()
    prices = np.round(np.column_stack([bars.open, bars.low, bars.high, bars.close]).ravel(), 2)
    store = BarStore(env)
    rows = ticks(Stream.TRADES, time_ns=times, id=np.arange(times.size), price=prices, size=np.ones(times.size))
    env.write(lambda transaction: store.ticks.append(transaction, parse_instrument("x:A"), rows))
    asked = {"validation": WALK | {"sensitivity": True}, "timeframe": "1h", "limitFills": "through"}
    over_ticks, over_bars = (result_of(store, tmp_path, fills=fills, **asked) for fills in ("ticks", "bars"))
    assert min(each.total_trades for each in over_ticks.sensitivity) > 0
    assert over_ticks.sensitivity == over_bars.sensitivity
    assert over_ticks.walk_forward == over_bars.walk_forward
    assert over_ticks.overfitting == over_bars.overfitting
    said = "the configuration asks for fills against ticks: rules were run on bars, pessimistically"
    assert f"walk-forward and sensitivity: {said}" in over_ticks.verdict.assumptions
    assert not any("rules were run on bars" in each for each in over_bars.verdict.assumptions)
    asked["validation"] = {"sensitivity": True}
    assert f"sensitivity: {said}" in result_of(store, tmp_path, fills="ticks", **asked).verdict.assumptions


def test_the_choice_among_sets_is_cross_validated(env, tmp_path):
    found = result_of(stored(env, hours(70 * 24)), tmp_path, validation=WALK).overfitting
    assert (found.parameter_sets, found.days, found.blocks, found.splits) == (27, 70, 16, 12_870)
    assert 0 <= found.pbo_lowest <= found.pbo <= found.pbo_highest <= 1
    assert sum(found.logit_counts) == found.splits
    assert 0 < found.spa_p <= 1


def test_a_cancelled_walk_forward_ends_at_a_checkpoint(env, tmp_path):
    calls = threading.local()

    def cancelled():
        calls.count = getattr(calls, "count", 0) + 1
        if calls.count > 25:
            raise JobFailed(Code.CANCELLED, "it was cancelled")

    with pytest.raises(JobFailed, match="cancelled"):
        outcome_of(stored(env, hours(200 * 24)), tmp_path, validation=WALK, checkpoint=cancelled)
    assert not (tmp_path / "spool").exists()
