"""A home is written out whole, for people and for another home, and comes back the same."""

import contextlib
import errno
import hashlib
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Run
from forks import run_code
from soulkeep.app import open_home
from soulkeep.engines import opened_foreign
from soulkeep.errors import InvalidInputError, SourceError
from soulkeep.models import NewMemory, NewMessage
from soulkeep.service.exports import drop_unfinished
from soulkeep.service.home import Home
from test_copying import rows_of

TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40
)


def everything(home: Home) -> tuple[dict[str, list[object]], dict[str, bytes]]:
    """Return all rows of a home, and its documents with their former texts."""
    documents = home.documents.read_all()[0] | dict(home.documents.read_history())
    return rows_of(home.repository), documents


def fill(home: Home, *contents: str) -> str:
    """Keep something of everything, and change, forget and undo some of it; return the thread."""
    thread = home.threads.create_thread("Küche & Co", "Answer briefly.").id
    home.memories.remember(
        [
            NewMemory("Anna is allergic to peanuts", subject="Anna"),
            NewMemory("# No heading\n\nOf two paragraphs", "decision", thread),
            NewMemory("Zürich 👩‍👩‍👧", source="by hand", expires_at="2099-01-01"),
            *map(NewMemory, contents),
        ]
    )
    change = home.lifecycle.forget([1]).change_id
    home.changes.undo(change)
    home.lifecycle.forget([3])
    home.messages.save(thread, [NewMessage("user", "Is the oven on?"), NewMessage("user", "No?")])
    home.prompts.add_prompt("Tone", "Be kind.", 3)
    home.curator.log_day("Rain.")
    home.curator.learn("Likes tea")
    return thread


Opened = Callable[[str], Home]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with contextlib.ExitStack() as stack:

        def open_one(name: str) -> Home:
            return stack.enter_context(closing(open_home(tmp_path / name, embedder="none")))

        yield open_one


@pytest.mark.parametrize("target", ["all.jsonl", "folder"])
def test_an_empty_home_is_the_same_afterwards(opened: Opened, tmp_path: Path, target: str) -> None:
    source, other = opened("source"), opened("other")
    fill(source)
    exported = source.exports.write(tmp_path / target)
    file = exported.path if exported.path.is_file() else exported.path / "soulkeep.jsonl"

    assert other.exports.is_empty_for(file)
    other.exports.take_in(file)

    assert everything(other) == everything(source)
    assert other.check() == []
    # Ids go on where they ended, what was forgotten comes back, and words are found.
    assert other.memories.remember([NewMemory("New")])[0].id == 4
    other.lifecycle.restore([3])
    assert other.memories.recall("Zurich").matches[0].memory.id == 3


