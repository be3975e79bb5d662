"""Blocks of history as Arrow tables and CSV text.

Arrow is slow to load, so everything here imports it when it is first used, which must not be on an event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from daemon.core.market import NS_PER_SECOND
from daemon.core.ticks import NO_ID, UNKNOWN_NS, Kind
from daemon.store.codec import to_floats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from daemon.research.history import Block, History

_INT64_DIGITS: Final = 19
# Parquet keeps decimals of so many digits as plain 64-bit integers.
_SHORT_DIGITS: Final = 18
_MOST_DIGITS: Final = 38
_CSV_ROWS: Final = 8_192


class Survey:
    """What a walk's blocks hold, as far as the types of a table depend on it.

    rows: how many. unknown: columns without a single value. A PRICE or SIZE column is exact where every block has it
    as whole numbers.
    """

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        self.rows = 0
        self.unknown = {name for name, kind in kinds.items() if _nothing(name, kind) is not None}
        self._kinds = kinds
        self._digits = {Kind.PRICE: _Digits(1, 0), Kind.SIZE: _Digits(1, 0)}
        self._floats = set[Kind]()

    def add(self, block: Block) -> None:
        """Look at the next block."""
        if not block.size:
            return
        self.rows += block.size
        self.unknown = {name for name in self.unknown if not _known(block, name, self._kinds[name]).any()}
        for name, kind in self._kinds.items():
            if kind not in self._digits:
                continue
            decimals = block.decimals(kind)
            if decimals is None:
                self._floats.add(kind)
            else:
                most = int(np.abs(block.columns[name]).max()) // 10**decimals
                self._digits[kind] = self._digits[kind].joined(_Digits(len(str(most)), decimals))

    def schema(self, history: History) -> pa.Schema:
        """Types that hold every row exactly; columns without a value are left out."""
        import pyarrow as pa

        fields = []
        for field in schema(history):
            kind = history.kinds[field.name]
            if field.name in self.unknown:
                continue
            exact = kind in self._digits and kind not in self._floats
            fields.append(field.with_type(self._digits[kind].type) if exact else field)
        return pa.schema(fields)


class _Digits(NamedTuple):
    """Digits before and behind the decimal point."""

    whole: int
    decimals: int

    def joined(self, other: _Digits) -> _Digits:
        return _Digits(max(self.whole, other.whole), max(self.decimals, other.decimals))

    @property
    def type(self) -> pa.DataType:
        import pyarrow as pa

        is_short = self.whole + self.decimals <= _SHORT_DIGITS
        return pa.decimal128(_SHORT_DIGITS if is_short else _MOST_DIGITS, self.decimals)


def schema(history: History) -> pa.Schema:
    """Types that hold any block: prices and sizes as the nearest float64."""
    import pyarrow as pa

    types = {
        Kind.TIME: pa.timestamp("ns", tz="UTC"),
        Kind.ID: pa.int64(),
        Kind.PRICE: pa.float64(),
        Kind.SIZE: pa.float64(),
        Kind.CODE: pa.int8(),
    }
    sides = pa.dictionary(pa.int8(), pa.string())
    return pa.schema(
        pa.field(name, sides if name == "side" else types[kind], nullable=_nothing(name, kind) is not None)
        for name, kind in history.kinds.items()
    )


def batch(history: History, block: Block, wanted: pa.Schema) -> pa.RecordBatch:
    """Turn a block into a batch of a schema; ArrowInvalid where it does not hold a number exactly."""
    import pyarrow as pa

    columns = [_column(history, block, field) for field in wanted]
    return pa.record_batch(columns, schema=wanted)


def arrow_pieces(history: History) -> Iterator[bytes]:
    """Make an Arrow IPC stream piece by piece."""
    import pyarrow as pa

    types = schema(history)
    sink = Sink()
    with pa.ipc.new_stream(sink, types) as writer:
        for block in history.blocks():
            if block.size:
                writer.write_batch(batch(history, block, types))
            yield sink.taken()
    yield sink.taken()


class Sink:
    """A file to write to whose bytes can be taken out again."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, part: pa.Buffer) -> int:
        """Keep a part."""
        self._parts.append(bytes(part))
        return len(self._parts[-1])

    def flush(self) -> None:
        """Do nothing: there is nowhere to write to."""

    def taken(self) -> bytes:
        """Take out what was written since the last time."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def csv_header(names: Iterable[str]) -> bytes:
    """First line of a CSV."""
    return ",".join(names).encode() + b"\n"


def csv_pieces(history: History) -> Iterator[bytes]:
    """Make CSV piece by piece: a header, times as ISO 8601, decimals digit by digit."""
    names = list(history.kinds)
    yield csv_header(names)
    for block in history.blocks():
        for at in range(0, block.size, _CSV_ROWS):
            yield csv_lines(history, block.rows(at, min(at + _CSV_ROWS, block.size)), names)
        if not block.size:
            yield b""


def csv_lines(history: History, block: Block, names: Iterable[str]) -> bytes:
    """Write the lines of a block's columns."""
    import pyarrow as pa
    from pyarrow import csv

    columns = {name: _text(history, block, name) for name in names}
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.record_batch(columns), sink, csv.WriteOptions(include_header=False, quoting_style="none"))
    return bytes(sink.getvalue())


