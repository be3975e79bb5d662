"""The command line as its users meet it: a process with arguments, two streams and an exit code."""

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys

import pytest

import daemon as package
from daemon.app.cli import main
from daemon.research.views import GROUP_NAMES, TRADE_NAMES
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

HEADER = "timestamp,open,high,low,close,volume"
GOOD = "2024-01-02T00:00:00Z,10,12,9,11,100"


@pytest.fixture(scope="module")
def stored(cli, bars_files, tmp_path_factory):
    """A data folder with two series and the run `first` over them."""
    folder = tmp_path_factory.mktemp("cli") / "data"
    for (symbol, timeframe), path in bars_files.items():
        done = cli("import", "bars", path, "--symbol", symbol, "--timeframe", timeframe, "--data-dir", folder)
        assert done.returncode == 0, done.stderr
    command = ("run", "--symbols", "SYNA,SYNB", "--timeframes", "1Hour", "--run-id", "first", "--persist-trades")
    done = cli(*command, "--data-dir", folder)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"run first completed: 600 combinations, \d+ trades, \d+ result records, \d+\.\d\d s\n", done.stdout
    )
    return folder


@pytest.fixture(scope="module")
def atlasd(cli, stored):
    """Run `atlasd` over the data folder."""
    return lambda *arguments, **options: cli(*arguments, "--data-dir", stored, **options)


