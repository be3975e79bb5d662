"""`atlasd watch` as its users meet it: a file is saved, a line is printed."""

import json
import select
import signal
import subprocess
import sys

import pytest
import typer
from simulated import a_spec

from daemon.app.cli import watch
from daemon.app.cli.options import Format
from daemon.core.backtest import Costs
from daemon.core.errors import Code, NotFound
from daemon.core.market import Instrument, Timeframe
from daemon.engine.synthetic import MarketModel, simulate
from daemon.research.rerunning import Rerun
from daemon.store.bars import BarStore
from daemon.store.env import Environment, StoreConfig

PATIENCE_S = 30.0
BARS = 10_000
CONFIG = {
    "strategy": {
        "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 30}],
        "exitRules": [{"type": "take_profit", "value": 0.01}, {"type": "stop_loss", "value": 0.01}],
    },
    "backtest": {"symbols": ["A"], "timeframe": "1m", "commission": 0.0001},
    "validation": {"walkForward": True},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("watch") / "data"
    bars = simulate(MarketModel(), seed=4, start_ns=19_000 * 86_400 * 10**9, bars=BARS, timeframe=Timeframe.MIN_1)
    with Environment(made, StoreConfig(sync=False)) as env:
        store = BarStore(env)
        env.write(lambda seen: store.merge(seen, Instrument("x", "A"), Timeframe.MIN_1, bars, replace=False))
    return made


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


def saved(path, **fields):
    """Save a configuration with other fields of its backtest, as editors do: a new file in the place of the old."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(CONFIG | {"backtest": CONFIG["backtest"] | fields}))
    new.replace(path)


class Watching:
    """A watch that runs, and the lines it prints."""

    def __init__(self, *arguments):
        command = [*map(str, (sys.executable, "-m", "daemon", "watch", *arguments))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)

    def line(self):
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        return json.loads(self.process.stdout.readline()) if ready else pytest.fail("no line in time")


@pytest.mark.skipif(sys.platform == "win32", reason="waits for a pipe by select")
def test_every_save_gives_a_line_whatever_was_saved(folder, config):
    watching = Watching(config, "--format", "json", "--data-dir", folder)
    try:
        first = watching.line()
        assert (first["run"], first["before"], first["changed"], first["verdict"]) == (1, None, [], None)
        assert first["total_trades"] > 10

        saved(config, commission=0.0002)
        second = watching.line()
        assert second["run"] == 2
        assert (
            second["total_return_percent"] < first["total_return_percent"] == second["before"]["total_return_percent"]
        )
        assert {"field": "costs.taker_rate", "before": 0.0001, "after": 0.0002} in second["changed"]
        assert 0 < second["elapsed_ms"] < 10_000  # of a machine that may do anything else: no figure of speed

        config.write_text('{"strategy": ')
        assert watching.line()["error"]["code"] == "INVALID_JSON"
        saved(config, symbols=["NONE"])
        assert watching.line()["error"]["code"] == "INVALID_SYMBOL"

        config.unlink()
        saved(config)
        again = watching.line()
        assert (again["run"], again["fingerprint"]) == (5, first["fingerprint"])
        watching.process.send_signal(signal.SIGINT)
        _, said = watching.process.communicate(timeout=PATIENCE_S)
        assert watching.process.returncode == 0
        assert "results are not stored" in said
    finally:
        watching.process.kill()
        watching.process.communicate()
    with Environment(folder, StoreConfig(), readonly=True) as env, env.read() as seen:
        assert not list(seen.scan("documents", b""))
        assert not list(seen.scan("results", b""))


def test_a_strategy_file_is_watched_with_the_configuration_that_it_runs_with(tmp_path, config):
    strategy = tmp_path / "mine.py"
    strategy.write_text("pass")
    wanted = watch._Wanted(watch._source(strategy, [config]), (), (), validates=False)  # noqa: SLF001
    assert wanted.files == [config, strategy]
    assert wanted.read()["strategy"]["file"] == str(strategy)
    assert wanted.files == [config, strategy]
    named = CONFIG | {"strategy": {"file": "mine.py"}}
    config.write_text(json.dumps(named))
    wanted = watch._Wanted(watch._source(config, []), ("backtest.commission=0",), ("take_profit=1",), validates=True)  # noqa: SLF001
    read = wanted.read()
    assert wanted.files == [config, strategy]
    assert (read["backtest"]["commission"], read["point"], "validation" in read) == (0, {"take_profit": "1"}, True)


def test_a_strategy_file_takes_the_configuration_of_its_name_beside_it_unless_another_is_given(tmp_path, config):
    strategy, beside = tmp_path / "mine.py", tmp_path / "mine.json"
    strategy.write_text("pass")
    beside.write_text(json.dumps(CONFIG))
    assert watch._source(strategy, []).config == beside  # noqa: SLF001
    toml = tmp_path / "a.toml"
    assert watch._source(strategy, [toml])[:3] == (beside, strategy, toml)  # noqa: SLF001
    assert watch._source(strategy, [config]).config == config  # noqa: SLF001
    beside.unlink()
    with pytest.raises(typer.BadParameter, match=r"mine\.json beside it, or --config CONFIG\.json"):
        watch._source(strategy, [])  # noqa: SLF001


@pytest.mark.parametrize(
    ("file", "given"),
    [("mine.py", []), ("config.json", ["config.json"]), ("config.json", ["a.toml", "b.toml"]), ("mine.py", ["a.txt"])],
)
def test_files_that_do_not_go_together_are_refused(tmp_path, file, given):
    (tmp_path / file).write_text("{}")
    with pytest.raises(typer.BadParameter):
        watch._source(tmp_path / file, [tmp_path / each for each in given])  # noqa: SLF001


def test_a_file_that_was_never_there_ends_the_watch(tmp_path):
    with pytest.raises(NotFound) as found:
        watch._source(tmp_path / "none.json", [])  # noqa: SLF001
    assert found.value.code is Code.SOURCE_NOT_FOUND


def test_lines_to_read_show_what_changed(capsys):
    told = watch._Watch.__new__(watch._Watch)  # noqa: SLF001 - the telling alone
    told._form, told._before, told._number = Format.TABLE, None, 1  # noqa: SLF001
    figures = {"name": "a", "sharpe_ratio": None, "max_drawdown_percent": 3.0, "fingerprint": "f"}
    first = watch._Shown(Rerun(total_return_percent=-1.5, total_trades=1_200, **figures), a_spec())  # noqa: SLF001
    cheaper = a_spec(costs=Costs(maker_rate=0.0, taker_rate=0.5))
    second = watch._Shown(Rerun(total_return_percent=2.0, total_trades=1_200, **figures), cheaper)  # noqa: SLF001
    told._say(first, 0)  # noqa: SLF001
    told._before = first  # noqa: SLF001
    told._say(second, 0)  # noqa: SLF001
    lines = capsys.readouterr().out.splitlines()
    assert "return -1.50 %   Sharpe none   drawdown 3.00 %   trades 1,200   " in lines[0]
    assert "return +2.00 % (was -1.50 %)   Sharpe none   drawdown 3.00 %   trades 1,200   " in lines[1]
    assert lines[2].strip() == "costs.taker_rate: 0.0 -> 0.5"
    assert lines[-1].strip() == "the same as before, trade for trade"
