"""Edits of documents in the log of changes: listed, and taken back whatever the user wrote since."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
from mcp import Client

from conftest import Run, TickingClock
from engine import Page, database_of, file_of
from soulkeep.documents import log_name
from soulkeep.errors import DocumentError, StoreFullError, UndoConflictError
from soulkeep.models import NewMemory
from soulkeep.repository.sqlite.changes import Recording
from soulkeep.service.callers import Sessions
from soulkeep.service.home import Home

MINE = "# Memory\n\n## Facts\n- one\n- two\n\n## Plans\n- three\n\n---\n*Last updated: 2026-01-01*\n"


@pytest.fixture
def home(home_anywhere: Home) -> Home:
    return home_anywhere


of_files = pytest.mark.parametrize("home_anywhere", ["folder"], indirect=True)
"""For what only files can do, or what asks the file of the store."""


@pytest.fixture
def memory(home: Home) -> Page:
    page = Page(home, "MEMORY.md")
    page.write_bytes(MINE.encode())
    return page


def text_of(page: Page) -> str:
    """The text of a document without the day in its footer."""
    return page.read_text().replace("2026-03-01*", "2026-01-01*")


def texts(home: Home) -> dict[str, str]:
    names = home.documents.read_all()[0]
    return {name.rpartition("/")[2]: text_of(Page(home, name)) for name in names}


def last(home: Home) -> int:
    return home.changes.list_changes(1)[0].id


def undo(home: Home) -> None:
    home.changes.undo(last(home))


def test_every_edit_is_listed_with_who_made_it(home: Home, memory: Page) -> None:
    session = home.sessions.open("claude-desktop")
    (receipt,) = home.memories.remember([NewMemory("Four.")])
    home.curator.add_entry("Facts", "five", session)
    home.curator.replace_entry("Facts", "five", "six", session)
    home.curator.replace_entry("Facts", "six", None, session)
    home.curator.promote(receipt.id, "Facts", session)
    home.curator.log_day("Seven.", session)
    home.curator.learn("Be brief.", session)
    home.curator.add_to("SOUL.md", "Boundaries", "No jokes.")
    home.curator.restore("SOUL.md", home.documents.list_versions("SOUL.md")[0].id)

    changes = home.changes.list_changes()

    assert [(change.action, change.agent_id) for change in changes] == [
        ("document.restored", "soulkeep"),
        ("entry.added", "soulkeep"),
        ("preference.learned", "claude-desktop"),
        ("log.appended", "claude-desktop"),
        ("entry.promoted", "claude-desktop"),
        ("entry.removed", "claude-desktop"),
        ("entry.replaced", "claude-desktop"),
        ("entry.added", "claude-desktop"),
        ("memory.stored", "soulkeep"),
    ]
    rows = [row for change in changes[:-1] for row in home.repository.changes.rows_of(change.id)]
    assert {row.kind for row in rows} == {"documents"}
    assert [row.key for row in rows] == ["SOUL.md"] * 3 + ["daily/2026-03-01.md"] + ["MEMORY.md"] * 4


EDITS: list[Callable[[Home], object]] = [
    lambda home: home.curator.add_entry("Facts", "four"),
    lambda home: home.curator.add_entry("Facts", "of\nseveral\n\nlines"),
    lambda home: home.curator.replace_entry("Facts", "one", "1"),
    lambda home: home.curator.replace_entry("Facts", "one", None),
    lambda home: home.curator.replace_entry("Facts", "two", None),
    lambda home: home.curator.replace_entry("Plans", "three", None),
    lambda home: home.curator.learn("Be brief."),
    lambda home: home.curator.add_to("SOUL.md", "Core Values", "Patience."),
    lambda home: home.curator.log_day("Went on."),
]


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("form", ["{}", "\ufeff{}", "{}- last"])
def test_an_edit_is_undone_and_done_again_to_the_byte(
    form: str, end: str, edit: Callable[[Home], object], home: Home, memory: Page
) -> None:
    memory.write_bytes(form.format(MINE).replace("\n", end).encode())
    home.curator.log_day("Began.")
    before = texts(home)
    edit(home)
    after = texts(home)
    assert after != before

    undo(home)
    assert texts(home) == before
    undo(home)
    assert texts(home) == after
    undo(home)
    assert texts(home) == before
    assert home.check() == []


@pytest.mark.parametrize("edit", EDITS[:6])
def test_what_a_hand_wrote_since_stays(edit: Callable[[Home], object], home: Home, memory: Page) -> None:
    def by_hand(text: str) -> str:
        return "Preface\n" + text.replace("# Memory\n", "# Mine\n- by hand\n") + "\nThe end"

    edit(home)
    memory.write_bytes(by_hand(memory.read_bytes().decode()).encode())

    undo(home)

    assert text_of(memory) == by_hand(MINE)


def test_the_footer_gets_the_day_of_the_undo(home: Home, memory: Page, clock: TickingClock) -> None:
    home.curator.add_entry("Facts", "four")
    clock.now += timedelta(days=1)

    undo(home)

    assert memory.read_bytes().decode() == MINE.replace("2026-01-01", "2026-03-02")


def test_the_former_text_is_kept_by_an_undo_too(home: Home, memory: Page) -> None:
    home.curator.add_entry("Facts", "four")
    written = memory.read_bytes().decode()

    undo(home)

    newest = home.documents.list_versions("MEMORY.md")[0]
    assert home.documents.read_version("MEMORY.md", newest.id) == written


def test_an_edit_among_later_ones_is_undone_alone(home: Home, memory: Page) -> None:
    home.curator.add_entry("Facts", "four")
    wanted = last(home)
    home.curator.add_entry("Facts", "five")
    home.curator.replace_entry("Facts", "one", "1")

    home.changes.undo(wanted)

    facts = "## Facts\n- 1\n- two\n- five\n"
    assert facts in text_of(memory)
    undo(home)
    assert facts.replace("- five\n", "- four\n- five\n") in text_of(memory)


def test_what_was_edited_by_hand_is_a_conflict_that_changes_nothing(home: Home, memory: Page) -> None:
    home.curator.add_entry("Facts", "four")
    wanted = last(home)
    memory.write_text(text_of(memory).replace("- four", "- 4"))
    content = memory.read_bytes()

    with pytest.raises(UndoConflictError, match=r"what it did in MEMORY\.md .* or edit it by hand"):
        home.changes.undo(wanted)

    assert memory.read_bytes() == content
    assert last(home) == wanted
    assert home.changes.list_changes()[0].undone_by is None


def test_an_edit_that_was_built_upon_is_undone_after_the_later_one(home: Home, memory: Page) -> None:
    home.curator.add_entry("Facts", "four")
    first = last(home)
    home.curator.replace_entry("Facts", "four", "five")

    with pytest.raises(UndoConflictError):
        home.changes.undo(first)
    undo(home)
    home.changes.undo(first)

    assert text_of(memory) == MINE


def test_everything_since_a_moment_is_undone_in_documents_and_memories(
    home: Home, memory: Page, clock: TickingClock
) -> None:
    home.curator.add_entry("Facts", "old and dear")
    home.curator.log_day("Began.")
    (kept,) = home.memories.remember([NewMemory("Old and dear.")])
    before, others = texts(home), home.lifecycle.list_memories()
    clock.now += timedelta(minutes=1)
    moment = clock().isoformat()
    home.curator.promote(kept.id, "Plans")
    home.lifecycle.revise(kept.id, "Worse.")
    home.curator.replace_entry("Facts", "old and dear", "worse")
    home.curator.replace_entry("Facts", "worse", "worst")
    undo(home)
    home.curator.log_day("Went wrong.")
    home.curator.learn("Be rude.")
    home.curator.replace_entry("Facts", "one", None)
    after, latest = texts(home), home.lifecycle.list_memories()
    memory.write_text("By hand\n" + memory.read_text())

    assert len(home.changes.undo_since(moment)) == 8

    assert texts(home) == before | {"MEMORY.md": "By hand\n" + before["MEMORY.md"]}
    assert home.lifecycle.list_memories() == others
    undo(home)
    assert texts(home) == after | {"MEMORY.md": "By hand\n" + after["MEMORY.md"]}
    assert home.lifecycle.list_memories() == latest
    assert home.check() == []


def test_a_conflict_in_a_document_keeps_the_memories_as_they_are(home: Home, memory: Page) -> None:
    home.curator.add_entry("Facts", "four")
    home.memories.remember([NewMemory("Kept.")])
    home.curator.learn("Be brief.")
    memory.write_text(MINE)
    before, count = texts(home), len(home.changes.list_changes())

    with pytest.raises(UndoConflictError):
        home.changes.undo_since("2020-01-01")

    assert texts(home) == before
    assert [m.content for m in home.lifecycle.list_memories()] == ["Kept."]
    assert len(home.changes.list_changes()) == count


def test_a_conflict_in_a_memory_keeps_the_documents_as_they_are(home: Home, memory: Page) -> None:
    (kept,) = home.memories.remember([NewMemory("Kept.")])
    home.curator.add_entry("Facts", "four")
    with home.repository.recording():
        home.repository.memories.delete_memories([kept.id])
    before = memory.read_bytes()

    with pytest.raises(UndoConflictError):
        home.changes.undo_since("2020-01-01")

    assert memory.read_bytes() == before


@of_files
def test_a_document_that_cannot_be_written_takes_nothing_back(home: Home, memory: Page) -> None:
    home.memories.remember([NewMemory("Kept.")])
    home.curator.learn("Be brief.")
    home.curator.add_entry("Facts", "four")
    (home.path / "SOUL.md").chmod(0o444)
    before = texts(home)

    with pytest.raises(DocumentError, match=r"SOUL\.md: it is read-only"):
        home.changes.undo_since("2020-01-01")

    assert texts(home) == before
    assert len(home.lifecycle.list_memories()) == 1
    assert all(change.undone_by is None for change in home.changes.list_changes())


@of_files
def test_a_store_that_cannot_take_the_undo_leaves_the_documents_as_they_were(
    home: Home, memory: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.curator.add_entry("Facts", "four")
    home.curator.log_day("Went on.")
    before = texts(home)

    def refuse(*_: object) -> int:
        raise StoreFullError(file_of(home))

    with monkeypatch.context() as patched:
        patched.setattr(Recording, "save", refuse)
        with pytest.raises(StoreFullError):
            home.changes.undo_since("2020-01-01")
    assert texts(home) == before

    home.changes.undo_since("2020-01-01")
    assert text_of(memory) == MINE


@of_files
@pytest.mark.parametrize("place", ["elsewhere", "there"])
def test_a_hand_that_is_quicker_than_the_undo_wins(
    place: str, home: Home, memory: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.curator.add_entry("Facts", "four")
    note = Sessions.audit

    def audit(*arguments: object) -> None:
        old = "- four" if place == "there" else "- one"
        memory.write_text(text_of(memory).replace(old, "- by hand"))
        note(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Sessions, "audit", audit)
    if place == "there":
        with pytest.raises(UndoConflictError):
            undo(home)
        assert text_of(memory) == MINE.replace("- two\n", "- two\n- by hand\n")
    else:
        undo(home)
        assert text_of(memory) == MINE.replace("- one", "- by hand")


def test_the_undo_of_a_log_removes_the_very_entry(home: Home) -> None:
    for entry in ("One.", "Two.\n## With a heading", "Three."):
        home.curator.log_day(entry)
    log = Page(home, log_name(home.documents.today()))
    log.write_bytes(log.read_bytes() + b"\nBy hand.\n")

    home.changes.undo(2)
    assert log.read_bytes().decode() == (
        "# 2026-03-01\n\n## 12:00\n\n- One.\n\n## 12:00\n\n- Three.\n\nBy hand.\n"
    )
    home.changes.undo(1)
    home.changes.undo(3)
    assert log.read_bytes().decode() == "# 2026-03-01\n\nBy hand.\n"
    home.changes.undo_since("2020-01-01")
    assert log.read_bytes().decode() == "# 2026-03-01\n\nBy hand.\n"


@pytest.mark.parametrize("text", ["# 2026-03-01\n\n## 12:00\n\n- Else.\n", None])
def test_a_log_entry_that_was_edited_or_went_with_its_file_is_a_conflict(
    text: str | None, home: Home
) -> None:
    home.curator.log_day("One.")
    log = Page(home, log_name(home.documents.today()))
    log.unlink()
    if text is not None:
        log.write_text(text)

    with pytest.raises(UndoConflictError):
        undo(home)

    assert log.exists() == (text is not None)


def test_a_log_goes_on_after_one_without_a_last_line_end_and_back(home: Home) -> None:
    log = Page(home, log_name(home.documents.today()))
    log.write_bytes(b"By hand,\r\nno newline")
    home.curator.log_day("One.")
    log.write_bytes(log.read_bytes().replace(b"no newline", b"edited"))

    undo(home)

    assert log.read_bytes() == b"By hand,\r\nedited"


def test_an_edit_that_changes_nothing_is_no_change(home: Home, memory: Page) -> None:
    home.curator.replace_entry("Facts", "one", "one")

    assert home.changes.list_changes() == []


def test_a_restored_document_is_as_it_was_and_the_restore_can_be_undone(
    home: Home, memory: Page
) -> None:
    home.documents.edit("MEMORY.md", lambda _: "# Other\n\n- x\n\n---\n*Last updated: 2026-02-02*\n")
    other = text_of(memory)
    home.curator.restore("MEMORY.md", home.documents.list_versions("MEMORY.md")[0].id)
    assert memory.read_bytes().decode() == MINE

    undo(home)

    assert text_of(memory).replace("2026-01-01", "2026-02-02") == other


def test_of_a_long_document_only_the_place_is_recorded(home: Home, memory: Page) -> None:
    memory.write_text(MINE.replace("- two\n", "- two\n" + "- word\n" * 5_000))

    home.curator.replace_entry("Facts", "one", "1")

    (row,) = home.repository.changes.rows_of(last(home))
    assert len(json.dumps(row.before)) < 300


def test_what_is_older_than_the_retention_can_no_longer_be_undone(
    home: Home, memory: Page, clock: TickingClock
) -> None:
    home.curator.add_entry("Facts", "four")
    clock.now += timedelta(days=91)
    home.curator.add_entry("Facts", "five")

    home.changes.undo_since("2020-01-01")

    assert "- two\n- four\n\n" in text_of(memory)


def test_edits_of_two_servers_at_once_are_undone_in_their_order(
    make_home: Callable[..., Home],
) -> None:
    homes = [make_home(embedder="none") for _ in range(2)]
    before = texts(homes[0])

    def work(home: Home, word: str) -> None:
        for number in range(10):
            home.curator.add_entry("User Facts", f"{word} {number}")
            home.curator.replace_entry("User Facts", f"{word} {number}", f"{word} {number} anew")

    threads = [Thread(target=work, args=pair) for pair in zip(homes, "ab", strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(homes[0].changes.undo_since("2020-01-01")) == 40

    today = homes[0].documents.today().isoformat()
    assert texts(homes[1])["MEMORY.md"] == before["MEMORY.md"].replace(
        "(auto-updated by memory curator)", today
    ).replace("2026-03-01", "2026-01-01")


@of_files
def test_the_audit_holds_no_text_of_what_was_undone(home: Home, memory: Page) -> None:
    home.curator.add_entry("Facts", "a word like zanzibar")
    home.curator.add_to("SOUL.md", "Boundaries", "zanzibar too")
    home.curator.restore("SOUL.md", home.documents.list_versions("SOUL.md")[0].id)
    home.changes.undo_since("2020-01-01")

    rows = database_of(home).execute("SELECT event, details FROM audit_log")

    assert {"entry.added", "document.restored", "change.undone"} <= {row[0] for row in rows}
    assert "zanzibar" not in str(rows)


def test_an_undone_entry_is_no_longer_recalled(home: Home) -> None:
    home.curator.add_entry("User Facts", "The user lives in Lisbon.")
    assert len(home.memories.recall("Lisbon").matches) == 1

    undo(home)
    assert home.memories.recall("Lisbon").matches == ()
    undo(home)
    assert len(home.memories.recall("Lisbon").matches) == 1


def test_commands_that_edit_documents_are_undone_by_command(run: Run, home_path: Path) -> None:
    run("documents", "add", "SOUL.md", "Learned Preferences", "Short answers.")
    soul = (home_path / "SOUL.md").read_bytes()
    version = run("documents", "history", "SOUL.md")[1].splitlines()[1].split()[0]
    run("documents", "restore", "SOUL.md", version)

    out = run("changes")[1]
    restored, added = out.splitlines()[1:]
    assert 'document.restored  SOUL.md "(Updated as' in restored
    assert 'entry.added        SOUL.md "- Short answers.' in added
    out = run("undo", typed="n\n")[1]
    assert 'SOUL.md "(Updated as' in out
    assert "Undone: change 2 (document.restored)." in run("undo", "--yes")[1]
    assert (home_path / "SOUL.md").read_bytes() == soul
    assert "Undone: change 1 (entry.added)." in run("undo", typed="y\n")[1]
    assert "Short answers." not in run("documents", "show", "SOUL.md")[1]
    run("undo", "4", "--yes")
    assert "Short answers." in run("documents", "show", "SOUL.md")[1]


def test_the_command_shows_what_was_added_and_removed_and_tells_of_a_conflict(
    run: Run, home_path: Path
) -> None:
    path = home_path / "MEMORY.md"
    run("documents", "show", "MEMORY.md")
    path.write_text(MINE, encoding="utf-8")
    run("documents", "add", "MEMORY.md", "Facts", "four")

    assert 'MEMORY.md "- four" added\n' in run("undo", typed="n\n")[1]
    run("undo", "--yes")
    assert 'MEMORY.md "- four" removed\n' in run("undo", "2", typed="n\n")[1]
    run("undo", "2", "--yes")
    path.write_text(MINE, encoding="utf-8")
    code, _, err = run("undo", "3", "--yes")
    assert (code, err.count("\n"), "what it did in MEMORY.md" in err) == (1, 1, True)


async def test_tools_that_edit_documents_are_undone_by_tool(
    client: Client, home: Home, memory: Page
) -> None:
    async def call(tool: str, **arguments: object) -> str:
        result = await client.call_tool(tool, dict(arguments))
        assert not result.is_error, result.content
        return result.content[0].text  # type: ignore[union-attr]

    before = texts(home)
    await call("curate_memory", action="add", section="Facts", entry="four")
    await call("log_day", text="Went on.")
    await call("remember", content="Kept.")

    listed = await call("browse_memories", view="changes")
    kept, logged, added = listed.splitlines()[1:]
    assert kept.endswith(' memory.stored by mcp: #1 "Kept." added')
    assert " log.appended by mcp: daily/2026-03-01.md " in logged
    assert added.endswith(' entry.added by mcp: MEMORY.md "- four" added')
    assert ' entry.added by mcp: MEMORY.md "- four" added' in await call("undo", change_id=1)
    assert text_of(memory) == MINE
    await call("undo", since="2020-01-01")
    assert texts(home) == before | {"2026-03-01.md": "# 2026-03-01\n"}
    assert home.lifecycle.list_memories() == []


async def test_the_tool_tells_of_a_conflict(client: Client, home: Home, memory: Page) -> None:
    home.curator.add_entry("Facts", "four")
    memory.write_text(MINE)

    result = await client.call_tool("undo", {"change_id": 1})

    assert result.is_error
    assert "what it did in MEMORY.md was changed" in result.content[0].text  # type: ignore[union-attr]
    assert text_of(memory) == MINE
