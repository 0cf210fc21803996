"""Memories and their two indexes: full text (FTS5) and vectors (sqlite-vec)."""

import json
import math
import struct
from collections.abc import Iterator, Sequence

from soulkeep.errors import (
    DimensionMismatchError,
    EmbedderError,
    EmbedderMismatchError,
    MemoryNotFoundError,
)
from soulkeep.models import Embedding, Memory, MemoryFilter, NewMemory
from soulkeep.repository.connection import Database

DIMENSIONS = 1536
"""The width of vec_memories; a shorter embedding is padded with zeros, which no cosine notices."""

_COLUMNS = "m.id, m.thread_id, m.content, m.memory_type, m.source, m.created_at"
_UNIT_TOLERANCE = 1e-3


class MemoryTable:
    """Rows of memories with their vectors; the full-text index follows by triggers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_memory(self, memory: NewMemory, embedding: Embedding | None, created_at: str) -> int:
        """Insert a memory and its vector; call inside a transaction. Return its id.

        Raises:
            DimensionMismatchError: The embedding is wider than the store.
            EmbedderError: The embedding is not a unit vector.
        """
        self._database.execute(
            "INSERT INTO memories (thread_id, content, memory_type, source, created_at)"
            " VALUES (?, ?, ?, ?, ?)",
            (memory.thread_id, memory.content, memory.memory_type, memory.source, created_at),
        )
        memory_id = self._database.last_row_id
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

    def matching(self, terms: Sequence[str], allowed: MemoryFilter, limit: int) -> list[int]:
        """Return up to `limit` ids of memories with any of the words `terms`, best BM25 first."""
        if not terms:
            return []
        where, values = _conditions(allowed)
        rows = self._database.execute(
            "SELECT f.rowid FROM memories_fts AS f CROSS JOIN memories AS m ON m.id = f.rowid"
            f" WHERE memories_fts MATCH :terms{where} ORDER BY f.rank, f.rowid LIMIT :limit",
            # Quoted, a word is a string to FTS5 and never one of its operators.
            {**values, "terms": " OR ".join(f'"{term}"' for term in terms), "limit": limit},
        )
        return [row[0] for row in rows]

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
        self._database.execute(
            "INSERT OR REPLACE INTO store_facts (name, value) VALUES ('embedder', ?)", (identity,)
        )

    def rebuild_full_text(self) -> None:
        """Build the full-text index anew from the memories; inside a transaction."""
        self._database.execute("INSERT INTO memories_fts (memories_fts) VALUES ('rebuild')")

    def pages(self, size: int) -> Iterator[list[tuple[int, str]]]:
        """Yield all memories as lists of up to `size` pairs of id and content, oldest first."""
        last: int = 0
        while page := self._database.execute(
            "SELECT id, content FROM memories WHERE id > ? ORDER BY id LIMIT ?", (last, size)
        ):
            yield [(row[0], row[1]) for row in page]
            last = page[-1][0]


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
        "since": ("m.created_at >= :since", allowed.since),
        "until": ("m.created_at <= :until", allowed.until),
    }
    chosen = {name: (sql, value) for name, (sql, value) in conditions.items() if value is not None}
    where = "".join(f" AND {sql}" for sql, _ in chosen.values())
    return where, {name: value for name, (_, value) in chosen.items()}
