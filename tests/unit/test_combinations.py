"""The map of a run's combinations: its figures are those of the ranking, corrected for the whole run."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from adapters.barfile.read import read_bars
from daemon.core.market import Instrument, Timeframe
from daemon.core.strategy import RiskProfile
from daemon.research import strategies
from daemon.research.combinations import combination_map
from daemon.research.executors import ThreadExecutor
from daemon.research.jobs import JobRunner
from daemon.research.plans import ProbeRequest
from daemon.research.ranking import rank
from daemon.research.runs import Runs
from daemon.store import results
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

ROOT = Path(__file__).parents[2]
BOOK = strategies.load([ROOT / "strategies.json"])
BARS = ROOT / "tests" / "golden" / "synthetic" / "bars-SYNB_1Hour.csv.gz"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    with Environment(tmp_path_factory.mktemp("combinations"), StoreConfig(sync=False)) as env:
        store = BarStore(env)
        bars = read_bars(BARS).bars
        for symbol in ("AAA", "BBB"):
            instrument = Instrument("local", symbol)
            env.write(
                lambda transaction, of=instrument: store.merge(transaction, of, Timeframe.HOUR_1, bars, replace=False)
            )
        runs = Runs(env, store, BOOK, {"low": RiskProfile()}, ThreadExecutor(lambda: JobRunner(store, BOOK), 1))
        runs.submit(
            ProbeRequest(run_id="run", symbols=["AAA", "BBB"], timeframes=["1Hour"], strategy_ids=[2, 3, 11, 34])
        )
        assert runs.wait("run", 60)
        run = runs.get("run").run
        runs.close()
        yield env, run


def test_figures_are_those_of_the_ranking(stored):
    env, run = stored
    with env.read() as transaction:
        ranking = rank([job.index for job in results.jobs(transaction, run.run_id)], run.total_combinations)
    found = combination_map(env, run, BOOK)
    assert (found.tried, found.tested, found.chance_z) == (ranking.tried, ranking.order.size, ranking.chance_z)
    assert [each.trades for each in found.combinations] == ranking.trades.tolist()
    assert {each.strategy_name for each in found.combinations} == {
        BOOK.get(each).display_name for each in (2, 3, 11, 34)
    }
    for column in ("z", "p_adjusted", "false_discovery"):
        shown = [np.nan if (value := getattr(each, column)) is None else value for each in found.combinations]
        np.testing.assert_array_equal(shown, getattr(ranking, column))
    assert any(each.p_adjusted is None and each.z is not None for each in found.combinations)  # too few trades to test


def test_one_symbol_is_corrected_for_all(stored):
    env, run = stored
    everything, part = combination_map(env, run, BOOK), combination_map(env, run, BOOK, "local:BBB")
    assert part.combinations == [each for each in everything.combinations if each.symbol == "local:BBB"]
    assert len(part.combinations) == 4
    assert part.tried == everything.tried


def test_what_is_planned_and_not_stored_counts(stored):
    env, run = stored
    longer = msgspec.structs.replace(run, total_combinations=run.total_combinations + 1_000)
    assert combination_map(env, longer, BOOK).tried == combination_map(env, run, BOOK).tried + 1_000


def test_a_strategy_that_is_gone_goes_by_its_stored_name(stored):
    env, run = stored
    nobody = [each for each in BOOK if each.id == 2]
    names = {each.strategy_name for each in combination_map(env, run, nobody).combinations}
    assert run.strategy_names[11] in names
