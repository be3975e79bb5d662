"""The documented format on the wire: frames to bytes and back, as JSON text or as MessagePack.

What a client sends is hostile until it is read: whatever is wrong with a frame is an error that names it, with the id
of the frame where that can be read, and never an end of the connection.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from daemon.api.dispatch import answer as ask
from daemon.api.messages import ErrorBody
from daemon.api.protocol import EventFrame, FailureFrame, RequestFrame, ResponseFrame
from daemon.core.errors import AtlasError, Code, InvalidRequest
from daemon.core.events import EVENTS, RESERVED, Fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.api.protocol import Call
    from daemon.core.events import Event, Fact

LONGEST_ID: Final = 200
NO_PAYLOAD: Final = b"null"


class Asked(NamedTuple):
    """A request that was read. fields: its payload, decoded."""

    id: str
    method: str
    fields: Any


class BadFrame(Exception):  # noqa: N818 - named by what it is, as the house does
    """A frame that is no request. id, method: of the frame, None where they cannot be read."""

    def __init__(self, error: AtlasError, id: str | None = None, method: str | None = None) -> None:  # noqa: A002
        super().__init__(error.message)
        self.error = error
        self.id = id
        self.method = method


class Encoding(NamedTuple):
    """How frames become bytes. is_text: whether they travel as text frames of the WebSocket."""

    name: str
    is_text: bool
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes | str], Any]
    decode_request: Callable[[bytes | str], RequestFrame]

    def raw(self, content: Any) -> msgspec.Raw:
        """Encode what a method answered; `Raw` is JSON, which is taken apart where the frames are not."""
        if isinstance(content, msgspec.Raw):
            return content if self.is_text else msgspec.Raw(self.encode(msgspec.json.decode(content)))
        return msgspec.Raw(self.encode(content))


_json_encoder: Final = msgspec.json.Encoder()
_json_decoder: Final = msgspec.json.Decoder()
_json_requests: Final = msgspec.json.Decoder(RequestFrame)
_packed_encoder: Final = msgspec.msgpack.Encoder()
_packed_decoder: Final = msgspec.msgpack.Decoder()
_packed_requests: Final = msgspec.msgpack.Decoder(RequestFrame)


def _unpacked(content: bytes | str) -> Any:
    # By way of JSON: what that cannot say (NaN, dates, bytes) must not reach those who never met it there.
    return _json_decoder.decode(_json_encoder.encode(_packed_decoder.decode(content)))  # type: ignore[arg-type]


JSON: Final = Encoding("json", True, _json_encoder.encode, _json_decoder.decode, _json_requests.decode)  # noqa: FBT003
MSGPACK: Final = Encoding(
    "msgpack",
    False,  # noqa: FBT003
    _packed_encoder.encode,
    _unpacked,
    _packed_requests.decode,  # type: ignore[arg-type]
)


# Reading.


def decoded(encoding: Encoding, content: bytes | str) -> Any:
    """Decode anything; BadFrame INVALID_JSON."""
    try:
        return encoding.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, ValueError) as error:
        raise BadFrame(unreadable(encoding, error)) from None


def unreadable(encoding: Encoding, error: Exception) -> InvalidRequest:
    """Say why content cannot be decoded."""
    what = "JSON" if encoding.is_text else "MessagePack"
    why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return InvalidRequest(Code.INVALID_JSON, f"the frame is not {what}: {why}")


def checked_id(found: Any) -> str:
    """Return an id; InvalidRequest INVALID_REQUEST where it is none."""
    if not isinstance(found, str) or not 0 < len(found) <= LONGEST_ID:
        raise InvalidRequest(
            Code.INVALID_REQUEST, f"`id` must be a text of 1 to {LONGEST_ID} characters - at `$.id`", {"field": "id"}
        )
    return found


def _text_or_none(found: Any) -> str | None:
    return found if isinstance(found, str) and 0 < len(found) <= LONGEST_ID else None


# Events on their way.


class Told:
    """An event on its way to clients: encoded once per dialect and format, however many get it.

    id: of the frame: a fact has the same one whenever it is told. run_id: what the event is about. epoch, seq: of a
    fact, else None. time_ms: when it happened.
    """

    __slots__ = ("_frames", "_payloads", "epoch", "fields", "id", "name", "run_id", "seq", "symbols", "time_ms")

    def __init__(
        self,
        name: str,
        fields: Event | msgspec.Raw,
        run_id: str,
        symbols: list[str],
        time_ms: int,
        id: str,  # noqa: A002
        epoch: str | None = None,
        seq: int | None = None,
    ) -> None:
        self.name = name
        self.fields = fields
        self.run_id = run_id
        self.symbols = symbols
        self.time_ms = time_ms
        self.id = id
        self.epoch = epoch
        self.seq = seq
        self._frames: dict[str, bytes] = {}
        self._payloads: dict[str, msgspec.Raw] = {}

    @classmethod
    def of_progress(cls, event: Event, time_ms: int) -> Told:
        """Tell progress: it has no place in the journal."""
        return cls(event.NAME, event, event.id, event.symbols, time_ms, uuid.uuid4().hex)

    @classmethod
    def of_fact(cls, fact: Fact, epoch: str) -> Told:
        """Tell a fact of a journal."""
        about = _ABOUT.decode(fact.fields)
        return cls(
            fact.name, fact.fields, about.id, about.symbols, fact.time_ms, f"{epoch}-{fact.seq}", epoch, fact.seq
        )

    def payload(self, encoding: Encoding) -> msgspec.Raw:
        """Return the fields, encoded."""
        made = self._payloads.get(encoding.name)
        if made is None:
            made = self._payloads[encoding.name] = encoding.raw(self.fields)
        return made

    def frame(self, dialect: Dialect) -> bytes:
        """Return the frame of a dialect."""
        made = self._frames.get(dialect.name)
        if made is None:
            made = self._frames[dialect.name] = dialect.told(self)
        return made


class _About(msgspec.Struct, frozen=True):
    id: str = ""
    symbols: list[str] = []


_ABOUT: Final = msgspec.json.Decoder(_About)

KNOWN_EVENTS: Final = (*EVENTS, *RESERVED)
"""Names that may be subscribed to."""


class Dialect(Protocol):
    """How one kind of client is spoken to."""

    @property
    def name(self) -> str:
        """Of dialect and format."""

    @property
    def is_text(self) -> bool:
        """Whether frames travel as text."""

    @property
    def encoding(self) -> Encoding:
        """How they become bytes."""

    def read(self, content: bytes | str) -> Asked:
        """Read a request; BadFrame."""

    async def ask(self, call: Call, asked: Asked) -> Any:
        """Have a request answered; AtlasError as the method says."""

    def answered(self, asked: Asked, content: Any) -> bytes:
        """Make the frame of an answer."""

    def failed(self, error: AtlasError, id: str | None, method: str | None) -> bytes:  # noqa: A002
        """Make the frame of a failure."""

    def told(self, told: Told) -> bytes:
        """Make the frame of an event."""


class Documented:
    """The documented format, in an encoding."""

    def __init__(self, encoding: Encoding, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self.name = encoding.name
        self.is_text = encoding.is_text
        self.encoding = encoding
        self._now_ms = now_ms

    def read(self, content: bytes | str) -> Asked:
        """Read a request; BadFrame INVALID_JSON or INVALID_REQUEST, which names the path."""
        try:
            frame = self.encoding.decode_request(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as why:
            raise self._bad(content, why) from None
        method = frame.method if len(frame.method) <= LONGEST_ID else None
        try:
            checked_id(frame.id)
        except InvalidRequest as error:
            raise BadFrame(error, None, method) from None
        if frame.type != "request":
            message = f"`type` must be request, not `{frame.type[:40]}` - at `$.type`"
            raise BadFrame(InvalidRequest(Code.INVALID_REQUEST, message, {"field": "type"}), frame.id, method)
        if bytes(frame.payload) == NO_PAYLOAD:
            return Asked(frame.id, frame.method, None)
        try:
            fields = decoded(self.encoding, bytes(frame.payload))
        except BadFrame as bad:
            raise BadFrame(bad.error, frame.id, method) from None
        return Asked(frame.id, frame.method, fields)

    async def ask(self, call: Call, asked: Asked) -> Any:
        """Have a request answered; AtlasError as the method says."""
        return await ask(call, asked.method, asked.fields)

    def answered(self, asked: Asked, content: Any) -> bytes:
        """Make the frame of an answer."""
        return self.encoding.encode(
            ResponseFrame(
                id=asked.id, method=asked.method, payload=self.encoding.raw(content), timestamp=self._now_ms()
            )
        )

    def failed(self, error: AtlasError, id: str | None, method: str | None) -> bytes:  # noqa: A002
        """Make the frame of a failure."""
        body = ErrorBody(error.code, error.message, error.details)
        return self.encoding.encode(FailureFrame(id=id, method=method, error=body, timestamp=self._now_ms()))

    def told(self, told: Told) -> bytes:
        """Make the frame of an event."""
        return self.encoding.encode(
            EventFrame(
                type="event",
                id=told.id,
                method=told.name,
                payload=told.payload(self.encoding),
                timestamp=told.time_ms,
                epoch=told.epoch,
                seq=told.seq,
            )
        )

    def _bad(self, content: bytes | str, error: Exception) -> BadFrame:
        """Say what is wrong with a frame, with what can be read of it all the same."""
        try:
            found = decoded(self.encoding, content)
        except BadFrame as bad:
            return bad
        head: Fields = found if isinstance(found, dict) else {}
        id_, method = _text_or_none(head.get("id")), _text_or_none(head.get("method"))
        return BadFrame(InvalidRequest(Code.INVALID_REQUEST, str(error)), id_, method)
