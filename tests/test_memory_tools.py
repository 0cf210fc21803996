"""The tools that look through memories, change them and undo changes, in both protocol eras."""

from typing import Any

import pytest
from mcp import Client

from soulkeep.service.home import Home


async def call(client: Client, tool: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.content[0].text, result.structured_content or {}  # type: ignore[union-attr]


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return result.content[0].text  # type: ignore[union-attr]


async def test_a_memory_is_revised_and_its_history_shown(client: Client) -> None:
    await call(client, "remember", content="The cat is called Miso.")

    text, answer = await call(
        client, "change_memory", action="revise", memory_ids=[1], content="The cat is called Momo."
    )

    assert text.startswith("Revised #2 by change 2. #1 is now #2.")
    assert answer["notes"] == ["#1 is now #2."]
    assert "| #2 2026-03-01 12:00 fact: The cat is called Momo." in text
    assert answer["memories"][0]["content"] == "The cat is called Momo."
    text, answer = await call(client, "browse_memories", view="history", memory_id=2)
    assert "| #1 2026-03-01 12:00 fact, until change 2, replaced by #2: The cat is called Miso." in text
    assert [item["id"] for item in answer["items"]] == [2, 1]
    assert answer["items"][1]["replaced_by"] == 2
    assert "next" not in answer


async def test_a_memory_that_replaces_others_says_so(client: Client) -> None:
    for number in range(2):
        await call(client, "remember", content=f"Draft {number}.")

    text, answer = await call(client, "remember", content="The plan.", replaces=[1, 2])

    assert text.startswith("Stored as #3 (fact, global) in place of #1, #2.")
    assert answer["receipts"][0]["replaced"] == [1, 2]


async def test_what_was_forgotten_is_in_the_trash_until_it_is_restored(client: Client) -> None:
    await call(client, "remember", content="The cat is called Miso.")

    text, _ = await call(client, "change_memory", action="forget", memory_ids=[1])
    assert text.startswith("Forgot #1 by change 2. Restore them with action=restore.")
    assert (await call(client, "recall", query="cat"))[1]["matches"] == []
    assert (await call(client, "browse_memories", view="trash"))[1]["items"][0]["id"] == 1

    await call(client, "change_memory", action="restore", memory_ids=[1])
    assert len((await call(client, "recall", query="cat"))[1]["matches"]) == 1
    assert (await call(client, "browse_memories", view="trash"))[0] == "Nothing to list: trash."


async def test_memories_are_moved_and_listed_by_thread_in_pages(client: Client, home: Home) -> None:
    thread = home.threads.create_thread("Work").id
    await call(client, "remember", memories=[{"content": f"Note {n}."} for n in range(5)])

    await call(client, "change_memory", action="move", memory_ids=[1, 2], thread_id=thread)

    assert home.lifecycle.get_memory(1).thread_id == thread
    text, page = await call(client, "browse_memories", limit=3)
    assert [item["id"] for item in page["items"]] == [5, 4, 3]
    assert text.endswith("More with below=3.")
    _, page = await call(client, "browse_memories", limit=3, below=page["next"])
    assert [(item["id"], item["thread_id"]) for item in page["items"]] == [(2, thread), (1, thread)]


async def test_a_change_is_undone_alone_and_all_since_a_moment(client: Client, home: Home) -> None:
    await call(client, "remember", content="The cat is called Miso.")
    await call(client, "change_memory", action="forget", memory_ids=[1])
    _, changes = await call(client, "browse_memories", view="changes")
    assert [(item["change_id"], item["content"]) for item in changes["items"]] == [
        (2, '#1 "The cat is called Miso." removed'),
        (1, '#1 "The cat is called Miso." added'),
    ]

    text, answer = await call(client, "undo", change_id=2)

    assert "Undoing change 3 does it again." in text
    assert 'memory.forgotten by mcp: #1 "The cat is called Miso." removed' in text
    assert (answer["by"], [item["change_id"] for item in answer["undone"]]) == (3, [2])
    _, answer = await call(client, "undo", since="2020-01-01")
    assert [item["change_id"] for item in answer["undone"]] == [3, 2, 1]
    assert home.lifecycle.list_memories() == []
    assert home.check() == []


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("undo", {}, "must be given, and not both"),
        ("undo", {"change_id": 1, "since": "2020-01-01"}, "must be given, and not both"),
        ("undo", {"change_id": 99}, "no change 99"),
        ("undo", {"since": "soon"}, "must be a date"),
        ("change_memory", {"action": "forget", "memory_ids": [99]}, "no memory 99"),
        ("change_memory", {"action": "forget", "memory_ids": []}, "must hold 1 to"),
        (
            "change_memory",
            {"action": "revise", "memory_ids": [1, 2], "content": "x"},
            "one id to revise",
        ),
        ("change_memory", {"action": "revise", "memory_ids": [1]}, "another field must be given"),
        ("change_memory", {"action": "forget", "memory_ids": [1], "content": "x"}, "action=revise"),
        ("change_memory", {"action": "forget", "memory_ids": [1], "thread_id": "x"}, "action=move"),
        ("change_memory", {"action": "move", "memory_ids": [1], "thread_id": "x"}, "no thread 'x'"),
        ("change_memory", {"action": "restore", "memory_ids": [1]}, "no memory 1"),
        ("browse_memories", {"view": "trash", "subject": "x"}, "view=memories"),
        ("browse_memories", {"view": "history", "memory_id": 99}, "no memory 99"),
        ("browse_memories", {"view": "history"}, "`memory_id` must say whose history"),
        *(
            ("browse_memories", {"view": view, "memory_id": 1}, f"view=history, not with {view}")
            for view in ("memories", "trash", "changes")
        ),
        ("browse_memories", {"memory_type": "idea"}, "must be one of"),
        ("remember", {"content": "x", "expires_at": "soon"}, "must be a date"),
        ("remember", {"content": "x", "replaces": [99]}, "no memory 99"),
    ],
)
@pytest.mark.parametrize("client", ["auto"], indirect=True)
async def test_a_wrong_call_is_told_what_to_do_and_changes_nothing(
    client: Client, home: Home, tool: str, arguments: dict[str, Any], told: str
) -> None:
    await call(client, "remember", content="Here to stay.")

    assert told in await refused(client, tool, **arguments)

    assert [memory.content for memory in home.lifecycle.list_memories()] == ["Here to stay."]
    assert len(home.changes.list_changes()) == 1


