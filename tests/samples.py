"""A made-up backtest whose parts agree with one another, for tests of whatever shows a result."""

from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from verdicts import sample_validation

from daemon.core.market import NS_PER_HOUR, Bars, Timeframe
from daemon.engine import curves, metrics
from daemon.engine.synthetic import MarketModel, simulate
from daemon.research.backtest_result import (
    BacktestResult,
    Band,
    BuyAndHold,
    CostReport,
    DrawdownPoint,
    EquityPoint,
    Event,
    Execution,
    Extreme,
    GapReport,
    Metrics,
    MonthlyReturn,
    RiskMetrics,
    SeriesUsed,
    Trade,
    TradeStats,
)

INITIAL, FEE_RATE, SLIPPAGE_RATE, HELD_BARS = 10_000.0, 0.001, 0.0002, 6
START_NS = 1_641_945_600 * 10**9  # 2022-01-12
NS_PER_MS = 1_000_000
REASONS = ("take_profit", "stop_loss", "trailing_stop", "signal", "timeout")


class Sample(NamedTuple):
    """What a report is made from: equity has the columns of the store, candles are by the trades' symbols."""

    result: BacktestResult
    equity: dict[str, NDArray[Any]]
    candles: dict[str, Bars]


def sample_backtest(
    *,
    symbols: tuple[str, ...] = ("local:BTC/USDT", "local:ETH/USDT"),
    bars: int = 1_200,
    trades: int = 40,
    **fields: Any,
) -> Sample:
    """Trade each symbol's share long and short in turn at even distances; fields replace the result's."""
    candles = {symbol: _market(seed, bars) for seed, symbol in enumerate(symbols)}
    made = [_trade(number, symbols[number % len(symbols)], candles, bars, trades) for number in range(trades)]
    made = [msgspec.structs.replace(trade, id=number) for number, trade in enumerate(sorted(made, key=_exit_time))]
    equity = _equity(next(iter(candles.values())).start_ns + NS_PER_HOUR, made)
    return Sample(msgspec.structs.replace(_result(made, equity, candles), **fields), equity, candles)


def sample_result(**fields: Any) -> BacktestResult:
    """Return the result alone."""
    return sample_backtest(**fields).result


def _market(seed: int, bars: int) -> Bars:
    return simulate(MarketModel(), seed=seed, start_ns=START_NS, bars=bars, timeframe=Timeframe.HOUR_1)


def _exit_time(trade: Trade) -> int:
    return trade.exit_time


def _trade(number: int, symbol: str, candles: dict[str, Bars], bars: int, trades: int) -> Trade:
    market = candles[symbol]
    entry = 1 + number * (bars - HELD_BARS - 2) // max(trades, 1)
    out = entry + HELD_BARS
    sign = 1 if number % 3 else -1
    entry_price, exit_price = float(market.open[entry]), float(market.open[out])
    quantity = INITIAL / len(candles) / entry_price
    low, high = float(market.low[entry:out].min()), float(market.high[entry:out].max())
    worst, best = (low, high) if sign > 0 else (high, low)
    costs = [quantity * price * rate for price in (entry_price, exit_price) for rate in (SLIPPAGE_RATE, FEE_RATE)]
    pnl = sign * quantity * (exit_price - entry_price) - sum(costs)
    is_last = number == trades - 1
    return Trade(
        id=number,
        symbol=symbol,
        side="long" if sign > 0 else "short",
        entry_time=int(market.start_ns[entry]) // NS_PER_MS,
        entry_price=entry_price,
        entry_slippage=costs[0],
        entry_fees=costs[1],
        exit_time=int(market.start_ns[out]) // NS_PER_MS,
        exit_price=exit_price,
        exit_slippage=costs[2],
        exit_fees=costs[3],
        exit_reason="manual" if is_last else REASONS[number % len(REASONS)],
        exit_note="end of data" if is_last else None,
        quantity=quantity,
        pnl=pnl,
        pnl_percent=100 * pnl / (quantity * entry_price),
        hold_time=HELD_BARS * NS_PER_HOUR // NS_PER_MS,
        mae_percent=max(100 * sign * (entry_price - worst) / entry_price, 0.0),
        mfe_percent=max(100 * sign * (best - entry_price) / entry_price, 0.0),
        crossed_gap=number == 1,
    )


def _equity(time_ns: NDArray[Any], trades: list[Trade]) -> dict[str, NDArray[Any]]:
    """Book each trade's pnl at its exit."""
    exits = np.array([trade.exit_time for trade in trades], dtype=np.int64) * NS_PER_MS
    booked = np.concatenate(([0.0], np.cumsum([trade.pnl for trade in trades])))
    equity = INITIAL + booked[np.searchsorted(exits, time_ns, side="right")]
    nothing = np.zeros(time_ns.size)
    return {
        "time_ns": time_ns,
        "equity": equity,
        "cash": equity.copy(),
        "positions_value": nothing,
        "unrealized_pnl": nothing.copy(),
    }


