"""The bar contract, orders and fills of `docs/backtest.md`, sentence by sentence; both loops must agree on each."""

import math

import pytest
from simulated import WIDTH_NS, a_spec, away, bars, buy, costs, exits, flat, quotes, run, sell, steps, trade, trades

from daemon.core.backtest import Account, FixedBps, Latency, ListedOrder, OrderList, Trailing, VolumeWeighted
from daemon.engine.loop import ORDERS_A_SYMBOL
from daemon.engine.orders import Status

QUIET = (100, 100, 100, 100)


def capped(share=0.1, impact=0.0):
    """Return costs of nothing, but orders take only a share of a bar's volume."""
    return costs(slippage=VolumeWeighted(impact=impact, half_spread_bps=0.0, participation_cap=share))


# The open.


def test_a_market_order_fills_at_the_open_of_the_bar_after_it_was_sent():
    traded = trade(bars((100, 105, 95, 101), (103, 104, 102, 103)), buy(2, at=0.5))
    assert traded.fills == [(1, "entry", 2, 103)]


def test_an_order_sent_at_a_bars_start_meets_that_bar():
    traded = trade(bars(QUIET, (103, 104, 102, 103)), buy(2, at=1))
    assert traded.fills == [(1, "entry", 2, 103)]


def test_a_stop_that_the_open_jumps_over_fills_at_the_open():
    traded = trade(bars(QUIET, (90, 92, 88, 91)), buy(1, exits=exits(loss=5)))
    assert traded.fills == [(0, "entry", 1, 100), (1, "stop_loss", -1, 90)]


def test_a_stop_on_the_very_open_is_reached():
    traded = trade(bars(QUIET, (95, 99, 95, 99)), buy(1, exits=exits(loss=5)))
    assert traded.fills[1:] == [(1, "stop_loss", -1, 95)]


def test_a_buying_stop_that_the_open_jumps_over_fills_at_the_open():
    traded = trade(bars(QUIET, (108, 109, 107, 108)), buy(1, type="stop", stop_price=105))
    assert traded.fills == [(1, "entry", 1, 108)]


def test_a_trailing_stop_that_the_open_jumps_over_fills_at_the_open():
    traded = trade(bars(QUIET, (110, 110, 110, 110), (102, 103, 101, 102)), buy(1, exits=exits(trail=3)))
    assert traded.fills[1:] == [(2, "trailing_stop", -1, 102)]


def test_a_trailing_stop_follows_the_open_before_the_path():
    # From the open of 120 the stop lies at 117; from the last high it would lie at 97.
    traded = trade(bars(QUIET, (120, 120, 116, 118)), buy(1, exits=exits(trail=3)))
    assert traded.fills[1:] == [(1, "trailing_stop", -1, 117)]


def test_a_trailing_stop_begins_at_an_open_beyond_its_activation():
    traded = trade(bars(QUIET, (110, 110, 107, 108)), buy(1, exits=exits(trail=2, activation=5)))
    assert traded.fills[1:] == [(1, "trailing_stop", -1, 108)]


def test_a_resting_limit_fills_at_its_limit_even_when_the_open_is_better():
    traded = trade(bars(QUIET, (90, 92, 88, 91)), buy(1, type="limit", price=95))
    assert traded.fills == [(1, "entry", 1, 95)]


def test_a_limit_that_arrives_and_could_trade_takes_at_the_open():
    traded = trade(bars(QUIET, (90, 92, 88, 91)), buy(1, at=1, type="limit", price=95), costs=costs(taker=0.01))
    assert traded.fills == [(1, "entry", 1, 90)]
    assert traded.outcome.log["is_maker"][0] == 0
    assert traded.outcome.log["fee"][0] == pytest.approx(0.9)


def test_slippage_never_takes_a_limit_beyond_its_price():
    slipping = costs(slippage=FixedBps(bps=100))
    traded = trade(flat(2), buy(1, type="limit", price=100.5), sell(2, at=1, type="limit", price=99.8), costs=slipping)
    assert traded.fills == [(0, "entry", 1, 100.5), (1, "manual", -1, 99.8), (1, "entry", -1, 99.8)]


def test_a_limit_that_could_not_trade_at_its_open_rests():
    traded = trade(bars(QUIET, (100, 101, 94, 96)), buy(1, type="limit", price=95), costs=costs(taker=0.01))
    assert traded.fills == [(1, "entry", 1, 95)]
    assert traded.outcome.log["fee"][0] == 0


def test_a_stop_limit_that_the_open_jumps_over_arrives_at_the_open_as_a_limit():
    late = buy(1, type="stop_limit", stop_price=105, price=106)
    assert trade(bars(QUIET, (105.5, 107, 105, 106)), late).fills == [(1, "entry", 1, 105.5)]
    # Beyond its limit it rests, and waits for the price to come back.
    assert trade(bars(QUIET, (108, 109, 107, 108)), late).fills == []
    assert trade(bars(QUIET, (108, 109, 105, 108)), late).fills == [(1, "entry", 1, 106)]


