"""The journal of facts: what clients are told is on disk first, and the last MOST_FACTS can be told again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemon.core.events import Event, Fact
    from daemon.store.env import Environment

MOST_FACTS: Final = 100_000


class Journal:
    """Facts of one store, numbered from 1. Methods may be called from any thread."""

    def __init__(self, env: Environment, now_ms: Callable[[], int], written: Callable[[Fact], None]) -> None:
        """written: told every fact once it is on disk, in their order."""
        raise NotImplementedError

    @property
    def epoch(self) -> str:
        """Name of this journal: another store has another, and numbers of one say nothing about those of the other."""
        raise NotImplementedError

    @property
    def last(self) -> int:
        """Number of the last fact that is on disk, 0 for none."""
        raise NotImplementedError

    def append(self, event: Event) -> None:
        """Write a fact; returns at once."""
        raise NotImplementedError

    def after(self, seq: int) -> Iterator[Fact]:
        """Walk the facts after a number; Conflict RESUME_GAP where some of them are kept no longer."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what waits."""
        raise NotImplementedError
