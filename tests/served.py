"""Homes over real HTTP on this machine that say no more than who uses them; tests take it from here."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from soulkeep.mcp_server.homes import ACCESS
from soulkeep.mcp_server.oauth import Authority, RequireAccess


@contextmanager
def served(authority_at: Callable[[str], Authority]) -> Iterator[str]:
    """Serve homes that say who uses them, on a port of this machine."""
    # It listens from here on: a request may come before the thread has got as far as to take it.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as ours, see `serving`
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        authority = authority_at(url)

        async def home(scope: Scope, receive: Receive, send: Send) -> None:
            access = scope["state"][ACCESS]
            body = {"account": access.account, "home": access.home, "may_write": access.may_write}
            await JSONResponse(body)(scope, receive, send)

        guarded = RequireAccess(home, authority)
        app = Starlette(
            routes=[*authority.routes, Route("/mcp", guarded), Route("/{home}/mcp", guarded)]
        )
        server = _Server(uvicorn.Config(app, log_level="warning", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield url
        finally:
            server.end()
            thread.join()


class _Server(uvicorn.Server):
    """A server that ends at once, rather than looks ten times a second whether it is to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._runs = threading.Event()

    async def main_loop(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._runs.set()
        await self._ended.wait()

    def end(self) -> None:
        self._runs.wait()
        self._loop.call_soon_threadsafe(self._ended.set)
