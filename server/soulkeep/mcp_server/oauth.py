"""Who is let in over HTTP: bearer tokens of three kinds, and the OAuth 2.1 that leads a program to one.

The account's own token, one that a program got for the account by OAuth, or one of an external issuer.
Where there is such an issuer, programs are sent to it, and there is no page to log in on here.
"""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import urlencode, urlsplit

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from mcp.server.auth.handlers.metadata import MetadataHandler, ProtectedResourceMetadataHandler
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.middleware.client_auth import AuthenticationError, ClientAuthenticator
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    AuthorizeError,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    RegistrationError,
    TokenError,
    TokenVerifier,
    construct_redirect_uri,
)
from mcp.server.auth.routes import (
    AUTHORIZATION_PATH,
    REGISTRATION_PATH,
    build_metadata,
    build_resource_metadata_url,
    cors_middleware,
    create_auth_routes,
)
from mcp.server.auth.settings import ClientRegistrationOptions, RevocationOptions
from mcp.server.transport_security import RequestBodyLimitMiddleware
from mcp.shared.auth import (
    InvalidRedirectUriError,
    OAuthClientInformationFull,
    OAuthToken,
    ProtectedResourceMetadata,
)
from pydantic import AnyHttpUrl, AnyUrl, ConfigDict, TypeAdapter, ValidationError
from starlette.datastructures import MutableHeaders, QueryParams
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, request_response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from soulkeep.errors import InvalidInputError
from soulkeep.mcp_server.homes import ACCESS
from soulkeep.models import Access
from soulkeep.service.accounts import Accounts, is_name
from soulkeep.service.grants import DESCRIPTION_S, Grants, Issued, TooManyClientsError
from soulkeep.service.issuer import Issuer, description_of, require_safe_url
from soulkeep.wording import without_hidden

SCOPE = "memory"
"""The one scope: to use the home that a token is for. Who may write there is said by the home."""

MOST_FORM_BYTES = 65_536
"""The most that is read of what a program or the login page sends."""

MOST_ADDRESSES, LONGEST_ADDRESS, LONGEST_NAME = 10, 500, 80
"""How much is kept of what a program says of itself when it registers."""

MOST_READING = 4
"""How many descriptions of programs are read at the same time: their hosts may be slow."""

NATIVE = frozenset({"cursor", "vscode", "vscode-insiders", "vscodium", "windsurf", "warp"})
"""Schemes of programs that are no reversed domain name, as RFC 8252 (7.1) would have them."""

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
"""A SHA-256 digest in base64url, as a PKCE challenge by S256 is."""

_RESOURCE_METADATA, _SERVER_METADATA = (
    f"/.well-known/oauth-{what}" for what in ("protected-resource", "authorization-server")
)

_NOT_FOUND = JSONResponse({"error": "not_found"}, 404)

_as_written = TypeAdapter(AnyHttpUrl, config=ConfigDict(url_preserve_empty_path=True)).validate_python
"""Makes an address of a text without a slash after its host: programs compare issuers as texts."""


class Authority:
    """Says whose a bearer token is, and has the routes that lead a program without one to it."""

    def __init__(self, accounts: Accounts, url: str, issuer: Issuer | None = None) -> None:
        """Let accounts in to a server that its clients reach at `url`, which has no path."""
        self.accounts, self.issuer = accounts, issuer
        self.url = str(_as_written(url)).rstrip("/")
        self.provider: Provider | None = None
        self.routes: list[Route] = []
        """What a server mounts beside its homes at `/mcp` and `/{home}/mcp`; none asks for a token."""
        if self.offers_oauth:
            described = cors_middleware(self._describe, ["GET", "OPTIONS"])
            self.routes += [
                Route(f"{_RESOURCE_METADATA}{path}", described, methods=["GET", "OPTIONS"])
                for path in ("/mcp", "/{home}/mcp")
            ]
            if issuer is None:
                self.provider = Provider(self)
                self.routes += _authorization_routes(self.provider, self.url)

    @property
    def offers_oauth(self) -> bool:
        """Whether programs are told how to get a token: only over https, or on this machine."""
        try:
            return bool(require_safe_url(self.url))
        except ValueError:
            return False

    def resource_of(self, home: str = "") -> str:
        """Return the address of a home, for which tokens are made: `""` is an account's own."""
        return f"{self.url}/{home}/mcp" if home else f"{self.url}/mcp"

    def home_of(self, resource: str) -> str:
        """Return the home at an address, whether or not there is one; the reverse of `resource_of`.

        Raises:
            InvalidInputError: It is no address of a home of this server.
        """
        try:
            asked = str(_as_written(resource)).removesuffix("/")
        except ValidationError as error:
            raise InvalidInputError("resource", "is no address") from error
        home = asked.removeprefix(f"{self.url}/").removesuffix("mcp").removesuffix("/")
        if self.resource_of(home) != asked or (home and not is_name(home)):
            raise InvalidInputError("resource", "is no home of this server")
        return home

    async def _describe(self, request: Request) -> Response:
        home = request.path_params.get("home", "")
        if home and not is_name(home):
            return _NOT_FOUND
        metadata = {
            "resource": self.resource_of(home),
            "authorization_servers": [self.issuer.name if self.issuer else self.url],
            "scopes_supported": None if self.issuer else [SCOPE],
            "resource_name": f"soulkeep: {home}" if home else "soulkeep",
        }
        handler = ProtectedResourceMetadataHandler(ProtectedResourceMetadata.model_validate(metadata))
        return await handler.handle(request)


