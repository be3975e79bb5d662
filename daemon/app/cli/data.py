"""`atlasd import`, `atlasd data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daemon.app.cli import importing as ticks
from daemon.app.cli import stored as look
from daemon.app.cli.options import ConfigFile, DataDir

importing = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
stored = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@importing.callback()
def _importing() -> None:
    """Bring files into the store."""


@stored.callback()
def _stored() -> None:
    """Look at what is stored."""


@importing.command("bars")
def import_bars(
    file: Annotated[
        Path, typer.Argument(help="CSV, CSV.gz or Parquet with timestamp, open, high, low, close, volume.")
    ],
    symbol: Annotated[str, typer.Option(help="What the bars are of, such as SPY.")],
    timeframe: Annotated[str, typer.Option(help="1Sec, 1Min, 5Min, 15Min, 1Hour or 1Day.")],
    venue: Annotated[str, typer.Option(help="Where it is traded; part of the instrument's key.")] = "local",
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite stored bars that differ.")] = False,  # noqa: FBT002
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Store a file's bars: all of them, or none."""
    from adapters.barfile import read_bars
    from daemon.api.protocol import iso
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.research.plans import parse_timeframe
    from daemon.store.instruments import parse_instrument

    settings = load(config)
    instrument = parse_instrument(symbol, venue)
    length = parse_timeframe(timeframe)
    table = read_bars(file)
    with wiring.writer(settings, settings.data_dir(data_dir), "import") as writer:
        report = writer.import_bars(table, instrument, length, file.name, replace=replace)
    for note in report.notes:
        typer.echo(f"note: {note}", err=True)
    parts = [f"{report.added} added"]
    parts += [
        f"{count} {word}" for count, word in ((report.unchanged, "stored already"), (report.replaced, "replaced"))
    ]
    typer.echo(
        f"{report.instrument} {report.timeframe}: {report.rows} rows from {iso(report.first_ns)} to "
        f"{iso(report.last_ns)}: {', '.join(parts)}"
    )


ticks.register(importing)
look.register(stored)
