"""What is done beside calls: one that only reads writes nothing, and finds what changed a moment ago."""

import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

import pytest
from mcp import Client

from conftest import TickingClock
from engine import another_program, database_of, file_of
from soulkeep.app import build_server
from soulkeep.models import NewMemory
from soulkeep.service.home import Home
from soulkeep.service.upkeep import Worker

MakeHome = Callable[..., Home]


@pytest.fixture
def served(home: Home) -> Home:
    """A home that is served, with something in it of every kind."""
    thread = home.threads.create_thread("Kitchen").id
    home.memories.remember(
        [NewMemory("The kettle is red."), NewMemory("The stove is old.", thread_id=thread)]
    )
    home.curator.add_entry("User Facts", "Likes tea.")
    home.serve()
    return home


def read(home: Home) -> None:
    """Do all that only reads."""
    (thread,) = home.threads.list_threads()
    home.memories.recall("kettle")
    home.lifecycle.list_memories()
    home.lifecycle.list_trash()
    home.threads.resume(thread.id)
    home.contexts.assemble(thread_id=thread.id)
    home.prompts.list_prompts()
    home.statistics.figures()
    home.statistics.list_log()


def test_calls_that_only_read_write_nothing(served: Home, clock: TickingClock) -> None:
    writers: set[int] = set()

    def note(*_: object) -> None:
        writers.add(threading.get_ident())

    served.memories.remember([NewMemory("It is raining.", expires_at="2026-03-02")])
    database_of(served)._connection.set_update_hook(note)
    (served.path / "MEMORY.md").write_text("# Notes\n\n- Has a teapot.\n", encoding="utf-8")
    clock.now += timedelta(days=3)
    read(served)
    read(served)
    while served.sessions.unwritten:
        served.background.catch_up()

    assert writers
    assert threading.get_ident() not in writers
    assert "It is raining." not in [m.content for m in served.lifecycle.list_memories()]
    assert [past.memory.content for past in served.lifecycle.list_trash()] == ["It is raining."]
    assert "Has a teapot." in found(served, "teapot")


def found(home: Home, query: str) -> list[str]:
    return [match.memory.content for match in home.memories.recall(query).matches]


def test_what_was_edited_by_hand_a_moment_ago_is_found_by_the_next_recall(served: Home) -> None:
    for word in ("teapot", "ladle", "whisk"):
        (served.path / "MEMORY.md").write_text(f"# Notes\n\n- Has a {word}.\n", encoding="utf-8")
        assert f"Has a {word}." in found(served, word)
    (served.path / "MEMORY.md").unlink()
    assert "Has a whisk." not in found(served, "whisk")


def test_what_another_program_added_is_found_by_the_next_recall(served: Home) -> None:
    with closing(another_program(file_of(served))) as other:
        other.execute(
            "INSERT INTO memories (content, memory_type, created_at)"
            " VALUES ('The kettle whistles.', 'fact', '2026-03-01T12:00:00.000Z')"
        )
    assert "The kettle whistles." in found(served, "whistles")
    assert served.check() == []


def test_reading_goes_on_while_another_process_holds_the_lock(served: Home) -> None:
    with closing(another_program(file_of(served))) as other:
        other.execute("BEGIN IMMEDIATE")
        (served.path / "MEMORY.md").write_text("# Notes\n\n- Has a teapot.\n", encoding="utf-8")
        recall = served.memories.recall("kettle teapot")
        read(served)
        other.execute("ROLLBACK")

    assert [match.memory.content for match in recall.matches] == ["The kettle is red."]
    assert "1 document still to be indexed" in recall.remarks[0]
    while served.entries.remarks():
        served.background.catch_up()
    assert "Has a teapot." in found(served, "teapot")


def test_what_has_expired_is_not_shown_while_it_cannot_be_moved(
    served: Home, clock: TickingClock
) -> None:
    (receipt,) = served.memories.remember([NewMemory("It is raining.", expires_at="2026-03-02")])
    clock.now += timedelta(days=3)
    with closing(another_program(file_of(served))) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "It is raining." not in found(served, "raining")
        assert receipt.id not in [memory.id for memory in served.lifecycle.list_memories()]
        assert not any("raining" in part.text for part in served.contexts.assemble().parts)
        other.execute("ROLLBACK")


async def test_bookkeeping_of_a_call_is_in_the_figures_of_the_next(home: Home, mode: str) -> None:
    async with Client(build_server(home), mode=mode, cache=None) as client:
        for _ in range(3):
            await client.call_tool("recall", {"query": "kettle"})
        assert sum(home.statistics.figures().recalls_by_day.values()) == 3


def test_bookkeeping_is_written_when_a_home_is_closed(make_home: MakeHome) -> None:
    home = make_home()
    home.serve()
    for _ in range(5):
        home.memories.recall("kettle")
    home.close()

    assert sum(make_home().statistics.figures().recalls_by_day.values()) == 5


def test_a_worker_does_each_step_once_and_after_it_was_asked_for() -> None:
    done: list[int] = []
    worker = Worker(lambda: done.append(len(done)))
    assert [worker.wait(20) for _ in range(3)] == [True] * 3
    assert done == [0, 1, 2]
    worker.close(20)
    worker.wake()
    assert worker.wait(0)
    assert done == [0, 1, 2]


def test_a_worker_goes_on_after_an_error_and_says_it_once(caplog: pytest.LogCaptureFixture) -> None:
    outcomes = iter([OSError("the disk is gone"), OSError("the disk is gone"), None])

    def step() -> None:
        if (outcome := next(outcomes)) is not None:
            raise outcome

    worker = Worker(step)
    assert [worker.wait(20) for _ in range(3)] == [True] * 3
    worker.close(20)
    assert [record.getMessage() for record in caplog.records] == ["the disk is gone"]


def test_a_call_does_not_wait_for_a_step_that_takes_long() -> None:
    go_on = threading.Event()
    worker = Worker(lambda: go_on.wait(20) and None)
    worker.wake()
    assert not worker.wait(0.01)
    go_on.set()
    assert worker.wait(20)
    worker.close(20)


def test_a_worker_that_lets_others_go_first_does_not_where_it_is_waited_for() -> None:
    done: list[int] = []
    worker = Worker(lambda: done.append(len(done)), 60)
    for _ in range(3):
        worker.wake()
    assert done == []
    assert worker.wait(20)
    assert done == [0]
    worker.wake()
    worker.close(20)
    assert done == [0]
