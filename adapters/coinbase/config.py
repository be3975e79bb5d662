"""What may be set about Coinbase: hosts, limits, patience. No key: all that is read here is public.

Hosts change and are blocked in places; every one can be overridden. Limits are per address of ours.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Interface(StrEnum):
    """Coinbase's two feeds. The Exchange's is the default: its trades come singly, not gathered over 250 ms."""

    EXCHANGE = "exchange"
    ADVANCED = "advanced"


class CoinbaseConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hosts without a path, limits of the venue, seconds.

    rest, ws: of the Exchange. advanced_ws: of Advanced Trade; its requests give nothing that the Exchange's do not.
    rest_per_s, rest_burst: requests a second, and at once; the venue's limit is 10 and 15.
    patience_s: the longest that one request waits for limits to pass.
    silence_s: of a feed, until it counts as stalled; heartbeats come every second, so this is several missed.
    book_channel: of the Exchange: "level2_batch" (every 50 ms), or "level2", which the venue opens to keys only.
    sends_per_s: messages to a feed; the venue's limit is 8.
    max_frame_bytes: of a message; all of a book is one, and BTC-USD's is larger than the usual 4 MiB (ccxt#23597).
    """

    rest: str = "https://api.exchange.coinbase.com"
    ws: str = "wss://ws-feed.exchange.coinbase.com"
    advanced_ws: str = "wss://advanced-trade-ws.coinbase.com"
    rest_per_s: float = 8.0
    rest_burst: float = 10.0
    timeout_s: float = 10.0
    attempts: int = 6
    patience_s: float = 300.0
    silence_s: float = 15.0
    book_channel: str = "level2_batch"
    sends_per_s: float = 6.0
    max_frame_bytes: int = 64 << 20
