"""Who is told of changes, and how those behind the server's back are noticed."""

import asyncio
import contextlib
import logging
import sys
import time
import weakref
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path, PurePath

import anyio
import anyio.to_thread
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult
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
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from soulkeep.documents import DOCUMENTS, log_name
from soulkeep.errors import NotFoundError, SoulkeepError
from soulkeep.mcp_server.homes import HANDSHAKE, INITIALIZED, Request, connection_of, looked_up
from soulkeep.mcp_server.resources import CONTEXT_URI, SCHEME, STATS_URI, state_of
from soulkeep.models import GlobalPrompt
from soulkeep.service.callers import IMPORTED, RECALLED
from soulkeep.service.home import Home

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
        self.called = anyio.Event()
        """Set by a call of a tool, after which something may be another than before."""
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


@dataclass(eq=False)
class Notifications:
    """Tells clients what changed in their home; without a client it does nothing.

    Where homes are `watched`, requests wait until it is known what was there before them. Those of
    `many` are looked at after calls and from time to time: to have the system watch one takes a thread.
    So are those in a database, which also tells of what other processes commit.
    """

    watched: bool = False
    many: bool = False
    _by_home: weakref.WeakKeyDictionary[Home, Subscribers] = field(
        default_factory=weakref.WeakKeyDictionary
    )
    # They wait on while their home is closed and opened again.
    _by_path: weakref.WeakValueDictionary[Path, Subscribers] = field(
        default_factory=weakref.WeakValueDictionary
    )

    def of(self, home: Home) -> Subscribers:
        """Return who is told of changes in this home."""
        if home not in self._by_home:
            subscribers = self._by_path.get(home.path) or Subscribers()
            self._by_home[home] = self._by_path[home.path] = subscribers
            subscribers.ready = anyio.Event()
            if not self.watched:
                subscribers.ready.set()
        return self._by_home[home]

    def close(self) -> None:
        """End the streams of notifications of the modern era, which go on until somebody does."""
        for subscribers in list(self._by_path.values()):
            subscribers.listens.close()

    async def note_session(self, ctx: Request, call_next: CallNext) -> HandlerResult:
        """Remember a connection of the handshake era; let no request come too early: SDK middleware."""
        if ctx.method == INITIALIZED:
            connection, subscribers = connection_of(ctx), self.of(ctx.lifespan_context.home)
            subscribers.clients.add(connection)
            connection.exit_stack.callback(subscribers.remove, connection)
        elif ctx.method not in HANDSHAKE and ctx.request_id is not None:
            await self.of(ctx.lifespan_context.home).ready.wait()
        try:
            return await call_next(ctx)
        finally:
            if ctx.method == "tools/call":
                self.of(ctx.lifespan_context.home).called.set()

    async def subscribe(self, ctx: Request, params: SubscribeRequestParams) -> EmptyResult:
        """Answer resources/subscribe."""
        await self._add(ctx, params.uri)
        return EmptyResult()

    async def unsubscribe(self, ctx: Request, params: UnsubscribeRequestParams) -> EmptyResult:
        """Answer resources/unsubscribe."""
        self.of(ctx.lifespan_context.home).remove(connection_of(ctx), [params.uri])
        return EmptyResult()

    async def listen(
        self, ctx: Request, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Answer subscriptions/listen, once it ends."""
        uris = params.notifications.resource_subscriptions or []
        caller = ctx.lifespan_context
        subscribers = self.of(caller.home)
        try:
            for uri in uris:
                await self._add(ctx, uri)
            async with caller.only_waiting():
                return await subscribers.listens(ctx, params)
        finally:
            subscribers.remove(connection_of(ctx), uris)

    async def _add(self, ctx: Request, uri: str) -> None:
        state = await looked_up(ctx, lambda home: state_of(home, uri), uri=uri)
        subscribers = self.of(ctx.lifespan_context.home)
        if len(subscribers.states) >= MOST_SUBSCRIBED and uri not in subscribers.states:
            message = f"There are {MOST_SUBSCRIBED:,} subscriptions already; end some of them first."
            raise MCPError(code=INVALID_PARAMS, message=message)
        subscribers.states.setdefault(uri, state)
        subscribers.subscribed[uri].add(connection_of(ctx))


DEBOUNCE_MS = 300
"""How long changes are collected before they are told: an editor makes several at once."""

STEP_MS = 50
"""How long it takes at most to notice a change, or the end of the server."""

LOOK_MS = 1_000
"""How often files are looked at anyway: for what came before the watching, or from another machine."""

LOOK_AT_MANY_S = 10.0
"""How often the files of each home are looked at where a server has many."""

LAST_LOOK_S = 1.0
"""How long the telling of changes holds up the closing of a home at most."""

AGAIN_S = 5.0
"""When watching is tried again after it failed."""

STATS_S = 2.0
"""How long figures are kept back after they were told: every call changes some."""

REST_S = 30.0
"""How often is looked whether the model's memory can be given back."""

_UNSEEN = frozenset(
    {RECALLED, "message.stored", "documents.seeded", "store.reindexed", "store.reembedded"}
)
"""Events after which the context says what it said."""

_LISTED = frozenset({"store.restored", IMPORTED})
"""Events after which other threads may be there; an import adds to a change that was told before."""

_log = logging.getLogger(__name__)


_M_ARENA_MAX, _ARENAS = -8, 2
"""The option of glibc's `mallopt`, and into how many parts memory is divided among threads."""


def keep_memory_together() -> None:
    """Let threads share what they free: glibc keeps it apart for each of many, and much lies idle."""
    if sys.platform == "win32":
        return
    import ctypes  # after the first answer

    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_ARENA_MAX, _ARENAS)


