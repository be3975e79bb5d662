"""Who goes next: one queue of jobs by priority and memory, in which nobody waits for ever.

Jobs go by priority, then by arrival. Two rules bound the waiting. A class that has been passed over PATIENCE times has
its oldest job go first. And a job whose memory is not free yet lets others that fit overtake it MOST_OVERTAKINGS times;
then nothing that takes memory goes before it. That may leave workers idle until enough of the others have ended, which
they do: no job is let in that could never fit.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from itertools import count, islice
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from daemon.core.errors import Code, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.research.backtest_result import Priority

T = TypeVar("T")

PATIENCE: Final = 8
MOST_OVERTAKINGS: Final = 4
UNLIMITED: Final = 1 << 62

_CLASSES: Final[tuple[Priority, ...]] = ("high", "normal", "low")
# How far down each class one looks for a job that fits; beyond, jobs wait for those before them.
_DEPTH: Final = 64
_MIB: Final = 1 << 20


class Ticket(Generic[T]):
    """A place in the queue, then, until it is released, a share of the memory. overtaken: how often, for its size."""

    __slots__ = ("item", "memory_bytes", "number", "overtaken", "priority")

    def __init__(self, number: int, item: T, priority: Priority, memory_bytes: int) -> None:
        self.number = number
        self.item = item
        self.priority: Priority = priority
        self.memory_bytes = memory_bytes
        self.overtaken = 0


class JobQueue(Generic[T]):
    """Jobs that wait, and the memory that running ones have. Methods may be called from any thread."""

    def __init__(self, budget_bytes: int = UNLIMITED) -> None:
        self.budget_bytes = budget_bytes
        self._changed = threading.Condition()
        self._waiting: dict[Priority, OrderedDict[int, Ticket[T]]] = {each: OrderedDict() for each in _CLASSES}
        self._passed: dict[Priority, int] = dict.fromkeys(_CLASSES, 0)
        self._used_bytes = 0
        self._numbers = count()
        self._is_closed = False

    def check(self, memory_bytes: int) -> None:
        """Refuse a job that could never run: InvalidRequest MEMORY_BOUND_EXCEEDED."""
        if memory_bytes > self.budget_bytes:
            bound, budget = _mebibytes(memory_bytes), _mebibytes(self.budget_bytes)
            raise InvalidRequest(
                Code.MEMORY_BOUND_EXCEEDED,
                f"it may need {bound:,} MiB of memory, and all backtests together may have {budget:,} MiB: take fewer "
                "symbols, a shorter range or a longer timeframe, or raise backtest.memory_mb",
                {"bound_mb": bound, "budget_mb": budget},
            )

    def put(self, item: T, priority: Priority, memory_bytes: int) -> Ticket[T] | None:
        """Queue a job; None once the queue is closed. InvalidRequest as `check` says."""
        self.check(memory_bytes)
        with self._changed:
            if self._is_closed:
                return None
            ticket = Ticket(next(self._numbers), item, priority, memory_bytes)
            self._waiting[priority][ticket.number] = ticket
            self._changed.notify()
        return ticket

    def take(self) -> Ticket[T] | None:
        """Wait for the job that goes next, with its memory reserved until `release`; None once the queue is closed."""
        with self._changed:
            while not self._is_closed:
                if (ticket := self._pick()) is not None:
                    self._used_bytes += ticket.memory_bytes
                    return ticket
                self._changed.wait()
        return None

    def release(self, ticket: Ticket[T]) -> None:
        """Give back the memory of a job that was taken."""
        with self._changed:
            self._used_bytes -= ticket.memory_bytes
            self._changed.notify_all()

    def remove(self, ticket: Ticket[T]) -> None:
        """Take out a job that waits; nothing happens where it does not."""
        with self._changed:
            if self._waiting[ticket.priority].pop(ticket.number, None) is not None:
                self._changed.notify_all()  # who waited behind it may fit

    def close(self) -> list[T]:
        """Let nobody take any more; return what waited, in order of arrival."""
        with self._changed:
            self._is_closed = True
            left = [ticket for waiting in self._waiting.values() for ticket in waiting.values()]
            for waiting in self._waiting.values():
                waiting.clear()
            self._changed.notify_all()
        return [ticket.item for ticket in sorted(left, key=lambda ticket: ticket.number)]

    # Internals, under the lock.

    def _pick(self) -> Ticket[T] | None:
        first: Ticket[T] | None = None
        for ticket in self._candidates():
            fits = self._used_bytes + ticket.memory_bytes <= self.budget_bytes
            if first is None and not fits:
                first = ticket
            is_allowed = first is None or first.overtaken < MOST_OVERTAKINGS or ticket.memory_bytes == 0
            if fits and is_allowed:
                if first is not None and ticket.memory_bytes:
                    first.overtaken += 1
                self._leave(ticket)
                return ticket
        return None

    def _candidates(self) -> Iterator[Ticket[T]]:
        """Walk those that might go, in the order in which they should."""
        order = [each for each in _CLASSES if self._waiting[each]]
        if order:
            neglected = max(order, key=lambda each: self._passed[each])
            if self._passed[neglected] >= PATIENCE:
                order.remove(neglected)
                order.insert(0, neglected)
        for each in order:
            yield from list(islice(self._waiting[each].values(), _DEPTH))

    def _leave(self, ticket: Ticket[T]) -> None:
        """Take a job out, and count for whom it was one more that went before."""
        del self._waiting[ticket.priority][ticket.number]
        self._passed[ticket.priority] = 0
        for lower in _CLASSES[_CLASSES.index(ticket.priority) + 1 :]:
            self._passed[lower] = self._passed[lower] + 1 if self._waiting[lower] else 0


def _mebibytes(size: int) -> int:
    return -(-size // _MIB)
