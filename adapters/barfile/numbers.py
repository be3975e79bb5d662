"""Numbers: text, integers or decimals to the nearest float64.

Arrow's text parser rounds correctly, its decimal-to-double cast does not, so decimals go through text as
well.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from daemon.core.market import Float64s

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


def trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text of any width, without the spaces and tabs around it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.ascii_trim(column.cast(pa.string()), " \t")


def is_text(kind: pa.DataType) -> bool:
    """Tell text of any width from other types."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def joined(column: pa.ChunkedArray) -> np.ndarray:
    """One contiguous, writable array of all chunks."""
    return np.concatenate([chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks])


class Numbers:
    """Reads prices and volumes."""

    def read(self, column: pa.ChunkedArray) -> Float64s:
        """Convert text, decimals, integers or floats to (n,) float64, correctly rounded, finite.

        Raises ValueError when a cell is missing, not a number, or not finite.
        """
        import pyarrow as pa

        if column.null_count:
            raise ValueError("null")
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.string())
        if is_text(column.type):
            column = trimmed(column)
        # Integers beyond 2^53 are rounded to the nearest double, as a number in text would be.
        values: Float64s = joined(column.cast(pa.float64(), safe=False))
        if not np.isfinite(values).all():
            raise ValueError("not finite")
        return values

    def fault(self, text: str) -> str:
        """Say what is wrong with a cell that `read` refused, and what to do."""
        text = text.strip(" \t")
        if _NOT_FINITE.fullmatch(text):
            return "which is not a finite number; correct or remove the row"
        if NUMBER.fullmatch(text):
            return "which is too large for a 64-bit float; correct or remove the row"
        if "," in text:
            return "which is not a number; write a decimal point and no thousands separators"
        return "which is not a number; correct or remove the row"
