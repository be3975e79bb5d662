"""The errors of this adapter, by the codes of files: what is wrong, where, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.shared.refusals import Place, cell_refusal, listed, refusal, shown
from daemon.core.errors import Code

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.core.errors import SourceDataInvalid

__all__ = ["Place", "column_missing", "empty", "listed", "shown", "unreadable", "value_invalid"]


def unreadable(place: Place, why: str) -> SourceDataInvalid:
    """Refuse the file as a whole, or a line that breaks its form."""
    return refusal(Code.SOURCE_UNREADABLE, place, why)


def empty(file: str, why: str) -> SourceDataInvalid:
    """Refuse a file in which there are no bars."""
    return refusal(Code.SOURCE_EMPTY, Place(file), f"{why}; there are no bars to read")


def column_missing(place: Place, fields: Sequence[str], why: str) -> SourceDataInvalid:
    """Refuse a file whose columns do not name each field exactly once."""
    return refusal(Code.SOURCE_COLUMN_MISSING, place, why, field=", ".join(fields))


def value_invalid(place: Place, field: str, text: str | None, fault: str) -> SourceDataInvalid:
    """Refuse one cell; `fault` continues the sentence after the cell's text. None is a null."""
    return cell_refusal(Code.SOURCE_VALUE_INVALID, place, field, text, fault)
