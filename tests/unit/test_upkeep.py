"""Keeping stored ticks in shape: deleting, joining small chunks, letting old rows go."""

import numpy as np
import pytest

from daemon.core.market import NS_PER_DAY, Instrument
from daemon.core.ticks import BUY, Stream, ticks
from daemon.store import codec, upkeep
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.ticks import TickStore
from daemon.store.upkeep import Compaction, RetentionConfig
from daemon.store.verify import verify

BTC, ETH = Instrument("binance", "BTCUSDT"), Instrument("binance", "ETHUSDT")
MS = 1_000_000
LEAST, MOST = -(1 << 63), (1 << 63) - 1
NOW_NS = 1_000 * NS_PER_DAY


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 10)
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield TickStore(env, lambda: NOW_NS)
        assert [problem for each in verify(env) for problem in each.problems] == []


def trades(ids, times=None, stream=Stream.TRADES):
    ids = np.asarray(ids, dtype=np.int64)
    more = {"first_id": ids, "last_id": ids} if stream is Stream.AGG_TRADES else {}
    return ticks(
        stream,
        time_ns=ids * MS if times is None else times,
        id=ids,
        price=ids % 50,
        size=np.ones(ids.size),
        side=np.full(ids.size, BUY),
        price_decimals=0,
        size_decimals=0,
        **more,
    )


def write(store, rows, instrument=BTC):
    with BulkWriter(store, instrument, rows.stream) as writer:
        writer.add(rows)
        writer.finish()


def append(store, rows, instrument=BTC):
    store.env.write(lambda transaction: store.append(transaction, instrument, rows))


def ids(store, instrument=BTC, stream=Stream.TRADES):
    return store.read(instrument, stream).column("id").tolist()


def chunk_rows(store):
    with store.env.read() as transaction:
        return [codec.rows(value) for _, value in transaction.scan("chunks", b"")]


def delete(store, low, high):
    edges = (None if edge is None else edge * MS for edge in (low, high))
    return upkeep.delete(store, BTC, Stream.TRADES, *edges)


# Deleting.


@pytest.mark.parametrize("low", [None, -5, 0, 1, 9, 10, 11, 29, 34, 35, 99])
@pytest.mark.parametrize("high", [None, -1, 0, 1, 10, 20, 21, 34, 35, 36, 99])
def test_deleting_takes_the_rows_of_the_half_open_range_and_no_others(store, low, high):
    write(store, trades(range(30)))
    append(store, trades(range(30, 35)))
    append(store, trades([35]))
    inside = [each for each in range(36) if (low is None or each >= low) and (high is None or each < high)]
    assert delete(store, low, high) == len(inside)
    assert ids(store) == [each for each in range(36) if each not in inside]
    assert delete(store, low, high) == 0


def test_deleting_everything_leaves_no_series_and_it_can_begin_again(store):
    write(store, trades(range(30)))
    append(store, trades(range(30, 33)))
    write(store, trades(range(5)), ETH)
    assert delete(store, None, None) == 33
    assert [each.instrument for each in store.series()] == [ETH]
    with store.env.read() as transaction:
        assert len(list(transaction.scan("chunks", b""))) == 1
        assert list(transaction.scan("tail", b"")) == []
    append(store, trades([3, 4]))
    write(store, trades(range(4)))
    assert ids(store) == list(range(5))


def test_the_end_of_what_is_left_decides_what_is_new(store):
    write(store, trades(range(30)))
    delete(store, 20, None)
    append(store, trades(range(15, 25)))
    assert ids(store) == list(range(25))


def test_deleting_more_chunks_than_one_step_takes(store, monkeypatch):
    monkeypatch.setattr(upkeep, "_STEP", 3)
    write(store, trades(range(200)))
    assert delete(store, 15, 185) == 170
    assert ids(store) == [*range(15), *range(185, 200)]
    series = store.streams(BTC)[Stream.TRADES]
    assert (series.rows, series.open_holes) == (30, 1)


def test_rows_of_one_time_go_together(store):
    times = np.array([0] * 5 + [1] * 15 + [2] * 15)
    write(store, trades(range(35), times))
    assert upkeep.delete(store, BTC, Stream.TRADES, 1, 2) == 15
    assert ids(store) == [*range(5), *range(20, 35)]


def test_deleting_from_a_series_that_is_not_there(store):
    assert delete(store, None, None) == 0
    write(store, trades([1]), ETH)
    assert delete(store, None, None) == 0


# Joining.


