"""The adapters there are, by the names users give. Each is imported when it is asked for: some start slowly."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final, NamedTuple

from adapters.binance.config import BinanceConfig
from adapters.coinbase.config import CoinbaseConfig
from daemon.core.errors import Code, InvalidRequest
from daemon.core.market import Timeframe
from daemon.core.ticks import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence
    from pathlib import Path

    from adapters.binance.archive import ArchiveFile
    from adapters.binance.config import Market
    from daemon.core.ports import FeedEvent, HistorySource, LiveFeed, TickFile

BINANCE: Final = "binance"
BINANCE_ARCHIVE: Final = "binance-archive"
BINANCE_STREAM: Final = "binance-stream"
FILE_SOURCES: Final = (BINANCE_ARCHIVE, BINANCE_STREAM, "csv", "parquet")
VENUES: Final = (BINANCE, "coinbase")


class VenueSettings(NamedTuple):
    """Sections `[binance]` and `[coinbase]` of config.toml: hosts and limits."""

    binance: BinanceConfig
    coinbase: CoinbaseConfig


def open_tick_file(source: str, path: Path, stream: Stream, symbol: str | None = None) -> TickFile:
    """Open a file of ticks that comes from a source of FILE_SOURCES.

    symbol: ours, to read of a recording that holds several; None: the one that it holds.
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
        from adapters.binance.symbols import venue_symbol

        return open_capture(path, stream, None if symbol is None else venue_symbol(symbol)[1])
    from adapters.tickfile import open_ticks

    return open_ticks(path, stream)


def market_of_capture(path: Path, symbol: str) -> str | None:
    """Say of which market a recording is, where that is not the market of one of our symbols; None where it may be."""
    from adapters.binance.capture import is_of_futures
    from adapters.binance.config import Market
    from adapters.binance.symbols import venue_symbol

    found = is_of_futures(path)
    if found is None or found == (venue_symbol(symbol)[0] is not Market.SPOT):
        return None
    return "futures" if found else "spot"


def open_archive(path: Path) -> ArchiveFile:
    """Open an archive file of Binance: trades, aggTrades or klines."""
    from adapters.binance.archive import open_archive as open_file

    return open_file(path)


def venue_of(source: str) -> str:
    """Return the venue that files of a source come from; `local` for those that do not say."""
    return BINANCE if source.startswith(BINANCE) else "local"


def source_of(path: Path) -> str:
    """Guess a file's source by its name."""
    name = path.name.lower()
    if name.endswith(".zip"):
        return BINANCE_ARCHIVE
    return "parquet" if name.endswith((".parquet", ".pq")) else "csv"


def _meant_by(stream: Stream) -> tuple[Stream, ...]:
    """Trades that the venue has joined are trades to who imports them; they are a stream of their own in the store."""
    return (Stream.TRADES, Stream.AGG_TRADES) if stream is Stream.TRADES else (stream,)


def history_of(venue: str, symbol: str, settings: VenueSettings) -> HistorySource:
    """Return a venue's history of a symbol."""
    if venue == BINANCE:
        from adapters.binance.rest import BinanceHistory
        from adapters.binance.symbols import venue_symbol

        return BinanceHistory(venue_symbol(symbol)[0], settings.binance)
    from adapters.coinbase.rest import CoinbaseHistory

    return CoinbaseHistory(settings.coinbase)


def feeds_of(
    venue: str,
    symbols: Sequence[str],
    streams: Sequence[Stream],
    timeframes: Sequence[Timeframe],
    settings: VenueSettings,
) -> list[LiveFeed]:
    """Return a venue's live feeds of symbols: one for each of its markets.

    InvalidRequest for a stream that it does not have; NotFound SYMBOL_UNKNOWN for what cannot be a symbol there.
    """
    if venue == BINANCE:
        return list(_binance_feeds(symbols, streams, timeframes, settings))
    from adapters.coinbase.config import Interface
    from adapters.coinbase.feed import CoinbaseFeed

    if unknown := set(timeframes) - {Timeframe.MIN_5}:
        why = f"coinbase streams no bars of {', '.join(sorted(unknown))}, only of {Timeframe.MIN_5}"
        raise InvalidRequest(Code.INVALID_TIMEFRAME, why)
    interface = Interface.ADVANCED if Stream.BARS in streams else Interface.EXCHANGE
    return [CoinbaseFeed(symbols, streams, settings.coinbase, interface=interface)]


def our_symbol(venue: str, symbol: str) -> str:
    """Return the name under which rows of a venue's symbol are stored; `btcusdt` and `BTC/USDT` are `BTCUSDT`."""
    if venue == BINANCE:
        from adapters.binance import symbols

        return symbols.our_symbol(*symbols.venue_symbol(symbol.strip().upper()))
    from adapters.coinbase.products import product_id

    return product_id(symbol)


class _Borrowing:
    """A live feed that asks for books by way of a history, which is closed with it."""

    def __init__(self, feed: LiveFeed, history: HistorySource) -> None:
        self._feed = feed
        self._history = history

    async def events(self) -> AsyncGenerator[FeedEvent, None]:
        """Yield what arrives, as the feed does."""
        try:
            async with aclosing(self._feed.events()) as events:
                async for event in events:
                    yield event
        finally:
            await self._history.close()


def _binance_feeds(
    symbols: Sequence[str], streams: Sequence[Stream], timeframes: Sequence[Timeframe], settings: VenueSettings
) -> Iterator[LiveFeed]:
    from adapters.binance.feed import BinanceFeed
    from adapters.binance.rest import BinanceHistory
    from adapters.binance.symbols import venue_symbol

    by_market: dict[Market, list[str]] = {}
    for symbol in symbols:
        ours = our_symbol(BINANCE, symbol)
        by_market.setdefault(venue_symbol(ours)[0], []).append(ours)
    for market, members in by_market.items():
        history = BinanceHistory(market, settings.binance)
        feed = BinanceFeed(settings.binance, market, members, streams, history.depth_snapshot, timeframes=timeframes)
        yield _Borrowing(feed, history)
