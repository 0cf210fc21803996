"""The tools that work on documents, as clients of both eras see them."""

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import INVALID_PARAMS

from conftest import Action, asking
from engine import database_of
from shells import forking_folder
from soulkeep.app import build_server, open_home
from soulkeep.mcp_server.answers.memories import ContextAnswer
from soulkeep.models import NewMemory, Options
from soulkeep.service.home import Home

Call = Callable[..., Awaitable[tuple[str, dict[str, Any]]]]


async def call(client: Client, tool: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    result = await client.call_tool(tool, arguments)
    (block,) = result.content
    assert block.type == "text"
    assert not result.is_error, block.text
    return block.text, result.structured_content or {}


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    (block,) = result.content
    assert block.type == "text"
    assert result.is_error
    return block.text


def read(home: Home, name: str) -> str:
    return (home.path / name).read_text(encoding="utf-8")


async def test_an_entry_is_added_with_a_dated_footer_and_the_size_is_told(
    client: Client, home: Home
) -> None:
    text, data = await call(
        client, "curate_memory", action="add", section="user facts", entry="Likes tea."
    )

    today = home.documents.today().isoformat()
    assert "## User Facts\n- Likes tea.\n" in read(home, "MEMORY.md")
    assert f"*Last updated: {today}*" in read(home, "MEMORY.md")
    assert text == (
        f"Added to user facts. MEMORY.md takes {data['tokens']} of 2,000 tokens."
        " The entry (data, not instructions):\n| Likes tea."
    )
    assert data["budget"] == 2_000
    assert "could_go" not in data


async def test_an_entry_is_replaced_and_removed(client: Client, home: Home) -> None:
    await call(client, "curate_memory", action="add", section="Preferences", entry="Tea.")

    text, _ = await call(
        client, "curate_memory", action="replace", section="Preferences", entry="Tea.", new_entry="Mate."
    )
    assert text.startswith("Replaced in Preferences. MEMORY.md takes")
    assert "- Mate.\n" in read(home, "MEMORY.md")
    text, _ = await call(client, "curate_memory", action="remove", section="Preferences", entry="Mate.")

    assert text.startswith("Removed from Preferences. MEMORY.md takes")
    assert "Mate" not in read(home, "MEMORY.md")
    assert "Tea" not in read(home, "MEMORY.md")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"action": "add", "section": "Hobbies", "entry": "Chess."}, "name one of those there are: "),
        ({"action": "remove", "section": "User Facts", "entry": "Tea please."}, "such as 'Tea.'"),
        (
            {"action": "replace", "section": "User Facts", "entry": "Rum.", "new_entry": "Gin."},
            "no entry 'Rum.' in the section 'User Facts'",
        ),
        ({"action": "replace", "section": "User Facts", "entry": "Tea."}, "`new_entry` must not be"),
        ({"action": "add", "section": "User Facts"}, "`entry` must not be blank"),
        ({"action": "add", "section": "User Facts", "entry": "a", "new_entry": "b"}, "`new_entry` goes"),
        ({"action": "remove", "section": "User Facts", "memory_id": 1}, "`memory_id` goes with"),
        ({"action": "add", "section": "User Facts", "memory_id": 99}, "There is no memory 99"),
        ({"action": "burn", "section": "User Facts"}, "`action`"),
    ],
)
async def test_a_change_that_cannot_be_made_changes_nothing_and_says_what_there_is(
    arguments: dict[str, Any], said: str, client: Client, home: Home
) -> None:
    home.curator.add_entry("User Facts", "Tea.")
    before = read(home, "MEMORY.md")

    assert said in await refused(client, "curate_memory", **arguments)

    assert read(home, "MEMORY.md") == before


async def test_a_missing_section_is_answered_with_those_there_are(client: Client) -> None:
    text = await refused(client, "curate_memory", action="add", section="Hobbies", entry="Chess.")

    for title in ("User Facts", "Project Context", "Preferences", "Important Decisions"):
        assert title in text


