"""Binance's history over REST: trades by id, bars, snapshots of the book, and what it says of its instruments.

Trades are paged by id, which neither repeats nor skips: a time may hold more trades than a page does. Where the ids
jump, the rows are missing at the venue; whoever stores them sees that by the ids.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar

import msgspec
import numpy as np

from adapters.binance import parse
from adapters.binance.config import BinanceConfig, Market
from adapters.binance.intervals import INTERVALS
from adapters.binance.symbols import venue_symbol
from adapters.shared.backoff import RateLimit, Waits, real_waits
from adapters.shared.rest import Refused, Rest
from daemon.core.errors import AtlasError, Code, InvalidRequest, SourceUnavailable
from daemon.core.market import NS_PER_DAY, Bars, Timeframe, TsNs
from daemon.core.ticks import Stream, Ticks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from daemon.core.ports import InstrumentFacts

T = TypeVar("T")
_Query: TypeAlias = dict[str, str | int]

_NS_PER_MS: Final = 1_000_000
_SECONDS_PER: Final = {"SECOND": 1, "MINUTE": 60, "HOUR": 3_600, "DAY": 86_400}
_MINUTE_S: Final = 60
# The bucket holds ten seconds' worth: enough for a first page at once, too little to spend a minute's budget in one.
_BURST_SHARE: Final = 1 / 6
_AGG_TRADES_PAGE: Final = 1_000
_KLINES_PAGE: Final = 1_000
_COIN_SPAN_NS: Final = 199 * NS_PER_DAY  # coin-margined klines: start and end lie less than 200 days apart
_INVALID_SYMBOL: Final = -1121
_ILLEGAL_CHARACTERS: Final = -1100


class _Paths(NamedTuple):
    """A market's base path, and what its requests weigh and hold.

    Source: the venue's REST documents, read 2026: futures' old trades are 500 a page since 2025-01 and weigh 200
    since 2026-07.
    """

    base: str
    agg_trades: int
    trades: int
    trades_page: int
    klines: int
    depth: int
    depth_levels: int
    exchange_info: int


_PATHS: Final = {
    Market.SPOT: _Paths("/api/v3", 4, 25, 1_000, 2, 250, 5_000, 20),
    Market.UM: _Paths("/fapi/v1", 20, 200, 500, 5, 20, 1_000, 1),
    Market.CM: _Paths("/dapi/v1", 20, 200, 500, 5, 20, 1_000, 1),
}


class BinanceHistory:
    """History of one of Binance's markets; a `core.ports.HistorySource`.

    Futures' old trades need a key (`BinanceConfig.api_key`), spot's do not. Of futures' aggregate trades the venue
    keeps only the latest (a year by some of its pages, two days by others): older ones are in its archive.
    """

    def __init__(
        self,
        market: Market | str,
        config: BinanceConfig | None = None,
        *,
        waits: Waits | None = None,
        now_ns: Callable[[], TsNs] = time.time_ns,
    ) -> None:
        self.market = Market(market)
        self._config = config or BinanceConfig()
        self._now_ns = now_ns
        self._waits = waits or real_waits()
        self._paths = _PATHS[self.market]
        self._weight_per_min: float = self._config.weight_per_min(self.market)
        headers = {"X-MBX-TIME-UNIT": "MICROSECOND"} if self.market is Market.SPOT else {}
        if self._config.api_key:
            headers["X-MBX-APIKEY"] = self._config.api_key
        self._rest = Rest(
            "binance",
            self._config.rest(self.market),
            limit=self._limit(),
            timeout_s=self._config.timeout_s,
            attempts=self._config.attempts,
            patience_s=self._config.patience_s,
            headers=headers,
            quiet_s=self._quiet_s,
            waits=self._waits,
        )
        trades = (Stream.TRADES,) if self._has_trades() else ()
        self.streams: tuple[Stream, ...] = (*trades, Stream.AGG_TRADES, Stream.BARS)

    async def instrument(self, symbol: str) -> InstrumentFacts:
        """Return steps, leasts and status of a symbol; takes over the budget the venue tells on the way.

        Raises as `HistorySource` does.
        """
        name = self._name(symbol)
        # Futures answer with all their symbols only.
        query: _Query | None = {"symbol": name} if self.market is Market.SPOT else None
        info = await self._ask(symbol, "/exchangeInfo", query, parse.EXCHANGE_INFO, self._paths.exchange_info)
        for limit in info.rate_limits:
            if limit.rate_limit_type == "REQUEST_WEIGHT" and limit.interval in _SECONDS_PER:
                self._weight_per_min = limit.limit * _MINUTE_S / (limit.interval_num * _SECONDS_PER[limit.interval])
                self._rest.change_limit(self._limit())
        return parse.instrument_facts(info, name, symbol)

    async def ticks(self, symbol: str, stream: Stream, start_ns: TsNs, stop_ns: TsNs) -> AsyncIterator[Ticks]:
        """Yield the trades of [start_ns, stop_ns) by id, up to now, a page at a time.

        Raises InvalidRequest for a stream that the venue does not give, and as `HistorySource`.
        """
        self._check_stream(stream)
        stop_ns = min(stop_ns, self._now_ns())  # or the newest trades would be chased one by one
        if start_ns >= stop_ns:
            return
        first = await self._agg_trades(symbol, {"startTime": start_ns // _NS_PER_MS})
        if not first.size:
            return
        if stream is Stream.AGG_TRADES:
            pages = self._pages(symbol, stream, int(first.column("id")[0]), first)
        else:
            # Old trades are found by id only; the aggregate knows its first trade's.
            pages = self._pages(symbol, stream, int(first.column("first_id")[0]), None)
        async for page in pages:
            times = page.time_ns
            wanted = page.take((times >= start_ns) & (times < stop_ns))
            if wanted.size:
                yield wanted
            if times[-1] >= stop_ns:
                return

    async def ticks_between(self, symbol: str, stream: Stream, after_id: int, before_id: int) -> AsyncIterator[Ticks]:
        """Yield the trades whose ids lie strictly between two; fewer where the venue has none of them."""
        self._check_stream(stream)
        if before_id - after_id < 2:  # noqa: PLR2004 - neighbours
            return
        async for page in self._pages(symbol, stream, after_id + 1, None):
            ids = page.column("id")
            wanted = page.take(ids < before_id)
            if wanted.size:
                yield wanted
            if ids[-1] >= before_id - 1:
                return

    async def bars(self, symbol: str, timeframe: Timeframe, start_ns: TsNs, stop_ns: TsNs) -> AsyncIterator[Bars]:
        """Yield the bars that start in [start_ns, stop_ns) and are complete by the venue's clock.

        Intervals without a row at the venue are left out. Futures have no bars of a second (InvalidRequest).
        """
        name = self._name(symbol)
        if timeframe is Timeframe.SEC_1 and self.market is not Market.SPOT:
            why = f"binance has no bars of a second for {symbol}; use 1Min, or trades"
            raise InvalidRequest(Code.INVALID_TIMEFRAME, why)
        now_ns = await self.server_ns()
        stop_ns = min(stop_ns, now_ns)
        at_ns = start_ns
        while at_ns < stop_ns:
            end_ns = min(stop_ns, at_ns + self._span_ns(timeframe))
            query: _Query = {
                "symbol": name,
                "interval": INTERVALS[timeframe],
                "startTime": at_ns // _NS_PER_MS,
                "endTime": -(-end_ns // _NS_PER_MS) - 1,
                "limit": _KLINES_PAGE,
            }
            rows = await self._ask(symbol, "/klines", query, parse.KLINES, self._paths.klines)
            if rows:
                bars = _within(parse.kline_bars(rows, self.market, now_ns), at_ns, end_ns)
                if bars.size:
                    yield bars
                last_ns = int(parse.to_ns([max(row.open_time for row in rows)])[0])
                at_ns = max(last_ns, at_ns) + timeframe.ns
            else:
                at_ns = end_ns

    async def depth_snapshot(self, symbol: str) -> Ticks:
        """Return the whole book that the venue shows (5,000 levels a side, futures 1,000) as Stream.DEPTH.

        id is its lastUpdateId, local_ns when it came; time_ns the venue's where it gives one (futures).
        """
        query: _Query = {"symbol": self._name(symbol), "limit": self._paths.depth_levels}
        book = await self._ask(symbol, "/depth", query, parse.DEPTH, self._paths.depth)
        return parse.depth_ticks(book, self._now_ns())

    async def server_ns(self) -> TsNs:
        """Return the venue's clock, nanoseconds since 1970."""
        answer = await self._ask("", "/time", None, parse.SERVER_TIME, 1)
        return int(parse.to_ns([answer.time])[0])

    async def close(self) -> None:
        """End its connections."""
        await self._rest.close()

    async def _pages(self, symbol: str, stream: Stream, from_id: int, first: Ticks | None) -> AsyncIterator[Ticks]:
        """Yield pages from an id on until one is empty: a short page is no proof that it was the last."""
        page = first
        while True:
            if page is None:
                page = await self._page(symbol, stream, from_id)
            if not page.size:
                return
            fresh = page.take(page.column("id") >= from_id)
            if not fresh.size:
                why = f"binance answers {symbol} from id {from_id} with older ids only; try again"
                raise SourceUnavailable(Code.SOURCE_ANSWER_INVALID, why)
            yield fresh
            from_id = int(fresh.column("id")[-1]) + 1
            page = None

    async def _page(self, symbol: str, stream: Stream, from_id: int) -> Ticks:
        if stream is Stream.AGG_TRADES:
            return await self._agg_trades(symbol, {"fromId": from_id})
        query: _Query = {"symbol": self._name(symbol), "fromId": from_id, "limit": self._paths.trades_page}
        rows = await self._ask(symbol, "/historicalTrades", query, parse.TRADES, self._paths.trades)
        return parse.trade_ticks(rows)

    async def _agg_trades(self, symbol: str, where: Mapping[str, int]) -> Ticks:
        query: _Query = {"symbol": self._name(symbol), **where, "limit": _AGG_TRADES_PAGE}
        rows = await self._ask(symbol, "/aggTrades", query, parse.AGG_TRADES, self._paths.agg_trades)
        return parse.agg_trade_ticks(rows)

    async def _ask(
        self,
        symbol: str,
        path: str,
        query: _Query | None,
        decoder: msgspec.json.Decoder[T],
        weight: int,
    ) -> T:
        try:
            answer, _ = await self._rest.json(self._paths.base + path, query, decoder, weight=weight)
        except Refused as refused:
            raise _translated(refused, symbol) from None
        return answer

    def _name(self, symbol: str) -> str:
        market, name = venue_symbol(symbol)
        if market is not self.market:
            raise parse.symbol_unknown(symbol, f" on its market {self.market}, for it is a symbol of {market}")
        return name

    def _has_trades(self) -> bool:
        return self.market is Market.SPOT or bool(self._config.api_key)

    def _check_stream(self, stream: Stream) -> None:
        if stream is Stream.TRADES and not self._has_trades():
            why = "binance gives old trades of futures to holders of a key only: set its api_key, use agg_trades"
            raise InvalidRequest(Code.INVALID_REQUEST, f"{why}, or import its archive")
        if stream not in (Stream.TRADES, Stream.AGG_TRADES):
            why = f"binance has no history of {stream} by request, only of {', '.join(self.streams)}"
            raise InvalidRequest(Code.INVALID_REQUEST, why)

    def _span_ns(self, timeframe: Timeframe) -> int:
        """How far one request for klines may reach; coin-margined ones are cut by days, and from their newest end."""
        if self.market is Market.CM:
            return min(_KLINES_PAGE * timeframe.ns, _COIN_SPAN_NS // timeframe.ns * timeframe.ns)
        return 1 << 62

    def _limit(self) -> RateLimit:
        usable = self._weight_per_min * self._config.budget_share
        return RateLimit(burst=usable * _BURST_SHARE, per_s=usable / _MINUTE_S)

    def _quiet_s(self, headers: Mapping[str, str]) -> float:
        """Seconds to hold requests: until the next minute, when the used weight begins anew.

        The address is shared with whatever else runs on it, so what we count by ourselves is not enough.
        """
        used = headers.get("X-MBX-USED-WEIGHT-1M", "")
        if not used.isdecimal() or int(used) < self._weight_per_min * self._config.budget_share:
            return 0.0
        return _MINUTE_S - math.fmod(self._waits.wall_s(), _MINUTE_S)


def _translated(refused: Refused, symbol: str) -> AtlasError:
    """Say what a refusal means."""
    try:
        problem = parse.PROBLEM.decode(refused.body)
    except (msgspec.DecodeError, UnicodeDecodeError):  # not the venue's JSON
        return SourceUnavailable(Code.SOURCE_ANSWER_INVALID, f"binance refuses {symbol} ({refused}); try again later")
    about_symbol = problem.code == _ILLEGAL_CHARACTERS and "'symbol'" in problem.msg
    if problem.code == _INVALID_SYMBOL or about_symbol:
        return parse.symbol_unknown(symbol)
    why = f"binance refuses the request for {symbol}: {problem.msg} ({problem.code}, HTTP {refused.status})"
    return SourceUnavailable(Code.SOURCE_UNAVAILABLE, why, {"venue_code": problem.code})


def _within(bars: Bars, start_ns: TsNs, stop_ns: TsNs) -> Bars:
    low, high = np.searchsorted(bars.start_ns, [start_ns, stop_ns])
    return bars.rows(int(low), int(high))
