"""`atlasd optimize` as its users meet it: ranges in, a verdict and heat maps out; alone, beside a daemon, over HTTP."""

import csv
import http.client
import io
import json
import re
import time
import urllib.parse
from html import unescape

import msgspec
import pytest
from pages import EVIL, Reader, own

from adapters.barfile import read_bars
from daemon.app.wiring import LocalWriter
from daemon.core.market import Instrument, Timeframe
from daemon.research.optimization import search
from daemon.research.optimization.result import OptimizationResult, OptimizationStatus
from daemon.research.sweep import Sweep
from daemon.research.warmup import warm_backtest
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

OPTIMIZE = "/api/v1/optimize"
CONFIG = {
    "strategy": {
        "name": "dips",
        "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 35}],
        "exitRules": [{"type": "take_profit", "value": 0.02}, {"type": "stop_loss", "value": 0.02}],
    },
    "backtest": {"symbols": ["SYNA"]},
}
GRID = ("take_profit=0.005:0.015:0.005", "stop_loss=0.005,0.01", "indicator_length=0.5,1")
POINTS = 12
COLUMNS = [
    "number", "indicator_length", "take_profit", "stop_loss", "score", "sharpe_ratio", "total_return_percent",
    "max_drawdown_percent", "total_trades",
]  # fmt: skip
PATIENCE_S = 30.0


def params(*written):
    return [word for each in written or GRID for word in ("--param", each)]


@pytest.fixture(autouse=True, scope="module")
def _compiled():
    """The first run on a machine says that it compiles: that one is here."""
    warm_backtest()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture(scope="module")
def stocked(bars_files, tmp_path_factory):
    """Make data folders with small bars."""
    bars = read_bars(bars_files["SYNA", "15Min"]).bars
    instrument = Instrument("local", "SYNA")

    def make(name):
        folder = tmp_path_factory.mktemp(name) / "data"
        with Environment(folder, StoreConfig(sync=False)) as env:
            store = BarStore(env)
            env.write(lambda transaction: store.merge(transaction, instrument, Timeframe.MIN_15, bars, replace=False))
        return folder

    return make


@pytest.fixture(scope="module")
def folder(stocked):
    return stocked("alone")


@pytest.fixture(scope="module")
def daemon(serve, stocked):
    started = serve(stocked("daemon"))
    yield started
    if started.process.poll() is None:
        started.end()


@pytest.fixture
def atlasd(atlasd_inside, folder):
    """Run `atlasd` over the data folder, inside this process."""
    return lambda *arguments: atlasd_inside(*arguments, "--data-dir", folder)


@pytest.fixture
def made(atlasd, config):
    """Run an optimisation; returns the result."""

    def run(*options):
        done = atlasd("optimize", config, "--format", "json", *(options or params()))
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    return run


def failed(done, code, exit_code=1):
    """One line on stderr that ends with the code."""
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith(f" [{code}]\n")
    return done.stderr


def rows_of(done):
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(io.StringIO(done.stdout)))


def listed(atlasd):
    return json.loads(atlasd("optimizations", "--format", "json").stdout)


# Running.


def test_a_grid_gives_a_verdict_heat_maps_and_the_deflated_figure(atlasd_inside, stocked, config):
    folder = stocked("untried")  # tries of other tests would count

    def atlasd(*arguments):
        return atlasd_inside(*arguments, "--data-dir", folder)

    done = atlasd("optimize", config, *params())
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout
    assert said.startswith("Verdict: ")
    assert "insufficient data" in said.splitlines()[0]
    for word in (
        "12 points (grid)", "around the peak", "best plateau", "as configured", "deflated Sharpe", "overfitting",
        "13 tries of this idea", "Best sharpe over take_profit (down) and indicator_length (across)", "The best points",
        "atlasd backtest CONFIG.json --param",
    ):  # fmt: skip
        assert word in said, word
    [command] = [line for line in said.splitlines() if "atlasd backtest CONFIG.json" in line]
    assert command.count("--param") == len(params()) // 2  # in a line of its own, to be copied
    best = max(float(row["score"]) for row in rows_of(atlasd("optimize", config, *params(), "--format", "csv")))
    maps = said.split("Best sharpe over")[1:]
    assert len(maps) == 3
    for each in maps:
        assert each.split("The best points")[0].count(f"[{best:.2f}]") == 1


