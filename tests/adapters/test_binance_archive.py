"""Binance's archive of trades: what its files hold, exactly, and every file that must be kept out."""

import csv
import hashlib
import io
import zipfile
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.binance import archive_zip
from adapters.binance.archive import open_archive
from adapters.shared import arrange, lines
from daemon.core.errors import AtlasError, Code, NotFound, SourceDataInvalid
from daemon.core.market import NS_PER_DAY
from daemon.core.ports import Verification
from daemon.core.ticks import BUY, COLUMNS, SELL, Stream, concatenate

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "binance"
REAL = {
    "spot": SHARED / "spot" / "trades" / "BTCUSDT-trades-2024-08-09.zip",
    "um": SHARED / "futures-um" / "trades" / "BTCUSDT-trades-2024-08-08.zip",
}
SPOT = "BTCUSDT-trades-2025-01-01"
UM = "BTCUSDT-trades-2024-08-08"
T_US = 1735689600010866
T_MS = 1723075200000
UM_HEADER = "id,price,qty,quote_qty,time,is_buyer_maker\n"
AGG_HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
ROW = f"7,100.5,0.25,25.125,{T_MS},true\n"


def spot(row_id=1, price="100.50000000", qty="0.25000000", time=T_US, maker="True"):
    return f"{row_id},{price},{qty},1.0,{time},{maker},True\n"


def um(row_id=1, price="100.5", qty="0.25", time=T_MS, maker="true"):
    return f"{row_id},{price},{qty},1.0,{time},{maker}\n"


def zipped(folder, text, name=UM, member=None, checksum=None):
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member or f"{name}.csv", text)
    if checksum is not None:
        path.with_name(path.name + ".CHECKSUM").write_text(checksum)
    return path


def opened_rows(path):
    file = open_archive(path)
    return file, concatenate(list(file.blocks()))


def rows_of(folder, text, name=UM):
    return opened_rows(zipped(folder, text, name))


def refused(folder, text, name=UM):
    with pytest.raises(SourceDataInvalid) as caught:
        rows_of(folder, text, name)
    assert caught.value.message.startswith(name)
    return caught.value


def refused_path(path):
    with pytest.raises(AtlasError) as caught:
        opened_rows(path)
    return caught.value


def column(rows, name):
    return rows.column(name).tolist()


@pytest.fixture
def small_blocks(monkeypatch):
    """Text blocks of about two rows, and blocks of as many: a file of ten rows is then a large one."""
    read_blocks = lines.text_blocks
    monkeypatch.setattr("adapters.binance.archive.text_blocks", lambda *args: read_blocks(*args, block_bytes=80))
    monkeypatch.setattr(lines, "PIECE_BYTES", 16)
    monkeypatch.setattr(arrange, "BLOCK_ROWS", 2)


# What files hold.


def test_spot_trades_without_header_in_microseconds_are_read_to_the_last_digit(tmp_path):
    text = spot(5, "61800.30000000", "0.00001000", T_US, "True") + spot(6, "61800.25000000", "1.5", T_US + 1, "False")
    file, rows = rows_of(tmp_path, text, SPOT)
    assert (file.market, file.kind, file.stream, file.symbol) == ("spot", "trades", Stream.TRADES, "BTCUSDT")
    assert file.timeframe is None
    assert file.start_ns == 1735689600 * 10**9
    assert file.stop_ns == file.start_ns + NS_PER_DAY
    assert column(rows, "time_ns") == [1735689600010866000, 1735689600010867000]
    assert column(rows, "local_ns") == [0, 0]
    assert (column(rows, "id"), column(rows, "price"), rows.price_decimals) == ([5, 6], [6180030, 6180025], 2)
    assert (column(rows, "size"), rows.size_decimals) == ([1, 150000], 5)
    assert column(rows, "side") == [SELL, BUY]
    assert [each.dtype for each in rows.columns] == [np.int64] * 5 + [np.int8]
    assert file.notes == []
    assert file.holes == []


