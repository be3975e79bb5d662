"""Configurations whose strategy is a trader's own, and whose fills are against the book."""

import json

import numpy as np
import pytest

from daemon.core.backtest import Exits, NoSlippage, Own, Queue
from daemon.core.errors import AtlasError, Code
from daemon.core.market import NS_PER_DAY, Bars, Instrument, Timeframe
from daemon.core.ticks import Stream, ticks
from daemon.research.backtest_config.given import with_given
from daemon.research.backtest_config.read import read_config, resolve_set
from daemon.research.optimization.request import OptimizationRequest, planned
from daemon.research.own.folder import StrategyFolder, digest_of, kept_id
from daemon.research.parameters import Space, read_specification
from daemon.research.strategies import RuleBook
from daemon.research.trials import idea_of
from daemon.store.bars import BarStore
from daemon.store.bulk import BulkWriter
from daemon.store.env import Environment, StoreConfig

START_NS = 19_358 * NS_PER_DAY  # 2023-01-01
HEAD = "from daemon.research import Parameter, Strategy\n"
MAKER = f"""{HEAD}
class Maker(Strategy):
    half_spread = Parameter(2.0, low=1.0, high=8.0, step=0.5)
    size = Parameter(0.01, low=0.01, high=0.02, step=0.01)

    def on_bar(self, context, bar):
        pass

    def on_book(self, context):
        pass
""".encode()
WATCHER = f"{HEAD}class W(Strategy):\n    def on_book(self, context): pass\n".encode()
FILLER = f"{HEAD}class W(Strategy):\n    def on_fill(self, context, fill): pass\n".encode()


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    """B of a minute on 2023-01-01; T with trades, D with depth, and TD with both, of the same day."""
    with Environment(tmp_path_factory.mktemp("own"), StoreConfig(sync=False)) as env:
        store = BarStore(env)
        count = 1_440
        price = np.full(count, 100.0)
        rows = Bars(START_NS + np.arange(count) * Timeframe.MIN_1.ns, price, price, price, price, price)
        env.write(
            lambda transaction: store.merge(transaction, Instrument("x", "B"), Timeframe.MIN_1, rows, replace=False)
        )
        for symbol, streams in (("T", [Stream.TRADES]), ("D", [Stream.DEPTH]), ("TD", [Stream.TRADES, Stream.DEPTH])):
            for stream in streams:
                _put(store, Instrument("x", symbol), stream)
        yield store


def _put(store, instrument, stream):
    columns = {"time_ns": START_NS + np.arange(3), "id": np.arange(3), "price": [1, 2, 3], "size": [1, 1, 1]}
    with BulkWriter(store.ticks, instrument, stream) as writer:
        writer.add(ticks(stream, price_decimals=0, size_decimals=0, side=[1, 1, 1], **columns))
        writer.finish()


@pytest.fixture
def folder(tmp_path):
    folder = StrategyFolder(tmp_path / "strategies")
    folder.add("maker", MAKER)
    folder.add("watcher", WATCHER)
    folder.add("filler", FILLER)
    folder.add("broken", b"class A(")
    return folder


@pytest.fixture
def book(folder):
    return RuleBook([], folder)


def config(strategy="maker", parameters=None, symbol="B", **backtest):
    given = {"own": strategy} if isinstance(strategy, str) else strategy
    more = {} if parameters is None else {"parameters": parameters}
    return {"strategy": given | more, "backtest": {"symbols": [symbol]} | backtest}


def refusal(bars, book, config, read=read_config):
    with pytest.raises(AtlasError) as refused:
        read(config, bars, book, {})
    return refused.value


def test_an_own_strategy_is_its_id_its_digest_and_the_parameters_that_were_given(bars, book):
    made = read_config(config(parameters={"half_spread": "3"}), bars, book)
    assert made.program == Own("maker", digest_of(MAKER), {"half_spread": 3.0})
    assert (made.name, made.exits) == ("maker", Exits())
    assert "Own strategy maker, called for on_bar, on_book; half_spread 3, size 0.01." in made.readings
    assert "On fills bars nothing calls on_book of maker." in made.readings
    assert not any("sizing" in each for each in made.readings)


