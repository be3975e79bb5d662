"""New rows over stored ones: what is the same row, what is new, what contradicts.

A row is told by the venue's id where it has one: of a trade, or of an update of the book together with level and side.
Without an id a row is told by all it says, and rows that say the same are counted: two equal trades in one millisecond
are two, also after their file is imported again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.core.ticks import NO_ID, Stream, Ticks
from daemon.store.tick_chunks import joined

if TYPE_CHECKING:
    from daemon.core.ticks import Column

# The same trade may be told in milliseconds by one source and in microseconds by another: this far apart in time.
COARSEST_UNIT_NS: Final = 1_000_000
# Beside the id, what tells rows of one id apart.
_WITH_ID: Final = {
    Stream.TRADES: (),
    Stream.AGG_TRADES: (),
    Stream.QUOTES: (),
    Stream.DEPTH: ("flags", "side", "price"),
}
# Multiplying by it spreads digests over all 64 bits; wrapping around is meant.
_ODD: Final = np.int64(-7_046_029_254_386_353_131)
# What must agree where the identity does. Times may differ in their unit, and only some sources have the local one.
_VALUES: Final = {
    Stream.TRADES: ("price", "size", "side"),
    Stream.AGG_TRADES: ("price", "size", "side", "first_id", "last_id"),
    Stream.QUOTES: ("bid", "bid_size", "ask", "ask_size"),
    Stream.DEPTH: ("size",),
}


class Overlaid(NamedTuple):
    """Stored and new rows as one, in order of time and id.

    fresh: the rows that were not stored. added, repeated, replaced: new rows by what became of them; replaced ones
    differ from the stored ones and won only where that was asked for. conflict: place among the new rows of the first
    that differs, None where none does.
    """

    rows: Ticks
    fresh: Ticks
    added: int
    repeated: int
    replaced: int
    conflict: int | None


def in_order(rows: Ticks) -> Ticks:
    """Sort rows by time, then id; rows of one id keep their order."""
    times, ids = rows.time_ns, rows.column("id")
    # Compared, not subtracted: a difference of far times wraps around.
    before, after = times[:-1], times[1:]
    if (before < after).all() or not ((before > after) | ((before == after) & (ids[:-1] > ids[1:]))).any():
        return rows
    return rows.take(np.lexsort((ids, times)))


def lay_over(stored: Ticks, new: Ticks, *, replace: bool = False) -> Overlaid:
    """Lay new rows over stored ones of the same stretch of time.

    Rows that are stored keep what is stored; with `replace` those that differ become the new ones.
    """
    both = joined([stored, new], new.stream)
    is_new = np.arange(both.size) >= stored.size
    group, head = _groups(both, is_new)
    is_head = np.zeros(both.size, dtype=bool)
    is_head[head] = True
    differs = np.zeros(both.size, dtype=bool)
    for name in _VALUES[both.stream]:
        column = _bits(both.column(name))
        differs |= column != column[head[group]]
    repeated = is_new & ~is_head
    contradicting = np.flatnonzero(repeated & differs)
    kept = is_head.copy()
    if replace and contradicting.size:
        # The last of a group is the newest word on it, and may be what is stored.
        newest = np.flatnonzero(repeated)[::-1]
        newest = newest[np.unique(group[newest], return_index=True)[1]]
        newest = newest[differs[newest]]
        kept[head[group[newest]]] = False
        kept[newest] = True
    return Overlaid(
        rows=in_order(both.take(np.flatnonzero(kept))),
        fresh=in_order(both.take(np.flatnonzero(is_head & is_new))),
        added=int(np.count_nonzero(is_new & ~repeated)),
        repeated=int(np.count_nonzero(repeated)) - contradicting.size,
        replaced=int(contradicting.size),
        conflict=int(contradicting[0]) - stored.size if contradicting.size else None,
    )


def are_distinct(rows: Ticks) -> bool:
    """Tell whether no row can repeat another; False may also mean that it would take longer to know."""
    ids = rows.column("id")
    if not rows.size or ids[0] == NO_ID:
        return not rows.size
    if not _WITH_ID[rows.stream]:
        return bool((ids[1:] > ids[:-1]).all())
    # Rows that are equal have equal digests; that others may too costs only the closer look.
    digest = ids.copy()
    for name in _WITH_ID[rows.stream]:
        digest = digest * _ODD + _bits(rows.column(name))
    digest.sort()
    return bool((digest[1:] != digest[:-1]).all() and (ids != NO_ID).all())


def _groups(rows: Ticks, is_new: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Group rows by identity: each row's group, each group's oldest row."""
    ids = rows.column("id")
    keys = [ids, *(_bits(rows.column(name)) for name in _WITH_ID[rows.stream])]
    anonymous = ids == NO_ID
    if anonymous.any():
        said = [rows.time_ns, *(_bits(rows.column(name)) for name in _VALUES[rows.stream])]
        keys += [np.where(anonymous, column, 0) for column in said]
        keys.append(np.where(anonymous, _occurrence([*keys, is_new]), 0))
    order, starts = _sorted(keys)
    group = np.empty(rows.size, dtype=np.intp)
    group[order] = np.cumsum(starts) - 1
    return group, order[np.flatnonzero(starts)]


def _occurrence(keys: list[Column]) -> NDArray[np.intp]:
    """Count, for each row, the rows before it that are equal in all keys."""
    order, starts = _sorted(keys)
    places = np.arange(order.size)
    out = np.empty(order.size, dtype=np.intp)
    out[order] = places - np.maximum.accumulate(np.where(starts, places, 0))
    return out


def _sorted(keys: list[Column]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Order rows by keys, equal ones as they came; the mask is over that order and marks where a key changes."""
    order = np.lexsort(keys[::-1])
    starts = np.ones(order.size, dtype=bool)
    if order.size:
        starts[1:] = False
        for key in keys:
            ordered = key[order]
            starts[1:] |= ordered[1:] != ordered[:-1]
    return order, starts


def _bits(column: Column) -> Column:
    return column.view(np.int64) if column.dtype == np.float64 else column
