"""How a text is laid out: delimiter, header, columns, and where the rows begin."""

from __future__ import annotations

import csv
import re
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from adapters.barfile.columns import Columns, assign, recognised
from adapters.barfile.refusals import Place, empty, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HEADER_WINDOW_BYTES = 65_536
DELIMITERS = (",", ";", "\t")

_BLANK_LINES = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t]*(?:\r\n|\r|\n))*")
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


def find_layout(
    text: bytes | bytearray,
    file: str,
    recognised: Callable[[Sequence[str]], int] = recognised,
    assign: Callable[[Sequence[str], Place], Columns] = assign,
) -> Layout:
    """Read the header line: the delimiter is the one under which most names are known.

    recognised, assign: what counts known names and finds the columns; those of bars unless given.
    """
    blank = _BLANK_LINES.match(text)
    start = blank.end() if blank else 0
    number = 1 + count_line_ends(text, 0, start)
    window = bytes(text[start : start + HEADER_WINDOW_BYTES])
    line = _LINE.match(window)
    header = line.group() if line else b""
    place = Place(file, number)
    if len(header) == HEADER_WINDOW_BYTES:
        raise unreadable(place, f"no line end in the first {HEADER_WINDOW_BYTES:,} bytes: this is not CSV")
    if not header.strip():
        raise empty(file, "the file is empty")
    names, delimiter = _best_reading(header.decode(), place, recognised)
    end = _LINE_END.match(window, len(header))
    body = start + (end.end() if end else len(header))
    return Layout(assign(names, place), delimiter, body, number + 1)


def _best_reading(header: str, place: Place, recognised: Callable[[Sequence[str]], int]) -> tuple[list[str], str]:
    readings = []
    for delimiter in DELIMITERS:
        # Quotes that do not match under one delimiter may do so under the next.
        with suppress(csv.Error):
            readings.append((next(csv.reader([header], delimiter=delimiter, strict=True)), delimiter))
    if not readings:
        raise unreadable(place, "the header's quotes do not match; correct them")
    return max(readings, key=lambda reading: (recognised(reading[0]), len(reading[0])))


def count_line_ends(text: bytes | bytearray, start: int, end: int) -> int:
    """Count line ends of all three kinds in [start, end)."""
    count = text.count(b"\n", start, end)
    if returns := text.count(b"\r", start, end):
        count += returns - text.count(b"\r\n", start, end)
    return count
