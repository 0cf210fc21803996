"""Whose request it is: the home that it is for, and what the connection that sent it has of its own."""

import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import anyio
import anyio.abc
import anyio.to_thread
from mcp import MCPError
from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.request_state import AESGCMRequestStateCodec
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS

from soulkeep.errors import InvalidInputError, NotFoundError, SoulkeepError, StoreError
from soulkeep.models import Access, Session
from soulkeep.service.home import Home

HANDSHAKE = frozenset({"initialize", "server/discover", "ping"})
"""Requests that look at nothing and change nothing."""

MOST_OPEN = 100
"""How many homes stay open at the most, beside those that somebody is using."""

IDLE_S = 900.0
"""How long a home that nobody uses stays open, and a tenth longer at the most."""

LEAST_PAUSE_S = 0.1
"""How often at the most it is looked which homes nobody uses."""

MOST_MEMORY = 1_000_000_000
"""How many bytes all open homes keep in memory together of what they read for searches. The one that was
used last may take more: the codes of two million memories do."""

MODERN = "2026-07-28"
"""From this version of the protocol on there is no handshake, and a question is the result of a call."""

MOST_WAITED_FOR = 1_000
"""How many homes stay open at the most where clients only wait to be told of changes."""

WRITERS, ALL_WRITERS = 8, 64
"""The threads of calls that may write to one home, and to all: they wait for one another. All other
calls share those that anyio gives, 40."""

AT_ONCE, COMPUTING_AT_ONCE = 4, 1
"""How many calls that read work at the same time, and as many that write: more would share the same
interpreter, and all of them take the longer. The second is for calls that wait for no other machine."""

LONG_S = 0.25
"""After so long a call that works counts as one that waits: for a lock, a disk or an endpoint."""

MOST_KNOWN = 1_000
"""Of how many sessions and accounts something is remembered that may be forgotten; the latest used."""

ACCESS = "soulkeep.access"
"""Under which key of the state of an HTTP request its `Access` is."""

INITIALIZED = "notifications/initialized"

_OPENS_SESSION = frozenset({INITIALIZED, "resources/read"})
"""Requests after which a connection has its row in sessions, as after any tool call. A process that a
client starts only to probe the protocol leaves none."""

Request = ServerRequestContext[Any, Any]
"""A request, whose `lifespan_context` is the `Caller` once it is known which home it is for."""

