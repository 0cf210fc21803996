"""One server over HTTP, for the one home of whoever reaches it: the same as over stdin and stdout."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.client.session import IncomingMessage
from mcp.types import ElicitRequestParams, ElicitResult, ResourceUpdatedNotification

from conftest import Run
from serving import JSON, PATIENCE_S, Process, Serving, serving
from soulkeep.app import Settings, open_accounts, open_home
from soulkeep.mcp_server.http import Rates
from soulkeep.serving import Address
from wire import HANDSHAKE, MODERN

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

AGREE = ElicitResult(action="accept", content={"agree": True})
MEMORY = "soulkeep://MEMORY.md"
OPENING = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HANDSHAKE}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": MODERN}}
IN_MODERN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}


@pytest.fixture
async def served(home_path: Path) -> AsyncIterator[Serving]:
    async with serving(home_path) as running:
        yield running


async def test_what_is_remembered_over_http_is_in_the_home(
    served: Serving, mode: str, home_path: Path
) -> None:
    async with served.client(mode) as client:
        kept = await client.call_tool("remember", {"content": "Anna is allergic to peanuts."})
        found = await client.call_tool("recall", {"query": "peanuts"})
        context = await client.read_resource("soulkeep://context")
        listed = await client.list_tools()
        prompts = await client.list_prompts()

    assert not kept.is_error
    assert found.structured_content
    assert found.structured_content["matches"][0]["content"] == "Anna is allergic to peanuts."
    assert "peanuts" in repr(context)
    assert len(listed.tools) == 9
    assert [prompt.name for prompt in prompts.prompts] == ["start"]
    home = open_home(home_path, embedder="none")
    assert home.memories.recall("peanuts").matches
    home.close()


async def test_the_tools_over_http_are_those_over_a_pipe(
    served: Serving, mode: str, process_client: Client
) -> None:
    async with served.client(mode) as client:
        assert (await client.list_tools()).tools == (await process_client.list_tools()).tools


async def test_a_client_hears_of_changes_of_what_it_subscribed_to(
    served: Serving, mode: str, home_path: Path
) -> None:
    heard = anyio.Event()

    async def hear(message: IncomingMessage) -> None:
        if isinstance(message, ResourceUpdatedNotification) and message.params.uri == MEMORY:
            heard.set()

    async with served.client(mode, message_handler=hear) as client:
        await client.call_tool("recall", {"query": "anything"})

        async def change_until_heard() -> None:
            number = 0
            while not heard.is_set():
                number += 1
                (home_path / "MEMORY.md").write_text(f"# {number}\n", encoding="utf-8")
                with anyio.move_on_after(1):
                    await heard.wait()

        with anyio.fail_after(PATIENCE_S):
            if mode == "legacy":
                await client.subscribe_resource(MEMORY)
                await change_until_heard()
                return
            async with (
                client.listen(resource_subscriptions=[MEMORY]) as events,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(change_until_heard)
                async for event in events:
                    assert event.uri == MEMORY  # type: ignore[union-attr]
                    heard.set()
                    break


async def test_the_user_is_asked_and_their_answer_counts(
    served: Serving, mode: str, home_path: Path
) -> None:
    asked: list[str] = []

    async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        return AGREE

    async with served.client(mode, elicitation_callback=answer) as client:
        learned = await client.call_tool("learn_preference", {"line": "Be brief."})

    assert learned.structured_content
    assert learned.structured_content["state"] == "written"
    assert len(asked) == 1
    assert "Be brief." in (home_path / "SOUL.md").read_text(encoding="utf-8")


async def test_progress_is_told_while_a_call_goes_on(served: Serving, mode: str) -> None:
    told: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with served.client(mode) as client:
        memories = [{"content": f"Peanut {number}."} for number in range(150)]
        await client.call_tool("remember", {"memories": memories})
        forget = {"action": "forget", "memory_ids": list(range(1, 151))}
        await client.call_tool("change_memory", forget, progress_callback=note)

    assert "Checking the copy of the store" in told


async def test_each_connection_of_the_handshake_era_has_a_session_of_its_own(served: Serving) -> None:
    async with served.client("legacy") as one, served.client("legacy") as other:
        for client in (one, other, one):
            assert not (await client.call_tool("recall", {"query": "anything"})).is_error


async def test_a_health_check_says_ok_by_whatever_name_it_asks(served: Serving) -> None:
    async with served.http() as http:
        answer = await http.get("/healthz", headers={"host": "10.1.2.3"})

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "8.8.8.8"]
)
@pytest.mark.parametrize("headers", [{}, IN_MODERN])
async def test_a_page_that_made_its_name_mean_this_machine_is_refused(
    served: Serving, host: str, headers: dict[str, str]
) -> None:
    async with served.http() as http:
        answer = await http.post("/mcp", json=LIST, headers={"host": host, **headers})

    assert answer.status_code == 421
    assert "SOULKEEP_URL" in answer.json()["error"]["message"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost.evil.example"])
@pytest.mark.parametrize("headers", [{}, IN_MODERN])
async def test_a_page_of_another_site_is_refused(
    served: Serving, origin: str, headers: dict[str, str]
) -> None:
    async with served.http() as http:
        answer = await http.post("/mcp", json=LIST, headers={"origin": origin, **headers})

    assert answer.status_code == 403
    assert "SOULKEEP_HTTP_ORIGINS" in answer.json()["error"]["message"]


async def test_pages_that_are_named_and_those_of_this_machine_are_served(home_path: Path) -> None:
    async with serving(home_path, http_origins="https://page.example") as served, served.http() as http:
        statuses = [
            (await http.post("/mcp", json=LIST, headers={"origin": origin, **IN_MODERN})).status_code
            for origin in ("https://page.example", "http://localhost:6274", served.url)
        ]

    assert statuses == [200, 200, 200]


async def test_names_are_known_however_they_are_written(home_path: Path) -> None:
    page = "https://Page.Example:443/"
    async with serving(home_path, http_origins=page) as served, served.http() as http:
        statuses = [
            (await http.post("/mcp", json=LIST, headers={**IN_MODERN, **named})).status_code
            for named in (
                {"host": "LOCALHOST"},
                {"host": "LocalHost:8765"},
                {"origin": "https://page.example"},
                {"origin": "HTTPS://PAGE.EXAMPLE"},
                {"origin": "http://localhost"},
            )
        ]

    assert statuses == [200] * 5
    assert Settings(url="https://Memory.Example.org:443/").url == "https://memory.example.org"


@pytest.mark.parametrize("token", [None, "ann"])
async def test_a_browser_lets_the_named_pages_alone_use_a_home(
    home_path: Path, token: str | None
) -> None:
    if token:
        home_path.mkdir()
        with closing(open_accounts(home_path)) as accounts:
            token = accounts.add(token)
    asks_first = {
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, mcp-session-id",
    }
    async with serving(home_path, http_origins="https://page.example") as served, served.http() as http:
        let_in = {"authorization": f"Bearer {token}"} if token else {}
        for origin in ("https://page.example", "http://127.0.0.1:6274", "https://evil.example"):
            page, is_evil = {"origin": origin}, "evil" in origin
            allowed = await http.request("OPTIONS", "/mcp", headers=page | asks_first)
            answer = await http.post("/mcp", json=OPENING, headers=page | let_in)
            assert (allowed.status_code, answer.status_code) == ((400, 403) if is_evil else (200, 200))
            for one in (allowed, answer):
                assert one.headers.get("access-control-allow-origin") == (None if is_evil else origin)
        assert "authorization" in allowed.headers["access-control-allow-headers"]
        refused = await http.post("/mcp", headers={"origin": "http://localhost:6274"})

    assert "WWW-Authenticate" in refused.headers["access-control-expose-headers"]


@pytest.mark.parametrize("headers", [{}, IN_MODERN])
async def test_a_request_that_is_too_large_is_refused_before_it_is_read(
    home_path: Path, headers: dict[str, str]
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 1_000

    async with serving(home_path, http_body=2_000) as served, served.http() as http:
        stated = await http.post("/mcp", content=b" " * 2_001, headers=headers)
        unstated = await http.post("/mcp", content=pieces(), headers=headers)

    assert [stated.status_code, unstated.status_code] == [413, 413]
    assert "2,000 bytes" in stated.json()["error"]["message"]


async def test_what_cannot_be_read_is_refused_in_plain_words(served: Serving) -> None:
    unreadable = [b"hello", b"", b"\xff\xfe", b'{"a":', b'{"id":1' + b"[" * 300]
    no_request = [b"[]", b"{}", b"42", b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', b'{"id":[1]}']
    no_request.append(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":[1]}')
    async with served.http() as http:
        first = [await http.post("/mcp", content=body) for body in unreadable]
        second = [await http.post("/mcp", content=body) for body in no_request]
        nobody = await http.post("/mcp", json=LIST, headers={"mcp-protocol-version": "2025-11-25"})

    assert {answer.status_code for answer in (*first, *second)} == {400}
    for answers, code, said in (
        (first, -32700, "is not JSON"),
        (second, -32600, "no JSON-RPC 2.0 request"),
    ):
        for answer in answers:
            error = answer.json()["error"]
            assert (error["code"], said in error["message"]) == (code, True)
            assert len(answer.text) < 300
            assert "pydantic" not in answer.text
    assert "Missing session ID" in nobody.text


async def test_the_longest_list_that_a_tool_takes_is_not_too_large(served: Serving) -> None:
    memories = [{"content": "\u4e2d" * 100_000} for _ in range(10)]
    async with served.client("auto") as client:
        kept = await client.call_tool("remember", {"memories": memories})

    assert not kept.is_error, kept.content


async def test_too_many_requests_are_refused_until_some_time_has_passed(home_path: Path) -> None:
    async with serving(home_path, http_requests=3) as served, served.http(**IN_MODERN) as http:
        answers = [await http.post("/mcp", json=LIST) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert "3 requests in a minute" in answers[-1].json()["error"]["message"]


def test_requests_are_allowed_again_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("soulkeep.mcp_server.http.time.monotonic", lambda: now[0])
    rates = Rates(60)
    waits = [rates.wait_s("anna") for _ in range(62)]
    other = rates.wait_s("ben")
    now[0] = 2.0
    later = [rates.wait_s("anna") for _ in range(3)]

    assert waits == [0.0] * 60 + [1.0, 1.0]
    assert other == 0
    assert later == [0, 0, 1.0]


async def test_an_account_has_a_limit_of_sessions_which_makes_room_again(home_path: Path) -> None:
    async with serving(home_path, http_sessions=2) as served, served.http() as http:
        opened = [await http.post("/mcp", json=OPENING) for _ in range(3)]
        session = {"mcp-session-id": opened[0].headers["mcp-session-id"]}
        await http.delete("/mcp", headers=session)
        again = await http.post("/mcp", json=OPENING)
        modern = await http.post("/mcp", json=LIST, headers=IN_MODERN)

    assert [answer.status_code for answer in opened] == [200, 200, 429]
    assert "2 sessions are open" in opened[2].json()["error"]["message"]
    assert int(opened[2].headers["retry-after"]) > 0
    assert [again.status_code, modern.status_code] == [200, 200]


async def test_a_session_that_nobody_uses_ends(home_path: Path) -> None:
    async with serving(home_path, http_idle_minutes=0.001) as served, served.http() as http:
        session = (await http.post("/mcp", json=OPENING)).headers["mcp-session-id"]
        with anyio.fail_after(PATIENCE_S):
            while True:
                headers = {"mcp-session-id": session}
                ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
                await anyio.sleep(0.1)
                answer = await http.post("/mcp", json=ping, headers=headers)
                if answer.status_code == 404:
                    break


async def _events(answer: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in answer.aiter_lines():
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


async def test_a_question_to_the_user_counts_as_not_asked_when_the_server_stops(
    served: Serving,
) -> None:
    async with served.http() as http:
        opened = await http.post("/mcp", json=OPENING)
        session = {"mcp-session-id": opened.headers["mcp-session-id"]}
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await http.post("/mcp", json=ready, headers=session)
        call = {"name": "learn_preference", "arguments": {"line": "Be brief."}}
        request = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}
        seen: dict[str, dict[str, Any]] = {}
        async with http.stream("POST", "/mcp", json=request, headers=session) as answer:
            async for event in _events(answer):
                if event.get("method") == "elicitation/create":
                    served.ended.set()
                seen[event.get("method", "result")] = event

    assert list(seen) == ["elicitation/create", "notifications/cancelled", "result"]
    assert seen["result"]["result"]["structuredContent"]["state"] == "not asked"


async def test_a_stream_of_notifications_ends_with_its_result_when_the_server_stops(
    served: Serving,
) -> None:
    wanted = {"notifications": {"promptsListChanged": True}, "_meta": MODERN}
    request = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": wanted}
    headers = IN_MODERN | {"mcp-method": "subscriptions/listen"}
    seen = []
    async with (
        served.http() as http,
        http.stream("POST", "/mcp", json=request, headers=headers) as answer,
    ):
        async for event in _events(answer):
            seen.append(event.get("method", "result"))
            served.ended.set()

    assert seen == ["notifications/subscriptions/acknowledged", "result"]


@pytest.mark.skipif(sys.platform == "win32", reason="a signal ends a process at once there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_when_all_was_answered(home_path: Path, number: int) -> None:
    process = Process(home_path)
    call = {"name": "remember", "arguments": {"content": "Anna likes peanuts."}}
    with httpx2.Client(base_url=process.url, headers=JSON) as http:
        opened = http.post("/mcp", json=OPENING)
        session = {"mcp-session-id": opened.headers["mcp-session-id"]}
        http.post(
            "/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session
        )
        request = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}
        answer = http.post("/mcp", json=request, headers=session)
        with http.stream("GET", "/mcp", headers=session) as stream:
            code, out, err = process.end(number)
            rest = stream.read()

    assert '"stored":true' in answer.text.replace(" ", "")
    assert (code, out, err, rest) == (0, "", "", b"")


def test_the_parts_of_an_answer_do_not_wait_for_one_another() -> None:
    with (
        Address("127.0.0.1", 0).listen() as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_is_one_line(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, out, err = run("serve", "--http", "--port", str(port))

    assert (code, out) == (1, "")
    assert re.fullmatch(rf"soulkeep: --port {port} of 127\.0\.0\.1 cannot be listened at .*\n", err)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.20", "memory.example.org"])  # noqa: S104
def test_others_than_this_machine_are_not_served_without_accounts(
    run: Run, host: str, home_path: Path
) -> None:
    code, out, err = run("serve", "--http", "--host", host)

    assert (code, out) == (1, "")
    assert f"--host is {host}" in err
    assert "soulkeep accounts add NAME" in err
    assert not home_path.exists()


def test_a_proxy_does_not_let_others_in_without_accounts(
    run: Run, home_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOULKEEP_URL", "https://memory.example.org")
    code, out, err = run("serve", "--http", "--port", "0")

    assert (code, out) == (1, "")
    assert "SOULKEEP_URL` is https://memory.example.org" in err
    assert "soulkeep accounts add NAME" in err
    assert not home_path.exists()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104
def test_a_machine_that_does_not_know_its_own_name_serves(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(socket, "gethostname", lambda: "ANNAS-PC")

    assert "annas-pc:*" in Address(host, 8765).names


def test_without_http_nothing_of_it_is_imported(home_path: Path) -> None:
    names = ["soulkeep.mcp_server.http", "soulkeep.mcp_server.oauth", "soulkeep.service.accounts"]
    script = (
        "import sys; import soulkeep.app as app; app.build_server(app.open_home(sys.argv[1]));"
        f"print([name for name in {names} if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(home_path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "[]\n"
