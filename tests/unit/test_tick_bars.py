import math
from decimal import Decimal
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, NS_PER_SECOND, Bars, Timeframe
from daemon.core.ticks import Stream, Ticks, empty, ticks
from daemon.engine import tick_bars
from daemon.engine.checks import check
from daemon.engine.tick_bars import (
    Measure,
    MeasuredBars,
    ThresholdBars,
    ThresholdBarsState,
    TickBars,
    TickBarsState,
    bars_of,
)

SEC, MIN, HOUR, DAY = Timeframe.SEC_1, Timeframe.MIN_1, Timeframe.HOUR_1, Timeframe.DAY_1
MINUTE = 60 * NS_PER_SECOND


def trades(times_ns, prices, sizes=None, price_decimals=0, size_decimals=0, stream=Stream.TRADES):
    sizes = [1] * len(times_ns) if sizes is None else sizes
    decimals = {"price_decimals": price_decimals, "size_decimals": size_decimals}
    return ticks(stream, time_ns=times_ns, price=prices, size=sizes, **decimals)


def columns(bars):
    return [column.tolist() for column in bars]


def test_a_bar_is_first_highest_lowest_last_and_sum():
    rows = trades([0, 5, 5, 59 * NS_PER_SECOND], [100, 103, 98, 101], [5, 10, 25, 1], 1, 2)
    assert columns(bars_of([rows], MIN)) == [[0], [10.0], [10.3], [9.8], [10.1], [0.41]]


def test_one_pass_makes_all_lengths():
    built = TickBars(list(Timeframe))
    fed = built.feed(trades([0, 1, 59 * NS_PER_SECOND, 61 * MINUTE], [1, 4, 2, 3]))
    assert {timeframe: bars.size for timeframe, bars in fed.items()} == dict(
        zip(Timeframe, (2, 1, 1, 1, 1, 0), strict=True)
    )
    assert columns(fed[SEC]) == [[0, 59 * NS_PER_SECOND], [1, 2], [4, 2], [1, 2], [4, 2], [2, 1]]
    assert columns(fed[HOUR]) == [[0], [1], [4], [1], [2], [3]]
    assert columns(built.finish()[HOUR]) == [[NS_PER_HOUR], [3], [3], [3], [3], [1]]
    assert columns(built.finish()[DAY]) == [[0], [1], [4], [1], [3], [4]]


def test_a_bar_is_complete_only_when_a_later_tick_has_left_it_behind():
    built = TickBars([MIN])
    assert built.feed(trades([0], [7]))[MIN].size == 0
    assert built.feed(trades([MINUTE - 1], [8]))[MIN].size == 0
    assert columns(built.feed(trades([MINUTE], [9]))[MIN]) == [[0], [7], [8], [7], [8], [2]]
    assert columns(built.finish()[MIN]) == [[MINUTE], [9], [9], [9], [9], [1]]


def test_finish_changes_nothing():
    built = TickBars([MIN])
    built.feed(trades([0], [7]))
    assert columns(built.finish()[MIN]) == columns(built.finish()[MIN])
    built.feed(trades([1], [9]))
    assert columns(built.finish()[MIN]) == [[0], [7], [9], [7], [9], [2]]


def test_intervals_without_a_tick_are_absent():
    bars = bars_of([trades([0, 10 * NS_PER_DAY, 10 * NS_PER_DAY + 3 * MINUTE], [1, 2, 3])], MIN)
    assert bars.start_ns.tolist() == [0, 10 * NS_PER_DAY, 10 * NS_PER_DAY + 3 * MINUTE]


@pytest.mark.parametrize(
    ("times_ns", "starts_ns"),
    [
        ([-1, 0], [-NS_PER_HOUR, 0]),
        ([-NS_PER_HOUR - 1, -NS_PER_HOUR, -1], [-2 * NS_PER_HOUR, -NS_PER_HOUR]),
        ([-NS_PER_HOUR], [-NS_PER_HOUR]),
    ],
)
def test_bars_start_at_multiples_of_their_length_also_before_1970(times_ns, starts_ns):
    assert bars_of([trades(times_ns, [1] * len(times_ns))], HOUR).start_ns.tolist() == starts_ns


def test_no_ticks_make_no_bars():
    built = TickBars([SEC, DAY])
    for answer in (built.finish(), built.feed(empty(Stream.TRADES)), built.finish()):
        assert {timeframe: bars.size for timeframe, bars in answer.items()} == {SEC: 0, DAY: 0}
    assert bars_of([], DAY).size == 0
    assert [column.dtype for column in bars_of([], DAY)] == [
        column.dtype for column in bars_of([trades([0], [1])], DAY)
    ]


