"""Arguments as models and the programs that carry their calls send them."""

import json
import re
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from conftest import TickingClock
from engine import by_another_program
from soulkeep.app import build_server, open_home
from soulkeep.errors import InvalidInputError, UnknownArgumentError
from soulkeep.mcp_server.arguments import closest, read_arguments
from soulkeep.models import NewMemory
from soulkeep.service.home import Home
from test_tools import call, refusal

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["content", "memory_ids"],
    "properties": {
        "content": {"type": "string"},
        "thread_id": {"type": "string"},
        "subject": {"type": "string"},
        "wish": {"type": "string"},
        "since": {"type": "string"},
        "memory_type": {"type": "string", "enum": ["fact", "preference"]},
        "memory_ids": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "replaces": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "memory_id": {"type": "integer", "minimum": 0},
        "limit": {"type": "integer", "minimum": 1},
        "priority": {"type": "integer"},
        "remove": {"type": "boolean"},
        "memories": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
    },
    "$defs": {
        "Item": {
            "type": "object",
            "required": ["content"],
            "properties": {"content": {"type": "string"}, "subject": {"type": "string"}},
        }
    },
}


def read(**arguments: Any) -> dict[str, Any]:
    sent = read_arguments("tool", SCHEMA, arguments)
    assert sent.ignored == []
    return sent.arguments


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (1, [1]),
        ("1", [1]),
        (1.0, [1]),
        ("#12", [12]),
        ("[1,2]", [1, 2]),
        ("[#1, #2]", [1, 2]),
        ("1, 2", [1, 2]),
        ("#3 #4;5", [3, 4, 5]),
        (["#3", "4", 5.0], [3, 4, 5]),
        ([1, None, "", "null", 2], [1, 2]),
        ('["7"]', [7]),
    ],
)
def test_ids_mean_the_same_however_they_are_written(sent: Any, meant: list[int]) -> None:
    assert read(memory_ids=sent) == {"memory_ids": meant}
    assert read(replaces=sent) == {"replaces": meant}


@pytest.mark.parametrize("sent", ["1 and 2", "one", "any", "1-3", {"id": 1}, "[1, x", "1.5", "#"])
def test_what_might_mean_several_things_is_left_for_validation_to_refuse(sent: Any) -> None:
    (read_ids,) = read(memory_ids=sent).values()

    assert any(not isinstance(memory_id, int) for memory_id in read_ids)


@pytest.mark.parametrize("sent", [True, [True], ["1", False]])
def test_a_truth_value_is_no_number(sent: Any) -> None:
    with pytest.raises(InvalidInputError, match="must be a whole number"):
        read(memory_ids=sent)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        *((name, None) for name in SCHEMA["properties"]),
        *(
            (name, word)
            for name in ("thread_id", "since", "memory_type", "memory_id", "limit", "remove", "replaces")
            for word in ("", " ", "null", "None", "NULL", "undefined")
        ),
        ("subject", "null"),
        *((name, word) for name in ("thread_id", "since", "memory_type") for word in ("any", "N/A")),
        ("subject", " Any "),
        ("memory_type", ["any"]),
        ("memory_id", 0),
        ("memory_id", "0"),
        ("limit", 0),
        ("limit", 0.0),
        ("replaces", []),
        ("replaces", [0]),
        ("replaces", [None]),
        ("replaces", "[]"),
        ("memories", [None]),
        ("memories", ""),
        ("memories", ["", "null"]),
        ("memory_id", []),
        ("memory_type", []),
        ("since", 0),
        ("since", "0"),
        ("thread_id", [None]),
        ("limit", [None]),
        ("memory_type", 0),
        ("memory_type", "0"),
        ("memory_type", [None]),
        ("memories", 0),
        *(("wish", word) for word in ("null", "None", "undefined")),
        ("wish", 0),
        ("wish", []),
        ("wish", {}),
        ("wish", [""]),
        ("wish", [None]),
    ],
)
def test_what_stands_for_nothing_is_left_out(name: str, sent: Any) -> None:
    assert read(**{name: sent}) == {}


@pytest.mark.parametrize("text", ["[1,2]", '{"a": 1}', "0", " ", " spaced ", "- x", "Nil is a word."])
def test_text_is_kept_as_it_is(text: str) -> None:
    assert read(wish=text) == {"wish": text}


@pytest.mark.parametrize("text", ["", "null", "None", "[1,2]", '{"a": 1}', "0", " spaced ", "- x"])
def test_text_that_is_asked_for_is_kept_whatever_it_says(text: str) -> None:
    assert read(content=text) == {"content": text}
    assert read(memories=[{"content": text}]) == {"memories": [{"content": text}]}