async def test_no_tool_takes_back_a_change_of_soul_md(client: Client, home: Home) -> None:
    home.curator.learn("Be brief.")
    before = (home.path / "SOUL.md").read_text(encoding="utf-8")
    (change,) = home.changes.list_changes()

    for arguments in ({"change_id": change.id}, {"since": "2020-01-01"}):
        result = await client.call_tool("undo", arguments)
        (block,) = result.content
        assert result.is_error
        assert block.type == "text"
        assert "only the user undoes it: soulkeep undo" in block.text

    assert (home.path / "SOUL.md").read_text(encoding="utf-8") == before
    home.changes.undo(change.id)
    assert "Be brief." not in (home.path / "SOUL.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("client", ["auto"], indirect=True)
async def test_global_is_no_thread_and_never_is_no_expiry(client: Client, home: Home) -> None:
    thread = home.threads.create_thread("Kitchen").id
    item = {"content": "The sink is deep.", "thread_id": "Global", "expires_at": "Never"}

    _, stored = await call(
        client, "remember", content="The kettle is green.", thread_id="global", expires_at="never"
    )
    await call(client, "remember", memories=[item])
    await call(client, "change_memory", action="move", memory_ids=[1, 2], thread_id=thread)
    _, moved = await call(client, "change_memory", action="move", memory_ids=[1, 2], thread_id="global")

    assert not {"thread_id", "expires_at"} & stored["receipts"][0].keys()
    assert moved["ids"] == "1-2"
    kept = home.lifecycle.list_memories()
    assert [(memory.thread_id, memory.expires_at) for memory in kept] == [(None, None)] * 2


@pytest.mark.parametrize("client", ["auto"], indirect=True)
async def test_the_last_page_says_that_there_are_no_more(client: Client) -> None:
    for number in range(1, 5):
        await call(client, "remember", content=f"{number} kettles.", replaces=[1] if number == 4 else [])
    await call(client, "change_memory", action="forget", memory_ids=[2, 3])
    counts = {"memories": 1, "trash": 3, "changes": 5, "history": 1}  # history: and the present one

    for view, count in counts.items():
        about = {"view": view, "memory_id": 1 if view == "history" else 0}
        text, last = await call(client, "browse_memories", limit=count, **about)
        assert "next" not in last, view
        assert "More with" not in text, view
        if count > 1:
            _, first = await call(client, "browse_memories", limit=count - 1, **about)
            _, rest = await call(client, "browse_memories", below=first["next"], **about)
            assert [*first["items"], *rest["items"]] == last["items"]
