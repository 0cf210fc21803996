"""What is undone is what was shown, and what a conflict advises works."""

from collections.abc import Callable

import pytest

from conftest import Run
from soulkeep.errors import UndoConflictError
from soulkeep.models import NewMemory, NewMessage
from soulkeep.service.home import Home


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home(embedder="none")


def keep(home: Home, content: str, thread_id: str | None = None) -> int:
    (receipt,) = home.memories.remember([NewMemory(content, thread_id=thread_id)])
    return receipt.id


def last(home: Home) -> int:
    return home.changes.list_changes(1)[0].id


def contents(home: Home) -> set[str]:
    return {memory.content for memory in home.lifecycle.list_memories(limit=1_000)}


def conflict(home: Home, change_id: int) -> UndoConflictError:
    with pytest.raises(UndoConflictError) as raised:
        home.changes.undo(change_id)
    return raised.value


def follow(home: Home, change_id: int) -> UndoConflictError:
    """Do what the conflict of undoing a change advises, then undo it."""
    error = conflict(home, change_id)
    assert error.first
    assert ", then ".join(map(str, error.first)) in str(error)
    for later in error.first:
        home.changes.undo(later)
    home.changes.undo(change_id)
    return error


@pytest.mark.parametrize("count", [999, 1_000, 1_100])
def test_as_many_changes_are_undone_as_the_question_says(run: Run, home: Home, count: int) -> None:
    keep(home, "Kept.")
    since = home.changes.list_changes(1)[0].made_at
    with home.repository.recording() as recording:
        session = home.sessions.current()
        home.repository.ledger.touch_session(session, since)
        for n in range(count):
            recording.save(f"test {n}", session, "2026-03-02T00:00:00.000Z", [], [])

    asked = run("undo", "--since", "2026-03-02", typed="n\n")[1]
    assert f"Undo {count:,} changes?" in asked
    assert f"and {count - 50:,} before them" in asked
    undone = home.changes.undo_since("2026-03-02")

    assert len(undone) == count
    assert contents(home) == {"Kept."}


def test_what_was_changed_after_the_question_stays(home: Home) -> None:
    kept = keep(home, "Shown.")
    shown = home.changes.list_since("2020-01-01")
    keep(home, "Meanwhile.")

    undone = home.changes.undo_since("2020-01-01", last=shown[0].id)

    assert [change.id for change in undone] == [change.id for change in shown]
    assert contents(home) == {"Meanwhile."}
    assert kept not in [m.id for m in home.lifecycle.list_memories()]


def test_what_was_built_upon_by_a_change_after_the_question_is_a_conflict_that_names_it(
    home: Home,
) -> None:
    kept = keep(home, "Shown.")
    shown = home.changes.list_since("2020-01-01")
    home.lifecycle.forget([kept])
    later = last(home)

    with pytest.raises(UndoConflictError) as raised:
        home.changes.undo_since("2020-01-01", last=shown[0].id)

    assert raised.value.first == (later,)


def test_a_memory_that_was_changed_since_comes_back_step_by_step(home: Home) -> None:
    memory = keep(home, "One.")
    threads = [home.threads.create_thread(title).id for title in ("Work", "Home")]
    home.lifecycle.move([memory], threads[0])
    first_move = last(home)
    home.lifecycle.move([memory], threads[1])
    second_move = last(home)
    home.lifecycle.forget([memory])
    forgotten = last(home)

    assert conflict(home, second_move).first == (forgotten,)
    assert follow(home, first_move).first == (forgotten, second_move)

    assert home.lifecycle.get_memory(memory).thread_id is None


def test_a_change_that_was_undone_and_done_again_is_undone_as_it_stands(home: Home) -> None:
    memory = keep(home, "One.")
    stored = last(home)
    home.lifecycle.forget([memory])
    forgotten = last(home)
    home.changes.undo(forgotten)
    home.changes.undo(last(home))

    follow(home, stored)

    assert contents(home) == set()


