"""What waits to be sent to one client: bounded, and sent by a task of its own, so that nobody waits for a slow one.

Answers and facts are sent in their order. Progress is only worth its latest: what waits of a run is replaced in its
place by what comes after it. A client that lets more facts wait than fit has lost the thread, and is told to resume.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

MOST_WAITING: Final = 4_096
"""Frames that may wait for a client; answers are held back long before."""

MOST_ANSWERS: Final = 256
MOST_ANSWER_BYTES: Final = 8 << 20
_FRAMES_AT_ONCE: Final = 64
_BYTES_AT_ONCE: Final = 1 << 15


class Slot(Generic[T]):
    """Something that waits its turn."""

    __slots__ = ("answer_bytes", "content", "key")

    def __init__(self, content: T, key: tuple[str, str] | None = None, answer_bytes: int = 0) -> None:
        self.content = content
        self.key = key
        self.answer_bytes = answer_bytes


class Queue(Generic[T]):
    """A queue in which the latest of a kind takes the place of the one before it."""

    __slots__ = ("_latest", "_slots")

    def __init__(self) -> None:
        self._slots: deque[Slot[T]] = deque()
        self._latest: dict[str, dict[str, Slot[T]]] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def push(self, slot: Slot[T], run_id: str | None = None) -> None:
        """Append. run_id: progress of this run that comes later follows this, and replaces nothing before it."""
        if run_id is not None and self._latest:
            self._latest.pop(run_id, None)
        self._slots.append(slot)

    def push_latest(self, content: T, name: str, run_id: str) -> None:
        """Append, or replace what waits of this name and run."""
        of_run = self._latest.setdefault(run_id, {})
        waiting = of_run.get(name)
        if waiting is None:
            of_run[name] = waiting = Slot(content, (run_id, name))
            self._slots.append(waiting)
        else:
            waiting.content = content

    def is_waiting(self, name: str, run_id: str) -> bool:
        """Tell whether something of this name and run would be replaced."""
        return name in self._latest.get(run_id, ())

    def pop(self) -> Slot[T]:
        """Take the first; IndexError where there is none."""
        slot = self._slots.popleft()
        if slot.key is not None:
            run_id, name = slot.key
            of_run = self._latest.get(run_id)
            if of_run is not None and of_run.get(name) is slot:
                del of_run[name]
                if not of_run:
                    del self._latest[run_id]
        return slot

    def clear(self) -> None:
        """Forget everything."""
        self._slots.clear()
        self._latest.clear()


class Outbox:
    """Frames on their way to one client. Methods are called on the event loop alone."""

    def __init__(self, send: Callable[[list[bytes]], Awaitable[None]], overflowed: Callable[[], None]) -> None:
        """send: writes frames, and waits while the client takes none. overflowed: called once, when one is lost."""
        self._send = send
        self._overflowed = overflowed
        self._queue: Queue[bytes] = Queue()
        self._answers = 0
        self._answer_bytes = 0
        self._is_over = False
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_over(self) -> bool:
        """Whether it takes nothing more."""
        return self._is_over

    def answer(self, frame: bytes) -> None:
        """Send an answer. Whoever reads requests awaits `room` before the next, so these are few."""
        if self._is_over:
            return
        self._answers += 1
        self._answer_bytes += len(frame)
        self._queue.push(Slot(frame, None, len(frame)))
        self._grown()

    def fact(self, frame: bytes, run_id: str) -> None:
        """Send a fact, or give the client up where too much waits already."""
        if self._is_over:
            return
        if len(self._queue) >= MOST_WAITING:
            self.give_up()
            return
        self._queue.push(Slot(frame), run_id)
        self._grown()

    def progress(self, frame: bytes, name: str, run_id: str) -> None:
        """Send progress, in place of what waits of this run; where too much waits, not at all."""
        if self._is_over or (len(self._queue) >= MOST_WAITING and not self._queue.is_waiting(name, run_id)):
            return
        self._queue.push_latest(frame, name, run_id)
        self._grown()

    def give_up(self) -> None:
        """Take nothing more and forget what waits: the client has to resume."""
        if not self._is_over:
            self.close()
            self._overflowed()

    def close(self) -> None:
        """Take nothing more, and forget what waits."""
        self._is_over = True
        self._queue.clear()
        self._answers = self._answer_bytes = 0
        self._has_room.set()

    async def room(self) -> None:
        """Wait while a lot is waiting."""
        if not self._has_room.is_set():
            await self._has_room.wait()

    async def run(self) -> None:
        """Send what comes, until cancelled; whatever `send` raises."""
        while True:
            if self._queue:
                frames = self._batch()
                await self._send(frames)
                if not self._has_room.is_set() and not self._is_full():
                    self._has_room.set()
            if self._queue:
                await asyncio.sleep(0)  # sending does not wait as long as the client keeps up, but others do
            else:
                self._filled.clear()
                await self._filled.wait()

    def _batch(self) -> list[bytes]:
        """Take what can be written at once."""
        frames: list[bytes] = []
        size = 0
        while self._queue and len(frames) < _FRAMES_AT_ONCE and size < _BYTES_AT_ONCE:
            slot = self._queue.pop()
            frames.append(slot.content)
            size += len(slot.content)
            if slot.answer_bytes:
                self._answers -= 1
                self._answer_bytes -= slot.answer_bytes
        return frames

    def _grown(self) -> None:
        if len(self._queue) == 1:
            self._filled.set()
        if self._is_full():
            self._has_room.clear()

    def _is_full(self) -> bool:
        return (
            self._answers >= MOST_ANSWERS
            or self._answer_bytes >= MOST_ANSWER_BYTES
            or len(self._queue) >= MOST_WAITING // 2
        )
