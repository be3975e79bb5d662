"""Binance's stream messages to columns: many messages in, one set of columns per symbol and stream out.

Pure: no clock, no connection. Whatever cannot be used is handed back as odd, with the reason, and costs nothing but
itself; fields that are not known here are passed over, for the venue adds some without notice.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from adapters.binance.config import Market
from adapters.binance.intervals import INTERVALS
from adapters.binance.parse import to_ns
from adapters.shared.decimals import nearest, scaled
from daemon.core.errors import SourceDataInvalid
from daemon.core.market import Bars, Timeframe, TsNs
from daemon.core.ticks import BUY, SELL, Stream, Ticks, concatenate, ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_SHOWN_CHARACTERS: Final = 200
_TIMEFRAMES: Final = {interval: timeframe for timeframe, interval in INTERVALS.items()}
_BETWEEN_TRADERS: Final = "MARKET"

_Id: TypeAlias = Annotated[int, Meta(ge=-1, le=(1 << 63) - 1)]
_Level: TypeAlias = tuple[str, str]


class Trade(msgspec.Struct, frozen=True, rename={"trade_id": "t", "price": "p", "size": "q", "is_buyer_maker": "m"}):
    """`trade`. X: what kind; on futures also fills by the insurance fund, at which nobody could have traded."""

    s: str
    trade_id: _Id
    price: str
    size: str
    T: int
    is_buyer_maker: bool
    X: str = _BETWEEN_TRADERS


class AggTrade(
    msgspec.Struct,
    frozen=True,
    rename={"trade_id": "a", "price": "p", "size": "q", "first": "f", "last": "l", "is_buyer_maker": "m"},
):
    """`aggTrade`: trades of one taker order at one price."""

    s: str
    trade_id: _Id
    price: str
    size: str
    first: _Id
    last: _Id
    T: int
    is_buyer_maker: bool


class BookTicker(
    msgspec.Struct, frozen=True, rename={"update_id": "u", "bid": "b", "bid_size": "B", "ask": "a", "ask_size": "A"}
):
    """`bookTicker`: best bid and ask. Spot sends no time."""

    s: str
    update_id: _Id
    bid: str
    bid_size: str
    ask: str
    ask_size: str
    T: int | None = None


class DepthUpdate(msgspec.Struct, frozen=True, rename={"first": "U", "last": "u", "bids": "b", "asks": "a"}):
    """`depthUpdate`. pu: the last update id of the event before, on futures only; T likewise."""

    s: str
    E: int
    first: _Id
    last: _Id
    bids: list[_Level]
    asks: list[_Level]
    pu: _Id | None = None
    T: int | None = None


class Candle(msgspec.Struct, frozen=True):
    """`k` of a `kline`: x tells whether it is complete. Coin-margined futures count v in contracts, q in coins."""

    t: int
    i: Literal["1s", "1m", "5m", "15m", "1h", "1d"]
    o: str
    h: str
    l: str  # noqa: E741 - the venue's name
    c: str
    v: str
    q: str
    x: bool


class Kline(msgspec.Struct, frozen=True):
    """`kline`."""

    s: str
    k: Candle


class _Envelope(msgspec.Struct, frozen=True):
    """What may come: a stream's message, an answer to a subscription, or an event of the connection."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    e: str = ""
    event: dict[str, Any] = {}
    error: Any = None
    id: Any = None


class _Kind(msgspec.Struct, frozen=True):
    e: str = ""


class DepthEvent(NamedTuple):
    """One change of a book. It covers the update ids after `previous_id` up to `last_id`.

    first_id: as the venue names it. rows: its levels, ids all `last_id`; none where the venue sends an empty event.
    """

    first_id: int
    last_id: int
    previous_id: int
    time_ns: TsNs
    rows: Ticks


class Odd(NamedTuple):
    """A message that could not be used. place: its number in the batch, from 0."""

    place: int
    local_ns: TsNs
    why: str
    message: str


class Batch(NamedTuple):
    """What a run of messages holds, by the venue's names of symbols.

    kept_out: trades that nobody could have made, such as those of the insurance fund. streams: names of the streams
    that spoke. leaving: places of the messages in which the venue announces the end of the connection.
    """

    ticks: list[tuple[str, Ticks]]
    bars: list[tuple[str, Timeframe, Bars]]
    depth: dict[str, list[DepthEvent]]
    odd: list[Odd]
    kept_out: list[Odd]
    streams: set[str]
    leaving: list[int]


