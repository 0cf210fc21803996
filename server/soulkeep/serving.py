"""A server over HTTP put together: the settings, the homes, who is let in, and where it listens."""

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from socket import socket

from soulkeep.app import (
    Settings,
    build_server,
    open_accounts,
    open_authority,
    open_home,
)
from soulkeep.engines import may_have_accounts
from soulkeep.errors import InvalidInputError
from soulkeep.mcp_server.homes import Homes, access_of
from soulkeep.mcp_server.http import Address, HttpServer, Limits, http_server, prepare_process
from soulkeep.mcp_server.notifications import Notifications, work_beside_calls
from soulkeep.service.accounts import Accounts

MOST_MEMORY = 150_000_000
"""How many bytes the homes of all accounts keep of what they read for searches."""

NO_ACCOUNTS = (
    "is {host}, which others than programs of this machine can reach, and there are no accounts; add one"
    " with `soulkeep accounts add NAME`, or listen at 127.0.0.1"
)


@contextmanager
def open_http(settings: Settings, address: Address) -> Iterator[tuple[HttpServer, socket]]:
    """Open the homes that are served over HTTP, and give the server with the socket that it listens at.

    That is the one home, or where there are accounts, those of all. After the block they are closed.

    Raises:
        SoulkeepError: It cannot listen there, or only with accounts; or the home cannot be opened.
    """
    limits = Limits(
        body=settings.http_body,
        sessions=settings.http_sessions,
        requests=settings.http_requests,
        idle_s=settings.http_idle_minutes * 60,
    )
    with ExitStack() as stack:
        accounts = _accounts_of(settings, stack)
        if accounts is None and not address.is_local:
            raise InvalidInputError("host", NO_ACCOUNTS.format(host=address.host))
        listening = stack.enter_context(address.listen())
        address = replace(
            address,
            port=listening.getsockname()[1],
            url=settings.url,
            origins=settings.http_origins,
            proxies=settings.http_proxies,
        )
        if accounts is None:
            home = open_home(settings.home, options=settings.options, is_named=settings.is_home_named)
            homes, authority = Homes.only(home), None
        else:
            homes = Homes(
                lambda ctx: access_of(ctx).home,
                lambda name: open_home(accounts.home_path(name), options=settings.options, owner=name),
                most_open=settings.http_homes,
                most_waited_for=settings.http_homes,
                most_memory=MOST_MEMORY,
            )
            authority = open_authority(settings, accounts, address.reached_at)
        stack.callback(homes.close)
        notifications = Notifications(watched=True, many=accounts is not None)
        server = build_server(homes, notifications, tools_offered=settings.tools)
        beside = partial(homes.run, partial(work_beside_calls, notifications=notifications))
        yield (
            http_server(server, homes, notifications, beside, address, limits, authority),
            listening,
        )


def _accounts_of(settings: Settings, stack: ExitStack) -> Accounts | None:
    """Return the accounts of a server until the stack ends; None where there are none to come either."""
    if not may_have_accounts(settings.home, settings.options) and not settings.issuer:
        return None
    accounts = stack.enter_context(closing(open_accounts(settings.home, options=settings.options)))
    return accounts if settings.issuer or accounts.all() else None


def serve_http(settings: Settings, address: Address, on_ready: Callable[[str], None]) -> None:
    """Serve over HTTP until a signal comes; `on_ready` is told where, when clients can connect.

    Raises:
        SoulkeepError: It cannot; see `open_http`.
    """
    prepare_process()
    with open_http(settings, address) as (server, listening):
        gc.freeze()
        gc.enable()
        on_ready(server.url)
        server.run(sockets=[listening])
