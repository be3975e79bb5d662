"""The gap ledger: holes found from ids in any order of writing, closed by whatever fills them; sources."""

import itertools

import numpy as np
import pytest

from daemon.core.market import Instrument
from daemon.core.ports import Hole, HoleReason, Verification
from daemon.core.ticks import BUY, NO_ID, Stream, ticks
from daemon.store import codec, ledger, tick_series, upkeep
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.ledger import LedgerHole, Source
from daemon.store.tick_series import prefix_of
from daemon.store.ticks import TickStore
from daemon.store.verify import verify

BTC = Instrument("binance", "BTCUSDT")
MS = 1_000_000
KEY = b"k" * 13
NOW_NS = 1_700_000_000_000_000_000


class Clock:
    def __init__(self):
        self.now_ns = NOW_NS

    def __call__(self):
        self.now_ns += 1
        return self.now_ns


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 10)
    monkeypatch.setattr(tick_series, "_MARGIN_ROWS", 10)
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield TickStore(env, Clock())
        assert [problem for each in verify(env) for problem in each.problems] == []


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as opened:
        yield opened


def trades(ids, times=None, stream=Stream.TRADES):
    ids = np.asarray(ids, dtype=np.int64)
    more = {"first_id": ids, "last_id": ids} if stream is Stream.AGG_TRADES else {}
    ones = np.ones(ids.size)
    return ticks(
        stream,
        time_ns=ids * MS if times is None else times,
        id=ids,
        price=ones,
        size=ones,
        side=np.full(ids.size, BUY),
        price_decimals=0,
        size_decimals=0,
        **more,
    )


def write(store, ids, **options):
    rows = trades(ids, **options)
    with BulkWriter(store, BTC, rows.stream) as writer:
        writer.add(rows)
        writer.finish()


def append(store, ids, reason=HoleReason.IDS, **options):
    return store.env.write(lambda transaction: store.append(transaction, BTC, trades(ids, **options), reason))


def holes(store, stream=Stream.TRADES):
    with store.env.read() as transaction:
        return list(ledger.holes(transaction, prefix_of(transaction, BTC, stream)))


def still_open(store, stream=Stream.TRADES):
    return [(each.hole.after_id, each.hole.before_id) for each in holes(store, stream) if not each.repaired_at_ns]


def between(after, before, reason=HoleReason.IDS):
    return Hole(after * MS, before * MS, reason, after, before, before - after - 1)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
@pytest.mark.parametrize("is_live", [False, True])
def test_holes_between_ids_are_found_in_whatever_order_the_rows_come(store, order, is_live):
    parts = [range(8), [*range(12, 20), *range(22, 30)], range(30, 33), range(40, 55)]
    for place in order:
        (append if is_live else write)(store, parts[place])
    found = [each for each in holes(store) if not each.repaired_at_ns]
    assert [each.hole for each in found] == [between(7, 12), between(19, 22), between(32, 40)]
    assert all(each.found_at_ns > NOW_NS for each in found)
    assert store.streams(BTC)[Stream.TRADES].open_holes == 3


def test_the_first_batch_of_a_series_may_have_a_hole(store):
    append(store, [5, 6, 9])
    assert still_open(store) == [(6, 9)]


@pytest.mark.parametrize("is_live", [False, True])
def test_a_hole_that_is_filled_is_repaired_and_stays_on_record(store, is_live):
    append(store, range(5))
    append(store, range(9, 40))
    ((found_at_ns,),) = [[each.found_at_ns] for each in holes(store)]
    (append if is_live else write)(store, range(5, 9))
    (known,) = holes(store)
    assert known.hole == between(4, 9)
    assert known.found_at_ns == found_at_ns < known.repaired_at_ns
    assert store.streams(BTC)[Stream.TRADES].open_holes == 0


