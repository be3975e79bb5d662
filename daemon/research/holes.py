"""The gap ledger across series: which rows are known to be missing, and which were filled since."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from daemon.store import instruments, keys, ledger
from daemon.store.tick_chunks import STREAMS

if TYPE_CHECKING:
    from daemon.core.market import Instrument, TsNs
    from daemon.core.ports import Hole
    from daemon.core.ticks import Stream
    from daemon.store.env import Environment


class KnownHole(NamedTuple):
    """A hole and whose it is. repaired_at_ns: 0 while it is open."""

    instrument: Instrument
    stream: Stream
    hole: Hole
    repaired_at_ns: TsNs


def holes(env: Environment, chosen: Instrument | None, *, repaired: bool) -> list[KnownHole]:
    """List holes by series and time. chosen: of one instrument alone. repaired: those that were filled as well."""
    with env.read() as transaction:
        known = instruments.numbered(transaction)
        found = []
        for key in ledger.series_keys(transaction):
            number, stream, _ = keys.instrument_of(key)
            if chosen in (None, known[number]):
                found += [
                    KnownHole(known[number], STREAMS[keys.Stream(stream)], each.hole, each.repaired_at_ns)
                    for each in ledger.holes(transaction, key)
                    if repaired or not each.repaired_at_ns
                ]
    return found
