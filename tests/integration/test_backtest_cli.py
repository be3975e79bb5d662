"""`atlasd backtest` as its users meet it: a configuration in, a result out, and what is stored looked at afterwards."""

import csv
import io
import json
import os
import subprocess
import sys

import msgspec
import pytest

from daemon.app.cli import backtest
from daemon.app.cli.backtest_summary import print_status
from daemon.core.errors import Code, Conflict, JobFailed
from daemon.research.backtest_result import BacktestResult, BacktestStatus, EquityPoint, Receipt, Trade
from daemon.research.warmup import warm_backtest

CONFIG = {
    "strategy": {
        "name": "momentum_breakout",
        "entryRules": [
            {"indicator": "rsi", "condition": "crosses_above", "value": 30},
            {"indicator": "volume", "condition": "greater_than", "value": "sma_20"},
        ],
        "exitRules": [{"type": "take_profit", "value": 0.02}, {"type": "stop_loss", "value": 0.05}],
    },
    "backtest": {
        "startDate": "2024-01-02",
        "endDate": "2024-01-10",
        "symbols": ["SYNA", "SYNB"],
        "timeframe": "1h",
        "initialCapital": 10000,
        "commission": 0.001,
        "slippageModel": "volume_weighted",
    },
}


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    """The first backtest on a machine says that it compiles: that one is here."""
    warm_backtest()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture(scope="module")
def folder(cli, bars_files, tmp_path_factory):
    """A data folder with the small bars."""
    made = tmp_path_factory.mktemp("backtests") / "data"
    for (symbol, timeframe), path in bars_files.items():
        done = cli("import", "bars", path, "--symbol", symbol, "--timeframe", timeframe, "--data-dir", made)
        assert done.returncode == 0, done.stderr
    return made


@pytest.fixture
def atlasd(atlasd_inside, folder):
    """Run `atlasd` over the data folder, inside this process."""
    return lambda *arguments: atlasd_inside(*arguments, "--data-dir", folder)


@pytest.fixture
def made(atlasd, config):
    """Run a configuration; returns the result."""

    def run(*options):
        done = atlasd("backtest", config, "--format", "json", *options)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    return run


def failed(done, code, exit_code=1):
    """One line on stderr that ends with the code."""
    assert done.returncode == exit_code, done.stderr
    assert done.stderr.endswith(f" [{code}]\n")
    return done.stderr


def rows_of(done):
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


# Help.


def test_help_explains_running_and_looking(atlasd_inside):
    said = atlasd_inside("backtest", "--help").stdout
    assert said.startswith("Usage: atlasd backtest CONFIG.json [OPTIONS] | COMMAND")
    for word in ("--set", "--report", "--priority", "./show", "show", "diff", "cancel", "delete", "report"):
        assert word in said


@pytest.mark.parametrize(
    "command",
    [("backtest",), ("backtest", "show"), ("backtest", "config.json"), ("backtest", "diff"), ("backtests",)],
    ids=" ".join,
)
def test_help_loads_nothing_slow(command, tmp_path):
    script = (
        "import sys\n"
        "from daemon.app.cli.main import run\n"
        "try:\n"
        "    run()\n"
        "finally:\n"
        "    slow = {'numpy', 'msgspec', 'aiohttp', 'numba', 'talib', 'pyarrow', 'lmdb', 'psutil', 'rich.console'}\n"
        "    print(sorted(slow & set(sys.modules)), file=sys.stderr)\n"
    )
    environment = os.environ | {"ATLASD_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", script, *command, "--help"],
        capture_output=True, text=True, check=False, timeout=60, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert not (tmp_path / "data").exists()


# Running.


def test_a_configuration_gives_a_summary(atlasd, config):
    done = atlasd("backtest", config)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout
    assert said.startswith("Verdict: ")
    assert "momentum_breakout  local:SYNA, local:SYNB  2024-01-02 00:00 \N{RIGHTWARDS ARROW} 2024-01-11" in said
    for word in (
        "this run", "buy & hold", "return", "Sharpe", "max drawdown", "% won", "profit factor", "fees", "slippage",
        "(pessimistic) to", "known holes", "How it was read", "Assumptions", "--trades | --receipts | --equity",
    ):  # fmt: skip
        assert word in said, word
    assert not any(line.endswith(" ") for line in said.splitlines())


def test_json_is_the_whole_result(made):
    result = made()
    assert set(result) == set(BacktestResult.__struct_encode_fields__)
    assert msgspec.convert(result, BacktestResult, strict=False).trades


def test_csv_is_the_trades(atlasd, config, made):
    trades = rows_of(atlasd("backtest", config, "--format", "csv"))
    assert [float(row["pnl"]) for row in trades] == [row["pnl"] for row in made()["trades"]]


