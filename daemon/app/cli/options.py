"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import typer
from typer.core import TyperGroup

_RUN: Final = "run"


class Format(StrEnum):
    """How lists are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class FileFormat(StrEnum):
    """How results are printed or written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", envvar="ATLASD_DATA_DIR", help="Folder of store, logs and locks.", show_default=False),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="A config.toml that goes over your own.", show_default=False)
]
Listing = Annotated[Format, typer.Option("--format", help="How to print the list.")]


class RunOrCommand(TyperGroup):
    """A group whose first word is a command of its own, or else the argument of its command `run`: a configuration."""

    argument: ClassVar[str] = "CONFIG.json"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the command that may be left out."""
        if args and args[0] not in self.commands and args[0] not in self.get_help_option_names(ctx):
            args = [_RUN, *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, _ctx: Any) -> list[str]:
        """Say both forms."""
        return [f"{self.argument} [OPTIONS] | COMMAND ..."]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List the options of the command that may be left out as well."""
        records = [parameter.get_help_record(ctx) for parameter in self.commands[_RUN].get_params(ctx)]
        with formatter.section(f"Options of {self.argument} (`{_RUN}` may be left out)"):
            formatter.write_dl([each for each in records if each is not None])
        super().format_options(ctx, formatter)