def test_of_cells_that_are_as_good_as_the_peaks_the_peaks_alone_is_in_brackets(atlasd, config):
    said = atlasd("optimize", config, *params("take_profit=0.7,0.8,0.9", "stop_loss=0.01,0.02")).stdout
    best = max(re.findall(r"-?\d+\.\d\d", said.split("Best sharpe over")[1].split("The best points")[0]), key=float)
    assert said.split("The best points")[0].split("Best sharpe over")[1].count(best) == 3
    assert said.count(f"[{best}]") == 1


def test_json_is_the_whole_result_and_csv_all_points(atlasd, made):
    result = made()
    assert set(result) == set(OptimizationResult.__struct_encode_fields__)
    read = msgspec.convert(result, OptimizationResult, strict=False)
    assert (read.points, len(read.surfaces), read.config) == (POINTS, 3, CONFIG)
    rows = rows_of(atlasd("optimize", "show", result["id"], "--format", "csv"))
    assert list(rows[0]) == COLUMNS
    assert [int(row["number"]) for row in rows] == list(range(POINTS))
    peak = rows[read.peak.number]
    assert {name: float(peak[name]) for name in read.peak.parameters} == read.peak.parameters
    assert float(peak["score"]) == read.peak.score == max(float(row["score"]) for row in rows)


def test_what_is_stored_is_shown_as_when_it_was_made(atlasd, made):
    result = made()
    assert json.loads(atlasd("optimize", "show", result["id"], "--format", "json").stdout) == result
    assert f"optimisation {result['id']} " in atlasd("optimize", "show", result["id"]).stdout


def test_target_method_budget_seed_and_name_are_passed_on(made):
    options = ("--target", "return", "--method", "random", "--budget", "5", "--seed", "7", "--name", "mine")
    result = made(*params("take_profit=0.01:0.05"), *options)
    asked = [result[name] for name in ("target", "method", "budget", "seed", "name", "points")]
    assert asked == ["return", "random", 5, 7, "mine", 5]
    assert result["surfaces"][0]["y"] is None
    usual = made(*params("take_profit=0.01,0.02"), "--set", "backtest.commission=0")
    assert usual["config"]["backtest"]["commission"] == 0


def test_optuna_samples_between_the_ends(made):
    result = made(*params("take_profit=0.005:0.03", "stop_loss=0.01,0.02"), "--method", "optuna", "--budget", "20")
    assert all(0.005 <= each["parameters"]["take_profit"] <= 0.03 for each in result["top"])


def test_without_ranges_the_usual_parameters_are_varied(made):
    result = made("--method", "random", "--budget", "4")
    assert {each["name"]: each["values"] for each in result["ranges"]} == {
        "take_profit": [0.01, 0.02, 0.04], "stop_loss": [0.01, 0.02, 0.04], "indicator_length": [0.5, 1, 2],
    }  # fmt: skip


