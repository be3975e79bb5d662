"""Ticks on their way into the store, kept in a file of the data folder until their source has proved whole.

A file's rows are written here while they are read and checked; only then does the writer take them, so that a file that
turns out to be broken leaves nothing behind. Beside a running daemon it is also how the command line hands them over:
by an id, never a path.
"""

from __future__ import annotations

import os
import struct
import uuid
from typing import TYPE_CHECKING, Final, Self

import numpy as np

from daemon.core.errors import Code, InvalidRequest, StoreCorrupt
from daemon.core.ticks import Stream, Ticks
from daemon.ingest.uploads import upload_path
from daemon.store import codec
from daemon.store.env import room_for
from daemon.store.tick_chunks import KEY_STREAMS

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_HEAD: Final = struct.Struct("<IBbb")
_FLOATS: Final = -1


class Spool:
    """A spool being written. Leaving the context by an exception, or without a row, removes the file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.identity = uuid.uuid4().hex
        self.rows = 0
        self.first_ns = self.last_ns = 0
        self._path = upload_path(folder, self.identity)
        with room_for(self._path):
            self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with room_for(self._path):
                self._file.close()
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        if kind is not None or not self.rows:
            self._path.unlink(missing_ok=True)

    def add(self, rows: Ticks) -> None:
        """Write rows behind those before."""
        if not rows.size:
            return
        value = codec.encode_rows([np.ascontiguousarray(column) for column in rows.columns])
        decimals = (_FLOATS if each is None else each for each in (rows.price_decimals, rows.size_decimals))
        with room_for(self._path):
            self._file.write(_HEAD.pack(len(value), KEY_STREAMS[rows.stream], *decimals) + value)
        first, last = int(rows.time_ns.min()), int(rows.time_ns.max())
        self.first_ns = min(first, self.first_ns) if self.rows else first
        self.last_ns = max(last, self.last_ns) if self.rows else last
        self.rows += rows.size


def blocks(path: Path, stream: Stream) -> Generator[Ticks]:
    """Read a spool's rows as written; StoreCorrupt where it is cut short, InvalidRequest of another stream."""
    with path.open("rb") as file:
        while head := file.read(_HEAD.size):
            if len(head) < _HEAD.size:
                raise StoreCorrupt(Code.STORE_CORRUPT, f"{path} is cut short")
            size, kind, price, decimals = _HEAD.unpack(head)
            if kind != KEY_STREAMS[stream]:
                raise InvalidRequest(Code.INVALID_REQUEST, f"the upload does not hold {stream}", {"field": "stream"})
            columns = codec.decode(file.read(size))
            yield Ticks(
                stream,
                tuple(columns),
                None if price == _FLOATS else price,
                None if decimals == _FLOATS else decimals,
            )