def test_a_field_is_set_and_a_name_given(made):
    usual, dearer = made(), made("--set", "backtest.commission=0.002", "--name", "dearer")
    assert dearer["name"] == "dearer"
    assert dearer["costs"]["fees"] > 1.9 * usual["costs"]["fees"]


def test_a_configuration_may_come_from_stdin_with_a_byte_order_mark(folder):
    done = subprocess.run(
        [sys.executable, "-m", "daemon", "backtest", "-", "--format", "csv", "--data-dir", folder],
        input=b"\xef\xbb\xbf" + json.dumps(CONFIG).encode(), capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"id,symbol,side,")


def test_a_file_with_a_commands_name_is_given_with_its_folder(atlasd, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "show").write_text(config.read_text())
    assert "momentum_breakout  local:SYNA" in atlasd("backtest", "./show").stdout
    assert "momentum_breakout  local:SYNA" in atlasd("backtest", "run", "show").stdout
    assert atlasd("backtest", "show").returncode == 2


def test_options_may_come_first(atlasd, config):
    assert atlasd("backtest", "--format", "csv", config).stdout.startswith("id,symbol,side,")


def test_a_report_is_written_beside_the_result(atlasd, config, tmp_path):
    page = tmp_path / "out.html"
    done = atlasd("backtest", config, "--format", "json", "--report", page)
    assert (done.returncode, done.stderr) == (0, f"report: {page}\n")
    backtest_id = json.loads(done.stdout)["id"]
    assert page.read_text().lower().startswith("<!doctype html>")
    again = tmp_path / "again.html"
    assert atlasd("backtest", "report", backtest_id, "--output", again).stdout == f"report: {again}\n"
    assert again.read_text() == page.read_text()


def test_the_suffix_of_a_report_says_whether_it_is_a_page_or_a_pdf(atlasd, made, tmp_path):
    backtest_id = made()["id"]
    for name, start in (("a.pdf", b"%PDF-"), ("a.PDF", b"%PDF-"), ("a.htm", b"<!doctype"), ("a.HTML", b"<!doctype")):
        done = atlasd("backtest", "report", backtest_id, "--output", tmp_path / name)
        assert (done.returncode, done.stdout) == (0, f"report: {tmp_path / name}\n")
        assert (tmp_path / name).read_bytes().lower().startswith(start.lower())
    assert not list(tmp_path.glob("*.part"))


def test_worker_processes_find_what_threads_find(made):
    assert made("--executor", "processes")["fingerprint"] == made()["fingerprint"]


# What is wrong with it.


@pytest.mark.parametrize("name", ["out", "out.txt", "pdf", "out.html.gz", ".pdf"])
def test_a_report_of_another_kind_is_refused_before_anything_runs(atlasd, config, tmp_path, name):
    before = atlasd("backtests", "--format", "csv").stdout
    for arguments in (("backtest", config, "--report"), ("backtest", "report", "x", "--output")):
        done = atlasd(*arguments, tmp_path / name)
        assert done.returncode == 2
        assert ".html" in done.stderr
        assert ".pdf" in done.stderr
    assert atlasd("backtests", "--format", "csv").stdout == before


def test_a_report_into_no_folder_is_refused_before_anything_runs(atlasd, config, tmp_path):
    before = atlasd("backtests", "--format", "csv").stdout
    done = atlasd("backtest", config, "--report", tmp_path / "nowhere" / "out.html")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert atlasd("backtests", "--format", "csv").stdout == before


def test_a_file_that_is_not_there_may_be_a_mistyped_command(atlasd):
    said = failed(atlasd("backtest", "shwo"), "SOURCE_NOT_FOUND")
    assert "run, show, diff, cancel, delete, report" in said


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ('{"strategy": {\n  "name" "x"}}', "INVALID_JSON", "line 2, column 10"),
        ("", "INVALID_JSON", "not JSON"),
        ("[1]", "INVALID_REQUEST", "JSON object"),
        ("{}", "INVALID_CONFIGURATION", ""),
    ],
    ids=["comma", "empty", "list", "nothing"],
)
def test_a_file_that_is_no_configuration_says_where(atlasd, tmp_path, text, code, where):
    path = tmp_path / "wrong.json"
    path.write_text(text)
    assert where in failed(atlasd("backtest", path), code, 2)


def test_a_folder_is_no_configuration(atlasd, tmp_path):
    failed(atlasd("backtest", tmp_path), "SOURCE_UNREADABLE")


@pytest.mark.parametrize(
    ("assignment", "code", "exit_code"),
    [
        ("backtest.commission=2", "INVALID_CONFIGURATION", 2),
        ("backtest.comission=0.1", "INVALID_CONFIGURATION", 2),
        ("backtest", "INVALID_CONFIGURATION", 2),
        ("backtest.symbols[0]=NOTHING", "INVALID_SYMBOL", 1),
        ("backtest.startDate=2030-01-01", "INVALID_DATE_RANGE", 2),
    ],
)
def test_a_field_set_wrong_is_refused(atlasd, config, assignment, code, exit_code):
    failed(atlasd("backtest", config, "--set", assignment), code, exit_code)