@pytest.mark.parametrize(
    ("wrong", "code", "path", "why"),
    [
        (config("nothing"), Code.STRATEGY_NOT_FOUND, "strategy.own", "it has broken, filler, maker, watcher"),
        (config("../maker"), Code.STRATEGY_INVALID, "strategy.own", "is no id of a strategy"),
        (config("broken"), Code.STRATEGY_INVALID, "strategy.own", "broken.py, line 1: does not parse"),
        (config({"file": "maker.py"}), Code.INVALID_CONFIGURATION, "strategy.file", "command line alone"),
        (config(parameters={"half_spred": 3}), Code.INVALID_CONFIGURATION, "strategy.parameters.half_spred",
         "did you mean `half_spread`"),
        (config(parameters={"half_spread": 9}), Code.INVALID_CONFIGURATION, "strategy.parameters.half_spread",
         "is 9, it must be 1 or more and 8 or less"),
        (config(parameters={"size": "much"}), Code.INVALID_CONFIGURATION, "strategy.parameters.size", "not a number"),
        (config(parameters=[1]), Code.INVALID_CONFIGURATION, "strategy.parameters", "not an object"),
        (config("watcher", {"x": 1}, symbol="TD", fills="book"), Code.INVALID_CONFIGURATION, "strategy.parameters",
         "declares none"),
        (config({"own": "maker", "exitRules": []}), Code.INVALID_CONFIGURATION, "strategy.exitRules",
         "itself decides when a position is closed"),
        (config({"own": "maker", "entryOrder": {"type": "limit"}}), Code.INVALID_CONFIGURATION, "strategy.entryOrder",
         "itself decides how orders are sent"),
        (config({"own": "maker", "sizing": "kelly"}), Code.INVALID_CONFIGURATION, "strategy.sizing", "how large"),
        (config(sizing="kelly"), Code.INVALID_CONFIGURATION, "backtest.sizing", "itself decides how large"),
        (config({"own": "maker", "template": "grid"}), Code.INVALID_CONFIGURATION, "strategy.template",
         "cannot stand beside strategy.own"),
        (config("watcher"), Code.INVALID_CONFIGURATION, "backtest.fills",
         'is "bars", where nothing calls watcher: it has on_book; take "book"'),
        (config("filler"), Code.INVALID_CONFIGURATION, "backtest.fills", "nothing calls filler"),
    ],
)  # fmt: skip
def test_what_an_own_strategy_cannot_have_is_refused_with_its_path(bars, book, wrong, code, path, why):
    error = refusal(bars, book, wrong)
    assert (error.code, error.details["field"]) == (code, path)
    assert why in error.message


def test_without_a_folder_there_are_no_own_strategies(bars):
    assert refusal(bars, RuleBook([]), config()).code is Code.STRATEGY_NOT_FOUND


# Fills against the book.


def test_a_book_has_queues_and_no_slippage_model(bars, book):
    made = read_config(config("watcher", symbol="TD", fills="book"), bars, book)
    assert (made.fills, made.queue, made.costs.slippage) == ("book", Queue(), NoSlippage())
    assert made.markets[0].source is Stream.TRADES
    assert not any("slippage" in each for each in made.readings)
    queue = {"model": "power", "exponent": 2, "selfTrade": "cancel_both", "replace": "loses"}
    made = read_config(config("watcher", symbol="TD", fills="book", queue=queue), bars, book)
    assert made.queue == Queue("power", 2.0, "cancel_both", "loses")
    made = read_config(config("watcher", symbol="TD", fills="book", queue="log"), bars, book)
    assert made.queue == Queue("log")


@pytest.mark.parametrize(
    ("backtest", "code", "path", "why"),
    [
        ({"symbol": "T"}, Code.NO_ROWS, "backtest.symbols[0]", "x:T has no stored depth"),
        ({"symbol": "D"}, Code.NO_ROWS, "backtest.symbols[0]", "x:D has no stored trades"),
        ({"symbol": "B"}, Code.NO_ROWS, "backtest.symbols[0]", "`atlasd import depth FILE`"),
        ({"slippageModel": "kyle"}, Code.INVALID_CONFIGURATION, "backtest.slippageModel", "the book's own levels"),
        ({"slippage": {"y": 1}}, Code.INVALID_CONFIGURATION, "backtest.slippage", "the book's own levels"),
        ({"slippageBps": 1}, Code.INVALID_CONFIGURATION, "backtest.slippageBps", "the book's own levels"),
        ({"limitFills": "touch"}, Code.INVALID_CONFIGURATION, "backtest.limitFills", "as its queue does"),
        ({"queue": {"model": "fifo"}}, Code.INVALID_CONFIGURATION, "backtest.queue.model", "not one of log, power"),
        ({"queue": {"exponent": 0, "model": "power"}}, Code.INVALID_CONFIGURATION, "backtest.queue.exponent",
         "above 0"),
        ({"queue": {"exponent": 2}}, Code.INVALID_CONFIGURATION, "backtest.queue.exponent", "for the model power"),
        ({"queue": {"self_trade": "x"}}, Code.INVALID_CONFIGURATION, "backtest.queue.self_trade", "`selfTrade`"),
        ({"queue": "log", "fills": "bars", "symbol": "B"}, Code.INVALID_CONFIGURATION, "backtest.queue",
         'goes with "fills": "book", it is "bars"'),
    ],
)  # fmt: skip
def test_what_a_book_needs_and_does_not_go_with_it_is_refused_with_its_path(bars, book, backtest, code, path, why):
    error = refusal(bars, book, config(**{"symbol": "TD", "fills": "book"} | backtest))
    assert (error.code, error.details["field"]) == (code, path)
    assert why in error.message


