"""What happened in a home and how much there is, what may be wrong with it, and mending its store."""

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from soulkeep.days import Days
from soulkeep.documents import DOCUMENTS, Documents
from soulkeep.documents.files import locate
from soulkeep.errors import DocumentError, EmbedderMismatchError, EmbedderUnavailableError, StoreError
from soulkeep.models import BACKUPS_FOLDER, Clock, Fault, LogEntry, ModelUsage, Usage, Waiting, timestamp
from soulkeep.repository import Repository
from soulkeep.service.document_entries import MAX_INDEXED, list_too_long
from soulkeep.service.document_index import DocumentIndex
from soulkeep.service.indexes import Indexes
from soulkeep.service.sessions import RECALLED
from soulkeep.service.validation import MAX_NAME, parse_moment, require_range, require_text
from soulkeep.service.vectors import Progress, Reembedding, VectorQueue, compact

MAX_LOG = 10_000

_KINDS = dict.fromkeys((*DOCUMENTS, "daily", "history"), "documents") | {BACKUPS_FOLDER: "backups"}

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


class Statistics:
    """Reads the log and counts what a store holds."""

    def __init__(
        self,
        repository: Repository,
        reembedding: Reembedding,
        queue: VectorQueue,
        clock: Clock,
        days: Days,
        folder: Path,
    ) -> None:
        """Count what is in a store, and in its home's folder."""
        self._queue = queue
        self._folder = folder
        self._repository = repository
        self._reembedding = reembedding
        self._clock = clock
        self._days = days

    def list_log(
        self,
        limit: int = 50,
        *,
        since: str | None = None,
        agent: str | None = None,
        event: str | None = None,
    ) -> list[LogEntry]:
        """Return up to `limit` (1 to 10,000) audited events and uses of models, newest first.

        `agent` is a client's name; `event` a whole name, or what stands before its dot: `memory`.

        Raises:
            InvalidInputError: The limit is outside, a filter is blank, or `since` is no date.
        """
        require_range("limit", limit, 1, MAX_LOG)
        for argument, value in (("agent", agent), ("event", event)):
            if value is not None:
                require_text(argument, value, MAX_NAME)
        moment = "" if since is None else parse_moment("since", since, self._days)
        return self._repository.ledger.list_log(limit, moment, agent, event)

    def count_rows(self) -> Mapping[str, int]:
        """Count what there is, by its name in `repository.ROWS`."""
        return self._repository.count_rows()

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

    def versions(self) -> Mapping[str, str]:
        """Return the versions of what keeps the store, and the schema's."""
        return self._repository.versions()

    def figures(self, *, tables: bool = True) -> Figures:
        """Count everything; for the sizes of `tables` the whole store is read.

        Raises:
            StoreError: The store cannot be read.
        """
        repository, today = self._repository, self._days.local(self._clock()).date()
        shown = [today - timedelta(days=ago) for ago in reversed(range(DAYS))]
        since, days = timestamp(self._days.first_moment(shown[0])), [day.isoformat() for day in shown]
        memories = repository.memories.count_by_day(since)
        recalls = repository.ledger.count_events(RECALLED, since)
        return Figures(
            memories_by_day={day: memories.get(day, 0) for day in days},
            memories_by_type=repository.memories.count_by_type(),
            recalls_by_day={day: recalls.get(day, 0) for day in days},
            usage=tuple(repository.ledger.usage_by_model()),
            sizes={"store": repository.size(), **_sizes(self._folder)},
            table_sizes=repository.table_sizes() if tables else None,
            new_vectors=self._reembedding.progress(),
            waiting_vectors=self._queue.waiting(),
        )


def _sizes(home: Path) -> dict[str, int]:
    sizes = {"backups": 0, "documents": 0}
    for path in home.rglob("*"):
        kind = _KINDS.get(path.relative_to(home).parts[0])  # the user has files there too
        with suppress(OSError):  # gone meanwhile, or not to be looked at
            if kind and path.is_file():
                sizes[kind] += path.stat().st_size
    return sizes


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


def home_faults(documents: Documents, taken: int) -> list[Fault]:
    """Return what is wrong around a store of so many bytes: documents, permissions, room on its disk."""
    mine = os.access in os.supports_effective_ids
    if not os.access(documents.home, os.R_OK | os.X_OK, effective_ids=mine):
        return []  # why, whoever could not open the store has said
    found = (
        *_document_faults(documents),
        *_permission_faults(documents.home),
        *_disk_faults(documents.home, taken),
    )
    return list(found)


def _document_faults(documents: Documents) -> Iterator[Fault]:
    checks: list[Callable[[], object]] = [
        partial(locate, documents.home, documents.home / "daily"),
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


def _permission_faults(home: Path) -> Iterator[Fault]:
    if sys.platform == "win32":
        return
    for path in (home, *sorted(home.iterdir())):
        # Whoever follows a link out of the home would change what is not soulkeep's.
        if (path == home or not path.is_symlink()) and _readable_by_others(path):
            quoted = str(path).replace("'", "'\\''")
            yield Fault("permissions", f"others may read {path}", f"run `chmod go-rwx '{quoted}'`")


def _readable_by_others(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    except FileNotFoundError:  # a file beside the store that was removed meanwhile
        return False


def _disk_faults(home: Path, taken: int) -> Iterator[Fault]:
    free = shutil.disk_usage(home).free
    if free < max(LEAST_FREE, taken):
        remedy = "free some space; a backup or a purge needs as much as the store takes"
        yield Fault("disk", f"{free / 1e6:,.1f} MB are free where the home is", remedy)


@dataclass(frozen=True, slots=True)
class Repaired:
    """The faults found, how much was rebuilt, and the faults that are left."""

    found: tuple[Fault, ...]
    rebuilt: Mapping[str, int]
    left: tuple[Fault, ...]


class Repairs:
    """Rebuilds the search indexes and the entries of documents."""

    def __init__(
        self,
        repository: Repository,
        indexes: Indexes,
        entries: DocumentIndex,
        check: Callable[[], Sequence[Fault]],
    ) -> None:
        self._repository = repository
        self._indexes = indexes
        self._entries = entries
        self._check = check

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

    def wasted(self) -> int:
        """Return how many bytes `compact` would give back; 0 where that is not worth while."""
        return self._repository.wasted()

    def compact(self) -> int:
        """Give back the space of deleted vectors; return by how many bytes the store shrank.

        Raises:
            StoreError: The store cannot be written; what is done by then stays done.
        """
        return compact(self._repository)

    def _faults(self) -> tuple[Fault, ...]:
        try:
            return tuple(self._check())
        except StoreError as error:
            return (Fault("store", error.problem, error.remedy),)
