"""A purge that is cut off at any stage goes on, says what is gone by then, and leaves nothing behind."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import anyio
import apsw
import pytest
from mcp import Client

from conftest import Run, asking
from engine import another_program, file_of
from soulkeep.engines import STORE_NAME
from soulkeep.errors import MemoryErasedError, PurgeUnfinishedError
from soulkeep.progress import told_to
from soulkeep.service.home import Home
from test_purge import SECRET, WORDS, files_with, fill, keep


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home(embedder="none")


def damage(home: Home, backup_id: str) -> Callable[[], None]:
    """Damage a backup; return what mends it."""
    path = home.backups.folder / backup_id / "SOUL.md"
    content = path.read_bytes()
    path.write_bytes(b"Something else.\n")

    def mend() -> None:
        path.write_bytes(content)

    return mend


def test_a_backup_that_cannot_be_rewritten_stays_named_until_it_is(home: Home) -> None:
    memory_id = keep(home, SECRET)
    home.curator.promote(memory_id, "User Facts")
    names = [home.backups.make(label, on_demand=True).id for label in ("one", "two", "three")]
    mend = damage(home, names[1])

    with pytest.raises(PurgeUnfinishedError) as raised:
        home.purges.purge([memory_id], names)

    assert raised.value.kept_in == (f"backup {names[1]}",)
    assert "out of the store's tables and of all searches" in str(raised.value)
    assert "; delete its folder if you cannot mend it, then run `soulkeep purge`, which goes on" in str(
        raised.value
    )
    assert {name.split("/")[1] for name in files_with(home.path, *WORDS)} == {names[1]}
    (fault,) = home.check()
    assert (fault.name, names[1] in fault.detail) == ("purge", True)
    with pytest.raises(PurgeUnfinishedError):
        home.purges.finish()

    mend()
    finished = home.purges.finish()

    assert finished is not None
    assert (len(finished.backups), finished.is_final) == (1, True)
    assert files_with(home.path, *WORDS) == []
    assert home.check() == []
    assert home.purges.finish() is None
    for backup in home.backups.list_backups():
        home.backups.restore(backup.id)
        assert home.check() == []


def test_a_named_backup_that_is_gone_keeps_no_purge_from_its_end(home: Home) -> None:
    memory_id = keep(home, SECRET)
    name = home.backups.make("one", on_demand=True).id
    damage(home, name)
    with pytest.raises(PurgeUnfinishedError):
        home.purges.purge([memory_id], [name])

    shutil.rmtree(home.backups.folder / name)

    assert home.purges.finish() is not None
    assert home.purges.finish() is None
    assert files_with(home.path, *WORDS) == []


def test_each_backup_loses_only_what_was_purged_out_of_it(home: Home) -> None:
    first, second = keep(home, SECRET), keep(home, "Slates are grey.")
    names = [home.backups.make(label, on_demand=True).id for label in ("one", "two")]
    mends = [damage(home, name) for name in names]
    with pytest.raises(PurgeUnfinishedError):
        home.purges.purge([first], [names[0]])
    with pytest.raises(PurgeUnfinishedError):
        home.purges.purge([second], names)
    for mend in mends:
        mend()

    home.purges.finish()

    (left,) = files_with(home.path, b"quokka")
    assert left.startswith(f"backups/{names[1]}")
    assert files_with(home.path, b"grey") == []


def test_the_command_goes_on_with_a_purge_of_backups(run: Run, home: Home) -> None:
    memory_id = keep(home, SECRET)
    name = home.backups.make("one", on_demand=True).id
    mend = damage(home, name)

    code, _, err = run("purge", str(memory_id), "--backup", name, "--yes")
    assert (code, err.count("\n"), "`soulkeep purge`" in err, name in err) == (1, 1, True, True)
    mend()
    code, out, _ = run("purge")

    assert (code, "backup" in out) == (0, True)
    assert files_with(home.path, *WORDS) == []


class _FullDisk(apsw.VFS):
    """A file system that has no room for more bytes than `room`, once that is set."""

    def __init__(self) -> None:
        super().__init__("full_in_a_purge", "")
        self.room = 1 << 40

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "_FullFile":  # noqa: N802
        return _FullFile(self, name, flags)


class _FullFile(apsw.VFSFile):
    def __init__(self, disk: _FullDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self.disk = disk

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if len(data) > self.disk.room:
            raise apsw.FullError
        self.disk.room -= len(data)
        super().xWrite(data, offset)


@pytest.mark.parametrize("room", [0, 20_000, 300_000, 1_000_000, 2_000_000])
def test_on_a_full_disk_the_message_is_true_and_the_purge_goes_on(
    room: int, make_home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, connection = _FullDisk(), apsw.Connection
    monkeypatch.setattr(
        apsw, "Connection", lambda path, **options: connection(path, vfs="full_in_a_purge", **options)
    )
    home = make_home(embedder="none")
    memory_id = keep(home, SECRET)
    fill(home, 200)
    disk.room = room

    with pytest.raises(PurgeUnfinishedError) as raised:
        home.purges.purge([memory_id])
    disk.room = 1 << 40

    assert "nothing was written" not in str(raised.value)
    gone = memory_id not in [m.id for m in home.lifecycle.list_memories(limit=1_000)]
    assert gone == ("out of the store's tables" in str(raised.value))
    assert list(home.path.glob("*.part")) == []
    if gone:
        finished = home.purges.finish()
        assert finished is not None
        assert finished.is_final
    else:
        assert "purge it again" in str(raised.value)
        home.purges.purge([memory_id])
    assert files_with(home.path, *WORDS) == []
    assert home.check() == []
    home.close()


@pytest.mark.skipif(sys.platform != "linux", reason="open files are listed in /proc")
def test_no_copy_stands_in_the_systems_folder_for_temporary_files(home: Home) -> None:
    memory_id = keep(home, SECRET)
    fill(home, 1_000)
    opened: set[str] = set()

    def look(doing: str, share: float | None) -> None:
        for link in Path("/proc/self/fd").iterdir():
            if link.is_symlink():
                opened.add(os.path.realpath(link))

    with told_to(look):
        home.purges.purge([memory_id])

    written = {path for path in opened if "etilqs" in path or path.endswith(".part")}
    assert written == {str(home.path / f".{STORE_NAME}.part")}
    assert not (home.path / f".{STORE_NAME}.part").exists()


def test_what_a_killed_process_left_half_made_is_removed(
    home: Home, make_home: Callable[..., Home]
) -> None:
    memory_id = keep(home, SECRET)
    kept = home.backups.make("one", on_demand=True)
    shutil.copytree(home.backups.folder / kept.id, home.backups.folder / ".rewriting" / "former")
    (home.path / f".{STORE_NAME}.part").write_bytes(b"quokka")
    home.curator.add_entry("User Facts", "Has a cat.")
    for part in (".MEMORY.md.part", "daily/.2026-03-01.md.part", "history/MEMORY.md/.unfinished.part"):
        (home.path / part).write_bytes(b"quokka")
    home.close()

    home = make_home(embedder="none")
    assert not (home.path / f".{STORE_NAME}.part").exists()
    home.purges.purge([memory_id], [kept.id])

    assert files_with(home.path, *WORDS) == []


def test_what_others_wrote_meanwhile_is_in_the_new_file(
    home: Home, make_home: Callable[..., Home]
) -> None:
    other = make_home(embedder="none")
    memory_id = keep(home, SECRET)
    fill(home)
    wrote = []

    def write(doing: str, share: float | None) -> None:
        if doing == "Merging the full-text indexes":
            wrote.append(keep(other, "Written meanwhile."))

    with told_to(write):
        home.purges.purge([memory_id])

    assert [m.id for m in other.lifecycle.list_memories(limit=1)] == wrote
    assert [m.id for m in home.lifecycle.list_memories(limit=1)] == wrote
    assert other.check() == []


def test_who_asks_for_a_purge_again_is_told_that_it_is_done(home: Home) -> None:
    memory_id = keep(home, SECRET)
    home.purges.purge([memory_id])

    with pytest.raises(
        MemoryErasedError, match=f"Memory #{memory_id} was erased for good at 2026-03-01 [0-9:]+;"
    ):
        home.purges.purge([memory_id])


@pytest.fixture
def other(home: Home) -> Iterator[apsw.Connection]:
    with closing(another_program(file_of(home))) as connection:
        yield connection


async def test_a_purge_whose_request_is_cancelled_ends_and_says_so(
    home: Home, mode: str, caplog: pytest.LogCaptureFixture, other: apsw.Connection
) -> None:
    memory_id = keep(home, SECRET)
    told, scope = anyio.Event(), anyio.CancelScope()

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        told.set()

    async def purge(client: Client) -> None:
        with scope:
            await client.call_tool("purge", {"memory_ids": [memory_id]}, progress_callback=progressed)

    async with (
        asking(home, mode, "accept", agree=True) as (client, _),
        anyio.create_task_group() as tasks,
    ):
        # It tells of its first step, and then waits until the store may be written.
        other.execute("BEGIN IMMEDIATE")
        tasks.start_soon(purge, client)
        await told.wait()
        scope.cancel()
        await client.list_tools()  # answered after the cancellation has come
        other.execute("ROLLBACK")
        with anyio.fail_after(20):
            while "a purge was ended though its request was cancelled" not in caplog.text:
                await client.call_tool("browse_memories", {})
        again = await client.call_tool("purge", {"memory_ids": [memory_id]})

    assert again.is_error
    assert "was erased for good" in str(again.content)
    assert files_with(home.path, *WORDS) == []
