"""Rolling windows with the NaN policy of the reference: a window with a NaN in it has no value."""

from __future__ import annotations

import numpy as np

from daemon.core.market import Float64s
from daemon.engine.jit import kernel


@kernel
def rolling_max(values: Float64s, window: int) -> Float64s:
    """Maximum of the last `window` values, the current one included.

    values: (n,) float64. window: bars, >= 1.
    Returns (n,) float64; NaN before the first full window and while a NaN is in it.
    """
    out = np.full(values.size, np.nan)
    best_at = -1
    last_nan = -1
    for i in range(values.size):
        if np.isnan(values[i]):
            last_nan = i
            continue
        first = i - window + 1
        if best_at < max(first, last_nan + 1):
            best_at = max(first, last_nan + 1)
            for j in range(best_at + 1, i + 1):
                if values[j] >= values[best_at]:
                    best_at = j
        elif values[i] >= values[best_at]:
            best_at = i
        if first > last_nan:
            out[i] = values[best_at]
    return out


def rolling_min(values: Float64s, window: int) -> Float64s:
    """Minimum of the last `window` values; otherwise as `rolling_max`."""
    return -rolling_max(-values, window)


@kernel
def running_mean(values: Float64s, window: int) -> Float64s:
    """Mean of the last `window` values from a compensated running sum.

    values: (n,) float64; NaN are left out of sum and count. window: bars, >= 1.
    Returns (n,) float64; NaN while the window holds fewer than `window` numbers.
    Source: the order of operations that the reference's data frames use (Kahan's compensation, one term for
    additions and one for removals); a sum per window differs in the last bit, which moves trades on coarse ticks.
    """
    out = np.full(values.size, np.nan)
    total = added_error = removed_error = previous = 0.0
    count = negatives = equal_run = 0
    for i in range(values.size):
        if i >= window and not np.isnan(values[i - window]):
            leaving = values[i - window]
            term = -leaving - removed_error
            moved = total + term
            removed_error = moved - total - term
            total = moved
            count -= 1
            negatives -= np.signbit(leaving)
        value = values[i]
        if not np.isnan(value):
            term = value - added_error
            moved = total + term
            added_error = moved - total - term
            total = moved
            count += 1
            negatives += np.signbit(value)
            equal_run = equal_run + 1 if value == previous else 1
            previous = value
        if count >= window:
            mean = total / count
            if equal_run >= count:
                mean = previous
            elif (negatives == 0 and mean < 0) or (negatives == count and mean > 0):
                mean = 0.0
            out[i] = mean
    return out
