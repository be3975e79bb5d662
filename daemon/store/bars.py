"""Stored series of bars: chunks of columns, an index entry a series, and the instruments they belong to.

A merge reads the chunks it touches, lays the new rows over them and writes them anew, all in the caller's transaction:
either a whole file's rows are in, or none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from daemon.core.market import Bars, Instrument, Timeframe, TsNs, VolumeUnit
from daemon.core.ticks import Stream as TickStream
from daemon.store import codec, instruments, keys
from daemon.store.keys import Stream
from daemon.store.ticks import TickStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.core.market import Int64s
    from daemon.core.ports import InstrumentFacts
    from daemon.store.env import Environment, Transaction

_WIDTHS = {timeframe.ns: timeframe for timeframe in Timeframe}


class Series(msgspec.Struct, frozen=True):
    """What is stored of one instrument at one timeframe.

    first_ns, last_ns: start of the first and the last bar. stored_bytes: compressed size. volume_unit: what volumes
    count.
    """

    instrument: Instrument
    timeframe: Timeframe
    rows: int
    first_ns: TsNs
    last_ns: TsNs
    stored_bytes: int
    volume_unit: VolumeUnit


class Overlay(msgspec.Struct, frozen=True):
    """What a merge did. Rows: new ones, ones stored already, ones replaced.

    other_unit: what stored volumes count, where that kept the new rows out; None where it did not.
    """

    added: int
    unchanged: int
    replaced: int
    first_difference_ns: TsNs | None
    other_unit: VolumeUnit | None = None


class _SeriesEntry(msgspec.Struct, frozen=True, array_like=True):
    rows: int
    first_ns: int
    last_ns: int
    stored_bytes: int
    volume_unit: VolumeUnit = "base"  # entries written before units were told lack it


class BarStore:
    """Bars by instrument and timeframe. ticks: what an instrument's other bars can be made from."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self.ticks = TickStore(env)

    # Reading.

    def series(self) -> list[Series]:
        """Return every stored series, ordered by instrument, then timeframe."""
        with self._env.read() as transaction:
            known = instruments.numbered(transaction)
            found = [
                _series(known[keys.instrument_of(key)[0]], key, value)
                for key, value in transaction.scan("series", b"")
                if keys.instrument_of(key)[1] == Stream.BARS
            ]
        return sorted(found, key=lambda series: (series.instrument, series.timeframe.ns))

    def resolve(self, text: str) -> Instrument:
        """Find the stored instrument that a user names: `instruments.resolve`."""
        return instruments.resolve(self._env, text)

    def facts(self, instrument: Instrument) -> InstrumentFacts | None:
        """Return what a venue said last of an instrument, None where it was not asked."""
        return instruments.facts(self._env, instrument)

    def timeframes(self, instrument: Instrument) -> dict[Timeframe, Series]:
        """Return what is stored of one instrument."""
        with self._env.read() as transaction:
            number = instruments.number(transaction, instrument)
            if number is None:
                return {}
            found = [
                _series(instrument, key, value)
                for key, value in transaction.scan("series", keys.series_of(number, Stream.BARS))
            ]
        return {series.timeframe: series for series in found}

    def read(
        self,
        instrument: Instrument,
        timeframe: Timeframe,
        start_ns: TsNs | None = None,
        stop_ns: TsNs | None = None,
    ) -> Bars:
        """Read the bars that start in [start_ns, stop_ns); None is open. Empty where nothing is stored."""
        with self._env.read() as transaction:
            number = instruments.number(transaction, instrument)
            if number is None:
                return _concatenate([])
            prefix = keys.series(number, Stream.BARS, timeframe.ns)
            bars = _concatenate([Bars(*part) for _, part in _chunks(transaction, prefix, start_ns, stop_ns)])
            return bars.rows(*_slice(bars.start_ns, start_ns, stop_ns))

    def holds(self, instrument: Instrument, timeframe: Timeframe, start_ns: TsNs | None, stop_ns: TsNs | None) -> bool:
        """Tell whether any bar starts in [start_ns, stop_ns), decoding no more than times."""
        with self._env.read() as transaction:
            number = instruments.number(transaction, instrument)
            if number is None:
                return False
            prefix = keys.series(number, Stream.BARS, timeframe.ns)
            return any(
                _slice(times, start_ns, stop_ns) != (0, 0)
                for _, (times,) in _chunks(transaction, prefix, start_ns, stop_ns, wanted=[0])
            )

    def volume_unit(self, instrument: Instrument, source: Timeframe | TickStream) -> VolumeUnit:
        """Tell what the volumes of an instrument's bars count.

        source: a timeframe, stored or derived (then the unit of the longest stored one that divides it), or a stream of
        ticks, whose sizes are base units.
        """
        if isinstance(source, TickStream):
            return "base"
        stored = self.timeframes(instrument)
        sources = [timeframe for timeframe in stored if source.ns % timeframe.ns == 0]
        return stored[max(sources, key=lambda timeframe: timeframe.ns)].volume_unit if sources else "base"

    # Writing.

    def series_key(self, transaction: Transaction, instrument: Instrument, timeframe: Timeframe) -> bytes:
        """Return the key of a series in a writing transaction; an instrument that is new is registered."""
        return keys.series(instruments.register(transaction, instrument), Stream.BARS, timeframe.ns)

    def merge(
        self,
        transaction: Transaction,
        instrument: Instrument,
        timeframe: Timeframe,
        bars: Bars,
        *,
        replace: bool,
        volume_unit: VolumeUnit | None = None,
    ) -> Overlay:
        """Lay checked, ascending bars over what is stored.

        Rows equal to stored ones are left alone. Where a row differs and `replace` is false, nothing is written and
        `first_difference_ns` says where. volume_unit: what the bars' volumes count, None for what is stored, else base
        units. A series has one unit: another one is taken only with `replace` and bars that cover every stored one,
        else nothing is written and `other_unit` says what is stored.
        """
        prefix = self.series_key(transaction, instrument, timeframe)
        first_ns, last_ns = int(bars.start_ns[0]), int(bars.start_ns[-1])
        touched = list(_chunks(transaction, prefix, first_ns, last_ns + 1))
        stored = _concatenate([Bars(*part) for _, part in touched])
        overlaps, at = _places(stored.start_ns, bars.start_ns)
        same = np.ones(len(at), dtype=bool)
        for mine, theirs in zip(bars[1:], stored[1:], strict=True):
            same &= mine[overlaps] == theirs[at]
        differing = np.flatnonzero(~same)
        entry = _entry(transaction, prefix)
        changes_unit = entry is not None and volume_unit not in (None, entry.volume_unit)
        overlay = Overlay(
            added=bars.size - len(at),
            unchanged=int(same.sum()),
            replaced=len(differing),
            first_difference_ns=int(bars.start_ns[overlaps][differing[0]]) if len(differing) else None,
        )
        if entry is not None and changes_unit and not (replace and len(at) == entry.rows):
            return msgspec.structs.replace(overlay, other_unit=entry.volume_unit)
        if (differing.size and not replace) or (overlay.added == 0 and not differing.size and not changes_unit):
            return overlay
        kept = np.ones(stored.size, dtype=bool)
        kept[at] = False
        merged = _concatenate([Bars._make(column[kept] for column in stored), bars])
        order = np.argsort(merged.start_ns, kind="stable")
        bars = Bars._make(column[order] for column in merged)
        self._rewrite(transaction, prefix, [key for key, _ in touched], bars, volume_unit)
        return overlay

    # Internals.

    def _rewrite(
        self, transaction: Transaction, prefix: bytes, old: list[bytes], bars: Bars, volume_unit: VolumeUnit | None
    ) -> None:
        """Replace whole chunks by the chunks of `bars`, and bring the series' index entry up to date."""
        entry = _entry(transaction, prefix)
        row_count, size = (entry.rows, entry.stored_bytes) if entry else (0, 0)
        for key in old:
            replaced = transaction.get("chunks", key)
            if replaced is not None:
                row_count -= codec.rows(replaced)
                size -= len(replaced)
                transaction.delete("chunks", key)
        for start in range(0, bars.size, codec.CHUNK_ROWS):
            part = bars.rows(start, start + codec.CHUNK_ROWS)
            value = codec.encode_market(part)
            transaction.put("chunks", keys.chunk(prefix, int(part.start_ns[0])), value)
            row_count += part.size
            size += len(value)
        first_ns, last_ns = int(bars.start_ns[0]), int(bars.start_ns[-1])
        if entry:
            first_ns, last_ns = min(first_ns, entry.first_ns), max(last_ns, entry.last_ns)
        unit = volume_unit or (entry.volume_unit if entry else "base")
        entry = _SeriesEntry(row_count, first_ns, last_ns, size, unit)
        transaction.put("series", prefix, msgspec.msgpack.encode(entry))


