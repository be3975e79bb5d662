"""The book against two dictionaries."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from naive import level_book as naive

from daemon.core.ticks import BUY, SELL, DepthFlag, Stream, ticks
from daemon.engine.book import Book
from daemon.engine.levels import set_level

SIDES = (BUY, SELL)
ROWS = st.lists(
    st.tuples(
        st.sampled_from(SIDES),
        st.one_of(st.integers(900, 1_100), st.integers(0, 5_000)),
        st.sampled_from([0, 0, 1, 2, 7, -1]),
        st.sampled_from([0, 0, 0, 0, 0, 0, *DepthFlag, DepthFlag.SNAPSHOT, DepthFlag.SNAPSHOT | DepthFlag.AFTER_GAP]),
        st.integers(0, 1),
    ),
    max_size=120,
)


def depth(rows):
    sides, prices, sizes, flags, steps = (list(column) for column in zip(*rows, strict=True)) if rows else [[]] * 5
    return ticks(
        Stream.DEPTH,
        price_decimals=1,
        size_decimals=3,
        time_ns=np.cumsum(np.array(steps, dtype=np.int64)),
        id=np.cumsum(np.array(steps, dtype=np.int64)),
        side=sides,
        price=prices,
        size=sizes,
        flags=[int(each) for each in flags],
    )


def events_of(rows):
    """Return where each event begins and stops."""
    starts = np.flatnonzero(np.diff(rows.column("id"), prepend=-1)).tolist()
    return itertools.pairwise([*starts, rows.size])


@given(ROWS)
def test_a_book_is_two_dictionaries_however_small_its_window(rows):
    """A window of 64 ticks moves all the time, and most levels lie outside of it."""
    book, slow = Book(window=64, most_far=256), naive.Book()
    made = depth([(BUY, 1_000, 5, DepthFlag.SNAPSHOT, 1), (SELL, 1_001, 5, DepthFlag.SNAPSHOT, 0), *rows])
    columns = [made.column(name).tolist() for name in ("id", "side", "price", "size", "flags")]
    values = list(zip(*columns, strict=True))
    for start, stop in events_of(made):
        book.apply(made.rows(start, stop))
        for row in values[start:stop]:
            slow.row(*row)
        slow.end_of_event()
        assert book.best == slow.best
        assert book.is_whole == slow.is_whole
    for side in SIDES:
        found = book.top(side, 50)
        assert list(zip(found.prices.tolist(), found.sizes.tolist(), strict=True)) == slow.top(side, 50)
    counted = {name: int(book.state[name][0]) for name in ("unknown", "crossed", "early", "negative", "gaps")}
    assert counted == {name: getattr(slow, name) for name in counted}


@given(ROWS)
def test_events_at_once_or_one_by_one_make_the_same_book(rows):
    at_once, one_by_one = Book(window=128), Book(window=128)
    made = depth(rows)
    at_once.apply(made)
    for start, stop in events_of(made):
        one_by_one.apply(made.rows(start, stop))
    assert at_once.state == one_by_one.state
    assert at_once.checksum() == one_by_one.checksum()
    best = at_once.top(BUY, 1)
    if best.prices.size:
        other = Book(window=128)
        other.apply(made)
        set_level(other.books, 0, 0, int(best.prices[0]), int(best.sizes[0]) + 1)
        assert other.checksum() != at_once.checksum()
