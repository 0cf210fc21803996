"""Moving in from another memory server: once each, as one change, whatever cuts it off or is in it."""

import json
import os
import signal
import sys
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from conftest import Run
from forks import run_code
from soulkeep.app import open_home
from soulkeep.engines import opened_foreign
from soulkeep.errors import SourceError, ThreadNotFoundError, UndoConflictError
from soulkeep.progress import told_to
from soulkeep.service.home import Home
from soulkeep.service.imports import Imported, thread_id_of


def lines(path: Path, *values: object) -> Path:
    text = "".join(json.dumps(value) + "\n" for value in values)
    path.write_text(text, encoding="utf-8")
    return path


def entity(name: str, *observations: str) -> dict[str, object]:
    return {"type": "entity", "name": name, "entityType": "person", "observations": observations}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    relation = {"type": "relation", "from": "Anna", "to": "Acme", "relationType": "works_at"}
    anna = entity("Anna", "Is allergic to peanuts.", "Drinks tea.")
    return lines(tmp_path / "memory.jsonl", anna, relation)


def imported(run: Run, source: Path, *options: str) -> dict[str, Any]:
    code, out, err = run("import", str(source), *options, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)["import"]
    return found


def take(home: Home, source: Path, **options: Any) -> Imported:
    return home.imports.take(source, opened_foreign, **options)


def listed(run: Run) -> list[str]:
    found = json.loads(run("memories", "list", "--json")[1])["memories"]
    return [memory["content"] for memory in found[::-1]]


def added(report: dict[str, Any]) -> dict[str, int]:
    return {name: kind["added"] for name, kind in report["kinds"].items() if kind["added"]}


def new(report: Imported) -> dict[str, int]:
    return {name: kind.added for name, kind in report.kinds.items() if kind.added}


# Once, as one change


def test_a_second_run_adds_nothing_and_leaves_alone_what_was_changed_here(run: Run, graph: Path) -> None:
    assert added(imported(run, graph)) == {"memories": 3}
    run("memories", "revise", "2", "Drinks coffee.")
    run("memories", "forget", "3", "--yes")

    again = imported(run, graph)

    assert added(again) == {}
    assert again["change_id"] == 0
    assert listed(run) == ["Is allergic to peanuts.", "Drinks coffee."]


def test_a_later_run_adds_what_is_new_in_the_source(run: Run, graph: Path) -> None:
    imported(run, graph)
    lines(
        graph, entity("Anna", "Is allergic to peanuts.", "Drinks tea.", "Sings."), entity("Zoë", "Ok.")
    )

    assert added(imported(run, graph)) == {"memories": 2}
    assert listed(run)[3:] == ["Sings.", "Ok."]


def test_an_import_is_one_change_after_whose_undoing_everything_can_come_again(
    run: Run, graph: Path
) -> None:
    change = imported(run, graph)["change_id"]

    assert run("undo", str(change), "--yes")[0] == 0
    assert listed(run) == []
    assert added(imported(run, graph)) == {"memories": 3}
    assert len(json.loads(run("changes", "--json")[1])["changes"]) == 3


def test_an_import_that_was_undone_and_done_again_is_known_again(home: Home, graph: Path) -> None:
    change = take(home, graph).change_id
    home.changes.undo(change)
    home.changes.undo(home.changes.list_changes(1)[0].id)

    assert new(take(home, graph)) == {}
    assert home.count_rows()["memories"] == 3


def test_what_the_home_knows_already_is_not_kept_twice(run: Run, graph: Path) -> None:
    run("remember", "Drinks tea.", "--subject", "Anna")

    assert added(imported(run, graph)) == {"memories": 2}
    run("memories", "forget", "1", "--yes")
    assert added(imported(run, graph)) == {}


def test_a_dry_run_shows_what_would_come_by_kind_with_examples_and_writes_nothing(
    run: Run, graph: Path
) -> None:
    code, out, _ = run("import", str(graph), "--dry-run")

    assert code == 0
    assert "| Anna: Is allergic to peanuts." in out
    assert "undo" not in out
    assert listed(run) == []
    assert added(imported(run, graph, "--dry-run")) == {"memories": 3}
    assert added(imported(run, graph)) == {"memories": 3}
    assert added(imported(run, graph, "--dry-run")) == {}