def test_orders_fill_in_the_order_in_which_they_were_sent():
    traded = trade(flat(1, 100), buy(60), buy(60), buy(60))
    assert traded.fills == [(0, "entry", 60, 100), (0, "entry", 40, 100)]
    assert traded.ends == [(0, "no_money")]


# Time in force.


def test_a_post_only_order_that_would_take_is_rejected():
    traded = trade(flat(2), buy(1, type="limit", price=101, post_only=True))
    assert (traded.fills, traded.ends) == ([], [(0, "would_take")])


def test_a_post_only_order_that_rests_is_filled_as_a_maker():
    traded = trade(bars(QUIET, (100, 100, 98, 99)), buy(1, type="limit", price=99, post_only=True))
    assert (traded.fills, traded.ends) == ([(1, "entry", 1, 99)], [])
    assert traded.outcome.log["is_maker"][0] == 1


@pytest.mark.parametrize("force", ["IOC", "FOK"])
def test_an_order_for_now_that_cannot_trade_at_once_is_cancelled(force):
    traded = trade(bars((100, 100, 90, 95)), buy(1, type="limit", price=99, time_in_force=force))
    assert (traded.fills, traded.ends) == ([], [(0, "not_filled")])


def test_what_the_volume_leaves_of_an_ioc_order_is_cancelled():
    order = buy(15, type="limit", price=101, time_in_force="IOC")
    traded = trade(bars((*QUIET, 100), QUIET), order, costs=capped(0.1))
    assert (traded.fills, traded.ends) == ([(0, "entry", 10, 100)], [(0, "not_filled")])


def test_a_fok_order_fills_whole_or_not_at_all():
    thin = bars((*QUIET, 100), QUIET)
    fok = {"type": "limit", "price": 101, "time_in_force": "FOK"}
    too_large = trade(thin, buy(15, **fok), costs=capped(0.1))
    assert (too_large.fills, too_large.ends) == ([], [(0, "not_filled")])
    assert trade(thin, buy(10, **fok), costs=capped(0.1)).fills == [(0, "entry", 10, 100)]


def test_a_fok_order_below_the_least_notional_is_too_small_whatever_the_volume():
    thin = bars((*QUIET, 100), QUIET)
    for force in ("IOC", "FOK"):
        order = buy(15, type="limit", price=101, time_in_force=force)
        traded = trade(thin, order, costs=capped(0.1), min_notional=2_000)
        assert (traded.fills, traded.ends) == ([], [(0, "too_small")])


def test_a_fok_order_by_notional_is_held_against_volume_and_money_too():
    thin = bars((*QUIET, 100), QUIET)
    fok = {"type": "limit", "price": 101, "time_in_force": "FOK"}
    assert trade(thin, buy(notional=1_500, **fok), costs=capped(0.1)).fills == []
    assert trade(thin, buy(notional=15_000, **fok)).fills == []
    assert trade(thin, buy(notional=1_000, **fok), costs=capped(0.1)).fills == [(0, "entry", 10, 100)]


def test_a_fok_order_counts_what_its_slippage_costs():
    fok = {"type": "limit", "price": 105, "time_in_force": "FOK"}
    slipping = costs(slippage=FixedBps(bps=100))
    assert trade(flat(1), buy(100, **fok), costs=slipping).fills == []
    assert trade(flat(1), buy(99, **fok), costs=slipping).fills == [(0, "entry", 99, 101)]


def test_time_in_force_holds_for_market_orders_and_triggered_stops_too():
    thin = bars((*QUIET, 100), (100, 110, 100, 110, 100))
    market = trade(thin, buy(15, time_in_force="IOC"), costs=capped(0.1))
    assert (market.fills, market.ends) == ([(0, "entry", 10, 100)], [(0, "not_filled")])
    stop = trade(thin, buy(15, type="stop", stop_price=105, time_in_force="FOK"), costs=capped(0.1))
    assert (stop.fills, stop.ends) == ([], [(1, "not_filled")])


def test_a_fok_order_may_reverse_a_position_with_the_money_that_closing_frees():
    fok = {"type": "limit", "price": 99, "time_in_force": "FOK"}
    assert trade(flat(2), buy(100), sell(200, at=1, **fok)).fills[1:] == [
        (1, "manual", -100, 100),
        (1, "entry", -100, 100),
    ]
    assert trade(flat(2), buy(100), sell(201, at=1, **fok)).ends == [(1, "not_filled")]


def test_an_order_whose_time_is_over_at_a_bars_start_ends():
    falls = bars(QUIET, QUIET, (100, 100, 90, 95))
    early = trade(falls, buy(1, type="limit", price=95, time_in_force="GTD", until=2))
    assert (early.fills, early.ends) == ([], [(2, "expired")])
    assert trade(falls, buy(1, type="limit", price=95, time_in_force="GTD", until=2.5)).fills == [(2, "entry", 1, 95)]


