"""Which column of a file is which field of a tick.

Vendors name the same things in a dozen ways. Two columns that would both be one field are refused: which of them is
meant only the user can tell.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from adapters.shared.refusals import Place, listed, refusal
from daemon.core.errors import Code
from daemon.core.ticks import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Fields are the columns of core.ticks, and two that are translated: buyer_maker to side, snapshot to flags.
_EVERYWHERE: Final = {
    "time_ns": ("timestamp", "time", "time_ns", "ts", "transact_time"),
    "local_ns": ("local_ns", "local_time", "local_timestamp", "received", "receive_time"),
}
_TRADE: Final = {
    "id": ("id", "trade_id"),
    "price": ("price", "p"),
    "size": ("size", "qty", "quantity", "amount", "volume"),
    "side": ("side", "taker_side", "aggressor_side"),
    "buyer_maker": ("is_buyer_maker", "isbuyermaker", "buyer_maker"),
}
_NAMES: Final[Mapping[Stream, Mapping[str, tuple[str, ...]]]] = {
    Stream.TRADES: {**_EVERYWHERE, **_TRADE},
    Stream.AGG_TRADES: {
        **_EVERYWHERE,
        **_TRADE,
        "id": ("id", "agg_id", "agg_trade_id"),
        "first_id": ("first_id", "first_trade_id"),
        "last_id": ("last_id", "last_trade_id"),
    },
    Stream.QUOTES: {
        **_EVERYWHERE,
        "id": ("id", "update_id"),
        "bid": ("bid", "bid_price", "best_bid_price"),
        "bid_size": ("bid_size", "bid_qty", "bid_amount", "bid_volume", "best_bid_qty"),
        "ask": ("ask", "ask_price", "best_ask_price"),
        "ask_size": ("ask_size", "ask_qty", "ask_amount", "ask_volume", "best_ask_qty"),
    },
    Stream.DEPTH: {
        **_EVERYWHERE,
        "id": ("id", "update_id"),
        "side": ("side",),
        "price": ("price",),
        "size": ("size", "qty", "quantity", "amount", "volume"),
        "flags": ("flags",),
        "snapshot": ("is_snapshot", "snapshot"),
    },
}
_OPTIONAL: Final = {"local_ns", "id", "first_id", "last_id", "buyer_maker", "flags", "snapshot"}
_BETWEEN_WORDS = re.compile(r"[\s_-]+")


def canonical(name: str) -> str:
    """Strip case, margins and byte order mark; join words by `_`."""
    return _BETWEEN_WORDS.sub("_", name.strip("\ufeff \t\r\n").lower())


def recognised(names: Sequence[str], stream: Stream) -> int:
    """Count the names that are a field's."""
    known = {alias for aliases in _NAMES[stream].values() for alias in aliases}
    return sum(canonical(name) in known for name in names)


def assign(names: Sequence[str], stream: Stream, place: Place) -> dict[str, int]:
    """Find the column, by position, of each field that the file has.

    SourceDataInvalid SOURCE_COLUMN_MISSING where a field that the stream needs has no column, or one has two.
    """
    written = [canonical(name) for name in names]
    found: dict[str, int] = {}
    for field, aliases in _NAMES[stream].items():
        positions = [position for position, name in enumerate(written) if name in aliases]
        _refuse_rivals(field, [names[position] for position in positions], place)
        if positions:
            found[field] = positions[0]
    for one, other in (("side", "buyer_maker"), ("flags", "snapshot")):
        if one in found and other in found:
            _refuse_rivals(one, [names[found[one]], names[found[other]]], place)
    optional = _OPTIONAL if stream is Stream.DEPTH else _OPTIONAL | {"side"}
    if missing := [field for field in _NAMES[stream] if field not in found and field not in optional]:
        wanted = "; ".join(f"{field}: one of {', '.join(_NAMES[stream][field])}" for field in missing)
        why = f"no column for {', '.join(missing)}: the header must name {wanted} (found {listed(names)})"
        raise refusal(Code.SOURCE_COLUMN_MISSING, place, why, field=", ".join(missing))
    return found


def _refuse_rivals(field: str, rivals: Sequence[str], place: Place) -> None:
    if len(rivals) > 1:
        why = f"columns {listed(rivals)} would all be {field}; rename or remove all but one"
        raise refusal(Code.SOURCE_COLUMN_MISSING, place, why, field=field)
