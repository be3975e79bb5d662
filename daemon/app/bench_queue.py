"""A hundred backtests submitted at once to a daemon of its own, and how it answers meanwhile."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from daemon.app.tokens import TokenFile
from daemon.core.errors import Code, JobFailed
from daemon.core.market import NS_PER_DAY, Bars, Instrument, Timeframe
from daemon.engine.synthetic import MarketModel, simulate
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

_INSTRUMENT: Final = Instrument("bench", "BENCH")
_READY_S: Final = 120.0
_DONE_S: Final = 300.0
_POLL_S: Final = 0.01
_P99: Final = 0.99
# More starts a second than the daemon allows unasked: a hundred at once are what is measured.
_SETTINGS: Final = "[http]\njob_starts_per_s = 10000\n"
_CONFIG: Final[dict[str, Any]] = {
    "strategy": {
        "name": "bench",
        "entryRules": [
            {"indicator": "rsi", "condition": "crosses_above", "value": 30},
            {"indicator": "volume", "condition": "greater_than", "value": "sma_20"},
        ],
        "exitRules": [
            {"type": "take_profit", "value": 0.02},
            {"type": "stop_loss", "value": 0.05},
            {"type": "trailing_stop", "activation": 0.01, "distance": 0.005},
        ],
    },
    "backtest": {"symbols": ["BENCH"], "timeframe": "1m", "initialCapital": 10_000},
}


def minute_bars(seed: int, count: int) -> Bars:
    """Simulate minutes of a market that never closes."""
    return simulate(MarketModel(), seed=seed, start_ns=19_000 * NS_PER_DAY, bars=count, timeframe=Timeframe.MIN_1)


def hundred_at_once(count: int, bars: int) -> dict[str, Any]:
    """Submit `count` backtests of `bars` minutes, all at once; JobFailed where one of them does not complete.

    many_s: from the first submission until the last is done. health_p99_ms: of answers to `GET /health` meanwhile.
    """
    with tempfile.TemporaryDirectory() as folder:
        with Environment(Path(folder), StoreConfig()) as env:
            store = BarStore(env)
            env.write(
                lambda transaction: store.merge(
                    transaction, _INSTRUMENT, Timeframe.MIN_1, minute_bars(0, bars), replace=False
                )
            )
        with _Served(Path(folder)) as at:
            # The workers load the kernels first: that is the start's time, not the queue's.
            _wait(at, [_submit(at, -1)])
            answers, is_over = list[float](), threading.Event()
            watcher = threading.Thread(target=_watch, args=(at, answers, is_over))
            watcher.start()
            start = time.perf_counter()
            _wait(at, [_submit(at, number) for number in range(count)])
            took_s = time.perf_counter() - start
            is_over.set()
            watcher.join()
    answers.sort()
    return {
        "many_backtests": count,
        "many_bars_each": bars,
        "many_s": round(took_s, 2),
        "health_answers": len(answers),
        "health_p99_ms": round(1e3 * answers[int(_P99 * (len(answers) - 1))], 2),
        "health_median_ms": round(1e3 * answers[len(answers) // 2], 2),
    }


class _Address(NamedTuple):
    """Where the daemon answers, and what it is shown."""

    port: int
    headers: dict[str, str]


class _Served:
    """A daemon on a free port, for as long as the block lasts."""

    def __init__(self, folder: Path) -> None:
        self._ready = folder / "bench-ready.json"
        self._token = TokenFile(folder)
        config = folder / "bench.toml"
        config.write_text(_SETTINGS)
        command = [sys.executable, "-m", "daemon", "serve", "--port", "0", "--data-dir", str(folder)]
        command += ["--config", str(config)]
        self._process = subprocess.Popen(  # noqa: S603 - this very program
            [*command, "--ready-file", str(self._ready)], stdout=subprocess.DEVNULL
        )

    def __enter__(self) -> _Address:
        deadline = time.monotonic() + _READY_S
        while not self._ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise JobFailed(Code.INTERNAL, "the bench's daemon did not start: see its messages above")
            time.sleep(_POLL_S)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token.read()}"}
        return _Address(json.loads(self._ready.read_bytes())["port"], headers)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


def _ask(at: _Address, method: str, path: str, body: object = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=60)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), at.headers)
        response = connection.getresponse()
        answer = json.loads(response.read() or b"null")
    finally:
        connection.close()
    if response.status >= http.client.BAD_REQUEST:
        raise JobFailed(Code.INTERNAL, f"{method} {path}: {answer}")
    return answer


def _submit(at: _Address, number: int) -> str:
    strategy = _CONFIG["strategy"] | {"name": f"bench_{number + 1}"}
    answer = _ask(at, "POST", "/api/v1/backtest/run", _CONFIG | {"strategy": strategy})
    return str(answer["id"])


def _wait(at: _Address, ids: list[str]) -> None:
    deadline = time.monotonic() + _DONE_S
    for each in ids:
        while (status := _ask(at, "GET", f"/api/v1/backtest/{each}/status"))["status"] in ("queued", "running"):
            if time.monotonic() > deadline:
                raise JobFailed(Code.INTERNAL, f"backtest {each} is still {status['status']}")
            time.sleep(_POLL_S)
        if status["status"] != "completed":
            raise JobFailed(Code.INTERNAL, f"backtest {each} {status['status']}: {status['error']}")


def _watch(at: _Address, answers: list[float], is_over: threading.Event) -> None:
    """Ask for the daemon's health over and over on one connection, as a supervisor would."""
    answers.extend(_healths(at, is_over))


def _healths(at: _Address, is_over: threading.Event) -> Iterator[float]:
    connection = http.client.HTTPConnection("127.0.0.1", at.port, timeout=60)
    try:
        while not is_over.is_set():
            start = time.perf_counter()
            connection.request("GET", "/health", headers=at.headers)
            connection.getresponse().read()
            yield time.perf_counter() - start
            time.sleep(_POLL_S / 2)
    finally:
        connection.close()
