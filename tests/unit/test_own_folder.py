"""The strategy folder: who may write to it, what an id may be, and copies that are what their names say."""

import os
import stat
import sys

import pytest

from daemon.core.backtest import Own
from daemon.core.errors import AtlasError, Code
from daemon.research.own.folder import MOST_BYTES, StrategyFolder, digest_of, kept_id, name_of

SOURCE = b"x = 1\n"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="modes of files are another thing on Windows")


@pytest.fixture
def folder(tmp_path):
    return StrategyFolder(tmp_path / "strategies")


def code(call, *arguments):
    with pytest.raises(AtlasError) as refused:
        call(*arguments)
    return refused.value.code


def test_it_is_made_for_its_user_alone_and_files_are_listed_by_id(folder):
    assert folder.ids() == folder.given() == []
    for path in (folder.path, folder.path / "given"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    folder.add("two", SOURCE)
    assert stat.S_IMODE(folder.add("one", b"y = 1\n").stat().st_mode) == 0o600
    (folder.path / "notes.txt").write_text("no strategy")
    (folder.path / ".hidden.py").write_bytes(SOURCE)
    assert folder.ids() == ["one", "two"]
    assert folder.read("two") == SOURCE


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_to_is_refused(folder, mode):
    folder.add("one", SOURCE)
    folder.path.chmod(mode)
    for call, *arguments in ((folder.ids,), (folder.read, "one"), (folder.add, "two", SOURCE), (folder.given,)):
        assert code(call, *arguments) is Code.STRATEGY_FOLDER_UNSAFE
    folder.path.chmod(0o750)
    assert folder.ids() == ["one"]


def test_a_folder_of_copies_that_others_may_write_to_is_refused(folder):
    kept = folder.keep_source("one", SOURCE)
    (folder.path / "given").chmod(0o777)
    for call, *arguments in ((folder.given,), (folder.read, kept), (folder.keep_source, "one", b"other")):
        assert code(call, *arguments) is Code.STRATEGY_FOLDER_UNSAFE


def test_a_file_that_others_may_write_to_is_refused(folder):
    folder.add("one", SOURCE).chmod(0o666)
    assert code(folder.read, "one") is Code.STRATEGY_FOLDER_UNSAFE


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can give a file away")
def test_a_folder_of_another_user_is_refused(folder):
    folder.add("one", SOURCE)
    os.chown(folder.path, 12_345, 12_345)
    assert code(folder.ids) is Code.STRATEGY_FOLDER_UNSAFE


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    assert code(StrategyFolder(tmp_path / "file" / "strategies").ids) is Code.STRATEGY_FOLDER_UNSAFE


@pytest.mark.parametrize(
    "strategy_id", ["", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", ".hidden", "a..b", "x" * 51, "ä", "a b", "a\n"]
)
def test_an_id_that_could_lead_elsewhere_is_no_id(folder, strategy_id):
    assert code(folder.read, strategy_id) is Code.STRATEGY_INVALID
    assert code(folder.add, strategy_id, SOURCE) is Code.STRATEGY_INVALID


def test_a_link_may_not_lead_out_of_the_folder(folder, tmp_path):
    outside = tmp_path / "outside.py"
    outside.write_bytes(SOURCE)
    folder.add("inside", SOURCE)
    (folder.path / "out.py").symlink_to(outside)
    (folder.path / "in.py").symlink_to(folder.path / "inside.py")
    assert folder.ids() == ["in", "inside"]
    assert folder.read("in") == SOURCE
    assert code(folder.read, "out") is Code.STRATEGY_INVALID


def test_what_there_is_not_is_told_with_what_there_is(folder):
    folder.add("one", SOURCE)
    with pytest.raises(AtlasError, match="it has one") as refused:
        folder.read("two")
    assert refused.value.code is Code.STRATEGY_NOT_FOUND
    (folder.path / "two.py").mkdir()
    assert code(folder.read, "two") is Code.STRATEGY_NOT_FOUND


def test_a_file_that_is_there_is_not_written_over(folder):
    path = folder.add("one", SOURCE)
    assert code(folder.add, "one", b"other") is Code.STRATEGY_EXISTS
    assert path.read_bytes() == SOURCE


def test_a_large_file_is_refused(folder):
    folder.add("large", b"#" * (MOST_BYTES + 1))
    assert code(folder.read, "large") is Code.STRATEGY_INVALID


def test_a_given_file_is_kept_under_what_it_holds(folder, tmp_path):
    path = tmp_path / "my maker (2).py"
    path.write_bytes(SOURCE)
    kept = folder.keep(path)
    assert kept == f"my_maker_2_-{digest_of(SOURCE)[:12]}"
    assert folder.keep(path) == kept
    assert folder.given() == [kept]
    assert folder.ids() == []
    path.unlink()
    assert folder.read(kept) == SOURCE
    assert stat.S_IMODE((folder.path / "given" / f"{kept}.py").stat().st_mode) == 0o600
    assert code(folder.keep, path) is Code.STRATEGY_NOT_FOUND
    assert code(folder.keep, tmp_path) is Code.STRATEGY_NOT_FOUND


def test_a_kept_copy_that_somebody_changed_is_refused(folder):
    kept = folder.keep_source("one", SOURCE)
    (folder.path / "given" / f"{kept}.py").write_bytes(b"changed")
    assert code(folder.read, kept) is Code.STRATEGY_INVALID
    assert folder.keep_source("one", SOURCE) == kept
    assert folder.read(kept) == SOURCE


def test_a_run_finds_the_version_that_it_was_queued_with(folder):
    path = folder.add("one", SOURCE)
    own = Own("one", digest_of(SOURCE))
    folder.pin(own)
    path.write_bytes(b"edited")
    assert folder.source_of(own) == SOURCE
    path.unlink()
    assert folder.source_of(own) == SOURCE
    assert code(folder.source_of, Own("one", digest_of(b"never kept"))) is Code.STRATEGY_NOT_FOUND


def test_names_of_copies_do_not_grow_with_each_copy():
    digest = digest_of(SOURCE)
    kept = kept_id("one", digest)
    assert kept_id(kept, digest) == kept
    assert kept_id(kept, digest_of(b"edited")) == f"one-{digest_of(b'edited')[:12]}"
    assert len(kept_id("x" * 200, digest)) == 50
    assert kept_id("...", digest).startswith("_-")
    assert (name_of(kept), name_of("one-two")) == ("one", "one-two")
