"""Fills: how much, at what price, and what that does to the account, the position and other orders.

How orders meet the market is `matching`'s; here is what follows once a price is known. `docs/backtest.md` states the
rules. All kernels work on the records of `orders`; `symbol` is a row of `symbols` and of `orders`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daemon.core.backtest import Reason
from daemon.engine.costs import MAX_SLIPPAGE, ORDER_BOOK, impact
from daemon.engine.jit import constants, kernel
from daemon.engine.ladders import walk
from daemon.engine.orders import Desk, Kind, Records, Status
from daemon.engine.working import (
    DUST,
    cancel_others,
    end,
    end_rests,
    lots,
    on_step,
    protect,
    rest_of,
    send_opposite,
    take_from_siblings,
)

(_LIMIT,) = constants([Kind.LIMIT])
_FILLED, _TOO_SMALL, _NO_MONEY, _NOTHING_HELD = constants(
    [Status.FILLED, Status.TOO_SMALL, Status.NO_MONEY, Status.NOTHING_HELD]
)
_ENTRY, _MANUAL, _LIQUIDATION = constants([Reason.ENTRY, Reason.MANUAL, Reason.LIQUIDATION])


@kernel
def equity_of(symbols: Records, account: Records) -> float:
    """Return cash plus what all positions are worth at their marks."""
    worth = account[0].cash
    for symbol in range(symbols.size):
        worth += symbols[symbol].quantity * symbols[symbol].mark
    return worth  # type: ignore[no-any-return]


@kernel
def room_of(market: Any, side: int) -> float:
    """Return the base units that orders of a side may still fill."""
    return min(market.room, market.ask_room if side > 0 else market.bid_room)  # type: ignore[no-any-return]


@kernel
def use_up(desk: Desk, symbol: int, side: int) -> None:
    """Let no resting order fill before the next bar; a book's levels are of one side, volume is of both."""
    symbols = desk.symbols
    if desk.costs[symbol].model != ORDER_BOOK:
        symbols[symbol].room = 0.0
    elif side > 0:
        symbols[symbol].ask_room = 0.0
    else:
        symbols[symbol].bid_room = 0.0


@kernel
def lift_caps(symbols: Records, symbol: int) -> None:
    """Let any quantity fill."""
    symbols[symbol].room = np.inf
    symbols[symbol].ask_room = np.inf
    symbols[symbol].bid_room = np.inf


