"""How a run's messages travel and its orders wait: latency, and queues of a book."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long messages take. feed_ns: until the strategy sees an event. order_ns: until its order is at the venue.

    feed_spread_ns, order_spread_ns: so much may be added, uniformly drawn. measured: feed latency is that of the
    symbol's calibrated series instead, and order latency `order_factor` times it; feed_ns and order_ns are added.
    seed: of what is drawn.
    """

    feed_ns: Annotated[int, Meta(ge=0)] = 0
    order_ns: Annotated[int, Meta(ge=0)] = 0
    feed_spread_ns: Annotated[int, Meta(ge=0)] = 0
    order_spread_ns: Annotated[int, Meta(ge=0)] = 0
    measured: bool = False
    order_factor: Annotated[float, Meta(ge=0)] = 1.0
    seed: Annotated[int, Meta(ge=0, lt=1 << 53)] = 1


class Queue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How resting orders are thought to stand in a book's queues. `docs/book.md` defines each word.

    model: what a level that shrinks does to the quantity ahead. exponent: of `power`. self_trade: which order ends
    where two of the run's own would trade with each other. replace: whether a smaller quantity at the same price keeps
    its place.
    """

    model: Literal["risk_averse", "power", "log", "trade_only"] = "risk_averse"
    exponent: Annotated[float, Meta(gt=0, le=10)] = 3.0
    self_trade: Literal["cancel_newest", "cancel_oldest", "cancel_both"] = "cancel_newest"
    replace: Literal["reducing_keeps", "loses"] = "reducing_keeps"
