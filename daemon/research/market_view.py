"""A stretch of a series with as many points as a chart shows: what a screen is wide, not what the store holds.

Bars are given at the shortest length that fits; ticks as the extremes of each pixel column, so that no spike is lost.
Whoever zooms in asks again, and gets more detail. A view walks MOST_ROWS at most, so that none takes long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from daemon.core.errors import Code, InvalidRequest
from daemon.core.market import Bars, Timeframe
from daemon.core.ticks import TICK_STREAMS, Kind, Stream
from daemon.engine.curves import extremes
from daemon.research.history import History, Query
from daemon.research.moments import time_range
from daemon.research.plans import TRADE_STREAMS, parse_timeframe
from daemon.store.codec import to_floats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.core.market import Float64s, Instrument, TsNs
    from daemon.research.history import Block
    from daemon.store.bars import BarStore

MOST_POINTS: Final = 5_000
LEAST_POINTS: Final = 10
USUAL_POINTS: Final = 600
MOST_ROWS: Final = 20_000_000
_NS_PER_MS: Final = 1_000_000
_ROWS_A_COLUMN: Final = 2
_BAR_COLUMNS: Final = ("timestamp", *Bars._fields[1:])
_NO_BARS: Final = Bars(np.empty(0, dtype=np.int64), *(np.empty(0) for _ in Bars._fields[1:]))
_VALUES: Final = {Stream.TRADES: ["price"], Stream.AGG_TRADES: ["price"], Stream.QUOTES: ["bid", "ask"]}


class ViewQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a chart shows. stream: bars, trades, agg_trades or quotes. timeframe: of bars, None for what fits.

    start, end: as of `moments.time_range`; None for the ends of the series. points: LEAST_POINTS to MOST_POINTS.
    """

    symbol: str
    stream: str = Stream.BARS
    timeframe: str | None = None
    start: str | None = None
    end: str | None = None
    points: int = USUAL_POINTS


class MarketView(msgspec.Struct, frozen=True, kw_only=True):
    """Columns of points, equally long, ascending in time.

    timeframe: of the bars, such as `1Hour`, or `7 x 1Day` where even days are too many; None for ticks. start, end:
    what was looked at, Unix ms. rows: how many rows of the series that range has. is_decimated: whether some are not
    shown by themselves. columns: `timestamp` (Unix ms) with `open high low close volume`, or the prices of ticks.
    """

    symbol: str
    stream: str
    timeframe: str | None
    start: int
    end: int
    rows: int
    is_decimated: bool
    columns: dict[str, Sequence[float]]


def market_view(bars: BarStore, query: ViewQuery) -> MarketView:
    """Read a view.

    InvalidRequest INVALID_REQUEST, INVALID_DATE_RANGE (also where it holds more than MOST_ROWS); else as `History`.
    """
    if not LEAST_POINTS <= query.points <= MOST_POINTS:
        raise InvalidRequest(
            Code.INVALID_REQUEST, f"`points` must be {LEAST_POINTS} to {MOST_POINTS}", {"field": "points"}
        )
    if query.stream == Stream.DEPTH:
        raise InvalidRequest(
            Code.INVALID_REQUEST,
            "changes of a book have no chart: take bars, trades, agg_trades or quotes",
            {"field": "stream"},
        )
    instrument = bars.resolve(query.symbol)
    start_ns, stop_ns = _range(bars, instrument, query)
    if query.stream == Stream.BARS:
        return _candles(bars, query, start_ns, stop_ns)
    return _ticks(bars, query, start_ns, stop_ns)


def _range(bars: BarStore, instrument: Instrument, query: ViewQuery) -> tuple[TsNs, TsNs]:
    """Fill in the ends that were not given: those of what is stored, of ticks of this stream alone."""
    start_ns, stop_ns = time_range(query.start, query.end)
    ticks = bars.ticks.streams(instrument)
    if query.stream in TICK_STREAMS:
        found = [(each.first_ns, each.last_ns + 1) for stream, each in ticks.items() if stream == query.stream]
    else:
        found = [(each.first_ns, each.last_ns + frame.ns) for frame, each in bars.timeframes(instrument).items()]
        found += [(each.first_ns, each.last_ns + 1) for stream, each in ticks.items() if stream in TRADE_STREAMS]
    first = min((each[0] for each in found), default=0) if start_ns is None else start_ns
    last = max((each[1] for each in found), default=1) if stop_ns is None else stop_ns
    return first, max(last, first + 1)


# Candles.


