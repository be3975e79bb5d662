"""Code that nobody has checked, in real workers: it is killed when its time or memory is up, and the next job runs."""

import os
import time

import pytest
from stand_ins import own

from daemon.research.backtests import Backtests
from daemon.research.budgets import Budget
from daemon.research.executors import ProcessExecutor, ThreadExecutor
from daemon.research.worker import WorkerSetup
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

CONFIG = StoreConfig(sync=False)
MIB = 1 << 20
BUDGET = Budget(0.5, 48 * MIB)
PATIENCE_S = 30.0


@pytest.fixture(autouse=True)
def _configurations_are_names(monkeypatch):
    monkeypatch.setattr("daemon.research.backtests.read_specification", own.read_config)


@pytest.fixture(scope="module")
def backtests(tmp_path_factory):
    """The service over one worker process."""
    with Environment(tmp_path_factory.mktemp("budgets") / "data", CONFIG) as env:
        executor = ProcessExecutor(WorkerSetup(env.path.parent, CONFIG, (), own.Runner), 1)
        executor.start()
        backtests = Backtests(env, BarStore(env), None, {}, executor, budget=BUDGET)
        backtests.folder = env.path.parent
        yield backtests
        backtests.close()


def ended(backtests, name, **fields):
    backtest_id = backtests.submit({"name": name, **fields}).id
    assert backtests.wait(backtest_id, PATIENCE_S), backtests.status(backtest_id)
    return backtests.status(backtest_id)


def failed(backtests, name, code):
    """Run what fails with this code, and see that nothing is left of it and that the next one completes."""
    status = ended(backtests, name)
    assert (status.status, status.error_code) == ("failed", code), status.error
    assert list((backtests.folder / "spool").iterdir()) == []
    assert ended(backtests, "pid").status == "completed"
    return status


def worker(backtests):
    """Number of the process that does the next job."""
    return ended(backtests, "pid").events_processed


@pytest.mark.parametrize("name", ["loops", "spins"])
def test_a_strategy_that_loops_for_ever_is_killed_when_its_time_is_up(backtests, name):
    before = worker(backtests)
    status = failed(backtests, name, "STRATEGY_TIMEOUT")
    assert 500 <= status.completed_at - status.started_at < 2_500
    assert "its strategy has run for 0." in status.error
    assert "may take 0.5 s" in status.error
    assert "raise strategies.seconds" in status.error
    assert worker(backtests) != before


def test_a_strategy_that_leaks_is_killed_when_it_holds_more_than_its_budget(backtests):
    before = worker(backtests)
    status = failed(backtests, "leaks", "STRATEGY_MEMORY")
    assert "and may hold 48 MiB: " in status.error
    assert "raise strategies.memory_mb" in status.error
    assert worker(backtests) != before


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux counts private memory against a limit")
def test_a_strategy_that_grabs_more_than_there_may_be_is_refused_it_and_its_worker_lives_on(backtests):
    before = worker(backtests)
    status = failed(backtests, "grabs", "STRATEGY_MEMORY")
    assert "asked for more memory than it may, and may hold 48 MiB: " in status.error
    status = failed(backtests, "grabs_itself 1", "STRATEGY_MEMORY")
    assert "48 MiB (market_maker.py, line 17, in on_timer: " in status.error
    assert status.error_traceback == ["market_maker.py, line 17, in on_timer: np.ones(1 << 40)"]
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


def test_a_strategy_that_does_not_listen_is_cancelled_within_seconds(backtests, monkeypatch):
    monkeypatch.setattr("daemon.research.processes._CANCEL_OWN_S", 0.2)
    backtests.wait(backtests.submit({"name": "pid"}).id)
    backtest_id = backtests.submit({"name": "ignores 0.45"}).id
    while backtests.status(backtest_id).status != "running":
        time.sleep(0.002)
    began = time.monotonic()
    assert backtests.cancel(backtest_id).status == "cancelled"
    assert time.monotonic() - began < 2
    assert list((backtests.folder / "spool").iterdir()) == []
    assert ended(backtests, "pid").status == "completed"


def test_code_of_ours_has_no_budget(backtests):
    assert ended(backtests, "steps 3 0.3", trusted=True).status == "completed"


def test_threads_leave_code_that_nobody_has_checked_to_a_process(tmp_path):
    with Environment(tmp_path / "data", CONFIG) as env:
        setup = WorkerSetup(env.path.parent, CONFIG, (), own.Runner)
        executor = ThreadExecutor(lambda: own.Runner(BarStore(env), None), 1, None, setup)
        backtests = Backtests(env, BarStore(env), None, {}, executor, budget=BUDGET)
        try:
            assert ended(backtests, "pid", trusted=True).events_processed == os.getpid()
            process = worker(backtests)
            assert process != os.getpid()
            assert worker(backtests) == process
        finally:
            backtests.close()
        assert not os.path.exists(f"/proc/{process}")  # noqa: PTH110


def test_threads_without_a_process_refuse_code_that_nobody_has_checked(tmp_path):
    with Environment(tmp_path / "data", CONFIG) as env:
        executor = ThreadExecutor(lambda: own.Runner(BarStore(env), None), 1)
        backtests = Backtests(env, BarStore(env), None, {}, executor, budget=BUDGET)
        assert ended(backtests, "pid").error_code == "INTERNAL"
        backtests.close()
