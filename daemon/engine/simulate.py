"""The event loop of the backtester: bars, trades, quotes, funding and listed orders of many symbols in order of time.

At one time: bars that end then are matched, funding is paid, listed orders sent before are there, strategies decide at
the closes, the equity is sampled, and then come quotes and trades of that time, in the order of their feeds. Ticks are
fed chunk by chunk; between chunks, and every so many events, the loop returns: its whole state is the records of
`orders`, so it goes on where it stopped, and memory does not grow with the ticks.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.market import Float64s, Int64s
from daemon.engine.costs import record_of
from daemon.engine.deciding import decide
from daemon.engine.fills import equity_of, fill, rearm, send
from daemon.engine.jit import kernel
from daemon.engine.matching import at_price, at_quote, walk_bar
from daemon.engine.orders import (
    ACCOUNT,
    LOG,
    NEVER_NS,
    ORDER,
    SYMBOL,
    Kind,
    Records,
    Reference,
    listed_orders,
    settings_of,
)
from daemon.core.backtest import Reason
from daemon.core.market import NS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daemon.core.backtest import BacktestSpec

_OPEN, _TRADE, _CLOSE = int(Reference.OPEN), int(Reference.TRADE), int(Reference.CLOSE)
_MANUAL = int(Reason.MANUAL)

TRADES: Final = 0
QUOTES: Final = 1

ORDERS_A_SYMBOL: Final = 512
_LOG_ROWS: Final = 32_768
# One event makes no more rows than this a symbol: each of its orders may fill in two parts, and end others.
_LOG_MARGIN: Final = 3 * ORDERS_A_SYMBOL
_SAMPLES: Final = 65_536
_EVENTS_A_STEP: Final = 2_000_000


class Pause(IntEnum):
    """Why a step of the loop returned."""

    DONE = 0
    WANTS_TICKS = 1  # of the feed `account.wanted_feed`
    LOG_FULL = 2
    BREATH = 3  # enough events for one step


class Decisions(NamedTuple):
    """Bars of all symbols, one after another, with what is known at their closes.

    close_ns: (n,) int64, end of each bar. values: (5, n) float64 open, high, low, close, volume in base units.
    signals: (n,) uint8 bits of `deciding`. atr: (n,) float64 quote currency, NaN unknown. sigma, day_volume: (n,)
    float64, daily volatility (a fraction) and volume (base units) as known at the bar's start, NaN unknown.
    funding_ns, funding_rate: (f,) of all symbols, one after another.
    """

    close_ns: Int64s
    values: Float64s
    signals: Records
    atr: Float64s
    sigma: Float64s
    day_volume: Float64s
    funding_ns: Int64s
    funding_rate: Float64s


class Feeds(NamedTuple):
    """Ticks of all feeds, a row each, chunk by chunk.

    time_ns: (feeds, capacity) int64. first, second: (feeds, capacity) float64: price and size, or bid and ask.
    symbol, kind: (feeds,) int64. at, stop: (feeds,) int64, rows of the chunk that are next and in use.
    is_over: (feeds,) uint8, whether no chunk follows.
    """

    time_ns: Int64s
    first: Float64s
    second: Float64s
    symbol: Int64s
    kind: Int64s
    at: Int64s
    stop: Int64s
    is_over: Records


class Chunk(NamedTuple):
    """Ticks of one feed: (n,) int64 ns UTC ascending, and two (n,) float64 columns."""

    time_ns: Int64s
    first: Float64s
    second: Float64s


class Feed(NamedTuple):
    """A stream of ticks. symbol: place in the specification's markets. kind: TRADES or QUOTES."""

    symbol: int
    kind: int
    chunks: Iterator[Chunk]


class SymbolBars(NamedTuple):
    """What the loop needs of one symbol: as `Decisions`, of this symbol alone; `price_step` and so on as of Market."""

    close_ns: Int64s
    values: Float64s
    signals: Records
    atr: Float64s
    sigma: Float64s
    day_volume: Float64s
    funding_ns: Int64s
    funding_rate: Float64s


