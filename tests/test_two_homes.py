"""One server object over several homes: nothing of one connection or home reaches another."""

import gc
import re
import sys
import threading
import weakref
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import anyio
import anyio.lowlevel
import pytest
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.client.session import IncomingMessage
from mcp.server.runner import serve_loop
from mcp.shared.memory import create_client_server_memory_streams
from mcp.types import (
    INVALID_PARAMS,
    CallToolResult,
    ElicitRequestParams,
    ElicitResult,
    Implementation,
    InputRequiredResult,
    PromptListChangedNotification,
    PromptReference,
    ResourceListChangedNotification,
    ResourceTemplateReference,
    ResourceUpdatedNotification,
    TextResourceContents,
)

from engine import another_program, database_of
from soulkeep.app import build_server, open_home
from soulkeep.errors import StoreError
from soulkeep.mcp_server import homes
from soulkeep.mcp_server.homes import Client as Connected
from soulkeep.mcp_server.homes import Homes, Turns
from soulkeep.mcp_server.notifications import Notifications, work_beside_calls
from soulkeep.mcp_server.protocol import PAGE
from soulkeep.service.home import Home

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")

PATIENCE_S = 10.0
CONSTANTS = 20
MEMORY, SOUL = "soulkeep://MEMORY.md", "soulkeep://SOUL.md"
PROMPTS, RESOURCES = "other prompts", "other resources"
AGREE = ElicitResult(action="accept", content={"agree": True})


@dataclass
class Person:
    """A client of the server, which is served the home of its user's name."""

    client: Client
    asked: list[str] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    progress: list[str | None] = field(default_factory=list)
    news: anyio.Event = field(default_factory=anyio.Event)

    def hear(self, sign: str) -> None:
        self.heard.append(sign)
        self.news.set()
        self.news = anyio.Event()

    async def hears(self, sign: str) -> None:
        with anyio.fail_after(PATIENCE_S):
            while sign not in self.heard:
                await self.news.wait()

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        async def note(progress: float, total: float | None, message: str | None) -> None:
            self.progress.append(message)

        result = await self.client.call_tool(tool, arguments, progress_callback=note)
        assert not result.is_error, result.content
        assert result.structured_content is not None
        content: dict[str, Any] = result.structured_content
        return content

    async def read(self, uri: str) -> str:
        (content,) = (await self.client.read_resource(uri)).contents
        assert isinstance(content, TextResourceContents)
        return content.text


@dataclass
class House:
    """A server, and the homes that it has opened."""

    folder: Path
    answers: dict[str, ElicitResult] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    homes: dict[str, Home] = field(default_factory=dict)
    most_open: int = 100
    idle_s: float = 900.0
    most_memory: int = 10**9
    notifications: Notifications = field(default_factory=Notifications)

    def __post_init__(self) -> None:
        self.serving = Homes(
            self.name,
            self.open,
            most_open=self.most_open,
            idle_s=self.idle_s,
            most_memory=self.most_memory,
        )
        self.server = build_server(self.serving, self.notifications)

    @staticmethod
    def name(ctx: Any) -> str:
        return str(ctx.session.client_params.client_info.name)

    def open(self, name: str) -> Home:
        self.opened.append(name)
        self.homes[name] = open_home(self.folder / name, embedder="none")
        return self.homes[name]

    @asynccontextmanager
    async def person(self, name: str, mode: str) -> AsyncIterator[Person]:
        async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
            person.asked.append(params.message)
            return self.answers[name]

        async def hear(message: IncomingMessage) -> None:
            if isinstance(message, ResourceUpdatedNotification):
                person.hear(message.params.uri)
            elif isinstance(message, PromptListChangedNotification):
                person.hear(PROMPTS)
            elif isinstance(message, ResourceListChangedNotification):
                person.hear(RESOURCES)

        async with Client(
            self.server,
            mode=mode,
            cache=None,
            client_info=Implementation(name=name, version="1"),
            message_handler=hear,
            elicitation_callback=answer if self.answers else None,
        ) as client:
            person = Person(client)
            yield person


