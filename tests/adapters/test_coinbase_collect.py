"""What becomes of a feed's messages: rows gathered, holes found, books marked where events are lost."""

import json

import numpy as np
import pytest

from adapters.coinbase import parse
from adapters.coinbase.collect import Collector
from adapters.shared.socket import Down, Frame, Up
from daemon.core.market import NS_PER_SECOND, Timeframe
from daemon.core.ports import FeedBars, FeedDown, FeedHole, FeedOdd, FeedTicks, FeedUp, HoleReason
from daemon.core.ticks import DepthFlag, Stream

AT_NS = 1_775_572_200 * NS_PER_SECOND  # 2026-04-07T14:30:00Z
FULL = DepthFlag.SNAPSHOT
GAP = DepthFlag.AFTER_GAP


def stamp(seconds):
    whole, fraction = divmod(round(seconds * 1_000_000), 1_000_000)
    minutes, rest = divmod(whole, 60)
    return f"2026-04-07T14:{30 + minutes:02d}:{rest:02d}.{fraction:06d}Z"


def match(trade_id, seconds=0.0, product="BTC-USD", price="10.5"):
    return {
        "type": "match",
        "trade_id": trade_id,
        "product_id": product,
        "price": price,
        "size": "1",
        "side": "buy",
        "time": stamp(seconds),
    }


def snapshot(seconds=0.0, product="BTC-USD"):
    return {
        "type": "snapshot",
        "product_id": product,
        "time": stamp(seconds),
        "bids": [["10", "1"], ["9", "2"]],
        "asks": [["11", "1"]],
    }


def update(seconds=0.0, product="BTC-USD", size="3"):
    return {
        "type": "l2update",
        "product_id": product,
        "time": stamp(seconds),
        "changes": [["buy", "10", size]],
    }


def heartbeat(product):
    return {"type": "heartbeat", "product_id": product, "last_trade_id": 0}


def advanced(channel, sequence, *events, seconds=0.0):
    return {"channel": channel, "timestamp": stamp(seconds), "sequence_num": sequence, "events": events}


def level(seconds=0.0, side="bid", kind="update"):
    each = {"side": side, "event_time": stamp(seconds), "price_level": "10", "new_quantity": "1"}
    return {"type": kind, "product_id": "BTC-USD", "updates": [each]}


