"""The strategy folder: files of a trader's own strategies, each known by an id, never by a path.

What lies here is run as code, so the folder is its user's alone. A file that was given on the command line, and the
source that a run was started with, are kept in `given/` under a name that says what they hold: what a result names is
there as long as the folder is, whatever became of the file.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from daemon.core.errors import Code, ConfigError, Conflict, InvalidRequest, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.core.backtest import Own

GIVEN: Final = "given"
SUFFIX: Final = ".py"
MOST_BYTES: Final = 1 << 20

ID_PATTERN: Final = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._-]{0,49}")
"""As of runs, without a leading dot, and without anything that leads out of a folder."""

_KEPT: Final = re.compile(r"(?P<stem>.+)-(?P<digest>[0-9a-f]{12})")
_DIGITS: Final = 12
_MOST_STEM: Final = 50 - _DIGITS - 1
_SHARED_WRITE: Final = 0o022


def digest_of(source: bytes) -> str:
    """Return the SHA-256 of a source, hex."""
    return hashlib.sha256(source).hexdigest()


class StrategyFolder:
    """Files by id: `market_maker` is `market_maker.py`, `market_maker-0123456789ab` one that is kept in `given/`.

    path: made when something is first read or written. Methods raise ConfigError STRATEGY_FOLDER_UNSAFE where others
    may write to what they touch, or the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def ids(self) -> list[str]:
        """Return the ids of the user's own files, in order; without what is kept in `given/`."""
        return _ids(self._made(self.path))

    def given(self) -> list[str]:
        """Return the ids of what is kept."""
        return _ids(self._made(self._made(self.path) / GIVEN))

    def read(self, strategy_id: str) -> bytes:
        """Return a strategy's source.

        NotFound STRATEGY_NOT_FOUND for an unknown id; InvalidRequest STRATEGY_INVALID for one that no file could have,
        a file that is too large, one that leads out of the folder, and a kept one that somebody changed.
        """
        if not ID_PATTERN.fullmatch(strategy_id):
            raise InvalidRequest(
                Code.STRATEGY_INVALID,
                f"`{strategy_id[:60]}` is no id of a strategy: it is a file's name in the strategy folder without .py, "
                "letters, digits and ._- only, at most 50",
            )
        root = self._made(self.path)
        for folder in (root, root / GIVEN):
            path = folder / (strategy_id + SUFFIX)
            if path.is_file():
                _check_private(folder)
                source = _read(path, root)
                if folder != root:
                    _check_kept(strategy_id, source)
                return source
        known = self.ids()
        listed = f"it has {', '.join(known[:20])}" if known else "it is empty: `atlasd strategy new NAME` writes one"
        raise NotFound(
            Code.STRATEGY_NOT_FOUND,
            f"there is no strategy {strategy_id} in the strategy folder: {listed}",
            {"strategy": strategy_id},
        )

    def keep(self, path: Path) -> str:
        """Copy a file, and return the id of the copy; NotFound STRATEGY_NOT_FOUND, InvalidRequest STRATEGY_INVALID."""
        return self.keep_source(path.stem, bounded_source(path))

    def pin(self, own: Own) -> None:
        """Keep the source that a run is about to be queued with, so that the result names what is there."""
        self.keep_source(own.id, self.source_of(own))

    def keep_source(self, stem: str, source: bytes) -> str:
        """Keep a source under a name that says what it holds, whole or not at all; returns its id."""
        strategy_id = kept_id(stem, digest_of(source))
        folder = self._made(self._made(self.path) / GIVEN)
        path = folder / (strategy_id + SUFFIX)
        if not (path.is_file() and path.read_bytes() == source):
            _write_whole(path, source)
        return strategy_id

    def source_of(self, own: Own) -> bytes:
        """Return the source that a specification was made for, by its digest; NotFound STRATEGY_NOT_FOUND."""
        for strategy_id in (own.id, kept_id(own.id, own.digest)):
            with suppress(NotFound):
                source = self.read(strategy_id)
                if digest_of(source) == own.digest:
                    return source
        raise NotFound(
            Code.STRATEGY_NOT_FOUND,
            f"strategy {own.id} is no longer what this run was made for (SHA-256 {own.digest[:_DIGITS]}…), and that is "
            "not kept: start the run anew",
            {"strategy": own.id},
        )

    def add(self, strategy_id: str, source: bytes) -> Path:
        """Write a new file; Conflict STRATEGY_EXISTS where there is one, InvalidRequest STRATEGY_INVALID for the id."""
        return written(self._made(self.path), strategy_id, source)

    def _made(self, folder: Path) -> Path:
        """Make a folder that nobody else may write to, and return where it really lies."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            real = folder.resolve(strict=True)
            _check_private(real)
        except OSError as error:
            raise ConfigError(
                Code.STRATEGY_FOLDER_UNSAFE,
                f"the strategy folder {folder} cannot be used ({error.strerror}): set strategies.folder to another",
            ) from None
        return real


def written(folder: Path, strategy_id: str, source: bytes) -> Path:
    """Write a new file into a folder that is there, and return its path; errors as of `StrategyFolder.add`."""
    if not ID_PATTERN.fullmatch(strategy_id):
        raise InvalidRequest(
            Code.STRATEGY_INVALID,
            f"`{strategy_id[:60]}` cannot name a strategy: letters, digits and ._- only, at most 50",
        )
    path = folder / (strategy_id + SUFFIX)
    try:
        with path.open("xb") as file:
            file.write(source)
    except FileExistsError:
        why = f"there is {path} already: choose another name, or remove it first"
        raise Conflict(Code.STRATEGY_EXISTS, why) from None
    except OSError as error:
        raise ConfigError(Code.OUTPUT_UNWRITABLE, f"{path} cannot be written: {error.strerror}") from None
    path.chmod(0o600)
    return path


def bounded_source(path: Path) -> bytes:
    """Read a file wherever it lies; NotFound STRATEGY_NOT_FOUND, InvalidRequest STRATEGY_INVALID where it is large."""
    try:
        return _bounded(path)
    except FileNotFoundError:
        raise NotFound(Code.STRATEGY_NOT_FOUND, f"there is no file {path}") from None
    except OSError as error:
        raise NotFound(Code.STRATEGY_NOT_FOUND, f"{path} cannot be read: {error.strerror}") from None


def kept_id(stem: str, digest: str) -> str:
    """Return the id under which a source is kept. stem: a file's name without .py, or an id, kept ones included."""
    found = _KEPT.fullmatch(stem)
    if found is not None and digest.startswith(found["digest"]):
        return stem
    words = re.sub(r"[^A-Za-z0-9_]+", "_", found["stem"] if found else stem)[:_MOST_STEM] or "strategy"
    return f"{words}-{digest[:_DIGITS]}"


