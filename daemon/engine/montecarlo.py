"""How else a backtest could have gone: its trades drawn again, reordered, left out or disturbed, many times over.

One backtest is one path; these are its neighbours. Each method asks another question:

| method | a path is | asks |
|-|-|-|
| bootstrap | as many trades, drawn in blocks from those that were | how much of the result is luck |
| shuffle | the same trades in another order | how deep it might have fallen on the way to the same end |
| missed | every trade left out with a chance | whether it hangs on a few trades |
| noise | every trade with other costs and fills | whether it hangs on exact fills |

The noise: a trade of return r and costs c, both fractions of the equity before it, becomes
`r - c x cost_noise x u + c x fill_noise x v` with u and v of `resampling.bell_of`, independent, in [-1, 1], standard
deviation 0.289: its costs are scaled by 1 - cost_noise to 1 + cost_noise, its fills are better or worse by up to
fill_noise times its costs. A trade without costs is left alone.

A path compounds from 1, the initial capital, and stays at 0 once it is there: trades of a backtest are taken as
fractions of the equity before them, and a bankrupt does not trade. Paths are walked trade by trade and forgotten: 24
bytes stay of each, and the curves of the first ones, from which the fan is taken; figures are of all paths.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

import numpy as np

from daemon.engine.chunks import in_chunks
from daemon.engine.jit import kernel
from daemon.engine.resampling import (
    UInt64s,
    bell_of,
    block_length,
    draw_blocks,
    following,
    following_below,
    seed_word,
    share_of,
    stream,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.market import Float64s, Int64s

Method: TypeAlias = Literal["bootstrap", "shuffle", "missed", "noise"]

RUIN_LEVEL: Final = 0.5
"""Ruin: the equity is at or below this multiple of the initial capital at any time."""

FAN_PATHS: Final = 2_000
"""Paths whose curves are kept for the fan, where nobody says."""

SAMPLE_PATHS: Final = 30
POINTS: Final = 200
"""Points of a curve at most."""

CEILING: Final = 1e150
"""Equity stops here, in multiples of the initial capital: of the square of more a float64 knows nothing."""

METHODS: Final[dict[Method, int]] = {"bootstrap": 0, "shuffle": 1, "missed": 2, "noise": 3}
_BOOTSTRAP, _SHUFFLE, _MISSED = (METHODS[name] for name in ("bootstrap", "shuffle", "missed"))
_CHUNK_TRADES: Final = 1 << 19  # some milliseconds of work between two checkpoints
_PERCENTS: Final = (5.0, 25.0, 50.0, 75.0, 95.0)


class Interval(NamedTuple):
    """The range that holds the final return with the chance `confidence`, as much left out below as above."""

    lower: float
    upper: float
    confidence: float


class Fan(NamedTuple):
    """Percentiles of the equity, multiples of the initial capital, after `trades` trades.

    trades: (k,) int64 from 0 to all of them, k <= POINTS. The others: (k,) float64, of the first `fan_paths` paths;
    (0,) where there are none.
    """

    trades: Int64s
    percentile5: Float64s
    percentile25: Float64s
    median: Float64s
    percentile75: Float64s
    percentile95: Float64s


class Spread(NamedTuple):
    """Where the paths ended and what they went through; returns, drawdowns and chances are fractions.

    The first seven and the interval are of the final return, equity - 1; std_return: sample standard deviation, 0 of
    one run. Drawdowns: the largest of a path, of its highest equity so far. probability_of_profit: final return above
    0. probability_of_ruin: equity at or below RUIN_LEVEL at any time. probability_of2x_return: equity of 2 or more at
    the end.
    """

    median_return: float
    mean_return: float
    std_return: float
    percentile5: float
    percentile25: float
    percentile75: float
    percentile95: float
    median_drawdown: float
    percentile95_drawdown: float
    probability_of_profit: float
    probability_of_ruin: float
    probability_of2x_return: float
    return_confidence_interval: Interval


class MonteCarlo(NamedTuple):
    """What came of it.

    trades: of a path. block_length: mean, of the bootstrap; 1 for the others. sample_paths: (s, k) float64, equity of
    the first SAMPLE_PATHS paths of the fan at its points, multiples of the initial capital.
    """

    method: Method
    runs: int
    seed: int
    trades: int
    block_length: float
    spread: Spread
    sample_paths: Float64s
    fan: Fan


def simulate(
    returns: Float64s,
    costs: Float64s,
    *,
    runs: int,
    seed: int,
    method: Method = "bootstrap",
    block: float | None = None,
    confidence: float = 0.95,
    miss_chance: float = 0.1,
    cost_noise: float = 0.5,
    fill_noise: float = 1.0,
    fan_paths: int = FAN_PATHS,
    threads: int = 1,
    checkpoint: Callable[[], None] = lambda: None,
) -> MonteCarlo | None:
    """Walk `runs` paths of a backtest's trades; None without trades.

    returns: (n,) float64, each trade's pnl over the equity before it, in the order of exits. costs: (n,) float64, its
    costs over the same. Both finite. seed: 0 to 2^64 - 1; the same seed gives the same bytes, whatever `threads`.
    block: mean length of the bootstrap's blocks, >= 1, None for `block_length` of the returns. confidence: in (0, 1).
    miss_chance, cost_noise: 0 to 1; fill_noise: >= 0. fan_paths: how many paths' curves are kept, >= 0; 0 leaves
    `sample_paths` and `fan` empty. checkpoint: called every few milliseconds while nothing runs; it may raise.
    ValueError for any other input.
    """
    chosen = {"miss_chance": miss_chance, "cost_noise": cost_noise, "fill_noise": fill_noise, "confidence": confidence}
    _check_trades(returns, costs)
    _check_choices(method, runs, threads, block, **chosen)
    if fan_paths < 0:
        raise ValueError(f"fan_paths is {fan_paths}: 0 or more")
    word = seed_word(seed)
    if not returns.size:
        return None
    # Copies of ours: arrays that are not ours to write to would be another signature of the kernel.
    returns, costs = np.array(returns, dtype=np.float64), np.array(costs, dtype=np.float64)
    length = 1.0
    if method == "bootstrap":
        length = float(block if block is not None else block_length(returns))
    marks = _marks(returns.size)
    ends, curves = np.empty((3, runs)), np.empty((min(runs, fan_paths), marks.size))

    def walk_chunk(paths: slice) -> None:
        walk_paths(
            METHODS[method],
            returns,
            costs,
            1.0 / length,
            float(miss_chance),
            float(cost_noise),
            float(fill_noise),
            word,
            paths.start,
            paths.stop,
            marks,
            ends,
            curves,
        )

    pieces = min(-(-runs * returns.size // _CHUNK_TRADES), runs)
    in_chunks(walk_chunk, runs, threads, checkpoint, pieces=pieces)
    if method == "shuffle":
        # A product has no order but for its rounding, which is not to be taken for a profit or a deviation.
        final, _, _ = walk(returns, marks, np.empty(0))
        ends[0] = curves[:, -1] = final
    return MonteCarlo(
        method,
        runs,
        seed,
        returns.size,
        length,
        _spread(ends[0] - 1, ends[1], ends[2], confidence),
        curves[:SAMPLE_PATHS].copy(),
        _fan(marks, curves),
    )


def _marks(trades: int) -> Int64s:
    """Return after how many trades a curve has its points: all of them where they are few, else POINTS of them."""
    points = min(trades + 1, POINTS)
    return np.arange(points) * trades // (points - 1)


def _fan(marks: Int64s, curves: Float64s) -> Fan:
    if not len(curves):
        return Fan(marks[:0], *np.empty((len(_PERCENTS), 0)))
    by_mark = np.sort(np.ascontiguousarray(curves.T), axis=1)  # percentiles of what is sorted are a third of the work
    return Fan(marks, *np.percentile(by_mark, _PERCENTS, axis=1))


def _spread(final: Float64s, drawdowns: Float64s, lowest: Float64s, confidence: float) -> Spread:
    outside = 50 * (1 - confidence)
    at5, at25, median, at75, at95, lower, upper = np.percentile(final, (*_PERCENTS, outside, 100 - outside)).tolist()
    mean, deviation = _mean_and_deviation(final)
    deep = np.percentile(drawdowns, (50.0, 95.0)).tolist()
    return Spread(
        median_return=median,
        mean_return=mean,
        std_return=deviation,
        percentile5=at5,
        percentile25=at25,
        percentile75=at75,
        percentile95=at95,
        median_drawdown=deep[0],
        percentile95_drawdown=deep[1],
        probability_of_profit=float(np.mean(final > 0)),
        probability_of_ruin=float(np.mean(lowest <= RUIN_LEVEL)),
        probability_of2x_return=float(np.mean(final >= 1)),
        return_confidence_interval=Interval(lower, upper, confidence),
    )


def _mean_and_deviation(values: Float64s) -> tuple[float, float]:
    """Return mean and sample standard deviation; of equal values exactly the value and 0."""
    first = float(values[0])
    shifted = values - first
    mean = _sum(shifted) / values.size
    return first + mean, math.sqrt(_sum(np.square(shifted - mean)) / max(values.size - 1, 1))


def _sum(values: Float64s) -> float:
    """Add from left to right: how `sum` groups additions is NumPy's to choose, and differs between machines."""
    return float(np.cumsum(values)[-1])


