"""Ticks from files and venues into the store: read whole and checked first, then laid over what is there."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

import msgspec

from daemon.core.errors import Code, Conflict, InvalidRequest
from daemon.core.market import Instrument, TsNs
from daemon.core.ports import Hole, HoleReason, Verification
from daemon.core.ticks import NO_ID, TICK_STREAMS, Stream
from daemon.ingest import spools
from daemon.ingest.spools import Spool
from daemon.ingest.uploads import found
from daemon.store import instruments, keys, ledger
from daemon.store.bulk import BulkWriter
from daemon.store.overlay import COARSEST_UNIT_NS
from daemon.store.tick_chunks import KEY_STREAMS
from daemon.store.tick_series import entry_of, prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from daemon.core.ports import TickFile
    from daemon.core.ticks import Ticks
    from daemon.store.env import Transaction
    from daemon.store.ticks import TickStore

_LARGEST: Final = 1 << 63
# Holes that a file for their stretch closes.
_CLOSED_BY_FILES: Final = (HoleReason.MISSING_FILE, HoleReason.QUARANTINED)


class TickUpload(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rows that lie in a spool, and what is known of their source.

    upload: the spool's id, empty where there are no rows and only holes to record. span: the stretch [start, stop) that
    the source covers, where it says so. replace: rows that differ from stored ones take their place.
    """

    venue: str
    symbol: str
    stream: Stream
    source: str
    upload: str = ""
    sha256: str = ""
    verification: Verification = Verification.UNVERIFIED
    rows: int = 0
    first_ns: TsNs = 0
    last_ns: TsNs = 0
    span: tuple[TsNs, TsNs] | None = None
    holes: list[Hole] = []
    notes: list[str] = []
    replace: bool = False


class TickReport(msgspec.Struct, frozen=True):
    """What became of a source's rows. open_holes: of the whole series, afterwards."""

    instrument: str
    stream: Stream
    source: str
    rows: int
    added: int
    repeated: int
    replaced: int
    first_ns: TsNs
    last_ns: TsNs
    open_holes: int
    notes: list[str]


def spool(
    folder: Path,
    instrument: Instrument,
    file: TickFile,
    progress: Callable[[int], None] = lambda _: None,
    *,
    span: tuple[TsNs, TsNs] | None = None,
    replace: bool = False,
    stream: Stream,
) -> TickUpload:
    """Read a file whole into a spool; what its reader refuses leaves nothing behind.

    progress: told the rows of each block.
    """
    with Spool(folder) as written, closing(file.blocks()) as blocks:
        for rows in blocks:
            written.add(rows)
            progress(rows.size)
    return upload_of(
        written,
        TickUpload(
            venue=instrument.venue,
            symbol=instrument.symbol,
            stream=stream,
            source=file.name,
            sha256=file.sha256,
            verification=file.verification,
            span=span,
            holes=file.holes,
            notes=file.notes,
            replace=replace,
        ),
    )


def upload_of(written: Spool, described: TickUpload) -> TickUpload:
    """Complete a description by what was written."""
    return msgspec.structs.replace(
        described,
        upload=written.identity if written.rows else "",
        rows=written.rows,
        first_ns=written.first_ns,
        last_ns=written.last_ns,
    )


def is_stored(store: TickStore, instrument: Instrument, stream: Stream, name: str, sha256: str) -> bool:
    """Tell whether these very bytes were taken in before."""
    with store.env.read() as transaction:
        prefix = prefix_of(transaction, instrument, stream)
        known = None if prefix is None else ledger.source(transaction, prefix, name)
    return known is not None and bool(sha256) and known.sha256 == sha256


def store_upload(store: TickStore, folder: Path, upload: TickUpload) -> TickReport:
    """Take a spool's rows into the store and record their source and holes; the spool is gone afterwards.

    Conflict TICKS_CONFLICT where ids that are stored have other values, before anything is written; a file that its
    venue published anew under the same name replaces them.
    """
    _check(upload)
    instrument = Instrument(upload.venue, upload.symbol)
    path = found(folder, upload.upload) if upload.upload else None
    try:
        return _store(store, instrument, upload, path)
    finally:
        if path is not None:
            path.unlink(missing_ok=True)


def _check(upload: TickUpload) -> None:
    """Refuse what no reader of ours describes; InvalidRequest."""
    if upload.stream not in TICK_STREAMS:
        why = f"stream `{upload.stream}` is not one of {', '.join(TICK_STREAMS)}"
        raise InvalidRequest(Code.INVALID_REQUEST, why, {"field": "stream"})
    if bool(upload.rows) != bool(upload.upload):
        raise InvalidRequest(Code.INVALID_REQUEST, "rows need an upload, an upload rows", {"field": "upload"})
    edges = [edge for hole in upload.holes for edge in (hole.start_ns, hole.stop_ns, hole.after_id, hole.before_id)]
    if any(abs(edge) >= _LARGEST for edge in [*edges, upload.first_ns, upload.last_ns, *(upload.span or ())]):
        raise InvalidRequest(Code.INVALID_REQUEST, "a time or id does not fit 64 bits", {"field": "holes"})


