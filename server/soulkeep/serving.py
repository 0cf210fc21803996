"""A server over HTTP put together: the settings, the homes, who is let in, and where it listens."""

import gc
import math
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from soulkeep.app import (
    Settings,
    build_server,
    open_accounts,
    open_authority,
    open_home,
)
from soulkeep.embedders import choose_embedder
from soulkeep.engines import may_have_accounts
from soulkeep.errors import InvalidInputError
from soulkeep.mcp_server.homes import AT_ONCE, COMPUTING_AT_ONCE, Homes, Sealing, access_of
from soulkeep.mcp_server.http import STOP_S, HttpServer, Limits, http_app, prepare_process
from soulkeep.mcp_server.notifications import Notifications, work_beside_calls
from soulkeep.service.accounts import Accounts
from soulkeep.service.grants import parsed_address

MOST_MEMORY = 150_000_000
"""How many bytes the homes of all accounts keep of what they read for searches."""

BACKLOG = 2_048
"""How many connections wait to be accepted at the most."""

KEEP_ALIVE_S = 75
"""How long a connection stays open without a request."""

EVERYBODY = "*"
"""As a proxy: whoever connects is one, as where nothing else than proxies reaches the server."""

NO_ACCOUNTS = (
    "is {0}, which others than programs of this machine can reach, and there are no accounts; add one"
    " with `soulkeep accounts add NAME`, or {1}"
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens, and the address by which its clients reach it.

    `origins` are those of pages in browsers that may ask too. `proxies` are the addresses, networks or
    `*`, that are believed where they say who asks and whether it was encrypted.
    """

    host: str
    port: int
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    url: str = ""
    origins: Sequence[str] = ()
    proxies: Sequence[str] = ()

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def reached_at(self) -> str:
        """The address of the server as clients write it, without a slash at its end."""
        if self.url:
            return self.url
        host = socket.gethostname() if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104
        host = host.lower()  # as clients write it
        scheme = "https" if self.ssl_certfile else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    def listen(self) -> socket.socket:
        """Return a socket that listens there.

        Raises:
            InvalidInputError: It cannot listen there.
        """
        try:
            family, *_, place = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            both = self.host == "::" and socket.has_dualstack_ipv6()
            listening = socket.create_server(
                place[:2], family=family, dualstack_ipv6=both, backlog=BACKLOG
            )
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            rule = f"of {self.host} cannot be listened at ({why}); choose another or end what uses it"
            raise InvalidInputError("port", f"{self.port} {rule}") from error
        # Its connections have this too. asyncio sets it only for sockets that it made itself; without it
        # the second part of an answer waits 40 ms for the client to acknowledge the first.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening

    def require_certificate(self) -> None:
        """Look at the certificate and its key, if there are any.

        Raises:
            InvalidInputError: One cannot be used.
        """
        for name, path in (("ssl_certfile", self.ssl_certfile), ("ssl_keyfile", self.ssl_keyfile)):
            try:
                _ = path and Path(path).read_bytes()
            except OSError as error:
                rule = f"{path} cannot be read ({error.strerror}); correct it"
                raise InvalidInputError(name, rule) from error
        if not self.ssl_certfile:
            if self.ssl_keyfile:
                rule = "is the key of a certificate; give that too, with --ssl-certfile"
                raise InvalidInputError("ssl_keyfile", rule)
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_verify_locations(self.ssl_certfile)
        except ssl.SSLError as error:
            rule = f"{self.ssl_certfile} holds no certificate in PEM; name the file that does"
            raise InvalidInputError("ssl_certfile", rule) from error
        try:
            # Without a password OpenSSL would wait for somebody to type one.
            context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile, lambda: "")
        except ssl.SSLError as error:
            rule = (
                "holds no key of the certificate that opens without a password; name the file that does"
            )
            raise InvalidInputError(
                "ssl_keyfile", f"{self.ssl_keyfile or self.ssl_certfile} {rule}"
            ) from error

    @property
    def names(self) -> set[str]:
        """By which names it may be asked, against the rebinding of names; `*` stands for any port."""
        own = {self.reached_at.partition("//")[2], f"{self.host.lower()}:{self.port}"}
        hosts = {"127.0.0.1", "localhost", "[::1]", *(one.rpartition(":")[0] for one in own), *own}
        if not self.url and not self.is_local:
            with suppress(OSError):  # not every machine knows its own name
                hosts |= {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None)}
        return {each for host in hosts if host for each in (host, f"{host}:*")}

    @property
    def pages(self) -> set[str]:
        """The origins of pages in browsers that may ask it."""
        local = {f"http://{host}" for host in ("127.0.0.1", "localhost", "[::1]")}
        return {*local, *(f"{page}:*" for page in local), self.reached_at, *self.origins}


class BehindProxies:
    """Believes proxies, and nobody else, who asks, by which name, and whether that is encrypted.

    Each proxy adds whom it serves at the end of the list. So the last one there that is no proxy is who
    asks: what stands before that may be invented. Where whoever connects is a proxy, it is the last.
    """

    def __init__(self, app: ASGIApp, proxies: Sequence[str]) -> None:
        """Believe these addresses and networks; `*` stands for whoever connects."""
        self._app, self._believes_all = app, EVERYBODY in proxies
        named = [one for one in proxies if one != EVERYBODY]
        self._networks = [ip_network(one, strict=False) for one in named]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request as it reached the proxy."""
        peer = (scope.get("client") or ("",))[0]
        if scope["type"] == "http" and (self._believes_all or self._is_proxy(peer)):
            scope = self._as_it_came(scope)
        await self._app(scope, receive, send)

    def _as_it_came(self, scope: Scope) -> Scope:
        headers = Headers(scope=scope)
        said = {
            name: [one.strip() for line in headers.getlist(name) for one in line.split(",")]
            for name in ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")
        }
        scope = dict(scope)
        if asking := [_without_port(one) for one in said["x-forwarded-for"] if one]:
            others = [one for one in asking if not self._is_proxy(one)]
            scope["client"] = ((others or asking[:1])[-1], 0)
        if (scheme := said["x-forwarded-proto"][-1:]) in (["http"], ["https"]):
            scope["scheme"] = scheme[0]
        if host := "".join(said["x-forwarded-host"][-1:]):
            kept = [header for header in scope["headers"] if header[0] != b"host"]
            scope["headers"] = [(b"host", host.encode("latin-1")), *kept]
        return scope

    def _is_proxy(self, address: str) -> bool:
        parsed = parsed_address(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def _without_port(address: str) -> str:
    """Return an address as it stands in the list, where proxies may add the port."""
    host = address[1:].partition("]")[0] if address.startswith("[") else address
    return host.partition(":")[0] if host.count(":") == 1 else host


@contextmanager
def open_http(settings: Settings, address: Address) -> Iterator[tuple[HttpServer, socket.socket]]:
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
            raise InvalidInputError("host", NO_ACCOUNTS.format(address.host, "listen at 127.0.0.1"))
        public = urlsplit(settings.url).hostname or address.host
        if accounts is None and not replace(address, host=public).is_local:  # by way of a proxy
            rule = NO_ACCOUNTS.format(settings.url, "leave it unset")
            raise InvalidInputError("SOULKEEP_URL", rule)
        address.require_certificate()
        # Held, so that its model is not loaded anew where all homes were closed meanwhile.
        embedder = choose_embedder(settings.options.embedder)
        waits = settings.options.store.get_secret_value() or not (embedder is None or embedder.is_local)
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
                at_once=AT_ONCE if waits else COMPUTING_AT_ONCE,
                sealing=Sealing(accounts.keys()),
            )
            authority = open_authority(settings, accounts, address.reached_at)
        stack.callback(homes.close)
        notifications = Notifications(watched=True, many=accounts is not None)
        server = build_server(homes, notifications, tools_offered=settings.tools)
        beside = partial(homes.run, partial(work_beside_calls, notifications=notifications))
        app, end_streams = http_app(
            server, homes, notifications, beside, limits, address.names, address.pages, authority
        )
        yield HttpServer(_config_of(app, address), address.reached_at, end_streams), listening


def _config_of(app: ASGIApp, address: Address) -> uvicorn.Config:
    return uvicorn.Config(
        BehindProxies(app, address.proxies),
        log_config=None,
        access_log=False,
        ws="none",
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        ssl_certfile=address.ssl_certfile,
        ssl_keyfile=address.ssl_keyfile,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(STOP_S),
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
