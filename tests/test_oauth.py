"""Getting in over HTTP: challenges, the login page, OAuth 2.1 by the SDK's own client, wrong tokens."""

import base64
import hashlib
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from anyio.to_thread import run_sync
from mcp import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl, SecretStr

from conftest import TickingClock
from database_server import new_database
from served import served
from serving import serving
from soulkeep.app import Settings, open_accounts, open_authority
from soulkeep.mcp_server.oauth import MOST_FORM_BYTES
from soulkeep.models import Options
from soulkeep.service.accounts import Accounts
from soulkeep.service.grants import (
    ACCESS_S,
    FREE_FAILURES,
    LONGEST_WAIT_S,
    MOST_GRANTS,
    MOST_REGISTERING,
    REFRESH_S,
    Grants,
    LoginRefusedError,
)

BACK = "http://127.0.0.1:7777/callback"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")


@pytest.fixture
def kept_in(request: pytest.FixtureRequest) -> Options:
    """Where accounts are kept: in a file beside the homes, or where a test says so in PostgreSQL."""
    is_file = getattr(request, "param", "file") == "file"
    return Options(store=SecretStr("" if is_file else new_database()))


ON_BOTH_ENGINES = pytest.mark.parametrize(
    "kept_in", ["file", pytest.param("database", marks=pytest.mark.postgres)], indirect=True
)


@pytest.fixture
def accounts(tmp_path: Path, clock: TickingClock, kept_in: Options) -> Iterator[Accounts]:
    with closing(open_accounts(tmp_path, clock=clock, options=kept_in)) as opened:
        yield opened


@pytest.fixture
def url(accounts: Accounts) -> Iterator[str]:
    with served(lambda url: open_authority(Settings(), accounts, url)) as served_url:
        yield served_url


@pytest.fixture
def browser(url: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=url) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def register(browser: httpx2.Client, **said: Any) -> httpx2.Response:
    return browser.post("/register", json={"client_name": "A program", "redirect_uris": [BACK], **said})


def asked(browser: httpx2.Client, client_id: str, **changed: str | None) -> dict[str, str]:
    wanted = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": BACK,
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "state": "a state & more",
        "resource": f"{str(browser.base_url).rstrip('/')}/mcp",
        **changed,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def log_in(browser: httpx2.Client, address: str, token: str, **form: str) -> httpx2.Response:
    """Do what a person does: follow to the page, and send its form with the token."""
    page = browser.get(address, follow_redirects=True)
    assert page.status_code == 200, page.text
    found = re.search(r'name=form value="([^"]+)"', page.text)
    assert found is not None
    return browser.post(page.url, data={"form": found[1], "token": token, "answer": "allow", **form})


def answer_of(response: httpx2.Response) -> dict[str, str]:
    assert response.status_code == 303, response.text
    return {
        name: values[0]
        for name, values in parse_qs(urlsplit(response.headers["location"]).query).items()
    }


def code_for(browser: httpx2.Client, client_id: str, token: str, **changed: str | None) -> str:
    address = "/authorize?" + urlencode(asked(browser, client_id, **changed))
    return answer_of(log_in(browser, address, token))["code"]


def fetch(browser: httpx2.Client, client_id: str, code: str, **changed: str) -> httpx2.Response:
    form = {"grant_type": "authorization_code", "client_id": client_id, "code": code}
    form |= {"redirect_uri": BACK, "code_verifier": VERIFIER, **changed}
    return browser.post("/token", data=form)


def refresh(browser: httpx2.Client, client_id: str, token: str) -> httpx2.Response:
    form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": token}
    return browser.post("/token", data=form)


@dataclass
class Kept:
    """Where the SDK's client keeps what it got."""

    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None
    back: dict[str, str] = field(default_factory=dict)

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


def program(
    address: str,
    browser: httpx2.Client,
    token: str,
    kept: Kept,
    transport: httpx2.AsyncBaseTransport | None = None,
) -> httpx2.AsyncClient:
    """Return the SDK's client of a home, whose user logs in with a token."""

    async def redirected(to: str) -> None:
        kept.back = answer_of(await run_sync(log_in, browser, to, token))

    async def called_back() -> AuthorizationCodeResult:
        return AuthorizationCodeResult.model_validate(kept.back)

    metadata = OAuthClientMetadata(redirect_uris=[AnyUrl(BACK)], client_name="The SDK's client")
    auth = OAuthClientProvider(address, metadata, kept, redirected, called_back)
    return httpx2.AsyncClient(auth=auth, transport=transport, timeout=60)


