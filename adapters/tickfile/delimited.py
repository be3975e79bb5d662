"""Ticks from delimited text, plain or gzipped: bytes to columns of text, block by block.

Arrow splits; cells stay text, which `rows` converts, because which of a dozen ways to write a time or a side a file
has only its cells tell.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from contextlib import suppress
from typing import IO, TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from adapters.shared.lines import MAX_LINE_BYTES, first_bad_line, text_blocks
from adapters.shared.refusals import Place, cannot_open, refusal, shown
from adapters.tickfile.columns import assign, recognised
from adapters.tickfile.rows import Found
from daemon.core.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    import pyarrow as pa

    from adapters.shared.lines import TextBlock
    from daemon.core.market import Int64s
    from daemon.core.ticks import Stream

Answer = TypeVar("Answer")

DELIMITERS = (",", ";", "\t")
MAX_TEXT_BYTES = 64 << 30  # Nothing that large has been seen; beyond it, a gzip was made to hurt.

_GZIP = b"\x1f\x8b"


class Layout(NamedTuple):
    """How a text is laid out: delimiter, columns by field, how many there are, and the first line below the header."""

    delimiter: str
    at: dict[str, int]
    width: int
    body_line: int


class DelimitedFile:
    """A CSV, opened anew for each reading. Places in it are lines."""

    unit = "line"

    def __init__(self, path: Path, file: str, stream: Stream) -> None:
        """Read the header; SourceDataInvalid SOURCE_EMPTY, SOURCE_UNREADABLE or SOURCE_COLUMN_MISSING."""
        self._path = path
        self._file = file
        with self._opened() as text:
            number, header = self._header_line(text)
            self._layout = self._find_layout(header, number, stream)

    def blocks(self) -> Generator[Found, None, None]:
        """Yield columns of text; SourceDataInvalid SOURCE_UNREADABLE for lines that do not split."""
        with self._opened() as text:
            self._header_line(text)
            left = MAX_TEXT_BYTES

            def read(count: int) -> bytes:
                nonlocal left
                piece = self._guarded(lambda: text.read(count))
                left -= len(piece)
                if left < 0:
                    why = f"holds more than {MAX_TEXT_BYTES:,} bytes of text, the most that is read; split it"
                    raise refusal(Code.SOURCE_UNREADABLE, Place(self._file), why)
                return piece

            for block in text_blocks(read, self._file, self._layout.body_line):
                if block.text.strip():
                    yield self._split(block)

    def _opened(self) -> IO[bytes] | gzip.GzipFile:
        def act() -> IO[bytes] | gzip.GzipFile:
            with self._path.open("rb") as stream:
                zipped = stream.read(len(_GZIP)) == _GZIP
            return gzip.open(self._path, "rb") if zipped else self._path.open("rb")

        return self._guarded(act)

    def _header_line(self, text: IO[bytes] | gzip.GzipFile) -> tuple[int, str]:
        """Return the first line that is not blank, and its number."""
        number = 1
        while line := self._guarded(lambda: text.readline(MAX_LINE_BYTES)):
            if b"\0" in line or (len(line) == MAX_LINE_BYTES and not line.endswith(b"\n")):
                raise refusal(Code.SOURCE_UNREADABLE, Place(self._file, number), "this is binary, not CSV or Parquet")
            if line.strip(b"\xef\xbb\xbf \t\r\n"):
                return number, self._decoded(line, number).strip("\ufeff\r\n")
            number += 1
        raise refusal(Code.SOURCE_EMPTY, Place(self._file), "the file is empty; there are no ticks to read")

    def _decoded(self, line: bytes, number: int) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError:
            why = "this is not UTF-8 text; save the file as UTF-8 CSV"
            raise refusal(Code.SOURCE_UNREADABLE, Place(self._file, number), why) from None

    def _find_layout(self, header: str, number: int, stream: Stream) -> Layout:
        """Read the header: the delimiter is the one under which most names are known."""
        readings = []
        for delimiter in DELIMITERS:
            with suppress(csv.Error):  # Quotes that do not match under one delimiter may do so under the next.
                readings.append((next(csv.reader([header], delimiter=delimiter, strict=True)), delimiter))
        place = Place(self._file, number)
        if not readings:
            raise refusal(Code.SOURCE_UNREADABLE, place, "the header's quotes do not match; correct them")
        names, delimiter = max(readings, key=lambda reading: (recognised(reading[0], stream), len(reading[0])))
        return Layout(delimiter, assign(names, stream, place), len(names), number + 1)

    def _split(self, block: TextBlock) -> Found:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        layout = self._layout
        wanted = {str(position): pa.string() for position in layout.at.values()}
        try:
            table = arrow_csv.read_csv(
                pa.py_buffer(block.text),
                arrow_csv.ReadOptions(
                    column_names=[str(position) for position in range(layout.width)],
                    use_threads=False,
                    block_size=len(block.text) + 1,
                ),
                arrow_csv.ParseOptions(delimiter=layout.delimiter),
                arrow_csv.ConvertOptions(column_types=wanted, include_columns=list(wanted), null_values=[]),
            )
        except pa.ArrowInvalid as error:
            place = Place(self._file, block.first_line)
            why = f"not valid CSV ({shown(str(error), 200)}); correct the line"
            fault = first_bad_line(_written(block), self._file, layout.width, {}, layout.delimiter)
            raise fault or refusal(Code.SOURCE_UNREADABLE, place, why) from None
        columns = {field: _trimmed(table[str(position)]) for field, position in layout.at.items()}
        return Found(columns, self._numbers(table, block))

    def _numbers(self, table: pa.Table, block: TextBlock) -> Int64s:
        """Return the line of each row: blank lines are none."""
        if len(table) == block.line_count:
            return np.arange(block.first_line, block.first_line + len(table), dtype=np.int64)
        numbers = np.array([number for number, _ in _written(block)], dtype=np.int64)
        if numbers.size != len(table):
            why = "its quotes or single carriage returns make the lines ambiguous; save it with plain line ends"
            raise refusal(Code.SOURCE_UNREADABLE, Place(self._file, block.first_line), why)
        return numbers

    def _guarded(self, act: Callable[[], Answer]) -> Answer:
        try:
            return act()
        except EOFError:
            why = "the gzip file is cut short; fetch or write it again"
        except (gzip.BadGzipFile, zlib.error) as error:
            why = f"the gzip file is damaged or has foreign bytes at its end ({error}); fetch or write it again"
        except OSError as error:
            raise cannot_open(self._file, error) from None
        raise refusal(Code.SOURCE_UNREADABLE, Place(self._file), why)


def _written(block: TextBlock) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in block.numbered() if line)


def _trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow.compute as pc

    return pc.ascii_trim(column, " \t")
