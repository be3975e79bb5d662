"""How orders meet a level-2 book: they arrive, walk it, join queues, and are reached by trades and by the other side.

`docs/book.md` states the contract; `tests/naive/book_matching.py` repeats it. What a fill does is `fills`' as ever.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from daemon.engine.book import STALE_NS
from daemon.engine.fills import fill, fits
from daemon.engine.jit import constants, kernel
from daemon.engine.levels import NO_ASK, NO_BID, Books, next_level, set_level, size_at
from daemon.engine.matching import expire, see_price, stop_or_trail
from daemon.engine.orders import CANCEL_NEWEST, CANCEL_OLDEST, Desk, Force, Kind, Reference, Status
from daemon.engine.working import DUST, end, lots, rearm, sweep

_MARKET, _LIMIT, _STOP, _STOP_LIMIT, _TRAILING = constants(Kind)
_GTC, _IOC, _FOK = constants(Force)
_LEVEL, _TRADE, _BOOK = constants([Reference.LEVEL, Reference.TRADE, Reference.BOOK])
_WOULD_TAKE, _NOT_FILLED, _SELF_TRADE = constants([Status.WOULD_TAKE, Status.NOT_FILLED, Status.SELF_TRADE])
_FILLED = np.int64(Status.FILLED)
_FIRST, _BUYS, _SELLS = constants([0, 1, -1])
_BIDS, _ASKS = constants([0, 1])
(_STALE_NS,) = constants([STALE_NS])
_NOTHING = -1

MOST_LEVELS: Final = 1_024
"""Levels that an order takes at one moment; what is left waits for the next event."""


@kernel
def book_is_sound(books: Books, symbol: int) -> bool:
    """Tell whether orders may take from a book: it is whole, and not crossed."""
    state = books.state
    return bool(state[symbol].is_whole and state[symbol].bid < state[symbol].ask)


@kernel
def _may_take(desk: Desk, books: Books, symbol: int) -> bool:
    """Tell whether an order that arrives may take: the book is sound, and it was heard of not long ago."""
    if not book_is_sound(books, symbol):
        return False
    is_stale = desk.account[0].now_ns - books.state[symbol].time_ns > _STALE_NS
    books.state[symbol].stale += is_stale
    return not is_stale


@kernel
def rearm_book(desk: Desk, books: Books, symbol: int) -> None:
    """Find what the book has to be watched for: levels of resting orders; anything for an order that waits to take."""
    orders, symbols, state = desk.orders, desk.symbols, books.state
    highest_buy, lowest_buy = np.int64(NO_BID), np.int64(NO_ASK)
    highest_sell, lowest_sell = np.int64(NO_BID), np.int64(NO_ASK)
    for place in range(symbols[symbol].orders):
        order = orders[symbol, place]
        if order.is_done or order.has_arrived == 0 or order.kind not in (_MARKET, _LIMIT):
            continue
        if order.joined == 0:
            highest_buy, lowest_sell = np.int64(NO_ASK), np.int64(NO_BID)
        elif order.side > 0:
            highest_buy, lowest_buy = max(highest_buy, order.level), min(lowest_buy, order.level)
        else:
            highest_sell, lowest_sell = max(highest_sell, order.level), min(lowest_sell, order.level)
    state[symbol].highest_buy, state[symbol].lowest_buy = highest_buy, lowest_buy
    state[symbol].highest_sell, state[symbol].lowest_sell = highest_sell, lowest_sell
    rearm(desk, symbol)


@kernel
def arrive(desk: Desk, books: Books, symbol: int, now_ns: int) -> None:
    """Let orders arrive whose time has come, in the order in which they were sent, and end those whose time is over."""
    orders, symbols, account = desk.orders, desk.symbols, desk.account
    account[0].now_ns = max(account[0].now_ns, now_ns)
    expire(desk, symbol, now_ns)
    place = _FIRST
    while place < symbols[symbol].orders:
        order = orders[symbol, place]
        if not order.is_done and order.has_arrived == 0 and order.live_ns <= now_ns:
            orders[symbol, place].has_arrived = 1
            enter(desk, books, symbol, place)
        place += 1
    sweep(orders, symbols, symbol)
    rearm_book(desk, books, symbol)


@kernel
def enter(desk: Desk, books: Books, symbol: int, place: int) -> None:
    """Let an order that has arrived take, rest, or wait for a sound book; stops wait for trades."""
    order = desk.orders[symbol, place]
    if order.kind not in (_MARKET, _LIMIT) or not _may_take(desk, books, symbol):
        if order.force != _GTC and order.kind in (_MARKET, _LIMIT):
            end(desk, symbol, place, _NOT_FILLED)
        return
    side = _ASKS if order.side > 0 else _BIDS
    best = books.state[symbol].ask if order.side > 0 else books.state[symbol].bid
    worst: Any = np.int64(NO_ASK) if order.side > 0 else np.int64(NO_BID)
    if order.kind == _LIMIT:
        worst = np.int64(np.rint(order.price * books.state[symbol].scale))
        desk.orders[symbol, place].level = worst
    is_marketable = NO_BID < best < NO_ASK and (worst - best) * order.side >= 0
    if is_marketable and order.post_only:
        end(desk, symbol, place, _WOULD_TAKE)
        return
    has_seen_all = True
    if is_marketable and (order.force != _FOK or _fills_whole(desk, books, symbol, place, side, best, worst)):
        has_seen_all = _walk(desk, books, symbol, place, side, worst)
    if desk.orders[symbol, place].is_done:
        return
    if order.force != _GTC:
        end(desk, symbol, place, _NOT_FILLED)
    elif order.kind == _LIMIT and has_seen_all and not _meets_own(desk, symbol, place, worst):
        _join(desk, books, symbol, place)  # while levels within its limit are left, it waits to take


@kernel
def _join(desk: Desk, books: Books, symbol: int, place: int) -> None:
    """Put an order behind everything that its level shows."""
    orders, account, state = desk.orders, desk.account, books.state
    order = orders[symbol, place]
    account[0].joins += 1
    orders[symbol, place].joined = account[0].joins
    shown = size_at(books, symbol, _BIDS if order.side > 0 else _ASKS, order.level)
    orders[symbol, place].ahead = shown / state[symbol].size_scale
    orders[symbol, place].traded = 0.0
    orders[symbol, place].met = 0.0


@kernel
def _fills_whole(desk: Desk, books: Books, symbol: int, place: int, side: int, best: int, worst: int) -> bool:
    """Tell whether an order gets all of it: of the book, up to a level, of the money, and of its own other side."""
    symbols, state = desk.symbols, books.state
    last: Any = _last_needed(desk, books, symbol, side, worst, desk.orders[symbol, place].quantity)
    room = symbols[symbol].room
    symbols[symbol].room = min(room, _shown(books, symbol, side, worst, symbols[symbol].lot))
    symbols[symbol].taken_level = last / state[symbol].scale
    holds = fits(desk, symbol, place, best / state[symbol].scale)
    symbols[symbol].room = room
    symbols[symbol].taken_level = 0.0
    # What would end it half way ends it before.
    return holds and (desk.settings[0].self_trade == CANCEL_OLDEST or not _meets_own(desk, symbol, place, last))


@kernel
def _last_needed(desk: Desk, books: Books, symbol: int, side: int, worst: int, quantity: float) -> int:
    """Return the level, up to `worst`, that an order of a quantity takes last; all there are where it is not known."""
    state, lot = books.state, desk.symbols[symbol].lot
    way = 1 if side == _ASKS else -1
    tick = state[symbol].ask if side == _ASKS else state[symbol].bid
    last, shown = tick, 0
    for _ in range(MOST_LEVELS):
        is_enough = quantity > 0.0 and shown >= quantity * state[symbol].size_scale - DUST
        if is_enough or not NO_BID < tick < NO_ASK or (worst - tick) * way < 0:
            break
        offered = _in_lots(size_at(books, symbol, side, tick), state[symbol].size_scale, lot)
        shown += offered
        if offered > 0:
            last = tick
        tick = next_level(books, symbol, side, tick + way)
    return last  # type: ignore[no-any-return]


@kernel
def _in_lots(size: int, unit: float, lot: float) -> int:
    """Return what an order can take of a level: whole lots, in the sizes of the book; all of it without lots."""
    if lot <= 0.0:
        return size
    offered: Any = np.int64(np.rint(lots(size / unit, lot) * unit))
    return offered  # type: ignore[no-any-return]


@kernel
def _shown(books: Books, symbol: int, side: int, worst: int, lot: float) -> float:
    """Return the base units that a side shows up to a level, in whole lots of each level."""
    state = books.state
    way = 1 if side == _ASKS else -1
    tick = state[symbol].ask if side == _ASKS else state[symbol].bid
    shown = 0
    for _ in range(MOST_LEVELS):
        if not NO_BID < tick < NO_ASK or (worst - tick) * way < 0:
            break
        shown += _in_lots(size_at(books, symbol, side, tick), state[symbol].size_scale, lot)
        tick = next_level(books, symbol, side, tick + way)
    return shown / state[symbol].size_scale  # type: ignore[no-any-return]


@kernel
def _walk(desk: Desk, books: Books, symbol: int, place: int, side: int, worst: int) -> bool:
    """Take levels, the best first, up to `worst`; what is taken is gone from the book.

    What a level shows beyond whole lots stays there, and the order goes on. Tells whether it came to the end.
    """
    orders, symbols, state = desk.orders, desk.symbols, books.state
    scale, unit = state[symbol].scale, state[symbol].size_scale
    way = 1 if side == _ASKS else -1
    tick = state[symbol].ask if side == _ASKS else state[symbol].bid
    reference = tick / scale
    for _ in range(MOST_LEVELS):
        if not NO_BID < tick < NO_ASK or (worst - tick) * way < 0:
            return True
        shown = size_at(books, symbol, side, tick)
        if _in_lots(shown, unit, symbols[symbol].lot) > 0 and _meets_own(desk, symbol, place, tick):
            return True
        symbols[symbol].taken_level = tick / scale
        filled = fill(desk, symbol, place, reference, _BOOK, shown / unit, bool(0))
        symbols[symbol].taken_level = 0.0
        if filled > 0.0:
            left: Any = np.int64(max(0.0, np.rint(shown - filled * unit)))
            set_level(books, symbol, side, tick, left)
        if orders[symbol, place].is_done:
            return True
        tick = next_level(books, symbol, side, tick + way)
    return False


@kernel
def _meets_own(desk: Desk, symbol: int, place: int, tick: int) -> bool:
    """End what would trade with itself at a level; tells whether that was the order that takes or is about to rest."""
    orders, settings = desk.orders, desk.settings
    side = orders[symbol, place].side
    if orders[symbol, place].is_done:
        return True
    nothing_before: Any = np.int64(NO_BID) * side
    while True:
        other = _first_reached(desk, symbol, -side, tick, nothing_before, _FIRST)
        if other == _NOTHING:
            return False
        if settings[0].self_trade != CANCEL_NEWEST:
            end(desk, symbol, other, _SELF_TRADE)
        if settings[0].self_trade != CANCEL_OLDEST:
            end(desk, symbol, place, _SELF_TRADE)
            return True


# What reaches orders that rest.


@kernel
def _first_reached(desk: Desk, symbol: int, side: int, tick: int, after_level: int, after_joined: int) -> int:
    """Find the resting order of a side that comes next at or beyond a tick: by price, then by place in the queue."""
    orders, symbols = desk.orders, desk.symbols
    found = _NOTHING
    for place in range(symbols[symbol].orders):
        order = orders[symbol, place]
        if order.joined == 0 or order.is_done or order.side != side or (order.level - tick) * side < 0:
            continue
        is_after = (after_level - order.level) * side > 0 or (
            order.level == after_level and order.joined > after_joined
        )
        if not is_after:
            continue
        if found != _NOTHING:
            best = orders[symbol, found]
            is_first = (order.level - best.level) * side > 0 or (
                order.level == best.level and order.joined < best.joined
            )
            if not is_first:
                continue
        found = place
    return found


@kernel
def at_trade(desk: Desk, books: Books, symbol: int, price: float, size: float, aggressor: int, now_ns: int) -> None:
    """Let a symbol's orders meet a trade. aggressor: 1 bought, -1 sold, 0 unknown. size: base units."""
    orders, symbols = desk.orders, desk.symbols
    see_price(desk, symbol, price, now_ns, _TRADE)
    tick: Any = np.int64(np.rint(price * books.state[symbol].scale))
    left = size
    if aggressor <= 0:
        left = _meet_trade(desk, symbol, _BUYS, tick, left, size)
    if aggressor >= 0:
        _meet_trade(desk, symbol, _SELLS, tick, left, size)
    place = _FIRST
    while place < symbols[symbol].orders:
        order = orders[symbol, place]
        waits = not order.is_done and order.has_arrived and order.kind in (_STOP, _STOP_LIMIT, _TRAILING)
        if waits and stop_or_trail(desk, symbol, place, price):
            enter(desk, books, symbol, place)
        place += 1
    sweep(orders, symbols, symbol)
    rearm_book(desk, books, symbol)


