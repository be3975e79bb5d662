"""Orders, positions and the account as records that kernels work on, and the log of fills.

There are few of these at a time, each read and written as a whole, and a bar is tried on a copy of them: so they are
records. What there are many of (bars, ticks, fills once they are done) are columns.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.engine import costs

Records = NDArray[Any]

NEVER_NS: Final = (1 << 63) - 1


class Kind(IntEnum):
    """Order types as kernels know them. A take-profit is a limit, a triggered stop a market order."""

    MARKET = 0
    LIMIT = 1
    STOP = 2
    STOP_LIMIT = 3
    TRAILING = 4


class Force(IntEnum):
    """Time in force. GTD is GTC with an end."""

    GTC = 0
    IOC = 1
    FOK = 2


class Status(IntEnum):
    """What a row of the log says of its order; stored, the numbers never change."""

    FILLED = 0
    TOO_SMALL = 1  # below the least notional or one lot
    NO_MONEY = 2  # nothing left to buy or margin with
    WOULD_TAKE = 3  # a post-only order that met the market
    NOT_FILLED = 4  # IOC or FOK, cancelled
    EXPIRED = 5
    TOO_MANY = 6  # no room for another order of the symbol
    NOTHING_HELD = 7  # an order that reduces, and there is no position that it could
    SELF_TRADE = 8  # it would have traded with another order of the run
    INVALID = 9  # no venue takes it: NaN, a quantity or a price that is not above 0


class Reference(IntEnum):
    """What a fill's reference price is; stored, the numbers never change."""

    OPEN = 0
    LEVEL = 1
    TRADE = 2
    QUOTE = 3
    CLOSE = 4
    BOOK = 5


# How a queue moves (`core.backtest.Queue`), and which order of two that would trade with each other ends.
RISK_AVERSE: Final = 0
POWER: Final = 1
LOG_POWER: Final = 2
TRADE_ONLY: Final = 3
CANCEL_NEWEST: Final = 0
CANCEL_OLDEST: Final = 1
CANCEL_BOTH: Final = 2


ORDER: Final = np.dtype(
    [
        ("id", "i8"),
        ("symbol", "i8"),
        ("kind", "i8"),
        ("side", "i8"),  # 1 buys, -1 sells
        ("force", "i8"),
        ("reason", "i8"),
        ("quantity", "f8"),  # base units left; 0 and closes: all there is; 0 and a notional: not known before the fill
        ("filled", "f8"),
        ("notional", "f8"),
        ("price", "f8"),  # of a limit
        ("stop", "f8"),
        ("trail", "f8"),
        ("extreme", "f8"),  # best price seen by a trailing stop, 0 while it waits for its activation
        ("activation", "f8"),  # price from which a trailing stop follows, 0 for at once
        ("respawn", "f8"),  # of a grid: distance of the opposite order
        ("sent_ns", "i8"),
        ("live_ns", "i8"),
        ("expires_ns", "i8"),
        ("good_ns", "i8"),  # of an own strategy: for how long it stays once it is there, 0 for ever
        ("level", "i8"),  # against a book: tick of a limit's price
        ("joined", "i8"),  # place among all that joined a queue, from 1; 0 for an order that does not rest
        ("ahead", "f8"),  # base units in front of it in its queue
        ("traded", "f8"),  # at its level since the level last changed
        ("met", "f8"),  # of what the other side shows at or beyond its price, given to it so far
        ("oco", "i8"),  # orders of one number: a fill of one cancels the others
        ("parent", "i8"),  # entry whose exits these are: a fill of one takes its quantity from the others
        ("target", "f8"),  # exits that a fill sends, as distances; 0 for none
        ("loss", "f8"),
        ("follow", "f8"),
        ("follow_from", "f8"),
        ("target_is_fraction", "i1"),
        ("loss_is_fraction", "i1"),
        ("follow_is_fraction", "i1"),
        ("follow_from_is_fraction", "i1"),
        ("trail_is_fraction", "i1"),
        ("reduces", "i1"),
        ("closes", "i1"),
        ("post_only", "i1"),
        ("has_arrived", "i1"),
        ("is_done", "i1"),
    ],
    align=True,
)
"""An order. Times are ns UTC, prices and distances quote currency (distances that are fractions: of the fill)."""

SYMBOL: Final = np.dtype(
    [
        ("quantity", "f8"),  # negative is short
        ("entry_price", "f8"),  # average cost, 0 when flat
        ("position", "i8"),  # number of the position, from 1, counted over all symbols
        ("best", "f8"),  # highest and lowest price since the position was opened
        ("worst", "f8"),
        ("held_bars", "i8"),
        ("realised", "f8"),  # of the open position, after fees
        ("staked", "f8"),  # worth of the open position's entries
        ("mark", "f8"),
        ("bid", "f8"),
        ("ask", "f8"),
        ("room", "f8"),  # base units that orders may still take
        ("ask_room", "f8"),  # those that buy, and those that sell: infinite but for slippage by the book
        ("bid_room", "f8"),
        ("taken_level", "f8"),  # price of the level of a book that is being taken, 0 for none
        ("volume", "f8"),  # of the bar that participation is judged by
        ("sigma", "f8"),
        ("day_volume", "f8"),
        ("funding", "f8"),  # received so far, negative when paid
        ("meets", "i8"),  # whether its orders meet the bar that ends now
        ("low_trigger", "f8"),  # nothing happens strictly between the two
        ("high_trigger", "f8"),
        ("wake_ns", "i8"),
        ("orders", "i8"),
        ("entries", "i8"),  # orders that wait to open
        ("first_row", "i8"),
        ("row", "i8"),
        ("stop_row", "i8"),
        ("funding_row", "i8"),
        ("funding_stop", "i8"),
        ("tick", "f8"),
        ("lot", "f8"),
        ("min_notional", "f8"),
    ],
    align=True,
)
"""A symbol's position and market. Triggers and wake_ns: see `working.rearm`."""

