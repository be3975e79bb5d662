"""The engine against recorded results of the reference: `synthetic/` is here, the real series lie beside the repo."""

import csv
import gzip
import json
import math
from functools import cache
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from daemon.core.market import Bars
from daemon.core.strategy import EXIT_REASONS, SIDES, Condition, RiskProfile, Strategy
from daemon.engine import conditions, probe
from daemon.engine.columns import ATR
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.program import compile_strategies
from daemon.research.strategies import load

ROOT = Path(__file__).parents[2]
SYNTHETIC = Path(__file__).parent / "synthetic"
REAL = ROOT.parent / "shared" / "parity" / "real"

PROFILES = {
    "low": RiskProfile(stop_scale=0.75, target_scale=0.75, trailing_scale=0.75, time_scale=0.6),
    "medium": RiskProfile(),
    "high": RiskProfile(stop_scale=1.5, target_scale=1.5, trailing_scale=1.5, time_scale=1.5),
}
EXACT_TRADE = (
    "entry_index", "exit_index", "entry_price", "exit_price", "direction", "bars_held", "exit_reason",
)  # fmt: skip
CLOSE_TRADE = ("pnl_pct", "max_drawdown_pct", "max_profit_pct", "pnl_std")
EXACT_GROUP = ("open_day", "open_hour", "long_short", "num_trades")
CLOSE_GROUP = ("pnl_mean", "pnl_std", "max_drawdown", "max_profit")

needs_real_series = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"real parity series are not part of the repository: no folder {REAL}"
)


class Outcome(NamedTuple):
    """Rows as the fixtures write them, by (strategy id, risk profile)."""

    trades: dict
    groups: dict


def read_json(path):
    with gzip.open(path, "rt") as file:
        return json.load(file)


