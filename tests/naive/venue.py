"""A venue on this machine: a WebSocket server whose every connection follows a script."""

import asyncio
import contextlib

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer


class Talk:
    """One connection, as its script sees it; `number` counts from 1."""

    def __init__(self, request, channel, number):
        self.request = request
        self.channel = channel
        self.number = number
        self.received = []
        self.over = asyncio.Event()

    async def say(self, *texts):
        for text in texts:
            await self.channel.send_str(text)

    async def listen(self):
        """Read until the client leaves."""
        async for message in self.channel:
            self.received.append(message.data)
        self.over.set()

    async def hang_up_within_a_message(self):
        """Send the head of a text frame of 100 bytes, ten of them, and no more."""
        self.request.transport.write(b"\x81\x64" + b"x" * 10)
        await asyncio.sleep(0)
        self.request.transport.close()

    async def hush(self):
        """Neither speak nor read, nor close."""
        await asyncio.Event().wait()


async def stay(talk):
    await talk.listen()


def saying(*texts, then=stay):
    """A script that says texts, then does as told: by default it stays and listens."""

    async def script(talk):
        await talk.say(*texts)
        await then(talk)

    return script


async def leave(talk):
    await talk.channel.close(code=1001, message=b"maintenance")


async def break_off(talk):
    talk.request.transport.abort()


class Venue:
    """Each connection follows the next script, the last one for ever; a script may also be an HTTP status."""

    def __init__(self, *scripts):
        self.scripts = scripts
        self.talks = []
        self.queries = []
        self.attempts = 0
        self.options = {}
        self.refuses = False
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._serve)
        self._server = TestServer(app)

    @property
    def url(self):
        return str(self._server.make_url("/")).replace("http", "ws").rstrip("/")

    @property
    def open_talks(self):
        return [talk for talk in self.talks if not talk.channel.closed]

    async def _serve(self, request):
        script = self.scripts[min(self.attempts, len(self.scripts) - 1)]
        self.attempts += 1
        self.queries.append(request.path_qs)
        if self.refuses or isinstance(script, int):
            return web.Response(status=503 if self.refuses else script)
        channel = web.WebSocketResponse(timeout=0.05, **self.options)
        await channel.prepare(request)
        talk = Talk(request, channel, len(self.talks) + 1)
        self.talks.append(talk)
        with contextlib.suppress(ConnectionError, aiohttp.ClientError):  # the client may leave at any word
            await script(talk)
        return channel

    async def __aenter__(self):
        await self._server.start_server(shutdown_timeout=0.05)
        return self

    async def __aexit__(self, *_):
        await self._server.close()
