"""Working orders: sent, ended, swept; the exits that an entry sends; the prices at which the next of them wakes.

All kernels work on the records of `orders`; `symbol` is a row of `symbols` and of `orders`, `place` a column of the
latter. Orders of a symbol stay in the order in which they were sent.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from daemon.core.backtest import Reason
from daemon.engine.jit import constants, kernel
from daemon.engine.orders import NEVER_NS, Desk, Kind, Records, Status

_MARKET, _LIMIT, _STOP, _STOP_LIMIT, _TRAILING = constants(Kind)
_FILLED, _TOO_MANY = constants([Status.FILLED, Status.TOO_MANY])
_ENTRY_REASON, _TARGET_REASON, _LOSS_REASON, _TRAILING_REASON = constants(
    [Reason.ENTRY, Reason.TAKE_PROFIT, Reason.STOP_LOSS, Reason.TRAILING_STOP]
)
_LOSS, _TARGET, _FOLLOW = constants(range(3))

# In place of an entry: all of them.
(ALL_ENTRIES,) = constants([0])

_RESERVED: Final = 8

# A quotient that should be whole is off by rounding: of a large one by some units of its last place.
_WHOLE: Final = 1e-9
_LAST_PLACES: Final = 1e-15
# What sums of fills leave is off by more, and never by a lot's millionth on purpose.
_NEARLY_WHOLE: Final = 1e-6
# Less than this share of a quantity is the rounding of sums, not a rest.
DUST: Final = 1e-9


@kernel
def on_step(price: float, step: float, upwards: int) -> float:
    """Move a price to a multiple of the step: up where `upwards` is positive, else down; a step of 0 moves nothing."""
    if step <= 0.0:
        return price
    steps = price / step
    near = max(_WHOLE, _LAST_PLACES * abs(steps))
    whole = np.ceil(steps - near) if upwards > 0 else np.floor(steps + near)
    return times(whole, step)


@kernel
def times(whole: float, step: float) -> float:
    """Multiply a whole number by a step: by the inverse of 0.1 or 0.01, for 3 steps of 0.1 are 0.3 and nothing near."""
    inverse = np.rint(1.0 / step)
    if inverse > 1.0 and abs(inverse * step - 1.0) < _WHOLE:
        return whole / inverse  # type: ignore[no-any-return]
    return whole * step


@kernel
def lots(quantity: float, lot: float) -> float:
    """Cut a quantity to whole lots; a lot of 0 cuts nothing."""
    if lot <= 0.0 or not np.isfinite(quantity):
        return quantity
    steps = quantity / lot
    return times(np.floor(steps + max(_WHOLE, _LAST_PLACES * steps)), lot)


@kernel
def rest_of(quantity: float, filled: float, lot: float) -> float:
    """Return what a fill leaves of a quantity: whole lots where it is that but for the rounding of many fills' sums."""
    left = quantity - filled
    if lot <= 0.0:
        return left
    whole = np.rint(left / lot)
    return times(whole, lot) if abs(left / lot - whole) < _NEARLY_WHOLE else left


@kernel
def send(desk: Desk, order: Records) -> bool:
    """Append an order, given as a record of shape (1,); its id and its place are set. False: there was no room."""
    orders, symbols, account = desk.orders, desk.symbols, desk.account
    symbol = order[0].symbol
    place = symbols[symbol].orders
    account[0].next_id += 1
    order[0].id = account[0].next_id
    # The last places are for orders that close a position: that must always be possible.
    if place >= orders.shape[1] - (0 if order[0].closes else _RESERVED):
        if order[0].parent == 0:
            note(desk, order, _TOO_MANY)
        return False
    tick = symbols[symbol].tick
    if tick > 0.0:
        # A buyer's limit rounds down and its stop up: never worse for the market than asked, never sooner.
        if order[0].price > 0.0:
            order[0].price = on_step(order[0].price, tick, -order[0].side)
        if order[0].stop > 0.0:
            order[0].stop = on_step(order[0].stop, tick, order[0].side)
    orders[symbol, place] = order[0]
    symbols[symbol].orders = place + 1
    if order[0].reduces == 0:
        symbols[symbol].entries += 1
    return True


@kernel
def note(desk: Desk, order: Records, status: int) -> None:
    """Log that an order, a record of shape (1,), ended without a fill."""
    symbols, account, log = desk.symbols, desk.account, desk.log
    symbol = order[0].symbol
    row = account[0].log_rows
    if row >= log.size:
        account[0].lost_rows += 1
        return
    account[0].log_rows = row + 1
    log[row] = np.zeros(1, log.dtype)[0]
    entry = log[row]
    entry.status = status
    entry.symbol = symbol
    entry.order_id = order[0].id
    entry.position = symbols[symbol].position
    entry.time_ns = account[0].now_ns
    entry.sent_ns = order[0].sent_ns
    entry.side = order[0].side
    entry.reason = order[0].reason
    entry.kind = order[0].kind
    entry.remaining = order[0].quantity
    entry.cash = account[0].cash
    entry.position_quantity = symbols[symbol].quantity
    entry.entry_price = symbols[symbol].entry_price


