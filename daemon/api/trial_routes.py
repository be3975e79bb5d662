"""Routes of the trial ledger: ideas with how often they were tried, and the tries of one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from daemon.api import answers
from daemon.core.errors import Code, InvalidRequest
from daemon.research.trial_lists import listed_ideas, listed_tries, place_of

if TYPE_CHECKING:
    from daemon.research.trial_lists import ListedIdea, ListedTrial
    from daemon.research.trials import Place
    from daemon.store.env import Environment

_BASE: Final = "/api/v1/trials"
_MOST_DIGITS: Final = 15
_SEPARATOR: Final = "."


class TrialRoutes:
    """Handlers; each decodes, reads the ledger on a thread, and encodes."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get(_BASE, self.ideas), web.get(_BASE + "/{idea}", self.tries)]

    async def ideas(self, request: web.Request) -> web.StreamResponse:
        """List ideas, those tried last first."""
        return await self._listed(request, None)

    async def tries(self, request: web.Request) -> web.StreamResponse:
        """List the tries of an idea, the last first."""
        return await self._listed(request, request.match_info["idea"])

    async def _listed(self, request: web.Request, idea: str | None) -> web.StreamResponse:
        given = answers.query(request, "limit", "cursor")
        limit = answers.limit(given)
        after = _place(given["cursor"]) if "cursor" in given else None

        def read() -> list[ListedIdea] | list[ListedTrial]:
            with self._env.read() as transaction:
                if idea is None:
                    return listed_ideas(transaction, after=after, most=limit + 1)
                return listed_tries(transaction, idea, after=after, most=limit + 1)

        found = await asyncio.to_thread(read)
        page = found[:limit]
        cursor = _cursor(place_of(page[-1])) if len(found) > limit else None
        return await answers.stream(request, answers.listed(page, cursor), answers.JSON)


def _cursor(place: Place) -> str:
    return f"{-place[0]}{_SEPARATOR}{place[1]}"


def _place(text: str) -> Place:
    """Read a cursor; one whose row is gone still has its place."""
    time_ms, separator, name = text.partition(_SEPARATOR)
    if not (time_ms.isascii() and time_ms.isdigit() and len(time_ms) <= _MOST_DIGITS and separator and name):
        raise InvalidRequest(
            Code.INVALID_CURSOR, "the cursor is not one that this list returned: start without one", {"field": "cursor"}
        )
    return -int(time_ms), name
