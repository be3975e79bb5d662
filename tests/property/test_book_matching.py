"""Fills against a book: the engine's against the slow loop's, and what holds of any run."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive.book import Book
from naive.book_matching import Command, Fill, Row, Trade, events_of
from scripted import STOP, Case, quickly, slowly

from daemon.core.backtest import Queue
from daemon.core.ticks import BUY, SELL, DepthFlag

MODELS = ("risk_averse", "power", "log", "trade_only")
MIDDLE, REACH = 100, 4
UNKNOWN = 99

# Markets at random: a few ticks wide, so that everything meets.


def snapshot(rng, time, number, mid, *, is_after_gap=False):
    sides = [(BUY, mid - 1 - step) for step in range(REACH)] + [(SELL, mid + step) for step in range(REACH)]
    levels = [(side, price, int(rng.integers(1, 12))) for side, price in sides if rng.random() < 0.8]
    levels = levels or [(BUY, mid - 1, 3)]
    flags = [DepthFlag.SNAPSHOT] * len(levels)
    flags[0] |= DepthFlag.AFTER_GAP if is_after_gap else 0
    return [Row(time, number, *level, int(flag)) for level, flag in zip(levels, flags, strict=True)]


def changes(rng, time, number, mid, *, gap=False):
    """Change some levels; where the market moves on, the other side makes way, but not always."""
    rows, flag = [], DepthFlag.AFTER_GAP if gap else 0
    for _ in range(rng.integers(1, 4)):
        side = BUY if rng.random() < 0.5 else SELL
        price = mid - 1 - int(rng.integers(-1, REACH)) if side == BUY else mid + int(rng.integers(-1, REACH))
        size = 0 if rng.random() < 0.35 else int(rng.integers(1, 12))
        if size and rng.random() < 0.85:
            across = range(price, mid - 1, -1) if side == BUY else range(price, mid)
            rows += [Row(time, number, -side, other, 0, 0) for other in across]
        rows.append(Row(time, number, side, price, -1 if rng.random() < 0.03 else size, 0))
    return [rows[0]._replace(flags=int(flag)), *rows[1:]]


def make_market(rng, size, *, is_apart):
    """Return rows and trades; of one time are several, or none where they are apart."""
    rows, trades, time, mid, number = [], [], 1, MIDDLE, 0
    is_known = rng.random() < 0.9
    for turn in range(size):
        time += int(rng.integers(1, 4)) if is_apart else int(rng.integers(0, 3))
        mid += int(rng.integers(-1, 2)) * (rng.random() < 0.3)
        chance = rng.random()
        number += 1
        if chance < 0.05 or (turn == 0 and is_known):
            rows += snapshot(rng, time, number, mid, is_after_gap=rng.random() < 0.2)
        elif chance < 0.5:
            rows += changes(rng, time, number, mid, gap=rng.random() < 0.06)
        else:
            price = mid + int(rng.integers(-2, 2))
            side = int(rng.choice([SELL, BUY, 0], p=[0.45, 0.45, 0.1]))
            trades.append(Trade(time, price, int(rng.integers(1, 15)), side))
    return rows, trades


# What is sent, at random.

FORCES = ("GTC", "GTC", "GTC", "GTC", "IOC", "FOK")


def make_commands(rng, events, count, feed, *, lot=1):
    """Send orders, cancels and replacements at trades and timers, in order of time."""
    at_trades = [(event.time_ns + feed, place) for place, event in enumerate(events) if event.trade is not None]
    last = events[-1].time_ns if events else 1
    moments = []
    for _ in range(count):
        if at_trades and rng.random() < 0.5:
            moments.append(at_trades[rng.integers(len(at_trades))])
        else:
            moments.append((int(rng.integers(feed + 1, last + feed + 2)), None))
    commands, sent = [], 0
    # A timer at a time is called before the events that are seen then.
    for time, after in sorted(moments, key=lambda each: (each[0], -1 if each[1] is None else each[1])):
        chance = rng.random()
        if sent == 0 or chance < 0.65:
            sent += 1
            commands.append(submission(rng, time, after, sent, lot))
        else:
            number = int(rng.integers(1, sent + 1)) if rng.random() < 0.9 else UNKNOWN
            what = "cancel" if chance < 0.8 else "replace"
            price = MIDDLE + int(rng.integers(-REACH, REACH)) if what == "replace" else None
            quantity = int(rng.integers(0, 12)) * lot if what == "replace" else 0
            commands.append(Command(time, what, number, 0, quantity, price, after=after))
    return commands


def submission(rng, time, after, number, lot):
    is_market = rng.random() < 0.2
    return Command(
        time,
        "submit",
        number,
        int(rng.choice([BUY, SELL])),
        int(rng.integers(1, 15)) * lot,
        None if is_market else MIDDLE + int(rng.integers(-REACH, REACH)),
        str(rng.choice(FORCES)),
        post_only=bool(not is_market and rng.random() < 0.15),
        after=after,
    )


@st.composite
def cases(draw, models=MODELS, *, is_apart=False, most=50):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, trades = make_market(rng, draw(st.integers(1, most)), is_apart=is_apart)
    feed, order = draw(st.sampled_from([(0, 0), (0, 0), (1, 0), (0, 2), (2, 3)]))
    lot = draw(st.sampled_from([1, 1, 2]))
    queue = Queue(
        model=draw(st.sampled_from(models)),
        exponent=draw(st.sampled_from([1.0, 3.0])),
        self_trade=draw(st.sampled_from(["cancel_newest", "cancel_oldest", "cancel_both"])),
        replace=draw(st.sampled_from(["reducing_keeps", "loses"])),
    )
    if lot > 1:
        rows = [row._replace(size=row.size * lot) for row in rows]
        trades = [trade._replace(size=trade.size * lot) for trade in trades]
    commands = make_commands(rng, events_of(rows, trades), draw(st.integers(1, 14)), feed, lot=lot)
    return Case(rows, trades, commands, queue, feed, order, lot, draw(st.sampled_from([0, 1, 3])))
