"""Monte Carlo simulations of stored backtests: drawn once, kept with their backtest, refused with a reason."""

import threading
import tracemalloc

import msgspec
import numpy as np
import pytest

from daemon.core.errors import AtlasError, Code, JobFailed
from daemon.core.market import NS_PER_DAY, Timeframe
from daemon.engine.synthetic import MarketModel, simulate
from daemon.research import backtest_records as records
from daemon.research import monte_carlo, monte_carlos
from daemon.research.backtests import Backtests
from daemon.research.executors import ThreadExecutor
from daemon.research.jobs import JobRunner
from daemon.research.monte_carlo_records import MonteCarloJob, MonteCarloRequest, Simulation, request_of
from daemon.research.monte_carlos import MonteCarlos, memory_bound
from daemon.research.strategies import RuleBook
from daemon.research.validation_result import MonteCarloResult
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from daemon.store.instruments import parse_instrument

OWN = {"enabled": True, "iterations": 200, "seed": 3, "confidenceLevel": 0.9}
PATIENCE_S = 30.0


def config(value=35, *, exits=True, **more):
    rules = [{"type": "take_profit", "value": 0.02}, {"type": "stop_loss", "value": 0.02}]
    return {
        "strategy": {
            "name": "dips",
            "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": value}],
            "exitRules": rules if exits else [],
        },
        "backtest": {"symbols": "A"},
    } | more


class Watched(JobRunner):
    """Counts the simulations that are drawn; `gate` holds them up, `failure` is what comes of them."""

    def __init__(self, bars):
        super().__init__(bars, RuleBook([]))
        self.drawn = 0
        self.begun, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self.failure = None

    def run(self, job, progress, checkpoint):
        if isinstance(job, MonteCarloJob):
            self.drawn += 1
            self.begun.set()
            assert self.gate.wait(PATIENCE_S)
            if self.failure:
                raise self.failure
        return super().run(job, progress, checkpoint)


class House:
    """A store with 150 days of bars, its backtests, and their simulations."""

    def __init__(self, env):
        self.env = env
        bars = BarStore(env)
        hours = simulate(MarketModel(), seed=1, start_ns=19_000 * NS_PER_DAY, bars=150 * 24, timeframe=Timeframe.HOUR_1)
        instrument = parse_instrument("x:A")
        env.write(lambda transaction: bars.merge(transaction, instrument, Timeframe.HOUR_1, hours, replace=False))
        self.runner = Watched(bars)
        self.executor = ThreadExecutor(lambda: self.runner, 2, 1 << 30)
        self.backtests = Backtests(env, bars, RuleBook([]), {}, self.executor)
        self.service = MonteCarlos(env, self.backtests, self.executor)

    def run(self, name, asked=None):
        """Run a backtest to its end."""
        self.backtests.submit(asked or config(), backtest_id=name)
        assert self.backtests.wait(name, PATIENCE_S)
        assert self.backtests.status(name).status == "completed", self.backtests.status(name).error

    def ask(self, name="plain", **asked):
        return self.service.simulate(MonteCarloRequest(backtest_id=name, **asked))

    def code(self, name="plain", **asked):
        with pytest.raises(AtlasError) as caught:
            self.ask(name, **asked)
        return caught.value.code


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with Environment(tmp_path_factory.mktemp("simulations") / "data", StoreConfig(sync=False)) as env:
        made = House(env)
        made.run("plain")
        made.run("own", config(validation={"monteCarlo": OWN}))
        made.run("none", config(value=100))
        made.run("one", config(exits=False))
        yield made
        made.backtests.close()


@pytest.fixture
def drawn(house):
    """Count what is drawn from here on."""
    before = house.runner.drawn
    return lambda: house.runner.drawn - before


