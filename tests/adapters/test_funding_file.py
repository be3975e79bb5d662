"""Files of funding rates: which are read, how they may be packed, and every refusal with place and remedy."""

import gzip
import zipfile

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from adapters.barfile import funding
from adapters.barfile.funding import read_funding
from daemon.core.errors import Code, NotFound, SourceDataInvalid
from daemon.core.market import NS_PER_SECOND

JAN_1 = 1_704_067_200 * NS_PER_SECOND
HOUR = 3_600 * NS_PER_SECOND
ARCHIVE = "calc_time,funding_interval_hours,last_funding_rate\n1704067200003,8,0.00037409\n1704096000000,8,-0.00012\n"


def saved(folder, contents, name="rates.csv"):
    path = folder / name
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return path


def zipped(folder, *texts):
    with zipfile.ZipFile(folder / "rates.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for place, text in enumerate(texts):
            archive.writestr(f"rates{place}.csv", text)
    return folder / "rates.zip"


def refused(path, code, words, line=None):
    with pytest.raises(SourceDataInvalid, match=words) as caught:
        read_funding(path)
    assert caught.value.code == code
    assert caught.value.details.get("line") == line
    assert caught.value.message.startswith(path.name)


def test_rates_of_the_archive_of_binance_are_read(tmp_path):
    table = read_funding(saved(tmp_path, ARCHIVE))
    assert table.time_ns.tolist() == [JAN_1 + 3_000_000, JAN_1 + 8 * HOUR]
    assert table.rate.tolist() == [0.00037409, -0.00012]
    assert table.lines.tolist() == [2, 3]
    assert table.notes == (
        "Times are epoch milliseconds: the first, 1704067200003, is 2024-01-01 00:00:00.003000+00:00.",
    )


@pytest.mark.parametrize(
    "header",
    [
        "timestamp,rate", "time,funding_rate", "fundingTime,fundingRate", '"Funding Time";"Funding Rate"',
        "\ufefftime\tlast_funding_rate", "ts,rate",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "time",
    [
        "2024-01-01T00:00:00Z", "2024-01-01 00:00:00", "1704067200", "1704067200000", "1704067200000000",
        "1704067200000000000",
    ],
)  # fmt: skip
def test_columns_and_times_are_known_by_many_names(tmp_path, header, time):
    delimiter = next(each for each in ";\t," if each in header)
    table = read_funding(saved(tmp_path, f"{header}\r\n{time}{delimiter}-0.0001\r\n"))
    assert (table.time_ns.tolist(), table.rate.tolist()) == ([JAN_1], [-0.0001])


def test_columns_that_mean_nothing_here_are_ignored_and_blank_lines_counted(tmp_path):
    text = "symbol,fundingTime,fundingRate,markPrice\n\nBTCUSDT,1704067200000,1e-4,\n\nBTCUSDT,1704096000000,0,42000\n"
    table = read_funding(saved(tmp_path, text))
    assert (table.rate.tolist(), table.lines.tolist()) == ([1e-4, 0.0], [3, 5])


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_compressed_file_is_told_by_its_content(tmp_path, pack):
    assert read_funding(saved(tmp_path, pack(ARCHIVE.encode()))).rate.size == 2


def test_a_zip_of_one_file_is_read(tmp_path):
    assert read_funding(zipped(tmp_path, ARCHIVE)).rate.size == 2
    refused(zipped(tmp_path, ARCHIVE, ARCHIVE), Code.SOURCE_UNREADABLE, "the zip holds 2 files; pack one CSV into it")


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, None], ids=["gzip", "zstd", "zip"])
def test_a_compressed_file_that_is_cut_or_damaged_is_refused(tmp_path, pack):
    text = ARCHIVE + "".join(f"{1704096000000 + n * 28_800_000},8,{n / 7e5:.8f}\n" for n in range(1, 500))
    whole = zipped(tmp_path, text).read_bytes() if pack is None else pack(text.encode())
    refused(saved(tmp_path, whole[: len(whole) // 2]), Code.SOURCE_UNREADABLE, "fetch or write it again")
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0x55
    if pack is not zstandard.compress:  # without a checksum in its frame, not all damage shows
        refused(saved(tmp_path, bytes(damaged)), Code.SOURCE_UNREADABLE, "fetch or write it again")


def test_a_file_that_unpacks_to_far_more_than_rates_ever_take_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(funding, "MAX_TEXT_BYTES", 1_000)
    for path in (
        saved(tmp_path, ARCHIVE * 100),
        saved(tmp_path, gzip.compress(ARCHIVE.encode() * 100), "rates.csv.gz"),
        saved(tmp_path, zstandard.compress(ARCHIVE.encode() * 100), "rates.csv.zst"),
        zipped(tmp_path, ARCHIVE * 100),
    ):
        refused(path, Code.SOURCE_UNREADABLE, "more than 1,000 bytes of text")


@pytest.mark.parametrize(
    ("text", "code", "words", "line"),
    [
        ("", "SOURCE_EMPTY", "the file is empty", None),
        ("\ufeff\n\n", "SOURCE_EMPTY", "the file is empty", None),
        ("timestamp,rate\n", "SOURCE_EMPTY", "nothing below the header", None),
        ("1704067200000,0.0001\n", "SOURCE_COLUMN_MISSING", "no column for time, rate: the header line must name", 1),
        ("timestamp,price\n1704067200000,1\n", "SOURCE_COLUMN_MISSING", "no column for rate", 1),
        ("timestamp,rate,funding_rate\n1,2,3\n", "SOURCE_COLUMN_MISSING", "would all be the rate", 1),
        ("timestamp,rate\n1704067200000,0.01%\n", "SOURCE_VALUE_INVALID", 'rate is "0.01%", which is not a number', 2),
        ("timestamp,rate\n1704067200000,1e-4\n1704096000000,\n", "SOURCE_VALUE_INVALID", "rate is empty", 3),
        ("timestamp,rate\n1704067200000,nan\n", "SOURCE_VALUE_INVALID", "not a finite number", 2),
        ("timestamp,rate\n,1e-4\n", "SOURCE_VALUE_INVALID", "time is empty", 2),
        ("timestamp,rate\n1704067200000,1e-4\n1704096000,x\n", "SOURCE_VALUE_INVALID", "counts seconds by its size", 3),
        ("timestamp,rate\n1704067200000,x\n1704096000,1\n", "SOURCE_VALUE_INVALID", 'rate is "x"', 2),
        ("timestamp,rate\n1704067200000,1e-4,8\n", "SOURCE_UNREADABLE", "3 cells where the header names 2", 2),
        ("<!doctype html><p>404", "SOURCE_UNREADABLE", "this is a web page", None),
        (b"timestamp,rate\n\xff\xfe\n", "SOURCE_UNREADABLE", "not UTF-8", 2),
        (b"PAR1....", "SOURCE_UNREADABLE", "this is Parquet", None),
        (b"PK\x03\x04....", "SOURCE_UNREADABLE", "no sound zip", None),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, text, code, words, line):
    refused(saved(tmp_path, text), code, words, line)


def test_a_file_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        read_funding(tmp_path / "rates.csv")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_rates_are_the_floats_that_are_written(tmp_path_factory, rates):
    text = "time,rate\n" + "".join(f"{JAN_1 + row * HOUR},{rate!r}\n" for row, rate in enumerate(rates))
    table = read_funding(saved(tmp_path_factory.getbasetemp(), text, "floats.csv"))
    np.testing.assert_array_equal(table.rate.view(np.int64), np.array(rates).view(np.int64))
    assert table.time_ns.tolist() == [JAN_1 + row * HOUR for row in range(len(rates))]