def test_all_symbols_open_before_any_walks_its_path():
    # What the first symbol earns inside of its bar comes too late for the open of the second.
    first, second = bars(QUIET, (100, 200, 100, 200)), flat(2)
    orders = buy(100), sell(100, type="limit", price=200, reduce_only=True), buy(1, symbol=1, at=1)
    traded = trade([first, second], *orders)
    assert traded.fills == [(0, "entry", 100, 100), (1, "manual", -100, 200)]
    assert traded.ends == [(1, "no_money")]


# The path.

OUTSIDE = bars((100, 106, 94, 100))
BRACKET = buy(1, exits=exits(target=5, loss=5))


def test_a_bar_that_touches_stop_and_target_stops_the_pessimist_and_pays_the_optimist():
    assert trade(OUTSIDE, BRACKET).fills[1:] == [(0, "stop_loss", -1, 95)]
    assert trade(OUTSIDE, BRACKET, optimistic=True).fills[1:] == [(0, "take_profit", -1, 105)]


def test_a_short_of_stop_and_target_in_one_bar_is_stopped_high_first():
    short = sell(1, exits=exits(target=5, loss=5))
    assert trade(OUTSIDE, short).fills[1:] == [(0, "stop_loss", 1, 105)]
    assert trade(OUTSIDE, short, optimistic=True).fills[1:] == [(0, "take_profit", 1, 95)]


def test_where_both_ways_leave_the_same_the_low_comes_first_unless_the_bar_falls():
    # Both limits fill either way, and leave the same.
    orders = buy(1, type="limit", price=95), sell(1, type="limit", price=105)
    low_first, high_first = [(0, "entry", 1, 95), (0, "manual", -1, 105)], [(0, "entry", -1, 105), (0, "manual", 1, 95)]
    for bar, fills in ((OUTSIDE, low_first), (bars((100, 106, 94, 99)), high_first)):
        for optimistic in (False, True):
            assert trade(bar, *orders, optimistic=optimistic).fills == fills


def test_a_stop_along_the_path_fills_at_its_level_a_limit_at_its_limit():
    traded = trade(bars((100, 103, 99, 102)), buy(1, type="stop", stop_price=102), costs=costs(taker=0.001))
    assert traded.fills == [(0, "entry", 1, 102)]
    assert traded.outcome.log["fee"][0] == pytest.approx(0.102)
    traded = trade(bars((100, 103, 97, 102)), buy(1, type="limit", price=98), costs=costs(maker=0.01, taker=0.5))
    assert traded.fills == [(0, "entry", 1, 98)]
    assert traded.outcome.log["fee"][0] == pytest.approx(0.98)


def test_levels_on_one_leg_are_met_in_the_order_in_which_the_price_reaches_them():
    falls = bars((100, 100, 90, 90))
    orders = buy(1, type="limit", price=94), buy(2, type="limit", price=97), buy(3, type="limit", price=94)
    assert [fill[2:] for fill in trade(falls, *orders).fills] == [(2, 97), (1, 94), (3, 94)]


def test_a_stop_limit_triggered_on_the_way_up_rests_and_fills_on_the_way_back():
    order = buy(1, type="stop_limit", stop_price=104, price=103)
    assert trade(bars((100, 105, 100, 102)), order).fills == [(0, "entry", 1, 103)]
    assert trade(bars((100, 105, 100, 104)), order).fills == []


def test_a_stop_limit_triggered_along_the_path_takes_within_its_limit():
    order = buy(1, type="stop_limit", stop_price=104, price=106)
    assert trade(bars((100, 105, 100, 104)), order, costs=costs(slippage=FixedBps(bps=100))).fills == [
        (0, "entry", 1, 105.04)
    ]


def test_exits_work_from_where_their_entry_filled_inside_of_the_bar():
    # High first: bought at 104 on the way up, stopped at 101 on the way down. Low first the low comes before the entry.
    order = buy(1, type="stop", stop_price=104, exits=exits(loss=3))
    bar = bars((100, 106, 99, 105))
    assert trade(bar, order).fills == [(0, "entry", 1, 104), (0, "stop_loss", -1, 101)]
    assert trade(bar, order, optimistic=True).fills == [(0, "entry", 1, 104)]


def test_a_trailing_stop_follows_a_leg_to_its_end_and_is_met_on_the_next():
    # High first: up to 108, the stop comes along to 105. Low first it lies at 105 too when the close is reached.
    order = buy(1, exits=exits(trail=3))
    assert trade(bars((100, 108, 99, 104)), order).fills[1:] == [(0, "trailing_stop", -1, 105)]
    assert trade(bars((100, 108, 99, 107)), order, optimistic=True).fills[1:] == []


def test_a_trailing_stop_begins_inside_of_a_bar_where_its_activation_is_reached():
    order = buy(1, exits=exits(trail=3, activation=6))
    assert trade(bars((100, 105, 90, 92)), order).fills[1:] == []
    assert trade(bars((100, 108, 98, 104)), order).fills[1:] == [(0, "trailing_stop", -1, 105)]


