"""Markets of a book and trades, and what a strategy sends, played through the engine and through the slow loop."""

import itertools
from typing import NamedTuple
from unittest import mock

import numpy as np
from naive import book_matching as naive
from simulated import WIDTH_NS, a_spec, as_bars, flat

from daemon.core import backtest as spec_of
from daemon.core.ticks import BUY, SELL
from daemon.engine import context, simulate
from daemon.engine.book import STALE_NS
from daemon.engine.orders import Reference, Status
from daemon.engine.own import Compiled, Handler, OwnStrategy
from daemon.engine.simulate import DEPTH, TRADES

PRICE_DECIMALS = 1
FORCES = {"GTC": context.GTC, "IOC": context.IOC, "FOK": context.FOK}
# Cases count time in seconds, which is how often the timer calls.
STEP_NS = 10**9
BARS = 2
STOP = BARS * WIDTH_NS // STEP_NS
# As Python: what is compiled is compiled anew for each of hundreds of scripts.
UNCOMPILED = Compiled(0, frozenset(), (), None)


class Case(NamedTuple):
    """A market, and what is sent; times and latencies in seconds. decimals: of sizes. lot: in sizes."""

    rows: list[naive.Row]
    trades: list[naive.Trade]
    commands: list[naive.Command]
    queue: spec_of.Queue = spec_of.Queue()
    feed: int = 0
    order: int = 0
    lot: int = 1
    decimals: int = 0


def slowly(case: Case) -> naive.Ran:
    """Play a case through the slow loop."""
    return naive.matched(
        case.rows,
        case.trades,
        case.commands,
        queue=case.queue,
        order_ns=case.order,
        lot=case.lot,
        decimals=case.decimals,
        until_ns=STOP,
        stale_ns=STALE_NS // STEP_NS,
    )


def quickly(case: Case, *, cuts=(), chunk_rows: int = 64) -> naive.Ran:
    """Play a case through the engine. cuts: of the rows of depth into chunks."""
    events = naive.events_of(case.rows, case.trades)
    spec = a_spec(
        fills="book",
        program=spec_of.Own(id="script", digest="0" * 64),
        queue=case.queue,
        latency=spec_of.Latency(feed_ns=case.feed * STEP_NS, order_ns=case.order * STEP_NS),
        account=spec_of.Account(initial_capital=1e12),
        tick_size=10.0**-PRICE_DECIMALS,
        lot_size=case.lot / 10**case.decimals,
    )
    feeds = [
        simulate.Feed(0, TRADES, iter([_trades(case)])),
        simulate.Feed(0, DEPTH, iter(_depth(case, cuts))),
    ]
    own = simulate.OwnRun(_strategy(case, events), {}, [np.zeros((0, BARS))])
    with mock.patch.object(simulate, "compile_strategy", return_value=UNCOMPILED):
        run = simulate.Simulation(spec, [as_bars(flat(BARS))], feeds, own=own, chunk_rows=chunk_rows)
    outcome = run.run()
    book = outcome.books[0] if outcome.books.size else dict.fromkeys(naive.Counts.__annotations__, 0)
    counts = {name: int(book[name]) for name in ("early", "unknown", "negative", "stale", "crossed")}
    return naive.Ran(_log(outcome.log, case), naive.Counts(**counts, missed=outcome.lost_cancels))


def _trades(case: Case) -> simulate.Chunk:
    return simulate.Chunk(
        np.array([trade.time_ns * STEP_NS for trade in case.trades], dtype=np.int64),
        np.array([trade.price for trade in case.trades], dtype=float) / 10**PRICE_DECIMALS,
        np.array([trade.size for trade in case.trades], dtype=float) / 10**case.decimals,
        np.array([trade.side for trade in case.trades], dtype=np.int8),
    )


def _depth(case: Case, cuts) -> list[simulate.DepthChunk]:
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(case.rows)}), len(case.rows)]
    chunks = []
    for start, stop in itertools.pairwise(edges) if case.rows else ():
        columns = zip(*case.rows[start:stop], strict=True)
        kinds = (np.int64, np.int64, np.int8, np.int64, np.int64, np.int8)
        made = [np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=True)]
        made[0] *= STEP_NS
        chunks.append(simulate.DepthChunk(*made, PRICE_DECIMALS, case.decimals))
    return chunks


def _strategy(case: Case, events) -> OwnStrategy:
    """Make a strategy that sends what it has to at the trades and timers of the script."""
    places = [place for place, event in enumerate(events) if event.trade is not None]
    script = {}
    for command in case.commands:
        key = ("timer", command.sent_ns) if command.after is None else ("trade", places.index(command.after))
        script.setdefault(key, []).append(command)

    class Script(context.Strategy):
        def __init__(self):
            self.seen = 0
            self.ids = {}

        def on_trade(self, market, _):
            self.send(market, ("trade", self.seen))
            self.seen += 1

        def on_timer(self, market):
            self.send(market, ("timer", market.now() // STEP_NS))

        def send(self, market, key):
            for command in script.get(key, ()):
                assert market.now() == command.sent_ns * STEP_NS
                self.do(market, command)

        def do(self, market, command):
            quantity = command.quantity / 10**case.decimals
            price = None if command.price is None else command.price / 10**PRICE_DECIMALS
            if command.what == "submit":
                self.ids[command.order] = market.submit(
                    command.side,
                    quantity,
                    context.MARKET if price is None else price,
                    force=FORCES[command.force],
                    post_only=command.post_only,
                )
                assert self.ids[command.order] == command.order
            elif command.what == "cancel":
                market.cancel(command.order)
            else:
                market.replace(command.order, quantity, price)

    handlers = frozenset({Handler.TRADE, Handler.TIMER})
    return OwnStrategy(Script, "Script", "script.py", "0" * 64, {}, {}, {}, handlers, STEP_NS)


def _log(log, case: Case):
    rows = []
    for row in log:
        if row["reference_kind"] == Reference.CLOSE and row["status"] == Status.FILLED:
            continue  # at the end of the data
        time = int(row["time_ns"]) // STEP_NS
        if row["status"] == Status.FILLED:
            quantity, price = row["quantity"] * 10**case.decimals, row["price"] * 10**PRICE_DECIMALS
            side = BUY if row["side"] > 0 else SELL
            fill = time, int(row["order_id"]), side, whole(quantity), whole(price), bool(row["is_maker"])
            rows.append(naive.Fill(*fill))
        else:
            word = Status(row["status"]).name.lower()
            rows.append(naive.Ended(time, int(row["order_id"]), word))
    return rows


def joined(log):
    """Join fills that are one: what closes a position and what opens the other side are two for the engine.

    Orders that end at one moment are put in order of their numbers: nobody says which of them is first.
    """
    made = []
    for row in log:
        last = made[-1] if made else None
        is_fill = isinstance(row, naive.Fill) and isinstance(last, naive.Fill)
        if is_fill and row._replace(quantity=0) == last._replace(quantity=0):
            made[-1] = last._replace(quantity=last.quantity + row.quantity)
        else:
            made.append(row)
    groups = itertools.groupby(made, key=lambda row: (type(row), row.time_ns))
    return [row for (kind, _), group in groups for row in (sorted(group) if kind is naive.Ended else group)]


def whole(number: float) -> int:
    assert abs(number - round(number)) < 1e-6
    return round(number)
