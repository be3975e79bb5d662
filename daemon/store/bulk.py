"""Many rows into one series: sorted, cut, encoded on several threads, committed some chunks at a time.

Rows after all that is stored are appended; others are laid over the chunks they fall into, one stretch after another,
so memory stays within a few dozen chunks however much is written or stored.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from daemon.core.errors import Code, Conflict
from daemon.core.market import Instrument, TsNs
from daemon.core.ticks import NO_ID, Stream, Ticks, empty
from daemon.store import codec, instruments, keys, tail
from daemon.store.overlay import COARSEST_UNIT_NS, Overlaid, are_distinct, in_order, lay_over
from daemon.store.tick_chunks import KEY_STREAMS, cut, encode, joined
from daemon.store.tick_series import (
    EARLIEST,
    LATEST,
    around,
    chunk_keys,
    compact_tail,
    entry_of,
    first_stretch,
    prefix_of,
    read_chunk,
    rewrite,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.store.env import Transaction
    from daemon.store.ticks import TickStore

FLUSH_ROWS: Final = 8 * codec.CHUNK_ROWS
_ENCODERS: Final = 4


class Written(NamedTuple):
    """Rows by what became of them: new, stored already, replacing stored ones that differ."""

    added: int = 0
    repeated: int = 0
    replaced: int = 0


class _Change(NamedTuple):
    """Chunks to put in the place of others.

    rows: how many of those given are in it; the others are written next, or wait for more (`rest_waits`). seen: chunks
    of the stretch [start_ns, stop_ns] as they were looked at. old: the keys that go. values: first times and encoded
    chunks.
    """

    rows: int
    rest_waits: bool
    start_ns: TsNs
    stop_ns: TsNs
    seen: list[tuple[bytes, bytes]]
    old: list[bytes]
    values: list[tuple[int, bytes]]
    written: Written


class BulkWriter:
    """Writes blocks of one series. Use as a context; `finish` writes what is pending, leaving without it drops that.

    replace: rows that differ from stored ones take their place; otherwise they are a Conflict TICKS_CONFLICT, and the
    block it came in is not stored. `rehearse` finds those conflicts before anything is written.
    """

    def __init__(self, store: TickStore, instrument: Instrument, stream: Stream, *, replace: bool = False) -> None:
        self._store = store
        self._env = store.env
        self._instrument = instrument
        self._stream = stream
        self._replace = replace
        self._pending: list[Ticks] = []
        self._pending_rows = 0
        self._encoders = ThreadPoolExecutor(min(_ENCODERS, os.cpu_count() or 1), "encode")
        with self._env.read() as transaction:
            # An instrument is registered with its first rows, not by an import that fails.
            self._prefix = prefix_of(transaction, instrument, stream) or b""
        self.written = Written()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._encoders.shutdown()

    def add(self, rows: Ticks) -> None:
        """Take rows; they are written once there are enough of them."""
        if rows.size:
            self._pending.append(rows)
            self._pending_rows += rows.size
        if self._pending_rows >= FLUSH_ROWS:
            self._flush(is_last=False)

    def finish(self) -> Written:
        """Write what is pending; returns what became of all rows."""
        if self._pending_rows:
            self._flush(is_last=True)
        return self.written

    def rehearse(self, rows: Ticks) -> None:
        """Compare rows with what is stored; Conflict TICKS_CONFLICT where an id has other values there."""
        if not self._prefix:
            return
        rows = in_order(rows)
        while rows.size:
            with self._env.read() as transaction:
                count, old = first_stretch(transaction, self._prefix, rows)
                stretch, rows = rows.rows(0, count), rows.rows(count, rows.size)
                first, last = around(int(stretch.time_ns[0]), int(stretch.time_ns[-1]))
                live = tail.read(transaction, self._prefix, self._stream, first, None if last == LATEST else last + 1)
                stored = joined([*(read_chunk(transaction, key, self._stream) for key in old), live], self._stream)
            self._check(lay_over(stored, stretch), stretch)

    # Internals.

    def _flush(self, *, is_last: bool) -> None:
        if not self._prefix:
            number = self._env.write(lambda transaction: instruments.register(transaction, self._instrument))
            self._prefix = keys.series(number, KEY_STREAMS[self._stream], 0)
        latest_ns = self._pending[-1].time_ns[-1]
        rows = self._without_repeats(in_order(joined(self._pending, self._stream)))
        held = rows.rows(0, 0)
        if not is_last and rows.time_ns[0] != rows.time_ns[-1]:
            # More of this time may come: equal rows without ids are told from repeated ones where they come together.
            is_held = rows.time_ns == latest_ns
            rows, held = rows.take(~is_held), rows.take(is_held)
        while rows.size:
            change = self._write(rows, is_last=is_last)
            rows = rows.rows(change.rows, rows.size)
            if change.rest_waits:
                break
        self._pending = [each for each in (rows, held) if each.size]
        self._pending_rows = rows.size + held.size

    def _write(self, rows: Ticks, *, is_last: bool) -> _Change:
        """Write the first of ordered rows: those that fall into the same chunks, or all where they come after.

        Encoded beside the writer, so that a live feed goes on; where it changed the stretch meanwhile, within.
        """
        with self._env.read() as transaction:
            is_live = self._is_live(transaction, int(rows.time_ns[0]), int(rows.time_ns[-1]))
            prepared = None if is_live else self._change(transaction, rows, is_last=is_last)

        def commit(transaction: Transaction) -> _Change:
            change = prepared
            if change is None or not self._is_current(transaction, change, rows):
                compact_tail(transaction, self._prefix, self._stream)
                change = self._change(transaction, rows, is_last=is_last)
            if change.values:
                rewrite(transaction, self._prefix, change.old, change.values)
                laid = rows.rows(0, change.rows)
                settle(transaction, self._prefix, (laid.time_ns, laid.column("id")), self._store.now_ns())
            return change

        change = self._env.write(commit)
        self._count(*change.written)
        return change

    def _is_live(self, transaction: Transaction, first_ns: TsNs, last_ns: TsNs) -> bool:
        """Tell whether the tail may have rows of a stretch."""
        entry = entry_of(transaction, self._prefix)
        start_ns, stop_ns = around(first_ns, last_ns)
        return bool(entry.tail_rows) and entry.tail_first_ns <= stop_ns and entry.tail_last_ns >= start_ns

    def _is_current(self, transaction: Transaction, change: _Change, rows: Ticks) -> bool:
        if self._is_live(transaction, int(rows.time_ns[0]), int(rows.time_ns[change.rows - 1])):
            return False
        return change.seen == self._seen(transaction, change.start_ns, change.stop_ns)

    def _seen(self, transaction: Transaction, start_ns: TsNs, stop_ns: TsNs) -> list[tuple[bytes, bytes]]:
        found = chunk_keys(transaction, self._prefix, start_ns, stop_ns)
        return [(key, codec.checksum(transaction.get("chunks", key) or b"")) for key in found]

    def _change(self, transaction: Transaction, rows: Ticks, *, is_last: bool) -> _Change:
        if self._is_after(transaction, rows):
            return self._appended(transaction, rows, is_last=is_last)
        count, old = first_stretch(transaction, self._prefix, rows)
        stretch = rows.rows(0, count)
        stored = joined([read_chunk(transaction, key, self._stream) for key in old], self._stream)
        overlaid = lay_over(stored, stretch, replace=self._replace)
        self._check(overlaid, stretch)
        is_changed = overlaid.added or overlaid.replaced
        values = self._encode(overlaid.rows, list(cut(overlaid.rows.time_ns))) if is_changed else []
        start_ns, stop_ns = around(int(stretch.time_ns[0]), int(stretch.time_ns[-1]))
        return _Change(
            rows=count,
            rest_waits=False,
            start_ns=start_ns,
            stop_ns=stop_ns,
            seen=self._seen(transaction, start_ns, stop_ns),
            old=old,
            values=values,
            written=Written(overlaid.added, overlaid.repeated, overlaid.replaced),
        )

    def _is_after(self, transaction: Transaction, rows: Ticks) -> bool:
        """Tell whether rows come after all chunks, and none can be the last ones told in another unit of time."""
        entry = entry_of(transaction, self._prefix)
        first = int(rows.time_ns[0])
        if not entry.rows or first - COARSEST_UNIT_NS > entry.last_ns:
            return True
        ids = rows.column("id")
        known = ids[ids != NO_ID]
        last = transaction.floor("chunks", self._prefix, keys.chunk(self._prefix, entry.last_ns))
        if first <= entry.last_ns or last is None:
            return False
        stored = read_chunk(transaction, last, self._stream, ("time_ns", "id")).column("id")
        return not known.size or bool(known.min() > stored.max())

    def _appended(self, transaction: Transaction, rows: Ticks, *, is_last: bool) -> _Change:
        """Rows behind the last chunk while that has room; the last part of a chunk is left until the end."""
        old = self._open_chunk(transaction)
        both = joined([*(read_chunk(transaction, key, self._stream) for key in old), rows], self._stream)
        cuts = list(cut(both.time_ns))
        count = rows.size
        if not is_last and len(cuts) > 1:
            count -= both.size - cuts.pop()[0]
        entry = entry_of(transaction, self._prefix)
        start_ns = entry.last_ns if entry.rows else EARLIEST
        return _Change(
            rows=count,
            rest_waits=not is_last,
            start_ns=start_ns,
            stop_ns=LATEST,
            seen=self._seen(transaction, start_ns, LATEST),
            old=old,
            values=self._encode(both, cuts),
            written=Written(added=count),
        )

    def _open_chunk(self, transaction: Transaction) -> list[bytes]:
        """Key of the last chunk while it has room."""
        last = transaction.floor("chunks", self._prefix, self._prefix + b"\xff" * 8)
        if last is None or codec.rows(transaction.get("chunks", last) or b"") >= codec.CHUNK_ROWS:
            return []
        return [last]

    def _without_repeats(self, rows: Ticks) -> Ticks:
        if are_distinct(rows):
            return rows
        overlaid = lay_over(empty(self._stream), rows, replace=self._replace)
        self._check(overlaid, rows)
        self._count(repeated=overlaid.repeated, replaced=overlaid.replaced)
        return overlaid.rows

    def _encode(self, rows: Ticks, cuts: Sequence[tuple[int, int]]) -> list[tuple[int, bytes]]:
        parts = [rows.rows(start, stop) for start, stop in cuts]
        values = self._encoders.map(encode, parts)
        return [(int(part.time_ns[0]), value) for part, value in zip(parts, values, strict=True)]

    def _check(self, overlaid: Overlaid, rows: Ticks) -> None:
        if overlaid.conflict is None or self._replace:
            return
        row = rows.rows(overlaid.conflict, overlaid.conflict + 1)
        identity = int(row.column("id")[0])
        raise Conflict(
            Code.TICKS_CONFLICT,
            f"{self._instrument.key} {self._stream}: {overlaid.replaced} rows have other values than those stored, "
            f"first id {identity} at {int(row.time_ns[0])} ns; nothing of it was stored. --replace takes the new ones",
            {"rows": overlaid.replaced, "id": identity, "time_ns": int(row.time_ns[0])},
        )

    def _count(self, added: int = 0, repeated: int = 0, replaced: int = 0) -> None:
        sums = zip(self.written, (added, repeated, replaced), strict=True)
        self.written = Written(*(before + more for before, more in sums))
