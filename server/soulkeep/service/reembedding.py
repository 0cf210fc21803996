"""Moving a store to the embedder that is set, while it goes on serving with the former one's vectors."""

import itertools
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from soulkeep.embedders import NO_EMBEDDER
from soulkeep.errors import EmbedderError, StoreBusyError, StoreError
from soulkeep.models import Memory, Vector
from soulkeep.repository import Repository
from soulkeep.service.compaction import PAUSE_S
from soulkeep.service.indexes import Indexes
from soulkeep.service.sessions import Sessions
from soulkeep.wording import agreeing, counted

AT_ONCE = 20
CHARACTERS_AT_ONCE = 5_000
"""Memories that are embedded and written together, or a longer one alone: some tenths of a second.

A process that is killed loses at most so much.
"""

LOOK_AGAIN_S = 30.0
"""When a process looks again whether another one is still at it."""

CLOSE_S = 1.0
"""How long a process that ends waits for what is being embedded, before it gives that up."""

LOCK_NAME = ".vectors.lock"

_NEWEST = 2**63 - 1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How many of all memories have a vector of the embedder that the store moves to."""

    embedder: str
    made: int
    memories: int


class Reembedding:
    """Makes a new set of vectors in a thread, and lets it serve once it is whole.

    Only a store that was another embedder's when this was built is moved: of two processes with
    different settings neither undoes the other's work as long as they run.
    """

    def __init__(
        self, repository: Repository, indexes: Indexes, sessions: Sessions, folder: Path
    ) -> None:
        self._repository = repository
        self._folder = folder
        self._indexes = indexes
        self._sessions = sessions
        self._former = repository.vectors.recorded_embedder()
        self._below = _NEWEST
        self._made: dict[Memory, Vector] = {}
        self._thread: threading.Thread | None = None
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

    def remarks(self) -> list[str]:
        """Return what to know of an answer meanwhile, in sentences."""
        progress = self.progress()
        if progress is None:
            return self._remarks_on_others()
        done = f"{progress.made:,} of {counted(progress.memories, 'memory')} have their new vectors"
        if self._indexes.is_by_meaning:
            return [f"{done}; the former ones serve until all have."]
        how = "the server makes the others, or the user runs `soulkeep reindex`"
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
        get = f"{counted(count, 'memory')} {agreeing(count, 'gets', 'get')} new vectors"
        return f"{get} from {progress.embedder} in the background; until then search {meanwhile}"

    def start(self) -> None:
        """Move the store in a thread, if it is another embedder's."""
        if self.progress() is not None:
            self._thread = threading.Thread(target=self.move, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """End the thread after the few memories that it is at, or without them if they take long."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def step(self) -> bool:
        """Give the next few memories their new vectors, or let these serve if all have them.

        Return whether there is more to do. Nothing is embedded while the store is locked.

        Raises:
            StoreBusyError: Another process is writing; the next step writes what this one embedded.
            StoreError: The store cannot be read or written.
            EmbedderError: A text cannot be embedded.
        """
        table, identity = self._repository.next_vectors, self._indexes.embedder_identity
        self._made = self._made or self._embed_next(identity)
        if self._closed.is_set():  # perhaps so long ago that the store is closed as well
            return False
        with self._repository.transaction(durable=not self._made, waiting=False):
            if self.progress() is None:
                return False
            if self._made:
                table.add(self._made, identity)
            else:
                table.take_over(identity)
                details = {"embedder": identity}
                self._sessions.audit(self._sessions.current(), "store.reembedded", details)
        is_done = not self._made
        self._made = {}
        return not is_done

    def _embed_next(self, identity: str) -> dict[Memory, Vector]:
        table = self._repository.next_vectors
        memories = table.list_missing(identity, self._below, AT_ONCE)
        # What came, and what was changed, since the older ones had their turn.
        memories = memories or table.list_missing(identity, _NEWEST, AT_ONCE)
        if not memories:
            return {}
        ends = itertools.accumulate(len(memory.content) for memory in memories)
        fitting = [m for m, end in zip(memories, ends, strict=True) if end <= CHARACTERS_AT_ONCE]
        memories = fitting or memories[:1]
        self._below = memories[-1].id
        vectors = self._indexes.embed_anew(memories, self._sessions.current())
        pairs = zip(memories, vectors, strict=True)
        return {memory: vector for memory, vector in pairs if vector is not None}

    def move(self) -> None:
        """Make all new vectors and let them serve, a few at a time, so that calls go on beside it.

        What keeps it from being done is said once in the log.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self._folder / LOCK_NAME, timeout=0, mode=0o600)
        try:
            while not self._closed.is_set() and self.progress() is not None:
                try:
                    with lock:
                        self._make_all()
                except Timeout:  # another process is at it
                    self._closed.wait(LOOK_AGAIN_S)
        except (EmbedderError, StoreError, OSError) as error:
            _log.warning("new vectors are not made until the next start: %s", error)

    def _make_all(self) -> None:
        pause, is_more = PAUSE_S, True
        while is_more and not self._closed.wait(pause):
            begun = time.monotonic()
            with suppress(StoreBusyError):
                is_more = self.step()
            # As long as the work took: half of the time is for calls.
            pause = max(PAUSE_S, time.monotonic() - begun)
        self._free_space()

    def _free_space(self) -> None:
        steps = self._repository.tidy(waiting=False)
        with suppress(StoreBusyError):
            while not self._closed.wait(PAUSE_S) and next(steps, None) is not None:
                pass
