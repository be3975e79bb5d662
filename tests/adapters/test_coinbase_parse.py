"""Coinbase's messages as rows: exact numbers and times, the aggressor's side, what is tolerated and what is not."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.coinbase import parse
from adapters.coinbase.messages import AdvancedTrade, ExchangeTrade
from adapters.coinbase.products import product_id
from daemon.core.errors import NotFound, SourceDataInvalid
from daemon.core.ticks import BUY, NO_ID, SELL, UNKNOWN_NS, DepthFlag, Stream

HERE = Path(__file__).parent / "payloads" / "coinbase"
SHARED = Path("/work/shared/data/venues/coinbase")
LOCAL_NS = 1_700_000_000_000_000_001

MATCH = {
    "type": "match",
    "trade_id": 10,
    "sequence": 50,
    "maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8",
    "taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1",
    "time": "2014-11-07T08:19:27.028459Z",
    "product_id": "BTC-USD",
    "size": "5.23512",
    "price": "400.23",
    "side": "sell",
}


def shared(name):
    """A payload of the Advanced Trade interface."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not on this machine: the payloads of Advanced Trade are kept outside of the repository")
    return path.read_bytes()


def exchange(**message):
    return parse.read_exchange(json.dumps(message).encode(), LOCAL_NS)


def advanced(channel, *events, **fields):
    message = {"channel": channel, "timestamp": "2026-04-07T14:30:00Z", "sequence_num": 7, "events": events} | fields
    return parse.read_advanced(json.dumps(message).encode(), LOCAL_NS)


def only(read):
    """Columns of the one stream that a message speaks of."""
    (rows,) = read.rows
    return parse.ticks_of(rows.stream, rows.rows)


def decimals(ticks, name):
    places = ticks.price_decimals if name in ("price", "bid", "ask") else ticks.size_decimals
    return [Decimal(int(number)).scaleb(-places) for number in ticks.column(name)]


class Book:
    """A book rebuilt from rows of depth."""

    def __init__(self):
        self.levels = {BUY: {}, SELL: {}}

    def apply(self, ticks):
        rows = zip(ticks.column("side"), decimals(ticks, "price"), decimals(ticks, "size"), strict=True)
        for side, price, size in rows:
            if size:
                self.levels[int(side)][price] = size
            else:
                self.levels[int(side)].pop(price, None)

    @property
    def best_bid(self):
        return max(self.levels[BUY])

    @property
    def best_ask(self):
        return min(self.levels[SELL])


# --- Times and numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2025-12-31T06:00:12.516946132Z", 1_767_160_812_516_946_132),
        ("2025-12-31T06:00:12.44524Z", 1_767_160_812_445_240_000),
        ("2020-03-20T00:36:59.860Z", 1_584_664_619_860_000_000),
        ("2024-02-29T23:59:59.999999999+00:00", 1_709_251_199_999_999_999),
    ],
)
def test_times_keep_all_nine_digits(text, expected):
    assert parse.time_ns(text) == expected


@given(st.integers(0, (1 << 63) - 1_000_000_001), st.integers(0, 9))
def test_every_time_survives_being_written_and_read(ns, digits):
    ns -= ns % 10 ** (9 - digits)
    second = datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{ns % 10**9:09d}"[: digits + 1] if digits else ""
    assert parse.time_ns(f"{second}{fraction}Z") == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2025-12-31 06:00:12Z",
        "2025-12-31T06:00:12",
        "2025-12-31T06:00:12+02:00",
        "2025-12-31T06:00:12.0123456789Z",
        "2025-02-30T06:00:12Z",
        "2025-12-31T25:00:12Z",
        "1969-12-31T23:59:59Z",
        "2300-01-01T00:00:00Z",
        "2025-12-31T06:00:1२Z",
    ],
)
def test_a_time_in_any_other_form_is_refused(text):
    with pytest.raises(ValueError, match=r"time|64 bits|month|day|hour"):
        parse.time_ns(text)


def test_prices_and_sizes_become_integers_of_the_decimals_they_need():
    trades = [
        ExchangeTrade(trade_id=1, price="61800.30000000", size="0.00000001", side="buy", time="2024-01-01T00:00:00Z"),
        ExchangeTrade(trade_id=2, price="0.1", size="12345678.5", side="buy", time="2024-01-01T00:00:00Z"),
    ]
    made = parse.trades_of(trades)
    assert (made.price_decimals, made.size_decimals) == (1, 8)
    assert made.column("price").tolist() == [618_003, 1]
    assert made.column("size").tolist() == [1, 1_234_567_850_000_000]


