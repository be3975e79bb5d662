"""A strategy's own exception, told as its author would want it: by the lines of its file."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from daemon.core.errors import Code, StrategyFailed

if TYPE_CHECKING:
    from traceback import FrameSummary

_MOST_LINES: Final = 20
_MOST_CHARACTERS: Final = 500


def strategy_failed(error: BaseException, own_file: str) -> StrategyFailed:
    """Tell what a strategy raised, and where in its file.

    own_file: the name that the file was compiled under, or its path. Frames of other files, which are ours or a
    library's, are left out; compiled code has one frame, the method that was called. details["traceback"]: `FILE, line
    N, in METHOD: SOURCE` from the first frame to the last, 20 at the most, empty where none is of the file. A file that
    does not parse is told by its line. Code STRATEGY_RAISED; STRATEGY_MEMORY for a MemoryError, whose bound the worker
    adds. Not meant for an AtlasError, such as a cancellation that passes through the strategy.
    """
    name = Path(own_file).name
    places = [
        (_place(name, each.lineno, each.name), each.line or "")
        for each in _frames(error)
        if _is_same(each.filename, own_file)
    ]
    if isinstance(error, SyntaxError) and error.filename is not None and _is_same(error.filename, own_file):
        places.append((_place(name, error.lineno, ""), _one_line(error.text or "")))
    lines = [f"{place}: {source}" if source else place for place, source in places]
    if len(lines) > _MOST_LINES:
        half = _MOST_LINES // 2
        lines = [*lines[:half], f"... {len(lines) - 2 * half:,} more lines", *lines[-half:]]
    code = Code.STRATEGY_MEMORY if isinstance(error, MemoryError) else Code.STRATEGY_RAISED
    return StrategyFailed(code, f"{places[-1][0] if places else name}: {_said(error)}", {"traceback": lines})


def _frames(error: BaseException) -> list[FrameSummary]:
    return list(traceback.extract_tb(error.__traceback__))


def _is_same(filename: str, own_file: str) -> bool:
    return filename == own_file or Path(filename).absolute() == Path(own_file).absolute()


def _place(name: str, line: int | None, method: str) -> str:
    return ", ".join([name, *([f"line {line}"] if line else []), *([f"in {method}"] if method else [])])


def _said(error: BaseException) -> str:
    """Return an exception's type and words; its words are code of the user's own too, and may raise."""
    kind = type(error).__name__
    try:
        words = error.msg if isinstance(error, SyntaxError) else str(error)
    except Exception:  # noqa: BLE001
        words = ""
    words = _one_line(words)
    return f"{kind}: {words}" if words else kind


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MOST_CHARACTERS]
