"""The trial ledger: how often an idea has been tried. Whoever tries often enough finds something that shines.

An idea is what a strategy's rules say without their numbers: not the lengths, thresholds, stops and targets, not the
symbols, the timeframe, the dates or the costs. Whatever of these is varied is another try of the same idea. A run
counts once, by the digest of what goes into it: repeating it is no new try.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import time
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import msgspec

from daemon.core.backtest import OrderList, Rules
from daemon.engine.significance import moments
from daemon.research.parameters import without_numbers
from daemon.store import documents, keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.core.backtest import BacktestSpec
    from daemon.core.market import Float64s
    from daemon.store.env import Transaction

Place: TypeAlias = tuple[int, str]
"""Where a row stands in its list: those tried last come first, then by name."""

_IDEA: Final = "idea"
_TRIAL: Final = "trial"
_IDEA_LETTERS: Final = 16


class Trial(msgspec.Struct, frozen=True):
    """One try.

    fingerprint: of what went into it. sharpe: of daily returns, not annual, None where it has none. days: of returns.
    tried_ms: when first.
    """

    idea: str
    fingerprint: str
    name: str
    sharpe: float | None
    days: int
    return_percent: float
    tried_ms: int


class Idea(msgspec.Struct, frozen=True):
    """All tries of an idea.

    tries: runs of different fingerprints. known: those that have a Sharpe ratio; mean, squares: of these, the mean and
    the sum of squared deviations, daily. best_sharpe: the highest, daily. name: of the run that was first.
    """

    idea: str
    name: str
    tries: int = 0
    known: int = 0
    mean: float = 0.0
    squares: float = 0.0
    best_sharpe: float | None = None
    first_ms: int = 0
    last_ms: int = 0

    @property
    def variance(self) -> float | None:
        """Sample variance of the tries' daily Sharpe ratios; None below two."""
        return self.squares / (self.known - 1) if self.known > 1 else None


def trial_of(idea: str, fingerprint: str, name: str, returns: Float64s, return_percent: float) -> Trial:
    """Say of a run what the ledger counts. returns: (n,) float64 daily fractions."""
    measured = moments(returns)
    return Trial(
        idea=idea,
        fingerprint=fingerprint,
        name=name,
        sharpe=measured.sharpe if measured else None,
        days=returns.size,
        return_percent=return_percent,
        tried_ms=time.time_ns() // 1_000_000,
    )


def idea_of(spec: BacktestSpec) -> str:
    """Return the hash of what a specification's rules say without their numbers."""
    program = spec.program
    if isinstance(program, OrderList):
        said: object = [[each.side, each.type] for each in program.orders]
    else:
        said = without_numbers(spec)
    sides = (
        sorted({"long" if program.entry_long else "", "short" if program.entry_short else ""} - {""})
        if isinstance(program, Rules)
        else []
    )
    encoded = msgspec.json.encode([said, sides], order="sorted")
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()[:_IDEA_LETTERS]


def record(transaction: Transaction, trials: Sequence[Trial]) -> int:
    """Count trials, and return how many of them were new."""
    counts: dict[str, Idea | None] = {}
    new = 0
    for trial in trials:
        if is_tried(transaction, trial.idea, trial.fingerprint):
            continue
        new += 1
        documents.put(transaction, _TRIAL, f"{trial.idea}/{trial.fingerprint}", trial)
        if trial.idea not in counts:
            counts[trial.idea] = stored_idea(transaction, trial.idea)
        counts[trial.idea] = counted(counts[trial.idea], trial)
    for idea, count in counts.items():
        if count is not None:
            documents.put(transaction, _IDEA, idea, count)
    return new


def counted(idea: Idea | None, trial: Trial) -> Idea:
    """Return an idea with one more try; mean and squares by Welford's recurrence."""
    old = idea or Idea(trial.idea, trial.name, first_ms=trial.tried_ms)
    tried = msgspec.structs.replace(old, tries=old.tries + 1, last_ms=max(old.last_ms, trial.tried_ms))
    if trial.sharpe is None or not math.isfinite(trial.sharpe):
        return tried
    known = old.known + 1
    mean = old.mean + (trial.sharpe - old.mean) / known
    squares = old.squares + (trial.sharpe - old.mean) * (trial.sharpe - mean)
    best = trial.sharpe if old.best_sharpe is None else max(old.best_sharpe, trial.sharpe)
    return msgspec.structs.replace(tried, known=known, mean=mean, squares=squares, best_sharpe=best)


def stored_idea(transaction: Transaction, idea: str) -> Idea | None:
    """Read what is known of an idea, None where it was never tried."""
    return documents.get(transaction, _IDEA, idea, Idea)


def is_tried(transaction: Transaction, idea: str, fingerprint: str) -> bool:
    """Tell whether this very run was counted before."""
    return transaction.get("documents", keys.document(_TRIAL, f"{idea}/{fingerprint}")) is not None


def fingerprints(transaction: Transaction, idea: str) -> set[str]:
    """Return the fingerprints of all tries of an idea."""
    prefix = keys.document(_TRIAL, f"{idea}/")
    return {bytes(key[len(prefix) :]).decode() for key, _ in transaction.scan("documents", prefix)}


def tries_of(
    transaction: Transaction, idea: str, *, after: Place | None = None, most: int | None = None
) -> list[Trial]:
    """Return the tries of an idea, the last first. after: those behind this place. most: no more than so many."""
    rows = transaction.scan("documents", keys.document(_TRIAL, f"{idea}/"))
    return _latest((documents.unpack(value, Trial) for _, value in rows), after, most)


def ideas(transaction: Transaction, *, after: Place | None = None, most: int | None = None) -> list[Idea]:
    """Return all ideas, those tried last first. after, most: as of `tries_of`."""
    return _latest(documents.scan(transaction, _IDEA, Idea), after, most)


def place_of(row: Idea | Trial) -> Place:
    """Tell where a row stands in its list."""
    return (-row.last_ms, row.idea) if isinstance(row, Idea) else (-row.tried_ms, row.fingerprint)


_Row = TypeVar("_Row", Idea, Trial)


def _latest(rows: Iterable[_Row], after: Place | None, most: int | None) -> list[_Row]:
    """Sort rows, however many there are: of a list that is cut, no more are held than are asked for."""
    behind = rows if after is None else (row for row in rows if place_of(row) > after)
    return sorted(behind, key=place_of) if most is None else heapq.nsmallest(most, behind, key=place_of)
