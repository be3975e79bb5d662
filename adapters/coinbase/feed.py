"""Coinbase's live streams: of the Exchange, or of Advanced Trade; neither needs a key.

Two interfaces, because each has what the other lacks: the Exchange gives single trades as they happen, Advanced Trade
counts its messages, so that a lost change of the book is known, and makes candles.

A subscription goes out with the connection: the venue ends one that has not subscribed within five seconds.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import msgspec

from adapters.coinbase import parse
from adapters.coinbase.batches import batches
from adapters.coinbase.collect import Collector
from adapters.coinbase.config import CoinbaseConfig, Interface
from adapters.coinbase.products import product_id
from adapters.shared.backoff import Backoff
from adapters.shared.socket import Down, Frame, Socket, SocketSettings, Up
from daemon.core.errors import Code, InvalidRequest
from daemon.core.market import NS_PER_SECOND
from daemon.core.ticks import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence
    from random import Random

    from daemon.core.market import TsNs
    from daemon.core.ports import FeedEvent

WINDOW_S: Final = 0.05
FRAMES_PER_BATCH: Final = 256

_ADVANCED_CHANNELS: Final = {
    Stream.TRADES: "market_trades",
    Stream.DEPTH: "level2",
    Stream.QUOTES: "ticker",
    Stream.BARS: "candles",
}


class CoinbaseFeed:
    """Implements `daemon.core.ports.LiveFeed`.

    symbols: at least one, such as BTC-USD. streams: TRADES, QUOTES, DEPTH, and of Advanced Trade BARS (5Min).
    backoff, clock, random: of the connection, for tests; clock in nanoseconds since 1970.
    Raises InvalidRequest INVALID_REQUEST for a stream that the interface does not have, NotFound SYMBOL_UNKNOWN for
    what cannot be a product.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        streams: Sequence[Stream] = (Stream.TRADES,),
        config: CoinbaseConfig | None = None,
        *,
        interface: Interface = Interface.EXCHANGE,
        backoff: Backoff = Backoff(),  # noqa: B008 - a tuple of two numbers
        clock: Callable[[], TsNs] = time.time_ns,
        random: Random | None = None,
    ) -> None:
        self._config = config or CoinbaseConfig()
        self._is_exchange = interface is Interface.EXCHANGE
        self._products = list(dict.fromkeys(product_id(symbol) for symbol in symbols))
        self._has_depth = Stream.DEPTH in streams
        self._channels = self._named(list(dict.fromkeys(streams)), interface)
        settings = SocketSettings(
            silence_s=self._config.silence_s,
            connect_timeout_s=self._config.timeout_s,
            sends_per_s=self._config.sends_per_s,
            max_frame_bytes=self._config.max_frame_bytes,
        )
        url = self._config.ws if self._is_exchange else self._config.advanced_ws
        self._socket = Socket(
            url, opening=self._opening(), settings=settings, backoff=backoff, clock=clock, random=random
        )

    async def events(self) -> AsyncGenerator[FeedEvent, None]:
        """Yield what arrives, gathered over 50 ms or 256 messages, until the iteration is closed or cancelled."""
        collector = Collector(
            parse.read_exchange if self._is_exchange else parse.read_advanced,
            self._products,
            frozenset((channel, product) for channel in self._channels for product in self._products),
            has_depth=self._has_depth,
            silence_ns=int(self._config.silence_s * NS_PER_SECOND),
            confirmations=len(self._opening()),
        )
        async with aclosing(batches(self._socket.frames(), window_s=WINDOW_S, most=FRAMES_PER_BATCH)) as found:
            async for batch in found:
                for event in batch:
                    match event:
                        case Frame():
                            collector.add(event)
                        case Up():
                            collector.up(event)
                        case Down():
                            collector.down(event)
                for made in collector.take():
                    yield made
                if collector.wants_renewal:
                    collector.wants_renewal = False
                    self._socket.renew()

    def _named(self, streams: list[Stream], interface: Interface) -> list[str]:
        channels = dict(_ADVANCED_CHANNELS)
        if self._is_exchange:
            channels = {
                Stream.TRADES: "matches",
                Stream.DEPTH: self._config.book_channel,
                Stream.QUOTES: "ticker",
            }
        for stream in streams:
            if stream not in channels:
                known = ", ".join(channels)
                why = f"Coinbase's {interface} interface has no stream of {stream}; choose among {known}"
                raise InvalidRequest(Code.INVALID_REQUEST, why)
        return [channels[stream] for stream in streams]

    def _opening(self) -> list[str]:
        """Word the subscriptions; heartbeats among them, so that a silence means something on a quiet market."""
        if self._is_exchange:
            channels = ["heartbeat", *self._channels]
            return [_json({"type": "subscribe", "product_ids": self._products, "channels": channels})]
        named = [
            _json({"type": "subscribe", "channel": channel, "product_ids": self._products})
            for channel in self._channels
        ]
        return [_json({"type": "subscribe", "channel": "heartbeats"}), *named]


def _json(message: dict[str, Any]) -> str:
    return msgspec.json.encode(message).decode()
