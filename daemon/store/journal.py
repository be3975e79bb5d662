"""The journal of facts: what clients are told is on disk first, and the last MOST_FACTS can be told again.

A fact that tells of a stored state is written in the transaction that stores the state (`announce`), so that nothing
that kills the process can come between them: a state is never on disk without its fact, nor a fact without its state.
What was committed and not told when the process died is found by whoever asks `after`. A fact that cannot be stored,
on a full disk, was never one: it has no number and nobody is told of it.
"""

from __future__ import annotations

import logging
import secrets
import threading
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol, Self

import msgspec

from daemon.core.errors import Code, Conflict
from daemon.core.events import Fact
from daemon.store import keys
from daemon.store.group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.core.errors import AtlasError
    from daemon.core.events import Event
    from daemon.store.env import Environment, Transaction

_log = logging.getLogger(__name__)

MOST_FACTS: Final = 100_000

_TABLE: Final = "journal"
_EPOCH: Final = b"journal_epoch"
_EPOCH_BYTES: Final = 16
_PAGE: Final = 500
"""Facts that one snapshot reads: 150 kB, less than a millisecond."""

_SLACK: Final = 100
"""The oldest facts go when there are a hundredth of `most` too many: a deletion a commit would cost more pages."""


class Announcement(Protocol):
    """A fact on its way. Who drops it, because nothing was stored, does no harm."""

    def put(self, transaction: Transaction) -> None:
        """Write it beside what it tells of; may be run again, as the transaction may."""

    def tell(self) -> None:
        """Say that the transaction is committed, and all that belongs to it done: now it may be told."""


class Announcer(Protocol):
    """What makes facts known: a `Journal`."""

    def announce(self, event: Event) -> Announcement:
        """Begin to make a fact known."""


class Unheard:
    """Makes nothing known, for who has nobody to tell."""

    def announce(self, event: Event) -> Self:  # noqa: ARG002
        """Take a fact and do nothing with it."""
        return self

    def put(self, transaction: Transaction) -> None:
        """Write nothing."""

    def tell(self) -> None:
        """Tell nobody."""


UNHEARD: Final = Unheard()


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    name: str
    time_ms: int
    fields: bytes


