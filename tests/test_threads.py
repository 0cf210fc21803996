"""Threads renamed, given prompts, archived, gone on with and deleted; all of it undone."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from conftest import TickingClock
from engine import database_of
from examples import DEAR
from soulkeep.app import open_home
from soulkeep.errors import InvalidInputError, ThreadNotFoundError, UndoConflictError
from soulkeep.models import NewMemory, NewMessage, Thread
from soulkeep.service.home import Home

Act = Callable[[Home, str], object]

ACTS: dict[str, Act] = {
    "rename": lambda home, thread: home.threads.rename(thread, "Renamed"),
    "prompt": lambda home, thread: home.threads.set_prompt(thread, "Be brief."),
    "unprompt": lambda home, thread: home.threads.set_prompt(thread, None),
    "archive": lambda home, thread: home.threads.set_archived(thread, archived=True),
    "make global": lambda home, thread: home.threads.delete(thread, "global"),
    "forget": lambda home, thread: home.threads.delete(thread, "forget"),
    "save": lambda home, thread: home.messages.save(thread, [NewMessage("user", "More.")]),
}


def furnished(home: Home) -> Thread:
    thread = home.threads.create_thread("Harbour", "Speak of ships.")
    home.memories.remember(
        [NewMemory("The harbour is frozen.", thread_id=thread.id), NewMemory("Ships are global.")]
    )
    home.messages.save(thread.id, [NewMessage("user", "Is it frozen?"), NewMessage("tool", "Yes.")])
    return home.repository.threads.get_thread(thread.id)


def snapshot(home: Home) -> tuple[object, ...]:
    """Return all that a user could see of threads, but their activity."""
    threads = home.threads.list_threads(limit=1000, archived=None)
    return (
        sorted((t.id, t.title, t.system_prompt, t.archived, t.created_at) for t in threads),
        sorted(home.lifecycle.list_memories(limit=1000)),
        {t.id: home.messages.list_messages(t.id).messages for t in threads},
    )


def last(home: Home) -> int:
    return home.changes.list_changes(1)[0].id


def test_a_thread_is_renamed_and_given_a_prompt_that_can_be_taken_away(home: Home) -> None:
    thread = home.threads.create_thread("Old")

    assert home.threads.rename(thread.id, "  New ").title == "New"
    assert home.threads.set_prompt(thread.id, "Be brief.").system_prompt == "Be brief."
    assert home.threads.set_prompt(thread.id, None).system_prompt is None


@pytest.mark.embedder
def test_an_archived_thread_is_listed_apart_and_its_memories_are_still_recalled(home: Home) -> None:
    thread = furnished(home)
    other = home.threads.create_thread("Other")

    assert home.threads.set_archived(thread.id, archived=True).archived

    assert [t.id for t in home.threads.list_threads()] == [other.id]
    assert [t.id for t in home.threads.list_threads(archived=True)] == [thread.id]
    assert len(home.memories.recall("frozen harbour", thread_id=thread.id).matches) == 2
    home.threads.set_archived(thread.id, archived=False)
    assert {t.id for t in home.threads.list_threads()} == {thread.id, other.id}


def test_a_thread_goes_on_from_its_last_messages_and_weightiest_memories(home: Home) -> None:
    thread = home.threads.create_thread("Work", "Be exact.")
    for kind in ("preference", "fact", "decision", "summary"):
        home.memories.remember([NewMemory(f"{kind} {n}", kind, thread.id) for n in range(7)])
    home.memories.remember([NewMemory("Global.")])
    home.messages.save(thread.id, [NewMessage("user", f"Line {n}") for n in range(15)])

    digest = home.threads.resume(thread.id, messages=3)

    assert digest.thread.system_prompt == "Be exact."
    assert [message.content for message in digest.messages] == ["Line 12", "Line 13", "Line 14"]
    assert [memory.content for memory in digest.memories] == [
        f"{kind} {n}" for kind in ("decision", "summary", "fact", "preference") for n in (6, 5, 4, 3, 2)
    ]


def test_the_memories_of_a_deleted_thread_become_global(home: Home) -> None:
    thread = furnished(home)

    deleted = home.threads.delete(thread.id, "global")

    assert (deleted.thread, deleted.memory_ids, deleted.message_count) == (thread, (1,), 2)
    found = [m.memory for m in home.memories.recall("frozen harbour").matches]
    assert (found[0].id, found[0].thread_id) == (1, None)
    with pytest.raises(ThreadNotFoundError):
        home.messages.list_messages(thread.id)
    assert home.repository.count_rows()["messages"] == 0
    assert home.check() == []


def test_the_memories_of_a_deleted_thread_go_to_the_trash(home: Home) -> None:
    thread = furnished(home)

    deleted = home.threads.delete(thread.id, "forget")

    assert [past.memory.id for past in home.lifecycle.list_trash()] == [1]
    with pytest.raises(UndoConflictError):
        home.lifecycle.restore([1])
    home.changes.undo(deleted.change_id)
    assert home.lifecycle.list_trash() == []
    assert home.memories.recall("frozen", include_messages=True).messages[0].thread_id == thread.id
    assert home.check() == []


@pytest.mark.parametrize("act", ACTS)
def test_each_change_is_undone_and_done_again(home: Home, act: str) -> None:
    thread = furnished(home)
    before = snapshot(home)
    ACTS[act](home, thread.id)
    after = snapshot(home)
    assert after != before

    home.changes.undo(last(home))
    assert snapshot(home) == before
    assert home.check() == []

    home.changes.undo(last(home))
    assert snapshot(home) == after
    assert home.check() == []


@pytest.mark.parametrize("act", ["rename", "prompt", "archive"])
def test_a_change_of_a_thread_is_undone_alone_after_it_was_used(home: Home, act: str) -> None:
    thread = furnished(home)
    ACTS[act](home, thread.id)
    change = last(home)
    home.memories.remember([NewMemory("Later.", thread_id=thread.id)])
    used = home.repository.threads.get_thread(thread.id).last_active_at

    home.changes.undo(change)

    now = home.repository.threads.get_thread(thread.id)
    assert (now.title, now.system_prompt, now.archived) == ("Harbour", "Speak of ships.", False)
    assert now.last_active_at == used


def test_all_is_taken_back_to_a_moment(home: Home, clock: TickingClock) -> None:
    thread = furnished(home)
    before = snapshot(home)
    clock.now += timedelta(days=1)
    moment = clock().isoformat()
    home.threads.rename(thread.id, "Renamed")
    home.messages.save(thread.id, [NewMessage("user", "More.")])
    home.threads.create_thread("Another")
    home.memories.remember([NewMemory("Later.", thread_id=thread.id)])
    home.threads.delete(thread.id, "global")
    home.lifecycle.forget([1])

    home.changes.undo_since(moment)

    assert snapshot(home) == before
    assert home.check() == []


def test_a_thread_that_holds_messages_is_not_undone_alone(home: Home) -> None:
    thread = home.threads.create_thread("Work")
    created = last(home)
    home.messages.save(thread.id, [NewMessage("user", "Hello")])

    with pytest.raises(UndoConflictError):
        home.changes.undo(created)


def test_messages_do_not_come_back_into_a_thread_that_is_gone(home: Home) -> None:
    thread = home.threads.create_thread("Work")
    home.messages.save(thread.id, [NewMessage("user", "Hello")])
    home.changes.undo(last(home))
    undo = last(home)
    home.threads.delete(thread.id, "global")
    deletion = last(home)

    with pytest.raises(UndoConflictError):
        home.changes.undo(undo)
    assert home.repository.count_rows()["messages"] == 0
    home.changes.undo(deletion)
    home.changes.undo(undo)
    assert [m.content for m in home.messages.list_messages(thread.id).messages] == ["Hello"]
    assert home.check() == []


def test_what_cannot_be_done_says_what_to_send_and_changes_nothing(home: Home) -> None:
    thread = furnished(home)
    before = snapshot(home)

    for act in (
        lambda: home.threads.rename(thread.id, " "),
        lambda: home.threads.rename(thread.id, "x" * 201),
        lambda: home.threads.set_prompt(thread.id, ""),
        lambda: home.threads.delete(thread.id, "both"),
        lambda: home.threads.resume(thread.id, 101),
    ):
        with pytest.raises(InvalidInputError):
            act()
    for wrong in ACTS.values():
        with pytest.raises(ThreadNotFoundError):
            wrong(home, "nowhere")

    assert snapshot(home) == before


def test_a_thread_belongs_to_no_client(make_home: Callable[..., Home]) -> None:
    first, second = make_home(), make_home()
    thread = first.threads.create_thread("Shared", session=first.sessions.open("one"))
    other = second.sessions.open("two")

    second.messages.save(thread.id, [NewMessage("user", "From two.")], other)
    second.threads.rename(thread.id, "Ours", other)

    assert first.threads.resume(thread.id).thread.title == "Ours"
    assert [c.agent_id for c in first.changes.list_changes()] == ["two", "two", "one"]
    first.threads.delete(thread.id, "global")
    assert second.threads.list_threads(archived=None) == []


def test_the_audit_holds_no_text_of_threads_and_messages(home: Home) -> None:
    thread = home.threads.create_thread("Work")
    home.threads.rename(thread.id, "zanzibar")
    home.threads.set_prompt(thread.id, "zanzibar")
    home.messages.save(thread.id, [NewMessage("user", "zanzibar")])
    home.threads.delete(thread.id, "forget")

    rows = database_of(home).execute("SELECT event, details FROM audit_log")
    assert {"thread.renamed", "message.stored", "thread.deleted"} <= {row[0] for row in rows}
    assert "zanzibar" not in str(rows)


class ThreadMachine(RuleBasedStateMachine):
    """Random changes of threads and undos, against snapshots of what there was after each."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.home = open_home(self.folder.name + "/home", embedder="none")
        self.number = 0
        self.snapshots = [snapshot(self.home)]

    def done(self) -> None:
        self.snapshots.append(snapshot(self.home))

    def ids(self) -> list[str]:
        return [thread.id for thread in self.home.threads.list_threads(archived=None)]

    def text(self) -> str:
        self.number += 1
        return f"Text {self.number}."

    @rule()
    def create(self) -> None:
        self.home.threads.create_thread(self.text())
        self.done()

    @precondition(lambda self: self.ids())
    @rule(
        data=st.data(),
        what=st.sampled_from(["title", "prompt", "memory", "message", "global", "forget"]),
    )
    def change(self, data: st.DataObject, what: str) -> None:
        thread = data.draw(st.sampled_from(self.ids()))
        if what == "title":
            self.home.threads.rename(thread, self.text())
        elif what == "prompt":
            self.home.threads.set_prompt(thread, self.text())
        elif what == "memory":
            self.home.memories.remember([NewMemory(self.text(), thread_id=thread)])
        elif what == "message":
            self.home.messages.save(thread, [NewMessage("user", self.text()) for _ in range(2)])
        else:
            self.home.threads.delete(thread, what)
        self.done()

    @precondition(lambda self: len(self.snapshots) > 1)
    @rule()
    def undo_the_latest(self) -> None:
        self.home.changes.undo(last(self.home))
        assert snapshot(self.home) == self.snapshots[-2]
        self.done()

    @invariant()
    def the_store_is_whole(self) -> None:
        assert self.home.check() == []

    def teardown(self) -> None:
        self.home.changes.undo_since("2020-01-01")
        assert snapshot(self.home) == self.snapshots[0]
        self.home.close()
        self.folder.cleanup()


TestThreads = ThreadMachine.TestCase
TestThreads.settings = DEAR
