"""A server of this machine in a thread of its own, for programs that run as processes."""

import asyncio
import contextlib
import threading

from aiohttp import web
from aiohttp.test_utils import TestServer


@contextlib.contextmanager
def serving(app, work=None):
    """Serve an application; yields its URL. work: a coroutine function that runs meanwhile."""
    ready, stopped = threading.Event(), asyncio.Event()
    told = {}

    async def serve():
        server = TestServer(app)
        await server.start_server(shutdown_timeout=0.05)
        told.update(loop=asyncio.get_running_loop(), url=str(server.make_url("")).rstrip("/"))
        working = asyncio.create_task(work()) if work else None
        ready.set()
        await stopped.wait()
        if working:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        await server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield told["url"]
    finally:
        told["loop"].call_soon_threadsafe(stopped.set)
        thread.join(10)


def application(handle):
    """Make an application that answers every GET by one function."""
    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    return app
