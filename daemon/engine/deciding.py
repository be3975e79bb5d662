"""What a strategy does at a bar's close: how much to buy, which orders to send."""

from __future__ import annotations

import numpy as np

from daemon.core.backtest import Reason
from daemon.engine.fills import equity_of
from daemon.engine.jit import constants, kernel
from daemon.engine.orders import (
    ATR,
    ATR_RISK,
    FIXED_NOTIONAL,
    FIXED_QUANTITY,
    FRACTION,
    FRACTIONAL,
    KELLY,
    NEVER_NS,
    Desk,
    Kind,
    Records,
    Status,
)
from daemon.engine.working import ALL_ENTRIES, end, end_rests, send, sweep

_MARKET, _LIMIT, _STOP, _STOP_LIMIT = constants([Kind.MARKET, Kind.LIMIT, Kind.STOP, Kind.STOP_LIMIT])
_ENTRY, _SIGNAL, _TIMEOUT = constants([Reason.ENTRY, Reason.SIGNAL, Reason.TIMEOUT])
(_FILLED,) = constants([Status.FILLED])
(_BUYS,) = constants([1])

# Bits of a bar's signals.
ENTER_LONG = 1
ENTER_SHORT = 2
EXIT_LONG = 4
EXIT_SHORT = 8


@kernel
def decide(  # noqa: C901 - exits, waiting entries, entries
    desk: Desk,
    symbol: int,
    close_ns: int,
    close: float,
    signals: int,
    atr: float,
) -> None:
    """Act on a symbol's signals at the close of its bar.

    signals: bits ENTER_LONG to EXIT_SHORT. atr: of that bar, quote currency, NaN where it is not known yet.
    The bar counts as held already. An exit closes the whole position at the market. An entry is sent when the symbol is
    flat, or is closed by an order that was sent before it, and no entry waits; a long wins a tie.
    """
    symbols, account, settings = desk.symbols, desk.account, desk.settings
    account[0].now_ns = close_ns
    held = symbols[symbol].quantity
    leaves = False
    if held != 0.0:
        if signals & (EXIT_LONG if held > 0.0 else EXIT_SHORT):
            _send_exit(desk, symbol, close_ns, _SIGNAL)
            leaves = True
        elif symbols[symbol].held_bars >= settings[0].timeout_bars:
            _send_exit(desk, symbol, close_ns, _TIMEOUT)
            leaves = True
    if symbols[symbol].entries > 0 and signals & (EXIT_LONG | EXIT_SHORT):
        _cancel_entries(desk, symbol, signals)
    if not signals & (ENTER_LONG | ENTER_SHORT):
        return
    if settings[0].is_averaging:
        _send_entry(desk, symbol, close_ns, close, atr, _BUYS)
        return
    if (held != 0.0 and not leaves) or symbols[symbol].entries > 0:
        return
    waiting = 0
    for other in range(symbols.size):
        if symbols[other].quantity != 0.0 or symbols[other].entries > 0:
            waiting += 1
    if held == 0.0 and waiting >= settings[0].max_positions:
        return
    side = 1 if signals & ENTER_LONG else -1
    _send_entry(desk, symbol, close_ns, close, atr, side)


@kernel
def _send_exit(desk: Desk, symbol: int, close_ns: int, reason: int) -> None:
    orders, symbols, settings = desk.orders, desk.symbols, desk.settings
    for place in range(symbols[symbol].orders):
        if orders[symbol, place].closes and not orders[symbol, place].is_done:
            return  # one is under way
    end_rests(desk, symbol, ALL_ENTRIES)
    sweep(orders, symbols, symbol)
    order = np.zeros(1, orders.dtype)
    order[0].symbol = symbol
    order[0].side = -1 if symbols[symbol].quantity > 0.0 else 1
    order[0].kind = _MARKET
    order[0].reason = reason
    order[0].reduces = 1
    order[0].closes = 1
    order[0].sent_ns = close_ns
    order[0].live_ns = close_ns + settings[0].latency_ns
    order[0].expires_ns = NEVER_NS
    send(desk, order)


@kernel
def _cancel_entries(desk: Desk, symbol: int, signals: int) -> None:
    orders, symbols = desk.orders, desk.symbols
    for place in range(symbols[symbol].orders):
        order = orders[symbol, place]
        against = EXIT_LONG if order.side > 0 else EXIT_SHORT
        if order.reason == _ENTRY and order.reduces == 0 and signals & against:
            end(desk, symbol, place, _FILLED)
    sweep(orders, symbols, symbol)


@kernel
def _distance(value: float, unit: int, price: float, atr: float) -> float:
    """Return a distance in quote currency; NaN for one in ATR where there is none."""
    if unit == FRACTION:
        return value * price
    return value * atr if unit == ATR else value


