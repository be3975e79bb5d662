"""Paths of the Monte Carlo simulation against slow ones, to the bit, and what holds of any trades."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import montecarlo as naive

from daemon.engine import montecarlo, resampling
from daemon.engine.montecarlo import METHODS, simulate
from daemon.engine.resampling import block_length

percents = st.integers(-120, 200).map(lambda percent: percent / 100) | st.floats(-0.2, 0.2) | st.just(0.0)
trades = st.lists(percents, min_size=1, max_size=30)
seeds = st.integers(0, 2**64 - 1)
chances = st.sampled_from([0.0, 0.1, 0.5, 1.0])
choices = st.fixed_dictionaries({"miss_chance": chances, "cost_noise": chances, "fill_noise": st.floats(0, 5)})


def costs_of(returns):
    return [abs(one) / 10 for one in returns]


def paths_of(method, returns, seed, block, chosen, runs):
    """Walk each path slowly."""
    chosen = chosen | {"restart_chance": 1.0 / block}
    generators = [naive.Generator(seed, path) for path in range(runs)]
    return [naive.path(method, returns, costs_of(returns), generator, chosen) for generator in generators]


@settings(deadline=None, max_examples=150)
@given(
    returns=trades,
    seed=seeds,
    method=st.sampled_from(list(METHODS)),
    block=st.sampled_from([1, 2.5, 7]),
    chosen=choices,
)
def test_a_simulation_equals_the_slow_one_to_the_bit(returns, seed, method, block, chosen):
    columns = np.array(returns), np.array(costs_of(returns))
    found = simulate(*columns, runs=6, seed=seed, method=method, block=block, threads=2, **chosen)
    slow = paths_of(method, returns, seed, block, chosen, runs=6)
    curves = [naive.equity(path) for path in slow]
    ends = np.array([naive.ends(path) for path in slow]).T
    if method == "shuffle":
        for curve in curves:
            curve[-1] = naive.equity(returns)[-1]
        ends[0] = curves[0][-1]
    assert found.sample_paths.tolist() == curves
    assert found.spread.percentile95 == np.percentile(ends[0] - 1, 95)
    assert found.spread.percentile95_drawdown == np.percentile(ends[1], 95)
    assert found.spread.probability_of_profit == np.mean(ends[0] > 1)
    assert found.spread.probability_of_ruin == np.mean(ends[2] <= 0.5)
    assert found.spread.std_return == pytest.approx(np.std(ends[0], ddof=1), rel=1e-9, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(returns=trades, seed=seeds)
def test_a_shuffle_keeps_every_trade(returns, seed):
    values, shuffled = np.array(returns), np.empty(len(returns))
    montecarlo.shuffle(values, resampling.stream(np.uint64(seed), 3), shuffled)
    assert sorted(shuffled.tolist()) == sorted(returns)
    assert values.tolist() == returns


@settings(deadline=None, max_examples=60)
@given(returns=trades, seed=seeds, chance=chances)
def test_a_missed_trade_is_nothing_and_any_other_is_itself(returns, seed, chance):
    kept = np.empty(len(returns))
    montecarlo.miss(np.array(returns), chance, resampling.stream(np.uint64(seed), 0), kept)
    assert all(one in (0.0, before) for one, before in zip(kept.tolist(), returns, strict=True))
    if chance in (0.0, 1.0):
        assert kept.tolist() == [one * (1 - chance) for one in returns]


@settings(deadline=None, max_examples=60)
@given(returns=trades, seed=seeds, size=st.integers(0, 30))
def test_no_draw_looks_ahead(returns, seed, size):
    values, costs = np.array(returns), np.array(costs_of(returns))
    whole, part = np.empty(30), np.empty(size)
    for drawn in (whole, part):
        resampling.draw_blocks(values, 0.3, resampling.stream(np.uint64(seed), 1), drawn)
    assert np.array_equal(whole[:size], part)
    size = min(size, values.size)
    for fill in (
        lambda count, drawn, state: montecarlo.miss(values[:count], 0.4, state, drawn),
        lambda count, drawn, state: montecarlo.disturb(values[:count], costs[:count], 0.5, 1.0, state, drawn),
    ):
        filled = []
        for count in (values.size, size):
            drawn = np.empty(count)
            fill(count, drawn, resampling.stream(np.uint64(seed), 2))
            filled.append(drawn)
        assert np.array_equal(filled[0][:size], filled[1])


@settings(deadline=None, max_examples=100)
@given(returns=trades)
def test_a_walk_falls_no_deeper_than_from_its_peak_to_nothing(returns):
    final, deepest, lowest = montecarlo.walk(np.array(returns), np.empty(0, np.int64), np.empty(0))
    assert (final, deepest, lowest) == naive.ends(returns)
    assert 0 <= deepest <= 1
    assert 0 <= lowest <= min(final, 1)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(-500, 500).map(lambda points: points / 1e4) | st.just(math.nan), max_size=60),
    st.integers(1, 4),
)
def test_block_length_equals_the_slow_one(returns, repeated):
    returns = np.repeat(np.array(returns, dtype=float), repeated)
    assert block_length(returns) == pytest.approx(naive.block_length(returns.tolist()), rel=1e-6)
