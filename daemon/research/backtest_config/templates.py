"""Named strategies with parameters, each written out as the rules that a user could have written.

Stops are in ATR, so that one set of defaults suits markets and timeframes of any height and speed.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from daemon.core.backtest import Averaging, Grid

Length: TypeAlias = Annotated[int, Meta(ge=2, le=5_000)]
Level: TypeAlias = Annotated[float, Meta(gt=0, lt=100)]
Multiple: TypeAlias = Annotated[float, Meta(gt=0, le=100)]
Bars: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """What all templates of rules have. stop_atr: of the stop loss."""

    stop_atr: Multiple = 2.0

    def entries(self) -> list[dict[str, Any]]:
        """Return the long side's entry rules."""
        raise NotImplementedError

    def exits(self) -> list[dict[str, Any]]:
        """Return the exit rules beside the stop loss."""
        raise NotImplementedError

    def rules(self) -> dict[str, Any]:
        """Return the strategy as a configuration says it."""
        stop = {"type": "stop_loss", "value": {"atr": self.stop_atr}}
        return {"entryRules": self.entries(), "exitRules": [*self.exits(), stop]}


class Momentum(Template, frozen=True, kw_only=True):
    """Buy when RSI turns strong above a long average; leave when it turns weak, or behind a trailing stop."""

    rsi_period: Length = 14
    level: Level = 55.0
    exit_level: Level = 45.0
    trend_period: Length = 50
    trailing_atr: Multiple = 3.0

    def entries(self) -> list[dict[str, Any]]:
        """Return: RSI crosses above `level` while the close is above its average."""
        return [
            _rule(f"rsi_{self.rsi_period}", "crosses_above", self.level),
            _rule("close", "gt", f"ema_{self.trend_period}"),
        ]

    def exits(self) -> list[dict[str, Any]]:
        """Return: RSI crosses below `exit_level`."""
        return [_rule(f"rsi_{self.rsi_period}", "crosses_below", self.exit_level), _trailing(self.trailing_atr)]


class MeanReversion(Template, frozen=True, kw_only=True):
    """Buy far below the average, sell at the average or when patience ends."""

    period: Length = 20
    deviations: Multiple = 2.0
    timeout_bars: Bars = 50
    stop_atr: Multiple = 3.0

    def entries(self) -> list[dict[str, Any]]:
        """Return: the close crosses below the lower band."""
        band = f"sma_{self.period} - {self.deviations!r} * stddev_{self.period}"
        return [_rule("close", "crosses_below", band)]

    def exits(self) -> list[dict[str, Any]]:
        """Return: the close is back at the average."""
        return [_rule("close", "gte", f"sma_{self.period}"), {"type": "timeout", "bars": self.timeout_bars}]


class Breakout(Template, frozen=True, kw_only=True):
    """Buy above the highest high of the bars before, on volume; leave below the lowest low of fewer bars."""

    period: Length = 20
    exit_period: Length = 10
    volume_factor: Multiple = 1.5

    def entries(self) -> list[dict[str, Any]]:
        """Return: the close crosses above the channel of the bar before on `volume_factor` times the usual volume."""
        return [
            _rule("close", "crosses_above", f"shift(donchian_high_{self.period}, 1)"),
            _rule("volume", "gt", f"{self.volume_factor!r} * volume_sma_{self.period}"),
        ]

    def exits(self) -> list[dict[str, Any]]:
        """Return: the close falls below the shorter channel of the bar before."""
        return [_rule("close", "lt", f"shift(donchian_low_{self.exit_period}, 1)")]


class TrendFollowing(Template, frozen=True, kw_only=True):
    """Buy when a fast average crosses a slow one in a market that trends; leave when it crosses back."""

    fast_period: Length = 20
    slow_period: Length = 50
    adx_period: Length = 14
    least_adx: Level = 20.0
    trailing_atr: Multiple = 4.0

    def __post_init__(self) -> None:
        if self.fast_period >= self.slow_period:
            raise ValueError("fastPeriod must be below slowPeriod")

    def entries(self) -> list[dict[str, Any]]:
        """Return: the fast EMA crosses above the slow one, ADX is above `least_adx`."""
        return [
            _rule(f"ema_{self.fast_period}", "crosses_above", f"ema_{self.slow_period}"),
            _rule(f"adx_{self.adx_period}", "gt", self.least_adx),
        ]

    def exits(self) -> list[dict[str, Any]]:
        """Return: the fast EMA crosses below the slow one."""
        crossed = _rule(f"ema_{self.fast_period}", "crosses_below", f"ema_{self.slow_period}")
        return [crossed, _trailing(self.trailing_atr)]


class RsiDivergence(Template, frozen=True, kw_only=True):
    """Buy a lower low that RSI does not confirm while it is low; sell when RSI has recovered."""

    rsi_period: Length = 14
    lookback: Annotated[int, Meta(ge=1, le=1_000)] = 10
    level: Level = 40.0
    exit_level: Level = 60.0
    timeout_bars: Bars = 50

    def entries(self) -> list[dict[str, Any]]:
        """Return: the low is lower and RSI higher than `lookback` bars ago, RSI is below `level`."""
        rsi = f"rsi_{self.rsi_period}"
        divergence = {"type": "bullish_divergence", "indicator_col": rsi, "lookback": self.lookback}
        return [divergence, _rule(rsi, "lt", self.level)]

    def exits(self) -> list[dict[str, Any]]:
        """Return: RSI is above `exit_level`."""
        recovered = _rule(f"rsi_{self.rsi_period}", "gt", self.exit_level)
        return [recovered, {"type": "timeout", "bars": self.timeout_bars}]


class VwapReversion(Template, frozen=True, kw_only=True):
    """Buy far below the volume-weighted average price of the last bars, sell at it."""

    period: Length = 96
    distance_atr: Multiple = 2.0
    timeout_bars: Bars = 96
    stop_atr: Multiple = 3.0

    def entries(self) -> list[dict[str, Any]]:
        """Return: the close crosses to more than `distance_atr` ATR below the average."""
        return [_rule("close", "crosses_below", f"vwap_{self.period} - {self.distance_atr!r} * atr_14")]

    def exits(self) -> list[dict[str, Any]]:
        """Return: the close is back at the average."""
        return [_rule("close", "gte", f"vwap_{self.period}"), {"type": "timeout", "bars": self.timeout_bars}]


TEMPLATES: Final[dict[str, type[Template | Grid | Averaging]]] = {
    "momentum": Momentum,
    "mean_reversion": MeanReversion,
    "breakout": Breakout,
    "trend_following": TrendFollowing,
    "rsi_divergence": RsiDivergence,
    "vwap_reversion": VwapReversion,
    "grid": Grid,
    "dca": Averaging,
}


def _rule(indicator: str, condition: str, value: str | float) -> dict[str, Any]:
    return {"indicator": indicator, "condition": condition, "value": value}


def _trailing(distance_atr: float) -> dict[str, Any]:
    return {"type": "trailing_stop", "distance": {"atr": distance_atr}}