async def test_the_sdks_client_gets_in_by_itself_and_stays_in(
    url: str, browser: httpx2.Client, accounts: Accounts, clock: TickingClock
) -> None:
    kept = Kept()
    token = accounts.add("ann")
    async with program(f"{url}/mcp", browser, token, kept) as client:
        assert (await client.post(f"{url}/mcp")).json()["account"] == "ann"

    assert kept.tokens is not None
    assert kept.tokens.scope == "memory"
    first = kept.tokens
    clock.now += timedelta(seconds=ACCESS_S)
    assert browser.post("/mcp", headers=bearer(first.access_token)).status_code == 401
    assert kept.client is not None
    second = refresh(browser, kept.client.client_id, first.refresh_token or "").json()
    assert browser.post("/mcp", headers=bearer(second["access_token"])).json()["account"] == "ann"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_what_an_account_remembers_through_a_login_it_recalls_by_its_token(
    mode: str, home_path: Path
) -> None:
    with closing(open_accounts(home_path)) as accounts:
        token = accounts.add("ann")
        async with serving(home_path) as server:
            kept = Kept()
            with httpx2.Client(base_url=server.url) as browser:
                async with (
                    program(f"{server.url}/mcp", browser, token, kept) as http,
                    Client(
                        streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode
                    ) as client,
                ):
                    await client.call_tool("remember", {"content": "The harbour is frozen."})
            async with server.client(mode, token) as client:
                recalled = await client.call_tool("recall", {"query": "harbour"})
    assert "The harbour is frozen." in str(recalled.structured_content)


async def test_a_teams_home_asks_for_a_token_of_its_own(
    url: str, browser: httpx2.Client, accounts: Accounts
) -> None:
    token = accounts.add("ann")
    accounts.add_team("crew")
    accounts.put_member("crew", "ann", may_write=False)
    kept = Kept()
    async with program(f"{url}/crew/mcp", browser, token, kept) as client:
        got = (await client.post(f"{url}/crew/mcp")).json()

    assert got == {"account": "ann", "home": "crew", "may_write": False}
    assert kept.tokens is not None
    for_crew = bearer(kept.tokens.access_token)
    assert browser.post("/mcp", headers=for_crew).status_code == 401
    assert browser.post("/crew/mcp", headers=for_crew).status_code == 200
    accounts.remove_member("crew", "ann")
    assert browser.post("/crew/mcp", headers=for_crew).status_code == 401
    assert browser.post("/crew/mcp", headers=bearer(token)).status_code == 404
    accounts.put_member("crew", "ann", may_write=True)
    assert browser.post("/crew/mcp", headers=for_crew).status_code == 401


@ON_BOTH_ENGINES
def test_with_a_membership_end_the_programs_that_were_let_in_by_it_and_no_other(
    url: str, browser: httpx2.Client, accounts: Accounts
) -> None:
    tokens = {name: accounts.add(name) for name in ("ann", "bob")}
    for team in ("crew", "my-crew"):
        accounts.add_team(team)
        for name in tokens:
            accounts.put_member(team, name, may_write=True)
    client_id = register(browser).json()["client_id"]

    def let_in(name: str, home: str) -> dict[str, str]:
        code = code_for(browser, client_id, tokens[name], resource=f"{url}{home}/mcp")
        return bearer(fetch(browser, client_id, code).json()["access_token"])

    places = [(name, home) for name in tokens for home in ("", "/crew", "/my-crew")]
    programs = {place: let_in(*place) for place in places}
    accounts.remove_member("crew", "ann")

    refused = [
        place
        for place in places
        if browser.post(f"{place[1]}/mcp", headers=programs[place]).status_code == 401
    ]
    assert refused == [("ann", "/crew")]


def test_all_tokens_of_a_grant_begin_alike_however_often_they_are_refreshed(
    browser: httpx2.Client, accounts: Accounts
) -> None:
    client_id, token = register(browser).json()["client_id"], accounts.add("ann")
    begins = []
    for _ in range(2):
        answer = fetch(browser, client_id, code_for(browser, client_id, token)).json()
        issued = [answer]
        for _ in range(3):
            issued.append(refresh(browser, client_id, issued[-1]["refresh_token"]).json())
        every = [one[name] for one in issued for name in ("access_token", "refresh_token")]
        assert len(set(every)) == 8
        begins.append({one[:17] for one in every})

    assert [len(one) for one in begins] == [1, 1]
    assert begins[0] != begins[1]


