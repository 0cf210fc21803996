"""Keeping memories and bringing them back."""

from collections.abc import Iterable, Sequence

from soulkeep.embedders import NO_EMBEDDER, Embedder
from soulkeep.models import (
    Clock,
    Embedding,
    Match,
    MemoryFilter,
    NewMemory,
    Recall,
    Receipt,
    Session,
    Similar,
    Usage,
    timestamp,
)
from soulkeep.ranking import query_terms, reciprocal_rank_fusion
from soulkeep.repository import Repository
from soulkeep.service.sessions import Sessions
from soulkeep.service.validation import (
    MAX_LIMIT,
    MAX_QUERY,
    parse_filter,
    require_memories,
    require_range,
    require_text,
)

CANDIDATES = 100
"""How many candidates each half of the search hands to the fusion; never fewer than the limit."""

SIMILAR = 3
"""How many existing memories a receipt shows."""

_PAGE = 1_000


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
        embeddings = self._embed([memory.content for memory in memories], session)
        similar = [self._similar(*pair) for pair in zip(memories, embeddings, strict=True)]
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
            found = dict.fromkeys(self._repository.memories.matching(terms, allowed, SIMILAR))
            similarities: dict[int, float | None] = found
        else:
            near = self._repository.memories.nearest(embedding, allowed, SIMILAR)
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
        rankings = self._rankings(query, allowed, max(limit, CANDIDATES), session)
        fused = reciprocal_rank_fusion(rankings, limit)
        rows = self._repository.memories.list_by_ids([memory_id for memory_id, _ in fused])
        matches = tuple(Match(rows[i], score) for i, score in fused if i in rows)
        return Recall(matches, "hybrid" if self._embedder else "lexical")

    def _rankings(
        self, query: str, allowed: MemoryFilter, depth: int, session: Session
    ) -> Iterable[list[int]]:
        table = self._repository.memories
        yield table.matching(query_terms(query), allowed, depth)
        (embedding,) = self._embed([query], session)
        if embedding is not None:
            yield [memory_id for memory_id, _ in table.nearest(embedding, allowed, depth)]

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
        table, tokens = self._repository.memories, 0
        with self._repository.transaction():
            table.reset_vectors(self.embedder_identity)
            if self._embedder:
                tokens = self._embed_all(self._embedder)
            table.rebuild_full_text()
            count = self._repository.count_rows()["memories"]
            self._sessions.audit(session, "store.reindexed", embedder=self.embedder_identity)
        if tokens:
            self._sessions.record_usage(session, Usage(self.embedder_identity, tokens))
        return count

    def _embed_all(self, embedder: Embedder) -> int:
        tokens, table = 0, self._repository.memories
        for page in table.pages(_PAGE):
            embedded = embedder.embed([content for _, content in page])
            tokens += embedded.tokens
            for (memory_id, _), embedding in zip(page, embedded.embeddings, strict=True):
                table.add_vector(memory_id, embedding)
        return tokens


def _thread_ids(memories: Sequence[NewMemory]) -> list[str]:
    return list(dict.fromkeys(m.thread_id for m in memories if m.thread_id is not None))