@asynccontextmanager
async def told(person: Person, mode: str, *uris: str) -> AsyncIterator[None]:
    """Let a person be told of these resources, and of other lists."""
    if mode == "legacy":
        for uri in uris:
            await person.client.subscribe_resource(uri)
        yield
        return
    names = {"PromptsListChanged": PROMPTS, "ResourcesListChanged": RESOURCES}
    listening = person.client.listen(
        resource_subscriptions=uris, prompts_list_changed=True, resources_list_changed=True
    )

    async def hear(subscription: Any) -> None:
        async for event in subscription:
            person.hear(names.get(type(event).__name__) or event.uri)

    async with listening as subscription, anyio.create_task_group() as tasks:
        tasks.start_soon(hear, subscription)
        yield
        tasks.cancel_scope.cancel()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    house.serving.close()


@pytest.fixture
async def both(house: House, mode: str) -> AsyncIterator[tuple[Person, Person]]:
    async with house.person("anna", mode) as anna, house.person("ben", mode) as ben:
        yield anna, ben


async def every_answer(person: Person) -> str:
    """Return whatever the tools and resources that read say to a person."""
    called = [
        await person.call("recall", query="peanuts slates secret"),
        await person.call("get_context"),
        await person.call("browse_memories"),
        await person.call("browse_memories", view="changes"),
        await person.call("manage_thread", action="list"),
        await person.call("list_prompts", include_inactive=True),
    ]
    listed = await person.client.list_resources()
    uris = [resource.uri for resource in listed.resources if not resource.uri.endswith("stats")]
    read = [await person.read(uri) for uri in [*uris, "soulkeep://memories/1"]]
    prompts = await person.client.list_prompts()
    return repr([called, listed, read, prompts])


async def fill(person: Person, word: str) -> None:
    thread = await person.call("create_thread", title=f"Secret thread of {word}")
    await person.call("remember", content=f"Secret {word}.", thread_id=thread["id"])
    await person.call("log_day", text=f"Secret log of {word}.")
    await person.call("curate_memory", action="add", section="User Facts", entry=f"Secret {word}.")


async def test_each_is_answered_from_the_own_home(both: tuple[Person, Person], house: House) -> None:
    anna, ben = both
    await fill(anna, "peanuts")
    await fill(ben, "slates")
    house.homes["anna"].prompts.add_prompt("Peanuts", "Mind the peanuts.")
    house.homes["ben"].prompts.add_prompt("Slates", "Mind the slates.")

    answers = [await every_answer(person) for person in both]

    words = [set(re.findall("peanuts|slates", answer)) for answer in answers]
    assert words == [{"peanuts"}, {"slates"}]
    assert [answer.count("Mind the") > 0 for answer in answers] == [True, True]


async def test_calls_at_the_same_time_stay_apart(both: tuple[Person, Person]) -> None:
    async with anyio.create_task_group() as tasks:
        for person, word in zip(both, ("peanuts", "slates"), strict=True):
            for number in range(20):
                tasks.start_soon(partial(person.call, "remember", content=f"{word} {number}"))

    for person, word in zip(both, ("peanuts", "slates"), strict=True):
        listed = await person.call("browse_memories", limit=100)
        contents = {item["content"] for item in listed["items"]}
        assert contents == {f"{word} {number}" for number in range(20)}


async def test_calls_that_wait_to_write_to_one_home_hold_up_none_to_another(
    both: tuple[Person, Person], house: House
) -> None:
    anna, ben = both
    await anna.call("recall", query="anything")
    blocker = another_program(house.homes["anna"].path / "soulkeep.db")
    blocker.execute("BEGIN IMMEDIATE")

    async with anyio.create_task_group() as tasks:
        for number in range(30):
            tasks.start_soon(partial(anna.call, "remember", content=f"Peanuts {number}."))
        for number in range(5):
            await ben.call("remember", content=f"Slates {number}.")
        blocker.execute("ROLLBACK")


