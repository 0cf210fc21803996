"""One server over HTTP for several accounts and teams: each has a home, and nothing crosses."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.client.session import IncomingMessage
from mcp.types import (
    ElicitRequestParams,
    ElicitResult,
    Implementation,
    PromptReference,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
)
from pydantic import SecretStr

from conftest import Run
from database_server import new_database
from serving import Serving, serving
from soulkeep.app import open_accounts, open_home
from soulkeep.mcp_server import http
from soulkeep.models import Options
from wire import HANDSHAKE, MODERN

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

PATIENCE_S = 60.0
AGREE = ElicitResult(action="accept", content={"agree": True})
OPENING = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HANDSHAKE}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": MODERN}}
IN_MODERN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
LISTEN = "subscriptions/listen"
EXTRA = 30
"""How many memories anna has before those that matter, so that no id of theirs is one of ben's."""


@dataclass
class Town:
    """A server, and the tokens of its accounts."""

    running: Serving
    home: Path
    tokens: dict[str, str] = field(default_factory=dict)

    @asynccontextmanager
    async def person(
        self, name: str, mode: str, home: str = "", **options: Any
    ) -> AsyncIterator[Client]:
        about = Implementation(name="phone", version="1")
        client = self.running.client(mode, self.tokens[name], home, client_info=about, **options)
        async with client as connected:
            yield connected


@pytest.fixture(params=["folders", pytest.param("database", marks=pytest.mark.postgres)])
async def town(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Town]:
    home, store = tmp_path / "home", "" if request.param == "folders" else new_database()
    accounts = open_accounts(home, options=Options(store=SecretStr(store)))
    tokens = {name: accounts.add(name) for name in ("anna", "ben", "carl")}
    accounts.add_team("kitchen")
    accounts.put_member("kitchen", "anna", may_write=True)
    accounts.put_member("kitchen", "ben", may_write=False)
    accounts.close()
    async with serving(home, tools="full", http_requests=100_000, store=store) as running:
        yield Town(running, home, tokens)
    assert home.exists() == (not store)


in_folders = pytest.mark.parametrize("town", ["folders"], indirect=True)
"""For what looks into the files of the homes."""


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    content: dict[str, Any] = result.structured_content
    return content


async def everything(client: Client) -> str:
    """Return what all that reads says to a client."""
    said = [
        await call(client, "recall", query="peanuts slates secret"),
        await call(client, "get_context"),
        await call(client, "browse_memories", limit=200),
        await call(client, "browse_memories", view="trash"),
        await call(client, "browse_memories", view="changes"),
        await call(client, "manage_thread", action="list"),
        await call(client, "list_prompts", include_inactive=True),
    ]
    listed = await client.list_resources()
    uris = [resource.uri for resource in listed.resources if not resource.uri.endswith("stats")]
    read = [(await client.read_resource(uri)).contents for uri in uris]
    return repr([said, listed, read, await client.list_prompts()])


@dataclass
class Ids:
    """What anna has."""

    thread: str
    memory: int
    change: int
    prompt: int


async def filled(client: Client, word: str) -> Ids:
    memories = [{"content": f"{word} {number}"} for number in range(EXTRA)]
    await call(client, "remember", memories=memories)
    thread = (await call(client, "create_thread", title=f"{word} thread"))["id"]
    kept = await call(client, "remember", content=f"Secret {word}.", thread_id=thread)
    message = {"role": "user", "content": f"Message of {word}."}
    await call(client, "save_messages", thread_id=thread, messages=[message])
    await call(client, "log_day", text=f"Log of {word}.")
    await call(client, "curate_memory", action="add", section="User Facts", entry=f"Entry of {word}.")
    prompt = await call(client, "set_prompt", name=f"{word} prompt", content=f"Mind the {word}.")
    changes = await call(client, "browse_memories", view="changes")
    with anyio.fail_after(PATIENCE_S):
        for written in (f"Log of {word}", f"Entry of {word}"):  # documents are taken in beside calls
            while f"{written}." not in repr(await call(client, "recall", query=written)):
                pass
    return Ids(
        thread,
        kept["receipts"][0]["id"],
        max(item["change_id"] for item in changes["items"]),
        prompt["prompt"]["id"],
    )


