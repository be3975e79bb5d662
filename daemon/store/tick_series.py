"""One series of ticks inside a transaction: its index entry, its chunks, and the tail laid over them.

What live appends, bulk writing and upkeep share. A series' prefix is the key of its index entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from daemon.core.errors import SourceDataInvalid
from daemon.core.market import TsNs
from daemon.core.ports import HoleReason
from daemon.core.ticks import NO_ID, Stream, Ticks
from daemon.store import codec, instruments, keys, ledger, tail
from daemon.store.overlay import COARSEST_UNIT_NS, in_order
from daemon.store.tick_chunks import KEY_STREAMS, STREAMS, cut, decode, encode, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.market import Instrument, Int64s
    from daemon.store.env import Transaction

EARLIEST: Final = -(1 << 63)
LATEST: Final = (1 << 63) - 1
# Ids need not quite follow the time: neighbours by id are no further apart than this.
_MARGIN_ROWS: Final = 1_024


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """The index entry of a series. The first four fields are of its chunks; last_id is of the last row of all."""

    rows: int = 0
    first_ns: TsNs = 0
    last_ns: TsNs = 0
    stored_bytes: int = 0
    tail_rows: int = 0
    tail_first_ns: TsNs = 0
    tail_last_ns: TsNs = 0
    tail_bytes: int = 0
    next_record: int = 0
    last_id: int = NO_ID

    @property
    def end_ns(self) -> TsNs:
        """Time of the last row, chunks and tail."""
        ends = [end for end, count in ((self.last_ns, self.rows), (self.tail_last_ns, self.tail_rows)) if count]
        return max(ends, default=EARLIEST)


def prefix_of(transaction: Transaction, instrument: Instrument, stream: Stream) -> bytes | None:
    """Return the prefix of an instrument's stream, None for an instrument that is not known."""
    number = instruments.number(transaction, instrument)
    return None if number is None else keys.series(number, KEY_STREAMS[stream], 0)


def entry_of(transaction: Transaction, prefix: bytes) -> Entry:
    """Read a series' index entry; an empty one where it has none."""
    value = transaction.get("series", prefix)
    return Entry() if value is None else msgspec.msgpack.decode(value, type=Entry)


def put_entry(transaction: Transaction, prefix: bytes, entry: Entry) -> None:
    """Write a series' index entry; one without rows is removed."""
    if entry.rows or entry.tail_rows:
        transaction.put("series", prefix, msgspec.msgpack.encode(entry))
    else:
        transaction.delete("series", prefix)


def around(first_ns: TsNs, last_ns: TsNs) -> tuple[TsNs, TsNs]:
    """Widen a stretch by as much as the same row's times may differ."""
    return max(EARLIEST, first_ns - COARSEST_UNIT_NS), min(LATEST, last_ns + COARSEST_UNIT_NS)


def chunk_keys(transaction: Transaction, prefix: bytes, start_ns: TsNs, stop_ns: TsNs) -> list[bytes]:
    """Keys of the chunks that may hold rows of [start, stop], in order."""
    start = transaction.floor("chunks", prefix, keys.chunk(prefix, start_ns))
    found = []
    for key, _ in transaction.scan("chunks", prefix, start):
        if keys.chunk_time(key) > stop_ns:
            break
        found.append(key)
    return found


def read_chunk(transaction: Transaction, key: bytes, stream: Stream, names: Sequence[str] | None = None) -> Ticks:
    """Decode a chunk that exists."""
    value = transaction.get("chunks", key)
    if value is None:
        raise KeyError(key)
    return decode(value, stream, names)


def stored_between(transaction: Transaction, prefix: bytes, stream: Stream, start_ns: TsNs, stop_ns: TsNs) -> Ticks:
    """Read the rows that may be the same as rows of [start, stop], and those of the chunks and the tail around them."""
    inside = chunk_keys(transaction, prefix, *around(start_ns, stop_ns))
    parts = [read_chunk(transaction, key, stream) for key in inside]
    parts.append(tail.read(transaction, prefix, stream))
    return joined(parts, stream)


