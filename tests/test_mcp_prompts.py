"""The user's global prompts as MCP prompts, completions, and the tool that changes them."""

import json
import re
import sqlite3
from contextlib import closing
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client, MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    Completion,
    Prompt,
    PromptReference,
    ResourceTemplateReference,
)

from conftest import asking
from soulkeep.models import GlobalPrompt, NewMemory
from soulkeep.service.home import Home
from soulkeep.service.prompts import RESERVED_NAMES, offer_prompts
from soulkeep.wording import fill_placeholders, list_placeholders


async def offered(client: Client) -> dict[str, Prompt]:
    """Return the prompts of the user's that a client sees."""
    prompts = (await client.list_prompts()).prompts
    return {prompt.name: prompt for prompt in prompts if prompt.name != "start"}


async def filled(client: Client, prompt: str, /, **arguments: str) -> str:
    (message,) = (await client.get_prompt(prompt, arguments)).messages
    assert message.role == "user"
    assert message.content.type == "text"
    return message.content.text


async def refused(client: Client, name: str, arguments: dict[str, str] | None = None) -> str:
    with pytest.raises(MCPError) as raised:
        await client.get_prompt(name, arguments)
    assert raised.value.error.code == INVALID_PARAMS
    return raised.value.error.message


async def set_prompt(client: Client, **arguments: Any) -> tuple[str, dict[str, Any]]:
    result = await client.call_tool("set_prompt", arguments)
    (block,) = result.content
    assert block.type == "text"
    return block.text, result.structured_content or {}


async def completed(client: Client, argument: str, typed: str, of: str = "") -> Completion:
    """Complete an argument of a resource template, or of a prompt: the user's `work`, or `start`."""
    ref = ResourceTemplateReference(uri=of) if "{" in of else PromptReference(name=of or "work")
    return (await client.complete(ref, {"name": argument, "value": typed})).completion


async def test_each_active_prompt_is_listed_with_its_placeholders_as_arguments(
    client: Client, home: Home
) -> None:
    home.prompts.add_prompt(
        "Be brief!", "\n  Answer {{ language }} questions\nabout {{topic}}, {{language}}."
    )
    home.prompts.add_prompt("First", "Ask.", priority=5)
    off = home.prompts.add_prompt("Old", "Forget this.")
    home.prompts.change_prompt(off.id, is_active=False)

    prompts = await offered(client)

    assert list(prompts) == ["first", "be-brief"]
    brief = prompts["be-brief"]
    assert (brief.title, brief.description) == ("Be brief!", "Answer {{ language }} questions")
    assert [(a.name, a.required) for a in brief.arguments or ()] == [("language", True), ("topic", True)]
    assert prompts["first"].arguments == []


async def test_a_prompt_is_filled_in_as_one_message_of_the_users(client: Client, home: Home) -> None:
    home.prompts.add_prompt("Letter", "Dear {{name}},\n{{ body }} {{name}}! {not} {{ 1 }}")

    text = await filled(client, "letter", name="{{body}} \\1", body="{{name}}")

    assert text == "Dear {{body}} \\1,\n{{name}} {{body}} \\1! {not} {{ 1 }}"


async def test_what_hides_in_a_prompt_is_shown(client: Client, home: Home) -> None:
    hidden = "\u202eevil\u202c \U000e0041\x1b[31m"
    home.prompts.add_prompt(f"Tone {hidden}", f"Be {hidden}\u2028brief, 👩‍👩‍👧 {{{{who}}}}.")

    (_, listed) = (await client.list_prompts()).prompts
    filled = await client.get_prompt(listed.name, {"who": hidden})

    (message,) = filled.messages
    assert message.content.type == "text"
    said = message.content.text
    for text in (listed.title, listed.description, filled.description, said):
        assert not set("\u202e\u202c\U000e0041\x1b\u2028") & set(text or "")
    assert said.startswith("Be \ufffdevil")
    assert "brief, 👩‍👩‍👧" in said


