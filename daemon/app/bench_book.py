"""`atlasd bench book`: how fast books are replayed here, and a trader's own strategies called, compiled and as Python.

The market is a recording or a simulated one; `hftbacktest` replays the same rows with the same market maker where it
can be imported.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from daemon.app.bench_book_hft import replay_there
from daemon.app.bench_book_market import lengthened, recorded, simulated
from daemon.app.bench_book_strategies import EVERY_TRADE, IN_PYTHON, QUOTES
from daemon.core.backtest import BacktestSpec, Costs, Market, Own
from daemon.core.execution import Latency
from daemon.core.market import Bars, Instrument, Timeframe
from daemon.core.ticks import Stream
from daemon.engine.simulate import DEPTH, TRADES, Chunk, Decisions, DepthChunk, Feed, OwnRun, Simulation
from daemon.engine.tick_bars import bars_of
from daemon.research.own.loading import load
from daemon.research.warmup import warm_backtest
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.app.bench_book_market import BookMarket
    from daemon.core.ticks import Ticks
    from daemon.engine.own import Compiled, OwnStrategy
    from daemon.engine.simulate import Outcome

_INSTRUMENT: Final = Instrument("bench", "BENCH")
_BAR: Final = Timeframe.SEC_1
_MAKER, _TAKER = 0.0, 0.0004
_LATENCY_NS: Final = 5_000_000
_PASSES: Final = 5
_CHUNK: Final = 1 << 16
_FEW_ROWS: Final = 20_000
_DEPTH_COLUMNS: Final = ("time_ns", "id", "side", "price", "size", "flags")


def bench_book(capture: Path | None, depth_rows: int, trade_rows: int) -> dict[str, Any]:
    """Measure books and own strategies; keys carry their units. Events are changes of price levels, and trades.

    capture: a recording to replay, repeated to `depth_rows`; None for a simulated perpetual. trade_rows: trades for
    strategies that look at trades and bars. Medians of warm passes on one core. depth_events_per_s: from arrays, a
    compiled market maker that cancels and quotes both sides every 100 ms, behind what queues show, latencies of 5 ms;
    hftbacktest_events_per_s: the same there, null where it is not installed. store_depth_events_per_s: reading the
    store twice and making bars included, in a process of its own. own_trade_events_per_s: a compiled strategy called
    at every trade. python_bar_events_per_s: one that runs as Python, called at every bar of a second; own_trades and
    python_bars say how often they were called. first_run_s,
    cached_run_s: a compiled strategy's first run anywhere, and its first run in another process, loading it included.
    """
    market = simulated(depth_rows) if capture is None else recorded(capture, depth_rows)
    figures: dict[str, Any] = {
        "depth_rows": market.depth.size,
        "depth_updates": market.depth_events,
        "depth_trades": market.trades.size,
    }
    with tempfile.TemporaryDirectory() as folder:
        figures |= _arrays(market, Path(folder))
        figures |= _from_store(market, Path(folder))
        trades = lengthened(market.trades, trade_rows)
        figures |= _every_trade(trades, Path(folder))
        figures |= _as_python(trades)
    return figures | _first_runs()


def own_spec(own: OwnStrategy, fills: Any, symbols: int = 1) -> BacktestSpec:
    """Return what an own strategy is run by here."""
    market = Market(instrument=_INSTRUMENT, source=_BAR, tick_size=0.1, lot_size=0.001)
    return BacktestSpec(
        name="bench",
        markets=(market,) * symbols,
        timeframe=_BAR,
        program=Own(id="bench", digest=own.digest),
        costs=Costs(maker_rate=_MAKER, taker_rate=_TAKER),
        fills=fills,
        latency=Latency(order_ns=_LATENCY_NS, feed_ns=_LATENCY_NS),
    )


# The book.


def _arrays(market: BookMarket, folder: Path) -> dict[str, Any]:
    own = load(QUOTES, "quotes.py")
    bars = decided(bars_of([market.trades], _BAR))
    trades, depth = chunks_of(market.trades), depth_chunks_of(market.depth)
    outcomes: list[Outcome] = []

    def here() -> None:
        feeds = [Feed(0, TRADES, iter(trades)), Feed(0, DEPTH, iter(depth))]
        asked = OwnRun(own, {}, [], str(folder))
        outcomes[:] = [Simulation(own_spec(own, "book"), [bars], feeds, own=asked).run()]

    there = replay_there(market, _MAKER, _TAKER, _LATENCY_NS)
    here_s, *theirs = _medians_s([here] if there is None else [here, there])
    there_s = theirs[0] if theirs else None
    return {
        "depth_fills": int((outcomes[0].log["status"] == 0).sum()),
        "depth_events_per_s": round(market.events / here_s),
        "hftbacktest_events_per_s": None if there_s is None else round(market.events / there_s),
        "ratio_to_hftbacktest": None if there_s is None else round(there_s / here_s, 2),
    }


def _from_store(market: BookMarket, folder: Path) -> dict[str, Any]:
    with Environment(folder / "store", StoreConfig(sync=False)) as env:
        for rows in (market.trades, market.depth):
            with BulkWriter(BarStore(env).ticks, _INSTRUMENT, rows.stream) as writer:
                writer.add(rows)
                writer.finish()
    took_s, events = _elsewhere(partial(_stored_pass, folder))
    return {"store_depth_events_per_s": round(events / took_s)}


def _stored_pass(folder: Path) -> tuple[float, int]:
    own = load(QUOTES, "quotes.py")
    events = 0
    with Environment(folder / "store", StoreConfig(), readonly=True) as env:
        store = BarStore(env).ticks

        def run() -> None:
            nonlocal events
            names = ("time_ns", "price", "size", "side")
            bars = decided(bars_of(store.blocks(_INSTRUMENT, Stream.TRADES, names[:3]), _BAR))
            depth = (_depth_chunk(rows) for rows in store.blocks(_INSTRUMENT, Stream.DEPTH, _DEPTH_COLUMNS))
            trades = (_chunk(rows) for rows in store.blocks(_INSTRUMENT, Stream.TRADES, names))
            feeds = [Feed(0, TRADES, trades), Feed(0, DEPTH, depth)]
            run = Simulation(own_spec(own, "book"), [bars], feeds, own=OwnRun(own, {}, [], str(folder)))
            events = run.run().events - bars.close_ns.size

        return _medians_s([run])[0], events


# Trades and bars.


def _every_trade(trades: Ticks, folder: Path) -> dict[str, Any]:
    own = load(EVERY_TRADE, "every_trade.py")
    took_s, outcome, _ = _on_trades(own, trades, folder)
    return {
        "own_trades": trades.size,
        "own_trade_fills": outcome.log.size,
        "own_trade_events_per_s": round(trades.size / took_s),
    }


def _as_python(trades: Ticks) -> dict[str, Any]:
    own = load(IN_PYTHON, "in_python.py")
    took_s, outcome, _ = _on_trades(own, trades, None)
    return {
        "python_bars": outcome.samples.time_ns.size,
        "python_bar_fills": outcome.log.size,
        "python_bar_events_per_s": round(trades.size / took_s),
    }


class _Ran(NamedTuple):
    took_s: float
    outcome: Outcome
    compiled: Compiled | None


def _on_trades(own: OwnStrategy, trades: Ticks, folder: Path | None) -> _Ran:
    bars = decided(bars_of([trades], _BAR))
    chunks = chunks_of(trades)
    kept: list[tuple[Outcome, Compiled | None]] = []

    def run() -> None:
        asked = OwnRun(own, {}, [], "" if folder is None else str(folder))
        simulation = Simulation(own_spec(own, "ticks"), [bars], [Feed(0, TRADES, iter(chunks))], own=asked)
        kept[:] = [(simulation.run(), simulation.compiled)]

    return _Ran(_medians_s([run])[0], *kept[0])


# A strategy's first run.


def _first_runs() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        first_s, cached_s = (_elsewhere(partial(_first_run, folder)) for _ in range(2))
    return {"first_run_s": round(first_s, 3), "cached_run_s": round(cached_s, 3)}


def _first_run(folder: str) -> float:
    """Load and run a strategy over some minutes, in a process whose kernels are ready, as those of workers are."""
    market = simulated(_FEW_ROWS)
    bars = decided(bars_of([market.trades], _BAR))
    trades, depth = chunks_of(market.trades), depth_chunks_of(market.depth)
    warm_backtest()
    began = time.perf_counter()
    own = load(QUOTES, "quotes.py")
    feeds = [Feed(0, TRADES, iter(trades)), Feed(0, DEPTH, iter(depth))]
    Simulation(own_spec(own, "book"), [bars], feeds, own=OwnRun(own, {}, [], folder)).run()
    return time.perf_counter() - began


def _elsewhere(run: Callable[[], Any]) -> Any:
    """Run in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run)