# Columns.


def _column(history: History, block: Block, field: pa.Field) -> pa.Array:
    """Turn a column into an array of a type."""
    import pyarrow as pa

    column, kind = block.columns[field.name], history.kinds[field.name]
    match kind:
        case Kind.TIME | Kind.ID:
            return _whole(block, field.name, kind).cast(field.type)
        case Kind.PRICE | Kind.SIZE:
            decimals = block.decimals(kind)
            if pa.types.is_floating(field.type):
                return pa.array(column if decimals is None else to_floats(column, decimals))
            return _exact(column, decimals or 0).cast(field.type)
        case Kind.CODE:
            return _words(history, column) if field.name == "side" else pa.array(column)


def _text(history: History, block: Block, name: str) -> pa.Array:
    """Turn a column into what CSV shows of it."""
    import pyarrow as pa

    column, kind = block.columns[name], history.kinds[name]
    match kind:
        case Kind.TIME:
            is_whole = history.is_timed and not (column % NS_PER_SECOND).any()
            return iso(_whole(block, name, kind), "s" if is_whole else "ns")
        case Kind.ID:
            return _whole(block, name, kind)
        case Kind.PRICE | Kind.SIZE:
            decimals = block.decimals(kind)
            return pa.array(column) if decimals is None else _digits(column, decimals)
        case Kind.CODE:
            return _words(history, column).cast(pa.string()) if name == "side" else pa.array(column)


def _whole(block: Block, name: str, kind: Kind) -> pa.Array:
    """Whole numbers, null where there is none."""
    import pyarrow as pa

    if _nothing(name, kind) is None:
        return pa.array(block.columns[name])
    return pa.array(block.columns[name], mask=~_known(block, name, kind))


def _exact(column: NDArray[np.int64], decimals: int) -> pa.Array:
    """Decimals of 128 bits, whose integers these are."""
    import pyarrow as pa

    words = np.empty((column.size, 2), dtype=np.int64)
    words[:, 0] = column
    words[:, 1] = column >> 63
    return pa.Array.from_buffers(pa.decimal128(_INT64_DIGITS, decimals), column.size, [None, pa.py_buffer(words)])


def _words(history: History, codes: NDArray[np.int8]) -> pa.Array:
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(codes % np.int8(3)), pa.array(history.sides))


def iso(times: pa.Array, unit: str) -> pa.Array:
    """2024-01-31T14:30:00.123456789Z, or to the second. By way of times without a zone: that needs no database."""
    import pyarrow as pa
    import pyarrow.compute as pc

    written = times.cast(pa.timestamp("ns")).cast(pa.timestamp(unit))
    return pc.binary_join_element_wise(pc.binary_replace_slice(written.cast(pa.string()), 10, 11, "T"), "Z", "")


def _digits(column: NDArray[np.int64], decimals: int) -> pa.Array:
    """Decimal text without needless zeros; Arrow's own would write 0.00000012 as 1.2E-7."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if decimals == 0:
        return pa.array(column).cast(pa.string())
    if column.size and int(column.min()) < 0:
        return pa.array([_signed(number, decimals) for number in column.tolist()], pa.string())
    whole, rest = np.divmod(column, 10**decimals)
    behind = pc.ascii_lpad(pa.array(rest).cast(pa.string()), decimals, "0")
    text = pc.binary_join_element_wise(pa.array(whole).cast(pa.string()), behind, ".")
    return pc.ascii_rtrim(pc.ascii_rtrim(text, "0"), ".")


def _signed(number: int, decimals: int) -> str:
    whole, rest = divmod(abs(number), 10**decimals)
    return f"{'-' * (number < 0)}{whole}.{rest:0{decimals}}".rstrip("0").rstrip(".")


def _known(block: Block, name: str, kind: Kind) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = block.columns[name] != _nothing(name, kind)
    return known


def _nothing(name: str, kind: Kind) -> int | None:
    """Tell what stands for no value in a column; None for columns that always have one."""
    if kind is Kind.ID:
        return NO_ID
    return UNKNOWN_NS if name == "local_timestamp" else None