def _store(store: TickStore, instrument: Instrument, upload: TickUpload, path: Path | None) -> TickReport:
    with store.env.read() as transaction:
        prefix = prefix_of(transaction, instrument, upload.stream)
        known = None if prefix is None else ledger.source(transaction, prefix, upload.source)
        overlaps = prefix is not None and upload.first_ns - COARSEST_UNIT_NS <= entry_of(transaction, prefix).end_ns
    notes = list(upload.notes)
    is_rewritten = known is not None and known.sha256 not in ("", upload.sha256) and bool(upload.sha256)
    if is_rewritten and upload.verification is Verification.VERIFIED:
        notes.append("the venue published this file anew: its rows replace those of the file before")
    replace = upload.replace or (is_rewritten and upload.verification is Verification.VERIFIED)
    with BulkWriter(store, instrument, upload.stream, replace=replace) as writer:
        if path is not None:
            if overlaps and not replace:
                with closing(spools.blocks(path, upload.stream)) as blocks:
                    _rehearse(writer, blocks, upload.source)
            with closing(spools.blocks(path, upload.stream)) as blocks:
                _write(writer, blocks, upload.source)
        written = writer.finish()
    source = ledger.Source(
        name=upload.source,
        sha256=upload.sha256,
        verification=upload.verification,
        rows=upload.rows,
        added=written.added,
        repeated=written.repeated,
        replaced=written.replaced,
        first_ns=upload.first_ns,
        last_ns=upload.last_ns,
        stored_at_ns=store.now_ns(),
        notes=notes,
    )
    filled = _filled(store, instrument, upload)
    open_holes = store.env.write(lambda transaction: _record(transaction, instrument, upload, source, filled))
    return TickReport(
        instrument=instrument.key,
        stream=upload.stream,
        source=upload.source,
        rows=upload.rows,
        added=written.added,
        repeated=written.repeated,
        replaced=written.replaced,
        first_ns=upload.first_ns,
        last_ns=upload.last_ns,
        open_holes=open_holes,
        notes=notes,
    )


def _write(writer: BulkWriter, blocks: Iterable[Ticks], source: str) -> None:
    """Write what was rehearsed; only rows of the source itself, far apart in it, can still contradict each other."""
    for rows in blocks:
        try:
            writer.add(rows)
        except Conflict as error:
            raise Conflict(
                error.code,
                f"{source}: the same id has different values far apart in the file, or came live meanwhile; rows "
                "before it are stored: import it with --replace, which takes the last of them, or delete them",
                {"file": source} | (error.details or {}),
            ) from None


def _rehearse(writer: BulkWriter, blocks: Iterable[Ticks], source: str) -> None:
    for rows in blocks:
        try:
            writer.rehearse(rows)
        except Conflict as error:
            raise Conflict(error.code, f"{source}: {error.message}", {"file": source} | (error.details or {})) from None


def _filled(store: TickStore, instrument: Instrument, upload: TickUpload) -> list[Hole]:
    """Find the holes of missing files that a source fills: it covers their stretch, and brings rows of it."""
    if not upload.rows or upload.span is None:
        return []
    first_ns, stop_ns = upload.span
    with store.env.read() as transaction:
        prefix = prefix_of(transaction, instrument, upload.stream)
        known = [] if prefix is None else list(ledger.open_holes(transaction, prefix))
    holes = [each.hole for each in known if each.hole.reason in _CLOSED_BY_FILES]
    return [
        hole
        for hole in holes
        if first_ns <= hole.start_ns
        and hole.stop_ns <= stop_ns
        and next(store.blocks(instrument, upload.stream, ("time_ns",), hole.start_ns, hole.stop_ns), None)
    ]


def _record(
    transaction: Transaction, instrument: Instrument, upload: TickUpload, source: ledger.Source, filled: list[Hole]
) -> int:
    """Write the source and its holes into the ledger; returns how many holes of the series are open."""
    number = instruments.register(transaction, instrument)
    prefix = keys.series(number, KEY_STREAMS[upload.stream], 0)
    if upload.rows:
        ledger.put_source(transaction, prefix, source)
    for hole in upload.holes:
        if hole.after_id != NO_ID and upload.stream in ledger.CONTIGUOUS:
            continue  # found from the rows themselves, and closed by them
        ledger.put_hole(transaction, prefix, hole, source.stored_at_ns)
    for hole in filled:
        ledger.close_hole(transaction, prefix, hole, source.stored_at_ns)
    return sum(1 for _ in ledger.open_holes(transaction, prefix))
