"""A specification as records that kernels work on: its settings, and the orders of its list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from daemon.core import backtest
from daemon.engine.orders import (
    ATR,
    ATR_RISK,
    CANCEL_BOTH,
    CANCEL_NEWEST,
    CANCEL_OLDEST,
    FIXED_NOTIONAL,
    FIXED_QUANTITY,
    FRACTION,
    FRACTIONAL,
    KELLY,
    LOG_POWER,
    NEVER_NS,
    ORDER,
    POWER,
    PRICE,
    RISK_AVERSE,
    SETTINGS,
    TRADE_ONLY,
    VOLATILITY,
    Force,
    Kind,
    Records,
)

if TYPE_CHECKING:
    from daemon.core.backtest import BacktestSpec, Distance, Exits

_UNITS: Final = {"fraction": FRACTION, "price": PRICE, "atr": ATR}
_MODELS: Final = {"risk_averse": RISK_AVERSE, "power": POWER, "log": LOG_POWER, "trade_only": TRADE_ONLY}
_SELF_TRADES: Final = {"cancel_newest": CANCEL_NEWEST, "cancel_oldest": CANCEL_OLDEST, "cancel_both": CANCEL_BOTH}
_KINDS: Final = {
    "market": Kind.MARKET,
    "limit": Kind.LIMIT,
    "take_profit": Kind.LIMIT,
    "stop": Kind.STOP,
    "stop_limit": Kind.STOP_LIMIT,
    "trailing_stop": Kind.TRAILING,
}
_FORCES: Final = {"GTC": Force.GTC, "GTD": Force.GTC, "IOC": Force.IOC, "FOK": Force.FOK}
_REASONS: Final = {
    "take_profit": backtest.Reason.TAKE_PROFIT,
    "stop": backtest.Reason.STOP_LOSS,
    "stop_limit": backtest.Reason.STOP_LOSS,
    "trailing_stop": backtest.Reason.TRAILING_STOP,
}
_NO_LIMIT: Final = 1 << 40


def settings_of(spec: BacktestSpec, year_days: int, *, optimistic: bool) -> Records:
    """Return a specification's settings as a record, shape (1,)."""
    record = np.zeros(1, dtype=SETTINGS)
    account, entry, width_ns = spec.account, spec.entry_order, spec.timeframe.ns
    markets = len(spec.markets)
    on_ticks = spec.fills != "bars"
    delay_ns = spec.latency.feed_ns + spec.latency.order_ns
    listed_ns = spec.latency.order_ns
    if not on_ticks:
        # Bars cannot tell a part of themselves: only whole ones delay.
        delay_ns, listed_ns = delay_ns // width_ns * width_ns, listed_ns // width_ns * width_ns
    values: dict[str, Any] = {
        "leverage": account.leverage,
        "maintenance": account.maintenance_margin,
        "liquidation_rate": account.liquidation_rate,
        "max_positions": account.max_positions or _NO_LIMIT,
        "max_notional": account.max_position_notional or np.inf,
        "shares": min(markets, account.max_positions or markets),
        "year_root": np.sqrt(float(year_days)),
        "latency_ns": delay_ns,
        "order_latency_ns": listed_ns,
        "is_optimistic": optimistic,
        "needs_through": spec.limit_fills == "through",
        "on_ticks": on_ticks,
        "on_book": spec.fills == "book",
        "queue_model": _MODELS[spec.queue.model],
        "queue_exponent": spec.queue.exponent,
        "self_trade": _SELF_TRADES[spec.queue.self_trade],
        "reducing_keeps": spec.queue.replace == "reducing_keeps",
        "entry_kind": _KINDS[entry.type],
        "entry_force": _FORCES[entry.time_in_force],
        "entry_post_only": entry.post_only,
        "entry_good_ns": entry.good_for_bars * width_ns if entry.good_for_bars else 0,
        "timeout_bars": spec.exits.timeout_bars or _NO_LIMIT,
        "is_averaging": isinstance(spec.program, backtest.Averaging),
        "initial": account.initial_capital,
    }
    trailing = spec.exits.trailing_stop
    distances = {
        "entry_offset": entry.offset,
        "entry_limit_offset": entry.limit_offset,
        "target": spec.exits.take_profit,
        "loss": spec.exits.stop_loss,
        "follow": trailing.distance if trailing else None,
        "follow_from": trailing.activation if trailing else None,
    }
    for name, distance in distances.items():
        if distance is not None:
            values[name], values[f"{name}_unit"] = distance.value, _UNITS[distance.unit]
    values |= _sizing(spec)
    for name, value in values.items():
        record[name] = value
    return record


