"""Binance's REST answers, decoded and turned into columns; pure, so that recorded payloads test it.

Fields that are not named here are passed over: the venue adds some every few months. Times come in milliseconds or
microseconds by market, date and header, and are told apart by their magnitude.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import numpy as np

from adapters.binance.config import Market
from adapters.shared.decimals import nearest, scaled
from daemon.core.errors import Code, NotFound, SourceDataInvalid
from daemon.core.market import Bars, Int64s
from daemon.core.ports import InstrumentFacts
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream, Ticks, empty, ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = TypeVar("Row", "AggTrade", "Trade")

_NS_BY_UNIT: Final = ((10**11, 10**14, 1_000_000), (10**14, 10**17, 1_000))  # ms, then us: from 1973 to 5138 either way
_NONE_SET: Final = "0"


class AggTrade(msgspec.Struct, frozen=True, gc=False):
    """A row of aggTrades."""

    id: int = msgspec.field(name="a")
    price: str = msgspec.field(name="p")
    size: str = msgspec.field(name="q")
    first_id: int = msgspec.field(name="f")
    last_id: int = msgspec.field(name="l")
    time: int = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")


class Trade(msgspec.Struct, frozen=True, gc=False):
    """A row of historicalTrades."""

    id: int
    price: str
    size: str = msgspec.field(name="qty")
    time: int = msgspec.field()
    buyer_is_maker: bool = msgspec.field(name="isBuyerMaker")


class Kline(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row of klines, by position. Coin-margined futures: `volume` counts contracts, `second_volume` is in coins."""

    open_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    close_time: int
    second_volume: str


class Depth(msgspec.Struct, frozen=True):
    """A snapshot of a book; levels are [price, size]. Only futures tell times."""

    last_update_id: int = msgspec.field(name="lastUpdateId")
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]
    event_time: int | None = msgspec.field(name="E", default=None)
    transaction_time: int | None = msgspec.field(name="T", default=None)


class ServerTime(msgspec.Struct, frozen=True):
    """The venue's clock."""

    time: int = msgspec.field(name="serverTime")


class Filter(msgspec.Struct, frozen=True, rename="camel"):
    """One of a symbol's trading rules; which fields it has depends on its type."""

    filter_type: str
    tick_size: str = _NONE_SET
    step_size: str = _NONE_SET
    min_qty: str = _NONE_SET
    min_notional: str = _NONE_SET
    notional: str = _NONE_SET


class Symbol(msgspec.Struct, frozen=True, rename="camel"):
    """What exchangeInfo says of a symbol; coin-margined futures name their status otherwise."""

    symbol: str
    filters: list[Filter]
    status: str = ""
    contract_status: str = ""


class Limit(msgspec.Struct, frozen=True, rename="camel"):
    """A limit on requests: so much in interval_num intervals (SECOND, MINUTE, DAY)."""

    rate_limit_type: str
    interval: str
    interval_num: int
    limit: int


class ExchangeInfo(msgspec.Struct, frozen=True, rename="camel"):
    """What exchangeInfo says of a market."""

    symbols: list[Symbol]
    rate_limits: list[Limit] = []


class Problem(msgspec.Struct, frozen=True):
    """The body of a refusal."""

    code: int
    msg: str = ""


AGG_TRADES: Final = msgspec.json.Decoder(list[AggTrade])
TRADES: Final = msgspec.json.Decoder(list[Trade])
KLINES: Final = msgspec.json.Decoder(list[Kline])
DEPTH: Final = msgspec.json.Decoder(Depth)
EXCHANGE_INFO: Final = msgspec.json.Decoder(ExchangeInfo)
SERVER_TIME: Final = msgspec.json.Decoder(ServerTime)
PROBLEM: Final = msgspec.json.Decoder(Problem)


def to_ns(times: Sequence[int]) -> Int64s:
    """Turn times of one unit, milliseconds or microseconds since 1970, into nanoseconds.

    SourceDataInvalid TICKS_INVALID where they are neither, or of both kinds.
    """
    low, high = min(times), max(times)
    for lowest, beyond, factor in _NS_BY_UNIT:
        if lowest <= low and high < beyond:
            return np.array(times, np.int64) * np.int64(factor)
    why = f"times from {low} to {high} are neither milliseconds nor microseconds since 1970; look at the source"
    raise SourceDataInvalid(Code.TICKS_INVALID, why)


def agg_trade_ticks(rows: list[AggTrade]) -> Ticks:
    """Make ticks of aggregate trades, in order of id, without repeats; exact.

    SourceDataInvalid for a value that is none, or an id that repeats with other values.
    """
    if not rows:
        return empty(Stream.AGG_TRADES)
    rows = in_order(rows)
    price, price_decimals = scaled([row.price for row in rows], "price")
    size, size_decimals = scaled([row.size for row in rows], "size")
    return ticks(
        Stream.AGG_TRADES,
        price_decimals=price_decimals,
        size_decimals=size_decimals,
        time_ns=to_ns([row.time for row in rows]),
        id=[row.id for row in rows],
        price=price,
        size=size,
        side=[_aggressor(row) for row in rows],
        first_id=[row.first_id for row in rows],
        last_id=[row.last_id for row in rows],
    )


