"""The queue: priority, then arrival; nobody waits for ever, neither for a priority nor for memory."""

import threading
import time

import pytest

from daemon.core.errors import Code, InvalidRequest
from daemon.research.queueing import MOST_OVERTAKINGS, PATIENCE, JobQueue


def put(queue, priority, *items, memory=0):
    return [queue.put(item, priority, memory) for item in items]


def take(queue, count):
    """Take jobs, each of which ends at once."""
    taken = []
    for _ in range(count):
        ticket = queue.take()
        queue.release(ticket)
        taken.append(ticket.item)
    return taken


def test_jobs_go_by_priority_then_by_arrival():
    queue = JobQueue()
    put(queue, "low", "l1")
    put(queue, "normal", "n1", "n2")
    put(queue, "high", "h1", "h2")
    put(queue, "normal", "n3")
    assert take(queue, 6) == ["h1", "h2", "n1", "n2", "n3", "l1"]


def test_lower_classes_go_after_having_been_passed_over_often_enough():
    queue = JobQueue()
    put(queue, "low", "l1", "l2")
    put(queue, "normal", "n1", "n2")
    put(queue, "high", *range(100))
    taken = take(queue, 60)
    assert taken[:PATIENCE] == list(range(PATIENCE))
    assert taken[PATIENCE : PATIENCE + 2] == ["n1", "l1"]
    assert {"n2", "l2"} < set(taken[: 3 * PATIENCE + 4])
    assert [item for item in taken if isinstance(item, int)] == list(range(56))


def test_a_class_that_was_empty_has_not_been_passed_over():
    queue = JobQueue()
    put(queue, "high", *range(50))
    take(queue, 40)
    put(queue, "low", "l1")
    assert take(queue, 2) == [40, 41]


def test_others_overtake_a_job_that_does_not_fit_but_only_so_often():
    queue = JobQueue(100)
    put(queue, "normal", "first", memory=60)
    first = queue.take()
    put(queue, "normal", "large", memory=80)
    put(queue, "normal", *range(20), memory=10)
    assert take(queue, MOST_OVERTAKINGS) == list(range(MOST_OVERTAKINGS))
    taken = []
    waiting = threading.Thread(target=lambda: taken.append(queue.take()))
    waiting.start()
    time.sleep(0.05)
    assert taken == []  # small ones would fit: they wait for the large one now
    queue.release(first)
    waiting.join(5)
    assert taken[0].item == "large"
    assert take(queue, 2) == [MOST_OVERTAKINGS, MOST_OVERTAKINGS + 1]


def test_what_takes_no_memory_is_never_held_up_by_what_does():
    queue = JobQueue(100)
    put(queue, "normal", "first", memory=60)
    queue.take()
    put(queue, "normal", "large", memory=80)
    put(queue, "normal", *range(50))
    assert take(queue, 50) == list(range(50))


def test_jobs_never_hold_more_than_the_budget_together():
    queue = JobQueue(100)
    held, most, lock = 0, 0, threading.Lock()
    sizes = [10, 90, 55, 45, 100, 1, 30, 70] * 8

    def work():
        nonlocal held, most
        while (ticket := queue.take()) is not None and ticket.item != "end":
            with lock:
                held += ticket.memory_bytes
                most = max(most, held)
            time.sleep(0.0005)
            with lock:
                held -= ticket.memory_bytes
                done.append(ticket.item)
            queue.release(ticket)

    done = []
    for number, size in enumerate(sizes):
        queue.put(number, ("low", "normal", "high")[number % 3], size)
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(done) < len(sizes):
        assert time.monotonic() < deadline, f"only {len(done)} of {len(sizes)} were let in"
        time.sleep(0.002)
    queue.close()
    for thread in threads:
        thread.join(5)
    assert sorted(done) == list(range(len(sizes)))
    assert 50 < most <= 100


def test_a_job_that_never_fits_is_refused_with_bound_and_budget():
    queue = JobQueue(100 << 20)
    with pytest.raises(InvalidRequest, match=r"101 MiB .* 100 MiB") as refused:
        queue.put("large", "high", (100 << 20) + 1)
    assert refused.value.code == Code.MEMORY_BOUND_EXCEEDED
    assert refused.value.details == {"bound_mb": 101, "budget_mb": 100}
    put(queue, "low", "just fits", memory=100 << 20)
    assert take(queue, 1) == ["just fits"]


def test_removing_who_blocks_the_queue_lets_the_others_go():
    queue = JobQueue(100)
    put(queue, "normal", "first", memory=60)
    queue.take()
    (large,) = put(queue, "normal", "large", memory=80)
    put(queue, "normal", *range(10), memory=10)
    take(queue, MOST_OVERTAKINGS)
    queue.remove(large)
    assert take(queue, 2) == [MOST_OVERTAKINGS, MOST_OVERTAKINGS + 1]
    queue.remove(large)


def test_closing_wakes_who_waits_and_returns_who_waited_in_order():
    queue = JobQueue()
    taken = []
    threads = [threading.Thread(target=lambda: taken.append(queue.take())) for _ in range(3)]
    for thread in threads:
        thread.start()
    queue.close()
    for thread in threads:
        thread.join(5)
    assert taken == [None, None, None]
    other = JobQueue()
    put(other, "low", "a")
    put(other, "high", "b")
    assert other.close() == ["a", "b"]
    assert (other.take(), other.put("c", "high", 0)) == (None, None)


def test_ten_thousand_that_wait_are_taken_in_no_time():
    queue = JobQueue(100)
    for number in range(10_000):
        queue.put(number, ("low", "normal", "high")[number % 3], number % 100)
    began = time.perf_counter()
    assert len(take(queue, 5_000)) == 5_000
    assert time.perf_counter() - began < 5
    queue.close()
