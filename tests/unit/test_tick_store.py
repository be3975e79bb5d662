"""Stored ticks: chunks and tail as one, ranges, late rows, floats, readers beside writers."""

import threading

import numpy as np
import pytest
from naive import overlay as naive

from daemon.core.errors import Code, ConfigError
from daemon.core.market import Instrument
from daemon.core.ticks import BUY, COLUMNS, NO_ID, SELL, Kind, Stream, concatenate, ticks
from daemon.store import codec, keys, upkeep
from daemon.store import env as store_env
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import FILE_NAME, Environment, StoreConfig
from daemon.store.tick_series import compact_tail, prefix_of
from daemon.store.ticks import TickStore
from daemon.store.verify import verify

BTC, ETH = Instrument("binance", "BTCUSDT"), Instrument("binance", "ETHUSDT")
MS, US = 1_000_000, 1_000
LEAST, MOST = -(1 << 63), (1 << 63) - 1
PATIENCE_S = 20.0
ODD_FLOATS = [np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 5e-324, 1.7e308, 0.1 + 0.2, 1e15 / 3]


@pytest.fixture
def store(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield TickStore(env)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 10)


def trades(ids, times=None, *, prices=None, decimals=2, size_decimals=0):
    """Trades of one a millisecond, by default."""
    ids = np.asarray(ids, dtype=np.int64)
    return ticks(
        Stream.TRADES,
        time_ns=ids * MS if times is None else times,
        id=ids,
        price=(ids % 100 if decimals is not None else ids / 10) if prices is None else prices,
        size=np.ones(ids.size),
        side=np.where(ids % 2, BUY, SELL),
        price_decimals=decimals,
        size_decimals=size_decimals,
    )


def append(store, *parts, instrument=BTC):
    return [
        store.env.write(lambda transaction, rows=rows: store.append(transaction, instrument, rows)) for rows in parts
    ]


def write(store, *parts, instrument=BTC, replace=False):
    with BulkWriter(store, instrument, parts[0].stream, replace=replace) as writer:
        for rows in parts:
            writer.add(rows)
        return writer.finish()


def compact(store, instrument=BTC, stream=Stream.TRADES):
    def action(transaction):
        compact_tail(transaction, prefix_of(transaction, instrument, stream), stream)

    store.env.write(action)


def ids(store, *edges):
    return store.read(BTC, Stream.TRADES, *edges).column("id").tolist()


def shape(store, stream=Stream.TRADES):
    """Rows of each chunk, and of the tail."""
    with store.env.read() as transaction:
        prefix = prefix_of(transaction, BTC, stream)
        chunks = [codec.rows(value) for _, value in transaction.scan("chunks", prefix)]
    return chunks, store.streams(BTC)[stream].tail_rows


def price_bits(rows):
    return [row["price"] for row in naive.rows_of(rows)]


def float_bits(values):
    return [naive.bits(value, None) for value in values]


def assert_sound(store):
    assert [problem for each in verify(store.env) for problem in each.problems] == []


# Chunks and tail as one.


def test_chunks_and_tail_are_read_scanned_and_counted_as_one(store):
    write(store, trades(range(25)))
    append(store, trades(range(25, 31)), trades([31]))
    assert shape(store) == ([10, 10, 5], 7)
    assert ids(store) == list(range(32))
    assert np.concatenate([block.column("id") for block in store.blocks(BTC, Stream.TRADES)]).tolist() == list(
        range(32)
    )
    scanned = [
        (time_ns, price)
        for each in store.scan(BTC, Stream.TRADES, ["time_ns", "price"])
        for time_ns, price in zip(*map(np.ndarray.tolist, each), strict=True)
    ]
    assert scanned == [(place * MS, place / 100) for place in range(32)]
    assert store.count(BTC, Stream.TRADES) == store.count(BTC, Stream.TRADES, 0) == 32
    series = store.streams(BTC)[Stream.TRADES]
    assert (series.rows, series.tail_rows, series.first_ns, series.last_ns) == (32, 7, 0, 31 * MS)


