import re
import subprocess
import sys

import numpy as np
import pytest
import talib
import talib.abstract
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, NS_PER_SECOND, Bars, Timeframe
from daemon.engine.columns import ALIASES, BAR_COLUMNS, BAR_INDEX, NAMES, canonical, lookback
from daemon.engine.families import FAMILIES, MAX_LENGTH, spell
from daemon.engine.indicators import IndicatorColumns, rolling_sum

NAN = np.nan


def a_walk(size, seed=3):
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, size)))
    opens = np.concatenate([[100.0], close])[:size]
    high = np.maximum(opens, close) * (1 + rng.exponential(0.003, size))
    low = np.minimum(opens, close) * (1 - rng.exponential(0.003, size))
    volume = rng.lognormal(5, 1, size) * (rng.random(size) < 0.8)
    return Bars(np.arange(size) * NS_PER_HOUR, opens, high, low, close, volume)


BARS = a_walk(600)
OPEN, HIGH, LOW, CLOSE, VOLUME = BARS[1:]
TYPICAL = (HIGH + LOW + CLOSE) / 3
WALK = IndicatorColumns(BARS)


def windows(column, length):
    """Rows of the last `length` values; nothing before the first full one."""
    return [None] * (length - 1) + list(np.lib.stride_tricks.sliding_window_view(column, length))


def naive(function, length, *columns):
    rows = zip(*(windows(column, length) for column in columns), strict=True)
    return [NAN if parts[0] is None else function(*parts) for parts in rows]


def naive_vwap(length):
    return naive(lambda price, size: price @ size / size.sum() if size.any() else NAN, length, TYPICAL, VOLUME)


def bands(length, deviations):
    return talib.BBANDS(CLOSE, timeperiod=length, nbdevup=deviations, nbdevdn=deviations)


def width(upper, middle, lower):
    return (upper - lower) / middle


def place(upper, _middle, lower):
    return (CLOSE - lower) / (upper - lower)


BY_TALIB = {
    "sma_37": talib.SMA(CLOSE, 37),
    "ema_9": talib.EMA(CLOSE, 9),
    "wma_1": talib.WMA(CLOSE, 1),
    "dema_21": talib.DEMA(CLOSE, 21),
    "tema_8": talib.TEMA(CLOSE, 8),
    "kama_10": talib.KAMA(CLOSE, 10),
    "rsi_7": talib.RSI(CLOSE, 7),
    "atr_21": talib.ATR(HIGH, LOW, CLOSE, 21),
    "natr_1": talib.NATR(HIGH, LOW, CLOSE, 1),
    "adx_28": talib.ADX(HIGH, LOW, CLOSE, 28),
    "plus_di_9": talib.PLUS_DI(HIGH, LOW, CLOSE, 9),
    "minus_di_9": talib.MINUS_DI(HIGH, LOW, CLOSE, 9),
    "cci_40": talib.CCI(HIGH, LOW, CLOSE, 40),
    "willr_5": talib.WILLR(HIGH, LOW, CLOSE, 5),
    "mfi_60": talib.MFI(HIGH, LOW, CLOSE, VOLUME, 60),
    "roc_1": talib.ROC(CLOSE, 1),
    "mom_100": talib.MOM(CLOSE, 100),
    "cmo_7": talib.CMO(CLOSE, 7),
    "trix_5": talib.TRIX(CLOSE, 5),
    "stddev_50": talib.STDDEV(CLOSE, 50),
    "linearreg_slope_2": talib.LINEARREG_SLOPE(CLOSE, 2),
    "volume_ema_12": talib.EMA(VOLUME, 12),
    "bb_upper_30_2p5": bands(30, 2.5)[0],
    "bb_middle_30": bands(30, 2.5)[1],
    "bb_lower_30_0p75": bands(30, 0.75)[2],
    "bb_upper_10": bands(10, 2.0)[0],
    "bb_width_10": width(*bands(10, 2.0)),
    "bb_width_10_3": width(*bands(10, 3.0)),
    "bb_pct_10": place(*bands(10, 2.0)),
    "bb_pct_40_1p25": place(*bands(40, 1.25)),
    "macd_8_21_5": talib.MACD(CLOSE, 8, 21, 5)[0],
    "macd_signal_8_21_5": talib.MACD(CLOSE, 8, 21, 5)[1],
    "macd_hist_8_21_5": talib.MACD(CLOSE, 8, 21, 5)[2],
    "stoch_k_5_1_3": talib.STOCH(HIGH, LOW, CLOSE, fastk_period=5, slowk_period=1, slowd_period=3)[0],
    "stoch_d_21_5_7": talib.STOCH(HIGH, LOW, CLOSE, fastk_period=21, slowk_period=5, slowd_period=7)[1],
    "aroon_down_14": talib.AROON(HIGH, LOW, 14)[0],
    "aroon_up_14": talib.AROON(HIGH, LOW, 14)[1],
}
BY_HAND = {
    "volume_sma_7": naive(np.mean, 7, VOLUME),
    "atr_sma_10": naive(np.mean, 10, talib.ATR(HIGH, LOW, CLOSE, 14)),
    "vwap_1": naive_vwap(1),
    "vwap_7": naive_vwap(7),
    "vwap_600": naive_vwap(600),
    "donchian_high_55": naive(np.max, 55, HIGH),
    "donchian_low_55": naive(np.min, 55, LOW),
    "donchian_mid_10": naive(lambda high, low: (high.max() + low.min()) / 2, 10, HIGH, LOW),
}
EXAMPLES = sorted(BY_TALIB | BY_HAND)
SHORTEST = [
    spell(stem, family.least) for family in FAMILIES.values() for stem in family.stems if len(family.least) == 1
]