# What runs take.


def decided(bars: Bars) -> Decisions:
    """Lay out bars of a second, for a strategy that decides by itself."""
    unknown = np.full(bars.size, np.nan)
    signals = np.zeros(bars.size, dtype=np.uint8)
    no_ns = np.empty(0, dtype=np.int64)
    return Decisions(
        bars.start_ns + _BAR.ns, np.array(bars[1:]), signals, unknown, unknown, unknown, no_ns, np.empty(0)
    )


def chunks_of(rows: Ticks) -> list[Chunk]:
    """Cut trades into chunks."""
    return [_chunk(part) for part in _parts(rows)]


def depth_chunks_of(rows: Ticks) -> list[DepthChunk]:
    """Cut depth into chunks."""
    return [_depth_chunk(part) for part in _parts(rows)]


def _parts(rows: Ticks) -> Iterator[Ticks]:
    for at in range(0, rows.size, _CHUNK):
        yield rows.rows(at, min(at + _CHUNK, rows.size))


def _chunk(rows: Ticks) -> Chunk:
    price, size = (
        rows.column(name) / 10.0**decimals
        for name, decimals in (("price", rows.price_decimals or 0), ("size", rows.size_decimals or 0))
    )
    return Chunk(np.ascontiguousarray(rows.time_ns), price, size, np.ascontiguousarray(rows.column("side")))


def _depth_chunk(rows: Ticks) -> DepthChunk:
    time_ns, ids, side, price, size, flags = (np.ascontiguousarray(rows.column(name)) for name in _DEPTH_COLUMNS)
    decimals = rows.price_decimals or 0, rows.size_decimals or 0
    return DepthChunk(time_ns, ids, side, price, size, flags, *decimals)


def _medians_s(runs: list[Callable[[], None]]) -> list[float]:
    """Medians of warm passes, taken in turn; the first compiles or loads, and is not counted."""
    passes: list[list[float]] = [[] for _ in runs]
    for number in range(_PASSES + 1):
        for run, took in zip(runs, passes, strict=True):
            start = time.perf_counter()
            run()
            if number:
                took.append(time.perf_counter() - start)
    return [statistics.median(took) for took in passes]
