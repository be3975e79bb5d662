"""Fills: what one costs, what it does to the position, and which orders it sends or ends.

How orders meet the market is `matching`'s; here is what follows once a price is known. `docs/backtest.md` states the
rules. All kernels work on the records of `orders`; `symbol` is a row of `symbols` and of `orders`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from daemon.core.backtest import Reason
from daemon.engine.costs import MAX_SLIPPAGE, impact
from daemon.engine.jit import kernel
from daemon.engine.orders import NEVER_NS, Kind, Records, Status

_MARKET, _LIMIT, _STOP, _STOP_LIMIT, _TRAILING = (int(kind) for kind in Kind)
_FILLED, _TOO_SMALL, _NO_MONEY = int(Status.FILLED), int(Status.TOO_SMALL), int(Status.NO_MONEY)
_TOO_MANY = int(Status.TOO_MANY)
_ENTRY, _LIQUIDATION = int(Reason.ENTRY), int(Reason.LIQUIDATION)
_TARGET_REASON, _LOSS_REASON, _TRAILING_REASON = (
    int(Reason.TAKE_PROFIT),
    int(Reason.STOP_LOSS),
    int(Reason.TRAILING_STOP),
)

# A quotient that should be whole is off by rounding.
_WHOLE: Final = 1e-9
# Less than this share of a position is the rounding of sums, not a rest.
_DUST: Final = 1e-9


@kernel
def equity_of(symbols: Records, account: Records) -> float:
    """Cash plus what all positions are worth at their marks."""
    worth = account[0].cash
    for symbol in range(symbols.size):
        worth += symbols[symbol].quantity * symbols[symbol].mark
    return worth  # type: ignore[no-any-return]


@kernel
def on_step(price: float, step: float, upwards: int) -> float:
    """Move a price to a multiple of the step: up where `upwards` is positive, else down; a step of 0 moves nothing."""
    if step <= 0.0:
        return price
    steps = price / step
    whole = np.ceil(steps - _WHOLE) if upwards > 0 else np.floor(steps + _WHOLE)
    return whole * step  # type: ignore[no-any-return]


@kernel
def lots(quantity: float, lot: float) -> float:
    """Cut a quantity to whole lots; a lot of 0 cuts nothing."""
    if lot <= 0.0 or not np.isfinite(quantity):
        return quantity
    return np.floor(quantity / lot + _WHOLE) * lot  # type: ignore[no-any-return]


@kernel
def send(orders: Records, symbols: Records, account: Records, log: Records, order: Records) -> bool:
    """Append an order, given as a record of shape (1,); its id and its place are set. False: there was no room."""
    symbol = order[0].symbol
    place = symbols[symbol].orders
    account[0].next_id += 1
    order[0].id = account[0].next_id
    if place >= orders.shape[1]:
        note(symbols, account, log, order, _TOO_MANY)
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
def note(symbols: Records, account: Records, log: Records, order: Records, status: int) -> None:
    """Log that an order, a record of shape (1,), ended without a fill."""
    symbol = order[0].symbol
    row = account[0].log_rows
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
def end(orders: Records, symbols: Records, account: Records, log: Records, symbol: int, place: int, status: int) -> None:
    """End an order; a status other than FILLED is logged."""
    if orders[symbol, place].is_done:
        return
    orders[symbol, place].is_done = 1
    if orders[symbol, place].reduces == 0:
        symbols[symbol].entries -= 1
    if status != _FILLED:
        note(symbols, account, log, orders[symbol, place : place + 1], status)


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
def rearm(orders: Records, symbols: Records, settings: Records, symbol: int) -> None:
    """Find the prices between which, and the time before which, nothing can happen to a symbol's orders.

    low_trigger, high_trigger: strictly between the two no order fills, triggers or follows. wake_ns: an order goes live
    or expires. An order that fills at any price makes the low trigger infinite.
    """
    low, high, wake = 0.0, np.inf, NEVER_NS
    if symbols[symbol].quantity > 0.0:
        low = liquidation_price(symbols, settings, symbol)
    elif symbols[symbol].quantity < 0.0:
        high = liquidation_price(symbols, settings, symbol)
    for place in range(symbols[symbol].orders):
        order = orders[symbol, place]
        if order.has_arrived == 0:
            wake = min(wake, order.live_ns)
            continue
        wake = min(wake, order.expires_ns)
        if order.kind == _MARKET:
            low = np.inf
        elif order.kind == _LIMIT:
            if order.side > 0:
                low = max(low, order.price)
            else:
                high = min(high, order.price)
        elif order.kind == _TRAILING:
            if order.extreme == 0.0:
                if order.side < 0:
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
def fill(
    orders: Records,
    symbols: Records,
    account: Records,
    settings: Records,
    costs: Records,
    log: Records,
    symbol: int,
    place: int,
    reference: float,
    reference_kind: int,
    most: float,
    is_maker: bool,  # noqa: FBT001 - kernels take scalars by place
) -> float:
    """Fill an order at a reference price as far as quantity, room, lots and money allow.

    most: base units that this price offers, beside the symbol's room. Returns the base units filled. An order that has
    nothing left, or can never have more, is done afterwards. A fill that would turn a position closes it first; the
    rest opens the other side as a fill of its own.
    """
    filled = 0.0
    # Twice at most: what closes, then what opens.
    for _ in range(2):
        step = _fill_once(
            orders,
            symbols,
            account,
            settings,
            costs,
            log,
            symbol,
            place,
            reference,
            reference_kind,
            most - filled,
            is_maker,
        )
        filled += step
        if step == 0.0 or orders[symbol, place].is_done or orders[symbol, place].reduces:
            break
        if symbols[symbol].quantity != 0.0:
            break
    return filled


@kernel
def _fill_once(  # noqa: PLR0915 - one story: how much, at what price, and what it leaves
    orders: Records,
    symbols: Records,
    account: Records,
    settings: Records,
    costs: Records,
    log: Records,
    symbol: int,
    place: int,
    reference: float,
    reference_kind: int,
    most: float,
    is_maker: bool,  # noqa: FBT001
) -> float:
    order = orders[symbol, place]
    market = symbols[symbol]
    held = market.quantity
    side = order.side
    closing = held * side < 0.0
    if order.reduces and not closing:
        end(orders, symbols, account, log, symbol, place, _FILLED)
        return 0.0
    rate = (costs[0].maker_rate if is_maker else costs[0].taker_rate) * costs[0].scale
    if order.reason == _LIQUIDATION:
        rate += settings[0].liquidation_rate
    fixed = costs[0].fixed_fee * costs[0].scale

    # How much is wanted.
    if order.closes:
        wanted = abs(held)
    elif order.quantity > 0.0:
        wanted = order.quantity
    else:
        wanted = _quantity_of(order.notional, reference, rate, fixed, side, is_maker, market, costs)
        wanted = lots(wanted, market.lot)
        orders[symbol, place].quantity = wanted
        if wanted <= 0.0:
            end(orders, symbols, account, log, symbol, place, _TOO_SMALL)
            return 0.0
    quantity = wanted
    if closing:
        quantity = min(quantity, abs(held))
    quantity = min(quantity, min(market.room, most))
    if closing and abs(held) - quantity <= _DUST * abs(held):
        quantity = abs(held)
    elif not (closing and order.closes and quantity == abs(held)):
        quantity = lots(quantity, market.lot)
    if quantity <= 0.0:
        if lots(wanted, market.lot) <= 0.0:
            end(orders, symbols, account, log, symbol, place, _TOO_SMALL)
        return 0.0

    # At what price.
    spread, push = 0.0, 0.0
    price = reference
    if not is_maker:
        spread = min(costs[0].half_spread * costs[0].scale, MAX_SLIPPAGE)
        push = impact(costs, quantity, market.volume, market.sigma, market.day_volume) * costs[0].scale
        push = min(push, MAX_SLIPPAGE - spread)
        price = _taken(order.kind, order.price, side, reference, spread + push, market.tick)
    if not closing:
        allowed = lots(affordable(symbols, account, settings, symbol, reference, price, rate, fixed), market.lot)
        if allowed < quantity:
            quantity = allowed
            if not is_maker and quantity > 0.0:
                push = impact(costs, quantity, market.volume, market.sigma, market.day_volume) * costs[0].scale
                push = min(push, MAX_SLIPPAGE - spread)
                price = _taken(order.kind, order.price, side, reference, spread + push, market.tick)
        if not quantity > 0.0:
            end(orders, symbols, account, log, symbol, place, _NO_MONEY)
            return 0.0
        if quantity * reference < market.min_notional and order.filled == 0.0:
            end(orders, symbols, account, log, symbol, place, _TOO_SMALL)
            return 0.0

    # What it does.
    fee = quantity * price * rate + fixed
    account[0].cash -= side * quantity * price + fee
    account[0].fees += fee
    before = market.entry_price
    if held == 0.0:
        account[0].positions += 1
        account[0].open_positions += 1
        symbols[symbol].position = account[0].positions
        symbols[symbol].best = reference
        symbols[symbol].worst = reference
        symbols[symbol].held_bars = 0
        symbols[symbol].realised = 0.0
        symbols[symbol].staked = 0.0
    symbols[symbol].best = max(symbols[symbol].best, reference)
    symbols[symbol].worst = min(symbols[symbol].worst, reference)
    after = held + side * quantity
    if closing:
        symbols[symbol].realised += (price - before) * quantity * -side - fee
        if quantity == abs(held):
            after = 0.0
    else:
        symbols[symbol].realised -= fee
        symbols[symbol].staked += quantity * price
        symbols[symbol].entry_price = (before * abs(held) + price * quantity) / (abs(held) + quantity)
    symbols[symbol].quantity = after
    symbols[symbol].room -= quantity

    # What is left of the order.
    left = 0.0
    if order.closes:
        left = abs(after)
    else:
        left = order.quantity - quantity
        if left <= _DUST * wanted:
            left = 0.0
        orders[symbol, place].quantity = left
    orders[symbol, place].filled += quantity
    row = account[0].log_rows
    account[0].log_rows = row + 1
    entry = log[row]
    entry.status = _FILLED
    entry.symbol = symbol
    entry.order_id = order.id
    entry.position = symbols[symbol].position
    entry.time_ns = account[0].now_ns
    entry.sent_ns = order.sent_ns
    entry.side = side
    entry.reason = order.reason
    entry.kind = order.kind
    entry.is_maker = is_maker
    entry.reference_kind = reference_kind
    entry.quantity = quantity
    entry.remaining = left
    entry.reference = reference
    entry.price = price
    paid = (price - reference) * side * quantity
    whole = spread + push
    entry.spread = paid * spread / whole if whole > 0.0 else 0.0
    entry.impact = paid - entry.spread
    entry.fee = fee
    entry.fee_rate = rate
    entry.fixed_fee = fixed
    entry.participation = quantity / market.volume if market.volume > 0.0 else np.nan
    entry.volume = market.volume
    entry.sigma = market.sigma
    entry.day_volume = market.day_volume
    entry.cash = account[0].cash
    entry.position_quantity = after
    entry.entry_price = before
    entry.best = symbols[symbol].best
    entry.worst = symbols[symbol].worst
    entry.funding = market.funding

    parent, oco, is_entry = order.parent, order.oco, not closing
    if left == 0.0:
        end(orders, symbols, account, log, symbol, place, _FILLED)
        if order.respawn > 0.0:
            _send_opposite(orders, symbols, account, log, symbol, place)
    if oco > 0:
        _cancel_others(orders, symbols, account, log, symbol, place, oco)
    if parent > 0:
        _take_from_siblings(orders, symbols, account, log, symbol, place, parent, quantity)
    if is_entry:
        _protect(orders, symbols, account, log, symbol, place, price, quantity)
    if after == 0.0 and held != 0.0:
        _close_position(orders, symbols, account, log, symbol)
    return quantity  # type: ignore[no-any-return]


@kernel
def _quantity_of(
    notional: float,
    reference: float,
    rate: float,
    fixed: float,
    side: int,
    is_maker: bool,  # noqa: FBT001
    market: Records,
    costs: Records,
) -> float:
    """Base units that a notional buys or sells, its own slippage and fee included."""
    price = reference
    if not is_maker:
        whole = costs[0].half_spread
        whole += impact(costs, notional / reference, market.volume, market.sigma, market.day_volume)
        price = reference * (1.0 + side * min(whole * costs[0].scale, MAX_SLIPPAGE))
    return max(0.0, notional - fixed) / (max(price, reference) * (1.0 + rate))


@kernel
def _taken(kind: int, limit: float, side: int, reference: float, slippage: float, tick: float) -> float:
    """Price of a fill that takes: the reference moved against the order, to the tick beyond, never past its limit."""
    price = on_step(reference * (1.0 + side * slippage), tick, side)
    if price <= 0.0:
        price = reference
    if kind == _LIMIT:
        price = min(price, limit) if side > 0 else max(price, limit)
    return price


@kernel
def affordable(
    symbols: Records,
    account: Records,
    settings: Records,
    symbol: int,
    reference: float,
    price: float,
    rate: float,
    fixed: float,
) -> float:
    """Base units by which a position may grow: margin, fee and slippage must be there, and the position's limit.

    Margin is worth / leverage of every position, at the marks, this one's at the reference price.
    """
    leverage = settings[0].leverage
    free = account[0].cash
    for other in range(symbols.size):
        if other != symbol:
            worth = symbols[other].quantity * symbols[other].mark
            free += worth - abs(worth) / leverage
    held = symbols[symbol].quantity
    free += held * reference - abs(held) * reference / leverage - fixed
    quantity = free / (reference / leverage + price * rate + abs(price - reference))
    room = settings[0].max_notional / reference - abs(held)
    return max(0.0, min(quantity, room))


@kernel
def _cancel_others(
    orders: Records, symbols: Records, account: Records, log: Records, symbol: int, place: int, oco: int
) -> None:
    for other in range(symbols[symbol].orders):
        if other != place and orders[symbol, other].oco == oco:
            end(orders, symbols, account, log, symbol, other, _FILLED)


@kernel
def _take_from_siblings(
    orders: Records,
    symbols: Records,
    account: Records,
    log: Records,
    symbol: int,
    place: int,
    parent: int,
    quantity: float,
) -> None:
    """Exits of one entry share its quantity: what one has closed the others no longer close."""
    for other in range(symbols[symbol].orders):
        if other != place and orders[symbol, other].parent == parent and not orders[symbol, other].is_done:
            whole = orders[symbol, other].quantity
            left = whole - quantity
            orders[symbol, other].quantity = left
            if left <= _DUST * whole:
                end(orders, symbols, account, log, symbol, other, _FILLED)


@kernel
def _protect(
    orders: Records,
    symbols: Records,
    account: Records,
    log: Records,
    symbol: int,
    place: int,
    price: float,
    quantity: float,
) -> None:
    """Send an entry's exits, or add a further fill of the entry to them: their prices stay those of the first fill."""
    entry = orders[symbol, place]
    parent = entry.id
    has_exits = False
    for other in range(symbols[symbol].orders):
        if orders[symbol, other].parent == parent and not orders[symbol, other].is_done:
            orders[symbol, other].quantity += quantity
            has_exits = True
    if has_exits:
        return
    side = entry.side
    order = np.zeros(1, orders.dtype)
    for which in range(3):
        distance = (entry.loss, entry.target, entry.follow)[which]
        if distance <= 0.0:
            continue
        is_fraction = (entry.loss_is_fraction, entry.target_is_fraction, entry.follow_is_fraction)[which]
        away = distance * price if is_fraction else distance
        order[0] = np.zeros(1, orders.dtype)[0]
        order[0].symbol = symbol
        order[0].side = -side
        order[0].quantity = quantity
        order[0].reduces = 1
        order[0].parent = parent
        order[0].sent_ns = account[0].now_ns
        order[0].live_ns = account[0].now_ns
        order[0].expires_ns = NEVER_NS
        if which == 0:
            order[0].kind = _STOP
            order[0].reason = _LOSS_REASON
            order[0].stop = price - side * away
            if order[0].stop <= 0.0:
                continue
        elif which == 1:
            order[0].kind = _LIMIT
            order[0].reason = _TARGET_REASON
            order[0].price = price + side * away
            if order[0].price <= 0.0:
                continue
        else:
            order[0].kind = _TRAILING
            order[0].reason = _TRAILING_REASON
            order[0].trail = distance
            order[0].trail_is_fraction = is_fraction
            if entry.follow_from > 0.0:
                gain = entry.follow_from * price if entry.follow_from_is_fraction else entry.follow_from
                order[0].activation = max(price + side * gain, symbols[symbol].tick)
            else:
                order[0].extreme = price
        # They lie at the venue at once: the venue sends them itself.
        order[0].has_arrived = 1
        send(orders, symbols, account, log, order)


