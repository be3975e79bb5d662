"""What the services tell: every end once, in order and stored; progress on the way; nothing that is not so yet."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from stand_ins import backtests as stand_in

from daemon.app.resources_used import ResourcesUsed
from daemon.app.stores import Store
from daemon.core.bus import Bus
from daemon.core.errors import Code, StoreFull
from daemon.core.events import EVENTS
from daemon.core.market import NS_PER_DAY, Instrument, Timeframe
from daemon.core.strategy import RiskProfile
from daemon.engine.synthetic import MarketModel, simulate
from daemon.research import backtest_records, strategies
from daemon.research.backtests import Backtests
from daemon.research.executors import ThreadExecutor
from daemon.research.optimization.request import OptimizationRequest
from daemon.research.optimizations import Optimizations
from daemon.research.plans import ProbeRequest
from daemon.research.runs import Runs
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from daemon.store.journal import Journal

ROOT = Path(__file__).parents[2]
BOOK = strategies.load([ROOT / "strategies.json"])
QUICK = StoreConfig(sync=False)
PATIENCE_S = 30.0
LONG = "steps 3000 0.01"
SYN = Instrument("local", "SYN")
DIPS = {
    "strategy": {
        "name": "dips",
        "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 35}],
        "exitRules": [{"type": "take_profit", "value": 0.02}, {"type": "stop_loss", "value": 0.02}],
    },
    "backtest": {"symbols": "SYN", "timeframe": "1h"},
}


class Listening:
    """The services over one store, and all that they tell."""

    def __init__(self, env, **options):
        self.env = env
        self.facts, self.progress, self.order = [], [], []
        self.bus = Bus()
        self.bus.listen(self._progressed)
        self.journal = Journal(env, lambda: time.time_ns() // 10**6, self._written)
        self.bars = BarStore(env)
        self.executor = ThreadExecutor(lambda: stand_in.Runner(self.bars, BOOK), 1)
        told = {"journal": self.journal, "publish": self.bus.publish}
        rooms = env, self.bars, BOOK, {"low": RiskProfile()}, self.executor
        self.runs = Runs(*rooms, **told)
        self.backtests = Backtests(*rooms, **told, **options)
        self.optimizations = Optimizations(*rooms, **told, **options)

    def close(self):
        for each in (self.runs, self.backtests, self.optimizations, self.journal):
            each.close()

    def backtest(self, name, **fields):
        return self.backtests.submit({"name": name, **fields}).id

    def fields(self, number=-1):
        return msgspec.json.decode(self.facts[number].fields)

    def told(self, count):
        """Wait for so many facts."""
        deadline = time.monotonic() + PATIENCE_S
        while len(self.facts) < count:
            assert time.monotonic() < deadline, self.facts
            time.sleep(0.002)
        return [each.name for each in self.facts]

    def _progressed(self, event):
        assert not event.IS_FACT
        assert EVENTS[event.NAME] is type(event)
        self.progress.append(event)
        self.order.append((event.NAME, event.id))

    def _written(self, fact):
        fields = msgspec.json.decode(fact.fields)
        msgspec.convert(fields, EVENTS[fact.name])
        self.order.append((fact.name, fields["id"]))
        # Whoever hears of an end may ask for what ended.
        if fact.name == "backtest:complete":
            self.backtests.result(fields["id"])
        elif fact.name == "probe:complete":
            assert self.runs.get(fields["id"]).run.status == "completed"
        self.facts.append(fact)


@pytest.fixture
def env(tmp_path):
    with Environment(tmp_path / "data", QUICK) as env:
        yield env


@pytest.fixture
def listening(env):
    """The services; closed at the end."""
    made = Listening(env)
    yield made
    made.close()


@pytest.fixture
def _names(monkeypatch):
    """Backtests do what their names say."""
    monkeypatch.setattr("daemon.research.backtests.read_specification", stand_in.read_config)


@pytest.fixture
def market(listening):
    """Bars to work on."""
    bars = simulate(MarketModel(), seed=1, start_ns=19_000 * NS_PER_DAY, bars=1_500, timeframe=Timeframe.HOUR_1)
    store = listening.bars
    listening.env.write(lambda transaction: store.merge(transaction, SYN, Timeframe.HOUR_1, bars, replace=False))


# Backtests.


@pytest.mark.usefixtures("_names")
def test_a_backtest_tells_that_it_waits_how_far_it_is_and_once_that_it_is_done(listening):
    backtest_id = listening.backtest("steps 30 0.01")
    assert listening.told(1) == ["backtest:complete"]
    told = [each for each in listening.progress if each.id == backtest_id]
    assert [each.status for each in told[:2]] == ["queued", "running"]
    assert {each.status for each in told[2:]} == {"running"}
    assert [each.progress for each in told] == sorted(each.progress for each in told)
    assert told[-1].progress > 10
    assert told[-1].current_timestamp == stand_in.FIRST_NS // 10**6
    assert len(told) <= 2 + 8  # of thirty steps in 0.3 s; ten words a second
    assert listening.order[-1] == ("backtest:complete", backtest_id)
    assert listening.fields() == {
        "id": backtest_id, "symbols": ["local:BTC/USDT"], "name": "steps 30 0.01", "totalReturnPercent": 1.2,
        "sharpeRatio": 0.7, "maxDrawdownPercent": 0.5, "totalTrades": 3, "verdict": None,
        "fingerprint": "of steps 30 0.01",
    }  # fmt: skip


@pytest.mark.usefixtures("_names")
def test_failures_and_cancellations_are_told_with_their_codes_in_the_order_they_come(listening):
    failing, defect = listening.backtest("fails"), listening.backtest("raises")
    listening.told(2)
    running, waiting = listening.backtest(LONG), listening.backtest("rows 1")
    listening.backtests.cancel(waiting)
    listening.backtests.cancel(running)
    done = listening.backtest("rows 1")
    listening.told(5)
    assert [(fact.seq, fact.name) for fact in listening.facts] == [
        (1, "backtest:error"), (2, "backtest:error"), (3, "backtest:error"), (4, "backtest:error"),
        (5, "backtest:complete"),
    ]  # fmt: skip
    told = [listening.fields(number) for number in range(5)]
    assert [each["id"] for each in told] == [failing, defect, waiting, running, done]
    assert [each.get("code") for each in told] == ["NO_BARS", "INTERNAL", "CANCELLED", "CANCELLED", None]
    assert told[0]["error"] == "no bars any more"


@pytest.mark.usefixtures("_names")
def test_a_hundred_ends_of_a_busy_moment_are_each_told_once(listening):
    ids = [listening.backtest("rows 1") for _ in range(100)]
    listening.told(100)
    for each in ids:
        assert listening.backtests.wait(each, PATIENCE_S)
    assert [listening.fields(number)["id"] for number in range(100)] == ids
    assert [fact.seq for fact in listening.facts] == list(range(1, 101))
    assert list(listening.journal.after(0)) == listening.facts


@pytest.mark.usefixtures("_names")
def test_an_end_that_cannot_be_stored_is_no_fact_and_shows_as_progress(listening, monkeypatch):
    blocked, go_on = threading.Event(), threading.Event()

    def full(*_, **__):
        blocked.set()
        assert go_on.wait(PATIENCE_S)
        raise StoreFull(Code.STORE_FULL, "no room")

    backtest_id = listening.backtest("steps 5 0.05")
    with monkeypatch.context() as patch:
        patch.setattr(backtest_records, "put_finished", full)
        assert blocked.wait(PATIENCE_S)
        patch.setattr(backtest_records, "put_state", full)
        go_on.set()
        assert listening.backtests.wait(backtest_id, PATIENCE_S)
    other = listening.backtest("rows 1")
    listening.told(1)
    assert listening.fields()["id"] == other
    assert listening.facts[0].seq == 1
    last = [each for each in listening.progress if each.id == backtest_id][-1]
    assert (last.status, last.error) == ("failed", "no room")


@pytest.mark.usefixtures("_names")
def test_the_end_of_the_daemon_is_no_end_of_its_backtests(tmp_path):
    with Environment(tmp_path / "data", QUICK) as env:
        first = Listening(env)
        ids = [first.backtest("steps 20 0.02"), first.backtest("rows 1")]
        time.sleep(0.1)
        first.close()
        assert first.facts == []
    with Environment(tmp_path / "data", QUICK) as env:
        second = Listening(env)
        second.told(2)
        assert [second.fields(number)["id"] for number in (0, 1)] == ids
        second.close()


# Optimisations and probes.


@pytest.mark.usefixtures("market")
def test_an_optimisation_tells_its_best_point_so_far_and_its_end(listening):
    request = OptimizationRequest(config=DIPS, parameters={"take_profit": "0.01:0.03:0.01"}, id="best")
    listening.optimizations.submit(request)
    assert listening.told(1) == ["optimization:complete"]
    told = [each for each in listening.progress if each.id == "best"]
    assert [each.status for each in told[:2]] == ["queued", "running"]
    assert {each.points for each in told} == {3}
    end, stored = listening.fields(), listening.optimizations.status("best")
    assert (end["name"], end["symbols"]) == ("dips", ["local:SYN"])
    assert (end["bestScore"], end["bestParameters"], end["verdict"]) == (
        stored.best_score, stored.best_parameters, stored.verdict,
    )  # fmt: skip
    assert stored.points_done == 3


@pytest.mark.usefixtures("market", "_names")
def test_an_optimisation_that_is_cancelled_and_resumed_tells_both_ends(listening):
    busy = listening.backtest(LONG)
    request = OptimizationRequest(config=DIPS, parameters={"take_profit": "0.01:0.03:0.01"}, id="twice")
    listening.optimizations.submit(request)
    listening.optimizations.cancel("twice")
    assert listening.told(1) == ["optimization:error"]
    assert (listening.fields()["id"], listening.fields()["code"]) == ("twice", "CANCELLED")
    listening.optimizations.resume("twice")
    listening.backtests.cancel(busy)
    assert listening.told(3) == ["optimization:error", "backtest:error", "optimization:complete"]
    assert [each.status for each in listening.progress if each.id == "twice"][:3] == ["queued", "queued", "running"]


@pytest.mark.usefixtures("market")
def test_a_probe_tells_its_combinations_and_its_end(listening):
    request = ProbeRequest(symbols=["SYN"], timeframes=["1Hour"], run_id="all")
    run, _ = listening.runs.submit(request)
    assert listening.told(1) == ["probe:complete"]
    told = [each for each in listening.progress if each.id == "all"]
    assert (told[0].status, told[0].completed, told[0].total) == ("queued", 0, run.total_combinations)
    assert [each.completed for each in told] == sorted(each.completed for each in told)
    ended = listening.runs.get("all").run
    assert listening.fields() == {
        "id": "all", "symbols": ["local:SYN"], "totalCombinations": run.total_combinations,
        "totalTrades": ended.total_trades,
    }  # fmt: skip
    # The same again: everything is stored, and that is told as well.
    listening.runs.submit(request)
    assert listening.told(2) == ["probe:complete"] * 2


CHILD = """
import os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], sys.argv[2] + "/tests"]
from stand_ins import backtests as stand_in
from daemon.research import backtests, strategies
from daemon.research.executors import ThreadExecutor
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig
from daemon.store.journal import Journal
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # in one piece: threads say things
backtests.read_specification = stand_in.read_config
env = Environment(Path(sys.argv[1]), StoreConfig(sync=False))
bars = BarStore(env)
journal = Journal(env, lambda: 5, lambda fact: say("told", fact.seq))
executor = ThreadExecutor(lambda: stand_in.Runner(bars, None), 2)
service = backtests.Backtests(env, bars, strategies.RuleBook(()), {}, executor, journal=journal)
for _ in range(300):
    say("submitted", service.submit({"name": "rows 1"}).id)