@pytest.mark.parametrize("name", BY_TALIB)
def test_a_length_of_ones_own_is_what_talib_computes_for_it(name):
    assert canonical(name) == name
    assert np.array_equal(WALK[name], BY_TALIB[name], equal_nan=True)


@pytest.mark.parametrize("name", BY_HAND)
def test_a_window_of_ones_own_is_what_a_loop_computes(name):
    assert canonical(name) == name
    assert WALK[name].tolist() == pytest.approx(BY_HAND[name], rel=1e-12, nan_ok=True)


def test_every_family_has_an_example():
    stems = {stem for family in FAMILIES.values() for stem in family.stems}
    assert stems == {re.sub("_[0-9].*", "", name) for name in EXAMPLES}


@pytest.mark.parametrize(
    ("spelled", "column"),
    [
        ("macd_12_26_9", "macd"),
        ("macd_signal_12_26_9", "macd_signal"),
        ("macd_hist_12_26_9", "macd_hist"),
        ("stoch_k_14_3_3", "stoch_k"),
        ("stoch_d_14_3_3", "stoch_d"),
        ("bb_upper_20", "bb_upper"),
        ("bb_upper_20_2", "bb_upper"),
        ("bb_lower_20_2p0", "bb_lower"),
        ("bb_middle_20_3", "bb_middle"),
        ("bb_width_20_2", "bb_width"),
        ("bb_pct_20", "bb_pct"),
        ("bb_upper_30_2", "bb_upper_30"),
        ("bb_upper_30_2p50", "bb_upper_30_2p5"),
        ("bb_upper_20_2p5", "bb_upper_20_2p5"),
        ("bb_middle_30_2p5", "bb_middle_30"),
        *((name, name) for name in ("sma_20", "rsi_2", "rsi_14", "atr_14", "kama_30", "aroon_up_25", "vwap")),
        *((name, name) for name in ("donchian_mid_20", "donchian_high_10", "volume_sma_20", "atr_sma_50", "vwap_day")),
    ],
)
def test_every_spelling_of_a_column_is_that_column(spelled, column):
    assert canonical(spelled) == column
    assert WALK[spelled] is WALK[column]


def test_names_of_the_catalogue_stay_what_they_are():
    assert [name for name in NAMES - ALIASES.keys() if canonical(name) != name] == []


