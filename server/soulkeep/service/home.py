"""A home: one folder with a store and its documents, and the services over them."""

from dataclasses import dataclass
from pathlib import Path

from soulkeep.days import Days
from soulkeep.documents import Documents
from soulkeep.models import Fault
from soulkeep.repository import Repository
from soulkeep.service.backups import Backups
from soulkeep.service.changes import Changes
from soulkeep.service.context import Contexts
from soulkeep.service.curator import Curator
from soulkeep.service.document_index import DocumentIndex
from soulkeep.service.indexes import Indexes
from soulkeep.service.lifecycle import Lifecycle
from soulkeep.service.memories import Memories
from soulkeep.service.messages import Messages
from soulkeep.service.prompts import Prompts
from soulkeep.service.purge import Purges
from soulkeep.service.repair import Repairs
from soulkeep.service.sessions import Sessions
from soulkeep.service.statistics import Statistics
from soulkeep.service.threads import Threads


@dataclass(frozen=True, slots=True)
class Home:
    """Everything that works on one home; close it when done."""

    path: Path
    days: Days
    repository: Repository
    documents: Documents
    sessions: Sessions
    indexes: Indexes
    entries: DocumentIndex
    curator: Curator
    contexts: Contexts
    changes: Changes
    memories: Memories
    lifecycle: Lifecycle
    threads: Threads
    messages: Messages
    prompts: Prompts
    backups: Backups
    purges: Purges
    statistics: Statistics
    repairs: Repairs

    def check(self) -> list[Fault]:
        """Return everything that is wrong with the store; an empty list means it is whole."""
        return self.repository.check(vectors_expected=self.indexes.vectors_expected)

    def close(self) -> None:
        """Write what is still in memory and close the store; closing again does nothing."""
        self.sessions.close()
        self.repository.close()
