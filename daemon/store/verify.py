"""Verification: every checksum, the order of rows, the index against the chunks, the ledger against the rows.

Reads chunk by chunk; memory does not grow with the store.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from daemon.core.errors import AtlasError
from daemon.core.market import Instrument
from daemon.core.ticks import NO_ID, empty
from daemon.store import codec, funding, instruments, keys, ledger, tail
from daemon.store.bars import series_at
from daemon.store.tick_chunks import STREAMS, decode
from daemon.store.tick_series import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.core.market import TsNs
    from daemon.core.ticks import Column, Stream, Ticks
    from daemon.store.env import Environment, Transaction


class Verified(NamedTuple):
    """What was looked at in one series, and what is wrong with it, in words."""

    instrument: Instrument
    series: str
    rows: int
    chunks: int
    stored_bytes: int
    problems: list[str]


def verify(env: Environment) -> Iterator[Verified]:
    """Check every series, one after another."""
    with env.read() as transaction:
        known = instruments.numbered(transaction)
        indexed = {key for key, _ in transaction.scan("series", b"")}
        prefixes = sorted(indexed.union(_chunk_prefixes(transaction)))
    for prefix in prefixes:
        number, stream, _ = keys.instrument_of(prefix)
        instrument = known.get(number, Instrument("unknown", str(number)))
        if prefix not in indexed:
            stored = STREAMS[keys.Stream(stream)]
            yield Verified(instrument, stored, 0, 0, 0, ["there are chunks, but no index entry: their rows are hidden"])
        elif stream == keys.Stream.BARS:
            yield _verify_bars(env, instrument, prefix)
        else:
            yield _Check(env, prefix, STREAMS[keys.Stream(stream)]).run(instrument)
    yield from _verify_funding(env)


def _chunk_prefixes(transaction: Transaction) -> Iterator[bytes]:
    """Walk the series that have chunks, from the first key of each to the next series."""
    following = b""
    while (found := next(transaction.scan("chunks", b"", following), None)) is not None:
        prefix = found[0][: keys.SERIES_BYTES]
        yield prefix
        following = prefix + b"\xff" * keys.SERIES_BYTES


class _Check:
    """One series of ticks being checked, chunk by chunk."""

    def __init__(self, env: Environment, prefix: bytes, stream: Stream) -> None:
        self._env = env
        self._prefix = prefix
        self._stream = stream
        self._problems: list[str] = []
        self._rows = self._chunks = self._bytes = 0
        self._first_ns: TsNs | None = None
        self._end_ns: TsNs | None = None
        self._last_id = NO_ID
        self._jumps: set[tuple[int, int]] = set()

    def run(self, instrument: Instrument) -> Verified:
        with self._env.read() as transaction:
            value = transaction.get("series", self._prefix)
            entry = Entry() if value is None else msgspec.msgpack.decode(value, type=Entry)
            for key, chunk in transaction.scan("chunks", self._prefix):
                self._chunk(key, chunk)
            if (self._rows, self._bytes) != (entry.rows, entry.stored_bytes):
                self._problems.append(
                    f"the index tells {entry.rows} rows and {entry.stored_bytes} bytes, chunks hold {self._rows} "
                    f"and {self._bytes}"
                )
            elif entry.rows and (self._first_ns, self._end_ns) != (entry.first_ns, entry.last_ns):
                self._problems.append("the index tells other times of the chunks than they hold")
            live = self._tail(transaction, entry)
            if not self._problems:
                self._ledger(transaction, live)
        total = self._rows + entry.tail_rows
        return Verified(instrument, self._stream, total, self._chunks, self._bytes + entry.tail_bytes, self._problems)

    def _chunk(self, key: bytes, value: memoryview) -> None:
        self._chunks += 1
        self._bytes += len(value)
        first_ns = keys.chunk_time(key)
        try:
            rows = decode(value, self._stream)
        except AtlasError as error:
            self._problems.append(f"chunk at {first_ns} ns: {error.message}")
            return
        self._rows += rows.size
        times = rows.time_ns
        if not rows.size or times[0] != first_ns:
            self._problems.append(f"chunk at {first_ns} ns: begins with another time than its key")
            return
        if (times[:-1] > times[1:]).any():
            self._problems.append(f"chunk at {first_ns} ns: rows are out of order")
        if self._end_ns is not None and first_ns <= self._end_ns:
            self._problems.append(f"chunk at {first_ns} ns: begins before the one before it ends")
        self._follow(rows)
        self._first_ns = first_ns if self._first_ns is None else self._first_ns
        self._end_ns = int(times[-1])

    def _follow(self, rows: Ticks) -> None:
        """Collect the jumps of ids, across the border to the chunk before as well."""
        if self._stream not in ledger.CONTIGUOUS:
            return
        ids, times = rows.column("id"), rows.time_ns
        if self._last_id != NO_ID and self._end_ns is not None:
            ids, times = np.concatenate([[self._last_id], ids]), np.concatenate([[self._end_ns], times])
        self._jumps |= {(hole.after_id, hole.before_id) for hole in ledger.jumps(ids, times) or ()}
        self._last_id = max(self._last_id, int(rows.column("id").max()))

    def _tail(self, transaction: Transaction, entry: Entry) -> Ticks:
        try:
            live = tail.read(transaction, self._prefix, self._stream)
        except AtlasError as error:
            self._problems.append(error.message)
            return empty(self._stream)
        if live.size != entry.tail_rows:
            self._problems.append(f"the index tells {entry.tail_rows} rows in the tail, it holds {live.size}")
        elif live.size and (int(live.time_ns[0]), int(live.time_ns[-1])) != (entry.tail_first_ns, entry.tail_last_ns):
            self._problems.append("the index tells other times of the tail than it holds")
        return live

    def _ledger(self, transaction: Transaction, live: Ticks) -> None:
        """Every jump of ids is a known hole, where ids are numbered one by one."""
        if live.size:
            self._follow(live)
        holes = ledger.open_holes(transaction, self._prefix)
        known = {(each.hole.after_id, each.hole.before_id) for each in holes}
        unknown = self._jumps - known
        if unknown:
            unknown = self._missing(transaction, unknown, live.column("id")) - known
        if unknown and ledger.are_numbered(len(self._jumps), self._rows):
            after, before = min(unknown)
            self._problems.append(f"{len(unknown)} holes are not in the ledger, first between ids {after} and {before}")

    def _missing(self, transaction: Transaction, jumps: set[tuple[int, int]], live_ids: Column) -> set[tuple[int, int]]:
        """Look again at jumps of ids within a chunk or the tail: the ids between may be elsewhere."""
        inside: dict[tuple[int, int], set[int]] = {jump: set(jump) for jump in jumps}
        chunks = (decode(value, self._stream, ("id",)) for _, value in transaction.scan("chunks", self._prefix))
        for unordered in itertools.chain((chunk.column("id") for chunk in chunks), [live_ids]):
            ids = np.sort(unordered)
            for after, before in jumps:
                low, high = np.searchsorted(ids, [after + 1, before])
                inside[after, before] |= set(ids[low:high].tolist())
        pairs = {pair for ids in inside.values() for pair in itertools.pairwise(sorted(ids))}
        return {(after, before) for after, before in pairs if before - after > 1}


def _verify_bars(env: Environment, instrument: Instrument, prefix: bytes) -> Verified:
    problems: list[str] = []
    rows = chunks = size = 0
    end_ns: TsNs | None = None
    with env.read() as transaction:
        series = series_at(transaction, instrument, prefix)
        for key, value in transaction.scan("chunks", prefix):
            chunks, size = chunks + 1, size + len(value)
            try:
                times = codec.decode(value)[0]
            except AtlasError as error:
                problems.append(f"chunk at {keys.chunk_time(key)} ns: {error.message}")
                continue
            rows += times.size
            if times[0] != keys.chunk_time(key) or (np.diff(times) <= 0).any():
                problems.append(f"chunk at {keys.chunk_time(key)} ns: rows are out of order")
            if end_ns is not None and times[0] <= end_ns:
                problems.append(f"chunk at {keys.chunk_time(key)} ns: begins before the one before it ends")
            end_ns = int(times[-1])
    if (rows, size) != (series.rows, series.stored_bytes):
        problems.append(
            f"the index tells {series.rows} rows and {series.stored_bytes} bytes, chunks hold {rows} and {size}"
        )
    return Verified(instrument, f"bars {series.timeframe}", rows, chunks, size, problems)


def _verify_funding(env: Environment) -> Iterator[Verified]:
    with env.read() as transaction:
        stored = [(instrument, bytes(value)) for instrument, value in funding.scan(transaction)]
    for instrument, value in stored:
        problems: list[str] = []
        rows = 0
        try:
            times, _ = funding.decode(value)
        except AtlasError as error:
            problems.append(error.message)
        else:
            rows = times.size
            if (np.diff(times) <= 0).any():
                problems.append("rows are out of order")
        yield Verified(instrument, "funding", rows, 1, len(value), problems)
