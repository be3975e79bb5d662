"""The bars a job sees, against a slow resampling of everything that is stored."""

from pathlib import Path

import numpy as np
import pytest
from naive import probe as naive

from adapters.barfile import read_bars
from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, Bars, Instrument, Timeframe
from daemon.research import plans
from daemon.research.plans import ProbeJob
from daemon.research.selection import fingerprint, select
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

SYNTHETIC = Path(__file__).parents[1] / "golden" / "synthetic"
QUARTERS = read_bars(SYNTHETIC / "bars-SYNA_15Min.csv.gz").bars
DAY = Timeframe.DAY_1.ns
FIRST_DAY = int(QUARTERS.start_ns[0]) // DAY * DAY


@pytest.fixture
def store(tmp_path):
    with Environment(tmp_path, StoreConfig(sync=False)) as env:
        yield Stored(env)


class Stored(BarStore):
    """A store of one instrument."""

    instrument = Instrument("local", "SYNA")

    def __init__(self, env):
        super().__init__(env)
        self._writer = env

    def put(self, timeframe, bars):
        self._writer.write(lambda transaction: self.merge(transaction, self.instrument, timeframe, bars, replace=False))

    def job(self, timeframe, start_ns=None, stop_ns=None):
        return ProbeJob(
            run_id="run",
            instrument=self.instrument,
            timeframe=timeframe,
            source=plans.source_of(timeframe, self.timeframes(self.instrument), self.instrument),
            start_ns=start_ns,
            stop_ns=stop_ns,
            period=(None, None),
            combinations=[],
            risk_profiles={},
            persist_trades=False,
            spool="",
        )

    def select(self, timeframe, start_ns=None, stop_ns=None):
        return select(self, self.job(timeframe, start_ns, stop_ns))


def same(bars, expected):
    return all(np.array_equal(mine, theirs) for mine, theirs in zip(bars, expected, strict=True))


def within(bars, start_ns, stop_ns):
    kept = (bars.start_ns >= start_ns) & (bars.start_ns < stop_ns)
    return Bars._make(column[kept] for column in bars)


def holed(bars, share=0.4, seed=5):
    kept = np.random.default_rng(seed).random(bars.size) > share
    return Bars._make(column[kept] for column in bars)


@pytest.mark.parametrize("timeframe", [Timeframe.HOUR_1, Timeframe.DAY_1])
@pytest.mark.parametrize("thin", [False, True])
def test_derived_bars_are_those_of_slow_resampling(store, timeframe, thin):
    stored = holed(QUARTERS) if thin else QUARTERS
    store.put(Timeframe.MIN_15, stored)
    assert same(store.select(timeframe).bars, naive.resample(stored, timeframe.ns))


def test_a_stored_timeframe_is_taken_as_it_is(store):
    store.put(Timeframe.MIN_15, QUARTERS)
    selection = store.select(Timeframe.MIN_15)
    assert same(selection.bars, QUARTERS)
    assert selection.partial_buckets == ()


def test_the_longest_stored_timeframe_that_divides_is_the_source(store):
    hours = naive.resample(QUARTERS, NS_PER_HOUR)
    marked = hours._replace(high=hours.high + 1)  # unlike what the quarters would give
    store.put(Timeframe.MIN_15, QUARTERS)
    store.put(Timeframe.HOUR_1, marked)
    assert store.job(Timeframe.DAY_1).source == Timeframe.HOUR_1
    assert same(store.select(Timeframe.DAY_1).bars, naive.resample(marked, DAY))
    assert same(store.select(Timeframe.HOUR_1).bars, marked)


@pytest.mark.parametrize("timeframe", [Timeframe.MIN_15, Timeframe.HOUR_1, Timeframe.DAY_1])
@pytest.mark.parametrize(("start", "stop"), [(2, 5), (0, 1), (None, 3), (4, None), (15, 16), (15, 400)])
def test_dates_cut_what_was_derived_from_everything(store, timeframe, start, stop):
    stored = holed(QUARTERS)
    store.put(Timeframe.MIN_15, stored)
    start_ns = None if start is None else FIRST_DAY + start * NS_PER_DAY
    stop_ns = None if stop is None else FIRST_DAY + stop * NS_PER_DAY
    whole = stored if timeframe is Timeframe.MIN_15 else naive.resample(stored, timeframe.ns)
    expected = within(whole, start_ns if start_ns is not None else 0, stop_ns or 2**62)
    selected = store.select(timeframe, start_ns, stop_ns).bars
    assert selected.size > 0
    assert same(selected, expected)


