"""What scripts and notebooks have of the store and the engine: arrays, indicators, backtests, tables."""

import ast
import gc
import re
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from daemon import research
from daemon.app import wiring
from daemon.app.config import load
from daemon.core.errors import AtlasError, Code, ConfigError, InvalidRequest, NotFound
from daemon.core.market import NS_PER_DAY, NS_PER_SECOND, Instrument, Timeframe
from daemon.core.ticks import Stream, ticks
from daemon.engine.bars import lengthen
from daemon.engine.indicators import IndicatorColumns
from daemon.engine.synthetic import MarketModel, simulate
from daemon.research import open_market
from daemon.research.optimization.request import OptimizationRequest
from daemon.research.plans import ProbeRequest
from daemon.research.scripting.market import Market
from daemon.research.scripting.opening import find_settings
from daemon.research.scripting.running import _said, read_wanted
from daemon.research.strategies import RuleBook
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.codec import to_floats
from daemon.store.env import Environment, StoreConfig

DOCS = Path(__file__).parents[2] / "docs" / "research.md"
START_NS = 19_000 * NS_PER_DAY  # 2022-01-08
BTC = Instrument("demo", "BTC/USDT")
BARS = simulate(MarketModel(), seed=3, start_ns=START_NS, bars=4_000, timeframe=Timeframe.MIN_1)
CONFIG = {
    "strategy": {
        "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 35}],
        "exitRules": [{"type": "take_profit", "value": 0.01}, {"type": "stop_loss", "value": 0.01}],
    },
    "backtest": {"symbols": ["BTC/USDT"], "timeframe": "5m"},
}


def _trades():
    rng = np.random.default_rng(5)
    return ticks(
        Stream.TRADES,
        price_decimals=2,
        size_decimals=5,
        time_ns=START_NS + np.sort(rng.integers(0, 1_800 * NS_PER_SECOND, 3_000)),
        id=np.arange(3_000),
        price=4_000_000 + rng.integers(-500, 500, 3_000),
        size=rng.integers(1, 300_000, 3_000),
        side=rng.choice([-1, 1], 3_000),
    )


