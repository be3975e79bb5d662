"""The catalogue of columns that strategies may name; `indicators` computes them.

It stands apart from the computation so that strategies can be validated without loading TA-Lib or numba.
"""

from __future__ import annotations

BAR_COLUMNS = ("open", "high", "low", "close", "volume")

BAR_INDEX = "bar_index"
"""Pseudo-column: the 0-based row number, to say "not before row N" exactly."""

ATR = "atr_14"
"""The column that sizes every stop, target and tolerance."""

GROUPS: dict[str, tuple[str, ...]] = {
    "rsi_14": ("rsi_14",),
    "rsi_2": ("rsi_2",),
    "macd": ("macd", "macd_signal", "macd_hist"),
    "stoch": ("stoch_k", "stoch_d"),
    "adx_14": ("adx_14",),
    "plus_di_14": ("plus_di_14",),
    "minus_di_14": ("minus_di_14",),
    "cci_20": ("cci_20",),
    "willr_14": ("willr_14",),
    "mfi_14": ("mfi_14",),
    "sma_20": ("sma_20",),
    "sma_50": ("sma_50",),
    "sma_200": ("sma_200",),
    "ema_20": ("ema_20",),
    "ema_50": ("ema_50",),
    "ema_200": ("ema_200",),
    "psar": ("psar",),
    "bbands": ("bb_upper", "bb_middle", "bb_lower"),
    "bb_width": ("bb_width",),
    "bb_pct": ("bb_pct",),
    "atr_14": ("atr_14",),
    "obv": ("obv",),
    "adosc": ("adosc",),
    "aroon": ("aroon_down_25", "aroon_up_25"),
    "apo": ("apo",),
    "ppo": ("ppo",),
    "ppo_signal": ("ppo_signal",),
    "trix_15": ("trix_15",),
    "cmo_14": ("cmo_14",),
    "roc_10": ("roc_10",),
    "mom_10": ("mom_10",),
    "kama_30": ("kama_30",),
    "ht_trendline": ("ht_trendline",),
    "linearreg_slope_20": ("linearreg_slope_20",),
    "stddev_20": ("stddev_20",),
    "cdl_engulfing": ("cdl_engulfing",),
    "cdl_hammer": ("cdl_hammer",),
    "cdl_shooting_star": ("cdl_shooting_star",),
    "cdl_morning_star": ("cdl_morning_star",),
    "cdl_evening_star": ("cdl_evening_star",),
    "cdl_doji": ("cdl_doji",),
    "cdl_3white_soldiers": ("cdl_3white_soldiers",),
    "cdl_3black_crows": ("cdl_3black_crows",),
    "cdl_harami": ("cdl_harami",),
    "cdl_marubozu": ("cdl_marubozu",),
    "donchian_20": ("donchian_high_20", "donchian_low_20", "donchian_mid_20"),
    "donchian_10": ("donchian_high_10", "donchian_low_10"),
    "atr_sma_50": ("atr_sma_50",),
    "obv_sma_20": ("obv_sma_20",),
    "obv_channel_20": ("obv_high_20", "obv_low_20"),
    "typical_price_sma_20": ("typical_price_sma_20",),
    "volume_sma_20": ("volume_sma_20",),
    "vwap": ("vwap",),
    "bar_range": ("bar_range",),
    "pivots": ("pivot_pp", "pivot_r1", "pivot_r2", "pivot_s1", "pivot_s2"),
    "ichimoku": ("ichi_tenkan", "ichi_kijun", "ichi_senkou_a", "ichi_senkou_b", "ichi_chikou"),
}
"""Columns that one computation yields together."""

GROUP_OF: dict[str, str] = {column: group for group, columns in GROUPS.items() for column in columns}

ALIASES: dict[str, str] = {
    "sar": "psar",
    "apo_12_26": "apo",
    "max_high_10": "donchian_high_10",
    "max_high_20": "donchian_high_20",
    "min_low_10": "donchian_low_10",
    "min_low_20": "donchian_low_20",
    "cdl_3whitesoldiers": "cdl_3white_soldiers",
    "cdl_3blackcrows": "cdl_3black_crows",
}
"""Names of the design document for columns that the reference calls otherwise."""

NAMES = frozenset({*BAR_COLUMNS, BAR_INDEX, *GROUP_OF, *ALIASES})


def canonical(name: str) -> str | None:
    """Return the catalogue's own name of a column, None where it has no such column."""
    name = ALIASES.get(name, name)
    return name if name in NAMES else None