@pytest.mark.parametrize("name", [*EXAMPLES, *SHORTEST])
def test_the_name_of_a_column_is_its_own(name):
    assert canonical(canonical(name)) == canonical(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "sma",
            "sma_",
            "_sma_5",
            "sma_0",
            "sma_05",
            "sma_5001",
            "sma_10000",
            "sma_-5",
            "sma_+5",
            "sma_5.0",
            "sma_1e1",
        ),
        *(
            "sma_5_",
            "sma__5",
            "sma_5_5",
            "sma_5p5",
            "sma5",
            "SMA_5",
            "sma_5\n",
            " sma_5",
            "sma_\u0665",
            "sma_\u00b2",
            "sma_5x",
        ),
        *("rsi_1", "adx_1", "cci_1", "willr_1", "mfi_1", "cmo_1", "stddev_1", "linearreg_slope_1", "aroon_up_1"),
        *("bb_upper_1", "bb_upper_20_0", "bb_upper_20_0p0", "bb_upper_20_02", "bb_upper_20_p5", "bb_upper_20_2p"),
        *("bb_upper_20_2p00000", "bb_upper_20_2.5", "bb_upper_20_100", "bb_upper_20_2_2", "bb_upper_2p5", "bbands_20"),
        *("macd_12", "macd_12_26", "macd_1_26_9", "macd_12_26_0", "macd_26_12_9", "macd_12_12_9", "macd_12_26_9_9"),
        *("macd_12_5001_9", "stoch_14_3_3", "stoch_k_14", "stoch_k_14_3", "stoch_k_14_0_3", "aroon_25", "donchian_20"),
        *(
            "volume_sma",
            "vwap_0",
            "vwap_day_5",
            "donchian_high",
            "highest_20",
            "obv_sma_10",
            "sma_20_2",
            "9",
            "_",
            "5_5",
        ),
    ],
)
def test_what_no_family_takes_is_no_column(name):
    assert canonical(name) is None
    for use in (lookback, WALK.__getitem__):
        with pytest.raises(KeyError):
            use(name)


@pytest.mark.parametrize("name", ["sma_5000", "cci_5000", "donchian_mid_5000", "macd_4999_5000_5000", "bb_pct_5000_99"])
def test_the_longest_length_is_five_thousand_bars(name):
    assert MAX_LENGTH == 5000
    assert np.isnan(WALK[name]).all()


@pytest.mark.parametrize("name", SHORTEST)
def test_the_shortest_length_of_a_family_has_values(name):
    assert np.isfinite(WALK[name][5:]).sum() > 400


INPUTS = {"adx": 3, "cci": 3, "willr": 3, "mfi": 4, "aroon": 2}
LONGER_THAN_ONE = {
    talib_name: [50, 60, 50][: len(family.least)]
    for key, family in FAMILIES.items()
    if max(family.least) > 1 and hasattr(talib, talib_name := key.upper())
}


def test_every_family_with_a_shortest_length_is_compared_with_talib():
    longer = {key for key, family in FAMILIES.items() if max(family.least) > 1}
    assert longer - {"bb_width", "bb_pct"} == {name.lower() for name in LONGER_THAN_ONE}


@pytest.mark.parametrize(("function", "lengths"), LONGER_THAN_ONE.items())
def test_the_shortest_length_is_the_shortest_that_talib_takes(function, lengths):
    columns = [HIGH, LOW, CLOSE, VOLUME][: INPUTS.get(function.lower(), 1)]
    family = FAMILIES[function.lower()]
    for position, least in enumerate(family.least):
        shorter = [*lengths[:position], least - 1, *lengths[position + 1 :]]
        with pytest.raises(Exception, match="Bad Parameter"):
            getattr(talib, function)(*columns, *shorter)
        assert canonical("_".join([family.stems[0], *map(str, shorter)])) is None
        shortest = [*lengths[:position], least, *lengths[position + 1 :]]
        getattr(talib, function)(*columns, *shortest)


@pytest.mark.parametrize("size", [0, 1, 2, 9])
def test_a_series_shorter_than_the_window_has_no_value(size):
    columns = IndicatorColumns(BARS.rows(0, size))
    for name in EXAMPLES:
        assert columns[name].shape == (size,)
    assert np.isnan(columns["vwap_10"]).all()


def one_of(family):
    """Names of a family's members, lengths up to 60 bars."""
    lengths = [st.integers(least, 60) for least in family.least]
    names = st.builds(lambda stem, *bars: "_".join([stem, *map(str, bars)]), st.sampled_from(family.stems), *lengths)
    return names.filter(lambda name: canonical(name) is not None)


@settings(deadline=None, max_examples=200)
@given(name=st.sampled_from(sorted(FAMILIES)).flatmap(lambda key: one_of(FAMILIES[key])), size=st.integers(0, 600))
def test_no_column_of_a_family_looks_ahead(name, size):
    prefix, whole = IndicatorColumns(BARS.rows(0, size))[name], WALK[name][:size]
    assert np.array_equal(prefix, whole, equal_nan=True)


