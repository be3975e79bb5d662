"""The errors of this adapter: what is wrong, where, and what to do.

One sentence per refusal, beginning with the file's name; `details` holds the same facts for programs. Text
from the file is shortened and stripped of what a terminal could obey before it is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from daemon.core.errors import Code, NotFound, SourceDataInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SHOWN_CHARACTERS = 60
PATH_CHARACTERS = 4096
SHOWN_NAMES = 20


class Place(NamedTuple):
    """Where in which file: a line of text or a row of Parquet, counted from 1."""

    file: str
    number: int | None = None
    unit: str = "line"

    def __str__(self) -> str:
        """Read as `SPY.csv line 17`."""
        return self.file if self.number is None else f"{self.file} {self.unit} {self.number}"

    def details(self, **facts: str) -> dict[str, object]:
        """Give the place and more facts, for programs."""
        line: dict[str, object] = {} if self.number is None else {"line": self.number}
        return {"file": self.file, **line, **facts}


def shown(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """Make text safe to print: short, on one line, nothing invisible."""
    short = text if len(text) <= characters else text[: characters - 1] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in short)


def not_found(path: Path) -> NotFound:
    """Nothing is there; the path is shown in full, because that is what to correct."""
    message = f"{shown(str(path), PATH_CHARACTERS)}: there is no such file; check the path"
    return NotFound(Code.SOURCE_NOT_FOUND, message, {"file": shown(path.name)})


def unreadable(place: Place, why: str) -> SourceDataInvalid:
    """Refuse the file as a whole, or a line that breaks its form."""
    return SourceDataInvalid(Code.SOURCE_UNREADABLE, f"{place}: {why}", place.details())


def empty(file: str, why: str) -> SourceDataInvalid:
    """Refuse a file in which there are no bars."""
    return SourceDataInvalid(Code.SOURCE_EMPTY, f"{file}: {why}; there are no bars to read", {"file": file})


def column_missing(place: Place, fields: Sequence[str], why: str) -> SourceDataInvalid:
    """Refuse a file whose columns do not name each field exactly once."""
    return SourceDataInvalid(Code.SOURCE_COLUMN_MISSING, f"{place}: {why}", place.details(field=", ".join(fields)))


def value_invalid(place: Place, field: str, text: str | None, fault: str) -> SourceDataInvalid:
    """Refuse one cell; `fault` continues the sentence after the cell's text. None is a null."""
    if text is None or not text.strip():
        state = "null" if text is None else "empty"
        message = f"{place}: {field} is {state}; fill it in or remove the row"
    else:
        message = f'{place}: {field} is "{shown(text)}", {fault}'
    return SourceDataInvalid(Code.SOURCE_VALUE_INVALID, message, place.details(field=field, value=shown(text or "")))


def listed(names: Sequence[str]) -> str:
    """Names in quotes, the first few of them."""
    quoted = ", ".join(f'"{shown(name)}"' for name in names[:SHOWN_NAMES])
    return quoted if len(names) <= SHOWN_NAMES else f"{quoted} and {len(names) - SHOWN_NAMES} more"
