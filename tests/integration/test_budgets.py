"""Code that nobody has checked, in real workers: it is killed when its time or memory is up, and the next job runs."""

import os
import sys
import threading
import time

import psutil
import pytest
from stand_ins import own

from daemon.core.errors import Code, JobFailed
from daemon.research.backtests import Backtests
from daemon.research.budgets import Budget, Watch
from daemon.research.executors import ProcessExecutor, ThreadExecutor
from daemon.research.optimization.records import OptimizationJob, Optimized
from daemon.research.strategies import RuleBook
from daemon.research.worker import WorkerSetup
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

CONFIG = StoreConfig(sync=False)
MIB = 1 << 20
BUDGET = Budget(600.0, 48 * MIB)
SHORT = Budget(0.5, 48 * MIB)
PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def _configurations_are_names(monkeypatch):
    monkeypatch.setattr("daemon.research.backtests.read_specification", own.read_config)


def service(env, executor):
    backtests = Backtests(env, BarStore(env), RuleBook(()), {}, executor, budget=BUDGET)
    backtests.spool, backtests.executor = env.path.parent / "spool", executor
    return backtests


@pytest.fixture(scope="module")
def backtests(tmp_path_factory):
    """The service over one worker process."""
    with Environment(tmp_path_factory.mktemp("budgets") / "data", CONFIG) as env:
        executor = ProcessExecutor(WorkerSetup(env.path.parent, CONFIG, (), own.Runner), 1)
        executor.start()
        made = service(env, executor)
        yield made
        made.close()


def ended(backtests, name, **fields):
    backtest_id = backtests.submit({"name": name, **fields}).id
    assert backtests.wait(backtest_id, PATIENCE_S), backtests.status(backtest_id)
    return backtests.status(backtest_id)


def failed(backtests, name, code):
    """Run what fails with this code, and see that nothing is left of it and that the next one completes."""
    with pytest.MonkeyPatch.context() as patch:
        if code == "STRATEGY_TIMEOUT":  # else no test fails for being slow on a busy machine
            patch.setattr(backtests, "_budget", SHORT)
        status = ended(backtests, name)
    assert (status.status, status.error_code) == ("failed", code), status.error
    assert list(backtests.spool.iterdir()) == []
    assert ended(backtests, "pid").status == "completed"
    return status


def worker(backtests):
    """Number of the process that does the next job."""
    return ended(backtests, "pid").events_processed


def check_that_time_ends(backtests, name):
    before = worker(backtests)
    status = failed(backtests, name, "STRATEGY_TIMEOUT")
    assert 500 <= status.completed_at - status.started_at < 10_000
    assert "the strategy has run for " in status.error
    assert "s and may take 0.5 s: look for a loop" in status.error
    assert "raise strategies.seconds" in status.error
    assert worker(backtests) != before


def test_a_strategy_that_loops_for_ever_is_killed_when_its_time_is_up(backtests):
    check_that_time_ends(backtests, "loops")


def test_a_strategy_that_leaks_is_killed_when_it_holds_more_than_its_budget(backtests):
    before = worker(backtests)
    status = failed(backtests, "leaks", "STRATEGY_MEMORY")
    assert "and may hold 48 MiB: " in status.error
    assert "raise strategies.memory_mb" in status.error
    assert worker(backtests) != before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts private memory against a limit")
def test_a_strategy_that_grabs_more_than_there_may_be_is_refused_it_and_its_worker_lives_on(backtests):
    before = worker(backtests)
    status = failed(backtests, "grabs", "STRATEGY_MEMORY")
    assert "asked for more memory than it may, and may hold 48 MiB: " in status.error
    status = failed(backtests, "grabs_itself 1", "STRATEGY_MEMORY")
    assert "48 MiB (market_maker.py, line 17, in on_timer: " in status.error
    assert status.error_traceback == ["market_maker.py, line 17, in on_timer: np.empty(1 << 27)"]
    assert worker(backtests) == before


def test_a_strategy_that_raises_at_its_thousandth_call_is_told_by_its_own_lines(backtests):
    before = worker(backtests)
    status = failed(backtests, "raises 1000", "STRATEGY_RAISED")
    assert status.error == "market_maker.py, line 14, in quote: ZeroDivisionError: division by zero"
    assert status.error_traceback == [
        "market_maker.py, line 11, in on_bar: self.quote()",
        "market_maker.py, line 14, in quote: 1 / 0",
    ]
    assert worker(backtests) == before


@pytest.mark.parametrize("error", [OSError("no space"), JobFailed(Code.STORE_FULL, "no space")])
def test_what_a_job_says_after_its_listener_failed_is_not_taken_for_the_next_jobs(backtests, error):
    def fails(_):
        raise error

    first = backtests.executor.submit(OptimizationJob("points", None, {}, BUDGET), fails, threading.Event())
    code = Code.INTERNAL if isinstance(error, OSError) else Code.STORE_FULL
    assert first.exception(PATIENCE_S).code is code
    assert isinstance(worker(backtests), int)


def test_an_optimisation_has_its_time_for_every_point(backtests, monkeypatch):
    restarts = []

    class Counted(Watch):
        def restart(self):
            restarts.append(1)
            super().restart()

    monkeypatch.setattr("daemon.research.processes.Watch", Counted)
    told = []
    job = OptimizationJob("points", None, {}, BUDGET)
    assert isinstance(backtests.executor.submit(job, told.append, threading.Event()).result(PATIENCE_S), Optimized)
    assert len(told) == len(restarts) > 0


def test_a_strategy_that_does_not_listen_is_cancelled_within_seconds(backtests, monkeypatch):
    monkeypatch.setattr("daemon.research.processes._CANCEL_OWN_S", 0.2)
    backtest_id = backtests.submit({"name": "ignores 600"}).id
    while backtests.status(backtest_id).status != "running":
        time.sleep(0.002)
    began = time.monotonic()
    assert backtests.cancel(backtest_id).status == "cancelled"
    assert time.monotonic() - began < 10
    assert list(backtests.spool.iterdir()) == []


def test_threads_leave_code_that_nobody_has_checked_to_a_process(tmp_path):
    with Environment(tmp_path / "data", CONFIG) as env:
        setup = WorkerSetup(env.path.parent, CONFIG, (), own.Runner)
        executor = ThreadExecutor(lambda: own.Runner(BarStore(env), None), 1, None, setup)
        backtests = service(env, executor)
        try:
            assert ended(backtests, "pid", trusted=True).events_processed == os.getpid()
            assert worker(backtests) != os.getpid()
            check_that_time_ends(backtests, "spins")
            process = worker(backtests)
        finally:
            backtests.close()
        assert not psutil.pid_exists(process)


def test_threads_without_a_process_refuse_code_that_nobody_has_checked(tmp_path):
    with Environment(tmp_path / "data", CONFIG) as env:
        backtests = service(env, ThreadExecutor(lambda: own.Runner(BarStore(env), None), 1))
        assert ended(backtests, "pid").error_code == "INTERNAL"
        backtests.close()