class Journal:
    """Facts of one store, numbered from 1. Methods may be called from any thread.

    There is one of these for a store at a time, under the writer lock.
    """

    def __init__(
        self,
        env: Environment,
        now_ms: Callable[[], int],
        written: Callable[[Fact], None] | None = None,
        *,
        most: int = MOST_FACTS,
    ) -> None:
        """written: the first listener. most: facts that are kept."""
        self._env = env
        self._now_ms = now_ms
        self._most = most
        self._commits = GroupCommit(env)
        self._telling = threading.Lock()
        self._listeners: tuple[Callable[[Fact], None], ...] = () if written is None else (written,)
        self._committed: dict[int, Fact] = {}
        self._epoch = _known_epoch(env)
        with env.read() as transaction:
            self._last = _last(transaction)

    @property
    def epoch(self) -> str:
        """Name of this journal: another store has another, and numbers of one say nothing about those of the other."""
        return self._epoch

    @property
    def last(self) -> int:
        """Number of the last fact that is on disk and was told, 0 for none."""
        return self._last

    # Writing.

    def listen(self, listener: Callable[[Fact], None]) -> Callable[[], None]:
        """Tell a listener every fact from now on, until what this returns is called.

        It is told in the order of numbers, one after another, on the thread that committed; it must not wait.
        """
        with self._telling:
            self._listeners = (*self._listeners, listener)

        def leave() -> None:
            with self._telling:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return leave

    def announce(self, event: Event) -> Announcement:
        """Begin to make a fact known that is stored with what it tells of."""
        return _Announcement(self._put, self._tell, event)

    def append(self, event: Event) -> None:
        """Write a fact that stands for itself; returns at once, unless more wait than the disk takes.

        A fact that cannot be stored is logged and never told, for nobody could resume at it.
        """
        announced = self.announce(event)

        def stored(error: AtlasError | None) -> None:
            if error is None:
                announced.tell()
            else:
                _log.error("%s of %s could not be stored, nobody is told: %s", event.NAME, event.id, error.message)

        self._commits.post(announced.put, stored)

    def close(self) -> None:
        """Write what waits; what is appended after is lost, and logged."""
        self._commits.close()

    # Reading.

    def after(self, seq: int) -> Iterator[Fact]:
        """Walk the facts after a number, up to `last` as it is when the walk gets there.

        No snapshot is held between two steps, so a slow reader keeps nothing from being freed. Conflict RESUME_GAP,
        here or on the way, where some of them are kept no longer; also where `seq` is above `last`, because the store
        was put back to an earlier state. Its details: epoch, first and last number that are kept.
        """
        return self._walk(self._page(seq))

    def _walk(self, page: list[Fact]) -> Iterator[Fact]:
        while page:
            yield from page
            page = self._page(page[-1].seq)

    def _page(self, seq: int) -> list[Fact]:
        last = self._last
        if seq == last:
            return []
        with self._env.read() as transaction:
            found = []
            if 0 <= seq < last:
                walk = transaction.scan(_TABLE, b"", keys.fact(seq + 1))
                found = [_fact(key, value) for key, value in islice(walk, min(_PAGE, last - seq))]
            if not found or found[0].seq != seq + 1:
                raise self._gap(seq, _first(transaction), last)
        return found

    def _gap(self, seq: int, first: int, last: int) -> Conflict:
        return Conflict(
            Code.RESUME_GAP,
            f"the facts after {seq} cannot be told: {first} to {last} are kept. Ask for the state of what you show, "
            f"and resume from {last}",
            {"epoch": self._epoch, "first": first, "last": last},
        )

    # Internals.

    def _put(self, event: Event, transaction: Transaction) -> Fact:
        """Write a fact and remove those that are too many. Who writes is alone, so the last number is the last."""
        seq, first = _last(transaction) + 1, _first(transaction)
        fact = Fact(seq, event.NAME, self._now_ms(), msgspec.Raw(msgspec.json.encode(event)))
        stored = _Stored(fact.name, fact.time_ms, bytes(fact.fields))
        transaction.put(_TABLE, keys.fact(seq), msgspec.msgpack.encode(stored))
        if seq - first >= self._most + self._most // _SLACK:
            for old in range(first, seq - self._most + 1):
                transaction.delete(_TABLE, keys.fact(old))
        return fact

    def _tell(self, fact: Fact) -> None:
        """Tell a committed fact, and those behind it that waited for it: commits of several threads overtake."""
        with self._telling:
            self._committed[fact.seq] = fact
            while (following := self._committed.pop(self._last + 1, None)) is not None:
                self._last = following.seq
                for listener in self._listeners:
                    try:
                        listener(following)
                    except Exception:  # noqa: BLE001
                        # The boundary between who writes and who listens: a defect there must not fail a commit here.
                        _log.exception("a listener failed on %s", following.name)


class _Announcement:
    def __init__(self, write: Callable[[Event, Transaction], Fact], tell: Callable[[Fact], None], event: Event) -> None:
        self._write = partial(write, event)
        self._tell = tell
        self._fact: Fact | None = None

    def put(self, transaction: Transaction) -> None:
        self._fact = self._write(transaction)

    def tell(self) -> None:
        if self._fact is not None:
            self._tell(self._fact)
            self._fact = None


def _known_epoch(env: Environment) -> str:
    """Read the journal's name; the first time, choose one."""
    with env.read() as transaction:
        value = transaction.get("meta", _EPOCH)
        if value is not None:
            return bytes(value).decode()
    chosen = secrets.token_urlsafe(_EPOCH_BYTES)
    env.write(lambda transaction: transaction.put("meta", _EPOCH, chosen.encode()))
    return chosen


def _fact(key: bytes, value: memoryview) -> Fact:
    stored = msgspec.msgpack.decode(value, type=_Stored)
    return Fact(keys.fact_number(key), stored.name, stored.time_ms, msgspec.Raw(stored.fields))


def _last(transaction: Transaction) -> int:
    key = next((key for key, _ in transaction.scan_back(_TABLE, b"")), None)
    return 0 if key is None else keys.fact_number(key)


def _first(transaction: Transaction) -> int:
    """Return the number of the oldest fact that is kept, 1 where there is none yet."""
    key = next((key for key, _ in transaction.scan(_TABLE, b"")), None)
    return 1 if key is None else keys.fact_number(key)
