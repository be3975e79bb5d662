"""What a worker makes ready while it has nothing to do: beside its jobs, never before them."""

import threading
import time

import pytest

from daemon.core.errors import Code, JobFailed
from daemon.research.warming import IdleWarming

PATIENCE_S = 10.0


class Step:
    """Something that takes until it is told to end."""

    def __init__(self):
        self.has_begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self):
        self.has_begun.set()
        assert self.may_end.wait(PATIENCE_S)


@pytest.fixture
def step():
    made = Step()
    yield made
    made.may_end.set()


def ended(warming):
    deadline = time.monotonic() + PATIENCE_S
    while not warming.is_done:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def nothing():
    """Come to a checkpoint that lets go on."""


def test_one_step_is_taken_after_another_while_there_is_no_job(step):
    then = Step()
    step.may_end.set()
    warming = IdleWarming((step, then), 0.0)
    assert then.has_begun.wait(PATIENCE_S)
    assert step.has_begun.is_set()
    assert not warming.is_done
    then.may_end.set()
    ended(warming)


def test_nothing_begins_while_there_is_a_job_nor_for_some_time_after_it(step):
    warming = IdleWarming((step,), 0.5)
    with warming.paused():
        assert not step.has_begun.wait(0.6)
    ended_s = time.monotonic()
    assert step.has_begun.wait(PATIENCE_S)
    assert time.monotonic() - ended_s >= 0.4


def test_a_job_does_not_wait_for_the_step_that_is_being_taken_and_holds_up_the_next(step):
    then = Step()
    warming = IdleWarming((step, then), 0.0)
    assert step.has_begun.wait(PATIENCE_S)
    with warming.paused():
        step.may_end.set()
        warming.join(nothing)
        assert not then.has_begun.wait(0.1)
    assert then.has_begun.wait(PATIENCE_S)
    then.may_end.set()


def test_who_waits_for_a_step_may_be_cancelled(step):
    def cancelled():
        raise JobFailed(Code.CANCELLED, "it was cancelled")

    warming = IdleWarming((step,), 0.0)
    assert step.has_begun.wait(PATIENCE_S)
    with pytest.raises(JobFailed, match="cancelled"):
        warming.join(cancelled)


def test_two_take_turns_so_that_the_second_finds_what_the_first_made(step):
    then = Step()
    IdleWarming((step,), 0.0)
    assert step.has_begun.wait(PATIENCE_S)
    IdleWarming((then,), 0.0)
    assert not then.has_begun.wait(0.3)
    step.may_end.set()
    assert then.has_begun.wait(PATIENCE_S)
    then.may_end.set()


def test_a_step_that_fails_is_logged_and_the_last(caplog, step):
    def fail():
        raise OSError("the cache cannot be written")

    ended(IdleWarming((fail, step), 0.0))
    assert "the cache cannot be written" in caplog.text
    assert not step.has_begun.is_set()
