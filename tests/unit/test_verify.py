"""Verification names each kind of damage, and nothing where there is none."""

import msgspec
import numpy as np
import pytest

from daemon.core.market import Bars, Instrument, Timeframe
from daemon.core.ticks import BUY, NO_ID, Stream, ticks
from daemon.store import codec, keys, ledger
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.tick_chunks import decode, encode
from daemon.store.tick_series import Entry
from daemon.store.ticks import TickStore
from daemon.store.verify import verify

BTC, ETH = Instrument("binance", "BTCUSDT"), Instrument("binance", "ETHUSDT")
MS = 1_000_000


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Chunks of ids 0-9, 10-19, 23-26, and a tail of 30-32: two holes."""
    monkeypatch.setattr(codec, "CHUNK_ROWS", 10)
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        opened = TickStore(env)
        with BulkWriter(opened, BTC, Stream.TRADES) as writer:
            writer.add(trades([*range(20), *range(23, 27)]))
            writer.finish()
        env.write(lambda transaction: opened.append(transaction, BTC, trades([30, 31, 32])))
        yield opened


def trades(ids, times=None):
    ids = np.asarray(ids, dtype=np.int64)
    ones = np.ones(ids.size)
    return ticks(
        Stream.TRADES,
        time_ns=ids * MS if times is None else times,
        id=ids,
        price=ones,
        size=ones,
        side=np.full(ids.size, BUY),
        price_decimals=0,
        size_decimals=0,
    )


def problems(store):
    return [problem for each in verify(store.env) for problem in each.problems]


def values(store, database):
    with store.env.read() as transaction:
        return [(key, bytes(value)) for key, value in transaction.scan(database, b"")]


def put(store, database, key, value):
    store.env.write(lambda transaction: transaction.put(database, key, value))


def drop(store, database, key):
    store.env.write(lambda transaction: transaction.delete(database, key))


def change_index(store, **fields):
    ((key, value),) = values(store, "series")
    put(
        store,
        "series",
        key,
        msgspec.msgpack.encode(msgspec.structs.replace(msgspec.msgpack.decode(value, type=Entry), **fields)),
    )


def test_a_sound_store_has_no_problems_and_is_counted(store):
    (found,) = verify(store.env)
    series = store.streams(BTC)[Stream.TRADES]
    assert (found.instrument, found.series, found.rows, found.chunks) == (BTC, Stream.TRADES, 27, 3)
    assert found.stored_bytes == series.stored_bytes
    assert found.problems == []


def test_an_empty_store_has_nothing_to_look_at(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        assert list(verify(env)) == []


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_a_flipped_byte_of_a_chunk_is_named_by_the_chunk_s_time(store, chunk):
    key, value = values(store, "chunks")[chunk]
    for place in range(0, len(value), 7):
        damaged = bytearray(value)
        damaged[place] ^= 0x10
        put(store, "chunks", key, bytes(damaged))
        assert f"chunk at {keys.chunk_time(key)} ns: a stored chunk is damaged" in problems(store)[0]
    put(store, "chunks", key, value)
    assert problems(store) == []


def test_damage_to_one_series_does_not_hide_another(store):
    with BulkWriter(store, ETH, Stream.TRADES) as writer:
        writer.add(trades(range(5)))
        writer.finish()
    key, value = values(store, "chunks")[-1]
    put(store, "chunks", key, value[:-1])
    assert [(each.instrument, bool(each.problems)) for each in verify(store.env)] == [(BTC, False), (ETH, True)]


@pytest.mark.parametrize("field", ["rows", "stored_bytes"])
def test_an_index_that_counts_wrong_is_named(store, field):
    change_index(store, **{field: 1})
    (problem,) = problems(store)
    assert "the index tells" in problem
    assert "chunks hold 24 and" in problem


@pytest.mark.parametrize("field", ["first_ns", "last_ns"])
def test_an_index_with_wrong_times_is_named(store, field):
    change_index(store, **{field: 7})
    assert problems(store) == ["the index tells other times of the chunks than they hold"]


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("tail_rows", "5 rows in the tail, it holds 3"),
        ("tail_first_ns", "other times of the tail"),
        ("tail_last_ns", "other times of the tail"),
    ],
)
def test_an_index_that_tells_another_tail_is_named(store, field, said):
    change_index(store, **{field: 5})
    (problem,) = problems(store)
    assert said in problem


def test_a_chunk_that_is_gone_is_missed(store):
    drop(store, "chunks", values(store, "chunks")[1][0])
    assert "the index tells 24 rows" in problems(store)[0]


def test_chunks_that_overlap_are_named(store):
    (_, first), (second_key, second), _ = values(store, "chunks")
    longer = encode(trades([*range(10), 15]))
    first_key = values(store, "chunks")[0][0]
    put(store, "chunks", first_key, longer)
    change_index(
        store,
        rows=25,
        stored_bytes=store.streams(BTC)[Stream.TRADES].stored_bytes - tail_bytes(store) + len(longer) - len(first),
    )
    assert f"chunk at {keys.chunk_time(second_key)} ns: begins before the one before it ends" in problems(store)
    assert decode(second, Stream.TRADES).size == 10


def tail_bytes(store):
    return sum(len(value) for _, value in values(store, "tail"))


def test_rows_out_of_order_and_a_wrong_key_are_named(store):
    key, value = values(store, "chunks")[2]
    put(store, "chunks", key, encode(trades([23, 25, 24, 26])))
    assert any("rows are out of order" in problem for problem in problems(store))
    put(store, "chunks", key, encode(trades([24, 25, 26, 27])))
    assert any("begins with another time than its key" in problem for problem in problems(store))
    put(store, "chunks", key, encode(trades([])))
    assert any("begins with another time than its key" in problem for problem in problems(store))
    put(store, "chunks", key, value)
    assert problems(store) == []


def test_a_damaged_record_of_the_tail_is_named(store):
    ((key, value),) = values(store, "tail")
    for place in range(len(value)):
        damaged = bytearray(value)
        damaged[place] ^= 0x10
        put(store, "tail", key, bytes(damaged))
        assert any("live tail" in problem for problem in problems(store))
    drop(store, "tail", key)
    assert problems(store) == ["the index tells 3 rows in the tail, it holds 0"]


@pytest.mark.parametrize(("place", "said"), [(0, "ids 19 and 23"), (1, "ids 26 and 30")])
@pytest.mark.parametrize("is_repaired", [False, True])
def test_a_hole_that_the_ledger_does_not_know_as_open_is_named(store, place, said, is_repaired):
    key, value = values(store, ledger.DATABASE)[place]
    if is_repaired:
        known = msgspec.msgpack.decode(value, type=ledger.LedgerHole)
        series = key[: keys.SERIES_BYTES]
        store.env.write(lambda transaction: ledger.close_hole(transaction, series, known.hole, 1))
    else:
        drop(store, ledger.DATABASE, key)
    assert problems(store) == [f"1 holes are not in the ledger, first between {said}"]


def test_rows_without_ids_do_not_hide_a_hole(tmp_path, monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 3)
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        store = TickStore(env)
        with BulkWriter(store, BTC, Stream.TRADES) as writer:
            writer.add(trades([1, 2, 3, *[NO_ID] * 3, 9, 10, 11], np.arange(9) * MS))
            writer.finish()
        assert problems(store) == []
        ((key, _),) = values(store, ledger.DATABASE)
        drop(store, ledger.DATABASE, key)
        assert problems(store) == ["1 holes are not in the ledger, first between ids 3 and 9"]


def test_ids_that_are_not_numbered_one_by_one_are_no_damage(tmp_path, monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 50)
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        store = TickStore(env)
        with BulkWriter(store, BTC, Stream.TRADES) as writer:
            writer.add(trades(range(0, 3_000, 7)))
            writer.finish()
        assert problems(store) == []


def test_damaged_bars_are_named_as_well(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        bars = Bars(np.arange(5) * 3_600 * 10**9, *np.ones((5, 5)))
        env.write(lambda transaction: BarStore(env).merge(transaction, BTC, Timeframe.HOUR_1, bars, replace=False))
        (found,) = verify(env)
        assert (found.series, found.rows, found.problems) == ("bars 1Hour", 5, [])
        store = TickStore(env)
        ((key, value),) = values(store, "chunks")
        put(store, "chunks", key, value[:-1] + bytes([value[-1] ^ 1]))
        assert "a stored chunk is damaged" in problems(store)[0]


def test_chunks_without_an_index_entry_are_found(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        store = TickStore(env)
        rows = ticks(Stream.TRADES, price_decimals=0, size_decimals=0, time_ns=[1, 2], price=[1, 1], size=[1, 1])
        with BulkWriter(store, Instrument("local", "X"), Stream.TRADES) as writer:
            writer.add(rows)
            writer.finish()
        key = next(iter(env.write(lambda transaction: [key for key, _ in transaction.scan("series", b"")])))
        env.write(lambda transaction: transaction.delete("series", key))
        (found,) = verify(env)
        assert found.instrument == Instrument("local", "X")
        assert "no index entry" in found.problems[0]
