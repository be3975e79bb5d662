"""How quickly the API answers and tells: a daemon's server here, its clients in a second process.

The server is the daemon's own, over a store of its own and without jobs, so that events can be made at will. Where the
cores are to be busy, processes of the workers' priority do nothing but spend time.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import msgspec
import psutil

from daemon.app.resources_used import ResourcesUsed
from daemon.app.stores import open_store
from daemon.app.tokens import TokenFile
from daemon.core.bus import Bus
from daemon.core.errors import Code, JobFailed
from daemon.core.events import BacktestFailed, BacktestProgressed
from daemon.research.backtests import Backtests
from daemon.research.executors import ThreadExecutor
from daemon.research.jobs import JobRunner
from daemon.research.monte_carlos import MonteCarlos
from daemon.research.optimizations import Optimizations
from daemon.research.runs import Runs
from daemon.store.env import Environment, StoreConfig
from daemon.store.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.api.services import Services
    from daemon.research.strategies import RuleBook

_METHOD: Final = "status"
_PAUSE_S: Final = 0.005
_EVENT_PAUSE_S: Final = 0.002
_CLIENTS: Final = 100
_IDLE: Final = 1_000
_SPARE_FILES: Final = 100
_LONG_TEXT: Final = "x" * 4_000
_STALLING: Final = 3_000
_SETTLED_S: Final = 0.2
_ROUNDS: Final = 3
_MIB: Final = 1 << 20
_DONE_S: Final = 30.0
_BURN: Final = "import os\nif hasattr(os, 'nice'): os.nice(10)\nwhile True: pass"


class Sizes(NamedTuple):
    """How much of everything. events: told to a hundred clients each. delayed: timed beside a client that stalls."""

    requests: int
    paced: int
    events: int
    delayed: int


def bench_api(book: RuleBook, seconds: float) -> dict[str, float]:
    """Measure; each part takes about so many seconds. JobFailed INTERNAL where the clients fail.

    Round trips are requests of `status`. paced_busy: one each 5 ms while as many processes as there are cores burn
    time at the workers' priority. deliveries: facts to a hundred clients, from the first append to the last arrival.
    idle: what a thousand connections add to the resident memory. slow_client_delay: how much later events reach a
    client at the 99th percentile because another one does not read.
    """
    from daemon.api.server import serve

    sizes = Sizes(
        requests=int(5_000 * seconds),
        paced=int(seconds / _PAUSE_S),
        events=int(500 * seconds),
        delayed=int(seconds / 2 / _EVENT_PAUSE_S),
    )
    figures: dict[str, float] = {}
    failures: list[BaseException] = []
    with tempfile.TemporaryDirectory() as folder, _services(Path(folder), book) as services:

        def measure(port: int) -> None:
            try:
                figures.update(_measured(services, port, TokenFile(Path(folder)).ensure(), sizes))
            except BaseException as error:  # noqa: BLE001 - raised again on the thread that waits for the server
                failures.append(error)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)  # as a user ends a daemon

        def ready(_host: str, port: int) -> None:
            threading.Thread(target=measure, args=(port,)).start()

        serve(services, ready)
    if failures:
        raise failures[0]
    return figures


@contextmanager
def _services(folder: Path, book: RuleBook) -> Iterator[Services]:
    """Build what a daemon has, on threads that have nothing to do."""
    from daemon.api.auth import Access
    from daemon.api.limits import JobStarts
    from daemon.api.services import Services
    from daemon.api.settings import HttpConfig

    token = TokenFile(folder)
    token.ensure()
    sys.setswitchinterval(0.001)  # as `serve` does
    with Environment(folder, StoreConfig()) as env:
        store = open_store(env)
        executor = ThreadExecutor(lambda: JobRunner(store.bars, book), 1)
        journal = Journal(env, lambda: time.time_ns() // 1_000_000)
        runs = Runs(env, store.bars, book, {}, executor)
        backtests = Backtests(env, store.bars, book, {}, executor)
        optimizations = Optimizations(env, store.bars, book, {}, executor)
        try:
            yield Services(
                env=env,
                bars=store.bars,
                ticks=store.ticks,
                book=book,
                runs=runs,
                backtests=backtests,
                optimizations=optimizations,
                monte_carlos=MonteCarlos(env, backtests, executor),
                bus=Bus(),
                journal=journal,
                feeds=list,
                config=HttpConfig(port=0),
                access=Access(token.current),
                starts=JobStarts(10),
                resources=ResourcesUsed(store),
            )
        finally:
            for each in (runs, backtests, optimizations, journal):
                each.close()


class _Clients:
    """The second process."""

    def __init__(self, port: int, token: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "daemon.app.bench_api_client"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._write({"port": port, "token": token})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def order(self, do: str, **options: Any) -> None:
        """Have something done; `result` waits for it."""
        self._write({"do": do, **options})

    def result(self) -> dict[str, float]:
        """Wait for what was ordered last."""
        line = b"" if self._process.stdout is None else self._process.stdout.readline()
        answer: dict[str, Any] = msgspec.json.decode(line) if line else {"error": "the clients' process ended"}
        if "error" in answer:
            raise JobFailed(Code.INTERNAL, f"the bench's clients failed: {answer['error']}")
        return answer

    def do(self, do: str, **options: Any) -> dict[str, float]:
        """Have something done, and wait for it."""
        self.order(do, **options)
        return self.result()

    def _write(self, content: dict[str, Any]) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(msgspec.json.encode(content) + b"\n")
            self._process.stdin.flush()


def _measured(services: Services, port: int, token: str, sizes: Sizes) -> dict[str, float]:
    figures: dict[str, float] = {}
    with _Clients(port, token) as clients:
        clients.do("round_trips", count=200, pause_s=0.0, method=_METHOD)
        for name, value in clients.do("round_trips", count=sizes.requests, pause_s=0.0, method=_METHOD).items():
            figures[f"round_trip_{name}"] = round(value, 3)
        with _busy_cores():
            for name, value in clients.do("round_trips", count=sizes.paced, pause_s=_PAUSE_S, method=_METHOD).items():
                figures[f"paced_busy_{name}"] = round(value, 3)
        figures["pipelined_requests_per_s"] = round(
            clients.do("pipelined", count=4 * sizes.requests, method=_METHOD)["per_s"]
        )
        figures |= _deliveries(services, clients, sizes.events)
        figures |= _delays(services, clients, sizes.delayed)
        figures |= _idle(clients)
    return figures


@contextmanager
def _busy_cores() -> Iterator[None]:
    burning = [subprocess.Popen([sys.executable, "-c", _BURN]) for _ in range(os.cpu_count() or 1)]  # noqa: S603
    try:
        time.sleep(0.3)
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def _deliveries(services: Services, clients: _Clients, events: int) -> dict[str, float]:
    clients.do("open", count=_CLIENTS, events=["backtest:error"])
    clients.order("receive", frames=events)
    begin_s = time.monotonic()
    for number in range(events):
        services.journal.append(BacktestFailed(id=str(number), error="a fact of usual length", code="INTERNAL"))
    took_s = clients.result()["done_s"] - begin_s
    clients.do("close")
    return {"delivery_clients": _CLIENTS, "deliveries_per_s": round(_CLIENTS * events / took_s)}


def _delays(services: Services, clients: _Clients, events: int) -> dict[str, float]:
    """Time events to a client that is alone, and to one beside another that reads nothing, in turn."""
    p99_ms: tuple[list[float], list[float]] = ([], [])
    for stalled in (0, 1) * _ROUNDS:
        clients.do("open", count=stalled + 1, events=["backtest:progress"])
        clients.order("delays", count=events, stalled=stalled)
        for number in range(_STALLING):  # more than the system takes for a client that does not read
            services.bus.publish(_stamped(f"before {number}", None))
            if number % _CLIENTS == 0:
                time.sleep(_PAUSE_S)
        time.sleep(_SETTLED_S)
        for number in range(events):
            services.bus.publish(_stamped(str(number), time.monotonic_ns()))
            time.sleep(_EVENT_PAUSE_S)
        p99_ms[stalled].append(clients.result()["p99_ms"])
        clients.do("close")
    alone, beside = (statistics.median(each) for each in p99_ms)
    return {
        "event_delay_p99_ms": round(alone, 3),
        "event_delay_beside_slow_client_p99_ms": round(beside, 3),
        "slow_client_delay_ms": round(max(beside - alone, 0.0), 3),
    }


def _stamped(run_id: str, time_ns: int | None) -> BacktestProgressed:
    return BacktestProgressed(id=run_id, status="running", progress=0.0, current_timestamp=time_ns, error=_LONG_TEXT)


def _idle(clients: _Clients) -> dict[str, float]:
    count = min(_IDLE, _spare_files())
    process = psutil.Process()
    before = process.memory_info().rss
    clients.do("open", count=count, events=None)
    grown = process.memory_info().rss - before
    clients.do("close")
    return {"idle_connections": count, "idle_memory_mb": round(grown / _MIB, 1)}


def _spare_files() -> int:
    """Raise the limit of open files as far as it goes; returns how many more connections fit."""
    if sys.platform == "win32":
        return _IDLE
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _IDLE + 2 * _SPARE_FILES
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    open_files: int = psutil.Process().num_fds()
    return soft - open_files - _SPARE_FILES
