"""Stored ticks: chunks and the live tail read as one, and the tail's appends.

A series is the rows of one stream of one instrument, in order of time and id. Chunks never overlap in time. What
arrives live goes to the tail; when that holds a chunk's worth it is laid over the chunks in the same transaction.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from daemon.core.market import Instrument, TsNs
from daemon.core.ports import Hole, HoleReason
from daemon.core.ticks import COLUMNS, NO_ID, TICK_STREAMS, Stream, Ticks, empty
from daemon.store import codec, instruments, keys, ledger, tail
from daemon.store.codec import Buffers
from daemon.store.overlay import in_order, lay_over
from daemon.store.tick_chunks import KEY_STREAMS, STREAMS, decode, joined
from daemon.store.tick_series import (
    EARLIEST,
    Entry,
    compact_tail,
    entry_of,
    merged,
    prefix_of,
    put_entry,
    settle,
    stored_between,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daemon.core.ticks import Column
    from daemon.store.env import Environment, Transaction


class TickSeries(NamedTuple):
    """What is stored of one stream of one instrument; times are of the first and the last row."""

    instrument: Instrument
    stream: Stream
    rows: int
    tail_rows: int
    first_ns: TsNs
    last_ns: TsNs
    stored_bytes: int
    open_holes: int


class TickStore:
    """Ticks by instrument and stream."""

    def __init__(self, env: Environment, now_ns: Callable[[], TsNs] = time.time_ns) -> None:
        self.env = env
        self.now_ns = now_ns

    # Reading.

    def series(self) -> list[TickSeries]:
        """Return every stored series, ordered by instrument, then stream."""
        with self.env.read() as transaction:
            known = instruments.numbered(transaction)
            found = []
            for key, value in transaction.scan("series", b""):
                number, stream, _ = keys.instrument_of(key)
                if stream == keys.Stream.BARS:
                    continue
                found.append(_series(transaction, known[number], key, STREAMS[keys.Stream(stream)], value))
        return sorted(found, key=lambda each: (each.instrument, TICK_STREAMS.index(each.stream)))

    def streams(self, instrument: Instrument) -> dict[Stream, TickSeries]:
        """Return what is stored of one instrument."""
        with self.env.read() as transaction:
            keyed = {stream: prefix_of(transaction, instrument, stream) for stream in TICK_STREAMS}
            found = {}
            for stream, key in keyed.items():
                value = None if key is None else transaction.get("series", key)
                if key is not None and value is not None:
                    found[stream] = _series(transaction, instrument, key, stream, value)
        return found

    def scan(
        self,
        instrument: Instrument,
        stream: Stream,
        columns: Sequence[str] | None = None,
        start_ns: TsNs | None = None,
        stop_ns: TsNs | None = None,
    ) -> Iterator[tuple[Column, ...]]:
        """Yield the rows of [start_ns, stop_ns) chunk by chunk, prices and sizes as float64.

        columns: names, all of the stream's by default. The arrays are overwritten by the next step.
        """
        names = list(COLUMNS[stream]) if columns is None else list(columns)
        buffers = Buffers()
        for rows in self.blocks(instrument, stream, names, start_ns, stop_ns, buffers):
            yield tuple(_float_column(rows, name, buffers) for name in names)

    def blocks(
        self,
        instrument: Instrument,
        stream: Stream,
        columns: Sequence[str] | None = None,
        start_ns: TsNs | None = None,
        stop_ns: TsNs | None = None,
        buffers: Buffers | None = None,
    ) -> Iterator[Ticks]:
        """Yield the rows of [start_ns, stop_ns) chunk by chunk, exactly.

        columns: names that are needed, beside the time; the others are constant. buffers: what to decode into and
        overwrite; without them every block has arrays of its own. Each step sees the store as it is then; no row comes
        twice.
        """
        columns = None if columns is None else ("time_ns", *columns)
        position = EARLIEST if start_ns is None else start_ns
        stop = stop_ns if stop_ns is not None else None
        while stop is None or position < stop:
            with self.env.read() as transaction:
                prefix = prefix_of(transaction, instrument, stream)
                if prefix is None:
                    return
                parts, following = _window(transaction, prefix, stream, position, columns, buffers)
            for part in parts:
                rows = _within(part, position, following if stop is None else min(stop, following or stop))
                if rows.size:
                    yield rows
            if following is None:
                return
            position = following

    def buffers(self) -> Buffers:
        """Return arrays for `blocks` to decode into."""
        return Buffers()

    def read(
        self, instrument: Instrument, stream: Stream, start_ns: TsNs | None = None, stop_ns: TsNs | None = None
    ) -> Ticks:
        """Read the rows of [start_ns, stop_ns) exactly, in order of time and id."""
        return joined(list(self.blocks(instrument, stream, None, start_ns, stop_ns)), stream)

    def count(
        self, instrument: Instrument, stream: Stream, start_ns: TsNs | None = None, stop_ns: TsNs | None = None
    ) -> int:
        """Count the rows of [start_ns, stop_ns); chunks that lie inside are not decoded but for their times."""
        if start_ns is None and stop_ns is None:
            with self.env.read() as transaction:
                prefix = prefix_of(transaction, instrument, stream)
                entry = Entry() if prefix is None else entry_of(transaction, prefix)
            return entry.rows + entry.tail_rows
        buffers = Buffers()
        blocks = self.blocks(instrument, stream, ("time_ns",), start_ns, stop_ns, buffers)
        return sum(rows.size for rows in blocks)

    def holes(self, instrument: Instrument, stream: Stream, start_ns: TsNs, stop_ns: TsNs) -> list[Hole]:
        """List the open holes that touch [start, stop], in order of time."""
        with self.env.read() as transaction:
            prefix = prefix_of(transaction, instrument, stream)
            found = [] if prefix is None else list(ledger.open_holes(transaction, prefix))
        return [each.hole for each in found if each.hole.start_ns <= stop_ns and each.hole.stop_ns >= start_ns]

    def end_ns(self, transaction: Transaction, instrument: Instrument, stream: Stream) -> TsNs | None:
        """Return the time of the last row, None where there is none."""
        prefix = prefix_of(transaction, instrument, stream)
        end = EARLIEST if prefix is None else entry_of(transaction, prefix).end_ns
        return None if end == EARLIEST else end

    # Writing.

    def append(
        self, transaction: Transaction, instrument: Instrument, rows: Ticks, reason: HoleReason = HoleReason.IDS
    ) -> int:
        """Append live rows to the tail; returns how many were new.

        Rows that are stored already are left out, late ones are taken. A jump of ids is recorded as a hole for
        `reason`. A tail that holds a chunk's worth is laid over the chunks at once.
        """
        if not rows.size:
            return 0
        prefix = keys.series(instruments.register(transaction, instrument), KEY_STREAMS[rows.stream], 0)
        entry = entry_of(transaction, prefix)
        rows = in_order(rows)
        follows, is_numbered = _follows(entry, rows), _is_numbered(rows)
        if not follows or not is_numbered:
            stretch = int(rows.time_ns[0]), int(rows.time_ns[-1])
            stored = empty(rows.stream) if follows else stored_between(transaction, prefix, rows.stream, *stretch)
            rows = lay_over(stored, rows).fresh
            if not rows.size:
                return 0
        before_ns = entry.tail_last_ns if entry.tail_rows else tail.EARLIEST_NS
        number, written = tail.append(transaction, prefix, entry.next_record, rows, before_ns)
        grown = _grown(entry, rows, number, written)
        put_entry(transaction, prefix, grown)
        # The usual case is that every id is there.
        is_whole = follows and is_numbered and entry.last_id != NO_ID and grown.last_id - entry.last_id == rows.size
        if not is_whole:
            settle(transaction, prefix, (rows.time_ns, rows.column("id")), self.now_ns(), reason)
        if grown.tail_rows >= codec.CHUNK_ROWS:
            compact_tail(transaction, prefix, rows.stream)
        return rows.size


# Internals.


def _series(
    transaction: Transaction, instrument: Instrument, key: bytes, stream: Stream, value: memoryview
) -> TickSeries:
    entry = msgspec.msgpack.decode(value, type=Entry)
    starts = [start for start, count in ((entry.first_ns, entry.rows), (entry.tail_first_ns, entry.tail_rows)) if count]
    return TickSeries(
        instrument=instrument,
        stream=stream,
        rows=entry.rows + entry.tail_rows,
        tail_rows=entry.tail_rows,
        first_ns=min(starts),
        last_ns=entry.end_ns,
        stored_bytes=entry.stored_bytes + entry.tail_bytes,
        open_holes=sum(1 for _ in ledger.open_holes(transaction, key)),
    )


def _window(
    transaction: Transaction,
    prefix: bytes,
    stream: Stream,
    position: TsNs,
    columns: Sequence[str] | None,
    buffers: Buffers | None,
) -> tuple[list[Ticks], TsNs | None]:
    """Read the chunk around `position` with the tail's rows of its stretch; and where the next chunk begins."""
    start = transaction.floor("chunks", prefix, keys.chunk(prefix, position))
    walk = transaction.scan("chunks", prefix, start)
    found = next(walk, None)
    entry = entry_of(transaction, prefix)
    if found is None:
        return [tail.read(transaction, prefix, stream, position)] if entry.tail_rows else [], None
    _, value = found
    after = next(walk, None)
    following = None
    if after is not None:
        following = keys.chunk_time(after[0])
        transaction.prefetch(after[1])
    elif position > entry.last_ns:  # who follows the newest rows needs no chunk
        return [tail.read(transaction, prefix, stream, position)] if entry.tail_rows else [], None
    live = None
    if entry.tail_rows and entry.tail_last_ns >= position and (following is None or entry.tail_first_ns < following):
        live = tail.read(transaction, prefix, stream, position, following)
    if live is None or not live.size:
        return [decode(value, stream, columns, buffers)], following
    chunk = decode(value, stream)
    if chunk.time_ns[-1] < live.time_ns[0]:
        return [chunk, live], following
    return [merged([chunk, live], stream)], following


