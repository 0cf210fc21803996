"""The nearest memories by a scan of int8 codes in process memory, and then measured exactly.

`vec_memories` stays the only vectors on disk. A scan of it reads 6 KiB a row; this one reads a byte for
each dimension, and only its best candidates are measured on the vectors themselves: those in the store,
or where there are neither many nor few, what the codes hold of them.
"""

import dataclasses
import itertools
import json
import threading
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from soulkeep.errors import StoreError
from soulkeep.models import Embedding, MemoryFilter, QueryVector
from soulkeep.progress import tell
from soulkeep.repository.sqlite.database import Database, Row
from soulkeep.repository.sqlite.indexes import KEPT_CHANGES, VectorTable
from soulkeep.repository.sqlite.schema import OCCURRED_AT
from soulkeep.repository.values import DIMENSIONS, best_compared, dimensions_of, padded

if TYPE_CHECKING:
    from soulkeep.repository.sqlite.codes import Array, Codes, Columns

MAXIMUM_ROWS = 2_000_000
"""Above, the codes of the default embedder would take more than 1.8 GB of each process."""

CODE_ERROR = 0.005
"""By how much the cosine of codes may differ from that of their vectors.

Rounding to steps of peak / 127 errs by a standard deviation of 0.0008 for 256 dimensions with peaks of
0.25 on both sides: this is six of them.
"""

OVERSAMPLING = 8
"""At most so many times the limit are measured, where that many are too close for the codes to order."""

_BESIDE = 16
"""So many more are measured than are asked for by each weighting, whose order the codes may miss."""

RELOAD_CHANGES = KEPT_CHANGES
"""Where more vectors were deleted or replaced, all are loaded anew."""

_PAGE = 1_000
_METADATA_PAGE = 20_000
_EVERYTHING = MemoryFilter()
_FILTERS = {"thread_id", "memory_type", "since", "until"}

_METADATA = (
    "m.id, m.thread_id, m.memory_type,"
    f" ifnull(CAST(round(unixepoch({OCCURRED_AT}, 'subsec') * 1000) AS INTEGER), 0) AS moment"
)
_VECTORS = "vec_memories_vector_chunks00", "vectors"
"""The table and the column of what holds the vectors, some hundred in a row."""

_WITH_VECTOR = "CROSS JOIN vec_memories AS v ON v.memory_id = m.id"


@dataclasses.dataclass(frozen=True, slots=True)
class _State:
    """What shows that vectors were added, deleted or replaced, by whichever connection."""

    embedder: str | None
    last_id: int
    last_change: int
    generation: int = 0

    @property
    def dimensions(self) -> int:
        """How many dimensions the vectors have; 0 if the embedder's identity does not say."""
        return dimensions_of(self.embedder)