def bucket(start_s, close="10"):
    five = {"open": "10", "high": "12", "low": "9", "close": close, "volume": "3", "product_id": "BTC-USD"}
    return five | {"start": str(AT_NS // NS_PER_SECOND + start_s)}


class Feed:
    """A collector, and the messages that reach it over one connection after the other."""

    def __init__(self, read=parse.read_exchange, products=("BTC-USD", "ETH-USD"), wanted=(), *, has_depth=True):
        self.collector = Collector(
            read, products, frozenset(wanted), has_depth=has_depth, silence_ns=15 * NS_PER_SECOND
        )
        self.connection = 0
        self.connect()
        self.collector.take()

    def connect(self):
        self.connection += 1
        self.collector.up(Up(AT_NS, self.connection))

    def send(self, *messages, connection=None, seconds=0.0):
        for message in messages:
            text = message if isinstance(message, str) else json.dumps(message)
            local_ns = AT_NS + int(seconds * NS_PER_SECOND)
            self.collector.add(Frame(local_ns, text, connection or self.connection))

    def take(self, kind=None):
        events = self.collector.take()
        return events if kind is None else [event for event in events if isinstance(event, kind)]

    def flags(self):
        return [event.rows.column("flags").tolist() for event in self.take(FeedTicks)]


@pytest.fixture
def feed():
    return Feed()


@pytest.fixture
def counted():
    return Feed(parse.read_advanced, ("BTC-USD",))


# --- Gathering --------------------------------------------------------------------------------------------------------


def test_messages_of_one_stream_become_one_table(feed):
    feed.send(match(1), match(2), match(7, product="ETH-USD"), match(3))
    btc, eth = feed.take()
    assert (btc.symbol, btc.rows.stream, btc.rows.column("id").tolist()) == ("BTC-USD", Stream.TRADES, [1, 2, 3])
    assert (eth.symbol, eth.rows.column("id").tolist()) == ("ETH-USD", [7])
    assert feed.take() == []


def test_a_connections_end_comes_after_what_it_brought(feed):
    feed.send(match(1))
    feed.collector.down(Down(AT_NS + 5, "lost", planned=False, connection=1))
    feed.connect()
    feed.send(match(2))
    rows, down, up, more = feed.take()
    assert isinstance(rows, FeedTicks)
    assert down == FeedDown(AT_NS + 5, "lost", planned=False)
    assert up == FeedUp(AT_NS)
    assert isinstance(more, FeedTicks)


def test_one_price_that_is_none_spoils_only_its_own_message(feed):
    feed.send(match(1), match(2, price="dear"), match(3))
    first, odd, second, hole = feed.take()
    assert (first.rows.column("id").tolist(), second.rows.column("id").tolist()) == ([1], [3])
    assert isinstance(odd, FeedOdd)
    assert "dear" in odd.why
    assert json.loads(odd.message)["trade_id"] == 2
    assert (hole.hole.after_id, hole.hole.before_id) == (1, 3)


def test_prices_that_fit_64_bits_only_apart_come_apart(feed):
    feed.send(match(1, price="0.00000000000001"), match(2, price="12345678901.5"))
    assert [event.rows.price_decimals for event in feed.take(FeedTicks)] == [14, 1]


def test_products_that_nobody_asked_for_are_odd(feed):
    feed.send(match(1, product="BTC-USDC"))
    (odd,) = feed.take()
    assert "'BTC-USDC' is not what was subscribed to" in odd.why


@pytest.mark.parametrize("garbage", ["", "{", "<html>", '{"type":"novelty"}', '{"type":"match"}', "\x00"])
def test_garbage_is_odd_and_the_feed_goes_on(feed, garbage):
    feed.send(garbage, match(1))
    odd, rows = feed.take()
    assert isinstance(odd, FeedOdd)
    assert odd.message == garbage
    assert isinstance(rows, FeedTicks)


def test_a_part_of_the_subscription_that_the_venue_passes_over_is_odd():
    feed = Feed(wanted=[("matches", "BTC-USD"), ("level2_batch", "BTC-USD"), ("matches", "ETH-USD")])
    channels = [{"name": "matches", "product_ids": ["BTC-USD"]}, {"name": "level2_50", "product_ids": ["BTC-USD"]}]
    feed.send({"type": "subscriptions", "channels": channels})
    assert [odd.why for odd in feed.take()] == ["the venue has not subscribed us to matches of ETH-USD"]


# --- Trades -----------------------------------------------------------------------------------------------------------


def test_ids_that_jump_are_a_hole_of_so_many(feed):
    feed.send(match(10, 1), match(11, 2), match(15, 3))
    rows, hole = feed.take()
    assert rows.rows.size == 3
    assert (hole.symbol, hole.stream) == ("BTC-USD", Stream.TRADES)
    found = hole.hole
    assert (found.reason, found.after_id, found.before_id, found.missing) == (HoleReason.IDS, 11, 15, 3)
    assert (found.start_ns, found.stop_ns) == (AT_NS + 2 * NS_PER_SECOND, AT_NS + 3 * NS_PER_SECOND)


def test_ids_that_jump_over_a_reconnect_are_a_hole(feed):
    feed.send(match(10))
    feed.take()
    feed.connect()
    feed.send(match(14, 9) | {"type": "last_match"}, match(15, 9))
    (hole,) = feed.take(FeedHole)
    assert (hole.hole.after_id, hole.hole.before_id, hole.hole.missing) == (10, 14, 3)


@pytest.mark.parametrize("repeated", [[11], [10, 11], [9, 10, 11, 12]])
def test_a_reconnect_that_overlaps_is_no_hole(feed, repeated):
    feed.send(match(10), match(11))
    feed.take()
    feed.connect()
    feed.send(*map(match, repeated))
    assert feed.take(FeedHole) == []


def test_trades_out_of_order_are_no_hole(feed):
    feed.send(match(10), match(13), match(12), match(11), match(12))
    (rows,) = feed.take()
    assert rows.rows.column("id").tolist() == [10, 13, 12, 11, 12]


def test_a_late_trade_does_not_turn_the_count_back(feed):
    for trade_id in (10, 11, 9, 12):
        feed.send(match(trade_id))
        assert feed.take(FeedHole) == []


def test_the_heartbeats_last_trade_id_makes_no_hole(feed):
    feed.send(match(10), heartbeat("BTC-USD"), match(11))
    assert feed.take(FeedHole) == []


# --- Depth ------------------------------------------------------------------------------------------------------------


def test_the_first_snapshot_is_not_after_a_gap(feed):
    feed.send(snapshot(), update(1))
    assert feed.flags() == [[FULL, FULL, FULL, 0]]


def test_after_a_reconnect_the_snapshots_first_row_says_that_events_are_lost(feed):
    feed.send(snapshot(), update(1))
    feed.take()
    feed.connect()
    feed.send(snapshot(9), update(10), snapshot(9, "ETH-USD"))
    assert feed.flags() == [[FULL | GAP, FULL, FULL, 0], [FULL | GAP, FULL, FULL]]


def test_rows_of_a_replaced_connection_count_only_as_trades(feed):
    feed.send(snapshot())
    feed.take()
    feed.connect()
    feed.send(match(1), update(1), connection=1)
    feed.send(match(1), snapshot(2))
    trades, depth = feed.take(FeedTicks)
    assert trades.rows.column("id").tolist() == [1, 1]
    assert depth.rows.column("flags").tolist() == [FULL | GAP, FULL, FULL]


def test_an_update_is_not_timed_before_the_snapshot_that_it_follows(feed):
    feed.send(snapshot(5), update(4.9), update(5.2))
    (rows,) = feed.take()
    offsets = (rows.rows.time_ns - AT_NS) / NS_PER_SECOND
    assert offsets.tolist() == [5, 5, 5, 5, 5.2]
    feed.send(update(4.8))
    assert feed.take()[0].rows.time_ns.tolist() == [AT_NS + 5 * NS_PER_SECOND]


def test_a_snapshot_without_a_time_stays_before_its_updates(feed):
    feed.send(snapshot() | {"time": None}, seconds=5.25)
    feed.send(update(5), update(6))
    offsets = (feed.take()[0].rows.time_ns - AT_NS) / NS_PER_SECOND
    assert offsets.tolist() == [5.25, 5.25, 5.25, 5.25, 6]


def test_a_snapshot_is_not_timed_before_what_the_last_connection_brought(feed):
    feed.send(snapshot(1), update(10))
    feed.take()
    feed.connect()
    feed.send(snapshot() | {"time": None}, seconds=9)
    assert feed.take(FeedTicks)[0].rows.time_ns.tolist() == [AT_NS + 10 * NS_PER_SECOND] * 3


def test_a_clock_gone_wrong_is_said_once_and_moves_no_update(feed):
    feed.send(snapshot() | {"time": None}, seconds=300)
    feed.send(update(10))
    odd, rows = feed.take()
    assert "goes back by 290 s in time; is this machine's clock right?" in odd.why
    assert rows.rows.time_ns.tolist()[-1] == AT_NS + 10 * NS_PER_SECOND
    feed.send(update(11))
    assert feed.take(FeedOdd) == []


def test_an_empty_book_is_no_rows(feed):
    feed.send(snapshot() | {"bids": [], "asks": []})
    assert feed.take() == []


@pytest.mark.parametrize("spoiled", [{"changes": [["buy", "cheap", "1"]]}, {"changes": [["buy", None, "1"]]}])
def test_depth_that_cannot_be_read_is_lost_depth(feed, spoiled):
    feed.send(snapshot(), update(1), update(2) | spoiled, update(3), seconds=4)
    events = feed.take()
    holes = [event for event in events if isinstance(event, FeedHole)]
    assert [(hole.symbol, hole.stream, hole.hole.reason) for hole in holes] == [
        ("BTC-USD", Stream.DEPTH, HoleReason.SEQUENCE)
    ]
    flags = [flag for event in events if isinstance(event, FeedTicks) for flag in event.rows.column("flags").tolist()]
    assert flags == [FULL, FULL, FULL, 0, GAP]
    assert feed.collector.wants_renewal


def test_a_number_that_is_skipped_is_a_hole_in_depth_and_wishes_for_a_new_snapshot(counted):
    counted.send(
        advanced("l2_data", 0, level(kind="snapshot"), seconds=1),
        advanced("heartbeats", 1, {"heartbeat_counter": 1}, seconds=2),
        advanced("l2_data", 2, level(3), seconds=3),
    )
    assert not counted.collector.wants_renewal
    counted.take()
    counted.send(advanced("heartbeats", 4, {"heartbeat_counter": 2}, seconds=5), advanced("l2_data", 5, level(6)))
    hole, rows = counted.take()
    assert (hole.symbol, hole.stream, hole.hole.reason) == ("BTC-USD", Stream.DEPTH, HoleReason.SEQUENCE)
    assert (hole.hole.start_ns, hole.hole.stop_ns) == (AT_NS + 3 * NS_PER_SECOND, AT_NS + 5 * NS_PER_SECOND)
    assert rows.rows.column("flags").tolist() == [GAP]
    assert counted.collector.wants_renewal


def test_a_book_that_is_lost_is_not_lost_again_before_it_has_a_row(counted):
    counted.send(advanced("l2_data", 0, level(kind="snapshot")))
    counted.send(advanced("heartbeats", 5, {}), advanced("heartbeats", 9, {}))
    assert len(counted.take(FeedHole)) == 1
    counted.send(advanced("l2_data", 10, level(1)), advanced("heartbeats", 20, {}))
    assert len(counted.take(FeedHole)) == 1


def test_a_number_that_goes_back_is_a_hole_too(counted):
    counted.send(advanced("l2_data", 5, level(kind="snapshot")), advanced("l2_data", 5, level(1)))
    assert len(counted.take(FeedHole)) == 1


def test_numbers_begin_anew_with_a_connection(counted):
    counted.send(advanced("l2_data", 80, level(kind="snapshot")))
    counted.connect()
    counted.send(advanced("heartbeats", 0, {}))
    assert not counted.collector.wants_renewal
    counted.connect()
    counted.send(advanced("l2_data", 0, level(kind="snapshot")), advanced("l2_data", 81, level(1)))
    assert len(counted.take(FeedHole)) == 1
    counted.connect()
    counted.send(advanced("l2_data", 0, level(kind="snapshot")))
    counted.send(advanced("heartbeats", 9, {}), connection=2)
    assert counted.take(FeedHole) == []


def test_an_unknown_channel_counts_in_the_sequence(counted):
    counted.send(
        advanced("l2_data", 0, level(kind="snapshot")), advanced("novelty", 1, {}), advanced("l2_data", 2, level(1))
    )
    assert [type(event) for event in counted.take()] == [FeedOdd, FeedTicks]
    assert not counted.collector.wants_renewal


def test_without_a_book_a_skipped_number_means_nothing():
    feed = Feed(parse.read_advanced, ("BTC-USD",), has_depth=False)
    feed.send(advanced("heartbeats", 0, {}), advanced("heartbeats", 9, {}))
    assert feed.take() == []
    assert not feed.collector.wants_renewal


def test_a_product_whose_heart_stops_is_a_hole_while_others_go_on(feed):
    feed.send(snapshot(), snapshot(0, "ETH-USD"), heartbeat("BTC-USD"), heartbeat("ETH-USD"))
    feed.send(heartbeat("BTC-USD"), seconds=10)
    feed.take()
    feed.send(heartbeat("BTC-USD"), seconds=16)
    odd, hole = feed.take()
    assert "ETH-USD has been silent" in odd.why
    assert (hole.symbol, hole.hole.reason) == ("ETH-USD", HoleReason.DISCONNECT)
    assert feed.collector.wants_renewal
    feed.send(heartbeat("BTC-USD"), seconds=17)
    assert feed.take() == []


# --- Bars -------------------------------------------------------------------------------------------------------------


def test_a_candle_is_given_once_it_can_no_longer_change(counted):
    counted.send(advanced("candles", 0, {"candles": [bucket(0), bucket(-300, "7")]}, seconds=4))
    assert counted.take(FeedBars) == []  # ended four seconds ago: it may change yet
    counted.send(advanced("heartbeats", 1, {}, seconds=5))
    (bars,) = counted.take(FeedBars)
    assert (bars.symbol, bars.timeframe) == ("BTC-USD", Timeframe.MIN_5)
    assert bars.bars.start_ns.tolist() == [AT_NS - 300 * NS_PER_SECOND]
    assert bars.bars.close.tolist() == [7.0]
    counted.send(
        advanced("candles", 2, {"candles": [bucket(0, "10.5")]}, seconds=301),
        advanced("candles", 3, {"candles": [bucket(300, "10.5"), bucket(0, "11")]}, seconds=302),
        advanced("heartbeats", 4, {}, seconds=305),
    )
    (bars,) = counted.take(FeedBars)
    assert bars.bars.close.tolist() == [11.0]


def test_candles_that_a_snapshot_repeats_are_not_given_again(counted):
    history = [bucket(start) for start in (-300, -900, -600)]
    counted.send(advanced("candles", 0, {"candles": history}, seconds=60))
    (bars,) = counted.take(FeedBars)
    assert np.diff(bars.bars.start_ns).tolist() == [300 * NS_PER_SECOND] * 2
    counted.connect()
    counted.send(advanced("candles", 0, {"candles": [*history, bucket(0)]}, seconds=400))
    (bars,) = counted.take(FeedBars)
    assert bars.bars.start_ns.tolist() == [AT_NS]


def test_a_candle_that_a_lost_connection_left_unfinished_is_not_given(counted):
    counted.send(advanced("candles", 0, {"candles": [bucket(0)]}, seconds=200))
    counted.connect()
    counted.send(advanced("heartbeats", 0, {}, seconds=400))
    assert counted.take(FeedBars) == []


def test_a_candle_that_changes_after_it_was_given_is_odd(counted):
    counted.send(advanced("candles", 0, {"candles": [bucket(-300)]}, seconds=60))
    counted.take()
    counted.send(advanced("candles", 1, {"candles": [bucket(-300)]}, seconds=61))
    assert counted.take() == []
    counted.send(advanced("candles", 2, {"candles": [bucket(-300, "8")]}, seconds=62))
    (odd,) = counted.take()
    assert "changed after it was complete" in odd.why


@pytest.mark.parametrize("change", [{"close": "much"}, {"product_id": "XYZ-USD"}])
def test_a_candle_that_cannot_be_used_is_odd(counted, change):
    counted.send(advanced("candles", 0, {"candles": [bucket(-300) | change]}, seconds=60))
    (odd,) = counted.take()
    assert isinstance(odd, FeedOdd)
