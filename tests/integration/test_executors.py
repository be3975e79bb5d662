"""Jobs on threads and on processes: the same bytes, failures that stay with their run, kernels compiled once."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from daemon.core.errors import Code, InvalidRequest, JobFailed
from daemon.core.market import Instrument, Timeframe
from daemon.core.strategy import RiskProfile
from daemon.research import strategies
from daemon.research.backtest_records import BacktestJob
from daemon.research.executors import ProcessExecutor, ThreadExecutor
from daemon.research.jobs import JobRunner
from daemon.research.plans import ProbeRequest
from daemon.research.runs import Runs
from daemon.research.worker import WorkerSetup
from daemon.store import keys, results
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

ROOT = Path(__file__).parents[2]
PROFILES = {"low": RiskProfile(0.75, 0.75, 0.75, 0.6), "high": RiskProfile(1.5, 1.5, 1.5, 1.5)}
SERIES = {"SYNA": Timeframe.MIN_15, "SYNB": Timeframe.HOUR_1}
CONFIG = StoreConfig(sync=False)


@pytest.fixture(scope="module")
def book():
    return strategies.load([ROOT / "strategies.json"])


@pytest.fixture(scope="module")
def store(bars_files, tmp_path_factory):
    from adapters.barfile import read_bars

    with Environment(tmp_path_factory.mktemp("executors") / "data", CONFIG) as env:
        bars = BarStore(env)
        for (symbol, timeframe), path in bars_files.items():
            table = read_bars(path).bars
            env.write(
                lambda transaction, name=symbol, length=timeframe, rows=table: bars.merge(
                    transaction, Instrument("local", name), Timeframe(length), rows, replace=False
                )
            )
        yield env, bars


@pytest.fixture(scope="module")
def on_processes(store, book):
    env, bars = store
    executor = ProcessExecutor(WorkerSetup(env.path.parent, CONFIG, tuple(book)), 2)
    executor.start()
    runs = Runs(env, bars, book, PROFILES, executor)
    yield runs
    runs.close()


class OneSymbolFails(JobRunner):
    """A runner with a defect that one symbol meets."""

    def run(self, job, progress, checkpoint):
        if job.instrument.symbol == "SYNB":
            raise ZeroDivisionError("a defect")
        return super().run(job, progress, checkpoint)


def on_threads(store, book, runner=JobRunner, workers=2):
    env, bars = store
    return Runs(env, bars, book, PROFILES, ThreadExecutor(lambda: runner(bars, book), workers))


def a_request(run_id, **changes):
    fields = {"symbols": list(SERIES), "timeframes": ["1Hour", "1Day"], "persist_trades": True}
    return ProbeRequest(run_id=run_id, **(fields | changes))


def finished(runs, request):
    run, _ = runs.submit(request)
    assert runs.wait(run.run_id, 60)
    return runs.get(run.run_id).run


def values(env, run_id):
    with env.read() as transaction:
        found = transaction.scan("results", keys.job(run_id))
        return {key[len(keys.job(run_id)) :]: bytes(value) for key, value in found}


def spooled(env):
    return list((env.path.parent / "spool").glob("*"))


def test_threads_and_processes_give_the_same_bytes(store, book, on_processes):
    env, _ = store
    one_thread, threads = on_threads(store, book, workers=1), on_threads(store, book)
    try:
        ended = [
            finished(one_thread, a_request("one-thread")),
            finished(threads, a_request("threads")),
            finished(on_processes, a_request("processes")),
        ]
    finally:
        one_thread.close()
        threads.close()
    assert {run.status for run in ended} == {"completed"}
    assert len({(run.total_trades, run.total_result_records, run.completed_combinations) for run in ended}) == 1
    assert ended[0].total_trades > 1000
    assert values(env, "one-thread") == values(env, "threads") == values(env, "processes") != {}
    assert spooled(env) == []


def test_derived_timeframes_name_their_source_and_partial_edges(store, on_processes):
    env, _ = store
    assert finished(on_processes, a_request("sources")).status == "completed"
    with env.read() as transaction:
        indexes = [job.index for job in results.jobs(transaction, "sources")]
    sources = {(index.symbol, index.timeframe): index.source for index in indexes}
    assert sources == {
        ("SYNA", "1Hour"): "15Min",
        ("SYNA", "1Day"): "15Min",
        ("SYNB", "1Hour"): "1Hour",
        ("SYNB", "1Day"): "1Hour",
    }
    partial = {(index.symbol, index.timeframe): index.partial_buckets for index in indexes if index.partial_buckets}
    day = Timeframe.DAY_1.ns
    assert {pair: [bucket % day for bucket in buckets] for pair, buckets in partial.items()} == {
        ("SYNA", "1Day"): [0],
        ("SYNB", "1Day"): [0],
    }


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_progress_only_grows(store, book, on_processes, where):
    runs = on_threads(store, book) if where == "threads" else on_processes
    run, seconds = runs.submit(a_request(f"progress-{where}"))
    assert (run.status, run.total_combinations, seconds) == ("queued", 800, 1)
    seen = []
    while not runs.wait(run.run_id, 0.0005):
        seen.append(runs.get(run.run_id))
    seen.append(runs.get(run.run_id))
    completed = [view.completed for view in seen]
    assert completed == sorted(completed)
    assert completed[-1] == 800
    assert [view.elapsed_seconds for view in seen] == sorted(view.elapsed_seconds for view in seen)
    assert list(dict.fromkeys(view.run.status for view in seen))[-1] == "completed"
    if where == "threads":
        runs.close()


def test_a_job_that_raises_fails_its_run_and_nothing_else(store, book):
    env, _ = store
    runs = on_threads(store, book, OneSymbolFails)
    run = finished(runs, a_request("raises"))
    assert run.status == "failed"
    assert run.error.code == "INTERNAL"
    assert "local:SYNB" in run.error.message
    assert "ZeroDivisionError('a defect')" in run.error.message
    assert run.completed_combinations == 400
    with env.read() as transaction:
        assert {job.index.symbol for job in results.jobs(transaction, "raises")} == {"SYNA"}
    assert finished(runs, a_request("unharmed", symbols=["SYNA"])).status == "completed"
    runs.close()
    mended = on_threads(store, book)
    run = finished(mended, a_request("raises"))
    assert (run.status, run.error, run.completed_combinations) == ("completed", None, 800)
    mended.close()
    assert spooled(env) == []


def test_a_job_that_raises_in_a_process_leaves_the_worker_alive(store, on_processes):
    env, _ = store
    spool = env.path.parent / "spool"
    before = finished(on_processes, a_request("before", symbols=["SYNA"]))
    spool.rmdir()
    spool.write_text("in the way")
    try:
        run = finished(on_processes, a_request("blocked"))
    finally:
        spool.unlink()
    assert (before.status, run.status, run.error.code) == ("completed", "failed", "INTERNAL")
    assert "FileExistsError" in run.error.message
    assert run.completed_combinations == 0
    assert values(env, "blocked") == {}
    assert finished(on_processes, a_request("blocked")).status == "completed"


def test_runs_interrupted_by_the_end_of_their_process_go_on(store, book):
    env, _ = store
    runs = on_threads(store, book, workers=1)
    names = [runs.submit(a_request(f"closed-{number}"))[0].run_id for number in range(20)]
    runs.close()
    later = on_threads(store, book)
    ended = [later.get(name).run for name in names]
    assert {run.status for run in ended} <= {"completed", "failed"}
    assert {run.error.code for run in ended if run.error} == {"INTERRUPTED"}
    assert ended[-1].error
    for name in names:
        assert finished(later, a_request(name)).status == "completed"
        assert values(env, name) == values(env, names[0])
    later.close()


class Gate:
    """A runner whose jobs wait until they are let through; each yields its own name."""

    def __init__(self):
        self.open = threading.Event()

    def run(self, job, progress, checkpoint):
        while not self.open.wait(0.002):
            checkpoint()
        progress(1)
        return job.backtest_id


def named(name):
    return BacktestJob(name, None, "")


def test_jobs_of_any_kind_wait_in_one_queue_by_priority_and_may_leave_it():
    gate, never = Gate(), threading.Event()
    executor = ThreadExecutor(lambda: gate, 1, memory_bytes=100)
    order, told = [], []

    def submit(name, priority="normal", memory_bytes=0):
        job = named(name)
        return executor.submit(
            lambda: job, told.append, never, priority=priority, memory_bytes=memory_bytes,
            started=lambda: order.append(name),
        )  # fmt: skip

    futures = [submit("first")]
    while not order:
        time.sleep(0.002)
    futures += [submit("low", "low"), submit("normal"), submit("gone", "high"), submit("high", "high")]
    assert futures[3].cancel()
    assert not futures[0].cancel()
    with pytest.raises(InvalidRequest) as refused:
        submit("large", memory_bytes=101)
    assert refused.value.code == Code.MEMORY_BOUND_EXCEEDED
    gate.open.set()
    assert [each.result(5) for each in futures if not each.cancelled()] == ["first", "low", "normal", "high"]
    assert order == ["first", "high", "normal", "low"]
    assert told == [1, 1, 1, 1]
    executor.close()
    with pytest.raises(JobFailed, match="stopped") as late:
        submit("late").result(5)
    assert late.value.code == Code.INTERRUPTED


def test_closing_fails_what_runs_and_what_waits_and_may_be_repeated():
    never = threading.Event()
    executor = ThreadExecutor(Gate, 2)
    futures = [executor.submit(named(str(number)), lambda _: None, never) for number in range(50)]
    executor.close()
    executor.close()
    assert {future.exception(5).code for future in futures} == {Code.INTERRUPTED}


def test_what_makes_a_job_may_fail_and_fails_this_job_alone():
    gate, never = Gate(), threading.Event()
    gate.open.set()
    executor = ThreadExecutor(lambda: gate, 1)
    bad = executor.submit(lambda: 1 / 0, lambda _: None, never)
    good = executor.submit(named("good"), lambda _: None, never)
    assert bad.exception(5).code == Code.INTERNAL
    assert good.result(5) == "good"
    executor.close()


def test_kernels_are_compiled_once_for_all_processes(compiled_anew):
    script = (
        "from pathlib import Path\n"
        "from daemon.research import strategies\n"
        "from daemon.research.warmup import warm_probe, warmth\n"
        "assert (warmth().loaded, warmth().compiled) == (0, 0)\n"
        "warm_probe(strategies.load([Path('strategies.json')]))\n"
        "print(*warmth())\n"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(compiled_anew.cache)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=False, timeout=200, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    then_loaded, then_compiled = map(int, done.stdout.split())
    first_loaded, first_compiled = compiled_anew.warmth
    assert then_compiled == 0
    assert first_loaded <= 1  # a test beside it may have compiled what packs the live tail
    assert first_compiled >= then_loaded > 0  # kernels that others call come along with them