async def test_a_prompt_is_read_anew_at_each_request(client: Client, home: Home) -> None:
    prompt = home.prompts.add_prompt("Tone", "Be brief.")
    first = await filled(client, "tone")
    home.prompts.change_prompt(prompt.id, content="Be thorough.")

    assert (first, await filled(client, "tone")) == ("Be brief.", "Be thorough.")
    home.prompts.change_prompt(prompt.id, is_active=False)
    assert await offered(client) == {}
    assert "no prompt 'tone'" in await refused(client, "tone")


async def test_a_prompt_that_cannot_be_filled_in_says_what_to_send(client: Client, home: Home) -> None:
    home.prompts.add_prompt("Letter", "{{name}} {{body}}")
    home.prompts.add_prompt("Plain", "Nothing to fill in.")

    unknown = await refused(client, "leter")
    assert (
        unknown == "There is no prompt 'leter'; did you mean letter? prompts/list names what there is."
    )
    assert len(await refused(client, "x" * 5000)) < 200
    assert (await refused(client, "letter", {"name": "x"})).endswith("send the missing body as text.")
    assert (await refused(client, "letter")).endswith("send the missing name, body as text.")
    assert "no argument 'nam'; it takes name, body" in await refused(
        client, "letter", {"nam": "x", "name": "x", "body": "x"}
    )
    assert "send it without arguments" in await refused(client, "plain", {"x": "y"})


async def test_a_store_that_cannot_be_read_is_an_error_in_words(client: Client, home: Home) -> None:
    with closing(sqlite3.connect(home.path / "soulkeep.db")) as other:
        other.execute("ALTER TABLE global_prompts RENAME TO elsewhere")

    for request in (client.list_prompts, lambda: client.get_prompt("tone")):
        with pytest.raises(MCPError, match="run `soulkeep doctor --repair`") as raised:
            await request()
        assert raised.value.error.code == INTERNAL_ERROR


@pytest.mark.parametrize(
    ("name", "offered_as"),
    [
        ("Be brief!", "be-brief"),
        ("  Don't   SHOUT ", "dont-shout"),
        ("Überprüfe Straße & Øl", "uberprufe-strasse-ol"),
        ("\uff26ull \uff37idth", "full-width"),
        ("İstanbul \u0131ş\u0131k", "istanbul-isik"),
        ("Тон", "prompt-7"),
        ("簡潔に", "prompt-7"),
        ("Правило 2", "prompt-7"),
        ("!!!", "prompt-7"),
        ("日本 tone", "tone"),
        ("start", "start-7"),
        ("x" * 200, "x" * 48),
        ("x" * 47 + " y", "x" * 47),
    ],
)
def test_the_name_of_a_prompt_is_written_in_letters_that_every_client_takes(
    name: str, offered_as: str
) -> None:
    (offer,) = offer_prompts([GlobalPrompt(7, name, "Text", True, 0, "")])

    assert offer.name == offered_as


def test_of_prompts_with_one_name_the_oldest_keeps_it() -> None:
    names = ["Tone", "tone 3", "TONE!", "start", "prompt 6", "Тон"]
    prompts = [GlobalPrompt(i, name, "Text", True, i, "") for i, name in enumerate(names, 1)]

    by_id = {offer.prompt.id: offer.name for offer in offer_prompts(prompts[::-1])}
    without_the_first = {offer.prompt.id: offer.name for offer in offer_prompts(prompts[1:])}

    assert by_id == {
        1: "tone",
        2: "tone-3",
        3: "tone-3-3",
        4: "start-4",
        5: "prompt-6",
        6: "prompt-6-6",
    }
    assert without_the_first[3] == "tone"


@given(st.lists(st.tuples(st.text("abAB12-é日 ", max_size=6), st.booleans()), max_size=12))
def test_names_are_valid_and_unique_whatever_the_user_calls_the_prompts(
    given_prompts: list[tuple[str, bool]],
) -> None:
    prompts = [
        GlobalPrompt(i, name, "Text", active, 0, "") for i, (name, active) in enumerate(given_prompts, 1)
    ]

    names = [offer.name for offer in offer_prompts(prompts)]

    assert len(names) == len({*names}) == sum(active for _, active in given_prompts)
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)