async def test_prompts_and_completions_are_of_the_own_home(
    both: tuple[Person, Person], house: House
) -> None:
    anna, ben = both
    thread = await anna.call("create_thread", title="Peanuts")
    await ben.call("remember", content="Slates are grey.")
    house.homes["anna"].prompts.add_prompt("Letter", "Write to {{section}}.")
    place = ResourceTemplateReference(uri="soulkeep://threads/{thread_id}")
    memory = ResourceTemplateReference(uri="soulkeep://memories/{memory_id}")

    async def completed(person: Person, ref: Any, name: str) -> list[str]:
        return (await person.client.complete(ref, {"name": name, "value": ""})).completion.values

    filled = await anna.client.get_prompt("letter", {"section": "the roofer"})
    assert "the roofer" in repr(filled)
    with pytest.raises(MCPError, match="no prompt 'letter'"):
        await ben.client.get_prompt("letter", {"section": "the roofer"})
    with pytest.raises(MCPError, match="no prompt 'letter'"):
        await completed(ben, PromptReference(name="letter"), "section")
    assert "User Facts" in await completed(anna, PromptReference(name="letter"), "section")
    assert await completed(anna, place, "thread_id") == [thread["id"]]
    assert await completed(ben, place, "thread_id") == []
    assert await completed(anna, memory, "memory_id") == []
    assert await completed(ben, memory, "memory_id") == ["1"]


async def test_signs_of_change_go_to_those_of_the_home(tmp_path: Path, mode: str) -> None:
    house = House(tmp_path, notifications=Notifications(watched=True))
    uris = (MEMORY, SOUL, "soulkeep://memories/1")
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(
            house.serving.run, partial(work_beside_calls, notifications=house.notifications)
        )
        both = [await stack.enter_async_context(house.person(n, mode)) for n in ("anna", "ben")]
        anna, ben = both
        for person in both:
            await person.call("remember", content="The first one.")
            await stack.enter_async_context(told(person, mode, *uris))
        # A change that both hear of shows that both are listened for.
        for name, person in zip(("anna", "ben"), both, strict=True):
            (house.homes[name].path / "SOUL.md").write_text("# Another\n", encoding="utf-8")
            await person.hears(SOUL)
            person.heard.clear()

        (house.homes["anna"].path / "MEMORY.md").write_text("# Anna's\n", encoding="utf-8")
        await anna.hears(MEMORY)
        house.homes["anna"].lifecycle.revise(1, content="Another.")
        await anna.hears("soulkeep://memories/1")
        house.homes["anna"].threads.create_thread("Anna's")
        await anna.hears(RESOURCES)
        house.homes["anna"].prompts.add_prompt("Tone", "Be brief.")
        await anna.hears(PROMPTS)
        (house.homes["ben"].path / "SOUL.md").write_text("# Ben's\n", encoding="utf-8")
        await ben.hears(SOUL)
        tasks.cancel_scope.cancel()
    house.serving.close()

    assert set(ben.heard) == {SOUL}


async def test_a_home_that_nobody_uses_is_closed_in_time_with_what_works_beside_calls(
    tmp_path: Path,
) -> None:
    house = House(tmp_path, idle_s=0.05)
    ended: defaultdict[Home, anyio.Event] = defaultdict(anyio.Event)

    async def beside(home: Home) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended[home].set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.serving.run, beside)
        with anyio.fail_after(PATIENCE_S):
            async with house.person("anna", "auto") as anna, house.person("ben", "legacy") as ben:
                await ben.call("remember", content="Slates.")
                for _ in range(2):
                    await anna.call("remember", content="Peanuts.")
                    await ended[house.homes["anna"]].wait()
                assert house.opened.count("ben") == 1
            await ended[house.homes["ben"]].wait()
        tasks.cancel_scope.cancel()

    for home in house.homes.values():
        with pytest.raises(StoreError):
            home.news(None)
    assert house.opened.count("anna") > house.opened.count("ben") == 1


