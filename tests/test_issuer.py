"""Tokens of an external issuer, which is one on this machine: who gets in, and who does not."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from served import served
from soulkeep.app import Settings, open_accounts, open_authority
from soulkeep.service.accounts import Accounts
from soulkeep.service.issuer import Issuer

AUDIENCE = "https://memory.example.org/mcp"
ALGORITHMS = ("RS256", "ES256", "EdDSA")


@cache
def keys() -> dict[str, Any]:
    """The keys of an issuer: to make one takes a while."""
    return {
        "RS256": rsa.generate_private_key(65_537, 2_048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }


@cache
def stranger() -> Any:
    return rsa.generate_private_key(65_537, 2_048)


class IssuerServer:
    """Publishes keys as an issuer does; `asked` are the paths that were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.published = dict(keys())
        self.name_said: str | None = None
        self.status = 200
        answered = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                answered.asked.append(self.path)
                body = json.dumps(answered.answer(self.path)).encode()
                self.send_response(answered.status if body != b"null" else 404)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str) -> object:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.name_said or self.url, "jwks_uri": f"{self.url}/keys"}
        return (
            {"keys": [_jwk(name, key) for name, key in self.published.items()]}
            if path == "/keys"
            else None
        )

    def token(
        self, *, algorithm: str = "RS256", key: object = None, kid: str = "", **claims: object
    ) -> str:
        said = {"iss": self.url, "aud": AUDIENCE, "sub": "ann@work", "exp": time.time() + 300, **claims}
        said = {name: value for name, value in said.items() if value is not None}
        headers = {"kid": kid or algorithm}
        return jwt.encode(said, key or keys().get(algorithm), algorithm=algorithm, headers=headers)  # type: ignore[arg-type]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _jwk(name: str, key: Any) -> dict[str, Any]:
    kind = {"RS256": "RSAAlgorithm", "ES256": "ECAlgorithm", "EdDSA": "OKPAlgorithm"}[name]
    public: dict[str, Any] = getattr(jwt.algorithms, kind).to_jwk(key.public_key(), as_dict=True)
    return public | {"kid": name, "alg": name, "use": "sig"}


@pytest.fixture
def issuing() -> Iterator[IssuerServer]:
    with closing(IssuerServer()) as server:
        yield server


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[Accounts]:
    with closing(open_accounts(tmp_path)) as opened:
        yield opened


@pytest.fixture
def browser(issuing: IssuerServer, accounts: Accounts) -> Iterator[httpx2.Client]:
    settings = Settings(issuer=issuing.url, issuer_audience=AUDIENCE)
    with ExitStack() as stack:
        url = stack.enter_context(served(lambda url: open_authority(settings, accounts, url)))
        yield stack.enter_context(httpx2.Client(base_url=url))


def status(browser: httpx2.Client, token: str, path: str = "/mcp") -> int:
    return browser.post(path, headers={"Authorization": f"Bearer {token}"}).status_code


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_the_issuer_lets_in_the_account_of_its_subject(
    browser: httpx2.Client, issuing: IssuerServer, accounts: Accounts, algorithm: str
) -> None:
    accounts.add("ann", issuer=issuing.url, subject="ann@work")
    token = issuing.token(algorithm=algorithm)

    answer = browser.post("/mcp", headers={"Authorization": f"Bearer {token}"})
    assert answer.json() == {"account": "ann", "home": "ann", "may_write": True}
    assert status(browser, issuing.token(algorithm=algorithm, aud=["x", AUDIENCE])) == 200


def test_a_token_for_the_address_of_a_home_is_good_there_alone(
    browser: httpx2.Client, issuing: IssuerServer, accounts: Accounts
) -> None:
    accounts.add("ann", issuer=issuing.url, subject="ann@work")
    accounts.add_team("crew")
    accounts.put_member("crew", "ann", may_write=False)
    for_crew = issuing.token(aud=f"{browser.base_url.copy_with(path='/crew/mcp')}")

    assert status(browser, for_crew, "/crew/mcp") == 200
    assert status(browser, for_crew) == 401
    assert status(browser, issuing.token(), "/crew/mcp") == 200


def _with_header(token: str, **header: object) -> str:
    written = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    return ".".join([written, *token.split(".")[1:]])


