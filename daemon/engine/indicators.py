"""Indicator columns of one series, computed when first asked for and once.

Every column is causal: row i depends on rows 0..i alone. Periods are in bars. Warm-up rows are NaN (0 in the candle
patterns, which have none). TA-Lib defines the classic indicators, with unstable period 0.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import talib

from daemon.core.market import NS_PER_DAY, Bars, Float64s
from daemon.engine.columns import BAR_COLUMNS, BAR_INDEX, GROUP_OF, GROUPS, canonical
from daemon.engine.families import FAMILIES, Member, member, spell
from daemon.engine.rolling import rolling_max, rolling_min, running_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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
        if name in self._columns:
            return self._columns[name]
        known = canonical(name)
        if known is None:
            raise KeyError(name)
        if known not in self._columns:
            self._compute(known)
        return self._columns[known]

    def _compute(self, name: str) -> None:
        if name == BAR_INDEX:
            self._columns[name] = np.arange(self.bars.size, dtype=np.float64)
        elif (found := member(name)) is not None:
            names = (spell(stem, found.lengths, found.deviations) for stem in FAMILIES[found.family].stems)
            self._keep(names, _FAMILIES[found.family](self, found))
        else:
            group = GROUP_OF[name]
            self._keep(GROUPS[group], _GROUPS[group](self))

    def _keep(self, names: Iterable[str], computed: tuple[Column, ...]) -> None:
        for name, column in zip(names, computed, strict=True):
            self._columns.setdefault(name, column)

    def drop(self, name: str) -> None:
        """Forget a column to bound memory; asked for again, it is computed again."""
        self._columns.pop(name, None)


_Group: TypeAlias = "Callable[[IndicatorColumns], tuple[Column, ...]]"
_Family: TypeAlias = "Callable[[IndicatorColumns, Member], tuple[Column, ...]]"


def _of(names: str, function: Callable[..., Any], **parameters: float) -> _Group:
    """Bind a TA-Lib function to the columns it reads, given as a space-separated list."""

    def by_talib(columns: IndicatorColumns) -> tuple[Column, ...]:
        result = function(*(columns[name] for name in names.split()), **parameters)
        return result if isinstance(result, tuple) else (result,)

    return by_talib


def _per(lengths: str, names: str, function: Callable[..., Any], deviations: str = "") -> _Family:
    """Bind a TA-Lib function whose parameters of these names, space-separated too, come from a family's member."""

    def by_talib(columns: IndicatorColumns, found: Member) -> tuple[Column, ...]:
        parameters = dict(zip(lengths.split(), found.lengths, strict=True))
        return _of(names, function, **parameters, **dict.fromkeys(deviations.split(), found.deviations))(columns)

    return by_talib


def _mean(name: str) -> _Family:
    return lambda columns, found: (running_mean(columns[name], *found.lengths),)


def _bb_width(columns: IndicatorColumns, found: Member) -> tuple[Column, ...]:
    upper, middle, lower = _bands(columns, found)
    return (_finite_ratio(upper - lower, middle),)


def _bb_pct(columns: IndicatorColumns, found: Member) -> tuple[Column, ...]:
    upper, _, lower = _bands(columns, found)
    return (_finite_ratio(columns["close"] - lower, upper - lower),)


def _bands(columns: IndicatorColumns, found: Member) -> list[Column]:
    return [columns[spell(stem, found.lengths, found.deviations)] for stem in FAMILIES["bbands"].stems]


def _finite_ratio(numerator: Column, denominator: Column) -> Float64s:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Float64s = numerator / denominator
    ratio[np.isinf(ratio)] = np.nan
    return ratio


def _donchian_mid(columns: IndicatorColumns, found: Member) -> tuple[Column, ...]:
    (window,) = found.lengths
    return ((columns[f"donchian_high_{window}"] + columns[f"donchian_low_{window}"]) / 2,)


def _pivots(columns: IndicatorColumns) -> tuple[Column, ...]:
    high, low, close = columns["high"], columns["low"], columns["close"]
    pivot = (high + low + close) / 3
    return pivot, 2 * pivot - low, pivot + (high - low), 2 * pivot - high, pivot - (high - low)


def _ichimoku(columns: IndicatorColumns) -> tuple[Column, ...]:
    """Without displacement: each line stands at the bar it was computed from."""

    def middle(window: int) -> Column:
        return (rolling_max(columns["high"], window) + rolling_min(columns["low"], window)) / 2

    tenkan, kijun = middle(9), middle(26)
    return tenkan, kijun, (tenkan + kijun) / 2, middle(52), columns["close"].copy()


def _typical(columns: IndicatorColumns) -> Float64s:
    return (columns["high"] + columns["low"] + columns["close"]) / 3


def _vwap(columns: IndicatorColumns) -> tuple[Column, ...]:
    """Cumulative from the first row; NaN until volume has been traded."""
    return _vwap_between(columns, [0, columns.bars.size])


def _vwap_day(columns: IndicatorColumns) -> tuple[Column, ...]:
    """Cumulative from the first bar that starts in a UTC day; NaN until volume has been traded in it."""
    day = columns.bars.start_ns // NS_PER_DAY
    return _vwap_between(columns, [0, *(np.flatnonzero(day[1:] != day[:-1]) + 1).tolist(), day.size])