def test_a_trailing_stop_of_a_fraction_is_a_fraction_of_its_extreme():
    order = buy(1, exits=exits(trail=0.1, unit="fraction"))
    assert trade(bars(QUIET, (200,) * 4, (190, 190, 170, 170)), order).fills[1:] == [(2, "trailing_stop", -1, 180)]


def test_a_listed_trailing_stop_follows_from_its_first_price_on_either_side():
    falls = bars(QUIET, (90, 90, 90, 90), (90, 95, 90, 95))
    assert trade(falls, buy(1, type="trailing_stop", trail=4)).fills == [(2, "entry", 1, 94)]
    rises = bars(QUIET, (110, 110, 110, 110), (110, 110, 105, 105))
    assert trade(rises, sell(1, type="trailing_stop", trail=4)).fills == [(2, "entry", -1, 106)]


def test_a_listed_trailing_stop_waits_for_its_activation():
    order = sell(1, type="trailing_stop", trail=4, activation=108)
    assert trade(bars(QUIET, (100, 107, 95, 100)), order).fills == []
    assert trade(bars(QUIET, (109, 109, 109, 109), (109, 109, 100, 101)), order).fills == [(2, "entry", -1, 105)]


def test_a_level_behind_the_price_when_its_order_is_sent_is_met_at_once():
    # Bought at 104 and 2 % on top: the stop at 105.08 lies above the price of 104 that the leg stands at.
    slipping = costs(slippage=FixedBps(bps=200))
    order = buy(1, type="stop", stop_price=104, exits=exits(loss=1))
    for optimistic in (False, True):
        traded = trade(bars((100, 110, 100, 110)), order, costs=slipping, optimistic=optimistic)
        assert traded.fills == [(0, "entry", 1, 106.08), (0, "stop_loss", -1, 101.92)]


def test_a_touched_limit_fills_unless_the_price_must_go_through():
    order = buy(1, type="limit", price=95)
    touched, passed = bars(QUIET, (100, 100, 95, 96)), bars(QUIET, (100, 100, 94.9, 96))
    assert trade(touched, order).fills == [(1, "entry", 1, 95)]
    assert trade(touched, order, limit_fills="through").fills == []
    assert trade(passed, order, limit_fills="through").fills == [(1, "entry", 1, 95)]


def test_the_position_is_marked_at_the_close():
    traded = trade(bars((100, 110, 90, 107), (107, 108, 101, 103)), buy(2))
    assert traded.equity == [10_014, 10_006]


# Volume.


def test_what_a_bar_cannot_take_waits_for_the_next():
    traded = trade(bars((*QUIET, 50), (101, 101, 101, 101, 30), (102, 102, 102, 102, 100)), buy(10), costs=capped(0.1))
    assert traded.fills == [(0, "entry", 5, 100), (1, "entry", 3, 101), (2, "entry", 2, 102)]
    assert traded.outcome.log["remaining"][:3].tolist() == [5, 2, 0]


def test_orders_share_the_volume_in_the_order_in_which_they_fill():
    traded = trade(bars((*QUIET, 50), (*QUIET, 50)), buy(4), buy(4), costs=capped(0.1))
    assert [fill[:3] for fill in traded.fills] == [(0, "entry", 4), (0, "entry", 1), (1, "entry", 3)]


def test_a_resting_limit_takes_its_part_of_the_volume_at_each_touch():
    dips = [(100, 100, 95, 100, 40)] * 3
    traded = trade(bars(*dips), buy(10, type="limit", price=96), costs=capped(0.1))
    assert traded.fills == [(0, "entry", 4, 96), (1, "entry", 4, 96), (2, "entry", 2, 96)]


def test_what_the_volume_leaves_of_a_limit_that_takes_takes_again_at_the_next_open():
    rising = bars((100, 100, 100, 100, 40), (101, 101, 101, 101, 40), (120, 120, 120, 120, 40))
    traded = trade(rising, buy(10, type="limit", price=110), costs=capped(0.1))
    assert traded.fills == [(0, "entry", 4, 100), (1, "entry", 4, 101)]


def test_a_triggered_stop_that_the_volume_left_over_goes_on_as_a_market_order():
    falls = bars((*QUIET, 1_000), (100, 100, 94, 98, 40), (99, 99, 99, 99, 1_000))
    traded = trade(falls, buy(10, exits=exits(loss=5)), costs=capped(0.1))
    assert traded.fills[1:] == [(1, "stop_loss", -4, 95), (2, "stop_loss", -6, 99)]


def test_without_volume_nothing_fills_under_a_cap_and_anything_without_one():
    still = bars((*QUIET, 0.0), (*QUIET, 0.0))
    assert trade(still, buy(1), costs=capped(0.1)).fills == []
    assert trade(still, buy(1)).fills == [(0, "entry", 1, 100)]
    assert trade(still, buy(1), costs=costs(slippage=FixedBps(bps=100))).fills == [(0, "entry", 1, 101)]


