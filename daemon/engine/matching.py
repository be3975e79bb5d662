"""How orders meet the market: at an open, along a bar's path, at a trade, at a quote.

A bar does not tell whether its low or its high came first, so it is walked both ways, on a copy, and the worse (or, for
an optimistic run, the better) is kept. `docs/backtest.md` states the contract; `tests/naive/simulate.py` repeats it.
"""

from __future__ import annotations

import numpy as np

from daemon.core.backtest import Reason
from daemon.engine.fills import fill, fits, lift_caps, room_of, use_up
from daemon.engine.jit import constants, kernel
from daemon.engine.orders import NEVER_NS, Desk, Force, Kind, Records, Reference, Status
from daemon.engine.working import ALL_ENTRIES, end, end_rests, liquidation_price, send, sweep, trailing_level

_MARKET, _LIMIT, _STOP, _STOP_LIMIT, _TRAILING = constants(Kind)
_GTC, _IOC, _FOK = constants(Force)
_OPEN, _LEVEL, _QUOTE = constants([Reference.OPEN, Reference.LEVEL, Reference.QUOTE])
_WOULD_TAKE, _NOT_FILLED, _EXPIRED = constants([Status.WOULD_TAKE, Status.NOT_FILLED, Status.EXPIRED])
(_LIQUIDATION,) = constants([Reason.LIQUIDATION])
_NOTHING = -1
(_FIRST,) = constants([0])


@kernel
def liquidate(desk: Desk, symbol: int, reference: float, reference_kind: int) -> None:
    """Close a whole position at the market, for its margin is gone; rests of its entries and its exits end with it."""
    orders, symbols, account = desk.orders, desk.symbols, desk.account
    end_rests(desk, symbol, ALL_ENTRIES)
    order = np.zeros(1, orders.dtype)
    order[0].symbol = symbol
    order[0].side = -1 if symbols[symbol].quantity > 0.0 else 1
    order[0].reason = _LIQUIDATION
    order[0].reduces = 1
    order[0].closes = 1
    order[0].has_arrived = 1
    order[0].sent_ns = account[0].now_ns
    order[0].expires_ns = NEVER_NS
    room, ask_room, bid_room = symbols[symbol].room, symbols[symbol].ask_room, symbols[symbol].bid_room
    # A venue liquidates whatever the volume is.
    lift_caps(symbols, symbol)
    if send(desk, order):
        place = symbols[symbol].orders - 1
        fill(desk, symbol, place, reference, reference_kind, np.inf, bool(0))
    symbols[symbol].room, symbols[symbol].ask_room, symbols[symbol].bid_room = room, ask_room, bid_room


@kernel
def expire(desk: Desk, symbol: int, now_ns: int) -> None:
    """End orders whose time is over."""
    orders, symbols = desk.orders, desk.symbols
    for place in range(symbols[symbol].orders):
        if orders[symbol, place].expires_ns <= now_ns:
            end(desk, symbol, place, _EXPIRED)


@kernel
def _is_through(settings: Records, side: int, limit: float, price: float) -> bool:
    """Tell whether a price fills a resting limit order."""
    beyond = (limit - price) * side
    return beyond > 0.0 if settings[0].needs_through else beyond >= 0.0


@kernel
def see_price(desk: Desk, symbol: int, price: float, now_ns: int, reference_kind: int) -> None:
    """End orders whose time is over, and let a position see a price, which may liquidate it."""
    symbols, account = desk.symbols, desk.account
    account[0].now_ns = now_ns
    expire(desk, symbol, now_ns)
    held = symbols[symbol].quantity
    if held != 0.0:
        symbols[symbol].best = max(symbols[symbol].best, price)
        symbols[symbol].worst = min(symbols[symbol].worst, price)
        level = liquidation_price(symbols, desk.settings, symbol)
        if (held > 0.0 and price <= level) or (held < 0.0 and price >= level):
            liquidate(desk, symbol, price, reference_kind)


