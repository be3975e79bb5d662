"""Files into the store, one after another: the next is read while the one before is stored.

What is wrong with one file does not stop the others: it is kept out, said, and written into the ledger.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from adapters import registry
from daemon.core.errors import AtlasError, Code, Conflict, InvalidRequest, NotFound, SourceDataInvalid
from daemon.core.market import Bars, BarTable, Instrument, TsNs, VolumeUnit
from daemon.core.ports import Hole, HoleReason
from daemon.core.ticks import Stream
from daemon.ingest import ticks as ingest
from daemon.ingest.bars import Origin
from daemon.ingest.ticks import TickReport, TickUpload
from daemon.ingest.uploads import upload_path
from daemon.research.plans import parse_timeframe
from daemon.store.instruments import parse_instrument, resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from adapters.binance.archive import ArchiveFile
    from daemon.app.writing import Writer
    from daemon.core.ports import TickFile
    from daemon.ingest.bars import ImportReport
    from daemon.ingest.funding import FundingReport
    from daemon.store.env import Environment

_SUFFIXES: Final = (".zip", ".csv", ".gz", ".parquet", ".pq")
_MAGIC: Final = frozenset("*?[")


class Unchanged(NamedTuple):
    """A file whose very bytes were taken in before. stream: where it holds several that were asked for."""

    name: str
    stream: Stream | None = None


class KeptOut(NamedTuple):
    """A file that is not stored, and why."""

    name: str
    error: AtlasError


Outcome: TypeAlias = TickReport | Unchanged | KeptOut


class Wanted(NamedTuple):
    """What to import. symbol, venue: None to take what the files say. source: None to tell by the names.

    only: the stream alone. Without it the depth of a recording brings the trades that were recorded with it: orders
    that queue in a book are filled by them.
    """

    stream: Stream
    symbol: str | None
    venue: str | None
    source: str | None
    replace: bool
    only: bool = False

    def parts(self) -> list[Wanted]:
        """Return what is read of each file, the stream that was asked for first."""
        if self.stream is Stream.DEPTH and self.source == registry.BINANCE_STREAM and not self.only:
            return [self, self._replace(stream=Stream.TRADES)]
        return [self]


def files_of(arguments: Sequence[Path]) -> list[Path]:
    """Expand folders and patterns to files, in order; NotFound SOURCE_NOT_FOUND where nothing matches."""
    found: list[Path] = []
    for argument in arguments:
        if argument.is_dir():
            inside = sorted(path for path in argument.rglob("*") if path.name.lower().endswith(_SUFFIXES))
        elif _MAGIC & set(str(argument)) and not argument.exists():
            inside = sorted(_matching(argument))
        else:
            inside = [argument]
        if not inside:
            raise NotFound(Code.SOURCE_NOT_FOUND, f"{argument}: no files to import there", {"file": str(argument)})
        found += inside
    return list(dict.fromkeys(found))


def _matching(pattern: Path) -> Iterator[Path]:
    """Find what a pattern means, in whichever of its parts the wildcards are."""
    plain = next(place for place, part in enumerate(pattern.parts) if _MAGIC & set(part))
    return Path(*pattern.parts[:plain]).glob(str(Path(*pattern.parts[plain:])))


def import_files(
    writer: Writer, paths: Sequence[Path], wanted: Wanted, progress: Callable[[Path, int], None]
) -> Iterator[Outcome]:
    """Import files of ticks one after another; what comes with a stream is an outcome of its own.

    progress: told the file and how many more rows of it were read. Errors of a file are outcomes; those of the store,
    or of how the command was written, are raised.
    """
    refused: set[Path] = set()

    def read(path: Path, part: Wanted) -> TickUpload | Unchanged | _Refused | None:
        try:
            if part.stream is wanted.stream:
                found = _read(writer, path, part, progress)
                if isinstance(found, _Refused):
                    refused.add(path)
                return found
            return None if path in refused else _beside(_read(writer, path, part, progress))
        except InvalidRequest as error:
            refused.add(path)
            if len(paths) == 1:
                raise
            # A file of another kind among many does not stop the others.
            return _Refused(KeptOut(path.name, error), None)

    with ThreadPoolExecutor(1, "read") as reading:
        waiting = following = None
        try:
            for each in [*((path, part) for path in paths for part in wanted.parts()), None]:
                following = None if each is None else reading.submit(read, *each)
                if waiting is not None and (found := waiting.result()) is not None:
                    yield _stored(writer, found)
                waiting = following
        finally:
            if following is not None:
                _forget(writer, following)


def _beside(read: TickUpload | Unchanged | _Refused) -> TickUpload | Unchanged | _Refused | None:
    """Return what was read beside the stream that was asked for; None where the file has nothing of it."""
    if isinstance(read, _Refused) and read.kept_out.error.code is Code.SOURCE_EMPTY:
        return None
    return read._replace(stream=Stream.TRADES) if isinstance(read, Unchanged) else read


class _Refused(NamedTuple):
    """A file whose rows were refused, and the hole that it leaves, if it says of what."""

    kept_out: KeptOut
    hole: TickUpload | None


class BarsWanted(NamedTuple):
    """Bars to import. symbol, timeframe, venue: None to take what archives say. source: None to tell by the names.

    volume_unit: what volumes count; None for what is stored, else base units.
    """

    symbol: str | None
    timeframe: str | None
    venue: str | None
    source: str | None
    replace: bool
    volume_unit: VolumeUnit | None = None

    def check(self, paths: Sequence[Path]) -> None:
        """Refuse files that do not say what they hold, and units that they do not count in; InvalidRequest."""
        if self.volume_unit == "quote" and any(self.is_archive(path) for path in paths):
            why = "volumes of archives of klines are stored in base units: leave --volume-unit out"
            raise InvalidRequest(Code.INVALID_REQUEST, why, {"field": "volume_unit"})
        if all(self.is_archive(path) for path in paths):
            return
        if self.symbol is None or self.timeframe is None:
            why = "give --symbol and --timeframe: only archives say what they hold"
            raise InvalidRequest(Code.INVALID_REQUEST, why, {"field": "symbol"})
        parse_timeframe(self.timeframe)
        parse_instrument(self.symbol, self.venue or "local")

    def is_archive(self, path: Path) -> bool:
        """Tell whether a file is one of Binance's archive."""
        return (self.source or registry.source_of(path)) == registry.BINANCE_ARCHIVE


