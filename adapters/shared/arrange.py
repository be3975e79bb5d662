"""Rows of a file into order of time, without repeats, as far as bounded memory allows.

Venues have published files whose rows are interleaved from two days, and files with rows twice. A window of two blocks
puts neighbours in order; what is further apart passes in the file's order, and the store sorts and compares it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from adapters.shared.refusals import Place, refusal
from daemon.core.errors import Code
from daemon.core.ticks import COLUMNS, NO_ID, Stream, Ticks, concatenate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.core.errors import SourceDataInvalid
    from daemon.core.market import Int64s

BLOCK_ROWS = 262_144

_OWN_IDS = (Stream.TRADES, Stream.AGG_TRADES)  # Ids of quotes and depth are their update's: many rows share one.


class Numbered(NamedTuple):
    """Rows, and (n,) int64, the line or row of the file that each came from, counted from 1."""

    rows: Ticks
    lines: Int64s


def gathered(blocks: Iterator[Numbered], file: str, unit: str = "line") -> Iterator[Numbered]:
    """Join blocks to such of BLOCK_ROWS or somewhat more: small ones are quick to read, large ones to store.

    SourceDataInvalid SOURCE_VALUE_INVALID where no decimals hold the numbers of neighbouring blocks in 64 bits.
    """
    parts: list[Numbered] = []
    for block in blocks:
        parts.append(block)
        if sum(part.rows.size for part in parts) >= BLOCK_ROWS:
            yield _joined(parts, file, unit)
            parts = []
    if parts:
        yield _joined(parts, file, unit)


class Arranger:
    """Orders blocks; `out_of_order` and `repeated` count the rows that came late, and those that were dropped."""

    def __init__(self, file: str, unit: str = "line") -> None:
        self.out_of_order = 0
        self.repeated = 0
        self._file = file
        self._unit = unit

    def arrange(self, blocks: Iterator[Numbered]) -> Iterator[Numbered]:
        """Yield the rows of all blocks, each block in order of time, then of id.

        SourceDataInvalid TICKS_INVALID where an id repeats with other values, both lines named.
        """
        held: Numbered | None = None
        for block in blocks:
            if held is None:
                held = self._settled(block)
                continue
            if _follows(held, block):
                yield held
                held = self._settled(block)
                continue
            joined = self._settled(_joined([held, block], self._file, self._unit))
            middle = joined.rows.size // 2
            yield _cut(joined, 0, middle)
            held = _cut(joined, middle, joined.rows.size)
        if held is not None:
            yield held

    def _settled(self, block: Numbered) -> Numbered:
        """Sort a block and drop its repeats; an orderly block is returned as it is."""
        rows, lines = block
        late = _late(rows)
        if late:
            order = np.lexsort((lines, _ids(rows), rows.time_ns))
            self.out_of_order += late
            rows, lines = rows.take(order), lines[order]
        keep = self._without_repeats(rows, lines)
        return Numbered(rows, lines) if keep is None else Numbered(rows.take(keep), lines[keep])

    def _without_repeats(self, rows: Ticks, lines: Int64s) -> np.ndarray | None:
        """Return the mask of rows to keep, None for all."""
        ids = _ids(rows)
        if rows.stream not in _OWN_IDS or (np.diff(ids) > 0).all():
            return None
        order = np.argsort(ids, kind="stable")
        ordered = ids[order]
        again = (ordered[1:] == ordered[:-1]) & (ordered[1:] != NO_ID)
        if not again.any():
            return None
        first, second = order[:-1][again], order[1:][again]
        for name, column in zip(COLUMNS[rows.stream], rows.columns, strict=True):
            differ = column[first] != column[second]
            if name != "local_ns" and differ.any():
                pair = int(np.argmax(differ))
                raise self._conflict(int(ids[first[pair]]), name, lines[[first[pair], second[pair]]])
        keep = np.ones(rows.size, dtype=np.bool_)
        keep[second] = False
        self.repeated += int(second.size)
        return keep

    def _conflict(self, row_id: int, field: str, lines: Int64s) -> SourceDataInvalid:
        earlier, later = sorted(lines.tolist())
        place = Place(self._file, later, self._unit)
        why = f"id {row_id} was in {self._unit} {earlier} already, with another {field}"
        return refusal(Code.TICKS_INVALID, place, f"{why}; fetch or write the file again", field=field)


def _joined(parts: list[Numbered], file: str, unit: str) -> Numbered:
    try:
        rows = concatenate([part.rows for part in parts])
    except OverflowError as error:
        why = f"in the rows from here on {error} (some are huge, some tiny); fetch or write the file again"
        raise refusal(Code.SOURCE_VALUE_INVALID, Place(file, int(parts[0].lines[0]), unit), why) from None
    return Numbered(rows, np.concatenate([part.lines for part in parts]))


def _ids(rows: Ticks) -> Int64s:
    if rows.stream in _OWN_IDS:
        return rows.column("id")
    return np.zeros(rows.size, dtype=np.int64)


def _late(rows: Ticks) -> int:
    """Count the rows that come before the row above them."""
    step = np.diff(rows.time_ns)
    late = step < 0
    if rows.stream in _OWN_IDS:
        late |= (step == 0) & (np.diff(rows.column("id")) < 0)
    return int(np.count_nonzero(late))


def _follows(held: Numbered, block: Numbered) -> bool:
    """Tell whether a block comes wholly after the one before, with new ids."""
    if not held.rows.size or not block.rows.size:
        return True
    if block.rows.time_ns.min() < held.rows.time_ns[-1]:
        return False
    ids = _ids(block.rows), _ids(held.rows)
    return block.rows.stream not in _OWN_IDS or bool(ids[0].min() > ids[1].max())


def _cut(block: Numbered, start: int, stop: int) -> Numbered:
    return Numbered(block.rows.rows(start, stop), block.lines[start:stop])