def test_a_store_without_the_series_has_no_rows(store):
    append(store, trades([1]), instrument=ETH)
    for stream in COLUMNS:
        assert store.read(BTC, stream).size == store.count(BTC, stream) == store.count(BTC, stream, 0, 5) == 0
        assert list(store.scan(BTC, stream)) == []
    assert store.read(ETH, Stream.QUOTES).size == 0
    assert store.streams(BTC) == {}
    assert append(store, trades([])) == [0]
    assert [each.instrument for each in store.series()] == [ETH]


def test_late_rows_are_read_in_their_place_wherever_that_is(store):
    write(store, trades(range(0, 60, 2)))
    append(store, trades([70]))
    late = [-5, 1, 17, 19, 21, 57, 59, 65]
    assert append(store, trades([late[0]]), trades(late[1:])) == [1, 7]
    wanted = sorted([*range(0, 60, 2), 70, *late])
    assert ids(store) == wanted
    for low in range(-6, 72, 3):
        assert ids(store, low * MS, (low + 9) * MS) == [each for each in wanted if low <= each < low + 9]
    chunks, _ = shape(store)
    compact(store)
    assert ids(store) == wanted
    assert len(shape(store)[0]) >= len(chunks)
    assert_sound(store)


def test_rows_that_are_stored_are_left_out_by_chunk_tail_and_batch(store):
    write(store, trades(range(10)))
    assert append(store, trades(range(5, 13)), trades(range(8, 14)), trades([13, 14, 14, 13]), trades(range(15))) == [
        3,
        1,
        1,
        0,
    ]
    assert ids(store) == list(range(15))
    assert_sound(store)


def test_a_repeated_row_is_found_behind_a_late_one_of_the_same_time(store):
    append(store, trades([5], [MS]), trades([4], [MS]))
    assert append(store, trades([5], [MS])) == [0]
    assert ids(store) == [4, 5]


def test_the_same_id_in_another_unit_of_time_is_not_stored_twice(store):
    exact = np.arange(40) * MS + 345 * US
    write(store, trades(range(20), exact[:20]))
    append(store, trades(range(20, 25), exact[20:25]))
    coarse = exact // MS * MS
    assert append(store, *(trades([each], coarse[each : each + 1]) for each in range(25))) == [0] * 25
    assert append(store, trades(range(26), coarse[:26])) == [1]
    assert ids(store) == list(range(26))
    assert_sound(store)


def test_levels_told_twice_in_one_batch_are_stored_once(store):
    rows = ticks(
        Stream.DEPTH,
        time_ns=[1, 1, 1],
        id=[7, 7, 7],
        side=[1, 1, -1],
        price=[5, 5, 5],
        size=[1, 1, 1],
        price_decimals=0,
        size_decimals=0,
    )
    assert append(store, rows) == [2]
    before = naive.rows_of(store.read(BTC, Stream.DEPTH))
    compact(store, stream=Stream.DEPTH)
    assert naive.rows_of(store.read(BTC, Stream.DEPTH)) == before
    assert len(before) == 2


def test_of_equal_rows_without_ids_a_later_batch_brings_those_beyond_the_stored_ones(store):
    equal = [trades([NO_ID] * count, [MS] * count, prices=[5] * count) for count in (1, 2, 3)]
    write(store, equal[0])
    assert append(store, *equal) == [0, 1, 1]
    assert store.read(BTC, Stream.TRADES).size == store.count(BTC, Stream.TRADES) == 3
    compact(store)
    assert store.read(BTC, Stream.TRADES).size == store.count(BTC, Stream.TRADES) == 3
    assert_sound(store)


def test_a_tail_of_a_chunk_s_worth_is_laid_over_the_chunks_at_once(store):
    append(store, trades(range(9)))
    assert shape(store) == ([], 9)
    append(store, trades(range(9, 14)))
    assert shape(store) == ([10, 4], 0)
    append(store, trades(range(14, 23)))
    assert shape(store) == ([10, 4], 9)
    append(store, trades([23]))
    assert shape(store) == ([10, 10, 4], 0)


