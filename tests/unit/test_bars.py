import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import probe as naive

from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, NS_PER_SECOND, Bars
from daemon.engine.bars import lengthen
from daemon.engine.checks import Violation, check

MINUTE = 60 * NS_PER_SECOND


def some_bars(starts, rows=None):
    rows = [(10.0, 12.0, 9.0, 11.0, 1.5)] * len(starts) if rows is None else rows
    columns = np.array(rows, dtype=float).reshape(-1, 5).T
    return Bars(np.array(starts, dtype=np.int64), *(column.copy() for column in columns))


@st.composite
def any_bars(draw):
    steps = draw(st.lists(st.integers(1, 200), max_size=60))
    starts = draw(st.integers(-5_000, 5_000)) + np.cumsum([0, *steps])[: len(steps)]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    opens, close = rng.integers(900, 1100, (2, len(steps))) * 0.1
    high, low = np.maximum(opens, close) + 0.3, np.minimum(opens, close) - 0.7
    return Bars(starts.astype(np.int64) * MINUTE, opens, high, low, close, rng.lognormal(0, 3, len(steps)))


@settings(deadline=None)
@given(bars=any_bars(), width=st.sampled_from([MINUTE, 5 * MINUTE, 7 * MINUTE, NS_PER_HOUR, NS_PER_DAY]))
def test_longer_bars_are_those_of_the_oracle_to_the_bit(bars, width):
    for name, got, wanted in zip(Bars._fields, lengthen(bars, width), naive.resample(bars, width), strict=True):
        assert got.dtype == wanted.dtype
        assert got.tolist() == wanted.tolist(), name


def test_a_longer_bar_is_first_highest_lowest_last_and_sum():
    rows = [(10.0, 12.0, 9.0, 11.0, 1.5), (11.0, 15.0, 10.0, 14.0, 2.0), (14.0, 14.5, 7.0, 8.0, 0.25)]
    merged = lengthen(some_bars([0, 1, 2], rows), NS_PER_HOUR)
    assert [column.tolist() for column in merged] == [[0], [10.0], [15.0], [7.0], [8.0], [3.75]]


@pytest.mark.parametrize(
    ("starts", "labels"),
    [
        ([0, 59, 60, 119], [0, 60]),
        ([7, 61], [0, 60]),
        ([-1, 0], [-60, 0]),
        ([-61, -60, -1], [-120, -60]),
        ([-60], [-60]),
        ([30, 400], [0, 360]),
    ],
)
def test_longer_bars_start_at_multiples_of_their_length_also_before_1970(starts, labels):
    merged = lengthen(some_bars([start * MINUTE for start in starts]), NS_PER_HOUR)
    assert (merged.start_ns // MINUTE).tolist() == labels


def test_no_bars_make_no_longer_bars():
    assert lengthen(some_bars([]), NS_PER_HOUR).size == 0


def test_longer_bars_own_their_memory():
    bars = some_bars([0, 1])
    merged = lengthen(bars, 1)
    assert all(column.base is None for column in merged)
    assert not any(np.shares_memory(*pair) for pair in zip(bars, merged, strict=True))


@settings(deadline=None)
@given(bars=any_bars())
def test_sound_bars_pass_the_check(bars):
    assert check(bars) is None


@pytest.mark.parametrize(
    ("changed", "field", "rule"),
    [
        *(({name: bad}, name, "is not a finite number") for name in Bars._fields[1:] for bad in (math.nan, math.inf)),
        *(({name: -math.inf}, name, "is not a finite number") for name in Bars._fields[1:]),
        ({"open": 0.0, "low": 0.0}, "open", "is not positive"),
        ({"low": 0.0}, "low", "is not positive"),
        ({"low": -1.0}, "low", "is not positive"),
        ({"low": 0.0, "close": 0.0}, "low", "is not positive"),
        ({"high": -1.0}, "high", "is not positive"),
        ({"close": -1.0}, "close", "is not positive"),
        ({"high": 8.0}, "high", "is below the low"),
        ({"open": 12.5}, "open", "is above the high"),
        ({"open": 8.5}, "open", "is below the low"),
        ({"close": 12.5}, "close", "is above the high"),
        ({"close": 8.5}, "close", "is below the low"),
        ({"volume": -0.5}, "volume", "is negative"),
    ],
)
def test_a_row_that_is_no_bar_is_named_with_its_rule(changed, field, rule):
    bars = some_bars([0, 1, 2])
    for name, value in changed.items():
        getattr(bars, name)[1] = value
    assert check(bars) == Violation(1, field, rule)


def test_the_first_bad_row_is_named_whatever_its_rule():
    bars = some_bars([0, 1, 2, 3])
    bars.open[3] = math.nan
    bars.volume[2] = -1.0
    assert check(bars) == Violation(2, "volume", "is negative")


@pytest.mark.parametrize("row", [(10.0, 10.0, 10.0, 10.0, 0.0), (9.0, 12.0, 9.0, 12.0, 0.001), (5e-324,) * 5])
def test_the_edges_of_a_bar_belong_to_it(row):
    assert check(some_bars([0], [row])) is None


def test_times_are_not_looked_at():
    assert check(some_bars([5, 5, -1])) is None
    assert check(some_bars([])) is None
