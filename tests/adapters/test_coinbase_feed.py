"""Coinbase's feeds over real sockets, against a server that greets, repeats, falls silent and hangs up as venues do."""

import asyncio
import contextlib
import json
import random
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

from adapters.coinbase.batches import batches
from adapters.coinbase.config import CoinbaseConfig, Interface
from adapters.coinbase.feed import CoinbaseFeed
from adapters.shared.backoff import Backoff
from daemon.core.errors import InvalidRequest, NotFound
from daemon.core.ports import FeedBars, FeedDown, FeedHole, FeedOdd, FeedTicks, FeedUp, HoleReason
from daemon.core.ticks import DepthFlag, Stream

RECORDED = (Path(__file__).parent / "payloads" / "coinbase" / "exchange_trade_against_the_book.ndjson").read_text()
PATIENCE_S = 5.0
AT = "2026-04-07T14:30:00Z"


class Venue:
    """Plays one script a connection; when they are used up, the last one again. A script gets the socket."""

    def __init__(self):
        self.scripts = []
        self.heard = []  # of each connection, what it was sent
        self.ended = asyncio.Event()

    async def answer(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        number = len(self.heard)
        heard = []
        self.heard.append(heard)
        script = self.scripts[min(number, len(self.scripts) - 1)]
        heard.append(json.loads((await socket.receive()).data))
        playing = asyncio.create_task(script(socket))
        async for message in socket:
            heard += [json.loads(message.data)] if message.type is WSMsgType.TEXT else []
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await playing
        self.ended.set()
        return socket


def says(*messages, then=None):
    """A script: say these, then stay, or do this as well."""

    async def script(socket):
        for message in messages:
            await socket.send_str(message if isinstance(message, str) else json.dumps(message))
        if then is not None:
            await then(socket)

    return script


async def hangs_up(socket):
    await socket.close(code=1012, message=b"service restart")


async def breaks(socket):
    socket._req.transport.abort()  # noqa: SLF001 - a line that is cut says no goodbye


@pytest.fixture
def venue():
    return Venue()


@pytest.fixture
async def connect(venue):
    app = web.Application()
    app.router.add_get("/", venue.answer)
    async with TestServer(app) as server:
        url = str(server.make_url("/")).replace("http", "ws")

        def make(*streams, symbols=("BTC-USD",), interface=Interface.EXCHANGE, silence_s=PATIENCE_S, **options):
            config = CoinbaseConfig(ws=url, advanced_ws=url, silence_s=silence_s, sends_per_s=1e3, **options)
            backoff = Backoff(first_s=0.01, cap_s=0.02)
            return CoinbaseFeed(
                symbols,
                streams or (Stream.TRADES,),
                config,
                interface=interface,
                backoff=backoff,
                random=random.Random(1),  # noqa: S311 - no secret
            )

        yield make


async def until(feed, enough):
    """Events of a feed up to the one with which there are enough; then it is closed."""
    found = []
    async with asyncio.timeout(PATIENCE_S), contextlib.aclosing(feed.events()) as events:
        async for event in events:
            found.append(event)
            if enough(found):
                return found
    raise AssertionError(found)


def kinds(events, *kinds):
    return [event for event in events if isinstance(event, kinds)]


def trade_ids(events):
    rows = [event.rows for event in kinds(events, FeedTicks) if event.rows.stream is Stream.TRADES]
    return [number for each in rows for number in each.column("id").tolist()]


def depth_flags(events):
    rows = [event.rows for event in kinds(events, FeedTicks) if event.rows.stream is Stream.DEPTH]
    return [flag for each in rows for flag in each.column("flags").tolist()]


def match(trade_id, kind="match"):
    return {
        "type": kind,
        "trade_id": trade_id,
        "product_id": "BTC-USD",
        "price": "68900.50",
        "size": "0.1",
        "side": "buy",
        "time": AT,
    }


def snapshot():
    return {"type": "snapshot", "product_id": "BTC-USD", "bids": [["10", "1"]], "asks": [["11", "1"]], "time": AT}


def update():
    return {"type": "l2update", "product_id": "BTC-USD", "changes": [["sell", "11", "0"]], "time": AT}


def heartbeat():
    return {"type": "heartbeat", "product_id": "BTC-USD", "last_trade_id": 0, "sequence": 5, "time": AT}


def counted(channel, sequence, **event):
    return {"channel": channel, "timestamp": AT, "sequence_num": sequence, "events": [event]}


def l2_data(sequence, kind):
    level = {"side": "bid", "event_time": AT, "price_level": "10", "new_quantity": "1"}
    return counted("l2_data", sequence, type=kind, product_id="BTC-USD", updates=[level])


# --- The Exchange -----------------------------------------------------------------------------------------------------


async def test_the_exchange_is_subscribed_to_in_one_message_with_heartbeats(venue, connect):
    venue.scripts = [says(match(1))]
    feed = connect(Stream.TRADES, Stream.DEPTH, Stream.QUOTES, symbols=("btc/usd", "ETH-USD", "BTC-USD"))
    await until(feed, trade_ids)
    assert venue.heard == [
        [
            {
                "type": "subscribe",
                "product_ids": ["BTC-USD", "ETH-USD"],
                "channels": ["heartbeat", "matches", "level2_batch", "ticker"],
            }
        ]
    ]


async def test_a_recording_becomes_trades_and_depth(venue, connect):
    venue.scripts = [says(*RECORDED.splitlines())]
    events = await until(
        connect(Stream.TRADES, Stream.DEPTH), lambda found: len(trade_ids(found)) == 2 and len(depth_flags(found)) == 7
    )
    assert isinstance(events[0], FeedUp)
    assert trade_ids(events) == [3_828_970, 3_828_971]
    assert depth_flags(events) == [DepthFlag.SNAPSHOT] * 5 + [0, 0]
    assert kinds(events, FeedOdd, FeedHole, FeedDown) == []


async def test_many_messages_come_in_few_tables(venue, connect):
    venue.scripts = [says(*map(match, range(1, 501)))]
    events = await until(connect(), lambda found: len(trade_ids(found)) == 500)
    assert trade_ids(events) == list(range(1, 501))
    assert len(kinds(events, FeedTicks)) < 100


@pytest.mark.parametrize("end", [hangs_up, breaks])
async def test_after_a_disconnect_it_subscribes_anew_and_repeats_are_no_hole(venue, connect, end):
    venue.scripts = [
        says(match(1), match(2), snapshot(), then=end),
        says(match(2, "last_match"), snapshot(), update(), match(3)),
    ]
    feed = connect(Stream.TRADES, Stream.DEPTH)
    events = await until(feed, lambda found: 3 in trade_ids(found) and len(depth_flags(found)) == 5)
    assert [type(event) for event in kinds(events, FeedUp, FeedDown)] == [FeedUp, FeedDown, FeedUp]
    assert not kinds(events, FeedDown)[0].planned
    assert trade_ids(events) == [1, 2, 2, 3]
    full, gap = DepthFlag.SNAPSHOT, DepthFlag.AFTER_GAP
    assert depth_flags(events) == [full, full, full | gap, full, 0]
    assert kinds(events, FeedHole) == []
    assert venue.heard[0] == venue.heard[1]


async def test_trades_missed_while_disconnected_are_a_hole_by_their_ids(venue, connect):
    venue.scripts = [says(match(1), then=hangs_up), says(match(5, "last_match"), match(6))]
    events = await until(connect(), lambda found: kinds(found, FeedHole))
    (hole,) = kinds(events, FeedHole)
    found = hole.hole
    assert (found.reason, found.after_id, found.before_id, found.missing) == (HoleReason.IDS, 1, 5, 3)


async def test_silence_without_a_close_ends_the_connection(venue, connect):
    venue.scripts = [says(match(1)), says(match(2))]
    events = await until(connect(silence_s=0.2), lambda found: 2 in trade_ids(found))
    (down,) = kinds(events, FeedDown)
    assert "silent" in down.reason


async def test_heartbeats_keep_a_quiet_market_connected(venue, connect):
    async def beats(socket):
        for _ in range(12):
            await asyncio.sleep(0.1)
            await socket.send_json(heartbeat())
        await socket.send_json(match(2))

    venue.scripts = [says(match(1), then=beats)]
    events = await until(connect(silence_s=0.9), lambda found: 2 in trade_ids(found))
    assert kinds(events, FeedDown) == []


async def test_garbage_is_counted_and_the_feed_goes_on(venue, connect):
    venue.scripts = [says("\x00garbage", '{"type":"match"', "<html>", {"type": "novelty"}, match(1) | {"new": None})]
    events = await until(connect(), trade_ids)
    assert len(kinds(events, FeedOdd)) == 4
    assert kinds(events, FeedDown) == []


async def test_a_message_larger_than_allowed_ends_the_connection_and_says_so(venue, connect):
    venue.scripts = [says(match(1), match(2) | {"padding": "x" * 2_000}), says(match(3))]
    events = await until(connect(max_frame_bytes=1_000), lambda found: 3 in trade_ids(found))
    assert "exceeds limit" in kinds(events, FeedDown)[0].reason


async def test_a_refused_subscription_says_why_and_is_tried_again(venue, connect):
    complaint = {"type": "error", "message": "Failed to subscribe", "reason": "XYZ-USD is not a valid product"}
    venue.scripts = [says(complaint)]
    events = await until(connect(silence_s=0.2), lambda found: len(kinds(found, FeedUp)) == 2)
    assert "XYZ-USD is not a valid product" in kinds(events, FeedOdd)[0].why


async def test_closing_the_iteration_closes_the_connection(venue, connect):
    venue.scripts = [says(match(1))]
    await until(connect(), trade_ids)
    async with asyncio.timeout(PATIENCE_S):
        await venue.ended.wait()


async def test_cancelling_the_iteration_closes_the_connection(venue, connect):
    venue.scripts = [says(match(1))]
    began = asyncio.Event()

    async def follow():
        async for event in connect().events():
            if isinstance(event, FeedTicks):
                began.set()

    task = asyncio.create_task(follow())
    async with asyncio.timeout(PATIENCE_S):
        await began.wait()
        task.cancel()
        await asyncio.wait((task,))
        await venue.ended.wait()
    assert task.cancelled()


# --- Advanced Trade ---------------------------------------------------------------------------------------------------


async def test_advanced_trade_is_subscribed_to_channel_by_channel(venue, connect):
    venue.scripts = [says(l2_data(0, "snapshot"))]
    streams = (Stream.TRADES, Stream.DEPTH, Stream.BARS)
    await until(connect(*streams, interface=Interface.ADVANCED), lambda _: len(venue.heard[0]) == 4)
    assert venue.heard[0] == [
        {"type": "subscribe", "channel": "heartbeats"},
        {"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USD"]},
        {"type": "subscribe", "channel": "level2", "product_ids": ["BTC-USD"]},
        {"type": "subscribe", "channel": "candles", "product_ids": ["BTC-USD"]},
    ]