def test_a_backtest_of_the_peak_has_its_figures_and_is_no_new_try(atlasd, config, made):
    result = made()
    point = params(*(f"{name}={value!r}" for name, value in result["peak"]["parameters"].items()))
    done = atlasd("backtest", config, *point, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    backtest = json.loads(done.stdout)
    assert backtest["metrics"]["sharpeRatio"] == result["peak"]["sharpeRatio"]
    assert backtest["tradeStats"]["totalTrades"] == result["peak"]["totalTrades"]
    assert backtest["verdict"]["idea"] == result["verdict"]["idea"]
    assert backtest["verdict"]["trials"] == made()["verdict"]["trials"]


@pytest.mark.parametrize("written", ["take_profit=1,2", "no_such=1", "take_profit=x", "take_profit=-0.1"])
def test_a_parameter_of_a_backtest_that_is_none_is_refused(atlasd, config, written):
    failed(atlasd("backtest", config, *params(written)), "INVALID_PARAMETER", 2)


# What is wrong with it.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (params("no_such=1,2"), "no_such"),
        (params("strategy.entryRules[7].value=1,2"), "strategy.entryRules[7].value"),
        (params("strategy.name=1,2"), "strategy.name"),
        (params("take_profit="), "has no values"),
        (params("take_profit=0.01:0.02:0"), "step is 0"),
        (params("take_profit=0.05:0.01:0.01"), "above its high"),
        (params("take_profit=nan:1:1"), "finite"),
        (params("take_profit=0:inf"), "finite"),
        (params("take_profit=-0.01,0.01"), "below 0"),
        ([*params("timeout=5:20", "stop_loss=0.01"), "--method", "random"], "whole number of bars"),
        (params("timeout=1:2:0.5"), "whole number of bars"),
        (params("take_profit"), "NAME="),
        (params("take_profit=0.01", "take_profit=0.02"), "given twice"),
        (params("take_profit=0.01:0.05"), "has no step, and a grid needs one"),
        (params("take_profit=0.001:1:0.001", "stop_loss=0.001:1:0.001"), "1,000,000 points"),
        ([*params("take_profit=0.01:0.1:0.01"), "--budget", "9"], "the grid has 10 points"),
        ([*params(), "--budget", "0"], "at least 1"),
        ([*params(), "--budget", "10000000"], "at most 100,000"),
        ([*params(), "--budget", "10000000", "--method", "random"], "at most 100,000"),
        ([*params(), "--target", "profit"], "sharpe, return, calmar, sortino"),
        ([*params(), "--method", "genetic"], "grid, random, optuna"),
        ([*params(), "--seed", "-1"], "seed"),
        ([*params(), "--seed", str(1 << 32)], "seed"),
    ],
)  # fmt: skip
def test_what_cannot_be_optimised_is_refused_with_its_reason(atlasd, config, options, said):
    assert said in failed(atlasd("optimize", config, *options), "INVALID_PARAMETER", 2)


def test_what_is_refused_is_not_stored(atlasd, config):
    before = listed(atlasd)
    failed(atlasd("optimize", config, *params(), "--budget", "0"), "INVALID_PARAMETER", 2)
    assert listed(atlasd) == before


def test_orders_of_ones_own_have_nothing_to_choose(atlasd, tmp_path):
    path = tmp_path / "orders.json"
    orders = [{"time": "2024-01-02T00:00:00Z", "symbol": "SYNA", "side": "buy", "quantity": 1}]
    path.write_text(json.dumps(CONFIG | {"strategy": {"orders": orders}}))
    assert "a list of orders" in failed(atlasd("optimize", path, *params("timeout=1,2")), "INVALID_PARAMETER", 2)


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (("optimize",), 2), (("optimize", "config.json", "--format", "xml"), 2), (("optimize", "show"), 2),
        (("optimize", "report", "x"), 2), (("optimize", "report", "x", "--output", "x.pdf"), 2),
        (("optimize", "no-such.json"), 1),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_use_is_told(atlasd_inside, folder, monkeypatch, arguments, exit_code):
    monkeypatch.setenv("ATLASD_DATA_DIR", str(folder))
    done = atlasd_inside(*arguments)
    assert (done.returncode, done.stdout[:1] in ("", "U")) == (exit_code, True)
    assert done.stderr or arguments == ("optimize",)


@pytest.mark.parametrize("command", ["show", "cancel", "resume", "delete", "report"])
def test_an_unknown_optimisation_is_not_found(atlasd, tmp_path, command):
    output = ("--output", tmp_path / "x.html") if command == "report" else ()
    failed(atlasd("optimize", command, "x", *output), "OPTIMIZATION_NOT_FOUND")


def test_a_report_into_no_folder_is_refused_before_anything_runs(atlasd, config, tmp_path):
    before = listed(atlasd)
    for name in ("nowhere/out.html", "out.pdf"):
        assert atlasd("optimize", config, *params(), "--report", tmp_path / name).returncode == 2
    assert listed(atlasd) == before


# The page.


