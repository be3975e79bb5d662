"""Backtests against a stored book: what is wrong with a recording is told; what runs them often runs the same."""

import numpy as np
import pytest

from daemon.core.errors import AtlasError
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream, ticks
from daemon.engine.latency import MeasuredLatency
from daemon.research.backtest_job import run_backtest
from daemon.research.backtest_records import BacktestJob
from daemon.research.optimization.records import OptimizationJob
from daemon.research.optimization.request import OptimizationRequest, planned
from daemon.research.optimization.search import optimize
from daemon.research.own.folder import StrategyFolder
from daemon.research.parameters import read_specification
from daemon.research.strategies import RuleBook
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.instruments import parse_instrument

START_NS = 19_000 * NS_PER_DAY
A = parse_instrument("x:A")
SNAPSHOT, GAP = int(DepthFlag.SNAPSHOT), int(DepthFlag.AFTER_GAP)
BUYS_AT_TWO = """from daemon.research import BUY, Parameter, Strategy


class Buyer(Strategy):
    every_ms = 1_000
    size = Parameter(3.0, low=1.0, high=5.0, step=2.0)
    calls = 0

    def on_timer(self, context):
        self.calls += 1
        if self.calls == 2:
            context.submit(BUY, self.size)
"""
# Of a run's bars it counts those to come as well.
PEEKS = """from daemon.research import BUY, Strategy


class Buyer(Strategy):
    calls = 0

    def on_trade(self, context, trade):
        self.calls += 1
        if self.calls == 2:
            context.submit(BUY, 0.1 * context[7].shape[1])
"""


@pytest.fixture
def store(tmp_path):
    with Environment(tmp_path / "data", StoreConfig(sync=False)) as env:
        yield BarStore(env)


UNITS = {"price_decimals": 1, "size_decimals": 1}


def put(store, depth):
    """Store a trade a second at 100 for ten seconds, and rows of depth."""
    seconds = np.arange(10)
    traded = {"id": seconds, "price": [1000] * 10, "size": [10] * 10, "side": [BUY] * 10}
    times = START_NS + seconds * NS_PER_SECOND
    put_rows(store, ticks(Stream.TRADES, time_ns=times, **traded, **UNITS))
    put_depth(store, depth)


def put_depth(store, depth):
    """Store rows of depth (second, id, side, price, size, flags)."""
    second, number, side, price, size, flags = (list(column) for column in zip(*depth, strict=True))
    changed = {"id": number, "side": side, "price": price, "size": size, "flags": flags}
    times = START_NS + (np.array(second) * NS_PER_SECOND).astype(np.int64)
    put_rows(store, ticks(Stream.DEPTH, time_ns=times, **changed, **UNITS))


def put_rows(store, rows):
    with BulkWriter(store.ticks, A, rows.stream) as writer:
        writer.add(rows)
        writer.finish()


def config_of(book, source=BUYS_AT_TWO, **fields):
    strategy = {"own": book.own.keep_source("buyer", source.encode())}
    backtest = {"symbols": "A", "timeframe": "1s", "fills": "book", "commission": 0}
    return {"strategy": strategy, "backtest": backtest} | fields


@pytest.fixture
def book(tmp_path):
    return RuleBook((), StrategyFolder(tmp_path / "strategies"))


@pytest.fixture
def run(store, tmp_path, book):
    """Run a strategy, and return the result."""

    def made(source=BUYS_AT_TWO, **fields):
        config = config_of(book, source, **fields)
        job = BacktestJob("b", read_specification(config, store, book, {}), str(tmp_path / "spool"), config)
        return run_backtest(store, job, lambda _: None, lambda: None, book).result

    return made


def whole(second, number):
    """Return a snapshot: 1 and 9 offered at 100.1 and 100.3, as much bid below."""
    levels = ((SELL, 1001, 10), (SELL, 1003, 90), (BUY, 999, 10), (BUY, 997, 90))
    return [(second, number, *level, SNAPSHOT) for level in levels]


def first_trade(result):
    return next((each for each in result.trades), None)


def test_a_market_order_walks_the_stored_levels(store, run):
    put(store, [(0.1, 1, SELL, 1005, 10, 0), *whole(0.2, 2), (8.5, 3, BUY, 998, 10, 0)])
    result = run()
    assert first_trade(result).entry_price == pytest.approx((100.1 + 2 * 100.3) / 3)
    assert any("1 rows before the first snapshot" in note for note in result.notes)
    assert any("queues" in each for each in result.assumptions)


def test_an_order_that_fills_whole_or_not_at_all_needs_money_for_the_levels_it_takes_and_no_more(store, run):
    put(store, [*whole(0.2, 1), (0.3, 2, SELL, 90_000, 10, 0), (8.5, 3, BUY, 998, 10, 0)])
    source = BUYS_AT_TWO.replace("import BUY", "import BUY, FOK").replace("self.size", "self.size, force=FOK")
    config = {"symbols": "A", "timeframe": "1s", "fills": "book", "commission": 0, "initialCapital": 400}
    assert first_trade(run(source, backtest=config)).quantity == 3


