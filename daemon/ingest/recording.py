"""A live feed into the store: what arrives is committed a few times a second, what was missed is fetched.

Rows are in the store before anything else sees them. After a loss of connection the jump of ids in the first rows
names the hole; the venue's history fills it, and the ledger says that it did. Streams whose ids do not tell (quotes,
the book) keep the hole. Between two recordings nobody was connected either: the first rows of each come after a loss.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from daemon.core import ticks as core_ticks
from daemon.core.errors import AtlasError, SourceDataInvalid, SourceUnavailable, StoreCorrupt, StoreFull
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
from daemon.store.bars import series_at
from daemon.store.ledger import CONTIGUOUS
from daemon.store.tick_chunks import KEY_STREAMS
from daemon.store.tick_series import prefix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from daemon.core.market import Bars
    from daemon.core.ports import FeedEvent, HistorySource
    from daemon.store.bars import BarStore
    from daemon.store.env import Transaction
    from daemon.store.ticks import TickStore

_log = logging.getLogger(__name__)

# The feed is not read on while so much waits for the disk.
_MOST_PENDING_ROWS: Final = 500_000
_MOST_LATE_ROWS: Final = 4_096
# How long a venue that did not answer is left alone before its history is asked for again: doubled each time.
_RETRY_S: Final = 30.0
_LONGEST_RETRY_S: Final = 1_800.0

_T = TypeVar("_T")


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


class _Run(NamedTuple):
    """Rows of a series that arrived without a loss of connection among them. is_after_loss: but before them."""

    is_after_loss: bool
    parts: list[Ticks]


class _Pending:
    """What has arrived since the last commit, in order of arrival."""

    def __init__(self) -> None:
        self.ticks: dict[tuple[str, Stream], list[_Run]] = {}
        self.bars: list[tuple[str, Timeframe, Bars]] = []
        self.holes: list[tuple[str, Stream, Hole]] = []
        self.rows = 0

    def __bool__(self) -> bool:
        return bool(self.rows or self.bars or self.holes)


class Recorder:
    """Records one feed until it is cancelled.

    history: fills holes between ids; None leaves them. retry_s: of a venue whose history does not answer.
    StoreFull and StoreCorrupt end the recording; everything else is the feed's to survive.
    """

    def __init__(
        self,
        bars: BarStore,
        ticks: TickStore,
        venue: str,
        feed: LiveFeed,
        history: Callable[[str], HistorySource] | None,
        config: RecordConfig,
        *,
        retry_s: float = _RETRY_S,
    ) -> None:
        self._bars = bars
        self._ticks = ticks
        self._venue = venue
        self._feed = feed
        self._history = history
        self._config = config
        self._retry_s = retry_s
        self._pending = _Pending()
        self._room = asyncio.Event()
        # Series that were heard since the feed was last without a connection.
        self._unbroken: set[tuple[str, Stream]] = set()
        self._backfill: asyncio.Task[None] | None = None
        # Holes that the venue was asked for: what it does not have is not asked for at each commit.
        self._asked: set[tuple[str, Stream, int]] = set()
        # Series to ask the venue for, and from when on, by the loop's clock.
        self._due_s: dict[tuple[str, Stream], float] = {}
        self._refusals: dict[tuple[str, Stream], int] = {}
        self.status = RecordStatus()

    async def run(self) -> None:
        """Record until cancelled; what has arrived by then is committed."""
        self._room.set()
        reading = asyncio.create_task(self._read())
        try:
            while not reading.done():
                await asyncio.wait([reading], timeout=self._config.commit_ms / 1e3)
                await _whole(self._commit())
                self._go_on_with_backfill()
            await reading
        finally:
            tasks = [task for task in (reading, self._backfill) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _whole(self._commit())

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
                self._take_rows((symbol, rows.stream), rows)
            case FeedBars(symbol, timeframe, bars):
                self._pending.bars.append((symbol, timeframe, bars))
            case FeedHole(symbol, stream, hole):
                self._pending.holes.append((symbol, stream, hole))
                if stream not in CONTIGUOUS:
                    self._unbroken.add((symbol, stream))  # the feed has said what was lost, and better
            case FeedUp():
                self.status.connected = True
            case FeedDown(_, reason, planned):
                self._lost(reason, planned=planned)
            case FeedOdd(_, why, message):
                self.status.odd += 1
                _log.warning("%s: %s: %s", self._venue, why, message)

    def _take_rows(self, series: tuple[str, Stream], rows: Ticks) -> None:
        runs = self._pending.ticks.setdefault(series, [])
        if series not in self._unbroken or not runs:
            runs.append(_Run(series not in self._unbroken, []))
            self._unbroken.add(series)
        runs[-1].parts.append(rows)
        self._pending.rows += rows.size

    def _lost(self, reason: str, *, planned: bool) -> None:
        if planned:
            return
        self.status.connected = False
        self.status.reconnects += 1
        self._unbroken.clear()
        _log.warning("%s: the feed is down: %s", self._venue, reason)

    # What is stored.

    async def _commit(self) -> None:
        pending, self._pending = self._pending, _Pending()
        if not pending:
            return
        added, holes = await asyncio.to_thread(self._ticks.env.write, lambda each: self._write(each, pending))
        self._room.set()
        for (_, stream), count in added.items():
            self.status.rows[stream] = self.status.rows.get(stream, 0) + count
        now_s = asyncio.get_running_loop().time()
        for symbol, stream, after_id in holes - self._asked:
            self._asked.add((symbol, stream, after_id))
            self._due_s.setdefault((symbol, stream), now_s)

    def _write(
        self, transaction: Transaction, pending: _Pending
    ) -> tuple[dict[tuple[str, Stream], int], set[tuple[str, Stream, int]]]:
        """Store what has arrived; returns rows by series, and the holes between ids that are open in them."""
        added: dict[tuple[str, Stream], int] = {}
        holes: set[tuple[str, Stream, int]] = set()
        for (symbol, stream), runs in pending.ticks.items():
            instrument = self._instrument(symbol)
            try:
                added[symbol, stream] = sum(self._append(transaction, instrument, run) for run in runs)
            except SourceDataInvalid as error:  # of this series; the others' rows are kept
                self.status.odd += 1
                self.status.last_error = error.message
                _log.error("%s %s: rows cannot be stored: %s", instrument.key, stream, error.message)
                continue
            if stream in CONTIGUOUS:
                found = open_holes(transaction, instrument, stream, self._config.backfill_rows)
                holes |= {(symbol, stream, hole.after_id) for hole in found}
        for symbol, timeframe, bars in pending.bars:
            merged = self._merge(transaction, self._instrument(symbol), timeframe, bars)
            added[symbol, Stream.BARS] = added.get((symbol, Stream.BARS), 0) + merged
        for symbol, stream, hole in pending.holes:
            if stream in CONTIGUOUS:
                continue  # found from the ids themselves, and closed by them
            self._put_hole(transaction, self._instrument(symbol), stream, hole)
        return added, holes

    def _append(self, transaction: Transaction, instrument: Instrument, run: _Run) -> int:
        """Store a run's rows; returns how many were new."""
        reason = HoleReason.DISCONNECT if run.is_after_loss else HoleReason.IDS
        if run.is_after_loss and run.parts[0].stream not in CONTIGUOUS:
            self._note_loss(transaction, instrument, run.parts)
        return sum(self._ticks.append(transaction, instrument, rows, reason) for rows in _joined(run.parts))

    def _merge(self, transaction: Transaction, instrument: Instrument, timeframe: Timeframe, bars: Bars) -> int:
        """Store complete bars; those between the last stored one and these were missed. Returns how many were new."""
        key = self._bars.series_key(transaction, instrument, timeframe)
        value = transaction.get("series", key)
        if value is not None:
            last_ns, first_ns = series_at(transaction, instrument, key).last_ns, int(bars.start_ns[0])
            missing = (first_ns - last_ns) // timeframe.ns - 1
            if missing > 0:
                hole = Hole(last_ns, first_ns, HoleReason.MISSING_BARS, missing=missing)
                ledger.put_hole(transaction, key, hole, self._ticks.now_ns())
        overlay = self._bars.merge(transaction, instrument, timeframe, bars, replace=True, volume_unit="base")
        if overlay.other_unit is not None:
            why = f"the stored {timeframe} bars count volume in quote currency, live ones in base units"
            self.status.odd += 1
            self.status.last_error = f"{instrument.key}: {why}: they are not recorded; import those under another venue"
            _log.error("%s: %s", instrument.key, why)
        return overlay.added if overlay.other_unit is None else 0

    def _note_loss(self, transaction: Transaction, instrument: Instrument, parts: list[Ticks]) -> None:
        """Record that a stream without numbered rows was not heard for a while."""
        stream = parts[0].stream
        first_ns = min(int(rows.time_ns.min()) for rows in parts)
        last_ns = self._ticks.end_ns(transaction, instrument, stream)
        if last_ns is not None and last_ns < first_ns:
            self._put_hole(transaction, instrument, stream, Hole(last_ns, first_ns, HoleReason.DISCONNECT))

    def _put_hole(self, transaction: Transaction, instrument: Instrument, stream: Stream, hole: Hole) -> None:
        prefix = keys.series(instruments.register(transaction, instrument), KEY_STREAMS[stream], 0)
        ledger.put_hole(transaction, prefix, hole, self._ticks.now_ns())

    def _instrument(self, symbol: str) -> Instrument:
        return Instrument(self._venue, symbol)

    # What was missed.

    def _go_on_with_backfill(self) -> None:
        """Begin to ask the venue for what is due, one time after another; raises what ended the last one."""
        if self._backfill is not None:
            if not self._backfill.done():
                return
            finished, self._backfill = self._backfill, None
            finished.result()
        now_s = asyncio.get_running_loop().time()
        series = sorted(each for each, at_s in self._due_s.items() if at_s <= now_s)
        if series and self._history is not None:
            for each in series:
                del self._due_s[each]
            self._backfill = asyncio.create_task(self._fill(series))

    async def _fill(self, series: list[tuple[str, Stream]]) -> None:
        """Ask the venue for the rows between ids that are missing; what it does not have stays a hole."""
        for symbol, stream in series:
            try:
                self.status.backfilled += await self._fill_series(symbol, stream)
                self._refusals.pop((symbol, stream), None)
            except (StoreFull, StoreCorrupt):
                raise
            except SourceUnavailable as error:
                wait_s = self._postpone((symbol, stream), error)
                why = f"{error.message}; asked again in {wait_s:.0f} s"
                _log.warning("%s %s: holes stay open for now: %s", self._venue, symbol, why)
            except AtlasError as error:
                self.status.last_error = error.message
                _log.warning("%s %s: holes stay open: %s", self._venue, symbol, error.message)
            except Exception as error:  # noqa: BLE001 - an adapter's: what it cannot fetch must not cost what is live
                self.status.last_error = str(error)
                _log.exception("%s %s: holes stay open", self._venue, symbol)

    async def _fill_series(self, symbol: str, stream: Stream) -> int:
        if self._history is None:
            return 0
        source = self._history(symbol)
        try:
            if stream not in source.streams:
                return 0
            most = self._config.backfill_rows
            return await fill_holes(self._ticks, source, self._instrument(symbol), stream, most)
        finally:
            await source.close()

    def _postpone(self, series: tuple[str, Stream], error: SourceUnavailable) -> float:
        """Have a series asked for again later; returns in how many seconds."""
        self.status.last_error = error.message
        refusals = self._refusals.get(series, 0)
        self._refusals[series] = refusals + 1
        wait_s = min(self._retry_s * 2.0 ** min(refusals, 30), _LONGEST_RETRY_S)
        asked_s = (error.details or {}).get("retry_after_s")
        if isinstance(asked_s, int | float):
            wait_s = max(wait_s, asked_s)
        self._due_s[series] = asyncio.get_running_loop().time() + wait_s
        return wait_s


