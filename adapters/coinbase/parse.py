"""Coinbase's bytes to rows, and rows to columns: pure, exact, without a float where the venue writes text.

A message becomes rows in the order of the stream's columns, prices and sizes still text; `ticks_of` turns many rows at
once into columns, which is what makes it cheap.

Both interfaces give the *maker's* side of a trade: the aggressor, which is what we store, stood on the other side. A
leading project shipped this the wrong way round; the tests prove it against the book.

Rows of depth have no id: the Exchange numbers nothing, and Advanced Trade's `sequence_num` counts all messages of one
connection, so it starts anew with each and skips between those of the book. A number of our own would look like the
venue's, and say that nothing was lost where nobody knows.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, TypeAlias, TypeVar

import msgspec
import numpy as np

from adapters.coinbase import messages
from adapters.shared.decimals import nearest, scaled
from daemon.core.market import NS_PER_SECOND, Bars
from daemon.core.ticks import BUY, COLUMNS, NO_ID, SELL, UNKNOWN_NS, DepthFlag, Kind, Stream, Ticks, ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from daemon.core.market import TsNs

P = ParamSpec("P")
T = TypeVar("T")

_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND: Final = (1 << 63) // NS_PER_SECOND - 1
_AGGRESSOR: Final = {"buy": SELL, "sell": BUY, "BUY": SELL, "SELL": BUY}
_BOOK_SIDE: Final = {"buy": BUY, "sell": SELL, "bid": BUY, "offer": SELL, "ask": SELL}

# A row of a stream, in the order of its COLUMNS; prices and sizes as text.
Row: TypeAlias = tuple[Any, ...]


class Unusable(ValueError):  # noqa: N818 - internal: the feed reports it and goes on
    """A message that cannot be used; the text says why.

    of_book: it was of depth, so the book is no longer known. sequence: as in `Read`, where it could be read.
    """

    of_book = False
    sequence: int | None = None


class Rows(NamedTuple):
    """What one message says of one product's stream."""

    product: str
    stream: Stream
    rows: list[Row]


class Candle(NamedTuple):
    """A candle of five minutes, which may still be running; numbers as text."""

    product: str
    start_ns: TsNs
    open: str
    high: str
    low: str
    close: str
    volume: str


class Read(NamedTuple):
    """What a message says.

    alive: the product whose heart beat. subscribed: (channel, product) pairs, where it lists them.
    sequence, time_ns: of Advanced Trade's messages.
    """

    rows: Sequence[Rows] = ()
    candles: Sequence[Candle] = ()
    alive: str | None = None
    subscribed: frozenset[tuple[str, str]] | None = None
    sequence: int | None = None
    time_ns: TsNs | None = None


def time_ns(text: str) -> TsNs:
    """Turn `2024-01-31T23:59:59.123456789Z`, with up to nine digits or none, into nanoseconds since 1970, exactly.

    ValueError for anything else, another zone included.
    """
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is not a time in UTC")
    second, fraction = found.groups()
    return _second(second) * NS_PER_SECOND + int((fraction or "").ljust(9, "0"))


@lru_cache(maxsize=256)  # one second holds many rows
def _second(text: str) -> int:
    passed = datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH
    seconds = passed.days * 86_400 + passed.seconds
    if not 0 <= seconds <= _LAST_SECOND:
        raise ValueError(f"{text} is outside of what 64 bits hold")
    return seconds


def ticks_of(stream: Stream, rows: Sequence[Row]) -> Ticks:
    """Make columns of rows, at least one.

    Raises SourceDataInvalid where a price or size is no decimal, or does not fit 64 bits beside its neighbours.
    """
    kinds = COLUMNS[stream]
    values = dict(zip(kinds, map(list, zip(*rows, strict=True)), strict=True))
    made: dict[str, object] = {}
    decimals: dict[Kind, int] = {}
    for kind in (Kind.PRICE, Kind.SIZE):
        names = [name for name, each in kinds.items() if each is kind]
        # All columns of a kind share their decimals: bid and ask are converted as one list.
        numbers, decimals[kind] = scaled([text for name in names for text in values[name]], names[0])
        made |= dict(zip(names, np.split(numbers, len(names)), strict=True))
    return ticks(
        stream, price_decimals=decimals[Kind.PRICE], size_decimals=decimals[Kind.SIZE], **(dict(values) | made)
    )


def trades_of(trades: Iterable[messages.ExchangeTrade]) -> Ticks:
    """Make columns of trades of requests, at least one: ascending by id, each id once. They were received long after.

    ValueError for a time that is none; raises as `ticks_of`.
    """
    by_id = {trade.trade_id: trade for trade in trades}
    return ticks_of(Stream.TRADES, [_trade(by_id[trade_id], UNKNOWN_NS) for trade_id in sorted(by_id)])


