"""Opening a store: what is made, what is refused, and that a refused file stays as it was."""

import hashlib
import os
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import apsw
import pytest

from conftest import Run
from engine import another_program, database_of, file_of
from forks import run_code
from soulkeep.app import open_backups, open_home
from soulkeep.days import Days
from soulkeep.documents import Folder
from soulkeep.embedders.wordllama import WordLlama
from soulkeep.errors import (
    NotAStoreError,
    NotMigratedError,
    SchemaTooNewError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreNotWritableError,
)
from soulkeep.models import NewMemory, Session
from soulkeep.repository.sqlite import SqliteCopies, SqliteRepository, schema
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.values import padded
from soulkeep.service.backups import exclusive, verify_files
from soulkeep.service.home import Home

LOCAL = Session("local", "local", "local", "2026-01-01T00:00:00.000Z")


def _foreign(path: Path) -> None:
    connection = another_program(path)
    connection.execute("CREATE TABLE bookmarks (url)")
    connection.close()


def _foreign_with_id(path: Path) -> None:
    connection = another_program(path)
    connection.execute("PRAGMA application_id = 42; CREATE TABLE bookmarks (url)")
    connection.close()


def _newer(path: Path) -> None:
    SqliteRepository(path).close()
    connection = another_program(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def _text(path: Path) -> None:
    path.write_text("Dear diary, this is no database at all." * 10, encoding="utf-8")


def _short_text(path: Path) -> None:
    path.write_text("hi", encoding="utf-8")


REFUSED = {
    "a newer store": (_newer, SchemaTooNewError),
    "a foreign database": (_foreign, NotAStoreError),
    "a foreign database with an id": (_foreign_with_id, NotAStoreError),
    "a text file": (_text, NotAStoreError),
    "a short text file": (_short_text, NotAStoreError),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_that_cannot_be_used_is_refused_by_type_and_left_untouched(
    case: str, tmp_path: Path
) -> None:
    make, error = REFUSED[case]
    path = tmp_path / "soulkeep.db"
    make(path)
    before = path.read_bytes()

    with pytest.raises(error) as raised:
        SqliteRepository(path)

    assert isinstance(raised.value, StoreError)
    assert raised.value.path == path
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["soulkeep.db"]


@pytest.mark.parametrize("case", REFUSED)
def test_the_command_ends_with_one_line_on_stderr_and_a_failing_exit_code(
    case: str, run: Run, tmp_path: Path
) -> None:
    REFUSED[case][0](tmp_path / "soulkeep.db")
    before = (tmp_path / "soulkeep.db").read_bytes()

    _assert_refused(run, tmp_path, "soulkeep.db")

    assert (tmp_path / "soulkeep.db").read_bytes() == before


def _assert_refused(run: Run, home: Path, named: str) -> None:
    code, out, err = run("serve", "--home", str(home))
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("soulkeep: ")
    assert named in line


def test_a_folder_in_the_place_of_the_store_is_refused_and_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "soulkeep.db" / "inside").mkdir(parents=True)

    with pytest.raises(NotAStoreError, match="a folder"):
        SqliteRepository(tmp_path / "soulkeep.db")

    _assert_refused(run, tmp_path, "a folder")
    assert (tmp_path / "soulkeep.db" / "inside").is_dir()


def test_a_file_in_the_place_of_the_home_is_refused_and_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("mine", encoding="utf-8")

    with pytest.raises(StoreNotWritableError):
        SqliteRepository(tmp_path / "home" / "soulkeep.db")

    _assert_refused(run, tmp_path / "home", "set --home to")
    assert (tmp_path / "home").read_text(encoding="utf-8") == "mine"


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Give up root's right to write anywhere, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits for folders")
@pytest.mark.parametrize("place", ["a new store", "a store of before"])
def test_a_read_only_place_is_refused(place: str, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)  # pytest makes its folders for their owner only
    home = tmp_path / "home"
    home.mkdir()
    if place == "a store of before":
        SqliteRepository(home / "soulkeep.db").close()
        (home / "soulkeep.db").chmod(0o444)
    home.chmod(0o555)
    before = {path.name: path.read_bytes() for path in home.iterdir()}

    with _as_nobody(), pytest.raises(StoreNotWritableError) as raised:
        SqliteRepository(home / "soulkeep.db")

    assert "SOULKEEP_HOME" in str(raised.value)
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before
    home.chmod(0o755)


class _FullDisk(apsw.VFS):
    """A file system that takes so many bytes and then has no room left."""

    def __init__(self) -> None:
        super().__init__("full", "")
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


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> _FullDisk:
    disk, connection = _FullDisk(), apsw.Connection
    monkeypatch.setattr(
        apsw, "Connection", lambda path, **options: connection(path, vfs="full", **options)
    )
    return disk


def test_a_disk_that_is_full_at_the_first_start_is_an_error_with_nothing_half_made(
    full_disk: _FullDisk, tmp_path: Path
) -> None:
    full_disk.room = 40_000

    with pytest.raises(StoreFullError):
        SqliteRepository(tmp_path / "soulkeep.db")

    full_disk.room = 1 << 40
    assert SqliteRepository(tmp_path / "soulkeep.db").check(vectors_expected=False) == []


def test_a_write_on_a_full_disk_is_an_error_and_what_was_there_stays(
    full_disk: _FullDisk, tmp_path: Path
) -> None:
    home = open_home(tmp_path)
    home.memories.remember([NewMemory("Kept before the disk was full.")])
    full_disk.room = 0

    with pytest.raises(StoreFullError) as raised:
        home.memories.remember([NewMemory("There is no room for this one.")])

    full_disk.room = 1 << 40
    assert "free some space" in str(raised.value)
    assert home.repository.count_rows()["memories"] == 1
    assert home.check() == []
    home.memories.remember([NewMemory("There is room again.")])
    home.close()


def test_very_much_is_not_forgotten_where_there_is_no_room_for_a_backup_before(
    full_disk: _FullDisk, home: Home
) -> None:
    ids = [r.id for r in home.memories.remember([NewMemory(f"Memory {n}.") for n in range(100)])]
    full_disk.room = 100_000

    with pytest.raises(StoreFullError, match="free some space"):
        home.lifecycle.forget(ids)

    assert home.lifecycle.list_trash() == []
    full_disk.room = 1 << 40
    assert home.repository.count_rows()["memories"] == 100
    home.lifecycle.forget(ids)
    assert len(home.backups.list_backups()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits for folders")
def test_very_much_is_not_forgotten_where_the_folder_of_backups_is_read_only(home: Home) -> None:
    ids = [r.id for r in home.memories.remember([NewMemory(f"Memory {n}.") for n in range(100)])]
    (home.path / "backups").mkdir(mode=0o500)

    with _as_nobody(), pytest.raises(StoreError, match="make the folder writable"):
        home.lifecycle.forget(ids)

    assert home.repository.count_rows()["memories"] == 100


def test_a_damaged_store_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "soulkeep.db"
    SqliteRepository(path).close()
    content = bytearray(path.read_bytes())
    content[200 : 16384 * 2] = b"\xff" * (16384 * 2 - 200)
    path.write_bytes(content)

    with pytest.raises(StoreCorruptError, match="backup"):
        SqliteRepository(path).check(vectors_expected=False)


def test_a_store_killed_before_its_first_checkpoint_opens_again(tmp_path: Path) -> None:
    path, copy = tmp_path / "soulkeep.db", tmp_path / "copy" / "soulkeep.db"
    running = SqliteRepository(path)
    copy.parent.mkdir()
    for suffix in ("", "-wal"):  # what a power cut leaves: the log is not in the file yet
        copy.with_name(copy.name + suffix).write_bytes(path.with_name(path.name + suffix).read_bytes())
    running.close()

    again = SqliteRepository(copy)

    assert again.versions()["schema"] == str(len(schema.STEPS))
    again.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
def test_folders_and_files_are_for_their_owner_only(home: Home) -> None:
    home.memories.remember([NewMemory("Private.")])

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home.path, *home.path.iterdir())}

    assert modes[home.path.name] == modes["daily"] == 0o700  # backups have a test of their own
    del modes[home.path.name], modes["daily"]
    assert set(modes.values()) == {0o600}
    assert {"SOUL.md", "MEMORY.md", "soulkeep.db", "soulkeep.db-wal"} <= set(modes)