@kernel
def at_price(
    desk: Desk,
    symbol: int,
    price: float,
    now_ns: int,
    reference_kind: int,
    size: float,
) -> None:
    """Let a symbol's orders meet one price: an open, or a trade. Orders of that very moment come in the order sent.

    size: base units the price offers to resting orders. Orders arrive whose time has come.
    """
    orders, symbols, settings = desk.orders, desk.symbols, desk.settings
    see_price(desk, symbol, price, now_ns, reference_kind)
    offered = size
    place = _FIRST
    # Orders that fills send are met in the same round.
    while place < symbols[symbol].orders:
        order = orders[symbol, place]
        if order.is_done or order.live_ns > now_ns:
            place += 1
            continue
        arrives = order.has_arrived == 0
        orders[symbol, place].has_arrived = 1
        taking, kind = price, reference_kind
        if reference_kind != _OPEN and symbols[symbol].ask > 0.0:
            # The worse of the two: a quote may be older than the trade.
            quoted = symbols[symbol].ask if order.side > 0 else symbols[symbol].bid
            if (quoted - price) * order.side >= 0.0:
                taking, kind = quoted, _QUOTE
        if order.kind not in (_MARKET, _LIMIT) and stop_or_trail(desk, symbol, place, price):
            arrives = True
        if order.kind == _MARKET:
            _take(desk, symbol, place, taking, kind)
        elif order.kind == _LIMIT:
            if arrives:
                _arrive(desk, symbol, place, taking, kind)
            elif _is_through(settings, order.side, order.price, price):
                offered -= fill(desk, symbol, place, order.price, _LEVEL, offered, bool(1))
        place += 1
    sweep(orders, symbols, symbol)


@kernel
def stop_or_trail(desk: Desk, symbol: int, place: int, price: float) -> bool:
    """Let a stop or trailing stop see a price; tells whether that triggered it."""
    orders = desk.orders
    order = orders[symbol, place]
    if order.kind == _TRAILING:
        _trail(orders, symbol, place, price)
        reached = order.extreme > 0.0 and (price - trailing_level(orders, symbol, place)) * order.side >= 0.0
    else:
        reached = (price - order.stop) * order.side >= 0.0
    if reached:
        _trigger(desk, symbol, place)
    return reached  # type: ignore[no-any-return]


@kernel
def at_quote(desk: Desk, symbol: int, now_ns: int) -> None:
    """Let orders that take meet a quote: market orders, and limits that arrive. Resting orders wait for trades."""
    orders, symbols, account = desk.orders, desk.symbols, desk.account
    account[0].now_ns = now_ns
    expire(desk, symbol, now_ns)
    place = _FIRST
    while place < symbols[symbol].orders:
        order = orders[symbol, place]
        if not order.is_done and order.live_ns <= now_ns:
            taking = symbols[symbol].ask if order.side > 0 else symbols[symbol].bid
            arrives = order.has_arrived == 0
            orders[symbol, place].has_arrived = 1
            if order.kind == _MARKET:
                _take(desk, symbol, place, taking, _QUOTE)
            elif order.kind == _LIMIT and arrives:
                _arrive(desk, symbol, place, taking, _QUOTE)
        place += 1
    sweep(orders, symbols, symbol)


@kernel
def _arrive(desk: Desk, symbol: int, place: int, price: float, reference_kind: int) -> None:
    """Let a limit order arrive: what the market offers within its limit is taken, the rest rests or is cancelled."""
    orders = desk.orders
    order = orders[symbol, place]
    if (order.price - price) * order.side >= 0.0:
        if order.post_only:
            end(desk, symbol, place, _WOULD_TAKE)
            return
        # What the volume left over takes again at the next price: it would trade, so it cannot rest.
        orders[symbol, place].has_arrived = 0
        _take(desk, symbol, place, price, reference_kind)
    elif order.force != _GTC:
        end(desk, symbol, place, _NOT_FILLED)


