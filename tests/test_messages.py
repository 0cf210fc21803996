"""Messages of threads: kept once, read in pages, found by recall, undone."""

import tempfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import TickingClock
from engine import another_program, database_of, file_of
from examples import DEAR
from soulkeep.app import open_home
from soulkeep.errors import InvalidInputError, ThreadNotFoundError
from soulkeep.models import NewMemory, NewMessage
from soulkeep.service.home import Home
from soulkeep.service.threads import Saved

ANY_TEXT = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1),
    st.sampled_from(["👩‍👩‍👧 family", "日本語のメッセージ", "שלום", "a\r\nb\u2028c", "word " * 20_000]),
).filter(str.strip)


def said(*contents: str) -> list[NewMessage]:
    """Return messages of a user and an assistant in turn."""
    return [NewMessage("assistant" if n % 2 else "user", text) for n, text in enumerate(contents)]


def dated(*contents: str) -> list[NewMessage]:
    return [NewMessage("user", text, f"2026-02-03T10:{n:02}:00Z") for n, text in enumerate(contents)]


def held(home: Home, thread_id: str) -> list[str]:
    return [message.content for message in home.messages.list_messages(thread_id, 200).messages]


def thread_of(home: Home, title: str = "Work") -> str:
    return home.threads.create_thread(title).id


def test_messages_keep_role_content_date_and_tokens_under_one_session(
    home: Home, clock: TickingClock
) -> None:
    thread = thread_of(home)
    client = home.sessions.open("claude")

    saved = home.messages.save(
        thread, [NewMessage("user", "Hello there"), NewMessage("tool", "42", "2026-02-03")], client
    )
    home.messages.save(thread, [NewMessage("system", "Later.")])

    assert saved == [Saved(1, stored=True), Saved(2, stored=True)]
    first, second, third = home.messages.list_messages(thread).messages
    assert (first.role, first.content, second.role) == ("user", "Hello there", "tool")
    assert second.created_at == "2026-02-03T00:00:00.000Z"
    assert all(message.token_count for message in (first, second, third))
    assert first.session_id == second.session_id == third.session_id
    (row,) = database_of(home).execute(
        "SELECT agent_id, model FROM sessions WHERE session_key = ?", (f"thread:{thread}",)
    )
    assert row == ("claude", "unknown")
    now = home.repository.threads.get_thread(thread)
    assert now.last_active_at == third.created_at > now.created_at
    assert home.check() == []


def test_messages_are_read_from_the_newest_page_back(home: Home) -> None:
    thread = thread_of(home)
    home.messages.save(thread, said(*(f"Line {n}" for n in range(7))))

    page = home.messages.list_messages(thread, 3)
    older = home.messages.list_messages(thread, 3, before=page.messages[0].id)
    oldest = home.messages.list_messages(thread, 3, before=older.messages[0].id)

    contents = [[m.content for m in one.messages] for one in (page, older, oldest)]
    assert contents == [
        ["Line 4", "Line 5", "Line 6"],
        ["Line 1", "Line 2", "Line 3"],
        ["Line 0"],
    ]
    assert [page.has_more, older.has_more, oldest.has_more] == [True, True, False]


@pytest.mark.parametrize(
    ("first", "second", "stored"),
    [
        (said("a", "b"), said("a", "b"), []),
        (said("a", "b"), said("a", "b", "c"), ["c"]),
        (said("a", "b", "c"), said("a", "b", "c", "d", "e"), ["d", "e"]),
        (said("a", "b", "c"), [NewMessage("user", "c")], []),
        (said("a", "b", "c"), [NewMessage("assistant", "c")], ["c"]),
        (said("yes", "b"), said("yes"), ["yes"]),
        (said("yes", "b", "c", "d"), said("yes", "b"), ["yes", "b"]),
        (said("a"), said("a", "b", "a"), ["b", "a"]),
        (dated("a", "b", "c"), dated("a", "b"), []),
        (dated("a", "b", "c"), dated("a"), []),
        (dated("a"), [NewMessage("user", "a", "2026-02-04T10:00:00Z")], ["a"]),
        (dated("a"), said("a"), []),
        ([NewMessage("user", "yes", "2026-02-03"), *said("b")], dated("yes"), ["yes"]),
    ],
)
def test_what_is_sent_again_is_recognised_and_what_is_said_again_is_kept(
    home: Home, first: list[NewMessage], second: list[NewMessage], stored: list[str]
) -> None:
    thread = thread_of(home)
    home.messages.save(thread, first)

    saved = home.messages.save(thread, second)

    assert len(saved) == len(second)
    assert [m.content for m, one in zip(second, saved, strict=True) if one.stored] == stored
    assert held(home, thread) == [m.content for m in first] + stored


def test_a_list_may_say_the_same_twice(home: Home) -> None:
    thread, again = thread_of(home), [NewMessage("user", "again")]

    assert all(one.stored for one in home.messages.save(thread, again * 3))
    assert [one.stored for one in home.messages.save(thread, again * 4)] == [False] * 3 + [True]