LATEST = len(schema.STEPS)
NEXT_STEP = ("ALTER TABLE memories ADD COLUMN weight REAL DEFAULT 1.0",)


def _old_home(path: Path) -> None:
    """Make a home as the first soulkeep left it, with one memory."""
    with closing(Database(path / "soulkeep.db")) as old:
        schema.bootstrap(old, schema.STEPS[:1])
        old.execute(
            "INSERT INTO memories (content, memory_type, created_at)"
            " VALUES ('The lighthouse is closed.', 'fact', '2026-01-01T00:00:00.000Z')"
        )
    (path / "MEMORY.md").write_text("# Mine\n", encoding="utf-8")


def _version(path: Path) -> int:
    with closing(another_program(path / "soulkeep.db")) as store:
        return int(store.pragma("user_version"))


@pytest.mark.embedder("universal")
def test_a_migration_keeps_the_rows_and_leaves_a_backup_of_before(tmp_path: Path) -> None:
    home = open_home(tmp_path)
    home.memories.remember([NewMemory("Older than the migration.")])
    home.documents.append_daily("Older than it too.")
    home.close()
    database, backups = Database(file_of(home)), home.backups

    schema.bootstrap(database, (*schema.STEPS, NEXT_STEP), migrating=backups.before_migration)

    assert database.execute("SELECT content, weight FROM memories") == [
        ("Older than the migration.", 1.0)
    ]
    assert database.execute("PRAGMA user_version") == [(LATEST + 1,)]
    database.close()
    (backup,) = backups.list_backups()
    assert (backup.label, backup.automatic) == (f"before migration from schema {LATEST}", True)
    assert (backup.counts["memories"], backup.counts["vectors"]) == (1, 1)
    verify_files(backups.folder / backup.id)
    shutil.copytree(backups.folder / backup.id, tmp_path / "copy")
    copy = open_home(tmp_path / "copy")
    assert copy.repository.versions()["schema"] == str(LATEST)
    assert copy.memories.recall("migration").matches[0].memory.content == "Older than the migration."
    assert copy.documents.list_daily() == home.documents.list_daily()
    assert copy.check() == []
    copy.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    SqliteRepository(tmp_path / "soulkeep.db").close()
    database = Database(tmp_path / "soulkeep.db")
    broken = ("CREATE TABLE first_half (x)", "CREATE TABLE threads (x)")

    with pytest.raises(StoreError):
        schema.bootstrap(database, (*schema.STEPS, broken))

    assert database.execute("PRAGMA user_version") == [(LATEST,)]
    assert database.execute("SELECT name FROM sqlite_master WHERE name = 'first_half'") == []
    database.close()


