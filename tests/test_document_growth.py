"""Many and long documents: a call looks at a few, and what takes long is indexed beside calls."""

import os
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest
from mcp import Client

from conftest import Run
from engine import database_of
from soulkeep.app import build_server
from soulkeep.errors import DocumentTooLongError
from soulkeep.service import curator, document_index
from soulkeep.service import document_index as document_entries
from soulkeep.service.home import Home
from test_tools import call

LAST = date(2026, 2, 1)

MANY = 400
"""More logs than are indexed while a call waits."""


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    """A home that searches by words alone: what is found then does not depend on a model."""
    return make_home(embedder="none")


def word(place: int) -> str:
    """Return a word of letters for a number, since digits are words of their own."""
    return "z" + "".join("abcdefghij"[int(digit)] for digit in str(place))


def write_logs(home: Home, count: int) -> list[Path]:
    paths = []
    for place in range(count):
        day = LAST - timedelta(days=place)
        paths.append(home.path / "daily" / f"{day}.md")
        paths[-1].write_text(f"# {day}\n\n## 10:00\n\n- Entry {word(place)}.\n", encoding="utf-8")
        os.utime(paths[-1], (1_700_000_000, 1_700_000_000 + place))
    return paths


def contents(home: Home, query: str) -> list[str]:
    return [match.memory.content for match in home.memories.recall(query, limit=100).matches]


def finish(home: Home) -> None:
    """Wait for the thread that indexes beside calls."""
    while home.entries.remarks():
        home.background.catch_up()


def steps(home: Home) -> int:
    """Return how many steps SQLite takes in a recall."""
    home.memories.recall("nothing like that")
    taken = 0

    def step() -> bool:
        nonlocal taken
        taken += 1
        return False

    database = database_of(home)
    connections = [database._connection, *database._readers._idle]
    for connection in connections:
        connection.set_progress_handler(step, 1)
    home.memories.recall("nothing like that")
    for connection in connections:
        connection.set_progress_handler(None)
    return taken


def test_a_recall_does_no_more_work_with_many_logs_than_with_few(
    make_home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = make_home("few", embedder="none"), make_home("many", embedder="none")
    write_logs(few, 20)
    write_logs(many, 300)
    assert contents(many, word(299)) == [f"Entry {word(299)}."]
    looked_at: list[Path] = []
    stat = Path.stat

    def counted(path: Path, *, follow_symlinks: bool = True) -> object:
        looked_at.extend([path] * (path.suffix == ".md"))
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", counted)
    monkeypatch.setattr(document_entries, "LOOK_S", 1e9)
    of_few = steps(few)
    looked_at.clear()
    of_many = steps(many)

    # As many as the pieces make that the index of words happens to be in.
    assert of_many <= 2 * of_few
    assert len(looked_at) <= 2 * 5
    monkeypatch.setattr(document_entries, "LOOK_S", 0.0)
    looked_at.clear()
    many.memories.recall("nothing like that")
    assert len(looked_at) <= document_entries.LOOKED + 5


def test_an_edit_of_an_old_log_is_found_after_a_few_looks(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_entries, "LOOK_S", 0.0)
    monkeypatch.setattr(document_entries, "LOOKED", 10)
    paths = write_logs(home, 35)
    assert contents(home, word(34)) == [f"Entry {word(34)}."]

    paths[34].write_text("## 10:00\n\n- A zanzibar.\n", encoding="utf-8")
    paths[7].unlink()
    write_logs(home, 36)[7].unlink()

    for _ in range(5):
        home.memories.recall("anything")
    assert contents(home, f"zanzibar {word(34)}") == [f"Entry {word(34)}."]
    assert contents(home, word(35)) == [f"Entry {word(35)}."]
    assert contents(home, word(7)) == []


def test_a_log_that_was_said_to_change_is_looked_at_in_the_next_call(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_entries, "LOOK_S", 1e9)
    paths = write_logs(home, 30)
    contents(home, "entry")
    for path in paths[20:22]:
        path.write_text("## 10:00\n\n- A zanzibar.\n", encoding="utf-8")

    home.entries.note_change([f"daily/{paths[20].name}", "SOUL.md", "../elsewhere.md"])

    assert contents(home, "zanzibar") == ["A zanzibar."]


async def test_many_documents_are_indexed_beside_calls_and_the_answer_says_so(home: Home) -> None:
    write_logs(home, MANY)

    async with Client(build_server(home), cache=None) as client:
        text, first = await call(client, "recall", query="entry")
        with home.entries._lock:  # what is left stays so
            context, parts = await call(client, "get_context")
        finish(home)
        later, second = await call(client, "recall", query=word(MANY - 1))

    (remark,) = first["remarks"]
    assert remark in text
    assert "still to be indexed" in remark
    assert first["matches"]
    assert "still to be indexed" in context
    assert "still to be indexed" in parts["kept"]
    assert "remarks" not in second
    assert "still to be indexed" not in later
    assert f"Entry {word(MANY - 1)}." in later
    assert home.repository.documents.states().keys() >= {f"daily/{LAST - timedelta(days=MANY - 1)}.md"}


def test_a_home_that_is_closed_meanwhile_goes_on_where_it_was(
    make_home: Callable[..., Home], home_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_index, "_PAGE", 10)
    monkeypatch.setattr("soulkeep.service.upkeep.FIRST_WAIT_S", 0.0)
    home = make_home(embedder="none")
    home.serve()
    entries = "".join(f"- Statement {word(place)} of a long text. {'x' * 200}\n" for place in range(500))
    (home.path / "MEMORY.md").write_text(f"# Notes\n\n## Facts\n{entries}", encoding="utf-8")
    home.memories.recall("statement")
    home.close()

    again = make_home(embedder="none")
    kept = again.repository.count_rows()["memories"]
    assert contents(again, word(499))[0].startswith(f"Statement {word(499)} ")

    assert kept < 500
    assert again.repository.count_rows()["memories"] == 500
    assert again.check() == []


def test_an_entry_of_a_very_long_document_is_left_to_its_user(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curator, "MAX_EDITED", 1_000)
    text = "# Notes\n\n## Facts\n" + "- A fact.\n" * 200
    (home.path / "MEMORY.md").write_text(text, encoding="utf-8")

    with pytest.raises(DocumentTooLongError, match="edit it by hand"):
        home.curator.add_entry("Facts", "Tea.")
    with pytest.raises(DocumentTooLongError):
        home.curator.replace_entry("Facts", "A fact.", None)

    assert (home.path / "MEMORY.md").read_text(encoding="utf-8") == text


def test_of_a_very_long_document_the_beginning_is_searched_and_answers_and_doctor_say_so(
    home: Home, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("soulkeep.service.")]:
        monkeypatch.setattr(sys.modules[name], "MAX_INDEXED", 5_000, raising=False)
    entries = "".join(f"- Fäct {word(place)} about maples.\n" for place in range(1_000))
    (home.path / "MEMORY.md").write_text(f"# Notes\n\n## Facts\n{entries}", encoding="utf-8")

    recall = home.memories.recall(word(3))
    code, out, _ = run("doctor")

    assert recall.matches[0].memory.content == f"Fäct {word(3)} about maples."
    assert 100 < home.repository.count_rows()["memories"] < 250
    assert contents(home, word(999)) == []
    assert len(recall.remarks) == 1
    assert "MEMORY.md is long: only its first" in recall.remarks[0]
    assert code == 1
    assert "MEMORY.md" in out
    assert "is searched" in out
    (home.path / "MEMORY.md").write_text("# Notes\n\n- Short.\n", encoding="utf-8")
    assert home.memories.recall("short").remarks == ()
