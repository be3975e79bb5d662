"""Running it: health, metrics, request ids, the log without secrets, `status`, and a stop in the middle of work."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

import daemon as package

PATIENCE_S = 60.0
COMPONENTS = ["store", "workers", "feeds", "event_loop"]
BACKTEST = {
    "strategy": {
        "name": "slow",
        "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 45}],
        "exitRules": [{"type": "take_profit", "value": 0.02}, {"type": "stop_loss", "value": 0.02}],
    },
    "backtest": {"symbols": ["LONG"], "timeframe": "1m", "initialCapital": 10000, "commission": 0.001},
}


def wait_for(look, wanted=bool):
    deadline = time.monotonic() + PATIENCE_S
    while not wanted(seen := look()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.01)
    return seen


def scraped(daemon):
    """All samples by name and labels, and the families' names."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.ready["port"], timeout=PATIENCE_S)
    connection.request("GET", "/metrics", headers=daemon.bearer)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    return {(each.name, *(each.labels[name] for name in sorted(each.labels))): each.value for each in samples}


def log_lines(folder):
    return [json.loads(line) for line in (folder / "logs" / "atlasd.log").read_text().splitlines()]


@pytest.fixture
def one_worker(tmp_path):
    """Options of a daemon with one worker process."""
    config = tmp_path / "one.toml"
    config.write_text("[workers]\ncount = 1\n")
    return "--config", config


# Health.


def test_health_tells_every_part_to_who_shows_the_token(daemon):
    wait_for(
        lambda: daemon.request("GET", "/health").body["components"]["workers"]["figures"], lambda f: f["alive"] > 0
    )
    body = daemon.request("GET", "/api/v1/health").body
    assert (body["version"], body["strategies_loaded"]) == (package.__version__, 100)
    assert list(body["components"]) == COMPONENTS
    for name, part in body["components"].items():
        assert part["status"] in ("ok", "degraded"), (name, part)
        assert set(part) == {"status", "why", "remedy", "figures"}
    assert body["components"]["store"]["figures"]["used_bytes"] > 0
    assert body["components"]["event_loop"]["figures"].keys() == {"lag_p99_ms", "lag_worst_ms"}
    assert body["jobs"] == {kind: {"queued": 0, "running": 0} for kind in ("backtest", "optimization", "probe")}
    assert body["memory_bytes"] > psutil.Process(daemon.process.pid).memory_info().rss / 2


def test_health_tells_others_the_status_and_nothing_else(daemon):
    for path in ("/health", "/api/v1/health"):
        answer = daemon.request("GET", path, token=None)
        assert (answer.status, list(answer.body)) == (200, ["status"])


def test_a_dead_worker_degrades_health_until_the_next_job(serve, one_worker, small_folder):
    daemon = serve(small_folder, *one_worker)

    def workers():
        return daemon.request("GET", "/health").body["components"]["workers"]

    wait_for(workers, lambda part: part["figures"]["alive"] == 1)
    for worker in daemon.workers():
        worker.kill()
    part = wait_for(workers, lambda part: part["status"] == "failed")
    assert "1 of 1" in part["why"]
    assert daemon.request("GET", "/health", token=None).body == {"status": "failed"}
    daemon.finish_run(symbols=["SYNB"], timeframes=["1Hour", "1Day"])
    wait_for(workers, lambda part: part["figures"]["alive"] > 0)
    assert daemon.end()[0] == 0


@pytest.fixture
def small_folder(cli, bars_files, tmp_path):
    path = bars_files["SYNB", "1Hour"]
    imported = cli("import", "bars", path, "--symbol", "SYNB", "--timeframe", "1Hour", "--data-dir", tmp_path / "data")
    assert imported.returncode == 0, imported.stderr
    return tmp_path / "data"


def test_uvloop_serves_where_it_exists(daemon):
    assert [each for each in psutil.Process(daemon.process.pid).memory_maps() if "uvloop" in each.path]


# Metrics.


def test_metrics_need_the_token(daemon):
    assert daemon.request("GET", "/metrics", token=None).status == 401


def test_metrics_count_requests_by_pattern_and_status(daemon):
    before = scraped(daemon)
    for run in ("one", "two"):
        assert daemon.request("GET", f"/api/v1/runs/{run}").status == 404
    for path in ("/no/such/route", "/nor/this"):
        assert daemon.request("GET", path).status == 404
    assert daemon.request("PATCH", "/api/v1/runs", {}).status == 405
    after = scraped(daemon)

    def more(*key):
        return after[key] - before.get(key, 0)

    assert more("atlasd_requests_total", "GET", "/api/v1/runs/{run_id}", "404") == 2
    assert more("atlasd_requests_total", "GET", "none", "404") == 2
    assert more("atlasd_requests_total", "other", "none", "405") == 1
    assert more("atlasd_requests_total", "GET", "/metrics", "200") == 1
    assert more("atlasd_request_seconds_total", "/api/v1/runs/{run_id}") > 0