def test_an_empty_block_leaves_the_pass_as_it_was():
    built = TickBars([DAY])
    built.feed(trades([5], [7]))
    state = built.state
    built.feed(empty(Stream.TRADES))
    assert built.state == state


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_volume_is_the_float_nearest_to_the_decimal_sum(size):
    texts = ["0.1", "0.2", "12345678.87654321", "0.00000001", "0.7"]
    integers = [int(Decimal(text).scaleb(8)) for text in texts]
    parts = [integers[i : i + size] for i in range(0, len(integers), size)]
    blocks = [trades([0] * len(part), [1] * len(part), part, size_decimals=8) for part in parts]
    assert bars_of(blocks, DAY).volume.tolist() == [float(sum(map(Decimal, texts)))]


def test_volumes_degrade_beyond_two_to_the_53rd_and_do_not_overflow():
    rows = trades([0, 0, 0], [1, 1, 1], [2**63 - 1] * 3, size_decimals=8)
    assert bars_of([rows], DAY).volume[0] == pytest.approx(3 * 2**63 / 1e8, rel=1e-15)


def test_a_large_whole_price_keeps_every_digit():
    prices = [2**53 - 1, 2**53, -(2**53)]
    assert columns(bars_of([trades([0, 1, 2], prices)], DAY))[1:5] == [[2**53 - 1], [2**53], [-(2**53)], [-(2**53)]]


def test_prices_are_divided_not_multiplied_by_an_inverse():
    prices = list(range(1, 2000))
    bars = bars_of([trades([i * NS_PER_SECOND for i in prices], prices, price_decimals=3)], SEC)
    assert bars.close.tolist() == [float(Decimal(price).scaleb(-3)) for price in prices]


def test_one_block_with_many_decimals_does_not_coarsen_later_bars():
    built = TickBars([SEC])
    built.feed(trades([0], [1], [1], size_decimals=15))
    built.feed(trades([0, NS_PER_SECOND], [1, 1], [1, 1]))
    assert built.state.bars[SEC].decimals == 0
    last = built.feed(trades([NS_PER_SECOND, 2 * NS_PER_SECOND], [1, 1], [2**53 - 2, 1]))
    assert last[SEC].volume.tolist() == [2**53 - 1]


def test_a_volume_stays_exact_while_decimals_alternate():
    built = TickBars([DAY])
    sizes = np.random.default_rng(5).integers(1, 10**6, 200).tolist()
    for place, size in enumerate(sizes):
        built.feed(trades([0], [1], [size], size_decimals=8 if place % 2 else 1))
    exact = sum(Decimal(size).scaleb(-8 if place % 2 else -1) for place, size in enumerate(sizes))
    assert built.finish()[DAY].volume.tolist() == [float(exact)]
    assert built.state.bars[DAY].total == float(exact.scaleb(8))


def test_float_sizes_sum_in_row_order_whatever_other_lengths_are_asked_for():
    sizes = np.random.default_rng(1).lognormal(0, 5, 500)
    rows = trades(np.arange(500) * 7 * NS_PER_SECOND, np.ones(500), sizes, None, None)
    straight = 0.0
    for size in sizes.tolist():
        straight += size
    for timeframes in ([DAY], [SEC, DAY], list(Timeframe)):
        built = TickBars(timeframes)
        built.feed(rows.rows(0, 123))
        built.feed(rows.rows(123, 500))
        assert built.finish()[DAY].volume.tolist() == [straight]


def test_integers_and_floats_may_meet_in_one_bar():
    blocks = [trades([0], [5], [5], 1, 1), trades([1], [0.75], [0.25], None, None), trades([2], [1], [1])]
    assert columns(bars_of(blocks, DAY)) == [[0], [0.5], [1.0], [0.5], [1.0], [1.75]]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (trades([7, 6], [1, 1]), "row 1 goes back in time: 6 after 7"),
        (trades([4], [1]), "row 0 goes back in time: 4 after 5"),
        (trades([5, 6], [1.0, math.nan], [1, 1], None), "price of row 1 is not a finite number"),
        (trades([5], [1], [math.inf], 0, None), "size of row 0 is not a finite number"),
        (trades([2**63 - 1], [1]), "end of 64 bits"),
        (ticks(Stream.DEPTH, time_ns=[9], price=[1], size=[1], price_decimals=0, size_decimals=0), "not from depth"),
    ],
)
@pytest.mark.parametrize("make", [lambda: TickBars([SEC, DAY]), lambda: ThresholdBars(Measure.VOLUME, 9)])
def test_a_refused_block_changes_nothing(make, rows, complaint):
    built = make()
    built.feed(trades([5], [1]))
    state = built.state
    with pytest.raises(ValueError, match=complaint):
        built.feed(rows)
    assert built.state == state