def read_csv(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def read_bars(path):
    table = read_csv(path)
    start_ns = np.array([time.rstrip("Z") for time in table["timestamp"]], dtype="datetime64[ns]")
    return Bars(start_ns.astype(np.int64), *(np.array(table[name], dtype=float) for name in Bars._fields[1:]))


@cache
def shipped():
    return list(load([ROOT / "strategies.json"]))


def probe_all(bars):
    """Run every shipped strategy under every profile."""
    keys = [(place, profile) for place in range(len(shipped())) for profile in PROFILES]
    combinations = probe.combine(shipped(), [(place, PROFILES[profile]) for place, profile in keys])
    program = compile_strategies(shipped())
    columns = IndicatorColumns(bars)
    signals = conditions.signals(program, columns)
    outcome = Outcome({}, {})
    for batch in probe.run(bars, columns[ATR], signals, program.strategy_signals, combinations):
        trades, groups = iter(trade_rows(batch.trades)), iter(group_rows(batch.groups))
        counts = zip(batch.summary.trades, batch.summary.groups, strict=True)
        for (place, profile), (trade_count, group_count) in zip(keys[batch.first :], counts, strict=False):
            key = (shipped()[place].id, profile)
            outcome.trades[key] = [next(trades) for _ in range(trade_count)]
            outcome.groups[key] = [next(groups) for _ in range(group_count)]
    return outcome


def trade_rows(trades):
    return rows(
        entry_index=trades.entry_index.tolist(),
        exit_index=trades.exit_index.tolist(),
        direction=[SIDES[side] for side in trades.side],
        exit_reason=[EXIT_REASONS[reason] for reason in trades.reason],
        bars_held=trades.bars_held.tolist(),
        entry_price=trades.entry_price.tolist(),
        exit_price=trades.exit_price.tolist(),
        pnl_pct=trades.pnl_pct.tolist(),
        max_drawdown_pct=trades.max_drawdown.tolist(),
        max_profit_pct=trades.max_profit.tolist(),
        pnl_std=trades.pnl_std.tolist(),
    )


def group_rows(groups):
    return rows(
        open_day=[str(np.datetime64(int(day), "D")) for day in groups.open_day],
        open_hour=groups.open_hour.tolist(),
        long_short=[SIDES[side] for side in groups.side],
        num_trades=groups.num_trades.tolist(),
        pnl_mean=groups.pnl_mean.tolist(),
        pnl_std=groups.pnl_std.tolist(),
        max_drawdown=groups.max_drawdown.tolist(),
        max_profit=groups.max_profit.tolist(),
    )


def rows(**fields):
    return [dict(zip(fields, row, strict=True)) for row in zip(*fields.values(), strict=True)]


def near(ours, theirs):
    return math.isclose(ours, theirs, rel_tol=1e-12, abs_tol=1e-15)


def differences(actual, expected, exact, close):
    """Say of each combination that differs where it first does."""
    found = []
    for key, wanted in expected.items():
        got = actual[key]
        if len(got) != len(wanted):
            found.append(f"{key}: {len(got)} rows instead of {len(wanted)}")
        for row, (ours, theirs) in enumerate(zip(got, wanted, strict=False)):
            wrong = [name for name in exact if ours[name] != theirs[name]]
            wrong += [name for name in close if not near(ours[name], theirs[name])]
            if wrong:
                pairs = ", ".join(f"{name} {ours[name]!r} instead of {theirs[name]!r}" for name in wrong)
                found.append(f"{key}, row {row}: {pairs}")
                break
    return found


def assert_same(actual, expected, exact, close):
    found = differences(actual, expected, exact, close)
    listed = "\n".join(found[:20])
    assert not found, f"{len(found)} of {len(expected)} combinations differ:\n{listed}"


@pytest.mark.parametrize("series", ["SYNA_15Min", "SYNB_1Hour"])
def test_every_combination_trades_a_synthetic_series_as_the_reference(series):
    recorded = read_json(SYNTHETIC / f"trades-{series}.json.gz")
    names = recorded["columns"]
    expected = {
        (each["strategy_id"], each["risk_profile"]): [dict(zip(names, trade, strict=True)) for trade in each["trades"]]
        for each in recorded["combinations"]
    }
    assert len(expected) == 300
    actual = probe_all(read_bars(SYNTHETIC / f"bars-{series}.csv.gz"))
    assert_same(actual.trades, expected, EXACT_TRADE, CLOSE_TRADE)


@needs_real_series
@pytest.mark.parametrize("series", ["AAPL_1Hour", "ETHBTC_15Min"])
def test_recorded_combinations_trade_and_group_a_real_series_as_the_reference(series):
    recorded = [each for each in read_json(REAL / "expected-trades.json.gz") if each["series"] == series]
    trades = {(each["strategy_id"], each["risk_profile"]): each["trades"] for each in recorded}
    assert len(trades) == 30
    groups = {}
    for each in read_json(REAL / "expected-aggregates.json.gz"):
        if each["series"] == series:
            groups.setdefault((each["strategy_id"], each["risk_profile"]), []).append(each)
    for records in groups.values():
        records.sort(key=lambda each: [each[name] for name in EXACT_GROUP[:3]])
    actual = probe_all(read_bars(REAL / f"bars-{series}.csv"))
    assert_same(actual.trades, trades, EXACT_TRADE, CLOSE_TRADE)
    assert_same(actual.groups, groups, EXACT_GROUP, CLOSE_GROUP)


@needs_real_series
def test_recorded_conditions_are_true_on_the_bars_of_the_reference():
    recorded = read_json(REAL / "expected-conditions.json.gz")
    strategies = [
        Strategy(
            id=1,
            name="entry_only",
            display_name="Entry only",
            philosophy="none",
            category="test",
            direction="long_only",
            entry_long=(msgspec.convert(each["condition"], Condition),),
            entry_short=(),
            exit_long=(),
            exit_short=(),
            required_indicators=(),
        )
        for each in recorded
    ]
    bars = read_bars(REAL / "bars-ETHBTC_15Min.csv")
    program = compile_strategies(strategies)
    words = conditions.signals(program, IndicatorColumns(bars))[program.strategy_signals[:, 0]]
    truths = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
    wrong = [
        each["condition"]
        for truth, each in zip(truths, recorded, strict=True)
        if np.flatnonzero(truth).tolist() != each["true_at"]
    ]
    assert not wrong


@needs_real_series
def test_every_recorded_indicator_column_is_equal_to_the_bit():
    recorded = read_csv(REAL / "indicators-ETHBTC_15Min.csv.gz")
    del recorded["timestamp"]
    columns = IndicatorColumns(read_bars(REAL / "bars-ETHBTC_15Min.csv"))
    wrong = [
        name
        for name, texts in recorded.items()
        if not np.array_equal(columns[name], [float(text or "nan") for text in texts], equal_nan=True)
    ]
    assert len(recorded) == 73
    assert not wrong