@pytest.mark.parametrize("header", ["", UM_HEADER, "\ufeff" + UM_HEADER])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_futures_trades_are_read_with_and_without_a_header(tmp_path, header, end):
    text = (header + um(3) + um(4, maker="false")).replace("\n", end).removesuffix(end)
    file, rows = rows_of(tmp_path, text)
    assert file.market == "um"
    assert (column(rows, "id"), column(rows, "side")) == ([3, 4], [SELL, BUY])
    assert column(rows, "time_ns") == [T_MS * 10**6] * 2


@pytest.mark.parametrize("symbol", ["BTCUSD_PERP", "ETHUSD_240927"])
def test_coin_margined_files_are_known_by_their_symbol(tmp_path, symbol):
    header = "id,price,qty,base_qty,time,is_buyer_maker\n"
    file, rows = rows_of(tmp_path, header + f"1,60000.1,3,0.005,{T_MS},false\n", f"{symbol}-trades-2024-08")
    assert (file.market, file.symbol) == ("cm", symbol)
    assert (column(rows, "size"), rows.size_decimals) == ([3], 0)
    assert file.stop_ns - file.start_ns == 31 * NS_PER_DAY


@pytest.mark.parametrize(
    ("text", "market"),
    [
        (f"9,1.5,2,100,102,{T_MS},True,True\n", "spot"),
        (f"9,1.5,2,100,102,{T_MS},true\n", "um"),
        (AGG_HEADER + f"9,1.5,2,100,102,{T_MS},true\n", "um"),
    ],
)
def test_agg_trades_keep_the_ids_of_the_trades_they_join(tmp_path, text, market):
    file, rows = rows_of(tmp_path, text, "BTCUSDT-aggTrades-2024-08-08")
    assert (file.market, file.stream, rows.stream) == (market, Stream.AGG_TRADES, Stream.AGG_TRADES)
    assert [column(rows, name) for name in ("id", "first_id", "last_id")] == [[9], [100], [102]]


@pytest.mark.parametrize("market", REAL)
def test_real_files_equal_a_naive_reading(market):
    path = REAL[market]
    if not path.exists():
        pytest.skip(f"the recorded archive file {path.name} is not on this machine")
    file, rows = opened_rows(path)
    with zipfile.ZipFile(path) as archive:
        naive = list(csv.reader(io.StringIO(archive.read(archive.namelist()[0]).decode())))
    naive = naive if naive[0][0].isdigit() else naive[1:]
    assert file.market == market
    assert file.notes == []
    assert rows.size == len(naive) > 10_000
    assert column(rows, "id") == [int(row[0]) for row in naive]
    assert column(rows, "time_ns") == [int(row[4]) * 10**6 for row in naive]
    assert column(rows, "side") == [SELL if row[5].lower() == "true" else BUY for row in naive]
    for name, position, decimals in (("price", 1, rows.price_decimals), ("size", 2, rows.size_decimals)):
        assert [Decimal(number).scaleb(-decimals) for number in column(rows, name)] == [
            Decimal(row[position]) for row in naive
        ]


decimal_texts = st.decimals(
    min_value=Decimal("0.00000001"), max_value=Decimal(90000000000), places=8, allow_nan=False
).map(lambda number: format(number, "f"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(decimal_texts, decimal_texts, st.booleans()), min_size=1, max_size=20))
def test_any_decimals_survive_text_to_integers_to_text(tmp_path_factory, trades):
    text = "".join(um(place, price, qty, maker=str(maker)) for place, (price, qty, maker) in enumerate(trades))
    _, rows = rows_of(tmp_path_factory.mktemp("any"), text)
    for name, decimals, place in (("price", rows.price_decimals, 0), ("size", rows.size_decimals, 1)):
        written = [format(Decimal(number).scaleb(-decimals), f".{8}f") for number in column(rows, name)]
        assert written == [trade[place] for trade in trades]


def test_numbers_with_more_than_eight_decimals_are_exact_too(tmp_path):
    _, rows = rows_of(tmp_path, um(1, "0.000000000123", "1e-7") + um(2, "5.5", "+2.50"))
    assert (column(rows, "price"), rows.price_decimals) == ([123, 5_500_000_000_000], 12)
    assert (column(rows, "size"), rows.size_decimals) == ([1, 25_000_000], 7)


