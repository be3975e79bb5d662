"""Bars to longer bars."""

from __future__ import annotations

import numpy as np

from daemon.core.market import Bars, Float64s, Int64s
from daemon.engine.jit import kernel


def lengthen(bars: Bars, width_ns: int) -> Bars:
    """Merge bars into longer ones, aligned to multiples of `width_ns` since 1970 UTC and labelled by their start.

    bars: ascending in time. Open is the first, close the last, high and low the extremes, volume the sum in row order.
    Intervals without a bar are absent; the first and last may be partial.
    """
    out = Bars(np.empty(bars.size, dtype=np.int64), *(np.empty(bars.size) for _ in Bars._fields[1:]))
    used = _merge(*bars, width_ns, *out)
    return Bars._make(column[:used].copy() for column in out)


@kernel
def _merge(
    start_ns: Int64s,
    opens: Float64s,
    high: Float64s,
    low: Float64s,
    close: Float64s,
    volume: Float64s,
    width_ns: int,
    out_start_ns: Int64s,
    out_open: Float64s,
    out_high: Float64s,
    out_low: Float64s,
    out_close: Float64s,
    out_volume: Float64s,
) -> int:
    """Merge rows of one bucket into one; return how many there are."""
    row = -1
    for i in range(start_ns.size):
        # Floor division: times before 1970 round towards the past as well.
        bucket = start_ns[i] // width_ns * width_ns
        if row < 0 or out_start_ns[row] != bucket:
            row += 1
            out_start_ns[row] = bucket
            out_open[row], out_high[row], out_low[row] = opens[i], high[i], low[i]
            out_volume[row] = 0.0
        out_high[row] = max(out_high[row], high[i])
        out_low[row] = min(out_low[row], low[i])
        out_close[row] = close[i]
        out_volume[row] += volume[i]
    return row + 1
