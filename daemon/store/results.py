"""Results of probe jobs: an index a job, and its groups and trades as column parts.

A worker must not write to the store, and a job's rows may outgrow memory, so a job writes its parts to a spool file
and reports where each lies. The writer then copies them into the store together with the index, in one transaction: a
job is stored whole or not at all, and a spool file that outlives its process is rubbish.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import msgspec

from daemon.store import codec, documents, keys
from daemon.store.env import room_for
from daemon.store.keys import ResultKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from daemon.store.env import Transaction

GROUP_COLUMNS = (
    "combination",
    "open_day",
    "open_hour",
    "side",
    "num_trades",
    "pnl_mean",
    "pnl_std",
    "max_drawdown",
    "max_profit",
)
TRADE_COLUMNS = (
    "combination",
    "entry_ns",
    "exit_ns",
    "side",
    "reason",
    "bars_held",
    "entry_price",
    "exit_price",
    "pnl_pct",
    "max_drawdown",
    "max_profit",
    "pnl_std",
)


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One chunk of rows: combinations [first, stop) of its job, as `kind`; where it lies in the spool file."""

    kind: ResultKind
    number: int
    first: int
    stop: int
    rows: int
    offset: int
    length: int


class CombinationTotals(msgspec.Struct, frozen=True):
    """One list a column, one entry a combination; fractions of the entry price, 0 without trades."""

    strategy_id: list[int]
    risk_profile: list[str]
    trades: list[int]
    groups: list[int]
    wins: list[int]
    pnl_mean: list[float]
    pnl_std: list[float]
    max_drawdown: list[float]
    max_profit: list[float]


class JobIndex(msgspec.Struct, frozen=True):
    """What a stored job holds, without its rows.

    source: the stored timeframe the bars came from; another than `timeframe` where they were derived.
    bars: how many were selected. bars_digest: of the source's columns in the run's dates.
    period_*: as configured, else the bars'.
    partial_buckets: starts of derived bars that the source covers in part.
    holes, missing_rows: known holes in the trades that bars were made from, and how many rows ids say are missing.
    """

    instrument: str
    symbol: str
    timeframe: str
    source: str
    bars: int
    bars_digest: str
    period_start_ns: int
    period_end_ns: int
    partial_buckets: list[int]
    totals: CombinationTotals
    parts: list[Part]
    holes: int = 0
    missing_rows: int = 0


class StoredJob(msgspec.Struct, frozen=True):
    """A stored job: where it lies, and its index."""

    prefix: bytes
    batch: int
    index: JobIndex


class Spool:
    """Writes a job's parts to a file, one after another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.parts: list[Part] = []
        self._numbers = dict.fromkeys(ResultKind, 0)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.close()
            return
        with suppress(OSError):  # what a full disk did not take is still in the buffer
            self._file.close()
        self._path.unlink(missing_ok=True)

    def add(self, kind: ResultKind, first: int, stop: int, columns: Sequence[NDArray[Any]]) -> None:
        """Append the rows of combinations [first, stop)."""
        value = codec.encode_rows(columns)
        offset = self._file.tell()
        with room_for(self._path):
            self._file.write(value)
            self._file.flush()
        self.parts.append(Part(kind, self._numbers[kind], first, stop, len(columns[0]), offset, len(value)))
        self._numbers[kind] += 1


def put_job(transaction: Transaction, run_id: str, index: JobIndex, spool: Path) -> None:
    """Store a finished job from its spool file; the caller's transaction makes it whole."""
    prefix = keys.job(run_id, index.instrument, index.timeframe)
    batch = sum(1 for _ in _indexes(transaction, prefix))
    with spool.open("rb") as file:
        for part in index.parts:
            file.seek(part.offset)
            value = file.read(part.length)
            transaction.put("results", keys.result(prefix, batch, part.kind, part.number), value)
    transaction.put("results", keys.result(prefix, batch, ResultKind.INDEX), documents.pack(index))


def jobs(transaction: Transaction, run_id: str, *narrower: str) -> Iterator[StoredJob]:
    """Walk a run's jobs by instrument, timeframe and batch; `narrower` gives an instrument's key, and a timeframe."""
    for key, value in _indexes(transaction, keys.job(run_id, *narrower)):
        _, instrument, timeframe, batch, _, _ = keys.split_job(key)
        yield StoredJob(keys.job(run_id, instrument, timeframe), batch, documents.unpack(value, JobIndex))


def read_part(transaction: Transaction, job: StoredJob, part: Part) -> dict[str, NDArray[Any]]:
    """Decode one part's columns by name."""
    value = transaction.get("results", keys.result(job.prefix, job.batch, part.kind, part.number))
    names = GROUP_COLUMNS if part.kind == ResultKind.GROUPS else TRADE_COLUMNS
    return dict(zip(names, codec.decode(value if value is not None else b""), strict=True))


def delete_run(transaction: Transaction, run_id: str) -> int:
    """Remove all of a run's results; returns how many values went."""
    found = [key for key, _ in transaction.scan("results", keys.job(run_id))]
    for key in found:
        transaction.delete("results", key)
    return len(found)


def _indexes(transaction: Transaction, prefix: bytes) -> Iterator[tuple[bytes, memoryview]]:
    for key, value in transaction.scan("results", prefix):
        if keys.split_job(key)[4] is ResultKind.INDEX:
            yield key, value
