"""How the console's page gets a token without one in any address: a code in the fragment, good once, for a minute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from daemon.api import answers, auth, messages
from daemon.core.errors import Code, Unauthorized

if TYPE_CHECKING:
    from daemon.api.auth import Access

_SESSION: Final = "/api/v1/session"


class SessionRoutes:
    """Handlers of sessions."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post(f"{_SESSION}/code", self.code),
            web.post(_SESSION, self.begin),
            web.delete(_SESSION, self.end),
        ]

    async def code(self, request: web.Request) -> web.Response:
        """Make a code; for who can read the data folder: a session may not beget others."""
        answers.query(request)
        _check_holder(request, "token", "only the token of the data folder gets codes: `atlasd open` asks for one")
        return answers.answer(messages.SessionCode(self._access.issue_code(), auth.CODE_S), status=201)

    async def begin(self, request: web.Request) -> web.Response:
        """Trade a code for a session's token."""
        answers.query(request)
        given = await answers.body(request, messages.SessionRequest)
        token = self._access.redeem(given.code)
        if token is None:
            raise Unauthorized(
                Code.UNAUTHORIZED, "the code was used, is older than a minute, or never was: `atlasd open` gets another"
            )
        return answers.answer(messages.SessionToken(token))

    async def end(self, request: web.Request) -> web.Response:
        """End the session that asks."""
        answers.query(request)
        _check_holder(
            request, "session", "the token of the data folder does not end: `atlasd token --rotate` does that"
        )
        self._access.end_session(auth.shown(request) or "")
        return web.Response(status=204)


def _check_holder(request: web.Request, holder: str, why: str) -> None:
    if request["grant"].holder != holder:
        raise Unauthorized(Code.UNAUTHORIZED, why)
