"""The only code that talks to PostgreSQL: the store of one home among those of a database."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from soulkeep import repository as interface
from soulkeep.days import Days
from soulkeep.models import LOCAL_OWNER
from soulkeep.repository.postgres.changes import ChangeTable, Recording
from soulkeep.repository.postgres.database import Database
from soulkeep.repository.postgres.documents import DocumentRows
from soulkeep.repository.postgres.ledger import Ledger, MessageTable
from soulkeep.repository.postgres.memories import DocumentTable, MemoryTable
from soulkeep.repository.postgres.nearest import VectorSearch
from soulkeep.repository.postgres.prompts import ConsentTable, PromptTable, ThreadTable
from soulkeep.repository.postgres.rows import Rows
from soulkeep.repository.postgres.upkeep import Upkeep
from soulkeep.repository.postgres.vectors import NextVectors, VectorTable
from soulkeep.search.words import TEXT_RULES


class PostgresRepository(Upkeep):
    """A store: the tables of one home by noun, and the transactions that span them."""

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

    only_reads = False
    """A database that cannot be written says so at each write."""

    def __init__(self, url: str, owner: str = LOCAL_OWNER, days: Days | None = None) -> None:
        """Open the home `owner` in the database at `url`, making what is missing.

        Without `days`, those of this machine.

        Raises:
            StoreError: The database cannot serve; the subclass says why.
        """
        self.database = database = Database(url, owner)
        super().__init__(database, days or Days())
        self.place = f"{database.place} ({owner})"
        self.texts = DocumentRows(self.place, lambda: nullcontext(database))
        self.snapshot, self.revision = database.snapshot, database.revision
        self.hearing = partial(database.server.hearing, database.owner)
        self.get_fact, self.put_fact = database.get_fact, database.put_fact
        vectors = VectorTable(database)
        self.vectors, self.vector_search = vectors, VectorSearch(database, vectors)
        self.memories = self._memories = MemoryTable(database, vectors, self._days)
        self.next_vectors = NextVectors(database, self._memories, vectors)
        self.documents, self.threads = DocumentTable(database), ThreadTable(database)
        self.prompts, self.rows = PromptTable(database), Rows(database)
        ledger = Ledger(database)
        self.ledger = ledger
        self.messages = self._messages = MessageTable(database, ledger)
        self.consents = consents = ConsentTable(database)
        self._changes = ChangeTable(database, self._memories, self._messages, consents)
        self.changes = self._changes
        self._follow_text_rules()

    def rebuild_full_text(self, *, recreate: bool = False) -> None:
        """Build the full text anew, perhaps with all else that is derived; inside a transaction."""
        if recreate:
            self.recreate_indexes()
        self._memories.rebuild_full_text()
        self._messages.rebuild_full_text()
        self.put_fact("text_rules", str(TEXT_RULES))

    def _follow_text_rules(self) -> None:
        """Index anew what older rules for texts indexed, and let documents be read again."""
        if int(self.get_fact("text_rules") or 0) >= TEXT_RULES:
            return
        with self.transaction():
            # Another process may have done it meanwhile.
            if int(self.get_fact("text_rules") or 0) < TEXT_RULES:
                self.rebuild_full_text()
                states = "UPDATE document_states SET state = '' WHERE owner = %(owner)s"
                self._database.execute(states)

    def transaction(self, *, durable: bool = True, waiting: bool = True) -> AbstractContextManager[None]:
        """Do everything inside as one write: all of it, or nothing when an error leaves the block."""
        return self._database.transaction(durable=durable, waiting=waiting)

    @contextmanager
    def recording(self, *, waiting: bool = True) -> Iterator[Recording]:
        """Do everything inside as one durable write, of which each row that can be undone is noted."""
        with self.transaction(waiting=waiting), self._changes.recording() as recording:
            yield recording

    def sole_worker(self, name: str) -> AbstractContextManager[bool]:
        """Say whether this one alone, of all that have the home open, does the work of a name now."""
        return self._database.server.sole_holder(f"{self._database.owner}\n{name}")

    def in_transaction(self) -> bool:
        """Whether this thread is inside a transaction."""
        return self._database.in_transaction

    def close(self) -> None:
        """Let go of the database; closing it again does nothing."""
        self._database.close()
