"""Bars from ticks against the slow oracle, however the ticks are cut into blocks."""

from fractions import Fraction

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import tick_bars as naive

from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Bars, Timeframe
from daemon.core.ticks import Stream, ticks
from daemon.engine.tick_bars import (
    Measure,
    MeasuredBars,
    ThresholdBars,
    ThresholdBarsState,
    TickBars,
    TickBarsState,
    bars_of,
)

GAPS_NS = (
    0,
    1,
    NS_PER_SECOND // 3,
    NS_PER_SECOND,
    50 * NS_PER_SECOND,
    3_000 * NS_PER_SECOND,
    NS_PER_DAY,
    9 * NS_PER_DAY,
)
SOME_TIMEFRAMES = st.lists(st.sampled_from(Timeframe), min_size=1, unique=True)


@st.composite
def times(draw, most=40):
    gaps = draw(st.lists(st.sampled_from(GAPS_NS), max_size=most))
    first = draw(st.integers(-40 * NS_PER_DAY, 40 * NS_PER_DAY) | st.sampled_from([0, -1, -NS_PER_DAY]))
    return (first + np.cumsum([0, *gaps])[: len(gaps)]).astype(np.int64)


def cut(draw, rows):
    """Rows in blocks of any sizes, empty ones too."""
    places = sorted(draw(st.lists(st.integers(0, rows.size), max_size=8)))
    return [rows.rows(a, b) for a, b in zip([0, *places], [*places, rows.size], strict=True)]


@st.composite
def exact_blocks(draw):
    """Return blocks of integers with decimals of their own, whose sums stay below 2^53 in the smallest unit of all."""
    blocks = []
    for rows in cut(draw, floats(draw(times()))):
        price_decimals, size_decimals = draw(st.integers(0, 4)), draw(st.integers(0, 5))
        numbers = st.integers(1, 10**4 * 10**price_decimals)
        sizes = st.integers(0, 10 * 10**size_decimals)
        blocks.append(
            ticks(
                Stream.TRADES,
                time_ns=rows.time_ns,
                price=draw(st.lists(numbers, min_size=rows.size, max_size=rows.size)),
                size=draw(st.lists(sizes, min_size=rows.size, max_size=rows.size)),
                price_decimals=price_decimals,
                size_decimals=size_decimals,
            )
        )
    return blocks


def floats(times_ns, seed=0):
    rng = np.random.default_rng(seed)
    return ticks(
        Stream.TRADES,
        time_ns=times_ns,
        price=rng.integers(1, 9_999, times_ns.size) * 0.1,
        size=rng.lognormal(0, 4, times_ns.size),
    )


@st.composite
def float_blocks(draw):
    return cut(draw, floats(draw(times()), draw(st.integers(0, 2**32 - 1))))


ANY_BLOCKS = exact_blocks() | float_blocks()


def as_rows(bars):
    return list(zip(*(column.tolist() for column in bars), strict=True))


def expected(blocks, timeframe):
    made = naive.bars(naive.ticks_of(blocks), timeframe.ns)
    return [(bar.start_ns, *bar[2:]) for bar in made]


def through_json(state, kind):
    return msgspec.json.decode(msgspec.json.encode(state), type=kind)


@settings(deadline=None, max_examples=150)
@given(blocks=ANY_BLOCKS, timeframes=SOME_TIMEFRAMES, stops=st.sets(st.integers(0, 8)))
def test_bars_are_those_of_the_oracle_however_cut_stopped_and_resumed(blocks, timeframes, stops):
    built = TickBars(timeframes)
    rows = {timeframe: [] for timeframe in timeframes}
    for place, block in enumerate(blocks):
        if place in stops:
            built = TickBars(timeframes, through_json(built.state, TickBarsState))
        for timeframe, bars in built.feed(block).items():
            rows[timeframe] += as_rows(bars)
    for timeframe, bars in built.finish().items():
        wanted = expected(blocks, timeframe)
        assert bars.size == min(1, len(wanted))
        assert rows[timeframe] + as_rows(bars) == wanted
        assert [column.dtype for column in bars] == [np.int64, *[np.float64] * 5]


@settings(deadline=None, max_examples=60)
@given(blocks=ANY_BLOCKS, timeframe=st.sampled_from(Timeframe))
def test_a_whole_pass_gives_the_open_bar_as_well(blocks, timeframe):
    assert as_rows(bars_of(blocks, timeframe)) == expected(blocks, timeframe)


@settings(deadline=None, max_examples=60)
@given(blocks=ANY_BLOCKS, timeframe=st.sampled_from(Timeframe), keep=st.integers(0, 9))
def test_complete_bars_of_a_prefix_are_a_prefix(blocks, timeframe, keep):
    built = TickBars([timeframe])
    complete = [row for block in blocks[:keep] for row in as_rows(built.feed(block)[timeframe])]
    assert as_rows(bars_of(blocks, timeframe))[: len(complete)] == complete


@settings(deadline=None, max_examples=100)
@given(
    blocks=ANY_BLOCKS,
    measure=st.sampled_from(Measure),
    hundredths=st.integers(1, 10**6) | st.integers(1, 10**9),
    stops=st.sets(st.integers(0, 8)),
)
def test_threshold_bars_are_those_of_the_oracle_however_cut_stopped_and_resumed(blocks, measure, hundredths, stops):
    threshold = hundredths / 100
    built = ThresholdBars(measure, threshold)
    rows = []
    for place, block in enumerate(blocks):
        if place in stops:
            built = ThresholdBars(measure, threshold, through_json(built.state, ThresholdBarsState))
        rows += as_rows(built.feed(block))
    is_exact = blocks[0].size_decimals is not None
    limit = Fraction(hundredths, 100) if is_exact else threshold
    closed, still_open = naive.measured_bars(naive.ticks_of(blocks), limit, by_notional=measure is Measure.NOTIONAL)
    assert rows == closed
    assert as_rows(built.finish()) == still_open


@settings(deadline=None, max_examples=60)
@given(blocks=ANY_BLOCKS, threshold=st.floats(0.01, 1e4))
def test_threshold_bars_follow_each_other_and_all_but_the_open_one_are_full(blocks, threshold):
    built = ThresholdBars(Measure.VOLUME, threshold)
    parts = [*(built.feed(block) for block in blocks), built.finish()]
    bars = MeasuredBars._make(np.concatenate(each) for each in zip(*parts, strict=True))
    assert (bars.start_ns <= bars.end_ns).all()
    assert (bars.end_ns[:-1] <= bars.start_ns[1:]).all()
    assert (bars.volume[: bars.size - parts[-1].size] >= threshold).all()
    assert Bars._fields[1:] == MeasuredBars._fields[2:]
