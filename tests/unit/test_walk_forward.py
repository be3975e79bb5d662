"""Where a walk-forward cuts the past, and what it says of what came of it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.engine.validation import annual_return, efficiency_ratio, folds, stability

DAY = 24 * 3_600 * 10**9


def days(*found):
    return [tuple(time // DAY for time in each) for each in found]


def test_each_test_follows_its_training_and_the_next_begins_where_it_ended():
    found = folds(0, 31 * DAY, window_ns=7 * DAY, step_ns=2 * DAY)
    assert len(found) == 12
    assert days(*found[:2]) == [(0, 7, 7, 9), (2, 9, 9, 11)]
    assert days(found[-1]) == [(22, 29, 29, 31)]


def test_an_anchored_training_keeps_its_start_and_grows():
    found = folds(0, 12 * DAY, window_ns=7 * DAY, step_ns=2 * DAY, is_anchored=True)
    assert days(*found) == [(0, 7, 7, 9), (0, 9, 9, 11), (0, 11, 11, 12)]


@pytest.mark.parametrize(("stop", "last"), [(10, 10), (9.9, 9)])
def test_a_last_test_of_half_a_step_counts_a_shorter_one_does_not(stop, last):
    found = folds(0, int(stop * DAY), window_ns=7 * DAY, step_ns=2 * DAY)
    assert found[-1].test_stop_ns // DAY == last


def test_a_window_longer_than_the_data_has_no_fold():
    assert folds(0, 5 * DAY, window_ns=7 * DAY, step_ns=DAY) == []


@pytest.mark.parametrize(("window", "step"), [(0, 1), (1, 0), (-1, 1)])
def test_a_window_or_a_step_of_nothing_is_refused(window, step):
    with pytest.raises(ValueError, match="above 0"):
        folds(0, DAY, window_ns=window, step_ns=step)


@given(st.integers(1, 400), st.integers(1, 60), st.integers(1, 30), st.booleans())
def test_no_training_reaches_into_its_test_and_no_tests_overlap(length, window, step, is_anchored):
    found = folds(0, length, window_ns=window, step_ns=step, is_anchored=is_anchored)
    for each in found:
        assert 0 <= each.train_start_ns < each.train_stop_ns == each.test_start_ns < each.test_stop_ns <= length
    for before, after in pairwise(found):
        assert before.test_stop_ns == after.test_start_ns


def test_efficiency_is_what_was_kept_of_what_was_promised():
    assert efficiency_ratio([0.4, 0.6], [0.1, 0.4]) == pytest.approx(0.5)
    assert efficiency_ratio([-0.4, 0.2], [0.1, 0.4]) is None
    assert efficiency_ratio([], []) is None


def test_a_year_of_a_span_is_its_return_in_proportion():
    assert annual_return(1.05, 7 * DAY, 364 * DAY) == pytest.approx(0.05 * 52)


def test_stability_is_one_where_nothing_moved_and_zero_where_all_always_did():
    assert stability([1, 1, 1], 3) == 1
    assert stability([0, 2, 0], 3) == 0
    assert stability([0, 1, 1], 3) == 0.75
    assert stability([0], 3) == stability([0, 0], 1) == 1
