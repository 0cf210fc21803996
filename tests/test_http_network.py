"""Where a server over HTTP stands in a network: its certificate, and the proxies in front of it."""

import re
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from conftest import Run
from serving import JSON, PATIENCE_S, Process, Serving, serving
from soulkeep.app import open_accounts
from soulkeep.service.grants import FREE_FAILURES, network_of
from test_http import IN_MODERN, LIST
from test_oauth import CHALLENGE, asked, register

MOST_TRIES = FREE_FAILURES + 10


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a certificate of this machine, its key in several forms, and another key."""
    folder = tmp_path_factory.mktemp("pems")
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "soulkeep")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )

    def written(one: ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
        hidden = BestAvailableEncryption(password) if password else NoEncryption()
        return one.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)

    for file, content in {
        "cert.pem": certificate,
        "key.pem": written(key),
        "both.pem": certificate + written(key),
        "other.pem": written(other),
        "hidden.pem": written(key, b"secret"),
        "none.pem": b"no certificate",
    }.items():
        (folder / file).write_bytes(content)
    (folder / "folder").mkdir()
    return folder


@pytest.mark.parametrize(
    "files",
    [("--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem"), ("--ssl-certfile", "both.pem")],
)
def test_with_a_certificate_all_is_served_and_named_over_https(
    home_path: Path, pems: Path, files: tuple[str, ...]
) -> None:
    home_path.mkdir()
    with closing(open_accounts(home_path)) as accounts:
        token = accounts.add("ann")
    paths = [str(pems / one) if one.endswith(".pem") else one for one in files]
    context = ssl.create_default_context(cafile=str(pems / "cert.pem"))
    with (
        Process(home_path, *paths) as process,
        httpx2.Client(timeout=PATIENCE_S, verify=context) as client,
    ):
        assert process.url.startswith("https://127.0.0.1:")
        refused = client.post(f"{process.url}/mcp")
        let_in = client.post(
            f"{process.url}/mcp",
            json=LIST,
            headers=JSON | IN_MODERN | {"authorization": f"Bearer {token}"},
        )
        described = re.findall(r'resource_metadata="([^"]+)"', refused.headers["www-authenticate"])
        resource = client.get(described[0]).json()
        (issuer,) = resource["authorization_servers"]
        server = client.get(f"{issuer}/.well-known/oauth-authorization-server").json()
        with httpx2.Client(timeout=PATIENCE_S, base_url=process.url, verify=context) as browser:
            client_id = register(browser).json()["client_id"]
            page = browser.get("/login", params=asked(browser, client_id))
        with pytest.raises(httpx2.TransportError):
            httpx2.get(process.url.replace("https:", "http:") + "/healthz")
        code, _, err = process.end()

    assert (refused.status_code, let_in.status_code) == (401, 200)
    urls = [*described, resource["resource"], issuer, server["issuer"], server["token_endpoint"]]
    assert all(url.startswith(process.url) for url in urls)
    assert "; Secure" in page.headers["set-cookie"]
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("certfile", "keyfile", "said"),
    [
        ("absent.pem", None, r"--ssl-certfile \S*absent.pem cannot be read \(No such file"),
        ("folder", "key.pem", r"--ssl-certfile \S*folder cannot be read \("),
        ("none.pem", None, r"--ssl-certfile \S*none.pem holds no certificate in PEM"),
        ("key.pem", "key.pem", r"--ssl-certfile \S*key.pem holds no certificate in PEM"),
        ("cert.pem", "absent.pem", r"--ssl-keyfile \S*absent.pem cannot be read \(No such file"),
        ("cert.pem", "folder", r"--ssl-keyfile \S*folder cannot be read \("),
        ("cert.pem", "other.pem", r"--ssl-keyfile \S*other.pem holds no key of the certificate"),
        ("cert.pem", "hidden.pem", r"--ssl-keyfile \S*hidden.pem holds no key .* without a password"),
        ("cert.pem", "none.pem", r"--ssl-keyfile \S*none.pem holds no key of the certificate"),
        ("cert.pem", None, r"--ssl-keyfile \S*cert.pem holds no key of the certificate"),
        (None, "key.pem", r"--ssl-keyfile is the key of a certificate; .* --ssl-certfile"),
    ],
)
def test_a_certificate_or_key_that_cannot_be_used_is_one_line(
    run: Run, pems: Path, certfile: str | None, keyfile: str | None, said: str
) -> None:
    given = {"--ssl-certfile": certfile, "--ssl-keyfile": keyfile}
    options = [part for name, file in given.items() if file for part in (name, str(pems / file))]

    code, out, err = run("serve", "--http", "--port", "0", *options)

    assert (code, out) == (1, "")
    assert re.fullmatch(rf"soulkeep: {said}.*\n", err)


def test_who_serves_others_without_a_certificate_is_told_that_one_belongs_in_front(
    home_path: Path,
) -> None:
    home_path.mkdir()
    with closing(open_accounts(home_path)) as accounts:
        accounts.add("ann")
    # Without what keeps tests off the network, which takes this address for one of it.
    with Process(home_path, "--host", "0.0.0.0", PYTHONPATH="") as process:  # noqa: S104
        assert process.process.stderr
        said = process.process.stderr.readline().decode()

    assert "unencrypted" in said
    assert "--ssl-certfile" in said
    assert "proxy with TLS in front" in said


@pytest.mark.skipif(sys.platform != "linux", reason="others have one address of this kind alone")
def test_a_server_goes_by_each_address_of_its_machine_and_no_other(home_path: Path) -> None:
    home_path.mkdir()
    with closing(open_accounts(home_path)) as accounts:
        headers = JSON | IN_MODERN | {"authorization": f"Bearer {accounts.add('ann')}"}
    with Process(home_path, "--host", "0.0.0.0", PYTHONPATH="") as process:  # noqa: S104
        port = process.url.rpartition(":")[2]

        def status(address: str, host: str) -> int:
            named = headers | {"host": f"{host}:{port}"}
            place = f"http://{address}:{port}/mcp"
            return httpx2.post(place, json=LIST, headers=named, timeout=PATIENCE_S).status_code

        asked_by = [
            *(("127.0.0.7", "127.0.0.7"), ("127.0.0.8", "127.0.0.8"), ("127.0.0.7", "127.0.0.9")),
            *(("127.0.0.7", "127.0.0.7.evil.example"), ("127.0.0.7", "evil.example")),
        ]
        assert [status(*one) for one in asked_by] == [200, 200, 421, 421, 421]


@pytest.mark.parametrize("proxies", ["proxy.example.org", "10.0.0.0/99", "127.0.0.1, 1.2.3", "**"])
def test_a_proxy_that_is_no_address_is_named(
    run: Run, proxies: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOULKEEP_HTTP_PROXIES", proxies)

    code, _, err = run("serve", "--http", "--port", "0")

    assert code == 2
    assert "SOULKEEP_HTTP_PROXIES" in err
    assert repr(proxies.rpartition(", ")[2]) in err


@asynccontextmanager
async def behind(home: Path, proxies: str) -> AsyncIterator[Serving]:
    home.mkdir()
    with closing(open_accounts(home)) as accounts:
        accounts.add("ann")
    async with serving(home, http_proxies=proxies) as running:
        yield running


async def tried(running: Serving, *forwarded_for: str) -> list[int]:
    """Send a wrong token from the login page for each; return the statuses of the answers."""
    back = "http://127.0.0.1/back"
    async with httpx2.AsyncClient(timeout=PATIENCE_S, base_url=running.url) as browser:
        program = (await browser.post("/register", json={"redirect_uris": [back]})).json()
        wanted = {"response_type": "code", "client_id": program["client_id"], "redirect_uri": back}
        address = "/login?" + urlencode(wanted | {"code_challenge": CHALLENGE})
        await browser.get(address)
        statuses = []
        for one in forwarded_for:
            form = {"form": browser.cookies["soulkeep_form"], "token": "nothing", "answer": "allow"}
            answer = await browser.post(address, data=form, headers={"x-forwarded-for": one})
            statuses.append(answer.status_code)
    return statuses


def assert_blocked(statuses: list[int]) -> None:
    assert statuses[:FREE_FAILURES] == [401] * FREE_FAILURES
    assert 429 in statuses  # each that is not blocked doubles the wait


@pytest.mark.parametrize("proxies", ["127.0.0.1", "127.0.0.0/8, 192.0.2.1", "*"])
async def test_behind_a_proxy_each_client_is_counted_by_its_own_address(
    home_path: Path, proxies: str
) -> None:
    async with behind(home_path, proxies) as running:
        assert_blocked(await tried(running, *["203.0.113.5"] * MOST_TRIES))
        assert await tried(running, "203.0.113.6:4711") == [401]


@pytest.mark.parametrize(
    ("proxies", "invented"),
    [
        ("127.0.0.1", "198.51.100.{0}, 203.0.113.5"),
        ("127.0.0.1", "198.51.100.{0}:99, [2001:db8::{0}]:1, 203.0.113.5:{0}"),
        ("127.0.0.1, 192.0.2.0/24", "198.51.100.{0}, 203.0.113.5, 192.0.2.{0}"),
        ("*", "198.51.100.{0}, 203.0.113.5"),
        ("192.0.2.1", "198.51.100.{0}"),
        ("", "198.51.100.{0}"),
    ],
)
async def test_nobody_chooses_the_address_that_they_are_counted_by(
    home_path: Path, proxies: str, invented: str
) -> None:
    async with behind(home_path, proxies) as running:
        assert_blocked(await tried(running, *map(invented.format, range(MOST_TRIES))))


@pytest.mark.parametrize(
    ("proxies", "is_believed"), [("127.0.0.1", True), ("*", True), ("192.0.2.1", False), ("", False)]
)
async def test_by_which_name_and_scheme_it_was_asked_is_believed_of_proxies_alone(
    home_path: Path, proxies: str, is_believed: bool
) -> None:
    evil = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https"}
    async with serving(home_path, http_proxies=proxies) as running, running.http() as http:
        asked_by_name = await http.post("/mcp", json=LIST, headers=IN_MODERN | evil)
        moved = await http.get("/mcp/", headers={"x-forwarded-proto": "https"})
        odd = await http.get("/mcp/", headers={"x-forwarded-proto": "gopher"})

    assert asked_by_name.status_code == (421 if is_believed else 200)
    assert moved.headers["location"].startswith("https:") == is_believed
    assert odd.headers["location"].startswith("http:")


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("", "unknown"),
        ("_hidden", "unknown"),
    ],
)
def test_an_address_is_counted_the_same_however_it_is_written(address: str, counted_as: str) -> None:
    assert network_of(address) == counted_as
