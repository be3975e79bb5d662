"""Files of ticks into the store: read whole first, then laid over what is there, or left out without a trace."""

import errno
import os
import stat
import sys

import numpy as np
import pytest
from naive import overlay as naive

from daemon.core.errors import Code, Conflict, InvalidRequest, SourceDataInvalid, StoreCorrupt, StoreFull
from daemon.core.market import Instrument
from daemon.core.ports import Hole, HoleReason, Verification
from daemon.core.ticks import BUY, COLUMNS, Kind, Stream, concatenate, ticks
from daemon.ingest import spools
from daemon.ingest.spools import Spool
from daemon.ingest.ticks import TickUpload, is_stored, spool, store_upload
from daemon.store import bulk, codec, ledger, upkeep
from daemon.store.env import Environment, StoreConfig
from daemon.store.tick_series import prefix_of
from daemon.store.ticks import TickStore
from daemon.store.verify import verify

BTC = Instrument("binance", "BTCUSDT")
MS, US = 1_000_000, 1_000
LEAST, MOST = -(1 << 63), (1 << 63) - 1
NOW_NS = 1_700_000_000_000_000_000
DAY = (0, 1_000 * MS)


class File:
    """A file of ticks as an adapter gives it."""

    def __init__(self, *parts, name="day.zip", sha256="ab", verification=Verification.VERIFIED, holes=(), error=None):
        self.parts, self.error = parts, error
        self.name, self.sha256, self.verification = name, sha256, verification
        self.notes, self.holes = ["read as milliseconds"], list(holes)

    def blocks(self):
        yield from self.parts
        if self.error is not None:
            raise self.error


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spools"


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 10)
    monkeypatch.setattr(bulk, "FLUSH_ROWS", 40)
    with Environment(tmp_path / "store", StoreConfig(sync=False)) as env:
        yield TickStore(env, lambda: NOW_NS)
        assert [problem for each in verify(env) for problem in each.problems] == []


def trades(ids, *, prices=None, unit=MS):
    ids = np.asarray(ids, dtype=np.int64)
    return ticks(
        Stream.TRADES,
        time_ns=(ids * MS + 345 * US) // unit * unit,
        id=ids,
        price=ids % 97 if prices is None else prices,
        size=np.ones(ids.size),
        side=np.full(ids.size, BUY),
        price_decimals=1,
        size_decimals=0,
    )


def leave(folder, file, **options):
    return spool(folder, BTC, file, stream=Stream.TRADES, **options)


def take(store, folder, file, **options):
    return store_upload(store, folder, leave(folder, file, **options))


def counts(report):
    return report.added, report.repeated, report.replaced


def ids(store):
    return store.read(BTC, Stream.TRADES).column("id").tolist()


def sources(store):
    with store.env.read() as transaction:
        return {each.name: each for each in ledger.sources(transaction, prefix_of(transaction, BTC, Stream.TRADES))}


def holes(store):
    with store.env.read() as transaction:
        return list(ledger.holes(transaction, prefix_of(transaction, BTC, Stream.TRADES)))


def left_over(folder):
    return list(folder.iterdir()) if folder.exists() else []


# Spools.


@pytest.mark.parametrize("stream", list(COLUMNS))
@pytest.mark.parametrize("decimals", [None, 0, 18])
def test_a_spool_gives_back_blocks_of_any_stream_bit_for_bit(folder, stream, decimals):
    rng = np.random.default_rng(0)

    def block(size):
        columns = {name: rng.integers(LEAST, MOST, size) for name in COLUMNS[stream]}
        for name, kind in COLUMNS[stream].items():
            if kind is Kind.CODE:
                columns[name] = rng.integers(-128, 128, size)
            elif kind in (Kind.PRICE, Kind.SIZE) and decimals is None:
                columns[name] = columns[name].view(np.float64)
        return ticks(stream, **columns, price_decimals=decimals, size_decimals=decimals)

    blocks = [block(size) for size in (3, 0, 1, 700)]
    with Spool(folder) as written:
        for rows in blocks:
            written.add(rows)
    (path,) = left_over(folder)
    found = list(spools.blocks(path, stream))
    assert [rows.size for rows in found] == [3, 1, 700]
    for rows, wanted in zip(found, (each for each in blocks if each.size), strict=True):
        assert (rows.price_decimals, rows.size_decimals) == (decimals, decimals)
        assert [column.dtype for column in rows.columns] == [column.dtype for column in wanted.columns]
        assert [column.tobytes() for column in rows.columns] == [column.tobytes() for column in wanted.columns]
    times = concatenate([each for each in blocks if each.size]).time_ns
    assert (written.rows, written.first_ns, written.last_ns) == (704, times.min(), times.max())


