"""The gap ledger: where every stored row came from, and every hole that is known.

A source is a file, a page of REST or a stretch of a stream, with its checksum and its count of rows. A hole is rows
that must exist and are not stored. Holes between ids are found from the rows themselves each time rows are laid down,
over the stretch they touch, so whatever fills one, in whatever order, also closes it.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from daemon.core.market import TsNs
from daemon.core.ports import Hole, HoleReason, Verification
from daemon.core.ticks import NO_ID, Stream
from daemon.store import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.core.market import Int64s
    from daemon.store.env import Transaction

DATABASE: Final = "ledger"
# Streams whose ids have no holes of their own.
CONTIGUOUS: Final = frozenset({Stream.TRADES, Stream.AGG_TRADES})

_SOURCE: Final = b"s"
_HOLE: Final = b"h"
# Apart from the open ones, which are looked at with every commit of a recording.
_REPAIRED: Final = b"r"
_PLACE: Final = struct.Struct(">Qq")
_SIGN: Final = 1 << 63
# Ids that jump in more than each fiftieth row are not numbered one by one.
_MOST_JUMPS: Final = 50
_FEW_JUMPS: Final = 100


class Source(msgspec.Struct, frozen=True):
    """Rows that came from one place.

    name: a file's name, or venue, request and range. sha256: hexadecimal, empty where there are no bytes to sum.
    rows: how many it held; added, repeated, replaced: what became of them. notes: what the reader assumed.
    """

    name: str
    sha256: str
    verification: Verification
    rows: int
    added: int
    repeated: int
    replaced: int
    first_ns: TsNs
    last_ns: TsNs
    stored_at_ns: TsNs
    notes: list[str] = []


class LedgerHole(msgspec.Struct, frozen=True):
    """A hole and what became of it. repaired_at_ns: 0 while it is open."""

    hole: Hole
    found_at_ns: TsNs
    repaired_at_ns: TsNs = 0


def put_source(transaction: Transaction, series_key: bytes, source: Source) -> None:
    """Record a source; the same name again replaces what was recorded."""
    transaction.put(DATABASE, _source_key(series_key, source.name), msgspec.msgpack.encode(source))


def source(transaction: Transaction, series_key: bytes, name: str) -> Source | None:
    """Return what is recorded of a source by name."""
    value = transaction.get(DATABASE, _source_key(series_key, name))
    return None if value is None else msgspec.msgpack.decode(value, type=Source)


def sources(transaction: Transaction, series_key: bytes) -> Iterator[Source]:
    """Walk a series' sources, in no order of time."""
    for _, value in transaction.scan(DATABASE, series_key + _SOURCE):
        yield msgspec.msgpack.decode(value, type=Source)


def holes(transaction: Transaction, series_key: bytes) -> Iterator[LedgerHole]:
    """Walk a series' holes in order of time, open and repaired."""
    found = [known for _, known in _known_holes(transaction, series_key)]
    yield from sorted(found, key=lambda known: (known.hole.start_ns, known.hole.after_id))


def open_holes(transaction: Transaction, series_key: bytes) -> Iterator[LedgerHole]:
    """Walk a series' open holes in order of time."""
    for _, value in transaction.scan(DATABASE, series_key + _HOLE):
        yield msgspec.msgpack.decode(value, type=LedgerHole)


def series_keys(transaction: Transaction) -> list[bytes]:
    """Return the series that the ledger has entries of, in order."""
    return list(dict.fromkeys(key[: keys.SERIES_BYTES] for key, _ in transaction.scan(DATABASE, b"")))


def put_hole(transaction: Transaction, series_key: bytes, hole: Hole, now_ns: TsNs) -> None:
    """Record a hole that is known otherwise than from ids; one that is recorded stays as it is."""
    keyed = [_hole_key(series_key, hole, kind) for kind in (_HOLE, _REPAIRED)]
    if all(transaction.get(DATABASE, key) is None for key in keyed):
        transaction.put(DATABASE, keyed[0], msgspec.msgpack.encode(LedgerHole(hole, now_ns)))


def close_hole(transaction: Transaction, series_key: bytes, hole: Hole, now_ns: TsNs) -> None:
    """Mark a hole as repaired."""
    value = transaction.get(DATABASE, _hole_key(series_key, hole))
    known = LedgerHole(hole, now_ns) if value is None else msgspec.msgpack.decode(value, type=LedgerHole)
    _put_repaired(transaction, series_key, known, now_ns)


def _put_repaired(transaction: Transaction, series_key: bytes, known: LedgerHole, now_ns: TsNs) -> None:
    transaction.delete(DATABASE, _hole_key(series_key, known.hole))
    closed = msgspec.structs.replace(known, repaired_at_ns=now_ns)
    transaction.put(DATABASE, _hole_key(series_key, known.hole, _REPAIRED), msgspec.msgpack.encode(closed))