class Samples(NamedTuple):
    """The account at bars' closes: time_ns (n,) int64; equity, cash, worth of positions, their unrealised pnl."""

    time_ns: Int64s
    equity: Float64s
    cash: Float64s
    worth: Float64s
    unrealised: Float64s


class Outcome(NamedTuple):
    """What a run leaves. log: LOG records. events: bars and ticks. tries: bars that were walked both ways."""

    log: Records
    samples: Samples
    events: int
    tries: int


class Progress(NamedTuple):
    """Where a run is: market time and events so far."""

    now_ns: int
    events: int


class Simulation:
    """One run. Make it, `run` it to the end; between steps a checkpoint may end it."""

    def __init__(
        self,
        spec: BacktestSpec,
        bars: Sequence[SymbolBars],
        feeds: Sequence[Feed] = (),
        *,
        optimistic: bool = False,
        year_days: int = 365,
        orders: Records | None = None,
        chunk_rows: int = 65_536,
    ) -> None:
        """Prepare a run.

        bars: one a market of the specification, in its order. feeds: streams of ticks, none for fills on bars.
        orders: ORDER records in order of sent_ns, instead of those of the specification's own list.
        """
        count = len(bars)
        self._spec = spec
        self._feeds = list(feeds)
        self._decisions = Decisions(
            *(
                np.concatenate([getattr(each, name) for each in bars], axis=-1)
                for name in SymbolBars._fields
            )
        )
        self._width_ns = spec.timeframe.ns
        self._settings = settings_of(spec, year_days, optimistic=optimistic)
        self._costs = record_of(spec.costs, spec.timeframe.ns / NS_PER_DAY)
        self._symbols = np.zeros(count, dtype=SYMBOL)
        self._orders = np.zeros((count, ORDERS_A_SYMBOL), dtype=ORDER)
        self._spare = np.zeros(ORDERS_A_SYMBOL, dtype=ORDER)
        self._account = np.zeros(1, dtype=ACCOUNT)
        self._account["cash"] = spec.account.initial_capital
        self._listed = listed_orders(spec) if orders is None else orders
        self._log = np.zeros(_LOG_ROWS + _LOG_MARGIN * count, dtype=LOG)
        self._samples = np.zeros((4, _SAMPLES))
        self._sample_ns = np.zeros(_SAMPLES, dtype=np.int64)
        self._kept: list[Records] = []
        self._kept_samples: list[Samples] = []
        self._place(bars, spec)
        width = chunk_rows if feeds else 1
        rows = max(len(self._feeds), 1)
        self._ticks = Feeds(
            np.zeros((rows, width), dtype=np.int64),
            np.zeros((rows, width)),
            np.zeros((rows, width)),
            np.array([feed.symbol for feed in self._feeds] or [0], dtype=np.int64),
            np.array([feed.kind for feed in self._feeds] or [TRADES], dtype=np.int64),
            np.zeros(rows, dtype=np.int64),
            np.zeros(rows, dtype=np.int64),
            np.full(rows, not self._feeds, dtype=np.uint8),
        )

    def run(self, checkpoint: Callable[[Progress], None] = lambda _: None) -> Outcome:
        """Run to the end of the data. checkpoint: called between steps; what it raises ends the run."""
        while (pause := self._step()) is not Pause.DONE:
            if pause is Pause.WANTS_TICKS:
                self._refill(int(self._account["wanted_feed"][0]))
            else:
                self._drain()
            checkpoint(Progress(int(self._account["now_ns"][0]), int(self._account["events"][0])))
        self._drain()
        samples = Samples._make(np.concatenate(columns) for columns in zip(*self._kept_samples, strict=True))
        events, tries = int(self._account["events"][0]), int(self._account["tries"][0])
        return Outcome(np.concatenate(self._kept), samples, events, tries)

    def _step(self) -> Pause:
        return Pause(
            step(
                self._orders,
                self._symbols,
                self._account,
                self._settings,
                self._costs,
                self._listed,
                self._decisions,
                self._ticks,
                self._width_ns,
                _EVENTS_A_STEP,
                self._spare,
                self._log,
                self._sample_ns,
                self._samples,
            )
        )

    def _place(self, bars: Sequence[SymbolBars], spec: BacktestSpec) -> None:
        row = funding_row = 0
        for symbol, (each, market) in enumerate(zip(bars, spec.markets, strict=True)):
            values = {
                "row": row,
                "stop_row": row + each.close_ns.size,
                "funding_row": funding_row,
                "funding_stop": funding_row + each.funding_ns.size,
                "tick": market.tick_size,
                "lot": market.lot_size,
                "min_notional": market.min_notional,
                "room": np.inf,
                "volume": np.nan,
                "sigma": np.nan,
                "day_volume": np.nan,
                "high_trigger": np.inf,
                "wake_ns": NEVER_NS,
            }
            for name, value in values.items():
                self._symbols[name][symbol] = value
            row, funding_row = values["stop_row"], values["funding_stop"]

    def _refill(self, feed: int) -> None:
        """Lay a feed's next chunk into its row."""
        ticks = self._ticks
        chunk = next(self._feeds[feed].chunks, None)
        ticks.at[feed] = ticks.stop[feed] = 0
        if chunk is None:
            ticks.is_over[feed] = 1
            return
        size = chunk.time_ns.size
        if size > ticks.time_ns.shape[1]:
            self._ticks = ticks = self._wider(size)
        for column, values in zip(ticks[:3], chunk, strict=True):
            column[feed, :size] = values
        ticks.stop[feed] = size

    def _wider(self, size: int) -> Feeds:
        old = self._ticks
        rows, width = old.time_ns.shape
        wide = [np.zeros((rows, size), dtype=column.dtype) for column in old[:3]]
        for new, column in zip(wide, old[:3], strict=True):
            new[:, :width] = column
        return Feeds(*wide, *old[3:])

    def _drain(self) -> None:
        rows, samples = int(self._account["log_rows"][0]), int(self._account["samples"][0])
        self._kept.append(self._log[:rows].copy())
        self._kept_samples.append(
            Samples(self._sample_ns[:samples].copy(), *(column[:samples].copy() for column in self._samples))
        )
        self._account["log_rows"] = self._account["samples"] = 0


