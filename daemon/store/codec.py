"""Columns to one compressed value and back, bit for bit.

A value is a header, a table with one entry a column, then the columns, each starting on a multiple of eight bytes so
that a reader decodes only what it asks for:

    header  magic "AC" | version u8 | columns u8 | rows u32 | crc32 of all else u32 | reserved u32
    entry   codec u8 | dtype u8 | decimals i8 | reserved u8 | offset u32 | length u32 | reserved u32

Market columns go through pcodec. Prices are decimal numbers, so a float64 column is stored as integers of 10^-decimals
where that gives back every bit, and as it is otherwise. Result rows go through zstandard at level 1: on them pcodec is
three times slower and larger.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray
from pcodec import ChunkConfig, standalone

from daemon.core.errors import Code, StoreCorrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.market import Float64s, Int64s

CHUNK_ROWS: Final = 65_536
PCODEC_LEVEL: Final = 8

_HEADER: Final = struct.Struct("<2sBBIII")
_ENTRY: Final = struct.Struct("<BBbBIII")
_MAGIC: Final = b"AC"
_VERSION: Final = 1
_CRC: Final = slice(8, 12)
_ALIGNMENT: Final = 8
_MAX_DECIMALS: Final = 15
_EXACT_INTEGER: Final = float(1 << 53)
_DTYPES: Final = tuple(np.dtype(name) for name in ("<i8", "<f8", "<i4", "|i1", "|u1", "<u2", "<u4", "<u8"))


class Codec(IntEnum):
    """How one column is stored."""

    ZSTD = 1
    PCODEC = 2
    PCODEC_DECIMAL = 3


def encode_market(columns: Sequence[NDArray[Any]]) -> bytes:
    """Encode equally long int64 and float64 columns of market data; NaN, infinities and -0.0 come back as they were."""
    entries = []
    for column in columns:
        decimals = _decimals(column) if column.dtype == np.float64 else None
        if decimals is None:
            codec, stored = Codec.PCODEC, column
        else:
            codec, stored = Codec.PCODEC_DECIMAL, np.rint(column * 10.0**decimals).astype(np.int64)
        config = ChunkConfig(compression_level=PCODEC_LEVEL)
        entries.append((codec, decimals or 0, standalone.simple_compress(np.ascontiguousarray(stored), config)))
    return _assemble(columns, entries)


def encode_rows(columns: Sequence[NDArray[Any]]) -> bytes:
    """Encode equally long columns of results."""
    compressor = zstandard.ZstdCompressor(level=1)
    return _assemble(
        columns,
        [(Codec.ZSTD, 0, compressor.compress(np.ascontiguousarray(column).data)) for column in columns],
    )


def rows(value: bytes | memoryview) -> int:
    """Count a value's rows without decoding it."""
    return int(_HEADER.unpack_from(value)[3])


def decode(value: bytes | memoryview, wanted: Sequence[int] | None = None) -> list[NDArray[Any]]:
    """Decode a value's columns, or those at the places in `wanted`.

    Returns new arrays in the order asked for. StoreCorrupt where the checksum or a column does not fit.
    """
    try:
        magic, version, count, row_count, crc, _ = _HEADER.unpack_from(value)
        if magic != _MAGIC or version != _VERSION or crc != _checksum(value):
            raise ValueError("checksum or format does not match")
        places = range(count) if wanted is None else wanted
        return [_decode_column(value, place, row_count) for place in places]
    except (struct.error, ValueError, IndexError, RuntimeError, TypeError, zstandard.ZstdError) as error:
        raise StoreCorrupt(Code.STORE_CORRUPT, f"a stored chunk is damaged: {error}") from error


def _decode_column(value: bytes | memoryview, place: int, row_count: int) -> NDArray[Any]:
    codec, dtype, decimals, _, offset, length, _ = _ENTRY.unpack_from(value, _HEADER.size + place * _ENTRY.size)
    body = memoryview(value)[offset : offset + length]
    out = np.empty(row_count, dtype=_DTYPES[dtype])
    if codec == Codec.ZSTD:
        raw = zstandard.ZstdDecompressor().decompress(body, max_output_size=out.nbytes)
        out[:] = np.frombuffer(raw, dtype=out.dtype)
    elif codec == Codec.PCODEC:
        standalone.simple_decompress_into(bytes(body), out)
    elif codec == Codec.PCODEC_DECIMAL:
        integers = np.empty(row_count, dtype=np.int64)
        standalone.simple_decompress_into(bytes(body), integers)
        # Divide: multiplying by the inverse is wrong for every eighth price or more.
        np.divide(integers, 10.0**decimals, out=out)
    else:
        raise ValueError(f"unknown codec {codec}")
    return out


def _assemble(columns: Sequence[NDArray[Any]], encoded: list[tuple[Codec, int, bytes]]) -> bytes:
    offset = _HEADER.size + len(columns) * _ENTRY.size
    table, bodies = [], []
    for column, (codec, decimals, body) in zip(columns, encoded, strict=True):
        table.append(_ENTRY.pack(codec, _DTYPES.index(column.dtype), decimals, 0, offset, len(body), 0))
        padding = -len(body) % _ALIGNMENT
        bodies.append(body + bytes(padding))
        offset += len(body) + padding
    value = bytearray(_HEADER.pack(_MAGIC, _VERSION, len(columns), len(columns[0]), 0, 0))
    value += b"".join(table) + b"".join(bodies)
    value[_CRC] = _checksum(value).to_bytes(4, "little")
    return bytes(value)


def _checksum(value: bytes | bytearray | memoryview) -> int:
    """CRC of all but its own place: a wrong count of rows would decode to rows that never were."""
    view = memoryview(value)
    return zlib.crc32(view[_CRC.stop :], zlib.crc32(view[: _CRC.start]))


def _decimals(values: Float64s) -> int | None:
    """Find the fewest decimals that give every value back bit for bit, None where there are none."""
    sample = values[:: max(1, values.size // 256)]
    for decimals in range(_MAX_DECIMALS + 1):
        if _is_exact(sample, decimals) and _is_exact(values, decimals):
            return decimals
    return None


def _is_exact(values: Float64s, decimals: int) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(values * 10.0**decimals)
    # Comparing magnitudes first also refuses NaN and infinities, which an integer cannot hold.
    if not (np.abs(scaled) < _EXACT_INTEGER).all():
        return False
    restored = scaled.astype(np.int64) / 10.0**decimals
    return bool((_bits(restored) == _bits(values)).all())


def _bits(values: Float64s) -> Int64s:
    return np.ascontiguousarray(values).view(np.int64)