@kernel
def _meet_trade(desk: Desk, symbol: int, side: int, tick: int, left: float, size: float) -> float:
    """Let resting orders of a side meet a trade, of which `left` is left for them; returns what is left then."""
    orders = desk.orders
    level: Any = np.int64(NO_ASK) * side
    joined: Any = np.int64(0)
    taken = 0.0
    while True:
        place = _first_reached(desk, symbol, side, tick, level, joined)
        if place == _NOTHING:
            return left
        order = orders[symbol, place]
        level, joined = order.level, order.joined
        offered = left
        if order.level == tick:
            offered = min(left, max(0.0, size - order.ahead) - taken)
            orders[symbol, place].ahead = max(0.0, order.ahead - size)
            orders[symbol, place].traded += size
        else:
            orders[symbol, place].ahead = 0.0
        if offered > 0.0:
            filled = fill(desk, symbol, place, orders[symbol, place].price, _LEVEL, offered, bool(1))
            left -= filled
            if level == tick:
                taken += filled
            if left <= DUST * size:
                left = 0.0


@kernel
def at_book(desk: Desk, books: Books, symbol: int, now_ns: int) -> None:
    """Let orders meet a book after an event: resting ones that the other side reaches, then those that wait to take."""
    orders, symbols, account = desk.orders, desk.symbols, desk.account
    account[0].now_ns = now_ns
    if book_is_sound(books, symbol):
        books.state[symbol].is_reached = 0  # while it is not, whom it had reached is not known to be free of it
        _meet_book(desk, books, symbol, _BUYS)
        _meet_book(desk, books, symbol, _SELLS)
        place = _FIRST
        while place < symbols[symbol].orders:
            order = orders[symbol, place]
            if not order.is_done and order.has_arrived and order.joined == 0:
                enter(desk, books, symbol, place)
            place += 1
    sweep(orders, symbols, symbol)
    rearm_book(desk, books, symbol)


