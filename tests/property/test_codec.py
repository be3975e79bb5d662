"""Columns through the codec and back, compared bit for bit."""

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.core.errors import Code, StoreCorrupt
from daemon.core.market import NS_PER_HOUR
from daemon.store import codec
from daemon.store.codec import Codec, decode, encode_market, encode_rows

HEADER, ENTRY = struct.Struct("<2sBBIII"), struct.Struct("<BBbBIII")
DTYPES = ("<i8", "<f8", "<i4", "|i1", "|u1", "<u2", "<u4", "<u8")
LEAST, MOST = -(1 << 63), (1 << 63) - 1

# Bits, not values: hypothesis' own floats know one NaN.
ODD_BITS = [
    0x7FF8000000000000,  # the NaN of Python
    0xFFF8000000000000,
    0x7FF0000000000001,  # signalling
    0x7FFDEADBEEFCAFE5,  # a payload
    0x7FF0000000000000,  # infinities
    0xFFF0000000000000,
    0x8000000000000000,  # -0.0
    0x0000000000000001,  # subnormals
    0x000FFFFFFFFFFFFF,
    0x800FFFFFFFFFFFFF,
    0x7FEFFFFFFFFFFFFF,  # the largest
    0x4340000000000000,  # 2^53: the first integer with an unsayable neighbour
    0x4340000000000001,
    0xC340000000000000,
]
any_bits = st.sampled_from(ODD_BITS) | st.integers(0, (1 << 64) - 1)
floats_of_bits = st.lists(any_bits, max_size=80).map(lambda bits: np.array(bits, dtype=np.uint64).view(np.float64))
times = st.sampled_from([LEAST, LEAST + 1, -1, 0, 1, MOST - 1, MOST]) | st.integers(LEAST, MOST)
integers = st.lists(times, max_size=80).map(lambda values: np.array(values, dtype=np.int64))


@st.composite
def decimal_prices(draw):
    """Whole numbers of a decimal tick, divided as a parser of decimal text would round them."""
    digits = draw(st.integers(0, 22))
    whole = draw(st.lists(st.integers(-(1 << 60), 1 << 60) | st.integers(0, 10**6), max_size=80))
    return np.array([float(f"{number}e-{digits}") for number in whole], dtype=np.float64)


def bits(column):
    return np.ascontiguousarray(column).view(f"u{column.dtype.itemsize}").tolist()


def assert_same(got, wanted):
    assert [column.dtype for column in got] == [column.dtype for column in wanted]
    assert [bits(column) for column in got] == [bits(column) for column in wanted]


def codecs(value):
    """Codec id and decimals of each column, read from the table by hand."""
    count = HEADER.unpack_from(value)[2]
    entries = [ENTRY.unpack_from(value, HEADER.size + place * ENTRY.size) for place in range(count)]
    return [(Codec(entry[0]), entry[2]) for entry in entries]


@settings(deadline=None, max_examples=300)
@given(column=floats_of_bits | decimal_prices() | integers)
@example(column=np.array(ODD_BITS, dtype=np.uint64).view(np.float64))
@example(column=np.empty(0, dtype=np.float64))
@example(column=np.empty(0, dtype=np.int64))
@example(column=np.array([-0.0]))
@example(column=np.array([float(1 << 53)]))
@example(column=np.array([LEAST, MOST, LEAST]))
def test_market_columns_come_back_bit_for_bit(column):
    value = encode_market([column])
    assert_same(decode(value), [column])
    assert codec.rows(value) == column.size


