"""Taking memories, and all that was kept of them, out of every file: this cannot be undone."""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from unicodedata import normalize

from soulkeep.days import Days
from soulkeep.documents import Documents
from soulkeep.errors import (
    BackupNotFoundError,
    InvalidInputError,
    MemoryErasedError,
    MemoryNotFoundError,
    PurgeUnfinishedError,
    StoreError,
)
from soulkeep.models import Fault, Memory, Session
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.service.backups import Backups
from soulkeep.service.callers import MAX_BATCH, Sessions
from soulkeep.service.changes import earlier_ids
from soulkeep.service.document_index import MEMORY
from soulkeep.service.edits import hunks_of, linked_id, promoted_text, without_link
from soulkeep.wording import in_one_form, row_name

_OUT_OF_SEARCH = "what was to be erased is out of the store's tables and of all searches"

PENDING = "erasure_pending"
"""The fact that the store still holds, where no search looks, what a purge deleted."""

NAMED = "backups_to_purge"
"""The fact that names backups that are still to be rewritten by a purge."""

_WORDS = 40
"""So many words of a text are looked for in documents."""


@dataclass(frozen=True, slots=True)
class PurgePlan:
    """What a purge takes: memories, live or not, with every version of each and what they replaced.

    `newer` holds, for ids of older versions that were given, the newest ones.
    """

    memory_ids: tuple[int, ...]
    versions: tuple[Memory, ...]
    newer: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Purged:
    """What is gone for good, and where it may still stand.

    `lines` were promoted from the memories to MEMORY.md; `texts` are former texts of documents that held
    them; `backups` were rewritten. `kept_in` names rows, documents, former texts and backups that may
    still say it; without `is_final`, so does the store's log until other processes stop reading.
    `newer` is as in the plan.
    """

    memory_ids: tuple[int, ...]
    lines: int = 0
    texts: int = 0
    backups: tuple[str, ...] = ()
    kept_in: tuple[str, ...] = ()
    is_final: bool = True
    newer: Mapping[int, int] = field(default_factory=dict)


