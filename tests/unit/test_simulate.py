"""Decisions, sizing, events, funding, latency and costs of `docs/backtest.md`; both loops must agree on each."""

import math
import tracemalloc

import msgspec
import numpy as np
import pytest
from naive.simulate import Signal
from simulated import (
    WIDTH_NS,
    a_spec,
    as_bars,
    as_feed,
    as_log,
    away,
    bars,
    buy,
    costs,
    exits,
    flat,
    naive,
    quotes,
    run,
    sell,
    steps,
    trade,
    trades,
)

from daemon.core import backtest as spec_of
from daemon.core.backtest import Account, EntryOrder, Fixed, FixedBps, FixedFractional, Latency, VolumeWeighted
from daemon.engine.feeds import TRADES
from daemon.engine.loop import step
from daemon.engine.settings import listed_orders
from daemon.engine.simulate import Chunk, Feed, Progress, Simulation

QUIET = (100, 100, 100, 100)
LONG, SHORT, LEAVE_LONG, LEAVE_SHORT = Signal.ENTER_LONG, Signal.ENTER_SHORT, Signal.EXIT_LONG, Signal.EXIT_SHORT
ONE = Fixed(quantity=1.0)


# Decisions.


def test_a_symbol_without_bars_beside_symbols_of_one_bar_needs_no_other_loop():
    # NumPy joins such columns in Fortran order: for these the loop was compiled a second time, for a minute.
    for lengths in ((2, 2, 2), (0, 1, 1)):
        trade([flat(length) for length in lengths], sizing=ONE)
    assert len(step.signatures) == 1


def test_a_signal_at_a_close_fills_at_the_next_open():
    series = bars((100, 105, 95, 103), (104, 106, 102, 105), signals={0: LONG})
    assert trade(series, sizing=ONE).fills == [(1, "entry", 1, 104)]


def test_a_signal_at_the_last_close_comes_to_nothing():
    assert trade(steps(100, 101, signals={1: LONG}), sizing=ONE).fills == []


def test_an_exit_rule_of_the_positions_side_closes_it_at_the_next_open():
    traded = trade(steps(100, 101, 102, 103, signals={0: LONG, 1: LEAVE_SHORT, 2: LEAVE_LONG}), sizing=ONE)
    assert traded.fills == [(1, "entry", 1, 101), (3, "signal", -1, 103)]


def test_a_position_is_held_for_its_timeout_counting_the_close_of_its_own_bar():
    traded = trade(steps(100, 101, 102, 103, 104, signals={0: LONG}), sizing=ONE, exits=exits(timeout=2))
    # Filled in bar 1; the closes of bars 1 and 2 are two.
    assert traded.fills == [(1, "entry", 1, 101), (3, "timeout", -1, 103)]


def test_a_signal_wins_over_a_timeout_of_the_same_close():
    series = steps(100, 101, 102, signals={0: LONG, 1: LEAVE_LONG})
    assert trade(series, sizing=ONE, exits=exits(timeout=1)).fills[1:] == [(2, "signal", -1, 102)]


def test_a_position_is_not_added_to():
    assert trade(steps(*[100] * 4, signals=dict.fromkeys(range(4), LONG)), sizing=ONE).fills == [(1, "entry", 1, 100)]


def test_an_exit_and_an_entry_of_one_close_turn_the_position():
    series = steps(100, 101, 102, signals={0: LONG, 1: LEAVE_LONG | SHORT})
    traded = trade(series, sizing=ONE)
    assert traded.fills == [(1, "entry", 1, 101), (2, "signal", -1, 102), (2, "entry", -1, 102)]


def test_a_timeout_and_an_entry_of_one_close_open_anew():
    series = steps(100, 101, 102, signals={0: LONG, 1: LONG})
    traded = trade(series, sizing=ONE, exits=exits(timeout=1))
    assert traded.fills == [(1, "entry", 1, 101), (2, "timeout", -1, 102), (2, "entry", 1, 102)]


def test_a_long_wins_a_tie():
    assert trade(steps(100, 100, signals={0: LONG | SHORT}), sizing=ONE).fills == [(1, "entry", 1, 100)]