"""


@pytest.mark.usefixtures("_names")
@pytest.mark.parametrize("facts", [1, 40])
def test_a_daemon_killed_at_any_moment_tells_every_end_once(tmp_path, facts):
    """Of what ended before the kill and after it: the numbers go on, and no end is missing or twice."""
    command = [sys.executable, "-c", CHILD, tmp_path / "data", ROOT]
    submitted, told = [], 0
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            verb, what = line.split()
            told += verb == "told"
            submitted += [what] if verb == "submitted" else []
            if told == facts:
                break
        child.kill()
        submitted += [line.split()[1] for line in child.stdout if line.startswith("submitted") and line.endswith("\n")]
    with Environment(tmp_path / "data", QUICK) as env:
        later = Listening(env)
        for each in submitted:
            assert later.backtests.wait(each, PATIENCE_S)
        stored = {each.id for each in later.backtests.all()}
        for each in stored:
            assert later.backtests.wait(each, PATIENCE_S)
        later.close()
        ends = [msgspec.json.decode(fact.fields)["id"] for fact in later.journal.after(0)]
    assert sorted(ends) == sorted(stored)
    assert set(submitted) <= stored


@pytest.mark.usefixtures("market")
def test_a_probe_left_by_a_killed_process_is_told_as_failed_at_the_next_start(listening, env):
    from daemon.research.records import KIND, Run
    from daemon.store import documents

    listening.runs.submit(ProbeRequest(symbols=["SYN"], timeframes=["1Hour"], run_id="left"))
    listening.told(1)
    with env.read() as transaction:
        run = documents.get(transaction, KIND, "left", Run)
    running = msgspec.structs.replace(run, status="running")
    env.write(lambda transaction: documents.put(transaction, KIND, "left", running))
    Runs(env, listening.bars, BOOK, {}, listening.executor, journal=listening.journal)
    assert listening.told(2)[1] == "probe:error"
    assert (listening.fields()["id"], listening.fields()["code"]) == ("left", "INTERRUPTED")


def test_what_ends_while_no_daemon_runs_is_told_to_who_resumes_at_the_next(tmp_path, atlasd_inside, bars_files):
    where = "--data-dir", tmp_path / "data"
    path = bars_files["SYNB", "1Hour"]
    done = atlasd_inside("import", "bars", path, "--symbol", "SYNB", "--timeframe", "1Hour", *where)
    assert done.returncode == 0, done.stderr
    done = atlasd_inside("run", "--symbols", "SYNB", "--timeframes", "1Hour", "--run-id", "alone", *where)
    assert done.returncode == 0, done.stderr
    with Environment(tmp_path / "data", QUICK) as env:
        (fact,) = Journal(env, lambda: 5).after(0)
    assert (fact.name, msgspec.json.decode(fact.fields)["id"]) == ("probe:complete", "alone")


# Resources.


@pytest.mark.usefixtures("market")
def test_resources_are_counted_when_asked_and_kept_for_a_moment(listening):
    now = [100.0]
    used = ResourcesUsed(Store(listening.env, listening.bars, listening.bars.ticks), lambda: now[0])
    assert (used.uptime_s(), used.stored_rows()) == (0, 1_500)
    more = simulate(MarketModel(), seed=2, start_ns=19_000 * NS_PER_DAY, bars=500, timeframe=Timeframe.MIN_1)
    store = listening.bars
    listening.env.write(lambda transaction: store.merge(transaction, SYN, Timeframe.MIN_1, more, replace=False))
    assert used.stored_rows() == 1_500
    now[0] += 5
    assert (used.uptime_s(), used.stored_rows()) == (5, 2_000)


def test_the_memory_of_workers_counts(listening):
    used = ResourcesUsed(Store(listening.env, listening.bars, listening.bars.ticks))
    alone = psutil.Process().memory_info().rss
    script = "block = bytearray(200 << 20); print(1, flush=True); input()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        together = used.memory_bytes()
        child.stdin.write("\n")
    assert together > alone + (150 << 20)
