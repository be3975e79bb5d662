"""The bars a job sees: read by date, derived from a shorter timeframe where need be, fingerprinted."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from daemon.core.market import Bars, TsNs

if TYPE_CHECKING:
    from daemon.research.plans import ProbeJob
    from daemon.store.bars import BarStore


class Selection(NamedTuple):
    """Selected bars.

    partial_buckets: starts of derived bars that the stored series covers in part. digest: as `fingerprint` says.
    """

    bars: Bars
    partial_buckets: tuple[TsNs, ...]
    digest: str


def select(store: BarStore, job: ProbeJob) -> Selection:
    """Read a job's bars; empty where nothing is stored in its dates.

    Days begin and end every timeframe's buckets, so deriving from the dates' source bars is the same as deriving from
    all of them and cutting then.
    """
    bars = store.read(job.instrument, job.source, job.start_ns, job.stop_ns)
    if job.source == job.timeframe or bars.size == 0:
        return Selection(bars, (), _digest(bars))
    from daemon.engine.bars import lengthen

    derived = lengthen(bars, job.timeframe.ns)
    series = store.timeframes(job.instrument)[job.source]
    first_ns, last_ns = int(derived.start_ns[0]), int(derived.start_ns[-1])
    partial = []
    if bars.start_ns[0] == series.first_ns > first_ns:
        partial.append(first_ns)
    if bars.start_ns[-1] == series.last_ns and series.last_ns + job.source.ns < last_ns + job.timeframe.ns:
        partial.append(last_ns)
    return Selection(derived, tuple(dict.fromkeys(partial)), _digest(bars))


def fingerprint(store: BarStore, job: ProbeJob) -> str:
    """Digest of the stored bars that a job's bars are or come from, times included.

    Of the source, not of what is derived from it: deriving takes the kernels, which a server's process never loads.
    """
    return _digest(store.read(job.instrument, job.source, job.start_ns, job.stop_ns))


def _digest(bars: Bars) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    for column in bars:
        hasher.update(np.ascontiguousarray(column).data)
    return hasher.hexdigest()
