"""Documents: typed structs as MessagePack under zstandard, for what is small and read whole (runs, settings)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import zstandard

from daemon.core.errors import Code, StoreCorrupt
from daemon.store import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.store.env import Transaction

T = TypeVar("T")

_ZSTD: Final = b"\x01"


def pack(document: msgspec.Struct) -> bytes:
    """Encode: one byte of codec id, then the frame with its checksum."""
    return _ZSTD + zstandard.ZstdCompressor(level=3, write_checksum=True).compress(msgspec.msgpack.encode(document))


def unpack(value: bytes | memoryview, kind: type[T]) -> T:
    """Decode; StoreCorrupt where the bytes are not a document of this kind."""
    try:
        if bytes(value[:1]) != _ZSTD:
            raise ValueError("unknown codec")
        return msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(value[1:]), type=kind)
    except (ValueError, MemoryError, msgspec.DecodeError, zstandard.ZstdError) as error:  # a damaged size may be any
        raise StoreCorrupt(Code.STORE_CORRUPT, f"a stored {kind.__name__} is damaged: {error}") from error


def put(transaction: Transaction, kind: str, identity: str, document: msgspec.Struct) -> None:
    """Insert or replace a document."""
    transaction.put("documents", keys.document(kind, identity), pack(document))


def get(transaction: Transaction, kind: str, identity: str, struct: type[T]) -> T | None:
    """Read a document, None where there is none."""
    value = transaction.get("documents", keys.document(kind, identity))
    return None if value is None else unpack(value, struct)


def delete(transaction: Transaction, kind: str, identity: str) -> bool:
    """Remove a document; False where there was none."""
    return transaction.delete("documents", keys.document(kind, identity))


def scan(transaction: Transaction, kind: str, struct: type[T]) -> Iterator[T]:
    """Walk all documents of a kind, ordered by identity."""
    for _, value in transaction.scan("documents", keys.document(kind)):
        yield unpack(value, struct)
