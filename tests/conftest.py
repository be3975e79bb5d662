"""What tests of the whole program share: the real `atlasd`, kept out of the user's own folders."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filelock import FileLock
from hypothesis import settings

from daemon import KERNEL_CACHE  # before the folders move: nothing is compiled again

TESTS = Path(__file__).parent
SYNTHETIC = TESTS / "golden" / "synthetic"
ATLASD = (sys.executable, "-m", "daemon")
# Workers leave the cores to everybody else: where other tests keep these busy, a job takes its time.
_PATIENCE_S = 120.0

# No test fails for being slow on a busy machine.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Begun in the background of a shell: commands that tests start would ignore Ctrl-C as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _own_folders(tmp_path_factory):
    """No test reads the user's configuration or writes to the user's data."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(home / "config"))
        patch.setenv("XDG_DATA_HOME", str(home / "data"))
        patch.delenv("ATLASD_DATA_DIR", raising=False)
        yield


_KERNEL_FREE = {"adapters", "house"}
"""Folders of tests that need no kernels, or few."""


class Compilation(NamedTuple):
    """What a process said that compiled every kernel into an empty cache, and this cache.

    signatures: count by kernel. warmth: kernels loaded, and compiled.
    """

    cache: Path
    signatures: dict[str, int]
    warmth: tuple[int, int]


@pytest.fixture(scope="session")
def compiled_anew(tmp_path_factory):
    """Every kernel compiled into an empty cache, once for all workers: the cache of all tests where that is empty."""
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    said = session / "compiled.json"
    with FileLock(session / "compiled.lock"):
        if not said.exists():
            is_warm = any(KERNEL_CACHE.rglob("loop.step-*.nbi"))  # others may compile a small kernel meanwhile
            cache = session / "kernels" if is_warm else KERNEL_CACHE
            environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(TESTS.parent)}
            command = [sys.executable, TESTS / "unit" / "test_jit.py"]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            assert done.returncode == 0, done.stderr
            said.write_text(json.dumps({"cache": str(cache)} | json.loads(done.stdout)))
    found = json.loads(said.read_text())
    return Compilation(Path(found["cache"]), found["signatures"], tuple(found["warmth"]))


@pytest.fixture(scope="module", autouse=True)
def _kernels(request):
    """Where all tests run, kernels are compiled before the first one that may need them: a daemon starts in seconds.

    None may be called with arguments of several types: that compiles it again, for a minute, wherever it happens.
    """
    is_asked_for = any("compiled_anew" in item.fixturenames for item in request.session.items)
    if is_asked_for and _KERNEL_FREE.isdisjoint(request.path.parts):
        request.getfixturevalue("compiled_anew")
    yield
    if (jit := sys.modules.get("daemon.engine.jit")) is not None:
        assert [kernel for kernel in jit.KERNELS if len(kernel.signatures) > 1] == []


def pytest_collection_modifyitems(items):
    """Let one process compile at once, and the other do first what needs no kernels; then the largest files first."""
    sizes = Counter(item.path for item in items)

    def place(item):
        turn = 0 if item.path.name == "test_jit.py" else 1 if _is_kernel_free(item.path) else 2
        return turn, -sizes[item.path], str(item.path)

    items.sort(key=place)


def _is_kernel_free(path):
    return not _KERNEL_FREE.isdisjoint(path.parts)


@pytest.fixture(scope="session")
def cli():
    """Run `atlasd` with these arguments to its end."""

    def run(*arguments, **options):
        command = [*ATLASD, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)

    return run


