"""Changes of many threads in one transaction: what waited while the disk flushed is flushed together next.

A commit costs a flush to disk, whatever its size, so a hundred jobs that end within a second should not be a hundred
commits, and who computes should not wait for the disk.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from daemon.core.errors import AtlasError, Code, JobFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.store.env import Environment, Transaction

_log = logging.getLogger(__name__)

Action: TypeAlias = "Callable[[Transaction], None]"

_MOST_AT_ONCE: Final = 256
# Who has results waits here when the disk is slower than the computing: results are kept in memory until then.
_MOST_WAITING: Final = 64


def together(*actions: Action) -> Action:
    """Make several changes one, in their order."""

    def change(transaction: Transaction) -> None:
        for action in actions:
            action(transaction)

    return change


class _Change(NamedTuple):
    action: Action
    done: Callable[[AtlasError | None], None]
    due_s: float


class GroupCommit:
    """Commits changes in the order they came, on a thread of its own, which starts with the first change.

    An action changes nothing but the store, for it may run again; one that fails takes nobody else's with it.
    """

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._changed = threading.Condition()
        self._waiting: deque[_Change] = deque()
        self._thread: threading.Thread | None = None
        self._is_closing = False

    def commit(self, action: Action) -> None:
        """Make a change and wait until it is on disk; raises what the store raises."""
        stored: Future[None] = Future()

        def done(error: AtlasError | None) -> None:
            if error is None:
                stored.set_result(None)
            else:
                stored.set_exception(error)

        self.post(action, done)
        stored.result()

    def post(
        self, action: Action, done: Callable[[AtlasError | None], None] | None = None, *, within_s: float = 0.0
    ) -> None:
        """Make a change soon, and at the latest with the next one that is due.

        done: called on the committing thread once it is on disk, or with the error; it must not wait for a commit.
        within_s: how long the change may wait for others to come along.
        """
        change = _Change(action, done or _tell, time.monotonic() + within_s)
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < _MOST_WAITING or self._is_closing)
            if not self._is_closing:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="group-commit", daemon=True)
                    self._thread.start()
                self._waiting.append(change)
                self._changed.notify_all()
                return
        _finish(change, JobFailed(Code.INTERRUPTED, "the daemon stopped"))

    def close(self) -> None:
        """Commit what waits, then stop; what is posted after fails with INTERRUPTED."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    # Internals.

    def _work(self) -> None:
        while changes := self._next():
            self._store(changes)

    def _next(self) -> list[_Change]:
        """Wait until a change is due and take all there are; none at the end."""
        with self._changed:
            while not self._is_closing and len(self._waiting) < _MOST_WAITING:
                due_s = min((change.due_s for change in self._waiting), default=None)
                left_s = None if due_s is None else due_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    break
                self._changed.wait(left_s)
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_AT_ONCE))]
            self._changed.notify_all()
        return taken

    def _store(self, changes: list[_Change]) -> None:
        error = self._try(changes)
        if error is None or len(changes) == 1:
            for change in changes:
                _finish(change, error)
        else:
            for change in changes:
                _finish(change, self._try([change]))

    def _try(self, changes: list[_Change]) -> AtlasError | None:
        def commit(transaction: Transaction) -> None:
            for change in changes:
                change.action(transaction)

        try:
            self._env.write(commit)
        except AtlasError as error:
            return error
        except Exception as error:  # noqa: BLE001
            # The boundary of the committing thread: a defect in one change is told to whom it belongs.
            if len(changes) == 1:
                _log.exception("a change could not be stored")
            return JobFailed(Code.INTERNAL, f"not stored: {error!r}")
        return None


def _finish(change: _Change, error: AtlasError | None) -> None:
    try:
        change.done(error)
    except Exception:  # noqa: BLE001
        # A defect there must not end the thread that everybody needs.
        _log.exception("what follows a commit failed")


def _tell(error: AtlasError | None) -> None:
    if error is not None:
        _log.error("a change could not be stored: %s", error.message)