def neighbourhood(
    transaction: Transaction, prefix: bytes, stream: Stream, start_ns: TsNs, stop_ns: TsNs
) -> tuple[Int64s, Int64s]:
    """Read ids and times of all rows of a stretch that holds [start, stop] and many a row on either side of it."""
    names = ("time_ns", "id")
    inside = chunk_keys(transaction, prefix, max(EARLIEST, start_ns - 1), stop_ns)
    parts = [read_chunk(transaction, key, stream, names) for key in inside]
    margin, first = 0, keys.chunk_time(inside[0]) if inside else start_ns
    while margin < _MARGIN_ROWS and first > EARLIEST:
        before = transaction.floor("chunks", prefix, keys.chunk(prefix, first - 1))
        if before is None:
            break
        parts.append(read_chunk(transaction, before, stream, names))
        margin, first = margin + parts[-1].size, keys.chunk_time(before)
    margin = 0
    for key, _ in transaction.scan("chunks", prefix, keys.chunk(prefix, stop_ns) + b"\0"):
        parts.append(read_chunk(transaction, key, stream, names))
        margin += parts[-1].size
        if margin >= _MARGIN_ROWS:
            break
    ids = [part.column("id") for part in parts]
    times = [part.time_ns for part in parts]
    if entry_of(transaction, prefix).tail_rows:
        live = tail.read(transaction, prefix, stream)
        ids.append(live.column("id"))
        times.append(live.time_ns)
    if not times:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    all_times, all_ids = np.concatenate(times), np.concatenate(ids)
    order = np.lexsort((all_ids, all_times))
    return all_ids[order], all_times[order]


def settle(
    transaction: Transaction,
    prefix: bytes,
    rows: tuple[Int64s, Int64s],
    now_ns: TsNs,
    reason: HoleReason = HoleReason.IDS,
) -> None:
    """Bring the ledger's holes between ids up to date around rows that were laid or deleted: their times and ids."""
    times, ids = rows
    known = ids[ids != NO_ID]
    stream = _stream_of(prefix)
    if stream in ledger.CONTIGUOUS and known.size:
        stretch = neighbourhood(transaction, prefix, stream, int(times.min()), int(times.max()))
        ledger.settle(transaction, prefix, *stretch, (int(known.min()), int(known.max())), now_ns, reason)


def put_chunks(transaction: Transaction, prefix: bytes, values: Sequence[tuple[int, bytes]]) -> int:
    """Write encoded chunks under their first times; returns their bytes."""
    for first_ns, value in values:
        transaction.put("chunks", keys.chunk(prefix, first_ns), value)
    return sum(len(value) for _, value in values)


def drop_chunks(transaction: Transaction, old: Sequence[bytes]) -> tuple[int, int]:
    """Delete chunks; returns the rows and bytes they held."""
    row_count = size = 0
    for key in old:
        value = transaction.get("chunks", key)
        if value is not None:
            row_count, size = row_count + codec.rows(value), size + len(value)
            transaction.delete("chunks", key)
    return row_count, size


def rewrite(transaction: Transaction, prefix: bytes, old: Sequence[bytes], values: Sequence[tuple[int, bytes]]) -> None:
    """Put chunks in the place of others and bring the index entry up to date."""
    entry = entry_of(transaction, prefix)
    lost_rows, lost_bytes = drop_chunks(transaction, old)
    new_bytes = put_chunks(transaction, prefix, values)
    new_rows = sum(codec.rows(value) for _, value in values)
    first, last, last_id = _ends(transaction, prefix, entry)
    changed = msgspec.structs.replace(
        entry,
        rows=entry.rows - lost_rows + new_rows,
        stored_bytes=entry.stored_bytes - lost_bytes + new_bytes,
        first_ns=first,
        last_ns=last,
        last_id=last_id,
    )
    put_entry(transaction, prefix, changed)


