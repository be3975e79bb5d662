"""Monte Carlo simulations and the trial ledger over HTTP and on the command line, with and without a daemon."""

import json
import threading
import time
import urllib.parse

import msgspec
import pytest

from daemon.research.monte_carlo_records import Simulation
from daemon.research.trial_lists import ListedIdea, ListedTrial
from daemon.research.trials import Trial, record
from daemon.research.validation_result import MonteCarloResult
from daemon.store.env import Environment, StoreConfig

SIMULATE, TRIALS = "/api/v1/montecarlo", "/api/v1/trials"
CONFIG = {
    "strategy": {
        "name": "dips",
        "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 45}],
        "exitRules": [{"type": "take_profit", "value": 0.01}, {"type": "stop_loss", "value": 0.01}],
    },
    "backtest": {"symbols": ["SYNA"], "timeframe": "1h"},
}


def finish(daemon, config, name):
    assert daemon.request("POST", "/api/v1/backtest/run", config | {"id": name}).status == 202
    deadline = time.monotonic() + 60
    while (status := daemon.request("GET", f"/api/v1/backtest/{name}/status").body)["completedAt"] is None:
        assert time.monotonic() < deadline, status
        time.sleep(0.01)
    assert status["status"] == "completed", status


@pytest.fixture(scope="module")
def done(daemon):
    """A daemon with a completed backtest, one without trades, and what a rerun and another idea left in the ledger."""
    entry = CONFIG["strategy"]["entryRules"][0]
    finish(daemon, CONFIG, "first")
    finish(daemon, CONFIG, "again")
    finish(daemon, {**CONFIG, "strategy": {**CONFIG["strategy"], "entryRules": [entry | {"value": 40}]}}, "other")
    never = {"indicator": "close", "condition": "lt", "value": 0}
    finish(daemon, {**CONFIG, "strategy": {**CONFIG["strategy"], "entryRules": [never]}}, "never")
    return daemon


def test_a_simulation_is_drawn_by_a_worker_and_shown_again(done):
    asked = {"backtestId": "first", "runs": "2000", "seed": 4}
    answer = done.request("POST", SIMULATE, asked)
    assert answer.status == 200, answer.body
    made = msgspec.convert(answer.body, Simulation)
    assert (made.id, made.runs, made.seed, len(made.methods)) == ("first", 2_000, 4, 4)
    assert done.request("POST", SIMULATE, asked).body == answer.body
    assert done.request("GET", f"{SIMULATE}/first").body == answer.body


def test_a_simulation_leaves_the_result_as_it_was(done):
    before = done.request("GET", "/api/v1/backtest/first").body
    assert done.request("POST", SIMULATE, {"backtestId": "first", "runs": 10}).status == 200
    after = done.request("GET", "/api/v1/backtest/first").body
    assert (after["monteCarlo"], after["verdict"]) == (None, before["verdict"])


def test_the_daemon_answers_others_while_a_simulation_is_drawn(done):
    began = time.monotonic()
    asked = {"backtestId": "first", "runs": 60_000, "seed": 8}
    answers = []
    drawing = threading.Thread(target=lambda: answers.append(done.request("POST", SIMULATE, asked)))
    drawing.start()
    waits = []
    while drawing.is_alive():
        at = time.monotonic()
        assert done.request("GET", "/health").status == 200
        waits.append(time.monotonic() - at)
    drawing.join()
    assert (answers[0].status, answers[0].body["runs"]) == (200, 60_000)
    assert sorted(waits)[len(waits) // 2] < (time.monotonic() - began) / 5


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"backtestId": "nowhere"}, 404, "BACKTEST_NOT_FOUND"),
        ({"backtestId": "never"}, 404, "TOO_FEW_TRADES"),
        ({"backtestId": "first", "runs": 0}, 400, "INVALID_REQUEST"),
        ({"backtestId": "first", "runs": 10_000_000}, 400, "INVALID_REQUEST"),
        ({"backtestId": "first", "block": "NaN"}, 400, "INVALID_REQUEST"),
        ({"backtestId": "first", "rums": 1}, 400, "INVALID_REQUEST"),
        ({"runs": 5}, 400, "INVALID_REQUEST"),
        ([], 400, "INVALID_REQUEST"),
        (b"{", 400, "INVALID_JSON"),
    ],
)
def test_what_cannot_be_simulated_is_refused_with_a_code(done, body, status, code):
    refused = done.request("POST", SIMULATE, body)
    assert (refused.status, refused.body["error"]["code"]) == (status, code)


def test_what_was_not_simulated_is_not_found(done):
    for name, code in (("again", "MONTE_CARLO_NOT_FOUND"), ("nowhere", "BACKTEST_NOT_FOUND")):
        refused = done.request("GET", f"{SIMULATE}/{name}")
        assert (refused.status, refused.body["error"]["code"]) == (404, code)


