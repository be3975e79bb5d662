"""The errors of files: what is wrong, where, and what to do.

One sentence per refusal, beginning with the file's name; `details` holds the same facts for programs. Text from a file
is shortened and stripped of what a terminal could obey before it is shown.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, NamedTuple

from daemon.core.errors import Code, NotFound, SourceDataInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SHOWN_CHARACTERS = 60
PATH_CHARACTERS = 4096
FILE_CHARACTERS = 255
SHOWN_NAMES = 20


class Place(NamedTuple):
    """Where in which file: a line of text or a row of Parquet, counted from 1."""

    file: str
    number: int | None = None
    unit: str = "line"

    def __str__(self) -> str:
        """Read as `BTCUSDT-trades-2024-08-09.zip line 17`."""
        return self.file if self.number is None else f"{self.file} {self.unit} {self.number}"


def shown(text: str, characters: int = SHOWN_CHARACTERS) -> str:
    """Make text safe to print: short, on one line, nothing invisible."""
    short = text if len(text) <= characters else text[: characters - 1] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in short)


def listed(names: Iterable[str]) -> str:
    """Names in quotes, the first few of them."""
    quoted = [f'"{shown(name)}"' for name in names]
    rest = len(quoted) - SHOWN_NAMES
    return ", ".join(quoted[:SHOWN_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def refusal(code: Code, place: Place, why: str, **facts: str) -> SourceDataInvalid:
    """Word an error: the place, then what is wrong and what to do; facts are more details for programs."""
    line: dict[str, object] = {} if place.number is None else {"line": place.number}
    return SourceDataInvalid(code, f"{place}: {why}", {"file": place.file, **line, **facts})


def cell_refusal(code: Code, place: Place, field: str, text: str | None, why: str) -> SourceDataInvalid:
    """Refuse one cell; `why` continues the sentence after the cell's text. None is a null."""
    if text is None or not text.strip():
        state = "null" if text is None else "empty"
        return refusal(code, place, f"{field} is {state}; fill it in or remove the row", field=field, value="")
    return refusal(code, place, f'{field} is "{shown(text)}", {why}', field=field, value=shown(text))


def cannot_open(file: str, error: OSError) -> SourceDataInvalid:
    """Word what the operating system refused."""
    why = f"cannot be read ({error.strerror or error}); check its permissions and its disk"
    return refusal(Code.SOURCE_UNREADABLE, Place(file), why)


def require_regular_file(path: Path) -> str:
    """Return a file's name, safe to print.

    NotFound SOURCE_NOT_FOUND where nothing is, SourceDataInvalid SOURCE_UNREADABLE for a directory or a device.
    """
    file = shown(path.name, FILE_CHARACTERS)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the path
        message = f"{shown(str(path), PATH_CHARACTERS)}: there is no such file; check the path"
        raise NotFound(Code.SOURCE_NOT_FOUND, message, {"file": file}) from None
    except OSError as error:
        raise cannot_open(file, error) from None
    if stat.S_ISDIR(mode):
        raise refusal(Code.SOURCE_UNREADABLE, Place(file), "this is a directory; name a file in it")
    if not stat.S_ISREG(mode):
        raise refusal(Code.SOURCE_UNREADABLE, Place(file), "this is a device or pipe; name a file")
    return file
