"""Cells that a reader refuses: which is the first, and what stands in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa


def first_refused(column: pa.ChunkedArray, reader: Callable[[pa.ChunkedArray], object]) -> int | None:
    """Find a row that a reader refuses, with every row before it accepted; None where it accepts all."""
    if _accepts(reader, column):
        return None
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        if _accepts(reader, column.slice(low, middle - low)):
            low = middle
        else:
            high = middle
    return low


def cell_text(column: pa.ChunkedArray, row: int) -> str | None:
    """Show a cell as text; None for a null. Timestamps as counts: those refused may have no calendar date."""
    import pyarrow as pa

    cell = column.slice(row, 1)
    if pa.types.is_timestamp(column.type) and not cell.null_count:
        return f"{cell.cast(pa.int64())[0].as_py()} {column.type.unit}"
    text: str | None = cell.cast(pa.string())[0].as_py()
    return text


def _accepts(reader: Callable[[pa.ChunkedArray], object], column: pa.ChunkedArray) -> bool:
    try:
        reader(column)
    except ValueError:
        return False
    return True