def test_trades_of_a_request_are_ascending_by_id_and_each_is_there_once():
    made = parse.trades_of(
        ExchangeTrade(trade_id=number, price="1", size="1", side="buy", time="2024-01-01T00:00:00Z")
        for number in (5, 4, 4, 3, 5)
    )
    assert made.column("id").tolist() == [3, 4, 5]
    assert set(made.column("local_ns").tolist()) == {UNKNOWN_NS}


@pytest.mark.parametrize("price", ["", "abc", "NaN", "1,000", "1e400", "1" * 30])
def test_a_price_that_is_no_decimal_of_64_bits_is_refused(price):
    trade = ExchangeTrade(trade_id=1, price=price, size="1", side="buy", time="2024-01-01T00:00:00Z")
    with pytest.raises(SourceDataInvalid):
        parse.trades_of([trade])


# --- The aggressor ----------------------------------------------------------------------------------------------------


def test_a_trade_with_maker_side_buy_took_from_the_bids_so_the_aggressor_sold():
    book, proven = Book(), []
    for line in (HERE / "exchange_trade_against_the_book.ndjson").read_bytes().splitlines():
        for rows in parse.read_exchange(line, LOCAL_NS).rows:
            made = parse.ticks_of(rows.stream, rows.rows)
            if rows.stream is Stream.DEPTH:
                before = dict(book.levels[BUY])
                book.apply(made)
            elif book.levels[BUY]:
                (price,), (size,) = decimals(made, "price"), decimals(made, "size")
                assert price == book.best_bid < book.best_ask
                assert before[price] - book.levels[BUY][price] == size
                proven.append((json.loads(line)["side"], int(made.column("side")[0])))
    assert proven == [("buy", SELL)]


def test_advanced_trade_gives_the_makers_side_too_as_its_book_shows():
    class Answer(msgspec.Struct):
        trades: list[AdvancedTrade]
        best_bid: str
        best_ask: str

    answer = msgspec.json.decode(shared("http_ticker.json"), type=Answer, strict=False)
    newest = max(answer.trades, key=lambda trade: trade.trade_id)
    made = parse.trades_of([newest])
    assert Decimal(newest.price) == Decimal(answer.best_ask) > Decimal(answer.best_bid)
    assert newest.side == "SELL"
    assert made.column("side").tolist() == [BUY]


@pytest.mark.parametrize(("maker", "aggressor"), [("buy", SELL), ("sell", BUY)])
def test_the_stored_side_is_the_opposite_of_the_makers_in_both_interfaces(maker, aggressor):
    of_exchange = only(exchange(**MATCH | {"side": maker}))
    trade = {"trade_id": "1", "product_id": "BTC-USD", "price": "1", "size": "1", "time": "2024-01-01T00:00:00Z"}
    of_advanced = only(advanced("market_trades", {"type": "update", "trades": [trade | {"side": maker.upper()}]}))
    assert of_exchange.column("side").tolist() == of_advanced.column("side").tolist() == [aggressor]


# --- The Exchange's feed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["match", "last_match"])
def test_matches_are_trades_with_both_times(kind):
    made = only(exchange(**MATCH | {"type": kind}))
    assert made.stream is Stream.TRADES
    assert made.time_ns.tolist() == [1_415_348_367_028_459_000]
    assert made.column("local_ns").tolist() == [LOCAL_NS]
    assert made.column("id").tolist() == [10]
    assert (decimals(made, "price"), decimals(made, "size")) == ([Decimal("400.23")], [Decimal("5.23512")])


def test_a_snapshot_is_flagged_on_every_row_and_has_no_ids():
    made = only(
        exchange(type="snapshot", product_id="BTC-USD", bids=[["10101.10", "0.45"]], asks=[["10102.55", "0.57", "3"]])
    )
    assert made.column("side").tolist() == [BUY, SELL]
    assert made.column("flags").tolist() == [DepthFlag.SNAPSHOT] * 2
    assert made.column("id").tolist() == [NO_ID] * 2
    assert made.time_ns.tolist() == [LOCAL_NS] * 2  # this one gives no time


