"""Bars from a file into the store: checked whole, sorted, laid over what is there in one transaction."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from daemon.core.errors import Code, Conflict, SourceDataInvalid
from daemon.core.market import NS_PER_SECOND, Bars, BarTable, Instrument, Timeframe, TsNs, VolumeUnit
from daemon.core.ports import Hole, Verification
from daemon.engine.checks import check
from daemon.store import ledger

if TYPE_CHECKING:
    from daemon.core.market import Int64s
    from daemon.store.bars import BarStore, Overlay
    from daemon.store.env import Environment, Transaction

# Daily bars of a zone with daylight saving are 23 hours apart once a year.
_LEAST_SPACING: Final = 0.9


class ImportReport(msgspec.Struct, frozen=True):
    """What an import did. Rows of the file are added, stored already, replacing, or repeats inside the file."""

    instrument: str
    timeframe: str
    rows: int
    added: int
    unchanged: int
    replaced: int
    repeated: int
    first_ns: TsNs
    last_ns: TsNs
    notes: list[str]


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a file beside its rows, for the ledger.

    holes: intervals that a source which writes every interval has left out.
    """

    sha256: str = ""
    verification: Verification = Verification.UNVERIFIED
    holes: list[Hole] = []


UNKNOWN_ORIGIN: Final = Origin()
_COUNTED: Final[dict[VolumeUnit, str]] = {"base": "base units", "quote": "quote currency"}


def import_bars(
    env: Environment,
    store: BarStore,
    table: BarTable,
    instrument: Instrument,
    timeframe: Timeframe,
    source: str,
    *,
    origin: Origin = UNKNOWN_ORIGIN,
    replace: bool = False,
    volume_unit: VolumeUnit | None = None,
) -> ImportReport:
    """Check and store a file's bars, and record where they came from.

    table: as an adapter read it; at least one row. source: the file's name, for messages and the ledger.
    volume_unit: what the file's volumes count; None for what the stored ones do, base units where there are none.
    SourceDataInvalid BARS_INVALID for rows that are no bars or do not fit the timeframe, Conflict BARS_CONFLICT for
    rows that differ from stored ones unless `replace`, and for volumes of another unit than the stored ones unless the
    file replaces all of these. On any error nothing of the file is stored.
    """
    _check_rows(table, source)
    notes = list(table.notes)
    bars, lines = table.bars, table.lines
    if (np.diff(bars.start_ns) < 0).any():
        order = np.argsort(bars.start_ns, kind="stable")
        bars, lines = Bars._make(column[order] for column in bars), lines[order]
        notes.append("rows were not in order of time: sorted")
    bars, repeated = _without_repeats(bars, lines, source)
    if repeated:
        notes.append(f"{repeated} rows repeated the row before with the same time and values: dropped")
    _check_spacing(bars, timeframe, source)

    def merge(transaction: Transaction) -> Overlay:
        overlay = store.merge(transaction, instrument, timeframe, bars, replace=replace, volume_unit=volume_unit)
        if overlay.other_unit is not None and volume_unit is not None:
            raise _mixed_units(source, instrument, timeframe, volume_unit, overlay.other_unit)
        if overlay.first_difference_ns is not None and not replace:
            raise Conflict(
                Code.BARS_CONFLICT,
                f"{source}: {overlay.replaced} rows differ from stored bars of {instrument.key} {timeframe}, first at "
                f"{iso(overlay.first_difference_ns)}; nothing was stored. --replace takes the file's",
                {"rows": overlay.replaced, "first": iso(overlay.first_difference_ns)},
            )
        _record(transaction, store, instrument, timeframe, bars, overlay, source, origin, notes)
        return overlay

    overlay = env.write(merge)
    return ImportReport(
        instrument=instrument.key,
        timeframe=timeframe,
        rows=table.bars.size,
        added=overlay.added,
        unchanged=overlay.unchanged,
        replaced=overlay.replaced,
        repeated=repeated,
        first_ns=int(bars.start_ns[0]),
        last_ns=int(bars.start_ns[-1]),
        notes=notes,
    )