async def work_beside_calls(home: Home, notifications: Notifications) -> None:
    """Do for an open home what no call waits for, and tell its clients of changes, until cancelled.

    That is to begin with what is left to do, to load what a search needs, and to give memory back after
    long disuse.
    """
    keep_memory_together()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, home, notifications)
        # Until that is done the home is not closed; it is imported here, after the first answer.
        await anyio.to_thread.run_sync(lambda: home.background.start())
        # Whoever searches hears of an error; a server that ends does not wait for the loading.
        with contextlib.suppress(SoulkeepError):
            await anyio.to_thread.run_sync(home.indexes.get_ready, abandon_on_cancel=True)
        while True:
            await anyio.sleep(REST_S)
            with contextlib.suppress(SoulkeepError):
                await anyio.to_thread.run_sync(home.memories.rest)


async def watch(home: Home, notifications: Notifications) -> None:
    """Tell the client of changes until cancelled.

    Where the system cannot watch, the log says so once: nothing else depends on it.
    """
    subscribers = notifications.of(home)
    seen, said = _Seen(home, subscribers.states), ""
    while True:
        try:
            try:
                first = partial(seen.look, None if notifications.many else ())
                changes = await anyio.to_thread.run_sync(first)
            finally:
                subscribers.ready.set()
            await _tell(home, subscribers, changes)
            is_told = notifications.many or home.documents.texts.in_store
            keep_looking = _look_when_told if is_told else _watch_files
            await keep_looking(home, subscribers, seen)
        except* (OSError, RuntimeError, SoulkeepError) as errors:
            problem = str(errors.exceptions[0])
            if problem != said:
                _log.warning("changes of files are not noticed: %s", problem)
            said = problem
        await anyio.sleep(AGAIN_S)


