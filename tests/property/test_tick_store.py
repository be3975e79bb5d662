"""A series of ticks under any sequence of writes, against a list of rows."""

import contextlib
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import overlay as naive

from daemon.core.errors import Code, Conflict
from daemon.core.market import Instrument
from daemon.core.ticks import COLUMNS, NO_ID, Kind, Stream, ticks
from daemon.store import bulk, codec, ledger, tick_series, upkeep
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.tick_chunks import decode
from daemon.store.tick_series import prefix_of
from daemon.store.ticks import TickStore
from daemon.store.verify import verify

BTC = Instrument("binance", "BTCUSDT")
MS, US = 1_000_000, 1_000
IDS = 40
# Chunks of a few rows: every border is met often.
CHUNK_ROWS, FLUSH_ROWS = 7, 20
ODD = [np.nan, np.inf, -np.inf, -0.0, 5e-324]


def time_of(identity, unit):
    """Several ids a millisecond, some of which do not follow each other in time."""
    exact = identity * 400 * US + (identity % 5 == 3) * 900 * US - 3 * MS
    return exact // unit * unit


@st.composite
def numbers(draw, decimals, seeds):
    """Values that an id decides, seldom another one."""
    wrong = draw(st.sets(st.integers(0, 400), max_size=1))
    values = [seed % 7 + 1 + (100 if place in wrong else 0) for place, seed in enumerate(seeds)]
    if decimals is None:
        return [
            ODD[seed // 7 % 5] if seed % 11 == 10 else value / 10 for seed, value in zip(seeds, values, strict=True)
        ]
    return [value * 10 ** (decimals - 1) for value in values]


@st.composite
def blocks(draw, stream):
    """Rows of one source: a stretch of ids or some of them, with their own unit of time and decimals."""
    if draw(st.booleans()):
        start = draw(st.integers(0, IDS))
        ids = list(range(start, min(IDS, start + draw(st.integers(1, 25)))))
    else:
        ids = draw(st.lists(st.integers(0, IDS), max_size=12))
    if draw(st.integers(0, 3)) == 0:
        ids += [-1 - each for each in draw(st.lists(st.integers(0, IDS), max_size=6))]
    ids.sort(key=lambda each: time_of(abs(each + (each < 0)), MS), reverse=draw(st.booleans()))
    if min(ids, default=0) >= 0 and draw(st.booleans()):
        ids = draw(st.permutations(ids))
    if stream is Stream.DEPTH:
        ids = [identity for identity in ids for _ in range(identity % 3 + 1)]
    unit = draw(st.sampled_from([MS, US]))
    price, size = draw(st.sampled_from([1, 3, None])), draw(st.sampled_from([1, 2]))
    columns = {}
    for name, kind in COLUMNS[stream].items():
        if name == "time_ns":
            # Without an id the time is all that tells, so it has one unit.
            columns[name] = [time_of(each, unit) if each >= 0 else time_of(-1 - each, MS) for each in ids]
        elif name == "id":
            columns[name] = [each if each >= 0 else NO_ID for each in ids]
        elif kind in (Kind.PRICE, Kind.SIZE):
            places = itertools.count() if stream is Stream.DEPTH and name == "price" else itertools.repeat(0)
            seeds = [abs(each) + next(places) % 3 for each in ids]
            columns[name] = draw(numbers(price if kind is Kind.PRICE else size, seeds))
        elif name in ("side", "flags"):
            columns[name] = [1 if each % 2 else -1 for each in ids]
    return ticks(stream, **columns, price_decimals=price, size_decimals=size)


@st.composite
def operations(draw, stream):
    kinds = ["append"] * 3 + ["write"] * 3 + ["replace", "delete", "compact"]
    kind = draw(st.sampled_from(kinds))
    if kind == "append":
        return kind, draw(blocks(stream))
    if kind in ("write", "replace"):
        return kind, draw(st.lists(blocks(stream), min_size=1, max_size=3))
    if kind == "delete":
        edges = st.none() | st.integers(0, IDS).map(lambda each: time_of(each, MS))
        return kind, (draw(edges), draw(edges))
    return kind, None


@contextlib.contextmanager
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "CHUNK_ROWS", CHUNK_ROWS)
        patch.setattr(bulk, "FLUSH_ROWS", FLUSH_ROWS)
        patch.setattr(tick_series, "_MARGIN_ROWS", 6)
        yield


