"""How the run's own orders move forward in the queues of a book, as `docs/book.md` says."""

from __future__ import annotations

import numpy as np

from daemon.engine.jit import kernel
from daemon.engine.levels import NO_ASK, NO_BID, Books, next_level, size_at
from daemon.engine.orders import LOG_POWER, RISK_AVERSE, TRADE_ONLY, Records


@kernel
def requeue(
    orders: Records,
    count: int,
    symbol: int,
    side: int,
    tick: int,
    old: int,
    size: int,
    unit: float,
    model: int,
    exponent: float,
) -> None:
    """Move the run's own resting orders at a level that changes forward in their queue, as `docs/book.md` says.

    old, size: what the level showed and shows. unit: sizes in a base unit.
    """
    if model == TRADE_ONLY:
        return
    for place in range(count):
        order = orders[symbol, place]
        if order.level == tick and order.joined > 0 and not order.is_done and (order.side > 0) == (side == 0):
            _move_forward(orders, symbol, place, old / unit, size / unit, model, exponent)


@kernel
def _move_forward(
    orders: Records, symbol: int, place: int, before: float, after: float, model: int, exponent: float
) -> None:
    """Move an order forward as its level changes. before, after: base units that the level showed and shows."""
    order = orders[symbol, place]
    ahead = order.ahead
    if model != RISK_AVERSE:
        shrunk = before - after - order.traded
        if shrunk > 0.0:
            back = max(before - ahead, 0.0)
            if model == LOG_POWER:
                front_weight, back_weight = np.log1p(ahead), np.log1p(back)
            else:
                front_weight, back_weight = ahead**exponent, back**exponent
            total = front_weight + back_weight
            behind = back_weight / total if total > 0.0 else 1.0
            ahead += min(back - behind * shrunk, 0.0) - (1.0 - behind) * shrunk
    orders[symbol, place].ahead = max(0.0, min(ahead, after))
    orders[symbol, place].traded = 0.0


@kernel
def keep_shown(books: Books, orders: Records, count: int, symbol: int) -> None:
    """Keep what the levels of resting orders show, before a snapshot replaces them."""
    for place in range(count):
        order = orders[symbol, place]
        if order.joined > 0 and not order.is_done:
            shown = size_at(books, symbol, 0 if order.side > 0 else 1, order.level)
            orders[symbol, place].shown = shown / books.state[symbol].size_scale


@kernel
def settle_queues(books: Books, orders: Records, count: int, symbol: int, model: int, exponent: float) -> None:
    """Move resting orders forward by a whole snapshot: each level up to the last that it shows of a side has changed.

    After a gap no more can be ahead of an order than its level shows now, by any model.
    """
    for place in range(count):
        order = orders[symbol, place]
        if order.joined == 0 or order.is_done:
            continue
        side = 0 if order.side > 0 else 1
        after = size_at(books, symbol, side, order.level) / books.state[symbol].size_scale
        is_shown = NO_BID < next_level(books, symbol, side, order.level) < NO_ASK
        if is_shown and books.state[symbol].is_behind:
            orders[symbol, place].ahead = min(order.ahead, after)
        elif is_shown and model != TRADE_ONLY:
            _move_forward(orders, symbol, place, order.shown, after, model, exponent)
        orders[symbol, place].traded = 0.0
