"""A live feed into the store: what arrives is committed a few times a second, what was missed is fetched.

Rows are in the store before anything else sees them. After a loss of connection the jump of ids in the first rows
names the hole; the venue's history fills it, and the ledger says that it did. Streams whose ids do not tell (quotes,
the book) keep the hole.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Meta

from daemon.core import ticks as core_ticks
from daemon.core.errors import AtlasError, StoreCorrupt, StoreFull
from daemon.core.market import Instrument, Timeframe
from daemon.core.ports import (
    FeedBars,
    FeedDown,
    FeedHole,
    FeedOdd,
    FeedTicks,
    FeedUp,
    Hole,
    HoleReason,
    LiveFeed,
)
from daemon.core.ticks import Stream, Ticks
from daemon.store import instruments, keys, ledger
from daemon.store.ledger import CONTIGUOUS
from daemon.store.tick_chunks import KEY_STREAMS
from daemon.store.tick_series import prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.market import Bars, TsNs
    from daemon.core.ports import FeedEvent, HistorySource
    from daemon.store.bars import BarStore
    from daemon.store.env import Transaction
    from daemon.store.ticks import TickStore

_log = logging.getLogger(__name__)

# The feed is not read on while so much waits for the disk.
_MOST_PENDING_ROWS: Final = 500_000
_MOST_LATE_ROWS: Final = 4_096


class RecordConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[record]` of config.toml.

    commit_ms: how long live rows wait for a commit, milliseconds: what a power loss can take. backfill_rows: a hole of
    more rows than this is left to `atlasd fetch`.
    """

    commit_ms: Annotated[int, Meta(ge=1, le=60_000)] = 250
    backfill_rows: Annotated[int, Meta(ge=0)] = 500_000


class RecordStatus(msgspec.Struct):
    """How a recording is doing. rows: stored, by stream. odd: messages that could not be used."""

    connected: bool = False
    rows: dict[str, int] = {}
    reconnects: int = 0
    odd: int = 0
    backfilled: int = 0
    last_error: str = ""


class _Pending:
    """What has arrived since the last commit, in order of arrival."""

    def __init__(self) -> None:
        self.ticks: dict[tuple[str, Stream], list[Ticks]] = {}
        self.bars: list[tuple[str, Timeframe, Bars]] = []
        self.holes: list[tuple[str, Stream, Hole]] = []
        self.rows = 0

    def __bool__(self) -> bool:
        return bool(self.rows or self.bars or self.holes)


