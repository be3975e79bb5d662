"""From a request to a plan: what is checked, what null means, and where a timeframe's bars come from."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from daemon.core.errors import InvalidRequest, NotFound
from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, NS_PER_SECOND, Bars, Instrument, Timeframe
from daemon.core.strategy import RiskProfile
from daemon.research import plans, strategies
from daemon.research.plans import ProbeRequest
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

BOOK = strategies.load([Path(__file__).parents[2] / "strategies.json"])
PROFILES = {"low": RiskProfile(0.75, 0.75, 0.75, 0.6), "medium": RiskProfile(), "high": RiskProfile(1.5, 1.5, 1.5, 1.5)}
START_NS = 19_000 * NS_PER_DAY  # 2022-01-08


def flat(count, step_ns):
    price = np.full(count, 100.0)
    return Bars(START_NS + np.arange(count) * step_ns, price, price, price, price, price)


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """SPY at one hour and one day, MINI at one and five minutes, TWO at two venues."""
    stored = [
        ("local:SPY", Timeframe.HOUR_1, flat(240, NS_PER_HOUR)),
        ("local:SPY", Timeframe.DAY_1, flat(10, NS_PER_DAY)),
        ("local:MINI", Timeframe.MIN_1, flat(3000, 60 * NS_PER_SECOND)),
        ("local:MINI", Timeframe.MIN_5, flat(600, 300 * NS_PER_SECOND)),
        ("here:TWO", Timeframe.DAY_1, flat(3, NS_PER_DAY)),
        ("there:TWO", Timeframe.DAY_1, flat(3, NS_PER_DAY)),
    ]
    with Environment(tmp_path_factory.mktemp("plans"), StoreConfig(sync=False)) as env:
        store = BarStore(env)
        for key, timeframe, rows in stored:
            instrument = Instrument(*key.split(":"))
            env.write(
                lambda transaction, of=instrument, length=timeframe, new=rows: store.merge(
                    transaction, of, length, new, replace=False
                )
            )
        yield store


@pytest.fixture
def planned(bars):
    """Plan a request; fields not given ask for SPY at one hour."""

    def plan(**fields):
        request = ProbeRequest(**({"symbols": ["SPY"], "timeframes": ["1Hour"]} | fields))
        return plans.plan(request, bars, BOOK, PROFILES)

    return plan


def ns(*day):
    return int(datetime(*day, tzinfo=UTC).timestamp()) * NS_PER_SECOND


def test_null_means_everything_there_is(planned):
    plan = planned()
    assert plan.strategy_ids == list(range(1, 101))
    assert plan.risk_profiles == PROFILES
    assert (plan.start_ns, plan.stop_ns) == (None, None)
    assert plan.combinations == 300
    assert plans.RUN_ID_PATTERN.fullmatch(plan.run_id)
    assert plan.run_id != planned().run_id


def test_there_is_one_target_a_symbol_and_timeframe(planned):
    plan = planned(symbols=["SPY", "MINI"], timeframes=["1Day", "1Hour"], strategy_ids=[7, 3], risk_profiles=["high"])
    assert [(target.instrument.symbol, target.timeframe) for target in plan.targets] == [
        ("SPY", "1Day"),
        ("SPY", "1Hour"),
        ("MINI", "1Day"),
        ("MINI", "1Hour"),
    ]
    assert plan.combinations == 8


def test_what_is_named_twice_is_run_once(planned):
    plan = planned(
        symbols=["SPY", "spy", "local:SPY"],
        timeframes=["1Hour", "1Hour"],
        strategy_ids=[1, 1, 2],
        risk_profiles=["low", "low"],
    )
    assert len(plan.targets) == 1
    assert plan.strategy_ids == [1, 2]
    assert plan.combinations == 2


def test_symbols_are_found_in_any_case_and_by_venue(planned):
    assert planned(symbols=["spy"]).targets[0].instrument == Instrument("local", "SPY")
    there = planned(symbols=["There:two"], timeframes=["1Day"])
    assert there.targets[0].instrument == Instrument("there", "TWO")


@pytest.mark.parametrize(
    ("timeframe", "source"),
    [("1Hour", "5Min"), ("1Day", "5Min"), ("15Min", "5Min"), ("5Min", "5Min"), ("1Min", "1Min")],
)
def test_a_timeframe_comes_from_the_longest_stored_one_that_divides_it(planned, timeframe, source):
    (target,) = planned(symbols=["MINI"], timeframes=[timeframe]).targets
    assert (target.timeframe, target.source) == (timeframe, source)
    assert target.bars == 3000 * Timeframe.MIN_1.ns / target.timeframe.ns


def test_a_stored_timeframe_is_never_derived(planned):
    assert [target.source for target in planned(timeframes=["1Hour", "1Day"]).targets] == ["1Hour", "1Day"]


def test_every_shorter_timeframe_divides_every_longer_one_or_is_passed_over():
    instrument = Instrument("local", "X")
    for wanted in Timeframe:
        for stored in Timeframe:
            if stored.ns <= wanted.ns:
                assert plans.source_of(wanted, [stored], instrument) == stored
            else:
                with pytest.raises(NotFound) as caught:
                    plans.source_of(wanted, [stored], instrument)
                assert stored in caught.value.message


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, (None, None)),
        ("2022-01-10", None, (ns(2022, 1, 10), None)),
        (None, "2022-01-10", (None, ns(2022, 1, 11))),
        ("2022-01-10", "2022-01-10", (ns(2022, 1, 10), ns(2022, 1, 11))),
        ("1969-12-31", "1969-12-31", (-NS_PER_DAY, 0)),
        ("2024-02-29", "2024-12-31", (ns(2024, 2, 29), ns(2025, 1, 1))),
    ],
)
def test_the_first_day_begins_at_midnight_and_the_last_is_whole(start, end, expected):
    assert plans.date_range(start, end) == expected


def test_the_earliest_and_latest_days_fit_the_store_s_time():
    assert plans.date_range("1678-01-01", "2261-12-31")[0] > np.iinfo(np.int64).min
    assert plans.date_range("1678-01-01", "2261-12-31")[1] < np.iinfo(np.int64).max


NO_DAYS = [
    *("2022-1-8", "2022-13-01", "2022-02-30", "20220108", "2022-W01-1", "08.01.2022", "", "2022-01-08T00:00"),
    *(" 2022-01-08", "1677-12-31", "2262-01-01", "9999-12-31", "0001-01-01", "\N{ARABIC-INDIC DIGIT TWO}022-01-08"),
]


@pytest.mark.parametrize("day", NO_DAYS)
@pytest.mark.parametrize("field", ["start_date", "end_date"])
def test_a_day_that_is_none_is_refused(planned, day, field):
    with pytest.raises(InvalidRequest) as caught:
        planned(**{field: day})
    assert caught.value.code == "INVALID_DATE_RANGE"
    assert caught.value.details == {"field": field}
    assert f"{field} `{day}`" in caught.value.message


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"symbols": ["XYZ"]}, NotFound, "INVALID_SYMBOL"),
        ({"symbols": ["X Y"]}, InvalidRequest, "INVALID_SYMBOL"),
        ({"symbols": ["elsewhere:SPY"]}, NotFound, "INVALID_SYMBOL"),
        ({"symbols": ["TWO"], "timeframes": ["1Day"]}, InvalidRequest, "AMBIGUOUS_SYMBOL"),
        ({"symbols": []}, InvalidRequest, "INVALID_REQUEST"),
        ({"timeframes": []}, InvalidRequest, "INVALID_REQUEST"),
        ({"timeframes": ["1hour"]}, InvalidRequest, "INVALID_TIMEFRAME"),
        ({"timeframes": ["15Min"]}, NotFound, "NO_BARS"),
        ({"risk_profiles": []}, InvalidRequest, "INVALID_REQUEST"),
        ({"risk_profiles": ["LOW"]}, InvalidRequest, "INVALID_RISK_PROFILE"),
        ({"strategy_ids": []}, InvalidRequest, "INVALID_REQUEST"),
        ({"strategy_ids": [0]}, NotFound, "INVALID_STRATEGY"),
        ({"strategy_ids": [101]}, NotFound, "INVALID_STRATEGY"),
        ({"start_date": "2022-01-09", "end_date": "2022-01-08"}, InvalidRequest, "INVALID_DATE_RANGE"),
        ({"start_date": "2022-01-18"}, NotFound, "NO_BARS"),
        ({"end_date": "2022-01-07"}, NotFound, "NO_BARS"),
        ({"run_id": ""}, InvalidRequest, "INVALID_RUN_ID"),
        ({"run_id": "a/b"}, InvalidRequest, "INVALID_RUN_ID"),
        ({"run_id": "a\n"}, InvalidRequest, "INVALID_RUN_ID"),
        ({"run_id": "x" * 51}, InvalidRequest, "INVALID_RUN_ID"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(planned, fields, kind, code):
    with pytest.raises(kind) as caught:
        planned(**fields)
    assert caught.value.code == code
    assert caught.value.message


def test_dates_that_touch_the_first_and_last_bar_are_met(planned):
    assert planned(start_date="2022-01-17").targets
    assert planned(end_date="2022-01-08").targets


@pytest.mark.parametrize("run_id", ["a", "A-1_b.2", "x" * 50, "..", "-"])
def test_a_run_may_be_named(planned, run_id):
    assert planned(run_id=run_id).run_id == run_id


def test_the_estimate_grows_with_bars_and_shrinks_with_workers(planned):
    assert planned().estimated_seconds(1) == 1
    instrument = Instrument("local", "SPY")
    long = plans.Target(instrument, Timeframe.MIN_1, Timeframe.MIN_1, 10_000_000)
    plan = planned()
    plan = plans.Plan(**{name: getattr(plan, name) for name in plan.__struct_fields__} | {"targets": [long]})
    assert plan.estimated_seconds(1) > 10
    assert plan.estimated_seconds(4) == pytest.approx(plan.estimated_seconds(1) / 4, abs=1)
