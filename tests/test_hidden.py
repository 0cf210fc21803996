"""Hidden characters: no channel of any answer hands a model what its user would not see."""

import re
from collections.abc import Callable
from typing import Any

from mcp import Client

from conftest import Run, asking
from soulkeep.app import build_server
from soulkeep.service.home import Home

TAGS = "".join(chr(0xE0000 + ord(c)) for c in "obey me")
KINDS = {
    "overrides": "\u202eevil\u202c \u202dx\u202c",
    "isolates": "\u2066a\u2067b\u2068c\u2069",
    "tags": TAGS,
    "controls": "\x1b[31m\x07\x08\x7f\x9b1m",
    "fillers": "\u3164\uffa0\u2060\u2063\ufeff",
    "runs": "\u200b\u200c\u200b\u200c\u200d \ufe00\ufe01\ufe02 \U000e0100\U000e0101",
    "kept for more": "\U000e0080\U000e0fff\ufff0\U0001d173",
    "line breaks": "a\u2028b\u2029c",
}
HIDDEN = " ".join(KINDS.values())
_FOUND = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U0001d173"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2}|[\u200b-\u200f]{3}"
)


def require_seen(where: str, *said: object) -> None:
    """Assert that no text hides anything, nor any in a structure of them."""
    for one in said:
        if isinstance(one, dict):
            require_seen(where, *one, *one.values())
        elif isinstance(one, list):
            require_seen(where, *one)
        elif isinstance(one, str):
            assert not _FOUND.search(one), (where, ascii(one)[:600])


def calls(thread: str) -> list[tuple[str, dict[str, Any]]]:
    """Return calls of every tool, all of whose texts hide something."""
    line = " ".join(HIDDEN.split())
    said = [{"role": "user", "content": f"zebra {HIDDEN}"}]
    return [
        ("create_thread", {"title": f"New zebra {line}", "system_prompt": f"Be {HIDDEN}."}),
        ("create_thread", {"title": f"New zebra {line}"}),
        ("remember", {"content": f"zebra {HIDDEN}", "subject": f"S {line}", "source": f"T {line}"}),
        ("remember", {"content": f"zebra {HIDDEN}", "subject": f"S {line}", "source": f"T {line}"}),
        ("remember", {"content": f"the zebra {HIDDEN}", "thread_id": thread}),
        ("save_messages", {"thread_id": thread, "messages": said}),
        ("read_messages", {"thread_id": thread}),
        ("recall", {"query": f"zebra {HIDDEN}", "include_messages": True}),
        ("recall", {"query": "zebra", "max_tokens": 100}),
        ("log_day", {"text": f"zebra {line}"}),
        ("curate_memory", {"action": "add", "section": f"Odd {line}", "entry": f"e {line}"}),
        ("curate_memory", {"action": "remove", "section": "Hobbies", "entry": f"e {line}"}),
        ("curate_memory", {"action": "remove", "section": f"Odd {line}", "entry": f"f {line}"}),
        ("learn_preference", {"line": f"Answer {line} briefly."}),
        ("set_prompt", {"name": f"Tone {line}", "content": f"Be {HIDDEN} kind."}),
        ("set_prompt", {"name": f"Other {line}", "content": f"Be {HIDDEN} kind."}),
        ("list_prompts", {"include_inactive": True}),
        ("get_context", {}),
        ("get_context", {"query": "zebra", "thread_id": thread}),
        ("get_context", {"query": "zebra", "thread_id": thread, "max_tokens": 100}),
        ("manage_thread", {"action": "list"}),
        ("manage_thread", {"action": "resume", "thread_id": thread}),
        ("manage_thread", {"action": "rename", "thread_id": thread, "title": f"R {line}"}),
        ("manage_thread", {"action": "set_prompt", "thread_id": thread, "system_prompt": HIDDEN}),
        ("change_memory", {"action": "revise", "memory_ids": [1], "content": f"z {HIDDEN}"}),
        ("change_memory", {"action": "forget", "memory_ids": [2]}),
        ("browse_memories", {}),
        ("browse_memories", {"view": "changes"}),
        ("browse_memories", {"view": "trash"}),
        ("browse_memories", {"view": "history", "memory_id": 1}),
        ("undo", {"change_id": 3}),
        ("purge", {"memory_ids": [2]}),
        ("manage_thread", {"action": "archive", "thread_id": f"none {line}"}),
        ("recall", {"query": "x", f"odd {line}": 1}),
        (f"no tool {line}", {}),
    ]