def bars_of(candles: Sequence[Candle]) -> Bars:
    """Make bars of candles, in their order. Raises SourceDataInvalid for a number that is none."""
    starts = np.array([candle.start_ns for candle in candles], np.int64)
    names = ("open", "high", "low", "close", "volume")
    return Bars(starts, *(nearest([getattr(candle, name) for candle in candles], name) for name in names))


def read_exchange(message: str | bytes, local_ns: TsNs) -> Read:
    """Read a message of the Exchange's feed, received at local_ns. Raises Unusable."""
    kind = _decoded(_KIND, message).type
    if kind not in _EXCHANGE:
        raise Unusable(f"unknown kind of message: {kind[:40]!r}")
    decoder, read = _EXCHANGE[kind]
    try:
        return _carefully(read, _decoded(decoder, message), local_ns)
    except Unusable as unusable:
        unusable.of_book = read in (_snapshot, _l2update)
        raise


def read_advanced(message: str | bytes, local_ns: TsNs) -> Read:
    """Read a message of Advanced Trade's feed, received at local_ns. Raises Unusable."""
    envelope = _decoded(_ENVELOPE, message)
    try:
        return _read_events(envelope, message, local_ns)
    except Unusable as unusable:
        unusable.of_book = envelope.channel == "l2_data"
        unusable.sequence = envelope.sequence_num
        raise


def _read_events(envelope: messages.Envelope, message: str | bytes, local_ns: TsNs) -> Read:
    if envelope.type == "error":
        _complain(_decoded(_COMPLAINT, message), local_ns)
    if envelope.channel not in _ADVANCED:
        raise Unusable(f"unknown channel: {envelope.channel[:40]!r}")
    decoder, read = _ADVANCED[envelope.channel]
    at_ns = _carefully(_time_or, envelope.timestamp, local_ns)
    each = [_carefully(read, event, at_ns, local_ns) for event in _decoded(decoder, envelope.events)]
    return Read(
        rows=[rows for found in each for rows in found.rows],
        candles=[candle for found in each for candle in found.candles],
        subscribed=each[-1].subscribed if each else None,
        sequence=envelope.sequence_num,
        time_ns=at_ns,
    )


# --- The Exchange -----------------------------------------------------------------------------------------------------


def _match(match: messages.Match, local_ns: TsNs) -> Read:
    return Read([Rows(match.product_id, Stream.TRADES, [_trade(match, local_ns)])])


def _snapshot(book: messages.Snapshot, local_ns: TsNs) -> Read:
    at_ns = _time_or(book.time, local_ns)
    rows = [
        (at_ns, local_ns, NO_ID, side, level.price, level.size, DepthFlag.SNAPSHOT)
        for side, levels in ((BUY, book.bids), (SELL, book.asks))
        for level in levels
    ]
    return Read([Rows(book.product_id, Stream.DEPTH, rows)])


def _l2update(update: messages.L2Update, local_ns: TsNs) -> Read:
    at_ns = _time_or(update.time, local_ns)
    rows = [
        (at_ns, local_ns, NO_ID, _BOOK_SIDE[change.side], change.price, change.size, 0) for change in update.changes
    ]
    return Read([Rows(update.product_id, Stream.DEPTH, rows)])


def _ticker(ticker: messages.Ticker, local_ns: TsNs) -> Read:
    best = (ticker.best_bid, ticker.best_bid_size, ticker.best_ask, ticker.best_ask_size)
    if not all(best):
        return Read()  # of an empty book, or from before sizes were given: there is no quote
    row = (_time_or(ticker.time, local_ns), local_ns, NO_ID if ticker.sequence is None else ticker.sequence, *best)
    return Read([Rows(ticker.product_id, Stream.QUOTES, [row])])


def _heartbeat(heartbeat: messages.Heartbeat, _local_ns: TsNs) -> Read:
    return Read(alive=heartbeat.product_id)


def _subscriptions(listed: messages.Subscriptions, _local_ns: TsNs) -> Read:
    pairs = ((channel.name, product) for channel in listed.channels for product in channel.product_ids)
    return Read(subscribed=frozenset(pairs))


def _complain(complaint: messages.Complaint, _local_ns: TsNs) -> Read:
    raise Unusable(f"the venue complains: {complaint.message} {complaint.reason}".strip()[:200])


# --- Advanced Trade ---------------------------------------------------------------------------------------------------


def _market_trades(event: messages.MarketTrades, _at_ns: TsNs, local_ns: TsNs) -> Read:
    """Sort by id: the venue lists the newest first, and does so inside of updates too (ccxt#27606, #29477)."""
    rows: dict[str, list[Row]] = {}
    for trade in sorted(event.trades, key=lambda trade: trade.trade_id):
        rows.setdefault(trade.product_id, []).append(_trade(trade, local_ns))
    return Read([Rows(product, Stream.TRADES, each) for product, each in rows.items()])


