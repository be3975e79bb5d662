"""Monte Carlo simulations of backtests that have ended: asked for, drawn by a worker, kept, and shown again.

A backtest keeps the one that was asked for last, beside the one that its own configuration asked for; neither changes
its verdict. The same again, of either, draws nothing: a seed gives the same numbers anywhere.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from daemon.core.errors import Code, InvalidRequest, NotFound
from daemon.research import backtest_records as records
from daemon.research.backtest_states import Flag
from daemon.research.monte_carlo_records import MonteCarloJob, MonteCarloRequest, Simulation, StoredSimulation
from daemon.research.validation_result import MonteCarloResult
from daemon.research.weighing import LEAST_TRADES
from daemon.store import backtests as tables
from daemon.store import documents

if TYPE_CHECKING:
    from daemon.research.backtests import Backtests
    from daemon.research.executors import Executor
    from daemon.store.env import Environment, Transaction

MOST_TRADES: Final = 1_000_000_000
"""Runs x trades at most: each of the four methods walks as many, a minute on two cores."""

_FIXED_BYTES: Final = 64 << 20
_RUN_BYTES: Final = 96
"""What became of a run, sorted and copied to take its percentiles."""

_TRADE_BYTES: Final = 96
"""A trade as it is stored, as fractions of the equity, and while the length of blocks is chosen."""

_DRAWN_BYTES: Final = 8
"""A trade that a thread has drawn."""


class _Known(NamedTuple):
    """What is stored of a backtest. own: the simulation that its configuration asked for. kept: the last asked for."""

    fingerprint: str | None
    initial: float
    trades: int
    own: MonteCarloResult | None
    kept: StoredSimulation | None

    def answer(self, request: MonteCarloRequest) -> Simulation | None:
        """Return what was asked for before; None where that is new."""
        if self.kept is not None and self.kept.request == request:
            return self.kept.result
        if self.own is not None:
            asked = (self.own.runs, self.own.seed, self.own.return_confidence_interval.confidence, None)
            if asked == (request.runs, request.seed, request.confidence_level, request.block):
                return _by_itself(request.backtest_id, self.own)
        return None


class MonteCarlos:
    """Simulations of one store's backtests. Methods may be called from any thread."""

    def __init__(self, env: Environment, backtests: Backtests, executor: Executor) -> None:
        self._env = env
        self._backtests = backtests
        self._executor = executor
        self._lock = threading.Lock()
        self._under_way: dict[tuple[MonteCarloRequest, str | None], Future[Simulation]] = {}

    def simulate(self, request: MonteCarloRequest) -> Simulation:
        """Simulate and keep it, or return what was kept; as `submit`, and waits."""
        return self.submit(request).result()

    def submit(self, request: MonteCarloRequest) -> Future[Simulation]:
        """Have a worker simulate; the future yields it once it is stored.

        NotFound BACKTEST_NOT_FOUND, or TOO_FEW_TRADES where there is none; Conflict BACKTEST_NOT_FINISHED;
        InvalidRequest INVALID_REQUEST where runs x trades exceed MOST_TRADES, MEMORY_BOUND_EXCEEDED.
        """
        known = self._known(request.backtest_id)
        answer = known.answer(request)
        if answer is not None:
            ready: Future[Simulation] = Future()
            ready.set_result(answer)
            return ready
        _check(request, known.trades)
        key = (request, known.fingerprint)
        with self._lock:
            if (future := self._under_way.get(key)) is not None:
                return future
            drawing = self._executor.submit(
                MonteCarloJob(request, known.initial),
                lambda _: None,
                Flag(),
                priority="high",  # somebody waits for it
                memory_bytes=memory_bound(request.runs, known.trades),
            )
            future = self._under_way[key] = Future()
        drawing.add_done_callback(partial(self._ended, key, future))
        return future

    def find(self, backtest_id: str) -> Simulation:
        """Return the simulation asked for last, else that of the configuration; NotFound MONTE_CARLO_NOT_FOUND."""
        known = self._known(backtest_id)
        if known.kept is not None:
            return known.kept.result
        if known.own is not None:
            return _by_itself(backtest_id, known.own)
        why = f"backtest {backtest_id} was not simulated: `atlasd montecarlo {backtest_id}`, or POST /api/v1/montecarlo"
        raise NotFound(Code.MONTE_CARLO_NOT_FOUND, why, {"id": backtest_id})

    def _known(self, backtest_id: str) -> _Known:
        status = self._backtests.status(backtest_id)
        if status.status != "completed":
            raise records.no_result(status)
        with self._env.read() as transaction:
            fields = records.stored_fields(transaction, backtest_id)
            own = fields.get("monteCarlo")
            return _Known(
                status.fingerprint,
                msgspec.msgpack.decode(fields["resolved"], type=_Resolved).account.initial_capital,
                tables.rows(transaction, backtest_id)["trades"],
                None if own is None else msgspec.msgpack.decode(own, type=MonteCarloResult | None),
                documents.get(transaction, records.SIMULATION, backtest_id, StoredSimulation),
            )

    def _ended(
        self,
        key: tuple[MonteCarloRequest, str | None],
        future: Future[Simulation],
        drawing: Future[MonteCarloResult | None],
    ) -> None:
        request, fingerprint = key
        try:
            drawn = drawing.result()
            if drawn is None:
                raise _no_trades(request.backtest_id)
            simulation = _by_itself(request.backtest_id, drawn)
            self._env.write(partial(_keep, StoredSimulation(request, simulation), fingerprint))
        except Exception as error:  # noqa: BLE001 - whoever waits for the future is told
            future.set_exception(error)
        else:
            future.set_result(simulation)
        with self._lock:
            del self._under_way[key]


