"""Backtests as they are handed to workers, stored and shown; `backtests` works them off.

Three documents a backtest: its state, which is written anew at every turn and read for lists; what was asked, written
once; and the result, packed by the worker, so that the daemon never holds or copies it object by object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.core.backtest import BacktestSpec, Market, Slippage
from daemon.core.errors import Code, Conflict, NotFound, StoreCorrupt
from daemon.core.market import Instrument, Timeframe, TsNs
from daemon.core.strategy import RiskProfile
from daemon.core.ticks import Stream
from daemon.research import trials
from daemon.research.backtest_result import BacktestResult, BacktestStatus
from daemon.research.budgets import Budget
from daemon.research.trials import Trial
from daemon.research.validation_result import ValidationResult
from daemon.store import backtests as tables
from daemon.store import documents, keys
from daemon.store.backtests import ColumnPart

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from daemon.store.env import Transaction

_STATE: Final = "backtest"
_REQUEST: Final = "backtest_request"
_RESULT: Final = "backtest_result"
SIMULATION: Final = "backtest_monte_carlo"
"""Documents of `monte_carlos`, which go with their backtest."""

_DOCUMENTS: Final = "documents"


# What goes to a worker and comes back.


class BacktestJob(msgspec.Struct, frozen=True):
    """A backtest as a worker gets it.

    spool: file that takes its columns. config: what the user sent. profiles: by which it was read. budget: what code of
    the user's own may take, None where there is none of it.
    """

    backtest_id: str
    spec: BacktestSpec
    spool: str
    config: dict[str, Any] = {}
    profiles: dict[str, RiskProfile] = {}
    budget: Budget | None = None


class BacktestOutcome(msgspec.Struct, frozen=True):
    """What `backtest_job.run_backtest` returns: the result, and where its columns lie in the spool file."""

    result: BacktestResult
    parts: list[ColumnPart]
    trial: Trial


class BacktestProgress(msgspec.Struct, frozen=True):
    """How far a running backtest is. done_fraction: 0 to 1. current_ns: of the market. events: handled so far."""

    done_fraction: float
    current_ns: TsNs | None = None
    events: int = 0


class Finished(msgspec.Struct, frozen=True):
    """An outcome on its way to the store.

    result: the packed document. The other fields are its figures that a status shows.
    """

    result: bytes
    parts: list[ColumnPart]
    total_return_percent: float
    sharpe_ratio: float | None
    max_drawdown_percent: float
    total_trades: int
    fingerprint: str
    events: int
    notes: list[str]
    verdict: str | None
    trial: Trial


def packed(outcome: BacktestOutcome) -> Finished:
    """Pack an outcome where it was made: a long result is costly to send as objects."""
    result = outcome.result
    return Finished(
        result=documents.pack(result),
        parts=outcome.parts,
        total_return_percent=result.metrics.total_return_percent,
        sharpe_ratio=result.metrics.sharpe_ratio,
        max_drawdown_percent=result.metrics.max_drawdown_percent,
        total_trades=result.trade_stats.total_trades,
        fingerprint=result.fingerprint,
        events=result.execution.events_processed,
        notes=result.notes,
        verdict=result.verdict.verdict if result.verdict else None,
        trial=outcome.trial,
    )


# What is stored.


class StoredBacktest(msgspec.Struct, frozen=True):
    """A backtest's state. sequence: its place in the order of submission. status: without progress."""

    sequence: int
    memory_bytes: int
    status: BacktestStatus


class Request(msgspec.Struct, frozen=True):
    """What was asked: the user's own configuration, and what was understood."""

    config: dict[str, Any]
    spec: BacktestSpec


class _StoredRequest(msgspec.Struct, frozen=True):
    config: bytes  # as JSON: a user's number may be any, MessagePack's may not
    spec: dict[str, Any]


def put_state(transaction: Transaction, state: StoredBacktest) -> None:
    """Insert or replace a backtest's state."""
    documents.put(transaction, _STATE, state.status.id, state)


def put_request(transaction: Transaction, backtest_id: str, request: Request) -> None:
    """Store what was asked."""
    stored = _StoredRequest(msgspec.json.encode(request.config), msgspec.to_builtins(request.spec))
    documents.put(transaction, _REQUEST, backtest_id, stored)


def put_finished(transaction: Transaction, state: StoredBacktest, finished: Finished, spool: Path) -> None:
    """Store a backtest's last state, its result, its columns and its try; the caller's transaction makes it whole."""
    backtest_id = state.status.id
    tables.put(transaction, backtest_id, finished.parts, spool)
    transaction.put(_DOCUMENTS, keys.document(_RESULT, backtest_id), finished.result)
    put_state(transaction, state)
    trials.record(transaction, [finished.trial])


def remove(transaction: Transaction, backtest_id: str) -> None:
    """Remove everything of a backtest."""
    tables.delete(transaction, backtest_id)
    for kind in (SIMULATION, _RESULT, _REQUEST, _STATE):
        documents.delete(transaction, kind, backtest_id)


def is_stored(transaction: Transaction, backtest_id: str) -> bool:
    """Tell whether an id is taken."""
    return transaction.get(_DOCUMENTS, keys.document(_STATE, backtest_id)) is not None


