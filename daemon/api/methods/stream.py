"""`events:*`: which events a client gets, and those it missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

from msgspec import Meta

from daemon.api.protocol import Part, Request, Wanted, method
from daemon.core.errors import Code, InvalidRequest
from daemon.core.events import EVENTS, RESERVED

if TYPE_CHECKING:
    from daemon.api.protocol import Call, Subscription


Names: TypeAlias = Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=1_000)]


class Subscribed(Request, frozen=True, kw_only=True):
    """Which events to send: names, or rooms as `backtest:*`; of which symbols and runs. Empty is all."""

    events: Names = ()
    symbols: Names = ()
    runs: Names = ()


class Unsubscribed(Request, frozen=True, kw_only=True):
    """Which events to send no longer; empty is all. symbols, runs: only these, out of subscriptions that name them."""

    events: Names = ()
    symbols: Names = ()
    runs: Names = ()


class ResumeWanted(Request, frozen=True, kw_only=True):
    """Where a client's knowledge ends: the epoch and seq of the last fact it got."""

    epoch: str
    after: Annotated[int, Meta(ge=0)]


class Resumed(Part, frozen=True, kw_only=True):
    """How many facts follow this answer, and the journal's epoch and last seq."""

    replayed: int
    epoch: str
    last: int


@method("events:subscribe")
async def subscribe(call: Call, request: Subscribed) -> Wanted:
    """Send events from now on, beside those that are sent already."""
    stream = _stream(call)
    stream.attach(_names(request.events), request.symbols, request.runs)
    return stream.wanted


@method("events:unsubscribe")
async def unsubscribe(call: Call, request: Unsubscribed) -> Wanted:
    """Send events no longer."""
    stream = _stream(call)
    stream.detach(_names(request.events), request.symbols, request.runs)
    return stream.wanted


@method("events:resume", Code.RESUME_GAP, Code.TOO_MANY_REQUESTS)
async def resume(call: Call, request: ResumeWanted) -> Resumed:
    """Send the facts again that a client missed; RESUME_GAP with a snapshot where the journal has them no longer."""
    replayed = await _stream(call).replay(request.epoch, request.after)
    return Resumed(replayed=replayed, epoch=call.services.journal.epoch, last=call.services.journal.last)


def _stream(call: Call) -> Subscription:
    if call.subscription is None:
        raise InvalidRequest(Code.INVALID_REQUEST, "events go over a WebSocket at /ws: HTTP has no event stream")
    return call.subscription


def _names(events: tuple[str, ...]) -> tuple[str, ...]:
    known = (*EVENTS, *RESERVED)
    for each in events:
        room = each.removesuffix("*")
        if each not in known and not (each.endswith(":*") and any(name.startswith(room) for name in known)):
            raise InvalidRequest(
                Code.INVALID_REQUEST,
                f"there is no event `{each[:60]}`; known: {', '.join(known)}, and rooms as backtest:*",
                {"field": "events"},
            )
    return events