def test_compaction_leaves_chunks_alone_that_no_late_row_falls_into(store):
    write(store, trades(range(0, 400, 2)))
    with store.env.read() as transaction:
        before = {key: bytes(value) for key, value in transaction.scan("chunks", b"")}
    written = []
    put = store_env.Transaction.put

    def noted(transaction, database, key, value):
        written.extend([key] if database == "chunks" else [])
        put(transaction, database, key, value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_env.Transaction, "put", noted)
        append(store, trades([5]), trades(range(400, 409)))
    assert shape(store)[1] == 0
    assert len(set(written)) <= 3
    with store.env.read() as transaction:
        after = {key: bytes(value) for key, value in transaction.scan("chunks", b"")}
    assert sum(before.get(key) == value for key, value in after.items()) >= len(before) - 2
    assert ids(store) == sorted([*range(0, 400, 2), 5, *range(400, 409)])
    assert_sound(store)


def test_instruments_and_streams_do_not_mix(store):
    append(store, trades([1]))
    append(store, trades([2]), instrument=ETH)
    rows = trades([3])
    append(
        store,
        ticks(
            Stream.AGG_TRADES,
            **dict(zip(COLUMNS[Stream.TRADES], rows.columns, strict=True)),
            first_id=[1],
            last_id=[2],
            price_decimals=2,
            size_decimals=0,
        ),
    )
    assert ids(store) == [1]
    assert store.read(ETH, Stream.TRADES).column("id").tolist() == [2]
    assert store.read(BTC, Stream.AGG_TRADES).column("id").tolist() == [3]
    assert [(each.instrument, each.stream) for each in store.series()] == [
        (BTC, Stream.TRADES),
        (BTC, Stream.AGG_TRADES),
        (ETH, Stream.TRADES),
    ]


# Columns and ranges.


def some_series(store, stream):
    rng = np.random.default_rng(3)
    columns = {}
    for name, kind in COLUMNS[stream].items():
        columns[name] = rng.integers(1, 100, 47)
        if kind is Kind.CODE:
            columns[name] = rng.choice([-1, 1], 47)
        if name in ("time_ns", "id"):
            columns[name] = np.arange(47) * 3 + 1
    rows = ticks(stream, **columns, price_decimals=2, size_decimals=3)
    write(store, rows.rows(0, 35))
    append(store, rows.rows(35, 43), rows.rows(43, 47))
    return rows


@pytest.mark.parametrize("stream", list(COLUMNS))
def test_any_column_can_be_scanned_alone_over_any_range(store, stream):
    rows = some_series(store, stream)
    for name, kind in COLUMNS[stream].items():
        column = rows.column(name)
        wanted = column / 10 ** rows.decimals(kind) if kind in (Kind.PRICE, Kind.SIZE) else column
        for start, stop in ((None, None), (28, None), (None, 61), (32, 34), (31, 112), (110, 140), (-9, 9)):
            low, high = np.searchsorted(
                rows.time_ns, [-1 << 62 if start is None else start, 1 << 62 if stop is None else stop]
            )
            found = [each.tolist() for (each,) in store.scan(BTC, stream, [name], start, stop)]
            assert sum(found, []) == wanted[low:high].tolist(), (name, start, stop)  # noqa: RUF017 - a few blocks


def test_columns_come_in_the_order_asked_for_also_twice(store):
    append(store, trades([3, 4]))
    ((side, price, again),) = store.scan(BTC, Stream.TRADES, ["side", "price", "side"])
    assert (side.tolist(), price.tolist(), again.tolist()) == ([1, -1], [0.03, 0.04], [1, -1])


def test_blocks_without_buffers_stay_as_they_were(store):
    some_series(store, Stream.TRADES)
    blocks = list(store.blocks(BTC, Stream.TRADES))
    assert concatenate(blocks).column("id").tolist() == [place * 3 + 1 for place in range(47)]
    assert len(blocks) >= 4


