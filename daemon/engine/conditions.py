"""Run a program over a series: every distinct condition once, to one bit a bar.

The series is walked in blocks small enough to stay in the processor's cache; each block carries the rows before it
that its windows need, so the result does not depend on where blocks begin. Truths leave as bits, because a signal is
searched for its next set bit far more often than it is read bar by bar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from daemon.core.market import Float64s
from daemon.engine.jit import kernel
from daemon.engine.program import Op, Program

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.engine.indicators import IndicatorColumns

Bits = NDArray[np.uint64]
Truths = NDArray[np.uint8]

BLOCK_ROWS: Final = 2_048
_WORD: Final = 64

# Kernels freeze module constants, but not members of an enumeration's class.
_ADD, _SUBTRACT, _MULTIPLY, _DIVIDE = int(Op.ADD), int(Op.SUBTRACT), int(Op.MULTIPLY), int(Op.DIVIDE)
_NEGATIVE, _ABSOLUTE, _MAXIMUM, _MINIMUM = (
    int(Op.NEGATIVE),
    int(Op.ABSOLUTE),
    int(Op.MAXIMUM),
    int(Op.MINIMUM),
)
_SHIFT, _MEAN, _PERCENTILE = int(Op.SHIFT), int(Op.ROLLING_MEAN), int(Op.ROLLING_PERCENTILE)
_ABOVE, _AT_OR_ABOVE, _CROSSES = int(Op.ABOVE), int(Op.AT_OR_ABOVE), int(Op.CROSSES_ABOVE)
_RISING, _FALLING, _SQUEEZE = int(Op.RISING), int(Op.FALLING), int(Op.SQUEEZE)
_DIPPED = int(Op.DIPPED_THEN_CROSSES_ABOVE)
_ALL, _ANY, _AT_LEAST = int(Op.ALL_OF), int(Op.ANY_OF), int(Op.AT_LEAST)
_NOT = int(Op.NOT)


def signals(program: Program, columns: IndicatorColumns, checkpoint: Callable[[], None] = lambda: None) -> Bits:
    """Evaluate a program over a whole series.

    columns: the series' columns; NaN where a column has no value.
    checkpoint: called between blocks; what it raises ends the evaluation.
    Returns (distinct signals, ceil(n / 64)) uint64: bit i % 64 of word i // 64 is bar i; bits past the end are 0.
    Memory: two blocks of slots beside columns and result, about 12 MB for the shipped strategies.
    """
    bar_count = columns.bars.size
    words = -(-bar_count // _WORD)
    out = np.zeros((len(program.signals), words), dtype=np.uint64)
    lookback = -(-program.lookback // _WORD) * _WORD
    rows = min(BLOCK_ROWS, words * _WORD) + lookback
    values = np.empty((program.value_slots, rows), dtype=np.float64)
    truths = np.empty((program.truth_slots, rows), dtype=np.uint8)
    for slot, constant in program.constants:
        values[slot] = constant
    inputs = [columns[name] for name in program.inputs]
    for start in range(0, bar_count, BLOCK_ROWS):
        first = max(start - lookback, 0)
        stop = min(start + BLOCK_ROWS, bar_count)
        used = stop - first
        for slot, column in enumerate(inputs):
            values[slot, :used] = column[first:stop]
        evaluate(program.code, program.parameters, program.members, values, truths, used)
        truths[:, used:] = 0
        octets = truths.view(np.uint64)
        pack(octets, program.signals, (start - first) // 8, start // _WORD, -(-(stop - start) // _WORD), out)
        checkpoint()
    return out


@kernel
def evaluate(  # noqa: C901, PLR0912 - one branch an operation
    code: NDArray[np.int32],
    parameters: Float64s,
    members: NDArray[np.int32],
    values: Float64s,
    truths: Truths,
    rows: int,
) -> None:
    """Run every operation of a program over one block.

    code, parameters, members: as `program.Program` states.
    values: (value slots, >= rows) float64, inputs and constants filled in; the rest is overwritten.
    truths: (truth slots, >= rows) uint8, overwritten with 0 and 1.
    rows: how many rows of the block are in use.
    A window that reaches before the block's first row has no value there.
    """
    for k in range(code.shape[0]):
        op, out, a, b, bars, extra = code[k, 0], code[k, 1], code[k, 2], code[k, 3], code[k, 4], code[k, 5]
        if op < _ABOVE:
            result, left, right = values[out, :rows], values[a, :rows], values[b, :rows]
            if op == _ADD:
                np.add(left, right, result)
            elif op == _SUBTRACT:
                np.subtract(left, right, result)
            elif op == _MULTIPLY:
                np.multiply(left, right, result)
            elif op == _DIVIDE:
                np.divide(left, right, result)
            elif op == _NEGATIVE:
                np.negative(left, result)
            elif op == _ABSOLUTE:
                np.abs(left, result)
            elif op == _MAXIMUM:
                np.maximum(left, right, result)
            elif op == _MINIMUM:
                np.minimum(left, right, result)
            elif op == _SHIFT:
                _shift(left, bars, result)
            elif op == _MEAN:
                _window_mean(left, bars, result)
            elif op == _PERCENTILE:
                _window_percentile(left, bars, parameters[k], extra, result)
        elif op < _ALL:
            truth, left, right = truths[out, :rows], values[a, :rows], values[b, :rows]
            if op == _ABOVE:
                _above(left, right, truth)
            elif op == _AT_OR_ABOVE:
                _at_or_above(left, right, truth)
            elif op == _CROSSES:
                _crosses_above(left, right, truth)
            elif op == _RISING:
                _rising(left, bars, 1.0, truth)
            elif op == _FALLING:
                _rising(left, bars, -1.0, truth)
            elif op == _SQUEEZE:
                _squeeze(left, bars, extra, truth)
            elif op == _DIPPED:
                _dipped_then_crosses_above(left, parameters[k], bars, truth)
        elif op <= _AT_LEAST:
            _combine(op, members[a : a + b], bars, truths, rows, truths[out, :rows])
        elif op == _NOT:
            truths[out, :rows] = 1 - truths[a, :rows]
        else:
            _held(truths[a, :rows], bars, truths[out, :rows])


@kernel
def pack(octets: Bits, slots: NDArray[np.int32], first_octet: int, first_word: int, words: int, out: Bits) -> None:
    """Gather truths of eight bars at a time into bits.

    octets: (truth slots, rows / 8) uint64, the truths' bytes as words. slots: truths to keep, a row of `out` each.
    first_octet: where the block's own rows begin. first_word, words: where in `out` they go.
    """
    # Multiplying by this brings the lowest bits of eight bytes together in the highest byte.
    gather = np.uint64(0x0102040810204080)
    for row in range(slots.size):
        source = octets[slots[row]]
        for word in range(words):
            bits = np.uint64(0)
            at = first_octet + 8 * word
            for octet in range(min(8, source.size - at)):
                byte = (source[at + octet] * gather) >> np.uint64(56)
                bits |= byte << np.uint64(8 * octet)
            out[row, first_word + word] = bits


# Operations on values: (rows,) float64 in and out.


@kernel
def _shift(values: Float64s, bars: int, out: Float64s) -> None:
    out[:bars] = np.nan
    for i in range(bars, values.size):
        out[i] = values[i - bars]


@kernel
def _window_mean(values: Float64s, window: int, out: Float64s) -> None:
    """Sum each window anew: the same row gives the same bits in any block."""
    out[: window - 1] = np.nan
    for i in range(window - 1, values.size):
        total = 0.0
        for j in range(i - window + 1, i + 1):
            total += values[j]
        out[i] = total / window


@kernel
def _window_percentile(values: Float64s, window: int, percentile: float, least: int, out: Float64s) -> None:
    """Interpolated percentile of the numbers in each window, kept sorted from row to row."""
    ordered = np.empty(window + 1, dtype=np.float64)
    count = 0
    for i in range(values.size):
        # Start where a value leaves (or at the end), move its neighbours towards the hole, put the new one in.
        hole = count
        if i >= window and not np.isnan(values[i - window]):
            hole = np.searchsorted(ordered[:count], values[i - window])
            count -= 1
        entering = values[i]
        if np.isnan(entering):
            for j in range(hole, count):
                ordered[j] = ordered[j + 1]
        else:
            while hole > 0 and ordered[hole - 1] > entering:
                ordered[hole] = ordered[hole - 1]
                hole -= 1
            while hole < count and ordered[hole + 1] < entering:
                ordered[hole] = ordered[hole + 1]
                hole += 1
            ordered[hole] = entering
            count += 1
        if count < least:
            out[i] = np.nan
            continue
        position = (count - 1) * (percentile / 100)
        below = int(np.floor(position))
        fraction = position - below
        low, high = ordered[below], ordered[min(below + 1, count - 1)]
        if fraction < 0.5:  # noqa: PLR2004 - from the nearer neighbour, as the reference
            out[i] = low + (high - low) * fraction
        else:
            out[i] = high - (high - low) * (1 - fraction)


# Operations on truths: (rows,) uint8 out. A comparison with NaN is false by itself; infinities are refused explicitly.


@kernel
def _above(left: Float64s, right: Float64s, out: Truths) -> None:
    for i in range(left.size):
        out[i] = (left[i] > right[i]) & (left[i] < np.inf) & (right[i] > -np.inf)


@kernel
def _at_or_above(left: Float64s, right: Float64s, out: Truths) -> None:
    for i in range(left.size):
        out[i] = (left[i] >= right[i]) & (np.abs(left[i]) < np.inf) & (np.abs(right[i]) < np.inf)


@kernel
def _crosses_above(left: Float64s, right: Float64s, out: Truths) -> None:
    out[:1] = 0
    for i in range(1, left.size):
        out[i] = (
            (left[i - 1] <= right[i - 1])
            & (left[i] > right[i])
            & (np.abs(left[i - 1]) < np.inf)
            & (np.abs(right[i - 1]) < np.inf)
            & (left[i] < np.inf)
            & (right[i] > -np.inf)
        )


@kernel
def _rising(values: Float64s, bars: int, sign: float, out: Truths) -> None:
    out[:bars] = 0
    for i in range(bars, values.size):
        rises = True
        for j in range(i - bars, i):
            if not sign * values[j + 1] > sign * values[j]:
                rises = False
                break
        out[i] = rises


@kernel
def _squeeze(values: Float64s, window: int, guard: int, out: Truths) -> None:
    out[:guard] = 0
    for i in range(guard, values.size):
        lowest = np.abs(values[i]) < np.inf
        for j in range(i, i - window, -1):
            # Written so that a NaN on either side fails.
            if not values[i] <= values[j]:
                lowest = False
                break
        out[i] = lowest


@kernel
def _dipped_then_crosses_above(values: Float64s, threshold: float, bars: int, out: Truths) -> None:
    out[:bars] = 0
    for i in range(bars, values.size):
        dipped = False
        if values[i - 1] <= threshold < values[i] < np.inf and values[i - 1] > -np.inf:
            for j in range(i - bars, i):
                if values[j] < threshold:
                    dipped = True
                    break
        out[i] = dipped


@kernel
def _combine(op: int, members: NDArray[np.int32], least: int, truths: Truths, rows: int, out: Truths) -> None:
    """Write conjunction, disjunction or count of several truths."""
    out[:] = truths[members[0], :rows]
    if op == _ALL:
        for member in members[1:]:
            out &= truths[member, :rows]
    elif op == _ANY:
        for member in members[1:]:
            out |= truths[member, :rows]
    else:
        count = np.zeros(rows, dtype=np.int32)
        for member in members:
            count += truths[member, :rows]
        for i in range(rows):
            out[i] = count[i] >= least


@kernel
def _held(truth: Truths, bars: int, out: Truths) -> None:
    run = 0
    for i in range(truth.size):
        run = run + 1 if truth[i] else 0
        out[i] = run >= bars
