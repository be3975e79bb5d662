"""A path to bars: find out what the file is, take it into memory within bounds, hand it to its parser."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from typing import TYPE_CHECKING

from adapters.barfile import delimited, parquet
from adapters.barfile.layout import count_line_ends
from adapters.barfile.refusals import Place, empty, unreadable
from adapters.shared.refusals import cannot_open, require_regular_file

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from daemon.core.market import BarTable

MAX_TEXT_BYTES = 8 << 30  # A gzip of 8 MB can hold this much; beyond it, memory is at risk.
PIECE_BYTES = 16 << 20

GZIP = b"\x1f\x8b"
_PARQUET = b"PAR1"
_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as CSV",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; decompress it first, or use gzip",
    b"BZh": "compressed with bzip2; decompress it first, or use gzip",
    b"\xfd7zXZ": "compressed with xz; decompress it first, or use gzip",
    b"\x1f\x8b": "compressed twice; decompress it once",
    b"PAR1": "Parquet inside gzip; decompress it first",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}
_WEB_PAGE = re.compile(rb"\s*<(!doctype|html|head|body|\?xml|!--)", re.IGNORECASE)


def read_bars(path: Path) -> BarTable:
    """Read bars from CSV, gzipped CSV or Parquet, told apart by content, not by name.

    path: a regular file.
    Returns bars in file order, neither sorted nor checked against each other; every value finite, times
    exact; the line (Parquet: row) of each; notes on what was assumed.
    Raises NotFound (SOURCE_NOT_FOUND) or SourceDataInvalid (SOURCE_UNREADABLE, SOURCE_EMPTY,
    SOURCE_COLUMN_MISSING, SOURCE_VALUE_INVALID), naming the file, the first bad line and what to do.

    Numbers are the float64 nearest to what is written. Memory at the peak: the decompressed text (at most
    MAX_TEXT_BYTES) and about 180 bytes a row; for usual CSV, some five times the 48 bytes a row of the bars.
    """
    file = require_regular_file(path)
    try:
        with path.open("rb") as stream:
            magic = stream.read(len(_PARQUET))
            stream.seek(0)
            if magic != _PARQUET:
                text = gunzip(stream, file) if magic.startswith(GZIP) else take_all(stream, file)
    except OSError as error:
        raise cannot_open(file, error) from None
    if magic == _PARQUET:
        return parquet.parse(path, file, MAX_TEXT_BYTES)
    refuse_unless_text(text, file)
    return delimited.parse(text, file)


def take_all(stream: IO[bytes] | gzip.GzipFile, file: str, max_bytes: int | None = None) -> bytearray:
    """Everything in the stream, refused once it exceeds the bound; None: MAX_TEXT_BYTES."""
    bound = MAX_TEXT_BYTES if max_bytes is None else max_bytes
    text = bytearray()
    while piece := stream.read(PIECE_BYTES):
        text += piece
        if len(text) > bound:
            why = f"holds more than {bound:,} bytes of text, the most that is read at once; split it"
            raise unreadable(Place(file), why)
    return text


def gunzip(stream: IO[bytes], file: str, max_bytes: int | None = None) -> bytearray:
    """Take what a gzip holds; SourceDataInvalid SOURCE_UNREADABLE where it is damaged or too much."""
    try:
        with gzip.GzipFile(fileobj=stream) as unzipped:
            return take_all(unzipped, file, max_bytes)
    except EOFError:
        raise unreadable(Place(file), "the gzip file is cut short; fetch or write it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        why = f"the gzip file is damaged or has foreign bytes at its end ({error}); fetch or write it again"
        raise unreadable(Place(file), why) from None


def refuse_unless_text(text: bytearray, file: str) -> None:
    """SourceDataInvalid where this is no UTF-8 text, or none at all."""
    if not text:
        raise empty(file, "the file is empty")
    for magic, what in _FOREIGN.items():
        if text.startswith(magic):
            raise unreadable(Place(file), f"this is {what}")
    if _WEB_PAGE.match(text):
        raise unreadable(Place(file), "this is a web page, not CSV; download the file itself")
    if b"\0" in text:
        raise unreadable(Place(file), "this is binary, neither CSV nor Parquet")
    if text.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(text)
    for start in range(0, len(text), PIECE_BYTES):
        try:
            decoder.decode(view[start : start + PIECE_BYTES], final=start + PIECE_BYTES >= len(text))
        except UnicodeDecodeError as error:
            # error.object holds bytes kept from the piece before as well.
            kept = len(error.object) - len(view[start : start + PIECE_BYTES])
            line = count_line_ends(text, 0, start - kept + error.start) + 1
            raise unreadable(Place(file, line), "this is not UTF-8 text; save the file as UTF-8 CSV") from None
