"""The page on which somebody lets a program use a home, by giving their account's token."""

import hmac
import secrets
from dataclasses import dataclass
from functools import partial
from html import escape
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from mcp.server.auth.handlers.authorize import AuthorizationRequest
from mcp.server.auth.provider import AuthorizeError, construct_redirect_uri
from mcp.shared.auth import InvalidRedirectUriError, OAuthClientInformationFull
from pydantic import AnyUrl, ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from soulkeep.mcp_server.oauth import Authority, Provider, limited
from soulkeep.service.grants import LoginRefusedError


def mount(authority: Authority) -> None:
    """Add the page to the routes of an authority that lets programs in by itself."""
    if authority.provider is not None:
        page = LoginPage(authority, authority.provider)
        authority.routes.append(Route("/login", limited(page.handle), methods=["GET", "POST"]))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a program asks the user for, looked at anew each time that the page is."""

    client: OAuthClientInformationFull
    request: AuthorizationRequest
    redirect_uri: AnyUrl
    home: str

    def back(self, issuer: str, **said: str) -> RedirectResponse:
        """Return the answer that sends the user back to the program."""
        address = construct_redirect_uri(
            str(self.redirect_uri), **said, state=self.request.state, iss=issuer
        )
        return RedirectResponse(address, 303, _headers(""))


class LoginPage:
    """The page on which somebody gives their account's token, and so lets a program use a home.

    It has no scripts. What is asked for stands in its address, as it did in that of `/authorize`, and is
    checked as it was there; a form that another site sends is without the cookie, and refused.
    """

    def __init__(self, authority: Authority, provider: Provider) -> None:
        self._authority, self._provider = authority, provider
        self._is_secure = authority.url.startswith("https:")

    async def handle(self, request: Request) -> Response:
        """Show the page, or take what was sent from it."""
        try:
            asked = await self._asked(request)
        except (ValidationError, InvalidRedirectUriError, AuthorizeError, LookupError):
            said = "The program that sent you here asked for something that it cannot have."
            return _page("<p class=wrong>" + said + " Go back to it and connect again.</p>", 400)
        if request.method == "GET":
            return self._form(asked)
        form = await request.form()
        sent, cookie = form.get("form"), request.cookies.get(_COOKIE, "")
        if (
            not isinstance(sent, str)
            or not cookie
            or not hmac.compare_digest(sent.encode(), cookie.encode())
        ):
            return self._form(
                asked, "The page was open for too long, or cookies are off. Try again.", 400
            )
        if form.get("answer") != "allow":
            return asked.back(self._authority.url, error="access_denied")
        return await self._let_in(request, asked, str(form.get("token", "")).strip())

    async def _asked(self, request: Request) -> _Asked:
        wanted = AuthorizationRequest.model_validate(dict(request.query_params))
        home = self._provider.require_askable(wanted.code_challenge, wanted.resource)
        if (client := await self._provider.get_client(wanted.client_id)) is None:
            raise LookupError(wanted.client_id)
        return _Asked(client, wanted, client.validate_redirect_uri(wanted.redirect_uri), home)

    async def _let_in(self, request: Request, asked: _Asked, token: str) -> Response:
        grants, address = self._provider.grants, request.client.host if request.client else ""
        add = partial(
            grants.add,
            token,
            asked.client.client_id,
            resource=self._authority.resource_of(asked.home),
            redirect_uri=str(asked.redirect_uri),
            redirect_was_named=asked.request.redirect_uri is not None,
            code_challenge=asked.request.code_challenge,
        )
        try:
            await run_sync(grants.log_in, token, address, asked.home)
            code = await run_sync(add)
        except LoginRefusedError as refused:
            return self._form(asked, str(refused), 429 if refused.wait_s else 401, refused.wait_s)
        return asked.back(self._authority.url, code=code)

    def _form(self, asked: _Asked, wrong: str = "", status: int = 200, wait_s: int = 0) -> Response:
        parts = urlsplit(str(asked.redirect_uri))
        host = urlsplit(asked.client.client_id).hostname  # of one that publishes what it is
        program = f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"
        key = secrets.token_urlsafe(32)
        home = f"the memory of the team <b>{escape(asked.home)}</b>" if asked.home else "your own memory"
        body = _FORM.format(
            client=escape(asked.client.client_name or "A program without a name"),
            whose=f" of <b>{escape(host)}</b>" if host else "",
            back=escape(program),
            home=home,
            wrong=f"<p class=wrong role=alert>{escape(wrong)}</p>" if wrong else "",
            key=key,
        )
        target = program if parts.scheme == "http" else f"{parts.scheme}:"
        page = _page(body, status, target)
        if wait_s:
            page.headers["Retry-After"] = str(wait_s)
        page.set_cookie(
            _COOKIE,
            key,
            max_age=1_800,
            path="/login",
            secure=self._is_secure,
            httponly=True,
            samesite="strict",
        )
        return page


_COOKIE = "soulkeep_form"

_STYLE = (
    "body{font:1.05rem/1.5 system-ui,sans-serif;max-width:26rem;margin:2rem auto;padding:0 1rem}"
    "input,button{font:inherit;width:100%;box-sizing:border-box;padding:.7rem;margin:.4rem 0}"
    ".wrong{color:#b00020}b{overflow-wrap:anywhere}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#eee}.wrong{color:#ff8a80}}"
)

_FORM = """<p><b>{client}</b> (that is what it calls itself){whose} wants to use {home}.
You will be sent back to <b>{back}</b>. Go on only if you asked for this yourself.</p>{wrong}
<form method=post><input type=hidden name=form value="{key}">
<label>The token of your account <input type=password name=token autocomplete=current-password
autocapitalize=none spellcheck=false required></label>
<button name=answer value=allow>Let it in</button>
<button name=answer value=deny formnovalidate>Cancel</button></form>"""


def _page(body: str, status: int, target: str = "") -> HTMLResponse:
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>soulkeep: let a program in</title><style nonce={{nonce}}>{_STYLE}</style>"
        f"<h1>soulkeep</h1>{body}</html>"
    )
    nonce = secrets.token_urlsafe(16)
    return HTMLResponse(page.replace("{nonce}", nonce, 1), status, _headers(target, nonce))


def _headers(target: str, nonce: str = "") -> dict[str, str]:
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self' {target};"
        " frame-ancestors 'none'; base-uri 'none'"
    )
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": policy,
        "X-Frame-Options": "DENY",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
    }
