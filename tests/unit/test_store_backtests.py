"""Columns of backtests: bit for bit, in chunks, whole or not at all, gone with their backtest."""

import re
from pathlib import Path

import numpy as np
import pytest

from daemon.core.errors import Code, StoreCorrupt, StoreFull
from daemon.store import backtests as tables
from daemon.store import keys, results
from daemon.store.backtests import CHUNK_ROWS, ColumnSpool
from daemon.store.env import Environment, StoreConfig


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield env


def equity(rows):
    return {"time_ns": np.arange(rows, dtype=np.int64), "equity": np.sin(np.arange(rows)), "cash": np.full(rows, -0.0)}


def fills(rows):
    sides = np.full(rows, -1, dtype=np.int8)
    return {"order_id": np.arange(rows, dtype=np.int32), "side": sides, "maker": np.ones(rows, bool)}


def spooled(tmp_path, *added):
    path = tmp_path / "spool" / "one.spool"
    with ColumnSpool(path) as spool:
        for table, columns in added:
            spool.add(table, columns)
    return spool.parts, path


def put(env, backtest_id, parts, path):
    env.write(lambda transaction: tables.put(transaction, backtest_id, parts, path))


def read(env, backtest_id, table):
    with env.read() as transaction:
        return list(tables.read(transaction, backtest_id, table))


def joined(chunks):
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def keys_of(env):
    with env.read() as transaction:
        return [key for key, _ in transaction.scan("results", b"")]


def test_columns_come_back_bit_for_bit_in_chunks_in_order(env, tmp_path):
    rows = 2 * CHUNK_ROWS + 7
    parts, path = spooled(tmp_path, ("equity", equity(rows)), ("fills", fills(3)), ("equity", equity(5)))
    put(env, "one", parts, path)
    chunks = read(env, "one", "equity")
    assert [chunk["equity"].size for chunk in chunks] == [CHUNK_ROWS, CHUNK_ROWS, 7, 5]
    for name, column in equity(rows).items():
        found = joined(chunks)[name]
        assert found.dtype == column.dtype
        assert found[:rows].tobytes() == column.tobytes()
        assert found[rows:].tobytes() == equity(5)[name].tobytes()
    (chunk,) = read(env, "one", "fills")
    assert list(chunk) == ["order_id", "side", "maker"]
    assert (chunk["maker"].dtype, chunk["maker"].tolist()) == (np.uint8, [1, 1, 1])
    assert read(env, "one", "trades") == []
    with env.read() as transaction:
        assert tables.rows(transaction, "one") == {"trades": 0, "fills": 3, "equity": rows + 5, "events": 0}
        assert set(tables.rows(transaction, "other").values()) == {0}


def test_tables_without_rows_are_stored_as_such(env, tmp_path):
    parts, path = spooled(tmp_path, ("trades", equity(0)))
    assert parts == []
    put(env, "none", parts, path)
    assert read(env, "none", "trades") == read(env, "unknown", "trades") == []


def test_columns_of_different_lengths_are_a_defect(tmp_path):
    with ColumnSpool(tmp_path / "bad.spool") as spool:
        with pytest.raises(ValueError, match=r"`equity` differ in length.*\(3,\).*\(4,\)"):
            spool.add("equity", {"a": np.zeros(3), "b": np.zeros(4)})
        with pytest.raises(ValueError, match="differ in length"):
            spool.add("equity", {"a": np.zeros((3, 2))})


def test_storing_again_replaces_all_that_was(env, tmp_path):
    put(env, "one", *spooled(tmp_path, ("equity", equity(CHUNK_ROWS + 1)), ("fills", fills(2))))
    put(env, "one", *spooled(tmp_path, ("equity", equity(4))))
    assert joined(read(env, "one", "equity"))["time_ns"].tolist() == [0, 1, 2, 3]
    assert read(env, "one", "fills") == []
    assert len(keys_of(env)) == 2


def test_deleting_takes_one_backtest_and_nothing_of_another_or_of_a_run(env, tmp_path):
    parts, path = spooled(tmp_path, ("equity", equity(10)), ("trades", equity(1)))
    for backtest_id in ("one", "on", "one.more"):
        put(env, backtest_id, parts, path)
    env.write(lambda transaction: transaction.put("results", keys.job("one", "local:X", "1Min"), b"a run's"))
    before = keys_of(env)
    assert env.write(lambda transaction: tables.delete(transaction, "one")) == 3
    assert len(keys_of(env)) == len(before) - 3
    assert read(env, "one", "equity") == []
    assert joined(read(env, "on", "equity"))["time_ns"].size == joined(read(env, "one.more", "equity"))["time_ns"].size
    assert env.write(lambda transaction: results.delete_run(transaction, "one")) == 1
    assert env.write(lambda transaction: tables.delete(transaction, "one")) == 0


def test_a_transaction_that_fails_keeps_nothing(env, tmp_path):
    parts, path = spooled(tmp_path, ("equity", equity(10)))
    path.write_bytes(b"")

    def breaks_off(transaction):
        tables.put(transaction, "one", parts, path)
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        env.write(breaks_off)
    assert keys_of(env) == []


@pytest.mark.parametrize("damage", [lambda value: value[:-1] + b"?", lambda _: None])
def test_damage_is_told_instead_of_read(env, tmp_path, damage):
    put(env, "one", *spooled(tmp_path, ("equity", equity(1000))))
    (key,) = [key for key in keys_of(env) if b"equity" in key]

    def spoil(transaction):
        value = damage(bytes(transaction.get("results", key)))
        transaction.delete("results", key)
        if value is not None:
            transaction.put("results", key, value)

    env.write(spoil)
    with pytest.raises(StoreCorrupt):
        read(env, "one", "equity")


def test_a_spool_that_fails_leaves_no_file(tmp_path):
    path = tmp_path / "spool" / "one.spool"

    def fail():
        with ColumnSpool(path) as spool:
            spool.add("equity", equity(3))
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError):
        fail()
    assert not path.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.parametrize("rows", [3, 100_000], ids=["within the buffer", "beyond it"])
def test_a_spool_file_without_room_is_full_and_removed(tmp_path, rows):
    path = tmp_path / "one.spool"
    path.symlink_to("/dev/full")
    with pytest.raises(StoreFull, match=re.escape(str(path))) as refusal, ColumnSpool(path) as spool:
        spool.add("equity", equity(rows))
    assert refusal.value.code == Code.STORE_FULL
    assert spool.parts == []
    assert not path.is_symlink()