def test_numbers_that_need_all_of_64_bits_are_exact(tmp_path):
    _, rows = rows_of(tmp_path, um(1, "92233720368.54775807", "46116860414000"))
    assert (column(rows, "price"), rows.price_decimals) == ([(1 << 63) - 1], 8)
    assert (column(rows, "size"), rows.size_decimals) == ([46116860414000], 0)


@pytest.mark.usefixtures("small_blocks")
def test_blocks_of_a_large_file_join_to_the_rows_of_the_file(tmp_path):
    prices = ["1", "2.5", "3.25", "4", "5", "6.125", "7", "8", "9", "10"]
    file = open_archive(
        zipped(tmp_path, UM_HEADER + "".join(um(i, price, time=T_MS + i) for i, price in enumerate(prices)))
    )
    blocks = list(file.blocks())
    assert len(blocks) > 3
    rows = concatenate(blocks)
    assert column(rows, "price") == [int(Decimal(price) * 1000) for price in prices]
    assert column(rows, "id") == list(range(10))


# What is odd, kept and said.


def test_a_checksum_that_agrees_verifies_the_file(tmp_path):
    path = zipped(tmp_path, ROW)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert open_archive(path).verification is Verification.UNVERIFIED
    for line in (f"{digest}  {path.name}\n", f"{digest.upper()} *{path.name}"):
        path.with_name(path.name + ".CHECKSUM").write_text(line)
        file = open_archive(path)
        assert (file.verification, file.sha256, file.name) == (Verification.VERIFIED, digest, path.name)


def test_rows_out_of_order_are_sorted_and_counted(tmp_path):
    file, rows = rows_of(tmp_path, um(3, time=T_MS + 5) + um(1) + um(4, time=T_MS + 5) + um(2))
    assert column(rows, "id") == [1, 2, 3, 4]
    assert file.notes == ["2 rows stood below rows of a later time or id: sorted"]


@pytest.mark.usefixtures("small_blocks")
def test_rows_interleaved_from_two_days_pass_whole_and_are_sorted_in_their_window(tmp_path):
    early = [um(i, time=T_MS + i) for i in range(20)]
    late = [um(100 + i, time=T_MS + 1000 + i) for i in range(20)]
    file = open_archive(zipped(tmp_path, "".join(row for pair in zip(early, late, strict=True) for row in pair)))
    blocks = list(file.blocks())
    assert all((np.diff(block.time_ns) >= 0).all() for block in blocks)
    assert sorted(column(concatenate(blocks), "id")) == [*range(20), *range(100, 120)]
    assert file.notes[0].endswith("rows stood below rows of a later time or id: sorted")


@pytest.mark.usefixtures("small_blocks")
def test_rows_that_repeat_with_all_values_are_dropped_also_across_blocks(tmp_path):
    rows = [um(i, time=T_MS + i) for i in range(6)]
    file, got = rows_of(tmp_path, "".join(row for row in rows for _ in range(2)))
    assert column(got, "id") == list(range(6))
    assert file.notes == ["6 rows repeated another row of the file in every value: dropped"]


def test_rows_of_another_day_are_kept_and_counted(tmp_path):
    text = um(1, time=T_MS - 1) + um(2) + um(3, time=T_MS + 86_400_000)
    file, rows = rows_of(tmp_path, text)
    assert rows.size == 3
    assert file.notes == ["2 rows are of another time than the file's name says: kept"]


def test_ids_that_jump_are_counted_not_reported_as_holes(tmp_path):
    file, _ = rows_of(tmp_path, um(1) + um(2) + um(5) + um(7))
    assert file.notes == ["ids jump at 2 places, 3 ids are not in the file"]
    assert file.holes == []


def test_quantities_of_zero_are_kept_because_binance_published_months_of_them(tmp_path):
    file, rows = rows_of(tmp_path, um(1, qty="0.0") + um(2))
    assert column(rows, "size") == [0, 25]
    assert file.notes == ["1 rows have a quantity of 0, kept: volume is understated by what they lost"]


def test_one_taker_side_in_all_of_many_rows_is_said(tmp_path):
    file, _ = rows_of(tmp_path, "".join(um(i, str(1 + i)) for i in range(1000)))
    assert file.notes == ["the taker is the seller in all 1,000 rows: the file's isBuyerMaker is likely wrong"]


