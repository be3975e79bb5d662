"""The probe: every (strategy, risk profile) over one series, trade for trade as the contract in `docs/probe.md`.

One kernel serves all combinations: rules arrive as bits, exits as numbers. A short position is a long one in mirrored
prices (negation is exact), so there is one copy of the exit rules. Trades leave in batches that fit a fixed buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.core.market import NS_PER_HOUR, Bars, Float64s, Int64s
from daemon.engine.conditions import Bits
from daemon.engine.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.core.strategy import RiskProfile, Strategy

Int32s = NDArray[np.int32]
Int8s = NDArray[np.int8]

LONG: Final = 1
SHORT: Final = -1
SIDES: Final = {LONG: "long", SHORT: "short"}

EXIT_REASONS: Final = ("signal_exit", "stop_loss", "target", "trailing_stop", "time_stop")
_SIGNAL, _STOP, _TARGET, _TRAILING, _TIME = range(5)

_BATCH_TRADES: Final = 131_072
_NO_LIMIT: Final = 2**31


class Trades(NamedTuple):
    """Trades of some combinations, in order of combination, then entry.

    entry_index, exit_index: (n,) int32 rows of the series. side: (n,) int8, LONG or SHORT. reason: (n,) int8, a place
    in EXIT_REASONS. bars_held: (n,) int32. Prices in quote currency; `pnl_pct`, `max_drawdown`, `max_profit` and
    `pnl_std` are fractions of the entry price, all (n,) float64.
    """

    entry_index: Int32s
    exit_index: Int32s
    side: Int8s
    reason: Int8s
    bars_held: Int32s
    entry_price: Float64s
    exit_price: Float64s
    pnl_pct: Float64s
    max_drawdown: Float64s
    max_profit: Float64s
    pnl_std: Float64s

    @staticmethod
    def empty(capacity: int) -> Trades:
        """Return uninitialised columns to be filled."""
        ints, bytes_ = np.int32, np.int8
        kinds = (ints, ints, bytes_, bytes_, ints, *(np.float64,) * 6)
        return Trades(*(np.empty(capacity, dtype=kind) for kind in kinds))

    def rows(self, stop: int) -> Trades:
        """First rows, as views."""
        return Trades(*(column[:stop] for column in self))


class Groups(NamedTuple):
    """Trades grouped by hour of entry and side, in order of combination, day, hour, long before short.

    open_day: (n,) int32 days since 1970-01-01 UTC. open_hour: (n,) int8. side: (n,) int8. num_trades: (n,) int32.
    The rest (n,) float64 fractions: mean and population deviation of P&L, worst drawdown, best profit.
    """

    open_day: Int32s
    open_hour: Int8s
    side: Int8s
    num_trades: Int32s
    pnl_mean: Float64s
    pnl_std: Float64s
    max_drawdown: Float64s
    max_profit: Float64s

    @staticmethod
    def empty(capacity: int) -> Groups:
        """Return uninitialised columns to be filled."""
        kinds = (np.int32, np.int8, np.int8, np.int32, *(np.float64,) * 4)
        return Groups(*(np.empty(capacity, dtype=kind) for kind in kinds))


class Summary(NamedTuple):
    """One row a combination.

    trades, groups, wins: (c,) int64 counts. pnl_mean, pnl_std (population), worst drawdown and best profit of a
    trade: (c,) float64 fractions, 0 where there are no trades.
    """

    trades: Int64s
    groups: Int64s
    wins: Int64s
    pnl_mean: Float64s
    pnl_std: Float64s
    max_drawdown: Float64s
    max_profit: Float64s

    @staticmethod
    def zeros(combinations: int) -> Summary:
        """Return columns of zeros to be filled."""
        kinds = (np.int64, np.int64, np.int64, *(np.float64,) * 4)
        return Summary(*(np.zeros(combinations, dtype=kind) for kind in kinds))


class Combinations(NamedTuple):
    """What the kernel runs, one row a (strategy, risk profile).

    strategy: (c,) int32 rows of the program's `strategy_signals`. distances: (c, 3) float64 factors of the ATR at the
    fill: stop, target, trail; infinite where an exit is off. time_limit: (c,) int64 bars.
    """

    strategy: Int32s
    distances: Float64s
    time_limit: Int64s


class Batch(NamedTuple):
    """The outcome of combinations [first, first + len(trade_counts)).

    trades: views into a buffer that the next batch overwrites. groups: owned. summary: a row a combination.
    """

    first: int
    trades: Trades
    groups: Groups
    summary: Summary


def combine(strategies: Sequence[Strategy], pairs: Sequence[tuple[int, RiskProfile]]) -> Combinations:
    """Turn (place in strategies, risk profile) pairs into the kernel's arrays.

    A distance is multiplier x scale, then x ATR at the fill, in that order; null or zero switches an exit off. A time
    limit is cut, not rounded.
    """
    distances = np.full((len(pairs), 3), np.inf)
    limits = np.full(len(pairs), _NO_LIMIT, dtype=np.int64)
    for row, (place, profile) in enumerate(pairs):
        strategy = strategies[place]
        scaled = (
            (strategy.atr_stop_mult, profile.stop_scale),
            (strategy.atr_target_mult, profile.target_scale),
            (strategy.trailing_atr_mult, profile.trailing_scale),
        )
        for column, (multiplier, scale) in enumerate(scaled):
            if multiplier:
                distances[row, column] = multiplier * scale
        if strategy.time_stop_bars:
            limits[row] = int(strategy.time_stop_bars * profile.time_scale)
    places = np.array([place for place, _ in pairs], dtype=np.int32)
    return Combinations(places, distances, limits)


def run(
    bars: Bars, atr: Float64s, signals: Bits, strategy_signals: Int32s, combinations: Combinations
) -> Iterator[Batch]:
    """Run all combinations over one series.

    bars: n bars. atr: (n,) float64, the sizing ATR. signals, strategy_signals: from `conditions.signals` and the
    program. Yields batches in order; together they cover every combination once.
    Memory: a buffer of max(131,072, n / 2) trades at 69 bytes, and as many groups at most.
    """
    total = len(combinations.strategy)
    # A trade takes two bars at least, so this room always holds one combination.
    most = len(bars) // 2 + 1
    buffer = Trades.empty(max(_BATCH_TRADES, most))
    hours = bars.start_ns // NS_PER_HOUR
    counts = np.zeros(total, dtype=np.int64)
    prices = (bars.open, bars.high, bars.low, bars.close)
    first = 0
    while first < total:
        done, used = trade(prices, atr, signals, strategy_signals, combinations, first, most, buffer, counts)
        trades = buffer.rows(used)
        groups, summary = Groups.empty(used), Summary.zeros(done - first)
        rows = aggregate(trades, hours, counts[first:done], groups, summary)
        yield Batch(first, trades, Groups(*(column[:rows].copy() for column in groups)), summary)
        first = done


@kernel
def trade(
    prices: tuple[Float64s, Float64s, Float64s, Float64s],
    atr: Float64s,
    signals: Bits,
    strategy_signals: Int32s,
    combinations: Combinations,
    first: int,
    most: int,
    out: Trades,
    counts: Int64s,
) -> tuple[int, int]:
    """Trade combinations from `first` on until one might not fit into `out`.

    prices: open, high, low, close, each (n,) float64. most: the trades one combination can have.
    out: at least `most` rows, overwritten. counts: (c,) int64, set to each combination's number of trades.
    Returns the first combination not run, and the rows used.
    """
    high, low = prices[1], prices[2]
    # Mirrored prices of shorts: what was the low is, negated, the high.
    mirrored_high, mirrored_low = -low, -high
    used = 0
    for combination in range(first, combinations.strategy.size):
        if used + most > out.side.size:
            return combination, used
        rules = strategy_signals[combinations.strategy[combination]]
        distances = combinations.distances[combination]
        limit = combinations.time_limit[combination]
        start = used
        n = high.size
        at = next_long = next_short = 0
        while True:
            next_long = _next_signal(signals, rules[0], max(at, next_long), n - 1)
            next_short = _next_signal(signals, rules[1], max(at, next_short), n - 1)
            signal = min(next_long, next_short)
            if signal >= n - 1:
                break
            fill = signal + 1
            # The fill bar's own ATR; a signal without one is dropped, and its fill bar sees no new signal.
            if not 0 < atr[fill] < np.inf:
                at = fill + 1
                continue
            if next_long <= next_short:
                at = _hold(prices, high, low, atr, signals, rules[2], distances, limit, fill, LONG, out, used)
            else:
                at = _hold(
                    prices, mirrored_high, mirrored_low, atr, signals, rules[3], distances, limit, fill, SHORT, out, used
                )
            if at >= n:
                break
            used += 1
        counts[combination] = used - start
    return combinations.strategy.size, used


@kernel
def _next_signal(signals: Bits, row: int, start: int, stop: int) -> int:
    """Return the first set bit of a row in [start, stop), or `stop`; a negative row has none."""
    if row < 0 or start >= stop:
        return stop
    word = start >> 6
    bits = signals[row, word] >> np.uint64(start & 63) << np.uint64(start & 63)
    while bits == 0:
        word += 1
        if word << 6 >= stop:
            return stop
        bits = signals[row, word]
    at = word << 6
    while bits & np.uint64(0xFF) == 0:
        bits >>= np.uint64(8)
        at += 8
    while bits & np.uint64(1) == 0:
        bits >>= np.uint64(1)
        at += 1
    return min(at, stop)


@kernel
def _hold(
    prices: tuple[Float64s, Float64s, Float64s, Float64s],
    high: Float64s,
    low: Float64s,
    atr: Float64s,
    signals: Bits,
    exit_row: int,
    distances: Float64s,
    limit: int,
    fill: int,
    side: int,
    out: Trades,
    at: int,
) -> int:
    """Hold one position from its fill to its exit.

    high, low: (n,) float64, as the side sees them (mirrored for shorts). distances: stop, target, trail in ATR.
    Returns the exit bar and fills row `at` of `out`; or returns n, and the position is dropped with the data's end.
    """
    n = high.size
    entry_price = prices[0][fill]
    entry = side * entry_price
    stop_level = entry - distances[0] * atr[fill]
    target_level = entry + distances[1] * atr[fill]
    trail = distances[2] * atr[fill]
    trail_level = entry - trail
    signal_bar = _next_signal(signals, exit_row, fill + 1, n)
    time_bar = fill + max(limit, 1)
    best = worst = entry
    reason, exit_level, bar = -1, 0.0, fill + 1
    last = min(signal_bar, time_bar + 1, n)
    while bar < last:
        best = max(best, high[bar])
        worst = min(worst, low[bar])
        trail_level = max(trail_level, high[bar] - trail)
        if low[bar] <= stop_level:
            reason, exit_level = _STOP, stop_level
            break
        if high[bar] >= target_level:
            reason, exit_level = _TARGET, target_level
            break
        if low[bar] <= trail_level:
            reason, exit_level = _TRAILING, trail_level
            break
        bar += 1
    held = bar - fill
    if reason < 0:
        if last == n and signal_bar >= n and time_bar >= n:
            return n
        if signal_bar <= time_bar:
            bar, held, reason = signal_bar, signal_bar - fill - 1, _SIGNAL
        else:
            bar, held, reason = time_bar, time_bar - fill, _TIME
        exit_level = side * prices[3][bar]
    out.entry_index[at] = fill
    out.exit_index[at] = bar
    out.side[at] = side
    out.reason[at] = reason
    out.bars_held[at] = held
    out.entry_price[at] = entry_price
    out.exit_price[at] = side * exit_level
    out.pnl_pct[at] = (exit_level - entry) / entry_price
    out.max_drawdown[at] = (entry - worst) / entry_price
    out.max_profit[at] = (best - entry) / entry_price
    out.pnl_std[at] = _return_deviation(prices[3], entry_price, fill + 1, held)
    return bar


@kernel
def _return_deviation(close: Float64s, entry_price: float, first: int, bars: int) -> float:
    """Population standard deviation of (close - entry) / entry over `bars` closes; 0 for fewer than two."""
    if bars < 2:
        return 0.0
    total = 0.0
    for i in range(first, first + bars):
        total += (close[i] - entry_price) / entry_price
    mean = total / bars
    squares = 0.0
    for i in range(first, first + bars):
        deviation = (close[i] - entry_price) / entry_price - mean
        squares += deviation * deviation
    return np.sqrt(squares / bars)  # type: ignore[no-any-return]


@kernel
def aggregate(trades: Trades, hours: Int64s, counts: Int64s, groups: Groups, summary: Summary) -> int:
    """Group each combination's trades by hour of entry and side, and sum each combination up.

    trades: as `trade` left them. hours: (n,) int64, hours since 1970 of each bar. counts: (c,) int64 trades a
    combination. groups: at least as many rows as trades, overwritten. summary: (c,) zeros, overwritten.
    Returns the rows of `groups` used.
    """
    row = start = 0
    for combination in range(counts.size):
        stop = start + counts[combination]
        first_row = row
        at = start
        while at < stop:
            hour = hours[trades.entry_index[at]]
            after = at + 1
            while after < stop and hours[trades.entry_index[after]] == hour:
                after += 1
            for side in (LONG, SHORT):
                row += _group(trades, at, after, side, hour, groups, row)
            at = after
        summary.trades[combination] = counts[combination]
        summary.groups[combination] = row - first_row
        _sum_up(trades, start, stop, summary, combination)
        start = stop
    return row


@kernel
def _group(trades: Trades, start: int, stop: int, side: int, hour: int, groups: Groups, row: int) -> int:
    """Write the group of one hour and side; return 1, or 0 where the hour has no trade of that side."""
    count, total = 0, 0.0
    drawdown = profit = 0.0
    for i in range(start, stop):
        if trades.side[i] == side:
            count += 1
            total += trades.pnl_pct[i]
            drawdown = max(drawdown, trades.max_drawdown[i])
            profit = max(profit, trades.max_profit[i])
    if count == 0:
        return 0
    mean = total / count
    squares = 0.0
    for i in range(start, stop):
        if trades.side[i] == side:
            squares += (trades.pnl_pct[i] - mean) ** 2
    groups.open_day[row] = hour // 24
    groups.open_hour[row] = hour % 24
    groups.side[row] = side
    groups.num_trades[row] = count
    groups.pnl_mean[row] = mean
    groups.pnl_std[row] = np.sqrt(squares / count) if count > 1 else 0.0
    groups.max_drawdown[row] = drawdown
    groups.max_profit[row] = profit
    return 1


@kernel
def _sum_up(trades: Trades, start: int, stop: int, summary: Summary, row: int) -> None:
    if start == stop:
        return
    total = 0.0
    for i in range(start, stop):
        total += trades.pnl_pct[i]
        summary.wins[row] += trades.pnl_pct[i] > 0
        summary.max_drawdown[row] = max(summary.max_drawdown[row], trades.max_drawdown[i])
        summary.max_profit[row] = max(summary.max_profit[row], trades.max_profit[i])
    mean = total / (stop - start)
    squares = 0.0
    for i in range(start, stop):
        squares += (trades.pnl_pct[i] - mean) ** 2
    summary.pnl_mean[row] = mean
    summary.pnl_std[row] = np.sqrt(squares / (stop - start))
