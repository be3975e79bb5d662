"""The probe: every (strategy, risk profile) over one series, trade for trade as the contract in `docs/probe.md`.

One kernel serves all combinations: rules arrive as bits, exits as numbers. A short position is a long one in mirrored
prices (negation is exact), so there is one copy of the exit rules. Trades leave in batches that fit a fixed buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.core.market import NS_PER_HOUR, Bars, Float64s, Int64s
from daemon.core.strategy import EXIT_REASONS, LONG, SHORT
from daemon.engine.conditions import Bits
from daemon.engine.jit import kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.core.strategy import RiskProfile, Strategy

Int32s = NDArray[np.int32]
Int8s = NDArray[np.int8]

_SIGNAL, _STOP, _TARGET, _TRAILING, _TIME = range(len(EXIT_REASONS))

_EITHER: Final = 0

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
        return Trades._make(np.empty(capacity, dtype=kind) for kind in kinds)

    def rows(self, stop: int) -> Trades:
        """First rows, as views."""
        return Trades._make(column[:stop] for column in self)


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
        return Groups._make(np.empty(capacity, dtype=kind) for kind in kinds)


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
        return Summary._make(np.zeros(combinations, dtype=kind) for kind in kinds)


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
            limits[row] = int(min(strategy.time_stop_bars * profile.time_scale, _NO_LIMIT))
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
    most = bars.size // 2 + 1
    buffer = Trades.empty(max(_BATCH_TRADES, most))
    counts = np.zeros(total, dtype=np.int64)
    prices = (bars.open, bars.high, bars.low, bars.close)
    first = 0
    while first < total:
        done, used = trade(prices, atr, signals, strategy_signals, combinations, first, most, buffer, counts)
        trades = buffer.rows(used)
        yield Batch(first, trades, *group(trades, bars, counts[first:done]))
        first = done


def group(trades: Trades, bars: Bars, counts: Int64s) -> tuple[Groups, Summary]:
    """Group trades by hour of entry and side, and sum combinations up.

    trades: of the series `bars`. counts: (c,) int64, trades a combination, in order.
    """
    groups, summary = Groups.empty(trades.side.size), Summary.zeros(counts.size)
    rows = aggregate(trades, bars.start_ns // NS_PER_HOUR, counts, groups, summary)
    return Groups._make(column[:rows] for column in groups), summary


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
    One long function: numba counts references at every call that passes arrays, which doubles the time of a trade.
    """
    opens, high, low, close = prices
    # Mirrored prices of shorts: what was the low is, negated, the high.
    mirrored_high, mirrored_low = -low, -high
    n = high.size
    used = 0
    for combination in range(first, combinations.strategy.size):
        if used + most > out.side.size:
            return combination, used
        rows = strategy_signals[combinations.strategy[combination]]
        stop_atr, target_atr, trail_atr = combinations.distances[combination]
        limit = max(combinations.time_limit[combination], 1)
        start = used
        at = next_long = next_short = 0
        while True:
            next_long = _next_signal(signals, rows[0], max(at, next_long), n - 1)
            next_short = _next_signal(signals, rows[1], max(at, next_short), n - 1)
            # No signal is taken on the last bar; a long wins a tie.
            if min(next_long, next_short) >= n - 1:
                break
            side = LONG if next_long <= next_short else SHORT
            fill = min(next_long, next_short) + 1
            # The fill bar's own ATR; a signal without one is dropped, and its fill bar sees no new signal.
            if not 0 < atr[fill] < np.inf:
                at = fill + 1
                continue
            entry = side * opens[fill]
            signal_bar = _next_signal(signals, rows[2] if side == LONG else rows[3], fill + 1, n)
            time_bar = fill + limit
            bar, reason, level, best, worst, moves = _walk(
                high if side == LONG else mirrored_high,
                low if side == LONG else mirrored_low,
                close,
                fill + 1,
                min(signal_bar, time_bar + 1, n),
                entry,
                entry - stop_atr * atr[fill],
                entry + target_atr * atr[fill],
                trail_atr * atr[fill],
            )
            held = bar - fill
            if reason < 0:
                if min(signal_bar, time_bar) >= n:
                    break  # open at the end of the data: dropped
                # A signal exit takes its bar from the mechanical exits, so that bar is not counted as held.
                reason = _SIGNAL if signal_bar <= time_bar else _TIME
                bar = min(signal_bar, time_bar)
                held = bar - fill - (1 if reason == _SIGNAL else 0)
                level = side * close[bar]
            entry_price = opens[fill]
            out.entry_index[used] = fill
            out.exit_index[used] = bar
            out.side[used] = side
            out.reason[used] = reason
            out.bars_held[used] = held
            out.entry_price[used] = entry_price
            out.exit_price[used] = side * level
            out.pnl_pct[used] = (level - entry) / entry_price
            out.max_drawdown[used] = (entry - worst) / entry_price
            out.max_profit[used] = (best - entry) / entry_price
            out.pnl_std[used] = _deviation(close, entry_price, fill + 1, held, moves) / entry_price
            used += 1
            at = bar
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
def _walk(
    high: Float64s,
    low: Float64s,
    close: Float64s,
    start: int,
    stop: int,
    entry: float,
    stop_level: float,
    target_level: float,
    trail: float,
) -> tuple[int, int, float, float, float, float]:
    """Walk bars [start, stop) until a price takes the position out.

    high, low: (n,) float64 as the side sees them; close: as it is. Levels and `trail`, a distance, in the side's
    prices; infinite where an exit is off.
    Returns bar, reason (-1: none), fill level, best and worst price since the entry, and the sum of close - entry.
    The trail ratchets on the bar's own high before its low is tested: optimistic, and the contract.
    """
    best = worst = entry
    entry_price = abs(entry)
    moves = 0.0
    trail_level = entry - trail
    for bar in range(start, stop):
        best = max(best, high[bar])
        worst = min(worst, low[bar])
        moves += close[bar] - entry_price
        trail_level = max(trail_level, high[bar] - trail)
        if low[bar] <= stop_level:
            return bar, _STOP, stop_level, best, worst, moves
        if high[bar] >= target_level:
            return bar, _TARGET, target_level, best, worst, moves
        if low[bar] <= trail_level:
            return bar, _TRAILING, trail_level, best, worst, moves
    return stop, -1, 0.0, best, worst, moves


