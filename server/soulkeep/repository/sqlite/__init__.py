"""The only code that talks to SQLite."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

from soulkeep.days import Days
from soulkeep.errors import StoreBusyError, StoreFullError, StoreNotWritableError
from soulkeep.models import LOCAL_AGENT, Fault
from soulkeep.repository.sqlite import backups, checks, compaction, erasure, recreation
from soulkeep.repository.sqlite.changes import ChangeTable
from soulkeep.repository.sqlite.compaction import VectorSpace
from soulkeep.repository.sqlite.consents import ConsentTable
from soulkeep.repository.sqlite.database import Database, ReadOnlyDatabase
from soulkeep.repository.sqlite.document_rows import DocumentTable
from soulkeep.repository.sqlite.frequencies import WordFrequencies
from soulkeep.repository.sqlite.ledger import Ledger
from soulkeep.repository.sqlite.memories import MemoryTable
from soulkeep.repository.sqlite.messages import MessageTable
from soulkeep.repository.sqlite.next_vectors import NextVectors
from soulkeep.repository.sqlite.prompts import PromptTable
from soulkeep.repository.sqlite.rewriting import remove_leftover
from soulkeep.repository.sqlite.scan import VectorScan
from soulkeep.repository.sqlite.schema import Migrating, bootstrap
from soulkeep.repository.sqlite.threads import ThreadTable
from soulkeep.repository.sqlite.vectors import VectorTable
from soulkeep.search.words import TEXT_RULES

__all__ = ["SqliteRepository"]


class SqliteRepository:
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
        self.path = path
        days = days or Days()
        with ExitStack() as on_failure:
            self._database = ReadOnlyDatabase(path) if read_only else Database(path)
            on_failure.callback(self._database.close)
            self.vectors = VectorTable(self._database)
            self.memories = MemoryTable(self._database, self.vectors, days)
            self.next_vectors = NextVectors(self._database, self.memories, self.vectors)
            self.scan = VectorScan(self._database, self.vectors)
            self.frequencies = WordFrequencies(self._database)
            self.ledger = Ledger(self._database, days)
            self.messages = MessageTable(self._database, self.ledger)
            self.documents = DocumentTable(self._database)
            self.consents = ConsentTable(self._database)
            if not read_only:
                bootstrap(self._database, rebuild=self._fill_new_tables, migrating=migrating)
                self._database.note_identity()
                remove_leftover(self._database)
                self._follow_text_rules()
            on_failure.pop_all()
        self.changes = ChangeTable(self._database)
        self.threads = ThreadTable(self._database)
        self.prompts = PromptTable(self._database)

    def _fill_new_tables(self) -> None:
        self.rebuild_full_text()
        self.consents.note_earlier(LOCAL_AGENT)

    def rebuild_full_text(self) -> None:
        """Build the full-text indexes anew from memories and messages; inside a transaction."""
        self.memories.rebuild_full_text()
        self.messages.rebuild_full_text()
        self._database.execute(
            "INSERT OR REPLACE INTO store_facts (name, value) VALUES ('text_rules', ?)", (TEXT_RULES,)
        )

    def _follow_text_rules(self) -> None:
        """Index anew what older rules for texts indexed, and let documents be read again."""
        if self._text_rules() >= TEXT_RULES:
            return
        # Who cannot write now still finds most; whoever opens the store next tries again.
        with suppress(StoreBusyError, StoreFullError, StoreNotWritableError), self.transaction():
            # Another process may have done it meanwhile.
            if self._text_rules() < TEXT_RULES:
                self.rebuild_full_text()
                self.documents.forget_states()

    def _text_rules(self) -> int:
        rows = self._database.query("SELECT value FROM store_facts WHERE name = 'text_rules'")
        return int(rows[0][0]) if rows else 1

    def transaction(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """Do everything inside as one write: all of it, or nothing when an error leaves the block."""
        return self._database.transaction(durable=durable)

    def snapshot(self) -> AbstractContextManager[None]:
        """Let all that is read inside be of one moment, however others write meanwhile."""
        return self._database.snapshot()

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside a transaction."""
        return self._database.in_transaction

    @property
    def only_reads(self) -> bool:
        """Whether nothing can be written, as the disk was full when the store was last opened."""
        return self._database.only_reads

    def without_waiting(self) -> AbstractContextManager[None]:
        """Let a held write lock, of another process or thread, raise StoreBusyError at once."""
        return self._database.without_waiting()

    def write_count(self) -> tuple[int, ...]:
        """Return what changes whenever the store does, at no cost."""
        return self._database.write_count()

    def release_memory(self) -> None:
        """Give back the memory of what was read, which the next search reads again.

        Raises:
            StoreError: The store is gone.
        """
        self.scan.release()
        self._database.release_memory()

    def count_rows(self) -> dict[str, int]:
        """Count the rows of each table and of both search indexes."""
        return checks.count_rows(self._database)

    def check(self, *, vectors_expected: bool) -> list[Fault]:
        """Return everything that is wrong with the store; an empty list means it is whole."""
        return checks.find_faults(self._database, vectors_expected=vectors_expected)

    def recreate_indexes(self) -> None:
        """Make all that is derived anew and empty, however damaged it is; inside a transaction."""
        recreation.recreate_indexes(self._database)

    def measure_space(self) -> VectorSpace:
        """Count the places for vectors and the vectors."""
        return compaction.measure_space(self._database)

    def pages_size(self) -> int:
        """Return how many bytes the pages of the store take, its write-ahead log not counted."""
        pages, size = self._database.query(
            "SELECT page_count, page_size FROM pragma_page_count, pragma_page_size"
        )[0]
        return int(pages) * int(size)

    def table_sizes(self) -> dict[str, int]:
        """Return how many bytes each table takes with its indexes; reads the whole store."""
        return compaction.table_sizes(self._database)

    def compact(self) -> Iterator[int]:
        """Give back the space of deleted vectors; yield how many vectors each short step moved."""
        return compaction.compact(self._database)

    def mark_erasure(self) -> None:
        """Record that the file still holds what is being deleted; inside a transaction."""
        erasure.mark_pending(self._database)

    @property
    def awaits_erasure(self) -> bool:
        """Whether the file still holds what a purge deleted."""
        return erasure.is_pending(self._database)

    def backups_to_purge(self) -> dict[str, list[int]]:
        """Return the backups that a purge is still to rewrite, with the ids of the memories that go."""
        return erasure.backups_to_purge(self._database)

    def mark_backups(self, backups: Mapping[str, Sequence[int]]) -> None:
        """Record which backups are still to be rewritten; inside a transaction."""
        erasure.mark_backups(self._database, backups)

    def erase(self) -> bool:
        """Write the file anew without anything that was deleted; return whether its log is empty too."""
        return erasure.erase(self._database)

    def continue_ids_of(self, store: Path) -> None:
        """Let this copy, about to take the place of a store, go on with ids where that one ends."""
        backups.continue_ids_of(self._database, store)

    def versions(self) -> dict[str, str]:
        """Return the versions of SQLite and sqlite-vec, and the schema's."""
        sqlite, vec, schema = self._database.query(
            "SELECT sqlite_version(), vec_version(), (SELECT user_version FROM pragma_user_version)"
        )[0]
        return {"SQLite": sqlite, "sqlite-vec": vec, "schema": str(schema)}

    def close(self) -> None:
        """Close the store; closing it again does nothing."""
        self._database.close()
