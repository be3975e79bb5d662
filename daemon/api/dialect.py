"""The dialect of the client that ships: `action` for the method, the answer in `data`, an error as a text.

It is spoken to a connection whose first frame has an `action` and no `type`. Its events are those of backtests, and
have no place to resume from: that client knows of none.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from daemon.api import frames
from daemon.api.dispatch import answer as ask
from daemon.api.frames import JSON, Asked, BadFrame
from daemon.core.errors import Code, InvalidRequest
from daemon.research.backtest_config.settings import TIMEFRAMES

if TYPE_CHECKING:
    from daemon.api.frames import Told
    from daemon.api.protocol import Call
    from daemon.core.errors import AtlasError

EVENTS: Final = ("backtest:*",)
"""What it is sent from its first frame on."""

_ALIASES: Final = {"backtest:progress": "backtest:status", "backtest:result": "backtest:results"}
# It gives a request half a minute: a simulation that takes longer goes on, and is asked for later.
_PATIENCE_S: Final = 20.0


class _Id(msgspec.Struct, frozen=True):
    id: str


class _Response(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "response"
    id: str
    success: bool = True
    data: msgspec.Raw


class _Failure(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "response"
    id: str | None
    success: bool = False
    error: str


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    payload: msgspec.Raw


class _Head(msgspec.Struct, frozen=True):
    action: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    type: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Request(msgspec.Struct, frozen=True):
    id: Any = None
    action: Any = None
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def is_spoken(content: bytes | str) -> bool:
    """Tell whether a connection's first frame is of this dialect."""
    try:
        head = msgspec.json.decode(content, type=_Head)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return head.action is not msgspec.UNSET and head.type is msgspec.UNSET


def _request(content: bytes | str) -> _Request:
    try:
        return msgspec.json.decode(content, type=_Request)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        frames.decoded(JSON, content)  # says it better where it is no JSON
        raise BadFrame(InvalidRequest(Code.INVALID_REQUEST, "a frame must be an object - at `$`")) from None


class Shipping:
    """The dialect; JSON text only."""

    name: Final = "shipping"
    is_text: Final = True
    encoding: Final = JSON

    def read(self, content: bytes | str) -> Asked:
        """Read a request; BadFrame INVALID_JSON or INVALID_REQUEST."""
        found = _request(content)
        try:
            request_id = frames.checked_id(found.id)
        except InvalidRequest as error:
            raise BadFrame(error) from None
        if not isinstance(found.action, str):
            why = "`action` must name a method - at `$.action`"
            raise BadFrame(InvalidRequest(Code.INVALID_REQUEST, why), request_id)
        try:
            fields = None if found.payload is msgspec.UNSET else frames.decoded(JSON, bytes(found.payload))
        except BadFrame as bad:
            raise BadFrame(bad.error, request_id) from None
        return Asked(request_id, _ALIASES.get(found.action, found.action), fields)

    async def ask(self, call: Call, asked: Asked) -> Any:
        """Have a request answered, in this client's shapes."""
        if asked.method == "montecarlo:run":
            return await _simulated(call, asked)
        fields = asked.fields
        if asked.method == "backtest:list" and isinstance(fields, dict):
            # It writes the filter that it has not chosen, too.
            fields = {name: value for name, value in fields.items() if value not in (None, "", "all")}
        if asked.method == "data:load" and isinstance(fields, dict) and fields.get("resolution") in TIMEFRAMES:
            fields = {**fields, "resolution": TIMEFRAMES[fields["resolution"]]}
        content = await ask(call, asked.method, fields)
        if asked.method == "data:symbols":
            return list(dict.fromkeys(each.symbol for each in content))
        if asked.method == "strategy:optimize":
            return _Id(content.id)
        return content

    def answered(self, asked: Asked, content: Any) -> bytes:
        """Make the frame of an answer."""
        return JSON.encode(_Response(id=asked.id, data=JSON.raw(content)))

    def failed(self, error: AtlasError, id: str | None, method: str | None) -> bytes:  # noqa: A002, ARG002
        """Make the frame of a failure; the code stands in the text, for want of another place."""
        return JSON.encode(_Failure(id=id, error=f"{error.message} [{error.code}]"))

    def told(self, told: Told) -> bytes:
        """Make the frame of an event."""
        return JSON.encode(_Event(type=told.name, payload=told.payload(JSON)))


async def _simulated(call: Call, asked: Asked) -> _Id:
    """Have a simulation drawn, and answer whose it is: at once when it is done, else before the client gives up."""
    drawing = asyncio.ensure_future(ask(call, asked.method, asked.fields))
    done, _ = await asyncio.wait({drawing}, timeout=_PATIENCE_S)
    if done:
        return _Id(drawing.result().id)
    drawing.cancel()  # the wait, not the simulation
    return _Id(str(asked.fields.get("backtestId")))
