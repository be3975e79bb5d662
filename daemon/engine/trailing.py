"""Daily volatility and volume as they were known before each bar: what impact models and sizing go by."""

from __future__ import annotations

from typing import Final

import numpy as np

from daemon.core.market import NS_PER_DAY, Bars, Float64s
from daemon.engine.jit import kernel

# Fewer returns say nothing of a volatility.
LEAST_BARS: Final = 20


def daily_figures(bars: Bars, volume: Float64s) -> tuple[Float64s, Float64s]:
    """Return daily volatility (a fraction) and daily volume (as `volume`) known at the start of each bar.

    bars: n bars. volume: (n,) float64, >= 0. Both (n,) float64, NaN before there are LEAST_BARS bars. Of the bars of
    about a day (as many as days of this series have, at least LEAST_BARS) before each: the sample deviation of simple
    returns x sqrt(bars a day), and the mean volume x bars a day.
    """
    if bars.size == 0:
        return np.empty(0), np.empty(0)
    days = np.unique(bars.start_ns // NS_PER_DAY).size
    a_day = max(1.0, bars.size / days)
    window = max(LEAST_BARS, round(a_day))
    sigma, mean_volume = np.empty(bars.size), np.empty(bars.size)
    trailing_figures(np.ascontiguousarray(bars.close), np.ascontiguousarray(volume), window, sigma, mean_volume)
    return sigma * np.sqrt(a_day), mean_volume * a_day


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
        if i % 4096 == 0:  # often enough, and seldom enough to cost nothing
            total = squares = volumes = 0.0
            for j in range(first, i):
                volumes += volume[j]
                if j > first:
                    change = close[j] / close[j - 1] - 1.0
                    total += change
                    squares += change * change
        returns = i - first - 1
        if returns < 20:  # noqa: PLR2004 - LEAST_BARS, which is of Python's side
            sigma[i] = mean_volume[i] = np.nan
            continue
        mean = total / returns
        variance = (squares - mean * total) / (returns - 1)
        sigma[i] = np.sqrt(max(variance, 0.0))
        mean_volume[i] = volumes / (i - first)
