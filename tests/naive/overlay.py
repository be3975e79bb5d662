"""Rows over rows and a series of ticks, slowly and obviously: lists and dictionaries, a row at a time.

Nothing is shared with `daemon.store`. A number is its nearest float64, as bits: what came as text and what came as a
float are the same row where they say the same.
"""

from __future__ import annotations

import itertools
import struct
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from daemon.core.ticks import COLUMNS, Kind, Stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.core.ticks import Ticks

NONE = -1
# The columns that tell rows of one id apart, and those that must agree where the identity does.
BESIDE_ID = {Stream.DEPTH: ("flags", "side", "price")}
SAYS = {
    Stream.TRADES: ("price", "size", "side"),
    Stream.AGG_TRADES: ("price", "size", "side", "first_id", "last_id"),
    Stream.QUOTES: ("bid", "bid_size", "ask", "ask_size"),
    Stream.DEPTH: ("size",),
}

Row = dict[str, int]


class Overlaid(NamedTuple):
    """What the store's overlay says, with rows as dictionaries."""

    rows: list[Row]
    fresh: list[Row]
    added: int
    repeated: int
    replaced: int
    conflict: int | None


def bits(value: float, decimals: int | None) -> int:
    """Bits of the float64 nearest to a number; Python divides integers to the nearest."""
    number = float(value) if decimals is None else int(value) / 10**decimals
    return int.from_bytes(struct.pack("<d", number), "little")


def rows_of(ticks: Ticks) -> list[Row]:
    """One dictionary a row."""
    columns = {}
    for (name, kind), column in zip(COLUMNS[ticks.stream].items(), ticks.columns, strict=True):
        if kind in (Kind.PRICE, Kind.SIZE):
            columns[name] = [bits(value, ticks.decimals(kind)) for value in column.tolist()]
        else:
            columns[name] = column.tolist()
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def in_order(rows: Iterable[Row]) -> list[Row]:
    """By time, then id; equal ones as they came."""
    return sorted(rows, key=lambda row: (row["time_ns"], row["id"]))


def lay_over(stream: Stream, stored: Sequence[Row], new: Sequence[Row], *, replace: bool = False) -> Overlaid:
    """New rows over stored ones."""
    heads: dict[tuple[int, ...], tuple[int, Row]] = {}
    words: dict[tuple[int, ...], tuple[int, Row]] = {}
    seen: dict[bool, Counter[tuple[int, ...]]] = {False: Counter(), True: Counter()}
    fresh, repeated, contradicting = [], 0, []
    for place, row in enumerate([*stored, *new]):
        is_new = place >= len(stored)
        identity = (row["id"], *(row[name] for name in BESIDE_ID.get(stream, ())))
        if row["id"] == NONE:
            identity += (row["time_ns"], *(row[name] for name in SAYS[stream]))
            seen[is_new][identity] += 1
            identity += (seen[is_new][identity],)
        if identity not in heads:
            heads[identity] = place, row
            fresh += [row] if is_new else []
        elif says(stream, row) == says(stream, heads[identity][1]):
            repeated += 1
        else:
            contradicting.append(place - len(stored))
        words[identity] = place, row
    kept = []
    for identity, head in heads.items():
        word = words[identity]
        kept.append(word if replace and says(stream, word[1]) != says(stream, head[1]) else head)
    return Overlaid(
        rows=in_order(row for _, row in sorted(kept, key=lambda each: each[0])),
        fresh=in_order(fresh),
        added=len(fresh),
        repeated=repeated,
        replaced=len(contradicting),
        conflict=contradicting[0] if contradicting else None,
    )


def says(stream: Stream, row: Row) -> tuple[int, ...]:
    """What a row of an identity tells beside it."""
    return tuple(row[name] for name in SAYS[stream])


def jumps(rows: Iterable[Row]) -> set[tuple[int, int]]:
    """Pairs of neighbouring ids between which ids are missing."""
    ids = sorted({row["id"] for row in rows if row["id"] != NONE})
    return {(before, after) for before, after in itertools.pairwise(ids) if after - before > 1}


class Series:
    """One stored series: a list."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.rows: list[Row] = []

    def append(self, new: Ticks) -> int:
        """Take live rows that are not stored."""
        fresh = lay_over(self.stream, self.rows, in_order(rows_of(new))).fresh
        self.rows = in_order([*self.rows, *fresh])
        return len(fresh)

    def write(self, new: Ticks, *, replace: bool = False) -> Overlaid:
        """Lay a file over what is stored; without `replace` a conflict changes nothing."""
        overlaid = lay_over(self.stream, self.rows, in_order(rows_of(new)), replace=replace)
        if replace or overlaid.conflict is None:
            self.rows = overlaid.rows
        return overlaid

    def delete(self, start_ns: int | None, stop_ns: int | None) -> int:
        """Drop rows of [start, stop)."""
        inside = self.between(start_ns, stop_ns)
        self.rows = [row for row in self.rows if row not in inside]
        return len(inside)

    def between(self, start_ns: int | None, stop_ns: int | None) -> list[Row]:
        """Rows of [start, stop)."""
        return [
            row
            for row in self.rows
            if (start_ns is None or row["time_ns"] >= start_ns) and (stop_ns is None or row["time_ns"] < stop_ns)
        ]