def _result(trades: list[Trade], equity: dict[str, NDArray[Any]], candles: dict[str, Bars]) -> BacktestResult:
    time_ns, value = equity["time_ns"], equity["equity"]
    below = curves.drawdowns(time_ns, value, INITIAL, START_NS)
    returns = curves.daily_returns(time_ns, value, INITIAL, START_NS).returns
    pnl = np.array([trade.pnl for trade in trades])
    hold_ns = np.array([trade.hold_time for trade in trades], dtype=np.int64) * NS_PER_MS
    shown = metrics.return_figures(
        returns,
        365,
        initial=INITIAL,
        final=float(value[-1]),
        max_drawdown=below.max_drawdown,
        max_drawdown_percent=below.max_drawdown_percent,
    )
    risk = metrics.risk_figures(returns, None, 365, net_profit=shown.total_return, max_drawdown=shown.max_drawdown)
    own = Extreme(
        total_return_percent=shown.total_return_percent,
        max_drawdown_percent=shown.max_drawdown_percent,
        sharpe_ratio=shown.sharpe_ratio,
        total_trades=len(trades),
        final_equity=float(value[-1]),
    )
    better = msgspec.structs.replace(own, total_return_percent=own.total_return_percent + 0.4)
    return BacktestResult(
        id="bt_0123456789",
        name="Momentum breakout",
        status="completed",
        fingerprint="00112233445566778899aabbccddeeff",
        engine_version="0.1.0+1",
        config={"strategy": {"name": "Momentum breakout"}, "backtest": {"timeframe": "1h", "initialCapital": INITIAL}},
        resolved={"name": "Momentum breakout", "timeframe": "1Hour", "account": {"initial_capital": INITIAL}},
        readings=["`rsi` is rsi_14."],
        assumptions=["fills on 1Hour bars: signals at a close fill at the next open"],
        notes=["local:BTC/USDT: 1 known holes in the range"],
        metrics=Metrics(**shown._asdict(), **metrics.trade_ratios(pnl)._asdict()),
        trade_stats=TradeStats(**metrics.trade_figures(pnl, hold_ns)._asdict()),
        risk_metrics=RiskMetrics(**risk._asdict()),
        equity_curve=[_equity_point(equity, row) for row in range(0, time_ns.size, 10)],
        drawdown_curve=[_drawdown_point(time_ns, below, row) for row in range(0, time_ns.size, 10)],
        trades=trades,
        events=[
            Event(timestamp=START_NS // NS_PER_MS, type="order_ended", symbol=next(iter(candles)), message="no money")
        ],
        execution=Execution(
            started_at=1_700_000_000_000,
            completed_at=1_700_000_001_500,
            duration=1_500,
            events_processed=2 * time_ns.size * len(candles),
            data_points=time_ns.size * len(candles),
        ),
        band=Band(pessimistic=own, optimistic=better, width_percent=0.4, is_wide=False, advice="bars suffice"),
        costs=_costs(trades, float(value[-1]) - INITIAL),
        buy_and_hold=BuyAndHold(total_return_percent=-3.25, max_drawdown_percent=12.5, sharpe_ratio=None),
        exposure_percent=20.0,
        monthly_returns=[
            MonthlyReturn(**month._asdict()) for month in curves.monthly_returns(time_ns, value, INITIAL, START_NS)
        ],
        gaps=GapReport(known_holes=1, missing_intervals=3, crossed_with_position=1, pnl=-2.5, pnl_percent_of_net=4.0),
        data=[_used(symbol, bars) for symbol, bars in candles.items()],
        definitions=metrics.DEFINITIONS,
        **sample_validation(),
    )


def _equity_point(equity: dict[str, NDArray[Any]], row: int) -> EquityPoint:
    columns = {name: float(column[row]) for name, column in equity.items() if name != "time_ns"}
    return EquityPoint(timestamp=int(equity["time_ns"][row]) // NS_PER_MS, **columns)


def _drawdown_point(time_ns: NDArray[Any], below: curves.Drawdowns, row: int) -> DrawdownPoint:
    return DrawdownPoint(
        timestamp=int(time_ns[row]) // NS_PER_MS,
        drawdown=float(below.drawdown[row]),
        drawdown_percent=float(below.drawdown_percent[row]),
        peak=float(below.peak[row]),
        duration=int(below.duration_ns[row]) // NS_PER_MS,
    )


def _costs(trades: list[Trade], net: float) -> CostReport:
    fees = sum(trade.entry_fees + trade.exit_fees for trade in trades)
    slippage = sum(trade.entry_slippage + trade.exit_slippage for trade in trades)
    notional = sum(trade.quantity * (trade.entry_price + trade.exit_price) for trade in trades)
    gross = net + fees + slippage
    return CostReport(
        gross_pnl=gross,
        fees=fees,
        slippage=slippage,
        funding=0.0,
        net_pnl=net,
        traded_notional=notional,
        turnover=notional / INITIAL,
        break_even_cost_percent=metrics.break_even_cost_percent(gross, notional),
        paid_cost_percent=metrics.paid_cost_percent(fees, slippage, notional),
        maker_fills=0,
        taker_fills=2 * len(trades),
        partial_fills=0,
        rejected_orders=1,
        model={"takerRate": FEE_RATE, "slippage": {"model": "fixed_bps", "bps": 2.0}},
    )


def _used(symbol: str, bars: Bars) -> SeriesUsed:
    return SeriesUsed(
        symbol=symbol,
        source="1Hour",
        rows=bars.size,
        first=int(bars.start_ns[0]) // NS_PER_MS,
        last=int(bars.start_ns[-1]) // NS_PER_MS,
        digest="fedcba9876543210",
        volume_unit="base",
    )
