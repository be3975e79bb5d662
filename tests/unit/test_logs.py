"""The log file: one JSON object a line, rotated, quiet below its level."""

import io
import json
import logging
import re

import pytest

from daemon.app import logs
from daemon.app.logs import LogConfig

LOG = logging.getLogger("daemon.test")


@pytest.fixture
def folder(tmp_path):
    """A folder to log into; afterwards the root logger is as before."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield tmp_path / "logs"
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(folder, name=logs.FILE_NAME):
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def test_each_line_is_a_json_object_with_time_level_logger_and_message(folder):
    logs.start(LogConfig(), folder)
    LOG.info('%d bars of "%s"\nand a second line \N{GREEK SMALL LETTER PI}', 3, "SPY")
    (line,) = lines(folder)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line == {
        "level": "info",
        "logger": "daemon.test",
        "message": '3 bars of "SPY"\nand a second line \N{GREEK SMALL LETTER PI}',
    }


def test_a_traceback_is_kept_in_its_line(folder):
    logs.start(LogConfig(), folder)
    try:
        raise ValueError("planted")
    except ValueError:
        LOG.exception("a job failed")
    (line,) = lines(folder)
    assert (line["level"], line["message"]) == ("error", "a job failed")
    assert line["exception"].startswith("Traceback (most recent call last):")
    assert line["exception"].endswith("ValueError: planted")


@pytest.mark.parametrize(("level", "kept"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_only_what_is_worth_a_line_is_written(level, kept, folder):
    logs.start(LogConfig(level=level), folder)
    for name in ("debug", "info", "warning", "error"):
        getattr(LOG, name)("said")
    assert [line["level"] for line in lines(folder)] == ["debug", "info", "warning", "error"][-kept:]


def test_the_file_is_rotated_at_its_size_and_the_oldest_go(folder):
    logs.start(LogConfig(max_mb=1, backups=2), folder)
    for number in range(45):
        LOG.info("%d %s", number, "x" * 100_000)
    names = ["atlasd.log.2", "atlasd.log.1", "atlasd.log"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert all(path.stat().st_size <= 1 << 20 for path in folder.iterdir())
    numbers = [int(line["message"].split()[0]) for name in names for line in lines(folder, name)]
    assert numbers == list(range(numbers[0], 45))
    assert numbers[0] > 0


def test_a_second_start_goes_on_in_the_same_file(folder):
    for word in ("one", "two"):
        logs.start(LogConfig(), folder)
        LOG.info(word)
    assert [line["message"] for line in lines(folder)] == ["one", "two"]


def test_the_folder_is_its_user_s_alone(folder):
    logs.start(LogConfig(), folder)
    assert folder.stat().st_mode & 0o777 == 0o700


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_readable_lines_as_well(folder, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    logs.start(LogConfig(), folder)
    LOG.warning("look")
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING look\n", terminal.getvalue())
    assert lines(folder)[0]["message"] == "look"


def test_nothing_goes_to_what_is_no_terminal(folder, monkeypatch):
    pipe = io.StringIO()
    monkeypatch.setattr("sys.stderr", pipe)
    logs.start(LogConfig(), folder)
    LOG.error("unseen")
    assert pipe.getvalue() == ""
