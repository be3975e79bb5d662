"""Fills against a book: the engine's against the slow loop's, and what holds of any run."""

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from naive.book_matching import Command, Fill, Matching, Row, Trade, events_of
from naive.level_book import Book
from scripted import STOP, Case, joined, quickly, slowly

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
    if is_after_gap:
        # One venue's recorder says it of the first row, another's of all rows of the update.
        said = len(flags) if rng.random() < 0.5 else 1
        flags[:said] = [DepthFlag.SNAPSHOT | DepthFlag.AFTER_GAP] * said
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
    said = len(rows) if rng.random() < 0.5 else 1
    return [row._replace(flags=int(flag)) for row in rows[:said]] + rows[said:]


def make_market(rng, size, *, is_apart):
    """Return rows and trades; of one time are several, or none where they are apart."""
    rows, trades, time, mid = [], [], 1, MIDDLE
    is_known = rng.random() < 0.9
    for number in range(1, size + 1):
        time += int(rng.integers(1, 4)) if is_apart else int(rng.integers(0, 3))
        mid += int(rng.integers(-1, 2)) * (rng.random() < 0.3)
        chance = rng.random()
        if chance < 0.05 or (number == 1 and is_known):
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
    if lot > 1 and draw(st.booleans()):
        rows = [row._replace(size=row.size * lot) for row in rows]
        trades = [trade._replace(size=trade.size * lot) for trade in trades]
    commands = make_commands(rng, events_of(rows, trades), draw(st.integers(1, 14)), feed, lot=lot)
    return Case(rows, trades, commands, queue, feed, order, lot, draw(st.sampled_from([0, 1, 3])))


# The engine's, fill for fill.


@given(cases())
@settings(max_examples=400, deadline=None)
def test_the_engine_fills_as_the_slow_loop_does(case):
    slow, quick = slowly(case), quickly(case)
    assert joined(quick.log) == joined(slow.log)
    assert quick.counts == slow.counts


@given(cases(most=30), st.lists(st.integers(1, 60), max_size=6), st.integers(2, 16))
@settings(max_examples=60, deadline=None)
def test_where_chunks_are_cut_does_not_matter(case, cuts, chunk_rows):
    assert quickly(case, cuts=cuts, chunk_rows=chunk_rows) == quickly(case)


# What holds of any run.


class Watched(Matching):
    """The slow loop beside the venue's own book, which nothing is taken from; it looks at each fill."""

    def __init__(self, case):
        settings = {"queue": case.queue, "order_ns": case.order, "lot": case.lot, "decimals": case.decimals}
        super().__init__(events_of(case.rows, case.trades), case.commands, until_ns=STOP, **settings)
        self.venue = Book()
        self.taken = defaultdict(int)
        self.offered = self.price = None
        self.stood_behind = {}  # what was ahead of an order when it joined, and of that may still be there

    def change(self, rows):
        for row in rows:
            before = dict(self.venue.sides[row.side == BUY])
            is_new = row.flags & DepthFlag.SNAPSHOT and row.id != self.venue.last_id
            self.venue.row(row.id, row.side, row.price, row.size, row.flags)
            if is_new:
                self.taken.clear()
            elif row.size >= 0:
                self.taken.pop((row.side, row.price), None)
            # Whatever left a level may have been ahead; so may a snapshot's whole difference.
            for order in self.resting:
                if is_new:
                    self.stood_behind[order.id] = 0
                elif (order.side, order.price) == (row.side, row.price):
                    self.stood_behind[order.id] -= max(0, before.get(row.price, 0) - max(0, row.size))
        self.offered = self.price = None
        super().change(rows)

    def trade(self, trade):
        self.offered, self.price = trade.size, trade.price
        for order in self.resting:
            if trade.side != order.side and order.reaches(trade.price):
                is_through = order.price != trade.price
                self.stood_behind[order.id] -= self.stood_behind[order.id] if is_through else trade.size
        super().trade(trade)
        self.price = None

    def stay(self, order):
        super().stay(order)
        if order in self.resting:
            self.stood_behind[order.id] = self.levels[order.side].get(order.price, 0)

    def fill(self, order, quantity, price, *, is_maker):
        if quantity == 0:
            return
        assert 0 < quantity <= order.left
        assert quantity % self.lot == 0
        assert order.reaches(price)
        if is_maker:
            assert price == order.price
        if not is_maker:
            level = (-order.side, price)
            self.taken[level] += quantity
            assert self.is_sound
            assert self.taken[level] <= self.venue.sides[level[0] == BUY][price]
        elif self.price is not None:
            self.offered -= quantity
            assert self.offered >= 0
            if order.price == self.price and self.queue.model == "risk_averse":
                assert self.stood_behind[order.id] < 0
        else:
            across = sum(size for level, size in self.venue.sides[order.side == SELL].items() if order.reaches(level))
            assert self.is_sound
            assert quantity <= across
            self.stood_behind[order.id] = 0
        super().fill(order, quantity, price, is_maker=is_maker)


@given(cases())
@settings(max_examples=300, deadline=None)
def test_nobody_takes_what_is_not_there_nor_fills_before_what_was_ahead_is_gone(case):
    Watched(case).run()


def filled_by(log, order):
    return sum(row.quantity for row in log if isinstance(row, Fill) and row.order == order)


def at_or_through(order, trade):
    return trade.side != order.side and (order.price - trade.price) * order.side >= 0


@given(cases(is_apart=True))
@settings(max_examples=100, deadline=None)
def test_makers_get_no_more_than_traded_at_or_through_their_price_at_that_moment(case):
    trades = {trade.time_ns: trade for trade in case.trades}
    given_away = defaultdict(int)
    for fill in quickly(case).fills:
        if fill.is_maker and fill.time_ns in trades:
            assert at_or_through(fill, trades[fill.time_ns])
            given_away[fill.time_ns] += fill.quantity
    assert all(quantity <= trades[time].size for time, quantity in given_away.items())


@given(cases())
@settings(max_examples=100, deadline=None)
def test_an_order_fills_from_its_arrival_to_that_of_its_cancel_and_no_more_than_it_is(case):
    log = quickly(case).log
    for sent in case.commands:
        fills = [row for row in log if isinstance(row, Fill) and row.order == sent.order]
        arrives = sent.sent_ns + case.order
        if sent.what == "submit":
            assert all(fill.time_ns >= arrives and fill.side == sent.side for fill in fills)
            if not any(each.what == "replace" and each.order == sent.order for each in case.commands):
                assert filled_by(log, sent.order) <= sent.quantity
                assert sent.price is None or all((sent.price - fill.price) * sent.side >= 0 for fill in fills)
        elif sent.what == "cancel":
            assert all(fill.time_ns <= arrives for fill in fills)


@given(cases(is_apart=True), st.sampled_from(["power", "log"]))
@settings(max_examples=100, deadline=None)
def test_an_order_alone_fills_no_sooner_the_more_careful_the_model_is(case, model):
    alone = case._replace(commands=[each for each in case.commands if each.order == 1 and each.what == "submit"])
    logs = [quickly(alone._replace(queue=Queue(model=name))).log for name in ("trade_only", "risk_averse", model)]
    for time in {fill.time_ns for log in logs for fill in log}:
        soon = [sum(row.quantity for row in log if isinstance(row, Fill) and row.time_ns <= time) for log in logs]
        assert soon == sorted(soon)
