"""What a feed's messages amount to: columns, bars, holes. No sockets and no clock, so that every case can be tested.

What is known to be lost, and how:
- Trades have contiguous ids, over connections too: a jump is a hole of so many. An id that comes late fills nothing
  here; whoever keeps the rows sees that it is there.
- Depth of Advanced Trade: its messages are counted, over all channels of a connection; a jump means that any of the
  books may have lost one. So each has a hole, and a new connection is wished for, which brings new snapshots.
- Depth of the Exchange: nothing tells. A loss on the way cannot happen without a disconnect, one at the venue can.
- A message of depth that cannot be read is a lost one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from adapters.coinbase import parse
from daemon.core.errors import SourceDataInvalid
from daemon.core.market import NS_PER_SECOND, Timeframe
from daemon.core.ports import FeedBars, FeedDown, FeedHole, FeedOdd, FeedTicks, FeedUp, Hole, HoleReason
from daemon.core.ticks import DepthFlag, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapters.coinbase.parse import Candle, Read, Row
    from adapters.shared.socket import Down, Frame, Up
    from daemon.core.market import TsNs
    from daemon.core.ports import FeedEvent
    from daemon.core.ticks import Ticks

_SHOWN_CHARACTERS: Final = 200
# How much earlier than its snapshot an update may be timed: more is a clock that is wrong.
_OVERLAP_NS: Final = 5 * NS_PER_SECOND
# How long after its end a candle may still change.
_GRACE_NS: Final = 5 * NS_PER_SECOND


class _Part(NamedTuple):
    """The rows of one message, and the message, to show should they be unusable."""

    rows: list[Row]
    frame: Frame


class Candles:
    """Tells which candles of a product are complete: those that ended a while ago, by the venue's own clock.

    The running one is sent again every second, and its last change may come after its end.
    """

    def __init__(self) -> None:
        self._running: dict[TsNs, Candle] = {}
        self._done: Candle | None = None

    def add(self, candle: Candle) -> None:
        """Take a candle as it is now. Raises Unusable where it has changed after it was handed over as complete."""
        if self._done is None or candle.start_ns > self._done.start_ns:
            self._running[candle.start_ns] = candle
        elif candle.start_ns == self._done.start_ns and candle != self._done:
            raise parse.Unusable("a candle has changed after it was complete")

    def complete(self, now_ns: TsNs) -> list[Candle]:
        """Return those that are complete at a time of the venue, ascending, each once."""
        starts = sorted(start for start in self._running if start + Timeframe.MIN_5.ns + _GRACE_NS <= now_ns)
        found = [self._running.pop(start) for start in starts]
        if found:
            self._done = found[-1]
        return found

    def forget_running(self) -> None:
        """Take nothing for complete that this connection has not seen to its end."""
        self._running = {}


class Collector:
    """Turns messages into events, in the order in which they arrived.

    products: those subscribed to; rows of others are odd. wanted: (channel, product) pairs, of which the venue is to
    say, in the last of `confirmations` messages, that they are subscribed to.
    has_depth: whether a book is among what is subscribed to. silence_ns: after which a product's heart has stopped.
    wants_renewal: set when only a new connection can help; whoever sees to that takes it back.
    """

    def __init__(
        self,
        read: Callable[[str, TsNs], Read],
        products: Sequence[str],
        wanted: frozenset[tuple[str, str]],
        *,
        has_depth: bool,
        silence_ns: int,
        confirmations: int = 1,
    ) -> None:
        self.wants_renewal = False
        self._read = read
        self._products = frozenset(products)
        self._wanted = wanted
        self._has_depth = has_depth
        self._silence_ns = silence_ns
        self._confirmations = confirmations
        self._connection = 0
        self._confirmed = 0
        self._sequence: int | None = None
        self._heard_ns: dict[str, TsNs] = {}
        self._ready: list[FeedEvent] = []
        self._pending: dict[tuple[str, Stream], list[_Part]] = {}
        self._last_trade: dict[str, tuple[int, TsNs]] = {}
        self._depth_ns: dict[str, TsNs] = {}
        self._snapshot_ns: dict[str, TsNs] = {}
        self._after_gap: set[str] = set()
        self._candles = {product: Candles() for product in products}

    def take(self) -> list[FeedEvent]:
        """Hand over all events up to now."""
        self._flush()
        ready, self._ready = self._ready, []
        return ready

    def up(self, up: Up) -> None:
        """Begin with a connection: sequence and books are its own."""
        self._flush()
        if self._connection:
            self._after_gap |= self._products
        self._connection = up.connection
        self._confirmed = 0
        self._sequence = None
        self._heard_ns = {}
        for candles in self._candles.values():
            candles.forget_running()
        self._ready.append(FeedUp(up.at_ns))

    def down(self, down: Down) -> None:
        """End a connection."""
        self._flush()
        self._ready.append(FeedDown(down.at_ns, down.reason, down.planned))

    def add(self, frame: Frame) -> None:
        """Take a message in.

        Of a connection that has a successor only trades count: two books would mix, trades are told by their ids.
        """
        is_current = frame.connection == self._connection
        try:
            read = self._read(frame.text, frame.local_ns)
        except parse.Unusable as unusable:
            self._odd(frame, str(unusable))
            if is_current:
                self._follow(unusable.sequence, frame.local_ns)
                if unusable.of_book:
                    self._lose_books(self._products, frame.local_ns, HoleReason.SEQUENCE)
            return
        if is_current:
            self._follow(read.sequence, read.time_ns or frame.local_ns)
            self._check_subscriptions(read, frame)
            self._listen(read, frame)
            self._add_candles(read, frame)
        for product, stream, rows in read.rows:
            if product not in self._products:
                self._odd(frame, f"{product[:40]!r} is not what was subscribed to")
            elif rows and (is_current or stream is Stream.TRADES):
                self._pending.setdefault((product, stream), []).append(_Part(rows, frame))

    def _odd(self, frame: Frame, why: str) -> None:
        self._ready.append(FeedOdd(frame.local_ns, why, frame.text[:_SHOWN_CHARACTERS]))

    def _follow(self, sequence: int | None, at_ns: TsNs) -> None:
        """Check that no message of the connection is missing."""
        if sequence is None:
            return
        last, self._sequence = self._sequence, sequence
        if last is not None and sequence != last + 1:
            self._lose_books(self._products, at_ns, HoleReason.SEQUENCE)

    def _lose_books(self, products: frozenset[str], at_ns: TsNs, reason: HoleReason) -> None:
        """Say that books are unknown from their last row on, and wish for new snapshots."""
        if not self._has_depth:
            return
        self._flush()
        for product in sorted(products):
            last_ns = self._depth_ns.get(product)
            # Without a row there is no book that could be lost; after a gap it is lost already.
            if last_ns is not None and product not in self._after_gap:
                hole = Hole(last_ns, max(at_ns, last_ns + 1), reason)
                self._ready.append(FeedHole(product, Stream.DEPTH, hole))
                self._after_gap.add(product)
        self.wants_renewal = True

    def _check_subscriptions(self, read: Read, frame: Frame) -> None:
        """Complain where the venue has passed over a part of the subscription, which it does without a word."""
        if read.subscribed is None:
            return
        self._confirmed += 1
        if self._confirmed != self._confirmations:
            return
        # The Exchange has confirmed `level2_batch` as `level2_50`: what counts is the channel's family.
        found = {(channel.partition("_")[0], product) for channel, product in read.subscribed}
        for channel, product in sorted(self._wanted):
            if (channel.partition("_")[0], product) not in found:
                self._odd(frame, f"the venue has not subscribed us to {channel} of {product}")

    def _listen(self, read: Read, frame: Frame) -> None:
        """See that each product's heart beats: a subscription can end while the others go on."""
        if read.alive is None:
            return
        self._heard_ns[read.alive] = frame.local_ns
        for product, heard_ns in list(self._heard_ns.items()):
            if frame.local_ns - heard_ns > self._silence_ns:
                self._odd(frame, f"{product} has been silent while other products were not")
                self._lose_books(frozenset({product}), frame.local_ns, HoleReason.DISCONNECT)
                self._heard_ns[product] = frame.local_ns  # or this would be said every second
                self.wants_renewal = True

    def _add_candles(self, read: Read, frame: Frame) -> None:
        for candle in read.candles:
            if candle.product not in self._candles:
                self._odd(frame, f"{candle.product[:40]!r} is not what was subscribed to")
                continue
            try:
                self._candles[candle.product].add(candle)
            except parse.Unusable as unusable:
                self._odd(frame, str(unusable))
        if read.time_ns is None:
            return
        for product, candles in self._candles.items():
            complete = candles.complete(read.time_ns)
            try:
                if complete:
                    self._ready.append(FeedBars(product, Timeframe.MIN_5, parse.bars_of(complete)))
            except SourceDataInvalid as error:
                self._odd(frame, f"{product}: {error}")

    def _flush(self) -> None:
        pending, self._pending = self._pending, {}
        for (product, stream), parts in pending.items():
            self._convert(product, stream, parts)

    def _convert(self, product: str, stream: Stream, parts: list[_Part]) -> None:
        """Make columns of the rows of many messages; where one spoils them, of each message by itself."""
        try:
            made = parse.ticks_of(stream, [row for part in parts for row in part.rows])
        except SourceDataInvalid as error:
            if len(parts) > 1:
                for part in parts:
                    self._convert(product, stream, [part])
                return
            frame = parts[0].frame
            self._odd(frame, str(error))
            if stream is Stream.DEPTH:
                self._lose_books(frozenset({product}), frame.local_ns, HoleReason.SEQUENCE)
            return
        if stream is Stream.DEPTH:
            self._mark_depth(product, made, parts[0].frame)
        self._ready.append(FeedTicks(product, made))
        if stream is Stream.TRADES:
            self._find_holes(product, made)

    def _mark_depth(self, product: str, made: Ticks, frame: Frame) -> None:
        """Flag the first row after a gap, and keep times in the order that makes a book.

        A snapshot is timed when it was sent, or even when it came, updates when they happened: the first of them may
        be timed before it, and whoever sorts by time would have the snapshot replace them. The same holds for a
        snapshot and what the last connection brought.
        """
        times, flags = made.time_ns, made.column("flags")
        if product in self._after_gap:
            self._after_gap.discard(product)
            flags[0] |= DepthFlag.AFTER_GAP
        is_snapshot = (flags & DepthFlag.SNAPSHOT) != 0
        at_snapshot = np.maximum(times, self._depth_ns.get(product, 0))
        floor_ns = np.maximum.accumulate(np.where(is_snapshot, at_snapshot, self._snapshot_ns.get(product, 0)))
        early_ns = floor_ns - times
        near = early_ns < _OVERLAP_NS
        times[near] = np.maximum(times[near], floor_ns[near])
        self._snapshot_ns[product] = int(floor_ns[-1])
        if not near.all():
            worst_s = int(early_ns.max()) // NS_PER_SECOND
            self._odd(frame, f"the book of {product} goes back by {worst_s} s in time; is this machine's clock right?")
            self._snapshot_ns[product] = 0  # said once for each snapshot
        self._depth_ns[product] = int(times[-1])

    def _find_holes(self, product: str, made: Ticks) -> None:
        """Find ids that were passed over since the last trade of the product; late ones and repeats are none."""
        order = np.argsort(made.column("id"), kind="stable")
        ids, times = made.column("id")[order], made.time_ns[order]
        if product in self._last_trade:
            last_id, last_ns = self._last_trade[product]
            is_new = ids > last_id
            ids = np.concatenate(([last_id], ids[is_new]))
            times = np.concatenate(([last_ns], times[is_new]))
        for place in np.flatnonzero(np.diff(ids) > 1):
            after_id, before_id = int(ids[place]), int(ids[place + 1])
            start_ns, stop_ns = int(times[place]), int(times[place + 1])
            missing = before_id - after_id - 1
            hole = Hole(start_ns, max(stop_ns, start_ns + 1), HoleReason.IDS, after_id, before_id, missing)
            self._ready.append(FeedHole(product, Stream.TRADES, hole))
        self._last_trade[product] = int(ids[-1]), int(times[-1])