class VectorScan:
    """Finds the nearest memories; the threads of this process share it.

    Call it outside transactions: it must not see what may be rolled back, and a thread that waits for
    it must not hold the store.
    """

    def __init__(self, database: Database, table: VectorTable) -> None:
        """Scan for `database`; `table` answers where scanning is impossible or no gain."""
        self._database = database
        self._table = table
        self._lock = threading.Lock()
        self._codes: Codes | None = None
        self._parts: Sequence[int] = ()
        self._seen = _State(None, 0, 0)

    def load(self, parts: Sequence[int]) -> None:
        """Make the codes, unless they are there; the first search would have to.

        `parts` are the lengths of the vectors' parts that will be compared.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._lock:
            self._parts = parts
            self._fresh()

    def release(self) -> None:
        """Give back the memory of the codes; the next search makes them again."""
        with self._lock:
            self._codes = None

    def memory_used(self) -> int:
        """Return how many bytes the codes take."""
        codes = self._codes
        return 0 if codes is None else codes.memory_used

    def nearest(
        self, embedding: Embedding, allowed: MemoryFilter, limit: int
    ) -> list[tuple[int, float]]:
        """Return up to `limit` (at most 4096) pairs of id and cosine distance (0..2), nearest first.

        Equals are in the order of their ids. Filters apply before the limit.

        Raises:
            StoreError: The store cannot be read.
            EmbedderError: The embedding is not a unit vector.
        """
        vector = padded(embedding)
        with self._lock:
            codes = self._fresh(allowed)
            found = None
            if codes is not None:
                asked = _floats(vector)[: codes.dimensions]
                found = codes.best(asked, allowed, limit * OVERSAMPLING)
        if found is None:
            return self._table.nearest(embedding, allowed, limit)
        if len(found) > limit:
            threshold = list(found.values())[limit - 1] - 2 * CODE_ERROR
            found = {memory_id: cosine for memory_id, cosine in found.items() if cosine >= threshold}
        rows = self._database.query(
            "SELECT v.memory_id, vec_distance_cosine(v.content_embedding, :vector) AS distance"
            # Without CROSS the planner may read the whole of vec_memories first.
            " FROM json_each(:ids) AS wanted CROSS JOIN vec_memories AS v"
            " WHERE v.memory_id = wanted.value ORDER BY distance, v.memory_id LIMIT :limit",
            # Neighbours on disk one after another.
            {"vector": vector, "ids": json.dumps(sorted(found)), "limit": limit},
        )
        return [(row[0], row[1]) for row in rows]

    def compare(
        self, query: QueryVector, allowed: MemoryFilter, depth: int, also: Collection[int]
    ) -> dict[int, tuple[float, ...]]:
        """Return the cosines (-1..1) of each part, by id.

        They are those of the nearest `depth` memories by each weighting, and of those in `also`: none
        where the vectors are another embedder's by now.

        Raises:
            StoreError: The store cannot be read.
            EmbedderError: The embedding is not a unit vector.
        """
        padded(query.embedding)
        with self._lock:
            codes = self._fresh(allowed)
            if codes is not None:
                if self._seen.embedder != query.made_by:
                    return {}
                near, asked = codes.near(query, allowed, depth + _BESIDE)
                measured = codes.cosines(asked, {*near, *also})
        if codes is None:
            asked, measured = _floats(query.embedding), None
            near = [i for i, _ in self._table.nearest(query.embedding, allowed, depth)]
        if measured is None:
            measured = self._measured(asked, query.parts, {*near, *also})
        return best_compared(measured, near, query.weightings, depth, also)

    def _measured(
        self, asked: "Array", parts: Sequence[int], ids: Collection[int]
    ) -> dict[int, tuple[float, ...]]:
        """Return the cosines of each part of a question and of the vectors themselves, by id."""
        import numpy as np

        wanted, length = (json.dumps(sorted(ids)),), 4 * len(asked)
        try:
            # From the tables that vec_memories is made of: asking it takes three times as long.
            with self._database.snapshot():
                rows = self._database.query(
                    "SELECT r.rowid, r.chunk_id, r.chunk_offset FROM json_each(?) AS wanted"
                    " CROSS JOIN vec_memories_rowids AS r ON r.rowid = wanted.value ORDER BY 2, 3",
                    wanted,
                )
                pieces = ((chunk, 4 * DIMENSIONS * place, length) for _, chunk, place in rows)
                found = self._database.read_pieces(*_VECTORS, pieces)
            vectors = _floats(b"".join(found)).reshape(len(rows), len(asked))
        except (StoreError, ValueError):
            # Another version of sqlite-vec may keep its vectors otherwise.
            rows = self._database.query(
                "SELECT v.memory_id, v.content_embedding FROM json_each(?) AS wanted"
                " CROSS JOIN vec_memories AS v WHERE v.memory_id = wanted.value",
                wanted,
            )
            found = [row[1][:length] for row in rows]
            vectors = _floats(b"".join(found)).reshape(len(rows), len(asked))
        # The parts of a unit vector are shorter than it, each by the same.
        asked, ends = len(parts) * asked, itertools.accumulate(parts)
        cosines = [
            np.einsum("ij,j->i", vectors[:, end - length : end], asked[end - length : end]).tolist()
            for length, end in zip(parts, ends, strict=True)
        ]
        return dict(zip((row[0] for row in rows), zip(*cosines, strict=True), strict=True))

    def _fresh(self, allowed: MemoryFilter = _EVERYTHING) -> "Codes | None":
        """Return the codes as the store is now; None where the exact search has to serve."""
        state = self._look()
        known, self._codes = self._codes, None  # so that an error half way leaves nothing half done
        if not state.last_id or not state.dimensions:
            return None
        try:
            # Nothing as slow as numpy may be imported before the first protocol answer.
            from soulkeep.repository.sqlite.codes import Codes
        except ImportError:
            return None
        if state.last_id > MAXIMUM_ROWS:
            rows = self._database.query("SELECT count(*) FROM vec_memories_rowids")[0][0]
            if rows > MAXIMUM_ROWS:
                return None
        changes = state.last_change - self._seen.last_change
        is_other = (state.generation, state.embedder) != (self._seen.generation, self._seen.embedder)
        if known is None or is_other or not 0 <= changes <= RELOAD_CHANGES:
            known = self._loaded(Codes, state)
        elif state != self._seen:
            self._catch_up(known, state)
        self._codes, self._seen = known, state
        # By other fields of a filter than these the codes cannot tell what passes.
        others = {field.name for field in dataclasses.fields(allowed)} - _FILTERS
        return known if all(getattr(allowed, name) is None for name in others) else None

    def _look(self) -> _State:
        # Read in one statement, thus from one moment: what comes later shows in the next look.
        generation = self._database.generation
        embedder, last_id, last_change = self._database.query(
            "SELECT (SELECT value FROM store_facts WHERE name = 'embedder'),"
            " (SELECT max(rowid) FROM vec_memories_rowids), (SELECT max(seq) FROM memory_changes)"
        )[0]
        return _State(embedder, last_id or 0, last_change or 0, generation)

    def _loaded(self, made: "type[Codes]", state: _State) -> "Codes":
        parts = self._parts if sum(self._parts) == state.dimensions else [state.dimensions]
        import numpy as np

        codes = made(parts)
        try:
            memories = self._described_memories(codes, state.last_id)
            codes.begin_with(memories)
            for ids, vectors in self._chunks():
                tell("Loading vectors")
                places = np.searchsorted(memories["ids"], ids)
                places[places == len(memories["ids"])] = 0
                known = memories["ids"][places] == ids
                described = {name: column[places[known]] for name, column in memories.items()}
                codes.put(described, vectors[np.flatnonzero(known), : codes.dimensions])
        except (StoreError, ValueError):
            # Another version of sqlite-vec may keep its vectors otherwise.
            codes = made(parts)
            self._append_between(codes, 0, state.last_id)
        return codes

    def _described_memories(self, codes: "Codes", last_id: int) -> "Columns":
        import numpy as np

        pages, after = [codes.described([], [], [], [])], -1
        while True:
            # As four texts: a hundred thousand rows as Python tuples would take three times as long.
            texts = self._database.query(
                "SELECT json_group_array(id), json_group_array(thread_id),"
                " json_group_array(memory_type), json_group_array(moment) FROM"
                f" (SELECT {_METADATA} FROM memories AS m WHERE m.id > ? AND m.id <= ?"
                " ORDER BY m.id LIMIT ?)",
                (after, last_id, _METADATA_PAGE),
            )[0]
            ids, threads, kinds, moments = map(json.loads, texts)
            if not ids:
                break
            pages.append(codes.described(ids, threads, kinds, moments))
            after = ids[-1]
        described = {name: np.concatenate([page[name] for page in pages]) for name in pages[0]}
        if not len(described["ids"]):
            raise ValueError("no memories")
        return described

    def _chunks(self) -> "Iterator[tuple[Array, Array]]":
        """Yield ids and vectors from the tables that vec_memories is made of, some 6 MB at a time."""
        import numpy as np

        after = -1
        while rows := self._database.query(
            "SELECT c.chunk_id, c.size, c.validity, c.rowids, v.vectors FROM vec_memories_chunks AS c"
            " CROSS JOIN vec_memories_vector_chunks00 AS v ON v.rowid = c.chunk_id"
            " WHERE c.chunk_id > ? ORDER BY c.chunk_id LIMIT 1",
            (after,),
        ):
            after, size, validity, ids, vectors = rows[0]
            if (8 * len(validity), len(ids), len(vectors)) != (size, 8 * size, 4 * DIMENSIONS * size):
                raise ValueError("chunks of another shape")
            valid = np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little").astype(bool)
            every = np.frombuffer(ids, "<i8")
            # Vectors are left where they are: only the dimensions to scan are worth a copy.
            yield np.where(valid, every, -1), _floats(vectors).reshape(size, DIMENSIONS)

    def _catch_up(self, codes: "Codes", state: _State) -> None:
        if state.last_change != self._seen.last_change:
            rows = self._database.query(
                "SELECT DISTINCT memory_id FROM memory_changes WHERE seq > ? AND seq <= ?"
                " AND memory_id <= ?",
                (self._seen.last_change, state.last_change, self._seen.last_id),
            )
            if changed := [row[0] for row in rows]:
                codes.drop(changed)
                replaced = self._database.query(
                    f"SELECT {_METADATA}, v.content_embedding FROM json_each(?) AS wanted"
                    f" CROSS JOIN memories AS m ON m.id = wanted.value {_WITH_VECTOR}",
                    (json.dumps(changed),),
                )
                _put(codes, replaced)
        self._append_between(codes, self._seen.last_id, state.last_id)

    def _append_between(self, codes: "Codes", after: int, last_id: int) -> None:
        while after < last_id:
            rows = self._database.query(
                f"SELECT {_METADATA}, v.content_embedding FROM memories AS m {_WITH_VECTOR}"
                " WHERE m.id > ? AND m.id <= ? ORDER BY m.id LIMIT ?",
                (after, last_id, _PAGE),
            )
            _put(codes, rows)
            after = rows[-1][0] if len(rows) == _PAGE else last_id


def _put(codes: "Codes", rows: Sequence[Row]) -> None:
    if rows:
        vectors = _floats(b"".join(row[-1] for row in rows)).reshape(len(rows), -1)
        codes.put(
            codes.described(*zip(*(row[:-1] for row in rows), strict=True)),
            vectors[:, : codes.dimensions],
        )


def _floats(vectors: bytes) -> "Array":
    import numpy as np

    return np.frombuffer(vectors, "<f4")