def import_bar_files(writer: Writer, paths: Sequence[Path], wanted: BarsWanted) -> Iterator[ImportReport | KeptOut]:
    """Import files of bars one after another; of a single file the error is raised."""
    from adapters.barfile import read_bars

    for path in paths:
        if wanted.is_archive(path):
            is_alone = len(paths) == 1
            choice = wanted.symbol, wanted.venue
            yield from import_klines(writer, [path], *choice, replace=wanted.replace, is_alone=is_alone)
            continue
        instrument = _named(wanted.symbol or "", wanted.venue or "local")
        timeframe = parse_timeframe(wanted.timeframe or "")
        try:
            yield writer.import_bars(
                read_bars(path),
                instrument,
                timeframe,
                path.name,
                replace=wanted.replace,
                volume_unit=wanted.volume_unit,
            )
        except (SourceDataInvalid, NotFound, Conflict) as error:
            yield KeptOut(path.name, error)


def import_klines(
    writer: Writer,
    paths: Sequence[Path],
    symbol: str | None,
    venue: str | None,
    *,
    replace: bool = False,
    is_alone: bool = True,
) -> Iterator[ImportReport | KeptOut]:
    """Import archive files of bars one after another; the bars of a file are in, or none of them.

    is_alone: whether what is wrong with how one was asked for is the whole command's error.
    """
    for path in paths:
        try:
            file = registry.open_archive(path)
            if file.timeframe is None:
                why = f"{path.name} holds {file.kind}: use `atlasd import trades`"
                raise InvalidRequest(Code.INVALID_REQUEST, why, {"file": path.name})
            parts = list(file.bars())
            instrument = _instrument(file, Wanted(Stream.BARS, symbol, venue, registry.BINANCE_ARCHIVE, replace), path)
            bars = Bars._make(np.concatenate(columns) for columns in zip(*(part.bars for part in parts), strict=True))
            table = BarTable(bars, np.concatenate([part.lines for part in parts]), tuple(file.notes))
            origin = Origin(file.sha256, file.verification, file.holes)
            # Whatever a market's klines count first, what is read of them is in base units.
            yield writer.import_bars(
                table, instrument, file.timeframe, file.name, replace=replace, origin=origin, volume_unit="base"
            )
        except (SourceDataInvalid, NotFound, Conflict) as error:
            yield KeptOut(path.name, error)
        except InvalidRequest as error:
            if is_alone:
                raise
            yield KeptOut(path.name, error)


def import_funding_files(
    writer: Writer, paths: Sequence[Path], symbol: str, venue: str | None, *, replace: bool
) -> Iterator[FundingReport | KeptOut]:
    """Import files of one perpetual's funding rates one after another."""
    from adapters.barfile.funding import read_funding

    instrument = perpetual(writer.ticks.env, symbol, venue)
    for path in paths:
        try:
            yield writer.import_funding(read_funding(path), instrument, path.name, replace=replace)
        except (SourceDataInvalid, NotFound, Conflict) as error:
            yield KeptOut(path.name, error)


def perpetual(env: Environment, symbol: str, venue: str | None) -> Instrument:
    """Name whose funding is meant: without a venue the stored instrument of that symbol, else `local` as for bars.

    InvalidRequest INVALID_SYMBOL, or AMBIGUOUS_SYMBOL where several venues have it.
    """
    if venue is None:
        try:
            return resolve(env, symbol)
        except NotFound:
            venue = "local"
    return _named(symbol, venue)