@kernel
def fill(
    desk: Desk,
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
    orders, symbols = desk.orders, desk.symbols
    filled = 0.0
    # Twice at most: what closes, then what opens.
    for _ in range(2):
        step = _fill_once(desk, symbol, place, reference, reference_kind, most - filled, is_maker)
        filled += step
        if step == 0.0 or orders[symbol, place].is_done or orders[symbol, place].reduces:
            break
        if symbols[symbol].quantity != 0.0:
            break
    return filled


@kernel
def _fill_once(  # noqa: C901, PLR0915 - how much, at what price, and what it does
    desk: Desk,
    symbol: int,
    place: int,
    reference: float,
    reference_kind: int,
    most: float,
    is_maker: bool,  # noqa: FBT001
) -> float:
    orders, symbols, account, settings, log = desk.orders, desk.symbols, desk.account, desk.settings, desk.log
    order, market, cost = orders[symbol, place], symbols[symbol], desk.costs[symbol]
    held, side = market.quantity, order.side
    closing = held * side < 0.0
    if order.reduces and not closing:
        is_lone = order.filled == 0.0 and order.parent == 0
        end(desk, symbol, place, _NOTHING_HELD if is_lone else _FILLED)
        return 0.0
    rate = (cost.maker_rate if is_maker else cost.taker_rate) * cost.scale
    if order.reason == _LIQUIDATION:
        rate += settings[0].liquidation_rate
    fixed = cost.fixed_fee * cost.scale
    if order.quantity == 0.0 and not order.closes:
        bought = _quantity_of(order.notional, reference, rate, fixed, side, is_maker, market, cost)
        orders[symbol, place].quantity = lots(bought, market.lot)
    wanted = abs(held) if order.closes else order.quantity
    quantity = _quantity_now(wanted, min(room_of(market, side), most), held, market.lot, closing)
    if quantity <= 0.0:
        if lots(wanted, market.lot) <= 0.0 and not (closing and wanted >= abs(held)):
            end(desk, symbol, place, _TOO_SMALL)
        return 0.0
    asked = quantity
    spread, push = _slippage(cost, market, side, quantity, is_maker)
    price = _price(order.kind, order.price, side, reference, spread + push, market, is_maker)
    if not closing:
        allowed = lots(affordable(desk, symbol, reference, price, rate, fixed), market.lot)
        if allowed < quantity:
            # What is beyond the money is cut: it does not wait for more.
            quantity = wanted = allowed
            spread, push = _slippage(cost, market, side, quantity, is_maker)
            price = _price(order.kind, order.price, side, reference, spread + push, market, is_maker)
        if quantity <= 0.0:
            end(desk, symbol, place, _NO_MONEY)
            return 0.0
        if (order.filled == 0.0 or held == 0.0) and min(wanted, allowed) * reference < market.min_notional:
            end(desk, symbol, place, _TOO_SMALL)
            return 0.0
    fee = quantity * price * rate + fixed
    entry_price = market.entry_price
    _book(symbols, account, symbol, side, quantity, price, reference, fee)
    after = symbols[symbol].quantity
    left = abs(after) if order.closes else rest_of(wanted, quantity, market.lot)
    if left <= DUST * wanted or (lots(left, market.lot) <= 0.0 and not order.closes):
        left = 0.0
    if not order.closes:
        orders[symbol, place].quantity = left
    orders[symbol, place].filled += quantity
    _log_fill(desk, symbol, order, quantity, left, reference, reference_kind, price, is_maker)
    row = log[account[0].log_rows - 1]
    row.wanted = asked
    if closing and order.reason == _ENTRY:
        row.reason = _MANUAL
    paid = (price - reference) * side * quantity
    row.spread = paid * spread / (spread + push) if spread + push > 0.0 else 0.0
    row.impact = paid - row.spread
    row.fee, row.fee_rate, row.fixed_fee = fee, rate, fixed
    row.entry_price = entry_price
    _follow_up(desk, symbol, place, price, quantity, left, closing)
    return quantity


@kernel
def fits(desk: Desk, symbol: int, place: int, reference: float) -> bool:
    """Tell whether volume and money allow all of an order that takes at a reference price."""
    orders, symbols, account = desk.orders, desk.symbols, desk.account
    order, market, cost = orders[symbol, place], symbols[symbol], desk.costs[symbol]
    held, side, cash = market.quantity, order.side, account[0].cash
    closing = held * side < 0.0
    if order.reduces and not closing:
        return True
    rate, fixed = cost.taker_rate * cost.scale, cost.fixed_fee * cost.scale
    wanted = order.quantity
    if wanted == 0.0:
        wanted = _quantity_of(order.notional, reference, rate, fixed, side, bool(0), market, cost)
    is_whole = order.closes or (order.reduces and wanted > abs(held))
    wanted = abs(held) if is_whole else lots(wanted, market.lot)
    if wanted - room_of(market, side) > DUST * wanted:
        # One that is too small for the venue is told so, however little there is to take.
        return not closing and _is_too_small(desk, symbol, place, reference, wanted, rate, fixed)
    closed = min(wanted, abs(held)) if closing else 0.0
    opened = lots(wanted - closed, market.lot)
    if opened <= DUST * wanted:
        return True
    if closed > 0.0:
        # What is closed first pays for what is opened.
        spread, push = _slippage(cost, market, side, closed, bool(0))
        price = _price(order.kind, order.price, side, reference, spread + push, market, bool(0))
        account[0].cash -= side * closed * price + (closed * price * rate + fixed)
        symbols[symbol].quantity = 0.0
    spread, push = _slippage(cost, market, side, opened, bool(0))
    price = _price(order.kind, order.price, side, reference, spread + push, market, bool(0))
    allowed = lots(affordable(desk, symbol, reference, price, rate, fixed), market.lot)
    account[0].cash = cash
    symbols[symbol].quantity = held
    return opened <= allowed


@kernel
def _is_too_small(
    desk: Desk, symbol: int, place: int, reference: float, wanted: float, rate: float, fixed: float
) -> bool:
    """Tell whether an opening order, of which the volume offers a part, ends below the least notional."""
    order, market = desk.orders[symbol, place], desk.symbols[symbol]
    offered = _quantity_now(wanted, room_of(market, order.side), market.quantity, market.lot, bool(0))
    if offered <= 0.0:
        return False
    spread, push = _slippage(desk.costs[symbol], market, order.side, offered, bool(0))
    price = _price(order.kind, order.price, order.side, reference, spread + push, market, bool(0))
    allowed = lots(affordable(desk, symbol, reference, price, rate, fixed), market.lot)
    is_first = order.filled == 0.0 or market.quantity == 0.0
    return offered <= allowed and is_first and min(wanted, allowed) * reference < market.min_notional


@kernel
def _quantity_now(wanted: float, offered: float, held: float, lot: float, closing: bool) -> float:  # noqa: FBT001
    """Cut a quantity to what is offered, to the position that it closes, and to lots; a whole position needs none."""
    quantity = min(wanted, offered)
    if closing:
        quantity = min(quantity, abs(held))
        if abs(held) - quantity <= DUST * abs(held):
            return abs(held)
    return lots(quantity, lot)


@kernel
def _slippage(
    cost: Any,
    market: Any,
    side: int,
    quantity: float,
    is_maker: bool,  # noqa: FBT001
) -> tuple[float, float]:
    """Return half spread and impact of a quantity as scaled fractions of the price.

    Makers pay neither, and what takes a level of a book pays the level.
    """
    if is_maker or market.taken_level > 0.0:
        return 0.0, 0.0
    if cost.model == ORDER_BOOK:
        best, mean = walk(cost, side, quantity)
        spread = min(best * cost.scale, MAX_SLIPPAGE)
        return spread, min((mean - best) * cost.scale, MAX_SLIPPAGE - spread)
    spread = min(cost.half_spread * cost.scale, MAX_SLIPPAGE)
    push = impact(cost, quantity, market.volume, market.sigma, market.day_volume) * cost.scale
    return spread, min(push, MAX_SLIPPAGE - spread)


@kernel
def _price(
    kind: int,
    limit: float,
    side: int,
    reference: float,
    slippage: float,
    market: Any,
    is_maker: bool,  # noqa: FBT001
) -> float:
    """Move the reference against an order that takes, to the tick beyond, never past its limit; makers get theirs."""
    if is_maker:
        return reference
    if market.taken_level > 0.0:
        return market.taken_level  # type: ignore[no-any-return]
    price = on_step(reference * (1.0 + side * slippage), market.tick, side)
    if price <= 0.0:
        price = reference
    if kind == _LIMIT:
        price = min(price, limit) if side > 0 else max(price, limit)
    return price


@kernel
def _quantity_of(
    notional: float,
    reference: float,
    rate: float,
    fixed: float,
    side: int,
    is_maker: bool,  # noqa: FBT001
    market: Any,
    cost: Any,
) -> float:
    """Return the base units that a notional buys or sells, slippage and fee included."""
    spread, push = _slippage(cost, market, side, notional / reference, is_maker)
    price = reference * (1.0 + side * (spread + push))
    return max(0.0, notional - fixed) / (max(price, reference) * (1.0 + rate))


@kernel
def affordable(desk: Desk, symbol: int, reference: float, price: float, rate: float, fixed: float) -> float:
    """Return the base units by which a position may grow: as margin, fee, slippage and the position's limit allow.

    Margin is worth / leverage of every position, at the marks, this one's at the reference price.
    """
    symbols, account, settings = desk.symbols, desk.account, desk.settings
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
    return max(0.0, min(quantity, room))  # type: ignore[no-any-return]


@kernel
def _book(
    symbols: Records,
    account: Records,
    symbol: int,
    side: int,
    quantity: float,
    price: float,
    reference: float,
    fee: float,
) -> None:
    """Book a fill that opens, grows, reduces or closes a position, but does not turn it."""
    held, entry_price = symbols[symbol].quantity, symbols[symbol].entry_price
    account[0].cash -= side * quantity * price + fee
    if held == 0.0:
        account[0].positions += 1
        symbols[symbol].position = account[0].positions
        symbols[symbol].best = reference
        symbols[symbol].worst = reference
        symbols[symbol].held_bars = 0
        symbols[symbol].realised = 0.0
        symbols[symbol].staked = 0.0
    symbols[symbol].best = max(symbols[symbol].best, reference)
    symbols[symbol].worst = min(symbols[symbol].worst, reference)
    symbols[symbol].realised -= fee
    symbols[symbol].room -= quantity
    if side > 0:
        symbols[symbol].ask_room -= quantity
    else:
        symbols[symbol].bid_room -= quantity
    if held * side < 0.0:
        symbols[symbol].realised -= (price - entry_price) * quantity * side
        symbols[symbol].quantity = 0.0 if quantity == abs(held) else held + side * quantity
    else:
        symbols[symbol].staked += quantity * price
        symbols[symbol].entry_price = (entry_price * abs(held) + price * quantity) / (abs(held) + quantity)
        symbols[symbol].quantity = held + side * quantity


@kernel
def _log_fill(
    desk: Desk,
    symbol: int,
    order: Any,
    quantity: float,
    left: float,
    reference: float,
    reference_kind: int,
    price: float,
    is_maker: bool,  # noqa: FBT001
) -> None:
    """Append a fill to the log; its costs and the entry price before it are the caller's to write."""
    symbols, account, log = desk.symbols, desk.account, desk.log
    place = account[0].log_rows
    if place >= log.size:
        # The run is void, and its end says so; the caller writes on to the last row.
        account[0].lost_rows += 1
        return
    account[0].log_rows = place + 1
    row, market = log[place], symbols[symbol]
    row.status = _FILLED
    row.symbol = symbol
    row.order_id = order.id
    row.position = market.position
    row.time_ns = account[0].now_ns
    row.sent_ns = order.sent_ns
    row.side = order.side
    row.reason = order.reason
    row.kind = order.kind
    row.is_maker = is_maker
    row.reference_kind = reference_kind
    row.quantity = quantity
    row.remaining = left
    row.reference = reference
    row.price = price
    row.participation = quantity / market.volume if market.volume > 0.0 else np.nan
    row.volume = market.volume
    row.sigma = market.sigma
    row.day_volume = market.day_volume
    row.cash = account[0].cash
    row.position_quantity = market.quantity
    row.best = market.best
    row.worst = market.worst
    row.funding = market.funding


@kernel
def _follow_up(
    desk: Desk,
    symbol: int,
    place: int,
    price: float,
    quantity: float,
    left: float,
    closing: bool,  # noqa: FBT001
) -> None:
    """Do what a fill entails for its own order, those that are tied to it, and those of a position that is flat."""
    orders, symbols = desk.orders, desk.symbols
    order = orders[symbol, place]
    if left == 0.0:
        end(desk, symbol, place, _FILLED)
        if order.respawn > 0.0:
            send_opposite(desk, symbol, place)
    if order.oco > 0:
        cancel_others(desk, symbol, place, order.oco)
    if order.parent > 0:
        end_rests(desk, symbol, order.parent)
        take_from_siblings(desk, symbol, place, order.parent, quantity)
    if not closing:
        protect(desk, symbol, place, price, quantity)
    elif symbols[symbol].quantity == 0.0:
        _close_position(desk, symbol)


@kernel
def _close_position(desk: Desk, symbol: int) -> None:
    """Book a position that is flat now, and cancel what would have reduced it."""
    orders, symbols, account = desk.orders, desk.symbols, desk.account
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
            end(desk, symbol, other, _FILLED)