def _mixed_units(
    source: str, instrument: Instrument, timeframe: Timeframe, given: VolumeUnit, stored: VolumeUnit
) -> Conflict:
    return Conflict(
        Code.BARS_CONFLICT,
        f"{source}: its volumes count {_COUNTED[given]}, those of the stored bars of {instrument.key} {timeframe} "
        f"{_COUNTED[stored]}; nothing was stored. Give the unit that the file counts as --volume-unit; --replace "
        "changes that of a series only with a file that holds every stored bar, another --venue keeps both apart",
        {"field": "volume_unit", "stored": stored, "given": given},
    )


def _record(
    transaction: Transaction,
    store: BarStore,
    instrument: Instrument,
    timeframe: Timeframe,
    bars: Bars,
    overlay: Overlay,
    source: str,
    origin: Origin,
    notes: list[str],
) -> None:
    """Write the source and its holes into the ledger, and close the holes that these bars fill."""
    prefix = store.series_key(transaction, instrument, timeframe)
    now_ns = time.time_ns()
    for known in list(ledger.open_holes(transaction, prefix)):
        inside = np.searchsorted(bars.start_ns, [known.hole.start_ns + 1, known.hole.stop_ns])
        if int(inside[1] - inside[0]) >= known.hole.missing > 0:
            ledger.close_hole(transaction, prefix, known.hole, now_ns)
    for hole in origin.holes:
        ledger.put_hole(transaction, prefix, hole, now_ns)
    record = ledger.Source(
        name=source,
        sha256=origin.sha256,
        verification=origin.verification,
        rows=bars.size,
        added=overlay.added,
        repeated=overlay.unchanged,
        replaced=overlay.replaced,
        first_ns=int(bars.start_ns[0]),
        last_ns=int(bars.start_ns[-1]),
        stored_at_ns=now_ns,
        notes=notes,
    )
    ledger.put_source(transaction, prefix, record)


def _check_rows(table: BarTable, source: str) -> None:
    violation = check(table.bars)
    if violation is None:
        return
    line = int(table.lines[violation.row])
    value = float(getattr(table.bars, violation.field)[violation.row])
    raise SourceDataInvalid(
        Code.BARS_INVALID,
        f"{source} line {line}: {violation.field} {value:g} {violation.rule}; nothing was stored: "
        "correct or remove the row",
        {"file": source, "line": line, "field": violation.field},
    )


def _without_repeats(bars: Bars, lines: Int64s, source: str) -> tuple[Bars, int]:
    """Drop rows that repeat the one before; refuse two different rows for one time."""
    again = np.flatnonzero(np.diff(bars.start_ns) == 0) + 1
    if again.size == 0:
        return bars, 0
    for row in again:
        if any(column[row] != column[row - 1] for column in bars):
            first, second = sorted((int(lines[row - 1]), int(lines[row])))
            raise SourceDataInvalid(
                Code.BARS_INVALID,
                f"{source} lines {first} and {second}: two different bars for {iso(int(bars.start_ns[row]))}; "
                "nothing was stored: keep one of them",
                {"file": source, "line": second, "field": "timestamp"},
            )
    return Bars._make(np.delete(column, again) for column in bars), len(again)


def _check_spacing(bars: Bars, timeframe: Timeframe, source: str) -> None:
    if bars.size < 2:  # noqa: PLR2004 - one bar has no neighbour
        return
    steps = np.diff(bars.start_ns)
    row = int(np.argmin(steps))
    if steps[row] < _LEAST_SPACING * timeframe.ns:
        raise SourceDataInvalid(
            Code.BARS_INVALID,
            f"{source}: bars {steps[row] / NS_PER_SECOND:g} s apart at {iso(int(bars.start_ns[row]))} are no "
            f"{timeframe} bars; nothing was stored: give the file's own --timeframe",
            {"file": source, "field": "timestamp"},
        )


def iso(time_ns: TsNs) -> str:
    """Write a time in a message, to the second."""
    return datetime.fromtimestamp(time_ns / NS_PER_SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
