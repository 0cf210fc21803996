"""Serving over stdin and stdout: the one place that touches the SDK's private parts.

Added to what the SDK does: an answer to every line, SIGINT and SIGTERM that end the process cleanly,
replies still under way when stdin closes, and list-changed flags for clients of the handshake era.
"""

import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any, BinaryIO, Protocol, cast

import anyio
import anyio.to_thread
from mcp.server import MCPServer, NotificationOptions
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

DRAIN_S = 5.0
"""How long requests under way may go on after stdin closed."""

# An unterminated string runs to the end, so that no text is scanned twice.
_TOKEN = re.compile(r'"(?:[^"\\]+|\\.)*+(?:"|\Z)|-?\d[\d.eE+-]*|[{}\[\]:,]', re.DOTALL)
_PLAIN_ID = re.compile(r'-?\d{1,18}|"[^"\\]*"')
_UNANSWERED = frozenset({"subscriptions/listen"})


class Replies(Protocol):
    """Where messages to the client go."""

    async def send(self, item: SessionMessage, /) -> None:
        """Send one message."""

    async def aclose(self) -> None:
        """Close the stream."""


def refusal(line: bytes) -> JSONRPCError | None:
    """Return the error that answers a line which the SDK would drop; None if it can be served.

    The error carries the request's id where one can be made out, else null.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return _error(
            PARSE_ERROR, "The message is not UTF-8; send UTF-8.", line.decode(errors="replace")
        )
    try:
        jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError:
        return _error(*_diagnosis(text), text)
    return None


def _diagnosis(text: str) -> tuple[int, str]:
    try:
        message = json.loads(text)
    except RecursionError:
        return PARSE_ERROR, "The message is nested too deeply; send flatter arguments."
    except ValueError:
        return PARSE_ERROR, "The message is not JSON; send one JSON-RPC message a line."
    if isinstance(message, list):
        return INVALID_REQUEST, "Batches are not part of MCP; send one message a line."
    try:
        json.dumps(message, ensure_ascii=False).encode()
        jsonrpc_message_adapter.validate_python(message, by_name=False)
    except UnicodeEncodeError:
        return (
            PARSE_ERROR,
            "The message holds half of a surrogate pair; send whole Unicode characters.",
        )
    except (ValidationError, RecursionError):
        return (
            INVALID_REQUEST,
            "The message is no JSON-RPC 2.0 request; check jsonrpc, id, method, params.",
        )
    return PARSE_ERROR, "The message is nested too deeply; send flatter arguments."


def _error(code: int, message: str, text: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=_request_id(text), error=ErrorData(code=code, message=message))


def _request_id(text: str) -> RequestId | None:
    """Find the value of the outermost "id", even in a text that no parser takes."""
    depth, before = 0, ["", ""]
    for match in _TOKEN.finditer(text):
        part = match[0]
        if depth == 1 and before == ['"id"', ":"] and part not in "{}[]:,":
            return json.loads(part) if _PLAIN_ID.fullmatch(part) else None
        depth += (part in "{[") - (part in "}]")
        before = [before[1], part]
    return None


class Exchange:
    """The two directions of one connection, and which requests still wait for their reply."""

    def __init__(self, lines: BinaryIO) -> None:
        self._lines = lines
        self._waiting: set[RequestId] = set()
        self._settled = anyio.Event()
        self.replies: Replies

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the lines that the SDK can serve; answer the others here."""
        while line := await self._next_line():
            if not line.strip():
                continue
            error = refusal(line)
            if error is None:
                self._note_request(line)
                yield line.decode()
            else:
                await self.replies.send(SessionMessage(error))
        await self._drain()

    async def _next_line(self) -> bytes:
        # A thread that blocks in a read cannot be interrupted, only left behind.
        return await anyio.to_thread.run_sync(self._lines.readline, abandon_on_cancel=True)

    def _note_request(self, line: bytes) -> None:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        if isinstance(message, JSONRPCRequest) and message.method not in _UNANSWERED:
            self._waiting.add(message.id)

    def note_reply(self, message: SessionMessage) -> None:
        """Take note of a message to the client."""
        if isinstance(message.message, JSONRPCResponse | JSONRPCError):
            self._waiting.discard(cast(RequestId, message.message.id))
            if not self._waiting:
                self._settled.set()
                self._settled = anyio.Event()

    async def _drain(self) -> None:
        with anyio.move_on_after(DRAIN_S):
            while self._waiting:
                await self._settled.wait()


class _Noting:
    """A write stream that tells an exchange of every message before it passes it on."""

    def __init__(self, replies: Any, exchange: Exchange) -> None:
        self._replies = replies
        self._exchange = exchange

    async def send(self, item: SessionMessage, /) -> None:
        await self._replies.send(item)
        self._exchange.note_reply(item)

    async def aclose(self) -> None:
        await self._replies.aclose()

    async def __aenter__(self) -> "_Noting":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


async def serve_stdio(server: MCPServer[Any]) -> bool:
    """Serve one client until it closes stdin or a signal comes.

    Return whether a signal ended it: then a thread may still block on stdin, and the process has to be
    left with `os._exit`.
    """
    low = server._lowlevel_server
    options = low.create_initialization_options(
        NotificationOptions(tools_changed=True, prompts_changed=True, resources_changed=True)
    )
    exchange = Exchange(sys.stdin.buffer)
    signalled = False
    async with anyio.create_task_group() as tasks:

        async def watch_signals() -> None:
            nonlocal signalled
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    signalled = True
                    tasks.cancel_scope.cancel()

        if sys.platform != "win32":
            tasks.start_soon(watch_signals)
        async with stdio_server(stdin=cast(Any, exchange)) as (read, write):
            exchange.replies = cast(Replies, _Noting(write, exchange))
            await low.run(read, cast(Any, exchange.replies), options)
        tasks.cancel_scope.cancel()
    return signalled
