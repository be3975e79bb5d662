"""`atlasd bench backtest`: how fast the backtester is here, over ticks and bars, alone and a hundred at once.

The market is simulated, so that everybody measures the same; `hftbacktest` is measured on the same trades where it is
installed.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from daemon.app.bench import own_peak_bytes
from daemon.app.bench_queue import hundred_at_once, minute_bars
from daemon.core import strategy as rules
from daemon.core.backtest import (
    BacktestSpec,
    Costs,
    Distance,
    Exits,
    FixedBps,
    Market,
    Rules,
    Trailing,
    VolumeWeighted,
)
from daemon.core.market import NS_PER_DAY, Bars, Instrument, Timeframe
from daemon.core.ticks import Stream, ticks
from daemon.engine.deciding import ENTER_LONG
from daemon.engine.simulate import TRADES, Chunk, Decisions, Feed, Simulation
from daemon.research.backtest_job import run_backtest
from daemon.research.backtest_records import BacktestJob
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.core.ticks import Ticks

_INSTRUMENT: Final = Instrument("bench", "BENCH")
_OTHER: Final = Instrument("bench", "BENCH2")
_START_NS: Final = 19_000 * NS_PER_DAY
_PASSES: Final = 5
_CHUNK: Final = 1 << 16
_YEAR_BARS: Final = 525_600
_MANY: Final = 100
_MANY_BARS: Final = 45_000
_TICK_DECIMALS: Final = 2
_MIB: Final = 1 << 20


def bench_backtest(trade_rows: int) -> dict[str, Any]:
    """Measure the backtester; keys carry their units. trade_rows: simulated trades for the figures over ticks.

    Medians of warm passes. trades_events_per_s: from arrays, one core, with orders, fees, slippage and equity at 1 s
    bars; store_events_per_s: reading the store twice, making bars and deciding included, and what that took of memory
    in a process that does nothing else. year_bars_s: two symbols of 525,600
    bars, both bands, from the store to the stored rows. hundred_s: a hundred of 45,000 bars, submitted at once to a
    daemon of its own; health_p99_ms: its answers meanwhile.
    """
    rows = _trades(trade_rows)
    figures: dict[str, Any] = {"trade_rows": rows.size, **_arrays(rows)}
    with tempfile.TemporaryDirectory() as folder:
        figures |= _from_store(Path(folder) / "ticks", rows)
        figures |= _year(Path(folder) / "bars")
    return figures | hundred_at_once(_MANY, _MANY_BARS)


# Ticks.


def _trades(rows: int) -> Ticks:
    """Trades of a walk whose steps and waits are those of a busy market, some twenty a second."""
    rng = np.random.default_rng(20_240_809)
    in_burst = rng.random(rows) < 0.6  # noqa: PLR2004 - share of trades that come with the one before
    wait_us = np.where(in_burst, 0, rng.geometric(1 / 120_000, rows))
    price = 6_000_000 + np.cumsum(rng.integers(-150, 151, rows) * ~in_burst)
    return ticks(
        Stream.TRADES,
        price_decimals=_TICK_DECIMALS,
        size_decimals=3,
        time_ns=_START_NS + np.cumsum(wait_us) * 1_000,
        id=np.arange(rows),
        price=price,
        size=np.maximum(1, np.rint(rng.lognormal(3.0, 1.5, rows))),
        side=np.where(rng.random(rows) < 0.5, 1, -1),  # noqa: PLR2004
    )


def _tick_spec(markets: tuple[Market, ...]) -> BacktestSpec:
    tenth = Distance(unit="fraction", value=0.001)
    return BacktestSpec(
        name="bench",
        markets=markets,
        timeframe=Timeframe.SEC_1,
        program=Rules(entry_long=(rules.CrossesAbove(col_a="rsi_14", value=30.0),)),
        exits=Exits(take_profit=tenth, stop_loss=tenth, trailing_stop=Trailing(distance=tenth)),
        costs=Costs(maker_rate=0.0002, taker_rate=0.0005, slippage=FixedBps(bps=1.0)),
        fills="ticks",
        limit_fills="through",
    )


def _arrays(rows: Ticks) -> dict[str, Any]:
    from daemon.engine.tick_bars import bars_of

    market = Market(instrument=_INSTRUMENT, source=Stream.TRADES)
    spec = _tick_spec((market,))
    time_ns = np.asarray(rows.time_ns)
    price, size = rows.column("price") / 10.0**_TICK_DECIMALS, rows.column("size") / 1_000.0
    bars = bars_of([rows], Timeframe.SEC_1)
    signals = np.zeros(bars.size, dtype=np.uint8)
    signals[::60] = ENTER_LONG
    decided = _decided(bars, signals)

    def chunks() -> Iterator[Chunk]:
        for at in range(0, time_ns.size, _CHUNK):
            part = slice(at, at + _CHUNK)
            yield Chunk(time_ns[part], price[part], size[part])

    fills = 0

    def run() -> None:
        nonlocal fills
        fills = Simulation(spec, [decided], [Feed(0, TRADES, chunks())]).run().log.size

    took_s = _median_s(run)
    figures = {"trades_events_per_s": round(rows.size / took_s), "trades_fills": fills, "trades_bars": bars.size}
    theirs_s = _hftbacktest(time_ns, price, size)
    if theirs_s is not None:
        figures["hftbacktest_events_per_s"] = round(rows.size / theirs_s)
        figures["ratio_to_hftbacktest"] = round(theirs_s / took_s, 2)  # type: ignore[assignment]
    return figures


def _decided(bars: Bars, signals: np.typing.NDArray[np.uint8]) -> Decisions:
    unknown = np.full(bars.size, np.nan)
    return Decisions(
        bars.start_ns + Timeframe.SEC_1.ns,
        np.array(bars[1:]),
        signals,
        unknown,
        unknown,
        unknown,
        np.empty(0, dtype=np.int64),
        np.empty(0),
    )


def _hftbacktest(time_ns: Any, price: Any, size: Any) -> float | None:
    """Time the same trades there: a look every second, two limit orders every minute, fees; None without it."""
    try:
        hft, numba = import_module("hftbacktest"), import_module("numba")
    except ImportError:
        return None
    feed = np.zeros(time_ns.size, dtype=hft.event_dtype)
    feed["ev"] = hft.TRADE_EVENT | hft.EXCH_EVENT | hft.LOCAL_EVENT
    feed["ev"] |= np.where(np.arange(time_ns.size) % 2 == 0, hft.BUY_EVENT, hft.SELL_EVENT).astype(np.uint64)
    feed["exch_ts"], feed["local_ts"] = time_ns, time_ns + 1
    feed["px"], feed["qty"] = price, size

    @numba.njit  # type: ignore[untyped-decorator]
    def look(engine: Any) -> int:
        seconds = 0
        last = 0.0
        while engine.elapse(1_000_000_000) == 0:
            seconds += 1
            trades = engine.last_trades(0)
            if trades.size > 0:
                last = trades[-1].px
            engine.clear_last_trades(0)
            if seconds % 60 == 0 and last > 0.0:
                # The orders of the minute before go, so that no more than two ever wait.
                engine.cancel(0, 2 * seconds - 120, False)  # noqa: FBT003 - their order of arguments
                engine.cancel(0, 2 * seconds - 119, False)  # noqa: FBT003
                engine.clear_inactive_orders(0)
                engine.submit_buy_order(0, 2 * seconds, last * 0.999, 0.01, 0, 0, False)  # noqa: FBT003
                engine.submit_sell_order(0, 2 * seconds + 1, last * 1.001, 0.01, 0, 0, False)  # noqa: FBT003
        return seconds

    def run() -> None:
        asset = (
            hft.BacktestAsset()
            .data([feed])
            .linear_asset(1.0)
            .constant_order_latency(0, 0)
            .risk_adverse_queue_model()
            .no_partial_fill_exchange()
            .trading_value_fee_model(0.0002, 0.0005)
            .tick_size(0.01)
            .lot_size(0.001)
            .last_trades_capacity(10_000)
        )
        look(hft.HashMapMarketDepthBacktest([asset]))

    return _median_s(run)


def _from_store(folder: Path, rows: Ticks) -> dict[str, Any]:
    """Read, decide, simulate, measure and spool a backtest over stored trades, in a process of its own."""
    with Environment(folder, StoreConfig(sync=False)) as env, _writer(env) as writer:
        writer.add(rows)
        writer.finish()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        took_s, peak_bytes = pool.apply(_stored_pass, (folder,))
    return {
        "store_events_per_s": round(rows.size / took_s),
        "store_s": round(took_s, 3),
        "store_peak_rss_mb": round(peak_bytes / _MIB, 1),
    }


def _writer(env: Environment) -> BulkWriter:
    return BulkWriter(BarStore(env).ticks, _INSTRUMENT, Stream.TRADES)


def _stored_pass(folder: Path) -> tuple[float, int]:
    spec = _tick_spec((Market(instrument=_INSTRUMENT, source=Stream.TRADES),))
    job = BacktestJob("bench", spec, str(folder / "spool"))
    with Environment(folder, StoreConfig(), readonly=True) as env:
        store = BarStore(env)
        took_s = _median_s(lambda: run_backtest(store, job, lambda _: None, lambda: None))
    return took_s, own_peak_bytes()


# Bars.


def _year(folder: Path) -> dict[str, Any]:
    percent = {name: Distance(unit="fraction", value=value) for name, value in (("up", 0.02), ("down", 0.05))}
    trail = Trailing(distance=Distance(unit="fraction", value=0.005), activation=Distance(unit="fraction", value=0.01))
    with Environment(folder, StoreConfig(sync=False)) as env:
        store = BarStore(env)
        for seed, instrument in enumerate((_INSTRUMENT, _OTHER)):
            bars = minute_bars(seed, _YEAR_BARS)

            def merge(transaction: Any, instrument: Instrument = instrument, bars: Bars = bars) -> None:
                store.merge(transaction, instrument, Timeframe.MIN_1, bars, replace=False)

            env.write(merge)
        spec = BacktestSpec(
            name="bench",
            markets=tuple(Market(instrument=each, source=Timeframe.MIN_1) for each in (_INSTRUMENT, _OTHER)),
            timeframe=Timeframe.MIN_1,
            program=Rules(
                entry_long=(
                    rules.CrossesAbove(col_a="rsi_14", value=30.0),
                    rules.Above(col="volume", ref="volume_sma_20"),
                )
            ),
            exits=Exits(take_profit=percent["up"], stop_loss=percent["down"], trailing_stop=trail),
            costs=Costs(maker_rate=0.001, taker_rate=0.001, slippage=VolumeWeighted()),
        )
        job = BacktestJob("bench", spec, str(folder / "spool"))
        trades = 0

        def run() -> None:
            nonlocal trades
            trades = run_backtest(store, job, lambda _: None, lambda: None).result.trade_stats.total_trades

        took_s = _median_s(run)
    return {"year_bars": 2 * _YEAR_BARS, "year_trades": trades, "year_bars_s": round(took_s, 3)}


def _median_s(run: Callable[[], object]) -> float:
    """Median of warm passes; the first compiles or loads, and is not counted."""
    run()
    passes = []
    for _ in range(_PASSES):
        start = time.perf_counter()
        run()
        passes.append(time.perf_counter() - start)
    return statistics.median(passes)
