"""What adapters give the rest of the house: files of history, history on request, live feeds.

An adapter knows its venue and nothing of the store. It hands over columns, and says what it knows to be missing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

import msgspec

from daemon.core.market import Bars, Timeframe, TsNs
from daemon.core.ticks import Stream, Ticks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Sequence


class Verification(StrEnum):
    """Whether a source's bytes are known to be those that the venue published."""

    VERIFIED = "verified"
    UNVERIFIED = "unverified"


class HoleReason(StrEnum):
    """Why rows are known to be missing."""

    IDS = "ids"  # the venue's ids jump
    SEQUENCE = "sequence"  # events of the book were lost
    MISSING_FILE = "missing file"  # the venue has no file for the day
    MISSING_BARS = "missing bars"  # intervals without a row where the venue writes one for each
    DISCONNECT = "disconnect"  # the feed was not connected
    QUARANTINED = "quarantined"  # a file was kept out


class Hole(msgspec.Struct, frozen=True):
    """Rows that are missing, strictly between two times; after_id and before_id are the neighbours' ids, -1 where none.

    missing: how many rows, where ids tell; 0 where nobody knows.
    """

    start_ns: TsNs
    stop_ns: TsNs
    reason: HoleReason
    after_id: int = -1
    before_id: int = -1
    missing: int = 0


class InstrumentFacts(msgspec.Struct, frozen=True):
    """What a venue says of an instrument, as decimal texts: steps of price and size, least size and notional."""

    symbol: str
    status: str
    tick_size: str
    step_size: str
    min_size: str
    min_notional: str


class TickFile(Protocol):
    """A file of ticks, opened: its blocks are read once, in the file's order, a bounded number of rows each.

    name: the file's own name. sha256: of its bytes, hexadecimal.
    notes, holes: what was assumed, and what the file itself shows to be missing; complete after the last block.
    """

    name: str
    sha256: str
    verification: Verification
    notes: list[str]
    holes: list[Hole]

    def blocks(self) -> Generator[Ticks, None, None]:
        """Yield rows; SourceDataInvalid names the file, the line and the field that is wrong."""


class FeedTicks(NamedTuple):
    """Rows of one symbol that arrived, in order of arrival."""

    symbol: str
    rows: Ticks


class FeedBars(NamedTuple):
    """Bars that are complete."""

    symbol: str
    timeframe: Timeframe
    bars: Bars


class FeedUp(NamedTuple):
    """The feed is connected and subscribed."""

    at_ns: TsNs


class FeedDown(NamedTuple):
    """The feed lost its connection, or has been silent for too long; it reconnects by itself.

    planned: the venue ends connections after a day, and the feed went first: the next connection was up before this
    one ended, so nothing is missing.
    """

    at_ns: TsNs
    reason: str
    planned: bool = False


class FeedHole(NamedTuple):
    """A hole that the feed itself saw in a symbol's stream."""

    symbol: str
    stream: Stream
    hole: Hole


class FeedOdd(NamedTuple):
    """A message that could not be used; the feed goes on and counts. message: its first characters."""

    at_ns: TsNs
    why: str
    message: str


FeedEvent: TypeAlias = FeedTicks | FeedBars | FeedUp | FeedDown | FeedHole | FeedOdd


@runtime_checkable
class HistorySource(Protocol):
    """A venue's history on request.

    Raises SourceUnavailable (try later), RateLimited (with `retry_after_s`), NotFound SYMBOL_UNKNOWN,
    SourceDataInvalid (an answer that is none).
    """

    @property
    def streams(self) -> Sequence[Stream]:
        """The streams of ticks it has history of."""

    async def instrument(self, symbol: str) -> InstrumentFacts:
        """Return what the venue says of a symbol."""

    def ticks(self, symbol: str, stream: Stream, start_ns: TsNs, stop_ns: TsNs) -> AsyncIterator[Ticks]:
        """Yield all rows in [start_ns, stop_ns) in order of id, page by page, without repeats."""

    def ticks_between(self, symbol: str, stream: Stream, after_id: int, before_id: int) -> AsyncIterator[Ticks]:
        """Yield the rows whose ids lie strictly between two ids."""

    def bars(self, symbol: str, timeframe: Timeframe, start_ns: TsNs, stop_ns: TsNs) -> AsyncIterator[Bars]:
        """Yield the complete bars that start in [start_ns, stop_ns)."""

    async def close(self) -> None:
        """End its connections."""


class LiveFeed(Protocol):
    """A venue's live streams. It reconnects with back-off until it is cancelled; every loss is an event."""

    def events(self) -> AsyncGenerator[FeedEvent, None]:
        """Yield what arrives. Closing or cancelling the iteration closes the connection."""
