"""Whether the best of a sweep earns anything at all, given how many there are: Hansen's test and White's.

The best of a thousand columns without any edge has a mean far above 0. How far, and how often farther, the stationary
bootstrap says: it draws days in blocks, the same days of all columns, so that what depends on each other stays so.
Neither the number of threads nor their order changes a result.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.market import Float64s
from daemon.engine.chunks import in_chunks, nothing
from daemon.engine.jit import kernel
from daemon.engine.overfitting import ROUNDING, sweep
from daemon.engine.resampling import below, block_length, stream, uniform

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_ROWS: Final = 10
"""Rows below which nothing is resampled."""


class RealityCheck(NamedTuple):
    """Chance that the best of so many columns without any edge looks as good as the best of these.

    spa_p: of Hansen's test for superior predictive ability, the consistent one: columns that are hopelessly bad do not
    count. white_p: of White's reality check, where every column counts as if it earned nothing, and a mean is not
    measured by its error; larger as a rule. best: column whose mean is the most errors above 0. statistic: how many,
    0 at least. columns: how many were tested. rows, block, draws: as used.
    """

    spa_p: float
    white_p: float
    best: int
    statistic: float
    columns: int
    rows: int
    block: float
    draws: int


def reality_check(
    returns: Float64s,
    *,
    draws: int = 1_000,
    block: float | None = None,
    seed: int = 0,
    threads: int = 1,
    checkpoint: Callable[[], None] = nothing,
) -> RealityCheck | None:
    """Test whether any column of a sweep has a mean above 0, by the stationary bootstrap.

    returns: (rows, columns) float64, daily; a row with a NaN is left out, since a day that is unknown for one column
    compares none; LEAST_ROWS rows must be left, infinity is refused. Columns without deviation are left out, None where
    none is left: there is nothing to test.
    draws: >= 1; p-values are (1 + draws as good) / (1 + draws). block: mean length of the bootstrap's blocks, 1 to
    rows; None for `resampling.block_length` of the column of the largest mean over its deviation. seed: >= 0.
    threads, checkpoint: as of `in_chunks`. ValueError for any other input. Memory: rows x columns.
    Source: White (2000); Hansen, A Test for Superior Predictive Ability (2005); Politis and Romano (1994).
    """
    is_unknown = np.isnan(returns).any(axis=tuple(range(1, returns.ndim)))
    matrix = sweep(returns[~is_unknown], least_columns=1)
    rows = len(matrix)
    if rows < LEAST_ROWS:
        raise ValueError(f"{rows} rows are known in all columns: {LEAST_ROWS} or more are needed")
    if draws < 1 or seed < 0:
        raise ValueError(f"draws is {draws}, seed is {seed}: at least 1 draw, and a seed of 0 or more")
    mean = matrix.mean(axis=0)
    deviation = matrix.std(axis=0)
    moving = np.flatnonzero(deviation > ROUNDING * np.abs(matrix).max(axis=0))
    if not moving.size:
        return None
    mean, centred = mean[moving], np.ascontiguousarray((matrix - mean)[:, moving])
    if block is None:
        block = block_length(matrix[:, moving[np.argmax(mean / deviation[moving])]])
    if not 1 <= block <= rows:
        raise ValueError(f"block is {block}: from 1 to the {rows} rows that are known")
    error = mean_errors(centred, 1 / block)
    # Hansen's threshold, by the law of the iterated logarithm: what is below it is bad, not unlucky.
    shift = np.where(mean >= -error * math.sqrt(2 * math.log(math.log(rows))), 0.0, mean)
    running = np.zeros((rows + 1, moving.size))
    np.cumsum(centred, axis=0, out=running[1:])
    draw = partial(_draw, running, shift, error, 1 / block, np.uint64(seed))
    maxima = np.concatenate(in_chunks(draw, draws, threads, checkpoint))
    best = int(np.argmax(mean / error))
    statistic = max(float(mean[best] / error[best]), 0.0)
    as_good = np.count_nonzero(maxima >= (statistic, mean.max()), axis=0)
    spa_p, white_p = ((1 + as_good) / (1 + draws)).tolist()
    return RealityCheck(spa_p, white_p, int(moving[best]), statistic, moving.size, rows, float(block), draws)


@kernel
def mean_errors(centred: Float64s, restart_chance: float) -> Float64s:
    """Return the deviation of the stationary bootstrap's mean, exactly, of each column.

    centred: (rows, columns) of mean 0. Returns (columns,) float64, at least a thousandth of what independent
    days would have: below it, where every move is undone by the next, there is only rounding.
    The variance is C(0) + 2 sum over i of (1 - i / rows) keep^i C(i), C the circular autocovariances, which two
    recursions sum in one pass: `near` is the sum of keep^i x[t - i], `far` that of i keep^i x[t - i], i to rows - 1.
    Source: Politis and Romano (1994), lemma 1.
    """
    rows, columns = centred.shape
    keep = 1.0 - restart_chance
    keep_all = 1.0
    near, far = np.zeros(columns), np.zeros(columns)
    for row in range(rows):
        keep_all *= keep
        for column in range(columns if row else 0):
            far[column] = keep * (far[column] + near[column] + centred[row, column])
            near[column] = keep * (near[column] + centred[row, column])
    total, plain = np.zeros(columns), np.zeros(columns)
    for row in range(rows):
        after = (row + 1) % rows
        for column in range(columns):
            here, leaving = centred[row, column], keep_all * centred[after, column]
            plain[column] += here * here
            total[column] += here * (here + 2.0 * (near[column] - far[column] / rows))
            far[column] = keep * (far[column] + near[column] + here) - rows * leaving
            near[column] = keep * (near[column] + here) - leaving
    return np.asarray(np.sqrt(np.maximum(total, 1e-6 * plain)) / rows)


@kernel
def _maxima(
    running: Float64s, shift: Float64s, error: Float64s, restart_chance: float, seed: np.uint64, first: int, last: int
) -> Float64s:
    """Best columns of the draws `first` to before `last`.

    running: (rows + 1, columns), sums of the centred rows before each. shift: (columns,), added to a mean before it is
    compared. error: (columns,), of the mean. A draw is that of `resampling.draw_blocks`, a block summed at once.
    Returns (draws, 2) float64: the largest mean in errors, at least 0; the largest mean, without shift.
    """
    rows, columns = running.shape[0] - 1, running.shape[1]
    out, total = np.empty((last - first, 2)), np.empty(columns)
    for draw in range(first, last):
        state = stream(seed, draw)
        total[:] = 0.0
        begin = end = below(state, rows)
        for drawn in range(1, rows + 1):
            end += 1
            restarts = drawn == rows or uniform(state) < restart_chance
            if restarts or end == rows:
                for column in range(columns):
                    total[column] += running[end, column] - running[begin, column]
                begin = end = below(state, rows) if restarts else 0
        studentised, plain = 0.0, -np.inf
        for column in range(columns):
            mean = total[column] / rows
            studentised = max(studentised, (mean + shift[column]) / error[column])
            plain = max(plain, mean)
        out[draw - first, 0], out[draw - first, 1] = studentised, plain
    return out


def _draw(
    running: Float64s, shift: Float64s, error: Float64s, restart_chance: float, seed: np.uint64, chunk: slice
) -> Float64s:
    return _maxima(running, shift, error, restart_chance, seed, chunk.start, chunk.stop)
