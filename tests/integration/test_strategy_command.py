"""`atlasd strategy`: a file is written, listed and checked in a process that is killed when it takes too long."""

import json
import time

import pytest

from daemon.research.own.folder import digest_of, kept_id
from daemon.research.own.template import template
from daemon.research.strategy_check import check

CLASS = "from daemon.research import Strategy\nclass A(Strategy):\n    def on_book(self, context): pass\n"


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


def test_a_new_strategy_is_listed_and_checks_as_it_stands(atlasd_inside, data):
    done = atlasd_inside("strategy", "new", "first_idea", "--data-dir", data)
    assert done.returncode == 0, done.stderr
    assert (data / "strategies" / "first_idea.py").read_bytes() == template("first_idea")
    (data / "strategies" / "bad.py").write_text("class")
    listed = json.loads(atlasd_inside("strategy", "list", "--format", "json", "--data-dir", data).stdout)
    assert [(each["id"], each["name"], each["handlers"]) for each in listed] == [
        ("bad", None, []), ("first_idea", "FirstIdea", ["on_bar", "on_fill"]),
    ]  # fmt: skip
    assert listed[0]["error"].startswith("bad.py, line 1: does not parse")
    assert listed[1]["parameters"][0] == {"name": "low", "default": 30.0, "low": 10.0, "high": 45.0, "step": 5.0}
    assert "low=30 (10:45:5)" in atlasd_inside("strategy", "list", "--data-dir", data).stdout
    done = atlasd_inside("strategy", "check", "first_idea", "--data-dir", data)
    assert done.returncode == 0, done.stderr
    for said in (
        "first_idea.py: FirstIdea",
        "parameter  share=0.5",
        "column     rsi_14",
        "handler    on_bar",
        "bought",
    ):
        assert said in done.stdout
    again = atlasd_inside("strategy", "new", "first_idea", "--data-dir", data)
    assert (again.returncode, "[STRATEGY_EXISTS]" in again.stderr) == (1, True)


def test_what_a_strategy_prints_is_not_among_the_results(capfd):
    check(b"print('hello')\n" + CLASS.encode(), "a.py", seconds=60.0)
    said, told = capfd.readouterr()
    assert (said, "hello" in told) == ("", True)


def test_a_new_strategy_may_lie_anywhere(atlasd_inside, tmp_path, data):
    done = atlasd_inside("strategy", "new", "mine.py", "--folder", tmp_path, "--data-dir", data)
    assert done.stdout.strip() == str(tmp_path / "mine.py")
    assert not data.exists()
    again = atlasd_inside("strategy", "new", "mine", "--folder", tmp_path, "--data-dir", data)
    assert "[STRATEGY_EXISTS]" in again.stderr
    nowhere = atlasd_inside("strategy", "new", "mine", "--folder", tmp_path / "nowhere", "--data-dir", data)
    assert "[OUTPUT_UNWRITABLE]" in nowhere.stderr


@pytest.mark.parametrize(
    ("wanted", "code"),
    [("nothing", "STRATEGY_NOT_FOUND"), ("nothing.py", "STRATEGY_NOT_FOUND"), ("../x", "STRATEGY_INVALID")],
)
def test_what_there_is_not_cannot_be_checked(atlasd_inside, data, wanted, code):
    done = atlasd_inside("strategy", "check", wanted, "--data-dir", data)
    assert done.returncode
    assert f"[{code}]" in done.stderr


def test_a_broken_file_is_told_with_its_line(atlasd_inside, data, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(CLASS + "A.nothing\n")
    done = atlasd_inside("strategy", "check", path, "--data-dir", data)
    assert done.returncode == 2
    assert "broken.py, line 4: raises while it is imported: AttributeError" in done.stderr
    assert "[STRATEGY_INVALID]" in done.stderr


def test_a_file_that_never_ends_is_killed():
    began_s = time.monotonic()
    with pytest.raises(Exception, match=r"mine.py: was not done within 0.3 s") as refused:
        check(f"{CLASS}while True: pass\n".encode(), "mine.py", seconds=0.3)
    assert refused.value.code == "STRATEGY_INVALID"
    assert time.monotonic() - began_s < 10


def test_a_file_that_ends_its_process_ends_no_other():
    with pytest.raises(Exception, match=r"took its process down .* \(exit code 7\)") as refused:
        check(f"import os\n{CLASS}os._exit(7)\n".encode(), "mine.py")
    assert refused.value.code == "STRATEGY_INVALID"


def test_a_configuration_s_file_is_kept_before_anything_runs(atlasd_inside, data, tmp_path):
    (tmp_path / "mine.py").write_bytes(template("mine"))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"strategy": {"file": "mine.py"}, "backtest": {"symbols": ["NONE"]}}))
    for command in (("backtest", config), ("optimize", config), ("strategy", "check", "mine", "--backtest", config)):
        done = atlasd_inside(*command, "--data-dir", data)
        assert done.returncode
        assert "[INVALID_SYMBOL]" in done.stderr or "[STRATEGY_NOT_FOUND]" in done.stderr
    listed = json.loads(atlasd_inside("strategy", "list", "--given", "--format", "json", "--data-dir", data).stdout)
    assert [each["id"] for each in listed] == [kept_id("mine", digest_of(template("mine")))]
    done = atlasd_inside("backtest", tmp_path / "mine.py", "--data-dir", data)
    assert 'is a strategy: name it in a configuration, {"strategy": {"file": "mine.py"}' in done.stderr
