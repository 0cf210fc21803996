"""The versions of a memory: every older id leads to the newest, whoever changes it at the same time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from conftest import TickingClock
from soulkeep.app import open_home
from soulkeep.errors import (
    MemoryForgottenError,
    MemoryNotFoundError,
    OwnerGoneError,
    ThreadNotFoundError,
)
from soulkeep.models import NewMemory, Options
from soulkeep.service.home import Home

LETTERS = "ABCD"


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home(embedder="none")


@pytest.fixture
def letters(home: Home) -> Home:
    """A home with a memory that was A, B, C and is D, with ids 1 to 4."""
    home.memories.remember([NewMemory("A")])
    for number, letter in enumerate("BCD", 1):
        home.lifecycle.revise(number, letter)
    return home


def live(home: Home) -> dict[int, str]:
    return {memory.id: memory.content for memory in home.lifecycle.list_memories(limit=1000)}


def undo_latest(home: Home) -> None:
    home.changes.undo(home.changes.list_changes(1)[0].id)


@pytest.mark.parametrize("asked", [1, 2, 3, 4])
def test_each_id_leads_to_the_newest_version_and_to_the_whole_history(letters: Home, asked: int) -> None:
    assert letters.lifecycle.get_memory(asked).content == "D"
    assert [past.memory.content for past in letters.lifecycle.history(asked)] == ["C", "B", "A"]
    assert [past.replaced_by for past in letters.lifecycle.history(asked)] == [4, 3, 2]


@pytest.mark.parametrize("asked", [1, 3])
def test_an_older_id_changes_the_newest_version(letters: Home, asked: int) -> None:
    thread = letters.threads.create_thread("Work").id

    moved = letters.lifecycle.move([asked], thread)
    assert ([m.id for m in moved.memories], moved.newer) == ([4], {asked: 4})
    receipt = letters.lifecycle.revise(asked, "E")
    assert (receipt.id, receipt.replaced, receipt.newer) == (5, (4,), {asked: 4})
    (receipt,) = letters.memories.remember([NewMemory("F")], replaces=[asked, 2, 5])
    assert (receipt.id, receipt.replaced, receipt.newer) == (6, (5,), {asked: 5, 2: 5})
    gone = letters.lifecycle.forget([asked, 6])
    assert ([m.content for m in gone.memories], gone.newer) == (["F"], {asked: 6})
    with pytest.raises(MemoryForgottenError, match="Memory #6 is in the trash"):
        letters.lifecycle.get_memory(asked)
    assert letters.check() == []


@pytest.mark.parametrize("asked", [1, 3, 4])
def test_what_was_forgotten_by_an_older_id_comes_back_by_it(letters: Home, asked: int) -> None:
    letters.lifecycle.forget([asked])

    restored = letters.lifecycle.restore([asked])

    assert live(letters) == {4: "D"}
    assert restored.newer == ({asked: 4} if asked != 4 else {})
    letters.lifecycle.restore([2])
    assert live(letters) == {4: "D", 2: "B"}
    assert letters.check() == []


def test_several_ids_of_one_memory_bring_it_back_once(letters: Home) -> None:
    letters.lifecycle.forget([1, 2, 4])

    restored = letters.lifecycle.restore([1, 2, 4])

    assert [memory.content for memory in restored.memories] == ["D"]
    assert live(letters) == {4: "D"}


def test_a_purge_by_an_older_id_takes_all_versions(letters: Home) -> None:
    letters.memories.remember([NewMemory("Another.")])

    assert letters.purges.purge([2]).memory_ids == (1, 2, 3, 4)
    assert live(letters) == {5: "Another."}


def test_ids_lead_to_what_is_there_after_undoing_and_doing_again(letters: Home) -> None:
    undo_latest(letters)
    assert [letters.lifecycle.get_memory(asked).id for asked in (1, 2, 3, 4)] == [3, 3, 3, 3]
    undo_latest(letters)
    assert [letters.lifecycle.get_memory(asked).id for asked in (1, 2, 3, 4)] == [4, 4, 4, 4]
    letters.changes.undo_since("2020-01-01")
    assert live(letters) == {}
    undo_latest(letters)
    assert [letters.lifecycle.get_memory(asked).id for asked in (1, 2, 3, 4)] == [4, 4, 4, 4]
    assert letters.check() == []


def test_undoing_several_revisions_at_once_leads_all_ids_to_what_is_there(
    make_home: Callable[..., Home],
) -> None:
    home = make_home(embedder="none")
    home.memories.remember([NewMemory("A")])
    moment = home.sessions.current().created_at
    for number, letter in enumerate("BCD", 1):
        home.lifecycle.revise(number, letter)
    revisions = home.changes.list_changes(3)

    home.changes.undo_since(revisions[-1].made_at)

    assert moment < revisions[-1].made_at
    assert [home.lifecycle.get_memory(asked).content for asked in (1, 2, 3, 4)] == ["A"] * 4
    undo_latest(home)
    assert [home.lifecycle.get_memory(asked).content for asked in (1, 2, 3, 4)] == ["D"] * 4


def test_several_memories_that_one_replaced_lead_to_it_and_come_back_apart(home: Home) -> None:
    home.memories.remember([NewMemory(letter) for letter in LETTERS])
    home.memories.remember([NewMemory("All of them.")], replaces=[1, 2, 3])
    assert [home.lifecycle.get_memory(asked).id for asked in (1, 2, 3)] == [5, 5, 5]
    assert sorted(past.memory.content for past in home.lifecycle.history(2)) == ["A", "B", "C"]

    undo_latest(home)
    assert [home.lifecycle.get_memory(asked).id for asked in (1, 2, 3)] == [1, 2, 3]
    undo_latest(home)
    assert [home.lifecycle.get_memory(asked).id for asked in (1, 2, 3)] == [5, 5, 5]

    home.lifecycle.restore([2])
    assert [home.lifecycle.get_memory(asked).id for asked in (1, 2, 3)] == [5, 2, 5]
    assert live(home) == {5: "All of them.", 4: "D", 2: "B"}


def test_several_are_restored_all_or_none(home: Home) -> None:
    home.memories.remember([NewMemory(letter) for letter in LETTERS])
    home.lifecycle.forget([1, 2, 3])

    with pytest.raises(MemoryNotFoundError):
        home.lifecycle.restore([1, 4])
    assert live(home) == {4: "D"}
    restored = home.lifecycle.restore([3, 1])
    assert [memory.content for memory in restored.memories] == ["C", "A"]
    assert live(home) == {4: "D", 3: "C", 1: "A"}
    home.changes.undo(restored.change_id)
    assert live(home) == {4: "D"}
    assert home.check() == []


class Meanwhile:
    """What somebody else does once, just before the store is locked for the next change."""

    def __init__(self) -> None:
        self.act: Callable[[], object] | None = None

    def before(self, work: Callable[..., Any]) -> Callable[..., Any]:
        def begun(**options: object) -> Any:
            act, self.act = self.act, None
            if act is not None:
                act()
            return work(**options)

        return begun


@pytest.fixture
def meanwhile() -> Meanwhile:
    return Meanwhile()


@pytest.fixture
def pair(
    home_path: Path, meanwhile: Meanwhile, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Home, Home]]:
    """Two homes on one store; while the first is about to write, the other one acts."""
    with (
        closing(open_home(home_path, embedder="none")) as home,
        closing(open_home(home_path, embedder="none")) as other,
    ):
        home.sessions.current()
        home.threads.create_thread("Work")
        home.memories.remember([NewMemory("A"), NewMemory("Z")])
        monkeypatch.setattr(home.repository, "recording", meanwhile.before(home.repository.recording))
        yield home, other


def test_of_two_revisions_at_once_the_later_follows_the_earlier(
    pair: tuple[Home, Home], meanwhile: Meanwhile
) -> None:
    home, other = pair
    meanwhile.act = lambda: other.lifecycle.revise(1, "B", subject="Ada")

    receipt = home.lifecycle.revise(1, "C")

    assert (receipt.replaced, receipt.newer) == ((3,), {1: 3})
    assert live(home) == {4: "C", 2: "Z"}
    assert home.lifecycle.get_memory(4).subject == "Ada"
    assert [past.memory.content for past in other.lifecycle.history(1)] == ["B", "A"]
    assert home.check() == []


@pytest.mark.parametrize("replaces", [[1], [1, 2]])
def test_what_is_replaced_by_two_at_once_is_replaced_once(
    pair: tuple[Home, Home], meanwhile: Meanwhile, replaces: list[int]
) -> None:
    home, other = pair
    meanwhile.act = lambda: other.memories.remember([NewMemory("B")], replaces=[1])

    (receipt,) = home.memories.remember([NewMemory("C")], replaces=replaces)

    assert receipt.replaced == (3, *replaces[1:])
    assert "C" in live(home).values()
    assert "B" not in live(home).values()


def test_what_is_forgotten_meanwhile_is_not_revised(
    pair: tuple[Home, Home], meanwhile: Meanwhile
) -> None:
    home, other = pair
    meanwhile.act = lambda: other.lifecycle.forget([1])

    with pytest.raises(MemoryNotFoundError):
        home.lifecycle.revise(1, "C")
    assert live(home) == {2: "Z"}


def test_what_is_moved_meanwhile_is_revised_where_it_is_now(
    pair: tuple[Home, Home], meanwhile: Meanwhile
) -> None:
    home, other = pair
    (thread,) = home.threads.list_threads()
    meanwhile.act = lambda: other.lifecycle.move([1], thread.id)

    receipt = home.lifecycle.revise(1, "C")

    assert home.lifecycle.get_memory(receipt.id).thread_id == thread.id


@pytest.mark.parametrize("fate", ["global", "forget"])
def test_a_thread_that_is_deleted_meanwhile_is_not_found(
    pair: tuple[Home, Home], meanwhile: Meanwhile, fate: str
) -> None:
    home, other = pair
    (thread,) = home.threads.list_threads()
    meanwhile.act = lambda: other.threads.delete(thread.id, fate)

    with pytest.raises(ThreadNotFoundError, match=thread.id):
        home.memories.remember([NewMemory("For work.", thread_id=thread.id)])
    with pytest.raises(ThreadNotFoundError):
        home.lifecycle.move([1], thread.id)
    assert live(home) == {1: "A", 2: "Z"}
    assert home.check() == []


def test_many_revisions_at_once_leave_one_live_memory(make_home: Callable[..., Home]) -> None:
    homes = [make_home(embedder="none") for _ in range(3)]
    homes[0].memories.remember([NewMemory("Start.")])
    failed: list[BaseException] = []

    def revise(home: Home, name: str) -> None:
        try:
            for turn in range(8):
                home.lifecycle.revise(1, f"{name} {turn}")
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failed.append(error)

    threads = [threading.Thread(target=revise, args=(home, f"home {n}")) for n, home in enumerate(homes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert len(live(homes[0])) == 1
    assert len(homes[0].lifecycle.history(1)) == 24
    assert homes[0].check() == []


def test_what_belongs_to_nothing_is_refused_with_a_word_of_its_thread(home: Home) -> None:
    with pytest.raises(OwnerGoneError, match="thread"), home.repository.recording():
        home.repository.memories.add_memories([NewMemory("x", thread_id="gone")], [None], "2026-03-01")
    assert home.check() == []


@pytest.mark.parametrize("how", ["retention", "trash"])
def test_an_older_id_leads_on_when_its_past_is_no_longer_kept(
    home_path: Path, clock: TickingClock, how: str
) -> None:
    options = Options(retention_days=30)
    with closing(open_home(home_path, embedder="none", clock=clock, options=options)) as home:
        home.memories.remember([NewMemory(letter) for letter in "AXY"])
        home.lifecycle.revise(1, "B")
        home.lifecycle.forget([3])
        clock.now += timedelta(days=40)
        if how == "trash":
            home.purges.empty_trash()
        home.lifecycle.revise(1, "C")
        home.lifecycle.revise(2, "Z")

        assert [home.lifecycle.get_memory(asked).content for asked in (1, 4, 5)] == ["C"] * 3
        assert "A" not in [past.memory.content for past in home.lifecycle.history(1)]
        with pytest.raises(MemoryNotFoundError):
            home.lifecycle.get_memory(3)
        home.changes.undo(home.changes.list_changes(2)[1].id)
        assert [home.lifecycle.get_memory(asked).content for asked in (1, 4, 5)] == ["B"] * 3
        assert home.purges.purge([1]).memory_ids == (1, 4, 5)
        with pytest.raises(MemoryNotFoundError):
            home.lifecycle.get_memory(1)
        assert home.check() == []
