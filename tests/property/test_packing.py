"""Records of the live tail: any rows through the packing kernels and back."""

import itertools

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.store.packing import pack, unpack

LEAST, MOST = -(1 << 63), (1 << 63) - 1
FULL = 64 * 1024
numbers = (
    st.sampled_from([LEAST, LEAST + 1, -1, 0, 1, MOST - 1, MOST]) | st.integers(LEAST, MOST) | st.integers(-99, 99)
)


def needed(columns):
    """Bytes of a record, counted by hand: per column a number, a width, and the differences at that width."""
    total = 0
    for column in columns.tolist():
        deltas = [(b - a + (1 << 63)) % (1 << 64) - (1 << 63) for a, b in itertools.pairwise(column)]
        width = max((((delta << 1) ^ (delta >> 63)).bit_length() for delta in deltas), default=0)
        total += 9 + -(-width * len(deltas) // 8)
    return total


@st.composite
def records(draw, most_rows=40):
    columns, rows = draw(st.integers(1, 9)), draw(st.integers(1, most_rows))
    kind = draw(st.sampled_from(["any", "steps"]))
    if kind == "any":
        values = draw(st.lists(numbers, min_size=columns * rows, max_size=columns * rows))
        return np.array(values, dtype=np.int64).reshape(columns, rows)
    # Every width of difference from 0 to 64 bits, which any numbers seldom give.
    widths = draw(st.lists(st.integers(0, 63), min_size=columns, max_size=columns))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    steps = [rng.integers(-(1 << width), (1 << width) - 1, rows, endpoint=True) for width in widths]
    return np.cumsum(np.array(steps, dtype=np.int64), axis=1)


@settings(deadline=None, max_examples=300)
@given(columns=records())
@example(columns=np.array([[LEAST, MOST, LEAST, 0, MOST]]))
@example(columns=np.array([[MOST]]))
@example(columns=np.array([[0, LEAST], [0, 0]]))
def test_any_numbers_come_back_from_as_few_bytes_as_their_differences_need(columns):
    out = np.full(FULL, 0xA5, dtype=np.uint8)
    used = pack(columns, out)
    assert used == needed(columns)
    assert (out[used:] == 0xA5).all()
    back = np.zeros_like(columns)
    unpack(out[:used], np.array([0]), np.array([columns.shape[1]]), back)
    assert back.tolist() == columns.tolist()


@settings(deadline=None, max_examples=100)
@given(columns=records())
def test_a_record_that_does_not_fit_is_refused_and_one_that_just_fits_is_not(columns):
    size = needed(columns)
    out = np.full(size + 8, 0xA5, dtype=np.uint8)
    for room in range(max(0, size - 3), size):
        assert pack(columns, out[:room]) == -1
        assert (out[room:] == 0xA5).all()
    assert pack(columns, out[:size]) == size
    assert pack(columns, out[:0]) == -1


@settings(deadline=None, max_examples=100)
@given(width=st.integers(1, 6), data=st.data())
def test_records_behind_one_another_unpack_in_one_go(width, data):
    parts = data.draw(st.lists(st.lists(numbers, min_size=width, max_size=5 * width), max_size=6))
    parts = [np.array(part[: len(part) // width * width], dtype=np.int64).reshape(width, -1) for part in parts]
    content, offsets = np.empty(0, dtype=np.uint8), []
    for part in parts:
        out = np.zeros(FULL, dtype=np.uint8)
        used = pack(part, out)
        head = np.full(3, 0xFF, dtype=np.uint8)  # what a record has before its columns
        offsets.append(content.size + head.size)
        content = np.concatenate([content, head, out[:used]])
    counts = np.array([part.shape[1] for part in parts], dtype=np.int64)
    back = np.zeros((width, int(counts.sum())), dtype=np.int64)
    unpack(content, np.array(offsets, dtype=np.int64), counts, back)
    assert back.tolist() == np.concatenate([np.empty((width, 0), dtype=np.int64), *parts], axis=1).tolist()
