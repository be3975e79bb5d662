"""Worked examples of docs/book.md: one market each, small enough to follow by hand.

Prices are integers, sizes whole; the market is 100:5 99:7 98:2 bid, 101:4 102:6 103:9 asked, unless said otherwise.
"""

import pytest
from naive.book_matching import Command, Ended, Fill, Row, Trade, matched
from scripted import Case, joined, quickly, slowly

from daemon.core.backtest import Queue
from daemon.core.ticks import BUY, SELL, DepthFlag

TAKER = False
BIDS, ASKS = {100: 5, 99: 7, 98: 2}, {101: 4, 102: 6, 103: 9}


def book(at=0, *, bids=BIDS, asks=ASKS, number=None, is_after_gap=False):
    """Return a snapshot."""
    levels = [(BUY, *level) for level in bids.items()] + [(SELL, *level) for level in asks.items()]
    gap = DepthFlag.AFTER_GAP if is_after_gap else 0
    return [
        Row(at, at if number is None else number, *level, DepthFlag.SNAPSHOT | (gap if place == 0 else 0))
        for place, level in enumerate(levels)
    ]


def bid(at, price, size, flags=0):
    return [Row(at, at, BUY, price, size, flags)]


def ask(at, price, size, flags=0):
    return [Row(at, at, SELL, price, size, flags)]


def sold(at, price, size):
    return Trade(at, price, size, SELL)


def bought(at, price, size):
    return Trade(at, price, size, BUY)


def buy(at, quantity, price=None, order=1, **fields):
    return Command(at, "submit", order, BUY, quantity, price, **fields)


def sell(at, quantity, price=None, order=1, **fields):
    return Command(at, "submit", order, SELL, quantity, price, **fields)


def cancel(at, order=1):
    return Command(at, "cancel", order)


def replace(at, quantity, price, order=1):
    return Command(at, "replace", order, 0, quantity, price)


def played(*what, **settings):
    """Return the log of what rows, trades and commands lead to, and what was counted: the same by both loops."""
    rows = [each for part in what if isinstance(part, list) for each in part]
    trades = [part for part in what if isinstance(part, Trade)]
    commands = [part for part in what if isinstance(part, Command)]
    slow, quick = (play(Case(rows, trades, commands, **settings)) for play in (slowly, quickly))
    assert joined(quick.log) == joined(slow.log)
    assert quick.counts == slow.counts
    return slow


def filled(*what, **settings):
    """Return (time, order, quantity, price) of each fill."""
    return [(fill.time_ns, fill.order, fill.quantity, fill.price) for fill in played(*what, **settings).fills]


def ended(*what, **settings):
    return [(end.order, end.word) for end in played(*what, **settings).ends]


# Taking.


def test_a_market_order_walks_the_levels_best_first():
    ran = played(book(), buy(1, 8))
    assert ran.log == [Fill(1, 1, BUY, 4, 101, TAKER), Fill(1, 1, BUY, 4, 102, TAKER)]


def test_a_limit_order_takes_within_its_price_and_rests_with_what_is_left():
    assert filled(book(), buy(1, 12, 102), sold(2, 102, 1)) == [(1, 1, 4, 101), (1, 1, 6, 102), (2, 1, 1, 102)]


def test_what_was_taken_is_gone_until_the_level_is_said_anew():
    taken = [(1, 1, 4, 101), (2, 2, 3, 102)]
    assert filled(book(), buy(1, 4), buy(2, 3, order=2)) == taken
    assert filled(book(), buy(1, 4), buy(2, 3, order=2), ask(3, 101, 2), buy(4, 2, order=3)) == [*taken, (4, 3, 2, 101)]


def test_a_market_order_that_finds_no_more_waits_for_the_next_event():
    assert filled(book(asks={101: 2}), buy(1, 5), ask(2, 105, 1), ask(3, 106, 9)) == [
        (1, 1, 2, 101),
        (2, 1, 1, 105),
        (3, 1, 2, 106),
    ]


def test_ioc_takes_what_there_is_and_ends():
    ran = played(book(), buy(1, 9, 101, force="IOC"), sold(2, 100, 99))
    assert ran.log == [Fill(1, 1, BUY, 4, 101, TAKER), Ended(1, 1, "not_filled")]


@pytest.mark.parametrize(("quantity", "count"), [(10, 2), (11, 0)])
def test_fok_takes_all_or_nothing(quantity, count):
    ran = played(book(), buy(1, quantity, 102, force="FOK"))
    assert (len(ran.fills), len(ran.ends)) == (count, 0 if count else 1)


