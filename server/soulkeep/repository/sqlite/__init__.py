"""The only code that talks to SQLite: a store, and copies of it that are put in its place."""

import filecmp
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import apsw

from soulkeep import repository as interface
from soulkeep.days import Days
from soulkeep.disk import copy_file
from soulkeep.errors import (
    BackupDamagedError,
    SchemaTooNewError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreNotWritableError,
)
from soulkeep.models import LOCAL_AGENT
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.repository.sqlite.changes import ChangeTable, Recording
from soulkeep.repository.sqlite.connections import open_alone, set_aside_foreign_log, translated
from soulkeep.repository.sqlite.database import Database, ReadOnlyDatabase
from soulkeep.repository.sqlite.files import (
    APPLICATION_ID,
    Header,
    create_file,
    size_of,
    store_identity,
    stored_header,
)
from soulkeep.repository.sqlite.indexes import NextVectors, VectorTable
from soulkeep.repository.sqlite.ledger import Ledger, MessageTable
from soulkeep.repository.sqlite.memories import DocumentTable, MemoryTable
from soulkeep.repository.sqlite.prompts import ConsentTable, PromptTable, ThreadTable
from soulkeep.repository.sqlite.rows import Rows
from soulkeep.repository.sqlite.scan import VectorScan
from soulkeep.repository.sqlite.schema import STEPS, Migrating, bootstrap
from soulkeep.repository.sqlite.upkeep import SOURCES, Upkeep, remove_leftover
from soulkeep.search.words import TEXT_RULES