def test_a_limit_order_that_money_ends_leaves_the_volume_to_others():
    falls = bars((*QUIET, 1_000), (100, 100, 90, 95, 1_000))
    orders = buy(100), buy(1, type="limit", price=97), sell(100, type="stop", stop_price=95, reduce_only=True)
    traded = trade(falls, *orders, costs=capped(0.1))
    assert traded.fills == [(0, "entry", 100, 100), (1, "stop_loss", -100, 95)]
    assert traded.ends == [(1, "no_money")]


def test_a_liquidation_is_not_capped():
    falls = bars((*QUIET, 1_000), (100, 100, 80, 85, 1))
    traded = trade(falls, buy(100), costs=capped(0.1), account=Account(leverage=10))
    assert traded.fills[1][:3] == (1, "liquidation", -100)


def test_positions_open_at_the_end_are_closed_at_the_last_price_whatever_the_volume():
    traded = trade(bars((*QUIET, 1_000), (100, 104, 99, 103, 1)), buy(50), costs=capped(0.1))
    last = traded.outcome.log[-1]
    assert (last["side"], last["quantity"], last["price"], last["time_ns"]) == (-1, 50, 103, 2 * WIDTH_NS)
    assert traded.equity == [10_000, 10_150]
    assert traded.cash[-1] == 10_150


# Brackets, OCO, reduce-only.


def test_what_one_exit_of_an_entry_closes_the_others_no_longer_close():
    bar = (100, 106, 100, 100, 40)
    traded = trade(
        bars((*QUIET, 1_000), bar, (100, 100, 90, 92, 1_000)), buy(10, exits=exits(target=5, loss=5)), costs=capped(0.1)
    )
    assert traded.fills[1:] == [(1, "take_profit", -4, 105), (2, "stop_loss", -6, 95)]


def test_further_fills_of_an_entry_add_to_its_exits_at_the_distances_of_the_first():
    thin = bars((100, 100, 100, 100, 60), (104, 104, 104, 104, 60), (104, 104, 90, 92, 1_000))
    traded = trade(thin, buy(10, exits=exits(loss=5)), costs=capped(0.1))
    assert traded.fills == [(0, "entry", 6, 100), (1, "entry", 4, 104), (2, "stop_loss", -10, 95)]


@pytest.mark.parametrize("exit_of", [exits(loss=5), exits(trail=5)], ids=["stop", "trailing"])
def test_what_is_left_of_an_entry_ends_when_its_stop_is_triggered(exit_of):
    thin = bars((*QUIET, 40), (100, 100, 94, 100, 40), (*QUIET, 1_000))
    traded = trade(thin, buy(40, exits=exit_of), costs=capped(0.1))
    # At the second open the entry takes all of the volume: the stop is sold at the third.
    assert [fill[2] for fill in traded.fills] == [4, 4, -8]


def test_what_is_left_of_an_entry_ends_when_its_target_fills():
    thin = bars((*QUIET, 40), (104, 106, 104, 104, 1_000), (*QUIET, 1_000))
    traded = trade(thin, buy(40, type="limit", price=100, exits=exits(target=5)), costs=capped(0.1))
    assert traded.fills == [(0, "entry", 4, 100), (1, "take_profit", -4, 105)]


def test_exits_are_at_distances_from_the_price_that_was_paid():
    slipping = costs(slippage=FixedBps(bps=100))
    traded = trade(bars(QUIET, (100, 100, 90, 95)), buy(1, exits=exits(loss=0.02, unit="fraction")), costs=slipping)
    assert traded.fills[1][3] == pytest.approx(101 * 0.98 * 0.99)


def test_exits_lie_at_the_venue_without_latency():
    traded = trade(
        bars(QUIET, QUIET, (100, 100, 90, 95)), buy(1, exits=exits(loss=5)), latency=Latency(order_ns=2 * WIDTH_NS)
    )
    assert traded.fills == [(2, "entry", 1, 100), (2, "stop_loss", -1, 95)]


def test_an_exit_whose_price_would_not_be_positive_is_none():
    rises = bars(QUIET, (300, 300, 300, 300), (300, 300, 1, 240))
    assert trade(rises, buy(1, exits=exits(loss=200, trail=20))).fills[1:] == [(2, "trailing_stop", -1, 280)]
    falls = bars(QUIET, (40, 40, 1, 1), (30, 195, 30, 190))
    assert trade(falls, sell(1, exits=exits(target=150, trail=150))).fills[1:] == [(2, "trailing_stop", 1, 151)]


def test_a_fill_of_one_order_of_a_number_cancels_the_others():
    orders = (
        buy(1, type="limit", price=95, oco=7),
        buy(1, type="stop", stop_price=105, oco=7),
        buy(1, type="stop", stop_price=105, oco=8),
    )
    traded = trade(bars(QUIET, (100, 100, 94, 94), (94, 110, 94, 110)), *orders)
    assert traded.fills == [(1, "entry", 1, 95), (2, "entry", 1, 105)]


def test_a_reduce_only_order_is_cut_to_the_position():
    traded = trade(flat(2), buy(3), sell(10, at=1, reduce_only=True))
    assert traded.fills == [(0, "entry", 3, 100), (1, "manual", -3, 100)]