def test_metrics_tell_all_that_is_promised(daemon):
    daemon.finish_run(symbols=["SYNB"], timeframes=["1Hour"], run_id="counted")
    found = scraped(daemon)
    names = {name for name, *_ in found}
    promised = (
        "requests_total request_seconds_total sockets jobs jobs_ended_total workers_wanted workers_alive store_bytes "
        "store_map_bytes store_most_bytes disk_free_bytes stored_rows info uptime_seconds memory_bytes "
        "event_loop_lag_seconds"
    )
    assert {f"atlasd_{name}" for name in promised.split()} <= names
    assert found["atlasd_info", package.__version__] == 1
    assert found["atlasd_workers_wanted",] >= found["atlasd_workers_alive",] > 0
    assert found["atlasd_stored_rows",] >= 3_000
    assert found["atlasd_jobs", "probe", "running"] == 0
    wait_for(lambda: scraped(daemon).get(("atlasd_jobs_ended_total", "probe", "completed"), 0))
    assert found["process_resident_memory_bytes",] > 0


def test_no_label_grows_with_what_clients_send(daemon):
    scraped(daemon)
    before = len(scraped(daemon))
    for number in range(30):
        daemon.request("GET", f"/api/v1/runs/run-{number}")
        daemon.request("GET", f"/console/file-{number}")
        daemon.request("GET", f"/odd/{number}", headers={"X-Request-Id": f"r{number}"})
        daemon.request("PATCH", f"/health/{number}", {})
    assert len(scraped(daemon)) <= before + 8


# Request ids.


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health", 200),
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/runs/none", 404),
        ("DELETE", "/api/v1/runs", 405),
    ],
)
def test_every_answer_names_its_request(daemon, method, path, status):
    given = daemon.request(method, path, headers={"X-Request-Id": "mine-1.2:3"})
    assert (given.status, given.headers["X-Request-Id"]) == (status, "mine-1.2:3")
    made = {daemon.request(method, path).headers["X-Request-Id"] for _ in range(2)}
    assert len(made) == 2
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in made)
    refused = daemon.request(method, path, token="wrong")  # noqa: S106
    assert re.fullmatch("[0-9a-f]{16}", refused.headers["X-Request-Id"])


@pytest.mark.parametrize("wrong", ["", "x" * 65, "two words", "<script>", "a;b", "\u00e9"])
def test_an_id_that_could_do_harm_is_replaced(daemon, wrong):
    answer = daemon.request("GET", "/health", headers={"X-Request-Id": wrong.encode()})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["X-Request-Id"])


# The log, and what is in no file.

CANARIES = {
    "environment": "Canary1environmentKey9999",
    "header": "Canary2headerToken9999",
    "query": "Canary3queryToken9999",
    "subprotocol": "Canary4subprotocol9999",
    "path": "canary5c0ffee0123456789abcdef01234567",
    "user": "Canary6user9999",
    "malformed": "Canary7malformed9999",
    "frame": "Canary8frame9999",
    "id": "Canary9idOfARequestThatIsLongEnoughToBeAToken123",
    "code": "Canary10sessionCode9999",
}


