"""Decimals to whole numbers, exactly: text and Arrow's 128-bit decimals to int64 of 10^-decimals, never by a float."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from daemon.core.market import Int64s

MAX_DECIMALS = 18  # Of a number below 1, int64 holds 18 decimals whatever they are.
DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
WHOLE = re.compile(r"[+-]?\d+", re.ASCII)

_PRECISION = 38
_USUAL_DECIMALS = 8


def whole_numbers(decimals: pa.ChunkedArray) -> Int64s:
    """Return the (n,) int64 that 128-bit decimals are made of: 61800.30 of scale 2 is 6180030.

    ValueError for a null, OverflowError where a number does not fit 64 bits.
    """
    if decimals.null_count:
        raise ValueError("null")
    words = [_words(chunk) for chunk in decimals.chunks]
    both = words[0] if len(words) == 1 else np.concatenate([*words, np.empty((0, 2), np.int64)])
    low = np.ascontiguousarray(both[:, 0])
    if (both[:, 1] != low >> 63).any():
        raise OverflowError("a number does not fit 64 bits")
    return low


def mantissas(columns: Sequence[pa.ChunkedArray]) -> tuple[list[Int64s], int]:
    """Convert columns of text, integers or decimals at the fewest decimals that hold all their digits.

    Returns int64 columns of 10^-decimals, and the decimals. ValueError for a null, for what is no number, or for more
    than MAX_DECIMALS decimals; OverflowError where a number does not fit 64 bits at these decimals.
    """
    import pyarrow as pa

    try:
        exact = [whole_numbers(column.cast(pa.decimal128(_PRECISION, _USUAL_DECIMALS))) for column in columns]
    except (pa.ArrowInvalid, OverflowError):
        return _wide_mantissas(columns)
    decimals = _USUAL_DECIMALS
    while decimals > 0 and not any((column % 10).any() for column in exact):
        exact = [column // 10 for column in exact]
        decimals -= 1
    return exact, decimals


def farthest_from_zero(column: pa.ChunkedArray) -> int:
    """Return the row of the number that is hardest to keep beside others: to be named where they do not fit."""
    import pyarrow as pa

    return int(np.argmax(np.abs(np.array(column.cast(pa.string()).cast(pa.float64()).combine_chunks()))))


def decimal_rule(cell: str) -> str | None:
    """Say what is wrong with a cell that ought to be a decimal number."""
    if not DECIMAL.fullmatch(cell):
        if "," in cell:
            return "which is not a number; write a decimal point and no thousands separators"
        return "which is not a number; the file is damaged: fetch or write it again"
    try:
        mantissas([_one(cell)])
    except (ValueError, OverflowError):
        why = f"which needs more than 64 bits or {MAX_DECIMALS} decimals to be kept exactly"
        return f"{why}: no venue writes such a number; fetch or write the file again"
    return None


def whole_rule(cell: str) -> str | None:
    """Say what is wrong with a cell that ought to be a whole number."""
    if not WHOLE.fullmatch(cell) or cell.startswith("+"):
        return "which is not a whole number; the file is damaged: fetch or write it again"
    if not -(1 << 63) <= int(cell[:40]) < 1 << 63:
        return "which does not fit 64 bits; the file is damaged: fetch or write it again"
    return None


def _wide_mantissas(columns: Sequence[pa.ChunkedArray]) -> tuple[list[Int64s], int]:
    """Find the decimals in 128 bits, ten times as slow, where the usual ones are too few or too many."""
    import pyarrow as pa

    wide = [column.cast(pa.decimal128(_PRECISION, MAX_DECIMALS)) for column in columns]
    for decimals in range(MAX_DECIMALS):
        try:
            narrow = [column.cast(pa.decimal128(_PRECISION, decimals)) for column in wide]
        except pa.ArrowInvalid:  # A digit would be lost; the cast stops at the first such cell.
            continue
        return [whole_numbers(column) for column in narrow], decimals
    return [whole_numbers(column) for column in wide], MAX_DECIMALS


def _one(cell: str) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([[cell]], pa.string())


def _words(decimals: pa.Array) -> Int64s:
    """(n, 2) int64: the low and high halves of 128-bit integers."""
    if not len(decimals):
        return np.empty((0, 2), np.int64)
    words = np.frombuffer(decimals.buffers()[1], np.int64).reshape(-1, 2)
    return words[decimals.offset : decimals.offset + len(decimals)]
