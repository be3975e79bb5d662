"""Backtests over a real store: from a configuration to the result, wherever they run and however much there is."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from daemon.core.market import NS_PER_DAY, Bars, Timeframe
from daemon.core.ticks import Stream, ticks
from daemon.engine.synthetic import MarketModel, simulate
from daemon.research.backtest_config.read import read_config
from daemon.research.backtest_job import run_backtest
from daemon.research.backtest_records import BacktestJob
from daemon.research.strategies import RuleBook
from daemon.store import backtests as tables
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.instruments import parse_instrument

START_NS = 19_000 * NS_PER_DAY
STRATEGY = {
    "name": "dips",
    "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 35}],
    "exitRules": [{"type": "take_profit", "value": 0.01}, {"type": "stop_loss", "value": 0.01}],
}


def stored(env, key, bars, timeframe=Timeframe.MIN_1, volume_unit=None):
    store = BarStore(env)
    env.write(
        lambda transaction: store.merge(
            transaction, parse_instrument(key), timeframe, bars, replace=False, volume_unit=volume_unit
        )
    )
    return store


def minutes(count, seed=1):
    return simulate(MarketModel(), seed=seed, start_ns=START_NS, bars=count, timeframe=Timeframe.MIN_1)


def result_of(store, tmp_path, strategy=STRATEGY, **backtest):
    config = {"strategy": strategy, "backtest": {"initialCapital": 10_000} | backtest}
    spec = read_config(config, store, RuleBook([]))
    return run_backtest(store, BacktestJob("b", spec, str(tmp_path / "spool")), lambda _: None, lambda: None).result


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path / "data", StoreConfig(sync=False)) as env:
        yield env


def test_the_same_inputs_give_the_same_fingerprint_and_another_fee_another(env, tmp_path):
    store = stored(env, "x:A", minutes(5_000))
    first = result_of(store, tmp_path, symbols="A")
    assert first.trade_stats.total_trades > 5
    again = result_of(store, tmp_path, symbols="A")
    assert again.fingerprint == first.fingerprint
    renamed = result_of(store, tmp_path, STRATEGY | {"name": "other"}, symbols="A")
    assert renamed.fingerprint == first.fingerprint
    assert result_of(store, tmp_path, symbols="A", commission=0.002).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("almgren_chriss", "in 5 parts over one bar at risk aversion 250"),
        ("kyle", "half of 1 x daily volatility x order / daily volume"),
    ],
)
def test_models_of_impact_cost_and_are_named_among_the_assumptions(env, tmp_path, model, words):
    store = stored(env, "x:A", minutes(5_000))
    result = result_of(store, tmp_path, symbols="A", slippageModel=model)
    assert result.costs.slippage > 0
    assert any(each.startswith(f"slippage {model}: 1 bps + ") and words in each for each in result.assumptions)
    assert result.costs.model["slippage"]["model"] == model
    assert "slippageBySymbol" not in result.costs.model


@pytest.mark.parametrize("executor", ["threads", "processes"])
def test_every_executor_gives_the_same_fingerprint(cli, tmp_path, bars_files, executor):
    data = tmp_path / "data"
    path = bars_files["SYNB", "1Hour"]
    assert cli("import", "bars", path, "--symbol", "SYNB", "--timeframe", "1Hour", "--data-dir", data).returncode == 0
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"strategy": STRATEGY, "backtest": {"symbols": ["SYNB"]}}))
    done = cli("backtest", config, "--format", "json", "--executor", executor, "--data-dir", data)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    with Environment(data, StoreConfig(), readonly=True) as env:
        here = result_of(BarStore(env), tmp_path, symbols=["SYNB"])
    assert found["fingerprint"] == here.fingerprint


def test_a_volume_in_quote_currency_makes_an_order_a_share_of_it(env, tmp_path):
    bars = minutes(3_000)
    # 1.25 million a minute: an order of 10,000 is 0.8 % of it.
    quoted = Bars(*bars[:5], np.full(bars.size, 1_250_000.0))
    store = stored(env, "x:Q", quoted, volume_unit="quote")
    job = BacktestJob(
        "b", read_config({"strategy": STRATEGY, "backtest": {"symbols": "Q"}}, store, RuleBook([])), str(tmp_path / "s")
    )
    outcome = run_backtest(store, job, lambda _: None, lambda: None)
    env.write(lambda transaction: tables.put(transaction, "b", outcome.parts, tmp_path / "s"))
    with env.read() as transaction:
        fills = next(tables.read(transaction, "b", "fills"))
    first = fills["participation"][0]
    assert 0.0075 < first < 0.0085
    assert outcome.result.data[0].volume_unit == "quote"


def test_cash_fees_and_slippage_add_up_to_the_profit(env, tmp_path):
    result = result_of(stored(env, "x:A", minutes(5_000)), tmp_path, symbols="A")
    costs = result.costs
    assert costs.net_pnl == pytest.approx(sum(trade.pnl for trade in result.trades), abs=1e-6)
    assert costs.gross_pnl - costs.fees - costs.slippage + costs.funding == pytest.approx(costs.net_pnl, abs=1e-6)
    assert result.metrics.total_return == pytest.approx(costs.net_pnl)
    assert result.equity_curve[-1].equity == pytest.approx(10_000 + costs.net_pnl)


def test_profit_that_comes_from_a_jump_over_missing_bars_is_told(env, tmp_path):
    bars = minutes(3_000)
    kept = np.ones(bars.size, dtype=bool)
    kept[1_000:1_500] = False
    # The market reopens a tenth higher.
    columns = [np.where(np.arange(bars.size) >= 1_500, column * 1.1, column) for column in bars[1:5]]
    holey = Bars(*(column[kept] for column in (bars.start_ns, *columns, bars.volume)))
    store = stored(env, "x:A", holey)
    always = {"name": "hold", "entryRules": [{"indicator": "close", "condition": "gt", "value": 0}]}
    result = result_of(store, tmp_path, always, symbols="A")
    assert result.gaps.missing_intervals == 500
    assert result.gaps.crossed_with_position == 1
    assert 500 < result.gaps.pnl < 1_500
    assert [trade.crossed_gap for trade in result.trades] == [True]
    assert any(event.type == "gap_crossed" for event in result.events)


def test_a_series_of_three_bars_without_volume_is_an_honest_nothing(env, tmp_path):
    bars = minutes(3)
    store = stored(env, "x:A", Bars(*bars[:5], np.zeros(3)))
    result = result_of(store, tmp_path, symbols="A")
    assert result.trade_stats.total_trades == 0
    assert any("no volume" in note for note in result.notes)
    assert any("no trade was made" in note for note in result.notes)


def test_fills_on_trades_agree_with_the_bars_made_from_them_where_nothing_happens_inside(env, tmp_path):
    rng = np.random.default_rng(3)
    count = 40_000
    price = 100_000 + np.cumsum(rng.integers(-15, 16, count))
    rows = ticks(
        Stream.TRADES,
        price_decimals=2,
        size_decimals=0,
        time_ns=START_NS + np.cumsum(rng.integers(1, 400, count)) * 10_000_000,
        id=np.arange(count),
        price=price,
        size=np.full(count, 1_000),
    )
    store = BarStore(env)
    with BulkWriter(store.ticks, parse_instrument("x:T"), Stream.TRADES) as writer:
        writer.add(rows)
        writer.finish()
    rule = {
        "name": "signals",
        "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 35}],
        "exitRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 60}],
    }
    free = {"symbols": "T", "timeframe": "1m", "slippageModel": "none", "commission": 0}
    on_bars = result_of(store, tmp_path, rule, **free)
    on_ticks = result_of(store, tmp_path, rule, fills="ticks", **free)
    assert on_bars.trade_stats.total_trades > 5
    assert on_ticks.band is None
    prices = [[(t.entry_price, t.exit_price, t.quantity) for t in each.trades] for each in (on_bars, on_ticks)]
    # A signal at a close fills at the next open, which is the next trade.
    assert prices[0] == prices[1]


def test_a_grid_sells_what_it_bought_a_step_higher_and_never_more(env, tmp_path):
    # Down five steps of 1 % of the first close, and back up beyond it, twice.
    leg = np.concatenate([np.linspace(100.0, 94.9, 40), np.linspace(94.9, 101.0, 40)])
    close = np.concatenate([[100.0], leg, leg])
    opened = np.concatenate([[100.0], close[:-1]])
    bars = Bars(
        START_NS + np.arange(close.size) * Timeframe.MIN_1.ns,
        opened,
        np.maximum(opened, close),
        np.minimum(opened, close),
        close,
        np.full(close.size, 1e6),
    )
    grid = {"template": "grid", "parameters": {"levels": 5, "step": 0.01}}
    result = result_of(stored(env, "x:G", bars), tmp_path, grid, symbols="G", commission=0, slippageModel="none")
    assert [trade.exit_reason for trade in result.trades] == ["take_profit"] * 10
    assert all(trade.side == "long" for trade in result.trades)
    assert sorted({round(trade.exit_price, 9) for trade in result.trades}) == [96.0, 97.0, 98.0, 99.0, 100.0]
    # Each level's 2,000 gain a step of 1 on 95 to 99, both times.
    assert result.metrics.total_return == pytest.approx(2 * sum(2_000 / level for level in range(95, 100)))


MEASURE = """
import sys
from pathlib import Path
from daemon.app.bench import own_peak_bytes
from daemon.research.backtest_config.read import read_config
from daemon.research.backtest_job import run_backtest
from daemon.research.backtest_records import BacktestJob
from daemon.research.strategies import RuleBook
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
folder, symbol = sys.argv[1:]
with Environment(Path(folder), StoreConfig(), readonly=True) as env:
    store = BarStore(env)
    config = {
        "strategy": {"name": "x", "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 35}],
                     "exitRules": [{"type": "stop_loss", "value": 0.002}]},
        "backtest": {"symbols": [symbol], "timeframe": "1m", "fills": "ticks", "slippageModel": "none"},
    }
    job = BacktestJob("b", read_config(config, store, RuleBook([])), folder + "/spool")
    events = run_backtest(store, job, lambda _: None, lambda: None).result.execution.events_processed
print(events, own_peak_bytes())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process alone")
def test_ten_times_the_trades_take_no_more_memory(env):
    store = BarStore(env)
    told = {}
    for symbol, count in (("FEW", 300_000), ("MANY", 3_000_000)):
        rng = np.random.default_rng(5)
        # In the same stretch of time: what grows is the trades alone.
        time_ns = START_NS + np.sort(rng.integers(0, NS_PER_DAY, count))
        rows = ticks(
            Stream.TRADES,
            price_decimals=2,
            size_decimals=3,
            time_ns=time_ns,
            id=np.arange(count),
            price=6_000_000 + np.cumsum(rng.integers(-20, 21, count)),
            size=rng.integers(1, 1_000, count),
        )
        with BulkWriter(store.ticks, parse_instrument(f"x:{symbol}"), Stream.TRADES) as writer:
            writer.add(rows)
            writer.finish()
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, str(env.path.parent), symbol], capture_output=True, text=True, check=True
        )
        told[symbol] = [int(word) for word in done.stdout.split()]
    assert told["MANY"][0] > 9 * told["FEW"][0]
    # What a child inherits of its parent's peak is left out: getrusage would count it.
    assert told["MANY"][1] < 1.15 * told["FEW"][1], told
