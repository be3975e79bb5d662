"""Long work in pieces, on threads: kernels release the GIL, and between pieces there is time to be stopped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Part = TypeVar("Part")

CHUNKS: Final = 32
"""Pieces that work is cut into: a hundredth of a second each where it takes a third of one."""


def nothing() -> None:
    """Checkpoint of a caller who has nothing to look at."""


def in_chunks(
    work: Callable[[slice], Part], size: int, threads: int, checkpoint: Callable[[], None], *, pieces: int = CHUNKS
) -> list[Part]:
    """Do work on pieces of range(size); returns what came of each, in their order.

    work: takes a slice with start and stop. threads: >= 1, ValueError otherwise; as many pieces at a time.
    checkpoint: called after every so many pieces while nothing runs; what it raises ends the work. pieces: at most, for
    work that is not done in a second.
    """
    bounds = [size * i // pieces for i in range(pieces + 1)]
    slices = [slice(*pair) for pair in pairwise(bounds) if pair[0] < pair[1]]
    if threads < 1:
        raise ValueError(f"threads is {threads}: at least 1")
    parts: list[Part] = []
    with ThreadPoolExecutor(threads) as pool:  # which starts its threads at the first piece that it is given
        for wave in range(0, len(slices), threads):
            now = slices[wave : wave + threads]
            parts.extend(map(work, now) if len(now) == 1 else pool.map(work, now))
            checkpoint()
    return parts
