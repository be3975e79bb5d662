"""`atlasd calibrate` over stored ticks, here and through a daemon, and a backtest that takes what it found."""

import csv
import json

import numpy as np
import pytest

from daemon.core.market import NS_PER_DAY, NS_PER_SECOND

START_NS = 19_000 * NS_PER_DAY
ROWS = 20_000
IMPACT = 0.05
CONFIG = {
    "strategy": {
        "name": "dips",
        "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 35}],
        "exitRules": [{"type": "take_profit", "value": 0.01}, {"type": "stop_loss", "value": 0.01}],
    },
    "backtest": {"symbols": ["AAA"], "timeframe": "1m", "slippageModel": "kyle"},
}


@pytest.fixture(scope="module")
def data(cli, tmp_path_factory):
    """A store with two days of trades whose aggressors move the price by 0.05 a unit; the local clock is 1 s late."""
    folder = tmp_path_factory.mktemp("calibrate")
    rng = np.random.default_rng(3)
    side, size = rng.choice([-1, 1], ROWS), rng.integers(1, 20, ROWS) / 10
    price = 1_000 + np.cumsum(IMPACT * side * size + rng.normal(0, 0.05, ROWS))
    delay_ms = -1_000 + rng.integers(0, 30, ROWS)
    path = folder / "trades.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["time", "local_time", "id", "price", "size", "side"])
        for number in range(ROWS):
            at_ms = (START_NS + number * 8 * NS_PER_SECOND) // 1_000_000
            word = "buy" if side[number] > 0 else "sell"
            local_ms = at_ms + delay_ms[number]
            rows.writerow([at_ms, local_ms, number, f"{price[number]:.2f}", f"{size[number]:.1f}", word])
    done = cli("import", "trades", path, "--symbol", "AAA", "--data-dir", folder / "data")
    assert done.returncode == 0, done.stderr
    return folder / "data"


def found(answer, model, name):
    return next(each for each in answer["parameters"] if (each["model"], each["name"]) == (model, name))


def test_a_symbol_is_calibrated_and_backtests_take_what_was_found(atlasd_inside, data, tmp_path):
    config = tmp_path / "kyle.json"
    config.write_text(json.dumps(CONFIG))
    before = atlasd_inside("backtest", config, "--format", "json", "--data-dir", data)
    assert before.returncode == 0, before.stderr
    done = atlasd_inside("calibrate", "AAA", "--format", "json", "--data-dir", data)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["symbol"] == "local:AAA"
    slope = found(made, "kyle", "lambda")
    assert abs(slope["value"] - IMPACT) <= 3 * slope["standardError"]
    y = found(made, "kyle", "y")
    assert y["isUsed"]
    after = atlasd_inside("backtest", config, "--format", "json", "--data-dir", data)
    assert after.returncode == 0, after.stderr
    plain, own = json.loads(before.stdout), json.loads(after.stdout)
    assert any("local:AAA has not been calibrated" in reading for reading in plain["readings"])
    assert any("kyle of local:AAA: y" in reading and "calibrated on" in reading for reading in own["readings"])
    assert any("local:AAA, with its own parameters: slippage kyle" in each for each in own["assumptions"])
    assert own["costs"]["model"]["slippageBySymbol"]["local:AAA"]["y"] == y["value"]
    assert own["costs"]["slippage"] > plain["costs"]["slippage"] > 0
    assert own["fingerprint"] != plain["fingerprint"]


def test_the_table_shows_each_fit_and_whether_it_is_used(atlasd_inside, data):
    done = atlasd_inside("calibrate", "local:AAA", "--bucket", "1Min", "--data-dir", data)
    assert done.returncode == 0, done.stderr
    for word in ("square_root", "almgren_2005", "almgren_chriss", "kyle", "lambda", "standard_error", "r2"):
        assert word in done.stdout
    assert "20,000 trades in" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["AAA", "--bucket", "1Hour"], "TOO_FEW_TRADES", 1),
        (["AAA", "--bucket", "7Min"], "INVALID_TIMEFRAME", 2),
        (["NONE"], "INVALID_SYMBOL", 1),
        (["AAA", "--start", "2022-01-09", "--end", "2022-01-08"], "INVALID_DATE_RANGE", 2),
    ],
)
def test_what_cannot_be_calibrated_ends_the_command_with_a_code(atlasd_inside, data, arguments, code, exit_code):
    done = atlasd_inside("calibrate", *arguments, "--data-dir", data)
    assert done.returncode == exit_code
    assert f"[{code}]" in done.stderr