def test_a_report_holds_the_surfaces_and_escapes_what_users_named(atlasd, config, tmp_path):
    page = tmp_path / "out.html"
    done = atlasd("optimize", config, *params(), "--name", EVIL, "--report", page, "--format", "json")
    assert (done.returncode, done.stderr) == (0, f"report: {page}\n")
    result = json.loads(done.stdout)
    html = page.read_text()
    reader = Reader(own(html))
    assert (reader.open, reader.links) == ([], [])
    assert "img" not in reader.tags
    assert "</script><img" not in own(html)
    assert unescape(own(html)).count(f"<title>{EVIL}, optimised</title>") == 1
    charts = json.loads(re.search(r'id="charts">(.*?)</script>', html, re.DOTALL)[1])
    assert charts["surfaces"] == result["surfaces"]
    assert charts["peak"] == result["peak"]["parameters"]
    for word in ("Surfaces", "The best points", "deflated Sharpe", *result["verdict"]["reasons"]):
        assert word in reader.words
    again = tmp_path / "again.html"
    assert atlasd("optimize", "report", result["id"], "--output", again).stdout == f"report: {again}\n"
    assert again.read_text() == html


def test_a_name_cannot_steer_the_terminal(atlasd, config):
    said = atlasd("optimize", config, *params("take_profit=0.01,0.02"), "--name", "\x1b[2Jmine[bold]").stdout
    for each in (said, atlasd("optimizations").stdout):
        assert "\x1b" not in each
        assert "mine[bold]" in each


# Interrupted.


@pytest.fixture
def interrupted(atlasd, config, monkeypatch):
    """Press Ctrl-C once some points are stored; returns the state that was left."""
    asked = LocalWriter.optimization_status

    def status(writer, optimization_id):
        found = asked(writer, optimization_id)
        if found.points_done:
            raise KeyboardInterrupt
        return found

    def slow(sweep, *arguments):
        time.sleep(0.05)
        return run(sweep, *arguments)

    run = Sweep.run
    with monkeypatch.context() as patch:
        patch.setattr(search, "_MOST_AT_ONCE", 4)
        patch.setattr(Sweep, "run", slow)
        patch.setattr(LocalWriter, "optimization_status", status)
        said = failed(atlasd("optimize", config, *params()), "CANCELLED")
    assert "points are kept" in said
    left = listed(atlasd)[0]
    assert f"atlasd optimize resume {left['id']}" in said
    return left