@dataclass(eq=False)
class Purges:
    """Erases memories, or all that was ever deleted."""

    _repository: Repository
    _documents: Documents
    _backups: Backups
    _sessions: Sessions

    def plan(self, memory_ids: Sequence[int], backups: Collection[str] = ()) -> PurgePlan:
        """Return what a purge of memories, live or in the trash, would take out of the store.

        Raises:
            InvalidInputError: There are none, too many, or one is an entry of a document.
            MemoryNotFoundError: One is neither in the store nor in the trash, and no backup is named in
                which it may be.
            BackupNotFoundError: A backup does not exist.
        """
        if not 1 <= len(set(memory_ids)) <= MAX_BATCH:
            rule = f"must hold 1 to {MAX_BATCH:,} ids; give several lists"
            raise InvalidInputError("memory_ids", rule)
        there = [backup.id for backup in self._backups.list_backups()] if backups else []
        for backup in backups:
            if backup not in there:
                raise BackupNotFoundError(backup)
        try:
            return _trace(self._repository, memory_ids, strict=not backups)
        except MemoryNotFoundError as error:
            if (erased_at := self._repository.ledger.erased_at(error.memory_id)) is None:
                raise
            minute = Days(self._documents.timezone).minute_text(erased_at)
            raise MemoryErasedError(error.memory_id, minute) from error

    def purge(
        self,
        memory_ids: Sequence[int],
        backups: Collection[str] = (),
        session: Session | None = None,
    ) -> Purged:
        """Take memories out of the store, the documents' former texts, MEMORY.md and these backups.

        All versions of each go, what it replaced, and the lines promoted from it. There is no way back.
        The file is written anew, which needs as much free space as it takes; others cannot write
        meanwhile. If that fails, `finish` goes on.

        Raises:
            InvalidInputError: There are none, too many, or one is an entry of a document.
            MemoryNotFoundError: One is neither in the store nor in the trash, and no backup is named in
                which it may be; nothing is done.
            BackupNotFoundError: A backup does not exist; nothing is done.
            PurgeUnfinishedError: The store or a backup cannot be written; it says what is gone by then.
            DocumentError: MEMORY.md or a former text cannot be written; the store is as it was.
        """
        from soulkeep.documents.markdown import list_entries

        session = session or self._sessions.current()
        plan = self.plan(memory_ids, backups)
        tell("Looking through documents and their former texts")
        self._documents.texts.drop_leftovers()
        before = len(list_entries(self._documents.read(MEMORY)))
        text = self._documents.edit(MEMORY, partial(_without, plan=plan, promoted_only=True))
        lines = before - len(list_entries(text))
        mentions, without = _mentions(plan), partial(_without, plan=plan, promoted_only=False)
        texts = self._documents.rewrite_history(lambda text: without(text) if mentions(text) else text)
        begun = _unfinished("its lines in documents are gone", ["the store"], marked=False)
        # What is deleted leaves no trace: the recording is not saved.
        with begun, self._repository.recording():
            _delete(self._repository, plan)
            # Named, so that a purge that is cut off can go on with them.
            named = self._named()
            for name in backups:
                named[name] = sorted({*named.get(name, ()), *plan.memory_ids})
            self._repository.put_fact(NAMED, json.dumps(named) if named else None)
            details = {"memory_ids": list(plan.memory_ids), "backups": sorted(backups)}
            self._sessions.audit(session, "memory.purged", details)
        is_final = self._erase(backups)
        if (rewritten := self._rewrite_backups(plan)) and self._backups.in_store:
            is_final = self._erase()
        kept_in = (
            *_still_in(self._repository, self._documents, plan),
            *(f"backup {name}" for name in self._backups.list_others(rewritten)),
        )
        return Purged(plan.memory_ids, lines, texts, rewritten, kept_in, is_final, plan.newer)

    def empty_trash(self, session: Session | None = None) -> Purged:
        """Take out of the store all that was deleted or changed, and all former texts of documents.

        What is there now stays as it is; nothing done until now can be undone any more.

        Raises:
            PurgeUnfinishedError: The store cannot be written.
            DocumentError: A former text cannot be removed.
        """
        session = session or self._sessions.current()
        self._documents.texts.drop_leftovers()
        texts = self._documents.drop_history()
        begun = _unfinished("the former texts of documents are gone", ["the store"], marked=False)
        with begun, self._repository.transaction():
            changes = self._repository.changes.delete_before(None)
            self._repository.put_fact(PENDING, "yes")
            self._sessions.audit(session, "trash.purged", {"changes": changes, "texts": texts})
        is_final = self._erase()
        kept_in = tuple(f"backup {name}" for name in self._backups.list_others())
        return Purged((), texts=texts, kept_in=kept_in, is_final=is_final)

    def finish(self) -> Purged | None:
        """Go on with a purge that was cut off, in backups too; None where there is none.

        Raises:
            PurgeUnfinishedError: The store or a backup cannot be written.
        """
        is_pending, left = self._repository.get_fact(PENDING), self._named()
        if not (is_pending or left):
            return None
        is_final = not is_pending or self._erase(left)
        if (rewritten := self._rewrite_backups(PurgePlan((), ()))) and self._backups.in_store:
            is_final = self._erase()
        return Purged((), backups=rewritten, is_final=is_final)

    def _named(self) -> dict[str, list[int]]:
        """Return the backups that are still to be rewritten, with the ids of the memories that go."""
        named: dict[str, list[int]] = json.loads(self._repository.get_fact(NAMED) or "{}")
        return named

    def faults(self) -> list[Fault]:
        """Return what a purge that was cut off has left to do as a fault of the store."""
        places = ["the freed space of the store"] if self._repository.get_fact(PENDING) else []
        places += [f"backup {name}" for name in sorted(self._named())]
        detail = f"what was purged is out of all searches and still in {', '.join(places)}"
        return [Fault("purge", detail, "run `soulkeep purge`")] if places else []

    def _erase(self, backups: Collection[str] = ()) -> bool:
        places = ["the freed space of the store", *(f"backup {name}" for name in sorted(backups))]
        with _unfinished(_OUT_OF_SEARCH, places, marked=True):
            is_final = self._repository.erase()
            if is_final:
                with self._repository.transaction():
                    self._repository.put_fact(PENDING, None)
        return is_final

    def _rewrite_backups(self, plan: PurgePlan) -> tuple[str, ...]:
        """Rewrite what is named; return the new ids. One that fails keeps none of the others waiting.

        Raises:
            PurgeUnfinishedError: One cannot be read or written; it stays named.
        """
        self._backups.drop_leftovers()
        left = self._named()
        rewritten, errors = [], dict[str, StoreError]()
        for name in sorted(left):
            versions = plan.versions if {*plan.memory_ids} <= {*left[name]} else ()
            wanted = PurgePlan(tuple(left[name]), versions)
            try:
                if name in self._backups.list_others():
                    rewritten.append(self._backups.rewrite(name, partial(_purge_copy, plan=wanted)))
            except StoreError as error:
                errors[name] = error
                continue
            del left[name]
            with self._repository.transaction():
                self._repository.put_fact(NAMED, json.dumps(left) if left else None)
                if self._backups.in_store:
                    self._repository.put_fact(PENDING, "yes")
        if errors:
            places, first = [f"backup {name}" for name in errors], next(iter(errors.values()))
            raise PurgeUnfinishedError(_OUT_OF_SEARCH, places, first, marked=True)
        return tuple(rewritten)


@contextmanager
def _unfinished(done: str, kept_in: Sequence[str], *, marked: bool) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise PurgeUnfinishedError(done, kept_in, error, marked=marked) from error


