"""Columns to one compressed value and back, bit for bit.

A value is a header, a table with one entry a column, then the columns, each starting on a multiple of eight bytes so
that a reader decodes only what it asks for:

    header  magic "AC" | version u8 | columns u8 | rows u32 | crc32 of all else u32 | reserved u32
    entry   codec u8 | dtype u8 | decimals i8 | relative u8 | offset u32 | length u32 | reserved u32

Market columns go through pcodec. Prices are decimal numbers, so they are stored as integers of 10^-decimals: those of
the venue's text where it was parsed to integers, those that give back every bit where it came as float64, with a list
of exceptions where a few do not. Columns that follow another (local time, the ask) are stored as the difference to it.
Result rows go through zstandard at level 1: on them pcodec is three times slower and larger.
"""

from __future__ import annotations

import struct
import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import zstandard
from numpy.typing import NDArray
from pcodec import ChunkConfig, standalone

from daemon.core.errors import Code, StoreCorrupt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.market import Float64s, Int64s

Column = NDArray[Any]

CHUNK_ROWS: Final = 65_536
PCODEC_LEVEL: Final = 8

_HEADER: Final = struct.Struct("<2sBBIII")
_ENTRY: Final = struct.Struct("<BBbBIII")
_PATCHES: Final = struct.Struct("<II")
_MAGIC: Final = b"AC"
_VERSION: Final = 1
_CRC: Final = slice(8, 12)
_ALIGNMENT: Final = 8
_MAX_DECIMALS: Final = 15
_TIME_UNITS: Final = (9, 6, 3)
# A whole number: as a float it would equal its unsayable neighbour.
EXACT_INTEGER: Final = 1 << 53
# One exception costs twelve bytes; with more than these the raw bits are smaller.
_MOST_EXCEPTIONS: Final = 1 / 64
_DTYPES: Final = tuple(np.dtype(name) for name in ("<i8", "<f8", "<i4", "|i1", "|u1", "<u2", "<u4", "<u8"))
_FLOAT64: Final = _DTYPES.index(np.dtype("<f8"))


class Codec(IntEnum):
    """How one column is stored.

    PCODEC: integers times 10^-decimals (whole: decimals are 0 or negative), or float64 as it is. PCODEC_DECIMAL:
    integers of 10^-decimals. PCODEC_PATCHED: the same after a list of rows that are kept as bits. SIGNS: a bit a row.
    """

    ZSTD = 1
    PCODEC = 2
    PCODEC_DECIMAL = 3
    PCODEC_PATCHED = 4
    SIGNS = 5


class Field(NamedTuple):
    """A column to encode.

    decimals: of an int64 column that stands for decimal numbers; it decodes to float64 unless asked for exactly.
    relative_to: the place of an earlier column of the same kind that it follows. is_time: whole multiples of a unit.
    """

    column: Column
    decimals: int | None = None
    relative_to: int | None = None
    is_time: bool = False


class Decoded(NamedTuple):
    """A column as stored. decimals: of int64 that stand for decimal numbers; None for numbers that are themselves."""

    column: Column
    decimals: int | None


class Buffers:
    """Arrays to decode into, kept from chunk to chunk: a fresh array costs a third of decoding into it."""

    def __init__(self) -> None:
        self._arrays: dict[object, Column] = {}

    def get(self, name: object, row_count: int, dtype: Any) -> Column:
        """Return `row_count` rows; what they held under this name is gone."""
        array = self._arrays.get(name)
        if array is None or array.size < row_count:
            array = self._arrays[name] = np.empty(max(row_count, CHUNK_ROWS), dtype=dtype)
        return array[:row_count]


class _FreshBuffers(Buffers):
    def get(self, name: object, row_count: int, dtype: Any) -> Column:  # noqa: ARG002
        return np.empty(row_count, dtype=dtype)


class _Entry(NamedTuple):
    codec: Codec
    decimals: int
    relative: int
    dtype: int
    body: bytes


def encode_market(columns: Sequence[Column]) -> bytes:
    """Encode equally long int64 and float64 columns of market data; NaN, infinities and -0.0 come back as they were."""
    return encode_fields([Field(column) for column in columns])


