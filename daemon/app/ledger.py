"""The gap ledger as a table, for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon.api.protocol import iso
from daemon.core.errors import Code, InvalidRequest
from daemon.core.ticks import TICK_STREAMS, Stream
from daemon.store import instruments, keys, ledger
from daemon.store.tick_chunks import STREAMS

if TYPE_CHECKING:
    from daemon.app.stores import Store

_FIELDS = ("symbol", "stream", "start", "stop", "missing", "after_id", "before_id", "reason", "repaired")


def holes_table(store: Store, symbol: str | None, *, repaired: bool) -> dict[str, list[Any]]:
    """List holes, column by column. symbol: of one instrument alone. repaired: those that were filled as well."""
    chosen = None if symbol is None else store.bars.resolve(symbol)
    columns: dict[str, list[Any]] = {name: [] for name in _FIELDS}
    with store.env.read() as transaction:
        known = instruments.numbered(transaction)
        for key, instrument, stream in [
            (key, known[number], STREAMS[keys.Stream(stream)])
            for key, (number, stream, _) in ((key, keys.instrument_of(key)) for key in ledger.series_keys(transaction))
        ]:
            if chosen not in (None, instrument):
                continue
            for each in ledger.holes(transaction, key):
                if each.repaired_at_ns and not repaired:
                    continue
                hole = each.hole
                row = (
                    instrument.key,
                    str(stream),
                    iso(hole.start_ns),
                    iso(hole.stop_ns),
                    hole.missing or None,
                    None if hole.after_id < 0 else hole.after_id,
                    None if hole.before_id < 0 else hole.before_id,
                    str(hole.reason),
                    iso(each.repaired_at_ns) if each.repaired_at_ns else None,
                )
                for name, value in zip(_FIELDS, row, strict=True):
                    columns[name].append(value)
    return columns if repaired else {name: column for name, column in columns.items() if name != "repaired"}


def tick_stream(name: str) -> Stream:
    """Return a stream of ticks by name; InvalidRequest INVALID_REQUEST lists those there are."""
    if name not in TICK_STREAMS or name == Stream.BARS:
        known = ", ".join(each for each in TICK_STREAMS if each is not Stream.BARS)
        raise InvalidRequest(Code.INVALID_REQUEST, f"stream `{name}` is not one of {known}", {"field": "stream"})
    return Stream(name)
