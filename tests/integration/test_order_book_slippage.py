"""Slippage by the book over a real store: books of bars as their depth makes them, and what orders pay for them."""

import numpy as np
import pytest
from naive import level_book as naive
from simulated import WIDTH_NS

from daemon.core.errors import AtlasError
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Bars, Timeframe
from daemon.core.ports import Hole, HoleReason
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream, ticks
from daemon.engine.ladders import UNKNOWN
from daemon.research import backtest_books
from daemon.research.backtest_books import read_books
from daemon.research.backtest_config.read import read_config
from daemon.research.backtest_job import run_backtest
from daemon.research.backtest_records import BacktestJob
from daemon.research.strategies import RuleBook
from daemon.store import backtests as tables
from daemon.store import instruments, keys, ledger
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.instruments import parse_instrument
from daemon.store.tick_chunks import KEY_STREAMS

START_NS = 19_000 * NS_PER_DAY
A = parse_instrument("x:A")
SNAPSHOT, GAP = DepthFlag.SNAPSHOT, DepthFlag.AFTER_GAP
# Around 100: asks of 1 at 100.1 and 2 at 100.3, bids of 1 at 99.9 and 4 at 99.8.
BOOK = [(SELL, 1001, 10), (SELL, 1003, 20), (BUY, 999, 10), (BUY, 998, 40)]


@pytest.fixture
def store(tmp_path):
    with Environment(tmp_path / "data", StoreConfig(sync=False)) as env:
        yield BarStore(env)


def depth(rows, decimals=1):
    """Return depth of rows (seconds since the first bar's start, id, side, price, size, flags)."""
    seconds, ids, sides, prices, sizes, flags = (list(column) for column in zip(*rows, strict=True))
    times = START_NS + (np.array(seconds) * NS_PER_SECOND).astype(np.int64)
    columns = {"time_ns": times, "id": ids, "side": sides, "price": prices, "size": sizes}
    flags = [int(each) for each in flags]
    return ticks(Stream.DEPTH, **columns, flags=flags, price_decimals=decimals, size_decimals=decimals)


def snapshot(second, number, levels=BOOK, flags=SNAPSHOT):
    return [(second, number, *level, flags) for level in levels]


def put_depth(store, *parts):
    with BulkWriter(store.ticks, A, Stream.DEPTH) as writer:
        for part in parts:
            writer.add(part)
        writer.finish()


def put_bars(store, count, price=100.0):
    start_ns = START_NS + WIDTH_NS * np.arange(count)
    bars = Bars(start_ns, *(np.full(count, price) for _ in range(4)), np.full(count, 1_000.0))
    store.ticks.env.write(lambda transaction: store.merge(transaction, A, Timeframe.MIN_1, bars, replace=False))


def books_of(store, bars, levels=5, width_ns=WIDTH_NS):
    return read_books(store.ticks, A, START_NS + width_ns * np.arange(bars), levels)


@pytest.fixture
def known(store, monkeypatch):
    """Say of each bar whether its own book is known: `*` or `.`."""
    monkeypatch.setattr(backtest_books, "with_dearest", lambda books: books)
    return lambda bars: "".join(".*"[row != UNKNOWN] for row in books_of(store, bars).ladders.row.tolist())


