"""What is asked of Binance's streams: their names, how they are spread over connections, and the messages about them.

USD-margined futures have two entries on one host since 2026: changes of the book, quotes and single trades come from
/public, what the venue aggregates from /market. A stream asked of the wrong one is accepted and never sends anything
(binance-public-data issue 472), so that only a watch over each stream tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from adapters.binance.config import Market
from adapters.binance.intervals import INTERVALS
from adapters.binance.symbols import venue_symbol
from daemon.core.errors import Code, InvalidRequest
from daemon.core.ticks import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapters.binance.config import BinanceConfig
    from daemon.core.market import Timeframe

_SUFFIXES: Final = {Stream.TRADES: ["trade"], Stream.AGG_TRADES: ["aggTrade"], Stream.QUOTES: ["bookTicker"]}
_DEPTHS_OF_FUTURES: Final = {0: "depth@0ms", 100: "depth@100ms", 250: "depth", 500: "depth@500ms"}
_DEPTHS: Final = {
    Market.SPOT: {100: "depth@100ms", 1_000: "depth"},
    Market.UM: _DEPTHS_OF_FUTURES,
    Market.CM: _DEPTHS_OF_FUTURES,
}
_PUBLIC: Final = "/public"
_MARKET: Final = "/market"
_USD_ENTRIES: Final = {
    Stream.TRADES: _PUBLIC,
    Stream.QUOTES: _PUBLIC,
    Stream.DEPTH: _PUBLIC,
    Stream.AGG_TRADES: _MARKET,
    Stream.BARS: _MARKET,
}


class Subscription(NamedTuple):
    """A stream of one symbol: its name at the venue, where it is served, and what it holds, for whom."""

    name: str
    entry: str
    symbol: str
    stream: Stream


class Connection(NamedTuple):
    """A URL, and what it brings."""

    url: str
    subscriptions: tuple[Subscription, ...]


def subscriptions(
    market: Market, symbols: Sequence[str], streams: Sequence[Stream], timeframes: Sequence[Timeframe], depth_ms: int
) -> list[Subscription]:
    """Name the streams of our symbols. depth_ms: between changes of the book, as the market offers them.

    Raises InvalidRequest for a symbol of another market, a depth_ms that it does not offer, or where nothing is asked
    for: no symbols, no streams, bars without timeframes.
    """
    if depth_ms not in _DEPTHS[market]:
        offered = ", ".join(map(str, _DEPTHS[market]))
        why = f"Binance's {market} market has no changes of the book every {depth_ms} ms; choose among {offered}"
        raise InvalidRequest(Code.INVALID_REQUEST, why)
    suffixes = _SUFFIXES | {Stream.DEPTH: [_DEPTHS[market][depth_ms]]}
    suffixes[Stream.BARS] = [f"kline_{INTERVALS[timeframe]}" for timeframe in dict.fromkeys(timeframes)]
    made = []
    for symbol in dict.fromkeys(symbols):
        actual, name = venue_symbol(symbol)
        if actual is not market:
            why = f"{symbol} belongs to Binance's market {actual}, this feed is of {market}; ask for it in another feed"
            raise InvalidRequest(Code.INVALID_SYMBOL, why)
        for stream in dict.fromkeys(streams):
            entry = _USD_ENTRIES[stream] if market is Market.UM else ""
            names = [f"{name.lower()}@{suffix}" for suffix in suffixes[stream]]
            made += [Subscription(each, entry, symbol, stream) for each in names]
    if not made:
        raise InvalidRequest(Code.INVALID_REQUEST, "a feed needs symbols and streams, and bars need timeframes")
    return made


def connections(
    config: BinanceConfig, market: Market, wanted: Sequence[Subscription], most_streams: int
) -> list[Connection]:
    """Spread subscriptions over connections of at most so many streams each."""
    host = {Market.SPOT: config.ws_spot, Market.UM: config.ws_um, Market.CM: config.ws_cm}[market]
    # As in the archive and over REST: spot's times in microseconds, so that rows of all three are the same.
    unit = "&timeUnit=MICROSECOND" if market is Market.SPOT else ""
    made = []
    for entry in dict.fromkeys(each.entry for each in wanted):
        served = [each for each in wanted if each.entry == entry]
        for start in range(0, len(served), most_streams):
            part = tuple(served[start : start + most_streams])
            names = "/".join(each.name for each in part)
            made.append(Connection(f"{host}{entry}/stream?streams={names}{unit}", part))
    return made


def request(method: str, names: Sequence[str], number: int) -> str:
    """Word SUBSCRIBE or UNSUBSCRIBE; the answer carries the number."""
    return msgspec.json.encode({"method": method, "params": list(names), "id": number}).decode()
