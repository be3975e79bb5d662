"""The feed against a venue on this machine: what it asks for, what it tells, and how it comes back."""

import asyncio
import contextlib
import gc
import json
from random import Random

import numpy as np
import pytest
from naive.venue import Venue, break_off, leave, saying

from adapters.binance.config import BinanceConfig, Market
from adapters.binance.feed import BinanceFeed, FeedSettings
from adapters.shared.backoff import Backoff
from adapters.shared.socket import SocketSettings
from daemon.core.errors import Code, InvalidRequest, NotFound, RateLimited, SourceDataInvalid, SourceUnavailable
from daemon.core.market import Timeframe
from daemon.core.ports import FeedBars, FeedDown, FeedHole, FeedOdd, FeedTicks, FeedUp, HoleReason, LiveFeed
from daemon.core.ticks import BUY, DepthFlag, Stream, ticks

T = 1_723_161_256_298
TRADES, DEPTH = (Stream.TRADES,), (Stream.DEPTH,)
QUICK = FeedSettings(
    batch_s=0.002,
    quiet_s=10.0,
    socket=SocketSettings(silence_s=5.0, settled_s=5.0, overlap_s=0.02, sends_per_s=10_000.0),
    backoff=Backoff(first_s=0.001, cap_s=0.002),
)


def message(stream, **fields):
    return json.dumps({"stream": stream, "data": fields})


def trade(number, symbol="BTCUSDT", **changes):
    fields = {"e": "trade", "E": T, "s": symbol, "t": number, "p": "1.5", "q": "2", "T": T + number, "m": True}
    return message(f"{symbol.lower()}@trade", **(fields | changes))


def depth(first, last, **changes):
    fields = {"e": "depthUpdate", "E": T + last, "s": "BTCUSDT", "U": first, "u": last, "b": [["1.5", "2"]], "a": []}
    return message("btcusdt@depth@100ms", **(fields | changes))


def book(last):
    return ticks(
        Stream.DEPTH,
        price_decimals=1,
        size_decimals=0,
        time_ns=[5],
        local_ns=[5],
        id=[last],
        side=[BUY],
        price=np.array([15]),
        size=np.array([2]),
        flags=[DepthFlag.SNAPSHOT],
    )


class Books:
    """Answers questions for books, one after another, the last one for ever; an error is raised."""

    def __init__(self, *answers):
        self.answers = answers
        self.asked = []

    async def __call__(self, symbol):
        answer = self.answers[min(len(self.asked), len(self.answers) - 1)]
        self.asked.append(symbol)
        await asyncio.sleep(0)
        if isinstance(answer, Exception):
            raise answer
        return book(answer)


async def no_book(symbol):
    raise AssertionError(f"nobody asked for a book of {symbol}")


def feed_of(venue, streams=TRADES, symbols=("BTCUSDT",), *, market=Market.SPOT, books=no_book, **options):
    config = BinanceConfig(ws_spot=venue.url, ws_um=venue.url, ws_cm=venue.url)
    options.setdefault("settings", QUICK)
    return BinanceFeed(config, market, symbols, streams, books, random=Random(7), **options)  # noqa: S311 - jitter


async def told(feed, enough, within_s=5.0):
    """What a feed yields until `enough(events)`."""
    events = []
    async with asyncio.timeout(within_s), contextlib.aclosing(feed.events()) as found:
        async for event in found:
            events.append(event)
            if enough(events):
                break
    return events


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def ids(events):
    return [each for event in of(FeedTicks, events) for each in event.rows.column("id").tolist()]


def flags(events):
    """[(id, flags)] of all rows of a book."""
    return [
        pair
        for event in of(FeedTicks, events)
        for pair in zip(event.rows.column("id").tolist(), event.rows.column("flags").tolist(), strict=True)
    ]


def until_id(last):
    return lambda events: last in ids(events)


@pytest.fixture(autouse=True)
async def _nothing_is_left_behind():
    before = asyncio.all_tasks()
    yield
    assert not [task for task in asyncio.all_tasks() - before if "BinanceFeed" in repr(task) or "Socket" in repr(task)]
    gc.collect()  # an unclosed session or transport would warn, and warnings are errors


def test_it_is_a_live_feed():
    feed: LiveFeed = BinanceFeed(BinanceConfig(), Market.SPOT, ["BTCUSDT"], TRADES, no_book)
    assert feed