# Books of bars.


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.usefixtures("known")
def test_each_bar_has_the_book_as_it_was_before_its_start(store, seed):
    rng = np.random.default_rng(seed)
    size, bars, levels = 1_500, 40, 3
    seconds = np.sort(rng.integers(-100, bars * 60, size))
    rows = snapshot(int(seconds[0]) - 1, 1)
    for number, second in enumerate(seconds.tolist()):
        side = (BUY, SELL)[int(rng.integers(2))]
        price = 1000 + int(rng.integers(1, 30)) * (1 if side == SELL else -1) - int(rng.random() < 0.01) * 40
        rows.append((second, number + 2, side, price, int(rng.integers(0, 4)) * 10, GAP if rng.random() < 0.004 else 0))
        if rng.random() < 0.003:
            rows += snapshot(second, number + 2)
    made = depth(rows)
    put_depth(store, made)
    found = books_of(store, bars, levels).ladders
    rows_in_order = store.ticks.read(A, Stream.DEPTH)
    columns = [rows_in_order.column(name).tolist() for name in ("time_ns", "id", "side", "price", "size", "flags")]
    slow, waiting = naive.Book(), list(zip(*columns, strict=True))
    last_ns = kinds = 0
    for bar in range(bars):
        start_ns = START_NS + bar * WIDTH_NS
        while waiting and waiting[0][0] < start_ns:
            last_ns, *row = waiting.pop(0)
            slow.row(*row)
        bid, ask = slow.best
        is_sound = slow.is_whole and bid is not None and ask is not None and bid < ask
        assert (found.row[bar] != UNKNOWN) == (is_sound and start_ns - last_ns <= 60 * NS_PER_SECOND)
        kinds |= 1 << is_sound
        if found.row[bar] == UNKNOWN:
            continue
        for place, side in enumerate((SELL, BUY)):
            first, stop = found.edges[2 * found.row[bar] + place :][:2]
            prices, sizes = zip(*slow.top(side, levels), strict=True)
            assert found.sizes[first:stop].tolist() == [each / 10 for each in sizes]
            away = [abs(each / ((bid + ask) / 2) - 1) for each in prices]
            assert found.distances[first:stop].tolist() == pytest.approx(away, rel=1e-12)
            assert found.held[2 * found.row[bar] + place] == pytest.approx(sum(sizes) / 10)
    assert kinds == 3


def test_a_book_that_does_not_change_is_kept_once(store):
    put_depth(store, depth([*snapshot(-1, 1), (70, 2, BUY, 990, 0, 0)]))
    found = read_books(store.ticks, A, START_NS + np.arange(12) * 10 * NS_PER_SECOND, 5)
    assert set(found.ladders.row.tolist()) <= {0, 1, 2}
    assert (found.rows, found.first_ns, found.last_ns) == (5, START_NS - NS_PER_SECOND, START_NS + 70 * NS_PER_SECOND)


def test_rows_at_the_very_start_of_a_bar_are_not_seen_by_it(store, known):
    put_depth(store, depth(snapshot(60, 1)))
    assert known(3) == "..*"


def test_a_book_is_known_from_its_snapshot_on_and_in_a_gap_no_more(store, known):
    early, changes = [(1, 1, SELL, 1001, 10, 0)], [(second, second, BUY, 998, 40, 0) for second in range(70, 400, 20)]
    put_depth(store, depth([*early, *snapshot(61, 2), *changes[:5], (171, 171, BUY, 998, 30, GAP), *changes[6:]]))
    assert known(5) == "..*.."
    put_depth(store, depth(snapshot(250, 250)))
    assert known(6) == "..*..*"


def test_a_bar_that_starts_in_a_hole_of_the_recording_has_no_book(store, known):
    changes = [(second, second + 2, BUY, 998, 40, 0) for second in range(0, 300, 20)]
    put_depth(store, depth([*snapshot(-1, 1), *changes]))
    assert known(5) == "*****"
    hole = Hole(START_NS + 60 * NS_PER_SECOND, START_NS + 121 * NS_PER_SECOND, HoleReason.DISCONNECT)

    def record(transaction):
        series = keys.series(instruments.number(transaction, A), KEY_STREAMS[Stream.DEPTH], 0)
        ledger.put_hole(transaction, series, hole, 1)

    store.ticks.env.write(record)
    assert known(5) == "**.**"


def test_a_recording_that_ended_does_not_stand_for_what_came_later(store, known):
    put_depth(store, depth(snapshot(-1, 1)), depth(snapshot(310, 9)))
    assert known(7) == "*.....*"


