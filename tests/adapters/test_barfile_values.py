"""Bar files: every way to write a time or a number, exact to the last bit, and every way that is refused."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.barfile import delimited
from adapters.barfile.numbers import Numbers
from daemon.core.errors import AtlasError, Code
from daemon.core.market import NS_PER_HOUR, NS_PER_SECOND

NAMES = ("timestamp", "open", "high", "low", "close", "volume")
HEADER = ",".join(NAMES) + "\n"
PRICES = "1.5,2.5,0.5,2,10.25"
ROW = f"2024-01-02T00:00:00Z,{PRICES}\n"
JAN_2 = 1_704_153_600 * NS_PER_SECOND


def bars_of(text):
    return delimited.parse(text if isinstance(text, bytes) else text.encode(), "bars.csv")


def with_times(*times):
    return HEADER + "".join(f"{time},{PRICES}\n" for time in times)


def refusal(act, *args):
    with pytest.raises(AtlasError) as caught:
        act(*args)
    return caught.value


@pytest.mark.parametrize(
    ("time", "expected_ns", "note"),
    [
        ("2024-01-02T03:00:00Z", JAN_2 + 3 * NS_PER_HOUR, None),
        ("2024-01-02 03:00:00+00:00", JAN_2 + 3 * NS_PER_HOUR, None),
        ("2024-01-02T03:00-05:00", JAN_2 + 8 * NS_PER_HOUR, None),
        ("2024-01-02T03:00:00.25+0130", JAN_2 + 5_400_250_000_000, None),
        ("2024-01-02", JAN_2, "Times are dates without a clock: 00:00 UTC assumed."),
        ("1929-10-29", -1_267_833_600 * NS_PER_SECOND, "Times are dates without a clock: 00:00 UTC assumed."),
        ("2024-01-02 00:00:00", JAN_2, "Times carry no zone: UTC assumed."),
        (" 2024-01-02T00:00:00.123456789 ", JAN_2 + 123_456_789, "Times carry no zone: UTC assumed."),
        ("1704153600", JAN_2, "seconds"),
        ("1704153600.5", JAN_2 + NS_PER_SECOND // 2, "seconds"),
        ("1704153600001", JAN_2 + 1_000_000, "milliseconds"),
        ("1704153600001.000001", JAN_2 + 1_000_001, "milliseconds"),
        ("1704153600000001", JAN_2 + 1_000, "microseconds"),
        ("1704153600000000001", JAN_2 + 1, "nanoseconds"),
        ("1.7041536e9", JAN_2, "seconds"),
        ("0", 0, "seconds"),
        ("7258118399", 7_258_118_399 * NS_PER_SECOND, "seconds"),
    ],
)
def test_times_become_exact_nanoseconds_utc_and_assumptions_are_noted(time, expected_ns, note):
    table = bars_of(with_times(time))
    assert table.bars.start_ns.tolist() == [expected_ns]
    if note and not note.endswith("."):
        instant = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=expected_ns // 1000)).isoformat(" ")
        note = f"Times are epoch {note}: the first, {time}, is {instant}."
    assert table.notes == ((note,) if note else ())


@pytest.mark.parametrize(
    ("times", "complaint"),
    [
        (("01/02/2024",), "which is not a time between the years 1677 and 2262; write 2024-01-31T14:30:00Z"),
        (("2024-02-30",), "which is not a time"),
        (("2024-01-02T00:00:00.1234567891Z",), "which is not a time"),
        (("2300-01-01",), "which is not a time"),
        (("20240102",), "which is a date without dashes; write 2024-01-02"),
        (("20240102093000",), "which is a date without dashes; write 2024-01-02"),
        (("0x65",), "which is not a time"),
        (("2024-01-02T00:00Z", "2024-01-02T01:00"), "which carries no zone although the first time does"),
        (("2024-01-02", "2024-01-02T01:00Z"), "which carries a zone although the first time does not"),
        (("2024-01-02", "1704153600"), "which is not a time"),
        (("1704153600", "2024-01-02"), "which is not a number although the first time counts seconds"),
        (("1704153600", "0x65937200"), "which is not a number although"),
        (("1704153600000", "1704153600000000"), "which counts microseconds by its size although the first"),
        (("1704153600000", "0"), "which counts seconds by its size although the first time counts milli"),
        (("-1",), "which lies outside the years 1970 to 2200 in any unit"),
        (("7258118400000000000",), "which lies outside the years 1970 to 2200"),
        (("1704153600", "1e99"), "which lies outside the years 1970 to 2200"),
        (("1704153600000.1234567",), "which is finer than a nanosecond"),
    ],
)
def test_doubtful_times_are_refused_at_the_first_such_line(times, complaint):
    error = refusal(bars_of, with_times(*times, "later", "junk"))
    assert error.code == Code.SOURCE_VALUE_INVALID
    line = 1 + len(times)
    assert error.message.startswith(f'bars.csv line {line}: timestamp is "{times[-1]}", {complaint}')
    assert error.details == {"file": "bars.csv", "line": line, "field": "timestamp", "value": times[-1]}


offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59)
instants = st.datetimes(datetime(1678, 1, 1), datetime(2261, 12, 30))  # noqa: DTZ001 - the zone is drawn


@given(st.lists(st.tuples(instants, st.integers(0, 999), offsets), min_size=1), st.sampled_from("T "))
def test_zoned_times_keep_every_nanosecond(drawn, between):
    texts, expected = [], []
    for moment, nanoseconds, minutes in drawn:
        zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
        texts.append(f"{moment.isoformat(between, 'microseconds')}{nanoseconds:03}{zone}")
        since = moment - timedelta(minutes=minutes) - datetime(1970, 1, 1)  # noqa: DTZ001
        expected.append(since // timedelta(microseconds=1) * 1000 + nanoseconds)
    assert bars_of(with_times(*texts)).bars.start_ns.tolist() == expected


@given(
    st.sampled_from([9, 6, 3, 0]).flatmap(
        lambda digits: st.tuples(
            st.just(digits),
            st.lists(
                st.integers(0 if digits == 9 else 7_258_118_400 * 10**6, 7_258_118_400 * 10**9 - 1),
                min_size=1,
            ),
        )
    )
)
def test_epoch_numbers_of_any_unit_keep_every_nanosecond(drawn):
    digits, expected = drawn
    texts = [str(Decimal(ns).scaleb(-digits)) if digits else str(ns) for ns in expected]
    assert bars_of(with_times(*texts)).bars.start_ns.tolist() == expected


def _halfway(bits):
    """Name the decimal exactly between a float and the next one: the hardest text to round."""
    low = np.int64(bits).view(np.float64)
    return format((Decimal(float(low)) + Decimal(float(np.nextafter(low, np.inf)))) / 2, ".800g")


decimal_texts = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda x: f"{x:.25e}"),
    st.from_regex(r"[+-]?(0|[1-9][0-9]{0,25})\.[0-9]{1,40}", fullmatch=True),
    st.from_regex(r"-?[0-9]{1,40}([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    st.integers(0, 0x7FDF_FFFF_FFFF_FFFF).map(_halfway),
)


@given(st.lists(decimal_texts, min_size=1, max_size=20))
@settings(max_examples=300)
def test_numbers_are_the_nearest_float64_as_python_reads_them(texts):
    rows = "".join(f"2024-01-02T00:00Z,{text},1,1,1,\t{text} \n" for text in texts)
    bars = bars_of(HEADER + rows).bars
    expected = np.array([float(text) for text in texts]).view(np.int64)
    assert bars.open.view(np.int64).tolist() == expected.tolist()
    assert bars.volume.view(np.int64).tolist() == expected.tolist()


@given(st.lists(st.decimals(-(10**19), 10**19, places=18), min_size=1))
def test_decimals_of_parquet_are_the_nearest_float64(values):
    column = pa.chunked_array([pa.array(values, pa.decimal128(38, 18))])
    assert Numbers().read(column).tolist() == [float(value) for value in values]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("abc", 'is "abc", which is not a number; correct or remove the row'),
        ("", "is empty; fill it in or remove the row"),
        ("  ", "is empty; fill it in or remove the row"),
        ("NaN", 'is "NaN", which is not a finite number; correct or remove the row'),
        ("-inf", 'is "-inf", which is not a finite number; correct or remove the row'),
        ("1e999", 'is "1e999", which is too large for a 64-bit float; correct or remove the row'),
        ('"1,234.5"', 'is "1,234.5", which is not a number; write a decimal point and no thousands'),
        ("null", 'is "null", which is not a number'),
        ("0x10", 'is "0x10", which is not a number'),
        ("1_000", 'is "1_000", which is not a number'),
        ("$5", 'is "$5", which is not a number'),
        ("\x1b[2J" + "9" * 80, 'is "\N{REPLACEMENT CHARACTER}[2J' + "9" * 55 + '…", which is not'),
    ],
)
@pytest.mark.parametrize("field", ["open", "volume"])
def test_cells_that_are_no_numbers_are_refused_with_line_field_and_text(text, complaint, field):
    cells = ["2024-01-03T00:00Z", "1", "1", "1", "1", "1"]
    cells[NAMES.index(field)] = text
    error = refusal(bars_of, HEADER + ROW * 15 + ",".join(cells) + "\n" + ROW)
    assert error.code == Code.SOURCE_VALUE_INVALID
    assert error.message.startswith(f"bars.csv line 17: {field} {complaint}")
    assert {**error.details, "value": None} == {"file": "bars.csv", "line": 17, "field": field, "value": None}


def test_first_bad_line_is_named_whatever_is_wrong_below_it():
    bad_time, bad_close, ragged = f"x,{PRICES}\n", ROW.replace(",2,", ",two,"), "1,2\n"
    for first, others, words in [
        (bad_close, bad_time + ragged, "close is"),
        (bad_time, bad_close + ragged, "timestamp is"),
        (ragged, bad_time + bad_close, "2 cells"),
    ]:
        error = refusal(bars_of, HEADER + ROW * 10_000 + first + ROW + others)
        assert error.message.startswith(f"bars.csv line 10002: {words}")
