"""The bars a job sees: read by date, derived from a shorter timeframe where need be, fingerprinted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
import xxhash

from daemon.core.market import Bars, TsNs
from daemon.core.ticks import Stream
from daemon.store import codec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from daemon.core.market import Instrument, Timeframe
    from daemon.core.ports import Hole
    from daemon.core.ticks import Column, Ticks
    from daemon.research.plans import Source
    from daemon.store.bars import BarStore


_TRADE_COLUMNS: Final = ("time_ns", "price", "size")


class Wanted(Protocol):
    """Which bars: those of a probe's job, or of a symbol of a backtest."""

    @property
    def instrument(self) -> Instrument:
        """Whose bars."""

    @property
    def timeframe(self) -> Timeframe:
        """Their length."""

    @property
    def source(self) -> Source:
        """What they come from."""

    @property
    def start_ns(self) -> TsNs | None:
        """They start at this time or later; None for all."""

    @property
    def stop_ns(self) -> TsNs | None:
        """They start before this time; None for all."""


class Selection(NamedTuple):
    """Selected bars.

    partial_buckets: starts of derived bars that the stored series covers in part. digest: as `fingerprint` says.
    holes: known holes in the trades that the bars were made from.
    """

    bars: Bars
    partial_buckets: tuple[TsNs, ...]
    digest: str
    holes: tuple[Hole, ...] = ()


def select(store: BarStore, wanted: Wanted) -> Selection:
    """Read bars; empty where nothing is stored in its dates.

    Days begin and end every timeframe's buckets, so deriving from the dates' source is the same as deriving from all
    of it and cutting then.
    """
    if isinstance(wanted.source, Stream):
        return _from_trades(store, wanted, wanted.source)
    bars = store.read(wanted.instrument, wanted.source, wanted.start_ns, wanted.stop_ns)
    if wanted.source == wanted.timeframe or bars.size == 0:
        return Selection(bars, (), digest_of(bars))
    from daemon.engine.bars import lengthen

    derived = lengthen(bars, wanted.timeframe.ns)
    series = store.timeframes(wanted.instrument)[wanted.source]
    ends = int(bars.start_ns[0]), int(bars.start_ns[-1]) + wanted.source.ns
    whole = series.first_ns, series.last_ns + wanted.source.ns
    return Selection(derived, _partial(derived, wanted.timeframe, ends, whole), digest_of(bars))


def fingerprint(store: BarStore, wanted: Wanted) -> str:
    """Digest of the stored rows that a job's bars are or come from, times included.

    Of the source, not of what is derived from it: deriving takes the kernels, which a server's process never loads.
    """
    if isinstance(wanted.source, Stream):
        return digest_of_blocks(
            store.ticks.scan(wanted.instrument, wanted.source, _TRADE_COLUMNS, wanted.start_ns, wanted.stop_ns)
        )
    return digest_of(store.read(wanted.instrument, wanted.source, wanted.start_ns, wanted.stop_ns))


def _from_trades(store: BarStore, wanted: Wanted, stream: Stream) -> Selection:
    from daemon.engine.tick_bars import bars_of

    series = store.ticks.streams(wanted.instrument).get(stream)
    digest, ends = Digest(), list[TsNs]()

    def noted() -> Iterator[Ticks]:
        blocks = store.ticks.blocks(
            wanted.instrument, stream, _TRADE_COLUMNS, wanted.start_ns, wanted.stop_ns, store.ticks.buffers()
        )
        for rows in blocks:
            ends[:] = [ends[0] if ends else int(rows.time_ns[0]), int(rows.time_ns[-1])]
            # Of these very rows: a second reading may find more.
            digest.update([_as_scanned(rows, name) for name in _TRADE_COLUMNS])
            yield rows

    bars = bars_of(noted(), wanted.timeframe)
    if bars.size == 0 or series is None:
        return Selection(bars, (), digest_of_blocks([]))
    partial = _partial(bars, wanted.timeframe, (ends[0], ends[1]), (series.first_ns, series.last_ns))
    holes = store.ticks.holes(wanted.instrument, stream, ends[0], ends[1])
    return Selection(bars, partial, digest.hexdigest(), tuple(holes))


def _as_scanned(rows: Ticks, name: str) -> Column:
    """Return a column as `TickStore.scan` gives it."""
    decimals = {"price": rows.price_decimals, "size": rows.size_decimals}.get(name)
    return rows.column(name) if decimals is None else codec.to_floats(rows.column(name), decimals)


def _partial(bars: Bars, timeframe: Timeframe, ends: tuple[TsNs, TsNs], whole: tuple[TsNs, TsNs]) -> tuple[TsNs, ...]:
    """Name the first and the last bar where the stored series begins or ends inside it, by their starts.

    ends: of the rows that were selected. whole: of all that are stored.
    """
    first_ns, last_ns = int(bars.start_ns[0]), int(bars.start_ns[-1])
    found = []
    if ends[0] == whole[0] > first_ns:
        found.append(first_ns)
    if ends[1] == whole[1] < last_ns + timeframe.ns:
        found.append(last_ns)
    return tuple(dict.fromkeys(found))


class Digest:
    """Digest of columns, each by itself, so that it does not matter how rows are cut into blocks.

    XXH3 of 128 bits: billions of rows go through it, and nobody forges their own data.
    """

    def __init__(self) -> None:
        self._hashers: list[Any] = []

    def update(self, columns: Sequence[Column]) -> None:
        """Take the next rows."""
        self._hashers = self._hashers or [xxhash.xxh3_128() for _ in columns]
        for hasher, column in zip(self._hashers, columns, strict=True):
            hasher.update(np.ascontiguousarray(column).data)

    def hexdigest(self) -> str:
        """Return the digest of all rows so far."""
        return xxhash.xxh3_128_hexdigest(b"".join(hasher.digest() for hasher in self._hashers))


def digest_of(columns: Sequence[Column]) -> str:
    """Digest of whole columns."""
    return digest_of_blocks([columns])


def digest_of_blocks(blocks: Iterable[Sequence[Column]]) -> str:
    """Digest of columns that come block by block, the same however they are cut."""
    digest = Digest()
    for columns in blocks:
        digest.update(columns)
    return digest.hexdigest()