async def test_spot_streams_are_asked_for_in_one_url_with_times_in_microseconds():
    async with Venue(saying(trade(1))) as venue:
        streams = (Stream.TRADES, Stream.AGG_TRADES, Stream.QUOTES, Stream.BARS)
        feed = feed_of(venue, streams, ("BTC-USDT", "ETHUSDT"), timeframes=[Timeframe.MIN_1, Timeframe.HOUR_1])
        await told(feed, until_id(1))
    names = [f"{name}@{kind}" for name in ("btcusdt", "ethusdt") for kind in ("trade", "aggTrade", "bookTicker")]
    names[3:3] = ["btcusdt@kline_1m", "btcusdt@kline_1h"]
    names += ["ethusdt@kline_1m", "ethusdt@kline_1h"]
    assert venue.queries == [f"/stream?streams={'/'.join(names)}&timeUnit=MICROSECOND"]


async def test_usd_margined_streams_come_from_two_entries():
    async with Venue(saying(trade(1))) as venue:
        every = (Stream.TRADES, Stream.AGG_TRADES, Stream.QUOTES, Stream.DEPTH, Stream.BARS)
        feed = feed_of(
            venue,
            every,
            ("BTCUSDT-PERP",),
            market=Market.UM,
            timeframes=[Timeframe.DAY_1],
            settings=QUICK._replace(depth_ms=0),
        )
        await told(feed, lambda events: len(ids(events)) == 2)
    assert sorted(venue.queries) == [
        "/market/stream?streams=btcusdt@aggTrade/btcusdt@kline_1d",
        "/public/stream?streams=btcusdt@trade/btcusdt@bookTicker/btcusdt@depth@0ms",
    ]


async def test_coin_margined_streams_keep_the_venue_s_names():
    async with Venue(saying(trade(1, "BTCUSD_PERP"))) as venue:
        (tick, *_) = of(FeedTicks, await told(feed_of(venue, TRADES, ("BTCUSD-PERP",), market=Market.CM), until_id(1)))
    assert venue.queries == ["/stream?streams=btcusd_perp@trade"]
    assert tick.symbol == "BTCUSD-PERP"


async def test_streams_are_spread_over_connections_and_it_is_up_once_all_are():
    async with Venue(saying(trade(1)), saying(trade(2)), saying(trade(3))) as venue:
        feed = feed_of(venue, TRADES, ("AUSDT", "BUSDT", "CUSDT"), settings=QUICK._replace(streams_per_connection=1))
        events = await told(feed, lambda events: len(ids(events)) == 3 and of(FeedUp, events))
    assert sorted(query.partition("=")[2].partition("&")[0] for query in venue.queries) == [
        "ausdt@trade",
        "busdt@trade",
        "cusdt@trade",
    ]
    assert len(of(FeedUp, events)) == 1


@pytest.mark.parametrize(
    ("symbols", "streams", "settings", "code"),
    [
        (("BTCUSDT-PERP",), TRADES, QUICK, Code.INVALID_SYMBOL),
        ((), TRADES, QUICK, Code.INVALID_REQUEST),
        (("BTCUSDT",), (), QUICK, Code.INVALID_REQUEST),
        (("BTCUSDT",), (Stream.BARS,), QUICK, Code.INVALID_REQUEST),
        (("BTCUSDT",), DEPTH, QUICK._replace(depth_ms=0), Code.INVALID_REQUEST),
    ],
)
def test_what_the_market_does_not_have_is_refused(symbols, streams, settings, code):
    with pytest.raises(InvalidRequest) as caught:
        BinanceFeed(BinanceConfig(), Market.SPOT, symbols, streams, no_book, settings=settings)
    assert caught.value.code == code


async def test_many_messages_become_few_columns():
    async with Venue(saying(*map(trade, range(1_000)))) as venue:
        events = await told(feed_of(venue), until_id(999))
    assert ids(events) == list(range(1_000))
    assert len(of(FeedTicks, events)) < 50
    assert max(event.rows.size for event in of(FeedTicks, events)) <= QUICK.batch_frames