def test_a_first_tick_far_in_the_past_is_refused():
    with pytest.raises(ValueError, match="end of 64 bits"):
        bars_of([trades([-(2**63)], [1])], DAY)


def test_the_most_distant_times_that_are_taken_have_their_bars():
    most = 2**63 - 1 - NS_PER_DAY
    bars = bars_of([trades([-most, most], [1, 2])], DAY)
    assert bars.start_ns.tolist() == [-most // NS_PER_DAY * NS_PER_DAY, most // NS_PER_DAY * NS_PER_DAY]


def test_aggregated_trades_make_bars_as_well():
    rows = ticks(
        Stream.AGG_TRADES,
        time_ns=[0],
        price=[1],
        size=[2],
        first_id=[1],
        last_id=[2],
        price_decimals=0,
        size_decimals=0,
    )
    assert columns(bars_of([rows], DAY)) == [[0], [1], [1], [1], [1], [2]]


def frozen(rows):
    made = []
    for column in rows.columns:
        copy = np.repeat(column, 2)[::2]
        copy.flags.writeable = False
        made.append(copy)
    return Ticks(rows.stream, tuple(made), rows.price_decimals, rows.size_decimals)


def test_columns_may_be_views_that_cannot_be_written():
    rows = trades([0, 1, 2, MINUTE], [4, 5, 6, 7], [1, 2, 3, 4], 1, 1)
    built = TickBars([MIN])
    assert columns(built.feed(frozen(rows))[MIN]) == [[0], [0.4], [0.6], [0.4], [0.6], [0.6]]
    assert ThresholdBars(Measure.VOLUME, 0.3).feed(frozen(rows)).volume.tolist() == [0.3, 0.3, 0.4]


def test_bars_are_not_overwritten_by_later_blocks():
    built = TickBars([SEC])
    cut = ThresholdBars(Measure.VOLUME, 1)
    rows = trades([0, NS_PER_SECOND], [1, 2])
    later = trades([2 * NS_PER_SECOND, 3 * NS_PER_SECOND], [8, 9])
    before = built.feed(rows)[SEC], cut.feed(rows)
    seen = [columns(bars) for bars in before]
    built.feed(later)
    cut.feed(later)
    assert [columns(bars) for bars in before] == seen


def test_bars_are_sound_and_fit_for_kernels():
    rng = np.random.default_rng(3)
    rows = trades(np.cumsum(rng.integers(0, 10**9, 999)), rng.integers(1, 99, 999), rng.integers(0, 9, 999), 2, 3)
    bars = TickBars([SEC, MIN]).feed(rows)[SEC]
    assert check(bars) is None
    assert all(column.flags.c_contiguous and column.flags.writeable for column in bars)
    assert isinstance(bars, Bars)


def test_a_pass_needs_timeframes_and_a_state_of_the_same():
    with pytest.raises(ValueError, match="no timeframes"):
        TickBars([])
    built = TickBars([MIN])
    built.feed(trades([0], [1]))
    with pytest.raises(ValueError, match="other timeframes: 1Min"):
        TickBars([SEC], built.state)
    assert TickBars([SEC], TickBarsState()).finish()[SEC].size == 0


def test_timeframes_come_in_any_order_and_more_than_once():
    fed = TickBars([DAY, SEC, DAY]).feed(trades([0, NS_PER_DAY], [1, 2]))
    assert {timeframe: bars.size for timeframe, bars in fed.items()} == {SEC: 1, DAY: 1}


def test_there_is_a_sum_for_every_timeframe_and_each_is_a_multiple_of_the_one_before():
    widths = sorted(timeframe.ns for timeframe in Timeframe)
    assert len(widths) == tick_bars._SUMS  # noqa: SLF001 - a literal for the compiler
    assert all(longer % shorter == 0 for shorter, longer in pairwise(widths))


def test_a_volume_bar_closes_with_the_tick_that_reaches_the_threshold():
    rows = trades([1, 2, 3, 4, 5], [10, 12, 9, 11, 11], [1, 2, 5, 2, 1], 0, 1)
    built = ThresholdBars(Measure.VOLUME, 0.3)
    assert columns(built.feed(rows)) == [
        [1, 3, 4],
        [2, 3, 5],
        [10, 9, 11],
        [12, 9, 11],
        [10, 9, 11],
        [12, 9, 11],
        [0.3, 0.5, 0.3],
    ]
    assert built.finish().size == 0


def test_a_notional_bar_closes_with_the_tick_that_reaches_the_threshold():
    rows = trades([1, 2, 3, 4], [100, 200, 50, 50], [1, 2, 1, 1], 3, 1)  # 0.01, 0.04, 0.005, 0.005
    built = ThresholdBars(Measure.NOTIONAL, 0.05)
    assert columns(built.feed(rows)) == [[1], [2], [0.1], [0.2], [0.1], [0.2], [0.3]]
    assert columns(built.finish()) == [[3], [4], [0.05], [0.05], [0.05], [0.05], [0.2]]


def test_a_threshold_is_the_decimal_it_prints_as():
    rows = trades(range(7), [1] * 7, size_decimals=2)  # the float 0.07 is a little above seven hundredths
    assert ThresholdBars(Measure.VOLUME, 0.07).feed(rows).volume.tolist() == [0.07]


def test_a_burst_at_one_time_fills_several_bars_that_share_it():
    made = ThresholdBars(Measure.VOLUME, 2).feed(trades([5, 5, 5, 5, 6], [1, 2, 3, 4, 5]))
    assert (made.start_ns.tolist(), made.end_ns.tolist()) == ([5, 5], [5, 5])


def test_ten_tenths_are_one_whatever_the_block_size():
    for size in (1, 3, 10):
        built = ThresholdBars(Measure.NOTIONAL, 1)
        blocks = [
            trades([0] * min(size, 10 - i), [1] * min(size, 10 - i), price_decimals=1) for i in range(0, 10, size)
        ]
        assert sum(built.feed(block).size for block in blocks) == 1
        assert built.finish().size == 0


def test_a_notional_stays_exact_while_decimals_alternate():
    built = ThresholdBars(Measure.NOTIONAL, 1_000_001)
    closed = 0
    for place in range(1000):
        fine = trades([0], [10_000_001], [100_000], 4, 5)  # 1000.0001
        coarse = trades([0], [10_000], [100], 1, 2)  # 1000
        closed += built.feed(fine if place % 2 else coarse).size
        assert built.state.measured_decimals <= 9
    assert closed == 0
    assert built.feed(trades([0], [9_499], [1], 4, 1)).size == 0  # 1000000.05, and 0.09499: far off yet
    assert built.feed(trades([0], [85_500], [1], 5, 0)).size == 0
    assert built.feed(trades([0], [1], [1], 4, 1)).size == 1


def test_a_notional_is_summed_in_no_finer_a_unit_than_its_own_ticks_have():
    built = ThresholdBars(Measure.NOTIONAL, 10)
    built.feed(trades([0], [1], [1], 4, 5))
    built.feed(trades([0], [1], [1], 1, 2))
    assert (built.state.measured, built.state.measured_decimals) == (10**6 + 1, 9)
    built.feed(trades([0, 0], [1000, 7], [100, 1], 1, 2))
    assert (built.state.measured, built.state.measured_decimals) == (7, 3)
    built.feed(trades([0], [1000], [100], 1, 2))
    assert (built.state.measured, built.state.measured_decimals) == (0, 0)


def test_a_tick_of_size_nothing_opens_a_bar():
    built = ThresholdBars(Measure.VOLUME, 1)
    built.feed(trades([3], [7], [0]))
    assert columns(built.finish()) == [[3], [3], [7], [7], [7], [7], [0]]
    assert columns(built.feed(trades([4], [8], [1]))) == [[3], [4], [7], [8], [7], [8], [1]]


@pytest.mark.parametrize("threshold", [0, -1, math.inf, math.nan])
def test_a_threshold_is_positive_and_finite(threshold):
    with pytest.raises(ValueError, match="never or always"):
        ThresholdBars(Measure.VOLUME, threshold)


@pytest.mark.parametrize("other", [(Measure.VOLUME, 2), (Measure.NOTIONAL, 1)])
def test_a_state_of_another_threshold_is_refused(other):
    with pytest.raises(ValueError, match="another threshold: volume 1"):
        ThresholdBars(*other, ThresholdBars(Measure.VOLUME, 1).state)


def test_threshold_bars_of_nothing_are_none():
    built = ThresholdBars(Measure.VOLUME, np.float64(1))
    assert built.feed(empty(Stream.TRADES)).size == built.finish().size == 0
    assert isinstance(built.finish(), MeasuredBars)


def test_states_go_through_json_bit_for_bit():
    rows = trades([0, 1], [1, 3], [1, 10**17], 1, 18)
    built, cut = TickBars(list(Timeframe)), ThresholdBars(Measure.NOTIONAL, 1e9)
    built.feed(rows)
    cut.feed(rows)
    for state, kind in ((built.state, TickBarsState), (cut.state, ThresholdBarsState)):
        assert msgspec.json.decode(msgspec.json.encode(state), type=kind) == state