@pytest.mark.parametrize("name", [*EXAMPLES, *SHORTEST, "vwap_day"])
def test_columns_of_a_prefix_are_the_prefix_of_the_columns_to_the_bit(name):
    for size in (1, 14, 24, 25, 33, 64, 201, 513, 599):
        prefix, whole = IndicatorColumns(BARS.rows(0, size))[name], WALK[name][:size]
        assert np.array_equal(prefix, whole, equal_nan=True)


def test_what_one_computation_yields_is_kept_and_what_is_there_stays():
    columns = IndicatorColumns(a_walk(100))
    middle = columns["bb_middle"]
    upper = columns["bb_upper_20_3"]
    assert columns["bb_middle"] is middle
    columns.drop("bb_upper_20_3")
    assert columns["bb_upper_20_3"] is not upper
    assert columns["macd_3_7_2"] is columns["macd_3_7_2"]


def test_names_are_known_without_talib_or_numba():
    code = (
        "import sys; from daemon.engine.columns import canonical, lookback; canonical('rsi_7'); lookback('rsi_7');"
        "sys.exit(bool({'talib', 'numba'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Volume-weighted prices.


def three_bars(*, start_ns=0):
    price = np.array([28.5, 31.5, 33.0]) / 3
    volume = np.array([100.0, 200.0, 100.0])
    return Bars(start_ns + np.arange(3) * NS_PER_HOUR, *(price.copy() for _ in range(4)), volume)


@pytest.mark.parametrize("name", ["vwap", "vwap_day", "vwap_3"])
def test_vwap_is_the_mean_price_of_what_was_traded(name):
    assert IndicatorColumns(three_bars())[name][-1] == pytest.approx(10.375, rel=1e-15)


def test_the_vwap_of_the_day_restarts_at_midnight_utc():
    columns = IndicatorColumns(three_bars(start_ns=NS_PER_DAY - NS_PER_HOUR))
    expected = [9.5, 10.5, (10.5 * 200 + 11 * 100) / 300]
    assert columns["vwap_day"].tolist() == pytest.approx(expected, rel=1e-15)


def test_the_vwap_of_a_day_is_that_of_its_bars_alone():
    for day in range(25):
        rows = slice(day * 24, day * 24 + 24)
        totals = np.cumsum(TYPICAL[rows] * VOLUME[rows]), np.cumsum(VOLUME[rows])
        expected = [total / size if size else NAN for total, size in zip(*totals, strict=True)]
        assert np.array_equal(WALK["vwap_day"][rows], expected, equal_nan=True)


def test_a_day_has_no_vwap_before_volume_was_traded_in_it():
    bars = three_bars(start_ns=NS_PER_DAY - NS_PER_HOUR)._replace(volume=np.array([1e18, 0.0, 1e-3]))
    columns = IndicatorColumns(bars)
    assert columns["vwap_day"].tolist() == pytest.approx([9.5, NAN, 11.0], nan_ok=True)


def test_a_window_without_volume_has_no_vwap_whatever_was_traded_before():
    bars = a_walk(40)._replace(volume=np.array([1e18, 0.1, 1e17 / 3, 1e-9] + [0.0] * 32 + [1e-6] * 4))
    vwap = IndicatorColumns(bars)["vwap_5"]
    assert np.isnan(vwap[8:36]).all()
    assert vwap[36] == pytest.approx(((bars.high + bars.low + bars.close) / 3)[36], rel=1e-12)


@pytest.mark.parametrize("length", [1, 2, 7, 24, 599, 600])
def test_a_rolling_sum_is_that_of_each_window(length):
    assert rolling_sum(VOLUME, length).tolist() == pytest.approx(naive(np.sum, length, VOLUME), rel=1e-12, nan_ok=True)


# References of others.


def test_rsi_is_that_of_the_sheet():
    closes = (
        "44.3389 44.0902 44.1497 43.6124 44.3278 44.8264 45.0955 45.4245 45.8433 46.0826 45.8931 46.0328 45.6140"
        " 46.2820 46.2820 46.0028 46.0328 46.4116 46.2222 45.6439 46.2122 46.2521 45.7137 46.4515 45.7835 45.3548"
        " 44.0288 44.1783 44.2181 44.5672 43.4205 42.6628 43.1314"
    )
    sheet = (
        "70.53 66.32 66.55 69.41 66.36 57.97 62.93 63.26 56.06 62.38"
        " 54.71 50.42 39.99 41.46 41.87 45.46 37.30 33.08 37.77"
    )
    close = np.array(closes.split(), dtype=float)
    bars = Bars(np.arange(33), *(close.copy() for _ in range(4)), np.ones(33))
    rsi = IndicatorColumns(bars)["rsi_14"]
    assert np.isnan(rsi[:14]).all()
    assert rsi[14:] == pytest.approx(np.array(sheet.split(), dtype=float), abs=0.005)


# Look-backs.

LONG = a_walk(9_000)
EVERYTHING = sorted({canonical(name) for name in NAMES} | set(EXAMPLES) | {"rsi_60", "ema_60", "adx_60", "tema_60"})
NEVER_FORGET = {"obv", "vwap", "obv_sma_20", "obv_high_20", "obv_low_20", BAR_INDEX}


@pytest.fixture(scope="module")
def long_columns():
    cuts = (1, 100, 511, 1000, 2000, 3003)
    return IndicatorColumns(LONG), {cut: IndicatorColumns(LONG.rows(cut, LONG.size)) for cut in cuts}


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name not in NEVER_FORGET])
def test_after_its_look_back_a_column_does_not_show_where_its_series_began(name, long_columns):
    whole, later = long_columns
    full = whole[name].astype(float)
    span = np.nanmax(full) - np.nanmin(full)
    first = lookback(name, bar_ns=NS_PER_HOUR)
    assert first < 5_000
    for cut, columns in later.items():
        seen, wanted = columns[name][first:].astype(float), full[cut + first :]
        assert np.allclose(seen, wanted, rtol=0, atol=1e-8 * span, equal_nan=True)
        # Only volume's absence may leave holes here.
        assert np.isnan(seen).mean() < 0.25