def test_no_entry_is_sent_while_one_waits():
    resting = EntryOrder(type="limit", offset=away(5))
    series = bars(QUIET, (101, 101, 101, 101), (101, 101, 90, 90), signals={0: LONG, 1: LONG})
    assert trade(series, sizing=ONE, entry_order=resting).fills == [(2, "entry", 1, 95)]


def test_an_exit_rule_ends_waiting_entries_of_its_side():
    resting = EntryOrder(type="limit", offset=away(5))
    falls = [QUIET, QUIET, (100, 100, 90, 90)]
    for rule, fills in ((LEAVE_LONG, []), (LEAVE_SHORT, [(2, "entry", 1, 95)])):
        assert trade(bars(*falls, signals={0: LONG, 1: rule}), sizing=ONE, entry_order=resting).fills == fills


def test_an_exit_rule_ends_an_entry_that_waits_behind_the_closing_of_the_other_side():
    # The volume closes the long little by little; the short that waits for it is called off.
    thin = costs(slippage=VolumeWeighted(impact=0.0, half_spread_bps=0.0, participation_cap=0.1))
    rows = [(*QUIET, volume) for volume in (10, 100, 10, 10, 10, 200)]
    said = {0: LONG, 1: LEAVE_LONG | SHORT, 2: LEAVE_SHORT}
    traded = trade(bars(*rows, signals=said), sizing=Fixed(quantity=4.0), costs=thin)
    assert [fill[1:3] for fill in traded.fills] == [("entry", 4), *[("signal", -1)] * 4]


def test_no_more_symbols_than_allowed_have_a_position_or_wait_for_one():
    series = [flat(4, signals={0: LONG}), flat(4, signals={0: LONG, 1: LONG}), flat(4, signals={2: LONG})]
    traded = trade(series, sizing=ONE, account=Account(max_positions=1))
    assert traded.outcome.log["symbol"].tolist() == [0, 0]
    assert trade(series, sizing=ONE, account=Account(max_positions=2)).outcome.log["symbol"].tolist() == [0, 1, 0, 1]


def test_a_symbol_may_turn_its_position_where_only_one_is_allowed():
    series = [flat(3, signals={0: LONG, 1: LEAVE_LONG | SHORT}), flat(3)]
    traded = trade(series, sizing=ONE, account=Account(max_positions=1))
    assert [fill[2] for fill in traded.fills] == [1, -1, -1]


# How entries are sent.


@pytest.mark.parametrize(
    ("side", "order", "filled"),
    [
        (LONG, EntryOrder(type="limit", offset=away(4)), (1, "entry", 1, 96)),
        (SHORT, EntryOrder(type="limit", offset=away(4)), (1, "entry", -1, 104)),
        (LONG, EntryOrder(type="limit", offset=away(0.04, "fraction")), (1, "entry", 1, 96)),
        (LONG, EntryOrder(type="limit", offset=away(2, "atr")), (1, "entry", 1, 96)),
        (LONG, EntryOrder(type="stop", offset=away(4)), (1, "entry", 1, 104)),
        (SHORT, EntryOrder(type="stop", offset=away(4)), (1, "entry", -1, 96)),
        (LONG, EntryOrder(type="stop_limit", offset=away(4), limit_offset=away(1)), (1, "entry", 1, 104)),
    ],
)
def test_an_entry_is_sent_at_its_offset_from_the_close(side, order, filled):
    series = bars(QUIET, (100, 106, 94, 100), signals={0: side}, atr=2.0)
    assert trade(series, sizing=ONE, entry_order=order).fills == [filled]


def test_an_entry_is_good_for_so_many_bars():
    falls = [QUIET, QUIET, QUIET, (100, 100, 90, 90)]
    order = EntryOrder(type="limit", offset=away(5), time_in_force="GTD", good_for_bars=2)
    early = trade(bars(*falls, signals={0: LONG}), sizing=ONE, entry_order=order)
    assert (early.fills, early.ends) == ([], [(3, "expired")])
    late = trade(bars(*falls, signals={1: LONG}), sizing=ONE, entry_order=order)
    assert late.fills == [(3, "entry", 1, 95)]