class _Item(NamedTuple):
    place: int
    local_ns: TsNs
    text: str | bytes
    message: Any


_Built = TypeVar("_Built")

_envelope = msgspec.json.Decoder(_Envelope)
_kind = msgspec.json.Decoder(_Kind)
_decoders: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    "trade": msgspec.json.Decoder(Trade),
    "aggTrade": msgspec.json.Decoder(AggTrade),
    "bookTicker": msgspec.json.Decoder(BookTicker),
    "depth": msgspec.json.Decoder(DepthUpdate),
    "kline": msgspec.json.Decoder(Kline),
}


def decode(messages: Iterable[tuple[TsNs, str | bytes]], market: Market) -> Batch:
    """Read a market's messages of combined streams, each with its local time (ns).

    Raises nothing for what a venue may send.

    Trades and quotes come grouped by symbol and stream, each group in order of arrival; a group is split only where
    its numbers do not fit 64 bits at common decimals. Bars that are not complete are passed over.
    """
    batch = Batch([], [], {}, [], [], set(), [])
    groups: dict[tuple[str, str], list[_Item]] = {}
    for place, (local_ns, text) in enumerate(messages):
        try:
            kind, message, leaving = _opened(text, batch.streams)
        except (msgspec.MsgspecError, UnicodeError) as error:
            batch.odd.append(Odd(place, local_ns, str(error), _shown(text)))
            continue
        if leaving:
            batch.leaving.append(place)
        elif kind == "trade" and message.X != _BETWEEN_TRADERS:
            why = f"a trade of kind {message.X} is kept out: it was not made between traders"
            batch.kept_out.append(Odd(place, local_ns, why, _shown(text)))
        elif message is not None and (kind != "kline" or message.k.x):
            groups.setdefault((kind, message.s), []).append(_Item(place, local_ns, text, message))
    for (kind, symbol), items in groups.items():
        _collect(batch, kind, symbol, items, market)
    return batch


def joined(parts: list[Ticks]) -> list[Ticks]:
    """Join rows of one stream; where they do not fit 64 bits at common decimals they stay apart."""
    if not parts:
        return []
    try:
        return [concatenate(parts)]
    except OverflowError:
        return parts


def _shown(text: str | bytes) -> str:
    """Return the first characters."""
    start = text[:_SHOWN_CHARACTERS]
    return start.decode(errors="replace") if isinstance(start, bytes) else start


def _opened(text: str | bytes, streams: set[str]) -> tuple[str, Any, bool]:
    """Kind, typed message (None: nothing to keep), whether the venue is about to leave. Raises MsgspecError."""
    envelope = _envelope.decode(text)
    if not envelope.stream:
        return _of_the_connection(envelope)
    name = envelope.stream.partition("@")[2].partition("@")[0].partition("_")[0]
    decoder = _decoders.get(name)
    if decoder is None:
        if _kind.decode(envelope.data).e == "serverShutdown":
            return "", None, True
        raise msgspec.ValidationError(f"stream {envelope.stream[:40]!r} is not one that was asked for")
    streams.add(envelope.stream)
    return name, decoder.decode(envelope.data), False


def _of_the_connection(envelope: _Envelope) -> tuple[str, Any, bool]:
    if "serverShutdown" in (envelope.e, envelope.event.get("e")):
        return "", None, True
    if envelope.error is None and envelope.id is not None:
        return "", None, False  # a subscription was accepted
    if envelope.error is not None:
        raise msgspec.ValidationError(f"the venue refused a request: {str(envelope.error)[:100]}")
    raise msgspec.ValidationError("a message of no stream")


def _collect(batch: Batch, kind: str, symbol: str, items: list[_Item], market: Market) -> None:
    """Turn one symbol's messages of one kind into columns, without those whose numbers are wrong."""
    if kind == "depth":
        for events in _made(items, _depth, batch.odd):
            batch.depth.setdefault(symbol, []).extend(events)
    elif kind == "kline":
        for bars in _made(items, partial(_bars, market=market), batch.odd):
            batch.bars.extend((symbol, timeframe, each) for timeframe, each in bars.items())
    else:
        batch.ticks.extend((symbol, rows) for rows in _made(items, _BUILDERS[kind], batch.odd))


