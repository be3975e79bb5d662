"""Binance's history over REST, against a local server that pages, limits and fails as the venue does."""

import asyncio
import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from adapters.binance import parse
from adapters.binance.config import BinanceConfig, Market
from adapters.binance.rest import BinanceHistory
from adapters.binance.symbols import our_symbol, venue_symbol
from adapters.shared.backoff import Waits
from daemon.core.errors import Code, InvalidRequest, NotFound, RateLimited, SourceDataInvalid, SourceUnavailable
from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, Timeframe
from daemon.core.ports import HistorySource
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream, concatenate

RECORDED = Path("/work/shared/data/venues/binance")
NS_PER_MS = 1_000_000
START_MS = 1_704_067_200_000  # 2024-01-01
START_NS = START_MS * NS_PER_MS
NOW_NS = START_NS + 10 * NS_PER_DAY
MINUTE_MS = 60_000
BASES = {"spot": "/api/v3", "um": "/fapi/v1", "cm": "/dapi/v1"}
NAMES = {"spot": "BTCUSDT", "um": "BTCUSDT", "cm": "BTCUSD_PERP"}
SYMBOLS = {"spot": "BTCUSDT", "um": "BTCUSDT-PERP", "cm": "BTCUSD-PERP"}


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.slept = []
        self.now = 0.0

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def waits(self):
        return Waits(lambda: self.now, lambda: self.now + 12.0, self.sleep, Random(7))  # noqa: S311 - jitter