def _l2_data(event: messages.L2Data, at_ns: TsNs, local_ns: TsNs) -> Read:
    """Give a snapshot the time of its message: its levels say 1970, or when each last changed, in no order."""
    is_snapshot = event.type == "snapshot"
    flags = DepthFlag.SNAPSHOT if is_snapshot else 0
    rows = [
        (
            at_ns if is_snapshot else _time_or(level.event_time, at_ns),
            local_ns,
            NO_ID,
            _BOOK_SIDE[level.side],
            level.price_level,
            level.new_quantity,
            flags,
        )
        for level in event.updates
    ]
    return Read([Rows(event.product_id, Stream.DEPTH, rows)])


def _candles(event: messages.Candles, _at_ns: TsNs, _local_ns: TsNs) -> Read:
    return Read(
        candles=[
            Candle(each.product_id, each.start * NS_PER_SECOND, each.open, each.high, each.low, each.close, each.volume)
            for each in sorted(event.candles, key=lambda each: each.start)
        ]
    )


def _advanced_ticker(event: messages.Tickers, at_ns: TsNs, local_ns: TsNs) -> Read:
    rows = []
    for each in event.tickers:
        best = (each.best_bid, each.best_bid_quantity, each.best_ask, each.best_ask_quantity)
        if all(best):
            rows.append(Rows(each.product_id, Stream.QUOTES, [(at_ns, local_ns, NO_ID, *best)]))
    return Read(rows)


def _heartbeats(_event: msgspec.Raw, _at_ns: TsNs, _local_ns: TsNs) -> Read:
    # Its `current_time` is written as Go prints times, which is no format; that it came is all that matters.
    return Read()


def _advanced_subscriptions(event: messages.AdvancedSubscriptions, _at_ns: TsNs, _local_ns: TsNs) -> Read:
    pairs = ((channel, product) for channel, products in event.subscriptions.items() for product in products)
    return Read(subscribed=frozenset(pairs))


# --- Both -------------------------------------------------------------------------------------------------------------


def _trade(trade: messages.Match | messages.ExchangeTrade | messages.AdvancedTrade, local_ns: TsNs) -> Row:
    return (time_ns(trade.time), local_ns, trade.trade_id, trade.price, trade.size, _AGGRESSOR[trade.side])


def _time_or(text: str | None, otherwise_ns: TsNs) -> TsNs:
    return time_ns(text) if text else otherwise_ns


def _decoded(decoder: msgspec.json.Decoder[Any], message: str | bytes | msgspec.Raw) -> Any:
    try:
        return decoder.decode(message)
    except msgspec.ValidationError as error:
        raise Unusable(f"other JSON than documented: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unusable(f"not JSON: {error}") from None


def _carefully(read: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    try:
        return read(*arguments, **options)
    except Unusable:
        raise
    except ValueError as error:
        raise Unusable(str(error)) from None


_KIND: Final = msgspec.json.Decoder(messages.Kind)
_ENVELOPE: Final = msgspec.json.Decoder(messages.Envelope)
_COMPLAINT: Final = msgspec.json.Decoder(messages.Complaint)

_EXCHANGE: Final[dict[str, tuple[msgspec.json.Decoder[Any], Callable[[Any, TsNs], Read]]]] = {
    "match": (msgspec.json.Decoder(messages.Match), _match),
    "last_match": (msgspec.json.Decoder(messages.Match), _match),
    "snapshot": (msgspec.json.Decoder(messages.Snapshot), _snapshot),
    "l2update": (msgspec.json.Decoder(messages.L2Update), _l2update),
    "ticker": (msgspec.json.Decoder(messages.Ticker), _ticker),
    "heartbeat": (msgspec.json.Decoder(messages.Heartbeat), _heartbeat),
    "subscriptions": (msgspec.json.Decoder(messages.Subscriptions), _subscriptions),
    "error": (_COMPLAINT, _complain),
}
# Not strict: numbers are written as text there.
_ADVANCED: Final[dict[str, tuple[msgspec.json.Decoder[Any], Callable[[Any, TsNs, TsNs], Read]]]] = {
    "market_trades": (msgspec.json.Decoder(list[messages.MarketTrades], strict=False), _market_trades),
    "l2_data": (msgspec.json.Decoder(list[messages.L2Data], strict=False), _l2_data),
    "candles": (msgspec.json.Decoder(list[messages.Candles], strict=False), _candles),
    "ticker": (msgspec.json.Decoder(list[messages.Tickers], strict=False), _advanced_ticker),
    "heartbeats": (msgspec.json.Decoder(list[msgspec.Raw]), _heartbeats),
    "subscriptions": (msgspec.json.Decoder(list[messages.AdvancedSubscriptions]), _advanced_subscriptions),
}
