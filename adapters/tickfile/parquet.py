"""Ticks from Parquet: typed columns, a batch of rows at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from adapters.shared.refusals import Place, refusal, shown
from adapters.tickfile.columns import assign
from adapters.tickfile.rows import Found
from adapters.tickfile.values import is_text
from daemon.core.errors import Code

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import pyarrow as pa

    from daemon.core.errors import SourceDataInvalid
    from daemon.core.ticks import Stream

MAGIC = b"PAR1"
BATCH_ROWS = 131_072


class ParquetFile:
    """A Parquet file, opened anew for each reading. Places in it are rows, counted from 1."""

    unit = "row"

    def __init__(self, path: Path, file: str, stream: Stream) -> None:
        """Read the schema; SourceDataInvalid SOURCE_EMPTY, SOURCE_UNREADABLE or SOURCE_COLUMN_MISSING."""
        import pyarrow as pa
        from pyarrow import parquet

        self._path = path
        self._file = file
        try:
            with parquet.ParquetFile(path) as source:
                names = source.schema_arrow.names
                rows = source.metadata.num_rows
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise self._damaged(error) from None
        self._names = {field: names[position] for field, position in assign(names, stream, Place(file)).items()}
        if not rows:
            raise refusal(Code.SOURCE_EMPTY, Place(file), "the table has no rows; there are no ticks to read")

    def blocks(self) -> Generator[Found, None, None]:
        """Yield columns as they are typed; SourceDataInvalid SOURCE_UNREADABLE where the file is damaged."""
        import pyarrow as pa
        from pyarrow import parquet

        first = 1
        try:
            with parquet.ParquetFile(self._path, page_checksum_verification=True) as source:
                batches = source.iter_batches(BATCH_ROWS, columns=list(self._names.values()), use_threads=False)
                for batch in batches:
                    batch.validate(full=True)  # Text that is not UTF-8 would surface later.
                    columns = {field: _plain(batch.column(name)) for field, name in self._names.items()}
                    yield Found(columns, np.arange(first, first + len(batch), dtype=np.int64))
                    first += len(batch)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> SourceDataInvalid:
        why = f"the Parquet file is damaged or of an unknown kind ({shown(str(error), 200)}); write it again"
        return refusal(Code.SOURCE_UNREADABLE, Place(self._file), why)


def _plain(column: pa.Array) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if is_text(column.type):
        column = pc.ascii_trim(column.cast(pa.string()), " \t")
    return pa.chunked_array([column])