TRADES = _trades()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with bars and trades, a probe and an optimisation."""
    made = tmp_path_factory.mktemp("research") / "data"
    with Environment(made, StoreConfig(sync=False)) as env:
        store = BarStore(env)
        env.write(lambda transaction: store.merge(transaction, BTC, Timeframe.MIN_1, BARS, replace=False))
        with BulkWriter(store.ticks, BTC, Stream.TRADES) as writer:
            writer.add(TRADES)
            writer.finish()
    with wiring.writer(load(), made, "test") as writer:
        probe = ProbeRequest(symbols=["BTC/USDT"], timeframes=["1Hour"], strategy_ids=[11], run_id="first")
        asked = OptimizationRequest(config=CONFIG, parameters={"take_profit": [0.01, 0.02]})
        started, study = writer.start(probe), writer.optimization_start(asked)
        while writer.status(started).finished_at is None or writer.optimization_status(study).completed_at is None:
            time.sleep(0.01)
    return made


@pytest.fixture
def market(folder):
    with open_market(folder) as market:
        yield market


def refused(code, call, kind=AtlasError):
    with pytest.raises(kind) as found:
        call()
    assert found.value.code is code
    return found.value.message


# The page.


def test_every_example_of_the_page_runs(folder, monkeypatch):
    monkeypatch.setenv("ATLASD_DATA_DIR", str(folder))
    examples = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(examples) >= 8
    said: dict[str, object] = {}
    for number, example in enumerate(examples):
        exec(compile(example, f"example {number}", "exec"), said)  # noqa: S102 - our own page
    result, kept = said["result"], said["kept"]
    assert (kept.is_kept, result.is_kept, kept.summary.name) == (True, False, "dips")
    assert kept.summary.fingerprint == result.summary.fingerprint
    for rows in ("trades", "fills", "equity"):  # read now, after the market was closed
        assert getattr(result, rows).arrow.equals(getattr(said["again"], rows).arrow)
        assert len(getattr(result, rows)) > 5
    assert said["volume"] == pytest.approx(TRADES.column("size").sum() / 1e5)
    assert sorted(said["points"]["take_profit"].tolist()) == [0.01, 0.02]
    assert len(said["groups"]["pnl_mean"]) == len(said["probe"].results) > 0


def test_a_type_checker_sees_the_names_that_there_are():
    tree = ast.parse(Path(research.__file__).read_text())
    guarded = next(each for each in tree.body if isinstance(each, ast.If))
    seen = {alias.name for each in guarded.body for alias in each.names}
    assert seen == set(research._NAMES) == set(research.__all__)  # noqa: SLF001 - lists of one file
    assert all(getattr(research, name) is not None and name in dir(research) for name in seen)
    assert Path(research.__file__).parents[1].joinpath("py.typed").exists()
    with pytest.raises(AttributeError, match="nothing_like_it"):
        research.nothing_like_it  # noqa: B018


# Columns.


def test_columns_are_what_was_stored_to_the_last_bit(market):
    assert [(each.symbol, each.series, each.rows) for each in market.symbols()] == [
        ("demo:BTC/USDT", "1Min", 4_000),
        ("demo:BTC/USDT", "trades", 3_000),
    ]
    bars = market.columns("BTC/USDT", "1m")
    assert list(bars) == ["timestamp", "open", "high", "low", "close", "volume"]
    assert all(np.array_equal(made, kept) for made, kept in zip(bars.values(), BARS, strict=True))
    trades = market.columns("BTC/USDT", "trades")
    assert np.array_equal(trades["timestamp"], TRADES.time_ns)
    assert np.array_equal(trades["price"], to_floats(TRADES.column("price"), 2))
    assert np.array_equal(trades["size"], to_floats(TRADES.column("size"), 5))
    assert (trades["side"].dtype, trades["id"].dtype) == (np.int8, np.int64)
    trades["price"][:] = 0.0  # arrays of one's own
    assert market.columns("BTC/USDT", "trades", names=["price"])["price"].min() > 0


def test_longer_bars_are_made_of_those_that_are_stored(market):
    made = market.columns("demo:BTC/USDT", "1h", names=["close", "volume"])
    hours = lengthen(BARS, Timeframe.HOUR_1.ns)
    assert list(made) == ["close", "volume"]
    assert np.array_equal(made["close"], hours.close)
    assert np.array_equal(made["volume"], hours.volume)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2022-01-09", "2022-01-09"),
        (date(2022, 1, 9), date(2022, 1, 9)),
        ("2022-01-09T00:00:00Z", "2022-01-10T00:00:00Z"),
        (datetime(2022, 1, 9), datetime(2022, 1, 10, tzinfo=UTC)),  # noqa: DTZ001 - taken as UTC
        (START_NS + NS_PER_DAY, START_NS + 2 * NS_PER_DAY),
        (np.int64(START_NS + NS_PER_DAY), np.datetime64("2022-01-10")),
    ],
)
def test_a_range_is_written_as_scripts_have_times(market, start, end):
    day = market.columns("BTC/USDT", "1m", start, end, ["timestamp"])["timestamp"]
    assert (day.size, day[0], day[-1]) == (1_440, START_NS + NS_PER_DAY, START_NS + 2 * NS_PER_DAY - 60 * NS_PER_SECOND)


def test_a_range_without_rows_has_empty_columns_of_the_same_types(market):
    nothing = market.columns("BTC/USDT", "trades", start="2030-01-01")
    some = market.columns("BTC/USDT", "trades")
    assert {name: (column.size, column.dtype) for name, column in nothing.items()} == {
        name: (0, column.dtype) for name, column in some.items()
    }


@pytest.mark.parametrize(
    "moment",
    [
        np.datetime64("9999-01-01"),
        np.datetime64("1600-01-01T00"),
        np.datetime64("NaT"),
        10**30,
        float("nan"),
        True,
        [1],
    ],
)
def test_a_time_that_64_bits_cannot_tell_is_refused_and_never_another(market, moment):
    refused(Code.INVALID_DATE_RANGE, lambda: market.columns("BTC/USDT", "1m", moment), InvalidRequest)


def test_names_may_come_one_by_one_and_are_no_letters_of_a_text(market):
    assert list(market.columns("BTC/USDT", "1m", names=(each for each in ("low", "close")))) == ["low", "close"]
    for ask in (market.columns, market.indicators):
        said = refused(Code.INVALID_REQUEST, lambda ask=ask: ask("BTC/USDT", "1m", names="close"), InvalidRequest)
        assert "['close']" in said


def test_a_value_of_another_type_is_refused_as_any_that_is_wrong(market):
    refused(Code.INVALID_SYMBOL, lambda: market.columns(None, "1m"))
    refused(Code.INVALID_TIMEFRAME, lambda: market.columns("BTC/USDT", 60))
    refused(Code.BACKTEST_NOT_FOUND, lambda: market.backtest(None))
    for point in ({"take_profit": None}, {"take_profit": "much"}, [1]):
        refused(Code.INVALID_PARAMETER, lambda point=point: market.run(CONFIG, point=point), InvalidRequest)
    refused(Code.INVALID_PARAMETER, lambda: market.run(CONFIG | {"point": 5}, point={"take_profit": 0.02}))
    refused(Code.INVALID_CONFIGURATION, lambda: market.run(CONFIG, name="x" * 201))
    refused(Code.INVALID_REQUEST, lambda: market.run(CONFIG, name="a\0b", keep=True))


def test_blocks_are_the_columns_in_pieces(market):
    blocks = list(market.blocks("BTC/USDT", "1m", names=["close"]))
    assert np.array_equal(np.concatenate([block["close"] for block in blocks]), BARS.close)


def test_what_is_not_there_is_refused_before_anything_is_read(market):
    assert "did you mean close?" in refused(
        Code.INVALID_REQUEST, lambda: market.blocks("BTC/USDT", "1m", names=["closing"]), InvalidRequest
    )
    refused(Code.INVALID_SYMBOL, lambda: market.columns("NONE", "1m"), NotFound)
    refused(Code.INVALID_TIMEFRAME, lambda: market.columns("BTC/USDT", "7m"), InvalidRequest)
    refused(Code.NO_ROWS, lambda: market.blocks("BTC/USDT", "quotes"), NotFound)
    refused(Code.INVALID_DATE_RANGE, lambda: market.columns("BTC/USDT", "1m", "yesterday"), InvalidRequest)
    assert "rsi_14" in refused(Code.INVALID_REQUEST, lambda: market.indicators("BTC/USDT", "1m", ["rsi_x14"]))


# Indicators.


def test_indicators_are_those_of_the_engine_with_their_warm_up_read(market):
    names = ["rsi_14", "sma_20", "cdl_doji", "close"]
    whole = IndicatorColumns(BARS)
    found = market.indicators("BTC/USDT", "1m", names, start=START_NS + NS_PER_DAY)
    assert np.array_equal(found["timestamp"], BARS.start_ns[1_440:])
    assert all(found[name].dtype == np.float64 for name in names)
    for name in names:
        np.testing.assert_allclose(found[name], whole[name][1_440:], rtol=1e-8, atol=1e-8)
    cold = market.indicators("BTC/USDT", "1m", ["sma_20"])["sma_20"]
    assert np.isnan(cold[:19]).all()
    assert not np.isnan(cold[19:]).any()


# Backtests.


def test_a_run_leaves_nothing_behind(market, folder):
    def left():
        with market._env.read() as transaction:  # noqa: SLF001 - any change of the store
            return transaction.snapshot, sorted(path.name for path in folder.rglob("*"))

    before, said = left(), []
    result = market.run(CONFIG, point={"take_profit": np.float64(0.02)}, name="mine", progress=said.append)
    assert left() == before
    assert result.summary.name == "mine"
    assert result.summary.resolved["exits"]["take_profit"]["value"] == 0.02
    assert said
    assert all(0 < each <= 1 for each in said)
    assert "trades" in repr(result)


def test_a_run_in_a_worker_process_gives_the_same(folder):
    settings = find_settings(folder, None)
    few = RuleBook([settings.prepare().get(11)])  # ready sooner
    with Market(settings._replace(prepare=lambda: few)) as market:
        apart, here = market.run(CONFIG, apart=True), market.run(CONFIG)
        assert apart.summary.fingerprint == here.summary.fingerprint
        assert apart.fills.arrow.equals(here.fills.arrow)


def test_a_configuration_may_be_a_file_and_its_errors_have_codes(market, tmp_path):
    path = tmp_path / "config.json"
    refused(Code.SOURCE_NOT_FOUND, lambda: market.run(path), NotFound)
    path.write_text('{"strategy": \n nonsense')
    assert "line 2" in refused(Code.INVALID_JSON, lambda: market.run(path), InvalidRequest)
    refused(Code.INVALID_REQUEST, lambda: market.run({"strategy": object()}), InvalidRequest)
    wrong = CONFIG | {"backtest": {"symbols": ["NONE"]}}
    for keep in (False, True):
        refused(Code.INVALID_SYMBOL, lambda keep=keep: market.run(wrong, keep=keep), NotFound)
    refused(Code.BACKTEST_NOT_FOUND, lambda: market.backtest("none"), NotFound)
    refused(Code.OPTIMIZATION_NOT_FOUND, lambda: market.optimization("none"), NotFound)
    refused(Code.RUN_NOT_FOUND, lambda: market.probe("none"), NotFound)


@pytest.mark.parametrize("value", [float("nan"), np.float64("inf")])
def test_a_number_that_json_has_not_is_refused_and_no_default_stands_in_for_it(market, value):
    backtest = CONFIG["backtest"] | {"commission": value}
    refused(Code.INVALID_REQUEST, lambda: market.run(CONFIG | {"backtest": backtest}), InvalidRequest)


def test_a_kept_run_of_a_strategy_that_raises_has_its_lines():
    lines = "  mine.py, line 4, in on_bar: self.quote()\n  mine.py, line 9, in quote: 1 / 0\n"
    error = _said(f"compiling\n{lines}error: it failed: why [STRATEGY_RAISED]\n", 1)
    assert (error.code, error.message) == (Code.STRATEGY_RAISED, "it failed: why")
    assert error.details["traceback"][1] == "mine.py, line 9, in quote: 1 / 0"
    assert len(error.details["traceback"]) == 2


def test_a_script_without_a_guard_may_run_in_a_worker(folder, tmp_path):
    """A worker that ran it again would open the folder twice, which LMDB refuses, and start workers of its own."""
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from daemon.research.scripting.market import Market\n"
        "from daemon.research.scripting.opening import find_settings\n"
        "from daemon.research.strategies import RuleBook\n"
        "from pathlib import Path\n"
        "print('top')\n"
        f"settings = find_settings(Path({str(folder)!r}), None)\n"
        "market = Market(settings._replace(prepare=lambda: RuleBook(())))\n"
        f"print(market.run({CONFIG!r}, apart=True).summary.trade_stats.total_trades)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split()
    assert first == "top"
    assert int(second) > 5


def test_a_strategy_file_lies_beside_the_configuration_that_names_it(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"strategy": {"file": "mine.py"}}')
    assert read_wanted(path, {"a": 1})["strategy"]["file"] == str(tmp_path / "mine.py")
    assert read_wanted({"strategy": {"file": tmp_path / "x.py"}}, None)["strategy"]["file"] == str(tmp_path / "x.py")


# Tables.


def test_rows_go_wherever_arrow_goes(market):
    trades = market.run(CONFIG).trades
    assert pa.table(trades).equals(trades.arrow)
    columns = trades.columns()
    assert columns["entryTime"].dtype == np.int64
    assert columns["entryTime"][0] > START_NS
    assert columns["pnl"].dtype == np.float64
    frame = pytest.importorskip("pandas") and trades.frame()
    assert frame["pnl"].tolist() == columns["pnl"].tolist()
    assert str(frame["entryTime"].dtype) == "datetime64[ns, UTC]"


def test_a_receipt_without_impact_has_none_and_not_less_than_none(market):
    fills = market.run(CONFIG).fills.columns()
    assert (fills["liquidity"] == "maker").any()
    assert not np.signbit(fills["impact"]).any()


def test_a_frame_without_pandas_says_what_to_install(market, monkeypatch):
    trades = market.run(CONFIG).trades
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert "pip install pandas" in refused(Code.PACKAGE_MISSING, trades.frame, ConfigError)


# The folder.


def test_a_folder_may_be_opened_again_and_each_market_closes_for_itself(folder):
    first, second = open_market(folder), open_market(str(folder))
    rows = first.run(CONFIG).trades
    first.close()
    first.close()
    assert "is closed" in refused(Code.STORE_UNUSABLE, lambda: first.columns("BTC/USDT", "1m"), ConfigError)
    refused(Code.STORE_UNUSABLE, first.backtests, ConfigError)
    assert len(rows) > 1  # what came of it stays
    assert second.columns("BTC/USDT", "1m")["close"].size == 4_000
    del second
    gc.collect()
    with Environment(folder, StoreConfig(), readonly=True) as env:  # nobody has it open any more
        assert BarStore(env).series()


def test_a_folder_without_a_store_is_not_made(tmp_path):
    refused(Code.STORE_UNUSABLE, lambda: open_market(tmp_path / "none"), ConfigError)
    assert not (tmp_path / "none").exists()
