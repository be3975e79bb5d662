"""Own strategies over stored bars: their columns, their parameters, their exceptions, and whether they look ahead."""

import time

import numpy as np
import pytest
from optimized import hours, put_bars

from daemon.core.errors import AtlasError, Code
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.simulate import Simulation
from daemon.research.backtest_config.read import read_config
from daemon.research.backtest_job import run_backtest, traded
from daemon.research.backtest_market import read_series
from daemon.research.backtest_records import BacktestJob
from daemon.research.optimization.records import OptimizationJob, put_rows
from daemon.research.optimization.request import OptimizationRequest, planned
from daemon.research.optimization.search import optimize
from daemon.research.own.folder import StrategyFolder
from daemon.research.own_runs import needed_bars
from daemon.research.strategies import RuleBook
from daemon.research.sweep import Sweep
from daemon.store.env import Environment, StoreConfig

HEAD = """from daemon.research import BUY, SELL, Column, Parameter, Strategy
class Mine(Strategy):
    bar_number = 0
    slow = Column("sma_50")
    quantity = Parameter(1.0, low=0.5, high=2.0, step=0.5)
    def on_bar(self, context, bar):
        self.bar_number += 1
"""
IN_AND_OUT = """
        if self.bar_number == 100:
            context.submit(BUY, self.quantity)
        if self.bar_number == 200:
            context.submit(SELL, context.position())
"""
BARS = hours(20)
MONEY = 1_000_000


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with Environment(tmp_path_factory.mktemp("own"), StoreConfig(sync=False)) as env:
        yield put_bars(env, BARS)


@pytest.fixture
def book(tmp_path):
    return RuleBook([], StrategyFolder(tmp_path / "strategies"))


def config_of(book, body, parameters=None, **backtest):
    """Write a strategy with these lines in `on_bar`, and name it in a configuration."""
    kept = book.own.keep_source("mine", (HEAD + body).encode())
    strategy = {"own": kept} | ({} if parameters is None else {"parameters": parameters})
    free = {"symbols": "A", "commission": 0, "slippageModel": "none", "initialCapital": MONEY}
    return {"strategy": strategy, "backtest": free | backtest}


def run(store, book, config, tmp_path):
    job = BacktestJob("b", read_config(config, store, book), str(tmp_path / "spool"), config)
    return run_backtest(store, job, lambda _: None, lambda: None, book).result


def failure(store, book, config, tmp_path):
    with pytest.raises(AtlasError) as failed:
        run(store, book, config, tmp_path)
    return failed.value


def test_orders_of_a_bar_fill_at_the_next_open_in_the_quantity_of_the_parameter(store, book, tmp_path):
    result = run(store, book, config_of(book, IN_AND_OUT, {"quantity": 1.5}), tmp_path)
    assert result.trade_stats.total_trades == 1
    # The hundredth bar's close is the first that counts 100.
    gained = 1.5 * (BARS.open[200] - BARS.open[100])
    assert result.metrics.total_return == pytest.approx(gained)
    assert result.look_ahead.is_checked
    assert any("quantity 1.5" in each for each in result.readings)


def test_a_handler_that_cannot_be_compiled_runs_as_python_and_the_result_says_why(store, book, tmp_path):
    body = """
        kept = globals()
        if self.bar_number == 100 and kept:
            context.submit(BUY, self.quantity)
        if self.bar_number == 200:
            context.submit(SELL, context.position())
"""
    job = BacktestJob("b", read_config(config_of(book, body), store, book), str(tmp_path / "spool"))
    result = traded(store, job, lambda _: None, lambda: None, own_folder=book.own).result
    assert result.metrics.total_return == pytest.approx(BARS.open[200] - BARS.open[100])
    assert any(each.startswith("on_bar runs as Python, ") for each in result.notes)


def test_columns_are_those_of_rules_and_warmed_up_before_the_range(store, book, tmp_path):
    body = """
        raise ValueError(repr(float(context.value(self.slow))))
"""
    config = config_of(book, body, startDate="2022-01-15")
    error = failure(store, book, config, tmp_path)
    row = int(np.searchsorted(BARS.start_ns, read_config(config, store, book).start_ns))
    assert row > 50
    seen = float(error.message.rpartition(" ")[2])
    assert seen == pytest.approx(IndicatorColumns(BARS)["sma_50"][row], rel=1e-12)


