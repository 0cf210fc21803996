"""Embedding memories that wait for their vectors, moving to another embedder, giving back space."""

import itertools
import logging
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from soulkeep.embedders import NO_EMBEDDER, Embedder, cost_of
from soulkeep.embedders.tokens import BYTES_PER_TOKEN
from soulkeep.errors import (
    EmbedderError,
    EmbedderUnavailableError,
    StoreBusyError,
    StoreFullError,
    StoreNotWritableError,
)
from soulkeep.models import Clock, Embedding, Memory, Vector, Waiting, timestamp
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.service.callers import Sessions
from soulkeep.service.indexes import Indexes
from soulkeep.wording import agreeing, counted

STEPS_AT_ONCE = 10
"""Steps of a compaction that a single call may wait for, some ten milliseconds each."""

PAUSE_S = 0.005
"""A store may give its lock to whoever asks in the right moment: this is the moment for others."""

MAX_DELAY_S = 600.0
"""The longest time between two tries of an embedder that is down, if it does not ask for more."""

MAX_ASKED_S = 86_400.0
"""The longest time for which an embedder that asks to be left alone is."""


def compact_some(repository: Repository) -> None:
    """Give back a part of the space of deleted vectors, if there is enough of it to be worth while.

    It takes some tenths of a second at most, and nothing while another process writes.
    """
    if not repository.wasted():
        return
    try:
        for _ in itertools.islice(repository.tidy(waiting=False), STEPS_AT_ONCE):
            pass
    except (StoreBusyError, StoreFullError):
        # It comes after a change that was made, and which must not look as if it had failed.
        return


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


def delay_s(attempts: int, first: float, most: float, asked: float | None = None) -> float:
    """Return how long to wait after so many failed attempts (1 or more), in seconds.

    It doubles with each up to `most`, and is varied, so that many do not come back at once; it is no
    less than what was `asked` for.
    """
    varied = random.uniform(0.5, 1) * min(first * 2.0 ** min(attempts - 1, 32), most)  # noqa: S311 - no secret
    return max(varied, min(asked or 0, MAX_ASKED_S))


def fitting(memories: Sequence[Memory], characters: int) -> Sequence[Memory]:
    """Return the first memories that have no more than so many characters, and one at least."""
    ends = itertools.accumulate(len(memory.content) for memory in memories)
    return memories[: max(1, sum(end <= characters for end in ends))]


@dataclass(eq=False)
class VectorQueue:
    """Gives memories that wait in the store their vectors."""

    _repository: Repository
    _indexes: Indexes
    _sessions: Sessions
    _clock: Clock
    _known: dict[str, Embedding] = field(default_factory=dict)
    _made_by: str = ""
    _failures: int = 0
    _not_before: datetime | None = None

    def waiting(self) -> Waiting:
        """Return how many memories wait for their vectors here; none where no embedder can make them."""
        waiting = self._repository.vectors.waiting()
        return waiting if waiting == Waiting() or self._indexes.is_by_meaning else Waiting()

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

    def step(self, *, waiting: bool = False) -> float | None:
        """Embed the next few memories and write their vectors; nothing is locked while they are made.

        With `waiting` another process that is writing is waited for. Return in how many seconds there
        is more to do, None where nothing waits for this embedder.

        Raises:
            StoreError: The store cannot be read or written.
        """
        table = self._repository.vectors
        if not table.list_pending(1) or not self._indexes.is_by_meaning:
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
            ids = list(table.list_pending(count, timestamp(now)))
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
                if self._indexes.closing.is_set() or not self._indexes.is_serving(embedder):
                    return False
                there = self._repository.memories.list_by_ids([m.id for m in (*made, *failed)])
                table.add_pending({m.id: v for m, v in made.items() if there.get(m.id) == m})
                why, now = {m.id: w for m, w in failed.items() if there.get(m.id) == m}, self._clock()
                for memory_id, attempts in table.list_pending(among=why).items():
                    s = delay or delay_s(attempts + 1, REFUSED_DELAY_S, MAX_REFUSED_DELAY_S)
                    state, then = "failed" if delay is None else "pending", now + timedelta(seconds=s)
                    table.put_off({memory_id: why[memory_id]}, state, timestamp(then))
        except StoreBusyError:
            return False
        return True

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
            while not self._indexes.closing.is_set() and self.step() == 0:
                left = self.waiting().pending
                total = max(total, left)
                if total > AT_ONCE:
                    tell("Embedding", 1 - left / total)


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


@dataclass(eq=False)
class Reembedding:
    """Makes a new set of vectors, a few at a time, and lets it serve once it is whole.

    Only a store that was another embedder's when this was built is moved: of two processes with
    different settings neither undoes the other's work as long as they run.
    """

    _repository: Repository
    _indexes: Indexes
    _sessions: Sessions
    _clock: Clock
    _former: str | None
    """Whose vectors the store had when this was built."""
    _below: int = _NEWEST
    _made: dict[Memory, Vector] = field(default_factory=dict)
    _refused: dict[int, str] = field(default_factory=dict)
    _gave_up: bool = False

    def progress(self) -> Progress | None:
        """Return how far the store is on its way to the embedder that is set; None if it is on none."""
        recorded = self._other()
        if recorded is None or recorded != self._former:
            return None
        identity = self._indexes.embedder_identity
        return Progress(identity, *self._repository.next_vectors.count(identity))

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
        recorded = self._other()
        if recorded is None:
            return []
        progress = self.progress()
        if progress is None:
            if self._indexes.is_by_meaning:
                return []
            left = "without vectors" if recorded == NO_EMBEDDER else f"with vectors of {recorded}"
            return [
                "Search is by words alone: another process, with another SOULKEEP_EMBEDDER, left the"
                f" store {left}; the user gives all clients the same one."
            ]
        done = f"{progress.made:,} of {counted(progress.memories, 'memory')} have their new vectors"
        if self._indexes.is_by_meaning:
            return [f"{done}; the former ones serve until all have."]
        how = "the server makes the others, or the user runs `soulkeep reembed`"
        if self._indexes.configured is not None and not self._indexes.configured.is_local:
            how = "the user makes the others with `soulkeep reembed`"
        return [f"Search is by words alone: {done}; {how}."]

    def _other(self) -> str | None:
        """Return whose vectors the store has, if another embedder than theirs is set."""
        identity = self._indexes.embedder_identity
        if identity == NO_EMBEDDER:
            return None
        recorded = self._repository.vectors.recorded_embedder()
        return None if recorded == identity else recorded

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
        if self._indexes.closing.is_set():  # perhaps so long ago that the store is closed as well
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
        if self._indexes.closing.is_set() or (progress := self.progress()) is None:
            return None
        tell("Making new vectors", progress.made / max(progress.memories, 1))
        with self._repository.sole_worker(WORK) as is_alone, suppress(StoreBusyError):
            if is_alone and not self.step(waiting=True):
                steps = self._repository.tidy(waiting=False)
                with suppress(StoreBusyError):
                    while not self._indexes.closing.wait(PAUSE_S) and next(steps, None) is not None:
                        pass
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
            self._indexes.closing.wait(pause)
            try:
                pause, attempts = self.work(), 0
            except EmbedderError as error:
                attempts += 1
                if not error.is_temporary or attempts == TRIES:
                    raise
                pause = delay_s(attempts, 1, MAX_DELAY_S, error.retry_after_s)
