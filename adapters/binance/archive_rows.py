"""Text of an archive file to columns: ticks and bars, checked row by row.

Arrow splits and converts a block at once; prices and sizes become 128-bit decimals and, from their lower halves,
int64: no price passes through a float. Arrow does not tell what failed, so a second pass looks for the line.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from adapters.shared.arrange import Numbered
from adapters.shared.exact import decimal_rule, farthest_from_zero, mantissas, whole_numbers, whole_rule
from adapters.shared.lines import first_bad_line
from adapters.shared.refusals import Place, cell_refusal, refusal, shown
from daemon.core.errors import Code
from daemon.core.market import Bars, BarTable
from daemon.core.ticks import BUY, SELL, Stream, fewest_decimals, ticks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from adapters.binance.archive_layout import Layout
    from adapters.shared.lines import CellRule, TextBlock
    from daemon.core.errors import SourceDataInvalid
    from daemon.core.market import Int64s
    from daemon.core.ticks import Ticks

BARS_FIELDS: Final = ("open", "high", "low", "close", "volume")

_DECIMALS = 8  # What Binance writes at most; a block with more is read again, more slowly.
_WIDE_DECIMALS = 18
_PRECISION = 38
_FLAGS = {"True": True, "true": True, "False": False, "false": False}
_EARLIEST_S = 1_230_768_000  # 2009-01-01: before it there was nothing to trade.
_LATEST_S = 4_102_444_800  # 2100-01-01


class Unit(NamedTuple):
    """What a file's times count; both are told apart by magnitude, for their ranges do not touch."""

    name: str
    per_second: int

    @property
    def ns(self) -> int:
        """Nanoseconds of one."""
        return 1_000_000_000 // self.per_second

    def holds(self, counts: Int64s) -> np.ndarray:
        """Tell which counts lie in the years 2009 to 2099."""
        return (counts >= _EARLIEST_S * self.per_second) & (counts < _LATEST_S * self.per_second)


MILLISECONDS: Final = Unit("milliseconds", 1_000)
MICROSECONDS: Final = Unit("microseconds", 1_000_000)


def _flag_rule(cell: str) -> str | None:
    return None if cell in _FLAGS else "which is neither true nor false; fetch the file again"


def _float_rule(cell: str) -> str | None:
    rule = decimal_rule(cell)
    # Floats need no 64 bits' worth of digits, so only what is no number counts.
    return rule if rule and "not a number" in rule else None


_RULES: Final[dict[str, CellRule]] = {
    **dict.fromkeys(("id", "firstId", "lastId", "time", "openTime", "closeTime"), whole_rule),
    **dict.fromkeys(("price", "qty"), decimal_rule),
    **dict.fromkeys(("isBuyerMaker", "isBestMatch"), _flag_rule),
    **dict.fromkeys(BARS_FIELDS, _float_rule),
}


