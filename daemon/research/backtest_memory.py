"""How much memory a backtest may need, said before it starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from daemon.core.backtest import OrderBook
from daemon.core.market import NS_PER_DAY, Timeframe
from daemon.research.swept import is_fed

if TYPE_CHECKING:
    from daemon.core.backtest import BacktestSpec, Market
    from daemon.core.market import TsNs
    from daemon.store.bars import BarStore

_MIB: Final = 1 << 20

BAR_BYTES: Final = 48
"""A bar: start, open, high, low, close, volume."""

SIGNAL_BYTES: Final = 24
"""What is kept beside every bar: signals, warm-up, holes."""

COLUMN_BYTES: Final = 16
"""One indicator's value at every bar, and what computing it takes."""

COLUMNS: Final = 8
"""Indicators that a strategy is taken to use."""

EQUITY_BYTES: Final = 48
"""A sample of the account at a bar's close."""

BANDS: Final = 2
"""Pessimistic and optimistic: both are held until they have been compared."""

READ_BYTES: Final = 2 * BAR_BYTES
"""A stored bar that longer ones are made of: as its chunk, and joined."""

STREAM_BYTES: Final = 3 * _MIB
"""Chunks of a stream of ticks, decoded; they are read one after another."""

BOOK_BYTES: Final = 5 * _MIB
"""A book that fills are made against: its window of levels, and those outside of it."""

LEVEL_BYTES: Final = 32
"""A level of a book at a bar's start, both sides."""

MOST_LEVELS: Final = 50
"""Levels of what stands in for a book that is missing, whatever is looked at of others."""

WALK_BYTES: Final = BAR_BYTES + COLUMN_BYTES * COLUMNS + EQUITY_BYTES
"""A bar of a walk-forward, for the series that is held, and again for the span that each thread runs."""

FIXED_BYTES: Final = 64 * _MIB
"""Whatever the length: the interpreter's objects, trades, fills, the result."""


class BacktestConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[backtest]` of config.toml. memory_mb: for all that run at a time, MiB; 0 is half of the machine's."""

    memory_mb: Annotated[int, Meta(ge=0, le=16_777_216)] = 0

    @property
    def memory_bytes(self) -> int:
        """What running backtests may have together."""
        if self.memory_mb:
            return self.memory_mb * _MIB
        import psutil

        return int(psutil.virtual_memory().total) // 2


def memory_bound(spec: BacktestSpec, bars: BarStore, *, warmups: int = 1) -> int:
    """Say how many bytes a backtest holds at the most, beyond what a worker has when it is idle.

    warmups: series of different warm-ups that a validation holds.

    FIXED_BYTES
    + rows x (BAR_BYTES + SIGNAL_BYTES + COLUMN_BYTES x COLUMNS), all symbols together
    + rows x BANDS x EQUITY_BYTES
    + rows of stored bars that longer ones are made of x READ_BYTES
    + STREAM_BYTES for every symbol that is read from ticks; against the book twice that, and BOOK_BYTES
    + rows x LEVEL_BYTES x (levels + MOST_LEVELS), and another stream, for every symbol whose slippage goes by the book
    + rows x WALK_BYTES x (warmups + cores), where it is to be walked forward or run under other costs; and what every
    core reads of ticks then, where such runs read any.

    rows: no more than are stored, and no more than the dates have room for. A symbol that is not stored has none.
    """
    total = FIXED_BYTES
    for market in spec.markets:
        made, read, streams = _rows(market, spec, bars)
        total += made * (BAR_BYTES + SIGNAL_BYTES + COLUMN_BYTES * COLUMNS + BANDS * EQUITY_BYTES)
        beside = streams * STREAM_BYTES + (BOOK_BYTES if spec.fills == "book" else 0)
        total += read * READ_BYTES + beside
        slippage = market.slippage or spec.costs.slippage
        if isinstance(slippage, OrderBook):
            total += made * LEVEL_BYTES * (slippage.levels + MOST_LEVELS) + STREAM_BYTES
        if spec.validation and (spec.validation.walk_forward or spec.validation.sensitivity):
            cores = os.cpu_count() or 1
            total += made * WALK_BYTES * (warmups + cores) + (cores * beside if is_fed(spec) else 0)
    return total


def days_of_range(spec: BacktestSpec, bars: BarStore) -> int:
    """Count the days that the dates asked for have room for, within those that are stored of any symbol."""
    found = 0
    for market in spec.markets:
        stored: dict[Any, Any] = (
            dict(bars.timeframes(market.instrument))
            if isinstance(market.source, Timeframe)
            else dict(bars.ticks.streams(market.instrument))
        )
        if (series := stored.get(market.source)) is not None:
            found = max(found, _room(spec, series.first_ns, series.last_ns, NS_PER_DAY))
    return found


def _rows(market: Market, spec: BacktestSpec, bars: BarStore) -> tuple[int, int, int]:
    """Count the bars that are traded, the stored bars they are made of, and the streams of ticks that are read."""
    from_ticks = {"bars": 0, "ticks": 1, "book": 2}[spec.fills]
    if isinstance(market.source, Timeframe):
        series = bars.timeframes(market.instrument).get(market.source)
        if series is None:
            return 0, 0, from_ticks
        stored = min(series.rows, _room(spec, series.first_ns, series.last_ns, market.source.ns))
        if market.source == spec.timeframe:
            return stored, 0, from_ticks
        made = min(stored, _room(spec, series.first_ns, series.last_ns, spec.timeframe.ns))
        return made, stored, from_ticks
    stream = bars.ticks.streams(market.instrument).get(market.source)
    from_ticks = max(from_ticks, 1)
    if stream is None:
        return 0, 0, from_ticks
    return min(stream.rows, _room(spec, stream.first_ns, stream.last_ns, spec.timeframe.ns)), 0, from_ticks


def _room(spec: BacktestSpec, first_ns: TsNs, last_ns: TsNs, width_ns: int) -> int:
    """Count the bars that the dates asked for have room for, within those that are stored."""
    start = first_ns if spec.start_ns is None else max(first_ns, spec.start_ns)
    stop = last_ns + 1 if spec.stop_ns is None else min(last_ns + 1, spec.stop_ns)
    return max(0, stop - start) // width_ns + 2