def test_an_l2update_says_what_each_level_holds_now():
    changes = [["buy", "10101.80000000", "0.162567"], ["sell", "10102.0", "0.00000000"]]
    made = only(exchange(type="l2update", product_id="BTC-USD", time="2019-08-14T20:42:27.265Z", changes=changes))
    assert made.column("flags").tolist() == [0, 0]
    assert decimals(made, "price") == [Decimal("10101.8"), Decimal("10102.0")]
    assert decimals(made, "size") == [Decimal("0.162567"), 0]
    assert made.time_ns.tolist() == [1_565_815_347_265_000_000] * 2


def test_a_ticker_is_a_quote():
    made = only(parse.read_exchange((HERE / "exchange_ticker.json").read_bytes(), LOCAL_NS))
    assert made.stream is Stream.QUOTES
    assert made.column("id").tolist() == [37_475_248_783]
    quote = [decimals(made, name)[0] for name in ("bid", "bid_size", "ask", "ask_size")]
    assert quote == [Decimal(text) for text in ("1285.04", "0.46688654", "1285.27", "1.56637040")]


@pytest.mark.parametrize("absent", ["best_bid", "best_ask_size"])
@pytest.mark.parametrize("how", [None, ""])
def test_a_ticker_without_both_sides_of_the_book_is_no_quote(absent, how):
    ticker = json.loads((HERE / "exchange_ticker.json").read_bytes())
    assert exchange(**ticker | {absent: how}).rows == ()


def test_the_heartbeats_last_trade_id_is_not_read():
    beat = {"type": "heartbeat", "product_id": "BTC-USD", "sequence": 90, "time": "2014-11-07T08:19:28.464459Z"}
    assert exchange(**beat, last_trade_id=0) == exchange(**beat, last_trade_id="nonsense")
    assert exchange(**beat).alive == "BTC-USD"


def test_subscriptions_are_listed_by_channel_and_product():
    channels = [{"name": "matches", "product_ids": ["BTC-USD", "ETH-USD"], "account_ids": None}, {"name": "status"}]
    read = exchange(type="subscriptions", channels=channels)
    assert read.subscribed == {("matches", "BTC-USD"), ("matches", "ETH-USD")}


def test_fields_that_are_new_are_passed_over():
    assert only(exchange(**MATCH, new_field={"deep": [1]}, another=None)).size == 1


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (b"\x00\xff garbage", "not JSON"),
        (b'{"type":"match","trade_id":1', "not JSON"),
        (b"<html>busy</html>", "not JSON"),
        (b"[]", "other JSON"),
        (b"{}", "other JSON"),
        (b'{"type":"received"}', "unknown kind"),
        (json.dumps(MATCH | {"price": None}).encode(), "price"),
        (json.dumps(MATCH | {"trade_id": -1}).encode(), "trade_id"),
        (json.dumps(MATCH | {"side": "taker"}).encode(), "side"),
        (json.dumps(MATCH | {"time": "yesterday"}).encode(), "not a time"),
        (b'{"type":"error","message":"Failed to subscribe","reason":"level2 needs a key"}', "level2 needs a key"),
    ],
)
def test_what_cannot_be_used_says_why(message, why):
    with pytest.raises(parse.Unusable, match=why) as caught:
        parse.read_exchange(message, LOCAL_NS)
    assert not caught.value.of_book


def test_depth_that_cannot_be_used_is_told_apart():
    with pytest.raises(parse.Unusable) as caught:
        exchange(type="l2update", product_id="BTC-USD", changes=[["buy", None, "1"]])
    assert caught.value.of_book


# --- Advanced Trade's feed --------------------------------------------------------------------------------------------


def test_market_trades_of_the_payload_are_read():
    read = parse.read_advanced(shared("ws_market_trades.json"), LOCAL_NS)
    made = only(read)
    assert (read.sequence, read.time_ns) == (5, 1_775_572_202_789_012_000)
    assert made.column("id").tolist() == [995_098_700, 995_098_701]
    assert decimals(made, "price") == [Decimal("68900.50"), Decimal("68900.00")]
    assert made.column("side").tolist() == [SELL, BUY]


