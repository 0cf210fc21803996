"""Memories with their words and vectors; entries of documents."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soulkeep.days import Days
from soulkeep.models import MEMORY_TYPES, Memory, MemoryFilter, NewMemory, Vector
from soulkeep.repository.postgres.database import (
    NO_LIMIT,
    Database,
    columns_of,
    limited,
    possible,
)
from soulkeep.repository.postgres.schema import WHEN
from soulkeep.repository.postgres.vectors import VectorTable
from soulkeep.repository.postgres.words import FullText, conditions
from soulkeep.repository.values import day_text, forms

COLUMNS = (
    "m.id, m.thread_id, m.content, m.memory_type, m.source, m.created_at, m.subject,"
    f" {WHEN}, m.document, m.expires_at"
)
"""What makes a Memory, of `memories AS m`."""

_STORED = ("thread_id", "content", "memory_type", "source", "created_at", "subject", "occurred_at")
_INSERT = (
    "INSERT INTO memories (owner, id, thread_id, content, memory_type, source, created_at, subject,"
    " occurred_at, document, expires_at) SELECT %(owner)s, * FROM unnest(%(ids)s::bigint[],"
    " %(thread_id)s::text[], %(content)s::text[], %(memory_type)s::text[], %(source)s::text[],"
    " %(created_at)s::text[], %(subject)s::text[], %(occurred_at)s::text[], %(document)s::text[],"
    " %(expires_at)s::text[])"
)
_PAGE = 1_000


class MemoryTable:
    """Rows of memories with their words and their vectors."""

    def __init__(self, database: Database, vectors: VectorTable, days: Days) -> None:
        self._database = database
        self._vectors = vectors
        self._days = days
        self._words = FullText(database, "memories_fts")
        self.count_and_frequencies = self._words.count_and_frequencies

    def add_memories(
        self,
        memories: Sequence[NewMemory],
        vectors: Sequence[Vector | None],
        created_at: str,
        embedder: str | None = None,
    ) -> list[int]:
        """Insert memories and their vectors; call inside a transaction. Return their ids.

        Raises:
            DimensionMismatchError: An embedding is wider than the store.
            EmbedderError: An embedding is not a unit vector.
        """
        if embedder is not None:
            self._vectors.claim_embedder(embedder)
        while added := self.unindexed(_PAGE):  # the largest id that is indexed says how far all are
            self.add_to_indexes(added, [None] * len(added))
        if not memories:
            return []
        ids = self._database.next_ids("memories", len(memories))
        rows = [
            (
                memory_id,
                m.thread_id,
                # A line of a document may have a sign that a text of PostgreSQL cannot.
                m.content.replace("\0", "\ufffd") if m.document else m.content,
                m.memory_type,
                m.source,
                m.created_at or created_at,
                m.subject,
                m.occurred_at,
                m.document,
                m.expires_at,
            )
            for memory_id, m in zip(ids, memories, strict=True)
        ]
        self._database.execute(_INSERT, **columns_of(rows, "ids", *_STORED, "document", "expires_at"))
        self._index(
            (memory_id, m.content, m.subject, m.occurred_at or m.created_at or created_at)
            for memory_id, m in zip(ids, memories, strict=True)
        )
        self._vectors.add_vectors(ids, vectors)
        return ids

    def delete_memories(self, memory_ids: Sequence[int]) -> None:
        """Delete memories with their vectors and words; inside a transaction."""
        self._vectors.delete_vectors(memory_ids)
        self._words.delete(memory_ids)
        self._database.execute(
            "DELETE FROM memories WHERE owner = %(owner)s AND id = ANY(%(ids)s)", ids=list(memory_ids)
        )

    def list_by_ids(
        self, memory_ids: Collection[int], allowed: MemoryFilter | None = None
    ) -> dict[int, Memory]:
        """Return the memories that exist among these ids and pass the filter, by id."""
        where, values = conditions(allowed or MemoryFilter())
        wanted: dict[str, object] = {**values, "ids": possible(memory_ids)}
        found = self._list(f"m.id = ANY(%(ids)s){where}", values=wanted)
        return {memory.id: memory for memory in found}

    def _list(
        self, where: str, values: Mapping[str, object], order: str = "m.id", limit: int = -1
    ) -> list[Memory]:
        """Return the memories of the home that a condition holds for."""
        rows = self._database.query(
            f"SELECT {COLUMNS} FROM memories AS m WHERE m.owner = %(owner)s AND {where}"
            f" ORDER BY {order} LIMIT %(limit)s",
            **values,
            limit=limited(limit),
        )
        return [Memory._make(row) for row in rows]

    def list_of_thread(
        self, thread_id: str, limit: int = -1, memory_type: str | None = None
    ) -> list[Memory]:
        """Return a thread's latest memories, newest first; perhaps of one type only, perhaps all."""
        kind = "" if memory_type is None else " AND m.memory_type = %(memory_type)s"
        return self._list(
            f"m.thread_id = %(thread_id)s{kind}",
            {"thread_id": thread_id, "memory_type": memory_type},
            f"{WHEN} DESC, m.id DESC",
            limit,
        )

    def latest_global(self, limit: int) -> list[Memory]:
        """Return of each type up to `limit` of the latest memories of no thread and no document."""
        rows = self._database.query(
            f"SELECT latest.* FROM unnest(%(types)s::text[]) AS t CROSS JOIN LATERAL"
            f" (SELECT {COLUMNS} FROM memories AS m WHERE m.owner = %(owner)s AND m.memory_type = t"
            f" AND m.thread_id IS NULL AND m.document IS NULL ORDER BY {WHEN} DESC, m.id DESC"
            " LIMIT %(limit)s) AS latest",
            types=list(MEMORY_TYPES),
            limit=limited(limit),
        )
        return [Memory._make(row) for row in rows]

    def move_memories(
        self, memory_ids: Sequence[int], thread_id: str | None, vectors: Sequence[Vector | None]
    ) -> None:
        """Put memories into a thread, or make them global, with other vectors; inside a transaction."""
        self._database.execute(
            "UPDATE memories SET thread_id = %(thread_id)s WHERE owner = %(owner)s"
            " AND id = ANY(%(ids)s)",
            thread_id=thread_id,
            ids=list(memory_ids),
        )
        self._vectors.delete_vectors(memory_ids)
        self._vectors.add_vectors(memory_ids, vectors)

    def list_expired(self, now: str, limit: int) -> list[int]:
        """Return the ids of up to `limit` memories whose time has passed."""
        rows = self._database.query(
            "SELECT id FROM memories WHERE owner = %(owner)s AND expires_at <= %(now)s LIMIT %(limit)s",
            now=now,
            limit=limited(limit),
        )
        return [row[0] for row in rows]

    def list_memories(
        self, allowed: MemoryFilter, limit: int, below: int | None = None, **columns: str
    ) -> list[Memory]:
        """Return up to `limit` memories, latest id first, with ids under `below`.

        `columns` are values that a row must have in the columns of these names.
        """
        where, values = conditions(allowed)
        where += "".join(f" AND m.{name} = ANY(%(is_{name})s)" for name in columns)
        of_columns = {f"is_{name}": forms(value) for name, value in columns.items()}
        below = NO_LIMIT if below is None else below
        wanted = {**values, **of_columns, "below": below}
        return self._list(f"m.document IS NULL AND m.id < %(below)s{where}", wanted, "m.id DESC", limit)

    def count_by_type(self) -> dict[str, int]:
        """Return how many memories of each type there are, entries of documents not counted."""
        rows = self._database.query(
            "SELECT memory_type, count(*) FROM memories WHERE owner = %(owner)s AND document IS NULL"
            " GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        return dict(rows)

    def find_duplicates(self, memories: Sequence[NewMemory]) -> list[int | None]:
        """Return for each the oldest memory that states the same, if there is one.

        Content, type, thread, subject, expiry and the date that was given have to be the same, texts in
        their normal form (NFC). Where a memory comes from makes no other statement of it.
        """
        wanted = [
            (place, form, subject, m.memory_type, m.thread_id, m.occurred_at, m.expires_at)
            for place, m in enumerate(memories)
            for form in forms(m.content)
            for subject in forms(m.subject or "")
        ]
        rows = self._database.query(
            "SELECT w.place, min(m.id) FROM unnest(%(place)s::integer[], %(form)s::text[],"
            " %(subject)s::text[], %(kind)s::text[], %(thread)s::text[], %(date)s::text[],"
            " %(expiry)s::text[]) AS w (place, form, subject, kind, thread, date, expiry)"
            " JOIN memories AS m ON m.owner = %(owner)s AND left(m.content, 64) = left(w.form, 64)"
            " AND length(m.content) = length(w.form) AND m.content = w.form"
            " WHERE m.memory_type = w.kind AND m.thread_id IS NOT DISTINCT FROM w.thread"
            " AND m.occurred_at IS NOT DISTINCT FROM w.date"
            " AND m.expires_at IS NOT DISTINCT FROM w.expiry AND m.document IS NULL"
            " AND coalesce(m.subject, '') = w.subject GROUP BY 1",
            **columns_of(wanted, "place", "form", "subject", "kind", "thread", "date", "expiry"),
        )
        found: dict[int, int] = dict(rows)
        return [found.get(place) for place in range(len(memories))]

    def _index(self, memories: Iterable[Sequence[Any]]) -> None:
        """Add rows of id, content, subject and date to the full text."""
        self._words.add(
            (memory_id, content, subject or "", day_text(self._days.day_of(occurred_at)))
            for memory_id, content, subject, occurred_at in memories
        )

    def matching(
        self, terms: Sequence[str], allowed: MemoryFilter, limit: int, *, in_subject: bool = False
    ) -> list[tuple[int, float]]:
        """Return up to `limit` pairs of id and BM25 score (larger is better), best first.

        A memory matches that has any of the words `terms`, as `split_query` makes them; perhaps only
        one that has it in its subject.
        """
        rows = self._words.matching(terms, limit, filtered=_filtered(allowed), in_subject=in_subject)
        return [(row[0], row[1]) for row in rows]

    def matching_latest(
        self, term: str, beside: Sequence[str], allowed: MemoryFilter, limit: int
    ) -> list[tuple[int, float]]:
        """Return up to `limit` pairs of id and BM25 score of the latest with a frequent word.

        Where there are words `beside` it, a memory has one of those too.
        """
        rows = self._words.matching(
            [term, *beside], limit, filtered=_filtered(allowed), latest=(term, beside)
        )
        return [(row[0], row[1]) for row in rows]

    def neighbours(self, memory_ids: Sequence[int]) -> dict[int, tuple[int | None, int | None]]:
        """Return for each memory in a thread the one before and the one after it there.

        The order is by date, then id.
        """
        rows = self._database.query(
            f"SELECT m.id, {_neighbour('<', 'DESC')}, {_neighbour('>', 'ASC')} FROM memories AS m"
            " WHERE m.owner = %(owner)s AND m.id = ANY(%(ids)s) AND m.thread_id IS NOT NULL",
            ids=possible(memory_ids),
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    def latest_in_threads(self, until: Mapping[str, str]) -> dict[str, Memory]:
        """Return for threads, by id, the last memory that is not after a timestamp, if any."""
        rows = self._database.query(
            "SELECT w.thread, latest.* FROM unnest(%(thread)s::text[], %(until)s::text[])"
            f" AS w (thread, until) CROSS JOIN LATERAL (SELECT {COLUMNS} FROM memories AS m"
            f" WHERE m.owner = %(owner)s AND m.thread_id = w.thread AND {WHEN} <= w.until"
            f" ORDER BY {WHEN} DESC, m.id DESC LIMIT 1) AS latest",
            **columns_of(list(until.items()), "thread", "until"),
        )
        return {thread_id: Memory._make(row) for thread_id, *row in rows}

    def rebuild_full_text(self) -> None:
        """Build the full-text index anew from the memories; inside a transaction."""
        self._words.clear()
        last = 0
        while page := self._list("m.id > %(last)s", {"last": last}, limit=_PAGE):
            self._index((m.id, m.content, m.subject, m.occurred_at) for m in page)
            last = page[-1].id

    def unindexed(self, limit: int) -> list[Memory]:
        """Return up to `limit` memories that another program added after the last indexed one."""
        last = "(SELECT coalesce(max(id), 0) FROM memories_fts WHERE owner = %(owner)s)"
        return self._list(f"m.id > {last}", {}, limit=limit)

    def add_to_indexes(self, memories: Sequence[Memory], vectors: Sequence[Vector | None]) -> None:
        """Index memories that another program added, perhaps with vectors; inside a transaction."""
        self._index((m.id, m.content, m.subject, m.occurred_at) for m in memories)
        known = self._vectors.with_vectors([memory.id for memory in memories])
        new = {
            memory.id: vector
            for memory, vector in zip(memories, vectors, strict=True)
            if memory.id not in known
        }
        self._vectors.add_vectors(list(new), list(new.values()))


def _filtered(allowed: MemoryFilter) -> tuple[str, str, dict[str, str]]:
    """Return a filter as the search of words takes it."""
    where, values = conditions(allowed)
    join = " JOIN memories AS m ON m.owner = f.owner AND m.id = f.id" if where else ""
    return join, where and f" WHERE TRUE{where}", values


def _neighbour(side: str, order: str) -> str:
    """Return SQL for the id of the nearest memory on one side (< or >) of `m` in its thread."""
    when = "coalesce(n.occurred_at, n.created_at)"
    return (
        "(SELECT n.id FROM memories AS n WHERE n.owner = m.owner AND n.thread_id = m.thread_id"
        f" AND ({when}, n.id) {side} ({WHEN}, m.id) ORDER BY {when} {order}, n.id {order} LIMIT 1)"
    )


@dataclass(eq=False)
class DocumentTable:
    """Memories that are derived from lines of a document."""

    _database: Database

    def list_entries(self, name: str) -> list[Memory]:
        """Return the memories that are entries of a document."""
        rows = self._database.query(
            f"SELECT {COLUMNS} FROM memories AS m WHERE m.owner = %(owner)s AND m.document = %(name)s"
            " ORDER BY m.id",
            name=name,
        )
        return [Memory._make(row) for row in rows]

    def states(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Return for each indexed document, or those of these names, the state of its file then.

        Among all are those that memories are said to be entries of.
        """
        if names is None:
            rows = self._database.query(
                "SELECT DISTINCT document, '' FROM memories WHERE owner = %(owner)s"
                " AND document IS NOT NULL"
            ) + self._database.query("SELECT name, state FROM document_states WHERE owner = %(owner)s")
            return dict(rows)  # the last counts
        rows = self._database.query(
            "SELECT name, state FROM document_states WHERE owner = %(owner)s AND name = ANY(%(names)s)",
            names=list(names),
        )
        return dict(rows)

    def ids_of_source(self, document: str, source: str, allowed: MemoryFilter, limit: int) -> list[int]:
        """Return the ids of up to `limit` entries of a document that have a source.

        In any case, and with any signs in the place of its spaces, at its end too.
        """
        where, values = conditions(allowed)
        rows = self._database.query(
            "SELECT m.id FROM memories AS m WHERE m.owner = %(owner)s AND m.document = %(document)s"
            f" AND m.source ILIKE %(source)s ESCAPE ''{where} ORDER BY m.id DESC LIMIT %(limit)s",
            **values,
            document=document,
            source=f"{source.replace(' ', '%')}%",
            limit=limited(limit),
        )
        return [row[0] for row in rows]

    def put_state(self, name: str, state: str | None) -> None:
        """Record the state of a file whose entries are indexed now; None forgets the file."""
        if state is None:
            self._database.execute(
                "DELETE FROM document_states WHERE owner = %(owner)s AND name = %(name)s", name=name
            )
        else:
            self._database.execute(
                "INSERT INTO document_states (owner, name, state)"
                " VALUES (%(owner)s, %(name)s, %(state)s)"
                " ON CONFLICT (owner, name) DO UPDATE SET state = excluded.state",
                name=name,
                state=state,
            )
