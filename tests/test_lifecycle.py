"""Memories revised, replaced, moved, forgotten, expired, and all of it undone."""

from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from typing import Literal
from unicodedata import normalize

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from conftest import TickingClock
from engine import database_of
from examples import DEAR
from soulkeep.app import open_home
from soulkeep.documents.markdown import date_footer, list_entries
from soulkeep.errors import (
    ChangeNotFoundError,
    InvalidInputError,
    MemoryNotFoundError,
    ThreadNotFoundError,
    UndoConflictError,
)
from soulkeep.models import Memory, NewMemory, Options
from soulkeep.service.edits import linked_id, without_link
from soulkeep.service.home import Home


def keep(home: Home, content: str, thread_id: str | None = None) -> int:
    return home.memories.remember([NewMemory(content, thread_id=thread_id)])[0].id


def recalled(home: Home, query: str, thread_id: str | None = None) -> list[str]:
    return [m.memory.content for m in home.memories.recall(query, thread_id=thread_id).matches]


def contents(home: Home) -> dict[int, str]:
    return {memory.id: memory.content for memory in home.lifecycle.list_memories(limit=1000)}


def last(home: Home) -> int:
    return home.changes.list_changes(1)[0].id


def test_a_revision_takes_the_place_of_the_old_version_which_stays_in_the_history(home: Home) -> None:
    thread = home.threads.create_thread("Pets")
    old = keep(home, "The cat is called Miso.", thread.id)

    receipt = home.lifecycle.revise(old, "The cat is called Momo.")

    assert (receipt.stored, receipt.replaced) == (True, (old,))
    assert recalled(home, "cat") == ["The cat is called Momo."]
    assert home.lifecycle.get_memory(receipt.id).thread_id == thread.id
    assert [(past.memory.content, past.replaced_by) for past in home.lifecycle.history(receipt.id)] == [
        ("The cat is called Miso.", receipt.id)
    ]
    assert home.check() == []


def test_one_memory_replaces_several(home: Home) -> None:
    ids = [keep(home, f"Draft {number} of the plan.") for number in range(3)]

    (receipt,) = home.memories.remember([NewMemory("The plan is final.")], replaces=ids)

    assert receipt.replaced == tuple(ids)
    assert contents(home) == {receipt.id: "The plan is final."}
    assert {past.memory.id for past in home.lifecycle.list_trash()} == set(ids)
    home.changes.undo(last(home))
    assert set(contents(home)) == set(ids)
    assert home.check() == []


@pytest.mark.parametrize("replaces", [[99], [1, 99]])
def test_replacing_what_is_not_there_changes_nothing(home: Home, replaces: list[int]) -> None:
    keep(home, "Here to stay.")
    before = last(home)

    with pytest.raises(MemoryNotFoundError):
        home.memories.remember([NewMemory("New.")], replaces=replaces)
    with pytest.raises(InvalidInputError, match="single memory"):
        home.memories.remember([NewMemory("New."), NewMemory("Newer.")], replaces=[1])

    assert contents(home) == {1: "Here to stay."}
    assert last(home) == before


def test_a_forgotten_memory_is_out_of_recall_and_comes_back_as_it_was(home: Home) -> None:
    kept = home.memories.remember(
        [
            NewMemory(
                "Miso is the cat.", "preference", source="me", subject="Miso", occurred_at="2025-05-04"
            )
        ]
    )[0].id
    before = home.lifecycle.get_memory(kept)

    assert home.lifecycle.forget([kept]).memories == (before,)
    assert recalled(home, "cat") == []
    assert [past.memory for past in home.lifecycle.list_trash()] == [before]
    with pytest.raises(MemoryNotFoundError):
        home.lifecycle.forget([kept])

    assert home.lifecycle.restore([kept]).memories == (before,)
    assert recalled(home, "cat") == ["Miso is the cat."]
    assert home.lifecycle.list_trash() == []
    with pytest.raises(MemoryNotFoundError):
        home.lifecycle.restore([kept])
    assert home.check() == []


@pytest.mark.embedder
def test_forgetting_very_much_gives_back_the_space_of_the_vectors(
    make_home: Callable[..., Home],
) -> None:
    home = make_home(embedder="universal")
    for begin in range(0, 1_500, 500):
        home.memories.remember([NewMemory(f"Note {begin + n}.") for n in range(500)])
    home.queue.work_off()
    gone = [n for n in range(1, 1_501) if n % 5]

    for begin in range(0, len(gone), 600):
        home.lifecycle.forget(gone[begin : begin + 600])

    assert home.repository.count_rows()["vectors"] == 300
    assert home.repository.wasted() == 0
    assert home.check() == []