def _candles(bars: BarStore, query: ViewQuery, start_ns: TsNs, stop_ns: TsNs) -> MarketView:
    from daemon.engine.bars import lengthen

    timeframe = _fitting(bars, query, start_ns, stop_ns)
    history = History(bars, _asked(query, timeframe))
    times = max(1, -(-(stop_ns - start_ns) // timeframe.ns // query.points))
    width_ns = times * timeframe.ns
    parts: list[Bars] = []
    rows = 0
    for block in _counted(history):
        rows += block.size
        part = Bars._make(block.columns[name] for name in _BAR_COLUMNS)
        parts.append(part if times == 1 else lengthen(part, width_ns))
    found = Bars._make(np.concatenate(columns) for columns in zip(_NO_BARS, *parts, strict=True))
    shown = found if times == 1 else lengthen(found, width_ns)  # two parts may meet within a bar
    return MarketView(
        symbol=history.instrument.key,
        stream=Stream.BARS,
        timeframe=str(timeframe) if times == 1 else f"{times} x {timeframe}",
        start=start_ns // _NS_PER_MS,
        end=stop_ns // _NS_PER_MS,
        rows=rows,
        is_decimated=times > 1,
        columns={
            "timestamp": (shown.start_ns // _NS_PER_MS).tolist(),
            **{name: getattr(shown, name).tolist() for name in _BAR_COLUMNS[1:]},
        },
    )


def _fitting(bars: BarStore, query: ViewQuery, start_ns: TsNs, stop_ns: TsNs) -> Timeframe:
    """Find the shortest length of bars that can be made and fits; the longest where none does."""
    instrument = bars.resolve(query.symbol)
    stored = bars.timeframes(instrument)
    trades = next((each for each in TRADE_STREAMS if each in bars.ticks.streams(instrument)), None)
    if query.timeframe is not None:
        timeframe = parse_timeframe(query.timeframe)
    else:
        made = [each for each in Timeframe if trades or any(each.ns % frame.ns == 0 for frame in stored)]
        fitting = [each for each in made if (stop_ns - start_ns) // each.ns <= query.points]
        timeframe = [*fitting, *made[-1:], Timeframe.DAY_1][0]
    if trades and not any(timeframe.ns % frame.ns == 0 for frame in stored):
        series = bars.ticks.streams(instrument)[trades]
        seen_ns = min(stop_ns, series.last_ns + 1) - max(start_ns, series.first_ns)
        if series.rows * (seen_ns / (series.last_ns + 1 - series.first_ns)) > MOST_ROWS:
            raise _too_long(trades)
    return timeframe


# Ticks.


def _ticks(bars: BarStore, query: ViewQuery, start_ns: TsNs, stop_ns: TsNs) -> MarketView:
    history = History(bars, _asked(query, None))
    names = _VALUES[history.stream]
    columns = max(1, query.points // (_ROWS_A_COLUMN * len(names)))
    width_ns = -(-(stop_ns - start_ns) // columns)

    def thinned(points: list[Any]) -> list[Any]:
        kept = [extremes(points[0], price, start_ns, width_ns) for price in points[1:]]
        rows = np.unique(np.concatenate(kept))
        return [column[rows] for column in points]

    rows = 0
    parts: list[list[Any]] = [[np.empty(0, dtype=np.int64), *(np.empty(0) for _ in names)]]
    for block in _counted(history):
        rows += block.size
        points = [block.time_ns, *(_floats(block, name) for name in names)]
        parts.append(points if rows <= query.points else thinned(points))
    time_ns, *prices = (np.concatenate(each) for each in zip(*parts, strict=True))
    if rows > query.points:
        time_ns, *prices = thinned([time_ns, *prices])
    return MarketView(
        symbol=history.instrument.key,
        stream=history.stream,
        timeframe=None,
        start=start_ns // _NS_PER_MS,
        end=stop_ns // _NS_PER_MS,
        rows=rows,
        is_decimated=rows > time_ns.size,
        columns={
            "timestamp": (time_ns // _NS_PER_MS).tolist(),
            **{name: price.tolist() for name, price in zip(names, prices, strict=True)},
        },
    )


def _floats(block: Block, name: str) -> Float64s:
    column, decimals = block.columns[name], block.decimals(Kind.PRICE)
    return np.asarray(column if decimals is None else to_floats(column, decimals), dtype=np.float64)


# Reading.


def _asked(query: ViewQuery, timeframe: str | None) -> Query:
    return Query(
        symbol=query.symbol, stream=query.stream, timeframe=timeframe, start=query.start, end=query.end, limit=None
    )


def _counted(history: History) -> Iterator[Block]:
    """Walk a history; InvalidRequest INVALID_DATE_RANGE as soon as it is too long to be a view."""
    rows = 0
    for block in history.blocks():
        rows += block.size
        if rows > MOST_ROWS:
            raise _too_long(history.stream)
        yield block


def _too_long(stream: str) -> InvalidRequest:
    return InvalidRequest(
        Code.INVALID_DATE_RANGE,
        f"the range holds more than {MOST_ROWS:,} rows of {stream}: take a shorter one, or bars",
        {"field": "start"},
    )
