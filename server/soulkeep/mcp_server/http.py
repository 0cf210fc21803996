"""The server's end of the protocol over HTTP: who comes in, how often, and an end that loses no answer.

Streamable HTTP is the SDK's, in both eras; this module uses what it keeps of its sessions, which is
private. What it answers in few words to a request that it refuses is said in more here.
"""

import asyncio
import logging
import math
import os
import re
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType

import anyio
import anyio.to_thread
import uvicorn
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http import GET_STREAM_KEY, MCP_SESSION_ID_HEADER
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from sse_starlette.sse import AppStatus
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from soulkeep.errors import StoreError
from soulkeep.mcp_server.calls import CheckedServer
from soulkeep.mcp_server.homes import ACCESS, MOST_KNOWN, Homes, Sealing
from soulkeep.mcp_server.notifications import Notifications, keep_memory_together
from soulkeep.mcp_server.oauth import Authority, RequireAccess, Verifier
from soulkeep.models import Access
from soulkeep.service.accounts import Accounts

STOP_S = 60.0
"""How long calls under way may go on after a signal; a client waits about as long for an answer."""

GOODBYE_S = 1.0
"""How long it is waited that a client closes its end of a connection over which all was sent."""

STEP_S = 0.1
"""How often streams that would never end are ended meanwhile: one may have begun just now."""

LOOK_S, LOOK_AGAIN_S = 1.0, 10.0
"""How often it is looked whether somebody may do less than before; and, since tokens end by themselves
too, whether who has a stream open may still have it."""

KEYS_S = 600.0
"""How often the keys that all processes share are read: a new one is used after an hour."""

MINUTE_S = 60.0

SWITCH_S = 0.0005
"""For how long a thread that computes keeps the interpreter from others, a tenth of Python's default:
who reads the store or a request gives it up at each step, and waits for it again each time."""

