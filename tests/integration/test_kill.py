"""A writer of ticks is killed at a random moment: nothing it called committed is lost, nothing is half done."""

import inspect
import subprocess
import sys
import time

import numpy as np
import pytest

from daemon.core.market import Instrument
from daemon.core.ticks import Stream, ticks
from daemon.store import bulk, codec, upkeep
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.ticks import TickStore
from daemon.store.verify import verify

BTC = Instrument("binance", "BTCUSDT")
PATIENCE_S = 30.0
ROUNDS = 3
CHUNK_ROWS, FLUSH_ROWS = 500, 2_000


def trades(ids):
    """Rows are a function of their ids, in the child as here; three of them share a millisecond."""
    ids = np.asarray(ids, dtype=np.int64)
    return ticks(
        Stream.TRADES,
        time_ns=ids // 3 * 1_000_000,
        id=ids,
        price=ids * 7_919 % 1_000_003,
        size=ids * 104_729 % 10_007,
        side=np.where(ids % 2, 1, -1),
        price_decimals=2,
        size_decimals=3,
    )


CHILD = f"""
import sys
from pathlib import Path
import numpy as np
from daemon.core.market import Instrument
from daemon.core.ticks import Stream, ticks
from daemon.store import bulk, codec, upkeep
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.ticks import TickStore

{inspect.getsource(trades)}

BTC = Instrument("binance", "BTCUSDT")
codec.CHUNK_ROWS, bulk.FLUSH_ROWS = {CHUNK_ROWS}, {FLUSH_ROWS}
folder, start, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
env = Environment(folder, StoreConfig())
store = TickStore(env)
"""

IMPORT = """
print("working", flush=True)
with BulkWriter(store, BTC, Stream.TRADES) as writer:
    for first in range(start, stop, 700):
        writer.add(trades(range(first, min(stop, first + 700))))
        print(store.count(BTC, Stream.TRADES), flush=True)
    writer.finish()
print(store.count(BTC, Stream.TRADES), flush=True)
"""

APPEND = """
store.env.write(lambda transaction: store.append(transaction, BTC, trades([start])))
print("working", flush=True)
for first in range(start, stop, 9):
    env.write(lambda transaction: store.append(transaction, BTC, trades(range(first, min(stop, first + 9)))))
    print(min(stop, first + 9), flush=True)
"""

COMPACT = """
print("working", flush=True)
while True:
    for first in range(0, stop, 40):
        env.write(lambda transaction: store.append(transaction, BTC, trades(range(first, first + 20))))
        upkeep.delete(store, BTC, Stream.TRADES, (first + 30) // 3 * 1_000_000, (first + 36) // 3 * 1_000_000)
        if first % 400 == 0:
            upkeep.compact(store, BTC, Stream.TRADES)
            print(store.count(BTC, Stream.TRADES), flush=True)
    upkeep.delete(store, BTC, Stream.TRADES, None, (stop // 2) // 3 * 1_000_000)
"""


def killed(code, folder, start, stop, most_s):
    """Run code in a process and kill it; returns what it reported last."""
    command = [sys.executable, "-c", CHILD + code, str(folder), str(start), str(stop)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "working\n"
        time.sleep(np.random.default_rng().uniform(0, most_s))
        process.kill()
        reports = [line for line in process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        process.wait(PATIENCE_S)
    return int(reports[-1]) if reports else 0


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", CHUNK_ROWS)
    monkeypatch.setattr(bulk, "FLUSH_ROWS", FLUSH_ROWS)


def opened(folder):
    return Environment(folder, StoreConfig(sync=False))


def sound(env):
    """Return the stored ids of a store that nothing is wrong with; each row is the one of its id."""
    assert [problem for each in verify(env) for problem in each.problems] == []
    rows = TickStore(env).read(BTC, Stream.TRADES)
    wanted = trades(rows.column("id"))
    assert [column.tolist() for column in rows.columns] == [column.tolist() for column in wanted.columns]
    assert TickStore(env).count(BTC, Stream.TRADES) == rows.size
    return rows.column("id")


def write(env, ids):
    with BulkWriter(TickStore(env), BTC, Stream.TRADES) as writer:
        writer.add(trades(ids))
        return writer.finish()


def open_holes(env):
    return TickStore(env).streams(BTC)[Stream.TRADES].open_holes


def test_a_killed_import_keeps_what_was_committed_and_a_rerun_completes_it(tmp_path):
    stop = 200_000
    for _ in range(ROUNDS):
        reported = killed(IMPORT, tmp_path, 0, stop, 0.4)
        with opened(tmp_path) as env:
            ids = sound(env)
            assert ids.tolist() == list(range(ids.size))
            assert ids.size >= reported
    with opened(tmp_path) as env:
        written = write(env, range(stop))
        assert written == (stop - ids.size, ids.size, 0)
        assert sound(env).tolist() == list(range(stop))
        assert open_holes(env) == 0


def test_a_killed_import_into_stored_rows_keeps_them_all(tmp_path):
    stop = 100_000
    before = np.flatnonzero(np.arange(stop) % 60)
    with opened(tmp_path) as env:
        write(env, before)
        assert open_holes(env) == stop // 60
    stored = before.size
    for _ in range(ROUNDS):
        reported = killed(IMPORT, tmp_path, 0, stop, 0.6)
        with opened(tmp_path) as env:
            ids = sound(env)
            assert np.isin(before, ids).all()
            assert ids.size >= max(stored, reported)
            stored = ids.size
    with opened(tmp_path) as env:
        assert write(env, range(stop)).added == stop - stored
        assert sound(env).tolist() == list(range(stop))
        assert open_holes(env) == 0


def test_a_killed_recording_keeps_every_row_that_was_committed(tmp_path):
    start = 0
    for _ in range(ROUNDS):
        reported = killed(APPEND, tmp_path, start, start + 1_000_000, 0.6)
        with opened(tmp_path) as env:
            ids = sound(env)
            assert ids.tolist() == list(range(ids.size))
            assert ids.size >= max(reported, start + 1)
            assert open_holes(env) == 0
        start = ids.size
    with opened(tmp_path) as env:
        assert write(env, range(start + 100)).added == 100
        assert sound(env).tolist() == list(range(start + 100))


def test_a_killed_compaction_or_deletion_leaves_the_store_sound(tmp_path):
    stop = 4_000
    for _ in range(ROUNDS):
        with opened(tmp_path) as env:
            write(env, range(stop))
        killed(COMPACT, tmp_path, 0, stop, 0.5)
        with opened(tmp_path) as env:
            sound(env)
    with opened(tmp_path) as env:
        upkeep.compact(TickStore(env), BTC, Stream.TRADES)
        write(env, range(stop))
        assert sound(env).tolist() == list(range(stop))
        assert open_holes(env) == 0