@pytest.fixture
def inside(capsys, monkeypatch):
    """Run `atlasd` inside this process: the same program, for the many cases that differ by a word."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["atlasd", *map(str, arguments)])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(SystemExit) as ended:
            main.run()
        return subprocess.CompletedProcess(sys.argv, ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def look(inside, stored):
    """Look into the data folder from inside this process."""
    return lambda *arguments: inside(*arguments, "--data-dir", stored)


def shell(line, stored):
    """Run a line of bash; `atlasd` stands for ours."""
    line = line.replace("atlasd", f'"{sys.executable}" -m daemon')
    environment = os.environ | {"ATLASD_DATA_DIR": str(stored)}
    command = ["bash", "-c", line]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def only_error(done, code, exit_code=1):
    """One line on stderr that ends with the code, and nothing on stdout."""
    assert (done.returncode, done.stdout) == (exit_code, ""), done.stderr
    assert re.fullmatch(rf"error: .+ \[{code}\]\n", done.stderr), done.stderr
    return done.stderr


# Help and wrong use.


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("import",),
        ("import", "bars"),
        ("import", "funding"),
        ("data",),
        ("data", "symbols"),
        ("run",),
        ("results",),
        ("runs",),
        ("runs", "delete"),
        ("strategies",),
        ("strategies", "list"),
        ("strategies", "show"),
        ("bench",),
        ("bench", "probe"),
        ("warmup",),
        ("demo",),
        ("watch",),
        ("serve",),
        ("token",),
        ("open",),
    ],
    ids=" ".join,
)
def test_every_command_explains_itself_without_starting_anything(command, tmp_path):
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
    assert done.stdout.startswith("Usage: ")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", ["bars", "run", "results", "runs", "strategies list", "symbols", "serve", "demo"])
def test_data_dir_goes_with_every_command(inside, command):
    groups = {"bars": "import", "symbols": "data"}
    words = [*([groups[command]] if command in groups else []), *command.split()]
    assert "--data-dir" in inside(*words, "--help").stdout


def test_the_version_is_told(cli):
    assert cli("--version").stdout == f"atlasd {package.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("import", "bars", "x.csv"),
        ("import", "bars", "x.csv", "--symbol", "X", "--timeframe"),
        ("run",),
        ("run", "--symbols", "SYNA", "--executor", "magic"),
        ("run", "--symbols", "SYNA", "--workers", "-1"),
        ("run", "--symbols", "SYNA", "--strategies", "one"),
        ("results",),
        ("results", "first", "--format", "xml"),
        ("results", "first", "--strategy", "one"),
        ("results", "first", "--justify"),
        ("results", "first", "--format", "parquet"),
        ("runs", "delete"),
        ("runs", "--format", "parquet"),
        ("strategies", "show", "one"),
        ("bench", "probe", "--bars", "10"),
        ("serve", "--port", "99999"),
    ],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_2_with_a_hint(inside, stored, monkeypatch, arguments):
    monkeypatch.setenv("ATLASD_DATA_DIR", str(stored))
    done = inside(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search("^(Usage|Error|error): ", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "code"),
    [
        (("run", "--symbols", "NOTHING"), 1, "INVALID_SYMBOL"),
        (("run", "--symbols", ","), 2, "INVALID_REQUEST"),
        (("run", "--symbols", "SYNA", "--timeframes", "2Hour"), 2, "INVALID_TIMEFRAME"),
        (("run", "--symbols", "SYNA", "--timeframes", "1Min"), 1, "NO_BARS"),
        (("run", "--symbols", "SYNA", "--risk-profiles", "reckless"), 2, "INVALID_RISK_PROFILE"),
        (("run", "--symbols", "SYNA", "--strategies", "1,101"), 1, "INVALID_STRATEGY"),
        (("run", "--symbols", "SYNA", "--start", "2024-02-01", "--end", "2024-01-01"), 2, "INVALID_DATE_RANGE"),
        (("run", "--symbols", "SYNA", "--start", "1.2.2024"), 2, "INVALID_DATE_RANGE"),
        (("run", "--symbols", "SYNA", "--start", "2030-01-01"), 1, "NO_BARS"),
        (("run", "--symbols", "SYNA", "--run-id", "a/b"), 2, "INVALID_RUN_ID"),
        (("run", "--symbols", "SYNA", "--run-id", "first", "--start", "2024-01-02"), 1, "RUN_CONFLICT"),
        (("results", "nothing"), 1, "RUN_NOT_FOUND"),
        (("results", "first", "--strategy", "101"), 1, "INVALID_STRATEGY"),
        (("results", "first", "--risk-profile", "reckless"), 2, "INVALID_RISK_PROFILE"),
        (("results", "first", "--timeframe", "2Hour"), 2, "INVALID_TIMEFRAME"),
        (("runs", "delete", "nothing"), 1, "RUN_NOT_FOUND"),
        (("strategies", "show", "101"), 1, "INVALID_STRATEGY"),
        (("strategies", "list", "--category", "magic"), 2, "INVALID_REQUEST"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_request_that_fails_says_why_in_one_line(look, arguments, exit_code, code):
    only_error(look(*arguments), code, exit_code)


def test_a_process_that_fails_ends_with_that_code(atlasd):
    only_error(atlasd("results", "nothing"), "RUN_NOT_FOUND", 1)
    only_error(atlasd("run", "--symbols", "SYNA", "--start", "soon"), "INVALID_DATE_RANGE", 2)
    wrong = atlasd("run", "--nonsense")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[http]\nprot = 1\n", "http.prot"),
        ('[http]\nport = "many"\n', "http.port"),
        ("[http]\nport = 70000\n", "http.port"),
        ("[colours]\nred = 1\n", "colours"),
        ("[http\n", "TOML"),
    ],
)
def test_a_wrong_configuration_names_file_and_key(inside, tmp_path, text, named):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    message = only_error(inside("runs", "--config", path, "--data-dir", tmp_path), "CONFIG_INVALID")
    assert str(path) in message
    assert named in message


def test_a_data_folder_that_cannot_be_is_an_error(inside, tmp_path):
    (tmp_path / "file").write_text("")
    only_error(inside("data", "symbols", "--data-dir", tmp_path / "file"), "STORE_UNUSABLE")
    only_error(inside("runs", "--data-dir", tmp_path / "file" / "below"), "STORE_UNUSABLE")


# Importing.


def stored_series(folder):
    if not (folder / "atlas.lmdb").exists():
        return []
    with Environment(folder, StoreConfig(), readonly=True) as env:
        return BarStore(env).series()


def bars_text(*rows, header=HEADER):
    return "\n".join([header, *rows, ""])


@pytest.mark.parametrize(
    ("content", "code", "named"),
    [
        ("", "SOURCE_EMPTY", ""),
        (HEADER + "\n", "SOURCE_EMPTY", ""),
        (b"\x89PNG\r\n\0\0", "SOURCE_UNREADABLE", ""),
        ("<html><body>no</body></html>", "SOURCE_UNREADABLE", ""),
        ("just some words\nand more of them\n", "SOURCE_COLUMN_MISSING", ""),
        (
            bars_text("2024-01-02T00:00:00Z,10,12,9,100", header="timestamp,open,high,low,volume"),
            "SOURCE_COLUMN_MISSING",
            "close",
        ),
        (bars_text(GOOD, "2024-01-03T00:00:00Z,10,abc,9,11,1"), "SOURCE_VALUE_INVALID", "line 3"),
        (bars_text(GOOD, "2024-01-03T00:00:00Z,10,NaN,9,11,1"), "SOURCE_VALUE_INVALID", "line 3"),
        (bars_text(GOOD, "2024-01-03T00:00:00Z,10,,9,11,1"), "SOURCE_VALUE_INVALID", "line 3"),
        (bars_text(GOOD, "yesterday,10,12,9,11,1"), "SOURCE_VALUE_INVALID", "line 3"),
        (bars_text(GOOD, "2024-01-03T00:00:00Z,10,8,9,8,1"), "BARS_INVALID", "line 3"),
        (bars_text(GOOD, "2024-01-03T00:00:00Z,13,12,9,11,1"), "BARS_INVALID", "line 3"),
        (bars_text(GOOD, "2024-01-03T00:00:00Z,10,12,9,8,1"), "BARS_INVALID", "line 3"),
        (bars_text(GOOD, "2024-01-03T00:00:00Z,10,12,0,11,1"), "BARS_INVALID", "line 3"),
        (bars_text(GOOD, "2024-01-03T00:00:00Z,10,12,-1,11,1"), "BARS_INVALID", "line 3"),
        (bars_text(GOOD, "2024-01-03T00:00:00Z,10,12,9,11,-1"), "BARS_INVALID", "line 3"),
        (bars_text(GOOD, "2024-01-02T00:00:00Z,10,12,9,10,1"), "BARS_INVALID", "lines 2 and 3"),
        (bars_text(GOOD, "2024-01-02T01:00:00Z,10,12,9,10,1"), "BARS_INVALID", "--timeframe"),
    ],
    ids=range(18),
)
def test_a_bad_file_is_one_clear_error_and_nothing_is_stored(inside, tmp_path, content, code, named):
    path = tmp_path / "bars.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    data = ("--data-dir", tmp_path / "data")
    message = only_error(inside("import", "bars", path, "--symbol", "X", "--timeframe", "1Day", *data), code)
    assert "bars.csv" in message
    assert named in message
    assert stored_series(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--symbol", "a symbol", "--timeframe", "1Day"), "INVALID_SYMBOL"),
        (("--symbol", "X", "--timeframe", "1day"), "INVALID_TIMEFRAME"),
        (("--symbol", "X", "--timeframe", "1Day", "--venue", "a venue"), "INVALID_SYMBOL"),
    ],
    ids=range(3),
)
def test_bars_of_nothing_known_are_not_imported(inside, tmp_path, options, code):
    (tmp_path / "bars.csv").write_text(bars_text(GOOD))
    only_error(inside("import", "bars", tmp_path / "bars.csv", *options, "--data-dir", tmp_path / "data"), code, 2)


def test_a_missing_file_is_named(inside, tmp_path):
    path = tmp_path / "missing.csv"
    done = inside("import", "bars", path, "--symbol", "X", "--timeframe", "1Day", "--data-dir", tmp_path / "data")
    assert str(path) in only_error(done, "SOURCE_NOT_FOUND")
    done = inside("import", "bars", tmp_path, "--symbol", "X", "--timeframe", "1Day", "--data-dir", tmp_path / "data")
    assert "no files to import" in only_error(done, "SOURCE_NOT_FOUND")


def test_what_was_assumed_about_a_file_is_said(inside, tmp_path):
    rows = "2024-01-03 00:00:00,10,12,9,11,0.5", "2024-01-02 00:00:00,10,12,9,11,1", "2024-01-02 00:00:00,10,12,9,11,1"
    path = tmp_path / "bars.csv.gz"
    path.write_bytes(gzip.compress(bars_text(*rows).encode()))
    data = ("--data-dir", tmp_path / "data")
    done = inside("import", "bars", path, "--symbol", "x", "--venue", "Nasdaq", "--timeframe", "1Day", *data)
    assert done.returncode == 0
    assert done.stdout == ("nasdaq:X 1Day: 3 rows from 2024-01-02T00:00:00Z to 2024-01-03T00:00:00Z: 2 added\n")
    notes = done.stderr.splitlines()
    assert all(note.startswith("note: ") for note in notes)
    for word in ("UTC", "sorted", "repeated"):
        assert any(word in note for note in notes), word


def test_stored_bars_change_only_when_asked(inside, tmp_path):
    path, data = tmp_path / "bars.csv", ("--data-dir", tmp_path / "data")
    command = ("import", "bars", path, "--symbol", "X", "--timeframe", "1Day", *data)
    path.write_text(bars_text(GOOD))
    assert "1 added" in inside(*command).stdout
    path.write_text(bars_text(GOOD.replace(",11,", ",10,"), "2024-01-03T00:00:00Z,10,12,9,11,1"))
    message = only_error(inside(*command), "BARS_CONFLICT")
    assert "--replace" in message
    assert "2024-01-02T00:00:00Z" in message
    assert json.loads(inside("data", "symbols", "--format", "json", *data).stdout)[0]["rows"] == 1
    assert "1 added, 1 replaced" in inside(*command, "--replace").stdout
    assert "0 added, 2 stored already" in inside(*command).stdout


# Looking.


def test_an_empty_folder_has_no_symbols_and_no_runs(inside, tmp_path):
    data = ("--data-dir", tmp_path / "new" / "data")
    for words in (("data", "symbols"), ("runs",)):
        table = inside(*words, *data)
        assert (table.returncode, table.stdout, table.stderr) == (0, "", "nothing to list\n")
        assert json.loads(inside(*words, "--format", "json", *data).stdout) == []
        assert len(inside(*words, "--format", "csv", *data).stdout.splitlines()) == 1


def test_stored_series_are_listed(look):
    series = json.loads(look("data", "symbols", "--format", "json").stdout)
    sizes = [each.pop("bytes") for each in series]
    assert series == [
        {
            "symbol": "local:SYNA",
            "stream": "bars",
            "timeframe": "15Min",
            "rows": 1500,
            "first": "2024-01-01T00:00:00Z",
            "last": "2024-01-16T14:45:00Z",
            "gaps": 0,
            "volume_unit": "base",
        },
        {
            "symbol": "local:SYNB",
            "stream": "bars",
            "timeframe": "1Hour",
            "rows": 1500,
            "first": "2024-01-01T00:00:00Z",
            "last": "2024-03-03T11:00:00Z",
            "gaps": 0,
            "volume_unit": "base",
        },
    ]
    assert all(0 < size < 1500 * 48 for size in sizes)
    listed = list(csv.DictReader(io.StringIO(look("data", "symbols", "--format", "csv").stdout)))
    assert list(listed[0]) == ["symbol", "stream", "timeframe", "rows", "first", "last", "bytes", "gaps", "volume_unit"]
    table = look("data", "symbols").stdout.splitlines()
    assert table[0].split() == list(listed[0])
    assert table[1].split() == list(listed[0].values())


def test_the_data_folder_may_come_from_the_environment(cli, stored, tmp_path):
    command = ("data", "symbols", "--format", "json")
    environment = os.environ | {"ATLASD_DATA_DIR": str(stored)}
    assert len(json.loads(cli(*command, env=environment).stdout)) == 2
    assert json.loads(cli(*command, "--data-dir", tmp_path, env=environment).stdout) == []


def test_options_before_a_subcommand_are_not_lost_in_silence(cli, tmp_path):
    done = cli("runs", "--data-dir", tmp_path, "delete", "first")
    assert done.returncode == 2
    assert "--data-dir" in done.stderr


def test_runs_are_listed_and_deleted(atlasd, look):
    done = atlasd("run", "--symbols", "SYNB", "--timeframes", "1Day", "--strategies", "1, 2", "--run-id", "brief")
    assert "run brief completed: 6 combinations" in done.stdout
    brief, first = json.loads(look("runs", "--format", "json").stdout)
    assert (brief["run_id"], brief["status"], brief["combinations"], brief["of"]) == ("brief", "completed", 6, 6)
    assert (first["run_id"], first["symbols"], first["timeframes"]) == ("first", "local:SYNA,local:SYNB", "1Hour")
    assert look("runs").stdout.splitlines()[1].startswith("brief ")
    assert atlasd("runs", "delete", "brief").stdout == "run brief deleted\n"
    assert [run["run_id"] for run in json.loads(look("runs", "--format", "json").stdout)] == ["first"]


def test_strategies_are_listed_and_shown(inside):
    listed = json.loads(inside("strategies", "list", "--format", "json").stdout)
    assert [each["id"] for each in listed] == list(range(1, 101))
    trend = list(
        csv.DictReader(io.StringIO(inside("strategies", "list", "--category", "trend", "--format", "csv").stdout))
    )
    assert {each["category"] for each in trend} == {"trend"}
    table = inside("strategies", "list")
    assert len(table.stdout.splitlines()) == 51
    shown = inside("strategies", "show", "11")
    assert json.loads(shown.stdout)["id"] == 11
    assert "because" in shown.stderr


# Results.


def test_results_as_csv_have_exactly_the_documented_columns(look):
    groups = list(csv.reader(io.StringIO(look("results", "first", "--format", "csv").stdout)))
    assert " ".join(groups[0]) == (
        "run_id symbol strategy_id strategy_name timeframe risk_profile open_day open_hour long_short num_trades "
        "pnl_mean pnl_std max_drawdown max_profit period_start period_end p_adjusted false_discovery"
    )
    assert {len(row) for row in groups} == {18}
    trades = list(csv.reader(io.StringIO(look("results", "first", "--trades", "--format", "csv").stdout)))
    assert " ".join(trades[0]) == (
        "strategy_id strategy_name symbol timeframe risk_profile entry_time exit_time entry_price exit_price "
        "direction pnl pnl_pct bars_held max_drawdown max_profit pnl_std exit_reason"
    )
    assert sum(int(row[9]) for row in groups[1:]) == len(trades) - 1 > 0
    justified = look("results", "first", "--trades", "--justify", "--strategy", "3", "--format", "csv").stdout
    assert next(csv.reader(io.StringIO(justified))) == [*trades[0], "entry_justification", "exit_justification"]


def test_json_and_csv_tell_the_same(look):
    for options in ((), ("--trades", "--justify")):
        chosen = ("results", "first", *options, "--symbol", "SYNA", "--risk-profile", "low")
        rows = json.loads(look(*chosen, "--format", "json").stdout)
        table = list(csv.DictReader(io.StringIO(look(*chosen, "--format", "csv").stdout)))
        written = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
        assert written == table
        assert {(row["symbol"], row["risk_profile"]) for row in rows} == {("SYNA", "low")}


def test_filters_narrow_the_results(look):
    everything = json.loads(look("results", "first", "--format", "json").stdout)
    options = ("--symbol", "local:SYNB", "--timeframe", "1Hour", "--strategy", "3", "--risk-profile", "high")
    chosen = json.loads(look("results", "first", *options, "--format", "json").stdout)
    wanted = {"symbol": "SYNB", "timeframe": "1Hour", "strategy_id": 3, "risk_profile": "high"}
    assert chosen == [row for row in everything if row.items() >= wanted.items()] != []


def test_tables_end_after_50_rows_and_say_so(look):
    done = look("results", "first")
    lines = done.stdout.splitlines()
    assert lines[0].split() == list(GROUP_NAMES)
    assert len(lines) == 51
    assert re.fullmatch(r"cut at 50 rows: .*\n", done.stderr)
    short = look("results", "first", "--strategy", "1", "--risk-profile", "low", "--symbol", "SYNA")
    assert 1 < len(short.stdout.splitlines()) <= 51
    assert short.stderr == ""
    assert len({len(line.rstrip()) > 0 for line in lines}) == 1


def test_combinations_without_trades_list_nothing(look, tmp_path):
    chosen = ("results", "first", "--strategy", "51")  # a rule that no bar can meet
    assert look(*chosen).stderr == "nothing to list\n"
    assert json.loads(look(*chosen, "--format", "json").stdout) == []
    assert look(*chosen, "--format", "csv").stdout == ",".join(GROUP_NAMES) + "\n"
    assert look(*chosen, "--trades", "--format", "csv").stdout == ",".join(TRADE_NAMES) + "\n"
    output = tmp_path / "none.parquet"
    only_error(look(*chosen, "--format", "parquet", "--output", output), "NO_ROWS")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_kept_no_trades_says_so(look):
    look("run", "--symbols", "SYNB", "--timeframes", "1Hour", "--strategies", "3", "--run-id", "kept-none")
    done = look("results", "kept-none", "--trades", "--format", "csv")
    assert done.stdout == ",".join(TRADE_NAMES) + "\n"
    assert "--persist-trades" in done.stderr


@pytest.mark.parametrize("trades", [False, True])
def test_parquet_reads_back_with_utc_times(look, tmp_path, trades):
    import pyarrow as pa
    import pyarrow.parquet as pq

    options = ("--trades", "--justify") if trades else ()
    output = tmp_path / "rows.parquet"
    done = look("results", "first", *options, "--format", "parquet", "--output", output)
    table = pq.read_table(output)
    assert done.stdout == f"{table.num_rows} rows written to {output}\n"
    words = ["entry_justification", "exit_justification"] if trades else []
    assert table.column_names == [*(TRADE_NAMES if trades else GROUP_NAMES), *words]
    for name in ("entry_time", "exit_time") if trades else ("period_start", "period_end"):
        assert table.schema.field(name).type == pa.timestamp("ns", tz="UTC")
    if not trades:
        assert table.schema.field("open_day").type == pa.date32()
    rows = json.loads(look("results", "first", *options, "--format", "json").stdout)
    for name in table.column_names:
        column = table[name]
        if pa.types.is_timestamp(column.type):
            listed = [time.strftime("%Y-%m-%dT%H:%M:%SZ") for time in column.cast(pa.timestamp("s", "UTC")).to_pylist()]
        else:
            listed = [str(value) if name == "open_day" else value for value in column.to_pylist()]
        assert listed == [row[name] for row in rows], name


@pytest.mark.parametrize("form", ["csv", "json", "table"])
def test_an_output_file_holds_what_the_terminal_would(look, tmp_path, form):
    output = tmp_path / "rows"
    done = look("results", "first", "--format", form, "--output", output)
    printed = look("results", "first", "--format", "csv" if form == "table" else form).stdout
    assert output.read_text() == printed
    assert re.fullmatch(r"\d+ rows written to .*\n", done.stdout)
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


@pytest.mark.skipif(sys.platform == "win32", reason="ulimit")
@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_an_output_file_is_never_left_half_written(stored, tmp_path, form):
    output = tmp_path / "rows"
    output.write_text("what was here")
    done = shell(f"ulimit -f 64; atlasd results first --format {form} --output {output}", stored)
    only_error(done, "OUTPUT_UNWRITABLE")
    assert output.read_text() == "what was here"
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


def test_an_output_that_cannot_be_written_is_an_error(look, tmp_path):
    for output in (tmp_path, tmp_path / "no" / "rows.csv"):
        only_error(look("results", "first", "--format", "csv", "--output", output), "OUTPUT_UNWRITABLE")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_behind_stdout_is_an_error(stored):
    only_error(shell("atlasd results first --format csv > /dev/full", stored), "OUTPUT_UNWRITABLE")


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
@pytest.mark.parametrize("form", ["csv", "json", "table"])
def test_a_closed_pipe_ends_a_command_quietly(stored, form):
    line = f"atlasd results first --format {form} | head -n 1; echo ${{PIPESTATUS[@]}}"
    done = shell(line, stored)
    assert done.stdout.splitlines()[1:] == ["0 0"]
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="bash")
def test_a_pipe_that_was_never_read_ends_a_command_quietly(stored):
    done = shell("set -o pipefail; atlasd strategies list --format csv | true; echo $?", stored)
    assert (done.stdout, done.stderr) == ("0\n", "")


# Running.


def test_processes_give_the_rows_that_threads_give(atlasd, stored, stored_values):
    command = ("run", "--symbols", "SYNA,SYNB", "--timeframes", "1Hour", "--persist-trades", "--run-id", "processes")
    done = atlasd(*command, "--executor", "processes", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert stored_values(stored, "processes") == stored_values(stored, "first")


def test_a_run_without_a_name_gets_one(look):
    done = look("run", "--symbols", "syna", "--timeframes", "1Hour", "--strategies", "1", "--workers", "1")
    name = re.match(r"run ([A-Za-z0-9._-]+) completed: 3 combinations", done.stdout).group(1)
    assert look("results", name, "--format", "csv").returncode == 0
    assert look("runs", "delete", name).returncode == 0


def test_the_same_run_again_adds_what_is_new(look, stored, stored_values):
    command = ("run", "--symbols", "SYNA", "--run-id", "more", "--persist-trades")
    assert "6 combinations" in look(*command, "--timeframes", "1Hour", "--strategies", "1,2").stdout
    values = stored_values(stored, "more")
    done = look(*command, "--timeframes", "1Hour,1Day", "--strategies", "2,3")
    assert "run more completed: 15 combinations" in done.stdout
    assert values.items() < stored_values(stored, "more").items()


def test_derived_bars_at_the_edges_are_named_beside_the_result(look):
    done = look("run", "--symbols", "SYNA", "--timeframes", "1Hour,1Day", "--strategies", "1")
    assert done.returncode == 0
    assert re.fullmatch(r"note: local:SYNA 1Day: .*15Min.*2024-01-16T00:00:00Z.*\n", done.stderr)


def test_own_strategies_and_profiles_come_from_the_configuration(look, tmp_path):
    rules = json.loads(look("strategies", "show", "3").stdout) | {"id": 500, "name": "my_own"}
    (tmp_path / "mine.json").write_text(json.dumps({"version": 1, "strategies": [rules]}))
    config = tmp_path / "config.toml"
    config.write_text(
        f'[strategies]\nuser_file = "{tmp_path / "mine.json"}"\n'
        "[probe.risk_profiles]\nwide = { stop_scale = 3.0, time_scale = 3 }\n"
    )
    mine = ("--run-id", "mine", "--config", config)
    command = ("run", "--symbols", "SYNB", "--timeframes", "1Hour", "--strategies", "3,500", *mine)
    done = look(*command, "--risk-profiles", "wide,low", "--persist-trades")
    assert "4 combinations" in done.stdout, done.stderr
    rows = json.loads(look("results", "mine", "--trades", "--format", "json", "--config", config).stdout)
    by_id = {number: [row for row in rows if row["strategy_id"] == number] for number in (3, 500)}
    assert {row["risk_profile"] for row in rows} == {"wide", "low"}
    assert {row["strategy_name"] for row in by_id[500]} == {"my_own"}
    words = {"strategy_id": None, "strategy_name": None}
    assert [row | words for row in by_id[3]] == [row | words for row in by_id[500]]
    # Without the file the rows are still there, under the name they were stored with.
    assert json.loads(look("results", "mine", "--trades", "--format", "json").stdout) == rows


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
def test_a_terminal_sees_progress_and_a_pipe_does_not(stored):
    import pty

    command = [sys.executable, "-m", "daemon", "run", "--symbols", "SYNA,SYNB", "--timeframes", "1Hour"]
    ours, theirs = pty.openpty()
    with subprocess.Popen([*command, "--data-dir", str(stored)], stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        drawn = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # how Linux tells that the other end is closed
                break
            if not piece:
                break
            drawn += piece
        printed = process.stdout.read()
    os.close(ours)
    assert process.returncode == 0
    assert b"completed: 600 combinations" in printed
    assert b"run " in drawn
    done = subprocess.run([*command, "--data-dir", str(stored)], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


# Benches, warm-up, demo.


def test_the_bench_is_one_flat_object_with_units_in_its_keys(atlasd):
    figures = json.loads(atlasd("bench", "probe", "--bars", "300", "--format", "json").stdout)
    wanted = {
        *("bars", "combinations", "trades", "indicators_ms", "conditions_ms", "kernel_ms", "aggregation_ms"),
        *("store_ms", "total_ms", "cold_s", "peak_rss_mb"),
    }
    assert wanted <= set(figures)
    assert (figures["bars"], figures["combinations"]) == (300, 300)
    assert all(isinstance(value, (int, float)) and value >= 0 for value in figures.values())


def test_warm_up_says_what_was_compiled_and_where_it_is(atlasd):
    done = atlasd("warmup")
    assert re.fullmatch(r"\d+ kernels compiled, \d+ loaded in \d+\.\d s; cache in .+\n", done.stdout), done.stderr


def test_the_demo_runs_on_a_file_and_writes_one_page(cli, bars_files, tmp_path):
    output, data = tmp_path / "report.html", ("--data-dir", tmp_path / "data")
    command = ("demo", bars_files["SYNB", "1Hour"], "--timeframe", "1Hour", "--output", output, *data)
    done = cli(*command)
    assert done.returncode == 0, done.stderr
    page = output.read_text()
    assert page.lstrip().lower().startswith("<!doctype html")
    assert not re.search(r'<(?:script|link)[^>]+(?:src|href)="https?:', page)
    assert "combinations traded and count as tries" in done.stdout
    again = cli(*command)
    assert again.returncode == 0, again.stderr
    (run,) = json.loads(cli("runs", "--format", "json", *data).stdout)
    assert run["status"] == "completed"
