"""`atlasd fetch`: a venue's history into the store, from its archive where it has one, by requests for the rest.

Every part is a source of its own in the ledger: an archive file, or a day of requests. What is stored is not fetched
again, so a fetch that was stopped goes on where it was.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from adapters import registry
from daemon.app.importing import KeptOut, Outcome, Unchanged, Wanted, import_files, import_klines
from daemon.core.errors import Code, InvalidRequest, SourceDataInvalid
from daemon.core.market import NS_PER_DAY, Bars, BarTable, Instrument, Timeframe, TsNs
from daemon.core.ports import Hole, HoleReason
from daemon.core.ticks import Stream
from daemon.ingest.spools import Spool
from daemon.ingest.ticks import TickUpload, upload_of
from daemon.research.plans import date_range, parse_timeframe
from daemon.store import ledger
from daemon.store.tick_series import prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from adapters.binance.download import ArchiveFile, Fetched, Missing, Quarantined
    from adapters.registry import VenueSettings
    from daemon.app.wiring import Writer
    from daemon.ingest.bars import ImportReport

_EPOCH: Final = date(1970, 1, 1)
DOWNLOADS: Final = "downloads"


class Fetch(NamedTuple):
    """What to fetch: whole days [start, stop), of bars their timeframe. keep: leave downloaded files where they are."""

    venue: str
    symbol: str
    stream: Stream
    timeframe: Timeframe | None
    start: date
    stop: date
    keep: bool


class NoFile(NamedTuple):
    """A day that the venue's archive lacks; requests are tried for it."""

    day: date


Told = Outcome | NoFile


class Fetcher:
    """Works off one fetch. progress: told the path and how many more rows of it were read."""

    def __init__(
        self, writer: Writer, folder: Path, settings: VenueSettings, progress: Callable[[Path, int], None]
    ) -> None:
        self._writer = writer
        self._folder = folder / DOWNLOADS
        self._settings = settings
        self._progress = progress

    def run(self, wanted: Fetch) -> Iterator[Told | ImportReport]:
        """Fetch, part by part; yields what became of each.

        Raises RateLimited and SourceUnavailable where the venue stops answering; what was stored stays.
        """
        if wanted.venue not in registry.VENUES:
            known = ", ".join(registry.VENUES)
            raise InvalidRequest(Code.INVALID_REQUEST, f"venue `{wanted.venue}` is not one of {known}")
        instrument = Instrument(wanted.venue, registry.our_symbol(wanted.venue, wanted.symbol))
        days = [wanted.start + timedelta(days=number) for number in range((wanted.stop - wanted.start).days)]
        if wanted.venue == registry.BINANCE:
            covered: set[date] = set()
            yield from self._archive(instrument, wanted, covered)
            days = [day for day in days if day not in covered]
        if wanted.stream is Stream.BARS and wanted.timeframe is not None:
            yield from self._bars(instrument, wanted.timeframe, days)
        else:
            yield from self._requests(instrument, wanted.stream, days)

    # The archive.

    def _archive(self, instrument: Instrument, wanted: Fetch, covered: set[date]) -> Iterator[Told | ImportReport]:
        """Bring and import archive files; adds the days they hold to `covered`."""
        from adapters.binance.download import Fetched, Missing, archive_files

        today = datetime.now(UTC).date()
        files = archive_files(
            instrument.symbol, wanted.stream, wanted.start, wanted.stop, today=today, timeframe=wanted.timeframe
        )
        folder = self._folder / wanted.venue
        for file in files:
            if self._is_stored(instrument, wanted, file):
                covered |= _days(file)
                yield Unchanged(file.name)
                continue
            for outcome in asyncio.run(self._download(file, folder)):
                if isinstance(outcome, Missing):
                    yield NoFile(outcome.file.first_day)
                elif isinstance(outcome, Fetched):
                    covered |= _days(outcome.file)
                    yield from self._import(outcome, instrument, wanted)
                else:
                    covered |= _days(outcome.file)
                    yield self._quarantined(outcome, instrument, wanted.stream)

    async def _download(self, file: ArchiveFile, folder: Path) -> list[Fetched | Missing | Quarantined]:
        from adapters.binance.download import archive_rest, download

        rest = archive_rest(self._settings.binance)
        try:
            return await download(rest, [file], folder, parallel=self._settings.binance.archive_parallel)
        finally:
            await rest.close()

    def _is_stored(self, instrument: Instrument, wanted: Fetch, file: ArchiveFile) -> bool:
        """Tell whether a file is in the store; files of the last days may still be published anew."""
        if wanted.stream is Stream.BARS:
            return False
        with self._writer.ticks.env.read() as transaction:
            prefix = prefix_of(transaction, instrument, wanted.stream)
            return prefix is not None and ledger.source(transaction, prefix, file.name) is not None

    def _import(self, fetched: Fetched, instrument: Instrument, wanted: Fetch) -> Iterator[Told | ImportReport]:
        if wanted.stream is Stream.BARS:
            yield from import_klines(self._writer, [fetched.path], instrument.symbol, instrument.venue)
        else:
            choice = Wanted(wanted.stream, instrument.symbol, instrument.venue, registry.BINANCE_ARCHIVE, replace=False)
            yield from import_files(self._writer, [fetched.path], choice, self._progress)
        if not wanted.keep:
            fetched.path.unlink(missing_ok=True)
            fetched.path.with_name(f"{fetched.path.name}.CHECKSUM").unlink(missing_ok=True)

    def _quarantined(self, outcome: Quarantined, instrument: Instrument, stream: Stream) -> KeptOut:
        hole = Hole(_ns(outcome.file.first_day), _ns(outcome.file.last_day) + NS_PER_DAY, HoleReason.QUARANTINED)
        self._note(instrument, stream, outcome.file.name, hole)
        return KeptOut(
            outcome.file.name,
            SourceDataInvalid(
                outcome.code,
                f"{outcome.file.name}: SHA-256 is {outcome.sha256}, the venue says {outcome.expected_sha256}; "
                f"kept out, it lies in {outcome.path}",
            ),
        )

    # Requests.

    def _requests(self, instrument: Instrument, stream: Stream, days: list[date]) -> Iterator[Told]:
        today = datetime.now(UTC).date()
        for day in days:
            name = f"{instrument.venue} requests {stream} {instrument.symbol} {day}"
            with self._writer.ticks.env.read() as transaction:
                prefix = prefix_of(transaction, instrument, stream)
                is_known = prefix is not None and ledger.source(transaction, prefix, name) is not None
            if is_known and day < today:
                yield Unchanged(name)
                continue
            upload = asyncio.run(self._spool_day(instrument, stream, day, name))
            if upload.rows:
                yield self._writer.import_ticks(upload)
            else:
                self._note(instrument, stream, name, Hole(_ns(day), _ns(day) + NS_PER_DAY, HoleReason.MISSING_FILE))
                yield NoFile(day)

    async def _spool_day(self, instrument: Instrument, stream: Stream, day: date, name: str) -> TickUpload:
        source = registry.history_of(instrument.venue, instrument.symbol, self._settings)
        try:
            if stream not in source.streams:
                have = ", ".join(source.streams)
                raise InvalidRequest(
                    Code.INVALID_REQUEST,
                    f"{instrument.venue} gives no {stream} of {instrument.symbol} on request (it gives {have}); "
                    "`atlasd record` records them live",
                )
            with Spool(self._writer.spool_folder) as spool:
                pages = source.ticks(instrument.symbol, stream, _ns(day), _ns(day) + NS_PER_DAY)
                async for rows in pages:
                    spool.add(rows)
                    self._progress(self._folder / name, rows.size)
        finally:
            await source.close()
        return upload_of(
            spool,
            TickUpload(
                venue=instrument.venue,
                symbol=instrument.symbol,
                stream=stream,
                source=name,
                span=(_ns(day), _ns(day) + NS_PER_DAY),
            ),
        )

    def _bars(self, instrument: Instrument, timeframe: Timeframe, days: list[date]) -> Iterator[ImportReport]:
        """Ask for the bars of days that follow one another in one go."""
        for first, last in _stretches(days):
            bars = asyncio.run(self._bars_between(instrument, timeframe, first, last))
            if bars.size:
                table = BarTable(bars, np.arange(1, bars.size + 1), ())
                name = f"{instrument.venue} requests {timeframe} {instrument.symbol} {first} to {last}"
                yield self._writer.import_bars(table, instrument, timeframe, name, replace=True)

    async def _bars_between(self, instrument: Instrument, timeframe: Timeframe, first: date, last: date) -> Bars:
        source = registry.history_of(instrument.venue, instrument.symbol, self._settings)
        try:
            pages = source.bars(instrument.symbol, timeframe, _ns(first), _ns(last) + NS_PER_DAY)
            parts = [page async for page in pages]
        finally:
            await source.close()
        if not parts:
            return Bars(np.empty(0, dtype=np.int64), *(np.empty(0) for _ in Bars._fields[1:]))
        return Bars._make(np.concatenate(columns) for columns in zip(*parts, strict=True))

    def _note(self, instrument: Instrument, stream: Stream, name: str, hole: Hole) -> None:
        if stream is not Stream.BARS:
            self._writer.import_ticks(
                TickUpload(venue=instrument.venue, symbol=instrument.symbol, stream=stream, source=name, holes=[hole])
            )


