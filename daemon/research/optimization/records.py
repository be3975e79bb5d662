"""Optimisations as they are handed to workers and stored; `research.optimizations` works them off.

Points are stored in blocks as they are tried, in the transaction that counts their tries: who stops an optimisation
loses what was under way, and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from daemon.core.backtest import Target
from daemon.core.errors import Code, Conflict, NotFound, StoreCorrupt
from daemon.core.strategy import RiskProfile
from daemon.research import trials
from daemon.research.backtest_records import BacktestProgress, spec_from
from daemon.research.budgets import Budget
from daemon.research.optimization.request import Plan
from daemon.research.optimization.result import Method, OptimizationResult, OptimizationStatus
from daemon.research.ranges import Range
from daemon.research.trials import Trial
from daemon.store import documents, keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemon.core.market import Float64s
    from daemon.store.env import Transaction

_STATE: Final = "optimization"
_REQUEST: Final = "optimization_request"
_ROWS: Final = "optimization_rows"
_RESULT: Final = "optimization_result"
_DOCUMENTS: Final = "documents"

FIGURES: Final = ("score", "sharpe_ratio", "total_return_percent", "max_drawdown_percent", "total_trades")
"""What is kept of a point beside its values, a column each; NaN for a figure without a value."""

SERIES_KEPT: Final = 4
"""Series of different warm-ups that an optimisation holds at a time."""

MOST_CELLS: Final = 20_000_000
"""Days x points whose daily returns are kept to judge the choice by; of more points so many, evenly spaced."""

CELL_BYTES: Final = 48
"""A daily return that is kept, and its copies while the choice is judged."""


# What goes to a worker and comes back.


class OptimizationJob(msgspec.Struct, frozen=True):
    """An optimisation as a worker gets it.

    profiles: by which the configuration is read. budget: what code of the user's own may take, its time from one point
    to the next; None where there is none of it.
    """

    optimization_id: str
    plan: Plan
    profiles: dict[str, RiskProfile]
    budget: Budget | None = None


class Rows(msgspec.Struct, frozen=True):
    """Some points in the order in which they were tried.

    first: number of the first. digest: of what they rest on, bars and all. tried_before: tries of the idea before the
    first of all points. values: (n, ranges) float64, C order; figures: (n, len(FIGURES)) float64.
    """

    first: int
    digest: str
    tried_before: int
    values: bytes
    figures: bytes

    def table(self, ranges: int) -> tuple[Float64s, Float64s]:
        """Return values and figures as arrays."""
        values = np.frombuffer(self.values).reshape(-1, ranges)
        return values, np.frombuffer(self.figures).reshape(-1, len(FIGURES))


class OptimizationProgress(BacktestProgress, frozen=True):
    """How far an optimisation is. rows: points that are to be stored, with the tries that they are."""

    rows: Rows | None = None
    tried: tuple[Trial, ...] = ()


class Optimized(msgspec.Struct, frozen=True):
    """An outcome on its way to the store: the packed result, and what a status shows of it."""

    result: bytes
    verdict: str


# What is stored.


class StoredOptimization(msgspec.Struct, frozen=True):
    """An optimisation's state. sequence: its place in the order of submission. status: without progress."""

    sequence: int
    memory_bytes: int
    status: OptimizationStatus


class _StoredPlan(msgspec.Struct, frozen=True):
    config: bytes  # as JSON: a user's number may be any, MessagePack's may not
    spec: dict[str, Any]
    ranges: list[Range]
    target: Target
    method: Method
    points: int
    seed: int


def put_state(transaction: Transaction, state: StoredOptimization) -> None:
    """Insert or replace a state."""
    documents.put(transaction, _STATE, state.status.id, state)


def put_plan(transaction: Transaction, optimization_id: str, plan: Plan) -> None:
    """Store what was asked."""
    stored = _StoredPlan(
        config=msgspec.json.encode(plan.config),
        spec=msgspec.to_builtins(plan.spec),
        ranges=list(plan.ranges),
        target=plan.target,
        method=plan.method,
        points=plan.points,
        seed=plan.seed,
    )
    documents.put(transaction, _REQUEST, optimization_id, stored)