async def test_advanced_trade_gives_trades_depth_and_bars(venue, connect):
    trade = {"product_id": "BTC-USD", "price": "10", "size": "1", "side": "SELL", "time": AT}
    bucket = {"product_id": "BTC-USD", "open": "1", "high": "1", "low": "1", "close": "1", "volume": "1"}
    venue.scripts = [
        says(
            counted("market_trades", 0, type="snapshot", trades=[trade | {"trade_id": "5"}, trade | {"trade_id": "4"}]),
            l2_data(1, "snapshot"),
            counted("candles", 2, type="snapshot", candles=[bucket | {"start": "1775571600"}]),
            l2_data(3, "update"),
        )
    ]
    feed = connect(Stream.TRADES, Stream.DEPTH, Stream.BARS, interface=Interface.ADVANCED)
    events = await until(feed, lambda found: len(depth_flags(found)) == 2)
    assert trade_ids(events) == [4, 5]
    assert depth_flags(events) == [DepthFlag.SNAPSHOT, 0]
    assert kinds(events, FeedBars)[0].bars.size == 1
    assert kinds(events, FeedOdd, FeedHole, FeedDown) == []


async def test_a_skipped_number_is_a_hole_and_brings_a_new_snapshot(venue, connect):
    venue.scripts = [
        says(l2_data(0, "snapshot"), l2_data(1, "update"), l2_data(3, "update")),
        says(l2_data(0, "snapshot"), l2_data(1, "update")),
    ]
    feed = connect(Stream.DEPTH, interface=Interface.ADVANCED)
    events = await until(feed, lambda found: len(kinds(found, FeedUp)) == 2 and len(depth_flags(found)) == 5)
    (hole,) = kinds(events, FeedHole)
    assert (hole.stream, hole.hole.reason) == (Stream.DEPTH, HoleReason.SEQUENCE)
    full, gap = DepthFlag.SNAPSHOT, DepthFlag.AFTER_GAP
    assert depth_flags(events) == [full, 0, gap, full | gap, 0]


