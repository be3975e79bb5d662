"""The client that ships against the daemon: a Node program written to the contract's second half, and nothing else."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

CLIENT = Path(__file__).parents[1] / "stand_ins" / "shipping_client.mjs"
FIRST_MS = 1_704_067_200_000  # 2024-01-01
DAY_MS = 86_400_000
CONFIG = {
    "strategyId": "sar_trend_ride",
    "symbols": ["SYNB"],
    "startTime": FIRST_MS + DAY_MS,
    "endTime": str(FIRST_MS + 40 * DAY_MS),
    "initialCapital": "10000",
    "commissionRate": "0.001",
    "slippageRate": 0.0005,
    "useRealisticSlippage": False,
    "enableMevProtection": False,
    "blockDelayMs": 0,
    "parameters": {"takeProfitPercent": 2, "stopLossPercent": 5, "maxPositions": 1},
    "monteCarloRuns": 0,
    "timeframe": "1h",
}
WANTED = {
    "config": CONFIG,
    "ranges": {"takeProfitPercent": [1, 3]},
    "load": {"symbol": "SYNB", "startTime": FIRST_MS, "endTime": FIRST_MS + DAY_MS, "resolution": "1h"},
    "prices": {"symbol": "SYNB", "start": str(FIRST_MS), "end": str(FIRST_MS + DAY_MS), "interval": "1h"},
}
STATUS = "connected version uptime activeBacktests queuedBacktests dataPointsLoaded memoryUsage"
PROGRESS = "id status progress currentTimestamp eventsProcessed estimatedTimeRemaining error"
RESULT = "id config status metrics tradeStats riskMetrics equityCurve drawdownCurve trades events monteCarlo execution"
METRICS = (
    "totalReturn totalReturnPercent sharpeRatio sortinoRatio calmarRatio maxDrawdown maxDrawdownPercent winRate "
    "profitFactor expectancy payoffRatio"
)


@pytest.fixture(scope="module")
def node():
    """Node, where it can be had."""
    if shutil.which("node") is None:
        for command in (("update",), ("install", "-y", "--no-install-recommends", "nodejs")):
            subprocess.run(["apt-get", "-qq", *command], capture_output=True, check=False)
    found = shutil.which("node")
    if found is None:
        pytest.skip("there is no node here")
    return found


@pytest.fixture(scope="module")
def seen(node, daemon, tmp_path_factory):
    """What the client has seen from its connection to its end."""
    wanted = tmp_path_factory.mktemp("client") / "wanted.json"
    wanted.write_text(json.dumps(WANTED))
    command = [node, CLIENT, str(daemon.ready["port"]), daemon.token, wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_is_sent_before_the_first_frame_and_only_what_it_listens_to_after(seen):
    assert seen["before"] == []
    assert seen["unknown"] == []
    assert seen["pongs"] == 1


def test_status_and_symbols_have_the_shapes_it_reads(seen):
    told = seen["responses"]
    assert set(STATUS.split()) <= set(told["status"])
    assert told["status"]["connected"] is True
    assert told["symbols"] == ["local:SYNA", "local:SYNB"]
    assert told["load"] == {"loaded": 24, "symbol": "SYNB"}


def test_a_backtest_runs_is_watched_and_completes(seen):
    told = seen["responses"]
    assert told["completed"] == told["id"]
    types = [event["type"] for event in seen["events"] if event["payload"]["id"] == told["id"]]
    assert types.count("backtest:complete") == 1
    assert "backtest:error" not in types
    steps = [event["payload"] for event in seen["events"] if event["type"] == "backtest:progress"]
    assert steps
    assert all(set(PROGRESS.split()) <= set(step) for step in steps)
    assert set(PROGRESS.split()) <= set(told["progress"])
    assert (told["progress"]["status"], told["progress"]["progress"]) == ("completed", 100)


def test_the_result_has_the_fields_it_reads(seen):
    result = seen["responses"]["result"]
    assert set(RESULT.split()) <= set(result["keys"])
    assert set(METRICS.split()) <= set(result["metrics"])
    assert result["status"] == "completed"
    assert result["trades"] > 0


def test_lists_are_lists_and_starts_answer_an_id(seen):
    told = seen["responses"]
    assert [each["id"] for each in told["list"]] == [told["id"]]
    assert told["completedList"] == 1
    assert told["simulation"] == {"id": told["id"]}
    assert set(told["optimization"]) == {"id"}


def test_failures_are_texts(seen):
    told = seen["responses"]
    assert "BACKTEST_FINISHED" in told["cancelFailure"]
    assert "UNKNOWN_METHOD" in told["unknownFailure"]


def test_the_report_is_a_file_in_three_formats(seen):
    reports = seen["responses"]["reports"]
    assert {form: report["status"] for form, report in reports.items()} == {"json": 200, "csv": 200, "pdf": 200}
    assert reports["pdf"]["begin"] == "%PDF-"
    assert reports["json"]["begin"].startswith("{")
    assert all(report["bytes"] > 500 for report in reports.values())


def test_prices_are_a_list_of_bars(seen):
    prices = seen["responses"]["prices"]
    assert prices["status"] == 200
    assert len(prices["body"]) == 24
    assert set(prices["body"][0]) == {"timestamp", "open", "high", "low", "close", "volume"}
    assert prices["body"][0]["timestamp"] == FIRST_MS


def test_signals_are_refused_while_nothing_takes_them(seen):
    signals = seen["responses"]["signals"]
    assert signals["status"] in (501, 200)
    assert signals["body"].get("uploaded") is not None or signals["body"]["error"]["code"] == "NOT_AVAILABLE"
