"""Frames byte for byte: a domain event is the wire's, and no release changes what a client reads without a word.

Each file of `frames` has one frame in every dialect and format, MessagePack as hexadecimal digits. Where a change is
meant, `python tests/golden/test_frames.py` writes them anew.
"""

from pathlib import Path

import msgspec
import pytest

from daemon.api import frames
from daemon.api.dialect import Shipping
from daemon.api.frames import Asked, Documented, Told
from daemon.core import events
from daemon.core.errors import Code, InvalidRequest
from daemon.core.events import EVENTS, Fact

FOLDER = Path(__file__).parent / "frames"
NOW_MS = 1_705_708_800_000
EPOCH = "b2JqZWN0aXZlIGVwb2No"
DIALECTS = {
    "json": Documented(frames.JSON, lambda: NOW_MS),
    "msgpack": Documented(frames.MSGPACK, lambda: NOW_MS),
    "shipping": Shipping(),
}
ASKED = Asked("req_1705708800000_k3j2h1", "backtest:status", {})
SYMBOLS = ["binance:BTC/USDT"]
SAMPLES = (
    events.BacktestProgressed(
        id="3f2a", symbols=SYMBOLS, status="running", progress=12.5, current_timestamp=NOW_MS, events_processed=1_000
    ),
    events.BacktestCompleted(
        id="3f2a",
        symbols=SYMBOLS,
        name="momentum <b>",
        total_return_percent=4.25,
        sharpe_ratio=1.5,
        max_drawdown_percent=2.0,
        total_trades=42,
        verdict="fragile",
        fingerprint="00ff",
    ),
    events.BacktestFailed(id="3f2a", symbols=SYMBOLS, error="no bars in the dates asked for", code="NO_BARS"),
    events.OptimizationProgressed(
        id="o1",
        symbols=SYMBOLS,
        status="running",
        progress=50.0,
        points=10,
        points_done=5,
        best_score=1.25,
        best_parameters={"period": 14.0},
    ),
    events.OptimizationCompleted(
        id="o1", symbols=SYMBOLS, name="grid", best_score=None, best_parameters=None, verdict=None
    ),
    events.OptimizationFailed(id="o1", error="it was cancelled", code="CANCELLED"),
    events.ProbeProgressed(id="run-1", symbols=["SYNA", "SYNB"], status="running", completed=3, total=300),
    events.ProbeCompleted(id="run-1", symbols=["SYNA"], total_combinations=300, total_trades=7),
    events.ProbeFailed(id="run-1", error="the worker died", code="WORKER_CRASHED"),
)


def told(event):
    """An event as clients are told it."""
    if event.IS_FACT:
        return Told.of_fact(Fact(7, event.NAME, NOW_MS, msgspec.Raw(msgspec.json.encode(event))), EPOCH)
    return Told(event.NAME, event, event.id, event.symbols, NOW_MS, "00000000000040008000000000000000")


def made():
    """Every frame by the name of its file, then by dialect and format."""
    answers = {
        "answer": {"id": "3f2a", "progress": 12.5, "error": None, "time": NOW_MS},
        "answer-of-stored-json": msgspec.Raw(b'{"id":"3f2a","rows":[1.50,null,"<b>"]}'),
        "answer-of-a-list": ["binance:BTC/USDT", "local:\u00dc"],
    }
    error = InvalidRequest(Code.INVALID_REQUEST, "Expected `int`, got `str` - at `$.limit`", {"field": "limit"})
    found = {
        name: {way: each.answered(ASKED, content) for way, each in DIALECTS.items()}
        for name, content in answers.items()
    }
    found["failure"] = {way: each.failed(error, ASKED.id, ASKED.method) for way, each in DIALECTS.items()}
    found["failure-without-id"] = {way: each.failed(error, None, None) for way, each in DIALECTS.items()}
    for event in SAMPLES:
        found[event.NAME.replace(":", "-")] = {way: told(event).frame(each) for way, each in DIALECTS.items()}
    return {
        name: {way: frame.hex() if way == "msgpack" else frame.decode() for way, frame in ways.items()}
        for name, ways in found.items()
    }


@pytest.mark.parametrize("name", made())
def test_a_frame_is_what_it_was(name):
    assert made()[name] == msgspec.json.decode((FOLDER / f"{name}.json").read_bytes())


def test_every_event_has_its_frames_and_no_frame_is_left_over():
    assert {type(event) for event in SAMPLES} == set(EVENTS.values())
    assert {path.stem for path in FOLDER.glob("*.json")} == set(made())


@pytest.mark.parametrize("name", made())
def test_messagepack_says_what_json_says(name):
    ways = made()[name]
    assert msgspec.msgpack.decode(bytes.fromhex(ways["msgpack"])) == msgspec.json.decode(ways["json"])


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, content in made().items():
        (FOLDER / f"{file}.json").write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
