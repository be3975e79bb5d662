"""What single tests would wait long for, done beside the others: these keep to one core most of the time."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).parent
ROOT = TESTS.parent


class Beside:
    """Processes that run one after another."""

    def __init__(self):
        self._pool = ThreadPoolExecutor(1)
        self._running = None

    def begin(self, *command, **environment):
        """Run Python with these arguments; returns a future of the completed process."""
        return self._pool.submit(self._run, [sys.executable, *map(str, command)], os.environ | environment)

    def _run(self, command, environment):
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, env=environment) as process:
            self._running = process
            said = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, *said)

    def end(self):
        """Wait for nothing: a session may end before it asks for what it began."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._running is not None:
            self._running.kill()


class Compilation(NamedTuple):
    """What a process with an empty cache said after it compiled every kernel, and the cache it left.

    signatures: count by kernel. warmth: kernels loaded, and compiled.
    """

    cache: Path
    signatures: dict[str, int]
    warmth: tuple[int, int]


class Compiling:
    """A process that compiles every kernel into a cache of its own."""

    def __init__(self, beside, cache):
        self._cache = cache
        environment = {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
        self._done = beside.begin(TESTS / "unit" / "test_jit.py", **environment)

    def result(self):
        done = self._done.result()
        assert done.returncode == 0, done.stderr
        return Compilation(self._cache, **json.loads(done.stdout))

    def share(self, cache):
        """Give what was compiled to a cache that lacks it."""
        if self._done.result().returncode != 0:
            return
        for index in self._cache.rglob("*.nbi"):
            shared = cache / index.relative_to(self._cache)
            if not shared.exists():
                shared.parent.mkdir(parents=True, exist_ok=True)
                for code in index.parent.glob(f"{index.stem}.*.nbc"):
                    shutil.copy(code, shared.parent)
                shutil.copy(index, shared)


def is_cold(cache):
    return not any(cache.rglob("*.nbi"))
