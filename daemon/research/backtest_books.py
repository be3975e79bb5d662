"""Books at the starts of bars, from stored depth: what slippage `order_book` walks.

The depth is streamed once through a book (`engine.book_samples`). What stays in memory is a few levels a bar, whatever
there is of depth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.market import NS_PER_HOUR
from daemon.core.ticks import COLUMNS, DepthFlag, Kind, Stream, rescale
from daemon.engine.book import NO_ORDERS, STALE_NS, Book, depth_rows
from daemon.engine.book_samples import begun, kept, room_for, sample
from daemon.engine.ladders import UNKNOWN, Ladders, with_dearest
from daemon.research.plans import no_depth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from daemon.core.market import Instrument, Int64s, TsNs
    from daemon.core.ports import Hole
    from daemon.core.ticks import Ticks
    from daemon.engine.book import DepthRows
    from daemon.store.ticks import TickStore

FLOATS: Final = "depth in floating-point numbers, not in decimal ones"
_FIRST_REACH_NS: Final = NS_PER_HOUR
_REACHES: Final = 4


class Books(NamedTuple):
    """Books of a range. missing: bars without a whole one. rows, first_ns, last_ns: of the depth that was read."""

    ladders: Ladders
    missing: int
    rows: int
    first_ns: TsNs
    last_ns: TsNs


class _Scale(NamedTuple):
    """Decimals that hold every row, and the greatest step that all of its prices are whole numbers of."""

    price: int
    size: int
    tick: int


def read_books(
    store: TickStore,
    instrument: Instrument,
    start_ns: Int64s,
    levels: int,
    checkpoint: Callable[[], None] = lambda: None,
) -> Books:
    """Read the book as it was before each bar's start, so many levels of each side.

    start_ns: (n,) int64 ascending, n >= 1. checkpoint: called at every chunk; what it raises ends the reading.
    Memory: 32 bytes a level and bar, and one chunk. NotFound NO_DEPTH where no bar has a book.
    """
    stored = store.streams(instrument).get(Stream.DEPTH)
    if stored is None:
        raise no_depth(instrument, "no stored depth")
    first_ns, stop_ns = int(start_ns[0]), int(start_ns[-1])
    from_ns = reached_back(store, instrument, first_ns, stored.first_ns)
    scale = _scale(store, instrument, from_ns, stop_ns)
    is_lost = _within(store.holes(instrument, Stream.DEPTH, from_ns, stop_ns), start_ns)
    book, found, at = Book(), room_for(start_ns.size, levels), begun()
    seen, seen_from_ns = 0, 0

    def look(rows: DepthRows, until: int) -> None:
        sample(book.books, rows, start_ns, until, is_lost, 10.0**scale.size, STALE_NS, NO_ORDERS, found, at)

    for rows in store.blocks(instrument, Stream.DEPTH, None, from_ns, stop_ns, store.buffers()):
        checkpoint()
        exact = _rescaled(rows, scale, instrument)
        seen_from_ns = seen_from_ns if seen else int(exact.time_ns[0])
        seen += exact.size
        look(book.laid(exact), int(np.searchsorted(start_ns, exact.time_ns[-1], side="right")))
    look(depth_rows(1, 0), start_ns.size)
    missing = int(np.count_nonzero(found.row == UNKNOWN))
    if missing == start_ns.size:
        raise no_depth(instrument, "no whole book in the dates asked for: no snapshot is stored there or before")
    return Books(with_dearest(kept(found, at)), missing, seen, seen_from_ns, int(at["last_ns"][0]))


def reached_back(store: TickStore, instrument: Instrument, first_ns: TsNs, earliest_ns: TsNs) -> TsNs:
    """Return a time from which on there is a snapshot before the first bar: further and further back, or all there is.

    Snapshots are rare where a recording runs long.
    """
    reach, stop_ns = _FIRST_REACH_NS, first_ns
    while stop_ns > earliest_ns:
        from_ns = max(first_ns - reach, earliest_ns)
        blocks = store.blocks(instrument, Stream.DEPTH, ("flags",), from_ns, stop_ns, store.buffers())
        if any((rows.column("flags") & DepthFlag.SNAPSHOT).any() for rows in blocks):
            return from_ns
        stop_ns, reach = from_ns, reach * _REACHES
    return min(first_ns, earliest_ns)


def _scale(store: TickStore, instrument: Instrument, from_ns: TsNs, stop_ns: TsNs) -> _Scale:
    """Find what all rows have in common: chunks are stored with as many decimals as each of them needs."""
    steps: dict[tuple[int, int], int] = {}
    for rows in store.blocks(instrument, Stream.DEPTH, ("price", "size"), from_ns, stop_ns, store.buffers()):
        decimals = rows.decimals(Kind.PRICE), rows.decimals(Kind.SIZE)
        if decimals[0] is None or decimals[1] is None:
            raise no_depth(instrument, FLOATS)
        step = int(np.gcd.reduce(rows.column("price")))
        steps[decimals[0], decimals[1]] = int(np.gcd(steps.get((decimals[0], decimals[1]), 0), step))
    price, size = (max((each[place] for each in steps), default=0) for place in range(2))
    tick = int(np.gcd.reduce([step * 10 ** (price - each[0]) for each, step in steps.items()] or [0]))
    return _Scale(price, size, max(tick, 1))


def _rescaled(rows: Ticks, scale: _Scale, instrument: Instrument) -> Ticks:
    """Bring rows to common decimals, and prices to ticks: how far levels are from the mid is the same in those."""
    try:
        rows = rescale(rows, scale.price, scale.size)
    except OverflowError:
        raise no_depth(instrument, FLOATS) from None
    if scale.tick == 1:
        return rows
    columns = dict(zip(COLUMNS[Stream.DEPTH], rows.columns, strict=True))
    return rows._replace(columns=tuple((columns | {"price": columns["price"] // scale.tick}).values()))


def _within(holes: Sequence[Hole], start_ns: Int64s) -> NDArray[np.bool_]:
    """Tell of each bar whether it starts in a hole: after its first moment, for what came then is before the bar."""
    lost = np.zeros(start_ns.size, dtype=np.bool_)
    for hole in holes:
        first, stop = np.searchsorted(start_ns, [hole.start_ns, hole.stop_ns], side="right")
        lost[first:stop] = True
    return lost
