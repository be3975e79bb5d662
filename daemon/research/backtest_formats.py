"""A backtest's rows and result as JSON, CSV and Arrow, piece by piece.

JSON has one row a line, times as Unix ms and null where there is no value; CSV and Arrow have times in UTC to the
nanosecond. A result leaves as it was stored: long lists are written some hundred rows at a time, so that no step holds
the interpreter for long, and a result of another release is passed on as that one wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from daemon.core.market import NS_PER_SECOND
from daemon.research import backtest_records as records
from daemon.research.tables import Sink, csv_header, iso

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

    from daemon.research.backtest_views import BacktestRows, Block, Column
    from daemon.store.env import Environment

# One encoding of these holds the interpreter for a few milliseconds.
_ROWS_AT_ONCE: Final = 1_024
_NS_PER_MS: Final = 1_000_000
_LONG_LISTS: Final = frozenset({"equityCurve", "drawdownCurve", "trades", "events"})


# Rows.


def json_list(rows: BacktestRows) -> Iterator[bytes]:
    """Make `{"results", "next_cursor"}`."""
    yield b'{"results":['
    yield from _joined(_json_rows(rows))
    yield b'],"next_cursor":' + msgspec.json.encode(rows.next_cursor) + b"}"


def json_array(rows: BacktestRows) -> Iterator[bytes]:
    """Make a plain array."""
    yield b"[\n"
    yield from _joined(_json_rows(rows))
    yield b"\n]\n"


def csv_pieces(rows: BacktestRows) -> Iterator[bytes]:
    """Make CSV: a header, times as ISO 8601, empty cells where there is no value.

    No text has a comma, quote or line break: they are symbols and words of ours.
    """
    import pyarrow as pa
    from pyarrow import csv

    yield csv_header(column.name for column in rows.columns)
    for block in rows.blocks():
        sink = pa.BufferOutputStream()
        texts = {column.name: _text(column, block) for column in rows.columns}
        csv.write_csv(pa.record_batch(texts), sink, csv.WriteOptions(include_header=False, quoting_style="none"))
        yield bytes(sink.getvalue())


def arrow_pieces(rows: BacktestRows) -> Iterator[bytes]:
    """Make an Arrow IPC stream: times as timestamps in UTC, null where there is no value."""
    import pyarrow as pa

    schema = _schema(rows.columns)
    sink = Sink()
    with pa.ipc.new_stream(sink, schema) as writer:
        for block in rows.blocks():
            writer.write_batch(pa.record_batch([_array(column, block) for column in rows.columns], schema=schema))
            yield sink.taken()
    yield sink.taken()


def arrow_table(columns: list[Column], blocks: Iterable[Block]) -> pa.Table:
    """Make one table of all rows, as of `arrow_pieces`."""
    import pyarrow as pa

    schema = _schema(columns)
    batches = [pa.record_batch([_array(column, block) for column in columns], schema=schema) for block in blocks]
    return pa.Table.from_batches(batches, schema)


def _json_rows(rows: BacktestRows) -> Iterator[bytes]:
    """Encode rows as objects a line, without the last comma."""
    row = msgspec.defstruct("Row", [column.name for column in rows.columns], gc=False)
    for block in rows.blocks():
        plain = [_plain(column, block) for column in rows.columns]
        for at in range(0, len(plain[0]), _ROWS_AT_ONCE):
            yield _lines(list(map(row, *(column[at : at + _ROWS_AT_ONCE] for column in plain))))
        if not plain[0]:
            yield b""


def _lines(rows: Iterable[Any]) -> bytes:
    # JSON has no line break within a string.
    return msgspec.json.Encoder().encode_lines(rows)[:-1].replace(b"\n", b",\n")


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Put commas between pieces; empty ones stand for time that went by."""
    comma = b""
    for piece in pieces:
        yield comma + piece if piece else piece
        comma = b",\n" if piece else comma


def _plain(column: Column, block: Block) -> list[Any]:
    values = block[column.name]
    plain: list[Any] = (values // _NS_PER_MS if column.kind == "time" else values).tolist()
    return plain


def _schema(columns: list[Column]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema(pa.field(column.name, _type(column), column.is_nullable) for column in columns)


def _type(column: Column) -> pa.DataType:
    import pyarrow as pa

    types: dict[str, Callable[[], pa.DataType]] = {
        "time": lambda: pa.timestamp("ns", tz="UTC"),
        "int": pa.int64,
        "float": pa.float64,
        "bool": pa.bool_,
        "str": pa.string,
    }
    return types[column.kind]()


def _array(column: Column, block: Block) -> pa.Array:
    import pyarrow as pa

    values = block[column.name]
    if column.kind == "time":
        return pa.array(values).cast(_type(column))
    mask = np.isnan(values) if column.kind == "float" else None
    return pa.array(values, _type(column), mask=mask)


def _text(column: Column, block: Block) -> pa.Array:
    if column.kind != "time":
        return _array(column, block)
    return iso(_array(column, block), "ns" if (block[column.name] % NS_PER_SECOND).any() else "s")


# Results.


def result_pieces(env: Environment, backtest_id: str) -> Iterator[bytes]:
    """Make a result's JSON, a field a line; errors as of `backtest_records.stored_fields`, before the first piece."""
    with env.read() as transaction:
        fields = records.stored_fields(transaction, backtest_id)
    before = b"{\n"
    for name, value in fields.items():
        yield before + msgspec.json.encode(name) + b": "
        before = b",\n"
        if name in _LONG_LISTS:
            yield b"["
            yield from _joined(_elements(value))
            yield b"]"
        else:
            yield msgspec.json.encode(msgspec.msgpack.decode(value))
    yield b"\n}\n"


def _elements(array: msgspec.Raw) -> Iterator[bytes]:
    elements = msgspec.msgpack.decode(array, type=list[msgspec.Raw])
    for at in range(0, len(elements), _ROWS_AT_ONCE):
        yield _lines([msgspec.msgpack.decode(each) for each in elements[at : at + _ROWS_AT_ONCE]])
