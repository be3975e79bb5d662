"""Binance's archive of klines: the nearest floats, the base volume, and the intervals that are missing."""

import csv
import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.binance import archive
from adapters.binance.archive import open_archive
from adapters.shared import lines
from daemon.core.errors import Code, SourceDataInvalid
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Bars, Timeframe
from daemon.core.ports import Hole, HoleReason
from daemon.core.ticks import Stream

DAY = "BTCUSDT-1h-2024-08-08"
START_MS = 1723075200000
START_NS = START_MS * 10**6
HOUR_MS = 3_600_000
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore\n"
)
COIN_HEADER = HEADER.replace("quote_volume,count", "base_volume,count")


def kline(hour=0, close="100.25", volume="5.5", *, unit=1, lasts=HOUR_MS):
    start = (START_MS + hour * HOUR_MS) * unit
    stop = start + lasts * unit - 1
    return f"{start},100.10000000,101.5,99.5,{close},{volume},{stop},551.25,42,2.5,250.1,0\n"


def all_day(*missing):
    return "".join(kline(hour) for hour in range(24) if hour not in missing)


def zipped(folder, text, name=DAY):
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zip_file:
        zip_file.writestr(f"{name}.csv", text)
    return path


def read(path):
    file = open_archive(path)
    tables = list(file.bars())
    bars = Bars._make(np.concatenate([table.bars[place] for table in tables]) for place in range(6))
    return file, bars, np.concatenate([table.lines for table in tables])


def refused(folder, text, name=DAY):
    with pytest.raises(SourceDataInvalid) as caught:
        read(zipped(folder, text, name))
    return caught.value


@pytest.fixture
def small_blocks(monkeypatch):
    read_blocks = lines.text_blocks
    monkeypatch.setattr("adapters.binance.archive.text_blocks", lambda *args: read_blocks(*args, block_bytes=200))
    monkeypatch.setattr(lines, "PIECE_BYTES", 64)


@pytest.mark.parametrize("header", ["", HEADER])
def test_klines_are_read_with_and_without_a_header(tmp_path, header):
    file, bars, numbers = read(zipped(tmp_path, header + all_day()))
    assert (file.kind, file.stream, file.timeframe) == ("klines", Stream.BARS, Timeframe.HOUR_1)
    assert (file.symbol, file.start_ns, file.stop_ns) == ("BTCUSDT", START_NS, START_NS + NS_PER_DAY)
    assert bars.size == 24
    assert [float(column[0]) for column in bars[1:]] == [100.1, 101.5, 99.5, 100.25, 5.5]
    assert bars.start_ns.tolist() == [START_NS + hour * 3600 * NS_PER_SECOND for hour in range(24)]
    assert numbers.tolist() == list(range(1 + bool(header), 25 + bool(header)))
    assert (file.holes, file.notes) == ([], [])


def test_microseconds_are_told_by_their_size_and_tell_the_market(tmp_path):
    file, bars, _ = read(zipped(tmp_path, kline(unit=1000) + kline(1, unit=1000)))
    assert bars.start_ns.tolist() == [START_NS, START_NS + 3600 * NS_PER_SECOND]
    assert file.market == "spot"


@pytest.mark.parametrize(
    ("folder", "text", "market"),
    [
        ("klines", kline(), None),
        ("data/spot/daily/klines", kline(), "spot"),
        ("data/futures/um/daily/klines", kline(), "um"),
        ("data/futures/cm/daily/klines", kline(), "cm"),
        ("spot/futures/um", kline(), None),
        ("klines", HEADER + kline(), "um"),
    ],
)
def test_the_market_of_klines_is_told_by_folder_or_header_or_not_at_all(tmp_path, folder, text, market):
    (tmp_path / folder).mkdir(parents=True)
    assert open_archive(zipped(tmp_path / folder, text)).market == market


@pytest.mark.parametrize("header", ["", COIN_HEADER, HEADER])
def test_volume_of_coin_margined_klines_is_the_base_volume_not_the_contracts(tmp_path, header):
    file, bars, _ = read(zipped(tmp_path, header + kline(), "BTCUSD_PERP-1h-2024-08-08"))
    assert file.market == "cm"
    assert bars.volume.tolist() == [551.25]


@pytest.mark.parametrize(
    ("interval", "timeframe"),
    [("1s", "1Sec"), ("1m", "1Min"), ("5m", "5Min"), ("15m", "15Min"), ("1h", "1Hour"), ("1d", "1Day")],
)
def test_intervals_are_the_timeframes_of_the_house(tmp_path, interval, timeframe):
    assert open_archive(zipped(tmp_path, kline(), f"BTCUSDT-{interval}-2024-08")).timeframe == timeframe


def test_a_quiet_interval_is_a_row_with_volume_zero_and_kept(tmp_path):
    file, bars, _ = read(zipped(tmp_path, all_day(5).replace(kline(7), kline(7, volume="0.00000000"))))
    assert bars.volume[6] == 0
    assert len(file.holes) == 1