class Verifier(TokenVerifier):
    """Says whose a token is, for one home; then `access` is what they may do there."""

    def __init__(self, authority: Authority, home: str) -> None:
        self._authority, self._home = authority, home
        self._resource = authority.resource_of(home)
        self.access: Access | None = None

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return whose a token is, without the token itself, so that nothing can show it."""
        return await run_sync(self._verify, token)

    def _verify(self, token: str) -> AccessToken | None:
        accounts, issuer = self._authority.accounts, self._authority.issuer
        found = accounts.verified(token, "account", "access")
        if found is not None:
            _, account, grant = found
            client_id, expires_at, claims = (grant.client_id if grant else account.name), None, None
            resource = grant.resource if grant else self._resource
        elif issuer is not None and (said := issuer.claims_of(token, self._resource)) is not None:
            account, client_id, expires_at = said
            resource, claims = self._resource, {"iss": issuer.name}
        else:
            return None
        accounts.note_use(account)
        self.access = accounts.access(account.name, self._home or account.name)
        return AccessToken(
            token="",
            client_id=client_id,
            scopes=[SCOPE],
            expires_at=expires_at,
            resource=resource,
            subject=account.name,
            claims=claims,
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
        if home and not is_name(home):
            return await _NOT_FOUND(scope, receive, send)
        resource = AnyHttpUrl(self._authority.resource_of(home))
        described = build_resource_metadata_url(resource) if self._authority.offers_oauth else None
        verifier = Verifier(self._authority, home)
        backend = BearerAuthBackend(verifier, resource_server_url=resource)
        challenge = RequireAuthMiddleware(partial(self._let_in, verifier), [SCOPE], described)
        app = AuthenticationMiddleware(AuthContextMiddleware(challenge), backend=backend)
        return await app(scope, receive, send)

    async def _let_in(self, verifier: Verifier, scope: Scope, receive: Receive, send: Send) -> None:
        if verifier.access is None:
            return await _NOT_FOUND(scope, receive, send)
        scope.setdefault("state", {})[ACCESS] = verifier.access
        return await self._app(scope, receive, send)


class _Client(OAuthClientInformationFull):
    """A program that registered itself. It has no secret: PKCE and its addresses say which it is."""

    def validate_scope(self, requested_scope: str | None) -> list[str]:
        """Return the one scope, whatever was asked for: the answer says what was given."""
        return [SCOPE]

    def validate_redirect_uri(self, redirect_uri: AnyUrl | None) -> AnyUrl:
        """Return where to send the user back to, if it was registered; on this machine, at any port.

        Raises:
            InvalidRedirectUriError: It was not.
        """
        if redirect_uri is None:
            return super().validate_redirect_uri(None)
        if all(_without_port(one) != _without_port(redirect_uri) for one in self.redirect_uris or ()):
            raise InvalidRedirectUriError("This address was not registered by the program")
        return redirect_uri


def _without_port(address: AnyUrl) -> tuple[str | None, ...]:
    parts = urlsplit(str(address))
    if parts.scheme != "http":
        return (str(address),)
    user = parts.netloc.rpartition("@")[0]
    return user, parts.hostname, parts.path or "/", parts.query, parts.fragment  # RFC 8252, 7.3


def require_return_addresses(client: OAuthClientInformationFull) -> None:
    """Look at where a program wants its users sent back to.

    Over https, to this machine, or by a scheme of its own to a program that runs there: a reversed
    domain name, or one of `NATIVE`. Any other scheme might be one that a browser itself acts upon, such
    as `javascript` or `data`. Another program may claim the same scheme; without the secret of the
    challenge (PKCE) the code that it catches is good for nothing.

    Raises:
        RegistrationError: An address is another, or there are too many.
    """
    addresses = [str(address) for address in client.redirect_uris or ()]
    try:
        for address in addresses:
            parts = urlsplit(address)
            if "." not in parts.scheme and parts.scheme not in NATIVE:
                require_safe_url(address)
            if parts.fragment or parts.username is not None:
                raise ValueError("must have no fragment and no user")  # noqa: TRY301
    except ValueError as error:
        raise RegistrationError("invalid_redirect_uri", f"An address {error}") from error
    if len(addresses) > MOST_ADDRESSES or any(len(one) > LONGEST_ADDRESS for one in addresses):
        rule = f"up to {MOST_ADDRESSES} addresses of up to {LONGEST_ADDRESS} characters"
        raise RegistrationError("invalid_redirect_uri", f"A program may have {rule}")


class Provider(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """The authorization server: what the SDK's handlers ask of the accounts and their grants."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self.grants = Grants(authority.accounts)
        self._reading = CapacityLimiter(MOST_READING)

    async def get_client(self, client_id: str) -> _Client | None:
        """Return a program that registered itself; None for another."""
        metadata = await run_sync(self.grants.client, client_id)
        return _Client.model_validate(metadata) if metadata else None

    async def register(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let `app` register a program, unless too many come from the same address."""
        address = (scope.get("client") or ("",))[0]
        if scope["method"] == "POST" and not await run_sync(self.grants.may_register, address):
            app = JSONResponse({"error": "temporarily_unavailable"}, 429, {"Retry-After": "3600"})
        await app(scope, receive, send)

    async def look_up(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Read what a program says of itself where its id is an address; then let `app` answer it."""
        program = QueryParams(scope["query_string"]).get("client_id", "")
        if program.startswith("https://") and not await run_sync(
            self.grants.client, program, DESCRIPTION_S
        ):
            try:
                await self._read_description(program, (scope.get("client") or ("",))[0])
            except (InvalidInputError, RegistrationError, ValidationError) as error:
                why = getattr(error, "error_description", None) or str(error)
                app = JSONResponse({"error": "invalid_client", "error_description": why}, 400)

        async def signed(message: Message) -> None:
            # A no says whose it is too (RFC 9207), which the SDK's does not.
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                to = headers.get("location", login)
                if not to.startswith(login):
                    headers["location"] = construct_redirect_uri(to, iss=self._authority.url)
            await send(message)

        login = f"{self._authority.url}/login?"
        await app(scope, receive, signed)

    async def _read_description(self, program: str, address: str) -> None:
        if not await run_sync(self.grants.may_register, address):
            raise InvalidInputError("client_id", "is one of too many in this hour; try again later")
        read = partial(description_of, program, is_local=self._authority.url.startswith("http:"))
        said = await run_sync(read, limiter=self._reading)
        known = {name: said.get(name) for name in ("client_id", "client_name", "redirect_uris")}
        client = OAuthClientInformationFull.model_validate(known)
        if not client.redirect_uris:
            raise InvalidInputError("client_id", "names a description without redirect_uris")
        await self.register_client(client)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        """Keep what is needed of what a program says of itself, and tell it so.

        Raises:
            RegistrationError: Its addresses are none to send a user to, or there are too many programs.
        """
        require_return_addresses(client_info)
        client_info.token_endpoint_auth_method = "none"  # noqa: S105
        client_info.client_secret = client_info.client_secret_expires_at = None
        client_info.scope = SCOPE
        name = without_hidden(client_info.client_name or "").strip()
        client_info.client_name = name[:LONGEST_NAME] or None
        kept = {"client_id", "client_name", "redirect_uris", "grant_types", "scope"}
        kept |= {"token_endpoint_auth_method"}
        metadata = client_info.model_dump(mode="json", include=kept, exclude_none=True)
        try:
            await run_sync(self.grants.add_client, client_info.client_id, metadata)
        except TooManyClientsError as error:
            raise RegistrationError("invalid_client_metadata", str(error)) from error

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        """Return where the user logs in.

        Raises:
            AuthorizeError: The challenge is none by S256, or no home is at the address asked for.
        """
        asked = {
            "response_type": "code",
            "client_id": client.client_id,
            "redirect_uri": str(params.redirect_uri)
            if params.redirect_uri_provided_explicitly
            else None,
            "code_challenge": params.code_challenge,
            "code_challenge_method": "S256",
            "state": params.state,
            "resource": params.resource,
        }
        self.require_askable(params.code_challenge, params.resource)
        said = {name: value for name, value in asked.items() if value is not None}
        return f"{self._authority.url}/login?{urlencode(said)}"

    def require_askable(self, code_challenge: str, resource: str | None) -> str:
        """Return the home that is asked for.

        Raises:
            AuthorizeError: The challenge is none by S256, or no home is at the address.
        """
        if not _CHALLENGE.fullmatch(code_challenge):
            raise AuthorizeError("invalid_request", "code_challenge must be a SHA-256 in base64url")
        try:
            return self._authority.home_of(resource or self._authority.resource_of())
        except InvalidInputError as error:
            raise AuthorizeError("invalid_target", str(error)) from error

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        """Return a code that is good, by its id instead of itself."""
        found = await run_sync(self.grants.unspent, authorization_code, "code")
        if found is None:
            return None
        token, grant = found
        return AuthorizationCode(
            code=token.id,
            scopes=[SCOPE],
            expires_at=float("inf"),  # it was looked at
            client_id=grant.client_id,
            code_challenge=grant.code_challenge,
            redirect_uri=AnyUrl(grant.redirect_uri),
            redirect_uri_provided_explicitly=grant.redirect_was_named,
            resource=grant.resource,
            subject=grant.account,
        )

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        """Return the tokens for a code.

        Raises:
            TokenError: Somebody used it a moment ago.
        """
        return _answer(await run_sync(self.grants.exchange, authorization_code.code))

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        """Return a refresh token that is good, by its id instead of itself."""
        found = await run_sync(self.grants.unspent, refresh_token, "refresh")
        if found is None:
            return None
        token, grant = found
        return RefreshToken(token=token.id, client_id=grant.client_id, scopes=[SCOPE])

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        """Return new tokens for a refresh token, which is then used up.

        Raises:
            TokenError: Somebody used it a moment ago.
        """
        return _answer(await run_sync(self.grants.exchange, refresh_token.token))

    async def load_access_token(self, token: str) -> None:
        """Return nothing: `verify_token` looks at access tokens, and `revoke` ends them."""

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        """Do nothing: `revoke` does."""

    async def revoke(self, request: Request) -> Response:
        """Answer a request to revoke a token (RFC 7009): the same whether it was one."""
        try:
            client = await ClientAuthenticator(self).authenticate_request(request)
        except AuthenticationError as error:
            body = {"error": "invalid_client", "error_description": error.message}
            return JSONResponse(body, 401)
        token = (await request.form()).get("token")
        if isinstance(token, str):
            await run_sync(self.grants.revoke, token, client.client_id)
        return Response(headers={"Cache-Control": "no-store"})


def _answer(issued: Issued | None) -> OAuthToken:
    if issued is None:
        raise TokenError("invalid_grant", "it was used before")
    return OAuthToken(
        access_token=issued.access_token,
        refresh_token=issued.refresh_token,
        expires_in=issued.expires_in,
        scope=SCOPE,
    )


def _authorization_routes(provider: "Provider", issuer: str) -> list[Route]:
    url = _as_written(issuer)
    registering, revoking = ClientRegistrationOptions(enabled=True), RevocationOptions(enabled=True)
    metadata = build_metadata(url, None, registering, revoking)
    metadata.scopes_supported = [SCOPE]
    metadata.token_endpoint_auth_methods_supported = ["none"]
    metadata.revocation_endpoint_auth_methods_supported = ["none"]
    metadata.authorization_response_iss_parameter_supported = True
    metadata.client_id_metadata_document_supported = True
    own = [
        Route(
            _SERVER_METADATA,
            cors_middleware(MetadataHandler(metadata).handle, ["GET", "OPTIONS"]),
            methods=["GET", "OPTIONS"],
        ),
        # The SDK's own wants a secret, which no program has here.
        Route("/revoke", limited(provider.revoke), methods=["POST"]),
    ]
    paths = {route.path for route in own}
    made = create_auth_routes(
        provider, url, client_registration_options=registering, revocation_options=revoking
    )
    for route in made:
        route.app = RequestBodyLimitMiddleware(route.app, MOST_FORM_BYTES)
        if route.path == REGISTRATION_PATH:
            route.app = partial(provider.register, route.app)
        elif route.path == AUTHORIZATION_PATH:
            route.app = partial(provider.look_up, route.app)
    return own + [route for route in made if route.path not in paths]


def limited(handle: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """Return the app of a handler that is sent a short form."""
    return RequestBodyLimitMiddleware(request_response(handle), MOST_FORM_BYTES)
