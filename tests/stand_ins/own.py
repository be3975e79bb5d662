"""Strategies that nobody has checked, without an engine: what one does is its name, such as `leaks 1`.

    loops         for ever, in Python
    spins         for ever, in a compiled kernel without the interpreter's lock
    leaks         a MiB at a time, for ever
    grabs         more memory than it may have, at once
    raises N      at its Nth call, from its own file
    grabs_itself  as `grabs`, from its own file
    ignores N     N seconds, whatever is asked of it
    pid           nothing
    steps N S     as `backtests`

The events of a result are the number of the process that made it. Each leaves half a spool file behind.
"""

import os
import time
from pathlib import Path

import msgspec
import numba
import numpy as np
from stand_ins import backtests

from daemon.core.backtest import Own
from daemon.core.errors import AtlasError
from daemon.research.backtest_records import BacktestOutcome, packed
from daemon.research.optimization.records import OptimizationJob, OptimizationProgress, Optimized
from daemon.research.own.failing import strategy_failed

SOURCE = """
import numpy as np

class MarketMaker:
    def __init__(self, last):
        self.left = last

    def on_bar(self):
        self.left -= 1
        if self.left == 0:
            self.quote()

    def quote(self):
        1 / 0

    def on_timer(self):
        np.empty(1 << 27)
"""


def spec(name):
    """A specification whose program is code of the user's own."""
    return backtests.spec(name, program=Own("market_maker", "00"))


def read_config(config, *_):
    """Read the simplest of configurations: a name, of code of the user's own unless it says otherwise."""
    return backtests.spec(config["name"]) if config.get("trusted") else spec(config["name"])


class Runner(backtests.Runner):
    """Does what names say."""

    def __init__(self, bars, book):
        super().__init__(bars, book)
        self._spin = numba.njit("void(int64[::1])", nogil=True, cache=True)(spin)

    def run(self, job, progress, checkpoint):
        if isinstance(job, OptimizationJob):
            return points(progress)
        verb, *words = job.spec.name.split()
        if verb == "steps":
            return super().run(job, progress, checkpoint)
        spool = Path(job.spool)
        spool.parent.mkdir(exist_ok=True)
        spool.write_bytes(b"half")
        execution = backtests.shown.Execution(started_at=0, events_processed=self._do(verb, words, spool.parent.parent))
        result = msgspec.structs.replace(backtests.result(job), execution=execution)
        return packed(BacktestOutcome(result, [], backtests.a_try(job)))

    def _do(self, verb, words, folder):
        """Do what a name says; returns the number of this process."""
        match verb:
            case "loops":
                while True:
                    pass
            case "spins":
                self._spin(np.zeros(2, dtype=np.int64))
            case "leaks":
                kept = []
                while True:
                    kept.append(b"x" * (1 << 20))
                    time.sleep(0.002)
            case "grabs":
                np.empty(1 << 27)
            case "raises" | "grabs_itself":
                called(folder / "market_maker.py", verb, int(words[0]))
            case "ignores":
                until = time.monotonic() + float(words[0])
                while time.monotonic() < until:
                    pass
        return os.getpid()


def points(progress):
    """An optimisation of three points."""
    for done in (1, 2, 3):
        progress(OptimizationProgress(done / 3))
    return Optimized(b"", "")


def spin(flags):
    while flags[0] == 0:
        flags[1] += 1


def called(path, verb, calls):
    """Run a strategy's file, as the engine will: what it raises is told by its own lines."""
    path.write_text(SOURCE)
    try:
        names = {}
        exec(compile(path.read_text(), str(path), "exec"), names)  # noqa: S102 - the user's own code is what this is
        strategy = names["MarketMaker"](calls)
        for _ in range(2 * calls):
            strategy.on_bar() if verb == "raises" else strategy.on_timer()
    except AtlasError:
        raise
    except BaseException as error:
        raise strategy_failed(error, str(path)) from error