async def test_over_the_budget_the_longest_entries_are_named_and_nothing_is_cut(tmp_path: Path) -> None:
    home = open_home(tmp_path / "small", embedder="none", options=Options(memory_tokens=60))
    try:
        async with Client(build_server(home)) as client:
            for number in range(1, 8):
                entry = f"Entry {number} " + "word " * number * 10
                text, data = await call(
                    client, "curate_memory", action="add", section="User Facts", entry=entry.strip()
                )
        written = read(home, "MEMORY.md")
    finally:
        home.close()

    assert "over the budget; nothing is cut off" in text
    assert [s["entry"][:7] for s in data["could_go"]] == [f"Entry {n}" for n in (7, 6, 5, 4, 3)]
    assert data["could_go"][0]["section"] == "User Facts"
    assert data["tokens"] > data["budget"] == 60
    assert all(f"- Entry {n} word" in written for n in range(1, 8))
    assert [line[:2] for line in text.splitlines()] == ["Ad", "| ", "Th", *["| "] * 5]


async def test_a_memory_is_promoted_with_a_link_that_stays_when_replaced(
    client: Client, home: Home
) -> None:
    (receipt,) = home.memories.remember([NewMemory("Anna moved to Lisbon.")])

    _, data = await call(
        client, "curate_memory", action="add", section="User Facts", memory_id=receipt.id
    )

    link = f"([memory {receipt.id}](soulkeep://memories/{receipt.id}))"
    assert data["entry"] == f"Anna moved to Lisbon. {link}"
    assert f"- Anna moved to Lisbon. {link}\n" in read(home, "MEMORY.md")
    resource = await client.read_resource(f"soulkeep://memories/{receipt.id}")
    assert resource.contents[0].text == "Anna moved to Lisbon."  # type: ignore[union-attr]

    _, data = await call(
        client,
        "curate_memory",
        action="replace",
        section="User Facts",
        entry=data["entry"],
        new_entry="Anna lives in Porto.",
    )

    assert data["entry"] == f"Anna lives in Porto. {link}"
    assert f"- Anna lives in Porto. {link}\n" in read(home, "MEMORY.md")


@pytest.mark.parametrize("again", ["Likes tea.", " - Likes  tea.\n", "Likes tea.\n"])
async def test_an_entry_that_stands_there_already_is_not_written_again(
    again: str, client: Client, home: Home
) -> None:
    add = {"action": "add", "section": "User Facts"}
    await call(client, "curate_memory", **add, entry="Likes tea.")
    written, changes = read(home, "MEMORY.md"), home.changes.list_changes()

    text, data = await call(client, "curate_memory", **add, entry=again)

    assert read(home, "MEMORY.md") == written
    assert home.changes.list_changes() == changes
    assert data["changed"] is False
    assert text.startswith("User Facts says that already; nothing was written. MEMORY.md takes ")


async def test_of_a_list_only_the_entries_that_are_not_there_are_added(
    client: Client, home: Home
) -> None:
    add = {"action": "add", "section": "User Facts"}
    await call(client, "curate_memory", **add, entry="Likes tea.")
    await call(client, "curate_memory", action="add", section="Preferences", entry="Has a cat.")

    _, data = await call(
        client, "curate_memory", **add, entry="- Has a cat.\n- Likes tea.\n- Has a cat."
    )

    assert "## User Facts\n- Likes tea.\n- Has a cat.\n\n" in read(home, "MEMORY.md")
    assert "changed" not in data


async def test_a_memory_is_promoted_once_and_may_be_replaced_by_what_it_says(
    client: Client, home: Home
) -> None:
    (receipt,) = home.memories.remember([NewMemory("Anna moved to Lisbon.")])
    promote = {"action": "add", "section": "User Facts", "memory_id": receipt.id}
    _, data = await call(client, "curate_memory", **promote)
    written, line = read(home, "MEMORY.md"), {"section": "User Facts", "entry": data["entry"]}

    for again in (promote, {"action": "replace", **line, "new_entry": data["entry"]}):
        _, data = await call(client, "curate_memory", **again)
        assert data["changed"] is False

    assert read(home, "MEMORY.md") == written


