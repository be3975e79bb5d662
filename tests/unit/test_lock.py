"""One writer a data folder: others are told who it is, and a killed one leaves nothing to clean up."""

import contextlib
import os
import subprocess
import sys
import threading
import time

import pytest

from daemon.app.lock import Owner, WriterLock, read_owner, write_atomically
from daemon.core.errors import Code, Conflict

HOLDING = """
import sys
from pathlib import Path
from daemon.app.lock import WriterLock
with WriterLock(Path(sys.argv[1]), "serve"):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextlib.contextmanager
def holder(folder):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLDING, folder]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_process_is_refused_and_told_who_writes(tmp_path):
    with holder(tmp_path) as process:
        with pytest.raises(Conflict) as refusal, WriterLock(tmp_path, "import bars"):
            pass
        assert refusal.value.code == Code.STORE_LOCKED
        assert f"process {process.pid} (atlasd serve) is writing to {tmp_path}" in refusal.value.message
        assert refusal.value.details == {"pid": process.pid}
        assert read_owner(tmp_path) == Owner(process.pid, "serve")


def test_a_refused_process_leaves_the_lock_and_its_note_alone(tmp_path):
    with holder(tmp_path):
        for _ in range(2):
            with pytest.raises(Conflict), WriterLock(tmp_path, "import bars"):
                pass


def test_an_ended_writer_leaves_neither_lock_nor_note(tmp_path):
    with holder(tmp_path) as process:
        process.communicate("end\n", timeout=10)
        assert process.returncode == 0
    assert read_owner(tmp_path) is None
    with WriterLock(tmp_path, "import bars"):
        assert read_owner(tmp_path) == Owner(os.getpid(), "import bars")


def test_a_lock_dies_with_a_killed_process(tmp_path):
    with holder(tmp_path) as process:
        process.kill()
        process.wait()
    assert read_owner(tmp_path).pid == process.pid
    with WriterLock(tmp_path, "import bars"):
        assert read_owner(tmp_path) == Owner(os.getpid(), "import bars")


def test_an_error_beneath_the_lock_releases_it(tmp_path):
    with pytest.raises(KeyError), WriterLock(tmp_path, "one"):
        raise KeyError
    with WriterLock(tmp_path, "two"):
        pass
    assert read_owner(tmp_path) is None


def test_two_locks_of_one_process_exclude_each_other(tmp_path):
    with WriterLock(tmp_path, "one"), pytest.raises(Conflict), WriterLock(tmp_path, "two"):
        pass


@pytest.mark.parametrize("note", [None, b"", b"{", b'{"pid": "x"}', b"\xff"])
def test_a_note_that_cannot_be_read_still_refuses(note, tmp_path):
    with holder(tmp_path):
        (tmp_path / "writer.json").unlink()
        if note is not None:
            (tmp_path / "writer.json").write_bytes(note)
        with pytest.raises(Conflict, match="another process is writing"), WriterLock(tmp_path, "import bars"):
            pass


def test_the_folder_is_created_for_its_user_alone(tmp_path):
    with WriterLock(tmp_path / "data", "one"):
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_readers_of_a_small_file_see_the_old_one_or_the_new_one(tmp_path):
    path, stop, torn = tmp_path / "ready.json", threading.Event(), []
    whole = {letter * 200_000 for letter in (b"a", b"b")}
    write_atomically(path, b"a" * 200_000)

    def reads():
        while not stop.is_set():
            if (content := path.read_bytes()) not in whole:
                torn.append(len(content))

    reader = threading.Thread(target=reads)
    reader.start()
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        for content in whole:
            write_atomically(path, content)
    stop.set()
    reader.join()
    assert torn == []
    assert [each.name for each in tmp_path.iterdir()] == ["ready.json"]
