"""Runs as they are stored and shown; `runs` works them off."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from daemon.core.errors import Code, NotFound
from daemon.core.market import NS_PER_SECOND, TsNs
from daemon.core.strategy import RiskProfile
from daemon.core.ticks import TICK_STREAMS
from daemon.store import documents

if TYPE_CHECKING:
    from daemon.store.env import Transaction
    from daemon.store.results import JobIndex

KIND: Final = "run"

Status: TypeAlias = Literal["queued", "running", "completed", "failed", "cancelled"]
ACTIVE: Final = ("queued", "running")


class Failure(msgspec.Struct, frozen=True):
    """Why a run did not complete."""

    code: str
    message: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run as it is stored. Totals count everything stored under the id, earlier sessions included.

    notes: what a reader of the results should know, such as derived bars that are covered in part.
    """

    run_id: str
    status: Status
    created_ns: TsNs
    finished_ns: TsNs | None = None
    start_date: str | None
    end_date: str | None
    persist_trades: bool
    symbols: list[str]
    timeframes: list[str]
    risk_profiles: dict[str, RiskProfile]
    rules: dict[int, str]
    strategy_names: dict[int, str]
    total_combinations: int
    completed_combinations: int = 0
    total_trades: int = 0
    total_result_records: int = 0
    elapsed_seconds: float = 0.0
    error: Failure | None = None
    notes: list[str] = []


class RunView(msgspec.Struct, frozen=True):
    """A run with its progress at this moment. seconds_left: None until there is something to judge by."""

    run: Run
    completed: int
    elapsed_seconds: float
    seconds_left: float | None


def notes_on(index: JobIndex) -> list[str]:
    """Name the derived bars that the stored rows cover in part, and the holes in those rows."""
    what = f"{index.instrument} {index.timeframe}: derived from {described(index.source)}"
    notes = [
        f"{what}; the bar of {datetime.fromtimestamp(start_ns // NS_PER_SECOND, UTC):%Y-%m-%dT%H:%M:%SZ} "
        "is covered in part"
        for start_ns in index.partial_buckets
    ]
    if index.holes:
        count = f"at least {index.missing_rows:,} rows" if index.missing_rows else "an unknown number of rows"
        notes.append(f"{what} with {index.holes} known holes, {count} missing: `atlasd data gaps {index.instrument}`")
    return notes


def described(source: str) -> str:
    """Say what bars come from."""
    return source.replace("_", " ") if source in TICK_STREAMS else f"{source} bars"


def stored_run(transaction: Transaction, run_id: str) -> RunView:
    """Read a run as it was last stored; NotFound RUN_NOT_FOUND."""
    run = documents.get(transaction, KIND, run_id, Run)
    if run is None:
        raise NotFound(Code.RUN_NOT_FOUND, f"Run {run_id} not found: `atlasd runs` lists what is stored")
    return RunView(run, run.completed_combinations, run.elapsed_seconds, None)


def stored_runs(transaction: Transaction) -> list[RunView]:
    """Read all runs as they were last stored, the newest first."""
    found = sorted(documents.scan(transaction, KIND, Run), key=lambda run: run.created_ns, reverse=True)
    return [RunView(run, run.completed_combinations, run.elapsed_seconds, None) for run in found]
