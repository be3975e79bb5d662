"""The queue of optimisations over a real store: what is told and kept, whatever ends them, and how they go on."""

import threading
import time

import msgspec
import pytest
from optimized import BOOK, GRID, config, forget, hours, put_bars

from daemon.core.errors import AtlasError, Code, Conflict, InvalidRequest, NotFound, StoreFull
from daemon.research import trials
from daemon.research.executors import ThreadExecutor
from daemon.research.jobs import JobRunner
from daemon.research.optimization import records, search, views
from daemon.research.optimization.request import OptimizationRequest
from daemon.research.optimizations import Optimizations
from daemon.store import documents, keys
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

DAYS = 35
PATIENCE_S = 30.0
AT_ONCE = 4


class Held(JobRunner):
    """Waits, until it is let go on, once it has told so many blocks of points; `failure` is raised then."""

    def __init__(self, bars):
        super().__init__(bars, BOOK)
        self.blocks = 1_000_000
        self.failure = None

    def run(self, job, progress, checkpoint):
        told = 0

        def tell(word):
            nonlocal told
            progress(word)
            told += word.rows is not None

        def check():
            while told >= self.blocks:
                if self.failure is not None:
                    raise self.failure
                checkpoint()
                time.sleep(0.001)
            checkpoint()

        return super().run(job, tell, check)


@pytest.fixture(autouse=True)
def _blocks_of_four(monkeypatch):
    monkeypatch.setattr(search, "_MOST_AT_ONCE", AT_ONCE)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with Environment(tmp_path_factory.mktemp("queue") / "data", StoreConfig(sync=False)) as env:
        put_bars(env, hours(DAYS))
        yield env


@pytest.fixture
def env(shared):
    """A store with bars and nothing tried."""
    forget(shared)
    return shared


@pytest.fixture
def runner(env):
    return Held(BarStore(env))


@pytest.fixture
def service(env, runner):
    """Make the service over one thread; it is closed at the end."""
    made = []

    def make(memory_bytes=None, **options):
        made.append(
            Optimizations(env, BarStore(env), BOOK, {}, ThreadExecutor(lambda: runner, 1, memory_bytes), **options)
        )
        return made[-1]

    yield make
    runner.blocks = 1_000_000
    for each in made:
        each.close()


def asked(**fields):
    return OptimizationRequest(**{"config": config(), "parameters": GRID, "target": "return"} | fields)


def ended(optimizations, optimization_id):
    assert optimizations.wait(optimization_id, PATIENCE_S), optimizations.status(optimization_id)
    return optimizations.status(optimization_id)


def until(optimizations, optimization_id, points):
    """Wait until so many points are told."""
    deadline = time.monotonic() + PATIENCE_S
    while (status := optimizations.status(optimization_id)).points_done < points:
        assert time.monotonic() < deadline, status
        time.sleep(0.002)
    assert status.status == "running"
    return status


def points_stored(env, optimization_id):
    return len(msgspec.json.decode(b"".join(views.points_json(env, optimization_id))))


def whole(service):
    """A result that nothing interrupted, then forgotten."""
    optimizations = service()
    first = optimizations.submit(asked()).id
    ended(optimizations, first)
    result = optimizations.result(first)
    optimizations.close()
    return result


def alike(one, other):
    """Tell whether two results differ by nothing but who found them when."""
    left, right = (msgspec.structs.replace(each, id="", execution=None) for each in (one, other))
    return left == right


def code_of(call, *arguments):
    with pytest.raises(AtlasError) as caught:
        call(*arguments)
    return caught.value.code


# What is told and stored.


def test_an_optimisation_is_queued_then_completed_with_all_points_stored(env, service):
    optimizations = service()
    queued = optimizations.submit(asked(priority="high", name="mine"))
    assert (queued.status, queued.priority, queued.name, queued.points) == ("queued", "high", "mine", 27)
    assert (queued.target, queued.method, queued.symbols, queued.timeframe) == ("return", "grid", ["x:A"], "1Hour")
    assert (len(queued.id), queued.points_done, queued.best_score) == (8, 0, None)
    status = ended(optimizations, queued.id)
    assert (status.status, status.progress, status.attempts, status.points_done) == ("completed", 100, 1, 27)
    assert status.created_at <= status.started_at <= status.completed_at
    result = optimizations.result(queued.id)
    assert (status.best_score, status.best_parameters) == (result.peak.score, result.peak.parameters)
    assert (result.id, result.name, status.verdict) == (queued.id, "mine", result.verdict.verdict)
    assert points_stored(env, queued.id) == 27
    with env.read() as transaction:
        assert trials.stored_idea(transaction, result.verdict.idea).tries == 27
        assert records.stored_result(transaction, queued.id) == result


