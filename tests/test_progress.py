"""Progress: what may take its time says how far it is to a client that asks, in both eras."""

import json
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from conftest import asking
from soulkeep.app import build_server, open_home
from soulkeep.embedders import Kept
from soulkeep.embedders.meaning import Meaning
from soulkeep.models import NewMemory
from soulkeep.progress import tell, told_to
from soulkeep.service.home import Home
from wire import Wire, served

ASKING = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "asking", "version": "1"},
}

Told = list[tuple[float, float | None, str | None]]


async def called(client: Client, tool: str, **arguments: Any) -> Told:
    """Call a tool; return its notifications of progress."""
    told: Told = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    result = await client.call_tool(tool, arguments, progress_callback=note)
    assert not result.is_error, result.content
    return told


def messages_of(told: Told) -> list[str]:
    counts = [progress for progress, _, _ in told]
    assert counts == sorted(set(counts)), "progress must grow"
    return [message or "" for _, _, message in told]


def keep(home: Home, count: int) -> list[int]:
    return [r.id for r in home.memories.remember([NewMemory(f"Number {n}.") for n in range(count)])]


async def test_a_purge_tells_what_it_does_backups_included(
    make_home: Callable[..., Home], mode: str
) -> None:
    home = make_home(embedder="none")
    first, *_ = keep(home, 3)
    home.backups.make("before")

    async with asking(home, mode, "accept", agree=True, backups=True) as (client, _):
        messages = messages_of(await called(client, "purge", memory_ids=[first]))

    assert messages[0] == "Looking through documents and their former texts"
    assert "Writing the store anew" in messages
    assert messages.index("Writing the store anew") < messages.index("Writing a backup anew")


async def test_forgetting_very_many_and_taking_that_back_tell_of_the_backup(
    make_home: Callable[..., Home], mode: str
) -> None:
    home = make_home(embedder="none")
    ids = keep(home, 150)

    async with Client(build_server(home), mode=mode, cache=None) as client:
        forgotten = messages_of(await called(client, "change_memory", action="forget", memory_ids=ids))
        (change,) = home.changes.list_changes(1)
        await called(client, "undo", change_id=change.id)
        stored = home.changes.list_changes(3)[-1]
        for backup in home.backups.list_backups():
            (home.backups.folder / backup.id / "manifest.json").unlink()
        undone = messages_of(await called(client, "undo", change_id=stored.id))

    assert forgotten == ["Copying the store: 100%", "Checking the copy of the store"]
    assert undone == forgotten


@pytest.mark.embedder
def test_a_long_list_tells_how_much_of_it_is_embedded(home: Home) -> None:
    heard: list[str] = []
    keep(home, 150)
    Meaning().release()

    with told_to(lambda doing, share: heard.append(doing)):
        home.memories.recall("number")

    assert list(dict.fromkeys(heard))[:3] == ["Indexing documents", "Loading the model", "Embedding"]


@pytest.mark.embedder
def test_a_model_of_two_encoders_tells_once_that_it_is_loaded() -> None:
    heard: list[str] = []
    Meaning().release()

    with told_to(lambda doing, share: heard.append(doing)):
        Meaning().load()
        Meaning().load()

    assert heard == ["Loading the model"]


def test_who_waits_for_a_model_that_another_thread_loads_is_told_so() -> None:
    begun, told = threading.Event(), threading.Event()

    def load() -> str:
        begun.set()
        assert told.wait(10)
        return "model"

    model = Kept("slow", load)
    other = threading.Thread(target=model.get)
    other.start()
    begun.wait(10)
    heard: list[str] = []

    def hear(doing: str, share: float | None) -> None:
        heard.append(doing)
        told.set()

    with told_to(hear):
        Kept.load(model)
    other.join()

    assert heard == ["Loading the model"]


@pytest.mark.embedder
async def test_a_first_recall_tells_that_it_loads_the_model(home: Home, mode: str) -> None:
    Meaning().release()

    async with Client(build_server(home), mode=mode, cache=None) as client:
        first = messages_of(await called(client, "recall", query="slates"))
        second = await called(client, "recall", query="slates")

    assert first == ["Loading the model"]
    assert second == []


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("prompts/get", {"name": "start", "arguments": {"query": "slates"}}),
        ("tools/call", {"name": "get_context", "arguments": {"query": "slates"}}),
    ],
)
def test_a_context_for_a_question_has_what_was_written_by_hand_a_moment_ago(
    method: str, arguments: dict[str, Any], make_home: Callable[..., Home]
) -> None:
    home = make_home(embedder="none")
    (home.path / "MEMORY.md").write_text("# Notes\n\n## Facts\n\n- Slates are grey.\n", "utf-8")

    answers = served(
        home,
        [
            json.dumps({"jsonrpc": "2.0", "id": "begun", "method": "initialize", "params": ASKING}),
            json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}),
            json.dumps({"jsonrpc": "2.0", "id": "asked", "method": method, "params": arguments}),
        ],
    )

    assert "Slates are grey." in json.dumps(answers[-1]["result"])


async def test_progress_reaches_whoever_asked_for_the_work_and_nobody_else() -> None:
    heard: list[str] = []

    with told_to(lambda doing, share: heard.append(f"{doing} {share}")):
        tell("Counting", 0.5)
        other = threading.Thread(target=tell, args=("Another's work",))
        other.start()
        other.join()
    tell("Nobody asked")

    assert heard == ["Counting 0.5"]


@pytest.mark.parametrize("process_client", ["auto"], indirect=True)
async def test_progress_goes_over_the_wire(process_client: Client) -> None:
    memories = [{"content": f"Number {n}."} for n in range(150)]
    await called(process_client, "remember", memories=memories)
    ids = list(range(1, 151))
    told = messages_of(await called(process_client, "change_memory", action="forget", memory_ids=ids))
    assert told == ["Copying the store: 100%", "Checking the copy of the store"]


def test_a_purge_whose_request_is_cancelled_goes_on_to_its_end(tmp_path: Path) -> None:
    wire = Wire(tmp_path / "home", SOULKEEP_EMBEDDER="none", SOULKEEP_TOOLS="full")
    try:
        wire.request("initialize", ASKING)
        wire.send("notifications/initialized")
        kept = wire.call("remember", content="To be purged.")["structuredContent"]["receipts"][0]["id"]
        purge = {"name": "purge", "arguments": {"memory_ids": [kept]}, "_meta": {"progressToken": "p"}}
        wire.send("tools/call", purge, id="purge")
        question = wire.receive()
        wire.send_bytes(
            json.dumps(
                {
                    "jsonrpc": "2.0",
                    "id": question["id"],
                    "result": {"action": "accept", "content": {"agree": True, "backups": False}},
                }
            ).encode()
        )
        assert wire.receive()["params"]["progressToken"] == "p"
        wire.send("notifications/cancelled", {"requestId": "purge"})
        wire.send("ping", id="after")
        while wire.receive().get("id") != "after":
            pass
        _, err, code = wire.finish()
    finally:
        wire.kill()

    assert code == 0
    assert "Traceback" not in err
    with closing(open_home(tmp_path / "home", embedder="none")) as home:
        assert home.repository.get_fact("erasure_pending") is None
        assert home.repository.count_rows()["memories"] == 0