@kernel
def end(desk: Desk, symbol: int, place: int, status: int) -> None:
    """End an order; a status other than FILLED is logged."""
    orders, symbols = desk.orders, desk.symbols
    if orders[symbol, place].is_done:
        return
    orders[symbol, place].is_done = 1
    if orders[symbol, place].reduces == 0:
        symbols[symbol].entries -= 1
    if status != _FILLED:
        note(desk, orders[symbol, place : place + 1], status)


@kernel
def sweep(orders: Records, symbols: Records, symbol: int) -> None:
    """Remove orders that are done; the others stay in the order of their ids."""
    kept = 0
    for place in range(symbols[symbol].orders):
        if not orders[symbol, place].is_done:
            if kept != place:
                orders[symbol, kept] = orders[symbol, place]
            kept += 1
    symbols[symbol].orders = kept


@kernel
def liquidation_price(symbols: Records, settings: Records, symbol: int) -> float:
    """Price at which an isolated position's margin is down to the maintenance margin; 0 or infinite for never.

    Long: entry x (1 - 1 / leverage) / (1 - maintenance); short: entry x (1 + 1 / leverage) / (1 + maintenance).
    """
    share = 1.0 / settings[0].leverage
    entry = symbols[symbol].entry_price
    if symbols[symbol].quantity > 0.0:
        return entry * (1.0 - share) / (1.0 - settings[0].maintenance)  # type: ignore[no-any-return]
    return entry * (1.0 + share) / (1.0 + settings[0].maintenance)  # type: ignore[no-any-return]


@kernel
def trailing_level(orders: Records, symbol: int, place: int) -> float:
    """Price at which a trailing stop that follows is triggered."""
    order = orders[symbol, place]
    distance = order.extreme * order.trail if order.trail_is_fraction else order.trail
    return order.extreme - distance if order.side < 0 else order.extreme + distance  # type: ignore[no-any-return]


@kernel
def rearm(  # noqa: C901, PLR0912 - a branch an order type
    desk: Desk, symbol: int
) -> None:
    """Find the prices between which, and the time before which, nothing can happen to a symbol's orders.

    low_trigger, high_trigger: strictly between the two no order fills, triggers or follows. wake_ns: an order goes live
    or expires. An order that fills at any price makes the low trigger infinite.
    """
    orders, symbols, settings = desk.orders, desk.symbols, desk.settings
    low, high, wake = 0.0, np.inf, NEVER_NS
    if symbols[symbol].quantity > 0.0:
        low = liquidation_price(symbols, settings, symbol)
    elif symbols[symbol].quantity < 0.0:
        high = liquidation_price(symbols, settings, symbol)
    for place in range(symbols[symbol].orders):
        order = orders[symbol, place]
        wake = min(wake, order.expires_ns)
        if order.has_arrived == 0:
            wake = min(wake, order.live_ns)
            continue
        if order.kind == _MARKET:
            # On ticks there is room again when the next bar has ended, not before.
            if not settings[0].on_ticks or symbols[symbol].room > 0.0:
                low = np.inf
        elif order.kind == _LIMIT:
            if order.side > 0:
                low = max(low, order.price)
            else:
                high = min(high, order.price)
        elif order.kind == _TRAILING:
            if order.extreme == 0.0:
                if order.activation == 0.0:
                    low = np.inf
                elif order.side < 0:
                    high = min(high, order.activation)
                else:
                    low = max(low, order.activation)
            elif order.side < 0:
                low = max(low, trailing_level(orders, symbol, place))
                high = min(high, order.extreme)
            else:
                high = min(high, trailing_level(orders, symbol, place))
                low = max(low, order.extreme)
        elif order.side < 0:
            low = max(low, order.stop)
        else:
            high = min(high, order.stop)
    symbols[symbol].low_trigger = low
    symbols[symbol].high_trigger = high
    symbols[symbol].wake_ns = wake


@kernel
def cancel_others(desk: Desk, symbol: int, place: int, oco: int) -> None:
    """End the other orders of an OCO number."""
    orders, symbols = desk.orders, desk.symbols
    for other in range(symbols[symbol].orders):
        if other != place and orders[symbol, other].oco == oco:
            end(desk, symbol, other, _FILLED)


