"""Tick files of any vendor: names, times and sides in their many writings, exact numbers, and every refusal."""

import gzip
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from adapters.shared import arrange, lines
from adapters.tickfile import delimited, open_ticks
from adapters.tickfile import parquet as tick_parquet
from daemon.core.errors import AtlasError, Code, NotFound, SourceDataInvalid
from daemon.core.ports import Verification
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream, concatenate

T_MS = 1723075200000
T_NS = T_MS * 10**6
TRADES = "timestamp,price,size,side,id\n"
QUOTES = "ts,bid,bid_size,ask,ask_size\n"
DEPTH = "ts,side,price,size\n"


def saved(folder, text, name="ticks.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def opened_rows(path, stream=Stream.TRADES):
    file = open_ticks(path, stream)
    return file, concatenate(list(file.blocks()))


def rows_of(folder, text, stream=Stream.TRADES):
    return opened_rows(saved(folder, text), stream)


def table_of(folder, columns, stream=Stream.TRADES):
    path = folder / "ticks.parquet"
    parquet.write_table(pa.table(columns), path)
    return opened_rows(path, stream)


def refused(act, *args):
    with pytest.raises(AtlasError) as caught:
        act(*args)
    return caught.value


def column(rows, name):
    return rows.column(name).tolist()


@pytest.fixture
def small_blocks(monkeypatch):
    read_blocks = lines.text_blocks
    monkeypatch.setattr(delimited, "text_blocks", lambda *args: read_blocks(*args, block_bytes=60))
    monkeypatch.setattr(lines, "PIECE_BYTES", 16)
    monkeypatch.setattr(tick_parquet, "BATCH_ROWS", 2)
    monkeypatch.setattr(arrange, "BLOCK_ROWS", 2)


# Names and layouts.


@pytest.mark.parametrize(
    "header",
    [
        "timestamp,price,size,side,id",
        "Time,PRICE,Qty,Side,Trade_ID",
        "\ufefftime_ns,price,quantity,side,trade id",
        '"ts","price","amount","side","id"',
        "ts,price,volume,side,id",
    ],
)
def test_column_names_are_known_by_alias_in_any_case(tmp_path, header):
    file, rows = rows_of(tmp_path, f"{header}\n{T_MS},100.50,0.25,buy,7\n")
    assert column(rows, "time_ns") == [T_NS]
    assert (column(rows, "price"), rows.price_decimals) == ([1005], 1)
    assert (column(rows, "size"), rows.size_decimals) == ([25], 2)
    assert (column(rows, "side"), column(rows, "id"), column(rows, "local_ns")) == ([BUY], [7], [0])
    assert (file.notes, file.holes, file.verification) == ([], [], Verification.UNVERIFIED)
    assert file.name == "ticks.csv"
    assert len(file.sha256) == 64


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found_in_the_header_and_other_columns_are_ignored(tmp_path, delimiter):
    text = f"exchange,size,price,ts\nx y,1.5,2,{T_MS}\n".replace(",", delimiter)
    _, rows = rows_of(tmp_path, text)
    assert (column(rows, "price"), column(rows, "size"), rows.size_decimals) == ([2], [15], 1)


def test_ids_and_sides_may_be_absent(tmp_path):
    _, rows = rows_of(tmp_path, f"ts,price,size\n{T_MS},1,1\n{T_MS},2,1\n")
    assert (column(rows, "id"), column(rows, "side"), column(rows, "price")) == ([-1, -1], [0, 0], [1, 2])


def test_gzipped_text_is_read_like_plain_text(tmp_path):
    _, rows = rows_of(tmp_path, gzip.compress(f"{TRADES}{T_MS},1,1,buy,1\n".encode()))
    assert rows.size == 1


def test_blank_lines_are_passed_over_and_lines_still_counted(tmp_path):
    text = f"\n{TRADES}\n{T_MS},1,1,buy,1\n\n\n{T_MS},x,1,buy,2\n"
    error = refused(rows_of, tmp_path, text)
    assert (error.details["line"], error.details["field"]) == (7, "price")
    _, rows = rows_of(tmp_path, text.replace("x", "2"))
    assert column(rows, "id") == [1, 2]


@pytest.mark.parametrize(
    ("word", "side"),
    [("buy", BUY), ("SELL", SELL), ("b", BUY), ("S", SELL), ("1", BUY), ("-1", SELL), ("unknown", 0), (" Buy ", BUY)],
)
def test_sides_are_known_in_many_words(tmp_path, word, side):
    _, rows = rows_of(tmp_path, f"{TRADES}{T_MS},1,1,{word},1\n")
    assert column(rows, "side") == [side]


@pytest.mark.parametrize(("word", "side"), [("true", SELL), ("False", BUY), ("1", SELL), ("0", BUY)])
def test_a_buyer_who_is_the_maker_means_that_the_taker_sold(tmp_path, word, side):
    _, rows = rows_of(tmp_path, f"ts,price,qty,is_buyer_maker\n{T_MS},1,1,{word}\n")
    assert column(rows, "side") == [side]


def test_agg_trades_keep_the_ids_they_join(tmp_path):
    text = f"ts,price,qty,agg_trade_id,first_trade_id,last_trade_id\n{T_MS},1,1,9,100,102\n"
    _, rows = rows_of(tmp_path, text, Stream.AGG_TRADES)
    assert [column(rows, name) for name in ("id", "first_id", "last_id")] == [[9], [100], [102]]


def test_quotes_share_decimals_between_bid_and_ask(tmp_path):
    _, rows = rows_of(tmp_path, f"{QUOTES}{T_MS},1.5,3,1.75,0\n", Stream.QUOTES)
    assert [column(rows, name) for name in ("bid", "ask", "bid_size", "ask_size")] == [[150], [175], [3], [0]]
    assert (rows.price_decimals, rows.size_decimals) == (2, 0)


def test_depth_keeps_sides_gone_levels_flags_and_the_order_of_the_file(tmp_path):
    text = "ts,side,price,size,update_id,is_snapshot\n" + "".join(
        f"{T_MS},{side},{price},{size},5,{snapshot}\n"
        for side, price, size, snapshot in [("bid", 2, 1, "true"), ("ask", 3, 1, "true"), ("bid", 2, 0, "false")]
    )
    _, rows = rows_of(tmp_path, text, Stream.DEPTH)
    assert (column(rows, "side"), column(rows, "size")) == ([BUY, SELL, BUY], [1, 1, 0])
    assert column(rows, "flags") == [DepthFlag.SNAPSHOT, DepthFlag.SNAPSHOT, 0]
    assert column(rows, "id") == [5, 5, 5]
    _, rows = rows_of(tmp_path, f"{DEPTH.strip()},flags\n{T_MS},a,2,1,3\n", Stream.DEPTH)
    assert (column(rows, "side"), column(rows, "flags")) == ([SELL], [3])


# Times.


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1723075200", T_NS),
        ("1723075200.123456789", T_NS + 123456789),
        ("1723075200123", T_NS + 123_000_000),
        ("1723075200123456", T_NS + 123_456_000),
        ("1723075200123456789", T_NS + 123456789),
        ("2024-08-08T00:00:00Z", T_NS),
        ("2024-08-08 02:00:00.123456789+02:00", T_NS + 123456789),
        ("2024-08-08T00:00:00.5", T_NS + 500_000_000),
        ("2024-08-08", T_NS),
    ],
)
def test_times_are_read_in_every_unit_and_in_iso_8601(tmp_path, text, time_ns):
    file, rows = rows_of(tmp_path, f"{TRADES}{text},1,1,buy,1\n")
    assert column(rows, "time_ns") == [time_ns]
    zoned = text[-1] == "Z" or "+" in text or "-" not in text
    assert file.notes == ([] if zoned else ["times of time_ns carry no zone: UTC assumed"])