def test_missing_intervals_become_holes_between_their_neighbours(tmp_path):
    file, _, _ = read(zipped(tmp_path, all_day(0, 5, 6, 23)))
    hour = 3600 * NS_PER_SECOND
    assert file.holes == [
        Hole(START_NS - hour, START_NS + hour, HoleReason.MISSING_BARS, missing=1),
        Hole(START_NS + 4 * hour, START_NS + 7 * hour, HoleReason.MISSING_BARS, missing=2),
        Hole(START_NS + 22 * hour, START_NS + 24 * hour, HoleReason.MISSING_BARS, missing=1),
    ]


def test_without_a_date_in_the_name_only_gaps_between_rows_are_holes(tmp_path):
    file, _, _ = read(zipped(tmp_path, kline(3) + kline(6), "BTCUSDT-1h"))
    assert [hole.missing for hole in file.holes] == [2]


def test_holes_are_found_in_rows_of_any_order_and_repeats_are_left_to_the_import(tmp_path):
    rows = all_day(4).splitlines(keepends=True)
    file, bars, numbers = read(zipped(tmp_path, "".join([*reversed(rows), rows[3]])))
    assert [hole.missing for hole in file.holes] == [1]
    assert (bars.size, numbers[-1]) == (24, 24)


@pytest.mark.usefixtures("small_blocks")
def test_blocks_of_a_large_file_keep_their_line_numbers_and_find_the_same_holes(tmp_path):
    path = zipped(tmp_path, HEADER + all_day(11))
    assert len(list(open_archive(path).bars())) > 5
    file, bars, numbers = read(path)
    assert (bars.size, numbers.tolist()) == (23, list(range(2, 25)))
    assert [hole.missing for hole in file.holes] == [1]


def test_rows_of_another_day_and_odd_lengths_are_kept_and_counted(tmp_path):
    file, bars, _ = read(zipped(tmp_path, all_day() + kline(30) + kline(24, lasts=5)))
    assert bars.size == 26
    assert file.holes == []
    assert file.notes == [
        "1 klines do not last 1Hour by their close time: kept",
        "2 rows are of another time than the file's name says: kept",
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(min_value=1e-8, max_value=1e11, allow_nan=False), min_size=1, max_size=20))
def test_floats_are_those_nearest_to_the_text(tmp_path_factory, prices):
    texts = [format(price, ".8f") for price in prices]
    text = "".join(kline(hour, close, volume=close) for hour, close in enumerate(texts))
    _, bars, _ = read(zipped(tmp_path_factory.mktemp("any"), text))
    naive = [float(row[4]) for row in csv.reader(io.StringIO(text))]
    for column in (bars.close, bars.volume):
        assert struct.pack(f"{len(naive)}d", *column) == struct.pack(f"{len(naive)}d", *naive)


@pytest.mark.parametrize(
    ("bad", "code", "field"),
    [
        (kline(2, close="x"), Code.SOURCE_VALUE_INVALID, "close"),
        (kline(2, close="nan"), Code.BARS_INVALID, "close"),
        (kline(2, close="1e999"), Code.BARS_INVALID, "close"),
        (kline(2, volume="inf"), Code.BARS_INVALID, "volume"),
        (kline(2, volume=""), Code.SOURCE_VALUE_INVALID, "volume"),
        (kline(2, unit=1000), Code.BARS_INVALID, "openTime"),
        (HEADER, Code.SOURCE_VALUE_INVALID, "openTime"),
        ("1,2,3\n", Code.SOURCE_UNREADABLE, None),
        (kline(2)[:-4] + "\n", Code.SOURCE_UNREADABLE, None),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(tmp_path, bad, code, field):
    error = refused(tmp_path, kline() + bad + kline(3))
    assert (error.code, error.details["line"], error.details.get("field")) == (code, 2, field)


@pytest.mark.parametrize("folder", ["markPriceKlines", "indexPriceKlines", "premiumIndexKlines"])
def test_klines_of_prices_that_nobody_traded_at_are_refused(tmp_path, folder):
    (tmp_path / folder).mkdir()
    error = refused(tmp_path / folder, kline())
    assert error.code is Code.SOURCE_UNREADABLE
    assert folder in error.message


def test_a_header_with_other_columns_is_refused(tmp_path):
    error = refused(tmp_path, HEADER.replace("high,low", "low,high") + kline())
    assert (error.code, error.details["field"]) == (Code.SOURCE_COLUMN_MISSING, "high")


def test_more_rows_than_any_archive_file_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BARS", 20)
    assert refused(tmp_path, all_day()).code is Code.SOURCE_UNREADABLE


def test_ticks_are_not_asked_of_a_file_of_klines(tmp_path):
    with pytest.raises(ValueError, match="not ticks"):
        next(open_archive(zipped(tmp_path, kline())).blocks())
