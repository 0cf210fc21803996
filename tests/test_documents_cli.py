"""`soulkeep documents` as a person types it."""

import json
import sys
from collections.abc import Callable

import pytest

from soulkeep.cli import main

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