def test_times_of_arrival_may_be_unknown_and_have_a_unit_of_their_own(tmp_path):
    text = f"ts,local_timestamp,price,size\n{T_MS},0,1,1\n{T_MS},{T_NS + 5},1,1\n"
    _, rows = rows_of(tmp_path, text)
    assert column(rows, "local_ns") == [0, T_NS + 5]
    _, rows = rows_of(tmp_path, f"ts,received,price,size\n{T_MS},{T_MS + 1},1,1\n")
    assert column(rows, "local_ns") == [T_NS + 10**6]


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (str(T_MS), str(T_MS * 1000), "counts microseconds since 1970, where the first time counts milliseconds"),
        (str(T_MS), str(T_MS // 1000), "counts seconds since 1970"),
        (str(T_MS), "2024-08-08T00:00:00Z", "is a date and clock with a zone"),
        ("2024-08-08T00:00:00Z", "2024-08-08T00:00:00", "without a zone, where the first time"),
        ("2024-08-08T00:00:00", "2024-08-08T00:00:00Z", "with a zone, where the first time"),
        (str(T_MS), "noon", "is no time"),
        (str(T_MS), "0", "is no time"),
        (str(T_MS), f"{T_MS}.1234567", "is no time"),
        ("2024-08-08", "57111-01-01", "is no time"),
        ("2024-08-08", "1960-01-01", "is no time"),
        (str(T_MS), "", "is empty"),
    ],
)
def test_a_time_written_in_another_way_than_the_first_is_refused(tmp_path, first, second, why):
    error = refused(rows_of, tmp_path, f"{TRADES}{first},1,1,buy,1\n{second},1,1,buy,2\n")
    assert (error.code, error.details["line"]) == (Code.SOURCE_VALUE_INVALID, 3)
    assert error.details["field"] == "time_ns"
    assert why in error.message


