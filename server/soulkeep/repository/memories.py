"""Memories and their two indexes: full text (FTS5) and vectors (sqlite-vec)."""

import json
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from soulkeep.dates import day_words
from soulkeep.errors import (
    DimensionMismatchError,
    EmbedderError,
    EmbedderMismatchError,
    MemoryNotFoundError,
)
from soulkeep.models import Embedding, Memory, MemoryFilter, NewMemory, day_of
from soulkeep.repository.connection import Database
from soulkeep.words import is_single_unspaced, split_words

DIMENSIONS = 1536
"""The width of vec_memories; a shorter embedding is padded with zeros, which no cosine notices."""

_WHEN = "ifnull(m.occurred_at, m.created_at)"
_COLUMNS = f"m.id, m.thread_id, m.content, m.memory_type, m.source, m.created_at, m.subject, {_WHEN}"
_UNIT_TOLERANCE = 1e-3
_PAGE = 1_000


class MemoryTable:
    """Rows of memories with their vectors and their entries in the full-text index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_memories(
        self,
        memories: Sequence[NewMemory],
        embeddings: Sequence[Embedding | None],
        created_at: str,
    ) -> list[int]:
        """Insert memories and their vectors; call inside a transaction. Return their ids.

        Raises:
            DimensionMismatchError: An embedding is wider than the store.
            EmbedderError: An embedding is not a unit vector.
        """
        rows = self._database.execute_many(
            "INSERT INTO memories"
            " (thread_id, content, memory_type, source, created_at, subject, occurred_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
            [
                (m.thread_id, m.content, m.memory_type, m.source, created_at, m.subject, m.occurred_at)
                for m in memories
            ],
        )
        ids = [int(row[0]) for row in rows]
        self._index(
            (memory_id, memory.content, memory.subject, memory.occurred_at or created_at)
            for memory_id, memory in zip(ids, memories, strict=True)
        )
        self.add_vectors(ids, embeddings)
        return ids

    def add_vectors(self, memory_ids: Sequence[int], embeddings: Sequence[Embedding | None]) -> None:
        """Insert the vectors of memories that have none, leaving out None; inside a transaction.

        Raises:
            DimensionMismatchError: An embedding is wider than the store.
            EmbedderError: An embedding is not a unit vector.
        """
        self._database.execute_many(
            "INSERT INTO vec_memories (memory_id, content_embedding) VALUES (?, ?)",
            (
                (memory_id, padded(embedding))
                for memory_id, embedding in zip(memory_ids, embeddings, strict=True)
                if embedding is not None
            ),
        )

    def get_memory(self, memory_id: int) -> Memory:
        """Return one memory.

        Raises:
            MemoryNotFoundError: There is none with this id.
        """
        found = self.list_by_ids([memory_id])
        if memory_id not in found:
            raise MemoryNotFoundError(memory_id)
        return found[memory_id]

    def list_by_ids(self, memory_ids: Sequence[int]) -> dict[int, Memory]:
        """Return the memories that exist among these ids, by id."""
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM json_each(?) AS wanted"
            " CROSS JOIN memories AS m ON m.id = wanted.value",
            (json.dumps(list(memory_ids)),),
        )
        return {row[0]: Memory(*row) for row in rows}

    def find_duplicates(self, memories: Sequence[NewMemory]) -> list[int | None]:
        """Return for each the oldest memory of this content, type and scope, if there is one."""
        wanted = [
            [m.content[:64], len(m.content), m.content, m.memory_type, m.thread_id] for m in memories
        ]
        rows = self._database.execute(
            "SELECT (SELECT min(m.id) FROM memories AS m"
            " WHERE substr(m.content, 1, 64) = w.value ->> 0 AND length(m.content) = w.value ->> 1"
            " AND m.content = w.value ->> 2 AND m.memory_type = w.value ->> 3"
            " AND m.thread_id IS w.value ->> 4)"
            " FROM json_each(?) AS w ORDER BY w.key",
            (json.dumps(wanted),),
        )
        return [row[0] for row in rows]

    def _index(self, memories: Iterable[tuple[int, str, str | None, str]]) -> None:
        """Add rows of id, content, subject and date to the full text."""
        self._database.execute_many(
            "INSERT INTO memories_fts (rowid, content, subject, day) VALUES (?, ?, ?, ?)",
            (
                (
                    memory_id,
                    " ".join(split_words(content)),
                    " ".join(split_words(subject)) if subject else "",
                    _day_text(occurred_at[:10]),
                )
                for memory_id, content, subject, occurred_at in memories
            ),
        )

    def matching(
        self, terms: Sequence[str], allowed: MemoryFilter, limit: int
    ) -> list[tuple[int, float]]:
        """Return up to `limit` pairs of id and BM25 score (larger is better), best first.

        A memory matches that has any of the words `terms`, as `split_words` makes them.
        """
        if not terms:
            return []
        where, values = _conditions(allowed)
        filtered = " CROSS JOIN memories AS m ON m.id = f.rowid" if where else ""
        rows = self._database.execute(
            f"SELECT f.rowid, -f.rank FROM memories_fts AS f{filtered}"
            f" WHERE memories_fts MATCH :terms{where} ORDER BY f.rank, f.rowid LIMIT :limit",
            {**values, "terms": " OR ".join(map(fts_term, terms)), "limit": limit},
        )
        return [(row[0], row[1]) for row in rows]

    def neighbours(self, memory_ids: Sequence[int]) -> dict[int, tuple[int | None, int | None]]:
        """Return for each memory in a thread the one before and the one after it there.

        The order is by date, then id.
        """
        rows = self._database.execute(
            f"SELECT m.id, {_neighbour('<', 'max', 'DESC')}, {_neighbour('>', 'min', 'ASC')}"
            " FROM json_each(:ids) AS wanted CROSS JOIN memories AS m ON m.id = wanted.value"
            " WHERE m.thread_id IS NOT NULL",
            {"ids": json.dumps(list(memory_ids))},
        )
        return {row[0]: (row[1], row[2]) for row in rows}

    def latest_in_thread(self, thread_id: str, until: str, within_s: float) -> Memory | None:
        """Return the thread's last memory, at most `within_s` seconds before the timestamp `until`."""
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM memories AS m WHERE m.thread_id = :thread AND {_WHEN} <= :until"
            f" AND julianday(:until) - julianday({_WHEN}) <= :within / 86400.0"
            f" ORDER BY {_WHEN} DESC, m.id DESC LIMIT 1",
            {"thread": thread_id, "until": until, "within": within_s},
        )
        return Memory(*rows[0]) if rows else None

    def nearest(
        self, embedding: Embedding, allowed: MemoryFilter, limit: int
    ) -> list[tuple[int, float]]:
        """Return up to `limit` (at most 4096) pairs of id and cosine distance (0..2), nearest first."""
        where, values = _conditions(allowed)
        # Only IN is applied by vec0 before it takes the nearest; other conditions come too late.
        within = f" AND memory_id IN (SELECT m.id FROM memories AS m WHERE TRUE{where})" if where else ""
        rows = self._database.execute(
            "SELECT memory_id, distance FROM vec_memories"
            f" WHERE content_embedding MATCH :vector AND k = :limit{within}"
            " ORDER BY distance",
            {**values, "vector": padded(embedding), "limit": limit},
        )
        return sorted(((row[0], row[1]) for row in rows), key=lambda pair: (pair[1], pair[0]))

    def distances(self, embedding: Embedding, memory_ids: Sequence[int]) -> dict[int, float]:
        """Return the cosine distance (0..2) of each of these memories that has a vector."""
        rows = self._database.execute(
            "SELECT v.memory_id, vec_distance_cosine(v.content_embedding, :vector)"
            " FROM json_each(:ids) AS wanted CROSS JOIN vec_memories AS v"
            " WHERE v.memory_id = wanted.value",
            {"vector": padded(embedding), "ids": json.dumps(list(memory_ids))},
        )
        return {row[0]: row[1] for row in rows}

    def recorded_embedder(self) -> str | None:
        """Return the identity of the embedder that made the vectors; None before the first memory."""
        rows = self._database.execute("SELECT value FROM store_facts WHERE name = 'embedder'")
        return str(rows[0][0]) if rows else None

    def require_embedder(self, identity: str) -> None:
        """Check that the vectors are this embedder's.

        Raises:
            EmbedderMismatchError: They are another's.
        """
        recorded = self.recorded_embedder()
        if recorded not in (None, identity):
            raise EmbedderMismatchError(self._database.path, str(recorded), identity)

    def claim_embedder(self, identity: str) -> None:
        """Record whose vectors the store holds, on the first memory; inside a transaction.

        Raises:
            EmbedderMismatchError: They are another embedder's already.
        """
        self.require_embedder(identity)
        self._database.execute(
            "INSERT OR IGNORE INTO store_facts (name, value) VALUES ('embedder', ?)", (identity,)
        )

    def reset_vectors(self, identity: str) -> None:
        """Delete every vector and record another embedder; inside a transaction."""
        self._database.execute("DELETE FROM vec_memories")
        self._database.execute("DELETE FROM memory_changes")
        self._database.execute("INSERT INTO memory_changes (memory_id) SELECT id FROM memories")
        self._database.execute(
            "INSERT OR REPLACE INTO store_facts (name, value) VALUES ('embedder', ?)", (identity,)
        )

    def rebuild_full_text(self) -> None:
        """Build the full-text index anew from the memories; inside a transaction."""
        self._database.execute("DELETE FROM memories_fts")
        for page in self.pages(_PAGE):
            self._index((m.id, m.content, m.subject, m.occurred_at) for m in page)

    def pages(self, size: int) -> Iterator[list[Memory]]:
        """Yield all memories in lists of up to `size`, oldest id first."""
        last = 0
        while page := self._database.execute(
            f"SELECT {_COLUMNS} FROM memories AS m WHERE m.id > ? ORDER BY m.id LIMIT ?", (last, size)
        ):
            yield [Memory(*row) for row in page]
            last = page[-1][0]

    def unindexed(self, limit: int) -> list[Memory]:
        """Return up to `limit` memories that another program added after the last indexed one."""
        rows = self._database.execute(
            f"SELECT {_COLUMNS} FROM memories AS m"
            " WHERE m.id > ifnull((SELECT max(id) FROM memories_fts_docsize), 0) ORDER BY m.id LIMIT ?",
            (limit,),
        )
        return [Memory(*row) for row in rows]

    def add_to_indexes(self, memories: Sequence[Memory], embeddings: Sequence[Embedding | None]) -> None:
        """Index memories that another program added, perhaps with vectors; inside a transaction."""
        self._index((m.id, m.content, m.subject, m.occurred_at) for m in memories)
        known = self._database.execute(
            "SELECT rowid FROM vec_memories_rowids WHERE rowid IN (SELECT value FROM json_each(?))",
            (json.dumps([memory.id for memory in memories]),),
        )
        new = {
            memory.id: embedding
            for memory, embedding in zip(memories, embeddings, strict=True)
            if (memory.id,) not in known and embedding is not None
        }
        self.add_vectors(list(new), list(new.values()))
        self._database.execute_many(
            "INSERT INTO memory_changes (memory_id) VALUES (?)", ((memory_id,) for memory_id in new)
        )