def test_forgetting_is_all_or_nothing(home: Home) -> None:
    kept = keep(home, "Here to stay.")

    with pytest.raises(MemoryNotFoundError):
        home.lifecycle.forget([kept, 99])
    with pytest.raises(InvalidInputError):
        home.lifecycle.forget([])

    assert contents(home) == {kept: "Here to stay."}


def test_an_entry_of_a_document_is_changed_in_its_document_only(home: Home) -> None:
    home.curator.add_entry("User Facts", "The user lives in Lisbon.")
    (entry,) = [m.memory for m in home.memories.recall("Lisbon").matches]

    for act in (
        lambda: home.lifecycle.forget([entry.id]),
        lambda: home.lifecycle.move([entry.id], None),
        lambda: home.memories.remember([NewMemory("Porto.")], replaces=[entry.id]),
    ):
        with pytest.raises(InvalidInputError, match=r"MEMORY\.md"):
            act()
    assert home.lifecycle.list_memories() == []


def test_a_memory_moves_between_threads_and_the_global_scope(home: Home) -> None:
    first, second = (home.threads.create_thread(title).id for title in ("One", "Two"))
    kept = keep(home, "The harbour is frozen.", first)

    (moved,) = home.lifecycle.move([kept], second).memories

    assert (moved.id, moved.thread_id) == (kept, second)
    assert recalled(home, "harbour", first) == []
    assert recalled(home, "harbour", second) == ["The harbour is frozen."]
    home.lifecycle.move([kept], None)
    assert recalled(home, "harbour", first) == ["The harbour is frozen."]
    with pytest.raises(ThreadNotFoundError):
        home.lifecycle.move([kept], "nowhere")
    home.changes.undo(last(home))
    assert recalled(home, "harbour", first) == []
    assert home.check() == []


def test_a_memory_whose_time_has_passed_is_in_the_trash(home: Home, clock: TickingClock) -> None:
    soon = (clock() + timedelta(hours=1)).isoformat()
    home.memories.remember([NewMemory("The shop is closed today.", expires_at=soon)])
    keep(home, "The shop sells bread.")
    assert len(recalled(home, "shop")) == 2

    clock.now += timedelta(hours=2)

    assert recalled(home, "shop") == ["The shop sells bread."]
    (past,) = home.lifecycle.list_trash()
    assert past.memory.content == "The shop is closed today."
    assert home.check() == []


def test_what_has_expired_is_not_recalled_while_another_process_writes(
    make_home: Callable[..., Home], clock: TickingClock
) -> None:
    home, other = make_home(), make_home()
    soon = (clock() + timedelta(hours=1)).isoformat()
    home.memories.remember([NewMemory("The shop is closed today.", expires_at=soon)])
    clock.now += timedelta(hours=2)

    with other.repository.transaction():
        assert recalled(home, "shop") == []
        assert home.lifecycle.list_trash() == []
    assert recalled(home, "shop") == []
    assert len(home.lifecycle.list_trash()) == 1


def test_memories_are_listed_in_pages_by_thread_type_subject_and_source(home: Home) -> None:
    thread = home.threads.create_thread("Work").id
    home.memories.remember(
        [
            NewMemory(
                f"Note {n}.", "decision" if n % 2 else "fact", thread if n < 4 else None, "me", "Ada"
            )
            for n in range(10)
        ]
    )
    keep(home, "Another.")
    listed = home.lifecycle.list_memories

    assert [m.id for m in listed(limit=4)] == [11, 10, 9, 8]
    assert [m.id for m in listed(limit=4, below=8)] == [7, 6, 5, 4]
    assert [m.id for m in listed(memory_type="decision", subject="Ada")] == [10, 8, 6, 4, 2]
    assert len(listed(source="me")) == 10
    assert [m.id for m in listed(since="2020-01-01", until="2020-01-02")] == []


def test_every_change_is_listed_with_who_made_it(home: Home) -> None:
    session = home.sessions.open("claude-desktop")
    home.memories.remember([NewMemory("One.")], session)
    home.lifecycle.forget([1])
    home.prompts.add_prompt("Brief", "Be brief.")
    home.threads.create_thread("Work")

    assert [(c.action, c.agent_id) for c in home.changes.list_changes()] == [
        ("thread.created", "soulkeep"),
        ("prompt.created", "soulkeep"),
        ("memory.forgotten", "soulkeep"),
        ("memory.stored", "claude-desktop"),
    ]
    (row,) = home.repository.changes.rows_of(2)
    assert isinstance(row.before, Memory)
    assert row.before.content == "One."


def test_an_undo_can_be_undone(home: Home) -> None:
    kept = keep(home, "The cat is called Miso.")
    home.lifecycle.revise(kept, "The cat is called Momo.")
    revised = last(home)

    home.changes.undo(revised)
    assert recalled(home, "cat") == ["The cat is called Miso."]
    with pytest.raises(InvalidInputError, match="already"):
        home.changes.undo(revised)

    home.changes.undo(last(home))
    assert recalled(home, "cat") == ["The cat is called Momo."]
    assert home.changes.list_changes()[2].undone_by is None
    assert home.check() == []


