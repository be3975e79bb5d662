"""`atlasd import`, `atlasd data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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
    files: Annotated[
        list[Path],
        typer.Argument(
            help="CSV, CSV.gz or Parquet with timestamp, open, high, low, close, volume; archives of klines."
        ),
    ],
    symbol: Annotated[str | None, typer.Option(help="What the bars are of, such as SPY; archives say so.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="1Sec, 1Min, 5Min, 15Min, 1Hour or 1Day.")] = None,
    source: ticks.Source = None,
    venue: Annotated[str | None, typer.Option(help="Part of the instrument's key; local by default.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite stored bars that differ.")] = False,  # noqa: FBT002
    volume_unit: Annotated[
        Literal["base", "quote"] | None,
        typer.Option(help="What volumes count: base units, or quote currency; as stored without it, else base."),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Store files' bars: of each file all of them, or none."""
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.app.importing import BarsWanted, files_of, import_bar_files

    settings = load(config)
    wanted = BarsWanted(symbol, timeframe, venue, source, replace, volume_unit)
    paths = files_of(files)
    wanted.check(paths)
    with wiring.writer(settings, settings.data_dir(data_dir), "import") as writer:
        outcomes = [ticks.told(outcome, len(paths)) for outcome in import_bar_files(writer, paths, wanted)]
    if len(paths) > 1:
        ticks.sum_up(outcomes)
    if not all(outcome.succeeded for outcome in outcomes):
        raise typer.Exit(1)


@importing.command("funding")
def import_funding(
    files: Annotated[
        list[Path],
        typer.Argument(help="CSV with a time and a rate (a fraction), plain, .gz, .zip or .zst.", show_default=False),
    ],
    symbol: Annotated[str, typer.Option(help="The perpetual, as its bars or trades are called.", show_default=False)],
    venue: Annotated[
        str | None, typer.Option(help="Part of its key; that of the stored symbol by default, else local.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Overwrite stored rates that differ.")] = False,  # noqa: FBT002
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Store what a perpetual's longs paid its shorts: of each file all rates, or none."""
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.app.importing import files_of, import_funding_files

    settings = load(config)
    paths = files_of(files)
    with wiring.writer(settings, settings.data_dir(data_dir), "import") as writer:
        reports = import_funding_files(writer, paths, symbol, venue, replace=replace)
        outcomes = [ticks.told(outcome, len(paths)) for outcome in reports]
    if len(paths) > 1:
        ticks.sum_up(outcomes)
    if not all(outcome.succeeded for outcome in outcomes):
        raise typer.Exit(1)


ticks.register(importing)
look.register(stored)
