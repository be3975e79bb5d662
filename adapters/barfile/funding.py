"""Funding rates of perpetuals from a file on disk: CSV, plain or compressed by gzip, zip or zstd.

They are few (some a day), so rows are split in Python; what a time, a number or a text is, `times`, `numbers` and
`read` say, as for bars.
"""

from __future__ import annotations

import zipfile
import zlib
from typing import TYPE_CHECKING, Final

import numpy as np

from adapters.barfile.blame import numbered_rows
from adapters.barfile.columns import Columns, canonical
from adapters.barfile.layout import find_layout
from adapters.barfile.numbers import Numbers
from adapters.barfile.read import GZIP, gunzip, refuse_unless_text, take_all
from adapters.barfile.refusals import Place, column_missing, listed, shown, unreadable, value_invalid
from adapters.barfile.times import Times, written_like
from adapters.shared.cells import cell_text, first_refused
from adapters.shared.refusals import cannot_open, refusal, require_regular_file
from daemon.core.errors import Code
from daemon.core.market import FundingTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from daemon.core.errors import SourceDataInvalid

MAX_TEXT_BYTES: Final = 64 << 20  # A century of hourly rates is less.

_ZIP: Final = b"PK"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PARQUET: Final = b"PAR1"
# Without the separators between their words: the archive of Binance writes calc_time, its interface fundingTime.
_NAMES: Final = {
    "time": ("calctime", "timestamp", "time", "fundingtime", "fundingratetimestamp", "ts", "date", "datetime"),
    "rate": ("lastfundingrate", "fundingrate", "rate"),
}


def read_funding(path: Path) -> FundingTable:
    """Read funding rates from CSV, plain, gzipped, zipped or compressed by zstd, told apart by content.

    path: a regular file with a header that names a time and a rate; other columns are ignored.
    Returns rates in file order, neither sorted nor checked against each other; every value finite, times exact; the
    line of each; notes on what was assumed.
    Raises NotFound (SOURCE_NOT_FOUND) or SourceDataInvalid (SOURCE_UNREADABLE, SOURCE_EMPTY, SOURCE_COLUMN_MISSING,
    SOURCE_VALUE_INVALID), naming the file, the first bad line and what to do.
    """
    file = require_regular_file(path)
    try:
        text = _text(path, file)
    except OSError as error:
        raise cannot_open(file, error) from None
    if not text.removeprefix(b"\xef\xbb\xbf").strip():
        raise refusal(Code.SOURCE_EMPTY, Place(file), "the file is empty; there are no funding rates to read")
    refuse_unless_text(text, file)
    layout = find_layout(text, file, _recognised, _assign)
    rows = list(numbered_rows(text, layout, file))
    if not rows:
        why = "there is nothing below the header line; there are no funding rates to read"
        raise refusal(Code.SOURCE_EMPTY, Place(file), why)
    lines = np.array([line for line, _ in rows], dtype=np.int64)
    time = _column([cells[layout.columns.time[0]] for _, cells in rows])
    rate = _column([cells[layout.columns.at["rate"]] for _, cells in rows])
    first = rows[0][1][layout.columns.time[0]]
    times = written_like(first)
    try:
        time_ns, rates = times.read(time), Numbers().read(rate)
    except ValueError as error:
        raise _fault(time, rate, times, rows, file) or unreadable(Place(file), f"not valid CSV ({error})") from None
    note = times.note(first, time_ns)
    return FundingTable(time_ns, rates, lines, () if note is None else (note,))


def _text(path: Path, file: str) -> bytearray:
    """Take the text of a file, whatever it is packed in."""
    with path.open("rb") as stream:
        magic = stream.read(len(_ZSTD))
        stream.seek(0)
        if magic.startswith(GZIP):
            return gunzip(stream, file, MAX_TEXT_BYTES)
        if magic.startswith(_ZIP):
            return _unzip(path, file)
        if magic == _ZSTD:
            return _decompress(path, file)
        if magic == _PARQUET:
            raise unreadable(Place(file), "this is Parquet; funding rates are read from CSV: save it as that")
        return take_all(stream, file, MAX_TEXT_BYTES)


def _unzip(path: Path, file: str) -> bytearray:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) != 1:
                raise unreadable(Place(file), f"the zip holds {len(members)} files; pack one CSV into it")
            with archive.open(members[0]) as stream:
                return take_all(stream, file, MAX_TEXT_BYTES)
    except EOFError:
        raise unreadable(Place(file), "the zip is cut short; fetch or write it again") from None
    # What a damaged or encrypted zip makes zipfile raise.
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, OverflowError) as error:
        why = f"this is no sound zip ({shown(str(error), 200)}); fetch or write it again"
        raise unreadable(Place(file), why) from None


def _decompress(path: Path, file: str) -> bytearray:
    import pyarrow as pa

    try:
        with pa.OSFile(str(path)) as packed, pa.CompressedInputStream(packed, "zstd") as stream:
            return take_all(stream, file, MAX_TEXT_BYTES)
    except OSError as error:
        why = f"the zstd file is damaged or cut short ({shown(str(error), 200)}); fetch or write it again"
        raise unreadable(Place(file), why) from None


def _plain(name: str) -> str:
    return canonical(name).replace("_", "")


def _recognised(names: Sequence[str]) -> int:
    return sum(_plain(name) in known for name in names for known in _NAMES.values())


def _assign(names: Sequence[str], place: Place) -> Columns:
    """Find the columns of time and rate; SourceDataInvalid SOURCE_COLUMN_MISSING for none or two of one."""
    found = {field: [at for at, name in enumerate(names) if _plain(name) in known] for field, known in _NAMES.items()}
    if missing := [field for field, positions in found.items() if not positions]:
        why = (
            f"no column for {', '.join(missing)}: the header line must name a time (timestamp, calc_time, fundingTime)"
        )
        why += f" and a rate (rate, last_funding_rate, fundingRate) (found {listed(names)})"
        raise column_missing(place, missing, why)
    for field, positions in found.items():
        if len(positions) > 1:
            rivals = listed([names[position] for position in positions])
            why = f"columns {rivals} would all be the {field}; rename or remove all but one"
            raise column_missing(place, [field], why)
    return Columns(tuple(names), {"rate": found["rate"][0]}, (found["time"][0],))


def _column(cells: list[str]) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([cells], pa.string())


def _fault(
    time: pa.ChunkedArray, rate: pa.ChunkedArray, times: Times, rows: list[tuple[int, list[str]]], file: str
) -> SourceDataInvalid | None:
    """Name the first row with a cell that its reader refuses."""
    refused = [
        (row, field, column, reader.fault)
        for field, column, reader in (("time", time, times), ("rate", rate, Numbers()))
        if (row := first_refused(column, reader.read)) is not None
    ]
    if not refused:
        return None
    row, field, column, explain = min(refused, key=lambda each: each[0])
    text = cell_text(column, row)
    return value_invalid(Place(file, rows[row][0]), field, text, explain(text or ""))
