"""A home: a store and documents, and the services over them."""

import os
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from soulkeep.days import Days
from soulkeep.documents import Documents
from soulkeep.embedders import Embedder
from soulkeep.errors import StoreError, StoreFullError
from soulkeep.models import BACKUPS_FOLDER, Clock, Fault, Options
from soulkeep.repository import Repository
from soulkeep.service.callers import Sessions
from soulkeep.wording import counted

if TYPE_CHECKING:
    from soulkeep.embedders.tokens import TokenCounter
    from soulkeep.service.backups import Backups
    from soulkeep.service.changes import Changes
    from soulkeep.service.context import Contexts
    from soulkeep.service.curator import Curator
    from soulkeep.service.document_index import DocumentIndex
    from soulkeep.service.edits import Edits
    from soulkeep.service.exports import Exports
    from soulkeep.service.imports import Imports
    from soulkeep.service.indexes import Indexes
    from soulkeep.service.lifecycle import Lifecycle
    from soulkeep.service.memories import Memories
    from soulkeep.service.prompts import Prompts
    from soulkeep.service.purge import Purges
    from soulkeep.service.threads import Messages, Threads
    from soulkeep.service.upkeep import Background, Repairs, Statistics
    from soulkeep.service.vectors import Reembedding, VectorQueue

_Service = TypeVar("_Service")

LONGEST_RETENTION = 365_000
"""Days of a retention: nothing in a store is older, and a longer one would leave the calendar."""


@dataclass(eq=False)
class on_first_use(Generic[_Service]):  # noqa: N801 - used as a decorator, like property
    """A service that is imported and built when it is first asked for, once for all threads."""

    _build: Callable[[Any], _Service]

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, home: "Home", owner: type | None = None) -> _Service:
        with home.lock:
            if self._name not in home.__dict__:
                home.__dict__[self._name] = self._build(home)
            service: _Service = home.__dict__[self._name]
            return service


