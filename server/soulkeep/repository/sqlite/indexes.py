"""What memories are found by: words (FTS5), filters, and vectors (sqlite-vec), those to come too."""

import itertools
import json
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from soulkeep.models import Embedding, Memory, MemoryFilter, Vector, Waiting
from soulkeep.repository import Memories
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.schema import VEC_MEMORIES
from soulkeep.repository.values import DIMENSIONS, dimensions_of, padded
from soulkeep.search.words import SIGNS, is_single_unspaced, split_words

# FTS5 cuts words at signs, and takes characters for private use for letters; no word has those.
_AS_LETTERS = {ord(sign): 0xE000 + ord(sign) for sign in SIGNS}


def fts_text(text: str) -> str:
    """Return what FTS5 is to hold of a text: its words, with letters in the place of signs."""
    return " ".join(split_words(text)).translate(_AS_LETTERS)


def fts_term(term: str) -> str:
    """Return what FTS5 has to match for one word of `split_query`."""
    term = term.translate(_AS_LETTERS)
    # Quoted, a word is a string to FTS5 and never one of its operators.
    return f'"{term}"*' if is_single_unspaced(term) else f'"{term}"'


WHEN = "ifnull(m.occurred_at, m.created_at)"
"""When a memory of `memories AS m` happened or was said."""


_PASSING = {
    "thread_id": "(m.thread_id = :thread_id OR m.thread_id IS NULL)",
    "memory_type": "m.memory_type = :memory_type",
    "since": f"{WHEN} >= :since",
    "until": f"{WHEN} <= :until",
}


def conditions(
    allowed: MemoryFilter, passing: Mapping[str, str] = _PASSING
) -> tuple[str, dict[str, str]]:
    """Return SQL that begins with AND for each field that is set, and its values.

    `passing` says for each field what passes; as it is, of `memories AS m`.
    """
    values = {name: value for name in passing if (value := getattr(allowed, name)) is not None}
    return "".join(f" AND {passing[name]}" for name in values), values


TOLERANCE = 0.01
"""A kept count is used again while at most this share of it can have been added or taken away."""

_MAXIMUM_KEPT = 10_000


