from pathlib import Path

import numpy as np
import pytest

from daemon.core.market import NS_PER_HOUR, Bars
from daemon.engine.columns import ALIASES, BAR_COLUMNS, BAR_INDEX, GROUP_OF, GROUPS, NAMES, canonical
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.program import compile_strategies
from daemon.research.strategies import load

# The page's table: the first row that is not NaN.
FIRST_ROWS = {
    0: (
        "obv cdl_engulfing cdl_hammer cdl_shooting_star cdl_morning_star cdl_evening_star cdl_doji cdl_3white_soldiers"
        " cdl_3black_crows cdl_harami cdl_marubozu"
    ),
    1: "psar",
    2: "rsi_2",
    9: "adosc donchian_high_10 donchian_low_10",
    10: "roc_10",
    13: "willr_14",
    14: "rsi_14 plus_di_14 minus_di_14 mfi_14 atr_14 cmo_14",
    17: "stoch_k stoch_d",
    19: (
        "cci_20 sma_20 ema_20 bb_upper bb_middle bb_lower bb_width bb_pct linearreg_slope_20 stddev_20"
        " donchian_high_20 donchian_low_20 donchian_mid_20 obv_sma_20 obv_high_20 obv_low_20 typical_price_sma_20"
        " volume_sma_20"
    ),
    25: "aroon_up_25 aroon_down_25 apo ppo",
    27: "adx_14",
    30: "kama_30",
    33: "macd macd_signal macd_hist ppo_signal",
    43: "trix_15",
    49: "sma_50 ema_50",
    63: "ht_trendline atr_sma_50",
    199: "sma_200 ema_200",
}
FIRST_ROW_OF = {name: row for row, names in FIRST_ROWS.items() for name in names.split()}


def a_walk(size=400):
    rng = np.random.default_rng(11)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, size)))
    opens = np.concatenate([[100.0], close])[:size]
    high = np.maximum(opens, close) * (1 + rng.exponential(0.003, size))
    low = np.minimum(opens, close) * (1 - rng.exponential(0.003, size))
    return Bars(np.arange(size) * NS_PER_HOUR, opens, high, low, close, rng.lognormal(5, 1, size))


WALK = IndicatorColumns(a_walk())


@pytest.mark.parametrize("size", [0, 1, 2, 30])
def test_every_name_of_the_catalogue_can_be_computed(size):
    columns = IndicatorColumns(a_walk(size))
    assert {name: columns[name].shape for name in NAMES} == dict.fromkeys(NAMES, (size,))


@pytest.mark.parametrize("name", ["", "no_such_column", "macd_line", "stoch", "RSI_14", "start_ns"])
def test_no_other_name_can_be_computed(name):
    assert canonical(name) is None
    with pytest.raises(KeyError):
        WALK[name]


def test_there_are_eight_aliases_and_none_hides_a_column():
    assert len(ALIASES) == 8
    assert ALIASES.keys().isdisjoint({*BAR_COLUMNS, BAR_INDEX, *GROUP_OF})


def test_a_column_belongs_to_one_group():
    assert sorted(GROUP_OF) == sorted(column for columns in GROUPS.values() for column in columns)
    assert {*BAR_COLUMNS, BAR_INDEX, *GROUP_OF, *ALIASES} == NAMES


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("sar", "psar"),
        ("apo_12_26", "apo"),
        ("max_high_10", "donchian_high_10"),
        ("max_high_20", "donchian_high_20"),
        ("min_low_10", "donchian_low_10"),
        ("min_low_20", "donchian_low_20"),
        ("cdl_3whitesoldiers", "cdl_3white_soldiers"),
        ("cdl_3blackcrows", "cdl_3black_crows"),
    ],
)
def test_an_alias_is_the_column_it_stands_for(alias, name):
    assert canonical(alias) == name
    assert WALK[alias] is WALK[name]


def test_the_table_lists_the_61_columns_that_shipped_rules_require():
    strategies = load([Path(__file__).parents[2] / "strategies.json"])
    required = {canonical(name) for strategy in strategies for name in strategy.required_indicators}
    used = set(compile_strategies(list(strategies)).inputs)
    assert len(FIRST_ROW_OF) == 61
    assert (required | used) - {*BAR_COLUMNS, BAR_INDEX} == set(FIRST_ROW_OF)


@pytest.mark.parametrize(("name", "first"), FIRST_ROW_OF.items())
def test_a_column_has_values_from_its_first_row_on(name, first):
    assert np.isfinite(WALK[name]).tolist() == [False] * first + [True] * (400 - first)


def test_bars_own_columns_and_their_index_are_columns_too():
    for name in BAR_COLUMNS:
        assert WALK[name] is getattr(WALK.bars, name)
    assert WALK[BAR_INDEX].tolist() == list(map(float, range(400)))


def test_a_ratio_over_a_band_without_width_has_no_value():
    flat = np.full(30, 100.0)
    columns = IndicatorColumns(Bars(np.arange(30), *(flat.copy() for _ in range(5))))
    assert np.isnan(columns["bb_pct"]).all()
    assert columns["bb_width"][19:].tolist() == [0.0] * 11


def test_vwap_has_no_value_before_volume_was_traded():
    bars = a_walk(5)._replace(volume=np.array([0.0, 0.0, 2.0, 0.0, 1.0]))
    typical = (bars.high + bars.low + bars.close) / 3
    expected = [np.nan, np.nan, typical[2], typical[2], (2 * typical[2] + typical[4]) / 3]
    assert IndicatorColumns(bars)["vwap"].tolist() == pytest.approx(expected, rel=1e-15, nan_ok=True)


def test_pivots_are_of_the_same_bar():
    bars = Bars(np.arange(1), *(np.array([value]) for value in (10.0, 13.0, 7.0, 10.0, 1.0)))
    columns = IndicatorColumns(bars)
    found = {name: columns[name].tolist() for name in GROUPS["pivots"]}
    levels = {"pivot_pp": 10.0, "pivot_r1": 13.0, "pivot_r2": 16.0, "pivot_s1": 7.0, "pivot_s2": 4.0}
    assert found == {name: [level] for name, level in levels.items()}


def test_a_column_is_computed_once_until_it_is_dropped():
    columns = IndicatorColumns(a_walk(100))
    first = columns["rsi_14"]
    assert columns["rsi_14"] is first
    columns.drop("rsi_14")
    again = columns["rsi_14"]
    assert again is not first
    assert np.array_equal(again, first, equal_nan=True)
    columns.drop("never_computed")
