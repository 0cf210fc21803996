"""Numbers that no row can have, wherever an id may be given."""

from typing import Any

import pytest
from mcp import Client, MCPError

from conftest import Run
from engine import by_another_program
from soulkeep.app import build_server
from soulkeep.errors import NotFoundError
from soulkeep.models import NewMemory
from soulkeep.service.home import Home

LARGE = [2**63 - 1, 2**63, 99999999999999999999, 10**300, str(2**63), "#99999999999999999999", -1, "-5"]

CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("change_memory", "memory_ids", {"action": "forget"}),
    ("change_memory", "memory_ids", {"action": "restore"}),
    ("change_memory", "memory_ids", {"action": "revise", "content": "New."}),
    ("remember", "replaces", {"content": "New."}),
    ("purge", "memory_ids", {}),
    ("undo", "change_id", {}),
    ("browse_memories", "memory_id", {"view": "history"}),
    ("curate_memory", "memory_id", {"action": "add", "section": "Preferences"}),
    ("set_prompt", "prompt_id", {"content": "New."}),
]
PAGES = [("browse_memories", "below", {"view": view}) for view in ("memories", "trash", "changes")] + [
    ("read_messages", "before", {"thread_id": "kitchen"})
]


@pytest.mark.parametrize(("tool", "argument", "others"), CALLS + PAGES)
async def test_a_tool_says_so_in_words(
    tool: str, argument: str, others: dict[str, Any], home: Home
) -> None:
    home.threads.create_thread("Kitchen")
    by_another_program(home, "UPDATE threads SET id = 'kitchen'")
    home.memories.remember([NewMemory("The kettle is green.")])
    before = home.repository.count_rows() | {"sessions": 0}

    async with Client(build_server(home, tools_offered="full"), cache=None) as client:
        for large in LARGE:
            result = await client.call_tool(tool, {argument: large, **others})
            (block,) = result.content
            said = getattr(block, "text", "")
            assert result.is_error or (tool, argument, others) in PAGES, large
            assert not result.is_error or any(word in said for word in ("no ", "must be")), said
            assert "Error" not in said.removeprefix("Error executing tool")
            assert said != f"Error executing tool {tool}"
    assert home.repository.count_rows() | {"sessions": 0} == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("memories", "show"),
        ("memories", "forget"),
        ("memories", "restore"),
        ("memories", "revise", "--content", "New."),
        ("undo",),
        ("purge", "--yes"),
        ("prompts", "remove"),
        ("memories", "list", "--below"),
        ("trash", "--below"),
        ("changes", "--below"),
        ("documents", "promote"),
    ],
)
@pytest.mark.parametrize("large", ["9223372036854775808", "99999999999999999999", "9" * 5_000])
def test_the_command_line_says_so_in_a_line(arguments: tuple[str, ...], large: str, run: Run) -> None:
    run("remember", "The kettle is green.")

    code, _, err = run(*arguments, large)

    assert code in (1, 2)
    assert "Traceback" not in err
    assert "Overflow" not in err


@pytest.mark.parametrize("large", ["9223372036854775808", "9" * 5_000, "-1", "1_0", "\uff11"])
async def test_a_resource_is_not_found(large: str, client: Client) -> None:
    with pytest.raises(MCPError, match=r"is no id of a memory|There is no memory (9223|-1)"):
        await client.read_resource(f"soulkeep://memories/{large}")


def test_the_services_raise_what_callers_can_catch(home: Home) -> None:
    for large in (2**63, 10**30, -(2**63) - 1):
        for call in (
            home.lifecycle.get_memory,
            home.lifecycle.history,
            home.prompts.remove_prompt,
            home.changes.undo,
        ):
            with pytest.raises(NotFoundError):
                call(large)