@given(st.lists(TEXT.filter(str.strip), min_size=1, max_size=4, unique=True))
def test_whatever_is_kept_comes_back_the_same(contents: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = Path(folder)
        source, other = (
            stack.enter_context(closing(open_home(path / name, embedder="none"))) for name in "ab"
        )
        fill(source, *contents)
        file = source.exports.write(path / "all.jsonl").path
        other.exports.take_in(file)
        assert everything(other) == everything(source)
        other.exports.write(path / "again.jsonl")
        first, again = (
            [line for line in (path / name).read_bytes().splitlines() if b"made_at" not in line[:60]]
            for name in ("all.jsonl", "again.jsonl")
        )
        assert first[:-1] == again[:-1]


@pytest.mark.embedder
def test_vectors_come_back_too(tmp_path: Path) -> None:
    with (
        closing(open_home(tmp_path / "a")) as source,
        closing(open_home(tmp_path / "b", embedder="none")) as other,
    ):
        fill(source)
        other.exports.take_in(source.exports.write(tmp_path / "all.jsonl").path)
        assert rows_of(source.repository)["vec_memories"]
        assert everything(other) == everything(source)


def test_a_home_with_memories_gets_what_it_lacks_as_one_change(run: Run, tmp_path: Path) -> None:
    with closing(open_home(tmp_path / "source", embedder="none")) as source:
        source.threads.set_archived(fill(source), archived=True)
        file = source.exports.write(tmp_path / "all.jsonl").path
    run("remember", "Anna is allergic to peanuts", "--subject", "Anna")

    code, out, err = run("import", str(file), "--json")
    report = json.loads(out)["import"]

    assert code == 0, err
    added = {name: kind["added"] for name, kind in report["kinds"].items()}
    assert added == {"memories": 1, "threads": 1, "messages": 2, "documents": 2}
    assert report["not_kept"]["global prompts"] == 1
    assert "No heading" in run("memories", "list")[1]
    threads = json.loads(run("threads", "list", "--archived", "--json")[1])["threads"]
    assert [thread["archived"] for thread in threads] == [True]
    again = json.loads(run("import", str(file), "--json")[1])["import"]
    assert again["change_id"] == 0
    assert run("undo", str(report["change_id"]), "--yes")[0] == 0
    assert "No heading" not in run("memories", "list")[1]


def test_what_would_come_into_an_empty_home_is_all_of_it(
    opened: Opened, tmp_path: Path, run: Run
) -> None:
    source = opened("source")
    fill(source)
    file = source.exports.write(tmp_path / "all.jsonl").path

    shown = run("import", str(file), "--dry-run", "--home", str(tmp_path / "empty"))[1]

    assert "| Anna: Anna is allergic to peanuts" in shown
    assert "This home is empty" in shown
    assert "Not kept" not in shown
    run("remember", "Something.")
    shown = run("import", str(file), "--dry-run")[1]
    assert "This home is empty" not in shown
    assert "global prompts 1" in shown


def test_taken_into_the_home_that_it_is_of_it_adds_nothing(
    opened: Opened, tmp_path: Path, run: Run
) -> None:
    source = opened("source")
    fill(source)
    source.exports.write(tmp_path / "folder")
    before = everything(source)

    code, out, err = run("--home", str(source.path), "import", str(tmp_path / "folder"), "--json")

    assert code == 0, err
    assert not any(kind["added"] for kind in json.loads(out)["import"]["kinds"].values())
    assert everything(source)[0]["memories"] == before[0]["memories"]
    assert everything(source)[0]["messages"] == before[0]["messages"]


def test_pages_say_all_that_is_known_to_a_person(opened: Opened, tmp_path: Path) -> None:
    source = opened("source")
    thread = fill(source)
    folder = source.exports.write(tmp_path / "folder").path

    pages = {
        str(page.relative_to(folder)): page.read_text("utf-8")
        for page in folder.rglob("*.md")
        if page.is_file()
    }

    (kept,) = (text for name, text in pages.items() if name.startswith("memories"))
    assert "> Anna is allergic to peanuts" in kept
    assert "about Anna" in kept
    # A text cannot pass itself off as a heading of the page.
    assert "> # No heading" in kept
    assert "Zürich" not in kept
    assert "> Zürich" in pages["former.md"]
    said = pages[str(Path("threads", f"Küche Co {thread}.md"))]
    assert "> Answer briefly." in said
    assert said.index("> Is the oven on?") < said.index("> No?")
    assert "> Be kind." in pages["prompts.md"]
    assert "memory.forgotten" in pages["changes.md"]
    assert pages["SOUL.md"] == source.documents.read("SOUL.md")
    assert any(name.startswith("history") for name in pages)


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_an_export_is_readable_by_its_owner_alone(opened: Opened, tmp_path: Path) -> None:
    source = opened("source")
    fill(source)
    folder = source.exports.write(tmp_path / "folder").path
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.rglob("*"))} == {0}


