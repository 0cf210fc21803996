"""A disk without any room: what is kept can still be read, and is written again once there is room."""

import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from mcp import Client

from conftest import Run
from soulkeep.app import build_server, open_home
from soulkeep.errors import StoreFullError
from soulkeep.models import NewMemory
from soulkeep.service.home import Home

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")

Space = namedtuple("Space", "total used free")
Full = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Full:
    """Let no file grow inside the block, as where the disk is full."""
    import resource

    @contextmanager
    def full() -> Iterator[None]:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: Space(10**9, 10**9, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return full


@pytest.fixture
def kept(home_path: Path) -> Path:
    """A home with a memory, a thread, a prompt and a log, used by nobody."""
    home = open_home(home_path)
    home.memories.remember([NewMemory("The kettle is green.")])
    home.threads.create_thread("Kitchen")
    home.prompts.add_prompt("Tone", "Be brief.")
    home.curator.log_day("Painted the kettle.")
    home.close()
    return home_path


def written(path: Path) -> dict[str, bytes]:
    """Return what the files hold, those apart that SQLite makes while it is in use."""
    return {
        file.name: file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and file.suffix not in (".db-shm", ".db-wal", ".lock")
    }


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (("recall", "kettle"), "The kettle is green."),
        (("memories", "list"), "The kettle is green."),
        (("memories", "show", "1"), "The kettle is green."),
        (("threads", "list"), "Kitchen"),
        (("prompts", "list"), "Tone"),
        (("stats",), "Memories kept"),
        (("log",), "memory.stored"),
        (("changes",), "memory.stored"),
        (("trash",), "The trash is empty."),
        (("context",), "The kettle is green."),
        (("documents", "show", "SOUL.md"), "# Agent Identity"),
    ],
)
def test_all_that_reads_works_by_hand(
    command: tuple[str, ...], shown: str, run: Run, kept: Path, full: Full
) -> None:
    before = written(kept)

    with full():
        code, out, _ = run(*command)

    assert (code, shown in out) == (0, True), out
    assert written(kept) == before


@pytest.mark.parametrize("command", [("remember", "More."), ("threads", "create", "More"), ("reindex",)])
def test_all_that_writes_is_refused_by_hand_and_changes_nothing(
    command: tuple[str, ...], run: Run, kept: Path, full: Full
) -> None:
    before = written(kept)

    with full():
        code, _, err = run(*command)

    assert code == 1
    assert "the disk is full and nothing was written; free some space and retry." in err
    assert written(kept) == before


async def test_a_server_that_starts_there_reads_and_writes_again_once_there_is_room(
    kept: Path, full: Full, caplog: pytest.LogCaptureFixture
) -> None:
    with full():
        home = open_home(kept)
        async with Client(build_server(home), cache=None) as client:
            for tool, arguments in (
                ("recall", {"query": "kettle"}),
                ("get_context", {}),
                ("browse_memories", {}),
            ):
                read = await client.call_tool(tool, arguments)
                assert not read.is_error
                assert "The kettle is green." in str(read.content)
            refused = await client.call_tool("remember", {"content": "The stove is red."})
            logged = await client.call_tool("log_day", {"text": "Painted the stove."})
    assert (refused.is_error, logged.is_error) == (True, True)
    for result in (refused, logged):
        assert "free some space and retry" in str(result.content)
    assert len([said for said in caplog.messages if "usage was not recorded" in said]) <= 1

    async with Client(build_server(home), cache=None) as client:
        stored = await client.call_tool("remember", {"content": "The stove is red."})
        found = await client.call_tool("recall", {"query": "stove"})

    assert not stored.is_error
    assert "The stove is red." in str(found.content)
    assert home.check() == []
    home.close()


def test_what_another_process_wrote_once_there_was_room_is_read(kept: Path, full: Full) -> None:
    with full():
        reader = open_home(kept, embedder="none")
        assert len(reader.memories.recall("stove").matches) == 0
    writer = open_home(kept, embedder="none")
    writer.memories.remember([NewMemory("The stove is red.")])

    assert [match.memory.content for match in reader.memories.recall("stove").matches] == [
        "The stove is red."
    ]
    writer.close()
    reader.close()


@pytest.mark.parametrize("with_index", [True, False])
def test_what_a_killed_process_left_in_its_log_is_read(kept: Path, full: Full, with_index: bool) -> None:
    code = (
        "import os, signal, sys; from soulkeep.app import open_home;"
        "from soulkeep.models import NewMemory; home = open_home(sys.argv[1], embedder='none');"
        "home.memories.remember([NewMemory('In the log.')]);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(kept)], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (kept / "soulkeep.db-wal").stat().st_size > 0
    if not with_index:
        (kept / "soulkeep.db-shm").unlink()

    with full():
        home = open_home(kept, embedder="none")
        found = home.memories.recall("In the log").matches
        with pytest.raises(StoreFullError):
            home.memories.remember([NewMemory("More.")])
        home.close()

    assert "In the log." in [match.memory.content for match in found]
    whole = open_home(kept, embedder="none")
    assert whole.check() == []
    assert whole.repository.count_rows()["memories"] >= 2
    whole.close()


def test_a_first_start_there_is_refused(home_path: Path, full: Full) -> None:
    with full(), pytest.raises(StoreFullError):
        open_home(home_path)

    home: Home = open_home(home_path)
    assert home.check() == []
    home.close()
