"""Memories, their changes and the trash from the command line, as people and as scripts use it."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from forks import ForkedProcess
from soulkeep.app import open_home
from soulkeep.cli.terminal import print_table


def document(run: Run, *arguments: str) -> Any:
    code, out, _ = run(*arguments, "--json")
    assert code == 0
    return json.loads(out)


def listed(run: Run, *filters: str) -> list[str]:
    return [memory["content"] for memory in document(run, "memories", "list", *filters)["memories"]]


@pytest.fixture
def thread_id(home_path: Path) -> str:
    home = open_home(home_path)
    thread = home.threads.create_thread("Pets")
    home.close()
    return thread.id


def test_remember_and_recall_take_all_that_the_services_do(run: Run) -> None:
    run("remember", "The cat is called Miso.", "--occurred-at", "2026-01-02", "--subject", "cat")
    kept = document(
        run, "remember", "The cat is called Momo.", "--replaces", "1", "--expires-at", "2999-01-01"
    )

    assert kept["receipts"][0]["id"] == 2
    (match,) = document(run, "recall", "cat")["matches"]
    assert match["content"] == "The cat is called Momo."
    (past,) = document(run, "memories", "history", "2")["past"]
    assert past["memory"]["subject"] == "cat"
    assert past["memory"]["occurred_at"] == "2026-01-02T00:00:00.000Z"
    assert past["replaced_by"] == 2


def test_a_list_is_filtered_paged_and_the_same_for_scripts(run: Run, thread_id: str) -> None:
    run("remember", "One.", "--type", "decision", "--source", "me", "--occurred-at", "2026-01-02")
    run("remember", "Two.", "--subject", "numbers", "--thread", thread_id)
    run("remember", "Three.")

    assert listed(run) == ["Three.", "Two.", "One."]
    assert listed(run, "--type", "decision") == listed(run, "--source", "me") == ["One."]
    assert listed(run, "--subject", "numbers") == ["Two."]
    assert listed(run, "--until", "2026-02-01") == ["One."]
    assert listed(run, "--since", "2026-02-01", "--limit", "1") == ["Three."]
    assert listed(run, "--below", "3", "--thread", thread_id) == ["Two.", "One."]
    assert set(document(run, "memories", "list")["memories"][0]) == {
        "id", "thread_id", "content", "memory_type", "source", "created_at", "subject",
        "occurred_at", "document", "expires_at",
    }  # fmt: skip
    assert "--below 3" in run("memories", "list", "--limit", "1")[1]


def test_a_table_is_aligned_has_one_line_a_row_and_leaves_out_what_is_empty(run: Run) -> None:
    run("remember", "Two\nlines with \t tabs.")
    run("remember", "Short.", "--type", "preference")

    heading, *rows = run("memories", "list")[1].splitlines()

    assert heading.split() == ["ID", "DATE", "TYPE", "THREAD", "TEXT"]
    assert [row[heading.index("TEXT") :] for row in rows] == ["Short.", "Two lines with tabs."]


def test_wide_characters_do_not_push_columns_aside(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("NAME", "TEXT"), [("長い", "x"), ("long", "\x1b[31mred")])

    assert capsys.readouterr().out == "NAME  TEXT\n長い  x\nlong  �[31mred\n"


def test_a_memory_is_shown_in_full_without_control_characters(run: Run) -> None:
    run("remember", "First line.\nSecond\x07 line.", "--source", "me")

    out = run("memories", "show", "1")[1]

    assert out.endswith("First line.\nSecond� line.\n")
    assert "from      me" in out
    assert document(run, "memories", "show", "1")["memories"][0]["source"] == "me"


def test_a_revision_keeps_the_rest_and_its_history(run: Run) -> None:
    run("remember", "The cat is called Miso.", "--type", "preference", "--subject", "cat")

    out = run("memories", "revise", "1", "-", typed="The cat is called Momo.")[1]

    assert out == "#1 is now #2.\n`soulkeep undo 2` takes that back.\n"
    (memory,) = document(run, "memories", "list")["memories"]
    assert (memory["id"], memory["memory_type"], memory["subject"]) == (2, "preference", "cat")
    history = run("memories", "history", "2")[1]
    assert history.index("now") < history.index("Momo") < history.index("Miso")
    assert run("memories", "history", "1")[1] == history


def test_forgetting_asks_first_and_the_trash_gives_back(run: Run) -> None:
    run("remember", "Not for ever.")

    assert run("memories", "forget", "1", typed="n\n")[0] == 1
    assert listed(run) == ["Not for ever."]
    out = run("memories", "forget", "1", typed="y\n")[1]
    assert "Not for ever." in out
    assert "`soulkeep memories restore 1` takes that back for 90 days.\n" in out
    assert listed(run) == []
    assert "Not for ever." in run("trash")[1]
    (gone,) = document(run, "trash")["trash"]
    assert (gone["memory"]["id"], gone["replaced_by"]) == (1, None)
    assert run("memories", "restore", "1")[1] == "Restored #1: Not for ever.\n"
    assert listed(run) == ["Not for ever."]
    assert run("trash")[1] == "The trash is empty.\n"


def test_memories_move_to_a_thread_and_back(run: Run, thread_id: str) -> None:
    run("remember", "Where to?")

    assert thread_id in run("memories", "move", "1", "--thread", thread_id)[1]
    assert "global" in run("memories", "move", "1", "--global")[1]
    assert run("memories", "move", "1")[0] == 2
    assert run("memories", "move", "1", "--global", "--thread", thread_id)[0] == 2


def test_undo_walks_back_says_what_it_did_and_can_be_undone(run: Run) -> None:
    run("remember", "One.")
    run("remember", "Two.")
    run("memories", "forget", "1", "--yes")

    out = run("undo", typed="y\n")[1]
    assert "Undone: change 3 (memory.forgotten).\n`soulkeep undo 4` does it again.\n" in out
    assert listed(run) == ["Two.", "One."]
    assert "Undone: change 2 (memory.stored)" in run("undo", "--yes")[1]
    assert listed(run) == ["One."]
    run("undo", "5", "--yes")
    assert listed(run) == ["Two.", "One."]


def test_undo_asks_first_goes_back_to_a_moment_and_ends_with_nothing_to_do(run: Run) -> None:
    assert run("undo")[:2] == (0, "There is nothing to undo.\n")
    run("remember", "One.")
    run("remember", "Two.")

    code, out, _ = run("undo", typed="n\n")
    assert code == 1
    assert '#2 "Two." added\n' in out
    assert "Undo 2 changes?" in run("undo", "--since", "2020-01-01", typed="y\n")[1]
    assert listed(run) == []
    assert run("undo", "--since", "2999-01-01")[1] == "There is nothing to undo.\n"
    assert run("undo")[1] == "There is nothing to undo.\n"
    assert run("undo", "1", "--since", "2020-01-01")[0] == 2


def test_changes_say_who_did_what_and_what_undid_it(run: Run) -> None:
    assert run("changes")[1] == "Nothing was changed.\n"
    run("remember", "One.")
    run("undo", "--yes")

    undo, stored = document(run, "changes")["changes"]

    assert set(stored) == {
        "id",
        "made_at",
        "agent_id",
        "action",
        "undone_by",
        "rows",
        "did",
    }
    assert (stored["action"], stored["undone_by"], stored["rows"]) == (
        "memory.stored",
        undo["id"],
        1,
    )
    assert document(run, "changes", "--before", "2", "--limit", "1")["changes"] == [stored]
    assert document(run, "changes", "--since", "2999-01-01")["changes"] == []
    assert "soulkeep" in run("changes")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("memories", "show", "9"),
        ("memories", "history", "9"),
        ("memories", "restore", "9"),
        ("memories", "forget", "9", "--yes"),
        ("memories", "list", "--limit", "0"),
        ("memories", "list", "--thread", "nope"),
        ("undo", "9"),
        ("undo", "--since", "someday"),
        ("trash", "--limit", "9999"),
        ("changes", "--since", "someday"),
    ],
)
def test_what_cannot_be_done_is_one_line_on_stderr(run: Run, arguments: tuple[str, ...]) -> None:
    code, out, err = run(*arguments)

    assert (code, out) == (1, "")
    assert err.startswith("soulkeep: ")
    assert err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="it is forked")
def test_a_shell_completes_commands_that_are_not_imported_yet(tmp_path: Path) -> None:
    def completed(words: str, place: int) -> list[str]:
        asked = {
            "COMP_WORDS": words,
            "COMP_CWORD": str(place),
            "_SOULKEEP_COMPLETE": "bash_complete",
        }
        with ForkedProcess([], {**os.environ, **asked}, text=True) as process:
            answered: str = process.communicate(timeout=30)[0]
        return answered.split()

    assert completed("soulkeep me", 1) == ["plain,memories"]
    assert completed("soulkeep memories re", 2) == ["plain,restore", "plain,revise"]
    assert "plain,--type" in completed("soulkeep memories list --t", 3)
    assert completed("soulkeep recall --type de", 3) == ["plain,decision"]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_is_printed(run: Run, shell: str) -> None:
    code, out, _ = run("completion", shell)

    assert code == 0
    assert f"_SOULKEEP_COMPLETE={shell}_complete" in out


def test_a_revision_by_hand_changes_facts_alone_and_clears_an_expiry(run: Run) -> None:
    run("remember", "The shop is closed.", "--expires-at", "2999-01-01")

    out = run(
        "memories", "revise", "1", "--type", "decision", "--subject", "shop", "--expires-at", "never"
    )[1]

    assert out.startswith("#1 is now #2.\n")
    (memory,) = document(run, "memories", "show", "1")["memories"]
    assert (memory["id"], memory["content"], memory["memory_type"]) == (
        2,
        "The shop is closed.",
        "decision",
    )
    assert (memory["subject"], memory["expires_at"]) == ("shop", None)
    assert run("memories", "revise", "1", "--subject", "shop")[1].endswith("Nothing changed.\n")


def test_what_was_done_to_promoted_lines_is_told_by_hand_too(run: Run) -> None:
    run("remember", "The cat is called Miso.")
    run("documents", "promote", "1", "User Facts")

    out = run("memories", "forget", "1", "--yes")[1]
    assert "The line of #1 in MEMORY.md in User Facts went with it." in out
    out = run("memories", "restore", "1")[1]
    assert "The line of #1 in MEMORY.md is back too." in out
    did = document(run, "changes")["changes"][0]["did"]
    assert [(row["name"], row["done"]) for row in did] == [("#1", "added"), ("MEMORY.md", "added")]
