"""Stored bars against a dictionary that does the same."""

import tempfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core.errors import Code, InvalidRequest, NotFound
from daemon.core.market import NS_PER_HOUR, Bars, Instrument, Timeframe
from daemon.core.ticks import Stream
from daemon.store import codec, keys
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from daemon.store.instruments import parse_instrument

SPY = Instrument("local", "SPY")
HOUR = Timeframe.HOUR_1


@pytest.fixture
def opened(tmp_path):
    with Environment(tmp_path, StoreConfig()) as env:
        yield env, BarStore(env)


def bars_at(hours, value=1.0):
    prices = np.full(len(hours), value)
    return Bars(np.array(hours, dtype=np.int64) * NS_PER_HOUR, *(prices + step for step in range(5)))


def merge(opened, bars, *, instrument=SPY, timeframe=HOUR, **options):
    env, store = opened
    stated = {"replace": False} | options
    return env.write(lambda transaction: store.merge(transaction, instrument, timeframe, bars, **stated))


MERGES = st.lists(
    st.tuples(st.sets(st.integers(-60, 60), min_size=1, max_size=25), st.sampled_from([1.0, 2.5]), st.booleans()),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(MERGES, st.integers(-70, 70), st.integers(-70, 70))
def test_merges_and_ranges_are_those_of_a_dictionary(merges, low, high):
    oracle = {}
    chunk_rows, codec.CHUNK_ROWS = codec.CHUNK_ROWS, 7
    try:
        with tempfile.TemporaryDirectory() as folder, Environment(Path(folder), StoreConfig(sync=False)) as env:
            opened = env, BarStore(env)
            for hours, value, replace in merges:
                rows = dict.fromkeys(sorted(hours), value)
                differing = [hour for hour in rows if oracle.get(hour, value) != value]
                overlay = merge(opened, bars_at(list(rows), value), replace=replace)
                assert overlay.added == len(rows.keys() - oracle.keys())
                assert overlay.replaced == len(differing)
                assert overlay.first_difference_ns == (differing[0] * NS_PER_HOUR if differing else None)
                if replace or not differing:
                    oracle.update(rows)
            check(opened, oracle, low, high)
    finally:
        codec.CHUNK_ROWS = chunk_rows


def check(opened, oracle, low, high):
    store = opened[1]
    for start, stop in ((None, None), (low, high), (None, high), (low, None)):
        wanted = [h for h in sorted(oracle) if (start is None or h >= start) and (stop is None or h < stop)]
        edges = (None if start is None else start * NS_PER_HOUR, None if stop is None else stop * NS_PER_HOUR)
        found = store.read(SPY, HOUR, *edges)
        assert (found.start_ns // NS_PER_HOUR).tolist() == wanted
        assert found.close.tolist() == [oracle[hour] + 3 for hour in wanted]
        assert store.holds(SPY, HOUR, *edges) == bool(wanted)
    series = store.series()
    assert [(each.instrument, each.timeframe, each.rows) for each in series] == (
        [(SPY, HOUR, len(oracle))] if oracle else []
    )
    if oracle:
        assert (series[0].first_ns, series[0].last_ns) == (min(oracle) * NS_PER_HOUR, max(oracle) * NS_PER_HOUR)
        with opened[0].read() as transaction:
            sizes = [len(value) for _, value in transaction.scan("chunks", b"")]
        assert series[0].stored_bytes == sum(sizes)


def test_an_append_fills_the_last_chunk_before_it_begins_another(opened, monkeypatch):
    monkeypatch.setattr(codec, "CHUNK_ROWS", 10)
    for hour in range(25):
        merge(opened, bars_at([hour]))
    with opened[0].read() as transaction:
        assert [codec.rows(value) for _, value in transaction.scan("chunks", b"")] == [10, 10, 5]


def test_the_same_rows_again_write_nothing(opened):
    merge(opened, bars_at([1, 2, 3]))
    before = opened[1].series()
    assert merge(opened, bars_at([1, 2, 3])).unchanged == 3
    assert opened[1].series() == before


# What volumes count.


def test_volumes_count_base_units_unless_an_import_says_otherwise(opened):
    store = opened[1]
    merge(opened, bars_at([1]))
    merge(opened, bars_at([24]), timeframe=Timeframe.DAY_1, volume_unit="quote")
    assert store.volume_unit(SPY, HOUR) == "base"
    assert store.volume_unit(SPY, Timeframe.DAY_1) == "quote"
    assert [(each.timeframe, each.volume_unit) for each in store.series()] == [
        (HOUR, "base"),
        (Timeframe.DAY_1, "quote"),
    ]


def test_rows_without_a_unit_join_a_series_in_its_own(opened):
    merge(opened, bars_at([1, 2]), volume_unit="quote")
    merge(opened, bars_at([3]))
    merge(opened, bars_at([2], value=5.0), replace=True)
    assert opened[1].volume_unit(SPY, HOUR) == "quote"
    assert opened[1].read(SPY, HOUR).size == 3


def test_derived_bars_count_what_the_longest_stored_ones_that_divide_them_do(opened):
    store = opened[1]
    merge(opened, bars_at([1]), timeframe=Timeframe.MIN_1)
    merge(opened, bars_at([1]), timeframe=Timeframe.MIN_5, volume_unit="quote")
    assert store.volume_unit(SPY, HOUR) == "quote"
    assert store.volume_unit(SPY, Timeframe.MIN_1) == "base"
    assert store.volume_unit(SPY, Timeframe.SEC_1) == "base"
    assert store.volume_unit(SPY, Stream.TRADES) == "base"
    assert store.volume_unit(Instrument("local", "QQQ"), HOUR) == "base"


@pytest.mark.parametrize("replace", [False, True])
def test_rows_of_another_unit_are_kept_out_where_stored_ones_would_stay(opened, replace):
    merge(opened, bars_at([1, 2]), volume_unit="quote")
    before = opened[1].series()
    for hours in ([3], [2, 3], [1]):
        overlay = merge(opened, bars_at(hours), volume_unit="base", replace=replace)
        assert overlay.other_unit == "quote"
    assert opened[1].series() == before
    assert opened[1].read(SPY, HOUR).size == 2


@pytest.mark.parametrize("value", [1.0, 5.0])
def test_a_file_that_replaces_every_row_changes_the_unit_as_well(opened, value):
    merge(opened, bars_at([1, 2]))
    overlay = merge(opened, bars_at([1, 2, 3], value), volume_unit="quote", replace=True)
    assert (overlay.other_unit, overlay.added) == (None, 1)
    assert opened[1].volume_unit(SPY, HOUR) == "quote"
    assert opened[1].read(SPY, HOUR).open.tolist() == [value] * 3


def test_a_series_whose_rows_are_all_as_stored_changes_its_unit_on_request(opened):
    merge(opened, bars_at([1, 2]))
    assert merge(opened, bars_at([1, 2]), volume_unit="quote").other_unit == "base"
    merge(opened, bars_at([1, 2]), volume_unit="quote", replace=True)
    (series,) = opened[1].series()
    assert (series.volume_unit, series.rows) == ("quote", 2)


def test_series_of_releases_that_knew_no_unit_count_base_units(opened):
    merge(opened, bars_at([1, 2]), volume_unit="quote")

    def as_it_was(transaction):
        ((key, value),) = [(key, bytes(value)) for key, value in transaction.scan("series", b"")]
        transaction.put("series", key, msgspec.msgpack.encode(msgspec.msgpack.decode(value)[:4]))
        assert keys.instrument_of(key)[1] == keys.Stream.BARS

    opened[0].write(as_it_was)
    assert opened[1].volume_unit(SPY, HOUR) == "base"
    merge(opened, bars_at([3]))
    assert [(each.rows, each.volume_unit) for each in opened[1].series()] == [(3, "base")]


def test_instruments_and_timeframes_do_not_mix(opened):
    other = Instrument("binance", "SPY")
    merge(opened, bars_at([1]))
    merge(opened, bars_at([2]), instrument=other)
    merge(opened, bars_at([24]), timeframe=Timeframe.DAY_1)
    assert opened[1].read(SPY, HOUR).size == opened[1].read(other, HOUR).size == 1
    assert list(opened[1].timeframes(SPY)) == [HOUR, Timeframe.DAY_1]
    assert list(opened[1].timeframes(other)) == [HOUR]
    assert opened[1].timeframes(Instrument("local", "QQQ")) == {}
    assert [series.instrument.key for series in opened[1].series()] == ["binance:SPY", "local:SPY", "local:SPY"]


def test_a_bare_symbol_resolves_while_it_is_unique(opened):
    merge(opened, bars_at([1]))
    assert opened[1].resolve("spy") == SPY
    merge(opened, bars_at([1]), instrument=Instrument("binance", "SPY"))
    with pytest.raises(InvalidRequest, match="write one of binance:SPY, local:SPY") as refusal:
        opened[1].resolve("SPY")
    assert refusal.value.code == Code.AMBIGUOUS_SYMBOL
    assert opened[1].resolve("LOCAL:spy") == SPY


def test_a_symbol_that_is_not_stored_is_not_found(opened):
    for text in ("QQQ", "local:QQQ", "binance:SPY"):
        with pytest.raises(NotFound, match=f"Symbol {text} not found") as refusal:
            opened[1].resolve(text)
        assert refusal.value.code == Code.INVALID_SYMBOL


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!",
        "a b",
        "x" * 33,
        "ve nue:SPY",
        ":SPY",
        "v" * 17 + ":SPY",
        "local:",
        "é",
        "stra\N{LATIN SMALL LETTER SHARP S}e",
        "\N{KELVIN SIGN}x:SPY",
    ],
)
def test_what_is_no_symbol_is_refused(text):
    with pytest.raises(InvalidRequest) as refusal:
        parse_instrument(text)
    assert refusal.value.code == Code.INVALID_SYMBOL


def test_symbols_are_upper_case_and_venues_lower_case():
    assert parse_instrument(" Binance:btc/usdt ").key == "binance:BTC/USDT"
    assert parse_instrument("brk.b", "NYSE").key == "nyse:BRK.B"