def test_sending_known_messages_again_is_no_change(home: Home) -> None:
    thread = thread_of(home)
    home.messages.save(thread, said("a", "b"))
    before = home.changes.list_changes()[0], home.repository.threads.get_thread(thread)

    home.messages.save(thread, said("a", "b"))

    assert (home.changes.list_changes()[0], home.repository.threads.get_thread(thread)) == before


@pytest.mark.parametrize(
    "messages",
    [
        [],
        said("x") * 201,
        [NewMessage("robot", "x")],
        said("x", " "),
        said("x", "a\0b"),
        said("x" * 100_001),
        said(*["x" * 99_999] * 11),
        [NewMessage("user", "x", "yesterday")],
    ],
    ids=["none", "too many", "role", "blank", "nul", "long", "long together", "date"],
)
def test_messages_that_break_a_rule_are_refused_together(home: Home, messages: list[NewMessage]) -> None:
    thread = thread_of(home)

    with pytest.raises(InvalidInputError):
        home.messages.save(thread, messages)

    assert held(home, thread) == []


def test_a_thread_that_is_not_there_is_named(home: Home) -> None:
    with pytest.raises(ThreadNotFoundError):
        home.messages.save("nowhere", said("a"))
    with pytest.raises(ThreadNotFoundError):
        home.messages.list_messages("nowhere")
    with pytest.raises(InvalidInputError):
        home.messages.list_messages(thread_of(home), 0)


def test_recall_finds_messages_only_where_they_are_asked_for(home: Home) -> None:
    one, two = thread_of(home), thread_of(home, "Other")
    home.memories.remember([NewMemory("The harbour has a crane.")])
    home.messages.save(one, said("Is the harbour frozen?", "It is."))
    home.messages.save(two, said("The harbour is open.", *(f"harbour {n}" for n in range(9))))

    assert home.memories.recall("harbour").messages == ()
    (found,) = home.memories.recall("harbour", thread_id=one, include_messages=True).messages
    assert (found.message.content, found.thread_id) == ("Is the harbour frozen?", one)
    everywhere = home.memories.recall("frozen harbour", include_messages=True)
    assert len(everywhere.matches) == 1
    assert len(everywhere.messages) == 5
    assert everywhere.messages[0].message == found.message
    scores = [match.score for match in everywhere.messages]
    assert scores == sorted(scores, reverse=True)


def test_dates_limit_the_messages_that_recall_finds(home: Home) -> None:
    thread = thread_of(home)
    home.messages.save(
        thread,
        [NewMessage("user", f"harbour {day}", f"2026-02-{day:02}") for day in (1, 2, 3)],
    )

    found = home.memories.recall(
        "harbour", since="2026-02-02", until="2026-02-02", include_messages=True
    )

    assert [match.message.content for match in found.messages] == ["harbour 2"]


def test_messages_that_are_taken_back_are_not_found(home: Home) -> None:
    thread = thread_of(home)
    home.messages.save(thread, said("The harbour is frozen."))
    change = home.changes.list_changes(1)[0]
    assert change.action == "messages.saved"

    home.changes.undo(change.id)
    assert home.memories.recall("harbour", include_messages=True).messages == ()
    assert held(home, thread) == []
    assert home.check() == []

    home.changes.undo(home.changes.list_changes(1)[0].id)
    assert len(home.memories.recall("harbour", include_messages=True).messages) == 1
    assert home.check() == []


def test_lost_words_of_messages_are_a_fault_that_reindex_mends(home: Home) -> None:
    home.messages.save(thread_of(home), said("The harbour is frozen.", "So it is."))
    with home.repository.transaction():
        database_of(home).execute("DELETE FROM messages_fts WHERE rowid = 1")
        database_of(home).execute("INSERT INTO messages_fts (rowid, content) VALUES (9, 'x')")

    (fault,) = home.check()
    assert fault.name == "full text of messages"
    assert fault.detail == "1 message is not indexed, 1 entry has no message"
    home.indexes.reindex()
    assert home.check() == []
    assert len(home.memories.recall("harbour", include_messages=True).messages) == 1


def test_the_columns_of_sessions_and_messages_stay_as_they_are(home: Home) -> None:
    home.messages.save(thread_of(home), said("Hello"))

    other = another_program(file_of(home))
    columns = [row[1] for row in other.execute("PRAGMA table_info(messages)")]
    assert columns == ["id", "session_id", "role", "content", "created_at", "token_count"]


def test_two_processes_append_to_one_thread(make_home: Callable[..., Home]) -> None:
    first, second = make_home(), make_home()
    thread = thread_of(first)

    for n in range(10):
        (first, second)[n % 2].messages.save(thread, said(f"Line {n}"))

    assert held(second, thread) == [f"Line {n}" for n in range(10)]
    assert first.check() == []


@DEAR
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=5))
def test_any_text_comes_back_as_it_was(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = open_home(folder, embedder="none")
        thread = thread_of(home)

        home.messages.save(thread, said(*texts))
        again = home.messages.save(thread, said(*texts))

        assert held(home, thread) == texts
        assert not any(one.stored for one in again)
        assert home.check() == []
        home.changes.undo_since("2020-01-01")
        assert home.repository.count_rows()["messages"] == 0
        assert home.check() == []
        home.close()
