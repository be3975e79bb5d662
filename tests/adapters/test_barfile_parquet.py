"""Bar files: Parquet's many types for the same six columns."""

from datetime import date
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from adapters.barfile import read, read_bars
from daemon.core.errors import AtlasError, Code
from daemon.core.market import NS_PER_HOUR, NS_PER_SECOND

NAMES = ("timestamp", "open", "high", "low", "close", "volume")
JAN_2 = 1_704_153_600 * NS_PER_SECOND


def refusal(act, *args):
    with pytest.raises(AtlasError) as caught:
        act(*args)
    return caught.value


def frame(folder, **columns):
    rows = len(next(iter(columns.values()))) if columns else 2
    plain = {name: [1.0] * rows for name in NAMES} | {"timestamp": [hour * 3600 for hour in range(rows)]}
    parquet.write_table(pa.table(plain | columns), folder / "bars.parquet")
    return folder / "bars.parquet"


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_parquet_timestamps_of_any_unit_and_zone_are_exact(tmp_path, unit, zone):
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    counts = [1_704_153_600 * per_second, 1_704_153_600 * per_second + 1]
    table = read_bars(frame(tmp_path, timestamp=pa.array(counts, pa.timestamp(unit, zone))))
    assert table.bars.start_ns.tolist() == [JAN_2, JAN_2 + 10**9 // per_second]
    assert table.notes == (() if zone else ("Times carry no zone: UTC assumed.",))


@pytest.mark.parametrize(
    ("times", "note"),
    [
        (pa.array([date(2024, 1, 2)]), "Times are dates without a clock: 00:00 UTC assumed."),
        (pa.array([date(2024, 1, 2)], pa.date64()), "Times are dates without a clock: 00:00 UTC assumed."),
        (pa.array([1_704_153_600]), "Times are epoch seconds: the first, 1704153600, is 2024-01-02"),
        (pa.array([1_704_153_600.0]), "Times are epoch seconds"),
        (pa.array([1_704_153_600_000_000], pa.uint64()), "Times are epoch microseconds"),
        (pa.array([Decimal("1704153600.000")]), "Times are epoch seconds"),
        (pa.array(["2024-01-02"]), "Times are dates without a clock: 00:00 UTC assumed."),
        (pa.array(["2024-01-02 00:00"]).dictionary_encode(), "Times carry no zone: UTC assumed."),
        (pa.array(["2024-01-02T00:00"], pa.large_string()), "Times carry no zone: UTC assumed."),
    ],
)
def test_parquet_times_of_any_sensible_type_are_read(tmp_path, times, note):
    table = read_bars(frame(tmp_path, timestamp=times))
    assert table.bars.start_ns.tolist() == [JAN_2]
    assert table.notes[0].startswith(note)


def test_parquet_numbers_of_any_type_are_read(tmp_path):
    narrow = {"open": pa.array([3], pa.int16()), "high": pa.array([0.1], pa.float32())}
    wide = {"low": pa.array([2**63 + 1025], pa.uint64()), "volume": pa.array(["1e-3"])}
    table = read_bars(frame(tmp_path, **narrow, **wide, close=[Decimal("0.10")]))
    values = [float(column[0]) for column in table.bars[1:]]
    assert values == [3.0, float(np.float32(0.1)), 2.0**63 + 2048, 0.1, 0.001]
    assert table.notes[-1] == "Stored in fewer than 64 bits, so rounded by the file's writer: high."


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"open": [1.0, None]}, "row 2: open is null; fill it in or remove the row"),
        ({"timestamp": [None, 5]}, "row 1: timestamp is null"),
        ({"low": [1.0, float("nan")]}, 'row 2: low is "nan", which is not a finite number'),
        ({"low": [float("-inf"), 1.0], "open": [1.0, None]}, 'row 1: low is "-inf"'),
        ({"volume": ["1", "x"]}, 'row 2: volume is "x", which is not a number'),
        (
            {"timestamp": [1_704_153_600, 1_704_153_600_000]},
            'row 2: timestamp is "1704153600000", which counts',
        ),
        ({"timestamp": [20_240_102, 20_240_103]}, "row 1: timestamp is"),
        (
            {"timestamp": pa.array([0, 10**16], pa.timestamp("ms", "UTC"))},
            'row 2: timestamp is "10000000000000000 ms", which lies outside the years 1677 to 2262',
        ),
        ({"timestamp": pa.array([10**9] * 2, pa.date32())}, "row 1: timestamp is"),
    ],
)
def test_parquet_cells_that_are_wrong_are_refused_with_their_row(tmp_path, columns, complaint):
    error = refusal(read_bars, frame(tmp_path, **columns))
    assert error.code == Code.SOURCE_VALUE_INVALID
    assert error.message.startswith(f"bars.parquet {complaint}")
    assert error.details["line"] == int(complaint.split()[1][:-1])


def test_parquet_is_known_by_content_and_counts_rows_from_1(tmp_path):
    table = read_bars(frame(tmp_path).rename(tmp_path / "table.csv"))
    assert table.lines.tolist() == [1, 2]
    assert table.bars.start_ns.tolist() == [0, NS_PER_HOUR]


def test_parquet_beyond_the_bound_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "MAX_TEXT_BYTES", 10_000)
    error = refusal(read_bars, frame(tmp_path, open=[1.0] * 9_999))
    assert error.message == "bars.parquet: the columns take more than 10,000 bytes decompressed; split the file"


def test_damaged_parquet_is_refused(tmp_path):
    path = frame(tmp_path, volume=["1", "\N{EURO SIGN}"])
    sound = path.read_bytes()
    for damaged in (sound[:-1], sound[: len(sound) // 2], sound.replace("€".encode(), b"\xff\xff\xff")):
        path.write_bytes(damaged)
        error = refusal(read_bars, path)
        assert error.code == Code.SOURCE_UNREADABLE
        assert error.message.startswith("bars.parquet: the Parquet file is damaged or of an unknown kind (")


def test_parquet_types_that_hold_no_bars_are_refused(tmp_path):
    for columns, words in [
        ({"open": [True]}, "open is a column of bool; store it as numbers"),
        ({"timestamp": pa.array([1.0], pa.float32())}, "timestamp is a column of float; store timestamps"),
        ({"date": [date(2024, 1, 2)], "time": ["00:00"]}, 'columns "timestamp", "date", "time" would all be'),
    ]:
        assert words in refusal(read_bars, frame(tmp_path, **columns)).message
    table = pa.table({"date": [date(2024, 1, 2)], "time": ["00:00"], **{name: [1.0] for name in NAMES[1:]}})
    parquet.write_table(table, tmp_path / "pair.parquet")
    assert "only text can be joined" in refusal(read_bars, tmp_path / "pair.parquet").message
    parquet.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    parquet.write_table(table.drop_columns("close"), tmp_path / "part.parquet")
    assert "the schema must name" in refusal(read_bars, tmp_path / "part.parquet").message
    none = frame(tmp_path, timestamp=pa.array([], pa.int64()))
    assert refusal(read_bars, none).code == Code.SOURCE_EMPTY