@pytest.mark.parametrize("text", ["5", "99999999999999999999", "yesterday", "-1", "1e12"])
def test_a_first_time_of_no_known_unit_is_refused(tmp_path, text):
    error = refused(rows_of, tmp_path, f"{TRADES}{text},1,1,buy,1\n")
    assert (error.code, error.details["field"]) == (Code.SOURCE_VALUE_INVALID, "time_ns")


# Numbers.


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.decimals(min_value=Decimal("0.00000001"), max_value=Decimal(9 * 10**10), places=8, allow_nan=False),
        min_size=1,
        max_size=20,
    )
)
def test_any_decimals_survive_text_to_integers_to_text(tmp_path_factory, numbers):
    text = "ts,price,size\n" + "".join(f"{T_MS},{number:f},{number:f}\n" for number in numbers)
    _, rows = rows_of(tmp_path_factory.mktemp("any"), text)
    for name, decimals in (("price", rows.price_decimals), ("size", rows.size_decimals)):
        assert [Decimal(whole).scaleb(-decimals) for whole in column(rows, name)] == numbers


@pytest.mark.usefixtures("small_blocks")
def test_blocks_with_different_decimals_join_to_the_rows_of_the_file(tmp_path):
    prices = ["1", "2.5", "3.25", "4", "5", "6.125", "7"]
    text = TRADES + "".join(f"{T_MS + i},{price},1,buy,{i}\n" for i, price in enumerate(prices))
    file = open_ticks(saved(tmp_path, text), Stream.TRADES)
    blocks = list(file.blocks())
    assert len(blocks) > 2
    assert column(concatenate(blocks), "price") == [int(Decimal(price) * 1000) for price in prices]


