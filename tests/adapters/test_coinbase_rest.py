"""Coinbase's history on request, against a server that pages as the venue does and fails as venues do."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.coinbase.config import CoinbaseConfig
from adapters.coinbase.rest import TRADES_PER_PAGE, CoinbaseHistory
from adapters.shared.backoff import Waits
from daemon.core.errors import Code, InvalidRequest, NotFound, RateLimited, SourceDataInvalid, SourceUnavailable
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Timeframe
from daemon.core.ports import HistorySource
from daemon.core.ticks import BUY, SELL, Stream, concatenate, empty

PRODUCT = (Path(__file__).parent / "payloads" / "coinbase" / "exchange_product.json").read_bytes()
START_NS = 1_704_067_200 * NS_PER_SECOND  # 2024-01-01
MINUTE_NS = 60 * NS_PER_SECOND
NOW_NS = START_NS + NS_PER_DAY + 59 * NS_PER_SECOND


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self):
        self.now_s = 0.0
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_s += seconds

    @property
    def waits(self):
        return Waits(lambda: self.now_s, lambda: 1.7e9 + self.now_s, self.sleep, random.Random(1))  # noqa: S311 - no secret


class Venue:
    """A Coinbase Exchange with one product. trades: (id, time ns); rows: candles as the venue writes them."""

    def __init__(self):
        self.trades = []
        self.rows = []
        self.largest_page = TRADES_PER_PAGE
        self.is_end_inclusive = True
        self.is_after_inclusive = False
        self.faults = []  # answers that go before the right ones
        self.asked = []

    async def answer(self, request):
        self.asked.append(request.path_qs)
        if self.faults:
            return self.faults.pop(0)
        if request.match_info["product"] != "BTC-USD":
            return web.json_response({"message": "NotFound"}, status=404)
        return {"": self.product, "trades": self.page, "candles": self.candles}[request.match_info.get("what", "")](
            request.query
        )

    def product(self, _query):
        return web.Response(body=PRODUCT, content_type="application/json")

    def page(self, query):
        cursor = int(query.get("after", 1 << 62)) + self.is_after_inclusive
        older = sorted((trade for trade in self.trades if trade[0] < cursor), reverse=True)
        page = older[: min(int(query["limit"]), self.largest_page)]
        headers = {"CB-BEFORE": str(page[0][0]), "CB-AFTER": str(page[-1][0])} if page else {}
        return web.json_response([written(*trade) for trade in page], headers=headers)

    def candles(self, query):
        length_s = int(query["granularity"])
        start, end = (int(datetime.fromisoformat(query[name]).timestamp()) for name in ("start", "end"))
        if (end - start) // length_s + self.is_end_inclusive > 300:
            message = "granularity too small for the requested time range. Count of aggregations requested exceeds 300"
            return web.json_response({"message": message}, status=400)
        last = end if self.is_end_inclusive else end - 1
        return web.json_response([row for row in reversed(self.rows) if start <= row[0] <= last])


def written(trade_id, time_ns):
    second = datetime.fromtimestamp(time_ns // NS_PER_SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return {
        "time": f"{second}.{time_ns % NS_PER_SECOND // 1000:06d}Z",
        "trade_id": trade_id,
        "price": f"{6225 + trade_id % 7}.32000000",
        "size": "0.06469797",
        "side": "sell" if trade_id % 2 else "buy",
    }


def steadily(count, first_id=1, step_ns=NS_PER_SECOND):
    """Trades with contiguous ids, a step of time apart."""
    return [(first_id + place, START_NS + place * step_ns) for place in range(count)]


def candle(start_s, price=10.0, volume=1.5):
    return [start_s, price - 2, price + 2, price - 1, price + 1, volume]


@pytest.fixture
def venue():
    return Venue()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def history(venue, clock):
    app = web.Application()
    app.router.add_get("/products/{product}", venue.answer)
    app.router.add_get("/products/{product}/{what}", venue.answer)
    async with TestServer(app) as server:
        config = CoinbaseConfig(rest=str(server.make_url("")), rest_per_s=1e6, rest_burst=1e6)
        made = CoinbaseHistory(config, now_ns=lambda: NOW_NS, waits=clock.waits)
        yield made
        await made.close()


async def collected(pages):
    found = [page async for page in pages]
    return concatenate(found) if found else empty(Stream.TRADES)


async def ids(pages):
    return (await collected(pages)).column("id").tolist()


def between(history, after_id, before_id):
    return history.ticks_between("BTC-USD", Stream.TRADES, after_id, before_id)


def in_time(history, start_ns, stop_ns):
    return history.ticks("BTC-USD", Stream.TRADES, start_ns, stop_ns)


# --- Trades -----------------------------------------------------------------------------------------------------------


def test_it_is_a_history_source():
    made = CoinbaseHistory()
    assert isinstance(made, HistorySource)
    assert made.streams == (Stream.TRADES,)


async def test_trades_between_two_ids_are_exactly_those(history, venue):
    venue.trades = steadily(5_000)
    assert await ids(between(history, 1_234, 4_321)) == list(range(1_235, 4_321))
    assert len(venue.asked) == 4


async def test_trades_arrive_with_exact_numbers_and_the_aggressors_side(history, venue):
    venue.trades = steadily(2)
    made = await collected(between(history, 0, 3))
    assert (made.column("price").tolist(), made.price_decimals) == ([622_632, 622_732], 2)
    assert (made.column("size").tolist(), made.size_decimals) == ([6_469_797] * 2, 8)
    assert made.column("side").tolist() == [BUY, SELL]  # makers sold, bought
    assert made.time_ns.tolist() == [START_NS, START_NS + NS_PER_SECOND]


async def test_no_page_is_longer_than_the_venues(history, venue):
    venue.trades = steadily(3_500)
    assert [page.size async for page in between(history, 0, 3_501)] == [1_000, 1_000, 1_000, 500]


@pytest.mark.parametrize(("after_id", "before_id"), [(7, 8), (7, 7), (9, 7), (-1, 1), (10, -1)])
async def test_nothing_lies_between_neighbours_and_nothing_is_asked(history, venue, after_id, before_id):
    venue.trades = steadily(20)
    assert await ids(between(history, after_id, before_id)) == []
    assert venue.asked == []


async def test_an_empty_page_is_the_end(history):
    assert await ids(between(history, 10, 20)) == []
    assert await ids(in_time(history, START_NS, START_NS + NS_PER_DAY)) == []


async def test_the_first_page_of_all_is_short(history, venue):
    venue.trades = steadily(1_500)
    assert await ids(between(history, -1, 1_501)) == list(range(1, 1_501))


async def test_ids_that_are_missing_are_passed_over(history, venue):
    venue.trades = [trade for trade in steadily(6_000) if not 1_500 <= trade[0] < 4_200]
    assert await ids(between(history, 1_000, 5_000)) == [*range(1_001, 1_500), *range(4_200, 5_000)]


async def test_a_venue_that_gives_shorter_pages_costs_requests_and_no_trades(history, venue):
    venue.trades = steadily(2_500)
    venue.largest_page = 100
    assert await ids(between(history, 100, 2_400)) == list(range(101, 2_400))


async def test_a_trade_that_comes_on_two_pages_is_kept_once(history, venue):
    venue.trades = steadily(2_500)
    venue.is_after_inclusive = True
    venue.largest_page = 300
    assert await ids(between(history, 100, 2_400)) == list(range(101, 2_400))


async def test_a_venue_that_does_not_look_at_the_cursor_is_not_asked_for_ever(history, venue):
    venue.faults = [web.json_response([written(*trade) for trade in steadily(10, first_id=5_000)])]
    with pytest.raises(SourceDataInvalid, match="newer ones"):
        await ids(between(history, 100, 200))


async def test_a_range_of_time_is_found_without_reading_what_lies_around(history, venue):
    venue.trades = steadily(200_000)
    first_ns, stop_ns = START_NS + 50_000 * NS_PER_SECOND, START_NS + 50_900 * NS_PER_SECOND
    assert await ids(in_time(history, first_ns, stop_ns)) == list(range(50_001, 50_901))
    assert len(venue.asked) < 25
    assert sum("limit=1000" in path for path in venue.asked) <= 4


async def test_all_time_is_all_trades(history, venue):
    venue.trades = steadily(3_210)
    assert await ids(in_time(history, 0, START_NS + NS_PER_DAY)) == list(range(1, 3_211))


@pytest.mark.parametrize(("start", "stop"), [(-20, -10), (20_000, 30_000), (5, 5), (9, 3)])
async def test_a_range_without_trades_has_none(history, venue, start, stop):
    venue.trades = steadily(3_000)
    assert await ids(in_time(history, START_NS + start * NS_PER_SECOND, START_NS + stop * NS_PER_SECOND)) == []


async def test_neighbours_that_are_timed_out_of_order_are_found_at_either_end(history, venue):
    venue.trades = steadily(5_000)
    # Ten trades before the range, and ten within it, change places with such as lie 300 ids away.
    for place in range(10):
        for left in (1_800, 2_800):
            (a, a_ns), (b, b_ns) = venue.trades[left + place], venue.trades[left + 300 + place]
            venue.trades[left + place], venue.trades[left + 300 + place] = (a, b_ns), (b, a_ns)
    start_ns, stop_ns = START_NS + 2_000 * NS_PER_SECOND, START_NS + 3_000 * NS_PER_SECOND
    expected = [number for number, time_ns in venue.trades if start_ns <= time_ns < stop_ns]
    assert await ids(in_time(history, start_ns, stop_ns)) == expected


@settings(max_examples=25, deadline=None)
@given(st.data())
async def test_any_range_of_time_gives_what_a_look_at_all_trades_gives(data):
    venue, clock = Venue(), Clock()
    gaps = data.draw(st.lists(st.sampled_from([0, 0, 0, 1, 3]), min_size=1, max_size=60))
    number, at_ns = data.draw(st.integers(1, 5_000)), START_NS
    for gap in gaps:
        for _ in range(50):
            venue.trades.append((number, at_ns))
            number, at_ns = number + 1, at_ns + 1_000_000 * data.draw(st.integers(0, 1)) if gap else at_ns + 1_000
        number += gap * 10
    span = st.integers(-1, (at_ns - START_NS) // 1_000 + 2).map(lambda steps: START_NS + steps * 1_000)
    start_ns, stop_ns = data.draw(span), data.draw(span)
    expected = [number for number, time_ns in venue.trades if start_ns <= time_ns < stop_ns]
    made = CoinbaseHistory(waits=clock.waits)

    async def page(_product, cursor, limit):
        older = [trade for trade in venue.trades if cursor is None or trade[0] < cursor]
        return [as_trade(written(*trade)) for trade in reversed(older[-limit:])]

    made._page = page  # noqa: SLF001 - without a server: hundreds of requests an example
    assert await ids(in_time(made, start_ns, stop_ns)) == expected


def as_trade(message):
    from adapters.coinbase.messages import ExchangeTrade

    return ExchangeTrade(**message)


# --- Bars -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_end_inclusive", [True, False])
@pytest.mark.parametrize("count", [1, 298, 299, 300, 301, 900])
async def test_no_bar_is_missed_or_repeated_between_requests(history, venue, is_end_inclusive, count):
    venue.is_end_inclusive = is_end_inclusive
    first_s = START_NS // NS_PER_SECOND
    venue.rows = [candle(first_s + 60 * place, price=100.0 + place) for place in range(-5, 1_000)]
    found = [made async for made in history.bars("BTC-USD", Timeframe.MIN_1, START_NS, START_NS + count * MINUTE_NS)]
    starts = [start for made in found for start in made.start_ns.tolist()]
    assert starts == [START_NS + place * MINUTE_NS for place in range(count)]
    assert found[0].open[0] == 99.0


async def test_columns_of_candles_are_not_mixed_up(history, venue):
    venue.rows = [[START_NS // NS_PER_SECOND, 0.25, 4.5, 1.25, 2.5, 77.125]]
    (bars,) = [made async for made in history.bars("btc/usd", Timeframe.DAY_1, START_NS, START_NS + NS_PER_DAY)]
    assert [float(column[0]) for column in bars[1:]] == [1.25, 4.5, 0.25, 2.5, 77.125]


async def test_quiet_intervals_have_no_bar_and_empty_answers_are_no_end(history, venue):
    first_s = START_NS // NS_PER_SECOND
    venue.rows = [candle(first_s), candle(first_s + 60 * 1_000)]
    found = [made async for made in history.bars("BTC-USD", Timeframe.MIN_1, START_NS, START_NS + NS_PER_DAY)]
    assert [made.start_ns.tolist() for made in found] == [[START_NS], [START_NS + 1_000 * MINUTE_NS]]


async def test_the_running_bar_is_not_given(history, venue):
    now_s = (START_NS + NS_PER_DAY) // NS_PER_SECOND
    venue.rows = [candle(now_s - 120), candle(now_s - 60), candle(now_s)]
    stop_ns = START_NS + 2 * NS_PER_DAY
    found = [made async for made in history.bars("BTC-USD", Timeframe.MIN_1, START_NS + 3, stop_ns)]
    starts = [start // NS_PER_SECOND for made in found for start in made.start_ns.tolist()]
    assert starts == [now_s - 120, now_s - 60]


async def test_candles_outside_of_what_was_asked_for_are_dropped(history, venue):
    venue.faults = [web.json_response([candle(START_NS // NS_PER_SECOND + 60 * place) for place in (2, 1, 1, 0, -1)])]
    found = [made async for made in history.bars("BTC-USD", Timeframe.MIN_1, START_NS, START_NS + 2 * MINUTE_NS)]
    assert [made.start_ns.tolist() for made in found] == [[START_NS, START_NS + MINUTE_NS]]


async def test_a_candle_that_starts_between_the_intervals_is_refused(history, venue):
    venue.rows = [candle(START_NS // NS_PER_SECOND + 1)]
    with pytest.raises(SourceDataInvalid, match="starts at 2024-01-01T00:00:01Z"):
        [made async for made in history.bars("BTC-USD", Timeframe.MIN_1, START_NS, START_NS + NS_PER_DAY)]


async def test_bars_of_a_second_are_refused_by_name(history, venue):
    with pytest.raises(InvalidRequest, match="no bars of 1Sec; choose one of 1Min"):
        [made async for made in history.bars("BTC-USD", Timeframe.SEC_1, START_NS, START_NS + NS_PER_DAY)]
    assert venue.asked == []


# --- Instruments, and what goes wrong ---------------------------------------------------------------------------------


async def test_an_instrument_is_told_in_the_venues_decimals(history):
    facts = await history.instrument("btc/usd")
    assert (facts.symbol, facts.status) == ("BTC-USD", "online")
    assert (facts.tick_size, facts.step_size) == ("0.01", "0.00000001")
    assert (facts.min_size, facts.min_notional) == ("0.00000001", "1")


async def test_an_unknown_product_is_not_found(history):
    with pytest.raises(NotFound, match="no product XYZ-USD") as caught:
        await history.instrument("XYZ-USD")
    assert caught.value.code is Code.SYMBOL_UNKNOWN
    with pytest.raises(NotFound):
        await ids(history.ticks("XYZ-USD", Stream.TRADES, 0, 1))


async def test_other_streams_than_trades_are_refused(history):
    with pytest.raises(InvalidRequest, match="no history of depth"):
        await ids(history.ticks("BTC-USD", Stream.DEPTH, 0, 1))


async def test_a_limit_is_waited_for_and_nothing_is_lost(history, venue, clock):
    venue.trades = steadily(10)
    venue.faults = [web.Response(status=429, headers={"Retry-After": "7"})]
    assert await ids(between(history, 0, 11)) == list(range(1, 11))
    assert sum(clock.slept) >= 7


async def test_a_limit_beyond_patience_says_how_long(history, venue):
    venue.faults = [web.Response(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(RateLimited) as caught:
        await history.instrument("BTC-USD")
    assert caught.value.details["retry_after_s"] == 3600


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 502, "text": "bad gateway"},
        {"status": 200, "text": "<html><h1>Just a moment…</h1></html>", "content_type": "text/html"},
        {"status": 200, "text": json.dumps([written(1, START_NS)])[:-20], "content_type": "application/json"},
        {"status": 200, "text": ""},
    ],
)
async def test_what_passes_by_itself_is_asked_again(history, venue, fault):
    venue.trades = steadily(3)
    venue.faults = [web.Response(**fault)]
    assert await ids(between(history, 0, 4)) == [1, 2, 3]
    assert len(venue.asked) == 2


async def test_a_venue_that_stays_down_is_unavailable(history, venue):
    venue.faults = [web.Response(status=503) for _ in range(20)]
    with pytest.raises(SourceUnavailable) as caught:
        await history.instrument("BTC-USD")
    assert caught.value.code is Code.SOURCE_UNAVAILABLE


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"price": None}, SourceUnavailable, "price"),
        ({"trade_id": "one"}, SourceUnavailable, "trade_id"),
        ({"price": "many"}, SourceDataInvalid, "not a decimal"),
        ({"time": "yesterday"}, SourceDataInvalid, "not a time"),
    ],
)
async def test_a_trade_of_another_form_is_named(history, venue, change, error, says):
    venue.faults = [web.json_response([written(5, START_NS) | change])]
    with pytest.raises(error, match=says):
        await ids(between(history, 4, 6))


async def test_a_new_field_is_passed_over(history, venue):
    venue.faults = [web.json_response([written(5, START_NS) | {"venue": "CBE", "fees": None}])]
    assert await ids(between(history, 4, 6)) == [5]


async def test_a_refusal_is_passed_on_with_the_venues_words(history, venue):
    venue.faults = [web.json_response({"message": "Invalid start"}, status=400)]
    with pytest.raises(SourceUnavailable, match="Invalid start"):
        [made async for made in history.bars("BTC-USD", Timeframe.MIN_1, START_NS, START_NS + MINUTE_NS)]