def test_without_a_good_token_the_answer_leads_to_one_and_tells_nothing(
    url: str, browser: httpx2.Client, accounts: Accounts
) -> None:
    ann = accounts.add("ann")
    accounts.add_team("crew")
    revoked = accounts.add("bob")
    accounts.revoke("bob")
    answers: dict[str, set[tuple[str, str]]] = {}
    for wrong in (
        None,
        "x",
        ann[:-1],
        ann + "x",
        revoked,
        f"soulkeep_{'0' * 16}_{'A' * 43}",
        "a.b.c",
    ):
        for home in ("", "crew/", "nobody/"):
            headers = {} if wrong is None else bearer(wrong)
            answer = browser.post(f"/{home}mcp", headers=headers)
            assert answer.status_code == 401
            answers.setdefault(home, set()).add((answer.text, answer.headers["www-authenticate"]))
    assert all(len(same) == 1 for same in answers.values())
    ((_, challenge),) = answers["crew/"]
    assert f'resource_metadata="{url}/.well-known/oauth-protected-resource/crew/mcp"' in challenge

    assert browser.post("/mcp", headers=bearer(ann)).json()["home"] == "ann"
    hidden = {
        browser.post(f"/{home}/mcp", headers=bearer(ann)).text for home in ("crew", "bob", "none", "x.y")
    }
    assert len(hidden) == 1


def test_the_descriptions_name_the_server_as_it_is_reached(url: str, browser: httpx2.Client) -> None:
    for home in ("", "/crew"):
        resource = browser.get(f"/.well-known/oauth-protected-resource{home}/mcp").json()
        assert resource["resource"] == f"{url}{home}/mcp"
        assert resource["authorization_servers"] == [url]
    server = browser.get("/.well-known/oauth-authorization-server").json()
    assert server["issuer"] == url
    assert server["code_challenge_methods_supported"] == ["S256"]
    assert server["token_endpoint_auth_methods_supported"] == ["none"]
    assert {urlsplit(value).netloc for name, value in server.items() if name.endswith("_endpoint")} == {
        urlsplit(url).netloc
    }
    assert browser.get("/.well-known/oauth-protected-resource/C%21/mcp").status_code == 404


@pytest.mark.parametrize(
    "home", ["Crew", "a%20b", "%22", "%0d%0ax:y", "%3Fa", "[", "%ff", "a" * 300, "-", "con"]
)
def test_what_can_be_no_home_is_not_found_whoever_asks(
    browser: httpx2.Client, accounts: Accounts, home: str
) -> None:
    token = accounts.add("ann")
    for headers in ({}, bearer(token)):
        described = f"/.well-known/oauth-protected-resource/{home}/mcp"
        for path in (f"/{home}/mcp", described):
            assert browser.get(path, headers=headers).status_code == 404


@pytest.mark.parametrize(
    "redirect",
    [
        "http://example.org/back",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "blob:https://example.org/x",
        "about:blank",
        "ftp://example.org/back",
        "vbscript:x",
        "x-unknown://back",
        "com.example.app:/back#part",
        "cursor://user@anysphere.cursor-mcp/oauth/callback",
        "https://user@example.org/back",
        "https://example.org/back#part",
        "http://127.0.0.1.example.org/back",
        "https://example.org/" + "a" * 500,
    ],
)
def test_a_program_can_be_sent_back_only_over_https_or_to_a_program_of_this_machine(
    browser: httpx2.Client, redirect: str
) -> None:
    refused = register(browser, redirect_uris=[BACK, redirect])

    assert refused.status_code == 400
    assert refused.json()["error"] == "invalid_redirect_uri"


