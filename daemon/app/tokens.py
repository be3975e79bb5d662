"""The token's file in the data folder: whoever can read it is the user.

It is made once and stays until it is rotated, so that an app which was given it keeps working. It is never in an
argument, an address or a log, where others could read it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from daemon.api.auth import new_secret
from daemon.core.errors import Code, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

FILE_NAME: Final = "token"
_MOST_BYTES: Final = 256
_OTHERS: Final = 0o077
_SHARED_WRITE: Final = 0o022
_OWN: Final = 0o600
_WRITTEN_S: Final = 1.0
_POLL_S: Final = 0.01
# 256 bits in the alphabet of headers and subprotocols.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43,128}")
_ROTATE: Final = "`atlasd token --rotate` makes a new one"


def prepare(folder: Path) -> None:
    """Make the data folder for its user alone; ConfigError DATA_DIR_SHARED where others may write to it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if sys.platform != "win32" and folder.stat().st_mode & _SHARED_WRITE:
        raise ConfigError(
            Code.DATA_DIR_SHARED,
            f"others may write to {folder}, and could put a token of theirs there: chmod 700 it, or use another folder",
        )


class TokenFile:
    """The token of a data folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._token = ""
        self._seen: tuple[int, ...] = ()
        self._complaint = ""

    def ensure(self) -> str:
        """Return the token, made now where there is none yet; ConfigError DATA_DIR_SHARED or TOKEN_UNUSABLE."""
        prepare(self.path.parent)
        with suppress(FileExistsError):
            _create(self.path, new_secret())
        return self.read()

    def read(self) -> str:
        """Return the token; ConfigError TOKEN_UNUSABLE where there is none, or others could have read it."""
        deadline_s = time.monotonic() + _WRITTEN_S
        while not self._content() and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)  # whoever made the file is about to write it
        return self._checked()

    def rotate(self) -> str:
        """Put a new token in the place of the old one, whatever that was; returns it."""
        prepare(self.path.parent)
        temporary = self.path.with_name(f"{FILE_NAME}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        token = new_secret()
        _create(temporary, token)
        temporary.replace(self.path)
        return token

    def current(self) -> str:
        """Return the token as it is now; the last good one while the file is missing or wrong. Cheap to ask often."""
        try:
            state = self.path.lstat()
            seen = (state.st_ino, state.st_mtime_ns, state.st_size, state.st_mode)
            if seen != self._seen:
                self._token = self._checked()
                self._seen, self._complaint = seen, ""
        except (OSError, ConfigError) as error:
            if not self._token:
                raise
            if str(error) != self._complaint:
                _log.warning("the token from before stays valid: %s", error)
            self._complaint = str(error)
        return self._token

    def _checked(self) -> str:
        token = self._content().strip()
        if not _TOKEN.fullmatch(token):
            raise ConfigError(Code.TOKEN_UNUSABLE, f"{self.path} holds no token: {_ROTATE}")
        return token

    def _content(self) -> str:
        try:
            # A link could lead to a file of somebody else's choice.
            handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError as error:
            raise ConfigError(
                Code.TOKEN_UNUSABLE, f"{self.path} cannot be read ({error.strerror}): {_ROTATE}"
            ) from error
        with os.fdopen(handle, "rb") as file:
            if sys.platform != "win32" and os.fstat(handle).st_mode & _OTHERS:
                raise ConfigError(
                    Code.TOKEN_UNUSABLE, f"{self.path} is open to others, who may know it by now: {_ROTATE}"
                )
            return file.read(_MOST_BYTES).decode("ascii", "replace")


def _create(path: Path, token: str) -> None:
    """Write a file that was not there, for its user alone whatever the umask says."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWN), "wb") as file:
        file.write(f"{token}\n".encode())
        file.flush()
        os.fsync(file.fileno())
