"""Lines of MEMORY.md that memories were promoted to: they go, change and come back with them."""

from datetime import timedelta
from typing import Any

import pytest

from conftest import TickingClock
from engine import Page, database_of
from soulkeep.documents.markdown import date_footer, list_entries
from soulkeep.errors import UndoConflictError
from soulkeep.models import NewMemory
from soulkeep.service.callers import LineChange
from soulkeep.service.home import Home


@pytest.fixture
def home(home_anywhere: Home) -> Home:
    """A home whose MEMORY.md has a promoted line between two others."""
    home = home_anywhere
    home.memories.remember([NewMemory("The cat is called Miso."), NewMemory("The dog is called Rex.")])
    home.curator.add_entry("User Facts", "Lives in Lisbon.")
    home.curator.promote(1, "User Facts")
    home.curator.add_entry("User Facts", "Likes plums.")
    return home


of_files = pytest.mark.parametrize("home_anywhere", ["folder"], indirect=True)


def lines(home: Home) -> list[str]:
    return [entry.text.partition(" ([")[0] for entry in list_entries(home.documents.read("MEMORY.md"))]


def text(home: Home) -> str:
    return date_footer(home.documents.read("MEMORY.md"), "")


def recalled(home: Home, query: str = "cat called") -> list[str]:
    found = home.memories.recall(query).matches
    return sorted(match.memory.content for match in found if "cat" in match.memory.content)


def by_hand(home: Home, old: str, new: str) -> None:
    path = Page(home, "MEMORY.md")
    path.write_text(path.read_text().replace(old, new))


def undo_latest(home: Home) -> None:
    home.changes.undo(home.changes.list_changes(1)[0].id)


MISO = ["Lives in Lisbon.", "The cat is called Miso.", "Likes plums."]
OTHERS = ["Lives in Lisbon.", "Likes plums."]


def test_the_line_of_a_forgotten_memory_goes_and_comes_back_with_an_undo(home: Home) -> None:
    before = text(home)

    forgotten = home.lifecycle.forget([1])

    assert forgotten.lines == (LineChange(1, "User Facts", "removed"),)
    assert lines(home) == OTHERS
    assert recalled(home) == []
    home.changes.undo(forgotten.change_id)
    assert text(home) == before
    assert recalled(home) == ["The cat is called Miso."]
    undo_latest(home)
    assert lines(home) == OTHERS
    assert home.check() == []


def test_the_line_of_a_revised_memory_changes_with_it(home: Home) -> None:
    before = text(home)

    receipt = home.lifecycle.revise(1, "The cat is called Momo.")

    assert receipt.lines == (LineChange(1, "User Facts", "changed"),)
    assert lines(home) == ["Lives in Lisbon.", "The cat is called Momo.", "Likes plums."]
    assert "soulkeep://memories/3" in text(home)
    assert recalled(home) == ["The cat is called Momo."]
    home.lifecycle.revise(1, "The cat is called Mochi.")
    assert recalled(home) == ["The cat is called Mochi."]
    for change in home.changes.list_changes(2):
        home.changes.undo(change.id)
    assert text(home) == before
    assert home.check() == []


def test_a_restored_memory_has_its_line_again(home: Home) -> None:
    before = text(home)
    home.lifecycle.forget([1, 2])
    home.curator.add_entry("User Facts", "Later.")
    home.curator.replace_entry("User Facts", "Later.", None)

    restored = home.lifecycle.restore([1])

    assert restored.lines == (LineChange(1, "", "back"),)
    assert text(home) == before
    home.changes.undo(restored.change_id)
    assert lines(home) == OTHERS


def test_a_line_whose_place_is_gone_is_missed_and_the_memory_comes_back(home: Home) -> None:
    home.lifecycle.forget([1])
    for entry in OTHERS:
        home.curator.replace_entry("User Facts", entry, None)
    by_hand(home, "## User Facts", "## Facts")

    assert home.lifecycle.restore([1]).lines == (LineChange(1, "", "missing"),)
    assert recalled(home) == ["The cat is called Miso."]


@pytest.mark.parametrize("act", ["forget", "revise", "replace"])
def test_a_line_that_was_edited_by_hand_stays(home: Home, act: str) -> None:
    by_hand(home, "called Miso.", "called Miso, aged 7.")
    before = text(home)

    changed: Any
    if act == "forget":
        changed = home.lifecycle.forget([1])
    elif act == "revise":
        changed = home.lifecycle.revise(1, "The cat is called Momo.")
    else:
        (changed,) = home.memories.remember([NewMemory("No cat.")], replaces=[1, 2])

    assert changed.lines == (LineChange(1, "User Facts", "kept"),)
    assert text(home) == before
    undo_latest(home)
    assert text(home) == before


def test_a_hand_that_only_wraps_or_moves_a_line_has_not_edited_it(home: Home) -> None:
    by_hand(home, "The cat is called Miso.", "The cat is\n  called Miso.")
    by_hand(home, "## Preferences", "## Likes")

    assert home.lifecycle.forget([1]).lines == (LineChange(1, "User Facts", "removed"),)
    assert lines(home) == OTHERS


def test_lines_of_several_that_one_replaces_become_one_in_each_section(home: Home) -> None:
    home.curator.promote(2, "User Facts")
    home.curator.promote(2, "Preferences")

    (receipt,) = home.memories.remember([NewMemory("A cat and a dog.")], replaces=[1, 2])

    assert sorted(change.outcome for change in receipt.lines) == ["changed", "changed", "removed"]
    assert lines(home).count("A cat and a dog.") == 2
    assert recalled(home) == ["A cat and a dog."]
    undo_latest(home)
    assert lines(home) == [*MISO, "The dog is called Rex.", "The dog is called Rex."]
    assert home.check() == []