async def _watch_files(home: Home, subscribers: Subscribers, seen: "_Seen") -> None:
    # Imported here, as nothing may slow the first answer.
    from watchfiles import awatch

    # Some systems tell the real path of what changed, whatever they were asked to watch.
    root = home.path.resolve()
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_set_when_cancelled, stop)
        async for changes in awatch(
            root,
            watch_filter=partial(_is_relevant, root),
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            stop_event=stop,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
        ):
            names = [Path(path).relative_to(root).as_posix() for _, path in changes]
            await _tell(home, subscribers, await anyio.to_thread.run_sync(seen.look, names))


async def _look_when_told(home: Home, subscribers: Subscribers, seen: "_Seen") -> None:
    look, loop = partial(seen.look, ()), asyncio.get_running_loop()

    try:
        with home.hearing(lambda: loop.call_soon_threadsafe(lambda: subscribers.called.set())):
            while True:
                with anyio.move_on_after(LOOK_AT_MANY_S) as scope:
                    await subscribers.called.wait()
                await anyio.sleep(DEBOUNCE_MS / 1000)
                subscribers.called = anyio.Event()
                now = partial(seen.look, None) if scope.cancelled_caught else look
                await _tell(home, subscribers, await anyio.to_thread.run_sync(now))
    finally:
        # The home is about to be closed, and those who wait may have to be told of the last call.
        with anyio.move_on_after(LAST_LOOK_S, shield=True):
            await _tell(home, subscribers, await anyio.to_thread.run_sync(look))


async def _set_when_cancelled(stop: anyio.Event) -> None:
    # The thread that waits for changes does not notice a cancellation.
    try:
        await anyio.sleep_forever()
    finally:
        stop.set()


def _is_relevant(root: Path, _: object, path: str) -> bool:
    """Whether a path is that of a document, a daily log or the store."""
    changed = Path(path)
    if changed.parent == root:
        return changed.name in DOCUMENTS or changed.name.endswith((".db", ".db-wal"))
    return changed.parent == root / "daily" and _day(changed) is not None


@dataclass(frozen=True, slots=True)
class _Changes:
    """What became different between two looks; files by their names in the home."""

    files: frozenset[str] = frozenset()
    updated: frozenset[str] = frozenset()
    """Addresses of other resources."""
    offers: bool = False
    listed: bool = False
    """Whether there are other resources than before."""
    states: Mapping[str, str] = field(default_factory=dict, compare=False)
    """What `state_of` says of those resources that are subscribed to, to be noted when that is told."""

    def with_states(self, states: Mapping[str, str]) -> "_Changes":
        """Return these changes and those of resources that are subscribed to."""
        return replace(self, updated=self.updated | {*states}, states={**self.states, **states})


