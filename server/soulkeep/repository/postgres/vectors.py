"""Vectors in pgvector: those that serve, who waits for one, and those to come."""

import itertools
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from sys import byteorder

from soulkeep.models import Embedding, Memory, Vector, Waiting
from soulkeep.repository import Memories
from soulkeep.repository.postgres.connections import PaddedVector
from soulkeep.repository.postgres.database import Database, columns_of, limited, possible
from soulkeep.repository.values import dimensions_of, padded

_INSERT = (
    "INSERT INTO vec_memories (owner, memory_id, content_embedding, candidate)"
    " SELECT %(owner)s, v.id, v.whole, subvector(v.whole, 1, %(dimensions)s)::halfvec"
    " FROM unnest(%(ids)s::bigint[], %(vectors)b::vector[]) AS v (id, whole)"
)
_DELETE = " WHERE owner = %(owner)s AND memory_id = ANY(%(ids)s)"


def sent(values: bytes) -> PaddedVector:
    """Return float32 values, little-endian, as pgvector takes them."""
    floats = array("f", values)
    if byteorder == "little":
        floats.byteswap()
    return PaddedVector(len(floats).to_bytes(2, "big") + b"\0\0" + floats.tobytes())


@dataclass(eq=False)
class VectorTable:
    """Rows of vec_memories and pending_vectors, and the embedder that the store records."""

    _database: Database

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
        by_width: dict[int, list[int]] = {}
        for memory_id, embedding in fitting.items():
            by_width.setdefault(len(embedding) // 4, []).append(memory_id)
        for dimensions, ids in by_width.items():
            whole = [sent(padded(fitting[memory_id])) for memory_id in ids]
            self._database.execute(_INSERT, ids=ids, vectors=whole, dimensions=dimensions)
        if fitting:
            self._database.add_to("vectors", len(fitting))
        missing = [memory_id for memory_id in memory_ids if memory_id not in fitting]
        if missing and self.has_vectors:
            self._database.execute(
                "INSERT INTO pending_vectors (owner, memory_id)"
                " SELECT %(owner)s, unnest(%(ids)s::bigint[])"
                " ON CONFLICT DO NOTHING",
                ids=missing,
            )

    def with_vectors(self, memory_ids: Sequence[int]) -> set[int]:
        """Return those of these memories that have a vector."""
        rows = self._database.query(
            f"SELECT memory_id FROM vec_memories{_DELETE}", ids=possible(memory_ids)
        )
        return {row[0] for row in rows}

    def list_pending(
        self, limit: int = -1, now: str | None = None, among: Collection[int] | None = None
    ) -> dict[int, int]:
        """Return which memories wait for their vectors, newest first, and how often each was put off.

        With `now`, only those whose turn it is; with `among`, only those of these ids.
        """
        turn = "" if now is None else " AND next_try <= %(now)s"
        within = "" if among is None else " AND memory_id = ANY(%(among)s)"
        rows = self._database.query(
            "SELECT memory_id, attempts FROM pending_vectors WHERE owner = %(owner)s"
            f"{turn}{within} ORDER BY memory_id DESC LIMIT %(limit)s",
            now=now,
            limit=limited(limit),
            among=possible(among or ()),
        )
        return dict(rows)

    def waiting(self) -> Waiting:
        """Count the memories that wait for their vectors, and those whose text was refused."""
        ((every, put_off, failed, next_try, reasons),) = self._database.query(
            "SELECT count(*), count(*) FILTER (WHERE reason <> ''),"
            " count(*) FILTER (WHERE state = 'failed' AND reason <> ''),"
            " min(next_try) FILTER (WHERE reason <> ''),"
            # Of those that wait first: why a text was refused matters less than why none is embedded.
            " (array_agg(reason ORDER BY state DESC, next_try DESC) FILTER (WHERE reason <> ''))[1]"
            " FROM pending_vectors WHERE owner = %(owner)s"
        )
        if not put_off:
            return Waiting(every)
        return Waiting(every - failed, failed, reasons, next_try if put_off == every else "")

    def add_pending(self, vectors: Mapping[int, Vector]) -> None:
        """Give memories that still wait their vectors of the store's embedder; inside a transaction.

        Raises:
            DimensionMismatchError: An embedding is wider than the store.
            EmbedderError: An embedding is not a unit vector.
        """
        ids = list(self.list_pending(among=vectors))
        self._database.execute(f"DELETE FROM pending_vectors{_DELETE}", ids=ids)
        self.add_vectors(ids, [vectors[memory_id] for memory_id in ids])

    def put_off(self, failed: Mapping[int, str], state: str, next_try: str) -> None:
        """Note why memories have no vectors yet, and when that is tried again; inside a transaction."""
        self._database.execute(
            "UPDATE pending_vectors SET state = %(state)s, reason = f.reason, attempts = attempts + 1,"
            " next_try = %(next_try)s FROM unnest(%(ids)s::bigint[], %(reasons)s::text[])"
            " AS f (id, reason) WHERE owner = %(owner)s AND memory_id = f.id",
            **columns_of(list(failed.items()), "ids", "reasons"),
            state=state,
            next_try=next_try,
        )

    def retry_pending(self) -> None:
        """Let all that wait have their turn at once, those that failed too; inside a transaction."""
        self._database.execute(
            "UPDATE pending_vectors SET state = 'pending', reason = '', attempts = 0, next_try = ''"
            " WHERE owner = %(owner)s"
        )

    def compare(
        self, embedding: Embedding, parts: Sequence[int], memory_ids: Sequence[int]
    ) -> dict[int, tuple[float, ...]]:
        """Return the cosine (-1..1) of each part, for each of these memories that has a vector."""
        ends = list(itertools.accumulate(parts))
        cosines = ", ".join(
            f"1 - (subvector(content_embedding, {end - part + 1}, {part}) <=> %(part_{end})s::vector)"
            for end, part in zip(ends, parts, strict=True)
        )
        of_parts = {
            f"part_{end}": sent(embedding[4 * (end - part) : 4 * end])
            for end, part in zip(ends, parts, strict=True)
        }
        rows = self._database.query(
            f"SELECT memory_id, {cosines} FROM vec_memories{_DELETE}",
            ids=possible(memory_ids),
            **of_parts,
        )
        # A part without a direction is like nothing.
        return {row[0]: tuple(0.0 if c != c else c for c in row[1:]) for row in rows}

    def delete_vectors(self, memory_ids: Sequence[int]) -> None:
        """Delete the vectors of these memories, and those to come; inside a transaction."""
        ids = list(memory_ids)
        gone = self._database.execute(f"DELETE FROM vec_memories{_DELETE} RETURNING 1", ids=ids)
        if gone:
            self._database.add_to("vectors", -len(gone))
        for table in ("pending_vectors", "next_vectors"):
            self._database.execute(f"DELETE FROM {table}{_DELETE}", ids=ids)

    def recorded_embedder(self) -> str | None:
        """Return the identity of the embedder that made the vectors; None before the first memory."""
        return self._database.get_fact("embedder")

    @property
    def has_vectors(self) -> bool:
        """Whether memories have vectors here: the store was not begun without an embedder."""
        return dimensions_of(self.recorded_embedder()) > 0

    def claim_embedder(self, identity: str) -> None:
        """Record whose vectors the store holds, on the first memory; inside a transaction."""
        self._database.execute(
            "INSERT INTO store_facts (owner, name, value) VALUES (%(owner)s, 'embedder', %(identity)s)"
            " ON CONFLICT DO NOTHING",
            identity=identity,
        )


@dataclass(eq=False)
class NextVectors:
    """Rows of next_vectors: one set, of one embedder, which a fact in the store names."""

    _database: Database
    _memories: Memories
    _vectors: VectorTable

    def count(self, identity: str) -> tuple[int, int]:
        """Return how many memories have a vector of this embedder in the set, and how many there are."""
        ((made, every),) = self._database.query(
            "SELECT (SELECT count(*) FROM next_vectors WHERE owner = %(owner)s),"
            " (SELECT count(*) FROM memories WHERE owner = %(owner)s)"
        )
        return (made if self._is_begun(identity) else 0), every

    def _is_begun(self, identity: str) -> bool:
        return self._database.get_fact("next_embedder") == identity

    def list_missing(
        self, identity: str, below: int, limit: int, but: Sequence[int] = ()
    ) -> list[Memory]:
        """Return up to `limit` memories with ids `below` that have no vector of this embedder yet.

        The newest come first: they are asked for most. Those in `but` are left out.
        """
        missing = f" AND {_MISSING}" if self._is_begun(identity) else ""
        rows = self._database.query(
            "SELECT m.id FROM memories AS m WHERE m.owner = %(owner)s AND m.id < %(below)s"
            f" AND m.id <> ALL(%(but)s::bigint[]){missing} ORDER BY m.id DESC LIMIT %(limit)s",
            below=below,
            but=possible(but),
            limit=limited(limit),
        )
        found = self._memories.list_by_ids([row[0] for row in rows])
        return [found[row[0]] for row in rows if row[0] in found]

    def measure_missing(self, identity: str) -> tuple[int, int]:
        """Count the memories that have no vector of this embedder yet, and the bytes of their texts."""
        missing = "TRUE"
        if self._vectors.recorded_embedder() == identity:
            missing = "m.id IN (SELECT memory_id FROM pending_vectors WHERE owner = %(owner)s)"
        elif self._is_begun(identity):
            missing = _MISSING
        ((count, size),) = self._database.query(
            "SELECT count(*), coalesce(sum(octet_length(m.content)"
            " + coalesce(octet_length(m.subject), 0)), 0)"
            f" FROM memories AS m WHERE m.owner = %(owner)s AND {missing}"
        )
        return int(count), int(size)

    def add(self, vectors: Mapping[Memory, Vector], identity: str) -> None:
        """Add vectors of memories that are still what was embedded; inside a transaction.

        A set that another embedder began is deleted.

        Raises:
            DimensionMismatchError: An embedding is wider than the store.
            EmbedderError: An embedding is not a unit vector.
        """
        whole = {memory: sent(padded(vector.embedding)) for memory, vector in vectors.items()}
        if not self._is_begun(identity):
            self.discard()
            self._database.put_fact("next_embedder", identity)
        now = self._memories.list_by_ids([memory.id for memory in vectors])
        kept = [(memory.id, vector) for memory, vector in whole.items() if now.get(memory.id) == memory]
        self._database.execute(
            "INSERT INTO next_vectors (owner, memory_id, content_embedding)"
            " SELECT %(owner)s, * FROM unnest(%(ids)s::bigint[], %(vectors)b::vector[])"
            " ON CONFLICT (owner, memory_id)"
            " DO UPDATE SET content_embedding = excluded.content_embedding",
            **columns_of(kept, "ids", "vectors"),
        )

    def take_over(self, identity: str) -> None:
        """Let the set serve in the place of all other vectors; inside a transaction.

        A memory that is not in it waits for its vector.
        """
        for table in ("vec_memories", "pending_vectors"):
            self._database.execute(f"DELETE FROM {table} WHERE owner = %(owner)s")
        self._database.put_fact("embedder", identity)
        dimensions = dimensions_of(identity)
        made = []
        if dimensions:
            made = self._database.execute(
                "INSERT INTO vec_memories (owner, memory_id, content_embedding, candidate)"
                " SELECT owner, memory_id, content_embedding,"
                " subvector(content_embedding, 1, %(dimensions)s)::halfvec"
                " FROM next_vectors AS n WHERE owner = %(owner)s AND EXISTS (SELECT 1"
                " FROM memories AS m WHERE m.owner = n.owner AND m.id = n.memory_id) RETURNING 1",
                dimensions=dimensions,
            )
            self._database.execute(
                "INSERT INTO pending_vectors (owner, memory_id) SELECT owner, id FROM memories AS m"
                f" WHERE m.owner = %(owner)s AND {_MISSING}"
            )
        before = self._database.numbers("vectors")[0]
        self._database.add_to("vectors", len(made) - before)
        self.discard()

    def discard(self) -> None:
        """Delete the set, whosever it is; inside a transaction."""
        self._database.execute("DELETE FROM next_vectors WHERE owner = %(owner)s")
        self._database.put_fact("next_embedder", None)


_MISSING = "NOT EXISTS (SELECT 1 FROM next_vectors AS n WHERE n.owner = m.owner AND n.memory_id = m.id)"
