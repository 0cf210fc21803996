"""What `soulkeep doctor` finds around a store, and what it can still say where little is to be had."""

import json
import os
import shutil
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from soulkeep.app import open_home

unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files or permissions")

Space = namedtuple("Space", "total used free")


@pytest.fixture
def kept(run: Run, home_path: Path) -> Path:
    run("remember", "The harbour is frozen.")
    run("documents", "log", "It thaws.")
    return home_path


def faults(run: Run) -> list[dict[str, str]]:
    code, out, err = run("doctor", "--json")
    found: list[dict[str, str]] = json.loads(out)["faults"]
    assert (code, err) == (1 if found else 0, "")
    text = run("doctor")[1]
    for fault in found:
        assert f"FAULT {fault['name']}: {fault['detail']}; {fault['remedy']}.\n" in text
    last = "1 fault found." if len(found) == 1 else f"{len(found)} faults found."
    assert text.endswith(f"{last}\n" if found else "Everything is in order.\n")
    return found


def link_out(path: Path) -> None:
    outside = next(folder for folder in path.parents if folder.name == "home").with_name("outside")
    outside.mkdir(exist_ok=True)
    path.replace(outside / path.name)
    path.symlink_to(outside / path.name)


def link_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def write_latin(path: Path) -> None:
    path.write_bytes("# Grüße\n".encode("latin-1"))


