"""Columns handed from one process to another through the data folder, named by id.

The command line reads and checks a file itself; beside a running daemon it leaves the columns here and the daemon,
the only writer, stores them. An id is random and no path, so nobody can point the daemon at another file.
"""

from __future__ import annotations

import os
import re
import uuid
from typing import TYPE_CHECKING, Final

from daemon.core.errors import Code, InvalidRequest
from daemon.core.market import Bars, BarTable, FundingTable
from daemon.store import codec
from daemon.store.env import room_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from daemon.core.ticks import Column

_ID: Final = re.compile(r"[0-9a-f]{32}")


def leave(folder: Path, table: BarTable | FundingTable) -> str:
    """Write a table's columns; returns the id. The file is readable by its user alone."""
    columns = table.bars if isinstance(table, BarTable) else (table.time_ns, table.rate)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    identity = uuid.uuid4().hex
    path = upload_path(folder, identity)
    try:
        with room_for(path), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(codec.encode_rows([*columns, table.lines]))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return identity


def take(folder: Path, identity: str, notes: Sequence[str]) -> BarTable:
    """Read and remove bars that were left; InvalidRequest for an id that nothing was left under."""
    *columns, lines = _taken(folder, identity, len(Bars._fields) + 1)
    return BarTable(Bars(*columns), lines, tuple(notes))


def take_funding(folder: Path, identity: str, notes: Sequence[str]) -> FundingTable:
    """Read and remove funding rates that were left; InvalidRequest for an id that nothing was left under."""
    time_ns, rate, lines = _taken(folder, identity, 3)
    return FundingTable(time_ns, rate, lines, tuple(notes))


def _taken(folder: Path, identity: str, count: int) -> list[Column]:
    path = found(folder, identity)
    columns = codec.decode(path.read_bytes())
    path.unlink()
    if len(columns) != count:
        why = f"upload `{identity}` holds {len(columns)} columns, not the {count} of this route"
        raise InvalidRequest(Code.INVALID_REQUEST, why, {"field": "upload"})
    return columns


def found(folder: Path, identity: str) -> Path:
    """Return where something was left under an id; InvalidRequest where nothing was."""
    path = upload_path(folder, identity) if _ID.fullmatch(identity) else None
    if path is None or not path.is_file():
        raise InvalidRequest(Code.INVALID_REQUEST, f"no upload `{identity[:40]}`", {"field": "upload"})
    return path


def upload_path(folder: Path, identity: str) -> Path:
    """Return where the upload of an id lies."""
    return folder / f"{identity}.upload"