def test_blocks_into_buffers_give_the_same_rows_step_by_step(store):
    some_series(store, Stream.TRADES)
    copies = [
        block.take(np.arange(block.size)) for block in store.blocks(BTC, Stream.TRADES, None, buffers=store.buffers())
    ]
    assert naive.rows_of(concatenate(copies)) == naive.rows_of(store.read(BTC, Stream.TRADES))


@pytest.mark.parametrize("is_in_tail", [False, True])
def test_every_range_between_borders_is_half_open(store, is_in_tail):
    times = np.array([0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 5, 6, 7, 7, 7, 8, 9, 20, 20, 21]) - 6
    rows = trades(range(times.size), times)
    write(store, rows.rows(0, 16 if is_in_tail else rows.size))
    if is_in_tail:
        append(store, rows.rows(16, rows.size))
    for low in [None, LEAST, *range(-7, 17), MOST]:
        for high in [None, LEAST, *range(-7, 17), MOST]:
            wanted = [
                row for row, each in enumerate(times) if (low is None or each >= low) and (high is None or each < high)
            ]
            assert ids(store, low, high) == wanted
            assert store.count(BTC, Stream.TRADES, low, high) == len(wanted)


def test_rows_of_one_time_never_part(store):
    times = [0] * 4 + [1] * 33 + [2] * 3 + [3] * 8 + [4] * 8
    write(store, trades(range(len(times)), times))
    assert shape(store)[0] == [4, 33, 3, 8, 8]
    append(store, trades(range(len(times), len(times) + 5), [4] * 5))
    compact(store)
    assert shape(store)[0] == [4, 33, 3, 8, 13]
    assert ids(store, 4) == list(range(48, 61))
    assert_sound(store)


def test_times_at_the_ends_of_64_bits_are_stored_and_read(store):
    times = np.array([LEAST, LEAST + 1, -1, 0, 1, MOST - 1, MOST])
    rows = trades(range(times.size), times)
    assert append(store, rows.rows(3, 5), rows.rows(0, 3), rows.rows(5, 7), rows) == [2, 3, 2, 0]
    for _ in range(2):
        assert store.read(BTC, Stream.TRADES).time_ns.tolist() == times.tolist()
        assert ids(store, LEAST, MOST) == [0, 1, 2, 3, 4, 5]
        assert ids(store, MOST) == [6]
        assert ids(store, None, LEAST) == []
        compact(store)
    assert tuple(write(store, rows)) == (0, 7, 0)
    assert_sound(store)
    assert upkeep.delete(store, BTC, Stream.TRADES, None, LEAST + 1) == 1
    assert upkeep.delete(store, BTC, Stream.TRADES, 1, None) == 3
    assert ids(store) == [1, 2, 3]
    assert_sound(store)


# Numbers.


@pytest.mark.parametrize("route", ["tail", "chunks", "both"])
def test_floats_come_back_bit_for_bit(store, route):
    rng = np.random.default_rng(0)
    values = np.array([*ODD_FLOATS, *rng.standard_normal(20), *rng.integers(0, 10**6, 40) / 100])
    rows = trades(range(values.size), prices=rng.permutation(values), decimals=None)
    if route == "tail":
        append(store, *(rows.rows(start, start + 5) for start in range(0, 9, 5)))
        rows = rows.rows(0, 10)
    elif route == "chunks":
        write(store, rows)
    else:
        write(store, rows.rows(0, 61))
        append(store, rows.rows(64, 70), rows.rows(61, 64))
    wanted = float_bits(rows.column("price"))
    assert price_bits(store.read(BTC, Stream.TRADES)) == wanted
    scanned = [price for (prices,) in store.scan(BTC, Stream.TRADES, ["price"]) for price in prices]
    assert float_bits(scanned) == wanted
    compact(store)
    assert price_bits(store.read(BTC, Stream.TRADES)) == wanted


