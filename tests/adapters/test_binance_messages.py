"""Binance's stream messages: the venue's own samples, exact numbers, and what cannot be used."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.binance.config import Market
from adapters.binance.messages import decode, joined
from daemon.core.market import Timeframe
from daemon.core.ticks import BUY, SELL, Stream, ticks

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "venues" / "binance"
MS = 1_000_000
T = 1_723_161_256_298
TRADE = {"e": "trade", "E": T + 2, "T": T, "s": "BTCUSDT", "t": 7, "p": "61800.30", "q": "0.006", "m": False}
AGG_TRADE = {"e": "aggTrade", "s": "BTCUSDT", "a": 9, "p": "1.5", "q": "2", "f": 3, "l": 5, "T": T, "m": True}
QUOTE = {"u": 11, "s": "BTCUSDT", "b": "61685.99000000", "B": "1.25", "a": "61686.00000000", "A": "2.4"}
DEPTH = {
    "e": "depthUpdate",
    "E": T,
    "s": "BTCUSDT",
    "U": 157,
    "u": 160,
    "b": [["0.0024", "10"], ["0.0023", "0"]],
    "a": [["0.0026", "100"]],
}
CANDLE = {"t": T, "i": "1m", "o": "1", "h": "4", "l": "0.5", "c": "2", "v": "100", "q": "7", "n": 3, "x": True}
KLINE = {"e": "kline", "E": T, "s": "BTCUSDT", "k": CANDLE}


def wrapped(stream, **fields):
    return json.dumps({"stream": f"btcusdt@{stream}", "data": fields})


def trade(**changes):
    return wrapped("trade", **(TRADE | changes))


def depth(**changes):
    return wrapped("depth@100ms", **(DEPTH | changes))


def read(*texts, market=Market.SPOT):
    return decode(list(enumerate(texts, 1_000)), market)


def only(batch):
    assert not batch.odd
    ((symbol, rows),) = batch.ticks
    assert symbol == "BTCUSDT"
    return rows


def sample(name):
    path = SAMPLES / name
    if not path.exists():
        pytest.skip(f"the venue's sample {path} is not here")
    return json.loads(path.read_text())


def columns(rows):
    return {name: rows.column(name).tolist() for name in ("time_ns", "local_ns", "id", "price", "size", "side")}


def test_trades_become_columns_with_the_taker_s_side():
    rows = only(read(trade(), trade(t=8, p="61800.4", q="1", m=True, T=T + 1)))
    assert rows.stream is Stream.TRADES
    assert (rows.price_decimals, rows.size_decimals) == (1, 3)
    assert columns(rows) == {
        "time_ns": [T * MS, (T + 1) * MS],
        "local_ns": [1_000, 1_001],
        "id": [7, 8],
        "price": [618_003, 618_004],
        "size": [6, 1_000],
        "side": [BUY, SELL],
    }


def test_microseconds_are_told_by_their_size():
    rows = only(read(trade(T=1_735_689_600_010_866)))
    assert rows.time_ns.tolist() == [1_735_689_600_010_866_000]


def test_a_time_that_is_neither_milliseconds_nor_microseconds_is_odd():
    batch = read(trade(T=1_735_689_600), trade(), trade(T=10**30))
    assert [odd.place for odd in batch.odd] == [0, 2]
    assert batch.ticks[0][1].size == 1


def test_aggregate_trades_keep_the_ids_of_their_trades():
    rows = only(read(wrapped("aggTrade", **AGG_TRADE)))
    assert rows.stream is Stream.AGG_TRADES
    assert [rows.column(name).tolist() for name in ("id", "first_id", "last_id", "side")] == [[9], [3], [5], [SELL]]


def test_quotes_of_spot_carry_the_local_time_and_those_of_futures_their_own():
    rows = only(read(wrapped("bookTicker", **QUOTE), wrapped("bookTicker", **(QUOTE | {"T": T, "E": T + 1}))))
    assert rows.stream is Stream.QUOTES
    assert rows.time_ns.tolist() == [1_000, T * MS]
    assert rows.column("bid").tolist() == [6_168_599] * 2
    assert rows.column("ask").tolist() == [6_168_600] * 2
    assert rows.column("bid_size").tolist() == [125] * 2
    assert rows.column("ask_size").tolist() == [240] * 2
    assert rows.column("id").tolist() == [11, 11]


def test_a_depth_event_of_spot_covers_the_ids_from_its_first():
    (event,) = read(depth()).depth["BTCUSDT"]
    assert (event.first_id, event.last_id, event.previous_id, event.time_ns) == (157, 160, 156, T * MS)
    rows = event.rows
    assert rows.column("side").tolist() == [BUY, BUY, SELL]
    assert rows.column("price").tolist() == [24, 23, 26]
    assert rows.column("size").tolist() == [10, 0, 100]
    assert rows.column("id").tolist() == [160] * 3
    assert rows.column("flags").tolist() == [0] * 3


def test_a_depth_event_of_futures_covers_the_ids_after_the_event_before():
    (event,) = read(depth(pu=149, T=T - 1)).depth["BTCUSDT"]
    assert (event.previous_id, event.time_ns) == (149, (T - 1) * MS)


def test_an_empty_depth_event_still_tells_its_ids():
    first, second = read(depth(b=[], a=[]), depth(U=161, u=165)).depth["BTCUSDT"]
    assert (first.last_id, first.rows.size) == (160, 0)
    assert (second.last_id, second.rows.size) == (165, 3)


def test_only_complete_bars_are_made():
    batch = read(wrapped("kline_1m", **KLINE), wrapped("kline_1m", **(KLINE | {"k": CANDLE | {"x": False}})))
    ((symbol, timeframe, bars),) = batch.bars
    assert (symbol, timeframe) == ("BTCUSDT", Timeframe.MIN_1)
    assert [column.tolist() for column in bars] == [[T * MS], [1.0], [4.0], [0.5], [2.0], [100.0]]


def test_bars_of_coin_margined_futures_count_coins_not_contracts():
    ((_, _, bars),) = read(wrapped("kline_1m", **KLINE), market=Market.CM).bars
    assert bars.volume.tolist() == [7.0]


def test_bars_of_several_timeframes_stay_apart():
    hourly = KLINE | {"k": CANDLE | {"i": "1h"}}
    batch = read(wrapped("kline_1m", **KLINE), wrapped("kline_1h", **hourly))
    assert {timeframe for _, timeframe, _ in batch.bars} == {Timeframe.MIN_1, Timeframe.HOUR_1}


def test_each_symbol_and_stream_comes_as_one():
    batch = read(trade(), trade(s="ETHUSDT"), wrapped("aggTrade", **AGG_TRADE), trade(t=8))
    assert [(symbol, rows.stream, rows.size) for symbol, rows in batch.ticks] == [
        ("BTCUSDT", Stream.TRADES, 2),
        ("ETHUSDT", Stream.TRADES, 1),
        ("BTCUSDT", Stream.AGG_TRADES, 1),
    ]


@pytest.mark.parametrize("kind", ["INSURANCE_FUND", "NA", "ADL"])
def test_a_trade_that_nobody_could_have_made_is_kept_out_and_counted(kind):
    batch = read(trade(X="MARKET"), trade(t=8, X=kind, p="0", q="0"))
    assert batch.ticks[0][1].column("id").tolist() == [7]
    (odd,) = batch.kept_out
    assert kind in odd.why
    assert odd.place == 1
    assert not batch.odd


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "truncated"),
        ("", "truncated"),
        ("nonsense", "malformed"),
        ("[1,2]", "object"),
        ("null", "object"),
        (trade(p=None), "price|p"),
        (trade(p=1.5), "price|p"),
        (trade(p="1,5"), "not a decimal"),
        (trade(q="NaN"), "not a decimal"),
        (trade(p=""), "not a decimal"),
        (trade(p="9" * 30), "64 bits"),
        (trade(t=1 << 70), "int"),
        (depth(u=-5), "int"),
        (depth(b=[["1"]]), "length"),
        (depth(b=[["1", "x"]]), "not a decimal"),
        (wrapped("kline_1m", **(KLINE | {"k": CANDLE | {"c": "nan"}})), "not a decimal"),
        (wrapped("kline_3m", **(KLINE | {"k": CANDLE | {"i": "3m"}})), "enum"),
        (wrapped("markPrice", e="markPriceUpdate"), "not one that was asked for"),
        (wrapped("depth20@100ms", bids=[]), "not one that was asked for"),
        (json.dumps({"stream": "btcusdt@trade"}), ""),
        ("{}", "no stream"),
        ('{"error":{"code":2,"msg":"Invalid request"},"id":3}', "refused"),
        ('{"stream":"btcusdt@trade","data":{"s":"\ud800"}}', ""),
    ],
)
def test_what_cannot_be_used_is_odd_and_costs_only_itself(text, why):
    batch = read(trade(), text, trade(t=8))
    (odd,) = batch.odd
    assert odd.place == 1
    assert odd.local_ns == 1_001
    assert any(word in odd.why for word in why.split("|"))
    assert batch.ticks[0][1].column("id").tolist()[0] == 7
    assert sum(rows.size for _, rows in batch.ticks) == 2


def test_a_long_message_is_shown_only_by_its_beginning():
    (odd,) = read(trade(p="x" * 10_000)).odd
    assert len(odd.message) <= 200
    assert len(odd.why) <= 200


def test_bytes_that_are_no_text_are_odd():
    batch = read(b'{"stream":"btcusdt@trade","data":{"s":"\xff"}}', b"\xff\xfe")
    assert len(batch.odd) == 2


def test_answers_to_subscriptions_are_no_news():
    batch = read('{"result":null,"id":1}')
    assert batch == ([], [], {}, [], [], set(), [])


@pytest.mark.parametrize(
    "text",
    [
        '{"e":"serverShutdown","E":1770123456789}',
        '{"event":{"e":"serverShutdown","E":1770123456789}}',
        '{"stream":"serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
    ],
)
def test_the_venue_s_farewell_is_told(text):
    assert read(trade(), text).leaving == [1]


def test_numbers_that_share_no_decimals_split_a_group_instead_of_losing_it():
    batch = read(trade(q="9000000000000000000"), trade(t=8, q="0.00000001"), trade(t=9, q="0.00000002"))
    assert not batch.odd
    assert [rows.column("id").tolist() for _, rows in batch.ticks] == [[7], [8, 9]]
    assert [rows.size_decimals for _, rows in batch.ticks] == [0, 8]


def test_rows_that_cannot_be_joined_stay_apart():
    def part(size, decimals):
        return ticks(
            Stream.TRADES, price_decimals=0, size_decimals=decimals, time_ns=[1], price=np.array([1]), size=[size]
        )

    assert len(joined([part(9 * 10**18, 0), part(1, 8)])) == 2
    assert len(joined([part(9, 0), part(1, 8)])) == 1
    assert joined([]) == []


def test_the_venue_s_own_samples_of_futures_are_read():
    texts = [
        wrapped("bookTicker", **sample("futures-market_data_json-book_ticker_stream.json")),
        wrapped("depth", **sample("py-ws_futures_depth_update.json")),
        wrapped("kline_1m", **sample("futures-market_data_json-kline_stream_closed.json")),
        wrapped("kline_1m", **sample("futures-market_data_json-kline_stream_open.json")),
        wrapped("aggTrade", **(sample("futures-market_data_json-agg_trade_stream.json") | {"T": T})),
        wrapped("trade", **(sample("futures-market_data_json-trade_stream.json") | {"T": T})),
    ]
    batch = read(*texts, market=Market.UM)
    assert not batch.odd
    assert {(symbol, rows.stream) for symbol, rows in batch.ticks} == {
        ("BNBUSDT", Stream.QUOTES),
        ("BTCUSDT", Stream.AGG_TRADES),
        ("BTCUSDT", Stream.TRADES),
    }
    (event,) = batch.depth["BTCUSDT"]
    assert (event.first_id, event.last_id, event.previous_id) == (390497796, 390497878, 390497794)
    assert event.rows.column("price")[:2].tolist() == [740_389, 740_390]
    assert len(batch.bars) == 1


def test_the_venue_s_own_samples_of_spot_are_read():
    names = ["py-ws_spot_agg_trade.json", "py-ws_spot_ticker_book.json", "py-ws_spot_trade.json"]
    batch = read(*[json.dumps(sample(name)) for name in names])
    assert not batch.odd
    assert [rows.stream for _, rows in batch.ticks] == [Stream.AGG_TRADES, Stream.QUOTES, Stream.TRADES]
    assert batch.ticks[0][1].time_ns.tolist() == [1_675_759_520_847 * MS]
    assert batch.streams == {"ethusdt@aggTrade", "ethusdt@bookTicker", "ethusdt@trade"}


def test_messages_of_accounts_are_odd_not_fatal():
    text = json.dumps(sample("spot-user_data_json-execution_report_wrapped.json"))
    assert len(read(text).odd) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KINDS = st.sampled_from([("trade", TRADE), ("aggTrade", AGG_TRADE), ("bookTicker", QUOTE), ("depth", DEPTH)])


@settings(max_examples=150, deadline=None)
@given(KINDS, st.data())
def test_no_value_in_any_field_is_fatal(kind, data):
    stream, message = kind
    field = data.draw(st.sampled_from(sorted(message)))
    changed = wrapped(stream, **(message | {field: data.draw(JSON)}))
    batch = read(wrapped(stream, **message), changed, wrapped(stream, **message))
    rows = sum(rows.size for _, rows in batch.ticks) + sum(len(events) for events in batch.depth.values())
    assert rows + len(batch.odd) + len(batch.kept_out) == 3


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60) | JSON.map(json.dumps))
def test_no_frame_is_fatal(text):
    batch = read(trade(), text)
    assert batch.ticks[0][1].size == 1


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.decimals("0.00000001", "90000", places=8), st.integers(0, 10**9)), min_size=1, max_size=20)
)
def test_prices_are_exact_and_cutting_a_batch_changes_nothing(pairs):
    texts = [trade(t=number, p=format(price, "f")) for price, number in pairs]
    whole = only(read(*texts))
    assert [price * 10 ** (8 - whole.price_decimals) for price in whole.column("price").tolist()] == [
        int(price * 10**8) for price, _ in pairs
    ]
    parts = [only(decode([(0, text)], Market.SPOT)) for text in texts]
    (again,) = joined(parts)
    assert again.price_decimals == whole.price_decimals
    assert again.column("price").tolist() == whole.column("price").tolist()
