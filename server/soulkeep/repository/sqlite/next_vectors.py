"""The vectors of the embedder that a store moves to, beside those that serve until all are there."""

import json
from collections.abc import Mapping, Sequence

from soulkeep.models import Memory, Vector
from soulkeep.repository import Memories
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.vectors import DIMENSIONS, VectorTable, require_unit

_PAGE = 1_000


class NextVectors:
    """Rows of next_vectors: one set, of one embedder, which a fact in the store names."""

    def __init__(self, database: Database, memories: Memories, vectors: VectorTable) -> None:
        self._database = database
        self._memories = memories
        self._vectors = vectors

    def count(self, identity: str) -> int:
        """Return how many memories have a vector of this embedder in the set."""
        if self._database.get_fact("next_embedder") != identity:
            return 0
        return int(self._database.query("SELECT count(*) FROM next_vectors")[0][0])

    def list_missing(
        self, identity: str, below: int, limit: int, but: Sequence[int] = ()
    ) -> list[Memory]:
        """Return up to `limit` memories with ids `below` that have no vector of this embedder yet.

        The newest come first: they are asked for most. Those in `but` are left out.
        """
        is_begun = self._database.get_fact("next_embedder") == identity
        missing = "AND m.id NOT IN (SELECT memory_id FROM next_vectors)" if is_begun else ""
        rows = self._database.query(
            "SELECT m.id FROM memories AS m WHERE m.id < ?"
            " AND m.id NOT IN (SELECT value FROM json_each(?))"
            f" {missing} ORDER BY m.id DESC LIMIT ?",
            (below, json.dumps(list(but)), limit),
        )
        return list(self._memories.list_by_ids([row[0] for row in rows]).values())

    def measure_missing(self, identity: str) -> tuple[int, int]:
        """Count the memories that have no vector of this embedder yet, and the bytes of their texts."""
        missing = "TRUE"
        if self._vectors.recorded_embedder() == identity:
            missing = "id IN (SELECT memory_id FROM pending_vectors)"
        elif self._database.get_fact("next_embedder") == identity:
            missing = "id NOT IN (SELECT memory_id FROM next_vectors)"
        count, size = self._database.query(
            "SELECT count(*), ifnull(sum(octet_length(content) + ifnull(octet_length(subject), 0)), 0)"
            f" FROM memories WHERE {missing}"
        )[0]
        return int(count), int(size)

    def add(self, vectors: Mapping[Memory, Vector], identity: str) -> None:
        """Add vectors of memories that are still what was embedded; inside a transaction.

        A set that another embedder began is deleted.

        Raises:
            DimensionMismatchError: An embedding is wider than the store.
            EmbedderError: An embedding is not a unit vector.
        """
        for vector in vectors.values():
            require_unit(vector.embedding)
        if self._database.get_fact("next_embedder") != identity:
            self.discard()
            self._database.put_fact("next_embedder", identity)
        now = self._memories.list_by_ids([memory.id for memory in vectors])
        self._database.execute_many(
            "INSERT OR REPLACE INTO next_vectors (memory_id, content_embedding) VALUES (?, ?)",
            (
                (memory.id, vector.embedding)
                for memory, vector in vectors.items()
                if now.get(memory.id) == memory
            ),
        )

    def take_over(self, identity: str) -> None:
        """Let the set serve in the place of all other vectors; inside a transaction.

        A memory that was kept a moment ago, and is not in it, waits for its vector.
        """
        self._vectors.reset_vectors(identity)
        self._database.execute(
            "DELETE FROM next_vectors WHERE memory_id NOT IN (SELECT id FROM memories)"
        )
        last = 0
        while page := self._database.query(
            "SELECT memory_id, content_embedding FROM next_vectors WHERE memory_id > ?"
            " ORDER BY memory_id LIMIT ?",
            (last, _PAGE),
        ):
            self._database.execute_many(
                "INSERT INTO vec_memories (memory_id, content_embedding) VALUES (?, ?)",
                ((memory_id, embedding.ljust(4 * DIMENSIONS, b"\0")) for memory_id, embedding in page),
            )
            last = page[-1][0]
        self._database.execute(
            "DELETE FROM pending_vectors WHERE memory_id IN (SELECT memory_id FROM next_vectors)"
        )
        self.discard()

    def discard(self) -> None:
        """Delete the set, whosever it is; inside a transaction."""
        self._database.execute("DELETE FROM next_vectors")
        self._database.put_fact("next_embedder", None)