def test_a_name_without_a_date_or_numbered_by_a_browser_still_tells_symbol_and_kind(tmp_path):
    file = open_archive(zipped(tmp_path, ROW, "BTCUSDT-trades"))
    assert (file.symbol, file.start_ns, file.stop_ns) == ("BTCUSDT", None, None)
    again = open_archive(zipped(tmp_path, ROW, f"{UM} (1)", f"{UM}.csv"))
    assert again.start_ns == T_MS * 10**6


def test_a_renamed_zip_is_known_by_the_file_inside(tmp_path):
    file = open_archive(zipped(tmp_path, ROW, "august", f"{UM}.csv"))
    assert (file.symbol, file.kind, file.start_ns) == ("BTCUSDT", "trades", T_MS * 10**6)


# Containers that must be kept out.


def test_a_path_without_a_file_is_not_found(tmp_path):
    with pytest.raises(NotFound) as caught:
        open_archive(tmp_path / "x.zip")
    assert caught.value.code is Code.SOURCE_NOT_FOUND


def test_a_checksum_that_differs_keeps_the_file_out(tmp_path):
    error = refused_path(zipped(tmp_path, ROW, checksum=f"{'0' * 64}  {UM}.zip\n"))
    assert error.code is Code.CHECKSUM_DIFFERS
    assert error.message.startswith(f"{UM}.zip: its sha256 is ")
    assert "download it again" in error.message


def test_a_checksum_of_another_file_keeps_the_file_out(tmp_path):
    error = refused_path(zipped(tmp_path, ROW, checksum=f"{'0' * 64}  ETHUSDT-trades-2024-08-08.zip\n"))
    assert error.code is Code.CHECKSUM_DIFFERS
    assert "ETHUSDT-trades-2024-08-08.zip" in error.message


@pytest.mark.parametrize("text", ["", "<Error>NoSuchKey</Error>", "abc  name.zip", f"{'0' * 64}", "\x00\xff"])
def test_a_malformed_checksum_is_refused_by_its_own_name(tmp_path, text):
    error = refused_path(zipped(tmp_path, ROW, checksum=text))
    assert error.code is Code.SOURCE_UNREADABLE
    assert error.message.startswith(f"{UM}.zip.CHECKSUM: ")


@pytest.mark.parametrize("kept", [0.3, 0.7, 0.98])
def test_a_truncated_zip_is_refused(tmp_path, kept):
    path = zipped(tmp_path, "".join(um(i, str(i * i + 1)) for i in range(3000)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    error = refused_path(path)
    assert error.code is Code.SOURCE_UNREADABLE
    assert "no sound zip" in error.message


@pytest.mark.parametrize("contents", [b"", b"<html>blocked</html>", ROW.encode()])
def test_what_is_no_zip_is_refused(tmp_path, contents):
    path = tmp_path / f"{UM}.zip"
    path.write_bytes(contents)
    assert refused_path(path).code is Code.SOURCE_UNREADABLE


def test_a_zip_of_two_files_or_none_is_refused(tmp_path):
    path = tmp_path / f"{UM}.zip"
    for names in ((), ("a.csv", "b.csv")):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, ROW)
        error = refused_path(path)
        assert error.code is Code.SOURCE_UNREADABLE
        assert f"holds {len(names)} files" in error.message


@pytest.mark.parametrize("member", ["../x.csv", "/etc/x.csv", "a/b.csv", "..\\x.csv", "C:\\x.csv", "C:x.csv", "/"])
def test_a_member_with_a_path_is_refused(tmp_path, member):
    error = refused_path(zipped(tmp_path, ROW, member=member))
    assert error.code is Code.SOURCE_UNREADABLE
    assert "bare name" in error.message


def test_a_member_that_is_no_csv_is_refused(tmp_path):
    assert "no .csv" in refused_path(zipped(tmp_path, ROW, member="run.exe")).message


def test_a_bomb_is_refused_before_it_is_inflated(tmp_path, monkeypatch):
    path = zipped(tmp_path, b"0" * (64 << 20))
    error = refused_path(path)
    assert error.code is Code.SOURCE_UNREADABLE
    assert "more than 200 times as many" in error.message
    monkeypatch.setattr(archive_zip, "MAX_TEXT_BYTES", 10)
    assert "more than the 10 that are read" in refused_path(zipped(tmp_path, ROW)).message


def test_a_bomb_that_lies_about_its_size_ends_where_it_claims_to(tmp_path):
    path = zipped(tmp_path, b"0" * (8 << 20))
    contents = path.read_bytes()
    true_size, claimed = (8 << 20).to_bytes(4, "little"), (500).to_bytes(4, "little")
    assert contents.count(true_size) == 2  # in the member's header, and in the directory
    path.write_bytes(contents.replace(true_size, claimed))
    error = refused_path(path)
    assert error.code in {Code.SOURCE_UNREADABLE, Code.SOURCE_COLUMN_MISSING}


def test_a_wrong_crc_is_refused_at_the_end_of_the_file(tmp_path):
    path = zipped(tmp_path, ROW * 50)
    with zipfile.ZipFile(path) as archive:
        crc = archive.infolist()[0].CRC.to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(crc, b"\x01\x02\x03\x04"))
    error = refused_path(path)
    assert error.code is Code.SOURCE_UNREADABLE
    assert "CRC" in error.message