@dataclass(slots=True)
class _Seen:
    """What was last told of the files and of the store.

    A write to the store is looked into by what it added to the logs of events and changes, so a look
    costs the same however much the store holds. `states` are those of the resources subscribed to.
    """

    home: Home
    states: dict[str, str] = field(default_factory=dict)
    _stamps: dict[str, str | None] = field(default_factory=dict, init=False)
    _writes: Hashable = field(default=None, init=False)
    _told: tuple[int, int] | None = field(default=None, init=False)
    _outline: str | None = field(default=None, init=False)
    _offers: str = field(default="", init=False)
    _prompts: list[GlobalPrompt] = field(default_factory=list, init=False)
    _are_figures_due: bool = field(default=False, init=False)
    _figures_told: float = field(default=-STATS_S, init=False)
    _rows: Mapping[str, object] = field(default_factory=dict, init=False)

    def look(self, names: Iterable[str] | None) -> _Changes:
        """Return what changed since the last look, in files of these names or all, and those of now.

        The first look finds nothing changed.

        Raises:
            StoreError: The store cannot be read.
        """
        texts = self.home.documents.texts
        if texts.in_store:  # there one look tells whether any of them was changed
            former, self._rows = self._rows, texts.stamps(["daily"])
            names = names if self._rows == former else None
        if names is None:
            names = {*map(log_name, self.home.documents.list_daily()), *self._stamps}
        changes, before, different = self._look_at_files(names), self._writes, dict[str, str]()
        writes = self.home.revision()
        if writes != before:
            self.home.background.note_work()
            self._told, events, other_threads = self.home.news(self._told)
            changes = self._look_at_events(changes, events, other_threads=other_threads)
            if events != {RECALLED}:  # the most frequent, of which no resource shows anything
                different = self._different(uri for uri in [*self.states] if uri != STATS_URI)
                changes = changes.with_states(different)
            self._writes = writes
        self._are_figures_due |= writes != before or bool(changes.files)
        if before is None:
            # Somebody may have waited already while the home was closed.
            return _Changes().with_states(different)
        now = time.monotonic()
        if self._are_figures_due and now - self._figures_told >= STATS_S:
            self._are_figures_due = False
            if figures := self._different([STATS_URI]):
                self._figures_told = now
                changes = changes.with_states(figures)
        return changes

    def _look_at_files(self, names: Iterable[str]) -> _Changes:
        today = log_name(self.home.documents.today())
        looked_at = sorted(name for name in {*names, *DOCUMENTS, today} if name.endswith(".md"))
        there = self.home.documents.texts.stamps(looked_at)
        now = {name: there[name][0] if name in there else None for name in looked_at}
        # The log of another day was not looked at before it changed, so it may be new.
        before = {name: self._stamps.get(name) for name in now}
        changed = {name for name in now if now[name] != before[name]}
        self._stamps |= now
        listed = any(None in (now[name], before[name]) for name in changed)
        context = {CONTEXT_URI} if changed else ()
        return _Changes(files=frozenset(changed), updated=frozenset(context), listed=listed)

    def _look_at_events(
        self, changes: _Changes, events: AbstractSet[str], *, other_threads: bool
    ) -> _Changes:
        outline, offered, says_more = self.home.prompts.outline(), False, False
        told = any(event.startswith(("prompt.", "change.", "store.")) for event in events)
        if outline != self._outline or told:
            from soulkeep.service.prompts import fingerprint

            offers = self.home.prompts.list_offers()
            seen, prompts = fingerprint(offers), [offer.prompt for offer in offers]
            offered, says_more = seen != self._offers, prompts != self._prompts
            self._outline, self._offers, self._prompts = outline, seen, prompts
        context = {CONTEXT_URI} if says_more or events - _UNSEEN else set()
        return replace(
            changes,
            updated=changes.updated | context,
            offers=offered,
            listed=changes.listed or other_threads or not events.isdisjoint(_LISTED),
        )

    def _different(self, uris: Iterable[str]) -> dict[str, str]:
        """Return what is said now of those that are subscribed to and were told otherwise."""
        different = {}
        for uri in uris:
            told = self.states.get(uri)
            if told is not None and (state := _state_now(self.home, uri)) != told:
                different[uri] = state
        return different


def _state_now(home: Home, uri: str) -> str:
    try:
        return state_of(home, uri)
    except NotFoundError as error:
        return str(error)


async def _tell(home: Home, subscribers: Subscribers, changes: _Changes) -> None:
    if changes.files:
        home.background.note_change(changes.files)
    days = {name: _day(PurePath(name)) for name in changes.files}
    files = {f"{SCHEME}daily/{day}" if day else f"{SCHEME}{name}" for name, day in days.items()}
    for uri in sorted(files | changes.updated):
        await subscribers.tell(ResourceUpdated(uri=uri))
        if uri in changes.states and uri in subscribers.states:
            # Not before: where the home is closed meanwhile, it is told when that is open again.
            subscribers.states[uri] = changes.states[uri]
    if changes.offers:
        await subscribers.tell(PromptsListChanged())
    if changes.listed:
        await subscribers.tell(ResourcesListChanged())


def _day(path: PurePath) -> date | None:
    if path.suffix != ".md":
        return None
    try:
        return date.fromisoformat(path.stem)
    except ValueError:
        return None