def _trace(repository: Repository, memory_ids: Sequence[int], *, strict: bool) -> PurgePlan:
    """Follow memories to their newest versions and back to all that those replaced."""
    latest = repository.changes.latest_ids(memory_ids)
    found: dict[int, list[Memory]] = {}
    for memory_id in sorted(earlier_ids(repository, latest.values()) | latest.keys()):
        rows = repository.changes.rows_about("memories", str(memory_id))
        found[memory_id] = [row.before for row in rows if isinstance(row.before, Memory)]
        live = repository.memories.list_by_ids([memory_id]).get(memory_id)
        if live is not None and live.document is not None:
            rule = f"holds {memory_id}, an entry of {live.document}; delete its line there"
            raise InvalidInputError("memory_ids", rule)
        found[memory_id] += [live] if live else []
    for memory_id in memory_ids if strict else ():
        if not found[latest[memory_id]]:
            raise MemoryNotFoundError(memory_id)
    newer = {asked: memory_id for asked, memory_id in latest.items() if asked != memory_id}
    return PurgePlan(tuple(found), tuple(v for of_one in found.values() for v in of_one), newer)


def _delete(repository: Repository, plan: PurgePlan) -> None:
    """Delete the memories, what is known of their past, and the entries that were promoted from them."""
    live = repository.memories.list_by_ids(plan.memory_ids)
    goes = _choice(plan, promoted_only=True)
    lines = [m.id for m in repository.documents.list_entries(MEMORY) if goes(m.content)]
    repository.memories.delete_memories([*live, *lines])
    for memory_id in plan.memory_ids:
        repository.changes.delete_rows(repository.changes.rows_about("memories", str(memory_id)))
    mentions = _mentions(plan)
    edits = repository.changes.rows_about("documents")
    gone = [
        edit
        for edit in edits
        if any(mentions(t) for h in hunks_of(edit) for t in (h.removed, h.added, h.above, h.below))
    ]
    repository.changes.delete_rows(gone)
    repository.put_fact(PENDING, "yes")


def _purge_copy(repository: Repository, documents: dict[str, bytes], plan: PurgePlan) -> None:
    """Do in a backup's copy of a home what a purge does in the home, with what there was then."""
    then = _trace(repository, plan.memory_ids, strict=False)
    plan = PurgePlan(then.memory_ids, (*plan.versions, *then.versions))
    with repository.recording():
        _delete(repository, plan)
    repository.erase()
    with repository.transaction():
        repository.put_fact(PENDING, None)
    if MEMORY in documents:
        text = documents[MEMORY].decode(errors="surrogateescape")
        without = _without(text, plan, promoted_only=True)
        documents[MEMORY] = without.encode(errors="surrogateescape")


def _without(text: str, plan: PurgePlan, *, promoted_only: bool) -> str:
    """Return a document without the entries that say what one of the memories says, and no more."""
    from soulkeep.documents.markdown import change_entries

    goes = _choice(plan, promoted_only=promoted_only)
    *_, left = text, *change_entries(text, lambda entry: None if goes(entry.text) else entry.text)
    return left


def _choice(plan: PurgePlan, *, promoted_only: bool) -> Callable[[str], bool]:
    """Return what tells the entries that say what one of the memories says, and no more."""
    contents = {memory.content for memory in plan.versions}
    said = {in_one_form(text) for content in contents for text in (content, promoted_text(content, ""))}

    def goes(entry: str) -> bool:
        is_promoted = linked_id(entry) in plan.memory_ids
        return (is_promoted or not promoted_only) and in_one_form(without_link(entry)) in said

    return goes


_HELD = {"memories": "memory", "threads": "messages of"}
"""What of a row holds a text, before its name."""


def _still_in(repository: Repository, documents: Documents, plan: PurgePlan) -> list[str]:
    """Return the names of rows, documents and former texts in which a memory's text may still stand."""
    contents = {memory.content for memory in plan.versions}
    said = sorted({*contents, *(normalize(form, text) for text in contents for form in ("NFC", "NFD"))})
    rows = [(is_past, kind, row_name(kind, key)) for is_past, kind, key in repository.find_saying(said)]
    mentions = _mentions(plan)
    texts, unreadable = documents.read_all()
    every = chain(texts.items(), documents.read_history())
    found = [name for name, content in every if mentions(content.decode(errors="replace"))]
    return [
        *(f"the past of {name}" if is_past else f"{_HELD[kind]} {name}" for is_past, kind, name in rows),
        *sorted([*found, *unreadable]),
    ]


def _mentions(plan: PurgePlan) -> Callable[[str], bool]:
    """Return what tells the texts in which any of the memories begins, in whatever form."""
    texts = {tuple(in_one_form(memory.content).split()[:_WORDS]) for memory in plan.versions} - {()}
    forms = "|".join(r"\s+".join(map(re.escape, words)) for words in sorted(texts))
    # Without any text, it finds nothing.
    pattern = re.compile(rf"(?<!\w)(?:{forms})(?!\w)" if texts else r"(?!)")
    # A text in ASCII without control characters has one form, but for its white space.
    has_forms = re.compile(r"[^\t-\r\x1c-~]").search
    return lambda text: bool(pattern.search(in_one_form(text) if has_forms(text) else text))
