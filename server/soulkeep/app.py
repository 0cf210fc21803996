"""The composition root: settings → repository and documents → services → a registered server."""

import gc
import logging
import os
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soulkeep.days import Days
from soulkeep.documents import Documents
from soulkeep.embedders import choose_embedder
from soulkeep.models import Clock, EmbedderChoice, Options, ToolSet, utc_now
from soulkeep.repository.sqlite import SqliteRepository
from soulkeep.service.home import Home
from soulkeep.service.sessions import Sessions
from soulkeep.settings import Settings

if TYPE_CHECKING:
    from soulkeep.mcp_server.calls import CheckedServer
    from soulkeep.mcp_server.homes import Homes
    from soulkeep.mcp_server.protocol import Notifications
    from soulkeep.service.backups import Backups

STORE_NAME = "soulkeep.db"

_log = logging.getLogger(__name__)


def open_home(
    path: Path | str,
    *,
    embedder: str | None = None,
    clock: Clock = utc_now,
    options: Options | None = None,
    read_only: bool = False,
    is_named: bool = False,
) -> Home:
    """Open the home at `path`, making whatever is missing: the folder, the store, the documents.

    `embedder` names one that needs no more than its name; else it is that of the options. A new one that
    `is_named` by the user is announced: the name may be a slip. One that is opened
    `read_only` can be read, counted and checked, also where nothing can be written.

    Raises:
        StoreError: The store cannot serve.
        EmbedderUnavailableError: The embedder's package is not installed, or its settings are wrong.
        DocumentError: The documents cannot be put there.
    """
    path, options = Path(path).expanduser().absolute(), options or Options()
    is_new = is_named and not os.path.lexists(path / STORE_NAME)
    if embedder is not None:
        options = replace(options, embedder=EmbedderChoice(embedder))
    model = choose_embedder(options.embedder)
    documents = Documents(path, clock, options.timezone)

    def before_migration(version: int) -> None:
        open_backups(path, clock=clock, options=options).before_migration(version)

    with ExitStack() as on_failure:
        days = Days(options.timezone)
        repository = SqliteRepository(path / STORE_NAME, before_migration, days, read_only=read_only)
        on_failure.callback(repository.close)
        sessions = Sessions(repository, clock)
        if not read_only and (seeded := documents.seed()):
            session = sessions.current()
            with repository.transaction(durable=False):
                sessions.audit(session, "documents.seeded", {"names": seeded})
        on_failure.pop_all()
    backups = partial(open_backups, path, clock=clock, options=options)
    return Home(documents, repository, sessions, model, clock, options, backups, is_new=is_new)


def open_backups(path: Path, *, clock: Clock = utc_now, options: Options | None = None) -> "Backups":
    """Return the backups of a home without opening its store, which may be damaged or gone."""
    from soulkeep.repository.sqlite.backups import SqliteCopies
    from soulkeep.service.backups import Backups

    options = options or Options()
    documents = Documents(path, clock, options.timezone)
    copies = SqliteCopies(path / STORE_NAME, Days(options.timezone))
    return Backups(copies, documents, clock, options.backups)


def build_server(
    home: "Home | Homes",
    notifications: "Notifications | None" = None,
    *,
    tools_offered: ToolSet = "full",
) -> "CheckedServer":
    """Build an MCP server over a home or several, which notifies its clients; the caller closes them."""
    from soulkeep import __version__
    from soulkeep.mcp_server import protocol, resources, tools
    from soulkeep.mcp_server.calls import CheckedServer, open_session, read_answers, tell_progress
    from soulkeep.mcp_server.homes import Client, Homes

    notifications = notifications or protocol.Notifications()
    homes = Homes.only(home) if isinstance(home, Home) else home

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[Client]:
        yield Client()

    # Before the SDK, which would otherwise log every request with what is in it.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    server = CheckedServer(
        "soulkeep",
        title="soulkeep",
        version=__version__,
        description="Long-term memory in files you own",
        instructions=tools.INSTRUCTIONS,
        lifespan=lifespan,
        website_url=protocol.WEBSITE,
        icons=[protocol.ICON],
        cache_hints=protocol.LASTING_LISTS,
        request_state_security=protocol.waiting_questions(),
        middleware=[
            protocol.name_briefly,
            homes.choose,
            open_session,
            notifications.note_session,
            protocol.refuse_cursors,
            read_answers,
            tell_progress,
        ],
    )
    server.add_tools = partial(tools.register, server, tools_offered)
    resources.register(server)
    protocol.complete(server, notifications)
    return server


def serve(settings: Settings) -> None:
    """Serve one client over stdin and stdout until it goes away.

    Raises:
        SoulkeepError: The home cannot be opened.
    """
    home = open_home(
        settings.home,
        options=settings.options,
        is_named=settings.is_home_named,
    )
    from soulkeep.mcp_server.homes import Homes

    with closing(Homes.only(home)) as homes:
        import anyio

        from soulkeep.mcp_server.protocol import Notifications, initialization_options
        from soulkeep.mcp_server.transport import serve_stdio

        async def work_beside_calls() -> None:
            # Imported once the client has its first answer.
            from soulkeep.mcp_server.watching import keep_ready, watch

            home.background.start()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(keep_ready, home)
                await watch(home, notifications)

        notifications = Notifications(watched=True)
        server = build_server(homes, notifications, tools_offered=settings.tools)
        if advice := home.indexes.advice:
            _log.warning("search is by words alone: %s", advice)
        if announcement := home.reembedding.announcement():
            _log.warning("%s", announcement)
        gc.freeze()
        gc.enable()
        options = initialization_options(server)
        signalled = anyio.run(serve_stdio, server, options, work_beside_calls, notifications.close)
    if signalled:
        os._exit(0)
