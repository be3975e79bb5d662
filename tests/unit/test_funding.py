"""Funding rates in the store: exact, idempotent, and every refusal says where and what to do."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core.errors import Code, Conflict, SourceDataInvalid, StoreCorrupt
from daemon.core.market import NS_PER_HOUR, FundingTable, Instrument
from daemon.ingest.funding import import_funding
from daemon.store import keys
from daemon.store.env import Environment, StoreConfig
from daemon.store.funding import FundingStore
from daemon.store.verify import verify

PERP = Instrument("binance", "BTCUSDT-PERP")
OTHER = Instrument("local", "ETH/USDT")
START_NS = 19_000 * 24 * NS_PER_HOUR
EIGHT_HOURS = 8 * NS_PER_HOUR
FIRST_LINE = 2


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as opened:
        yield opened


def table(*rates, hours=None):
    at = np.array(range(0, 8 * len(rates), 8) if hours is None else hours, dtype=np.int64)
    lines = np.arange(len(rates), dtype=np.int64) + FIRST_LINE
    return FundingTable(START_NS + at * NS_PER_HOUR, np.array(rates, dtype=np.float64), lines, ())


def load(env, given, instrument=PERP, **options):
    return import_funding(env, given, instrument, "rates.csv", **options)


def read(env, instrument=PERP, *edges):
    times, rates = FundingStore(env).read(instrument, *edges)
    return ((times - START_NS) // NS_PER_HOUR).tolist(), rates.tolist()


RATES = st.floats(-1, 1, exclude_min=True, exclude_max=True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.dictionaries(st.integers(0, 60), RATES, min_size=1), st.booleans()), max_size=6),
    st.integers(-5, 65),
    st.integers(-5, 65),
)
def test_merges_and_ranges_are_those_of_a_dictionary_bit_for_bit(merges, low, high):
    oracle = {}
    with tempfile.TemporaryDirectory() as folder, Environment(Path(folder), StoreConfig(sync=False)) as env:
        store = FundingStore(env)
        for rows, replace in merges:
            hours = np.array(sorted(rows), dtype=np.int64)
            rates = np.array([rows[hour] for hour in sorted(rows)])
            differing = [hour for hour in sorted(rows) if oracle.get(hour, rows[hour]) != rows[hour]]
            at = START_NS + hours * NS_PER_HOUR
            overlay = env.write(lambda t, at=at, r=rates, w=replace: store.merge(t, PERP, at, r, replace=w))
            first = START_NS + differing[0] * NS_PER_HOUR if differing else None
            assert (overlay.replaced, overlay.first_difference_ns) == (len(differing), first)
            assert overlay.added == len(rows.keys() - oracle.keys())
            if replace:
                oracle |= rows
            elif not differing:
                oracle = rows | oracle
        for start, stop in ((None, None), (low, high), (low, None), (None, high)):
            edges = [None if each is None else START_NS + each * NS_PER_HOUR for each in (start, stop)]
            times, rates = store.read(PERP, *edges)
            wanted = [h for h in sorted(oracle) if (start is None or h >= start) and (stop is None or h < stop)]
            assert ((times - START_NS) // NS_PER_HOUR).tolist() == wanted
            assert (times.dtype, rates.dtype) == (np.int64, np.float64)
            np.testing.assert_array_equal(rates, np.array([oracle[hour] for hour in wanted]))
        (series,) = store.series() if oracle else [None]
        assert series is None or (series.instrument, series.rows) == (PERP, len(oracle))


def test_a_file_that_was_imported_before_adds_nothing(env):
    assert load(env, table(1e-4, -2e-4)).added == 2
    before = FundingStore(env).series()
    report = load(env, table(1e-4, -2e-4))
    assert (report.added, report.unchanged, report.replaced) == (0, 2, 0)
    assert FundingStore(env).series() == before


def test_instruments_do_not_mix(env):
    load(env, table(1e-4))
    load(env, table(3e-4, 4e-4), OTHER)
    assert read(env) == ([0], [1e-4])
    assert read(env, OTHER) == ([0, 8], [3e-4, 4e-4])
    assert read(env, Instrument("local", "ETH")) == ([], [])
    assert [each.instrument for each in FundingStore(env).series()] == [PERP, OTHER]


def test_rows_out_of_order_are_sorted_and_repeats_dropped_both_said(env):
    report = load(env, table(3e-4, 1e-4, 2e-4, 1e-4, hours=[16, 0, 8, 0]))
    assert read(env) == ([0, 8, 16], [1e-4, 2e-4, 3e-4])
    assert (report.rows, report.added, report.repeated) == (4, 3, 1)
    assert report.notes[0] == "rows were not in order of time: sorted"
    assert report.notes[1].startswith("1 rows repeated")


def test_two_rates_for_one_time_are_refused_with_both_lines(env):
    with pytest.raises(
        SourceDataInvalid, match="lines 3 and 5: two different rates for 2022-01-08T08:00:00Z"
    ) as caught:
        load(env, table(1e-4, 2e-4, 3e-4, 9e-4, hours=[0, 8, 16, 8]))
    assert caught.value.code == Code.FUNDING_INVALID
    assert read(env) == ([], [])


@pytest.mark.parametrize("rate", [1.0, -1.0, 1.5, np.nan, np.inf])
def test_a_rate_that_is_no_fraction_is_refused_with_its_line(env, rate):
    with pytest.raises(
        SourceDataInvalid, match=r"rates\.csv line 3: rate .* is no fraction between -1 and 1"
    ) as caught:
        load(env, table(1e-4, rate))
    assert caught.value.code == Code.FUNDING_INVALID
    assert caught.value.details == {"file": "rates.csv", "line": 3, "field": "rate"}


@pytest.mark.parametrize("year", [1971, 2008, 2100, 2200])
def test_a_time_of_another_century_is_refused(env, year):
    time_ns = np.array([f"{year}-06-01"], dtype="datetime64[ns]").astype(np.int64)
    with pytest.raises(SourceDataInvalid, match=rf"line 2: time {year}-06-01T00:00:00Z lies outside") as caught:
        load(env, table(1e-4)._replace(time_ns=time_ns))
    assert caught.value.details["field"] == "time"


def test_rates_that_differ_from_stored_ones_are_refused_unless_told_to_replace(env):
    load(env, table(1e-4, 2e-4, 3e-4))
    with pytest.raises(Conflict, match=r"1 rates differ .* first at 2022-01-08T08:00:00Z") as caught:
        load(env, table(1e-4, 5e-4, 3e-4, 4e-4))
    assert caught.value.code == Code.FUNDING_CONFLICT
    assert read(env)[1] == [1e-4, 2e-4, 3e-4]
    report = load(env, table(1e-4, 5e-4, 3e-4, 4e-4), replace=True)
    assert (report.added, report.unchanged, report.replaced) == (1, 2, 1)
    assert read(env)[1] == [1e-4, 5e-4, 3e-4, 4e-4]


def test_two_sources_that_round_times_differently_are_pointed_out(env):
    load(env, table(1e-4, 2e-4))
    late = table(1e-4, 2e-4)
    report = load(env, late._replace(time_ns=late.time_ns + 3_000_000))
    assert any("2 stored rates follow another within a minute" in note for note in report.notes)


def test_rates_are_deleted_by_time_or_whole(env):
    load(env, table(1e-4, 2e-4, 3e-4, 4e-4))
    store = FundingStore(env)

    def delete(*edges):
        return env.write(lambda transaction: store.delete(transaction, PERP, *edges))

    assert delete(START_NS + EIGHT_HOURS, START_NS + 3 * EIGHT_HOURS) == 2
    assert read(env) == ([0, 24], [1e-4, 4e-4])
    assert delete(START_NS + 9 * EIGHT_HOURS, None) == 0
    assert delete(None, None) == 2
    assert delete(None, None) == 0
    assert store.series() == []


def test_damage_is_found_and_can_be_deleted(env):
    load(env, table(1e-4, 2e-4))
    (sound,) = verify(env)
    assert (sound.instrument, sound.series, sound.rows, sound.problems) == (PERP, "funding", 2, [])
    key = keys.document("funding", PERP.key)
    with env.read() as transaction:
        value = bytearray(transaction.get("documents", key))
    value[len(value) // 2] ^= 0x10
    env.write(lambda transaction: transaction.put("documents", key, bytes(value)))
    (damaged,) = verify(env)
    assert "damaged" in damaged.problems[0]
    with pytest.raises(StoreCorrupt):
        FundingStore(env).read(PERP)
    env.write(lambda transaction: FundingStore(env).delete(transaction, PERP, None, None))
    assert list(verify(env)) == []
