"""Fills against a level-2 book, written slowly and obviously, to hold the engine's against.

A literal reading of `docs/book.md` for one symbol: everything that happens is sorted into one list and done one after
another on dictionaries and lists. Prices are integers, quantities integers of the book's own sizes, so that nothing
rounds; what a probabilistic model thinks is ahead is a float, as the page has it. Nothing is shared with
`daemon.engine`, so that a misreading has to happen twice to go unseen.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.core.backtest import Queue
from daemon.core.ticks import BUY, SELL, DepthFlag

if TYPE_CHECKING:
    from collections.abc import Sequence

# What is this near to a whole number of lots is off by rounding alone; of quantities that are floats.
NEAR: Final = 1e-9


class Row(NamedTuple):
    """A row of depth: what a level holds from now on."""

    time_ns: int
    id: int
    side: int
    price: int
    size: int
    flags: int = 0


class Trade(NamedTuple):
    """A trade of the market. side: of the aggressor, 0 where unknown."""

    time_ns: int
    price: int
    size: int
    side: int


class Event(NamedTuple):
    """What comes at once: a trade, or all rows of one update."""

    time_ns: int
    trade: Trade | None
    rows: tuple[Row, ...] = ()


class Command(NamedTuple):
    """What a strategy sends. price: None for a market order.

    after: place of the event at which it is sent, among those of `events_of`; None where none is (a timer).
    """

    sent_ns: int
    what: str
    order: int
    side: int = 0
    quantity: int = 0
    price: int | None = None
    force: str = "GTC"
    post_only: bool = False
    after: int | None = None


class Fill(NamedTuple):
    """A fill of an order. side: BUY or SELL."""

    time_ns: int
    order: int
    side: int
    quantity: int
    price: int
    is_maker: bool


class Ended(NamedTuple):
    """An order that ended without being filled, and why."""

    time_ns: int
    order: int
    word: str


@dataclass
class Counts:
    """What was odd, counted. missed: cancels and replacements of orders that were not there."""

    early: int = 0
    unknown: int = 0
    negative: int = 0
    stale: int = 0
    crossed: int = 0
    missed: int = 0


class Ran(NamedTuple):
    """Fills and ends in the order in which they happened."""

    log: list[Fill | Ended]
    counts: Counts

    @property
    def fills(self) -> list[Fill]:
        return [row for row in self.log if isinstance(row, Fill)]

    @property
    def ends(self) -> list[Ended]:
        return [row for row in self.log if isinstance(row, Ended)]


@dataclass(eq=False)
class Order:
    """An order at the venue. left: to fill. ahead: of it in its queue. met: what our side was given across."""

    id: int
    side: int
    left: int
    price: int | None
    force: str
    post_only: bool
    ahead: float = 0
    met: int = 0

    def reaches(self, price: int) -> bool:
        """Whether its price is at or beyond a price of the other side; a market order's always is."""
        return self.price is None or (self.price >= price if self.side == BUY else self.price <= price)


def events_of(rows: Sequence[Row], trades: Sequence[Trade]) -> list[Event]:
    """Join rows of depth to events, and put trades between them; of one time trades are first."""
    updates = [tuple(update) for _, update in itertools.groupby(rows, key=lambda row: (row.id, row.time_ns))]
    events = [Event(trade.time_ns, trade) for trade in trades]
    events += [Event(update[0].time_ns, None, update) for update in updates]
    return sorted(events, key=lambda event: (event.time_ns, event.trade is None))