def _check_trades(returns: Float64s, costs: Float64s) -> None:
    if returns.ndim != 1 or returns.shape != costs.shape:
        raise ValueError(f"returns {returns.shape} and costs {costs.shape}: they need one row a trade, the same trades")
    for name, column in (("returns", returns), ("costs", costs)):
        wrong = ~np.isfinite(column)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(f"{name}[{row}] is {column[row]}: every trade has a finite one")


def _check_choices(method: Method, runs: int, threads: int, block: float | None, **chosen: float) -> None:
    if method not in METHODS:
        raise ValueError(f"method is {method!r}: one of {', '.join(METHODS)}")
    if runs < 1 or threads < 1:
        raise ValueError(f"runs is {runs}, threads is {threads}: at least 1 of each")
    if block is not None and not 1 <= block < math.inf:
        raise ValueError(f"block is {block}: a block has a length of at least 1")
    if not 0 < chosen["confidence"] < 1:
        raise ValueError(f"confidence is {chosen['confidence']}: between 0 and 1")
    for name in ("miss_chance", "cost_noise"):
        if not 0 <= chosen[name] <= 1:
            raise ValueError(f"{name} is {chosen[name]}: 0 to 1")
    if not 0 <= chosen["fill_noise"] < math.inf:
        raise ValueError(f"fill_noise is {chosen['fill_noise']}: a finite number, 0 or more")


