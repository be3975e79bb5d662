"""Blocks of history as JSON and MessagePack, and rows of a probe as JSON.

An object a row, made without a dictionary a row: ten thousand bars take some milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from daemon.core.errors import Code, InvalidRequest
from daemon.core.ticks import NO_ID, UNKNOWN_NS, Kind
from daemon.research.views import texts
from daemon.store.codec import to_floats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from daemon.research import views
    from daemon.research.history import Block, History
    from daemon.research.views import RunRows

# One encoding of these holds the interpreter for a millisecond, so the loop goes on in between.
_ROWS_AT_ONCE: Final = 1_024
_GROUPS_AT_ONCE: Final = 512
_NS_PER_MS: Final = 1_000_000
# A float64 tells every decimal number of so many digits, and its shortest text is that number.
_TOLD_BY_FLOATS: Final = 10**15
# MessagePack says how many rows there are before the first, so a page of it is held whole.
MAX_PACKED: Final = 100_000
_FIX_MAP: Final = 0x80
_ARRAY_32: Final = b"\xdd"


def json_pieces(history: History) -> Iterator[bytes]:
    """Make `{"symbol", "stream", "timeframe", "rows", "next_cursor"}` piece by piece."""
    yield msgspec.json.encode(_head(history))[:-1] + b',"rows":'
    yield from json_rows(history)
    yield b',"next_cursor":' + msgspec.json.encode(history.next_cursor) + b"}"


def json_rows(history: History) -> Iterator[bytes]:
    """Make a plain list of the rows piece by piece."""
    encode = _Encoder(history, msgspec.json.encode, exact=True)
    yield b"["
    comma = b""
    for block in history.blocks():
        for rows in encode(block):
            yield comma + rows[1:-1]
            comma = b","
        if not block.size:
            yield b""
    yield b"]"


def msgpack_pieces(history: History) -> Iterator[bytes]:
    """Make the same as MessagePack; no row leaves before the last is made."""
    encode = _Encoder(history, msgspec.msgpack.encode, exact=False)
    parts: list[bytes] = []
    count = 0
    for block in history.blocks():
        parts += [_without_header(rows) for rows in encode(block)]
        count += block.size
        yield b""
    head = _head(history)
    fields = b"".join(msgspec.msgpack.encode(each) for pair in head.items() for each in pair)
    names = bytes([_FIX_MAP + len(head) + 2]) + fields + msgspec.msgpack.encode("rows")
    yield names + _ARRAY_32 + count.to_bytes(4, "big")
    yield from parts
    yield msgspec.msgpack.encode("next_cursor") + msgspec.msgpack.encode(history.next_cursor)


def packed_limit(limit: int | None) -> int:
    """Check the limit of a MessagePack page; InvalidRequest INVALID_REQUEST."""
    if limit is None or limit > MAX_PACKED:
        raise InvalidRequest(
            Code.INVALID_REQUEST,
            f"msgpack has at most {MAX_PACKED} rows in a page: go on with next_cursor, or take json, csv or arrow",
            {"field": "limit"},
        )
    return limit


class _Encoder:
    """Turns blocks into encoded lists of row objects. exact: long decimals as they are, not as the nearest float64."""

    def __init__(self, history: History, encode: Callable[[Any], bytes], *, exact: bool) -> None:
        self._kinds = history.kinds
        self._sides = np.array(history.sides, dtype=object)
        self._encode = encode
        self._exact = exact
        self._has_nanos = not history.is_timed
        names = [name for column in self._kinds for name in self._names(column)]
        self._row: type[msgspec.Struct] = msgspec.defstruct("Row", names, gc=False)

    def __call__(self, block: Block) -> Iterator[bytes]:
        for at in range(0, block.size, _ROWS_AT_ONCE):
            rows = block.rows(at, min(at + _ROWS_AT_ONCE, block.size))
            columns = [column for name in self._kinds for column in self._plain(name, rows)]
            yield self._encode(list(map(self._row, *columns)))

    def _names(self, column: str) -> list[str]:
        if self._kinds[column] is not Kind.TIME or not self._has_nanos:
            return [column]
        return [column, column.replace("timestamp", "nanos")]

    def _plain(self, name: str, rows: Block) -> Iterator[list[Any]]:
        """Give the columns that a column becomes, as Python's own values."""
        column = rows.columns[name]
        match self._kinds[name]:
            case Kind.TIME:
                known = None if name != "local_timestamp" else column != UNKNOWN_NS
                yield _known(column // _NS_PER_MS, known)
                if self._has_nanos:
                    yield _known(column % _NS_PER_MS, known)
            case Kind.ID:
                yield _known(column, column != NO_ID)
            case Kind.PRICE | Kind.SIZE as kind:
                yield self._numbers(column, rows.decimals(kind))
            case Kind.CODE:
                values: list[Any] = (self._sides[column % 3] if name == "side" else column).tolist()
                yield values

    def _numbers(self, column: NDArray[Any], decimals: int | None) -> list[Any]:
        if decimals is not None and self._exact and int(np.abs(column).max()) >= _TOLD_BY_FLOATS:
            return [msgspec.Raw(_decimal(number, decimals)) for number in column.tolist()]
        values: list[Any] = (column if decimals is None else to_floats(column, decimals)).tolist()
        return values


def _known(column: NDArray[Any], known: NDArray[np.bool_] | None) -> list[Any]:
    values: list[Any] = column.tolist()
    if known is None or known.all():
        return values
    return [value if is_known else None for value, is_known in zip(values, known.tolist(), strict=True)]


def _decimal(number: int, decimals: int) -> bytes:
    """Write a whole number of 10^-decimals."""
    sign, digits = "-" * (number < 0), str(abs(number)).rjust(decimals + 1, "0")
    place = len(digits) - decimals
    return f"{sign}{digits[:place]}.{digits[place:].rstrip('0') or '0'}".encode()


def _head(history: History) -> dict[str, str | None]:
    return {"symbol": history.instrument.key, "stream": history.stream, "timeframe": history.timeframe}


def _without_header(rows: bytes) -> bytes:
    """Cut the count off an encoded list of up to _ROWS_AT_ONCE rows."""
    short = rows[0] & 0xF0 == 0x90  # noqa: PLR2004 - a count of up to 15 is in the first byte, else in two more
    return rows[1 if short else 3 :]


def listed_rows(rows: RunRows, blocks: Iterator[views.Block]) -> Iterator[bytes]:
    """Make a list of a run's rows and its cursor, a few hundred rows at a time."""
    head = b'{"results":['
    for block in blocks:
        plain = texts(block)
        names = list(plain)
        columns = list(plain.values())
        for at in range(0, len(columns[0]), _GROUPS_AT_ONCE):
            found = zip(*(column[at : at + _GROUPS_AT_ONCE] for column in columns), strict=True)
            objects = msgspec.json.encode([dict(zip(names, row, strict=True)) for row in found])
            yield head + objects[1:-1]
            head = b","
    cursor = None if rows.next_cursor is None else rows.next_cursor.encode()
    yield (b"" if head == b"," else head) + b'],"next_cursor":' + msgspec.json.encode(cursor) + b"}"