@kernel
def take_from_siblings(desk: Desk, symbol: int, place: int, parent: int, quantity: float) -> None:
    """Take what one exit of an entry has closed from its others: they share one quantity."""
    orders, symbols = desk.orders, desk.symbols
    for other in range(symbols[symbol].orders):
        if other != place and orders[symbol, other].parent == parent and not orders[symbol, other].is_done:
            whole = orders[symbol, other].quantity
            left = whole - quantity
            orders[symbol, other].quantity = left
            if left <= DUST * whole:
                end(desk, symbol, other, _FILLED)


@kernel
def protect(desk: Desk, symbol: int, place: int, price: float, quantity: float) -> None:
    """Send an entry's exits, or add a further fill of the entry to them: their prices stay those of the first fill."""
    orders, symbols = desk.orders, desk.symbols
    entry = orders[symbol, place]
    parent = entry.id
    has_exits = False
    for other in range(symbols[symbol].orders):
        theirs = orders[symbol, other]
        if theirs.parent == parent and theirs.reduces and theirs.respawn == 0.0 and not theirs.is_done:
            orders[symbol, other].quantity += quantity
            has_exits = True
    if has_exits:
        return
    _send_exit(desk, entry, _LOSS, entry.loss, entry.loss_is_fraction, price, quantity)
    _send_exit(desk, entry, _TARGET, entry.target, entry.target_is_fraction, price, quantity)
    _send_exit(desk, entry, _FOLLOW, entry.follow, entry.follow_is_fraction, price, quantity)


@kernel
def _send_exit(
    desk: Desk, entry: Any, which: int, distance: float, is_fraction: int, price: float, quantity: float
) -> None:
    """Send one exit of an entry, a record of ORDER; a distance of 0 is none, nor is one whose price would be below 0.

    It lies at the venue at once: the venue sends it itself.
    """
    orders, account = desk.orders, desk.account
    away = distance * price if is_fraction else distance
    side = entry.side
    level = price - side * away if which == _LOSS else price + side * away
    if which == _FOLLOW:
        gain = entry.follow_from * price if entry.follow_from_is_fraction else entry.follow_from
        level = price + side * gain
    if distance <= 0.0 or level <= 0.0:
        return
    order = np.zeros(1, orders.dtype)
    order[0].symbol = entry.symbol
    order[0].side = -side
    order[0].quantity = quantity
    order[0].reduces = 1
    order[0].parent = entry.id
    order[0].sent_ns = account[0].now_ns
    order[0].live_ns = account[0].now_ns
    order[0].expires_ns = NEVER_NS
    order[0].has_arrived = 1
    if which == _LOSS:
        order[0].kind = _STOP
        order[0].reason = _LOSS_REASON
        order[0].stop = level
    elif which == _TARGET:
        order[0].kind = _LIMIT
        order[0].reason = _TARGET_REASON
        order[0].price = level
    else:
        order[0].kind = _TRAILING
        order[0].reason = _TRAILING_REASON
        order[0].trail = distance
        order[0].trail_is_fraction = is_fraction
        if entry.follow_from > 0.0:
            order[0].activation = level
        else:
            order[0].extreme = price
    send(desk, order)


@kernel
def send_opposite(desk: Desk, symbol: int, place: int) -> None:
    """Answer a filled order of a grid by its opposite, a step away."""
    orders, account = desk.orders, desk.account
    order = np.zeros(1, orders.dtype)
    order[0] = orders[symbol, place]
    # What a grid buys it sells a step higher, and no more than that: answers reduce.
    order[0].side = -orders[symbol, place].side
    order[0].price = orders[symbol, place].price + orders[symbol, place].side * orders[symbol, place].respawn
    order[0].quantity = orders[symbol, place].filled
    order[0].sent_ns = account[0].now_ns
    order[0].live_ns = account[0].now_ns
    order[0].has_arrived = 1
    order[0].is_done = 0
    order[0].reduces = 1 - orders[symbol, place].reduces
    order[0].reason = _TARGET_REASON if order[0].reduces else _ENTRY_REASON
    order[0].filled = 0.0
    # Exits of the filled order share their quantity with its opposite.
    order[0].parent = orders[symbol, place].id
    send(desk, order)


@kernel
def end_rests(desk: Desk, symbol: int, parent: int) -> None:
    """End what is left of entries that have begun to fill: of one where `parent` is its id, of all where it is 0.

    Who leaves a position does not go on entering it.
    """
    orders, symbols = desk.orders, desk.symbols
    for place in range(symbols[symbol].orders):
        order = orders[symbol, place]
        is_rest = order.reduces == 0 and order.filled > 0.0 and not order.is_done
        if is_rest and parent in (0, order.id):
            end(desk, symbol, place, _FILLED)