def test_what_a_strategy_raises_at_bar_300_is_told_by_its_line(store, book, tmp_path):
    body = """
        if self.bar_number == 300:
            raise ZeroDivisionError("at last")
"""
    error = failure(store, book, config_of(book, body), tmp_path)
    assert error.code is Code.STRATEGY_RAISED
    assert error.message.endswith(", line 10, in on_bar: ZeroDivisionError: at last")
    assert error.details["traceback"][-1].endswith('in on_bar: raise ZeroDivisionError("at last")')


def test_what_compiled_code_raises_in_a_library_is_told_without_a_line(store, book, tmp_path):
    body = """
        prices = {"close": bar.close}
        if self.bar_number == 300:
            self.bar_number += 1
            context.submit(BUY, prices["open"])
"""
    error = failure(store, book, config_of(book, body), tmp_path)
    assert error.code is Code.STRATEGY_RAISED
    assert "KeyError: 'open' (in compiled code, which does not tell the line)" in error.message


def test_each_run_begins_with_the_file_as_it_is_written(store, book):
    source = """
        SEEN.append(bar.close)
        if len(SEEN) == 100:
            context.submit(BUY, self.quantity)
SEEN = []
"""
    spec = read_config(config_of(book, source), store, book)
    series = [read_series(store, spec, spec.markets[0], needed_bars(spec, book.own))]
    sweep = Sweep(spec, series, 1, book.own)
    first, second, third = (row[0] for row in sweep.run([spec] * 3, [sweep.span]))
    assert first.growth == second.growth == third.growth != 1.0


def test_a_strategy_that_enters_nothing_is_not_said_to_be_checked(store, book, tmp_path):
    result = run(store, book, config_of(book, "        context.submit(BUY, context.bid())\n"), tmp_path)
    assert (result.look_ahead.is_checked, result.look_ahead.cuts) == (False, [])
    assert "enters nothing" in result.look_ahead.words
    assert not any(each.name == "look-ahead" for each in result.verdict.checks)


PEEKS = """
        row = context[1]["row"][0]
        values = context[7]
        rises = values[3, min(row + 50, values.shape[1] - 1)] > bar.close
        if rises and context.position() == 0.0:
            context.submit(BUY, 1.0)
        elif not rises and context.position() > 0.0:
            context.submit(SELL, context.position())
"""


def test_a_strategy_that_looks_ahead_is_found_out(store, book, tmp_path):
    error = failure(store, book, config_of(book, PEEKS), tmp_path)
    assert error.code is Code.LOOK_AHEAD
    assert "mine looks ahead (or it draws random numbers without a seed): order" in error.message


@pytest.mark.parametrize("how", ["reduce_only=True", ""])
def test_a_strategy_that_looks_ahead_to_leave_is_found_out_as_well(store, book, tmp_path, how):
    body = f"""
        values = context[7]
        falls = values[3, min(context[1]["row"][0] + 30, values.shape[1] - 1)] < bar.close
        if self.bar_number % 50 == 10:
            context.submit(BUY, 1.0)
        elif context.position() > 0.0 and (falls or self.bar_number % 50 == 40):
            context.submit(SELL, context.position(), {how})
"""
    error = failure(store, book, config_of(book, body), tmp_path)
    assert error.code is Code.LOOK_AHEAD
    assert "(sell 1 " in error.message


def test_sweeps_run_own_strategies_with_each_point_s_parameters_and_span(store, book):
    config = config_of(book, IN_AND_OUT)
    spec = read_config(config, store, book)
    doubled = read_config(config_of(book, IN_AND_OUT, {"quantity": 2}), store, book)
    series = [read_series(store, spec, spec.markets[0], needed_bars(spec, book.own))]
    sweep = Sweep(spec, series, 2, book.own)
    width_ns = spec.timeframe.ns
    later = sweep.span._replace(start_ns=int(BARS.start_ns[50]), stop_ns=int(BARS.start_ns[-1]) + width_ns)
    ones, twos = sweep.run([spec, doubled], [sweep.span, later])
    for (one, two), first in zip(zip(ones, twos, strict=True), (0, 50), strict=True):
        gained = (BARS.open[first + 200] - BARS.open[first + 100]) / MONEY
        assert one.growth - 1 == pytest.approx(gained)
        assert two.growth - 1 == pytest.approx(2 * gained)