@kernel
def _send_entry(desk: Desk, symbol: int, close_ns: int, close: float, atr: float, side: int) -> None:
    orders, settings = desk.orders, desk.settings
    rules = settings[0]
    order = np.zeros(1, orders.dtype)
    order[0].symbol = symbol
    order[0].side = side
    order[0].reason = _ENTRY
    order[0].kind = rules.entry_kind
    order[0].force = rules.entry_force
    order[0].post_only = rules.entry_post_only
    order[0].sent_ns = close_ns
    order[0].live_ns = close_ns + rules.latency_ns
    order[0].expires_ns = order[0].live_ns + rules.entry_good_ns if rules.entry_good_ns > 0 else NEVER_NS
    if rules.entry_kind == _LIMIT:
        order[0].price = close - side * _distance(rules.entry_offset, rules.entry_offset_unit, close, atr)
    elif rules.entry_kind != _MARKET:
        stop = close + side * _distance(rules.entry_offset, rules.entry_offset_unit, close, atr)
        order[0].stop = stop
        if rules.entry_kind == _STOP_LIMIT:
            order[0].price = stop + side * _distance(
                rules.entry_limit_offset, rules.entry_limit_offset_unit, close, atr
            )
    # Exits in ATR are distances from now on; fractions are of the fill, whenever that is.
    order[0].loss = rules.loss if rules.loss_unit != ATR else rules.loss * atr
    order[0].loss_is_fraction = rules.loss_unit == FRACTION
    order[0].target = rules.target if rules.target_unit != ATR else rules.target * atr
    order[0].target_is_fraction = rules.target_unit == FRACTION
    order[0].follow = rules.follow if rules.follow_unit != ATR else rules.follow * atr
    order[0].follow_is_fraction = rules.follow_unit == FRACTION
    order[0].follow_from = rules.follow_from if rules.follow_from_unit != ATR else rules.follow_from * atr
    order[0].follow_from_is_fraction = rules.follow_from_unit == FRACTION
    quantity, notional = _size(desk, symbol, atr)
    order[0].quantity = quantity
    order[0].notional = notional
    prices = order[0].price + order[0].stop + order[0].loss + order[0].target + order[0].follow
    # Without an ATR yet there is no level to send an order at: the signal is dropped.
    if np.isfinite(prices + order[0].follow_from) and (quantity > 0.0 or notional > 0.0):
        send(desk, order)


@kernel
def _size(  # noqa: PLR0911 - one return a kind of sizing
    desk: Desk, symbol: int, atr: float
) -> tuple[float, float]:
    """Return quantity (base units) and notional (quote) of an entry, the one that is not known as 0.

    Shares are of the equity at this close. What the account cannot carry is cut when the order is filled.
    """
    symbols, account, settings = desk.symbols, desk.account, desk.settings
    rules = settings[0]
    share = max(0.0, equity_of(symbols, account)) / rules.shares
    most = rules.max_notional
    if rules.sizing == FIXED_QUANTITY:
        return rules.size_first, 0.0
    if rules.sizing == FIXED_NOTIONAL:
        return 0.0, min(rules.size_first, most)
    if rules.sizing == FRACTIONAL and rules.is_averaging:
        # Parts of equal worth: of what there was to begin with.
        return 0.0, min(rules.initial / rules.shares * rules.size_first, most)
    if rules.sizing == FRACTIONAL:
        return 0.0, min(share * rules.size_first, most)
    if rules.sizing == KELLY:
        return 0.0, min(share * _kelly(account, settings), most)
    if rules.sizing == ATR_RISK:
        return (share * rules.size_first / (rules.size_second * atr), 0.0) if atr > 0.0 else (0.0, 0.0)
    sigma = symbols[symbol].sigma * rules.year_root
    if not sigma > 0.0:
        return 0.0, 0.0
    return 0.0, min(share * min(rules.size_first / sigma, rules.size_second), most)


@kernel
def _kelly(account: Records, settings: Records) -> float:
    """Return the fraction of a share that past trades justify: 0 where they lose."""
    rules = settings[0]
    wins, losses = account[0].wins, account[0].losses
    if wins + losses < rules.size_least:
        return rules.size_third  # type: ignore[no-any-return]
    if wins == 0:
        return 0.0
    won = wins / (wins + losses)
    full = 1.0
    if losses > 0:
        payoff = (account[0].won / wins) / (account[0].lost / losses)
        full = won - (1.0 - won) / payoff
    return max(0.0, min(full * rules.size_first, rules.size_second))  # type: ignore[no-any-return]
