"""The LMDB environment: growth, full disks, crashes, refusals, snapshots, walks."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.errors import Code, ConfigError, Conflict, StoreCorrupt, StoreFull
from daemon.store import env as store_env
from daemon.store.env import FILE_NAME, SCHEMA, Environment, StoreConfig

MIB = 1 << 20
PATIENCE_S = 20.0
SMALL = StoreConfig(map_mb=1, sync=False)
QUICK = StoreConfig(sync=False)

PRELUDE = """
import os
import sys
import threading
from pathlib import Path
from daemon.core.errors import AtlasError
from daemon.store.env import Environment, StoreConfig
folder = Path(sys.argv[1])
"""


@contextlib.contextmanager
def child(code, *arguments):
    """Run code in a process of its own, which hears us on stdin and answers on stdout; first argument: a folder."""
    command = [sys.executable, "-c", PRELUDE + code, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def tell(process, line):
    process.stdin.write(line + "\n")
    process.stdin.flush()


def put(env, key, value, database="meta"):
    env.write(lambda transaction: transaction.put(database, key, value))


def get(env, key, database="meta"):
    with env.read() as transaction:
        value = transaction.get(database, key)
        return None if value is None else bytes(value)


def fill(env, mib, start=0):
    """Write this many MiB in one transaction, a value each."""

    def action(transaction):
        for place in range(start, start + mib):
            transaction.put("chunks", place.to_bytes(4, "big"), bytes([place]) * MIB)

    env.write(action)


def filled(env):
    """Count the values of `fill`, each looked at."""
    with env.read() as transaction:
        found = list(transaction.scan("chunks", b""))
        assert all(bytes(value) == key[-1:] * MIB for key, value in found)
        return len(found)


# Growth.


def test_a_map_of_1_mib_takes_50_in_one_transaction(tmp_path):
    with Environment(tmp_path, SMALL) as env:
        fill(env, 50)
        assert filled(env) == 50
    with Environment(tmp_path, SMALL) as env:
        assert filled(env) == 50


def test_the_map_grows_beneath_reading_threads(tmp_path):
    stop, seen, failures = threading.Event(), [], []

    def reads(env):
        try:
            while not stop.wait(0.001):  # a pause, or the interpreter's lock is all that is tested
                with env.read() as transaction:
                    values = [bytes(value) == key[-1:] * MIB for key, value in transaction.scan("chunks", b"")]
                    stored = transaction.get("meta", b"count")
                    assert all(values)
                    assert len(values) == (0 if stored is None else int(bytes(stored)))
                    seen.append(len(values))
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
            failures.append(error)

    with Environment(tmp_path, SMALL) as env:
        readers = [threading.Thread(target=reads, args=(env,)) for _ in range(2)]
        for reader in readers:
            reader.start()
        for place in range(12):

            def action(transaction, place=place):
                transaction.put("chunks", place.to_bytes(4, "big"), bytes([place]) * MIB)
                transaction.put("meta", b"count", str(place + 1).encode())

            env.write(action)
        stop.set()
        for reader in readers:
            reader.join(PATIENCE_S)
        assert filled(env) == 12
    assert not failures
    assert len(set(seen)) > 1


def test_growth_waits_for_an_open_snapshot_which_stays_readable(tmp_path):
    with Environment(tmp_path, SMALL) as env:
        put(env, b"name", b"before")
        writer = threading.Thread(target=fill, args=(env, 8))
        with env.read() as transaction:
            writer.start()
            writer.join(0.2)
            assert writer.is_alive()
            assert transaction.get("meta", b"name") == b"before"
            assert list(transaction.scan("chunks", b"")) == []
        writer.join(PATIENCE_S)
        assert not writer.is_alive()
        assert filled(env) == 8


def test_another_process_follows_the_grown_map(tmp_path):
    code = """
with Environment(folder, StoreConfig(), readonly=True) as env:
    print("open", flush=True)
    sys.stdin.readline()
    with env.read() as transaction:
        print(sum(len(value) for _, value in transaction.scan("chunks", b"")), flush=True)
"""
    with Environment(tmp_path, SMALL) as env, child(code, tmp_path) as reader:
        assert reader.stdout.readline() == "open\n"
        fill(env, 20)
        tell(reader, "grown")
        assert reader.stdout.readline() == f"{20 * MIB}\n"
        assert reader.wait(PATIENCE_S) == 0


def test_threads_of_another_process_that_meet_the_grown_map_together_do_not_wait_for_each_other(tmp_path):
    code = """
def count():
    with env.read() as transaction:
        return sum(1 for _ in transaction.scan("chunks", b""))

def late():
    counts.append(count())

