"""Many rows into one series: appended, laid over, refused whole, in any order."""

import itertools

import numpy as np
import pytest
from naive import overlay as naive

from daemon.core.errors import Code, Conflict, StoreFull
from daemon.core.market import Instrument
from daemon.core.ticks import BUY, NO_ID, Stream, ticks
from daemon.store import bulk, codec
from daemon.store.bulk import BulkWriter, Written
from daemon.store.env import Environment, StoreConfig
from daemon.store.tick_chunks import decode
from daemon.store.tick_series import prefix_of
from daemon.store.ticks import TickStore
from daemon.store.verify import verify

BTC = Instrument("binance", "BTCUSDT")
MS, US = 1_000_000, 1_000


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 10)
    monkeypatch.setattr(bulk, "FLUSH_ROWS", 40)
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield TickStore(env)
        assert [problem for each in verify(env) for problem in each.problems] == []


def trades(ids, times=None, *, prices=None):
    ids = np.asarray(ids, dtype=np.int64)
    return ticks(
        Stream.TRADES,
        time_ns=ids * MS if times is None else times,
        id=ids,
        price=ids % 97 if prices is None else prices,
        size=np.ones(ids.size),
        side=np.full(ids.size, BUY),
        price_decimals=1,
        size_decimals=0,
    )


def write(store, *parts, replace=False):
    with BulkWriter(store, BTC, Stream.TRADES, replace=replace) as writer:
        for rows in parts:
            writer.add(rows)
        return writer.finish()


def append(store, rows):
    return store.env.write(lambda transaction: store.append(transaction, BTC, rows))


def ids(store):
    return store.read(BTC, Stream.TRADES).column("id").tolist()


def chunks(store):
    with store.env.read() as transaction:
        return {key: bytes(value) for key, value in transaction.scan("chunks", b"")}


def chunk_rows(store):
    return [codec.rows(value) for value in chunks(store).values()]


def in_blocks(rows, size):
    return [rows.rows(start, start + size) for start in range(0, rows.size, size)]


def test_rows_behind_all_others_fill_the_last_chunk_before_they_begin_another(store):
    for start in range(0, 25, 5):
        assert write(store, trades(range(start, start + 5))) == Written(added=5)
    assert chunk_rows(store) == [10, 10, 5]
    assert ids(store) == list(range(25))


@pytest.mark.parametrize("block", [1, 7, 40, 41, 400])
def test_chunks_are_full_but_the_last_however_the_rows_come_in_blocks(store, block):
    assert write(store, *in_blocks(trades(range(123)), block)) == Written(added=123)
    assert chunk_rows(store) == [10] * 12 + [3]


def test_rows_are_written_a_flush_at_a_time_and_no_more_than_that_wait(store):
    with BulkWriter(store, BTC, Stream.TRADES) as writer:
        most = 0
        for rows in in_blocks(trades(range(1_000)), 8):
            writer.add(rows)
            waiting = sum(part.size for part in writer._pending)  # noqa: SLF001 - what it holds in memory
            assert store.count(BTC, Stream.TRADES) + waiting == int(rows.column("id")[-1]) + 1
            most = max(most, waiting)
        assert most < 40
        assert store.count(BTC, Stream.TRADES) >= 960
        assert writer.finish().added == 1_000


def test_memory_is_that_of_the_chunks_that_rows_fall_into(store, monkeypatch):
    write(store, trades(range(0, 2_000, 2)))
    most = []
    lay_over = bulk.lay_over

    def noted(stored, new, **options):
        most.append(stored.size + new.size)
        return lay_over(stored, new, **options)

    monkeypatch.setattr(bulk, "lay_over", noted)
    # A row every fifty, over all chunks: each flush meets all of them, one after another.
    assert write(store, trades(range(1, 2_000, 50))).added == 40
    assert max(most) <= 50


def test_a_block_that_is_not_finished_is_not_stored(store):
    with BulkWriter(store, BTC, Stream.TRADES) as writer:
        writer.add(trades(range(39)))
    assert store.series() == []
    with store.env.read() as transaction:
        assert prefix_of(transaction, BTC, Stream.TRADES) is None


def test_nothing_added_is_nothing_written(store):
    assert write(store, trades([])) == Written()
    assert write(store) == Written()
    assert store.series() == []


def test_rows_between_stored_ones_are_laid_into_their_chunks_and_the_others_stay(store):
    write(store, trades(range(0, 200, 2)))
    before = chunks(store)
    assert write(store, trades([51, 53, 52])) == Written(added=2, repeated=1)
    after = chunks(store)
    assert len(before.keys() - {key for key, value in after.items() if before.get(key) == value}) == 1
    assert ids(store) == sorted([*range(0, 200, 2), 51, 53])