def _days(file: ArchiveFile) -> set[date]:
    return {file.first_day + timedelta(days=number) for number in range((file.last_day - file.first_day).days + 1)}


def _stretches(days: list[date]) -> list[tuple[date, date]]:
    """Join days that follow one another."""
    found: list[tuple[date, date]] = []
    for day in days:
        if found and found[-1][1] + timedelta(days=1) == day:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def _ns(day: date) -> TsNs:
    return (day - _EPOCH).days * NS_PER_DAY


def wanted_stream(stream: str, timeframe: str | None) -> tuple[Stream, Timeframe | None]:
    """Return a stream and the timeframe of bars by their names; InvalidRequest for what does not exist."""
    if stream not in (Stream.TRADES, Stream.AGG_TRADES, Stream.BARS):
        why = f"stream `{stream}` cannot be fetched: trades, agg_trades and bars can"
        raise InvalidRequest(Code.INVALID_REQUEST, why, {"field": "stream"})
    if (stream == Stream.BARS) != (timeframe is not None):
        why = "--timeframe goes with --stream bars, and bars need one"
        raise InvalidRequest(Code.INVALID_TIMEFRAME, why, {"field": "timeframe"})
    return Stream(stream), None if timeframe is None else parse_timeframe(timeframe)


def days_between(start: str, end: str | None) -> tuple[date, date]:
    """Return the first day and the day after the last; InvalidRequest INVALID_DATE_RANGE."""
    last = end or datetime.now(UTC).date().isoformat()
    start_ns, stop_ns = date_range(start, last)
    if start_ns is None or stop_ns is None:
        raise InvalidRequest(Code.INVALID_DATE_RANGE, "a fetch needs its first day")
    return tuple(_EPOCH + timedelta(days=each // NS_PER_DAY) for each in (start_ns, stop_ns))  # type: ignore[return-value]