def put_rows(transaction: Transaction, optimization_id: str, rows: Rows, tried: Sequence[Trial]) -> None:
    """Store points and count their tries; where they are the first ones, all that were there before go."""
    if rows.first == 0:
        _remove_rows(transaction, optimization_id)
    documents.put(transaction, _ROWS, f"{optimization_id}/{rows.first:08d}", rows)
    trials.record(transaction, tried)


def put_finished(transaction: Transaction, state: StoredOptimization, outcome: Optimized) -> None:
    """Store the last state and the result; the caller's transaction makes it whole."""
    transaction.put(_DOCUMENTS, keys.document(_RESULT, state.status.id), outcome.result)
    put_state(transaction, state)


def remove(transaction: Transaction, optimization_id: str) -> None:
    """Remove everything of an optimisation but its tries."""
    _remove_rows(transaction, optimization_id)
    for kind in (_RESULT, _REQUEST, _STATE):
        documents.delete(transaction, kind, optimization_id)


def _remove_rows(transaction: Transaction, optimization_id: str) -> None:
    prefix = keys.document(_ROWS, f"{optimization_id}/")
    for key in [bytes(key) for key, _ in transaction.scan(_DOCUMENTS, prefix)]:
        transaction.delete(_DOCUMENTS, key)


def is_stored(transaction: Transaction, optimization_id: str) -> bool:
    """Tell whether an id is taken."""
    return transaction.get(_DOCUMENTS, keys.document(_STATE, optimization_id)) is not None


def stored_states(transaction: Transaction) -> list[StoredOptimization]:
    """Read the states of all optimisations, the newest first."""
    return sorted(documents.scan(transaction, _STATE, StoredOptimization), key=lambda state: -state.sequence)


def stored_state(transaction: Transaction, optimization_id: str) -> StoredOptimization:
    """Read a state; NotFound OPTIMIZATION_NOT_FOUND."""
    state = documents.get(transaction, _STATE, optimization_id, StoredOptimization)
    if state is None:
        raise NotFound(
            Code.OPTIMIZATION_NOT_FOUND,
            f"optimisation {optimization_id[:60]} not found: `atlasd optimizations` lists what is stored",
        )
    return state


def stored_plan(transaction: Transaction, optimization_id: str) -> Plan:
    """Read what was asked; errors as above, StoreCorrupt STORE_CORRUPT where this release cannot read it."""
    stored_state(transaction, optimization_id)
    stored = documents.get(transaction, _REQUEST, optimization_id, _StoredPlan)
    try:
        if stored is None:
            raise ValueError("it is missing")
        return Plan(
            config=msgspec.json.decode(stored.config),
            spec=spec_from(stored.spec),
            ranges=tuple(stored.ranges),
            target=stored.target,
            method=stored.method,
            points=stored.points,
            seed=stored.seed,
        )
    except (ValueError, TypeError, KeyError, msgspec.ValidationError) as error:
        raise StoreCorrupt(
            Code.STORE_CORRUPT,
            f"what optimisation {optimization_id} was asked to do cannot be read ({error}): another release queued it; "
            "delete it and start it again",
        ) from error


def stored_rows(transaction: Transaction, optimization_id: str) -> Iterator[Rows]:
    """Walk the points that were tried, in their order."""
    for _, value in transaction.scan(_DOCUMENTS, keys.document(_ROWS, f"{optimization_id}/")):
        yield documents.unpack(value, Rows)


def rows_from(transaction: Transaction, optimization_id: str, first: int) -> Rows | None:
    """Read the points that begin with this number, None where there are none."""
    return documents.get(transaction, _ROWS, f"{optimization_id}/{first:08d}", Rows)


def stored_result(transaction: Transaction, optimization_id: str) -> OptimizationResult:
    """Read a result; NotFound OPTIMIZATION_NOT_FOUND, Conflict OPTIMIZATION_NOT_FINISHED where there is none."""
    status = stored_state(transaction, optimization_id).status
    result = documents.get(transaction, _RESULT, optimization_id, OptimizationResult)
    if status.status != "completed" or result is None:
        raise no_result(status)
    return result


def no_result(status: OptimizationStatus) -> Conflict:
    """Say why an optimisation has no result."""
    why = f": {status.error}" if status.error else "" if status.completed_at else ": wait for it, or cancel it"
    return Conflict(
        Code.OPTIMIZATION_NOT_FINISHED,
        f"optimisation {status.id} is {status.status}, it has no result{why}",
        {"status": status.status, "id": status.id},
    )
