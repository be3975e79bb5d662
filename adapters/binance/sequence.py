"""Whether a book's changes follow on each other, and where its snapshot belongs among them.

A lost change leaves a wrong level standing for hours, so a book counts only from a snapshot on, and only as long as
each change begins where the last one ended. Spot names the ids that a change covers (U to u), futures name the end of
the change before (pu); here both are a change that covers the ids after `previous_id` up to `last_id`, and one test
serves both: it may not begin after what is known, and what ends before it is a repeat. That is wider than the venue's
own rule in one respect: a change that overlaps what is known is taken, since levels are absolute. Two connections cut
the same changes at different ids, and a planned reconnect must not cost the book.

Changes are never thrown away, for they are what was recorded: those that a snapshot covers come before it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.market import NS_PER_SECOND
from daemon.core.ports import Hole, HoleReason
from daemon.core.ticks import COLUMNS, DepthFlag, Stream, Ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapters.binance.messages import DepthEvent
    from daemon.core.market import TsNs

BUFFERED_ROWS: Final = 65_536

# An old id this much later than the newest is no repeat: the venue has begun to count anew, as after maintenance.
_RESTART_NS: Final = 60 * NS_PER_SECOND
_NOTHING: Final = -1
_PLACES: Final = {name: place for place, name in enumerate(COLUMNS[Stream.DEPTH])}


class State(StrEnum):
    """BUFFERING: changes wait for a snapshot to begin with. SYNCHRONISED: they follow on one without a gap."""

    BUFFERING = "buffering"
    SYNCHRONISED = "synchronised"


class Passed(NamedTuple):
    """What may be handed on, in order of id: rows, and the holes that were found."""

    rows: list[Ticks]
    holes: list[Hole]


class DepthSequence:
    """One symbol's book changes, in order of arrival.

    buffered_rows: so many wait for a snapshot at most; more are passed on without one.
    """

    def __init__(self, buffered_rows: int = BUFFERED_ROWS) -> None:
        self.state = State.BUFFERING
        self._most_rows = buffered_rows
        self._waiting: list[DepthEvent] = []
        self._waiting_rows = 0
        self._newest_id = _NOTHING  # up to where changes are known, waiting ones and a snapshot included
        self._newest_ns: TsNs = 0
        self._passed_id = _NOTHING  # of the last change that was handed on
        self._passed_ns: TsNs = 0
        self._is_after_gap = False  # the next rows are the first after a break

    @property
    def wants_snapshot(self) -> bool:
        """Whether changes wait for a snapshot; one asked for before the first change might be older than it."""
        return self.state is State.BUFFERING and self._newest_id != _NOTHING

    def events(self, events: Sequence[DepthEvent]) -> Passed:
        """Take changes; after a break they wait for another snapshot, and AFTER_GAP marks the first of them."""
        passed = Passed([], [])
        for event in events:
            if self._newest_id != _NOTHING:
                restarted = event.last_id <= self._newest_id and event.time_ns > self._newest_ns + _RESTART_NS
                if restarted or event.previous_id > self._newest_id:
                    self._break(event, passed)
                elif event.last_id <= self._newest_id:
                    continue
            self._newest_id, self._newest_ns = event.last_id, event.time_ns
            if self.state is State.SYNCHRONISED:
                self._pass(event, passed)
            else:
                self._wait(event, passed)
        return passed

    def snapshot(self, rows: Ticks) -> Passed | None:
        """Take a snapshot's rows, all of one id, and let the waiting changes follow it.

        A snapshot without a time of its own (time_ns is its local_ns) takes that of the last change that it covers.
        Returns None for one that is empty, or older than changes that have passed or wait: ask for another. One that
        is not needed passes nothing.
        """
        if self.state is State.SYNCHRONISED:
            return Passed([], [])
        last_id = int(rows.column("id")[0]) if rows.size else _NOTHING
        later = next((place for place, event in enumerate(self._waiting) if event.last_id > last_id), None)
        rest = [] if later is None else self._waiting[later:]
        if not rows.size or last_id < self._passed_id or (rest and rest[0].previous_id > last_id):
            return None
        passed = Passed([], [])
        for event in self._waiting[:later]:
            self._pass(event, passed)
        rows = self._dated(rows, rest)
        passed.rows.append(self._marked(rows))
        if last_id >= self._newest_id:
            self._newest_id, self._newest_ns = last_id, int(rows.time_ns[0])
        self._passed_id, self._passed_ns = last_id, int(rows.time_ns[0])
        for event in rest:
            self._pass(event, passed)
        self._waiting, self._waiting_rows = [], 0
        self.state = State.SYNCHRONISED
        return passed

    def flush(self) -> Passed:
        """Hand on what waits, without a snapshot: there is too much of it, or nothing more will come."""
        passed = Passed([], [])
        for event in self._waiting:
            self._pass(event, passed)
        self._waiting, self._waiting_rows = [], 0
        return passed

    def _break(self, event: DepthEvent, passed: Passed) -> None:
        passed.rows.extend(self.flush().rows)
        passed.holes.append(
            Hole(
                start_ns=self._newest_ns,
                stop_ns=max(self._newest_ns, event.time_ns),
                reason=HoleReason.SEQUENCE,
                after_id=self._newest_id,
                before_id=event.first_id,
            )
        )
        self.state = State.BUFFERING
        self._passed_id = _NOTHING  # of another run of ids: it says nothing about the age of the next snapshot
        self._is_after_gap = True

    def _wait(self, event: DepthEvent, passed: Passed) -> None:
        self._waiting.append(event)
        self._waiting_rows += event.rows.size
        if self._waiting_rows > self._most_rows:
            passed.rows.extend(self.flush().rows)

    def _pass(self, event: DepthEvent, passed: Passed) -> None:
        if event.rows.size:  # the venue sends empty changes too; they carry the ids on
            passed.rows.append(self._marked(event.rows))
        self._passed_id, self._passed_ns = event.last_id, event.time_ns

    def _marked(self, rows: Ticks) -> Ticks:
        if not self._is_after_gap:
            return rows
        self._is_after_gap = False
        return _with(rows, "flags", rows.column("flags") | np.int8(DepthFlag.AFTER_GAP))

    def _dated(self, rows: Ticks, rest: list[DepthEvent]) -> Ticks:
        local_ns = int(rows.column("local_ns")[0])
        if int(rows.time_ns[0]) != local_ns:
            return rows
        # Another clock than the venue's could put the snapshot behind changes that are to follow it.
        told_ns = self._passed_ns or (min(local_ns, rest[0].time_ns) if rest else local_ns)
        return _with(rows, "time_ns", np.full(rows.size, told_ns, np.int64))


def _with(rows: Ticks, name: str, column: np.ndarray) -> Ticks:
    columns = list(rows.columns)
    columns[_PLACES[name]] = column
    return rows._replace(columns=tuple(columns))
