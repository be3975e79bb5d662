"""Columns through the codec and back, compared bit for bit."""

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.core.errors import Code, StoreCorrupt
from daemon.core.market import NS_PER_HOUR
from daemon.store import codec
from daemon.store.codec import (
    Buffers,
    Codec,
    Field,
    decode,
    decode_exactly,
    encode_fields,
    encode_market,
    encode_rows,
)

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


# Fields: what columns of ticks tell the codec about themselves.

codes = st.lists(st.integers(-128, 127) | st.sampled_from([-1, 1]), max_size=80)


def exactly(value, wanted=None, buffers=None):
    return [(bits(column), decimals) for column, decimals in decode_exactly(value, wanted, buffers)]


@settings(deadline=None, max_examples=200)
@given(column=integers, decimals=st.none() | st.integers(0, 18), is_time=st.booleans())
@example(column=np.array([LEAST, MOST, 0, -1]), decimals=18, is_time=False)
@example(column=np.empty(0, dtype=np.int64), decimals=None, is_time=True)
def test_integers_come_back_exactly_with_the_decimals_they_were_given(column, decimals, is_time):
    field = Field(column, decimals, is_time=is_time and decimals is None)
    assert exactly(encode_fields([field])) == [(bits(column), decimals)]


@settings(deadline=None, max_examples=200)
@given(pairs=st.lists(st.tuples(times, times), max_size=80), decimals=st.none() | st.integers(0, 8))
@example(pairs=[(LEAST, MOST), (MOST, LEAST), (0, LEAST), (-1, MOST)], decimals=None)
@example(pairs=[(LEAST, 7), (MOST, 7)], decimals=2)
def test_a_column_that_follows_another_comes_back_though_differences_wrap_around(pairs, decimals):
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    value = encode_fields([Field(first, decimals), Field(second, decimals, relative_to=0)])
    assert exactly(value) == [(bits(first), decimals), (bits(second), decimals)]
    assert exactly(value, [1]) == [(bits(second), decimals)]
    assert exactly(value, [1, 0, 1], Buffers()) == [(bits(column), decimals) for column in (second, first, second)]


def test_a_column_close_to_the_one_it_follows_is_stored_as_the_difference():
    rng = np.random.default_rng(0)
    stamps = np.sort(rng.integers(0, 1 << 60, 20_000))
    late = stamps + rng.integers(0, 100, stamps.size)
    alone = len(encode_fields([Field(stamps), Field(late)]))
    assert len(encode_fields([Field(stamps), Field(late, relative_to=0)])) < 0.7 * alone


def test_columns_of_other_decimals_or_of_one_value_follow_nothing():
    prices, other = np.array([10**15, 3, 5]), np.array([7, 7, 7])
    for field in (Field(prices, 3, relative_to=0), Field(other, 2, relative_to=0)):
        value = encode_fields([Field(prices, 2), field])
        assert ENTRY.unpack_from(value, HEADER.size + ENTRY.size)[3] == 0
        assert exactly(value) == [(bits(prices), 2), (bits(field.column), field.decimals)]


@settings(deadline=None, max_examples=150)
@given(units=st.lists(st.integers(-9 * 10**9, 9 * 10**9), max_size=40), exponent=st.sampled_from([0, 3, 6, 9]))
def test_times_are_stored_in_the_coarsest_unit_that_holds_them_all(units, exponent):
    column = np.array(units, dtype=np.int64) * 10**exponent
    value = encode_fields([Field(column, is_time=True)])
    assert exactly(value) == [(bits(column), None)]
    found = -codecs(value)[0][1]
    assert found >= exponent
    assert not (column % 10**found).any()


def test_one_finer_time_among_thousands_is_not_lost_to_the_sample():
    for place in (0, 255, 256, 9_999):
        column = np.arange(10_000) * 10**9
        column[place] += 1
        value = encode_fields([Field(column, is_time=True)])
        assert codecs(value) == [(Codec.PCODEC, 0)]
        assert exactly(value) == [(bits(column), None)]


@settings(deadline=None, max_examples=150)
@given(content=codes)
@example(content=[])
@example(content=[-128])
@example(content=[1] * 9)
@example(content=[-1, 1, 0])
def test_codes_come_back_and_signs_take_a_bit_each(content):
    column = np.array(content, dtype=np.int8)
    value = encode_fields([Field(column)])
    assert exactly(value) == [(bits(column), None)]
    assert exactly(value, None, Buffers()) == [(bits(column), None)]
    assert (codecs(value)[0][0] == Codec.SIGNS) == ({abs(code) for code in content} <= {1})


