"""Before very much goes at once it is backed up, at most once an hour, or it stays."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from mcp import Client

from conftest import TickingClock
from soulkeep.errors import StoreError, UndoConflictError
from soulkeep.models import NewMemory, NewMessage
from soulkeep.service.backups import BULK, verify_files
from soulkeep.service.home import Home

NUMBERS = itertools.count()


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home(embedder="none")


def keep(home: Home, count: int, thread_id: str | None = None) -> list[int]:
    new = [NewMemory(f"Memory {next(NUMBERS)}.", thread_id=thread_id) for _ in range(count)]
    return [receipt.id for receipt in home.memories.remember(new)]


def say(home: Home, thread_id: str, count: int) -> None:
    home.messages.save(thread_id, [NewMessage("user", f"Line {number}.") for number in range(count)])


def labels(home: Home) -> list[str]:
    return [backup.label for backup in home.backups.list_backups()]


def test_forgetting_very_many_memories_is_preceded_by_a_verified_backup(home: Home) -> None:
    ids = keep(home, BULK + 20)
    home.documents.append_daily("Cleaning up.")

    home.lifecycle.forget(ids)

    (backup,) = home.backups.list_backups()
    assert (backup.label, backup.automatic) == ("before forgetting 120 memories", True)
    assert backup.counts["memories"] == BULK + 20
    verify_files(home.backups.folder / backup.id)
    home.backups.restore(backup.id)
    assert home.repository.count_rows()["memories"] == BULK + 20
    assert home.check() == []


def test_forgetting_fewer_is_not(home: Home) -> None:
    ids = keep(home, BULK - 1)

    home.lifecycle.forget([*ids, *ids])

    assert labels(home) == []


def test_a_backup_before_forgetting_serves_for_an_hour(home: Home, clock: TickingClock) -> None:
    lists = [keep(home, BULK) for _ in range(4)]
    home.lifecycle.forget(lists[0])
    clock.now += timedelta(minutes=55)
    home.lifecycle.forget(lists[1])
    assert labels(home) == ["before forgetting 100 memories"]

    clock.now += timedelta(minutes=5)
    home.lifecycle.forget(lists[2])
    assert labels(home) == ["before forgetting 100 memories"] * 2

    clock.now -= timedelta(days=1)  # a clock that was wrong
    home.lifecycle.forget(lists[3])
    assert labels(home) == ["before forgetting 100 memories"] * 3


def test_no_other_backup_serves_for_it(home: Home) -> None:
    home.backups.make("before forgetting 100 memories", on_demand=True)
    home.backups.make("before migration from schema 4")

    home.lifecycle.forget(keep(home, BULK))

    assert len(labels(home)) == 3


@pytest.mark.parametrize(
    ("memories", "messages", "fate", "label"),
    [
        (BULK, 0, "forget", "before forgetting 100 memories"),
        (BULK, 2, "forget", "before forgetting 100 memories and 2 messages"),
        (0, BULK, "global", "before forgetting 100 messages"),
        (3, BULK, "forget", "before forgetting 3 memories and 100 messages"),
        (BULK, 2, "global", None),
        (BULK - 1, BULK - 1, "forget", None),
    ],
)
def test_deleting_a_thread_is_preceded_by_a_backup_if_much_goes_with_it(
    memories: int, messages: int, fate: str, label: str | None, home: Home
) -> None:
    thread = home.threads.create_thread("Large")
    if memories:
        keep(home, memories, thread.id)
    if messages:
        say(home, thread.id, messages)

    home.threads.delete(thread.id, fate)

    assert labels(home) == ([label] if label else [])


def test_undoing_is_preceded_by_a_backup_if_very_many_memories_leave_by_it(home: Home) -> None:
    keep(home, BULK)
    (stored,) = home.changes.list_changes()

    home.changes.undo(stored.id)

    (backup,) = home.backups.list_backups()
    assert (backup.label, backup.counts["memories"]) == ("before forgetting 100 memories", BULK)


def test_going_back_to_a_moment_counts_what_leaves_in_the_end(home: Home, clock: TickingClock) -> None:
    older = keep(home, BULK)
    since = clock.now.isoformat()
    home.lifecycle.move(older, home.threads.create_thread("Moved").id)
    for _ in range(3):
        keep(home, BULK // 4)
    home.lifecycle.forget(older[: BULK // 2])
    home.lifecycle.forget(keep(home, BULK // 2))

    home.changes.undo_since(since)

    assert labels(home) == []
    assert home.repository.count_rows()["memories"] == BULK
    home.changes.undo(home.changes.list_changes()[0].id)
    assert labels(home) == []
    keep(home, BULK // 4)
    home.changes.undo_since(since)
    assert labels(home) == ["before forgetting 100 memories"]


def test_undoing_that_brings_memories_back_is_not(home: Home) -> None:
    ids = keep(home, BULK)
    home.lifecycle.forget(ids[: BULK // 2])
    home.lifecycle.forget(ids[BULK // 2 :])

    home.changes.undo_since(home.changes.list_changes(2)[1].made_at)

    assert home.repository.count_rows()["memories"] == BULK
    assert labels(home) == []


def test_putting_one_memory_in_the_place_of_very_many_is_preceded_by_a_backup(home: Home) -> None:
    ids = keep(home, BULK)

    home.memories.remember([NewMemory("All of it in one.")], replaces=[*ids, *ids])

    assert labels(home) == ["before forgetting 100 memories"]


def test_nothing_goes_where_its_backup_cannot_be_written(home: Home) -> None:
    thread = home.threads.create_thread("Large")
    ids = keep(home, BULK, thread.id)
    stored = home.changes.list_changes()[0]
    rows = home.repository.count_rows()
    (home.path / "backups").write_text("A file in the way.", encoding="utf-8")

    for delete in (
        lambda: home.lifecycle.forget(ids),
        lambda: home.threads.delete(thread.id, "forget"),
        lambda: home.changes.undo(stored.id),
        lambda: home.memories.remember([NewMemory("One for all.")], replaces=ids),
    ):
        with pytest.raises(StoreError, match="make the folder writable"):
            delete()

    assert home.repository.count_rows() == rows
    assert home.lifecycle.list_trash() == []
    home.lifecycle.forget(ids[:1])
    (home.path / "backups").unlink()
    with pytest.raises(UndoConflictError):
        home.changes.undo(stored.id)
    assert home.lifecycle.forget(ids[1:]).memories


def test_two_who_forget_very_much_at_once_make_one_backup(
    make_home: Callable[..., Home],
) -> None:
    homes = [make_home(embedder="none") for _ in range(2)]
    lists = [keep(home, BULK) for home in homes]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda home, ids: home.lifecycle.forget(ids), homes, lists))

    assert labels(homes[0]) == ["before forgetting 100 memories"]
    assert homes[0].repository.count_rows()["memories"] == 0


async def test_a_client_is_told_why_nothing_was_forgotten(home: Home, client: Client) -> None:
    ids = keep(home, BULK)
    (home.path / "backups").write_text("A file in the way.", encoding="utf-8")

    result = await client.call_tool("change_memory", {"action": "forget", "memory_ids": ids})

    assert result.is_error
    assert "make the folder writable" in str(result.content)
    assert home.repository.count_rows()["memories"] == BULK
