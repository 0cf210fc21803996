"""Documents in PostgreSQL: edited by several processes, killed at any time, and heard of by all."""

import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC
from pathlib import Path

import anyio
import psycopg
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from pydantic import SecretStr

from conftest import Run
from database_server import database_url, new_database, owner_of, place_in_postgres
from soulkeep.app import open_home
from soulkeep.days import Days
from soulkeep.documents.markdown import add_entry, list_entries
from soulkeep.errors import StoreBusyError
from soulkeep.mcp_server.notifications import Notifications, watch
from soulkeep.models import NewMemory, Options
from soulkeep.repository.postgres.copies import PostgresCopies
from soulkeep.repository.postgres.database import Database
from soulkeep.service.home import Home
from test_notifications import Ear, _subscribed
from wire import COMMAND, OFFLINE

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
]

OTHER = """
import sys
from pydantic import SecretStr
from soulkeep.app import open_home
from soulkeep.models import Options

path, url, owner, name = sys.argv[1:]
home = open_home(path, embedder="none", options=Options(store=SecretStr(url)), owner=owner)
print("ready", flush=True)
for line in sys.stdin:
    what, _, said = line.strip().partition(" ")
    if what == "add":
        for number in range(int(said)):
            home.curator.add_entry("User Facts", f"{name} {number}")
            print(f"{name} {number}", flush=True)
    elif what == "undo":
        home.changes.undo(int(said))
    elif what == "log":
        home.curator.log_day(said)
    elif what == "edit":
        home.documents.edit("SOUL.md", lambda text: text + said)
    print("done", flush=True)
"""


class Other:
    """The same home in another process, which edits as it is told to."""

    def __init__(self, path: Path, name: str = "other") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(path), database_url(), owner_of(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent,
            text=True,
        )
        self.read_to("ready")

    def begin(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def read_to(self, end: str = "done") -> list[str]:
        """Return what it acknowledged until it said so, or was killed."""
        assert self.process.stdout
        said = list[str]()
        for line in self.process.stdout:
            if line.strip() == end:
                break
            said.append(line.strip())
        return said

    def tell(self, line: str) -> list[str]:
        self.begin(line)
        return self.read_to()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    path = tmp_path / "home"
    with closing(open_home(path, embedder="none", **place_in_postgres(path))) as home:
        yield home


@pytest.fixture
def other(home: Home) -> Iterator[Other]:
    other = Other(home.path)
    yield other
    other.end()


def entries(home: Home) -> list[str]:
    return [entry.text for entry in list_entries(home.documents.read("MEMORY.md"))]


def test_a_home_needs_no_folder(home: Home) -> None:
    home.curator.add_entry("User Facts", "Lives in Graz.")
    home.curator.log_day("Rain.")
    home.memories.remember([NewMemory("One.")])
    assert home.memories.recall("Graz").matches
    assert home.statistics.figures().sizes["documents"]
    home.changes.undo(home.changes.list_changes(1)[0].id)
    home.purges.empty_trash()
    assert home.faults() == []
    assert home.backups.list_backups() == []
    assert not home.path.exists()
    home.backups.make("by hand", on_demand=True)
    assert not home.path.exists()
    assert home.faults() == []


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.campaign)])
def test_two_processes_edit_one_document_and_lose_nothing(home: Home, count: int) -> None:
    one, two = Other(home.path, "a"), Other(home.path, "b")
    try:
        one.begin(f"add {count}")
        two.begin(f"add {count}")
        said = [one.read_to(), two.read_to()]
    finally:
        one.end()
        two.end()
    assert [len(each) for each in said] == [count, count]
    found = entries(home)
    for name, acknowledged in zip("ab", said, strict=True):
        assert [text for text in found if text.startswith(f"{name} ")] == acknowledged
    changes = home.changes.list_changes(1_000)
    assert len(changes) == min(2 * count, 1_000)
    home.changes.undo_since("2000-01-01")
    assert not [text for text in entries(home) if text.startswith(("a ", "b "))]
    assert home.check() == []