async def test_no_prompt_of_the_users_takes_the_name_of_one_of_the_servers(
    client: Client, home: Home
) -> None:
    built_in = {prompt.name for prompt in (await client.list_prompts()).prompts}
    prompt = home.prompts.add_prompt("Start", "Begin with {{topic}}.")

    assert built_in == RESERVED_NAMES
    assert await filled(client, f"start-{prompt.id}", topic="tea") == "Begin with tea."
    assert "SOUL.md" in await filled(client, "start")
    assert "start has no argument 'topic'; it takes" in await refused(client, "start", {"topic": "tea"})


@pytest.mark.parametrize(
    ("content", "description"),
    [
        ("\n\n  First   line \nSecond", "First line"),
        ("x" * 120, "x" * 120),
        ("x" * 121, "x" * 119 + "…"),
        (" ", ""),
    ],
)
def test_the_description_of_a_prompt_is_its_first_line(content: str, description: str) -> None:
    (offer,) = offer_prompts([GlobalPrompt(1, "Tone", content, True, 0, "")])

    assert offer.description == description


def test_placeholders_are_names_in_double_braces() -> None:
    text = "{{b}} {{ a_1 }}{{\tc-d\t}} {{b}} {{1a}} {{a b}} {{}} {a} {{{e}}} {{f}\n} {{\ng}} {{é}}"

    assert list_placeholders(text) == ["b", "a_1", "c-d", "e"]
    assert fill_placeholders("{{a}} {{b}}", {"a": "x"}) == "x {{b}}"


@given(st.data())
def test_values_are_inserted_as_they_are_even_when_they_look_like_placeholders(
    data: st.DataObject,
) -> None:
    pieces = data.draw(st.lists(st.sampled_from(["text ", "{", "}", "\\", "{{a}}", "{{ b }}", "{{c}}"])))
    value = st.text("{}ab \\1", max_size=8) | st.sampled_from(["{{a}}", "{{b}}", "{{", "\\g<0>"])
    values = data.draw(st.fixed_dictionaries({"a": value, "b": value}))
    text = "".join(pieces)

    parts = re.split(r"(\{\{ ?[abc] ?\}\})", text)
    expected = "".join(
        values.get(part.strip("{} "), part) if n % 2 else part for n, part in enumerate(parts)
    )

    assert fill_placeholders(text, values) == expected
    names = list_placeholders(text)
    assert list_placeholders(fill_placeholders(text, dict.fromkeys(names, "-"))) == []


async def test_thread_ids_are_completed_from_titles_and_ids_latest_first(
    client: Client, home: Home
) -> None:
    home.prompts.add_prompt("work", "Go on with {{thread_id}}.")
    rome = home.threads.create_thread("Trip to ÄTHIOPIEN")
    paris = home.threads.create_thread("Äthiopien again")
    other = home.threads.create_thread("Taxes")

    found = await completed(client, "thread_id", "äthiop")
    assert (found.values, found.total, found.has_more) == ([paris.id, rome.id], 2, False)
    assert (await completed(client, "thread_id", other.id[2:9].upper())).values == [other.id]
    for of in ("start", "soulkeep://threads/{thread_id}"):
        found = await completed(client, "thread_id", "", of)
        assert found.values == [other.id, paris.id, rome.id]


async def test_at_most_a_hundred_values_are_completed_and_all_are_counted(
    client: Client, home: Home
) -> None:
    home.prompts.add_prompt("work", "{{thread_id}}")
    ids = [home.threads.create_thread(f"Thread {number}").id for number in range(101)]

    every = await completed(client, "thread_id", "")
    some = await completed(client, "thread_id", "thread 9")

    assert (every.values, every.total, every.has_more) == (ids[:0:-1], 101, True)
    assert (some.total, some.has_more) == (11, False)


async def test_dates_are_the_days_that_have_a_log_newest_first(client: Client, home: Home) -> None:
    for day in (date(2026, 2, 27), date(2026, 3, 1), date(2025, 3, 1)):
        (home.path / "daily" / f"{day}.md").write_text(f"# {day}\n", encoding="utf-8")
    uri = "soulkeep://daily/{date}"

    assert (await completed(client, "date", "", uri)).values == [
        "2026-03-01",
        "2026-02-27",
        "2025-03-01",
    ]
    assert (await completed(client, "date", "2026-03", uri)).values == ["2026-03-01"]


