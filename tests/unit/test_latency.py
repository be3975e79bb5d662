"""Delays as the loop takes them: equal to np.interp and to splitmix64 in whole numbers, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core.execution import Latency
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND
from daemon.engine.latency import Delays, MeasuredLatency, delays_of, drawn, feed_delay, order_delay

START_NS = 19_943 * NS_PER_DAY
MASK = (1 << 64) - 1


def splitmix64(state):
    """The reference, in whole numbers: the next state, and what it gives."""
    state = (state + 0x9E3779B97F4A7C15) & MASK
    word = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return state, word ^ (word >> 31)


def series(seed, count=50, step_ns=NS_PER_SECOND):
    rng = np.random.default_rng(seed)
    time_ns = START_NS + np.cumsum(rng.integers(1, 2 * step_ns, count))
    return MeasuredLatency(time_ns, rng.integers(0, 10**8, count))


def feed(delays, times, symbol=0):
    return [feed_delay(delays, symbol, int(each)) for each in times]


def order(delays, times, symbol=0):
    return [order_delay(delays, symbol, int(each)) for each in times]


def test_without_latency_nothing_is_delayed():
    delays = delays_of(Latency(), [None])
    assert (feed_delay(delays, 0, START_NS), order_delay(delays, 0, START_NS)) == (0, 0)


def test_constants_are_each_directions_own():
    delays = delays_of(Latency(feed_ns=3, order_ns=5), [None, None])
    assert (feed_delay(delays, 1, START_NS), order_delay(delays, 1, START_NS)) == (3, 5)


# Drawn.


def test_the_generator_is_splitmix64():
    state, found = 1234567, []
    for _ in range(5):
        state, word = splitmix64(state)
        found.append(word)
    # The published first outputs of this seed.
    assert found[:3] == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    states = np.array([1234567, 0], dtype=np.uint64)
    spread = (1 << 53) - 1
    assert [drawn(states, 0, spread) for _ in range(5)] == [word >> 11 for word in found]
    assert states.tolist() == [state, 0]


@given(seed=st.integers(0, (1 << 53) - 1), spread=st.one_of(st.integers(0, 50), st.integers(0, 1 << 42)))
@settings(max_examples=50, deadline=None)
def test_draws_stay_within_their_spread_and_equal_the_oracle(seed, spread):
    delays = delays_of(Latency(feed_ns=7, feed_spread_ns=spread, seed=seed), [None])
    state = int(delays.state[0])
    for each in feed(delays, range(20)):
        assert 7 <= each <= 7 + spread
        if spread:
            state, word = splitmix64(state)
            assert each == 7 + int((word >> 11) * 2.0**-53 * (spread + 1))
    assert int(delays.state[0]) == state


def test_each_value_of_a_spread_is_as_likely():
    counts = np.bincount(feed(delays_of(Latency(feed_spread_ns=9), [None]), range(20_000)), minlength=10)
    assert counts.size == 10
    assert np.sum((counts - 2_000) ** 2 / 2_000) < 27.9  # chi-squared of 9 degrees at 0.1 %


def test_a_seed_gives_the_same_delays_again_and_another_others():
    latency = Latency(feed_spread_ns=10**6, order_spread_ns=10**6, seed=4)
    again, other = delays_of(latency, [None]), delays_of(Latency(feed_spread_ns=10**6, seed=5), [None])
    found = feed(delays_of(latency, [None]), range(20))
    assert feed(again, range(20)) == found
    assert feed(other, range(20)) != found
    assert order(again, range(20)) != found


def test_what_is_sent_does_not_change_what_is_seen():
    latency = Latency(feed_spread_ns=10**6, order_spread_ns=10**6)
    quiet, busy = delays_of(latency, [None]), delays_of(latency, [None])
    order(busy, range(7))
    assert feed(quiet, range(20)) == feed(busy, range(20))


# Measured.


@given(seed=st.integers(0, 1_000), data=st.data())
@settings(max_examples=50, deadline=None)
def test_measured_delays_are_interpolated_in_any_order_of_time(seed, data):
    count = data.draw(st.integers(1, 30))
    each = [series(seed, count), series(seed + 1, 5)]
    factor = data.draw(st.sampled_from([0.0, 0.5, 1.0, 2.25]))
    latency = Latency(feed_ns=11, order_ns=13, measured=True, order_factor=factor)
    delays = delays_of(latency, each)
    first, last = int(each[0].time_ns[0]) - NS_PER_SECOND, int(each[0].time_ns[-1]) + NS_PER_SECOND
    points = st.one_of(st.integers(first, last), st.sampled_from(each[0].time_ns.tolist()))
    for now_ns in data.draw(st.lists(points, min_size=1, max_size=20)):
        for symbol, measured in enumerate(each):
            slow = np.interp(now_ns - START_NS, measured.time_ns - START_NS, measured.delay_ns)
            assert abs(feed_delay(delays, symbol, now_ns) - (11 + slow)) <= 1
            assert abs(order_delay(delays, symbol, now_ns) - (13 + factor * slow)) <= 1 + factor


def test_a_measured_delay_stays_at_the_ends_of_its_series():
    delays = delays_of(Latency(measured=True), [MeasuredLatency(np.array([100, 200]), np.array([7, 9]))])
    assert feed(delays, [0, 100, 125, 150, 200, 10**18, 99]) == [7, 7, 8, 8, 9, 9, 7]


def test_spans_of_days_are_interpolated_without_overflow():
    ends = MeasuredLatency(np.array([START_NS, START_NS + 300 * NS_PER_DAY]), np.array([0, 3_600 * NS_PER_SECOND]))
    delays = delays_of(Latency(measured=True), [ends])
    assert feed(delays, [START_NS + 150 * NS_PER_DAY]) == [1_800 * NS_PER_SECOND]


def test_the_cursor_follows_time_in_each_direction_by_itself():
    delays = delays_of(Latency(measured=True), [series(1), series(2)])
    feed(delays, [START_NS * 2], symbol=1)
    assert delays.cursor.tolist() == [[0, 99], [0, 50]]


def test_a_prefix_of_the_calls_gives_a_prefix_of_the_delays():
    latency = Latency(feed_ns=1, feed_spread_ns=1_000, measured=True)
    times = START_NS + np.arange(40) * NS_PER_SECOND
    whole = feed(delays_of(latency, [series(3)]), times)
    assert feed(delays_of(latency, [series(3)]), times[:15]) == whole[:15]


def test_what_is_drawn_and_what_is_measured_add_up():
    flat = MeasuredLatency(np.array([0]), np.array([1_000]))
    latency = Latency(order_ns=10, order_spread_ns=5, measured=True, order_factor=2.0)
    found = set(order(delays_of(latency, [flat]), range(200)))
    assert found == {2_010 + extra for extra in range(6)}


def test_a_symbol_without_a_series_is_refused_where_latency_is_measured():
    with pytest.raises(ValueError, match="symbol 1 has no series"):
        delays_of(Latency(measured=True), [series(1), None])
    made = delays_of(Latency(), [series(1), None])
    assert isinstance(made, Delays)
    assert made.time_ns.size == 0