async def test_symbols_come_back_under_our_names():
    async with Venue(saying(trade(1))) as venue:
        feed = feed_of(venue, TRADES, ("BTCUSDT-PERP",), market=Market.UM)
        (first, *_) = of(FeedTicks, await told(feed, until_id(1)))
    assert first.symbol == "BTCUSDT-PERP"


async def test_complete_bars_are_told():
    candle = {"t": T, "i": "1m", "o": "1", "h": "4", "l": "0.5", "c": "2", "v": "100", "q": "7", "x": True}
    async with Venue(saying(message("btcusdt@kline_1m", s="BTCUSDT", k=candle))) as venue:
        feed = feed_of(venue, (Stream.BARS,), timeframes=[Timeframe.MIN_1])
        events = await told(feed, lambda events: of(FeedBars, events))
    (bars,) = of(FeedBars, events)
    assert (bars.symbol, bars.timeframe, bars.bars.size) == ("BTCUSDT", Timeframe.MIN_1, 1)


async def test_garbage_unknown_fields_and_strange_trades_do_not_stop_it():
    async with Venue(
        saying(trade(1, surprise=[1]), "{garbage", trade(2, X="INSURANCE_FUND"), trade(3, p="x"), trade(4))
    ) as venue:
        events = await told(feed_of(venue), lambda events: len(ids(events)) == 2 and len(of(FeedOdd, events)) == 3)
    assert ids(events) == [1, 4]
    whys = [odd.why for odd in of(FeedOdd, events)]
    assert len(whys) == 3
    assert any("INSURANCE_FUND" in why for why in whys)


@pytest.mark.parametrize("ending", [leave, break_off, lambda talk: talk.hang_up_within_a_message()])
async def test_a_lost_connection_is_told_with_the_time_it_was_last_heard(ending):
    clock = iter(range(1_000, 2_000))
    async with Venue(saying(trade(1), then=ending), saying(trade(2))) as venue:
        events = await told(feed_of(venue, clock=lambda: next(clock)), until_id(2))
    states = [event for event in events if not isinstance(event, FeedTicks)]
    assert [type(state) for state in states] == [FeedUp, FeedDown, FeedUp]
    assert not states[1].planned
    assert states[1].at_ns == of(FeedTicks, events)[0].rows.column("local_ns")[-1]


async def test_silence_without_a_close_is_a_loss():
    silent = QUICK._replace(socket=QUICK.socket._replace(silence_s=0.05))
    async with Venue(saying(trade(1), then=lambda talk: talk.hush()), saying(trade(2))) as venue:
        events = await told(feed_of(venue, settings=silent), until_id(2))
    (down,) = of(FeedDown, events)
    assert "silent" in down.reason


async def test_a_venue_that_cannot_be_reached_is_told_once():
    async with Venue(503, 503, 503, saying(trade(1))) as venue:
        events = await told(feed_of(venue), until_id(1))
    assert [type(event) for event in events] == [FeedDown, FeedUp, FeedTicks]


async def test_the_loss_of_a_second_connection_is_told_where_it_reaches_further_back():
    both_heard = asyncio.Event()

    async def script(talk):
        if talk.number > 2:
            await talk.listen()
            return
        symbol = talk.request.query["streams"].partition("@")[0].upper()
        await talk.say(trade(talk.number, symbol))
        if symbol == "BUSDT":
            await talk.hush()
        await both_heard.wait()
        await talk.say(trade(100, symbol))
        venue.refuses = True
        await leave(talk)

    silent = QUICK._replace(streams_per_connection=1, socket=QUICK.socket._replace(silence_s=0.1))
    async with Venue(script) as venue:
        feed = feed_of(venue, TRADES, ("AUSDT", "BUSDT"), settings=silent)
        events = []
        async with asyncio.timeout(5), contextlib.aclosing(feed.events()) as found:
            async for event in found:
                events.append(event)
                if {1, 2} <= set(ids(events)):
                    both_heard.set()
                if len(of(FeedDown, events)) == 2:
                    venue.refuses = False
                if len(of(FeedUp, events)) == 2:
                    break
    last = events.index(of(FeedUp, events)[1])
    heard = {event.symbol: int(event.rows.column("local_ns")[-1]) for event in of(FeedTicks, events[:last])}
    assert [type(event) for event in events if not isinstance(event, FeedTicks)] == [FeedUp, FeedDown, FeedDown, FeedUp]
    assert [down.at_ns for down in of(FeedDown, events)] == [heard["AUSDT"], heard["BUSDT"]]