@pytest.mark.parametrize("kills", [4, pytest.param(40, marks=pytest.mark.campaign)])
def test_after_kill_9_text_former_texts_and_log_are_of_one_moment(home: Home, kills: int) -> None:
    chance = random.Random(7)  # noqa: S311 - repeatable moments
    acknowledged = list[str]()
    for turn in range(kills):
        other = Other(home.path, f"turn {turn}")
        other.begin("add 1000")
        last = f"turn {turn} {chance.randint(0, 9)}"
        acknowledged += [*other.read_to(last), last]
        other.process.kill()  # while it writes the next
        acknowledged += other.read_to()
        other.end()
        found, changes = entries(home), home.changes.list_changes(1_000)
        assert set(acknowledged) <= set(found)
        # An entry is there if and only if the log knows of it; of the last, nobody may have heard.
        assert len([text for text in found if text.startswith("turn ")]) == len(changes)
        assert len(home.documents.list_versions("MEMORY.md")) == min(len(changes), 50)
    assert len(acknowledged) >= kills
    home.changes.undo_since("2000-01-01")
    assert not [text for text in entries(home) if text.startswith("turn ")]


def test_a_change_is_undone_from_the_other_process(home: Home, other: Other) -> None:
    before = home.documents.read("MEMORY.md")
    home.curator.add_entry("User Facts", "Lives in Graz.")
    (change,) = home.changes.list_changes()
    other.tell(f"undo {change.id}")
    assert "Lives in Graz." not in entries(home)
    assert not home.memories.recall("Graz").matches
    home.changes.undo(home.changes.list_changes(1)[0].id)
    assert "Lives in Graz." in entries(home)
    assert before.splitlines()[0] in home.documents.read("MEMORY.md")


def test_a_text_is_made_anew_where_another_process_was_quicker(home: Home, other: Other) -> None:
    calls = list[str]()

    def change(text: str) -> str:
        calls.append(text)
        if len(calls) == 1:
            other.tell("edit quicker")
        return text + "mine"

    home.documents.edit("SOUL.md", change)
    assert home.documents.read("SOUL.md").endswith("quickermine")
    assert len(calls) == 2


