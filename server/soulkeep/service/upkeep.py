"""Looking after a home: what is done beside calls, what happened there, what may be wrong, mending."""

import logging
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from soulkeep.days import Days
from soulkeep.documents import DOCUMENTS, Documents, log_name
from soulkeep.documents.files import locate
from soulkeep.errors import (
    DocumentError,
    EmbedderError,
    EmbedderMismatchError,
    EmbedderUnavailableError,
    StoreBusyError,
    StoreError,
)
from soulkeep.models import (
    Clock,
    Fault,
    LogEntry,
    Memory,
    ModelUsage,
    Usage,
    Waiting,
    timestamp,
)
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.service.backups import Backups
from soulkeep.service.callers import (
    MAX_NAME,
    RECALLED,
    Sessions,
    parse_moment,
    require_range,
    require_text,
)
from soulkeep.service.changes import Changes
from soulkeep.service.document_index import MAX_INDEXED, DocumentIndex, list_too_long
from soulkeep.service.indexes import Indexes
from soulkeep.service.vectors import PAUSE_S, Progress, Reembedding, VectorQueue

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

NOTED_S = 0.1
"""How long bookkeeping waits for calls to go first: so much of it a killed process takes with it."""

FAILED_S = 1.0
"""When is tried again what failed."""

CLOSE_S = 1.0
"""How long a home that is closed waits for what is being embedded, before it gives that up."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Worker:
    """A thread that does one step of its work after another, and rests when there is nothing to do."""

    _step: Callable[[], float | None]
    """What is done when woken; it returns in how many seconds to do it again, None for never."""
    _delay_s: float = 0.0
    """How long it lets others go first, unless one waits for it."""
    done: int = 0
    """How often it was at work."""
    _state: threading.Condition = field(default_factory=threading.Condition)
    _asked: int = 0
    _is_awaited: bool = False
    _is_closed: bool = False
    _thread: threading.Thread | None = None
    _said: str = ""

    def wake(self) -> None:
        """Let the next step begin now, or after the one that is being done."""
        with self._state:
            if self._is_closed:
                return
            self._asked += 1
            if self._asked == self.done + 1:  # else it is awake already
                self._state.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True)
                self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wake it, and wait so long at most for a whole step; return whether one was done."""
        self.wake()
        with self._state:
            asked, self._is_awaited = self._asked, True
            self._state.notify_all()
            return self._state.wait_for(lambda: self.done >= asked or self._is_closed, seconds)

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
                    self._state.wait_for(lambda: self._asked > self.done or self._is_closed, pause)
                    self._state.wait_for(lambda: self._is_awaited or self._is_closed, self._delay_s)
                    if self._is_closed:
                        return
                    asked, self._is_awaited = self._asked, False
                pause = self._try()
                with self._state:
                    self.done = asked
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
        # As long as the work took: half of the time is for calls.
        return None if pause is None else max(pause, PAUSE_S, time.monotonic() - begun)


@dataclass(eq=False)
class Background:
    """The work of a home that no call waits for: in threads beside a server, else at the end of calls.

    What is quick has a thread of its own, so that it does not wait for an embedder.
    """

    _entries: DocumentIndex
    _indexes: Indexes
    _queue: VectorQueue
    _reembedding: Reembedding
    _changes: Changes
    _sessions: Sessions
    _clock: Clock
    _serves: bool = False
    _moves: bool = False

    def __post_init__(self) -> None:
        self._keeping_up = Worker(self._keep_up)
        self._embedding = Worker(self._embed)
        self._noting = Worker(self._note, NOTED_S)

    def serve(self) -> None:
        """Do it all in threads from now on."""
        self._serves = True
        self._sessions.write_later = self._noting.wake
        self._sessions.write_soon = lambda: self._noting.wait(WAIT_S)

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
            self._indexes.take_in_added()
            self._changes.drop_expired()
            self._entries.catch_up()
            if self._indexes.is_quick:
                self._queue.work_off()
            return
        self._wait()
        # The vectors of a few memories are waited for, for as long as they get fewer.
        end, before = time.monotonic() + FEW_WAIT_S, FEW + 1
        while 0 < (left := self._queue.count_waiting(before)) < before:
            is_quick = self._indexes.is_quick and self._indexes.embedder is not None
            if not is_quick or not self._embedding.wait(max(end - time.monotonic(), 0)):
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
        is_first = not self._keeping_up.done
        if is_first or self._indexes.is_behind() or self._entries.look():
            self._keeping_up.wait(FIRST_WAIT_S if is_first else WAIT_S)

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
        self._indexes.closing.set()
        self._noting.close(None)
        self._keeping_up.close(None)
        self._embedding.close(CLOSE_S)

    def _keep_up(self) -> float | None:
        self._indexes.take_in_added()
        self._changes.drop_expired()
        is_more = self._entries.catch_up(SLICE_S)
        self._embedding.wake()
        return AGAIN_S if is_more else None

    def _note(self) -> float | None:
        self._sessions.flush()
        self._embedding.wake()  # other processes may have left something to be done
        return AGAIN_S if self._sessions.unwritten else None

    def _embed(self) -> float | None:
        pause = self._queue.step(waiting=True)
        if pause is None and self._moves:
            pause = self._reembedding.work_unasked()
        return pause


