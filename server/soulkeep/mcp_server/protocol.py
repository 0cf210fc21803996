"""What the SDK's server leaves out: pages of resources, and who is told of changes of which.

With `transport` the only module that touches the SDK's private parts.
"""

import base64
import weakref
from collections import defaultdict

import anyio
import anyio.to_thread
from mcp.server import CacheHint, NotificationOptions, ServerRequestContext
from mcp.server.caching import CacheableMethod
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateSecurity
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
)
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    SERVER_INFO_META_KEY,
    EmptyResult,
    Icon,
    ListResourcesResult,
    PaginatedRequestParams,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from soulkeep.errors import InvalidInputError, NotFoundError, SoulkeepError
from soulkeep.mcp_server.calls import CheckedServer
from soulkeep.mcp_server.resources import list_page, state_of
from soulkeep.service.home import Home

PAGE = 100
"""Resources in one answer of resources/list."""

HANDSHAKE = frozenset({"initialize", "server/discover", "ping"})
"""Requests that look at nothing and change nothing."""

WEBSITE = "https://pypi.org/project/soulkeep/"

_BOOKMARK = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
    b'<path fill="#b5651d" d="M4 1h8v14l-4-3-4 3z"/></svg>'
)
ICON = Icon(
    src=f"data:image/svg+xml;base64,{base64.b64encode(_BOOKMARK).decode()}",
    mime_type="image/svg+xml",
    sizes=["any"],
)

LASTING = CacheHint(ttl_ms=3_600_000)
LASTING_LISTS: dict[CacheableMethod, CacheHint] = {
    "tools/list": LASTING,
    "resources/templates/list": LASTING,
}
"""Lists that stay the same as long as the process does; clients of the modern era may keep them."""

_WHOLE_LISTS = frozenset({"tools/list", "prompts/list", "resources/templates/list"})
"""Requests that are answered on one page."""

MOST_SUBSCRIBED = 1_000
"""Resources that are looked at after each write to the store, at the most."""

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
        self.states: dict[str, str] = {}
        """What `state_of` said of each resource that is subscribed to when its change was last told."""
        self._listens = ListenHandler(self.bus)
        self._clients: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._subscribed: defaultdict[str, weakref.WeakSet[Connection]] = defaultdict(weakref.WeakSet)

    def close(self) -> None:
        """End the streams of notifications of the modern era, which go on until somebody does."""
        self._listens.close()

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
        await self._add(ctx, params.uri)
        return EmptyResult()

    async def unsubscribe(self, ctx: _Context, params: UnsubscribeRequestParams) -> EmptyResult:
        """Answer resources/unsubscribe."""
        self._remove(ctx, params.uri)
        return EmptyResult()

    async def listen(
        self, ctx: _Context, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Answer subscriptions/listen, once it ends."""
        uris = params.notifications.resource_subscriptions or []
        try:
            for uri in uris:
                await self._add(ctx, uri)
            return await self._listens(ctx, params)
        finally:
            for uri in uris:
                self._remove(ctx, uri)

    async def _add(self, ctx: _Context, uri: str) -> None:
        try:
            state = await anyio.to_thread.run_sync(state_of, ctx.lifespan_context, uri)
        except NotFoundError as error:
            raise MCPError(code=INVALID_PARAMS, message=str(error), data={"uri": uri}) from error
        except SoulkeepError as error:
            raise MCPError(code=INTERNAL_ERROR, message=str(error)) from error
        if len(self.states) >= MOST_SUBSCRIBED and uri not in self.states:
            message = f"There are {MOST_SUBSCRIBED:,} subscriptions already; end some of them first."
            raise MCPError(code=INVALID_PARAMS, message=message)
        self.states.setdefault(uri, state)
        self._subscribed[uri].add(_connection(ctx))

    def _remove(self, ctx: _Context, uri: str) -> None:
        if uri in self._subscribed:
            self._subscribed[uri].discard(_connection(ctx))
            if not self._subscribed[uri]:
                del self._subscribed[uri], self.states[uri]


def _connection(ctx: _Context) -> Connection:
    # The session is another object at each request.
    return ctx.session._connection


async def refuse_cursors(ctx: _Context, call_next: CallNext) -> HandlerResult:
    """Refuse to go on with a list that has one page, where the SDK would begin anew: SDK middleware."""
    if ctx.method in _WHOLE_LISTS and (ctx.params or {}).get("cursor") is not None:
        message = "`cursor` is none of ours, since this list has one page; list without one."
        raise MCPError(code=INVALID_PARAMS, message=message)
    return await call_next(ctx)


async def name_briefly(ctx: _Context, call_next: CallNext) -> HandlerResult:
    """Say who answers with a name and a version: SDK middleware.

    The SDK puts all that `server/discover` says of the server, its icon too, into each modern result.
    """
    result = await call_next(ctx)
    if isinstance(result, dict) and ctx.method != "server/discover":
        meta = result.get("_meta") or {}
        if SERVER_INFO_META_KEY in meta:
            info = meta[SERVER_INFO_META_KEY]
            meta[SERVER_INFO_META_KEY] = {"name": info["name"], "version": info["version"]}
    return result


def complete(server: CheckedServer, notifications: Notifications) -> None:
    """Add to a server the handlers that the SDK's does not have."""
    low = server._lowlevel_server
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, notifications.subscribe)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, notifications.unsubscribe)
    low.add_request_handler(
        "subscriptions/listen", SubscriptionsListenRequestParams, notifications.listen
    )

    async def list_resources(ctx: _Context, params: PaginatedRequestParams) -> ListResourcesResult:
        fixed = await server.list_resources()
        try:
            resources, more = await anyio.to_thread.run_sync(
                list_page, ctx.lifespan_context, fixed, PAGE, params.cursor
            )
        except InvalidInputError as error:
            raise MCPError(code=INVALID_PARAMS, message=str(error)) from error
        except SoulkeepError as error:
            raise MCPError(code=INTERNAL_ERROR, message=str(error)) from error
        return ListResourcesResult(resources=resources, next_cursor=more)

    low.add_request_handler("resources/list", PaginatedRequestParams, list_resources)


def waiting_questions() -> RequestStateSecurity:
    """Return how a question to the user is sealed: for a day, since a person may be away that long.

    The SDK's ten minutes would make an answer after lunch an error.
    """
    return RequestStateSecurity.ephemeral(ttl=24 * 3600)


def initialization_options(server: CheckedServer) -> InitializationOptions:
    """Return what the handshake announces: the SDK's defaults and the notifications that are sent."""
    options = NotificationOptions(prompts_changed=True, resources_changed=True)
    return server._lowlevel_server.create_initialization_options(options)
