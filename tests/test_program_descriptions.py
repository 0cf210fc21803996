"""Programs whose id is the address at which they say what they are (Client ID Metadata Documents)."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anyio.to_thread import run_sync
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata
from pydantic import AnyUrl

from conftest import TickingClock
from serving import JSON, PATIENCE_S, Process
from soulkeep.app import open_accounts
from soulkeep.errors import InvalidInputError
from soulkeep.service.grants import DESCRIPTION_S, Grants
from soulkeep.service.issuer import MOST_DESCRIPTION_BYTES, description_of
from test_http import IN_MODERN, LIST
from test_http_network import pems
from test_oauth import BACK, Kept, answer_of, asked, log_in

__all__ = ["pems"]


class Publisher:
    """A host over https on this machine that publishes what is in `pages`; `asked` are the paths."""

    def __init__(self, pems: Path) -> None:
        self.pages: dict[str, Any] = {}
        self.asked: list[str] = []
        published = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                published.asked.append(self.path)
                page = published.pages.get(self.path)
                moved = page if isinstance(page, str) else None
                self.send_response(302 if moved else 200 if page is not None else 404)
                if moved:
                    self.send_header("Location", moved)
                self.end_headers()
                self.wfile.write(page if isinstance(page, bytes) else json.dumps(page).encode())

            def log_message(self, *_: object) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pems / "cert.pem", pems / "key.pem")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def publish(self, path: str, **said: Any) -> str:
        url = f"https://localhost:{self._server.server_address[1]}{path}"
        usual = {"client_id": url, "client_name": "A program", "redirect_uris": [BACK]}
        self.pages[path] = {name: value for name, value in (usual | said).items() if value is not None}
        return url

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def publisher(pems: Path) -> Iterator[Publisher]:
    with closing(Publisher(pems)) as running:
        yield running


@pytest.fixture(scope="module")
def place(pems: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, str]]:
    """A server that trusts the certificate of the publisher, and the token of an account."""
    home = tmp_path_factory.mktemp("home")
    with closing(open_accounts(home)) as accounts:
        token = accounts.add("ann")
    with Process(home, SSL_CERT_FILE=str(pems / "cert.pem")) as process:
        yield process, token


async def test_a_program_that_publishes_what_it_is_gets_in_without_registering(
    place: tuple[Process, str], publisher: Publisher
) -> None:
    process, token = place
    program_id = publisher.publish("/client.json", client_name="Editor")
    pages: list[str] = []
    kept = Kept()

    async def redirected(to: str) -> None:
        with httpx2.Client(timeout=PATIENCE_S) as browser:
            page = await run_sync(lambda: browser.get(to, follow_redirects=True))
            pages.append(page.text)
            kept.back = answer_of(await run_sync(log_in, browser, to, token))

    async def called_back() -> AuthorizationCodeResult:
        return AuthorizationCodeResult.model_validate(kept.back)

    metadata = OAuthClientMetadata(redirect_uris=[AnyUrl(BACK)], client_name="Editor")
    auth = OAuthClientProvider(
        f"{process.url}/mcp", metadata, kept, redirected, called_back, client_metadata_url=program_id
    )
    async with httpx2.AsyncClient(timeout=PATIENCE_S, auth=auth, headers=JSON | IN_MODERN) as client:
        answer = await client.post(f"{process.url}/mcp", json=LIST)

    assert answer.status_code == 200
    assert kept.client is not None
    assert kept.client.client_id == program_id
    assert "<b>Editor</b>" in pages[0]
    assert "of <b>localhost</b>" in pages[0]
    assert publisher.asked.count("/client.json") == 1


@pytest.mark.parametrize(
    ("path", "said", "why"),
    [
        ("/other", {"client_id": "https://localhost/other"}, "not of this program"),
        ("/nobody", {"client_id": None}, "not of this program"),
        ("/nowhere", {"redirect_uris": None}, "without redirect_uris"),
        ("/http", {"redirect_uris": ["http://example.org/back"]}, "https://"),
        ("/script", {"redirect_uris": ["javascript:alert(1)"]}, "https://"),
        ("/odd", {"redirect_uris": "no list"}, "redirect_uris"),
        ("/long", {"client_name": "x" * MOST_DESCRIPTION_BYTES}, "too long"),
        ("/list", [], "not of this program"),
        ("/text", b"no json", "cannot be used"),
        ("/moved", "/client.json", "answers 302"),
        ("/gone", None, "answers 404"),
    ],
)
def test_what_a_program_cannot_mean_lets_it_ask_for_nothing(
    place: tuple[Process, str], publisher: Publisher, path: str, said: Any, why: str
) -> None:
    program_id = publisher.publish(path, **(said if isinstance(said, dict) else {}))
    if not isinstance(said, dict):
        publisher.pages[path] = said
    before = len(publisher.asked)
    with httpx2.Client(timeout=PATIENCE_S, base_url=place[0].url) as browser:
        refused = browser.get("/authorize", params=asked(browser, program_id))
        page = browser.get("/login", params=asked(browser, program_id))

    assert (refused.status_code, page.status_code) == (400, 400)
    assert refused.json()["error"] == "invalid_client"
    assert why in refused.json()["error_description"]
    assert publisher.asked[before:] == [path]


@pytest.mark.parametrize(
    "program",
    [
        "https://localhost:{port}/client.json",
        "https://127.0.0.1:{port}/client.json",
        "https://[::1]:{port}/client.json",
        "https://[::ffff:127.0.0.1]:{port}/client.json",
        "https://[64:ff9b::127.0.0.1]:{port}/client.json",
        "https://10.0.0.1/client.json",
        "https://169.254.169.254/latest/meta-data",
        "https://[fe80::1]/client.json",
        "https://0.0.0.0:{port}/client.json",
        "https://224.0.0.1/client.json",
    ],
)
def test_a_server_of_others_asks_public_hosts_alone(publisher: Publisher, program: str) -> None:
    port = int(publisher.publish("/client.json").rpartition(":")[2].partition("/")[0])
    before = len(publisher.asked)

    with pytest.raises(InvalidInputError, match="no public host"):
        description_of(program.format(port=port), is_local=False)
    assert len(publisher.asked) == before


@pytest.mark.parametrize(
    "program",
    [
        "http://example.org/client.json",
        "https://example.org",
        "https://example.org/",
        "https://user@example.org/client.json",
        "https://example.org/client.json#part",
        "https://example.org/a/../client.json",
        "https://8.8.8.8/client.json\0",
        "https://8.8.8.8/client\n.json",
        "https://8.8.8.8/a client.json",
        "https://\u0441laude.ai/client.json",  # with a Cyrillic letter
        "https://example.org:99999999/client.json",
        "https://example.org/" + "a" * 500,
    ],
)
def test_an_address_that_can_be_no_id_is_not_asked(program: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be used"):
        description_of(program, is_local=True)


def test_what_a_program_says_of_itself_is_read_again_after_a_day(
    tmp_path: Path, clock: TickingClock
) -> None:
    with closing(open_accounts(tmp_path, clock=clock)) as accounts:
        grants = Grants(accounts)
        grants.add_client("https://a.example/x", {"client_name": "A"})
        assert grants.client("https://a.example/x", DESCRIPTION_S) == {"client_name": "A"}

        clock.now += timedelta(seconds=DESCRIPTION_S)
        assert grants.client("https://a.example/x", DESCRIPTION_S) is None
        assert grants.client("https://a.example/x") == {"client_name": "A"}
        grants.add_client("https://a.example/x", {"client_name": "B"})
        assert grants.client("https://a.example/x", DESCRIPTION_S) == {"client_name": "B"}
