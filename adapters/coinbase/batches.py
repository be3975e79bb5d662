"""Events in handfuls: columns are made of many rows at once, which is what makes them cheap.

A busy feed sends hundreds of messages a second with a row or two each; one conversion for all costs little more than
one for a single row.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

T = TypeVar("T")


async def batches(events: AsyncIterator[T], *, window_s: float, most: int) -> AsyncGenerator[list[T], None]:
    """Yield what arrives within window_s seconds of the first, at most so many; ends and fails as `events` does.

    What arrives while a batch is worked on waits, `most` events of it; then `events` is no longer asked.
    """
    waiting: asyncio.Queue[T | _Over] = asyncio.Queue(most)
    pump = asyncio.create_task(_pump(events, waiting))
    loop = asyncio.get_running_loop()
    try:
        while True:
            batch: list[T] = []
            over = await _fill(batch, waiting, most, loop.time() + window_s)
            if batch:
                yield batch
            if over is not None:
                if over.why is not None:
                    raise over.why
                return
    finally:
        pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await pump


class _Over:
    """No more events; why: the error that ended them."""

    def __init__(self, why: Exception | None) -> None:
        self.why = why


async def _pump(events: AsyncIterator[T], waiting: asyncio.Queue[T | _Over]) -> None:
    # A task of its own: waiting for an event must not be cancelled by a window's end, that would close `events`.
    why: Exception | None = None
    try:
        async for event in events:
            await waiting.put(event)
    except Exception as error:  # noqa: BLE001 - raised where the batches are read
        why = error
    await waiting.put(_Over(why))


async def _fill(batch: list[T], waiting: asyncio.Queue[T | _Over], most: int, until_s: float) -> _Over | None:
    """Wait for a first event, then for more until the time or the number is reached."""