async def test_a_home_that_takes_long_to_open_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(homes, "LONG_S", 0.0)
    house, may_open = House(tmp_path), threading.Event()

    def open_slowly(name: str) -> Home:
        assert name == "ben" or may_open.wait(PATIENCE_S)
        return house.open(name)

    house.serving._open_home = open_slowly
    async with house.person("anna", "auto") as anna, house.person("ben", "auto") as ben:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(anna.call, "remember", content="Peanuts."))
            await ben.call("remember", content="Slates.")
            assert house.opened == ["ben"]
            may_open.set()
        assert (await anna.call("recall", query="peanuts"))["matches"]
    house.serving.close()


async def test_no_answer_waits_until_another_home_is_closed(tmp_path: Path) -> None:
    house, may_end = House(tmp_path, most_open=1), anyio.Event()

    async def beside(home: Home) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await may_end.wait()

    async with anyio.create_task_group() as tasks, house.person("anna", "auto") as anna:
        tasks.start_soon(house.serving.run, beside)
        await anyio.wait_all_tasks_blocked()
        async with house.person("ben", "auto") as ben:
            await anna.call("remember", content="Peanuts.")
            await ben.call("remember", content="Slates.")
        first = house.homes["anna"]
        assert first.lifecycle.list_memories()  # it is still open
        async with anyio.create_task_group() as again:
            again.start_soon(partial(anna.call, "recall", query="peanuts"))
            await anyio.wait_all_tasks_blocked()
            assert house.opened == ["anna", "ben"]  # not before the former one is closed
            may_end.set()
        assert house.opened == ["anna", "ben", "anna"]
        with pytest.raises(StoreError):
            first.news(None)
        tasks.cancel_scope.cancel()
    house.serving.close()


@pytest.mark.parametrize("calls", [3, 40])
async def test_who_asks_much_holds_up_nobody_else(calls: int) -> None:
    turns, order, may_go = Turns(1), list[str](), anyio.Event()

    async def ask(account: str) -> None:
        async with turns.one(account):
            order.append(account)
            await may_go.wait()

    async with anyio.create_task_group() as tasks:
        for account in ("anna", *["anna"] * calls, "ben", "carl", "ben"):
            tasks.start_soon(ask, account)
            await anyio.wait_all_tasks_blocked()
        assert order == ["anna"]
        may_go.set()

    assert order[:6] == ["anna", "anna", "ben", "carl", "anna", "ben"]
    assert order[6:] == ["anna"] * (calls - 2)


async def test_only_so_many_work_at_a_time_and_who_gave_up_is_left_out() -> None:
    turns, working, most, done = Turns(2), 0, 0, list[int]()

    async def ask(number: int) -> None:
        nonlocal working, most
        async with turns.one("anna"):
            working += 1
            most = max(most, working)
            await anyio.lowlevel.checkpoint()
            working -= 1
            done.append(number)

    async with anyio.create_task_group() as tasks, turns.one("ben"), turns.one("ben"):
        with anyio.move_on_after(0):
            await ask(0)
        for number in range(1, 6):
            tasks.start_soon(ask, number)
        await anyio.wait_all_tasks_blocked()
        assert not done

    assert (most, sorted(done)) == (2, [1, 2, 3, 4, 5])


async def test_who_only_waits_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "LONG_S", 0.0)
    turns = Turns(1)

    async with turns.one("anna"), turns.one("anna"), turns.one("ben"):
        pass


async def test_two_connections_of_one_name_have_a_session_each(house: House, mode: str) -> None:
    async with house.person("anna", mode) as one, house.person("anna", mode) as other:
        await one.call("remember", content="Peanuts.")
        await other.call("remember", content="Slates.")
        await one.call("remember", content="Gutters.")

    rows = database_of(house.homes["anna"]).execute(
        "SELECT count(*) FROM sessions WHERE agent_id = 'anna'"
    )
    assert rows == [(2,)]