@pytest.mark.parametrize(
    ("row", "code", "field", "why"),
    [
        (f"{T_MS},x,1,buy,2", Code.SOURCE_VALUE_INVALID, "price", "not a finite number"),
        (f"{T_MS},,1,buy,2", Code.SOURCE_VALUE_INVALID, "price", "empty"),
        (f"{T_MS},nan,1,buy,2", Code.SOURCE_VALUE_INVALID, "price", "not a finite number"),
        (f'{T_MS},"1,000.5",1,buy,2', Code.SOURCE_VALUE_INVALID, "price", "thousands separators"),
        (f"{T_MS},{'1' * 30},1,buy,2", Code.SOURCE_VALUE_INVALID, "price", "64 bits"),
        (f"{T_MS},9223372036854775807,1,buy,2", Code.SOURCE_VALUE_INVALID, "price", "rows near it"),
        (f"{T_MS},0,1,buy,2", Code.TICKS_INVALID, "price", "not positive"),
        (f"{T_MS},-1,1,buy,2", Code.TICKS_INVALID, "price", "not positive"),
        (f"{T_MS},1,-1,buy,2", Code.TICKS_INVALID, "size", "negative"),
        (f"{T_MS},1,?,buy,2", Code.SOURCE_VALUE_INVALID, "size", "not a finite number"),
        (f"{T_MS},1,1,long,2", Code.SOURCE_VALUE_INVALID, "side", "none of buy"),
        (f"{T_MS},1,1,,2", Code.SOURCE_VALUE_INVALID, "side", "empty"),
        (f"{T_MS},1,1,buy,two", Code.SOURCE_VALUE_INVALID, "id", "not a whole number"),
        (f"{T_MS},1,1,buy,0x10", Code.SOURCE_VALUE_INVALID, "id", "not a whole number"),
        (f"{T_MS},1,1,buy,1.5", Code.SOURCE_VALUE_INVALID, "id", "not a whole number"),
        (f"{T_MS},1,1,buy,-2", Code.TICKS_INVALID, "id", "negative"),
        (f"{T_MS},1,1,buy", Code.SOURCE_UNREADABLE, None, "4 cells where 5 belong"),
        (f"{T_MS},1,1,buy,2,3", Code.SOURCE_UNREADABLE, None, "6 cells where 5 belong"),
        (f"{T_MS},1,1,buy,1", Code.TICKS_INVALID, "price", "id 1 was in line 2 already"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(tmp_path, row, code, field, why):
    error = refused(rows_of, tmp_path, f"{TRADES}{T_MS},1.5,1,buy,1\n{row}\n{T_MS},1,1,buy,9\n")
    assert (error.code, error.details["line"], error.details.get("field")) == (code, 3, field)
    assert why in error.message
    assert error.message.startswith("ticks.csv line 3: ")


def test_rows_out_of_order_are_sorted_repeats_dropped_and_zero_sizes_counted(tmp_path):
    row = f"{T_MS},1,0,buy,1\n"
    file, rows = rows_of(tmp_path, f"{TRADES}{T_MS + 1},1,1,buy,2\n{row}{row}")
    assert column(rows, "id") == [1, 2]
    assert file.notes == [
        "1 rows stood below rows of a later time: sorted",
        "1 rows repeated another row of the file in every value: dropped",
        "2 trades have a size of 0: kept",
    ]


# Parquet.


def test_floats_of_parquet_are_handed_over_bit_for_bit(tmp_path):
    prices = [0.1, 0.2 + 0.1, 5e-324]
    _, rows = table_of(tmp_path, {"ts": [T_MS] * 3, "price": prices, "size": [1, 2, 3]})
    assert rows.column("price").tobytes() == np.array(prices).tobytes()
    assert (rows.price_decimals, rows.size_decimals, column(rows, "size")) == (None, 0, [1, 2, 3])


@pytest.mark.parametrize(
    "prices",
    [
        pa.array([Decimal("1.50"), Decimal("2.25")]),
        pa.array(["1.50", " 2.25"]),
        pa.array(["1.50", "2.25"]).dictionary_encode(),
        pa.array(["1.50", "2.25"], pa.large_string()),
    ],
)
def test_decimals_and_texts_of_parquet_become_whole_numbers(tmp_path, prices):
    _, rows = table_of(tmp_path, {"ts": [T_MS, T_MS], "price": prices, "size": ["1", "2"]})
    assert (column(rows, "price"), rows.price_decimals) == ([150, 225], 2)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_timestamps_of_parquet_are_read_in_every_unit(tmp_path, unit, zone):
    moment = datetime(2024, 8, 8, tzinfo=UTC)
    times = pa.array([moment], pa.timestamp(unit, "UTC")).cast(pa.timestamp(unit, zone or "UTC"))
    times = times if zone else times.cast(pa.timestamp(unit))
    file, rows = table_of(tmp_path, {"ts": times, "price": [1.0], "size": [1.0], "is_buyer_maker": [True]})
    assert (column(rows, "time_ns"), column(rows, "side")) == ([T_NS], [SELL])
    assert len(file.notes) == (zone is None)


def test_narrow_floats_are_kept_and_said(tmp_path):
    file, rows = table_of(tmp_path, {"ts": [T_MS], "price": pa.array([0.1], pa.float32()), "size": [1]})
    assert column(rows, "price") == [float(np.float32(0.1))]
    assert file.notes == ["stored in fewer than 64 bits, so rounded by the file's writer: price"]


def test_what_a_row_does_not_tell_may_be_null(tmp_path):
    table = {"ts": [T_MS] * 2, "price": [1.0] * 2, "size": ["1"] * 2, "id": [None, 2], "local_ns": [T_NS, None]}
    _, rows = table_of(tmp_path, table)
    assert (column(rows, "id"), column(rows, "local_ns")) == ([-1, 2], [T_NS, 0])


@pytest.mark.usefixtures("small_blocks")
def test_a_bad_row_of_parquet_is_named_by_its_row(tmp_path):
    good = {"ts": [T_MS] * 5, "price": [1.0] * 5, "size": ["1"] * 5, "id": [1, 2, 3, 4, 5]}
    for field, values, code in [
        ("price", [1.0, 1.0, 1.0, float("nan"), 1.0], Code.SOURCE_VALUE_INVALID),
        ("price", [1.0, 1.0, 1.0, None, 1.0], Code.SOURCE_VALUE_INVALID),
        ("size", ["1", "1", "1", "x", "1"], Code.SOURCE_VALUE_INVALID),
        ("price", [1.0, 1.0, 1.0, -1.0, 1.0], Code.TICKS_INVALID),
    ]:
        error = refused(table_of, tmp_path, {**good, field: values})
        assert (error.code, error.details["line"], error.details["field"]) == (code, 4, field)
        assert error.message.startswith("ticks.parquet row 4: ")


@pytest.mark.parametrize(
    ("field", "values", "why"),
    [
        ("price", [[1.0]], "store numbers"),
        ("price", [b"1"], "store numbers"),
        ("id", [1.0], "store whole numbers"),
        ("side", [1.0], "store text, whole numbers or booleans"),
        ("ts", [1.7e9], "store timestamps, text, or whole numbers"),
    ],
)
def test_columns_of_types_that_hold_no_such_field_are_refused(tmp_path, field, values, why):
    columns = {"ts": [T_MS], "price": [1.0], "size": [1.0], "id": [1], "side": ["buy"], field: values}
    error = refused(table_of, tmp_path, columns)
    assert error.code is Code.SOURCE_UNREADABLE
    assert why in error.message


def test_quotes_of_floats_beside_integers_are_refused(tmp_path):
    columns = {"ts": [T_MS], "bid": [1.0], "ask": [2], "bid_size": [1], "ask_size": [1]}
    assert "store both alike" in refused(table_of, tmp_path, columns, Stream.QUOTES).message


# Files that must be kept out.


def test_a_path_without_a_file_or_to_a_folder_is_refused(tmp_path):
    assert isinstance(refused(open_ticks, tmp_path / "x.csv", Stream.TRADES), NotFound)
    assert refused(open_ticks, tmp_path, Stream.TRADES).code is Code.SOURCE_UNREADABLE


@pytest.mark.parametrize("text", ["", "\n\n", TRADES, TRADES + "\n\n"])
def test_files_without_rows_are_empty(tmp_path, text):
    assert refused(rows_of, tmp_path, text).code is Code.SOURCE_EMPTY


def test_a_parquet_table_without_rows_is_empty(tmp_path):
    columns = {name: pa.array([], pa.int64()) for name in ("ts", "price", "size")}
    assert refused(table_of, tmp_path, columns).code is Code.SOURCE_EMPTY


@pytest.mark.parametrize(
    ("header", "stream", "why"),
    [
        ("ts,price", Stream.TRADES, "no column for size"),
        (f"{T_MS},1,1", Stream.TRADES, "no column for time_ns, price, size"),
        ("ts,time,price,size", Stream.TRADES, "would all be time_ns"),
        ("ts,price,size,volume", Stream.TRADES, "would all be size"),
        ("ts,price,size,side,is_buyer_maker", Stream.TRADES, "would all be side"),
        ("ts,price,size", Stream.DEPTH, "no column for side"),
        ("ts,bid,ask", Stream.QUOTES, "no column for bid_size, ask_size"),
    ],
)
def test_headers_that_do_not_name_each_field_once_are_refused(tmp_path, header, stream, why):
    error = refused(open_ticks, saved(tmp_path, f"{header}\n1,1,1,1,1\n"), stream)
    assert error.code is Code.SOURCE_COLUMN_MISSING
    assert why in error.message


@pytest.mark.parametrize(
    "contents",
    [
        b"PK\x03\x04rest",
        b"PAR1 no parquet",
        b"\x00\x01\x02",
        b"ts,price,\xff\xfe\n1,2,3\n",
        gzip.compress(TRADES.encode() * 50, mtime=0)[:-9],
        gzip.compress(TRADES.encode(), mtime=0) + b"more",
        b"x" * 100_000,
        f'{TRADES}{T_MS},"1,1,buy,1\n'.encode(),
        f"{TRADES}{T_MS},1,1,buy,1\n".encode() + b"\xff\xfe,1,1,1,1\n",
    ],
)
def test_damaged_and_foreign_files_are_refused(tmp_path, contents):
    error = refused(rows_of, tmp_path, contents)
    assert isinstance(error, SourceDataInvalid)
    assert error.code in {Code.SOURCE_UNREADABLE, Code.SOURCE_VALUE_INVALID}


def test_a_gzip_of_more_than_the_most_that_is_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "MAX_TEXT_BYTES", 50)
    contents = gzip.compress(TRADES.encode() + f"{T_MS},1,1,buy,1\n".encode() * 3)
    assert "more than 50 bytes" in refused(rows_of, tmp_path, contents).message


def test_bars_are_no_ticks(tmp_path):
    with pytest.raises(ValueError, match="no ticks"):
        open_ticks(saved(tmp_path, TRADES), Stream.BARS)
