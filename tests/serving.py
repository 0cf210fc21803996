"""A server over HTTP, in the loop of a test or as a process, and its clients."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from forks import ForkedProcess
from soulkeep.app import Settings
from soulkeep.mcp_server.http import HttpServer
from soulkeep.serving import Address, open_http

PATIENCE_S = 60.0

JSON = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@dataclass
class Serving:
    """A server that runs, and where."""

    server: HttpServer
    url: str
    ended: anyio.Event
    """Set when it is to end, as by a signal."""

    def http(self, token: str = "", **headers: str) -> httpx2.AsyncClient:
        """Return a plain HTTP client of the server."""
        if token:
            headers["authorization"] = f"Bearer {token}"
        return httpx2.AsyncClient(base_url=self.url, headers=JSON | headers, timeout=120)

    @asynccontextmanager
    async def client(
        self, mode: str, token: str = "", home: str = "", **options: Any
    ) -> AsyncIterator[Client]:
        """Give an MCP client of a home, by its account's token."""
        url = f"{self.url}/{home}/mcp" if home else f"{self.url}/mcp"
        async with (
            self.http(token) as http,
            Client(
                streamable_http_client(url, http_client=http), mode=mode, cache=None, **options
            ) as connected,
        ):
            yield connected


@asynccontextmanager
async def serving(home: Path, **settings: Any) -> AsyncIterator[Serving]:
    """Serve what is in a folder until the end of the block."""
    with open_http(Settings(home=home, **settings), Address("127.0.0.1", 0)) as (server, listening):
        # It ends at once, rather than looks ten times a second whether it is to end.
        ended = anyio.Event()
        server.main_loop = ended.wait  # type: ignore[method-assign]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listening])
            yield Serving(server, server.url, ended)
            ended.set()


class Process:
    """`soulkeep serve --http` as a process."""

    def __init__(self, home: Path, *arguments: str, **environment: str) -> None:
        port = "0"
        if "SOULKEEP_URL" in environment:  # then it names that, not where it listens
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = str(free.getsockname()[1])
        command = ["serve", "--http", "--port", port, "--home", str(home), *arguments]
        self.process: ForkedProcess | subprocess.Popen[bytes]
        if "PYTHONPATH" in environment or sys.platform == "win32":  # which is read as Python starts
            self.process = subprocess.Popen(
                [sys.executable, "-m", "soulkeep", *command],
                stderr=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **environment},
            )
        else:
            self.process = ForkedProcess(command, {**os.environ, **environment})
        assert self.process.stderr
        self.said = self.process.stderr.readline().decode()
        found = re.search(r"https?://\S+(?=/mcp)", self.said)
        assert found, self.said + self.process.stderr.read().decode()
        self.url = found[0] if port == "0" else f"http://127.0.0.1:{port}"

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self, number: int = signal.SIGTERM) -> tuple[int | None, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out.decode(), err.decode()
