"""The nearest memories, by pgvector.

A home of few vectors is scanned exactly. A large one has an HNSW index of its own over half-precision
candidates, built beside all work, and what it finds is measured on the full vectors.
"""

import itertools
import logging
import threading
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from soulkeep.errors import StoreError
from soulkeep.models import Embedding, MemoryFilter, QueryVector
from soulkeep.repository.postgres.database import Database, limited, possible
from soulkeep.repository.postgres.vectors import VectorTable, sent
from soulkeep.repository.postgres.words import conditions
from soulkeep.repository.values import CENTRING, SHRINKAGE, best_compared, dimensions_of, padded

EXACT = 5_000
"""Up to so many vectors are scanned; beyond, HNSW is quicker (`bench/postgres.py`)."""

_MEAN_OF = 5_000
_MEAN_TOLERANCE = 0.02
"""The mean of a home is taken of so many of its vectors, and again where their number moved by that."""

_GRAPH_BYTES, _MOST_MEMORY_MB = 600, 2_048
"""HNSW is built in memory, several times as fast as on disk: what a vector takes there beside its own
values, and what a build may take of the machine of the database."""

_LOOKED_AT = 200
"""So many are looked at for the links of a vector. The 64 of pgvector's own are all of one kind where
many texts are alike, and lead to no other: of the ten nearest of 500,000 a share of 0.95 was found, and
with these 0.99 (`bench/postgres.py`)."""

_LOOKED_THROUGH = 250, 1_000
_ONE_IN = 500
"""For a question HNSW looks through one in so many vectors, at least and at most so many. Among 100,000
the least finds all of the ten nearest; among 500,000 400 find a share of 0.95, and the most of 0.99."""