def _within(rows: Ticks, start_ns: TsNs, stop_ns: TsNs | None) -> Ticks:
    if not rows.size:
        return rows
    low = 0 if rows.time_ns[0] >= start_ns else int(np.searchsorted(rows.time_ns, start_ns))
    high = rows.size
    if stop_ns is not None and rows.time_ns[-1] >= stop_ns:
        high = int(np.searchsorted(rows.time_ns, stop_ns))
    return rows if (low, high) == (0, rows.size) else rows.rows(low, max(low, high))


def _float_column(rows: Ticks, name: str, buffers: Buffers) -> Column:
    decimals = rows.decimals(COLUMNS[rows.stream][name])
    column = rows.column(name)
    if COLUMNS[rows.stream][name] not in ("price", "size") or decimals is None:
        return column
    return codec.to_floats(column, decimals, buffers.get((name, "divided"), rows.size, np.float64))


def _follows(entry: Entry, rows: Ticks) -> bool:
    """Tell whether rows are after all that is stored, so that none of them can be there."""
    if not (entry.rows or entry.tail_rows):
        return True
    ids = rows.column("id")
    known = ids[ids != NO_ID]
    is_after = rows.time_ns[0] > entry.end_ns if known.size < ids.size else rows.time_ns[0] >= entry.end_ns
    return bool(is_after and (not known.size or known.min() > entry.last_id))


def _is_numbered(rows: Ticks) -> bool:
    """Tell whether the ids of ordered rows ascend, so that none of them repeats another; rows without ids do not."""
    ids = rows.column("id")
    return bool((ids[1:] > ids[:-1]).all() or (ids == NO_ID).all())


def _grown(entry: Entry, rows: Ticks, number: int, written: int) -> Entry:
    first, last, last_id = int(rows.time_ns[0]), int(rows.time_ns[-1]), int(rows.column("id")[-1])
    if entry.rows or entry.tail_rows:
        # Of rows of one time the one with the highest id is the last.
        last_id = entry.last_id if last < entry.end_ns else last_id
        last_id = max(entry.last_id, last_id) if last == entry.end_ns else last_id
    return msgspec.structs.replace(
        entry,
        tail_rows=entry.tail_rows + rows.size,
        tail_first_ns=min(first, entry.tail_first_ns) if entry.tail_rows else first,
        tail_last_ns=max(last, entry.tail_last_ns) if entry.tail_rows else last,
        tail_bytes=entry.tail_bytes + written,
        next_record=number,
        last_id=last_id,
    )