def test_ctrl_c_keeps_the_points_and_resume_goes_on(atlasd, made, interrupted):
    optimization_id = interrupted["id"]
    said = atlasd("optimize", "show", optimization_id).stdout
    assert said.splitlines()[-1] == f"next: atlasd optimize resume {optimization_id}"
    assert said.startswith(f"optimisation {optimization_id} is cancelled\n")
    status = msgspec.json.decode(
        atlasd("optimize", "show", optimization_id, "--format", "json").stdout, type=OptimizationStatus
    )
    kept = len(rows_of(atlasd("optimize", "show", optimization_id, "--format", "csv")))
    assert 0 < kept == status.points_done < POINTS
    failed(atlasd("optimize", "cancel", optimization_id), "OPTIMIZATION_FINISHED")
    done = atlasd("optimize", "resume", optimization_id, "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert (result["execution"]["reused"], result["points"]) == (kept, POINTS)
    assert result["top"] == made()["top"]
    failed(atlasd("optimize", "resume", optimization_id), "OPTIMIZATION_FINISHED")


def test_what_was_cancelled_is_deleted_once_and_has_no_report(atlasd, interrupted, tmp_path):
    optimization_id = interrupted["id"]
    failed(atlasd("optimize", "report", optimization_id, "--output", tmp_path / "x.html"), "OPTIMIZATION_NOT_FINISHED")
    assert atlasd("optimize", "delete", optimization_id).stdout == f"optimisation {optimization_id} deleted\n"
    failed(atlasd("optimize", "delete", optimization_id), "OPTIMIZATION_NOT_FOUND")
    assert optimization_id not in {each["id"] for each in listed(atlasd)}


# Over HTTP, and beside a daemon.


def ask(daemon, method, path="", body=None):
    return daemon.request(method, OPTIMIZE + path, {} if method == "POST" and body is None else body)


def refused(answer, status, code):
    assert (answer.status, answer.body["error"]["code"]) == (status, code)
    return answer.body["error"]


def start(daemon, **fields):
    answer = ask(daemon, "POST", body={"config": CONFIG, "parameters": list(GRID)} | fields)
    assert answer.status == 202, answer.body
    assert msgspec.convert(answer.body, OptimizationStatus).status == "queued"
    return answer.body["id"]


def until(daemon, optimization_id, is_so):
    deadline = time.monotonic() + PATIENCE_S
    while not is_so(status := ask(daemon, "GET", f"/{optimization_id}/status").body):
        assert time.monotonic() < deadline, status
        time.sleep(0.01)
    return status


def raw(daemon, path):
    connection = http.client.HTTPConnection("127.0.0.1", daemon.ready["port"], timeout=30)
    try:
        connection.request("GET", OPTIMIZE + path, headers=daemon.bearer)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


@pytest.fixture(scope="module")
def completed(daemon):
    """The result of an optimisation by a daemon's worker processes."""
    optimization_id = start(daemon, id="first")
    status = until(daemon, optimization_id, lambda each: each["completedAt"])
    assert (status["status"], status["pointsDone"], status["progress"]) == ("completed", POINTS, 100), status
    return ask(daemon, "GET", "/first").body


def test_over_http_it_is_what_the_command_line_finds(completed, made):
    result = msgspec.convert(completed, OptimizationResult, strict=False)
    assert (result.id, result.points) == ("first", POINTS)
    # SYNA has the same bars in both stores.
    assert [each["score"] for each in completed["top"]] == [each["score"] for each in made()["top"]]


def test_points_and_reports_are_files_in_every_format(daemon, completed):
    status, headers, text = raw(daemon, "/first/points?format=csv")
    assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == COLUMNS
    found = ask(daemon, "GET", "/first/points").body
    assert [list(map(float, row.values())) for row in rows] == [list(row.values()) for row in found]
    assert raw(daemon, "/first/report?format=csv")[2] == text
    status, headers, text = raw(daemon, "/first/report?format=json")
    assert json.loads(text) == completed
    assert headers["Content-Disposition"] == 'attachment; filename="optimization-first.json"'
    status, headers, text = raw(daemon, "/first/report")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert text.lower().startswith("<!doctype html>")


@pytest.mark.usefixtures("completed")
def test_a_long_one_is_cancelled_while_it_runs_and_while_it_waits_and_goes_on(daemon):
    ranges = {"take_profit": "0.01:0.05", "stop_loss": {"low": 0.01, "high": 0.05}}
    long = start(daemon, parameters=ranges, method="random", budget=100_000, id="long")
    running = until(daemon, long, lambda each: each["pointsDone"])
    assert (running["status"], 0 < running["progress"] < 90) == ("running", True)
    refused(ask(daemon, "GET", "/long/report"), 409, "OPTIMIZATION_NOT_FINISHED")
    refused(ask(daemon, "DELETE", "/long"), 409, "OPTIMIZATION_ACTIVE")
    refused(ask(daemon, "POST", "/long/resume"), 409, "OPTIMIZATION_ACTIVE")
    assert ask(daemon, "GET", "/long").body["status"] == "running"
    answer = ask(daemon, "POST", "/long/cancel")
    assert (answer.status, answer.body["status"]) == (200, "cancelled")
    kept = len(ask(daemon, "GET", "/long/points").body)
    assert kept == answer.body["pointsDone"] >= 256
    refused(ask(daemon, "POST", "/long/cancel"), 409, "OPTIMIZATION_FINISHED")
    resumed = ask(daemon, "POST", "/long/resume")
    assert (resumed.status, resumed.body["status"], resumed.body["pointsDone"]) == (202, "queued", kept)
    until(daemon, long, lambda each: each["pointsDone"] > kept)
    assert ask(daemon, "POST", "/long/cancel").body["status"] == "cancelled"
    assert ask(daemon, "DELETE", "/long").status == 204
    refused(ask(daemon, "GET", "/long/points"), 404, "OPTIMIZATION_NOT_FOUND")


@pytest.mark.usefixtures("completed")
def test_lists_are_walked_page_by_page_the_newest_first(daemon):
    ids = [start(daemon, parameters=["take_profit=0.01,0.02"], id=f"page-{number}") for number in range(3)]
    for each in ids:
        until(daemon, each, lambda status: status["completedAt"])
    first = ask(daemon, "GET", "?limit=2").body
    assert [each["id"] for each in first["results"]] == ["page-2", "page-1"]
    rest = ask(daemon, "GET", f"?limit=10&cursor={urllib.parse.quote(first['next_cursor'])}").body
    assert [each["id"] for each in rest["results"]][:: len(rest["results"]) - 1] == ["page-0", "first"]
    assert rest["next_cursor"] is None
    assert ask(daemon, "GET", "?status=failed").body["results"] == []
    refused(ask(daemon, "GET", "?status=done"), 400, "INVALID_REQUEST")
    refused(ask(daemon, "GET", "?cursor=nobody"), 400, "INVALID_CURSOR")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "INVALID_JSON"), ([], 400, "INVALID_REQUEST"), ({}, 400, "INVALID_REQUEST"),
        ({"config": CONFIG, "budget": "many"}, 400, "INVALID_REQUEST"),
        ({"config": CONFIG, "colour": 1}, 400, "INVALID_REQUEST"),
        ({"config": {}}, 400, "INVALID_CONFIGURATION"),
        ({"config": CONFIG, "id": "a/b"}, 400, "INVALID_REQUEST"),
        ({"config": CONFIG, "id": "first"}, 409, "OPTIMIZATION_EXISTS"),
        ({"config": CONFIG, "parameters": {"no_such": [1]}}, 400, "INVALID_PARAMETER"),
        ({"config": CONFIG, "parameters": {"take_profit": []}}, 400, "INVALID_PARAMETER"),
        ({"config": CONFIG, "parameters": {"take_profit": {"low": 1}}}, 400, "INVALID_PARAMETER"),
        ({"config": CONFIG, "budget": 0}, 400, "INVALID_PARAMETER"),
        ({"config": CONFIG, "budget": 10_000_000}, 400, "INVALID_PARAMETER"),
        ({"config": CONFIG, "target": "luck"}, 400, "INVALID_PARAMETER"),
        ({"config": CONFIG, "seed": -1}, 400, "INVALID_PARAMETER"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("completed")
def test_what_is_no_request_is_refused_with_a_code(daemon, body, status, code):
    refused(ask(daemon, "POST", body=body), status, code)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/status"), ("GET", "/points"), ("GET", "/report"), ("POST", "/cancel"), ("POST", "/resume"),
     ("DELETE", "")],
)  # fmt: skip
def test_an_unknown_one_is_404_everywhere(daemon, method, path):
    refused(ask(daemon, method, f"/nobody{path}"), 404, "OPTIMIZATION_NOT_FOUND")


@pytest.mark.usefixtures("completed")
def test_commands_work_beside_a_daemon(daemon, atlasd_inside, config):
    def beside(*arguments):
        return atlasd_inside(*arguments, "--data-dir", daemon.folder)

    done = beside("optimize", config, *params(), "--name", "through the daemon", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert ask(daemon, "GET", f"/{result['id']}/status").body["name"] == "through the daemon"
    assert rows_of(beside("optimizations", "--format", "csv"))[0]["id"] == result["id"]
    failed(beside("optimize", "cancel", result["id"]), "OPTIMIZATION_FINISHED")
    failed(beside("optimize", "resume", result["id"]), "OPTIMIZATION_FINISHED")
    failed(beside("optimize", config, *params("no_such=1")), "INVALID_PARAMETER", 2)
    assert beside("optimize", "delete", result["id"]).returncode == 0
    failed(beside("optimize", "show", result["id"]), "OPTIMIZATION_NOT_FOUND")
