"""`atlasd strategy bench`: how fast a trader's own strategy compiles, is called, and runs over a simulated market.

The strategy's code runs in a worker process, which is killed when it takes too long.
"""

from __future__ import annotations

import tempfile
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from daemon.app.bench_book import chunks_of, decided, depth_chunks_of, own_spec
from daemon.app.bench_book_market import lengthened, simulated
from daemon.core.market import Timeframe
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.own import NAMES, Handler, compile_strategy
from daemon.engine.simulate import DEPTH, TRADES, Feed, OwnRun, Simulation
from daemon.engine.tick_bars import bars_of
from daemon.research.own.loading import load
from daemon.research.strategy_check import apart
from daemon.research.warmup import warm_backtest, warm_ticks

if TYPE_CHECKING:
    from daemon.app.bench_book_market import BookMarket
    from daemon.engine.own import OwnStrategy

_ENOUGH_S: Final = 0.2
_TRADES: Final = 1_000_000
"""Where the book is not needed."""

_FIRST_CALLS: Final = 64
_GROWTH: Final = 4


def bench_strategy(source: bytes, file: str, *, symbols: int, depth_rows: int, seconds: float) -> dict[str, Any]:
    """Measure a strategy; keys carry their units. file: its name, for messages; errors as of `strategy_check.apart`.

    first_compile_s, cached_compile_s: of all its handlers, into an empty folder and from there. fills: what its
    handlers need: `book` for on_book and on_timer, `ticks` for on_trade, `bars` for the others. events_per_s: of a run
    over the simulated market, symbols alike, with bars of a second. on_bar_calls_per_s and the like: one handler,
    called again and again as that run left things; what it asks for is dropped. on_bar_compiled: 1, or 0 with its
    reason beside it.
    """
    figures: dict[str, Any] = apart(_measured, (source, file, symbols, depth_rows), file, seconds=seconds)
    return figures


def _measured(source: bytes, file: str, symbols: int, depth_rows: int) -> dict[str, Any]:
    own = load(source, file)
    warm_ticks()
    warm_backtest()
    with tempfile.TemporaryDirectory() as folder:
        first_s = _compile_s(own, folder)
        # The class once more: what a process has compiled it does not load.
        cached_s = _compile_s(load(source, file), folder)
        figures: dict[str, Any] = {
            "first_compile_s": round(first_s, 3),
            "cached_compile_s": round(cached_s, 3),
            **_run(own, folder, simulated(depth_rows), symbols),
        }
    return figures


def _compile_s(own: OwnStrategy, folder: str) -> float:
    began = time.perf_counter()
    compile_strategy(own, folder)
    return time.perf_counter() - began


def _fills(own: OwnStrategy) -> str:
    if own.handlers & {Handler.BOOK, Handler.TIMER}:
        return "book"
    return "ticks" if Handler.TRADE in own.handlers else "bars"


def _run(own: OwnStrategy, folder: str, market: BookMarket, symbols: int) -> dict[str, Any]:
    fills = _fills(own)
    of_market = market.trades if fills == "book" else lengthened(market.trades, _TRADES)
    bars = bars_of([of_market], Timeframe.SEC_1)
    columns = IndicatorColumns(bars)
    values = np.array([columns[name] for name in own.columns.values()]).reshape(len(own.columns), bars.size)
    trades, depth = chunks_of(of_market), depth_chunks_of(market.depth)
    feeds = []
    for symbol in range(symbols):
        if fills != "bars":
            feeds.append(Feed(symbol, TRADES, iter(trades)))
        if fills == "book":
            feeds.append(Feed(symbol, DEPTH, iter(depth)))
    asked = OwnRun(own, {}, [values] * symbols, folder)
    run = Simulation(own_spec(own, fills, symbols), [decided(bars)] * symbols, feeds, own=asked)
    began = time.perf_counter()
    outcome = run.run()
    took_s = time.perf_counter() - began
    figures: dict[str, Any] = {
        "fills": fills,
        "events": outcome.events,
        "orders_and_fills": outcome.log.size,
        "events_per_s": round(outcome.events / took_s),
    }
    assert run.compiled is not None  # noqa: S101 - it is an own strategy's run
    whys = {each.handler: each.why for each in run.compiled.uncompiled}
    for handler in sorted(own.handlers):
        name = NAMES[handler]
        figures[f"{name}_compiled"] = int(handler not in whys)
        if handler in whys:
            figures[f"{name}_why_not"] = whys[handler]
        figures[f"{name}_calls_per_s"] = _calls_per_s(run, handler)
    return figures


def _calls_per_s(run: Simulation, handler: Handler) -> int:
    """Call a handler for a fifth of a second, more and more often."""
    times = _FIRST_CALLS
    while True:
        began = time.perf_counter()
        run.call_often(handler, times)
        took_s = time.perf_counter() - began
        if took_s > _ENOUGH_S:
            return round(times / took_s)
        times *= _GROWTH