def encode_fields(fields: Sequence[Field]) -> bytes:
    """Encode equally long int64, float64 and int8 columns; each comes back bit for bit."""
    return _assemble(fields[0].column.size, [_encode(field, fields) for field in fields])


def encode_rows(columns: Sequence[Column]) -> bytes:
    """Encode equally long columns of results."""
    return _assemble(columns[0].size, [_compressed(column) for column in columns])


def rows(value: bytes | memoryview) -> int:
    """Count a value's rows without decoding it."""
    return int(_HEADER.unpack_from(value)[3])


def checksum(value: bytes | memoryview) -> bytes:
    """Return the checksum that a value carries: two values of one key that agree in it are the same."""
    return bytes(value[_CRC])


def decode(
    value: bytes | memoryview, wanted: Sequence[int] | None = None, buffers: Buffers | None = None
) -> list[Column]:
    """Decode a value's columns, or those at the places in `wanted`; decimal columns as float64.

    Returns arrays in the order asked for: new ones, or those of `buffers`, which the next call with them overwrites.
    StoreCorrupt where the checksum or a column does not fit.
    """
    return _Reader(value, buffers or _FreshBuffers()).columns(wanted)


def decode_exactly(
    value: bytes | memoryview, wanted: Sequence[int] | None = None, buffers: Buffers | None = None
) -> list[Decoded]:
    """Decode decimal columns to the integers they are stored as; arrays are new unless there are buffers."""
    return _Reader(value, buffers or _FreshBuffers()).exactly(wanted)


def to_floats(column: Int64s, decimals: int, out: Float64s | None = None) -> Float64s:
    """Divide integers by 10^decimals: the float64 nearest to each, and so the float that a number came from."""
    # Divide: multiplying by the inverse is wrong for every eighth price or more.
    floats: Float64s = np.divide(column, 10.0**decimals, out=out)
    if column.size and (column.max() > EXACT_INTEGER or column.min() < -EXACT_INTEGER):
        # Rounded to a float before it is divided, such an integer would be rounded twice; Python's own are not.
        for place in np.flatnonzero((column > EXACT_INTEGER) | (column < -EXACT_INTEGER)).tolist():
            floats[place] = int(column[place]) / 10**decimals
    return floats