def test_a_strategy_of_the_users_own_has_a_budget(service, monkeypatch):
    monkeypatch.setattr("daemon.research.optimizations.budget_for", lambda _, budget: budget)
    optimizations = service()
    status = ended(optimizations, optimizations.submit(asked()).id)
    assert (status.status, "a job with a budget needs a process" in status.error) == ("failed", True)


def test_a_running_one_tells_how_far_it_is_and_the_best_so_far(env, service, runner):
    runner.blocks = 2
    optimizations = service()
    first = optimizations.submit(asked()).id
    status = until(optimizations, first, 8)
    assert 0 < status.progress < 90
    assert status.estimated_time_remaining >= 0
    assert (status.attempts, status.best_parameters is not None) == (1, True)
    second = optimizations.submit(asked()).id
    assert [(each.id, each.status) for each in optimizations.all()] == [(second, "queued"), (first, "running")]
    with pytest.raises(Conflict, match="is running, it has no result: wait for it, or cancel it") as caught:
        optimizations.result(first)
    assert caught.value.code == Code.OPTIMIZATION_NOT_FINISHED
    assert points_stored(env, first) == 8
    assert points_stored(env, second) == 0


def test_ids_that_are_unknown_taken_or_none_are_refused(service):
    optimizations = service()
    assert optimizations.submit(asked(id="mine-1")).id == "mine-1"
    for _ in range(2):  # while it is active, and when it is stored
        assert code_of(optimizations.submit, asked(id="mine-1")) == Code.OPTIMIZATION_EXISTS
        ended(optimizations, "mine-1")
    with pytest.raises(InvalidRequest, match="letters, digits"):
        optimizations.submit(asked(id="no/slash"))
    for question in (
        optimizations.status, optimizations.result, optimizations.cancel, optimizations.resume, optimizations.delete,
    ):  # fmt: skip
        with pytest.raises(NotFound, match="nobody"):
            question("nobody")
    optimizations.delete("mine-1")
    assert optimizations.submit(asked(id="mine-1")).status == "queued"


def test_what_asks_for_more_memory_than_there_is_leaves_nothing(service):
    optimizations = service(memory_bytes=10 << 20)
    assert code_of(optimizations.submit, asked()) == Code.MEMORY_BOUND_EXCEEDED
    assert optimizations.all() == []


def test_a_plan_is_read_as_it_was_stored(env, service):
    odd = config() | {"name": "odd"}
    odd["backtest"]["initialCapital"] = 10**30
    service().submit(asked(config=odd, parameters={"take_profit": "0.01:0.05"}, method="random", budget=3, id="o"))
    with env.read() as transaction:
        plan = records.stored_plan(transaction, "o")
    assert plan.config == odd
    assert (plan.points, plan.method, plan.spec.name) == (3, "random", "odd")
    assert plan.ranges[0].is_continuous


# Cancelled and resumed.


def test_what_is_cancelled_while_it_waits_never_began_and_can_be_resumed(env, service, runner):
    runner.blocks = 1
    optimizations = service()
    first, second = optimizations.submit(asked()).id, optimizations.submit(asked()).id
    until(optimizations, first, 4)
    status = optimizations.cancel(second)
    assert (status.status, status.error_code, status.started_at, status.attempts) == ("cancelled", "CANCELLED", None, 0)
    assert points_stored(env, second) == 0
    assert optimizations.resume(second).status == "queued"
    runner.blocks = 1_000_000
    assert ended(optimizations, second).status == "completed"
    assert ended(optimizations, first).status == "completed"


def test_what_is_cancelled_while_it_runs_keeps_its_points_and_goes_on_from_there(env, service, runner):
    expected = whole(service)
    forget(env)
    runner.blocks = 3
    optimizations = service()
    first = optimizations.submit(asked()).id
    until(optimizations, first, 12)
    status = optimizations.cancel(first)
    assert (status.status, status.points_done, status.verdict) == ("cancelled", 12, None)
    assert points_stored(env, first) == 12
    with pytest.raises(Conflict, match="is cancelled: there is nothing to cancel"):
        optimizations.cancel(first)
    assert code_of(optimizations.result, first) == Code.OPTIMIZATION_NOT_FINISHED
    runner.blocks = 1_000_000
    resumed = optimizations.resume(first)
    assert (resumed.status, resumed.completed_at, resumed.error, resumed.points_done) == ("queued", None, None, 12)
    assert ended(optimizations, first).status == "completed"
    result = optimizations.result(first)
    assert result.execution.reused == 12
    assert alike(result, expected)