@kernel
def _meet_book(desk: Desk, books: Books, symbol: int, side: int) -> None:
    """Let resting orders of a side meet what the other side shows at or beyond their prices."""
    orders, symbols, state = desk.orders, desk.symbols, books.state
    best = state[symbol].ask if side > 0 else state[symbol].bid
    for place in range(symbols[symbol].orders):
        order = orders[symbol, place]
        if order.side == side and order.joined > 0 and (order.level - best) * side < 0:
            orders[symbol, place].met = 0.0
    if not NO_BID < best < NO_ASK:
        return
    level: Any = np.int64(NO_ASK) * side
    joined: Any = np.int64(0)
    while True:
        place = _first_reached(desk, symbol, side, best, level, joined)
        if place == _NOTHING:
            return
        state[symbol].is_reached = 1
        level, joined = orders[symbol, place].level, orders[symbol, place].joined
        shown = _shown(books, symbol, _ASKS if side > 0 else _BIDS, level, 0.0)
        orders[symbol, place].ahead = 0.0
        offered = shown - orders[symbol, place].met
        if offered > 0.0:
            given = fill(desk, symbol, place, orders[symbol, place].price, _LEVEL, offered, bool(1))
            # What one of them was given is not there for the others.
            for other in range(symbols[symbol].orders):
                theirs = orders[symbol, other]
                if theirs.side == side and theirs.joined > 0 and (theirs.level - best) * side >= 0:
                    orders[symbol, other].met += given


# Cancels and replacements.


@kernel
def replace(desk: Desk, books: Books, symbol: int, place: int, quantity: float, price: float) -> None:
    """Give an order another quantity and price; it keeps its place in the queue where the rule lets it."""
    orders, settings = desk.orders, desk.settings
    order = orders[symbol, place]
    level = np.int64(np.rint(price * books.state[symbol].scale))
    keeps = settings[0].reducing_keeps and order.joined > 0 and level == order.level and quantity <= order.quantity
    orders[symbol, place].quantity = quantity
    orders[symbol, place].price = price
    if not keeps:
        orders[symbol, place].joined = 0
        enter(desk, books, symbol, place)
