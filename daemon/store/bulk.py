"""Many rows into one series: sorted, cut, encoded on several threads, committed some chunks at a time.

Rows after all that is stored are appended; others are laid over the chunks they fall into, one stretch after another,
so memory stays within a few dozen chunks however much is written or stored.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import numpy as np

from daemon.core.errors import Code, Conflict
from daemon.core.market import Instrument, TsNs
from daemon.core.ticks import NO_ID, Stream, Ticks, empty
from daemon.store import codec, instruments, keys, ledger
from daemon.store.overlay import Overlaid, in_order, lay_over
from daemon.store.tick_chunks import KEY_STREAMS, cut, encode, joined
from daemon.store.tick_series import (
    EARLIEST,
    chunk_keys,
    compact_tail,
    entry_of,
    neighbourhood,
    prefix_of,
    read_chunk,
    rewrite,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.store.env import Transaction
    from daemon.store.ticks import TickStore

FLUSH_ROWS: Final = 8 * codec.CHUNK_ROWS
# The same trade may be told in milliseconds by one source and in microseconds by another.
_COARSEST_UNIT_NS: Final = 1_000_000
_ENCODERS: Final = 4


class Written(NamedTuple):
    """Rows by what became of them: new, stored already, replacing stored ones that differ."""

    added: int = 0
    repeated: int = 0
    replaced: int = 0


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
        for stretch, old in self._stretches(in_order(rows)):
            with self._env.read() as transaction:
                stored = joined([read_chunk(transaction, key, self._stream) for key in old], self._stream)
            self._check(lay_over(stored, stretch), stretch)

    # Internals.

    def _flush(self, *, is_last: bool) -> None:
        if not self._prefix:
            number = self._env.write(lambda transaction: instruments.register(transaction, self._instrument))
            self._prefix = keys.series(number, KEY_STREAMS[self._stream], 0)
        rows = in_order(joined(self._pending, self._stream))
        self._pending, self._pending_rows = [], 0
        with self._env.read() as transaction:
            entry = entry_of(transaction, self._prefix)
        if entry.tail_rows:
            self._env.write(lambda transaction: compact_tail(transaction, self._prefix, self._stream))
            with self._env.read() as transaction:
                entry = entry_of(transaction, self._prefix)
        end_ns = entry.end_ns
        after = int(np.searchsorted(rows.time_ns, end_ns, side="right"))
        if after < rows.size and not after:
            self._append(rows, entry.last_id, end_ns, is_last=is_last)
        else:
            self._lay(rows)

    def _append(self, rows: Ticks, last_id: int, end_ns: TsNs, *, is_last: bool) -> None:
        """Write rows that come after all that is stored; keeps the last part of a chunk pending until the end."""
        rows = self._without_repeats(rows)
        cuts = list(cut(rows.time_ns))
        with self._env.read() as transaction:
            old = self._open_chunk(transaction)
            head = [read_chunk(transaction, key, self._stream) for key in old]
        if head:
            rows_with_head = joined([*head, rows], self._stream)
            cuts = list(cut(rows_with_head.time_ns))
        else:
            rows_with_head = rows
        if not is_last and len(cuts) > 1:
            start = cuts.pop()[0]
            rest = rows_with_head.rows(start, rows_with_head.size)
            self._pending, self._pending_rows = [rest], rest.size
            rows = rows.rows(0, rows.size - rest.size)
        values = self._encode(rows_with_head, cuts)
        ids, times = rows.column("id"), rows.time_ns
        if last_id != NO_ID and end_ns > EARLIEST:
            ids, times = np.concatenate([[last_id], ids]), np.concatenate([[end_ns], times])

        def commit(transaction: Transaction) -> None:
            rewrite(transaction, self._prefix, old, values)
            if self._stream in ledger.CONTIGUOUS:
                ledger.settle(transaction, self._prefix, ids, times, self._store.now_ns())

        self._env.write(commit)
        self._count(added=rows.size)

    def _open_chunk(self, transaction: Transaction) -> list[bytes]:
        """Key of the last chunk while it has room."""
        last = transaction.floor("chunks", self._prefix, self._prefix + b"\xff" * 8)
        if last is None or codec.rows(transaction.get("chunks", last) or b"") >= codec.CHUNK_ROWS:
            return []
        return [last]

    def _without_repeats(self, rows: Ticks) -> Ticks:
        ids = rows.column("id")
        if self._stream in ledger.CONTIGUOUS and ids[0] != NO_ID and (ids[1:] > ids[:-1]).all():
            return rows
        overlaid = lay_over(empty(self._stream), rows, replace=self._replace)
        self._check(overlaid, rows)
        self._count(repeated=overlaid.repeated, replaced=overlaid.replaced)
        return overlaid.rows

    def _lay(self, rows: Ticks) -> None:
        """Lay rows over the chunks they fall into, one stretch after another."""
        for stretch, old in self._stretches(rows):
            with self._env.read() as transaction:
                stored = joined([read_chunk(transaction, key, self._stream) for key in old], self._stream)
            overlaid = lay_over(stored, stretch, replace=self._replace)
            self._check(overlaid, stretch)
            if overlaid.added or overlaid.replaced:
                values = self._encode(overlaid.rows, list(cut(overlaid.rows.time_ns)))
                self._env.write(
                    lambda transaction, old=old, values=values, stretch=stretch: self._relay(  # type: ignore[misc]
                        transaction, old, values, stretch
                    )
                )
            self._count(added=overlaid.added, repeated=overlaid.repeated, replaced=overlaid.replaced)

    def _relay(
        self, transaction: Transaction, old: Sequence[bytes], values: Sequence[tuple[int, bytes]], stretch: Ticks
    ) -> None:
        rewrite(transaction, self._prefix, old, values)
        if self._stream in ledger.CONTIGUOUS:
            first, last = int(stretch.time_ns[0]), int(stretch.time_ns[-1])
            ids, times = neighbourhood(transaction, self._prefix, self._stream, first, last)
            ledger.settle(transaction, self._prefix, ids, times, self._store.now_ns())

    def _stretches(self, rows: Ticks) -> list[tuple[Ticks, list[bytes]]]:
        """Split ordered rows by the chunks they fall into; chunks that rows lie between the borders of go together."""
        times = rows.time_ns
        with self._env.read() as transaction:
            old = chunk_keys(transaction, self._prefix, int(times[0]) - _COARSEST_UNIT_NS, int(times[-1]))
        if not old:
            return [(rows, [])]
        firsts = np.array([keys.chunk_time(key) for key in old])
        borders = [0, *np.searchsorted(times, firsts[1:]).tolist(), rows.size]
        found: list[tuple[Ticks, list[bytes]]] = []
        start, members = 0, [old[0]]
        for place in range(1, len(old) + 1):
            stop = borders[place]
            is_close = place < len(old) and stop > start and times[stop - 1] >= firsts[place] - _COARSEST_UNIT_NS
            if is_close:
                members.append(old[place])
                continue
            if stop > start:
                found.append((rows.rows(start, stop), members))
            start, members = stop, [old[place]] if place < len(old) else []
        return found

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