@kernel
def step(  # noqa: C901, PLR0912, PLR0915 - the one loop over events
    orders: Records,
    symbols: Records,
    account: Records,
    settings: Records,
    costs: Records,
    listed: Records,
    bars: Decisions,
    ticks: Feeds,
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
    count = symbols.size
    feeds = ticks.at.size
    on_ticks = settings[0].on_ticks
    margin = _LOG_MARGIN * count
    last_event = account[0].events + budget
    while True:
        if account[0].log_rows + margin > log.size or account[0].samples >= sample_ns.size:
            return 2
        if account[0].events >= last_event:
            return 3
        # What comes next: the earliest bar, tick and listed order.
        bar_ns = NEVER_NS
        for symbol in range(count):
            if symbols[symbol].row < symbols[symbol].stop_row:
                bar_ns = min(bar_ns, bars.close_ns[symbols[symbol].row])
        feed, tick_ns, until_ns = -1, NEVER_NS, NEVER_NS
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
                return 1
        if bar_ns == NEVER_NS and feed < 0:
            break
        now_ns = min(bar_ns, tick_ns)
        listed_ns = listed[account[0].listed].sent_ns if account[0].listed < listed.size else NEVER_NS
        if listed_ns < now_ns or (listed_ns == now_ns and bar_ns > now_ns):
            _send_listed(orders, symbols, account, settings, listed, log)
            continue
        if bar_ns <= tick_ns:
            _bars_end(
                orders, symbols, account, settings, costs, bars, bar_ns, width_ns, spare, log, sample_ns, samples
            )
            continue
        # A run of one feed's ticks, as far as nothing else comes between.
        symbol = ticks.symbol[feed]
        _pay_funding(symbols, account, bars, symbol, tick_ns)
        until_ns = min(until_ns, min(bar_ns, listed_ns))
        if symbols[symbol].funding_row < symbols[symbol].funding_stop:
            until_ns = min(until_ns, bars.funding_ns[symbols[symbol].funding_row])
        at, stop = ticks.at[feed], ticks.stop[feed]
        begun = at
        stop = min(stop, at + budget)
        if ticks.kind[feed] == QUOTES:
            while at < stop and ticks.time_ns[feed, at] < until_ns:
                symbols[symbol].bid = ticks.first[feed, at]
                symbols[symbol].ask = ticks.second[feed, at]
                time_ns = ticks.time_ns[feed, at]
                at += 1
                if symbols[symbol].orders > 0:
                    if symbols[symbol].low_trigger == np.inf or time_ns >= symbols[symbol].wake_ns:
                        at_quote(orders, symbols, account, settings, costs, log, symbol, time_ns)
                        rearm(orders, symbols, settings, symbol)
                        break
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
                at_price(
                    orders,
                    symbols,
                    account,
                    settings,
                    costs,
                    log,
                    symbol,
                    price,
                    time_ns,
                    _TRADE,
                    ticks.second[feed, at],
                )
                rearm(orders, symbols, settings, symbol)
                at += 1
        ticks.at[feed] = at
        account[0].events += at - begun
        account[0].now_ns = ticks.time_ns[feed, at - 1]
    _close_all(orders, symbols, account, settings, costs, log)
    _sample(symbols, account, account[0].now_ns, sample_ns, samples)
    return 0


@kernel
def _send_listed(
    orders: Records, symbols: Records, account: Records, settings: Records, listed: Records, log: Records
) -> None:
    place = account[0].listed
    account[0].listed = place + 1
    order = listed[place : place + 1].copy()
    account[0].now_ns = order[0].sent_ns
    order[0].live_ns = order[0].sent_ns + settings[0].order_latency_ns
    send(orders, symbols, account, log, order)
    rearm(orders, symbols, settings, order[0].symbol)


@kernel
def _bars_end(
    orders: Records,
    symbols: Records,
    account: Records,
    settings: Records,
    costs: Records,
    bars: Decisions,
    bar_ns: int,
    width_ns: int,
    spare: Records,
    log: Records,
    sample_ns: Int64s,
    samples: Float64s,
) -> None:
    """Match the bars that end now, then let their symbols decide, then sample the equity."""
    on_ticks = settings[0].on_ticks
    cap = costs[0].participation_cap
    for symbol in range(symbols.size):
        row = symbols[symbol].row
        if row >= symbols[symbol].stop_row or bars.close_ns[row] != bar_ns:
            continue
        close, volume = bars.values[3, row], bars.values[4, row]
        symbols[symbol].sigma = bars.sigma[row]
        symbols[symbol].day_volume = bars.day_volume[row]
        symbols[symbol].volume = volume
        symbols[symbol].room = cap * volume if cap < np.inf else np.inf
        if not on_ticks:
            opened, high, low = bars.values[0, row], bars.values[1, row], bars.values[2, row]
            start_ns = bar_ns - width_ns
            _pay_funding(symbols, account, bars, symbol, start_ns)
            account[0].now_ns = start_ns
            if (
                low > symbols[symbol].low_trigger
                and high < symbols[symbol].high_trigger
                and start_ns < symbols[symbol].wake_ns
            ):
                if symbols[symbol].quantity != 0.0:
                    symbols[symbol].best = max(symbols[symbol].best, high)
                    symbols[symbol].worst = min(symbols[symbol].worst, low)
            else:
                symbols[symbol].mark = opened
                at_price(
                    orders, symbols, account, settings, costs, log, symbol, opened, start_ns, _OPEN, np.inf
                )
                if symbols[symbol].orders > 0 or symbols[symbol].quantity != 0.0:
                    walk_bar(
                        orders, symbols, account, settings, costs, log, symbol, opened, high, low, close, spare
                    )
                rearm(orders, symbols, settings, symbol)
        symbols[symbol].mark = close
        account[0].events += 1
    account[0].now_ns = bar_ns
    for symbol in range(symbols.size):
        _pay_funding(symbols, account, bars, symbol, bar_ns)
    for symbol in range(symbols.size):
        row = symbols[symbol].row
        if row >= symbols[symbol].stop_row or bars.close_ns[row] != bar_ns:
            continue
        symbols[symbol].row = row + 1
        signals = int(bars.signals[row])
        if symbols[symbol].quantity != 0.0 or signals != 0:
            decide(
                orders,
                symbols,
                account,
                settings,
                log,
                symbol,
                bar_ns,
                bars.values[3, row],
                signals,
                bars.atr[row],
            )
            rearm(orders, symbols, settings, symbol)
    _sample(symbols, account, bar_ns, sample_ns, samples)


@kernel
def _pay_funding(symbols: Records, account: Records, bars: Decisions, symbol: int, until_ns: int) -> None:
    """Pay what fell due until then: longs pay shorts quantity x mark x rate."""
    row = symbols[symbol].funding_row
    while row < symbols[symbol].funding_stop and bars.funding_ns[row] <= until_ns:
        paid = -symbols[symbol].quantity * symbols[symbol].mark * bars.funding_rate[row]
        account[0].cash += paid
        symbols[symbol].funding += paid
        row += 1
    symbols[symbol].funding_row = row


@kernel
def _sample(symbols: Records, account: Records, now_ns: int, sample_ns: Int64s, samples: Float64s) -> None:
    """Note the account; a second sample of one time replaces the first."""
    row = account[0].samples
    if row > 0 and sample_ns[row - 1] == now_ns:
        row -= 1
    worth, cost = 0.0, 0.0
    for symbol in range(symbols.size):
        quantity = symbols[symbol].quantity
        if quantity != 0.0:
            worth += quantity * symbols[symbol].mark
            cost += quantity * symbols[symbol].entry_price
    sample_ns[row] = now_ns
    samples[0, row] = account[0].cash + worth
    samples[1, row] = account[0].cash
    samples[2, row] = worth
    samples[3, row] = worth - cost
    account[0].samples = row + 1


@kernel
def _close_all(
    orders: Records, symbols: Records, account: Records, settings: Records, costs: Records, log: Records
) -> None:
    """Close every position at its last price: the data are over."""
    for symbol in range(symbols.size):
        symbols[symbol].orders = 0
        symbols[symbol].entries = 0
        if symbols[symbol].quantity == 0.0:
            continue
        symbols[symbol].room = np.inf
        order = np.zeros(1, orders.dtype)
        order[0].symbol = symbol
        order[0].side = -1 if symbols[symbol].quantity > 0.0 else 1
        order[0].reason = _MANUAL
        order[0].reduces = 1
        order[0].closes = 1
        order[0].has_arrived = 1
        order[0].sent_ns = account[0].now_ns
        order[0].expires_ns = NEVER_NS
        send(orders, symbols, account, log, order)
        fill(
            orders, symbols, account, settings, costs, log, symbol, 0, symbols[symbol].mark, _CLOSE, np.inf, bool(0)
        )


__all__ = ["Chunk", "Feed", "Kind", "Outcome", "Pause", "Progress", "Simulation", "SymbolBars", "equity_of"]