RULES = {"entryRules": [{"indicator": "close", "condition": "gt", "value": 0}]}
LISTED = {"orders": [{"time": START_NS // 10**6 + 1_000, "side": "buy", "quantity": 1}]}


@pytest.mark.parametrize(("strategy", "parts"), [(RULES, 2), (LISTED, 1)])
def test_orders_of_rules_and_lists_travel_for_as_long_as_is_drawn_or_measured(store, run, strategy, parts):
    put(store, [*whole(0.2, 1), (8.5, 3, BUY, 998, 10, 0)])
    drawn = {"feed": {"least": 200, "most": 300}, "order": {"least": 200, "most": 300}}
    backtest = {"symbols": "A", "timeframe": "1s", "fills": "book", "commission": 0, "latencyMs": drawn}
    bought = first_trade(run(strategy=strategy, backtest=backtest))
    assert 200 * parts < bought.entry_time - START_NS // 10**6 - 1_000 < 300 * parts


def test_a_book_that_never_had_a_snapshot_is_refused(store, run):
    put(store, [(0.1, 1, SELL, 1005, 10, 0), (2.0, 2, BUY, 998, 10, 0)])
    with pytest.raises(AtlasError, match="no snapshot is stored there or before") as refused:
        run()
    assert refused.value.code == "NO_DEPTH"


def test_after_lost_events_an_order_waits_for_the_next_snapshot(store, run):
    put(store, [*whole(0.2, 1), (0.9, 2, SELL, 1001, 10, GAP), *whole(5.0, 3), (8.5, 4, BUY, 998, 10, 0)])
    result = run()
    entry_ms = (START_NS + 5 * NS_PER_SECOND) // 1_000_000
    assert first_trade(result).entry_time == entry_ms
    assert any("1 times events were lost" in note for note in result.notes)


def test_while_a_book_is_crossed_nothing_is_taken(store, run):
    crossed = (0.9, 2, BUY, 1002, 10, 0)
    put(store, [*whole(0.2, 1), crossed, (4.0, 3, BUY, 1002, 0, 0), (8.5, 4, SELL, 1009, -5, 0)])
    result = run()
    assert first_trade(result).entry_time == (START_NS + 4 * NS_PER_SECOND) // 1_000_000
    assert any("crossed after 1 of" in note for note in result.notes)
    assert any("1 rows had a size below 0" in note for note in result.notes)


def test_other_costs_and_later_orders_meet_the_same_book(store, run):
    put(store, [*whole(0.2, 1), (8.5, 2, SELL, 1009, 10, 0)])
    result = run(validation={"sensitivity": True})
    rows = {each.label: each for each in result.sensitivity}
    assert rows["costs x 1"].total_return_percent == pytest.approx(result.metrics.total_return_percent, rel=1e-9)
    assert {each.total_trades for each in rows.values()} == {1}


def test_points_of_an_optimisation_are_backtests_against_the_book(store, run, book):
    put(store, [*whole(0.2, 1), (8.5, 2, SELL, 1009, 10, 0)])
    asked = OptimizationRequest(config=config_of(book), parameters=["size=1:5:2"], target="return")
    plan = planned(asked, store, book, {})
    found = optimize(store, OptimizationJob("o", plan, {}), lambda _: None, lambda: None, book)
    returns = {each.parameters["size"]: each.total_return_percent for each in found.top}
    assert sorted(returns) == [1.0, 3.0, 5.0]
    for size, percent in returns.items():
        alone = run(point={"size": size})
        assert percent == pytest.approx(alone.metrics.total_return_percent, rel=1e-9)
    assert found.verdict.assumptions[0] == "points run against the book, with the costs of the configuration"


def test_stored_points_are_tried_again_where_the_book_is_another(store, book):
    put(store, whole(0.2, 1))
    plan = planned(OptimizationRequest(config=config_of(book), target="return"), store, book, {})
    told = []
    optimize(store, OptimizationJob("o", plan, {}), told.append, lambda: None, book)
    put_depth(store, [(9.0, 2, SELL, 1009, 10, 0)])
    optimize(store, OptimizationJob("o", plan, {}), told.append, lambda: None, book)
    assert len({each.rows.digest for each in told if each.rows is not None}) == 2


def test_stored_points_are_tried_again_where_another_latency_was_measured(store, book, monkeypatch):
    put(store, whole(0.2, 1))
    monkeypatch.setattr("daemon.research.backtest_config.latency._check_series", lambda *_: None)
    latency = {"feed": "measured", "order": 0}
    config = config_of(book)
    config["backtest"] |= {"latencyMs": latency}
    plan = planned(OptimizationRequest(config=config, target="return"), store, book, {})
    told = []
    for delay_ns in (1_000_000, 2_000_000):
        series = MeasuredLatency(np.array([START_NS]), np.array([delay_ns]))
        monkeypatch.setattr("daemon.research.backtest_feeds.measured_latency", lambda *_, series=series: series)
        optimize(store, OptimizationJob("o", plan, {}), told.append, lambda: None, book)
    assert len({each.rows.digest for each in told if each.rows is not None}) == 2


def test_an_optimisation_against_a_book_that_never_had_a_snapshot_is_refused(store, book):
    put(store, [(0.1, 1, SELL, 1005, 10, 0), (2.0, 2, BUY, 998, 10, 0)])
    plan = planned(OptimizationRequest(config=config_of(book), target="return"), store, book, {})
    with pytest.raises(AtlasError, match="no snapshot is stored there or before") as refused:
        optimize(store, OptimizationJob("o", plan, {}), lambda _: None, lambda: None, book)
    assert refused.value.code == "NO_DEPTH"


def test_a_strategy_that_looks_ahead_at_trades_is_found_out(store, run):
    put(store, whole(0.2, 1))
    assert run().look_ahead.words == "the same orders on a beginning of the data as on all of them"
    with pytest.raises(AtlasError, match=r"looks ahead .*: order 1 \(buy 1 x:A") as failed:
        run(PEEKS)
    assert failed.value.code == "LOOK_AHEAD"