MAX_LOG = 10_000
DAYS = 30
"""How many days the figures by day go back, today included."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts by day (the last 30, oldest first) and type, uses of models, and sizes in bytes.

    `memories_by_day` counts the present memories by when they were kept. `sizes` are of the store, its
    backups and the documents with their history; `table_sizes` is unset where nobody asked for it,
    `new_vectors` where the store does not move to another embedder. `waiting_vectors` says how many
    memories wait for a vector.
    """

    memories_by_day: Mapping[str, int]
    memories_by_type: Mapping[str, int]
    recalls_by_day: Mapping[str, int]
    usage: tuple[ModelUsage, ...]
    sizes: Mapping[str, int]
    table_sizes: Mapping[str, int] | None
    new_vectors: Progress | None
    waiting_vectors: Waiting


@dataclass(eq=False)
class Statistics:
    """Reads the log and counts what a store holds."""

    _repository: Repository
    _reembedding: Reembedding
    _queue: VectorQueue
    _sessions: Sessions
    _clock: Clock
    _days: Days
    _documents: Documents
    _backups: Backups

    def list_log(
        self,
        limit: int = 50,
        *,
        since: str | None = None,
        agent: str | None = None,
        event: str | None = None,
    ) -> list[LogEntry]:
        """Return up to `limit` (1 to 10,000) audited events and uses of models, newest first.

        `agent` is a client's name or an account's; `event` a whole name, or what stands before its dot:
        `memory`.

        Raises:
            InvalidInputError: The limit is outside, a filter is blank, or `since` is no date.
        """
        require_range("limit", limit, 1, MAX_LOG)
        for argument, value in (("agent", agent), ("event", event)):
            if value is not None:
                require_text(argument, value, MAX_NAME)
        moment = "" if since is None else parse_moment("since", since, self._days)
        return self._repository.ledger.list_log(limit, moment, agent, event)

    def usage_totals(self) -> Usage:
        """Return the sums over all uses of models."""
        models = self._repository.ledger.usage_by_model()
        costs = [one.cost for one in models if one.cost is not None]
        return Usage(
            "all",
            sum(one.input_tokens for one in models),
            sum(one.output_tokens for one in models),
            sum(costs, 0.0) if len(costs) == len(models) else None,
        )

    def figures(self, *, tables: bool = True) -> Figures:
        """Count everything; for the sizes of `tables` the whole store is read.

        Raises:
            StoreError: The store cannot be read.
        """
        (self._sessions.write_soon or self._sessions.flush)()
        repository, today = self._repository, self._days.local(self._clock()).date()
        shown = [today - timedelta(days=ago) for ago in reversed(range(DAYS))]
        since, days = timestamp(self._days.first_moment(shown[0])), [day.isoformat() for day in shown]
        memories = repository.count_by_day(since)
        recalls = repository.count_by_day(since, RECALLED)
        names = [*DOCUMENTS, *map(log_name, self._documents.list_daily())]
        documents = self._documents.texts.stamps([*names, *self._documents.list_history()])
        sizes = {"store": repository.size(), "backups": self._backups.size()}
        sizes["documents"] = sum(size for _, size, _ in documents.values())
        return Figures(
            memories_by_day={day: memories.get(day, 0) for day in days},
            memories_by_type=repository.memories.count_by_type(),
            recalls_by_day={day: recalls.get(day, 0) for day in days},
            usage=tuple(repository.ledger.usage_by_model()),
            sizes=sizes,
            table_sizes=repository.table_sizes() if tables else None,
            new_vectors=self._reembedding.progress(),
            waiting_vectors=self._queue.waiting(),
        )


LEAST_FREE = 64 * 1024 * 1024
"""How many bytes a disk should have free: several times what is written beside a usual store."""