def calls_with(ids: Ids) -> dict[str, list[dict[str, Any]]]:
    """Return for each tool calls that would read or change what has these ids."""
    memory, thread = ids.memory, ids.thread
    return {
        "remember": [
            {"content": "Taken.", "thread_id": thread},
            {"content": "Taken.", "replaces": [memory]},
        ],
        "recall": [{"query": "peanuts", "thread_id": thread, "include_messages": True}],
        "browse_memories": [
            {"view": "history", "memory_id": memory},
            {"thread_id": thread},
            {"view": "changes", "below": ids.change + 1},
        ],
        "change_memory": [
            {"action": "revise", "memory_ids": [memory], "content": "Taken."},
            {"action": "forget", "memory_ids": [memory]},
            {"action": "restore", "memory_ids": [memory]},
            {"action": "move", "memory_ids": [memory]},
        ],
        "undo": [{"change_id": ids.change}],
        "purge": [{"memory_ids": [memory]}],
        "create_thread": [{"title": "peanuts thread"}],
        "manage_thread": [
            {"action": "rename", "thread_id": thread, "title": "Taken."},
            {"action": "set_prompt", "thread_id": thread, "system_prompt": "Taken."},
            {"action": "archive", "thread_id": thread},
            {"action": "resume", "thread_id": thread},
            {"action": "delete", "thread_id": thread, "memories": "forget"},
        ],
        "save_messages": [{"thread_id": thread, "messages": [{"role": "user", "content": "Taken."}]}],
        "read_messages": [{"thread_id": thread}],
        "get_context": [{"thread_id": thread, "query": "peanuts"}],
        "log_day": [{"text": "Taken."}],
        "curate_memory": [
            {"action": "add", "section": "User Facts", "memory_id": memory},
            {"action": "remove", "section": "User Facts", "entry": "Entry of peanuts."},
        ],
        "learn_preference": [{"line": "Taken."}],
        "list_prompts": [{"include_inactive": True}],
        "set_prompt": [
            {"prompt_id": ids.prompt, "content": "Taken."},
            {"prompt_id": ids.prompt, "remove": True},
            {"name": "peanuts prompt", "is_active": False},
        ],
    }