def padded(embedding: Embedding) -> bytes:
    """Pad a unit vector with zeros to the width of vec_memories: 1536 float32, little-endian.

    Raises:
        DimensionMismatchError: It is wider than that.
        EmbedderError: Its length is not 1. A zero vector would come first in every search, and one
            with NaN nowhere, without an error from sqlite-vec.
    """
    dimensions = len(embedding) // 4
    if dimensions > DIMENSIONS:
        raise DimensionMismatchError(DIMENSIONS, dimensions)
    values = struct.unpack(f"<{dimensions}f", embedding)
    norm = math.hypot(*values)
    if not abs(norm - 1) < _UNIT_TOLERANCE:
        raise EmbedderError(
            f"An embedding has length {norm}, not 1; report this as a fault of its embedder."
        )
    return embedding + bytes(4 * (DIMENSIONS - dimensions))


def _conditions(allowed: MemoryFilter) -> tuple[str, dict[str, str]]:
    """Return SQL that begins with AND for each set field, over `memories AS m`, and its values."""
    conditions = {
        "thread": ("(m.thread_id = :thread OR m.thread_id IS NULL)", allowed.thread_id),
        "type": ("m.memory_type = :type", allowed.memory_type),
        "since": (f"{_WHEN} >= :since", allowed.since),
        "until": (f"{_WHEN} <= :until", allowed.until),
    }
    chosen = {name: (sql, value) for name, (sql, value) in conditions.items() if value is not None}
    where = "".join(f" AND {sql}" for sql, _ in chosen.values())
    return where, {name: value for name, (_, value) in chosen.items()}


@lru_cache(10_000)
def _day_text(date: str) -> str:
    day = day_of(date)
    return " ".join(split_words(day_words(day))) if day else ""


def fts_term(term: str) -> str:
    """Return what FTS5 has to match for one word of `split_words`."""
    # Quoted, a word is a string to FTS5 and never one of its operators.
    return f'"{term}"*' if is_single_unspaced(term) else f'"{term}"'


def _neighbour(side: str, closest: str, order: str) -> str:
    """Return SQL for the id of the nearest memory on one side (< or >) of `m` in its thread."""
    when = "ifnull(n.occurred_at, n.created_at)"
    of_thread = "FROM memories AS n WHERE n.thread_id = m.thread_id"
    # Two searches of the index; one over (date, id) would walk through all memories of one date.
    return (
        f"ifnull((SELECT {closest}(n.id) {of_thread} AND {when} = {_WHEN} AND n.id {side} m.id),"
        f" (SELECT n.id {of_thread} AND {when} {side} {_WHEN} ORDER BY {when} {order}, n.id {order}"
        " LIMIT 1))"
    )