def series_at(transaction: Transaction, instrument: Instrument, key: bytes) -> Series:
    """Read a series' index entry, which exists."""
    value = transaction.get("series", key)
    if value is None:
        raise KeyError(key)
    return _series(instrument, key, value)


def _entry(transaction: Transaction, key: bytes) -> _SeriesEntry | None:
    value = transaction.get("series", key)
    return None if value is None else msgspec.msgpack.decode(value, type=_SeriesEntry)


def _series(instrument: Instrument, key: bytes, value: memoryview) -> Series:
    entry = msgspec.msgpack.decode(value, type=_SeriesEntry)
    return Series(
        instrument=instrument,
        timeframe=_WIDTHS[keys.instrument_of(key)[2]],
        rows=entry.rows,
        first_ns=entry.first_ns,
        last_ns=entry.last_ns,
        stored_bytes=entry.stored_bytes,
        volume_unit=entry.volume_unit,
    )


def _chunks(
    transaction: Transaction,
    prefix: bytes,
    start_ns: TsNs | None,
    stop_ns: TsNs | None,
    wanted: Sequence[int] | None = None,
) -> Iterator[tuple[bytes, list[NDArray[Any]]]]:
    """Decode the chunks that may hold rows of [start_ns, stop_ns); the edges are not cut.

    The last chunk before the range comes along even where it ends earlier: new rows join it while it has room.
    """
    start = None if start_ns is None else transaction.floor("chunks", prefix, keys.chunk(prefix, start_ns))
    for key, value in transaction.scan("chunks", prefix, start):
        if stop_ns is not None and keys.chunk_time(key) >= stop_ns:
            return
        yield key, codec.decode(value, wanted)


def _concatenate(parts: list[Bars]) -> Bars:
    if not parts:
        return Bars(np.empty(0, dtype=np.int64), *(np.empty(0) for _ in Bars._fields[1:]))
    if len(parts) == 1:
        return parts[0]
    return Bars._make(np.concatenate(columns) for columns in zip(*parts, strict=True))


def _slice(times: Int64s, start_ns: TsNs | None, stop_ns: TsNs | None) -> tuple[int, int]:
    """Places of the times in [start_ns, stop_ns); (0, 0) where there are none."""
    start = 0 if start_ns is None else int(np.searchsorted(times, start_ns))
    stop = times.size if stop_ns is None else int(np.searchsorted(times, stop_ns))
    return (start, stop) if start < stop else (0, 0)


def _places(stored: Int64s, new: Int64s) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return which of the new times are stored, as a mask, and where."""
    at = np.searchsorted(stored, new)
    found = at < stored.size
    found[found] = stored[at[found]] == new[found]
    return found, at[found]