class _Reader:
    """One value being decoded."""

    def __init__(self, value: bytes | memoryview, buffers: Buffers) -> None:
        self._value = value
        self._buffers = buffers
        self._integers: dict[int, Int64s] = {}
        try:
            magic, version, self._count, self._rows, crc, _ = _HEADER.unpack_from(value)
            if magic != _MAGIC or version != _VERSION or crc != _checksum(value):
                raise ValueError("checksum or format does not match")
        except (struct.error, ValueError) as error:
            raise _damaged(error) from error

    def columns(self, wanted: Sequence[int] | None) -> list[Column]:
        return [self._floats(place, *decoded) for place, decoded in self._decoded(wanted)]

    def exactly(self, wanted: Sequence[int] | None) -> list[Decoded]:
        return [decoded for _, decoded in self._decoded(wanted)]

    def _decoded(self, wanted: Sequence[int] | None) -> list[tuple[int, Decoded]]:
        places = range(self._count) if wanted is None else wanted
        try:
            return [(place, self._column(place)) for place in places]
        except (struct.error, ValueError, IndexError, RuntimeError, TypeError, zstandard.ZstdError) as error:
            raise _damaged(error) from error

    def _floats(self, place: int, column: Column, decimals: int | None) -> Column:
        if decimals is None:
            return column
        return to_floats(column, decimals, self._buffers.get((place, "floats"), self._rows, np.float64))

    def _column(self, place: int) -> Decoded:
        codec, dtype, decimals, relative, body = self._entry(place)
        if codec == Codec.ZSTD:
            out = self._buffers.get((place, dtype), self._rows, _DTYPES[dtype])
            raw = zstandard.ZstdDecompressor().decompress(body, max_output_size=out.nbytes)
            out[:] = np.frombuffer(raw, dtype=out.dtype)
            return Decoded(out, None)
        if codec == Codec.SIGNS:
            return Decoded(self._signs(place, body), None)
        if codec == Codec.PCODEC and dtype == _FLOAT64:
            floats = self._buffers.get((place, "floats"), self._rows, np.float64)
            standalone.simple_decompress_into(bytes(body), floats)
            return Decoded(floats, None)
        if codec == Codec.PCODEC_PATCHED:
            return Decoded(self._patched(place, body, decimals), None)
        integers = self._whole(place, body, relative, decimals if codec == Codec.PCODEC else 0)
        return Decoded(integers, decimals if codec == Codec.PCODEC_DECIMAL else None)

    def _entry(self, place: int) -> tuple[Codec, int, int, int, memoryview]:
        if not 0 <= place < self._count:
            raise IndexError(f"there is no column {place}")
        codec, dtype, decimals, relative, offset, length, _ = _ENTRY.unpack_from(
            self._value, _HEADER.size + place * _ENTRY.size
        )
        return Codec(codec), dtype, decimals, relative, memoryview(self._value)[offset : offset + length]

    def _whole(self, place: int, body: memoryview, relative: int, unit: int) -> Int64s:
        if place in self._integers:
            return self._integers[place]
        out = self._buffers.get((place, "integers"), self._rows, np.int64)
        standalone.simple_decompress_into(bytes(body), out)
        if unit:
            np.multiply(out, 10**-unit, out=out)
        if relative:
            self._column(relative - 1)
            np.add(out, self._integers[relative - 1], out=out)
        self._integers[place] = out
        return out

    def _signs(self, place: int, body: memoryview) -> Column:
        packed = zstandard.ZstdDecompressor().decompress(body, max_output_size=self._rows // 8 + 1)
        out = self._buffers.get((place, "signs"), self._rows, np.int8)
        ones = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=self._rows).view(np.int8)
        np.multiply(ones, 2, out=out)
        return np.subtract(out, 1, out=out)

    def _patched(self, place: int, body: memoryview, decimals: int) -> Float64s:
        count, start = _PATCHES.unpack_from(body)
        places = np.frombuffer(body, np.uint32, count, _PATCHES.size)
        patches = np.frombuffer(body, np.float64, count, start - 8 * count)
        integers = self._buffers.get((place, "integers"), self._rows, np.int64)
        standalone.simple_decompress_into(bytes(body[start:]), integers)
        floats: Float64s = self._buffers.get((place, "floats"), self._rows, np.float64)
        np.divide(integers, 10.0**decimals, out=floats)
        floats.view(np.int64)[places] = patches.view(np.int64)
        return floats


def _damaged(error: Exception) -> StoreCorrupt:
    return StoreCorrupt(Code.STORE_CORRUPT, f"a stored chunk is damaged: {error}")


def _encode(field: Field, fields: Sequence[Field]) -> _Entry:
    column = np.ascontiguousarray(field.column)
    if column.dtype == np.int8:
        return _encode_codes(column)
    if column.dtype == np.float64:
        return _encode_floats(column)
    dtype = _DTYPES.index(column.dtype) if field.decimals is None else _FLOAT64
    codec = Codec.PCODEC if field.decimals is None else Codec.PCODEC_DECIMAL
    reference = None if field.relative_to is None else fields[field.relative_to]
    # A column of one value, such as an unknown local time, follows nothing.
    if reference is not None and reference.decimals == field.decimals and column.size and column.min() != column.max():
        return _Entry(
            codec, field.decimals or 0, int(field.relative_to or 0) + 1, dtype, _pcodec(column - reference.column)
        )
    unit = _unit(column) if field.is_time else 0
    stored = column // 10**unit if unit else column
    return _Entry(codec, field.decimals or -unit, 0, dtype, _pcodec(stored))


def _encode_codes(column: Column) -> _Entry:
    if not (np.abs(column) == 1).all():
        return _compressed(column)
    packed = np.packbits(column > 0)
    body = zstandard.ZstdCompressor(level=3).compress(packed.data)
    return _Entry(Codec.SIGNS, 0, 0, _DTYPES.index(column.dtype), body)


