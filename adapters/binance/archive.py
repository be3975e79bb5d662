"""Files of Binance's public archive: trades, aggTrades and klines of spot, USD-M and COIN-M futures.

`open_archive(path)` is the whole interface. `archive_names` reads the file's name, `archive_zip` its checksum and zip,
`archive_layout` finds the columns, `archive_rows` converts them; here it all becomes one file of ticks or bars.

What is in the files and not kept: quoteQty and baseQty of trades, which is price times quantity, the best-match flag,
which is always true, and the count and the taker's share of klines. A buyer who is the maker means that the taker
sold. Quantities of 0 are kept and counted: Binance has published months of USD-M aggTrades in which thousands of
quantities were lost (binance-public-data issues 263 and 342), and their prices and ids are as good as any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from adapters.binance.archive_layout import find_layout
from adapters.binance.archive_names import STREAMS, agree, read_name
from adapters.binance.archive_rows import MICROSECONDS, RowReader
from adapters.binance.archive_zip import Member, verify
from adapters.binance.config import Market
from adapters.shared.arrange import Arranger, gathered
from adapters.shared.lines import MAX_LINE_BYTES, text_blocks
from adapters.shared.refusals import Place, refusal, require_regular_file, shown
from daemon.core.errors import Code
from daemon.core.ports import Hole, HoleReason
from daemon.core.ticks import SELL, Stream

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from adapters.binance.archive_layout import Layout
    from adapters.binance.archive_names import ArchiveName
    from adapters.shared.arrange import Numbered
    from adapters.shared.lines import TextBlock
    from daemon.core.market import BarTable, Int64s, Timeframe, TsNs
    from daemon.core.ports import Verification
    from daemon.core.ticks import Ticks

MAX_BARS: Final = 10_000_000  # A month of 1s klines is 2.7 million; the starts of all are kept to find the missing.

_ONE_SIDED_ROWS = 1_000  # From so many on, one side for all is no accident.


def open_archive(path: Path) -> ArchiveFile:
    """Open a file of the archive; its CHECKSUM, where one lies beside it, is compared first.

    path: a zip named as published, or holding a CSV so named.
    Raises NotFound SOURCE_NOT_FOUND, or SourceDataInvalid: CHECKSUM_DIFFERS, SOURCE_UNREADABLE (no sound zip of one
    CSV, a name that tells nothing, a kind or interval that is not read), SOURCE_EMPTY, SOURCE_COLUMN_MISSING.
    """
    file = require_regular_file(path)
    sha256, verification = verify(path, file)
    member = Member(path, file)
    name = _name(path, member, file)
    with member:
        line = member.read_line(MAX_LINE_BYTES)
        rest = member.read(1)
    if not line.endswith(b"\n") and rest:
        why = f"no line end in the first {MAX_LINE_BYTES:,} bytes: this is no file of {name.kind}; download it again"
        raise refusal(Code.SOURCE_UNREADABLE, Place(file, 1), why)
    layout = find_layout(line.decode(errors="replace"), name, path, file)
    if layout.body_line > 1 and not rest:
        raise refusal(Code.SOURCE_EMPTY, Place(file), "there is nothing below the header line; download it again")
    return ArchiveFile(file, sha256, verification, name, layout, member)


def _name(path: Path, member: Member, file: str) -> ArchiveName:
    """Read the zip's name or its member's; both must agree, or one of them belongs to another file."""
    outer = read_name(path.name.removesuffix(".zip"), file)
    inner = read_name(member.name.removesuffix(".csv"), file)
    if outer and inner and not agree(outer, inner):
        why = f"it holds {shown(member.name)}: a file renamed, or put into the wrong zip; name it as its content is"
        raise refusal(Code.SOURCE_UNREADABLE, Place(file), why)
    name = inner if outer is None or outer.start_ns is None else outer
    if name is None:
        why = "its name tells no symbol and kind; name it as published, such as BTCUSDT-trades-2024-08-09.zip"
        raise refusal(Code.SOURCE_UNREADABLE, Place(file), why)
    return name


class ArchiveFile:
    """An archive file, opened; a TickFile where it holds trades or aggTrades.

    market: None for klines that do not show theirs before they are read, and perhaps not then.
    kind: "trades", "aggTrades", "klines". timeframe: of klines. start_ns, stop_ns: the day or month of the name.
    `blocks` or `bars` is read once, to its end; `notes` and `holes` are complete then.
    """

    def __init__(
        self, name: str, sha256: str, verification: Verification, told: ArchiveName, layout: Layout, member: Member
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.verification = verification
        self.notes: list[str] = []
        self.holes: list[Hole] = []
        self.market: Market | None = layout.market
        self.kind: str = told.kind
        self.stream: Stream = STREAMS[told.kind]
        self.symbol: str = told.symbol
        self.timeframe: Timeframe | None = told.timeframe
        self.start_ns: TsNs | None = told.start_ns
        self.stop_ns: TsNs | None = told.stop_ns
        self._layout = layout
        self._member = member
        self._reader = RowReader(layout, self.stream, name)
        self._elsewhere = 0

    def blocks(self) -> Generator[Ticks, None, None]:
        """Yield rows of trades or aggTrades, in order of time as far as neighbouring blocks tell.

        Rows of another day than the name's are kept, repeats are dropped, both are counted in `notes`. Repeats
        further apart than two blocks, and holes in the ids, are for the store to find.
        SourceDataInvalid as of `RowReader.ticks`, SOURCE_UNREADABLE where the zip's content is damaged, and
        TICKS_INVALID where an id repeats with other values. ValueError for klines.
        """
        if self.stream is Stream.BARS:
            raise ValueError(f"{self.name} holds klines, not ticks")
        arranger = Arranger(self.name)
        tally = _Tally()
        with self._member:
            for block in arranger.arrange(gathered(self._numbered(), self.name)):
                tally.add(block)
                yield block.rows
        self._note(arranger.out_of_order, "rows stood below rows of a later time or id: sorted")
        self._note(arranger.repeated, "rows repeated another row of the file in every value: dropped")
        self._note_elsewhere()
        self.notes += tally.notes(ordered=not arranger.out_of_order)

    def bars(self) -> Iterator[BarTable]:
        """Yield klines in the file's order; volume is in the base asset.

        Intervals of the day or month without a row become holes. SourceDataInvalid as of `RowReader.bars`, and
        SOURCE_UNREADABLE for more than MAX_BARS rows. ValueError for files of trades.
        """
        if self.timeframe is None:
            raise ValueError(f"{self.name} holds {self.kind}, not klines")
        starts: list[Int64s] = []
        irregular = 0
        with self._member:
            for block in self._text():
                table, lengths = self._reader.bars(block)
                starts.append(table.bars.start_ns)
                if sum(each.size for each in starts) > MAX_BARS:
                    why = f"more than {MAX_BARS:,} rows, as no archive file has; download it again"
                    raise refusal(Code.SOURCE_UNREADABLE, Place(self.name, int(table.lines[-1])), why)
                irregular += int(np.count_nonzero(lengths != self.timeframe.ns))
                self._count_elsewhere(table.bars.start_ns)
                yield table
        if self.market is None and self._reader.unit == MICROSECONDS:
            self.market = Market.SPOT  # Futures count milliseconds.
        self.holes += _missing(np.concatenate(starts), self.timeframe.ns, self.start_ns, self.stop_ns)
        self._note(irregular, f"klines do not last {self.timeframe} by their close time: kept")
        self._note_elsewhere()

    def _text(self) -> Iterator[TextBlock]:
        if self._layout.body_line > 1:
            self._member.read_line(MAX_LINE_BYTES)
        yield from text_blocks(self._member.read, self.name, self._layout.body_line)

    def _numbered(self) -> Iterator[Numbered]:
        for block in self._text():
            numbered = self._reader.ticks(block)
            self._count_elsewhere(numbered.rows.time_ns)
            yield numbered

    def _count_elsewhere(self, time_ns: Int64s) -> None:
        if self.start_ns is None or self.stop_ns is None:
            return
        if time_ns.min() < self.start_ns or time_ns.max() >= self.stop_ns:
            inside = (time_ns >= self.start_ns) & (time_ns < self.stop_ns)
            self._elsewhere += int(np.count_nonzero(~inside))

    def _note_elsewhere(self) -> None:
        self._note(self._elsewhere, "rows are of another time than the file's name says: kept")

    def _note(self, count: int, what: str) -> None:
        if count:
            self.notes.append(f"{count:,} {what}")


class _Tally:
    """Counts what is odd about the rows as a whole."""

    def __init__(self) -> None:
        self._rows = 0
        self._sold = 0
        self._without_size = 0
        self._jumps = 0
        self._skipped = 0
        self._last_id: int | None = None

    def add(self, block: Numbered) -> None:
        """Count a block's rows."""
        rows = block.rows
        self._rows += rows.size
        self._sold += int(np.count_nonzero(rows.column("side") == SELL))
        self._without_size += rows.size - int(np.count_nonzero(rows.column("size")))
        ids = rows.column("id")
        before = ids[:1] - 1 if self._last_id is None else np.array([self._last_id])
        steps = np.diff(ids, prepend=before) - 1
        self._jumps += int(np.count_nonzero(steps))
        self._skipped += int(steps.sum())
        self._last_id = int(ids[-1])

    def notes(self, *, ordered: bool) -> list[str]:
        """Say what was odd. ordered: whether rows came in order; ids of others jump without anything missing."""
        said = []
        if self._without_size:
            said.append(
                f"{self._without_size:,} rows have a quantity of 0, kept: volume is understated by what they lost"
            )
        if ordered and self._jumps:
            said.append(f"ids jump at {self._jumps:,} places, {self._skipped:,} ids are not in the file")
        if self._rows >= _ONE_SIDED_ROWS and self._sold in {0, self._rows}:
            side = "seller" if self._sold else "buyer"
            said.append(f"the taker is the {side} in all {self._rows:,} rows: the file's isBuyerMaker is likely wrong")
        return said


def _missing(starts: Int64s, step_ns: int, start_ns: TsNs | None, stop_ns: TsNs | None) -> list[Hole]:
    """Find intervals without a row between the bars, and between them and the ends of the file's span."""
    grid = starts // step_ns * step_ns
    if start_ns is not None and stop_ns is not None:
        edges = np.array([start_ns - step_ns, stop_ns], dtype=np.int64)
        grid = np.concatenate([edges, grid[(grid >= start_ns) & (grid < stop_ns)]])
    grid = np.sort(grid, kind="stable")
    gaps = np.flatnonzero(np.diff(grid) > step_ns)
    return [
        Hole(
            start_ns=int(grid[gap]),
            stop_ns=int(grid[gap + 1]),
            reason=HoleReason.MISSING_BARS,
            missing=int(grid[gap + 1] - grid[gap]) // step_ns - 1,
        )
        for gap in gaps
    ]