async def _whole(work: Coroutine[object, object, _T]) -> _T:
    """Do something to its end, also where whoever waits is cancelled: a thread that writes goes on in any case."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        task.result()
        raise


def _joined(parts: list[Ticks]) -> list[Ticks]:
    """Join rows; where they do not fit 64 bits at common decimals they stay apart."""
    try:
        return [core_ticks.concatenate(parts)]
    except OverflowError:
        return parts


def open_holes(transaction: Transaction, instrument: Instrument, stream: Stream, most_rows: int) -> list[Hole]:
    """List a series' open holes between ids, the oldest first, but for those of more rows."""
    prefix = prefix_of(transaction, instrument, stream)
    found = [] if prefix is None else list(ledger.open_holes(transaction, prefix))
    return [each.hole for each in found if 0 < each.hole.missing <= most_rows]


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
    for hole in await _whole(asyncio.to_thread(holes)):
        late: list[Ticks] = []
        async for rows in source.ticks_between(instrument.symbol, stream, hole.after_id, hole.before_id):
            late.append(rows)
            if sum(part.size for part in late) >= _MOST_LATE_ROWS:
                added += await _whole(_append_late(ticks, instrument, late, hole.reason))
                late = []
        if late:
            added += await _whole(_append_late(ticks, instrument, late, hole.reason))
    return added


async def _append_late(ticks: TickStore, instrument: Instrument, parts: list[Ticks], reason: HoleReason) -> int:
    """Store rows of a hole; what is left of it keeps its reason."""

    def append(transaction: Transaction) -> int:
        return sum(ticks.append(transaction, instrument, rows, reason) for rows in _joined(parts))

    return await asyncio.to_thread(ticks.env.write, append)
