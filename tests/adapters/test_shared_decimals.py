"""Decimal texts become whole numbers exactly, or are refused by name."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.shared.decimals import VECTOR_ROWS, nearest, scaled
from daemon.core.errors import Code, SourceDataInvalid

PLAIN = st.decimals(
    min_value=Decimal(-999999999), max_value=Decimal(999999999), allow_nan=False, allow_infinity=False, places=8
).map(lambda number: format(number, "f"))


def exact(texts):
    """Oracle: python's decimals, one by one."""
    numbers = [Decimal(text) for text in texts]
    decimals = 0
    while any(number.scaleb(decimals) % 1 for number in numbers):
        decimals += 1
    return [int(number.scaleb(decimals)) for number in numbers], decimals


@pytest.mark.parametrize(
    ("texts", "numbers", "decimals"),
    [
        (["61800.30000000", "1.50000000"], [618003, 15], 1),
        (["0.00000001", "2"], [1, 200_000_000], 8),
        (["-0.5", "+0.25"], [-50, 25], 2),
        (["1e-8", "2E2"], [1, 20_000_000_000], 8),
        ([".5", "5."], [5, 50], 1),
        (["0.00000000"], [0], 0),
        (["-0.5"], [-5], 1),
        (["1000"], [1000], 0),
        (["9223372036854775807", "-9223372036854775808"], [2**63 - 1, -(2**63)], 0),
        (["1000000000000000.000000000000", "5"], [10**15, 5], 0),
        ([], [], 0),
    ],
)
def test_texts_become_whole_numbers_at_the_fewest_common_decimals(texts, numbers, decimals):
    column, found = scaled(texts)
    assert (column.tolist(), found) == (numbers, decimals)
    assert column.dtype == np.int64


@given(st.lists(PLAIN, min_size=1, max_size=40))
def test_every_list_of_decimals_is_exact(texts):
    column, decimals = scaled(texts)
    assert (column.tolist(), decimals) == exact(texts)


@settings(max_examples=20)
@given(st.lists(PLAIN, min_size=1, max_size=40))
def test_many_texts_become_the_same_numbers_as_few(texts):
    many = texts * (VECTOR_ROWS // len(texts) + 1)
    column, decimals = scaled(many)
    numbers, expected = exact(texts)
    assert decimals == expected
    assert column[: len(texts)].tolist() == numbers


@pytest.mark.parametrize("many", [1, VECTOR_ROWS])
@pytest.mark.parametrize(
    "text", ["", " ", "NaN", "inf", "1,000.5", "1_000", "0x10", "1.2.3", "--1", "1e", "1e999", " 1", "1\n2", "٣", "-"]
)
def test_what_is_no_decimal_is_refused_by_its_text(text, many):
    with pytest.raises(SourceDataInvalid) as refusal:
        scaled(["1.5"] * many + [text], "price")
    assert refusal.value.code is Code.SOURCE_VALUE_INVALID
    assert f"price {text!r}" in refusal.value.message


@pytest.mark.parametrize("many", [1, VECTOR_ROWS])
@pytest.mark.parametrize("texts", [["9223372036854775808"], ["92233720368547758.07", "0.001"], ["1e60"], ["9" * 5_000]])
def test_what_does_not_fit_64_bits_is_refused_not_wrapped(texts, many):
    with pytest.raises(SourceDataInvalid) as refusal:
        scaled(texts * many, "size")
    assert refusal.value.code is Code.TICKS_INVALID
    assert "64 bits" in refusal.value.message


def test_a_list_of_many_wide_texts_that_do_fit_is_still_exact():
    texts = ["123.450000000000000000000000"] * VECTOR_ROWS
    column, decimals = scaled(texts)
    assert decimals == 2
    assert set(column.tolist()) == {12345}


def test_floats_are_the_nearest_to_the_text():
    assert nearest(["0.1", "61800.30000000", "1e-8"]).tolist() == [0.1, 61800.3, 1e-8]
    assert nearest([]).size == 0


@pytest.mark.parametrize("text", ["nan", "Infinity", "", "1_0", "9" * 400])
def test_floats_are_never_made_of_what_is_no_finite_decimal(text):
    with pytest.raises(SourceDataInvalid, match="not a decimal"):
        nearest(["1", text], "open")