def test_a_simulation_by_itself_is_the_one_that_a_backtest_would_have_had(house, drawn):
    with house.env.read() as transaction:
        own = records.stored_result(transaction, "own").monte_carlo
    # With the block named that the trades chose, it is another request for the same numbers.
    found = house.ask("own", runs=200, seed=3, block=own.block_length, confidence_level=0.9)
    assert drawn() == 1
    assert msgspec.convert(msgspec.to_builtins(found), MonteCarloResult) == own


def test_what_the_configuration_asked_for_is_not_drawn_again(house, drawn):
    house.run("asked", config(validation={"monteCarlo": OWN}))
    assert house.service.find("asked") == house.ask("asked", runs=200, seed=3, confidence_level=0.9)
    assert drawn() == 0
    assert house.ask("asked", runs=201, seed=3, confidence_level=0.9).runs == 201
    assert (drawn(), house.service.find("asked").runs) == (1, 201)


def test_the_same_twice_is_drawn_once_and_the_next_process_knows_it(house, drawn):
    first = house.ask(runs=300, seed=9)
    assert house.ask(runs=300, seed=9) == first == house.service.find("plain")
    anew = MonteCarlos(house.env, house.backtests, house.executor)
    assert anew.simulate(MonteCarloRequest(backtest_id="plain", runs=300, seed=9)) == first
    assert drawn() == 1
    for other in ({"seed": 10}, {"runs": 301}, {"block": 2.0}, {"confidence_level": 0.5}):
        asked = {"runs": 300, "seed": 9} | other
        assert house.ask(**asked) != first
    assert drawn() == 5


def test_two_who_ask_at_a_time_share_one_drawing(house, drawn):
    house.runner.gate.clear()
    asked = MonteCarloRequest(backtest_id="plain", runs=50, seed=77)
    first, second = house.service.submit(asked), house.service.submit(asked)
    house.runner.gate.set()
    assert first.result(PATIENCE_S) == second.result(PATIENCE_S)
    assert drawn() == 1


def test_a_simulation_goes_with_its_backtest(house):
    house.run("gone")
    house.ask("gone", runs=10)
    house.backtests.delete("gone")
    assert house.code("gone", runs=10) == Code.BACKTEST_NOT_FOUND
    house.run("gone")
    with pytest.raises(AtlasError) as caught:
        house.service.find("gone")
    assert caught.value.code == Code.MONTE_CARLO_NOT_FOUND


def test_what_is_drawn_while_its_backtest_is_deleted_is_answered_and_not_kept(house):
    house.run("replaced")
    house.runner.begun.clear()
    house.runner.gate.clear()
    future = house.service.submit(MonteCarloRequest(backtest_id="replaced", runs=10, block=1.0))
    assert house.runner.begun.wait(PATIENCE_S)
    house.backtests.delete("replaced")
    house.runner.gate.set()
    with pytest.raises(AtlasError) as caught:
        future.result(PATIENCE_S)
    assert caught.value.code == Code.TOO_FEW_TRADES  # they went while it waited
    house.run("replaced", config(value=40))
    with pytest.raises(AtlasError):
        house.service.find("replaced")


def test_a_drawing_that_fails_is_told_and_may_be_tried_again(house, drawn):
    house.runner.failure = JobFailed(Code.WORKER_CRASHED, "the worker process died")
    assert house.code(runs=20, seed=5) == Code.WORKER_CRASHED
    house.runner.failure = None
    assert house.ask(runs=20, seed=5).runs == 20
    assert drawn() == 2


def test_one_trade_is_simulated_and_said_to_say_little(house):
    found = house.ask("one", runs=100)
    assert (found.trades, found.std_return) == (1, 0)
    assert found.note == "insufficient data: 1 trade, at least 20 are needed to tell luck from an edge"
    assert house.ask(runs=100).note is None


def test_without_trades_there_is_nothing_to_draw_from(house, drawn):
    assert house.code("none") == Code.TOO_FEW_TRADES
    assert drawn() == 0


