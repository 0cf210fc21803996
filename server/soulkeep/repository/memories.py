"""Memories and their two indexes: full text (FTS5) and vectors (sqlite-vec)."""

import json
import math
import struct
from collections.abc import Iterator, Sequence

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

    def add_memory(self, memory: NewMemory, embedding: Embedding | None, created_at: str) -> int:
        """Insert a memory and its vector; call inside a transaction. Return its id.

        Raises:
            DimensionMismatchError: The embedding is wider than the store.
            EmbedderError: The embedding is not a unit vector.
        """
        self._database.execute(
            "INSERT INTO memories"
            " (thread_id, content, memory_type, source, created_at, subject, occurred_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                memory.thread_id,
                memory.content,
                memory.memory_type,
                memory.source,
                created_at,
                memory.subject,
                memory.occurred_at,
            ),
        )
        memory_id = self._database.last_row_id
        self._index(memory_id, memory.content, memory.subject, memory.occurred_at or created_at)
        if embedding is not None:
            self.add_vector(memory_id, embedding)
        return memory_id

    def add_vector(self, memory_id: int, embedding: Embedding) -> None:
        """Insert the vector of a memory that has none; inside a transaction.

        Raises:
            DimensionMismatchError: The embedding is wider than the store.
            EmbedderError: The embedding is not a unit vector.
        """
        self._database.execute(
            "INSERT INTO vec_memories (memory_id, content_embedding) VALUES (?, ?)",
            (memory_id, padded(embedding)),
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

    def find_duplicate(self, memory: NewMemory) -> int | None:
        """Return the oldest memory with this very content and type in this very scope, if any."""
        rows = self._database.execute(
            "SELECT min(id) FROM memories"
            " WHERE substr(content, 1, 64) = substr(:content, 1, 64)"
            " AND length(content) = length(:content) AND content = :content"
            " AND memory_type = :type AND thread_id IS :thread",
            {"content": memory.content, "type": memory.memory_type, "thread": memory.thread_id},
        )
        return None if rows[0][0] is None else int(rows[0][0])

    def _index(self, memory_id: int, content: str, subject: str | None, occurred_at: str) -> None:
        day = day_of(occurred_at)
        self._database.execute(
            "INSERT INTO memories_fts (rowid, content, subject, day) VALUES (?, ?, ?, ?)",
            (
                memory_id,
                " ".join(split_words(content)),
                " ".join(split_words(subject or "")),
                " ".join(split_words(day_words(day))) if day else "",
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
        rows = self._database.execute(
            "SELECT f.rowid, -f.rank FROM memories_fts AS f CROSS JOIN memories AS m ON m.id = f.rowid"
            f" WHERE memories_fts MATCH :terms{where} ORDER BY f.rank, f.rowid LIMIT :limit",
            {**values, "terms": " OR ".join(map(_fts_term, terms)), "limit": limit},
        )
        return [(row[0], row[1]) for row in rows]

    def document_frequencies(self, terms: Sequence[str]) -> dict[str, int]:
        """Return in how many memories each of the words `terms` occurs."""
        count = "SELECT count(*) FROM memories_fts WHERE memories_fts MATCH ?"
        return {term: self._database.execute(count, (_fts_term(term),))[0][0] for term in terms}

    def count(self) -> int:
        """Return how many memories there are."""
        return int(self._database.execute("SELECT count(*) FROM memories_fts_docsize")[0][0])

    def neighbours(
        self, memory_ids: Sequence[int], within_s: float
    ) -> dict[int, tuple[int | None, int | None]]:
        """Return for each memory in a thread the one before and the one after it there.

        Only neighbours at most `within_s` seconds away count; the order is by date, then id.
        """
        rows = self._database.execute(
            f"SELECT m.id, {_neighbour('<', 'DESC')}, {_neighbour('>', 'ASC')}"
            " FROM json_each(:ids) AS wanted CROSS JOIN memories AS m ON m.id = wanted.value"
            " WHERE m.thread_id IS NOT NULL",
            {"ids": json.dumps(list(memory_ids)), "within": within_s},
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
            for memory in page:
                self._index(memory.id, memory.content, memory.subject, memory.occurred_at)

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

    def add_to_indexes(self, memory: Memory, embedding: Embedding | None) -> None:
        """Index a memory that another program added, perhaps with a vector; inside a transaction."""
        self._index(memory.id, memory.content, memory.subject, memory.occurred_at)
        known = self._database.execute("SELECT 1 FROM vec_memories_rowids WHERE rowid = ?", (memory.id,))
        if embedding is not None and not known:
            self.add_vector(memory.id, embedding)
            self._database.execute("INSERT INTO memory_changes (memory_id) VALUES (?)", (memory.id,))


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


def _fts_term(term: str) -> str:
    # Quoted, a word is a string to FTS5 and never one of its operators.
    return f'"{term}"*' if is_single_unspaced(term) else f'"{term}"'


def _neighbour(side: str, order: str) -> str:
    """Return SQL for the id of the nearest memory on one side (< or >) of `m` in its thread."""
    when = "ifnull(n.occurred_at, n.created_at)"
    return (
        "(SELECT n.id FROM memories AS n"
        f" WHERE n.thread_id = m.thread_id AND {when} {side}= {_WHEN}"
        f" AND ({when}, n.id) {side} ({_WHEN}, m.id)"
        f" AND abs(julianday({when}) - julianday({_WHEN})) <= :within / 86400.0"
        f" ORDER BY {when} {order}, n.id {order} LIMIT 1)"
    )
