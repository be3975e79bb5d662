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
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Store files' bars: of each file all of them, or none."""
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.app.importing import BarsWanted, files_of, import_bar_files

    settings = load(config)
    wanted = BarsWanted(symbol, timeframe, venue, source, replace)
    paths = files_of(files)
    wanted.check(paths)
    with wiring.writer(settings, settings.data_dir(data_dir), "import") as writer:
        outcomes = [ticks.told(outcome, len(paths)) for outcome in import_bar_files(writer, paths, wanted)]
    if len(paths) > 1:
        ticks.sum_up(outcomes)
    if not all(outcome.succeeded for outcome in outcomes):
        raise typer.Exit(1)


ticks.register(importing)
look.register(stored)