def test_small_chunks_are_joined_and_readers_see_the_same_rows(store):
    write(store, trades(range(120)))
    for start in range(0, 120, 10):
        delete(store, start + 3, start + 8)
    append(store, trades(range(120, 124)))
    before = store.read(BTC, Stream.TRADES)
    assert chunk_rows(store) == [3, 2] * 12
    done = upkeep.compact(store, BTC, Stream.TRADES)
    after = store.read(BTC, Stream.TRADES)
    assert [column.tolist() for column in after.columns] == [column.tolist() for column in before.columns]
    assert after.size == 64
    assert store.streams(BTC)[Stream.TRADES].tail_rows == 0
    assert done.chunks_after == len(chunk_rows(store)) < done.chunks_before
    assert max(chunk_rows(store)) <= 10
    assert all(a + b > 10 for a, b in zip(chunk_rows(store), chunk_rows(store)[1:], strict=False))
    assert done.bytes_after == store.streams(BTC)[Stream.TRADES].stored_bytes


def test_a_store_in_shape_is_left_alone(store):
    write(store, trades(range(45)))
    first = upkeep.compact(store, BTC, Stream.TRADES)
    assert first == Compaction(5, 5, first.bytes_before, first.bytes_before)
    assert upkeep.compact(store, ETH, Stream.TRADES) == Compaction(0, 0, 0, 0)


def test_chunks_that_changed_since_they_were_chosen_are_not_joined(store, monkeypatch):
    for start in (0, 3, 6):
        write(store, trades(range(start * 10, start * 10 + 3)))
        delete(store, start * 10 + 1, start * 10 + 2)
    chosen = upkeep._small_neighbours  # noqa: SLF001 - to change the store right behind it

    def meanwhile(*arguments):
        groups = chosen(*arguments)
        write(store, trades(range(3, 13)))
        append(store, trades([100]))
        return groups

    monkeypatch.setattr(upkeep, "_small_neighbours", meanwhile)
    before = ids(store)
    upkeep.compact(store, BTC, Stream.TRADES)
    assert ids(store) == sorted({*before, *range(3, 13), 100})


# Retention.


def days_old(*ages, stream=Stream.TRADES):
    """A row for each age in days, the oldest first."""
    ages = sorted(ages, reverse=True)
    return trades(range(len(ages)), [NOW_NS - int(age * NS_PER_DAY) for age in ages], stream)


def test_rows_older_than_their_stream_may_be_go(store):
    write(store, days_old(0, 1, 5, 9.99, 10, 10.01, 400))
    write(store, days_old(3, 400), ETH)
    write(store, days_old(400, stream=Stream.AGG_TRADES))
    config = RetentionConfig(max_age_days={"trades": 10})
    assert upkeep.retain(store, config) == {(BTC, Stream.TRADES): 2, (ETH, Stream.TRADES): 1}
    assert ids(store) == [2, 3, 4, 5, 6]
    assert ids(store, stream=Stream.AGG_TRADES) == [0]
    assert upkeep.retain(store, config) == {}


def test_old_rows_that_came_late_to_the_tail_go_as_well(store):
    append(store, days_old(1))
    append(store, trades([7], [NOW_NS - 30 * NS_PER_DAY]))
    assert upkeep.retain(store, RetentionConfig(max_age_days={"trades": 7.5})) == {(BTC, Stream.TRADES): 1}
    assert ids(store) == [0]


def test_without_limits_nothing_goes(store):
    write(store, days_old(*range(40)))
    assert upkeep.retain(store, RetentionConfig()) == {}
    assert store.count(BTC, Stream.TRADES) == 40


def test_above_the_size_the_oldest_rows_of_all_series_go_until_it_is_met(store):
    write(store, trades(range(100)))
    write(store, trades(range(50, 150)), ETH)
    total = sum(each.stored_bytes for each in store.series())
    limit = total * 0.6 / (1 << 30)
    deleted = upkeep.retain(store, RetentionConfig(max_gb=limit))
    left = sum(each.stored_bytes for each in store.series())
    assert total * 0.5 < left <= total * 0.6
    assert deleted.keys() == {(BTC, Stream.TRADES), (ETH, Stream.TRADES)}
    starts = [ids(store)[0], ids(store, ETH)[0]]
    assert abs(starts[0] - starts[1]) <= 10
    assert ids(store)[-1] == 99
    assert ids(store, ETH)[-1] == 149
    assert sum(deleted.values()) == 200 - len(ids(store)) - len(ids(store, ETH))


def test_each_series_keeps_its_last_chunk_however_small_the_store_may_be(store):
    write(store, trades(range(35)))
    append(store, trades([35]))
    write(store, trades(range(3)), ETH)
    upkeep.retain(store, RetentionConfig(max_gb=1e-9))
    assert ids(store) == list(range(30, 36))
    assert ids(store, ETH) == [0, 1, 2]
