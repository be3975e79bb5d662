"""Columns of a file, as they were found, to ticks: converted, put together, and refused where a row is no tick."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from adapters.shared.arrange import Numbered
from adapters.shared.cells import cell_text, first_refused
from adapters.shared.exact import farthest_from_zero, mantissas
from adapters.shared.refusals import Place, cell_refusal, refusal
from adapters.tickfile.times import Clock, Writing, read_times, time_fault, writing_of
from adapters.tickfile.values import (
    code_words,
    is_text,
    number_fault,
    read_codes,
    read_floats,
    read_whole,
)
from daemon.core.errors import Code
from daemon.core.ticks import COLUMNS, NO_ID, UNKNOWN_NS, Kind, Stream, ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from daemon.core.errors import SourceDataInvalid
    from daemon.core.market import Int64s
    from daemon.core.ticks import Column

# What an empty cell stands for, in fields that not every row has.
_ABSENT: Final = {"local_ns": UNKNOWN_NS, "id": NO_ID, "first_id": NO_ID, "last_id": NO_ID}
_CODES: Final = {"side": "side", "buyer_maker": "side", "flags": "flags", "snapshot": "flags"}


class Found(NamedTuple):
    """Columns by field, text or typed, and (n,) int64 the line or row of the file that each row came from."""

    columns: Mapping[str, pa.ChunkedArray]
    numbers: Int64s


class RowReader:
    """Reads blocks of one file; its first row decides how times are written. `notes` says what was assumed."""

    def __init__(self, stream: Stream, file: str, unit: str) -> None:
        self.notes: list[str] = []
        self.without_size = 0
        self._stream = stream
        self._file = file
        self._unit = unit
        self._writings: dict[str, Writing] = {}

    def read(self, found: Found) -> Numbered:
        """Convert a block of at least one row.

        SourceDataInvalid: SOURCE_UNREADABLE for columns of a type that holds no such field, SOURCE_VALUE_INVALID for
        a cell that cannot be used, TICKS_INVALID for prices that are not positive, and negative sizes or ids.
        """
        if not self._writings:
            self._look_at_first(found)
        self._learn_writings(found)
        try:
            columns = self._converted(found)
            price, price_decimals = self._numbers(found, Kind.PRICE)
            size, size_decimals = self._numbers(found, Kind.SIZE)
        except ValueError as error:
            raise self._first_bad_cell(found, error) from None
        made = {**columns, **price, **size}
        self._refuse_rows(made, found)
        if self._stream in {Stream.TRADES, Stream.AGG_TRADES}:
            self.without_size += int(np.count_nonzero(made["size"] == 0))
        rows = ticks(self._stream, price_decimals=price_decimals, size_decimals=size_decimals, **made)
        return Numbered(rows, found.numbers)

    def _look_at_first(self, found: Found) -> None:
        for field, column in found.columns.items():
            if not _holds(column.type, self._kind(field)):
                why = f"{field} is a column of {column.type}; store {_WANTED[self._kind(field)]}"
                raise refusal(Code.SOURCE_UNREADABLE, Place(self._file), why, field=field)
        narrow = [field for field, column in found.columns.items() if str(column.type) in {"float", "halffloat"}]
        if narrow:
            self.notes.append(f"stored in fewer than 64 bits, so rounded by the file's writer: {', '.join(narrow)}")

    def _learn_writings(self, found: Found) -> None:
        """Let the first time of each field decide how all are written; arrivals may begin in a later block."""
        for field, column in found.columns.items():
            if self._kind(field) is not Kind.TIME or field in self._writings:
                continue
            row = int(np.argmax(_filled(column))) if field in _ABSENT else 0
            if field in _ABSENT and not _filled(column).any():
                continue
            writing = writing_of(column.slice(row))
            if writing is None:
                raise self._bad_cell(found, row, field)
            self._writings[field] = writing
            if isinstance(writing, Clock) and not writing.has_zone:
                self.notes.append(f"times of {field} carry no zone: UTC assumed")

    def _kind(self, field: str) -> Kind:
        return COLUMNS[self._stream][_CODES.get(field, field)]

    def _reader(self, field: str, kind: pa.DataType) -> Callable[[pa.ChunkedArray], object]:
        import pyarrow as pa

        match self._kind(field):
            case Kind.TIME:
                return partial(self._read_filled, field)
            case Kind.ID:
                return partial(self._read_filled, field)
            case Kind.CODE:
                return partial(read_codes, words=code_words(field, self._stream))
            case Kind.PRICE | Kind.SIZE:
                return read_floats if pa.types.is_floating(kind) else _exactly

    def _first_bad_cell(self, found: Found, error: ValueError) -> SourceDataInvalid:
        """Name the first row with a cell that its reader refuses."""
        bad = []
        for place, (field, column) in enumerate(found.columns.items()):
            row = first_refused(column, self._reader(field, column.type))
            if row is not None:
                bad.append((row, place, field))
        if not bad:
            why = f"the columns cannot be converted ({error})"
            return refusal(Code.SOURCE_UNREADABLE, self._place(found, 0), why)
        row, _, field = min(bad)
        return self._bad_cell(found, row, field)

    def _bad_cell(self, found: Found, row: int, field: str) -> SourceDataInvalid:
        text = cell_text(found.columns[field], row)
        match self._kind(field):
            case Kind.TIME:
                why = time_fault((text or "").strip(" \t"), self._writings.get(field))
            case Kind.CODE:
                why = f"which is none of {', '.join(code_words(field, self._stream))}; correct or remove the row"
            case Kind.ID:
                why = "which is not a whole number of 64 bits; correct or remove the row"
            case Kind.PRICE | Kind.SIZE:
                why = number_fault(text or "")
        return cell_refusal(Code.SOURCE_VALUE_INVALID, self._place(found, row), field, text, why)

    def _converted(self, found: Found) -> dict[str, Column]:
        """Convert all but prices and sizes."""
        made: dict[str, Column] = {}
        for field, column in found.columns.items():
            match self._kind(field):
                case Kind.TIME | Kind.ID:
                    made[field] = self._read_filled(field, column)
                case Kind.CODE:
                    made[_CODES[field]] = read_codes(column, code_words(field, self._stream))
                case Kind.PRICE | Kind.SIZE:
                    continue
        return made

    def _read_filled(self, field: str, column: pa.ChunkedArray) -> Int64s:
        """Read times or ids; where a field may be empty, its empty cells are what stands for no value."""
        import pyarrow as pa

        def read(cells: pa.ChunkedArray) -> Int64s:
            if self._kind(field) is Kind.ID:
                return read_whole(cells)
            return read_times(cells, self._writings[field], unknown_allowed=field == "local_ns")

        filled = _filled(column) if field in _ABSENT else np.True_
        if filled.all():
            return read(column)
        values = np.full(len(column), _ABSENT[field], dtype=np.int64)
        if filled.any():
            values[filled] = read(column.filter(pa.array(filled)))
        return values

    def _numbers(self, found: Found, kind: Kind) -> tuple[dict[str, Column], int | None]:
        """Convert prices or sizes: to whole numbers at common decimals, or as the floats that they are."""
        import pyarrow as pa

        columns = {field: column for field, column in found.columns.items() if self._kind(field) is kind}
        floating = [field for field, column in columns.items() if pa.types.is_floating(column.type)]
        if not floating:
            try:
                exact, decimals = mantissas(list(columns.values()))
            except OverflowError:
                raise self._too_long(found, columns) from None
            return dict(zip(columns, exact, strict=True)), decimals
        if len(floating) < len(columns):
            why = f"{', '.join(floating)} holds floats, the other column of a {kind} does not; store both alike"
            raise refusal(Code.SOURCE_UNREADABLE, Place(self._file), why, field=floating[0])
        return {field: read_floats(column) for field, column in columns.items()}, None

    def _too_long(self, found: Found, columns: Mapping[str, pa.ChunkedArray]) -> SourceDataInvalid:
        """Name a number for which there are no common decimals with its neighbours."""
        field, column = next(iter(columns.items()))
        for other, rival in columns.items():
            with suppress(OverflowError):
                mantissas([rival])
                continue
            field, column = other, rival
            break
        row = farthest_from_zero(column)
        why = "which does not fit 64 bits at the decimals that rows near it need; correct or remove the row"
        return cell_refusal(Code.SOURCE_VALUE_INVALID, self._place(found, row), field, cell_text(column, row), why)

    def _refuse_rows(self, made: Mapping[str, Column], found: Found) -> None:
        broken = []
        for place, (field, column) in enumerate(made.items()):
            match self._kind(field):
                case Kind.PRICE:
                    bad, why = column <= 0, "which is not positive"
                case Kind.SIZE:
                    bad, why = column < 0, "which is negative"
                case Kind.ID:
                    bad, why = column < NO_ID, "which is negative"
                case Kind.TIME | Kind.CODE:
                    continue
            if bad.any():
                broken.append((int(np.argmax(bad)), place, field, why))
        if broken:
            row, _, field, why = min(broken)
            text = cell_text(found.columns[field], row)
            why = f"{why}; correct or remove the row"
            raise cell_refusal(Code.TICKS_INVALID, self._place(found, row), field, text, why)

    def _place(self, found: Found, row: int) -> Place:
        return Place(self._file, int(found.numbers[row]), self._unit)


_WANTED: Final = {
    Kind.TIME: "timestamps, text, or whole numbers since 1970",
    Kind.ID: "whole numbers",
    Kind.PRICE: "numbers",
    Kind.SIZE: "numbers",
    Kind.CODE: "text, whole numbers or booleans",
}


def _holds(kind: pa.DataType, wanted: Kind) -> bool:
    import pyarrow as pa

    if is_text(kind) or pa.types.is_integer(kind):
        return True
    match wanted:
        case Kind.TIME:
            return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_decimal(kind))
        case Kind.ID:
            return bool(pa.types.is_decimal(kind))
        case Kind.PRICE | Kind.SIZE:
            return bool(pa.types.is_decimal(kind) or pa.types.is_floating(kind))
        case Kind.CODE:
            return bool(pa.types.is_boolean(kind))


def _filled(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Tell which cells hold something."""
    import pyarrow.compute as pc

    there = column.is_valid()
    if is_text(column.type):
        there = pc.and_(there, pc.fill_null(pc.not_equal(column, ""), fill_value=False))
    return np.array(there.combine_chunks(), dtype=bool)


def _exactly(column: pa.ChunkedArray) -> object:
    """Try a column of exact numbers; whether they fit beside each other is not any cell's fault."""
    with suppress(OverflowError):
        return mantissas([column])
    return None
