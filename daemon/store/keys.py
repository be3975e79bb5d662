"""Keys of the store: big-endian, so that byte order is the order of instrument, stream, time.

chunks     instrument u32 | stream u8 | width u64 | first time i64, sign bit flipped
series     instrument u32 | stream u8 | width u64
tail       series | number u64
ledger     series | "h" or "r" | start i64, sign bit flipped | id i64, or series | "s" | digest of the source's name
results    run id 0x00 instrument key 0x00 timeframe 0x00 | batch u32 | kind u8 | part u32, or 0x00 "backtest" 0x00 and
           what `backtests` lays below
documents  kind 0x00 id
journal    number of a fact u64
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

_SIGN: Final = 1 << 63
_SERIES: Final = struct.Struct(">IBQ")
_U64: Final = struct.Struct(">Q")
SERIES_BYTES: Final = _SERIES.size
_PART: Final = struct.Struct(">IBI")
_SEPARATOR: Final = b"\0"


class Stream(IntEnum):
    """What a chunk holds, as stored; the numbers never change."""

    BARS = 1
    TRADES = 2
    AGG_TRADES = 3
    QUOTES = 4
    DEPTH = 5


class ResultKind(IntEnum):
    """What a part of a stored job holds; a job's index sorts first."""

    INDEX = 0
    GROUPS = 1
    TRADES = 2


def series(instrument_id: int, stream: Stream, width_ns: int) -> bytes:
    """Key of a series, and prefix of its chunks. width_ns: a bar's length, 0 for ticks."""
    return _SERIES.pack(instrument_id, stream, width_ns)


def series_of(instrument_id: int, stream: Stream) -> bytes:
    """Prefix of an instrument's series of one stream."""
    return _SERIES.pack(instrument_id, stream, 0)[: -_U64.size]


def chunk(series_key: bytes, first_ns: int) -> bytes:
    """Key of the chunk whose first row is at `first_ns`; negative times sort before 1970."""
    return series_key + _U64.pack((first_ns + _SIGN) % (1 << 64))


def chunk_time(key: bytes) -> int:
    """Return the first time in a chunk key."""
    return int(_U64.unpack(key[-_U64.size :])[0]) - _SIGN


def instrument_of(series_key: bytes) -> tuple[int, int, int]:
    """Split a series key: instrument id, stream, width in ns."""
    instrument_id, stream, width_ns = _SERIES.unpack(series_key)
    return instrument_id, stream, width_ns


def document(kind: str, identity: str = "") -> bytes:
    """Key of a document; without identity the prefix of a kind."""
    return kind.encode() + _SEPARATOR + identity.encode()


def fact(seq: int) -> bytes:
    """Key of a fact of the journal."""
    return _U64.pack(seq)


def fact_number(key: bytes) -> int:
    """Return the number in a fact's key."""
    return int(_U64.unpack(key)[0])


def job(run_id: str, *parts: str) -> bytes:
    """Prefix of a run's results, narrowed by instrument key and timeframe."""
    return b"".join(part.encode() + _SEPARATOR for part in (run_id, *parts))


def split_job(key: bytes) -> tuple[str, str, str, int, ResultKind, int]:
    """Split a results key: run id, instrument key, timeframe, batch, kind, part."""
    run_id, instrument, timeframe, rest = key.split(_SEPARATOR, 3)
    batch, kind, part = _PART.unpack(rest)
    return run_id.decode(), instrument.decode(), timeframe.decode(), batch, ResultKind(kind), part


def result(job_key: bytes, batch: int, kind: ResultKind, part: int = 0) -> bytes:
    """Key of one part of a stored job."""
    return job_key + _PART.pack(batch, kind, part)