class Home:
    """Everything that works on one home; close it when done.

    A server's first answer needs none of the services, and to import all takes as long as to open the
    store; so each waits until it is used.
    """

    def __init__(
        self,
        path: Path,
        documents: Documents,
        repository: Repository,
        sessions: Sessions,
        embedder: Embedder | None,
        clock: Clock,
        options: Options,
        open_backups: "Callable[[], Backups]",
        *,
        announcement: str = "",
    ) -> None:
        """Put the services over an open store and the documents; `embedder` is None for words alone.

        `path` is the folder of the home, which where the store has the documents too need not be there.

        `announcement` is what whoever opened it has to know, such as that it is new.
        """
        self.path = path
        self.documents = documents
        self.repository = repository
        self.announcement = announcement
        self.sessions = sessions
        self.clock = clock
        self.options = options
        self.days = Days(options.timezone)
        self.lock = threading.RLock()
        self.count_rows = repository.count_rows
        """Counts what there is, by its name in `repository.ROWS`."""
        self.wasted = repository.wasted
        """Returns how many bytes `repairs.compact` would give back; 0 where that is not worth while."""
        self.hearing = repository.hearing
        """Calls a function after each commit for the length of a block, if anybody tells of them."""
        self.versions = repository.versions
        """Returns the versions of what keeps the store, and the schema's."""
        self._embedder = embedder
        self._open_backups = open_backups
        self._serves = False

    @on_first_use
    def tokens(self) -> "TokenCounter":
        from soulkeep.embedders.tokens import TokenCounter

        return TokenCounter()

    @on_first_use
    def edits(self) -> "Edits":
        from soulkeep.service.edits import Edits

        return Edits(self.documents)

    @on_first_use
    def backups(self) -> "Backups":
        return self._open_backups()

    @on_first_use
    def indexes(self) -> "Indexes":
        from soulkeep.service.indexes import Indexes

        return Indexes(self.repository, self._embedder, self.sessions, self.clock, self.options.embedder)

    @on_first_use
    def reembedding(self) -> "Reembedding":
        from soulkeep.service.vectors import Reembedding

        former = self.repository.vectors.recorded_embedder()
        return Reembedding(self.repository, self.indexes, self.sessions, self.clock, former)

    @on_first_use
    def queue(self) -> "VectorQueue":
        from soulkeep.service.vectors import VectorQueue

        return VectorQueue(self.repository, self.indexes, self.sessions, self.clock)

    @on_first_use
    def background(self) -> "Background":
        from soulkeep.service.upkeep import Background

        background = Background(
            self.entries,
            self.indexes,
            self.queue,
            self.reembedding,
            self.changes,
            self.sessions,
            self.clock,
        )
        if self._serves:
            background.serve()
        return background

    @on_first_use
    def entries(self) -> "DocumentIndex":
        from soulkeep.service.document_index import DocumentIndex

        return DocumentIndex(self.repository, self.documents, self.indexes, self.sessions, self.clock)

    @on_first_use
    def changes(self) -> "Changes":
        from soulkeep.service.changes import Changes
        from soulkeep.service.edits import PromotedLines

        return Changes(
            self.repository,
            self.edits,
            PromotedLines(self.repository, self.documents, self.edits),
            self.indexes,
            self.backups,
            self.sessions,
            self.clock,
            self.days,
            timedelta(days=min(self.options.retention_days, LONGEST_RETENTION)),
        )

    @on_first_use
    def memories(self) -> "Memories":
        from soulkeep.service.memories import Memories, Questions, WordCache

        return Memories(
            self.repository,
            self.lifecycle,
            self.indexes,
            self.background,
            self.sessions,
            self.clock,
            self.days,
            WordCache(self.days),
            Questions(self.sessions, self.clock),
        )

    @on_first_use
    def lifecycle(self) -> "Lifecycle":
        from soulkeep.service.lifecycle import Lifecycle

        return Lifecycle(
            self.repository,
            self.changes,
            self.indexes,
            self.background,
            self.sessions,
            self.clock,
            self.days,
        )

    @on_first_use
    def imports(self) -> "Imports":
        from soulkeep.service.imports import Imports

        return Imports(
            self.repository,
            self.documents,
            self.edits,
            self.changes,
            self.background,
            self.indexes,
            self.sessions,
            self.tokens,
            self.clock,
            self.days,
        )

    @on_first_use
    def exports(self) -> "Exports":
        from soulkeep.service.exports import Exports

        return Exports(self.repository, self.documents, self.clock, self.days)

    @on_first_use
    def curator(self) -> "Curator":
        from soulkeep.service.curator import Curator

        return Curator(
            self.repository,
            self.documents,
            self.edits,
            self.changes,
            self.sessions,
            self.tokens,
            self.options,
        )

    @on_first_use
    def contexts(self) -> "Contexts":
        from soulkeep.service.context import Contexts

        return Contexts(
            self.repository,
            self.documents,
            self.memories,
            self.background,
            self.tokens,
            self.days,
            self.options,
            self.announcement,
            self.path,
        )

    @on_first_use
    def threads(self) -> "Threads":
        from soulkeep.service.threads import Threads

        return Threads(self.repository, self.changes, self.background, self.sessions, self.clock)

    @on_first_use
    def messages(self) -> "Messages":
        from soulkeep.service.threads import Messages

        return Messages(self.repository, self.changes, self.sessions, self.tokens, self.clock, self.days)

    @on_first_use
    def prompts(self) -> "Prompts":
        from soulkeep.service.prompts import Prompts

        return Prompts(self.repository, self.changes, self.sessions, self.clock)

    @on_first_use
    def purges(self) -> "Purges":
        from soulkeep.service.purge import Purges

        return Purges(self.repository, self.documents, self.backups, self.sessions)

    @on_first_use
    def statistics(self) -> "Statistics":
        from soulkeep.service.upkeep import Statistics

        return Statistics(
            self.repository,
            self.reembedding,
            self.queue,
            self.sessions,
            self.clock,
            self.days,
            self.documents,
            self.backups,
        )

    @on_first_use
    def repairs(self) -> "Repairs":
        from soulkeep.service.upkeep import Repairs

        return Repairs(self.repository, self.indexes, self.entries, self.check)

    def serve(self) -> None:
        """Answer calls without waiting for what may be done beside them."""
        with self.lock:
            self._serves = True
            if "background" in self.__dict__:
                self.background.serve()

    def news(self, since: tuple[int, int] | None) -> tuple[tuple[int, int], set[str], bool]:
        """Return where the logs of events and of changes end, and what is new `since` they ended before.

        That is the names of the events, and whether threads were made, deleted, renamed, archived or
        resumed. Nothing is new since None.

        Raises:
            StoreError: The store cannot be read.
        """
        return self.repository.news(since)

    def revision(self) -> Hashable:
        """Return what is another after each change of the store, whoever made it, at no cost."""
        return self.repository.revision()

    def check(self) -> list[Fault]:
        """Return everything that is wrong with the store; an empty list means it is whole."""
        vectors_expected = self.indexes.vectors_expected
        return [*self.repository.check(vectors_expected=vectors_expected), *self.purges.faults()]

    def faults(self) -> list[Fault]:
        """Return what is wrong with the store and all around it, as far as that can be read."""
        from soulkeep.service.upkeep import embedder_faults, fault_of, home_faults

        around = home_faults(self.path, self.documents, self.repository.size())
        around += backup_faults(self.path, self.backups)
        if self.repository.only_reads:
            around = [fault_of(StoreFullError(self.repository.place)), *around]
        try:
            return [*self.check(), *self._begun_anew(), *embedder_faults(self.indexes), *around]
        except StoreError as error:
            return [fault_of(error), *around]

    def _begun_anew(self) -> list[Fault]:
        """Return a fault where nothing was ever kept in the store, and a backup has memories."""
        if self.count_rows()["memories"] or self.repository.changes.list_changes(1):
            return []
        newest = next(iter(self.backups.list_backups()), None)
        if newest is None or not (count := newest.counts.get("memories")):
            return []
        held = counted(count, "memory")
        detail = f"it is new and empty, and backup {newest.id} has {held}"
        return [Fault("store", detail, f"run `soulkeep restore {newest.id}` if they should be here")]

    @property
    def memory_used(self) -> int:
        """How many bytes of what was read for searches are in memory, nearly."""
        memories: Memories | None = self.__dict__.get("memories")
        return 0 if memories is None else memories.memory_used

    def close(self) -> None:
        """Write what is still in memory and close the store; closing again does nothing."""
        with self.lock:
            background = self.__dict__.get("background")
        if background is not None:
            background.close()
        self.sessions.close()
        self.repository.close()


def backup_faults(path: Path, backups: "Backups") -> list[Fault]:
    """Return what is wrong with the backups in a home: that they are not as they were written.

    Only the sizes of files are looked at; a restore reads them whole before it changes anything.
    """
    from soulkeep.service.backups import missing_from

    folder = path / BACKUPS_FOLDER
    found = [
        Fault("folder", f"{place} is no folder", "move it away; soulkeep makes one there by itself")
        for place in (folder, path / "history")
        if os.path.isfile(place)  # noqa: PTH113 - pathlib's fails in a folder that cannot be entered
    ]
    is_there = not backups.in_store and os.path.isdir(folder)  # noqa: PTH112 - as above
    for name in backups.list_others() if is_there else ():
        if problem := missing_from(folder / name):
            remedy = "make another with `soulkeep backup`, and delete or mend this one"
            found.append(Fault("backup", f"{name}: {problem}", remedy))
    return found
