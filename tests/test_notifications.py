"""Notifications of change over real pipes: a client hears of what its user or another process did."""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.client.session import IncomingMessage
from mcp.types import (
    INVALID_PARAMS,
    PromptListChangedNotification,
    ResourceListChangedNotification,
    ResourceUpdatedNotification,
)

from engine import by_another_program, database_of
from forks import ForkedProcess
from soulkeep.app import build_server, open_home
from soulkeep.mcp_server.notifications import Notifications, _Changes, _Seen, watch
from soulkeep.mcp_server.resources import state_of
from soulkeep.models import NewMemory, NewMessage, PromptOffer
from soulkeep.service.home import Home
from wire import HANDSHAKE, MODERN, Wire, piped, served

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

PATIENCE_S = 10.0
MEMORY, SOUL, CONTEXT = "soulkeep://MEMORY.md", "soulkeep://SOUL.md", "soulkeep://context"
PROMPTS, RESOURCES = "other prompts", "other resources"


class Ear:
    """Notes each sign: the address of a resource, or what else is different."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._news = anyio.Event()

    async def note_message(self, message: IncomingMessage) -> None:
        """Take a notification of the handshake era."""
        if isinstance(message, ResourceUpdatedNotification):
            self.note(message.params.uri)
        elif isinstance(message, PromptListChangedNotification):
            self.note(PROMPTS)
        elif isinstance(message, ResourceListChangedNotification):
            self.note(RESOURCES)

    async def note_events(self, subscription: Any) -> None:
        """Take the events of a modern subscription."""
        names = {"PromptsListChanged": PROMPTS, "ResourcesListChanged": RESOURCES}
        async for event in subscription:
            self.note(names.get(type(event).__name__) or event.uri)

    def note(self, sign: str) -> None:
        self.heard.append(sign)
        self._news.set()
        self._news = anyio.Event()

    async def hears_anew(self, sign: str) -> None:
        await self.hears(sign)
        self.heard.clear()

    async def hears(self, sign: str) -> None:
        with anyio.fail_after(PATIENCE_S):
            while sign not in self.heard:
                await self._news.wait()


Subscribed = Callable[..., AbstractAsyncContextManager[Ear]]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Home]:
    """The same home, opened by another process than the server."""
    with closing(open_home(tmp_path / "home", embedder="none")) as home:
        yield home


@pytest.fixture
async def over_pipes(mode: str, other: Home) -> AsyncIterator[Subscribed]:
    """Subscribes to a server in a process of its own."""
    ear = Ear()
    async with Client(
        piped(other.path, SOULKEEP_TOOLS="full"), mode=mode, cache=None, message_handler=ear.note_message
    ) as client:
        yield _subscribed(client, ear, mode)


@pytest.fixture
async def connected(mode: str, other: Home) -> AsyncIterator[tuple[Client, Ear]]:
    """A client of a server in this process, which watches the home as the command does."""
    ear, notifications = Ear(), Notifications(watched=True)
    with closing(open_home(other.path, embedder="none")) as home:
        server = build_server(home, notifications)
        async with (
            anyio.create_task_group() as tasks,
            Client(server, mode=mode, cache=None, message_handler=ear.note_message) as client,
        ):
            tasks.start_soon(watch, home, notifications)
            yield client, ear
            tasks.cancel_scope.cancel()


@pytest.fixture
def subscribed(connected: tuple[Client, Ear], mode: str) -> Subscribed:
    client, ear = connected
    return _subscribed(client, ear, mode)


def _subscribed(client: Client, ear: Ear, mode: str) -> Subscribed:
    @asynccontextmanager
    async def modern(*uris: str) -> AsyncIterator[Ear]:
        listening = client.listen(
            resource_subscriptions=uris, prompts_list_changed=True, resources_list_changed=True
        )
        async with listening as subscription, anyio.create_task_group() as tasks:
            tasks.start_soon(ear.note_events, subscription)
            yield ear
            tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def legacy(*uris: str) -> AsyncIterator[Ear]:
        for uri in uris:
            await client.subscribe_resource(uri)
        yield ear
        for uri in uris:
            await client.unsubscribe_resource(uri)

    return modern if mode == "auto" else legacy


async def test_a_server_process_tells_of_edits_by_hand_and_of_another_process(
    over_pipes: Subscribed, other: Home
) -> None:
    thread = other.threads.create_thread("Roof")
    async with over_pipes(MEMORY, f"soulkeep://threads/{thread.id}") as ear:
        edit(other, "MEMORY.md")
        await ear.hears(MEMORY)

        other.threads.rename(thread.id, "Gutter")
        await ear.hears(f"soulkeep://threads/{thread.id}")


def edit(home: Home, name: str, text: str = "# Edited\n\n- by hand\n") -> None:
    (home.path / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", ["MEMORY.md", "SOUL.md"])
async def test_a_hand_edit_of_a_document_is_told(name: str, subscribed: Subscribed, other: Home) -> None:
    async with subscribed(f"soulkeep://{name}", CONTEXT) as ear:
        edit(other, name)

        await ear.hears(f"soulkeep://{name}")
        await ear.hears(CONTEXT)
        assert PROMPTS not in ear.heard
        assert RESOURCES not in ear.heard


async def test_an_editor_that_renames_a_new_file_into_place_is_noticed(
    subscribed: Subscribed, other: Home
) -> None:
    async with subscribed(MEMORY) as ear:
        edit(other, "MEMORY.md~")
        (other.path / "MEMORY.md~").replace(other.path / "MEMORY.md")

        await ear.hears(MEMORY)


async def test_the_days_log_is_told_and_listed_when_it_begins(
    subscribed: Subscribed, other: Home
) -> None:
    uri = f"soulkeep://daily/{other.documents.today().isoformat()}"
    async with subscribed(uri, CONTEXT) as ear:
        other.curator.log_day("Fixed the roof.")

        await ear.hears(uri)
        await ear.hears(RESOURCES)
        await ear.hears(CONTEXT)


async def test_a_log_of_another_day_is_told_too(subscribed: Subscribed, other: Home) -> None:
    async with subscribed("soulkeep://daily/2020-02-29") as ear:
        edit(other, "daily/2020-02-29.md")

        await ear.hears("soulkeep://daily/2020-02-29")
        await ear.hears(RESOURCES)


async def test_prompts_of_another_process_are_told_and_listed(
    connected: tuple[Client, Ear], subscribed: Subscribed, other: Home
) -> None:
    client, _ = connected
    async with subscribed(CONTEXT) as ear:
        add = ["prompts", "add", "Tone", "Be brief.", "--home", str(other.path)]
        with ForkedProcess(add, os.environ, errors_to=2) as adding:
            assert await anyio.to_thread.run_sync(adding.wait) == 0

        await ear.hears(PROMPTS)
        await ear.hears(CONTEXT)
    assert "tone" in [prompt.name for prompt in (await client.list_prompts()).prompts]


async def test_a_new_thread_is_told_as_another_resource_and_its_memories_as_an_update(
    subscribed: Subscribed, other: Home
) -> None:
    thread = other.threads.create_thread("Old")
    async with subscribed(f"soulkeep://threads/{thread.id}") as ear:
        other.threads.create_thread("New")
        await ear.hears(RESOURCES)

        other.memories.remember([NewMemory("Slates are grey.", thread_id=thread.id)])
        await ear.hears(f"soulkeep://threads/{thread.id}")


CHANGES_OF_THREADS: dict[str, Callable[[Home, str, int], object]] = {
    "archived": lambda home, thread_id, _: home.threads.set_archived(thread_id, archived=True),
    "renamed": lambda home, thread_id, _: home.threads.rename(thread_id, "Gutter"),
    "given a prompt": lambda home, thread_id, _: home.threads.set_prompt(thread_id, "Talk."),
    "added to": lambda home, thread_id, _: home.memories.remember([NewMemory("x", thread_id=thread_id)]),
    "forgotten from": lambda home, _, memory_id: home.lifecycle.forget([memory_id]),
    "moved from": lambda home, _, memory_id: home.lifecycle.move([memory_id], None),
    "revised in": lambda home, _, memory_id: home.lifecycle.revise(memory_id, "Slates are blue."),
    "talked in": lambda home, thread_id, _: home.messages.save(
        thread_id, [NewMessage("user", "Hello.")]
    ),
    "purged from": lambda home, _, memory_id: home.purges.purge([memory_id]),
}


async def test_each_change_of_a_thread_and_its_undoing_by_another_process_is_told(
    subscribed: Subscribed, other: Home
) -> None:
    thread = other.threads.create_thread("Roof")
    address = f"soulkeep://threads/{thread.id}"
    async with subscribed(address) as ear:
        for name, change in CHANGES_OF_THREADS.items():
            (kept,) = other.memories.remember([NewMemory(f"To be {name}.", thread_id=thread.id)])
            await ear.hears_anew(address)
            change(other, thread.id, kept.id)
            await ear.hears_anew(address)
            # Nothing brings back what was purged, and a thread does not show its messages.
            if name not in ("purged from", "talked in"):
                other.changes.undo(other.changes.list_changes(1)[0].id)
                await ear.hears_anew(address)


async def test_each_change_of_a_memory_is_told_under_every_id_that_it_had(
    connected: tuple[Client, Ear], subscribed: Subscribed, other: Home
) -> None:
    client, _ = connected
    thread = other.threads.create_thread("Roof")
    (first,) = other.memories.remember([NewMemory("Slates are grey.")])
    address = f"soulkeep://memories/{first.id}"
    async with subscribed(address) as ear:
        other.lifecycle.move([first.id], thread.id)
        await ear.hears_anew(address)
        second = other.lifecycle.revise(first.id, "Slates are blue.").id
        await ear.hears_anew(address)
        third = other.lifecycle.revise(second, "Slates are red.").id
        await ear.hears_anew(address)
        read = str((await client.read_resource(address)).contents[0])
        other.lifecycle.forget([third])
        await ear.hears_anew(address)
        with pytest.raises(MCPError, match=f"Memory #{third} is in the trash"):
            await client.read_resource(address)
        other.lifecycle.restore([third])
        await ear.hears_anew(address)

    assert f"#{first.id} was replaced by #{third}" in read
    assert "Slates are red." in read


async def test_figures_are_told_when_they_change(subscribed: Subscribed, other: Home) -> None:
    async with subscribed("soulkeep://stats") as ear:
        for _ in range(2):
            other.memories.remember([NewMemory("Slates are grey.")])
            other.lifecycle.forget([m.id for m in other.lifecycle.list_memories()])
            await ear.hears_anew("soulkeep://stats")


async def test_taking_back_an_edit_of_the_same_length_is_told_of_prompts(
    subscribed: Subscribed, other: Home
) -> None:
    prompt = other.prompts.add_prompt("Tone", "Be brief.")
    async with subscribed(CONTEXT) as ear:
        other.prompts.change_prompt(prompt.id, content="Be great.")
        await ear.hears_anew(PROMPTS)
        latest = other.changes.latest_in_force()
        assert latest is not None
        other.changes.undo(latest.id)
        await ear.hears_anew(PROMPTS)


async def test_other_threads_are_listed_after_they_are_archived_resumed_renamed_or_deleted(
    subscribed: Subscribed, other: Home
) -> None:
    thread = other.threads.create_thread("Roof")
    async with subscribed(CONTEXT) as ear:
        for change in (
            lambda: other.threads.set_archived(thread.id, archived=True),
            lambda: other.threads.set_archived(thread.id, archived=False),
            lambda: other.threads.rename(thread.id, "Gutter"),
            lambda: other.changes.undo(other.changes.list_changes(1)[0].id),
            lambda: other.threads.delete(thread.id, "forget"),
        ):
            change()
            await ear.hears_anew(RESOURCES)


NO_RESOURCES = [
    *("soulkeep://nothing", "soulkeep://", "soulkeep://MEMORY.md/", "soulkeep:/SOUL.md", "SOUL.md", ""),
    *(
        "soulkeep://threads/nope",
        "soulkeep://threads/",
        "soulkeep://memories/7",
        "soulkeep://memories/x",
    ),
    *("soulkeep://memories/+1", "soulkeep://memories/01", "soulkeep://memories/\u0661", "http://a.b/c"),
    *("soulkeep://memories/" + "9" * 30, "soulkeep://daily/yesterday", "soulkeep://daily/20260228"),
    *("soulkeep://daily/2026-02-30", "soulkeep://daily/..%2fSOUL", "soulkeep://daily/2026-W01-1"),
]


async def subscribe(client: Client, mode: str, uri: str) -> None:
    if mode == "legacy":
        await client.subscribe_resource(uri)
    else:
        async with client.listen(resource_subscriptions=[SOUL, uri]):
            pass


async def test_what_is_no_resource_cannot_be_subscribed_to(
    connected: tuple[Client, Ear], mode: str, other: Home
) -> None:
    client, _ = connected
    other.memories.remember([NewMemory("The only one.")])
    for uri in NO_RESOURCES:
        with pytest.raises(MCPError) as refused:
            await subscribe(client, mode, uri)
        assert refused.value.error.code == INVALID_PARAMS, uri
        assert refused.value.error.data == {"uri": uri}


async def test_what_the_client_itself_does_is_told_too(
    connected: tuple[Client, Ear], subscribed: Subscribed, other: Home
) -> None:
    client, _ = connected
    async with subscribed(MEMORY) as ear:
        other.prompts.add_prompt("Tone", "Be brief.")
        await ear.hears_anew(PROMPTS)
        await client.call_tool("create_thread", {"title": "New"})
        await ear.hears(RESOURCES)
        await client.call_tool("set_prompt", {"name": "Tone", "is_active": False})
        await ear.hears(PROMPTS)
        await client.call_tool(
            "curate_memory", {"action": "add", "section": "User Facts", "entry": "Likes tea."}
        )
        await ear.hears(MEMORY)


async def test_after_unsubscribing_there_are_no_more_signs(subscribed: Subscribed, other: Home) -> None:
    async with subscribed(MEMORY) as ear:
        edit(other, "MEMORY.md")
        await ear.hears(MEMORY)

    async with subscribed(SOUL) as ear:
        ear.heard.clear()
        edit(other, "MEMORY.md", "# Edited again\n")
        edit(other, "SOUL.md")
        await ear.hears(SOUL)
        other.threads.create_thread("Later than both")
        await ear.hears(RESOURCES)

    assert MEMORY not in ear.heard


def test_both_eras_announce_the_notifications_that_are_sent(other: Home) -> None:
    asked = {"server/discover": {"_meta": MODERN}, "initialize": HANDSHAKE}

    replies = served(
        other,
        [
            json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": params})
            for method, params in asked.items()
        ],
    )

    assert {reply["id"] for reply in replies} == set(asked)
    for reply in replies:
        capabilities = reply["result"]["capabilities"]
        assert capabilities["resources"] == {"subscribe": True, "listChanged": True}
        assert capabilities["prompts"]["listChanged"]
        assert "tools" in capabilities


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    server = Wire(tmp_path / "home", SOULKEEP_EMBEDDER="none")
    yield server
    server.kill()


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Wire]:
    server = Wire(tmp_path / "home", installed=True, SOULKEEP_EMBEDDER="none")
    yield server
    server.kill()


def watches(wire: Wire) -> bool:
    """Whether the server has loaded what watches; it does so after its first reply."""
    return "watchfiles" in Path(f"/proc/{wire.process.pid}/maps").read_text(encoding="utf-8")


def watching(wire: Wire, home: Path) -> None:
    """Wait for the sign of a change, after which the server certainly watches."""
    wire.initialize()
    wire.request("resources/subscribe", {"uri": MEMORY})
    (home / "MEMORY.md").write_text("# Edited\n", encoding="utf-8")
    assert wire.receive()["method"] == "notifications/resources/updated"


def test_a_server_watches_after_its_first_reply_and_ends_cleanly_when_stdin_closes(
    installed: Wire, tmp_path: Path
) -> None:
    wire = installed
    can_look = sys.platform == "linux"
    wire.send_bytes(b"")
    assert not (can_look and watches(wire))
    watching(wire, tmp_path / "home")
    assert not can_look or watches(wire)

    assert wire.finish() == ("", "", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without signals")
def test_a_server_that_watches_ends_cleanly_on_a_signal(wire: Wire, tmp_path: Path) -> None:
    watching(wire, tmp_path / "home")

    wire.process.send_signal(signal.SIGTERM)
    wire.process.wait(timeout=10)

    assert wire.finish() == ("", "", 0)


def test_a_modern_subscription_does_not_keep_a_server_alive(wire: Wire) -> None:
    wire.request("server/discover", {"_meta": MODERN})
    wire.send(
        "subscriptions/listen", {"_meta": MODERN, "notifications": {"promptsListChanged": True}}, id=9
    )
    wire.receive()

    out, err, code = wire.finish()

    (last,) = out.splitlines()
    assert json.loads(last)["id"] == 9
    assert json.loads(last)["result"]["resultType"] == "complete"
    assert (err, code) == ("", 0)


def test_a_client_that_stops_reading_and_goes_away_leaves_no_traceback(
    wire: Wire, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    watching(wire, home)
    assert wire.process.stdin

    wire.process.stdin.close()
    for number in range(20):
        (home / "MEMORY.md").write_text(f"# {number}\n", encoding="utf-8")

    assert wire.finish()[1:] == ("", 0)


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home(embedder="none")


def test_the_first_look_finds_nothing_changed_and_each_change_is_found_once(home: Home) -> None:
    thread = home.threads.create_thread("Roof")
    address = f"soulkeep://threads/{thread.id}"
    seen = _Seen(home, {address: state_of(home, address)})
    assert seen.look(()) == seen.look(()) == _Changes()

    edit(home, "MEMORY.md")
    assert seen.look(()) == _Changes(frozenset({"MEMORY.md"}), frozenset({CONTEXT}))
    home.memories.remember([NewMemory("Slates.", thread_id=thread.id)])
    assert seen.look(()) == _Changes(updated=frozenset({address, CONTEXT}))
    (home.path / "SOUL.md").unlink()
    gone = _Changes(frozenset({"SOUL.md"}), frozenset({CONTEXT}), listed=True)
    assert (seen.look(()), seen.look(())) == (gone, _Changes())


def test_what_was_noticed_and_not_told_is_found_by_who_looks_next(home: Home) -> None:
    thread = home.threads.create_thread("Roof")
    address = f"soulkeep://threads/{thread.id}"
    states = {address: state_of(home, address)}
    seen = _Seen(home, states)
    seen.look(())
    home.memories.remember([NewMemory("Slates.", thread_id=thread.id)])
    assert address in seen.look(()).updated  # and then the home was closed

    assert _Seen(home, states).look(()).updated == {address}


def test_a_recall_changes_nothing_that_is_told(home: Home) -> None:
    thread = home.threads.create_thread("Roof")
    address = f"soulkeep://threads/{thread.id}"
    seen = _Seen(home, {address: state_of(home, address)})
    seen.look(())

    home.memories.recall("anything", thread_id=thread.id)

    assert seen.look(()) == _Changes()


def test_an_undo_tells_nothing_of_prompts_where_there_are_none(home: Home) -> None:
    seen = _Seen(home)
    seen.look(())
    home.memories.remember([NewMemory("Slates.")])

    home.changes.undo(1)

    assert seen.look(()) == _Changes(updated=frozenset({CONTEXT}))


def test_prompts_are_read_only_after_one_of_them_may_have_changed(
    home: Home, other: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = other.prompts.add_prompt("Tone", "Be brief.\nAlways.")
    seen = _Seen(home)
    seen.look(())
    read = home.prompts.list_offers
    reads: list[int] = []

    def list_offers(_: object) -> list[PromptOffer]:
        reads.append(1)
        return read()

    monkeypatch.setattr(type(home.prompts), "list_offers", list_offers)

    for number in range(5):
        other.memories.remember([NewMemory(f"Memory {number}.")])
        home.memories.remember([NewMemory(f"Another {number}.")])
        assert seen.look(()) == _Changes(updated=frozenset({CONTEXT}))
    assert reads == []

    same, others = (
        _Changes(updated=frozenset({CONTEXT})),
        _Changes(frozenset(), frozenset({CONTEXT}), True),
    )
    other.prompts.change_prompt(prompt.id, content="Be brief.\nForever")
    assert seen.look(()) == same
    other.prompts.change_prompt(prompt.id, content="Be kind!!\nForever")
    assert seen.look(()) == others
    by_another_program(home, "UPDATE global_prompts SET priority = 3")
    assert seen.look(()) == same
    assert len(reads) == 3


def test_a_store_that_cannot_be_read_ends_no_server(wire: Wire, tmp_path: Path, other: Home) -> None:
    watching(wire, tmp_path / "home")
    database_of(other).execute("ALTER TABLE threads RENAME TO elsewhere")
    (tmp_path / "home" / "MEMORY.md").write_text("# Edited once more\n", encoding="utf-8")
    database_of(other).execute("ALTER TABLE elsewhere RENAME TO threads")

    assert wire.request("ping")["result"] == {}