async def test_an_older_and_a_newer_client_share_a_server(house: House) -> None:
    async with house.person("anna", "auto") as anna, house.person("ben", "legacy") as ben:
        await fill(anna, "peanuts")
        await fill(ben, "slates")
        answers = [await every_answer(person) for person in (anna, ben)]

    words = [set(re.findall("peanuts|slates", answer)) for answer in answers]
    assert words == [{"peanuts"}, {"slates"}]


@asynccontextmanager
async def over_one_lifespan(house: House, lifespan: Connected) -> AsyncIterator[Any]:
    """Serve a connection of the handshake era as a server does that many reach at one address."""
    async with (
        create_client_server_memory_streams() as (client, server),
        anyio.create_task_group() as tasks,
    ):
        low = house.server._lowlevel_server
        tasks.start_soon(partial(serve_loop, low, *server, lifespan_state=lifespan))
        yield client
        tasks.cancel_scope.cancel()


async def test_connections_that_share_a_lifespan_share_nothing_else(house: House) -> None:
    shared, about = Connected(), Implementation(name="anna", version="1")
    async with AsyncExitStack() as stack:
        one, other = [
            await stack.enter_async_context(
                Client(over_one_lifespan(house, shared), mode="legacy", cache=None, client_info=about)
            )
            for _ in range(2)
        ]
        for client in (one, other, one):
            await client.call_tool("remember", {"content": "Peanuts."})
        for number in range(PAGE + 5):
            house.homes["anna"].threads.create_thread(f"Thread {number}")
        cursor = (await one.list_resources()).next_cursor
        with pytest.raises(MCPError, match="list without one"):
            await other.list_resources(cursor=cursor)
        assert (await one.list_resources(cursor=cursor)).resources

    rows = database_of(house.homes["anna"]).execute(
        "SELECT count(*) FROM sessions WHERE agent_id = 'anna'"
    )
    assert rows == [(2,)]


async def test_a_home_that_is_closed_and_opened_again_knows_the_sessions_of_a_connection(
    tmp_path: Path,
) -> None:
    house = House(tmp_path, idle_s=0)
    async with house.person("anna", "auto") as anna:
        await anna.call("remember", content="Peanuts.")
        await anna.call("remember", content="Slates.")

    assert len(house.opened) > 1
    with_anna = open_home(tmp_path / "anna", embedder="none")
    rows = database_of(with_anna).execute("SELECT count(*) FROM sessions WHERE agent_id = 'anna'")
    with_anna.close()
    assert rows == [(1,)]


async def test_users_are_asked_about_their_own_home_and_their_answers_count_there(
    tmp_path: Path, mode: str
) -> None:
    house = House(tmp_path, {"anna": AGREE, "ben": ElicitResult(action="decline")})
    async with house.person("anna", mode) as anna, house.person("ben", mode) as ben:
        states: dict[str, str] = {}

        async def learn(name: str, person: Person) -> None:
            states[name] = (await person.call("learn_preference", line="Be brief."))["state"]

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(learn, "anna", anna)
            tasks.start_soon(learn, "ben", ben)
        texts = [await person.read(SOUL) for person in (anna, ben)]
    house.serving.close()

    assert states == {"anna": "written", "ben": "declined"}
    assert ["Be brief." in text for text in texts] == [True, False]
    assert [len(person.asked) for person in (anna, ben)] == [1, 1]


ASKING: dict[str, Callable[[], dict[str, Any]]] = {
    "learn_preference": lambda: {"line": "Be brief."},
    "purge": lambda: {"memory_ids": [1]},
    "set_prompt": lambda: {"name": "Tone", "content": "Be brief."},
    "create_thread": lambda: {"title": "Roof", "system_prompt": "Be brief."},
}


