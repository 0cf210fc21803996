"""`soulkeep documents` as a person types it."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from soulkeep.cli import main
from soulkeep.service.home import Home

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("SOULKEEP_EMBEDDER", "none")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["soulkeep", "documents", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_a_line_is_added_shown_and_taken_back(run: Run) -> None:
    code, out, _ = run("add", "soul.md", "Learned Preferences", "Short answers.")
    assert (code, out) == (0, "Added to Learned Preferences in SOUL.md\n")
    assert "## Learned Preferences\n- Short answers.\n" in run("show", "SOUL.md")[1]

    version = json.loads(run("history", "SOUL.md", "--json")[1])["versions"][0]["id"]
    assert version in run("history", "SOUL.md")[1]
    assert "(Updated as the agent" in run("show", "SOUL.md", "--version", version)[1]
    assert run("restore", "SOUL.md", version) == (0, f"Restored SOUL.md as it was until {version}\n", "")

    assert "Short answers." not in run("show", "SOUL.md")[1]
    assert len(run("history", "SOUL.md")[1].splitlines()) == 3


def test_a_line_that_stands_there_is_not_added_again(run: Run) -> None:
    run("add", "MEMORY.md", "User Facts", "Lives in Kraków.")
    versions = run("history", "MEMORY.md")

    said = "User Facts in MEMORY.md says that already; nothing was written.\n"
    assert run("add", "MEMORY.md", "User Facts", "Lives  in Kraków.") == (0, said, "")
    code, out, _ = run("replace", "User Facts", "Lives in Kraków.", "Lives in Kraków.")
    assert (code, out.split("MEMORY.md")[0]) == (
        0,
        "User Facts says that already; nothing was written. ",
    )
    assert run("history", "MEMORY.md") == versions


def test_a_document_without_versions_says_so(run: Run) -> None:
    code, out, _ = run("history", "MEMORY.md")

    assert (code, out.split(";")[0]) == (0, "There are no earlier versions of MEMORY.md")


def test_a_missing_section_or_version_is_one_line_on_stderr(run: Run) -> None:
    code, _, err = run("add", "MEMORY.md", "Wishes", "x")
    assert (code, err.count("\n"), "'User Facts'" in err) == (1, 1, True)

    code, _, err = run("restore", "MEMORY.md", "yesterday")
    assert (code, err.count("\n"), "history MEMORY.md" in err) == (1, 1, True)


def test_entries_are_replaced_removed_and_promoted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("add", "MEMORY.md", "User Facts", "Lives in Kraków.")
    code, out, _ = run("replace", "User Facts", "Lives in Kraków.", "Lives in Łódź.")
    assert (code, out.startswith("Replaced in User Facts.")) == (0, True)
    assert "- Lives in Łódź.\n" in run("show", "MEMORY.md")[1]

    assert run("remove", "User Facts", "Lives in Łódź.")[1].startswith("Removed from User Facts.")
    assert "Łódź" not in run("show", "MEMORY.md")[1]

    monkeypatch.setattr(sys, "argv", ["soulkeep", "remember", "Slates are grey."])
    with pytest.raises(SystemExit):
        main()
    assert "Added to Project Context." in run("promote", "1", "Project Context")[1]
    assert "- Slates are grey. ([memory 1](" in run("show", "MEMORY.md")[1]


def test_the_days_log_is_written_and_printed(run: Run) -> None:
    assert run("day")[1].startswith("There is no log of ")
    assert run("log", "Looked at the roof.")[1].startswith("Logged under ")
    assert "Looked at the roof." in run("day")[1]
    assert "There is no log of 2020-02-29; the latest is " in run("day", "2020-02-29")[1]
    assert run("day", "someday")[0] == 2


# In an editor


@pytest.fixture
def editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Let the editor be a program, which finds the file's name in `path`."""

    def choose(code: str) -> None:
        script = tmp_path / "editor.py"
        script.write_text(f"import pathlib, sys\npath = pathlib.Path(sys.argv[1])\n{code}\n")
        monkeypatch.setenv("VISUAL", f"'{sys.executable}' '{script}'")
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)

    return choose


def drafts(tmp_path: Path) -> list[Path]:
    return list(tmp_path.glob("soulkeep-*/*"))


