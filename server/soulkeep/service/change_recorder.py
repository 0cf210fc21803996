"""A change while it is made: which rows it touches, how they were, and what is in their place."""

from collections.abc import Iterable, Sequence

from soulkeep.documents import Hunk
from soulkeep.models import ChangedRow, Image, TableName
from soulkeep.repository import Repository
from soulkeep.service.edits import row_of
from soulkeep.service.receipts import LineChange

ADDED = "added"
"""Stands for the digest of a row that a change added: undoing takes it away, changed since or not."""

_Key = tuple[TableName, str]


class ChangeRecorder:
    """Collects what a change does, for the log of changes."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._before: dict[_Key, Image | None] = {}
        self._added: set[_Key] = set()
        self._edited: dict[str, list[Hunk]] = {}
        self.undone: Sequence[int] = ()
        self.change_id = 0
        self.lines: Sequence[LineChange] = ()
        self._replaced_by: dict[int, int] = {}
        self._was_replaced_by: dict[int, int] = {}

    def touch(self, kind: TableName, keys: Iterable[object]) -> None:
        """Note rows as they are, before they are changed or deleted."""
        for key in map(str, keys):
            if (kind, key) not in self._before:
                self._before[kind, key] = self._repository.changes.image(kind, key)

    def add(self, kind: TableName, keys: Iterable[object]) -> None:
        """Note rows that were just added."""
        added: dict[_Key, Image | None] = {(kind, str(key)): None for key in keys}
        self._before |= added
        self._added |= added.keys()

    def replace(self, memory_ids: Iterable[int], new_id: int) -> None:
        """Note that one memory takes the place of others."""
        self._replaced_by |= dict.fromkeys(memory_ids, new_id)

    def put_back(self, row: ChangedRow) -> None:
        """Note that a row is what it was before a change, and what this means for what replaced it."""
        if row.replaced_by is not None:
            self._was_replaced_by.setdefault(int(row.key), row.replaced_by)
            if row.before is not None:
                self._replaced_by.setdefault(row.replaced_by, int(row.key))

    def edit(self, name: str, hunks: Sequence[Hunk]) -> None:
        """Note what was done to a document, if anything was."""
        if hunks:
            self._edited.setdefault(name, []).extend(hunks)

    def edited(self) -> list[ChangedRow]:
        """Return what was done to documents."""
        return [row_of(name, hunks) for name, hunks in self._edited.items()]

    def rows(self) -> list[ChangedRow]:
        """Return what has changed in the end in tables."""
        rows = []
        for (kind, key), before in self._before.items():
            added = (kind, key) in self._added
            after = (
                ADDED
                if added
                else self._repository.changes.digest(self._repository.changes.image(kind, key))
            )
            if after != self._repository.changes.digest(before):
                later = self._later(int(key), after) if kind == "memories" else None
                rows.append(ChangedRow(kind, key, before, after, later))
        return rows

    def _later(self, memory_id: int, after: str | None) -> int | None:
        """Return what is in the place of a memory that went, or was in that of one that came back."""
        later = {**self._was_replaced_by, **self._replaced_by}
        found = later.get(memory_id)
        if after is not None:
            return found
        while found is not None and self._repository.changes.image("memories", str(found)) is None:
            found = later.pop(found, None)
        return found