@pytest.mark.parametrize(
    "levels",
    [[(SELL, 1001, 10)], [(SELL, 1001, 10), (BUY, 1001, 10)], [(SELL, 1001, 10), (BUY, 1002, 10), (BUY, 900, 1)]],
    ids=["one-sided", "locked", "crossed"],
)
def test_a_book_that_could_not_be_traded_with_is_none(store, known, levels):
    put_depth(store, depth(snapshot(-1, 1, levels)), depth(snapshot(59, 2)))
    assert known(2) == ".*"


def test_the_snapshot_before_the_first_bar_is_found_however_far_back(store, known):
    a_day = 86_400
    changes = [(second, second + 4 * a_day, BUY, 998, 40, 0) for second in range(-3 * a_day, 100, 50)]
    put_depth(store, depth([*snapshot(-3 * a_day - 1, 1), *changes]))
    assert known(2) == "**"


def test_chunks_of_other_decimals_make_one_book(store):
    put_depth(store, depth(snapshot(-1, 1)))
    # 100.05 and a size of 0.25: nearer than what was there, and finer.
    store.ticks.env.write(
        lambda transaction: store.ticks.append(transaction, A, depth([(1, 2, SELL, 10005, 25, 0)], decimals=2))
    )
    ladders = books_of(store, 2).ladders
    assert ladders.sizes[4:7].tolist() == [0.25, 1.0, 2.0]
    assert ladders.distances[4] == pytest.approx(100.05 / 99.975 - 1)


# What there may not be.


def test_dates_without_any_book_are_refused(store):
    put_depth(store, depth([(second, second, BUY, 998, 40, 0) for second in range(100)]))
    with pytest.raises(AtlasError, match="no snapshot is stored there or before") as caught:
        books_of(store, 2)
    assert caught.value.code == "NO_DEPTH"


@pytest.mark.parametrize("size", [np.linspace(1, np.pi, 500), np.full(500, 123456.1234567891)], ids=["any", "fine"])
def test_depth_in_floats_is_refused(store, size):
    columns = {"time_ns": START_NS - 500 + np.arange(500), "id": np.ones(500), "side": np.full(500, BUY)}
    columns |= {"flags": np.full(500, int(SNAPSHOT)), "price": 100_000.0 + np.arange(500) / 3}
    put_depth(store, ticks(Stream.DEPTH, **columns, size=size))
    with pytest.raises(AtlasError, match="floating-point") as caught:
        books_of(store, 2)
    assert caught.value.code == "NO_DEPTH"


def config(orders, **backtest):
    strategy = {"name": "a few orders", "orders": orders}
    free = {"symbols": "A", "commission": 0, "slippageModel": "order_book", "initialCapital": 100_000}
    return {"strategy": strategy, "backtest": free | backtest}