def test_a_reduce_only_order_that_finds_nothing_to_reduce_ends():
    traded = trade(flat(2), sell(10, reduce_only=True), buy(1, at=1))
    assert (traded.fills, traded.ends) == ([(1, "entry", 1, 100)], [(0, "nothing_held")])


def test_a_reduce_only_order_ends_when_the_position_is_flat():
    orders = buy(3), sell(3, type="limit", price=105, reduce_only=True), sell(at=1), buy(3, at=2)
    traded = trade(bars(QUIET, QUIET, QUIET, (100, 110, 100, 110)), *orders)
    assert traded.fills == [(0, "entry", 3, 100), (1, "manual", -3, 100), (2, "entry", 3, 100)]


def test_a_take_profit_order_only_reduces():
    rises = bars(QUIET, (100, 110, 100, 110))
    assert trade(rises, buy(3), sell(5, type="take_profit", price=105)).fills[1:] == [(1, "take_profit", -3, 105)]
    alone = trade(rises, sell(5, type="take_profit", price=105))
    assert (alone.fills, alone.ends) == ([], [(1, "nothing_held")])


def test_an_order_without_a_size_closes_the_position():
    traded = trade(flat(2), buy(3), buy(4), sell(at=1))
    assert traded.fills[2:] == [(1, "manual", -7, 100)]


def test_an_order_larger_than_the_position_closes_it_then_opens_the_other_side_in_two_fills():
    traded = trade(flat(2), buy(3, exits=exits(loss=5)), sell(5, at=1))
    assert traded.fills == [(0, "entry", 3, 100), (1, "manual", -3, 100), (1, "entry", -2, 100)]
    assert traded.outcome.log["position"][:3].tolist() == [1, 1, 2]


# Money, lots, ticks.


def test_what_is_beyond_the_margin_is_cut_and_does_not_wait():
    traded = trade(bars(QUIET, (50, 50, 50, 50), (200, 200, 200, 200)), buy(300))
    assert (traded.fills, traded.ends) == ([(0, "entry", 100, 100)], [])


def test_an_order_for_which_nothing_is_left_ends():
    traded = trade(flat(2), buy(100), buy(1, at=1))
    assert (traded.fills, traded.ends) == ([(0, "entry", 100, 100)], [(1, "no_money")])


def test_leverage_multiplies_what_may_be_held_fees_and_slippage_included():
    account = Account(leverage=5)
    assert trade(flat(1), buy(1_000), account=account).fills == [(0, "entry", 500, 100)]
    paying = costs(taker=0.001, slippage=FixedBps(bps=100))
    traded = trade(flat(1), buy(1_000), account=account, costs=paying)
    # 20 of margin, 0.101 of fee and 1 of slippage a unit.
    assert traded.fills[0][2] == pytest.approx(10_000 / (20 + 0.101 + 1))


def test_a_short_needs_margin_as_a_long_does():
    assert trade(flat(1), sell(300)).fills == [(0, "entry", -100, 100)]


def test_a_position_is_no_larger_than_its_limit():
    traded = trade(flat(2), buy(8), buy(8, at=1), account=Account(max_position_notional=1_000))
    assert traded.fills == [(0, "entry", 8, 100), (1, "entry", 2, 100)]


def test_a_notional_is_what_worth_slippage_and_fee_cost_together():
    paying = costs(taker=0.001, fixed_fee=2.0, slippage=FixedBps(bps=50))
    traded = trade(flat(1), buy(notional=1_000), costs=paying)
    row = traded.outcome.log[0]
    assert row["quantity"] * row["price"] + row["fee"] == pytest.approx(1_000, rel=1e-12)


def test_quantities_are_cut_to_whole_lots_and_the_rest_does_not_wait():
    traded = trade(flat(3), buy(1.99), buy(notional=1_000, at=1), lot_size=0.3)
    assert (traded.fills, traded.ends) == ([(0, "entry", 1.8, 100), (1, "entry", 9.9, 100)], [])


def test_less_than_a_lot_is_rejected():
    assert trade(flat(2), buy(0.2), lot_size=0.3).ends == [(0, "too_small")]


def test_an_opening_order_below_the_least_notional_is_rejected_a_closing_one_is_not():
    traded = trade(flat(2), buy(0.4), buy(0.6), sell(0.1, at=1), min_notional=50)
    assert traded.fills == [(0, "entry", 0.6, 100), (1, "manual", -0.1, 100)]
    assert traded.ends == [(0, "too_small")]


def test_the_least_notional_judges_the_order_not_the_part_that_volume_allows():
    traded = trade(bars((*QUIET, 2), QUIET), buy(10), min_notional=50, costs=capped(0.1))
    assert traded.fills == [(0, "entry", 0.2, 100), (1, "entry", 9.8, 100)]


def test_what_turns_a_position_is_held_against_the_least_notional_by_itself():
    traded = trade(flat(2), buy(1), sell(1.4, at=1), min_notional=50)
    assert (traded.fills[1:], traded.ends) == ([(1, "manual", -1, 100)], [(1, "too_small")])