def _file_in_the_way(home: Path) -> None:
    (home / "backups").write_text("A file of mine.", encoding="utf-8")


def _torn_index(home: Path) -> None:
    with closing(another_program(home / "soulkeep.db")) as store:
        (page, size) = store.execute(
            "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size"
            " WHERE sqlite_master.name = 'memories_by_date'"
        ).get
    with (home / "soulkeep.db").open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))


def _list_of_words_gone(home: Path) -> None:
    with closing(another_program(home / "soulkeep.db")) as store:
        store.execute("DROP TABLE memories_fts_docsize")


@pytest.mark.parametrize(
    ("damage", "remedy"),
    [
        (_file_in_the_way, "make the folder writable"),
        (_torn_index, "soulkeep restore"),
        (_list_of_words_gone, "soulkeep restore"),
    ],
)
def test_a_store_that_cannot_be_backed_up_is_not_migrated(
    damage: Callable[[Path], None], remedy: str, run: Run, tmp_path: Path
) -> None:
    _old_home(tmp_path)
    damage(tmp_path)

    with pytest.raises(NotMigratedError, match=remedy) as refused:
        open_home(tmp_path)

    assert refused.value.version == _version(tmp_path) == 1
    _assert_refused(run, tmp_path, "could not be backed up")
    assert _version(tmp_path) == 1
    assert open_backups(tmp_path).list_backups() == []
    if damage is _file_in_the_way:
        (tmp_path / "backups").unlink()
        with closing(open_home(tmp_path)) as home:
            assert home.memories.recall("lighthouse").matches


def test_a_store_is_not_migrated_where_there_is_no_room_for_its_backup(
    full_disk: _FullDisk, tmp_path: Path
) -> None:
    _old_home(tmp_path)
    full_disk.room = 100_000

    with pytest.raises(NotMigratedError, match="free some space"):
        open_home(tmp_path)

    full_disk.room = 1 << 40
    assert _version(tmp_path) == 1
    assert {path.name for path in (tmp_path / "backups").iterdir()} == {".lock"}
    open_home(tmp_path).close()
    assert _version(tmp_path) == LATEST


