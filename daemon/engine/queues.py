"""How the run's own orders move forward in the queues of a book, as `docs/book.md` says."""

from __future__ import annotations

import numpy as np

from daemon.engine.jit import kernel
from daemon.engine.levels import Books, size_at
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
    after = size / unit
    for place in range(count):
        order = orders[symbol, place]
        if order.level != tick or order.joined == 0 or order.is_done or (order.side > 0) != (side == 0):
            continue
        ahead = order.ahead
        if model != RISK_AVERSE:
            shrunk = (old - size) / unit - order.traded
            if shrunk > 0.0:
                back = max(old / unit - ahead, 0.0)
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
def settle_queues(books: Books, orders: Records, count: int, symbol: int) -> None:
    """After a gap: no more can be ahead of a resting order than its level shows now."""
    for place in range(count):
        order = orders[symbol, place]
        if order.joined > 0 and not order.is_done:
            side = 0 if order.side > 0 else 1
            shown = size_at(books, symbol, side, order.level) / books.state[symbol].size_scale
            orders[symbol, place].ahead = min(order.ahead, shown)
            orders[symbol, place].traded = 0.0
