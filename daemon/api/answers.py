"""What every route does alike: read a query and a body, answer, and stream.

Store reads, encoding and compression are made on threads; the event loop only moves bytes.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import zlib
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec
import zstandard
from aiohttp import web

from daemon.api import messages
from daemon.core.errors import AtlasError, Code, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_log = logging.getLogger(__name__)

T = TypeVar("T")

JSON: Final = "application/json"
CSV: Final = "text/csv; charset=utf-8"
# The page draws with its own script and style, and loads nothing: should a browser open it from here, it has an
# origin of its own, which may not ask the daemon for anything.
FENCE: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)
DEFAULT_LIMIT: Final = 1_000
MAX_LIMIT: Final = 1_000_000
_ROWS_AT_ONCE: Final = 512
# A trip to a thread costs as much as making some kilobytes.
_BYTES_AT_ONCE: Final = 1 << 17
_WEIGHT: Final = "q="


# Decoding.


async def body(request: web.Request, kind: type[T]) -> T:
    """Decode a JSON body; InvalidRequest INVALID_JSON or INVALID_REQUEST."""
    try:
        content = await request.read()
    except web.RequestPayloadError:
        raise InvalidRequest(
            Code.INVALID_REQUEST, "the body cannot be read: its encoding is broken, or it was cut short"
        ) from None
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(Code.INVALID_REQUEST, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(Code.INVALID_JSON, f"the body is not JSON: {error}") from None


def query(request: web.Request, *allowed: str) -> dict[str, str]:
    """Return the query's parameters; one that the route does not know, or twice, is an error."""
    found: dict[str, str] = {}
    for name, value in request.query.items():
        if name not in allowed or name in found:
            known = ", ".join(allowed) or "none"
            raise InvalidRequest(
                Code.INVALID_REQUEST,
                f"query parameter `{name}` is unknown or repeated; known: {known}",
                {"field": name},
            )
        found[name] = value
    return found


def whole(given: dict[str, str], name: str) -> int | None:
    """Return a parameter that is a whole number, None where it is not given."""
    text = given.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LIMIT))):
        raise InvalidRequest(Code.INVALID_REQUEST, f"`{name}` must be a whole number", {"field": name})
    return int(text)


def limit(given: dict[str, str], default: int = DEFAULT_LIMIT, most: int = MAX_LIMIT) -> int:
    """Return how many rows a page has at most."""
    count = whole(given, "limit")
    if count is None:
        return default
    if not 1 <= count <= most:
        raise InvalidRequest(Code.INVALID_REQUEST, f"`limit` must be 1 to {most}", {"field": "limit"})
    return count


def flag(given: dict[str, str], name: str) -> bool:
    """Return a parameter that is 0 or 1; 0 where it is not given."""
    text = given.get(name, "0")
    if text not in ("0", "1"):
        raise InvalidRequest(Code.INVALID_REQUEST, f"`{name}` must be 0 or 1", {"field": name})
    return text == "1"


def one_of(word: str, field: str, known: tuple[str, ...]) -> str:
    """Return a word that must be one of these."""
    if word not in known:
        raise InvalidRequest(
            Code.INVALID_REQUEST, f"{field} `{word[:40]}` is not one of {', '.join(known)}", {"field": field}
        )
    return word


def page_after(found: Sequence[T], given: dict[str, str], name: Callable[[T], str]) -> tuple[list[T], str | None]:
    """Return the page of a list that a query asks for by `limit` and `cursor`, and the next cursor.

    name: what a cursor says of a row; InvalidRequest INVALID_CURSOR where no row has it.
    """
    most, cursor = limit(given), given.get("cursor")
    first = 0
    if cursor is not None:
        places = [place for place, each in enumerate(found, 1) if name(each) == cursor]
        if not places:
            raise InvalidRequest(Code.INVALID_CURSOR, "the cursor is not one that this list returned")
        first = places[0]
    page = list(found[first : first + most])
    return page, name(page[-1]) if first + most < len(found) else None


# Answering.


def answer(content: Any, status: int = 200) -> web.Response:
    """Answer JSON."""
    return web.Response(body=msgspec.json.encode(content), status=status, content_type=JSON)


def refuse(status: int, code: Code, message: str, details: dict[str, Any] | None = None) -> web.Response:
    """Answer the one error body."""
    return answer(messages.ErrorAnswer(messages.ErrorBody(code, message, details)), status=status)


def attachment(name: str) -> dict[str, str]:
    """Return the headers of a file that a browser saves, and runs nothing of should it open it all the same."""
    return {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Security-Policy": FENCE,
        "X-Content-Type-Options": "nosniff",
    }


def listed(rows: Sequence[msgspec.Struct], cursor: str | None) -> Iterator[bytes]:
    """Make a list and its cursor, some hundred rows at a time."""
    yield b'{"results":['
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        yield (b"," if at else b"") + msgspec.json.encode(rows[at : at + _ROWS_AT_ONCE])[1:-1]
    yield b'],"next_cursor":' + msgspec.json.encode(cursor) + b"}"


async def stream(
    request: web.Request, pieces: Iterator[bytes], content_type: str, more_headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send pieces as they are made, no faster than they are taken, compressed where the client says it can.

    What fails before the first piece still gets its own status. Making stops soon after the client has gone, for which
    pieces may be empty: each must take some milliseconds at most.
    """
    coding = _coding(request.headers.get("Accept-Encoding", ""))
    steps = _gathered(pieces)
    following = functools.partial(next, steps if coding is None else _compressed(steps, coding), None)
    piece = await asyncio.to_thread(following)
    headers = {"Content-Type": content_type, "Vary": "Accept-Encoding"} | dict(more_headers or {})
    response = web.StreamResponse(headers=headers if coding is None else headers | {"Content-Encoding": coding})
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        while piece is not None:
            if piece:
                await response.write(piece)
            elif request.transport is None or request.transport.is_closing():
                raise ConnectionResetError  # as `write` does
            piece = await asyncio.to_thread(following)
        await response.write_eof()
    except (asyncio.CancelledError, ConnectionResetError):
        raise
    except Exception as error:  # noqa: BLE001 - no other answer can follow this one
        # The status has gone out: breaking off is the only way left to say that the list is not whole.
        if isinstance(error, AtlasError):
            _log.error("%s broken off: %s", request.path_qs, error.message)
        else:
            _log.exception("%s broken off", request.path_qs)
        if request.transport is not None:
            request.transport.abort()
    return response


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join pieces until they are worth sending; an empty one is handed on, for it stands for time that went by."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        if piece:
            held.append(piece)
            size += len(piece)
        if size >= _BYTES_AT_ONCE or not piece:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


# Those that are sent, the best first. At their quickest levels: the other end is on this machine.
_CODINGS: Final[dict[str, Callable[[], _Compressor]]] = {
    "zstd": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
    "gzip": lambda: zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS),
    "deflate": lambda: zlib.compressobj(1),
}


def _compressed(pieces: Iterator[bytes], coding: str) -> Iterator[bytes]:
    compressor = _CODINGS[coding]()
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


def _coding(accepted: str) -> str | None:
    """Choose a content coding from an Accept-Encoding header; None for none."""
    names = set()
    for part in accepted.lower().split(","):
        name, _, weight = (word.strip() for word in part.partition(";"))
        refused = weight.startswith(_WEIGHT) and not weight[len(_WEIGHT) :].strip("0.")
        if not refused:
            names.add(name)
    return next((coding for coding in _CODINGS if coding in names), None)
