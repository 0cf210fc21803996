"""Every change of memories, threads, prompts and documents: listed, undone alone or back to a moment."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from soulkeep.errors import InvalidInputError, UndoConflictError
from soulkeep.models import (
    Change,
    ChangedRow,
    GlobalPrompt,
    Memory,
    Message,
    RowKind,
    RowValue,
    Session,
    Thread,
    Vector,
)
from soulkeep.repository import Repository
from soulkeep.service.change_log import ChangeLog, ChangeRecorder
from soulkeep.service.document_entries import MEMORY
from soulkeep.service.edits import hunks_of, row_of
from soulkeep.service.receipts import LineChange
from soulkeep.service.validation import parse_moment, require_range
from soulkeep.service.vectors import compact_some
from soulkeep.wording import row_name

MAX_LISTED = 1_000

ROWS = 3
"""How many rows of a change are told apart; the others are counted."""

_KEPT_CHARACTERS = 1_000


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
    """A change, the first rows that it touched, and how many there are in all."""

    change: Change
    rows: tuple[RowSummary, ...]
    count: int


class _DryRunError(Exception):
    """Ends the transaction of an undo that was only tried out."""


class Changes(ChangeLog):
    """Lists what the log of changes holds, and takes it back."""

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
        return summarize(self._repository, changes)

    def without_expiry(self, changes: Sequence[Change]) -> list[int]:
        """Return the memories that came back by undoing these, without an expiry that had passed."""
        rows = [row for change in changes for row in self._repository.changes.rows_of(change.id)]
        had = {r.before.id for r in rows if isinstance(r.before, Memory) and r.before.expires_at}
        found = self._repository.memories.list_by_ids(sorted(had))
        return [memory.id for memory in found.values() if memory.expires_at is None]

    def row_counts(self, changes: Sequence[Change]) -> dict[int, int]:
        """Return for the id of each change how many rows it touched."""
        return self._repository.changes.row_counts([change.id for change in changes])

    def last_id(self) -> int:
        """Return the id of the last change; 0 where there is none."""
        return max((change.id for change in self._repository.changes.list_changes(1)), default=0)

    def lists_threads_anew(self, after: int) -> bool:
        """Whether the changes after one made, deleted, renamed, archived or resumed a thread."""
        return self._repository.changes.lists_threads_anew(after)

    def rows_of(self, change_id: int) -> list[ChangedRow]:
        """Return what a change did.

        Raises:
            ChangeNotFoundError: There is none with this id, or it is no longer kept.
        """
        self._repository.changes.get_change(change_id)
        return self._repository.changes.rows_of(change_id)

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
        further = conflict
        while later := self._built_upon(further, [*first, *wanted]):
            first = sorted([*first, *later], key=lambda change: change.id, reverse=True)
            try:
                self._dry_run(sorted([*first, *wanted], key=lambda change: change.id, reverse=True))
            except UndoConflictError as error:
                further = error
            else:
                ids = [change.id for change in first]
                return UndoConflictError(conflict.change_id, conflict.kind, conflict.key, first=ids)
        return conflict

    def _built_upon(self, conflict: UndoConflictError, taken: Sequence[Change]) -> list[Change]:
        """Return the latest changes in force that stand in the way, but for those taken."""
        log = self._repository.changes
        keys = conflict.held_by or [(conflict.kind, conflict.key)]
        ids = log.latest_of(keys, conflict.change_id, [change.id for change in taken])
        return [log.get_change(change_id) for change_id in ids]

    def _dry_run(self, changes: Sequence[Change]) -> None:
        """Take changes back, and leave everything as it is.

        Raises:
            UndoConflictError: It cannot be done.
        """
        rows = [row for change in changes for row in self._rows_in_order(change)]
        edited = [row for row in rows if row.kind == "documents"]
        with suppress(_DryRunError), self._edits.taking_back(edited), self._repository.recording():
            for row in rows:
                self._put_back(row, ChangeRecorder(), {})
            raise _DryRunError

    def _take_back(
        self, changes: Sequence[Change], session: Session, spare: Collection[str]
    ) -> list[Change]:
        every = [row for change in changes for row in self._rows_in_order(change)]
        vectors = self._vectors(every, session)
        edited = [row for row in every if row.kind == "documents"]
        _require_spared(edited, spare)
        leaving = _count_leaving(every, "memories"), _count_leaving(every, "messages")
        # A backup takes the lock of backups and then that of documents, so it comes before the latter.
        self._backups.before_forgetting(*leaving)
        with (
            self._lines.locked() if leaving[0] else nullcontext(),
            self._edits.taking_back(edited) as write,
            self._made("undo", session) as recorder,
        ):
            for row in every:
                self._put_back(row, recorder, vectors)
            self._sessions.audit(session, "change.undone", {"changes": [c.id for c in changes]})
            recorder.undone = [change.id for change in changes]
            # The files last: what fails before them leaves them alone. Should the process end between
            # them and the commit, they are as if edited by hand, and the changes stay in the log.
            for name, hunks in write().items():
                recorder.edit(name, hunks)
        if any(leaving):
            compact_some(self._repository)
        return list(changes)

    def _rows_in_order(self, change: Change) -> list[ChangedRow]:
        """Return what a change did to rows, in the order in which it is taken back."""
        return sorted(self._repository.changes.rows_of(change.id), key=_place_in_order)

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

    def embed(self, memories: Sequence[Memory], session: Session) -> Sequence[Vector | None]:
        """Embed memories as they will stand in the store."""
        return self._indexes.embed_stored(memories, session)

    def _vectors(self, rows: Iterable[ChangedRow], session: Session) -> dict[Memory, Vector | None]:
        """Embed the memories that come back, before the store is locked."""
        back = [row.before for row in rows if isinstance(row.before, Memory)]
        return dict(zip(back, self.embed(back, session), strict=True)) if back else {}

    def _put_back(
        self, row: ChangedRow, recorder: ChangeRecorder, vectors: Mapping[Memory, Vector | None]
    ) -> None:
        if row.kind == "documents":
            return  # the files are written after all rows
        vector = vectors.get(row.before) if isinstance(row.before, Memory) else None
        self._repository.changes.put_back(row, vector, self._now())
        recorder.put_back(row)


def _require_spared(edited: Sequence[ChangedRow], spare: Collection[str]) -> None:
    for row in edited:
        if row.key in spare:
            rule = f"reaches change {row.change_id} of {row.key}; only the user undoes it: soulkeep undo"
            raise InvalidInputError("change_id", rule)


def _count_leaving(rows: Iterable[ChangedRow], kind: RowKind) -> int:
    """Count what is there now and not once these changes, the latest first, are taken back."""
    now: dict[str, str | None] = {}
    then: dict[str, RowValue | None] = {}
    for row in rows:
        if row.kind == kind:
            now.setdefault(row.key, row.after)
            then[row.key] = row.before
    return sum(now[key] is not None and then[key] is None for key in now)


def _place_in_order(row: ChangedRow) -> int:
    """Order rows: a thread comes back before what belongs to it, and goes after it."""
    if row.kind != "threads":
        return 1
    return 2 if row.before is None else 0


def summarize(repository: Repository, changes: Sequence[Change]) -> list[ChangeSummary]:
    """Return what changes did.

    Raises:
        StoreError: The store cannot be read.
    """
    counts = repository.changes.row_counts([change.id for change in changes])
    return [
        ChangeSummary(
            change,
            tuple(_summary(repository, r) for r in repository.changes.rows_of(change.id, ROWS)),
            counts.get(change.id, 0),
        )
        for change in changes
    ]


def _summary(repository: Repository, row: ChangedRow) -> RowSummary:
    if row.kind == "documents":
        hunks = hunks_of(row)
        is_new, is_gone = not any(h.removed for h in hunks), not any(h.added for h in hunks)
        text = " ".join(hunk.added if hunk.added.strip() else hunk.removed for hunk in hunks[:ROWS])
    else:
        is_new, is_gone = row.before is None, row.after is None
        text = _text(row.before or repository.changes.after(row))
    done = "added" if is_new else "removed" if is_gone else "changed"
    if is_gone and row.replaced_by is not None:
        done = f"replaced by #{row.replaced_by}"
    return RowSummary(row.kind, row.key, done, text[:_KEPT_CHARACTERS])


def _text(value: RowValue | None) -> str:
    if isinstance(value, GlobalPrompt):
        return value.name
    if isinstance(value, Thread):
        return value.title
    return value.content if isinstance(value, Memory | Message) else ""