# Kernels. values, costs and out: (n,) float64, finite; out is written. state: a generator of `resampling.stream`.


@kernel
def shuffle(values: Float64s, state: UInt64s, out: Float64s) -> None:
    """Fill `out` with `values` in an order of which each is as likely. Source: Fisher and Yates (1938), Durstenfeld."""
    out[:] = values
    words = state[0], state[1], state[2], state[3]
    for i in range(out.size - 1, 0, -1):
        other, words = following_below(words, i + 1)
        out[i], out[other] = out[other], out[i]
    state[0], state[1], state[2], state[3] = words


@kernel
def miss(values: Float64s, chance: float, state: UInt64s, out: Float64s) -> None:
    """Fill `out` with `values`, 0 in place of each with a chance: 0 leaves all, 1 none."""
    words = state[0], state[1], state[2], state[3]
    for i in range(out.size):
        value = values[i]
        word, words = following(words)
        out[i] = 0.0 if share_of(word) < chance else value
    state[0], state[1], state[2], state[3] = words


@kernel
def disturb(
    values: Float64s, costs: Float64s, cost_noise: float, fill_noise: float, state: UInt64s, out: Float64s
) -> None:
    """Fill `out` with `values` at other costs and fills, as the module says."""
    words = state[0], state[1], state[2], state[3]
    for i in range(out.size):
        of_costs, words = following(words)
        of_fills, words = following(words)
        changed = values[i] - costs[i] * cost_noise * bell_of(of_costs)
        out[i] = changed + costs[i] * fill_noise * bell_of(of_fills)
    state[0], state[1], state[2], state[3] = words


@kernel
def walk(returns: Float64s, marks: Int64s, curve: Float64s) -> tuple[float, float, float]:
    """Compound returns from 1; return final equity, largest drawdown as a fraction of the peak, lowest equity.

    returns: (n,) float64. Equity stays at 0 once it is there, and is at most CEILING. marks: (k,) int64, ascending
    numbers of trades from 0 to n. curve: (k,) float64, written: equity after so many trades; or (0,) for no curve.
    """
    equity = peak = lowest = 1.0
    smallest = 1.0  # of the equity over its peak; rounding keeps order, so that one subtraction does for all
    done = 0
    for point in range(curve.size + 1):
        stop = marks[point] if point < curve.size else returns.size
        for i in range(done, stop):
            equity *= 1.0 + returns[i]
            if equity <= 0.0:
                equity = 0.0
            elif equity > CEILING:
                equity = CEILING
            # Written so that nothing jumps: where equity turns, nobody can guess.
            peak = equity if equity > peak else peak  # noqa: FURB136
            lowest = equity if equity < lowest else lowest  # noqa: FURB136
            share = equity / peak
            smallest = share if share < smallest else smallest  # noqa: FURB136
        if point < curve.size:
            curve[point] = equity
        done = stop
    return equity, 1.0 - smallest, lowest


@kernel
def walk_paths(
    method: int,
    returns: Float64s,
    costs: Float64s,
    restart_chance: float,
    miss_chance: float,
    cost_noise: float,
    fill_noise: float,
    seed: np.uint64,
    first: int,
    last: int,
    marks: Int64s,
    ends: Float64s,
    curves: Float64s,
) -> None:
    """Walk the paths `first` to before `last`, each with the generator of its number.

    method: of METHODS. ends: (3, runs) float64, columns first to last - 1 are written: what `walk` returns.
    curves: (m, k) float64, rows of those paths that are below m are written. The rest as of `simulate`.
    """
    drawn = np.empty_like(returns)
    no_curve = np.empty(0)
    for path in range(first, last):
        state = stream(seed, path)
        if method == _BOOTSTRAP:
            draw_blocks(returns, restart_chance, state, drawn)
        elif method == _SHUFFLE:
            shuffle(returns, state, drawn)
        elif method == _MISSED:
            miss(returns, miss_chance, state, drawn)
        else:
            disturb(returns, costs, cost_noise, fill_noise, state, drawn)
        curve = curves[path] if path < curves.shape[0] else no_curve
        ends[0, path], ends[1, path], ends[2, path] = walk(drawn, marks, curve)
