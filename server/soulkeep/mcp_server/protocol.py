"""What the SDK's server leaves out: pages of resources, and who is told of changes of which.

With `homes` and `transport` the only module that touches the SDK's private parts.
"""

import base64
import weakref
from collections import defaultdict
from collections.abc import Iterable

import anyio
from mcp.server import CacheHint, NotificationOptions
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
    INVALID_PARAMS,
    SERVER_INFO_META_KEY,
    CompleteRequestParams,
    EmptyResult,
    GetPromptRequestParams,
    Icon,
    ListResourcesResult,
    PaginatedRequestParams,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from soulkeep.mcp_server import prompts
from soulkeep.mcp_server.calls import CheckedServer
from soulkeep.mcp_server.homes import HANDSHAKE, INITIALIZED, Request, connection_of, looked_up
from soulkeep.mcp_server.resources import list_page, state_of
from soulkeep.service.home import Home

PAGE = 100
"""Resources in one answer of resources/list."""

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

Change = ResourceUpdated | ResourcesListChanged | PromptsListChanged

_NOTIFIED_BY: dict[type[Change], str] = {
    ResourceUpdated: "notifications/resources/updated",
    ResourcesListChanged: "notifications/resources/list_changed",
    PromptsListChanged: "notifications/prompts/list_changed",
}


class Subscribers:
    """Who is told of changes in one home, in whichever era they speak."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        """Set once it is known what was there before the first request."""
        self.states: dict[str, str] = {}
        """What `state_of` said of each resource that is subscribed to when its change was last told."""
        self.bus = InMemorySubscriptionBus()
        self.listens = ListenHandler(self.bus)
        self.clients: weakref.WeakSet[Connection] = weakref.WeakSet()
        self.subscribed: defaultdict[str, weakref.WeakSet[Connection]] = defaultdict(weakref.WeakSet)

    async def tell(self, change: Change) -> None:
        """Tell of a change: that of a resource to whoever subscribed to it, of a list to everybody."""
        await self.bus.publish(change)
        told, about = self.clients, None
        if isinstance(change, ResourceUpdated):
            told, about = self.subscribed.get(change.uri, weakref.WeakSet()), {"uri": change.uri}
        for client in list(told):
            await client.notify(_NOTIFIED_BY[type(change)], about)

    def remove(self, connection: Connection, uris: Iterable[str] | None = None) -> None:
        """Tell a connection of these resources no more, or of none at all: it has ended."""
        for uri in list(self.subscribed) if uris is None else uris:
            if uri in self.subscribed:
                self.subscribed[uri].discard(connection)
                if not self.subscribed[uri]:
                    del self.subscribed[uri], self.states[uri]


class Notifications:
    """Tells clients what changed in their home; without a client it does nothing.

    Where homes are `watched`, requests wait until it is known what was there before them.
    """

    def __init__(self, *, watched: bool = False) -> None:
        self._watched = watched
        self._by_home: weakref.WeakKeyDictionary[Home, Subscribers] = weakref.WeakKeyDictionary()

    def of(self, home: Home) -> Subscribers:
        """Return who is told of changes in this home."""
        if home not in self._by_home:
            self._by_home[home] = Subscribers()
            if not self._watched:
                self._by_home[home].ready.set()
        return self._by_home[home]

    def close(self) -> None:
        """End the streams of notifications of the modern era, which go on until somebody does."""
        for subscribers in self._by_home.values():
            subscribers.listens.close()

    async def note_session(self, ctx: Request, call_next: CallNext) -> HandlerResult:
        """Remember a connection of the handshake era; let no request come too early: SDK middleware."""
        if ctx.method == INITIALIZED:
            connection, subscribers = connection_of(ctx), self._of(ctx)
            subscribers.clients.add(connection)
            connection.exit_stack.callback(subscribers.remove, connection)
        elif ctx.method not in HANDSHAKE and ctx.request_id is not None:
            await self._of(ctx).ready.wait()
        return await call_next(ctx)

    def _of(self, ctx: Request) -> Subscribers:
        return self.of(ctx.lifespan_context.home)

    async def subscribe(self, ctx: Request, params: SubscribeRequestParams) -> EmptyResult:
        """Answer resources/subscribe."""
        await self._add(ctx, params.uri)
        return EmptyResult()

    async def unsubscribe(self, ctx: Request, params: UnsubscribeRequestParams) -> EmptyResult:
        """Answer resources/unsubscribe."""
        self._of(ctx).remove(connection_of(ctx), [params.uri])
        return EmptyResult()

    async def listen(
        self, ctx: Request, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Answer subscriptions/listen, once it ends."""
        uris = params.notifications.resource_subscriptions or []
        try:
            for uri in uris:
                await self._add(ctx, uri)
            return await self._of(ctx).listens(ctx, params)
        finally:
            self._of(ctx).remove(connection_of(ctx), uris)

    async def _add(self, ctx: Request, uri: str) -> None:
        state = await looked_up(ctx, lambda home: state_of(home, uri), uri=uri)
        subscribers = self._of(ctx)
        if len(subscribers.states) >= MOST_SUBSCRIBED and uri not in subscribers.states:
            message = f"There are {MOST_SUBSCRIBED:,} subscriptions already; end some of them first."
            raise MCPError(code=INVALID_PARAMS, message=message)
        subscribers.states.setdefault(uri, state)
        subscribers.subscribed[uri].add(connection_of(ctx))


async def refuse_cursors(ctx: Request, call_next: CallNext) -> HandlerResult:
    """Refuse to go on with a list that has one page, where the SDK would begin anew: SDK middleware."""
    if ctx.method in _WHOLE_LISTS and (ctx.params or {}).get("cursor") is not None:
        message = "`cursor` is none of ours, since this list has one page; list without one."
        raise MCPError(code=INVALID_PARAMS, message=message)
    return await call_next(ctx)


async def name_briefly(ctx: Request, call_next: CallNext) -> HandlerResult:
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
    """Add to a server what the SDK's does not have, and what it answers without knowing for whom."""

    async def list_resources(ctx: Request, params: PaginatedRequestParams) -> ListResourcesResult:
        fixed, caller = await server.list_resources(), ctx.lifespan_context
        resources, more = await looked_up(ctx, lambda _: list_page(caller, fixed, PAGE, params.cursor))
        return ListResourcesResult(resources=resources, next_cursor=more)

    low = server._lowlevel_server
    low.add_request_handler("resources/list", PaginatedRequestParams, list_resources)
    low.add_request_handler("resources/subscribe", SubscribeRequestParams, notifications.subscribe)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, notifications.unsubscribe)
    low.add_request_handler(
        "subscriptions/listen", SubscriptionsListenRequestParams, notifications.listen
    )
    low.add_request_handler("prompts/list", PaginatedRequestParams, prompts.list_prompts)
    low.add_request_handler("prompts/get", GetPromptRequestParams, prompts.get_prompt)
    low.add_request_handler("completion/complete", CompleteRequestParams, prompts.complete)


def waiting_questions() -> RequestStateSecurity:
    """Return how a question to the user is sealed: for a day, since a person may be away that long.

    The SDK's ten minutes would make an answer after lunch an error.
    """
    return RequestStateSecurity.ephemeral(ttl=24 * 3600)


def initialization_options(server: CheckedServer) -> InitializationOptions:
    """Return what the handshake announces: the SDK's defaults and the notifications that are sent."""
    options = NotificationOptions(prompts_changed=True, resources_changed=True)
    return server._lowlevel_server.create_initialization_options(options)