def test_a_change_that_was_built_upon_is_not_undone_alone(home: Home) -> None:
    thread = home.threads.create_thread("Work")
    created = last(home)
    kept = keep(home, "A note.", thread.id)
    stored = last(home)
    home.lifecycle.forget([kept])

    with pytest.raises(UndoConflictError, match="later changes first"):
        home.changes.undo(stored)
    home.changes.undo(last(home))
    with pytest.raises(UndoConflictError):
        home.changes.undo(created)
    with pytest.raises(ChangeNotFoundError):
        home.changes.undo(999)
    assert contents(home) == {kept: "A note."}


def test_everything_since_a_moment_is_undone(home: Home, clock: TickingClock) -> None:
    kept = keep(home, "Old and dear.")
    clock.now += timedelta(days=1)
    moment = clock().isoformat()
    thread = home.threads.create_thread("Work").id
    home.lifecycle.revise(kept, "Worse.")
    home.changes.undo(last(home))
    home.lifecycle.move([kept], thread)
    home.prompts.set_prompt("Brief", "Be brief.")
    home.prompts.set_prompt("Brief", priority=3)

    undone = home.changes.undo_since(moment)

    assert len(undone) == 6
    assert contents(home) == {kept: "Old and dear."}
    assert home.prompts.list_prompts(include_inactive=True) == []
    assert home.repository.count_rows()["threads"] == 0
    assert home.check() == []
    home.changes.undo(last(home))
    assert [prompt.priority for prompt in home.prompts.list_prompts()] == [3]


@pytest.mark.parametrize("act", ["change", "deactivate", "remove"])
def test_prompts_come_back_as_they_were(home: Home, act: str) -> None:
    prompt = home.prompts.add_prompt("Brief", "Be brief.", 5)
    if act == "remove":
        home.prompts.remove_prompt(prompt.id)
    elif act == "change":
        home.prompts.set_prompt("Brief", "Be long.", priority=1)
    else:
        home.prompts.change_prompt(prompt.id, is_active=False)

    home.changes.undo(last(home))

    assert home.prompts.list_prompts(include_inactive=True) == [prompt]


def test_what_is_older_than_the_retention_is_gone_for_good(
    tmp_path_factory: pytest.TempPathFactory, clock: TickingClock
) -> None:
    path = tmp_path_factory.mktemp("kept") / "home"
    with closing(open_home(path, clock=clock, options=Options(retention_days=30))) as home:
        home.lifecycle.forget([keep(home, "A secret.")])
        clock.now += timedelta(days=31)
        keep(home, "Something else.")

        assert home.lifecycle.list_trash() == []
        assert [change.action for change in home.changes.list_changes()] == ["memory.stored"]
        assert home.check() == []


def test_the_audit_holds_no_text_of_what_was_changed(home: Home) -> None:
    kept = keep(home, "A word like zanzibar.")
    home.lifecycle.revise(kept, "Another word: zanzibar.")
    home.lifecycle.forget([2])
    home.changes.undo(last(home))

    rows = database_of(home).execute("SELECT event, details FROM audit_log")
    assert {"memory.stored", "memory.forgotten", "change.undone"} <= {row[0] for row in rows}
    assert "zanzibar" not in str(rows)