def test_a_thread_that_holds_something_goes_after_what_it_holds(home: Home) -> None:
    thread = home.threads.create_thread("Work").id
    created = last(home)
    keep(home, "One.", thread)
    keep(home, "Two.", thread)
    home.messages.save(thread, [NewMessage("user", "Hello")])
    keep(home, "Elsewhere.")

    error = follow(home, created)

    assert len(error.first) == 3
    assert contents(home) == {"Elsewhere."}
    assert home.threads.list_threads() == []


@pytest.mark.parametrize("memories", ["forget", "global"])
def test_a_thread_that_was_deleted_with_what_it_held_is_undone_after_both(
    home: Home, memories: str
) -> None:
    thread = home.threads.create_thread("Harbour")
    created = last(home)
    keep(home, "Low tide at noon.", thread.id)
    kept = last(home)
    home.threads.delete(thread.id, memories)
    deleted = last(home)

    assert follow(home, created).first == (deleted, kept)
    assert (contents(home), home.check()) == (set(), [])


def test_what_was_undone_in_between_need_not_be_done_again(home: Home) -> None:
    home.curator.add_entry("User Facts", "Likes plums.")
    added = last(home)
    home.curator.replace_entry("User Facts", "Likes plums.", "Likes pears.")
    replaced = last(home)
    for _ in range(2):
        home.curator.add_entry("User Facts", "Has a boat.")
        home.changes.undo(last(home))

    assert follow(home, added).first == (replaced,)
    assert "pears" not in home.documents.read("MEMORY.md")


def test_what_comes_back_into_a_thread_that_is_gone_comes_after_the_thread(home: Home) -> None:
    thread = home.threads.create_thread("Work").id
    memory = keep(home, "One.", thread)
    home.lifecycle.forget([memory])
    forgotten = last(home)
    home.threads.delete(thread, "forget")
    deleted = last(home)

    with pytest.raises(UndoConflictError) as raised:
        home.lifecycle.restore([memory])
    assert raised.value.first == (deleted,)
    assert follow(home, forgotten).first == (deleted,)

    assert contents(home) == {"One."}


def test_an_entry_that_was_edited_later_is_undone_after_that(home: Home) -> None:
    home.curator.add_entry("User Facts", "Has a cat.")
    added = last(home)
    home.curator.add_entry("Preferences", "Likes tea.")
    home.curator.replace_entry("User Facts", "Has a cat.", "Has two cats.")
    replaced = last(home)

    error = follow(home, added)

    assert error.first == (replaced,)
    assert "cat" not in home.documents.read("MEMORY.md")
    assert "Likes tea." in home.documents.read("MEMORY.md")


def test_what_a_hand_edited_says_what_to_put_back(home: Home) -> None:
    home.curator.add_entry("User Facts", "Has a cat.")
    added = last(home)
    path = home.path / "MEMORY.md"
    path.write_text(path.read_text("utf-8").replace("Has a cat.", "Has a hat."), encoding="utf-8")

    error = conflict(home, added)
    assert error.first == ()
    assert "put '- Has a cat.' back" in str(error)

    path.write_text(path.read_text("utf-8").replace("Has a hat.", "Has a cat."), encoding="utf-8")
    home.changes.undo(added)
    assert "cat" not in home.documents.read("MEMORY.md")


def test_what_no_change_explains_advises_no_undo(home: Home) -> None:
    memory = keep(home, "One.")
    with home.repository.recording():
        home.repository.memories.delete_memories([memory])

    error = conflict(home, last(home))

    assert error.first == ()
    assert "later changes first" not in str(error)
    assert "by hand" in str(error)


def test_a_conflict_with_very_many_changes_is_said_briefly(home: Home) -> None:
    thread = home.threads.create_thread("Work").id
    created = last(home)
    for n in range(50):
        keep(home, f"Note {n}.", thread)

    error = conflict(home, created)

    assert len(error.first) == 50
    assert " and 30 before them" in str(error)
    assert len(str(error)) < 500
