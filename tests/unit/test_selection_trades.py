"""Bars that a job makes from stored trades, against a slow resampling of the same trades."""

import numpy as np
import pytest
from naive import tick_bars as naive

from daemon.core.market import NS_PER_SECOND, Instrument, Timeframe
from daemon.core.ticks import COLUMNS, Stream, ticks
from daemon.research.plans import ProbeJob
from daemon.research.selection import fingerprint, select
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig
from daemon.store.upkeep import compact

BTC = Instrument("binance", "BTCUSDT")
START_NS = 1_723_161_600 * NS_PER_SECOND


def trades(count, start_id=0):
    rng = np.random.default_rng(start_id)
    return ticks(
        Stream.TRADES,
        price_decimals=2,
        size_decimals=5,
        time_ns=START_NS + (start_id + np.arange(count)) * 40_000_000,
        id=start_id + np.arange(count),
        price=6_180_030 + np.cumsum(rng.integers(-3, 4, count)),
        size=rng.integers(1, 10**6, count),
        side=np.where(rng.random(count) < 0.5, 1, -1),
    )


@pytest.fixture
def store(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield BarStore(env)


def put(store, *parts):
    with BulkWriter(store.ticks, BTC, Stream.TRADES) as writer:
        for rows in parts:
            writer.add(rows)
        writer.finish()


def job(timeframe, start_ns=None, stop_ns=None):
    return ProbeJob(
        run_id="run",
        instrument=BTC,
        timeframe=timeframe,
        source=Stream.TRADES,
        start_ns=start_ns,
        stop_ns=stop_ns,
        period=(None, None),
        combinations=[],
        risk_profiles={},
        persist_trades=False,
        spool="",
    )


@pytest.mark.parametrize("timeframe", [Timeframe.SEC_1, Timeframe.MIN_1, Timeframe.MIN_5])
def test_bars_are_those_of_a_slow_resampling(store, timeframe):
    rows = trades(20_000)
    put(store, rows)
    bars = select(store, job(timeframe)).bars
    expected = [tuple(map(float, (bar[0], *bar[2:]))) for bar in naive.bars(naive.ticks_of([rows]), timeframe.ns)]
    assert [tuple(map(float, bar)) for bar in zip(*bars, strict=True)] == expected


def test_the_first_and_last_bar_are_named_where_trades_begin_or_end_inside_them(store):
    put(store, trades(20_000, start_id=3))
    selection = select(store, job(Timeframe.MIN_1))
    assert selection.partial_buckets == (START_NS, int(selection.bars.start_ns[-1]))
    cut = job(Timeframe.MIN_1, START_NS + 60 * NS_PER_SECOND, START_NS + 180 * NS_PER_SECOND)
    assert select(store, cut).partial_buckets == ()


def test_the_fingerprint_is_of_the_rows_and_not_of_how_they_lie(store):
    rows = trades(150_000)
    put(store, rows.rows(0, 70_000))
    put(store, rows.rows(70_000, 150_000))
    wanted = job(Timeframe.MIN_1)
    before = fingerprint(store, wanted)
    compact(store.ticks, BTC, Stream.TRADES)
    assert fingerprint(store, wanted) == before == select(store, wanted).digest
    put(store, trades(1, start_id=150_000))
    assert fingerprint(store, wanted) != before


def test_holes_in_the_stretch_are_told(store):
    put(store, trades(1_000), trades(1_000, start_id=1_010), trades(10, start_id=5_000))
    assert [hole.missing for hole in select(store, job(Timeframe.SEC_1)).holes] == [10, 2_990]
    first_minute = job(Timeframe.SEC_1, START_NS, START_NS + 60 * NS_PER_SECOND)
    assert [hole.missing for hole in select(store, first_minute).holes] == [10]


def test_numbers_of_more_digits_than_a_float_holds_have_one_fingerprint(store):
    rows = trades(500)
    long = rows.column("size") + (1 << 53) * 10
    columns = tuple(long if name == "size" else rows.column(name) for name in COLUMNS[Stream.TRADES])
    put(store, rows._replace(columns=columns))
    wanted = job(Timeframe.SEC_1)
    assert select(store, wanted).digest == fingerprint(store, wanted)
