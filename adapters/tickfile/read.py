"""A path to ticks: find out what the file is, and read it in blocks of bounded size."""

from __future__ import annotations

import hashlib
from contextlib import closing
from typing import TYPE_CHECKING

from adapters.shared.arrange import Arranger, gathered
from adapters.shared.refusals import Place, cannot_open, refusal, require_regular_file
from adapters.tickfile.delimited import DelimitedFile
from adapters.tickfile.parquet import MAGIC, ParquetFile
from adapters.tickfile.rows import RowReader
from daemon.core.errors import Code
from daemon.core.ports import Hole, Verification
from daemon.core.ticks import TICK_STREAMS

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from daemon.core.ticks import Stream, Ticks


def open_ticks(path: Path, stream: Stream) -> TableOfTicks:
    """Open CSV, gzipped CSV or Parquet, told apart by content, not by name.

    stream: what its rows are; TRADES, AGG_TRADES, QUOTES or DEPTH (ValueError for another).
    Raises NotFound SOURCE_NOT_FOUND, or SourceDataInvalid: SOURCE_UNREADABLE, SOURCE_EMPTY, SOURCE_COLUMN_MISSING.

    Decimals become whole numbers, exactly; floats of a Parquet file are handed over as they are, without decimals.
    """
    if stream not in TICK_STREAMS:
        raise ValueError(f"{stream} are no ticks")
    file = require_regular_file(path)
    try:
        with path.open("rb") as opened:
            magic = opened.read(len(MAGIC))
            opened.seek(0)
            sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise cannot_open(file, error) from None
    if magic.startswith(b"PK"):
        why = "this is a ZIP archive or an Excel workbook; unpack it, or save it as CSV"
        raise refusal(Code.SOURCE_UNREADABLE, Place(file), why)
    source = ParquetFile(path, file, stream) if magic == MAGIC else DelimitedFile(path, file, stream)
    return TableOfTicks(file, sha256, source, stream)


class TableOfTicks:
    """A TickFile of any vendor; nobody published a checksum for it, so it is UNVERIFIED."""

    def __init__(self, name: str, sha256: str, source: DelimitedFile | ParquetFile, stream: Stream) -> None:
        self.name = name
        self.sha256 = sha256
        self.verification = Verification.UNVERIFIED
        self.notes: list[str] = []
        self.holes: list[Hole] = []
        self._source = source
        self._stream = stream

    def blocks(self) -> Generator[Ticks, None, None]:
        """Yield rows, in order of time as far as neighbouring blocks tell; read once, to its end.

        Trades that repeat an id with all values are dropped and counted in `notes`; rows of one time keep the file's
        order in quotes and depth. SourceDataInvalid as of `RowReader.read`, and SOURCE_EMPTY where there is no row.
        """
        reader = RowReader(self._stream, self.name, self._source.unit)
        arranger = Arranger(self.name, self._source.unit)
        rows = 0
        with closing(self._source.blocks()) as found:
            numbered = (reader.read(each) for each in found)
            for block in arranger.arrange(gathered(numbered, self.name, self._source.unit)):
                rows += block.rows.size
                yield block.rows
        if not rows:
            why = "there is nothing below the header line; there are no ticks to read"
            raise refusal(Code.SOURCE_EMPTY, Place(self.name), why)
        self.notes += reader.notes
        self._note(arranger.out_of_order, "rows stood below rows of a later time: sorted")
        self._note(arranger.repeated, "rows repeated another row of the file in every value: dropped")
        self._note(reader.without_size, "trades have a size of 0: kept")

    def _note(self, count: int, what: str) -> None:
        if count:
            self.notes.append(f"{count:,} {what}")