_BESIDE = 32
"""So many more candidates are measured than are asked for."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _State:
    """What a search has to know: whose vectors there are, how many, and whether HNSW has them."""

    embedder: str | None
    count: int
    has_index: bool

    @property
    def dimensions(self) -> int:
        return dimensions_of(self.embedder)


class VectorSearch:
    """Finds the nearest memories; the threads of this process share it."""

    def __init__(self, database: Database, table: VectorTable) -> None:
        """Search in the home that `database` has open; `table` measures what is found."""
        self._database = database
        self._table = table
        self._mean: tuple[str | None, int, Sequence[float]] = (None, 0, ())
        self._building: threading.Thread | None = None

    def load(self, parts: Sequence[int]) -> None:
        """Let the home have its index, if it has as many vectors as that takes; nobody waits for it."""
        self._look()

    def _look(self) -> _State:
        index = f"vec_memories_near_{self._database.number}"
        ((embedder, count, has_index),) = self._database.query(
            "SELECT (SELECT value FROM store_facts WHERE owner = %(owner)s AND name = 'embedder'),"
            " coalesce((SELECT value FROM numbers WHERE owner = %(owner)s AND name = 'vectors'), 0),"
            " coalesce((SELECT indisvalid FROM pg_index"
            " WHERE indexrelid = to_regclass(%(index)s)), false)",
            index=index,
        )
        state = _State(embedder, count, has_index)
        if count > EXACT and not has_index and state.dimensions and self._building is None:
            self._building = threading.Thread(
                target=self._build, args=(index, state), name="soulkeep-index", daemon=True
            )
            self._building.start()
        return state

    def _build(self, index: str, state: _State) -> None:
        """Build the index, unless another process is at it; what was left half done goes first."""
        named, dimensions = sql.Identifier(index), state.dimensions
        memory = min(max(state.count * (2 * dimensions + _GRAPH_BYTES) >> 20, 64), _MOST_MEMORY_MB)
        statements = (
            sql.SQL("SET maintenance_work_mem = {}").format(sql.Literal(f"{memory}MB")),
            sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(named),
            sql.SQL(
                "CREATE INDEX CONCURRENTLY {} ON vec_memories USING hnsw"
                " ((candidate::halfvec({})) halfvec_ip_ops)"
                " WITH (ef_construction = {}) WHERE owner = {} AND vector_dims(candidate) = {}"
            ).format(named, dimensions, _LOOKED_AT, sql.Literal(self._database.owner), dimensions),
        )
        server = self._database.server
        try:
            with server.sole_holder(index) as is_alone:
                if is_alone:
                    with server.connect() as connection:
                        for statement in statements:
                            connection.execute(statement)
        except (psycopg.Error, StoreError) as error:
            _log.warning("the index of the vectors was not built: %s", type(error).__name__)
        self._building = None

    def nearest(
        self, embedding: Embedding, allowed: MemoryFilter, limit: int
    ) -> list[tuple[int, float]]:
        """Return up to `limit` (at most 4096) pairs of id and cosine distance (0..2), nearest first.

        Equals are in the order of their ids. Filters apply before the limit.

        Raises:
            StoreError: The store cannot be read.
            EmbedderError: The embedding is not a unit vector.
        """
        whole = sent(padded(embedding))
        state = self._look()
        if not state.count:
            return []
        dimensions = len(embedding) // 4
        candidates, values = self._candidates(state, allowed, dimensions, limit + _BESIDE)
        rows = self._database.query(
            "SELECT memory_id, content_embedding <=> %(whole)s::vector AS distance"
            f" FROM vec_memories WHERE owner = %(owner)s AND memory_id IN ({candidates.format(n=0)})"
            " ORDER BY distance, memory_id LIMIT %(limit)s",
            **values,
            whole=whole,
            asked_0=sent(embedding),
            limit=limited(limit),
        )
        return [(row[0], row[1]) for row in rows]

    def _candidates(
        self, state: _State, allowed: MemoryFilter, dimensions: int, depth: int
    ) -> tuple[str, dict[str, object]]:
        """Return SQL for the ids of the best by `asked_{n}`, with a place for the n, and its values.

        Where few enough pass the filter, all of those are compared; else the index is asked.
        """
        where, of_filter = conditions(allowed)
        values: dict[str, object] = {**of_filter, "depth": depth, "dimensions": dimensions}
        join = " JOIN memories AS m ON m.owner = v.owner AND m.id = v.memory_id" if where else ""
        candidate, asked = "v.candidate", "%(asked_{n})s::vector::halfvec"
        is_near = state.has_index
        if is_near and where:
            ((count,),) = self._database.query(
                "SELECT count(*) FROM (SELECT 1 FROM memories AS m WHERE m.owner = %(owner)s"
                f"{where} LIMIT %(most)s) AS passing",
                **of_filter,
                most=EXACT + 1,
            )
            is_near = count > EXACT
        if is_near:
            candidate = f"v.candidate::halfvec({dimensions})"
            # The setting is made for this statement alone, as HNSW is handed its question.
            setting = "set_config('hnsw.ef_search', %(through)s, true) <> ''"
            asked = f"(SELECT {asked}({dimensions}) WHERE {setting})"
            least, most = _LOOKED_THROUGH
            values["through"] = str(min(max(state.count // _ONE_IN, least), most))
        tie = "" if is_near else ", v.memory_id"
        return (
            f"SELECT v.memory_id FROM vec_memories AS v{join} WHERE v.owner = %(owner)s"
            f" AND vector_dims(v.candidate) = {dimensions}{where}"
            f" ORDER BY {candidate} <#> {asked}{tie} LIMIT %(depth)s",
            values,
        )

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
        state = self._look()
        if state.embedder != query.made_by or not state.count:
            return {}
        asked = self._centred(query, state)
        ends = list(itertools.accumulate(query.parts))
        parts = [asked[end - part : end] for end, part in zip(ends, query.parts, strict=True)]
        candidates, values = self._candidates(state, allowed, len(asked), depth + _BESIDE)
        # The parts of a unit vector are shorter than it, each by the same.
        cosines = ", ".join(
            f"-{len(parts)} * (subvector(v.candidate, {end - part + 1}, {part})::vector"
            f" <#> %(part_{n})s::vector)"
            for n, (end, part) in enumerate(zip(ends, query.parts, strict=True))
        )
        for n, weighting in enumerate(query.weightings):
            weighed = [w * value for w, part in zip(weighting, parts, strict=True) for value in part]
            values[f"asked_{n}"] = sent(array("f", weighed).tobytes())
        near = " UNION ".join(f"({candidates.format(n=n)})" for n in range(len(query.weightings)))
        rows = self._database.query(
            f"WITH near AS MATERIALIZED ({near}), asked AS (SELECT memory_id FROM near"
            " UNION SELECT unnest(%(also)s::bigint[])) SELECT v.memory_id,"
            f" v.memory_id IN (SELECT memory_id FROM near), {cosines} FROM vec_memories AS v"
            f" WHERE v.owner = %(owner)s AND vector_dims(v.candidate) = {len(asked)}"
            " AND v.memory_id = ANY(ARRAY(SELECT memory_id FROM asked))",
            **values,
            **{f"part_{n}": sent(array("f", part).tobytes()) for n, part in enumerate(parts)},
            also=possible(also),
        )
        compared = {row[0]: tuple(row[2:]) for row in rows}
        return best_compared(compared, [row[0] for row in rows if row[1]], query.weightings, depth, also)

    def _centred(self, query: QueryVector, state: _State) -> list[float]:
        """Return a question without half of what all memories have in common, which tells nothing."""
        asked = list(array("f", query.embedding))
        if not query.is_centred:
            return asked
        embedder, count, mean = self._mean
        if embedder != state.embedder or abs(state.count - count) > _MEAN_TOLERANCE * count:
            mean = self._mean_of(state, len(asked))
            self._mean = state.embedder, state.count, mean
        # Drawn to zero where they are few and say little of others.
        share = CENTRING * state.count / (state.count + SHRINKAGE)
        return [one - share * other for one, other in zip(asked, mean, strict=True)]

    def _mean_of(self, state: _State, dimensions: int) -> Sequence[float]:
        some = ""
        if state.count > _MEAN_OF:
            some = (
                " AND memory_id IN (SELECT generate_series(min(memory_id), max(memory_id),"
                f" greatest(1, (max(memory_id) - min(memory_id)) / {_MEAN_OF}))"
                " FROM vec_memories WHERE owner = %(owner)s)"
            )
        ((mean,),) = self._database.query(
            "SELECT avg(candidate)::vector::real[] FROM vec_memories WHERE owner = %(owner)s"
            f" AND vector_dims(candidate) = {dimensions}{some}"
        )
        return mean or [0.0] * dimensions