def _read(
    writer: Writer, path: Path, wanted: Wanted, progress: Callable[[Path, int], None]
) -> TickUpload | Unchanged | _Refused:
    try:
        file = registry.open_tick_file(
            wanted.source or registry.source_of(path), path, wanted.stream, _symbol_in(wanted)
        )
        instrument = _instrument(file, wanted, path)
        stream: Stream = getattr(file, "stream", wanted.stream)
        if not wanted.replace and ingest.is_stored(writer.ticks, instrument, stream, file.name, file.sha256):
            return Unchanged(file.name)
    except (SourceDataInvalid, NotFound) as error:
        return _Refused(KeptOut(path.name, error), None)
    try:
        return ingest.spool(
            writer.spool_folder,
            instrument,
            file,
            lambda rows: progress(path, rows),
            span=_span(file),
            replace=wanted.replace,
            stream=stream,
        )
    except SourceDataInvalid as error:
        return _Refused(KeptOut(path.name, error), _hole_of(instrument, stream, file))


def _forget(writer: Writer, following: Future[TickUpload | Unchanged | _Refused | None]) -> None:
    """Remove what was read ahead, where the import ends before it is stored."""
    if following.cancel() or following.exception() is not None:
        return
    read = following.result()
    if isinstance(read, TickUpload):
        upload_path(writer.spool_folder, read.upload).unlink(missing_ok=True)


def _stored(writer: Writer, read: TickUpload | Unchanged | _Refused) -> Outcome:
    if isinstance(read, Unchanged):
        return read
    if isinstance(read, _Refused):
        if read.hole is not None:
            writer.import_ticks(read.hole)
        return read.kept_out
    try:
        return writer.import_ticks(read)
    except (Conflict, SourceDataInvalid) as error:
        return KeptOut(read.source, error)


def _hole_of(instrument: Instrument, stream: Stream, file: TickFile) -> TickUpload | None:
    """Describe the stretch that a file should have filled."""
    span = _span(file)
    if span is None:
        return None
    holes = [Hole(*span, HoleReason.QUARANTINED)]
    return TickUpload(venue=instrument.venue, symbol=instrument.symbol, stream=stream, source=file.name, holes=holes)


def _span(file: TickFile) -> tuple[TsNs, TsNs] | None:
    start, stop = getattr(file, "start_ns", None), getattr(file, "stop_ns", None)
    return None if start is None or stop is None else (start, stop)


def _symbol_in(wanted: Wanted) -> str | None:
    """Return the symbol to read of a recording that may hold several; None where it is called otherwise here."""
    if wanted.symbol is None or wanted.venue not in (None, registry.BINANCE):
        return None
    return _named(wanted.symbol, registry.BINANCE).symbol


def _named(symbol: str, venue: str) -> Instrument:
    """Name an instrument as everything that comes from its venue is: BTC/USDT of Binance is BTCUSDT."""
    instrument = parse_instrument(symbol, venue)
    if instrument.venue != registry.BINANCE:
        return instrument
    return Instrument(instrument.venue, registry.our_symbol(instrument.venue, instrument.symbol))


def _instrument(file: TickFile | ArchiveFile, wanted: Wanted, path: Path) -> Instrument:
    """Name the instrument; an archive file must hold the one that was asked for."""
    source = wanted.source or registry.source_of(path)
    venue = wanted.venue or registry.venue_of(source)
    told = _told(file) if source == registry.BINANCE_ARCHIVE else None
    if wanted.symbol is None:
        if told is None:
            name = getattr(file, "symbol", None)
            choice = f"--symbol {name}, or --symbol {name}-PERP for futures" if name else "--symbol"
            why = (
                f"{path.name} does not say whether it is of spot or futures" if name else f"{path.name} names no symbol"
            )
            raise InvalidRequest(Code.INVALID_SYMBOL, f"{why}: give {choice}", {"file": path.name})
        return parse_instrument(told, venue)
    instrument = _named(wanted.symbol, venue)
    if source == registry.BINANCE_STREAM and instrument.venue == registry.BINANCE:
        market = registry.market_of_capture(path, instrument.symbol)
        if market is not None:
            why = f"{path.name} is of {market}, {instrument.symbol} is not"
            hint = "-PERP is for perpetual futures; --venue names a venue of your own"
            raise InvalidRequest(Code.INVALID_SYMBOL, f"{why}: {hint}", {"file": path.name})
    if told is not None and instrument.venue == registry.BINANCE and instrument.symbol != told:
        raise InvalidRequest(
            Code.INVALID_SYMBOL,
            f"{path.name} holds {told}, not {instrument.symbol}: import it with --symbol {told} "
            "(-PERP is for perpetual futures), or under a venue of your own (--venue)",
            {"file": path.name, "symbol": told},
        )
    return instrument


def _told(file: TickFile | ArchiveFile) -> str | None:
    from adapters.binance.symbols import our_symbol

    market, symbol = getattr(file, "market", None), getattr(file, "symbol", None)
    return None if market is None or symbol is None else our_symbol(market, symbol)
