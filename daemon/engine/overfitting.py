"""Whether choosing the best of a sweep means anything: combinatorially symmetric cross-validation.

A sweep is a matrix of daily returns or profits, one row a day, one column a parameter set. Choose the best column on
one half of the days, and look where it stands among all on the other half: at the median as often as not, and the
choice was worth nothing. Neither the number of threads nor their order changes a result.
"""

from __future__ import annotations

import math
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.market import Float64s, Int64s
from daemon.engine.chunks import in_chunks, nothing
from daemon.engine.jit import kernel
from daemon.engine.montecarlo import shuffle
from daemon.engine.resampling import stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BLOCKS: Final = 16
BLOCK_COUNTS: Final = (8, 12, 16)
MAX_BLOCKS: Final = 20
"""184,756 splits; each block more would nearly double them and tell no more."""

LEAST_BLOCK_ROWS: Final = 4
"""Rows a block must have for a count of blocks to join the spread."""

_BINS: Final = 2_048
_LARGEST: Final = 1e100  # squares of larger ones overflow

ROUNDING: Final = 1e-13
"""What deviates no more than this share of a column's largest value is its rounding."""


# Cross-validation.


class Cscv(NamedTuple):
    """What choosing the best in sample is worth out of sample, over all ways to halve the blocks.

    Performance is the Sharpe ratio per row: mean / sample deviation, 0 without deviation. One row a split, in the order
    of `itertools.combinations` of the blocks in sample. Ties in sample go to the first column.
    pbo: share of logits <= 0: the chosen column is at the median of all or below it, out of sample.
    logits: (s,) float64, ln(w / (1 - w)), w = rank / (columns + 1), 1 the worst; ties have the middle rank.
    in_sample, out_of_sample: (s,) float64, performance of the chosen column.
    slope, intercept: of the line of least squares, out_of_sample on in_sample; None where in_sample is one value.
    loss: share of splits whose chosen column has a performance below 0 out of sample.
    dominance_gap: how far choosing is from dominating a random pick (first order), 0 to 1: the largest excess, over all
    performances x, of the share of chosen columns below x over the share of all columns below x, out of sample. 0
    dominates. x runs over 2,047 edges, narrow around 0 and wider away from it.
    columns, blocks, rows: of the matrix, as used.
    """

    pbo: float
    logits: Float64s
    in_sample: Float64s
    out_of_sample: Float64s
    slope: float | None
    intercept: float | None
    loss: float
    dominance_gap: float
    columns: int
    blocks: int
    rows: int


class Cut(NamedTuple):
    """PBO of the same sweep, cut otherwise. seed: 0 is all rows, any other a half of them."""

    blocks: int
    seed: int
    pbo: float


class PboSpread(NamedTuple):
    """How much a PBO depends on where the rows are cut, and on which rows there are.

    main: of all rows in the most blocks. cuts: all rows at each block count, then the halves.
    low, high: 5th and 95th percentile of the halves, widened to what all rows give.
    """

    main: Cscv
    cuts: tuple[Cut, ...]
    low: float
    high: float


def cscv(
    profits: Float64s, blocks: int = BLOCKS, *, threads: int = 1, checkpoint: Callable[[], None] = nothing
) -> Cscv:
    """Find the probability of backtest overfitting by combinatorially symmetric cross-validation.

    profits: (rows, columns) float64, daily returns or profits of two or more parameter sets, finite.
    blocks: even, 2 to MAX_BLOCKS, equal and in the order of time; the oldest rows are dropped where they do not fill
    one. Half of the blocks must hold two rows. ValueError otherwise.
    threads, checkpoint: as of `in_chunks`. Costs columns x splits x blocks.
    Source: Bailey, Borwein, Lopez de Prado and Zhu, The Probability of Backtest Overfitting (2017).
    """
    matrix = sweep(profits, least_columns=2)
    _check_blocks(blocks, len(matrix))
    rows = len(matrix) // blocks
    kept = matrix[len(matrix) - rows * blocks :]
    halves = _halves(blocks)
    judge = partial(_judge, *_block_figures(kept, blocks), ROUNDING * np.abs(kept).max(axis=0), rows, halves)
    parts = in_chunks(judge, halves.size, threads, checkpoint)
    pairs = np.concatenate([figures for figures, _ in parts])
    # The splits without the first block in sample come last: those with it from behind, the other way round.
    in_sample, out_of_sample, rank = np.concatenate((pairs[:, 0], pairs[::-1, 1])).T
    logits = np.log(rank / (kept.shape[1] + 1 - rank))
    slope, intercept = _line(in_sample, out_of_sample)
    return Cscv(
        pbo=float(np.mean(logits <= 0)),
        logits=logits,
        in_sample=in_sample.copy(),
        out_of_sample=out_of_sample.copy(),
        slope=slope,
        intercept=intercept,
        loss=float(np.mean(out_of_sample < 0)),
        dominance_gap=_dominance_gap(np.sum([counts for _, counts in parts], axis=0)),
        columns=kept.shape[1],
        blocks=blocks,
        rows=len(kept),
    )


