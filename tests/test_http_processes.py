"""Processes of a server over HTTP: how one ends, and several that serve the same accounts."""

import itertools
import json
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.client.streamable_http import streamable_http_client
from mcp.types import ElicitRequestParams, ElicitResult, TextResourceContents

from serving import JSON, PATIENCE_S, Process
from soulkeep.app import open_accounts
from soulkeep.models import Options
from test_http import AGREE, IN_MODERN, OPENING
from test_oauth import ON_BOTH_ENGINES, Kept, answer_of, asked, kept_in, program, register
from wire import MODERN

__all__ = ["kept_in"]

pytestmark = [
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
    pytest.mark.skipif(sys.platform == "win32", reason="a signal ends a process at once there"),
]

READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LISTEN = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "subscriptions/listen",
    "params": {"notifications": {"promptsListChanged": True}, "_meta": MODERN},
}


def calling(tool: str, **arguments: Any) -> dict[str, Any]:
    call = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}


def opened(http: httpx2.Client) -> dict[str, str]:
    """Open a session of the handshake era; return the header that names it."""
    answer = http.post("/mcp", json=OPENING)
    session = {"mcp-session-id": answer.headers["mcp-session-id"]}
    http.post("/mcp", json=READY, headers=session)
    return session


def events(answer: httpx2.Response) -> Iterator[dict[str, Any]]:
    for line in answer.iter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


