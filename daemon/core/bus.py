"""Publish and subscribe inside of the process: who makes events does not know who listens."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.events import Event

    Listener: TypeAlias = Callable[[Event], None]


def _unhandled(_event: Event) -> None:
    """Do with the exception at hand what Python does with those that end a thread."""
    threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


class Bus:
    """Hands every event to every listener, on the thread that publishes it; listeners must not wait.

    failed: told of an event that a listener failed on, with the exception at hand, so that it can be logged. It keeps
    neither the other listeners nor the publisher from going on.
    """

    def __init__(self, failed: Listener = _unhandled) -> None:
        self._failed = failed
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Hand events to a listener from now on, until what this returns is called."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def leave() -> None:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not listener)

        return leave

    def publish(self, event: Event) -> None:
        """Hand out an event; may be called from any thread."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001
                # The boundary between who publishes and who listens: a defect there must not fail a backtest here.
                self._failed(event)
