"""The live tail: what arrived lately, in records of some dozens of rows, until there is a chunk's worth.

A record is a header and packed columns, and stays below what LMDB keeps inside a page:

    header  rows u16 | price decimals i8 | size decimals i8 | first time i64 | last time i64 | latest before i64
            | crc32 of all else u32

Records are keyed by series and a number that only grows. They need not be in order of time (what a reconnect missed
comes later), so readers sort what they take; but each says how late the latest row before it is, so that who wants
the newest rows reads from the end and knows where to stop.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from daemon.core.errors import Code, StoreCorrupt
from daemon.core.ticks import COLUMNS, Kind, Stream, Ticks
from daemon.store.overlay import in_order
from daemon.store.tick_chunks import joined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.core.market import Int64s, TsNs
    from daemon.core.ticks import Column
    from daemon.store.env import Transaction

DATABASE: Final = "tail"
# Larger values would take whole pages of their own.
RECORD_BYTES: Final = 1_960
_RECORD_ROWS: Final = 256
_HEAD: Final = struct.Struct("<HbbqqqI")
_CRC_AT: Final = _HEAD.size - 4
_NUMBER: Final = struct.Struct(">Q")
_FLOATS: Final = -1
EARLIEST_NS: Final = -(1 << 63)


def append(transaction: Transaction, series_key: bytes, number: int, rows: Ticks, before_ns: TsNs) -> tuple[int, int]:
    """Write rows as records numbered from `number`; returns the next number and the bytes written.

    before_ns: the latest time in the tail so far; EARLIEST_NS for an empty one.
    """
    columns = _as_integers(rows)
    decimals = (_stored(rows.price_decimals), _stored(rows.size_decimals))
    start, written, step = 0, 0, _RECORD_ROWS
    buffer = np.empty(RECORD_BYTES, dtype=np.uint8)
    while start < rows.size:
        part = columns[:, start : start + step]
        value = _record(part, decimals, before_ns, buffer)
        if value is None:
            step //= 2
            continue
        before_ns = max(before_ns, int(part[0].max()))
        transaction.put(DATABASE, series_key + _NUMBER.pack(number), value)
        start, number, written = start + step, number + 1, written + len(value)
    return number, written


def read(
    transaction: Transaction,
    series_key: bytes,
    stream: Stream,
    start_ns: TsNs | None = None,
    stop_ns: TsNs | None = None,
) -> Ticks:
    """Read the tail's rows of [start_ns, stop_ns) in order of time and id; None is open."""
    batches = list(_batches(transaction, series_key, stream, start_ns, stop_ns))
    rows = joined([rows for _, rows in batches], stream)
    if len(batches) > 1:  # by decimals; rows of one time and id stay as they arrived
        rows = rows.take(np.argsort(np.concatenate([arrived for arrived, _ in batches]), kind="stable"))
    rows = in_order(rows)
    low = 0 if start_ns is None else int(np.searchsorted(rows.time_ns, start_ns))
    high = rows.size if stop_ns is None else int(np.searchsorted(rows.time_ns, stop_ns))
    return rows.rows(low, max(low, high))


def clear(transaction: Transaction, series_key: bytes) -> None:
    """Remove a series' records."""
    for key in [key for key, _ in transaction.scan(DATABASE, series_key)]:
        transaction.delete(DATABASE, key)


def _record(columns: Int64s, decimals: tuple[int, int], before_ns: TsNs, buffer: Column) -> bytes | None:
    """Make one record, None where it would be too long."""
    from daemon.store import packing

    used = packing.pack(np.ascontiguousarray(columns), buffer[: RECORD_BYTES - _HEAD.size])
    if used < 0:
        return None
    times = columns[0]
    head = _HEAD.pack(columns.shape[1], *decimals, int(times.min()), int(times.max()), before_ns, 0)[:_CRC_AT]
    body = buffer[:used].tobytes()
    return head + zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little") + body


def _batches(
    transaction: Transaction, series_key: bytes, stream: Stream, start_ns: TsNs | None, stop_ns: TsNs | None
) -> Iterator[tuple[Int64s, Ticks]]:
    """Unpack records that may hold rows of the range, those of the same decimals in one go.

    Yields the number of each row's record beside the rows.
    """
    batches: dict[tuple[int, int], list[tuple[int, int, bytes]]] = {}
    for key, value in transaction.scan_back(DATABASE, series_key):
        if len(value) < _HEAD.size:
            raise StoreCorrupt(Code.STORE_CORRUPT, "a record of the live tail is cut short")
        row_count, price, size, first_ns, last_ns, before_ns, crc = _HEAD.unpack_from(value)
        if (start_ns is None or last_ns >= start_ns) and (stop_ns is None or first_ns < stop_ns):
            record = bytes(value)
            if zlib.crc32(record[_HEAD.size :], zlib.crc32(record[:_CRC_AT])) != crc:
                raise StoreCorrupt(Code.STORE_CORRUPT, "a record of the live tail is damaged: its checksum differs")
            number = int(_NUMBER.unpack_from(key, len(series_key))[0])
            batches.setdefault((price, size), []).append((number, row_count, record))
        if start_ns is not None and before_ns < start_ns:
            break
    for decimals, records in batches.items():
        numbers, row_counts, values = zip(*reversed(records), strict=True)
        yield np.repeat(numbers, row_counts), _unpacked(stream, decimals, row_counts, values)


def _unpacked(stream: Stream, decimals: tuple[int, int], counts: tuple[int, ...], records: tuple[bytes, ...]) -> Ticks:
    from daemon.store import packing

    data = np.frombuffer(bytearray().join(records), dtype=np.uint8)
    lengths = np.array([len(record) for record in records], dtype=np.int64)
    row_counts = np.array(counts, dtype=np.int64)
    kinds = COLUMNS[stream]
    out = np.empty((len(kinds), int(row_counts.sum())), dtype=np.int64)
    packing.unpack(data, np.cumsum(lengths) - lengths + _HEAD.size, row_counts, out)
    price, size = (None if each == _FLOATS else each for each in decimals)
    columns: list[Column] = []
    for kind, column in zip(kinds.values(), out, strict=True):
        if kind is Kind.CODE:
            columns.append(column.astype(np.int8))
        elif (kind is Kind.PRICE and price is None) or (kind is Kind.SIZE and size is None):
            columns.append(column.view(np.float64))
        else:
            columns.append(column)
    return Ticks(stream, tuple(columns), price, size)


def _as_integers(rows: Ticks) -> Int64s:
    out = np.empty((len(rows.columns), rows.size), dtype=np.int64)
    for place, column in enumerate(rows.columns):
        out[place] = column.view(np.int64) if column.dtype == np.float64 else column
    return out


def _stored(decimals: int | None) -> int:
    return _FLOATS if decimals is None else decimals
