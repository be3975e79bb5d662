"""The daemon as a process: how it starts, how it ends, and what survives when it or a worker is killed."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import daemon as package

LONG = {"symbols": ["LONG"], "timeframes": ["1Min", "5Min", "15Min"]}


@pytest.fixture(scope="module")
def folder(cli, long_file, tmp_path_factory):
    """A data folder with the long series, and a run `whole` over it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("serve") / "data"
    imported = cli("import", "bars", long_file, "--symbol", "LONG", "--timeframe", "1Min", "--data-dir", folder)
    assert imported.returncode == 0, imported.stderr
    command = ("run", "--symbols", "LONG", "--timeframes", "1Min,5Min,15Min", "--run-id", "whole")
    done = cli(*command, "--data-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def small(cli, bars_files, tmp_path):
    """A data folder with one short series."""
    path = bars_files["SYNB", "1Hour"]
    imported = cli("import", "bars", path, "--symbol", "SYNB", "--timeframe", "1Hour", "--data-dir", tmp_path / "data")
    assert imported.returncode == 0, imported.stderr
    return tmp_path / "data"


def halfway(daemon, run_id):
    """Wait until a job is stored and others are not."""
    while not daemon.rows(f"/api/v1/runs/{run_id}/results", limit=1):
        time.sleep(0.005)
    assert daemon.run_status(run_id)["status"] == "running"


def loaded(pid):
    """Names of the native libraries that a process has loaded."""
    return {Path(region.path).name for region in psutil.Process(pid).memory_maps()}


def has_ended(process):
    """Whether a killed process is gone, or a zombie with all of its threads."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


# Starting.


def test_the_ready_line_and_files_say_where_the_daemon_is(serve, threads, tmp_path):
    daemon = serve(tmp_path / "data", *threads)
    ready = {
        "url": f"http://127.0.0.1:{daemon.ready['port']}",
        "port": daemon.ready["port"],
        "pid": daemon.process.pid,
        "version": package.__version__,
    }
    assert daemon.ready == ready
    assert json.loads((daemon.folder / "ready.json").read_text()) == ready
    assert ready["url"] in daemon.ready_line
    assert str(ready["pid"]) in daemon.ready_line
    assert daemon.request("GET", "/health").status == 200
    assert daemon.end()[0] == 0
    assert not daemon.ready_file.exists()
    assert not (daemon.folder / "ready.json").exists()


def test_whoever_finds_the_ready_file_finds_it_whole_and_the_daemon_answering(threads, tmp_path):
    ready_file = tmp_path / "ready.json"
    options = ["--port", "0", "--data-dir", tmp_path / "data", "--ready-file", ready_file, *threads]
    command = list(map(str, [sys.executable, "-m", "daemon", "serve", *options]))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while not ready_file.exists():
            assert time.monotonic() < deadline
        ready = json.loads(ready_file.read_text())
        with socket.create_connection(("127.0.0.1", ready["port"]), timeout=5):
            pass
        process.terminate()
        assert process.wait(10) == 0


def test_the_server_loads_neither_kernels_nor_indicators(serve, small):
    daemon = serve(small)
    request = {"symbols": ["SYNB"], "timeframes": ["1Hour", "1Day"], "persist_trades": True, "run_id": "first"}
    daemon.finish_run(**request, strategy_ids=[1])
    daemon.finish_run(**request)  # compares the bars of a derived timeframe
    assert daemon.rows("/api/v1/runs/first/trades", justify=1)
    compiled = re.compile(r"llvmlite|talib|ta-lib|ta_lib|_dispatcher")
    assert not [name for name in loaded(daemon.process.pid) if compiled.search(name)]
    assert [name for name in loaded(daemon.workers()[0].pid) if compiled.search(name)]
    assert daemon.end()[0] == 0


def test_workers_are_two_or_more_and_yield_to_the_server(serve, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("[workers]\ncount = 3\n")
    daemon = serve(tmp_path / "data", "--config", config)
    deadline = time.monotonic() + 30
    while len(workers := daemon.workers()) < 3 or any(each.nice() <= 0 for each in workers):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert psutil.Process(daemon.process.pid).nice() == psutil.Process().nice()
    assert daemon.end()[0] == 0
    assert not [worker for worker in workers if worker.is_running()]


def test_a_second_daemon_names_the_process_that_has_the_folder(serve, threads, cli, tmp_path):
    daemon = serve(tmp_path / "data", *threads)
    second = cli("serve", "--port", "0", "--data-dir", daemon.folder)
    assert second.returncode == 1
    assert second.stdout == ""
    assert f"process {daemon.process.pid} " in second.stderr
    assert "[STORE_LOCKED]" in second.stderr
    assert json.loads((daemon.folder / "ready.json").read_text()) == daemon.ready
    assert daemon.request("GET", "/health").status == 200
    assert daemon.end()[0] == 0


def test_a_taken_port_is_refused_and_leaves_nothing_behind(serve, threads, cli, tmp_path):
    folder = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("serve", "--port", port, "--data-dir", folder)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.search(rf"port {port}.*\[ADDRESS_UNAVAILABLE\]", done.stderr)
    assert "Traceback" not in done.stderr
    assert not (folder / "ready.json").exists()
    assert serve(folder, *threads).end()[0] == 0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])  # noqa: S104 - refused
def test_only_this_machine_is_served(cli, tmp_path, host):
    done = cli("serve", "--port", "0", "--host", host, "--data-dir", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "loopback" in done.stderr
    assert "[ADDRESS_UNAVAILABLE]" in done.stderr


def test_other_loopback_addresses_are_served(serve, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('[workers]\nexecutor = "threads"\n[http]\nallowed_hosts = ["my.test"]\n')
    daemon = serve(tmp_path / "data", "--host", "localhost", "--config", config)
    assert daemon.ready["url"] == f"http://localhost:{daemon.ready['port']}"
    assert daemon.request("GET", "/health", headers={"Host": "my.test:1"}).status == 200
    assert daemon.request("GET", "/health", headers={"Host": "your.test"}).status == 403
    assert daemon.end()[0] == 0


def test_a_ready_file_that_cannot_be_is_wrong_use(cli, tmp_path):
    done = cli("serve", "--port", "0", "--data-dir", tmp_path / "data", "--ready-file", tmp_path / "no" / "ready.json")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"entry_long": [{"type": "magic"}]}, "entry_long[0]"),
        ({"entry_long": [{"type": "above", "col": "close", "ref": "sma_021"}]}, "entry_long[0].ref"),
        ({"entry_long": [{"type": "above", "col": "close", "ref": "(sma_20"}]}, "entry_long[0].ref"),
        ({"exit_short": [{"type": "crosses_above", "col_a": "close"}]}, "exit_short[0]"),
        ({"exit_long": [{"type": "rising", "col": "close", "bars": 0}]}, "exit_long[0].bars"),
        ({"required_indicators": ["magic_14"]}, "required_indicators"),
        ({"id": 11}, "id"),
        ({"atr_stop_mult": "wide"}, "atr_stop_mult"),
        ({"colour": "red"}, "colour"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_rule_file_stops_the_start_and_is_named(cli, tmp_path, change, field):
    shipped = json.loads((Path(__file__).parents[2] / "strategies.json").read_text())["strategies"]
    rules = shipped[0] | {"id": 777, "name": "my_own"} | change
    mine, config = tmp_path / "mine.json", tmp_path / "config.toml"
    mine.write_text(json.dumps({"version": 1, "strategies": [rules]}))
    config.write_text(f'[strategies]\nuser_file = "{mine}"\n')
    done = cli("serve", "--port", "0", "--data-dir", tmp_path / "data", "--config", config)
    assert (done.returncode, done.stdout) == (1, "")
    assert "[STRATEGIES_INVALID]" in done.stderr
    assert str(mine) in done.stderr
    assert f"strategy {rules['id']}" in done.stderr
    assert field in done.stderr


# Ending.


def test_sigterm_in_a_run_ends_in_time_and_the_run_goes_on_later(serve, folder, stored_values):
    daemon = serve(folder)
    daemon.start_run(**LONG, run_id="interrupted")
    halfway(daemon, "interrupted")
    workers = daemon.workers()
    code, seconds = daemon.end()
    assert code == 0
    assert seconds < 10
    assert not [worker for worker in workers if worker.is_running()]
    assert not list((folder / "spool").iterdir())
    again = serve(folder)
    run = again.run_status("interrupted")
    assert (run["status"], run["error"]["code"], run["summary"]) == ("failed", "INTERRUPTED", None)
    assert run["progress"]["completed"] in (300, 600)
    assert again.finish_run(**LONG, run_id="interrupted")["progress"]["completed"] == 900
    assert stored_values(folder, "interrupted") == stored_values(folder, "whole")
    assert again.end()[0] == 0


def test_ctrl_c_ends_the_daemon_as_sigterm_does(serve, tmp_path):
    daemon = serve(tmp_path / "data")
    code, seconds = daemon.end(signal.SIGINT)
    assert code == 0
    assert seconds < 10


def test_a_killed_daemon_resumes_to_the_same_bytes(serve, folder, stored_values):
    daemon = serve(folder)
    daemon.start_run(**LONG, run_id="killed")
    halfway(daemon, "killed")
    workers = daemon.workers()
    daemon.end(signal.SIGKILL)
    again = serve(folder)  # its ready file and its lock were left behind
    run = again.run_status("killed")
    assert (run["status"], run["error"]["code"]) == ("failed", "INTERRUPTED")
    stored = run["progress"]["completed"]
    assert stored in (300, 600)
    before = stored_values(folder, "killed")
    assert sum(1 for key in before if key.endswith(bytes(9))) == stored // 300
    assert again.finish_run(**LONG, run_id="killed")["progress"]["completed"] == 900
    after = stored_values(folder, "killed")
    assert before.items() <= after.items()
    assert after == stored_values(folder, "whole")
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert (len(gone), alive) == (len(workers), [])
    assert again.end()[0] == 0


def test_a_killed_worker_fails_its_job_and_nothing_else(serve, folder, stored_values):
    daemon = serve(folder)
    daemon.start_run(**LONG, run_id="crashed")
    halfway(daemon, "crashed")
    killed = daemon.workers()
    for worker in killed:
        worker.kill()
    run = daemon.wait("crashed")
    assert (run["status"], run["error"]["code"]) == ("failed", "WORKER_CRASHED")
    assert "local:LONG" in run["error"]["message"]
    assert daemon.request("GET", "/health").status == 200
    assert daemon.finish_run(**LONG, run_id="crashed")["progress"]["completed"] == 900
    assert stored_values(folder, "crashed") == stored_values(folder, "whole")
    assert not {worker.pid for worker in killed} & {worker.pid for worker in daemon.workers()}
    assert daemon.end()[0] == 0


def test_a_worker_killed_at_rest_is_replaced_unseen(serve, small):
    daemon = serve(small)
    daemon.finish_run(symbols=["SYNB"], timeframes=["1Hour"])
    workers = daemon.workers()
    for worker in workers:
        worker.kill()
    while not all(has_ended(worker) for worker in workers):
        time.sleep(0.005)
    daemon.finish_run(symbols=["SYNB"], timeframes=["1Hour", "1Day"])
    assert daemon.end()[0] == 0


# The command line beside a daemon.


def test_commands_that_write_go_through_the_daemon(daemon, cli, bars_files):
    beside = ("--data-dir", daemon.folder)
    path = bars_files["SYNB", "1Hour"]
    imported = cli("import", "bars", path, "--symbol", "BESIDE", "--timeframe", "1Hour", *beside)
    assert imported.returncode == 0, imported.stderr
    assert "1500 added" in imported.stdout
    again = cli("import", "bars", path, "--symbol", "BESIDE", "--timeframe", "1Hour", *beside)
    assert "0 added, 1500 stored already" in again.stdout
    done = cli("run", "--symbols", "BESIDE", "--timeframes", "1Hour", "--run-id", "beside", *beside)
    assert done.returncode == 0, done.stderr
    assert "run beside completed: 300 combinations" in done.stdout
    assert daemon.run_status("beside")["status"] == "completed"
    assert cli("runs", "delete", "beside", *beside).returncode == 0
    assert daemon.request("GET", "/api/v1/runs/beside").status == 404
    assert not list((daemon.folder / "spool").iterdir())


def test_the_daemons_refusals_reach_the_command_line(daemon, cli, tmp_path):
    beside = ("--data-dir", daemon.folder)
    file = tmp_path / "bars.csv"
    file.write_text("timestamp,open,high,low,close,volume\n2024-01-01T00:00:00Z,1,1,1,1,1\n")
    conflict = cli("import", "bars", file, "--symbol", "SYNB", "--timeframe", "1Hour", *beside)
    assert (conflict.returncode, conflict.stdout) == (1, "")
    assert "[BARS_CONFLICT]" in conflict.stderr
    unknown = cli("run", "--symbols", "NOTHING", *beside)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "[INVALID_SYMBOL]" in unknown.stderr
    wrong = cli("run", "--symbols", "SYNB", "--timeframes", "2Hour", *beside)
    assert wrong.returncode == 2
    assert "[INVALID_TIMEFRAME]" in wrong.stderr
    missing = cli("runs", "delete", "nothing", *beside)
    assert missing.returncode == 1
    assert "[RUN_NOT_FOUND]" in missing.stderr


def test_ctrl_c_cancels_the_run_that_the_daemon_works_on(serve, folder):
    daemon = serve(folder)
    command = [sys.executable, "-m", "daemon", "run", "--symbols", "LONG", "--timeframes", "1Min,5Min,15Min"]
    command.append("--persist-trades")  # longer at work than the signal is on its way
    with subprocess.Popen(
        [*command, "--run-id", "given-up", "--data-dir", str(folder)], stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 30
        while daemon.request("GET", "/api/v1/runs/given-up").body.get("status") != "running":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    assert process.returncode == 1, complaint
    assert "cancelled" in complaint
    assert "Traceback" not in complaint
    assert daemon.run_status("given-up")["status"] == "cancelled"
    assert daemon.end()[0] == 0


def test_commands_that_read_work_beside_the_daemon(daemon, cli):
    daemon.finish_run(symbols=["SYNB"], timeframes=["1Hour"], run_id="read", persist_trades=True)
    beside = ("--format", "json", "--data-dir", daemon.folder)
    series = json.loads(cli("data", "symbols", *beside).stdout)
    assert {"local:SYNA", "local:SYNB"} <= {each["symbol"] for each in series}
    assert json.loads(cli("runs", *beside).stdout)[0]["run_id"] == "read"
    rows = json.loads(cli("results", "read", *beside).stdout)
    assert rows == daemon.rows("/api/v1/runs/read/results", limit=1_000_000)
    trades = json.loads(cli("results", "read", "--trades", "--justify", *beside).stdout)
    assert trades == daemon.rows("/api/v1/runs/read/trades", limit=1_000_000, justify=1)


def test_a_ready_file_without_its_daemon_misleads_nobody(serve, threads, cli, small):
    daemon = serve(small, *threads)
    daemon.end(signal.SIGKILL)
    stale = json.loads((small / "ready.json").read_text())
    (small / "ready.json").write_text(json.dumps(stale | {"pid": psutil.Process().pid}))  # a number given anew
    done = cli("run", "--symbols", "SYNB", "--timeframes", "1Hour", "--data-dir", small)
    assert done.returncode == 0, done.stderr