def _encode_floats(column: Float64s) -> _Entry:
    decimals, exceptions = _decimals(column)
    if decimals is None:
        return _Entry(Codec.PCODEC, 0, 0, _FLOAT64, _pcodec(column))
    plain = column
    if exceptions.size:
        plain = column.copy()
        plain[exceptions] = 0.0
    body = _pcodec(np.rint(plain * 10.0**decimals).astype(np.int64))
    if not exceptions.size:
        return _Entry(Codec.PCODEC_DECIMAL, decimals, 0, _FLOAT64, body)
    places = exceptions.astype(np.uint32).tobytes()
    places += bytes(-len(places) % _ALIGNMENT)
    start = _PATCHES.size + len(places) + 8 * exceptions.size
    patches = _PATCHES.pack(exceptions.size, start) + places + column[exceptions].tobytes()
    return _Entry(Codec.PCODEC_PATCHED, decimals, 0, _FLOAT64, patches + body)


def _compressed(column: Column) -> _Entry:
    body = zstandard.ZstdCompressor(level=1).compress(np.ascontiguousarray(column).data)
    return _Entry(Codec.ZSTD, 0, 0, _DTYPES.index(column.dtype), body)


def _pcodec(column: Column) -> bytes:
    config = ChunkConfig(compression_level=PCODEC_LEVEL)
    return bytes(standalone.simple_compress(np.ascontiguousarray(column), config))


def _unit(times: Int64s) -> int:
    """Find the coarsest unit, as a power of ten ns, that all times are multiples of."""
    for exponent in _TIME_UNITS:
        if not (times[:256] % 10**exponent).any() and not (times % 10**exponent).any():
            return exponent
    return 0


def _assemble(row_count: int, entries: Sequence[_Entry]) -> bytes:
    offset = _HEADER.size + len(entries) * _ENTRY.size
    table, bodies = [], []
    for entry in entries:
        table.append(_ENTRY.pack(entry.codec, entry.dtype, entry.decimals, entry.relative, offset, len(entry.body), 0))
        padding = -len(entry.body) % _ALIGNMENT
        bodies.append(entry.body + bytes(padding))
        offset += len(entry.body) + padding
    value = bytearray(_HEADER.pack(_MAGIC, _VERSION, len(entries), row_count, 0, 0))
    value += b"".join(table) + b"".join(bodies)
    value[_CRC] = _checksum(value).to_bytes(4, "little")
    return bytes(value)


def _checksum(value: bytes | bytearray | memoryview) -> int:
    """CRC of all but its own place: a wrong count of rows would decode to rows that never were."""
    view = memoryview(value)
    return zlib.crc32(view[_CRC.stop :], zlib.crc32(view[: _CRC.start]))


def _decimals(values: Float64s) -> tuple[int | None, NDArray[np.intp]]:
    """Find the fewest decimals that give back every bit, and the few rows where they do not; None for too many rows."""
    sample = values[:: max(1, values.size // 256)]
    for decimals in range(_MAX_DECIMALS + 1):
        if np.count_nonzero(_inexact(sample, decimals)) > 2 * _MOST_EXCEPTIONS * sample.size:
            continue
        exceptions = np.flatnonzero(_inexact(values, decimals))
        if exceptions.size <= _MOST_EXCEPTIONS * values.size:
            return decimals, exceptions
    return None, np.empty(0, dtype=np.intp)


def _inexact(values: Float64s, decimals: int) -> NDArray[np.bool_]:
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.rint(values * 10.0**decimals)
    # Comparing magnitudes also keeps NaN and infinities out, which an integer cannot hold.
    unfit = ~(np.abs(scaled) < EXACT_INTEGER)
    restored = np.where(unfit, 0.0, scaled).astype(np.int64) / 10.0**decimals
    return np.asarray(unfit | (_bits(restored) != _bits(values)))


def _bits(values: Float64s) -> Int64s:
    return np.ascontiguousarray(values).view(np.int64)
