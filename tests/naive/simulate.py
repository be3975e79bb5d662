"""What a backtest does, written slowly and obviously, to hold the engine's loop against.

A literal reading of `docs/backtest.md`: all that happens is sorted into one list of events and done one after another
on plain objects. Nothing is shared with `daemon.engine`, so that a misreading has to happen twice to go unseen.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from daemon.core import backtest as spec_of
from daemon.core.backtest import Reason
from daemon.core.market import NS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.backtest import BacktestSpec, Distance, Exits, ListedOrder

INF: Final = math.inf
# What is this near to a whole number of lots or ticks, or to nothing of a quantity, is off by rounding alone.
NEAR: Final = 1e-9
# Slippage never takes more than this of a price.
MOST_SLIPPAGE: Final = 0.5


class Signal(IntFlag):
    """What the rules say at a bar's close."""

    ENTER_LONG = 1
    ENTER_SHORT = 2
    EXIT_LONG = 4
    EXIT_SHORT = 8


class Bar(NamedTuple):
    """A bar and what is known of it. sigma, day_volume: of the days before it."""

    close_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    signals: Signal = Signal(0)
    atr: float = math.nan
    sigma: float = math.nan
    day_volume: float = math.nan


class Book(NamedTuple):
    """Levels (price, size) of each side, best first."""

    asks: list[tuple[float, float]]
    bids: list[tuple[float, float]]


class Series(NamedTuple):
    """All of a symbol: bars in order, funding as (time, rate), and the book at each bar's start, None for no whole one.

    books: empty where nothing is paid by them.
    """

    bars: list[Bar]
    funding: Sequence[tuple[int, float]] = ()
    books: Sequence[Book | None] = ()


class Ticks(NamedTuple):
    """A feed: rows are (time, price, size) of trades, or (time, bid, ask) of quotes."""

    symbol: int
    kind: Literal["trades", "quotes"]
    rows: list[tuple[int, float, float]]


class Fill(NamedTuple):
    """What was bought (side 1) or sold (-1)."""

    time_ns: int
    symbol: int
    side: int
    reason: Reason
    quantity: float
    price: float
    fee: float
    is_maker: bool


class Ended(NamedTuple):
    """An order that ended without being filled, and why."""

    time_ns: int
    symbol: int
    word: str


class Sample(NamedTuple):
    """The account at a moment."""

    time_ns: int
    equity: float
    cash: float


class Ran(NamedTuple):
    """Fills and ends in the order in which they happened, and the account at closes."""

    log: list[Fill | Ended]
    samples: list[Sample]


# A distance that is known in quote currency, or a fraction of a price that is not known yet.
Away: TypeAlias = tuple[float, Literal["fraction", "price"]]


class Leave(NamedTuple):
    """Exits that an entry's fill sends."""

    loss: Away | None = None
    target: Away | None = None
    follow: Away | None = None
    follow_from: Away | None = None


@dataclass(eq=False)
class Order:
    """An order. quantity: what is left; None: all of the position (`closes`), or not known before it meets a price."""

    symbol: int
    kind: str
    side: int
    reason: Reason
    live_ns: int
    quantity: float | None = None
    notional: float = 0.0
    price: float = 0.0
    stop: float = 0.0
    trail: Away | None = None
    extreme: float | None = None
    activation: float | None = None
    force: str = "GTC"
    expires_ns: float = INF
    closes: bool = False
    reduces: bool = False
    post_only: bool = False
    oco: int = 0
    parent: Order | None = None
    leave: Leave | None = None
    number: int = 0
    filled: float = 0.0
    has_arrived: bool = False
    is_done: bool = False
    is_cut: bool = False

    def level(self) -> float:
        """Price that triggers a stop or a trailing stop that follows."""
        if self.kind != "trailing_stop":
            return self.stop
        distance = away_of(self.trail, self.extreme)
        return self.extreme - distance if self.side < 0 else self.extreme + distance

    def waits_for_activation(self) -> bool:
        return self.kind == "trailing_stop" and self.extreme is None


@dataclass(eq=False)
class Market:
    """A symbol: its position, and what its orders meet. room: base units that orders may still take."""

    quantity: float = 0.0
    entry_price: float = 0.0
    held_bars: int = 0
    realised: float = 0.0
    staked: float = 0.0
    mark: float = 0.0
    bid: float = 0.0
    ask: float = 0.0
    room: float = INF
    ask_room: float = INF
    bid_room: float = INF
    paid_by: tuple[Book, ...] = ()
    volume: float = math.nan
    sigma: float = math.nan
    day_volume: float = math.nan
    orders: list[Order] = field(default_factory=list)


@dataclass
class State:
    """All that changes."""

    cash: float
    markets: list[Market]
    gains: list[float] = field(default_factory=list)
    log: list[Fill | Ended] = field(default_factory=list)
    sent: int = 0

    def copied(self) -> State:
        orders = {id(order): copy.copy(order) for market in self.markets for order in market.orders}
        for order in orders.values():
            order.parent = orders.get(id(order.parent), order.parent)
        markets = [copy.copy(market) for market in self.markets]
        for market in markets:
            market.orders = [orders[id(order)] for order in market.orders]
        return State(self.cash, markets, list(self.gains), list(self.log), self.sent)