async def agree(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    return AGREE


def told_of(text: str, sent: object) -> str:
    """Return what a text says beyond what was sent."""
    for part in sorted(_texts(sent), key=len, reverse=True):
        text = text.replace(part, "")
    return text


def _texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [value] if isinstance(value, str) else []


@pytest.mark.one_era
async def test_no_tool_reads_or_changes_anything_of_another_account(town: Town, mode: str) -> None:
    async with (
        town.person("anna", mode, elicitation_callback=agree) as anna,
        town.person("ben", mode, elicitation_callback=agree) as ben,
    ):
        ids = await filled(anna, "peanuts")
        await call(ben, "remember", content="Slates.")
        before = await everything(anna)
        tried = calls_with(ids)
        assert set(tried) == {tool.name for tool in (await ben.list_tools()).tools}

        for tool, several in tried.items():
            for arguments in several:
                answer = repr(await ben.call_tool(tool, arguments))
                assert "peanut" not in told_of(answer, arguments).lower(), (tool, arguments)
        after = await everything(anna)

    assert after == before


@pytest.mark.one_era
async def test_no_resource_prompt_or_completion_is_of_another_account(town: Town, mode: str) -> None:
    async with town.person("anna", mode, elicitation_callback=agree) as anna:
        ids = await filled(anna, "peanuts")
        threads = (await anna.list_resources()).resources
        templates = (await anna.list_resource_templates()).resource_templates
        prompts = [prompt.name for prompt in (await anna.list_prompts()).prompts]
    async with town.person("ben", mode) as ben:
        await call(ben, "remember", content="Slates.")
        said = []
        for uri in [*(one.uri for one in threads), f"soulkeep://memories/{ids.memory}"]:
            try:
                said.append(repr(await ben.read_resource(uri)))
            except MCPError as error:
                said.append(str(error))
        for name in prompts:
            try:
                said.append(repr(await ben.get_prompt(name)))
            except MCPError as error:
                said.append(str(error))
        for template in templates:
            for name in ("thread_id", "memory_id", "date"):
                ref = ResourceTemplateReference(uri=template.uri_template)
                found = await ben.complete(ref, {"name": name, "value": ""})
                said.append(repr(found.completion.values))
        said.append(repr(await ben.list_prompts()))
        said.append(repr(await ben.list_resources()))
        with pytest.raises(MCPError):
            await ben.complete(PromptReference(name=prompts[-1]), {"name": "section", "value": ""})

    assert len(prompts) == 2
    names = [ids.thread, f"memories/{ids.memory}", *prompts]
    assert not [text for text in said if "peanuts" in told_of(text, names)]
    assert ids.thread not in told_of(said[-1], [])


async def test_subscriptions_tell_of_the_own_home_alone(town: Town, mode: str) -> None:
    heard: dict[str, list[str]] = {"anna": [], "ben": []}
    came = anyio.Event()

    def hearing(name: str) -> Any:
        async def hear(message: IncomingMessage) -> None:
            if isinstance(message, ResourceUpdatedNotification):
                heard[name].append(message.params.uri)
                came.set()

        return hear

    async with AsyncExitStack() as stack:
        people = {
            name: await stack.enter_async_context(town.person(name, mode, message_handler=hearing(name)))
            for name in heard
        }
        tasks = await stack.enter_async_context(anyio.create_task_group())
        for name, client in people.items():
            await call(client, "remember", content=f"{name} has one.")
            with pytest.raises(MCPError):
                await client.subscribe_resource("soulkeep://memories/99") if mode == "legacy" else (
                    await client.read_resource("soulkeep://memories/99")
                )
            if mode == "legacy":
                await client.subscribe_resource("soulkeep://memories/1")
                continue
            events = await stack.enter_async_context(
                client.listen(resource_subscriptions=["soulkeep://memories/1"])
            )

            async def listen(name: str = name, events: Any = events) -> None:
                async for event in events:
                    heard[name].append(event.uri)
                    came.set()

            tasks.start_soon(listen)
        revised = {"action": "revise", "memory_ids": [1], "content": "Another."}
        await call(people["anna"], "change_memory", **revised)
        with anyio.fail_after(PATIENCE_S):
            await came.wait()
        assert await call(people["ben"], "recall", query="anything")
        tasks.cancel_scope.cancel()

    assert {name: set(uris) for name, uris in heard.items()} == {
        "anna": {"soulkeep://memories/1"},
        "ben": set(),
    }


@pytest.mark.parametrize("headers", [{}, IN_MODERN])
async def test_who_has_no_token_is_let_into_nothing(town: Town, headers: dict[str, str]) -> None:
    for token in ("", "wrong", town.tokens["anna"][:-1]):
        async with town.running.http(token, **headers) as http_client:
            for path in ("/mcp", "/kitchen/mcp", "/nowhere/mcp"):
                answer = await http_client.post(path, json=LIST)
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("headers", [{}, IN_MODERN])
async def test_a_team_and_an_account_of_others_are_as_if_they_were_not_there(
    town: Town, headers: dict[str, str]
) -> None:
    async with town.running.http(town.tokens["carl"], **headers) as http_client:
        answers = [
            await http_client.post(f"/{name}/mcp", json=LIST) for name in ("nowhere", "kitchen", "anna")
        ]

    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_session_is_of_its_account_and_its_home(town: Town, method: str) -> None:
    async with town.running.http(town.tokens["anna"]) as anna:
        session = {"mcp-session-id": (await anna.post("/mcp", json=OPENING)).headers["mcp-session-id"]}
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        body = ping if method == "POST" else None
        elsewhere = await anna.request(method, "/kitchen/mcp", headers=session, json=body)
        async with town.running.http(town.tokens["ben"]) as ben:
            taken = await ben.request(method, "/mcp", headers=session, json=body)
        still = await anna.post("/mcp", json=ping, headers=session)

    assert [elsewhere.status_code, taken.status_code, still.status_code] == [404, 404, 200]


async def test_limits_are_of_each_account(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    accounts = open_accounts(home)
    tokens = [accounts.add(name) for name in ("anna", "ben")]
    accounts.close()
    async with (
        serving(home, http_requests=4, http_sessions=1) as running,
        running.http(tokens[0]) as anna,
        running.http(tokens[1]) as ben,
    ):
        opened = [(await anna.post("/mcp", json=OPENING)).status_code for _ in range(2)]
        asked = [(await anna.post("/mcp", json=LIST, headers=IN_MODERN)).status_code for _ in range(3)]
        of_ben = await ben.post("/mcp", json=OPENING)

    assert (opened, asked, of_ben.status_code) == ([200, 429], [200, 200, 429], 200)


@in_folders
async def test_the_members_of_a_team_share_its_memory_and_are_named(
    town: Town, mode: str, run: Run
) -> None:
    async with town.person("anna", mode, "kitchen") as anna, town.person("ben", mode, "kitchen") as ben:
        await call(anna, "remember", content="The oven will be electric.")
        found = await call(ben, "recall", query="oven")
        changes = await call(ben, "browse_memories", view="changes")
    async with town.person("anna", mode) as alone:
        own = await call(alone, "recall", query="oven")

    assert found["matches"][0]["content"] == "The oven will be electric."
    assert own["matches"] == []
    assert [item["by"] for item in changes["items"]] == ["anna/phone"]
    place = str(town.home / "accounts" / "kitchen")
    _, logged, _ = run("log", "--home", place, "--json", "--agent", "anna")
    by_event = {one["event"]: one for one in json.loads(logged)["log"]}
    assert by_event["memory.stored"]["agent_id"] == "anna/phone"
    _, none, _ = run("log", "--home", place, "--json", "--agent", "ann")
    assert json.loads(none)["log"] == []


@pytest.mark.one_era
async def test_who_may_only_read_is_offered_what_reads_and_told_so_otherwise(
    town: Town, mode: str
) -> None:
    async with town.person("anna", mode, "kitchen", elicitation_callback=agree) as anna:
        ids = await filled(anna, "peanuts")
        before = await everything(anna)
        async with town.person("ben", mode, "kitchen", elicitation_callback=agree) as ben:
            offered = {tool.name for tool in (await ben.list_tools()).tools}
            refused = {}
            for tool, several in calls_with(ids).items():
                for arguments in several:
                    answer = await ben.call_tool(tool, arguments)
                    if answer.is_error:
                        refused[tool] = repr(answer.content)
            async with town.person("ben", mode) as alone:
                own = {tool.name for tool in (await alone.list_tools()).tools}
        after = await everything(anna)

    assert offered == {"recall", "browse_memories", "read_messages", "get_context", "list_prompts"}
    assert set(refused) == own - offered
    assert all(
        "ben may read the memory of kitchen, but not change it" in said for said in refused.values()
    )
    assert after == before


@in_folders
@pytest.mark.parametrize("headers", [{}, IN_MODERN])
async def test_who_is_removed_revoked_or_deleted_hears_no_more(
    town: Town, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setattr(http, "LOOK_S", 0.01)
    monkeypatch.setattr(http, "LOOK_AGAIN_S", 10_000)
    accounts = open_accounts(town.home)
    ended: list[str] = []
    wanted = {"notifications": {"promptsListChanged": True}, "_meta": MODERN}
    request = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": wanted}

    async def listen(name: str, path: str, begun: anyio.Event) -> None:
        async with town.running.http(town.tokens[name]) as client:
            if headers:
                sent: dict[str, Any] = {"json": request, "headers": headers | {"mcp-method": LISTEN}}
                stream = client.stream("POST", path, **sent)
            else:
                opened = await client.post(path, json=OPENING)
                session = {"mcp-session-id": opened.headers["mcp-session-id"]}
                stream = client.stream("GET", path, headers=session)
            async with stream as answer:
                assert answer.status_code == 200
                begun.set()
                with suppress(httpx2.RemoteProtocolError):  # it is cut off
                    await answer.aread()
        ended.append(name)

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for name, path in (("ben", "/kitchen/mcp"), ("carl", "/mcp"), ("anna", "/kitchen/mcp")):
                begun = anyio.Event()
                tasks.start_soon(listen, name, path, begun)
                await begun.wait()
            accounts.remove_member("kitchen", "ben")
            accounts.revoke("carl")
            accounts.delete("anna")
    accounts.close()

    assert sorted(ended) == ["anna", "ben", "carl"]


@in_folders
async def test_a_home_is_purged_while_the_server_has_served_it(
    town: Town, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "LOOK_S", 0.01)
    folder = town.home / "accounts" / "anna"
    accounts = open_accounts(town.home)
    async with town.running.http(town.tokens["anna"]) as client:
        opened = await client.post("/mcp", json=OPENING)
        session = {"mcp-session-id": opened.headers["mcp-session-id"]}
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await client.post("/mcp", json=ready, headers=session)
        async with town.person("anna", mode) as anna:
            await call(anna, "remember", content="Peanuts.")
        accounts.delete("anna")
        with anyio.fail_after(PATIENCE_S):
            while list((folder).glob("*-wal")):  # closed, the store has no log
                await anyio.sleep(0.01)
        refused = await client.post("/mcp", json=LIST, headers=IN_MODERN)
    accounts.purge("anna", is_team=False)
    accounts.close()
    async with town.person("ben", mode) as ben:
        await call(ben, "remember", content="Slates.")

    assert refused.status_code == 401
    assert [path.name for path in folder.parent.iterdir()] == ["ben"]


async def test_homes_that_were_closed_meanwhile_tell_those_who_wait(tmp_path: Path, mode: str) -> None:
    heard = anyio.Event()
    (tmp_path / "home").mkdir()
    accounts = open_accounts(tmp_path / "home")
    tokens = {"anna": accounts.add("anna")}
    accounts.close()

    async def hear(message: IncomingMessage) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            heard.set()

    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(serving(tmp_path / "home", http_homes=0))
        town = Town(running, tmp_path / "home", tokens)
        anna = await stack.enter_async_context(town.person("anna", mode, message_handler=hear))
        await call(anna, "remember", content="Peanuts.")
        if mode == "legacy":
            await anna.subscribe_resource("soulkeep://memories/1")
        else:
            events = await stack.enter_async_context(
                anna.listen(resource_subscriptions=["soulkeep://memories/1"])
            )
        home = open_home(town.home / "accounts" / "anna", embedder="none")
        home.lifecycle.revise(1, content="Slates.")
        home.close()
        assert await call(anna, "recall", query="slates")
        with anyio.fail_after(PATIENCE_S):
            if mode == "legacy":
                await heard.wait()
            else:
                async for _ in events:
                    break


async def test_an_own_memory_is_there_under_the_name_of_the_account_too(town: Town, mode: str) -> None:
    async with town.person("anna", mode) as anna, town.person("anna", mode, "anna") as named:
        await call(anna, "remember", content="Peanuts.")
        assert (await call(named, "recall", query="peanuts"))["matches"]
