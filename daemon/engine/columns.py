"""The catalogue of columns that rules may name, listed or of a family; `indicators` computes them.

It stands apart from the computation so that strategies can be validated without loading TA-Lib or numba.
"""

from __future__ import annotations

from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, TsNs
from daemon.engine.families import FAMILIES, exponential, member, spell

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
    "donchian_high_20": ("donchian_high_20",),
    "donchian_low_20": ("donchian_low_20",),
    "donchian_mid_20": ("donchian_mid_20",),
    "donchian_high_10": ("donchian_high_10",),
    "donchian_low_10": ("donchian_low_10",),
    "atr_sma_50": ("atr_sma_50",),
    "obv_sma_20": ("obv_sma_20",),
    "obv_channel_20": ("obv_high_20", "obv_low_20"),
    "typical_price_sma_20": ("typical_price_sma_20",),
    "volume_sma_20": ("volume_sma_20",),
    "vwap": ("vwap",),
    "vwap_day": ("vwap_day",),
    "bar_range": ("bar_range",),
    "pivots": ("pivot_pp", "pivot_r1", "pivot_r2", "pivot_s1", "pivot_s2"),
    "ichimoku": ("ichi_tenkan", "ichi_kijun", "ichi_senkou_a", "ichi_senkou_b", "ichi_chikou"),
}
"""Columns that one computation yields together; those of the families in their usual lengths among them."""

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
"""The names that are listed; `canonical` knows those of the families besides."""

_SETTLED = 500
_CANDLES = 13

_LOOKBACKS: dict[str, int] = {
    **dict.fromkeys((*BAR_COLUMNS, BAR_INDEX, "bar_range", "pivots"), 0),
    **dict.fromkeys(("psar", "obv", "adosc", "ht_trendline", "vwap"), _SETTLED),
    **dict.fromkeys(("obv_sma_20", "obv_channel_20"), _SETTLED + 19),
    **dict.fromkeys((group for group in GROUPS if group.startswith("cdl_")), _CANDLES),
    **dict.fromkeys(("apo", "ppo"), exponential(26)),
    "ppo_signal": exponential(26) + exponential(9),
    "typical_price_sma_20": 19,
    "ichimoku": 51,
}
"""Of the groups, and of bars' own columns, that no family has."""


def canonical(name: str) -> str | None:
    """Return the catalogue's own name of a column, None where it has no such column.

    Every spelling of one column has the same name: `macd_12_26_9` is `macd`, `bb_upper_30_2` is `bb_upper_30`.
    """
    name = ALIASES.get(name, name)
    if name in NAMES:
        return name
    found = member(name)
    return None if found is None else spell(found.stem, found.lengths, found.deviations)


def lookback(name: str, *, bar_ns: TsNs = NS_PER_SECOND) -> int:
    """Return how many bars before a row a column needs for a value that does not show where the series began.

    bar_ns: length of a bar; only `vwap_day` asks, and without it counts a day of seconds.
    Windows: exact (`sma_20` 19, `roc_10` 10). Averages that never forget: until at most e^-20 = 2e-9 of the start
    remains in each pass of smoothing: 11 lengths an EMA (`macd` 11 slow + 11 signal, `tema` and `trix` thrice), 21 a
    Wilder average (`rsi`, `atr`, `natr`, `cmo`, the DIs; `adx` twice). `kama`: its length + 2,400, at worst 4.5e-5.
    `psar` (until its first turns), `ht_trendline` and `adosc`: 500, where nothing was seen to remain. `obv` and `vwap`
    are sums since the first row and never forget it: 500 too, as a convention. KeyError for an unknown column.
    """
    known = canonical(name)
    if known is None:
        raise KeyError(name)
    if known == "vwap_day":
        return -(-NS_PER_DAY // bar_ns) - 1
    found = member(known)
    if found is not None:
        return FAMILIES[found.family].memory(*found.lengths)
    return _LOOKBACKS[GROUP_OF.get(known, known)]
