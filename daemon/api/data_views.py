"""Stored series and their holes as the interface shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon.api.messages import Gap, Series, milliseconds
from daemon.core.ticks import Stream
from daemon.research.holes import holes, open_counts
from daemon.store.funding import FundingStore

if TYPE_CHECKING:
    from daemon.core.market import VolumeUnit
    from daemon.store.bars import BarStore


def described_series(store: BarStore) -> list[Series]:
    """List the stored series, by symbol."""
    env = store.ticks.env
    gaps = open_counts(env)
    bars = [
        _described(
            each, Stream.BARS, each.timeframe, gaps[each.instrument, Stream.BARS, each.timeframe], each.volume_unit
        )
        for each in store.series()
    ]
    funding = [_described(each, "funding", None, 0) for each in FundingStore(env).series()]
    ticks = [_described(each, each.stream, None, each.open_holes) for each in store.ticks.series()]
    return sorted([*bars, *ticks, *funding], key=lambda each: each.symbol)


def gap_rows(store: BarStore, symbol: str | None, *, repaired: bool) -> list[Gap]:
    """List known holes of a symbol, or of all. repaired: those that were filled as well."""
    instrument = None if symbol is None else store.resolve(symbol)
    return [
        Gap(
            symbol=each.instrument.key,
            stream=each.stream,
            timeframe=each.timeframe,
            start=milliseconds(each.hole.start_ns),
            stop=milliseconds(each.hole.stop_ns),
            missing=each.hole.missing or None,
            after_id=None if each.hole.after_id < 0 else each.hole.after_id,
            before_id=None if each.hole.before_id < 0 else each.hole.before_id,
            reason=each.hole.reason,
            repaired=milliseconds(each.repaired_at_ns) if each.repaired_at_ns else None,
        )
        for each in holes(store.ticks.env, instrument, repaired=repaired)
    ]


def _described(
    series: Any, stream: str, timeframe: str | None, gaps: int, volume_unit: VolumeUnit | None = None
) -> Series:
    return Series(
        symbol=series.instrument.key,
        stream=stream,
        timeframe=timeframe,
        rows=series.rows,
        first=milliseconds(series.first_ns),
        last=milliseconds(series.last_ns),
        bytes=series.stored_bytes,
        gaps=gaps,
        volume_unit=volume_unit,
    )
