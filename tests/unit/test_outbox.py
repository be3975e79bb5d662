"""What waits for one client: its order, what is replaced, its bounds."""

import asyncio

import pytest

from daemon.api.outbox import MOST_ANSWERS, MOST_WAITING, Outbox, Queue, Slot


class Peer:
    """Takes frames while it reads."""

    def __init__(self):
        self.taken = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.overflows = 0

    async def send(self, frames):
        await self.reads.wait()
        self.taken += frames

    def overflowed(self):
        self.overflows += 1


@pytest.fixture
async def peer():
    return Peer()


@pytest.fixture
async def outbox(peer):
    """An outbox whose task runs, to a peer that reads."""
    made = Outbox(peer.send, peer.overflowed)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()


async def settled():
    for _ in range(MOST_WAITING // 16):
        await asyncio.sleep(0)


async def stalled(peer, outbox):
    """Have the peer stop reading, with a frame on its way."""
    peer.reads.clear()
    outbox.answer(b"on its way")
    await settled()


async def test_frames_go_out_in_the_order_they_came(peer, outbox):
    outbox.answer(b"a")
    outbox.fact(b"f", "run")
    outbox.progress(b"p", "backtest:progress", "run")
    outbox.answer(b"b")
    await settled()
    assert peer.taken == [b"a", b"f", b"p", b"b"]


async def test_progress_that_waits_is_replaced_in_its_place_by_what_comes_later(peer, outbox):
    await stalled(peer, outbox)
    for number in range(50):
        outbox.progress(b"x%d" % number, "backtest:progress", "x")
        outbox.progress(b"y%d" % number, "backtest:progress", "y")
    outbox.answer(b"after")
    outbox.progress(b"x last", "backtest:progress", "x")
    outbox.progress(b"other", "optimization:progress", "x")
    peer.reads.set()
    await settled()
    assert peer.taken == [b"on its way", b"x last", b"y49", b"after", b"other"]


async def test_progress_that_was_sent_is_followed_by_the_next(peer, outbox):
    outbox.progress(b"1", "backtest:progress", "x")
    await settled()
    outbox.progress(b"2", "backtest:progress", "x")
    await settled()
    assert peer.taken == [b"1", b"2"]


async def test_progress_never_overtakes_a_fact_of_its_run(peer, outbox):
    await stalled(peer, outbox)
    outbox.progress(b"old", "backtest:progress", "x")
    outbox.fact(b"complete", "x")
    outbox.progress(b"of the next attempt", "backtest:progress", "x")
    peer.reads.set()
    await settled()
    assert peer.taken == [b"on its way", b"old", b"complete", b"of the next attempt"]


async def test_a_client_that_takes_no_facts_is_given_up_once(peer, outbox):
    await stalled(peer, outbox)
    for number in range(MOST_WAITING):
        outbox.fact(b"%d" % number, "x")
    assert (peer.overflows, outbox.is_over, len(outbox)) == (0, False, MOST_WAITING)
    outbox.fact(b"one more", "x")
    outbox.fact(b"and another", "x")
    outbox.answer(b"nor this")
    assert (peer.overflows, outbox.is_over, len(outbox)) == (1, True, 0)


async def test_progress_is_left_out_rather_than_given_up_for(peer, outbox):
    await stalled(peer, outbox)
    for number in range(MOST_WAITING + 10):
        outbox.progress(b"p", "backtest:progress", f"run {number}")
    assert (peer.overflows, len(outbox)) == (0, MOST_WAITING)
    outbox.progress(b"newer", "backtest:progress", "run 0")
    peer.reads.set()
    await settled()
    assert peer.taken[1] == b"newer"


async def test_who_reads_requests_waits_until_answers_are_taken(peer, outbox):
    await stalled(peer, outbox)
    await asyncio.wait_for(outbox.room(), 1)
    for _ in range(MOST_ANSWERS):
        outbox.answer(b"a")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outbox.room(), 0.01)
    peer.reads.set()
    await asyncio.wait_for(outbox.room(), 1)


async def test_many_small_frames_are_written_at_once_and_large_ones_by_themselves(peer):
    batches = []

    async def send(frames):
        await peer.reads.wait()
        batches.append([len(frame) for frame in frames])

    peer.reads.clear()
    other = Outbox(send, peer.overflowed)
    for size in (10,) * 100 + (50_000, 50_000, 10):
        other.fact(bytes(size), "x")
    task = asyncio.create_task(other.run())
    peer.reads.set()
    await settled()
    task.cancel()
    assert batches == [[10] * 64, [10] * 36 + [50_000], [50_000], [10]]


async def test_one_large_answer_is_enough_to_wait_for(peer, outbox):
    await stalled(peer, outbox)
    outbox.answer(bytes(9 << 20))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(outbox.room(), 0.01)
    peer.reads.set()
    await asyncio.wait_for(outbox.room(), 1)


async def test_a_closed_outbox_lets_nobody_wait(peer, outbox):
    await stalled(peer, outbox)
    for _ in range(MOST_ANSWERS):
        outbox.answer(b"a")
    outbox.close()
    await asyncio.wait_for(outbox.room(), 1)
    assert peer.overflows == 0


def test_a_queue_forgets_what_was_latest_when_it_is_taken():
    queue = Queue()
    queue.push_latest(1, "progress", "x")
    assert queue.is_waiting("progress", "x")
    assert queue.pop().content == 1
    assert not queue.is_waiting("progress", "x")
    queue.push_latest(2, "progress", "x")
    queue.push(Slot(3), "x")
    assert not queue.is_waiting("progress", "x")
    assert [queue.pop().content for _ in range(2)] == [2, 3]
    with pytest.raises(IndexError):
        queue.pop()
