"""What the SDK's server leaves out: pages of resources, and notifications in the handshake era.

With `transport` the only module that touches the SDK's private parts.
"""

import base64
import binascii
import weakref
from collections import defaultdict

import anyio
import anyio.to_thread
from mcp.server import NotificationOptions, ServerRequestContext
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
)
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    EmptyResult,
    ListResourcesResult,
    PaginatedRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

from soulkeep.calls import CheckedServer
from soulkeep.errors import SoulkeepError
from soulkeep.resources import list_changing
from soulkeep.service.home import Home

PAGE = 100
"""Resources in one answer of resources/list."""

HANDSHAKE = frozenset({"initialize", "server/discover", "ping"})
"""Requests that look at nothing and change nothing."""

_Context = ServerRequestContext[Home, object]


class Notifications:
    """Tells the client what changed, in whichever era it speaks; without a client it does nothing.

    Where a home is `watched`, requests wait until `ready` is set: until it is known what was there
    before them, for otherwise what they change would go untold.
    """

    def __init__(self, *, watched: bool = False) -> None:
        self.bus = InMemorySubscriptionBus()
        self.ready = anyio.Event()
        if not watched:
            self.ready.set()
        self._clients: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._subscribed: defaultdict[str, weakref.WeakSet[Connection]] = defaultdict(weakref.WeakSet)

    async def resource_updated(self, uri: str) -> None:
        """Say that what a resource holds has changed, to whoever subscribed to it."""
        await self.bus.publish(ResourceUpdated(uri=uri))
        for client in list(self._subscribed.get(uri, ())):
            await client.notify("notifications/resources/updated", {"uri": uri})

    async def resources_changed(self) -> None:
        """Say that there are other resources than before."""
        await self.bus.publish(ResourcesListChanged())
        for client in list(self._clients):
            await client.notify("notifications/resources/list_changed", None)

    async def prompts_changed(self) -> None:
        """Say that prompts/list would answer otherwise than before."""
        await self.bus.publish(PromptsListChanged())
        for client in list(self._clients):
            await client.notify("notifications/prompts/list_changed", None)

    async def note_session(self, ctx: _Context, call_next: CallNext) -> HandlerResult:
        """Remember a connection of the handshake era; let no request come too early: SDK middleware."""
        if ctx.method == "notifications/initialized":
            self._clients.add(_connection(ctx))
        elif ctx.method not in HANDSHAKE:
            await self.ready.wait()
        return await call_next(ctx)

    async def subscribe(self, ctx: _Context, params: SubscribeRequestParams) -> EmptyResult:
        """Answer resources/subscribe."""
        self._subscribed[params.uri].add(_connection(ctx))
        return EmptyResult()

    async def unsubscribe(self, ctx: _Context, params: UnsubscribeRequestParams) -> EmptyResult:
        """Answer resources/unsubscribe."""
        self._subscribed[params.uri].discard(_connection(ctx))
        return EmptyResult()


def _connection(ctx: _Context) -> Connection:
    # The session is another object at each request.
    return ctx.session._connection


def complete(server: CheckedServer, notifications: Notifications) -> None:
    """Add to a server the handlers that the SDK's does not have."""
    low = server._lowlevel_server
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, notifications.subscribe)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, notifications.unsubscribe)

    async def list_resources(ctx: _Context, params: PaginatedRequestParams) -> ListResourcesResult:
        home = ctx.lifespan_context
        fixed = {resource.uri: resource for resource in await server.list_resources()}
        try:
            changing = await anyio.to_thread.run_sync(list_changing, home)
        except SoulkeepError as error:
            raise MCPError(code=INTERNAL_ERROR, message=str(error)) from error
        every = list((fixed | {resource.uri: resource for resource in changing}).values())
        begin = _place(params.cursor)
        more = _cursor(begin + PAGE) if begin + PAGE < len(every) else None
        return ListResourcesResult(resources=every[begin : begin + PAGE], next_cursor=more)

    low.add_request_handler("resources/list", PaginatedRequestParams, list_resources)


def initialization_options(server: CheckedServer) -> InitializationOptions:
    """Return what the handshake announces: the SDK's defaults and the notifications that are sent."""
    options = NotificationOptions(prompts_changed=True, resources_changed=True)
    return server._lowlevel_server.create_initialization_options(options)


def _cursor(place: int) -> str:
    return base64.urlsafe_b64encode(str(place).encode()).decode()


def _place(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        place = base64.urlsafe_b64decode(cursor.encode())
    except (ValueError, binascii.Error):
        place = b""
    if not place.isdigit() or len(place) > 9:
        raise MCPError(code=INVALID_PARAMS, message="The cursor is none of ours; list without one.")
    return int(place)
