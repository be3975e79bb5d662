"""Kernels made ready in the background of a worker that has nothing better to do; no job waits for that."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import filelock

from daemon import KERNEL_CACHE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_log = logging.getLogger(__name__)

_POLL_S: Final = 0.1


class IdleWarming:
    """Takes one step after another on a thread, each once there has been no job for some seconds.

    Processes of one machine take turns, so that one compiles and the others find in the cache what it made. A step that
    has begun goes on beside jobs.
    """

    def __init__(self, steps: Sequence[Callable[[], object]], after_s: float) -> None:
        self._steps = steps
        self._after_s = after_s
        self._changed = threading.Condition()
        self._has_job = False
        self._is_stepping = False
        self._thread = threading.Thread(target=self._warm, name="warming", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether all steps were taken, or one failed."""
        return not self._thread.is_alive()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Begin no step while there is a job."""
        with self._changed:
            self._has_job = True
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._has_job = False
                self._changed.notify_all()

    def join(self, checkpoint: Callable[[], None]) -> None:
        """Wait until the step that has begun is done. checkpoint: called meanwhile; what it raises ends the waiting."""
        with self._changed:
            while self._is_stepping:
                checkpoint()
                self._changed.wait(_POLL_S)

    def _warm(self) -> None:
        try:
            KERNEL_CACHE.mkdir(parents=True, exist_ok=True)
            for step in self._steps:
                while not self._took(step):
                    pass
        except Exception:  # noqa: BLE001
            # The thread's last frame: a job that needs these kernels meets the same, and says it to somebody.
            _log.exception("kernels could not be made ready")

    def _took(self, step: Callable[[], object]) -> bool:
        """Wait for a quiet moment and this process's turn, and take a step; False where a job came in between."""
        with self._changed:
            self._changed.wait_for(lambda: not self._has_job)
            if self._changed.wait_for(lambda: self._has_job, self._after_s):
                return False
        with filelock.FileLock(KERNEL_CACHE / "warming.lock"):
            if not self._begin():
                return False
            try:
                step()
            finally:
                self._end()
        return True

    def _begin(self) -> bool:
        with self._changed:
            self._is_stepping = not self._has_job
            return self._is_stepping

    def _end(self) -> None:
        with self._changed:
            self._is_stepping = False
            self._changed.notify_all()