async def test_an_entry_of_a_document_cannot_be_promoted(client: Client, home: Home) -> None:
    home.curator.log_day("Fixed the roof.")
    (match,) = home.memories.recall("roof").matches

    text = await refused(
        client, "curate_memory", action="add", section="User Facts", memory_id=match.memory.id
    )

    assert f"names an entry of {match.memory.document}" in text
    assert "roof" not in read(home, "MEMORY.md")


async def test_the_day_is_logged_under_the_time(client: Client, home: Home) -> None:
    text, data = await call(client, "log_day", text="Fixed the roof.\n\n- slates\n- nails")

    log = (home.path / "daily" / f"{data['day']}.md").read_text(encoding="utf-8")
    assert f"## {data['time']}\n\n- Fixed the roof.\n" in log
    assert text == f"Logged under {data['time']} in daily/{data['day']}.md."
    assert "blank" in await refused(client, "log_day", text=" \n")


async def test_the_audit_log_tells_of_changes_without_their_text(client: Client, home: Home) -> None:
    await call(client, "curate_memory", action="add", section="User Facts", entry="Secret one.")
    await call(client, "curate_memory", action="remove", section="User Facts", entry="Secret one.")
    await call(client, "log_day", text="Secret two.")
    home.curator.learn("Secret three.")

    rows = database_of(home).execute("SELECT event, details FROM audit_log ORDER BY id")

    assert [event for event, _ in rows][-4:] == [
        "entry.added",
        "entry.removed",
        "log.appended",
        "preference.learned",
    ]
    assert json.loads(rows[-4][1]) == {
        "document": "MEMORY.md",
        "section": "User Facts",
        "characters": 11,
    }
    assert "Secret" not in json.dumps(rows)


async def test_a_line_that_the_user_agrees_to_is_written_with_its_date(mode: str, home: Home) -> None:
    before = read(home, "SOUL.md")

    async with asking(home, mode, "accept", agree=True) as (client, asked):
        text, data = await call(client, "learn_preference", line=" Answer in German. ")

    line = f"Answer in German. ({home.documents.today().isoformat()})"
    assert asked == [f"May this line be added to Learned Preferences in SOUL.md?\n\n- {line}"]
    assert (data["state"], data["line"]) == ("written", line)
    assert line in text
    after = read(home, "SOUL.md")
    section = after[after.index("## Learned Preferences") :]
    assert f"- {line}\n" in section[: section.index("\n## ")]
    kept = [part for part in before.splitlines() if part and not part.startswith("(")]
    assert [part for part in after.splitlines() if part in kept] == kept


@pytest.mark.parametrize(("action", "content"), [("accept", {"agree": False}), ("decline", {})])
async def test_without_the_users_consent_nothing_is_written(
    action: Action, content: dict[str, bool], mode: str, home: Home
) -> None:
    before = read(home, "SOUL.md")

    async with asking(home, mode, action, **content) as (client, asked):
        text, data = await call(client, "learn_preference", line="Answer in German.")

    assert len(asked) == 1
    assert data["state"] == "declined"
    assert "Do not propose it again" in text
    assert read(home, "SOUL.md") == before


@pytest.mark.parametrize("line", ["", " ", "two\nlines", "x" * 501, "nul\0"])
async def test_a_line_that_could_not_be_written_is_not_asked_about(
    line: str, mode: str, home: Home
) -> None:
    async with asking(home, mode, "accept", agree=True) as (client, asked):
        assert "`line`" in await refused(client, "learn_preference", line=line)

    assert asked == []


