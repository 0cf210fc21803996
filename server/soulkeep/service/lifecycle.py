"""A memory's life: kept once, listed, revised, moved, forgotten, brought back; and its receipts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from unicodedata import normalize

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
    Vector,
    timestamp,
)
from soulkeep.repository import Repository
from soulkeep.search.questions import query_terms
from soulkeep.service.callers import (
    MAX_BATCH,
    MAX_LIMIT,
    MAX_NAME,
    MAX_QUERY,
    Changed,
    Receipt,
    Sessions,
    Similar,
    parse_expiry,
    parse_filter,
    parse_moment,
    require_label,
    require_memories,
    require_range,
    require_text,
)
from soulkeep.service.changes import Changes, earlier_ids, newest_versions
from soulkeep.service.indexes import Indexes, Vectors
from soulkeep.service.upkeep import Background
from soulkeep.wording import without_hidden

SIMILAR = 3
"""How many existing memories a receipt shows."""

LOOKED_UP = 20
"""A longer list is kept without looking for similar memories: for each of them that is a search."""

Replaced = Mapping[int, Memory]
"""The memories that new ones replace, by the ids that were given for them."""


NEVER = "never"
"""Stands for no expiry, also where a memory that has one is revised."""


def _as_kept(memory: NewMemory) -> NewMemory:
    if (memory.expires_at or "").lower() == NEVER:
        memory = replace(memory, expires_at=None)
    if memory.subject is None is memory.source:
        return memory
    subject, source = (
        None if label is None else require_label(argument, label)
        for argument, label in (("subject", memory.subject), ("source", memory.source))
    )
    return replace(memory, subject=subject, source=source)


def _thread_ids(memories: Sequence[NewMemory]) -> list[str]:
    return list(dict.fromkeys(m.thread_id for m in memories if m.thread_id is not None))


def _statement(memory: NewMemory) -> tuple[str | None, ...]:
    """Return what two memories have in common that say the same, as `find_duplicates` has it."""
    return (
        normalize("NFC", memory.content),
        memory.memory_type,
        memory.thread_id,
        normalize("NFC", memory.subject or ""),
        memory.occurred_at,
        memory.expires_at,
    )


MAX_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Past:
    """A memory as it was until a change, and the memory that came in its place, if one did."""

    memory: Memory
    change_id: int
    replaced_by: int | None


@dataclass(eq=False)
class Lifecycle:
    """Keeps and changes memories; everything it does can be undone within the retention."""

    _repository: Repository
    _changes: Changes
    _indexes: Indexes
    _background: Background
    _sessions: Sessions
    _clock: Clock
    _days: Days

    def keep(
        self,
        make: Callable[[Replaced], Sequence[NewMemory]],
        replaces: Sequence[int],
        session: Session | None,
    ) -> list[Receipt]:
        """Keep the memories that `make` makes of those that they replace; return their receipts.

        `make` is called again where one of those changes while texts are embedded, which comes before
        the store is locked.

        Raises:
            InvalidInputError: A memory breaks a rule, or `replaces` does; nothing is written.
            MemoryNotFoundError: One to be replaced does not exist.
            ThreadNotFoundError: A memory names a thread that does not exist.
            StoreError: The store cannot take them.
            EmbedderError: A text cannot be embedded.
        """
        session = session or self._sessions.current()
        receipts = None
        while receipts is None:
            old = self._replaced(replaces)
            memories = [_as_kept(memory) for memory in make(old)]
            require_memories(memories, self._days)
            for wanted in _thread_ids(memories) if len(memories) <= LOOKED_UP else ():
                self._repository.threads.get_thread(wanted)  # before anything is embedded
            receipts = self._try_to_keep([self._dated(m) for m in memories], old, session)
        return receipts

    def _try_to_keep(
        self, memories: Sequence[NewMemory], old: Replaced, session: Session
    ) -> list[Receipt] | None:
        """Keep memories; None where what they replace is not any more what it was."""
        now = timestamp(self._clock())
        alone, vectors = self._indexes.embed_new(memories, session)
        looks = len(memories) <= LOOKED_UP
        similar = [
            self._similar_to(*pair) if looks else None for pair in zip(memories, alone, strict=True)
        ]
        replaced = {memory.id: memory for memory in old.values()}
        action, leaving = "memory.replaced" if old else "memory.stored", (len(replaced), 0)
        with self._changes.recording(action, session, leaving=leaving) as recorder:
            if self._replaced(list(old)) != old:
                return None
            self._repository.threads.change_threads(_thread_ids(memories), last_active_at=now)
            gone = self._remove(replaced, memories[0])
            kept = self._add(memories, vectors, session, now)
            recorder.replaced_by |= dict.fromkeys(gone, kept[0][0])
        return [
            Receipt(
                memory_id,
                stored,
                close and tuple(s for s in close if s.memory.id not in {memory_id, *gone}),
                tuple(gone),
                _newer(old),
                tuple(recorder.lines),
                memory.expires_at,
                recorder.change_id,
            )
            for memory, (memory_id, stored), close in zip(memories, kept, similar, strict=True)
        ]

    def _replaced(self, memory_ids: Sequence[int]) -> Replaced:
        found = newest_versions(self._repository, memory_ids)
        for memory in found.values():
            if memory.document is not None:
                rule = f"holds {memory.id}, an entry of {memory.document}; change that document"
                raise InvalidInputError("replaces", rule)
        return found

    def _dated(self, memory: NewMemory) -> NewMemory:
        if memory.occurred_at is not None:
            occurred_at = parse_moment("occurred_at", memory.occurred_at, self._days)
            memory = replace(memory, occurred_at=occurred_at)
        if memory.expires_at is not None:
            expires_at = parse_expiry(memory.expires_at, self._days, timestamp(self._clock()))
            memory = replace(memory, expires_at=expires_at)
        return memory

    def _remove(self, replaced: Mapping[int, Memory], new: NewMemory) -> list[int]:
        """Take away what a memory replaces, but for one that it would only repeat; return the ids."""
        if not replaced:
            return []
        (known,) = self._repository.memories.find_duplicates([new])
        repeated = replaced.get(known or 0)
        stays = repeated is not None and new.source in (None, repeated.source)
        gone = [memory_id for memory_id in replaced if not (stays and memory_id == known)]
        self._repository.memories.delete_memories(gone)
        return gone

    def _add(
        self, memories: Sequence[NewMemory], vectors: Vectors, session: Session, now: str
    ) -> list[tuple[int, bool]]:
        """Add what is new; return for each memory the id that it has now, and whether it is new."""
        table = self._repository.memories
        older = table.find_duplicates(memories)
        first: dict[tuple[str | None, ...], int] = {}
        for place, memory in enumerate(memories):
            if older[place] is None:
                first.setdefault(_statement(memory), place)
        places = list(first.values())
        ids = table.add_memories(
            [memories[place] for place in places],
            [vectors[place] for place in places],
            now,
            self._indexes.embedder_identity,
        )
        added = dict(zip(places, ids, strict=True))
        details = [
            {
                "memory_id": memory_id,
                "memory_type": memories[place].memory_type,
                "thread_id": memories[place].thread_id,
                "characters": len(memories[place].content),
            }
            for place, memory_id in added.items()
        ]
        self._sessions.audit(session, "memory.stored", *details)
        return [
            (known, False) if known is not None else (added[first[_statement(memory)]], place in added)
            for place, (memory, known) in enumerate(zip(memories, older, strict=True))
        ]

    def _similar_to(self, memory: NewMemory, vector: Vector | None) -> tuple[Similar, ...]:
        allowed = MemoryFilter(thread_id=memory.thread_id)
        if vector is None:
            terms = query_terms(memory.content[:MAX_QUERY])
            matching = self._repository.memories.matching(terms, allowed, SIMILAR)
            similarities: dict[int, float | None] = {memory_id: None for memory_id, _ in matching}
        else:
            near = self._repository.vector_search.nearest(vector.embedding, allowed, SIMILAR)
            similarities = self._indexes.similarities(memory, vector, [i for i, _ in near])
        rows = self._repository.memories.list_by_ids(list(similarities))
        found = (Similar(rows[i], similarity) for i, similarity in similarities.items() if i in rows)
        return tuple(sorted(found, key=lambda one: -(one.similarity or 0)))

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
        return _pasts(reversed(rows))

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
        asked = _require_ids(memory_ids)
        with self._repository.snapshot():
            led = self._repository.changes.latest_ids(asked)
            there = self._repository.memories.list_by_ids(list(led.values()))
        led = {one: one if led[one] in there else led[one] for one in asked}
        ids = list(dict.fromkeys(led.values()))
        rows, had_expiry = list[ChangedRow](), set[int]()
        for memory_id in ids:
            row = next(iter(self._repository.changes.rows_about("memories", str(memory_id))[-1:]), None)
            if row is None or row.after is not None or not isinstance(row.before, Memory):
                raise MemoryNotFoundError(memory_id, in_trash=True)
            rows.append(row)
            had_expiry |= {memory_id} if row.before.expires_at else set()
        done = self._changes.put_back(rows, "memory.restored", session)
        found = self._repository.memories.list_by_ids(ids)
        cleared = tuple(i for i, m in found.items() if i in had_expiry and m.expires_at is None)
        newer = {one: newest for one, newest in led.items() if newest != one}
        return Changed(tuple(found.values()), newer, done.change_id, tuple(done.lines), cleared)

    def list_trash(self, limit: int = 50, before: int | None = None) -> list[Past]:
        """Return up to `limit` (1 to 1,000) memories in the trash, the latest gone first.

        Raises:
            InvalidInputError: The limit is outside.
        """
        require_range("limit", limit, 1, MAX_PAGE)
        self._background.drop_expired()
        return _pasts(self._repository.changes.list_trash(limit, before))

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

        (receipt,) = self.keep(revised, [memory_id], session)
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
        if thread_id is not None:
            self._repository.threads.get_thread(thread_id)
        vectors = self._indexes.embed_stored(list(memories.values()), session)
        with self._changes.recording("memory.moved", session) as recorder:
            if thread_id is not None:
                self._repository.threads.get_thread(thread_id)
            if self._own(list(led)) != led:
                return None
            ids = list(memories)
            self._repository.memories.move_memories(ids, thread_id, vectors)
            self._sessions.audit(session, "memory.moved", {"memory_ids": ids, "thread_id": thread_id})
        return Changed(tuple(memories.values()), _newer(led), recorder.change_id)

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
    return replace(kept, **fields)


def _pasts(rows: Iterable[ChangedRow]) -> list[Past]:
    return [Past(r.before, r.change_id, r.replaced_by) for r in rows if isinstance(r.before, Memory)]