class Matching:
    """One run of commands over events.

    order_ns: latency of everything that is sent. lot: of orders' quantities, in sizes. decimals: of sizes, for the
    models that know base units. until_ns: what arrives from then on is not looked at, nor are events; None for no end.
    stale_ns: how long after what was last heard of the book orders may take.
    """

    def __init__(
        self,
        events: Sequence[Event],
        commands: Sequence[Command],
        *,
        queue: Queue | None = None,
        order_ns: int = 0,
        lot: int = 1,
        decimals: int = 0,
        until_ns: float | None = None,
        stale_ns: float = math.inf,
    ) -> None:
        self.events, self.commands = events, commands
        self.queue = queue or Queue()
        self.order_ns, self.lot, self.unit = order_ns, lot, 10.0**-decimals
        self.until_ns = math.inf if until_ns is None else until_ns
        self.levels: dict[int, dict[int, int]] = {BUY: {}, SELL: {}}
        self.traded: dict[tuple[int, int], int] = {}
        self.stale_ns, self.heard_ns = stale_ns, 0
        self.is_whole = False
        self.snapshot_id: int | None = None
        self.resting: list[Order] = []  # in the order in which they joined
        self.waiting: list[Order] = []
        self.now_ns = 0
        self.log: list[Fill | Ended] = []
        self.counts = Counts()

    # Time.

    def run(self) -> Ran:
        for time_ns, what in self.timeline():
            if time_ns >= self.until_ns:
                break
            self.now_ns = time_ns
            if isinstance(what, Command):
                self.arrive(what)
            elif what.trade is not None:
                self.trade(what.trade)
            else:
                self.change(what.rows)
        return Ran(self.log, self.counts)

    def timeline(self) -> list[tuple[int, Command | Event]]:
        """Everything in order: arrivals at a time precede its events, but what is sent at an event comes after it."""
        placed: list[tuple[tuple[int, ...], Command | Event]] = []
        for place, event in enumerate(self.events):
            placed.append(((event.time_ns, 1, place, 0, 0), event))
        for turn, command in enumerate(self.commands):
            arrives_ns = command.sent_ns + self.order_ns
            if command.after is not None and self.events[command.after].time_ns == arrives_ns:
                placed.append(((arrives_ns, 1, command.after, 1, turn), command))
            else:
                placed.append(((arrives_ns, 0, 0, 0, turn), command))
        return [(key[0], what) for key, what in sorted(placed, key=lambda each: each[0])]

    # The book.

    def best(self, side: int) -> int | None:
        return (max if side == BUY else min)(self.levels[side], default=None)

    def of_side(self, side: int) -> list[tuple[int, int]]:
        """Levels of a side, best first."""
        return sorted(self.levels[side].items(), reverse=side == BUY)

    @property
    def is_crossed(self) -> bool:
        bid, ask = self.best(BUY), self.best(SELL)
        return bid is not None and ask is not None and bid >= ask

    @property
    def is_sound(self) -> bool:
        return self.is_whole and not self.is_crossed

    def change(self, rows: Sequence[Row]) -> None:
        """Take one event of the book, then what it makes possible."""
        self.heard_ns = self.now_ns
        self.take_rows(rows)
        if self.is_whole and self.is_crossed:
            self.counts.crossed += 1
        if self.is_sound:
            self.reach()
            waited, self.waiting = sorted(self.waiting, key=lambda order: order.id), []
            for order in waited:
                self.meet(order)

    def take_rows(self, rows: Sequence[Row]) -> None:
        before: dict[int, dict[int, int]] | None = None
        was_whole = True
        for last, row in zip((None, *rows), rows, strict=False):
            if row.flags & DepthFlag.AFTER_GAP and (last is None or not last.flags & DepthFlag.AFTER_GAP):
                self.is_whole = False
            if row.flags & DepthFlag.SNAPSHOT and self.snapshot_id != row.id:
                before, was_whole = self.levels, self.is_whole
                self.levels, self.is_whole = {BUY: {}, SELL: {}}, True
            self.snapshot_id = row.id if row.flags & DepthFlag.SNAPSHOT else None
            if not self.is_whole:
                self.counts.early += 1
            elif row.size < 0:
                self.counts.negative += 1
            else:
                was = self.place(row)
                if before is None:
                    self.level_changes(row.side, row.price, was, row.size)
        if before is not None:
            self.replaced(before, is_after_gap=not was_whole)

    def place(self, row: Row) -> int:
        """Set a level; return what it held."""
        levels = self.levels[row.side]
        was = levels.pop(row.price, 0)
        if row.size > 0:
            levels[row.price] = row.size
        elif was == 0:
            self.counts.unknown += 1
        return was

    # Queues.

    def replaced(self, before: dict[int, dict[int, int]], *, is_after_gap: bool) -> None:
        """A snapshot came: what it shows of our levels holds, up to the last one of a side; behind it nobody knows."""
        for side, price in {(order.side, order.price) for order in self.resting}:
            if not any((price - last) * side >= 0 for last in self.levels[side]):
                continue
            after = self.levels[side].get(price, 0)
            if is_after_gap:
                for order in self.resting:
                    if (order.side, order.price) == (side, price):
                        order.ahead = min(order.ahead, after)
            else:
                self.level_changes(side, price, before[side].get(price, 0), after)
        self.traded.clear()

    def level_changes(self, side: int, price: int, before: int, after: int) -> None:
        shrunk = before - after - self.traded.pop((side, price), 0)
        for order in self.resting:
            if (order.side, order.price) == (side, price) and self.queue.model != "trade_only":
                if shrunk > 0 and self.queue.model in {"power", "log"}:
                    order.ahead = self.thinned(order.ahead, before, shrunk)
                order.ahead = max(0, min(order.ahead, after))

    def thinned(self, ahead: float, before: int, shrunk: int) -> float:
        """What is ahead after a level shrank, by the probability that it did behind us."""
        back = max(0.0, before - ahead)
        p = self.behind(ahead * self.unit, back * self.unit)
        return ahead - (1.0 - p) * shrunk + min(back - p * shrunk, 0.0)

    def behind(self, ahead: float, back: float) -> float:
        """Probability that what leaves a level leaves behind us. Base units."""
        if ahead == back == 0:
            return 1.0
        if self.queue.model == "power":
            return back**self.queue.exponent / (back**self.queue.exponent + ahead**self.queue.exponent)
        return math.log(1.0 + back) / (math.log(1.0 + back) + math.log(1.0 + ahead))

    def in_turn(self, side: int) -> list[Order]:
        """Resting orders of a side, the better price first, then the first that joined."""
        return sorted((order for order in self.resting if order.side == side), key=lambda order: -side * order.price)

    # What comes to resting orders.

    def trade(self, trade: Trade) -> None:
        left = trade.size
        for side in (BUY, SELL):
            if trade.side == side:
                continue
            at_price = 0
            for order in self.in_turn(side):
                if order.price == trade.price:
                    reached = max(0, trade.size - order.ahead) - at_price
                    quantity = self.whole_lots(min(order.left, left, reached))
                    order.ahead = max(0, order.ahead - trade.size)
                    at_price += quantity
                elif order.reaches(trade.price):
                    order.ahead = 0
                    quantity = self.whole_lots(min(order.left, left))
                else:
                    continue
                left -= quantity
                self.fill(order, quantity, order.price, is_maker=True)
            key = (side, trade.price)
            self.traded[key] = self.traded.get(key, 0) + trade.size

    def reach(self) -> None:
        """The other side's levels at or beyond resting orders' prices fill them."""
        for side in (BUY, SELL):
            reached = []
            for order in self.in_turn(side):
                best = self.best(-side)
                if best is None or not order.reaches(best):
                    order.met = 0
                else:
                    reached.append(order)
            for order in reached:
                order.ahead = 0
                shown = sum(size for price, size in self.of_side(-side) if order.reaches(price))
                quantity = self.whole_lots(min(order.left, shown - order.met))
                # What one of ours was given is not there for the others.
                for other in reached:
                    other.met += quantity
                self.fill(order, quantity, order.price, is_maker=True)

    # What arrives.

    def arrive(self, command: Command) -> None:
        if command.what == "submit":
            order = Order(
                command.order,
                command.side,
                self.whole_lots(command.quantity),
                command.price,
                command.force,
                command.post_only,
            )
            if order.left == 0:
                self.end(order, "too_small")
            else:
                self.enter(order)
            return
        found = [order for order in self.resting + self.waiting if order.id == command.order]
        if not found:
            self.counts.missed += 1
        elif command.what == "cancel" or command.quantity == 0:
            self.remove(found[0])
        elif found[0].price is None:
            self.counts.missed += 1
        else:
            self.replace(found[0], command)

    def replace(self, order: Order, command: Command) -> None:
        keeps = command.price == order.price and command.quantity <= order.left
        order.left, order.price = self.whole_lots(command.quantity), command.price
        if keeps and self.queue.replace == "reducing_keeps":
            return
        self.remove(order)
        order.ahead = order.met = 0
        self.enter(order)

    def enter(self, order: Order) -> None:
        is_stale = self.now_ns - self.heard_ns > self.stale_ns
        self.counts.stale += self.is_sound and is_stale
        if self.is_sound and not is_stale:
            self.meet(order)
        elif order.force in {"IOC", "FOK"}:
            self.end(order, "not_filled")
        else:
            self.waiting.append(order)

    def meet(self, order: Order) -> None:
        """Take what the book shows within the limit, level by level, then wait, rest or end."""
        within = [(price, size) for price, size in self.of_side(-order.side) if order.reaches(price)]
        if order.post_only and within:
            self.end(order, "would_take")
            return
        if order.force == "FOK" and not self.fills_whole(order, within):
            return
        for price, size in within:
            quantity = self.whole_lots(min(order.left, size))
            if quantity == 0:
                continue
            if self.trades_with_own(order, price):
                return
            self.levels[-order.side][price] -= quantity
            if quantity == size:
                del self.levels[-order.side][price]
            self.fill(order, quantity, price, is_maker=False)
        if order.left > 0:
            self.stay(order)

    def stay(self, order: Order) -> None:
        """What becomes of an order that the book has no more levels for."""
        if order.force in {"IOC", "FOK"}:
            self.end(order, "not_filled")
        elif order.price is None:
            self.waiting.append(order)
        elif not self.trades_with_own(order, order.price):
            order.ahead = self.levels[order.side].get(order.price, 0)
            order.met = 0
            self.resting.append(order)

    def fills_whole(self, order: Order, within: list[tuple[int, int]]) -> bool:
        """Whether an FOK order gets all of it; else it has ended."""
        needed, worst = order.left, None
        for price, size in within:
            if needed > 0 and (quantity := self.whole_lots(min(needed, size))) > 0:
                needed, worst = needed - quantity, price
        if needed > 0:
            self.end(order, "not_filled")
            return False
        # What would end it half way ends it before.
        return self.queue.self_trade == "cancel_oldest" or not self.trades_with_own(order, worst)

    def trades_with_own(self, order: Order, price: int) -> bool:
        """End what would trade with each other at a price; tells whether the order itself did."""
        met = [own for own in self.in_turn(-order.side) if (price - own.price) * order.side >= 0]
        if not met:
            return False
        ended = {"cancel_newest": [order], "cancel_oldest": met, "cancel_both": [met[0], order]}
        for each in ended[self.queue.self_trade]:
            self.remove(each)
            self.end(each, "self_trade")
        return self.queue.self_trade != "cancel_oldest"

    # What comes of it.

    def whole_lots(self, quantity: float) -> int:
        return max(0, math.floor(quantity / self.lot + NEAR)) * self.lot

    def fill(self, order: Order, quantity: int, price: int, *, is_maker: bool) -> None:
        if quantity == 0:
            return
        order.left -= quantity
        self.log.append(Fill(self.now_ns, order.id, order.side, quantity, price, is_maker))
        if order.left == 0:
            self.remove(order)

    def end(self, order: Order, word: str) -> None:
        self.log.append(Ended(self.now_ns, order.id, word))

    def remove(self, order: Order) -> None:
        for orders in (self.resting, self.waiting):
            if order in orders:
                orders.remove(order)


def matched(rows: Sequence[Row], trades: Sequence[Trade], commands: Sequence[Command], **settings: object) -> Ran:
    """Run commands over rows of depth and trades."""
    return Matching(events_of(rows, trades), commands, **settings).run()