async def test_sections_and_memory_types_are_completed_for_the_users_prompts(
    client: Client, home: Home
) -> None:
    home.prompts.add_prompt("work", "{{section}} {{memory_type}} {{topic}}")
    document = home.path / "MEMORY.md"
    document.write_text(
        "## User Facts\n\n- One\n\n## Preferences\n\n```\n## None\n```\n", encoding="utf-8"
    )

    assert (await completed(client, "section", "")).values == ["User Facts", "Preferences"]
    assert (await completed(client, "section", "pref")).values == ["Preferences"]
    assert (await completed(client, "memory_type", "")).total == 4
    assert (await completed(client, "memory_type", "DEC")).values == ["decision"]
    assert (await completed(client, "topic", "")).values == []


async def test_ids_of_memories_are_completed_from_their_digits_and_words(
    client: Client, home: Home
) -> None:
    home.memories.remember([NewMemory(f"Note {number} about slates.") for number in range(11)])
    home.memories.remember([NewMemory("The roof is grey.")])
    uri = "soulkeep://memories/{memory_id}"

    assert (await completed(client, "memory_id", "1", uri)).values == ["12", "11", "10", "1"]
    assert (await completed(client, "memory_id", "grey roof", uri)).values == ["12"]
    assert (await completed(client, "memory_id", "", uri)).total == 12
    assert (await completed(client, "memory_id", "basement", uri)).values == []


async def test_only_the_arguments_of_what_is_referred_to_are_completed(
    client: Client, home: Home
) -> None:
    home.prompts.add_prompt("work", "{{section}}")
    home.threads.create_thread("Taxes")

    assert (await completed(client, "thread_id", "")).values == []
    assert (await completed(client, "date", "", "soulkeep://threads/{thread_id}")).values == []
    assert (await completed(client, "memory_id", "", "soulkeep://memories/{memory_id}")).values == []
    with pytest.raises(MCPError, match="no prompt 'nope'") as raised:
        await client.complete(PromptReference(name="nope"), {"name": "thread_id", "value": ""})
    assert raised.value.error.code == INVALID_PARAMS


async def test_a_document_that_cannot_be_read_makes_a_completion_say_so(
    client: Client, home: Home
) -> None:
    home.prompts.add_prompt("work", "{{section}}")
    (home.path / "MEMORY.md").write_bytes(b"\xff")

    with pytest.raises(MCPError, match="UTF-8"):
        await completed(client, "section", "")


async def test_the_user_has_a_prompt_created_changed_and_removed(mode: str, home: Home) -> None:
    async with asking(home, mode, "accept", agree=True) as (client, asked):
        await create_change_and_remove(client, home)

    assert [question.splitlines()[-1] for question in asked] == ["Two sentences.", "One sentence."]
    assert home.prompts.list_prompts(include_inactive=True) == []


async def create_change_and_remove(client: Client, home: Home) -> None:
    text, created = await set_prompt(client, name="Be brief!", content="Two sentences.", priority=3)
    assert text == "Created: Be brief! (prompt 1, priority 3). Clients offer it as be-brief."
    assert (created["outcome"], created["consent"]) == ("created", "agreed")
    assert "former_content" not in created
    assert created["prompt"]["mcp_name"] == "be-brief"

    text, changed = await set_prompt(client, name="be  BRIEF!", content="One sentence.")
    assert text.endswith("Its text was:\n| Two sentences.")
    assert (changed["outcome"], changed["former_content"]) == ("changed", "Two sentences.")
    assert changed["prompt"] == created["prompt"]

    text, off = await set_prompt(client, name="Be brief!", is_active=False)
    assert text == "Changed: Be brief! (prompt 1, priority 3, inactive)."
    assert off["prompt"]["is_active"] is False
    assert "mcp_name" not in off["prompt"]
    assert await offered(client) == {}

    text, removed = await set_prompt(client, name="Be brief!", remove=True)
    assert text.endswith("to set it again:\n| One sentence.")
    assert (removed["outcome"], removed["prompt"]["content"]) == ("removed", "One sentence.")