def test_a_line_is_not_written_for_a_memory_that_went_meanwhile(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    (receipt,) = home.memories.remember([NewMemory("One.")])
    plan = home.edits.plan

    def planned(*given: object, **more: object) -> object:
        monkeypatch.undo()
        with closing(open_home(home.path, embedder="none", **place_in_postgres(home.path))) as other:
            other.lifecycle.revise(receipt.id, "Two.")
        return plan(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(home.edits, "plan", planned)
    with pytest.raises(StoreBusyError):
        home.curator.promote(receipt.id, "User Facts")
    assert not [text for text in entries(home) if "memory" in text]


def test_what_is_purged_is_in_no_row(tmp_path: Path) -> None:
    url = new_database()
    path = tmp_path / "home"
    with closing(open_home(path, embedder="none", options=Options(store=SecretStr(url)))) as home:
        (receipt,) = home.memories.remember([NewMemory("The password is kingfisher.")])
        home.curator.promote(receipt.id, "User Facts")
        home.documents.edit("MEMORY.md", lambda text: add_entry(text, "User Facts", "x"))
        assert home.purges.purge([receipt.id]).is_final
        with psycopg.connect(url, autocommit=True) as connection:
            rows = connection.execute("SELECT content FROM documents").fetchall()
    assert len(rows) > 3
    assert not [text for (text,) in rows if b"kingfisher" in text]


def test_two_homes_of_one_database_have_documents_of_their_own(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    with (
        closing(open_home(one, embedder="none", **place_in_postgres(one))) as ann,
        closing(open_home(two, embedder="none", **place_in_postgres(two))) as bob,
    ):
        ann.curator.add_entry("User Facts", "Lives in Graz.")
        ann.curator.log_day("Rain.")
        assert "Graz" not in bob.documents.read("MEMORY.md")
        assert (bob.documents.list_daily(), bob.documents.list_history()) == ([], [])
        assert bob.documents.texts.stamps(["daily"]) == {"daily": ("1", 0, True)}


def test_a_document_of_an_account_is_edited_by_hand(
    home: Home, other: Other, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOULKEEP_STORE", f"{database_url()}#{owner_of(home.path)}")
    monkeypatch.setattr("click.edit", lambda filename: Path(filename).write_text("# Mine\n"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run("documents", "edit", "SOUL.md")[0] == 0
    assert home.documents.read("SOUL.md") == run("documents", "show", "SOUL.md")[1] == "# Mine\n"

    def edited_meanwhile(filename: str) -> None:
        other.tell("edit by another process")
        Path(filename).write_text("# Lost?\n")

    monkeypatch.setattr("click.edit", edited_meanwhile)
    code, _, err = run("documents", "edit", "SOUL.md")
    assert (code, "changed meanwhile" in err) == (1, True)
    assert home.documents.read("SOUL.md") == "# Mine\nby another process"
    assert [path.read_text() for path in tmp_path.glob("soulkeep-*/*")] == ["# Lost?\n"]
    assert run("documents", "history", "SOUL.md")[1].count("Z  ") == 2
    assert run("doctor")[0] == 0


def test_what_is_purged_of_an_account_takes_its_documents(home: Home) -> None:
    home.curator.add_entry("User Facts", "Lives in Graz.")
    with closing(psycopg.connect(database_url())) as connection:
        counted = "SELECT count(*) FROM documents WHERE owner = %s"
        assert connection.execute(counted, [owner_of(home.path)]).fetchone() == (3,)
        connection.rollback()
        PostgresCopies(database_url(), owner_of(home.path), Days(UTC)).remove()
        assert connection.execute(counted, [owner_of(home.path)]).fetchone() == (0,)


def test_a_database_of_the_first_schema_gets_the_table(tmp_path: Path) -> None:
    url = new_database()
    Database(url, owner_of(tmp_path)).close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE documents, imported, backup_parts, backups")
        connection.execute("UPDATE soulkeep_schema SET version = 1")
    with closing(open_home(tmp_path, embedder="none", options=Options(store=SecretStr(url)))) as home:
        assert home.documents.read("MEMORY.md")
        assert home.check() == []


@pytest.mark.parametrize("many", [False, True])
async def test_a_subscriber_hears_what_another_process_did(
    home: Home, other: Other, mode: str, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from soulkeep.app import build_server

    # A system that is asked to watch a folder that is not there would fail.
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    ear, notifications = Ear(), Notifications(watched=True, many=many)
    server = build_server(home, notifications)
    async with (
        anyio.create_task_group() as tasks,
        Client(server, mode=mode, cache=None, message_handler=ear.note_message) as client,
    ):
        tasks.start_soon(watch, home, notifications)
        uris = "soulkeep://MEMORY.md", "soulkeep://SOUL.md", "soulkeep://context"
        async with _subscribed(client, ear, mode)(*uris) as ear:
            await anyio.to_thread.run_sync(other.tell, "add 1")
            await ear.hears_anew("soulkeep://MEMORY.md")
            await anyio.to_thread.run_sync(other.tell, "edit by another program")
            await ear.hears_anew("soulkeep://SOUL.md")
            await anyio.to_thread.run_sync(other.tell, "log Rain.")
            await ear.hears("soulkeep://context")
            await ear.hears("other resources")
            change = home.changes.list_changes(2)[-1].id
            await anyio.to_thread.run_sync(other.tell, f"undo {change}")
            await ear.hears("soulkeep://MEMORY.md")
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_server_process_reads_what_another_wrote(
    tmp_path: Path, other: Other, home: Home, mode: str
) -> None:
    url, owner = database_url(), owner_of(home.path)
    server = StdioServerParameters(
        command=str(COMMAND),
        args=["serve", "--home", str(tmp_path / "nowhere")],
        env=OFFLINE | {"SOULKEEP_EMBEDDER": "none", "SOULKEEP_STORE": f"{url}#{owner}"},
    )
    async with Client(stdio_client(server), mode=mode, read_timeout_seconds=30) as client:
        other.tell("add 2")
        read = await client.read_resource("soulkeep://MEMORY.md")
        assert "other 1" in read.contents[0].text  # type: ignore[union-attr]
        arguments = {"action": "remove", "section": "User Facts", "entry": "other 0"}
        await client.call_tool("curate_memory", arguments)
    assert [text for text in entries(home) if text.startswith("other")] == ["other 1"]
    assert not (tmp_path / "nowhere").exists()
