"""The trial ledger: how often an idea has been tried. Whoever tries often enough finds something that shines.

An idea is what a strategy's rules say without their numbers: not the lengths, thresholds, stops and targets, not the
symbols, the timeframe, the dates or the costs. Whatever of these is varied is another try of the same idea. A run
counts once, by its fingerprint: repeating it is no new try.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, Final

import msgspec

from daemon.core.backtest import OrderList, Rules
from daemon.research.parameters import without_numbers
from daemon.store import documents, keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.backtest import BacktestSpec
    from daemon.store.env import Transaction

_IDEA: Final = "idea"
_TRIAL: Final = "trial"
_IDEA_LETTERS: Final = 16


class Trial(msgspec.Struct, frozen=True):
    """One try. sharpe: of daily returns, not annual, None where it has none. days: of returns. tried_ms: when first."""

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
    new = 0
    for trial in trials:
        identity = f"{trial.idea}/{trial.fingerprint}"
        if documents.get(transaction, _TRIAL, identity, Trial) is not None:
            continue
        new += 1
        documents.put(transaction, _TRIAL, identity, trial)
        known = documents.get(transaction, _IDEA, trial.idea, Idea)
        documents.put(transaction, _IDEA, trial.idea, counted(known, trial))
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
    return documents.get(transaction, _TRIAL, f"{idea}/{fingerprint}", Trial) is not None


def tries_of(transaction: Transaction, idea: str) -> list[Trial]:
    """Return the tries of an idea, the last first."""
    found = [
        documents.unpack(value, Trial) for _, value in transaction.scan("documents", keys.document(_TRIAL, f"{idea}/"))
    ]
    return sorted(found, key=lambda each: (-each.tried_ms, each.fingerprint))


def ideas(transaction: Transaction) -> list[Idea]:
    """Return all ideas, those tried last first."""
    return sorted(documents.scan(transaction, _IDEA, Idea), key=lambda each: (-each.last_ms, each.idea))