# Parameters.


def test_a_point_sets_parameters_within_their_ranges(bars, book):
    made = read_specification(config(parameters={"size": 0.02}) | {"point": {"half_spread": "2.5"}}, bars, book, {})
    assert made.program.parameters == {"size": 0.02, "half_spread": 2.5}
    for point, why in (
        ({"half_spread": 0.5}, "0.5 is not from 1 to 8, as it is declared"),
        ({"take_profit": 0.1}, "declares no such parameter: it has half_spread, size"),
        ({"indicator_length": 2}, "declares no such parameter"),
        ({"period": 2}, "declares no such parameter"),
    ):
        error = refusal(bars, book, config() | {"point": point}, read_specification)
        assert error.code is Code.INVALID_PARAMETER
        assert why in error.message


def test_an_optimisation_varies_parameters_over_their_declared_ranges(bars, book):
    plan = planned(OptimizationRequest(config=config()), bars, book, {})
    assert {each.name: (each.low, each.high, len(each.values)) for each in plan.ranges} == {
        "half_spread": (1.0, 8.0, 15), "size": (0.01, 0.02, 2),
    }  # fmt: skip
    assert plan.points == 30
    plan = planned(OptimizationRequest(config=config(), parameters=["backtest.commission=0,0.001"]), bars, book, {})
    assert plan.points == 2
    with pytest.raises(AtlasError, match="0 is not from 1 to 8"):
        planned(OptimizationRequest(config=config(), parameters=["half_spread=0:2:1"]), bars, book, {})


def test_points_are_of_the_version_that_was_queued_whatever_became_of_the_file(bars, book, folder):
    asked = config(parameters={"size": 0.02})
    spec = read_config(asked, bars, book)
    book.pin(spec)
    (folder.path / "maker.py").write_bytes(MAKER.replace(b"high=8.0", b"high=2.0"))
    space = Space(asked, spec, bars, book, {})
    made = space.at({"half_spread": 7.0, "backtest.commission": 0.002})
    assert made.program == Own("maker", digest_of(MAKER), {"size": 0.02, "half_spread": 7.0})
    assert made.costs.taker_rate == 0.002


def test_all_versions_of_a_file_are_one_idea(bars, book, folder):
    kept = folder.keep_source("maker", MAKER)
    ideas = {idea_of(read_config(config(each), bars, book)) for each in ("maker", kept)}
    (folder.path / "maker.py").write_bytes(MAKER + b"# edited\n")
    ideas.add(idea_of(read_config(config(parameters={"size": 0.02}), bars, book)))
    folder.add("other", MAKER)
    assert len(ideas) == 1
    assert idea_of(read_config(config("other"), bars, book)) not in ideas


def test_fields_of_own_parameters_can_be_set_by_path():
    made = resolve_set(config(), "strategy.parameters.half_spread=3")
    assert made["strategy"] == {"own": "maker", "parameters": {"half_spread": 3}}
    assert resolve_set(config(), "backtest.queue.selfTrade=cancel_both")["backtest"]["queue"]
    with pytest.raises(AtlasError, match="no field of"):
        resolve_set({"strategy": {"template": "grid"}}, "strategy.parameters.half_spread=3")


# A file on the command line.


def test_a_file_beside_a_configuration_is_kept_and_becomes_an_id(bars, book, folder, tmp_path):
    (tmp_path / "mine.py").write_bytes(MAKER)
    given = {"file": "mine.py", "parameters": {"size": 0.02}}
    made = with_given(config(given), tmp_path, folder)
    assert made == config(kept_id("mine", digest_of(MAKER)), {"size": 0.02})
    (tmp_path / "mine.py").unlink()
    spec = read_config(made, bars, book)
    assert (spec.name, spec.program.digest) == ("mine", digest_of(MAKER))
    assert json.dumps(made)
    assert with_given(config(), tmp_path, folder) == config()


@pytest.mark.parametrize(
    ("strategy", "code", "why"),
    [
        ({"file": "nothing.py"}, Code.STRATEGY_NOT_FOUND, "there is no file"),
        ({"file": "notes.txt"}, Code.INVALID_CONFIGURATION, "a strategy is a Python file"),
        ({"file": 7}, Code.INVALID_CONFIGURATION, "not a text"),
        ({"file": "a.py", "own": "maker"}, Code.INVALID_CONFIGURATION, "cannot stand beside strategy.own"),
    ],
)
def test_what_is_no_file_of_a_strategy_is_refused(folder, tmp_path, strategy, code, why):
    with pytest.raises(AtlasError, match=why) as refused:
        with_given(config(strategy), tmp_path, folder)
    assert refused.value.code is code
    assert refused.value.details["field"] == "strategy.file"