def _sizing(spec: BacktestSpec) -> dict[str, float]:
    match spec.sizing:
        case backtest.Fixed(quantity=quantity, notional=notional):
            if quantity is not None:
                return {"sizing": FIXED_QUANTITY, "size_first": quantity}
            return {"sizing": FIXED_NOTIONAL, "size_first": notional or 0.0}
        case backtest.FixedFractional(fraction=fraction):
            # A program that buys in parts divides its share.
            parts = spec.program.purchases if isinstance(spec.program, backtest.Averaging) else 1
            return {"sizing": FRACTIONAL, "size_first": fraction / parts}
        case backtest.Kelly() as kelly:
            return {
                "sizing": KELLY,
                "size_first": kelly.fraction,
                "size_second": kelly.cap,
                "size_third": kelly.start,
                "size_least": kelly.least_trades,
            }
        case backtest.VolatilityTarget(target=target, cap=cap):
            return {"sizing": VOLATILITY, "size_first": target, "size_second": cap}
        case backtest.AtrRisk(risk=risk, multiple=multiple):
            return {"sizing": ATR_RISK, "size_first": risk, "size_second": multiple}


def listed_orders(spec: BacktestSpec) -> Records:
    """Return the orders of a list as records, in order of time; none for other programs.

    ValueError for a distance in ATR: an order of the list knows no bar.
    """
    if not isinstance(spec.program, backtest.OrderList):
        return np.zeros(0, dtype=ORDER)
    listed = sorted(spec.program.orders, key=lambda each: each.time_ns)
    records = np.zeros(len(listed), dtype=ORDER)
    for record, order in zip(records, listed, strict=True):
        _refuse_atr(order)
        closes = order.quantity is None and order.notional is None
        reduces = closes or order.reduce_only or order.type == "take_profit"
        values: dict[str, Any] = {
            "symbol": order.symbol,
            "kind": _KINDS[order.type],
            "side": 1 if order.side == "buy" else -1,
            "force": _FORCES[order.time_in_force],
            "reason": _REASONS.get(order.type, backtest.Reason.MANUAL) if reduces else backtest.Reason.ENTRY,
            "quantity": order.quantity or 0.0,
            "notional": order.notional or 0.0,
            "price": order.price or 0.0,
            "stop": order.stop_price or 0.0,
            "sent_ns": order.time_ns,
            "expires_ns": order.expires_ns or NEVER_NS,
            "oco": order.oco,
            "reduces": reduces,
            "closes": closes,
            "post_only": order.post_only,
        }
        if order.trail is not None:
            values |= _distance_of("trail", order.trail.distance, np.nan)
            if order.trail.activation is not None:
                if order.trail.activation.unit != "price":
                    raise ValueError("the activation of a listed trailing stop is a price")
                values["activation"] = order.trail.activation.value
        values |= exit_distances(order.exits)
        for name, value in values.items():
            record[name] = value
    return records


def _refuse_atr(order: backtest.ListedOrder) -> None:
    trailing = [each for each in (order.trail, order.exits.trailing_stop) if each is not None]
    distances = [order.exits.take_profit, order.exits.stop_loss]
    distances += [distance for each in trailing for distance in (each.distance, each.activation)]
    if any(distance is not None and distance.unit == "atr" for distance in distances):
        raise ValueError("a distance of a listed order is in ATR, which no bar of its own defines")


def exit_distances(exits: Exits, atr: float = np.nan) -> dict[str, float]:
    """Return an order's exits as fields of ORDER. atr: what distances in ATR are times of; they are off without one."""
    trailing = exits.trailing_stop
    distances = {
        "target": exits.take_profit,
        "loss": exits.stop_loss,
        "follow": trailing.distance if trailing else None,
        "follow_from": trailing.activation if trailing else None,
    }
    values: dict[str, float] = {}
    for name, distance in distances.items():
        if distance is not None:
            values |= _distance_of(name, distance, atr)
    return values


def _distance_of(name: str, distance: Distance, atr: float) -> dict[str, float]:
    value = distance.value
    if distance.unit == "atr":
        value = value * atr if atr > 0 else 0.0
    return {name: value, f"{name}_is_fraction": distance.unit == "fraction"}