def name_of(strategy_id: str) -> str:
    """Return what a strategy is called, whichever version of its file an id stands for."""
    found = _KEPT.fullmatch(strategy_id)
    return found["stem"] if found else strategy_id


def _ids(folder: Path) -> list[str]:
    names = [
        path.stem
        for path in folder.glob(f"*{SUFFIX}")
        if path.is_file() and path.resolve().is_relative_to(folder) and ID_PATTERN.fullmatch(path.stem)
    ]
    return sorted(names)


def _read(path: Path, root: Path) -> bytes:
    real = path.resolve()
    if not real.is_relative_to(root):
        raise InvalidRequest(
            Code.STRATEGY_INVALID,
            f"{path.name} is a link that leads out of the strategy folder: put the file itself there",
        )
    try:
        _check_private(real)
        return _bounded(real)
    except OSError as error:
        raise NotFound(Code.STRATEGY_NOT_FOUND, f"{path.name} cannot be read: {error.strerror}") from None


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        source = file.read(MOST_BYTES + 1)
    if len(source) > MOST_BYTES:
        raise InvalidRequest(
            Code.STRATEGY_INVALID, f"{path.name} has more than {MOST_BYTES >> 20} MiB: that is no strategy"
        )
    return source


def _check_kept(strategy_id: str, source: bytes) -> None:
    found = _KEPT.fullmatch(strategy_id)
    if found is None or not digest_of(source).startswith(found["digest"]):
        raise InvalidRequest(
            Code.STRATEGY_INVALID,
            f"{GIVEN}/{strategy_id}{SUFFIX} was changed: what is kept there is what results name. Remove it, and give "
            "the file anew",
        )


def _check_private(path: Path) -> None:
    """ConfigError STRATEGY_FOLDER_UNSAFE where others own a file or folder, or may write to it."""
    if sys.platform == "win32":
        return
    status = path.stat()
    if status.st_uid not in (os.getuid(), 0):
        why = f"{path} belongs to another user, and what lies there is run as code: take a folder of your own"
    elif status.st_mode & _SHARED_WRITE:
        mode = "700" if stat.S_ISDIR(status.st_mode) else "600"
        why = f"others may write to {path}, and what lies there is run as code: chmod {mode} it"
    else:
        return
    raise ConfigError(Code.STRATEGY_FOLDER_UNSAFE, why, {"path": str(path)})


def _write_whole(path: Path, source: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(source)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - both are texts
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108
        raise
