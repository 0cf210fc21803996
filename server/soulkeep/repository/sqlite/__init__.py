"""The only code that talks to SQLite."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

from soulkeep import repository as interface
from soulkeep.days import Days
from soulkeep.errors import StoreBusyError, StoreFullError, StoreNotWritableError
from soulkeep.models import LOCAL_AGENT
from soulkeep.repository.sqlite.changes import ChangeTable, Recording
from soulkeep.repository.sqlite.database import Database, ReadOnlyDatabase
from soulkeep.repository.sqlite.files import size_of
from soulkeep.repository.sqlite.ledger import Ledger, MessageTable
from soulkeep.repository.sqlite.memories import DocumentTable, MemoryTable
from soulkeep.repository.sqlite.next_vectors import NextVectors
from soulkeep.repository.sqlite.prompts import ConsentTable, PromptTable, ThreadTable
from soulkeep.repository.sqlite.scan import VectorScan
from soulkeep.repository.sqlite.schema import Migrating, bootstrap
from soulkeep.repository.sqlite.upkeep import Upkeep, remove_leftover
from soulkeep.repository.sqlite.vectors import VectorTable
from soulkeep.search.words import TEXT_RULES

__all__ = ["SqliteRepository"]


class SqliteRepository(Upkeep):
    """A store: its tables by noun, and the transactions that span them."""

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
        days = days or Days()
        with ExitStack() as on_failure:
            database = ReadOnlyDatabase(path) if read_only else Database(path)
            on_failure.callback(database.close)
            super().__init__(database)
            self.snapshot, self.revision = database.snapshot, database.revision
            self.get_fact, self.put_fact = database.get_fact, database.put_fact
            self._vectors, self._consents = VectorTable(database), ConsentTable(database)
            self._memories = MemoryTable(database, self._vectors, days)
            ledger, self._scan = Ledger(database, days), VectorScan(database, self._vectors)
            self._messages = MessageTable(database, ledger)
            self._changes = ChangeTable(database, self._memories, self._messages, self._consents)
            if not read_only:
                bootstrap(database, rebuild=self._fill_new_tables, migrating=migrating)
                database.note_identity()
                remove_leftover(database)
                self._follow_text_rules()
            on_failure.pop_all()
        self.memory_used = self._scan.memory_used
        self.memories: interface.Memories = self._memories
        self.vectors: interface.Vectors = self._vectors
        self.vector_search: interface.VectorSearch = self._scan
        self.next_vectors: interface.NextVectors = NextVectors(database, self._memories, self._vectors)
        self.documents: interface.Documents = DocumentTable(database)
        self.threads: interface.Threads = ThreadTable(database)
        self.prompts: interface.Prompts = PromptTable(database)
        self.consents: interface.Consents = self._consents
        self.messages: interface.Messages = self._messages
        self.ledger: interface.Ledger = ledger
        self.changes: interface.Changes = self._changes

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
    def erasing(self) -> Iterator[None]:
        """Do everything inside as one durable write that is noted nowhere."""
        with self.recording():
            yield

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
    def in_transaction(self) -> bool:
        """Whether this thread is inside a transaction."""
        return self._database.in_transaction

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
