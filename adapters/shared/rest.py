"""The HTTP client of every venue: one place for limits, retries, and what an answer's status means.

Whatever may pass by itself (a limit, a server error, a cut line) is waited for here; what remains is an error with a
remedy, or `Refused`, which a venue translates. Keys travel in headers only and are in no message.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from adapters.shared.backoff import Backoff, Gate, RateLimit, Waits, real_waits, retry_after_s
from daemon.core.errors import Code, NotFound, RateLimited, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from hashlib import _Hash as Hash

T = TypeVar("T")

_OK: Final = 200
_PARTIAL: Final = 206
_REDIRECTS: Final = range(300, 400)
_NOT_FOUND: Final = 404
_REQUEST_TIMEOUT: Final = 408
_RANGE_UNSATISFIABLE: Final = 416
_LIMITED: Final = (418, 429)  # 418: Binance's answer to those who went on after 429
_BLOCKED: Final = (403, 451)
_SERVER_ERROR: Final = 500
_CHUNK_BYTES: Final = 1 << 18
_SHOWN_CHARACTERS: Final = 120


class Reply(NamedTuple):
    """A body as it came, decompressed, and its headers, whose names know no case."""

    body: bytes
    headers: Mapping[str, str]


class Refused(Exception):  # noqa: N818 - no error yet: the venue's adapter says what it means
    """The venue refuses the request as it stands (a 4xx without a meaning of its own); asking again will not help.

    Never leaves the adapters: a venue translates it.
    """

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(f"HTTP {status}: {_shown(body)}")
        self.status = status
        self.body = body
        self.headers = headers


class _Flaw(Exception):  # noqa: N818 - internal: a failed attempt
    """An attempt failed in a way that may pass."""

    def __init__(self, why: str, code: Code = Code.SOURCE_UNAVAILABLE) -> None:
        super().__init__(why)
        self.why = why
        self.code = code


class _Limited(Exception):  # noqa: N818 - internal: not a failure
    """The venue asks to wait; asked_s: for how long, where it says."""

    def __init__(self, asked_s: float | None) -> None:
        super().__init__()
        self.asked_s = asked_s


class _Request(NamedTuple):
    path: str
    query: Mapping[str, str | int] | None
    weight: int
    headers: Mapping[str, str]
    timeout: aiohttp.ClientTimeout


class Rest:
    """Requests to one host of a venue.

    venue: its name for messages. base_url: scheme and host. limit: the venue's, in its weight units.
    timeout_s: of a whole request; of a silence within a download. attempts: at a request that fails.
    patience_s: the longest that one request waits, in sum, for limits to pass; longer is RateLimited.
    headers: sent with every request, keys among them. quiet_s: from an answer's headers, how many seconds to hold
    all further requests (a budget nearly used up).
    """

    def __init__(
        self,
        venue: str,
        base_url: str,
        *,
        limit: RateLimit,
        timeout_s: float = 10.0,
        attempts: int = 6,
        patience_s: float = 300.0,
        backoff: Backoff = Backoff(),  # noqa: B008 - a tuple of two numbers
        headers: Mapping[str, str] | None = None,
        quiet_s: Callable[[Mapping[str, str]], float] | None = None,
        waits: Waits | None = None,
    ) -> None:
        self._venue = venue
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._patience_s = patience_s
        self._backoff = backoff
        self._headers = {"User-Agent": "atlasd"} | dict(headers or {})
        self._quiet_s = quiet_s
        self._waits = waits or real_waits()
        self._gate = Gate(limit, self._waits)
        self._session: aiohttp.ClientSession | None = None

    def change_limit(self, limit: RateLimit) -> None:
        """Go on under the limit that the venue has told."""
        self._gate.change(limit)

    async def get(self, path: str, query: Mapping[str, str | int] | None = None, *, weight: int = 1) -> Reply:
        """Ask for a path below the base URL.

        Raises RateLimited, SourceUnavailable (SOURCE_UNAVAILABLE, SOURCE_BLOCKED, SOURCE_ANSWER_INVALID), Refused.
        """

        async def read(response: aiohttp.ClientResponse) -> Reply:
            return Reply(await response.read(), response.headers)

        return await self._perform(self._request(path, query, weight), read)

    async def json(
        self,
        path: str,
        query: Mapping[str, str | int] | None,
        kind: type[T] | msgspec.json.Decoder[T],
        *,
        weight: int = 1,
    ) -> tuple[T, Mapping[str, str]]:
        """Ask for JSON of a type; fields it does not name are passed over.

        What is no JSON at all (a page of HTML, half an answer) is asked for again; JSON of another shape is not,
        for it will stay so. Both are SOURCE_ANSWER_INVALID in the end. Raises as `get`.
        """
        decoder = kind if isinstance(kind, msgspec.json.Decoder) else msgspec.json.Decoder(kind)

        async def read(response: aiohttp.ClientResponse) -> tuple[T, Mapping[str, str]]:
            body = await response.read()
            try:
                return decoder.decode(body), response.headers
            except msgspec.ValidationError as error:
                why = f"{path} answers with other JSON than documented: {error}"
                raise self._gone(Code.SOURCE_ANSWER_INVALID, why) from None
            except (msgspec.DecodeError, UnicodeDecodeError):
                why = f"answers with what is no JSON: {_shown(body)}"
                raise _Flaw(why, Code.SOURCE_ANSWER_INVALID) from None

        return await self._perform(self._request(path, query, weight), read)

    async def download(self, path: str, destination: Path) -> str:
        """Fetch a file, by way of `destination`.part, which a later call goes on with.

        Returns the SHA-256 of the file, hexadecimal. Whoever needs to know that a file that was resumed is of one
        piece compares it with the venue's checksum.
        Raises NotFound SOURCE_NOT_FOUND where the venue has no such file, OSError where the disk does not take it,
        and as `get`.
        """
        part = destination.with_name(destination.name + ".part")
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s, sock_read=self._timeout_s)
        while True:
            # Asked for as it is: a range of a compressed body would be of no use.
            request = _Request(path, None, 1, {"Accept-Encoding": "identity"}, timeout)
            try:
                digest = await self._perform(request, lambda response: _to_disk(response, part), part=part)
            except Refused as refused:
                if refused.status == _RANGE_UNSATISFIABLE and part.exists():
                    part.unlink()  # longer than the file itself, so of another version
                    continue
                if refused.status == _NOT_FOUND:
                    missing = f"{self._venue} has no file {path}"
                    raise NotFound(Code.SOURCE_NOT_FOUND, missing, {"path": path}) from None
                raise self._gone(Code.SOURCE_UNAVAILABLE, f"{path} is refused ({refused})") from None
            part.replace(destination)
            return digest

    async def close(self) -> None:
        """End its connections; a later request opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _request(self, path: str, query: Mapping[str, str | int] | None, weight: int) -> _Request:
        return _Request(path, query, weight, {}, aiohttp.ClientTimeout(total=self._timeout_s))

    async def _perform(
        self,
        request: _Request,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
        *,
        part: Path | None = None,
    ) -> T:
        """Attempt until it succeeds, or waiting is no longer worth it."""
        failures = limits = 0
        waited_s = 0.0
        while True:
            self._check_patience(self._gate.quiet_s)  # before a turn is taken, or the refused would queue up
            await self._gate.enter(request.weight)
            while (quiet_s := self._gate.quiet_s) > 0:
                self._check_patience(quiet_s)
                await self._waits.sleep(quiet_s)
            try:
                return await self._attempt(_resumed(request, part), read)
            except _Limited as limited:
                drawn_s = self._backoff.delay_s(limits, self._waits.random)
                limits += 1
                wait_s = max(limited.asked_s or 0.0, drawn_s)
                self._gate.quieten(wait_s)  # others who share the limit wait as well
                waited_s += wait_s
                self._check_patience(waited_s)
            except _Flaw as flaw:
                failures += 1
                if failures >= self._attempts:
                    why = f"{flaw.why} (asked {failures} times)"
                    raise self._gone(flaw.code, why) from None
                await self._waits.sleep(self._backoff.delay_s(failures - 1, self._waits.random))

    async def _attempt(self, request: _Request, read: Callable[[aiohttp.ClientResponse], Awaitable[T]]) -> T:
        asked = self._open().get(
            self._base_url + request.path,
            params=request.query,
            headers=request.headers,
            timeout=request.timeout,
            allow_redirects=False,
        )
        try:
            async with asked as response:
                if self._quiet_s is not None:
                    self._gate.quieten(self._quiet_s(response.headers))
                await self._judge(response)
                return await read(response)
        except TimeoutError:
            raise _Flaw(f"has not answered within {self._timeout_s:g} s") from None
        except aiohttp.InvalidURL as error:
            raise self._gone(Code.SOURCE_UNAVAILABLE, f"{error} is no address; correct the host") from None
        except aiohttp.ClientError as error:
            raise _Flaw(f"does not answer ({type(error).__name__}: {error})") from None

    async def _judge(self, response: aiohttp.ClientResponse) -> None:
        """Say what a status means; return for those that bring what was asked for."""
        status = response.status
        if status in (_OK, _PARTIAL):
            return
        if status in _LIMITED:
            raise _Limited(retry_after_s(response.headers.get("Retry-After"), self._waits.wall_s()))
        if status in _BLOCKED:
            why = f"refuses this place (HTTP {status}); where that is allowed, set another of its hosts"
            raise self._gone(Code.SOURCE_BLOCKED, why)
        if status >= _SERVER_ERROR or status == _REQUEST_TIMEOUT:
            raise _Flaw(f"answers with a server error (HTTP {status})")
        if status in _REDIRECTS:
            # Not followed: the key in our headers is for this host.
            why = f"sends {response.url.path} elsewhere (HTTP {status}); correct the host"
            raise self._gone(Code.SOURCE_ANSWER_INVALID, why)
        raise Refused(status, await response.read(), response.headers)

    def _check_patience(self, wait_s: float) -> None:
        if wait_s > self._patience_s:
            seconds = math.ceil(self._gate.quiet_s)
            why = f"{self._venue} asks to wait {seconds} s; try again then, what was fetched is kept"
            raise RateLimited(Code.RATE_LIMITED, why, {"retry_after_s": seconds})

    def _gone(self, code: Code, why: str) -> SourceUnavailable:
        return SourceUnavailable(code, f"{self._venue} ({urlsplit(self._base_url).hostname}) {why}")

    def _open(self) -> aiohttp.ClientSession:
        # Made here, not in the constructor: a session belongs to the loop that runs.
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        return self._session


def _resumed(request: _Request, part: Path | None) -> _Request:
    """Ask for what a partial file still lacks."""
    have = part.stat().st_size if part is not None and part.exists() else 0
    if not have:
        return request
    return request._replace(headers={**request.headers, "Range": f"bytes={have}-"})


async def _to_disk(response: aiohttp.ClientResponse, part: Path) -> str:
    """Append to, or write, a partial file; return the SHA-256 of all of it."""
    digest = hashlib.sha256()
    goes_on = response.status == _PARTIAL and _kept(part, response.headers.get("Content-Range", ""), digest)
    with part.open("ab" if goes_on else "wb") as file:  # written in the loop: a chunk takes less than a thread would
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _kept(part: Path, content_range: str, digest: Hash) -> bool:
    """Digest what is there of a file that the answer goes on with."""
    if not content_range.startswith(f"bytes {part.stat().st_size}-"):
        part.unlink()
        raise _Flaw("sends another part of the file than was asked for")
    with part.open("rb") as kept:
        while chunk := kept.read(_CHUNK_BYTES):
            digest.update(chunk)
    return True


def _shown(body: bytes) -> str:
    text = " ".join(body[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace").split())
    return repr(text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…")
