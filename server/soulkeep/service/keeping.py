"""Keeping memories: each statement once, alone or in the place of others."""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from unicodedata import normalize

from soulkeep.days import Days
from soulkeep.errors import InvalidInputError
from soulkeep.models import Clock, Memory, MemoryFilter, NewMemory, Session, Vector, timestamp
from soulkeep.repository import Repository
from soulkeep.search.questions import query_terms
from soulkeep.service.changes import Changes, newest_versions
from soulkeep.service.indexes import Indexes, Vectors
from soulkeep.service.receipts import Receipt, Similar
from soulkeep.service.sessions import Sessions
from soulkeep.service.validation import (
    MAX_QUERY,
    parse_expiry,
    parse_moment,
    require_label,
    require_memories,
)

SIMILAR = 3
"""How many existing memories a receipt shows."""

LOOKED_UP = 20
"""A longer list is kept without looking for similar memories: for each of them that is a search."""

Replaced = Mapping[int, Memory]
"""The memories that new ones replace, by the ids that were given for them."""


class Keeper:
    """Writes memories, and what they replace, in one transaction."""

    def __init__(
        self,
        repository: Repository,
        indexes: Indexes,
        changes: Changes,
        sessions: Sessions,
        clock: Clock,
        days: Days,
    ) -> None:
        self._repository = repository
        self._indexes = indexes
        self._changes = changes
        self._sessions = sessions
        self._clock = clock
        self._days = days

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
            memories = [_labelled(memory) for memory in make(old)]
            require_memories(memories, self._days)
            self._repository.threads.require_threads(_thread_ids(memories))
            receipts = self._try_to_keep([self._dated(m) for m in memories], old, session)
        return receipts

    def _try_to_keep(
        self, memories: Sequence[NewMemory], old: Replaced, session: Session
    ) -> list[Receipt] | None:
        """Keep memories; None where what they replace is not any more what it was."""
        now = timestamp(self._clock())
        alone, vectors = self._indexes.embed_new(memories, session)
        similar = self._similar(memories, alone)
        replaced = {memory.id: memory for memory in old.values()}
        action, leaving = "memory.replaced" if old else "memory.stored", (len(replaced), 0)
        with self._changes.recording(action, session, leaving=leaving) as recorder:
            if self._replaced(list(old)) != old:
                return None
            self._repository.threads.require_threads(_thread_ids(memories))
            self._repository.vectors.claim_embedder(self._indexes.embedder_identity)
            gone = self._remove(replaced, memories[0])
            kept = self._add(memories, vectors, session, now)
            recorder.replace(gone, kept[0][0])
            self._repository.threads.touch_threads(_thread_ids(memories), now)
        newer = {asked: memory.id for asked, memory in old.items() if asked != memory.id}
        return [
            Receipt(
                memory_id,
                stored,
                _others(close, {memory_id, *gone}),
                tuple(gone),
                newer,
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
            [memories[place] for place in places], [vectors[place] for place in places], now
        )
        added = dict(zip(places, ids, strict=True))
        details = [_details(memory_id, memories[place]) for place, memory_id in added.items()]
        self._sessions.audit(session, "memory.stored", *details)
        return [
            (known, False) if known is not None else (added[first[_statement(memory)]], place in added)
            for place, (memory, known) in enumerate(zip(memories, older, strict=True))
        ]

    def _similar(
        self, memories: Sequence[NewMemory], vectors: Vectors
    ) -> Sequence[tuple[Similar, ...] | None]:
        if len(memories) > LOOKED_UP:
            return [None] * len(memories)
        return [self._similar_to(*pair) for pair in zip(memories, vectors, strict=True)]

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


def _labelled(memory: NewMemory) -> NewMemory:
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


def _details(memory_id: int, memory: NewMemory) -> dict[str, object]:
    return {
        "memory_id": memory_id,
        "memory_type": memory.memory_type,
        "thread_id": memory.thread_id,
        "characters": len(memory.content),
    }


def _others(similar: tuple[Similar, ...] | None, but: AbstractSet[int]) -> tuple[Similar, ...] | None:
    return None if similar is None else tuple(s for s in similar if s.memory.id not in but)