@pytest.mark.parametrize("tool", ASKING)
@pytest.mark.parametrize("other", ["ben", "anna"])
async def test_a_question_that_one_connection_was_asked_cannot_be_answered_by_another(
    tool: str, other: str, tmp_path: Path
) -> None:
    house = House(tmp_path, {"anna": AGREE, "ben": AGREE})
    arguments = ASKING[tool]()
    async with house.person("anna", "auto") as anna, house.person(other, "auto") as thief:
        for person in (anna, thief):
            await person.call("remember", content="The same in both homes.")

        async def ask(person: Person, state: str | None) -> CallToolResult | InputRequiredResult:
            answers: Any = {"consent": AGREE} if state else None
            return await person.client.session.call_tool(
                tool, arguments, input_responses=answers, request_state=state, allow_input_required=True
            )

        question = await ask(anna, None)
        assert isinstance(question, InputRequiredResult)
        taken = await ask(thief, question.request_state)
        used = await ask(anna, question.request_state)
    house.serving.close()

    assert isinstance(taken, InputRequiredResult)
    assert taken.request_state != question.request_state
    assert isinstance(used, CallToolResult)
    assert not used.is_error


async def test_a_cursor_goes_on_only_over_the_connection_that_it_was_given_to(
    house: House, mode: str
) -> None:
    async with (
        house.person("anna", mode) as anna,
        house.person("ben", mode) as ben,
        house.person("anna", mode) as again,
    ):
        for name, person in (("anna", anna), ("ben", ben)):
            await person.call("recall", query="anything")
            for number in range(PAGE + 5):
                house.homes[name].threads.create_thread(f"Thread {number}")
        cursor = (await anna.client.list_resources()).next_cursor
        assert cursor is not None

        for other in (ben, again):
            with pytest.raises(MCPError, match="list without one") as refused:
                await other.client.list_resources(cursor=cursor)
            assert refused.value.error.code == INVALID_PARAMS
        assert len((await anna.client.list_resources(cursor=cursor)).resources) == 9


async def test_progress_is_told_to_the_request_that_waits(both: tuple[Person, Person]) -> None:
    anna, ben = both
    for person in both:
        memories = [{"content": f"Peanuts {number}."} for number in range(150)]
        await person.call("remember", memories=memories)
        person.progress.clear()

    async with anyio.create_task_group() as tasks:
        ids = list(range(1, 151))
        tasks.start_soon(partial(anna.call, "change_memory", action="forget", memory_ids=ids))
        tasks.start_soon(partial(ben.call, "change_memory", action="forget", memory_ids=[1]))

    assert "Checking the copy of the store" in anna.progress
    assert ben.progress == []


@pytest.mark.parametrize(
    ("most_open", "opened"),
    [(0, "anna ben anna"), (1, "anna ben anna"), (2, "anna ben"), (9, "anna ben")],
)
async def test_homes_that_nobody_uses_stay_open_up_to_a_number_the_latest_used_first(
    most_open: int, opened: str, tmp_path: Path
) -> None:
    house = House(tmp_path, most_open=most_open)
    async with house.person("anna", "auto") as anna, house.person("ben", "auto") as ben:
        for person in (anna, ben, anna):
            await person.call("remember", content="Peanuts.")
        found = await anna.call("recall", query="peanuts")
    house.serving.close()

    assert [name for name, _ in groupby(house.opened)] == opened.split()
    assert found["matches"]


async def test_a_home_stays_open_for_a_client_that_waits_to_be_told_of_changes(
    tmp_path: Path, mode: str
) -> None:
    house = House(tmp_path, most_open=0)
    async with house.person("anna", mode) as anna, house.person("ben", mode) as ben:
        async with told(anna, mode, MEMORY):
            for person in (anna, ben, anna, ben, anna):
                await person.call("remember", content="Peanuts.")
            assert house.opened.count("anna") == 1
        assert (house.opened.count("ben") == 1) is (mode == "legacy")
    house.homes["anna"].close()
    house.serving.close()


