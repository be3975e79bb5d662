"""Files that are watched, and what of a run stays in memory for the next."""

import os
import time

import msgspec
import pytest

from daemon.app import rerunning
from daemon.app.rerunning import WatchedFiles
from daemon.core.market import Instrument, Timeframe
from daemon.engine.synthetic import MarketModel, simulate
from daemon.research.backtest_config.read import read_config
from daemon.research.backtest_job import run_backtest
from daemon.research.backtest_records import BacktestJob
from daemon.research.rerunning import Rerunner, rerun_of
from daemon.research.strategies import RuleBook
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

CONFIG = {
    "strategy": {
        "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 40}],
        "exitRules": [{"type": "take_profit", "value": 0.01}, {"type": "stop_loss", "value": 0.01}],
    },
    "backtest": {"symbols": "A", "timeframe": "1m", "startDate": "2022-01-09"},
}
BARS = simulate(MarketModel(), seed=1, start_ns=19_000 * 86_400 * 10**9, bars=4_000, timeframe=Timeframe.MIN_1)


# Files.


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{}")
    return path


@pytest.fixture
def files(file):
    watched = WatchedFiles()
    watched.watch([file])
    assert watched.changed_ns() is None
    return watched


def test_a_save_is_seen_once_with_its_time(file, files):
    file.write_text('{"a": 1}')
    now = time.time_ns()
    assert abs(now - files.changed_ns()) < 1e9
    assert files.changed_ns() is None


def test_a_file_put_in_the_place_of_another_changed_when_it_was_put_there(file, files):
    other = file.with_suffix(".new")
    other.write_text("{}")
    os.utime(other, (1_000_000_000, 1_000_000_000))
    other.replace(file)
    assert time.time_ns() - files.changed_ns() < 1e9


def test_a_time_of_the_future_counts_as_now(file, files):
    os.utime(file, (4_000_000_000, 4_000_000_000))
    assert files.changed_ns() <= time.time_ns()


def test_a_file_that_is_away_or_empty_for_a_moment_has_not_changed_until_it_is_back(file, files):
    for gone in (file.unlink, lambda: file.write_text("")):
        gone()
        assert files.changed_ns() is None
        assert files.missing() == []
        file.write_text('{"back": 1}')
        assert files.changed_ns() is not None


def test_a_file_that_stays_away_is_named_once(file, files, monkeypatch):
    file.unlink()
    files.changed_ns()
    monkeypatch.setattr(rerunning, "MISSING_S", 0.0)
    assert files.missing() == [file]
    assert files.missing() == []


def test_another_list_of_files_keeps_what_is_known_of_those_that_stay(file, files, tmp_path):
    strategy = tmp_path / "strategy.py"
    strategy.write_text("pass")
    file.write_text('{"changed": 1}')
    files.watch([file, strategy])
    assert files.changed_ns() is not None  # of the configuration, which was saved while it was being read
    strategy.write_text("pass  # again")
    assert files.changed_ns() is not None
    files.watch([file])
    strategy.write_text("pass  # and again")
    assert files.changed_ns() is None


# Runs.


@pytest.fixture
def store(tmp_path):
    with Environment(tmp_path / "data", StoreConfig(sync=False)) as env:
        made = BarStore(env)
        _merge(made, BARS)
        yield made


def _merge(store, bars, symbol="A"):
    env = store.ticks.env
    instrument = Instrument("x", symbol)
    env.write(lambda transaction: store.merge(transaction, instrument, Timeframe.MIN_1, bars, replace=True))


@pytest.fixture
def rerun(store, tmp_path):
    """Run a configuration with these fields of its backtest as the worker does; returns what it tells."""
    runner = Rerunner(store, RuleBook([]))

    def run(validation=None, **fields):
        config = CONFIG | {"backtest": CONFIG["backtest"] | fields}
        spec = read_config(config | ({"validation": validation} if validation else {}), store, RuleBook([]))
        job = BacktestJob("watch", spec, str(tmp_path / "spool"), config)
        return runner.run(job, lambda _: None, lambda: None)

    run.reads = lambda: runner._memory.reads  # noqa: SLF001 - what it saves is its purpose
    return run


def test_a_rerun_tells_what_a_backtest_tells(rerun, store, tmp_path):
    spec = read_config(CONFIG, store, RuleBook([]))
    job = BacktestJob("b", spec, str(tmp_path / "rows"), CONFIG)
    whole = rerun_of(run_backtest(store, job, lambda _: None, lambda: None).result)
    for _ in range(2):
        assert msgspec.structs.replace(whole, verdict=None) == rerun()
    assert whole.verdict is not None
    assert whole.total_trades > 5


def test_bars_are_read_once_while_the_store_is_the_same(rerun, store):
    rerun()
    rerun(commission=0.002)
    assert rerun.reads() == 1
    rerun(endDate="2022-01-09")
    assert rerun.reads() == 2
    rerun()
    assert rerun.reads() == 3  # only those of the last run are kept
    _merge(store, BARS.rows(0, 10), "B")
    rerun()
    assert rerun.reads() == 4


def test_bars_that_were_replaced_are_read_again(rerun, store):
    before = rerun()
    _merge(store, BARS._replace(close=BARS.close + 0.5, high=BARS.high + 0.5))
    assert rerun().fingerprint != before.fingerprint


def test_a_validation_that_is_asked_for_is_done_and_leaves_no_rows(rerun, tmp_path):
    told = rerun(validation={"monteCarlo": {"enabled": True, "iterations": 10}})
    assert told.verdict is not None
    assert not (tmp_path / "spool").exists()
