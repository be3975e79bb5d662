"""Bars from delimited text: bytes to columns in one vectorised read.

Arrow's CSV reader splits, converts and rounds; what it leaves out is done here: which delimiter, which column is
which field, the true line of each row. When a cell does not convert, `blame` looks for the line.
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adapters.barfile import blame
from adapters.barfile.columns import FIELDS, PRICES_AND_VOLUME, TIME, Columns, assign, recognised
from adapters.barfile.numbers import Numbers
from adapters.barfile.refusals import Place, empty, listed, unreadable
from adapters.barfile.times import Times, join_date_and_clock, written_like
from daemon.core.market import Bars, BarTable

if TYPE_CHECKING:
    import pyarrow as pa

    from daemon.core.market import Int64s

HEADER_WINDOW_BYTES = 65_536
BLOCK_BYTES = 4 << 20  # A row must fit into one block; larger blocks are no faster.
DELIMITERS = (",", ";", "\t")

_BLANK_LINES = re.compile(rb"\ufeff?(?:[ \t]*(?:\r\n|\r|\n))*".replace(rb"\ufeff", b"\xef\xbb\xbf"))
_LINE = re.compile(rb"[^\r\n]*")
_LINE_END = re.compile(rb"\r\n|\r|\n|")


class Layout(NamedTuple):
    """How a text is laid out.

    columns: which column is which field.
    delimiter: one character.
    body: position of the first byte behind the header line.
    line: number of the line that begins there.
    """

    columns: Columns
    delimiter: str
    body: int
    line: int


def parse(text: bytes | bytearray, file: str) -> BarTable:
    """Read the bars of a text.

    text: UTF-8, already checked to be text; not empty.
    file: its name, for errors.
    Returns bars in file order with their line numbers and notes.
    Raises SourceDataInvalid; see `read_bars`.
    """
    layout = find_layout(text, file)
    if not text[layout.body : layout.body + 1] or memoryview(text)[layout.body :].tobytes().isspace():
        raise empty(file, "there is nothing below the header line")
    try:
        table = _split(text, layout)
        columns, times, first = _typed(table, layout.columns)
    except ValueError as error:
        raise blame.first_fault(text, layout, file) or unreadable(Place(file), f"not valid CSV ({error})") from None
    lines = _lines(text, layout, len(columns[0]), file)
    bars = Bars(*columns)
    notes = (_joining_note(layout.columns), times.note(first, bars.start_ns))
    return BarTable(bars, lines, tuple(note for note in notes if note))


def find_layout(text: bytes | bytearray, file: str) -> Layout:
    """Read the header line: the delimiter is the one under which most names are known."""
    blank = _BLANK_LINES.match(text)
    start = blank.end() if blank else 0
    number = 1 + _count_line_ends(text, 0, start)
    window = bytes(text[start : start + HEADER_WINDOW_BYTES])
    line = _LINE.match(window)
    header = line.group() if line else b""
    place = Place(file, number)
    if len(header) == HEADER_WINDOW_BYTES:
        raise unreadable(place, f"no line end in the first {HEADER_WINDOW_BYTES:,} bytes: this is not CSV")
    if not header.strip():
        raise empty(file, "the file is empty")
    readings = [(_names(header, delimiter, place), delimiter) for delimiter in DELIMITERS]
    names, delimiter = max(readings, key=lambda reading: (recognised(reading[0]), len(reading[0])))
    end = _LINE_END.match(window, len(header))
    body = start + (end.end() if end else len(header))
    return Layout(assign(names, place), delimiter, body, number + 1)


def _names(header: bytes, delimiter: str, place: Place) -> list[str]:
    try:
        return next(csv.reader([header.decode()], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise unreadable(place, f"the header's quotes do not match ({error}); correct them") from None


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
        arrow_csv.ParseOptions(
            delimiter=layout.delimiter, newlines_in_values=text.find(b'"', layout.body) >= 0
        ),
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
        if _count_line_ends(text, layout.body, end) + 1 == rows:
            return np.arange(layout.line, layout.line + rows, dtype=np.int64)
    lines = np.fromiter((line for line, _ in blame.numbered_rows(text, layout, file)), np.int64)
    if len(lines) != rows:
        raise unreadable(Place(file), "the quotes can be read in two ways; correct them")
    return lines


def _count_line_ends(text: bytes | bytearray, start: int, end: int) -> int:
    count = text.count(b"\n", start, end)
    if returns := text.count(b"\r", start, end):
        count += returns - text.count(b"\r\n", start, end)
    return count


def _joining_note(columns: Columns) -> str | None:
    if len(columns.time) == 1:
        return None
    pair = listed([columns.names[position] for position in columns.time]).replace(", ", " and ")
    return f"Times are joined from the columns {pair}."


__all__ = ["FIELDS", "TIME", "Layout", "find_layout", "parse"]
