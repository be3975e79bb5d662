"""One writer a data folder: a lock that dies with its process, and a note of who holds it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

import filelock
import msgspec

from daemon.core.errors import Code, Conflict

if TYPE_CHECKING:
    from pathlib import Path

_LOCK: Final = "writer.lock"
_OWNER: Final = "writer.json"


class Owner(msgspec.Struct, frozen=True):
    """Who holds the lock: process id, and what it was started as."""

    pid: int
    command: str


class WriterLock:
    """Held while this process may write to the store."""

    def __init__(self, folder: Path, command: str) -> None:
        self._lock = filelock.FileLock(folder / _LOCK, blocking=False)
        self._folder = folder
        self._owner = Owner(os.getpid(), command)

    def __enter__(self) -> Self:
        """Take the lock, unless `acquire` has."""
        if not self._lock.is_locked:
            self.acquire()
        return self

    def acquire(self) -> None:
        """Take the lock; Conflict STORE_LOCKED names the process that has it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            owner = read_owner(self._folder)
            who = f"process {owner.pid} (atlasd {owner.command})" if owner else "another process"
            raise Conflict(
                Code.STORE_LOCKED,
                f"{who} is writing to {self._folder}: wait for it, stop it, or use another --data-dir",
                {"pid": owner.pid if owner else None},
            ) from None
        write_atomically(self._folder / _OWNER, msgspec.json.encode(self._owner))

    def __exit__(self, *_: object) -> None:
        (self._folder / _OWNER).unlink(missing_ok=True)
        self._lock.release()


def is_held(folder: Path) -> bool:
    """Tell whether some process, perhaps this one, holds a folder's writer lock."""
    lock = filelock.FileLock(folder / _LOCK, blocking=False)
    try:
        with lock:
            return False
    except filelock.Timeout:
        return True


def read_owner(folder: Path) -> Owner | None:
    """Return who holds, or last held, the lock; None where no one left a readable note."""
    try:
        return msgspec.json.decode((folder / _OWNER).read_bytes(), type=Owner)
    except (OSError, msgspec.MsgspecError):
        return None


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that readers see the old one or the new one, never a part."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)