@pytest.fixture
def atlasd_inside(capsys, monkeypatch):
    """Run `atlasd` inside this process: the same program, for the many cases that differ by a word."""
    from daemon.app.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["atlasd", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main.run()
        return subprocess.CompletedProcess(sys.argv, ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def bars_files():
    """Files of 1,500 bars by symbol and timeframe; both start at 2024-01-01T00:00Z."""
    return {
        ("SYNA", "15Min"): SYNTHETIC / "bars-SYNA_15Min.csv.gz",
        ("SYNB", "1Hour"): SYNTHETIC / "bars-SYNB_1Hour.csv.gz",
    }


@pytest.fixture(scope="session")
def long_file(tmp_path_factory):
    """A file of 200,000 one-minute bars: long enough to meet a run at work."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from daemon.core.market import NS_PER_DAY, Timeframe
    from daemon.engine.synthetic import MarketModel, simulate

    bars = simulate(MarketModel(), seed=1, start_ns=19_000 * NS_PER_DAY, bars=200_000, timeframe=Timeframe.MIN_1)
    times = pa.array(bars.start_ns).cast(pa.timestamp("ns", tz="UTC"))
    path = tmp_path_factory.mktemp("long") / "long.parquet"
    pq.write_table(pa.table({"timestamp": times, **dict(zip(bars._fields[1:], bars[1:], strict=True))}), path)
    return path


class Answer(NamedTuple):
    """An HTTP answer; body: decoded JSON, None where there is none."""

    status: int
    headers: http.client.HTTPMessage
    body: Any


class Daemon:
    """A running `atlasd serve` over a data folder."""

    def __init__(self, folder, *options):
        self.folder = folder
        self.ready_file = folder.parent / f"{folder.name}-ready.json"
        if "--config" not in options:
            # Workers are started for seconds of a core each, and few tests need a second one.
            alone = folder.parent / f"{folder.name}-alone.toml"
            alone.write_text("[workers]\ncount = 1\n")
            options = (*options, "--config", alone)
        command = [*ATLASD, "serve", "--port", "0", "--data-dir", folder, "--ready-file", self.ready_file, *options]
        self.complaints = folder.parent / f"{folder.name}-stderr.txt"
        with self.complaints.open("w") as stderr:
            self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=stderr, text=True)
        self.ready_line = self.process.stdout.readline()
        if not self.ready_line:
            self.end()
            pytest.fail(f"the daemon ended before it was ready: {self.complaints.read_text()}")
        self.ready = json.loads(self.ready_file.read_text())

    @property
    def token(self):
        return (self.folder / "token").read_text().strip()

    @property
    def bearer(self):
        """The headers that show the token, for requests that are not made by `request`."""
        return {"Authorization": f"Bearer {self.token}"}

    def request(self, method, path, body=None, headers=None, *, token=...):
        """Send a request; body: raw bytes, or whatever JSON can say; token: another one, or None to show none.

        One that the daemon has no time for is sent again when it says so, unless the token is given.
        """
        while True:
            answer = self._request(method, path, body, headers, token)
            if answer.status != 429 or token is not ...:
                return answer
            time.sleep(answer.body["error"]["details"]["retry_after_s"])

    def _request(self, method, path, body, headers, token):
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} if content is not None else {}
        given |= self.bearer if token is ... else {} if token is None else {"Authorization": f"Bearer {token}"}
        connection = http.client.HTTPConnection("127.0.0.1", self.ready["port"], timeout=_PATIENCE_S)
        try:
            connection.request(method, path, content, given | (headers or {}))
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        return Answer(response.status, response.headers, json.loads(answer) if answer else None)

    def run_status(self, run_id):
        return self.request("GET", f"/api/v1/runs/{run_id}").body

    def start_run(self, **fields):
        """Start a run over HTTP; returns its id."""
        answer = self.request("POST", "/api/v1/runs", fields)
        assert answer.status == 202, answer.body
        return answer.body["run_id"]

    def wait(self, run_id, until=lambda run: run["status"] not in ("queued", "running")):
        """Poll a run until it has ended, or is as asked; returns its last state."""
        deadline = time.monotonic() + _PATIENCE_S
        while not until(run := self.run_status(run_id)):
            assert time.monotonic() < deadline, run
            time.sleep(0.005)
        return run

    def finish_run(self, **fields):
        run = self.wait(self.start_run(**fields))
        assert run["status"] == "completed", run["error"]
        return run

    def rows(self, path, **query):
        """All rows of one answer to a list's route."""
        answer = self.request("GET", f"{path}?" + "&".join(f"{name}={value}" for name, value in query.items()))
        assert answer.status == 200, answer.body
        return answer.body["results"]

    def workers(self):
        """The worker processes, without multiprocessing's own helper."""
        import psutil

        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a zombie as well
                if any("spawn_main" in word for word in child.cmdline()):
                    found.append(child)
        return found

    def end(self, number=signal.SIGTERM):
        """Send a signal; returns the exit code and the seconds that took."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(_PATIENCE_S)
        self.process.stdout.close()
        return code, time.monotonic() - began


@pytest.fixture(scope="session")
def serve():
    """Start a daemon over a folder; those that still run at the end are stopped."""
    started = []

    def start(folder, *options):
        started.append(Daemon(folder, *options))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.end()


@pytest.fixture(scope="session")
def threads(tmp_path_factory):
    """Options of a daemon that starts no workers, for tests of what these have no part in: it ends at once."""
    config = tmp_path_factory.mktemp("threads") / "config.toml"
    config.write_text('[workers]\nexecutor = "threads"\n')
    return "--config", config


@pytest.fixture(scope="module")
def daemon(serve, cli, bars_files, tmp_path_factory):
    """A daemon that has the small bars, shared by a module's tests."""
    folder = tmp_path_factory.mktemp("daemon") / "data"
    started = serve(folder)
    for (symbol, timeframe), path in bars_files.items():
        imported = cli("import", "bars", path, "--symbol", symbol, "--timeframe", timeframe, "--data-dir", folder)
        assert imported.returncode == 0, imported.stderr
    yield started
    if started.process.poll() is None:
        started.end()


@pytest.fixture(scope="session")
def stored_values():
    """A run's values in the results database, by key without the run's id."""
    from daemon.store import keys
    from daemon.store.env import Environment, StoreConfig

    def read(folder, run_id):
        prefix = keys.job(run_id)
        with Environment(folder, StoreConfig(), readonly=True) as env, env.read() as transaction:
            return {key[len(prefix) :]: bytes(value) for key, value in transaction.scan("results", prefix)}

    return read