class Venue:
    """A market with rows by id. `failures` answer first; `headers` go with every answer."""

    def __init__(self):
        self.agg_trades = []
        self.trades = []
        self.klines = []
        self.failures = []
        self.headers = {}
        self.requests = []
        self.page = None
        self.now_ns = NOW_NS
        self.clock = Clock()
        self.server = None
        self.made = []

    async def handle(self, request):
        self.requests.append(request)
        if self.failures:
            return await self.failures.pop(0)(request)
        kind = request.path.rpartition("/")[2]
        query = request.query
        if kind == "time":
            return self.says({"serverTime": self.now_ns // NS_PER_MS})
        if kind != "exchangeInfo" and query["symbol"] not in NAMES.values():
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        return self.says(getattr(self, f"on_{kind}")(query))

    def says(self, answer):
        return web.json_response(answer, headers=self.headers)

    def on_aggTrades(self, query):  # noqa: N802 - the venue's word
        count = self.page or int(query["limit"])
        if "fromId" in query:
            return [row for row in self.agg_trades if row["a"] >= int(query["fromId"])][:count]
        return [row for row in self.agg_trades if row["T"] >= int(query["startTime"])][:count]

    def on_historicalTrades(self, query):  # noqa: N802
        count = self.page or int(query["limit"])
        return [row for row in self.trades if row["id"] >= int(query["fromId"])][:count]

    def on_klines(self, query):
        start, end = int(query["startTime"]), int(query["endTime"])
        count = self.page or int(query["limit"])
        rows = [row for row in self.klines if start <= row[0] <= end]
        return rows[-count:] if self.requests[-1].path.startswith("/dapi") else rows[:count]

    def history(self, market="spot", **options):
        url = str(self.server.make_url(""))
        config = BinanceConfig(rest_spot=url, rest_um=url, rest_cm=url, **options)
        self.made.append(BinanceHistory(market, config, waits=self.clock.waits, now_ns=lambda: NOW_NS))
        return self.made[-1]

    def asked(self, kind):
        return [request for request in self.requests if request.path.endswith(kind)]


@pytest.fixture
async def venue():
    made = Venue()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.handle)
    made.server = TestServer(app)
    await made.server.start_server()
    yield made
    for history in made.made:
        await history.close()
    await made.server.close()


def agg(number, *, at_ms=None, price="61800.30000000", size="0.00100000", maker=False, **more):
    first = 3 * number
    time = START_MS + 10 * number if at_ms is None else at_ms
    return {"a": number, "p": price, "q": size, "f": first, "l": first + 2, "T": time, "m": maker, "M": True} | more


def trade(number, *, at_ms=None):
    time = START_MS + 10 * (number // 3) if at_ms is None else at_ms
    row = {"id": number, "price": "61800.30", "qty": "0.5", "quoteQty": "1", "time": time}
    return row | {"isBuyerMaker": number % 2 == 0, "isBestMatch": True}


def kline(number, *, step_ms=MINUTE_MS, volume="1.5", close="0.3"):
    opened = START_MS + number * step_ms
    return [opened, "0.1", "0.4", "0.05", close, volume, opened + step_ms - 1, "77.25", 9, "1", "1", "0"]


def answers(body=b"", status=200, **headers):
    async def answer(_request):
        told = {key.replace("_", "-"): each for key, each in headers.items()}
        return web.Response(body=body, status=status, headers=told)

    return answer


async def hangs_up_midway(request):
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"[")
    request.transport.close()
    return response


async def collected(pages):
    got = [page async for page in pages]
    return concatenate(got) if got else None


async def all_ids(history, stream=Stream.AGG_TRADES, start_ns=START_NS, stop_ns=NOW_NS):
    rows = await collected(history.ticks(SYMBOLS[history.market], stream, start_ns, stop_ns))
    return [] if rows is None else rows.column("id").tolist()


@pytest.mark.parametrize("market", ["spot", "um", "cm"])
async def test_aggregate_trades_come_by_id_page_after_page_exactly(venue, market):
    venue.agg_trades = [agg(number, maker=number % 2 == 0) for number in range(2_500)]
    history = venue.history(market)
    rows = await collected(history.ticks(SYMBOLS[market], Stream.AGG_TRADES, START_NS, NOW_NS))
    assert rows.column("id").tolist() == list(range(2_500))
    assert rows.price_decimals == 1
    assert set(rows.column("price").tolist()) == {618_003}
    assert (set(rows.column("size").tolist()), rows.size_decimals) == ({1}, 3)
    assert rows.column("side").tolist() == [SELL, BUY] * 1_250
    assert rows.time_ns.tolist() == [START_NS + 10 * NS_PER_MS * number for number in range(2_500)]
    assert rows.column("first_id").tolist()[:2] == [0, 3]
    assert rows.column("last_id").tolist()[:2] == [2, 5]
    assert set(rows.column("local_ns").tolist()) == {0}
    paths = {request.path for request in venue.requests}
    assert paths == {f"{BASES[market]}/aggTrades"}
    assert [dict(request.query) for request in venue.requests[:2]] == [
        {"symbol": NAMES[market], "startTime": str(START_MS), "limit": "1000"},
        {"symbol": NAMES[market], "fromId": "1000", "limit": "1000"},
    ]


@pytest.mark.parametrize("market", ["spot", "um"])
async def test_old_trades_are_found_by_the_first_id_of_an_aggregate(venue, market):
    venue.agg_trades = [agg(number) for number in range(100)]
    venue.trades = [trade(number) for number in range(300)]
    history = venue.history(market, api_key="sesame")
    start_ns = START_NS + 505 * NS_PER_MS
    ids = await all_ids(history, Stream.TRADES, start_ns, START_NS + 800 * NS_PER_MS)
    assert ids == list(range(153, 240))
    assert venue.asked("historicalTrades")[0].query["fromId"] == "153"
    assert venue.asked("historicalTrades")[0].query["limit"] == {"spot": "1000", "um": "500"}[market]
    assert venue.requests[0].headers["X-MBX-APIKEY"] == "sesame"


async def test_old_trades_of_futures_need_a_key_and_say_so(venue):
    history = venue.history("um")
    with pytest.raises(InvalidRequest, match="api_key"):
        await all_ids(history, Stream.TRADES)
    assert Stream.TRADES not in history.streams
    assert Stream.TRADES in venue.history("spot").streams
    assert venue.requests == []


async def test_quotes_are_no_history_that_can_be_asked_for(venue):
    with pytest.raises(InvalidRequest, match="quotes"):
        await all_ids(venue.history(), Stream.QUOTES)


async def test_rows_outside_of_the_time_are_left_out_and_no_page_behind_it_is_asked_for(venue):
    venue.agg_trades = [agg(number) for number in range(5_000)]
    stop_ns = START_NS + 15_000 * NS_PER_MS
    ids = await all_ids(venue.history(), start_ns=START_NS + 5 * NS_PER_MS, stop_ns=stop_ns)
    assert ids == list(range(1, 1_500))
    assert len(venue.requests) == 2


async def test_a_start_within_a_millisecond_keeps_the_rows_behind_it(venue):
    venue.agg_trades = [agg(number, at_ms=(START_MS * 1_000) + 250 * number) for number in range(8)]
    venue.on_aggTrades = lambda query: venue.agg_trades if "startTime" in query else []
    assert await all_ids(venue.history(), start_ns=START_NS + 500_000) == list(range(2, 8))
    assert venue.requests[0].query["startTime"] == str(START_MS)


async def test_microseconds_are_asked_of_spot_and_told_by_their_magnitude(venue):
    venue.agg_trades = [agg(1, at_ms=START_MS * 1_000 + 866)]
    venue.on_aggTrades = lambda query: venue.agg_trades if "startTime" in query else []
    rows = await collected(venue.history().ticks("BTCUSDT", Stream.AGG_TRADES, START_NS, NOW_NS))
    assert rows.time_ns.tolist() == [START_NS + 866_000]
    assert venue.requests[0].headers["X-MBX-TIME-UNIT"] == "MICROSECOND"


async def test_no_trades_at_all_are_no_pages(venue):
    assert await all_ids(venue.history()) == []


async def test_a_short_page_is_not_taken_for_the_last(venue):
    venue.agg_trades = [agg(number) for number in range(25)]
    venue.page = 10
    assert await all_ids(venue.history()) == list(range(25))


async def test_a_stop_in_the_future_does_not_chase_trades_that_happen_now(venue):
    venue.agg_trades = [agg(number, at_ms=NOW_NS // NS_PER_MS - 2 + number) for number in range(5_000)]
    assert await all_ids(venue.history(), stop_ns=NOW_NS + NS_PER_DAY) == [0, 1]
    assert len(venue.requests) == 1


async def test_repeats_within_and_across_pages_are_dropped(venue):
    pages = [[agg(1), agg(2), agg(2)], [agg(2), agg(3)], []]
    venue.on_aggTrades = lambda _query: pages.pop(0)
    assert await all_ids(venue.history()) == [1, 2, 3]


async def test_a_repeat_with_other_values_is_refused(venue):
    venue.on_aggTrades = lambda _query: [agg(1), agg(1, price="1.0")]
    with pytest.raises(SourceDataInvalid, match="trade 1 comes twice") as error:
        await all_ids(venue.history())
    assert error.value.code is Code.TICKS_INVALID


async def test_gaps_within_and_across_pages_stay_gaps(venue):
    venue.agg_trades = [agg(number) for number in (1, 2, 5, 6, 9, 10)]
    venue.page = 3
    assert await all_ids(venue.history()) == [1, 2, 5, 6, 9, 10]


async def test_rows_out_of_order_are_sorted_by_id(venue):
    venue.agg_trades = [agg(number) for number in range(6)]
    venue.on_aggTrades = lambda query: venue.agg_trades[::-1] if "startTime" in query else []
    assert await all_ids(venue.history()) == list(range(6))


async def test_a_venue_that_goes_in_circles_is_no_endless_loop(venue):
    venue.on_aggTrades = lambda _query: [agg(1), agg(2)]
    with pytest.raises(SourceUnavailable, match="older ids only") as error:
        await all_ids(venue.history())
    assert error.value.code is Code.SOURCE_ANSWER_INVALID


async def test_ids_strictly_between_two_are_fetched_and_nothing_behind_them(venue):
    venue.agg_trades = [agg(number) for number in range(5_000)]
    history = venue.history()
    rows = await collected(history.ticks_between("BTCUSDT", Stream.AGG_TRADES, 100, 1_101))
    assert rows.column("id").tolist() == list(range(101, 1_101))
    assert len(venue.requests) == 1
    assert await collected(history.ticks_between("BTCUSDT", Stream.AGG_TRADES, 7, 8)) is None
    assert len(venue.requests) == 1


async def test_ids_that_the_venue_lacks_too_end_the_search(venue):
    venue.trades = [trade(number) for number in (10, 11, 90, 91)]
    history = venue.history()
    rows = await collected(history.ticks_between("BTCUSDT", Stream.TRADES, 5, 50))
    assert rows.column("id").tolist() == [10, 11]
    assert await collected(history.ticks_between("BTCUSDT", Stream.TRADES, 200, 300)) is None


@pytest.mark.parametrize("market", ["spot", "um", "cm"])
async def test_bars_are_the_nearest_floats_in_base_units(venue, market):
    venue.klines = [kline(number) for number in range(2_300)]
    got = [
        page
        async for page in venue.history(market).bars(
            SYMBOLS[market], Timeframe.MIN_1, START_NS, START_NS + 2_200 * MINUTE_MS * NS_PER_MS
        )
    ]
    starts = np.concatenate([bars.start_ns for bars in got])
    assert starts.tolist() == [START_NS + number * MINUTE_MS * NS_PER_MS for number in range(2_200)]
    first = [column[0] for column in got[0]]
    assert first == [START_NS, 0.1, 0.4, 0.05, 0.3, 77.25 if market == "cm" else 1.5]
    assert len(venue.asked("klines")) == 3


async def test_a_bar_that_is_not_complete_by_the_venues_clock_is_left_out(venue):
    venue.klines = [kline(number, step_ms=60 * MINUTE_MS) for number in range(10 * 24 + 1)]
    venue.now_ns = NOW_NS - NS_PER_HOUR  # ours is ahead
    start_ns, stop_ns = NOW_NS - 4 * NS_PER_HOUR, NOW_NS + NS_PER_DAY
    got = [page async for page in venue.history().bars("BTCUSDT", Timeframe.HOUR_1, start_ns, stop_ns)]
    starts = [start for bars in got for start in bars.start_ns.tolist()]
    assert starts == [NOW_NS - number * NS_PER_HOUR for number in (4, 3, 2)]


async def test_a_bar_that_is_being_made_is_left_out(venue):
    venue.klines = [kline(number, step_ms=24 * 60 * MINUTE_MS) for number in range(11)]
    venue.now_ns = NOW_NS + NS_PER_HOUR
    got = [page async for page in venue.history().bars("BTCUSDT", Timeframe.DAY_1, START_NS, NOW_NS + NS_PER_DAY)]
    assert [bars.size for bars in got] == [10]


async def test_quiet_hours_without_bars_do_not_end_the_search(venue):
    venue.klines = [kline(0), kline(1), kline(5_000)]
    stop_ns = START_NS + 6_000 * MINUTE_MS * NS_PER_MS
    for market in ("spot", "cm"):
        got = [page async for page in venue.history(market).bars(SYMBOLS[market], Timeframe.MIN_1, START_NS, stop_ns)]
        assert [start for bars in got for start in bars.start_ns.tolist()] == [
            START_NS + number * MINUTE_MS * NS_PER_MS for number in (0, 1, 5_000)
        ]


async def test_coin_margined_bars_are_asked_for_in_less_than_200_days(venue):
    history = venue.history("cm")
    start_ns = NOW_NS - 1_000 * NS_PER_DAY
    assert [page async for page in history.bars("BTCUSD-PERP", Timeframe.DAY_1, start_ns, NOW_NS)] == []
    spans = [int(each.query["endTime"]) - int(each.query["startTime"]) for each in venue.asked("klines")]
    assert len(spans) == 6
    assert max(spans) < 200 * 86_400_000


async def test_bars_begin_at_the_first_whole_one(venue):
    venue.klines = [kline(number) for number in range(4)]
    stop_ns = START_NS + 3 * MINUTE_MS * NS_PER_MS
    got = [page async for page in venue.history().bars("BTCUSDT", Timeframe.MIN_1, START_NS + 1, stop_ns)]
    assert [start for bars in got for start in bars.start_ns.tolist()] == [
        START_NS + number * MINUTE_MS * NS_PER_MS for number in (1, 2)
    ]


async def test_futures_have_no_bars_of_a_second(venue):
    with pytest.raises(InvalidRequest, match="second"):
        [page async for page in venue.history("um").bars("BTCUSDT-PERP", Timeframe.SEC_1, START_NS, NOW_NS)]


@pytest.mark.parametrize("market", ["spot", "um", "cm"])
async def test_a_snapshot_of_the_book_carries_its_update_id_and_times(venue, market):
    book = {"lastUpdateId": 77, "bids": [["10.50", "2.000"], ["10.40", "1.000"]], "asks": [["10.60", "0.125"]]}
    venue.on_depth = lambda _query: book if market == "spot" else book | {"E": START_MS + 5, "T": START_MS + 4}
    rows = await venue.history(market).depth_snapshot(SYMBOLS[market])
    assert rows.stream is Stream.DEPTH
    assert rows.column("side").tolist() == [BUY, BUY, SELL]
    assert (rows.column("price").tolist(), rows.price_decimals) == ([105, 104, 106], 1)
    assert (rows.column("size").tolist(), rows.size_decimals) == ([2_000, 1_000, 125], 3)
    assert set(rows.column("id").tolist()) == {77}
    assert set(rows.column("flags").tolist()) == {DepthFlag.SNAPSHOT}
    assert set(rows.column("local_ns").tolist()) == {NOW_NS}
    assert set(rows.time_ns.tolist()) == {NOW_NS if market == "spot" else (START_MS + 4) * NS_PER_MS}
    assert venue.requests[0].query["limit"] == {"spot": "5000"}.get(market, "1000")


async def test_an_empty_book_is_a_snapshot_without_rows(venue):
    venue.on_depth = lambda _query: {"lastUpdateId": 1, "bids": [], "asks": []}
    assert (await venue.history().depth_snapshot("BTCUSDT")).size == 0


def listed(name, *filters, **more):
    return {"symbol": name, "status": "TRADING", "filters": list(filters)} | more


PRICE = {"filterType": "PRICE_FILTER", "tickSize": "0.10", "minPrice": "1"}
LOT = {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.002", "maxQty": "9"}


@pytest.mark.parametrize(
    ("market", "least", "more", "expected"),
    [
        ("spot", {"filterType": "NOTIONAL", "minNotional": "5.0", "maxNotional": "9"}, {}, ("TRADING", "5.0")),
        ("spot", {"filterType": "MIN_NOTIONAL", "minNotional": "10"}, {"status": "CANCEL_ONLY"}, ("CANCEL_ONLY", "10")),
        ("um", {"filterType": "MIN_NOTIONAL", "notional": "100"}, {"status": "SETTLING"}, ("SETTLING", "100")),
        (
            "cm",
            {"filterType": "NEW_KIND", "x": None},
            {"status": "", "contractStatus": "DELIVERING"},
            ("DELIVERING", "0"),
        ),
    ],
)
async def test_an_instrument_tells_steps_leasts_and_status(venue, market, least, more, expected):
    other = listed("ETHUSDT", PRICE | {"tickSize": "9"})
    venue.on_exchangeInfo = lambda _query: {"symbols": [other, listed(NAMES[market], PRICE, LOT, least, **more)]}
    facts = await venue.history(market).instrument(SYMBOLS[market])
    assert facts.symbol == SYMBOLS[market]
    assert (facts.tick_size, facts.step_size, facts.min_size) == ("0.10", "0.001", "0.002")
    assert (facts.status, facts.min_notional) == expected


async def test_a_symbol_that_is_not_listed_is_unknown(venue):
    venue.on_exchangeInfo = lambda _query: {"symbols": [listed("ETHUSDT")]}
    with pytest.raises(NotFound, match="BTCUSDT-PERP") as error:
        await venue.history("um").instrument("BTCUSDT-PERP")
    assert error.value.code is Code.SYMBOL_UNKNOWN


@pytest.mark.parametrize(
    "body",
    [
        {"code": -1121, "msg": "Invalid symbol."},
        {"code": -1100, "msg": "Illegal characters found in parameter 'symbol'"},
    ],
)
async def test_the_venues_own_word_for_an_unknown_symbol_is_translated(venue, body):
    venue.failures = [answers(json.dumps(body).encode(), 400)]
    with pytest.raises(NotFound) as error:
        await all_ids(venue.history())
    assert error.value.code is Code.SYMBOL_UNKNOWN
    assert error.value.details == {"symbol": "BTCUSDT"}


async def test_a_symbol_of_another_market_is_not_asked_for(venue):
    with pytest.raises(NotFound, match="market spot"):
        await venue.history("spot").instrument("BTCUSDT-PERP")
    assert venue.requests == []


@pytest.mark.parametrize("body", [b'{"code": -4001, "msg": "too old"}', b"<html>", b'"text"'])
async def test_other_refusals_name_what_the_venue_said(venue, body):
    venue.failures = [answers(body, 400)]
    with pytest.raises(SourceUnavailable, match="HTTP 400"):
        await all_ids(venue.history())


FLAWS = [
    answers(status=429, Retry_After="3"),
    answers(status=418, Retry_After="3"),
    answers(status=503),
    answers(b"<html>busy</html>"),
    answers(b'[{"a": 1, "p": "1.0"'),
    hangs_up_midway,
]


@pytest.mark.parametrize("flaw", FLAWS)
async def test_what_passes_by_itself_costs_no_row(venue, flaw):
    venue.agg_trades = [agg(number) for number in range(1_500)]
    venue.failures = [flaw]
    assert await all_ids(venue.history()) == list(range(1_500))


async def test_a_ban_is_told_with_its_seconds(venue):
    venue.failures = [answers(status=418, Retry_After="7200")]
    with pytest.raises(RateLimited) as error:
        await all_ids(venue.history())
    assert error.value.details == {"retry_after_s": 7200}


async def test_a_blocked_country_is_told_at_once(venue):
    venue.failures = [answers(b'{"code":0,"msg":"Service unavailable from a restricted location"}', 451)]
    with pytest.raises(SourceUnavailable) as error:
        await all_ids(venue.history())
    assert error.value.code is Code.SOURCE_BLOCKED
    assert len(venue.requests) == 1


async def test_new_fields_are_passed_over_and_nulls_are_refused(venue):
    venue.on_aggTrades = lambda query: [agg(1, nq="5", X=None)] if "startTime" in query else []
    assert await all_ids(venue.history()) == [1]
    venue.on_aggTrades = lambda _query: [agg(1, p=None)]
    with pytest.raises(SourceUnavailable) as error:
        await all_ids(venue.history())
    assert error.value.code is Code.SOURCE_ANSWER_INVALID


@pytest.mark.parametrize("price", ["NaN", "", "1,5"])
async def test_a_price_that_is_none_is_refused(venue, price):
    venue.on_aggTrades = lambda _query: [agg(1, price=price)]
    with pytest.raises(SourceDataInvalid, match="price"):
        await all_ids(venue.history())


async def test_a_nearly_used_budget_waits_for_the_next_minute(venue):
    venue.agg_trades = [agg(number) for number in range(1_500)]
    venue.headers = {"X-MBX-USED-WEIGHT-1M": "4799"}
    history = venue.history(spot_weight_per_min=6_000, budget_share=0.8)
    await all_ids(history)
    assert venue.clock.slept == []
    venue.headers = {"X-MBX-USED-WEIGHT-1M": "4800"}
    await all_ids(history)
    assert venue.clock.slept == [48.0, 60.0]


async def test_the_budget_is_the_one_that_the_venue_tells(venue):
    limits = [
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 1},
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 100},
    ]
    venue.on_exchangeInfo = lambda _query: {"symbols": [listed("BTCUSDT")], "rateLimits": limits}
    history = venue.history(budget_share=0.6)
    await history.instrument("BTCUSDT")
    await history.instrument("BTCUSDT")
    assert venue.clock.slept == [10.0]  # a weight of 20 of a bucket of 10, refilled with one a second
    venue.headers = {"X-MBX-USED-WEIGHT-1M": "60"}
    await history.server_ns()
    await history.server_ns()
    assert venue.clock.slept == [10.0, 1.0, 1.0, 36.0]


@pytest.mark.parametrize(
    ("symbol", "market", "name"),
    [
        ("BTCUSDT", Market.SPOT, "BTCUSDT"),
        ("BTC/USDT", Market.SPOT, "BTCUSDT"),
        ("BTC-USDT", Market.SPOT, "BTCUSDT"),
        ("BTCUSDT-PERP", Market.UM, "BTCUSDT"),
        ("BTC/USDT-PERP", Market.UM, "BTCUSDT"),
        ("ETHUSDC-PERP", Market.UM, "ETHUSDC"),
        ("BTCBUSD-PERP", Market.UM, "BTCBUSD"),
        ("BNBUSD-PERP", Market.CM, "BNBUSD_PERP"),
        ("BTCUSD-PERP", Market.CM, "BTCUSD_PERP"),
        ("BTCUSD_PERP", Market.CM, "BTCUSD_PERP"),
        ("BTCUSDT_240628", Market.UM, "BTCUSDT_240628"),
        ("BTCUSD_240628", Market.CM, "BTCUSD_240628"),
    ],
)
def test_our_symbols_name_a_market_and_the_venues_symbol(symbol, market, name):
    assert venue_symbol(symbol) == (market, name)
    assert venue_symbol(our_symbol(market, name)) == (market, name)


def test_it_is_a_history_source(venue):
    assert isinstance(venue.history(), HistorySource)


def test_a_key_is_in_no_text_of_the_configuration():
    assert "sesame" not in repr(BinanceConfig(api_key="sesame"))


@pytest.mark.parametrize("times", [[1], [START_MS // 1_000], [START_NS], [START_MS, START_MS * 1_000], [-5]])
def test_times_of_no_or_two_units_are_refused(times):
    with pytest.raises(SourceDataInvalid, match="milliseconds") as error:
        parse.to_ns(times)
    assert error.value.code is Code.TICKS_INVALID


def recorded(name):
    path = RECORDED / name
    if not path.exists():
        pytest.skip(f"the recorded payload {path} is not on this machine")
    return path.read_bytes()


def test_recorded_aggregate_trades_are_read_exactly():
    body = recorded("py-http_spot_market_agg_trades.json")
    rows = parse.agg_trade_ticks(parse.AGG_TRADES.decode(body))
    told = json.loads(body)
    assert rows.column("id").tolist() == [row["a"] for row in told]
    assert rows.price_decimals == 2
    assert [f"{price / 100:.8f}" for price in rows.column("price").tolist()] == [row["p"] for row in told]
    assert rows.time_ns.tolist() == [row["T"] * NS_PER_MS for row in told]
    assert rows.column("side").tolist() == [SELL if row["m"] else BUY for row in told]


@pytest.mark.parametrize(
    "name", ["py-http_spot_market_historical_trades.json", "py-http_futures_market_historical_trades.json"]
)
def test_recorded_trades_are_read(name):
    body = recorded(name)
    rows = parse.trade_ticks(parse.TRADES.decode(body))
    assert rows.column("id").tolist() == sorted(row["id"] for row in json.loads(body))


@pytest.mark.parametrize(
    "name",
    ["py-http_spot_market_klines.json", "py-http_futures_market_klines.json", "spot-http_json-klines_response.json"],
)
def test_recorded_klines_are_read(name):
    body = recorded(name)
    bars = parse.kline_bars(parse.KLINES.decode(body), Market.SPOT, NOW_NS)
    told = json.loads(body)
    assert bars.close.tolist() == [float(row[4]) for row in told]
    assert bars.volume.tolist() == [float(row[5]) for row in told]


@pytest.mark.parametrize("name", ["py-http_spot_market_depth.json", "py-http_futures_market_depth.json"])
def test_recorded_books_are_read(name):
    body = recorded(name)
    rows = parse.depth_ticks(parse.DEPTH.decode(body), 5)
    told = json.loads(body)
    assert rows.size == len(told["bids"]) + len(told["asks"])
    assert set(rows.time_ns.tolist()) == {told["T"] * NS_PER_MS if "T" in told else 5}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("py-http_spot_market_exchange_info.json", ("0.01000000", "0.00001000", "0.00001000", "10.00000000")),
        ("py-http_futures_market_exchange_info.json", ("0.10", "0.001", "0.001", "10")),
    ],
)
def test_recorded_exchange_information_is_read(name, expected):
    facts = parse.instrument_facts(parse.EXCHANGE_INFO.decode(recorded(name)), "BTCUSDT", "BTCUSDT")
    assert (facts.tick_size, facts.step_size, facts.min_size, facts.min_notional) == expected
    assert facts.status == "TRADING"
