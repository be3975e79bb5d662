"""Fills against the book beside hftbacktest's, on the same recording, with the same orders.

hftbacktest pins an older NumPy, so it is no dependency: it is installed once into a folder of the user's cache, and
runs in a process of its own. Where the two differ, `Theirs` says how: the slow loop with what hftbacktest is known to
do otherwise. It gives hftbacktest's fills to the last lot; the slow loop itself gives ours.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import platformdirs
import pytest
from naive.book_matching import Command, Event, Matching, Row, Trade, events_of
from simulated import WIDTH_NS, a_spec, as_bars, bars

from adapters.binance.capture import open_capture
from daemon.core import backtest as spec_of
from daemon.core.backtest import Queue
from daemon.core.ticks import BUY, SELL, DepthFlag, Stream, Ticks, concatenate
from daemon.engine import simulate
from daemon.engine.orders import Status

CAPTURE = Path(__file__).parents[3] / "shared" / "data" / "binance" / "streams" / "futures-um-btcusdt-20240808.gz"
RUN = Path(__file__).parents[1] / "hftbacktest_run.py"
WANTED = ("hftbacktest==2.4.4", "polars==2.1.0", "polars-runtime-32==2.1.0")
INSTALL_TIMEOUT_S = 120
SECOND_NS = 10**9
SECONDS = 30
ORDER_NS = 5_000_000
# The recording's times are whole milliseconds: what is sent between two arrives between two.
BETWEEN_NS = 500_000
# How far from the best level their market orders look; what is left of them then ends.
THEIR_TICKS = 100

# Their words for events: what they are, of which side, and that both the venue and the strategy see them.
DEPTH, TRADE, SNAPSHOT = 1, 2, 4
SEEN, OF_BUY, OF_SELL = 1 << 31 | 1 << 30, 1 << 29, 1 << 28
EVENT = np.dtype(
    {
        "names": ("ev", "exch_ts", "local_ts", "px", "qty", "order_id", "ival", "fval"),
        "formats": ("u8", "i8", "i8", "f8", "f8", "u8", "i8", "f8"),
    }
)


class Recorded(NamedTuple):
    """The recording from its snapshot on, as each of them has it."""

    depth: Ticks
    trades: Ticks
    events: list[Event]
    file: Path

    @property
    def start_ns(self):
        return int(self.depth.time_ns[0])

    @property
    def stop_ns(self):
        return self.start_ns + (SECONDS - 1) * SECOND_NS


# What is needed.


@pytest.fixture(scope="session")
def library():
    """Where hftbacktest is."""
    cache = platformdirs.user_cache_path("atlasd-tests")
    folder = cache / WANTED[0].replace("==", "-")
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as made:
            install(Path(made) / "packages", folder)
    return folder


def install(made, folder):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--retries", "1", "--timeout", "15", "--no-deps", "--target", str(made), *WANTED]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"hftbacktest is not here and cannot be installed: {error}")
    try:
        made.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(made)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    if not CAPTURE.exists():
        pytest.skip(f"the recording {CAPTURE.name} is not here")
    depth = first_seconds(Stream.DEPTH)
    depth = depth.rows(int(np.argmax(depth.column("flags") & DepthFlag.SNAPSHOT)), depth.size)
    trades = first_seconds(Stream.TRADES)
    trades = trades.take(trades.time_ns >= depth.time_ns[0])
    file = tmp_path_factory.mktemp("hftbacktest") / "events.npz"
    np.savez(file, events=their_events(depth, trades))
    rows = rows_of(depth, Row), rows_of(trades, Trade)
    return Recorded(depth, trades, events_of(*rows), file)


def first_seconds(stream):
    blocks, until_ns = [], None
    for block in open_capture(CAPTURE, stream).blocks():
        blocks.append(block)
        until_ns = until_ns or int(block.time_ns[0]) + (SECONDS + 1) * SECOND_NS
        if block.time_ns[-1] >= until_ns:
            break
    rows = concatenate(blocks)
    return rows.take(rows.time_ns < until_ns)


def rows_of(rows, kind):
    return [kind(*row) for row in zip(*(rows.column(name).tolist() for name in kind._fields), strict=True)]


def their_events(depth, trades):
    """Return trades and rows as they take them, trades of a time first; prices in ticks, sizes in lots."""
    is_snapshot = depth.column("flags") & DepthFlag.SNAPSHOT
    parts = []
    for rows, kind in ((trades, TRADE), (depth, np.where(is_snapshot, SNAPSHOT, DEPTH))):
        part = np.zeros(rows.size, dtype=EVENT)
        part["ev"] = kind | SEEN | np.where(rows.column("side") == BUY, OF_BUY, OF_SELL)
        part["exch_ts"] = part["local_ts"] = rows.time_ns
        part["px"], part["qty"] = rows.column("price"), rows.column("size")
        parts.append(part)
    joined = np.concatenate(parts)
    return joined[np.argsort(joined["exch_ts"], kind="stable")]


def their_fills(library, recorded, commands, *, model="risk_adverse_queue_model", arguments=()):
    """Return {order: [(time, quantity, price), ...]} by hftbacktest."""
    asked = {
        "order_ns": ORDER_NS,
        "until_ns": recorded.stop_ns,
        "queue_model": model,
        "queue_arguments": list(arguments),
        "commands": [(each.sent_ns, each.what, each.order, each.side, each.quantity, each.price) for each in commands],
    }
    file = recorded.file.with_name("orders.json")
    file.write_text(json.dumps(asked))
    ran = subprocess.run(
        [sys.executable, RUN, recorded.file, file],
        env=os.environ | {"PYTHONPATH": str(library)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    fills = defaultdict(list)
    for time_ns, order, _, quantity, price, _ in json.loads(ran.stdout):
        fills[order].append((time_ns, quantity, price))
    return fills


# What they do otherwise.


class Theirs(Matching):
    """The slow loop with what hftbacktest does otherwise, none of which their documentation hides.

    - Every order meets the market alone: one trade fills all of ours that it reaches, each with the whole of it, and
      none of ours trades with another.
    - A trade beyond an order's price, and a book that reaches it, fill all of it, whatever their size.
    - Taking leaves the book as it was, looks no farther than 100 ticks from the best level, and ends what is left.
    - What a trade leaves for an order is rounded to the nearest lot, where ours is cut to whole ones.
    - What a probabilistic model estimates to be ahead may fall below zero, which the next trade adds to what it fills.
      The logarithm knows no such number, nor has an empty level a probability: then all that the level holds is ahead.
    """

    def trade(self, trade):
        for side in (BUY, SELL):
            if trade.side == side:
                continue
            for order in self.in_turn(side):
                if order.price == trade.price:
                    reached = max(0, trade.size - order.ahead)
                    order.ahead = max(0, order.ahead - trade.size)
                    quantity = min(order.left, int(reached + 0.5))
                    self.fill(order, quantity, order.price, is_maker=True)
                elif order.reaches(trade.price):
                    self.fill(order, order.left, order.price, is_maker=True)
            key = (side, trade.price)
            self.traded[key] = self.traded.get(key, 0) + trade.size

    def level_changes(self, side, price, before, after):
        shrunk = before - after - self.traded.pop((side, price), 0)
        for order in self.resting:
            if (order.side, order.price) == (side, price):
                ahead = order.ahead
                if shrunk >= 0 and self.queue.model != "risk_averse":
                    ahead = self.thinned(ahead, before, shrunk)
                order.ahead = after if math.isnan(ahead) else min(ahead, after)

    def behind(self, ahead, back):
        is_none = ahead == back == 0 or (self.queue.model == "log" and ahead <= -1)
        return math.nan if is_none else super().behind(ahead, back)

    def reach(self):
        for side in (BUY, SELL):
            best = self.best(-side)
            for order in self.in_turn(side):
                if best is not None and order.reaches(best):
                    self.fill(order, order.left, order.price, is_maker=True)

    def meet(self, order):
        whole, best = self.levels, self.best(-order.side)
        near = {price: size for price, size in whole[-order.side].items() if abs(price - best) < THEIR_TICKS}
        self.levels = {order.side: whole[order.side], -order.side: near}
        super().meet(order)
        if order in self.waiting:
            self.waiting.remove(order)
        self.levels = whole

    def trades_with_own(self, order, price):  # noqa: ARG002
        return False


def ours(matching, recorded, commands, *, model="risk_averse"):
    """Return {order: [(time, quantity, price), ...]}, what an order got at one time summed up at its last price."""
    settings = {"order_ns": ORDER_NS, "until_ns": recorded.stop_ns, "queue": Queue(model=model)}
    ran = matching(recorded.events, commands, **settings).run()
    assert not ran.ends
    sums = defaultdict(dict)
    for fill in ran.fills:
        before = sums[fill.order].get(fill.time_ns, (0, 0))
        sums[fill.order][fill.time_ns] = before[0] + fill.quantity, fill.price
    return defaultdict(list, {order: [(at, *rest) for at, rest in each.items()] for order, each in sums.items()})


# Market orders.


def market_orders(recorded, quantities):
    """Send one each half second, buys and sells in turn."""
    times = range(recorded.start_ns + BETWEEN_NS, recorded.stop_ns - SECOND_NS, SECOND_NS // 2)
    return [
        Command(time_ns, "submit", number, BUY if number % 2 else SELL, quantities[number % len(quantities)])
        for number, time_ns in enumerate(times, start=1)
    ]


def test_market_orders_fill_at_the_same_prices(library, recorded):
    commands = market_orders(recorded, [1, 40, 7])
    theirs = their_fills(library, recorded, commands)
    assert len(theirs) == len(commands)
    assert ours(Theirs, recorded, commands) == theirs
    same = ours(Matching, recorded, commands)
    # Small ones seldom need a second level, and never one that was taken before.
    assert [order for order in theirs if same[order] != theirs[order]] == []


def test_large_market_orders_walk_the_same_levels_but_ours_does_not_take_one_twice(library, recorded):
    commands = market_orders(recorded, [1_000, 8_000])
    theirs = their_fills(library, recorded, commands)
    assert ours(Theirs, recorded, commands) == theirs
    walked = ours(Matching, recorded, commands)
    for command in commands:
        (*_, price), (*_, their_price) = walked[command.order][-1], theirs[command.order][-1]
        assert (price - their_price) * command.side >= 0
        assert sum(quantity for _, quantity, _ in walked[command.order]) == command.quantity


# Queued limit orders.

MODELS = {
    "risk_averse": ("risk_adverse_queue_model", ()),
    "power": ("power_prob_queue_model", (3.0,)),
    "log": ("log_prob_queue_model", ()),
}

# Under its power model hftbacktest stops ("code 14") when this order's last lots are filled.
STOPS_THEM = 45


def queued_orders(recorded):
    """Join queues at the best levels and behind them, buys and sells in turn, small and large; some are cancelled."""
    sent = list(range(recorded.start_ns + BETWEEN_NS, recorded.stop_ns - 3 * SECOND_NS, 3 * SECOND_NS // 10))
    best = bests_at(recorded.events, [time_ns + ORDER_NS for time_ns in sent])
    commands = []
    for number, (time_ns, (bid, ask)) in enumerate(zip(sent, best, strict=True), start=1):
        if number == STOPS_THEM:
            continue
        side = BUY if number % 2 else SELL
        behind = (0, 0, 1, 3, 10)[number % 5]
        price = bid - behind if side == BUY else ask + behind
        commands.append(Command(time_ns, "submit", number, side, (1, 20, 200, 2_000)[number % 4], price))
        if number % 3 == 0:
            commands.append(Command(time_ns + 2 * SECOND_NS, "cancel", number))
    return sorted(commands, key=lambda command: command.sent_ns)


def bests_at(events, times):
    """Return the best bid and ask before each of the times."""
    book, found = Matching(events, []), []
    for event in events:
        while len(found) < len(times) and times[len(found)] <= event.time_ns:
            found.append((book.best(BUY), book.best(SELL)))
        if event.trade is None:
            book.change(event.rows)
    return found


@pytest.mark.parametrize("model", MODELS)
def test_queued_orders_fill_alike_but_for_what_is_known_and_ours_never_sooner(library, recorded, model):
    commands = queued_orders(recorded)
    their_model, arguments = MODELS[model]
    theirs = their_fills(library, recorded, commands, model=their_model, arguments=arguments)
    assert ours(Theirs, recorded, commands, model=model) == theirs
    filled = ours(Matching, recorded, commands, model=model)
    # But by the logarithm, where theirs may begin again behind all that a level holds.
    for order, fills in filled.items() if model != "log" else ():
        for time_ns, *_ in fills:
            assert sum_until(fills, time_ns) <= sum_until(theirs[order], time_ns), order
    # Orders of one lot differ where the trade that reached them had been given to others of ours.
    small = {command.order for command in commands if command.quantity == 1}
    same = {order for order in small if filled[order] == theirs[order]}
    assert len(same) > len(small) / 2


def sum_until(fills, time_ns):
    return sum(quantity for at_ns, quantity, _ in fills if at_ns <= time_ns)


@pytest.mark.parametrize("model", MODELS)
def test_a_small_order_alone_fills_at_the_same_trade(library, recorded, model):
    # One after the other, each gone before the next: nothing is shared, and a trade beyond one is large enough.
    joined = [command for command in queued_orders(recorded) if command.what == "submit"][::10]
    commands = []
    for command in joined:
        until_ns = command.sent_ns + 5 * SECOND_NS // 2
        commands += [command._replace(quantity=1), Command(until_ns, "cancel", command.order)]
    their_model, arguments = MODELS[model]
    theirs = their_fills(library, recorded, commands, model=their_model, arguments=arguments)
    assert theirs
    assert ours(Matching, recorded, commands, model=model) == theirs


# The engine, on the same recording.


def by_engine(recorded, commands, model):
    """Return {(time, order, side, quantity, price), ...} by the engine."""
    sent = [
        spec_of.ListedOrder(
            time_ns=each.sent_ns,
            symbol=0,
            side="buy" if each.side == BUY else "sell",
            type="market" if each.price is None else "limit",
            quantity=each.quantity,
            price=None if each.price is None else each.price / 10,
        )
        for each in commands
    ]
    spec = a_spec(
        fills="book",
        program=spec_of.OrderList(tuple(sent)),
        queue=Queue(model=model),
        latency=spec_of.Latency(order_ns=ORDER_NS),
        account=spec_of.Account(initial_capital=1e15),
        tick_size=0.1,
        lot_size=1.0,
    )
    first = recorded.start_ns // WIDTH_NS
    series = bars(*[(100.0,) * 4] * 3, starts=[first, first + 1, first + 2])
    trades, depth = recorded.trades, recorded.depth
    price, size, side = (trades.column(name) for name in ("price", "size", "side"))
    rows = (depth.column(name) for name in ("time_ns", "id", "side", "price", "size", "flags"))
    feeds = [
        simulate.Feed(0, simulate.TRADES, iter([simulate.Chunk(trades.time_ns, price / 10, size * 1.0, side)])),
        simulate.Feed(0, simulate.DEPTH, iter([simulate.DepthChunk(*rows, 1, 0)])),
    ]
    log = simulate.Simulation(spec, [as_bars(series)], feeds, chunk_rows=depth.size).run().log
    log = log[(log["status"] == Status.FILLED) & (log["time_ns"] < recorded.stop_ns)]
    sums = defaultdict(int)
    for row in log:
        at = int(row["time_ns"]), int(row["order_id"]), int(row["side"]), round(row["price"] * 10)
        sums[at] += round(row["quantity"])
    return sums


@pytest.mark.parametrize("model", [*MODELS, "trade_only"])
def test_the_engine_fills_on_the_recording_as_the_slow_loop_does(recorded, model):
    commands = [each for each in queued_orders(recorded) if each.what == "submit"]
    commands += market_orders(recorded, [1, 40, 300])
    commands = [each._replace(order=number) for number, each in enumerate(sorted(commands), start=1)]
    settings = {"order_ns": ORDER_NS, "until_ns": recorded.stop_ns, "queue": Queue(model=model)}
    sums = defaultdict(int)
    for fill in Matching(recorded.events, commands, **settings).run().fills:
        sums[fill.time_ns, fill.order, fill.side, fill.price] += fill.quantity
    assert len(sums) > len(commands) / 2
    assert by_engine(recorded, commands, model) == sums
