"""Who may ask: the token of the data folder, the console's sessions, and the codes that open them.

Loopback is no authentication: every page in the user's browser and every user of the machine reaches it. Whoever shows
the token can read the data folder, and so is the user. There are no cookies: they ignore ports, so that a page on
another local port would ride on them. Nobody is ever locked out: a secret of 256 bits is not guessed, and counting
failures would let a stranger shut out the user.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

CODE_S: Final = 60.0
"""How long a code waits for its page."""

SESSION_S: Final = 12 * 3600.0
"""How long a session outlives its last use."""

AUTH_PROTOCOL: Final = "atlas.auth."
"""What a browser's WebSocket puts before the token: it has no header of its own to send it in."""

_SECRET_BYTES: Final = 32
_MOST_AT_ONCE: Final = 64
_SCHEME: Final = "bearer"


class Grant(NamedTuple):
    """What a caller has shown. holder: `token`, the data folder's, or `session`, that of a console's page."""

    holder: Literal["token", "session"]


def new_secret() -> str:
    """Draw 256 bits, as letters, digits, `-` and `_`: fit for headers, subprotocols and fragments."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def shown(request: web.Request) -> str | None:
    """Return what a request shows as its token, in `Authorization` or among the subprotocols; None for nothing."""
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == _SCHEME:
        return text.strip()
    if scheme:
        return ""
    for offered in ",".join(request.headers.getall("Sec-WebSocket-Protocol", ())).split(","):
        if offered.strip().startswith(AUTH_PROTOCOL):
            return offered.strip().removeprefix(AUTH_PROTOCOL)
    return None


class Access:
    """Tells who may ask. Used on the event loop alone.

    stored: returns the token that is valid now; called again for every token that is not known, and by `refresh`.
    monotonic_s: the clock that codes and sessions are measured by.
    """

    def __init__(self, stored: Callable[[], str], monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._stored = stored
        self._monotonic_s = monotonic_s
        self._token = stored()
        self._codes = _Passes(CODE_S)
        self._sessions = _Passes(SESSION_S)
        self._listeners: list[Callable[[], None]] = []

    def check_headers(self, request: web.Request) -> Grant | None:
        """Return what a request's headers grant; None without a token, and with a wrong one."""
        text = shown(request)
        return None if text is None else self.grant(text)

    def check_token(self, text: str) -> bool:
        """Tell whether a text is the token, or that of a session."""
        return self.grant(text) is not None

    def grant(self, text: str) -> Grant | None:
        """Return what a token grants, None for a wrong one."""
        if self._is_token(text):
            return Grant("token")
        if self._sessions.renew(text, self._monotonic_s()):
            return Grant("session")
        # The file may have been written a moment ago.
        return Grant("token") if self.refresh() and self._is_token(text) else None

    def refresh(self) -> bool:
        """Look whether the token was rotated; then sessions and codes end, and listeners are told."""
        stored = self._stored()
        if hmac.compare_digest(stored, self._token):
            return False
        self._token = stored
        self._codes.clear()
        self._sessions.clear()
        for listener in tuple(self._listeners):
            listener()
        return True

    def on_rotation(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call a listener whenever the token is rotated, until what this returns is called: sockets are to close."""
        self._listeners.append(listener)

        def leave() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return leave

    def issue_code(self) -> str:
        """Make a code for a page; it is good for one session, within `CODE_S` seconds."""
        return self._codes.issue(self._monotonic_s())

    def redeem(self, code: str) -> str | None:
        """Return the token of a new session for a code; None for one that was used, is too old, or never was."""
        now_s = self._monotonic_s()
        return self._sessions.issue(now_s) if self._codes.take(code, now_s) else None

    def end_session(self, text: str) -> None:
        """Forget a session's token."""
        self._sessions.take(text, self._monotonic_s())

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(_bytes(text), self._token.encode())


class _Passes:
    """Secrets that expire. Kept and looked up by their digests, so that no comparison tells anything of a secret."""

    def __init__(self, life_s: float) -> None:
        self._life_s = life_s
        self._ends_s: dict[bytes, float] = {}  # in the order of their ends

    def issue(self, now_s: float) -> str:
        """Make one; where there are too many the one that would end first goes."""
        self._forget(now_s)
        if len(self._ends_s) >= _MOST_AT_ONCE:
            del self._ends_s[next(iter(self._ends_s))]
        secret = new_secret()
        self._ends_s[_digest(secret)] = now_s + self._life_s
        return secret

    def take(self, secret: str, now_s: float) -> bool:
        """Use one up; tells whether it was valid."""
        self._forget(now_s)
        return self._ends_s.pop(_digest(secret), None) is not None

    def renew(self, secret: str, now_s: float) -> bool:
        """Let one live anew from now; tells whether it was valid."""
        if not self._ends_s or not self.take(secret, now_s):
            return False
        self._ends_s[_digest(secret)] = now_s + self._life_s
        return True

    def clear(self) -> None:
        """Forget all."""
        self._ends_s.clear()

    def _forget(self, now_s: float) -> None:
        while self._ends_s and self._ends_s[first := next(iter(self._ends_s))] <= now_s:
            del self._ends_s[first]


def _digest(secret: str) -> bytes:
    return hashlib.sha256(_bytes(secret)).digest()


def _bytes(text: str) -> bytes:
    # Headers that are not UTF-8 arrive with lone surrogates.
    return text.encode("utf-8", "surrogatepass")