async def test_a_prompt_that_the_user_declines_has_no_id(mode: str, home: Home) -> None:
    async with asking(home, mode, "decline") as (client, _):
        result = await client.call_tool("set_prompt", {"name": "Tone", "content": "Be brief."})

    (text,) = [block.text for block in result.content if block.type == "text"]
    assert text.startswith("The user did not agree to Tone (priority 0,")
    assert "prompt 0" not in text
    assert home.prompts.list_prompts(include_inactive=True) == []


async def test_a_prompt_can_be_created_switched_off_and_switched_on_later(mode: str, home: Home) -> None:
    async with asking(home, mode, "accept", agree=True) as (client, asked):
        _, created = await set_prompt(client, name="Tone", content="Be kind.", is_active=False)
        assert "mcp_name" not in created["prompt"]
        assert asked == []

        await set_prompt(client, name="Tone", is_active=True, priority=-2)

    assert len(asked) == 1
    (prompt,) = home.prompts.list_prompts()
    assert (prompt.content, prompt.priority) == ("Be kind.", -2)


async def test_an_id_says_which_prompt_and_gives_it_another_name(mode: str, home: Home) -> None:
    first = home.prompts.add_prompt("Tone", "Be kind.")
    second = home.prompts.add_prompt("tone", "Be brief.")

    async with asking(home, mode, "accept", agree=True) as (client, asked):
        said, _ = await set_prompt(client, name="Tone", is_active=False)
        assert f"fits the prompts {first.id}, {second.id}; say which with prompt_id" in said
        assert home.prompts.list_prompts() == [first, second]

        _, renamed = await set_prompt(client, name=" Voice ", prompt_id=second.id)
        _, kept = await set_prompt(client, prompt_id=second.id, priority=1)
    assert [question.count("Voice") for question in asked] == [1]
    assert renamed["prompt"]["name"] == kept["prompt"]["name"] == "Voice"
    assert kept["prompt"]["mcp_name"] == "voice"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "`name` must not be blank"),
        ({"name": "Tonne", "remove": True}, "no global prompt named 'Tonne'"),
        ({"name": "Tonne", "is_active": False}, "send content to create it"),
        ({"name": "Tone"}, "must say what to change"),
        ({"name": "Tone", "content": " "}, "`content` must not be blank"),
        ({"name": "Tone", "content": "x" * 100_001}, "at most 100,000"),
        ({"name": "New", "content": "x", "priority": 10**7}, "`priority` must be from"),
        ({"name": "Tone", "remove": True, "content": "x"}, "`remove` must be sent without content"),
        ({"prompt_id": 99, "remove": True}, "There is no global prompt 99"),
        ({"name": "Tone", "prompt_id": "x"}, "must be a whole number"),
    ],
)
async def test_a_change_that_cannot_be_made_says_why_and_changes_nothing(
    arguments: dict[str, Any], said: str, client: Client, home: Home
) -> None:
    prompt = home.prompts.add_prompt("Tone", "Be kind.")

    text, _ = await set_prompt(client, **arguments)

    assert said in text
    assert home.prompts.list_prompts(include_inactive=True) == [prompt]


async def test_the_listed_prompts_carry_their_names_in_mcp(client: Client, home: Home) -> None:
    home.prompts.add_prompt("Be brief!", "Two sentences.")
    off = home.prompts.add_prompt("Old", "Forget this.")
    home.prompts.change_prompt(off.id, is_active=False)

    result = await client.call_tool("list_prompts", {"include_inactive": True})

    assert result.structured_content is not None
    assert [p.get("mcp_name") for p in result.structured_content["prompts"]] == ["be-brief", None]


@pytest.mark.parametrize("change", [{"content": "Be kind."}, {"remove": True}])
@pytest.mark.parametrize("client", ["auto"], indirect=True)
async def test_a_former_text_that_is_cut_says_how_to_get_all_of_it(
    change: dict[str, Any], client: Client
) -> None:
    await set_prompt(client, name="Tone", content="Be brief. " * 2_000, is_active=False)

    text, answer = await set_prompt(client, name="Tone", **change)

    for channel in (text, json.dumps(answer, ensure_ascii=False)):
        assert "this is the beginning; undo brings all of it back" in channel
        assert 6_000 < len(channel) < 7_000
