"""Rows of backtests: trades, fills, equity and events, whole, as chunks of columns.

A worker must not write to the store, and equity alone may have millions of rows, so a backtest writes its columns to a
spool file and reports where each chunk lies. The writer then copies the chunks into the store in the transaction that
stores the result: a backtest is stored whole or not at all, and a spool file that outlives its process is rubbish.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias, get_args

import msgspec
import numpy as np

from daemon.core.errors import Code, StoreCorrupt
from daemon.store import codec, documents
from daemon.store.env import room_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from daemon.store.env import Transaction

Table: TypeAlias = Literal["trades", "fills", "equity", "events"]
TABLES: Final[tuple[str, ...]] = get_args(Table)

CHUNK_ROWS: Final = 65_536

_DATABASE: Final = "results"
# No run's key begins with a zero: ids of runs and of backtests may be the same.
_PREFIX: Final = b"\0backtest\0"
_SEPARATOR: Final = b"\0"
_NUMBER: Final = struct.Struct(">I")


class ColumnPart(msgspec.Struct, frozen=True, array_like=True):
    """One chunk of a table: its place among the table's chunks, its columns, where it lies in the spool file."""

    table: Table
    number: int
    rows: int
    names: list[str]
    offset: int
    length: int


class _Index(msgspec.Struct, frozen=True):
    parts: list[ColumnPart]


class ColumnSpool:
    """Writes the columns of a backtest to a file, chunk after chunk; the file is removed where the writing fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.parts: list[ColumnPart] = []
        self._numbers = dict.fromkeys(TABLES, 0)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            with room_for(self._path):
                self._file.close()
            return
        with suppress(OSError):  # what a full disk did not take is still in the buffer
            self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, table: Table, columns: Mapping[str, NDArray[Any]]) -> None:
        """Append rows to a table.

        columns: equally long, one-dimensional, integers or float64 (booleans are kept as uint8); the same names at
        every call for a table. No rows add no chunk. StoreFull STORE_FULL where the disk has no room.
        """
        rows = min((column.size for column in columns.values()), default=0)
        if any(column.shape != (rows,) for column in columns.values()):
            shapes = {name: column.shape for name, column in columns.items()}
            raise ValueError(f"columns of `{table}` differ in length: {shapes}")
        for first in range(0, rows, CHUNK_ROWS):
            chunk = [_stored(column[first : first + CHUNK_ROWS]) for column in columns.values()]
            self._append(table, list(columns), chunk)

    def _append(self, table: Table, names: list[str], columns: list[NDArray[Any]]) -> None:
        value = codec.encode_rows(columns)
        offset = self._file.tell()
        with room_for(self._path):
            self._file.write(value)
            self._file.flush()
        self.parts.append(ColumnPart(table, self._numbers[table], columns[0].size, names, offset, len(value)))
        self._numbers[table] += 1


def put(transaction: Transaction, backtest_id: str, parts: list[ColumnPart], spool: Path) -> None:
    """Store a backtest's chunks from its spool file in place of those it had; the transaction makes it whole."""
    delete(transaction, backtest_id)
    if parts:
        with spool.open("rb") as file:
            for part in parts:
                file.seek(part.offset)
                transaction.put(_DATABASE, _key(backtest_id, part), file.read(part.length))
    transaction.put(_DATABASE, _prefix(backtest_id), documents.pack(_Index(parts)))


def spooled(parts: list[ColumnPart], spool: Path) -> dict[Table, list[dict[str, NDArray[Any]]]]:
    """Read a spool file's chunks by table, in order, each as columns by name: the rows of one that is not stored."""
    found: dict[Table, list[dict[str, NDArray[Any]]]] = {}
    with spool.open("rb") as file:
        for part in parts:
            file.seek(part.offset)
            columns = dict(zip(part.names, codec.decode(file.read(part.length)), strict=True))
            found.setdefault(part.table, []).append(columns)
    return found


def rows(transaction: Transaction, backtest_id: str) -> dict[str, int]:
    """Count the rows of every table; zeros where nothing is stored."""
    counts = dict.fromkeys(TABLES, 0)
    for part in _parts(transaction, backtest_id):
        counts[part.table] += part.rows
    return counts


def read(transaction: Transaction, backtest_id: str, table: Table) -> Iterator[dict[str, NDArray[Any]]]:
    """Walk a table chunk by chunk, in the order it was written; each is columns by name, at most CHUNK_ROWS rows.

    Nothing where the table is empty or the backtest is not stored. StoreCorrupt where a chunk is missing or damaged.
    The arrays are new ones; the transaction stays open while one walks.
    """
    for part in parts(transaction, backtest_id, table):
        yield read_part(transaction, backtest_id, part)


def parts(transaction: Transaction, backtest_id: str, table: Table) -> list[ColumnPart]:
    """Return a table's chunks in order, for those who read them in a snapshot each; none where nothing is stored."""
    return [part for part in _parts(transaction, backtest_id) if part.table == table]


def read_part(transaction: Transaction, backtest_id: str, part: ColumnPart) -> dict[str, NDArray[Any]]:
    """Read one chunk as columns by name, which are new arrays; StoreCorrupt where it is missing or damaged."""
    value = transaction.get(_DATABASE, _key(backtest_id, part))
    if value is None:
        raise StoreCorrupt(
            Code.STORE_CORRUPT, f"chunk {part.number} of `{part.table}` of backtest {backtest_id} is missing"
        )
    return dict(zip(part.names, codec.decode(value), strict=True))


def delete(transaction: Transaction, backtest_id: str) -> int:
    """Remove all rows of a backtest; returns how many values went."""
    found = [key for key, _ in transaction.scan(_DATABASE, _prefix(backtest_id))]
    for key in found:
        transaction.delete(_DATABASE, key)
    return len(found)


def _parts(transaction: Transaction, backtest_id: str) -> list[ColumnPart]:
    value = transaction.get(_DATABASE, _prefix(backtest_id))
    return [] if value is None else documents.unpack(value, _Index).parts


def _prefix(backtest_id: str) -> bytes:
    """Key of a backtest's index, and prefix of its chunks."""
    return _PREFIX + backtest_id.encode() + _SEPARATOR


def _key(backtest_id: str, part: ColumnPart) -> bytes:
    return _prefix(backtest_id) + part.table.encode() + _SEPARATOR + _NUMBER.pack(part.number)


def _stored(column: NDArray[Any]) -> NDArray[Any]:
    return column.astype(np.uint8) if column.dtype == np.bool_ else column
