"""Keeping what is derived from memories in step with them: their embeddings and both search indexes."""

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from soulkeep.embedders import (
    NO_EMBEDDER,
    Embedder,
    EndpointError,
    UnusableVectorsError,
    embedder_of,
    in_context,
    strengths_of,
    usage_of,
)
from soulkeep.errors import (
    DimensionMismatchError,
    EmbedderError,
    EmbedderMismatchError,
    EmbedderUnavailableError,
    StoreBusyError,
)
from soulkeep.models import (
    Clock,
    EmbedderChoice,
    Embedding,
    Memory,
    NewMemory,
    Session,
    Vector,
    timestamp,
)
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.service.callers import Sessions

if TYPE_CHECKING:
    from soulkeep.embedders.meaning import WordMatches

NEAR_S = 3600.0
"""Memories of a thread are neighbours when at most an hour lies between them."""

Neighbours = dict[int, tuple[int | None, int | None]]
"""For a memory's id, those of the memories before and after it in its thread."""


def near(neighbours: Neighbours, memories: Mapping[int, Memory]) -> Neighbours:
    """Leave only those neighbours that are also near in time; `memories` has all of them by id."""
    when = {i: memory.occurred_at for i, memory in memories.items()}
    close: Neighbours = {}
    for i, pair in neighbours.items():
        before, after = (
            other if i in when and other in when and are_near(when[i], when[other]) else None
            for other in pair
        )
        close[i] = before, after
    return close


def are_near(earlier: str, later: str) -> bool:
    """Whether at most an hour lies between two moments in ISO 8601."""
    if earlier == later:
        return True
    try:
        between = datetime.fromisoformat(later) - datetime.fromisoformat(earlier)
    except (TypeError, ValueError):
        return False  # another program's row, with a date that is none
    return abs(between.total_seconds()) <= NEAR_S


IDLE_S = 300.0
"""After how many seconds without use a model's memory is given back."""

_used_at: dict[str, float] = {}
"""When a home of this process last used the embedder of an identity, whose memory was not given back."""

AT_ONCE = 20
"""So many texts a quick embedder embeds while a caller waits; longer lists wait for their vectors."""

_TEXTS = 100
"""Memories that are embedded and written together: at most some 10 MB of text."""

Vectors = Sequence[Vector | None]

_OF_EMBEDDER = (
    EndpointError,
    UnusableVectorsError,
    EmbedderUnavailableError,
    DimensionMismatchError,
)
"""After these no text would be embedded now, rather than one be at fault."""