def _made(items: list[_Item], build: Callable[[list[_Item]], _Built], odd: list[Odd]) -> list[_Built]:
    """Build all at once; where that fails halve, until what fails is one message."""
    try:
        return [build(items)]
    except SourceDataInvalid as error:
        if len(items) == 1:
            odd.append(Odd(items[0].place, items[0].local_ns, error.message, _shown(items[0].text)))
            return []
    middle = len(items) // 2
    return _made(items[:middle], build, odd) + _made(items[middle:], build, odd)


def _trades(items: list[_Item]) -> Ticks:
    return _trade_columns(Stream.TRADES, items)


def _agg_trades(items: list[_Item]) -> Ticks:
    first = [item.message.first for item in items]
    return _trade_columns(Stream.AGG_TRADES, items, first_id=first, last_id=[item.message.last for item in items])


def _trade_columns(stream: Stream, items: list[_Item], **more: list[int]) -> Ticks:
    messages = [item.message for item in items]
    price, price_decimals = scaled([message.price for message in messages], "price")
    size, size_decimals = scaled([message.size for message in messages], "size")
    return ticks(
        stream,
        price_decimals=price_decimals,
        size_decimals=size_decimals,
        time_ns=to_ns([message.T for message in messages]),
        local_ns=[item.local_ns for item in items],
        id=[message.trade_id for message in messages],
        price=price,
        size=size,
        # Whose order rested is told, not who took: a maker who buys was sold to.
        side=[SELL if message.is_buyer_maker else BUY for message in messages],
        **more,
    )


def _quotes(items: list[_Item]) -> Ticks:
    messages = [item.message for item in items]
    count = len(items)
    price, price_decimals = scaled([each.bid for each in messages] + [each.ask for each in messages], "price")
    size, size_decimals = scaled([each.bid_size for each in messages] + [each.ask_size for each in messages], "size")
    local_ns = np.array([item.local_ns for item in items], np.int64)
    time_ns = local_ns.copy()
    if times := [message.T for message in messages if message.T is not None]:
        time_ns[[message.T is not None for message in messages]] = to_ns(times)
    return ticks(
        Stream.QUOTES,
        price_decimals=price_decimals,
        size_decimals=size_decimals,
        time_ns=time_ns,
        local_ns=local_ns,
        id=[message.update_id for message in messages],
        bid=price[:count],
        bid_size=size[:count],
        ask=price[count:],
        ask_size=size[count:],
    )


def _depth(items: list[_Item]) -> list[DepthEvent]:
    updates: list[DepthUpdate] = [item.message for item in items]
    event_times = to_ns([update.E if update.T is None else update.T for update in updates])
    counts = [len(update.bids) + len(update.asks) for update in updates]
    levels = [level for update in updates for side in (update.bids, update.asks) for level in side]
    price, price_decimals = scaled([price for price, _ in levels], "price")
    size, size_decimals = scaled([size for _, size in levels], "size")
    rows = ticks(
        Stream.DEPTH,
        price_decimals=price_decimals,
        size_decimals=size_decimals,
        time_ns=np.repeat(event_times, counts),
        local_ns=np.repeat(np.array([item.local_ns for item in items], np.int64), counts),
        id=np.repeat(np.array([update.last for update in updates], np.int64), counts),
        side=[side for update in updates for side in [BUY] * len(update.bids) + [SELL] * len(update.asks)],
        price=price,
        size=size,
    )
    stops = np.cumsum(counts).tolist()
    return [
        DepthEvent(
            update.first,
            update.last,
            update.first - 1 if update.pu is None else update.pu,
            time_ns,
            rows.rows(stop - count, stop),
        )
        for update, time_ns, count, stop in zip(updates, event_times.tolist(), counts, stops, strict=True)
    ]


def _bars(items: list[_Item], market: Market) -> dict[Timeframe, Bars]:
    by_interval: dict[str, list[Candle]] = {}
    for item in items:
        by_interval.setdefault(item.message.k.i, []).append(item.message.k)
    fields = "ohlcq" if market is Market.CM else "ohlcv"
    made = {}
    for interval, candles in by_interval.items():
        columns = [nearest([getattr(candle, field) for candle in candles], field) for field in fields]
        made[_TIMEFRAMES[interval]] = Bars(to_ns([candle.t for candle in candles]), *columns)
    return made


_BUILDERS: Final[dict[str, Callable[[list[_Item]], Ticks]]] = {
    "trade": _trades,
    "aggTrade": _agg_trades,
    "bookTicker": _quotes,
}
