"""The trial ledger as it is listed: ideas with their counts, and the tries of one.

Names are the app's (camelCase on the wire), times Unix ms. Sharpe ratios are of daily returns, not annual.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from daemon.core.errors import Code, NotFound
from daemon.engine.significance import expected_maximum
from daemon.research import trials

if TYPE_CHECKING:
    from daemon.research.trials import Idea, Place, Trial
    from daemon.store.env import Transaction


class ListedIdea(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An idea. chance_daily_sharpe: the best that so many tries give by luck, None while two have no Sharpe ratio."""

    idea: str
    name: str
    tries: int
    best_daily_sharpe: float | None
    chance_daily_sharpe: float | None
    first: int
    last: int


class ListedTrial(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A try. days: of returns. tried_at: when first."""

    fingerprint: str
    name: str
    daily_sharpe: float | None
    return_percent: float
    days: int
    tried_at: int


def listed_ideas(transaction: Transaction, *, after: Place | None = None, most: int | None = None) -> list[ListedIdea]:
    """List ideas, those tried last first. after: a place in the list to go on behind. most: rows at most."""
    return [_idea(each) for each in trials.ideas(transaction, after=after, most=most)]


def listed_tries(
    transaction: Transaction, idea: str, *, after: Place | None = None, most: int | None = None
) -> list[ListedTrial]:
    """List the tries of an idea in the same way; NotFound NO_ROWS where it was never tried."""
    if trials.stored_idea(transaction, idea) is None:
        why = f"no idea {idea[:40]} was tried: `atlasd trials` lists those that were"
        raise NotFound(Code.NO_ROWS, why, {"idea": idea[:40]})
    return [_trial(each) for each in trials.tries_of(transaction, idea, after=after, most=most)]


def place_of(row: ListedIdea | ListedTrial) -> Place:
    """Tell where a row stands in its list."""
    return (-row.last, row.idea) if isinstance(row, ListedIdea) else (-row.tried_at, row.fingerprint)


def _idea(each: Idea) -> ListedIdea:
    luck = None if each.variance is None else math.sqrt(each.variance) * expected_maximum(each.tries)
    return ListedIdea(
        idea=each.idea,
        name=each.name,
        tries=each.tries,
        best_daily_sharpe=each.best_sharpe,
        chance_daily_sharpe=luck,
        first=each.first_ms,
        last=each.last_ms,
    )


def _trial(each: Trial) -> ListedTrial:
    return ListedTrial(
        fingerprint=each.fingerprint,
        name=each.name,
        daily_sharpe=each.sharpe,
        return_percent=each.return_percent,
        days=each.days,
        tried_at=each.tried_ms,
    )
