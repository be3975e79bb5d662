"""Stored jobs: whole or not at all, found by run, and gone with it."""

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from daemon.core.errors import Code, StoreCorrupt, StoreFull
from daemon.store import codec, keys, results
from daemon.store.env import Environment, StoreConfig
from daemon.store.keys import ResultKind
from daemon.store.results import CombinationTotals, JobIndex, Spool


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path, StoreConfig()) as env:
        yield env


def groups(rows, combination=0):
    ints = np.full(rows, combination, dtype=np.int32)
    return [ints, ints, ints.astype(np.int8), ints.astype(np.int8), ints, *(np.arange(rows) / 3 for _ in range(4))]


def spooled(tmp_path, *sizes, instrument="local:SPY", timeframe="1Hour"):
    path = tmp_path / "spool" / "job.spool"
    with Spool(path) as spool:
        for number, rows in enumerate(sizes):
            spool.add(ResultKind.GROUPS, number, number + 1, groups(rows, number))
    totals = CombinationTotals([1], ["low"], [1], [1], [0], [0.1], [0.0], [0.2], [0.3])
    common = {"source": timeframe, "bars": 9, "bars_digest": "d", "period_start_ns": 0, "period_end_ns": 1}
    index = JobIndex(
        instrument=instrument, symbol="SPY", timeframe=timeframe, partial_buckets=[], totals=totals,
        parts=spool.parts, **common,
    )  # fmt: skip
    return index, path


def put(env, run_id, index, path):
    env.write(lambda transaction: results.put_job(transaction, run_id, index, path))


def stored(env, run_id, *narrower):
    with env.read() as transaction:
        return list(results.jobs(transaction, run_id, *narrower))


def test_a_jobs_parts_come_back_bit_for_bit(env, tmp_path):
    index, path = spooled(tmp_path, 5, 0, 70_000)
    put(env, "run", index, path)
    (job,) = stored(env, "run")
    assert job.index == index
    with env.read() as transaction:
        for part, rows in zip(job.index.parts, (5, 0, 70_000), strict=True):
            columns = results.read_part(transaction, job, part)
            assert list(columns) == list(results.GROUP_COLUMNS)
            for mine, theirs in zip(columns.values(), groups(rows, part.number), strict=True):
                assert mine.dtype == theirs.dtype
                assert (mine == theirs).all()


def test_a_job_that_fails_while_it_is_stored_leaves_nothing(env, tmp_path):
    index, path = spooled(tmp_path, 5, 5)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        put(env, "run", index, path)

    def breaks_off(transaction):
        index, path = spooled(tmp_path, 5)
        results.put_job(transaction, "run", index, path)
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        env.write(breaks_off)
    assert stored(env, "run") == []
    with env.read() as transaction:
        assert list(transaction.scan("results", b"")) == []


def test_a_second_batch_of_a_series_stands_beside_the_first(env, tmp_path):
    for rows in (3, 4):
        put(env, "run", *spooled(tmp_path, rows))
    assert [(job.batch, job.index.parts[0].rows) for job in stored(env, "run")] == [(0, 3), (1, 4)]


def test_runs_whose_ids_begin_alike_never_see_each_other(env, tmp_path):
    ids = ["a", "a-b", "a.b", "ab", "A"]
    for number, run_id in enumerate(ids, 1):
        put(env, run_id, *spooled(tmp_path, number))
    for number, run_id in enumerate(ids, 1):
        assert [job.index.parts[0].rows for job in stored(env, run_id)] == [number]
    env.write(lambda transaction: results.delete_run(transaction, "a"))
    assert [len(stored(env, run_id)) for run_id in ids] == [0, 1, 1, 1, 1]


def test_jobs_are_narrowed_by_instrument_and_timeframe(env, tmp_path):
    for instrument in ("local:SPY", "local:SPYX"):
        for timeframe in ("1Hour", "1Day"):
            put(env, "run", *spooled(tmp_path, 1, instrument=instrument, timeframe=timeframe))
    assert len(stored(env, "run")) == 4
    assert [job.index.timeframe for job in stored(env, "run", "local:SPY")] == ["1Day", "1Hour"]
    assert [job.index.instrument for job in stored(env, "run", "local:SPYX", "1Day")] == ["local:SPYX"]


def test_a_spool_file_of_a_job_that_failed_is_removed(tmp_path):
    path = tmp_path / "spool" / "job.spool"

    def fails_after_a_part():
        with Spool(path) as spool:
            spool.add(ResultKind.GROUPS, 0, 1, groups(3))
            assert path.stat().st_size > 0
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        fails_after_a_part()
    assert not path.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.parametrize("rows", [3, 100_000], ids=["within the buffer", "beyond it"])
def test_a_spool_file_without_room_is_full_and_removed(tmp_path, rows):
    path = tmp_path / "job.spool"
    path.symlink_to("/dev/full")
    with pytest.raises(StoreFull, match=re.escape(str(path))) as refusal, Spool(path) as spool:
        spool.add(ResultKind.GROUPS, 0, 1, groups(rows))
    assert refusal.value.code == Code.STORE_FULL
    assert spool.parts == []
    assert not path.is_symlink()


def test_parts_of_each_kind_are_numbered_and_named_on_their_own(env, tmp_path):
    trades = [np.arange(3) for _ in results.TRADE_COLUMNS]
    path = tmp_path / "job.spool"
    with Spool(path) as spool:
        for first in (0, 1):
            spool.add(ResultKind.GROUPS, first, first + 1, groups(2, first))
            spool.add(ResultKind.TRADES, first, first + 1, trades)
    assert [(part.kind, part.number) for part in spool.parts] == [
        (ResultKind.GROUPS, 0),
        (ResultKind.TRADES, 0),
        (ResultKind.GROUPS, 1),
        (ResultKind.TRADES, 1),
    ]
    index = msgspec.structs.replace(spooled(tmp_path)[0], parts=spool.parts)
    put(env, "run", index, path)
    (job,) = stored(env, "run")
    with env.read() as transaction:
        names = [tuple(results.read_part(transaction, job, part)) for part in job.index.parts]
    assert names == [results.GROUP_COLUMNS, results.TRADE_COLUMNS] * 2


def test_a_part_that_is_lost_is_damage(env, tmp_path):
    put(env, "run", *spooled(tmp_path, 3))
    (job,) = stored(env, "run")
    (part,) = job.index.parts
    key = keys.result(job.prefix, job.batch, part.kind, part.number)
    assert env.write(lambda transaction: transaction.delete("results", key))
    with env.read() as transaction, pytest.raises(StoreCorrupt):
        results.read_part(transaction, job, part)


def test_deleting_a_run_counts_what_went(env, tmp_path):
    put(env, "run", *spooled(tmp_path, 1, 2))
    put(env, "run", *spooled(tmp_path, 1, timeframe="1Day"))
    assert env.write(lambda transaction: results.delete_run(transaction, "run")) == 5
    assert env.write(lambda transaction: results.delete_run(transaction, "run")) == 0


def test_a_part_is_counted_without_decoding_it(tmp_path):
    index, path = spooled(tmp_path, 12)
    part = index.parts[0]
    value = path.read_bytes()[part.offset : part.offset + part.length]
    assert codec.rows(value) == part.rows == 12