class Recorder:
    """Records one feed until it is cancelled.

    history: fills holes between ids; None leaves them. StoreFull and StoreCorrupt end the recording; everything else
    is the feed's to survive.
    """

    def __init__(
        self,
        bars: BarStore,
        ticks: TickStore,
        venue: str,
        feed: LiveFeed,
        history: Callable[[str], HistorySource] | None,
        config: RecordConfig,
    ) -> None:
        self._bars = bars
        self._ticks = ticks
        self._venue = venue
        self._feed = feed
        self._history = history
        self._config = config
        self._pending = _Pending()
        self._room = asyncio.Event()
        self._down_ns: TsNs | None = None
        # Streams whose next rows come after a loss of connection.
        self._after_loss: set[tuple[str, Stream]] = set()
        self._seen: set[tuple[str, Stream]] = set()
        self._backfill: asyncio.Task[None] | None = None
        # Holes that the venue was asked for: what it does not have is not asked for at each commit.
        self._asked: set[tuple[str, Stream, int]] = set()
        self.status = RecordStatus()

    async def run(self) -> None:
        """Record until cancelled; what has arrived by then is committed."""
        self._room.set()
        reading = asyncio.create_task(self._read())
        try:
            while not reading.done():
                await asyncio.wait([reading], timeout=self._config.commit_ms / 1e3)
                await self._commit()
                if self._backfill is not None and self._backfill.done():
                    await self._backfill
                    self._backfill = None
            await reading
        finally:
            for task in (reading, self._backfill):
                if task is not None:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
            await asyncio.shield(self._commit())

    # What arrives.

    async def _read(self) -> None:
        async with aclosing(self._feed.events()) as events:
            async for event in events:
                self._take(event)
                if self._pending.rows >= _MOST_PENDING_ROWS:
                    self._room.clear()
                    await self._room.wait()

    def _take(self, event: FeedEvent) -> None:
        match event:
            case FeedTicks(symbol, rows):
                self._pending.ticks.setdefault((symbol, rows.stream), []).append(rows)
                self._pending.rows += rows.size
            case FeedBars(symbol, timeframe, bars):
                self._pending.bars.append((symbol, timeframe, bars))
            case FeedHole(symbol, stream, hole):
                self._pending.holes.append((symbol, stream, hole))
            case FeedUp():
                self.status.connected = True
            case FeedDown(at_ns, reason, planned):
                self._lost(at_ns, reason, planned=planned)
            case FeedOdd(_, why, message):
                self.status.odd += 1
                _log.warning("%s: %s: %s", self._venue, why, message)

    def _lost(self, at_ns: TsNs, reason: str, *, planned: bool) -> None:
        if planned:
            return
        self.status.connected = False
        self.status.reconnects += 1
        self._down_ns = at_ns
        self._after_loss |= self._seen
        _log.warning("%s: the feed is down: %s", self._venue, reason)

    # What is stored.

    async def _commit(self) -> None:
        pending, self._pending = self._pending, _Pending()
        if not pending:
            return
        added, holes = await asyncio.to_thread(self._ticks.env.write, lambda each: self._write(each, pending))
        self._room.set()
        for key, count in added.items():
            stream = str(key[1])
            self.status.rows[stream] = self.status.rows.get(stream, 0) + count
            self._seen.add(key)
            self._after_loss.discard(key)
        new = holes - self._asked
        if new and self._history is not None and self._backfill is None:
            self._asked |= new
            series = {(symbol, stream) for symbol, stream, _ in new}
            self._backfill = asyncio.create_task(self._fill(series))

    def _write(
        self, transaction: Transaction, pending: _Pending
    ) -> tuple[dict[tuple[str, Stream], int], set[tuple[str, Stream, int]]]:
        """Store what has arrived; returns rows by series, and the holes between ids that are open in them."""
        added: dict[tuple[str, Stream], int] = {}
        holes: set[tuple[str, Stream, int]] = set()
        for (symbol, stream), parts in pending.ticks.items():
            instrument = self._instrument(symbol)
            rows = core_ticks.concatenate(parts)
            is_after_loss = (symbol, stream) in self._after_loss
            if is_after_loss and stream not in CONTIGUOUS:
                self._note_loss(transaction, instrument, rows)
            reason = HoleReason.DISCONNECT if is_after_loss else HoleReason.IDS
            added[symbol, stream] = self._ticks.append(transaction, instrument, rows, reason)
            if stream in CONTIGUOUS:
                found = open_holes(transaction, instrument, stream, self._config.backfill_rows)
                holes |= {(symbol, stream, hole.after_id) for hole in found}
        for symbol, timeframe, bars in pending.bars:
            self._bars.merge(transaction, self._instrument(symbol), timeframe, bars, replace=True)
            added[symbol, Stream.BARS] = added.get((symbol, Stream.BARS), 0) + bars.size
        for symbol, stream, hole in pending.holes:
            if stream in CONTIGUOUS:
                continue  # found from the ids themselves, and closed by them
            prefix = self._prefix(transaction, self._instrument(symbol), stream)
            ledger.put_hole(transaction, prefix, hole, self._ticks.now_ns())
        return added, holes

    def _note_loss(self, transaction: Transaction, instrument: Instrument, rows: Ticks) -> None:
        """Record that a stream without numbered rows was not heard for a while."""
        prefix = self._prefix(transaction, instrument, rows.stream)
        last = self._ticks.end_ns(transaction, instrument, rows.stream)
        start_ns = self._down_ns if last is None else last
        if start_ns is not None and start_ns < int(rows.time_ns[0]):
            hole = Hole(start_ns, int(rows.time_ns[0]), HoleReason.DISCONNECT)
            ledger.put_hole(transaction, prefix, hole, self._ticks.now_ns())

    def _instrument(self, symbol: str) -> Instrument:
        return Instrument(self._venue, symbol)

    def _prefix(self, transaction: Transaction, instrument: Instrument, stream: Stream) -> bytes:
        return keys.series(instruments.register(transaction, instrument), KEY_STREAMS[stream], 0)

    # What was missed.

    async def _fill(self, series: set[tuple[str, Stream]]) -> None:
        """Ask the venue for the rows between ids that are missing; what it does not have stays a hole."""
        for symbol, stream in sorted(series):
            if self._history is None:
                return
            source = self._history(symbol)
            try:
                if stream in source.streams:
                    most = self._config.backfill_rows
                    self.status.backfilled += await fill_holes(
                        self._ticks, source, self._instrument(symbol), stream, most
                    )
            except (StoreFull, StoreCorrupt):
                raise
            except AtlasError as error:
                self.status.last_error = error.message
                _log.warning("%s %s: holes stay open for now: %s", self._venue, symbol, error.message)
            finally:
                await source.close()


def open_holes(transaction: Transaction, instrument: Instrument, stream: Stream, most_rows: int) -> list[Hole]:
    """List a series' open holes between ids, the oldest first, but for those of more rows."""
    prefix = prefix_of(transaction, instrument, stream)
    found = [] if prefix is None else list(ledger.holes(transaction, prefix))
    return [each.hole for each in found if not each.repaired_at_ns and 0 < each.hole.missing <= most_rows]


async def fill_holes(
    ticks: TickStore, source: HistorySource, instrument: Instrument, stream: Stream, most_rows: int
) -> int:
    """Fetch the rows of a series' open holes between ids, the oldest hole first; returns how many were new.

    most_rows: holes of more are left. Raises as `HistorySource` does; what was fetched before is stored.
    """

    def holes() -> list[Hole]:
        with ticks.env.read() as transaction:
            return open_holes(transaction, instrument, stream, most_rows)

    added = 0
    for hole in await asyncio.to_thread(holes):
        late: list[Ticks] = []
        async for rows in source.ticks_between(instrument.symbol, stream, hole.after_id, hole.before_id):
            late.append(rows)
            if sum(part.size for part in late) >= _MOST_LATE_ROWS:
                added += await asyncio.to_thread(_append_late, ticks, instrument, late)
                late = []
        if late:
            added += await asyncio.to_thread(_append_late, ticks, instrument, late)
    return added


def _append_late(ticks: TickStore, instrument: Instrument, parts: list[Ticks]) -> int:
    rows = core_ticks.concatenate(parts)
    return ticks.env.write(lambda transaction: ticks.append(transaction, instrument, rows))
