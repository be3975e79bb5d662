"""`atlasd export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final

import typer

from daemon.app.cli.options import ConfigFile, DataDir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from daemon.research.history import Block, History

# Rows of a row group: so few that it takes little memory, so many that readers skip what they do not need.
_GROUP_ROWS: Final = 1 << 19


class ExportFormat(StrEnum):
    """What exports are written as."""

    PARQUET = "parquet"
    CSV = "csv"


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command("export")(export)


def export(
    symbol: Annotated[str, typer.Argument(help="Whose rows.")],
    output: Annotated[Path, typer.Option(help="The file to write; it appears once it is complete.")],
    stream: Annotated[str, typer.Option(help="trades, agg_trades, quotes, depth or bars.")] = "bars",
    timeframe: Annotated[
        str | None, typer.Option(help="Of bars: 1Sec to 1Day, volume:N or notional:N; made from trades if need be.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="First day, or a time: 2024-01-31, 2024-01-31T14:30:00Z or Unix milliseconds.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Last day, included; or a time, excluded.")] = None,
    form: Annotated[
        ExportFormat | None, typer.Option("--format", help="By the file's name without it.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Write stored rows to a file, every digit of them; `atlasd import` takes it back."""
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.research.history import History, Query

    settings = load(config)
    query = Query(symbol=symbol, stream=stream, timeframe=timeframe, start=start, end=end)
    chosen = form or (ExportFormat.CSV if output.suffix.lower() == ".csv" else ExportFormat.PARQUET)
    with wiring.reader(settings, settings.data_dir(data_dir)) as store:
        history = History(store.bars, query)
        rows = _export(history, lambda: History(store.bars, query), chosen, output)
    what = f"{history.timeframe} bars" if history.timeframe else history.stream
    typer.echo(f"{rows:,} rows of {history.instrument.key} {what} written to {output}")


def _export(history: History, again: Callable[[], History], form: ExportFormat, output: Path) -> int:
    """Write a file; returns its rows. again: makes the same walk anew.

    A live series may come to have more digits between the survey and the end: it is surveyed and written again.
    """
    import pyarrow as pa

    from daemon.app.cli.output import whole_file
    from daemon.core.errors import Code, JobFailed

    write = _parquet if form is ExportFormat.PARQUET else _csv
    types: pa.Schema | None = None
    while (found := _types(again())) != types:
        types = found
        try:
            with whole_file(output, "wb") as file:
                return _filled(history, write(file, again(), types))
        except pa.ArrowInvalid:
            continue
    raise JobFailed(Code.INTERNAL, f"{history.instrument.key} {history.stream} do not fit the types {types}")


def _types(history: History) -> pa.Schema:
    """Choose a table's types: those that hold every digit of ticks need a look at all of them."""
    from daemon.core.ticks import Stream
    from daemon.research.tables import Survey, schema

    if history.stream is Stream.BARS:
        return schema(history)
    survey = Survey(history.kinds)
    for block in history.blocks():
        survey.add(block)
    return survey.schema(history)


def _filled(history: History, rows: int) -> int:
    from daemon.core.errors import Code, NotFound

    if not rows:
        raise NotFound(
            Code.NO_ROWS,
            f"{history.instrument.key} has no {history.stream} in the range asked for: there is nothing to write",
        )
    return rows


def _csv(file: IO[bytes], history: History, types: pa.Schema) -> int:
    from daemon.research.tables import csv_header, csv_lines

    rows = 0
    file.write(csv_header(types.names))
    for block in history.blocks():
        if block.size:
            file.write(csv_lines(history, block, types.names))
            rows += block.size
    return rows


def _parquet(file: IO[bytes], history: History, types: pa.Schema) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = 0
    # Times, ids and decimals of up to 18 digits are 64-bit integers in the file, and close to their neighbours.
    whole = [field.name for field in types if not (pa.types.is_floating(field.type) or _is_code(field.type))]
    options: dict[str, Any] = {
        "compression": "zstd",
        "store_decimal_as_integer": True,
        "use_dictionary": [field.name for field in types if field.name not in whole],
        "column_encoding": {name: "DELTA_BINARY_PACKED" for name in whole if _is_short(types.field(name).type)},
        "write_page_checksum": True,
    }
    with pq.ParquetWriter(file, types, **options) as writer:
        for table in _groups(history, types):
            writer.write_table(table, row_group_size=_GROUP_ROWS)
            rows += table.num_rows
    return rows


def _groups(history: History, types: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow as pa

    from daemon.research.tables import batch

    held: list[Block] = []
    for block in history.blocks():
        held.append(block)
        if sum(each.size for each in held) >= _GROUP_ROWS:
            yield pa.Table.from_batches([batch(history, each, types) for each in held], types)
            held = []
    yield pa.Table.from_batches([batch(history, each, types) for each in held], types)


def _is_code(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_dictionary(kind) or kind.bit_width == 8)  # noqa: PLR2004 - bits


def _is_short(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return not pa.types.is_decimal(kind) or kind.precision <= 18  # noqa: PLR2004 - as decimal types say