def test_damaged_deflate_bytes_are_refused(tmp_path):
    path = zipped(tmp_path, "".join(um(i, str(i * i + 1)) for i in range(3000)))
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2 : len(contents) // 2 + 40] = bytes(range(40))
    path.write_bytes(contents)
    error = refused_path(path)
    assert error.code in {Code.SOURCE_UNREADABLE, Code.SOURCE_VALUE_INVALID}


def test_an_encrypted_zip_is_refused(tmp_path):
    path = zipped(tmp_path, ROW)
    contents = bytearray(path.read_bytes())
    contents[contents.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(contents)
    assert "encrypted" in refused_path(path).message


def test_other_compressions_are_refused(tmp_path):
    path = tmp_path / f"{UM}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr(f"{UM}.csv", ROW)
    assert "not deflate" in refused_path(path).message


def test_an_empty_file_is_empty_and_so_is_a_lone_header(tmp_path):
    for text in ("", UM_HEADER, UM_HEADER.strip()):
        assert refused(tmp_path, text).code is Code.SOURCE_EMPTY


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("BTCUSDT-bookTicker-2024-01-15", "bookTicker is not a kind of file that is read"),
        ("BTCUSDT-3m-2024-01-15", "klines of 3m are not stored"),
        ("BTCUSDT-1mo-2024-01", "klines of 1mo are not stored"),
        ("trades", "tells no symbol and kind"),
        ("BTCUSDT-trades-2024-02-30", "a day that is none"),
    ],
)
def test_names_that_cannot_be_read_are_refused_with_the_reason(tmp_path, name, why):
    error = refused(tmp_path, ROW, name)
    assert error.code is Code.SOURCE_UNREADABLE
    assert why in error.message


def test_a_zip_that_holds_another_days_file_is_refused(tmp_path):
    error = refused_path(zipped(tmp_path, ROW, member="BTCUSDT-trades-2024-08-09.csv"))
    assert error.code is Code.SOURCE_UNREADABLE
    assert "renamed" in error.message


# Rows that must be kept out.


@pytest.mark.parametrize("text", ["1,2,3\n", f"1,2,3,4,{T_MS},true,true,1,1\n", "junk\n", f"1;2;3;4;{T_MS};true\n"])
def test_a_file_of_other_columns_is_refused(tmp_path, text):
    error = refused(tmp_path, text)
    assert error.code is Code.SOURCE_COLUMN_MISSING
    assert "files of trades have 6 or 7" in error.message


def test_a_header_in_another_order_is_refused(tmp_path):
    error = refused(tmp_path, "id,qty,price,quote_qty,time,is_buyer_maker\n" + ROW)
    assert error.code is Code.SOURCE_COLUMN_MISSING
    assert 'column 2 is called "qty", where price belongs' in error.message


GOOD = um(1) + um(2)


