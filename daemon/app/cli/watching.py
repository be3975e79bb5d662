"""Watching what runs, here or in the daemon, to its end: a bar on a terminal, and Ctrl-C, which cancels it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable


class Watched(Protocol):
    """What is known of something that runs. progress: 0 to 100; estimated_time_remaining: ms."""

    @property
    def status(self) -> str: ...  # noqa: D102
    @property
    def progress(self) -> float: ...  # noqa: D102
    @property
    def completed_at(self) -> int | None: ...  # noqa: D102
    @property
    def estimated_time_remaining(self) -> int | None: ...  # noqa: D102


S = TypeVar("S", bound=Watched)

_DRAWN_S: Final = 0.05
_ASKED_S: Final = 0.02


def watch(name: str, ask: Callable[[], S], cancel: Callable[[], S], said: Callable[[S], str]) -> S:
    """Return the status with which it ended. ask, cancel: return how it is; said: words beside the bar, or none."""
    from contextlib import suppress

    from daemon.core.errors import Conflict

    try:
        return _drawn(name, ask, said) if sys.stderr.isatty() else _waited(ask)
    except KeyboardInterrupt:
        with suppress(Conflict):  # it ended by itself meanwhile
            return cancel()
        return ask()


def _waited(ask: Callable[[], S]) -> S:
    import time

    while (status := ask()).completed_at is None:
        time.sleep(_ASKED_S)
    return status


def _drawn(name: str, ask: Callable[[], S], said: Callable[[S], str]) -> S:
    import time

    from daemon.app.cli.printing import progress_bar

    with progress_bar(name) as say:
        while (status := ask()).completed_at is None:
            left_ms = status.estimated_time_remaining
            left = status.status if left_ms is None else f"{left_ms / 1_000:.0f} s left"
            say(status.progress, ", ".join(each for each in (left, said(status)) if each))
            time.sleep(_DRAWN_S)
    return status
