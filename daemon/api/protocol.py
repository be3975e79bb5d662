"""How methods are declared, and the frames in which they travel.

A method is declared once, by a function with typed request and answer, in a module of `daemon.api.methods`; `dispatch`
has the table of all. From it come the WebSocket, `POST /api/v1/rpc/{method}`, the OpenAPI document, the JSON Schema
that a TypeScript client is made from, and the console's explorer. Methods whose machinery is not there yet stand in
the table as well, so that clients can be written against them; they answer NOT_AVAILABLE.
"""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import msgspec

from daemon.api.messages import ErrorBody

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from daemon.api.services import Services
    from daemon.core.errors import Code

    Handler: TypeAlias = Callable[["Call", Any], Awaitable[Any]]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request without fields."""


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="camel"):
    """What all requests are: unknown fields are refused, names are the app's."""


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What all answers are made of."""


# Methods.


class Method(NamedTuple):
    """One method.

    name: `room:verb`. request: struct of its payload. answer: type of what it answers. summary: one sentence. errors:
    codes beside those that any method may answer. starts_job: whether it counts against the limit of job starts.
    handler: None for a method that is not available.
    """

    name: str
    request: type[msgspec.Struct]
    answer: Any
    summary: str
    errors: tuple[Code, ...]
    starts_job: bool
    handler: Handler | None

    @property
    def is_available(self) -> bool:
        """Whether anything answers it."""
        return self.handler is not None


def method(name: str, *errors: Code, starts_job: bool = False) -> Callable[[Handler], Method]:
    """Declare a function as a method: its types are the request's and the answer's, its first line the summary."""

    def declared(handler: Handler) -> Method:
        # What is imported for types alone is no part of the two that are read here.
        known = {**vars(inspect.getmodule(handler)), "Call": Any}
        hints = typing.get_type_hints(handler, known, include_extras=True)
        request = hints[list(inspect.signature(handler).parameters)[-1]]
        summary = (inspect.getdoc(handler) or "").partition("\n")[0]
        return Method(name, request, hints["return"], summary, errors, starts_job, handler)

    return declared


def planned(name: str, request: type[msgspec.Struct], answer: Any, summary: str) -> Method:
    """Declare a method that nothing answers yet."""
    return Method(name, request, answer, summary, (), starts_job=False, handler=None)


# Who asks.


class Wanted(Part, frozen=True, kw_only=True):
    """What a client's event stream sends: these events, of these symbols and runs; an empty list is all of them.

    epoch, last: where the journal stands. A client that is cut off before its first fact resumes from there.
    """

    attached: bool
    events: list[str]
    symbols: list[str]
    runs: list[str]
    epoch: str
    last: int


class Subscription(Protocol):
    """A client's event stream. Filters: empty for all."""

    @property
    def is_attached(self) -> bool:
        """Whether anything is sent at all."""

    @property
    def wanted(self) -> Wanted:
        """What is sent."""

    def attach(self, events: Sequence[str], symbols: Sequence[str], runs: Sequence[str]) -> None:
        """Send these events from now on, beside those that are sent already; InvalidRequest for too many names."""

    def detach(self, events: Sequence[str], symbols: Sequence[str], runs: Sequence[str]) -> None:
        """Send these events no longer; of these symbols and runs alone, where any are named."""

    async def replay(self, epoch: str, after: int) -> int:
        """Send the facts after a place of the journal once more; returns how many. Conflict RESUME_GAP."""


class Call(NamedTuple):
    """What a handler gets beside its request. subscription: the caller's event stream, None over HTTP: it has none."""

    services: Services
    subscription: Subscription | None = None


# Frames of the documented format.


def _no_payload() -> msgspec.Raw:
    # Made anew: JSON Schema cannot write a default of this type.
    return msgspec.Raw(b"null")


class RequestFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A client's request. type may be left out; timestamp is not read."""

    id: str
    method: str
    type: str = "request"
    payload: msgspec.Raw = msgspec.field(default_factory=_no_payload)
    timestamp: float | str | None = None


class ResponseFrame(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request that went well: it has no error."""

    id: str
    type: str = "response"
    method: str
    payload: msgspec.Raw
    timestamp: int


class FailureFrame(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request that did not: it has no payload. id: None where the frame had none that could be read."""

    id: str | None
    type: str = "response"
    method: str | None
    error: ErrorBody
    timestamp: int


class EventFrame(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event. epoch, seq: of a fact, to go on from with `events:resume`; progress has none."""

    type: str = msgspec.field(name="type")
    id: str
    method: str
    payload: msgspec.Raw
    timestamp: int
    epoch: str | None = None
    seq: int | None = None
