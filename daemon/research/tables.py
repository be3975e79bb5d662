"""Blocks of history as Arrow tables and CSV text.

Arrow is slow to load, so everything here imports it when it is first used, which must not be on an event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from daemon.core.ticks import NO_ID, UNKNOWN_NS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from daemon.research.history import Block, History

_INT64_DIGITS: Final = 19
# Parquet keeps decimals of so many digits as plain 64-bit integers.
_SHORT_DIGITS: Final = 18
_MOST_DIGITS: Final = 38


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
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, types)
    for block in history.blocks():
        if block.size:
            writer.write_batch(batch(history, block, types))
        # What a sink was given cannot be taken out of it; the writer keeps no other state than what it has written.
        yield b""
    writer.close()
    yield sink.getvalue().to_pybytes()


def csv_pieces(history: History, names: list[str] | None = None) -> Iterator[bytes]:
    """Make CSV piece by piece: a header, times as ISO 8601, decimals digit by digit. names: some of the columns."""
    names = list(history.kinds) if names is None else names
    yield ",".join(names).encode() + b"\n"
    for block in history.blocks():
        for at in range(0, block.size, _CSV_ROWS):
            yield _csv(history, block.rows(at, min(at + _CSV_ROWS, block.size)), names)
        if not block.size:
            yield b""


_CSV_ROWS: Final = 8_192