@pytest.mark.parametrize("is_live", [False, True])
@pytest.mark.parametrize("filled", [[5, 6], [18, 19], [10], [5, 19], [7, 12]], ids=str)
def test_what_is_left_of_a_partly_filled_hole_stays_open_under_its_first_reason(store, is_live, filled):
    append(store, range(5))
    append(store, range(20, 25), HoleReason.DISCONNECT)
    found_at_ns = holes(store)[0].found_at_ns
    (append if is_live else write)(store, filled)
    ids = sorted([4, 20, *filled])
    wanted = [between(*pair, HoleReason.DISCONNECT) for pair in itertools.pairwise(ids) if pair[1] - pair[0] > 1]
    assert [each.hole for each in holes(store)] == wanted
    assert {each.found_at_ns for each in holes(store)} == {found_at_ns}
    write(store, range(5, 20))
    assert still_open(store) == []


def test_the_reason_is_that_of_the_rows_after_the_hole(store):
    append(store, range(3))
    append(store, [5], HoleReason.DISCONNECT)
    append(store, [8])
    assert [each.hole.reason for each in holes(store)] == [HoleReason.DISCONNECT, HoleReason.IDS]


def test_rows_on_both_sides_of_a_hole_leave_it_as_it_is(store):
    write(store, [*range(100, 105), *range(109, 115)])
    before = holes(store)
    write(store, range(115, 130))
    append(store, range(130, 145))
    write(store, range(80, 105))
    assert holes(store) == before


def test_aggregated_trades_have_holes_too_and_series_do_not_mix(store):
    write(store, [1, 2, 5], stream=Stream.AGG_TRADES)
    write(store, [1, 2])
    assert still_open(store, Stream.AGG_TRADES) == [(2, 5)]
    assert holes(store) == []


def test_rows_without_ids_have_no_holes_and_do_not_hide_those_of_others(store):
    write(store, [NO_ID] * 3, times=[MS, 5 * MS, 9 * MS])
    append(store, [NO_ID] * 2, times=[20 * MS, 30 * MS])
    assert holes(store) == []
    write(store, [2, NO_ID, 6], times=[2 * MS, 4 * MS, 6 * MS])
    assert still_open(store) == [(2, 6)]


def test_ids_that_do_not_quite_follow_the_time_have_no_holes(store):
    ids = np.arange(60)
    times = ids * MS + np.where(ids % 4 == 3, 2_500_000, 0)
    for start in (0, 20, 40):
        write(store, ids[start : start + 10], times=times[start : start + 10])
    for start in (50, 10, 30):
        append(store, ids[start : start + 10], times=times[start : start + 10])
    append(store, [60, 61])
    assert still_open(store) == []


def test_ids_that_are_not_numbered_one_by_one_leave_the_ledger_as_it_is(store):
    write(store, [*range(5), *range(9, 12)])
    before = holes(store)
    write(store, range(1_000, 5_000, 3))
    assert [each for each in holes(store) if each.hole.before_id < 1_000] == before
    assert len(holes(store)) <= 2


def test_deleting_forgets_the_holes_inside_and_finds_the_one_it_leaves(store):
    write(store, [*range(10), *range(15, 20), *range(25, 40)])
    assert still_open(store) == [(9, 15), (19, 25)]
    upkeep.delete(store, BTC, Stream.TRADES, 16 * MS, 30 * MS)
    assert still_open(store) == [(9, 15), (15, 30)]
    write(store, range(16, 30))
    assert still_open(store) == [(9, 15)]


@pytest.mark.parametrize("edges", [(None, 17), (17, None), (None, None), (None, 12), (12, None)])
def test_deleting_an_end_leaves_no_hole_there(store, edges):
    write(store, [*range(10), *range(15, 20), *range(25, 40)])
    start, stop = (None if edge is None else edge * MS for edge in edges)
    upkeep.delete(store, BTC, Stream.TRADES, start, stop)
    wanted = {(None, 17): [(19, 25)], (17, None): [(9, 15)], (None, None): [], (None, 12): [(19, 25)], (12, None): []}
    assert still_open(store) == wanted[edges]
    assert all(each.repaired_at_ns == 0 for each in holes(store))


def test_a_hole_that_opens_again_where_one_was_repaired_is_open(store):
    write(store, [*range(5), *range(9, 15)])
    write(store, range(5, 9))
    assert still_open(store) == []
    upkeep.delete(store, BTC, Stream.TRADES, 5 * MS, 9 * MS)
    assert still_open(store) == [(4, 9)]