@dataclass(eq=False)
class Indexes:
    """Embeds memories and questions, and builds both search indexes."""

    _repository: Repository
    configured: Embedder | None
    """The embedder that is set, loaded or not; without one a new store has no vectors."""
    _sessions: Sessions
    _clock: Clock
    _choice: EmbedderChoice
    """How the embedder of the store's former vectors is reached."""
    closing: threading.Event = field(default_factory=threading.Event)
    """Set when the store is being closed: what is under way then writes nothing any more."""
    _former: tuple[str, Embedder | None] = (NO_EMBEDDER, None)
    _problems: dict[str, str] = field(default_factory=dict)
    _used: float = math.inf

    @property
    def embedder_identity(self) -> str:
        """The identity of the embedder that is set; `none:0:none` without one."""
        return self.configured.identity if self.configured else NO_EMBEDDER

    @property
    def embedder(self) -> Embedder | None:
        """The embedder that made the store's vectors, loaded; None means search by words alone.

        It is the one that is set, or until all have new vectors the former one, if it can be had. One
        that cannot be loaded is not tried again: `advice` says why.
        """
        embedder = self._serving()
        if embedder is None or embedder.identity in self._problems:
            return None
        try:
            embedder.load()
        except EmbedderUnavailableError as error:
            self._problems[embedder.identity] = str(error)
            return None
        self._used = _used_at[embedder.identity] = time.monotonic()
        return embedder

    @property
    def is_quick(self) -> bool:
        """Whether memories may be embedded while a caller waits; also where none can be."""
        serving = self._serving()
        return serving is None or serving.is_quick

    @property
    def is_by_meaning(self) -> bool:
        """Whether there is an embedder to search with; asking loads none."""
        embedder = self._serving()
        return embedder is not None and embedder.identity not in self._problems

    def _serving(self) -> Embedder | None:
        """Return the embedder that made the store's vectors, loaded or not."""
        recorded = self._repository.vectors.recorded_embedder()
        if self.configured is None or recorded in (None, self.configured.identity):
            self._former = (NO_EMBEDDER, None)
            return self.configured
        former = self._former
        if former[0] != recorded:
            # Another thread may find another embedder recorded a moment later.
            self._former = former = (recorded, embedder_of(recorded, self._choice))
        return former[1]

    def is_serving(self, embedder: Embedder) -> bool:
        """Whether the store's vectors are still, or again, this embedder's."""
        return self._repository.vectors.recorded_embedder() in (None, embedder.identity)

    @property
    def advice(self) -> str:
        """Why vectors that are there cannot be used, and what the user does about it; often nothing."""
        embedder = self._serving() if self._problems else None
        if embedder is not None and embedder.identity in self._problems:
            return self._problems[embedder.identity]
        try:
            self.require_embedder()
        except EmbedderMismatchError as error:
            return f"{error.problem[0].upper()}{error.problem[1:]}; the user can {error.remedy}."
        return ""

    def get_ready(self) -> None:
        """Load what the first search needs, so that it waits for nothing.

        Raises:
            StoreError: The store cannot be read.
        """
        if embedder := self.embedder:
            self._repository.vector_search.load(embedder.parts)

    def rest(self, release: Callable[[], None]) -> None:
        """Give back the memory of the store and of the model where nothing has used them for long.

        All homes of a process share the model, so it stays as long as one of them uses it. `release`
        gives back what was made of texts meanwhile.

        Raises:
            StoreError: The store is gone.
        """
        try:
            if time.monotonic() - self._used >= IDLE_S:
                self._used = math.inf
                release()
                self.release_memory()
        finally:
            # Last, as an embedder also lets the system have what others gave back.
            for embedder in (self.configured, self._former[1]):
                used = math.inf if embedder is None else _used_at.get(embedder.identity, math.inf)
                if embedder is not None and time.monotonic() - used >= IDLE_S:
                    _used_at.pop(embedder.identity, None)
                    embedder.release()

    @property
    def memory_used(self) -> int:
        """How many bytes the codes of the store and the words of the embedder take, nearly."""
        return self._repository.memory_used() + sum(one.memory_used for one in self._strengths())

    def release_memory(self) -> None:
        """Give back that memory; the model stays, which all homes of a process share.

        Raises:
            StoreError: The store is gone.
        """
        for strengths in self._strengths():
            strengths.release()
        self._repository.release_memory()

    def _strengths(self) -> list["WordMatches"]:
        known = map(strengths_of, (self.configured, self._former[1]))
        return [strengths for strengths in known if strengths is not None]

    @property
    def vectors_expected(self) -> bool:
        """Whether each memory in the store should have a vector."""
        return self._repository.vectors.recorded_embedder() not in (None, NO_EMBEDDER)

    def require_embedder(self) -> None:
        """Check that a store with vectors is not used without an embedder.

        Raises:
            EmbedderMismatchError: It is.
        """
        if self.configured is not None:
            return
        recorded = self._repository.vectors.recorded_embedder()
        if recorded not in (None, NO_EMBEDDER):
            raise EmbedderMismatchError(self._repository.place, str(recorded))

    def load_embedder(self) -> None:
        """Load the embedder that is set, if there is one.

        Raises:
            EmbedderUnavailableError: It cannot be loaded.
        """
        if self.configured is not None:
            self.configured.load()

    def similarities(
        self, memory: NewMemory, vector: Vector, others: Sequence[int]
    ) -> dict[int, float | None]:
        """Return how alike a memory and each of the others are, -1 to 1: the weighed mean of parts.

        Unset where the store's vectors are another embedder's by now.
        """
        embedder = self.embedder
        if embedder is None or embedder.identity != vector.made_by:
            return dict.fromkeys(others)
        rows = self._repository.memories.list_by_ids(others)
        compared = self._repository.vectors.compare(vector.embedding, embedder.parts, others)
        if not self.is_serving(embedder):
            return dict.fromkeys(others)
        found: dict[int, float | None] = {}
        for i, cosines in compared.items():
            if i in rows:
                found[i] = embedder.weighting(memory.content, rows[i].content).likeness(cosines)
        return found

    def embed_new(self, memories: Sequence[NewMemory], session: Session) -> tuple[Vectors, Vectors]:
        """Embed memories to be kept in this order: alone, and turned towards what came before each.

        Only a few are, by a quick embedder; of others the vectors are None, and wait in the store.

        Raises:
            EmbedderError: A text cannot be embedded.
        """
        embedder = self._quick(len(memories))
        if embedder is None:
            return [None] * len(memories), [None] * len(memories)
        return self._embed_in_context(self._new_in_context(memories), embedder, session, {})

    def embed_stored(self, memories: Sequence[Memory], session: Session) -> Vectors:
        """Embed memories as they are or were in the store, on the same terms as `embed_new`.

        Raises:
            EmbedderError: A text cannot be embedded.
        """
        embedder = self._quick(len(memories))
        if embedder is None:
            return [None] * len(memories)
        return self._embed_in_context(self._stored_in_context(memories), embedder, session, {})[1]

    def _quick(self, count: int) -> Embedder | None:
        """Return the serving embedder where so many texts may be embedded while a caller waits."""
        serving = self._serving() if count <= AT_ONCE else None
        return self.embedder if serving is not None and serving.is_quick else None

    def embed_each(
        self,
        memories: Sequence[Memory],
        embedder: Embedder,
        session: Session,
        known: dict[str, Embedding],
    ) -> tuple[dict[Memory, Vector], dict[Memory, str]]:
        """Embed stored memories; return their vectors, and why a text was refused where it was.

        What is embedded is added to the `known` embeddings of texts, which are not made again.

        Raises:
            EmbedderError: The embedder, rather than single texts, is at fault.
        """
        self._used = _used_at[embedder.identity] = time.monotonic()
        texts = self._stored_in_context(memories)
        made: dict[Memory, Vector] = {}
        refused: dict[Memory, str] = {}
        parts = [list(zip(memories, texts, strict=True))]
        while parts:
            part = parts.pop()
            try:
                _, vectors = self._embed_in_context([pair for _, pair in part], embedder, session, known)
            except EmbedderError as error:
                memory, (own, before) = part[0]
                is_smallest = len(part) == 1 and before is None
                is_last = not parts and not made and len(memories) > 1
                is_of_embedder = error.is_temporary or isinstance(error, _OF_EMBEDDER)
                if is_of_embedder or (is_smallest and is_last):
                    raise
                # Tried again are its halves, or a memory without the one before.
                if is_smallest:
                    refused[memory] = str(error)
                elif len(part) == 1:
                    parts.append([(memory, (own, None))])
                else:
                    parts += [part[len(part) // 2 :], part[: len(part) // 2]]
            else:
                made |= zip((memory for memory, _ in part), vectors, strict=True)
        return made, refused

    def is_behind(self) -> bool:
        """Whether another program added memories that are not indexed yet, or some have expired.

        Raises:
            StoreError: The store cannot be read.
        """
        table, now = self._repository.memories, timestamp(self._clock())
        return bool(table.unindexed(1) or table.list_expired(now, 1))

    def take_in_added(self) -> None:
        """Index by its words what another program added, unless another process is writing.

        Raises:
            StoreError: The store cannot be read or written.
        """
        table = self._repository.memories
        if table.unindexed(1):
            with suppress(StoreBusyError), self._repository.transaction(waiting=False):
                table.add_memories([], [], timestamp(self._clock()), self.embedder_identity)

    def reindex(
        self,
        session: Session | None = None,
        *,
        recreate: bool = False,
    ) -> int:
        """Build both search indexes anew with the embedder that is set; return how many they hold.

        With `recreate` even their tables are made anew, in case they are damaged. The words are all
        indexed in one transaction, then memory after memory gets its vector, while others may write.

        Raises:
            StoreError: The store cannot be written; the old indexes stay, or the rest of them waits.
            EmbedderError: The embedder cannot be loaded, and the old indexes stay; or it failed on the
                way, and the rest waits for its vectors.
        """
        session = session or self._sessions.current()
        self.load_embedder()
        with self._repository.transaction():
            self._repository.rebuild_full_text(recreate=recreate)
            self._repository.next_vectors.discard()
            self._repository.next_vectors.take_over(self.embedder_identity)
            count = self._repository.count_rows()["memories"]
            self._sessions.audit(session, "store.reindexed", {"embedder": self.embedder_identity})
        self._embed_all(count, session)
        self._sessions.flush()
        return count

    def _embed_all(self, count: int, session: Session) -> None:
        """Give all that waits its vector; what is refused goes on waiting."""
        table, known = self._repository.vectors, dict[str, Embedding]()
        embedder = self.configured
        if embedder is None:
            return
        waiting = list(table.list_pending(count))
        for begin in range(0, len(waiting), _TEXTS):
            ids = waiting[begin : begin + _TEXTS]
            memories = list(self._repository.memories.list_by_ids(ids).values())
            made, _ = self.embed_each(memories, embedder, session, known)
            with self._repository.transaction(durable=False):
                now = self._repository.memories.list_by_ids(ids)
                table.add_pending({m.id: v for m, v in made.items() if now.get(m.id) == m})
            tell("Embedding all memories", min(1, (begin + _TEXTS) / len(waiting)))

    def _stored_in_context(self, memories: Sequence[Memory]) -> list[tuple[str, str | None]]:
        """Return for stored memories their own text and that of the one before in the thread."""
        table = self._repository.memories
        neighbours = table.neighbours([memory.id for memory in memories])
        previous = table.list_by_ids([pair[0] for pair in neighbours.values() if pair[0] is not None])
        close = near(neighbours, previous | {memory.id: memory for memory in memories})
        before = {i: pair[0] for i, pair in close.items() if pair[0] is not None}
        return [(_text(m), _text(previous[before[m.id]]) if m.id in before else None) for m in memories]

    def _new_in_context(self, memories: Sequence[NewMemory]) -> list[tuple[str, str | None]]:
        """Return the same for memories that are about to be kept, in this order."""
        now = timestamp(self._clock())

        def when(memory: NewMemory | Memory) -> str:
            return memory.occurred_at or memory.created_at or now

        first = {m.thread_id: when(m) for m in reversed(memories) if m.thread_id is not None}
        latest: dict[str, NewMemory | Memory] = {**self._repository.memories.latest_in_threads(first)}
        texts: list[tuple[str, str | None]] = []
        for memory in memories:
            previous = latest.get(memory.thread_id or "")
            if memory.thread_id is not None:
                latest[memory.thread_id] = memory
            close = previous and are_near(when(previous), when(memory))
            texts.append((_text(memory), _text(previous) if previous and close else None))
        return texts

    def _embed_in_context(
        self,
        texts: Sequence[tuple[str, str | None]],
        embedder: Embedder,
        session: Session,
        known: dict[str, Embedding],
    ) -> tuple[list[Vector], list[Vector]]:
        wanted = dict.fromkeys(text for pair in texts for text in pair if text is not None)
        if new := [text for text in wanted if text not in known]:
            embedded = embedder.embed(new)
            known |= zip(new, embedded.embeddings, strict=True)
            self._sessions.record(session, usage_of(embedder, embedded.tokens))
        alone = [Vector(known[own], embedder.identity) for own, _ in texts]
        turned = [
            vector
            if before is None
            else Vector(in_context(vector.embedding, known[before]), embedder.identity)
            for vector, (_, before) in zip(alone, texts, strict=True)
        ]
        return alone, turned


def _text(memory: NewMemory | Memory) -> str:
    """Return what is embedded for a memory; another program may have added a blank one."""
    text = f"{memory.subject}: {memory.content}" if memory.subject else memory.content
    return text if text.strip() else "blank"
