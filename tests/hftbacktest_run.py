"""Runs orders over events through hftbacktest and prints their fills, in a process that has it.

    python hftbacktest_run.py EVENTS.npz ORDERS.json

Prices and quantities are whole ticks and lots (tick and lot are 1), so that no remainder of a float is left of an
order. Their library is called below its jitted classes: that saves ten seconds of compiling.
"""

import ctypes
import json
import sys
from pathlib import Path

import numpy as np
from hftbacktest import BacktestAsset, build_hashmap_backtest
from hftbacktest.binding import lib, orders_get
from hftbacktest.types import order_dtype

LIMIT, MARKET = 0, 1
GTC = 0
AT_ONCE = False  # not to wait for the venue's answer
IS_OVER = {2, 3, 4, 6}  # expired, filled, cancelled, rejected
FILLED, PARTLY_FILLED = 3, 5
LOOK_NS = 250_000  # after each event: within a millisecond, the step of the recording's times


def order_at(place):
    return np.frombuffer((ctypes.c_char * order_dtype.itemsize).from_address(place), dtype=order_dtype)[0]


class Run:
    """One backtest. left: to fill, by order; fills: (time, order, side, quantity, last price, is maker)."""

    def __init__(self, events, asked):
        asset = BacktestAsset().data(events).linear_asset(1.0).constant_order_latency(asked["order_ns"], 0)
        getattr(asset, asked["queue_model"])(*asked["queue_arguments"])
        asset = asset.partial_fill_exchange().trading_value_fee_model(0.0, 0.0).tick_size(1.0).lot_size(1.0)
        self.book = build_hashmap_backtest([asset])
        self.looks = np.unique(events["exch_ts"]) + LOOK_NS
        self.left, self.fills = {}, []
        # Their clock starts with the first event.
        self.now_ns = self.looks[0] - LOOK_NS

    def until(self, time_ns):
        """Go on to a time, and look at the orders after each event on the way."""
        for stop_ns in [*self.looks[(self.looks > self.now_ns) & (self.looks < time_ns)], time_ns]:
            if code := lib.hashmapbt_elapse(self.book, int(stop_ns - self.now_ns)):
                raise RuntimeError(f"hftbacktest stopped with code {code} at {stop_ns}")
            self.now_ns = stop_ns
            self.look()

    def look(self):
        orders = lib.hashmapbt_orders(self.book, 0)
        for number in list(self.left):
            if not (place := orders_get(orders, number)):
                continue
            order = order_at(place)
            left = round(float(order["leaves_qty"]))
            if order["exec_qty"] > 0 and left != self.left[number]:
                quantity = self.left[number] - left
                fill = int(order["exch_timestamp"]), number, int(order["side"]), quantity
                self.fills.append((*fill, int(order["exec_price_tick"]), bool(order["maker"])))
                self.left[number] = left
            if order["status"] in IS_OVER:
                del self.left[number]

    def send(self, what, number, side, quantity, price):
        if what == "cancel":
            # Of an order that has been filled it is refused, which is right.
            lib.hashmapbt_cancel(self.book, 0, number, AT_ONCE)
            return
        submit = lib.hashmapbt_submit_buy_order if side > 0 else lib.hashmapbt_submit_sell_order
        kind = MARKET if price is None else LIMIT
        if code := submit(self.book, 0, number, price or 0.0, quantity, GTC, kind, AT_ONCE):
            raise RuntimeError(f"hftbacktest refused order {number} with code {code}")
        self.left[number] = quantity


def main(events_file, orders_file):
    with np.load(events_file) as saved:
        events = saved["events"]
    asked = json.loads(Path(orders_file).read_text())
    run = Run(events, asked)
    for sent_ns, *command in asked["commands"]:
        run.until(sent_ns)
        run.send(*command)
    run.until(asked["until_ns"])
    json.dump(run.fills, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
