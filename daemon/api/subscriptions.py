"""A client's event stream: what it wants, and the facts it missed, told again in their order."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from daemon.api.frames import KNOWN_EVENTS, Told
from daemon.api.limits import too_many
from daemon.api.protocol import Wanted
from daemon.core.errors import AtlasError, Code, Conflict, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daemon.api.frames import Dialect
    from daemon.api.outbox import Outbox
    from daemon.store.journal import Journal

MOST_FILTERS: Final = 64
MOST_NAMES: Final = 1_000
"""Of symbols and runs, in all filters of one event: each of them costs memory, and time for every event."""

_FACTS_AT_ONCE: Final = 256
_AGAIN_S: Final = 1.0
_BEFORE_ALL: Final = -1
"""A place that no journal has: what was told under another epoch cannot be followed by anything here."""


class _Filter(NamedTuple):
    """Of one event: which symbols and runs; empty for all."""

    symbols: frozenset[str]
    runs: frozenset[str]

    def takes(self, run_id: str, symbols: list[str]) -> bool:
        """Tell whether an event is about them. A symbol may be written without its venue."""
        if self.runs and run_id not in self.runs:
            return False
        return not self.symbols or any(
            each in self.symbols or each.partition(":")[2] in self.symbols for each in symbols
        )

    def joined(self, other: _Filter) -> _Filter | None:
        """Return the one filter that takes what either takes, and nothing else; None where there is no such."""
        if self.runs == other.runs:
            return _Filter(_either(self.symbols, other.symbols), self.runs)
        if self.symbols == other.symbols:
            return _Filter(self.symbols, _either(self.runs, other.runs))
        return None

    def without(self, symbols: frozenset[str], runs: frozenset[str]) -> _Filter | None:
        """Return what is left when some names are taken out of it; None for nothing."""
        left = _Filter(self.symbols - symbols, self.runs - runs)
        is_empty = (self.symbols and not left.symbols) or (self.runs and not left.runs)
        return None if is_empty else left

    def __len__(self) -> int:
        return len(self.symbols) + len(self.runs)


_ALL: Final = _Filter(frozenset(), frozenset())


def _either(some: frozenset[str], others: frozenset[str]) -> frozenset[str]:
    return some | others if some and others else frozenset()


def _added(filters: tuple[_Filter, ...], new: _Filter) -> tuple[_Filter, ...]:
    """Add a filter; InvalidRequest where there would be more than a client may have."""
    if new == _ALL or _ALL in filters:
        return (_ALL,)
    for place, each in enumerate(filters):
        if (joined := each.joined(new)) is not None:
            added = (*filters[:place], joined, *filters[place + 1 :])
            break
    else:
        added = (*filters, new)
    if len(added) > MOST_FILTERS or sum(map(len, added)) > MOST_NAMES:
        raise InvalidRequest(
            Code.INVALID_REQUEST,
            f"an event is narrowed to {MOST_NAMES} symbols and runs in {MOST_FILTERS} ways at the most: unsubscribe "
            "those that are over, or subscribe to all and choose",
        )
    return added


class Stream:
    """One client's events. Methods are called on the event loop alone.

    outbox, dialect: how they go out. told_last: the last fact that all streams were told. snapshot: what a client is
    given that missed too much. turn: held by the one stream that reads the journal: many who come back at once would
    take the interpreter from the loop.
    """

    def __init__(
        self,
        outbox: Outbox,
        dialect: Dialect,
        journal: Journal,
        told_last: Callable[[], int],
        snapshot: Callable[[], dict[str, Any]],
        turn: asyncio.Lock,
    ) -> None:
        self._outbox = outbox
        self._dialect = dialect
        self._journal = journal
        self._told_last = told_last
        self._snapshot = snapshot
        self._turn = turn
        self._filters: dict[str, tuple[_Filter, ...]] = {}
        self._told_to = 0
        self._replaying: asyncio.Task[None] | None = None
        self._is_replaying = False

    @property
    def is_attached(self) -> bool:
        """Whether anything is sent at all."""
        return bool(self._filters)

    @property
    def wanted(self) -> Wanted:
        """What is sent."""
        filters = [each for of_event in self._filters.values() for each in of_event]
        symbols = [] if any(not each.symbols for each in filters) else {name for f in filters for name in f.symbols}
        runs = [] if any(not each.runs for each in filters) else {name for f in filters for name in f.runs}
        return Wanted(
            attached=self.is_attached,
            events=[] if len(self._filters) == len(KNOWN_EVENTS) else list(self._filters),
            symbols=sorted(symbols),
            runs=sorted(runs),
            epoch=self._journal.epoch,
            last=self._told_last(),
        )

    def attach(self, events: Sequence[str], symbols: Sequence[str], runs: Sequence[str]) -> None:
        """Send these events from now on, beside those that are sent already; InvalidRequest for too many names."""
        new = _Filter(frozenset(symbols), frozenset(runs))
        self._filters |= {name: _added(self._filters.get(name, ()), new) for name in _names(events)}

    def detach(self, events: Sequence[str], symbols: Sequence[str], runs: Sequence[str]) -> None:
        """Send these events no longer; of these symbols and runs alone, where any are named."""
        named = (frozenset(symbols), frozenset(runs))
        for name in _names(events):
            filters = self._filters.pop(name, ())
            left = tuple(kept for each in filters if (kept := each.without(*named)) is not None)
            if left and any(named):
                self._filters[name] = left

    def takes(self, told: Told) -> bool:
        """Tell whether the client wants an event."""
        return any(each.takes(told.run_id, told.symbols) for each in self._filters.get(told.name, ()))

    def tell(self, told: Told) -> None:
        """Send an event that the client wants. While facts are told again, new ones wait in the journal."""
        if told.seq is None:
            self._outbox.progress(told.frame(self._dialect), told.name, told.run_id)
        elif not self._is_replaying and told.seq > self._told_to:
            self._outbox.fact(told.frame(self._dialect), told.run_id)

    def close(self) -> None:
        """Send nothing more."""
        self._filters.clear()
        if self._replaying is not None:
            self._replaying.cancel()

    async def replay(self, epoch: str, after: int) -> int:
        """Send the facts after a place of the journal once more, then go on with new ones; returns how many there are.

        A client that wants nothing yet is sent everything from here on: a subscription before would have sent newer
        facts first. Conflict RESUME_GAP with the journal's epoch, first and last, and a snapshot; TooManyRequests while
        an earlier replay goes on.
        """
        if self._is_replaying:
            raise too_many("facts are being told again already", _AGAIN_S)
        if not self.is_attached:
            self.attach((), (), ())
        self._is_replaying = True
        try:
            async with self._turn:
                count = await asyncio.to_thread(self._count, epoch, after)
        except Conflict as gap:
            self._is_replaying = False
            raise await self._gap(gap, epoch) from None
        except BaseException:
            self._is_replaying = False
            raise
        # Its first step goes to a thread: whoever awaits this puts the answer into the outbox before the first fact.
        self._replaying = asyncio.create_task(self._replay(after))
        return count

    def _count(self, epoch: str, after: int) -> int:
        if epoch != self._journal.epoch:
            after = _BEFORE_ALL
        facts = self._journal.after(after)
        if all(self._filters.get(name) == (_ALL,) for name in KNOWN_EVENTS):
            return max(self._journal.last - after, 0)  # they are numbered without a hole
        return sum(self.takes(told) for told in self._told(facts))

    async def _gap(self, gap: Conflict, epoch: str) -> Conflict:
        """Add to an error what a client needs to go on without the facts it missed."""

        def known() -> dict[str, Any]:
            return {**(gap.details or {}), "snapshot": self._snapshot()}

        message = gap.message
        if epoch != self._journal.epoch:
            message = (
                "`epoch` names another journal. Ask for the state of what you show, and resume from `details.last`"
            )
        async with self._turn:
            return Conflict(gap.code, message, await asyncio.to_thread(known))

    async def _replay(self, after: int) -> None:
        try:
            while not self._outbox.is_over:
                async with self._turn:
                    following = await asyncio.to_thread(self._page, after)
                for told in following:
                    if self.takes(told):
                        self._outbox.fact(told.frame(self._dialect), told.run_id)
                    after = self._told_to = told.seq or after
                if not following and after >= self._told_last():
                    break
                await self._outbox.room()
        except AtlasError:
            self._outbox.give_up()  # so slow that what was to come is kept no longer
        finally:
            self._is_replaying = False

    def _page(self, after: int) -> list[Told]:
        page = list(self._told(islice(self._journal.after(after), _FACTS_AT_ONCE)))
        for told in page:
            told.frame(self._dialect)  # made here, so that the loop only moves bytes
        return page

    def _told(self, facts: Iterator[Any]) -> Iterator[Told]:
        epoch = self._journal.epoch
        return (Told.of_fact(fact, epoch) for fact in facts)


def _names(events: Sequence[str]) -> Sequence[str]:
    """Return the events' own names: a room's is all of its, none is all."""
    if not events:
        return KNOWN_EVENTS
    rooms = tuple(each.removesuffix("*") for each in events if each.endswith(":*"))
    return [name for name in KNOWN_EVENTS if name in events or (rooms and name.startswith(rooms))]
