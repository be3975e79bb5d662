"""`atlasd bench`: the figures of the README, measured where you are.

Every bench returns one flat mapping with units in its keys; times are medians of warm passes on one core.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import psutil

from daemon.core.market import NS_PER_DAY, Instrument, Timeframe
from daemon.engine import conditions, probe
from daemon.engine.columns import ATR, GROUPS
from daemon.engine.indicators import TALIB_GROUPS, IndicatorColumns
from daemon.engine.program import compile_strategies
from daemon.engine.synthetic import MarketModel, simulate
from daemon.research.jobs import JobRunner
from daemon.research.plans import ProbeJob
from daemon.store import results
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from daemon.core.market import Bars
    from daemon.core.strategy import RiskProfile
    from daemon.research.strategies import RuleBook

_SEED: Final = 20_240_101
_START_NS: Final = 19_000 * NS_PER_DAY
_ENOUGH_S: Final = 2.0
_MOST_PASSES: Final = 25
_MIB: Final = 1 << 20


class Stopwatch:
    """Milliseconds by stage, one entry a pass."""

    def __init__(self) -> None:
        self.passes: dict[str, list[float]] = defaultdict(list)

    def measure(self, stage: str) -> AbstractContextManager[None]:
        """Time a `with` block."""
        from contextlib import contextmanager

        @contextmanager
        def timed() -> Iterator[None]:
            start = time.perf_counter()
            yield
            self.passes[stage].append((time.perf_counter() - start) * 1e3)

        return timed()

    def median(self, stage: str) -> float:
        """Median of the warm passes; the first is warm-up."""
        return round(statistics.median(self.passes[stage][1:]), 2)


def bench_probe(book: RuleBook, profiles: Mapping[str, RiskProfile], bar_count: int) -> dict[str, float]:
    """Probe one synthetic hourly series with every strategy and profile, stage by stage.

    talib_ms: TA-Lib's share of indicators_ms. store_ms: encoding and one durable commit. cold_s: the first pass, with
    loading or compiling the kernels. peak_rss_mb: of this process, MiB.
    """
    bars = simulate(MarketModel(), seed=_SEED, start_ns=_START_NS, bars=bar_count, timeframe=Timeframe.HOUR_1)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder, Environment(Path(folder), StoreConfig()) as env:
        passes = _Passes(env, bars, book, profiles, watch)
        began = time.perf_counter()
        trades = passes.run(0)
        cold_s = time.perf_counter() - began
        deadline = time.perf_counter() + _ENOUGH_S
        for number in range(1, _MOST_PASSES):
            passes.run(number)
            if time.perf_counter() > deadline and number > 1:
                break
    stages = ("talib", "indicators", "conditions", "kernel", "aggregation", "store", "total")
    memory = psutil.Process().memory_info()
    return {
        "bars": bar_count,
        "combinations": len(book) * len(profiles),
        "trades": trades,
        **{f"{stage}_ms": watch.median(stage) for stage in stages},
        "cold_s": round(cold_s, 3),
        "peak_rss_mb": round(peak_rss_bytes(memory.rss) / _MIB, 1),
    }


class _Passes:
    """One pass is what a job does, taken apart."""

    def __init__(
        self,
        env: Environment,
        bars: Bars,
        book: RuleBook,
        profiles: Mapping[str, RiskProfile],
        watch: Stopwatch,
    ) -> None:
        self._env = env
        self._bars = bars
        self._watch = watch
        self._strategies = list(book)
        self._program = compile_strategies(self._strategies)
        pairs = [(place, name) for place in range(len(self._strategies)) for name in profiles]
        self._combinations = probe.combine(self._strategies, [(place, profiles[name]) for place, name in pairs])
        self._job = ProbeJob(
            run_id="bench",
            instrument=Instrument("synthetic", "BENCH"),
            timeframe=Timeframe.HOUR_1,
            source=Timeframe.HOUR_1,
            start_ns=None,
            stop_ns=None,
            period=(None, None),
            combinations=[(self._strategies[place].id, name) for place, name in pairs],
            risk_profiles=dict(profiles),
            persist_trades=False,
            spool=str(env.path.parent / "bench.spool"),
        )
        store = BarStore(env)
        env.write(
            lambda transaction: store.merge(transaction, self._job.instrument, self._job.timeframe, bars, replace=False)
        )
        self._runner = JobRunner(store, book)

    def run(self, number: int) -> int:
        """Measure every stage once; returns how many trades there were."""
        watch = self._watch
        with watch.measure("talib"):
            columns = IndicatorColumns(self._bars)
            for group in TALIB_GROUPS:
                columns[GROUPS[group][0]]
        with watch.measure("indicators"):
            columns = IndicatorColumns(self._bars)
            for name in self._program.inputs:
                columns[name]
        with watch.measure("conditions"):
            signals = conditions.signals(self._program, columns)
        atr = np.asarray(columns[ATR])
        rules = self._program.strategy_signals
        trades, both_ms, aggregation_ms = 0, 0.0, 0.0
        began = time.perf_counter()
        for batch in probe.run(self._bars, atr, signals, rules, self._combinations):
            both_ms += (time.perf_counter() - began) * 1e3
            trades += batch.trades.side.size
            aggregation_ms += self._aggregate_again(batch)
            began = time.perf_counter()
        watch.passes["kernel"].append(both_ms - aggregation_ms)
        watch.passes["aggregation"].append(aggregation_ms)
        self._whole(number)
        return trades

    def _aggregate_again(self, batch: probe.Batch) -> float:
        """Time the aggregation of a batch: the engine has no clock of its own."""
        began = time.perf_counter()
        probe.group(batch.trades, self._bars, batch.summary.trades)
        return (time.perf_counter() - began) * 1e3

    def _whole(self, number: int) -> None:
        """Run the job as a worker does and store it as the writer does."""
        began = time.perf_counter()
        index = self._runner.run(self._job, lambda _: None, lambda: None)
        spool = Path(self._job.spool)
        self._env.write(lambda transaction: results.put_job(transaction, f"bench-{number}", index, spool))
        total_ms = (time.perf_counter() - began) * 1e3
        computed = ("indicators", "conditions", "kernel", "aggregation")
        self._watch.passes["total"].append(total_ms)
        self._watch.passes["store"].append(
            max(0.0, total_ms - sum(self._watch.passes[stage][-1] for stage in computed))
        )


def peak_rss_bytes(now: int) -> int:
    """Return the most memory this process ever held; where the system does not tell, what it holds now."""
    try:
        import resource
    except ImportError:  # Windows
        return now
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def own_peak_bytes() -> int:
    """Return the most memory that this process held since it began, without what it inherited of its parent's peak."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_rss_bytes(psutil.Process().memory_info().rss)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
