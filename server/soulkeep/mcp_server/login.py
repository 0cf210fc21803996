"""The pages on which people, by their account's token, let a program in or look after the account."""

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
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from soulkeep.errors import InvalidInputError, SoulkeepError
from soulkeep.mcp_server.oauth import Authority, Provider, limited
from soulkeep.service.grants import LoginRefusedError


def mount(authority: Authority) -> None:
    """Add the page to the routes of an authority that lets programs in by itself."""
    if authority.provider is not None:
        page = LoginPage(authority, authority.provider)
        own = AccountPage(authority, authority.provider)
        authority.routes += [
            Route(path, limited(handle), methods=["GET", "POST"])
            for path, handle in (("/login", page.handle), ("/account", own.handle))
        ]


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
        if not _is_of_the_page(request, form):
            return self._form(asked, TOO_OLD, 400)
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
        return _keyed(_page(body, status, target), key, "/login", wait_s, is_secure=self._is_secure)


class AccountPage:
    """The page on which somebody leaves a team, gets a new token, or deletes their account."""

    def __init__(self, authority: Authority, provider: Provider) -> None:
        self._grants, self._accounts = provider.grants, authority.accounts
        self._is_secure = authority.url.startswith("https:")

    async def handle(self, request: Request) -> Response:
        """Show the page, or do what was sent from it."""
        if request.method == "GET":
            return self._form()
        form = await request.form()
        if not _is_of_the_page(request, form):
            return self._form(TOO_OLD, 400)
        token, address = (
            str(form.get("token", "")).strip(),
            request.client.host if request.client else "",
        )
        name = str(form.get("name", "")).strip().lower()
        try:
            await run_sync(self._grants.log_in, token, address, "")
            said = await run_sync(self._done, token, str(form.get("answer", "")), name)
        except LoginRefusedError as refused:
            return self._form(str(refused), 429 if refused.wait_s else 401, refused.wait_s)
        except SoulkeepError as error:
            return self._form(str(error), 400)
        return _page(f"<p role=status>{said}</p>", 200)

    def _done(self, token: str, wanted: str, name: str) -> str:
        """Do what somebody wants; return what is said of it."""
        accounts, account = self._accounts, self._accounts.account_of(token)
        if account is None:
            raise LoginRefusedError
        if wanted == "rotate":
            renewed = accounts.rotate(account.name)
            return f"Your token is now <b>{renewed}</b>. It is shown this once; the old one has ended."
        if wanted == "delete":
            if name != account.name:
                rule = f"must be {account.name}, the name of your account, for it to be deleted"
                raise InvalidInputError("name", rule)
            accounts.delete(name)
            return (
                "Your account is deleted. Until its home is purged, who runs the server can restore it."
            )
        mine = {
            team.name: team
            for team in accounts.teams()
            if team.deleted_at is None and account.name in {one.account for one in team.members}
        }
        if name not in mine:
            rule = f"must be the name of a team of yours ({', '.join(mine) or 'you are in none'})"
            raise InvalidInputError("name", rule)
        accounts.remove_member(name, account.name)
        return f"You are out of {name}. What you wrote there stays."

    def _form(self, wrong: str = "", status: int = 200, wait_s: int = 0) -> Response:
        key = secrets.token_urlsafe(32)
        said = f"<p class=wrong role=alert>{escape(wrong)}</p>" if wrong else ""
        page = _page(_ACCOUNT_FORM.format(wrong=said, key=key), status)
        return _keyed(page, key, "/account", wait_s, is_secure=self._is_secure)


def _is_of_the_page(request: Request, form: FormData) -> bool:
    """Whether a form was sent from a page of ours, and not from one of another site."""
    sent, cookie = form.get("form"), request.cookies.get(_COOKIE, "")
    is_whole = isinstance(sent, str) and bool(cookie)
    return is_whole and hmac.compare_digest(str(sent).encode(), cookie.encode())


def _keyed(page: Response, key: str, path: str, wait_s: int, *, is_secure: bool) -> Response:
    if wait_s:
        page.headers["Retry-After"] = str(wait_s)
    page.set_cookie(
        _COOKIE, key, max_age=1_800, path=path, secure=is_secure, httponly=True, samesite="strict"
    )
    return page


TOO_OLD = "The page was open for too long, or cookies are off. Try again."

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

_ACCOUNT_FORM = """<p>Look after your account. Give its token, and for the first and last of these a
name: of the team that you leave, or of the account that you delete.</p>{wrong}
<form method=post><input type=hidden name=form value="{key}">
<label>The token of your account <input type=password name=token autocomplete=current-password
autocapitalize=none spellcheck=false required></label>
<label>A name <input name=name autocomplete=off autocapitalize=none spellcheck=false></label>
<button name=answer value=leave>Leave the team</button>
<button name=answer value=rotate>Get a new token; the old one and all programs end</button>
<button name=answer value=delete>Delete the account</button></form>"""


def _page(body: str, status: int, target: str = "") -> HTMLResponse:
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>soulkeep</title><style nonce={{nonce}}>{_STYLE}</style>"
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