def test_exits_in_atr_are_of_the_atr_at_the_signals_bar():
    series = bars(QUIET, QUIET, (100, 100, 90, 90), signals={0: LONG})
    series = series._replace(
        bars=[bar._replace(atr=atr) for bar, atr in zip(series.bars, (2.0, 5.0, 9.0), strict=True)]
    )
    traded = trade(series, sizing=ONE, exits=exits(loss=3, unit="atr"))
    assert traded.fills[1:] == [(2, "stop_loss", -1, 94)]


def test_a_signal_without_an_atr_yet_is_dropped_where_a_level_needs_one():
    series = flat(3, signals={0: LONG})
    for how in (
        {"exits": exits(loss=3, unit="atr")},
        {"entry_order": EntryOrder(type="limit", offset=away(1, "atr"))},
        {"sizing": spec_of.AtrRisk()},
    ):
        assert trade(series, **({"sizing": ONE} | how)).fills == []


# Sizing.


def quantity_of(series, **fields):
    traded = trade(series, **fields)
    return [fill[2] for fill in traded.fills if fill[1] == "entry"]


def test_a_fixed_quantity_and_a_fixed_notional_are_the_same_every_time():
    series = steps(100, 100, 200, 200, signals={0: LONG, 1: LEAVE_LONG, 2: LONG})
    assert quantity_of(series, sizing=Fixed(quantity=2.5)) == [2.5, 2.5]
    assert quantity_of(series, sizing=Fixed(notional=1_000.0)) == [10, 5]


def test_a_fraction_is_of_the_equity_at_the_close():
    series = steps(100, 100, 150, 150, signals={0: LONG, 1: LEAVE_LONG, 2: LONG})
    # 50 won 2,500.
    assert quantity_of(series, sizing=FixedFractional(fraction=0.5)) == [50, pytest.approx(12_500 / 2 / 150)]


def test_symbols_share_the_equity_equally():
    series = [flat(2, signals={0: LONG}) for _ in range(4)]
    assert quantity_of(series) == [25] * 4
    assert quantity_of(series, account=Account(max_positions=2)) == [50, 50]


def test_a_fraction_above_one_takes_leverage():
    series = flat(2, signals={0: LONG})
    assert quantity_of(series, sizing=FixedFractional(fraction=3.0)) == [100]
    assert quantity_of(series, sizing=FixedFractional(fraction=3.0), account=Account(leverage=5)) == [300]


def test_an_atr_risk_loses_its_part_of_the_share_at_its_multiple():
    series = flat(2, signals={0: LONG}, atr=4.0)
    # 1 % of 10,000 over 2 x 4.
    assert quantity_of(series, sizing=spec_of.AtrRisk(risk=0.01, multiple=2.0)) == [12.5]


def test_a_volatility_target_is_the_share_times_target_over_annual_volatility_up_to_its_cap():
    sizing = spec_of.VolatilityTarget(target=0.2, cap=0.9)
    wild, calm = (flat(2, signals={0: LONG}, sigma=sigma) for sigma in (0.02, 0.001))
    assert quantity_of(wild, sizing=sizing) == [pytest.approx(100 * 0.2 / (0.02 * math.sqrt(365)), rel=1e-9)]
    assert quantity_of(calm, sizing=sizing) == [90]
    assert quantity_of(flat(2, signals={0: LONG}), sizing=sizing) == []


def kelly_after(*exits_at, **fields):
    """Return what Kelly stakes of 100, in units of 100, after trades that went from 100 to these prices."""
    prices, said = [], {}
    for price in exits_at:
        at = len(prices)
        said |= {at: LONG, at + 1: LEAVE_LONG}
        prices += [100, 100, price]
    said[len(prices)] = LONG
    sizing = spec_of.Kelly(fraction=1.0, least_trades=len(exits_at), start=0.01, **fields)
    traded = trade(steps(*prices, 100, 100, signals=said), sizing=sizing)
    entries = [fill for fill in traded.fills if fill[1] == "entry"]
    if len(entries) == len(exits_at):
        return 0.0
    return entries[-1][2] * 100 / traded.cash[-3]