def memory_bound(runs: int, trades: int) -> int:
    """Say how many bytes a simulation holds at the most: of its paths nothing stays but where they ended."""
    threads = os.cpu_count() or 1
    return _FIXED_BYTES + runs * _RUN_BYTES + trades * (_TRADE_BYTES + threads * _DRAWN_BYTES)


def _keep(stored: StoredSimulation, fingerprint: str | None, transaction: Transaction) -> None:
    """Store a simulation, unless its backtest was deleted meanwhile, or another has its id."""
    backtest_id = stored.request.backtest_id
    is_there = records.is_stored(transaction, backtest_id)
    if is_there and records.stored_state(transaction, backtest_id).status.fingerprint == fingerprint:
        documents.put(transaction, records.SIMULATION, backtest_id, stored)


def _check(request: MonteCarloRequest, trades: int) -> None:
    if not trades:
        raise _no_trades(request.backtest_id)
    if request.runs * trades > MOST_TRADES:
        most = MOST_TRADES // trades
        raise InvalidRequest(
            Code.INVALID_REQUEST,
            f"{request.runs:,} runs of {trades:,} trades are more than {MOST_TRADES:,} trades to draw: ask for "
            f"{most:,} runs or fewer",
            {"field": "runs", "trades": trades, "most": most},
        )


def _no_trades(backtest_id: str) -> NotFound:
    why = (
        f"insufficient data: backtest {backtest_id} has no trades to draw from; one is the least, and below "
        f"{LEAST_TRADES} they say little: give it more data, or rules that trade more often"
    )
    return NotFound(Code.TOO_FEW_TRADES, why, {"id": backtest_id, "trades": 0, "least": 1})


def _by_itself(backtest_id: str, result: MonteCarloResult) -> Simulation:
    note = None
    if result.trades < LEAST_TRADES:
        trades = f"{result.trades} {'trade' if result.trades == 1 else 'trades'}"
        note = f"insufficient data: {trades}, at least {LEAST_TRADES} are needed to tell luck from an edge"
    fields = {name: getattr(result, name) for name in result.__struct_fields__}
    return Simulation(id=backtest_id, note=note, **fields)


class _Account(msgspec.Struct):
    initial_capital: float


class _Resolved(msgspec.Struct):
    account: _Account