def test_backtests_without_a_result_are_refused(house):
    assert house.code("nowhere") == Code.BACKTEST_NOT_FOUND
    assert house.code("x" * 2_000) == Code.BACKTEST_NOT_FOUND
    house.backtests.submit(config(), "low", backtest_id="ended")
    house.backtests.wait("ended", PATIENCE_S)
    house.env.write(
        lambda transaction: records.put_state(
            transaction,
            msgspec.structs.replace(
                (state := records.stored_state(transaction, "ended")),
                status=msgspec.structs.replace(state.status, status="failed"),
            ),
        )
    )
    assert house.code("ended") == Code.BACKTEST_NOT_FINISHED


def test_more_than_a_minute_of_drawing_is_refused_with_what_is_possible(house, drawn, monkeypatch):
    monkeypatch.setattr(monte_carlos, "MOST_TRADES", 10_000)
    with pytest.raises(AtlasError, match=r"ask for \d+ runs or fewer") as caught:
        house.ask(runs=1_000_000)
    most = caught.value.details["most"]
    assert (caught.value.code, caught.value.details["field"]) == (Code.INVALID_REQUEST, "runs")
    assert house.code(runs=most + 1) == Code.INVALID_REQUEST
    assert house.ask(runs=most).runs == most
    assert drawn() == 1


def test_more_memory_than_there_is_for_backtests_is_refused(house, monkeypatch):
    monkeypatch.setattr(monte_carlos, "memory_bound", lambda *_: 1 << 40)
    assert house.code(runs=12) == Code.MEMORY_BOUND_EXCEEDED
    monkeypatch.undo()
    assert house.ask(runs=12).runs == 12


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "backtestId"),
        ({"backtestId": 5}, "backtestId"),
        ({"backtestId": "b", "runs": 0}, "runs"),
        ({"backtestId": "b", "runs": 1_000_001}, "runs"),
        ({"backtestId": "b", "runs": 2.5}, "runs"),
        ({"backtestId": "b", "seed": -1}, "seed"),
        ({"backtestId": "b", "block": 0.5}, "block"),
        ({"backtestId": "b", "confidenceLevel": 1}, "confidenceLevel"),
        ({"backtestId": "b", "iterations": 5}, "iterations"),
    ],
)
def test_requests_without_a_meaning_are_refused_with_their_field(fields, said):
    with pytest.raises(AtlasError, match=said) as caught:
        request_of(fields)
    assert caught.value.code == Code.INVALID_REQUEST


def test_numbers_may_be_texts():
    assert request_of({"backtestId": "b", "runs": "500", "block": "2.5"}) == MonteCarloRequest(
        backtest_id="b", runs=500, block=2.5
    )


@pytest.mark.parametrize(("runs", "trades"), [(20, 500_000), (100_000, 3)])
def test_no_simulation_holds_more_than_its_bound(runs, trades):
    pnl = np.resize(np.random.default_rng(2).normal(0, 0.001, 1_000), trades)
    monte_carlo.simulated(pnl[:3], pnl[:3] * 0, runs=1, seed=1, confidence=0.9)
    tracemalloc.start()
    returns, costs = monte_carlo.fractions(pnl * 10, np.full(trades, 0.1), 10_000.0)
    found = monte_carlo.simulated(returns, costs, runs=runs, seed=1, confidence=0.9)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.trades == trades
    assert peak < memory_bound(runs, trades)


def test_a_simulation_has_the_fields_of_the_contract(house):
    assert set(Simulation.__struct_encode_fields__) >= {
        "id", "runs", "medianReturn", "meanReturn", "stdReturn", "percentile5", "percentile25", "percentile75",
        "percentile95", "medianDrawdown", "percentile95Drawdown", "probabilityOfProfit", "probabilityOfRuin",
        "probabilityOf2xReturn", "returnConfidenceInterval", "samplePaths",
    }  # fmt: skip
    found = house.ask(runs=40)
    assert (found.id, found.runs, len(found.sample_paths)) == ("plain", 40, 30)
