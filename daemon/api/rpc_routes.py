"""The methods over HTTP, for curl and for whoever wants no socket; and what describes them all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from daemon.api import answers, dispatch
from daemon.api.openapi import openapi_json, schema_json
from daemon.api.protocol import Call

if TYPE_CHECKING:
    from daemon.api.services import Services


class RpcRoutes:
    """Handlers; each decodes, has the method answered, and encodes on a thread: answers may be long."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def table(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/api/v1/rpc/{method}", self.call),
            web.get("/api/v1/openapi.json", self.openapi),
            web.get("/api/v1/schema.json", self.schema),
        ]

    async def call(self, request: web.Request) -> web.Response:
        """Have a method answered: its payload is the body, nothing for a request without fields."""
        answers.query(request)
        wanted = dispatch.find(request.match_info["method"])
        fields = await answers.body(request, Any) if request.body_exists else None
        found = await dispatch.answer(Call(self._services), wanted.name, fields)
        return web.Response(body=await asyncio.to_thread(msgspec.json.encode, found), content_type=answers.JSON)

    async def openapi(self, request: web.Request) -> web.Response:
        """Describe every route, the methods among them."""
        answers.query(request)
        return web.Response(body=await asyncio.to_thread(openapi_json), content_type=answers.JSON)

    async def schema(self, request: web.Request) -> web.Response:
        """Describe methods, frames and events, for generators of clients."""
        answers.query(request)
        return web.Response(body=await asyncio.to_thread(schema_json), content_type=answers.JSON)