@pytest.mark.parametrize(
    "arguments",
    [
        ("backtest",),
        ("backtest", "config.json", "--format", "xml"),
        ("backtest", "config.json", "--priority", "urgent"),
        ("backtest", "show"),
        ("backtest", "show", "x", "--trades", "--equity"),
        ("backtest", "show", "x", "--trade", "1"),
        ("backtest", "diff", "x"),
        ("backtest", "report", "x"),
        ("backtests", "--status", "done"),
    ],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_2(atlasd_inside, folder, monkeypatch, arguments):
    monkeypatch.setenv("ATLASD_DATA_DIR", str(folder))
    assert atlasd_inside(*arguments).returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [("show", "x"), ("show", "x", "--trades"), ("diff", "x", "y"), ("cancel", "x"), ("delete", "a/b"), ("report", "x")],
    ids=" ".join,
)
def test_an_unknown_backtest_is_not_found(atlasd, tmp_path, arguments):
    output = ("--output", tmp_path / "x.html") if arguments[0] == "report" else ()
    failed(atlasd("backtest", *arguments, *output), "BACKTEST_NOT_FOUND")


# Looking.


def test_backtests_are_listed_the_newest_first(atlasd, made):
    first, second = made("--name", "first"), made("--name", "second")
    listed = rows_of(atlasd("backtests", "--format", "csv"))
    assert [row["id"] for row in listed[:2]] == [second["id"], first["id"]]
    assert float(listed[0]["return_percent"]) == pytest.approx(second["metrics"]["totalReturnPercent"], abs=1e-9)
    told = msgspec.json.decode(atlasd("backtests", "--format", "json").stdout, type=list[BacktestStatus])
    assert [each.name for each in told[:2]] == ["second", "first"]
    assert rows_of(atlasd("backtests", "--status", "failed", "--format", "csv")) == []
    assert "second" in atlasd("backtests").stdout


def test_a_stored_result_is_shown_as_when_it_was_made(atlasd, config, made):
    result = made()
    assert json.loads(atlasd("backtest", "show", result["id"], "--format", "json").stdout) == result
    assert f"backtest {result['id']} " in atlasd("backtest", "show", result["id"]).stdout
    as_csv = atlasd("backtest", "show", result["id"], "--format", "csv").stdout
    assert as_csv == atlasd("backtest", config, "--format", "csv").stdout


@pytest.mark.parametrize(("option", "kind"), [("--trades", Trade), ("--receipts", Receipt), ("--equity", EquityPoint)])
def test_rows_of_a_result_in_three_formats(atlasd, made, option, kind):
    backtest_id = made()["id"]
    plain = json.loads(atlasd("backtest", "show", backtest_id, option, "--format", "json").stdout)
    assert msgspec.convert(plain, list[kind], strict=False)
    lines = rows_of(atlasd("backtest", "show", backtest_id, option, "--format", "csv"))
    assert [list(line) for line in lines] == [list(row) for row in plain]
    table = atlasd("backtest", "show", backtest_id, option).stdout.splitlines()
    assert len(table) == 1 + min(len(plain), 50)


def test_receipts_of_one_trade(atlasd, made):
    backtest_id = made()["id"]
    lines = rows_of(atlasd("backtest", "show", backtest_id, "--receipts", "--trade", "1", "--format", "csv"))
    assert {line["tradeId"] for line in lines} == {"1"}
    assert len(lines) >= 2


def test_a_difference_is_told(atlasd, made):
    usual, same, dearer = made(), made(), made("--set", "backtest.commission=0.002")
    said = atlasd("backtest", "diff", usual["id"], same["id"]).stdout
    assert said.startswith(f"{usual['id']} and {same['id']} are of one fingerprint")
    assert "all trades are alike" in said
    said = atlasd("backtest", "diff", usual["id"], dearer["id"]).stdout
    for word in ("configuration", "costs.taker_rate", "metrics", "totalReturnPercent", "trade 0", "entryFees"):
        assert word in said, word
    lines = rows_of(atlasd("backtest", "diff", usual["id"], dearer["id"], "--format", "csv"))
    rates = [(line["first"], line["second"]) for line in lines if line["field"] == "costs.taker_rate"]
    assert rates == [("0.001", "0.002")]


def test_what_ended_cannot_be_cancelled_and_is_deleted_once(atlasd, made):
    backtest_id = made()["id"]
    failed(atlasd("backtest", "cancel", backtest_id), "BACKTEST_FINISHED")
    assert atlasd("backtest", "delete", backtest_id).stdout == f"backtest {backtest_id} deleted\n"
    failed(atlasd("backtest", "delete", backtest_id), "BACKTEST_NOT_FOUND")


