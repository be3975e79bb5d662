"""Logging: JSON lines to a rotating file, readable lines to a terminal."""

from __future__ import annotations

import logging
import logging.handlers
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME: Final = "atlasd.log"
_MIB: Final = 1 << 20


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[log]` of config.toml. max_mb: size of a file before it is rotated, MiB; backups: old files kept."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    max_mb: Annotated[int, Meta(ge=1, le=1024)] = 10
    backups: Annotated[int, Meta(ge=0, le=100)] = 5


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def start(config: LogConfig, folder: Path) -> None:
    """Log from here on into `folder`, and to stderr where it is a terminal."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = logging.handlers.RotatingFileHandler(
        folder / FILE_NAME, maxBytes=config.max_mb * _MIB, backupCount=config.backups, encoding="utf-8"
    )
    file.setFormatter(JsonFormatter())
    handlers: list[logging.Handler] = [file]
    if sys.stderr.isatty():
        terminal = logging.StreamHandler()
        terminal.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S"))
        handlers.append(terminal)
    logging.basicConfig(level=config.level.upper(), handlers=handlers, force=True)
