"""What is warmed up is all that is used: whoever waited for it never waits for a kernel again."""

import json
import os
import subprocess
import sys
from pathlib import Path

from daemon.core.market import NS_PER_DAY, Instrument, Timeframe
from daemon.engine.synthetic import MarketModel, simulate
from daemon.research import strategies
from daemon.research.backtest_job import run_backtest
from daemon.research.backtest_records import BacktestJob
from daemon.research.optimization.records import OptimizationJob
from daemon.research.optimization.request import OptimizationRequest, planned
from daemon.research.optimization.search import optimize
from daemon.research.parameters import read_specification
from daemon.research.warmup import warm_all, warmth
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

ROOT = Path(__file__).parents[2]
CONFIG = {
    "strategy": {
        "name": "dips",
        "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 35}],
        "exitRules": [{"type": "take_profit", "value": 0.02}, {"type": "stop_loss", "value": 0.02}],
    },
    "backtest": {"symbols": "A"},
    "validation": {
        "walkForward": True,
        "windowSize": 20,
        "stepSize": 10,
        "monteCarlo": {"enabled": True, "iterations": 10},
        "sensitivity": True,
    },
}


def test_a_validated_backtest_and_an_optimisation_use_no_kernel_that_is_not_warm(compiled_anew, tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(compiled_anew.cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__, tmp_path],
        capture_output=True, text=True, check=False, timeout=200, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["judged"] == [3, 4, 27, 7]
    loaded, compiled = said["warm"]
    assert loaded > 0
    assert compiled == 0  # the second start of a machine
    assert said["afterwards"] == [loaded, compiled]


def warm_then_work(folder):
    """Say what was loaded and compiled before work and after it, and how much work it was."""
    book = strategies.load([ROOT / "strategies.json"])
    warm = warm_all(book)
    bars = simulate(MarketModel(), seed=1, start_ns=19_000 * NS_PER_DAY, bars=50 * 24, timeframe=Timeframe.HOUR_1)
    with Environment(folder / "data", StoreConfig(sync=False)) as env:
        store = BarStore(env)
        env.write(
            lambda transaction: store.merge(transaction, Instrument("x", "A"), Timeframe.HOUR_1, bars, replace=False)
        )
        job = BacktestJob("b", read_specification(CONFIG, store, book, {}), str(folder / "spool"), CONFIG)
        result = run_backtest(store, job, lambda _: None, lambda: None, book).result
        plan = planned(OptimizationRequest(config=CONFIG), store, book, {})
        found = optimize(store, OptimizationJob("o", plan, {}), lambda _: None, lambda: None, book)
    judged = [
        len(result.walk_forward.folds),
        len(result.monte_carlo.methods),
        found.points,
        len(result.sensitivity),
    ]
    assert result.overfitting is not None
    assert found.overfitting is not None
    return {"warm": warm, "afterwards": warmth(), "judged": judged}


if __name__ == "__main__":
    json.dump(warm_then_work(Path(sys.argv[1])), sys.stdout)