_Result = TypeVar("_Result")

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Client:
    """What one connection has of its own while it lasts: its session in each home, and its keys."""

    sessions: OrderedDict[tuple[Path, str], Session] = field(default_factory=OrderedDict)
    keys: Sequence[bytes] = field(default_factory=lambda: [secrets.token_bytes(32)])
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(eq=False)
class Turns:
    """Lets so many work at a time, of those who wait one of each account after the other.

    Who takes longer than `LONG_S` no longer counts, so nobody is held up by what only waits.
    """

    most: int = AT_ONCE
    _working: dict[anyio.Event, float] = field(default_factory=dict)
    _waiting: OrderedDict[str, deque[anyio.Event]] = field(default_factory=OrderedDict)

    @asynccontextmanager
    async def one(self, account: str) -> AsyncIterator[None]:
        """Do what is in the block when it is its turn."""
        mine = anyio.Event()
        self._waiting.setdefault(account, deque()).append(mine)
        self._call_next()
        try:
            while not mine.is_set():
                with anyio.move_on_after(LONG_S):
                    await mine.wait()
                self._call_next()
            yield
        finally:
            self._working.pop(mine, None)
            if not mine.is_set():
                self._waiting[account].remove(mine)
            self._call_next()

    def _call_next(self) -> None:
        now = time.monotonic()
        while self._waiting:
            if sum(now - begun < LONG_S for begun in self._working.values()) >= self.most:
                return
            account, events = self._waiting.popitem(last=False)
            if events:
                event = events.popleft()
                self._working[event] = now
                event.set()
            if events:
                self._waiting[account] = events


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a request is served: a home, and the connection that asks.

    `agent_id` is the name that it gives, behind that of its account, if it has one.
    """

    home: Home
    client: Client
    agent_id: str
    access: Access
    reads: Turns
    """Those of the calls that read, of all homes, and of the calls that write."""
    writes: Turns
    writing: anyio.CapacityLimiter
    """How many calls may write to the home at the same time."""
    writers: anyio.CapacityLimiter
    """Their threads, which all homes share."""
    only_waiting: Callable[[], AbstractAsyncContextManager[None]]
    """Lets the home be closed in the block, in which the request waits to be told of changes."""
    questions: set[anyio.CancelScope]
    """What ends the waiting for the answers of users."""

    def session(self) -> Session:
        """Return the connection's session in the home, opening it on first use.

        Raises:
            StoreError: The store cannot be read.
        """
        place = self.home.path, self.agent_id
        with self.client.lock:
            if place not in self.client.sessions:
                self.client.sessions[place] = self.home.sessions.open(self.agent_id)
            self.client.sessions.move_to_end(place)
            while len(self.client.sessions) > MOST_KNOWN:
                self.client.sessions.popitem(last=False)
            return self.client.sessions[place]

    def mark(self, text: str) -> str:
        """Return what no other connection, and none to another home, makes of a text."""
        return self._marks(text)[0]

    def is_marked(self, text: str, mark: object) -> bool:
        """Whether `mark` made this of the text, be it by a key from before."""
        return mark in self._marks(text)

    def _marks(self, text: str) -> list[str]:
        # By name: processes on two machines may have the same homes in folders of other names.
        marked = f"{self.access.home or self.home.path}\n{text}".encode(errors="surrogatepass")
        return [hmac.new(key, marked, hashlib.sha256).hexdigest() for key in self.client.keys]


class Sealing:
    """The keys of a server, which seal what clients give back to any of its processes."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Seal with the first of these keys; what was sealed with any of them is good."""
        self.change(keys)

    def change(self, keys: Sequence[bytes]) -> None:
        """Go on with these keys."""
        codec = AESGCMRequestStateCodec(keys)
        self.keys, self.seal, self.unseal = keys, codec.seal, codec.unseal


@dataclass(slots=True)
class _Open:
    home: Home
    users: int = 0
    used_at: float = 0.0
    memory: int = 0
    """How many bytes it kept of what it read for searches when it was given back last."""
    writing: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(WRITERS))
    beside: tuple[anyio.CancelScope, anyio.Event] | None = None
    """What ends the work beside calls, where there is any, and whether it has ended."""


