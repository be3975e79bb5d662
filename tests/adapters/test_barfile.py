"""Bar files: which are read, how columns and lines are found, and every refusal with place and remedy."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.barfile import delimited, read, read_bars
from daemon.core.errors import AtlasError, Code, NotFound, SourceDataInvalid
from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, NS_PER_SECOND

REPOSITORY = Path(__file__).parents[2]
REAL = REPOSITORY.parent / "shared" / "data" / "bars"
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


def saved(folder, contents, name="SPY.csv"):
    path = folder / name
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return path


@pytest.mark.parametrize(
    "header",
    [
        "timestamp,open,high,low,close,volume",
        "Time,OPEN, High ,low,Close,Vol",
        "\ufeffdate,o,h,l,c,v",
        '"datetime","open","high","low","close","base_volume"',
        "ts,o,h,l,c,vol",
        "Open time,open,high,low,close,volume",
        "t,open,high,low,close,v",
        "start,open,high,low,close,volume",
    ],
)
def test_column_names_are_known_by_alias_in_any_case(header):
    (start_ns, *values), lines, notes = bars_of(f"{header}\n{ROW}")
    assert start_ns.tolist() == [JAN_2]
    assert [column.tolist() for column in values] == [[1.5], [2.5], [0.5], [2.0], [10.25]]
    assert lines.tolist() == [2]
    assert notes == ()


def test_column_order_is_free_and_other_columns_are_ignored():
    table = bars_of("volume,x,close,low,high,open,Adj Close,ts\n5,?,4,3,2,1,NaN,2024-01-02T00:00:00Z\n")
    assert [float(column[0]) for column in table.bars] == [JAN_2, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_delimiter_is_found_in_the_header_line(delimiter, quote):
    text = "\n".join(
        delimiter.join(f"{quote}{cell}{quote}" for cell in line.split(",")) for line in (HEADER + ROW).splitlines()
    )
    assert bars_of(text).bars.volume.tolist() == [10.25]


@pytest.mark.parametrize(
    ("header", "rivals"),
    [
        ("timestamp,open,Open,high,low,close,volume", '"open", "Open"'),
        ("timestamp,open,high,low,close,c,volume", '"close", "c"'),
        ("timestamp,Date,open,high,low,close,volume", '"timestamp", "Date"'),
        ("date,time,ts,open,high,low,close,volume", '"date", "time", "ts"'),
        ("date,date,open,high,low,close,volume", '"date", "date"'),
    ],
)
def test_two_columns_for_one_field_are_refused_by_name(header, rivals):
    error = refusal(bars_of, f"{header}\n{ROW}")
    assert error.code == Code.SOURCE_COLUMN_MISSING
    assert f"columns {rivals} would all be" in error.message


def test_missing_columns_are_named_beside_what_was_found():
    error = refusal(bars_of, "\nDate,Open,High,Low,Adj Close,\n")
    assert error.message == (
        "bars.csv line 2: no column for close, volume: the header line must name "
        "timestamp,open,high,low,close,volume, in any order "
        '(found "Date", "Open", "High", "Low", "Adj Close", "")'
        "; an adjusted close is not taken as close, for the other prices are not adjusted"
    )
    assert error.details == {"file": "bars.csv", "line": 2, "field": "close, volume"}


@pytest.mark.parametrize("row", [ROW, f"1704153600000,{PRICES}\n", ROW.replace(",", ";")])
def test_file_without_header_is_told_which_header_to_add(row):
    error = refusal(bars_of, row + row)
    assert error.code == Code.SOURCE_COLUMN_MISSING
    assert error.message.startswith(
        'bars.csv line 1: the header is missing: put "timestamp,open,high,low,close,volume"'
    )
    assert row[:10] in error.message


def test_date_and_time_columns_are_joined_with_a_note():
    head = HEADER.replace("timestamp", "Date,Time")
    table = bars_of(f"{head}2024-01-02, 01:00,{PRICES}\n2024-01-02,02:00:00.5,{PRICES}\n")
    assert (table.bars.start_ns - JAN_2).tolist() == [NS_PER_HOUR, 2 * NS_PER_HOUR + NS_PER_SECOND // 2]
    assert table.notes == (
        'Times are joined from the columns "Date" and "Time".',
        "Times carry no zone: UTC assumed.",
    )
    for date_and_time in ("2024-01-02,", ",01:00", "2024-01-02,1704153600", "2024-01-02T00:00,00:00"):
        error = refusal(bars_of, f"{head}2024-01-02,01:00,{PRICES}\n{date_and_time},{PRICES}\n")
        assert error.message.startswith(f'bars.csv line 3: timestamp is "{date_and_time.replace(",", "T")}"')


def test_row_with_too_few_or_too_many_cells_is_refused_with_its_line():
    for row, words in [
        ("1,2,3", "3 cells where the header names 6; correct or remove the row"),
        (ROW.strip() + ",", "7 cells where the header names 6: the line ends in a delimiter"),
        (ROW.strip() + ",9", "7 cells where the header names 6; correct or remove the row"),
        ("total", "1 cell where the header names 6"),
        ("   ", "the line holds only spaces; remove it"),
    ]:
        error = refusal(bars_of, f"{HEADER}{ROW}\n{row}\n{ROW}")
        assert (error.code, error.details) == (Code.SOURCE_UNREADABLE, {"file": "bars.csv", "line": 4})
        assert error.message.startswith(f"bars.csv line 4: {words}")


def test_quotes_that_do_not_match_are_refused_with_the_line_they_begin_on():
    for row in ('"2024-01-02T00:00:00Z,1,1,1,1,1\n' + ROW, '2024-01-02T00:00:00Z,"1"5,1,1,1,1\n'):
        error = refusal(bars_of, HEADER + ROW + row)
        assert error.code == Code.SOURCE_UNREADABLE
        assert error.message.startswith("bars.csv line 3: a cell is too long or its quotes do not match")
    assert "header's quotes" in refusal(bars_of, '"timestamp,open\n' + ROW).message


line_ends = st.sampled_from(["\n", "\r\n", "\r"])
shapes = st.sampled_from(["plain", "quoted", "blank", "multi-line"])


@given(st.lists(shapes, min_size=1, max_size=30), line_ends, st.booleans(), st.integers(0, 3))
def test_line_numbers_stay_true_across_blank_lines_and_long_cells(rows, end, ends_open, blank_above):
    text, line, expected = end * blank_above + "remark," + HEADER.strip() + end, blank_above + 2, []
    for shape in [*rows, "plain"]:
        if shape != "blank":
            expected.append(line)
            remark = f'"a{end}{end}b"' if shape == "multi-line" else ""
            cells = [remark, *ROW.strip().split(",")]
            text += ",".join(f'"{cell}"' if shape == "quoted" else cell for cell in cells)
        text += end
        line += 3 if shape == "multi-line" else 1
    table = bars_of(text.removesuffix(end) if ends_open else text + end)
    assert table.lines.tolist() == expected
    assert table.lines.dtype == np.int64
    assert table.bars.close.tolist() == [2.0] * len(expected)


def test_columns_are_contiguous_and_writable_as_kernels_need_them():
    start_ns, *values = bars_of(HEADER + ROW * 3).bars
    assert start_ns.dtype == np.int64
    for column in (start_ns, *values):
        assert column.flags.c_contiguous
        assert column.flags.writeable
    assert {column.dtype.name for column in values} == {"float64"}


def test_rows_keep_their_order_and_their_repeats():
    table = bars_of(with_times("1704153602", "1704153600", "1704153600"))
    assert (table.bars.start_ns - JAN_2).tolist() == [2 * NS_PER_SECOND, 0, 0]
    assert table.lines.tolist() == [2, 3, 4]


def test_content_not_the_name_tells_what_a_file_is(tmp_path):
    expected = read_bars(saved(tmp_path, HEADER + ROW))
    parts = gzip.compress(HEADER.encode()) + gzip.compress(ROW.encode())
    for name in ("zipped.csv", "zipped.csv.gz", "zipped.parquet"):
        table = read_bars(saved(tmp_path, parts, name))
        assert [c.tolist() for c in table.bars] == [c.tolist() for c in expected.bars]


def test_missing_file_is_not_found(tmp_path):
    for path in (tmp_path / "SPY.csv", saved(tmp_path, "", "file") / "SPY.csv", Path("\0/SPY.csv")):
        error = refusal(read_bars, path)
        assert isinstance(error, NotFound)
        assert error.code == Code.SOURCE_NOT_FOUND
        assert error.message.endswith("SPY.csv: there is no such file; check the path")
        assert error.details == {"file": "SPY.csv"}


zipped = gzip.compress((HEADER + ROW * 999).encode(), mtime=0)


@pytest.mark.parametrize(
    ("contents", "why"),
    [
        (b"\x8a\x01" + b"\0" * 8, "binary, neither CSV nor Parquet"),
        (HEADER.encode() + b"\xff\xfe,1,1,1,1,1\n", "line 2: this is not UTF-8 text"),
        ((HEADER + ROW).encode("utf-16"), "UTF-16 text; save it as UTF-8"),
        (zipped[:-20], "the gzip file is cut short"),
        (zipped + b"junk", "foreign bytes at its end"),
        (zipped[:40] + b"\xff" * 9 + zipped[49:], "the gzip file is damaged"),
        (gzip.compress(zipped, mtime=0), "compressed twice"),
        (b"PK\x03\x04", "ZIP archive or an Excel workbook"),
        (b"\n <!DOCTYPE html><html>", "this is a web page, not CSV"),
        (b"PAR1 and then nothing", "the Parquet file is damaged"),
        (b"x" * 70_000, "line 1: no line end in the first 65,536 bytes"),
    ],
)
def test_what_is_not_a_bar_file_is_refused_in_one_sentence(tmp_path, contents, why):
    error = refusal(read_bars, saved(tmp_path, contents))
    assert isinstance(error, SourceDataInvalid)
    assert error.code == Code.SOURCE_UNREADABLE
    assert error.message.startswith("SPY.csv")
    assert why in error.message
    assert error.details["file"] == "SPY.csv"


def test_bytes_that_are_not_utf8_are_found_across_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "PIECE_BYTES", 7)
    above = f"name,{HEADER}".encode()
    rows = [f"{'€' * count},{ROW}".encode() for count in range(9)]
    assert read_bars(saved(tmp_path, above + b"".join(rows))).bars.size == 9
    for cut in range(9):
        halved = b"\xe2\x82," + ROW.encode()
        contents = b"".join([above, *rows[:cut], halved, *rows[cut:]])
        error = refusal(read_bars, saved(tmp_path, contents))
        assert error.message == f"SPY.csv line {cut + 2}: this is not UTF-8 text; save the file as UTF-8 CSV"


def test_directory_and_pipe_are_refused_without_waiting(tmp_path):
    assert "this is a directory" in refusal(read_bars, tmp_path).message
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        assert "a device or pipe" in refusal(read_bars, tmp_path / "pipe").message


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_file_without_read_permission_is_refused(tmp_path):
    path = saved(tmp_path, HEADER + ROW)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65_534)  # permissions do not bind root
    try:
        error = refusal(read_bars, path)
    finally:
        os.seteuid(user)
    assert error.code == Code.SOURCE_UNREADABLE
    assert error.message == "SPY.csv: cannot be read (Permission denied); check its permissions and its disk"


@pytest.mark.parametrize("text", ["", "\ufeff", "\n\n", HEADER, HEADER.strip(), "\n" + HEADER + "\r\n \n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_file_without_rows_is_empty(tmp_path, text, pack):
    error = refusal(read_bars, saved(tmp_path, pack(text.encode())))
    assert error.code == Code.SOURCE_EMPTY
    assert error.message.endswith("there are no bars to read")


def test_text_beyond_the_bound_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "MAX_TEXT_BYTES", 10_000)
    monkeypatch.setattr(read, "PIECE_BYTES", 1_000)
    bomb = gzip.compress(b"0" * 1_000_000)
    assert len(bomb) < 2_000
    for contents in (bomb, b"0" * 1_000_000):
        assert "more than 10,000 bytes" in refusal(read_bars, saved(tmp_path, contents)).message


@given(st.integers(0, 200), st.binary(max_size=4), st.integers(0, 3))
@settings(max_examples=500)
def test_damaged_text_is_read_or_refused_but_never_breaks(tmp_path_factory, at, insert, drop):
    sound = (HEADER + ROW + f'"2024-01-03T00:00:00Z",{PRICES}\n' + ROW).encode()
    damaged = sound[:at] + insert + sound[at + drop :]
    path = saved(tmp_path_factory.getbasetemp(), damaged, "damaged.csv")
    try:
        table = read_bars(path)
    except SourceDataInvalid as error:
        assert error.message.startswith("damaged.csv")  # noqa: PT017 - either outcome is right
        assert "not valid CSV" not in error.message  # noqa: PT017 - a line was found
    else:
        assert len(table.lines) == table.bars.size > 0


def test_import_does_not_wait_for_pyarrow():
    probe = "import sys, adapters.barfile; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=REPOSITORY, check=False).returncode == 0


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the shared market data is not at {REAL}")
@pytest.mark.parametrize(
    ("name", "rows", "first", "step_ns"),
    [
        ("SPY_1Hour", 40_832, ("1998-01-02T14", 97.31, 97.53, 97.03, 97.03, 384_500), NS_PER_HOUR),
        ("AAPL_1Hour", 40_831, ("1998-01-02T14", 13.63, 13.75, 13.5, 13.63, 540_700), NS_PER_HOUR),
        ("SPY_1Day", 5_849, ("1998-01-02", 97.31, 97.53, 96.53, 97.36, 2_150_000), NS_PER_DAY),
        ("AAPL_1Day", 5_849, ("1998-01-02", 13.63, 16.25, 13.5, 16.25, 6_315_000), NS_PER_DAY),
        (
            "BTC-PERP_1Min",
            45_031,
            ("2021-12-31T23:01", 46319.0, 46385.0, 46319.0, 46377.0, 2300413.7295),
            60 * NS_PER_SECOND,
        ),
    ],
)
def test_real_files_are_read_whole(name, rows, first, step_ns):
    table = read_bars(REAL / f"{name}.csv.gz")
    time, *values = first
    assert table.bars.size == rows
    assert table.lines.tolist() == list(range(2, rows + 2))
    assert table.bars.start_ns[0] == np.datetime64(time, "ns").astype(np.int64)
    assert [float(column[0]) for column in table.bars[1:]] == values
    assert (np.diff(table.bars.start_ns) % step_ns == 0).all()
    assert table.notes == ()
