"""Who is let in over HTTP: bearer tokens of three kinds, and what tells programs how to get one."""

from functools import partial

import anyio.to_thread
from mcp.server.auth.handlers.metadata import ProtectedResourceMetadataHandler
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import (
    AuthenticatedUser,
    BearerAuthBackend,
    RequireAuthMiddleware,
)
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.routes import build_resource_metadata_url, cors_middleware
from mcp.shared.auth import ProtectedResourceMetadata
from pydantic import AnyHttpUrl
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from soulkeep.errors import InvalidInputError
from soulkeep.service.accounts import Accounts, valid_name

SCOPE = "memory"
"""The one scope: to use the home that a token is for. Who may write there is said by the home."""

ACCESS = "soulkeep.access"
"""Under which key of an ASGI scope's `state` the `Access` is that a request has."""

_METADATA = "/.well-known/oauth-protected-resource"


class Authority:
    """Says whose a bearer token is, and mounts what leads a program without one to it."""

    def __init__(self, accounts: Accounts, url: str) -> None:
        """Let accounts in to a server that its clients reach at `url`, without a slash at its end."""
        self.accounts = accounts
        self.url = url.rstrip("/")

    @property
    def routes(self) -> list[Route]:
        """What a server mounts beside its homes at `/mcp` and `/{home}/mcp`; none asks for a token."""
        described = cors_middleware(self._describe, ["GET", "OPTIONS"])
        return [
            Route(f"{_METADATA}{path}", described, methods=["GET", "OPTIONS"])
            for path in ("/mcp", "/{home}/mcp")
        ]

    def resource_of(self, home: str = "") -> str:
        """Return the address of a home, for which tokens are made: `""` is an account's own."""
        return f"{self.url}/{home}/mcp" if home else f"{self.url}/mcp"

    def verifier(self, resource: str) -> TokenVerifier:
        """Return what verifies tokens for one resource; any other's are refused."""
        return _Verifier(self, resource)

    async def _describe(self, request: Request) -> Response:
        home = request.path_params.get("home", "")
        try:
            resource = self.resource_of(home and valid_name("home", home))
        except InvalidInputError:
            return JSONResponse({"error": "not_found"}, 404)
        metadata = ProtectedResourceMetadata(
            resource=AnyHttpUrl(resource),
            authorization_servers=[AnyHttpUrl(self.url)],
            scopes_supported=[SCOPE],
            resource_name=f"soulkeep: {home}" if home else "soulkeep",
        )
        return await ProtectedResourceMetadataHandler(metadata).handle(request)


class _Verifier(TokenVerifier):
    def __init__(self, authority: Authority, resource: str) -> None:
        self._authority, self._resource = authority, resource

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return whose a token is, without the token itself, so that nothing can show it."""
        return await anyio.to_thread.run_sync(self._verify, token)

    def _verify(self, token: str) -> AccessToken | None:
        accounts = self._authority.accounts
        if (found := accounts.verified(token, "account", "access")) is None:
            return None
        kept, account, grant = found
        accounts.note_use(account)
        return AccessToken(
            token=kept.id,
            client_id=grant.client_id if grant else account.name,
            scopes=[SCOPE],
            resource=grant.resource if grant else self._resource,
            subject=account.name,
        )


class RequireAccess:
    """Lets a request through to a home that its account may use, and notes its `Access`.

    The home's name is the path's `home`, or without one that of the account. Without a good token the
    answer is 401 with the challenge that leads to one. A home that is not there, or that the account may
    not use, is 404: nobody is told which.
    """

    def __init__(self, app: ASGIApp, authority: Authority) -> None:
        self._app, self._authority = app, authority

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        home = scope.get("path_params", {}).get("home", "")
        resource = AnyHttpUrl(self._authority.resource_of(home))
        backend = BearerAuthBackend(
            self._authority.verifier(str(resource)), resource_server_url=resource
        )
        let_in = partial(self._let_in, home)
        challenge = RequireAuthMiddleware(let_in, [SCOPE], build_resource_metadata_url(resource))
        app = AuthenticationMiddleware(AuthContextMiddleware(challenge), backend=backend)
        await app(scope, receive, send)

    async def _let_in(self, home: str, scope: Scope, receive: Receive, send: Send) -> None:
        user: AuthenticatedUser = scope["user"]
        account = str(user.access_token.subject)
        find = self._authority.accounts.access
        access = await anyio.to_thread.run_sync(find, account, home or account)
        if access is None:
            return await JSONResponse({"error": "not_found"}, 404)(scope, receive, send)
        scope.setdefault("state", {})[ACCESS] = access
        return await self._app(scope, receive, send)