def test_a_store_that_is_damaged_before_its_migration_is_restored(tmp_path: Path) -> None:
    _old_home(tmp_path)
    backup = open_backups(tmp_path).make("whole")
    _list_of_words_gone(tmp_path)

    restored = open_backups(tmp_path).restore(backup.id)

    assert restored.former is None
    with closing(open_home(tmp_path)) as home:
        assert home.memories.recall("lighthouse").matches
        assert home.check() == []


def test_a_staged_copy_is_migrated_without_a_backup_of_its_own(tmp_path: Path) -> None:
    _old_home(tmp_path)

    SqliteRepository(tmp_path / "soulkeep.db").close()

    assert _version(tmp_path) == LATEST
    assert open_backups(tmp_path).list_backups() == []


def test_several_connections_migrate_one_file_at_once(tmp_path: Path) -> None:
    open_home(tmp_path).close()
    path, backups = tmp_path / "soulkeep.db", open_backups(tmp_path)

    def migrate(_: int) -> list[tuple[int, ...]]:
        database = Database(path)
        schema.bootstrap(database, (*schema.STEPS, NEXT_STEP), migrating=backups.before_migration)
        version = database.execute("PRAGMA user_version")
        database.close()
        return version

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(migrate, range(6))) == [[(LATEST + 1,)]] * 6
    (backup,) = backups.list_backups()
    assert backup.label == f"before migration from schema {LATEST}"


OPENING = """
import sys
from soulkeep.app import open_home

print("ready", flush=True)
sys.stdin.readline()
home = open_home(sys.argv[1], embedder="none")
found = [match.memory.content for match in home.memories.recall("lighthouse").matches]
print(home.repository.versions()["schema"], found)
home.close()
"""


def test_four_processes_that_open_an_old_store_at_once_make_one_backup_and_one_migration(
    tmp_path: Path,
) -> None:
    _old_home(tmp_path)
    processes = [run_code(OPENING, tmp_path) for _ in range(4)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda process: process.communicate("go\n", timeout=60)[0], processes))

    assert answers == [f"{LATEST} ['The lighthouse is closed.']\n"] * 4
    backups = open_backups(tmp_path)
    (backup,) = backups.list_backups()
    assert (backup.label, backup.automatic) == ("before migration from schema 1", True)
    assert _version(backups.folder / backup.id) == 1
    with closing(open_home(tmp_path, embedder="none")) as home:
        home.memories.remember([NewMemory("Written after the migration.")])
        home.backups.restore(backup.id)
        assert [m.content for m in home.lifecycle.list_memories()] == ["The lighthouse is closed."]
        assert home.documents.read("MEMORY.md") == "# Mine\n"
        assert home.check() == []


def test_a_restore_and_a_migration_that_meet_do_not_wait_for_each_other_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _old_home(tmp_path)
    backups, store = open_backups(tmp_path), tmp_path / "soulkeep.db"
    kept = shutil.copytree(backups.folder / backups.make("try").id, tmp_path / "kept")
    copies = SqliteCopies(store, Days())
    monkeypatch.setattr("soulkeep.repository.sqlite.connections.BUSY_TIMEOUT_S", 0)
    began = threading.Event()

    def migrating(version: int) -> None:
        began.set()
        backups.before_migration(version)

    with ThreadPoolExecutor(1) as pool:
        # What a restore holds when it comes to the store, which the migration has locked meanwhile.
        with exclusive(backups.folder), Folder(tmp_path).locked():
            migration = pool.submit(lambda: SqliteRepository(store, migrating).close())
            assert began.wait(30)
            with pytest.raises(StoreBusyError), copies.replacing(kept, continuing=True):
                pass
        migration.result(30)

    assert _version(tmp_path) == LATEST
    assert [b.label for b in backups.list_backups()] == ["before migration from schema 1", "try"]


RELEASED_STEPS = [
    "32b717b5c4fbbca2",
    "b493062b0d7a8c27",
    "06defbe912a0414d",
    "135b66aacf829183",
    "9e255c14b662ebe4",
    "3310452615b061ef",
    "33f28b9510f53c59",
    "258d8b4e52822e3b",
]


def test_a_released_step_of_the_schema_never_changes() -> None:
    digests = [hashlib.sha256("\n".join(step).encode()).hexdigest()[:16] for step in schema.STEPS]

    assert digests == RELEASED_STEPS


