"""Impact parameters from trades: buckets of equal length, and what the price did over each beside who pushed it.

What a model charges is what is fitted: the mean price paid where the model charges that, the move of the price where it
charges half of it. The order is the net of a bucket's aggressors, its price the mean of all of the bucket's trades.
Each fit is a line through the origin, for no order moves nothing, with standard errors that hold whatever the variance
of each bucket (HC1: White (1980), with the correction of MacKinnon and White (1985)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.market import NS_PER_DAY, Bars, Float64s, Int64s
from daemon.engine.jit import kernel
from daemon.engine.trailing import daily_figures

if TYPE_CHECKING:
    from daemon.core.ticks import Column

_NOTHING: Final = -1 << 62
_SUMS: Final = 6


class Buckets(NamedTuple):
    """Trades summed up by stretches of time that hold any, in order.

    start_ns: (n,) int64. before: last price before the bucket, NaN of the first. last: its own last price. worth: price
    x size, quote currency. volume, signed: base units, signed by the aggressor's side. unknown: volume without a side.
    All (n,) float64.
    """

    start_ns: Int64s
    before: Float64s
    last: Float64s
    worth: Float64s
    volume: Float64s
    signed: Float64s
    unknown: Float64s


class TradeBuckets:
    """Sums up trades chunk by chunk; memory grows with the buckets alone."""

    def __init__(self, width_ns: int) -> None:
        self._width_ns = width_ns
        self._start_ns = np.full(1, _NOTHING, dtype=np.int64)
        self._sums = np.full((_SUMS, 1), np.nan)
        self._closed: list[Buckets] = []
        self.rows = 0

    def feed(self, time_ns: Column, price: Column, size: Column, side: Column) -> None:
        """Take the next trades, in order of time.

        time_ns: (n,) int64. price, size: (n,) float64; rows that are not above 0 are left out. side: (n,) int8, BUY,
        SELL or 0 where nobody knows.
        """
        if not time_ns.size:
            return
        # A span shorter than a bucket may still reach into two; and the one that is open comes first.
        room = int(min(time_ns.size, (time_ns[-1] - time_ns[0]) // self._width_ns + 2)) + 1
        start_ns, sums = np.empty(room, dtype=np.int64), np.zeros((_SUMS, room))
        start_ns[0], sums[:, 0] = self._start_ns[0], self._sums[:, 0]
        time_ns, price, size, side = (
            np.require(each, requirements=["C", "W"]) for each in (time_ns, price, size, side)
        )
        count = sum_trades(time_ns, price, size, side, self._width_ns, start_ns, sums)
        self._closed.append(Buckets(start_ns[: count - 1], *sums[:, : count - 1]))
        self._start_ns, self._sums = start_ns[count - 1 : count].copy(), sums[:, count - 1 : count].copy()
        self.rows += time_ns.size

    def finish(self) -> Buckets:
        """Return all buckets, the last one with what it has so far."""
        still_open = Buckets(self._start_ns, *self._sums)
        parts = [*self._closed, still_open]
        whole = Buckets._make(np.concatenate(columns) for columns in zip(*parts, strict=True))
        return Buckets._make(column[whole.start_ns != _NOTHING] for column in whole)


@kernel
def sum_trades(
    time_ns: Int64s,
    price: Float64s,
    size: Float64s,
    side: Column,
    width_ns: int,
    start_ns: Int64s,
    sums: Float64s,
) -> int:
    """Sum trades up into buckets; returns how many columns of `sums` are in use, the last one still open.

    time_ns, price, size, side: (n,), ascending in time. start_ns (m,), sums (6, m): m one more than buckets can begin;
    the first is the bucket that was open before, or begins at -2^62 where there is none. Rows of sums are the columns
    of Buckets.
    """
    at = 0
    for row in range(time_ns.size):
        if not (price[row] > 0.0 and size[row] > 0.0):
            continue
        begin = time_ns[row] // width_ns * width_ns
        if begin != start_ns[at]:
            before = sums[1, at]
            at += 1
            start_ns[at] = begin
            sums[0, at] = before
            sums[2:, at] = 0.0
        sums[1, at] = price[row]
        sums[2, at] += price[row] * size[row]
        sums[3, at] += size[row]
        if side[row] == 0:
            sums[5, at] += size[row]
        else:
            sums[4, at] += side[row] * size[row]
    return at + 1


class Pushes(NamedTuple):
    """Buckets as fits take them, all (n,) float64.

    share: net aggressor volume / daily volume, signed. signed: that volume, base units. sigma: daily volatility. Both
    daily figures as they were known before the bucket, as backtests take them. paid, moved: mean and last price of the
    bucket over the last one before it, less 1. lasting: last price of the bucket that follows, in the same way; NaN
    but of every second stretch of time, so that no move is counted twice. change: of the last price, quote currency.
    days: length of a bucket.
    """

    share: Float64s
    signed: Float64s
    sigma: Float64s
    paid: Float64s
    moved: Float64s
    lasting: Float64s
    change: Float64s
    days: float


def pushes_of(buckets: Buckets, width_ns: int, year_days: int) -> Pushes:
    """Return the buckets that can be fitted: with one right before them, and daily figures known.

    year_days: 365, or 252 for markets that close, as of `trailing.daily_figures`.
    """
    start_ns, last, before = buckets.start_ns, buckets.last, buckets.before
    as_bars = Bars(start_ns, last, last, last, last, buckets.volume)
    sigma, day_volume = daily_figures(as_bars, buckets.volume, width_ns, year_days)
    follows = np.diff(start_ns, prepend=start_ns[:1]) == width_ns
    later = np.full(start_ns.size, np.nan)
    later[:-1][follows[1:]] = last[1:][follows[1:]]
    later[start_ns // width_ns % 2 == 1] = np.nan
    kept = follows & (sigma > 0) & (day_volume > 0)
    start = before[kept]
    return Pushes(
        share=buckets.signed[kept] / day_volume[kept],
        signed=buckets.signed[kept],
        sigma=sigma[kept],
        paid=(buckets.worth[kept] / buckets.volume[kept] - start) / start,
        moved=(last[kept] - start) / start,
        lasting=(later[kept] - start) / start,
        change=last[kept] - start,
        days=width_ns / NS_PER_DAY,
    )


class Fit(NamedTuple):
    """A slope with its standard error (HC1). r2: 1 - residuals / outcomes, sums of squares as they are, not centred."""

    value: float
    standard_error: float
    r2: float
    rows: int


def through_origin(cause: Float64s, outcome: Float64s) -> Fit:
    """Fit outcome = value x cause by least squares; rows with a NaN are left out.

    cause, outcome: (n,) float64. A cause that is nothing everywhere gives 0 with error 0.
    """
    known = np.isfinite(cause) & np.isfinite(outcome)
    x, y = cause[known], outcome[known]
    squares = float(np.sum(x * x))
    if squares == 0.0 or x.size < 2:  # noqa: PLR2004 - one row leaves no residual
        return Fit(0.0, 0.0, 0.0, x.size)
    value = float(np.sum(x * y)) / squares
    left = y - value * x
    error = float(np.sqrt(x.size / (x.size - 1) * np.sum((x * left) ** 2))) / squares
    total = float(np.sum(y * y))
    return Fit(value, error, 1.0 - float(np.sum(left * left)) / total if total > 0.0 else 0.0, x.size)


def square_root_y(pushes: Pushes) -> Fit:
    """Fit Y of what was paid: Y sigma sqrt(q / V)."""
    return through_origin(pushes.sigma * _signed_power(pushes.share, 0.5), pushes.paid)


def almgren_2005_gamma(pushes: Pushes, turnover_days: float) -> Fit:
    """Fit gamma of what lasts: gamma sigma (q / V) turnover_days^(1/4)."""
    return through_origin(pushes.sigma * pushes.share * turnover_days**0.25, pushes.lasting)


def almgren_2005_eta(pushes: Pushes) -> Fit:
    """Fit eta of what was paid beyond half of what lasts: eta sigma (q / (V T))^(3/5)."""
    return through_origin(pushes.sigma * _signed_power(pushes.share / pushes.days, 0.6), _beyond(pushes))


def almgren_chriss_gamma(pushes: Pushes) -> Fit:
    """Fit gamma of what lasts, a fraction of the price: gamma q / V; times price / V it is the paper's."""
    return through_origin(pushes.share, pushes.lasting)


def almgren_chriss_eta(pushes: Pushes) -> Fit:
    """Fit eta of what was paid beyond half of what lasts: eta q / (V T); times price / V it is the paper's."""
    return through_origin(pushes.share / pushes.days, _beyond(pushes))


def kyle_y(pushes: Pushes) -> Fit:
    """Fit y of how far the price moved: y sigma q / V."""
    return through_origin(pushes.sigma * pushes.share, pushes.moved)


def kyle_lambda(pushes: Pushes) -> Fit:
    """Fit Kyle's lambda itself: change of the price, quote currency, by base unit of net aggressor volume."""
    return through_origin(pushes.signed, pushes.change)


def _beyond(pushes: Pushes) -> Float64s:
    return pushes.paid - pushes.lasting / 2


def _signed_power(values: Float64s, exponent: float) -> Float64s:
    return np.sign(values) * np.abs(values) ** exponent