def test_the_same_rows_again_write_nothing(store):
    rows = trades(range(95))
    write(store, rows)
    before = chunks(store)
    for parts in ([rows], in_blocks(rows, 9), in_blocks(rows, 9)[::-1], [rows.take(np.arange(95)[::-1])]):
        assert write(store, *parts) == Written(repeated=95)
        assert chunks(store) == before


def test_files_in_any_order_give_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 10)
    monkeypatch.setattr(bulk, "FLUSH_ROWS", 40)
    # Overlapping files, one of them out of order.
    files = [trades(range(60)), trades(range(50, 130)), trades([*range(120, 160)][::-1]), trades(range(155, 190))]
    for order in itertools.permutations(range(4)):
        folder = tmp_path / "".join(map(str, order))
        with Environment(folder, StoreConfig(sync=False)) as env:
            store = TickStore(env)
            added = sum(write(store, *in_blocks(files[place], 16)).added for place in order)
            assert added == 190
            assert ids(store) == list(range(190))
            assert store.streams(BTC)[Stream.TRADES].open_holes == 0
            assert [problem for each in verify(env) for problem in each.problems] == []


@pytest.mark.parametrize("is_backwards", [False, True])
@pytest.mark.parametrize("block", [3, 16])
def test_equal_rows_without_ids_are_as_many_as_the_file_has_wherever_a_flush_ends(store, is_backwards, block):
    times = np.sort(np.random.default_rng(block).integers(0, 40, 300))
    order = slice(None, None, -1 if is_backwards else 1)
    rows = trades(np.full(300, NO_ID), times[order], prices=np.ones(300))
    assert write(store, *in_blocks(rows, block)) == Written(added=300)
    assert write(store, *in_blocks(rows, block)) == Written(repeated=300)
    assert store.count(BTC, Stream.TRADES) == 300


def test_the_tail_is_laid_down_first_where_rows_meet_it(store):
    append(store, trades(range(20, 25)))
    assert write(store, trades(range(18, 23))) == Written(added=2, repeated=3)
    assert store.streams(BTC)[Stream.TRADES].tail_rows == 0
    assert ids(store) == list(range(18, 25))


def test_a_tail_elsewhere_is_left_alone(store):
    append(store, trades(range(500, 505)))
    assert write(store, trades(range(20))) == Written(added=20)
    assert store.streams(BTC)[Stream.TRADES].tail_rows == 5
    assert ids(store) == [*range(20), *range(500, 505)]
    assert append(store, trades(range(500, 506))) == 1


@pytest.mark.parametrize("live", [range(25, 30), range(25, 36), range(103, 108)], ids=str)
@pytest.mark.parametrize("file", [range(25, 60), range(10, 30), [*range(5), 50], range(-40, 25)], ids=str)
def test_what_a_feed_commits_while_chunks_are_encoded_is_neither_lost_nor_doubled(store, monkeypatch, live, file):
    write(store, trades(range(100, 103)), trades(range(25)))
    encode, waiting = BulkWriter._encode, [live]  # noqa: SLF001 - the moment between reading and committing

    def meanwhile(writer, *arguments):
        while waiting:
            append(store, trades(waiting.pop()))
        return encode(writer, *arguments)

    monkeypatch.setattr(BulkWriter, "_encode", meanwhile)
    write(store, trades(file), trades([101, 24]))
    assert ids(store) == sorted({*range(25), *range(100, 103), *live, *file})
    assert store.count(BTC, Stream.TRADES) == len(ids(store))


def test_two_files_of_one_series_may_be_written_at_once(store, monkeypatch):
    encode, waiting = BulkWriter._encode, [range(0, 60, 2)]  # noqa: SLF001 - the moment between reading and committing

    def meanwhile(writer, *arguments):
        while waiting:
            write(store, trades(waiting.pop()))
        return encode(writer, *arguments)

    monkeypatch.setattr(BulkWriter, "_encode", meanwhile)
    assert write(store, trades(range(60))) == Written(added=30, repeated=30)
    assert ids(store) == list(range(60))


