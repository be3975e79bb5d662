"""`atlasd logs`: the last lines over all files, then those to come, through rotation, and nothing a terminal obeys."""

import json
import logging
import logging.handlers
import threading

import pytest

from daemon.app import log_lines
from daemon.app.log_lines import Line, Log, is_worth, readable
from daemon.app.logs import FILE_NAME, JsonFormatter
from daemon.core.errors import Code, NotFound

LEVELS = ("debug", "info", "warning", "error")


@pytest.fixture
def writer(tmp_path):
    """A logger as the daemon has it, whose files are rotated every few lines."""
    handler = logging.handlers.RotatingFileHandler(
        tmp_path / FILE_NAME, maxBytes=400, backupCount=200, encoding="utf-8"
    )
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("tests.written")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)
    handler.close()


def messages(lines):
    return [line.message for line in lines]


@pytest.mark.parametrize("count", [0, 1, 3, 7, 29, 30, 100])
def test_the_last_lines_are_found_in_rotated_files_too(writer, tmp_path, count):
    for number in range(30):
        writer.info("line %d", number)
    assert len(list(tmp_path.iterdir())) > 5
    with Log(tmp_path, "debug") as log:
        assert messages(log.last(count)) == [f"line {number}" for number in range(30)][30 - min(count, 30) :]


@pytest.mark.parametrize(("level", "kept"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_only_lines_of_a_level_and_above_are_counted(writer, tmp_path, level, kept):
    for number in range(5):
        for each in LEVELS:
            writer.log(logging.getLevelNamesMapping()[each.upper()], "%s %d", each, number)
    with Log(tmp_path, level) as log:
        assert messages(log.last(2 * kept)) == [f"{each} {number}" for number in (3, 4) for each in LEVELS[-kept:]]


def test_what_is_written_later_follows_through_rotation_without_a_loss(writer, tmp_path, monkeypatch):
    monkeypatch.setattr(log_lines, "POLL_S", 0.0)
    writer.info("before")
    done = threading.Event()

    def write():
        for number in range(200):
            writer.info("line %d", number)
            done.wait(0.002)
        done.set()

    thread = threading.Thread(target=write)
    with Log(tmp_path, "debug") as log:
        assert messages(log.last(10)) == ["before"]
        thread.start()
        followed = messages(log.follow(done.is_set))
    thread.join()
    assert followed == [f"line {number}" for number in range(200)]


def test_half_a_line_waits_for_its_end(tmp_path):
    path = tmp_path / FILE_NAME
    whole = '{"time": "t", "level": "info", "logger": "x", "message": "whole"}\n'
    path.write_text(whole + whole[:20])
    steps = iter([False, True])

    def is_over():
        if is_last := next(steps):
            path.write_text(whole + whole)
        return is_last

    with Log(tmp_path, "debug") as log:
        assert messages(log.last(10)) == ["whole"]
        assert messages(log.follow(is_over)) == ["whole"]


def test_a_log_that_is_not_there_yet_is_said(tmp_path):
    with Log(tmp_path, "debug") as log, pytest.raises(NotFound) as refused:
        log.last(10)
    assert refused.value.code == Code.NO_ROWS


def test_what_is_no_line_of_ours_is_shown_as_it_is(tmp_path):
    (tmp_path / FILE_NAME).write_bytes(b"Fatal Python error\n\xff\xfe\n")
    with Log(tmp_path, "error") as log:
        assert messages(log.last(10)) == ["Fatal Python error", "\\xff\\xfe"]


def test_lines_are_readable_with_request_and_traceback_and_a_terminal_obeys_nothing():
    line = Line("2024-01-01T00:00:00.000+00:00", "error", "daemon.x", "bad \x1b[2J\u009b name", "req-1", "Traceback\nE")
    text = readable(line)
    assert "ERROR   daemon.x: bad \\x1b[2J\\x9b name [req-1]\n    Traceback\n    E" in text
    assert readable(Line("?", "", "", "x")).startswith("? ")


def test_the_command_prints_and_filters(tmp_path, atlasd_inside):
    folder = tmp_path / "data" / "logs"
    folder.mkdir(parents=True)
    lines = [{"time": "2024-01-01T00:00:00+00:00", "level": each, "logger": "l", "message": each} for each in LEVELS]
    (folder / FILE_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = atlasd_inside("logs", "--data-dir", folder.parent, "--level", "warning", "-n", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("ERROR   l: error\n")
    assert done.stdout.count("\n") == 1
    assert atlasd_inside("logs", "--data-dir", tmp_path / "none").returncode == 1


def test_unknown_levels_are_always_worth_a_line():
    assert is_worth(Line("", "loud", "", ""), "error")
