"""Bars from Parquet: typed columns, read by Arrow, checked like text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from adapters.barfile.blame import first_bad_cell
from adapters.barfile.columns import PRICES_AND_VOLUME, TIME, Columns, assign
from adapters.barfile.numbers import Numbers, is_text
from adapters.barfile.refusals import Place, empty, listed, shown, unreadable, value_invalid
from adapters.barfile.times import ArrowTimes, Times, Zone, join_date_and_clock, written_like
from daemon.core.market import Bars, BarTable

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

BYTES_PER_ROW = 8 * 6


def parse(path: Path, file: str, max_bytes: int) -> BarTable:
    """Read the bars of a Parquet file; `lines` are row numbers, from 1.

    max_bytes: the most that its columns may take once decompressed.
    Raises SourceDataInvalid; see `read_bars`.
    """
    import pyarrow as pa

    try:
        table, columns = _load(path, file, max_bytes)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise unreadable(
            Place(file), f"the Parquet file is damaged or of an unknown kind ({shown(str(error), 200)})"
        ) from None
    prepared = _prepared(table, columns, file)
    times = _times(prepared[TIME], file)
    if not isinstance(times, ArrowTimes):
        prepared[TIME] = prepared[TIME].cast(pa.string())
    try:
        start_ns = times.read(prepared[TIME])
        bars = Bars(start_ns, *(Numbers().read(prepared[field]) for field in PRICES_AND_VOLUME))
    except ValueError as error:
        fault = first_bad_cell(prepared, times)
        if fault is None:
            raise unreadable(Place(file), f"the columns cannot be converted ({error})") from None
        place = Place(file, fault.row + 1, "row")
        raise value_invalid(place, fault.field, fault.text, fault.why) from None
    lines = np.arange(1, len(start_ns) + 1, dtype=np.int64)
    first = "" if isinstance(times, ArrowTimes) else _first(prepared[TIME])
    notes = (columns.joining_note(), times.note(first, start_ns), _narrow_note(prepared))
    return BarTable(bars, lines, tuple(note for note in notes if note))


def _load(path: Path, file: str, max_bytes: int) -> tuple[pa.Table, Columns]:
    from pyarrow import parquet

    with parquet.ParquetFile(path, page_checksum_verification=True) as source:
        names = source.schema_arrow.names
        columns = assign(names, Place(file))
        metadata = source.metadata
        groups = (metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        if max(sum(groups), metadata.num_rows * BYTES_PER_ROW) > max_bytes:
            raise unreadable(
                Place(file), f"the columns take more than {max_bytes:,} bytes decompressed; split the file"
            )
        if not metadata.num_rows:
            raise empty(file, "the table has no rows")
        wanted = [names[position] for position in (*columns.time, *columns.at.values())]
        table = source.read(columns=wanted)
        table.validate(full=True)  # text that is not UTF-8 would surface later
        return table, columns


def _prepared(table: pa.Table, columns: Columns, file: str) -> dict[str, pa.ChunkedArray]:
    """Name columns by field; refuse types that hold no numbers or times."""
    import pyarrow as pa

    def plain(position: int) -> pa.ChunkedArray:
        column = table.column(columns.names[position])
        return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column

    parts = [plain(position) for position in columns.time]
    if len(parts) > 1 and not all(is_text(part.type) for part in parts):
        pair = listed([columns.names[position] for position in columns.time])
        raise unreadable(
            Place(file),
            f"columns {pair} would both be {TIME}, and only text can be joined; rename or remove one",
        )
    prepared = {TIME: join_date_and_clock(*parts) if len(parts) > 1 else parts[0]}
    for field in PRICES_AND_VOLUME:
        column = plain(columns.at[field])
        if not (_is_number(column.type) or is_text(column.type)):
            raise unreadable(Place(file), f"{field} is a column of {column.type}; store it as numbers")
        prepared[field] = column
    return prepared


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _times(column: pa.ChunkedArray, file: str) -> Times:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind):
        return ArrowTimes(Zone.GIVEN if kind.tz else Zone.ABSENT, is_date=False)
    if pa.types.is_date(kind):
        return ArrowTimes(Zone.ABSENT, is_date=True)
    # 64-bit floats are read by their shortest decimal form; narrower ones blur minutes.
    exact = pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_float64(kind)
    if not (exact or is_text(kind)):
        raise unreadable(Place(file), f"{TIME} is a column of {kind}; store timestamps, dates, text or epoch integers")
    return written_like(_first(column))


def _first(column: pa.ChunkedArray) -> str:
    import pyarrow as pa

    return column.slice(0, 1).cast(pa.string())[0].as_py() or ""


def _narrow_note(prepared: dict[str, pa.ChunkedArray]) -> str | None:
    import pyarrow as pa

    kinds = {field: prepared[field].type for field in PRICES_AND_VOLUME}
    narrow = [f for f, kind in kinds.items() if pa.types.is_float32(kind) or pa.types.is_float16(kind)]
    if not narrow:
        return None
    return f"Stored in fewer than 64 bits, so rounded by the file's writer: {', '.join(narrow)}."