@pytest.mark.parametrize("odd", ODD_BITS)
@pytest.mark.parametrize("place", [0, 1, 4_095, 5_000, 9_999])
def test_one_odd_value_among_prices_is_not_lost_to_the_sample(odd, place):
    column = np.arange(10_000) / 100
    column.view(np.uint64)[place] = odd
    value = encode_market([column])
    assert_same(decode(value), [column])


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=40)
@given(content=st.binary(max_size=400))
@example(content=b"")
@example(content=b"\xff" * 8)
def test_result_columns_of_every_type_come_back_bit_for_bit(dtype, content):
    width = np.dtype(dtype).itemsize
    column = np.frombuffer(content[: len(content) // width * width], dtype=dtype)
    assert_same(decode(encode_rows([column, column[::-1]])), [column, column[::-1]])


@given(size=st.integers(0, 50), wanted=st.lists(st.integers(0, 4), max_size=8))
def test_some_columns_decode_as_they_do_among_all(size, wanted):
    rng = np.random.default_rng(size)
    columns = [
        rng.integers(LEAST, MOST, size),
        rng.integers(0, 10**6, size) / 100,
        rng.standard_normal(size),
        np.full(size, np.nan),
        np.zeros(size),
    ]
    value = encode_market(columns)
    assert_same(decode(memoryview(value), wanted), [columns[place] for place in wanted])


@pytest.mark.parametrize("digits", range(9))
def test_real_prices_are_stored_as_decimals(digits):
    rng = np.random.default_rng(digits)
    prices = np.array([float(f"{whole}e-{digits}") for whole in rng.integers(10**8, 10**9, 5_000)])
    value = encode_market([prices])
    assert codecs(value) == [(Codec.PCODEC_DECIMAL, digits)]
    assert_same(decode(value), [prices])


@pytest.mark.parametrize(
    "column",
    [
        np.random.default_rng(1).standard_normal(1_000),
        np.array([1.25, -0.0]),
        np.array([1.25, np.nan]),
        np.array([np.inf]),
        np.array([5e-324]),
        np.array([float(1 << 53)]),
        np.array([0.1 + 0.2]),
    ],
    ids=["noise", "-0.0", "NaN", "inf", "subnormal", "2^53", "0.1 + 0.2"],
)
def test_what_no_decimal_gives_back_is_stored_as_its_bits(column):
    assert codecs(encode_market([column])) == [(Codec.PCODEC, 0)]


def test_times_are_stored_as_they_are():
    assert codecs(encode_market([np.arange(10) * NS_PER_HOUR])) == [(Codec.PCODEC, 0)]


def test_a_column_may_be_a_view_with_gaps():
    columns = [np.arange(100)[::3], (np.arange(100) / 10)[::3]]
    assert_same(decode(encode_market(columns)), columns)
    assert_same(decode(encode_rows(columns)), columns)


def test_columns_start_on_multiples_of_eight():
    rng = np.random.default_rng(0)
    columns = [rng.integers(0, 99, size).astype(np.int8) for size in (33, 33, 33)]
    value = encode_rows(columns)
    offsets = [ENTRY.unpack_from(value, HEADER.size + place * ENTRY.size)[4] for place in range(3)]
    assert [offset % 8 for offset in offsets] == [0, 0, 0]


def small_values(size):
    stamps, prices = np.arange(size) * NS_PER_HOUR, np.arange(size) / 4
    return [
        encode_market([stamps, prices, np.full(size, np.nan)]),
        encode_rows([stamps, prices, np.ones(size, dtype=np.int8)]),
    ]


# An empty and a one-row one, too: the sizes that could hide a wrong count.
SMALL_VALUES = [*small_values(0), *small_values(1), *small_values(20)]


@pytest.mark.parametrize("value", SMALL_VALUES, ids=range(6))
def test_any_flipped_byte_is_damage(value):
    for place in range(len(value)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(value)
            damaged[place] ^= flip
            with pytest.raises(StoreCorrupt) as caught:
                decode(bytes(damaged))
            assert caught.value.code == Code.STORE_CORRUPT


@pytest.mark.parametrize("value", SMALL_VALUES, ids=range(6))
def test_a_truncated_or_longer_value_is_damage(value):
    for size in range(len(value)):
        with pytest.raises(StoreCorrupt):
            decode(value[:size])
    with pytest.raises(StoreCorrupt):
        decode(value + b"\0")


@given(content=st.binary(max_size=200))
def test_bytes_that_are_no_value_are_damage(content):
    with pytest.raises(StoreCorrupt):
        decode(content)
    with pytest.raises(StoreCorrupt):
        decode(b"AC\x01" + content)