def test_only_what_ended_without_a_result_is_resumed_and_only_what_runs_is_cancelled(service, runner):
    runner.blocks = 1
    optimizations = service()
    first = optimizations.submit(asked()).id
    until(optimizations, first, 4)
    assert code_of(optimizations.resume, first) == Code.OPTIMIZATION_ACTIVE
    runner.blocks = 1_000_000
    ended(optimizations, first)
    for question in (optimizations.resume, optimizations.cancel):
        assert code_of(question, first) == Code.OPTIMIZATION_FINISHED


def test_two_who_cancel_at_once_are_told_apart(service, runner):
    runner.blocks = 1
    optimizations = service()
    first = optimizations.submit(asked()).id
    until(optimizations, first, 4)
    answers = []

    def cancel():
        try:
            answers.append(optimizations.cancel(first).status)
        except Conflict as error:
            answers.append(str(error.code))

    threads = [threading.Thread(target=cancel) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(answers) == ["OPTIMIZATION_FINISHED", "cancelled"]


def test_deleting_takes_everything_but_the_tries(env, service, runner):
    runner.blocks = 2
    optimizations = service()
    first = optimizations.submit(asked()).id
    until(optimizations, first, 8)
    assert code_of(optimizations.delete, first) == Code.OPTIMIZATION_ACTIVE
    optimizations.cancel(first)
    optimizations.delete(first)
    assert optimizations.all() == []
    with env.read() as transaction:
        left = {bytes(key).split(b"\0")[0] for key, _ in transaction.scan("documents", b"")}
        [idea] = trials.ideas(transaction)
    assert not any(kind.startswith(b"optimization") for kind in left)
    assert idea.tries == 9  # eight points, and the configuration
    again = optimizations.submit(asked(id=first))
    runner.blocks = 1_000_000
    ended(optimizations, again.id)
    result = optimizations.result(first)
    assert (result.execution.reused, result.verdict.tried_before, result.verdict.trials) == (0, 9, 27)


# Ends of processes, and failures.


def test_an_orderly_end_keeps_points_and_costs_no_attempt(env, service, runner):
    expected = whole(service)
    forget(env)
    runner.blocks = 2
    optimizations = service()
    first, second = optimizations.submit(asked()).id, optimizations.submit(asked(id="second")).id
    for points in (8, 16):
        until(optimizations, first, points)
        assert optimizations.status(first).attempts == 1
        optimizations.close()
        optimizations = service()
        assert optimizations.status(second).status == "queued"
    runner.blocks = 1_000_000
    assert [ended(optimizations, each).status for each in (first, second)] == ["completed"] * 2
    result = optimizations.result(first)
    assert result.execution.reused >= 16
    assert alike(result, expected)
    assert optimizations.result(second).verdict.tried_before == 27


def left_running(env, optimization_id, attempts):
    """As a killed process leaves it."""

    def put(transaction):
        state = records.stored_state(transaction, optimization_id)
        status = msgspec.structs.replace(state.status, status="running", attempts=attempts)
        records.put_state(transaction, msgspec.structs.replace(state, status=status))

    env.write(put)


def test_what_a_killed_process_left_is_taken_up_and_fails_the_second_time(env, service, runner):
    runner.blocks = 2
    optimizations = service()
    first = optimizations.submit(asked()).id
    until(optimizations, first, 8)
    optimizations.close()
    left_running(env, first, 1)
    runner.blocks = 4
    optimizations = service()
    assert until(optimizations, first, 24).attempts == 2
    optimizations.close()
    left_running(env, first, 2)
    optimizations = service()
    status = optimizations.status(first)
    assert (status.status, status.error_code, status.points_done) == ("failed", "INTERRUPTED", 24)
    runner.blocks = 1_000_000
    assert optimizations.resume(first).attempts == 0
    assert ended(optimizations, first).status == "completed"
    assert optimizations.result(first).execution.reused == 24


def test_a_process_that_does_not_take_up_the_queue_leaves_it_until_it_is_asked_to(env, service, runner):
    runner.blocks = 2
    optimizations = service()
    first, second, third = (optimizations.submit(asked()).id for _ in range(3))
    until(optimizations, first, 8)
    optimizations.close()
    left_running(env, first, 1)
    runner.blocks = 1_000_000
    command_line = service(resumes=False)
    assert [each.status for each in command_line.all()] == ["queued"] * 3
    assert code_of(command_line.delete, first) == Code.OPTIMIZATION_ACTIVE
    assert command_line.cancel(second).status == "cancelled"
    assert command_line.resume(first).status == "queued"
    assert ended(command_line, first).status == "completed"
    assert command_line.result(first).execution.reused == 8
    assert command_line.status(third).status == "queued"
    command_line.close()
    assert ended(service(), third).status == "completed"


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (NotFound(Code.NO_BARS, "no bars any more"), "NO_BARS", "no bars any more"),
        (ZeroDivisionError("a defect"), "INTERNAL", "a defect"),
    ],
    ids=["ours", "a defect"],
)
def test_a_failure_is_told_with_its_reason_and_the_points_are_kept(env, service, runner, failure, code, words):
    runner.blocks, runner.failure = 2, failure
    optimizations = service()
    first = optimizations.submit(asked()).id
    status = ended(optimizations, first)
    assert (status.status, status.error_code, status.points_done) == ("failed", code, 8)
    assert words in status.error
    assert points_stored(env, first) == 8
    runner.blocks = 1_000_000
    optimizations.resume(first)
    assert ended(optimizations, first).status == "completed"
    assert optimizations.result(first).execution.reused == 8