def test_what_a_level_shows_beyond_whole_lots_stays_and_the_order_goes_on():
    thin = book(asks={101: 3, 102: 1, 103: 5})
    assert filled(thin, buy(1, 6), lot=2) == [(1, 1, 2, 101), (1, 1, 4, 103)]
    assert filled(thin, buy(1, 6, 102), sold(2, 102, 99), lot=2) == [(1, 1, 2, 101), (2, 1, 4, 102)]


def test_an_order_fills_to_its_last_lot_however_many_levels_and_lots_it_takes():
    asks = {101 + step: 50_000 + step for step in range(100)}
    taken = filled(book(asks=asks), buy(1, 4_500_000), decimals=5)
    assert sum(quantity for *_, quantity, _ in taken) == 4_500_000
    assert filled(book(asks={101: 80_000_001}), buy(1, 80_000_001), decimals=5) == [(1, 1, 80_000_001, 101)]


def test_fok_counts_whole_lots_of_each_level():
    thin = book(asks={101: 3, 102: 3, 103: 5})
    assert filled(thin, buy(1, 6, 102, force="FOK"), lot=2) == []
    assert filled(thin, buy(1, 6, 103, force="FOK"), lot=2) == [(1, 1, 2, 101), (1, 1, 2, 102), (1, 1, 2, 103)]


@pytest.mark.parametrize(("price", "ends"), [(100, []), (101, [(1, "would_take")])])
def test_post_only_is_rejected_where_it_could_take(price, ends):
    assert ended(book(), buy(1, 1, price, post_only=True)) == ends


# Time.


def test_an_arrival_meets_the_book_before_the_events_of_its_time():
    assert filled(book(), ask(5, 101, 0), buy(3, 1), order=2) == [(5, 1, 1, 101)]
    assert filled(book(), ask(5, 101, 0), buy(4, 1), order=2) == [(6, 1, 1, 102)]


def test_what_is_sent_at_an_event_without_latency_comes_right_after_it():
    rows, gone = book(), [Row(5, 6, SELL, 101, 0), Row(5, 7, SELL, 102, 0)]
    ran = [matched(rows + gone, [], [buy(5, 1, after=place)]).fills[0].price for place in (1, 2)]
    assert ran == [102, 103]


def test_a_trade_comes_before_the_rows_of_its_time():
    assert filled(book(), buy(1, 2, 100), sold(3, 100, 5), bid(3, 100, 0), sold(4, 100, 1)) == [(4, 1, 1, 100)]


def test_an_order_may_fill_until_its_cancel_arrives():
    through = [sold(at, 99, 1) for at in range(2, 8)]
    assert filled(book(), buy(1, 9, 100), *through, cancel(3), order=2) == [(at, 1, 1, 100) for at in (3, 4)]


# Queues.


def test_an_order_waits_for_all_that_its_level_showed():
    assert filled(book(), buy(1, 3, 100), sold(2, 100, 4), sold(3, 100, 2), sold(4, 100, 9)) == [
        (3, 1, 1, 100),
        (4, 1, 2, 100),
    ]


def test_a_trade_beyond_an_order_fills_it_at_its_own_price_and_no_more_than_the_trade():
    assert filled(book(), buy(1, 3, 100), sold(2, 99, 2)) == [(2, 1, 2, 100)]


def test_one_trade_is_shared_by_the_orders_it_meets():
    orders = buy(1, 2, 100), buy(1, 2, 100, order=2), buy(1, 9, 98, order=3)
    assert filled(book(), *orders, sold(2, 100, 6), sold(3, 98, 4)) == [
        (2, 1, 1, 100),
        (3, 1, 1, 100),
        (3, 2, 2, 100),
        (3, 3, 1, 98),
    ]


def test_a_trade_without_an_aggressor_counts_for_both_sides():
    unknown = Trade(2, 100, 7, 0)
    assert filled(book(), buy(1, 3, 100), unknown) == [(2, 1, 2, 100)]
    assert filled(book(bids={99: 1}, asks={100: 4}), sell(1, 3, 100), unknown) == [(2, 1, 3, 100)]
    assert filled(book(), buy(1, 3, 100), bought(2, 100, 99)) == []


def test_a_level_that_shrinks_brings_an_order_forward_by_its_model():
    def first_fill(model, shown):
        """Where 10 were ahead, 10 joined behind, and the level shrank: how much of 20 sold is the order's."""
        what = book(bids={100: 10}), buy(1, 99, 100), bid(2, 100, 20), bid(3, 100, shown), sold(4, 100, 20)
        return sum(quantity for *_, quantity, _ in filled(*what, queue=Queue(model=model)))

    assert [first_fill("risk_averse", shown) for shown in (20, 15, 8)] == [10, 10, 12]
    assert [first_fill("trade_only", shown) for shown in (20, 15, 8)] == [10, 10, 10]
    # p is 1/2: 6 of the 12 that left were ahead.
    assert [first_fill("power", shown) for shown in (20, 8)] == [10, 16]
    assert [first_fill("log", shown) for shown in (20, 8)] == [10, 16]


