"""`atlasd fetch`: a venue's history into the store, from its archive where it has one, by requests for the rest.

Every part is a source of its own in the ledger: an archive file, or a day of requests. What is stored is not fetched
again, so a fetch that was stopped goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from adapters import registry
from daemon.app.importing import KeptOut, Outcome, Unchanged, Wanted, import_files, import_klines
from daemon.core.errors import Code, Conflict, InvalidRequest, SourceDataInvalid
from daemon.core.market import NS_PER_DAY, Bars, BarTable, Instrument, Timeframe, TsNs
from daemon.core.ports import Hole, HoleReason
from daemon.core.ticks import Stream
from daemon.ingest.spools import Spool
from daemon.ingest.ticks import TickUpload, upload_of
from daemon.research.plans import date_range, parse_timeframe
from daemon.store import instruments, keys, ledger
from daemon.store.instruments import parse_instrument
from daemon.store.tick_chunks import KEY_STREAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from adapters.binance.download import ArchiveFile, Fetched, Quarantined
    from adapters.binance.download import Outcome as Downloaded
    from adapters.registry import VenueSettings
    from daemon.app.writing import Writer
    from daemon.ingest.bars import ImportReport

_EPOCH: Final = date(1970, 1, 1)
DOWNLOADS: Final = "downloads"
_KEY_STREAMS: Final = KEY_STREAMS | {Stream.BARS: keys.Stream.BARS}


class Fetch(NamedTuple):
    """What to fetch: whole days [start, stop), of bars their timeframe.

    keep: leave downloaded files where they are. recheck: fetch stored files again that the venue has published anew.
    """

    venue: str
    symbol: str
    stream: Stream
    timeframe: Timeframe | None
    start: date
    stop: date
    keep: bool
    recheck: bool


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
        asked = parse_instrument(wanted.symbol, wanted.venue)
        instrument = Instrument(wanted.venue, registry.our_symbol(wanted.venue, asked.symbol))
        stop = min(wanted.stop, _today() + timedelta(days=1))
        days = [wanted.start + timedelta(days=number) for number in range((stop - wanted.start).days)]
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
        from adapters.binance.download import Fetched, Missing

        lacking = []
        for file in list(self._files(instrument, wanted)):
            if self._is_stored(instrument, wanted, file):
                covered |= _days(file)
                yield Unchanged(file.name)
            else:
                lacking.append(file)
        for outcome in self._downloads(lacking, wanted.venue):
            if isinstance(outcome, Missing):
                continue  # requests are tried for it
            covered |= _days(outcome.file)
            if isinstance(outcome, Fetched):
                yield from self._import(outcome, instrument, wanted)
            else:
                yield self._quarantined(outcome, instrument, wanted.stream)

    def _downloads(self, files: list[ArchiveFile], venue: str) -> Iterator[Downloaded]:
        """Bring files, some at a time, in their order; the next ones come while those before are imported."""
        at_once = self._settings.binance.archive_parallel
        coming: deque[Future[list[Downloaded]]] = deque()
        with ThreadPoolExecutor(at_once, "download") as downloading:
            try:
                for file in files:
                    coming.append(downloading.submit(self._downloaded, file, venue))
                    if len(coming) > at_once:
                        yield from coming.popleft().result()
                while coming:
                    yield from coming.popleft().result()
            finally:
                for each in coming:
                    each.cancel()

    def _files(self, instrument: Instrument, wanted: Fetch) -> Iterator[ArchiveFile]:
        """List the archive's files; months that had to be taken by their days before they were published stay days."""
        from adapters.binance.download import archive_files, days_of

        span = wanted.start, wanted.stop
        files = archive_files(instrument.symbol, wanted.stream, *span, today=_today(), timeframe=wanted.timeframe)
        for file in files:
            days = days_of(file) if file.is_month and self._checksum(instrument, wanted, file) is None else []
            if any(self._checksum(instrument, wanted, day) for day in days):
                yield from days
            else:
                yield file

    def _downloaded(self, file: ArchiveFile, venue: str) -> list[Downloaded]:
        return asyncio.run(self._download(file, venue))

    async def _download(self, file: ArchiveFile, venue: str) -> list[Downloaded]:
        from adapters.binance.download import archive_rest, download

        # Into the archive's own folders: files of spot and futures have the same names.
        folder = (self._folder / venue).joinpath(*file.path.strip("/").split("/")[:-1])
        rest = archive_rest(self._settings.binance)
        try:
            return await download(rest, [file], folder)
        finally:
            await rest.close()

    def _is_stored(self, instrument: Instrument, wanted: Fetch, file: ArchiveFile) -> bool:
        """Tell whether a file is in the store, whole; on request, as the venue publishes it now."""
        stored = self._checksum(instrument, wanted, file)
        return stored is not None and (not wanted.recheck or asyncio.run(self._published(file)) in (None, stored))

    def _checksum(self, instrument: Instrument, wanted: Fetch, file: ArchiveFile) -> str | None:
        """Return the SHA-256 of a file that is stored whole; None where it is not, or rows were deleted since."""
        known = self._source(instrument, wanted.stream, file.name, wanted.timeframe)
        return known.sha256 or None if known is not None else None

    async def _published(self, file: ArchiveFile) -> str | None:
        from adapters.binance.download import archive_rest, published

        rest = archive_rest(self._settings.binance)
        try:
            return await published(rest, file)
        finally:
            await rest.close()

    def _source(
        self, instrument: Instrument, stream: Stream, name: str, timeframe: Timeframe | None = None
    ) -> ledger.Source | None:
        with self._writer.ticks.env.read() as transaction:
            number = instruments.number(transaction, instrument)
            if number is None:
                return None
            width_ns = 0 if timeframe is None else timeframe.ns
            return ledger.source(transaction, keys.series(number, _KEY_STREAMS[stream], width_ns), name)

    def _import(self, fetched: Fetched, instrument: Instrument, wanted: Fetch) -> Iterator[Told | ImportReport]:
        outcomes: Iterator[Told | ImportReport]
        if wanted.stream is Stream.BARS:
            outcomes = import_klines(self._writer, [fetched.path], instrument.symbol, instrument.venue)
        else:
            choice = Wanted(wanted.stream, instrument.symbol, instrument.venue, registry.BINANCE_ARCHIVE, replace=False)
            outcomes = import_files(self._writer, [fetched.path], choice, self._progress)
        is_kept = wanted.keep
        for outcome in outcomes:
            is_kept |= isinstance(outcome, KeptOut)  # the user looks at it; it is not fetched again to find the same
            yield outcome
        if not is_kept:
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
        if days and not self._gives(instrument, stream):
            for day in days:
                yield self._lacking(instrument, stream, day)
            return
        for day in days:
            name = f"{instrument.venue} requests {stream} {instrument.symbol} {day}"
            known = self._source(instrument, stream, name)
            # A day that was asked for before it was over has more by now.
            if known is not None and known.stored_at_ns >= _ns(day) + NS_PER_DAY:
                yield Unchanged(name)
            else:
                yield self._request(instrument, stream, day, name)

    def _request(self, instrument: Instrument, stream: Stream, day: date, name: str) -> Told:
        try:
            upload = asyncio.run(self._spool_day(instrument, stream, day, name))
            return self._writer.import_ticks(upload) if upload.rows else self._lacking(instrument, stream, day)
        except SourceDataInvalid as error:
            hole = Hole(_ns(day), _ns(day) + NS_PER_DAY, HoleReason.QUARANTINED)
            self._note(instrument, stream, name, hole)
            return KeptOut(name, error)
        except Conflict as error:
            return KeptOut(name, error)

    def _lacking(self, instrument: Instrument, stream: Stream, day: date) -> NoFile:
        """Record a day that the venue has nothing for, unless it may still have."""
        if day < _today():
            hole = Hole(_ns(day), _ns(day) + NS_PER_DAY, HoleReason.MISSING_FILE)
            self._note(instrument, stream, f"{instrument.venue} {day}", hole)
        return NoFile(day)

    def _gives(self, instrument: Instrument, stream: Stream) -> bool:
        """Tell whether a venue gives a stream on request; InvalidRequest where it does not, and has no archive."""
        source = registry.history_of(instrument.venue, instrument.symbol, self._settings)
        if stream in source.streams:
            return True
        if instrument.venue != registry.BINANCE:
            have = ", ".join(source.streams)
            why = f"{instrument.venue} gives no {stream} of {instrument.symbol} on request (it gives {have})"
            raise InvalidRequest(Code.INVALID_REQUEST, f"{why}; `atlasd record` records them live")
        with self._writer.ticks.env.read() as transaction:
            is_known = instruments.number(transaction, instrument) is not None
        if not is_known:

            async def ask() -> None:
                try:
                    await source.instrument(instrument.symbol)
                finally:
                    await source.close()

            asyncio.run(ask())  # a symbol that does not exist has no archive either
        return False

    async def _spool_day(self, instrument: Instrument, stream: Stream, day: date, name: str) -> TickUpload:
        source = registry.history_of(instrument.venue, instrument.symbol, self._settings)
        try:
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

    def _bars(self, instrument: Instrument, timeframe: Timeframe, days: list[date]) -> Iterator[ImportReport | KeptOut]:
        """Ask for the bars of days that follow one another in one go."""
        for first, last in _stretches(days):
            name = f"{instrument.venue} requests {timeframe} {instrument.symbol} {first} to {last}"
            try:
                bars = asyncio.run(self._bars_between(instrument, timeframe, first, last))
                if not bars.size:
                    continue
                table = BarTable(bars, np.arange(1, bars.size + 1), ())
                outcome = self._writer.import_bars(table, instrument, timeframe, name, replace=True, volume_unit="base")
            except (SourceDataInvalid, Conflict) as error:
                yield KeptOut(name, error)
            else:
                yield outcome

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


def _today() -> date:
    return datetime.now(UTC).date()


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
    last = end or _today().isoformat()
    start_ns, stop_ns = date_range(start, last)
    if start_ns is None or stop_ns is None:
        raise InvalidRequest(Code.INVALID_DATE_RANGE, "a fetch needs its first day")
    return tuple(_EPOCH + timedelta(days=each // NS_PER_DAY) for each in (start_ns, stop_ns))  # type: ignore[return-value]
