"""The log and the figures, on the command line and for agents; and that neither tells what was said."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from conftest import Run
from engine import another_program, file_of
from soulkeep.app import open_home
from soulkeep.errors import InvalidInputError
from soulkeep.models import NewMemory
from soulkeep.service.home import Home

SAID = "Zanzibar"


def document(run: Run, *arguments: str) -> Any:
    code, out, _ = run(*arguments, "--json")
    assert code == 0
    return json.loads(out)


def audited(path: Path) -> str:
    with closing(another_program(path)) as file:
        return json.dumps(list(file.execute("SELECT * FROM audit_log")))


def test_the_log_has_what_was_changed_and_recalled_newest_first(run: Run) -> None:
    run("remember", "One.")
    run("recall", "one")
    run("memories", "forget", "1", "--yes")

    entries = document(run, "log", "--event", "memory")["log"]

    assert [entry["event"] for entry in entries] == [
        "memory.forgotten",
        "memory.recalled",
        "memory.stored",
    ]
    assert entries[1]["details"] == {"matches": 1}
    assert {entry["agent_id"] for entry in entries} == {"soulkeep"}
    out = run("log", "--limit", "1")[1]
    assert out.splitlines()[0].split() == ["WHEN", "WHO", "EVENT", "DETAILS"]
    assert "memory_id=1" in out


def test_the_log_is_filtered_by_agent_event_and_moment(home: Home) -> None:
    home.memories.remember([NewMemory("One.")], home.sessions.open("claude"))
    home.memories.remember([NewMemory("Two.")], home.sessions.open("cursor"))

    def found(**filters: str) -> list[tuple[str, str]]:
        return [(entry.agent_id, entry.event) for entry in home.statistics.list_log(**filters)]  # type: ignore[arg-type]

    assert found(event="memory.stored") == [("cursor", "memory.stored"), ("claude", "memory.stored")]
    assert found(agent="claude", event="memory") == [("claude", "memory.stored")]
    assert found(event="mem") == found(since="2999-01-01") == found(agent="nobody") == []
    assert len(home.statistics.list_log(1)) == 1
    for broken in ({"agent": " "}, {"since": "someday"}, {"event": ""}):
        with pytest.raises(InvalidInputError):
            found(**broken)
    with pytest.raises(InvalidInputError):
        home.statistics.list_log(0)


@pytest.mark.embedder
def test_uses_of_an_embedder_are_in_the_log_with_their_tokens(run: Run) -> None:
    run("remember", "The cat is called Miso.")

    (entry,) = document(run, "log", "--event", "model")["log"]

    assert entry["event"] == "model.used"
    assert set(entry["details"]) == {"model", "input_tokens", "output_tokens", "cost"}
    assert entry["details"]["input_tokens"] > 0


def test_a_row_that_another_program_wrote_does_not_break_the_log(home: Home) -> None:
    with closing(another_program(file_of(home))) as other:
        other.executemany(
            "INSERT INTO audit_log (timestamp, event, details) VALUES ('2026-01-01', 'theirs', ?)",
            [("no json",), (None,), ("[1]",)],
        )

    found = [entry.details for entry in home.statistics.list_log(event="theirs")]

    assert found == [{"details": [1]}, {}, {"details": "no json"}]


@pytest.mark.parametrize("embedder", ["none", pytest.param("auto", marks=pytest.mark.embedder)])
def test_figures_count_memories_and_recalls_by_day_and_uses_by_model(
    make_home: Any, embedder: str
) -> None:
    home = make_home(embedder=embedder)
    home.memories.remember([NewMemory("One."), NewMemory("Two.", "decision"), NewMemory("Three.")])
    for _ in range(3):
        home.memories.recall("one")

    figures = home.statistics.figures()

    assert list(figures.memories_by_day)[-1] == "2026-03-01"
    assert len(figures.memories_by_day) == len(figures.recalls_by_day) == 30
    assert figures.memories_by_day["2026-03-01"] == sum(figures.memories_by_day.values()) == 3
    assert figures.recalls_by_day["2026-03-01"] == 3
    assert figures.memories_by_type == {"fact": 2, "decision": 1}
    (usage,) = figures.usage
    if embedder == "none":
        assert (usage.model, usage.uses, usage.input_tokens) == ("none", 3, 0)
    else:
        assert (usage.model, usage.uses) == (home.indexes.embedder_identity, 4)
    assert figures.sizes["store"] > 10_000
    assert figures.sizes["documents"] > 100
    assert figures.table_sizes is not None
    assert {"memories", "memories_fts", "audit_log"} <= figures.table_sizes.keys()
    assert home.statistics.figures(tables=False).table_sizes is None


def test_stats_show_charts_to_people_and_plain_numbers_to_scripts(run: Run) -> None:
    assert run("stats")[0] == 0
    run("remember", "One.")
    run("recall", "one")

    out = run("stats")[1]
    figures = document(run, "stats")

    for part in ("Memories kept", "Recalls", "█", "fact", "On disk", "documents"):
        assert part in out
    assert sum(figures["recalls_by_day"].values()) == sum(figures["memories_by_day"].values()) == 1
    assert figures["memories_by_type"] == {"fact": 1}


async def test_agents_read_the_figures_as_a_resource(client: Client, home: Home) -> None:
    home.memories.remember([NewMemory("One.")])

    (content,) = (await client.read_resource("soulkeep://stats")).contents

    assert content.mime_type == "application/json"
    figures = json.loads(content.text)  # type: ignore[union-attr]
    assert figures["memories_by_type"] == {"fact": 1}
    assert figures["table_sizes"] is None


def test_no_command_puts_what_was_said_into_the_audit_log(run: Run, home_path: Path) -> None:
    for command in (
        ("remember", SAID, "--source", SAID, "--subject", SAID),
        ("recall", SAID),
        ("context", "--query", SAID),
        ("memories", "revise", "1", f"{SAID} again", "--subject", f"{SAID}!"),
        ("memories", "list", "--subject", SAID),
        ("memories", "forget", "2", "--yes"),
        ("memories", "restore", "2"),
        ("memories", "move", "2", "--global"),
        ("memories", "show", "2"),
        ("memories", "history", "2"),
        ("trash",),
        ("changes",),
        ("undo", "--yes"),
        ("prompts", "add", SAID, SAID),
        ("prompts", "change", "1", "--name", f"{SAID}?", "--content", f"{SAID}!"),
        ("prompts", "deactivate", "1"),
        ("prompts", "remove", "1", "--yes"),
        ("documents", "add", "MEMORY.md", "User Facts", SAID),
        ("documents", "replace", "User Facts", SAID, f"{SAID}!"),
        ("documents", "remove", "User Facts", f"{SAID}!"),
        ("documents", "log", SAID),
        ("threads", "create", SAID, "--prompt", SAID),
        ("log",),
        ("stats",),
        ("reindex",),
        ("compact",),
        ("undo", "--since", "2020-01-01", "--yes"),
        ("remember", f"{SAID} for the last time"),
        ("backup", "--label", SAID),
        ("purge", "3", "--all-backups", "--yes"),
        ("purge", "--trash", "--yes"),
    ):
        assert run(*command)[0] == 0, command

    log = audited(home_path / "soulkeep.db")
    assert "memory.forgotten" in log
    assert SAID not in log


CALLS: dict[str, dict[str, Any]] = {
    "create_thread": {"title": SAID, "system_prompt": SAID},
    "remember": {"content": SAID, "source": SAID, "subject": SAID},
    "recall": {"query": SAID},
    "get_context": {"query": SAID},
    "log_day": {"text": SAID},
    "curate_memory": {"action": "add", "section": "User Facts", "entry": SAID},
    "learn_preference": {"line": SAID},
    "set_prompt": {"name": SAID, "content": SAID},
    "list_prompts": {},
    "browse_memories": {},
    "change_memory": {"action": "revise", "memory_ids": [1], "content": f"{SAID}!"},
    "undo": {"change_id": 1},
    "purge": {"memory_ids": [1]},
    "manage_thread": {"action": "list"},
    "save_messages": {"thread_id": SAID, "messages": []},
    "read_messages": {"thread_id": SAID},
}
MAY_FAIL = {"learn_preference", "undo", "save_messages", "read_messages"}


async def test_no_tool_puts_what_was_said_into_the_audit_log(client: Client, home: Home) -> None:
    names = {tool.name for tool in (await client.list_tools()).tools}
    assert names == CALLS.keys(), "every tool has to be called here"
    for name, arguments in CALLS.items():
        result = await client.call_tool(name, arguments)
        assert name in MAY_FAIL or not result.is_error, result

    log = audited(file_of(home))
    assert "memory.stored" in log
    assert SAID not in log


def test_a_home_without_anything_has_figures(home_path: Path) -> None:
    with closing(open_home(home_path, embedder="none")) as home:
        figures = home.statistics.figures()

    assert figures.memories_by_type == {}
    assert figures.usage == ()


def test_sizes_are_of_the_store_its_backups_and_the_documents_and_of_nothing_else(
    run: Run, home_path: Path
) -> None:
    run("remember", "One.")
    run("documents", "add", "MEMORY.md", "User Facts", "Likes plums.")
    run("documents", "log", "Bought plums.")
    run("backup")
    (home_path / ".git").mkdir()
    (home_path / ".git" / "objects").write_bytes(b"x" * 10_000_000)
    (home_path / "gone.md").symlink_to(home_path / "nowhere")

    def taken(*names: str) -> int:
        return sum(p.stat().st_size for name in names for p in home_path.glob(name) if p.is_file())

    sizes = document(run, "stats")["sizes"]

    assert 0 <= sizes["store"] - taken("soulkeep.db*") < 100_000  # its log is there while it is open
    assert sizes["backups"] == taken("backups/**/*") > sizes["documents"]
    assert sizes["documents"] == taken("*.md", "daily/*", "history/**/*") > 1_000
