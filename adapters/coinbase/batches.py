"""Events in handfuls: columns are made of many rows at once, which is what makes them cheap.

A busy feed sends hundreds of messages a second with a row or two each; one conversion for all costs little more than
one for a single row.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

T = TypeVar("T")


class _Over:
    """No more events; why: the error that ended them."""

    def __init__(self, why: Exception | None) -> None:
        self.why = why


async def batches(events: AsyncGenerator[T, None], *, window_s: float, most: int) -> AsyncGenerator[list[T], None]:
    """Yield what arrives within window_s seconds of the first, at most so many; ends, fails and closes as `events`.

    What arrives while a batch is worked on waits, as many events again; then `events` is no longer asked.
    """
    waiting: asyncio.Queue[T | _Over] = asyncio.Queue(most)
    pump = asyncio.create_task(_pump(events, waiting))
    try:
        over = None
        while over is None:
            batch: list[T] = []
            over = await _fill(batch, waiting, window_s, most)
            if batch:
                yield batch
        if over.why is not None:
            raise over.why
    finally:
        pump.cancel()
        await asyncio.wait((pump,))


async def _pump(events: AsyncGenerator[T, None], waiting: asyncio.Queue[T | _Over]) -> None:
    # A task of its own: waiting for an event must not be cancelled by a window's end, that would close `events`.
    why: Exception | None = None
    try:
        async with contextlib.aclosing(events):
            async for event in events:
                await waiting.put(event)
    except Exception as error:  # noqa: BLE001 - raised where the batches are read
        why = error
    await waiting.put(_Over(why))


async def _fill(batch: list[T], waiting: asyncio.Queue[T | _Over], window_s: float, most: int) -> _Over | None:
    """Wait for an event, then for more until the window or the batch is full. Returns the end, where it has come."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(None) as window:
            while len(batch) < most:
                event = await waiting.get()
                if isinstance(event, _Over):
                    return event
                if not batch:
                    window.reschedule(asyncio.get_running_loop().time() + window_s)
                batch.append(event)
    return None
