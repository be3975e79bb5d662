"""What an own strategy asks for, on its way to the venue: orders, cancels and replacements, in the order sent."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from daemon.core.backtest import Reason
from daemon.core.market import Int64s
from daemon.engine.book_matching import arrive, rearm_book, replace
from daemon.engine.context import CANCEL, EVENT, MOST_REQUESTS, NEW, REQUEST
from daemon.engine.jit import constants, kernel
from daemon.engine.latency import Delays, order_delay
from daemon.engine.levels import Books
from daemon.engine.orders import NEVER_NS, Desk, Kind, Records, Status
from daemon.engine.working import end, note, on_step, rearm, send, sweep

_LIMIT, _STOP, _STOP_LIMIT = constants([Kind.LIMIT, Kind.STOP, Kind.STOP_LIMIT])
_FILLED, _INVALID = constants([Status.FILLED, Status.INVALID])
_ENTRY, _MANUAL = constants([Reason.ENTRY, Reason.MANUAL])
_NEVER_NS = np.int64(NEVER_NS)

MOST_MESSAGES: Final = 1 << 16
"""Orders, cancels and replacements that may be on their way at a time."""

MESSAGE: Final = np.dtype(
    [
        ("what", "i8"),
        ("order", "i8"),
        ("symbol", "i8"),  # of a new order
        ("quantity", "f8"),
        ("price", "f8"),
        ("arrives_ns", "i8"),
    ],
    align=True,
)
"""Something on its way to the venue."""


class Calls(NamedTuple):
    """An own strategy, as the loop calls it.

    modes: (5,) int64 by `own.Handler`: NOT_THERE, COMPILED, or IN_PYTHON. places: (2,) int64: address of the compiled
    handlers, address of their table. event: (1,) EVENT, what a handler is called for. waiting: (symbols + 8,) EVENT.
    requests: (MOST_REQUESTS,) REQUEST. messages: (MOST_MESSAGES,) MESSAGE, a ring. start_ns: (1,) nothing is told
    before. timer_ns: (1,) between timers, 0 for none.
    """

    modes: Int64s
    places: Int64s
    event: Records
    waiting: Records
    requests: Records
    messages: Records
    start_ns: Int64s
    timer_ns: Int64s


NOT_THERE: Final = 0
COMPILED: Final = 1
IN_PYTHON: Final = 2


def no_calls() -> Calls:
    """Return the calls of a run without an own strategy."""
    nothing = np.zeros(1, dtype=np.int64)
    event = np.zeros(1, dtype=EVENT)
    return Calls(
        np.zeros(5, dtype=np.int64), np.zeros(2, dtype=np.int64), event, event.copy(), np.zeros(1, dtype=REQUEST),
        np.zeros(1, dtype=MESSAGE),
        nothing,
        nothing.copy(),
    )  # fmt: skip


def calls_of(symbols: int, modes: Int64s, start_ns: int, timer_ns: int) -> Calls:
    """Make room for the calls of an own strategy, whose address and table are still to come."""
    return Calls(
        modes,
        np.zeros(2, dtype=np.int64),
        np.zeros(1, dtype=EVENT),
        np.zeros(symbols + 8, dtype=EVENT),
        np.zeros(MOST_REQUESTS, dtype=REQUEST),
        np.zeros(MOST_MESSAGES, dtype=MESSAGE),
        np.array([start_ns], dtype=np.int64),
        np.array([timer_ns], dtype=np.int64),
    )


@kernel
def take_requests(desk: Desk, calls: Calls, delays: Delays, width_ns: int) -> None:
    """Send what a handler asked for. width_ns: of bars, which delay by whole ones; 0 on ticks and books."""
    orders, account, settings = desk.orders, desk.account, desk.settings
    requests, messages = calls.requests, calls.messages
    sent_ns = account[0].seen_ns
    for row in range(account[0].requests):
        request = requests[row]
        delay_ns = order_delay(delays, request.symbol, sent_ns)
        if width_ns > 0:
            delay_ns = delay_ns // width_ns * width_ns
        arrives_ns = max(account[0].arrived_ns, sent_ns + delay_ns)
        account[0].arrived_ns = arrives_ns
        if request.what == NEW:
            order = np.zeros(1, orders.dtype)
            order[0].symbol = request.symbol
            order[0].kind = request.kind
            order[0].side = request.side
            order[0].force = request.force
            order[0].reason = _MANUAL if request.reduce_only else _ENTRY
            order[0].quantity = request.quantity
            order[0].price = request.price
            order[0].stop = request.stop
            order[0].post_only = request.post_only
            order[0].reduces = request.reduce_only
            order[0].good_ns = request.good_ns
            order[0].sent_ns = sent_ns
            order[0].live_ns = arrives_ns
            order[0].expires_ns = arrives_ns + request.good_ns if request.good_ns > 0 else _NEVER_NS
            if not _is_valid(request):
                account[0].next_id += 1
                order[0].id = account[0].next_id
                note(desk, order, _INVALID)
                continue
            if settings[0].on_book:
                # Its message brings it; until then it is not there.
                order[0].live_ns = order[0].expires_ns = _NEVER_NS
            if not send(desk, order):
                continue
            if not settings[0].on_book:
                rearm(desk, request.symbol)
                continue
        if account[0].next_message - account[0].first_message == messages.size:
            raise OverflowError("too many orders, cancels and replacements are on their way at once")
        message = messages[account[0].next_message % messages.size]
        message.what = request.what
        message.order = request.order
        message.symbol = request.symbol
        message.quantity = request.quantity
        message.price = request.price
        message.arrives_ns = arrives_ns
        account[0].next_message += 1
    account[0].requests = 0
    account[0].new_requests = 0


@kernel
def _is_valid(request: Any) -> bool:
    if not (request.side == 1 or request.side == -1) or not 0.0 < request.quantity < np.inf:  # noqa: PLR1714
        return False
    needs_price = request.kind in (_LIMIT, _STOP_LIMIT)
    if needs_price and not 0.0 < request.price < np.inf:
        return False
    return not (request.kind in (_STOP, _STOP_LIMIT) and not 0.0 < request.stop < np.inf)


@kernel
def take_message(desk: Desk, books: Books, calls: Calls) -> None:
    """Let the next message arrive."""
    orders, symbols, account, settings = desk.orders, desk.symbols, desk.account, desk.settings
    message = calls.messages[account[0].first_message % calls.messages.size]
    account[0].first_message += 1
    account[0].now_ns = max(account[0].now_ns, message.arrives_ns)
    symbol, place = _found(orders, symbols, message)
    if symbol < 0:
        account[0].lost_cancels += message.what != NEW
        return
    order = orders[symbol, place]
    if message.what == NEW:
        orders[symbol, place].live_ns = message.arrives_ns
        if order.good_ns > 0:
            orders[symbol, place].expires_ns = message.arrives_ns + order.good_ns
        arrive(desk, books, symbol, message.arrives_ns)
        return
    if message.what == CANCEL or message.quantity == 0.0:
        end(desk, symbol, place, _FILLED)
    elif order.kind != _LIMIT:
        account[0].lost_cancels += 1
    elif not (0.0 < message.quantity < np.inf and 0.0 < message.price < np.inf):
        note(desk, orders[symbol, place : place + 1], _INVALID)
    else:
        price = message.price
        if symbols[symbol].tick > 0.0:
            price = on_step(price, symbols[symbol].tick, -order.side)
        if settings[0].on_book:
            replace(desk, books, symbol, place, message.quantity, price)
        else:
            orders[symbol, place].has_arrived = orders[symbol, place].has_arrived and price == order.price
            orders[symbol, place].quantity = message.quantity
            orders[symbol, place].price = price
    sweep(orders, symbols, symbol)
    if settings[0].on_book:
        rearm_book(desk, books, symbol)
    else:
        rearm(desk, symbol)


@kernel
def _found(orders: Records, symbols: Records, message: Any) -> tuple[int, int]:
    """Find a message's order; one that is on its way itself is not there for others that name it."""
    for symbol in range(symbols.size):
        for place in range(symbols[symbol].orders):
            order = orders[symbol, place]
            is_there = message.what == NEW or order.live_ns != _NEVER_NS
            if order.id == message.order and is_there and not order.is_done:
                return symbol, place
    return -1, -1
