"""Runs of the engine to the result that users read."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

import daemon
from daemon.core.backtest import EXIT_WORDS, Reason
from daemon.engine import curves, metrics
from daemon.engine.orders import Status
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
from daemon.research.backtest_words import assumptions, notes_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.backtest import BacktestSpec
    from daemon.core.market import Float64s, Int64s
    from daemon.engine.simulate import Outcome
    from daemon.engine.trades import Trades
    from daemon.research.backtest_finding import Finding
    from daemon.research.backtest_market import Loaded

ENGINE_REVISION: Final = 2
"""Goes up with every change that may change a result; part of the fingerprint."""

_ENGINE: Final = f"{daemon.__version__}+{ENGINE_REVISION}"

MAX_TRADES: Final = 10_000
"""Trades in the result object; the store has all."""

_MAX_EVENTS: Final = 1_000
_SCREEN_ROWS: Final = 2_000
_WIDE_PERCENT: Final = 1.0
_MS: Final = 1_000_000
_REFUSALS: Final = {
    Status.TOO_SMALL: "less than the least notional or one lot",
    Status.NO_MONEY: "no money left to buy or margin with",
    Status.WOULD_TAKE: "post-only, and would have taken",
    Status.NOT_FILLED: "immediate or cancel, and could not be filled",
    Status.EXPIRED: "its time was over",
    Status.TOO_MANY: "too many orders wait",
    Status.NOTHING_HELD: "it reduces, and there was no position to reduce",
    Status.SELF_TRADE: "it would have traded with another order of the run",
    Status.INVALID: "no venue takes it: its side, quantity or price is none",
}


class _Curve(NamedTuple):
    """An equity curve and what it shows."""

    time_ns: Int64s
    equity: Float64s
    returns: Float64s
    drawdowns: curves.Drawdowns


def conclude(finding: Finding, config: dict[str, Any], started_ms: int, completed_ms: int) -> BacktestResult:
    """Put a finished backtest into the result object. config: what the user sent."""
    spec, loaded, main = finding.spec, finding.loaded, finding.runs.main
    initial, periods = spec.account.initial_capital, finding.year_days
    start_ns = min(int(each.bars.start_ns[0]) for each in loaded)
    curve = _curve(main.samples.time_ns, main.samples.equity, initial, start_ns)
    held = _curve(main.samples.time_ns, finding.held, initial, start_ns)
    figures = _metrics(curve, finding.trades, initial, periods)
    result = BacktestResult(
        id=finding.backtest_id,
        name=spec.name,
        status="completed",
        fingerprint="",
        engine_version=_ENGINE,
        config=config,
        resolved=_resolved(spec),
        readings=list(spec.readings),
        assumptions=assumptions(finding),
        notes=notes_on(finding),
        metrics=figures,
        trade_stats=_stats(finding.trades),
        risk_metrics=RiskMetrics(
            **metrics.risk_figures(
                curve.returns,
                held.returns,
                periods,
                net_profit=figures.total_return,
                max_drawdown=figures.max_drawdown,
            )._asdict()
        ),
        equity_curve=_equity_points(main),
        drawdown_curve=_drawdown_points(curve),
        trades=_trades(finding),
        events=_events(finding),
        execution=Execution(
            started_at=started_ms,
            completed_at=completed_ms,
            duration=completed_ms - started_ms,
            events_processed=main.events + (finding.runs.optimistic.events if finding.runs.optimistic else 0),
            data_points=main.events,
        ),
        band=_band(finding, figures, start_ns),
        costs=_costs(finding, curve.equity),
        buy_and_hold=BuyAndHold(
            total_return_percent=100 * (float(held.equity[-1]) - initial) / initial,
            max_drawdown_percent=held.drawdowns.max_drawdown_percent,
            sharpe_ratio=metrics.sharpe_ratio(held.returns, periods),
        ),
        exposure_percent=_exposure(finding, start_ns),
        monthly_returns=[
            MonthlyReturn(month=month, return_percent=percent)
            for month, percent in curves.monthly_returns(curve.time_ns, curve.equity, initial, start_ns)
        ],
        gaps=_gap_report(finding, figures.total_return),
        data=[used for each in loaded for used in _series_used(spec, each)],
        definitions=metrics.DEFINITIONS,
    )
    return msgspec.structs.replace(result, fingerprint=_fingerprint(finding, result))


# Figures.


def _curve(time_ns: Int64s, equity: Float64s, initial: float, start_ns: int) -> _Curve:
    daily = curves.daily_returns(time_ns, equity, initial, start_ns)
    return _Curve(time_ns, equity, daily.returns, curves.drawdowns(time_ns, equity, initial, start_ns))


def _metrics(curve: _Curve, trades: Trades, initial: float, periods: int) -> Metrics:
    figures = metrics.return_figures(
        curve.returns,
        periods,
        initial=initial,
        final=float(curve.equity[-1]),
        max_drawdown=curve.drawdowns.max_drawdown,
        max_drawdown_percent=curve.drawdowns.max_drawdown_percent,
    )
    return Metrics(**figures._asdict(), **metrics.trade_ratios(trades.pnl)._asdict())


def _stats(trades: Trades) -> TradeStats:
    return TradeStats(**metrics.trade_figures(trades.pnl, trades.exit_ns - trades.entry_ns)._asdict())


def buy_and_hold(spec: BacktestSpec, loaded: list[Loaded], time_ns: Int64s) -> Float64s:
    """Value each symbol's share, bought at its first open and sold at its last close, at the samples of a run.

    time_ns: (n,) int64. Returns (n,) float64, quote currency; the run's taker fees are paid on both sides.
    """
    share = spec.account.initial_capital / len(loaded)
    rate = spec.costs.taker_rate * spec.costs.scale
    equity = np.zeros(time_ns.size)
    for each in loaded:
        quantity = share / (float(each.bars.open[0]) * (1 + rate))
        close_ns, close = each.simulated.close_ns, each.bars.close
        if np.array_equal(close_ns, time_ns):
            worth = quantity * close
        else:
            at = np.searchsorted(close_ns, time_ns, side="right") - 1
            worth = np.where(at >= 0, quantity * close[at], share)
        worth[-1] *= 1 - rate
        equity += worth
    return equity


def _band(finding: Finding, figures: Metrics, start_ns: int) -> Band | None:
    from daemon.engine.orders import Reference
    from daemon.engine.trades import trades_of

    other = finding.runs.optimistic
    if other is None:
        return None
    spec = finding.spec
    initial = spec.account.initial_capital
    if other.log.size == finding.runs.main.log.size and other.log.tobytes() == finding.runs.main.log.tobytes():
        best, best_trades = figures, finding.trades
    else:
        curve = _curve(other.samples.time_ns, other.samples.equity, initial, start_ns)
        best_trades, _ = trades_of(other.log, len(finding.loaded), int(Reference.CLOSE))
        best = _metrics(curve, best_trades, initial, finding.year_days)
    width = best.total_return_percent - figures.total_return_percent
    is_wide = abs(width) > _WIDE_PERCENT
    if is_wide:
        advice = (
            f"get ticks: what happened inside of {finding.spec.timeframe} bars decides over {abs(width):.2f} % of the "
            'capital; with trades stored, "fills": "ticks" narrows it down'
        )
    else:
        advice = "bars suffice: the order of highs and lows inside of them hardly matters here"
    return Band(
        pessimistic=_extreme(figures, finding.trades, initial),
        optimistic=_extreme(best, best_trades, initial),
        width_percent=width,
        is_wide=is_wide,
        advice=advice,
    )


def _extreme(figures: Metrics, trades: Trades, initial: float) -> Extreme:
    return Extreme(
        total_return_percent=figures.total_return_percent,
        max_drawdown_percent=figures.max_drawdown_percent,
        sharpe_ratio=figures.sharpe_ratio,
        total_trades=trades.size,
        final_equity=initial + figures.total_return,
    )


def _costs(finding: Finding, equity: Float64s) -> CostReport:
    log = finding.runs.main.log
    fills = log[log["status"] == 0]
    fees, slippage = _sum(fills["fee"]), _sum(fills["spread"] + fills["impact"])
    notional = _sum(fills["quantity"] * fills["price"])
    net = float(equity[-1]) - finding.spec.account.initial_capital
    funding = _sum(finding.trades.funding)
    gross = net + fees + slippage - funding
    spec = finding.spec.costs
    return CostReport(
        gross_pnl=gross,
        fees=fees,
        slippage=slippage,
        funding=funding,
        net_pnl=net,
        traded_notional=notional,
        turnover=metrics.turnover(notional, equity),
        break_even_cost_percent=metrics.break_even_cost_percent(gross, notional, funding=funding),
        paid_cost_percent=metrics.paid_cost_percent(fees, slippage, notional),
        maker_fills=int((fills["is_maker"] == 1).sum()),
        taker_fills=int((fills["is_maker"] == 0).sum()),
        partial_fills=int((fills["remaining"] > 0).sum()),
        rejected_orders=int(log.size - fills.size),
        model={
            "makerRate": spec.maker_rate,
            "takerRate": spec.taker_rate,
            "fixedFee": spec.fixed_fee,
            "scale": spec.scale,
            "slippage": msgspec.to_builtins(spec.slippage),
            **_own_models(finding.spec),
        },
    )


def _own_models(spec: BacktestSpec) -> dict[str, Any]:
    """Return the models of symbols that have their own, by symbol; nothing where none has."""
    own = {market.instrument.key: market.slippage for market in spec.markets if market.slippage is not None}
    return {"slippageBySymbol": msgspec.to_builtins(own)} if own else {}


def _sum(values: Float64s) -> float:
    """Sum in the order of rows: the same on any machine."""
    return float(np.cumsum(values)[-1]) if values.size else 0.0


def _exposure(finding: Finding, start_ns: int) -> float:
    stop_ns = max(int(each.simulated.close_ns[-1]) for each in finding.loaded)
    trades = finding.trades
    return curves.exposure_percent(trades.entry_ns, trades.exit_ns, start_ns, stop_ns)


def _gap_report(finding: Finding, net: float) -> GapReport:
    gaps = finding.gaps
    pnl = sum(_sum(each.pnl) for each in gaps)
    return GapReport(
        known_holes=sum(len(each.holes) for each in finding.loaded),
        missing_intervals=sum(int(each.missing.sum()) for each in gaps),
        crossed_with_position=sum(int((each.quantity != 0).sum()) for each in gaps),
        pnl=pnl,
        pnl_percent_of_net=100 * pnl / abs(net) if net else None,
    )


# Rows.


def _equity_points(run: Outcome) -> list[EquityPoint]:
    samples = run.samples
    rows = curves.decimate(samples.time_ns, [samples.equity], _SCREEN_ROWS)
    columns = (samples.time_ns // _MS, samples.equity, samples.cash, samples.worth, samples.unrealised)
    return [
        EquityPoint(timestamp=at, equity=equity, cash=cash, positions_value=worth, unrealized_pnl=unrealised)
        for at, equity, cash, worth, unrealised in zip(*(column[rows].tolist() for column in columns), strict=True)
    ]


def _drawdown_points(curve: _Curve) -> list[DrawdownPoint]:
    below = curve.drawdowns
    rows = curves.decimate(curve.time_ns, [below.drawdown], _SCREEN_ROWS)
    columns = (curve.time_ns // _MS, below.drawdown, below.drawdown_percent, below.peak, below.duration_ns // _MS)
    return [
        DrawdownPoint(timestamp=at, drawdown=fall, drawdown_percent=percent, peak=peak, duration=duration)
        for at, fall, percent, peak, duration in zip(*(column[rows].tolist() for column in columns), strict=True)
    ]


def _trades(finding: Finding) -> list[Trade]:
    trades = finding.trades
    keys = [each.market.instrument.key for each in finding.loaded]
    worth = np.where(trades.worth > 0, trades.worth, 1.0)
    columns = (
        trades.symbol, trades.side, trades.entry_ns // _MS, trades.entry_price, trades.entry_slippage,
        trades.entry_fees, trades.exit_ns // _MS, trades.exit_price, trades.exit_slippage, trades.exit_fees,
        trades.reason, trades.quantity, trades.pnl, 100 * trades.pnl / worth, 100 * trades.mae, 100 * trades.mfe,
        trades.funding, finding.over, trades.is_end,
    )  # fmt: skip
    rows = zip(*(column[:MAX_TRADES].tolist() for column in columns), strict=True)
    return [
        Trade(
            id=number,
            symbol=keys[symbol],
            side="long" if side > 0 else "short",
            entry_time=entry_ms,
            entry_price=entry_price,
            entry_slippage=entry_slippage,
            entry_fees=entry_fees,
            exit_time=exit_ms,
            exit_price=exit_price,
            exit_slippage=exit_slippage,
            exit_fees=exit_fees,
            exit_reason=EXIT_WORDS.get(Reason(reason), "manual"),
            quantity=quantity,
            pnl=pnl,
            pnl_percent=percent,
            hold_time=exit_ms - entry_ms,
            mae_percent=mae,
            mfe_percent=mfe,
            funding=funding,
            crossed_gap=has_gap,
            exit_note="end of data" if is_end else None,
        )
        for number, (
            symbol, side, entry_ms, entry_price, entry_slippage, entry_fees, exit_ms, exit_price, exit_slippage,
            exit_fees, reason, quantity, pnl, percent, mae, mfe, funding, has_gap, is_end,
        ) in enumerate(rows)
    ]  # fmt: skip


def _events(finding: Finding) -> list[Event]:
    keys = [each.market.instrument.key for each in finding.loaded]
    log = finding.runs.main.log
    found = []
    for row in log[log["status"] != 0][:_MAX_EVENTS]:
        why = _REFUSALS[Status(int(row["status"]))]
        message = f"order {int(row['order_id'])} ended without being filled whole: {why}"
        found.append(_event(int(row["time_ns"]), "order_ended", keys[int(row["symbol"])], message))
    for row in log[(log["status"] == 0) & (log["reason"] == int(Reason.LIQUIDATION))][:_MAX_EVENTS]:
        message = f"{float(row['quantity']):.8g} liquidated at {float(row['price']):.8g}: the margin was used up"
        found.append(_event(int(row["time_ns"]), "liquidation", keys[int(row["symbol"])], message))
    for key, each in zip(keys, finding.gaps, strict=True):
        for place in np.flatnonzero(each.quantity != 0.0)[:_MAX_EVENTS]:
            message = (
                f"{int(each.missing[place])} bars are missing while {float(each.quantity[place]):.8g} was held; "
                f"the jump was worth {float(each.pnl[place]):.2f}"
            )
            found.append(_event(int(each.start_ns[place]), "gap_crossed", key, message))
    return sorted(found, key=lambda event: event.timestamp)[:_MAX_EVENTS]


def _event(time_ns: int, kind: str, symbol: str, message: str) -> Event:
    return Event(timestamp=time_ns // _MS, type=kind, symbol=symbol, message=message)


def _series_used(spec: BacktestSpec, each: Loaded) -> list[SeriesUsed]:
    """List what was read of a symbol: its bars, and beside them quotes and funding."""
    key, source = each.market.instrument.key, str(each.market.source)
    made = "" if source == spec.timeframe else f", as {spec.timeframe} bars"
    bars = SeriesUsed(
        symbol=key,
        source=source + made,
        rows=each.bars.size,
        warmup_rows=each.warmup,
        first=int(each.bars.start_ns[0]) // _MS,
        last=(int(each.bars.start_ns[-1]) + spec.timeframe.ns) // _MS,
        digest=each.digest,
        volume_unit=each.market.volume_unit,
    )
    others = [
        SeriesUsed(
            symbol=key,
            source=used.source,
            rows=used.rows,
            first=used.first_ns // _MS,
            last=used.last_ns // _MS,
            digest=used.digest,
        )
        for used in each.used
    ]
    return [bars, *others]


def _resolved(spec: BacktestSpec) -> dict[str, Any]:
    resolved: dict[str, Any] = msgspec.to_builtins(spec)
    del resolved["readings"]
    return resolved


def inputs_digest(spec: BacktestSpec, data: Sequence[str]) -> str:
    """Digest of what goes into a run: configuration, data, engine. The same inputs give the same run.

    data: digests of the rows that are read.
    """
    return hashlib.blake2b(_inputs(spec, data), digest_size=16).hexdigest()


def _inputs(spec: BacktestSpec, data: Sequence[str]) -> bytes:
    asked = _resolved(spec)
    for name in ("name", "validation"):  # neither changes what is traded
        del asked[name]
    return msgspec.json.encode({"config": asked, "data": list(data), "engine": _ENGINE}, order="sorted")


def _fingerprint(finding: Finding, result: BacktestResult) -> str:
    """Digest of what went in (rows, configuration, engine) and what came out (trades, equity, figures)."""
    figures = (result.metrics, result.trade_stats, result.risk_metrics)
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(_inputs(finding.spec, [each.digest for each in result.data]))
    for column in (*finding.trades, *finding.runs.main.samples):
        hasher.update(np.ascontiguousarray(column).data)
    hasher.update(msgspec.json.encode(figures))
    return hasher.hexdigest()