def settle(
    transaction: Transaction,
    series_key: bytes,
    ids: Int64s,
    times: Int64s,
    changed: tuple[int, int],
    now_ns: TsNs,
    reason: HoleReason = HoleReason.IDS,
) -> int:
    """Bring the holes between ids up to date where rows were laid or deleted; returns how many are open there.

    ids, times: of every stored row of a stretch, in order of time, which reaches beyond the changed rows on both sides.
    changed: least and greatest id of those. Holes elsewhere stay as they are: ids need not quite follow the time, so at
    the ends of the stretch some are missing that are stored. Where ids are not numbered one by one nothing is known.
    """
    jumped = jumps(ids, times, reason)
    if jumped is None or not times.size:
        return 0
    found = {(hole.after_id, hole.before_id): LedgerHole(hole, now_ns) for hole in jumped if _touches(hole, changed)}
    left = dict(found)
    for key, known in _between(transaction, series_key, int(times[0]), int(times[-1])):
        pair = (known.hole.after_id, known.hole.before_id)
        if not _touches(known.hole, changed):
            continue
        if pair in found:
            left.pop(pair, None)
        elif overlapping := [each for each in found if each[0] < pair[1] and pair[0] < each[1]]:
            transaction.delete(DATABASE, key)  # what is left of it is recorded below
            for rest in overlapping:
                hole = msgspec.structs.replace(found[rest].hole, reason=known.hole.reason)
                left[rest] = LedgerHole(hole, known.found_at_ns)
        else:
            _put_repaired(transaction, series_key, known, now_ns)
    for each in left.values():
        # In the place of a hole that was repaired there, if need be: its rows were deleted since.
        transaction.delete(DATABASE, _hole_key(series_key, each.hole, _REPAIRED))
        transaction.put(DATABASE, _hole_key(series_key, each.hole), msgspec.msgpack.encode(each))
    return len(found)


def _touches(hole: Hole, changed: tuple[int, int]) -> bool:
    return hole.after_id <= changed[1] and changed[0] <= hole.before_id


def jumps(ids: Int64s, times: Int64s, reason: HoleReason = HoleReason.IDS) -> list[Hole] | None:
    """Find where ids leave numbers out; None where ids are not numbered one by one."""
    known = ids != NO_ID
    if not known.all():
        ids, times = ids[known], times[known]
    if (ids[:-1] > ids[1:]).any():
        order = np.argsort(ids, kind="stable")
        ids, times = ids[order], times[order]
    places = np.flatnonzero(np.diff(ids) > 1)
    if not are_numbered(places.size, ids.size):
        return None
    return [
        Hole(
            start_ns=int(times[place]),
            stop_ns=int(times[place + 1]),
            reason=reason,
            after_id=int(ids[place]),
            before_id=int(ids[place + 1]),
            missing=int(ids[place + 1] - ids[place]) - 1,
        )
        for place in places
    ]


def are_numbered(jump_count: int, id_count: int) -> bool:
    """Tell whether ids with so many jumps among them are numbered one by one at all."""
    return jump_count <= max(_FEW_JUMPS, id_count // _MOST_JUMPS)


def forget(transaction: Transaction, series_key: bytes, start_ns: TsNs, stop_ns: TsNs) -> None:
    """Drop what is known of the rows of [start, stop], which are deleted.

    Holes inside, and those between ids of which a row on either side is gone: what they are now, `settle` finds. Of
    sources that are stored only in part from now on, checksum and time, so that they are taken in again.
    """
    for key, known in list(_known_holes(transaction, series_key)):
        hole = known.hole
        starts, stops = start_ns <= hole.start_ns <= stop_ns, start_ns <= hole.stop_ns <= stop_ns
        if (starts and stops) or (hole.after_id != NO_ID and (starts or stops)):
            transaction.delete(DATABASE, key)
    for each in list(sources(transaction, series_key)):
        if start_ns <= each.first_ns and each.last_ns <= stop_ns:
            transaction.delete(DATABASE, _source_key(series_key, each.name))
        elif each.first_ns <= stop_ns and start_ns <= each.last_ns:
            put_source(transaction, series_key, msgspec.structs.replace(each, sha256="", stored_at_ns=0))


def _known_holes(transaction: Transaction, series_key: bytes) -> Iterator[tuple[bytes, LedgerHole]]:
    for kind in (_HOLE, _REPAIRED):
        for key, value in transaction.scan(DATABASE, series_key + kind):
            yield key, msgspec.msgpack.decode(value, type=LedgerHole)


def _between(
    transaction: Transaction, series_key: bytes, start_ns: TsNs, stop_ns: TsNs
) -> list[tuple[bytes, LedgerHole]]:
    """Open holes between ids whose both ends lie in [start, stop]."""
    prefix = series_key + _HOLE
    found = []
    for key, value in transaction.scan(DATABASE, prefix, prefix + _PLACE.pack((start_ns + _SIGN) % (1 << 64), -1)[:8]):
        known = msgspec.msgpack.decode(value, type=LedgerHole)
        if known.hole.start_ns > stop_ns:
            break
        if known.hole.after_id != NO_ID and known.hole.stop_ns <= stop_ns:
            found.append((key, known))
    return found


def _source_key(series_key: bytes, name: str) -> bytes:
    return series_key + _SOURCE + hashlib.blake2b(name.encode(), digest_size=16).digest()


def _hole_key(series_key: bytes, hole: Hole, kind: bytes = _HOLE) -> bytes:
    return series_key + kind + _PLACE.pack((hole.start_ns + _SIGN) % (1 << 64), hole.after_id)
