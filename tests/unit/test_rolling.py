import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import probe as naive

from daemon.engine.rolling import rolling_max, rolling_min, running_mean

NAN = math.nan
PAIRS = [
    pytest.param(rolling_max, naive.rolling_max, id="rolling_max"),
    pytest.param(rolling_min, naive.rolling_min, id="rolling_min"),
    pytest.param(running_mean, naive.kahan_rolling_mean, id="running_mean"),
]

ticks = st.integers(-3, 3).map(lambda tick: tick * 0.1)
magnitudes = st.sampled_from([0.0, -0.0, 1e16, -1e16, 1.0, 1e-9, 0.1])
columns = st.one_of(
    *(st.lists(value | st.just(NAN), max_size=40) for value in (ticks, magnitudes, st.floats(-1e9, 1e9))),
    st.lists(ticks, max_size=60),
)


@pytest.mark.parametrize(("engine", "oracle"), PAIRS)
@settings(deadline=None)
@given(values=columns, window=st.integers(1, 12))
def test_a_window_has_the_value_of_the_oracle_to_the_bit(engine, oracle, values, window):
    got = engine(np.array(values, dtype=float), window)
    assert np.array_equal(got, np.array(oracle(values, window)), equal_nan=True)


@pytest.mark.parametrize(("engine", "_oracle"), PAIRS)
@settings(deadline=None)
@given(values=columns, window=st.integers(1, 12), size=st.integers(0, 60))
def test_no_window_looks_ahead(engine, _oracle, values, window, size):
    column = np.array(values, dtype=float)
    whole, prefix = engine(column, window), engine(column[:size].copy(), window)
    assert np.array_equal(prefix, whole[:size], equal_nan=True)


@pytest.mark.parametrize(("engine", "_oracle"), PAIRS)
def test_a_series_shorter_than_the_window_has_no_value(engine, _oracle):
    assert np.isnan(engine(np.ones(6), 7)).all()
    assert engine(np.empty(0), 7).size == 0


def test_extremes_come_back_once_the_last_hole_has_left_the_window():
    column = np.array([5.0, 1.0, NAN, 3.0, 4.0, 2.0])
    expected = [NAN, 5.0, NAN, NAN, 4.0, 4.0]
    assert np.array_equal(rolling_max(column, 2), expected, equal_nan=True)


def test_the_running_mean_of_equal_values_is_that_value_exactly():
    column = np.array([1e15, 0.3, 0.1, 0.1, 0.1, 0.1])
    assert running_mean(column, 3)[4:].tolist() == [0.1, 0.1]


def test_the_running_mean_of_non_negative_values_is_never_negative():
    column = np.array([1e16, 0.1, 0.3, 0.0, 0.0, 0.2, 0.0, 1e-17])
    assert (running_mean(column, 2)[1:] >= 0).all()


def test_the_columns_given_are_left_as_they_were():
    column = np.array([1.0, NAN, -0.0])
    before = column.tobytes()
    for function in (rolling_max, rolling_min, running_mean):
        function(column, 2)
    assert column.tobytes() == before
