"""The LMDB environment: opened once a process, one writer, many readers, every error translated.

Reads see a snapshot and never wait. A write is a function of a transaction, because growing the map means aborting,
resizing and running it again. The map grows only here, by the single writer, with no transaction of this process open;
other processes notice (`MapResizedError`) and follow. On Linux and macOS the map starts at 1 TiB, a sparse file that
costs nothing, so growing is for Windows, which allocates the whole map.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final, Self, TypeVar, cast

import lmdb
import msgspec
from msgspec import Meta

from daemon.core.errors import AtlasError, Code, ConfigError, StoreCorrupt, StoreFull
from daemon.store.pages import MappedPages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

SCHEMA: Final = 2
# Schema 1 had no ticks: it is 2 with `tail` and `ledger` empty. The journal came without a schema of its own: a release
# that does not know it reads everything else, and adds no facts.
_UPGRADED: Final = (1,)
FILE_NAME: Final = "atlas.lmdb"

DATABASES: Final = ("meta", "instruments", "series", "chunks", "documents", "results", "tail", "ledger", "journal")
_SCHEMA_KEY: Final = b"schema"
# Above all that follows a prefix: keys are shorter than this.
_ABOVE: Final = b"\xff" * 64
_CLOSE_S: Final = 10.0
_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
_TIB: Final = 1 << 40
_FULL_NUMBERS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# LMDB gives the system's words, not its number. A write that a full disk cuts short is EIO to it.
_FULL: Final = tuple(os.strerror(number) for number in (*_FULL_NUMBERS, errno.EIO))


class StoreConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Section `[store]` of config.toml.

    map_mb: address space to start with, MiB; 0 picks 1 TiB where the file is sparse, 64 MiB on Windows.
    max_map_gb: the map is never larger, GiB. sync: flush to disk at every commit.
    """

    map_mb: Annotated[int, Meta(ge=0)] = 0
    max_map_gb: Annotated[int, Meta(ge=1, le=65_536)] = 4_096
    sync: bool = True

    @property
    def map_bytes(self) -> int:
        """Size to open with."""
        chosen = self.map_mb * _MIB or (64 * _MIB if sys.platform == "win32" else _TIB)
        return min(chosen, self.max_map_bytes)

    @property
    def max_map_bytes(self) -> int:
        """Size to grow to."""
        return self.max_map_gb * _GIB


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Write a file beside the store; StoreFull STORE_FULL where the disk has no room for it."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_NUMBERS:
            raise StoreFull(Code.STORE_FULL, f"no room on the disk for {path}: make room, run again") from error
        raise