@pytest.mark.parametrize(
    "redirect",
    [
        "https://claude.ai/api/mcp/auth_callback",
        "https://chatgpt.com/connector_platform_oauth_redirect",
        "http://localhost:3118/callback",
        "http://[::1]/x",
        "cursor://anysphere.cursor-mcp/oauth/callback",
        "vscode://vscode.github-authentication/did-authenticate?windowId=1",
        "com.raycast:/oauth?package_name=Extension",
        "com.example.app://back",
    ],
)
def test_programs_of_any_kind_are_registered_without_a_secret(
    browser: httpx2.Client, accounts: Accounts, redirect: str
) -> None:
    asked_for = {"token_endpoint_auth_method": "client_secret_post", "scope": "claudeai offline_access"}
    made = register(browser, redirect_uris=[redirect], **asked_for)

    assert made.status_code == 201
    assert made.json()["token_endpoint_auth_method"] == "none"  # noqa: S105
    assert "client_secret" not in made.json()
    client_id, token = made.json()["client_id"], accounts.add("ann")
    code = code_for(browser, client_id, token, redirect_uri=redirect, scope="claudeai")
    assert fetch(browser, client_id, code, redirect_uri=redirect).json()["scope"] == "memory"


def test_on_this_machine_a_program_may_listen_at_another_port_and_nowhere_else(
    browser: httpx2.Client, accounts: Accounts
) -> None:
    client_id, token = register(browser).json()["client_id"], accounts.add("ann")
    elsewhere = BACK.replace("7777", "7778")

    code = code_for(browser, client_id, token, redirect_uri=elsewhere)
    assert fetch(browser, client_id, code, redirect_uri=elsewhere).status_code == 200
    others = [f"{BACK}/x", f"{BACK}#x", BACK.replace("127.0.0.1", "localhost")]
    for other in (*others, BACK.replace("127", "x@127"), "https://evil.example/callback"):
        refused = browser.get("/authorize", params=asked(browser, client_id, redirect_uri=other))
        assert refused.status_code == 400
        refused = browser.get("/login", params=asked(browser, client_id, redirect_uri=other))
        assert refused.status_code == 400
        assert "evil.example" not in refused.text


@pytest.mark.parametrize("name", ["A \u202eprogram", "A\u200b pro\u2066gram", "A\nprogram\u202c"])
def test_what_a_program_calls_itself_hides_nothing_of_the_page(
    browser: httpx2.Client, name: str
) -> None:
    wanted = asked(browser, register(browser, client_name=name).json()["client_id"])

    assert "<b>A program</b>" in browser.get("/login", params=wanted).text


@pytest.mark.parametrize("path", ["/token", "/register", "/authorize", "/login", "/account", "/revoke"])
def test_little_is_read_of_who_has_no_token(browser: httpx2.Client, path: str) -> None:
    assert browser.post(path, content=b"x" * (MOST_FORM_BYTES + 1)).status_code == 413


@ON_BOTH_ENGINES
@pytest.mark.parametrize("client_id", ["nobody", "a\0b", "https://8.8.8.8/\0"])
def test_a_program_that_cannot_be_is_unknown_wherever_it_is_named(
    browser: httpx2.Client, client_id: str
) -> None:
    wanted = asked(browser, client_id)
    assert browser.get("/authorize", params=wanted).status_code == 400
    assert browser.get("/login", params=wanted).status_code == 400
    assert fetch(browser, client_id, "code").status_code == 401
    assert browser.post("/revoke", data={"client_id": client_id, "token": "x"}).status_code == 401


@pytest.mark.parametrize(
    ("redirect", "target"),
    [
        ("https://claude.ai/api/mcp/auth_callback", "https:"),
        ("http://127.0.0.1:7777/callback", "http://127.0.0.1:7777"),
        ("cursor://anysphere.cursor-mcp/oauth/callback", "cursor:"),
        ("com.example.app:/back", "com.example.app:"),
    ],
)
def test_a_browser_lets_the_page_send_its_user_back_to_the_program_alone(
    browser: httpx2.Client, redirect: str, target: str
) -> None:
    client_id = register(browser, redirect_uris=[redirect]).json()["client_id"]
    wanted = asked(browser, client_id, redirect_uri=redirect)

    page = browser.get("/authorize", params=wanted, follow_redirects=True)

    assert f"form-action 'self' {target};" in page.headers["content-security-policy"]
    for other in (f"{redirect}x", redirect.replace(":", "s:", 1)):
        refused = browser.get("/login", params=wanted | {"redirect_uri": other})
        assert refused.status_code == 400


