"""Logging: JSON lines to a rotating file, readable lines to a terminal; neither ever holds a secret.

Every line passes one of the two formatters here, those of libraries and of exceptions too.
"""

from __future__ import annotations

import logging
import logging.handlers
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

from daemon.core.redaction import redacted
from daemon.core.request_id import REQUEST_ID

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

FOLDER: Final = "logs"
FILE_NAME: Final = "atlasd.log"
_MIB: Final = 1 << 20
_LONGEST: Final = 1 << 17
"""Characters of a message or of a traceback that are kept."""

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[log]` of config.toml. max_mb: size of a file before it is rotated, MiB; backups: old files kept."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    max_mb: Annotated[int, Meta(ge=1, le=1024)] = 10
    backups: Annotated[int, Meta(ge=0, le=100)] = 5


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and the request and the traceback where there is one.

    known: secrets in use, hidden wherever they stand; others are found by what they look like (`core.redaction`).
    """

    def __init__(self, known: Collection[str] = ()) -> None:
        super().__init__()
        self._known = known

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _safe(record.getMessage(), self._known),
        }
        if request_id := REQUEST_ID.get():
            line["request"] = _safe(request_id, self._known)
        if record.exc_info:
            line["exception"] = _safe(self.formatException(record.exc_info), self._known)
        if record.stack_info:
            line["stack"] = _safe(record.stack_info, self._known)
        return msgspec.json.encode(line).decode()


class LineFormatter(logging.Formatter):
    """One readable line, for a terminal. known: as of `JsonFormatter`."""

    def __init__(self, known: Collection[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
        self._known = known

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        return printable(_safe(super().format(record), self._known))


def printable(text: str) -> str:
    """Return a text that a terminal shows and does not obey: what strangers send ends up in logs.

    Lines after the first are moved in, so that none of them passes for an entry of its own.
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text).replace("\n", "\n    ")


def _safe(text: str, known: Collection[str]) -> str:
    cut = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text) - _LONGEST} more characters)"
    # What is no text, such as half of a pair of surrogates out of a header, cannot be written.
    return redacted(cut, known).encode("utf-8", "backslashreplace").decode()


def start(config: LogConfig, folder: Path, known: Collection[str] = ()) -> None:
    """Log from here on into `folder`, and to stderr where it is a terminal. known: secrets in use, to be hidden."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = logging.handlers.RotatingFileHandler(
        folder / FILE_NAME, maxBytes=config.max_mb * _MIB, backupCount=config.backups, encoding="utf-8"
    )
    file.setFormatter(JsonFormatter(known))
    handlers: list[logging.Handler] = [file]
    if sys.stderr.isatty():
        terminal = logging.StreamHandler()
        terminal.setFormatter(LineFormatter(known))
        handlers.append(terminal)
    logging.basicConfig(level=config.level.upper(), handlers=handlers, force=True)