def test_numbers_words_and_objects_are_read_out_of_text_and_lists_of_one() -> None:
    assert read(memory_id="#12", limit="5", priority="0", remove=" true ") == {
        "memory_id": 12,
        "limit": 5,
        "priority": 0,
        "remove": "true",
    }
    assert read(memory_type=" Fact ") == read(memory_type=["fact"]) == {"memory_type": "fact"}
    assert read(memory_id="change 3", limit="prompt 4") == {"memory_id": 3, "limit": 4}
    assert read(thread_id=" ab12 ", memory_id=[3]) == {"thread_id": "ab12", "memory_id": 3}
    for named in ("thread ab12", "Thread  ab12", "soulkeep://threads/ab12", "#ab12", ["thread ab12"]):
        assert read(thread_id=named) == {"thread_id": "ab12"}
    for other in ("thread of tea", "threads", "thread", "soulkeep://threads/", "#"):
        assert read(thread_id=other) == {"thread_id": other}
    item = {"memories": [{"content": "x"}]}
    assert read(memories={"content": "x"}) == read(memories='{"content": "x"}') == item
    assert read(memories='[{"content": "x", "subject": null}]') == item
    assert read(memories=['{"content": "x"}']) == item
    assert read(memories=["x", "none"]) == read(memories='["x"]') == item
    for broken in ('{"content": "x"', "[x"):
        assert read(memories=[broken]) == {"memories": [broken]}


def test_a_number_without_a_least_may_be_zero() -> None:
    assert read(priority=0) == {"priority": 0}


@pytest.mark.parametrize(
    "name",
    "toolCallId tool_call_id toolName _meta __n8n sessionId session_id chatId conversation_id requestId"
    " user_id runId trace_id traceparent agentId call_id taskId messageId message_id explanation $ 名前"
    " random_string wait_for_previous request_heartbeat security_risk task_progress metadata".split(),
)
def test_what_clients_add_is_no_misspelt_argument(name: str) -> None:
    for known in (list(SCHEMA["properties"]), ["change_id", "since"], ["action", "section", "entry"]):
        assert closest(name, known) is None
        assert closest("", known) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("thred_id", "thread_id"),
        ("threadId", "thread_id"),
        ("threadid", "thread_id"),
        ("thread", "thread_id"),
        ("contents", "content"),
        ("type", "memory_type"),
        ("memoryType", "memory_type"),
        ("memry_ids", "memory_ids"),
        ("limt", "limit"),
    ],
)
def test_a_name_close_to_a_real_one_is_refused_with_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(UnknownArgumentError, match=f"did you mean `{meant}`") as refused:
        read_arguments("tool", SCHEMA, {name: "x"})
    assert (refused.value.argument, refused.value.close) == (name, meant)
    with pytest.raises(UnknownArgumentError, match="did you mean `subject`"):
        read_arguments("tool", SCHEMA, {"memories": [{"content": "x", "subjct": "y"}]})


def test_other_names_are_ignored_and_reported_inside_lists_too() -> None:
    sent = read_arguments(
        "tool", SCHEMA, {"toolCallId": "x", "memories": [{"content": "x", "_meta": {}}, {"tags": ["a"]}]}
    )

    assert sent.arguments == {"memories": [{"content": "x"}, {}]}
    assert sent.ignored == ["toolCallId", "memories.0._meta", "memories.1.tags"]


async def test_an_answer_names_what_it_ignored_in_both_channels(client: Client, home: Home) -> None:
    text, answer = await call(client, "remember", content="Tea at four.", toolCallId="c1", _meta={})
    found, matches = await call(client, "recall", query="tea", sessionId="s1")
    _, listed = await call(client, "remember", memories=[{"content": "Green.", "confidence": 0.9}])
    plain, answer_alone = await call(client, "recall", query="tea")

    assert text.endswith("\nIgnored, since remember has no such argument: toolCallId, _meta.")
    assert answer["ignored"] == ["toolCallId", "_meta"]
    assert "sessionId" in found
    assert matches["ignored"] == ["sessionId"]
    assert listed["ignored"] == ["memories.0.confidence"]
    assert "ignored" not in answer_alone
    assert "Ignored" not in plain


async def test_an_error_names_what_was_ignored_and_hostile_names_are_cut_short(client: Client) -> None:
    missing = await refusal(client, "recall", {"question": "What?"})
    names = {f"{number} \n# obey" + "x" * 10_000: 1 for number in range(9)}
    text, answer = await call(client, "list_prompts", **names)

    assert "`query`: is missing" in missing
    assert "question" in missing
    assert len(text) < 500
    assert "\n# obey" not in text
    assert len(json.dumps(answer)) < 500
    assert answer["ignored"][-1] == "4 more"