def test_what_traded_at_a_level_is_not_taken_for_cancelled():
    what = book(bids={100: 10}), buy(1, 99, 100), bid(2, 100, 20), sold(3, 100, 4), bid(4, 100, 16), sold(5, 100, 20)
    assert filled(*what, queue=Queue(model="power")) == [(5, 1, 14, 100)]


def test_the_more_is_behind_an_order_the_less_of_what_leaves_was_ahead():
    # ahead 4, back 12: p is 27/28 with the third power, 3/4 with the first; of 8 that left 2/7 and 2 were ahead.
    what = book(bids={100: 4}), buy(1, 99, 100), bid(2, 100, 16), bid(3, 100, 8), sold(4, 100, 8)
    assert filled(*what, queue=Queue(model="power"))[0][2] == 4  # 4.28...
    assert filled(*what, queue=Queue(model="power", exponent=1.0))[0][2] == 6


def test_a_snapshot_changes_the_levels_that_it_shows_and_those_between_them():
    again = book(2, bids={100: 2, 98: 7})
    assert filled(book(), buy(1, 1, 100), again, sold(3, 100, 3)) == [(3, 1, 1, 100)]
    assert filled(book(), buy(1, 1, 99), again, sold(3, 99, 1)) == [(3, 1, 1, 99)]
    # What lies behind its last level it does not know.
    assert filled(book(), buy(1, 1, 98), book(2, bids={100: 2}), sold(3, 98, 2)) == []


def test_a_snapshot_brings_an_order_forward_as_a_row_would():
    what = book(bids={100: 10}), buy(1, 99, 100), bid(2, 100, 20)
    for shown in (bid(3, 100, 8), book(3, bids={100: 8})):
        assert filled(*what, shown, sold(4, 100, 8), queue=Queue(model="power")) == [(4, 1, 4, 100)]


# The book that reaches an order.


def test_a_book_that_reaches_an_order_fills_it_for_what_it_shows():
    offered = [Row(2, 2, BUY, 100, 0), Row(2, 2, SELL, 100, 3)]
    assert filled(book(), buy(1, 9, 100), offered) == [(2, 1, 3, 100)]
    # No more of it before it shows more; all of what it shows once it had parted.
    assert filled(book(), buy(1, 9, 100), offered, ask(3, 100, 4)) == [(2, 1, 3, 100), (3, 1, 1, 100)]
    parted = [*offered, *ask(3, 100, 0), *ask(4, 100, 4)]
    assert filled(book(), buy(1, 9, 100), parted) == [(2, 1, 3, 100), (4, 1, 4, 100)]


def test_what_a_book_shows_across_is_given_once_the_better_price_first():
    down = [Row(2, 2, BUY, 100, 0), Row(2, 2, BUY, 99, 0), Row(2, 2, SELL, 99, 3)]
    assert filled(book(), buy(1, 2, 99), buy(1, 2, 100, order=2), down) == [(2, 2, 2, 100), (2, 1, 1, 99)]


def test_what_a_book_shows_across_is_new_once_the_other_side_was_away_though_it_was_crossed_before():
    crossed = bid(5, 99, 11)
    back = book(6, bids={98: 5}, asks={100: 3}, is_after_gap=True)
    fills = filled(book(bids={98: 5}, asks={102: 1}), buy(1, 13, 99), ask(4, 99, 5), crossed, back, ask(8, 99, 4))
    assert fills == [(4, 1, 5, 99), (8, 1, 4, 99)]


def test_in_a_crossed_book_nothing_is_reached_and_nothing_taken():
    crossed = ask(2, 99, 3)
    ran = played(book(), buy(1, 9, 100), crossed, sell(3, 1, order=2))
    assert (ran.log, ran.counts.crossed) == ([], 1)
    parted = [Row(4, 4, SELL, 99, 0)]
    assert filled(book(), buy(1, 9, 98), crossed, sell(3, 1, order=2), parted) == [(4, 2, 1, 100)]


# Gaps.


def test_before_a_snapshot_orders_wait_and_rows_are_counted():
    ran = played(ask(1, 101, 5), buy(2, 1), book(3), sold(4, 99, 9))
    assert ran.log == [Fill(3, 1, BUY, 1, 101, TAKER)]
    assert ran.counts.early == 1


def test_after_a_gap_nothing_takes_but_trades_still_fill_what_rests():
    gap = ask(2, 101, 1, DepthFlag.AFTER_GAP)
    what = book(), buy(1, 2, 99), gap, sell(3, 1, order=2), sold(4, 98, 1), book(5)
    assert filled(*what) == [(4, 1, 1, 99), (5, 2, 1, 100)]


