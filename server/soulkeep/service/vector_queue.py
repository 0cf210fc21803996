"""Embedding the memories that wait for their vectors: a few at a time, by one process at a time."""

import itertools
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from soulkeep.embedders import Embedder
from soulkeep.errors import EmbedderError, StoreBusyError, StoreFullError, StoreNotWritableError
from soulkeep.models import Clock, Embedding, Memory, Vector, Waiting, timestamp
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.service.indexes import Indexes
from soulkeep.service.questions import MAX_DELAY_S, delay_s
from soulkeep.service.sessions import Sessions
from soulkeep.wording import agreeing, counted

WORK = "vectors"
"""The name of the work that one process at a time does in a store."""

AT_ONCE = 20
CHARACTERS_AT_ONCE = 5_000
"""Memories that a local embedder is given together, or a longer one alone: some tenths of a second."""

SENT_AT_ONCE = 100
CHARACTERS_SENT = 50_000
"""The same where texts are sent elsewhere: a request costs more than a text, and may time out."""

LOOK_AGAIN_S = 0.5
"""When a process looks again whether another one is still at it, or writes."""

REFUSED_DELAY_S, MAX_REFUSED_DELAY_S = 3_600.0, 7 * 86_400.0
"""In what time a text that was refused is tried again: at first, and at most."""


def fitting(memories: Sequence[Memory], characters: int) -> Sequence[Memory]:
    """Return the first memories that have no more than so many characters, and one at least."""
    ends = itertools.accumulate(len(memory.content) for memory in memories)
    return memories[: max(1, sum(end <= characters for end in ends))]


