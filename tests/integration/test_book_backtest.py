"""Backtests against a stored book: what is wrong with a recording is refused, or told with the result."""

import numpy as np
import pytest

from daemon.core.errors import AtlasError
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream, ticks
from daemon.research.backtest_config.read import read_config
from daemon.research.backtest_job import run_backtest
from daemon.research.backtest_records import BacktestJob
from daemon.research.own.folder import StrategyFolder
from daemon.research.strategies import RuleBook
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.instruments import parse_instrument

START_NS = 19_000 * NS_PER_DAY
A = parse_instrument("x:A")
SNAPSHOT, GAP = int(DepthFlag.SNAPSHOT), int(DepthFlag.AFTER_GAP)
BUYS_AT_TWO = """from daemon.research import BUY, Strategy


class Buyer(Strategy):
    every_ms = 1_000
    calls = 0

    def on_timer(self, context):
        self.calls += 1
        if self.calls == 2:
            context.submit(BUY, 3.0)
"""


@pytest.fixture
def store(tmp_path):
    with Environment(tmp_path / "data", StoreConfig(sync=False)) as env:
        yield BarStore(env)


def put(store, depth):
    """Store a trade a second at 100 for ten seconds, and rows of depth (second, id, side, price, size, flags)."""
    seconds = np.arange(10)
    traded = {"id": seconds, "price": [1000] * 10, "size": [10] * 10, "side": [BUY] * 10}
    units = {"price_decimals": 1, "size_decimals": 1}
    times = START_NS + seconds * NS_PER_SECOND
    second, number, side, price, size, flags = (list(column) for column in zip(*depth, strict=True))
    changed = {"id": number, "side": side, "price": price, "size": size, "flags": flags}
    changes = START_NS + (np.array(second) * NS_PER_SECOND).astype(np.int64)
    for rows in (
        ticks(Stream.TRADES, time_ns=times, **traded, **units),
        ticks(Stream.DEPTH, time_ns=changes, **changed, **units),
    ):
        with BulkWriter(store.ticks, A, rows.stream) as writer:
            writer.add(rows)
            writer.finish()


def run(store, tmp_path):
    folder = StrategyFolder(tmp_path / "strategies")
    book = RuleBook((), folder)
    backtest = {"symbols": "A", "timeframe": "1s", "fills": "book", "commission": 0}
    config = {"strategy": {"own": folder.keep_source("buyer", BUYS_AT_TWO.encode())}, "backtest": backtest}
    job = BacktestJob("b", read_config(config, store, book), str(tmp_path / "spool"), config)
    return run_backtest(store, job, lambda _: None, lambda: None, book).result


def whole(second, number):
    """Return a snapshot: 1 and 9 offered at 100.1 and 100.3, as much bid below."""
    levels = ((SELL, 1001, 10), (SELL, 1003, 90), (BUY, 999, 10), (BUY, 997, 90))
    return [(second, number, *level, SNAPSHOT) for level in levels]


def first_trade(result):
    return next((each for each in result.trades), None)


def test_a_market_order_walks_the_stored_levels(store, tmp_path):
    put(store, [(0.1, 1, SELL, 1005, 10, 0), *whole(0.2, 2), (8.5, 3, BUY, 998, 10, 0)])
    result = run(store, tmp_path)
    assert first_trade(result).entry_price == pytest.approx((100.1 + 2 * 100.3) / 3)
    assert any("1 rows before the first snapshot" in note for note in result.notes)
    assert any("queues" in each for each in result.assumptions)


def test_a_book_that_never_had_a_snapshot_is_refused(store, tmp_path):
    put(store, [(0.1, 1, SELL, 1005, 10, 0), (2.0, 2, BUY, 998, 10, 0)])
    with pytest.raises(AtlasError, match="no snapshot is stored there or before") as refused:
        run(store, tmp_path)
    assert refused.value.code == "NO_DEPTH"


def test_after_lost_events_an_order_waits_for_the_next_snapshot(store, tmp_path):
    put(store, [*whole(0.2, 1), (0.9, 2, SELL, 1001, 10, GAP), *whole(5.0, 3), (8.5, 4, BUY, 998, 10, 0)])
    result = run(store, tmp_path)
    entry_ms = (START_NS + 5 * NS_PER_SECOND) // 1_000_000
    assert first_trade(result).entry_time == entry_ms
    assert any("1 times events were lost" in note for note in result.notes)


def test_while_a_book_is_crossed_nothing_is_taken(store, tmp_path):
    crossed = (0.9, 2, BUY, 1002, 10, 0)
    put(store, [*whole(0.2, 1), crossed, (4.0, 3, BUY, 1002, 0, 0), (8.5, 4, SELL, 1009, -5, 0)])
    result = run(store, tmp_path)
    assert first_trade(result).entry_time == (START_NS + 4 * NS_PER_SECOND) // 1_000_000
    assert any("crossed after 1 of" in note for note in result.notes)
    assert any("1 rows had a size below 0" in note for note in result.notes)