def away_of(distance: Away | None, price: float | None) -> float:
    value, unit = distance
    return value * price if unit == "fraction" else value


def on_tick(price: float, tick: float, *, upwards: bool) -> float:
    if tick == 0:
        return price
    return times(math.ceil(price / tick - NEAR) if upwards else math.floor(price / tick + NEAR), tick)


def whole_lots(quantity: float, lot: float) -> float:
    if lot == 0 or math.isinf(quantity):
        return quantity
    return times(math.floor(quantity / lot + NEAR), lot)


def times(whole: int, step: float) -> float:
    """Multiply exactly where the step is one over a whole number: 3 of 0.1 are 0.3."""
    inverse = round(1 / step)
    return whole / inverse if inverse > 1 and abs(inverse * step - 1) < NEAR else whole * step


def liquidation(model: spec_of.AlmgrenChriss, of_day: float, sigma: float, days: float) -> float:
    """Mean cost of Almgren and Chriss (2000) without the half spread, a fraction, by its hyperbolic sines."""
    spread = 2 * model.half_spread_bps * 1e-4
    gamma = spread / model.permanent_volume if model.gamma is None else model.gamma
    eta = spread / model.temporary_volume if model.eta is None else model.eta
    tau = days / model.slices
    temporary = eta - gamma * tau / 2
    if temporary <= 0:
        return gamma * of_day / 2
    # acosh(1 + u / 2), which loses what is small of u.
    step = 2 * math.asinh(math.sqrt(model.risk_aversion * sigma**2 * tau**2 / temporary) / 2)
    left = [
        math.sinh(step * (model.slices - j)) / math.sinh(step * model.slices) if step > 0 else 1 - j / model.slices
        for j in range(model.slices + 1)
    ]
    squares = sum((left[j] - left[j + 1]) ** 2 for j in range(model.slices))
    return gamma * of_day / 2 + temporary / tau * of_day * squares


def by_books(books: Sequence[Book], side: int, quantity: float) -> tuple[float, float]:
    """Half spread and the rest of what the dearest of several books asks, fractions of its mid."""
    best = mean = 0.0
    for book in books:
        mid = (book.asks[0][0] + book.bids[0][0]) / 2
        levels = book.asks if side > 0 else book.bids
        left, worth = quantity, 0.0
        for price, size in levels:
            taken = min(left, size)
            worth += taken * price
            left -= taken
        # What no level holds costs what the last one does.
        worth += left * levels[-1][0]
        best = max(best, side * (levels[0][0] / mid - 1))
        mean = max(mean, side * (worth / quantity / mid - 1))
    return best, mean - best


def one_by_one(values: Sequence[float]) -> float:
    """Straight sum from left to right; the builtin compensates its rounding from Python 3.12 on."""
    total = 0.0
    for value in values:
        total += value
    return total


