"""A stream of text as blocks of whole lines, and the first bad line of a block.

Blocks bound the memory that a file takes, however large it is. Arrow converts a block at once and says no more than
that it failed; the second, slow pass here splits the lines again and asks each cell's own rule.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

from adapters.shared.refusals import Place, cell_refusal, refusal
from daemon.core.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from daemon.core.errors import SourceDataInvalid

    # Says what is wrong with a cell, as the end of a sentence; None where nothing is.
    CellRule: TypeAlias = Callable[[str], str | None]

BLOCK_BYTES = 2 << 20  # Small enough for text and its columns to stay near the cache.
PIECE_BYTES = 1 << 19  # The same, for what inflates.
MAX_LINE_BYTES = 65_536

_LINE_END = ord("\n")


class TextBlock(NamedTuple):
    """Whole lines of a file; first_line is the number of the first, counted from 1, line_count how many."""

    text: bytes
    first_line: int
    line_count: int

    def numbered(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line with its number, without its end."""
        lines = self.text.split(b"\n")
        if not lines[-1]:
            lines.pop()
        for number, line in enumerate(lines, self.first_line):
            yield number, line.removesuffix(b"\r")


def text_blocks(
    read: Callable[[int], bytes], file: str, first_line: int, block_bytes: int = BLOCK_BYTES
) -> Iterator[TextBlock]:
    """Cut a stream at line ends into blocks of about `block_bytes`; the last line may lack its end.

    read: returns at most so many bytes, none at the end.
    SourceDataInvalid SOURCE_UNREADABLE for a line of more than MAX_LINE_BYTES.
    """
    pieces: list[bytes] = []
    held, line = 0, first_line
    while True:
        piece = read(PIECE_BYTES)
        pieces.append(piece)
        held += len(piece)
        if piece and held < block_bytes:
            continue
        text = b"".join(pieces)
        cut = text.rfind(b"\n") + 1 if piece else len(text)
        if cut:
            block = TextBlock(text[:cut], line, _count_lines(text[:cut]))
            yield block
            line += block.line_count
        if not piece:
            return
        pieces, held = [text[cut:]], len(text) - cut
        if held > MAX_LINE_BYTES:
            why = f"the line is longer than {MAX_LINE_BYTES:,} bytes: this is not CSV"
            raise refusal(Code.SOURCE_UNREADABLE, Place(file, line), why)


def _count_lines(text: bytes) -> int:
    # NumPy counts three times as fast as bytes.count, which stops at each hit.
    ends = int(np.count_nonzero(np.frombuffer(text, np.uint8) == _LINE_END))
    return ends + (not text.endswith(b"\n"))


def first_bad_line(
    lines: Iterable[tuple[int, bytes]],
    file: str,
    width: int,
    rules: Mapping[int, tuple[str, CellRule]],
    delimiter: str = ",",
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL,
) -> SourceDataInvalid | None:
    """Find what is wrong in the first bad line; None where every line is fine by itself.

    rules: field and rule by a cell's position. quoting: csv.QUOTE_NONE where quotes are text like any other.
    """
    for number, line in lines:
        place = Place(file, number)
        try:
            cells = next(csv.reader([line.decode()], delimiter=delimiter, quoting=quoting, strict=True), [])
        except UnicodeDecodeError:
            return refusal(Code.SOURCE_UNREADABLE, place, "this is not UTF-8 text; fetch or write the file again")
        except csv.Error as error:
            return refusal(Code.SOURCE_UNREADABLE, place, f"not valid CSV ({error}); correct the line")
        if fault := _bad_cells(cells, place, width, rules):
            return fault
    return None


def _bad_cells(
    cells: list[str], place: Place, width: int, rules: Mapping[int, tuple[str, CellRule]]
) -> SourceDataInvalid | None:
    if len(cells) != width:
        count = f"{len(cells)} cell{'s' if len(cells) != 1 else ''} where {width} belong"
        why = f"{count}; the line is damaged or cut short: fetch or write the file again"
        return refusal(Code.SOURCE_UNREADABLE, place, why)
    for position, (field, rule) in rules.items():
        cell = cells[position].strip(" \t")
        why_not = rule(cell)
        if why_not is not None:
            return cell_refusal(Code.SOURCE_VALUE_INVALID, place, field, cell, why_not)
    return None
