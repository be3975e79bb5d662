"""Keeping stored ticks in shape: deleting stretches, joining small chunks, letting old rows go."""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from daemon.core.market import NS_PER_DAY, Instrument, TsNs
from daemon.core.ticks import TICK_STREAMS
from daemon.store import codec, keys, ledger, tail
from daemon.store.tick_chunks import encode, joined
from daemon.store.tick_series import (
    EARLIEST,
    LATEST,
    chunk_keys,
    compact_tail,
    drop_chunks,
    entry_of,
    prefix_of,
    read_chunk,
    rewrite,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.core.ticks import Stream, Ticks
    from daemon.store.env import Transaction
    from daemon.store.ticks import TickStore

# Chunks dropped in one transaction: deleting a year must not hold the writer for long.
_STEP: Final = 64
_GIB: Final = 1 << 30


class RetentionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[retention]` of config.toml.

    max_age_days: rows of ticks older than this go, by stream; a stream that is not named stays. max_gb: compressed size
    of all ticks above which the oldest go, GiB; 0 keeps all.
    """

    max_age_days: dict[str, Annotated[float, Meta(gt=0)]] = {}
    max_gb: Annotated[float, Meta(ge=0)] = 0.0

    def __post_init__(self) -> None:
        """Refuse streams that do not exist: rows that should go would stay, unsaid."""
        unknown = sorted(set(self.max_age_days) - set(TICK_STREAMS))
        if unknown:
            raise ValueError(f"max_age_days: `{unknown[0]}` is not one of {', '.join(TICK_STREAMS)}")


class Compaction(NamedTuple):
    """Chunks and bytes of a series before and after."""

    chunks_before: int
    chunks_after: int
    bytes_before: int
    bytes_after: int


def delete(
    store: TickStore, instrument: Instrument, stream: Stream, start_ns: TsNs | None, stop_ns: TsNs | None
) -> int:
    """Delete the rows of [start_ns, stop_ns), the known holes in it too; returns how many rows there were."""
    prefix = _prefix(store, instrument, stream)
    if prefix is None:
        return 0
    start = EARLIEST if start_ns is None else start_ns
    last = LATEST if stop_ns is None else stop_ns - 1
    if (start, last) == (EARLIEST, LATEST):
        return _delete_all(store, prefix)
    store.env.write(lambda transaction: compact_tail(transaction, prefix, stream))
    deleted = 0
    action = partial(_delete_step, prefix=prefix, stream=stream, start_ns=start, last_ns=last, now_ns=store.now_ns())
    while step := store.env.write(action):
        deleted += step
    store.env.write(lambda transaction: ledger.forget(transaction, prefix, start, last))
    return deleted


def _delete_all(store: TickStore, prefix: bytes) -> int:
    """Delete a series without reading its rows: also one that is damaged."""

    def drop(transaction: Transaction) -> int:
        found = [key for key, _ in itertools.islice(transaction.scan("chunks", prefix), _STEP)]
        return drop_chunks(transaction, found)[0] if found else -1

    with store.env.read() as transaction:
        deleted = entry_of(transaction, prefix).tail_rows
    while (step := store.env.write(drop)) >= 0:
        deleted += step

    def forget(transaction: Transaction) -> None:
        tail.clear(transaction, prefix)
        transaction.delete("series", prefix)
        ledger.forget(transaction, prefix, EARLIEST, LATEST)

    store.env.write(forget)
    return deleted


def compact(store: TickStore, instrument: Instrument, stream: Stream) -> Compaction:
    """Lay the tail over the chunks and join small neighbours; a reader sees the same rows before and after."""
    prefix = _prefix(store, instrument, stream)
    if prefix is None:
        return Compaction(0, 0, 0, 0)
    before = _shape(store, prefix)
    store.env.write(lambda transaction: compact_tail(transaction, prefix, stream))
    for group in _small_neighbours(store, prefix):
        store.env.write(partial(_join, prefix=prefix, stream=stream, group=group))
    return Compaction(*(number for pair in zip(before, _shape(store, prefix), strict=True) for number in pair))


def retain(store: TickStore, config: RetentionConfig) -> dict[tuple[Instrument, Stream], int]:
    """Delete what is older than allowed, then the oldest rows of all until the rest is small enough.

    Returns rows deleted by series.
    """
    deleted: dict[tuple[Instrument, Stream], int] = {}
    for series in store.series():
        days = config.max_age_days.get(series.stream)
        if days is not None:
            limit = store.now_ns() - int(days * NS_PER_DAY)
            _note(
                deleted, series.instrument, series.stream, delete(store, series.instrument, series.stream, None, limit)
            )
    excess = sum(series.stored_bytes for series in store.series()) - config.max_gb * _GIB
    if config.max_gb and excess > 0:
        for stop_ns, instrument, stream, size in sorted(_oldest(store), key=lambda each: each[0]):
            if excess <= 0:
                break
            _note(deleted, instrument, stream, delete(store, instrument, stream, None, stop_ns))
            excess -= size
    return deleted


def _note(
    deleted: dict[tuple[Instrument, Stream], int], instrument: Instrument, stream: Stream, row_count: int
) -> None:
    if row_count:
        deleted[instrument, stream] = deleted.get((instrument, stream), 0) + row_count


def _oldest(store: TickStore) -> Iterator[tuple[TsNs, Instrument, Stream, int]]:
    """Walk all chunks but each series' last: where each ends, whose it is, its bytes."""
    for series in store.series():
        prefix = _prefix(store, series.instrument, series.stream) or b""
        with store.env.read() as transaction:
            sizes = [(keys.chunk_time(key), len(value)) for key, value in transaction.scan("chunks", prefix)]
        for (_, size), (following_ns, _) in itertools.pairwise(sizes):
            yield following_ns, series.instrument, series.stream, size


def _delete_step(
    transaction: Transaction, *, prefix: bytes, stream: Stream, start_ns: TsNs, last_ns: TsNs, now_ns: TsNs
) -> int:
    """Drop a number of chunks' rows of [start, last]; returns how many rows, 0 when there are none left."""
    touched = chunk_keys(transaction, prefix, start_ns, last_ns)
    deleted, old, kept, gone = 0, [], [], []
    for key in touched:
        rows = read_chunk(transaction, key, stream, ("time_ns", "id"))
        low = int(np.searchsorted(rows.time_ns, start_ns))
        high = int(np.searchsorted(rows.time_ns, last_ns, side="right"))
        if high <= low:
            continue
        deleted += high - low
        gone.append((rows.time_ns[low:high], rows.column("id")[low:high]))
        old.append(key)
        kept += _edges(transaction, key, stream, low, high)
        if len(old) == _STEP:
            break
    values = [(int(rows.time_ns[0]), encode(rows)) for rows in kept]
    if old:
        rewrite(transaction, prefix, old, values)
        times, ids = (np.concatenate(column) for column in zip(*gone, strict=True))
        ledger.forget(transaction, prefix, int(times[0]), int(times[-1]))
        settle(transaction, prefix, (times, ids), now_ns)
    return deleted


def _join(transaction: Transaction, *, prefix: bytes, stream: Stream, group: Sequence[bytes]) -> None:
    """Join chunks into one, unless a live feed or an import has changed them since they were chosen."""
    values = [transaction.get("chunks", key) for key in group]
    row_counts = [codec.rows(value) for value in values if value is not None]
    between = chunk_keys(transaction, prefix, keys.chunk_time(group[0]), keys.chunk_time(group[-1]))
    if len(row_counts) < len(group) or sum(row_counts) > codec.CHUNK_ROWS or between != group:
        return
    rows = joined([read_chunk(transaction, key, stream) for key in group], stream)
    rewrite(transaction, prefix, group, [(int(rows.time_ns[0]), encode(rows))])


def _edges(transaction: Transaction, key: bytes, stream: Stream, low: int, high: int) -> list[Ticks]:
    value = transaction.get("chunks", key)
    if value is not None and low == 0 and high == codec.rows(value):
        return []
    rows = read_chunk(transaction, key, stream)
    return [part for part in (rows.rows(0, low), rows.rows(high, rows.size)) if part.size]


def _small_neighbours(store: TickStore, prefix: bytes) -> list[list[bytes]]:
    """Group neighbouring chunks that fit into one."""
    with store.env.read() as transaction:
        sizes = [(key, codec.rows(value)) for key, value in transaction.scan("chunks", prefix)]
    groups: list[list[bytes]] = []
    members: list[bytes] = []
    total = 0
    for key, row_count in sizes:
        if members and total + row_count > codec.CHUNK_ROWS:
            groups.append(members)
            members, total = [], 0
        members.append(key)
        total += row_count
    groups.append(members)
    return [group for group in groups if len(group) > 1]


def _shape(store: TickStore, prefix: bytes) -> tuple[int, int]:
    with store.env.read() as transaction:
        count = sum(1 for _ in transaction.scan("chunks", prefix))
        entry = entry_of(transaction, prefix)
    return count, entry.stored_bytes + entry.tail_bytes


def _prefix(store: TickStore, instrument: Instrument, stream: Stream) -> bytes | None:
    with store.env.read() as transaction:
        return prefix_of(transaction, instrument, stream)