def test_a_text_that_no_line_can_hold_takes_the_line_away(home: Home) -> None:
    receipt = home.lifecycle.revise(1, "The cat has a long story. " * 500)

    assert receipt.lines == (LineChange(1, "User Facts", "removed"),)
    assert lines(home) == OTHERS


def test_the_line_of_what_has_expired_goes_too(home: Home, clock: TickingClock) -> None:
    home.lifecycle.revise(1, expires_at="2026-03-02")
    clock.now += timedelta(days=3)

    assert recalled(home) == []
    assert lines(home) == OTHERS
    undo_latest(home)
    assert recalled(home) == ["The cat is called Miso."]
    assert lines(home) == MISO


def test_the_lines_of_a_deleted_thread_go_with_its_memories(home: Home) -> None:
    thread = home.threads.create_thread("Pets").id
    home.lifecycle.move([1], thread)
    assert lines(home) == MISO

    deleted = home.threads.delete(thread, "forget")

    assert deleted.lines == (LineChange(1, "User Facts", "removed"),)
    assert lines(home) == OTHERS
    home.changes.undo(deleted.change_id)
    assert lines(home) == MISO


def test_undoing_what_stored_a_promoted_memory_takes_its_line(home: Home) -> None:
    home.memories.remember([NewMemory("The cat purrs.")])
    stored = home.changes.list_changes(1)[0].id
    home.curator.promote(3, "Preferences")

    home.changes.undo(stored)

    assert "The cat purrs." not in lines(home)
    undo_latest(home)
    assert lines(home)[-1] == "The cat purrs."
    home.changes.undo_since("2020-01-01")
    assert lines(home) == []


def test_an_older_id_promotes_the_newest_version(home: Home) -> None:
    home.lifecycle.revise(2, "The dog is called Max.")

    assert "soulkeep://memories/3" in home.curator.promote(2, "Preferences").entry


@pytest.mark.parametrize("is_forgotten", [True, False])
@pytest.mark.parametrize("how", ["removed", "undone", "reworded"])
def test_a_line_does_not_come_back_after_its_memory_went(
    home: Home, how: str, is_forgotten: bool
) -> None:
    line = next(
        entry.text for entry in list_entries(home.documents.read("MEMORY.md")) if "Miso" in entry.text
    )
    if how == "undone":
        home.changes.undo(
            next(c.id for c in home.changes.list_changes() if c.action == "entry.promoted")
        )
    else:
        home.curator.replace_entry("User Facts", line, None if how == "removed" else "Cats are fine.")
    edited = home.changes.list_changes(1)[0].id
    before = text(home)
    if is_forgotten:
        home.lifecycle.forget([1])
    else:
        home.lifecycle.revise(1, "The cat is called Momo.")
    later = home.changes.list_changes(1)[0].id

    with pytest.raises(UndoConflictError) as raised:
        home.changes.undo(edited)

    assert raised.value.first == (later,)
    assert text(home) == before
    home.changes.undo(later)
    home.changes.undo(edited)
    assert lines(home) == MISO
    assert home.check() == []


def test_a_stale_line_of_an_older_version_follows_too(home: Home) -> None:
    home.lifecycle.revise(1, "The cat is called Momo.")
    by_hand(
        home,
        "called Momo. ([memory 3](soulkeep://memories/3))",
        "called Miso. ([memory 1](soulkeep://memories/1))",
    )

    assert home.lifecycle.revise(3, "The cat is called Mochi.").lines[0].outcome == "changed"
    assert recalled(home) == ["The cat is called Mochi."]


@of_files
def test_a_document_that_may_not_be_written_keeps_the_memory_too(home: Home) -> None:
    from soulkeep.errors import DocumentError

    path = home.path / "MEMORY.md"
    path.chmod(0o400)
    with pytest.raises(DocumentError, match="read-only"):
        home.lifecycle.forget([1])
    home.lifecycle.forget([2])
    path.chmod(0o600)

    assert [memory.id for memory in home.lifecycle.list_memories()] == [1]
    assert lines(home) == MISO
    assert home.check() == []


@of_files
def test_where_the_store_cannot_take_it_the_line_is_as_it_was(home: Home) -> None:
    before = text(home)
    database_of(home).execute(
        "CREATE TRIGGER full BEFORE INSERT ON changes BEGIN SELECT raise(ABORT, 'no'); END"
    )

    with pytest.raises(Exception, match="no"):
        home.lifecycle.forget([1])

    database_of(home).execute("DROP TRIGGER full")
    assert text(home) == before
    assert home.lifecycle.get_memory(1).id == 1


@pytest.mark.parametrize("content", ["- The cat is called Tom.", "* The cat is called Tom."])
def test_a_memory_with_a_list_marker_of_its_own_keeps_its_line_in_step(home: Home, content: str) -> None:
    home.memories.remember([NewMemory(content)])
    home.curator.promote(3, "Preferences")
    assert recalled(home, "Tom") == [content]

    home.lifecycle.revise(3, "- The cat is called Tim.")
    assert lines(home)[-1] == "The cat is called Tim."
    assert home.purges.purge([3]).lines == 1
    assert lines(home) == MISO
