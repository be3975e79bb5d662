"""The queue of backtests with real workers: order, cancelling, deaths, restarts, memory, what is stored and told."""

import inspect
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from stand_ins import backtests as stand_in

from daemon.core.errors import AtlasError, Code, Conflict, InvalidRequest, NotFound
from daemon.core.strategy import RiskProfile
from daemon.research import strategies
from daemon.research.backtests import Backtests
from daemon.research.executors import ProcessExecutor, ThreadExecutor
from daemon.research.plans import ProbeRequest
from daemon.research.runs import Runs
from daemon.research.worker import WorkerSetup
from daemon.store import backtests as tables
from daemon.store import documents
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

ROOT = Path(__file__).parents[2]
BOOK = strategies.load([ROOT / "strategies.json"])
CONFIG = StoreConfig(sync=False)
PATIENCE_S = 30.0
LONG = "steps 3000 0.01"


@pytest.fixture(autouse=True)
def _configurations_are_names(monkeypatch):
    monkeypatch.setattr("daemon.research.backtests.read_specification", stand_in.read_config)


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path / "data", CONFIG) as env:
        yield env


@pytest.fixture
def on_threads(env):
    """Make the service over threads; it is closed at the end."""
    made = []

    def make(workers=1, memory_bytes=None, runner=stand_in.Runner, **options):
        bars = BarStore(env)
        executor = ThreadExecutor(lambda: runner(bars, BOOK), workers, memory_bytes)
        made.append(Backtests(env, bars, BOOK, {}, executor, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def on_processes(tmp_path_factory):
    """The service over two worker processes, and its store."""
    with Environment(tmp_path_factory.mktemp("processes") / "data", CONFIG) as env:
        executor = ProcessExecutor(WorkerSetup(env.path.parent, CONFIG, tuple(BOOK), stand_in.Runner), 2)
        executor.start()
        backtests = Backtests(env, BarStore(env), BOOK, {}, executor)
        yield env, backtests
        backtests.close()


def submit(backtests, name, priority="normal", **fields):
    return backtests.submit({"name": name, **fields}, priority).id


def ended(backtests, backtest_id):
    assert backtests.wait(backtest_id, PATIENCE_S), backtests.status(backtest_id)
    return backtests.status(backtest_id)


def running(backtests, backtest_id):
    """Wait until a backtest has told progress."""
    deadline = time.monotonic() + PATIENCE_S
    while not (status := backtests.status(backtest_id)).progress:
        assert time.monotonic() < deadline, status
        time.sleep(0.005)
    assert status.status == "running"
    return status


def stored(env):
    with env.read() as transaction:
        return [bytes(key) for name in ("documents", "results") for key, _ in transaction.scan(name, b"")]


# What is told and stored.


def test_a_finished_backtest_is_stored_whole_and_told_in_short(on_processes):
    env, backtests = on_processes
    accepted = backtests.submit({"name": "rows 70000", "more": [1, 2.5, None, 10**30]}, "high")
    assert (accepted.status, accepted.priority, accepted.progress) == ("queued", "high", 0.0)
    assert (len(accepted.id), int(accepted.id, 16) >= 0) == (8, True)
    status = ended(backtests, accepted.id)
    assert (status.status, status.progress, status.attempts) == ("completed", 100.0, 1)
    assert (status.name, status.symbols, status.timeframe) == ("rows 70000", ["local:BTC/USDT"], "1Min")
    assert (status.total_return_percent, status.sharpe_ratio, status.max_drawdown_percent) == (1.2, 0.7, 0.5)
    assert (status.total_trades, status.fingerprint, status.notes) == (3, "of rows 70000", ["a note"])
    assert status.created_at <= status.started_at <= status.completed_at
    assert (status.events_processed, status.error, status.memory_bound_mb) == (4_000, None, 64.0)
    assert backtests.result(accepted.id).id == accepted.id
    with env.read() as transaction:
        chunks = list(tables.read(transaction, accepted.id, "equity"))
    assert [chunk["equity"].size for chunk in chunks] == [65_536, 70_000 - 65_536]
    assert list((env.path.parent / "spool").iterdir()) == []


def test_a_running_backtest_tells_where_it_is_and_how_long_it_will_take(on_processes):
    _, backtests = on_processes
    backtest_id = submit(backtests, "steps 60 0.01")
    seen = [running(backtests, backtest_id)]
    while not backtests.wait(backtest_id, 0.01):
        seen.append(backtests.status(backtest_id))
    assert [each.progress for each in seen] == sorted(each.progress for each in seen)
    told = [each for each in seen if each.status == "running"]
    assert all(0 < each.progress <= 100 and each.events_processed >= 1_000 for each in told)
    assert all(0 <= each.estimated_time_remaining < 20_000 for each in told)
    assert {each.current_timestamp for each in told} == {stand_in.FIRST_NS // 1_000_000}
    # Of sixty steps in more than half a second about six are told.
    assert len({each.progress for each in told}) <= 12


def test_a_status_of_what_is_active_never_touches_the_disk(env, on_threads, monkeypatch):
    backtests = on_threads()
    first = submit(backtests, LONG)
    waiting = submit(backtests, LONG)
    running(backtests, first)
    time.sleep(0.2)
    with monkeypatch.context() as patch:
        patch.setattr(env, "read", None)
        assert [backtests.status(each).status for each in (first, waiting)] == ["running", "queued"]


def test_lists_are_newest_first_whether_active_or_stored(on_threads):
    backtests = on_threads()
    done = [submit(backtests, "rows 1") for _ in range(3)]
    for each in done:
        ended(backtests, each)
    active = [submit(backtests, LONG), submit(backtests, "rows 1")]
    running(backtests, active[0])
    assert [each.id for each in backtests.all()] == [*reversed(active), *reversed(done)]
    assert [each.id for each in backtests.all("completed")] == done[::-1]
    assert [each.id for each in backtests.all("queued")] == [active[1]]
    assert backtests.all("failed") == []


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("fails", "NO_BARS", "no bars any more"),
        ("raises", "INTERNAL", "ZeroDivisionError('a defect')"),
        ("dies", "WORKER_CRASHED", "exit code 7"),
    ],
)
def test_a_failure_is_told_with_its_reason_and_harms_nobody_else(on_processes, name, code, words):
    env, backtests = on_processes
    failing = submit(backtests, name)
    others = [submit(backtests, "rows 10") for _ in range(4)]
    status = ended(backtests, failing)
    assert (status.status, status.error_code) == ("failed", code)
    assert words in status.error
    assert {ended(backtests, other).status for other in others} == {"completed"}
    with pytest.raises(Conflict, match="failed") as refused:
        backtests.result(failing)
    assert (refused.value.code, refused.value.details["status"]) == (Code.BACKTEST_NOT_FINISHED, "failed")
    with env.read() as transaction:
        assert set(tables.rows(transaction, failing).values()) == {0}


def test_ids_that_are_unknown_or_taken_are_refused(on_threads):
    backtests = on_threads()
    first = backtests.submit({"name": "rows 1", "id": "mine-1"}).id
    assert first == "mine-1"
    for _ in range(2):  # while it is active, and when it is stored
        with pytest.raises(Conflict, match="mine-1") as taken:
            backtests.submit({"name": "rows 1", "id": "mine-1"})
        assert taken.value.code == Code.BACKTEST_EXISTS
        ended(backtests, first)
    backtests.delete(first)
    assert backtests.submit({"name": "rows 1"}, backtest_id="mine-1", name="rows 2").name == "rows 2"
    for name in ("", "x" * 201):  # as of a configuration's own
        with pytest.raises(InvalidRequest, match="not a text of 1 to 200 characters"):
            backtests.submit({"name": "rows 1"}, name=name)
    with pytest.raises(InvalidRequest, match="letters, digits"):
        backtests.submit({"name": "rows 1"}, backtest_id="no/slash")
    for question in (backtests.status, backtests.result, backtests.cancel, backtests.delete):
        with pytest.raises(NotFound, match="nobody") as unknown:
            question("nobody")
        assert unknown.value.code == Code.BACKTEST_NOT_FOUND


def test_deleting_leaves_nothing_but_the_try_and_waits_for_the_end(env, on_threads):
    backtests = on_threads()
    backtest_id = submit(backtests, LONG)
    with pytest.raises(Conflict) as active:
        backtests.delete(backtest_id)
    assert active.value.code == Code.BACKTEST_ACTIVE
    backtests.cancel(backtest_id)
    backtests.delete(backtest_id)
    other = submit(backtests, "rows 100000")
    ended(backtests, other)
    assert backtests.delete(other).status == "completed"
    assert [key.split(b"\0")[0] for key in stored(env)] == [b"idea", b"trial"]


# Who goes when.


def test_priority_decides_then_arrival_and_nobody_starves(env, on_threads):
    backtests = on_threads()
    first = submit(backtests, LONG)
    running(backtests, first)
    low = [submit(backtests, "rows 1", "low") for _ in range(2)]
    normal = [submit(backtests, "rows 1") for _ in range(3)]
    high = [submit(backtests, "rows 1", "high") for _ in range(20)]
    backtests.cancel(first)
    for each in [*low, *normal, *high]:
        assert ended(backtests, each).status == "completed"
    order = stand_in.started(env)[1:]
    assert [each for each in order if each in high] == high
    assert [each for each in order if each in normal] == normal
    assert order[:8] == high[:8]
    assert order[8:10] == [normal[0], low[0]]
    assert order.index(low[1]) < order.index(high[-1])


def test_probes_and_backtests_share_the_workers(env, bars_files):
    from adapters.barfile import read_bars
    from daemon.core.market import Instrument, Timeframe

    bars = BarStore(env)
    table = read_bars(bars_files["SYNB", "1Hour"]).bars
    syn = Instrument("local", "SYNB")
    env.write(lambda transaction: bars.merge(transaction, syn, Timeframe.HOUR_1, table, replace=False))
    executor = ThreadExecutor(lambda: stand_in.Runner(bars, BOOK), 1)
    runs = Runs(env, bars, BOOK, {"low": RiskProfile()}, executor)
    backtests = Backtests(env, bars, BOOK, {}, executor)
    try:
        names = [submit(backtests, "rows 5") for _ in range(3)]
        run, _ = runs.submit(ProbeRequest(symbols=["SYNB"], timeframes=["1Hour"]))
        names.append(submit(backtests, "rows 5"))
        assert runs.wait(run.run_id, PATIENCE_S)
        assert runs.get(run.run_id).run.status == "completed"
        assert {ended(backtests, each).status for each in names} == {"completed"}
    finally:
        runs.close()
        backtests.close()


class CountingRunner(stand_in.Runner):
    """Knows how many it ran at a time."""

    lock = threading.Lock()
    now = most = 0

    def run(self, job, progress, checkpoint):
        with self.lock:
            CountingRunner.now += 1
            CountingRunner.most = max(self.most, self.now)
        try:
            return super().run(job, progress, checkpoint)
        finally:
            with self.lock:
                CountingRunner.now -= 1


def test_memory_lets_in_what_fits_and_refuses_what_never_will(env, on_threads):
    backtests = on_threads(workers=4, memory_bytes=(2 * 64 + 1) << 20, runner=CountingRunner)  # room for two
    names = [submit(backtests, "steps 5 0.01") for _ in range(6)]
    assert {ended(backtests, each).status for each in names} == {"completed"}
    assert CountingRunner.most == 2
    small = on_threads(memory_bytes=60 << 20)
    before = stored(env)
    with pytest.raises(InvalidRequest, match=r"64 MiB .* 60 MiB") as refused:
        submit(small, "rows 1")
    assert refused.value.code == Code.MEMORY_BOUND_EXCEEDED
    assert stored(env) == before


def test_a_thousand_are_queued_at_once_and_all_are_done(on_processes):
    _, backtests = on_processes
    ended(backtests, submit(backtests, "rows 1"))
    began = time.monotonic()
    names = [submit(backtests, "rows 1") for _ in range(1_000)]
    submitted_s = time.monotonic() - began
    assert submitted_s < 10
    for each in names:
        assert ended(backtests, each).status == "completed"
    assert time.monotonic() - began < PATIENCE_S
    assert len([each for each in backtests.all() if each.id in set(names)]) == 1_000


def test_ten_thousand_wait_without_threads_or_files_of_their_own(env, on_threads):
    backtests = on_threads()
    running(backtests, submit(backtests, LONG))
    threads = threading.active_count()
    names = [submit(backtests, "rows 1") for _ in range(10_000)]
    assert threading.active_count() == threads
    assert len(backtests.all("queued")) == 10_000
    assert backtests.cancel(names[5_000]).status == "cancelled"
    assert list((env.path.parent / "spool").glob("*")) == []


# Cancelling.


def test_cancelling_what_waits_takes_it_out_of_the_queue(env, on_threads):
    backtests = on_threads()
    first, second, third = submit(backtests, LONG), submit(backtests, LONG), submit(backtests, "rows 1")
    running(backtests, first)
    status = backtests.cancel(second)
    assert (status.status, status.error_code, status.started_at, status.attempts) == ("cancelled", "CANCELLED", None, 0)
    assert backtests.cancel(first).status == "cancelled"
    assert ended(backtests, third).status == "completed"
    assert stand_in.started(env) == [first, third]


def test_cancelling_what_runs_ends_it_and_a_second_time_says_so(on_processes):
    _, backtests = on_processes
    backtest_id = submit(backtests, LONG)
    running(backtests, backtest_id)
    began = time.monotonic()
    assert backtests.cancel(backtest_id).status == "cancelled"
    assert time.monotonic() - began < 3
    with pytest.raises(Conflict, match="is cancelled: there is nothing to cancel") as again:
        backtests.cancel(backtest_id)
    assert again.value.code == Code.BACKTEST_FINISHED
    completed = submit(backtests, "rows 1")
    ended(backtests, completed)
    with pytest.raises(Conflict, match="is completed"):
        backtests.cancel(completed)


def test_two_who_cancel_at_once_are_told_apart(on_threads):
    backtests = on_threads()
    backtest_id = submit(backtests, "stubborn 0.4")
    while backtests.status(backtest_id).status != "running":
        time.sleep(0.002)
    answers = []

    def cancel():
        try:
            answers.append(backtests.cancel(backtest_id).status)
        except Conflict as error:
            answers.append(error.code)

    threads = [threading.Thread(target=cancel) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    # It comes to no checkpoint before it is done, so it completes.
    assert sorted(answers) == ["BACKTEST_FINISHED", "completed"]


def test_a_worker_that_does_not_listen_is_replaced(on_processes, monkeypatch):
    monkeypatch.setattr("daemon.research.processes._CANCEL_S", 0.3)
    _, backtests = on_processes
    backtest_id = submit(backtests, "stubborn 600")
    while backtests.status(backtest_id).status != "running":
        time.sleep(0.002)
    began = time.monotonic()
    assert backtests.cancel(backtest_id).status == "cancelled"
    assert time.monotonic() - began < 10
    assert ended(backtests, submit(backtests, "rows 1")).status == "completed"


# Ends of processes.


def test_a_worker_that_is_killed_is_replaced_and_its_backtest_fails(on_processes):
    import psutil

    _, backtests = on_processes
    first, second = submit(backtests, LONG), submit(backtests, LONG)
    running(backtests, first)
    running(backtests, second)
    workers = [each for each in psutil.Process().children() if "spawn_main" in " ".join(each.cmdline())]
    assert len(workers) == 2
    workers[0].send_signal(signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE_S
    while not (failed := backtests.all("failed")) or failed[0].id not in (first, second):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert failed[0].error_code == "WORKER_CRASHED"
    assert f"exit code -{signal.SIGKILL.value}" in failed[0].error
    (other,) = {first, second} - {failed[0].id}
    third = submit(backtests, "rows 1")
    assert ended(backtests, third).status == "completed"
    assert backtests.cancel(other).status == "cancelled"


def test_an_orderly_end_keeps_the_queue_and_costs_no_attempt(env, on_threads):
    backtests = on_threads()
    first = submit(backtests, LONG)
    others = [submit(backtests, "rows 1", priority) for priority in ("low", "normal", "high")]
    for _ in range(4):
        running(backtests, first)
        assert backtests.status(first).attempts == 1
        backtests.close()
        assert not backtests.wait(first, 0)
        backtests = on_threads()
    assert backtests.cancel(first).status == "cancelled"
    assert {ended(backtests, each).status for each in others} == {"completed"}
    assert [each for each in stand_in.started(env) if each != first] == others[::-1]


def test_a_process_that_does_not_take_up_the_queue_leaves_it_alone(env, on_threads):
    backtests = on_threads()
    first, second = submit(backtests, LONG), submit(backtests, "rows 1")
    running(backtests, first)
    backtests.close()
    command_line = on_threads(resumes=False)
    own = submit(command_line, "rows 1")
    assert ended(command_line, own).status == "completed"
    assert [each.status for each in command_line.all()] == ["completed", "queued", "queued"]
    assert command_line.cancel(first).status == "cancelled"
    with pytest.raises(Conflict, match="has not ended"):
        command_line.delete(second)
    command_line.close()
    assert ended(on_threads(), second).status == "completed"
    assert stand_in.started(env) == [first, own, second]


def test_what_no_longer_fits_after_a_restart_fails_with_the_reason(on_threads):
    backtests = on_threads()
    running(backtests, submit(backtests, LONG))
    waiting = submit(backtests, "rows 1")
    backtests.close()
    later = on_threads(memory_bytes=10 << 20)
    status = ended(later, waiting)
    assert (status.status, status.error_code) == ("failed", "MEMORY_BOUND_EXCEEDED")


def test_a_request_that_cannot_be_read_any_more_fails_and_the_others_go_on(env, on_threads):
    backtests = on_threads()
    running(backtests, submit(backtests, LONG, id="long"))
    waiting, other = submit(backtests, "rows 1"), submit(backtests, "rows 1")
    backtests.close()

    unlike = msgspec.defstruct("Unlike", ["config", "spec"])(b"{}", {"markets": [], "colour": "red"})
    env.write(lambda transaction: documents.put(transaction, "backtest_request", waiting, unlike))
    later = on_threads(workers=2)
    status = ended(later, waiting)
    assert (status.status, status.error_code) == ("failed", "STORE_CORRUPT")
    assert "submit it again" in status.error
    assert ended(later, other).status == "completed"


def test_a_result_that_finds_no_room_fails_the_backtest_and_is_told(env, on_threads, monkeypatch):
    from daemon.core.errors import StoreFull
    from daemon.research import backtest_records

    def full(*_):
        raise StoreFull(Code.STORE_FULL, "no room")

    backtests = on_threads()
    with monkeypatch.context() as patch:
        patch.setattr(backtest_records, "put_finished", full)
        status = ended(backtests, submit(backtests, "rows 10"))
        assert (status.status, status.error_code, status.error) == ("failed", "STORE_FULL", "no room")
        patch.setattr(backtest_records, "put_state", full)
        with pytest.raises(StoreFull):
            submit(backtests, "rows 10")
    assert [each.status for each in backtests.all()] == ["failed"]
    assert list((env.path.parent / "spool").iterdir()) == []


CHILD = f"""
import sys, time
from pathlib import Path
from daemon.research import backtests, strategies
from daemon.research.executors import ProcessExecutor
from daemon.research.worker import WorkerSetup
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from stand_ins import backtests as stand_in

backtests.read_specification = stand_in.read_config

{inspect.getsource(submit)}

if __name__ == "__main__":
    folder, config = Path(sys.argv[1]), StoreConfig()
    book = strategies.load([Path("strategies.json")])
    env = Environment(folder, config)
    executor = ProcessExecutor(WorkerSetup(folder, config, tuple(book), stand_in.Runner), 2)
    executor.start()
    service = backtests.Backtests(env, BarStore(env), book, {{}}, executor)
    for name in sys.argv[2:]:
        print(submit(service, name), flush=True)
    print("submitted", flush=True)
    while True:
        time.sleep(0.05)
        print("running", *sorted(each.id for each in service.all("running") if each.progress), flush=True)
"""


def killed(folder, script, *names, until):
    """Serve a folder in a process, submit, and kill it once two backtests have run for a while; returns the ids."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, str(script), str(folder), *names]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        ids = []
        while (line := process.stdout.readline().strip()) != "submitted":
            assert line, "the process ended"
            ids.append(line)
        while len(line.split()) - 1 < until:
            line = process.stdout.readline().strip()
            assert line, "the process ended"
        time.sleep(0.4)
        process.kill()
        process.wait(PATIENCE_S)
    return ids


def test_what_a_killed_process_left_is_taken_up_twice_and_then_fails(tmp_path):
    script, folder = tmp_path / "child.py", tmp_path / "data"
    script.write_text(CHILD)
    names = [LONG, LONG, "rows 100000", "rows 5", "steps 2 0.01"]
    ids = killed(folder, script, *names, until=2)
    with Environment(folder, CONFIG) as env:
        bars = BarStore(env)
        kept = Backtests(env, bars, BOOK, {}, ThreadExecutor(lambda: stand_in.Runner(bars, BOOK), 1), resumes=False)
        assert [(each.id, each.status, each.attempts) for each in reversed(kept.all())] == [
            (ids[0], "queued", 1), (ids[1], "queued", 1), *((each, "queued", 0) for each in ids[2:]),
        ]  # fmt: skip
        kept.close()
    assert killed(folder, script, until=2) == []
    with Environment(folder, CONFIG) as env:
        bars = BarStore(env)
        # What a killed process left in the spool folder is cleared where runs are made.
        executor = ThreadExecutor(lambda: stand_in.Runner(bars, BOOK), 2)
        runs = Runs(env, bars, BOOK, {}, executor)
        later = Backtests(env, bars, BOOK, {}, executor)
        for each in ids[:2]:
            status = ended(later, each)
            assert (status.status, status.error_code, status.attempts) == ("failed", "INTERRUPTED", 2)
            assert "2 times" in status.error
        assert [ended(later, each).status for each in ids[2:]] == ["completed"] * 3
        assert later.result(ids[2]).name == "rows 100000"
        with env.read() as transaction:
            assert tables.rows(transaction, ids[2])["equity"] == 100_000
        runs.close()
        later.close()
        assert list((folder / "spool").iterdir()) == []


def test_a_process_killed_at_any_moment_leaves_results_whole_or_absent(tmp_path):
    script, folder = tmp_path / "child.py", tmp_path / "data"
    script.write_text(CHILD)
    ids = killed(folder, script, *["rows 70000"] * 150, until=0)
    with Environment(folder, CONFIG) as env:
        bars = BarStore(env)
        later = Backtests(env, bars, BOOK, {}, ThreadExecutor(lambda: stand_in.Runner(bars, BOOK), 2))
        for each in ids:
            assert ended(later, each).status == "completed"
            with env.read() as transaction:
                assert tables.rows(transaction, each)["equity"] == 70_000
        later.close()


def test_submissions_after_the_end_are_refused(on_threads):
    backtests = on_threads()
    ended(backtests, submit(backtests, "rows 1"))
    backtests.close()
    with pytest.raises(AtlasError) as refused:
        submit(backtests, "rows 1")
    assert refused.value.code == Code.INTERRUPTED