@pytest.mark.parametrize("first", ["ms", "us"])
def test_the_same_ids_in_another_unit_of_time_are_repeated_at_every_chunk_border(store, first):
    exact = np.arange(120) * 700 * US + 345 * US
    units = {"us": exact, "ms": exact // MS * MS}
    second = "us" if first == "ms" else "ms"
    write(store, trades(range(100), units[first][:100]))
    for start in range(110):
        stop = start + 10
        added = max(0, stop - max(start, store.count(BTC, Stream.TRADES)))
        assert write(store, trades(range(start, stop), units[second][start:stop])) == Written(added, 10 - added)
    assert ids(store) == list(range(119))


def test_a_conflict_with_what_is_stored_is_found_before_anything_is_written(store):
    write(store, trades(range(30)))
    append(store, trades(range(30, 35)))
    before = chunks(store)
    for wrong in (3, 29, 33):
        rows = trades(range(100), prices=np.where(np.arange(100) == wrong, 96, np.arange(100) % 97))
        with BulkWriter(store, BTC, Stream.TRADES) as writer, pytest.raises(Conflict) as caught:
            writer.rehearse(rows)
        assert caught.value.code == Code.TICKS_CONFLICT
        assert caught.value.details == {"rows": 1, "id": wrong, "time_ns": wrong * MS}
        assert str(wrong) in caught.value.message
        assert "--replace" in caught.value.message
    assert chunks(store) == before
    assert ids(store) == list(range(35))


def test_a_rehearsal_of_rows_that_agree_changes_nothing(store):
    with BulkWriter(store, BTC, Stream.TRADES) as writer:
        writer.rehearse(trades(range(9)))
    assert store.series() == []
    write(store, trades(range(30)))
    append(store, trades([40]))
    with BulkWriter(store, BTC, Stream.TRADES) as writer:
        writer.rehearse(trades(range(60)))
        assert writer.finish() == Written()
    assert store.streams(BTC)[Stream.TRADES].tail_rows == 1


def test_a_row_told_twice_in_one_file_counts_once_and_two_words_on_it_are_a_conflict(store):
    assert write(store, trades([1, 2, 2, 3])) == Written(added=3, repeated=1)
    with pytest.raises(Conflict) as caught:
        write(store, trades([7, 8, 8], prices=[7, 8, 9]))
    assert caught.value.details["id"] == 8
    assert ids(store) == [1, 2, 3]


@pytest.mark.parametrize("is_live", [False, True])
def test_replacing_takes_the_new_rows_where_they_differ(store, is_live):
    write(store, trades(range(50)))
    if is_live:
        append(store, trades(range(50, 55)))
    wrong = trades(range(20, 60), prices=np.where(np.arange(20, 60) % 7 == 0, 5, np.arange(20, 60) % 97))
    stored = 55 if is_live else 50
    differing = sum(each % 7 == 0 and each != 5 for each in range(20, stored))
    written = write(store, *in_blocks(wrong, 6), replace=True)
    assert written == Written(added=60 - stored, repeated=stored - 20 - differing, replaced=differing)
    prices = store.read(BTC, Stream.TRADES).column("price").tolist()
    assert prices == [*range(20), *wrong.column("price").tolist()]


def test_streams_other_than_trades_are_written_the_same_way(store):
    size = 60
    rows = ticks(
        Stream.DEPTH,
        time_ns=np.arange(size) // 4 * MS,
        id=np.arange(size) // 4,
        side=np.where(np.arange(size) % 2, 1, -1),
        price=np.arange(size) % 4,
        size=np.arange(size),
        price_decimals=0,
        size_decimals=0,
    )
    for wanted in (Written(added=size), Written(repeated=size)):
        with BulkWriter(store, BTC, Stream.DEPTH) as writer:
            for part in in_blocks(rows, 11):
                writer.add(part)
            assert writer.finish() == wanted
    assert naive.rows_of(store.read(BTC, Stream.DEPTH)) == naive.in_order(naive.rows_of(rows))
    assert max(chunk_rows(store)) <= 10


def test_what_was_written_before_the_store_was_full_is_whole_and_the_rest_can_follow(tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "FLUSH_ROWS", 5_000)
    monkeypatch.setattr(codec, "CHUNK_ROWS", 1_000)
    monkeypatch.setattr(StoreConfig, "max_map_bytes", property(lambda _: 1 << 20))
    noise = np.random.default_rng(0).integers(0, 1 << 62, 200_000)
    parts = in_blocks(trades(range(200_000), prices=noise), 5_000)
    with Environment(tmp_path, StoreConfig(map_mb=1, sync=False)) as env:
        store = TickStore(env)
        with pytest.raises(StoreFull):
            write(store, *parts)
        found = ids(store)
        assert found == list(range(len(found)))
        assert len(found) > 0
        assert [problem for each in verify(env) for problem in each.problems] == []
    monkeypatch.undo()
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        written = write(TickStore(env), *parts)
        assert (written.added, written.repeated) == (200_000 - len(found), len(found))


def test_encoded_chunks_hold_the_rows_that_their_keys_say(store):
    write(store, trades(range(33)))
    with store.env.read() as transaction:
        for key, value in transaction.scan("chunks", b""):
            assert int.from_bytes(key[-8:], "big") - (1 << 63) == decode(value, Stream.TRADES).time_ns[0]