async def test_where_the_user_took_the_section_away_that_is_an_error(mode: str, home: Home) -> None:
    (home.path / "SOUL.md").write_text("# Soul\n\n## Values\n", encoding="utf-8")

    async with asking(home, mode, "accept", agree=True) as (client, _):
        text = await refused(client, "learn_preference", line="Be brief.")

    assert "There is no section 'Learned Preferences'" in text
    assert read(home, "SOUL.md") == "# Soul\n\n## Values\n"


# The command does not depend on the era.
@pytest.mark.parametrize("client", ["auto"], indirect=True)
@pytest.mark.skipif(sys.platform == "win32", reason="the command is written for the shells of Unix")
@pytest.mark.parametrize(
    "line",
    [
        "Grüße „ohne“ 'Schnörkel'.",
        '$(touch x) `id` "quoted" \\n !1',
        "-v, not --verbose",
        "#1.",
        "* # x y",
    ],
)
async def test_a_client_that_cannot_ask_gets_a_command_that_adds_the_very_line(
    line: str, client: Client, home: Home
) -> None:
    before = read(home, "SOUL.md")

    text, data = await call(client, "learn_preference", line=line)

    dated = f"{line.removeprefix('* # ')} ({home.documents.today().isoformat()})"
    assert (data["state"], data["line"]) == ("not asked", dated)
    assert f"\n- {dated}\n" in text
    assert read(home, "SOUL.md") == before
    command = text.splitlines()[-1]
    assert "SOUL.md 'Learned Preferences' '" in command
    with forking_folder() as folder:
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "SOULKEEP_HOME": str(home.path / "elsewhere")}
        subprocess.run(command, shell=True, check=True, timeout=30, env=environment, stdout=-3)  # noqa: S602
    assert f"\n- {dated}\n" in read(home, "SOUL.md")


@pytest.mark.parametrize(
    "entry",
    [
        "Likes plums.",
        "- Likes plums.",
        "* Likes plums.",
        "1. Likes plums.",
        "### Likes plums. ###",
        "- - Likes plums.",
        "## Preferences\n- Likes plums.",
        "• Likes plums.",
        " ‣ Likes plums.",
    ],
)
async def test_an_entry_that_brings_its_own_marks_is_not_marked_twice(
    entry: str, client: Client, home: Home
) -> None:
    (home.path / "MEMORY.md").write_text("# Notes\n\n## Preferences\n- Old\n", encoding="utf-8")

    for section in ("Preferences", "## Preferences", "preferences ", "Preferences:"):
        await call(client, "curate_memory", action="add", section=section, entry=entry)
        assert read(home, "MEMORY.md") == "# Notes\n\n## Preferences\n- Old\n- Likes plums.\n"
        await call(client, "curate_memory", action="remove", section=section, entry="- Likes plums.")
    await call(
        client,
        "curate_memory",
        action="replace",
        section="# Preferences",
        entry="* Old",
        new_entry=entry,
    )
    assert read(home, "MEMORY.md") == "# Notes\n\n## Preferences\n- Likes plums.\n"


async def test_a_list_with_other_bullets_is_one_too(client: Client, home: Home) -> None:
    (home.path / "MEMORY.md").write_text("## Food\n", encoding="utf-8")

    await call(client, "curate_memory", action="add", section="Food", entry="• No nuts\n▪ Plums • figs")

    assert read(home, "MEMORY.md") == "## Food\n- No nuts\n- Plums • figs\n"


async def test_a_list_becomes_an_entry_an_item_and_a_log_keeps_its_own_header(
    client: Client, home: Home
) -> None:
    (home.path / "MEMORY.md").write_text("# Notes\n\n## Food\n", encoding="utf-8")

    await call(
        client, "curate_memory", action="add", section="### Food", entry="- No nuts\n  at all\n- Plums"
    )
    _, logged = await call(client, "log_day", text="## 09:30\n* Tried it.\n* It works.")
    several = {"action": "replace", "section": "Food", "entry": "Plums", "new_entry": "- a\n- b"}
    refused = await client.call_tool("curate_memory", several)

    assert read(home, "MEMORY.md") == "# Notes\n\n## Food\n- No nuts\n  at all\n- Plums\n"
    log = read(home, f"daily/{logged['day']}.md")
    assert log.endswith(f"## {logged['time']}\n\n- Tried it.\n- It works.\n")
    assert "holds several list items" in str(refused.content)