WINDOWED = (
    *("sma", "wma", "cci", "willr", "mfi", "roc", "mom", "stddev", "linearreg_slope", "volume_sma", "vwap"),
    *("donchian_high", "donchian_low", "donchian_mid", "bb_upper", "bb_middle", "bb_width", "aroon_down", "aroon_up"),
)


@pytest.mark.parametrize("name", [f"{stem}_30" for stem in WINDOWED])
def test_the_look_back_of_a_window_is_where_its_values_begin(name):
    assert np.flatnonzero(~np.isnan(WALK[name]))[0] == lookback(name)


@pytest.mark.parametrize(
    ("name", "bars"),
    [
        *((name, 0) for name in (*BAR_COLUMNS, BAR_INDEX, "bar_range", "pivot_pp", "sma_1")),
        *(("sma_20", 19), ("sma_20", 19), ("roc_10", 10), ("ema_20", 220), ("rsi_14", 294), ("adx_14", 588)),
        *(("macd", 385), ("macd_signal_12_26_9", 385), ("stoch_k", 17), ("bb_pct", 19), ("kama_30", 2430)),
        *(("trix_15", 496), ("tema_10", 330), ("atr_sma_50", 343), ("sar", 500), ("vwap", 500), ("obv_sma_20", 519)),
    ],
)
def test_look_backs_are_stated(name, bars):
    assert lookback(name) == bars


def test_every_column_of_the_catalogue_has_a_look_back():
    assert all(lookback(name) >= 0 for name in NAMES)


@pytest.mark.parametrize("pattern", [name for name in sorted(NAMES) if name.startswith("cdl_")])
def test_no_candle_pattern_looks_back_farther_than_stated(pattern):
    function = canonical(pattern).replace("_", "").upper()
    assert talib.abstract.Function(function).lookback <= lookback(pattern)


def test_the_vwap_of_the_day_needs_the_day_however_long_its_bars_are():
    assert lookback("vwap_day") == 86_399
    assert [lookback("vwap_day", bar_ns=frame.ns) for frame in Timeframe] == [86_399, 1_439, 287, 95, 23, 0]
    assert lookback("vwap_day", bar_ns=7 * NS_PER_HOUR) == 3
    assert lookback("rsi_14", bar_ns=NS_PER_SECOND) == lookback("rsi_14", bar_ns=NS_PER_DAY)
