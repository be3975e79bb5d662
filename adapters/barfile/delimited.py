"""Bars from delimited text: bytes to columns in one vectorised read.

Arrow's CSV reader splits, converts and rounds; what it leaves out is done here: which way times are written,
and the true line of each row. When a cell does not convert, `blame` looks for the line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from adapters.barfile import blame
from adapters.barfile.columns import PRICES_AND_VOLUME, Columns
from adapters.barfile.layout import HEADER_WINDOW_BYTES, Layout, count_line_ends, find_layout
from adapters.barfile.numbers import Numbers
from adapters.barfile.refusals import Place, empty, shown, unreadable
from adapters.barfile.times import Times, join_date_and_clock, written_like
from daemon.core.market import Bars, BarTable

if TYPE_CHECKING:
    import pyarrow as pa

    from daemon.core.market import Int64s

BLOCK_BYTES = 4 << 20  # A row must fit into one block; larger blocks are no faster.

_SPACE = re.compile(rb"\s*")


def parse(text: bytes | bytearray, file: str) -> BarTable:
    """Read the bars of a text.

    text: UTF-8, already checked to be text; not empty.
    file: its name, for errors.
    Returns bars in file order with their line numbers and notes.
    Raises SourceDataInvalid; see `read_bars`.
    """
    layout = find_layout(text, file)
    space = _SPACE.match(text, layout.body)
    if space and space.end() == len(text):
        raise empty(file, "there is nothing below the header line")
    try:
        table = _split(text, layout)
        columns, times, first = _typed(table, layout.columns)
    except ValueError as error:
        raise blame.first_fault(text, layout, file) or unreadable(
            Place(file), f"not valid CSV ({shown(str(error), 200)})"
        ) from None
    lines = _lines(text, layout, len(columns[0]), file)
    bars = Bars(*columns)
    notes = (layout.columns.joining_note(), times.note(first, bars.start_ns))
    return BarTable(bars, lines, tuple(note for note in notes if note))


def _split(text: bytes | bytearray, layout: Layout) -> pa.Table:
    """Split cells and convert numbers; times stay text. ValueError when a row or number is wrong."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = [str(position) for position in range(len(layout.columns.names))]
    kinds = {names[position]: pa.float64() for position in layout.columns.at.values()}
    kinds |= {names[position]: pa.string() for position in layout.columns.time}
    return arrow_csv.read_csv(
        pa.BufferReader(pa.py_buffer(text).slice(layout.body)),
        arrow_csv.ReadOptions(column_names=names, block_size=BLOCK_BYTES),
        arrow_csv.ParseOptions(delimiter=layout.delimiter, newlines_in_values=text.find(b'"', layout.body) >= 0),
        arrow_csv.ConvertOptions(column_types=kinds, include_columns=list(kinds), null_values=[]),
    )


def _typed(table: pa.Table, columns: Columns) -> tuple[list[np.ndarray], Times, str]:
    """Make the six arrays, the way the times are written, and the first time as written."""
    parts = [table.column(str(position)) for position in columns.time]
    written = join_date_and_clock(*parts) if len(parts) > 1 else parts[0]
    first = written[0].as_py()
    times = written_like(first)
    arrays: list[np.ndarray] = [times.read(written)]
    arrays += [Numbers().read(table.column(str(columns.at[field]))) for field in PRICES_AND_VOLUME]
    return arrays, times, first


def _lines(text: bytes | bytearray, layout: Layout, rows: int, file: str) -> Int64s:
    """Line numbers of all rows; only blank lines and quotes cost a second pass."""
    if text.find(b'"', layout.body) < 0:
        tail = bytes(text[-HEADER_WINDOW_BYTES:])
        end = len(text) - len(tail) + len(tail.rstrip(b"\r\n"))
        if count_line_ends(text, layout.body, end) + 1 == rows:
            return np.arange(layout.line, layout.line + rows, dtype=np.int64)
    lines = np.fromiter((line for line, _ in blame.numbered_rows(text, layout, file)), np.int64)
    if len(lines) != rows:
        raise unreadable(Place(file), "the quotes can be read in two ways; correct them")
    return lines