class SqliteRepository(Upkeep):
    """A store: its tables by noun, and the transactions that span them."""

    memories: interface.Memories
    vectors: interface.Vectors
    vector_search: interface.VectorSearch
    next_vectors: interface.NextVectors
    documents: interface.Documents
    threads: interface.Threads
    prompts: interface.Prompts
    consents: interface.Consents
    messages: interface.Messages
    ledger: interface.Ledger
    changes: interface.Changes
    rows: interface.Rows

    def __init__(
        self,
        path: Path,
        migrating: Migrating = lambda version: None,
        days: Days | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        """Open the store at `path`, making or migrating it if need be; without `days`, this machine's.

        One that is opened `read_only` is read as it is, also where nothing can be written.

        `migrating` is called with the version of an older store, before anything of it is changed; what
        it raises leaves the store as it was.

        Raises:
            StoreError: The file cannot serve; the subclass says why.
        """
        self.path, self.place = path, str(path)
        self._days = days = days or Days()
        with ExitStack() as on_failure:
            database = ReadOnlyDatabase(path) if read_only else Database(path)
            on_failure.callback(database.close)
            super().__init__(database)
            self.snapshot, self.revision = database.snapshot, database.revision
            self.in_transaction = database.in_transaction
            # Nobody tells of commits: the file has to be looked at.
            self.hearing: Callable[[Callable[[], object]], AbstractContextManager[None]] = lambda _: (
                nullcontext()
            )
            self.get_fact, self.put_fact = database.get_fact, database.put_fact
            self.vectors = self._vectors = VectorTable(database)
            self.vector_search = self._scan = VectorScan(database, self._vectors)
            self.memory_used = self._scan.memory_used
            self.memories = self._memories = MemoryTable(database, self._vectors, days)
            self.next_vectors = NextVectors(database, self._memories, self._vectors)
            self.documents, self.threads = DocumentTable(database), ThreadTable(database)
            self.prompts, self.rows = PromptTable(database), Rows(database)
            ledger = Ledger(database)
            self.ledger = ledger
            self.messages = self._messages = MessageTable(database, ledger)
            self.consents = self._consents = ConsentTable(database)
            self.changes = self._changes = ChangeTable(
                database, self._memories, self._messages, self._consents
            )
            if not read_only:
                bootstrap(database, rebuild=self._fill_new_tables, migrating=migrating)
                database.note_identity()
                remove_leftover(database)
                self._follow_text_rules()
            on_failure.pop_all()

    def _fill_new_tables(self) -> None:
        self.rebuild_full_text()
        self._consents.note_earlier(LOCAL_AGENT)

    def rebuild_full_text(self, *, recreate: bool = False) -> None:
        """Build the full text anew, perhaps with all else that is derived; inside a transaction."""
        if recreate:
            self.recreate_indexes()
        self._memories.rebuild_full_text()
        self._messages.rebuild_full_text()
        self.put_fact("text_rules", str(TEXT_RULES))

    def _follow_text_rules(self) -> None:
        """Index anew what older rules for texts indexed, and let documents be read again."""
        if self._text_rules() >= TEXT_RULES:
            return
        # Who cannot write now still finds most; whoever opens the store next tries again.
        with suppress(StoreBusyError, StoreFullError, StoreNotWritableError), self.transaction():
            # Another process may have done it meanwhile.
            if self._text_rules() < TEXT_RULES:
                self.rebuild_full_text()
                # Every document is read again, whatever is known of it.
                self._database.execute("UPDATE document_states SET state = ''")

    def _text_rules(self) -> int:
        # Over the connection that writes: a store is opened more quickly without one that reads.
        rows = self._database.execute("SELECT value FROM store_facts WHERE name = 'text_rules'")
        return int(rows[0][0]) if rows else 1

    @contextmanager
    def transaction(self, *, durable: bool = True, waiting: bool = True) -> Iterator[None]:
        """Do everything inside as one write: all of it, or nothing when an error leaves the block."""
        patience = nullcontext() if waiting else self._database.without_waiting()
        with patience, self._database.transaction(durable=durable):
            self._changes.watch()
            yield

    @contextmanager
    def recording(self, *, waiting: bool = True) -> Iterator[Recording]:
        """Do everything inside as one durable write, of which each row that can be undone is noted."""
        with self.transaction(waiting=waiting), self._changes.recording() as recording:
            yield recording

    @contextmanager
    def sole_worker(self, name: str) -> Iterator[bool]:
        """Say whether this one alone, of all that have the store open, does the work of a name now.

        The end of the process frees it too, however it ends.

        Raises:
            StoreNotWritableError: The folder of the store cannot be written.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path.with_name(f".{name}.lock"), timeout=0, mode=0o600)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            raise StoreNotWritableError(self.path, str(error)) from error
        try:
            yield True
        finally:
            lock.release()

    @property
    def only_reads(self) -> bool:
        """Whether nothing can be written, as the disk was full when the store was last opened."""
        return self._database.only_reads

    def release_memory(self) -> None:
        """Give back the memory of what was read, which the next search reads again.

        Raises:
            StoreError: The store is gone.
        """
        self._scan.release()
        self._memories.frequencies.release()
        self._database.release_memory()

    def count_by_day(self, since: str, event: str | None = None) -> dict[str, int]:
        """Count memories, no entries, that were kept since a timestamp, or what happened, by day."""
        if event is None:
            at, counted = "created_at", "memories WHERE document IS NULL"
        else:
            at, counted = "timestamp", "audit_log WHERE event = :event"
        rows = self._database.query(
            f"SELECT substr({at}, 1, 16) || 'Z', count(*) FROM {counted} AND {at} >= :since GROUP BY 1",
            {"since": since, "event": event},
        )
        by_day: Counter[str] = Counter()
        for moment, count in rows:
            by_day[self._days.date_text(moment)] += count
        return dict(by_day)

    def size(self) -> int:
        """Return how many bytes the store's files take."""
        return sum(size_of(self.path.with_name(self.path.name + end)) for end in ("", "-wal", "-shm"))

    def versions(self) -> dict[str, str]:
        """Return the versions of SQLite and sqlite-vec, and the schema's."""
        sqlite, vec, schema = self._database.query(
            "SELECT sqlite_version(), vec_version(), (SELECT user_version FROM pragma_user_version)"
        )[0]
        return {"SQLite": sqlite, "sqlite-vec": vec, "schema": str(schema)}

    def close(self) -> None:
        """Close the store and give back its memory; closing it again does nothing."""
        self._database.close()
        self._scan.release()
        self._memories.frequencies.release()


CHANGES_SKIPPED = 2**32
"""By how much a restore moves the number of the last changed vector.

Copies of vectors in other processes are loaded anew, whatever those saw until then.
"""

_PAGES_AT_ONCE = 1_000


@dataclass(slots=True)
class Snapshot:
    """A store as it is at one moment, however others go on writing, with its counts of rows."""

    connection: apsw.Connection
    counts: Mapping[str, int]
    name: str

    def copy_to(self, folder: Path) -> None:
        """Write it to a new file in a folder, which is complete without any other beside it.

        Raises:
            StoreError: The file cannot be written.
        """
        path = folder / self.name
        create_file(path)
        with translated(path), closing(apsw.Connection(str(path))) as copy:
            with copy.backup("main", self.connection, "main") as backup:
                while not backup.done:
                    backup.step(_PAGES_AT_ONCE)
                    tell("Copying the store", 1 - backup.remaining / max(backup.page_count, 1))
            copy.pragma("journal_mode", "delete")


class SqliteCopies:
    """Copies of the store at one path; its file has the same name in each of them."""

    def __init__(self, store: Path, days: Days) -> None:
        self._store, self.place = store, str(store)
        self._days = days

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """Hold on to the present state of the store during the block; others can write meanwhile.

        It is what is committed, also where the caller is inside a transaction.

        Raises:
            StoreCorruptError: It is damaged.
            StoreError: It cannot be read.
        """
        with translated(self._store), closing(open_alone(self._store)) as connection:
            connection.execute("BEGIN")
            # The first look is the moment: until the end of the transaction nothing newer is seen.
            try:
                counts = _counts(connection)
            except apsw.SQLError as error:  # one of its tables is gone
                raise StoreCorruptError(self._store, str(error)) from error
            yield Snapshot(connection, counts, self._store.name)

    def examine(self, folder: Path) -> tuple[int, dict[str, int]]:
        """Return the schema version and the counts of rows of a copy, having read all of it.

        Raises:
            BackupDamagedError: It is not whole, or no store.
            SchemaTooNewError: A later soulkeep wrote it.
        """
        path = folder / self._store.name
        try:
            with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as copy:
                version = copy.pragma("user_version")
                ours = copy.pragma("application_id") == APPLICATION_ID
                if ours and version > len(STEPS):
                    raise SchemaTooNewError(path, version, len(STEPS))
                faults = [row[0] for row in copy.execute("PRAGMA integrity_check(3)")]
                if not ours or faults != ["ok"]:
                    raise BackupDamagedError(path, "; ".join(faults) if ours else "it is no store")
                return version, _counts(copy)
        except apsw.Error as error:
            raise BackupDamagedError(path, str(error)) from error

    @contextmanager
    def opened(self, folder: Path) -> Iterator[Repository]:
        """Open a copy to change it; after the block it is complete without any other file beside it.

        Raises:
            StoreError: It cannot be opened or written.
        """
        copy = folder / self._store.name
        with closing(SqliteRepository(copy, days=self._days)) as repository:
            yield repository
        with translated(copy), closing(open_alone(copy)) as connection:
            connection.pragma("journal_mode", "delete")

    def is_there(self) -> bool:
        """Whether there is a file that begins as a store does; a foreign log is set aside."""
        if not self._store.exists() or not isinstance(stored_header(self._store), Header):
            return False
        set_aside_foreign_log(self._store)
        return True

    def keep_files(self, folder: Path) -> bool:
        """Copy the store's file and its log as they are; False where there is neither.

        Raises:
            StoreError: A copy is not the same.
            OSError: A file cannot be read or copied.
        """
        there = [file for file in self._files() if file.exists()]
        for file in (file for file in there if not file.name.endswith("-shm")):
            copy_file(file, folder / file.name)
            if not filecmp.cmp(file, folder / file.name, shallow=False):
                raise StoreError(folder, "a file was not written as it is", "check the disk")
        return bool(there)

    def _files(self) -> list[Path]:
        return [self._store.with_name(self._store.name + end) for end in ("-wal", "-shm", "")]

    @contextmanager
    def replacing(self, folder: Path, *, continuing: bool) -> Iterator[Repository]:
        """Keep others from writing during the block, then put what a copy holds in the store's place.

        It happens at once, also for those who have the store open. When an error leaves the block, the
        store stays as it was; without `continuing` an empty one takes the place of whatever was there.

        Raises:
            StoreBusyError: Another process kept the write lock.
            StoreError: The store cannot be written, or the copy not read.
        """
        if not continuing:
            for file in self._files():
                file.unlink(missing_ok=True)
            SqliteRepository(self._store).close()
        copy = folder / self._store.name
        _fit(copy, self._store)
        with (
            closing(SqliteRepository(copy, days=self._days)) as staged,
            translated(self._store),
            closing(open_alone(copy)) as source,
            closing(open_alone(self._store, "fullfsync = ON")) as target,  # with synchronous = FULL
        ):
            with target.backup("main", source, "main") as backup:
                backup.step(1)  # takes the write lock, which SQLite keeps until the backup is finished
                if continuing:
                    _continue_ids_of(copy, self._store)
                yield staged
                # What the block changed in the copy makes SQLite begin it anew, under the same lock.
                backup.step()
            target.set_busy_timeout(0)
            with suppress(apsw.BusyError):
                target.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def _fit(copy: Path, store: Path) -> None:
    """Give a copy the pages of the store whose place it is to take.

    A store in WAL mode takes no other size, and who has it open relies on its map of pages, or on there
    being none.

    Raises:
        StoreError: Either cannot be read, or the copy not written.
    """
    fitting = copy.with_name(f".{copy.name}.part")
    with translated(store):
        try:
            with closing(open_alone(store)) as connection:
                wanted = connection.pragma("page_size"), connection.pragma("auto_vacuum")
        except apsw.CorruptError:
            # https://www.sqlite.org/fileformat.html#the_database_header
            with store.open("rb") as file:
                header = file.read(100)
            bounds = ((16, 18), (52, 56), (64, 68))
            size, root, incremental = (int.from_bytes(header[a:b]) for a, b in bounds)
            wanted = 65536 if size == 1 else size, (2 if incremental else 1) if root else 0
    with translated(copy), closing(open_alone(copy)) as connection:
        if wanted != (connection.pragma("page_size"), connection.pragma("auto_vacuum")):
            connection.pragma("page_size", wanted[0])
            connection.pragma("auto_vacuum", wanted[1])
            # Not in its own place, for which SQLite takes the system's folder for temporary files.
            create_file(fitting)
            connection.execute("VACUUM INTO ?", (str(fitting),))
    if fitting.exists():
        fitting.replace(copy)


def _continue_ids_of(copy: Path, store: Path) -> None:
    """Let a copy go on with ids where the store ends whose place it is to take, and be the same store.

    An id is never given to a second memory, and no other process takes its copies of vectors for those
    of the restored store. Keep others from writing the store meanwhile.

    Raises:
        StoreError: The copy cannot be written.
    """
    last, store_id = dict[str, int](), None
    # Of a damaged store nobody can know.
    with suppress(StoreCorruptError), translated(store), closing(open_alone(store)) as connection:
        last = dict(list(connection.execute("SELECT name, seq FROM sqlite_sequence")))
    with suppress(StoreCorruptError), translated(store), closing(open_alone(store)) as connection:
        store_id = store_identity(connection)[0]
    with closing(Database(copy)) as database, database.transaction():
        if store_id is not None:
            database.execute("UPDATE store_facts SET value = ? WHERE name = 'store_id'", (store_id,))
        for name, number in database.query("SELECT name, seq FROM sqlite_sequence"):
            last[name] = max(number, last.get(name, 0))
        database.execute("DELETE FROM sqlite_sequence")
        rows = [(name, number) for name, number in last.items() if name != "memory_changes"]
        database.execute_many("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", rows)
        change = last.get("memory_changes", 0) + CHANGES_SKIPPED
        database.execute("INSERT INTO memory_changes (seq, memory_id) VALUES (?, 0)", (change,))


def _counts(connection: apsw.Connection) -> dict[str, int]:
    return {
        name: int(connection.execute(f"SELECT count(*) FROM {source}").get)
        for name, source in SOURCES.items()
    }