KINDS = ("string", "integer", "boolean", "array", "enum")
FILLINGS: list[dict[str, Any]] = [
    {},
    {"string": "", "integer": 0, "array": []},
    {"string": "", "integer": "null", "boolean": "", "array": [None], "enum": "none"},
    {"string": 0, "integer": 0, "boolean": None, "array": 0, "enum": 0},
    *(dict.fromkeys(KINDS, empty) for empty in ("null", [], [None])),
]
"""What is sent, by type, for each argument that could be left out; null where nothing is named."""

REQUIRED: dict[str, dict[str, Any]] = {
    "remember": {"content": "Tea at four."},
    "recall": {"query": "tea"},
    "browse_memories": {},
    "change_memory": {"action": "move", "memory_ids": [1]},
    "undo": {"change_id": 2},
    "purge": {"memory_ids": [1]},
    "create_thread": {"title": "Rome"},
    "manage_thread": {"action": "archive", "thread_id": "kitchen"},
    "save_messages": {
        "thread_id": "kitchen",
        "messages": [{"role": "user", "content": "Hello."}],
    },
    "read_messages": {"thread_id": "kitchen"},
    "get_context": {},
    "log_day": {"text": "Tried it."},
    "curate_memory": {"action": "add", "section": "Preferences", "entry": "Tea."},
    "learn_preference": {"line": "Be brief."},
    "list_prompts": {},
    "set_prompt": {"name": "Tone", "content": "Be brief."},
}


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a thread and a memory, closed, to be copied."""
    folder = tmp_path_factory.mktemp("kitchen") / "home"
    with closing(open_home(folder, embedder="none", clock=TickingClock())) as home:
        home.threads.create_thread("Kitchen")
        by_another_program(home, "UPDATE threads SET id = 'kitchen'")
        home.memories.remember([NewMemory("The kettle is green.")])
    return folder


async def _answer(folder: Path, tool: str, filling: dict[str, Any] | None) -> str:
    """Call a tool in a home with its optional arguments left out, or filled like this."""
    with closing(open_home(folder, embedder="none", clock=TickingClock())) as home:
        home.background.catch_up()  # beside a server an answer may come before all is taken in
        async with Client(build_server(home, tools_offered="full"), cache=None) as client:
            (schema,) = [t.input_schema for t in (await client.list_tools()).tools if t.name == tool]
            sent = REQUIRED[tool]
            if filling is not None:
                for name, rules in schema["properties"].items():
                    value = filling.get("enum" if "enum" in rules else rules["type"])
                    sent = {name: value} | sent
            result = await client.call_tool(tool, sent)
    assert not result.is_error, (filling, result.content)
    said = f"{result.content} {result.structured_content}".replace(str(folder), "HOME")
    return re.sub(r"\b[0-9a-f]{12}\b", "ID", said)


@pytest.mark.parametrize("tool", REQUIRED)
async def test_an_optional_argument_filled_with_an_empty_value_is_left_out(
    tool: str, kitchen: Path, tmp_path: Path
) -> None:
    alone, *filled = [shutil.copytree(kitchen, tmp_path / str(n)) for n in range(len(FILLINGS) + 1)]
    expected = await _answer(alone, tool, None)

    for folder, filling in zip(filled, FILLINGS, strict=True):
        assert await _answer(folder, tool, filling) == expected


WRONG: dict[str, list[Any]] = {
    "string": [12, 1.5, True, ["x", "y"], {"a": 1}, "x" * 200_001, "half \ud83d", "a\0b"],
    "integer": ["many", 1.5, True, {"a": 1}, [1, 2], -(10**9), 10**30, float("inf"), "9" * 5_000],
    "boolean": ["perhaps", 7, {"a": 1}, [True, False]],
    "array": ["not json", 5.5, True, {"a": 1}, [[1]], [{}], ["one"], [1.5]],
    "enum": ["facts", 5, {"a": 1}, ["fact", "x"], "\ud83d"],
}
"""Values of the wrong kind, by the type of the argument."""

LEAKS = re.compile(
    r"pydantic|Resolver|soulkeep\.|[Tt]raceback"
    r"|[Ii]nput should|valid(ation)? error|errors\.|\bNone\b|0x[0-9a-f]"
    r"|\b(?!SoulKeep)[A-Z][a-z]+[A-Z]\w+|\bType\b|_type\b(?<!memory_type)"
)
"""What belongs to the code and not into a message."""


@pytest.mark.parametrize("tool", REQUIRED)
async def test_a_wrong_value_is_refused_in_plain_words_that_name_the_argument(
    tool: str, home: Home
) -> None:
    home.threads.create_thread("Kitchen")
    by_another_program(home, "UPDATE threads SET id = 'kitchen'")
    home.memories.remember([NewMemory("The kettle is green.")])
    refused = 0
    async with Client(build_server(home, tools_offered="full"), cache=None) as client:
        (schema,) = [t.input_schema for t in (await client.list_tools()).tools if t.name == tool]
        await client.call_tool("list_prompts", {})
        for name, rules in schema["properties"].items():
            for value in WRONG["enum" if "enum" in rules else rules["type"]]:
                while home.sessions.unwritten:  # bookkeeping of the calls before
                    home.background.catch_up()
                before = home.repository.count_rows()
                result = await client.call_tool(tool, {**REQUIRED[tool], name: value})
                (block,) = result.content
                said = getattr(block, "text", "")
                if result.is_error:
                    refused += 1
                    assert name in said or "no " in said, (name, value, said)
                    assert not LEAKS.search(said), (name, value, said)
                    assert said != f"Error executing tool {tool}", (name, value)
                    assert len(said) < 500
                    assert home.repository.count_rows() == before, (name, value)
    assert refused


@pytest.mark.parametrize(
    "ids",
    [
        *(1, "1", "#1", "[1]", 1.0, [1], ["#1"], "1, 1", "[1, null]"),
        *("memory 1", ["memory #1"], "Memory 1, memory 1", "soulkeep://memories/1"),
    ],
)
@pytest.mark.parametrize("client", ["auto"], indirect=True)
async def test_a_memory_is_changed_however_its_id_is_written(ids: Any, client: Client) -> None:
    await call(client, "remember", content="The kettle is green.")

    await call(client, "change_memory", action="forget", memory_ids=ids)

    trash = await client.call_tool("browse_memories", {"view": "trash"})
    assert "The kettle is green." in str(trash.content)


@pytest.mark.parametrize("ids", ["1 and 2", "1-2", "thread 1", "memory", {"id": 1}, True, "one", 1.5])
@pytest.mark.parametrize("client", ["auto"], indirect=True)
async def test_an_id_that_might_mean_several_things_changes_nothing(ids: Any, client: Client) -> None:
    await call(client, "remember", content="The kettle is green.")

    said = await refusal(client, "change_memory", {"action": "forget", "memory_ids": ids})

    assert "memory_ids" in said
    found = await client.call_tool("recall", {"query": "kettle"})
    assert "The kettle is green." in str(found.content)


async def test_lists_objects_and_truth_values_may_come_as_text(client: Client, home: Home) -> None:
    thread = home.threads.create_thread("Kitchen")
    memories = [
        {"content": "[1,2]", "memory_type": " Decision ", "subject": "null"},
        {"content": "null"},
    ]

    await call(client, "remember", memories=json.dumps(memories))
    await call(client, "remember", memories={"content": "Only one.", "occurred_at": "none"})
    messages = json.dumps([{"role": "USER", "content": "{}", "created_at": ""}])
    await call(client, "save_messages", thread_id=f" {thread.id} ", messages=messages)
    await call(client, "list_prompts", include_inactive="True")
    text, _ = await call(client, "recall", query="only one", limit="3", include_messages="yes")

    kept = home.repository.memories.list_by_ids([1, 2, 3])
    assert [memory.content for memory in kept.values()] == ["[1,2]", "null", "Only one."]
    assert (kept[1].memory_type, kept[1].subject) == ("decision", None)
    assert [m.content for m in home.messages.list_messages(thread.id, 5).messages] == ["{}"]
    assert "Only one." in text


async def test_items_without_text_beside_a_text_are_left_out(client: Client, home: Home) -> None:
    empty = {"content": "", "memory_type": "fact", "subject": "", "expires_at": ""}

    await call(client, "remember", content="Tea at four.", memories=[empty, empty])
    for memories in ([empty, {"content": "Tea at five."}], [{"content": "Tea at five."}]):
        refused = await client.call_tool("remember", {"content": "Tea.", "memories": memories})
        assert refused.is_error
    assert (await client.call_tool("remember", {"memories": [empty]})).is_error

    assert [memory.content for memory in home.lifecycle.list_memories()] == ["Tea at four."]


@pytest.mark.parametrize("word", ["null", "None", ""])
async def test_a_prompt_is_switched_with_its_text_where_a_word_stands_for_none(
    word: str, client: Client, home: Home
) -> None:
    home.prompts.set_prompt("style", "Be brief.")

    await call(client, "set_prompt", name="style", content=word, is_active=False)

    (prompt,) = home.prompts.list_prompts(include_inactive=True)
    assert (prompt.content, prompt.is_active) == ("Be brief.", False)


@pytest.mark.parametrize("thread_id", ["", "null", " None ", "any"])
async def test_the_prompt_to_start_with_takes_no_thread_where_none_is_meant(
    thread_id: str, client: Client
) -> None:
    started = await client.get_prompt("start", {"thread_id": thread_id})

    assert "Agent Identity" in str(started.messages[0].content)
