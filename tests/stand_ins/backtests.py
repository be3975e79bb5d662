"""Backtests without an engine: what one does is its name, such as `steps 20 0.01`, so that tests can meet it at work.

    steps N S     N steps of S seconds with a checkpoint and progress after each
    rows N        N rows of equity
    stubborn S    S seconds without a checkpoint
    fails         an error of ours
    raises        a defect
    dies          the process ends

Each writes its id to `started.txt` beside the store when it begins.
"""

import os
import time
import typing
from pathlib import Path

import msgspec
import numpy as np

from daemon.core.backtest import BacktestSpec, Costs, Market, Rules
from daemon.core.errors import Code, NotFound
from daemon.core.market import Instrument, Timeframe
from daemon.research import backtest_result as shown
from daemon.research.backtest_records import BacktestJob, BacktestOutcome, BacktestProgress, packed
from daemon.research.jobs import JobRunner
from daemon.research.trials import Trial
from daemon.store.backtests import ColumnSpool

BTC = Instrument("local", "BTC/USDT")
FIRST_NS = 1_700_000_000_000_000_000


class Runner(JobRunner):
    """Probes as ever; backtests as their names say."""

    def run(self, job, progress, checkpoint):
        if not isinstance(job, BacktestJob):
            return super().run(job, progress, checkpoint)
        spool = Path(job.spool)
        with (spool.parent.parent / "started.txt").open("a") as file:
            file.write(job.backtest_id + "\n")
        verb, *words = job.spec.name.split()
        rows = 0
        match verb:
            case "steps":
                steps, seconds = int(words[0]), float(words[1])
                for step in range(steps):
                    time.sleep(seconds)
                    checkpoint()
                    progress(BacktestProgress((step + 1) / steps, FIRST_NS + step, 1_000 * (step + 1)))
            case "rows":
                rows = int(words[0])
            case "stubborn":
                time.sleep(float(words[0]))
            case "fails":
                raise NotFound(Code.NO_BARS, "no bars any more")
            case "raises":
                raise ZeroDivisionError("a defect")
            case "dies":
                os._exit(7)
        with ColumnSpool(spool) as columns:
            columns.add("equity", {"time_ns": FIRST_NS + np.arange(rows), "equity": np.arange(rows) / 3})
        return packed(BacktestOutcome(result(job), columns.parts, a_try(job)))


def read_config(config, *_):
    """Read the simplest of configurations: a name."""
    return spec(config["name"])


def spec(name, source=Timeframe.MIN_1, **fields):
    market = Market(BTC, source, tick_size=0.01)
    costs = Costs(maker_rate=0.001, taker_rate=0.001)
    return BacktestSpec(
        name=name, markets=(market,), **({"timeframe": Timeframe.MIN_1, "program": Rules(), "costs": costs} | fields)
    )


def started(env):
    """Ids in the order in which they were begun."""
    return (env.path.parent / "started.txt").read_text().split()


def result(job):
    """A result in which little is true."""
    return filled(
        shown.BacktestResult,
        id=job.backtest_id,
        name=job.spec.name,
        status="completed",
        fingerprint=f"of {job.spec.name}",
        notes=["a note"],
        metrics=filled(shown.Metrics, total_return_percent=1.2, sharpe_ratio=0.7, max_drawdown_percent=0.5),
        trade_stats=filled(shown.TradeStats, total_trades=3),
        execution=shown.Execution(started_at=0, events_processed=4_000),
    )


def a_try(job):
    """What the ledger counts of it."""
    return Trial("idea", f"of {job.spec.name}", job.spec.name, 0.1, 30, 1.2, 0)


def filled(struct, **fields):
    """A part of a result with these fields, and with nothing in all others that it must have."""
    nothing = {float: 0.0, int: 0, str: "", bool: False}
    for field in msgspec.structs.fields(struct):
        if field.required and field.name not in fields:
            kind = typing.get_origin(field.type) or field.type
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                fields[field.name] = filled(kind)
            else:
                fields[field.name] = kind() if kind in (list, dict) else nothing.get(kind)
    return struct(**fields)
