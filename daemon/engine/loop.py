"""The one loop over events: bars, trades, quotes, funding and listed orders of many symbols in order of time.

It is long because what happens at every bar and every tick is written out here, where a call would cost more than what
it does; what is rare is called.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from daemon.core.backtest import Reason
from daemon.core.market import Float64s, Int64s
from daemon.engine.book import LAST, DepthRows, replay
from daemon.engine.book_matching import arrive, at_book, at_trade, book_is_sound
from daemon.engine.costs import ORDER_BOOK
from daemon.engine.deciding import ENTER_LONG, ENTER_SHORT, EXIT_LONG, EXIT_SHORT, decide
from daemon.engine.feeds import DEPTH, QUOTES, Closes, Feeds, Pause
from daemon.engine.intrinsics import call_at, uncounted
from daemon.engine.jit import constants, kernel
from daemon.engine.ladders import Ladders, open_book
from daemon.engine.latency import Delays, feed_delay
from daemon.engine.levels import Books
from daemon.engine.matching import at_price, at_quote, walk_bar
from daemon.engine.occasions import arrival, close, pay_funding, send_listed
from daemon.engine.orders import NEVER_NS, Desk, Records, Reference, Status
from daemon.engine.requests import COMPILED, IN_PYTHON, Calls, take_message, take_requests
from daemon.engine.working import rearm

_OPEN, _TRADE, _CLOSE = constants([Reference.OPEN, Reference.TRADE, Reference.CLOSE])
(_MANUAL,) = constants([Reason.MANUAL])
_DONE, _WANTS_TICKS, _LOG_FULL, _BREATH, _CALL = constants(Pause)
_FIRST, _NONE, _NEVER_NS = constants([0, -1, NEVER_NS])
(_FILLED,) = constants([Status.FILLED])

# Handlers of an own strategy, as of `own.Handler`.
_ON_BAR, _ON_TRADE, _ON_BOOK, _ON_FILL, _ON_TIMER = constants(range(5))

ORDERS_A_SYMBOL: Final = 512
# Rows that are free before each event, for each symbol: each of its orders may fill in two parts, and what it sends.
# A run for which that was too little ends with an error (`account.lost_rows`).
LOG_MARGIN: Final = 6 * ORDERS_A_SYMBOL


@kernel
def step(  # noqa: C901, PLR0912, PLR0915 - the one loop over events
    orders: Records,
    symbols: Records,
    account: Records,
    settings: Records,
    costs: Records,
    listed: Records,
    bars: Closes,
    ladders: Ladders,
    ticks: Feeds,
    depth: DepthRows,
    books: Books,
    calls: Calls,
    delays: Delays,
    width_ns: int,
    budget: int,
    spare: Records,
    log: Records,
    sample_ns: Int64s,
    samples: Float64s,
) -> int:
    """Process events until the data end, a feed's chunk is used up, a buffer is full, or `budget` events are done.

    width_ns: length of a bar. Records as of `orders`; log, sample_ns (m,) and samples (4 or more, m) take what happens.
    Returns a Pause.
    """
    # The caller owns them all.
    orders, symbols, account = uncounted(orders), uncounted(symbols), uncounted(account)
    settings, costs, log = uncounted(settings), uncounted(costs), uncounted(log)
    listed, spare, bars, ladders = uncounted(listed), uncounted(spare), uncounted(bars), uncounted(ladders)
    ticks, depth, books = uncounted(ticks), uncounted(depth), uncounted(books)
    calls, delays = uncounted(calls), uncounted(delays)
    desk = Desk(orders, symbols, account, settings, costs, log)
    count = symbols.size
    feeds = ticks.at.size
    on_ticks, on_book = settings[0].on_ticks, settings[0].on_book
    margin = LOG_MARGIN * count
    last_event = account[0].events + budget
    modes, event = calls.modes, calls.event
    address, table = calls.places[0], calls.places[1]
    told_from_ns, timer_every_ns = calls.start_ns[0], calls.timer_ns[0]
    is_own = bool(modes[_ON_BAR] | modes[_ON_TRADE] | modes[_ON_BOOK] | modes[_ON_FILL] | modes[_ON_TIMER])
    tells_trades, tells_books = modes[_ON_TRADE] != 0, modes[_ON_BOOK] != 0
    message_width_ns = 0 if on_ticks else width_ns
    # A feed latency that never changes is not asked for at each event.
    feed_ns = delays.constants[0].feed_ns
    is_steady = delays.constants[0].feed_spread_ns == 0 and delays.constants[0].feed_factor == 0.0
    while True:
        if is_own:
            # What a handler asked for goes out before anything else happens; then it hears of fills, then the rest.
            if account[0].requests > 0:
                take_requests(desk, calls, delays, message_width_ns)
            handler = np.int64(-1)
            if account[0].told_rows < account[0].log_rows:
                row = account[0].told_rows
                account[0].told_rows = row + 1
                if modes[_ON_FILL] == 0 or log[row].status != _FILLED:
                    continue
                handler = _ON_FILL
                event[0].symbol, event[0].order, event[0].side = log[row].symbol, log[row].order_id, log[row].side
                event[0].size, event[0].price = log[row].quantity, log[row].price
                event[0].is_maker = log[row].is_maker
            elif account[0].called < account[0].calls:
                waiting = calls.waiting[account[0].called]
                handler = waiting.kind
                event[0].symbol = waiting.symbol
                event[0].price, event[0].size, event[0].side = waiting.price, waiting.size, waiting.side
                account[0].called += 1
            if handler >= 0:
                event[0].kind = handler
                delay_ns = feed_ns if is_steady else feed_delay(delays, event[0].symbol, account[0].now_ns)
                account[0].seen_ns = max(account[0].seen_ns, account[0].now_ns + delay_ns)
                event[0].now_ns = account[0].seen_ns
                if modes[handler] == IN_PYTHON:
                    return _CALL  # type: ignore[no-any-return]
                call_at(address, table, handler)
                continue
            account[0].calls = account[0].called = 0
        if account[0].log_rows + margin > log.size or account[0].samples >= sample_ns.size:
            return _LOG_FULL  # type: ignore[no-any-return]
        if account[0].events >= last_event:
            return _BREATH  # type: ignore[no-any-return]
        # What comes next: the earliest bar, tick and listed order.
        bar_ns = _NEVER_NS
        for symbol in range(count):
            if symbols[symbol].row < symbols[symbol].stop_row:
                bar_ns = min(bar_ns, bars.close_ns[symbols[symbol].row])
        feed, tick_ns, until_ns = _NONE, _NEVER_NS, _NEVER_NS
        for each in range(feeds):
            if ticks.at[each] < ticks.stop[each]:
                time_ns = ticks.time_ns[each, ticks.at[each]]
                if time_ns < tick_ns:
                    until_ns = min(until_ns, tick_ns)
                    feed, tick_ns = each, time_ns
                else:
                    # A feed that is listed later waits at equal times.
                    until_ns = min(until_ns, time_ns + 1)
            elif not ticks.is_over[each]:
                account[0].wanted_feed = each
                return _WANTS_TICKS  # type: ignore[no-any-return]
        if bar_ns == NEVER_NS and feed < 0:
            break
        now_ns = min(bar_ns, tick_ns)
        due_ns, wake_symbol = _NEVER_NS, _NONE
        if is_own or on_book:
            # Messages, orders on their way to a book, and timers that are due before it.
            if account[0].first_message < account[0].next_message:
                due_ns = calls.messages[account[0].first_message % calls.messages.size].arrives_ns
            reach_ns = now_ns if on_ticks or bar_ns > tick_ns else now_ns - width_ns
            if on_book:
                for symbol in range(count):
                    if symbols[symbol].wake_ns < due_ns:
                        due_ns, wake_symbol = symbols[symbol].wake_ns, symbol
            if timer_every_ns > 0 and account[0].timer_at_ns < due_ns:
                due_ns = account[0].timer_at_ns
                if due_ns <= now_ns:
                    account[0].now_ns = max(account[0].now_ns, due_ns)
                    account[0].seen_ns = max(account[0].seen_ns, account[0].timer_ns)
                    calls.waiting[account[0].calls].kind = _ON_TIMER
                    calls.waiting[account[0].calls].symbol = 0
                    account[0].calls += 1
                    account[0].timer_ns += timer_every_ns
                    delay_ns = feed_ns if is_steady else feed_delay(delays, _FIRST, account[0].timer_ns)
                    account[0].timer_at_ns = account[0].timer_ns - delay_ns
                    continue
            elif due_ns <= reach_ns:
                if wake_symbol >= 0:
                    arrive(desk, books, wake_symbol, due_ns)
                else:
                    take_message(desk, books, calls)
                continue
        listed_ns = listed[account[0].listed].sent_ns if account[0].listed < listed.size else NEVER_NS
        if listed_ns < now_ns or (listed_ns == now_ns and bar_ns > now_ns):
            if on_book:
                following = listed[account[0].listed]
                settings[0].order_latency_ns = arrival(desk, delays, following.symbol, following.sent_ns)
            send_listed(desk, listed)
            continue
        if bar_ns <= tick_ns:
            # Bars that end now are matched with their symbols' orders.
            start_ns = bar_ns - width_ns
            for symbol in range(count):
                row = symbols[symbol].row
                if row >= symbols[symbol].stop_row or bars.close_ns[row] != bar_ns:
                    continue
                volume, cap = bars.values[4, row], costs[symbol].participation_cap
                symbols[symbol].sigma = bars.sigma[row]
                symbols[symbol].day_volume = bars.day_volume[row]
                symbols[symbol].volume = volume
                symbols[symbol].room = cap * volume if cap < np.inf else np.inf
                if costs[symbol].model == ORDER_BOOK:
                    open_book(costs, symbols, symbol, ladders, row)
                if not on_ticks:
                    funding_row = symbols[symbol].funding_row
                    if funding_row < symbols[symbol].funding_stop and bars.funding_ns[funding_row] <= start_ns:
                        pay_funding(symbols, account, bars, symbol, start_ns)
                    high, low = bars.values[1, row], bars.values[2, row]
                    if (
                        low > symbols[symbol].low_trigger
                        and high < symbols[symbol].high_trigger
                        and start_ns < symbols[symbol].wake_ns
                    ):
                        symbols[symbol].meets = 0
                        if symbols[symbol].quantity != 0.0:
                            symbols[symbol].best = max(symbols[symbol].best, high)
                            symbols[symbol].worst = min(symbols[symbol].worst, low)
                    else:
                        symbols[symbol].meets = 1
                    symbols[symbol].mark = bars.values[0, row]
                elif symbols[symbol].orders > 0:
                    rearm(desk, symbol)
                account[0].events += 1
            if not on_ticks:
                # All opens before any path: what one symbol earns inside of its bar cannot pay for another's open.
                for symbol in range(count):
                    row = symbols[symbol].row
                    ends = row < symbols[symbol].stop_row and bars.close_ns[row] == bar_ns
                    if ends and symbols[symbol].meets:
                        opened = bars.values[0, row]
                        at_price(desk, symbol, opened, start_ns, _OPEN, np.inf)
                for symbol in range(count):
                    row = symbols[symbol].row
                    ends = row < symbols[symbol].stop_row and bars.close_ns[row] == bar_ns
                    if ends and symbols[symbol].meets:
                        if symbols[symbol].orders > 0 or symbols[symbol].quantity != 0.0:
                            opened, high = bars.values[0, row], bars.values[1, row]
                            low, closed = bars.values[2, row], bars.values[3, row]
                            walk_bar(desk, symbol, opened, high, low, closed, spare)
                        rearm(desk, symbol)
            for symbol in range(count):
                row = symbols[symbol].row
                if row < symbols[symbol].stop_row and bars.close_ns[row] == bar_ns:
                    symbols[symbol].mark = bars.values[3, row]
            account[0].now_ns = bar_ns
            for symbol in range(count):
                funding_row = symbols[symbol].funding_row
                if funding_row < symbols[symbol].funding_stop and bars.funding_ns[funding_row] <= bar_ns:
                    pay_funding(symbols, account, bars, symbol, bar_ns)
            # Strategies decide at the closes, where there is something to decide.
            for symbol in range(count):
                row = symbols[symbol].row
                if row >= symbols[symbol].stop_row or bars.close_ns[row] != bar_ns:
                    continue
                symbols[symbol].row = row + 1
                if row + 1 == symbols[symbol].stop_row:
                    # Its data are over: what is held is sold at this close, and nothing is decided any more.
                    close(desk, symbol)
                    continue
                signals: Any = np.int64(bars.signals[row])
                held = symbols[symbol].quantity
                if held != 0.0:
                    symbols[symbol].held_bars += 1
                    wants = symbols[symbol].held_bars >= settings[0].timeout_bars
                    wants |= signals & (EXIT_LONG if held > 0.0 else EXIT_SHORT) != 0
                    wants |= settings[0].is_averaging != 0 and signals != 0
                    wants |= symbols[symbol].entries > 0 and signals & (EXIT_LONG | EXIT_SHORT) != 0
                elif symbols[symbol].entries > 0 and not settings[0].is_averaging:
                    wants = signals & (EXIT_LONG | EXIT_SHORT) != 0
                else:
                    wants = signals & (ENTER_LONG | ENTER_SHORT) != 0
                if wants:
                    if on_book:
                        delay_ns = feed_delay(delays, symbol, bar_ns)
                        settings[0].latency_ns = delay_ns + arrival(desk, delays, symbol, bar_ns + delay_ns)
                    decide(desk, symbol, bar_ns, bars.values[3, row], signals, bars.atr[row])
                    rearm(desk, symbol)
                if modes[_ON_BAR] != 0 and bar_ns > told_from_ns:
                    calls.waiting[account[0].calls].kind = _ON_BAR
                    calls.waiting[account[0].calls].symbol = symbol
                    account[0].calls += 1
            # The account at this close.
            worth, cost = 0.0, 0.0
            for symbol in range(count):
                held = symbols[symbol].quantity
                worth += held * symbols[symbol].mark
                cost += held * symbols[symbol].entry_price
            row = account[0].samples
            sample_ns[row] = bar_ns
            samples[0, row] = account[0].cash + worth
            samples[1, row] = account[0].cash
            samples[2, row] = worth
            samples[3, row] = worth - cost
            account[0].samples = row + 1
            continue
        symbol = ticks.symbol[feed]
        if symbols[symbol].row >= symbols[symbol].stop_row:
            # Its bars are over, it has been closed: its ticks are none.
            ticks.at[feed] = ticks.stop[feed]
            continue
        # A run of one feed's ticks, as far as nothing else comes between.
        until_ns = min(until_ns, bar_ns, listed_ns, due_ns)
        for each in range(count):
            pay_funding(symbols, account, bars, each, tick_ns)
            if symbols[each].funding_row < symbols[each].funding_stop:
                until_ns = min(until_ns, bars.funding_ns[symbols[each].funding_row])
        at, stop = ticks.at[feed], ticks.stop[feed]
        begun = at
        stop = min(stop, at + budget)
        if ticks.kind[feed] == DEPTH:
            tells: Any = np.int64(tells_books and tick_ns >= told_from_ns)
            at = replay(
                books,
                depth,
                feed,
                symbol,
                at,
                stop,
                until_ns,
                tells,
                orders,
                symbols[symbol].orders,
                settings[0].queue_model,
                settings[0].queue_exponent,
            )
            if at > begun and depth.marks[feed, at - 1] & LAST:
                time_ns = ticks.time_ns[feed, at - 1]
                book = books.state[symbol]
                if book.ask <= book.highest_buy or book.bid >= book.lowest_sell or book.is_reached:
                    at_book(desk, books, symbol, time_ns)
                if tells and book_is_sound(books, symbol):
                    account[0].now_ns = time_ns
                    calls.waiting[account[0].calls].kind = _ON_BOOK
                    calls.waiting[account[0].calls].symbol = symbol
                    account[0].calls += 1
        elif ticks.kind[feed] == QUOTES:
            while at < stop and ticks.time_ns[feed, at] < until_ns:
                bid, ask = ticks.first[feed, at], ticks.second[feed, at]
                # A quote that is none, or crossed, is as good as no quote.
                is_sound = 0.0 < bid <= ask < np.inf
                symbols[symbol].bid = bid if is_sound else 0.0
                symbols[symbol].ask = ask if is_sound else 0.0
                time_ns = ticks.time_ns[feed, at]
                at += 1
                takes = symbols[symbol].low_trigger == np.inf or time_ns >= symbols[symbol].wake_ns
                if takes and is_sound and symbols[symbol].orders > 0:
                    at_quote(desk, symbol, time_ns)
                    rearm(desk, symbol)
                    break
        elif tells_trades:
            # As below, trade by trade: a compiled handler is called here, for a call of its own costs more than it.
            while at < stop and ticks.time_ns[feed, at] < until_ns:
                price, size = ticks.first[feed, at], ticks.second[feed, at]
                time_ns = ticks.time_ns[feed, at]
                aggressor: Any = np.int64(ticks.aggressor[feed, at])
                at += 1
                market = symbols[symbol]
                market.mark = price
                if price <= market.low_trigger or price >= market.high_trigger or time_ns >= market.wake_ns:
                    if on_book:
                        at_trade(desk, books, symbol, price, size, aggressor, time_ns)
                    else:
                        at_price(desk, symbol, price, time_ns, _TRADE, size)
                        rearm(desk, symbol)
                elif market.quantity != 0.0:
                    market.best = max(market.best, price)
                    market.worst = min(market.worst, price)
                account[0].now_ns = time_ns
                if time_ns < told_from_ns:
                    continue
                delay_ns = feed_ns if is_steady else feed_delay(delays, symbol, time_ns)
                account[0].seen_ns = max(account[0].seen_ns, time_ns + delay_ns)
                if account[0].log_rows > account[0].told_rows:
                    # It hears of its fills first.
                    waiting = calls.waiting[0]
                    waiting.kind, waiting.symbol = _ON_TRADE, symbol
                    waiting.price, waiting.size, waiting.side = price, size, aggressor
                    account[0].calls = 1
                    break
                event[0].kind = _ON_TRADE
                event[0].symbol = symbol
                event[0].now_ns = account[0].seen_ns
                event[0].price = price
                event[0].size = size
                event[0].side = aggressor
                if modes[_ON_TRADE] == COMPILED:
                    call_at(address, table, _ON_TRADE)
                    if account[0].requests > 0:
                        break
                else:
                    ticks.at[feed] = at
                    account[0].events += at - begun
                    return _CALL  # type: ignore[no-any-return]
        else:
            low, high = symbols[symbol].low_trigger, symbols[symbol].high_trigger
            wake_ns = min(symbols[symbol].wake_ns, until_ns)
            best, worst = -np.inf, np.inf
            price = symbols[symbol].mark
            while at < stop:
                time_ns = ticks.time_ns[feed, at]
                now = ticks.first[feed, at]
                if time_ns >= wake_ns or now <= low or now >= high:
                    break
                price = now
                best = max(best, now)
                worst = min(worst, now)
                at += 1
            if at > begun:
                symbols[symbol].mark = price
                if symbols[symbol].quantity != 0.0:
                    symbols[symbol].best = max(symbols[symbol].best, best)
                    symbols[symbol].worst = min(symbols[symbol].worst, worst)
            if at < stop and ticks.time_ns[feed, at] < until_ns:
                price, time_ns = ticks.first[feed, at], ticks.time_ns[feed, at]
                symbols[symbol].mark = price
                if on_book:
                    aggressor = np.int64(ticks.aggressor[feed, at])
                    at_trade(desk, books, symbol, price, ticks.second[feed, at], aggressor, time_ns)
                else:
                    at_price(desk, symbol, price, time_ns, _TRADE, ticks.second[feed, at])
                    rearm(desk, symbol)
                at += 1
        ticks.at[feed] = at
        account[0].events += at - begun
        if at > begun:
            account[0].now_ns = ticks.time_ns[feed, at - 1]
    return _DONE  # type: ignore[no-any-return]
