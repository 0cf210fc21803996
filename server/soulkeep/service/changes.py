"""Every change of memories, threads, prompts and documents: written with what it does, listed, undone.

The log also tells which memory an id leads to now, and which came before it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice

from soulkeep.days import Days
from soulkeep.errors import (
    DocumentError,
    InvalidInputError,
    MemoryForgottenError,
    MemoryNotFoundError,
    StoreBusyError,
    StoreFullError,
    StoreNotWritableError,
    UndoConflictError,
)
from soulkeep.models import (
    Change,
    ChangedRow,
    Clock,
    Memory,
    RowKind,
    Session,
    Vector,
    timestamp,
)
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.service.backups import Backups
from soulkeep.service.callers import LineChange, Sessions, parse_moment, require_range
from soulkeep.service.document_index import MEMORY
from soulkeep.service.edits import ChangeRecorder, Edits, PromotedLines, hunks_of, row_of
from soulkeep.service.indexes import AT_ONCE, Indexes
from soulkeep.service.vectors import compact_some
from soulkeep.wording import row_name

_PRUNED_EACH = timedelta(hours=1)
_DROPPED = 500
"""How many expired memories go to the trash at once: fewer than a backup is made before."""

MAX_LISTED = 1_000

ROWS = 3
"""How many rows of a change are told apart; the others are counted."""

_KEPT_CHARACTERS = 1_000
_BULK = 1_000
"""A change of more rows is not held in memory as a whole."""

_BACKED_UP: Sequence[RowKind] = ("memories", "messages")
_SHOWN = {"global_prompts": "name", "threads": "title"}


@dataclass(frozen=True, slots=True)
class RowSummary:
    """What a change did to one row or document, and the beginning of its text: data that others wrote.

    The text is a memory's or message's, the title of a thread, the name of a prompt, or a line. `done`
    is added, changed, removed, or replaced with the memory that came in its place.
    """

    kind: RowKind
    key: str
    done: str
    text: str

    @property
    def name(self) -> str:
        """What was changed, in a form that nothing else shares: #12 is always a memory."""
        return row_name(self.kind, self.key)


@dataclass(frozen=True, slots=True)
class ChangeSummary:
    """A change, and the first of the rows that it touched."""

    change: Change
    rows: tuple[RowSummary, ...]


class _DryRunError(Exception):
    """Ends the transaction of an undo that was only tried out."""


