"""The log of changes: everything that can be undone is written together with what it does.

It also tells which memory an id leads to now, and which came before it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta

from soulkeep.days import Days
from soulkeep.documents import Hunk
from soulkeep.errors import (
    DocumentError,
    MemoryForgottenError,
    MemoryNotFoundError,
    StoreBusyError,
    StoreFullError,
    StoreNotWritableError,
)
from soulkeep.models import ChangedRow, Clock, Memory, Options, Session, timestamp
from soulkeep.repository import Repository
from soulkeep.service.backups import Backups
from soulkeep.service.document_entries import MEMORY
from soulkeep.service.edits import Edits, PromotedLines, row_of
from soulkeep.service.indexes import Indexes
from soulkeep.service.receipts import LineChange
from soulkeep.service.sessions import Sessions
from soulkeep.service.vectors import compact_some

_PRUNED_EACH = timedelta(hours=1)
_DROPPED = 500
"""How many expired memories go to the trash at once: fewer than a backup is made before."""


class ChangeRecorder:
    """What the store cannot know of a change: edits of documents, and whose place a memory took."""

    def __init__(self) -> None:
        self._edited: dict[str, list[Hunk]] = {}
        self._replaced_by: dict[int, int] = {}
        self._was_replaced_by: dict[int, int] = {}
        self.undone: Sequence[int] = ()
        self.change_id = 0
        self.lines: Sequence[LineChange] = ()

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

    def with_place_taken(self, row: ChangedRow, is_there: Callable[[int], bool]) -> ChangedRow:
        """Return a row with what took the place of a memory, or had that of one that is back."""
        if row.kind != "memories":
            return row
        later = {**self._was_replaced_by, **self._replaced_by}
        found = later.get(int(row.key))
        while row.after is None and found is not None and not is_there(found):
            found = later.pop(found, None)
        return replace(row, replaced_by=found)


class ChangeLog:
    """Records changes as they are made, and forgets those that are older than the retention."""

    def __init__(
        self,
        repository: Repository,
        edits: Edits,
        lines: PromotedLines,
        indexes: Indexes,
        backups: Backups,
        sessions: Sessions,
        clock: Clock,
        options: Options,
    ) -> None:
        self._repository = repository
        self._edits = edits
        self._lines = lines
        self._indexes = indexes
        self._backups = backups
        self._sessions = sessions
        self._clock = clock
        self._days = Days(options.timezone)
        self._retention = timedelta(days=options.retention_days)
        self._pruned = None if options.retention_days else clock()

    @contextmanager
    def recording(
        self,
        action: str,
        session: Session,
        *,
        leaving: tuple[int, int] = (0, 0),
        waiting: bool = True,
    ) -> Iterator[ChangeRecorder]:
        """Do everything inside as one write that can be undone.

        The lines of MEMORY.md that memories were promoted to go and change with them.

        Args:
            action: What the list of changes calls it.
            session: Who makes it.
            leaving: How many memories and messages go by it. Before very many a backup is made, and
                afterwards the space of their vectors is given back, if that is worth while.
            waiting: Whether to wait for another process that is writing to the store.

        Raises:
            StoreError: The store cannot take it, or the backup not be made; nothing is done.
            DocumentError: The documents cannot be backed up, or a line not be changed; nothing is done.
        """
        self._backups.before_forgetting(*leaving)
        with ExitStack() as locks:
            if leaving[0]:
                locks.enter_context(self._lines.locked())
            yield locks.enter_context(self._made(action, session, waiting=waiting))
        if any(leaving):
            compact_some(self._repository)

    @contextmanager
    def _made(self, action: str, session: Session, *, waiting: bool = True) -> Iterator[ChangeRecorder]:
        with ExitStack() as on_failure:
            with self._repository.recording(waiting=waiting) as recording:
                recorder = ChangeRecorder()
                yield recorder
                rows = [recorder.with_place_taken(row, self._is_there) for row in recording.rows()]
                self._follow_lines(rows, recorder, on_failure)
                if changed := [*recorder.edited(), *rows]:
                    now, undone = self._now(), recorder.undone
                    recorder.change_id = recording.save(action, session, now, changed, undone)
                self._prune()
            on_failure.pop_all()

    def _is_there(self, memory_id: int) -> bool:
        return memory_id in self._repository.memories.list_by_ids([memory_id])

    def _follow_lines(
        self, rows: Sequence[ChangedRow], recorder: ChangeRecorder, on_failure: ExitStack
    ) -> None:
        """Let the promoted lines of memories that went follow them: files come after all rows."""
        went = [(r.before, r.replaced_by or 0) for r in rows if r.after is None]
        gone = {before.id: before for before, _ in went if isinstance(before, Memory)}
        found = self._repository.memories.list_by_ids([later for _, later in went])
        taken = ((b.id, found[later]) for b, later in went if isinstance(b, Memory) and later in found)
        hunks, recorder.lines = self._lines.follow(gone, dict(taken), on_failure)
        recorder.edit(MEMORY, hunks)

    def drop_expired(self) -> None:
        """Move to the trash what has expired, unless the store or MEMORY.md cannot be written now.

        Raises:
            StoreError: The store cannot be read.
        """
        expired = self._repository.memories.list_expired(self._now(), _DROPPED)
        if not expired:
            return
        local, leaving = self._sessions.current(), (len(expired), 0)
        try:
            with self.recording("memory.expired", local, leaving=leaving, waiting=False):
                self._repository.memories.delete_memories(expired)
                details = ({"memory_id": memory_id} for memory_id in expired)
                self._sessions.audit(local, "memory.expired", *details)
        except (StoreBusyError, StoreNotWritableError, StoreFullError, DocumentError):
            return  # it goes at the next look

    def _prune(self) -> None:
        now = self._clock()
        if self._retention and (self._pruned is None or now - self._pruned > _PRUNED_EACH):
            self._pruned = now
            self._repository.changes.delete_before(timestamp(now - self._retention))

    def _now(self) -> str:
        return timestamp(self._clock())


def newest_versions(repository: Repository, memory_ids: Iterable[int]) -> dict[int, Memory]:
    """Return for each id the memory that it leads to: its own, or the newest in its place.

    Raises:
        MemoryForgottenError: What it leads to is in the trash.
        MemoryNotFoundError: There is none with this id, and none came in its place.
    """
    with repository.snapshot():
        led = repository.changes.latest_ids(memory_ids)
        found = repository.memories.list_by_ids(list(led.values()))
        for asked, memory_id in led.items():
            if memory_id not in found:
                if repository.changes.rows_about("memories", str(memory_id)):
                    raise MemoryForgottenError(memory_id)
                raise MemoryNotFoundError(asked)
    return {asked: found[memory_id] for asked, memory_id in led.items()}


def earlier_ids(repository: Repository, memory_ids: Iterable[int]) -> set[int]:
    """Return these ids and those of all that they replaced, directly or through others.

    What came back on its own, and what that had replaced, is not among them.
    """
    found: set[int] = set()
    waiting = set(memory_ids)
    while waiting:
        found |= waiting
        replaced = repository.changes.replaced_by(waiting)
        waiting = replaced - repository.memories.list_by_ids(list(replaced)).keys() - found
    return found
