"""`atlasd doctor`: each thing that can be wrong with a machine is found, and said with what to do."""

import json
import os
import socket
import sys
import time

import pytest

import daemon
from daemon.app import config, doctor
from daemon.app.lock import WriterLock
from daemon.app.tokens import TokenFile
from daemon.store.env import Environment, StoreConfig

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes of files")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    with Environment(folder, StoreConfig()):
        pass
    TokenFile(folder).ensure()
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch):
    cache = tmp_path / "kernels"
    cache.mkdir(mode=0o700)
    monkeypatch.setattr(daemon, "KERNEL_CACHE", cache)
    return cache


@pytest.fixture
def examined(folder, cache, tmp_path):
    """Look at everything; returns the findings by check."""
    own = tmp_path / "own.toml"
    own.write_text("[http]\nport = 0\n")

    def examine(path=own):
        return {each.check: each for each in doctor.examine(folder, lambda: config.load(path))}

    (cache / "kernel.nbi").touch()
    return examine


def test_a_sound_machine_has_nothing_to_be_done(examined):
    found = examined()
    assert list(found) == [
        "python", "libraries", "open files", "kernel cache", "configuration", "strategies", "data folder", "token",
        "disk", "clock", "store", "daemon", "port", "secrets",
    ]  # fmt: skip
    assert {each.check: each.status for each in found.values() if each.status != "ok"} == {}
    assert not [each for each in found.values() if each.remedy]


def test_nothing_is_left_in_the_data_folder(examined, folder):
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "atlas.lmdb-lock"}
    examined()
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "atlas.lmdb-lock"}
    assert {name for name in after if name not in before} <= {"writer.lock"}
    assert before.items() <= after.items()


@pytest.mark.usefixtures("cache")
def test_a_folder_that_is_not_there_yet_is_not_made(tmp_path):
    found = {each.check: each for each in doctor.examine(tmp_path / "none", lambda: config.load(None))}
    assert not (tmp_path / "none").exists()
    assert {found[name].status for name in ("data folder", "token", "store", "daemon", "disk", "clock")} == {"ok"}


@pytest.mark.parametrize(
    ("mode", "status"), [(0o700, "ok"), (0o750, "warn"), (0o755, "warn"), (0o770, "fail"), (0o702, "fail")]
)
def test_a_data_folder_that_others_get_into_is_found(examined, folder, mode, status):
    folder.chmod(mode)
    found = examined()["data folder"]
    assert found.status == status
    assert f"mode {mode:04o}" in found.found
    assert found.remedy == ("" if status == "ok" else f"chmod 700 {folder}")


@pytest.mark.parametrize("content", [None, "short\n"])
def test_a_token_that_others_can_read_or_that_is_none_fails(examined, folder, content):
    if content is None:
        (folder / "token").chmod(0o644)
    else:
        (folder / "token").write_text(content)
    found = examined()["token"]
    assert found.status == "fail"
    assert "--rotate" in found.remedy


def test_a_cache_that_others_may_write_to_fails_and_an_empty_one_is_slow(examined, cache):
    (cache / "kernel.nbi").unlink()
    assert examined()["kernel cache"].status == "warn"
    assert "atlasd warmup" in examined()["kernel cache"].remedy
    cache.chmod(0o777)
    found = examined()["kernel cache"]
    assert (found.status, "chmod 700" in found.found) == ("fail", True)


def test_a_damaged_store_fails_with_the_store_s_own_words(examined, folder):
    (folder / "atlas.lmdb").write_bytes(b"no store at all" * 1000)
    found = examined()["store"]
    assert found.status == "fail"
    assert str(folder / "atlas.lmdb") in found.found


def test_a_store_from_the_future_warns_of_the_clock(examined, folder):
    later = time.time() + 3600
    os.utime(folder / "atlas.lmdb", (later, later))
    found = examined()["clock"]
    assert found.status == "warn"
    assert "NTP" in found.remedy


def test_a_clock_that_is_set_meanwhile_is_seen(examined, monkeypatch):
    real, calls = time.time, []

    def jumping():
        calls.append(None)
        return real() + 5 * (len(calls) > 1)

    monkeypatch.setattr(doctor.time, "time", jumping)
    found = examined()["clock"]
    assert (found.status, "was set by +50" in found.found) == ("warn", True)


def test_a_clock_of_another_age_fails(examined, monkeypatch):
    monkeypatch.setattr(doctor.time, "time", lambda: 12.0)
    assert "1970-01-01" in examined()["clock"].found
    assert examined()["clock"].status == "fail"


@pytest.mark.parametrize(("free", "status"), [(10 << 20, "fail"), (1 << 30, "warn"), (3 << 30, "ok")])
def test_a_disk_without_room_is_found(examined, monkeypatch, free, status):
    usage = doctor.shutil.disk_usage("/")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _path: usage._replace(free=free))
    assert examined()["disk"].status == status


def test_a_port_that_another_program_has_is_named(examined, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = tmp_path / "other.toml"
        other.write_text(f"[http]\nport = {port}\n")
        found = examined(other)["port"]
    assert (found.status, str(port) in found.found) == ("fail", True)


@pytest.mark.parametrize(("limit", "status"), [(128, "fail"), (512, "warn"), (1024, "ok")])
def test_few_open_files_are_found(examined, monkeypatch, limit, status):
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, 4096))
    assert examined()["open files"].status == status


def test_a_library_that_is_missing_is_named(examined, monkeypatch):
    monkeypatch.setattr(
        doctor.metadata, "requires", lambda _name: ["numpy>=2", "no-such-thing[x]>=1 ; extra != 'y'", "gone"]
    )
    found = examined()["libraries"]
    assert found.status == "fail"
    assert "missing: gone, no-such-thing;" in found.found


def test_a_wrong_configuration_is_a_finding_and_the_rest_is_still_looked_at(examined, tmp_path):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[http]\nprot = 1\n")
    found = examined(wrong)
    assert found["configuration"].status == "fail"
    assert "http.prot" in found["configuration"].found
    assert found["python"].status == "ok"


def test_who_has_the_folder_without_serving_is_named(examined, folder):
    with WriterLock(folder, "import"):
        found = examined()["daemon"]
    assert found.status == "ok"
    assert f"process {os.getpid()} (atlasd import)" in found.found


@pytest.mark.usefixtures("cache")
def test_the_command_ends_with_1_where_something_fails_and_prints_json(atlasd_inside, folder, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text("[http]\nport = 0\n")
    arguments = ("doctor", "--data-dir", folder, "--config", own)
    done = atlasd_inside(*arguments, "--format", "json")
    assert done.returncode == 0, done.stdout
    assert {"check", "status", "found", "remedy"} == set(json.loads(done.stdout)[0])
    (folder / "token").chmod(0o666)
    failed = atlasd_inside(*arguments)
    assert failed.returncode == 1
    assert "fail token" in failed.stdout
    assert "-> `atlasd token --rotate`" in failed.stdout
