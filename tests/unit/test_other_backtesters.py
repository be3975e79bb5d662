"""The same bars through backtesting.py and vectorbt, where their contracts can be matched: the same equity.

Both are optional (the first is under the AGPL, the second under the Commons Clause): only these tests import them.
Matched: one symbol, long only, market orders at the next open, a fee rate on each fill, no slippage.
"""

import warnings

import numba
import numpy as np
import pytest
from simulated import a_spec, bars, costs, run

from daemon.core.backtest import Account, Fixed, FixedFractional
from daemon.core.market import Timeframe
from daemon.engine.deciding import ENTER_LONG, EXIT_LONG
from daemon.engine.synthetic import CONTINUOUS, MarketModel, simulate

FEE = 0.0015
CAPITAL = 1_000_000.0
UNITS = 7
SIZE = 600


def imported(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, exc_type=ImportError)


def uncompiled_vectorbt():
    """Import vectorbt as plain Python: the same arithmetic, without half a minute of compiling it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", True)
        vectorbt = imported("vectorbt")
    vectorbt.settings.numba["check_func_type"] = False
    return vectorbt


def market(seed):
    """Return prices, and entries and exits at the crossings of two averages; all is closed before the end."""
    made = simulate(MarketModel(), seed=seed, start_ns=0, bars=SIZE, timeframe=Timeframe.MIN_1, session=CONTINUOUS)
    fast, slow = (np.convolve(made.close, np.ones(n) / n)[:SIZE] for n in (5, 20))
    above = fast > slow
    crosses = np.flatnonzero(np.diff(above.astype(int)) != 0) + 1
    crosses = crosses[(crosses >= 20) & (crosses < SIZE - 5)]
    entries, exits = np.zeros(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    entries[crosses[above[crosses]]] = True
    exits[crosses[~above[crosses]]] = True
    exits[SIZE - 4] = True
    return made, entries, exits


def our_equity(made, entries, exits, sizing):
    rows = zip(*(column.tolist() for column in made[1:6]), strict=True)
    said = (entries * ENTER_LONG + exits * EXIT_LONG).tolist()
    series = bars(*rows, signals=dict(enumerate(said)))
    spec = a_spec(sizing=sizing, costs=costs(maker=FEE, taker=FEE), account=Account(initial_capital=CAPITAL))
    outcome = run((spec, [series], []))
    assert outcome.log.size > 10
    return outcome.samples.equity


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_backtesting_py_finds_the_same_equity(seed):
    backtesting, pandas = imported("backtesting"), imported("pandas")
    made, entries, exits = market(seed)

    class Crossing(backtesting.Strategy):
        def init(self):
            pass

        def next(self):
            at = len(self.data) - 1
            if self.position and exits[at]:
                self.position.close()
            elif not self.position and entries[at]:
                self.buy(size=UNITS)

    names = ("Open", "High", "Low", "Close", "Volume")
    frame = pandas.DataFrame(dict(zip(names, made[1:6], strict=True)), index=pandas.to_datetime(made.start_ns))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stats = backtesting.Backtest(frame, Crossing, cash=CAPITAL, commission=FEE).run()
    theirs = stats["_equity_curve"]["Equity"].to_numpy()
    np.testing.assert_allclose(our_equity(made, entries, exits, Fixed(quantity=float(UNITS))), theirs, rtol=1e-12)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("sizing", "size"),
    [(Fixed(quantity=float(UNITS)), float(UNITS)), (FixedFractional(), np.inf)],
    ids=["units", "all"],
)
def test_vectorbt_finds_the_same_equity(seed, sizing, size):
    pandas, vectorbt = imported("pandas"), uncompiled_vectorbt()
    made, entries, exits = market(seed)

    def shifted(signals):
        """Signals of a close, at the bar whose open they trade at."""
        return np.concatenate([[False], signals[:-1]])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = vectorbt.Portfolio.from_signals(
            pandas.Series(made.close),
            shifted(entries),
            shifted(exits),
            price=pandas.Series(made.open),
            size=size,
            fees=FEE,
            init_cash=CAPITAL,
            freq="1min",
        ).value()
    np.testing.assert_allclose(our_equity(made, entries, exits, sizing), theirs.to_numpy(), rtol=1e-12)
