"""Books at the starts of bars, as ladders: what an order that takes would have paid, level by level.

A ladder is one side of a book: sizes, and how far from the mid each of them stands. Only a few levels are kept of each
book, one after another in flat columns, and bars between which a book did not change share one. Bars that have no book
get the dearest of the ladders before them: for each quantity what the dearest of those would have cost. The cost of a
quantity is a line with corners, steeper at each, so the dearest of several is their upper envelope, and a ladder too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from daemon.core.market import Float64s, Int64s
from daemon.engine.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_LEVELS: Final = 50
"""Levels of a ladder. An envelope that has more corners loses, one by one, those that matter least, upwards."""

UNKNOWN: Final = -1
"""The ladder of a bar of which nothing is known."""

_ASKS, _BIDS = 0, 1
_SCRATCH: Final = 4 * MOST_LEVELS + 2


class Ladders(NamedTuple):
    """Books at the starts of bars.

    row: (n,) int64, a bar's book, UNKNOWN where neither it nor one before it is known. edges: (2 books + 1,) int64: the
    asks of book r are levels [edges[2 r], edges[2 r + 1]), its bids those up to edges[2 r + 2]. held: (2 books,)
    float64, base units that a side holds for orders in one bar. sizes, distances: (levels,) float64, base units and
    fractions of the mid, ascending; the last level of a side goes on beyond its size, for whoever asks what more cost.
    """

    row: Int64s
    edges: Int64s
    held: Float64s
    sizes: Float64s
    distances: Float64s


NO_LADDERS: Final = Ladders(
    np.empty(0, dtype=np.int64), np.zeros(1, dtype=np.int64), np.empty(0), np.empty(0), np.empty(0)
)
"""Of a symbol that pays another way."""


def joined(parts: Sequence[Ladders], bars: Sequence[int]) -> Ladders:
    """Lay the ladders of several symbols one after another. bars: how many each symbol has, with ladders or without."""
    rows, edges, books, levels = [], [NO_LADDERS.edges], 0, 0
    for part, count in zip(parts, bars, strict=True):
        row = part.row if part.row.size else np.full(count, UNKNOWN)
        rows.append(np.where(row == UNKNOWN, UNKNOWN, row + books))
        edges.append(part.edges[1:] + levels)
        books += part.held.size // 2
        levels += part.sizes.size
    flat = (np.concatenate([getattr(part, name) for part in parts]) for name in ("held", "sizes", "distances"))
    return Ladders(np.concatenate(rows), np.concatenate(edges), *flat)


def with_dearest(books: Ladders) -> Ladders:
    """Give bars that are UNKNOWN the dearest of the books before them, and as much room as the thinnest of them had.

    Bars before the first book stay as they are. New ladders come after those that were there.
    """
    gaps = int(np.count_nonzero((books.row[1:] == UNKNOWN) & (books.row[:-1] != UNKNOWN)))
    if not gaps:
        return books
    row, edges, held = books.row.copy(), np.empty(2 * gaps, dtype=np.int64), np.empty(2 * gaps)
    sizes, distances = np.empty(2 * gaps * MOST_LEVELS), np.empty(2 * gaps * MOST_LEVELS)
    made, levels = _fill_in(books, row, edges, held, sizes, distances)
    return Ladders(
        row,
        np.concatenate([books.edges, books.sizes.size + edges[: 2 * made]]),
        np.concatenate([books.held, held[: 2 * made]]),
        np.concatenate([books.sizes, sizes[:levels]]),
        np.concatenate([books.distances, distances[:levels]]),
    )


# What the loop does.


@kernel
def open_book(costs: Any, symbols: Any, symbol: int, ladders: Ladders, bar: int) -> None:
    """Lay the book at a bar's start into the costs of its symbol; where none is known nothing can be traded.

    costs: (symbols,) costs.COSTS. symbols: (symbols,) orders.SYMBOL. bar: a row of all symbols' bars.
    """
    row = ladders.row[bar]
    if row < 0:
        costs[symbol].book_levels[:] = 0
        symbols[symbol].ask_room = 0.0
        symbols[symbol].bid_room = 0.0
        return
    for side in range(2):
        first, stop = ladders.edges[2 * row + side], ladders.edges[2 * row + side + 1]
        costs[symbol].book_levels[side] = stop - first
        for level in range(stop - first):
            costs[symbol].book_sizes[side, level] = ladders.sizes[first + level]
            costs[symbol].book_distances[side, level] = ladders.distances[first + level]
    symbols[symbol].ask_room = ladders.held[2 * row]
    symbols[symbol].bid_room = ladders.held[2 * row + 1]


@kernel
def walk(cost: Any, side: int, quantity: float) -> tuple[float, float]:
    """Return how far the best level, and the mean of those that an order takes, are from the mid: fractions of it.

    cost: a record of costs.COSTS. side: 1 takes asks, -1 bids. quantity: base units; what is beyond all levels is
    taken at the last of them. Both are 0 where there are no levels.
    """
    place = _ASKS if side > 0 else _BIDS
    count = cost.book_levels[place]
    if count == 0:
        return 0.0, 0.0
    best = cost.book_distances[place, 0]
    left, paid = quantity, 0.0
    for level in range(count):
        taken = left if level == count - 1 else min(left, cost.book_sizes[place, level])
        paid += taken * cost.book_distances[place, level]
        left -= taken
        if left <= 0.0:
            break
    # The mean of equal levels may round below them.
    return best, max(best, paid / quantity) if quantity > 0.0 else best


# The dearest of several.


@kernel
def _fill_in(
    books: Ladders, row: Int64s, edges: Int64s, held: Float64s, sizes: Float64s, distances: Float64s
) -> tuple[int, int]:
    """Write the dearest book so far at the beginning of each gap, and its number at the bars of it.

    row: (n,), changed in place. edges (ends of sides, from 0), held, sizes, distances: written. Returns how many books
    and levels these are.
    """
    known = books.held.size // 2
    counts = np.zeros(2, dtype=np.int64)
    best_sizes, best_distances = np.zeros((2, MOST_LEVELS)), np.zeros((2, MOST_LEVELS))
    least = np.full(2, np.inf)
    made, levels, merged, seen = 0, 0, 0, 0
    for bar in range(row.size):
        if row[bar] >= 0:
            seen = max(seen, row[bar] + 1)
            continue
        if seen == 0:
            continue
        if merged < seen:
            for book in range(merged, seen):
                for side in range(2):
                    first, stop = books.edges[2 * book + side], books.edges[2 * book + side + 1]
                    counts[side] = dearer(
                        best_sizes[side],
                        best_distances[side],
                        counts[side],
                        books.sizes[first:stop],
                        books.distances[first:stop],
                    )
                    least[side] = min(least[side], books.held[2 * book + side])
            merged = seen
            for side in range(2):
                for level in range(counts[side]):
                    sizes[levels] = best_sizes[side, level]
                    distances[levels] = best_distances[side, level]
                    levels += 1
                edges[2 * made + side] = levels
                held[2 * made + side] = least[side]
            made += 1
        row[bar] = known + made - 1
    return made, levels


@kernel
def dearer(sizes: Float64s, distances: Float64s, count: int, other_sizes: Float64s, other_distances: Float64s) -> int:
    """Make a ladder cost, for each quantity, what the dearer of it and another does; returns how many levels it has.

    sizes, distances: (MOST_LEVELS,), the first `count` of them in use, 0 for none so far; changed in place. other_*:
    (m,), 1 <= m <= MOST_LEVELS, distances ascending. The last level of each goes on for ever. Source: the envelope of
    two convex piecewise linear functions that begin at 0, walked from corner to corner and crossing to crossing.
    """
    most = other_sizes.size
    if count == 0:
        sizes[:most], distances[:most] = other_sizes, other_distances
        return most
    new_sizes, new_distances = np.empty(_SCRATCH), np.empty(_SCRATCH)
    found, one, other = 0, 0, 0
    left = np.inf if count == 1 else sizes[0]
    other_left = np.inf if most == 1 else other_sizes[0]
    ahead = 0.0  # by how much the first costs more so far
    while True:
        slope = distances[one] - other_distances[other]
        is_first = ahead > 0.0 or (ahead == 0.0 and slope >= 0.0)
        step = min(left, other_left)
        crossing = np.inf
        if (is_first and slope < 0.0) or (not is_first and slope > 0.0):
            crossing = -ahead / slope
        crosses = crossing < step
        if crosses:
            step = crossing
        steepness = distances[one] if is_first else other_distances[other]
        # Steeper at each corner, but for rounding.
        if found > 0 and steepness <= new_distances[found - 1]:
            new_sizes[found - 1] += step
        else:
            new_sizes[found], new_distances[found] = step, steepness
            found += 1
        if step == np.inf:
            break
        ahead = 0.0 if crosses else ahead + slope * step
        left -= step
        other_left -= step
        if left <= 0.0:
            one += 1
            left = np.inf if one == count - 1 else sizes[one]
        if other_left <= 0.0:
            other += 1
            other_left = np.inf if other == most - 1 else other_sizes[other]
    found = _fewer(new_sizes, new_distances, found)
    sizes[:found], distances[:found] = new_sizes[:found], new_distances[:found]
    return found


@kernel
def _fewer(sizes: Float64s, distances: Float64s, count: int) -> int:
    """Join neighbours until a ladder has MOST_LEVELS, those first that cost the least more; the best level stays."""
    while count > MOST_LEVELS:
        chosen, least = 1, np.inf
        for level in range(1, count - 2):
            both = sizes[level] + sizes[level + 1]
            more = (distances[level + 1] - distances[level]) * sizes[level] * sizes[level + 1] / both
            if more < least:
                chosen, least = level, more
        both = sizes[chosen] + sizes[chosen + 1]
        worth = sizes[chosen] * distances[chosen] + sizes[chosen + 1] * distances[chosen + 1]
        sizes[chosen], distances[chosen] = both, worth / both
        for level in range(chosen + 1, count - 1):
            sizes[level], distances[level] = sizes[level + 1], distances[level + 1]
        count -= 1
    return count
