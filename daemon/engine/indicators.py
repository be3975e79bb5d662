"""Indicator columns of one series, computed when first asked for and once.

Every column is causal: row i depends on rows 0..i alone. Periods are in bars. Warm-up rows are NaN (0 in the candle
patterns, which have none). TA-Lib defines the classic indicators, with unstable period 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import talib

from daemon.core.market import Bars, Float64s
from daemon.engine.columns import ALIASES, BAR_COLUMNS, BAR_INDEX, GROUP_OF, GROUPS
from daemon.engine.rolling import rolling_max, rolling_min, running_mean

if TYPE_CHECKING:
    from collections.abc import Callable

# TA-Lib's number of the exponential kind of moving average.
_EMA = 1

Column: TypeAlias = np.ndarray[tuple[int], Any]
"""(n,) float64; candle patterns stay int32 until a block converts them."""


class IndicatorColumns:
    """The columns of one series by name: bars' own, indicators, and aliases."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self._columns: dict[str, Column] = {name: getattr(bars, name) for name in BAR_COLUMNS}

    def __getitem__(self, name: str) -> Column:
        """Return a column; KeyError for a name outside the catalogue."""
        name = ALIASES.get(name, name)
        if name not in self._columns:
            if name == BAR_INDEX:
                self._columns[name] = np.arange(self.bars.size, dtype=np.float64)
            else:
                group = GROUP_OF[name]
                self._columns.update(zip(GROUPS[group], _COMPUTE[group](self), strict=True))
        return self._columns[name]

    def drop(self, name: str) -> None:
        """Forget a column to bound memory; asked for again, it is computed again."""
        self._columns.pop(name, None)


_Compute: TypeAlias = "Callable[[IndicatorColumns], tuple[Column, ...]]"


def _of(names: str, function: Callable[..., Any], **parameters: float) -> _Compute:
    """Bind a TA-Lib function to the columns it reads, given as a space-separated list."""

    def compute(columns: IndicatorColumns) -> tuple[Column, ...]:
        result = function(*(columns[name] for name in names.split()), **parameters)
        return result if isinstance(result, tuple) else (result,)

    return compute


def _bb_width(columns: IndicatorColumns) -> tuple[Column, ...]:
    width = columns["bb_upper"] - columns["bb_lower"]
    return (_finite_ratio(width, columns["bb_middle"]),)


def _bb_pct(columns: IndicatorColumns) -> tuple[Column, ...]:
    above_lower = columns["close"] - columns["bb_lower"]
    return (_finite_ratio(above_lower, columns["bb_upper"] - columns["bb_lower"]),)


def _finite_ratio(numerator: Column, denominator: Column) -> Float64s:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Float64s = numerator / denominator
    ratio[np.isinf(ratio)] = np.nan
    return ratio


def _donchian(columns: IndicatorColumns, window: int) -> tuple[Column, Column]:
    return rolling_max(columns["high"], window), rolling_min(columns["low"], window)


def _donchian_20(columns: IndicatorColumns) -> tuple[Column, ...]:
    high, low = _donchian(columns, 20)
    return high, low, (high + low) / 2


def _pivots(columns: IndicatorColumns) -> tuple[Column, ...]:
    high, low, close = columns["high"], columns["low"], columns["close"]
    pivot = (high + low + close) / 3
    return pivot, 2 * pivot - low, pivot + (high - low), 2 * pivot - high, pivot - (high - low)


def _ichimoku(columns: IndicatorColumns) -> tuple[Column, ...]:
    """Without displacement: each line stands at the bar it was computed from."""

    def middle(window: int) -> Column:
        high, low = _donchian(columns, window)
        return (high + low) / 2

    tenkan, kijun = middle(9), middle(26)
    return tenkan, kijun, (tenkan + kijun) / 2, middle(52), columns["close"].copy()


def _vwap(columns: IndicatorColumns) -> tuple[Column, ...]:
    """Cumulative from the first row; NaN until volume has been traded."""
    volume = columns["volume"]
    typical = (columns["high"] + columns["low"] + columns["close"]) / 3
    return (_finite_ratio(np.cumsum(typical * volume), np.cumsum(volume)),)


def _typical_price_sma(columns: IndicatorColumns) -> tuple[Column, ...]:
    return (running_mean((columns["high"] + columns["low"] + columns["close"]) / 3, 20),)