def test_multiples_of_a_lot_and_of_a_tick_are_what_is_written():
    traded = trade(steps(0.3, 0.3), buy(0.34), lot_size=0.1, tick_size=0.1)
    assert (traded.outcome.log["quantity"][0], traded.outcome.log["price"][0]) == (0.3, 0.3)


def test_limits_round_to_the_passive_side_and_stops_away_from_the_market():
    falls, rises = bars(QUIET, (100, 100, 94, 94)), bars(QUIET, (100, 106, 100, 106))
    assert trade(falls, buy(1, type="limit", price=95.4), tick_size=0.5).fills[0][3] == 95
    assert trade(rises, sell(1, type="limit", price=104.6), tick_size=0.5).fills[0][3] == 105
    assert trade(falls, sell(1, type="stop", stop_price=95.4), tick_size=0.5).fills[0][3] == 95
    assert trade(rises, buy(1, type="stop", stop_price=104.6), tick_size=0.5).fills[0][3] == 105


def test_prices_of_fills_that_take_are_moved_to_the_next_tick_against_the_order():
    slipping = costs(slippage=FixedBps(bps=10))
    traded = trade(flat(2), buy(1), sell(1, at=1), tick_size=0.5, costs=slipping)
    assert [fill[3] for fill in traded.fills] == [100.5, 99.5]


# Liquidation.


def test_a_long_is_liquidated_where_its_margin_is_down_to_maintenance():
    account = Account(leverage=10, maintenance_margin=0.005, liquidation_rate=0.01)
    traded = trade(bars(QUIET, (100, 101, 85, 90)), buy(10), account=account, costs=costs(taker=0.001))
    level = 100 * 0.9 / 0.995
    assert traded.fills[1] == (1, "liquidation", -10, pytest.approx(level))
    assert traded.outcome.log["fee"][1] == pytest.approx(10 * level * 0.011)


def test_a_short_is_liquidated_above_its_entry():
    traded = trade(bars(QUIET, (100, 115, 100, 110)), sell(10), account=Account(leverage=10))
    assert traded.fills[1] == (1, "liquidation", 10, pytest.approx(100 * 1.1 / 1.005))


def test_an_open_beyond_the_liquidation_price_liquidates_at_the_open_before_any_order():
    orders = buy(10), sell(10, at=1)
    traded = trade(bars(QUIET, (80, 81, 79, 80)), *orders, account=Account(leverage=10))
    assert traded.fills[1:] == [(1, "liquidation", -10, 80), (1, "entry", -10, 80)]


def test_of_a_stop_and_a_liquidation_at_one_price_the_liquidation_comes_first():
    account = Account(leverage=2, maintenance_margin=0.0)
    traded = trade(bars(QUIET, (100, 100, 40, 45)), buy(10, exits=exits(loss=50)), account=account)
    assert traded.fills[1:] == [(1, "liquidation", -10, 50)]


def test_without_leverage_a_long_is_never_liquidated():
    assert trade(bars(QUIET, (100, 100, 0.01, 0.01)), buy(100)).fills == [(0, "entry", 100, 100)]


# Ticks and quotes.


def test_on_ticks_orders_meet_trades_not_bars():
    traded = trade(bars((100, 150, 50, 100), QUIET), buy(2, at=0.2), feeds=[trades((0.1, 90, 1), (0.3, 97, 1))])
    assert traded.fills == [(pytest.approx(0.3), "entry", 2, 97)]


def test_listed_orders_of_a_moment_come_before_its_trades():
    traded = trade(flat(2), buy(2, at=0.5), feeds=[trades((0.25, 90, 1), (0.5, 97, 1))])
    assert traded.fills == [(0.5, "entry", 2, 97)]


def test_a_stop_fills_at_the_trade_that_triggers_it():
    feed = trades((0.25, 100, 1), (0.5, 96, 1), (0.75, 94, 1), (1, 93, 1))
    traded = trade(flat(2), buy(1, exits=exits(loss=5)), feeds=[feed])
    assert traded.fills == [(0.25, "entry", 1, 100), (0.75, "stop_loss", -1, 94)]


def test_a_resting_limit_takes_no_more_than_the_trades_that_go_through_it():
    feed = trades((0.25, 100, 9), (0.5, 95, 9), (0.625, 94, 3), (0.75, 94, 3), (0.875, 94, 3))
    order = buy(5, type="limit", price=95)
    traded = trade(flat(2), order, feeds=[feed], limit_fills="through")
    assert traded.fills == [(0.625, "entry", 3, 95), (0.75, "entry", 2, 95)]


def test_one_trades_size_is_shared_by_the_resting_orders_in_the_order_sent():
    feed = trades((0.25, 100, 9), (0.5, 94, 5))
    orders = buy(3, type="limit", price=95), buy(3, type="limit", price=96)
    traded = trade(flat(1), *orders, feeds=[feed], limit_fills="through")
    assert traded.fills == [(0.5, "entry", 3, 95), (0.5, "entry", 2, 96)]