FILES_OPEN = 65_536
"""How many files a server may have open, where the system lets it: an open home has up to fifteen."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """What is too much: bytes of a request, sessions of an account, and its requests in a minute.

    A session that nobody uses ends after `idle_s` seconds.
    """

    body: int
    sessions: int
    requests: int
    idle_s: float


_UNREADABLE = {
    b'"Parse error: ': (PARSE_ERROR, "The message is not JSON; send one JSON-RPC message at a time."),
    b'"Validation error: ': (
        INVALID_REQUEST,
        "The message is no JSON-RPC 2.0 request; send jsonrpc, id, method and params, one at a time.",
    ),
}
"""What is said where the SDK goes on in the words of its parser, by how it begins."""


def _refusal(
    status: int, message: str, wait_s: float | None = None, code: int = INVALID_REQUEST
) -> Response:
    error = JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=code, message=message))
    headers = {} if wait_s is None else {"Retry-After": str(math.ceil(wait_s))}
    body = error.model_dump_json(by_alias=True, exclude_unset=True)
    return Response(body, status, headers, media_type="application/json")


@dataclass(slots=True)
class _Allowance:
    left: float
    at: float


@dataclass
class Rates:
    """How many requests each account has left: so many a minute, all at once or one after another."""

    most: int
    _left: OrderedDict[str, _Allowance] = field(default_factory=OrderedDict)

    def wait_s(self, account: str) -> float:
        """Count a request; return in how many seconds it is allowed, 0 for now."""
        now, rate = time.monotonic(), self.most / MINUTE_S
        one = self._left.setdefault(account, _Allowance(self.most, now))
        self._left.move_to_end(account)
        if len(self._left) > MOST_KNOWN and self._left[next(iter(self._left))].at < now - MINUTE_S:
            self._left.popitem(last=False)
        one.left, one.at = min(one.left + (now - one.at) * rate, self.most), now
        if one.left < 1:
            return (1 - one.left) / rate
        one.left -= 1
        return 0


class Entrance:
    """Passes a request on to the SDK, unless there were too many, and says in full what that refuses."""

    def __init__(
        self, manager: StreamableHTTPSessionManager, limits: Limits, authority: Authority | None
    ) -> None:
        """Pass on to `manager`; `authority` says whether who has a stream open may keep it."""
        self._manager = manager
        self._limits = limits
        self._authority = authority
        self._rates = Rates(limits.requests)
        self._changed = anyio.Event()

    async def watch(self, accounts: Accounts, homes: Homes) -> None:
        """End what is open of those who may do less than before, whichever process made that so."""
        seen: object = None
        while True:
            with suppress(StoreError):  # the next look does it
                now = await anyio.to_thread.run_sync(accounts.access_changes)
                if seen not in (None, now):
                    await self._end_what_ended(accounts, homes)
                seen = now
            await anyio.sleep(LOOK_S)

    async def _end_what_ended(self, accounts: Accounts, homes: Homes) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
        for session, owner in list(self._manager._session_owners.items()):
            who, home = owner["client_id"], owner["subject"] or ""
            may = await anyio.to_thread.run_sync(accounts.access, who, home)
            if may is None and (opened := self._manager._server_instances.get(session)):
                await self._manager._discard_session(session, opened)
        await homes.close_others(accounts.is_open)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        access: Access | None = scope.get("state", {}).get(ACCESS)
        headers = Headers(scope=scope)
        if refused := self._too_many(headers, scope["method"], access):
            await refused(scope, receive, send)
            return
        if access is not None:
            # A session is of an account in one home, whichever of its tokens it comes with.
            token = AccessToken(token="", client_id=access.account, subject=access.home, scopes=[])
            scope["user"] = AuthenticatedUser(token)
        # By which name it is asked, and of which page, is compared as it is written.
        scope["headers"] = [
            (name, value.lower() if name in (b"host", b"origin") else value)
            for name, value in scope["headers"]
        ]
        self._note_own_address(scope)
        send = _explaining(partial(self._explained, headers), scope, receive, send)
        async with anyio.create_task_group() as tasks:
            if self._authority is not None:
                tasks.start_soon(self._end_when_refused, self._authority, scope, tasks.cancel_scope)
            await self._manager.asgi_app(scope, receive, send)
            tasks.cancel_scope.cancel()

    def _note_own_address(self, scope: Scope) -> None:
        """Go by the address at which a connection came in: not all that a machine has need have a name.

        A page that makes its own name mean this machine asks by that name, not by an address.
        """
        security, (address, _) = self._manager.security_settings, scope.get("server") or ("", 0)
        host = f"[{address}]" if ":" in address else address
        host = host.removeprefix("[::ffff:").removesuffix("]") if "." in host else host
        if security is not None and host and host not in security.allowed_hosts:
            security.allowed_hosts += [host, f"{host}:*"]

    def _too_many(self, headers: Headers, method: str, access: Access | None) -> Response | None:
        account = access.account if access else ""
        if wait_s := self._rates.wait_s(account):
            most = self._limits.requests
            message = f"There were more than {most:,} requests in a minute; go on in {wait_s:.0f} s."
            return _refusal(429, message, wait_s)
        version = headers.get(MCP_PROTOCOL_VERSION_HEADER, HANDSHAKE_PROTOCOL_VERSIONS[-1])
        opens = method == "POST" and MCP_SESSION_ID_HEADER not in headers
        if not opens or version not in HANDSHAKE_PROTOCOL_VERSIONS:
            return None
        owners = self._manager._session_owners.values()
        count = sum(owner["client_id"] == account for owner in owners)
        count = count if access else len(self._manager._server_instances)
        if count < self._limits.sessions:
            return None
        message = f"{count:,} sessions are open, which is the most; end some, or wait until one is idle."
        return _refusal(429, message, self._limits.idle_s)

    def _explained(self, headers: Headers, status: int, body: bytes) -> Response | None:
        """Return what is said where the SDK refuses a request with this status and body."""
        for beginning, (code, message) in _UNREADABLE.items():
            if status == 400 and beginning in body:
                return _refusal(400, message, code=code)
        if status == 413:
            return _refusal(413, f"A request may have {self._limits.body:,} bytes; send less at once.")
        if status == 404 and MCP_SESSION_ID_HEADER in headers:
            rule = "it ended, or another process of this server has it; initialize anew"
            return _refusal(404, f"There is no session of this id here: {rule}.")
        if status == 421:
            rule = "use its own address, or set SOULKEEP_URL to this one where the server runs"
            return _refusal(421, f"This server is not known as {headers.get('host', '')!r}; {rule}.")
        if status == 403:
            rule = "may not ask this server; whoever runs it can add them to SOULKEEP_HTTP_ORIGINS"
            return _refusal(403, f"Pages of {headers.get('origin', '')!r} {rule}.")
        if status == 503:
            return _refusal(503, "Too many sessions are open; try again later.", MINUTE_S)
        return None

    async def _end_when_refused(
        self, authority: Authority, scope: Scope, calls: anyio.CancelScope
    ) -> None:
        """End a request once who asked may not any more, or only read: it may go on for days."""
        token = Headers(scope=scope).get("authorization", "").partition(" ")[2]
        access: Access = scope["state"][ACCESS]
        now: Access | None = access
        while now == access:
            with anyio.move_on_after(LOOK_AGAIN_S):
                await self._changed.wait()
            verifier = Verifier(authority, scope["path_params"].get("home", ""))
            now = verifier.access if await verifier.verify_token(token) else None
        calls.cancel()


def _explaining(
    explained: Callable[[int, bytes], Response | None], scope: Scope, receive: Receive, send: Send
) -> Send:
    """Return what sends an answer, or what is said in place of one with its status and body."""
    refusal: Message | None = None
    is_replaced = False

    async def explain(message: Message) -> None:
        nonlocal refusal, is_replaced
        if message["type"] == "http.response.start" and message["status"] >= 400:
            refusal = message  # until its body comes
            return
        if refusal is not None:
            said = explained(refusal["status"], message.get("body", b""))
            is_replaced = said is not None
            await (send(refusal) if said is None else said(scope, receive, send))
            refusal = None
        if not is_replaced:
            await send(message)

    return explain


async def _share_keys(accounts: Accounts, sealing: Sealing) -> None:
    while True:
        await anyio.sleep(KEYS_S)
        with suppress(StoreError):  # those that there are do until then
            sealing.change(await anyio.to_thread.run_sync(accounts.keys))


class HttpServer(uvicorn.Server):
    """A server that ends after a signal once all that was asked is answered, and at once after a second.

    Streams of notifications and questions to users would never end by themselves.
    """

    def __init__(self, config: uvicorn.Config, url: str, end_streams: Callable[[], None]) -> None:
        """Serve what is reached at `url`; `end_streams` lets go what waits for what is to come."""
        super().__init__(config)
        self.url = url
        self._end_streams = end_streams

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals that end a process, which does not die of them afterwards."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; after a second signal, without waiting for anything."""
        if self.should_exit:
            os._exit(128 + sig)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, answer those there are, and end."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep_ending)
            await super().shutdown(sockets)
            tasks.cancel_scope.cancel()

    async def _keep_ending(self) -> None:
        closing: dict[asyncio.Transport, float] = {}
        while True:
            self._end_streams()
            for connection in list(self.server_state.connections):
                # A TLS connection is closed once both have said so, and idle clients do not listen.
                transport = connection.transport
                if transport.is_closing() and not transport.get_write_buffer_size():
                    since = closing.setdefault(transport, time.monotonic())
                    if time.monotonic() - since > GOODBYE_S:
                        transport.abort()
            await anyio.sleep(STEP_S)