def test_floats_that_need_many_decimals_beside_ones_that_need_many_digits_come_back(store):
    values = [9_007_199_254_740_991.0, 1e-15, 123_456.789, 4e14 + 0.5, 0.000_000_000_123_456, 60_000.0]
    for place, value in enumerate(values):
        append(store, trades([place], prices=[value], decimals=None))
        compact(store)
        assert price_bits(store.read(BTC, Stream.TRADES)) == float_bits(values[: place + 1])
    (prices,) = (each for (each,) in store.scan(BTC, Stream.TRADES, ["price"]))
    assert float_bits(prices) == float_bits(values)
    rows = ticks(Stream.QUOTES, time_ns=[1, 2], bid=[1e14, 2e14], ask=[1e-15, 3e-15], bid_size=[1, 1], ask_size=[1, 1])
    write(store, rows)
    assert naive.rows_of(store.read(BTC, Stream.QUOTES)) == naive.rows_of(rows)


def test_decimals_that_differ_from_block_to_block_say_the_same_numbers(store):
    prices, decimals = [1_234_567, 5, 60_001, 123_456_789_012], [2, 0, 4, 8]
    parts = [
        trades([place], prices=[price], decimals=each)
        for place, (price, each) in enumerate(zip(prices, decimals, strict=True))
    ]
    append(store, *parts[:2])
    compact(store)
    append(store, *parts[2:])
    for _ in range(2):
        rows = store.read(BTC, Stream.TRADES)
        assert rows.price_decimals == 8
        assert rows.column("price").tolist() == [
            price * 10 ** (8 - each) for price, each in zip(prices, decimals, strict=True)
        ]
        compact(store)


def test_integers_beyond_a_float_s_digits_are_exact(store):
    prices = [(1 << 62) + 1, -(1 << 62) - 3, (1 << 53) + 1]
    append(store, trades([1, 2, 3], prices=prices, decimals=9))
    compact(store)
    assert store.read(BTC, Stream.TRADES).column("price").tolist() == prices
    ((found,),) = store.scan(BTC, Stream.TRADES, ["price"])
    assert found.tolist() == [price / 10**9 for price in prices]


def test_integers_and_floats_of_one_series_meet_as_floats(store):
    write(store, trades(range(8), prices=range(10, 18), decimals=1))
    append(store, trades([8, 9], prices=[np.nan, 1.8], decimals=None), trades([10], prices=[190], decimals=2))
    wanted = float_bits([*(place / 10 for place in range(10, 18)), np.nan, 1.8, 1.9])
    for _ in range(2):
        assert price_bits(store.read(BTC, Stream.TRADES)) == wanted
        compact(store)
    assert append(store, trades([2, 9], prices=[12, 18], decimals=1)) == [0]


# Beside writers.


def follow(read, stop, failures):
    """Read until told to stop; each time the ids must be all of 0..n in order."""
    seen = []

    def run():
        try:
            while not stop.is_set():
                found = read()
                assert found == list(range(len(found)))
                assert not seen or len(found) >= seen[-1]
                seen.append(len(found))
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, seen


def test_a_scan_beside_appends_and_compactions_sees_each_row_once_and_in_order(store, monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 60)
    stop, failures = threading.Event(), []

    def scanned():
        return [each for (block,) in store.scan(BTC, Stream.TRADES, ["id"]) for each in block.tolist()]

    readers = [follow(scanned, stop, failures), follow(lambda: ids(store), stop, failures)]
    for start in range(0, 2_000, 7):
        append(store, trades(range(start, start + 7)))
        if start % 350 == 0:
            compact(store)
            upkeep.compact(store, BTC, Stream.TRADES)
    stop.set()
    for reader, seen in readers:
        reader.join(PATIENCE_S)
        assert len(set(seen)) > 3
    assert not failures
    assert_sound(store)