class WordFrequencies:
    """Counts for weighing words; the threads of this process share it.

    Counting reads every occurrence, so a word in half of a million memories takes tens of milliseconds.
    """

    def __init__(self, database: Database) -> None:
        """Count the words of the store that `database` has open."""
        self._database = database
        self._lock = threading.Lock()
        self._kept: dict[str | None, tuple[int, int]] = {}
        self._generation = 0

    def count_and_frequencies(self, terms: Sequence[str]) -> tuple[int, dict[str, int]]:
        """Return how many memories there are, and in how many each word of `terms` occurs.

        Both may be off by one in a hundred, where they are 100 or more.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._lock:
            generation = self._database.generation
            last_id, last_change = self._database.query(
                "SELECT (SELECT max(id) FROM memories_fts_docsize),"
                " (SELECT max(seq) FROM memory_changes)"
            )[0]
            writes = int(last_id or 0) + int(last_change or 0)
            if len(self._kept) > _MAXIMUM_KEPT or self._generation != generation:
                self._kept.clear()
                self._generation = generation
            count = self._fresh(None, writes)
            return count, {term: self._fresh(term, writes) for term in terms}

    def release(self) -> None:
        """Give back the memory of the counts."""
        with self._lock:
            self._kept.clear()

    def _fresh(self, term: str | None, writes: int) -> int:
        """Return how many memories have a word, or there are, counted anew where much was written."""
        kept, then = self._kept.get(term, (0, 0))
        if not 0 <= writes - then <= kept * TOLERANCE:
            if term is None:
                rows = self._database.query("SELECT count(*) FROM memories_fts_docsize")
            else:
                count = "SELECT count(*) FROM memories_fts WHERE memories_fts MATCH ?"
                rows = self._database.query(count, (fts_term(term),))
            kept = int(rows[0][0])
            self._kept[term] = (kept, writes)
        return kept


KEPT_CHANGES = 2_000
"""How many deleted or replaced vectors are named to other processes; after more of them loading all
vectors anew is the quicker way."""


@dataclass(eq=False)
class VectorTable:
    """Rows of vec_memories, and the embedder that the store records."""

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
        self._database.execute_many(
            "INSERT INTO vec_memories (memory_id, content_embedding) VALUES (?, ?)",
            ((memory_id, padded(embedding)) for memory_id, embedding in fitting.items()),
        )
        missing = [memory_id for memory_id in memory_ids if memory_id not in fitting]
        if missing and self.has_vectors:
            self._database.execute_many(
                "INSERT OR IGNORE INTO pending_vectors (memory_id) VALUES (?)", ((i,) for i in missing)
            )

    def list_pending(
        self, limit: int = -1, now: str | None = None, among: Collection[int] | None = None
    ) -> dict[int, int]:
        """Return which memories wait for their vectors, newest first, and how often each was put off.

        With `now`, only those whose turn it is; with `among`, only those of these ids.
        """
        within = "" if among is None else " AND memory_id IN (SELECT value FROM json_each(:among))"
        rows = self._database.query(
            "SELECT memory_id, attempts FROM pending_vectors"
            f" WHERE (:now IS NULL OR next_try <= :now){within} ORDER BY memory_id DESC LIMIT :limit",
            {"now": now, "limit": limit, "among": json.dumps(list(among or ()))},
        )
        return dict(rows)

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
        ids = list(self.list_pending(among=vectors))
        pending = "DELETE FROM pending_vectors WHERE memory_id IN (SELECT value FROM json_each(?))"
        self._database.execute(pending, (json.dumps(ids),))
        self.add_vectors(ids, [vectors[memory_id] for memory_id in ids])
        self.note_changes(ids)

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
        cosines: dict[int, tuple[float, ...]] = {}
        for memory_id, vector in rows:
            others = np.split(np.frombuffer(vector, "<f4", ends[-1]), ends[:-1])
            lengths = [
                float(np.linalg.norm(a) * np.linalg.norm(b)) for a, b in zip(own, others, strict=True)
            ]
            cosines[memory_id] = tuple(
                float(one @ other) / length if length else 0.0
                for one, other, length in zip(own, others, lengths, strict=True)
            )
        return cosines

    def delete_vectors(self, memory_ids: Sequence[int]) -> None:
        """Delete the vectors of these memories, and tell other processes; inside a transaction."""
        for table in ("vec_memories", "pending_vectors", "next_vectors"):
            self._database.execute_many(
                f"DELETE FROM {table} WHERE memory_id = ?", ((memory_id,) for memory_id in memory_ids)
            )
        self.note_changes(memory_ids)

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
        return dimensions_of(self.recorded_embedder()) > 0

    def claim_embedder(self, identity: str) -> None:
        """Record whose vectors the store holds, on the first memory; inside a transaction."""
        self._database.execute(
            "INSERT OR IGNORE INTO store_facts (name, value) VALUES ('embedder', ?)", (identity,)
        )


_PAGE = 1_000


@dataclass(eq=False)
class NextVectors:
    """Rows of next_vectors: one set, of one embedder, which a fact in the store names."""

    _database: Database
    _memories: Memories
    _vectors: VectorTable

    def count(self, identity: str) -> tuple[int, int]:
        """Return how many memories have a vector of this embedder in the set, and how many there are."""
        made, every = self._database.query(
            "SELECT (SELECT count(*) FROM next_vectors), (SELECT count(*) FROM memories)"
        )[0]
        is_begun = self._database.get_fact("next_embedder") == identity
        return (made if is_begun else 0), every

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
            padded(vector.embedding)  # refuses what cannot serve
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

        A memory that is not in it waits for its vector.
        """
        # To make the table anew is quicker than to delete each vector, and leaves no gaps.
        for statement in (
            "DROP TABLE vec_memories",
            VEC_MEMORIES,
            "DELETE FROM pending_vectors",
            "DELETE FROM memory_changes",
        ):
            self._database.execute(statement)
        self._vectors.note_changes([row[0] for row in self._database.query("SELECT id FROM memories")])
        self._database.put_fact("embedder", identity)
        if self._vectors.has_vectors:
            self._database.execute("INSERT INTO pending_vectors (memory_id) SELECT id FROM memories")
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