def http_app(
    server: CheckedServer,
    homes: Homes,
    notifications: Notifications,
    beside: Callable[[], Coroutine[None, None, None]],
    limits: Limits,
    names: Collection[str],
    pages: Collection[str],
    authority: Authority | None = None,
) -> tuple[ASGIApp, Callable[[], None]]:
    """Return the app that serves homes over HTTP, and what lets go all that waits for what is to come.

    It is asked by these `names`, and by browsers from these `pages`, or not at all; and does `beside` as
    long as it runs. Without an `authority` whoever reaches it is served one home, at
    `/mcp`.
    """
    # It would cut off answers too, as soon as a signal comes.
    AppStatus.enable_automatic_graceful_drain = False
    manager = StreamableHTTPSessionManager(
        server._lowlevel_server,
        security_settings=TransportSecuritySettings(
            allowed_hosts=sorted(names), allowed_origins=sorted(pages)
        ),
        max_request_body_size=limits.body,
        session_idle_timeout=limits.idle_s,
    )
    entrance = Entrance(manager, limits, authority)
    routes = [Route("/healthz", JSONResponse({"status": "ok"}), methods=["GET"])]
    if authority is None:
        routes.append(Route("/mcp", _to_pages(entrance, pages)))
    else:
        guarded = _to_pages(RequireAccess(entrance, authority), pages)
        routes += [Route("/mcp", guarded), Route("/{home}/mcp", guarded), *authority.routes]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks, manager.run():
            tasks.start_soon(beside)
            if authority is not None:
                tasks.start_soon(entrance.watch, authority.accounts, homes)
                tasks.start_soon(_share_keys, authority.accounts, homes.sealing)
            yield
            tasks.cancel_scope.cancel()

    app = Starlette(routes=routes, lifespan=lifespan)
    return app, partial(_end_streams, homes, notifications, manager)


def _to_pages(app: ASGIApp, pages: Collection[str]) -> ASGIApp:
    """Return the app of a home to which browsers let these pages send, and read what it answers.

    They ask first, without the token; whoever else sends is refused by `app` itself.
    """
    origins = "|".join(re.escape(page).replace(r":\*", r":\d+") for page in sorted(pages))
    return CORSMiddleware(
        app,
        allow_origin_regex=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=[MCP_SESSION_ID_HEADER, "WWW-Authenticate", "Retry-After"],
    )


def _end_streams(
    homes: Homes, notifications: Notifications, manager: StreamableHTTPSessionManager
) -> None:
    notifications.close()
    homes.end_questions()
    for transport in list(manager._server_instances.values()):
        transport.close_sse_stream(GET_STREAM_KEY)


def prepare_process() -> None:
    """Let the process have as many files open as it may need, and its threads share what they free.

    Where the system does not allow either, it stays as it is.
    """
    sys.setswitchinterval(SWITCH_S)
    keep_memory_together()
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES_OPEN if hard == resource.RLIM_INFINITY else min(FILES_OPEN, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
