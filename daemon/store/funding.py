"""Funding rates of perpetuals: a document an instrument, read whole and cut.

A venue funds some times a day, so a decade of it is ten to a hundred thousand rows: no chunks and no index are needed.
The columns inside are encoded as all market data is, so both come back bit for bit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from daemon.core.errors import StoreCorrupt
from daemon.core.market import Instrument, TsNs
from daemon.store import codec, documents, keys
from daemon.store.bars import Overlay
from daemon.store.instruments import parse_instrument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.core.market import Float64s, Int64s
    from daemon.store.env import Environment, Transaction

_KIND: Final = "funding"
_NONE: Final = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64)


class FundingSeries(msgspec.Struct, frozen=True):
    """What is stored of one instrument's funding. stored_bytes: compressed size."""

    instrument: Instrument
    rows: int
    first_ns: TsNs
    last_ns: TsNs
    stored_bytes: int


class _Rates(msgspec.Struct, frozen=True):
    """columns: time_ns (int64, ascending, no repeats) and rate (float64) as the codec of market data writes them."""

    rows: int
    first_ns: TsNs
    last_ns: TsNs
    columns: bytes


class FundingStore:
    """Funding rates by instrument."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    # Reading.

    def series(self) -> list[FundingSeries]:
        """Return every stored series, ordered by instrument."""
        with self._env.read() as transaction:
            found = [
                FundingSeries(instrument, rates.rows, rates.first_ns, rates.last_ns, len(value))
                for instrument, value in scan(transaction)
                for rates in [documents.unpack(value, _Rates)]
            ]
        return sorted(found, key=lambda series: series.instrument)

    def read(
        self, instrument: Instrument, start_ns: TsNs | None = None, stop_ns: TsNs | None = None
    ) -> tuple[Int64s, Float64s]:
        """Read the rates that are due in [start_ns, stop_ns); None is open. Empty where nothing is stored.

        Returns time_ns (n,) int64, nanoseconds UTC, ascending without repeats; rate (n,) float64, the fraction of a
        position's worth that longs pay shorts, negative where shorts pay longs. StoreCorrupt where it is damaged.
        """
        with self._env.read() as transaction:
            time_ns, rate = _read(transaction, instrument)
        start, stop = _places(time_ns, start_ns, stop_ns)
        return time_ns[start:stop], rate[start:stop]

    # Writing.

    def merge(
        self, transaction: Transaction, instrument: Instrument, time_ns: Int64s, rate: Float64s, *, replace: bool
    ) -> Overlay:
        """Lay checked rates, ascending in time without repeats, over what is stored.

        Rates equal to stored ones are left alone. Where one differs and `replace` is false, nothing is written and
        `first_difference_ns` says where.
        """
        stored_ns, stored = _read(transaction, instrument)
        _, at, overlaps = np.intersect1d(stored_ns, time_ns, assume_unique=True, return_indices=True)
        differing = np.flatnonzero(stored[at] != rate[overlaps])
        overlay = Overlay(
            added=time_ns.size - at.size,
            unchanged=at.size - differing.size,
            replaced=differing.size,
            first_difference_ns=int(time_ns[overlaps][differing[0]]) if differing.size else None,
        )
        if (differing.size and not replace) or (overlay.added == 0 and not differing.size):
            return overlay
        if replace:
            stored[at] = rate[overlaps]
        new = np.ones(time_ns.size, dtype=bool)
        new[overlaps] = False
        times, rates = np.concatenate([stored_ns, time_ns[new]]), np.concatenate([stored, rate[new]])
        order = np.argsort(times)
        _put(transaction, instrument, times[order], rates[order])
        return overlay

    def delete(
        self, transaction: Transaction, instrument: Instrument, start_ns: TsNs | None, stop_ns: TsNs | None
    ) -> int:
        """Remove the rates that are due in [start_ns, stop_ns); returns how many.

        None is open. All of them go even where they are damaged, uncounted then.
        """
        try:
            times, rates = _read(transaction, instrument)
        except StoreCorrupt:
            if start_ns is not None or stop_ns is not None:
                raise
            times, rates = _NONE
        start, stop = _places(times, start_ns, stop_ns)
        kept = np.delete(times, np.s_[start:stop]), np.delete(rates, np.s_[start:stop])
        if kept[0].size == 0:
            documents.delete(transaction, _KIND, instrument.key)
        elif stop > start:
            _put(transaction, instrument, *kept)
        return max(stop - start, 0)


def scan(transaction: Transaction) -> Iterator[tuple[Instrument, memoryview]]:
    """Walk the stored values and whose they are, without decoding them."""
    prefix = keys.document(_KIND)
    for key, value in transaction.scan("documents", prefix):
        yield parse_instrument(key[len(prefix) :].decode()), value


def decode(value: bytes | memoryview) -> tuple[Int64s, Float64s]:
    """Decode a stored value; StoreCorrupt where it is damaged."""
    time_ns, rate = codec.decode(documents.unpack(value, _Rates).columns)
    return time_ns, rate


def _read(transaction: Transaction, instrument: Instrument) -> tuple[Int64s, Float64s]:
    value = transaction.get("documents", keys.document(_KIND, instrument.key))
    if value is None:
        return _NONE
    return decode(value)


def _places(time_ns: Int64s, start_ns: TsNs | None, stop_ns: TsNs | None) -> tuple[int, int]:
    start = 0 if start_ns is None else int(np.searchsorted(time_ns, start_ns))
    stop = time_ns.size if stop_ns is None else int(np.searchsorted(time_ns, stop_ns))
    return start, stop


def _put(transaction: Transaction, instrument: Instrument, time_ns: Int64s, rate: Float64s) -> None:
    columns = codec.encode_market([time_ns, rate])
    rates = _Rates(time_ns.size, int(time_ns[0]), int(time_ns[-1]), columns)
    documents.put(transaction, _KIND, instrument.key, rates)