@pytest.mark.parametrize(
    ("bad", "code", "field", "why"),
    [
        (um("x"), Code.SOURCE_VALUE_INVALID, "id", "not a whole number"),
        (um("1.5"), Code.SOURCE_VALUE_INVALID, "id", "not a whole number"),
        (um("0x10"), Code.SOURCE_VALUE_INVALID, "id", "not a whole number"),
        (um(1 << 63), Code.SOURCE_VALUE_INVALID, "id", "64 bits"),
        (um(-3), Code.TICKS_INVALID, "id", "negative"),
        (um(3, "abc"), Code.SOURCE_VALUE_INVALID, "price", "not a number"),
        (um(3, "nan"), Code.SOURCE_VALUE_INVALID, "price", "not a number"),
        (um(3, "1_0"), Code.SOURCE_VALUE_INVALID, "price", "not a number"),
        (um(3, '"100.5"'), Code.SOURCE_VALUE_INVALID, "price", "not a number"),
        (um(3, ""), Code.SOURCE_VALUE_INVALID, "price", "empty"),
        (um(3, "1" * 30), Code.SOURCE_VALUE_INVALID, "price", "64 bits"),
        (um(3, "0." + "1" * 19), Code.SOURCE_VALUE_INVALID, "price", "18 decimals"),
        (um(3, "9223372036854775807"), Code.SOURCE_VALUE_INVALID, "price", "lines near it"),
        (um(3, "-100"), Code.TICKS_INVALID, "price", "not positive"),
        (um(3, "0.00"), Code.TICKS_INVALID, "price", "not positive"),
        (um(3, qty="-0.001"), Code.TICKS_INVALID, "qty", "negative"),
        (um(3, qty="1e"), Code.SOURCE_VALUE_INVALID, "qty", "not a number"),
        (um(3, time="2024-08-08"), Code.SOURCE_VALUE_INVALID, "time", "not a whole number"),
        (um(3, time=T_US), Code.TICKS_INVALID, "time", "counts microseconds by its size"),
        (um(3, time=T_MS // 1000), Code.TICKS_INVALID, "time", "between 2009 and 2100"),
        (um(3, time=T_MS * 10**6), Code.TICKS_INVALID, "time", "between 2009 and 2100"),
        (um(3, time=0), Code.TICKS_INVALID, "time", "between 2009 and 2100"),
        (um(3, time=-T_MS), Code.TICKS_INVALID, "time", "between 2009 and 2100"),
        (um(3, maker="1"), Code.SOURCE_VALUE_INVALID, "isBuyerMaker", "neither true nor false"),
        (um(3, maker="tru"), Code.SOURCE_VALUE_INVALID, "isBuyerMaker", "neither true nor false"),
        (UM_HEADER, Code.SOURCE_VALUE_INVALID, "id", "not a whole number"),
        ("3,100.5,0.25\n", Code.SOURCE_UNREADABLE, None, "3 cells where 6 belong"),
        (f"3,100.5,0.25,1,{T_MS},true,true\n", Code.SOURCE_UNREADABLE, None, "7 cells where 6 belong"),
        ("\n", Code.SOURCE_UNREADABLE, None, "0 cells where 6 belong"),
        ("\x00\n", Code.SOURCE_UNREADABLE, None, "1 cell where 6 belong"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(tmp_path, bad, code, field, why):
    error = refused(tmp_path, UM_HEADER + GOOD + bad + um(9))
    assert error.code is code
    assert error.details["line"] == 4
    assert error.details.get("field") == field
    assert why in error.message
    assert error.message.startswith(f"{UM}.zip line 4: ")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    error = refused(tmp_path, um(1).encode() + b"\xff\xfe\n")
    assert (error.code, error.details["line"]) == (Code.SOURCE_UNREADABLE, 2)


@pytest.mark.parametrize("cut", [2, 8, 20])
def test_a_truncated_last_line_is_refused(tmp_path, cut):
    error = refused(tmp_path, (GOOD + um(3))[:-cut])
    assert error.code in {Code.SOURCE_UNREADABLE, Code.SOURCE_VALUE_INVALID}
    assert error.details["line"] == 3


def test_spot_rows_check_the_last_flag_so_that_a_cut_line_shows(tmp_path):
    error = refused(tmp_path, (spot(1) + spot(2))[:-2], SPOT)
    assert (error.details["line"], error.details["field"]) == (2, "isBestMatch")


@pytest.mark.usefixtures("small_blocks")
def test_a_unit_that_changes_is_refused_also_in_a_later_block(tmp_path):
    text = "".join(um(i) for i in range(10)) + um(11, time=T_US)
    error = refused(tmp_path, text)
    assert (error.code, error.details["line"]) == (Code.TICKS_INVALID, 11)


@pytest.mark.parametrize("time", [T_MS // 1000, T_MS * 10**6, 5])
def test_first_times_of_no_known_unit_are_refused(tmp_path, time):
    error = refused(tmp_path, um(1, time=time))
    assert (error.code, error.details["line"], error.details["field"]) == (Code.TICKS_INVALID, 1, "time")


def test_the_earliest_of_several_bad_rows_is_named(tmp_path):
    error = refused(tmp_path, um(1) + um(2, time=5) + um(3, "-1") + um(-4))
    assert error.details["line"] == 2


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("apart", [0, 1, 2])
def test_an_id_that_repeats_with_other_values_is_refused_naming_both_lines(tmp_path, apart):
    between = "".join(um(10 + i) for i in range(apart))
    error = refused(tmp_path, um(1) + between + um(1, "100.6"))
    assert (error.code, error.details["line"], error.details["field"]) == (Code.TICKS_INVALID, apart + 2, "price")
    assert "id 1 was in line 1 already, with another price" in error.message


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux lists a process's open files")
@pytest.mark.usefixtures("small_blocks")
def test_a_file_refused_or_left_half_way_is_closed_at_once(tmp_path):
    path = zipped(tmp_path, um(1) + um(1, "100.6") + "".join(um(i) for i in range(2, 40)))
    with pytest.raises(SourceDataInvalid) as refusal:
        opened_rows(path)
    assert refusal.value.__traceback__ is not None  # its frames live on, and with them what they hold
    left = open_archive(zipped(tmp_path, "".join(um(i) for i in range(40)), "BTCUSDT-trades-2024-08-09")).blocks()
    next(left)
    left.close()
    held = {each.resolve() for each in Path("/proc/self/fd").iterdir()}
    assert not {each for each in held if each.is_relative_to(tmp_path)}


@pytest.mark.usefixtures("small_blocks")
def test_an_id_that_repeats_far_away_passes_for_the_store_to_compare(tmp_path):
    _, rows = rows_of(tmp_path, "".join(um(i, time=T_MS + i) for i in range(20)) + um(1, "100.6", time=T_MS + 30))
    assert column(rows, "id") == [*range(20), 1]


@pytest.mark.parametrize(("cells", "field"), [("-1,5", "firstId"), ("7,6", "lastId")])
def test_agg_trades_with_impossible_ids_are_refused(tmp_path, cells, field):
    error = refused(tmp_path, f"9,1.5,2,{cells},{T_MS},true\n", "BTCUSDT-aggTrades-2024-08-08")
    assert (error.code, error.details["field"]) == (Code.TICKS_INVALID, field)


def test_lines_that_end_in_carriage_returns_alone_are_refused(tmp_path):
    error = refused(tmp_path, f"{um(1)[:-1]}\n{um(2)[:-1]}\r{um(3)[:-1]}\n")
    assert error.code is Code.SOURCE_UNREADABLE


def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path):
    noise = np.random.default_rng(1).integers(48, 58, 200_000).astype(np.uint8).tobytes()
    assert "no line end" in refused(tmp_path, noise).message
    error = refused(tmp_path, um(1).encode() + noise)
    assert (error.code, error.details["line"]) == (Code.SOURCE_UNREADABLE, 2)


def test_klines_are_not_asked_of_a_file_of_trades(tmp_path):
    with pytest.raises(ValueError, match="not klines"):
        next(open_archive(zipped(tmp_path, ROW)).bars())


def test_every_stream_of_the_archive_has_the_columns_of_the_core(tmp_path):
    _, rows = rows_of(tmp_path, ROW)
    assert len(rows.columns) == len(COLUMNS[Stream.TRADES])