def test_a_name_cannot_steer_the_terminal(atlasd, made):
    backtest_id = made("--name", "\x1b[2Jmine[bold]")["id"]
    for said in (atlasd("backtest", "show", backtest_id).stdout, atlasd("backtests").stdout):
        assert "\x1b" not in said
        assert "mine[bold]" in said


def test_a_backtest_without_a_result_shows_why(capsys):
    status = BacktestStatus(
        id="half", name="n", status="failed", priority="low", progress=3.0, created_at=0, started_at=1, completed_at=2,
        attempts=2, symbols=["local:SYNA"], timeframe="1Hour", error="it broke", error_code="INTERNAL",
    )  # fmt: skip
    print_status(status, "table")
    said = capsys.readouterr().out
    assert said.startswith("backtest half is failed\n")
    assert "it broke [INTERNAL]" in said
    print_status(status, "json")
    assert msgspec.json.decode(capsys.readouterr().out, type=BacktestStatus) == status


def test_a_strategy_that_raised_is_told_by_its_own_lines(atlasd, config, monkeypatch, capsys):
    lines = ["mm.py, line 11, in on_bar: self.quote()", "mm.py, line 14, in quote: 1 / 0  # \x1b[2J"]
    why = "mm.py, line 14, in quote: ZeroDivisionError: division by zero"
    status = BacktestStatus(
        id="it", name="n", status="failed", priority="low", progress=3.0, created_at=0, completed_at=2, symbols=["x:A"],
        timeframe="1Hour", error=why, error_code="STRATEGY_RAISED", error_traceback=lines,
    )  # fmt: skip
    monkeypatch.setattr(backtest, "follow", lambda *_: status)
    done = atlasd("backtest", config)
    assert done.returncode == 1
    assert done.stderr.endswith(
        "  mm.py, line 11, in on_bar: self.quote()\n"
        "  mm.py, line 14, in quote: 1 / 0  #  [2J\n"
        f"error: backtest it failed: {why} [STRATEGY_RAISED]\n"
    )
    print_status(status, "table")
    assert "in on_bar: self.quote()" in capsys.readouterr().out


# Beside a daemon, and interrupted.


def test_commands_work_beside_a_daemon(daemon, cli, config):
    def beside(*arguments):
        return cli(*arguments, "--data-dir", daemon.folder)

    done = beside("backtest", config, "--format", "json", "--priority", "high", "--name", "through the daemon")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    status = daemon.request("GET", f"/api/v1/backtest/{result['id']}/status").body
    assert (status["name"], status["priority"]) == ("through the daemon", "high")
    assert json.loads(beside("backtest", "show", result["id"], "--format", "json").stdout) == result
    assert rows_of(beside("backtests", "--format", "csv"))[0]["id"] == result["id"]
    failed(beside("backtest", "cancel", result["id"]), "BACKTEST_FINISHED")
    failed(beside("backtest", config, "--set", "backtest.commission=2"), "INVALID_CONFIGURATION", 2)
    assert beside("backtest", "delete", result["id"]).returncode == 0
    failed(beside("backtest", "delete", result["id"]), "BACKTEST_NOT_FOUND")


class _Interrupted:
    """A writer whose user presses Ctrl-C while a backtest runs. ends: whether it completes just before."""

    def __init__(self, *, ends):
        self._ends = ends
        self._cancelled = False

    def backtest_start(self, _config, _priority, _name):
        return "it"

    def backtest_status(self, backtest_id):
        if self._cancelled:
            return self._state(backtest_id, "completed")
        raise KeyboardInterrupt

    def backtest_cancel(self, backtest_id):
        self._cancelled = True
        if self._ends:
            raise Conflict(Code.BACKTEST_FINISHED, "it is completed")
        return self._state(backtest_id, "cancelled", error="it was cancelled", error_code="CANCELLED")

    def _state(self, backtest_id, status, **fields):
        return BacktestStatus(
            id=backtest_id, name="", status=status, priority="normal", progress=0.0, created_at=0, completed_at=1,
            symbols=[], timeframe="1Min", **fields,
        )  # fmt: skip


def test_ctrl_c_cancels():
    status = backtest.follow(_Interrupted(ends=False), {}, "normal")
    assert status.status == "cancelled"
    with pytest.raises(JobFailed) as caught:
        backtest.check_completed(status)
    assert (caught.value.code, caught.value.message) == (Code.CANCELLED, "backtest it was cancelled")


def test_ctrl_c_at_the_very_end_keeps_the_result():
    assert backtest.follow(_Interrupted(ends=True), {}, "normal").status == "completed"