class Tape:
    """The same messages to every connection at the same time, as a venue sends them."""

    def __init__(self, *messages):
        self.messages = messages
        self.listeners = set()

    async def __call__(self, talk):
        self.listeners.add(talk)
        await talk.listen()
        self.listeners.discard(talk)

    async def run(self, pause_s=0.001):
        for text in self.messages:
            for talk in tuple(self.listeners):
                with contextlib.suppress(ConnectionError):
                    await talk.say(text)
            await asyncio.sleep(pause_s)


async def play(tape, feed, last):
    events = []
    playing = None
    async with asyncio.timeout(5), contextlib.aclosing(feed.events()) as found:
        async for event in found:
            events.append(event)
            playing = playing or asyncio.create_task(tape.run())
            if last in ids(events):
                break
    await playing
    return events


async def test_a_planned_reconnect_loses_neither_trades_nor_the_book():
    tape = Tape(*[text for number in range(1, 150) for text in (trade(10_000 + number), depth(number, number))])
    renewing = QUICK._replace(socket=QUICK.socket._replace(max_age_s=0.05, settled_s=0.01))
    books = Books(3)
    async with Venue(tape) as venue:
        feed = feed_of(venue, (Stream.TRADES, Stream.DEPTH), books=books, settings=renewing)
        events = await play(tape, feed, 10_149)
        assert len(venue.talks) > 1
    downs = of(FeedDown, events)
    assert downs
    assert all(down.planned for down in downs)
    trades = [each for event in of(FeedTicks, events) if event.rows.stream is Stream.TRADES for each in ids([event])]
    assert set(trades) == set(range(10_001, 10_150))
    changes = [each for event in of(FeedTicks, events) if event.rows.stream is Stream.DEPTH for each in flags([event])]
    plain = [number for number, flag in changes if not flag]
    assert plain == sorted(set(plain))  # no repeats where the connections overlap
    assert not of(FeedHole, events)
    assert len(books.asked) == 1


async def test_the_venue_s_farewell_makes_it_go_first():
    farewell = '{"e":"serverShutdown","E":1770123456789}'
    async with Venue(saying(trade(1), farewell), saying(trade(2))) as venue:
        events = await told(feed_of(venue), until_id(2))
    (down,) = of(FeedDown, events)
    assert down.planned


async def test_a_book_waits_for_its_snapshot():
    books = Books(104)
    async with Venue(saying(depth(100, 102), depth(103, 105), depth(106, 110))) as venue:
        events = await told(feed_of(venue, DEPTH, books=books), until_id(110))
    assert flags(events) == [(102, 0), (104, DepthFlag.SNAPSHOT), (105, 0), (110, 0)]
    assert books.asked == ["BTCUSDT"]


async def test_a_snapshot_that_is_too_old_is_asked_for_again():
    books = Books(80, 90, 104)
    async with Venue(saying(depth(100, 102), depth(103, 105))) as venue:
        events = await told(feed_of(venue, DEPTH, books=books), until_id(105))
    assert len(books.asked) == 3
    assert (104, DepthFlag.SNAPSHOT) in flags(events)


async def test_a_lost_change_is_a_hole_and_another_snapshot():
    books = Books(102, 111)
    gate = asyncio.Event()

    async def script(talk):
        await talk.say(depth(100, 102))
        await gate.wait()
        await talk.say(depth(103, 105), depth(109, 110), depth(111, 112))
        await talk.listen()

    async with Venue(script) as venue:
        feed = feed_of(venue, DEPTH, books=books)
        events = []
        async with asyncio.timeout(5), contextlib.aclosing(feed.events()) as found:
            async for event in found:
                events.append(event)
                if 102 in ids(events):
                    gate.set()
                if 112 in ids(events):
                    break
    (hole,) = of(FeedHole, events)
    assert (hole.symbol, hole.stream, hole.hole.reason) == ("BTCUSDT", Stream.DEPTH, HoleReason.SEQUENCE)
    assert (hole.hole.after_id, hole.hole.before_id) == (105, 109)
    assert flags(events)[-3:] == [(110, DepthFlag.AFTER_GAP), (111, DepthFlag.SNAPSHOT), (112, 0)]