def order(bar, side="buy", quantity=2.0):
    return {"symbol": "A", "side": side, "quantity": quantity, "time": (START_NS + bar * WIDTH_NS) // 1_000_000}


def refused_as(store, code, **backtest):
    with pytest.raises(AtlasError) as caught:
        read_config(config([order(0)], **backtest), store, RuleBook([]))
    assert (caught.value.code, caught.value.details["field"]) == (code, "backtest.slippageModel")
    return caught.value.message


def test_a_configuration_that_has_no_depth_or_meets_trades_is_refused_where_it_says_so(store):
    put_bars(store, 4)
    assert "atlasd import depth" in refused_as(store, "NO_DEPTH")
    put_depth(store, depth(snapshot(-1, 1)))
    with BulkWriter(store.ticks, A, Stream.TRADES) as writer:
        numbers = {"time_ns": [START_NS], "id": [1], "price": [1], "size": [1]}
        writer.add(ticks(Stream.TRADES, **numbers, price_decimals=0, size_decimals=0))
        writer.finish()
    assert '"fills": "bars"' in refused_as(store, "INVALID_CONFIGURATION", fills="ticks")


# What orders pay.


def run(store, tmp_path, orders, **backtest):
    """Return the result and its fills."""
    spec = read_config(config(orders, **backtest), store, RuleBook([]))
    outcome = run_backtest(store, BacktestJob("b", spec, str(tmp_path / "spool")), lambda _: None, lambda: None)
    store.ticks.env.write(lambda transaction: tables.put(transaction, "b", outcome.parts, tmp_path / "spool"))
    with store.ticks.env.read() as transaction:
        return outcome.result, next(tables.read(transaction, "b", "fills"))


@pytest.fixture
def stored(store):
    """Six bars at 100; the book is whole at the starts of the second to the fourth."""
    put_bars(store, 6)
    put_depth(store, depth([*snapshot(30, 1), *((second, second, BUY, 900, 40, 0) for second in range(60, 181, 30))]))
    return store


def test_a_fill_pays_the_spread_and_the_walk_of_its_bars_book(stored, tmp_path):
    result, fills = run(stored, tmp_path, [order(1), order(2, "sell")])
    # One at 100.1 and one at 100.3, on average a fifth above the mid; sold one at 99.9 and one at 99.8.
    assert fills["price"][:2].tolist() == pytest.approx([100.2, 99.85])
    assert fills["spread"][:2].tolist() == pytest.approx([0.2, 0.2])
    assert fills["impact"][:2].tolist() == pytest.approx([0.2, 0.1])
    assert result.costs.slippage == pytest.approx(0.7)
    assert any("walks the stored book of the bar's start, 20 levels a side" in each for each in result.assumptions)
    assert result.costs.model["slippage"] == {"model": "order_book", "levels": 20}
    assert [each.source for each in result.data if each.source == "depth"] == ["depth"]


def test_stress_scales_what_the_book_costs(stored, tmp_path):
    _, fills = run(stored, tmp_path, [order(1)], stressTestMultiplier=2)
    assert fills["price"][0] == pytest.approx(100.4)


def test_an_order_takes_no_more_than_the_levels_hold_and_the_rest_waits(stored, tmp_path):
    _, fills = run(stored, tmp_path, [order(1, quantity=4.0)])
    assert fills["quantity"][:2].tolist() == pytest.approx([3.0, 1.0])
    assert (np.diff(fills["time_ns"][:2]) == WIDTH_NS).all()
    _, fills = run(stored, tmp_path, [order(1, quantity=4.0)], slippage={"levels": 1})
    assert fills["quantity"][:3].tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert fills["price"][:3].tolist() == pytest.approx([100.1] * 3)


def test_bars_without_a_book_pay_the_dearest_before_and_are_told(store, tmp_path):
    put_bars(store, 6)
    wide = [(SELL, 1004, 10), (BUY, 996, 10)]
    put_depth(store, depth([*snapshot(30, 1), *snapshot(90, 2, wide), *snapshot(150, 3)]))
    result, fills = run(store, tmp_path, [order(0, quantity=1.0), order(5, "sell", 1.0)])
    # Nothing fills before the first book; the last bars pay by the widest of the three.
    assert fills["time_ns"].tolist() == [START_NS + WIDTH_NS, START_NS + 5 * WIDTH_NS]
    assert fills["price"].tolist() == pytest.approx([100.1, 99.6])
    assert any(each.startswith("x:A: 3 of 6 bars start without a whole stored book") for each in result.notes)


def test_what_is_stored_of_the_book_is_part_of_the_fingerprint(stored, tmp_path):
    first, _ = run(stored, tmp_path, [order(1)])
    put_depth(stored, depth([(181, 500, SELL, 1001, 5, 0)]))
    second, _ = run(stored, tmp_path, [order(1)])
    assert first.fingerprint != second.fingerprint


def test_a_validation_runs_by_the_book_too(stored, tmp_path):
    asked = config([order(1), order(3, "sell")]) | {"validation": {"sensitivity": True}}
    spec = read_config(asked, stored, RuleBook([]))
    outcome = run_backtest(stored, BacktestJob("b", spec, str(tmp_path / "s")), lambda _: None, lambda: None)
    rows = {row.label: row.total_return_percent for row in outcome.result.sensitivity}
    assert rows["costs x 2"] == pytest.approx(2 * rows["costs x 1"], rel=1e-3)
    assert rows["costs x 1"] < 0