@dataclass(eq=False)
class Changes:
    """Records changes as they are made, lists them and takes them back, until the retention is over."""

    _repository: Repository
    _edits: Edits
    _lines: PromotedLines
    _indexes: Indexes
    _backups: Backups
    _sessions: Sessions
    _clock: Clock
    _days: Days
    _retention: timedelta
    _pruned: datetime | None = None

    @contextmanager
    def recording(
        self,
        action: str,
        session: Session,
        *,
        leaving: tuple[int, int] = (0, 0),
        waiting: bool = True,
        into: int = 0,
    ) -> Iterator[ChangeRecorder]:
        """Do everything inside as one write that can be undone.

        The lines of MEMORY.md that memories were promoted to go and change with them.

        Args:
            action: What the list of changes calls it.
            session: Who makes it.
            leaving: How many memories and messages go by it. Before very many a backup is made, and
                afterwards the space of their vectors is given back, if that is worth while.
            waiting: Whether to wait for another process that is writing to the store.
            into: A former change of which this becomes a part, or 0 for one of its own.

        Raises:
            StoreError: The store cannot take it, or the backup not be made; nothing is done.
            DocumentError: The documents cannot be backed up, or a line not be changed; nothing is done.
        """
        self._backups.before_forgetting(*leaving)
        with ExitStack() as locks:
            if leaving[0]:
                locks.enter_context(self._lines.locked())
            yield locks.enter_context(self._made(action, session, waiting=waiting, into=into))
        if any(leaving):
            compact_some(self._repository)

    @contextmanager
    def _made(
        self, action: str, session: Session, *, waiting: bool = True, into: int = 0
    ) -> Iterator[ChangeRecorder]:
        with ExitStack() as on_failure:
            with self._repository.recording(waiting=waiting) as recording:
                recorder = ChangeRecorder(on_failure=on_failure)
                find = self._repository.memories.list_by_ids

                def rows() -> Iterator[ChangedRow]:
                    return (recorder.with_place_taken(row, find) for row in recording.rows())

                def put_down() -> None:
                    edited = (row_of(name, hunks) for name, hunks in recorder.edited.items())
                    changed, at = chain(edited, rows()), timestamp(self._clock())
                    if (first := next(changed, None)) is not None:
                        every, undone = chain([first], changed), recorder.undone
                        former = recorder.change_id or into
                        recorder.change_id = recording.save(action, session, at, every, undone, former)

                recorder.put_down = put_down
                yield recorder
                # The promoted lines of memories that went follow them: files come after all rows.
                hunks, recorder.lines = self._lines.follow(rows, on_failure)
                recorder.edit(MEMORY, hunks)
                put_down()
                recorder.when_saved(recorder.change_id or into)
                now = self._clock()
                if self._retention and (self._pruned is None or now - self._pruned > _PRUNED_EACH):
                    self._pruned = now
                    self._repository.changes.delete_before(timestamp(now - self._retention))
            on_failure.pop_all()

    def drop_expired(self) -> None:
        """Move to the trash what has expired, unless the store or MEMORY.md cannot be written now.

        Raises:
            StoreError: The store cannot be read.
        """
        expired = self._repository.memories.list_expired(timestamp(self._clock()), _DROPPED)
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

    def list_changes(
        self, limit: int = 50, before: int | None = None, since: str | None = None
    ) -> list[Change]:
        """Return up to `limit` (1 to 1,000) changes, latest first, from below the id `before`.

        Raises:
            InvalidInputError: The limit is outside, or `since` is no date.
        """
        require_range("limit", limit, 1, MAX_LISTED)
        moment = "" if since is None else parse_moment("since", since, self._days)
        return self._repository.changes.list_changes(limit, before, moment)

    def latest_in_force(self) -> Change | None:
        """Return the latest change that is neither an undo nor undone: what one more undo takes back."""
        before: int | None = None
        while page := self._repository.changes.list_changes(MAX_LISTED, before):
            for change in page:
                if change.action != "undo" and change.undone_by is None:
                    return change
            before = page[-1].id
        return None

    def get_change(self, change_id: int) -> Change:
        """Return a change.

        Raises:
            ChangeNotFoundError: There is none with this id, or it is no longer kept.
        """
        return self._repository.changes.get_change(change_id)

    def summarize(self, changes: Sequence[Change]) -> list[ChangeSummary]:
        """Return what each of these changes did, in a few words.

        Raises:
            StoreError: The store cannot be read.
        """
        log = self._repository.changes
        return [
            ChangeSummary(change, tuple(map(self._summary, log.rows_of(change.id, ROWS))))
            for change in changes
        ]

    def _summary(self, row: ChangedRow) -> RowSummary:
        if row.kind == "documents":
            hunks = hunks_of(row)
            is_new, is_gone = not any(h.removed for h in hunks), not any(h.added for h in hunks)
            text = " ".join(hunk.added if hunk.added.strip() else hunk.removed for hunk in hunks[:ROWS])
        else:
            is_new, is_gone = row.before is None, row.after is None
            value = row.before or self._repository.changes.after(row)
            text = getattr(value, _SHOWN.get(row.kind, "content"), "")
        done = "added" if is_new else "removed" if is_gone else "changed"
        if is_gone and row.replaced_by is not None:
            done = f"replaced by #{row.replaced_by}"
        return RowSummary(row.kind, row.key, done, text[:_KEPT_CHARACTERS])

    def without_expiry(self, changes: Sequence[Change]) -> list[int]:
        """Return the memories that came back by undoing these, without an expiry that had passed."""
        rows = self._rows_of_all(changes, "memories")
        had = {r.before.id for r in rows if isinstance(r.before, Memory) and r.before.expires_at}
        found = self._repository.memories.list_by_ids(sorted(had))
        return [memory.id for memory in found.values() if memory.expires_at is None]

    def undo(
        self, change_id: int, session: Session | None = None, *, spare: Collection[str] = ()
    ) -> list[Change]:
        """Take back one change; taking back an undo does the change again. Return it.

        Raises:
            ChangeNotFoundError: There is none with this id, or it is no longer kept.
            InvalidInputError: It was taken back already, or touched a document that is to be spared.
            UndoConflictError: A row, or its place in a document, was changed since; nothing is done.
            DocumentError: A document cannot be read or written; nothing is done.
            StoreError: The store cannot take it, or no backup be made before very much goes.
        """
        change = self._repository.changes.get_change(change_id)
        if change.undone_by is not None:
            raise InvalidInputError("change_id", f"was undone by change {change.undone_by} already")
        return self._undo([change], session, spare)

    def undo_since(
        self,
        moment: str,
        session: Session | None = None,
        *,
        last: int | None = None,
        spare: Collection[str] = (),
    ) -> list[Change]:
        """Take back all that was changed at a moment or later; return the changes, latest first.

        Changes with ids above `last` stay: they came after the user saw what would go.

        Raises:
            InvalidInputError: The moment is no date, or a change touched a document to be spared.
            UndoConflictError: Another program changed a row, or the user a place; nothing is done.
            DocumentError: A document cannot be read or written; nothing is done.
            StoreError: The store cannot take it, or no backup be made before very much goes.
        """
        # Undos are taken back like everything else: row by row, the log leads back to the moment.
        return self._undo(self.list_since(moment, last), session, spare)

    def list_since(self, moment: str, last: int | None = None) -> list[Change]:
        """Return all that was changed at a moment or later, latest first, up to the change `last`.

        Raises:
            InvalidInputError: The moment is no date.
        """
        since = parse_moment("since", moment, self._days)
        before, changes = None if last is None else last + 1, list[Change]()
        while page := self._repository.changes.list_changes(MAX_LISTED, before, since):
            changes += page
            before = page[-1].id
        return changes

    def _undo(
        self, changes: Sequence[Change], session: Session | None, spare: Collection[str]
    ) -> list[Change]:
        try:
            return self._take_back(changes, session or self._sessions.current(), spare)
        except UndoConflictError as conflict:
            raise self._explained(conflict, changes) from None

    def _explained(self, conflict: UndoConflictError, wanted: Sequence[Change]) -> UndoConflictError:
        """Return a conflict with the later changes to be undone first, where that helps."""
        first: list[Change] = []
        further, log = conflict, self._repository.changes
        while True:
            keys = further.held_by or [(further.kind, further.key)]
            taken = [change.id for change in (*first, *wanted)]
            later = [log.get_change(i) for i in log.latest_of(keys, further.change_id, taken)]
            if not later:
                return conflict
            first = sorted([*first, *later], key=lambda change: change.id, reverse=True)
            try:
                self._dry_run(sorted([*first, *wanted], key=lambda change: change.id, reverse=True))
            except UndoConflictError as error:
                further = error
            else:
                ids = [change.id for change in first]
                return UndoConflictError(conflict.change_id, conflict.kind, conflict.key, first=ids)

    def _dry_run(self, changes: Sequence[Change]) -> None:
        """Take changes back where that can be done, and leave everything as it is."""
        edited = list(self._rows_of_all(changes, "documents"))
        with suppress(_DryRunError), self._edits.taking_back(edited), self._repository.recording():
            for row in self._rows_in_order(changes):
                self._put_back(row, ChangeRecorder(), {})
            self._lines.require_memories(edited, [change.id for change in changes])
            raise _DryRunError

    def _take_back(
        self, changes: Sequence[Change], session: Session, spare: Collection[str]
    ) -> list[Change]:
        vectors = self._vectors(self._rows_of_all(changes, "memories"), session)
        edited = list(self._rows_of_all(changes, "documents"))
        for row in edited:
            if row.key in spare:
                reach = f"reaches change {row.change_id} of {row.key}"
                raise InvalidInputError("change_id", f"{reach}; only the user undoes it: soulkeep undo")
        leaving = [_count_leaving(self._rows_of_all(changes, kind)) for kind in _BACKED_UP]
        # A backup takes the lock of backups and then that of documents, so it comes before the latter.
        self._backups.before_forgetting(*leaving)
        with (
            self._lines.locked() if leaving[0] else nullcontext(),
            self._edits.taking_back(edited) as write,
            self._made("undo", session) as recorder,
        ):
            recorder.undone, is_bulk = [change.id for change in changes], self._only_adds(changes)
            for number, row in enumerate(self._rows_in_order(changes), 1):
                self._put_back(row, recorder, vectors)
                if number % _BULK == 0:
                    tell("Undoing", min(number / sum(change.rows for change in changes), 1))
                if is_bulk and number % _BULK == 0:
                    recorder.put_down()
            self._lines.require_memories(edited, recorder.undone)
            self._sessions.audit(session, "change.undone", {"changes": [c.id for c in changes]})
            # The files last: what fails before them leaves them alone. Should the process end between
            # them and the commit, they are as if edited by hand, and the changes stay in the log.
            for name, hunks in write().items():
                recorder.edit(name, hunks)
        if any(leaving):
            compact_some(self._repository)
        return list(changes)

    def _rows_of_all(self, changes: Sequence[Change], kind: RowKind) -> Iterator[ChangedRow]:
        return chain.from_iterable(self._repository.changes.each_row(c.id, kind) for c in changes)

    def _rows_in_order(self, changes: Sequence[Change]) -> Iterator[ChangedRow]:
        """Yield what changes did to rows, in the order in which it is taken back."""
        for change in changes:
            # A thread comes back before what belongs to it, and goes after it.
            threads = list(self._rows_of_all([change], "threads"))
            yield from (row for row in threads if row.before is not None)
            yield from self._rows_of_all([change], "global_prompts")
            for kind in _BACKED_UP:
                yield from self._rows_of_all([change], kind)
            yield from (row for row in threads if row.before is None)

    def _only_adds(self, changes: Sequence[Change]) -> bool:
        """Whether this is one large change that only adds rows, so that each row goes once and alone."""
        if len(changes) != 1 or changes[0].rows <= _BULK or self._lines.linked():
            return False
        kinds: Sequence[RowKind] = ("threads", "global_prompts", *_BACKED_UP)
        rows = (row for kind in kinds for row in self._rows_of_all(changes, kind))
        return all(row.before is None and row.replaced_by is None for row in rows)

    def put_back(
        self, rows: Sequence[ChangedRow], action: str, session: Session | None = None
    ) -> ChangeRecorder:
        """Make memories what they were before their latest changes, with the lines that went with them.

        Raises:
            UndoConflictError: One was changed again since; nothing is done.
            DocumentError: MEMORY.md cannot be read or written; nothing is done.
        """
        session = session or self._sessions.current()
        vectors = self._vectors(rows, session)
        removed = self._lines.removed_with(rows)
        fitting = [hunk for hunks in removed.values() for hunk in hunks if self._lines.fit(hunk)]
        edits = [row_of(MEMORY, fitting)] if fitting else []
        try:
            with self._edits.taking_back(edits) as write, self.recording(action, session) as recorder:
                for row in rows:
                    self._put_back(row, recorder, vectors)
                self._sessions.audit(session, action, *({str(row.kind): row.key} for row in rows))
                for name, hunks in write().items():
                    recorder.edit(name, hunks)
        except UndoConflictError as conflict:
            raise self._explained(conflict, []) from None
        recorder.lines = [
            LineChange(memory_id, "", "back" if hunk in fitting else "missing")
            for memory_id, hunks in removed.items()
            for hunk in hunks
        ]
        return recorder

    def _vectors(self, rows: Iterable[ChangedRow], session: Session) -> dict[Memory, Vector | None]:
        """Embed the memories that come back, before the store is locked, unless they are many."""
        few = list(islice((r.before for r in rows if isinstance(r.before, Memory)), AT_ONCE + 1))
        vectors = self._indexes.embed_stored(few, session) if few else []
        return dict(zip(few, vectors, strict=True))

    def _put_back(
        self, row: ChangedRow, recorder: ChangeRecorder, vectors: Mapping[Memory, Vector | None]
    ) -> None:
        vector = vectors.get(row.before) if isinstance(row.before, Memory) else None
        self._repository.changes.put_back(row, vector, timestamp(self._clock()))
        recorder.put_back(row)


def _count_leaving(rows: Iterable[ChangedRow]) -> int:
    """Count what is there now and not once these changes, the latest first, are taken back."""
    states = dict[str, tuple[bool, bool]]()
    for row in rows:
        now, _ = states.get(row.key, (row.after is not None, False))
        states[row.key] = now, row.before is not None
    return sum(now and not then for now, then in states.values())


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
