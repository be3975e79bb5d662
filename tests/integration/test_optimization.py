"""Optimisations over a real store: points are the backtests that they name, counted once, judged by their number."""

import contextlib
import math
import statistics

import msgspec
import numpy as np
import pytest
from optimized import BOOK, DIPS, GRID, NEVER, START_NS, config, forget, hours, plan_of, put_bars, worked

from daemon.core.errors import Code, JobFailed, NotFound
from daemon.core.market import NS_PER_DAY, NS_PER_HOUR, Bars
from daemon.engine import significance
from daemon.research.backtest_job import run_backtest
from daemon.research.backtest_records import BacktestJob
from daemon.research.optimization import proposals, records, search, views
from daemon.research.parameters import read_specification
from daemon.research.sweeps import Sweeps
from daemon.research.trials import record, tries_of
from daemon.store.env import Environment, StoreConfig
from daemon.store.funding import FundingStore
from daemon.store.instruments import parse_instrument

DAYS = 35
PAIR = GRID[:2]
LATER = "2022-01-20"
ATR = DIPS | {"exitRules": [{"type": "take_profit", "value": 0.02}, {"type": "stop_loss", "value": {"atr": 2}}]}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A store with two symbols."""
    with Environment(tmp_path_factory.mktemp("optimized") / "data", StoreConfig(sync=False)) as env:
        put_bars(env, hours(DAYS, seed=2), "x:B")
        yield put_bars(env, hours(DAYS))


@pytest.fixture
def store(shared):
    """The same, with nothing tried yet."""
    forget(shared.ticks.env)
    return shared


@pytest.fixture
def own(tmp_path):
    """A store whose bars a test may change."""
    with Environment(tmp_path / "data", StoreConfig(sync=False)) as env:
        yield put_bars(env, hours(DAYS))


@pytest.fixture
def _blocks_of_four(monkeypatch):
    """Points are stored four at a time."""
    monkeypatch.setattr(search, "_MOST_AT_ONCE", 4)


def at(point, asked=None):
    return (asked or config()) | {"point": point}


def backtested(store, tmp_path, asked):
    spec = read_specification(asked, store, BOOK, {})
    return run_backtest(store, BacktestJob("b", spec, str(tmp_path / "b.spool"), asked), lambda _: None, lambda: None)


def counted(store, outcome):
    return store.ticks.env.write(lambda transaction: record(transaction, [outcome.trial]))


def known(store, idea):
    with store.ticks.env.read() as transaction:
        return tries_of(transaction, idea)


def untimed(result):
    """What came of it, whoever tried the points and whenever."""
    execution = msgspec.structs.replace(result.execution, started_at=0, completed_at=0, duration=0, reused=0)
    return msgspec.structs.replace(result, execution=execution)


# Points.


@pytest.mark.parametrize(
    ("parameters", "asked", "options"),
    [
        (PAIR, config(), {}),
        (["indicator_length=0.5,1,2", "take_profit=0.01,0.03"], config(startDate=LATER), {}),
        (PAIR, config(symbols=["A", "B"], startDate=LATER), {}),
        (["take_profit=0.005:0.05", "stop_loss=0.01:0.03"], config(), {"method": "random", "budget": 6}),
        (["take_profit=0.005:0.05", "stop_loss=0.01,0.02"], config(), {"method": "optuna", "budget": 20}),
        (["stop_loss=0,1,2"], config(ATR), {}),
        (["strategy.entryRules[0].value=30:40:5", "timeout=0,5"], config(), {}),
        (["backtest.commission=0,0.001", "backtest.initialCapital=50,10000"], config(), {}),
        (["backtest.calendar=252,365", "stop_loss=0.01,0.02"], config(), {}),
        (["backtest.startDate=1643000000000,1644000000000", "indicator_length=1,2"], config(startDate=LATER), {}),
        (["backtest.fundingRate=0,0.001,0.01"], config(funding="constant", fundingRate=0.001), {}),
        (["stop_loss=0.01,0.04"], at({"take_profit": 0.01, "indicator_length": 2}), {}),
    ],
    ids=[
        "exits", "lengths and a start", "symbols", "random", "optuna", "ATR", "rules", "costs", "calendar", "dates",
        "funding", "a point of its own",
    ],
)  # fmt: skip
def test_a_point_is_the_backtest_of_the_configuration_with_it(store, tmp_path, parameters, asked, options):
    result = worked(store, plan_of(store, parameters, asked, **options))
    assert len({each.total_return_percent for each in result.top}) > 1
    assert len(result.top) == result.points
    for each in [*result.top, result.configured]:
        found = backtested(store, tmp_path, asked | {"point": asked.get("point", {}) | each.parameters}).result
        assert each.total_trades == found.trade_stats.total_trades
        assert each.sharpe_ratio == each.score == found.metrics.sharpe_ratio
        assert each.total_return_percent == pytest.approx(found.metrics.total_return_percent, rel=1e-12, abs=1e-12)
        assert each.max_drawdown_percent == pytest.approx(found.metrics.max_drawdown_percent, rel=1e-12)


@pytest.mark.parametrize("target", ["sharpe", "sortino", "calmar", "return"])
def test_the_peak_is_the_point_with_the_highest_target(store, tmp_path, target):
    result = worked(store, plan_of(store, PAIR, target=target))
    scores = []
    for point in [each.parameters for each in sorted(result.top, key=lambda each: each.number)]:
        figures = backtested(store, tmp_path, at(point)).result.metrics
        scores.append(figures.total_return_percent / 100 if target == "return" else getattr(figures, f"{target}_ratio"))
    assert result.peak.number == scores.index(max(scores))
    assert result.peak.score == pytest.approx(max(scores), rel=1e-12)
    assert [each.score for each in result.top] == pytest.approx(sorted(scores, reverse=True), rel=1e-12)
    assert result.peak_plateau.point == result.peak
    assert result.peak_plateau.share is None or result.peak_plateau.share <= 1
    assert result.plateau.score >= result.peak_plateau.score


def test_a_grid_is_tried_whole_and_seen_from_every_side(store):
    result = worked(store, plan_of(store))
    assert (result.points, result.budget, result.undefined, result.days) == (27, 27, 0, DAYS)
    # Exits change fastest, so that points in turn share their indicators.
    assert [each.name for each in result.ranges] == ["indicator_length", "take_profit", "stop_loss"]
    assert [(each.x, each.y) for each in result.surfaces] == [
        ("indicator_length", "take_profit"), ("indicator_length", "stop_loss"), ("take_profit", "stop_loss"),
    ]  # fmt: skip
    for surface in result.surfaces:
        assert surface.counts == [[3] * 3] * 3
        assert max(map(max, surface.best)) == result.peak.score
    assert result.configured.number == -1
    as_configured = {"take_profit": 0.02, "stop_loss": 0.02, "indicator_length": 1}
    assert next(each for each in result.top if each.parameters == as_configured).score == result.configured.score


def test_stored_points_are_handed_out_as_they_were_tried(store):
    env, plan = store.ticks.env, plan_of(store, PAIR)
    result = worked(store, plan)
    env.write(lambda transaction: records.put_plan(transaction, "o", plan))
    state = records.StoredOptimization(1, 0, _status(plan))
    env.write(lambda transaction: records.put_state(transaction, state))
    rows = msgspec.json.decode(b"".join(views.points_json(env, "o")))
    assert [row["number"] for row in rows] == list(range(9))
    by_number = {each.number: each for each in result.top}
    for row in rows:
        each = by_number[row["number"]]
        assert {name: row[name] for name in each.parameters} == each.parameters
        assert (row["score"], row["total_trades"]) == (each.score, each.total_trades)
    lines = b"".join(views.points_csv(env, "o")).decode().splitlines()
    assert lines[0].split(",") == list(rows[0])
    assert [float(cell) for cell in lines[-1].split(",")] == list(rows[-1].values())


def _status(plan):
    from daemon.research.optimization.result import OptimizationStatus

    return OptimizationStatus(
        id="o", name="n", status="completed", priority="normal", progress=100, target=plan.target, method=plan.method,
        points=plan.points, symbols=[], timeframe="1Hour", created_at=0,
    )  # fmt: skip


# What is judged.


def test_every_point_counts_once_and_neither_a_second_time_nor_as_a_backtest_again(store, tmp_path):
    result = worked(store, plan_of(store))
    idea = result.verdict.idea
    assert len(known(store, idea)) == 27  # the configuration is one of them
    assert (result.verdict.trials, result.verdict.tried_before) == (27, 0)
    again = worked(store, plan_of(store))
    assert again.execution.reused == 27
    forget_rows(store)
    anew = worked(store, plan_of(store))
    assert (anew.execution.reused, anew.verdict.trials, anew.verdict.tried_before) == (0, 27, 27)
    assert counted(store, backtested(store, tmp_path, at(result.peak.parameters))) == 0
    assert counted(store, backtested(store, tmp_path, config())) == 0
    assert len(known(store, idea)) == 27
    assert counted(store, backtested(store, tmp_path, at({"take_profit": 0.5}))) == 1
    assert worked(store, plan_of(store, ["take_profit=0.6"])).verdict.trials == 29


def forget_rows(store):
    """As if it were another optimisation."""
    store.ticks.env.write(lambda transaction: records.remove(transaction, "o"))


@pytest.mark.parametrize("parameters", [PAIR[:1], GRID], ids=["few tries", "many"])
def test_the_deflated_figure_is_that_of_all_tries_before_and_now(store, tmp_path, parameters):
    for point in ({"take_profit": 0.07}, {"stop_loss": 0.07}):
        counted(store, backtested(store, tmp_path, at(point)))
    plan = plan_of(store, parameters)
    result = worked(store, plan)
    verdict = result.verdict
    tries = known(store, verdict.idea)
    assert (verdict.tried_before, verdict.trials) == (2, len(tries))
    assert verdict.trials in (2 + 3, 2 + 27)
    spec = read_specification(at(result.peak.parameters), store, BOOK, {})
    sweep = Sweeps(store, kept=1).of(spec)
    measured = significance.moments(sweep.one(spec, sweep.span).returns)
    sharpes = [each.sharpe for each in tries]
    variance = statistics.variance(sharpes) if len(tries) >= 10 else 1 / measured.observations
    assert verdict.sharpe_ratio == pytest.approx(measured.sharpe * math.sqrt(365))
    assert verdict.sharpe_ratio == pytest.approx(result.peak.sharpe_ratio)
    assert verdict.deflated_sharpe == pytest.approx(
        significance.deflated_sharpe(measured, len(tries), variance), rel=1e-9
    )
    chance = significance.deflated_threshold(len(tries), variance) * math.sqrt(365)
    assert verdict.chance_sharpe == pytest.approx(chance, rel=1e-9)
    assert f"in {len(tries)} tries" in next(each.words for each in verdict.checks if each.name == "luck")


def test_the_choice_is_cross_validated_where_there_are_days_enough(store):
    found = worked(store, plan_of(store)).overfitting
    assert (found.parameter_sets, found.days) == (27, DAYS)
    assert 0 <= found.pbo_lowest <= found.pbo <= found.pbo_highest <= 1
    assert 0 < found.spa_p <= 1
    few = worked(store, plan_of(store, PAIR, config(endDate="2022-01-12")))
    assert few.overfitting.pbo is None
    assert "too few to cross-validate" in few.overfitting.note
    assert few.verdict.verdict == "insufficient data"


@pytest.mark.parametrize("target", ["sharpe", "sortino", "calmar"])
@pytest.mark.parametrize("method", ["grid", "random", "optuna"])
def test_a_target_that_no_point_has_is_a_verdict_not_an_error(store, target, method):
    plan = plan_of(store, PAIR, config(NEVER), target=target, method=method, budget=9)
    result = worked(store, plan)
    assert (result.verdict.verdict, result.peak, result.plateau, result.peak_plateau) == (
        "insufficient data", None, None, None,
    )  # fmt: skip
    assert f"none of the {result.points} points has a {target}" in result.verdict.reasons[0]
    assert result.top == []
    assert result.undefined == result.points
    assert {cell for row in result.surfaces[0].best for cell in row} == {None}
    assert result.configured.score is None


def test_trades_that_all_points_lack_are_told_where_the_target_has_a_value(store):
    result = worked(store, plan_of(store, PAIR, config(NEVER), target="return"))
    assert result.verdict.verdict == "insufficient data"
    assert (result.peak.number, result.peak.score, result.peak.total_trades) == (0, 0.0, 0)


def test_one_point_is_judged_without_a_choice(store):
    result = worked(store, plan_of(store, ["take_profit=0.03"]))
    assert (result.points, result.overfitting, result.surfaces) == (1, None, [])
    assert (result.peak_plateau.neighbours, result.peak_plateau.score) == (0, result.peak.score)
    assert result.verdict.trials == 2  # it, and the configuration
    assert {"plateau", "pbo"}.isdisjoint(each.name for each in result.verdict.checks)


def test_no_more_points_are_tried_than_the_budget_has(store):
    result = worked(store, plan_of(store, GRID, method="random", budget=5))
    assert (result.points, result.budget, result.notes) == (5, 5, [])
    repeated = worked(store, plan_of(store, ["take_profit=0.01,0.02,0.03"], method="optuna", budget=50))
    assert (repeated.budget, repeated.points <= 3) == (3, True)
    said = [f"{repeated.points} different points were proposed within a budget of 3"] * (repeated.points < 3)
    assert repeated.notes == said


def test_fills_against_ticks_are_run_on_bars_and_that_is_said(store):
    plan = plan_of(store, PAIR)
    ticks = msgspec.structs.replace(plan, spec=msgspec.structs.replace(plan.spec, fills="ticks"))
    result = worked(store, ticks)
    assert any("rules were run on bars" in each for each in result.notes)
    forget(store.ticks.env)
    assert result.peak == worked(store, plan).peak


def test_more_points_than_can_be_held_are_judged_evenly_spaced_with_the_peak(store, monkeypatch):
    monkeypatch.setattr(search, "MOST_CELLS", 10 * DAYS)
    result = worked(store, plan_of(store))
    kept = {*range(0, 27, 3), result.peak.number}
    assert result.overfitting.parameter_sets == len(kept)
    assert any(f"judged by {len(kept)} of 27 points" in each for each in result.notes)


def test_dates_without_bars_are_refused(own):
    plan = plan_of(own, PAIR)
    far = START_NS + 400 * NS_PER_DAY
    gone = msgspec.structs.replace(plan, spec=msgspec.structs.replace(plan.spec, start_ns=far))
    with pytest.raises(NotFound) as caught:
        worked(own, gone)
    assert caught.value.code == Code.NO_BARS


# Interrupted and resumed.


class Interrupted:
    """A checkpoint that is cancelled at its k-th call, or at its k-th after all points were tried."""

    def __init__(self, call, *, judging=False):
        self.left, self.is_counting, self.ends = call, not judging, 0

    def told(self, word):
        # Said when the last points were run, and again when they are stored.
        self.ends += word.done_fraction > 0.999 * search._TRYING  # noqa: SLF001
        self.is_counting |= self.ends > 1

    def __call__(self):
        self.left -= self.is_counting
        if self.left == 0:
            raise JobFailed(Code.CANCELLED, "it was cancelled")


def stopped(store, plan, where):
    """Work until it is cancelled; tells how many points are stored."""
    with pytest.raises(JobFailed, match="cancelled"):
        worked(store, plan, where, where.told)
    with store.ticks.env.read() as transaction:
        return sum(len(rows.table(len(plan.ranges))[0]) for rows in records.stored_rows(transaction, "o"))


@pytest.mark.usefixtures("_blocks_of_four")
@pytest.mark.parametrize("method", ["grid", "random", "optuna"])
def test_what_was_cancelled_anywhere_comes_to_the_same_result(store, tmp_path, monkeypatch, method):
    monkeypatch.setattr(proposals, "SAMPLED_AT_ONCE", 4)
    counted(store, backtested(store, tmp_path, at({"take_profit": 0.09})))
    plan = plan_of(store, GRID, method=method, budget=None if method == "grid" else 18)
    before = [1, 2, 5, 12, 20]
    whole = untimed(worked(store, plan))
    tries = {each.fingerprint for each in known(store, whole.verdict.idea)}
    kept = []
    for call, judging in [*((call, False) for call in before), (1, True), (2, True)]:
        forget(store.ticks.env)
        counted(store, backtested(store, tmp_path, at({"take_profit": 0.09})))
        kept.append(stopped(store, plan, Interrupted(call, judging=judging)))
        resumed = worked(store, plan)
        assert untimed(resumed) == whole, call
        assert resumed.execution.reused == kept[-1]
        assert {each.fingerprint for each in known(store, whole.verdict.idea)} == tries
    assert kept[0] == 0
    assert 0 < kept[4] < whole.points
    assert kept[-2:] == [whole.points] * 2


@pytest.mark.usefixtures("_blocks_of_four")
def test_what_was_cancelled_again_and_again_comes_to_its_end(store, monkeypatch):
    monkeypatch.setattr(search, "MOST_CELLS", 10 * DAYS)
    plan = plan_of(store)
    whole = untimed(worked(store, plan))
    forget(store.ticks.env)
    result, attempts = None, 0
    while result is None:
        attempts += 1
        with contextlib.suppress(JobFailed):
            result = worked(store, plan, Interrupted(18 * attempts))
    assert untimed(result) == whole
    assert attempts > 2


def lifted(bars, first, share=1.03):
    """Bars of which those from a place on are higher."""
    factor = np.where(np.arange(bars.size) < first, 1.0, share)
    return Bars(bars.start_ns, *(column * factor for column in bars[1:5]), bars.volume)


@pytest.mark.usefixtures("_blocks_of_four")
def test_points_over_bars_that_changed_are_tried_again(own):
    plan = plan_of(own)
    env = own.ticks.env
    assert stopped(own, plan, Interrupted(1, judging=True)) == 27
    put_bars(env, lifted(hours(DAYS), 400))
    assert 0 < stopped(own, plan, Interrupted(16)) < 27  # nothing of what was there before is left
    result = worked(own, plan)
    assert 0 < result.execution.reused < 27
    assert result.verdict.tried_before == 27
    forget(env)
    assert untimed(worked(own, plan)).top == result.top


@pytest.mark.usefixtures("_blocks_of_four")
def test_bars_before_the_start_that_only_some_points_look_back_on_count_as_well(own):
    plan = plan_of(own, ["indicator_length=1,30", "stop_loss=0.01,0.02"], config(startDate="2022-01-30"))
    assert stopped(own, plan, Interrupted(1, judging=True)) == 4
    # The longer RSI looks back on these hours, the configuration's does not.
    early = hours(5)
    put_bars(own.ticks.env, lifted(early, early.size // 2, 1.2))
    result = worked(own, plan)
    assert result.execution.reused == 0
    forget(own.ticks.env)
    assert worked(own, plan).top == result.top


@pytest.mark.usefixtures("_blocks_of_four")
def test_bars_that_only_an_earlier_start_reads_count_as_well(own):
    plan = plan_of(own, ["backtest.startDate=1643000000000,1644000000000", "stop_loss=0.01,0.02"])
    assert stopped(own, plan, Interrupted(1, judging=True)) == 4
    bars = hours(DAYS)
    between = (bars.start_ns >= 1_643_300_000 * 10**9) & (bars.start_ns < 1_643_600_000 * 10**9)
    changed = Bars(*(column[between] for column in bars))
    put_bars(own.ticks.env, lifted(changed, changed.size // 2, 1.2))
    assert worked(own, plan).execution.reused == 0


def test_funding_that_came_in_between_counts_as_well(own):
    env = own.ticks.env
    instrument = parse_instrument("x:A")
    times = np.arange(START_NS, START_NS + DAYS * NS_PER_DAY, 8 * NS_PER_HOUR)

    def put_funding(rate):
        rates = np.full(times.size, rate)
        env.write(lambda transaction: FundingStore(env).merge(transaction, instrument, times, rates, replace=True))

    put_funding(0.0001)
    plan = plan_of(own, PAIR, config(funding="series"))
    first = worked(own, plan)
    put_funding(0.01)
    again = worked(own, plan)
    assert (again.execution.reused, again.points) == (0, 9)
    assert again.peak.total_return_percent != first.peak.total_return_percent