async def test_a_home_that_cannot_be_opened_is_an_error_of_its_requests_alone(
    house: House, mode: str, tmp_path: Path
) -> None:
    (tmp_path / "ben").mkdir()
    (tmp_path / "ben" / "soulkeep.db").write_text("no store", encoding="utf-8")
    async with house.person("anna", mode) as anna:
        await anna.call("remember", content="Peanuts.")
        async with house.person("ben", mode) as ben:
            with pytest.raises(MCPError, match=r"soulkeep\.db"):
                await ben.client.call_tool("recall", {"query": "peanuts"})
        assert (await anna.call("recall", query="peanuts"))["matches"]


async def test_what_one_client_subscribed_to_ends_with_its_connection(house: House, mode: str) -> None:
    async with house.person("anna", mode) as anna:
        async with house.person("anna", mode) as other, told(other, mode, SOUL):
            await anna.call("remember", content="Peanuts.")
            subscribers = house.notifications.of(house.homes["anna"])
            assert set(subscribers.states) == {SOUL}
        assert subscribers.states == {}


async def test_what_homes_read_for_searches_has_one_bound_and_the_longest_unused_gives_way(
    tmp_path: Path, mode: str
) -> None:
    house = House(tmp_path, most_memory=1_000)
    async with house.person("anna", mode) as anna, house.person("ben", mode) as ben:
        for person in (anna, ben):
            await person.call("remember", content="Anna likes peanuts. " * 4)
        kept = []
        for person in (anna, ben, anna):
            assert (await person.call("recall", query="peanuts"))["matches"]
            kept.append([house.homes[name].memory_used > 0 for name in ("anna", "ben")])
    house.serving.close()

    assert kept == [[True, False], [False, True], [True, False]]


async def test_homes_that_keep_little_keep_all_of_it(house: House) -> None:
    async with house.person("anna", "auto") as anna, house.person("ben", "auto") as ben:
        for person in (anna, ben):
            await person.call("remember", content="Anna likes peanuts.")
            await person.call("recall", query="peanuts")

        assert all(home.memory_used > 0 for home in house.homes.values())


async def test_what_a_home_kept_in_memory_goes_with_it(tmp_path: Path) -> None:
    house = House(tmp_path, idle_s=0)
    async with house.person("anna", "auto") as anna:
        await anna.call("remember", content="Anna likes peanuts.")
        await anna.call("recall", query="peanuts")
    closed = weakref.ref(house.homes.pop("anna"))
    gc.collect()

    assert closed() is None


def _kept_by_modules() -> dict[str, int]:
    """Return how much each container that a module holds has, and each cache without a bound."""
    sizes: dict[str, int] = {}
    for module in [module for name, module in sys.modules.items() if name.startswith("soulkeep")]:
        for name, value in vars(module).items():
            if getattr(value, "__module__", module.__name__) != module.__name__:
                continue
            if isinstance(value, dict | list | set | deque | WeakKeyDictionary | WeakSet):
                sizes[f"{module.__name__}.{name}"] = len(value)
            elif hasattr(value, "cache_info") and value.cache_info().maxsize is None:
                sizes[f"{module.__name__}.{name}()"] = value.cache_info().currsize
    return sizes


async def test_modules_keep_nothing_of_a_home_but_in_caches_with_a_bound(house: House) -> None:
    async with house.person("anna", "auto") as anna:
        await fill(anna, "peanuts")
        await every_answer(anna)
        before = _kept_by_modules()
    async with house.person("ben", "auto") as ben:
        for number in range(3):
            await fill(ben, f"slates {number}")
            await every_answer(ben)
        await ben.call("remember", memories=[{"content": f"Slate {n} of {n}."} for n in range(100)])
        await ben.call("recall", query="slate 7")
    now = _kept_by_modules()

    # A cache without a bound is of tables in the source, each read once when it is first needed.
    allowed = {name: CONSTANTS if name.endswith("()") else size for name, size in before.items()}
    grown = {name: size for name, size in now.items() if size > allowed.get(name, size)}
    assert grown == {}