@pytest.fixture
def watched(serve, tmp_path, monkeypatch):
    """A daemon that logs everything, has a venue's key, and a feed whose venue cannot be reached."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = free.getsockname()[1]
    config = tmp_path / "config.toml"
    secret = f"{CANARIES['user']}@127.0.0.1:{dead}/v3/{CANARIES['path']}"
    config.write_text(
        '[workers]\nexecutor = "threads"\n[log]\nlevel = "debug"\n'
        f'[binance]\nrest_spot = "http://{secret}"\nws_spot = "ws://{secret}"\nattempts = 1\n'
        '[feeds.broken]\nvenue = "binance"\nsymbols = ["BTCUSDT"]\nstreams = ["trades"]\n'
    )
    monkeypatch.setenv("ATLASD_BINANCE_API_KEY", CANARIES["environment"])
    return serve(tmp_path / "data", "--config", config)


def test_no_secret_is_found_in_any_file(watched):
    daemon, port = watched, watched.ready["port"]
    daemon.request("GET", "/api/v1/runs", token=CANARIES["header"])
    daemon.request("GET", f"/api/v1/runs?token={CANARIES['query']}")
    daemon.request("GET", f"/{CANARIES['query']}?api_key={CANARIES['query']}", token=None)
    daemon.request("GET", "/health", headers={"X-Request-Id": CANARIES["id"]})
    daemon.request("POST", "/api/v1/session", {"code": CANARIES["code"]}, token=None)
    upgrade = {
        "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol": f"atlas.json, atlas.auth.{CANARIES['subprotocol']}",
    }  # fmt: skip
    daemon.request("GET", "/ws", headers=upgrade, token=None)
    for raw in (
        f"GET / HTTP/1.1\r\nAuthorization: Bearer {CANARIES['malformed']}\r\nbroken \x01 header\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization: Bearer \x01{CANARIES['malformed']}\r\n\r\n",
        f"GET / HTTP/1.1\r\nAuthorization\x01: Bearer {CANARIES['malformed']}\r\n\r\n",
        f"GET /?token={CANARIES['malformed']} HTTP/9.9\r\n\r\n",
        f"BREW /?token={CANARIES['malformed']} HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as plain:
            plain.sendall(raw.encode())
            plain.recv(4096)
    told = wait_for(
        lambda: [
            line for line in log_lines(daemon.folder) if "127.0.0.1" in line["message"] and "feed" in line["message"]
        ]
    )
    assert told
    token = daemon.token
    assert daemon.end()[0] == 0
    content = {path: path.read_bytes() for path in daemon.folder.rglob("*") if path.is_file()}
    content[daemon.complaints] = daemon.complaints.read_bytes()
    assert any(b"/health: 200" in each for each in content.values())  # the log of requests is there
    for name, canary in CANARIES.items():
        assert [path for path, bytes_ in content.items() if canary.encode() in bytes_] == [], name
    assert [path.name for path, bytes_ in content.items() if token.encode() in bytes_] == ["token"]


def test_lines_of_a_request_carry_its_id(serve, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('[workers]\nexecutor = "threads"\n[log]\nlevel = "debug"\n')
    daemon = serve(tmp_path / "data", "--config", config)
    daemon.request("GET", "/api/v1/runs/none", headers={"X-Request-Id": "find-me"})
    found = wait_for(lambda: [line for line in log_lines(daemon.folder) if line.get("request") == "find-me"])
    assert found[-1]["message"].startswith("GET /api/v1/runs/{run_id}: 404 in ")
    assert all("request" not in line for line in log_lines(daemon.folder) if "ready at" in line["message"])
    assert daemon.end()[0] == 0


# The command line.


def test_status_tells_of_a_running_daemon(daemon, cli):
    told = json.loads(cli("status", "--format", "json", "--data-dir", daemon.folder).stdout)
    assert (told["pid"], told["url"]) == (daemon.process.pid, daemon.ready["url"])
    assert list(told["components"]) == COMPONENTS
    assert told["feeds"] == []
    done = cli("status", "--data-dir", daemon.folder)
    assert done.returncode == 0, done.stderr
    for words in ("uptime", "memory", "backtest jobs", "event loop", "lag p99", package.__version__):
        assert words in done.stdout


def test_status_says_that_none_runs(cli, tmp_path):
    done = cli("status", "--data-dir", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no daemon runs" in done.stderr
    assert "atlasd serve" in done.stderr


def test_doctor_knows_the_daemon_that_runs(daemon, cli):
    done = cli("doctor", "--format", "json", "--data-dir", daemon.folder)
    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert f"process {daemon.process.pid}" in found["daemon"]["found"]
    assert found["store"]["status"] == "ok"
    assert found["token"]["status"] == "ok"


def test_logs_are_followed_until_ctrl_c(serve, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('[workers]\nexecutor = "threads"\n[log]\nlevel = "debug"\n')
    daemon = serve(tmp_path / "data", "--config", config)
    command = [sys.executable, "-m", "daemon", "logs", "-f", "-n", "1000", "--data-dir", str(daemon.folder)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as following:
        while "ready at" not in following.stdout.readline():
            pass
        daemon.request("GET", "/health", headers={"X-Request-Id": "seen-live"})
        while "[seen-live]" not in (line := following.stdout.readline()):
            assert line
        following.send_signal(signal.SIGINT)
        assert following.wait(PATIENCE_S) == 0
    assert daemon.end()[0] == 0


# Stopping.


def test_a_backtest_that_runs_when_the_daemon_stops_is_done_by_the_next(serve, one_worker, cli, long_file, tmp_path):
    folder = tmp_path / "data"
    imported = cli("import", "bars", long_file, "--symbol", "LONG", "--timeframe", "1Min", "--data-dir", folder)
    assert imported.returncode == 0, imported.stderr
    daemon = serve(folder, *one_worker)
    backtest = daemon.request("POST", "/api/v1/backtest/run", BACKTEST).body["id"]
    path = f"/api/v1/backtest/{backtest}/status"
    wait_for(lambda: daemon.request("GET", path).body, lambda state: state["status"] == "running")
    code, seconds = daemon.end(signal.SIGTERM)
    assert code == 0
    assert seconds < 10
    (left,) = json.loads(cli("backtests", "--format", "json", "--data-dir", folder).stdout)
    assert (left["id"], left["status"]) == (backtest, "queued")
    again = serve(folder, *one_worker)
    state = wait_for(
        lambda: again.request("GET", path).body, lambda state: state["status"] not in ("queued", "running")
    )
    assert (state["status"], state["error"]) == ("completed", None)
    assert again.end()[0] == 0
