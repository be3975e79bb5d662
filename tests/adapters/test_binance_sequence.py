"""Continuity of books: the venue's rules for spot and futures, breaks, overlaps, and where a snapshot belongs."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive.book import Book

from adapters.binance.messages import DepthEvent
from adapters.binance.sequence import DepthSequence, State
from daemon.core.market import NS_PER_SECOND
from daemon.core.ports import HoleReason
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream, concatenate, ticks

SNAPSHOT, AFTER_GAP = DepthFlag.SNAPSHOT, DepthFlag.AFTER_GAP


def rows(update_id, levels, *, time_ns, local_ns=0, flags=0):
    """levels: [(side, price, size)]."""
    count = len(levels)
    return ticks(
        Stream.DEPTH,
        price_decimals=0,
        size_decimals=0,
        time_ns=np.full(count, time_ns),
        local_ns=np.full(count, local_ns),
        id=np.full(count, update_id),
        side=[side for side, _, _ in levels],
        price=np.array([price for _, price, _ in levels], np.int64),
        size=np.array([size for _, _, size in levels], np.int64),
        flags=np.full(count, flags),
    )


LEVELS = ((BUY, 10, 1), (SELL, 11, 2))


def event(first, last, previous=None, *, time_ns=None, levels=LEVELS):
    """A change U..u; previous: pu, without it as on spot."""
    time_ns = last * 10 if time_ns is None else time_ns
    previous = first - 1 if previous is None else previous
    return DepthEvent(first, last, previous, time_ns, rows(last, levels, time_ns=time_ns))


def book(last, *, time_ns=None, local_ns=5_000, levels=LEVELS):
    return rows(last, levels, time_ns=local_ns if time_ns is None else time_ns, local_ns=local_ns, flags=SNAPSHOT)


def told(passed):
    """[(id, flags)] of what passed, one per change or snapshot."""
    made = []
    for part in passed.rows:
        (update_id,) = set(part.column("id").tolist())
        (flags,) = set(part.column("flags").tolist())
        made.append((update_id, flags))
    return made


def synchronised(*events, at=100):
    sequence = DepthSequence()
    sequence.events([event(at - 4, at)])
    assert sequence.snapshot(book(at)) is not None
    sequence.events(events)
    return sequence


def test_changes_wait_for_a_snapshot_and_then_follow_it():
    sequence = DepthSequence()
    assert not sequence.wants_snapshot
    assert sequence.events([event(90, 95), event(96, 100), event(101, 105)]).rows == []
    assert sequence.wants_snapshot
    passed = sequence.snapshot(book(97))
    assert told(passed) == [(95, 0), (97, SNAPSHOT), (100, 0), (105, 0)]
    assert sequence.state is State.SYNCHRONISED
    assert not sequence.wants_snapshot
    assert told(sequence.events([event(106, 110)])) == [(110, 0)]


def test_changes_that_a_snapshot_covers_come_before_it():
    sequence = DepthSequence()
    sequence.events([event(90, 95), event(96, 100)])
    assert told(sequence.snapshot(book(100))) == [(95, 0), (100, 0), (100, SNAPSHOT)]


def test_a_snapshot_older_than_the_first_change_is_not_taken():
    sequence = DepthSequence()
    sequence.events([event(90, 95)])
    assert sequence.snapshot(book(88)) is None
    assert sequence.wants_snapshot
    assert told(sequence.snapshot(book(89))) == [(89, SNAPSHOT), (95, 0)]


def test_an_empty_snapshot_is_not_taken():
    sequence = DepthSequence()
    sequence.events([event(90, 95)])
    assert sequence.snapshot(book(95, levels=())) is None


def test_a_snapshot_ahead_of_the_stream_covers_what_comes_late():
    sequence = DepthSequence()
    sequence.events([event(90, 95)])
    assert told(sequence.snapshot(book(103))) == [(95, 0), (103, SNAPSHOT)]
    assert told(sequence.events([event(96, 100), event(101, 105), event(106, 107)])) == [(105, 0), (107, 0)]


def test_the_first_change_after_a_snapshot_may_not_begin_beyond_it():
    sequence = DepthSequence()
    sequence.events([event(90, 95)])
    sequence.snapshot(book(103))
    passed = sequence.events([event(105, 110)])
    assert passed.rows == []
    assert [(hole.after_id, hole.before_id) for hole in passed.holes] == [(103, 105)]
    assert sequence.wants_snapshot


def test_on_futures_the_first_change_covers_the_snapshot_or_follows_the_change_that_does():
    sequence = DepthSequence()
    sequence.events([event(90, 95, 80), event(99, 110, 95)])
    # 97 lies between two changes: ids of futures are shared by all symbols.
    assert told(sequence.snapshot(book(97, time_ns=1))) == [(95, 0), (97, SNAPSHOT), (110, 0)]


def test_spot_demands_the_next_id():
    passed = synchronised().events([event(101, 105), event(106, 107), event(109, 112)])
    assert len(passed.rows) == 2
    (hole,) = passed.holes
    assert hole.reason is HoleReason.SEQUENCE
    assert (hole.start_ns, hole.stop_ns, hole.after_id, hole.before_id) == (1_070, 1_120, 107, 109)


def test_futures_demand_the_end_of_the_change_before():
    sequence = synchronised()
    assert told(sequence.events([event(150, 160, 100), event(400, 420, 160)])) == [(160, 0), (420, 0)]
    passed = sequence.events([event(500, 510, 421)])
    assert [(hole.after_id, hole.before_id) for hole in passed.holes] == [(420, 500)]


def test_after_a_break_changes_wait_for_another_snapshot_and_its_first_rows_say_so():
    sequence = synchronised()
    passed = sequence.events([event(103, 105), event(106, 110)])
    assert passed.rows == []
    assert sequence.state is State.BUFFERING
    assert sequence.snapshot(book(101)) is None
    assert told(sequence.snapshot(book(107))) == [(105, AFTER_GAP), (107, SNAPSHOT), (110, 0)]


def test_a_snapshot_that_comes_first_after_a_break_says_so_itself():
    sequence = synchronised()
    sequence.events([event(103, 105)])
    assert told(sequence.snapshot(book(102))) == [(102, SNAPSHOT | AFTER_GAP), (105, 0)]


def test_the_mark_of_a_break_moves_on_where_its_first_change_is_empty():
    sequence = synchronised()
    sequence.events([event(103, 105, levels=()), event(106, 107)])
    assert told(sequence.snapshot(book(108))) == [(107, AFTER_GAP), (108, SNAPSHOT)]


def test_a_break_while_waiting_is_a_hole_too():
    sequence = DepthSequence()
    passed = sequence.events([event(90, 95), event(97, 99), event(100, 101)])
    assert told(passed) == [(95, 0)]
    assert [(hole.after_id, hole.before_id) for hole in passed.holes] == [(95, 97)]
    assert told(sequence.snapshot(book(99))) == [(99, AFTER_GAP), (99, SNAPSHOT), (101, 0)]


def test_repeats_are_dropped():
    sequence = synchronised()
    assert told(sequence.events([event(96, 100), event(101, 105), event(101, 105), event(90, 99)])) == [(105, 0)]


def test_changes_cut_otherwise_by_another_connection_overlap_without_a_break():
    sequence = synchronised()
    passed = sequence.events([event(101, 110), event(106, 115), event(101, 112), event(116, 120)])
    assert told(passed) == [(110, 0), (115, 0), (120, 0)]
    assert passed.holes == []


def test_a_restart_of_the_venue_s_ids_is_a_break():
    sequence = synchronised()
    later_ns = 1_000 + 61 * NS_PER_SECOND
    passed = sequence.events([event(1, 5, time_ns=later_ns)])
    assert [(hole.after_id, hole.before_id) for hole in passed.holes] == [(100, 1)]
    assert told(sequence.snapshot(book(5))) == [(5, AFTER_GAP), (5, SNAPSHOT)]


def test_too_many_waiting_changes_pass_without_a_book():
    sequence = DepthSequence(buffered_rows=5)
    passed = sequence.events([event(first, first) for first in range(1, 4)])
    assert told(passed) == [(1, 0), (2, 0), (3, 0)]
    assert sequence.wants_snapshot
    assert sequence.snapshot(book(2)) is None
    sequence.events([event(4, 4)])
    assert told(sequence.snapshot(book(3))) == [(3, SNAPSHOT), (4, 0)]


def test_what_waits_can_be_had_at_the_end():
    sequence = DepthSequence()
    sequence.events([event(1, 2)])
    assert told(sequence.flush()) == [(2, 0)]
    assert told(sequence.flush()) == []


def test_a_snapshot_of_a_known_book_is_not_needed():
    assert told(synchronised().snapshot(book(200))) == []


@pytest.mark.parametrize(
    ("events", "snapshot", "time_ns"),
    [
        ([event(90, 95), event(96, 100)], book(97), 950),  # the last change that it covers
        ([event(90, 95)], book(89, local_ns=5_000), 950),  # none: not behind what follows it
        ([event(90, 95)], book(89, local_ns=300), 300),
        ([event(90, 95), event(96, 100)], book(97, time_ns=970), 970),  # its own
    ],
)
def test_a_snapshot_without_a_time_takes_that_of_the_last_change_it_covers(events, snapshot, time_ns):
    sequence = DepthSequence()
    sequence.events(events)
    passed = sequence.snapshot(snapshot)
    (taken,) = [part for part in passed.rows if part.column("flags")[0] & SNAPSHOT]
    assert set(taken.time_ns.tolist()) == {time_ns}


class Market:
    """A book that changes at random, told in chunks as the venue tells it: spot's U..u, or futures' with pu."""

    def __init__(self, changes, *, futures):
        self.book = {}
        self.history = []
        self.futures = futures
        for place, (side, price, size) in enumerate(changes):
            self.history.append((3 * place + 3 if futures else place + 1, side, price, size))

    def at(self, update_id):
        levels = {}
        for each_id, side, price, size in self.history:
            if each_id <= update_id:
                levels[side, price] = size
        return {key: size for key, size in levels.items() if size}

    def told(self, cuts):
        """Changes cut after these places."""
        made = []
        bounds = sorted({0, len(self.history), *(cut % (len(self.history) + 1) for cut in cuts)})
        for start, stop in pairwise(bounds):
            part = self.history[start:stop]
            first, last = part[0][0], part[-1][0]
            previous = (self.history[start - 1][0] if start else 0) if self.futures else first - 1
            made.append(event(first, last, previous, levels=[change[1:] for change in part]))
        return made


CHANGES = st.lists(
    st.tuples(st.sampled_from([BUY, SELL]), st.integers(1, 6), st.integers(0, 3)), min_size=12, max_size=30
)
CUTS = st.lists(st.integers(0, 30), min_size=4, max_size=12)


@settings(max_examples=300, deadline=None)
@given(CHANGES, CUTS, CUTS, st.booleans(), st.sets(st.integers(0, 6), max_size=3), st.integers(0, 90), st.randoms())
def test_whatever_is_lost_repeated_or_overlaps_a_book_that_is_known_is_right(
    changes, cuts, other_cuts, futures, lost, snapshot_place, random
):
    market = Market(changes, futures=futures)
    mine = [each for place, each in enumerate(market.told(cuts)) if place not in lost]
    stream = list(mine)
    for each in market.told(other_cuts):  # another connection, whose changes come in between, in their order
        if random.random() < 0.5:
            place = next((place for place, own in enumerate(stream) if own.last_id >= each.last_id), len(stream))
            stream.insert(place, each)
    newest = market.history[-1][0]
    sequence, naive, holes, passed_rows = DepthSequence(), Book(), [], []
    asked = 0
    for each in stream:
        passed = sequence.events([each])
        holes += passed.holes
        passed_rows += passed.rows
        while sequence.wants_snapshot and asked < 40:
            asked += 1
            at = min(newest, (snapshot_place + asked * 7) % (newest + 1))
            levels = [(side, price, size) for (side, price), size in market.at(at).items()]
            answer = sequence.snapshot(book(at, time_ns=1, levels=levels))
            passed_rows += answer.rows if answer else []
    ids = [int(part.column("id")[0]) for part in passed_rows]
    assert ids == sorted(ids)
    for part in passed_rows:
        for row in zip(*(part.column(name).tolist() for name in ("id", "side", "price", "size", "flags")), strict=True):
            naive.apply(*row)
        if naive.known:
            shown = {(BUY, price): size for price, size in naive.bids.items()}
            shown |= {(SELL, price): size for price, size in naive.asks.items()}
            assert shown == market.at(naive.id)


@settings(max_examples=100, deadline=None)
@given(CHANGES, CUTS, st.booleans(), st.integers(1, 5))
def test_taking_changes_together_or_one_by_one_is_the_same(changes, cuts, futures, size):
    events = Market(changes, futures=futures).told(cuts)
    whole, pieces = DepthSequence(), DepthSequence()
    together = [whole.events(events), whole.flush()]
    apart = [pieces.events(events[start : start + size]) for start in range(0, len(events), size)]
    apart.append(pieces.flush())

    def columns(passed):
        parts = [part for each in passed for part in each.rows]
        return [column.tolist() for column in concatenate(parts).columns] if parts else []

    assert columns(together) == columns(apart)
