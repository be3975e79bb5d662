"""Small records of the live tail: rows as deltas, packed to as few bits as each column needs.

pcodec needs thousands of rows to pay; a commit of the tail holds some dozens and must fit a page of the store. So each
column is its first number, then the zigzag differences at the width of the widest, in one compiled pass.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from daemon.core.market import Int64s

Bytes = NDArray[np.uint8]

_COLUMN_HEAD: Final = 9  # first number i64, width u8
_BYTE: Final = 8
_WORD: Final = 32

# The flags of engine kernels: no interpreter lock, compiled once a machine.
_kernel = numba.njit(nogil=True, cache=True, error_model="numpy")


@_kernel
def pack(columns: Int64s, out: Bytes) -> int:
    """Pack rows into bytes; returns how many were used, -1 where `out` is too short.

    columns: (columns, rows) int64, at least one row; any numbers, differences wrap around. out: (size,) uint8.
    """
    used = 0
    for column in columns:
        widest = np.uint64(0)
        for row in range(1, column.size):
            widest |= _zigzag(column[row] - column[row - 1])
        width = 0
        while width < 64 and (widest >> np.uint64(width)) != 0:  # noqa: PLR2004 - bits of a number
            width += 1
        need = _COLUMN_HEAD + (width * (column.size - 1) + _BYTE - 1) // _BYTE
        if used + need > out.size:
            return -1
        first = np.uint64(column[0])
        for place in range(_BYTE):
            out[used + place] = np.uint8((first >> np.uint64(_BYTE * place)) & np.uint64(0xFF))
        out[used + _BYTE] = width
        _pack_deltas(column, width, out[used + _COLUMN_HEAD : used + need])
        used += need
    return used


@_kernel
def unpack(data: Bytes, offsets: Int64s, row_counts: Int64s, out: Int64s) -> None:
    """Unpack records that lie one after another in `data` into consecutive rows of `out`.

    data: (size,) uint8. offsets, row_counts: (records,) int64, where each record's columns begin, and its rows.
    out: (columns, rows) int64. The caller has checked each record's checksum.
    """
    start = 0
    for record in range(offsets.size):
        at = offsets[record]
        for column in range(out.shape[0]):
            first = np.uint64(0)
            for place in range(_BYTE):
                first |= np.uint64(data[at + place]) << np.uint64(_BYTE * place)
            width = int(data[at + _BYTE])
            body = at + _COLUMN_HEAD
            value = np.int64(first)
            out[column, start] = value
            bit = 0
            for row in range(1, row_counts[record]):
                code = np.uint64(0)
                done = 0
                while done < width:
                    shift = bit % _BYTE
                    take = _BYTE - shift if _BYTE - shift < width - done else width - done  # noqa: FURB136
                    piece = (np.uint64(data[body + bit // _BYTE]) >> np.uint64(shift)) & (
                        (np.uint64(1) << np.uint64(take)) - np.uint64(1)
                    )
                    code |= piece << np.uint64(done)
                    done += take
                    bit += take
                value += np.int64(code >> np.uint64(1)) ^ -np.int64(code & np.uint64(1))
                out[column, start + row] = value
            at = body + (width * (row_counts[record] - 1) + _BYTE - 1) // _BYTE
        start += row_counts[record]


@_kernel
def _zigzag(delta: int) -> np.uint64:
    """Fold the sign into the lowest bit: small differences of either sign become small numbers."""
    return (np.uint64(delta) << np.uint64(1)) ^ np.uint64(delta >> 63)


@_kernel
def _pack_deltas(column: Int64s, width: int, out: Bytes) -> None:
    held = np.uint64(0)
    bits = 0
    at = 0
    for row in range(1, column.size):
        code = _zigzag(column[row] - column[row - 1])
        done = 0
        while done < width:
            # Half words, so that what is held and what is added fit 64 bits together.
            take = _WORD if width - done > _WORD else width - done  # noqa: FURB136
            piece = (code >> np.uint64(done)) & ((np.uint64(1) << np.uint64(take)) - np.uint64(1))
            held |= piece << np.uint64(bits)
            bits += take
            done += take
            while bits >= _BYTE:
                out[at] = np.uint8(held & np.uint64(0xFF))
                held >>= np.uint64(_BYTE)
                bits -= _BYTE
                at += 1
    if bits > 0:
        out[at] = np.uint8(held & np.uint64(0xFF))


KERNELS: Final = (pack, unpack, _zigzag, _pack_deltas)
