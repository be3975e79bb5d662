"""What is rare in the loop over events: listed orders that are sent, funding, and the end of a symbol's data."""

from __future__ import annotations

import numpy as np

from daemon.core.backtest import Reason
from daemon.engine.feeds import Closes
from daemon.engine.fills import fill, lift_caps
from daemon.engine.jit import constants, kernel
from daemon.engine.latency import Delays, order_delay
from daemon.engine.orders import NEVER_NS, Desk, Records, Reference
from daemon.engine.working import rearm, send

(_CLOSE,) = constants([Reference.CLOSE])
(_MANUAL,) = constants([Reason.MANUAL])
(_FIRST,) = constants([0])


@kernel
def arrival(desk: Desk, delays: Delays, symbol: int, sent_ns: int) -> int:
    """Return how long what is sent now takes to a book: ns. Messages of one connection arrive as they were sent."""
    account = desk.account
    account[0].arrived_ns = max(account[0].arrived_ns, sent_ns + order_delay(delays, symbol, sent_ns))
    return account[0].arrived_ns - sent_ns  # type: ignore[no-any-return]


@kernel
def send_listed(desk: Desk, listed: Records) -> None:
    """Send the next order of the list."""
    account, settings = desk.account, desk.settings
    place = account[0].listed
    account[0].listed = place + 1
    order = listed[place : place + 1].copy()
    account[0].now_ns = order[0].sent_ns
    order[0].live_ns = order[0].sent_ns + settings[0].order_latency_ns
    send(desk, order)
    rearm(desk, order[0].symbol)


@kernel
def pay_funding(symbols: Records, account: Records, bars: Closes, symbol: int, until_ns: int) -> None:
    """Pay what fell due until then: longs pay shorts quantity x mark x rate."""
    row = symbols[symbol].funding_row
    while row < symbols[symbol].funding_stop and bars.funding_ns[row] <= until_ns:
        paid = -symbols[symbol].quantity * symbols[symbol].mark * bars.funding_rate[row]
        account[0].cash += paid
        symbols[symbol].realised += paid
        symbols[symbol].funding += paid
        row += 1
    symbols[symbol].funding_row = row


@kernel
def close(desk: Desk, symbol: int) -> None:
    """Close a position at its last price, and end its orders."""
    orders, symbols, account = desk.orders, desk.symbols, desk.account
    symbols[symbol].orders = 0
    symbols[symbol].entries = 0
    if symbols[symbol].quantity == 0.0:
        return
    lift_caps(symbols, symbol)
    order = np.zeros(1, orders.dtype)
    order[0].symbol = symbol
    order[0].side = -1 if symbols[symbol].quantity > 0.0 else 1
    order[0].reason = _MANUAL
    order[0].reduces = 1
    order[0].closes = 1
    order[0].has_arrived = 1
    order[0].sent_ns = account[0].now_ns
    order[0].expires_ns = NEVER_NS
    send(desk, order)
    fill(desk, symbol, _FIRST, symbols[symbol].mark, _CLOSE, np.inf, bool(0))
    symbols[symbol].orders = 0
