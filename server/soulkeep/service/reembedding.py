"""Moving a store to the embedder that is set, while it goes on serving with the former one's vectors."""

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from soulkeep.embedders import NO_EMBEDDER, cost_of
from soulkeep.embedders.tokens import BYTES_PER_TOKEN
from soulkeep.errors import EmbedderError, EmbedderUnavailableError, StoreBusyError
from soulkeep.models import Clock, Memory, Vector, timestamp
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.service.compaction import PAUSE_S
from soulkeep.service.indexes import Indexes
from soulkeep.service.questions import MAX_DELAY_S, delay_s
from soulkeep.service.sessions import Sessions
from soulkeep.service.vector_queue import (
    AT_ONCE,
    CHARACTERS_AT_ONCE,
    CHARACTERS_SENT,
    LOOK_AGAIN_S,
    REFUSED_DELAY_S,
    SENT_AT_ONCE,
    WORK,
    fitting,
)
from soulkeep.wording import agreeing, counted

TRIES = 6
"""How often an embedder that is down for now is asked before the user has to begin again."""

_NEWEST = 2**63 - 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of all memories have a vector of the embedder that the store moves to."""

    embedder: str
    made: int
    memories: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be embedded, with which embedder, and what that takes.

    `tokens` are estimated from the bytes of the texts; `cost` is in US dollars, None where nobody knows
    it. Unless they are local, texts are sent to the embedder's endpoint.
    """

    embedder: str
    memories: int
    tokens: int
    cost: float | None
    is_local: bool