def test_market_trades_are_put_in_order_of_their_ids():
    trades = [
        {"trade_id": str(number), "product_id": product, "price": "1", "size": "1", "side": "BUY"}
        | {"time": "2025-12-31T06:00:13.654578Z"}
        for number, product in ((929_248_663, "BTC-USD"), (7, "ETH-USD"), (929_248_662, "BTC-USD"))
    ]
    found = {rows.product: parse.ticks_of(rows.stream, rows.rows) for rows in _rows(trades)}
    assert found["BTC-USD"].column("id").tolist() == [929_248_662, 929_248_663]
    assert found["ETH-USD"].column("id").tolist() == [7]


def _rows(trades):
    return advanced("market_trades", {"type": "update", "trades": trades}).rows


def test_depth_of_the_payloads_makes_a_book():
    book = Book()
    snapshot = only(parse.read_advanced(shared("ws_l2_data_snapshot.json"), LOCAL_NS))
    book.apply(snapshot)
    assert (book.best_bid, book.best_ask) == (Decimal(68900), Decimal(68901))
    assert set(snapshot.column("flags").tolist()) == {DepthFlag.SNAPSHOT}
    update = parse.read_advanced(shared("ws_l2_data_update.json"), LOCAL_NS)
    book.apply(only(update))
    assert update.sequence == 1
    assert book.levels[BUY][Decimal(68900)] == 2
    assert book.best_ask == Decimal("68901.5")


def test_a_snapshots_levels_have_the_time_of_their_message():
    level = {"side": "offer", "event_time": "1970-01-01T00:00:00Z", "price_level": "1", "new_quantity": "1"}
    made = only(advanced("l2_data", {"type": "snapshot", "product_id": "BTC-USD", "updates": [level]}))
    assert made.time_ns.tolist() == [parse.time_ns("2026-04-07T14:30:00Z")]


def test_candles_of_the_payload_are_read_in_their_own_order_of_fields():
    read = parse.read_advanced(shared("ws_candles.json"), LOCAL_NS)
    bars = parse.bars_of(read.candles)
    assert bars.start_ns.tolist() == [1_775_521_800_000_000_000]
    assert [float(column[0]) for column in bars[1:]] == [68900.0, 68950.0, 68850.0, 68920.5, 42.15]
    assert all(column.dtype == np.float64 for column in bars[1:])


@pytest.mark.parametrize(
    ("name", "subscribed"),
    [
        ("ws_heartbeats.json", None),
        (
            "ws_subscriptions.json",
            {("level2", "BTC-USD"), ("market_trades", "BTC-USD"), ("market_trades", "ETH-USD")},
        ),
    ],
)
def test_what_has_no_rows_still_has_its_number(name, subscribed):
    read = parse.read_advanced(shared(name), LOCAL_NS)
    assert (list(read.rows), read.sequence, read.subscribed) == ([], 0, subscribed)


def test_an_advanced_ticker_is_a_quote_of_its_messages_time():
    made = only(parse.read_advanced(shared("ws_ticker.json"), LOCAL_NS))
    assert (decimals(made, "bid"), decimals(made, "ask")) == ([Decimal(68900)], [Decimal(68901)])
    assert made.time_ns.tolist() == [parse.time_ns("2026-04-07T14:30:03Z")]


def test_an_unknown_channel_is_unusable_but_counted():
    with pytest.raises(parse.Unusable, match="unknown channel: 'user'") as caught:
        parse.read_advanced(shared("ws_user.json"), LOCAL_NS)
    assert caught.value.sequence == 1


def test_an_unusable_message_of_depth_keeps_its_number():
    with pytest.raises(parse.Unusable) as caught:
        advanced("l2_data", {"type": "update", "product_id": "BTC-USD", "updates": [{"side": "middle"}]})
    assert (caught.value.of_book, caught.value.sequence) == (True, 7)


def test_a_complaint_of_advanced_trade_is_unusable():
    with pytest.raises(parse.Unusable, match="authentication failure"):
        parse.read_advanced(b'{"type":"error","message":"authentication failure"}', LOCAL_NS)


# --- Names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", ["BTC-USD", "BTC/USD", "btc-usd", "btc/usd", " BTC-USD "])
def test_the_usual_spellings_are_one_product(symbol):
    assert product_id(symbol) == "BTC-USD"


@pytest.mark.parametrize("symbol", ["", "BTCUSD", "BTC-", "../BTC-USD", "BTC-USD?x=1", "BTC\n-USD", "\u0412TC-USD"])
def test_what_cannot_be_a_product_is_not_asked_for(symbol):
    with pytest.raises(NotFound, match="named like BTC-USD"):
        product_id(symbol)