class RowReader:
    """Reads blocks of one file, which all count time in one unit.

    unit: None before the first block.
    """

    def __init__(self, layout: Layout, stream: Stream, file: str) -> None:
        self.unit: Unit | None = None
        self._layout = layout
        self._stream = stream
        self._file = file
        self._wrong = Code.BARS_INVALID if stream is Stream.BARS else Code.TICKS_INVALID

    def ticks(self, block: TextBlock) -> Numbered:
        """Read trades or aggTrades.

        SourceDataInvalid: SOURCE_VALUE_INVALID for a cell that is no number, SOURCE_UNREADABLE for a line of another
        width, TICKS_INVALID for times of another century or unit, prices that are not positive, sizes and ids below 0.
        """
        table, prices, sizes = self._exact(block)
        self._require_rows(table, block)
        columns = {field: _integers(table[field]) for field in _integer_fields(self._layout)}
        price, price_decimals = prices
        size, size_decimals = sizes
        checks = [
            ("id", columns["id"] < 0, "which is negative"),
            ("price", price <= 0, "which is not positive"),
            ("qty", size < 0, "which is negative"),
        ]
        if self._stream is Stream.AGG_TRADES:
            checks.append(("firstId", columns["firstId"] < 0, "which is negative"))
            checks.append(("lastId", columns["lastId"] < columns["firstId"], "which is below firstId"))
            columns = {**columns, "first_id": columns["firstId"], "last_id": columns["lastId"]}
        time_ns = self._times(columns["time"], "time", block, checks)
        maker = table["isBuyerMaker"].combine_chunks().to_numpy(zero_copy_only=False)
        named = {name: columns[name] for name in ("id", "first_id", "last_id") if name in columns}
        rows = ticks(
            self._stream,
            price_decimals=price_decimals,
            size_decimals=size_decimals,
            time_ns=time_ns,
            price=price,
            size=size,
            side=np.where(maker, np.int8(SELL), np.int8(BUY)),
            **named,
        )
        return self._numbered(rows, block)

    def bars(self, block: TextBlock) -> tuple[BarTable, Int64s]:
        """Read klines; returns the bars, and (n,) int64 how long each lasts by its own close time, in ns.

        SourceDataInvalid as of `ticks`, with BARS_INVALID for times; whether rows are bars is not looked at here.
        """
        import pyarrow as pa

        kinds = {field: pa.float64() for field in BARS_FIELDS} | {
            field: pa.int64() for field in ("openTime", "closeTime")
        }
        table = self._converted(block, kinds)
        self._require_rows(table, block)
        values = {field: np.array(table[field].combine_chunks()) for field in BARS_FIELDS}
        checks = [(field, ~np.isfinite(value), "which is not a finite number") for field, value in values.items()]
        opened, closed = _integers(table["openTime"]), _integers(table["closeTime"])
        start_ns = self._times(opened, "openTime", block, checks)
        bars = Bars(start_ns, *(values[field] for field in BARS_FIELDS))
        lines = np.arange(block.first_line, block.first_line + bars.size, dtype=np.int64)
        unit = self.unit or MILLISECONDS
        return BarTable(bars, lines, ()), (closed - opened + 1) * unit.ns

    def _exact(self, block: TextBlock) -> tuple[pa.Table, tuple[Int64s, int], tuple[Int64s, int]]:
        """Convert prices and sizes exactly: fast at eight decimals, else at as many as the block needs."""
        import pyarrow as pa

        whole = {field: pa.int64() for field in _integer_fields(self._layout)}
        flags = {field: pa.bool_() for field in self._layout.fields if field.startswith("isB")}
        try:
            table = self._read(
                block, whole | flags | dict.fromkeys(("price", "qty"), pa.decimal128(_PRECISION, _DECIMALS))
            )
            exact = [fewest_decimals(whole_numbers(table[field]), _DECIMALS) for field in ("price", "qty")]
        except (pa.ArrowInvalid, OverflowError):
            wide = dict.fromkeys(("price", "qty"), pa.decimal128(_PRECISION, _WIDE_DECIMALS))
            table = self._converted(block, whole | flags | wide)
            exact = [self._at_fewest(table, field, block) for field in ("price", "qty")]
        return table, exact[0], exact[1]

    def _at_fewest(self, table: pa.Table, field: str, block: TextBlock) -> tuple[Int64s, int]:
        try:
            (column,), decimals = mantissas([table[field]])
        except OverflowError:
            row = farthest_from_zero(table[field])
            why = "which does not fit 64 bits at the decimals that lines near it need"
            raise self._bad_row(block, row, field, why, Code.SOURCE_VALUE_INVALID) from None
        return column, decimals

    def _converted(self, block: TextBlock, kinds: dict[str, pa.DataType]) -> pa.Table:
        """Convert a block, or name the line that cannot be."""
        import pyarrow as pa

        try:
            return self._read(block, kinds)
        except pa.ArrowInvalid as error:
            fields = self._layout.fields
            rules = {place: (field, _RULES[field]) for place, field in enumerate(fields) if field in _RULES}
            fault = first_bad_line(block.numbered(), self._file, len(fields), rules, quoting=csv.QUOTE_NONE)
            why = f"not valid CSV ({shown(str(error), 200)}); fetch the file again"
            raise fault or refusal(Code.SOURCE_UNREADABLE, Place(self._file, block.first_line), why) from None

    def _read(self, block: TextBlock, kinds: dict[str, pa.DataType]) -> pa.Table:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        if b"x" in block.text or b"X" in block.text:
            raise pa.ArrowInvalid("a hexadecimal number")  # Arrow would take 0x10 for sixteen.
        return arrow_csv.read_csv(
            pa.py_buffer(block.text),
            # One thread: files are read beside each other, and what inflates them is one thread, too.
            arrow_csv.ReadOptions(column_names=self._layout.fields, use_threads=False, block_size=len(block.text) + 1),
            # A blank line counts as a row, so that rows keep the numbers of their lines; it fails to convert.
            arrow_csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            arrow_csv.ConvertOptions(
                column_types=kinds,
                include_columns=list(kinds),
                null_values=[],
                true_values=[text for text, value in _FLAGS.items() if value],
                false_values=[text for text, value in _FLAGS.items() if not value],
            ),
        )

    def _require_rows(self, table: pa.Table, block: TextBlock) -> None:
        if len(table) != block.line_count:
            why = "lines end in single carriage returns, as no archive file's do; fetch the file again"
            raise refusal(Code.SOURCE_UNREADABLE, Place(self._file, block.first_line), why)

    def _times(
        self, counts: Int64s, field: str, block: TextBlock, checks: Sequence[tuple[str, np.ndarray, str]]
    ) -> Int64s:
        """Return times in ns, once they and all other checks of the rows hold; the earliest bad row is named."""
        unit = self.unit or next((unit for unit in (MILLISECONDS, MICROSECONDS) if unit.holds(counts[:1]).all()), None)
        impossible = np.ones(counts.size, dtype=np.bool_) if unit is None else ~unit.holds(counts)
        found = [(int(np.argmax(broken)), name, why) for name, broken, why in checks if broken.any()]
        if impossible.any():
            row = int(np.argmax(impossible))
            found.append((row, field, _why_no_time(int(counts[row]), unit)))
        if found:
            raise self._bad_row(block, *min(found), self._wrong)
        self.unit = unit or MILLISECONDS
        return counts * np.int64(self.unit.ns)

    def _bad_row(self, block: TextBlock, row: int, field: str, why: str, code: Code) -> SourceDataInvalid:
        cells = block.text.split(b"\n", row + 1)[row].decode().split(",")
        text = cells[self._layout.fields.index(field)].strip()
        place = Place(self._file, block.first_line + row)
        return cell_refusal(code, place, field, text, f"{why}; fetch the file again")

    def _numbered(self, rows: Ticks, block: TextBlock) -> Numbered:
        return Numbered(rows, np.arange(block.first_line, block.first_line + rows.size, dtype=np.int64))


def _why_no_time(count: int, unit: Unit | None) -> str:
    if unit is None:
        return "which is no time between 2009 and 2100 in milliseconds or microseconds"
    other = MICROSECONDS if unit == MILLISECONDS else MILLISECONDS
    if other.holds(np.array([count])).all():
        return f"which counts {other.name} by its size, where the file's first time counts {unit.name}"
    return f"which is no time between 2009 and 2100 in {unit.name}"


def _integer_fields(layout: Layout) -> list[str]:
    return [field for field in ("id", "firstId", "lastId", "time") if field in layout.fields]


def _integers(column: pa.ChunkedArray) -> Int64s:
    # A copy, for Arrow's own memory cannot be written to.
    return np.array(column.combine_chunks(), dtype=np.int64)