@kernel
def _send_opposite(
    orders: Records, symbols: Records, account: Records, log: Records, symbol: int, place: int
) -> None:
    """Answer a filled order of a grid by its opposite, a step away."""
    order = np.zeros(1, orders.dtype)
    order[0] = orders[symbol, place]
    # What a grid buys it sells a step higher; a long grid's sales only reduce.
    order[0].side = -orders[symbol, place].side
    order[0].price = orders[symbol, place].price + orders[symbol, place].side * orders[symbol, place].respawn
    order[0].quantity = orders[symbol, place].filled
    order[0].sent_ns = account[0].now_ns
    order[0].live_ns = account[0].now_ns
    order[0].has_arrived = 1
    order[0].is_done = 0
    order[0].reduces = 0
    order[0].filled = 0.0
    send(orders, symbols, account, log, order)


@kernel
def _close_position(orders: Records, symbols: Records, account: Records, log: Records, symbol: int) -> None:
    """Book a position that is flat now, and cancel what would have reduced it."""
    account[0].open_positions -= 1
    gain = symbols[symbol].realised / symbols[symbol].staked
    if gain > 0.0:
        account[0].wins += 1
        account[0].won += gain
    elif gain < 0.0:
        account[0].losses += 1
        account[0].lost -= gain
    symbols[symbol].entry_price = 0.0
    for other in range(symbols[symbol].orders):
        if orders[symbol, other].reduces:
            end(orders, symbols, account, log, symbol, other, _FILLED)