class LifeMachine(RuleBasedStateMachine):
    """Random changes and undos, against snapshots of store and documents after each change."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.home = open_home(self.folder.name + "/home", embedder="none")
        self.number = self.changes = 0
        self.snapshots = [self.snapshot()]

    def snapshot(self) -> tuple[list[tuple[int, str, str, str]], str, dict[str, str]]:
        rows = self.home.lifecycle.list_memories(limit=1000)
        memories = sorted((m.id, m.content, m.thread_id or "", m.created_at) for m in rows)
        text = date_footer(self.home.documents.read("MEMORY.md"), "")
        logs = {day: self.home.documents.read_daily(day) for day in self.home.documents.list_daily()}
        written = {str(day): log for day, log in logs.items() if log and log.count("\n") > 1}
        return memories, text, written

    def done(self) -> None:
        """Take a snapshot of what was changed; a memory that stands in a section is promoted already."""
        changes = len(self.home.changes.list_changes(1_000))
        if changes > self.changes:
            self.changes = changes
            self.snapshots.append(self.snapshot())
        assert self.snapshot() == self.snapshots[-1]

    def ids(self) -> list[int]:
        return [row[0] for row in self.snapshot()[0]]

    def some_id(self, data: st.DataObject) -> int:
        """Draw an id of a memory, perhaps that of an older version."""
        former = [past.memory.id for past in self.home.lifecycle.list_trash() if past.replaced_by]
        there = [i for i in former if self.home.lifecycle.find_memory(i)]
        return data.draw(st.sampled_from([*self.ids(), *there]))

    def entries(self) -> list[str]:
        """Return the entries of a section that stand there once, and so can be told apart."""
        found = list_entries(self.home.documents.read("MEMORY.md"))
        texts = [entry.text for entry in found if entry.heading == "User Facts"]
        return [text for text in texts if texts.count(text) == 1]

    @rule(count=st.integers(1, 3))
    def remember(self, count: int) -> None:
        self.number += count
        self.home.memories.remember([NewMemory(f"Note {self.number - n}.") for n in range(count)])
        self.done()

    @precondition(lambda self: self.ids())
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        self.home.lifecycle.forget(
            data.draw(st.lists(st.sampled_from(self.ids()), min_size=1, unique=True))
        )
        self.done()

    @precondition(lambda self: self.ids())
    @rule(data=st.data())
    def revise(self, data: st.DataObject) -> None:
        self.number += 1
        self.home.lifecycle.revise(self.some_id(data), f"Note {self.number}.")
        self.done()

    @precondition(lambda self: self.ids())
    @rule(data=st.data())
    def restore_something(self, data: st.DataObject) -> None:
        if trash := self.home.lifecycle.list_trash():
            self.home.lifecycle.restore([data.draw(st.sampled_from([past.memory.id for past in trash]))])
            self.done()

    @rule(lines=st.integers(1, 3))
    def add_entry(self, lines: int) -> None:
        self.number += 1
        self.home.curator.add_entry(
            "User Facts", "\n".join(f"Fact {self.number}, {n}" for n in range(lines))
        )
        self.done()

    @precondition(lambda self: self.ids())
    @rule(data=st.data(), section=st.sampled_from(["User Facts", "Preferences"]))
    def promote(self, data: st.DataObject, section: str) -> None:
        self.home.curator.promote(data.draw(st.sampled_from(self.ids())), section)
        self.done()

    @precondition(lambda self: self.entries())
    @rule(data=st.data())
    def replace_entry(self, data: st.DataObject) -> None:
        self.number += 1
        old = data.draw(st.sampled_from(self.entries()))
        self.home.curator.replace_entry("User Facts", old, f"Fact {self.number}")
        self.done()

    @precondition(lambda self: self.entries())
    @rule(data=st.data())
    def remove_entry(self, data: st.DataObject) -> None:
        self.home.curator.replace_entry("User Facts", data.draw(st.sampled_from(self.entries())), None)
        self.done()

    @rule()
    def log_day(self) -> None:
        self.number += 1
        self.home.curator.log_day(f"Did {self.number}.")
        self.done()

    @precondition(lambda self: len(self.snapshots) > 1)
    @rule()
    def undo_the_latest(self) -> None:
        self.home.changes.undo(self.home.changes.list_changes(1)[0].id)
        assert self.snapshot() == self.snapshots[-2]
        self.done()

    @invariant()
    def a_promoted_line_says_what_its_memory_says(self) -> None:
        for entry in list_entries(self.home.documents.read("MEMORY.md")):
            linked = linked_id(entry.text)
            if linked is not None and entry.text.startswith("Note "):
                assert self.home.lifecycle.get_memory(linked).content == without_link(entry.text).strip()

    @invariant()
    def the_store_is_whole(self) -> None:
        assert self.home.check() == []

    def teardown(self) -> None:
        self.home.changes.undo_since("2020-01-01")
        assert self.snapshot() == self.snapshots[0]
        self.home.close()
        self.folder.cleanup()


TestLife = LifeMachine.TestCase
TestLife.settings = DEAR


@pytest.mark.parametrize(("kept", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_memories_about_a_subject_are_listed_however_its_accents_are_written(
    home: Home, kept: Literal["NFC", "NFD"], asked: Literal["NFC", "NFD"]
) -> None:
    subject = normalize(kept, "Zoë Müller")
    home.memories.remember([NewMemory("Rows.", subject=subject), NewMemory("Runs.", subject="Zoe")])

    (memory,) = home.lifecycle.list_memories(subject=normalize(asked, "Zoë Müller"))

    assert memory.subject == subject


@pytest.mark.parametrize("asked", ["Zoë", "Zoe\u0308"])
def test_a_subject_is_one_however_its_accents_are_written(home: Home, asked: str) -> None:
    home.memories.remember(
        [
            NewMemory("Likes tea.", subject="Zoë"),
            NewMemory("Likes tea!", subject="Zoe\u0308"),
            NewMemory("Likes tea?", subject="Ben"),
        ]
    )

    matches = home.memories.recall(f"What does {asked} like?").matches

    assert [match.reasons.get("subject", 0) > 0 for match in matches] == [True, True, False]