# --- What is not asked of the venue -----------------------------------------------------------------------------------


def test_streams_that_an_interface_does_not_have_are_refused():
    with pytest.raises(InvalidRequest, match="no stream of bars; choose among trades, depth, quotes"):
        CoinbaseFeed(["BTC-USD"], [Stream.BARS])
    with pytest.raises(InvalidRequest, match="no stream of agg_trades"):
        CoinbaseFeed(["BTC-USD"], [Stream.AGG_TRADES], interface=Interface.ADVANCED)


def test_what_cannot_be_a_product_is_refused():
    with pytest.raises(NotFound):
        CoinbaseFeed(["BTCUSD"])


# --- Gathering --------------------------------------------------------------------------------------------------------


async def test_a_full_batch_does_not_wait_for_its_window():
    async def count():
        for number in range(10):
            yield number

    async with asyncio.timeout(PATIENCE_S):
        assert [batch async for batch in batches(count(), window_s=3600, most=4)] == [
            [0, 1, 2, 3],
            [4, 5, 6, 7],
            [8, 9],
        ]


async def test_a_window_ends_a_batch_and_loses_nothing():
    async def slowly():
        for number in range(6):
            yield number
            await asyncio.sleep(0.01)

    found = [batch async for batch in batches(slowly(), window_s=0.001, most=100)]
    assert [number for batch in found for number in batch] == list(range(6))
    assert len(found) > 1


async def test_an_error_comes_after_what_was_before_it():
    async def fails():
        yield 1
        raise OSError("broken")

    async with contextlib.aclosing(batches(fails(), window_s=0.001, most=100)) as found:
        assert await anext(found) == [1]
        with pytest.raises(OSError, match="broken"):
            await anext(found)


async def test_a_consumer_that_stops_closes_what_it_read():
    closed = []

    async def endless():
        try:
            while True:
                yield 1
                await asyncio.sleep(0)
        finally:
            closed.append(True)

    async with contextlib.aclosing(batches(endless(), window_s=0.001, most=3)) as found:
        async for _ in found:
            await asyncio.sleep(0.01)  # the pump waits for room meanwhile
            break
    assert closed == [True]