@kernel
def _deviation(close: Float64s, entry_price: float, start: int, bars: int, moves: float) -> float:
    """Return the population deviation of close - entry over `bars` closes that sum to `moves`; 0 below two."""
    if bars < 2:  # noqa: PLR2004 - one bar deviates from nothing
        return 0.0
    mean = moves / bars
    squares = 0.0
    for i in range(start, start + bars):
        squares += (close[i] - entry_price - mean) ** 2
    return np.sqrt(squares / bars)  # type: ignore[no-any-return]


@kernel
def aggregate(trades: Trades, hours: Int64s, counts: Int64s, groups: Groups, summary: Summary) -> int:
    """Group each combination's trades by hour of entry and side, and sum each combination up.

    trades: as `trade` left them. hours: (n,) int64, hours since 1970 of each bar. counts: (c,) int64 trades a
    combination. groups: at least as many rows as trades, overwritten. summary: (c,) zeros, overwritten.
    Returns the rows of `groups` used.
    """
    entry_index, sides, pnl = trades.entry_index, trades.side, trades.pnl_pct
    drawdowns, profits = trades.max_drawdown, trades.max_profit
    # Typed, because numba would compile `_statistics` once more for each literal it meets.
    row = start = int(np.int64(0))
    either = int(np.int64(_EITHER))
    for combination in range(counts.size):
        stop = start + counts[combination]
        first_row = row
        at = start
        while at < stop:
            hour = hours[entry_index[at]]
            after = at + 1
            while after < stop and hours[entry_index[after]] == hour:
                after += 1
            for side in (LONG, SHORT):
                if after == at + 1:
                    # The usual case by far: one trade is its own mean, and a call would cost more than the rest.
                    count = int(sides[at] == side)
                    mean, deviation, drawdown, profit = pnl[at], 0.0, drawdowns[at], profits[at]
                else:
                    count, mean, deviation, drawdown, profit, _ = _statistics(
                        sides, pnl, drawdowns, profits, at, after, side
                    )
                if count == 0:
                    continue
                groups.open_day[row] = hour // 24
                groups.open_hour[row] = hour % 24
                groups.side[row] = side
                groups.num_trades[row] = count
                groups.pnl_mean[row] = mean
                groups.pnl_std[row] = deviation
                groups.max_drawdown[row] = drawdown
                groups.max_profit[row] = profit
                row += 1
            at = after
        _, mean, deviation, drawdown, profit, wins = _statistics(sides, pnl, drawdowns, profits, start, stop, either)
        summary.trades[combination] = stop - start
        summary.groups[combination] = row - first_row
        summary.wins[combination] = wins
        summary.pnl_mean[combination] = mean
        summary.pnl_std[combination] = deviation
        summary.max_drawdown[combination] = drawdown
        summary.max_profit[combination] = profit
        start = stop
    return row


@kernel
def _statistics(
    sides: Int8s, pnl: Float64s, drawdowns: Float64s, profits: Float64s, start: int, stop: int, side: int
) -> tuple[int, float, float, float, float, int]:
    """Trades [start, stop) of one side (or either): count, mean and population deviation of P&L, extremes, wins."""
    count = wins = 0
    total = drawdown = profit = 0.0
    for i in range(start, stop):
        if side * sides[i] >= 0:  # _EITHER is 0
            count += 1
            wins += pnl[i] > 0
            total += pnl[i]
            drawdown = max(drawdown, drawdowns[i])
            profit = max(profit, profits[i])
    if count == 0:
        return 0, 0.0, 0.0, 0.0, 0.0, 0
    mean = total / count
    squares = 0.0
    if count > 1:
        for i in range(start, stop):
            if side * sides[i] >= 0:  # _EITHER is 0
                squares += (pnl[i] - mean) ** 2
    return count, mean, np.sqrt(squares / count), drawdown, profit, wins
