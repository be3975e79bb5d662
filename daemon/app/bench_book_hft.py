"""The same rows and the same market maker in hftbacktest, for `atlasd bench book`, where it can be imported."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from daemon.core.ticks import BUY, DepthFlag

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.app.bench_book_market import BookMarket
    from daemon.core.ticks import Ticks

_EVERY_NS: Final = 100_000_000
_HALF, _SIZE = 2.0, 0.01
_END_OF_ROWS: Final = 1
_AROUND: Final = 0.1
"""Of the price, both ways: what its fastest kind of book holds."""


def replay_there(
    market: BookMarket, maker_rate: float, taker_rate: float, latency_ns: int
) -> Callable[[], None] | None:
    """Return a call that replays a market there; None without it."""
    try:
        hft, numba = import_module("hftbacktest"), import_module("numba")
    except ImportError:
        return None
    rows = _rows(hft, market, latency_ns)
    price = market.trades.column("price") / 10.0 ** (market.trades.price_decimals or 0)
    low, high = float(price.min()) * (1 - _AROUND), float(price.max()) * (1 + _AROUND)
    good_or_rejected, limit = hft.GTX, hft.LIMIT

    @numba.njit  # type: ignore[untyped-decorator]
    def quote(engine: Any) -> int:
        bought, sold, quoted = 0, 0, 0
        while True:
            ended = engine.elapse(_EVERY_NS)
            if ended != 0:
                return ended  # type: ignore[no-any-return]
            engine.clear_inactive_orders(0)
            depth = engine.depth(0)
            bid, ask, tick = depth.best_bid, depth.best_ask, depth.tick_size
            if not bid < ask:
                continue
            middle, lean = (bid + ask) / 2.0, engine.position(0) / _SIZE
            if bought > 0:
                engine.cancel(0, bought, False)  # noqa: FBT003 - their order of arguments
            if sold > 0:
                engine.cancel(0, sold, False)  # noqa: FBT003
            buy = np.floor(min(bid, middle - (_HALF + lean) * tick) / tick + 1e-9) * tick
            sell = np.ceil(max(ask, middle + (_HALF - lean) * tick) / tick - 1e-9) * tick
            quoted += 2
            bought, sold = quoted - 1, quoted
            engine.submit_buy_order(0, bought, buy, _SIZE, good_or_rejected, limit, False)  # noqa: FBT003
            engine.submit_sell_order(0, sold, sell, _SIZE, good_or_rejected, limit, False)  # noqa: FBT003

    def run() -> None:
        asset = (
            hft.BacktestAsset()
            .data([rows])
            .linear_asset(1.0)
            .constant_order_latency(latency_ns, latency_ns)
            .risk_adverse_queue_model()
            .no_partial_fill_exchange()
            .trading_value_fee_model(maker_rate, taker_rate)
            .tick_size(0.1)
            .lot_size(0.001)
            .roi_lb(low)
            .roi_ub(high)
            .last_trades_capacity(0)
        )
        engine = hft.ROIVectorMarketDepthBacktest([asset])
        ended = quote(engine)
        engine.close()
        if ended != _END_OF_ROWS:
            raise RuntimeError(f"hftbacktest gave up with {ended}: its figure would be none")

    return run


def _rows(hft: Any, market: BookMarket, latency_ns: int) -> Any:
    """Lay trades and depth out as it reads them, in order of time, trades first; a snapshot begins by clearing."""
    trades = _side_by_side(hft, market.trades, hft.TRADE_EVENT)
    depth = _side_by_side(hft, market.depth, hft.DEPTH_EVENT)
    flags = market.depth.column("flags") & int(DepthFlag.SNAPSHOT)
    ids = market.depth.column("id")
    begins = np.flatnonzero((flags != 0) & (np.diff(ids, prepend=ids[0] - 1) != 0))
    clears = np.zeros(begins.size, dtype=hft.event_dtype)
    clears["ev"] = hft.DEPTH_CLEAR_EVENT | hft.EXCH_EVENT | hft.LOCAL_EVENT
    clears["exch_ts"] = market.depth.time_ns[begins]
    depth = np.insert(depth, begins, clears)
    rows = np.concatenate([trades, depth])
    rows = rows[np.argsort(rows["exch_ts"], kind="stable")]
    rows["local_ts"] = rows["exch_ts"] + latency_ns
    return rows


def _side_by_side(hft: Any, rows: Ticks, kind: int) -> Any:
    events = np.zeros(rows.size, dtype=hft.event_dtype)
    side = np.where(rows.column("side") == BUY, hft.BUY_EVENT, hft.SELL_EVENT).astype(np.uint64)
    events["ev"] = np.uint64(kind | hft.EXCH_EVENT | hft.LOCAL_EVENT) | side
    events["exch_ts"] = rows.time_ns
    events["px"] = rows.column("price") / 10.0 ** (rows.price_decimals or 0)
    events["qty"] = rows.column("size") / 10.0 ** (rows.size_decimals or 0)
    return events
