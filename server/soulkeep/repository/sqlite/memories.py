"""Memories and their two indexes, full text (FTS5) and vectors (sqlite-vec); entries of documents."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from soulkeep.days import Days
from soulkeep.models import MEMORY_TYPES, Memory, MemoryFilter, NewMemory, Vector
from soulkeep.repository.sqlite.database import Database, Row
from soulkeep.repository.sqlite.indexes import (
    WHEN,
    VectorTable,
    WordFrequencies,
    conditions,
    fts_term,
    fts_text,
)
from soulkeep.repository.values import LATEST, day_text, forms

COLUMNS = (
    "m.id, m.thread_id, m.content, m.memory_type, m.source, m.created_at, m.subject,"
    f" {WHEN}, m.document, m.expires_at"
)
"""What makes a Memory, of `memories AS m`."""

_NEW = "thread_id, content, memory_type, source, created_at, subject, occurred_at, document, expires_at"
# One statement for all: with a trigger, each would first save all pages that it is about to change.
_INSERT = (
    f"INSERT INTO memories ({_NEW}) SELECT {', '.join(f'value ->> {n}' for n in range(9))}"
    " FROM json_each(?) WHERE TRUE ORDER BY key RETURNING id"
)
_PAGE = 1_000


class MemoryTable:
    """Rows of memories with their entries in the full-text index and their vectors."""

    def __init__(self, database: Database, vectors: VectorTable, days: Days) -> None:
        self._database = database
        self._vectors = vectors
        self._days = days
        self.frequencies = WordFrequencies(database)
        self.count_and_frequencies = self.frequencies.count_and_frequencies

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
        values = [
            (
                m.thread_id,
                m.content,
                m.memory_type,
                m.source,
                m.created_at or created_at,
                m.subject,
                m.occurred_at,
                m.document,
                m.expires_at,
            )
            for m in memories
        ]
        rows = self._database.execute(_INSERT, (json.dumps(values, ensure_ascii=False),))
        ids = sorted(row[0] for row in rows)  # they grow in the order of insertion
        self._index(
            (memory_id, m.content, m.subject, m.occurred_at or m.created_at or created_at)
            for memory_id, m in zip(ids, memories, strict=True)
        )
        self._vectors.add_vectors(ids, vectors)
        return ids

    def delete_memories(self, memory_ids: Sequence[int]) -> None:
        """Delete memories with their vectors and index entries; inside a transaction."""
        self._vectors.delete_vectors(memory_ids)
        for table, key in (("memories_fts", "rowid"), ("memories", "id")):
            self._database.execute(
                f"DELETE FROM {table} WHERE {key} IN (SELECT value FROM json_each(?))",
                (json.dumps(list(memory_ids)),),
            )

    def list_by_ids(
        self, memory_ids: Collection[int], allowed: MemoryFilter | None = None
    ) -> dict[int, Memory]:
        """Return the memories that exist among these ids and pass the filter, by id."""
        where, values = conditions(allowed or MemoryFilter())
        rows = self._database.query(
            f"SELECT {COLUMNS} FROM json_each(:ids) AS wanted"
            f" CROSS JOIN memories AS m ON m.id = wanted.value WHERE TRUE{where}",
            {**values, "ids": json.dumps(list(memory_ids))},
        )
        return {row[0]: Memory._make(row) for row in rows}

    def list_of_thread(
        self, thread_id: str, limit: int = -1, memory_type: str | None = None
    ) -> list[Memory]:
        """Return a thread's latest memories, newest first; perhaps of one type only, perhaps all."""
        rows = self._database.query(
            f"SELECT {COLUMNS} FROM memories AS m WHERE m.thread_id = :thread"
            " AND (:type IS NULL OR m.memory_type = :type)"
            f" ORDER BY {WHEN} DESC, m.id DESC LIMIT :limit",
            {"thread": thread_id, "type": memory_type, "limit": limit},
        )
        return [Memory._make(row) for row in rows]

    def latest_global(self, limit: int) -> list[Memory]:
        """Return of each type up to `limit` of the latest memories of no thread and no document."""
        rows = self._database.query(
            f"SELECT {COLUMNS} FROM json_each(?) AS wanted JOIN memories AS m ON m.id IN"
            f" (SELECT m.id FROM memories AS m WHERE m.memory_type = wanted.value"
            f" AND m.thread_id IS NULL AND m.document IS NULL ORDER BY {WHEN} DESC, m.id DESC LIMIT ?)",
            (json.dumps(MEMORY_TYPES), limit),
        )
        return [Memory._make(row) for row in rows]

    def move_memories(
        self, memory_ids: Sequence[int], thread_id: str | None, vectors: Sequence[Vector | None]
    ) -> None:
        """Put memories into a thread, or make them global, with other vectors; inside a transaction."""
        self._database.execute_many(
            "UPDATE memories SET thread_id = ? WHERE id = ?",
            ((thread_id, memory_id) for memory_id in memory_ids),
        )
        self._vectors.delete_vectors(memory_ids)
        self._vectors.add_vectors(memory_ids, vectors)

    def list_expired(self, now: str, limit: int) -> list[int]:
        """Return the ids of up to `limit` memories whose time has passed."""
        rows = self._database.query(
            "SELECT id FROM memories WHERE expires_at <= ? LIMIT ?", (now, limit)
        )
        return [row[0] for row in rows]

    def list_memories(
        self, allowed: MemoryFilter, limit: int, below: int | None = None, **columns: str
    ) -> list[Memory]:
        """Return up to `limit` memories, latest id first, with ids under `below`.

        `columns` are values that a row must have in the columns of these names.
        """
        where, values = conditions(allowed)
        for name, value in columns.items():
            where += f" AND m.{name} IN (SELECT value FROM json_each(:is_{name}))"
            values[f"is_{name}"] = json.dumps(forms(value))
        rows = self._database.query(
            f"SELECT {COLUMNS} FROM memories AS m WHERE m.document IS NULL AND m.id < :below{where}"
            " ORDER BY m.id DESC LIMIT :limit",
            {**values, "below": 2**62 if below is None else below, "limit": limit},
        )
        return [Memory._make(row) for row in rows]

    def count_by_type(self) -> dict[str, int]:
        """Return how many memories of each type there are, entries of documents not counted."""
        rows = self._database.query(
            "SELECT memory_type, count(*) FROM memories WHERE document IS NULL"
            " GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        return dict(rows)

    def find_duplicates(self, memories: Sequence[NewMemory]) -> list[int | None]:
        """Return for each the oldest memory that states the same, if there is one.

        Content, type, thread, subject, expiry and the date that was given have to be the same, texts in
        their normal form (NFC). Where a memory comes from makes no other statement of it.
        """
        wanted = [
            [
                place,
                form[:64],
                len(form),
                form,
                m.memory_type,
                m.thread_id,
                m.occurred_at,
                m.expires_at,
                forms(m.subject or ""),
            ]
            for place, m in enumerate(memories)
            for form in forms(m.content)
        ]
        rows = self._database.query(
            "SELECT w.value ->> 0, min(m.id) FROM json_each(?) AS w CROSS JOIN memories AS m"
            " ON substr(m.content, 1, 64) = w.value ->> 1 AND length(m.content) = w.value ->> 2"
            " WHERE m.content = w.value ->> 3 AND m.memory_type = w.value ->> 4"
            " AND m.thread_id IS w.value ->> 5 AND m.occurred_at IS w.value ->> 6"
            " AND m.expires_at IS w.value ->> 7 AND m.document IS NULL"
            " AND ifnull(m.subject, '') IN (SELECT value FROM json_each(w.value -> 8)) GROUP BY 1",
            (json.dumps(wanted),),
        )
        found: dict[int, int] = dict(rows)
        return [found.get(place) for place in range(len(memories))]

    def _index(self, memories: Iterable[Row]) -> None:
        """Add rows of id, content, subject and date to the full text."""
        days = cache(lambda moment: day_text(self._days.day_of(moment)))  # a list shares one, mostly
        self._database.execute_many(
            "INSERT INTO memories_fts (rowid, content, subject, day) VALUES (?, ?, ?, ?)",
            (
                (memory_id, fts_text(content), fts_text(subject) if subject else "", days(occurred_at))
                for memory_id, content, subject, occurred_at in memories
            ),
        )

    def matching(
        self, terms: Sequence[str], allowed: MemoryFilter, limit: int, *, in_subject: bool = False
    ) -> list[tuple[int, float]]:
        """Return up to `limit` pairs of id and BM25 score (larger is better), best first.

        A memory matches that has any of the words `terms`, as `split_query` makes them; perhaps only
        one that has it in its subject.
        """
        if not terms:
            return []
        where, values = conditions(allowed)
        filtered = " CROSS JOIN memories AS m ON m.id = f.rowid" if where else ""
        within = "subject : " if in_subject else ""
        rows = self._database.query(
            f"SELECT f.rowid, -f.rank FROM memories_fts AS f{filtered}"
            f" WHERE memories_fts MATCH :terms{where} ORDER BY f.rank, f.rowid LIMIT :limit",
            {**values, "terms": f"{within}({' OR '.join(map(fts_term, terms))})", "limit": limit},
        )
        return [(row[0], row[1]) for row in rows]

    def matching_latest(
        self, term: str, beside: Sequence[str], allowed: MemoryFilter, limit: int
    ) -> list[tuple[int, float]]:
        """Return up to `limit` pairs of id and BM25 score of the latest with a frequent word.

        Where there are words `beside` it, a memory has one of those too.
        """
        where, values = conditions(allowed)
        filtered = " CROSS JOIN memories AS m ON m.id = f.rowid" if where else ""
        also = f" AND ({' OR '.join(map(fts_term, beside))})" if beside else ""
        rows = self._database.query(
            "SELECT id, -rank FROM (SELECT f.rowid AS id, f.rank AS rank"
            f" FROM memories_fts AS f{filtered} WHERE memories_fts MATCH :terms{where}"
            " ORDER BY f.rowid DESC LIMIT :latest) ORDER BY rank, id LIMIT :limit",
            {**values, "terms": fts_term(term) + also, "latest": LATEST, "limit": limit},
        )
        return [(row[0], row[1]) for row in rows]

    def neighbours(self, memory_ids: Sequence[int]) -> dict[int, tuple[int | None, int | None]]:
        """Return for each memory in a thread the one before and the one after it there.

        The order is by date, then id.
        """
        rows = self._database.query(
            f"SELECT m.id, {_neighbour('<', 'max', 'DESC')}, {_neighbour('>', 'min', 'ASC')}"
            " FROM json_each(:ids) AS wanted CROSS JOIN memories AS m ON m.id = wanted.value"
            " WHERE m.thread_id IS NOT NULL",
            {"ids": json.dumps(list(memory_ids))},
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    def latest_in_threads(self, until: Mapping[str, str]) -> dict[str, Memory]:
        """Return for threads, by id, the last memory that is not after a timestamp, if any."""
        rows = self._database.query(
            "SELECT w.key, (SELECT m.id FROM memories AS m WHERE m.thread_id = w.key"
            f" AND {WHEN} <= w.value ORDER BY {WHEN} DESC, m.id DESC LIMIT 1) FROM json_each(?) AS w",
            (json.dumps(dict(until)),),
        )
        # Another process may take one away in between.
        memories = self.list_by_ids([row[1] for row in rows if row[1] is not None])
        return {thread_id: memories[memory_id] for thread_id, memory_id in rows if memory_id in memories}

    def rebuild_full_text(self) -> None:
        """Build the full-text index anew from the memories; inside a transaction."""
        self._database.execute("DELETE FROM memories_fts")
        last = 0
        while page := self._database.query(
            f"SELECT m.id, m.content, m.subject, {WHEN} FROM memories AS m WHERE m.id > ?"
            " ORDER BY m.id LIMIT ?",
            (last, _PAGE),
        ):
            self._index(page)
            last = page[-1][0]

    def unindexed(self, limit: int) -> list[Memory]:
        """Return up to `limit` memories that another program added after the last indexed one."""
        rows = self._database.query(
            f"SELECT {COLUMNS} FROM memories AS m"
            " WHERE m.id > ifnull((SELECT max(id) FROM memories_fts_docsize), 0) ORDER BY m.id LIMIT ?",
            (limit,),
        )
        return [Memory._make(row) for row in rows]

    def add_to_indexes(self, memories: Sequence[Memory], vectors: Sequence[Vector | None]) -> None:
        """Index memories that another program added, perhaps with vectors; inside a transaction."""
        self._index((m.id, m.content, m.subject, m.occurred_at) for m in memories)
        known = self._database.query(
            "SELECT rowid FROM vec_memories_rowids WHERE rowid IN (SELECT value FROM json_each(?))",
            (json.dumps([memory.id for memory in memories]),),
        )
        new = {
            memory.id: vector
            for memory, vector in zip(memories, vectors, strict=True)
            if (memory.id,) not in known
        }
        self._vectors.add_vectors(list(new), list(new.values()))
        self._vectors.note_changes(list(new))


def _neighbour(side: str, closest: str, order: str) -> str:
    """Return SQL for the id of the nearest memory on one side (< or >) of `m` in its thread."""
    when = "ifnull(n.occurred_at, n.created_at)"
    of_thread = "FROM memories AS n WHERE n.thread_id = m.thread_id"
    # Two searches of the index; one over (date, id) would walk through all memories of one date.
    return (
        f"ifnull((SELECT {closest}(n.id) {of_thread} AND {when} = {WHEN} AND n.id {side} m.id),"
        f" (SELECT n.id {of_thread} AND {when} {side} {WHEN} ORDER BY {when} {order}, n.id {order}"
        " LIMIT 1))"
    )


@dataclass(eq=False)
class DocumentTable:
    """Memories that are derived from lines of a document."""

    _database: Database

    def list_entries(self, name: str) -> list[Memory]:
        """Return the memories that are entries of a document."""
        rows = self._database.query(
            f"SELECT {COLUMNS} FROM memories AS m WHERE m.document = ? ORDER BY m.id", (name,)
        )
        return [Memory._make(row) for row in rows]

    def states(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Return for each indexed document, or those of these names, the state of its file then.

        Among all are those that memories are said to be entries of.
        """
        if names is None:
            entries = "SELECT DISTINCT document, '' FROM memories WHERE document IS NOT NULL"
            states = self._database.query(f"{entries} UNION ALL SELECT name, state FROM document_states")
            return dict(states)  # the last counts
        rows = self._database.query(
            "SELECT name, state FROM json_each(?) AS wanted"
            " CROSS JOIN document_states ON name = wanted.value",
            (json.dumps(list(names)),),
        )
        return dict(rows)

    def ids_of_source(self, document: str, source: str, allowed: MemoryFilter, limit: int) -> list[int]:
        """Return the ids of up to `limit` entries of a document that have a source.

        In any case, and with any signs in the place of its spaces, at its end too.
        """
        where, values = conditions(allowed)
        rows = self._database.query(
            "SELECT m.id FROM memories AS m WHERE m.document = :document AND m.source LIKE :source"
            f"{where} ORDER BY m.id DESC LIMIT :limit",
            {**values, "document": document, "source": f"{source.replace(' ', '%')}%", "limit": limit},
        )
        return [row[0] for row in rows]

    def put_state(self, name: str, state: str | None) -> None:
        """Record the state of a file whose entries are indexed now; None forgets the file."""
        if state is None:
            self._database.execute("DELETE FROM document_states WHERE name = ?", (name,))
        else:
            self._database.execute(
                "INSERT OR REPLACE INTO document_states (name, state) VALUES (?, ?)", (name, state)
            )
