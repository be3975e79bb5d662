"""Daily volatility and volume as they were known before each bar: what impact models and sizing go by."""

from __future__ import annotations

from typing import Final

import numpy as np

from daemon.core.market import NS_PER_DAY, Bars, Float64s, Int64s
from daemon.engine.jit import kernel

LEAST_BARS: Final = 20
"""Fewer say nothing of a volatility."""

_ALWAYS: Final = 365
_REMADE: Final = 4_096


def daily_figures(bars: Bars, volume: Float64s, width_ns: int, year_days: int) -> tuple[Float64s, Float64s]:
    """Return daily volatility (a fraction) and daily volume (as `volume`) known at the start of each bar.

    bars: n bars of width_ns. volume: (n,) float64, >= 0. year_days: 365, or 252 for markets that close: their bars are
    those of 252 days. Both (n,) float64, NaN before there are LEAST_BARS bars. Of as many bars as a day has room for,
    at least LEAST_BARS, before each: the sample deviation of simple returns x sqrt(bars a day), and the mean volume x
    bars a day. Bars a day: those so far over the time that they span.
    """
    window = max(LEAST_BARS, round(NS_PER_DAY / width_ns))
    sigma, mean_volume = np.empty(bars.size), np.empty(bars.size)
    trailing_figures(np.ascontiguousarray(bars.close), np.ascontiguousarray(volume), window, sigma, mean_volume)
    a_day = _bars_a_day(bars.start_ns, width_ns, year_days)
    return sigma * np.sqrt(a_day), mean_volume * a_day


def _bars_a_day(start_ns: Int64s, width_ns: int, year_days: int) -> Float64s:
    """Return (n,) float64, bars a trading day as known before each bar, no more than a day has room for."""
    if start_ns.size == 0:
        return np.empty(0)
    count = np.arange(start_ns.size)
    spanned_ns = np.maximum(np.concatenate([start_ns[:1], start_ns[:-1]]) - start_ns[0] + width_ns, width_ns)
    a_day: Float64s = count * (NS_PER_DAY * (_ALWAYS / year_days)) / spanned_ns
    return np.minimum(a_day, NS_PER_DAY / width_ns)


@kernel
def trailing_figures(close: Float64s, volume: Float64s, window: int, sigma: Float64s, mean_volume: Float64s) -> None:
    """Write the deviation of returns and the mean volume over up to `window` bars before each; NaN below LEAST_BARS.

    close, volume: (n,) float64. Sums move along with the window and are made anew every so many rows, so that rounding
    does not add up.
    """
    total = squares = volumes = 0.0
    for i in range(close.size):
        # Rows [first, i) are the window; a return belongs to the bar that it ends at.
        first = max(0, i - window)
        if i > 0:
            volumes += volume[i - 1]
        if i > 1:
            change = close[i - 1] / close[i - 2] - 1.0
            total += change
            squares += change * change
        if i > window:
            volumes -= volume[first - 1]
            change = close[first] / close[first - 1] - 1.0
            total -= change
            squares -= change * change
        if i % _REMADE == 0:
            total = squares = volumes = 0.0
            for j in range(first, i):
                volumes += volume[j]
                if j > first:
                    change = close[j] / close[j - 1] - 1.0
                    total += change
                    squares += change * change
        returns = i - first - 1
        if i - first < LEAST_BARS:
            sigma[i] = mean_volume[i] = np.nan
            continue
        mean = total / returns
        variance = (squares - mean * total) / (returns - 1)
        sigma[i] = np.sqrt(max(variance, 0.0))
        mean_volume[i] = max(volumes / (i - first), 0.0)