def test_rows_that_arrive_while_a_file_is_written_are_kept(store, monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 50)
    monkeypatch.setattr("daemon.store.bulk.FLUSH_ROWS", 120)
    stop, failures, live = threading.Event(), [], []

    def arrive():
        try:
            while not stop.is_set():
                first = 3_000 + 3 * len(live)
                append(store, trades(range(first, first + 3)))
                live.append(first)
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
            failures.append(error)

    append(store, trades([2_990]))
    feed = threading.Thread(target=arrive)
    feed.start()
    try:
        for start in range(0, 3_000, 300):
            write(store, *(trades(range(each, each + 20)) for each in range(start, start + 300, 20)))
            upkeep.compact(store, BTC, Stream.TRADES)
        reached = 3_000 + 3 * len(live)
        write(store, trades(range(2_900, reached)))
    finally:
        stop.set()
        feed.join(PATIENCE_S)
    assert not failures
    assert len(live) > 20
    assert ids(store) == list(range(3_000 + 3 * len(live)))
    assert store.streams(BTC)[Stream.TRADES].open_holes == 0
    assert_sound(store)


def test_the_map_grows_while_rows_are_written_and_read(tmp_path):
    failures, stop = [], threading.Event()
    rng = np.random.default_rng(0)
    noise = rng.integers(LEAST, MOST, 60_000)
    with Environment(tmp_path, StoreConfig(map_mb=1, sync=False)) as env:
        store = TickStore(env)
        reader, seen = follow(lambda: ids(store), stop, failures)
        for start in range(0, 60_000, 6_000):
            rows = trades(range(start, start + 6_000), prices=noise[start : start + 6_000])
            (write if start % 12_000 else append)(store, rows)
        stop.set()
        reader.join(PATIENCE_S)
        assert not failures
        assert env.size_bytes() > 1 << 20
        assert store.read(BTC, Stream.TRADES).column("price").tolist() == noise.tolist()
        assert len(set(seen)) > 1
        assert_sound(store)


# Stores of other releases.


def old_store(folder, schema, monkeypatch):
    """Make a store as a release of that schema did, with bars in it."""
    from daemon.core.market import Bars, Timeframe

    with monkeypatch.context() as patch:
        patch.setattr(store_env, "SCHEMA", schema)
        patch.setattr(store_env, "DATABASES", store_env.DATABASES[:6])
        with Environment(folder, StoreConfig(sync=False)) as env:
            bars = Bars(np.array([0, 3_600 * 10**9]), *np.ones((5, 2)))
            env.write(lambda transaction: BarStore(env).merge(transaction, BTC, Timeframe.HOUR_1, bars, replace=False))
    return Timeframe.HOUR_1


def test_a_store_of_schema_1_opens_keeps_its_bars_and_takes_ticks(tmp_path, monkeypatch):
    hour = old_store(tmp_path, 1, monkeypatch)
    with Environment(tmp_path, StoreConfig(sync=False), readonly=True) as env:
        assert TickStore(env).series() == []
        assert BarStore(env).read(BTC, hour).size == 2
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        append(TickStore(env), trades([1, 2]))
        assert BarStore(env).read(BTC, hour).size == 2
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        assert ids(TickStore(env)) == [1, 2]
        with env.read() as transaction:
            assert bytes(transaction.get("meta", b"schema")) == (2).to_bytes(4, "big")
        assert_sound(TickStore(env))


@pytest.mark.parametrize("readonly", [False, True])
def test_a_store_of_schema_3_is_refused_with_the_way_out_and_left_alone(tmp_path, monkeypatch, readonly):
    old_store(tmp_path, 3, monkeypatch)
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(
        ConfigError, match="schema 3, this release reads up to 2: use the release that wrote it"
    ) as caught:
        Environment(tmp_path, StoreConfig(sync=False), readonly=readonly)
    assert caught.value.code == Code.STORE_SCHEMA
    with Environment(tmp_path / "other", StoreConfig(sync=False)):
        pass
    if readonly:
        assert (tmp_path / FILE_NAME).read_bytes() == before


def test_chunks_are_keyed_by_their_first_time(store):
    write(store, trades(range(-15, 15)))
    with store.env.read() as transaction:
        assert [keys.chunk_time(key) for key, _ in transaction.scan("chunks", b"")] == [-15 * MS, -5 * MS, 5 * MS]
