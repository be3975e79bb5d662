"""The adapters there are, by the names users give. Each is imported when it is asked for: some start slowly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from daemon.core.errors import Code, InvalidRequest
from daemon.core.ticks import Stream

if TYPE_CHECKING:
    from pathlib import Path

    from adapters.binance.archive import ArchiveFile
    from daemon.core.ports import TickFile

BINANCE_ARCHIVE: Final = "binance-archive"
BINANCE_STREAM: Final = "binance-stream"
FILE_SOURCES: Final = (BINANCE_ARCHIVE, BINANCE_STREAM, "csv", "parquet")
VENUES: Final = ("binance", "coinbase")


def open_tick_file(source: str, path: Path, stream: Stream) -> TickFile:
    """Open a file of ticks that comes from a source of FILE_SOURCES.

    SourceDataInvalid or NotFound where it is none; InvalidRequest where it holds another stream.
    """
    if source == BINANCE_ARCHIVE:
        file = open_archive(path)
        if file.stream not in _meant_by(stream):
            command = "bars" if file.stream is Stream.BARS else "trades"
            why = f"{path.name} holds {file.kind}: use `atlasd import {command}`"
            raise InvalidRequest(Code.INVALID_REQUEST, why, {"file": path.name})
        return file
    if source == BINANCE_STREAM:
        from adapters.binance.capture import open_capture

        return open_capture(path, stream)
    from adapters.tickfile import open_ticks

    return open_ticks(path, stream)


def open_archive(path: Path) -> ArchiveFile:
    """Open an archive file of Binance: trades, aggTrades or klines."""
    from adapters.binance.archive import open_archive as open_file

    return open_file(path)


def venue_of(source: str) -> str:
    """Return the venue that files of a source come from; `local` for those that do not say."""
    return "binance" if source.startswith("binance") else "local"


def source_of(path: Path) -> str:
    """Guess a file's source by its name."""
    name = path.name.lower()
    if name.endswith(".zip"):
        return BINANCE_ARCHIVE
    return "parquet" if name.endswith((".parquet", ".pq")) else "csv"


def _meant_by(stream: Stream) -> tuple[Stream, ...]:
    """Trades that the venue has joined are trades to who imports them; they are a stream of their own in the store."""
    return (Stream.TRADES, Stream.AGG_TRADES) if stream is Stream.TRADES else (stream,)