class VectorQueue:
    """Gives memories that wait in the store their vectors."""

    def __init__(
        self, repository: Repository, indexes: Indexes, sessions: Sessions, clock: Clock
    ) -> None:
        self._repository = repository
        self._indexes = indexes
        self._sessions = sessions
        self._clock = clock
        self._known: dict[str, Embedding] = {}
        self._made_by = ""
        self._failures = 0
        self._not_before: datetime | None = None
        self._closed = threading.Event()

    def waiting(self) -> Waiting:
        """Return how many memories wait for their vectors here; none where no embedder can make them."""
        return self._repository.vectors.waiting() if self._indexes.is_by_meaning else Waiting()

    def count_waiting(self, limit: int) -> int:
        """Count the memories that wait for their vectors, those that failed too, up to a limit."""
        return len(self._repository.vectors.list_pending(limit))

    def remarks(self) -> list[str]:
        """Return what to know of an answer while memories wait, in sentences."""
        waiting, said = self.waiting(), []
        if count := waiting.pending:
            why = f" (the last try failed: {waiting.reason.rstrip('.')})" if waiting.reason else ""
            wait = f"{counted(count, 'memory')} {agreeing(count, 'waits', 'wait')} for {{}} vector{{}}"
            own = wait.format(*(("its", "") if count == 1 else ("their", "s")))
            said.append(f"{own}, and until then {agreeing(count)} found by words alone{why}.")
        if count := waiting.failed:
            refused = (
                f"{counted(count, 'memory')} could not be embedded, and {agreeing(count)} found by words"
            )
            why = f": {waiting.reason.rstrip('.')}" if not waiting.pending else ""
            said.append(f"{refused} alone{why}; it is tried again by itself, or by `soulkeep reembed`.")
        return said

    def close(self) -> None:
        """Write nothing from now on: the store is being closed."""
        self._closed.set()

    def step(self, *, waiting: bool = False) -> float | None:
        """Embed the next few memories and write their vectors; nothing is locked while they are made.

        With `waiting` another process that is writing is waited for. Return in how many seconds there
        is more to do, None where nothing waits for this embedder.

        Raises:
            StoreError: The store cannot be read or written.
        """
        table = self._repository.vectors
        if not self._indexes.is_by_meaning or not table.list_pending(1):
            return None
        now = self._clock()
        if self._not_before is not None and now < self._not_before:
            return (self._not_before - now).total_seconds()
        with self._repository.sole_worker(WORK) as is_alone:
            if not is_alone:
                return LOOK_AGAIN_S
            embedder = self._indexes.embedder
            if embedder is None:
                return None
            count = AT_ONCE if embedder.is_local else SENT_AT_ONCE
            ids = table.list_pending(count, timestamp(now))
            found = self._repository.memories.list_by_ids(ids)
            if gone := [memory_id for memory_id in ids if memory_id not in found]:
                with self._repository.transaction(durable=False):  # another program deleted them
                    self._repository.memories.delete_memories(gone)
            if not found:
                then = datetime.fromisoformat(table.waiting().next_try or timestamp(now))
                return max((then - now).total_seconds(), LOOK_AGAIN_S)
            characters = CHARACTERS_AT_ONCE if embedder.is_local else CHARACTERS_SENT
            return self._embed(fitting(list(found.values()), characters), embedder, waiting=waiting)

    def _embed(self, memories: Sequence[Memory], embedder: Embedder, *, waiting: bool) -> float:
        if self._made_by != embedder.identity:
            self._known, self._made_by = {}, embedder.identity
        former = set(self._known)
        session = self._sessions.current()
        try:
            made, refused = self._indexes.embed_each(memories, embedder, session, self._known)
        except EmbedderError as error:
            self._failures += 1
            delay = delay_s(self._failures, 1, MAX_DELAY_S, error.retry_after_s)
            self._not_before = self._clock() + timedelta(seconds=delay)
            self._write(embedder, {}, dict.fromkeys(memories, str(error)), delay, waiting=waiting)
            return delay
        self._failures, self._not_before = 0, None
        for text in former:  # only the last ones may stand before the next ones in a thread
            self._known.pop(text, None)
        return 0 if self._write(embedder, made, refused, None, waiting=waiting) else LOOK_AGAIN_S

    def _write(
        self,
        embedder: Embedder,
        made: Mapping[Memory, Vector],
        failed: Mapping[Memory, str],
        delay: float | None,
        *,
        waiting: bool,
    ) -> bool:
        """Write vectors of memories that are still what was embedded, and why others have none.

        With a `delay` in seconds the embedder failed, without one it refused those texts. Return
        whether it could be written: else it is made again of what is known.
        """
        table = self._repository.vectors
        try:
            with self._repository.transaction(durable=False, waiting=waiting):
                if self._closed.is_set() or not self._indexes.is_serving(embedder):
                    return False
                now = self._repository.memories.list_by_ids([m.id for m in (*made, *failed)])
                table.add_pending({m.id: v for m, v in made.items() if now.get(m.id) == m})
                self._put_off({m.id: why for m, why in failed.items() if now.get(m.id) == m}, delay)
        except StoreBusyError:
            return False
        return True

    def _put_off(self, failed: Mapping[int, str], delay: float | None) -> None:
        table, now = self._repository.vectors, self._clock()
        for memory_id, attempts in table.attempts(list(failed)).items():
            s = delay or delay_s(attempts + 1, REFUSED_DELAY_S, MAX_REFUSED_DELAY_S)
            state = "failed" if delay is None else "pending"
            table.put_off({memory_id: failed[memory_id]}, state, timestamp(now + timedelta(seconds=s)))

    def retry(self) -> None:
        """Let all that waits have its turn now, also what failed, and embed it.

        Raises:
            StoreError: The store cannot be read or written.
        """
        self._failures, self._not_before = 0, None
        with self._repository.transaction():
            self._repository.vectors.retry_pending()
        self.work_off()

    def work_off(self) -> None:
        """Embed all that has its turn, with progress.

        Raises:
            StoreError: The store cannot be read or written.
        """
        total = 0
        with suppress(StoreNotWritableError, StoreFullError):
            while not self._closed.is_set() and self.step() == 0:
                left = self.waiting().pending
                total = max(total, left)
                if total > AT_ONCE:
                    tell("Embedding", 1 - left / total)