class Homes:
    """The homes that a server serves: opens the one that a request is for, closes what nobody uses.

    In use is a home while a request for it is served. The others are closed after a while, or when they
    are too many, the longest unused first. Those where a client waits to be told of changes, one of the
    handshake era as long as it is connected, are closed only when they are too many. Where what all
    have read takes too much memory, the longest unused give back theirs. It is looked whenever a home
    is given back, and from time to time while this runs.
    """

    def __init__(
        self,
        name_of: Callable[[Request], str],
        open_home: Callable[[str], Home],
        *,
        most_open: int = MOST_OPEN,
        most_waited_for: int = MOST_WAITED_FOR,
        idle_s: float = IDLE_S,
        most_memory: int = MOST_MEMORY,
        at_once: int = AT_ONCE,
        sealing: Sealing | None = None,
    ) -> None:
        """Serve the home that `open_home` makes of the name that `name_of` gives a request.

        `open_home` is called in a worker thread.
        """
        self._name_of = name_of
        self._open_home = open_home
        self._most_open, self._most_waited_for = most_open, most_waited_for
        self._idle_s = idle_s
        self._most_memory = most_memory
        self._reads, self._writes, self._openings = Turns(at_once), Turns(at_once), Turns(1)
        self._changing: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._gone: set[str] = set()
        self.sealing = sealing or Sealing([secrets.token_bytes(32)])
        self._writers = anyio.CapacityLimiter(ALL_WRITERS)
        self._questions: set[anyio.CancelScope] = set()
        self._begin: Callable[[_Open], None] = lambda _: None
        self._tasks: anyio.abc.TaskGroup | None = None

    @classmethod
    def only(cls, home: Home) -> "Homes":
        """Serve one home that is open already."""
        homes = cls(lambda _: "", lambda _: home)
        homes._open[""] = _Open(home, users=1)
        home.serve()
        return homes

    async def run(self, beside: Callable[[Home], Awaitable[None]]) -> None:
        """Do `beside` for each home as long as it is open, and close those that nobody uses.

        It ends when it is cancelled, which a server does before it closes the homes.
        """
        async with anyio.create_task_group() as tasks:
            self._begin, self._tasks = partial(_begin, tasks, beside), tasks
            try:
                for one in self._open.values():
                    self._begin(one)
                while True:
                    await anyio.sleep(max(self._idle_s / 10, LEAST_PAUSE_S))
                    await self._limit()
            finally:
                self._begin, self._tasks = lambda _: None, None

    async def choose(self, ctx: Request, call_next: CallNext) -> HandlerResult:
        """Let a request be served for its home and its connection: SDK middleware."""
        if ctx.method in HANDSHAKE or (ctx.request_id is None and ctx.method != INITIALIZED):
            return await call_next(ctx)
        name = self._name_of(ctx)
        async with self._used(name) as used:
            if ctx.method == INITIALIZED:
                await connection_of(ctx).exit_stack.enter_async_context(self._waited_for(name))
            caller = self._caller(ctx, name, used)
            if ctx.method in _OPENS_SESSION:
                await anyio.to_thread.run_sync(caller.session)
            return await call_next(replace(ctx, lifespan_context=caller))

    def _caller(self, ctx: Request, name: str, used: _Open) -> Caller:
        about, access = ctx.session.client_params, access_of(ctx)
        agent_id = about.client_info.name if about else ""
        if access.account:
            agent_id = f"{access.account}/{agent_id}" if agent_id else access.account
        # In the handshake era the SDK has an object for each connection, also where many share a
        # lifespan. In the modern one a connection over HTTP lasts as long as a request, so that an
        # account takes its place; over one pipe it lasts as long as a run of the server, whose lifespan
        # this is.
        if ctx.protocol_version < MODERN:
            client = connection_of(ctx).state.setdefault("soulkeep", Client())
        else:
            client = self._client_of(access.account) if access.account else ctx.lifespan_context
        waiting, questions = partial(self._only_waiting, name, used), self._questions
        return Caller(
            used.home,
            client,
            agent_id,
            access,
            self._reads,
            self._writes,
            used.writing,
            self._writers,
            waiting,
            questions,
        )

    def _client_of(self, account: str) -> Client:
        client = self._clients.setdefault(account, Client())
        self._clients.move_to_end(account)
        client.keys = [
            hmac.new(key, account.encode(), hashlib.sha256).digest() for key in self.sealing.keys
        ]
        if len(self._clients) > MOST_KNOWN:
            self._clients.popitem(last=False)
        return client

    async def close_others(self, is_there: Callable[[str], bool]) -> None:
        """Close the homes that are no more, as soon as nobody uses them; `is_there` may take a while."""
        names = list(self._open)
        there = await anyio.to_thread.run_sync(lambda: [name for name in names if is_there(name)])
        self._gone = set(names) - set(there)
        await self._limit()

    def end_questions(self) -> None:
        """Let the users that are being asked count as not asked: their answers cannot come any more."""
        for scope in self._questions:
            scope.cancel()

    @asynccontextmanager
    async def _waited_for(self, name: str) -> AsyncIterator[None]:
        self._waiting[name] += 1
        try:
            yield
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name]
            await self._limit()

    @asynccontextmanager
    async def _only_waiting(self, name: str, used: _Open) -> AsyncIterator[None]:
        async with self._waited_for(name):
            used.users -= 1
            try:
                yield
            finally:
                used.users += 1

    @asynccontextmanager
    async def _used(self, name: str) -> AsyncIterator[_Open]:
        if name not in self._open:
            # Others may be opened meanwhile: one that is brought to a newer schema takes long.
            async with self._lock_of(name), self._openings.one(name):
                if name not in self._open:  # nobody opened it meanwhile
                    try:
                        home = await anyio.to_thread.run_sync(self._open_home, name)
                    except SoulkeepError as error:
                        raise MCPError(code=INTERNAL_ERROR, message=str(error)) from error
                    home.serve()
                    self._open[name] = _Open(home)
                    self._begin(self._open[name])
                used = self._open[name]
                used.users += 1
        else:
            used = self._open[name]
            used.users += 1
        try:
            yield used
        finally:
            used.users -= 1
            used.used_at, used.memory = time.monotonic(), used.home.memory_used
            if self._open.get(name) is used:  # it may have been closed while a client only waited
                self._open.move_to_end(name)
            await self._limit()

    async def _limit(self) -> None:
        """Close homes that are unused for long or too many, and let others give back memory."""
        idle = [name for name, one in self._open.items() if not one.users]
        waited_for = [name for name in idle if name in self._waiting]
        unused = [name for name in idle if name not in self._waiting]
        until, surplus = time.monotonic() - self._idle_s, len(unused) - self._most_open
        too_many = waited_for[: max(len(waited_for) - self._most_waited_for, 0)]
        old = [
            name
            for place, name in enumerate(unused)
            if place < surplus or self._open[name].used_at <= until or name in self._gone
        ]
        for name, one in [(name, self._open.pop(name)) for name in (*old, *too_many)]:
            if self._tasks is None:
                await self._close(name, one)
            else:  # an answer does not wait for it
                self._tasks.start_soon(self._close, name, one)
        with anyio.CancelScope(shield=True):
            kept = list(self._open.values())
            memory = sum(one.memory for one in kept)
            for one in kept[:-1] if memory > self._most_memory else ():
                if one.memory and memory > self._most_memory:
                    memory, one.memory = memory - one.memory, 0
                    with suppress(StoreError):  # the next search says so
                        await anyio.to_thread.run_sync(one.home.memories.release_memory)

    async def _close(self, name: str, one: _Open) -> None:
        """Close a home that is no longer among the open ones, before it can be opened again."""
        with anyio.CancelScope(shield=True):
            async with self._lock_of(name):
                if one.beside is not None:
                    scope, ended = one.beside
                    scope.cancel()
                    await ended.wait()
                try:
                    await anyio.to_thread.run_sync(one.home.close)
                except StoreError as error:  # nobody waits for it who could be told
                    _log.warning("%s", error)

    def _lock_of(self, name: str) -> anyio.Lock:
        """Return what lets one at a time open or close a home, as long as anybody does."""
        return self._changing.setdefault(name, anyio.Lock())

    def close(self) -> None:
        """Close the homes that are open; nothing may be served any more."""
        while self._open:
            self._open.popitem()[1].home.close()