def _vwap_between(columns: IndicatorColumns, bounds: Sequence[int]) -> tuple[Column]:
    """Restart the sums at each of `bounds`: their difference over the day would round at the level of the whole."""
    volume = columns["volume"]
    worth = _typical(columns) * volume
    totals, volumes = np.empty_like(worth), np.empty_like(worth)
    for first, stop in pairwise(bounds):
        np.cumsum(worth[first:stop], out=totals[first:stop])
        np.cumsum(volume[first:stop], out=volumes[first:stop])
    return (_finite_ratio(totals, volumes),)


def _rolling_vwap(columns: IndicatorColumns, found: Member) -> tuple[Column, ...]:
    """NaN before the first full window, and while no volume was traded in it."""
    (window,) = found.lengths
    volume = columns["volume"]
    return (_finite_ratio(rolling_sum(_typical(columns) * volume, window), rolling_sum(volume, window)),)


def rolling_sum(values: Float64s, window: int) -> Float64s:
    """Sum of the last `window` values, NaN before the first full window.

    Rows are cut into blocks of a window's length; a window is the end of one and the beginning of the next. As nothing
    is subtracted, a window of zeros after large volumes sums to exactly 0.
    """
    blocks = np.zeros((-(-values.size // window), window))
    blocks.ravel()[: values.size] = values
    from_block_start = blocks.cumsum(axis=1).ravel()[: values.size]
    to_block_end = blocks[:, ::-1].cumsum(axis=1)[:, ::-1].ravel()
    out = np.full(values.size, np.nan)
    firsts = np.arange(max(values.size - window + 1, 0))
    out[window - 1 :] = from_block_start[window - 1 :] + np.where(firsts % window == 0, 0.0, to_block_end[firsts])
    return out


_HLC = "high low close"
_OHLC = "open high low close"
_FAMILIES: dict[str, _Family] = {
    "sma": _per("timeperiod", "close", talib.SMA),
    "ema": _per("timeperiod", "close", talib.EMA),
    "wma": _per("timeperiod", "close", talib.WMA),
    "dema": _per("timeperiod", "close", talib.DEMA),
    "tema": _per("timeperiod", "close", talib.TEMA),
    "kama": _per("timeperiod", "close", talib.KAMA),
    "rsi": _per("timeperiod", "close", talib.RSI),
    "atr": _per("timeperiod", _HLC, talib.ATR),
    "natr": _per("timeperiod", _HLC, talib.NATR),
    "adx": _per("timeperiod", _HLC, talib.ADX),
    "plus_di": _per("timeperiod", _HLC, talib.PLUS_DI),
    "minus_di": _per("timeperiod", _HLC, talib.MINUS_DI),
    "cci": _per("timeperiod", _HLC, talib.CCI),
    "willr": _per("timeperiod", _HLC, talib.WILLR),
    "mfi": _per("timeperiod", _HLC + " volume", talib.MFI),
    "roc": _per("timeperiod", "close", talib.ROC),
    "mom": _per("timeperiod", "close", talib.MOM),
    "cmo": _per("timeperiod", "close", talib.CMO),
    "trix": _per("timeperiod", "close", talib.TRIX),
    "stddev": _per("timeperiod", "close", talib.STDDEV),
    "linearreg_slope": _per("timeperiod", "close", talib.LINEARREG_SLOPE),
    "volume_sma": _mean("volume"),
    "volume_ema": _per("timeperiod", "volume", talib.EMA),
    "atr_sma": _mean("atr_14"),
    "vwap": _rolling_vwap,
    "donchian_high": lambda columns, found: (rolling_max(columns["high"], *found.lengths),),
    "donchian_low": lambda columns, found: (rolling_min(columns["low"], *found.lengths),),
    "donchian_mid": _donchian_mid,
    "bbands": _per("timeperiod", "close", talib.BBANDS, deviations="nbdevup nbdevdn"),
    "bb_width": _bb_width,
    "bb_pct": _bb_pct,
    "macd": _per("fastperiod slowperiod signalperiod", "close", talib.MACD),
    "stoch": _per("fastk_period slowk_period slowd_period", _HLC, talib.STOCH),
    "aroon": _per("timeperiod", "high low", talib.AROON),
}

_GROUPS: dict[str, _Group] = {
    "psar": _of("high low", talib.SAR, acceleration=0.02, maximum=0.2),
    "obv": _of("close volume", talib.OBV),
    "adosc": _of(_HLC + " volume", talib.ADOSC, fastperiod=3, slowperiod=10),
    "apo": _of("close", talib.APO, fastperiod=12, slowperiod=26, matype=_EMA),
    "ppo": _of("close", talib.PPO, fastperiod=12, slowperiod=26, matype=_EMA),
    "ppo_signal": _of("ppo", talib.EMA, timeperiod=9),
    "ht_trendline": _of("close", talib.HT_TRENDLINE),
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
    "obv_sma_20": lambda columns: (running_mean(columns["obv"], 20),),
    "obv_channel_20": lambda columns: (rolling_max(columns["obv"], 20), rolling_min(columns["obv"], 20)),
    "typical_price_sma_20": lambda columns: (running_mean(_typical(columns), 20),),
    "vwap": _vwap,
    "vwap_day": _vwap_day,
    "bar_range": lambda columns: (columns["high"] - columns["low"],),
    "pivots": _pivots,
    "ichimoku": _ichimoku,
}


def _computation(column: str) -> Callable[..., tuple[Column, ...]]:
    found = member(column)
    return _GROUPS[GROUP_OF[column]] if found is None else _FAMILIES[found.family]


TALIB_GROUPS = tuple(group for group, columns in GROUPS.items() if _computation(columns[0]).__name__ == "by_talib")
"""The groups that TA-Lib alone computes."""