class Reembedding:
    """Makes a new set of vectors, a few at a time, and lets it serve once it is whole.

    Only a store that was another embedder's when this was built is moved: of two processes with
    different settings neither undoes the other's work as long as they run.
    """

    def __init__(
        self, repository: Repository, indexes: Indexes, sessions: Sessions, clock: Clock
    ) -> None:
        self._repository = repository
        self._indexes = indexes
        self._sessions = sessions
        self._former = repository.vectors.recorded_embedder()
        self._below = _NEWEST
        self._made: dict[Memory, Vector] = {}
        self._refused: dict[int, str] = {}
        self._clock = clock
        self._gave_up = False
        self._closed = threading.Event()

    def progress(self) -> Progress | None:
        """Return how far the store is on its way to the embedder that is set; None if it is on none."""
        recorded, identity = (
            self._repository.vectors.recorded_embedder(),
            self._indexes.embedder_identity,
        )
        if identity == NO_EMBEDDER or recorded in (None, identity) or recorded != self._former:
            return None
        made = self._repository.next_vectors.count(identity)
        return Progress(identity, made, self._repository.memories.count())

    def plan(self) -> Plan:
        """Return what it takes to give all memories vectors of the embedder that is set.

        Raises:
            EmbedderUnavailableError: None is set.
        """
        embedder = self._indexes.configured
        if embedder is None:
            remedy = "set SOULKEEP_EMBEDDER to one, or run `soulkeep reindex` to search by words alone"
            raise EmbedderUnavailableError("none", "it makes no vectors", remedy)
        memories, size = self._repository.next_vectors.measure_missing(embedder.identity)
        tokens = -(-size // BYTES_PER_TOKEN)
        return Plan(embedder.identity, memories, tokens, cost_of(embedder, tokens), embedder.is_local)

    def remarks(self) -> list[str]:
        """Return what to know of an answer meanwhile, in sentences."""
        progress = self.progress()
        if progress is None:
            return self._remarks_on_others()
        done = f"{progress.made:,} of {counted(progress.memories, 'memory')} have their new vectors"
        if self._indexes.is_by_meaning:
            return [f"{done}; the former ones serve until all have."]
        how = "the server makes the others, or the user runs `soulkeep reembed`"
        if self._indexes.configured is not None and not self._indexes.configured.is_local:
            how = "the user makes the others with `soulkeep reembed`"
        return [f"Search is by words alone: {done}; {how}."]

    def _remarks_on_others(self) -> list[str]:
        """Say why there is nothing to search with: another process, with another setting, moved it."""
        recorded, identity = (
            self._repository.vectors.recorded_embedder(),
            self._indexes.embedder_identity,
        )
        if identity == NO_EMBEDDER or recorded in (None, identity) or self._indexes.is_by_meaning:
            return []
        left = "without vectors" if recorded == NO_EMBEDDER else f"with vectors of {recorded}"
        return [
            f"Search is by words alone: another process, with another SOULKEEP_EMBEDDER, left the store"
            f" {left}; the user gives all clients the same one."
        ]

    def announcement(self) -> str:
        """Return what a server says of it at its start; nothing where there is nothing to do."""
        progress = self.progress()
        if progress is None:
            return ""
        count = progress.memories - progress.made
        meanwhile = "uses the former ones" if self._indexes.is_by_meaning else "is by words alone"
        if self._indexes.configured is not None and not self._indexes.configured.is_local:
            have = f"{counted(count, 'memory')} {agreeing(count, 'has', 'have')} no vectors of"
            how = "`soulkeep reembed` makes them, and says first what that costs"
            return f"{have} {progress.embedder}; {how}; until then search {meanwhile}"
        get = f"{counted(count, 'memory')} {agreeing(count, 'gets', 'get')} new vectors"
        return f"{get} from {progress.embedder} in the background; until then search {meanwhile}"

    def close(self) -> None:
        """Write nothing from now on: the store is being closed."""
        self._closed.set()

    def step(self, *, waiting: bool = False) -> bool:
        """Give the next few memories their new vectors, or let these serve if all have them.

        With `waiting` another process that is writing is waited for. Return whether there is more to do.
        Nothing is embedded while the store is locked.

        Raises:
            StoreBusyError: Another process is writing; the next step writes what this one embedded.
            StoreError: The store cannot be read or written.
            EmbedderError: The embedder does not work.
        """
        table, identity = self._repository.next_vectors, self._indexes.embedder_identity
        self._made = self._made or self._embed_next(identity)
        if self._closed.is_set():  # perhaps so long ago that the store is closed as well
            return False
        with self._repository.transaction(durable=not self._made, waiting=waiting):
            if self.progress() is None:
                return False
            if self._made:
                table.add(self._made, identity)
            else:
                table.take_over(identity)
                then = self._clock() + timedelta(seconds=REFUSED_DELAY_S)
                self._repository.vectors.put_off(self._refused, "failed", timestamp(then))
                details = {"embedder": identity}
                self._sessions.audit(self._sessions.current(), "store.reembedded", details)
        is_done = not self._made
        self._made = {}
        return not is_done

    def _embed_next(self, identity: str) -> dict[Memory, Vector]:
        embedder = self._indexes.configured
        if embedder is None:
            return {}
        table, is_local = self._repository.next_vectors, embedder.is_local
        count = AT_ONCE if is_local else SENT_AT_ONCE
        made: dict[Memory, Vector] = {}
        # From the newest on, and once more for what came, or was changed, since they had their turn.
        while not made and (
            memories := table.list_missing(identity, self._below, count, list(self._refused))
            or table.list_missing(identity, _NEWEST, count, list(self._refused))
        ):
            part = fitting(memories, CHARACTERS_AT_ONCE if is_local else CHARACTERS_SENT)
            self._below = part[-1].id
            session = self._sessions.current()
            made, refused = self._indexes.embed_each(part, embedder, session, {})
            self._refused |= {memory.id: reason for memory, reason in refused.items()}
        return made

    def work(self) -> float | None:
        """Do one step, as long as no other process is at it; return as `VectorQueue.step` does.

        Raises:
            StoreError: The store cannot be read or written.
            EmbedderError: The embedder does not work.
        """
        if self._closed.is_set() or (progress := self.progress()) is None:
            return None
        tell("Making new vectors", progress.made / max(progress.memories, 1))
        with self._repository.sole_worker(WORK) as is_alone, suppress(StoreBusyError):
            if is_alone and not self.step(waiting=True):
                self._free_space()
                return None
            return 0 if is_alone else LOOK_AGAIN_S
        return LOOK_AGAIN_S

    def work_unasked(self) -> float | None:
        """Do one step where that is free; if the embedder does not work, not again until the next start.

        Raises:
            StoreError: The store cannot be read or written.
        """
        embedder = self._indexes.configured
        if self._gave_up or embedder is None or not embedder.is_local:
            return None
        try:
            return self.work()
        except EmbedderError as error:
            self._gave_up = True
            _log.warning("new vectors are not made until the next start: %s", error)
            return None

    def move(self) -> None:
        """Make all new vectors and let them serve; begun before, it goes on where it was.

        Raises:
            StoreError: The store cannot be read or written.
            EmbedderError: The embedder does not work, even when it was asked again; what is made stays.
        """
        pause, attempts = self.work(), 0
        while pause is not None:
            self._closed.wait(pause)
            try:
                pause, attempts = self.work(), 0
            except EmbedderError as error:
                attempts += 1
                if not error.is_temporary or attempts == TRIES:
                    raise
                pause = delay_s(attempts, 1, MAX_DELAY_S, error.retry_after_s)

    def _free_space(self) -> None:
        steps = self._repository.tidy(waiting=False)
        with suppress(StoreBusyError):
            while not self._closed.wait(PAUSE_S) and next(steps, None) is not None:
                pass
