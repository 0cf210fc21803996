"""A server and the raw lines to and from it: a process, or in this one."""

import contextlib
import io
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from forks import ForkedProcess
from soulkeep.app import build_server
from soulkeep.mcp_server import protocol
from soulkeep.mcp_server.notifications import Notifications
from soulkeep.service.home import Home

COMMAND = Path(sys.executable).with_name("soulkeep.exe" if sys.platform == "win32" else "soulkeep")
STARTUP = Path(__file__).parent / "startup"
USER_CACHE = Path(__file__).parent.parent / ".pytest_cache" / "user"
OFFLINE = {
    "PYTHONPATH": os.pathsep.join(filter(None, [str(STARTUP), os.environ.get("PYTHONPATH")])),
    "XDG_CACHE_HOME": str(USER_CACHE),
}
"""The environment in which a Python that a test starts has no network and none of the user's cache."""

MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "wire", "version": "1"},
}

HANDSHAKE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "prober", "version": "1"},
}


class Wire:
    """`soulkeep serve` as a process, spoken to in lines."""

    def __init__(self, home: Path, *, installed: bool = False, **environment: str) -> None:
        """Start it: where it is not about the `installed` command, without importing all anew."""
        self.home = home
        self.process: subprocess.Popen[bytes] | ForkedProcess
        arguments = ["serve", "--home", str(home)]
        if installed or sys.platform == "win32":
            self.process = subprocess.Popen(
                [str(COMMAND), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, **environment},
            )
        else:
            self.process = ForkedProcess(arguments, {**os.environ, **environment})
        self.last_id = 0
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)

    def send_bytes(self, line: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def send(self, method: str, params: Any = None, **fields: Any) -> None:
        message = {"jsonrpc": "2.0", "method": method, **fields}
        if params is not None:
            message["params"] = params
        self.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._lines.get(timeout=20))
        return message

    def request(self, method: str, params: Any = None) -> dict[str, Any]:
        self.last_id += 1
        self.send(method, params, id=self.last_id)
        reply = self.receive()
        assert reply["id"] == self.last_id
        return reply

    def initialize(self, name: str = "wire") -> dict[str, Any]:
        reply = self.request(
            "initialize",
            {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": name, "version": "1"},
            },
        )
        self.send("notifications/initialized")
        return reply

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result: dict[str, Any] = self.request("tools/call", {"name": tool, "arguments": arguments})[
            "result"
        ]
        return result

    def finish(self) -> tuple[str, str, int]:
        """Close stdin; return what is left on stdout, all of stderr, and the exit code."""
        assert self.process.stdin
        assert self.process.stderr
        self.process.stdin.close()
        code = self.process.wait(timeout=20)
        self._reader.join(timeout=20)
        rest = b"".join(self._lines.get() for _ in range(self._lines.qsize()))
        return rest.decode(), self.process.stderr.read().decode(), code

    def kill(self) -> None:
        """End the process without warning, and close its pipes."""
        self.process.kill()
        self.process.wait()
        self._reader.join(timeout=20)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe and pipe.close()


@contextlib.asynccontextmanager
async def piped(home: Path, **environment: str) -> AsyncIterator[Any]:
    """What a client of the SDK takes to speak to `soulkeep serve` over pipes, forked as `Wire` is."""
    process = ForkedProcess(
        ["serve", "--home", str(home)], {**os.environ, **environment}, errors_to=2, text=True
    )
    to_client, heard = anyio.create_memory_object_stream[SessionMessage](0)
    said, from_client = anyio.create_memory_object_stream[SessionMessage](0)

    async def hear() -> None:
        with contextlib.suppress(anyio.BrokenResourceError):  # the client hears no more
            async with to_client:
                async for line in anyio.wrap_file(process.stdout):
                    await to_client.send(SessionMessage(jsonrpc_message_adapter.validate_json(line)))

    async def say() -> None:
        async with from_client:
            async for message in from_client:
                line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(f"{line}\n")
                process.stdin.flush()

    with process:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hear)
            tasks.start_soon(say)
            try:
                yield heard, said
            finally:
                process.stdin.close()


def served(home: Home, sent: list[str]) -> list[dict[str, Any]]:
    """Serve these lines and then the end of stdin; return what was answered."""
    notifications = Notifications()
    server = build_server(home, notifications)
    with pytest.MonkeyPatch.context() as patch:
        text = "".join(line.encode("ascii", "replace").decode() + "\n" for line in sent)
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8"))
        written = io.BytesIO()
        stdout = io.TextIOWrapper(written, "utf-8")
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(protocol, "DRAIN_S", 60.0)
        anyio.run(protocol.serve_stdio, server, anyio.sleep_forever, notifications.close)
    stdout.flush()
    return [json.loads(line) for line in written.getvalue().splitlines()]