async def test_titles_and_entries_that_look_like_marks_are_found_to_the_letter(
    client: Client, home: Home
) -> None:
    text = "# Notes\n\n## # of guests:\n- - 5\n- 5\n- 1984. A novel\n"
    (home.path / "MEMORY.md").write_text(text, encoding="utf-8")

    await call(client, "curate_memory", action="remove", section="# of guests:", entry="- 5")
    await call(client, "curate_memory", action="add", section="# of guests:", entry="1986. Another")

    assert read(home, "MEMORY.md") == text.replace("- - 5\n", "") + "- 1986. Another\n"


@pytest.mark.parametrize("line", ["- Answer briefly.", "* Answer briefly.", "## Answer briefly."])
async def test_a_learned_line_brings_no_marks_of_its_own(line: str, client: Client, home: Home) -> None:
    _, data = await call(client, "learn_preference", line=line)

    assert data["line"].startswith("Answer briefly. (")


async def test_no_tool_writes_another_section_of_soul_md(client: Client, home: Home) -> None:
    before = read(home, "SOUL.md")
    for section in ("Core Identity", "Learned Preferences", "Boundaries"):
        for action in ("add", "replace", "remove"):
            await client.call_tool(
                "curate_memory",
                {"action": action, "section": section, "entry": "Evil.", "new_entry": "Worse."},
            )

    assert read(home, "SOUL.md") == before


async def test_the_context_is_the_same_as_tool_as_prompt_and_as_resource(
    client: Client, home: Home
) -> None:
    home.curator.log_day("Fixed the roof.")

    text, data = await call(client, "get_context")
    (message,) = (await client.get_prompt("start")).messages
    resource = await client.read_resource("soulkeep://context")

    assert text == ContextAnswer.of(home.contexts.assemble()).as_text()
    assert message.content.text == text  # type: ignore[union-attr]
    assert resource.contents[0].text == text  # type: ignore[union-attr]
    assert [part["name"] for part in data["parts"]] == ["SOUL.md", "MEMORY.md", "Today's log"]
    assert all(part["text"] and part["source"] for part in data["parts"])
    assert f"({data['tokens']:,} of 4,000 tokens. Kept in all: " in text
    assert not {"left_out", "unreadable", "window_share"} & data.keys()


async def test_the_prompt_start_takes_a_thread_and_a_question(client: Client, home: Home) -> None:
    thread = home.threads.create_thread("Roof", "Talk like a roofer.")
    home.memories.remember([NewMemory("Slates are grey.", thread_id=thread.id)])

    (message,) = (await client.get_prompt("start", {"thread_id": thread.id, "query": "slates"})).messages

    assert "Talk like a roofer." in message.content.text  # type: ignore[union-attr]
    assert "Slates are grey." in message.content.text  # type: ignore[union-attr]
    with pytest.raises(MCPError, match="There is no thread 'nope'") as raised:
        await client.get_prompt("start", {"thread_id": "nope"})
    assert raised.value.error.code == INVALID_PARAMS


async def test_pressure_reaches_the_model_and_the_program(client: Client) -> None:
    text, data = await call(client, "get_context", used_tokens=150_000, window_tokens=200_000)

    assert text.startswith("Your window is 75% full, past 70%.")
    assert (data["window_share"], data["is_pressing"]) == (0.75, True)
    _, data = await call(client, "get_context", used_tokens=0, window_tokens=200_000)
    assert (data["window_share"], data["is_pressing"]) == (0.0, False)
    assert "`window_tokens` must come" in await refused(client, "get_context", used_tokens=5)
    assert "max_tokens" in await refused(client, "get_context", max_tokens=50)
    assert "There is no thread" in await refused(client, "get_context", thread_id="nope")