def _signed_by_the_public_key(issuing: IssuerServer) -> str:
    public = keys()["RS256"].public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"RS256"}').rstrip(b"=")
    body = issuing.token().split(".")[1].encode()
    signature = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(
        header + b"." + body, pem
    )
    return b".".join([header, body, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


WRONG: dict[str, Callable[[IssuerServer], str]] = {
    "of another issuer": lambda issuing: issuing.token(iss="https://evil.example"),
    "for another audience": lambda issuing: issuing.token(aud="https://other.example"),
    "for a part of the audience": lambda issuing: issuing.token(aud=AUDIENCE[:-1]),
    "without audience": lambda issuing: issuing.token(aud=None),
    "expired": lambda issuing: issuing.token(exp=time.time() - 60),
    "without end": lambda issuing: issuing.token(exp=None),
    "not yet good": lambda issuing: issuing.token(nbf=time.time() + 120),
    "without subject": lambda issuing: issuing.token(sub=None),
    "with a blank subject": lambda issuing: issuing.token(sub=" "),
    "with half a character as its subject": lambda issuing: issuing.token(sub="\ud800"),
    "with a list as its subject": lambda issuing: issuing.token(sub=["ann@work"]),
    "of an unknown subject": lambda issuing: issuing.token(sub="bob@work"),
    "with the name of an account": lambda issuing: issuing.token(sub="ann"),
    "signed by another": lambda issuing: issuing.token(key=stranger()),
    "with an unknown key": lambda issuing: issuing.token(key=stranger(), kid="new"),
    "unsigned": lambda issuing: jwt.encode(
        {"iss": issuing.url, "aud": AUDIENCE, "sub": "ann@work", "exp": time.time() + 300}, "", "none"
    ),
    "called unsigned": lambda issuing: _with_header(issuing.token(), alg="none", kid="RS256"),
    "signed by the public key": _signed_by_the_public_key,
    "of another algorithm": lambda issuing: _with_header(issuing.token(), alg="ES256", kid="RS256"),
    "with a list as its key": lambda issuing: _with_header(issuing.token(), alg="RS256", kid=["RS256"]),
    "cut off": lambda issuing: issuing.token()[:-8],
    "of two parts": lambda issuing: issuing.token().rpartition(".")[0],
    "no token": lambda issuing: "a.b.c",
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_any_other_token_is_refused_with_the_way_to_the_issuer(
    browser: httpx2.Client, issuing: IssuerServer, accounts: Accounts, wrong: str
) -> None:
    accounts.add("ann", issuer=issuing.url, subject="ann@work")
    assert status(browser, issuing.token()) == 200

    answer = browser.post("/mcp", headers={"Authorization": f"Bearer {WRONG[wrong](issuing)}"})
    assert answer.status_code == 401
    assert answer.json() == browser.post("/mcp").json()
    assert "resource_metadata=" in answer.headers["www-authenticate"]
    described = browser.get("/.well-known/oauth-protected-resource/mcp").json()
    assert described["authorization_servers"] == [issuing.url]
    assert browser.get("/.well-known/oauth-authorization-server").status_code == 404
    assert browser.get("/login").status_code == 404


def test_an_accounts_own_token_lets_in_beside_the_issuer(
    browser: httpx2.Client, issuing: IssuerServer, accounts: Accounts
) -> None:
    token = accounts.add("ann", issuer=issuing.url, subject="ann@work")
    assert status(browser, token) == 200

    accounts.revoke("ann")
    assert status(browser, token) == 401
    assert status(browser, issuing.token()) == 401


def test_an_account_is_made_of_a_subject_only_where_that_is_set(
    issuing: IssuerServer, accounts: Accounts
) -> None:
    accounts.add("ann")
    closed = Issuer(accounts, issuing.url, AUDIENCE)
    opened = Issuer(accounts, issuing.url, AUDIENCE, adds_accounts=True)

    assert closed.claims_of(issuing.token(sub="ann"), "") is None
    first = opened.claims_of(issuing.token(sub="ann"), "")
    assert first is not None
    assert first.account.name.startswith("ann-")
    assert opened.claims_of(issuing.token(sub="ann", key=stranger()), "") is None
    again = closed.claims_of(issuing.token(sub="ann"), "")
    assert again is not None
    assert again.account == first.account
    assert len(accounts.all()) == 2


def test_keys_are_read_once_and_an_unknown_key_asks_seldom(
    issuing: IssuerServer, accounts: Accounts
) -> None:
    accounts.add("ann", issuer=issuing.url, subject="ann@work")
    issuer = Issuer(accounts, issuing.url, AUDIENCE)

    for number in range(20):
        assert issuer.claims_of(issuing.token(), "") is not None
        assert issuer.claims_of(issuing.token(key=stranger(), kid=f"new{number}"), "") is None
    assert len(issuing.asked) <= 3


def test_an_issuer_that_fails_or_is_another_is_left_alone_for_a_while(
    issuing: IssuerServer, accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    accounts.add("ann", issuer=issuing.url, subject="ann@work")
    issuing.name_said = "https://evil.example"
    issuer = Issuer(accounts, issuing.url, AUDIENCE)
    token = issuing.token()

    assert [issuer.claims_of(token, "") for _ in range(5)] == [None] * 5
    assert len(issuing.asked) == 2
    assert len(caplog.records) == 1
    assert token not in caplog.text
    issuing.status = 500
    at_once = Issuer(accounts, issuing.url, AUDIENCE, f"{issuing.url}/keys")
    assert [at_once.claims_of(token, "") for _ in range(5)] == [None] * 5
    assert issuing.asked.count("/keys") == 1
