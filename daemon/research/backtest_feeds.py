"""What a backtest reads beside its bars: the ticks and the books that fills are made against, and latencies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from daemon.core.ticks import Stream
from daemon.engine.feeds import DEPTH, QUOTES, TRADES
from daemon.engine.simulate import Chunk, DepthChunk, Feed
from daemon.research.backtest_books import FLOATS, reached_back
from daemon.research.backtest_market import Used
from daemon.research.latency_calibration import not_measured, series_of
from daemon.research.plans import TRADE_STREAMS, no_depth
from daemon.research.selection import Digest, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from daemon.core.backtest import BacktestSpec
    from daemon.core.market import Instrument, TsNs
    from daemon.engine.latency import MeasuredLatency
    from daemon.engine.orders import Records
    from daemon.research.backtest_market import Loaded
    from daemon.store.bars import BarStore

_STREAMS: Final = {TRADES: Stream.TRADES, QUOTES: Stream.QUOTES, DEPTH: Stream.DEPTH}
_QUOTE_COLUMNS: Final = ("time_ns", "bid", "ask")
_TRADE_COLUMNS: Final = ("time_ns", "price", "size")
_DEPTH_COLUMNS: Final = ("time_ns", "id", "side", "price", "size", "flags")


def feeds_of(store: BarStore, spec: BacktestSpec, loaded: list[Loaded]) -> list[Feed]:
    """Open what fills are made against, symbol by symbol; none for fills on bars.

    Of one moment quotes come before trades, and trades before changes of the book. What is read is noted in `used`,
    complete once the run is over; trades are those that the bars come from.
    """
    spans = [(int(each.bars.start_ns[0]), int(each.bars.start_ns[-1]) + spec.timeframe.ns) for each in loaded]
    feeds = feeds_over(store, spec, spans)
    return [
        each if each.kind == TRADES else each._replace(chunks=_noted(each.chunks, _STREAMS[each.kind], used))
        for each in feeds
        for used in (loaded[each.symbol].used,)
    ]


def feeds_over(store: BarStore, spec: BacktestSpec, spans: Sequence[tuple[TsNs, TsNs]]) -> list[Feed]:
    """Open what fills are made against over [start, stop), one a market of the specification; nothing is noted.

    A market whose span is empty has no feed.
    """
    if spec.fills == "bars":
        return []
    feeds = []
    for symbol, (market, span) in enumerate(zip(spec.markets, spans, strict=True)):
        if span[0] >= span[1]:
            continue
        instrument = market.instrument
        streams = store.ticks.streams(instrument)
        trades = next(stream for stream in TRADE_STREAMS if stream in streams)
        if spec.fills == "book":
            feeds.append(Feed(symbol, TRADES, _chunks(store, instrument, trades, (*_TRADE_COLUMNS, "side"), span)))
            before_ns = reached_back(store.ticks, instrument, span[0], streams[Stream.DEPTH].first_ns)
            feeds.append(Feed(symbol, DEPTH, _depth(store, instrument, (before_ns, span[1]))))
            continue
        if Stream.QUOTES in streams:
            feeds.append(Feed(symbol, QUOTES, _chunks(store, instrument, Stream.QUOTES, _QUOTE_COLUMNS, span)))
        feeds.append(Feed(symbol, TRADES, _chunks(store, instrument, trades, _TRADE_COLUMNS, span)))
    return feeds


def read_through(feeds: Iterable[Feed], checkpoint: Callable[[], None]) -> list[Used]:
    """Read feeds to their ends and say what they were."""
    found: list[Used] = []
    for each in feeds:
        for _ in _noted(each.chunks, _STREAMS[each.kind], found):
            checkpoint()
    return found


def check_books(spec: BacktestSpec, books: Records) -> None:
    """Refuse a run against a book that never was whole: NotFound NO_DEPTH. books: as the run left them."""
    if spec.fills != "book":
        return
    for number, market in enumerate(spec.markets):
        if number >= books.size or not books["snapshots"][number]:
            why = "no whole book in the dates asked for: no snapshot is stored there or before"
            raise no_depth(market.instrument, why)


def measured_latency(store: BarStore, instrument: Instrument) -> MeasuredLatency | None:
    """Read a symbol's series of feed latency, None where it has none."""
    with store.ticks.env.read() as transaction:
        return series_of(transaction, instrument)


def latencies_of(store: BarStore, spec: BacktestSpec, loaded: Sequence[Loaded] = ()) -> list[MeasuredLatency | None]:
    """Read what `engine.latency.delays_of` takes, one a market, and note it; NotFound CALIBRATION_NOT_FOUND."""
    if not spec.latency.measured:
        return [None] * len(spec.markets)
    found: list[MeasuredLatency | None] = []
    for number, market in enumerate(spec.markets):
        series = measured_latency(store, market.instrument)
        if series is None:
            raise not_measured(market.instrument)
        if loaded:
            loaded[number].used.append(latency_used(series))
        found.append(series)
    return found


def latency_used(series: MeasuredLatency) -> Used:
    """Say what a series was, for the result: the next calibration replaces it."""
    time_ns = series.time_ns
    return Used("latency", time_ns.size, int(time_ns[0]), int(time_ns[-1]), digest_of(series))


def _chunks(
    store: BarStore, instrument: Instrument, stream: Stream, columns: tuple[str, ...], span: tuple[TsNs, TsNs]
) -> Iterator[Chunk]:
    for rows in store.ticks.scan(instrument, stream, columns, *span):
        yield Chunk(*rows)


def _depth(store: BarStore, instrument: Instrument, span: tuple[TsNs, TsNs]) -> Iterator[DepthChunk]:
    """Yield the changes of a book as they are stored; NotFound NO_DEPTH where they are no decimals."""
    buffers = store.ticks.buffers()
    for rows in store.ticks.blocks(instrument, Stream.DEPTH, _DEPTH_COLUMNS, *span, buffers):
        if rows.price_decimals is None or rows.size_decimals is None:
            raise no_depth(instrument, FLOATS)
        time_ns, ids, side, price, size, flags = (rows.column(name) for name in _DEPTH_COLUMNS)
        yield DepthChunk(time_ns, ids, side, price, size, flags, rows.price_decimals, rows.size_decimals)


def _noted(chunks: Iterator[Any], stream: Stream, used: list[Used]) -> Iterator[Any]:
    """Pass rows on and, after the last, say what they were."""
    digest = Digest()
    rows, first_ns, last_ns = 0, 0, 0
    for chunk in chunks:
        digest.update([each for each in chunk if isinstance(each, np.ndarray)])
        first_ns = first_ns if rows else int(chunk.time_ns[0])
        last_ns = int(chunk.time_ns[-1])
        rows += chunk.time_ns.size
        yield chunk
    used.append(Used(stream, rows, first_ns, last_ns, digest.hexdigest()))
