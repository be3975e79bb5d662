"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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
