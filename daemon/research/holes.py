"""The gap ledger across series: which rows are known to be missing, and which were filled since."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from daemon.core.market import Timeframe
from daemon.store import instruments, keys, ledger
from daemon.store.tick_chunks import STREAMS

if TYPE_CHECKING:
    from daemon.core.market import Instrument, TsNs
    from daemon.core.ports import Hole
    from daemon.core.ticks import Stream
    from daemon.store.env import Environment


_WIDTHS: Final = {timeframe.ns: timeframe for timeframe in Timeframe}


class KnownHole(NamedTuple):
    """A hole and whose it is. timeframe: of bars. repaired_at_ns: 0 while it is open."""

    instrument: Instrument
    stream: Stream
    timeframe: Timeframe | None
    hole: Hole
    repaired_at_ns: TsNs


def holes(env: Environment, chosen: Instrument | None, *, repaired: bool) -> list[KnownHole]:
    """List holes by series and time. chosen: of one instrument alone. repaired: those that were filled as well."""
    with env.read() as transaction:
        known = instruments.numbered(transaction)
        found = []
        for key in ledger.series_keys(transaction):
            number, stream, width_ns = keys.instrument_of(key)
            if chosen in (None, known[number]):
                whose = known[number], STREAMS[keys.Stream(stream)], _WIDTHS.get(width_ns)
                found += [
                    KnownHole(*whose, each.hole, each.repaired_at_ns)
                    for each in ledger.holes(transaction, key)
                    if repaired or not each.repaired_at_ns
                ]
    return found


def open_counts(env: Environment) -> Counter[tuple[Instrument, Stream, Timeframe | None]]:
    """Count the open holes of each series."""
    return Counter((each.instrument, each.stream, each.timeframe) for each in holes(env, None, repaired=False))