ACCOUNT: Final = np.dtype(
    [
        ("cash", "f8"),
        ("next_id", "i8"),
        ("positions", "i8"),  # opened so far
        ("log_rows", "i8"),
        ("samples", "i8"),
        ("events", "i8"),
        ("now_ns", "i8"),
        ("listed", "i8"),  # orders of the list that were sent
        ("wanted_feed", "i8"),
        ("wins", "i8"),
        ("losses", "i8"),
        ("won", "f8"),  # sums of returns on the stake
        ("lost", "f8"),
        ("tries", "i8"),  # bars that were walked both ways
        ("lost_rows", "i8"),  # of the log, for want of room: none, or the run is void
        ("joins", "i8"),  # orders that joined a queue so far
        ("requests", "i8"),  # of an own strategy, that wait to be sent
        ("new_requests", "i8"),  # of them, orders
        ("calls", "i8"),  # of an own strategy, that wait
        ("called", "i8"),  # of them, made
        ("told_rows", "i8"),  # of the log, whose fills an own strategy knows
        ("seen_ns", "i8"),  # the strategy's clock
        ("arrived_ns", "i8"),  # when the last message that was sent reaches the venue
        ("first_message", "i8"),  # messages that arrived, and that were sent, counted from the run's start
        ("next_message", "i8"),
        ("timer_ns", "i8"),  # next call of a timer, by the strategy's clock
        ("timer_at_ns", "i8"),  # the same, by the venue's
        ("lost_cancels", "i8"),  # cancels and replacements of orders that were not there
    ],
    align=True,
)
"""The account and the place of the run."""

SETTINGS: Final = np.dtype(
    [
        ("leverage", "f8"),
        ("maintenance", "f8"),
        ("liquidation_rate", "f8"),
        ("max_positions", "i8"),
        ("max_notional", "f8"),
        ("shares", "i8"),  # into how many the equity is divided
        ("sizing", "i8"),
        ("size_first", "f8"),
        ("size_second", "f8"),
        ("size_third", "f8"),
        ("size_least", "i8"),
        ("year_root", "f8"),  # sqrt of a year's days
        ("latency_ns", "i8"),  # from a decision until the order is live
        ("order_latency_ns", "i8"),  # of a listed order
        ("is_optimistic", "i1"),
        ("needs_through", "i1"),  # a price that only touches does not fill
        ("on_ticks", "i1"),
        ("on_book", "i1"),
        ("queue_model", "i8"),
        ("queue_exponent", "f8"),
        ("self_trade", "i8"),
        ("reducing_keeps", "i1"),
        ("entry_kind", "i8"),
        ("entry_force", "i8"),
        ("entry_post_only", "i1"),
        ("entry_good_ns", "i8"),
        ("entry_offset", "f8"),
        ("entry_offset_unit", "i8"),
        ("entry_limit_offset", "f8"),
        ("entry_limit_offset_unit", "i8"),
        ("target", "f8"),
        ("target_unit", "i8"),
        ("loss", "f8"),
        ("loss_unit", "i8"),
        ("follow", "f8"),
        ("follow_unit", "i8"),
        ("follow_from", "f8"),
        ("follow_from_unit", "i8"),
        ("timeout_bars", "i8"),
        ("is_averaging", "i1"),
        ("initial", "f8"),
    ],
    align=True,
)
"""What a specification says, for kernels. `…_unit`: FRACTION, PRICE or ATR."""

LOG: Final = np.dtype(
    [
        ("status", "i8"),
        ("symbol", "i8"),
        ("order_id", "i8"),
        ("position", "i8"),
        ("time_ns", "i8"),
        ("sent_ns", "i8"),
        ("side", "i8"),
        ("reason", "i8"),
        ("kind", "i8"),
        ("is_maker", "i8"),
        ("reference_kind", "i8"),
        ("quantity", "f8"),
        ("wanted", "f8"),  # more than the quantity where the money did not suffice
        ("remaining", "f8"),
        ("reference", "f8"),
        ("price", "f8"),
        ("spread", "f8"),  # cost in quote currency, as the next
        ("impact", "f8"),
        ("fee", "f8"),
        ("fee_rate", "f8"),
        ("fixed_fee", "f8"),
        ("participation", "f8"),
        ("volume", "f8"),
        ("sigma", "f8"),
        ("day_volume", "f8"),
        ("cash", "f8"),  # after
        ("position_quantity", "f8"),  # after
        ("entry_price", "f8"),  # before
        ("best", "f8"),
        ("worst", "f8"),
        ("funding", "f8"),  # of the symbol so far
    ],
    align=True,
)
"""A row of the log: a fill and why it has its price, or an order that ended without one."""


class Desk(NamedTuple):
    """Everything that a run trades with, as kernels pass it on.

    orders: (symbols, places) ORDER. symbols: (symbols,) SYMBOL. account: (1,) ACCOUNT. settings: (1,) SETTINGS. costs:
    (symbols,) costs.COSTS. log: (rows,) LOG.
    """

    orders: Records
    symbols: Records
    account: Records
    settings: Records
    costs: Records
    log: Records


FRACTION: Final = 0
PRICE: Final = 1
ATR: Final = 2

FIXED_QUANTITY: Final = 0
FIXED_NOTIONAL: Final = 1
FRACTIONAL: Final = 2
KELLY: Final = 3
VOLATILITY: Final = 4
ATR_RISK: Final = 5

__all__ = ["ACCOUNT", "LOG", "ORDER", "SETTINGS", "SYMBOL", "Force", "Kind", "Records", "Reference", "Status", "costs"]