def test_an_optimisation_tries_the_declared_range(store, book):
    plan = planned(OptimizationRequest(config=config_of(book, IN_AND_OUT), target="return"), store, book, {})
    found = optimize(store, OptimizationJob("o", plan, {}), lambda _: None, lambda: None, book)
    returns = {each.parameters["quantity"]: each.total_return_percent for each in found.top}
    assert sorted(returns) == [0.5, 1.0, 1.5, 2.0]
    gained = 100 * (BARS.open[200] - BARS.open[100]) / MONEY
    assert returns == pytest.approx({quantity: quantity * gained for quantity in returns})


def test_an_optimisation_of_what_looks_ahead_is_refused_before_anything_of_it_is_counted(store, book):
    config, told = config_of(book, PEEKS), []
    plan = planned(OptimizationRequest(config=config, target="return"), store, book, {})
    with pytest.raises(AtlasError, match="mine looks ahead") as failed:
        optimize(store, OptimizationJob("o", plan, {}), told.append, lambda: None, book)
    assert failed.value.code is Code.LOOK_AHEAD
    assert not any(each.tried or each.rows for each in told)


def test_each_point_has_a_job_of_its_own_whose_end_is_told(store, book, monkeypatch):
    """A budget's time is that of a point, counted from the progress before it."""
    sizes, whole = [], vars(Sweep)["_all"]

    def counted(sweep, specs, decisions, span):
        sizes.append(len(specs))
        return whole(sweep, specs, decisions, span)

    monkeypatch.setattr(Sweep, "_all", counted)
    asked = OptimizationRequest(config=config_of(book, IN_AND_OUT), parameters=["quantity=0.5:2:0.01"], target="return")
    plan = planned(asked, store, book, {})
    optimize(store, OptimizationJob("o", plan, {}), lambda _: None, lambda: None, book)
    assert (len(sizes), max(sizes)) == (152, 1)


def test_runs_that_call_python_take_turns(store, book, monkeypatch):
    """Side by side they would share one interpreter, and each take as long as all."""
    running, most, run_ = [], [], Simulation.run

    def counted(simulation):
        running.append(simulation)
        most.append(len(running))
        time.sleep(0.02)
        try:
            return run_(simulation)
        finally:
            running.remove(simulation)

    monkeypatch.setattr(Simulation, "run", counted)
    spec = read_config(config_of(book, "        globals()\n"), store, book)
    sweep = Sweep(spec, [read_series(store, spec, spec.markets[0], needed_bars(spec, book.own))], 2, book.own)
    sweep.run([spec] * 4, [sweep.span])
    assert most == [1, 1, 1, 1]


def test_points_that_take_long_are_stored_a_few_at_a_time(store, book, monkeypatch):
    monkeypatch.setattr("daemon.research.optimization.search._SECONDS_AT_ONCE", 0.0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    plan = planned(OptimizationRequest(config=config_of(book, IN_AND_OUT), target="return"), store, book, {})
    told = []
    optimize(store, OptimizationJob("o", plan, {}), told.append, lambda: None, book)
    assert [each.rows.first for each in told if each.rows is not None] == [0, 2]


def test_points_that_are_run_again_to_be_judged_are_told_of(store, book):
    plan = planned(OptimizationRequest(config=config_of(book, IN_AND_OUT), target="return"), store, book, {})
    told = []
    optimize(store, job := OptimizationJob("again", plan, {}), told.append, lambda: None, book)
    store.ticks.env.write(
        lambda transaction: [put_rows(transaction, "again", each.rows, ()) for each in told if each.rows]
    )
    told.clear()
    assert optimize(store, job, told.append, lambda: None, book).execution.reused == 4
    assert len([each for each in told if each.done_fraction == 0.9]) > 2
