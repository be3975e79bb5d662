"""Optimisations over a real store, for tests of the search and of the service that works them off."""

from daemon.core.market import NS_PER_DAY, Timeframe
from daemon.engine.synthetic import MarketModel, simulate
from daemon.research.optimization import records
from daemon.research.optimization.records import OptimizationJob
from daemon.research.optimization.request import OptimizationRequest, planned
from daemon.research.optimization.search import optimize
from daemon.research.strategies import RuleBook
from daemon.store import keys
from daemon.store.bars import BarStore
from daemon.store.instruments import parse_instrument

BOOK = RuleBook([])
START_NS = 19_000 * NS_PER_DAY
GRID = ["take_profit=0.01:0.03:0.01", "stop_loss=0.01,0.02,0.04", "indicator_length=0.5,1,2"]
DIPS = {
    "name": "dips",
    "entryRules": [{"indicator": "rsi", "condition": "crosses_above", "value": 35}],
    "exitRules": [{"type": "take_profit", "value": 0.02}, {"type": "stop_loss", "value": 0.02}],
}
NEVER = DIPS | {"entryRules": [{"indicator": "close", "condition": "lt", "value": 0}]}


def config(strategy=DIPS, **backtest):
    return {"strategy": strategy, "backtest": {"symbols": "A"} | backtest}


def hours(days, seed=1, start_ns=START_NS):
    return simulate(MarketModel(), seed=seed, start_ns=start_ns, bars=24 * days, timeframe=Timeframe.HOUR_1)


def put_bars(env, bars, name="x:A"):
    """Store bars of an hour in place of those that are stored at their times."""
    instrument, store = parse_instrument(name), BarStore(env)
    env.write(lambda transaction: store.merge(transaction, instrument, Timeframe.HOUR_1, bars, replace=True))
    return store


def forget(env):
    """Remove all optimisations, and all tries from the ledger."""

    def remove(transaction):
        for kind in ("idea", "trial", *(f"optimization{part}" for part in ("", "_request", "_rows", "_result"))):
            for key in [bytes(key) for key, _ in transaction.scan("documents", keys.document(kind))]:
                transaction.delete("documents", key)

    env.write(remove)


def plan_of(store, parameters=GRID, asked=None, **options):
    request = OptimizationRequest(config=asked or config(), parameters=parameters, **options)
    return planned(request, store, BOOK, {})


def worked(store, plan, checkpoint=lambda: None, progress=lambda _: None):
    """Work a plan off, its points and tries stored as the service stores them."""
    env = store.ticks.env

    def told(word):
        progress(word)
        if word.rows is not None:
            env.write(lambda transaction: records.put_rows(transaction, "o", word.rows, word.tried))

    return optimize(store, OptimizationJob("o", plan, {}), told, checkpoint, BOOK)