def test_the_command_line_simulates_through_the_daemon(done, atlasd_inside):
    asked = ("montecarlo", "other", "--runs", "300", "--seed", "5", "--data-dir", done.folder)
    told = atlasd_inside(*asked, "--format", "json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout) == done.request("GET", f"{SIMULATE}/other").body
    table = atlasd_inside(*asked)
    assert [line.split()[0] for line in table.stdout.splitlines()] == [
        "method", "bootstrap", "shuffle", "missed", "noise",
    ]  # fmt: skip
    assert "300 runs of" in table.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["nowhere"], "BACKTEST_NOT_FOUND", 1),
        (["never"], "TOO_FEW_TRADES", 1),
        (["first", "--runs", "0"], "INVALID_REQUEST", 2),
        (["first", "--confidence", "nan"], "INVALID_REQUEST", 2),
        (["first", "--block", "inf"], "INVALID_REQUEST", 2),
    ],
)
def test_what_cannot_be_simulated_ends_the_command_with_a_code(done, atlasd_inside, arguments, code, exit_code):
    told = atlasd_inside("montecarlo", *arguments, "--data-dir", done.folder)
    assert told.returncode == exit_code
    assert f"[{code}]" in told.stderr


def test_the_ledger_lists_ideas_and_their_tries(done, atlasd_inside):
    found = done.request("GET", TRIALS)
    assert found.status == 200
    ideas = msgspec.convert(found.body["results"], list[ListedIdea])
    assert found.body["next_cursor"] is None
    assert [(each.name, each.tries) for each in ideas] == [("dips", 1), ("dips", 2)]
    told = atlasd_inside("trials", "--format", "json", "--data-dir", done.folder)
    shown = json.loads(told.stdout)
    assert [(each["idea"], each["tries"]) for each in shown] == [(each.idea, each.tries) for each in ideas]
    tries = msgspec.convert(done.request("GET", f"{TRIALS}/{ideas[1].idea}").body["results"], list[ListedTrial])
    assert len(tries) == 2
    assert tries[0].tried_at >= tries[1].tried_at
    assert max(each.daily_sharpe for each in tries) == ideas[1].best_daily_sharpe
    told = atlasd_inside("trials", ideas[1].idea, "--format", "json", "--data-dir", done.folder)
    assert [each["fingerprint"] for each in json.loads(told.stdout)] == [each.fingerprint for each in tries]


def test_an_idea_that_was_not_tried_is_not_found(done):
    refused = done.request("GET", f"{TRIALS}/nothing")
    assert (refused.status, refused.body["error"]["code"]) == (404, "NO_ROWS")


@pytest.mark.parametrize("cursor", ["x", "5", "-1.a", "1" * 20 + ".a", ".", "5."])
def test_cursors_of_another_list_are_refused(done, cursor):
    refused = done.request("GET", f"{TRIALS}?{urllib.parse.urlencode({'cursor': cursor})}")
    assert (refused.status, refused.body["error"]["code"]) == (400, "INVALID_CURSOR")


def test_long_lists_come_in_pages_and_without_a_daemon_the_commands_work_alike(
    serve, threads, cli, atlasd_inside, bars_files, tmp_path
):
    folder, config = tmp_path / "data", tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG | {"id": "alone"}))
    cli("import", "bars", bars_files["SYNA", "15Min"], "--symbol", "SYNA", "--timeframe", "15Min", "--data-dir", folder)
    assert atlasd_inside("backtest", config, "--data-dir", folder).returncode == 0
    told = atlasd_inside("montecarlo", "alone", "--runs", "100", "--format", "json", "--data-dir", folder)
    assert told.returncode == 0, told.stderr
    made = json.loads(told.stdout)
    assert msgspec.convert(made, MonteCarloResult).runs == 100
    many = [Trial("many", f"f{number:04}", "n", 0.01 * number, 30, 1.0, 5_000 - number // 3) for number in range(1_000)]
    with Environment(folder, StoreConfig()) as env:
        env.write(lambda transaction: record(transaction, many))
    daemon = serve(folder, *threads)
    try:
        assert daemon.request("GET", f"{SIMULATE}/alone").body == made
        rows, cursor, pages = [], None, 0
        while cursor is not None or not pages:
            query = {"limit": 300} | ({"cursor": cursor} if cursor else {})
            page = daemon.request("GET", f"{TRIALS}/many?{urllib.parse.urlencode(query)}").body
            rows, cursor, pages = rows + page["results"], page["next_cursor"], pages + 1
        assert pages == 4
        assert [each["fingerprint"] for each in rows] == [each.fingerprint for each in many]
    finally:
        daemon.end()