def _begin(tasks: anyio.abc.TaskGroup, beside: Callable[[Home], Awaitable[None]], opened: _Open) -> None:
    scope, ended = opened.beside = anyio.CancelScope(), anyio.Event()

    async def until_closed() -> None:
        try:
            with scope:
                await beside(opened.home)
        finally:
            ended.set()

    tasks.start_soon(until_closed)


def access_of(ctx: Request) -> Access:
    """Return who asks for which home; over a pipe, and without accounts, anybody may do all."""
    scope = getattr(ctx.request, "scope", {})
    access: Access = scope.get("state", {}).get(ACCESS, _ANYBODY)
    return access


_ANYBODY = Access("", "", may_write=True)


def connection_of(ctx: Request) -> Connection:
    """Return the SDK's connection, which in the modern era is another at each request."""
    return ctx.session._connection


async def looked_up(ctx: Request, work: Callable[[Home], _Result], **about: Any) -> _Result:
    """Do `work` with the home of a request that calls no tool, in a worker thread.

    `about` goes with an error, for programs.

    Raises:
        MCPError: The service refused; in its own words.
    """
    caller: Caller = ctx.lifespan_context
    try:
        async with caller.reads.one(caller.access.account):
            return await anyio.to_thread.run_sync(work, caller.home)
    except SoulkeepError as error:
        is_asked_wrongly = isinstance(error, InvalidInputError | NotFoundError)
        code = INVALID_PARAMS if is_asked_wrongly else INTERNAL_ERROR
        raise MCPError(code=code, message=str(error), data=about or None) from error