class Transaction:
    """A snapshot to read from, or a change to be committed whole; valid inside its `with` or function only."""

    def __init__(self, raw: lmdb.Transaction, databases: dict[str, lmdb._Database], pages: MappedPages) -> None:
        self._raw = raw
        self._databases = databases
        self._pages = pages

    @property
    def snapshot(self) -> int:
        """Number of the last commit that it sees: equal numbers, equal contents. Of snapshots to read from."""
        return int(self._raw.id())

    def get(self, database: str, key: bytes) -> memoryview | None:
        """Return a value as a view into the map, valid until the transaction ends."""
        if database not in self._databases:
            return None
        value = cast("memoryview | None", self._raw.get(key, db=self._databases[database]))
        if value is not None:
            self._pages.touched(len(value))
        return value

    def put(self, database: str, key: bytes, value: bytes | memoryview) -> None:
        """Insert or replace."""
        self._raw.put(key, value, db=self._databases[database])

    def delete(self, database: str, key: bytes) -> bool:
        """Remove a key; False where it did not exist."""
        return bool(self._raw.delete(key, db=self._databases[database]))

    def scan(self, database: str, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, memoryview]]:
        """Walk the keys with a prefix in byte order, from `start` where given. Do not write while walking."""
        if database not in self._databases:
            return
        with self._raw.cursor(db=self._databases[database]) as cursor:
            if not cursor.set_range(start if start is not None else prefix):
                return
            for view, value in cursor.iternext():
                key = bytes(view)
                if not key.startswith(prefix):
                    return
                self._pages.touched(len(value))
                yield key, cast("memoryview", value)

    def scan_back(self, database: str, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
        """Walk the keys with a prefix from the last to the first. Do not write while walking."""
        if database not in self._databases:
            return
        with self._raw.cursor(db=self._databases[database]) as cursor:
            if not (cursor.prev() if cursor.set_range(prefix + _ABOVE) else cursor.last()):
                return
            for view, value in cursor.iterprev():
                key = bytes(view)
                if not key.startswith(prefix):
                    return
                self._pages.touched(len(value))
                yield key, cast("memoryview", value)

    def prefetch(self, value: memoryview) -> None:
        """Have the system read a value, and what lies behind it in the file, while the caller does something else."""
        self._pages.prefetch(value)

    def floor(self, database: str, prefix: bytes, key: bytes) -> bytes | None:
        """Return the greatest key with the prefix that is not above `key`."""
        if database not in self._databases:
            return None
        with self._raw.cursor(db=self._databases[database]) as cursor:
            if cursor.set_range(key):
                if bytes(cursor.key()) == key:
                    return key
                found = cursor.prev()
            else:
                found = cursor.last()
            candidate = bytes(cursor.key()) if found else b""
        return candidate if candidate.startswith(prefix) and found else None


class Environment:
    """One open store. Open a path once a process: LMDB's locks break otherwise."""

    def __init__(self, directory: Path, config: StoreConfig, *, readonly: bool = False) -> None:
        self.path = directory / FILE_NAME
        self._config = config
        self._write_lock = threading.Lock()
        self._readers = 0
        self._resizes_waiting = 0
        self._quiet = threading.Condition()
        self._pages = MappedPages(self.path)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise self._translate(error) from error
        with self._translated():
            self._env = lmdb.open(
                str(self.path),
                subdir=False,
                readonly=readonly,
                map_size=config.map_bytes if not readonly else 0,
                max_dbs=16,
                max_readers=512,
                sync=config.sync,
                metasync=config.sync,
                mode=0o600,
                lock=True,
            )
        self._databases: dict[str, lmdb._Database] = {}
        try:
            self._prepare(readonly=readonly)
        except BaseException:
            self._env.close()
            raise

    def close(self) -> None:
        """Close, once other threads have ended what they read and write; later calls fail with STORE_UNUSABLE.

        A transaction that does not end in time keeps the store open: closing under it would end the process.
        """
        with self._write_lock, self._quiet:
            self._resizes_waiting += 1  # no new snapshots meanwhile
            try:
                if self._quiet.wait_for(lambda: self._readers == 0, _CLOSE_S):
                    self._env.close()
            finally:
                self._resizes_waiting -= 1
                self._quiet.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Open a snapshot, one a thread at a time. Keep it short: a pinned snapshot makes the file grow."""
        with self._translated():
            raw = self._begin_read()
            try:
                with raw:
                    yield Transaction(raw, self._databases, self._pages)
            finally:
                with self._quiet:
                    self._readers -= 1
                    self._quiet.notify_all()

    def write(self, action: Callable[[Transaction], T]) -> T:
        """Run `action` in a transaction and commit; on any error nothing of it is kept.

        The action may run again after the map has grown, so it changes nothing but the store.
        """
        with self._write_lock, self._translated():
            while True:
                try:
                    with self._env.begin(write=True, buffers=True) as raw:
                        return action(Transaction(raw, self._databases, self._pages))
                except lmdb.MapFullError:
                    self._grow()
                except lmdb.MapResizedError:
                    self._resize(0)

    def size_bytes(self) -> int:
        """Bytes of the file that hold pages in use."""
        with self._translated():
            return (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]

    def map_bytes(self) -> int:
        """Bytes of address space that the store is opened with now; it grows to `StoreConfig.max_map_bytes`."""
        with self._translated():
            return int(self._env.info()["map_size"])

    @property
    def most_bytes(self) -> int:
        """Bytes that the store may grow to."""
        return self._config.max_map_bytes

    def database_bytes(self, database: str) -> int:
        """Bytes of the pages that one database takes, its large values included."""
        with self._translated(), self._env.begin(db=self._databases[database]) as raw:
            stat = raw.stat(self._databases[database])
        return int(stat["psize"] * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]))

    # Internals.

    def _prepare(self, *, readonly: bool) -> None:
        with self._translated():
            self._env.reader_check()
            for name in DATABASES:
                try:
                    self._databases[name] = self._env.open_db(name.encode(), create=not readonly)
                except lmdb.NotFoundError:
                    continue  # a store whose first write has not happened reads as empty
        with self.read() as transaction:
            stored = transaction.get("meta", _SCHEMA_KEY)
            version = int.from_bytes(stored, "big") if stored is not None else None
        if (version is None or version in _UPGRADED) and not readonly:
            self.write(lambda transaction: transaction.put("meta", _SCHEMA_KEY, SCHEMA.to_bytes(4, "big")))
        elif version is not None and version not in (SCHEMA, *_UPGRADED):
            raise ConfigError(
                Code.STORE_SCHEMA,
                f"{self.path} has schema {version}, this release reads up to {SCHEMA}: use the release that wrote it, "
                "or another --data-dir",
            )

    def _begin_read(self) -> lmdb.Transaction:
        """Begin and count a snapshot, after any resize that waits: readers without a pause must not starve it.

        Who has no snapshot yet is not counted, or two would wait for each other to resize.
        """
        with self._quiet:
            while True:
                self._quiet.wait_for(lambda: self._resizes_waiting == 0)
                try:
                    raw = self._env.begin(buffers=True)
                except lmdb.MapResizedError:
                    self._resize(0)
                else:
                    self._readers += 1
                    return raw

    def _grow(self) -> None:
        size = self._env.info()["map_size"]
        limit = self._config.max_map_bytes
        if size >= limit:
            raise StoreFull(
                Code.STORE_FULL,
                f"{self.path} reached its limit of {self._config.max_map_gb} GB; nothing of this write was kept. "
                "Raise store.max_map_gb or delete runs",
            )
        self._resize(min(size * 2, limit))

    def _resize(self, size: int) -> None:
        """Set the map's size (0: as another process left it) once no snapshot is open."""
        with self._quiet:
            self._resizes_waiting += 1
            try:
                self._quiet.wait_for(lambda: self._readers == 0)
                self._env.set_mapsize(size)
            finally:
                self._resizes_waiting -= 1
                self._quiet.notify_all()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate LMDB's errors only: the caller's own, such as a closed pipe, are not the store's."""
        try:
            yield
        except lmdb.Error as error:
            raise self._translate(error) from error

    def _translate(self, error: Exception) -> AtlasError:
        text = str(error)
        if isinstance(error, lmdb.DiskError) or any(words in text for words in _FULL):
            return StoreFull(
                Code.STORE_FULL,
                f"no room on the disk for {self.path} ({text}); nothing of this write was kept: make room, retry",
            )
        if isinstance(error, (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.PanicError)):
            return StoreCorrupt(Code.STORE_CORRUPT, f"{self.path} is damaged ({text}): restore a copy of it")
        # py-lmdb recognises some formats itself, and says so without a class of its own.
        if isinstance(error, lmdb.VersionMismatchError) or "LMDB data format" in text:
            return ConfigError(Code.STORE_SCHEMA, f"{self.path} was written by another LMDB format ({text})")
        return ConfigError(Code.STORE_UNUSABLE, f"{self.path} cannot be used: {text}")