def test_a_dry_run_touches_no_file_and_makes_no_home(
    run: Run, graph: Path, workspace: Path, tmp_path: Path
) -> None:
    folder, absent = Path(os.environ["SOULKEEP_HOME"]), tmp_path / "absent"
    run("memories", "list")
    before = {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}

    for source, count in ((graph, 3), (workspace, 6)):
        assert sum(added(imported(run, source, "--dry-run")).values()) == count
        code, out, err = run("--home", str(absent), "import", str(source), "--dry-run")
        assert (code, err) == (0, "")
        assert "NEW" in out

    assert {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")} == before
    assert not absent.exists()


def test_what_has_expired_does_not_come_so_that_all_can_be_undone(home: Home, tmp_path: Path) -> None:
    ends = ("2020-01-01", "2099-01-01", None)
    source = lines(tmp_path / "a.jsonl", *({"content": f"{end}", "expires_at": end} for end in ends))

    report = take(home, source)
    home.background.catch_up()
    home.changes.undo(report.change_id)

    assert new(report) == {"memories": 2}
    assert report.not_kept == {"memories whose time has passed": 1}
    assert home.count_rows()["memories"] == 0


def many(path: Path, count: int) -> Path:
    return lines(path, *(entity(f"E{n}", f"Sentence {n}.") for n in range(count)))


KILL = """
import os, signal, sys
from pathlib import Path
from soulkeep.app import open_home
from soulkeep.engines import opened_foreign
from soulkeep.service import imports

calls, imports.BATCH, last = 0, int(sys.argv[4]), int(sys.argv[5])

def die(*_):
    global calls
    calls += 1
    if calls == last:
        os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[3] == "between":
    imports.tell = die
else:
    note = imports.Imports._note
    imports.Imports._note = lambda *given: (note(*given), die())
open_home(sys.argv[1], embedder="none").imports.take(Path(sys.argv[2]), opened_foreign)
"""


def kill(home: Path, source: Path, where: str, batch: int, last: int) -> None:
    """Import in a process that is killed at the last of so many batches."""
    process = run_code(KILL, home, source, where, batch, last)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("where", "half"), [("between", 300), ("inside", 200)])
def test_an_import_killed_half_way_goes_on_and_is_one_change(
    where: str, half: int, tmp_path: Path
) -> None:
    source, path = many(tmp_path / "memory.jsonl", 450), tmp_path / "home"
    kill(path, source, where, 100, 3)
    home = open_home(path)
    assert home.count_rows()["memories"] == half

    report = take(home, source)

    assert new(report) == {"memories": 450 - half}
    assert [(c.id, c.rows) for c in home.changes.list_changes()] == [(report.change_id, 450)]
    home.changes.undo(report.change_id)
    assert home.count_rows()["memories"] == 0
    assert home.check() == []
    home.close()


class _StopError(Exception):
    pass


def cut_off(
    home: Home, source: Path, monkeypatch: pytest.MonkeyPatch, batches: int, size: int = 100
) -> None:
    done = 0

    def stop(*_: object) -> None:
        nonlocal done
        done += 1
        if done == batches:
            raise _StopError

    with monkeypatch.context() as patch:
        patch.setattr("soulkeep.service.imports.tell", stop)
        patch.setattr("soulkeep.service.imports.BATCH", size)
        with pytest.raises(_StopError):
            take(home, source)


def sources(folder: Path) -> dict[str, Path]:
    """Write much the same in the forms of several programs."""
    texts = [f"Sentence {n}." for n in range(9)]
    chats = [chat(str(n), text, "Yes.") for n, text in enumerate(texts)]
    for name in ("notes", "basic-memory", "workspace", "workspace/memory"):
        (folder / name).mkdir()
    (folder / "workspace" / "SOUL.md").write_text("# Soul\n\n## Vibe\n\n- Calm.\n")
    for n, text in enumerate(texts):
        (folder / "notes" / f"{n}.md").write_text(f"- {text}\n")
        (folder / "workspace" / "memory" / f"note-{n}.md").write_text(f"{text}\n")
        head = f"---\ntitle: T{n}\npermalink: main/{n}\n---\n"
        (folder / "basic-memory" / f"{n}.md").write_text(f"{head}\n- [fact] {text}\n")
    (folder / "mem0.json").write_text(json.dumps({"results": [{"id": t, "memory": t} for t in texts]}))
    (folder / "table.csv").write_text("content\n" + "\n".join(texts))
    lines(folder / "lines.jsonl", *({"content": text} for text in texts))
    lines(folder / "memory.jsonl", *(entity(f"E{n}", text) for n, text in enumerate(texts)))
    with zipfile.ZipFile(folder / "claude.zip", "w") as archive:
        archive.writestr("conversations.json", json.dumps(chats))
    with zipfile.ZipFile(folder / "chatgpt.zip", "w") as archive:
        archive.writestr("conversations.json", json.dumps([talk(str(n)) for n in range(9)]))
    with closing(apsw.Connection(str(folder / "sqlite_vec.db"))) as made:
        made.execute("CREATE TABLE memories (content_hash, content)")
        made.executemany("INSERT INTO memories VALUES ('h', ?)", ((text,) for text in texts))
    return {path.name: path for path in folder.iterdir()}


