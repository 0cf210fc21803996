"""Serving over stdin and stdout; with `protocol` the only module that touches the SDK's private parts.

Added to what the SDK does: an answer to every line, SIGINT and SIGTERM that end the process cleanly, and
replies still under way when stdin closes.
"""

import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, BinaryIO, cast

import anyio
import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.models import InitializationOptions
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCMessage,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError

from soulkeep.protocol import HANDSHAKE

DRAIN_S = 5.0
"""How long requests under way may go on after stdin closed."""

# An unterminated string runs to the end, so that no text is scanned twice.
_TOKEN = re.compile(r'"(?:[^"\\]+|\\.)*+(?:"|\Z)|-?\d[\d.eE+-]*|[{}\[\]:,]', re.DOTALL)
_PLAIN_ID = re.compile(r'-?\d{1,18}|"[^"\\]*"')
_UNANSWERED = frozenset({"subscriptions/listen"})


class RefusedError(Exception):
    """A line that the SDK would drop without an answer; `error` is the answer to it."""

    def __init__(self, code: int, message: str, text: str) -> None:
        self.error = JSONRPCError(
            jsonrpc="2.0", id=_request_id(text), error=ErrorData(code=code, message=message)
        )
        super().__init__(message)


def parse_line(line: bytes) -> JSONRPCMessage:
    """Return the message that a line holds.

    Raises:
        RefusedError: The line holds none that can be served. Its error carries the request's id where
            one can be made out, else null.
    """
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = line.decode(errors="replace")
        raise RefusedError(PARSE_ERROR, "The message is not UTF-8; send UTF-8.", text) from None
    try:
        message = jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError:
        raise RefusedError(*_diagnosis(text), text) from None
    if isinstance(message, JSONRPCNotification) and "id" in json.loads(text):
        rule = "An id must be a string or a whole number; leave it out of a notification."
        raise RefusedError(INVALID_REQUEST, rule, text)
    return message


def _diagnosis(text: str) -> tuple[int, str]:
    """Say why pydantic's parser, which stops at its first problem, took offence."""
    try:
        message = json.loads(text)
        json.dumps(message, ensure_ascii=False).encode()
        jsonrpc_message_adapter.validate_python(message, by_name=False)
    except RecursionError:
        return PARSE_ERROR, "The message is nested too deeply; send flatter arguments."
    except UnicodeEncodeError:
        return PARSE_ERROR, "The message holds half of a surrogate pair; send whole Unicode characters."
    except ValidationError:
        return INVALID_REQUEST, (
            "The message is no JSON-RPC 2.0 request; send jsonrpc, id, method and params, one a line."
        )
    except ValueError:
        return PARSE_ERROR, "The message is not JSON; send one JSON-RPC message a line."
    return PARSE_ERROR, "The message is nested too deeply; send flatter arguments."


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
        self.begun = anyio.Event()
        """The first reply was sent, or the client asked for more than a handshake."""
        self.replies: _Noting

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield the lines that the SDK can serve; answer the others here."""
        while line := await self._next_line():
            if not line.strip():
                continue
            try:
                self._note_request(parse_line(line))
            except RefusedError as refused:
                await self.replies.send(SessionMessage(refused.error))
            else:
                yield line.decode()
        await self._drain()

    async def _next_line(self) -> bytes:
        # A thread that blocks in a read cannot be interrupted, only left behind.
        return await anyio.to_thread.run_sync(self._lines.readline, abandon_on_cancel=True)

    def _note_request(self, message: JSONRPCMessage) -> None:
        if isinstance(message, JSONRPCRequest):
            if message.method not in _UNANSWERED:
                self._waiting.add(message.id)
            if message.method not in HANDSHAKE:
                self.begun.set()
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            # A cancelled request is never answered.
            self._waiting.discard((message.params or {}).get("requestId", ""))

    def note_reply(self, message: SessionMessage) -> None:
        """Take note of a message to the client."""
        if isinstance(message.message, JSONRPCResponse | JSONRPCError):
            self._waiting.discard(cast(RequestId, message.message.id))
            self.begun.set()
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


async def serve_stdio(
    server: MCPServer[Any], options: InitializationOptions, meanwhile: Callable[[], Awaitable[None]]
) -> bool:
    """Serve one client until it closes stdin or a signal comes; do `meanwhile` once it has begun.

    That is from the first reply on, or the first request that is no handshake. Return whether a signal
    ended it: then a thread may still block on stdin, and the process has to be left with `os._exit`.
    """
    low = server._lowlevel_server
    exchange = Exchange(sys.stdin.buffer)
    signalled = False

    async def once_begun() -> None:
        await exchange.begun.wait()
        await meanwhile()

    async def end_on_signal(scope: anyio.CancelScope) -> None:
        nonlocal signalled
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                signalled = True
                scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            if sys.platform != "win32":
                tasks.start_soon(end_on_signal, tasks.cancel_scope)
            tasks.start_soon(once_begun)
            async with stdio_server(stdin=cast(Any, exchange)) as (read, write):
                exchange.replies = _Noting(write, exchange)
                await low.run(read, cast(Any, exchange.replies), options)
            tasks.cancel_scope.cancel()
    except* BrokenPipeError:
        # The client went away with replies still to come; nobody is left to tell.
        pass
    return signalled