def apply(store, model, kind, given_rows):
    stream = model.stream
    if kind == "append":
        added = store.env.write(lambda transaction: store.append(transaction, BTC, given_rows))
        assert added == model.append(given_rows)
    elif kind in ("write", "replace"):
        write(store, model, given_rows, replace=kind == "replace")
    elif kind == "delete":
        assert upkeep.delete(store, BTC, stream, *given_rows) == model.delete(*given_rows)
    else:
        done = upkeep.compact(store, BTC, stream)
        assert done.chunks_after <= max(1, done.chunks_before) + -(-len(model.rows) // CHUNK_ROWS)


def write(store, model, parts, *, replace):
    for part in parts:
        with BulkWriter(store, BTC, model.stream, replace=replace) as writer:
            if not replace:
                wanted = naive.lay_over(model.stream, model.rows, naive.rows_of(part))
                if wanted.conflict is not None:
                    refuse(model, writer, part)
                    continue
                writer.rehearse(part)
            for start in range(0, part.size, 9):
                writer.add(part.rows(start, start + 9))
            written = writer.finish()
        before = len(model.rows)
        overlaid = model.write(part, replace=replace)
        assert written.added == len(model.rows) - before
        assert sum(written) == part.size
        if not replace:
            assert tuple(written) == (overlaid.added, overlaid.repeated, 0)


def refuse(model, writer, part):
    """A conflict with what is stored is found before anything is written; one within a file, when it is written."""
    stored_conflict = any(
        naive.lay_over(model.stream, model.rows, [row]).conflict is not None for row in naive.rows_of(part)
    )
    if stored_conflict:
        with pytest.raises(Conflict) as caught:
            writer.rehearse(part)
        assert caught.value.code == Code.TICKS_CONFLICT


def check(store, model, low, high):
    stream = model.stream
    assert naive.rows_of(store.read(BTC, stream)) == model.rows
    for start, stop in ((None, None), (low, high), (None, high), (low, None)):
        wanted = model.between(start, stop)
        assert naive.rows_of(store.read(BTC, stream, start, stop)) == wanted
        assert store.count(BTC, stream, start, stop) == len(wanted)
        names = ["id", next(name for name, kind in COLUMNS[stream].items() if kind is Kind.PRICE)]
        found = [
            (identity, naive.bits(price, None))
            for ids, prices in store.scan(BTC, stream, names, start, stop)
            for identity, price in zip(ids.tolist(), prices.tolist(), strict=True)
        ]
        assert found == [(row["id"], row[names[1]]) for row in wanted]
    assert [problem for each in verify(store.env) for problem in each.problems] == []
    check_index(store, model)
    if stream in ledger.CONTIGUOUS:
        check_ledger(store, model)


def check_index(store, model):
    found = store.streams(BTC).get(model.stream)
    assert (found is None) == (not model.rows)
    if found is not None:
        times = [row["time_ns"] for row in model.rows]
        assert (found.rows, found.first_ns, found.last_ns) == (len(times), times[0], times[-1])
        with store.env.read() as transaction:
            values = [value for name in ("chunks", "tail") for _, value in transaction.scan(name, b"")]
            assert found.stored_bytes == sum(len(value) for value in values)
            ends = [
                decode(value, model.stream).time_ns[[0, -1]].tolist() for _, value in transaction.scan("chunks", b"")
            ]
        assert all(before[1] < after[0] for before, after in itertools.pairwise(ends))


def check_ledger(store, model):
    with store.env.read() as transaction:
        prefix = prefix_of(transaction, BTC, model.stream)
        known = [] if prefix is None else list(ledger.holes(transaction, prefix))
    still_open = {(each.hole.after_id, each.hole.before_id) for each in known if not each.repaired_at_ns}
    assert still_open == naive.jumps(model.rows)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(list(COLUMNS)), st.data())
def test_any_sequence_of_writes_gives_the_rows_of_a_list(stream, data):
    steps = data.draw(st.lists(operations(stream), max_size=8))
    edges = st.integers(0, IDS).map(lambda each: time_of(each, MS))
    low, high = data.draw(edges), data.draw(edges)
    with (
        small_chunks(),
        tempfile.TemporaryDirectory() as folder,
        Environment(Path(folder), StoreConfig(sync=False)) as env,
    ):
        store, model = TickStore(env), naive.Series(stream)
        for kind, given_rows in steps:
            apply(store, model, kind, given_rows)
            check(store, model, low, high)