def test_what_is_there_is_never_written_over(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / "file.jsonl").write_text("mine", "utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    for name in ("file.jsonl", "folder"):
        with pytest.raises(InvalidInputError, match="there already"):
            opened("source").exports.write(tmp_path / name)
    assert (tmp_path / "file.jsonl").read_text("utf-8") == "mine"
    assert not list(tmp_path.glob("*.part"))


def test_an_export_may_go_where_a_link_leads_and_titles_may_be_of_the_longest_letters(
    opened: Opened, tmp_path: Path
) -> None:
    source = opened("source")
    ids = [source.threads.create_thread(title).id for title in ("𒀀" * 200, "CON", "a/b\\c:*?", "a?b/c")]
    for name in ("folder", "file"):
        (tmp_path / f"link-{name}").symlink_to(tmp_path / f"real-{name}.jsonl")
    (tmp_path / "real-folder.jsonl").mkdir()

    assert source.exports.write(tmp_path / "link-file").path == tmp_path / "real-file.jsonl"
    source.exports.write(tmp_path / "empty")
    pages = [page.name for page in (tmp_path / "empty" / "threads").iterdir()]

    assert sorted(page.removesuffix(".md").split()[-1] for page in pages) == sorted(ids)
    assert max(len(page.encode()) for page in pages) <= 255
    assert not any(set(page) & set('<>:"/\\|?*') for page in pages)
    source.exports.write(tmp_path / "link-folder")
    assert (tmp_path / "link-folder").is_symlink()
    assert (tmp_path / "real-folder.jsonl").is_file()


def test_an_export_that_fails_on_the_way_leaves_nothing(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened("source")
    fill(source)
    before = sorted(tmp_path.iterdir())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("soulkeep.service.exports.Exports._write_threads", full)
    with pytest.raises(InvalidInputError, match="No space left"):
        source.exports.write(tmp_path / "folder")
    monkeypatch.setattr("soulkeep.service.exports.Exports._write_threads", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        source.exports.write(tmp_path / "folder")
    assert sorted(tmp_path.iterdir()) == before


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


EXPORT_KILLED = """
import os, signal, sys
from pathlib import Path
from soulkeep.app import open_home
from soulkeep.service.exports import Exports

for target, cut_off in zip(sys.argv[2::2], sys.argv[3::2]):
    if not os.fork():
        setattr(Exports, cut_off, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        open_home(sys.argv[1], embedder="none").exports.write(Path(target))
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_what_a_killed_export_left_goes_with_the_next_one_there_or_a_repair(
    opened: Opened, tmp_path: Path, run: Run
) -> None:
    source = opened("source")
    fill(source)
    theirs = [tmp_path / f".folder.0123abcd.part{name}" for name in ("", "/soulkeep-export", "/mine")]
    for path in theirs:
        path.mkdir()
    (tmp_path / ".folder.4567cdef.part").write_text("mine", "utf-8")
    before, own = {*tmp_path.rglob("*")}, source.path / "exports" / "all"
    cut_off = {
        tmp_path / "folder": "_write_threads",
        tmp_path / "all.jsonl": "_rows",
        tmp_path / "elsewhere": "_texts",
        own: "_write_pages",
    }
    arguments = [word for pair in cut_off.items() for word in pair]
    assert run_code(EXPORT_KILLED, source.path, *arguments).communicate()[0] == "-9\n" * 4
    assert len({*tmp_path.glob(".*.part")} - before) == 3

    for name in ("folder", "all.jsonl"):
        source.exports.write(tmp_path / name)
    of_home = ("--home", str(source.path), "doctor", "--json")
    (fault,) = [one for one in json.loads(run(*of_home)[1])["faults"] if one["name"] == "export"]
    (left,) = own.parent.iterdir()
    told = json.loads(run(*of_home, "--repair")[1])

    (elsewhere,) = {*tmp_path.glob(".*.part")} - before
    assert elsewhere.name.startswith(".elsewhere.")
    assert all(path.exists() for path in before)
    assert str(left) in fault["detail"]
    assert left.name.startswith(".all.")
    assert told["removed"] == [str(left)]
    assert list(own.parent.iterdir()) == []


def test_what_is_being_exported_is_left_alone(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, dropped = opened("source"), list[list[Path]]()
    monkeypatch.setattr(
        "soulkeep.service.exports.Exports._write_threads",
        lambda *_: dropped.append(drop_unfinished(tmp_path)),
    )

    source.exports.write(tmp_path / "folder")

    assert dropped == [[]]
    assert (tmp_path / "folder" / "README.md").exists()


def test_what_came_to_be_there_while_it_was_written_is_not_written_over(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = opened("source"), tmp_path / "all.jsonl"
    rows = source.exports._write_rows
    monkeypatch.setattr(
        source.exports, "_write_rows", lambda *of: (target.write_text("mine", "utf-8"), rows(*of))[1]
    )

    with pytest.raises(InvalidInputError, match="there already"):
        source.exports.write(target)

    assert target.read_text("utf-8") == "mine"
    assert not list(tmp_path.glob(".*"))


def _signed(*lines: object) -> bytes:
    written = "".join(json.dumps(line) + "\n" for line in lines).encode()
    return written + f'{{"sha256": "{hashlib.sha256(written).hexdigest()}"}}\n'.encode()


ABOUT = {"soulkeep_export": 1, "made_at": "2026-03-01T00:00:00.000Z", "ids": {}}


NONE_OF_AN_EXPORT: list[tuple[object, ...]] = [
    *((ABOUT, 5), (ABOUT, []), (ABOUT, None), (ABOUT, {}), (ABOUT, {"table": "memories"})),
    (ABOUT, {"table": "memories", "row": 5}),
    (ABOUT, {"table": "memories", "row": {"id": 1, "content": ["a"]}}),
    (ABOUT, {"table": "vec_memories", "row": {"memory_id": 1, "content_embedding": "!"}}),
    *((ABOUT, {"document": "SOUL.md", "text": 5}), (ABOUT, {"document": "SOUL.md"})),
    (ABOUT, {"document": "SOUL.md", "base64": "abc"}),
    ({**ABOUT, "soulkeep_export": "1"},),
    ({**ABOUT, "ids": {"memories": "x"}},),
    ({**ABOUT, "ids": 5},),
]
"""The first lines of files that are signed as an export is."""


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(_signed(ABOUT)[:-20], id="cut off"),
        pytest.param(_signed(ABOUT).replace(b"2026", b"2027"), id="changed"),
        pytest.param(_signed({**ABOUT, "soulkeep_export": 2}), id="of a later version"),
        pytest.param(_signed(ABOUT, {"document": "../SOUL.md", "text": ""}), id="out of the home"),
        pytest.param(_signed(ABOUT, {"document": "history/../../x", "text": ""}), id="out of history"),
        pytest.param(_signed(ABOUT, {"document": "soulkeep.db", "text": ""}), id="over the store"),
        *(pytest.param(_signed(*lines), id=json.dumps(lines[-1])) for lines in NONE_OF_AN_EXPORT),
    ],
)
def test_what_is_no_whole_export_changes_nothing(opened: Opened, tmp_path: Path, content: bytes) -> None:
    file, home = tmp_path / "all.jsonl", opened("other")
    file.write_bytes(content)
    before = everything(home)
    with pytest.raises(SourceError):
        home.exports.take_in(file)
    assert everything(home) == before


def test_lines_that_no_export_has_are_told_and_lead_nowhere(home: Home, tmp_path: Path) -> None:
    home.memories.remember([NewMemory("Mine")])
    (home.path.parent / "secret.md").write_text("secret", "utf-8")
    names = ["../secret.md", "../../x", "soulkeep.db", "daily/../2026-01-02.md", "daily/x.md", "", 5]
    row = {"id": 1, "document": None, "thread_id": None, "memory_type": "fact", "content": "New"}
    row |= {"source": None, "subject": None, "occurred_at": None, "created_at": None, "expires_at": None}
    wrong: list[dict[str, object]] = [{name: [5]} for name in ("content", "source", "subject")]
    wrong += [{"content": None}, {"memory_type": "alien"}, {"thread_id": 5}, {"content": " "}]
    broken: list[object] = [{"table": "memories", "row": row | one} for one in wrong]
    others = [*broken, {"table": "memories", "row": 5}, 5, None, []]
    lines = [ABOUT, *({"document": name, "text": "- Mine"} for name in names), *others]
    file = tmp_path / "all.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    before = everything(home)

    report = home.imports.take(file, opened_foreign)

    assert [one.place for one in report.problems] == [
        f"all.jsonl:{number}" for number in range(2, len(lines) + 1)
    ]
    assert everything(home)[1] == before[1]
    assert everything(home)[0]["memories"] == before[0]["memories"]


KILLED = """
import os, signal, sys
from pathlib import Path
from soulkeep.app import open_home

home = open_home(sys.argv[1], embedder="none")
add, left = home.repository.rows.add, int(sys.argv[3])

def add_some(table, rows):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    add(table, rows)

home.repository.rows.add = add_some
home.exports.take_in(Path(sys.argv[2]))
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_an_import_that_was_killed_is_made_again(opened: Opened, tmp_path: Path) -> None:
    source = opened("source")
    fill(source, *(f"Number {n}" for n in range(900)))
    source.memories.remember([NewMemory(f"Another {n}") for n in range(900)])
    file = source.exports.write(tmp_path / "all.jsonl").path
    for pages in (0, 3, 6):
        child = run_code(KILLED, tmp_path / "target", file, pages)
        child.communicate()
        assert child.returncode == -signal.SIGKILL

    other = opened("target")
    assert other.exports.is_empty_for(file)
    other.exports.take_in(file)
    assert everything(other) == everything(source)
