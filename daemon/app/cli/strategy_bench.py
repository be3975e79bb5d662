"""`atlasd strategy bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daemon.app.cli.options import ConfigFile, DataDir, Format

_SUFFIX = ".py"


def register(group: typer.Typer) -> None:
    """Add the command to the strategies' group."""
    group.command("bench")(bench)


def bench(
    wanted: Annotated[str, typer.Argument(metavar="FILE|ID", help="A Python file, or one of the folder by its id.")],
    symbols: Annotated[
        int, typer.Option(min=1, max=16, help="Of the simulated market, for those that trade several.")
    ] = 1,
    depth_rows: Annotated[
        int, typer.Option(min=10_000, max=10_000_000, help="Changes of levels to simulate, a symbol.")
    ] = 500_000,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long it may take, in all.")] = 120.0,
    form: Annotated[Format, typer.Option("--format", help="How to print the figures.")] = Format.TABLE,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Measure a strategy: compiling it, first and cached, calls of each handler, a run over a simulated market."""
    from daemon.app import wiring
    from daemon.app.cli.output import emit_figures
    from daemon.app.config import load
    from daemon.research.own.folder import bounded_source

    settings = load(config)
    wiring.check_cache()
    if wanted.endswith(_SUFFIX):
        source, file = bounded_source(Path(wanted)), Path(wanted).name
    else:
        folder = wiring.strategy_folder(settings, settings.data_dir(data_dir))
        source, file = folder.read(wanted), f"{wanted}{_SUFFIX}"
    from daemon.app.bench_strategy import bench_strategy

    figures = bench_strategy(source, file, symbols=symbols, depth_rows=depth_rows, seconds=seconds)
    emit_figures(figures, form)