def test_an_update_that_says_of_each_row_that_events_were_lost_says_so_once():
    whole = [row._replace(flags=DepthFlag.SNAPSHOT | DepthFlag.AFTER_GAP) for row in book(2, asks={105: 9})]
    assert filled(book(), buy(1, 9, 100), whole, buy(3, 2, order=2)) == [(3, 2, 2, 105)]


def test_the_snapshot_after_a_gap_cuts_what_is_ahead():
    gap = ask(2, 101, 1, DepthFlag.AFTER_GAP)
    what = book(), buy(1, 2, 100), gap, book(3, bids={100: 1}), sold(4, 100, 2)
    assert filled(*what) == [(4, 1, 1, 100)]
    assert filled(*what, queue=Queue(model="power")) == [(4, 1, 1, 100)]
    assert filled(*what, queue=Queue(model="trade_only")) == [(4, 1, 1, 100)]


def test_a_snapshot_may_itself_come_after_a_gap():
    assert filled(book(), buy(1, 2, 100), book(2, bids={100: 9}, is_after_gap=True), sold(3, 100, 6)) == [
        (3, 1, 1, 100)
    ]


def test_a_book_of_which_nothing_was_heard_for_a_minute_is_not_taken_from():
    ran = played(book(), buy(60, 1), buy(61, 1, order=2), buy(62, 1, order=3, force="IOC"), ask(70, 101, 2))
    assert ran.log == [Fill(60, 1, BUY, 1, 101, TAKER), Ended(62, 3, "not_filled"), Fill(70, 2, BUY, 1, 101, TAKER)]
    assert ran.counts.stale == 2


def test_odd_rows_are_counted():
    counts = played(book(), bid(1, 100, -1), bid(2, 90, 0), bid(3, 101, 1), bid(4, 101, 0)).counts
    assert (counts.negative, counts.unknown, counts.crossed, counts.early) == (1, 1, 1, 0)


# Cancel and replace.


def test_a_cancel_of_what_is_not_there_is_counted():
    assert played(book(), cancel(1), buy(2, 1, 100), cancel(3), cancel(4), replace(5, 1, 99)).counts.missed == 3


def test_less_at_the_same_price_keeps_the_place():
    joined = book(), buy(1, 5, 100), bid(2, 100, 9)
    assert filled(*joined, replace(3, 3, 100), sold(4, 100, 7)) == [(4, 1, 2, 100)]
    assert filled(*joined, replace(3, 3, 100), sold(4, 100, 7), queue=Queue(replace="loses")) == []
    assert filled(*joined, replace(3, 6, 100), sold(4, 100, 7)) == []


def test_another_price_joins_anew_and_takes_what_it_reaches():
    assert filled(book(), buy(1, 5, 99), replace(2, 6, 101), sold(3, 101, 1)) == [(2, 1, 4, 101), (3, 1, 1, 101)]
    assert ended(book(), buy(1, 5, 99, post_only=True), replace(2, 6, 101)) == [(1, "would_take")]
    assert filled(book(), buy(1, 5, 99), replace(2, 0, 101), sold(3, 90, 9)) == []


# Self-trades.


@pytest.mark.parametrize(
    ("mode", "ends", "fills"),
    [
        ("cancel_newest", [(2, "self_trade")], []),
        ("cancel_oldest", [(1, "self_trade")], [(2, 2, 4, 101)]),
        ("cancel_both", [(1, "self_trade"), (2, "self_trade")], []),
    ],
)
def test_two_of_the_runs_own_orders_do_not_trade_with_each_other(mode, ends, fills):
    what = book(), sell(1, 1, 101), buy(2, 4, 101, order=2)
    assert ended(*what, queue=Queue(self_trade=mode)) == ends
    assert filled(*what, queue=Queue(self_trade=mode)) == fills


def test_levels_better_than_ones_own_order_are_taken_first():
    what = book(), sell(1, 1, 102), buy(2, 9, 103, order=2)
    assert filled(*what) == [(2, 2, 4, 101)]
    assert ended(*what) == [(2, "self_trade")]


def test_an_order_that_would_rest_beyond_ones_own_does_not():
    what = book(bids={98: 1}, asks={103: 1}), sell(1, 1, 100), buy(2, 1, 101, order=2), buy(3, 1, 99, order=3)
    assert ended(*what) == [(2, "self_trade")]


def test_a_fok_that_would_meet_ones_own_takes_nothing():
    what = book(), sell(1, 1, 102), buy(2, 6, 103, force="FOK", order=2)
    assert (ended(*what), filled(*what)) == ([(2, "self_trade")], [])