counts = []
with Environment(folder, StoreConfig(), readonly=True) as env:
    with env.read() as transaction:
        print("reading", flush=True)
        sys.stdin.readline()
        threads = [threading.Thread(target=late, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        threads[0].join(0.3)
        counts.append(sum(1 for _ in transaction.scan("chunks", b"")))
    for thread in threads:
        thread.join(5)
    print(*counts, flush=True)
    os._exit(0)
"""
    with Environment(tmp_path, SMALL) as env, child(code, tmp_path) as reader:
        assert reader.stdout.readline() == "reading\n"
        fill(env, 20)
        tell(reader, "grown")
        assert reader.stdout.readline() == "0 20 20 20\n"


def test_the_map_is_opened_no_larger_than_its_limit():
    assert StoreConfig(max_map_gb=1).map_bytes == 1 << 30
    assert StoreConfig(map_mb=4096, max_map_gb=1).map_bytes == 1 << 30
    assert StoreConfig(map_mb=3).map_bytes == 3 * MIB
    assert StoreConfig().max_map_bytes == 4096 << 30


@pytest.mark.parametrize(("platform", "size"), [("linux", 1 << 40), ("darwin", 1 << 40), ("win32", 64 * MIB)])
def test_the_map_starts_large_where_files_are_sparse(platform, size, monkeypatch):
    monkeypatch.setattr(sys, "platform", platform)
    assert StoreConfig().map_bytes == size


# Full.


def test_a_map_at_its_limit_is_full_and_keeps_nothing_of_the_write(tmp_path, monkeypatch):
    monkeypatch.setattr(StoreConfig, "max_map_bytes", property(lambda _: 4 * MIB))
    with Environment(tmp_path, SMALL) as env:
        fill(env, 2)
        with pytest.raises(StoreFull, match=re.escape(str(env.path))) as caught:
            fill(env, 10, start=2)
        assert caught.value.code == Code.STORE_FULL
        assert filled(env) == 2
        put(env, b"still", b"writable")
    monkeypatch.undo()
    with Environment(tmp_path, SMALL) as env:
        assert get(env, b"still") == b"writable"
        fill(env, 10, start=2)
        assert filled(env) == 12


FILLING = """
size, batches = int(sys.argv[2]), 0
with Environment(folder, StoreConfig()) as env:
    def batch(transaction):
        for place in range(20):
            transaction.put("chunks", bytes([batches, place]), bytes([batches]) * size)
    try:
        while True:
            env.write(batch)
            batches += 1
    except AtlasError as error:
        print(batches, error.code, error.message, flush=True)
"""
SIZES = (1_900, 5_000, 200_000)  # within a page, of a few pages, larger than a write's buffers


def assert_full_once_and_nothing_in_part(process, folder):
    batches, code, message = process.communicate(timeout=PATIENCE_S)[0].split(" ", 2)
    assert code == "STORE_FULL"
    assert str(folder / FILE_NAME) in message
    with Environment(folder, QUICK) as env, env.read() as transaction:
        assert transaction.get("meta", b"early") == b"bird"
        found = [(key, set(bytes(value))) for key, value in transaction.scan("chunks", b"")]
    assert found == [(bytes([batch, place]), {batch}) for batch in range(int(batches)) for place in range(20)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX")
def test_a_file_at_its_largest_is_full_and_keeps_nothing_of_the_write(size, tmp_path):
    with Environment(tmp_path, QUICK) as env:
        put(env, b"early", b"bird")
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (6_000_000, 6_000_000))\n"
    with child(limit + FILLING, tmp_path, size) as writer:
        assert_full_once_and_nothing_in_part(writer, tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("size", SIZES)
def test_a_full_disk_is_full_and_keeps_nothing_of_the_write(size, small_disk):
    folder = small_disk / "data"
    with Environment(folder, QUICK) as env:
        put(env, b"early", b"bird")
    with child(FILLING, folder, size) as writer:
        assert_full_once_and_nothing_in_part(writer, folder)


# Whole or not at all.


def test_an_exception_in_a_write_keeps_nothing_of_it(tmp_path):
    def action(transaction):
        transaction.put("meta", b"name", b"new")
        transaction.put("chunks", b"more", b"new")
        raise KeyError("the caller's own")

    with Environment(tmp_path, QUICK) as env:
        put(env, b"name", b"old")
        with pytest.raises(KeyError, match="the caller's own"):
            env.write(action)
        assert get(env, b"name") == b"old"
        assert get(env, b"more", "chunks") is None


def test_a_write_returns_what_its_action_does(tmp_path):
    with Environment(tmp_path, QUICK) as env:
        put(env, b"name", b"there")
        assert env.write(lambda transaction: transaction.delete("meta", b"name"))
        assert not env.write(lambda transaction: transaction.delete("meta", b"name"))


def test_writes_of_many_threads_follow_each_other(tmp_path):
    def action(transaction):
        value = transaction.get("meta", b"count")
        transaction.put("meta", b"count", str(int(bytes(value)) + 1).encode())

    def writes(env):
        for _ in range(50):
            env.write(action)

    with Environment(tmp_path, QUICK) as env:
        put(env, b"count", b"0")
        writers = [threading.Thread(target=writes, args=(env,)) for _ in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(PATIENCE_S)
        assert get(env, b"count") == b"200"


@pytest.mark.parametrize("wait_s", [0.0, 0.02, 0.1])
def test_a_killed_writer_loses_no_committed_transaction(wait_s, tmp_path):
    code = """
with Environment(folder, StoreConfig()) as env:
    number = 0
    def action(transaction):
        for place in range(50):
            transaction.put("chunks", bytes([place]), number.to_bytes(4, "big") * 500)
    while True:
        number += 1
        env.write(action)
        print(number, flush=True)
"""
    with child(code, tmp_path) as writer:
        committed = int(writer.stdout.readline())
        time.sleep(wait_s)
        writer.kill()
        committed = max([committed, *map(int, re.findall(r"^(\d+)\n", writer.stdout.read(), re.MULTILINE))])
        writer.wait()
    with Environment(tmp_path, QUICK) as env, env.read() as transaction:
        values = [bytes(value) for _, value in transaction.scan("chunks", b"")]
        assert len(values) == 50
        assert len(set(values)) == 1
        assert int.from_bytes(values[0][:4], "big") >= committed


# Snapshots.


def test_a_reader_sees_the_store_as_it_was_when_it_began(tmp_path):
    with Environment(tmp_path, QUICK) as env:
        put(env, b"name", b"old")
        with env.read() as before:
            put(env, b"name", b"new")
            put(env, b"more", b"new")
            with env.read() as after:
                assert (before.get("meta", b"name"), after.get("meta", b"name")) == (b"old", b"new")
                assert before.get("meta", b"more") is None
                assert [key for key, _ in before.scan("meta", b"more")] == []


def test_a_reader_of_another_process_sees_what_was_committed(tmp_path):
    code = """
with Environment(folder, StoreConfig(), readonly=True) as env:
    for _ in sys.stdin:
        with env.read() as transaction:
            print(transaction.get("meta", b"name").tobytes().decode(), flush=True)
"""
    with Environment(tmp_path, QUICK) as env, child(code, tmp_path) as reader:
        for name in ("one", "two"):
            put(env, b"name", name.encode())
            tell(reader, "?")
            assert reader.stdout.readline() == f"{name}\n"


def test_errors_of_the_reader_s_own_are_not_the_store_s(tmp_path):
    with Environment(tmp_path, QUICK) as env:
        with pytest.raises(BrokenPipeError), env.read():
            raise BrokenPipeError
        with pytest.raises(Conflict), env.read():
            raise Conflict(Code.RUN_ACTIVE, "the caller's own")
        with pytest.raises(FileNotFoundError):
            env.write(lambda _: Path("/nowhere/at/all").read_bytes())
        fill(env, 1)


# Refusals.


def refused(kind, folder, config=QUICK, *, readonly=False):
    with pytest.raises(kind, match=re.escape(str(folder))) as caught:
        Environment(folder, config, readonly=readonly).close()
    return caught.value.code


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("schema", [SCHEMA + 1, 0])
def test_another_schema_is_refused(schema, readonly, tmp_path, monkeypatch):
    monkeypatch.setattr(store_env, "SCHEMA", schema)
    Environment(tmp_path, QUICK).close()
    monkeypatch.undo()
    assert refused(ConfigError, tmp_path, readonly=readonly) == Code.STORE_SCHEMA


@pytest.mark.parametrize(
    "content",
    [b"garbage", b"garbage" * 10_000, bytes(100), bytes(65_536), bytes(range(256)) * 64],
    ids=["short", "long", "few zeros", "zeros", "bytes"],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_a_file_of_garbage_is_refused_and_left_alone(content, readonly, tmp_path):
    (tmp_path / FILE_NAME).write_bytes(content)
    assert refused(StoreCorrupt, tmp_path, readonly=readonly) == Code.STORE_CORRUPT
    assert (tmp_path / FILE_NAME).read_bytes() == content


@pytest.mark.parametrize("version", [0, 2, 9])
def test_a_file_of_another_lmdb_format_is_refused(version, tmp_path):
    Environment(tmp_path, QUICK).close()
    file = bytearray((tmp_path / FILE_NAME).read_bytes())
    magic = (0xBEEFC0DE).to_bytes(4, sys.byteorder)
    for found in list(re.finditer(re.escape(magic), file)):
        file[found.end()] = version
    (tmp_path / FILE_NAME).write_bytes(file)
    assert refused(ConfigError, tmp_path) == Code.STORE_SCHEMA


def test_a_reader_of_what_is_not_there_is_refused_and_creates_nothing(tmp_path):
    assert refused(ConfigError, tmp_path, readonly=True) == Code.STORE_UNUSABLE
    assert not (tmp_path / FILE_NAME).exists()


def test_a_folder_or_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    assert refused(ConfigError, tmp_path / "file") == Code.STORE_UNUSABLE
    (tmp_path / "data" / FILE_NAME).mkdir(parents=True)
    assert refused(ConfigError, tmp_path / "data") == Code.STORE_UNUSABLE


def test_a_reader_may_not_write(tmp_path):
    Environment(tmp_path, QUICK).close()
    with Environment(tmp_path, QUICK, readonly=True) as env, pytest.raises(ConfigError) as caught:
        put(env, b"name", b"value")
    assert caught.value.code == Code.STORE_UNUSABLE


def test_a_store_whose_first_write_has_not_happened_reads_as_empty(tmp_path):
    lmdb.open(str(tmp_path / FILE_NAME), subdir=False, max_dbs=16).close()
    with Environment(tmp_path, QUICK, readonly=True) as env, env.read() as transaction:
        assert transaction.get("meta", b"name") is None
        assert list(transaction.scan("chunks", b"")) == []
        assert transaction.floor("chunks", b"", b"key") is None


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX")
def test_folder_and_files_are_their_user_s_alone(tmp_path):
    umask = os.umask(0)
    try:
        with Environment(tmp_path / "data", QUICK):
            modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "data").iterdir()}
    finally:
        os.umask(umask)
    assert modes == {FILE_NAME: 0o600, f"{FILE_NAME}-lock": 0o600}
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_the_size_counts_pages_in_use(tmp_path):
    with Environment(tmp_path, QUICK) as env:
        empty = env.size_bytes()
        fill(env, 3)
        assert 3 * MIB < env.size_bytes() - empty < 4 * MIB
        assert env.size_bytes() <= env.path.stat().st_size


# Walks, against a sorted list.


@pytest.fixture(scope="module")
def shared_env(tmp_path_factory):
    with Environment(tmp_path_factory.mktemp("walks"), QUICK) as env:
        yield env


short_keys = st.lists(st.sampled_from([0, 1, 2, 255]), min_size=1, max_size=4).map(bytes)
prefixes = st.lists(st.sampled_from([0, 1, 2, 255]), max_size=2).map(bytes)


def store_keys(env, stored):
    def action(transaction):
        for key, _ in list(transaction.scan("chunks", b"")):
            transaction.delete("chunks", key)
        for key in stored:
            transaction.put("chunks", key, b"=" + key)
            transaction.put("results", b"\1" + key, b"elsewhere")

    env.write(action)


@given(stored=st.sets(short_keys, max_size=12), prefix=prefixes, start=st.none() | short_keys)
def test_a_scan_walks_the_keys_with_the_prefix_from_the_start_in_order(shared_env, stored, prefix, start):
    start = None if start is None else prefix + start
    store_keys(shared_env, stored)
    with shared_env.read() as transaction:
        found = [(key, bytes(value)) for key, value in transaction.scan("chunks", prefix, start)]
    wanted = sorted(key for key in stored if key.startswith(prefix) and (start is None or key >= start))
    assert found == [(key, b"=" + key) for key in wanted]


@given(stored=st.sets(short_keys, max_size=12), prefix=prefixes, rest=short_keys)
def test_the_floor_is_the_greatest_key_with_the_prefix_not_above(shared_env, stored, prefix, rest):
    store_keys(shared_env, stored)
    with shared_env.read() as transaction:
        found = transaction.floor("chunks", prefix, prefix + rest)
    within = sorted(key for key in stored if key.startswith(prefix))
    place = bisect_right(within, prefix + rest)
    assert found == (within[place - 1] if place else None)


def test_closing_waits_for_snapshots_of_other_threads(tmp_path):
    env = Environment(tmp_path, StoreConfig(sync=False))
    env.write(lambda transaction: transaction.put("meta", b"key", b"value" * 1_000))
    began, go_on = threading.Event(), threading.Event()
    seen = []

    def look():
        with env.read() as transaction:
            value = transaction.get("meta", b"key")
            began.set()
            go_on.wait(5)
            seen.append(bytes(value))

    reader = threading.Thread(target=look)
    reader.start()
    began.wait(5)
    closer = threading.Thread(target=env.close)
    closer.start()
    closer.join(0.05)
    assert closer.is_alive()
    go_on.set()
    closer.join(5)
    reader.join(5)
    assert seen == [b"value" * 1_000]
    with pytest.raises(ConfigError), env.read():
        pass
