"""What is done beside calls, so that one that only reads writes nothing and waits for nothing slow."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from soulkeep.errors import EmbedderError, StoreBusyError, StoreError
from soulkeep.models import Clock, Memory, timestamp
from soulkeep.service.changes import Changes
from soulkeep.service.document_index import DocumentIndex
from soulkeep.service.indexes import Indexes
from soulkeep.service.sessions import Sessions
from soulkeep.service.vectors import PAUSE_S, Reembedding, VectorQueue

WAIT_S = 0.25
"""How long a call waits for what was changed a moment ago to be taken in."""

FIRST_WAIT_S = 2.0
"""The same for the first call, while what reads documents is loaded and all of them are looked at."""

FEW = 40
FEW_WAIT_S = 1.0
"""For the vectors of how few memories a call waits where the embedder is quick, and how long at most."""

SLICE_S = 0.05
"""For how long documents are indexed before what else there is has its turn."""

AGAIN_S = 0.1
"""When is tried again what others, who are writing, keep from being written."""

FAILED_S = 1.0
"""When is tried again what failed."""

CLOSE_S = 1.0
"""How long a home that is closed waits for what is being embedded, before it gives that up."""

_log = logging.getLogger(__name__)


class Worker:
    """A thread that does one step of its work after another, and rests when there is nothing to do."""

    def __init__(self, step: Callable[[], float | None]) -> None:
        """Do `step` when woken; it returns in how many seconds to do it again, None for never."""
        self._step = step
        self._state = threading.Condition()
        self._asked = 0
        self._done = 0
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._said = ""

    def wake(self) -> None:
        """Let the next step begin now, or after the one that is being done."""
        with self._state:
            if self._is_closed:
                return
            self._asked += 1
            self._state.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    @property
    def has_done_a_step(self) -> bool:
        """Whether it has been at work before."""
        return self._done > 0

    def wait(self, seconds: float) -> bool:
        """Wake it, and wait so long at most for a whole step; return whether one was done."""
        self.wake()
        with self._state:
            asked = self._asked
            return self._state.wait_for(lambda: self._done >= asked or self._is_closed, seconds)

    def close(self, seconds: float | None) -> None:
        """End it after the step that is being done, which is perhaps given up after so many seconds."""
        with self._state:
            self._is_closed = True
            self._state.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self) -> None:
        pause: float | None = 0
        try:
            while True:
                with self._state:
                    self._state.wait_for(lambda: self._asked > self._done or self._is_closed, pause)
                    if self._is_closed:
                        return
                    asked = self._asked
                pause = self._try()
                with self._state:
                    self._done = asked
                    self._state.notify_all()
        finally:
            self._thread = None  # whatever ended it, it begins again when woken

    def _try(self) -> float | None:
        begun = time.monotonic()
        try:
            pause = self._step()
        except StoreBusyError:
            return AGAIN_S
        except (EmbedderError, StoreError, OSError) as error:
            if not self._is_closed and self._said != str(error):
                self._said = str(error)
                _log.warning("%s", error)
            return FAILED_S
        if pause is None:
            return None
        # As long as the work took: half of the time is for calls.
        return max(pause, PAUSE_S, time.monotonic() - begun)


class Background:
    """The work of a home that no call waits for: in threads beside a server, else at the end of calls.

    What is quick has a thread of its own, so that it does not wait for an embedder.
    """

    def __init__(
        self,
        entries: DocumentIndex,
        indexes: Indexes,
        queue: VectorQueue,
        reembedding: Reembedding,
        changes: Changes,
        sessions: Sessions,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._entries = entries
        self._indexes = indexes
        self._queue = queue
        self._reembedding = reembedding
        self._changes = changes
        self._sessions = sessions
        self._serves = self._moves = False
        self._keeping_up = Worker(self._keep_up)
        self._embedding = Worker(self._embed)

    def serve(self) -> None:
        """Do it all in threads from now on."""
        self._serves = True
        self._sessions.write_later = self._keeping_up.wake

    def start(self) -> None:
        """Begin with what is left to do; a store of another embedder is moved, where that is free."""
        self._moves = True
        self._keeping_up.wake()
        self._embedding.wake()

    def note_change(self, names: Iterable[str]) -> None:
        """Take in these documents: they were changed."""
        self._entries.note_change(names)
        self._keeping_up.wake()

    def catch_up(self) -> None:
        """Take in what was changed behind the services' back: documents, rows of other programs, time.

        Beside a server that is waited for only a moment; `remarks` says what is still to be done.

        Raises:
            StoreError: The store cannot be read or written.
        """
        if not self._serves:
            self._take_in(None)
            if self._indexes.is_quick:
                self._queue.work_off()
            return
        self._wait()
        if self._indexes.is_quick and self._indexes.embedder is not None:
            self._await_few()

    def _await_few(self) -> None:
        """Wait for the vectors of a few memories, for as long as they get fewer."""
        end, before = time.monotonic() + FEW_WAIT_S, FEW + 1
        while 0 < (left := self._queue.count_waiting(before)) < before:
            if not self._embedding.wait(max(end - time.monotonic(), 0)):
                return
            before = left

    def drop_expired(self) -> None:
        """Move to the trash what has expired, for a call that needs nothing else to be taken in.

        Raises:
            StoreError: The store cannot be read.
        """
        if self._serves:
            self._wait()
        else:
            self._changes.drop_expired()

    def _wait(self) -> None:
        self._keeping_up.wait(WAIT_S if self._keeping_up.has_done_a_step else FIRST_WAIT_S)

    def unexpired(self, memories: Iterable[Memory]) -> list[Memory]:
        """Return the memories whose time has not passed; others may not have been moved away yet."""
        return [m for m in memories if m.expires_at is None or m.expires_at > timestamp(self._clock())]

    def note_work(self) -> None:
        """Begin with what a write, of a call here or of another process, left to be done."""
        if self._serves:
            self._embedding.wake()

    def remarks(self) -> list[str]:
        """Return what an answer may lack now, in sentences."""
        return [*self._reembedding.remarks(), *self._queue.remarks(), *self._entries.remarks()]

    def close(self) -> None:
        """Do what can be done in a moment, and end the threads."""
        with suppress(StoreError):  # also where it is closed already
            if not (self._serves or self._indexes.is_quick) and self._queue.waiting().pending:
                self._embedding.wait(CLOSE_S)
        self._queue.close()
        self._reembedding.close()
        self._entries.close()
        self._keeping_up.close(None)
        self._embedding.close(CLOSE_S)

    def _take_in(self, seconds: float | None) -> bool:
        self._indexes.take_in_added()
        self._changes.drop_expired()
        return self._entries.catch_up(seconds)

    def _keep_up(self) -> float | None:
        is_more = self._take_in(SLICE_S)
        self._sessions.flush()
        self._embedding.wake()
        return AGAIN_S if is_more or self._sessions.has_unwritten else None

    def _embed(self) -> float | None:
        pause = self._queue.step(waiting=True)
        if pause is None and self._moves:
            pause = self._reembedding.work_unasked()
        return pause