@kernel
def _take(desk: Desk, symbol: int, place: int, price: float, reference_kind: int) -> None:
    """Let an order take at a price what volume and money allow; FOK takes all or nothing, IOC does not wait."""
    orders = desk.orders
    order = orders[symbol, place]
    if order.force != _FOK or fits(desk, symbol, place, price):
        fill(desk, symbol, place, price, reference_kind, np.inf, bool(0))
    if order.force != _GTC and not order.is_done:
        end(desk, symbol, place, _NOT_FILLED)


@kernel
def _trigger(desk: Desk, symbol: int, place: int) -> None:
    """Turn a stop into the order that it stands for; what is left of the entry that it protects ends."""
    orders = desk.orders
    order = orders[symbol, place]
    orders[symbol, place].kind = _LIMIT if order.kind == _STOP_LIMIT else _MARKET
    if order.parent > 0:
        end_rests(desk, symbol, order.parent)


@kernel
def _trail(orders: Records, symbol: int, place: int, price: float) -> None:
    """Let a trailing stop see a price: it begins to follow, or follows."""
    order = orders[symbol, place]
    if order.extreme == 0.0:
        if order.activation == 0.0 or (order.activation - price) * -order.side <= 0.0:
            orders[symbol, place].extreme = price
    elif (price - order.extreme) * -order.side > 0.0:
        orders[symbol, place].extreme = price


@kernel
def walk_bar(desk: Desk, symbol: int, opened: float, high: float, low: float, close: float, spare: Records) -> None:
    """Walk a bar after its open both ways and keep the worse, or the better for an optimistic run.

    spare: (>= orders of a symbol,) ORDER, overwritten. Ways are judged by cash and position at the close; where they
    are equal the low comes first in a bar that rises or ends where it began, the high in one that falls.
    """
    orders, symbols, account, settings = desk.orders, desk.symbols, desk.account, desk.settings
    first = close >= opened
    account[0].tries += 1
    count = symbols[symbol].orders
    for place in range(count):
        spare[place] = orders[symbol, place]
    kept_symbol, kept_account = symbols[symbol : symbol + 1].copy(), account.copy()
    _walk(desk, symbol, opened, high, low, close, first)
    usual = account[0].cash + symbols[symbol].quantity * close
    _restore(desk, symbol, count, spare, kept_symbol, kept_account)
    _walk(desk, symbol, opened, high, low, close, not first)
    other = account[0].cash + symbols[symbol].quantity * close
    keeps = other > usual if settings[0].is_optimistic else other < usual
    if not keeps:
        _restore(desk, symbol, count, spare, kept_symbol, kept_account)
        _walk(desk, symbol, opened, high, low, close, first)


@kernel
def _restore(desk: Desk, symbol: int, count: int, spare: Records, kept_symbol: Records, kept_account: Records) -> None:
    orders, symbols, account = desk.orders, desk.symbols, desk.account
    for place in range(count):
        orders[symbol, place] = spare[place]
    symbols[symbol] = kept_symbol[0]
    account[0] = kept_account[0]


@kernel
def _walk(
    desk: Desk,
    symbol: int,
    opened: float,
    high: float,
    low: float,
    close: float,
    low_first: bool,  # noqa: FBT001
) -> None:
    if low_first:
        _leg(desk, symbol, opened, low)
        _leg(desk, symbol, low, high)
        _leg(desk, symbol, high, close)
    else:
        _leg(desk, symbol, opened, high)
        _leg(desk, symbol, high, low)
        _leg(desk, symbol, low, close)