@pytest.mark.parametrize(
    ("wins", "losses", "win", "loss", "stake"),
    [
        (6, 4, 110, 90, 0.2),
        (11, 9, 110, 90, 0.1),
        (2, 2, 120, 90, 0.25),
        (4, 6, 120, 90, 0.1),
        (2, 2, 110, 90, 0.0),
        (1, 3, 110, 90, 0.0),
    ],
)
def test_kelly_stakes_p_less_the_odds_of_losing(wins, losses, win, loss, stake):
    assert kelly_after(*[win] * wins, *[loss] * losses) == pytest.approx(stake, abs=1e-9)


def test_kelly_stakes_its_start_until_enough_trades_are_closed_and_never_more_than_its_cap():
    sizing = spec_of.Kelly(least_trades=5, start=0.3)
    assert quantity_of(flat(2, signals={0: LONG}), sizing=sizing) == [30]
    assert kelly_after(110, 110, cap=0.4) == pytest.approx(0.4)
    assert kelly_after(90, 90) == 0


def test_kelly_counts_funding_as_part_of_what_a_trade_brought():
    said = {0: LONG, 2: LEAVE_LONG, 4: LONG}
    sizing = spec_of.Kelly(fraction=1.0, least_trades=1, start=0.1)
    for rate, count in ((-0.01, 2), (0.01, 1)):
        assert len(quantity_of(flat(7, signals=said, funding=[(2.5, rate)]), sizing=sizing)) == count


def test_a_positions_limit_holds_for_every_sizing():
    series = flat(2, signals={0: LONG}, atr=1.0, sigma=0.001)
    account = Account(max_position_notional=500.0)
    for sizing in (ONE, Fixed(quantity=50.0), Fixed(notional=5_000.0), FixedFractional(), spec_of.AtrRisk()):
        assert quantity_of(series, sizing=sizing, account=account) == [1 if sizing is ONE else 5]
    assert quantity_of(series, sizing=spec_of.VolatilityTarget(), account=account) == [5]


def test_a_purchase_in_parts_takes_its_part_of_the_share_each_time_though_it_holds():
    series = steps(100, 100, 125, 250, 250, signals=dict.fromkeys(range(4), LONG))
    program = spec_of.Averaging(every_bars=1, purchases=4)
    # A quarter of what there was to begin with, not of what has become of it.
    assert quantity_of(series, program=program) == [25, 20, 10, 10]


def test_a_purchase_that_waits_for_volume_does_not_keep_the_next_from_being_sent():
    still = bars((*QUIET, 0.0), (*QUIET, 0.0), (*QUIET, 0.0), QUIET, signals=dict.fromkeys(range(2), LONG))
    thin = costs(slippage=VolumeWeighted(impact=0.0, half_spread_bps=0.0, participation_cap=1.0))
    program = spec_of.Averaging(every_bars=1, purchases=4)
    assert quantity_of(still, program=program, costs=thin) == [25, 25]


# Order of events.


def test_symbols_are_matched_in_the_order_of_the_configuration():
    # Both want all of the money: the first listed gets it.
    traded = trade([flat(1), flat(1)], buy(100, symbol=1), buy(100, symbol=0))
    assert traded.outcome.log["symbol"].tolist() == [0, 1, 0]
    assert traded.ends == [(0, "no_money")]


def test_an_order_listed_for_a_close_comes_after_the_decisions_of_that_close():
    series = flat(2, signals={0: LONG})
    orders = listed_orders(a_spec(program=spec_of.OrderList((buy(60, at=1),))))
    log = Simulation(a_spec(sizing=Fixed(quantity=60.0)), [as_bars(series)], orders=orders).run().log
    assert log["quantity"].tolist()[:2] == [60, 40]
    assert log["sent_ns"].tolist()[:2] == [WIDTH_NS, WIDTH_NS]


def test_decisions_of_a_close_come_before_the_trades_of_that_moment():
    feed = trades((0.5, 99, 1), (1, 101, 1))
    assert trade(flat(2, signals={0: LONG}), feeds=[feed], sizing=ONE).fills == [(1, "entry", 1, 101)]


