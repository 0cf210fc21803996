"""The vectors of memories in sqlite-vec's table, and whose vectors they are."""

import itertools
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence

from soulkeep.errors import DimensionMismatchError, EmbedderError
from soulkeep.models import Embedding, MemoryFilter, Vector, Waiting
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.full_text import conditions
from soulkeep.repository.sqlite.schema import VEC_MEMORIES

DIMENSIONS = 1536
"""The width of vec_memories; a shorter embedding is padded with zeros, which no cosine notices."""

KEPT_CHANGES = 2_000
"""How many deleted or replaced vectors are named to other processes; after more of them loading all
vectors anew is the quicker way."""

_UNIT_TOLERANCE = 1e-3


class VectorTable:
    """Rows of vec_memories, and the embedder that the store records."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_vectors(self, memory_ids: Sequence[int], vectors: Sequence[Vector | None]) -> None:
        """Insert the vectors of memories that have none; inside a transaction.

        The first ones say whose vectors the store holds. Those without one of that embedder, where
        others have theirs, wait for it.

        Raises:
            DimensionMismatchError: An embedding is wider than the store.
            EmbedderError: An embedding is not a unit vector.
        """
        for made_by in dict.fromkeys(vector.made_by for vector in vectors if vector is not None):
            self.claim_embedder(made_by)
        recorded = self.recorded_embedder()
        fitting = {
            memory_id: vector.embedding
            for memory_id, vector in zip(memory_ids, vectors, strict=True)
            if vector is not None and vector.made_by == recorded
        }
        self._database.execute_many(
            "INSERT INTO vec_memories (memory_id, content_embedding) VALUES (?, ?)",
            ((memory_id, padded(embedding)) for memory_id, embedding in fitting.items()),
        )
        missing = [memory_id for memory_id in memory_ids if memory_id not in fitting]
        if missing and self.has_vectors:
            self._database.execute_many(
                "INSERT OR IGNORE INTO pending_vectors (memory_id) VALUES (?)", ((i,) for i in missing)
            )

    def list_pending(self, limit: int, now: str | None = None) -> list[int]:
        """Return the ids of up to `limit` memories that wait for their vectors, the newest first.

        With `now`, only those whose turn it is.
        """
        rows = self._database.query(
            "SELECT memory_id FROM pending_vectors WHERE :now IS NULL OR next_try <= :now"
            " ORDER BY memory_id DESC LIMIT :limit",
            {"now": now, "limit": limit},
        )
        return [row[0] for row in rows]

    def waiting(self) -> Waiting:
        """Count the memories that wait for their vectors, and those whose text was refused."""
        every, put_off, failed, next_try = self._database.query(
            "SELECT (SELECT count(*) FROM pending_vectors), count(*),"
            " count(*) FILTER (WHERE state = 'failed'), min(next_try)"
            " FROM pending_vectors WHERE reason <> ''"
        )[0]
        if not put_off:
            return Waiting(every)
        # Of those that wait first: why a text was refused matters less than why none is embedded.
        reason = self._database.query(
            "SELECT reason FROM pending_vectors WHERE reason <> ''"
            " ORDER BY state DESC, next_try DESC LIMIT 1"
        )[0][0]
        return Waiting(every - failed, failed, reason, next_try if put_off == every else "")

    def add_pending(self, vectors: Mapping[int, Vector]) -> None:
        """Give memories that still wait their vectors of the store's embedder; inside a transaction.

        Raises:
            DimensionMismatchError: An embedding is wider than the store.
            EmbedderError: An embedding is not a unit vector.
        """
        ids = list(self.attempts(list(vectors)))
        pending = "DELETE FROM pending_vectors WHERE memory_id IN (SELECT value FROM json_each(?))"
        self._database.execute(pending, (json.dumps(ids),))
        self.add_vectors(ids, [vectors[memory_id] for memory_id in ids])
        self.note_changes(ids)

    def attempts(self, memory_ids: Sequence[int]) -> dict[int, int]:
        """Return which of these memories wait for their vectors, and how often that failed."""
        rows = self._database.query(
            "SELECT memory_id, attempts FROM pending_vectors"
            " WHERE memory_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(memory_ids)),),
        )
        return dict(rows)

    def put_off(self, failed: Mapping[int, str], state: str, next_try: str) -> None:
        """Note why memories have no vectors yet, and when that is tried again; inside a transaction."""
        self._database.execute_many(
            "UPDATE pending_vectors SET state = ?, reason = ?, attempts = attempts + 1, next_try = ?"
            " WHERE memory_id = ?",
            ((state, reason, next_try, memory_id) for memory_id, reason in failed.items()),
        )

    def retry_pending(self) -> None:
        """Let all that wait have their turn at once, those that failed too; inside a transaction."""
        self._database.execute(
            "UPDATE pending_vectors SET state = 'pending', reason = '', attempts = 0, next_try = ''"
        )

    def nearest(
        self, embedding: Embedding, allowed: MemoryFilter, limit: int
    ) -> list[tuple[int, float]]:
        """Return up to `limit` (at most 4096) pairs of id and cosine distance (0..2), nearest first."""
        where, values = conditions(allowed)
        # Only IN is applied by vec0 before it takes the nearest; other conditions come too late.
        within = f" AND memory_id IN (SELECT m.id FROM memories AS m WHERE TRUE{where})" if where else ""
        rows = self._database.query(
            "SELECT memory_id, distance FROM vec_memories"
            f" WHERE content_embedding MATCH :vector AND k = :limit{within}"
            " ORDER BY distance",
            {**values, "vector": padded(embedding), "limit": limit},
        )
        return sorted(((row[0], row[1]) for row in rows), key=lambda pair: (pair[1], pair[0]))

    def compare(
        self, embedding: Embedding, parts: Sequence[int], memory_ids: Sequence[int]
    ) -> dict[int, tuple[float, ...]]:
        """Return the cosine (-1..1) of each part, for each of these memories that has a vector."""
        import numpy as np

        rows = self._database.query(
            "SELECT v.memory_id, v.content_embedding FROM json_each(?) AS wanted"
            " CROSS JOIN vec_memories AS v WHERE v.memory_id = wanted.value",
            (json.dumps(sorted(memory_ids)),),
        )
        ends = list(itertools.accumulate(parts))
        own = np.split(np.frombuffer(embedding, "<f4"), ends[:-1])

        def cosines(vector: bytes) -> Iterator[float]:
            others = np.split(np.frombuffer(vector, "<f4", ends[-1]), ends[:-1])
            for one, other in zip(own, others, strict=True):
                length = float(np.linalg.norm(one) * np.linalg.norm(other))
                yield float(one @ other) / length if length else 0.0

        return {memory_id: tuple(cosines(vector)) for memory_id, vector in rows}

    def delete_vectors(self, memory_ids: Sequence[int]) -> None:
        """Delete the vectors of these memories, and tell other processes; inside a transaction."""
        for table in ("vec_memories", "pending_vectors", "next_vectors"):
            self._database.execute_many(
                f"DELETE FROM {table} WHERE memory_id = ?", ((memory_id,) for memory_id in memory_ids)
            )
        self.note_changes(memory_ids)

    def replace_vectors(self, memory_ids: Sequence[int], vectors: Sequence[Vector | None]) -> None:
        """Put other vectors in the place of those of these memories; inside a transaction."""
        self.delete_vectors(memory_ids)
        self.add_vectors(memory_ids, vectors)

    def note_changes(self, memory_ids: Sequence[int]) -> None:
        """Tell processes that hold copies of vectors which ones are to be read again.

        Only the latest are kept: a process that missed more reads all vectors anew.
        """
        self._database.execute(
            "INSERT INTO memory_changes (memory_id) SELECT value FROM json_each(?)",
            (json.dumps(list(memory_ids)),),
        )
        self._database.execute(
            "DELETE FROM memory_changes WHERE seq <= (SELECT max(seq) FROM memory_changes) - ?",
            (KEPT_CHANGES,),
        )

    def recorded_embedder(self) -> str | None:
        """Return the identity of the embedder that made the vectors; None before the first memory."""
        return self._database.get_fact("embedder")

    @property
    def has_vectors(self) -> bool:
        """Whether memories have vectors here: the store was not begun without an embedder."""
        parts = (self.recorded_embedder() or "").rsplit(":", 2)
        return len(parts) == 3 and parts[1] != "0"

    def claim_embedder(self, identity: str) -> None:
        """Record whose vectors the store holds, on the first memory; inside a transaction."""
        self._database.execute(
            "INSERT OR IGNORE INTO store_facts (name, value) VALUES ('embedder', ?)", (identity,)
        )

    def reset_vectors(self, identity: str) -> None:
        """Delete every vector and record another embedder, for which all wait; inside a transaction."""
        # To make the table anew is quicker than to delete each vector, and leaves no gaps.
        self._database.execute("DROP TABLE vec_memories")
        self._database.execute(VEC_MEMORIES)
        self._database.execute("DELETE FROM pending_vectors")
        self._database.execute("DELETE FROM memory_changes")
        self.note_changes([row[0] for row in self._database.query("SELECT id FROM memories")])
        self._database.put_fact("embedder", identity)
        if self.has_vectors:
            self._database.execute("INSERT INTO pending_vectors (memory_id) SELECT id FROM memories")


def padded(embedding: Embedding) -> bytes:
    """Check a vector, and pad it with zeros to the width of vec_memories: 1536 float32, little-endian.

    Raises:
        DimensionMismatchError: It is wider than that.
        EmbedderError: It is not a unit vector.
    """
    require_unit(embedding)
    return embedding.ljust(4 * DIMENSIONS, b"\0")


def require_unit(embedding: Embedding) -> None:
    """Check that vec_memories can hold a vector.

    Raises:
        DimensionMismatchError: It is too wide.
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