# The ledger alone.


def test_a_known_hole_is_recorded_once_and_keeps_what_became_of_it(env):
    hole = Hole(5, 9, HoleReason.MISSING_FILE)
    for now_ns in (1, 2):
        env.write(lambda transaction, now_ns=now_ns: ledger.put_hole(transaction, KEY, hole, now_ns))
    with env.read() as transaction:
        assert list(ledger.holes(transaction, KEY)) == [LedgerHole(hole, 1)]
    env.write(lambda transaction: ledger.close_hole(transaction, KEY, hole, 3))
    env.write(lambda transaction: ledger.put_hole(transaction, KEY, hole, 4))
    with env.read() as transaction:
        assert list(ledger.holes(transaction, KEY)) == [LedgerHole(hole, 1, 3)]
        assert list(ledger.holes(transaction, KEY + b"x")) == []


def test_holes_are_listed_in_order_of_time_also_before_1970(env):
    found = [Hole(start, start + 1, HoleReason.DISCONNECT) for start in (50, -7, -(1 << 63), 0, (1 << 63) - 2)]
    for hole in found:
        env.write(lambda transaction, hole=hole: ledger.put_hole(transaction, KEY, hole, 1))
    with env.read() as transaction:
        starts = [each.hole.start_ns for each in ledger.holes(transaction, KEY)]
    assert starts == sorted(hole.start_ns for hole in found)


def source(name, first_ns=0, last_ns=10, sha256="ab", rows=3):
    return Source(name, sha256, Verification.VERIFIED, rows, rows, 0, 0, first_ns, last_ns, 5, ["note"])


def put(env, *records):
    for record in records:
        env.write(lambda transaction, record=record: ledger.put_source(transaction, KEY, record))


def recorded(env):
    with env.read() as transaction:
        return {each.name: each for each in ledger.sources(transaction, KEY)}


def test_a_source_recorded_again_replaces_the_record_of_its_name(env):
    put(env, source("a.zip"), source("b.zip"), source("a.zip", sha256="cd", rows=9))
    assert recorded(env) == {"a.zip": source("a.zip", sha256="cd", rows=9), "b.zip": source("b.zip")}
    with env.read() as transaction:
        assert ledger.source(transaction, KEY, "a.zip").rows == 9
        assert ledger.source(transaction, KEY, "c.zip") is None
        assert ledger.source(transaction, KEY + b"x", "a.zip") is None
        assert ledger.series_keys(transaction) == [KEY]


def test_deleting_forgets_the_sources_inside_and_that_others_are_whole(env):
    records = {
        name: source(name, *ends)
        for name, ends in {"in": (5, 9), "left": (0, 5), "right": (9, 20), "out": (10, 20)}.items()
    }
    put(env, *records.values())
    env.write(lambda transaction: ledger.forget(transaction, KEY, 5, 9))
    found = recorded(env)
    assert found.keys() == {"left", "right", "out"}
    assert {name: each.sha256 for name, each in found.items()} == {"left": "", "right": "", "out": "ab"}


def test_deleting_forgets_holes_of_any_reason_that_lie_inside(env):
    inside, across = Hole(5, 9, HoleReason.DISCONNECT), Hole(8, 12, HoleReason.DISCONNECT)
    for hole in (inside, across):
        env.write(lambda transaction, hole=hole: ledger.put_hole(transaction, KEY, hole, 1))
    env.write(lambda transaction: ledger.forget(transaction, KEY, 5, 9))
    with env.read() as transaction:
        assert [each.hole for each in ledger.holes(transaction, KEY)] == [across]


@pytest.mark.parametrize(("jump_count", "id_count"), [(100, 101), (100, 10**6), (20_000, 10**6)])
def test_ids_are_numbered_while_few_are_missing(jump_count, id_count):
    assert ledger.are_numbered(jump_count, id_count)
    assert not ledger.are_numbered(max(101, id_count // 50 + 1), id_count)
