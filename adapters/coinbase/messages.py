"""What Coinbase sends, as types: the Exchange's messages and answers, and those of Advanced Trade.

Only what is used is named: the venue adds fields at will, and those are passed over. Prices and sizes stay text.
Lists that stand for a row are structs too, which let a row grow by a column.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Whole: TypeAlias = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]

# --- The Exchange -----------------------------------------------------------------------------------------------------

MakerSide: TypeAlias = Literal["buy", "sell"]


class Kind(msgspec.Struct):
    """The part of every message that says what the rest is."""

    type: str


class Match(msgspec.Struct):
    """A trade: `match`, and `last_match`, the latest before the subscription. side: the maker's."""

    trade_id: Whole
    product_id: str
    price: str
    size: str
    side: MakerSide
    time: str


class Level(msgspec.Struct, array_like=True):
    """Price and size of a level of the book."""

    price: str
    size: str


class Change(msgspec.Struct, array_like=True):
    """A level of the book as it is now; side: of the book. size: "0" (also with decimals) where it is gone."""

    side: MakerSide
    price: str
    size: str


class Snapshot(msgspec.Struct):
    """All of a book. time: given in some years and not in others."""

    product_id: str
    bids: list[Level]
    asks: list[Level]
    time: str | None = None


class L2Update(msgspec.Struct):
    """Levels that changed. It has no number: whether one was lost cannot be told."""

    product_id: str
    changes: list[Change]
    time: str | None = None


class Ticker(msgspec.Struct):
    """The latest trade with the best bid and ask; sequence: of the product, over all of its events."""

    product_id: str
    sequence: Whole | None = None
    time: str | None = None
    best_bid: str | None = None
    best_bid_size: str | None = None
    best_ask: str | None = None
    best_ask_size: str | None = None


class Heartbeat(msgspec.Struct):
    """A second has passed. Its `last_trade_id` is not read: it is 0 at all times (go-coinbasepro#89)."""

    product_id: str


class Channel(msgspec.Struct):
    """A channel and its products."""

    name: str
    product_ids: list[str] = []


class Subscriptions(msgspec.Struct):
    """All that is subscribed to."""

    channels: list[Channel]


class Complaint(msgspec.Struct):
    """What the venue does not like, as `error`, in either interface."""

    message: str = ""
    reason: str = ""


class ExchangeTrade(msgspec.Struct):
    """A trade of `/products/{id}/trades`. side: the maker's."""

    trade_id: Whole
    price: str
    size: str
    side: MakerSide
    time: str


class ExchangeCandle(msgspec.Struct, array_like=True):
    """A row of `/products/{id}/candles`; time: its start, seconds since 1970."""

    time: Annotated[int, Meta(ge=0, lt=9_000_000_000)]
    low: float
    high: float
    open: float
    close: float
    volume: float


class Product(msgspec.Struct):
    """`/products/{id}`. base_min_size: gone since 2022; orders are bounded by min_market_funds instead."""

    id: str
    status: str
    quote_increment: str
    base_increment: str
    min_market_funds: str | None = None
    base_min_size: str | None = None


# --- Advanced Trade ---------------------------------------------------------------------------------------------------


class Envelope(msgspec.Struct):
    """What every message has; sequence_num: counted over all channels of one connection."""

    channel: str = ""
    type: str = ""
    timestamp: str | None = None
    sequence_num: Whole | None = None
    events: msgspec.Raw = msgspec.Raw(b"[]")


class AdvancedTrade(msgspec.Struct):
    """A trade; side: the maker's here as well. trade_id: a number in quotes."""

    trade_id: Whole
    product_id: str
    price: str
    size: str
    side: Literal["BUY", "SELL"]
    time: str


class MarketTrades(msgspec.Struct):
    """Trades, newest first. type: `snapshot`, the latest ones at the subscription, or `update`."""

    trades: list[AdvancedTrade]


class AdvancedLevel(msgspec.Struct):
    """A level of the book as it is now. side: "offer" by the documentation; "ask" is accepted."""

    side: Literal["bid", "offer", "ask"]
    price_level: str
    new_quantity: str
    event_time: str | None = None


class L2Data(msgspec.Struct):
    """All of a book, or levels that changed."""

    type: Literal["snapshot", "update"]
    product_id: str
    updates: list[AdvancedLevel]


class AdvancedCandle(msgspec.Struct):
    """A candle of five minutes, the running one too; start: seconds since 1970."""

    start: Annotated[int, Meta(ge=0, lt=9_000_000_000)]
    product_id: str
    open: str
    high: str
    low: str
    close: str
    volume: str


class Candles(msgspec.Struct):
    """Candles, in no order to be relied on."""

    candles: list[AdvancedCandle]


class AdvancedTicker(msgspec.Struct):
    """The latest price with the best bid and ask."""

    product_id: str
    best_bid: str | None = None
    best_bid_quantity: str | None = None
    best_ask: str | None = None
    best_ask_quantity: str | None = None


class Tickers(msgspec.Struct):
    """Tickers."""

    tickers: list[AdvancedTicker]


class AdvancedSubscriptions(msgspec.Struct):
    """All that is subscribed to: products by channel."""

    subscriptions: dict[str, list[str]]
