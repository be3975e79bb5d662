"""Cells to numbers: one reader for each kind of field, for text and for typed columns alike.

A reader raises ValueError for a column in which any cell is not to be used; which one it is, halving finds out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from adapters.shared.exact import DECIMAL, whole_numbers
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from daemon.core.market import Float64s, Int64s

_PRECISION = 38
_TAKERS: Final = {"buy": BUY, "b": BUY, "1": BUY, "sell": SELL, "s": SELL, "-1": SELL, "unknown": 0, "0": 0}
_LEVELS: Final = {
    "bid": BUY,
    "buy": BUY,
    "b": BUY,
    "1": BUY,
    "ask": SELL,
    "sell": SELL,
    "s": SELL,
    "a": SELL,
    "-1": SELL,
}
_MAKERS: Final = {"true": SELL, "1": SELL, "false": BUY, "0": BUY}
_SNAPSHOTS: Final = {"true": DepthFlag.SNAPSHOT.value, "1": DepthFlag.SNAPSHOT.value, "false": 0, "0": 0}
_FLAGS: Final = {str(value): value for value in range(1 + sum(DepthFlag))}


def is_text(kind: pa.DataType) -> bool:
    """Tell text of any width from other types."""
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def code_words(field: str, stream: Stream) -> Mapping[str, int]:
    """Return what the cells of a field of codes may be, in lower case, and what they mean."""
    if field == "side":
        return _LEVELS if stream is Stream.DEPTH else _TAKERS
    return {"buyer_maker": _MAKERS, "snapshot": _SNAPSHOTS, "flags": _FLAGS}[field]


def read_codes(column: pa.ChunkedArray, words: Mapping[str, int]) -> NDArray[np.int8]:
    """Translate words, whole numbers or booleans; ValueError for one that is not among `words`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    cells = pc.ascii_lower(pc.ascii_trim(column.cast(pa.string()), " \t"))
    found = pc.index_in(cells, value_set=pa.array(list(words), pa.string()))
    if found.null_count:
        raise ValueError("not one of the words")
    codes: NDArray[np.int8] = np.array(list(words.values()), dtype=np.int8)[np.array(found.combine_chunks())]
    return codes


def read_whole(column: pa.ChunkedArray) -> Int64s:
    """Convert whole numbers; ValueError for a null, a fraction, or more than 64 bits."""
    import pyarrow as pa

    try:
        return whole_numbers(column.cast(pa.decimal128(_PRECISION, 0)))
    except OverflowError as error:
        raise ValueError(str(error)) from None


def read_floats(column: pa.ChunkedArray) -> Float64s:
    """Copy floats, every bit of them; ValueError for a null, NaN or an infinity."""
    import pyarrow as pa

    if column.null_count:
        raise ValueError("null")
    values = np.array(column.cast(pa.float64()).combine_chunks(), dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("not finite")
    return values


def number_fault(text: str) -> str:
    """Say what is wrong with a cell that is no number to be used."""
    text = text.strip(" \t")
    if DECIMAL.fullmatch(text):
        return "which needs more than 64 bits or 18 decimals to be kept exactly; correct or remove the row"
    if "," in text:
        return "which is not a number; write a decimal point and no thousands separators"
    return "which is not a finite number; correct or remove the row"
