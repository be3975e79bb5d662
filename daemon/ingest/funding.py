"""Funding rates from a file into the store: checked whole, sorted, laid over what is there in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from daemon.core.errors import Code, Conflict, SourceDataInvalid
from daemon.core.market import NS_PER_SECOND, FundingTable, Instrument, TsNs
from daemon.ingest.bars import iso
from daemon.store.funding import FundingStore

if TYPE_CHECKING:
    from daemon.store.bars import Overlay
    from daemon.store.env import Environment, Transaction

_EARLIEST_NS: Final = 1_230_768_000 * NS_PER_SECOND  # 2009-01-01: before it there was nothing to trade.
_LATEST_NS: Final = 4_102_444_800 * NS_PER_SECOND  # 2100-01-01
# No venue funds so often; sources that round times of one venue differently are so close together.
_TWICE_NS: Final = 60 * NS_PER_SECOND


class FundingReport(msgspec.Struct, frozen=True):
    """What an import did. Rows of the file are added, stored already, replacing, or repeats inside the file."""

    instrument: str
    rows: int
    added: int
    unchanged: int
    replaced: int
    repeated: int
    first_ns: TsNs
    last_ns: TsNs
    notes: list[str]


def import_funding(
    env: Environment, table: FundingTable, instrument: Instrument, source: str, *, replace: bool = False
) -> FundingReport:
    """Check and store a file's funding rates.

    table: as an adapter read it; at least one row. source: the file's name, for messages.
    SourceDataInvalid FUNDING_INVALID for rates of 1 and beyond, times of another century, and two rates for one time;
    Conflict FUNDING_CONFLICT for rates that differ from stored ones unless `replace`. On any error nothing of the file
    is stored.
    """
    _check_rows(table, source)
    notes = list(table.notes)
    sorted_table = _in_order(table, notes)
    unique = _without_repeats(sorted_table, source)
    repeated = table.time_ns.size - unique.time_ns.size
    if repeated:
        notes.append(f"{repeated} rows repeated the row before with the same time and rate: dropped")
    store = FundingStore(env)

    def merge(transaction: Transaction) -> Overlay:
        overlay = store.merge(transaction, instrument, unique.time_ns, unique.rate, replace=replace)
        if overlay.first_difference_ns is not None and not replace:
            first = iso(overlay.first_difference_ns)
            raise Conflict(
                Code.FUNDING_CONFLICT,
                f"{source}: {overlay.replaced} rates differ from stored ones of {instrument.key}, first at {first}; "
                "nothing was stored. --replace takes the file's",
                {"rows": overlay.replaced, "first": first},
            )
        return overlay

    overlay = env.write(merge)
    doubled = np.flatnonzero(np.diff(store.read(instrument)[0]) < _TWICE_NS)
    if doubled.size:
        notes.append(
            f"{doubled.size} stored rates follow another within a minute: of two sources whose times differ by little, "
            "which would be paid twice; `atlasd data delete SYMBOL --stream funding` removes them"
        )
    return FundingReport(
        instrument=instrument.key,
        rows=table.time_ns.size,
        added=overlay.added,
        unchanged=overlay.unchanged,
        replaced=overlay.replaced,
        repeated=repeated,
        first_ns=int(unique.time_ns[0]),
        last_ns=int(unique.time_ns[-1]),
        notes=notes,
    )


def _check_rows(table: FundingTable, source: str) -> None:
    outside = (table.time_ns < _EARLIEST_NS) | (table.time_ns >= _LATEST_NS)
    too_large = ~(np.abs(table.rate) < 1)  # NaN as well
    wrong = np.flatnonzero(outside | too_large)
    if not wrong.size:
        return
    row = int(wrong[0])
    line = int(table.lines[row])
    field, why = (
        ("time", f"time {iso(int(table.time_ns[row]))} lies outside the years 2009 to 2099")
        if outside[row]
        else ("rate", f"rate {table.rate[row]:g} is no fraction between -1 and 1 (0.0001 is 0.01 %)")
    )
    raise SourceDataInvalid(
        Code.FUNDING_INVALID,
        f"{source} line {line}: {why}; nothing was stored: correct or remove the row",
        {"file": source, "line": line, "field": field},
    )


def _in_order(table: FundingTable, notes: list[str]) -> FundingTable:
    if not (np.diff(table.time_ns) < 0).any():
        return table
    order = np.argsort(table.time_ns, kind="stable")
    notes.append("rows were not in order of time: sorted")
    return table._replace(time_ns=table.time_ns[order], rate=table.rate[order], lines=table.lines[order])


def _without_repeats(table: FundingTable, source: str) -> FundingTable:
    """Drop rows that repeat the one before; refuse two different rates for one time."""
    again = np.diff(table.time_ns) == 0
    rivals = np.flatnonzero(again & (np.diff(table.rate) != 0))
    if rivals.size:
        row = int(rivals[0])
        first, second = sorted((int(table.lines[row]), int(table.lines[row + 1])))
        raise SourceDataInvalid(
            Code.FUNDING_INVALID,
            f"{source} lines {first} and {second}: two different rates for {iso(int(table.time_ns[row]))}; nothing was "
            "stored: keep one of them (a file holds one instrument)",
            {"file": source, "line": second, "field": "rate"},
        )
    kept = np.concatenate([[True], ~again])
    return table._replace(time_ns=table.time_ns[kept], rate=table.rate[kept], lines=table.lines[kept])