_HLC = "high low close"
_OHLC = "open high low close"
_COMPUTE: dict[str, _Compute] = {
    "rsi_14": _of("close", talib.RSI, timeperiod=14),
    "rsi_2": _of("close", talib.RSI, timeperiod=2),
    "macd": _of("close", talib.MACD, fastperiod=12, slowperiod=26, signalperiod=9),
    "stoch": _of(_HLC, talib.STOCH, fastk_period=14, slowk_period=3, slowd_period=3),
    "adx_14": _of(_HLC, talib.ADX, timeperiod=14),
    "plus_di_14": _of(_HLC, talib.PLUS_DI, timeperiod=14),
    "minus_di_14": _of(_HLC, talib.MINUS_DI, timeperiod=14),
    "cci_20": _of(_HLC, talib.CCI, timeperiod=20),
    "willr_14": _of(_HLC, talib.WILLR, timeperiod=14),
    "mfi_14": _of(_HLC + " volume", talib.MFI, timeperiod=14),
    "sma_20": _of("close", talib.SMA, timeperiod=20),
    "sma_50": _of("close", talib.SMA, timeperiod=50),
    "sma_200": _of("close", talib.SMA, timeperiod=200),
    "ema_20": _of("close", talib.EMA, timeperiod=20),
    "ema_50": _of("close", talib.EMA, timeperiod=50),
    "ema_200": _of("close", talib.EMA, timeperiod=200),
    "psar": _of("high low", talib.SAR, acceleration=0.02, maximum=0.2),
    "bbands": _of("close", talib.BBANDS, timeperiod=20, nbdevup=2.0, nbdevdn=2.0),
    "bb_width": _bb_width,
    "bb_pct": _bb_pct,
    "atr_14": _of(_HLC, talib.ATR, timeperiod=14),
    "obv": _of("close volume", talib.OBV),
    "adosc": _of(_HLC + " volume", talib.ADOSC, fastperiod=3, slowperiod=10),
    "aroon": _of("high low", talib.AROON, timeperiod=25),
    "apo": _of("close", talib.APO, fastperiod=12, slowperiod=26, matype=_EMA),
    "ppo": _of("close", talib.PPO, fastperiod=12, slowperiod=26, matype=_EMA),
    "ppo_signal": _of("ppo", talib.EMA, timeperiod=9),
    "trix_15": _of("close", talib.TRIX, timeperiod=15),
    "cmo_14": _of("close", talib.CMO, timeperiod=14),
    "roc_10": _of("close", talib.ROC, timeperiod=10),
    "mom_10": _of("close", talib.MOM, timeperiod=10),
    "kama_30": _of("close", talib.KAMA, timeperiod=30),
    "ht_trendline": _of("close", talib.HT_TRENDLINE),
    "linearreg_slope_20": _of("close", talib.LINEARREG_SLOPE, timeperiod=20),
    "stddev_20": _of("close", talib.STDDEV, timeperiod=20, nbdev=1.0),
    "cdl_engulfing": _of(_OHLC, talib.CDLENGULFING),
    "cdl_hammer": _of(_OHLC, talib.CDLHAMMER),
    "cdl_shooting_star": _of(_OHLC, talib.CDLSHOOTINGSTAR),
    "cdl_morning_star": _of(_OHLC, talib.CDLMORNINGSTAR),
    "cdl_evening_star": _of(_OHLC, talib.CDLEVENINGSTAR),
    "cdl_doji": _of(_OHLC, talib.CDLDOJI),
    "cdl_3white_soldiers": _of(_OHLC, talib.CDL3WHITESOLDIERS),
    "cdl_3black_crows": _of(_OHLC, talib.CDL3BLACKCROWS),
    "cdl_harami": _of(_OHLC, talib.CDLHARAMI),
    "cdl_marubozu": _of(_OHLC, talib.CDLMARUBOZU),
    "donchian_20": _donchian_20,
    "donchian_10": lambda columns: _donchian(columns, 10),
    "atr_sma_50": lambda columns: (running_mean(columns["atr_14"], 50),),
    "obv_sma_20": lambda columns: (running_mean(columns["obv"], 20),),
    "obv_channel_20": lambda columns: (rolling_max(columns["obv"], 20), rolling_min(columns["obv"], 20)),
    "typical_price_sma_20": _typical_price_sma,
    "volume_sma_20": lambda columns: (running_mean(columns["volume"], 20),),
    "vwap": _vwap,
    "bar_range": lambda columns: (columns["high"] - columns["low"],),
    "pivots": _pivots,
    "ichimoku": _ichimoku,
}

TALIB_GROUPS = tuple(group for group, compute in _COMPUTE.items() if compute.__name__ == "compute")
"""The groups that TA-Lib alone computes."""