def test_latency_is_measured_on_the_ticks_two_times(atlasd_inside, data, tmp_path):
    config = tmp_path / "measured.json"
    wanted = CONFIG["backtest"] | {"latencyMs": {"feed": "measured"}}
    config.write_text(json.dumps(CONFIG | {"backtest": wanted}))
    refused = atlasd_inside("backtest", config, "--data-dir", data)
    assert (refused.returncode, "[INVALID_CONFIGURATION]" in refused.stderr) == (2, True)
    assert "fills on bars know one number for all" in refused.stderr
    done = atlasd_inside("calibrate", "latency", "AAA", "--floor-ms", "2", "--bucket", "1Hour", "--data-dir", data)
    assert done.returncode == 0, done.stderr
    figures = dict(line.split() for line in done.stdout.splitlines()[1:])
    assert list(figures)[:4] == ["p50_ms", "p90_ms", "p99_ms", "max_ms"]
    assert float(figures["offset_ms"]) == pytest.approx(-1_002, abs=0.01)
    assert float(figures["drift_ppm"]) == pytest.approx(0, abs=0.001)
    assert float(figures["p50_ms"]) == pytest.approx(2 + 14.5, abs=1)
    assert float(figures["max_ms"]) == pytest.approx(31, abs=0.01)
    assert "20,000 messages of trades in 45 buckets of 1Hour" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["AAA", "--stream", "depth"], "NO_ROWS", 1),
        (["AAA", "--bucket", "7Min"], "INVALID_TIMEFRAME", 2),
        (["NONE"], "INVALID_SYMBOL", 1),
    ],
)
def test_latency_that_cannot_be_measured_ends_the_command_with_a_code(atlasd_inside, data, arguments, code, exit_code):
    done = atlasd_inside("calibrate", "latency", *arguments, "--data-dir", data)
    assert (done.returncode, f"[{code}]" in done.stderr) == (exit_code, True), done.stderr


def check_latency(daemon, atlasd_inside, data):
    """A daemon measures for the command line, and answers what it measured."""
    done = atlasd_inside("calibrate", "latency", "AAA", "--format", "json", "--data-dir", data)
    assert done.returncode == 0, done.stderr
    shown = daemon.request("GET", "/api/v1/calibration/AAA/latency")
    assert (shown.status, shown.body) == (200, json.loads(done.stdout))
    again = daemon.request("POST", "/api/v1/calibrate/latency", {"symbol": "local:AAA", "floor_ms": 5})
    assert (again.status, again.body["floorMs"]) == (200, 5)
    for body, status, code in (
        ({"symbol": "NONE"}, 404, "INVALID_SYMBOL"),
        ({"symbol": "AAA", "stream": "quotes"}, 404, "NO_ROWS"),
        ({"symbol": "AAA", "stream": "bars"}, 400, "INVALID_REQUEST"),
        ({"symbol": "AAA", "floor_ms": -1}, 400, "INVALID_REQUEST"),
    ):
        refused = daemon.request("POST", "/api/v1/calibrate/latency", body)
        assert (refused.status, refused.body["error"]["code"]) == (status, code)


def test_a_running_daemon_calibrates_for_the_command_line_and_answers_over_http(serve, atlasd_inside, data):
    daemon = serve(data)
    try:
        done = atlasd_inside("calibrate", "AAA", "--format", "json", "--data-dir", data)
        assert done.returncode == 0, done.stderr
        shown = daemon.request("GET", "/api/v1/calibration/AAA")
        assert (shown.status, shown.body) == (200, json.loads(done.stdout))
        again = daemon.request("POST", "/api/v1/calibrate", {"symbol": "local:AAA", "end": "2022-01-08"})
        assert again.status == 200
        assert again.body["rows"] < ROWS
        for body, status, code in (
            ({"symbol": "NONE"}, 404, "INVALID_SYMBOL"),
            ({"symbol": "AAA", "bucket": "1Hour"}, 404, "TOO_FEW_TRADES"),
            ({"symbol": "AAA", "bins": 5}, 400, "INVALID_REQUEST"),
            ({}, 400, "INVALID_REQUEST"),
        ):
            refused = daemon.request("POST", "/api/v1/calibrate", body)
            assert (refused.status, refused.body["error"]["code"]) == (status, code)
        assert daemon.request("GET", "/api/v1/calibration/NONE").status == 404
        check_latency(daemon, atlasd_inside, data)
    finally:
        daemon.end()
