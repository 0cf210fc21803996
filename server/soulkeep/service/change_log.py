"""The log of changes: everything that can be undone is written together with what it does."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta

from soulkeep.days import Days
from soulkeep.errors import DocumentError, StoreBusyError, StoreFullError, StoreNotWritableError
from soulkeep.models import ChangedRow, Clock, Memory, Options, Session, timestamp
from soulkeep.repository import Repository
from soulkeep.service.backups import Backups
from soulkeep.service.change_recorder import ChangeRecorder
from soulkeep.service.document_entries import MEMORY
from soulkeep.service.edits import Edits
from soulkeep.service.indexes import Indexes
from soulkeep.service.promoted import PromotedLines
from soulkeep.service.sessions import Sessions
from soulkeep.service.vectors import compact_some

_PRUNED_EACH = timedelta(hours=1)
_DROPPED = 500
"""How many expired memories go to the trash at once: fewer than a backup is made before."""


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
            yield locks.enter_context(self._in_transaction(action, session, waiting=waiting))
        if any(leaving):
            compact_some(self._repository)

    @contextmanager
    def _in_transaction(
        self, action: str, session: Session, *, waiting: bool = True
    ) -> Iterator[ChangeRecorder]:
        with ExitStack() as on_failure:
            with self._repository.transaction(waiting=waiting):
                recorder = ChangeRecorder(self._repository)
                yield recorder
                rows = recorder.rows()
                self._follow_lines(rows, recorder, on_failure)
                if changed := [*recorder.edited(), *rows]:
                    change_id = self._repository.changes.add_change(action, session, self._now())
                    self._repository.changes.add_rows(change_id, changed)
                    self._mark_undone(recorder.undone, change_id)
                    recorder.change_id = change_id
                self._prune()
            on_failure.pop_all()

    def _follow_lines(
        self, rows: Sequence[ChangedRow], recorder: ChangeRecorder, on_failure: ExitStack
    ) -> None:
        """Let the promoted lines of memories that went follow them: files come after all rows."""
        went = [row for row in rows if row.kind == "memories" and row.before and row.after is None]
        gone = {int(row.key): Memory.of_row(row.before) for row in went if row.before}
        found = self._repository.memories.list_by_ids([row.replaced_by or 0 for row in went])
        later = {int(row.key): found[row.replaced_by or 0] for row in went if row.replaced_by in found}
        hunks, recorder.lines = self._lines.follow(gone, later, on_failure)
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
            with self.recording("memory.expired", local, leaving=leaving, waiting=False) as recorder:
                recorder.touch("memories", expired)
                self._repository.memories.delete_memories(expired)
                details = ({"memory_id": memory_id} for memory_id in expired)
                self._sessions.audit(local, "memory.expired", *details)
        except (StoreBusyError, StoreNotWritableError, StoreFullError, DocumentError):
            return  # it goes at the next look

    def _mark_undone(self, change_ids: Sequence[int], by: int) -> None:
        table = self._repository.changes
        table.mark_undone(change_ids, by)
        # What an undo had undone is in force again once the undo itself is taken back.
        again = {i for change_id in change_ids for i in table.undone_by(change_id)}
        table.mark_undone(sorted(again - set(change_ids)), None)

    def _prune(self) -> None:
        now = self._clock()
        if self._retention and (self._pruned is None or now - self._pruned > _PRUNED_EACH):
            self._pruned = now
            self._repository.changes.delete_before(timestamp(now - self._retention))

    def _now(self) -> str:
        return timestamp(self._clock())