def test_dates_without_bars_select_nothing(store):
    store.put(Timeframe.MIN_15, QUARTERS)
    for timeframe in (Timeframe.MIN_15, Timeframe.DAY_1):
        selection = store.select(timeframe, FIRST_DAY - 9 * NS_PER_DAY, FIRST_DAY)
        assert (selection.bars.size, selection.partial_buckets) == (0, ())


def test_buckets_before_1970_are_aligned_too(store):
    shifted = QUARTERS._replace(start_ns=QUARTERS.start_ns - 30_000 * NS_PER_DAY + 5 * NS_PER_HOUR)
    store.put(Timeframe.MIN_15, shifted)
    selection = store.select(Timeframe.DAY_1)
    assert same(selection.bars, naive.resample(shifted, DAY))
    assert (selection.bars.start_ns % DAY == 0).all()
    assert selection.partial_buckets[0] == selection.bars.start_ns[0] < 0


@pytest.mark.parametrize(
    ("first", "stop", "partial"),
    [
        (0, 96, []),  # one whole day
        (1, 96, [0]),  # its first quarter of an hour is missing
        (0, 95, [0]),  # its last
        (1, 95, [0]),  # both, one bucket named once
        (0, 192, []),
        (0, 191, [1]),
        (50, 150, [0, 1]),
        (50, 250, [0, 2]),
    ],
)
def test_edge_buckets_that_are_covered_in_part_are_kept_and_named(store, first, stop, partial):
    store.put(Timeframe.MIN_15, QUARTERS.rows(first, stop))
    selection = store.select(Timeframe.DAY_1)
    assert selection.partial_buckets == tuple(FIRST_DAY + day * NS_PER_DAY for day in partial)
    assert set(selection.partial_buckets) <= set(selection.bars.start_ns.tolist())


def test_holes_inside_and_dates_make_no_partial_edges(store):
    store.put(Timeframe.MIN_15, QUARTERS.rows(0, 384))
    assert store.select(Timeframe.DAY_1, FIRST_DAY + NS_PER_DAY, FIRST_DAY + 3 * NS_PER_DAY).partial_buckets == ()
    thin = np.r_[0:10, 90:200, 300:384]
    other = Instrument("local", "THIN")
    store.instrument = other
    store.put(Timeframe.MIN_15, Bars._make(column[thin] for column in QUARTERS))
    assert store.select(Timeframe.DAY_1).partial_buckets == ()


def test_dates_that_leave_an_edge_out_do_not_name_it(store):
    store.put(Timeframe.MIN_15, QUARTERS.rows(50, 250))
    second = FIRST_DAY + NS_PER_DAY
    assert store.select(Timeframe.DAY_1, second, None).partial_buckets == (FIRST_DAY + 2 * NS_PER_DAY,)
    assert store.select(Timeframe.DAY_1, None, second).partial_buckets == (FIRST_DAY,)
    assert store.select(Timeframe.DAY_1, second, second + NS_PER_DAY).partial_buckets == ()


def test_the_fingerprint_tells_every_change_within_the_dates_and_none_outside(store):
    store.put(Timeframe.MIN_15, QUARTERS.rows(0, 300))
    two_days = FIRST_DAY + 2 * NS_PER_DAY

    def prints():
        jobs = [store.job(Timeframe.DAY_1), store.job(Timeframe.DAY_1, None, two_days)]
        for job in jobs:
            assert select(store, job).digest == fingerprint(store, job)
        return [fingerprint(store, job) for job in jobs]

    whole, dated = prints()
    assert whole != dated
    store.put(Timeframe.MIN_15, QUARTERS.rows(300, 301))
    assert prints()[0] != whole
    assert prints()[1] == dated


@pytest.mark.parametrize("name", Bars._fields)
def test_the_fingerprint_covers_every_column(store, name):
    rows = QUARTERS.rows(0, 300)
    store.put(Timeframe.MIN_15, rows)
    before = fingerprint(store, store.job(Timeframe.MIN_15))
    column = getattr(rows, name).copy()
    column[-1] += 1
    store.instrument = Instrument("local", "OTHER")
    store.put(Timeframe.MIN_15, rows._replace(**{name: column}))
    assert fingerprint(store, store.job(Timeframe.MIN_15)) != before
