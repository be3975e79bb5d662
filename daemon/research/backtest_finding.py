"""What a backtest found, before it is put into words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from daemon.core.backtest import BacktestSpec
    from daemon.core.market import Float64s
    from daemon.engine.simulate import Outcome
    from daemon.engine.trades import Trades
    from daemon.research.backtest_gaps import Crossings
    from daemon.research.backtest_market import Loaded


class Runs(NamedTuple):
    """What the engine made. main: pessimistic, or over ticks. optimistic: None over ticks.

    as_python: handlers of an own strategy that could not be compiled, each with the reason.
    """

    main: Outcome
    optimistic: Outcome | None
    as_python: tuple[str, ...] = ()


class Finding(NamedTuple):
    """A backtest before it is put into words.

    gaps: one a symbol. over: (trades,) bool, those that crossed one. held: (samples,) float64, what buying and holding
    would have been worth.
    """

    backtest_id: str
    spec: BacktestSpec
    loaded: list[Loaded]
    runs: Runs
    trades: Trades
    year_days: int
    gaps: list[Crossings]
    over: NDArray[np.bool_]
    held: Float64s