def pbo_spread(
    profits: Float64s,
    *,
    block_counts: Sequence[int] = BLOCK_COUNTS,
    halves: int = 20,
    seed: int = 0,
    threads: int = 1,
    checkpoint: Callable[[], None] = nothing,
) -> PboSpread:
    """Find PBO at several block counts, and its spread over random halves of the rows.

    profits, threads, checkpoint: as of `cscv`. block_counts: those are left out whose blocks would have fewer than
    LEAST_BLOCK_ROWS rows; ValueError where none is left. halves: how many, >= 0. seed: >= 0.
    A half keeps half of all pieces of time, four to a block, in their order, at the smallest block count: its blocks
    are as long as those of all rows at twice the count. Half-samples lie about the sample as the sample lies about the
    truth (for a mean exactly so; of 50 columns of noise over 1,000 days their deviation is 0.17, as is that of new
    noise). No day is there twice: a bootstrap's days would be in and out of sample at once, which flatters. But half
    of the days tell less: where one column has an edge, halves show a higher PBO than all rows.
    Source: half-samples, McCarthy (1969); deleting d of n observations, Shao and Wu (1989).
    """
    matrix = sweep(profits, least_columns=2)
    if seed < 0 or halves < 0:
        raise ValueError(f"seed is {seed}, halves is {halves}: 0 or more each")
    counts = sorted({blocks for blocks in block_counts if len(matrix) >= LEAST_BLOCK_ROWS * blocks})
    if not counts:
        raise ValueError(
            f"{len(matrix)} rows: they do not fill any of {list(block_counts)} blocks with {LEAST_BLOCK_ROWS} rows each"
        )
    whole = [cscv(matrix, blocks, threads=threads, checkpoint=checkpoint) for blocks in counts]
    by_seed: list[float] = []
    for one in range(seed + 1, seed + 1 + halves):
        part = _half_of(matrix, LEAST_BLOCK_ROWS * counts[0], one)
        by_seed.append(cscv(part, counts[0], threads=threads, checkpoint=checkpoint).pbo)
    by_blocks = [each.pbo for each in whole]
    low, high = np.percentile(by_seed or by_blocks, (5, 95)).tolist()
    return PboSpread(
        main=whole[-1],
        cuts=(
            *(Cut(blocks, 0, pbo) for blocks, pbo in zip(counts, by_blocks, strict=True)),
            *(Cut(counts[0], one, pbo) for one, pbo in enumerate(by_seed, seed + 1)),
        ),
        low=min(low, *by_blocks),
        high=max(high, *by_blocks),
    )


@kernel
def _block_figures(profits: Float64s, blocks: int) -> tuple[Float64s, Float64s]:
    """Mean, and sum of squared deviations from it, of each block.

    profits: (rows, columns), rows a multiple of blocks. Returns two (blocks, columns) float64.
    Taken from the block's first row, so that of equal values the mean is exact and the squares are 0.
    """
    rows, columns = profits.shape[0] // blocks, profits.shape[1]
    means, squares = np.zeros((blocks, columns)), np.zeros((blocks, columns))
    for block in range(blocks):
        first = block * rows
        for row in range(first, first + rows):
            for column in range(columns):
                means[block, column] += profits[row, column] - profits[first, column]
        for column in range(columns):
            means[block, column] = profits[first, column] + means[block, column] / rows
        for row in range(first, first + rows):
            for column in range(columns):
                gap = profits[row, column] - means[block, column]
                squares[block, column] += gap * gap
    return means, squares


@kernel
def _performance(means: Float64s, squares: Float64s, least: Float64s, rows: int, half: int, sharpe: Float64s) -> None:
    """Write the Sharpe ratio of each column over the blocks of a half.

    means, squares: of `_block_figures`. least: (columns,) deviations that are rounding. rows: of a block.
    half: bit b is set where block b belongs to it. sharpe: (columns,) float64, overwritten.
    Squares of blocks add up with those between the blocks' means (Chan, Golub and LeVeque, 1983): subtracting a square
    of sums from a sum of squares would leave only noise of a column that hardly moves.
    """
    blocks, columns = means.shape
    between = np.zeros(columns)
    sharpe[:] = 0.0
    count = 0
    for block in range(blocks):
        if (half >> block) & 1:
            count += 1
            for column in range(columns):
                sharpe[column] += means[block, column]
    for column in range(columns):
        sharpe[column] /= count
    for block in range(blocks):
        if (half >> block) & 1:
            for column in range(columns):
                gap = means[block, column] - sharpe[column]
                between[column] += squares[block, column] + rows * gap * gap
    for column in range(columns):
        deviation = math.sqrt(between[column] / (count * rows - 1))
        sharpe[column] = sharpe[column] / deviation if deviation > least[column] else 0.0