@settings(deadline=None, max_examples=100)
@given(
    size=st.integers(200, 2_000),
    odd=st.lists(st.tuples(st.integers(0, 1_999), any_bits), min_size=1, max_size=3),
    digits=st.integers(0, 6),
)
def test_prices_with_a_few_exceptions_are_stored_as_decimals_and_the_exceptions_as_bits(size, odd, digits):
    column = np.arange(size) / 10.0**digits
    for place, content in odd:
        column.view(np.uint64)[place % size] = content
    value = encode_fields([Field(column)])
    assert_same(decode(value), [column])
    assert_same(decode(value, [0], Buffers()), [column])
    ((exact, decimals),) = decode_exactly(value)
    assert decimals is not None or bits(exact) == bits(column)


def test_an_exception_among_prices_is_patched():
    column = np.arange(1_000) / 100
    column[[0, 500, 999]] = np.nan, -0.0, np.inf
    value = encode_fields([Field(column)])
    assert codecs(value) == [(Codec.PCODEC_PATCHED, 2)]
    assert_same(decode(value), [column])


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(st.integers(0, 90), min_size=2, max_size=5), seed=st.integers(0, 99))
def test_reused_buffers_hold_nothing_of_the_value_before(sizes, seed):
    rng = np.random.default_rng(seed)
    buffers = Buffers()
    for size in sizes:
        noise, prices = rng.standard_normal(size), rng.integers(0, 10**6, size) / 100
        if size:
            prices[rng.integers(size)] = rng.choice([np.nan, 1.5])
        stamps = np.cumsum(rng.integers(0, 10**6, size))
        fields = [
            Field(stamps, is_time=True),
            Field(stamps + rng.integers(0, 9, size), relative_to=0),
            Field(rng.permutation([noise, prices])[0]),
            Field(rng.integers(-(1 << 62), 1 << 62, size), rng.choice([0, 5])),
            Field(rng.choice([-1, 1], size).astype(np.int8)),
            Field(rng.integers(-128, 128, size).astype(np.int8)),
        ]
        value = encode_fields(fields)
        fresh = decode(value)
        assert_same(decode(value, range(6), buffers), fresh)
        assert [column.tobytes() for column in fresh[:3]] == [field.column.tobytes() for field in fields[:3]]
        assert exactly(value, range(6), buffers) == exactly(value)


def test_buffers_grow_for_a_value_of_more_rows_than_any_before(monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 4)
    buffers = Buffers()
    for size in (3, 9, 2, 30):
        column = np.arange(size)
        value = encode_fields([Field(column, 2), Field(np.ones(size, dtype=np.int8))])
        assert exactly(value, [0, 1], buffers) == [(bits(column), 2), (bits(np.ones(size, dtype=np.int8)), None)]


@settings(deadline=None, max_examples=300)
@given(number=st.integers(LEAST, MOST), decimals=st.integers(0, 22))
@example(number=123_456_789_012_345_678, decimals=15)
@example(number=(1 << 53) + 1, decimals=0)
def test_integers_become_the_nearest_floats(number, decimals):
    assert codec.to_floats(np.array([number]), decimals).tolist() == [number / 10**decimals]


@settings(deadline=None, max_examples=300)
@given(whole=st.integers(-(1 << 53) + 1, (1 << 53) - 1), decimals=st.integers(0, 15), more=st.integers(0, 7))
def test_a_float_comes_back_from_its_integer_at_more_decimals_than_it_needs(whole, decimals, more):
    raised = whole * 10**more
    if abs(raised) <= MOST:
        wanted = codec.to_floats(np.array([whole]), decimals)
        assert_same([codec.to_floats(np.array([raised]), decimals + more)], [wanted])


def field_value(size):
    stamps, prices = np.arange(size) * 1_000, np.arange(size) / 4
    odd = prices.copy()
    odd[: size // 64] = np.nan
    return encode_fields(
        [
            Field(stamps, is_time=True),
            Field(stamps + 3, relative_to=0),
            Field(odd),
            Field(np.arange(size), 2),
            Field(np.ones(size, dtype=np.int8)),
        ]
    )


@pytest.mark.parametrize("size", [0, 1, 70])
def test_any_flipped_byte_of_fields_is_damage(size):
    value = field_value(size)
    for place in range(len(value)):
        damaged = bytearray(value)
        damaged[place] ^= 0x81
        for read in (decode_exactly, decode):
            with pytest.raises(StoreCorrupt):
                read(bytes(damaged))
        with pytest.raises(StoreCorrupt):
            decode(bytes(damaged), [4], Buffers())


def test_a_column_that_is_not_there_is_damage():
    with pytest.raises(StoreCorrupt):
        decode_exactly(field_value(5), [5])


def test_the_checksum_tells_values_apart():
    assert codec.checksum(field_value(5)) == codec.checksum(memoryview(field_value(5)))
    assert codec.checksum(field_value(5)) != codec.checksum(field_value(6))