def trade_ticks(rows: list[Trade]) -> Ticks:
    """Make ticks of trades; as `agg_trade_ticks`."""
    if not rows:
        return empty(Stream.TRADES)
    rows = in_order(rows)
    price, price_decimals = scaled([row.price for row in rows], "price")
    size, size_decimals = scaled([row.size for row in rows], "size")
    return ticks(
        Stream.TRADES,
        price_decimals=price_decimals,
        size_decimals=size_decimals,
        time_ns=to_ns([row.time for row in rows]),
        id=[row.id for row in rows],
        price=price,
        size=size,
        side=[_aggressor(row) for row in rows],
    )


def in_order(rows: list[Row]) -> list[Row]:
    """Sort rows by id and drop repeats; SourceDataInvalid TICKS_INVALID where a repeat differs."""
    by_id: dict[int, Row] = {}
    for row in rows:
        if by_id.setdefault(row.id, row) != row:
            why = f"trade {row.id} comes twice, with different values; look at the source"
            raise SourceDataInvalid(Code.TICKS_INVALID, why)
    return [by_id[each] for each in sorted(by_id)]


def kline_bars(rows: list[Kline], market: Market, now_ns: int) -> Bars:
    """Make bars of those klines that are complete at `now_ns`, ascending, without repeats.

    Volume in base units: coin-margined futures count contracts first, and coins in their second volume.
    """
    kept = {row.open_time: row for row in rows if _is_over(row, now_ns)}
    ordered = [kept[each] for each in sorted(kept)]
    volumes = [row.second_volume if market is Market.CM else row.volume for row in ordered]
    return Bars(
        to_ns(sorted(kept)) if kept else np.empty(0, np.int64),
        nearest([row.open for row in ordered], "open"),
        nearest([row.high for row in ordered], "high"),
        nearest([row.low for row in ordered], "low"),
        nearest([row.close for row in ordered], "close"),
        nearest(volumes, "volume"),
    )


def depth_ticks(book: Depth, local_ns: int) -> Ticks:
    """Make a snapshot's levels, bids first, as rows that replace the book.

    local_ns: when it was received; its time too, where the venue gives none (spot).
    """
    told = book.transaction_time or book.event_time
    time_ns = int(to_ns([told])[0]) if told else local_ns
    levels = [*book.bids, *book.asks]
    price, price_decimals = scaled([price for price, _ in levels], "price")
    size, size_decimals = scaled([size for _, size in levels], "size")
    count = len(levels)
    return ticks(
        Stream.DEPTH,
        price_decimals=price_decimals,
        size_decimals=size_decimals,
        time_ns=np.full(count, time_ns, np.int64),
        local_ns=np.full(count, local_ns, np.int64),
        id=np.full(count, book.last_update_id, np.int64),
        side=np.repeat(np.array([BUY, SELL], np.int8), [len(book.bids), len(book.asks)]),
        price=price,
        size=size,
        flags=np.full(count, DepthFlag.SNAPSHOT, np.int8),
    )


def instrument_facts(info: ExchangeInfo, name: str, symbol: str) -> InstrumentFacts:
    """Find a symbol, `name` at the venue and `symbol` here; "0" where the venue sets no step or least.

    NotFound SYMBOL_UNKNOWN where it is not listed.
    """
    listed = next((each for each in info.symbols if each.symbol == name), None)
    if listed is None:
        raise symbol_unknown(symbol)
    rules = {each.filter_type: each for each in listed.filters}
    none = Filter("")
    # The same rule is MIN_NOTIONAL.minNotional (spot, of old), MIN_NOTIONAL.notional (futures), NOTIONAL.minNotional.
    least = rules.get("NOTIONAL") or rules.get("MIN_NOTIONAL") or none
    lot = rules.get("LOT_SIZE", none)
    return InstrumentFacts(
        symbol=symbol,
        status=listed.status or listed.contract_status,
        tick_size=rules.get("PRICE_FILTER", none).tick_size,
        step_size=lot.step_size,
        min_size=lot.min_qty,
        min_notional=least.min_notional if least.min_notional != _NONE_SET else least.notional,
    )


def symbol_unknown(symbol: str, where: str = "") -> NotFound:
    """Word the refusal of a symbol that the venue does not know."""
    why = f"binance does not know {symbol}{where}; check its spelling there"
    return NotFound(Code.SYMBOL_UNKNOWN, why, {"symbol": symbol})


def _is_over(row: Kline, now_ns: int) -> bool:
    return int(to_ns([row.close_time])[0]) < now_ns


def _aggressor(row: AggTrade | Trade) -> int:
    # The buyer waited in the book, so it was the seller who took.
    return SELL if row.buyer_is_maker else BUY