def test_feeds_of_one_moment_come_in_their_order():
    first, second = trades((0.5, 101, 9)), quotes((0.5, 98, 99))
    assert trade(flat(1), buy(1, at=0.25), feeds=[first, second]).fills == [(0.5, "entry", 1, 101)]
    assert trade(flat(1), buy(1, at=0.25), feeds=[second, first]).fills == [(0.5, "entry", 1, 99)]


def test_equity_is_sampled_at_each_close_of_any_symbol():
    series = [bars(QUIET, QUIET, starts=[0, 2]), bars(QUIET, QUIET, starts=[0, 5])]
    samples = trade(series).outcome.samples
    assert (samples.time_ns // WIDTH_NS).tolist() == [1, 3, 6]


def test_a_symbol_is_closed_where_its_own_data_end():
    traded = trade([steps(100, 110), flat(4)], buy(10), buy(1, symbol=1), sell(1, at=2))
    assert traded.equity == [10_000, 10_100, 10_100, 10_100]
    assert traded.outcome.log["time_ns"].tolist() == [0, 0, 2 * WIDTH_NS, 4 * WIDTH_NS]


def test_ticks_after_a_symbols_last_bar_are_none():
    traded = trade(flat(1), buy(1, at=1), feeds=[trades((0.5, 100, 1), (1, 105, 1), (1.5, 110, 1))])
    assert (traded.fills, traded.equity, traded.outcome.events) == ([], [10_000], 2)


def test_a_bar_after_a_hole_fills_what_waited_over_it():
    series = bars(QUIET, (90, 91, 89, 90), starts=[0, 30], signals={0: LONG})
    assert trade(series, sizing=ONE).fills == [(30, "entry", 1, 90)]


# Latency.


@pytest.mark.parametrize(
    ("latency", "bar"),
    [
        (Latency(), 1),
        (Latency(feed_ns=WIDTH_NS // 3, order_ns=WIDTH_NS // 3), 1),
        (Latency(feed_ns=WIDTH_NS // 2, order_ns=WIDTH_NS // 2), 2),
        (Latency(order_ns=5 * WIDTH_NS // 2), 3),
    ],
)
def test_on_bars_a_latency_is_cut_to_whole_bars(latency, bar):
    traded = trade(steps(100, 101, 102, 103, signals={0: LONG}), sizing=ONE, latency=latency)
    assert traded.fills == [(bar, "entry", 1, 100 + bar)]


def test_on_ticks_a_decision_is_live_after_feed_and_order_latency_a_listed_order_after_its_own():
    latency = Latency(feed_ns=WIDTH_NS // 4, order_ns=WIDTH_NS // 4)
    feed = trades((0.75, 99, 1), (1.25, 100, 1), (1.5, 101, 1), (1.75, 102, 1))
    decided = trade(flat(3, signals={0: LONG}), feeds=[feed], sizing=ONE, latency=latency)
    assert decided.fills == [(1.5, "entry", 1, 101)]
    assert trade(flat(3), buy(1, at=1), feeds=[feed], latency=latency).fills == [(1.25, "entry", 1, 100)]


# Funding.


def test_longs_pay_funding_and_shorts_receive_it_when_the_rate_is_positive():
    series = flat(3, funding=[(1.5, 0.001)])
    for order, cash in ((buy(10), -1), (sell(10), 1)):
        assert trade(series, order).cash[-1] == pytest.approx(10_000 + cash)


def test_a_negative_rate_pays_longs():
    assert trade(flat(3, funding=[(1.5, -0.001)]), buy(10)).cash[-1] == pytest.approx(10_001)


def test_funding_inside_of_a_bar_is_paid_on_the_position_at_its_close():
    # The bar opens at 100 and closes at 110; what is stopped out in it pays nothing.
    rises = bars((100, 110, 100, 110), (110,) * 4, funding=[(0.5, 0.001)])
    assert trade(rises, buy(10)).cash[-1] == pytest.approx(10_100 - 1.1)
    falls = bars((100, 100, 90, 95), (95,) * 4, funding=[(0.5, 0.001)])
    assert trade(falls, buy(10, exits=exits(loss=5))).cash[-1] == pytest.approx(9_950)


def test_funding_of_a_hole_is_paid_before_the_bar_after_it():
    series = bars(QUIET, (120,) * 4, starts=[0, 10], funding=[(5, 0.001), (9, 0.001)])
    assert trade(series, buy(10), sell(at=9.5)).cash[-1] == pytest.approx(10_200 - 2)


def test_on_ticks_funding_is_paid_at_the_last_price_before_the_trades_of_its_moment():
    feed = trades((0.25, 100, 1), (0.5, 110, 1), (0.75, 120, 1))
    series = flat(1, 120, funding=[(0.75, 0.01)])
    assert trade(series, buy(1), feeds=[feed]).cash[-1] == pytest.approx(10_020 - 1.1)


def test_funding_of_one_symbol_is_paid_before_another_symbols_trade():
    # Half of the money is gone before the second symbol buys.
    series = [flat(2, funding=[(0.5, 0.5)]), flat(2)]
    feeds = [trades((0.25, 100, 1)), trades((0.75, 100, 1), symbol=1)]
    traded = trade(series, buy(50), buy(90, symbol=1, at=0.5), feeds=feeds)
    assert [fill[2] for fill in traded.fills] == [50, 25]


# Costs.


def test_fees_are_of_the_price_paid_with_the_rate_of_the_side_and_a_fixed_part():
    paying = costs(maker=0.001, taker=0.002, fixed_fee=0.5, slippage=FixedBps(bps=100))
    traded = trade(bars(QUIET, (100, 100, 90, 95)), buy(10), buy(10, type="limit", price=95), costs=paying)
    taken, made = traded.outcome.log[:2]
    assert taken["fee"] == pytest.approx(10 * 101 * 0.002 + 0.5)
    assert made["fee"] == pytest.approx(10 * 95 * 0.001 + 0.5)
    assert made["price"] == 95


def test_a_receipt_tells_spread_and_impact_apart_and_what_they_rest_on():
    model = VolumeWeighted(impact=0.5, half_spread_bps=20, participation_cap=0.5)
    series = bars((*QUIET, 200), atr=1.0, sigma=0.03, day_volume=9_000.0)
    row = trade(series, buy(20), costs=costs(taker=0.001, slippage=model)).outcome.log[0]
    assert row["reference"] == 100
    assert row["spread"] == pytest.approx(20 * 100 * 0.002)
    assert row["impact"] == pytest.approx(20 * 100 * 0.5 * 0.1**2)
    assert row["price"] == pytest.approx(100 * (1 + 0.002 + 0.005))
    assert (row["participation"], row["volume"]) == (0.1, 200)
    assert (row["sigma"], row["day_volume"], row["fee_rate"]) == (0.03, 9_000, 0.001)


def test_a_stress_multiplier_scales_fees_and_slippage():
    once = costs(taker=0.001, fixed_fee=1.0, slippage=FixedBps(bps=10))
    thrice = costs(taker=0.001, fixed_fee=1.0, slippage=FixedBps(bps=10), scale=3.0)
    mild, hard = (trade(flat(1), buy(10), costs=each).outcome.log[0] for each in (once, thrice))
    assert hard["price"] - 100 == pytest.approx(3 * (mild["price"] - 100))
    assert hard["fee"] == pytest.approx(10 * hard["price"] * 0.003 + 3)


def test_slippage_never_takes_more_than_half_of_a_price():
    absurd = costs(slippage=FixedBps(bps=50_000))
    assert trade(flat(2), buy(1), sell(1, at=1), costs=absurd).fills == [(0, "entry", 1, 150), (1, "manual", -1, 50)]


def test_a_symbol_with_slippage_of_its_own_pays_that_and_the_others_what_all_pay():
    orders = spec_of.OrderList((buy(1), buy(1, symbol=1)))
    spec = a_spec(symbols=2, program=orders, costs=costs(slippage=FixedBps(bps=10)))
    own = msgspec.structs.replace(spec.markets[1], slippage=FixedBps(bps=100))
    case = (msgspec.structs.replace(spec, markets=(spec.markets[0], own)), [flat(2), flat(2)], [])
    log = run(case).log
    assert as_log(log) == naive.Simulation(*case).run().log
    entries = log[log["reason"] == spec_of.Reason.ENTRY]
    assert dict(zip(entries["symbol"].tolist(), entries["price"].tolist(), strict=True)) == pytest.approx(
        {0: 100.1, 1: 101}
    )


def test_each_symbol_has_the_participation_cap_of_its_own_model():
    orders = spec_of.OrderList((buy(10), buy(10, symbol=1)))
    spec = a_spec(symbols=2, program=orders)
    own = msgspec.structs.replace(
        spec.markets[1], slippage=VolumeWeighted(impact=0.0, half_spread_bps=0.0, participation_cap=0.1)
    )
    thin = bars((*QUIET, 50), QUIET)
    case = (msgspec.structs.replace(spec, markets=(spec.markets[0], own)), [thin, thin], [])
    log = run(case).log
    assert as_log(log) == naive.Simulation(*case).run().log
    assert log["quantity"][log["symbol"] == 0].tolist()[0] == 10
    assert log["quantity"][log["symbol"] == 1].tolist()[:2] == [5, 5]


def test_impact_on_ticks_is_judged_by_the_last_complete_bar():
    model = VolumeWeighted(impact=1.0, half_spread_bps=0, participation_cap=1.0)
    series = bars((*QUIET, 100), (*QUIET, 10))
    traded = trade(series, buy(10, at=1), feeds=[trades((1.5, 100, 1))], costs=costs(slippage=model))
    assert traded.fills == [(1.5, "entry", 10, pytest.approx(101))]


# Few data, and pauses.


def test_three_bars_are_enough_for_a_trade_and_one_or_none_for_none():
    assert len(trade(flat(3, signals={0: LONG, 1: LEAVE_LONG}), sizing=ONE).fills) == 2
    assert trade(flat(1, signals={0: LONG}), sizing=ONE).equity == [10_000]
    nothing = Simulation(a_spec(), [as_bars(naive.Series([]))]).run()
    assert (nothing.log.size, nothing.events) == (0, 0)


def test_a_symbol_without_a_bar_leaves_the_others_alone():
    traded = trade([naive.Series([]), flat(2, signals={0: LONG})], sizing=ONE)
    assert traded.fills == [(1, "entry", 1, 100)]


def test_a_feed_without_a_trade_fills_nothing():
    assert trade(flat(2), buy(1), feeds=[trades()]).fills == []


def test_events_are_bars_and_ticks():
    feeds = [trades((0.1, 100, 1), (0.2, 100, 1), (1.5, 100, 1)), quotes((0.3, 99, 101))]
    assert trade([flat(2)], feeds=feeds).outcome.events == 6


def test_a_checkpoint_sees_how_far_a_run_is_and_may_end_it():
    rows = [(at / 8, 100, 1) for at in range(8)]
    stops = []

    class EndedHereError(Exception):
        """What a caller raises to cancel."""

    def checkpoint(progress):
        stops.append(progress)
        if progress.events >= 4:
            raise EndedHereError

    spec = a_spec(fills="ticks")
    simulation = Simulation(spec, [as_bars(flat(1))], [as_feed(trades(*rows), cuts=range(2, 8, 2))])
    with pytest.raises(EndedHereError):
        simulation.run(checkpoint)
    assert stops == [Progress(0, 0), Progress(WIDTH_NS // 8, 2), Progress(3 * WIDTH_NS // 8, 4)]


def test_memory_does_not_grow_with_the_ticks():
    def chunks(count):
        for chunk in range(count):
            time_ns = np.arange(1_000, dtype=np.int64) + chunk * 1_000
            yield Chunk(time_ns, np.full(time_ns.size, 100.0), np.ones(time_ns.size))

    def most_bytes_of(count):
        feed = Feed(0, TRADES, chunks(count))
        simulation = Simulation(a_spec(fills="ticks"), [as_bars(flat(1))], [feed], chunk_rows=1_000)
        tracemalloc.start()
        try:
            assert simulation.run().events == count * 1_000 + 1
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    most_bytes_of(1)
    # Ten times the ticks; a chunk alone is 24,000 bytes.
    assert most_bytes_of(100) < most_bytes_of(10) + 24_000
