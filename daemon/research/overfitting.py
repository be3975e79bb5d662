"""What choosing the best of several parameter sets over the same data is worth, as users read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from daemon.engine import overfitting as engine
from daemon.engine.reality_check import reality_check
from daemon.research.validation_result import Overfitting, PboSpread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.core.market import Float64s
    from daemon.research.sweep import Tested

MOST_CELLS: Final = 20_000_000
"""Days x parameter sets; of more sets so many are drawn, evenly spaced in the order in which they were tried."""

_BINS: Final = 24
# Of a month there are too few days for the usual blocks.
_FEW_BLOCKS: Final = (4, 6)


def overfitting(
    tested: Sequence[Tested], threads: int, checkpoint: Callable[[], None] = lambda: None
) -> Overfitting | None:
    """Judge the choice among runs over the whole of the data; None where there are fewer than two."""
    if len(tested) < 2:  # noqa: PLR2004 - nothing was chosen
        return None
    matrix = daily_matrix(tested)
    counts = engine.BLOCK_COUNTS if len(matrix) >= min(engine.BLOCK_COUNTS) * engine.LEAST_BLOCK_ROWS else _FEW_BLOCKS
    least = min(counts) * engine.LEAST_BLOCK_ROWS
    if len(matrix) < least:
        return _without(tested, matrix, f"{len(matrix)} days are too few to cross-validate: {least} are needed")
    found = engine.pbo_spread(matrix, block_counts=counts, threads=threads, checkpoint=checkpoint)
    tested_all = reality_check(matrix, threads=threads, checkpoint=checkpoint)
    main = found.main
    heights, edges = np.histogram(main.logits, bins=_BINS)
    return Overfitting(
        parameter_sets=len(tested),
        days=len(matrix),
        blocks=main.blocks,
        splits=main.logits.size,
        pbo=main.pbo,
        pbo_lowest=found.low,
        pbo_highest=found.high,
        spread=[PboSpread(blocks=each.blocks, seed=each.seed, pbo=each.pbo) for each in found.cuts],
        logit_edges=edges.tolist(),
        logit_counts=heights.tolist(),
        slope=main.slope,
        probability_of_loss=main.loss,
        spa_p=tested_all.spa_p if tested_all else None,
        reality_check_p=tested_all.white_p if tested_all else None,
    )


def daily_matrix(tested: Sequence[Tested]) -> Float64s:
    """Return daily returns, (days, sets) float64; a run's day without a bar is 0."""
    step = -(-len(tested) * max(each.returns.size for each in tested) // MOST_CELLS)
    taken = tested[:: max(step, 1)]
    days = np.unique(np.concatenate([each.day_ns for each in taken]))
    matrix = np.zeros((days.size, len(taken)))
    for column, each in enumerate(taken):
        matrix[np.searchsorted(days, each.day_ns), column] = each.returns
    return matrix


def _without(tested: Sequence[Tested], matrix: Float64s, note: str) -> Overfitting:
    return Overfitting(
        parameter_sets=len(tested),
        days=len(matrix),
        blocks=0,
        splits=0,
        pbo=None,
        pbo_lowest=None,
        pbo_highest=None,
        spread=[],
        logit_edges=[],
        logit_counts=[],
        slope=None,
        probability_of_loss=None,
        spa_p=None,
        reality_check_p=None,
        note=note,
    )