@kernel
def _choice(chosen_by: Float64s, judged_by: Float64s) -> tuple[float, float, float]:
    """Return performance here and there of the column that is best here, and its rank there: 1 the worst."""
    best = 0
    for column in range(1, chosen_by.size):
        if chosen_by[column] > chosen_by[best]:
            best = column
    below = equal = 0
    for column in range(judged_by.size):
        below += judged_by[column] < judged_by[best]
        equal += judged_by[column] == judged_by[best]
    return chosen_by[best], judged_by[best], below + 0.5 * (equal + 1)


@kernel
def _bin_of(sharpe: float, rows: int) -> int:
    """Which of the bins a Sharpe ratio of so many rows is in: half of them are within 4 standard errors of 0."""
    scaled = sharpe * math.sqrt(rows) / 4.0
    return min(int((scaled / (1.0 + abs(scaled)) + 1.0) * (_BINS / 2)), _BINS - 1)


@kernel
def _outcomes(
    means: Float64s, squares: Float64s, least: Float64s, rows: int, halves: Int64s
) -> tuple[Float64s, Int64s]:
    """Judge pairs of halves, each half in sample once.

    halves: (h,) int64 masks of one half each. Otherwise as `_performance`.
    Returns (h, 2, 3) float64: in sample, out of sample, rank of the chosen column; first of the mask in sample. And
    (2, bins) int64: how many performances out of sample are in each bin, of the chosen columns and of all.
    """
    blocks, columns = means.shape
    figures, counts = np.empty((halves.size, 2, 3)), np.zeros((2, _BINS), np.int64)
    ours, theirs = np.empty(columns), np.empty(columns)
    size = rows * (blocks // 2)
    for i in range(halves.size):
        _performance(means, squares, least, rows, halves[i], ours)
        _performance(means, squares, least, rows, ~halves[i], theirs)
        figures[i, 0] = _choice(ours, theirs)
        figures[i, 1] = _choice(theirs, ours)
        for side in range(2):
            counts[0, _bin_of(figures[i, side, 1], size)] += 1
        for column in range(columns):
            counts[1, _bin_of(ours[column], size)] += 1
            counts[1, _bin_of(theirs[column], size)] += 1
    return figures, counts


def _judge(
    means: Float64s, squares: Float64s, least: Float64s, rows: int, halves: Int64s, chunk: slice
) -> tuple[Float64s, Int64s]:
    return _outcomes(means, squares, least, rows, halves[chunk])


def _halves(blocks: int) -> Int64s:
    """Masks of the halves that hold the first block; the others are their complements."""
    rest = combinations(range(1, blocks), blocks // 2 - 1)
    return np.array([1 + sum(1 << block for block in half) for half in rest], dtype=np.int64)


def _line(x: Float64s, y: Float64s) -> tuple[float | None, float | None]:
    residual = x - x.mean()
    squares = float(residual @ residual)
    if squares <= x.size * (ROUNDING * float(np.abs(x).max())) ** 2:
        return None, None
    slope = float(residual @ y) / squares
    return slope, float(y.mean() - slope * x.mean())


def _dominance_gap(counts: Int64s) -> float:
    chosen, everyone = np.cumsum(counts, axis=1)
    # Whole numbers up to the division: where choosing dominates, the gap is 0 and no rounding.
    excess = chosen * (everyone[-1] // chosen[-1]) - everyone
    return max(int(excess.max()), 0) / int(everyone[-1])


def _half_of(matrix: Float64s, count: int, seed: int) -> Float64s:
    """Rows of a random half of `count` pieces of time; the oldest rows are dropped where they do not fill one."""
    rows = len(matrix) // count
    order = np.empty(count)
    shuffle(np.arange(float(count)), stream(np.uint64(seed), 0), order)
    pieces = matrix[len(matrix) - rows * count :].reshape(count, rows, -1)
    return np.asarray(pieces[np.sort(order[: count // 2].astype(np.int64))].reshape(-1, matrix.shape[1]))


def _check_blocks(blocks: int, rows: int) -> None:
    if blocks % 2 or not 2 <= blocks <= MAX_BLOCKS:  # noqa: PLR2004 - halves
        raise ValueError(f"blocks is {blocks}: an even number from 2 to {MAX_BLOCKS}, to be halved")
    if rows < max(blocks, 4):
        raise ValueError(f"{rows} rows are too few for {blocks} blocks: half of the blocks need two rows or more")


def sweep(matrix: Float64s, least_columns: int) -> Float64s:
    """Check a matrix and return a copy; an array that is not ours to write to is another signature of the kernels.

    matrix: two-dimensional, that many columns or more, finite and below 1e100; ValueError otherwise.
    """
    if matrix.ndim != 2 or matrix.shape[1] < least_columns:  # noqa: PLR2004 - days and parameter sets
        raise ValueError(
            f"a matrix of shape {matrix.shape}: one row a day is needed, and {least_columns} or more columns, one a "
            "parameter set"
        )
    is_sound = (np.abs(matrix) < _LARGEST).all(axis=0)
    if not is_sound.all():
        raise ValueError(
            f"column {int(np.argmin(is_sound))} holds NaN, infinity or {_LARGEST:g} and more: leave out its day, "
            "or the column"
        )
    return np.array(matrix, dtype=np.float64, order="C")