def test_a_document_is_edited_in_the_users_editor(
    run: Run, editor: Callable[[str], None], tmp_path: Path, home: Home
) -> None:
    (home.path / "MEMORY.md").write_bytes(b"# Memory\r\n\r\n## Facts\r\n- one\r\n")
    editor("path.write_bytes(path.read_bytes().replace(b'one', b'two'))")
    assert run("edit", "memory.md") == (0, "Changed memory.md\n", "")
    assert (home.path / "MEMORY.md").read_bytes() == b"# Memory\r\n\r\n## Facts\r\n- two\r\n"
    assert len(home.documents.list_versions("MEMORY.md")) == 1
    assert home.changes.list_changes(1)[0].action == "document.edited"

    editor("pass")
    assert run("edit", "MEMORY.md")[1] == "MEMORY.md says what it said\n"
    home.changes.undo(home.changes.list_changes(1)[0].id)
    assert (home.path / "MEMORY.md").read_bytes() == b"# Memory\r\n\r\n## Facts\r\n- one\r\n"
    assert drafts(tmp_path) == []


def test_the_date_in_the_footer_is_the_users_to_edit(run: Run, home: Home) -> None:
    (home.path / "MEMORY.md").write_text("## Facts\n- one\n\n---\n*Last updated: 2026-01-02*\n")

    run("edit", "MEMORY.md", "## Facts\n- one\n\n---\n*Last updated: 2025-12-31*\n")

    assert home.documents.read("MEMORY.md").endswith("*Last updated: 2025-12-31*\n")


def test_what_changed_while_the_editor_was_open_is_not_overwritten(
    run: Run, editor: Callable[[str], None], tmp_path: Path, home: Home
) -> None:
    quicker = f"pathlib.Path({str(home.path / 'SOUL.md')!r}).write_text('Quicker.')"
    editor(f"{quicker}\npath.write_text('Mine.')")
    code, _, err = run("edit", "SOUL.md")
    (draft,) = drafts(tmp_path)
    assert (code, str(draft) in err, "changed meanwhile" in err) == (1, True, True)
    assert draft.read_text() == "Mine."
    assert (home.path / "SOUL.md").read_text() == "Quicker."
    assert home.changes.list_changes() == []


@pytest.mark.parametrize("code", ["path.write_bytes(b'caf\\xe9')", "path.write_text('  ')"])
def test_what_no_document_can_be_is_refused_and_kept(
    code: str, run: Run, editor: Callable[[str], None], tmp_path: Path, home: Home
) -> None:
    before = home.documents.read("SOUL.md")
    editor(code)
    assert run("edit", "SOUL.md")[0] == 1
    assert len(drafts(tmp_path)) == 1
    assert home.documents.read("SOUL.md") == before


def test_an_editor_that_fails_changes_nothing(
    run: Run, editor: Callable[[str], None], tmp_path: Path, home: Home
) -> None:
    editor("path.write_text('Half'); sys.exit(3)")
    assert run("edit", "SOUL.md")[0] != 0
    assert drafts(tmp_path) == []
    assert home.documents.list_versions("SOUL.md") == []


def test_a_log_is_edited_too_and_a_text_may_come_from_elsewhere(
    run: Run, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("edit", "2026-02-28", "x")
    assert (code, out, "There is no log of 2026-02-28" in err) == (2, "", True)
    assert run("edit", "yesterday", "x")[0] == 2
    (home.path / "daily" / "2026-02-28.md").write_text("# 2026-02-28\n\n- Rain.\n")
    assert run("edit", "2026-02-28", "# 2026-02-28\n\n- Snow.\n")[0] == 0
    assert "Snow." in run("day", "2026-02-28")[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"# Mine\n"), "utf-8"))
    assert json.loads(run("edit", "SOUL.md", "-", "--json")[1]) == {"name": "SOUL.md", "changed": True}
    assert home.documents.read("SOUL.md") == "# Mine\n"
    home.changes.undo_since("2000-01-01")
    assert "Rain." in (home.path / "daily" / "2026-02-28.md").read_text()


@pytest.mark.parametrize(
    "arguments", [("day", "2026-13-01"), ("day", "yesterday"), ("edit", "NOTES.md")]
)
def test_what_is_no_date_is_told_what_one_looks_like(run: Run, arguments: tuple[str, str]) -> None:
    code, _, err = run(*arguments)

    assert (code, f"'{arguments[1]}' is no date such as 2026-11-24" in " ".join(err.split())) == (
        2,
        True,
    )
