"""The console's files: one page with its style and modules out of the package, and the copy of plotly.js in Plotly's.

They hold nothing that is anybody's secret, so they need no token; what the page shows comes by the protocol, with one.
Names are looked up in a list that is made at the start, so that no request can name a path.
"""

from __future__ import annotations

import asyncio
from functools import cached_property
from importlib import metadata, resources
from typing import TYPE_CHECKING, Final, NamedTuple

import xxhash
from aiohttp import web

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

PAGE: Final = "index.html"
PLOTLY: Final = "plotly.min.js"
_KINDS: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
# A browser asks each time whether its copy is still good: a new release must not meet modules of the one before.
_CACHING: Final = "no-cache"


class _File(NamedTuple):
    """etag: changes whenever the content does."""

    content: Traversable
    etag: str
    kind: str


class ConsoleRoutes:
    """Handlers; each answers one file."""

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [web.get("/", self.page), web.get("/console/{name}", self.file)]

    async def page(self, request: web.Request) -> web.Response:
        """Answer the page itself."""
        return await self._answer(request, PAGE)

    async def file(self, request: web.Request) -> web.Response:
        """Answer what the page loads."""
        name = request.match_info["name"]
        if name == PAGE or name not in self._files:
            raise web.HTTPNotFound
        return await self._answer(request, name)

    async def _answer(self, request: web.Request, name: str) -> web.Response:
        file = self._files[name]
        headers = {"ETag": f'"{file.etag}"', "Cache-Control": _CACHING, "X-Content-Type-Options": "nosniff"}
        if any(each.value == file.etag for each in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        content = await asyncio.to_thread(file.content.read_bytes)
        return web.Response(body=content, content_type=file.kind, charset="utf-8", headers=headers)

    @cached_property
    def _files(self) -> dict[str, _File]:
        folder = resources.files("daemon.api") / "console"
        own = (each for each in folder.iterdir() if each.name.rpartition(".")[2] in _KINDS)
        found = {
            each.name: _File(each, xxhash.xxh3_64_hexdigest(each.read_bytes()), _KINDS[each.name.rpartition(".")[2]])
            for each in own
        }
        plotly = resources.files("plotly") / "package_data" / PLOTLY
        return found | {PLOTLY: _File(plotly, f"plotly-{metadata.version('plotly')}", _KINDS["js"])}