def compact_tail(transaction: Transaction, prefix: bytes, stream: Stream) -> None:
    """Move a series' tail into its chunks; those that no row of it falls into stay as they are."""
    entry = entry_of(transaction, prefix)
    if not entry.tail_rows:
        return
    live = tail.read(transaction, prefix, stream)
    tail.clear(transaction, prefix)
    cleared = msgspec.structs.replace(entry, tail_rows=0, tail_first_ns=0, tail_last_ns=0, tail_bytes=0)
    transaction.put("series", prefix, msgspec.msgpack.encode(cleared))
    while live.size:
        count, old = first_stretch(transaction, prefix, live)
        stretch, live = live.rows(0, count), live.rows(count, live.size)
        if len(old) == 1 and _is_full_before(transaction, old[0], stretch):
            old = []
        chunks = [read_chunk(transaction, key, stream) for key in old]
        is_after = bool(chunks) and chunks[-1].time_ns[-1] < stretch.time_ns[0]
        try:
            # Merged only: the tail took no row that the chunks have, and equal ones without ids are several.
            rows = merged([*chunks, stretch], stream)
        except SourceDataInvalid:
            if not is_after:
                raise
            old, rows = [], stretch  # numbers that cannot stand beside those before them: chunks of their own
        values = [(int(rows.time_ns[start]), encode(rows.rows(start, stop))) for start, stop in cut(rows.time_ns)]
        rewrite(transaction, prefix, old, values)


def first_stretch(transaction: Transaction, prefix: bytes, rows: Ticks) -> tuple[int, list[bytes]]:
    """Count the first of ordered rows that fall into the same chunks, and name those chunks.

    Chunks with rows close to the border between them go together: the same row may be stored on its other side.
    """
    times = rows.time_ns
    low, high = around(int(times[0]), int(times[-1]))
    members: list[bytes] = []
    for key, _ in transaction.scan("chunks", prefix, transaction.floor("chunks", prefix, keys.chunk(prefix, low))):
        border = keys.chunk_time(key)
        if border > high:
            break
        count = int(np.searchsorted(times, border)) if members else 0
        is_apart = not count or border - int(times[count - 1]) > COARSEST_UNIT_NS
        if members and is_apart:
            following = int(times[count]) if count < times.size else LATEST
            if following - _end_of(transaction, members[-1]) > COARSEST_UNIT_NS:
                if count:
                    return count, members
                members = []
        members.append(key)
    return int(times.size), members


def _end_of(transaction: Transaction, key: bytes) -> TsNs:
    """Time of a chunk's last row."""
    return int(read_chunk(transaction, key, _stream_of(key[: keys.SERIES_BYTES]), ("time_ns",)).time_ns[-1])


def merged(parts: Sequence[Ticks], stream: Stream) -> Ticks:
    """Join rows of which none is in two parts, in order of time and id."""
    return in_order(joined(parts, stream))


def _is_full_before(transaction: Transaction, key: bytes, rows: Ticks) -> bool:
    value = transaction.get("chunks", key)
    if value is None or codec.rows(value) < codec.CHUNK_ROWS:
        return False
    return bool(_end_of(transaction, key) < rows.time_ns[0])


def _ends(transaction: Transaction, prefix: bytes, entry: Entry) -> tuple[TsNs, TsNs, int]:
    """First and last time of the chunks, and the id of the series' last row."""
    first = next(transaction.scan("chunks", prefix), None)
    if first is None:
        return 0, 0, entry.last_id
    last_key = transaction.floor("chunks", prefix, prefix + b"\xff" * 8)
    last = read_chunk(transaction, last_key or first[0], _stream_of(prefix), ("time_ns", "id"))
    last_ns = int(last.time_ns[-1])
    last_id = int(last.column("id")[-1])
    if entry.tail_rows and entry.tail_last_ns >= last_ns:
        last_id = entry.last_id if entry.tail_last_ns > last_ns else max(entry.last_id, last_id)
    return keys.chunk_time(first[0]), last_ns, last_id


def _stream_of(prefix: bytes) -> Stream:
    return STREAMS[keys.Stream(keys.instrument_of(prefix)[1])]
