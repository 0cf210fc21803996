"""Mending a store: everything derived is rebuilt from what the user said, and space is given back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from soulkeep.errors import StoreError
from soulkeep.models import Fault
from soulkeep.repository import Repository
from soulkeep.service.document_index import DocumentIndex
from soulkeep.service.indexes import Indexes
from soulkeep.service.vectors import compact


@dataclass(frozen=True, slots=True)
class Repaired:
    """The faults found, how much was rebuilt, and the faults that are left."""

    found: tuple[Fault, ...]
    rebuilt: Mapping[str, int]
    left: tuple[Fault, ...]


class Repairs:
    """Rebuilds the search indexes and the entries of documents."""

    def __init__(
        self,
        repository: Repository,
        indexes: Indexes,
        entries: DocumentIndex,
        check: Callable[[], Sequence[Fault]],
    ) -> None:
        self._repository = repository
        self._indexes = indexes
        self._entries = entries
        self._check = check

    def repair(self) -> Repaired:
        """Rebuild all that is derived, and check the store before and after.

        What the user said is left as it is, so a fault in that remains.

        Raises:
            EmbedderMismatchError: The vectors are another embedder's, which only `reindex` may replace.
            StoreError: The store cannot be read or written; the old indexes stay.
            EmbedderError: A text cannot be embedded; the old indexes stay.
        """
        self._indexes.require_embedder()
        found = self._faults()
        self._indexes.reindex(recreate=True)
        documents, unread = self._entries.reread()
        counts = self._repository.count_rows()
        rebuilt = {name: counts[name] for name in ("vectors", "full-text entries")}
        remedy = "see whether it can be read and is UTF-8, then repair again"
        unreadable = [Fault("document", f"{name} was not read", remedy) for name in unread]
        return Repaired(found, rebuilt | {"documents": documents}, (*self._faults(), *unreadable))

    def wasted(self) -> int:
        """Return how many bytes `compact` would give back; 0 where that is not worth while."""
        return self._repository.wasted()

    def compact(self) -> int:
        """Give back the space of deleted vectors; return by how many bytes the store shrank.

        Raises:
            StoreError: The store cannot be written; what is done by then stays done.
        """
        return compact(self._repository)

    def _faults(self) -> tuple[Fault, ...]:
        try:
            return tuple(self._check())
        except StoreError as error:
            return (Fault("store", error.problem, error.remedy),)