def stored_states(transaction: Transaction, skipped: Collection[str] = ()) -> Iterator[StoredBacktest]:
    """Walk the states of all backtests but those with an id in `skipped`, in order of id."""
    prefix = keys.document(_STATE)
    for key, value in transaction.scan(_DOCUMENTS, prefix):
        if key[len(prefix) :].decode() not in skipped:
            yield documents.unpack(value, StoredBacktest)


def stored_state(transaction: Transaction, backtest_id: str) -> StoredBacktest:
    """Read a backtest's state; NotFound BACKTEST_NOT_FOUND."""
    state = documents.get(transaction, _STATE, backtest_id, StoredBacktest)
    if state is None:
        raise NotFound(
            Code.BACKTEST_NOT_FOUND, f"backtest {backtest_id} not found: `atlasd backtests` lists what is stored"
        )
    return state


def stored_statuses(transaction: Transaction) -> list[BacktestStatus]:
    """Read all backtests as they were last stored, the newest first."""
    found = sorted(stored_states(transaction), key=lambda state: state.sequence, reverse=True)
    return [state.status for state in found]


def stored_request(transaction: Transaction, backtest_id: str) -> Request:
    """Read what was asked.

    NotFound BACKTEST_NOT_FOUND; StoreCorrupt STORE_CORRUPT where another release wrote it and this one cannot read it.
    """
    stored_state(transaction, backtest_id)
    stored = documents.get(transaction, _REQUEST, backtest_id, _StoredRequest)
    try:
        if stored is None:
            raise ValueError("it is missing")
        return Request(msgspec.json.decode(stored.config), spec_from(stored.spec))
    except (ValueError, TypeError, KeyError, msgspec.ValidationError) as error:
        raise StoreCorrupt(
            Code.STORE_CORRUPT,
            f"what backtest {backtest_id} was asked to do cannot be read ({error}): another release queued it; delete "
            "it and submit it again",
        ) from error


def stored_result(transaction: Transaction, backtest_id: str) -> BacktestResult:
    """Read a result; NotFound BACKTEST_NOT_FOUND, Conflict BACKTEST_NOT_FINISHED where there is none."""
    status = stored_state(transaction, backtest_id).status
    result = documents.get(transaction, _RESULT, backtest_id, BacktestResult)
    if status.status != "completed" or result is None:
        raise no_result(status)
    return result


def stored_fields(transaction: Transaction, backtest_id: str) -> dict[str, msgspec.Raw]:
    """Read a result as its fields in MessagePack, for those who pass it on or want little of it; errors as above."""
    status = stored_state(transaction, backtest_id).status
    fields = documents.get(transaction, _RESULT, backtest_id, dict[str, msgspec.Raw])
    if status.status != "completed" or fields is None:
        raise no_result(status)
    return fields


def stored_validation(transaction: Transaction, backtest_id: str) -> ValidationResult:
    """Read the verdict and what it rests on; errors as above, NotFound NO_VALIDATION where a result has none."""
    fields = stored_fields(transaction, backtest_id)
    names = (field.encode_name for field in msgspec.structs.fields(ValidationResult))
    parts = {name: fields[name] for name in names if name in fields}
    if "verdict" not in parts or msgspec.msgpack.decode(parts["verdict"]) is None:
        raise NotFound(
            Code.NO_VALIDATION,
            f"backtest {backtest_id} has no verdict: a release without verdicts made it; run its configuration again",
        )
    return msgspec.msgpack.decode(msgspec.msgpack.encode(parts), type=ValidationResult)


def no_result(status: BacktestStatus) -> Conflict:
    """Say why a backtest has no result."""
    why = f": {status.error}" if status.error else "" if status.completed_at else ": wait for it, or cancel it"
    return Conflict(
        Code.BACKTEST_NOT_FINISHED,
        f"backtest {status.id} is {status.status}, it has no result{why}",
        {"status": status.status, "id": status.id},
    )


# A specification from what it was stored as: msgspec tells the members of two enumerations of texts apart by no rule.

_Rest = msgspec.defstruct(
    "_Rest",
    [
        (field.name, field.type) if field.required else (field.name, field.type, field.default)
        for field in msgspec.structs.fields(BacktestSpec)
        if field.name != "markets"
    ],
    kw_only=True,
    forbid_unknown_fields=True,
)


def spec_from(stored: dict[str, Any]) -> BacktestSpec:
    """Read a specification that was stored as builtins; ValueError, TypeError, KeyError or ValidationError."""
    markets = tuple(_market(**each) for each in stored["markets"])
    rest = msgspec.convert({name: value for name, value in stored.items() if name != "markets"}, _Rest)
    return BacktestSpec(markets=markets, **{name: getattr(rest, name) for name in rest.__struct_fields__})


def _market(instrument: dict[str, str], source: str, slippage: Any = None, **rest: Any) -> Market:
    of_bars = source in Timeframe.__members__.values()
    own = msgspec.convert(slippage, Slippage | None)
    return Market(Instrument(**instrument), Timeframe(source) if of_bars else Stream(source), slippage=own, **rest)
