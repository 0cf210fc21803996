"""What happened in a store, and how much of it: the log, and figures by day, type and model."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from soulkeep.days import Days
from soulkeep.documents import DOCUMENTS
from soulkeep.models import BACKUPS_FOLDER, Clock, LogEntry, ModelUsage, Usage, Waiting, timestamp
from soulkeep.repository import Repository
from soulkeep.service.sessions import RECALLED
from soulkeep.service.validation import MAX_NAME, parse_moment, require_range, require_text
from soulkeep.service.vectors import Progress, Reembedding, VectorQueue

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
        return self._repository.ledger.usage_totals()

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
