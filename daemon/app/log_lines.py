"""The log read back: its last lines, then those to come, over all files that rotation has made."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from datetime import datetime
from typing import IO, TYPE_CHECKING, Final, Self

import msgspec

from daemon.app.logs import FILE_NAME, printable
from daemon.core.errors import Code, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
POLL_S: Final = 0.2


class Line(msgspec.Struct, frozen=True):
    """One line of the log, as `logs.JsonFormatter` writes it. time: ISO 8601, UTC."""

    time: str
    level: str
    logger: str
    message: str
    request: str = ""
    exception: str = ""
    stack: str = ""


class Log:
    """The log in a folder, from a level on. Where `last` has stopped reading, `follow` goes on: no line is missed."""

    def __init__(self, folder: Path, level: str) -> None:
        self._folder = folder
        self._level = level
        self._newest: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._newest is not None:
            self._newest.close()

    def last(self, count: int) -> list[Line]:
        """Return the last lines, the oldest first; NotFound NO_ROWS where there is no log."""
        self._newest = _opened(self._folder / FILE_NAME)
        rotated = _rotated(self._folder)
        if self._newest is None and not rotated:
            raise NotFound(Code.NO_ROWS, f"there is no log in {self._folder} yet: `atlasd serve` writes one")
        found: list[Line] = [] if self._newest is None else self._tail(self._newest, count)
        for path in rotated:
            if len(found) >= count:
                break
            if (file := _opened(path)) is not None:  # otherwise rotated away meanwhile
                with file:
                    found = [*self._tail(file, count - len(found)), *found]
        return found

    def follow(self, is_over: Callable[[], bool] = lambda: False) -> Iterator[Line]:
        """Yield the lines that are written from now on; goes on through rotation. is_over: ends it."""
        while True:
            is_last = is_over()  # asked first: what is written by then is yielded
            if self._newest is not None:
                yield from self._lines(self._newest)
            if (newer := _newer(self._folder, self._newest)) is not None:
                if self._newest is not None:
                    yield from self._lines(self._newest)  # what came between the last look and the file's end
                    self._newest.close()
                self._newest = newer
            elif is_last:
                return
            else:
                time.sleep(POLL_S)

    def _tail(self, file: IO[bytes], count: int) -> list[Line]:
        return list(deque(self._lines(file), maxlen=count))

    def _lines(self, file: IO[bytes]) -> Iterator[Line]:
        return (line for line in _decoded(file) if is_worth(line, self._level))


def is_worth(line: Line, level: str) -> bool:
    """Tell whether a line is of a level or above; one of no known level always is."""
    return line.level not in LEVELS or LEVELS.index(line.level) >= LEVELS.index(level)


def readable(line: Line) -> str:
    """Write a line for people, in local time, tracebacks below; what a terminal would obey is spelled out."""
    try:
        moment = datetime.fromisoformat(line.time).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except ValueError:
        moment = line.time
    request = f" [{line.request}]" if line.request else ""
    text = f"{moment} {line.level.upper():<7} {line.logger}: {line.message}{request}"
    return printable("\n".join(part for part in (text, line.exception, line.stack) if part))


def _rotated(folder: Path) -> list[Path]:
    """Return the files that rotation has made, the newest first."""
    found = [path for path in folder.glob(f"{FILE_NAME}.*") if path.suffix[1:].isdigit()]
    return sorted(found, key=lambda path: int(path.suffix[1:]))


def _decoded(file: IO[bytes]) -> Iterator[Line]:
    """Read whole lines from where a file stands; a part of one is left for the next time."""
    while True:
        start = file.tell()
        raw = file.readline()
        if not raw.endswith(b"\n"):
            file.seek(start)
            return
        try:
            yield msgspec.json.decode(raw, type=Line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield Line("", "", "not a line of this program", raw.decode("utf-8", "backslashreplace").rstrip("\n"))


def _opened(path: Path) -> IO[bytes] | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _newer(folder: Path, file: IO[bytes] | None) -> IO[bytes] | None:
    """Open the file that the log went on in after this one; None while it has not."""
    if file is None:
        return _opened(folder / FILE_NAME)
    while True:
        place = _place(folder, file)
        if place == 0:
            return None
        # Of a file that is gone by now nobody knows the next one.
        newer = _opened(folder / (f"{FILE_NAME}.{place - 1}" if place is not None and place > 1 else FILE_NAME))
        if newer is None or _place(folder, file) == place:
            return newer
        newer.close()  # rotated meanwhile


def _place(folder: Path, file: IO[bytes]) -> int | None:
    """Return how often an open file was rotated, 0 for the newest; None where it has been deleted."""
    then = os.fstat(file.fileno())
    for path in (folder / FILE_NAME, *_rotated(folder)):
        with suppress(FileNotFoundError):
            if (path.stat().st_dev, path.stat().st_ino) == (then.st_dev, then.st_ino):
                return 0 if path.name == FILE_NAME else int(path.suffix[1:])
    return None
