"""The rest of a memory's life: listed, revised, moved, forgotten, brought back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from soulkeep.days import Days
from soulkeep.errors import InvalidInputError, MemoryNotFoundError
from soulkeep.models import (
    ChangedRow,
    Clock,
    Memory,
    MemoryFilter,
    MemoryType,
    NewMemory,
    Session,
    timestamp,
)
from soulkeep.repository import Repository
from soulkeep.search.questions import query_terms
from soulkeep.service.background import Background
from soulkeep.service.changes import Changes, earlier_ids, newest_versions
from soulkeep.service.indexes import Indexes
from soulkeep.service.keeping import Keeper, Replaced
from soulkeep.service.receipts import Changed, Receipt
from soulkeep.service.sessions import Sessions
from soulkeep.service.validation import (
    MAX_BATCH,
    MAX_LIMIT,
    MAX_NAME,
    MAX_QUERY,
    parse_filter,
    require_range,
    require_text,
)
from soulkeep.wording import without_hidden

MAX_PAGE = 1_000

NEVER = "never"
"""Stands for no expiry where a memory that has one is revised."""


@dataclass(frozen=True, slots=True)
class Past:
    """A memory as it was until a change, and the memory that came in its place, if one did."""

    memory: Memory
    change_id: int
    replaced_by: int | None


@dataclass(eq=False)
class Lifecycle:
    """Changes memories; everything it does can be undone within the retention."""

    _repository: Repository
    _keeper: Keeper
    _changes: Changes
    _indexes: Indexes
    _background: Background
    _sessions: Sessions
    _clock: Clock
    _days: Days

    def list_memories(
        self,
        *,
        limit: int = 50,
        below: int | None = None,
        thread_id: str | None = None,
        memory_type: str | None = None,
        subject: str | None = None,
        source: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> list[Memory]:
        """Return up to `limit` (1 to 1,000) memories, the latest kept first, with ids under `below`.

        A thread lets its own and the global ones pass.

        Raises:
            InvalidInputError: An argument breaks a rule.
            ThreadNotFoundError: The thread does not exist.
        """
        require_range("limit", limit, 1, MAX_PAGE)
        allowed = parse_filter(thread_id, memory_type, since, until, self._days)
        if thread_id is not None:
            self._repository.threads.get_thread(thread_id)
        self._background.drop_expired()
        labels = {"subject": subject, "source": source}
        given = {name: without_hidden(label) for name, label in labels.items() if label}
        found = self._repository.memories.list_memories(allowed, limit, below, **given)
        return self._background.unexpired(found)

    def get_memory(self, memory_id: int) -> Memory:
        """Return a memory by its id, or by that of an older version of it.

        Raises:
            MemoryForgottenError: It is in the trash.
            MemoryNotFoundError: There is none with this id, and none came in its place.
        """
        return newest_versions(self._repository, [memory_id])[memory_id]

    def find_memory(self, memory_id: int) -> Memory | None:
        """Return the memory that an id leads to, as `get_memory` does; None where it is gone."""
        with self._repository.snapshot():
            latest = self._repository.changes.latest_ids([memory_id])[memory_id]
            return self._repository.memories.list_by_ids([latest]).get(latest)

    def history(self, memory_id: int) -> list[Past]:
        """Return what a memory was before its changes, and what it replaced, latest first.

        The id of any of its versions will do.

        Raises:
            MemoryNotFoundError: There is none with this id, neither now nor in the kept past.
        """
        latest = self._repository.changes.latest_ids([memory_id])[memory_id]
        versions = earlier_ids(self._repository, [latest]) | {memory_id}
        rows = self._repository.changes.rows_about("memories", *map(str, versions))
        if not rows and not self._repository.memories.list_by_ids([memory_id]):
            raise MemoryNotFoundError(memory_id)
        return [past for row in reversed(rows) if (past := _past(row)) is not None]

    def find_ids(self, typed: str) -> list[int]:
        """Return ids that begin with what was typed, latest first, or those of memories with its words.

        Raises:
            StoreError: The store cannot be read.
        """
        if not typed.strip() or typed.isdecimal():
            latest = self._repository.memories.list_memories(MemoryFilter(), MAX_PAGE)
            return [memory.id for memory in latest if str(memory.id).startswith(typed)]
        terms = query_terms(typed[:MAX_QUERY])
        matching = self._repository.memories.matching(terms, MemoryFilter(), MAX_LIMIT)
        return [memory_id for memory_id, _ in matching]

    def forget(self, memory_ids: Sequence[int], session: Session | None = None) -> Changed:
        """Move memories to the trash, from where they can be restored; return them as they were.

        Raises:
            InvalidInputError: There are none, too many, or one is an entry of a document.
            MemoryNotFoundError: One does not exist; nothing is done.
            StoreError: The store cannot do it, or no backup be made before very many go.
        """
        session = session or self._sessions.current()
        leaving = len(self._own(memory_ids))
        with self._changes.recording("memory.forgotten", session, leaving=(leaving, 0)) as recorder:
            led = self._own(memory_ids)
            gone = {memory.id: memory for memory in led.values()}
            self._repository.memories.delete_memories(list(gone))
            self._sessions.audit(session, "memory.forgotten", *({"memory_id": i} for i in gone))
        return Changed(tuple(gone.values()), _newer(led), recorder.change_id, tuple(recorder.lines))

    def restore(self, memory_ids: Sequence[int], session: Session | None = None) -> Changed:
        """Bring memories back from the trash, all or none; an expiry that has passed is cleared.

        Where the newest version of one is in the trash too, that comes back, as it went by the same id.

        Raises:
            InvalidInputError: There are none, or too many.
            MemoryNotFoundError: One is not in the trash; nothing is done.
            UndoConflictError: The thread of one is gone; nothing is done.
        """
        led = self._gone(_require_ids(memory_ids))
        ids = list(dict.fromkeys(led.values()))
        gone = [self._in_trash(memory_id) for memory_id in ids]
        done = self._changes.put_back([row for row, _ in gone], "memory.restored", session)
        found = self._repository.memories.list_by_ids(ids)
        had_expiry = {past.id for _, past in gone if past.expires_at}
        cleared = tuple(i for i, m in found.items() if i in had_expiry and m.expires_at is None)
        newer = {asked: newest for asked, newest in led.items() if newest != asked}
        return Changed(tuple(found.values()), newer, done.change_id, tuple(done.lines), cleared)

    def _gone(self, memory_ids: Sequence[int]) -> dict[int, int]:
        """Return for each id that of the newest version if it is gone too, else the id itself."""
        with self._repository.snapshot():
            led = self._repository.changes.latest_ids(memory_ids)
            there = self._repository.memories.list_by_ids(list(led.values()))
        return {asked: asked if led[asked] in there else led[asked] for asked in memory_ids}

    def _in_trash(self, memory_id: int) -> tuple[ChangedRow, Memory]:
        for row in self._repository.changes.rows_about("memories", str(memory_id))[-1:]:
            if row.after is None and isinstance(row.before, Memory):
                return row, row.before
        raise MemoryNotFoundError(memory_id, in_trash=True)

    def list_trash(self, limit: int = 50, before: int | None = None) -> list[Past]:
        """Return up to `limit` (1 to 1,000) memories in the trash, the latest gone first.

        Raises:
            InvalidInputError: The limit is outside.
        """
        require_range("limit", limit, 1, MAX_PAGE)
        self._background.drop_expired()
        rows = self._repository.changes.list_trash(limit, before)
        return [past for row in rows if (past := _past(row)) is not None]

    def revise(
        self,
        memory_id: int,
        content: str | None = None,
        *,
        memory_type: MemoryType | None = None,
        source: str | None = None,
        subject: str | None = None,
        occurred_at: str | None = None,
        expires_at: str | None = None,
        session: Session | None = None,
    ) -> Receipt:
        """Put a new version in the place of a memory, which leaves recall and stays in the history.

        What is not given is taken over, an expiry only where it has not passed; `expires_at` may be
        "never". Where the new version would be the old one, nothing is changed.

        Raises:
            MemoryNotFoundError: There is no such memory.
            InvalidInputError: A value breaks a rule, or it is an entry of a document.
        """
        given = {
            "content": content,
            "memory_type": memory_type,
            "source": source,
            "subject": subject,
            "occurred_at": occurred_at,
            "expires_at": expires_at,
        }
        fields = {name: value for name, value in given.items() if value is not None}
        if not fields:
            raise InvalidInputError("content", "or another field must be given to revise a memory")

        had_expiry = False

        def revised(old: Replaced) -> list[NewMemory]:
            nonlocal had_expiry
            had_expiry = old[memory_id].expires_at is not None
            return [_revised(old[memory_id], fields, timestamp(self._clock()))]

        (receipt,) = self._keeper.keep(revised, [memory_id], session)
        cleared = had_expiry and receipt.expires_at is None and expires_at is None
        return replace(receipt, expiry_cleared=cleared)

    def move(
        self, memory_ids: Sequence[int], thread_id: str | None, session: Session | None = None
    ) -> Changed:
        """Move memories to a thread, or with None make them global; return them as they are now.

        Raises:
            InvalidInputError: There are none, too many, or one is an entry of a document.
            MemoryNotFoundError: One does not exist; nothing is done.
            ThreadNotFoundError: The thread does not exist.
        """
        session = session or self._sessions.current()
        if thread_id is not None:
            require_text("thread_id", thread_id, MAX_NAME)
        moved = None
        while moved is None:
            moved = self._try_to_move(self._own(memory_ids), thread_id, session)
        return moved

    def _try_to_move(
        self, led: Mapping[int, Memory], thread_id: str | None, session: Session
    ) -> Changed | None:
        """Move memories; None where one is not any more what it was before it was embedded."""
        memories = {m.id: m._replace(thread_id=thread_id) for m in led.values()}
        self._require_thread(thread_id)
        vectors = self._indexes.embed_stored(list(memories.values()), session)
        with self._changes.recording("memory.moved", session) as recorder:
            self._require_thread(thread_id)
            if self._own(list(led)) != led:
                return None
            ids = list(memories)
            self._repository.memories.move_memories(ids, thread_id)
            self._repository.vectors.replace_vectors(ids, vectors)
            self._sessions.audit(session, "memory.moved", {"memory_ids": ids, "thread_id": thread_id})
        return Changed(tuple(memories.values()), _newer(led), recorder.change_id)

    def _require_thread(self, thread_id: str | None) -> None:
        if thread_id is not None:
            self._repository.threads.get_thread(thread_id)

    def _own(self, memory_ids: Sequence[int]) -> dict[int, Memory]:
        """Return the memories that ids lead to, which are the user's own and no entries of documents."""
        led = newest_versions(self._repository, _require_ids(memory_ids))
        for memory in led.values():
            if memory.document is not None:
                rule = f"holds {memory.id}, an entry of {memory.document}; change that document instead"
                raise InvalidInputError("memory_ids", rule)
        return led


def _require_ids(memory_ids: Sequence[int]) -> list[int]:
    ids = list(dict.fromkeys(memory_ids))
    if not 1 <= len(ids) <= MAX_BATCH:
        raise InvalidInputError("memory_ids", f"must hold 1 to {MAX_BATCH:,} ids; give several lists")
    return ids


def _newer(led: Mapping[int, Memory]) -> dict[int, int]:
    return {asked: memory.id for asked, memory in led.items() if asked != memory.id}


def _revised(old: Memory, fields: Mapping[str, str], now: str) -> NewMemory:
    kept = NewMemory(
        content=old.content,
        memory_type=old.memory_type,
        thread_id=old.thread_id,
        source=old.source,
        subject=old.subject,
        occurred_at=None if old.occurred_at == old.created_at else old.occurred_at,
        expires_at=old.expires_at if old.expires_at and old.expires_at > now else None,
        created_at=old.created_at,
    )
    new = replace(kept, **fields)
    return replace(new, expires_at=None) if (new.expires_at or "").lower() == NEVER else new


def _past(row: ChangedRow) -> Past | None:
    if not isinstance(row.before, Memory):
        return None
    return Past(row.before, row.change_id, row.replaced_by)