def talk(key: str) -> dict[str, object]:
    """A conversation of two messages in an export of ChatGPT."""
    said: dict[str, object] = {}
    for parent, place, role in ((None, "a", "user"), ("a", "b", "assistant")):
        message = {
            "id": f"{key}{place}",
            "author": {"role": role},
            "content": {"parts": [f"{role} {key}"]},
        }
        said[place] = {"id": place, "parent": parent, "message": message}
    return {"id": key, "title": f"Talk {key}", "mapping": said, "current_node": "b"}


FORMS = [
    *("notes", "basic-memory", "workspace", "mem0.json", "table.csv", "lines.jsonl", "memory.jsonl"),
    *("claude.zip", "chatgpt.zip", "sqlite_vec.db"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without signals")
@pytest.mark.parametrize("name", FORMS)
def test_each_form_goes_on_where_it_was_killed(name: str, home: Home, tmp_path: Path) -> None:
    (tmp_path / "forms").mkdir()
    source = sources(tmp_path / "forms")[name]
    kill(home.path, source, "between", 4, 1)
    half = home.count_rows()

    report = take(home, source)

    assert 0 < half["memories"] + half["messages"] < 9
    rows = home.count_rows()
    assert (rows["memories"], rows["messages"]) == ((0, 18) if name.endswith(".zip") else (9, 0))
    assert [change.id for change in home.changes.list_changes()] == [report.change_id]
    assert new(take(home, source)) == {}
    home.changes.undo(report.change_id)
    assert {home.count_rows()[kind] for kind in ("memories", "messages", "threads")} == {0}


def test_a_half_that_was_undone_is_not_gone_on_with(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = many(tmp_path / "memory.jsonl", 250)
    cut_off(home, source, monkeypatch, 2)
    (begun,) = home.changes.list_changes()
    assert begun.rows == 200
    home.changes.undo(begun.id)

    report = take(home, source)

    assert report.change_id > begun.id
    assert new(report) == {"memories": 250}
    assert home.changes.get_change(report.change_id).rows == 250


def test_what_is_done_meanwhile_is_a_change_of_its_own(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = many(tmp_path / "memory.jsonl", 150)
    cut_off(home, source, monkeypatch, 1)
    revised = home.lifecycle.revise(1, "Another sentence.")

    report = take(home, source)

    assert [c.rows for c in home.changes.list_changes()] == [2, 150]
    with pytest.raises(Exception, match=f"change {revised.change_id}|undo"):
        home.changes.undo(report.change_id)
    home.changes.undo(revised.change_id)
    home.changes.undo(report.change_id)
    assert home.count_rows()["memories"] == 0


def test_a_large_import_is_undone_as_a_whole_or_not_at_all_and_comes_back(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulkeep.service.changes._BULK", 10)
    change = take(home, many(tmp_path / "memory.jsonl", 45)).change_id
    revised = home.lifecycle.revise(45, "Another sentence.")
    with pytest.raises(UndoConflictError):
        home.changes.undo(change)
    assert home.count_rows()["memories"] == 45
    home.changes.undo(revised.change_id)

    told: list[float | None] = []
    with told_to(lambda doing, share: told.append(share if doing == "Undoing" else None)):
        home.changes.undo(change)
    assert told == [10 / 45, 20 / 45, 30 / 45, 40 / 45]
    assert home.count_rows()["memories"] == 0
    undo = home.changes.list_changes(1)[0]
    assert (undo.action, undo.rows) == ("undo", 45)
    home.changes.undo(undo.id)

    assert [m.content for m in home.lifecycle.list_memories(limit=1)] == ["Sentence 44."]
    assert home.count_rows()["memories"] == 45
    assert home.check() == []


# Conversations


def chat(key: str, *said: str) -> dict[str, object]:
    messages = [
        {"uuid": f"{key}-{n}", "sender": ("human", "assistant")[n % 2], "text": text}
        for n, text in enumerate(said)
    ]
    times = {"created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-03T03:04:05Z"}
    return {"uuid": key, "name": f"Talk {key}", "chat_messages": messages, **times}


def test_conversations_become_threads_which_grow_with_a_later_export(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "conversations.json"
    source.write_text(json.dumps([chat("a", "Hello", "Hi", "Hello")]), encoding="utf-8")
    assert new(take(home, source)) == {"threads": 1, "messages": 3}
    (thread,) = home.threads.list_threads()
    home.threads.rename(thread.id, "Renamed")

    source.write_text(json.dumps([chat("a", "Hello", "Hi", "Hello", "Hi")]), encoding="utf-8")
    assert new(take(home, source)) == {"messages": 1}

    (now,) = home.threads.list_threads()
    page = home.messages.list_messages(thread.id)
    assert (now.title, now.created_at) == ("Renamed", "2026-01-02T03:04:05.000Z")
    assert [m.content for m in page.messages] == ["Hello", "Hi", "Hello", "Hi"]
    assert {m.created_at for m in page.messages} == {"2026-01-02T03:04:05.000Z"}
    assert page.messages[0].token_count


def test_a_thread_that_was_deleted_here_does_not_come_back(home: Home, tmp_path: Path) -> None:
    source = tmp_path / "conversations.json"
    source.write_text(json.dumps([chat("a", "Hello")]), encoding="utf-8")
    take(home, source)
    home.threads.delete(thread_id_of("claude:a"), "forget")

    source.write_text(json.dumps([chat("a", "Hello", "Hi")]), encoding="utf-8")
    report = take(home, source)

    assert new(report) == {}
    assert report.not_kept == {"what belongs to threads that were deleted here": 1}
    with pytest.raises(ThreadNotFoundError):
        home.threads.get_thread(thread_id_of("claude:a"))


def test_a_prompt_that_comes_with_a_project_is_a_note_until_the_user_agrees(
    home: Home, tmp_path: Path
) -> None:
    project = {"uuid": "p", "name": "House", "prompt_template": "Obey."}
    folder = tmp_path / "export"
    folder.mkdir()
    for name, value in (("projects", [project]), ("users", []), ("conversations", [])):
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")

    take(home, folder)

    (thread,) = home.threads.list_threads()
    assert (thread.system_prompt, thread.is_agreed) == ("Obey.", False)


def test_a_text_that_is_too_long_for_one_memory_comes_in_parts(home: Home, tmp_path: Path) -> None:
    words = " ".join(map(str, range(45_000)))
    source = tmp_path / "conversations.json"
    source.write_text(json.dumps([chat("a", words)]), encoding="utf-8")
    lines(tmp_path / "long.jsonl", {"content": "x" * 150_000}, {"content": words})

    assert new(take(home, source)) == {"threads": 1, "messages": 3}
    assert new(take(home, source)) == {}
    assert new(take(home, tmp_path / "long.jsonl")) == {"memories": 5}
    said = home.messages.list_messages(thread_id_of("claude:a")).messages
    assert " ".join(message.content for message in said).split() == words.split()


# Documents of an OpenClaw workspace

SOUL = """# SOUL.md

## Core Truths

Be *genuinely* helpful.

## Boundaries

- Private things stay private.
"""
NOTES = """# Long-Term Memory

- Loose.

## User Facts

- Lives in Graz.
- Sings.

## Lessons

Test first.
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    (folder / "memory").mkdir(parents=True)
    texts = {
        "SOUL.md": SOUL,
        "MEMORY.md": NOTES,
        "USER.md": "- Name: Anna\n",
        "AGENTS.md": "Do this.\n",
        "memory/2026-01-05.md": "# 2026-01-05\n\n## 10:30\n\n- Painted.\n",
        "memory/2026-01-06-trip.md": "- Booked a train.\n",
        "memory/projects.md": "- Kitchen\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def texts_of(home: Home) -> dict[str, str]:
    daily = {path.name: path.read_text(encoding="utf-8") for path in home.path.glob("daily/*.md")}
    return {
        name: (home.path / name).read_text(encoding="utf-8") for name in ("SOUL.md", "MEMORY.md")
    } | daily


def test_a_workspaces_documents_are_added_to_the_users_own_and_can_be_taken_back(
    home: Home, workspace: Path
) -> None:
    home.curator.add_entry("User Facts", "Sings.")
    (home.path / "daily" / "2026-01-05.md").write_text("# 2026-01-05\n\n## 09:00\n\n- Slept.\n")
    before = texts_of(home)

    report = take(home, workspace)

    after = texts_of(home)
    assert new(report) == {"memories": 2, "documents": 4}
    assert report.not_kept == {"AGENTS.md": 1}
    for name, text in before.items():
        kept = [line for line in text.splitlines() if line and "Last updated" not in line]
        assert [line for line in after[name].splitlines() if line in kept] == kept
    assert "- Private things stay private.\n" in after["SOUL.md"]
    assert after["SOUL.md"].endswith("\n## Core Truths\n\nBe *genuinely* helpful.\n")
    assert after["MEMORY.md"].count("Sings.") == 1
    assert after["MEMORY.md"].index("Lives in Graz.") < after["MEMORY.md"].index("## Project Context")
    assert "## Lessons\n\nTest first.\n" in after["MEMORY.md"]
    assert after["MEMORY.md"].rstrip().splitlines()[-1].startswith("*Last updated: ")
    assert after["2026-01-05.md"] == before["2026-01-05.md"] + "\n## 10:30\n\n- Painted.\n"
    assert after["2026-01-06.md"] == "- Booked a train.\n"
    assert len(home.documents.list_versions("SOUL.md")) == 1
    assert new(take(home, workspace)) == {}
    assert texts_of(home) == after

    home.changes.undo(report.change_id)

    assert {name: texts_of(home)[name] for name in before} == before
    assert home.count_rows()["memories"] == 0


def test_a_line_that_was_taken_out_here_does_not_come_back(home: Home, workspace: Path) -> None:
    take(home, workspace)
    home.curator.replace_entry("Lessons", "Test first.", None)
    (workspace / "MEMORY.md").write_text(NOTES + "\nAnother.\n", encoding="utf-8")

    take(home, workspace)

    text = (home.path / "MEMORY.md").read_text(encoding="utf-8")
    assert "Test first." not in text
    assert "Another." in text


def test_all_that_an_import_did_to_a_document_is_undone_after_it_was_cut_off_too(
    home: Home, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = texts_of(home)
    cut_off(home, workspace, monkeypatch, 1)
    (workspace / "SOUL.md").write_text(SOUL + "- Ask first.\n", encoding="utf-8")

    report = take(home, workspace)

    assert "- Ask first." in texts_of(home)["SOUL.md"]
    home.changes.undo(report.change_id)
    assert texts_of(home)["SOUL.md"] == before["SOUL.md"]


# What must not be, or cannot be read


def refused(home: Home, source: Path, **options: Any) -> str:
    with pytest.raises(SourceError) as error:
        take(home, source, **options)
    return str(error.value)


def test_a_home_of_our_own_is_for_another_command(home: Home, tmp_path: Path) -> None:
    other = tmp_path / "other"
    open_home(other).close()

    for source in (other, other / "soulkeep.db"):
        assert "`soulkeep copy FROM TO`" in refused(home, source)
    assert "this home itself" in refused(home, home.path)
    assert "this home itself" in refused(home, home.path / "MEMORY.md")


def test_what_nobody_knows_is_refused_with_what_is_understood(home: Home, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0 and so on")
    (tmp_path / "empty.json").touch()
    (tmp_path / "folder").mkdir()
    with closing(apsw.Connection(str(tmp_path / "other.db"))) as other:
        other.execute("CREATE TABLE memories (x)")

    said = refused(home, tmp_path / "photo.jpg")
    assert "server-memory" in said
    assert "csv" in said
    assert "--format" in said
    assert "empty" in refused(home, tmp_path / "empty.json")
    assert "empty" in refused(home, tmp_path / "folder")
    assert "nothing of this name" in refused(home, tmp_path / "missing")
    assert "no file or folder" in refused(home, Path(os.devnull))
    assert "sqlite_vec.db" in refused(home, tmp_path / "other.db")


def test_a_broken_record_is_told_with_its_place_and_the_others_come(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "memory.jsonl"
    good = json.dumps(entity("Anna", "Sings."))
    source.write_bytes(
        f'{good}\n{{"type": "entity", \n{{"type": "entity"}}\n'.encode() + b"\xff\xfe\n[]\n"
    )

    report = imported(run, source)

    assert [problem["place"] for problem in report["problems"]] == [
        f"memory.jsonl:{number}" for number in (2, 3, 4, 5)
    ]
    assert listed(run) == ["Sings."]
    assert "4 records passed over:\n  memory.jsonl:2: is no JSON\n" in run("import", str(source))[1]


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        ('{"content": "a", }', "a.json:[1]"),
        ('{"content": nothing}', "a.json:[1]"),
        ("[" * 5_000 + "]" * 5_000, "a.json:[1]"),
        ('{"content": ["a"]}', "a.json:[1]"),
        ('{"content": "never ends', "a.json:[1]"),
    ],
)
def test_a_broken_value_in_a_list_is_told_by_its_number(
    broken: str, place: str, home: Home, tmp_path: Path
) -> None:
    (tmp_path / "a.json").write_text(f'[{{"content": "One."}}, {broken}, {{"content": "Two."}}]')

    report = take(home, tmp_path / "a.json")

    assert [problem.place for problem in report.problems] == [place]
    assert new(report) == {"memories": 1 if "ends" in broken else 2}


def test_signs_that_no_file_can_hold_are_left_out_and_counted(home: Home, tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", {"content": "One\0 two \ud83d."}, {"content": "\0"})

    report = take(home, tmp_path / "a.jsonl")

    assert [m.content for m in home.lifecycle.list_memories()] == ["One two \N{REPLACEMENT CHARACTER}."]
    assert report.not_kept == {"NUL characters": 2, "halves of characters": 1}
    assert report.problem_count == 1


def test_pages_in_other_encodings_are_told_or_read_by_their_mark(home: Home, tmp_path: Path) -> None:
    vault = tmp_path / "vault"
    vault.mkdir()
    (vault / "marked.md").write_bytes("- Über\n".encode("utf-16"))
    (vault / "old.md").write_bytes("- Über\n".encode("latin-1"))
    (vault / "long.md").write_text("- word\n" * 300_000)

    report = take(home, vault)

    assert [m.content for m in home.lifecycle.list_memories()] == ["Über"]
    assert [problem.place for problem in report.problems] == ["long.md", "old.md"]


def test_lines_and_values_beyond_all_measure_are_passed_over(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("reading", "values"):
        monkeypatch.setattr(f"soulkeep.imports.{module}.MAX_VALUE", 300_000)
    huge = {"content": 'quote " and slash \\ ' * 20_000}
    lines(tmp_path / "a.jsonl", {"content": "One."}, huge, {"content": "Two."})
    (tmp_path / "a.json").write_text(json.dumps([{"content": "Three."}, huge, {"content": "Four."}]))

    for name, count in (("a.jsonl", 2), ("a.json", 2)):
        report = take(home, tmp_path / name)
        assert new(report) == {"memories": count}
        assert "32 MiB" in report.problems[0].reason


def test_an_archive_that_would_expand_without_end_is_refused(home: Home, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", b"[" + b" " * 60_000_000)

    assert "200 times as large" in refused(home, tmp_path / "bomb.zip")


def test_a_home_that_lies_in_a_folder_of_notes_is_passed_over(home: Home, tmp_path: Path) -> None:
    (tmp_path / "own.md").write_text("- Mine.\n")
    open_home(tmp_path / "other").close()

    report = take(home, tmp_path)

    assert new(report) == {"memories": 1}
    assert {problem.place for problem in report.problems} == {"other/", f"{home.path.name}/"}


def test_nothing_outside_of_an_archive_or_folder_is_read_or_written(home: Home, tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("- A secret.\n")
    vault = tmp_path / "vault"
    (vault / "deep").mkdir(parents=True)
    (vault / "own.md").write_text("- Mine.\n")
    (vault / "link.md").symlink_to(secret)
    (vault / "up").symlink_to(tmp_path)
    (vault / "deep" / "circle").symlink_to(vault)
    (vault / "again.md").symlink_to(vault / "own.md")
    (vault / "gone.md").symlink_to(vault / "nowhere.md")
    os.mkfifo(vault / "pipe.md")
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        for name in ("../../out.md", "/root.md", "C:\\out.md", "in.md"):
            archive.writestr(zipfile.ZipInfo(name), f"- {name}\n")

    report = take(home, vault)
    assert new(report) == {"memories": 2}
    assert [problem.place for problem in report.problems] == ["up", "gone.md", "link.md", "pipe.md"]
    packed = take(home, tmp_path / "notes.zip")
    assert new(packed) == {"memories": 1}
    assert packed.problem_count == 3
    assert not (tmp_path.parent / "out.md").exists()


def test_a_damaged_archive_gives_what_can_be_read_or_says_so(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.md", "- Right.\n")
        archive.writestr("b.md", "- Wrong.\n")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"- Wrong.", b"- Wrong!"))

    report = take(home, path)
    assert "- Right." not in [problem.reason for problem in report.problems]
    assert [problem.place for problem in report.problems] == ["b.md"]
    path.write_bytes(content[: len(content) // 2])
    assert "zip" in refused(home, path) or "nobody knows" in refused(home, path)


def test_a_foreign_database_is_only_read(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "sqlite_vec.db"
    with closing(apsw.Connection(str(path))) as made:
        made.pragma("journal_mode", "wal")
        made.execute("CREATE TABLE memories (id INTEGER PRIMARY KEY, content_hash TEXT, content TEXT)")
        made.execute("INSERT INTO memories VALUES (1, 'h', 'One.')")
    before = {found.name: found.read_bytes() for found in tmp_path.glob("sqlite_vec*")}

    assert new(take(home, path)) == {"memories": 1}
    assert {found.name: found.read_bytes() for found in tmp_path.glob("sqlite_vec*")} == before


def test_a_foreign_database_may_hold_anything(home: Home, tmp_path: Path) -> None:
    path, columns = (
        tmp_path / "sqlite_vec.db",
        "id INTEGER PRIMARY KEY, content_hash, content, created_at",
    )
    with closing(apsw.Connection(str(path))) as made:
        made.execute(f"CREATE TABLE memories ({columns}); CREATE TABLE memory_graph (x)")
        for content in ("CAST(x'4fff6b' AS TEXT)", "NULL", "3", "x'00'", "''", "'Fine.'"):
            made.execute(f"INSERT INTO memories VALUES (NULL, 'h', {content}, 'soon')")  # noqa: S608
    with closing(apsw.Connection(str(tmp_path / "view.db"))) as made:
        made.execute(
            "CREATE VIEW memories AS WITH RECURSIVE n(content, content_hash)"
            " AS (SELECT 1, 1 UNION ALL SELECT 1, 1 FROM n) SELECT * FROM n"
        )
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.write(path, "sqlite_vec.db")

    report = take(home, path)

    assert [m.content for m in home.lifecycle.list_memories()][::-1] == ["O\ufffdk", "3", "Fine."]
    assert report.problem_count == 3
    assert "sqlite_vec.db" in refused(home, tmp_path / "view.db")
    assert "unpack it" in refused(home, tmp_path / "packed.zip")


def test_a_format_that_is_named_is_not_found_out(run: Run, tmp_path: Path) -> None:
    source = lines(tmp_path / "list.md", {"content": "One."})

    assert imported(run, source)["format"] == "json" or imported(run, source)["format"] == "jsonl"
    assert imported(run, source, "--format", "markdown")["format"] == "markdown"
    assert run("import", str(source), "--format", "nothing")[0] == 2


def test_progress_is_told_with_the_share_that_is_read(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, float]] = []
    monkeypatch.setattr("soulkeep.service.imports.tell", lambda *said: told.append(said))

    take(home, many(tmp_path / "memory.jsonl", 2_500))

    assert [said[0] for said in told][-1] == "Importing, 2,500 records"
    assert told[-1][1] == 1


def test_vectors_come_later_by_the_queue(home: Home, graph: Path) -> None:
    take(home, graph)

    assert home.repository.vectors.waiting().pending == 3 or not home.indexes.vectors_expected
    assert home.check() == []
