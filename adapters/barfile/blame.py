"""Which line is wrong: a second, slow pass over a text that did not convert.

Rows are split by the csv module, which knows its line numbers, and their cells are tried with the very
readers of the fast pass, so that both agree on what a number or a time is. A batch that fails is halved until
one cell is left.
"""

from __future__ import annotations

import csv
import io
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from adapters.barfile.columns import PRICES_AND_VOLUME, TIME
from adapters.barfile.numbers import Numbers
from adapters.barfile.refusals import Place, unreadable, value_invalid
from adapters.barfile.times import Times, join_date_and_clock, written_like
from adapters.shared.cells import cell_text, first_refused
from daemon.core.errors import SourceDataInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from adapters.barfile.layout import Layout

BATCH_ROWS = 4_096  # So few that their cells stay in the cache.


class Fault(NamedTuple):
    """A cell that does not convert: its row (from 0), field and text (None: null), and what to say of it."""

    row: int
    field: str
    text: str | None
    why: str


def first_fault(text: bytes | bytearray, layout: Layout, file: str) -> SourceDataInvalid | None:
    """Find what is wrong in the first bad line; None when every line is fine by itself."""
    rows = numbered_rows(text, layout, file)
    times: Times | None = None
    while True:
        batch, stopped_by = _take(rows)
        if batch:
            columns = _columns([cells for _, cells in batch], layout)
            times = times or written_like(columns[TIME][0].as_py())
            if fault := first_bad_cell(columns, times):
                place = Place(file, batch[fault.row][0])
                return value_invalid(place, fault.field, fault.text, fault.why)
        if stopped_by or not batch:
            return stopped_by


def numbered_rows(text: bytes | bytearray, layout: Layout, file: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row's first line and cells, without blank lines.

    Raises SourceDataInvalid (SOURCE_UNREADABLE) at a row with too few or many cells, or with broken quotes.
    """
    import pyarrow as pa

    body = pa.BufferReader(pa.py_buffer(text).slice(layout.body))
    reader = csv.reader(io.TextIOWrapper(body, encoding="utf-8", newline=""), delimiter=layout.delimiter, strict=True)
    width = len(layout.columns.names)
    line = layout.line
    try:
        for cells in reader:
            if cells and len(cells) != width:
                raise unreadable(Place(file, line), _ragged(cells, width))
            if cells:
                yield line, cells
            line = layout.line + reader.line_num
    except csv.Error as error:
        why = f"a cell is too long or its quotes do not match ({error}); correct the row"
        raise unreadable(Place(file, line), why) from None


def first_bad_cell(columns: Mapping[str, pa.ChunkedArray], times: Times) -> Fault | None:
    """Find the earliest cell, by row, then by field, that its reader refuses."""
    faults = []
    for field in (TIME, *PRICES_AND_VOLUME):
        reader = times if field == TIME else Numbers()
        column = columns[field]
        if (row := first_refused(column, reader.read)) is not None:
            text = cell_text(column, row)
            faults.append(Fault(row, field, text, reader.fault(text or "")))
    return min(faults, key=lambda fault: fault.row, default=None)


def _take(
    rows: Iterator[tuple[int, list[str]]],
) -> tuple[list[tuple[int, list[str]]], SourceDataInvalid | None]:
    """Take a batch of rows, and the refusal that ended them early."""
    batch: list[tuple[int, list[str]]] = []
    try:
        batch.extend(islice(rows, BATCH_ROWS))  # extend keeps the rows before an error
    except SourceDataInvalid as error:
        return batch, error
    return batch, None


def _columns(rows: list[list[str]], layout: Layout) -> dict[str, pa.ChunkedArray]:
    import pyarrow as pa

    def column(position: int) -> pa.ChunkedArray:
        return pa.chunked_array([[cells[position] for cells in rows]], pa.string())

    parts = [column(position) for position in layout.columns.time]
    written = join_date_and_clock(*parts) if len(parts) > 1 else parts[0]
    return {TIME: written, **{field: column(layout.columns.at[field]) for field in PRICES_AND_VOLUME}}


def _ragged(cells: list[str], width: int) -> str:
    if len(cells) == 1 and not cells[0].strip():
        return "the line holds only spaces; remove it"
    count = f"{len(cells)} cell{'s' if len(cells) != 1 else ''} where the header names {width}"
    if len(cells) > width and not any(cells[width:]):
        return f"{count}: the line ends in a delimiter the header line lacks; make both alike"
    return f"{count}; correct or remove the row"