class Simulation:
    """One run of a specification over series (one a market) and feeds of ticks."""

    def __init__(
        self,
        spec: BacktestSpec,
        series: Sequence[Series],
        feeds: Sequence[Ticks] = (),
        *,
        optimistic: bool = False,
        year_days: int = 365,
    ) -> None:
        self.spec, self.series, self.feeds = spec, series, feeds
        self.optimistic = optimistic
        self.year_days = year_days
        self.on_ticks = spec.fills == "ticks"
        self.width_ns = spec.timeframe.ns
        self.state = State(spec.account.initial_capital, [Market() for _ in series])
        self.unpaid = [list(each.funding) for each in series]
        self.now_ns = 0
        self.samples: list[Sample] = []

    # Events.

    def run(self) -> Ran:
        for time_ns, kind, *what in self.events():
            self.now_ns = time_ns
            if kind == _BARS:
                self.bars_end(time_ns)
            elif kind == _LISTED:
                self.send(self.listed(self.spec.program.orders[what[0]]))
            else:
                self.tick(self.feeds[what[0]], what[1])
        return Ran(self.state.log, self.samples)

    def events(self) -> list[tuple[int, ...]]:
        """All of them in order of time; of one time as the contract has them. Orders after the last data are none."""
        closes = {bar.close_ns for each in self.series for bar in each.bars}
        events = [(close_ns, _BARS) for close_ns in closes]
        for place, feed in enumerate(self.feeds):
            # Ticks after a symbol's last bar are none: it has been closed.
            last_ns = max((bar.close_ns for bar in self.series[feed.symbol].bars), default=0)
            events += [(row[0], _TICK, place, index) for index, row in enumerate(feed.rows) if row[0] < last_ns]
        last = max(events)[:2] if events else (0, 0)
        if isinstance(self.spec.program, spec_of.OrderList):
            events += [(order.time_ns, _LISTED, index) for index, order in enumerate(self.spec.program.orders)]
        return [event for event in sorted(events) if event[:2] <= last]

    def bars_end(self, now_ns: int) -> None:
        ending = [
            (symbol, bar) for symbol, each in enumerate(self.series) for bar in each.bars if bar.close_ns == now_ns
        ]
        for symbol, bar in ending:
            market, cap = self.state.markets[symbol], self.cap(symbol)
            market.volume, market.sigma, market.day_volume = bar.volume, bar.sigma, bar.day_volume
            market.room = cap * bar.volume if cap < INF else INF
            self.look_at_the_book(symbol, bar)
        if not self.on_ticks:
            self.now_ns = now_ns - self.width_ns
            for symbol, bar in ending:
                # What fell due in a hole of the data comes before the bar after it.
                self.pay_funding(symbol, self.now_ns)
                self.state.markets[symbol].mark = bar.open
            for symbol, bar in ending:
                self.meet(symbol, bar.open, offered=INF, at_open=True)
            for symbol, bar in ending:
                self.path(symbol, bar)
        for symbol, bar in ending:
            self.state.markets[symbol].mark = bar.close
        self.now_ns = now_ns
        for symbol in range(len(self.series)):
            self.pay_funding(symbol, now_ns)
        for symbol, bar in ending:
            if bar is self.series[symbol].bars[-1]:
                self.close(symbol)
            else:
                self.decide(symbol, bar)
        self.sample()

    def look_at_the_book(self, symbol: int, bar: Bar) -> None:
        """Take the book at a bar's start, or all that were known before where it has none."""
        if not isinstance(self.slippage_of(symbol), spec_of.OrderBook):
            return
        place = self.series[symbol].bars.index(bar)
        market, books = self.state.markets[symbol], self.series[symbol].books
        known = [books[place]] if books[place] else [book for book in books[:place] if book]
        market.paid_by = tuple(known)
        market.ask_room = min((one_by_one([size for _, size in book.asks]) for book in known), default=0.0)
        market.bid_room = min((one_by_one([size for _, size in book.bids]) for book in known), default=0.0)

    def room(self, symbol: int, side: int) -> float:
        market = self.state.markets[symbol]
        return min(market.room, market.ask_room if side > 0 else market.bid_room)

    def lift_caps(self, symbol: int) -> None:
        market = self.state.markets[symbol]
        market.room = market.ask_room = market.bid_room = INF

    def tick(self, feed: Ticks, index: int) -> None:
        market = self.state.markets[feed.symbol]
        for symbol in range(len(self.series)):
            self.pay_funding(symbol, self.now_ns)
        _, first, second = feed.rows[index]
        if feed.kind == "quotes":
            is_sound = 0 < first <= second < INF
            market.bid, market.ask = (first, second) if is_sound else (0.0, 0.0)
            if not is_sound:
                return
            self.expire(feed.symbol)
            for order in self.in_turn(feed.symbol):
                taking = market.ask if order.side > 0 else market.bid
                arrives = not order.has_arrived
                order.has_arrived = True
                if order.kind == "market":
                    self.take(order, taking)
                elif order.kind == "limit" and arrives:
                    self.arrive(order, taking)
        else:
            market.mark = first
            self.meet(feed.symbol, first, offered=second, at_open=False)

    def pay_funding(self, symbol: int, until_ns: int) -> None:
        market = self.state.markets[symbol]
        while self.unpaid[symbol] and self.unpaid[symbol][0][0] <= until_ns:
            _, rate = self.unpaid[symbol].pop(0)
            paid = -market.quantity * market.mark * rate
            self.state.cash += paid
            market.realised += paid

    def sample(self) -> None:
        worth = one_by_one([market.quantity * market.mark for market in self.state.markets])
        self.samples.append(Sample(self.now_ns, self.state.cash + worth, self.state.cash))

    def close(self, symbol: int) -> None:
        """Close a symbol whose data are over."""
        market = self.state.markets[symbol]
        market.orders.clear()
        if market.quantity != 0:
            self.lift_caps(symbol)
            order = self.closing(symbol, Reason.MANUAL)
            self.send(order)
            self.fill(order, market.mark)
            market.orders.clear()

    # A bar.

    def path(self, symbol: int, bar: Bar) -> None:
        before, ways = self.state, []
        low_first, high_first = (bar.low, bar.high), (bar.high, bar.low)
        usual, other = (low_first, high_first) if bar.close >= bar.open else (high_first, low_first)
        for turns in (usual, other):
            self.state = before.copied()
            at = bar.open
            for stop in (*turns, bar.close):
                self.leg(symbol, at, stop)
                at = stop
            ways.append((self.state.cash + self.state.markets[symbol].quantity * bar.close, self.state))
        (left_by_usual, _), (left_by_other, _) = ways
        takes_other = left_by_other > left_by_usual if self.optimistic else left_by_other < left_by_usual
        self.state = ways[takes_other][1]
        market = self.state.markets[symbol]
        market.orders = [order for order in market.orders if not order.is_done]

    def leg(self, symbol: int, start: float, stop: float) -> None:
        at, way = start, 1 if stop > start else -1
        while (met := self.first_met(symbol, at, stop, way)) is not None:
            at, order = met
            self.follow(symbol, at)
            if order is None:
                self.liquidate(symbol, at)
            elif order.kind == "limit":
                if self.fill(order, at, is_maker=True) == 0 and not order.is_done:
                    # Less than a lot is left of the bar's volume, or of what the book held.
                    market = self.state.markets[symbol]
                    if not isinstance(self.slippage_of(symbol), spec_of.OrderBook):
                        market.room = 0.0
                    elif order.side > 0:
                        market.ask_room = 0.0
                    else:
                        market.bid_room = 0.0
            elif order.kind == "stop_limit":
                self.trigger(order)
                self.arrive(order, at)
            else:
                self.trigger(order)
                self.take(order, at)
        self.follow(symbol, stop)

    def first_met(self, symbol: int, at: float, stop: float, way: int) -> tuple[float, Order | None] | None:
        """Where between two prices an order is met first, and which: None for a liquidation."""
        market = self.state.markets[symbol]
        found: list[tuple[float, int, float, Order | None]] = []
        if market.quantity != 0:
            level = self.liquidation_price(symbol)
            against = -1 if market.quantity > 0 else 1
            self.note_level(found, level, against, at, stop, None, -1)
        for order in market.orders:
            if order.is_done or order.live_ns > self.now_ns or order.kind == "market" or order.waits_for_activation():
                continue
            if order.kind == "limit":
                if self.room(symbol, order.side) > 0 and order.side != way and self.is_reached(order, stop):
                    distance = max((order.price - at) * way, 0.0)
                    found.append((distance, order.number, order.price if distance > 0 else at, order))
            else:
                self.note_level(found, order.level(), order.side, at, stop, order, order.number)
        if not found:
            return None
        _, _, price, order = min(found, key=lambda each: each[:2])
        return price, order

    @staticmethod
    def note_level(found, level, side, at, stop, order, number) -> None:
        """Add a level that a price which moves the way of `side` triggers, if it lies behind or on the way."""
        if (at - level) * side >= 0:
            found.append((0.0, number, at, order))
        elif (stop - level) * side >= 0:
            found.append(((level - at) * side, number, level, order))

    def follow(self, symbol: int, price: float) -> None:
        for order in self.state.markets[symbol].orders:
            if not order.is_done and order.live_ns <= self.now_ns:
                self.trail(order, price)

    @staticmethod
    def trail(order: Order, price: float) -> None:
        if order.kind != "trailing_stop":
            return
        gains = -order.side
        if order.extreme is None:
            if order.activation is None or (price - order.activation) * gains >= 0:
                order.extreme = price
        elif (price - order.extreme) * gains > 0:
            order.extreme = price

    # One price: an open, or a trade.

    def in_turn(self, symbol: int) -> list[Order]:
        """Live orders as sent, one after another: what fills send comes too."""
        place = 0
        orders = self.state.markets[symbol].orders
        while place < len(orders):
            if not orders[place].is_done and orders[place].live_ns <= self.now_ns:
                yield orders[place]
            place += 1
        orders[:] = [order for order in orders if not order.is_done]

    def expire(self, symbol: int) -> None:
        for order in self.state.markets[symbol].orders:
            if order.expires_ns <= self.now_ns and not order.is_done:
                self.end(order, "expired")

    def meet(self, symbol: int, price: float, *, offered: float, at_open: bool) -> None:
        market = self.state.markets[symbol]
        self.expire(symbol)
        if market.quantity != 0:
            against = -1 if market.quantity > 0 else 1
            if (price - self.liquidation_price(symbol)) * against >= 0:
                self.liquidate(symbol, price)
        for order in self.in_turn(symbol):
            arrives = not order.has_arrived
            order.has_arrived = True
            taking = price
            if not at_open and market.ask > 0:
                # A quote may be older than the trade: the worse of the two.
                taking = max(price, market.ask) if order.side > 0 else min(price, market.bid)
            self.trail(order, price)
            is_stop = order.kind in {"stop", "stop_limit", "trailing_stop"} and not order.waits_for_activation()
            if is_stop and (price - order.level()) * order.side >= 0:
                self.trigger(order)
                arrives = True
            if order.kind == "market":
                self.take(order, taking)
            elif order.kind == "limit" and arrives:
                self.arrive(order, taking)
            elif order.kind == "limit" and self.is_reached(order, price):
                offered -= self.fill(order, order.price, most=offered, is_maker=True)

    def is_reached(self, order: Order, price: float) -> bool:
        beyond = (order.price - price) * order.side
        return beyond > 0 if self.spec.limit_fills == "through" else beyond >= 0

    def arrive(self, order: Order, price: float) -> None:
        if (order.price - price) * order.side >= 0:
            if order.post_only:
                self.end(order, "would_take")
                return
            # What is left afterwards could trade, but for the volume: it arrives again.
            order.has_arrived = False
            self.take(order, price)
        elif order.force in {"IOC", "FOK"}:
            self.end(order, "not_filled")

    def take(self, order: Order, price: float) -> None:
        if order.force != "FOK" or self.fits(order, price):
            self.fill(order, price)
        if order.force in {"IOC", "FOK"} and not order.is_done:
            self.end(order, "not_filled")

    def trigger(self, order: Order) -> None:
        order.kind = "limit" if order.kind == "stop_limit" else "market"
        if order.parent is not None:
            self.end_rests(order.symbol, order.parent)

    def end_rests(self, symbol: int, entry: Order | None = None) -> None:
        """End what is left of an entry that has begun to fill, or of all: who leaves does not go on entering."""
        for order in self.state.markets[symbol].orders:
            if not order.reduces and order.filled > 0 and entry in {None, order}:
                order.is_done = True

    def fits(self, order: Order, price: float) -> bool:
        """Whether all of an order would be filled: try it."""
        real = self.state
        self.state = real.copied()
        place = [each is order for each in real.markets[order.symbol].orders].index(True)
        tried = self.state.markets[order.symbol].orders[place]
        self.fill(tried, price)
        self.state = real
        return tried.is_done and not tried.is_cut

    def liquidation_price(self, symbol: int) -> float:
        account, market = self.spec.account, self.state.markets[symbol]
        share = 1.0 / account.leverage
        if market.quantity > 0:
            return market.entry_price * (1.0 - share) / (1.0 - account.maintenance_margin)
        return market.entry_price * (1.0 + share) / (1.0 + account.maintenance_margin)

    def liquidate(self, symbol: int, price: float) -> None:
        market = self.state.markets[symbol]
        self.end_rests(symbol)
        rooms = market.room, market.ask_room, market.bid_room
        self.lift_caps(symbol)
        order = self.closing(symbol, Reason.LIQUIDATION)
        self.send(order)
        self.fill(order, price)
        market.room, market.ask_room, market.bid_room = rooms

    # Fills.

    def fill(self, order: Order, reference: float, *, most: float = INF, is_maker: bool = False) -> float:
        """Fill what can be filled at a reference price, and return how much: what closes first, then what opens."""
        market = self.state.markets[order.symbol]
        filled = self.fill_part(order, reference, most, is_maker=is_maker)
        if filled > 0 and not order.is_done and not order.reduces and market.quantity == 0:
            filled += self.fill_part(order, reference, most - filled, is_maker=is_maker)
        return filled

    def fill_part(self, order: Order, reference: float, most: float, *, is_maker: bool) -> float:  # noqa: C901, PLR0912, PLR0915
        costs, market, lot = self.spec.costs, self.state.markets[order.symbol], self.lot(order.symbol)
        held, side = market.quantity, order.side
        closing = held * side < 0
        if order.reduces and not closing:
            order.is_done = True
            if order.filled == 0 and order.parent is None:
                self.end(order, "nothing_held")
            return 0.0
        rate = (costs.maker_rate if is_maker else costs.taker_rate) * costs.scale
        if order.reason is Reason.LIQUIDATION:
            rate += self.spec.account.liquidation_rate
        fixed = costs.fixed_fee * costs.scale

        if order.closes:
            wanted = abs(held)
        else:
            if order.quantity is None:
                order.quantity = whole_lots(self.bought_by(order, reference, rate, fixed, is_maker=is_maker), lot)
            wanted = order.quantity
        quantity = min(wanted, self.room(order.symbol, side), most)
        if closing:
            quantity = min(quantity, abs(held))
        # A position may be closed whole, whatever its lots.
        closes_whole = closing and abs(held) - quantity <= NEAR * abs(held)
        quantity = abs(held) if closes_whole else whole_lots(quantity, lot)
        if quantity <= 0:
            if whole_lots(wanted, lot) <= 0 and not (closing and wanted >= abs(held)):
                self.end(order, "too_small")
            return 0.0

        price = reference if is_maker else self.taken(order, reference, quantity)
        if not closing:
            allowed = whole_lots(self.affordable(order.symbol, reference, price, rate, fixed), lot)
            if allowed < quantity:
                order.is_cut, quantity = True, allowed
                if quantity > 0 and not is_maker:
                    price = self.taken(order, reference, quantity)
            if quantity <= 0:
                self.end(order, "no_money")
                return 0.0
            asked = min(wanted, allowed)
            if (order.filled == 0 or held == 0) and asked * reference < self.spec.markets[order.symbol].min_notional:
                self.end(order, "too_small")
                return 0.0

        fee = quantity * price * rate + fixed
        self.state.cash -= side * quantity * price + fee
        after = 0.0 if closes_whole else held + side * quantity
        if held == 0:
            market.held_bars, market.realised, market.staked = 0, 0.0, 0.0
        market.realised -= fee
        if closing:
            market.realised -= (price - market.entry_price) * quantity * side
        else:
            market.staked += quantity * price
            before = market.entry_price
            market.entry_price = (before * abs(held) + price * quantity) / (abs(held) + quantity)
        market.quantity = after
        market.room -= quantity
        if side > 0:
            market.ask_room -= quantity
        else:
            market.bid_room -= quantity
        order.filled += quantity
        reason = Reason.MANUAL if closing and order.reason is Reason.ENTRY else order.reason
        self.state.log.append(Fill(self.now_ns, order.symbol, side, reason, quantity, price, fee, is_maker))

        left = abs(after) if order.closes else wanted - quantity
        if not order.closes:
            order.quantity = left
        if order.is_cut or left <= NEAR * wanted or (whole_lots(left, lot) <= 0 and not order.closes):
            order.is_done = True
        self.after_fill(order, price, quantity, closing=closing)
        if after == 0:
            self.flat(market)
        return quantity

    def after_fill(self, order: Order, price: float, quantity: float, *, closing: bool) -> None:
        if order.parent is not None:
            self.end_rests(order.symbol, order.parent)
        others = [each for each in self.state.markets[order.symbol].orders if each is not order and not each.is_done]
        for other in others:
            if order.oco > 0 and other.oco == order.oco:
                other.is_done = True
            elif order.parent is not None and other.parent is order.parent:
                whole = other.quantity
                other.quantity -= quantity
                other.is_done = other.quantity <= NEAR * whole
        if closing:
            return
        exits = [other for other in others if other.parent is order]
        for other in exits:
            other.quantity += quantity
        if not exits:
            self.protect(order, price, quantity)

    def flat(self, market: Market) -> None:
        self.state.gains.append(market.realised / market.staked)
        market.entry_price = 0.0
        for order in market.orders:
            order.is_done = order.is_done or order.reduces

    def bought_by(self, order: Order, reference: float, rate: float, fixed: float, *, is_maker: bool) -> float:
        price = reference
        if not is_maker:
            price = reference * (1.0 + order.side * self.slippage(order.symbol, order.side, order.notional / reference))
        return max(0.0, order.notional - fixed) / (max(price, reference) * (1.0 + rate))

    def taken(self, order: Order, reference: float, quantity: float) -> float:
        tick = self.spec.markets[order.symbol].tick_size
        moved = reference * (1.0 + order.side * self.slippage(order.symbol, order.side, quantity))
        price = on_tick(moved, tick, upwards=order.side > 0)
        if price <= 0:
            price = reference
        if order.kind == "limit":
            price = min(price, order.price) if order.side > 0 else max(price, order.price)
        return price

    def affordable(self, symbol: int, reference: float, price: float, rate: float, fixed: float) -> float:
        """Return q of the largest fill such that (sum of worths) / leverage <= equity - fee - slippage."""
        leverage = self.spec.account.leverage
        free = self.state.cash
        for other, market in enumerate(self.state.markets):
            if other != symbol:
                worth = market.quantity * market.mark
                free += worth - abs(worth) / leverage
        held = self.state.markets[symbol].quantity
        free += held * reference - abs(held) * reference / leverage - fixed
        most = self.spec.account.max_position_notional or INF
        quantity = free / (reference / leverage + price * rate + abs(price - reference))
        return max(0.0, min(quantity, most / reference - abs(held)))

    # Costs.

    def slippage_of(self, symbol: int) -> spec_of.Slippage:
        return self.spec.markets[symbol].slippage or self.spec.costs.slippage

    def cap(self, symbol: int) -> float:
        return getattr(self.slippage_of(symbol), "participation_cap", INF)

    def slippage(self, symbol: int, side: int, quantity: float) -> float:
        """Half spread and impact, a fraction of the price."""
        half_spread, impact = self.unscaled(symbol, side, quantity)
        half_spread = min(half_spread * self.spec.costs.scale, MOST_SLIPPAGE)
        return half_spread + min(impact * self.spec.costs.scale, MOST_SLIPPAGE - half_spread)

    def unscaled(self, symbol: int, side: int, quantity: float) -> tuple[float, float]:
        market = self.state.markets[symbol]
        of_bar = quantity / market.volume if market.volume > quantity else 1.0
        of_day = quantity / market.day_volume if market.day_volume > quantity else 1.0
        sigma = market.sigma if market.sigma > 0 else 0.0
        match self.slippage_of(symbol):
            case spec_of.NoSlippage():
                return 0.0, 0.0
            case spec_of.OrderBook():
                return by_books(market.paid_by, side, quantity)
            case spec_of.FixedBps(bps=bps):
                return 0.0, bps * 1e-4
            case spec_of.VolumeWeighted() as model:
                impact = model.impact * of_bar * of_bar
            case spec_of.SquareRoot() as model:
                impact = model.y * sigma * math.sqrt(of_day)
            case spec_of.Almgren2005() as model:
                days = model.execution_days or self.width_ns / NS_PER_DAY
                permanent = model.gamma * sigma * of_day * model.turnover_days**0.25
                impact = permanent / 2 + model.eta * sigma * (of_day / days) ** 0.6
            case spec_of.AlmgrenChriss() as model:
                impact = liquidation(model, of_day, sigma, model.execution_days or self.width_ns / NS_PER_DAY)
            case spec_of.Kyle() as model:
                impact = model.y * sigma * of_day / 2
        return model.half_spread_bps * 1e-4, impact

    def lot(self, symbol: int) -> float:
        return self.spec.markets[symbol].lot_size

    # Orders.

    def send(self, order: Order) -> None:
        tick = self.spec.markets[order.symbol].tick_size
        if order.price > 0:
            order.price = on_tick(order.price, tick, upwards=order.side < 0)
        if order.stop > 0:
            order.stop = on_tick(order.stop, tick, upwards=order.side > 0)
        self.state.sent += 1
        order.number = self.state.sent
        self.state.markets[order.symbol].orders.append(order)

    def end(self, order: Order, word: str) -> None:
        order.is_done = True
        self.state.log.append(Ended(self.now_ns, order.symbol, word))

    def closing(self, symbol: int, reason: Reason, live_ns: int = 0) -> Order:
        side = -1 if self.state.markets[symbol].quantity > 0 else 1
        return Order(symbol, "market", side, reason, live_ns, closes=True, reduces=True)

    def protect(self, entry: Order, price: float, quantity: float) -> None:
        """Send an entry's exits: stop loss, take profit, trailing stop."""
        leave, side = entry.leave or Leave(), entry.side
        common = {"symbol": entry.symbol, "side": -side, "live_ns": self.now_ns, "quantity": quantity}
        common |= {"reduces": True, "parent": entry, "has_arrived": True}
        if leave.loss is not None and (stop := price - side * away_of(leave.loss, price)) > 0:
            self.send(Order(kind="stop", reason=Reason.STOP_LOSS, stop=stop, **common))
        if leave.target is not None and (target := price + side * away_of(leave.target, price)) > 0:
            self.send(Order(kind="limit", reason=Reason.TAKE_PROFIT, price=target, **common))
        if leave.follow is None:
            return
        trailing = Order(kind="trailing_stop", reason=Reason.TRAILING_STOP, trail=leave.follow, **common)
        if leave.follow_from is None:
            trailing.extreme = price
        else:
            trailing.activation = price + side * away_of(leave.follow_from, price)
            if trailing.activation <= 0:
                return
        self.send(trailing)

    def listed(self, order: ListedOrder) -> Order:
        closes = order.quantity is None and order.notional is None
        reduces = closes or order.reduce_only or order.type == "take_profit"
        return Order(
            symbol=order.symbol,
            kind="limit" if order.type == "take_profit" else order.type,
            side=1 if order.side == "buy" else -1,
            reason=_REDUCING.get(order.type, Reason.MANUAL) if reduces else Reason.ENTRY,
            live_ns=order.time_ns + self.latency_ns(self.spec.latency.order_ns),
            quantity=order.quantity,
            notional=order.notional or 0.0,
            price=order.price or 0.0,
            stop=order.stop_price or 0.0,
            trail=_plain(order.trail.distance, math.nan) if order.trail else None,
            activation=order.trail.activation.value if order.trail and order.trail.activation else None,
            force=order.time_in_force,
            expires_ns=order.expires_ns or INF,
            closes=closes,
            reduces=reduces,
            post_only=order.post_only,
            oco=order.oco,
            leave=_leave(order.exits, math.nan),
        )

    def latency_ns(self, latency_ns: int) -> int:
        return latency_ns if self.on_ticks else latency_ns // self.width_ns * self.width_ns

    # Decisions.

    def decide(self, symbol: int, bar: Bar) -> None:
        market, signals = self.state.markets[symbol], bar.signals
        latency = self.spec.latency
        live_ns = self.now_ns + self.latency_ns(latency.feed_ns + latency.order_ns)
        is_left = False
        if market.quantity != 0:
            market.held_bars += 1
            exits = Signal.EXIT_LONG if market.quantity > 0 else Signal.EXIT_SHORT
            timeout = self.spec.exits.timeout_bars
            is_due = timeout is not None and market.held_bars >= timeout
            if signals & exits or is_due:
                is_left = True
                if not any(order.closes for order in market.orders):
                    self.end_rests(symbol)
                    market.orders = [order for order in market.orders if not order.is_done]
                    reason = Reason.SIGNAL if signals & exits else Reason.TIMEOUT
                    self.send(self.closing(symbol, reason, live_ns))
        for order in list(market.orders):
            against = Signal.EXIT_LONG if order.side > 0 else Signal.EXIT_SHORT
            if order.reason is Reason.ENTRY and signals & against:
                market.orders.remove(order)
        self.enter(symbol, bar, live_ns, is_left=is_left)

    def enter(self, symbol: int, bar: Bar, live_ns: int, *, is_left: bool) -> None:
        market, account = self.state.markets[symbol], self.spec.account
        if not bar.signals & (Signal.ENTER_LONG | Signal.ENTER_SHORT):
            return
        if isinstance(self.spec.program, spec_of.Averaging):
            # The program buys in parts, whatever it holds.
            order = self.entry(symbol, 1, bar, live_ns)
            order.quantity, order.notional = self.size(symbol, bar)
            self.send(order)
            return
        if _waits(market) or (market.quantity != 0 and not is_left):
            return
        others = [each for each in self.state.markets if each is not market]
        taken = sum(each.quantity != 0 or _waits(each) for each in others)
        if market.quantity == 0 and account.max_positions is not None and taken >= account.max_positions:
            return
        side = 1 if bar.signals & Signal.ENTER_LONG else -1
        size = self.size(symbol, bar)
        order = self.entry(symbol, side, bar, live_ns)
        order.quantity, order.notional = size
        distances = [each[0] for each in order.leave if each is not None]
        if all(map(math.isfinite, [order.price, order.stop, *distances])) and any(size):
            self.send(order)

    def entry(self, symbol: int, side: int, bar: Bar, live_ns: int) -> Order:
        how, close = self.spec.entry_order, bar.close
        order = Order(symbol, how.type, side, Reason.ENTRY, live_ns, force=how.time_in_force, post_only=how.post_only)
        if how.good_for_bars is not None:
            order.expires_ns = live_ns + how.good_for_bars * self.width_ns
        offset = away_of(_plain(how.offset, bar.atr), close) if how.offset else 0.0
        if how.type == "limit":
            order.price = close - side * offset
        elif how.type in {"stop", "stop_limit"}:
            order.stop = close + side * offset
            if how.type == "stop_limit":
                further = away_of(_plain(how.limit_offset, bar.atr), close) if how.limit_offset else 0.0
                order.price = order.stop + side * further
        order.leave = _leave(self.spec.exits, bar.atr)
        return order

    def size(self, symbol: int, bar: Bar) -> tuple[float | None, float]:
        """Quantity, or None and a notional."""
        account, markets = self.spec.account, self.state.markets
        equity = self.state.cash
        for market in markets:
            equity += market.quantity * market.mark
        share = max(0.0, equity) / min(len(markets), account.max_positions or len(markets))
        most = account.max_position_notional or INF
        match self.spec.sizing:
            case spec_of.Fixed(quantity=quantity, notional=notional):
                return (quantity, 0.0) if quantity is not None else (None, min(notional, most))
            case spec_of.FixedFractional(fraction=fraction) if isinstance(self.spec.program, spec_of.Averaging):
                whole = account.initial_capital / min(len(markets), account.max_positions or len(markets))
                return None, min(whole * (fraction / self.spec.program.purchases), most)
            case spec_of.FixedFractional(fraction=fraction):
                return None, min(share * fraction, most)
            case spec_of.Kelly() as kelly:
                return None, min(share * self.kelly(kelly), most)
            case spec_of.VolatilityTarget(target=target, cap=cap):
                sigma = markets[symbol].sigma * math.sqrt(self.year_days)
                return None, min(share * min(target / sigma, cap), most) if sigma > 0 else 0.0
            case spec_of.AtrRisk(risk=risk, multiple=multiple):
                return (share * risk / (multiple * bar.atr), 0.0) if bar.atr > 0 else (None, 0.0)

    def kelly(self, sizing: spec_of.Kelly) -> float:
        wins = [gain for gain in self.state.gains if gain > 0]
        losses = [-gain for gain in self.state.gains if gain < 0]
        if len(wins) + len(losses) < sizing.least_trades:
            return sizing.start
        if not wins:
            return 0.0
        full = 1.0
        if losses:
            p = len(wins) / (len(wins) + len(losses))
            b = (one_by_one(wins) / len(wins)) / (one_by_one(losses) / len(losses))
            full = p - (1.0 - p) / b
        return max(0.0, min(full * sizing.fraction, sizing.cap))


_BARS, _LISTED, _TICK = range(3)
_REDUCING: Final = {
    "take_profit": Reason.TAKE_PROFIT,
    "stop": Reason.STOP_LOSS,
    "stop_limit": Reason.STOP_LOSS,
    "trailing_stop": Reason.TRAILING_STOP,
}


def _waits(market: Market) -> bool:
    """Whether an order waits that may open."""
    return any(not order.reduces for order in market.orders)


def _plain(distance: Distance, atr: float) -> Away:
    if distance.unit == "atr":
        return distance.value * atr, "price"
    return distance.value, distance.unit


def _leave(exits: Exits, atr: float) -> Leave:
    trailing = exits.trailing_stop
    found = (
        exits.stop_loss,
        exits.take_profit,
        trailing.distance if trailing else None,
        trailing.activation if trailing else None,
    )
    return Leave(*(None if distance is None else _plain(distance, atr) for distance in found))