def test_a_limit_that_arrives_at_a_trade_takes_or_rests():
    feed = trades((0.25, 100, 1), (0.5, 98, 10))
    traded = trade(flat(1), buy(2, type="limit", price=101), buy(2, type="limit", price=99), feeds=[feed])
    assert traded.fills == [(0.25, "entry", 2, 100), (0.5, "entry", 2, 99)]


def test_market_orders_fill_at_the_far_side_of_a_quote():
    feeds = [quotes((0.25, 99, 101), (0.5, 98, 102))]
    assert trade(flat(1), buy(1), sell(1, at=0.375), feeds=feeds).fills == [
        (0.25, "entry", 1, 101),
        (0.5, "manual", -1, 98),
    ]


def test_a_stop_that_a_trade_triggers_fills_at_the_last_quotes_far_side():
    feeds = [trades((0.25, 100, 1), (0.75, 94, 1)), quotes((0.125, 99, 101), (0.5, 92, 96))]
    traded = trade(flat(1), buy(1, at=0.25, exits=exits(loss=5)), feeds=feeds)
    assert traded.fills == [(0.25, "entry", 1, 101), (0.75, "stop_loss", -1, 92)]


def test_an_order_that_takes_gets_the_worse_of_the_trade_and_an_older_quote():
    feeds = [trades((0.5, 105, 1), (0.75, 95, 1)), quotes((0.25, 99, 101))]
    assert trade(flat(1), buy(1, at=0.375), sell(1, at=0.625), feeds=feeds).fills == [
        (0.5, "entry", 1, 105),
        (0.75, "manual", -1, 95),
    ]


@pytest.mark.parametrize("quote", [(101, 99), (0, 100), (100, 0), (math.nan, 100)])
def test_a_crossed_or_empty_quote_is_none(quote):
    feeds = [trades((0.75, 100, 1)), quotes((0.25, 90, 91), (0.5, *quote))]
    assert trade(flat(1), buy(1, at=0.375), feeds=feeds).fills == [(0.75, "entry", 1, 100)]


def test_resting_limits_wait_for_trades_whatever_is_quoted():
    feeds = [trades((0.75, 94, 9)), quotes((0.25, 99, 101), (0.5, 93, 94))]
    assert trade(flat(1), buy(1, type="limit", price=95), feeds=feeds).fills == [(0.75, "entry", 1, 95)]


def test_a_limit_arrives_at_a_quote():
    feeds = [quotes((0.25, 99, 101), (0.5, 93, 94))]
    assert trade(flat(1), buy(1, type="limit", price=102), feeds=feeds).fills == [(0.25, "entry", 1, 101)]


def test_a_position_is_liquidated_at_the_trade_that_reaches_its_price():
    feed = trades((0.25, 100, 1), (0.5, 92, 1), (0.75, 88, 1))
    traded = trade(flat(1), buy(1), feeds=[feed], account=Account(leverage=10))
    assert traded.fills[1:] == [(0.75, "liquidation", -1, 88)]


def test_the_cap_on_ticks_is_of_the_last_complete_bar_and_counts_what_was_taken_since():
    feed = trades((0.5, 100, 1), (1.25, 100, 1), (1.5, 100, 1), (2.25, 100, 1))
    series = bars((*QUIET, 50), (*QUIET, 20), QUIET)
    orders = buy(7, at=0.5), buy(7, at=1)
    traded = trade(series, *orders, feeds=[feed], costs=capped(0.1))
    # Before the first bar has ended there is no cap; then 5, then 2.
    assert traded.fills == [(0.5, "entry", 7, 100), (1.25, "entry", 5, 100), (2.25, "entry", 2, 100)]


def test_an_order_expires_between_trades():
    feed = trades((0.25, 100, 1), (0.75, 94, 9))
    traded = trade(flat(1), buy(1, type="limit", price=95, time_in_force="GTD", until=0.5), feeds=[feed])
    assert (traded.fills, traded.ends) == ([], [(0.75, "expired")])


# What a user cannot exceed.


def test_more_orders_than_a_symbol_has_room_for_are_refused_one_by_one():
    orders = [buy(1, type="limit", price=50) for _ in range(ORDERS_A_SYMBOL + 2)]
    outcome = run((a_spec(program=OrderList(tuple(orders))), [flat(3)], []))
    # The last eight places are kept for orders that close.
    assert outcome.log["status"].tolist() == [Status.TOO_MANY] * 10


def test_a_listed_distance_in_atr_is_refused():
    with pytest.raises(ValueError, match="ATR"):
        trade(flat(1), buy(1, exits=exits(loss=1, unit="atr")))
    trail = Trailing(distance=away(1, "atr"))
    order = ListedOrder(time_ns=0, symbol=0, side="sell", type="trailing_stop", quantity=1.0, trail=trail)
    with pytest.raises(ValueError, match="ATR"):
        trade(flat(1), order)