async def test_a_reconnect_that_lost_no_change_keeps_the_book():
    books = Books(102)
    async with Venue(
        saying(depth(100, 102), depth(103, 105), then=leave), saying(depth(103, 105), depth(106, 107))
    ) as venue:
        events = await told(feed_of(venue, DEPTH, books=books), until_id(107))
    assert len(books.asked) == 1
    assert not of(FeedHole, events)
    assert ids(events).count(105) == 1


@pytest.mark.parametrize(
    "refusal",
    [
        SourceUnavailable(Code.SOURCE_UNAVAILABLE, "the venue does not answer"),
        RateLimited(Code.RATE_LIMITED, "the venue does not answer now", {"retry_after_s": 0.01}),
        SourceDataInvalid(Code.SOURCE_ANSWER_INVALID, "the venue does not answer sense"),
    ],
)
async def test_a_book_that_cannot_be_had_now_is_asked_for_again(refusal):
    books = Books(refusal, refusal, 102)
    async with Venue(saying(depth(100, 102), depth(103, 105))) as venue:
        events = await told(feed_of(venue, DEPTH, books=books), until_id(105))
    assert len(books.asked) == 3
    assert [odd.why for odd in of(FeedOdd, events)] == [f"no book of BTCUSDT: {refusal.message}"] * 2


async def test_a_symbol_that_the_venue_does_not_know_ends_the_feed():
    books = Books(NotFound(Code.SYMBOL_UNKNOWN, "binance does not know BTCUSDT"))
    async with Venue(saying(depth(100, 102))) as venue:
        with pytest.raises(NotFound, match="does not know"):
            await told(feed_of(venue, DEPTH, books=books), lambda _: False)


async def test_a_stream_that_falls_silent_while_others_speak_is_subscribed_again():
    async def script(talk):
        await talk.say(trade(1, "AUSDT"))
        number = 1
        while len(talk.received) < 2:
            number += 1
            await talk.say(trade(number, "BUSDT"))
            with contextlib.suppress(TimeoutError):
                talk.received.append(json.loads(await talk.channel.receive_str(timeout=0.004)))
        await talk.say('{"result":null,"id":2}', trade(9_999, "AUSDT"))
        await talk.listen()

    async with Venue(script) as venue:
        feed = feed_of(venue, TRADES, ("AUSDT", "BUSDT"), settings=QUICK._replace(quiet_s=0.05))
        events = await told(feed, until_id(9_999))
        assert venue.talks[0].received[:2] == [
            {"method": "UNSUBSCRIBE", "params": ["ausdt@trade"], "id": 1},
            {"method": "SUBSCRIBE", "params": ["ausdt@trade"], "id": 2},
        ]
    (odd,) = of(FeedOdd, events)
    assert odd.why.startswith("ausdt@trade has been silent for 0.05 s")
    assert not of(FeedDown, events)


async def test_patience_with_a_quiet_stream_grows():
    async def script(talk):
        number = 0
        with contextlib.suppress(ConnectionError):
            while True:
                number += 1
                await talk.say(trade(number, "BUSDT"))
                await asyncio.sleep(0.003)

    async with Venue(script) as venue:
        feed = feed_of(venue, TRADES, ("AUSDT", "BUSDT"), settings=QUICK._replace(quiet_s=0.02))
        events = await told(feed, lambda events: len(of(FeedOdd, events)) == 3)
    assert [odd.why.split(" for ")[1].split()[0] for odd in of(FeedOdd, events)] == ["0.02", "0.04", "0.08"]


async def test_a_feed_is_iterated_once():
    async with Venue(saying(trade(1))) as venue:
        feed = feed_of(venue)
        await told(feed, until_id(1))
        with pytest.raises(RuntimeError, match="once"):
            await told(feed, until_id(1))


async def test_cancelling_the_reader_closes_every_connection():
    async with Venue(saying(trade(1))) as venue:
        feed = feed_of(venue, TRADES, ("AUSDT", "BUSDT"), settings=QUICK._replace(streams_per_connection=1))
        reading = asyncio.create_task(told(feed, lambda _: False))
        async with asyncio.timeout(5):
            while len(venue.talks) < 2:  # noqa: ASYNC110 - the venue has no event for it
                await asyncio.sleep(0.002)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        async with asyncio.timeout(5):
            for talk in venue.talks:
                await talk.over.wait()
