"""Publish and subscribe inside of the process: who makes events does not know who listens."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.core.events import Event

    Listener: TypeAlias = Callable[[Event], None]

_log = logging.getLogger(__name__)


class Bus:
    """Hands every event to every listener, on the thread that publishes it; listeners must not wait.

    A listener that fails is logged and does not keep the others, or the publisher, from going on.
    """

    def __init__(self) -> None:
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
                _log.exception("a listener failed on %s", event.NAME)
