"""Keeping memories and bringing them back."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache

from soulkeep.dates import asks_when, day_words, find_dates
from soulkeep.embedders import NO_EMBEDDER, Embedder, in_context
from soulkeep.errors import StoreBusyError
from soulkeep.models import (
    Clock,
    Embedding,
    Memory,
    MemoryFilter,
    NewMemory,
    Recall,
    Receipt,
    Session,
    Similar,
    Usage,
    day_of,
    timestamp,
)
from soulkeep.ranking import (
    Candidates,
    Question,
    exact_strengths,
    inverse_document_frequency,
    query_terms,
    rank,
    text_words,
)
from soulkeep.repository import Repository
from soulkeep.service.sessions import Sessions
from soulkeep.service.validation import (
    MAX_LIMIT,
    MAX_QUERY,
    parse_filter,
    parse_moment,
    require_memories,
    require_range,
    require_text,
)

LEXICAL_CANDIDATES = 60
VECTOR_CANDIDATES = 40
"""How many candidates each half of the search hands to the ranking; never fewer than the limit."""

SIMILAR = 3
"""How many existing memories a receipt shows."""

NEAR_S = 3600.0
"""Memories of a thread are neighbours when at most an hour lies between them."""

_PAGE = 1_000
_KEPT_WORDS = 5_000


class Memories:
    """The service behind `remember` and `recall`."""

    def __init__(
        self, repository: Repository, embedder: Embedder | None, sessions: Sessions, clock: Clock
    ) -> None:
        """Serve from a store; without an embedder the search is by words alone."""
        self._repository = repository
        self._embedder = embedder
        self._sessions = sessions
        self._clock = clock

    @property
    def embedder_identity(self) -> str:
        """The identity of the embedder in use; `none:0:none` without one."""
        return self._embedder.identity if self._embedder else NO_EMBEDDER

    @property
    def vectors_expected(self) -> bool:
        """Whether each memory in the store should have a vector."""
        return self._repository.memories.recorded_embedder() not in (None, NO_EMBEDDER)

    def require_embedder(self) -> None:
        """Check that the store's vectors are those of the embedder in use.

        Raises:
            EmbedderMismatchError: They are another's.
        """
        self._repository.memories.require_embedder(self.embedder_identity)

    def remember(self, memories: Sequence[NewMemory], session: Session | None = None) -> list[Receipt]:
        """Keep 1 to 100 memories in one transaction, all or none; return a receipt for each, in order.

        A memory that says exactly what an older one says, with the same type and in the same scope (its
        thread, or global), is not written again.

        Raises:
            InvalidInputError: A memory breaks a rule; nothing is written.
            ThreadNotFoundError: A memory names a thread that does not exist.
            StoreError: The store cannot take them.
            EmbedderError: A text cannot be embedded.
        """
        session = session or self._sessions.current()
        require_memories(memories)
        for thread_id in _thread_ids(memories):
            self._repository.threads.get_thread(thread_id)
        self.require_embedder()
        memories = [_dated(memory) for memory in memories]
        self._catch_up()
        alone, embeddings = self._embed_in_context(self._new_in_context(memories), session)
        similar = [self._similar(*pair) for pair in zip(memories, alone, strict=True)]
        with self._repository.transaction():
            self._repository.memories.claim_embedder(self.embedder_identity)
            kept = [self._keep(*pair, session) for pair in zip(memories, embeddings, strict=True)]
            for thread_id in _thread_ids(memories):
                self._repository.threads.touch_thread(thread_id, timestamp(self._clock()))
        return [
            Receipt(memory_id, stored, tuple(s for s in others if s.memory.id != memory_id))
            for (memory_id, stored), others in zip(kept, similar, strict=True)
        ]

    def _keep(
        self, memory: NewMemory, embedding: Embedding | None, session: Session
    ) -> tuple[int, bool]:
        older = self._repository.memories.find_duplicate(memory)
        if older is not None:
            return older, False
        now = timestamp(self._clock())
        memory_id = self._repository.memories.add_memory(memory, embedding, now)
        self._sessions.audit(
            session,
            "memory.stored",
            memory_id=memory_id,
            memory_type=memory.memory_type,
            thread_id=memory.thread_id,
            characters=len(memory.content),
        )
        return memory_id, True

    def _similar(self, memory: NewMemory, embedding: Embedding | None) -> tuple[Similar, ...]:
        allowed = MemoryFilter(thread_id=memory.thread_id)
        if embedding is None:
            terms = query_terms(memory.content[:MAX_QUERY])
            matching = self._repository.memories.matching(terms, allowed, SIMILAR)
            similarities: dict[int, float | None] = {memory_id: None for memory_id, _ in matching}
        else:
            near = self._repository.vectors.nearest(embedding, allowed, SIMILAR)
            similarities = {memory_id: 1 - distance for memory_id, distance in near}
        rows = self._repository.memories.list_by_ids(list(similarities))
        return tuple(Similar(rows[i], similarities[i]) for i in similarities if i in rows)

    def recall(
        self,
        query: str,
        *,
        limit: int = 10,
        thread_id: str | None = None,
        memory_type: str | None = None,
        since: str | None = None,
        until: str | None = None,
        session: Session | None = None,
    ) -> Recall:
        """Return up to `limit` (1 to 100) memories for a query, best first.

        With a thread, its own memories and the global ones are searched; `since` and `until` are ISO
        dates or times (UTC), both inclusive. Filters apply before the limit.

        Raises:
            InvalidInputError: An argument breaks a rule.
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot be read.
            EmbedderError: The query cannot be embedded.
        """
        session = session or self._sessions.current()
        require_text("query", query, MAX_QUERY)
        require_range("limit", limit, 1, MAX_LIMIT)
        allowed = parse_filter(thread_id, memory_type, since, until)
        if thread_id is not None:
            self._repository.threads.get_thread(thread_id)
        self.require_embedder()
        self._catch_up()
        weights = self._weights(query_terms(query))
        candidates = self._candidates(query, weights, allowed, limit, session)
        matches = rank(
            Question(weights, find_dates(query, self._clock()), asks_when(query)),
            candidates,
            {
                i: _words_of(m.content, m.subject, m.occurred_at[:10])
                for i, m in candidates.memories.items()
            },
            self._embedder.strengths if self._embedder else exact_strengths,
            limit,
        )
        return Recall(tuple(matches), "hybrid" if self._embedder else "lexical")

    def _weights(self, terms: Sequence[str]) -> dict[str, float]:
        """Weigh each word of a query by its rarity in this store."""
        count = self._repository.memories.count()
        frequencies = self._repository.memories.document_frequencies(terms)
        return {term: inverse_document_frequency(count, n) for term, n in frequencies.items()}

    def _candidates(
        self,
        query: str,
        weights: Mapping[str, float],
        allowed: MemoryFilter,
        limit: int,
        session: Session,
    ) -> Candidates:
        table = self._repository.memories
        bm25 = dict(table.matching(list(weights), allowed, max(limit, LEXICAL_CANDIDATES)))
        cosine: dict[int, float] = {}
        if self._embedder:
            embedded = self._embedder.embed_query(query, weights)
            self._sessions.record_usage(session, Usage(self._embedder.identity, embedded.tokens))
            (vector,) = embedded.embeddings
            depth = max(limit, VECTOR_CANDIDATES)
            near = dict(self._repository.vectors.nearest(vector, allowed, depth))
            near |= table.distances(vector, list(bm25.keys() - near.keys()))
            cosine = {memory_id: 1 - distance for memory_id, distance in near.items()}
        found = list(bm25.keys() | cosine.keys())
        neighbours = table.neighbours(found, NEAR_S)
        beside = {i for pair in neighbours.values() for i in pair if i is not None}
        memories = table.list_by_ids([*found, *(beside - set(found))])
        return Candidates(memories, bm25, cosine, neighbours)

    def _catch_up(self) -> None:
        """Index what another program added to the store, unless another process is writing."""
        table = self._repository.memories
        while missing := table.unindexed(_PAGE):
            _, embeddings = self._embed_in_context(
                self._stored_in_context(missing), self._sessions.current()
            )
            try:
                with self._repository.without_waiting(), self._repository.transaction():
                    for memory, embedding in zip(missing, embeddings, strict=True):
                        table.add_to_indexes(memory, embedding)
            except StoreBusyError:
                return

    def _stored_in_context(self, memories: Sequence[Memory]) -> list[tuple[str, str | None]]:
        """Return for stored memories their own text and that of the one before in the thread."""
        table = self._repository.memories
        neighbours = table.neighbours([memory.id for memory in memories], NEAR_S)
        before = {i: pair[0] for i, pair in neighbours.items() if pair[0] is not None}
        previous = table.list_by_ids(list(before.values()))
        return [(_text(m), _text(previous[before[m.id]]) if m.id in before else None) for m in memories]

    def _new_in_context(self, memories: Sequence[NewMemory]) -> list[tuple[str, str | None]]:
        """Return the same for memories that are about to be kept, in this order."""
        now = timestamp(self._clock())
        latest: dict[str, NewMemory | Memory | None] = {}
        texts: list[tuple[str, str | None]] = []
        for memory in memories:
            previous, when = None, memory.occurred_at or now
            if memory.thread_id is not None:
                if memory.thread_id not in latest:
                    table = self._repository.memories
                    latest[memory.thread_id] = table.latest_in_thread(memory.thread_id, when, NEAR_S)
                previous = latest[memory.thread_id]
                latest[memory.thread_id] = memory
            near = previous and _seconds_between(previous.occurred_at or now, when) <= NEAR_S
            texts.append((_text(memory), _text(previous) if previous and near else None))
        return texts

    def _embed_in_context(
        self, texts: Sequence[tuple[str, str | None]], session: Session
    ) -> tuple[Sequence[Embedding | None], Sequence[Embedding | None]]:
        """Return the vectors of the texts alone, and turned towards what came before each."""
        alone = self._embed([own for own, _ in texts], session)
        earlier = list(dict.fromkeys(before for _, before in texts if before is not None))
        known = dict(zip(earlier, self._embed(earlier, session), strict=True)) if earlier else {}
        turned = [
            in_context(own, previous)
            if own is not None and before is not None and (previous := known[before]) is not None
            else own
            for own, (_, before) in zip(alone, texts, strict=True)
        ]
        return alone, turned

    def _embed(self, texts: Sequence[str], session: Session) -> Sequence[Embedding | None]:
        if self._embedder is None:
            return [None] * len(texts)
        embedded = self._embedder.embed(texts)
        self._sessions.record_usage(session, Usage(self._embedder.identity, embedded.tokens))
        return embedded.embeddings

    def reindex(self, session: Session | None = None) -> int:
        """Build both search indexes anew with the embedder in use; return how many memories they hold.

        Other processes cannot write meanwhile: with very many memories they may time out.

        Raises:
            StoreError: The store cannot be written; the old indexes stay.
            EmbedderError: A text cannot be embedded; the old indexes stay.
        """
        session = session or self._sessions.current()
        table = self._repository.memories
        with self._repository.transaction():
            table.reset_vectors(self.embedder_identity)
            for page in table.pages(_PAGE) if self._embedder else ():
                _, embeddings = self._embed_in_context(self._stored_in_context(page), session)
                for memory, embedding in zip(page, embeddings, strict=True):
                    if embedding is not None:
                        table.add_vector(memory.id, embedding)
            table.rebuild_full_text()
            count = self._repository.count_rows()["memories"]
            self._sessions.audit(session, "store.reindexed", embedder=self.embedder_identity)
        self._sessions.flush()
        return count


def _thread_ids(memories: Sequence[NewMemory]) -> list[str]:
    return list(dict.fromkeys(m.thread_id for m in memories if m.thread_id is not None))


def _dated(memory: NewMemory) -> NewMemory:
    if memory.occurred_at is None:
        return memory
    return replace(memory, occurred_at=parse_moment("occurred_at", memory.occurred_at))


def _text(memory: NewMemory | Memory) -> str:
    """Return what is embedded for a memory; another program may have added a blank one."""
    text = f"{memory.subject}: {memory.content}" if memory.subject else memory.content
    return text if text.strip() else "blank"


def _seconds_between(earlier: str, later: str) -> float:
    return abs((datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds())


@lru_cache(_KEPT_WORDS)
def _words_of(content: str, subject: str | None, occurred_at: str) -> tuple[str, ...]:
    day = day_of(occurred_at)
    return text_words(content, subject, day_words(day) if day else "")
