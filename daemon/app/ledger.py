"""The gap ledger as a table, for the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from daemon.api.messages import iso_ms
from daemon.core.errors import Code, InvalidRequest
from daemon.core.ticks import TICK_STREAMS, Stream
from daemon.research.holes import holes

if TYPE_CHECKING:
    from daemon.app.stores import Store

_FIELDS: Final = (
    "symbol",
    "stream",
    "timeframe",
    "start",
    "stop",
    "missing",
    "after_id",
    "before_id",
    "reason",
    "repaired",
)


def holes_table(store: Store, symbol: str | None, *, repaired: bool) -> dict[str, list[Any]]:
    """List holes, column by column. symbol: of one instrument alone. repaired: those that were filled as well."""
    chosen = None if symbol is None else store.bars.resolve(symbol)
    rows = [
        (
            each.instrument.key,
            str(each.stream),
            each.timeframe and str(each.timeframe),
            iso_ms(each.hole.start_ns),
            iso_ms(each.hole.stop_ns),
            each.hole.missing or None,
            None if each.hole.after_id < 0 else each.hole.after_id,
            None if each.hole.before_id < 0 else each.hole.before_id,
            str(each.hole.reason),
            iso_ms(each.repaired_at_ns) if each.repaired_at_ns else None,
        )
        for each in holes(store.env, chosen, repaired=repaired)
    ]
    columns = {name: [row[place] for row in rows] for place, name in enumerate(_FIELDS)}
    return columns if repaired else {name: column for name, column in columns.items() if name != "repaired"}


def tick_stream(name: str) -> Stream:
    """Return a stream of ticks by name; InvalidRequest INVALID_REQUEST lists those there are."""
    if name not in TICK_STREAMS:
        raise InvalidRequest(
            Code.INVALID_REQUEST, f"stream `{name}` is not one of {', '.join(TICK_STREAMS)}", {"field": "stream"}
        )
    return Stream(name)