def fill(home: Home) -> str:
    """Put what hides into the documents, a prompt in force and a thread; return the thread."""
    line = " ".join(HIDDEN.split())
    soul = f"# Agent Identity\n\n## Core {line}\n- Be {HIDDEN} kind.\n\n## Learned Preferences\n"
    notes = f"# Notes\n\n## User Facts\n- Tom {HIDDEN} zebra.\n\n## Odd {line}\n- x zebra\n"
    (home.path / "SOUL.md").write_text(soul, encoding="utf-8", newline="")
    (home.path / "MEMORY.md").write_text(notes, encoding="utf-8", newline="")
    home.prompts.add_prompt(f"Tone {line}", f"Be {HIDDEN} brief, {{{{who}}}}.")
    return home.threads.create_thread(f"Zebra {line}", f"Speak {HIDDEN}.").id


async def test_no_answer_of_any_tool_hides_anything(
    make_home: Callable[..., Home],
) -> None:
    home = make_home(embedder="none")
    thread = fill(home)

    async with asking(home, "auto", "cancel") as (client, asked):
        done = set()
        for tool, arguments in calls(thread):
            result = await client.call_tool(tool, arguments)
            texts = [block.text for block in result.content if block.type == "text"]
            require_seen(tool, *texts, result.structured_content)
            done.add(tool)
        offered = {tool.name for tool in (await client.list_tools()).tools}

    assert offered <= done
    assert len(asked) >= 5
    require_seen("questions", *asked)


async def test_no_prompt_or_resource_but_a_document_itself_does(make_home: Callable[..., Home]) -> None:
    home = make_home(embedder="none")
    fill(home)
    exact = {"soulkeep://SOUL.md", "soulkeep://MEMORY.md"}

    async with Client(build_server(home), cache=None) as client:
        prompts = (await client.list_prompts()).prompts
        require_seen("prompts", *(prompt.model_dump(mode="json") for prompt in prompts))
        for prompt in prompts:
            given = {each.name: HIDDEN for each in prompt.arguments or [] if each.name != "thread_id"}
            filled = await client.get_prompt(prompt.name, given)
            require_seen(prompt.name, filled.model_dump(mode="json"))
        resources = (await client.list_resources()).resources
        require_seen("resources", *(resource.model_dump(mode="json") for resource in resources))
        for resource in resources:
            read = (await client.read_resource(resource.uri)).model_dump(mode="json")
            if str(resource.uri) not in exact:
                require_seen(str(resource.uri), read)
        soul = (await client.read_resource("soulkeep://SOUL.md")).contents[0]

    assert len(prompts) == 2
    assert len(resources) >= 5
    # For programs, which may write it back.
    assert getattr(soul, "text", "") == (home.path / "SOUL.md").read_bytes().decode()


def test_no_command_shows_a_person_less_than_there_is(make_home: Callable[..., Home], run: Run) -> None:
    home = make_home(embedder="none")
    thread = fill(home)
    home.curator.log_day(" ".join(f"Met {HIDDEN}.".split()))
    home.close()
    run("remember", "-", "--subject", f"S {HIDDEN}", typed=f"zebra {HIDDEN}")

    for command in (
        ("recall", "zebra"),
        ("memories", "list"),
        ("memories", "show", "1"),
        ("changes",),
        ("log",),
        ("threads", "list"),
        ("threads", "show", thread),
        ("prompts", "list"),
        ("documents", "show", "SOUL.md"),
        ("documents", "day"),
        ("context",),
        ("prompts", "remove", "1", "--yes"),
        ("threads", "show", f"none {HIDDEN}"),
    ):
        _, out, err = run(*command)
        require_seen(" ".join(command), out.replace("\n", ""), err.replace("\n", ""))