def test_a_request_that_cannot_be_read_any_more_fails_with_what_to_do(env, service, runner):
    runner.blocks = 1
    optimizations = service()
    first, second = optimizations.submit(asked()).id, optimizations.submit(asked()).id
    until(optimizations, first, 4)
    optimizations.close()
    unlike = msgspec.defstruct("Unlike", ["config"])(b"{}")
    env.write(lambda transaction: documents.put(transaction, "optimization_request", second, unlike))
    runner.blocks = 1_000_000
    later = service()
    status = ended(later, second)
    assert (status.status, status.error_code) == ("failed", "STORE_CORRUPT")
    assert ended(later, first).status == "completed"
    later.delete(second)
    assert [each.id for each in later.all()] == [first]


def test_what_no_longer_fits_after_a_restart_fails_with_the_reason(service, runner):
    runner.blocks = 1
    optimizations = service()
    first = optimizations.submit(asked()).id
    until(optimizations, first, 4)
    optimizations.close()
    small = service(memory_bytes=10 << 20)
    assert ended(small, first).error_code == "MEMORY_BOUND_EXCEEDED"
    assert code_of(small.resume, first) == Code.MEMORY_BOUND_EXCEEDED


def test_a_store_without_room_is_told_and_nothing_stays_half_submitted(service, monkeypatch):
    def full(*_):
        raise StoreFull(Code.STORE_FULL, "no room")

    optimizations = service()
    with monkeypatch.context() as patch:
        patch.setattr(records, "put_finished", full)
        first = optimizations.submit(asked()).id
        status = ended(optimizations, first)
        assert (status.status, status.error_code, status.points_done) == ("failed", "STORE_FULL", 27)
        patch.setattr(records, "put_state", full)
        for call, argument in ((optimizations.submit, asked()), (optimizations.resume, first)):
            assert code_of(call, argument) == Code.STORE_FULL
    assert [each.status for each in optimizations.all()] == ["failed"]
    optimizations.resume(first)
    assert ended(optimizations, first).status == "completed"
    assert optimizations.result(first).execution.reused == 27


def test_points_that_could_not_be_stored_fail_it_and_it_goes_on_before_them(env, service, monkeypatch):
    kept, calls = records.put_rows, []

    def full(transaction, optimization_id, rows, tried):
        calls.append(rows.first)
        if rows.first == AT_ONCE:
            raise StoreFull(Code.STORE_FULL, "there is no room")
        kept(transaction, optimization_id, rows, tried)

    with monkeypatch.context() as patch:
        patch.setattr(records, "put_rows", full)
        optimizations = service()
        optimizations.submit(OptimizationRequest(config=config(), parameters=GRID, id="full"))
        assert optimizations.wait("full", PATIENCE_S)
    status = optimizations.status("full")
    assert (status.status, status.error_code) == ("failed", Code.STORE_FULL)
    assert AT_ONCE in calls
    optimizations.resume("full")
    assert optimizations.wait("full", PATIENCE_S)
    assert optimizations.status("full").status == "completed"
    listed = b"".join(views.points_csv(env, "full")).decode().splitlines()[1:]
    assert [int(line.split(",")[0]) for line in listed] == list(range(27))
    assert optimizations.result("full").execution.reused == AT_ONCE


def test_rows_of_another_optimisation_are_never_taken_for_ones_own(env, service):
    optimizations = service()
    for name in ("a", "a.b", "a-1"):
        optimizations.submit(asked(id=name))
        ended(optimizations, name)
    optimizations.delete("a")
    with env.read() as transaction:
        rows = [bytes(key) for key, _ in transaction.scan("documents", keys.document("optimization_rows"))]
    assert len(rows) == 2 * 7
    assert {key.split(b"\0")[1].split(b"/")[0] for key in rows} == {b"a.b", b"a-1"}


def test_submissions_after_the_end_are_refused(service):
    optimizations = service()
    optimizations.close()
    assert code_of(optimizations.submit, asked()) == Code.INTERRUPTED