def test_a_write_lock_that_is_never_released_is_a_typed_error(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = another_program(file_of(home))
    blocker.execute("BEGIN IMMEDIATE")

    with database_of(home).without_waiting(), pytest.raises(StoreBusyError, match="try again"):
        home.threads.create_thread("Blocked")

    blocker.execute("ROLLBACK")
    assert home.threads.create_thread("Free again").title == "Free again"


@pytest.mark.embedder("universal")
def test_check_names_each_kind_of_damage_and_reindex_mends_the_indexes(home: Home) -> None:
    home.memories.remember([NewMemory(f"Memory {number}.") for number in range(3)])
    database = database_of(home)
    with home.repository.transaction():
        database.execute("DELETE FROM vec_memories WHERE memory_id = 1")
        database.execute(
            "INSERT INTO vec_memories SELECT 77, content_embedding FROM vec_memories LIMIT 1"
        )
        database.execute("INSERT INTO memories_fts (rowid, content) VALUES (88, 'stray')")

    found = {(fault.name, fault.detail) for fault in home.check()}

    assert found == {
        ("vectors", "1 memory has no vector"),
        ("vectors", "1 vector has no memory"),
        ("full text", "0 memories are not indexed, 1 entry has no memory"),
    }
    assert home.indexes.reindex() == 3
    assert home.check() == []


def test_a_store_of_the_first_schema_is_migrated_with_its_words_and_vectors(tmp_path: Path) -> None:
    indexes = open_home(tmp_path / "other").indexes
    vector = indexes.embed_new([NewMemory("The lighthouse is closed.")], LOCAL)[0][0]
    old = Database(tmp_path / "soulkeep.db")
    schema.bootstrap(old, schema.STEPS[:1])
    old.execute("INSERT INTO threads VALUES ('t', 'Old', NULL, 0, '2026-01-01', '2026-01-01')")
    old.execute(
        "INSERT INTO memories (thread_id, content, memory_type, created_at)"
        " VALUES ('t', 'The lighthouse is closed.', 'fact', '2026-01-01T00:00:00.000Z')"
    )
    if vector is not None:
        old.execute("INSERT INTO vec_memories VALUES (1, ?)", (padded(vector.embedding),))
        old.execute("INSERT INTO store_facts VALUES ('embedder', ?)", (WordLlama.identity,))
    old.close()

    home = open_home(tmp_path)

    (match,) = home.memories.recall("lighthouse", until="2026-01-01").matches
    assert match.memory.occurred_at == "2026-01-01T00:00:00.000Z"
    assert match.memory.subject is None
    assert home.check() == []
    assert [b.label for b in home.backups.list_backups()] == ["before migration from schema 1"]
    home.close()


def test_a_blank_and_a_migrated_store_have_the_same_schema(tmp_path: Path) -> None:
    schemas = []
    for name, first in (("blank.db", schema.STEPS), ("migrated.db", schema.STEPS[:1])):
        database = Database(tmp_path / name)
        schema.bootstrap(database, first)
        schema.bootstrap(database)
        schemas.append(set(database.execute("SELECT type, name, sql FROM sqlite_master")))
        database.close()

    assert schemas[0] == schemas[1]


def test_check_finds_rows_that_refer_to_nothing(home: Home) -> None:
    other = another_program(file_of(home))
    other.execute(
        "INSERT INTO messages (session_id, role, content, created_at) VALUES ('x', '', '', '')"
    )

    (fault,) = home.check()

    assert fault.name == "foreign keys"
    assert "messages" in fault.detail


def test_check_finds_vectors_in_a_store_whose_memories_should_have_none(home: Home) -> None:
    database = database_of(home)
    with home.repository.transaction():
        database.execute(
            "INSERT INTO vec_memories (memory_id, content_embedding) VALUES (1, zeroblob(6144))"
        )

    (fault,) = home.check()

    assert fault.detail == "1 vector is of no known embedder"


def test_a_file_on_which_opening_fails_half_way_is_not_kept_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = SimpleNamespace(origin=str(tmp_path / "no" / "module.py"))
    monkeypatch.setattr("soulkeep.repository.sqlite.connections.find_spec", lambda _: elsewhere)

    with pytest.raises(StoreError):
        Database(tmp_path / "soulkeep.db")
