"""`soulkeep threads` as a person types it."""

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from soulkeep.app import open_home
from soulkeep.cli import main
from soulkeep.models import NewMemory, NewMessage
from soulkeep.service.home import Home

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["soulkeep", "threads", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode()), "utf-8"))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Home]:
    with closing(open_home(tmp_path / "home")) as home:
        yield home


@pytest.fixture
def thread(kept: Home) -> str:
    thread = kept.threads.create_thread("Harbour\x1b[31m", "Speak of ships.").id
    kept.memories.remember([NewMemory("The harbour is frozen.", thread_id=thread)])
    kept.messages.save(thread, [NewMessage("user", "Is it?"), NewMessage("assistant", "It is.\x07")])
    return thread


def test_threads_are_listed_for_people_and_programs(run: Run, thread: str) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert re.fullmatch(rf"ID +ACTIVE +TITLE\n{thread} +\d{{4}}-\d\d-\d\d +Harbour\[31m\n", out)

    (listed,) = json.loads(run("list", "--json")[1])["threads"]
    assert (listed["id"], listed["title"], listed["archived"]) == (thread, "Harbour[31m", False)
    assert "\x1b" not in run("list", "--json")[1]
    assert run("list", "--archived")[1] == "There are no archived threads.\n"


def test_a_thread_is_shown_with_what_to_go_on_from(run: Run, thread: str) -> None:
    _, out, _ = run("show", thread, "--messages", "1")

    assert "Speak of ships." in out
    assert "| #1 fact: The harbour is frozen." in out
    assert "| It is.�" in out
    assert "Is it?" not in out


def test_a_thread_is_created_and_shown_to_scripts(run: Run, kept: Home) -> None:
    code, out, _ = run("create", "Pier", "--prompt", "Speak of ships.", "--json")
    created = json.loads(out)
    assert (code, created["title"]) == (0, "Pier")
    assert kept.repository.threads.get_thread(created["id"]).system_prompt == "Speak of ships."
    assert run("create", "Quay")[1].startswith("Created ")
    again = run("create", " pier ")[1]
    assert f"There are others of this title:\n  {created['id']} · " in again

    shown = json.loads(run("show", created["id"], "--json")[1])
    assert shown["system_prompt"] == "Speak of ships."


def test_messages_are_saved_from_a_file_and_from_stdin_once(
    run: Run, kept: Home, tmp_path: Path
) -> None:
    thread = kept.threads.create_thread("Pier").id
    said = [{"role": "user", "content": "Is it cold?", "created_at": "2026-03-01T10:00:00Z"}]
    file = tmp_path / "said.json"
    file.write_text(json.dumps(said), encoding="utf-8")

    assert run("save", thread, str(file))[1] == "Stored 1 message (id 1).\n"
    assert "Not stored: the first 1" in run("save", thread, typed=json.dumps(said))[1]
    for wrong in ("nothing", "{}", '[{"role": "user"}]'):
        code, _, err = run("save", thread, typed=wrong)
        assert (code, "must be a JSON list" in err) == (1, True)
    assert len(kept.messages.list_messages(thread).messages) == 1


def test_a_thread_is_renamed_prompted_and_archived(run: Run, kept: Home, thread: str) -> None:
    assert run("rename", thread, "Pier")[1].endswith("· Pier\n")
    assert run("prompt", thread, "-", typed="Be brief.")[1].startswith("Prompt set: ")
    assert kept.threads.resume(thread).thread.system_prompt == "Be brief."
    assert run("prompt", thread, "--remove")[1].startswith("Prompt removed: ")
    assert run("prompt", thread)[0] == 2
    assert "· archived ·" in run("archive", thread)[1]
    assert run("list")[1] == "There are no active threads.\n"
    assert run("unarchive", thread)[1].startswith("Unarchived: ")


def test_deleting_asks_and_says_how_to_have_it_back(run: Run, kept: Home, thread: str) -> None:
    code, _, _ = run("delete", thread, "--memories", "forget", typed="n\n")
    assert code == 1
    assert kept.threads.resume(thread).memories
    assert run("delete", thread, "--yes")[0] == 2

    code, out, _ = run("delete", thread, "--memories", "global", "--yes")

    assert code == 0
    assert "2 messages went with it; 1 memory became global." in out
    (change,) = re.findall(r"`soulkeep undo (\d+)`", out)
    assert kept.changes.list_changes(1)[0].id == int(change)
    kept.changes.undo(int(change))
    assert len(kept.messages.list_messages(thread).messages) == 2
    assert kept.check() == []


def test_messages_are_printed_in_pages(run: Run, thread: str) -> None:
    _, out, _ = run("messages", thread, "--limit", "1")
    assert out.endswith("| It is.�\nThere are older ones: add --before 2.\n")

    page = json.loads(run("messages", thread, "--before", "2", "--json")[1])
    (message,) = page["messages"]
    assert page["has_more"] is False
    assert (message["id"], message["role"], message["content"]) == (1, "user", "Is it?")


@pytest.mark.parametrize(
    "arguments",
    [("show",), ("rename", "x"), ("archive",), ("messages",), ("delete", "--memories=forget", "--yes")],
)
def test_a_thread_that_is_not_there_is_one_line_and_exit_code_1(
    run: Run, arguments: tuple[str, ...]
) -> None:
    code, out, err = run(arguments[0], "nowhere", *arguments[1:])

    assert (code, out) == (1, "")
    assert err.startswith("soulkeep: There is no thread 'nowhere'")
