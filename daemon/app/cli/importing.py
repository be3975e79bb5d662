"""`atlasd import trades`, `quotes`, `depth`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from daemon.app.cli.options import ConfigFile, DataDir

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.app.fetching import NoFile
    from daemon.app.importing import Outcome
    from daemon.ingest.bars import ImportReport
    from daemon.ingest.funding import FundingReport


class FileSource(StrEnum):
    """Where files of ticks come from."""

    BINANCE_ARCHIVE = "binance-archive"
    BINANCE_STREAM = "binance-stream"
    CSV = "csv"
    PARQUET = "parquet"


Files = Annotated[list[Path], typer.Argument(help="Files, folders or patterns.", show_default=False)]
Source = Annotated[
    FileSource | None,
    typer.Option(help="What kind of files they are; told by their names without it.", show_default=False),
]
Symbol = Annotated[
    str | None,
    typer.Option(help="What the rows are of, such as BTCUSDT or BTCUSDT-PERP; archives say so themselves."),
]
Venue = Annotated[str | None, typer.Option(help="Part of the instrument's key; binance or local by default.")]
Only = Annotated[bool, typer.Option("--only", help="Of a recording the depth alone, not its trades too.")]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite stored rows that differ.")]


_STREAMS: Final = {
    "trades": "Store trades: of archives, captures, CSV or Parquet. Files that were imported before are skipped.",
    "agg_trades": "Store aggregate trades, with their own ids: of archives, captures, CSV or Parquet.",
    "quotes": "Store quotes: best bid and ask, of captures, CSV or Parquet.",
    "depth": "Store the book: snapshots and changes of its levels, of captures (with their trades), CSV or Parquet.",
}


def register(importing: typer.Typer) -> None:
    """Add this module's commands: one a stream, all with the same options."""
    for stream, words in _STREAMS.items():
        importing.command(stream, help=words)(_of_depth if stream == "depth" else _command(stream))


def _command(stream: str) -> Callable[..., None]:
    def command(
        files: Files,
        source: Source = None,
        symbol: Symbol = None,
        venue: Venue = None,
        replace: Replace = False,  # noqa: FBT002 - typer's flags
        data_dir: DataDir = None,
        config: ConfigFile = None,
    ) -> None:
        wanted = (symbol, venue, source, replace)
        _import(stream, files, wanted, data_dir, config)

    return command


def _of_depth(
    files: Files,
    source: Source = None,
    symbol: Symbol = None,
    venue: Venue = None,
    replace: Replace = False,  # noqa: FBT002 - typer's flags
    only: Only = False,  # noqa: FBT002
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    _import("depth", files, (symbol, venue, source, replace, only), data_dir, config)


def _import(
    stream: str,
    files: list[Path],
    wanted: tuple[Any, ...],
    data_dir: Path | None,
    config: Path | None,
) -> None:
    from daemon.app import wiring
    from daemon.app.config import load
    from daemon.app.importing import Wanted, files_of, import_files
    from daemon.core.ticks import Stream

    settings = load(config)
    paths = files_of(files)
    asked = Wanted(Stream(stream), *wanted)
    with wiring.writer(settings, settings.data_dir(data_dir), "import") as writer, progress_bar(len(paths)) as progress:
        outcomes = [told(outcome, len(paths)) for outcome in import_files(writer, paths, asked, progress)]
    if len(paths) > 1:
        sum_up(outcomes, len(paths))
    if not all(outcome.succeeded for outcome in outcomes):
        raise typer.Exit(1)


class progress_bar:  # noqa: N801 - a context, used like a function
    """Show how far an import is, on a terminal's stderr; told the file and how many more rows of it were read."""

    def __init__(self, files: int) -> None:
        self._files = files
        self._rows = 0
        self._seen: set[Path] = set()
        self._bar: Any = None

    def __enter__(self) -> Callable[[Path, int], None]:
        import sys

        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[rows]:,} rows"),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=self._files, rows=0)
            self._bar.start()
        return self._advance

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _advance(self, path: Path, rows: int) -> None:
        self._rows += rows
        self._seen.add(path)
        if self._bar is not None:
            self._bar.update(self._task, description=path.name, completed=len(self._seen) - 1, rows=self._rows)


class Told:
    """An outcome that has been printed, for the sum at the end."""

    def __init__(self, outcome: Outcome | ImportReport | FundingReport | NoFile) -> None:
        from daemon.app.importing import KeptOut

        self.succeeded = not isinstance(outcome, KeptOut)
        self.rows = getattr(outcome, "rows", 0)
        self.added = getattr(outcome, "added", 0)
        self.repeated = getattr(outcome, "repeated", 0)
        self.replaced = getattr(outcome, "replaced", 0)


def told(outcome: Outcome | ImportReport | FundingReport | NoFile, files: int) -> Told:
    """Print what became of a file, or of a part of a fetch."""
    from daemon.api.messages import iso
    from daemon.app.fetching import NoFile
    from daemon.app.importing import KeptOut, Unchanged
    from daemon.ingest.bars import ImportReport
    from daemon.ingest.funding import FundingReport

    if isinstance(outcome, NoFile):
        typer.echo(f"{outcome.day}: the venue has nothing")
    elif isinstance(outcome, ImportReport | FundingReport):
        for note in outcome.notes:
            typer.echo(f"note: {note}", err=True)
        parts = [f"{outcome.added} added"]
        counts = ((outcome.unchanged, "stored already"), (outcome.replaced, "replaced"))
        parts += [f"{count} {word}" for count, word in counts if count]
        what = outcome.timeframe if isinstance(outcome, ImportReport) else "funding"
        typer.echo(
            f"{outcome.instrument} {what}: {outcome.rows} rows from {iso(outcome.first_ns)} to "
            f"{iso(outcome.last_ns)}: {', '.join(parts)}"
        )
    elif isinstance(outcome, KeptOut):
        typer.echo(f"error: {outcome.error.message} [{outcome.error.code}]", err=True)
    elif isinstance(outcome, Unchanged):
        what = outcome.name if outcome.stream is None else f"{outcome.name} {outcome.stream}"
        typer.echo(f"{what}: imported before")
    else:
        for note in outcome.notes:
            typer.echo(f"note: {outcome.source}: {note}", err=True)
        parts = [f"{outcome.added:,} added"]
        counts = ((outcome.repeated, "stored already"), (outcome.replaced, "replaced"))
        parts += [f"{count:,} {word}" for count, word in counts if count]
        if outcome.open_holes:
            parts.append(f"{outcome.open_holes} known holes (`atlasd data gaps`)")
        head = f"{outcome.source}: " if files > 1 else ""
        typer.echo(
            f"{head}{outcome.instrument} {outcome.stream}: {outcome.rows:,} rows from {iso(outcome.first_ns)} to "
            f"{iso(outcome.last_ns)}: {', '.join(parts)}"
        )
    return Told(outcome)


def sum_up(outcomes: list[Told], files: int | None = None) -> None:
    """Print the sum of several outcomes. files: how many they are of, None for one each."""
    rows, added, repeated, replaced = (
        sum(getattr(outcome, name) for outcome in outcomes) for name in ("rows", "added", "repeated", "replaced")
    )
    kept_out = sum(not outcome.succeeded for outcome in outcomes)
    count = len(outcomes) if files is None else files
    typer.echo(
        f"{count} files, {rows:,} rows: {added:,} added, {repeated:,} stored already, {replaced:,} replaced; "
        f"{kept_out} files kept out"
    )
