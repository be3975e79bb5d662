"""Fills to trades: what was gained, what it cost, how far it went for and against."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from daemon.core.market import Float64s, Int64s
from daemon.engine.jit import kernel
from daemon.engine.orders import Records, Status

_FILLED = int(Status.FILLED)

# Columns of a trade while it is made.
_INTS = 8
_FLOATS = 12


class Trades(NamedTuple):
    """Round trips, in the order in which they were closed: (n,) columns.

    A trade is what one exit order closed, at the position's average cost; partial fills of that order are one trade.
    symbol, side (1 long, -1 short), reason (core.backtest.Reason), position, order_id: int64. entry_ns: first fill of
    the position; exit_ns: last fill of the order. Money in quote currency, costs positive; `funding` positive when
    received. mae, mfe: worst and best price in between as fractions of the entry price, at least 0.
    """

    symbol: Int64s
    side: Int64s
    reason: Int64s
    position: Int64s
    order_id: Int64s
    entry_ns: Int64s
    exit_ns: Int64s
    is_end: Int64s
    entry_price: Float64s
    exit_price: Float64s
    quantity: Float64s
    entry_slippage: Float64s
    exit_slippage: Float64s
    entry_fees: Float64s
    exit_fees: Float64s
    funding: Float64s
    pnl: Float64s
    mae: Float64s
    mfe: Float64s
    worth: Float64s

    @property
    def size(self) -> int:
        """How many trades; `len` counts columns."""
        return self.symbol.size


def trades_of(log: Records, symbols: int, closing_kind: int) -> tuple[Trades, Int64s]:
    """Pair fills to trades.

    log: LOG records of a whole run, in order. symbols: how many. closing_kind: the Reference of the closing at the end
    of the data. Returns the trades, and (n,) of each row of the log the trade that it belongs to: an entry's is the
    first of its position, -1 for none.
    """
    ints = np.zeros((_INTS, log.size), dtype=np.int64)
    floats = np.zeros((_FLOATS, log.size))
    belongs = np.full(log.size, -1, dtype=np.int64)
    count = pair(log, symbols, closing_kind, ints, floats, belongs)
    return Trades(*(column[:count].copy() for column in (*ints, *floats))), belongs


@kernel
def pair(  # noqa: C901, PLR0915 - one pass over the log
    log: Records, symbols: int, closing_kind: int, ints: Int64s, floats: Float64s, belongs: Int64s
) -> int:
    """Write trades to ints (8, n) and floats (12, n), as of `Trades`; return how many."""
    count = 0
    held = np.zeros(symbols)
    opened_ns = np.zeros(symbols, dtype=np.int64)
    first_fill = np.zeros(symbols, dtype=np.int64)
    slippage = np.zeros(symbols)  # of the open quantity's entries, as fees
    fees = np.zeros(symbols)
    funding = np.zeros(symbols)  # of the symbol when it was last accounted for
    current = np.full(symbols, -1, dtype=np.int64)  # trade that the exit order in progress makes
    for row in range(log.size):
        fill = log[row]
        if fill.status != _FILLED:
            continue
        symbol, quantity = fill.symbol, fill.quantity
        side = 1 if held[symbol] > 0.0 else -1
        paid = fill.spread + fill.impact
        if held[symbol] * fill.side >= 0.0:
            if held[symbol] == 0.0:
                opened_ns[symbol] = fill.time_ns
                first_fill[symbol] = row
                funding[symbol] = fill.funding
                slippage[symbol] = fees[symbol] = 0.0
            slippage[symbol] += paid
            fees[symbol] += fill.fee
            held[symbol] = fill.position_quantity
            current[symbol] = -1
            continue
        share = min(quantity / abs(held[symbol]), 1.0)
        earned = (fill.funding - funding[symbol]) * share
        at = current[symbol]
        if at < 0 or ints[4, at] != fill.order_id:
            at = count
            count += 1
            current[symbol] = at
            ints[0, at] = symbol
            ints[1, at] = side
            ints[2, at] = fill.reason
            ints[3, at] = fill.position
            ints[4, at] = fill.order_id
            ints[5, at] = opened_ns[symbol]
            floats[0, at] = fill.entry_price
        ints[6, at] = fill.time_ns
        ints[7, at] = fill.reference_kind == closing_kind
        before = floats[2, at]
        floats[0, at] = (floats[0, at] * before + fill.entry_price * quantity) / (before + quantity)
        floats[1, at] = (floats[1, at] * before + fill.price * quantity) / (before + quantity)
        floats[2, at] = before + quantity
        floats[3, at] += slippage[symbol] * share
        floats[4, at] += paid
        floats[5, at] += fees[symbol] * share
        floats[6, at] += fill.fee
        floats[7, at] += earned
        gained = (fill.price - fill.entry_price) * quantity * side
        floats[8, at] += gained - fees[symbol] * share - fill.fee + earned
        entry = fill.entry_price
        against = entry - fill.worst if side > 0 else fill.best - entry
        beyond = fill.best - entry if side > 0 else entry - fill.worst
        floats[9, at] = max(0.0, against / entry)
        floats[10, at] = max(0.0, beyond / entry)
        floats[11, at] += entry * quantity
        slippage[symbol] -= slippage[symbol] * share
        fees[symbol] -= fees[symbol] * share
        funding[symbol] += earned
        held[symbol] = fill.position_quantity
        belongs[row] = at
        if belongs[first_fill[symbol]] < 0:
            belongs[first_fill[symbol]] = at
    # Further entry fills of a position belong to what its first belongs to.
    last = np.full(symbols, -1, dtype=np.int64)
    for row in range(log.size):
        fill = log[row]
        if fill.status != _FILLED:
            continue
        if belongs[row] >= 0:
            last[fill.symbol] = belongs[row]
        elif fill.position_quantity != 0.0:
            belongs[row] = last[fill.symbol]
    return count