def test_the_page_says_which_program_asks_and_cannot_be_driven_by_it(browser: httpx2.Client) -> None:
    name = '<script>alert(1)</script>" onload=x {nonce} {key}'
    made = register(browser, client_name=name, redirect_uris=["https://a.example/<b>"]).json()
    wanted = asked(browser, made["client_id"], redirect_uri=made["redirect_uris"][0])
    page = browser.get("/authorize", params=wanted, follow_redirects=True)

    assert "<script" not in page.text
    assert name[:40] in unescape(page.text)
    assert "https://a.example" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    cookie = page.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_a_form_that_another_site_sends_lets_nothing_in(
    browser: httpx2.Client, accounts: Accounts
) -> None:
    token = accounts.add("ann")
    wanted = asked(browser, register(browser).json()["client_id"])

    for form in ({}, {"form": ""}, {"form": "guessed"}):
        answer = browser.post("/login", params=wanted, data={"token": token, "answer": "allow", **form})
        assert answer.status_code == 400
        assert "location" not in answer.headers


def test_who_says_no_is_sent_back_with_that(browser: httpx2.Client, url: str) -> None:
    address = "/authorize?" + urlencode(asked(browser, register(browser).json()["client_id"]))

    said = answer_of(log_in(browser, address, "", answer="deny"))
    assert said == {"error": "access_denied", "state": "a state & more", "iss": url}


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"resource": "https://elsewhere.example/mcp"}, "invalid_target"),
        ({"resource": "{url}/mcp/more"}, "invalid_target"),
        ({"resource": "{url}/a/b/mcp"}, "invalid_target"),
        ({"resource": "{url}.evil.example/mcp"}, "invalid_target"),
        ({"resource": "{url}/Crew/mcp"}, "invalid_target"),
        ({"resource": "{url}/mcp?x=1"}, "invalid_target"),
        ({"resource": "mcp"}, "invalid_target"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_the_user_is_asked(
    browser: httpx2.Client, url: str, changed: dict[str, str | None], error: str
) -> None:
    changed = {name: value and value.replace("{url}", url) for name, value in changed.items()}
    wanted = asked(browser, register(browser).json()["client_id"], **changed)

    answer = browser.get("/authorize", params=wanted)
    assert answer.status_code == 302
    back = parse_qs(urlsplit(answer.headers["location"]).query)
    assert (back["error"], back["state"], back["iss"]) == ([error], ["a state & more"], [url])
    assert browser.get("/login", params=wanted).status_code == 400


@ON_BOTH_ENGINES
def test_a_code_is_good_once_for_its_program_and_a_minute(
    browser: httpx2.Client, accounts: Accounts, clock: TickingClock
) -> None:
    token = accounts.add("ann")
    mine, other = (register(browser).json()["client_id"] for _ in range(2))

    code = code_for(browser, mine, token)
    for spoilt in ({"code_verifier": "w" * 43}, {"redirect_uri": f"{BACK}2"}):
        assert fetch(browser, mine, code, **spoilt).status_code == 400
    assert fetch(browser, other, code).status_code == 400
    tokens = fetch(browser, mine, code).json()
    access = bearer(tokens["access_token"])
    assert browser.post("/mcp", headers=access).status_code == 200

    assert fetch(browser, mine, code).json()["error"] == "invalid_grant"
    assert browser.post("/mcp", headers=access).status_code == 401
    assert refresh(browser, mine, tokens["refresh_token"]).json()["error"] == "invalid_grant"

    late = code_for(browser, mine, token)
    clock.now += timedelta(seconds=60)
    assert fetch(browser, mine, late).json()["error"] == "invalid_grant"


@ON_BOTH_ENGINES
def test_a_refresh_token_that_comes_twice_ends_all_that_came_of_it(
    browser: httpx2.Client, accounts: Accounts
) -> None:
    client_id, token = register(browser).json()["client_id"], accounts.add("ann")
    first = fetch(browser, client_id, code_for(browser, client_id, token)).json()
    other = fetch(browser, client_id, code_for(browser, client_id, token)).json()
    second = refresh(browser, client_id, first["refresh_token"]).json()

    stolen = refresh(browser, client_id, first["refresh_token"])
    assert stolen.json()["error"] == "invalid_grant"
    assert refresh(browser, client_id, second["refresh_token"]).json()["error"] == "invalid_grant"
    for ended in (first, second):
        assert browser.post("/mcp", headers=bearer(ended["access_token"])).status_code == 401
    assert browser.post("/mcp", headers=bearer(other["access_token"])).status_code == 200


def test_a_refresh_token_is_of_its_program_and_ends(
    browser: httpx2.Client, accounts: Accounts, clock: TickingClock
) -> None:
    token = accounts.add("ann")
    mine, other = (register(browser).json()["client_id"] for _ in range(2))
    tokens = fetch(browser, mine, code_for(browser, mine, token)).json()

    assert refresh(browser, other, tokens["refresh_token"]).status_code == 400
    assert refresh(browser, mine, tokens["access_token"]).status_code == 400
    assert browser.post("/mcp", headers=bearer(tokens["refresh_token"])).status_code == 401
    clock.now += timedelta(seconds=REFRESH_S)
    assert refresh(browser, mine, tokens["refresh_token"]).json()["error"] == "invalid_grant"


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_a_program_ends_what_it_was_let_do(
    browser: httpx2.Client, accounts: Accounts, which: str
) -> None:
    token = accounts.add("ann")
    mine, other = (register(browser).json()["client_id"] for _ in range(2))
    tokens = fetch(browser, mine, code_for(browser, mine, token)).json()

    foreign = browser.post("/revoke", data={"client_id": other, "token": tokens[which]})
    unknown = browser.post("/revoke", data={"client_id": mine, "token": "nothing"})
    assert (foreign.status_code, unknown.status_code) == (200, 200)
    assert browser.post("/mcp", headers=bearer(tokens["access_token"])).status_code == 200

    assert browser.post("/revoke", data={"client_id": mine, "token": tokens[which]}).status_code == 200
    assert browser.post("/mcp", headers=bearer(tokens["access_token"])).status_code == 401
    assert refresh(browser, mine, tokens["refresh_token"]).status_code == 400
    assert browser.post("/revoke", data={"client_id": "nobody", "token": "x"}).status_code == 401


@ON_BOTH_ENGINES
@pytest.mark.parametrize("end", ["revoke", "rotate"])
def test_with_an_accounts_token_ends_what_was_let_in_by_it(
    browser: httpx2.Client, accounts: Accounts, end: str
) -> None:
    client_id, token = register(browser).json()["client_id"], accounts.add("ann")
    tokens = fetch(browser, client_id, code_for(browser, client_id, token)).json()
    waiting = code_for(browser, client_id, token)

    getattr(accounts, end)("ann")

    assert browser.post("/mcp", headers=bearer(tokens["access_token"])).status_code == 401
    assert refresh(browser, client_id, tokens["refresh_token"]).status_code == 400
    assert fetch(browser, client_id, waiting).status_code == 400


def test_wrong_logins_cost_more_and_more_time_and_tell_nothing(
    browser: httpx2.Client, accounts: Accounts, clock: TickingClock
) -> None:
    token, revoked = accounts.add("ann"), accounts.add("bob")
    accounts.revoke("bob")
    address = "/authorize?" + urlencode(asked(browser, register(browser).json()["client_id"]))

    def tried(with_token: str) -> tuple[int, str]:
        answer = log_in(browser, address, with_token)
        return answer.status_code, "".join(re.findall(r"role=alert>([^<]*)", answer.text))

    wrong = [token[:-2] + "AA", revoked, "nothing", f"soulkeep_{'0' * 16}_{'A' * 43}"]
    assert len({tried(one) for one in wrong}) == 1
    waits = []
    for _ in range(20):
        status, said = tried("nothing")
        if status == 429:
            waits.append(int(re.findall(r"\d+", said)[0]))
            assert waits[-1] < 60 or tried(token)[0] == 429  # the clock moves at each look
            clock.now += timedelta(seconds=waits[-1])
    assert waits == sorted(waits)
    assert waits[-1] > LONGEST_WAIT_S / 2
    assert len(waits) >= 20 - FREE_FAILURES - 10

    clock.now += timedelta(seconds=LONGEST_WAIT_S)
    assert log_in(browser, address, token).status_code == 303


def looked_after(browser: httpx2.Client, token: str, answer: str, name: str = "") -> tuple[int, str]:
    """Send what somebody does on the page of their account; return the status and what is said."""
    page = browser.get("/account")
    found = re.search(r'name=form value="([^"]+)"', page.text)
    assert found is not None
    form = {"form": found[1], "token": token, "answer": answer, "name": name}
    sent = browser.post("/account", data=form)
    said = re.search(r"role=(?:status|alert)>(.*?)</p>", sent.text)
    assert said is not None
    return sent.status_code, unescape(said[1])


@ON_BOTH_ENGINES
def test_somebody_looks_after_their_own_account_by_its_token(
    browser: httpx2.Client, accounts: Accounts
) -> None:
    ann, bob = accounts.add("ann"), accounts.add("bob")
    for team in ("crew", "others"):
        accounts.add_team(team)
        accounts.put_member(team, "bob", may_write=True)
    accounts.put_member("crew", "ann", may_write=True)

    for team in ("others", "nobody", "", "ann", "<b>"):
        assert looked_after(browser, ann, "leave", team) == (
            400,
            "`name` must be the name of a team of yours (crew).",
        )
    status, said = looked_after(browser, ann, "leave", "Crew")
    assert (status, said) == (200, "You are out of crew. What you wrote there stays.")
    assert accounts.access("ann", "crew") is None
    assert accounts.access("bob", "crew") is not None

    (renewed,) = re.findall(r"soulkeep_[\w-]+", looked_after(browser, ann, "rotate")[1])
    assert accounts.account_of(ann) is None
    assert looked_after(browser, ann, "rotate")[0] == 401
    for name in ("", "bob"):
        status, said = looked_after(browser, renewed, "delete", name)
        assert (status, "must be ann" in said) == (400, True)
    assert looked_after(browser, renewed, "delete", "ann")[0] == 200
    assert accounts.account_of(renewed) is None
    assert accounts.restore("ann")
    assert accounts.account_of(bob) is not None


def test_the_page_of_an_account_is_driven_by_nobody_else_and_limits_guessing(
    browser: httpx2.Client, accounts: Accounts
) -> None:
    token = accounts.add("ann")
    page = browser.get("/account")
    assert "form-action 'self' ;" in page.headers["content-security-policy"]
    for form in ({}, {"form": ""}, {"form": "guessed"}):
        sent = {"token": token, "answer": "delete", "name": "ann", **form}
        assert browser.post("/account", data=sent).status_code == 400
    statuses = [looked_after(browser, "nothing", "rotate")[0] for _ in range(2 * FREE_FAILURES)]

    assert statuses[:FREE_FAILURES] == [401] * FREE_FAILURES
    assert 429 in statuses
    assert accounts.account_of(token) is not None


REFUSED: dict[str, Callable[[str, dict[str, str]], str]] = {
    "wrong": lambda token, tokens: "nothing",
    "of our shape": lambda token, tokens: f"soulkeep_{'0' * 16}_{'A' * 43}",
    "nearly right": lambda token, tokens: token[:-2] + "AA",
    "for another audience": lambda token, tokens: tokens["access_token"],
    "a refresh token": lambda token, tokens: tokens["refresh_token"],
    "unsigned": lambda token, tokens: "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.",
}


@pytest.mark.parametrize("which", list(REFUSED))
def test_every_token_that_lets_nobody_in_costs_the_same_and_is_answered_the_same(
    url: str, browser: httpx2.Client, accounts: Accounts, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    token = accounts.add("ann")
    accounts.add_team("crew")
    accounts.put_member("crew", "ann", may_write=True)
    client_id = register(browser).json()["client_id"]
    code = code_for(browser, client_id, token, resource=f"{url}/crew/mcp")
    tokens = fetch(browser, client_id, code).json()
    sent = REFUSED[which](token, tokens)
    asked_of_store: list[str] = []
    run = accounts.store._run

    def noting(statement: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        asked_of_store.append(statement)
        return run(statement, values)

    monkeypatch.setattr(accounts.store, "_run", noting)

    answer = browser.post("/mcp", headers=bearer(sent))

    expected = browser.post("/mcp", headers=bearer("x"))
    assert (answer.status_code, answer.text) == (401, expected.text)
    challenge = answer.headers["www-authenticate"]
    assert challenge == expected.headers["www-authenticate"]
    assert 'error="invalid_token"' in challenge
    assert f'resource_metadata="{url}/.well-known/oauth-protected-resource/mcp"' in challenge
    # The id in a token is no secret: one more look says whether its secret is right, and no more.
    assert which == "for another audience" or len(asked_of_store) <= 1


@ON_BOTH_ENGINES
def test_failed_logins_count_in_all_processes(
    accounts: Accounts, tmp_path: Path, clock: TickingClock, kept_in: Options
) -> None:
    with closing(open_accounts(tmp_path, clock=clock, options=kept_in)) as other:
        for place in [accounts, other] * 10:
            with pytest.raises(LoginRefusedError) as refused:
                Grants(place).log_in("nothing", "192.0.2.1", "")
        assert refused.value.wait_s > 0
        token = accounts.add("ann")
        with pytest.raises(LoginRefusedError):
            Grants(other).log_in(token, "192.0.2.1", "")
        Grants(other).log_in(token, "192.0.2.2", "")
        for last in range(10):
            with pytest.raises(LoginRefusedError) as refused:
                Grants(other).log_in("nothing", f"2001:db8::{last}", "")
        assert refused.value.wait_s > 0


def test_a_login_ends_with_the_token_that_it_was_by(accounts: Accounts) -> None:
    grants, token = Grants(accounts), accounts.add("ann")
    grants.add_client("a program", {})
    grants.log_in(token, "192.0.2.1", "")
    accounts.rotate("ann")

    with pytest.raises(LoginRefusedError):
        grants.add(
            token,
            "a program",
            resource="r",
            redirect_uri=BACK,
            redirect_was_named=True,
            code_challenge=CHALLENGE,
        )


@ON_BOTH_ENGINES
def test_one_address_registers_only_so_many_programs_in_an_hour(
    browser: httpx2.Client, accounts: Accounts, clock: TickingClock
) -> None:
    clock.now = clock.now.replace(minute=0)
    answers = [register(browser).status_code for _ in range(MOST_REGISTERING + 2)]

    assert answers == [201] * MOST_REGISTERING + [429] * 2
    assert accounts.store.count_clients() == MOST_REGISTERING
    clock.now += timedelta(hours=1)
    assert register(browser).status_code == 201


@ON_BOTH_ENGINES
def test_of_many_who_use_a_code_at_once_one_gets_tokens_which_end(accounts: Accounts) -> None:
    grants, token = Grants(accounts), accounts.add("ann")
    grants.add_client("a program", {})
    code = grants.add(
        token,
        "a program",
        resource="r",
        redirect_uri=BACK,
        redirect_was_named=True,
        code_challenge=CHALLENGE,
    )
    found = grants.unspent(code, "code")
    assert found is not None

    with ThreadPoolExecutor(8) as threads:
        issued = [one for one in threads.map(grants.exchange, [found[0].id] * 8) if one]

    assert len(issued) == 1
    assert accounts.verified(issued[0].access_token, "access") is None


@ON_BOTH_ENGINES
def test_grants_and_programs_stay_few(accounts: Accounts, clock: TickingClock) -> None:
    grants, token = Grants(accounts), accounts.add("ann")
    for number in range(MOST_GRANTS + 20):
        grants.add_client(f"c{number}", {})
        code = grants.add(
            token,
            f"c{number}",
            resource="r",
            redirect_uri=BACK,
            redirect_was_named=True,
            code_challenge="x",
        )
        found = grants.unspent(code, "code")
        assert found is not None
        assert grants.exchange(found[0].id) is not None

    rows = accounts.store._run
    assert rows("SELECT COUNT(*) FROM grants", {}) == [(MOST_GRANTS,)]
    clock.now += timedelta(seconds=2 * REFRESH_S)
    grants.add_client("last", {})
    for table in ("grants", "tokens WHERE kind <> 'account'"):
        assert rows(f"SELECT COUNT(*) FROM {table}", {}) == [(0,)]  # noqa: S608
    assert rows("SELECT COUNT(*) FROM clients", {}) == [(1,)]


def test_no_secret_is_kept_logged_or_shown(
    browser: httpx2.Client, accounts: Accounts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client_id, token = register(browser).json()["client_id"], accounts.add("ann")
    code = code_for(browser, client_id, token)
    tokens = fetch(browser, client_id, code).json()
    browser.post("/mcp", headers=bearer(tokens["access_token"]))
    fetch(browser, client_id, code)
    refresh(browser, client_id, tokens["refresh_token"])

    secrets = [one[26:] for one in (token, tokens["access_token"], tokens["refresh_token"])]
    for path in tmp_path.glob("accounts.db*"):
        kept = path.read_bytes()
        assert not any(secret.encode() in kept for secret in [*secrets, code[26:]])
    said = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith("soulkeep")
    )
    assert not any(secret in said for secret in secrets)


def test_without_https_a_server_on_a_network_takes_tokens_and_offers_no_login(
    accounts: Accounts,
) -> None:
    authority = open_authority(Settings(), accounts, "http://192.0.2.7:8765")

    assert authority.routes == []
    assert not authority.offers_oauth