@unix
@pytest.mark.parametrize("spoil", [link_out, link_nowhere, make_folder, make_pipe, write_latin])
@pytest.mark.parametrize("name", ["SOUL.md", "MEMORY.md", "daily"])
def test_a_document_that_cannot_be_read_is_a_fault(
    run: Run, kept: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    path = next((kept / "daily").glob("*.md")) if name == "daily" else kept / name
    spoil(path)

    (fault,) = faults(run)

    assert fault["name"] == "document"
    assert str(path) in fault["detail"]
    assert "chmod" not in fault["remedy"]


@unix
def test_a_folder_of_logs_that_is_somewhere_else_is_a_fault(run: Run, kept: Path) -> None:
    link_out(kept / "daily")

    assert {fault["name"] for fault in faults(run)} == {"document"}


def test_a_file_in_place_of_the_folder_of_logs_is_one_fault(run: Run, kept: Path) -> None:
    (kept / "daily").rename(kept / "kept apart")
    (kept / "daily").touch(0o600)

    (fault,) = faults(run)

    assert fault["detail"].startswith(f"{kept / 'daily'}: something else stands")
    assert fault["remedy"].startswith("move it away")


@unix
def test_a_link_inside_the_home_is_in_order(run: Run, kept: Path) -> None:
    (kept / "notes").mkdir(mode=0o700)
    (kept / "SOUL.md").replace(kept / "notes" / "soul.md")
    (kept / "SOUL.md").symlink_to(kept / "notes" / "soul.md")

    assert faults(run) == []


@unix
def test_no_permission_is_changed_through_a_link_out_of_the_home(run: Run, kept: Path) -> None:
    for name, mode in (("shared", 0o755), ("open.txt", 0o644)):
        target = kept.parent / name
        target.mkdir() if mode == 0o755 else target.touch()
        target.chmod(mode)
        (kept / name).symlink_to(target)
    (kept / "gone").symlink_to(kept.parent / "gone")
    assert faults(run) == []

    (kept / "it's.md").touch()
    (kept / "it's.md").chmod(0o644)
    (fault,) = faults(run)
    command = fault["remedy"].removeprefix("run `").removesuffix("`")
    assert os.system(command) == 0  # noqa: S605 - what a user would paste
    assert faults(run) == []


@pytest.mark.parametrize("free", [0, 1_000_000, 50_000_000])
def test_a_disk_that_is_nearly_full_is_a_fault(
    run: Run, kept: Path, monkeypatch: pytest.MonkeyPatch, free: int
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Space(10**9, 10**9 - free, free))

    (fault,) = faults(run)

    assert (fault["name"], fault["detail"].split(" are ")[0]) == ("disk", f"{free / 1e6:.1f} MB")


@contextmanager
def as_nobody(home: Path) -> Iterator[None]:
    """Let the home be read by everybody and written by nobody."""
    if os.geteuid() != 0:
        pytest.skip("only root may become somebody else")
    for folder in home.parents[:4]:  # pytest makes its folders for their owner only
        folder.chmod(0o755)
    for path in home.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    home.chmod(0o555)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@unix
@pytest.mark.parametrize("with_log", [False, True])
def test_a_home_that_can_only_be_read_is_examined_as_far_as_it_can_be(
    run: Run, kept: Path, with_log: bool
) -> None:
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    if with_log:
        other: Any = open_home(kept)
        before = {path: path.stat().st_mtime_ns for path in kept.rglob("*")}
    with as_nobody(kept):
        code, out, err = run("doctor", "--json")
    if with_log:
        other.close()

    found = json.loads(out)
    assert (code, err) == (1, "")
    assert found["rows"]["memories"] == 1
    assert found["versions"]["sqlite-vec"].startswith("v")
    assert found["paths"]["home"] == str(kept)
    assert [fault["name"] for fault in found["faults"] if fault["name"] != "permissions"] == ["store"]
    if not with_log:
        assert {path: path.stat().st_mtime_ns for path in kept.rglob("*")} == before


@unix
def test_a_home_that_can_only_be_read_is_read_by_hand_and_not_written(
    run: Run, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOULKEEP_EMBEDDER", "none")
    run("documents", "log", "Fed the cat.")
    (memory,) = json.loads(run("memories", "list", "--json")[1])["memories"]
    text = memory["content"]
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}

    with as_nobody(kept):
        read = {
            command: run(*command)
            for command in (
                ("recall", text),
                ("memories", "list"),
                ("memories", "show", "1"),
                ("threads", "list"),
                ("prompts", "list"),
                ("documents", "show", "MEMORY.md"),
                ("documents", "day"),
                ("changes",),
                ("trash",),
                ("log",),
                ("stats",),
                ("context",),
            )
        }
        written = [
            run("remember", "More."),
            run("memories", "forget", "1", "--yes"),
            run("undo", "--yes"),
        ]

    assert {command: answer[0] for command, answer in read.items()} == dict.fromkeys(read, 0)
    for command in (("recall", text), ("memories", "list"), ("memories", "show", "1"), ("context",)):
        assert text in read[command][1]
    for code, _, err in written:
        assert (code, "cannot be opened for writing" in err) == (1, True)
    assert {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()} == before


@unix
def test_a_disk_without_any_room_is_examined_and_named(
    run: Run, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Space(10**9, 10**9, 0))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # no file can grow
    try:
        answers = [run("doctor", "--json") for _ in range(2)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    for code, out, err in answers:  # the first leaves an empty log behind
        found = json.loads(out)
        assert (code, err) == (1, "")
        assert found["rows"]["memories"] == 1
        assert [fault["name"] for fault in found["faults"]] == ["store", "disk"]
        assert "the disk is full" in found["faults"][0]["detail"]


@unix
def test_a_home_that_cannot_even_be_entered_is_one_fault(run: Run, kept: Path) -> None:
    with as_nobody(kept):
        os.seteuid(0)
        kept.parent.chmod(0o700)
        os.seteuid(65534)
        code, out, err = run("doctor", "--json")
        listed = run("memories", "list")

    (fault,) = json.loads(out)["faults"]
    assert (code, err, fault["name"]) == (1, "", "store")
    assert "Permission denied" in fault["detail"]
    assert listed[0] == 1
    assert listed[2].count("\n") == 1


def test_a_damaged_store_does_not_keep_the_rest_from_being_examined(run: Run, kept: Path) -> None:
    (kept / "soulkeep.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 8_000)
    write_latin(kept / "SOUL.md")

    names = [fault["name"] for fault in faults(run)]

    assert names == ["store", "document"]


def test_what_stands_in_the_place_of_the_store_is_a_fault(run: Run, kept: Path) -> None:
    (kept / "soulkeep.db").write_text("A letter.", encoding="utf-8")

    (fault,) = faults(run)

    assert "not a soulkeep store" in fault["detail"]
    assert (kept / "soulkeep.db").read_text(encoding="utf-8") == "A letter."


@unix
@pytest.mark.parametrize("target", ["real.db", "/nonexistent/real.db"])
def test_a_link_in_the_place_of_the_store_is_named_and_followed_by_nothing(
    run: Run, kept: Path, target: str
) -> None:
    (kept / "soulkeep.db").rename(kept / "real.db")
    (kept / "soulkeep.db").symlink_to(target)

    (fault,) = faults(run)

    assert f"this is a link to {target}, not a soulkeep store" in fault["detail"]


@unix
def test_a_link_that_leads_nowhere_in_the_place_of_the_home_is_named(run: Run, home_path: Path) -> None:
    home_path.symlink_to(home_path.with_name("away"))

    assert f"{home_path} is a link that leads nowhere" in run("stats")[2]


def empty(store: Path) -> None:
    store.write_bytes(b"")


@pytest.mark.parametrize("lose", [Path.unlink, empty])
def test_a_store_that_begins_anew_beside_a_backup_of_the_former_one_is_announced(
    run: Run, kept: Path, lose: Callable[[Path], None]
) -> None:
    made = json.loads(run("backup", "--json")[1])["id"]
    for file in kept.glob("soulkeep.db*"):
        lose(file) if file.suffix == ".db" else file.unlink()

    announced = run("memories", "list")[2]
    (fault,) = faults(run)

    restore = f"`soulkeep restore {made}`"
    assert announced.startswith(f"soulkeep: new and empty store at {kept}: {restore} brings back")
    assert (fault["name"], restore in fault["remedy"]) == ("store", True)
    assert "has 1 memory" in fault["detail"]
    run("restore", made, "--yes")
    assert faults(run) == []


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize("name", ["soulkeep.db", "MEMORY.md", "manifest.json"])
@pytest.mark.parametrize("spoil", [Path.unlink, cut])
def test_a_backup_that_is_not_what_was_written_is_a_fault(
    run: Run, kept: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    made = json.loads(run("backup", "--json")[1])["id"]
    spoil(kept / "backups" / made / name)

    found = faults(run)

    # A folder without a manifest is no backup: what was damaged is kept in such.
    assert len(found) == (0 if (name, spoil) == ("manifest.json", Path.unlink) else 1)
    assert all((fault["name"], made in fault["detail"]) == ("backup", True) for fault in found)


@pytest.mark.parametrize("name", ["backups", "history"])
def test_a_file_in_place_of_a_folder_is_a_fault(run: Run, kept: Path, name: str) -> None:
    (kept / name).write_text("A letter.", encoding="utf-8")
    (kept / name).chmod(0o600)

    assert [fault["detail"] for fault in faults(run)] == [f"{kept / name} is no folder"]


def test_counts_are_of_the_store(run: Run, kept: Path) -> None:
    with closing(open_home(kept)) as home:
        expected = home.repository.count_rows()

    assert json.loads(run("doctor", "--json")[1])["rows"] == expected