def until_it_stops(process: Process) -> None:
    """Wait until nobody new is let in, while the process is still there."""
    while True:
        try:
            httpx2.get(f"{process.url}/healthz", timeout=PATIENCE_S)
        except httpx2.TransportError:
            break
    assert process.process.poll() is None


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_what_is_under_way_and_a_second_one_for_nothing(
    home_path: Path, first: int
) -> None:
    with (
        Process(home_path) as process,
        httpx2.Client(timeout=PATIENCE_S, base_url=process.url, headers=JSON) as http,
    ):
        session = opened(http)
        keep = calling("remember", content="Anna likes peanuts.")
        assert http.post("/mcp", json=keep, headers=session).status_code == 200
        with closing(sqlite3.connect(home_path / "soulkeep.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with http.stream("POST", "/mcp", json=keep, headers=session) as answer:
                process.process.send_signal(first)
                until_it_stops(process)
                other.execute("ROLLBACK")
                (said,) = (event for event in events(answer) if "result" in event)
        assert process.process.wait(PATIENCE_S) == 0
    assert not said["result"].get("isError")

    with (
        Process(home_path) as process,
        httpx2.Client(timeout=PATIENCE_S, base_url=process.url, headers=JSON) as http,
    ):
        session = opened(http)
        with closing(sqlite3.connect(home_path / "soulkeep.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with http.stream("POST", "/mcp", json=keep, headers=session):
                process.process.send_signal(first)
                until_it_stops(process)
                process.process.send_signal(signal.SIGTERM)
                assert process.process.wait(PATIENCE_S) == 128 + signal.SIGTERM


def test_a_signal_ends_a_question_to_the_user_and_a_subscription_with_their_results(
    home_path: Path,
) -> None:
    with (
        Process(home_path) as process,
        httpx2.Client(timeout=PATIENCE_S, base_url=process.url, headers=JSON) as http,
    ):
        session = opened(http)
        learn = calling("learn_preference", line="Be brief.")
        headers = IN_MODERN | {"mcp-method": "subscriptions/listen"}
        with (
            http.stream("POST", "/mcp", json=LISTEN, headers=headers) as listening,
            http.stream("POST", "/mcp", json=learn, headers=session) as answer,
        ):
            heard = events(listening)
            assert next(heard)["method"] == "notifications/subscriptions/acknowledged"
            told = events(answer)
            assert next(told)["method"] == "elicitation/create"
            process.process.send_signal(signal.SIGTERM)
            *_, last = told
            *_, end = heard
        assert last["result"]["structuredContent"]["state"] == "not asked"
        assert "result" in end
        assert process.end(0)[0] == 0


def test_a_login_that_was_begun_before_a_restart_ends_after_it(home_path: Path) -> None:
    home_path.mkdir()
    with closing(open_accounts(home_path)) as accounts:
        token = accounts.add("ann")
    public = {"SOULKEEP_URL": "http://127.0.0.1:1"}
    with httpx2.Client(timeout=PATIENCE_S) as browser:
        with Process(home_path, **public) as process:
            browser.base_url = httpx2.URL(process.url)
            client_id = register(browser).json()["client_id"]
            wanted = asked(browser, client_id, resource="http://127.0.0.1:1/mcp")
            page = browser.get("/login", params=wanted)
            assert page.status_code == 200
            code, _, err = process.end()  # the page's connection is still open
        assert (code, err) == (0, "")
        with Process(home_path, **public) as process:
            browser.base_url = httpx2.URL(process.url)
            form = {"form": browser.cookies["soulkeep_form"], "token": token, "answer": "allow"}
            assert "code" in answer_of(browser.post("/login", params=wanted, data=form))


class InTurn(httpx2.AsyncHTTPTransport):
    """Sends each request to the next process, as a proxy may that knows nothing of sessions."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__()
        self.ports = [httpx2.URL(url).port for url in urls]
        self._next = itertools.cycle(self.ports)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.url = request.url.copy_with(port=next(self._next))
        return await super().handle_async_request(request)


class BrowserInTurn(httpx2.HTTPTransport):
    """The same for a browser."""

    def __init__(self, ports: list[int | None]) -> None:
        super().__init__()
        self._next = itertools.cycle(ports)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.url = request.url.copy_with(port=next(self._next))
        return super().handle_request(request)


Processes = Callable[[int], tuple[str, InTurn, str]]


@pytest.fixture
def processes(home_path: Path, kept_in: Options) -> Iterator[Processes]:
    """Start processes over the accounts; return where they are, how to get there, and a token."""
    home_path.mkdir()
    with ExitStack() as stack:
        accounts = stack.enter_context(closing(open_accounts(home_path, options=kept_in)))
        token = accounts.add("ann")

        def start(count: int) -> tuple[str, InTurn, str]:
            public = "http://127.0.0.1:1"
            environment = {"SOULKEEP_URL": public, "SOULKEEP_STORE": kept_in.store.get_secret_value()}
            started = [stack.enter_context(Process(home_path, **environment)).url for _ in range(count)]
            return public, InTurn(started), token

        yield start


@ON_BOTH_ENGINES
async def test_any_process_goes_on_with_what_another_began(processes: Processes) -> None:
    url, in_turn, token = processes(3)
    asked_for: list[str] = []

    async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked_for.append(params.message)
        return AGREE

    kept = Kept()
    with httpx2.Client(
        timeout=PATIENCE_S, base_url=url, transport=BrowserInTurn(in_turn.ports)
    ) as browser:
        async with (
            program(f"{url}/mcp", browser, token, kept, in_turn) as http,
            Client(
                streamable_http_client(f"{url}/mcp", http_client=http),
                mode="auto",
                cache=None,
                elicitation_callback=answer,
            ) as client,
        ):
            await client.call_tool("remember", {"content": "The harbour is frozen."})
            recalled = [
                (await client.call_tool("recall", {"query": "harbour"})).structured_content
                for _ in range(3)
            ]
            learned = [
                (await client.call_tool("learn_preference", {"line": line})).structured_content
                for line in ("Be brief.", "Be kind.")
            ]
            (soul,) = (await client.read_resource("soulkeep://SOUL.md")).contents

    assert [len(one["matches"]) for one in recalled if one] == [1, 1, 1]
    assert [one["state"] for one in learned if one] == ["written", "written"]
    assert len(asked_for) == 2
    assert kept.tokens is not None
    assert isinstance(soul, TextResourceContents)
    assert "Be brief." in soul.text
    assert "Be kind." in soul.text


async def test_a_session_of_another_process_is_not_found_so_that_the_client_begins_anew(
    processes: Processes,
) -> None:
    url, in_turn, token = processes(2)
    headers = JSON | {"authorization": f"Bearer {token}"}
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    async with httpx2.AsyncClient(
        timeout=PATIENCE_S, base_url=url, transport=in_turn, headers=headers
    ) as http:
        opening = await http.post("/mcp", json=OPENING)
        session = {"mcp-session-id": opening.headers["mcp-session-id"]}
        refused = await http.post("/mcp", json=ping, headers=session)
        found = await http.post("/mcp", json=ping, headers=session)
        again = await http.post("/mcp", json=OPENING)

    statuses = [one.status_code for one in (opening, refused, found, again)]
    assert statuses == [200, 404, 200, 200]
    assert "initialize anew" in refused.json()["error"]["message"]