@kernel
def _leg(desk: Desk, symbol: int, start: float, stop: float) -> None:
    """Move a price from start to stop: orders are met in the order in which it reaches them."""
    orders, symbols, account = desk.orders, desk.symbols, desk.account
    way = 1 if stop > start else -1
    at = start
    while True:
        place, level = _next_met(desk, symbol, at, stop, way)
        if place == _NOTHING:
            break
        at = level
        if symbols[symbol].quantity != 0.0:
            symbols[symbol].best = max(symbols[symbol].best, at)
            symbols[symbol].worst = min(symbols[symbol].worst, at)
        # Trailing stops on the other side have followed so far.
        _follow(orders, symbols, symbol, at, account[0].now_ns)
        if place == symbols[symbol].orders:
            liquidate(desk, symbol, at, _LEVEL)
            if symbols[symbol].quantity != 0.0:
                break
        elif orders[symbol, place].kind == _LIMIT:
            done = fill(desk, symbol, place, at, _LEVEL, np.inf, bool(1))
            if done == 0.0 and not orders[symbol, place].is_done:
                # Less than a lot is left of the bar's volume: no further limit order of its side can fill.
                use_up(desk, symbol, orders[symbol, place].side)
        elif orders[symbol, place].kind == _STOP_LIMIT:
            _trigger(desk, symbol, place)
            _arrive(desk, symbol, place, at, _LEVEL)
        else:
            _trigger(desk, symbol, place)
            _take(desk, symbol, place, at, _LEVEL)
    if symbols[symbol].quantity != 0.0:
        symbols[symbol].best = max(symbols[symbol].best, stop)
        symbols[symbol].worst = min(symbols[symbol].worst, stop)
    _follow(orders, symbols, symbol, stop, account[0].now_ns)
    sweep(orders, symbols, symbol)


@kernel
def _follow(orders: Records, symbols: Records, symbol: int, price: float, now_ns: int) -> None:
    for place in range(symbols[symbol].orders):
        order = orders[symbol, place]
        if order.kind == _TRAILING and not order.is_done and order.live_ns <= now_ns:
            _trail(orders, symbol, place, price)


@kernel
def _next_met(  # noqa: C901, PLR0912 - a branch an order type
    desk: Desk,
    symbol: int,
    at: float,
    stop: float,
    way: int,
) -> tuple[int, float]:
    """Find which order a price that moves from `at` to `stop` meets first, and where; of several the first sent.

    Returns its place, the number of orders for a liquidation, or -1. A level that lies behind the price already, as
    that of an exit that was sent just now may, is met at once.
    """
    orders, symbols, settings, account = desk.orders, desk.symbols, desk.settings, desk.account
    now_ns = account[0].now_ns
    found = _NOTHING
    nearest, met = np.inf, at
    held = symbols[symbol].quantity
    if held != 0.0:
        # A price that falls takes longs, one that rises shorts.
        level = liquidation_price(symbols, settings, symbol)
        passed = (level - at) * held >= 0.0
        if passed or (held * way < 0.0 and (stop - level) * way >= 0.0):
            found = symbols[symbol].orders
            nearest = 0.0 if passed else (level - at) * way
            met = at if passed else level
    for place in range(symbols[symbol].orders):
        order = orders[symbol, place]
        if order.is_done or order.live_ns > now_ns or order.kind == _MARKET:
            continue
        passed = False
        if order.kind == _LIMIT:
            # A falling price meets those who buy.
            if order.side == way or room_of(symbols[symbol], order.side) <= 0.0:
                continue
            level = order.price
            if not _is_through(settings, order.side, level, stop):
                continue
        else:
            if order.kind == _TRAILING:
                if order.extreme == 0.0:
                    continue
                level = trailing_level(orders, symbol, place)
            else:
                level = order.stop
            # One that was sent just now may lie behind the price: it is met whichever way the price goes.
            passed = (at - level) * order.side >= 0.0
            if not passed and (order.side != way or (stop - level) * way < 0.0):
                continue
        distance = 0.0 if passed else max((level - at) * way, 0.0)
        if distance < nearest:
            nearest = distance
            met = level if distance > 0.0 else at
            found = place
    return found, met