def test_a_spool_cut_short_or_damaged_is_noticed(folder):
    with Spool(folder) as written:
        written.add(trades(range(5)))
        written.add(trades(range(5, 9)))
    (path,) = left_over(folder)
    content = path.read_bytes()
    first = spools._HEAD.size + spools._HEAD.unpack_from(content)[0]  # noqa: SLF001 - where the first block ends
    for size in range(1, len(content)):
        path.write_bytes(content[:size])
        if size != first:
            with pytest.raises(StoreCorrupt):
                list(spools.blocks(path, Stream.TRADES))
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StoreCorrupt):
        list(spools.blocks(path, Stream.TRADES))


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_a_spool_is_its_user_s_alone(folder):
    with Spool(folder) as written:
        written.add(trades([1]))
    (path,) = left_over(folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_file_that_breaks_in_the_middle_leaves_nothing_behind(store, folder):
    file = File(trades(range(100)), error=SourceDataInvalid(Code.INVALID_REQUEST, "line 101: no price"))
    with pytest.raises(SourceDataInvalid):
        leave(folder, file)
    assert left_over(folder) == []
    assert store.series() == []


def test_a_spool_tells_what_it_holds_and_progress(folder):
    seen = []
    file = File(trades(range(3, 9)), trades([1]), holes=[Hole(1, 2, HoleReason.MISSING_BARS)])
    upload = leave(folder, file, progress=seen.append, span=DAY, replace=True)
    assert seen == [6, 1]
    (path,) = left_over(folder)
    assert upload.upload in path.name
    wanted = TickUpload(
        venue="binance",
        symbol="BTCUSDT",
        stream=Stream.TRADES,
        source="day.zip",
        upload=upload.upload,
        sha256="ab",
        verification=Verification.VERIFIED,
        rows=7,
        first_ns=MS,
        last_ns=8 * MS,
        span=DAY,
        holes=file.holes,
        notes=file.notes,
        replace=True,
    )
    assert upload == wanted


# Into the store.


def test_a_file_s_rows_and_its_record_are_stored_and_the_spool_is_gone(store, folder):
    report = take(store, folder, File(trades(range(50)), trades([*range(50, 70), 75])))
    assert counts(report) == (71, 0, 0)
    assert (report.instrument, report.rows, report.first_ns, report.last_ns) == ("binance:BTCUSDT", 71, 0, 75 * MS)
    assert report.open_holes == 1
    assert ids(store) == [*range(70), 75]
    assert left_over(folder) == []
    assert sources(store)["day.zip"] == ledger.Source(
        "day.zip", "ab", Verification.VERIFIED, 71, 71, 0, 0, 0, 75 * MS, NOW_NS, ["read as milliseconds"]
    )


def test_the_very_bytes_that_were_taken_in_are_known(store, folder):
    assert not is_stored(store, BTC, Stream.TRADES, "day.zip", "ab")
    take(store, folder, File(trades(range(5))))
    assert is_stored(store, BTC, Stream.TRADES, "day.zip", "ab")
    assert not is_stored(store, BTC, Stream.TRADES, "day.zip", "cd")
    assert not is_stored(store, BTC, Stream.TRADES, "other.zip", "ab")
    assert not is_stored(store, BTC, Stream.AGG_TRADES, "day.zip", "ab")
    take(store, folder, File(trades(range(5)), name="no sum", sha256=""))
    assert not is_stored(store, BTC, Stream.TRADES, "no sum", "")


def test_a_file_whose_rows_were_deleted_can_be_taken_in_again(store, folder):
    for name, start in (("a", 0), ("b", 50), ("c", 100)):
        take(store, folder, File(trades(range(start, start + 50)), name=name))
    upkeep.delete(store, BTC, Stream.TRADES, None, 60 * MS)
    assert [is_stored(store, BTC, Stream.TRADES, name, "ab") for name in "abc"] == [False, False, True]
    report = take(store, folder, File(trades(range(50, 100)), name="b"))
    assert counts(report) == (10, 40, 0)
    assert not any("anew" in note for note in report.notes)
    assert ids(store) == list(range(50, 150))


def test_the_same_file_again_repeats_its_rows(store, folder):
    for wanted in ((95, 0, 0), (0, 95, 0)):
        assert counts(take(store, folder, File(trades(range(95))))) == wanted
    assert sources(store)["day.zip"].repeated == 95


def test_a_file_that_its_venue_published_anew_replaces_the_rows_of_the_one_before(store, folder):
    take(store, folder, File(trades(range(60))))
    prices = np.where(np.arange(60) == 42, 96, np.arange(60) % 97)
    report = take(store, folder, File(trades(range(60), prices=prices), sha256="cd"))
    assert counts(report) == (0, 59, 1)
    assert "the venue published this file anew" in report.notes[-1]
    assert store.read(BTC, Stream.TRADES).column("price")[42] == 96
    assert sources(store)["day.zip"].sha256 == "cd"


@pytest.mark.parametrize("is_in_tail", [False, True])
@pytest.mark.parametrize("options", [{"name": "other.zip"}, {"sha256": "cd", "verification": Verification.UNVERIFIED}])
def test_a_file_that_contradicts_what_is_stored_leaves_nothing_half_written(store, folder, options, is_in_tail):
    take(store, folder, File(trades(range(60))))
    if is_in_tail:
        store.env.write(lambda transaction: store.append(transaction, BTC, trades(range(60, 65))))
    before, known = naive.rows_of(store.read(BTC, Stream.TRADES)), sources(store)
    wrong = 62 if is_in_tail else 58
    rows = trades(range(40, 120), prices=np.where(np.arange(40, 120) == wrong, 96, np.arange(40, 120) % 97))
    with pytest.raises(Conflict) as caught:
        take(store, folder, File(rows.rows(0, 10), rows.rows(10, 80), **options))
    assert caught.value.code == Code.TICKS_CONFLICT
    assert caught.value.details == {
        "file": options.get("name", "day.zip"),
        "rows": 1,
        "id": wrong,
        "time_ns": wrong * MS,
    }
    assert naive.rows_of(store.read(BTC, Stream.TRADES)) == before
    assert sources(store) == known
    assert left_over(folder) == []
    assert counts(take(store, folder, File(rows, **options), replace=True))[2] == 1


def test_a_file_in_a_finer_unit_that_begins_with_the_last_stored_trade_does_not_repeat_it(store, folder):
    take(store, folder, File(trades(range(30)), name="coarse"))
    fine = trades(range(29, 40), unit=US)
    assert counts(take(store, folder, File(fine, name="fine"))) == (10, 1, 0)
    assert ids(store) == list(range(40))
    wrong = trades(range(39, 50), prices=np.full(11, 5))
    with pytest.raises(Conflict):
        take(store, folder, File(wrong, name="wrong"))
    assert ids(store) == list(range(40))


def test_an_upload_that_is_not_there_is_refused(store, folder):
    for upload in ("0" * 32, "../../etc/passwd", "x"):
        with pytest.raises(InvalidRequest) as caught:
            store_upload(
                store, folder, TickUpload(venue="binance", symbol="X", stream=Stream.TRADES, source="s", upload=upload)
            )
        assert caught.value.code == Code.INVALID_REQUEST


# Holes.


def note(store, folder, *found):
    """Record holes that no rows come with."""
    upload = TickUpload(venue="binance", symbol="BTCUSDT", stream=Stream.TRADES, source="day.zip", holes=list(found))
    return store_upload(store, folder, upload)


@pytest.mark.parametrize("reason", [HoleReason.MISSING_FILE, HoleReason.QUARANTINED])
def test_a_stretch_without_its_file_is_a_hole_until_a_file_of_the_stretch_brings_rows_of_it(store, folder, reason):
    assert note(store, folder, Hole(*DAY, reason)).open_holes == 1
    assert store.series() == []
    shorter, longer = (DAY[0], DAY[1] - 1), (DAY[0], DAY[1] + 5_000 * MS)
    assert take(store, folder, File(trades(range(2_000, 2_009)), name="elsewhere"), span=longer).open_holes == 1
    assert take(store, folder, File(trades(range(1_995, 2_000)), name="of no stretch")).open_holes == 1
    assert take(store, folder, File(trades([])), span=DAY).open_holes == 1
    assert take(store, folder, File(trades(range(990, 2_000)), name="part"), span=shorter).open_holes == 1
    assert take(store, folder, File(trades(range(980, 990))), span=DAY).open_holes == 0
    (known,) = holes(store)
    assert (known.hole, known.repaired_at_ns) == (Hole(*DAY, reason), NOW_NS)


def test_other_holes_of_the_same_stretch_stay_open(store, folder):
    note(store, folder, Hole(*DAY, HoleReason.DISCONNECT))
    assert take(store, folder, File(trades(range(9))), span=DAY).open_holes == 1


def test_a_hole_keeps_the_time_it_was_found_at_when_it_is_closed(store, folder):
    note(store, folder, Hole(*DAY, HoleReason.MISSING_FILE))
    later = TickStore(store.env, lambda: NOW_NS + 5)
    take(later, folder, File(trades(range(9))), span=DAY)
    assert [(each.found_at_ns, each.repaired_at_ns) for each in holes(store)] == [(NOW_NS, NOW_NS + 5)]


def test_a_hole_between_ids_that_a_file_tells_of_is_one_only_where_the_rows_are_not_stored(store, folder):
    take(store, folder, File(trades(range(5, 10)), name="first"))
    found = [Hole(4 * MS, 10 * MS, HoleReason.IDS, 4, 10, 5), Hole(15 * MS, 20 * MS, HoleReason.IDS, 15, 20, 4)]
    report = take(store, folder, File(trades([*range(5), *range(10, 16), *range(20, 25)]), holes=found))
    assert report.open_holes == 1
    assert [(each.hole.after_id, each.hole.before_id) for each in holes(store) if not each.repaired_at_ns] == [(15, 20)]


# Full.


class FullDisk:
    """A file on a disk that takes some bytes and no more."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, content):
        self.room -= len(content)
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(content)

    def close(self):
        self.file.close()
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("room", [0, 10, 400, 900])
def test_a_disk_that_fills_up_while_a_spool_is_written_is_told_and_leaves_no_spool(folder, monkeypatch, room):
    opens = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *arguments: FullDisk(opens(*arguments), room))
    noise = np.random.default_rng(0).integers(0, MOST, 1_000)
    with pytest.raises(StoreFull) as caught:
        leave(
            folder,
            File(*(trades(range(each, each + 10), prices=noise[each : each + 10]) for each in range(0, 900, 10))),
        )
    assert caught.value.code == Code.STORE_FULL
    assert str(folder) in caught.value.message
    assert left_over(folder) == []


def test_a_disk_without_room_for_a_spool_is_told(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(StoreFull) as caught:
        leave(folder, File(trades([1])))
    assert caught.value.code == Code.STORE_FULL
    monkeypatch.undo()
    assert left_over(folder) == []


def test_a_full_store_keeps_what_is_whole_and_the_file_can_come_again(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(bulk, "FLUSH_ROWS", 5_000)
    monkeypatch.setattr(codec, "CHUNK_ROWS", 1_000)
    noise = np.random.default_rng(0).integers(0, 1 << 62, 150_000)
    file = File(
        *(trades(range(each, each + 5_000), prices=noise[each : each + 5_000]) for each in range(0, 150_000, 5_000))
    )
    with monkeypatch.context() as patch:
        patch.setattr(StoreConfig, "max_map_bytes", property(lambda _: 1 << 20))
        with Environment(tmp_path / "small", StoreConfig(map_mb=1, sync=False)) as env:
            small = TickStore(env)
            with pytest.raises(StoreFull) as caught:
                take(small, folder, file)
            assert caught.value.code == Code.STORE_FULL
            found = ids(small)
            assert found == list(range(len(found)))
            assert not is_stored(small, BTC, Stream.TRADES, "day.zip", "ab")
    assert left_over(folder) == []
    with Environment(tmp_path / "small", StoreConfig(sync=False)) as env:
        small = TickStore(env)
        assert counts(take(small, folder, file)) == (150_000 - len(found), len(found), 0)
        assert [problem for each in verify(env) for problem in each.problems] == []