def fault_of(error: StoreError | DocumentError) -> Fault:
    """Return what kept a home from being opened as a fault of it."""
    name = "store" if isinstance(error, StoreError) else "document"
    return Fault(name, f"{error.path}: {error.problem}", error.remedy)


def embedder_faults(indexes: Indexes) -> list[Fault]:
    """Return a fault where the embedder cannot be loaded, or none is used with a store of vectors."""
    try:
        indexes.require_embedder()
        indexes.load_embedder()
    except EmbedderMismatchError as error:
        return [Fault("embedder", error.problem, error.remedy)]
    except EmbedderUnavailableError as error:
        return [Fault("embedder", f"{error.name} is not available: {error.reason}", error.remedy)]
    return []


def home_faults(path: Path, documents: Documents, taken: int) -> list[Fault]:
    """Return what is wrong around a store of so many bytes: documents, permissions, room on its disk."""
    if documents.texts.in_store and not path.exists():
        return list(_document_faults(path, documents))
    mine = os.access in os.supports_effective_ids
    if not os.access(path, os.R_OK | os.X_OK, effective_ids=mine):
        return []  # why, whoever could not open the store has said
    found = list(_document_faults(path, documents))
    for place in (path, *sorted(path.iterdir())) if os.name != "nt" else ():
        # Whoever follows a link out of the home would change what is not soulkeep's.
        is_link = place != path and place.is_symlink()
        with suppress(FileNotFoundError):  # a file beside the store that was removed meanwhile
            if not is_link and place.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                quoted = str(place).replace("'", "'\\''")
                remedy = f"run `chmod go-rwx '{quoted}'`"
                found.append(Fault("permissions", f"others may read {place}", remedy))
    free = shutil.disk_usage(path).free
    if free < max(LEAST_FREE, taken):
        remedy = "free some space; a backup or a purge needs as much as the store takes"
        found.append(Fault("disk", f"{free / 1e6:,.1f} MB are free where the home is", remedy))
    return found


def _document_faults(path: Path, documents: Documents) -> Iterator[Fault]:
    checks: list[Callable[[], object]] = [
        *([] if documents.texts.in_store else [partial(locate, path, path / "daily")]),
        *(partial(documents.read, name) for name in DOCUMENTS),
        *(partial(documents.read_daily, day) for day in documents.list_daily()),
    ]
    for check in checks:
        try:
            check()
        except DocumentError as error:
            yield fault_of(error)
    for name, size in list_too_long(documents):
        detail = (
            f"{name} has {size / 1e6:,.1f} MB, of which only the first {MAX_INDEXED / 1e6:g} is searched"
        )
        yield Fault("document", detail, "move what is old into a file of its own, or take it out")


@dataclass(frozen=True, slots=True)
class Repaired:
    """The faults found, how much was rebuilt, and the faults that are left."""

    found: tuple[Fault, ...]
    rebuilt: Mapping[str, int]
    left: tuple[Fault, ...]


@dataclass(eq=False)
class Repairs:
    """Rebuilds the search indexes and the entries of documents."""

    _repository: Repository
    _indexes: Indexes
    _entries: DocumentIndex
    _check: Callable[[], Sequence[Fault]]

    def repair(self) -> Repaired:
        """Rebuild all that is derived, and check the store before and after.

        What the user said is left as it is, so a fault in that remains.

        Raises:
            EmbedderMismatchError: The vectors are another embedder's, which only `reindex` may replace.
            StoreError: The store cannot be read or written; the old indexes stay.
            EmbedderError: A text cannot be embedded; the old indexes stay.
        """
        self._indexes.require_embedder()
        found = self._faults()
        self._indexes.reindex(recreate=True)
        documents, unread = self._entries.reread()
        counts = self._repository.count_rows()
        rebuilt = {name: counts[name] for name in ("vectors", "full-text entries")}
        remedy = "see whether it can be read and is UTF-8, then repair again"
        unreadable = [Fault("document", f"{name} was not read", remedy) for name in unread]
        return Repaired(found, rebuilt | {"documents": documents}, (*self._faults(), *unreadable))

    def compact(self) -> int:
        """Give back the space of deleted vectors; return by how many bytes the store shrank.

        Raises:
            StoreError: The store cannot be written; what is done by then stays done.
        """
        freed = 0
        for step in self._repository.tidy():
            freed += step
            tell("Giving back the space of deleted vectors")
            time.sleep(PAUSE_S)  # for other processes to write
        return freed

    def _faults(self) -> tuple[Fault, ...]:
        try:
            return tuple(self._check())
        except StoreError as error:
            return (Fault("store", error.problem, error.remedy),)
