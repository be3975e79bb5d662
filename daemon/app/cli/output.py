"""Lists to a terminal, a pipe or a file."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from daemon.research.views import Block

TABLE_ROWS: Final = 50

Columns = dict[str, list[Any]]


def emit(columns: Columns, form: str) -> None:
    """Print a short list, as table, json or csv."""
    if form == "json":
        import msgspec

        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        typer.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    elif form == "csv":
        _csv(sys.stdout, [columns])
    else:
        _table([columns])


def emit_figures(figures: Mapping[str, Any], form: str) -> None:
    """Print a bench's figures; json is one flat object."""
    if form == "json":
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(figures), indent=2).decode())
    else:
        emit({"figure": list(figures), "value": list(figures.values())}, form)


def emit_blocks(blocks: Iterator[Block], names: Sequence[str], form: str, output: Path | None) -> int:
    """Write rows block by block; returns how many.

    names: the columns, for a list without rows. output: a file, written whole or not at all; None for stdout.
    """
    if form == "parquet":
        if output is None:
            raise typer.BadParameter("parquet is written to a file: give --output FILE")
        return _parquet(blocks, names, output)
    if form == "table" and output is None:
        from daemon.research.views import texts

        return _table(texts(block) for block in blocks)
    if output is None:
        return _write(blocks, names, form, sys.stdout)
    with whole_file(output, "w") as file:
        return _write(blocks, names, "csv" if form == "table" else form, file)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that appears under its name once it is complete."""
    with whole_file(path, "w" if isinstance(content, str) else "wb") as file:
        file.write(content)


def _write(blocks: Iterator[Block], names: Sequence[str], form: str, file: IO[str]) -> int:
    from daemon.research.views import texts

    plain = (texts(block) for block in blocks)
    return _json(file, plain) if form == "json" else _csv(file, plain, names)


def _csv(file: IO[str], blocks: Iterable[Columns], names: Sequence[str] | None = None) -> int:
    import csv

    writer = csv.writer(file, lineterminator="\n")
    rows = 0
    for block in blocks:
        if rows == 0:
            writer.writerow(block)
        writer.writerows(zip(*block.values(), strict=True))
        rows += len(next(iter(block.values())))
    if rows == 0 and names is not None:
        writer.writerow(names)
    return rows


def _json(file: IO[str], blocks: Iterable[Columns]) -> int:
    import msgspec

    rows = 0
    file.write("[")
    for block in blocks:
        for row in zip(*block.values(), strict=True):
            file.write(",\n" if rows else "\n")
            file.write(msgspec.json.encode(dict(zip(block, row, strict=True))).decode())
            rows += 1
    file.write("\n]\n")
    return rows


def _table(blocks: Iterable[Columns]) -> int:
    """Draw the first rows; says on stderr where it cut."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    from daemon.app.cli.printing import clean

    table = Table(box=None, pad_edge=False, header_style="bold")
    rows, cut = 0, False
    for block in blocks:
        if rows == 0:
            for name, column in block.items():
                is_number = isinstance(next((value for value in column if value is not None), None), (int, float))
                table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
        for row in zip(*block.values(), strict=True):
            if rows == TABLE_ROWS:
                cut = True
                break
            table.add_row(*(Text(clean(_cell(value))) for value in row))
            rows += 1
        if cut:
            break
    if rows == 0:
        typer.echo("nothing to list", err=True)
        return 0
    console = Console()
    needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    Console(width=max(console.width, needed), soft_wrap=True).print(table)
    if cut:
        typer.echo(f"cut at {TABLE_ROWS} rows: --format csv or json shows all", err=True)
    return rows


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def _parquet(blocks: Iterator[Block], names: Sequence[str], output: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from daemon.core.errors import Code, NotFound

    rows = 0
    writer: pq.ParquetWriter | None = None
    with whole_file(output, "wb") as file:
        for block in blocks:
            table = pa.table({name: _arrow(column) for name, column in block.items()})
            writer = writer or pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
            rows += table.num_rows
        if writer is None:
            raise NotFound(Code.NO_ROWS, f"there are no rows to write ({', '.join(names[:3])}, …): parquet needs one")
        writer.close()
    return rows


def _arrow(column: Any) -> Any:
    """Convert a column; times leave as UTC timestamps, not as times of nowhere, NaN as null."""
    import pyarrow as pa

    if column.dtype == "datetime64[ns]":
        return pa.array(column).cast(pa.timestamp("ns", tz="UTC"))
    return pa.array(column, from_pandas=True)


@contextmanager
def whole_file(path: Path, mode: str) -> Iterator[IO[Any]]:
    """Open a file that appears under its name once it is complete; a failure leaves nothing behind."""
    from daemon.core.errors import Code, ConfigError

    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise ConfigError(
            Code.OUTPUT_UNWRITABLE,
            f"{path} cannot be written: {error.strerror or error}; choose another --output",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
