"""`soulkeep documents` as a person types it."""

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

    version = run("history", "SOUL.md")[1].split()[0]
    assert "(Updated as the agent" in run("show", "SOUL.md", "--version", version)[1]
    assert run("restore", "SOUL.md", version) == (0, f"Restored SOUL.md as it was until {version}\n", "")

    assert "Short answers." not in run("show", "SOUL.md")[1]
    assert len(run("history", "SOUL.md")[1].splitlines()) == 2


def test_a_document_without_versions_says_so(run: Run) -> None:
    code, out, _ = run("history", "MEMORY.md")

    assert (code, out.split(";")[0]) == (0, "There are no earlier versions of MEMORY.md")


def test_a_missing_section_or_version_is_one_line_on_stderr(run: Run) -> None:
    code, _, err = run("add", "MEMORY.md", "Wishes", "x")
    assert (code, err.count("\n"), "'User Facts'" in err) == (1, 1, True)

    code, _, err = run("restore", "MEMORY.md", "yesterday")
    assert (code, err.count("\n"), "history MEMORY.md" in err) == (1, 1, True)
