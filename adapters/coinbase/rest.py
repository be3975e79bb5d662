"""History of Coinbase Exchange on request: trades by id, candles, and what it says of a product.

Trades come newest first, 1,000 at a time, and only `after=ID` (older than ID) leads from page to page: `before=ID`
gives the newest 1,000, not those that follow ID. Ids are contiguous per product, which opens a way forward: ask for
what is older than ID + 1,001, and the page holds exactly the 1,000 that follow ID. So rows leave in order of id, one
page is all that is held, nothing is spooled, and whoever stops half-way has kept a beginning. Ids that are missing
only make a page reach further back; what was there before is dropped.

Where a time range begins is found by asking for single trades: times ascend with ids, but for neighbours.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import numpy as np

from adapters.coinbase import parse
from adapters.coinbase.config import CoinbaseConfig
from adapters.coinbase.messages import ExchangeCandle, ExchangeTrade, Product
from adapters.coinbase.products import product_id, unknown
from adapters.shared.backoff import RateLimit, Waits
from adapters.shared.rest import Refused, Rest
from daemon.core.errors import Code, InvalidRequest, SourceDataInvalid, SourceUnavailable
from daemon.core.market import NS_PER_SECOND, Bars, Timeframe
from daemon.core.ports import InstrumentFacts
from daemon.core.ticks import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

    from daemon.core.market import TsNs
    from daemon.core.ticks import Ticks

T = TypeVar("T")

TRADES_PER_PAGE: Final = 1_000
CANDLES_PER_REQUEST: Final = 300
# The venue has six hours as well, which we do not know, and no seconds, which we do.
TIMEFRAMES: Final = (Timeframe.MIN_1, Timeframe.MIN_5, Timeframe.MIN_15, Timeframe.HOUR_1, Timeframe.DAY_1)

_NOT_FOUND: Final = 404
_TRADES = msgspec.json.Decoder(list[ExchangeTrade])
_CANDLES = msgspec.json.Decoder(list[ExchangeCandle])
_PRODUCT = msgspec.json.Decoder(Product)


class CoinbaseHistory:
    """Implements `daemon.core.ports.HistorySource` for Coinbase Exchange.

    now_ns: the present, nanoseconds UTC; decides which bars are complete. waits: of requests, for tests.
    Raises, beside what the port says: InvalidRequest INVALID_TIMEFRAME for bars that the venue does not make, and
    INVALID_REQUEST for a stream other than trades.
    """

    streams: Sequence[Stream] = (Stream.TRADES,)

    def __init__(
        self,
        config: CoinbaseConfig | None = None,
        *,
        now_ns: Callable[[], TsNs] = time.time_ns,
        waits: Waits | None = None,
    ) -> None:
        config = config or CoinbaseConfig()
        self._now_ns = now_ns
        self._rest = Rest(
            "Coinbase",
            config.rest,
            limit=RateLimit(config.rest_burst, config.rest_per_s),
            timeout_s=config.timeout_s,
            attempts=config.attempts,
            patience_s=config.patience_s,
            waits=waits,
        )

    async def instrument(self, symbol: str) -> InstrumentFacts:
        """Return steps and least amounts; the venue bounds orders by their notional, so the least size is one step."""
        product = product_id(symbol)
        found = await self._json(product, "", {}, _PRODUCT)
        return InstrumentFacts(
            symbol=product,
            status=found.status,
            tick_size=found.quote_increment,
            step_size=found.base_increment,
            min_size=found.base_min_size or found.base_increment,
            min_notional=found.min_market_funds or "0",
        )

    async def ticks(self, symbol: str, stream: Stream, start_ns: TsNs, stop_ns: TsNs) -> AsyncIterator[Ticks]:
        """Yield the trades of [start_ns, stop_ns) in order of id, at most 1,000 at a time.

        A page more is read at either end, for neighbours may be timed out of order. Trades that happen after the
        call are not waited for.
        """
        product = self._asked(symbol, stream)
        newest = await self._at_or_below(product, None)
        if newest is None or start_ns >= stop_ns:
            return
        before_start = await self._id_before(product, newest, start_ns)
        async with aclosing(self._forward(product, before_start - TRADES_PER_PAGE, newest.trade_id + 1)) as pages:
            async for page in pages:
                inside = (page.time_ns >= start_ns) & (page.time_ns < stop_ns)
                if inside.any():
                    yield page.take(inside)
                if (page.time_ns >= stop_ns).all():
                    return

    async def ticks_between(self, symbol: str, stream: Stream, after_id: int, before_id: int) -> AsyncIterator[Ticks]:
        """Yield the trades whose ids lie strictly between two ids, in order of id, at most 1,000 at a time."""
        async with aclosing(self._forward(self._asked(symbol, stream), after_id, before_id)) as pages:
            async for page in pages:
                yield page

    async def bars(self, symbol: str, timeframe: Timeframe, start_ns: TsNs, stop_ns: TsNs) -> AsyncIterator[Bars]:
        """Yield the complete bars that start in [start_ns, stop_ns); intervals without a trade have none.

        Each request asks for one bar more than is kept of it, for it is not documented whether the end belongs to
        the answer; the next begins with that one.
        """
        product = product_id(symbol)
        if timeframe not in TIMEFRAMES:
            known = ", ".join(TIMEFRAMES)
            raise InvalidRequest(Code.INVALID_TIMEFRAME, f"Coinbase has no bars of {timeframe}; choose one of {known}")
        length_ns = timeframe.ns
        stop_ns = min(stop_ns, self._now_ns() // length_ns * length_ns)
        first_ns = -(-start_ns // length_ns) * length_ns
        while first_ns < stop_ns:
            next_ns = first_ns + (CANDLES_PER_REQUEST - 1) * length_ns
            query: dict[str, str | int] = {
                "granularity": length_ns // NS_PER_SECOND,
                "start": _iso(first_ns),
                "end": _iso(min(next_ns, -(-stop_ns // length_ns) * length_ns)),
            }
            found = await self._json(product, "/candles", query, _CANDLES)
            # An answer may hold more than was asked for, says the documentation.
            made = _bars(found, first_ns, min(next_ns, stop_ns), length_ns)
            if made.size:
                yield made
            first_ns = next_ns

    async def close(self) -> None:
        """End its connections."""
        await self._rest.close()

    def _asked(self, symbol: str, stream: Stream) -> str:
        if stream not in self.streams:
            why = f"Coinbase has no history of {stream} on request, only of {', '.join(self.streams)}"
            raise InvalidRequest(Code.INVALID_REQUEST, why)
        return product_id(symbol)

    async def _forward(self, product: str, after_id: int, before_id: int) -> AsyncGenerator[Ticks, None]:
        """Yield the trades strictly between two ids: 1,000 ids after the other, each asked for from its upper end."""
        after_id = max(after_id, 0)  # the first trade of a product is number 1
        while after_id + 1 < before_id:
            end_id = min(after_id + TRADES_PER_PAGE + 1, before_id)
            trades = await self._window(product, after_id, end_id)
            if trades:
                yield _columns(product, trades)
            after_id = end_id - 1

    async def _window(self, product: str, after_id: int, before_id: int) -> list[ExchangeTrade]:
        """Fetch the trades strictly between two ids that lie at most a page apart.

        One request is enough, but for a venue that gives shorter pages than were asked for.
        """
        trades: list[ExchangeTrade] = []
        cursor = before_id
        while cursor > after_id + 1 and (page := await self._page(product, cursor, TRADES_PER_PAGE)):
            trades += [trade for trade in page if trade.trade_id > after_id]
            cursor = min(trade.trade_id for trade in page)
        return trades

    async def _page(self, product: str, cursor: int | None, limit: int) -> list[ExchangeTrade]:
        """Fetch the newest trades of those older than an id, or of all."""
        query = {"limit": limit} if cursor is None else {"limit": limit, "after": cursor}
        found = await self._json(product, "/trades", query, _TRADES)
        if cursor is None:
            return found
        if any(trade.trade_id > cursor for trade in found):  # going on might ask for the same for ever
            raise _invalid(f"{product}: asked for trades older than {cursor}, it answers with newer ones")
        return [trade for trade in found if trade.trade_id < cursor]

    async def _at_or_below(self, product: str, trade_id: int | None) -> ExchangeTrade | None:
        """Fetch the trade of an id, or the one before; None: the newest of all. None where there is none."""
        page = await self._page(product, None if trade_id is None else trade_id + 1, 1)
        return max(page, key=lambda trade: trade.trade_id, default=None)

    async def _id_before(self, product: str, newest: ExchangeTrade, start_ns: TsNs) -> int:
        """Find an id before which all is earlier than a time, at most a page before the first that is not.

        Strides that double lead back from the newest, for what is asked for is mostly recent; then it is halved.
        """
        high = newest.trade_id
        low, stride = high, TRADES_PER_PAGE
        while low > 0 and not await self._is_earlier(product, low, start_ns):
            high = low
            low, stride = max(low - stride, 0), stride * 2
        while high - low > TRADES_PER_PAGE:
            middle = (low + high) // 2
            if await self._is_earlier(product, middle, start_ns):
                low = middle
            else:
                high = middle
        return low

    async def _is_earlier(self, product: str, trade_id: int, start_ns: TsNs) -> bool:
        trade = await self._at_or_below(product, trade_id)
        return trade is None or _time_ns(product, trade) < start_ns

    async def _json(
        self, product: str, path: str, query: Mapping[str, str | int], decoder: msgspec.json.Decoder[T]
    ) -> T:
        try:
            return (await self._rest.json(f"/products/{product}{path}", query, decoder))[0]
        except Refused as refused:
            if refused.status == _NOT_FOUND:
                raise unknown(product) from None
            why = f"Coinbase refuses /products/{product}{path} ({refused})"
            raise SourceUnavailable(Code.SOURCE_ANSWER_INVALID, why) from None


def _columns(product: str, trades: Sequence[ExchangeTrade]) -> Ticks:
    try:
        return parse.trades_of(trades)
    except ValueError as error:
        raise _invalid(f"{product}: {error}") from None


def _time_ns(product: str, trade: ExchangeTrade) -> TsNs:
    try:
        return parse.time_ns(trade.time)
    except ValueError as error:
        raise _invalid(f"{product}: {error}") from None


def _bars(candles: Sequence[ExchangeCandle], first_ns: TsNs, stop_ns: TsNs, length_ns: int) -> Bars:
    """Make bars of the candles that start in [first_ns, stop_ns), ascending, each start once."""
    by_start = {candle.time * NS_PER_SECOND: candle for candle in candles}
    starts = sorted(start for start in by_start if first_ns <= start < stop_ns)
    if misplaced := [start for start in starts if start % length_ns]:
        raise _invalid(f"a candle of {length_ns // NS_PER_SECOND} s starts at {_iso(misplaced[0])}")
    chosen = [by_start[start] for start in starts]
    names = ("open", "high", "low", "close", "volume")  # not the venue's order
    columns = (np.array([getattr(candle, name) for candle in chosen], np.float64) for name in names)
    return Bars(np.array(starts, np.int64), *columns)


def _iso(time_ns: TsNs) -> str:
    return datetime.fromtimestamp(time_ns // NS_PER_SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _invalid(why: str) -> SourceDataInvalid:
    return SourceDataInvalid(Code.SOURCE_ANSWER_INVALID, f"Coinbase's answer cannot be used: {why}")
